"""The Mamba-2 block by the fused kernels of mamba-ssm, on CUDA.

They are the Triton kernels of github.com/state-spaces/mamba (``mamba_ssm/ops/triton/ssd_combined.py``),
with causal-conv1d where that is installed. Nothing is imported before it is asked for.

Legend of the shape suffixes
    B sequences   T tokens in time   D model width   I inner width   H heads   P head width
    G groups   N state size   E channels of the convolution (I + 2 * G * N)
    F all of in_proj's outputs (I + E + H)
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# From this version on the gradients of dt (softplus) and of B with several groups are right.
OLDEST_MAMBA_SSM = (2, 2, 5)
# Tokens per chunk of the kernels: what mamba-ssm's own module uses and was tuned for.
KERNEL_CHUNK = 256


@dataclass(frozen=True)
class Kernels:
    """mamba-ssm's modules, and whether its fused convolution is there."""

    scan: ModuleType
    norm: ModuleType
    fused_convolution: bool


@cache
def load() -> Kernels:
    """Import mamba-ssm's Triton modules, and nothing else of it.

    Its package's own ``__init__`` also imports language models, tilelang and a compiled extension
    that the kernels do without; any of them may be missing or broken.
    """
    spec = util.find_spec("mamba_ssm")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'mamba_ssm'")
    try:
        version = metadata.version("mamba-ssm")
    except metadata.PackageNotFoundError:
        version = ""  # a source tree on the path; the probe decides
    if version and tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST_MAMBA_SSM:
        raise ImportError(f"mamba-ssm is {version}; 2.2.5 or newer is needed")
    bypass = "mamba_ssm" not in sys.modules
    if bypass:
        package = ModuleType("mamba_ssm")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["mamba_ssm"] = package
    try:
        scan = importlib.import_module("mamba_ssm.ops.triton.ssd_combined")
        norm = importlib.import_module("mamba_ssm.ops.triton.layernorm_gated")
    finally:
        if bypass:  # whoever imports mamba_ssm itself shall get the real one
            del sys.modules["mamba_ssm"]
    return Kernels(scan, norm, getattr(scan, "causal_conv1d_fwd_function", None) is not None)


class _ReverseRows(torch.autograd.Function):
    """Turn the valid tokens of each row around; twice is nothing done, so its gradient is itself.

    Unlike gather's own, this backward adds nothing up, and is the same bits every time.
    """

    @staticmethod
    def forward(ctx: Any, x_BTD: Tensor, index_BT: Tensor) -> Tensor:
        ctx.save_for_backward(index_BT)
        return x_BTD.gather(1, index_BT.unsqueeze(-1).expand_as(x_BTD))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (index_BT,) = ctx.saved_tensors
        return _ReverseRows.apply(gradients[0], index_BT), None  # type: ignore[no-untyped-call]


def mamba_ssm_mixer(
    mixer: Any, u_BTD: Tensor, lengths_B: Tensor | None = None, reverse: bool = False
) -> Tensor:
    """:meth:`Mamba2.forward` by mamba-ssm's kernels.

    Parameters stay float32; under autocast the kernels compute in its type, as mamba-ssm's own
    module does. Padding stays behind the tokens in either direction, where a causal scan cannot
    carry it anywhere, and is zero going in and coming out.

    Args:
        mixer: the :class:`mamba2.Mamba2` whose parameters to use.
        u_BTD: float32, float16 or bfloat16, on CUDA (on a CPU only under Triton's interpreter).
        lengths_B: valid tokens of each row; all where not given.
        reverse: read each row's valid tokens from the last to the first.

    Returns:
        Output of u's shape, zero at padding.

    Raises:
        ValueError: if u is float64 or not on CUDA.
    """
    if not u_BTD.is_cuda and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"backend 'mamba_ssm' was given a tensor on '{u_BTD.device}'; expected CUDA; move the model "
            "and its input there, or set backend 'torch'"
        )
    if u_BTD.dtype == torch.float64:
        raise ValueError(
            "backend 'mamba_ssm' was given float64; expected float32, float16 or bfloat16; set "
            "backend 'torch' for float64"
        )
    padding_BT1 = index_BT = None
    if lengths_B is not None:
        lengths_B1 = lengths_B.to(u_BTD.device).unsqueeze(1)
        time_BT = torch.arange(u_BTD.shape[1], device=u_BTD.device).expand(u_BTD.shape[:2])
        padding_BT1 = (time_BT >= lengths_B1).unsqueeze(-1)
        index_BT = torch.where(time_BT < lengths_B1, lengths_B1 - 1 - time_BT, time_BT)
        u_BTD = u_BTD.masked_fill(padding_BT1, 0.0)

    def turned(x_BTD: Tensor) -> Tensor:
        if not reverse:
            return x_BTD
        if index_BT is None:
            return x_BTD.flip(1)
        rows_BTD: Tensor = _ReverseRows.apply(x_BTD, index_BT)  # type: ignore[no-untyped-call]
        return rows_BTD

    half = mixer.precision == "bfloat16"
    with torch.autocast(u_BTD.device.type, torch.bfloat16) if half else nullcontext():
        out_BTD = turned(_block(mixer, turned(u_BTD))).to(u_BTD.dtype)
    return out_BTD if padding_BT1 is None else out_BTD.masked_fill(padding_BT1, 0.0)


