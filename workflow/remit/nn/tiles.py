"""One tile of the state-space scan, forwards and backwards by hand, in buffers that are used again.

A tile is some sequences by some chunks: few enough tokens to stay in a processor's cache. It knows
tensors only, no autograd; ``ssd`` and ``mixer`` cut a batch into tiles and join the results.

Within a chunk every token reads all tokens before it and the state that the chunk began with::

    y = W x + (2^sum C) state        W_ij = 2^(sum_i - sum_j) (C_i . B_j) dt_j + (i == j) D

Of these matrices none is kept: going backwards they are made anew, transposed.

Source: Dao & Gu 2024, "Transformers are SSMs", arXiv 2405.21060, section 6.

Legend of the shape suffixes
    B sequences   Z chunks   Q tokens in a chunk (i the reading token, j the written one)
    H heads       P head width   G groups of heads   R heads of one group   N state size
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .products import batched

LOG2_E = math.log2(math.e)
# A step that decays by more than this (as a power of two) leaves nothing in float32 or float64; to
# bound it keeps sums over a chunk small, so exact, and finite however large dt and A are.
LOWEST_LOG2 = {torch.float32: -160.0, torch.float64: -240.0}
# In float64 decays below this become exactly zero, as they do in float32 by underflow.
FORGOTTEN_LOG2 = -200.0
# Tokens of a tile on a CPU: its largest matrices then fit the last level of cache. A GPU has
# enough to do only with a large one.
TILE_TOKENS = 1024
TILE_TOKENS_CUDA = 1 << 15
# Views of buffers that are remembered: a few blocks' worth of shapes.
MOST_VIEWS = 1000


class Workspace(threading.local):
    """Buffers by name, kept between calls: fresh memory costs a page fault every 4 KiB."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}
        self._views: dict[tuple[str, torch.dtype, torch.device, tuple[int, ...]], Tensor] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor of this shape with anything in it; the last one of that name is overwritten."""
        dtype, device = like.dtype, like.device
        view = self._views.get((name, dtype, device, shape))
        if view is not None:
            return view
        size = math.prod(shape)
        # An inference tensor could not be written to outside inference mode.
        with torch.inference_mode(False):
            flat = self._flat.get((name, dtype, device))
            if flat is None or flat.numel() < size:
                flat = torch.empty(size, dtype=dtype, device=device)
                self._flat[name, dtype, device] = flat
                self._views.clear()  # some would keep the smaller one alive
            if len(self._views) >= MOST_VIEWS:
                self._views.clear()
            view = flat[:size].view(shape)
        self._views[name, dtype, device, shape] = view
        return view


workspace = Workspace()


@dataclass(frozen=True)
class Piece:
    """Some rows of a batch from one token to another: what a tile is made of.

    rows: a range of rows, or their indices when they do not lie side by side.
    count: how many rows.
    length: tokens of each row.
    start, stop: first token and the one after the last.
    chunks, chunk: Z and Q; Z * Q - (stop - start) places stay empty.
    first, last: no piece of these rows comes before it, or follows, in the direction of reading.
    """

    rows: slice | list[int]
    count: int
    length: int
    start: int
    stop: int
    chunks: int
    chunk: int
    first: bool
    last: bool

    @property
    def padding(self) -> int:
        """Places of the tile without a token."""
        return self.chunks * self.chunk - (self.stop - self.start)


def tile_tokens(like: Tensor) -> int:
    """How many tokens make a tile where this tensor lives."""
    return TILE_TOKENS_CUDA if like.device.type == "cuda" else TILE_TOKENS


def plan(
    batch: int,
    steps: int,
    lengths: Sequence[int] | None,
    chunk_size: int,
    tile_tokens: int,
    *,
    reverse: bool = False,
) -> Iterator[Piece]:
    """Cut a batch into pieces, in the order of reading; nothing beyond a length is in any of them.

    Only rows of one length share a tile, so what is computed for a row never depends on how long
    the others are.
    """
    groups: dict[int, list[int]] = {}
    for row in range(batch):
        groups.setdefault(steps if lengths is None else lengths[row], []).append(row)
    for length in sorted(groups):
        if length == 0:
            continue
        rows = groups[length]
        chunks = 1 if length <= 2 * chunk_size else -(-length // chunk_size)
        chunk = -(-length // chunks)
        chunks = -(-length // chunk)
        at_once = max(1, tile_tokens // length)
        # Tiles of one size, and two of what would fill half of one, so that two threads have work.
        shares = max(-(-len(rows) // at_once), 2 if 2 * len(rows) * length >= tile_tokens else 1)
        at_once = -(-len(rows) // shares)
        pieces = -(-chunks * chunk // max(tile_tokens, chunk))
        per_piece = -(-chunks // pieces) * chunk
        spans = [(t, min(t + per_piece, length)) for t in range(0, length, per_piece)]
        for first in range(0, len(rows), at_once):
            some = rows[first : first + at_once]
            together = some[-1] - some[0] == len(some) - 1
            where = slice(some[0], some[-1] + 1) if together else some
            for start, stop in reversed(spans) if reverse else spans:
                yield Piece(
                    where,
                    len(some),
                    length,
                    start,
                    stop,
                    -(-(stop - start) // chunk),
                    chunk,
                    first=(stop == length) if reverse else (start == 0),
                    last=(start == 0) if reverse else (stop == length),
                )


def chains(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """The pieces of the same rows together: one needs the state of the piece before it."""
    found: list[list[Piece]] = []
    for piece in pieces:
        if piece.first:
            found.append([])
        found[-1].append(piece)
    return found


@dataclass(frozen=True)
class Kept:
    """What a tile's backward pass needs of its forward pass, apart from the inputs.

    before_BZHNP: the state each chunk began with; None if that is nothing for all of them.
    wrote: whether the tile's chunks wrote a state that something read.
    """

    x_BZHQP: Tensor
    sum_BZHQ: Tensor
    before_BZHNP: Tensor | None
    wrote: bool


@dataclass(frozen=True)
class TileGradients:
    """Derivatives with respect to a tile's inputs; those by x lie in a buffer that is used again.

    written_BZHQ is that with respect to log dt where dt only weighs what is written;
    decayed_BZHQ that with respect to the natural logarithm of each step's decay.
    """

    x_BZHQP: Tensor
    B_BZGQN: Tensor
    C_BZGQN: Tensor
    written_BZHQ: Tensor
    decayed_BZHQ: Tensor
    D_H: Tensor | None
    state_BHNP: Tensor | None


def log2_steps(dt: Tensor, A: Tensor, reset: Tensor | None) -> Tensor:
    """log2 of each step's decay, in float64 (Apple's MPS has none); A and reset fit dt's shape."""
    wide = torch.float32 if dt.device.type == "mps" else torch.float64
    lowest = LOWEST_LOG2[dt.dtype]
    steps = (dt.to(wide) * (A.to(wide) * LOG2_E)).clamp(min=lowest)
    return steps if reset is None else steps.masked_fill(reset, lowest)


