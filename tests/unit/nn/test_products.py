"""Matrix products by either library: the same numbers, and a switch that is put back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from remit.nn import products


def switch() -> str:
    return torch.backends.mkldnn.matmul.fp32_precision


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    before = switch()
    yield
    products.use(True)
    products.onednn_serves.cache_clear()
    assert switch() == before


@pytest.fixture
def routing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Route on whatever processor this is; the switch as each product sees it."""
    products.probe()  # and not while products are watched
    monkeypatch.setattr(products, "onednn_serves", lambda: True)
    monkeypatch.setattr(products.onednn_serves, "cache_clear", lambda: None, raising=False)
    seen: list[str] = []
    for name in ("mm", "addmm", "bmm", "baddbmm"):
        multiply = getattr(torch, name)

        def watched(*args: Tensor, multiply=multiply, **kwargs: Tensor) -> Tensor:
            seen.append(switch())
            return multiply(*args, **kwargs)

        monkeypatch.setattr(torch, name, watched)
    return seen


def error(found: Tensor, a: Tensor, b: Tensor) -> float:
    exact = a.double() @ b.double()
    return float((found.double() - exact).norm() / exact.norm())


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_are_exact_and_the_switch_is_put_back(
    routing: list[str], wanted: bool, dtype: torch.dtype
) -> None:
    if wanted and products.probe() > products.EXACT:
        pytest.skip(f"oneDNN rounds to bfloat16 here (relative error {products.probe():.1e})")
    assert products.use(wanted) == products.routed() == wanted
    before = switch()
    torch.manual_seed(0)
    a, b = torch.randn(37, 200, dtype=dtype), torch.randn(200, 65, dtype=dtype)
    with products.fast(a):
        found = [products.rows(a, b, torch.full((37, 65), torch.nan, dtype=dtype))]
        found.append(products.rows(a, b, torch.ones(37, 65, dtype=dtype), add=True) - 1)
        found.append(products.rows(a.t().contiguous().t(), b, torch.empty(37, 65, dtype=dtype)))
        wide = (a.expand(6, 37, 200), b.expand(6, 200, 65))
        stacked = products.stacked(*wide, torch.empty(6, 37, 65, dtype=dtype))
        added = products.stacked(*wide, torch.ones(6, 37, 65, dtype=dtype), add=True) - 1
    assert switch() == before
    for product in (*found, *stacked, *added):
        assert error(product, a, b) < (2e-6 if dtype == torch.float32 else 1e-14)
    routed = wanted and dtype == torch.float32
    assert routing == ["bf16" if routed else before] * 5


def test_the_switch_is_put_back_after_an_error(routing: list[str]) -> None:
    assert products.use(True)
    before = switch()
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        products.fast(torch.ones(1)),
    ):
        products.rows(torch.ones(2, 3), torch.ones(2, 3), torch.empty(2, 3))
    assert routing == ["bf16"] and switch() == before != "bf16"


def test_only_the_processor_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert products.onednn_serves.__wrapped__() == (
        products._made_by_amd()
        and torch.backends.mkldnn.is_available()
        and products.probe() <= products.EXACT
    )
    for amd, probed, expected in ((True, 3e-7, True), (True, 3e-3, False), (False, 3e-7, False)):
        monkeypatch.setattr(products, "_made_by_amd", lambda amd=amd: amd)
        monkeypatch.setattr(products, "probe", lambda probed=probed: probed)
        products.onednn_serves.cache_clear()
        assert products.use(True) == expected == products.routed()
        assert products.use(False) is False and products.routed() is False


def test_the_probe_measures_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    before = switch()
    assert products.probe.__wrapped__() == products.probe()
    assert 0 < products.probe() < 1e-2 and switch() == before
    bmm = torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: bmm(a.bfloat16(), b.bfloat16()).float())
    assert products.probe.__wrapped__() > products.EXACT  # as a processor with AMX would


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vendor_id : AuthenticAMD\nflags : avx2 avx512f", True),
        ("vendor_id : AuthenticAMD\nflags : avx2", False),
        ("vendor_id : GenuineIntel\nflags : avx512f", False),
        (None, False),
    ],
)
def test_the_processor_is_read_from_linux(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: bool
) -> None:
    def read(path: Path, **_: str) -> str:
        assert path == Path("/proc/cpuinfo")
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    assert products._made_by_amd.__wrapped__() is expected


def test_half_rounds_the_factors_and_keeps_the_sum() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(40, 300), torch.randn(300, 20)
    found = products.rows(a, b, torch.empty(40, 20), half=True)
    assert found.dtype == torch.float32 and 1e-4 < error(found, a, b) < 1e-2
    total = torch.full((40, 20), 1e6)
    products.rows(a, b, total, add=True, half=True)
    torch.testing.assert_close(total - 1e6, found, rtol=0, atol=0.07)  # a unit of float32 there


def test_threads_that_overlap_put_the_switch_back(routing: list[str]) -> None:
    assert products.use(True)
    before = switch()
    first, second = products.fast(torch.ones(1)), products.fast(torch.ones(1))
    first.__enter__()
    second.__enter__()  # of another thread, say
    first.__exit__(None, None, None)
    assert switch() == "bf16"
    second.__exit__(None, None, None)
    assert switch() == before != "bf16"


def test_the_probe_does_not_depend_on_what_its_caller_has_set() -> None:
    expected = products.probe.__wrapped__()
    assert 0 < expected < 1e-2  # float32 or bfloat16, but never the exact zero of float64
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.probe.__wrapped__() == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert products.probe.__wrapped__() == expected
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_was_inherited_is_inherited_afterwards() -> None:
    generic = torch.backends.mkldnn
    before = generic.fp32_precision
    generic.fp32_precision = "tf32"
    try:
        with products._onednn:
            assert switch() == "bf16"
        generic.fp32_precision = "ieee"
        assert switch() == "ieee"
    finally:
        generic.fp32_precision = before
