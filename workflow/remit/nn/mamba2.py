"""The Mamba-2 block, one-directional and bidirectional.

On a CPU, and on a GPU without mamba-ssm's kernels, the whole block runs as one function with a
derivative written by hand (``mixer``); exported and compiled programs take the same steps in
ordinary operations. Parameters carry the names, shapes and initial values of
``mamba_ssm.modules.mamba2.Mamba2``, so weights move freely between the two. It knows nothing of
EEG, electrodes, masks or files.

Source: Dao & Gu 2024, arXiv 2405.21060; github.com/state-spaces/mamba,
``mamba_ssm/modules/mamba2.py``.

Legend of the shape suffixes
    B sequences   T tokens in time   D model width   I inner width (expand * D)
    H heads       P head width       G groups        N state size
    E channels of the convolution (I + 2 * G * N)    K taps of the convolution
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .checks import check_finite, check_lengths
from .mixer import mix
from .rooms import MixerShape
from .ssd import plain_scan

BACKENDS = ("torch", "mamba_ssm")
PRECISIONS = ("float32", "bfloat16")


class GatedRMSNorm(nn.Module):
    """RMS normalisation in groups of channels, of ``y * silu(z)`` or before that product.

    Args:
        width: number of channels I.
        groups: groups of channels that are normalised by themselves.
        eps: added to the mean square.
        norm_before_gate: normalise y, then multiply by silu(z).
    """

    def __init__(
        self, width: int, groups: int, eps: float, *, norm_before_gate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.groups = groups
        self.eps = eps
        self.norm_before_gate = norm_before_gate

    def parts(self, y_BTI: Tensor, z_BTI: Tensor) -> tuple[Tensor, Tensor]:
        """y gated by z, [B, T, I], and the factor 1 / rms of each group, [B, T, G]."""
        gated_BTI = y_BTI * F.silu(z_BTI)
        sized_BTI = y_BTI if self.norm_before_gate else gated_BTI
        grouped_BTGI = torch.unflatten(sized_BTI, -1, (self.groups, -1))
        return gated_BTI, (grouped_BTGI.square().mean(-1) + self.eps).rsqrt()

    def forward(self, y_BTI: Tensor, z_BTI: Tensor) -> Tensor:
        """Normalise and gate y_BTI by z_BTI; the same shape comes back."""
        gated_BTI, rstd_BTG = self.parts(y_BTI, z_BTI)
        grouped_BTGI = torch.unflatten(gated_BTI, -1, (self.groups, -1))
        normed_BTI: Tensor = (grouped_BTGI * rstd_BTG.unsqueeze(-1)).flatten(-2) * self.weight
        return normed_BTI


@dataclass(frozen=True)
class MixerState:
    """Where a causal mixer stands in a sequence.

    past_BKE: what the convolution still looks back at: its last K - 1 inputs, oldest first.
    ssm_BHPN: the state of the scan.
    """

    past_BKE: Tensor
    ssm_BHPN: Tensor


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
        dt_limit: step sizes are held between these (after softplus).
        norm_before_gate: normalise before the gate instead of after it.

    Attributes:
        backend: "torch", or "mamba_ssm" for that package's kernels on CUDA (see ``kernels``).
        precision: "float32", or "bfloat16" to round the factors of both projections to bfloat16.

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
        dt_limit: tuple[float, float] = (0.0, math.inf),
        norm_before_gate: bool = False,
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
        if not 0 <= dt_limit[0] < dt_limit[1]:
            raise ValueError(f"dt_limit is {dt_limit}; it must not be negative, and ascending")

        self.backend = "torch"
        self.precision = "float32"
        self.dt_limit = float(dt_limit[0]), float(dt_limit[1])  # JSON's lists, too
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
        # Holds the weights under upstream's names; the mixer applies them as a sum of shifted rows.
        self.conv1d = nn.Conv1d(
            self.conv_dim, self.conv_dim, d_conv, groups=self.conv_dim, padding=d_conv - 1
        )
        log_span = math.log(dt_max) - math.log(dt_min)
        dt_H = torch.exp(torch.rand(nheads) * log_span + math.log(dt_min)).clamp(min=dt_init_floor)
        # The inverse of softplus, so that softplus(dt_bias) is dt.
        self.dt_bias = nn.Parameter(dt_H + torch.log(-torch.expm1(-dt_H)))
        self.A_log = nn.Parameter(torch.empty(nheads).uniform_(*A_init_range).log())
        self.D = nn.Parameter(torch.ones(nheads))
        self.norm = GatedRMSNorm(d_inner, ngroups, norm_eps, norm_before_gate=norm_before_gate)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        # As upstream: an optimiser should not decay these.
        for parameter in (self.dt_bias, self.A_log, self.D):
            parameter._no_weight_decay = True  # type: ignore[attr-defined]

    def forward(
        self, u_BTD: Tensor, lengths_B: Tensor | None = None, *, reverse: bool = False
    ) -> Tensor:
        """Mix along time.

        Args:
            u_BTD: input.
            lengths_B: whole numbers, the tokens of each row; all of them when not given. What
                lies beyond is never read, and what comes back there is zero.
            reverse: read every row from its last token to its first.

        Returns:
            Output of the same shape.

        Raises:
            ValueError: if the width does not fit, a length is beyond the row, or (looked for on a
                CPU) a token holds NaN or infinity.
        """
        if u_BTD.dim() != 3 or u_BTD.shape[-1] != self.d_model or u_BTD.shape[1] < 1:
            raise ValueError(
                f"the input has shape {tuple(u_BTD.shape)}; expected [B, T, {self.d_model}] with "
                "at least one token"
            )
        if self.backend not in BACKENDS or self.precision not in PRECISIONS:
            raise ValueError(
                f"backend is {self.backend!r} and precision {self.precision!r}; expected one of "
                f"{BACKENDS} and one of {PRECISIONS}"
            )
        if torch.compiler.is_compiling():
            return self._plain(u_BTD, lengths_B, reverse=reverse)
        lengths = check_lengths(lengths_B, *u_BTD.shape[:2])
        axes = ("sequence", "token", "feature")
        check_finite("the input of a Mamba-2 block", u_BTD, axes, lengths)
        if self.backend != "mamba_ssm" and (
            u_BTD.dtype != self.A_log.dtype or u_BTD.dtype.itemsize < 4
        ):
            raise ValueError(
                f"the input is {u_BTD.dtype} and the weights are {self.A_log.dtype}; expected float32 "
                "or float64 for both; for bfloat16 products keep float32 and set precision"
            )
        if self.backend == "mamba_ssm":
            from .kernels import mamba_ssm_mixer  # the package is optional, and slow to import

            return mamba_ssm_mixer(self, u_BTD, lengths_B, reverse)
        return mix(
            u_BTD,
            self.in_proj.weight,
            self.conv1d.weight.squeeze(1),
            self._conv_bias,
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm.weight,
            self.out_proj.weight,
            MixerShape(
                d_inner=self.d_inner,
                nheads=self.nheads,
                headdim=self.headdim,
                ngroups=self.ngroups,
                d_state=self.d_state,
                d_conv=self.d_conv,
                chunk_size=self.chunk_size,
                norm_eps=self.norm.eps,
                dt_limit=self.dt_limit,
                norm_before_gate=self.norm.norm_before_gate,
                half=self.precision == "bfloat16",
            ),
            lengths=lengths,
            reverse=reverse,
        )

    @property
    def _conv_bias(self) -> Tensor:
        bias = self.conv1d.bias
        assert bias is not None
        return bias

    def _plain(self, u_BTD: Tensor, lengths_B: Tensor | None, *, reverse: bool) -> Tensor:
        """:meth:`forward` in ordinary operations, for programs that are exported or compiled."""
        if lengths_B is not None:
            order_T = torch.arange(u_BTD.shape[1], device=u_BTD.device)
            outside_BT1 = (order_T >= lengths_B.unsqueeze(-1)).unsqueeze(-1)
            u_BTD = u_BTD.masked_fill(outside_BT1, 0.0)
        z_BTI, in_BTE, raw_BTH = self._enter(u_BTD)
        past = (0, self.d_conv - 1) if reverse else (self.d_conv - 1, 0)
        padded_BTE = F.pad(in_BTE, (0, 0, *past))
        taps = self.conv1d.weight.squeeze(1).unbind(1)
        taps = taps[::-1] if reverse else taps
        conv_BTE = self._conv_bias
        for k in range(self.d_conv):
            conv_BTE = torch.addcmul(conv_BTE, padded_BTE[:, k : k + u_BTD.shape[1]], taps[k])
        x_BTHP, dt_BTH, B_BTGN, C_BTGN = self._scan_inputs(conv_BTE, raw_BTH)
        y_BTHP, _ = plain_scan(
            x_BTHP,
            dt_BTH,
            -torch.exp(self.A_log.float() if self.A_log.dtype.itemsize < 4 else self.A_log),
            B_BTGN,
            C_BTGN,
            chunk_size=self.chunk_size,
            lengths_B=lengths_B,
            reverse=reverse,
        )
        out_BTD = self._finish(y_BTHP, x_BTHP, z_BTI)
        return out_BTD if lengths_B is None else out_BTD.masked_fill(outside_BT1, 0.0)

    def _enter(self, u_BTD: Tensor) -> list[Tensor]:
        """The input projection as z, what is convolved, and raw dt."""
        sizes = [self.d_inner, self.conv_dim, self.nheads]
        return list(torch.split(self._product(u_BTD, self.in_proj.weight), sizes, dim=-1))

    def _product(self, values: Tensor, weight: Tensor) -> Tensor:
        """``values @ weight.T`` in the block's precision, as :func:`products.rows` does it."""
        if self.precision == "bfloat16":
            return F.linear(values.bfloat16(), weight.bfloat16()).to(values.dtype)
        return F.linear(values, weight)

    def _scan_inputs(
        self, conv_BTE: Tensor, raw_BTH: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """x, dt, B and C of the scan."""
        width = self.ngroups * self.d_state
        x_BTI, B_BTX, C_BTX = torch.split(F.silu(conv_BTE), [self.d_inner, width, width], dim=-1)
        dt_BTH = F.softplus(raw_BTH + self.dt_bias).clamp(*self.dt_limit)
        B_BTGN, C_BTGN = (t.unflatten(-1, (self.ngroups, self.d_state)) for t in (B_BTX, C_BTX))
        return x_BTI.unflatten(-1, (self.nheads, self.headdim)), dt_BTH, B_BTGN, C_BTGN

    def _finish(self, y_BTHP: Tensor, x_BTHP: Tensor, z_BTI: Tensor) -> Tensor:
        """From the scan's output to the block's."""
        y_BTHP = torch.addcmul(y_BTHP, x_BTHP, self.D.unsqueeze(-1))
        if self.precision == "float32":
            out_BTD: Tensor = self.out_proj(self.norm(y_BTHP.flatten(-2), z_BTI))
            return out_BTD
        # What is rounded is what the mixer rounds: weights folded, one group's factor left for later.
        gated_BTI, rstd_BTG = self.norm.parts(y_BTHP.flatten(-2), z_BTI)
        folded_DI = self.out_proj.weight * self.norm.weight
        if self.ngroups == 1:
            return self._product(gated_BTI, folded_DI) * rstd_BTG
        grouped_BTGI = torch.unflatten(gated_BTI, -1, (self.ngroups, -1))
        return self._product((grouped_BTGI * rstd_BTG.unsqueeze(-1)).flatten(-2), folded_DI)

    def initial_state(self, batch: int) -> MixerState:
        """The state before the first token of ``batch`` sequences, for :meth:`step`."""
        like = self.in_proj.weight
        return MixerState(
            like.new_zeros(batch, self.d_conv - 1, self.conv_dim),
            like.new_zeros(batch, self.nheads, self.headdim, self.d_state),
        )

    def step(self, u_BD: Tensor, state: MixerState) -> tuple[Tensor, MixerState]:
        """Take one token of each sequence.

        One after another the outputs are those of :meth:`forward` on the whole sequences, to
        rounding.

        Args:
            u_BD: the next tokens.
            state: of :meth:`initial_state` or the last step; it is not changed.

        Returns:
            the outputs, [B, D], and the state for the next step.

        Raises:
            ValueError: if the tokens do not fit the state or the width.
        """
        if u_BD.shape != (state.ssm_BHPN.shape[0], self.d_model):
            raise ValueError(
                f"tokens have shape {tuple(u_BD.shape)}; expected "
                f"({state.ssm_BHPN.shape[0]}, {self.d_model})"
            )
        check_finite("the token", u_BD, ("sequence", "feature"))
        z_B1I, in_B1E, raw_B1H = self._enter(u_BD.unsqueeze(1))
        window_BKE = torch.cat([state.past_BKE, in_B1E], dim=1)
        taps_KE = self.conv1d.weight.squeeze(1).t()
        conv_B1E = (window_BKE * taps_KE).sum(1, keepdim=True) + self._conv_bias
        x_B1HP, dt_B1H, B_B1GN, C_B1GN = self._scan_inputs(conv_B1E, raw_B1H)
        per_group = self.nheads // self.ngroups
        B_BHN, C_BHN = (t[:, 0].repeat_interleave(per_group, dim=1) for t in (B_B1GN, C_B1GN))
        decay_BH = torch.exp(dt_B1H[:, 0] * -torch.exp(self.A_log))
        u_BHP = x_B1HP[:, 0] * dt_B1H[:, 0].unsqueeze(-1)
        ssm_BHPN = state.ssm_BHPN * decay_BH[..., None, None] + u_BHP.unsqueeze(
            -1
        ) * B_BHN.unsqueeze(-2)
        y_B1HP = (ssm_BHPN @ C_BHN.unsqueeze(-1)).squeeze(-1).unsqueeze(1)
        out_BD = self._finish(y_B1HP, x_B1HP, z_B1I).squeeze(1)
        return out_BD, MixerState(window_BKE[:, 1:], ssm_BHPN)


class BidirectionalMamba2(nn.Module):
    """Two Mamba-2 mixers, one reading forwards and one backwards; the output is their sum.

    Neither turns the sequence round in memory: the second walks its tiles from the last to the
    first. Rows end at their own length in both directions.

    Args:
        d_model, d_state, d_conv, expand, headdim, ngroups, chunk_size: as in :class:`Mamba2`.
        shared: one set of weights for both directions.
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
        *,
        shared: bool = False,
    ) -> None:
        super().__init__()
        sizes = (d_model, d_state, d_conv, expand, headdim, ngroups, chunk_size)
        self.shared = shared
        self.forward_mixer = Mamba2(*sizes)
        if not shared:
            self.backward_mixer = Mamba2(*sizes)

    def forward(self, u_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Mix u_BTD along time in both directions; lengths_B as in :meth:`Mamba2.forward`."""
        backward_mixer = self.forward_mixer if self.shared else self.backward_mixer
        backward_BTD = backward_mixer(u_BTD, lengths_B, reverse=True)
        out_BTD: Tensor = self.forward_mixer(u_BTD, lengths_B) + backward_BTD
        return out_BTD
