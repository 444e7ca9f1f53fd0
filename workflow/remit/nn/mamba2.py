"""The Mamba-2 block, one-directional and bidirectional, in plain PyTorch.

Parameters carry the names, shapes and initial values of ``mamba_ssm.modules.mamba2.Mamba2``, so
weights move freely between the two. It knows nothing of EEG, electrodes, masks or files.

Source: Dao & Gu 2024, arXiv 2405.21060; github.com/state-spaces/mamba,
``mamba_ssm/modules/mamba2.py``.

Legend of the shape suffixes
    B sequences   T tokens in time   D model width   I inner width (expand * D)
    H heads       P head width       G groups        N state size
    E channels of the convolution (I + 2 * G * N)    K taps of the convolution
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .ssd import ssd_output

# softplus(-1e4) is exactly zero in every float format: at padding the state neither decays nor
# is written to.
RAW_DT_OF_PADDING = -1e4


class GatedRMSNorm(nn.Module):
    """RMS normalisation of ``y * silu(z)`` in groups of channels (gate before norm)."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps

    def forward(self, y_BTI: Tensor, z_BTI: Tensor) -> Tensor:
        """Normalise y_BTI gated by z_BTI; the same shape comes back."""
        gated_BTI = y_BTI * F.silu(z_BTI)
        grouped_BTGI = torch.unflatten(gated_BTI, -1, (self.groups, -1))
        rstd_BTG1 = (grouped_BTGI.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        normed_BTI: Tensor = (grouped_BTGI * rstd_BTG1).flatten(-2) * self.weight
        return normed_BTI


class Mamba2(nn.Module):
    """One Mamba-2 mixer: [B, T, D] to [B, T, D], causal.

    Args:
        d_model: model width D.
        d_state: state size N.
        d_conv: taps of the causal depthwise convolution.
        expand: inner width as a multiple of D.
        headdim: head width P.
        ngroups: groups of heads that share B and C.
        chunk_size: tokens per dense block of the scan; changes the cost, not the result.
        dt_min, dt_max: the initial step sizes are log-uniform between these.
        dt_init_floor: and not below this.
        A_init_range: the initial decay rates -A are uniform between these.
        norm_eps: added to the mean square in the gated norm.

    Raises:
        ValueError: if the widths do not divide, or a size is below 1.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        ngroups: int = 1,
        chunk_size: int = 64,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        sizes = {
            "d_model": d_model,
            "d_state": d_state,
            "d_conv": d_conv,
            "expand": expand,
            "headdim": headdim,
            "ngroups": ngroups,
            "chunk_size": chunk_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} is {size}; it must be at least 1")
        d_inner = expand * d_model
        if d_inner % headdim:
            raise ValueError(
                f"expand * d_model = {expand} * {d_model} = {d_inner} is not divisible by "
                f"headdim = {headdim}"
            )
        nheads = d_inner // headdim
        if nheads % ngroups:
            raise ValueError(f"{nheads} heads are not divisible by ngroups = {ngroups}")
        if not 0 < A_init_range[0] <= A_init_range[1]:
            raise ValueError(f"A_init_range is {A_init_range}; it must be positive and ascending")

        self.d_model = d_model
        self.d_state = d_state
        self.d_conv = d_conv
        self.d_inner = d_inner
        self.headdim = headdim
        self.nheads = nheads
        self.ngroups = ngroups
        self.chunk_size = chunk_size
        self.conv_dim = d_inner + 2 * ngroups * d_state

        # Order of in_proj's outputs: z, x, B, C, dt.
        self.in_proj = nn.Linear(d_model, d_inner + self.conv_dim + nheads, bias=False)
        # Holds the weights under upstream's names; forward applies them itself (see _convolve).
        self.conv1d = nn.Conv1d(
            self.conv_dim, self.conv_dim, d_conv, groups=self.conv_dim, padding=d_conv - 1
        )
        log_span = math.log(dt_max) - math.log(dt_min)
        dt_H = torch.exp(torch.rand(nheads) * log_span + math.log(dt_min)).clamp(min=dt_init_floor)
        # The inverse of softplus, so that softplus(dt_bias) is dt.
        self.dt_bias = nn.Parameter(dt_H + torch.log(-torch.expm1(-dt_H)))
        self.A_log = nn.Parameter(torch.empty(nheads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(nheads))
        self.norm = GatedRMSNorm(d_inner, ngroups, norm_eps)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        # As upstream: an optimiser should not decay these.
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(self, u_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Mix along time.

        Args:
            u_BTD: input.
            valid_BT: False where a position is padding, before or after the real tokens of its
                row. Padding affects no other position; what comes back there has no meaning.

        Returns:
            Output of the same shape.
        """
        if valid_BT is not None:
            u_BTD = u_BTD.masked_fill(~valid_BT.unsqueeze(-1), 0.0)
        z_BTI, conv_BTE, dt_BTH = torch.split(
            self.in_proj(u_BTD), [self.d_inner, self.conv_dim, self.nheads], dim=-1
        )
        if valid_BT is not None:
            dt_BTH = dt_BTH.masked_fill(~valid_BT.unsqueeze(-1), RAW_DT_OF_PADDING)
        state_width = self.ngroups * self.d_state
        x_BTI, B_BT_GN, C_BT_GN = torch.split(
            F.silu(self._convolve(conv_BTE)), [self.d_inner, state_width, state_width], dim=-1
        )
        x_BTHP = torch.unflatten(x_BTI, -1, (self.nheads, self.headdim))
        y_BTHP = ssd_output(
            x_BTHP,
            F.softplus(dt_BTH + self.dt_bias),
            -torch.exp(self.A_log.float() if self.A_log.dtype.itemsize < 4 else self.A_log),
            torch.unflatten(B_BT_GN, -1, (self.ngroups, self.d_state)),
            torch.unflatten(C_BT_GN, -1, (self.ngroups, self.d_state)),
            chunk_size=self.chunk_size,
        )
        y_BTHP = torch.addcmul(y_BTHP, x_BTHP, self.D.unsqueeze(-1))
        out_BTD: Tensor = self.out_proj(self.norm(y_BTHP.flatten(-2), z_BTI))
        return out_BTD

    def _convolve(self, in_BTE: Tensor) -> Tensor:
        """Causal depthwise convolution as a sum of shifted copies.

        On a CPU this is many times faster than F.conv1d, which also wants time last.
        """
        steps = in_BTE.shape[1]
        taps = self.conv1d.weight.squeeze(1).unbind(1)
        past_BTE = F.pad(in_BTE, (0, 0, self.d_conv - 1, 0))
        bias = self.conv1d.bias
        assert bias is not None
        out_BTE = torch.addcmul(bias, in_BTE, taps[-1])
        for k in range(self.d_conv - 1):
            out_BTE = torch.addcmul(out_BTE, past_BTE[:, k : k + steps], taps[k])
        return out_BTE


class BidirectionalMamba2(nn.Module):
    """Two Mamba-2 mixers with weights of their own, one reading forwards and one backwards.

    The output is the sum of both. The backward one sees whole rows reversed; padding then comes
    first, where it affects nothing, so the result is exactly that of the unpadded sequence.

    Args:
        d_model, d_state, d_conv, expand, headdim, ngroups, chunk_size: as in :class:`Mamba2`.
    """

    def __init__(
        self,
        d_model: int,
        d_state: int = 64,
        d_conv: int = 4,
        expand: int = 2,
        headdim: int = 64,
        ngroups: int = 1,
        chunk_size: int = 64,
    ) -> None:
        super().__init__()
        sizes = (d_model, d_state, d_conv, expand, headdim, ngroups, chunk_size)
        self.forward_mixer = Mamba2(*sizes)
        self.backward_mixer = Mamba2(*sizes)

    def forward(self, u_BTD: Tensor, valid_BT: Tensor | None = None) -> Tensor:
        """Mix u_BTD along time in both directions; valid_BT as in :meth:`Mamba2.forward`."""
        reversed_valid_BT = None if valid_BT is None else valid_BT.flip(1)
        backward_BTD = self.backward_mixer(u_BTD.flip(1), reversed_valid_BT).flip(1)
        out_BTD: Tensor = self.forward_mixer(u_BTD, valid_BT) + backward_BTD
        return out_BTD