def sums_of_log2(
    dt_BZHQ: Tensor, A_H: Tensor, reset_BZ1Q: Tensor | None, *, reverse: bool
) -> Tensor:
    """log2 of the decay from a chunk's start up to and including each token.

    A chunk can forget its past many times over: the sums grow large while the differences that
    matter stay small, so they are kept in the wide type of :func:`log2_steps`.
    """
    step_BZHQ = log2_steps(dt_BZHQ, A_H.unsqueeze(-1), reset_BZ1Q)
    if reverse:
        return step_BZHQ.flip(-1).cumsum_(-1).flip(-1)
    return step_BZHQ.cumsum_(-1)


def _decay(log2: Tensor, dtype: torch.dtype) -> Tensor:
    """2 to the power of ``log2``, in dtype."""
    if dtype == torch.float64:
        log2 = torch.threshold(log2, FORGOTTEN_LOG2, -math.inf)
    return torch.exp2(log2.to(dtype))


def _pair_decays(sum_BZHQ: Tensor, like: Tensor, *, transposed: bool) -> Tensor:
    """2^(sum_i - sum_j) for every pair, [B, Z, H, i, j] or transposed; 1 where j comes after i.

    The sums are split into a part that float32 holds exactly and a rest, so that nothing is lost
    in their difference.
    """
    B, Z, H, Q = sum_BZHQ.shape
    pairs_BZHQQ = workspace("pairs", like, B, Z, H, Q, Q)
    rounded_BZHQ = sum_BZHQ.to(like.dtype)
    i, j = (-2, -1) if transposed else (-1, -2)
    torch.sub(rounded_BZHQ.unsqueeze(i), rounded_BZHQ.unsqueeze(j), out=pairs_BZHQQ)
    if sum_BZHQ.dtype != like.dtype:
        rest_BZHQ = (sum_BZHQ - rounded_BZHQ).to(like.dtype)
        pairs_BZHQQ.add_(rest_BZHQ.unsqueeze(i)).sub_(rest_BZHQ.unsqueeze(j))
    pairs_BZHQQ.clamp_(max=0.0)
    if like.dtype == torch.float64:
        torch.threshold_(pairs_BZHQQ, FORGOTTEN_LOG2, -math.inf)
    return torch.exp2_(pairs_BZHQQ)


