"""The block as one function: against its own plain operations, and what its buffers must not do."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from remit.nn import buffers, products, tiles
from remit.nn import mixer as mixer_module
from remit.nn.mamba2 import BidirectionalMamba2, Mamba2


def block(seed: int = 0, dtype: torch.dtype = torch.float64, **settings: Any) -> Mamba2:
    """A small block with no parameter at its initial value of one."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"d_model": 8, "d_state": 4, "headdim": 4, "chunk_size": 4} | settings
    mixer = Mamba2(**sizes)
    with torch.no_grad():
        for parameter in (mixer.D, mixer.norm.weight, mixer.dt_bias):
            parameter.add_(0.5 * torch.randn_like(parameter))
    return mixer.to(dtype)


def pass_through(
    mixer: Mamba2, u_BTD: Tensor, lengths_B: Tensor | None, *, reverse: bool, plain: bool = False
) -> dict[str, Tensor]:
    """The output and every gradient of a fixed weighing of it."""
    mixer = copy.deepcopy(mixer)
    u_BTD = u_BTD.detach().clone().requires_grad_()
    run = mixer._plain if plain else mixer
    out_BTD = run(u_BTD, lengths_B, reverse=reverse)
    weights = torch.linspace(-1.0, 2.0, out_BTD.numel(), dtype=torch.float64)
    (out_BTD * weights.to(out_BTD.dtype).view_as(out_BTD)).sum().backward()
    gradients = {name: p.grad for name, p in mixer.named_parameters()}
    found = {"out": out_BTD.detach(), "u": u_BTD.grad, **gradients}
    assert all(tensor is not None for tensor in found.values())
    return found  # type: ignore[return-value]


