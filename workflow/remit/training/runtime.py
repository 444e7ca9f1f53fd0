"""Where and how reproducibly a training runs: device, threads, seeds, versions.

A result depends on the settings and the seed; on a CPU it is bit-identical for any number of
workers, as every random draw is seeded by what it is for and not by when it happens.
"""

from __future__ import annotations

import os
import platform
from functools import cache

import numpy as np
import torch

import remit
from remit.config import Execution
from remit.errors import RemitError
from remit.nn import backends, products
from remit.nn.mamba2 import Mamba2
from remit.provenance import git_commit


def device_of(execution: Execution) -> torch.device:
    """The device to train on; raises :class:`RemitError` when CUDA is asked for and there is none."""
    has_cuda = torch.cuda.is_available()
    if execution.device == "cuda" and not has_cuda:
        raise RemitError(
            "execution.device is 'cuda'; found no CUDA device; expected one; set it to 'auto' or 'cpu'."
        )
    chosen = "cuda" if execution.device == "auto" and has_cuda else execution.device
    return torch.device("cpu" if chosen == "auto" else chosen)


def prepare(execution: Execution) -> torch.device:
    """Choose the device and make PyTorch deterministic, and as fast as that allows.

    Raises :class:`RemitError` when CUDA is asked for and there is none.
    """
    device = device_of(execution)
    # cuBLAS is deterministic only with a workspace of fixed size; read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Where algorithms are deterministic, mamba-ssm tunes its kernels only if the choice is kept.
    os.environ.setdefault("TRITON_CACHE_AUTOTUNING", "1")
    torch.set_num_threads(execution.training_threads)
    torch.use_deterministic_algorithms(True)
    # Else every torch.empty is filled first: a pass over memory that only a defect would see.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    products.use(execution.fast_products)
    return device


def choose_backend(asked: str, device: torch.device) -> str:
    """The backend that 'auto' or a name stands for on a device.

    Raises :class:`RemitError` when one is asked for by name that does not work there.
    """
    try:
        return backends.choose(asked, device)
    except ValueError as error:
        raise RemitError(f"execution.backend: {error}.") from None


def use_backend(module: torch.nn.Module, asked: str, device: torch.device) -> str:
    """Set the backend of every Mamba-2 block of a module; returns the one chosen, or raises
    :class:`RemitError` as :func:`choose_backend` does."""
    chosen = choose_backend(asked, device)
    for part in module.modules():
        if isinstance(part, Mamba2):
            part.backend = chosen
    return chosen


def bfloat16_instructions() -> list[str]:
    """The CPU's instructions for bfloat16, by name."""
    offered = torch.cpu.get_capabilities()
    return sorted(name for name, has in offered.items() if "bf16" in name and has is True)


def precision_warning(precision: str, device: torch.device) -> str | None:
    """One line where a precision has no instructions on the device: right, and very slow."""
    has = bfloat16_instructions() if device.type == "cpu" else torch.cuda.is_bf16_supported(False)
    if precision != "bfloat16" or has:
        return None
    return (
        f"warning: model.precision is 'bfloat16' and this {device.type} has no instructions for it; training "
        "is right, and very slow; set it to 'float32'"
    )


def compile_module(module: torch.nn.Module, device: torch.device) -> None:
    """Let torch.compile have a module, all but the Mamba-2 blocks that have a better code of their own.

    Those are remit's on a CPU and mamba-ssm's. Remit's on CUDA is compiled as ordinary operations.

    Raises:
        RemitError: where nothing can be compiled, as without a C++ compiler.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - compilers fail with any type
        raise RemitError(
            f"execution.compile is true; found that torch.compile does not work here "
            f"({backends.reason_of(error)}); expected a C++ compiler; install one (g++), or set "
            "execution.compile: false."
        ) from None
    for part in module.modules():
        by_hand = isinstance(part, Mamba2) and (device.type == "cpu" or part.backend != "torch")
        if by_hand:
            part.forward = torch.compiler.disable(part.forward)
    module.compile(dynamic=True)


def seed_all(*parts: int) -> None:
    """Seed PyTorch's generator from several numbers (a seed, a purpose, an epoch)."""
    seed = np.random.SeedSequence(parts).generate_state(2, np.uint32)
    torch.manual_seed(int(seed[0]) << 31 | int(seed[1]) >> 1)


@cache
def versions() -> dict[str, str]:
    """What made a result: remit, Python, PyTorch, and the commit of the checkout, if it is one."""
    return {
        "remit": remit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "git_commit": git_commit(),
    }