def _by_group(tensor_BZH: Tensor, groups: int) -> Tensor:
    """[B, Z, H, ...] as [B, Z, G, R, ...]."""
    shape = tensor_BZH.shape
    return tensor_BZH.view(*shape[:2], groups, -1, *shape[3:])


def forward(
    x_BZHQP: Tensor,
    dt_BZHQ: Tensor,
    A_H: Tensor,
    B_BZGQN: Tensor,
    C_BZGQN: Tensor,
    D_H: Tensor | None,
    state_BHNP: Tensor | None,
    reset_BZ1Q: Tensor | None,
    before_BZHNP: Tensor | None,
    y_BZHQP: Tensor,
    *,
    want_state: bool,
    reverse: bool,
) -> tuple[Kept, Tensor | None]:
    """Scan a tile.

    Args:
        x_BZHQP: input of each head, contiguous.
        dt_BZHQ: steps, zero in empty places.
        A_H: decay rates, not positive.
        B_BZGQN, C_BZGQN: projections, contiguous.
        D_H: weight of x itself in y.
        state_BHNP: the state before the tile; zero when not given.
        reset_BZ1Q: True where the state is forgotten before the token.
        before_BZHNP: room for the state each chunk begins with: needed where there is more than
            one chunk or a state before the tile.
        y_BZHQP: the output is written here.
        want_state: whether the state after the tile is needed.
        reverse: read from the last token to the first.

    Returns:
        what :func:`backward` needs, and the state after the tile if it was wanted.
    """
    B, Z, H, Q, P = x_BZHQP.shape
    G, N = B_BZGQN.shape[2], B_BZGQN.shape[-1]
    dtype = x_BZHQP.dtype
    wrote = Z > 1 or want_state
    sum_BZHQ = sums_of_log2(dt_BZHQ, A_H, reset_BZ1Q, reverse=reverse)
    final_BHNP = None
    if before_BZHNP is not None:
        first_BHNP = before_BZHNP[:, -1 if reverse else 0]
        first_BHNP.zero_() if state_BHNP is None else first_BHNP.copy_(state_BHNP)
    if wrote:
        end_BZH1 = sum_BZHQ[..., :1] if reverse else sum_BZHQ[..., -1:]
        weight_BZHQ1 = (_decay(end_BZH1 - sum_BZHQ, dtype) * dt_BZHQ).unsqueeze(-1)
        weighted_BZHQN = workspace("by head", x_BZHQP, B, Z, H, Q, N)
        _times_group(weight_BZHQ1, B_BZGQN, weighted_BZHQN)
        written_BZHNP = workspace("written", x_BZHQP, B, Z, H, N, P)
        batched(weighted_BZHQN.transpose(-1, -2), x_BZHQP, written_BZHNP)
        if before_BZHNP is None:
            final_BHNP = written_BZHNP[:, 0].clone()
        else:
            if want_state:
                final_BHNP = torch.empty_like(written_BZHNP[:, 0])
            decay_BZH11 = _decay(end_BZH1, dtype).unsqueeze(-1)
            states = before_BZHNP.unbind(1)
            _carry(states, final_BHNP, written_BZHNP, decay_BZH11, backwards=reverse)
    pairs_BZHQQ = _pair_decays(sum_BZHQ, x_BZHQP, transposed=False)
    pairs_BZHQQ.mul_(dt_BZHQ.unsqueeze(-2))
    likeness_BZGQQ = workspace("likeness", x_BZHQP, B, Z, G, Q, Q)
    batched(C_BZGQN, B_BZGQN.transpose(-1, -2), likeness_BZGQQ)
    likeness_BZGQQ.triu_() if reverse else likeness_BZGQQ.tril_()
    _by_group(pairs_BZHQQ, G).mul_(likeness_BZGQQ.unsqueeze(3))
    if D_H is not None:
        pairs_BZHQQ.diagonal(dim1=-2, dim2=-1).add_(D_H.unsqueeze(-1))
    batched(pairs_BZHQQ, x_BZHQP, y_BZHQP)
    if before_BZHNP is not None:
        reading_BZHQN = workspace("by head", x_BZHQP, B, Z, H, Q, N)
        _times_group(_decay(sum_BZHQ, dtype).unsqueeze(-1), C_BZGQN, reading_BZHQN)
        batched(reading_BZHQN, before_BZHNP, y_BZHQP, add=True)
    return Kept(x_BZHQP, sum_BZHQ, before_BZHNP, wrote), final_BHNP