def errors(found: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """The relative error of the output and of every gradient."""
    return {
        name: float((found[name].double() - exact[name]).norm() / (exact[name].norm() + 1e-9))
        for name in exact
    }


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    batch, steps = draw(st.integers(1, 4)), draw(st.integers(1, 30))
    lengths = draw(st.none() | st.lists(st.integers(0, steps), min_size=batch, max_size=batch))
    limits = [(0.0, float("inf")), (0.3, 1.0), (0.0, 0.5), (0.4, float("inf"))]
    groups = draw(st.sampled_from([1, 2, 4]))
    return {
        "settings": {
            "ngroups": groups,
            "headdim": draw(st.sampled_from([1, 2, 4])),
            "d_state": draw(st.integers(1, 5)),
            "d_conv": draw(st.integers(1, 5)),
            "chunk_size": draw(st.integers(1, 12)),
            "dt_limit": draw(st.sampled_from(limits)),
            "norm_before_gate": draw(st.booleans()),
        },
        "shape": (batch, steps, 8),
        "lengths": None if lengths is None else torch.tensor(lengths),
        "reverse": draw(st.booleans()),
        "tile_tokens": draw(st.sampled_from([1, 5, 13, 2048])),
        "seed": draw(st.integers(0, 2**31)),
    }


def with_empty_places_read_first(**settings: Any) -> dict[str, Any]:
    """A row in three tiles, read backwards: what is empty lies before what is read next."""
    sizes = {"ngroups": 1, "headdim": 2, "d_state": 3, "d_conv": 4, "chunk_size": 2}
    choices = {"dt_limit": (0.0, float("inf")), "norm_before_gate": False} | settings
    case: dict[str, Any] = {"settings": sizes | choices, "shape": (2, 5, 8), "lengths": None}
    return case | {"reverse": True, "tile_tokens": 1, "seed": 0}


@settings(max_examples=80)
@given(case=cases())
@example(case=with_empty_places_read_first())
@example(case=with_empty_places_read_first(dt_limit=(0.0, 0.5)))
@example(case=with_empty_places_read_first(dt_limit=(0.3, 1.0), norm_before_gate=True))
def test_equals_plain_operations(case: dict[str, Any]) -> None:
    mixer = block(case["seed"], **case["settings"])
    u_BTD = torch.randn(case["shape"], dtype=torch.float64)
    options = {"lengths_B": case["lengths"], "reverse": case["reverse"]}
    exact = pass_through(mixer, u_BTD, plain=True, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_TOKENS", case["tile_tokens"])
        found = errors(pass_through(mixer, u_BTD, **options), exact)
        narrow = errors(pass_through(mixer.float(), u_BTD.float(), **options), exact)
    # Where drawn gradients cancel (a norm over one channel has none at all) no computation is near;
    # how much they do is seen in what ordinary operations lose in float32.
    plain = errors(pass_through(mixer.float(), u_BTD.float(), plain=True, **options), exact)
    for name, lost in plain.items():
        assert found[name] < max(1e-12, 30 * 2.0**-29 * lost), (name, found[name], lost)
        assert narrow[name] < max(1e-5, 30 * lost), (name, narrow[name], lost)


@pytest.mark.parametrize("steps", [200, 3000])
def test_float32_at_a_realistic_width(steps: int) -> None:
    mixer = block(3, d_model=64, d_state=32, headdim=16, chunk_size=64)
    u_BTD = torch.randn(2, steps, 64, dtype=torch.float64)
    exact = pass_through(mixer, u_BTD, None, reverse=False, plain=True)
    found = pass_through(mixer.float(), u_BTD.float(), None, reverse=False)
    assert max(errors(found, exact).values()) < 1e-5, errors(found, exact)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_100_000_tokens(precision: str) -> None:
    mixer = block(1, torch.float32, chunk_size=64)
    mixer.precision = precision
    with torch.no_grad():
        mixer.dt_bias.copy_(torch.tensor([-12.0, -5.0, 1.0, 30.0]))  # from 6e-6 to 30
        mixer.A_log.copy_(torch.tensor([-3.0, 0.0, 3.0, 9.0]))
    found = pass_through(mixer, torch.randn(1, 100_000, 8), None, reverse=False)
    for name, tensor in found.items():
        assert tensor.isfinite().all(), name


@pytest.mark.parametrize(
    ("changed", "reverse", "lengths"),
    [
        ({}, False, None),
        ({}, True, [7, 3]),
        ({"ngroups": 2}, False, [6, 7]),
        ({"ngroups": 2, "norm_before_gate": True}, True, None),
        ({"norm_before_gate": True, "dt_limit": (0.3, 1.2)}, False, [7, 5]),
    ],
)
@pytest.mark.parametrize("tile_tokens", [4, 2048])
def test_gradcheck(
    monkeypatch: pytest.MonkeyPatch,
    tile_tokens: int,
    changed: dict[str, Any],
    reverse: bool,
    lengths: list[int] | None,
) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    mixer = block(5, d_model=4, d_state=2, headdim=2, chunk_size=2, **changed)
    names, parameters = zip(*mixer.named_parameters(), strict=True)
    lengths_B = None if lengths is None else torch.tensor(lengths)

    def run(u_BTD: Tensor, *values: Tensor) -> Tensor:
        state = dict(zip(names, values, strict=True))
        arguments = (u_BTD, lengths_B)
        return torch.func.functional_call(mixer, state, arguments, {"reverse": reverse})

    u_BTD = torch.randn(2, 7, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (u_BTD, *parameters), fast_mode=False)


def test_gradients_are_made_only_where_they_are_asked_for() -> None:
    mixer = block(2)
    u_BTD = torch.randn(2, 9, 8, dtype=torch.float64)
    everything = pass_through(mixer, u_BTD, None, reverse=False)
    weights = torch.linspace(-1.0, 2.0, u_BTD.numel(), dtype=torch.float64).view_as(u_BTD)
    for only, _ in mixer.named_parameters():
        for name, parameter in mixer.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(name == only)
        (mixer(u_BTD) * weights).sum().backward()
        for name, parameter in mixer.named_parameters():
            if name == only:
                torch.testing.assert_close(parameter.grad, everything[name])
            else:
                assert parameter.grad is None
    mixer.requires_grad_(False)
    assert not mixer(u_BTD).requires_grad
    u_BTD.requires_grad_()
    (mixer(u_BTD) * weights).sum().backward()
    torch.testing.assert_close(u_BTD.grad, everything["u"])


def test_rows_without_a_token_have_zeros_and_no_gradient() -> None:
    u_BTD = torch.full((2, 5, 8), torch.nan, dtype=torch.float64)
    found = pass_through(block(2), u_BTD, torch.tensor([0, 0]), reverse=False)
    for name, tensor in found.items():
        assert (tensor == 0).all(), name


def test_precision_bfloat16_is_near_float32() -> None:
    mixer = block(4, torch.float32, d_model=64, d_state=32, headdim=16, chunk_size=64)
    u_BTD = torch.randn(2, 300, 64)
    exact = pass_through(mixer, u_BTD, None, reverse=False)
    mixer.precision = "bfloat16"
    found = pass_through(mixer, u_BTD, None, reverse=False)
    assert found["out"].dtype == torch.float32
    lost = errors(found, exact)
    assert 1e-4 < lost["out"] < 1e-2, lost  # it did round
    assert max(lost.values()) < 3e-2, lost


@pytest.mark.parametrize("groups", [1, 2])
def test_precision_bfloat16_is_the_same_however_it_is_run(groups: int) -> None:
    mixer = block(4, torch.float32, d_model=64, d_state=32, headdim=16, ngroups=groups)
    mixer.precision = "bfloat16"
    u_BTD = torch.randn(2, 70, 64)
    with torch.no_grad():
        found_BTD = mixer(u_BTD)
        state, steps = mixer.initial_state(2), []
        for token_BD in u_BTD.unbind(1):
            out_BD, state = mixer.step(token_BD, state)
            steps.append(out_BD)
        for other_BTD in (mixer._plain(u_BTD, None, reverse=False), torch.stack(steps, 1)):
            # Rounding a factor the other way is rare; leaving one product unrounded costs 2e-3.
            assert float((found_BTD - other_BTD).norm() / found_BTD.norm()) < 5e-4


class TestBuffers:
    """Buffers are used again from call to call: nothing may be seen of that."""

    @pytest.fixture(autouse=True)
    def _small_tiles(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiles, "TILE_TOKENS", 16)

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_what_a_buffer_held_before_is_never_seen(
        self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, reverse: bool
    ) -> None:
        mixer = block(1, dtype)
        u_BTD = torch.randn(4, 37, 8, dtype=dtype)
        lengths = torch.tensor([37, 5, 0, 37])
        expected = pass_through(mixer, u_BTD, lengths, reverse=reverse)

        fresh = buffers.Workspace.stack
        passes = (mixer_module._Block.forward, mixer_module._Block.backward)

        def poisoned(*arguments: Any) -> buffers.Stack:
            stack = fresh(*arguments)
            stack.whole.fill_(torch.nan)
            return stack

        def after_poison(one: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any) -> Any:
                for flat in buffers.workspace._flat.values():
                    flat.fill_(torch.nan)
                return one(*arguments)

            return run

        monkeypatch.setattr(buffers.Workspace, "stack", poisoned)
        for one in passes:
            monkeypatch.setattr(mixer_module._Block, one.__name__, after_poison(one))
        found = pass_through(mixer, u_BTD, lengths, reverse=reverse)
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor), name

    shapes = ((3, 20), (1, 50), (5, 3))
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"ngroups": 2, "d_state": 7},
        {"d_model": 12, "headdim": 6, "chunk_size": 7},
    )

    def _blocks(self) -> list[tuple[Mamba2, Tensor]]:
        found = []
        for number, (change, shape) in enumerate(zip(self.changes, self.shapes, strict=True)):
            mixer = block(number, **change)
            found.append((mixer, torch.randn(*shape, mixer.d_model, dtype=torch.float64)))
        return found

    def test_several_forward_passes_before_the_first_backward(self) -> None:
        expected = [pass_through(m, u, None, reverse=False) for m, u in self._blocks()]
        blocks = self._blocks()
        inputs = [u.requires_grad_() for _, u in blocks]
        outputs = [mixer(u) for mixer, u in blocks]
        for number in (1, 0, 2):
            mixer = blocks[number][0]
            out = outputs[number]
            weights = torch.linspace(-1.0, 2.0, out.numel(), dtype=torch.float64).view_as(out)
            (out * weights).sum().backward()
            assert torch.equal(out, expected[number]["out"])
            assert torch.equal(inputs[number].grad, expected[number]["u"])
            for name, parameter in mixer.named_parameters():
                assert torch.equal(parameter.grad, expected[number][name]), name

    def test_an_output_stays_as_it_is(self) -> None:
        for keep in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            (mixer, u_BTD), (other, other_u), _ = self._blocks()
            with keep():
                out = mixer(u_BTD)
                before = out.clone()
                mixer(u_BTD + 1)
                other(other_u)
                assert torch.equal(out, before)

    def test_gradients_stay_as_they_are(self) -> None:
        (mixer, u_BTD), (other, other_u), _ = self._blocks()
        u_BTD.requires_grad_()
        tensors = (u_BTD, *mixer.parameters())
        gradients = torch.autograd.grad(mixer(u_BTD).square().sum(), tensors)
        before = [gradient.clone() for gradient in gradients]
        other(other_u).sum().backward()
        mixer(u_BTD + 1).sum().backward()
        for now, then in zip(gradients, before, strict=True):
            assert torch.equal(now, then)

    def test_inference_first_and_training_after(self) -> None:
        buffers.workspace._flat.clear()
        buffers.workspace.forget()
        mixer = block(9, d_model=20, headdim=5)
        u_BTD = torch.randn(2, 33, 20, dtype=torch.float64)
        with torch.inference_mode():
            out = mixer(u_BTD)
        exact = pass_through(mixer, u_BTD, None, reverse=False, plain=True)
        found = pass_through(mixer, u_BTD, None, reverse=False)
        assert torch.equal(out, found["out"])
        assert max(errors(found, exact).values()) < 1e-12

    def test_blocks_of_one_inner_width_and_of_two_outer_ones(self) -> None:
        for width, expand in ((8, 4), (16, 2), (8, 4)):
            mixer = block(5, d_model=width, expand=expand)
            u_BTD = torch.randn(2, 9, width, dtype=torch.float64)
            exact = pass_through(mixer, u_BTD, None, reverse=False, plain=True)
            found = pass_through(mixer, u_BTD, None, reverse=False)
            assert max(errors(found, exact).values()) < 1e-12

    def test_no_batch_is_kept_alive(self) -> None:
        mixer = block(6, d_model=24)  # a size that no other test has
        u_BTD = torch.randn(2, 11, 24, dtype=torch.float64).requires_grad_()
        out_BTD = mixer(u_BTD)
        out_BTD.sum().backward()
        gone = [weakref.ref(u_BTD), weakref.ref(out_BTD)]
        mixer.zero_grad()
        del u_BTD, out_BTD
        assert [each() for each in gone] == [None, None]

    def test_two_threads_at_once(self) -> None:
        expected = [pass_through(m, u, None, reverse=False) for m, u in self._blocks()]
        wrong: list[str] = []
        ended: list[int] = []

        def work(number: int) -> None:
            mixer, u_BTD = self._blocks_once[number]
            for _ in range(15):
                found = pass_through(mixer, u_BTD, None, reverse=False)
                wrong.extend(
                    f"{number} {name}"
                    for name, tensor in found.items()
                    if not torch.equal(tensor, expected[number][name])
                )
            ended.append(number)

        self._blocks_once = self._blocks()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong and sorted(ended) == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reverse", [False, True])
