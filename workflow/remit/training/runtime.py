"""Where and how reproducibly a training runs: device, threads, seeds, versions.

A result depends on the settings and the seed; on a CPU it is bit-identical for any number of
workers, as every random draw is seeded by what it is for and not by when it happens.
"""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import torch

import remit
from remit.errors import RemitError


def prepare(device: str, threads: int) -> torch.device:
    """Choose the device ('auto', 'cpu', 'cuda') and make PyTorch deterministic.

    Raises :class:`RemitError` when CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise RemitError(
            "execution.device is 'cuda'; found no CUDA device; expected one; set it to 'auto' or 'cpu'."
        )
    chosen = "cuda" if device == "auto" and torch.cuda.is_available() else device
    chosen = "cpu" if chosen == "auto" else chosen
    # cuBLAS is deterministic only with a workspace of fixed size; read when CUDA starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    return torch.device(chosen)


def seed_all(*parts: int) -> None:
    """Seed PyTorch's generator from several numbers (a seed, a purpose, an epoch)."""
    seed = np.random.SeedSequence(parts).generate_state(2, np.uint32)
    torch.manual_seed(int(seed[0]) << 31 | int(seed[1]) >> 1)


@cache
def versions() -> dict[str, str]:
    """What made a result: remit, Python, PyTorch, and the commit of the checkout, if it is one."""
    found = {
        "remit": remit.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
    try:
        commit = subprocess.run(
            [
                "git",
                "-C",
                str(Path(remit.__file__).parent),
                "describe",
                "--always",
                "--dirty",
                "--abbrev=12",
            ],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        commit = "unknown"
    return {**found, "git_commit": commit}
