"""The state-space scan of Mamba-2 by chunks (structured state-space duality), in PyTorch alone.

It knows tensors only: no module, no parameter, no file. The derivative is written by hand and
computes the chunk matrices anew instead of keeping them (``tiles``). Nothing loops over time steps.

Source: Dao & Gu 2024, "Transformers are SSMs", arXiv 2405.21060, section 6, and the reference
functions of github.com/state-spaces/mamba.

Legend of the shape suffixes
    B sequences   T tokens in time   H heads   P head width   N state size   G groups
    Z chunks      Q tokens in a chunk (i the reading token, j the written one)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from . import tiles
from .buffers import Stack
from .checks import check_finite, check_lengths
from .products import fast
from .tiles import Kept, Piece, log2_steps

# In derivatives a step of less counts as this much: that by dt itself is what was written divided by
# dt, and stays defined. What it writes is far beneath any rounding.
SMALLEST_DT = {torch.float32: 1e-20, torch.float64: 1e-150}


def ssd_scan(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    *,
    chunk_size: int = 64,
    initial_state_BHPN: Tensor | None = None,
    lengths_B: Tensor | None = None,
    seq_idx_BT: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run the selective state-space recurrence of Mamba-2 over a batch of sequences.

    For every sequence, head and step t::

        h_t = exp(dt_t * A) * h_{t-1} + dt_t * x_t B_t^T        (P x N)
        y_t = h_t C_t

    What has decayed below 2^-149 (in float64, 2^-200) of its size is forgotten. Differentiable
    once, in every argument but the whole numbers.

    Args:
        x_BTHP: input of each head: float32, float64 or bfloat16. Decays and sums are float32 (of
            float64 inputs, float64) whatever it is.
        dt_BTH: step sizes, not negative (after softplus). A step with dt = 0 changes nothing.
        A_H: the decay rate of each head per unit of dt; not positive.
        B_BTGN: input projections; heads ``g * H/G .. (g+1) * H/G - 1`` share group g.
        C_BTGN: output projections, grouped alike.
        chunk_size: tokens treated as one dense block; changes the cost, not the result. Up to
            two chunks' worth of tokens are done as a single block.
        initial_state_BHPN: the state before the first step; zero when not given.
        lengths_B: tokens of each row. What lies beyond is never read, costs nothing, and its y
            is zero; the final state is that after the last token.
        seq_idx_BT: whole numbers; wherever they change from one step to the next the state begins
            anew, so that several sequences may share a row. The initial state belongs to the
            first of them, the final state to the last.
        reverse: read every row from its last token to its first; "before" and "after" change
            places in all of the above.

    Returns:
        y_BTHP, of x's dtype, and the state after the last step as final_state_BHPN.

    Raises:
        ValueError: if the shapes do not fit together, ``chunk_size`` or T is below 1, a length is
            beyond the row, or (looked for on a CPU) dt is negative, A positive, or an input holds
            NaN or infinity.
    """
    _check_shapes(x_BTHP, dt_BTH, A_H, B_BTGN, C_BTGN, chunk_size, initial_state_BHPN, seq_idx_BT)
    batch, steps = x_BTHP.shape[:2]
    dtype = torch.promote_types(x_BTHP.dtype, torch.float32)
    state_BHPN = initial_state_BHPN
    if state_BHPN is not None:
        state_BHPN = state_BHPN.to(dtype)
    inputs = (
        x_BTHP.to(dtype),
        dt_BTH.to(dtype),
        A_H.to(dtype),
        B_BTGN.to(dtype),
        C_BTGN.to(dtype),
    )
    lengths = None
    if not torch.compiler.is_compiling():
        lengths = check_lengths(lengths_B, batch, steps)
    reset_BT = None
    if seq_idx_BT is not None:
        changes_BT = seq_idx_BT[:, 1:] != seq_idx_BT[:, :-1]
        reset_BT = F.pad(changes_BT, (0, 1) if reverse else (1, 0))
        if reverse and lengths_B is not None:  # the first token read follows none, but padding
            order_T = torch.arange(steps, device=reset_BT.device)
            reset_BT = reset_BT & (order_T + 1 < lengths_B.unsqueeze(-1))
    if torch.compiler.is_compiling():
        y_BTHP, final_BHPN = plain_scan(
            *inputs,
            chunk_size=chunk_size,
            state_BHPN=state_BHPN,
            lengths_B=lengths_B,
            reset_BT=reset_BT,
            reverse=reverse,
        )
        return y_BTHP.to(x_BTHP.dtype), final_BHPN
    _check_values(*inputs, state_BHPN, lengths)
    y_BTHP, final_BHPN = _Scan.apply(  # type: ignore[no-untyped-call]
        *inputs, state_BHPN, reset_BT, lengths, chunk_size, reverse
    )
    return y_BTHP.to(x_BTHP.dtype), final_BHPN


