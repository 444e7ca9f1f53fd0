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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .buffers import Stack, workspace
from .products import stacked

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

    x: the input of each head.
    before: the state each chunk began with, [.., N, P]; None if that is nothing for all of them.
    wrote: whether the tile's chunks wrote a state that something read.
    """

    x: Stack
    sum_BZHQ: Tensor
    before: Stack | None
    wrote: bool


@dataclass(frozen=True)
class TileGradients:
    """Derivatives with respect to a tile's inputs; those by x, B and C lie in the workspace.

    written_BZHQ is that with respect to log dt where dt only weighs what is written;
    decayed_BZHQ that with respect to the natural logarithm of each step's decay.
    """

    x: Stack
    B: Stack
    C: Stack
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


def _pair_decays(sum_BZHQ: Tensor, like: Tensor, *, transposed: bool) -> Stack:
    """2^(sum_i - sum_j) for every pair, [B, Z, H, i, j] or transposed; 1 where j comes after i.

    The sums are split into a part that float32 holds exactly and a rest, so that nothing is lost
    in their difference.
    """
    B, Z, H, Q = sum_BZHQ.shape
    pairs = workspace.stack("pairs", like, B, Z, H, Q, Q)
    pairs_BZHQQ = pairs.whole
    rounded_BZHQ = sum_BZHQ.to(like.dtype)
    i, j = (-2, -1) if transposed else (-1, -2)
    torch.sub(rounded_BZHQ.unsqueeze(i), rounded_BZHQ.unsqueeze(j), out=pairs_BZHQQ)
    if sum_BZHQ.dtype != like.dtype:
        rest_BZHQ = (sum_BZHQ - rounded_BZHQ).to(like.dtype)
        pairs_BZHQQ.add_(rest_BZHQ.unsqueeze(i)).sub_(rest_BZHQ.unsqueeze(j))
    pairs_BZHQQ.clamp_(max=0.0)
    if like.dtype == torch.float64:
        torch.threshold_(pairs_BZHQQ, FORGOTTEN_LOG2, -math.inf)
    torch.exp2_(pairs_BZHQQ)
    return pairs


def forward(
    x: Stack,
    dt_BZHQ: Tensor,
    A_H: Tensor,
    B: Stack,
    C: Stack,
    D_H: Tensor | None,
    state_BHNP: Tensor | None,
    reset_BZ1Q: Tensor | None,
    before: Stack | None,
    y: Stack,
    *,
    want_state: bool,
    reverse: bool,
) -> tuple[Kept, Tensor | None]:
    """Scan a tile.

    Args:
        x: input of each head, [B, Z, H, Q, P].
        dt_BZHQ: steps, zero in empty places.
        A_H: decay rates, not positive.
        B, C: projections, [B, Z, G, Q, N].
        D_H: weight of x itself in y.
        state_BHNP: the state before the tile; zero when not given.
        reset_BZ1Q: True where the state is forgotten before the token.
        before: room for the state each chunk begins with, [B, Z, H, N, P]: needed where there is
            more than one chunk or a state before the tile.
        y: the output is written here, [B, Z, H, Q, P].
        want_state: whether the state after the tile is needed.
        reverse: read from the last token to the first.

    Returns:
        what :func:`backward` needs, and the state after the tile if it was wanted.
    """
    like = x.whole
    rows, Z, H, Q, P = like.shape
    G, N = B.whole.shape[2], B.whole.shape[-1]
    dtype = like.dtype
    wrote = Z > 1 or want_state
    sum_BZHQ = sums_of_log2(dt_BZHQ, A_H, reset_BZ1Q, reverse=reverse)
    by_head = workspace.stack("by head", like, rows, Z, H, Q, N)
    final_BHNP = None
    if before is not None:
        first_BHNP = before.chunks[-1 if reverse else 0]
        first_BHNP.zero_() if state_BHNP is None else first_BHNP.copy_(state_BHNP)
    if wrote:
        end_BZH1 = sum_BZHQ[..., :1] if reverse else sum_BZHQ[..., -1:]
        weight_BZHQ = _decay(end_BZH1 - sum_BZHQ, dtype).mul_(dt_BZHQ)
        _times_group(weight_BZHQ, B, by_head)
        written = workspace.stack("written", like, rows, Z, H, N, P)
        stacked(by_head.turned, x.flat, written.flat)
        if before is None:
            final_BHNP = written.chunks[0].clone()
        else:
            if want_state:
                final_BHNP = torch.empty_like(written.chunks[0])
            decay_BZH11 = _decay(end_BZH1, dtype).unsqueeze(-1)
            _carry(before, final_BHNP, written, decay_BZH11, backwards=reverse)
    pairs = _pair_decays(sum_BZHQ, like, transposed=False)
    pairs.whole.mul_(dt_BZHQ.unsqueeze(-2))
    likeness = workspace.stack("likeness", like, rows, Z, G, Q, Q)
    stacked(C.flat, B.turned, likeness.flat)
    likeness.whole.triu_() if reverse else likeness.whole.tril_()
    pairs.by_group(G).mul_(likeness.shared)
    if D_H is not None:
        pairs.diagonal.add_(D_H.unsqueeze(-1))
    stacked(pairs.flat, x.flat, y.flat)
    if before is not None:
        _times_group(_decay(sum_BZHQ, dtype), C, by_head)
        stacked(by_head.flat, before.flat, y.flat, add=True)
    return Kept(x, sum_BZHQ, before, wrote), final_BHNP


def _times_group(factor_BZHQ: Tensor, shared: Stack, by_head: Stack) -> None:
    """What all heads of a group share, times a number of each head."""
    groups = shared.whole.shape[2]
    rows, Z, _, Q = factor_BZHQ.shape
    factor_BZGRQ1 = factor_BZHQ.view(rows, Z, groups, -1, Q, 1)
    torch.mul(shared.shared, factor_BZGRQ1, out=by_head.by_group(groups))


def _carry(
    states: Stack,
    end: Tensor | None,
    added: Stack,
    decay_BZH11: Tensor,
    *,
    backwards: bool,
) -> None:
    """From chunk to chunk: state of the next = state * decay + added, written in place.

    The first state in the order is given; the one after the last is written to ``end``.
    """
    at = states.chunks
    order = range(len(at) - 1, -1, -1) if backwards else range(len(at))
    decay = decay_BZH11.unbind(1)
    outs = [at[z] for z in order[1:]] + ([] if end is None else [end])
    for z, out in zip(order, outs, strict=False):  # without an end the last has none
        torch.addcmul(added.chunks[z], at[z], decay[z], out=out)


def backward(
    kept: Kept,
    dy: Stack,
    dt_BZHQ: Tensor,
    B: Stack,
    C: Stack,
    D_H: Tensor | None,
    dfinal_BHNP: Tensor | None,
    *,
    reverse: bool,
) -> TileGradients:
    """The derivatives of a tile.

    Args:
        kept: of the forward pass.
        dy: the derivative by y, [B, Z, H, Q, P].
        dt_BZHQ, B, C, D_H: as in :func:`forward`.
        dfinal_BHNP: the derivative by the state after the tile.
        reverse: as in :func:`forward`.
    """
    x, sum_BZHQ, before = kept.x, kept.sum_BZHQ, kept.before
    like = x.whole
    dtype, wide = like.dtype, sum_BZHQ.dtype
    rows, Z, H, Q, P = like.shape
    G, N = B.whole.shape[2], B.whole.shape[-1]
    end_BZH1 = sum_BZHQ[..., :1] if reverse else sum_BZHQ[..., -1:]
    dB, dC = (workspace.stack(name, like, *B.whole.shape) for name in ("dB", "dC"))

    # Within chunks, transposed: rows are written tokens, columns reading ones.
    pairs = _pair_decays(sum_BZHQ, like, transposed=True)
    pairs.whole.mul_(dt_BZHQ.unsqueeze(-1))
    likeness = workspace.stack("likeness", like, rows, Z, G, Q, Q)
    stacked(B.flat, C.turned, likeness.flat)
    likeness.whole.tril_() if reverse else likeness.whole.triu_()
    weight = workspace.stack("weight", like, rows, Z, H, Q, Q)
    torch.mul(pairs.by_group(G), likeness.shared, out=weight.by_group(G))
    if D_H is not None:
        weight.diagonal.add_(D_H.unsqueeze(-1))
    dx = workspace.stack("dx", like, rows, Z, H, Q, P)
    stacked(weight.flat, dy.flat, dx.flat)
    dweight = weight  # written over
    stacked(x.flat, dy.turned, dweight.flat)
    dD_H = None
    if D_H is not None:
        dD_H = dweight.diagonal.sum((0, 1, 3))
    dweight.whole.mul_(pairs.whole)
    dlikeness = workspace.stack("dlikeness", like, rows, Z, G, Q, Q)
    torch.sum(dweight.by_group(G), 3, out=dlikeness.whole)
    dweight.by_group(G).mul_(likeness.shared)
    dlikeness.whole.tril_() if reverse else dlikeness.whole.triu_()
    stacked(dlikeness.turned, B.flat, dC.flat)
    stacked(dlikeness.flat, C.flat, dB.flat)
    # The gradient of a step's decay is the sum over all pairs that it lies between.
    exact = workspace.stack("exact", sum_BZHQ, rows, Z, H, Q, Q)
    exact.whole.copy_(dweight.whole)
    own_BZHQ = exact.diagonal.clone()
    exact.diagonal.zero_()
    by_written_BZHQ = exact.whole.sum(-1)
    if wide == dtype:
        spanned_BZHQ = _crossings(exact.whole, reverse=reverse)
    else:  # cheaper: all but those pairs cancels, exactly enough in a wider type
        spanned_BZHQ = _from_here(exact.whole.sum(-2) - by_written_BZHQ, reverse=reverse)
    by_written_BZHQ += own_BZHQ

    # What reads the state that a chunk began with.
    by_head = workspace.stack("by head", like, rows, Z, H, Q, N)
    dbefore = None
    if before is not None:
        from_start_BZHQ = _decay(sum_BZHQ, dtype)
        _times_group(from_start_BZHQ, C, by_head)
        dbefore = workspace.stack("written", like, rows, Z, H, N, P)
        stacked(by_head.turned, dy.flat, dbefore.flat)
        stacked(dy.flat, before.turned, by_head.flat)
        read_BZHQ = _share_out(by_head, from_start_BZHQ, C, dC)
        spanned_BZHQ += _from_here(read_BZHQ.to(wide), reverse=reverse)

    # From chunk to chunk, against the direction of reading, and what was written into the state.
    dstate_BHNP = None
    if kept.wrote:
        dwritten = workspace.stack("dwritten", like, rows, Z, H, N, P)
        last_BHNP = dwritten.chunks[0 if reverse else -1]
        last_BHNP.zero_() if dfinal_BHNP is None else last_BHNP.copy_(dfinal_BHNP)
        if dbefore is not None and before is not None:
            decay_BZH11 = _decay(end_BZH1, dtype).unsqueeze(-1)
            dstate_BHNP = torch.empty_like(last_BHNP)
            _carry(dwritten, dstate_BHNP, dbefore, decay_BZH11, backwards=not reverse)
            carried_BZHNP = torch.mul(dwritten.whole, before.whole, out=dbefore.whole)
            carried_BZH1 = carried_BZHNP.flatten(-2).sum(-1, keepdim=True)
            spanned_BZHQ += carried_BZH1 * decay_BZH11.squeeze(-1)
        weight_BZHQ = _decay(end_BZH1 - sum_BZHQ, dtype).mul_(dt_BZHQ)
        _times_group(weight_BZHQ, B, by_head)
        stacked(by_head.flat, dwritten.flat, dx.flat, add=True)
        stacked(x.flat, dwritten.turned, by_head.flat)
        left_BZHQ = _share_out(by_head, weight_BZHQ, B, dB).to(wide)
        by_written_BZHQ += left_BZHQ
        spanned_BZHQ += _before_here(left_BZHQ, reverse=reverse)
    elif dbefore is not None:
        dstate_BHNP = dbefore.chunks[0].clone()
    return TileGradients(
        dx,
        dB,
        dC,
        by_written_BZHQ.to(dtype),
        spanned_BZHQ.to(dtype),
        dD_H,
        dstate_BHNP,
    )


def _share_out(by_head: Stack, factor_BZHQ: Tensor, shared: Stack, dshared: Stack) -> Tensor:
    """The derivative of :func:`_times_group`: added to ``dshared``; returned by log factor."""
    groups = shared.whole.shape[2]
    by_head.whole.mul_(factor_BZHQ.unsqueeze(-1))
    dshared.whole.add_(by_head.by_group(groups).sum(3))
    by_head.by_group(groups).mul_(shared.shared)
    return by_head.whole.sum(-1)


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
