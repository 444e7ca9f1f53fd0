"""The whole Mamba-2 block as one function with its derivative written by hand.

It computes exactly what ``mamba2`` says in modules, in fewer passes over memory: the batch is cut
into tiles that stay in cache; the convolution is a sum of shifted rows; the normalisation's factor
is applied after the output projection, which is half as wide, and its weights are folded into it.
Going backwards the convolution, the gate and the scan's chunk matrices are computed anew; what is
kept are the input projection, the head inputs, the states between chunks and the scan's output.

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
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from . import lanes, tiles
from .products import fast, rows
from .tiles import Kept, Piece, workspace


@dataclass(frozen=True)
class MixerShape:
    """The sizes of a block and what is not a tensor in it; names as in :class:`mamba2.Mamba2`.

    half: round the factors of the two projections to bfloat16.
    """

    d_inner: int
    nheads: int
    headdim: int
    ngroups: int
    d_state: int
    d_conv: int
    chunk_size: int
    norm_eps: float
    dt_limit: tuple[float, float]
    norm_before_gate: bool
    half: bool = False


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
TAP_TOKENS = 512


class _Saved(NamedTuple):
    """What of a tile is kept for its backward pass."""

    in_BMF: Tensor
    x_BZHQP: Tensor
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
        self.folded_DI = self.out_DI * self.norm_I
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

    # Where things lie in a tile. Reading forwards its places are: neighbours before it (the
    # convolution looks at them), tokens, empty ones. Reading backwards: empty ones, tokens,
    # neighbours after it.

    def _tokens(self, piece: Piece) -> slice:
        """The tokens among the places of a tile's chunks."""
        return slice(piece.padding, None) if self.reverse else slice(0, piece.stop - piece.start)

    def _chunks(self, piece: Piece) -> slice:
        """The places of the chunks among all of a tile's."""
        places = piece.chunks * piece.chunk
        return slice(0, places) if self.reverse else slice(self.halo, self.halo + places)

    def _clear_padding(self, values_BTH: Tensor, piece: Piece) -> None:
        if piece.padding:
            empty = slice(0, piece.padding) if self.reverse else slice(-piece.padding, None)
            values_BTH[:, empty].zero_()

    def _span(self, piece: Piece) -> tuple[slice, slice]:
        """Tokens and neighbours: where they are in the batch's rows, and in the tile's places."""
        if self.reverse:
            start, stop = piece.start, min(piece.length, piece.stop + self.halo)
            at = piece.padding
        else:
            start, stop = max(0, piece.start - self.halo), piece.stop
            at = self.halo - (piece.start - start)
        return slice(start, stop), slice(at, at + stop - start)

    def _input(self, u_BTD: Tensor, piece: Piece) -> Tensor:
        """A tile's rows of the input, [M, D]; zero where there is no token."""
        places = self.halo + piece.chunks * piece.chunk
        u_BMD = workspace("u", u_BTD, piece.count, places, u_BTD.shape[-1])
        tokens, where = self._span(piece)
        u_BMD[:, : where.start].zero_()
        u_BMD[:, where.stop :].zero_()
        u_BMD[:, where].copy_(u_BTD[piece.rows, tokens])
        return u_BMD

    def _shifted(self, in_BMF: Tensor, piece: Piece, tap: int) -> Tensor:
        """What tap number ``tap`` of the convolution sees at each place of the chunks."""
        shape = self.shape
        at = self.halo - tap if self.reverse else tap
        places = piece.chunks * piece.chunk
        first = shape.d_inner
        width = shape.d_inner + 2 * shape.ngroups * shape.d_state
        return in_BMF[:, at : at + places, first : first + width]

    def _convolve(self, in_BMF: Tensor, piece: Piece) -> Tensor:
        """The causal depthwise convolution before its SiLU, [B, Z * Q, E]."""
        places = piece.chunks * piece.chunk
        width = self.conv_bias_E.shape[0]
        pre_BTE = workspace("pre", in_BMF, piece.count, places, width)
        first = self._shifted(in_BMF, piece, 0)
        torch.addcmul(self.conv_bias_E, first, self.taps[0], out=pre_BTE)
        for tap in range(1, len(self.taps)):
            pre_BTE.addcmul_(self._shifted(in_BMF, piece, tap), self.taps[tap])
        return pre_BTE

    def _tap_gradients(
        self, in_BMF: Tensor, dpre_BTE: Tensor, piece: Piece, out_KE: Tensor
    ) -> None:
        """Add the gradient of the convolution's weights, all taps at once in blocks of tokens."""
        earliest = self._shifted(in_BMF, piece, self.halo if self.reverse else 0)
        row = in_BMF.stride(1)
        seen_KBTE = earliest.as_strided(
            (self.shape.d_conv, *earliest.shape), (row, *in_BMF.stride())
        )
        product_KE = torch.zeros_like(out_KE)
        for start in range(0, dpre_BTE.shape[1], TAP_TOKENS):
            block = slice(start, start + TAP_TOKENS)
            some_BTE = dpre_BTE[:, block]
            product_KBTE = workspace("taps", in_BMF, self.shape.d_conv, *some_BTE.shape)
            torch.mul(some_BTE, seen_KBTE[:, :, block], out=product_KBTE)
            product_KE += product_KBTE.flatten(1, 2).sum(1)
        out_KE += product_KE.flip(0) if self.reverse else product_KE

    def _heads(self, wide_BTI: Tensor, piece: Piece) -> Tensor:
        """[B, Z * Q, I] seen as [B, Z, H, Q, P]."""
        shape = (piece.chunks, piece.chunk)
        by_head: Tensor = wide_BTI.unflatten(1, shape).unflatten(-1, (self.shape.nheads, -1))
        return by_head.transpose(2, 3)

    def _projections(self, pre_BTE: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """B and C seen as [B, Z, G, Q, N] (views of ``pre``, or of a gradient like it)."""
        shape = self.shape
        width = shape.ngroups * shape.d_state
        split = pre_BTE.unflatten(1, (piece.chunks, piece.chunk))
        B, C = (
            split[..., first : first + width]
            .unflatten(-1, (shape.ngroups, shape.d_state))
            .transpose(2, 3)
            for first in (shape.d_inner, shape.d_inner + width)
        )
        return B, C

    def _activate(self, pre_BTE: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """B and C after the SiLU, contiguous."""
        B_pre, C_pre = self._projections(pre_BTE, piece)
        B_BZGQN = workspace("B", pre_BTE, *B_pre.shape)
        C_BZGQN = workspace("C", pre_BTE, *C_pre.shape)
        _silu(B_pre, B_BZGQN)
        _silu(C_pre, C_BZGQN)
        return B_BZGQN, C_BZGQN

    def _gate(self, in_BMF: Tensor, y_BZHQP: Tensor, piece: Piece) -> tuple[Tensor, Tensor]:
        """silu(z), and y times it, both [B, Z * Q, I]."""
        z_BTI = in_BMF[:, self._chunks(piece), : self.shape.d_inner]
        gate_BTI = workspace("gate", in_BMF, *z_BTI.shape)
        _silu(z_BTI, gate_BTI)
        gated_BTI = workspace("gated", in_BMF, *z_BTI.shape)
        torch.mul(y_BZHQP, self._heads(gate_BTI, piece), out=self._heads(gated_BTI, piece))
        return gate_BTI, gated_BTI

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
        G, N, P, H = shape.ngroups, shape.d_state, shape.headdim, shape.nheads
        count, Z, Q = piece.count, piece.chunks, piece.chunk

        def room(name: str, *size: int) -> Tensor:
            return u_BTD.new_empty(size) if keep else workspace(name, u_BTD, *size)

        u_BMD = self._input(u_BTD, piece)
        in_BMF = room("in", count, u_BMD.shape[1], self.in_FD.shape[0])
        rows(u_BMD.flatten(0, 1), self.in_DF, in_BMF.flatten(0, 1), half=shape.half)
        raw_BTH = in_BMF[:, self._chunks(piece), -H:] + self.dt_bias_H
        dt_BTH = F.softplus(raw_BTH).clamp_(*shape.dt_limit)
        self._clear_padding(dt_BTH, piece)
        dt_BZHQ = dt_BTH.unflatten(1, (Z, Q)).transpose(2, 3).contiguous()
        pre_BTE = self._convolve(in_BMF, piece)
        x_BZHQP = room("x", count, Z, H, Q, P)
        _silu(self._heads(pre_BTE[..., : shape.d_inner], piece), x_BZHQP)
        before_BZHNP = room("before", count, Z, H, N, P) if Z > 1 or not piece.first else None
        B_BZGQN, C_BZGQN = self._activate(pre_BTE, piece)
        y_BZHQP = room("y", count, Z, H, Q, P)
        kept, state_BHNP = tiles.forward(
            x_BZHQP,
            dt_BZHQ,
            self.A_H,
            B_BZGQN,
            C_BZGQN,
            self.D_H,
            None if piece.first else state_BHNP,
            None,
            before_BZHNP,
            y_BZHQP,
            want_state=not piece.last,
            reverse=self.reverse,
        )
        _, gated_BTI = self._gate(in_BMF, y_BZHQP, piece)
        normed_BTI = gated_BTI
        if shape.norm_before_gate:
            normed_BTI = y_BZHQP.transpose(2, 3).flatten(3).flatten(1, 2)
        size_BTG = torch.linalg.vector_norm(normed_BTI.unflatten(-1, (G, -1)), dim=-1)
        rstd_BTG = (size_BTG.square_().mul_(G / shape.d_inner).add_(shape.norm_eps)).rsqrt_()
        if G > 1:
            gated_BTI.unflatten(-1, (G, -1)).mul_(rstd_BTG.unsqueeze(-1))
        tile_BTD = workspace("out", u_BTD, count, Z * Q, u_BTD.shape[-1])
        rows(
            gated_BTI.flatten(0, 1),
            self.folded_DI.t(),
            tile_BTD.flatten(0, 1),
            half=shape.half,
        )
        if G == 1:
            tile_BTD.mul_(rstd_BTG)
        out_BTD[piece.rows, piece.start : piece.stop] = tile_BTD[:, self._tokens(piece)]
        if not keep:
            return None, state_BHNP
        return (
            _Saved(in_BMF, x_BZHQP, before_BZHNP, y_BZHQP, dt_BZHQ, kept.sum_BZHQ, rstd_BTG),
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
        in_BMF, x_BZHQP, before_BZHNP, y_BZHQP, dt_BZHQ, sum_BZHQ, rstd_BTG = saved
        G, P, H, width = shape.ngroups, shape.headdim, shape.nheads, shape.d_inner
        count, Z, Q = piece.count, piece.chunks, piece.chunk
        chunks, tokens = self._chunks(piece), self._tokens(piece)

        # Output projection and normalisation.
        dout_tile_BTD = workspace("out", u_BTD, count, Z * Q, u_BTD.shape[-1])
        if piece.padding:
            dout_tile_BTD.zero_()
        dout_tile_BTD[:, tokens].copy_(dout_BTD[piece.rows, piece.start : piece.stop])
        if G == 1:
            dout_tile_BTD.mul_(rstd_BTG)
        gate_BTI, gated_BTI = self._gate(in_BMF, y_BZHQP, piece)
        dgated_BTI = workspace("dgated", u_BTD, count, Z * Q, width)
        rows(
            dout_tile_BTD.flatten(0, 1),
            self.folded_DI,
            dgated_BTI.flatten(0, 1),
            half=shape.half,
        )
        product_BTI = workspace("product", u_BTD, count, Z * Q, width)
        dgated_BTGC, gated_BTGC, product_BTGC = (
            t.unflatten(-1, (G, -1)) for t in (dgated_BTI, gated_BTI, product_BTI)
        )
        rstd_BTG1 = rstd_BTG.unsqueeze(-1)
        if G > 1:
            dgated_BTGC.mul_(rstd_BTG1)
        torch.mul(dgated_BTGC, gated_BTGC, out=product_BTGC)
        share_BTG1 = product_BTGC.sum(-1, keepdim=True)
        share_BTG1.mul_(rstd_BTG1.square()).mul_(-G / width)
        y_BTI = self._heads(product_BTI, piece)  # room for y, or y times something, as [.., I]
        dy_BZHQP = workspace("dy", u_BTD, count, Z, H, Q, P)
        if shape.norm_before_gate:
            torch.mul(y_BZHQP, self._heads(dgated_BTI, piece), out=y_BTI)
            dgated_BTI.mul_(gate_BTI)
            share_BTI = share_BTG1.expand_as(dgated_BTGC).flatten(-2)
            torch.addcmul(
                self._heads(dgated_BTI, piece),
                y_BZHQP,
                self._heads(share_BTI, piece),
                out=dy_BZHQP,
            )
        else:
            dgated_BTGC.addcmul_(gated_BTGC, share_BTG1)
            torch.mul(y_BZHQP, self._heads(dgated_BTI, piece), out=y_BTI)
            torch.mul(self._heads(dgated_BTI, piece), self._heads(gate_BTI, piece), out=dy_BZHQP)
        if sums.folded_DI is not None:
            if G > 1:
                gated_BTGC.mul_(rstd_BTG1)
            rows(
                dout_tile_BTD.flatten(0, 1).t(),
                gated_BTI.flatten(0, 1),
                sums.folded_DI,
                add=True,
                half=shape.half,
            )
        din_BMF = workspace("din", u_BTD, *in_BMF.shape)
        outside = slice(chunks.stop, None) if self.reverse else slice(0, self.halo)
        din_BMF[:, outside].zero_()
        _silu_backward(product_BTI, in_BMF[:, chunks, :width], din_BMF[:, chunks, :width])

        # The scan.
        pre_BTE = self._convolve(in_BMF, piece)
        B_BZGQN, C_BZGQN = self._activate(pre_BTE, piece)
        kept = Kept(x_BZHQP, sum_BZHQ, before_BZHNP, wrote=Z > 1 or not piece.last)
        found = tiles.backward(
            kept,
            dy_BZHQP,
            dt_BZHQ,
            B_BZGQN,
            C_BZGQN,
            self.D_H,
            None if piece.last else dstate_BHNP,
            reverse=self.reverse,
        )
        assert found.D_H is not None
        sums.D_H.add_(found.D_H)
        sums.A_H.add_((found.decayed_BZHQ * dt_BZHQ).sum((0, 1, 3)))
        # d dt / d raw is sigmoid(raw), which is 1 - exp(-softplus(raw)).
        raw_BTH = in_BMF[:, chunks, -H:] + self.dt_bias_H
        slope_BZHQ = torch.sigmoid(raw_BTH).unflatten(1, (Z, Q)).transpose(2, 3)
        tiny = torch.finfo(dt_BZHQ.dtype).tiny
        draw_BZHQ = found.written_BZHQ * (slope_BZHQ / dt_BZHQ.clamp(min=tiny))
        draw_BZHQ += found.decayed_BZHQ * self.A_H.unsqueeze(-1) * slope_BZHQ
        low, high = shape.dt_limit
        if low > 0 or high < float("inf"):
            free_BTH = F.softplus(raw_BTH)
            held_BTH = (free_BTH < low) | (free_BTH > high)
            draw_BZHQ.masked_fill_(held_BTH.unflatten(1, (Z, Q)).transpose(2, 3), 0.0)
        draw_BTH = draw_BZHQ.transpose(2, 3).flatten(1, 2)
        self._clear_padding(draw_BTH, piece)  # dt is zero there whatever the projection says
        din_BMF[:, chunks, -H:] = draw_BTH
        sums.dt_bias_H.add_(draw_BTH.sum((0, 1)))

        # The convolution.
        dpre_BTE = workspace("dpre", u_BTD, *pre_BTE.shape)
        _silu_backward(
            found.x_BZHQP,
            self._heads(pre_BTE[..., :width], piece),
            self._heads(dpre_BTE[..., :width], piece),
        )
        for gradient, pre, out in zip(
            (found.B_BZGQN, found.C_BZGQN),
            self._projections(pre_BTE, piece),
            self._projections(dpre_BTE, piece),
            strict=True,
        ):
            _silu_backward(gradient, pre, out)
        if any(sums.needed[2:4]):
            sums.conv_bias_E.add_(dpre_BTE.flatten(0, 1).sum(0))
            self._tap_gradients(in_BMF, dpre_BTE, piece, sums.conv_KE)
        torch.mul(dpre_BTE, self.taps[-1], out=self._shifted(din_BMF, piece, shape.d_conv - 1))
        for tap in range(shape.d_conv - 1):
            self._shifted(din_BMF, piece, tap).addcmul_(dpre_BTE, self.taps[tap])

        # Input projection.
        u_BMD = self._input(u_BTD, piece)
        din_MF = din_BMF.flatten(0, 1)
        if sums.in_FD is not None:
            rows(din_MF.t(), u_BMD.flatten(0, 1), sums.in_FD, add=True, half=shape.half)
        if sums.u_BTD is not None:
            du_BMD = u_BMD
            rows(din_MF, self.in_FD, du_BMD.flatten(0, 1), half=shape.half)
            sums.add_input(piece, *self._span(piece), du_BMD)
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