def test_twice_the_same_bits(dtype: torch.dtype, reverse: bool) -> None:
    mixer = block(6, dtype, d_model=64, d_state=16, headdim=16, chunk_size=64)
    u_BTD = torch.randn(4, 700, 64, dtype=dtype)
    lengths_B = torch.tensor([700, 650, 700, 12])
    first = pass_through(mixer, u_BTD, lengths_B, reverse=reverse)
    second = pass_through(mixer, u_BTD, lengths_B, reverse=reverse)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("routed", [False, True], ids=["MKL", "oneDNN"])
@pytest.mark.parametrize("steps", [1, 7, 16, 50, 64, 128, 300, 512, 2500])
def test_a_row_does_not_depend_on_its_company(steps: int, routed: bool) -> None:
    mixer = BidirectionalMamba2(64, d_state=64, headdim=16, shared=True)
    u_BTD = torch.randn(9, steps, 64)
    # PyTorch's exp2 and softplus round otherwise at the end of a buffer that is no whole number of
    # vectors, MKL at the edge of a small matrix: bits are promised only where neither happens.
    same_bits = steps in (16, 64, 128, 512)

    def same(found: Tensor, expected: Tensor) -> bool:
        if same_bits:
            return torch.equal(found, expected)
        return float((found - expected).norm() / expected.norm()) < 1e-6

    try:
        if products.use(routed) != routed:
            pytest.skip("this processor's products all go to one library")
        with torch.inference_mode():
            together = mixer(u_BTD)
            for rows in ([4], [0, 8], [3, 1, 2, 7, 5]):
                assert same(mixer(u_BTD[rows]), together[rows]), rows
            longer = torch.cat([u_BTD, torch.randn(9, 40, 64)], 1)
            lengths_B = torch.tensor([steps + 40, *[steps] * 7, steps + 11])
            assert same(mixer(longer, lengths_B)[1:8, :steps], together[1:8])
    finally:
        products.use(True)


@pytest.mark.parametrize("bias", [-20.0, -45.0, -60.0])
def test_gradients_of_tiny_steps_do_not_underflow(bias: float) -> None:
    torch.manual_seed(0)
    mixer = Mamba2(16, d_state=8, headdim=8)
    with torch.no_grad():
        mixer.dt_bias.fill_(bias)
    u_BTD = torch.randn(2, 30, 16)
    gradients = []
    for module, inputs in ((mixer, u_BTD), (copy.deepcopy(mixer).double(), u_BTD.double())):
        module(inputs).square().sum().backward()
        gradients.append(module.dt_bias.grad.double())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-5
