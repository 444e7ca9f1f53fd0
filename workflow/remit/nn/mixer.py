"""The whole Mamba-2 block as one function with its derivative written by hand.

It computes exactly what ``mamba2`` says in modules, in fewer passes over memory: the batch is cut
into tiles that stay in cache; the convolution is a sum of shifted rows; the normalisation's factor
is applied after the output projection, which is half as wide, and its weights are folded into it.
Going backwards the gate, the head inputs and the scan's chunk matrices are computed anew; what is kept
are the input projection, the convolution, the states between chunks and the scan's output.

It knows tensors only. It is differentiable once.

Legend of the shape suffixes
    B sequences   T tokens in time   D model width   I inner width   H heads   P head width
    G groups   N state size   E channels of the convolution (I + 2 * G * N)   K taps
    F outputs of the input projection (I + E + H: z, then x, B, C, then dt)
    M rows of a tile: sequences by places, with K - 1 places of neighbours and any empty ones
    Z chunks   Q tokens in a chunk
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from . import lanes, rooms, tiles
from .buffers import Stack, workspace
from .products import fast, rows
from .rooms import BackRoom, MixerShape, Room
from .tiles import Kept, Piece


class Mix(torch.autograd.Function):
    """The block; see :func:`mix`."""

    @staticmethod
    def forward(  # noqa: D102 (see mix)
        ctx: FunctionCtx,
        u_BTD: Tensor,
        in_FD: Tensor,
        conv_EK: Tensor,
        conv_bias_E: Tensor,
        dt_bias_H: Tensor,
        A_log_H: Tensor,
        D_H: Tensor,
        norm_I: Tensor,
        out_DI: Tensor,
        shape: MixerShape,
        lengths: Sequence[int] | None,
        reverse: bool,
    ) -> Tensor:
        weights = (in_FD, conv_EK, conv_bias_E, dt_bias_H, A_log_H, D_H, norm_I, out_DI)
        keep = any(ctx.needs_input_grad[:9])  # type: ignore[attr-defined]
        block = _Block(shape, weights, reverse)
        B, T = u_BTD.shape[:2]
        full = lengths is None or min(lengths) == T
        out_BTD = torch.empty_like(u_BTD) if full else torch.zeros_like(u_BTD)
        chains = tiles.chains(block.pieces(B, T, lengths, u_BTD))

        def scan(pieces: Sequence[Piece]) -> list[Tensor | None]:
            saved: list[Tensor | None] = []
            state_BHNP: Tensor | None = None
            for piece in pieces:
                kept, state_BHNP = block.forward(u_BTD, piece, state_BHNP, out_BTD, keep)
                saved += kept or ()
            return saved

        with fast(u_BTD):
            saved = lanes.run([partial(scan, pieces) for pieces in chains], u_BTD.device)
        if keep:
            ctx.save_for_backward(
                u_BTD, *weights, *cast(list[Tensor], list(chain.from_iterable(saved)))
            )
            ctx.plan = (shape, reverse, full, chains)  # type: ignore[attr-defined]
        return out_BTD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        u_BTD, *others = ctx.saved_tensors
        weights, tensors = others[:8], iter(others[8:])
        shape, reverse, full, chains = ctx.plan
        block = _Block(shape, weights, reverse)
        needed = ctx.needs_input_grad
        du_BTD = None
        if needed[0]:
            whole = full and all(len(pieces) == 1 for pieces in chains)
            du_BTD = torch.empty_like(u_BTD) if whole else torch.zeros_like(u_BTD)
        fields = len(_Saved._fields)
        kept = [[_Saved(*islice(tensors, fields)) for _ in pieces] for pieces in chains]
        work = list(zip(chains, kept, strict=True))

        def walk_back(lane: Sequence[tuple[Sequence[Piece], Sequence[_Saved]]]) -> _Sums:
            sums = _Sums(needed, du_BTD, weights)
            for pieces, saved in lane:
                dstate_BHNP: Tensor | None = None
                for piece, its in zip(reversed(pieces), reversed(saved), strict=True):
                    dstate_BHNP = block.backward(u_BTD, gradients[0], piece, its, dstate_BHNP, sums)
            return sums

        with fast(u_BTD):
            jobs = [partial(walk_back, work[lane :: lanes.LANES]) for lane in range(lanes.LANES)]
            first, *rest = lanes.run(jobs[: max(1, len(work))], u_BTD.device)
        for sums in rest:
            first.add(sums)
        return (du_BTD, *first.gradients(block), None, None, None)


# Tokens whose convolution gradients are taken at a time: their products then stay in cache.
TAP_TOKENS = 128


class _Saved(NamedTuple):
    """What of a tile is kept for its backward pass."""

    in_BMF: Tensor
    pre_BTE: Tensor
    before_BZHNP: Tensor | None
    y_BZHQP: Tensor
    dt_BZHQ: Tensor
    sum_BZHQ: Tensor
    rstd_BTG: Tensor


class _Sums:
    """Gradients that add up over the tiles of a lane; None where none is asked for."""

    def __init__(
        self, needed: Sequence[bool], u_BTD: Tensor | None, weights: Sequence[Tensor]
    ) -> None:
        in_FD, conv_EK, conv_bias_E, dt_bias_H, A_log_H, D_H, _, out_DI = weights
        self.needed = needed
        self.u_BTD = u_BTD
        self.in_FD = torch.zeros_like(in_FD) if needed[1] else None
        self.conv_KE = torch.zeros_like(conv_EK.t(), memory_format=torch.contiguous_format)
        self.conv_bias_E = torch.zeros_like(conv_bias_E)
        self.dt_bias_H = torch.zeros_like(dt_bias_H)
        self.A_H = torch.zeros_like(A_log_H)
        self.D_H = torch.zeros_like(D_H)
        self.folded_DI = torch.zeros_like(out_DI) if needed[7] or needed[8] else None

    def add(self, other: _Sums) -> None:
        """Add what another lane found; the input's gradient is written by all to one place."""
        for name, mine in vars(self).items():
            if isinstance(mine, Tensor) and name != "u_BTD":
                mine += getattr(other, name)

    def add_input(self, piece: Piece, at: slice, where: slice, du_BMD: Tensor) -> None:
        """A tile's gradient by its rows of the input and, where a row was cut, their neighbours."""
        assert self.u_BTD is not None
        if piece.first and piece.last:
            self.u_BTD[piece.rows, at] = du_BMD[:, where]
        else:
            self.u_BTD[piece.rows, at] += du_BMD[:, where]

    def gradients(self, block: _Block) -> tuple[Tensor | None, ...]:
        """Those of the weights, in the order of :meth:`Mix.forward`'s arguments."""
        norm_I = out_DI = None
        if self.folded_DI is not None:
            norm_I = (self.folded_DI * block.out_DI).sum(0)
            out_DI = self.folded_DI * block.norm_I
        found = (
            self.in_FD,
            self.conv_KE.t(),
            self.conv_bias_E,
            self.dt_bias_H,
            self.A_H * block.A_H,  # A = -exp(A_log)
            self.D_H,
            norm_I,
            out_DI,
        )
        return tuple(
            tensor if needed else None
            for tensor, needed in zip(found, self.needed[1:9], strict=True)
        )