def _times_group(factor_BZHQ1: Tensor, shared_BZGQN: Tensor, out_BZHQN: Tensor) -> None:
    """What all heads of a group share, times a number of each head."""
    groups = shared_BZGQN.shape[2]
    torch.mul(
        shared_BZGQN.unsqueeze(3),
        _by_group(factor_BZHQ1, groups),
        out=_by_group(out_BZHQN, groups),
    )


def _carry(
    states: Sequence[Tensor],
    end: Tensor | None,
    added_BZHNP: Tensor,
    decay_BZH11: Tensor,
    *,
    backwards: bool,
) -> None:
    """From chunk to chunk: state of the next = state * decay + added, written in place.

    The first state in the order is given; the one after the last is written to ``end``.
    """
    order = range(len(states) - 1, -1, -1) if backwards else range(len(states))
    added, decay = added_BZHNP.unbind(1), decay_BZH11.unbind(1)
    outs = [states[z] for z in order[1:]] + ([] if end is None else [end])
    for z, out in zip(order, outs, strict=False):  # without an end the last has none
        torch.addcmul(added[z], states[z], decay[z], out=out)


def backward(
    kept: Kept,
    dy_BZHQP: Tensor,
    dt_BZHQ: Tensor,
    B_BZGQN: Tensor,
    C_BZGQN: Tensor,
    D_H: Tensor | None,
    dfinal_BHNP: Tensor | None,
    *,
    reverse: bool,
) -> TileGradients:
    """The derivatives of a tile.

    Args:
        kept: of the forward pass.
        dy_BZHQP: the derivative by y, contiguous.
        dt_BZHQ, B_BZGQN, C_BZGQN, D_H: as in :func:`forward`.
        dfinal_BHNP: the derivative by the state after the tile.
        reverse: as in :func:`forward`.
    """
    x_BZHQP, sum_BZHQ, before_BZHNP = kept.x_BZHQP, kept.sum_BZHQ, kept.before_BZHNP
    dtype, wide = x_BZHQP.dtype, sum_BZHQ.dtype
    B, Z, H, Q, P = x_BZHQP.shape
    G, N = B_BZGQN.shape[2], B_BZGQN.shape[-1]
    end_BZH1 = sum_BZHQ[..., :1] if reverse else sum_BZHQ[..., -1:]
    dB_BZGQN, dC_BZGQN = torch.empty_like(B_BZGQN), torch.empty_like(C_BZGQN)

    # Within chunks, transposed: rows are written tokens, columns reading ones.
    pairs_BZHQQ = _pair_decays(sum_BZHQ, x_BZHQP, transposed=True)
    pairs_BZHQQ.mul_(dt_BZHQ.unsqueeze(-1))
    likeness_BZGQQ = workspace("likeness", x_BZHQP, B, Z, G, Q, Q)
    batched(B_BZGQN, C_BZGQN.transpose(-1, -2), likeness_BZGQQ)
    likeness_BZGQQ.tril_() if reverse else likeness_BZGQQ.triu_()
    weight_BZHQQ = workspace("weight", x_BZHQP, B, Z, H, Q, Q)
    torch.mul(
        _by_group(pairs_BZHQQ, G), likeness_BZGQQ.unsqueeze(3), out=_by_group(weight_BZHQQ, G)
    )
    if D_H is not None:
        weight_BZHQQ.diagonal(dim1=-2, dim2=-1).add_(D_H.unsqueeze(-1))
    dx_BZHQP = workspace("dx", x_BZHQP, B, Z, H, Q, P)
    batched(weight_BZHQQ, dy_BZHQP, dx_BZHQP)
    dweight_BZHQQ = batched(x_BZHQP, dy_BZHQP.transpose(-1, -2), weight_BZHQQ)
    dD_H = None
    if D_H is not None:
        dD_H = dweight_BZHQQ.diagonal(dim1=-2, dim2=-1).sum((0, 1, 3))
    dweight_BZHQQ.mul_(pairs_BZHQQ)
    dlikeness_BZGQQ = _by_group(dweight_BZHQQ, G).sum(3)
    _by_group(dweight_BZHQQ, G).mul_(likeness_BZGQQ.unsqueeze(3))
    dlikeness_BZGQQ.tril_() if reverse else dlikeness_BZGQQ.triu_()
    batched(dlikeness_BZGQQ.transpose(-1, -2), B_BZGQN, dC_BZGQN)
    batched(dlikeness_BZGQQ, C_BZGQN, dB_BZGQN)
    # The gradient of a step's decay is the sum over all pairs that it lies between.
    exact_BZHQQ = workspace("exact", sum_BZHQ, B, Z, H, Q, Q).copy_(dweight_BZHQQ)
    own_BZHQ = exact_BZHQQ.diagonal(dim1=-2, dim2=-1).clone()
    exact_BZHQQ.diagonal(dim1=-2, dim2=-1).zero_()
    by_written_BZHQ = exact_BZHQQ.sum(-1)
    if wide == dtype:
        spanned_BZHQ = _crossings(exact_BZHQQ, reverse=reverse)
    else:  # cheaper: all but those pairs cancels, exactly enough in a wider type
        spanned_BZHQ = _from_here(exact_BZHQQ.sum(-2) - by_written_BZHQ, reverse=reverse)
    by_written_BZHQ += own_BZHQ

    # What reads the state that a chunk began with.
    dbefore_BZHNP = None
    if before_BZHNP is not None:
        from_start_BZHQ1 = _decay(sum_BZHQ, dtype).unsqueeze(-1)
        by_head_BZHQN = workspace("by head", x_BZHQP, B, Z, H, Q, N)
        _times_group(from_start_BZHQ1, C_BZGQN, by_head_BZHQN)
        dbefore_BZHNP = workspace("written", x_BZHQP, B, Z, H, N, P)
        batched(by_head_BZHQN.transpose(-1, -2), dy_BZHQP, dbefore_BZHNP)
        batched(dy_BZHQP, before_BZHNP.transpose(-1, -2), by_head_BZHQN)
        read_BZHQ = _share_out(by_head_BZHQN, from_start_BZHQ1, C_BZGQN, dC_BZGQN)
        spanned_BZHQ += _from_here(read_BZHQ.to(wide), reverse=reverse)

    # From chunk to chunk, against the direction of reading, and what was written into the state.
    dstate_BHNP = None
    if kept.wrote:
        dwritten_BZHNP = workspace("dwritten", x_BZHQP, B, Z, H, N, P)
        last_BHNP = dwritten_BZHNP[:, 0 if reverse else -1]
        last_BHNP.zero_() if dfinal_BHNP is None else last_BHNP.copy_(dfinal_BHNP)
        if dbefore_BZHNP is not None and before_BZHNP is not None:
            decay_BZH11 = _decay(end_BZH1, dtype).unsqueeze(-1)
            dstate_BHNP = torch.empty_like(dbefore_BZHNP[:, 0])
            states = dwritten_BZHNP.unbind(1)
            _carry(states, dstate_BHNP, dbefore_BZHNP, decay_BZH11, backwards=not reverse)
            carried_BZHNP = torch.mul(dwritten_BZHNP, before_BZHNP, out=dbefore_BZHNP)
            carried_BZH1 = carried_BZHNP.flatten(-2).sum(-1, keepdim=True)
            spanned_BZHQ += carried_BZH1 * decay_BZH11.squeeze(-1)
        weight_BZHQ1 = (_decay(end_BZH1 - sum_BZHQ, dtype) * dt_BZHQ).unsqueeze(-1)
        by_head_BZHQN = workspace("by head", x_BZHQP, B, Z, H, Q, N)
        _times_group(weight_BZHQ1, B_BZGQN, by_head_BZHQN)
        batched(by_head_BZHQN, dwritten_BZHNP, dx_BZHQP, add=True)
        batched(x_BZHQP, dwritten_BZHNP.transpose(-1, -2), by_head_BZHQN)
        left_BZHQ = _share_out(by_head_BZHQN, weight_BZHQ1, B_BZGQN, dB_BZGQN).to(wide)
        by_written_BZHQ += left_BZHQ
        spanned_BZHQ += _before_here(left_BZHQ, reverse=reverse)
    elif dbefore_BZHNP is not None:
        dstate_BHNP = dbefore_BZHNP[:, 0].clone()
    return TileGradients(
        dx_BZHQP,
        dB_BZGQN,
        dC_BZGQN,
        by_written_BZHQ.to(dtype),
        spanned_BZHQ.to(dtype),
        dD_H,
        dstate_BHNP,
    )


