"""Which backend runs the Mamba-2 block: remit's own PyTorch code, or mamba-ssm's kernels on CUDA.

``torch`` works everywhere; ``mamba_ssm`` (``kernels``) is needed for nothing else. A backend counts as
working when it imports and gives, forward and backward, what the torch code gives on that device.
Nothing here falls back in silence.
"""

from __future__ import annotations

from functools import cache

import torch

from . import kernels
from .kernels import OLDEST_MAMBA_SSM
from .mamba2 import BACKENDS, Mamba2

INSTALL = "pip install --no-build-isolation '.[cuda]', as docs/usage.md says under CUDA"
# The kernels multiply float32 as TF32, 10 bits of mantissa; an error in their use is far larger.
PROBE_TOLERANCE = 1e-2


def reason_of(error: BaseException) -> str:
    """An exception's class and message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def status(device: torch.device | str) -> dict[str, str | None]:
    """For each backend None where it works on this device, else why not, in one line.

    On CUDA the answer about mamba_ssm compiles and runs its kernels once for each process.
    """
    device = torch.device(device)
    reasons = []
    if device.type != "cuda":
        reasons.append(f"needs a CUDA device; this is '{device.type}'")
    elif not torch.cuda.is_available():
        reasons.append("needs a CUDA device; there is none")
    try:
        kernels.load()
    # What a half-fitting install raises has no common type: ImportError, AttributeError, OSError.
    except Exception as error:  # noqa: BLE001
        reasons.append(reason_of(error))
    if not reasons and (wrong := _probe(device)):
        reasons.append(wrong)
    return {"torch": None, "mamba_ssm": "; ".join(reasons) or None}


def choose(asked: str, device: torch.device | str) -> str:
    """The backend to use: 'auto' takes mamba_ssm on CUDA where it works, else torch.

    Raises:
        ValueError: if the name is unknown, or the backend asked for does not work here.
    """
    if asked not in ("auto", *BACKENDS):
        raise ValueError(f"backend is '{asked}'; expected one of 'auto', 'torch', 'mamba_ssm'")
    if asked == "torch" or (asked == "auto" and torch.device(device).type != "cuda"):
        return "torch"
    reason = status(device)["mamba_ssm"]
    if reason is None:
        return "mamba_ssm"
    if asked == "auto":
        return "torch"
    raise ValueError(
        f"backend 'mamba_ssm' does not work here ({reason}); expected a CUDA device and mamba-ssm "
        f"{'.'.join(map(str, OLDEST_MAMBA_SSM))} or newer; install it with {INSTALL}, or ask for 'auto'"
    )


@cache
def _probe(device: torch.device) -> str | None:
    """Run both backends on a small block with padding; None where they agree, else what is wrong."""
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
            torch.manual_seed(0)
            mixer = Mamba2(32, d_state=16, headdim=16).to(device)
            u_BTD = torch.randn(2, 80, 32, device=device)
            lengths_B = torch.tensor([80, 37], device=device)
            weight_BTD = torch.randn_like(u_BTD)
            weight_BTD[1, 37:] = 0
            results = []
            for backend in BACKENDS:
                mixer.backend = backend
                out_BTD = mixer(u_BTD, lengths_B, reverse=True)
                loss = (out_BTD * weight_BTD).sum()
                results.append(
                    [
                        out_BTD.detach() * (weight_BTD != 0),
                        *torch.autograd.grad(loss, [*mixer.parameters()]),
                    ]
                )
        names = ["output", *(name for name, _ in mixer.named_parameters())]
        for name, ours, theirs in zip(names, *results, strict=True):
            error = float((theirs - ours).norm() / ours.norm())
            if not error <= PROBE_TOLERANCE:
                return (
                    f"its {name} differs from torch's by {error:.1e}, {PROBE_TOLERANCE:g} at most"
                )
    except Exception as error:  # noqa: BLE001 - compilers and drivers fail with any type
        return reason_of(error)
    return None