class _Block:
    """One block's weights, made ready, and its passes over a tile."""

    def __init__(self, shape: MixerShape, weights: Sequence[Tensor], reverse: bool) -> None:
        self.shape = shape
        self.reverse = reverse
        self.in_FD, conv_EK, self.conv_bias_E, self.dt_bias_H, A_log_H = weights[:5]
        self.D_H, self.norm_I, self.out_DI = weights[5:]
        self.A_H = -torch.exp(A_log_H)
        self.in_DF = self.in_FD.t()
        self.A_H1, self.dt_bias_H1 = self.A_H.unsqueeze(-1), self.dt_bias_H.unsqueeze(-1)
        self.limited = shape.dt_limit[0] > 0 or shape.dt_limit[1] < float("inf")
        self.folded_DI = self.out_DI * self.norm_I
        self.folded_ID = self.folded_DI.t()
        self.taps = conv_EK.t().contiguous().unbind(0)
        self.halo = shape.d_conv - 1

    def pieces(
        self, batch: int, steps: int, lengths: Sequence[int] | None, u: Tensor
    ) -> Iterator[Piece]:
        """The plan for a batch."""
        return tiles.plan(
            batch,
            steps,
            lengths,
            self.shape.chunk_size,
            tiles.tile_tokens(u),
            reverse=self.reverse,
        )

    def _tokens(self, piece: Piece) -> slice:
        """The tokens among the places of a tile's chunks."""
        return slice(piece.padding, None) if self.reverse else slice(0, piece.stop - piece.start)

    def _span(self, piece: Piece) -> tuple[slice, slice]:
        """Tokens and neighbours: where they are in the batch's rows, and in the tile's places."""
        if self.reverse:
            start, stop = piece.start, min(piece.length, piece.stop + self.halo)
            at = piece.padding
        else:
            start, stop = max(0, piece.start - self.halo), piece.stop
            at = self.halo - (piece.start - start)
        return slice(start, stop), slice(at, at + stop - start)

    def _input(self, u_BTD: Tensor, piece: Piece, room: Room) -> None:
        """Fetch a tile's rows of the input; zero where there is no token."""
        tokens, where = self._span(piece)
        if where.start:
            room.u_BMD[:, : where.start].zero_()
        if where.stop < room.places:
            room.u_BMD[:, where.stop :].zero_()
        room.u_BMD[:, where].copy_(u_BTD[piece.rows, tokens])

    def _convolve(self, in_BMF: Tensor, room: Room, pre_BTE: Tensor) -> None:
        """The causal depthwise convolution before its SiLU."""
        first, *others = room.taps(in_BMF)
        torch.addcmul(self.conv_bias_E, first, self.taps[0], out=pre_BTE)
        for seen_BTE, weights_E in zip(others, self.taps[1:], strict=True):
            pre_BTE.addcmul_(seen_BTE, weights_E)

    def _activate(self, pre_BTE: Tensor, room: Room) -> None:
        """x, B and C into the room's buffers."""
        for pre, out in zip(room.parts(pre_BTE), (room.x, room.B, room.C), strict=True):
            _silu(pre, out.whole)

    def _tap_gradients(self, in_BMF: Tensor, room: BackRoom, out_KE: Tensor) -> None:
        """Add the gradient of the convolution's weights, all taps at once in blocks of tokens."""
        seen_KBTE = room.seen(in_BMF)
        tokens = room.Z * room.Q
        size = min(tokens, max(1, TAP_TOKENS // room.count))
        product_KBTE = workspace("dwritten", in_BMF, self.shape.d_conv, room.count, size, room.E)
        torch.mul(room.dpre_BTE[:, :size], seen_KBTE[:, :, :size], out=product_KBTE)
        for start in range(size, tokens, size):
            block = slice(start, min(start + size, tokens))
            product_KBTE[:, :, : block.stop - start].addcmul_(
                room.dpre_BTE[:, block], seen_KBTE[:, :, block]
            )
        product_KE = product_KBTE.sum((1, 2))
        out_KE += product_KE.flip(0) if self.reverse else product_KE

    def _steps(self, in_BMF: Tensor, piece: Piece, room: Room) -> Tensor:
        """dt, [B, Z, H, Q]; zero in empty places."""
        raw_BZHQ = room.steps(in_BMF)
        biased_BZHQ = workspace("biased", in_BMF, *raw_BZHQ.shape)
        dt_BZHQ = F.softplus(torch.add(raw_BZHQ, self.dt_bias_H1, out=biased_BZHQ))
        if self.limited:
            dt_BZHQ.clamp_(*self.shape.dt_limit)
        if piece.padding:  # less than a chunk
            if self.reverse:
                dt_BZHQ[:, 0, :, : piece.padding].zero_()
            else:
                dt_BZHQ[:, -1, :, -piece.padding :].zero_()
        return dt_BZHQ

    def _gate(self, in_BMF: Tensor, y_BZHQP: Tensor, room: Room) -> None:
        """silu(z), and y times it, into the room's buffers."""
        _silu(in_BMF[:, room.chunks, : self.shape.d_inner], room.gate_BTI)
        torch.mul(y_BZHQP, room.gate_BZHQP, out=room.gated_BZHQP)

    def forward(
        self,
        u_BTD: Tensor,
        piece: Piece,
        state_BHNP: Tensor | None,
        out_BTD: Tensor,
        keep: bool,
    ) -> tuple[_Saved | None, Tensor | None]:
        """Write a tile of the output; returns what to keep and the state for the next tile."""
        shape = self.shape
        G = shape.ngroups
        room = rooms.of(Room, shape, u_BTD, piece, reverse=self.reverse)

        def stack(name: str, size: tuple[int, ...]) -> Stack:
            return Stack(u_BTD.new_empty(size)) if keep else workspace.stack(name, u_BTD, *size)

        self._input(u_BTD, piece, room)
        in_BMF = stack("in", (piece.count, room.places, room.F)).whole
        rows(room.u_MD, self.in_DF, in_BMF.view(-1, room.F), half=shape.half)
        dt_BZHQ = self._steps(in_BMF, piece, room)
        pre_BTE = stack("pre", (piece.count, room.Z * room.Q, room.E)).whole
        self._convolve(in_BMF, room, pre_BTE)
        self._activate(pre_BTE, room)
        before = stack("before", room.state_shape) if room.Z > 1 or not piece.first else None
        y = stack("y", room.x_shape)
        kept, state_BHNP = tiles.forward(
            room.x,
            dt_BZHQ,
            self.A_H,
            room.B,
            room.C,
            self.D_H,
            None if piece.first else state_BHNP,
            None,
            before,
            y,
            want_state=not piece.last,
            reverse=self.reverse,
        )
        self._gate(in_BMF, y.whole, room)
        normed_BTI = room.gated_BTI
        if shape.norm_before_gate:
            normed_BTI = y.whole.transpose(2, 3).flatten(3).flatten(1, 2)
        size_BTG = torch.linalg.vector_norm(normed_BTI.unflatten(-1, (G, -1)), dim=-1)
        rstd_BTG = (size_BTG.square_().mul_(G / shape.d_inner).add_(shape.norm_eps)).rsqrt_()
        if G > 1:
            room.gated_BTGC.mul_(rstd_BTG.unsqueeze(-1))
        rows(room.gated_TI, self.folded_ID, room.out_TD, half=shape.half)
        span = (piece.rows, slice(piece.start, piece.stop))
        if G == 1 and not piece.padding and isinstance(piece.rows, slice):
            torch.mul(room.out_BTD, rstd_BTG, out=out_BTD[span])
        else:
            if G == 1:
                room.out_BTD.mul_(rstd_BTG)
            out_BTD[span] = room.out_BTD[:, self._tokens(piece)]
        if not keep:
            return None, state_BHNP
        return (
            _Saved(
                in_BMF,
                pre_BTE,
                None if before is None else before.whole,
                y.whole,
                dt_BZHQ,
                kept.sum_BZHQ,
                rstd_BTG,
            ),
            state_BHNP,
        )

    def backward(
        self,
        u_BTD: Tensor,
        dout_BTD: Tensor,
        piece: Piece,
        saved: _Saved,
        dstate_BHNP: Tensor | None,
        sums: _Sums,
    ) -> Tensor | None:
        """Add a tile's gradients to the sums; returns that of the state before the tile."""
        shape = self.shape
        in_BMF, pre_BTE, before_BZHNP, y_BZHQP, dt_BZHQ, sum_BZHQ, rstd_BTG = saved
        G, width = shape.ngroups, shape.d_inner
        room = rooms.of(BackRoom, shape, u_BTD, piece, reverse=self.reverse)

        # Output projection and normalisation.
        dout_BTD = dout_BTD[piece.rows, piece.start : piece.stop]
        if piece.padding:
            room.out_BTD.zero_()
            room.out_BTD[:, self._tokens(piece)].copy_(dout_BTD)
            dout_BTD = room.out_BTD
        if G == 1:
            torch.mul(dout_BTD, rstd_BTG, out=room.out_BTD)
        elif not piece.padding:
            room.out_BTD.copy_(dout_BTD)
        self._gate(in_BMF, y_BZHQP, room)
        rows(room.out_TD, self.folded_DI, room.dgated_TI, half=shape.half)
        rstd_BTG1 = rstd_BTG.unsqueeze(-1)
        if G > 1:
            room.dgated_BTGC.mul_(rstd_BTG1)
        torch.mul(room.dgated_BTI, room.gated_BTI, out=room.product_BTI)
        share_BTG1 = room.product_BTGC.sum(-1, keepdim=True)
        share_BTG1.mul_(rstd_BTG1.square()).mul_(-G / width)
        if shape.norm_before_gate:
            torch.mul(y_BZHQP, room.dgated_BZHQP, out=room.product_BZHQP)
            room.dgated_BTI.mul_(room.gate_BTI)
            share_BTI = share_BTG1.expand_as(room.dgated_BTGC).flatten(-2)
            share_BZHQP = room.split(share_BTI, 0, shape.nheads, shape.headdim)
            torch.addcmul(room.dgated_BZHQP, y_BZHQP, share_BZHQP, out=room.dy.whole)
        else:
            room.dgated_BTGC.addcmul_(room.gated_BTGC, share_BTG1)
            torch.mul(y_BZHQP, room.dgated_BZHQP, out=room.product_BZHQP)
            torch.mul(room.dgated_BZHQP, room.gate_BZHQP, out=room.dy.whole)
        if sums.folded_DI is not None:
            if G > 1:
                room.gated_BTGC.mul_(rstd_BTG1)
            rows(room.out_TD.t(), room.gated_TI, sums.folded_DI, add=True, half=shape.half)
        room.din_outside.zero_()
        _silu_backward(room.product_BTI, in_BMF[:, room.chunks, :width], room.dz_BTI)

        # The scan.
        self._activate(pre_BTE, room)
        found = tiles.backward(
            Kept(
                room.x,
                sum_BZHQ,
                None if before_BZHNP is None else Stack(before_BZHNP),
                wrote=room.Z > 1 or not piece.last,
            ),
            room.dy,
            dt_BZHQ,
            room.B,
            room.C,
            self.D_H,
            None if piece.last else dstate_BHNP,
            reverse=self.reverse,
        )
        assert found.D_H is not None
        sums.D_H.add_(found.D_H)
        sums.A_H.add_((found.decayed_BZHQ * dt_BZHQ).sum((0, 1, 3)))
        # d dt / d raw is sigmoid(raw), which is 1 - exp(-softplus(raw)).
        slope_BZHQ = torch.expm1(-dt_BZHQ).neg_()
        if self.limited:
            raw_BZHQ = room.steps(in_BMF) + self.dt_bias_H1
            free_BZHQ = F.softplus(raw_BZHQ)
            low, high = shape.dt_limit
            torch.sigmoid(raw_BZHQ, out=slope_BZHQ)
            held_BZHQ = (free_BZHQ < low) | (free_BZHQ > high)
            held_BZHQ |= dt_BZHQ == 0  # in empty places, whatever the projection says
            slope_BZHQ.masked_fill_(held_BZHQ, 0.0)
        tiny = torch.finfo(dt_BZHQ.dtype).tiny
        draw_BZHQ = (slope_BZHQ / dt_BZHQ.clamp(min=tiny)).mul_(found.written_BZHQ)
        draw_BZHQ += slope_BZHQ.mul_(found.decayed_BZHQ).mul_(self.A_H1)
        room.draw_BZHQ.copy_(draw_BZHQ)
        sums.dt_bias_H.add_(draw_BZHQ.sum((0, 1, 3)))

        # The convolution.
        gradients = (found.x, found.B, found.C)
        for gradient, pre, out in zip(gradients, room.parts(pre_BTE), room.dpre_parts, strict=True):
            _silu_backward(gradient.whole, pre, out)
        if any(sums.needed[2:4]):
            sums.conv_bias_E.add_(room.dpre_TE.sum(0))
            self._tap_gradients(in_BMF, room, sums.conv_KE)
        torch.mul(room.dpre_BTE, self.taps[-1], out=room.din_taps[-1])
        for tap, weights_E in zip(room.din_taps[:-1], self.taps[:-1], strict=True):
            tap.addcmul_(room.dpre_BTE, weights_E)

        # Input projection.
        self._input(u_BTD, piece, room)
        if sums.in_FD is not None:
            rows(room.din_MF.t(), room.u_MD, sums.in_FD, add=True, half=shape.half)
        if sums.u_BTD is not None:
            rows(room.din_MF, self.in_FD, room.u_MD, half=shape.half)
            sums.add_input(piece, *self._span(piece), room.u_BMD)
        return found.state_BHNP


def _silu(values: Tensor, out: Tensor) -> None:
    torch.ops.aten.silu.out(values, out=out)


def _silu_backward(gradient: Tensor, values: Tensor, out: Tensor) -> None:
    torch.ops.aten.silu_backward.grad_input(gradient, values, grad_input=out)


def mix(
    u_BTD: Tensor,
    in_FD: Tensor,
    conv_EK: Tensor,
    conv_bias_E: Tensor,
    dt_bias_H: Tensor,
    A_log_H: Tensor,
    D_H: Tensor,
    norm_I: Tensor,
    out_DI: Tensor,
    shape: MixerShape,
    *,
    lengths: Sequence[int] | None = None,
    reverse: bool = False,
) -> Tensor:
    """A Mamba-2 block's output for a batch, [B, T, D]; zero beyond each row's length.

    Args:
        u_BTD: input, float32 or float64 as all weights are.
        in_FD ... out_DI: the block's parameters; conv_EK without its middle dimension.
        shape: sizes and settings.
        lengths: tokens of each row; what lies beyond costs nothing and is never read.
        reverse: read every row from its last token to its first.
    """
    weights = (in_FD, conv_EK, conv_bias_E, dt_bias_H, A_log_H, D_H, norm_I, out_DI)
    return cast(Tensor, Mix.apply(u_BTD, *weights, shape, lengths, reverse))  # type: ignore[no-untyped-call]
