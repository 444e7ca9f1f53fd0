"""Matrix products on a CPU: by the faster of PyTorch's two libraries, where it is as exact.

On processors by AMD, MKL leaves the wider half of their vector units unused; oneDNN does not, and
PyTorch sends float32 products there when told that bfloat16 would do. A processor that has no
bfloat16 tiles (AMX) then multiplies in float32 all the same. That is checked, with numbers, before
the first product; elsewhere nothing is changed. Which library multiplies depends on the processor
alone, never on a timing, so results stay the same from run to run.

The switch inside PyTorch belongs to the whole process. It is set around a block's products and put
back, and a product of another thread that falls between is as exact (while it is set,
``torch.get_float32_matmul_precision`` raises, in any thread).
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor

# Relative error up to which a float32 product counts as exact: that of float32 itself is 3e-7,
# that of bfloat16 3e-3.
EXACT = 2e-6
# Shapes of the probe: rows, inner width, columns, as in a block's projections and its scan.
_PROBES = ((256, 256, 320), (64, 64, 64))

_wanted = True


def use(on: bool) -> bool:
    """Allow or forbid the faster library; returns whether it will be used."""
    global _wanted
    _wanted = on
    return routed()


def routed() -> bool:
    """Whether float32 products go to oneDNN."""
    return _wanted and onednn_serves()


@cache
def onednn_serves() -> bool:
    """Whether oneDNN is known to be faster on this processor, and found to be as exact."""
    return _made_by_amd() and torch.backends.mkldnn.is_available() and probe() <= EXACT


@cache
def probe() -> float:
    """The largest relative error of oneDNN's float32 products, against float64."""
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    # Whatever the caller has set, it is float32 on the CPU that is asked about.
    plain: Any = {"generator": generator, "dtype": torch.float32, "device": "cpu"}
    for rows, inner, columns in _PROBES:
        a = torch.randn(4, rows, inner, **plain)
        b = torch.randn(4, inner, columns, **plain)
        exact = a.double() @ b.double()
        with _onednn, torch.autocast("cpu", enabled=False):
            found = torch.stack(
                [torch.bmm(a, b), torch.stack([x @ y for x, y in zip(a, b, strict=True)])]
            )
        error = (found.double() - exact).norm() / (2**0.5 * exact.norm())
        worst = max(worst, float(error))
    return worst


@cache
def _made_by_amd() -> bool:
    """Whether the processor calls itself AMD's and has AVX-512 (only Linux says so in a file)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "AuthenticAMD" in text and "avx512f" in text


class _Switch:
    """PyTorch's switch, on while anything is inside."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._before = "none"

    def __enter__(self) -> None:
        matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        with self._lock:
            if not self._inside:
                # Reading gives what a wider setting says as well; to write that back would pin it.
                inherited: Any = torch.backends.mkldnn.fp32_precision
                read = matmul.fp32_precision
                self._before = "none" if read == inherited else read
                matmul.fp32_precision = "bf16"
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        with self._lock:
            self._inside -= 1
            if not self._inside:
                matmul.fp32_precision = self._before


_onednn = _Switch()


def fast(like: Tensor) -> AbstractContextManager[None]:
    """Within it, float32 products of the CPU go to oneDNN where that serves."""
    if like.dtype == torch.float32 and like.device.type == "cpu" and routed():
        return _onednn
    return nullcontext()


def rows(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False, half: bool = False) -> Tensor:
    """``a @ b`` of two matrices into ``out``, or added to it.

    With ``half`` both are rounded to bfloat16, and so is the product; the sum stays in ``out``'s
    own dtype.
    """
    if half:
        product = torch.mm(a.bfloat16(), b.bfloat16())
        return out.add_(product) if add else out.copy_(product)
    return torch.addmm(out, a, b, out=out) if add else torch.mm(a, b, out=out)


def stacked(a: Tensor, b: Tensor, out: Tensor, *, add: bool = False) -> Tensor:
    """``a @ b`` of each pair of matrices [n, rows, columns] into ``out``, or added to it.

    ``out`` is contiguous; the others should be, or transposed: anything else is copied first.
    """
    return torch.baddbmm(out, a, b, out=out) if add else torch.bmm(a, b, out=out)


def _after_fork() -> None:
    _onednn.__init__()  # type: ignore[misc]  # another thread's hold on it did not survive


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