def _block(mixer: Any, u_BTD: Tensor) -> Tensor:
    """The causal block: one fused function where causal-conv1d can, else three steps."""
    kernels = load()
    projected_BTF = mixer.in_proj(u_BTD)
    A_H = -torch.exp(mixer.A_log.float())
    weight_EK = mixer.conv1d.weight.squeeze(1)
    # No chunk longer than the sequence needs; the kernels want a power of two.
    chunk = min(KERNEL_CHUNK, max(64, 1 << (u_BTD.shape[1] - 1).bit_length()))
    fits = 2 <= mixer.d_conv <= 4 and mixer.conv_dim % 8 == 0  # all that causal-conv1d has
    if kernels.fused_convolution and fits:
        fused_BTD: Tensor = kernels.scan.mamba_split_conv1d_scan_combined(
            projected_BTF,
            weight_EK,
            mixer.conv1d.bias,
            mixer.dt_bias,
            A_H,
            D=mixer.D,
            chunk_size=chunk,
            dt_limit=mixer.dt_limit,
            rmsnorm_weight=mixer.norm.weight,
            rmsnorm_eps=mixer.norm.eps,
            outproj_weight=mixer.out_proj.weight,
            headdim=mixer.headdim,
            ngroups=mixer.ngroups,
            norm_before_gate=mixer.norm.norm_before_gate,
        )
        return fused_BTD
    z_BTI, conv_BTE, dt_BTH = torch.split(
        projected_BTF, [mixer.d_inner, mixer.conv_dim, mixer.nheads], dim=-1
    )
    conv_BET = F.conv1d(
        conv_BTE.transpose(1, 2),
        mixer.conv1d.weight,
        mixer.conv1d.bias,
        padding=mixer.d_conv - 1,
        groups=mixer.conv_dim,
    )[..., : u_BTD.shape[1]]
    state_width = mixer.ngroups * mixer.d_state
    x_BTI, B_BT_GN, C_BT_GN = torch.split(
        F.silu(conv_BET).transpose(1, 2), [mixer.d_inner, state_width, state_width], dim=-1
    )
    y_BTHP = kernels.scan.mamba_chunk_scan_combined(
        torch.unflatten(x_BTI, -1, (mixer.nheads, mixer.headdim)),
        dt_BTH,
        A_H,
        torch.unflatten(B_BT_GN, -1, (mixer.ngroups, mixer.d_state)),
        torch.unflatten(C_BT_GN, -1, (mixer.ngroups, mixer.d_state)),
        chunk_size=chunk,
        D=mixer.D,
        dt_bias=mixer.dt_bias,
        dt_softplus=True,
        dt_limit=mixer.dt_limit,
    )
    normed_BTI = kernels.norm.rmsnorm_fn(
        y_BTHP.flatten(-2),
        mixer.norm.weight,
        None,
        z=z_BTI,
        eps=mixer.norm.eps,
        group_size=mixer.d_inner // mixer.ngroups,
        norm_before_gate=mixer.norm.norm_before_gate,
    )
    out_BTD: Tensor = mixer.out_proj(normed_BTI)
    return out_BTD