def _share_out(
    dby_head_BZHQN: Tensor, factor_BZHQ1: Tensor, shared_BZGQN: Tensor, dshared_BZGQN: Tensor
) -> Tensor:
    """The derivative of :func:`_times_group`: added to ``dshared``; returned by log factor."""
    groups = shared_BZGQN.shape[2]
    dby_head_BZHQN.mul_(factor_BZHQ1)
    dshared_BZGQN.add_(_by_group(dby_head_BZHQN, groups).sum(3))
    _by_group(dby_head_BZHQN, groups).mul_(shared_BZGQN.unsqueeze(3))
    return dby_head_BZHQN.sum(-1)


def _crossings(pairs_BZHQQ: Tensor, *, reverse: bool) -> Tensor:
    """For each token the sum over the pairs written before it and read from it on.

    Nothing in it cancels but what does so by its sign. Rows are written tokens.
    """
    before_BZHQQ = torch.zeros_like(pairs_BZHQQ)
    if reverse:
        before_BZHQQ[..., :-1, :] = pairs_BZHQQ.flip(-2).cumsum(-2).flip(-2)[..., 1:, :]
        return before_BZHQQ.tril_().sum(-1)
    before_BZHQQ[..., 1:, :] = pairs_BZHQQ.cumsum(-2)[..., :-1, :]
    return before_BZHQQ.triu_().sum(-1)


def _from_here(values_BZHQ: Tensor, *, reverse: bool) -> Tensor:
    """The sum over a token and those read after it."""
    if reverse:
        return values_BZHQ.cumsum(-1)
    return values_BZHQ.flip(-1).cumsum_(-1).flip(-1)


def _before_here(values_BZHQ: Tensor, *, reverse: bool) -> Tensor:
    """The sum over the tokens read before a token."""
    shifted_BZHQ = torch.zeros_like(values_BZHQ)
    if reverse:
        shifted_BZHQ[..., :-1] = values_BZHQ[..., 1:]
        return shifted_BZHQ.flip(-1).cumsum_(-1).flip(-1)
    shifted_BZHQ[..., 1:] = values_BZHQ[..., :-1]
    return shifted_BZHQ.cumsum_(-1)