class _Scan(torch.autograd.Function):
    """The scan over a batch, cut into tiles."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x_BTHP: Tensor,
        dt_BTH: Tensor,
        A_H: Tensor,
        B_BTGN: Tensor,
        C_BTGN: Tensor,
        state_BHPN: Tensor | None,
        reset_BT: Tensor | None,
        lengths: Sequence[int] | None,
        chunk_size: int,
        reverse: bool,
    ) -> tuple[Tensor, Tensor]:
        B, T, H, P = x_BTHP.shape
        N = B_BTGN.shape[-1]
        y_BTHP = torch.zeros_like(x_BTHP, memory_format=torch.contiguous_format)
        final_BHPN = x_BTHP.new_zeros(B, H, P, N)
        if state_BHPN is not None:
            final_BHPN.copy_(state_BHPN)
        pieces = list(
            tiles.plan(B, T, lengths, chunk_size, tiles.tile_tokens(x_BTHP), reverse=reverse)
        )
        saved: list[Tensor | None] = []
        following_BHNP: Tensor | None = None
        for piece in pieces:
            before_BHNP = following_BHNP
            if piece.first:
                before_BHNP = None
                if state_BHPN is not None:
                    before_BHNP = state_BHPN[piece.rows].transpose(-1, -2)
            x = _stack(x_BTHP, piece)
            before_BZHNP = None
            if piece.chunks > 1 or before_BHNP is not None:
                before_BZHNP = x_BTHP.new_empty(piece.count, piece.chunks, H, N, P)
            dt_BZHQ = _tile(dt_BTH, piece).contiguous()
            reset_BZ1Q = None
            if reset_BT is not None:
                reset_BZ1Q = _tile(reset_BT.unsqueeze(-1), piece)
            y = Stack(torch.empty_like(x.whole))
            with fast(x_BTHP):
                kept, following_BHNP = tiles.forward(
                    x,
                    dt_BZHQ,
                    A_H,
                    _stack(B_BTGN, piece),
                    _stack(C_BTGN, piece),
                    None,
                    before_BHNP,
                    reset_BZ1Q,
                    None if before_BZHNP is None else Stack(before_BZHNP),
                    y,
                    want_state=True,
                    reverse=reverse,
                )
            assert following_BHNP is not None
            y_BTHP[piece.rows, piece.start : piece.stop] = _untile(y.whole, piece)
            if piece.last:
                final_BHPN[piece.rows] = following_BHNP.transpose(-1, -2)
            saved += [x.whole, dt_BZHQ, kept.sum_BZHQ, before_BZHNP]
        ctx.save_for_backward(A_H, B_BTGN, C_BTGN, *cast(list[Tensor], saved))
        ctx.plan = (pieces, reverse, state_BHPN is not None)  # type: ignore[attr-defined]
        return y_BTHP, final_BHPN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        A_H, B_BTGN, C_BTGN, *saved = ctx.saved_tensors
        pieces, reverse, began = ctx.plan
        dy_BTHP, dfinal_BHPN = gradients
        dx_BTHP = torch.zeros_like(dy_BTHP, memory_format=torch.contiguous_format)
        ddt_BTH = dy_BTHP.new_zeros(dy_BTHP.shape[:3])
        dA_H, dB_BTGN, dC_BTGN = (torch.zeros_like(t) for t in (A_H, B_BTGN, C_BTGN))
        # A row without a token hands its state on.
        dinitial_BHPN = dfinal_BHPN.clone() if began else None
        dstate_BHNP: Tensor | None = None
        for number in reversed(range(len(pieces))):
            piece: Piece = pieces[number]
            x_BZHQP, dt_BZHQ, sum_BZHQ, before_BZHNP = saved[4 * number : 4 * number + 4]
            dt_BZHQ = dt_BZHQ.maximum(_smallest_dt(A_H).unsqueeze(-1))
            if piece.last:
                dstate_BHNP = dfinal_BHPN[piece.rows].transpose(-1, -2)
            before = None if before_BZHNP is None else Stack(before_BZHNP)
            with fast(A_H):
                found = tiles.backward(
                    Kept(Stack(x_BZHQP), sum_BZHQ, before, wrote=True),
                    _stack(dy_BTHP, piece),
                    dt_BZHQ,
                    _stack(B_BTGN, piece),
                    _stack(C_BTGN, piece),
                    None,
                    dstate_BHNP,
                    reverse=reverse,
                )
            dstate_BHNP = found.state_BHNP
            span = (piece.rows, slice(piece.start, piece.stop))
            ddt_BZHQ = found.written_BZHQ / dt_BZHQ
            ddt_BZHQ += found.decayed_BZHQ * A_H.unsqueeze(-1)
            dA_H += (found.decayed_BZHQ * dt_BZHQ).sum((0, 1, 3))
            dx_BTHP[span] = _untile(found.x.whole, piece)
            ddt_BTH[span] = _untile(ddt_BZHQ.unsqueeze(-1), piece).squeeze(-1)
            dB_BTGN[span] = _untile(found.B.whole, piece)
            dC_BTGN[span] = _untile(found.C.whole, piece)
            if piece.first and dinitial_BHPN is not None:
                assert dstate_BHNP is not None
                dinitial_BHPN[piece.rows] = dstate_BHNP.transpose(-1, -2)
        none = (None,) * 4
        return dx_BTHP, ddt_BTH, dA_H, dB_BTGN, dC_BTGN, dinitial_BHPN, *none


def _smallest_dt(A_H: Tensor) -> Tensor:
    """What a step of less counts as in derivatives; so small that no decay shows it."""
    return SMALLEST_DT[A_H.dtype] / (A_H.abs() * SMALLEST_DT[A_H.dtype] * 1e10).clamp(min=1.0)


def _tile(values_BTHX: Tensor, piece: Piece) -> Tensor:
    """A piece of [B, T, H, ...] as [B, Z, H, Q, ...]; zero in its empty places."""
    span: Tensor = values_BTHX[piece.rows, piece.start : piece.stop]
    if piece.padding:
        span = F.pad(span, (0, 0) * (span.dim() - 2) + (0, piece.padding))
    by_chunk: Tensor = span.unflatten(1, (piece.chunks, piece.chunk))
    return by_chunk.transpose(2, 3)


def _stack(values_BTHX: Tensor, piece: Piece) -> Stack:
    """The same, as a tile wants it."""
    return Stack(_tile(values_BTHX, piece).contiguous())


def _untile(values_BZHQX: Tensor, piece: Piece) -> Tensor:
    """The inverse of :func:`_tile`."""
    by_token: Tensor = values_BZHQX.transpose(2, 3).flatten(1, 2)
    return by_token[:, : piece.stop - piece.start]


def plain_scan(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    *,
    chunk_size: int,
    state_BHPN: Tensor | None = None,
    lengths_B: Tensor | None = None,
    reset_BT: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """:func:`ssd_scan` in ordinary operations, for programs that are exported or compiled.

    It has no loop at all, so an exported program holds for any number of tokens. Between chunks it
    costs the square of their number. Arguments as there, checked by the caller; ``reset_BT`` is
    True where the state begins anew.
    """
    if reverse:
        flipped = (t.flip(1) for t in (x_BTHP, dt_BTH, B_BTGN, C_BTGN))
        x_BTHP, dt_BTH, B_BTGN, C_BTGN = flipped
        reset_BT = None if reset_BT is None else reset_BT.flip(1)
    steps = x_BTHP.shape[1]
    if lengths_B is not None:
        order_T = torch.arange(steps, device=x_BTHP.device)
        order_T = order_T.flip(0) if reverse else order_T
        outside_BT1 = (order_T >= lengths_B.unsqueeze(-1)).unsqueeze(-1)
        dt_BTH = dt_BTH.masked_fill(outside_BT1, 0.0)
        x_BTHP, B_BTGN, C_BTGN = (
            t.masked_fill(outside_BT1.unsqueeze(-1), 0.0) for t in (x_BTHP, B_BTGN, C_BTGN)
        )
    step_BTH = log2_steps(dt_BTH, A_H, None if reset_BT is None else reset_BT.unsqueeze(-1))
    chunks = (steps + chunk_size - 1) // chunk_size
    padding = chunks * chunk_size - steps  # dt = 0: decay 1 and nothing written

    def chunked(values_BTHX: Tensor, heads: int) -> Tensor:
        """[B, T, H or G, X] as [B, Z, H, Q, X]."""
        padded = F.pad(values_BTHX, (0, 0, 0, 0, 0, padding))
        by_head: Tensor = padded.unflatten(1, (chunks, chunk_size)).transpose(2, 3)
        return by_head.repeat_interleave(heads // by_head.shape[2], dim=2)

    heads = x_BTHP.shape[2]
    u_BZHQP = chunked(x_BTHP * dt_BTH.unsqueeze(-1), heads)
    B_BZHQN, C_BZHQN = chunked(B_BTGN, heads), chunked(C_BTGN, heads)
    sum_BZHQ = chunked(step_BTH.unsqueeze(-1), heads).squeeze(-1).cumsum(-1)
    dtype = x_BTHP.dtype
    y_BZHQP = (C_BZHQN @ B_BZHQN.mT * _between(sum_BZHQ, dtype)) @ u_BZHQP
    end_BZH = sum_BZHQ[..., -1]
    to_end_BZHQ1 = (end_BZH.unsqueeze(-1) - sum_BZHQ).exp2().to(dtype).unsqueeze(-1)
    written_BZHPN = (u_BZHQP * to_end_BZHQ1).mT @ B_BZHQN
    if state_BHPN is None:
        state_BHPN = torch.zeros_like(written_BZHPN[:, 0])
    # Chunks stand to each other as the tokens of a chunk do; the first state is one more of them.
    written_BYHPN = torch.cat([state_BHPN.unsqueeze(1), written_BZHPN], dim=1)
    total_BHY = F.pad(end_BZH, (0, 0, 1, 0)).cumsum(1).transpose(1, 2)
    after_BHYX = _between(total_BHY, dtype) @ written_BYHPN.transpose(1, 2).flatten(3)
    after_BYHPN = after_BHYX.unflatten(3, written_BZHPN.shape[3:]).transpose(1, 2)
    from_start_BZHQ1 = sum_BZHQ.exp2().to(dtype).unsqueeze(-1)
    y_BZHQP = y_BZHQP + C_BZHQN @ after_BYHPN[:, :-1].mT * from_start_BZHQ1
    y_BTHP = y_BZHQP.transpose(2, 3).flatten(1, 2)[:, :steps]
    if lengths_B is not None:
        y_BTHP = y_BTHP.masked_fill(outside_BT1.unsqueeze(-1), 0.0)
    return y_BTHP.flip(1) if reverse else y_BTHP, after_BYHPN[:, -1]


def _between(sums: Tensor, dtype: torch.dtype) -> Tensor:
    """2^(sum_i - sum_j) for j <= i, zero for j > i, over the last dimension."""
    later = torch.ones(sums.shape[-1], sums.shape[-1], dtype=torch.bool, device=sums.device).triu(1)
    log2 = sums.unsqueeze(-1) - sums.unsqueeze(-2)
    # The exponent above the diagonal is positive: it must go before it can overflow.
    decay: Tensor = log2.masked_fill(later, -math.inf).exp2()
    return decay.to(dtype)


def _check_values(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    state_BHPN: Tensor | None,
    lengths: Sequence[int] | None,
) -> None:
    if x_BTHP.device.type != "cpu":
        return
    named = {"x": x_BTHP, "dt": dt_BTH, "B": B_BTGN, "C": C_BTGN}
    for name, tensor in named.items():
        axes = ("sequence", "step", "head or group", "element")[: tensor.dim()]
        check_finite(name, tensor, axes, lengths)
    check_finite("A", A_H, ("head",))
    if state_BHPN is not None:
        check_finite("initial_state", state_BHPN, ("sequence", "head", "element", "state"))
    if (A_H > 0).any():
        raise ValueError(f"A is {A_H.max().item():g} for some head; it must not be positive")
    inside = dt_BTH
    if lengths is not None:
        inside = torch.cat([dt_BTH[row, :length] for row, length in enumerate(lengths)])
    if inside.numel() and (lowest := inside.min().item()) < 0:
        raise ValueError(f"dt falls to {lowest:g}; it must not be negative")


def _check_shapes(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    chunk_size: int,
    initial_state_BHPN: Tensor | None,
    seq_idx_BT: Tensor | None,
) -> None:
    if not isinstance(chunk_size, int) or chunk_size < 1:
        raise ValueError(f"chunk_size is {chunk_size}; expected a whole number from 1 up")
    if x_BTHP.dim() != 4 or B_BTGN.dim() != 4:
        raise ValueError(
            f"x must be [B, T, H, P] and B [B, T, G, N]; found {tuple(x_BTHP.shape)} and "
            f"{tuple(B_BTGN.shape)}"
        )
    if not x_BTHP.is_floating_point():
        raise ValueError(f"x is {x_BTHP.dtype}; expected floating point")
    if seq_idx_BT is not None and seq_idx_BT.is_floating_point():
        raise ValueError(f"seq_idx is {seq_idx_BT.dtype}; expected whole numbers")
    batch, steps, heads, width = x_BTHP.shape
    groups, size = B_BTGN.shape[2:]
    if steps < 1:
        raise ValueError("the scan needs at least one time step; T is 0")
    if groups < 1 or heads % groups:
        raise ValueError(f"{heads} heads cannot be shared out over {groups} groups evenly")
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("dt", dt_BTH, (batch, steps, heads)),
        ("A", A_H, (heads,)),
        ("B", B_BTGN, (batch, steps, groups, size)),
        ("C", C_BTGN, (batch, steps, groups, size)),
        ("initial_state", initial_state_BHPN, (batch, heads, width, size)),
        ("seq_idx", seq_idx_BT, (batch, steps)),
    ]
    for name, tensor, shape in expected:
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
