"""What the tiles of a Mamba-2 block have in common: its sizes, their buffers and the views of these.

Buffers and views are made once for all tiles of a size. Where things lie in a tile: reading forwards
its places are neighbours before it (the convolution looks at them), tokens, empty ones; reading
backwards empty ones, tokens, neighbours after it.

Legend of the shape suffixes: that of ``mixer``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from .buffers import workspace
from .tiles import Piece


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


class Room:
    """The buffers of tiles of one size, and the ways in which a block's passes look at them.

    u, x, B, C, gate, gated, out are what ``mixer`` calls so.

    places, chunks: how many places there are, and which of them are those of the chunks.
    E, F: columns of the convolution and of the input projection.
    """

    def __init__(
        self, shape: MixerShape, like: Tensor, count: int, Z: int, Q: int, reverse: bool
    ) -> None:
        D, inner, G = like.shape[-1], shape.d_inner, shape.ngroups
        self.shape, self.count, self.Z, self.Q, self.reverse = shape, count, Z, Q, reverse
        self.halo = shape.d_conv - 1
        self.places = self.halo + Z * Q
        self.chunks = slice(0, Z * Q) if reverse else slice(self.halo, None)
        self.x_shape = (count, Z, shape.nheads, Q, shape.headdim)
        self.state_shape = (count, Z, shape.nheads, shape.d_state, shape.headdim)
        B_shape = (count, Z, G, Q, shape.d_state)
        self.E = inner + 2 * G * shape.d_state
        self.F = inner + self.E + shape.nheads
        self._like = like.new_empty(0)  # not the batch itself, which it would keep alive
        self.u_BMD = self.buffer("u", self.places, D)
        self.u_MD = self.u_BMD.flatten(0, 1)
        self.x = workspace.stack("x", self._like, *self.x_shape)
        self.B, self.C = (workspace.stack(name, self._like, *B_shape) for name in "BC")
        # In buffers of the scan while they hold nothing for it: fewer bytes, and warm ones.
        self.gate_BTI, self.gate_BZHQP = self.wide("by head")
        self.gated_BTI, self.gated_BZHQP = self.wide("weight")
        self.gated_TI, self.gated_BTGC = self.gated_BTI.flatten(0, 1), self.by_group(self.gated_BTI)
        self.out_BTD = self.buffer("out", Z * Q, D)
        self.out_TD = self.out_BTD.flatten(0, 1)

    def buffer(self, name: str, *size: int) -> Tensor:
        """A buffer of this size for each row."""
        return workspace(name, self._like, self.count, *size)

    def wide(self, name: str) -> tuple[Tensor, Tensor]:
        """A buffer [B, Z * Q, I], also seen as [B, Z, H, Q, P]."""
        wide_BTI = self.buffer(name, self.Z * self.Q, self.shape.d_inner)
        return wide_BTI, self.split(wide_BTI, 0, self.shape.nheads, self.shape.headdim)

    def by_group(self, wide_BTI: Tensor) -> Tensor:
        """[B, Z * Q, I] seen as [B, Z * Q, G, I / G]."""
        view: Tensor = wide_BTI.unflatten(-1, (self.shape.ngroups, -1))
        return view

    def split(self, wide_BTX: Tensor, first: int, parts: int, width: int) -> Tensor:
        """Some columns of [B, Z * Q, X] from the first on, seen as [B, Z, parts, Q, width]."""
        rows, step, column = wide_BTX.stride()
        return wide_BTX.as_strided(
            (self.count, self.Z, parts, self.Q, width),
            (rows, self.Q * step, width * column, step, column),
            wide_BTX.storage_offset() + first * column,
        )

    def parts(self, pre_BTE: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x as [B, Z, H, Q, P], B and C as [B, Z, G, Q, N]."""
        shape = self.shape
        width = shape.ngroups * shape.d_state
        return (
            self.split(pre_BTE, 0, shape.nheads, shape.headdim),
            self.split(pre_BTE, shape.d_inner, shape.ngroups, shape.d_state),
            self.split(pre_BTE, shape.d_inner + width, shape.ngroups, shape.d_state),
        )

    def steps(self, in_BMF: Tensor) -> Tensor:
        """The columns of dt at the places of the chunks, as [B, Z, H, Q]."""
        rows, step, _ = in_BMF.stride()
        at = in_BMF.storage_offset() + (0 if self.reverse else self.halo * step)
        return in_BMF.as_strided(
            (self.count, self.Z, self.shape.nheads, self.Q),
            (rows, self.Q * step, 1, step),
            at + self.shape.d_inner + self.E,
        )

    def seen(self, in_BMF: Tensor) -> Tensor:
        """What the convolution sees at each place of the chunks, [K, B, Z * Q, E], earliest first."""
        rows, step, _ = in_BMF.stride()
        return in_BMF.as_strided(
            (self.shape.d_conv, self.count, self.Z * self.Q, self.E),
            (step, rows, step, 1),
            in_BMF.storage_offset() + self.shape.d_inner,
        )

    def taps(self, in_BMF: Tensor) -> tuple[Tensor, ...]:
        """What each tap of the convolution sees, in the taps' order."""
        seen = self.seen(in_BMF).unbind(0)
        return seen[::-1] if self.reverse else seen


class BackRoom(Room):
    """What the pass backwards needs as well: the derivatives by what the room has, by d and its name.

    product: of two of them, and then of others; outside: the places that are not of the chunks.
    """

    def __init__(
        self, shape: MixerShape, like: Tensor, count: int, Z: int, Q: int, reverse: bool
    ) -> None:
        super().__init__(shape, like, count, Z, Q, reverse)
        outside = slice(Z * Q, None) if reverse else slice(0, self.halo)
        self.dgated_BTI, self.dgated_BZHQP = self.wide("dx")  # the scan's, as those above
        self.product_BTI, self.product_BZHQP = self.wide("pairs")
        self.dgated_TI = self.dgated_BTI.flatten(0, 1)
        self.dgated_BTGC, self.product_BTGC = (
            self.by_group(wide_BTI) for wide_BTI in (self.dgated_BTI, self.product_BTI)
        )
        self.dy = workspace.stack("dy", self._like, *self.x_shape)
        self.din_BMF = self.buffer("din", self.places, self.F)
        self.din_MF = self.din_BMF.flatten(0, 1)
        self.din_outside = self.din_BMF[:, outside]
        self.dz_BTI = self.din_BMF[:, self.chunks, : shape.d_inner]
        self.draw_BZHQ = self.steps(self.din_BMF)
        self.din_taps = self.taps(self.din_BMF)
        self.dpre_BTE = self.buffer("written", Z * Q, self.E)  # the scan's, too
        self.dpre_TE = self.dpre_BTE.flatten(0, 1)
        self.dpre_parts = self.parts(self.dpre_BTE)


R = TypeVar("R", bound=Room)


def of(kind: type[R], shape: MixerShape, like: Tensor, piece: Piece, *, reverse: bool) -> R:
    """The room for a tile, the same one for all of its size; ``like`` is the block's input."""
    size = (piece.count, piece.chunks, piece.chunk)
    return workspace.remembered(
        (kind, shape, like.shape[-1], size, reverse),
        like,
        lambda: kind(shape, like, *size, reverse),
    )
