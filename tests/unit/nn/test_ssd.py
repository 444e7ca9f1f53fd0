"""The chunked scan against the recurrence it must equal, written out step by step in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from remit.nn import tiles
from remit.nn.ssd import ssd_scan

NAMES = ("x", "dt", "A", "B", "C", "initial_state")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def recurrence(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    state_BHPN: Tensor,
    written_BTH: Tensor | None = None,
    *,
    lengths: list[int] | None = None,
    seq_idx_BT: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt A) h_{t-1} + dt x B^T; y_t = h_t C. One step at a time.

    ``written_BTH`` stands in for dt where it weighs what is written.
    """
    written_BTH = dt_BTH if written_BTH is None else written_BTH
    heads_per_group = x_BTHP.shape[2] // B_BTGN.shape[2]
    batch, steps = x_BTHP.shape[:2]
    length_B = torch.tensor([steps] * batch if lengths is None else lengths)
    seq_idx_BT = torch.zeros(batch, steps) if seq_idx_BT is None else seq_idx_BT
    outputs = [torch.empty(0)] * steps
    order = list(range(steps))[:: -1 if reverse else 1]
    for before, t in zip([None, *order], order, strict=False):
        B_BHN, C_BHN = (v[:, t].repeat_interleave(heads_per_group, 1) for v in (B_BTGN, C_BTGN))
        inside_B111 = (t < length_B)[:, None, None, None]
        kept_BHPN = state_BHPN
        if before is not None:
            changed_B = (seq_idx_BT[:, t] != seq_idx_BT[:, before]) & (before < length_B)
            kept_BHPN = torch.where(changed_B[:, None, None, None], 0.0, state_BHPN)
        decay_BH11 = torch.exp(dt_BTH[:, t] * A_H)[:, :, None, None]
        u_BHP = written_BTH[:, t].unsqueeze(-1) * x_BTHP[:, t]
        after_BHPN = decay_BH11 * kept_BHPN + u_BHP.unsqueeze(-1) * B_BHN.unsqueeze(-2)
        state_BHPN = torch.where(inside_B111, after_BHPN, state_BHPN)
        y_BHP = (state_BHPN @ C_BHN.unsqueeze(-1)).squeeze(-1)
        outputs[t] = torch.where(inside_B111[..., 0], y_BHP, 0.0)
    return torch.stack(outputs, 1), state_BHPN


def draw_inputs(
    batch: int,
    steps: int,
    groups: int,
    per_group: int,
    width: int,
    size: int,
    seed: int,
    dt_scale: float = 1.0,
    A_scale: float = 1.0,
) -> list[Tensor]:
    """Inputs in float64; steps vary over four orders of magnitude around ``dt_scale``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    heads = groups * per_group
    dt_BTH = dt_scale * torch.exp(2.0 * normal(batch, steps, heads))
    return [
        normal(batch, steps, heads, width),
        dt_BTH,
        -A_scale * torch.exp(normal(heads)),
        normal(batch, steps, groups, size),
        normal(batch, steps, groups, size),
        normal(batch, heads, width, size),
    ]


def values_and_gradients(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor], seeds: list[Tensor]
) -> dict[str, Tensor]:
    """Outputs, and gradients of <dy, y> + <dstate, state>."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y_BTHP, state_BHPN = function(*leaves)
    gradients = torch.autograd.grad([y_BTHP, state_BHPN], leaves, seeds)
    names = (*NAMES, "written")[: len(leaves)]
    found = {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
    return {"y": y_BTHP.detach(), "state": state_BHPN.detach(), **found}


def errors_against_recurrence(
    inputs: list[Tensor],
    dtype: torch.dtype,
    chunk_size: int,
    *,
    bounded: bool,
    lengths: list[int] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Norm of the error over the norm of the exact value, for each output and gradient.

    ``bounded``: over the norm of what the same sums give when every term is made positive
    instead. Drawn inputs cancel by chance, where no computation in that dtype has a small error
    relative to what remains.
    """

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *scan_inputs, initial_BHPN = tensors
        return ssd_scan(
            *scan_inputs,
            chunk_size=chunk_size,
            initial_state_BHPN=initial_BHPN,
            lengths_B=None if lengths is None else torch.tensor(lengths),
            **options,
        )

    def exactly(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return recurrence(*tensors, lengths=lengths, **options)

    generator = torch.Generator().manual_seed(1)
    shapes = (inputs[0].shape, inputs[5].shape)
    seeds = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    # Both see the same numbers, rounded to the dtype under test.
    rounded = [tensor.to(dtype) for tensor in inputs]
    wide, wide_seeds = [t.double() for t in rounded], [t.double() for t in seeds]
    found = values_and_gradients(scan, rounded, seeds)
    exact = values_and_gradients(exactly, wide, wide_seeds)
    scale = exact
    if bounded:
        positive = [t if name == "A" else t.abs() for name, t in zip(NAMES, wide, strict=True)]
        positive.append(positive[1])  # d/d(dt) is a difference, of what is written and what decays
        scale = values_and_gradients(exactly, positive, [t.abs() for t in wide_seeds])
        scale["ddt"] = scale["ddt"].abs() + scale["dwritten"]
    # What has decayed below 2^-149 (in float64 2^-200) is forgotten by design: of a value that
    # small, only the smallness is checked.
    floor = 1e-35 if dtype == torch.float32 else 1e-45
    return {
        name: float((found[name].double() - exact[name]).norm() / scale[name].norm().clamp(floor))
        for name in exact
    }


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """Inputs of any shape and strength, how they are cut, and what is asked of the scan."""
    batch, steps = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    sizes = {"groups": 2, "per_group": 3, "width": 5, "size": 6}
    shape = {name: draw(st.integers(1, most)) for name, most in sizes.items()}
    seed = draw(st.integers(0, 2**31))
    inputs = draw_inputs(
        batch,
        steps,
        **shape,
        seed=seed,
        dt_scale=draw(st.sampled_from([1e-3, 0.05, 1.0])),
        A_scale=draw(st.sampled_from([0.1, 1.0, 10.0])),
    )
    row_lengths = st.lists(st.integers(0, steps), min_size=batch, max_size=batch)
    marks = st.lists(st.integers(0, 2), min_size=steps, max_size=steps)
    seq_idx = draw(st.none() | st.lists(marks, min_size=batch, max_size=batch))
    return {
        "inputs": inputs,
        "chunk_size": draw(st.integers(1, 24)),
        "tile_tokens": draw(st.sampled_from([1, 5, 16, 2048])),
        "lengths": draw(st.none() | row_lengths),
        "seq_idx_BT": None if seq_idx is None else torch.tensor(seq_idx),
        "reverse": draw(st.booleans()),
    }


@pytest.mark.parametrize("dtype", TOLERANCE)
@settings(max_examples=60)
@given(case=cases())
def test_equals_the_recurrence(case: dict[str, Any], dtype: torch.dtype) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_TOKENS", case.pop("tile_tokens"))
        errors = errors_against_recurrence(dtype=dtype, bounded=True, **case)
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("chunk_size", [16, 64, 128])
@pytest.mark.parametrize(
    ("dt_scale", "A_scale", "tolerance_64"),
    [(0.001, 1.0, 1e-13), (0.02, 4.0, 1e-12), (1.0, 20.0, 1e-12), (1.0, 1000.0, 1e-12)],
)
def test_equals_the_recurrence_at_a_realistic_size(
    chunk_size: int, dt_scale: float, A_scale: float, tolerance_64: float
) -> None:
    inputs = draw_inputs(2, 200, 2, 2, 16, 16, 5, dt_scale, A_scale)
    for dtype, tolerance in ((torch.float64, tolerance_64), (torch.float32, 2e-6)):
        errors = errors_against_recurrence(inputs, dtype, chunk_size, bounded=False)
        assert max(errors.values()) < tolerance, (dtype, errors)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reverse", [False, True])
def test_equals_the_recurrence_over_a_long_sequence(dtype: torch.dtype, reverse: bool) -> None:
    inputs = draw_inputs(1, 2500, 1, 2, 3, 4, 6, 1e-3, 1.0)  # two tiles, the last one cut short
    errors = errors_against_recurrence(inputs, dtype, 64, bounded=False, reverse=reverse)
    assert max(errors.values()) < TOLERANCE[dtype], errors


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("dt_value", [0.0, 1e-12, 1e4, 1e30])
@pytest.mark.parametrize("A_value", [-1e-12, -1.0, -1e6, -1e30])
@pytest.mark.parametrize("chunk_size", [4, 64])
def test_extreme_steps_and_decays(
    dt_value: float, A_value: float, chunk_size: int, dtype: torch.dtype
) -> None:
    x, dt, A, B, C, initial = draw_inputs(1, 20, 1, 2, 2, 3, 2)
    # Every other step ordinary, so that extreme and ordinary decays meet within a chunk. The
    # input is divided by dt: what is written (dt * x) stays ordinary.
    dt[:, ::2] = dt_value
    x[:, ::2] /= max(dt_value, 1.0)
    A[0] = A_value
    errors = errors_against_recurrence([x, dt, A, B, C, initial], dtype, chunk_size, bounded=True)
    assert max(errors.values()) < TOLERANCE[dtype], errors  # NaN is not less than anything


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tile_tokens", [4, 2048])
def test_gradcheck(monkeypatch: pytest.MonkeyPatch, tile_tokens: int, reverse: bool) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    inputs = [tensor.requires_grad_() for tensor in draw_inputs(2, 5, 2, 1, 2, 2, 11, 0.3)]

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *scan_inputs, initial_BHPN = tensors
        return ssd_scan(
            *scan_inputs,
            chunk_size=2,
            initial_state_BHPN=initial_BHPN,
            lengths_B=torch.tensor([5, 4]),
            seq_idx_BT=torch.tensor([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]]),
            reverse=reverse,
        )

    assert torch.autograd.gradcheck(scan, inputs)


def test_chunk_and_tile_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for steps in (1, 5, 23):
        *inputs, initial = draw_inputs(2, steps, 1, 2, 3, 4, 3, 0.1)
        expected = recurrence(*inputs, initial)
        for chunk_size in (1, 2, 5, 7, 23, 64):
            for tile_tokens in (1, 6, 2048):
                monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
                found = ssd_scan(*inputs, chunk_size=chunk_size, initial_state_BHPN=initial)
                torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=200)
@given(
    steps=st.integers(1, 300),
    lengths=st.none() | st.lists(st.integers(0, 300), min_size=1, max_size=6),
    chunk_size=st.integers(1, 70),
    tile_tokens=st.integers(1, 400),
    reverse=st.booleans(),
)
def test_a_plan_holds_every_token_once_and_nothing_beyond_a_length(
    steps: int, lengths: list[int] | None, chunk_size: int, tile_tokens: int, reverse: bool
) -> None:
    if lengths is not None:
        lengths = [min(length, steps) for length in lengths]
    batch = 4 if lengths is None else len(lengths)
    own = lengths or [steps] * batch
    pieces = list(tiles.plan(batch, steps, lengths, chunk_size, tile_tokens, reverse=reverse))
    tokens: dict[int, list[int]] = {row: [] for row in range(batch)}
    for piece in pieces:
        rows = torch.arange(batch)[piece.rows].tolist()
        assert len(rows) == piece.count and 0 <= piece.start < piece.stop <= piece.length
        assert 0 <= piece.padding < piece.chunk  # no chunk is empty
        assert piece.count == 1 or piece.count * piece.length <= tile_tokens
        span = range(piece.start, piece.stop)
        for row in rows:
            assert piece.length == own[row]
            assert piece.first == (not tokens[row])
            tokens[row] += reversed(span) if reverse else span
            assert piece.last == (len(tokens[row]) == own[row])
    for length in set(own) - {
        0
    }:  # rows of one length are shared out evenly, over two tiles or more
        counts = [piece.count for piece in pieces if piece.length == length and piece.first]
        assert max(counts) - min(counts) < max(counts) and sum(counts) == own.count(length)
        if own.count(length) > 1 and 2 * sum(counts) * length >= tile_tokens:
            assert len(counts) > 1
    for row, found in tokens.items():
        # In the order of reading, which the state is handed on in.
        assert found == (list(range(own[row]))[::-1] if reverse else list(range(own[row])))
    starts = [piece.first for piece in pieces]
    assert not starts or starts[0]
    assert all(a.last == b.first for a, b in pairwise(pieces))


def padded(inputs: list[Tensor], lengths: list[int]) -> list[Tensor]:
    """The inputs with NaN beyond each row's length."""
    inputs = [tensor.clone() for tensor in inputs]
    for row, length in enumerate(lengths):
        for position in (0, 1, 3, 4):
            inputs[position][row, length:] = math.nan
    return inputs


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tile_tokens", [8, 2048])
def test_padding_is_neither_read_nor_written(
    monkeypatch: pytest.MonkeyPatch, tile_tokens: int, reverse: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    lengths = [5, 17, 0, 11, 1, 11]
    inputs = [t.to(dtype) for t in draw_inputs(6, 17, 1, 2, 3, 4, 8, 0.1)]
    leaves = [tensor.requires_grad_() for tensor in padded(inputs, lengths)]
    y, state = ssd_scan(
        *leaves[:5],
        chunk_size=4,
        initial_state_BHPN=leaves[5],
        lengths_B=torch.tensor(lengths),
        reverse=reverse,
    )
    dy, dstate = torch.ones_like(y), torch.ones_like(state)
    for row, length in enumerate(lengths):
        assert (y[row, length:] == 0).all()
        dy[row, length:] = math.nan  # whatever comes back from there is no one's gradient
    gradients = torch.autograd.grad([y, state], leaves, [dy, dstate])
    dA = torch.zeros_like(inputs[2], dtype=torch.float64)
    for row, length in enumerate(lengths):
        x, dt, B, C = (inputs[at][row : row + 1, :length] for at in (0, 1, 3, 4))
        own = [x, dt, inputs[2], B, C, inputs[5][row : row + 1]]
        for position, gradient in zip(
            (0, 1, 3, 4), (gradients[at] for at in (0, 1, 3, 4)), strict=True
        ):
            assert (gradient[row, length:] == 0).all(), NAMES[position]
        if length == 0:
            torch.testing.assert_close(state[row].to(dtype), inputs[5][row], rtol=0, atol=0)
            assert (gradients[5][row] == 1).all()
            continue
        alone_leaves = [tensor.detach().requires_grad_() for tensor in own]
        alone_y, alone_state = ssd_scan(
            *alone_leaves[:5], chunk_size=4, initial_state_BHPN=alone_leaves[5], reverse=reverse
        )
        assert torch.equal(y[row : row + 1, :length], alone_y)
        assert torch.equal(state[row : row + 1], alone_state)
        seeds = [torch.ones_like(alone_y), torch.ones_like(alone_state)]
        alone = torch.autograd.grad([alone_y, alone_state], alone_leaves, seeds)
        for at in (0, 1, 3, 4):
            assert torch.equal(gradients[at][row : row + 1, :length], alone[at]), NAMES[at]
        assert torch.equal(gradients[5][row : row + 1], alone[5])
        dA += alone[2]
    tolerance = 1e-12 if dtype == torch.float64 else 2e-2
    torch.testing.assert_close(gradients[2].double(), dA, rtol=tolerance, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("tile_tokens", [8, 2048])
def test_sequences_packed_in_a_row_are_as_if_alone(
    monkeypatch: pytest.MonkeyPatch, tile_tokens: int, reverse: bool
) -> None:
    monkeypatch.setattr(tiles, "TILE_TOKENS", tile_tokens)
    x, dt, A, B, C, _ = draw_inputs(2, 30, 2, 1, 3, 4, 8, 0.01)
    weights = torch.linspace(-1.0, 2.0, x.numel(), dtype=torch.float64).view_as(x)
    seq_idx = torch.tensor([[0] * 7 + [1] * 1 + [2] * 14 + [3] * 8, [5] * 20 + [4] * 10])
    for chunk_size in (1, 4, 7, 64):
        leaves = [t.clone().requires_grad_() for t in (x, dt, A, B, C)]
        y, state = ssd_scan(*leaves, chunk_size=chunk_size, seq_idx_BT=seq_idx, reverse=reverse)
        ((y * weights).sum() + state.sum()).backward()
        dA = torch.zeros_like(A)
        for row, marks in enumerate(seq_idx.tolist()):
            last = marks[0] if reverse else marks[-1]
            for mark in set(marks):
                where = slice(marks.index(mark), marks.index(mark) + marks.count(mark))
                own = [t[row : row + 1, where].clone().requires_grad_() for t in (x, dt, B, C)]
                own.insert(2, A.clone().requires_grad_())
                alone_y, alone_state = ssd_scan(*own, chunk_size=chunk_size, reverse=reverse)
                found = (alone_y * weights[row : row + 1, where]).sum()
                if mark == last:
                    found = found + alone_state.sum()
                    torch.testing.assert_close(state[row], alone_state[0], rtol=1e-12, atol=1e-13)
                found.backward()
                torch.testing.assert_close(y[row, where], alone_y[0], rtol=1e-12, atol=1e-13)
                for at in (0, 1, 3, 4):
                    torch.testing.assert_close(
                        leaves[at].grad[row, where], own[at].grad[0], rtol=1e-11, atol=1e-13
                    )
                dA += own[2].grad
        torch.testing.assert_close(leaves[2].grad, dA, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sequence_can_be_continued_from_its_state(reverse: bool) -> None:
    x, dt, A, B, C, _ = draw_inputs(2, 20, 1, 2, 3, 4, 9, 0.1)
    whole_y, whole_state = ssd_scan(x, dt, A, B, C, chunk_size=4, reverse=reverse)
    parts = [slice(0, 9), slice(9, None)]
    state, found = None, []
    for part in reversed(parts) if reverse else parts:
        y, state = ssd_scan(
            x[:, part],
            dt[:, part],
            A,
            B[:, part],
            C[:, part],
            chunk_size=4,
            initial_state_BHPN=state,
            reverse=reverse,
        )
        found.append(y)
    y = torch.cat(found[::-1] if reverse else found, 1)
    torch.testing.assert_close(y, whole_y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, whole_state, rtol=1e-12, atol=1e-12)


def test_bfloat16_inputs_lose_nothing_but_their_own_rounding() -> None:
    # Decays of 1 - 1e-4 over 600 steps: in bfloat16 each of them would be 1.
    inputs = [t.bfloat16() for t in draw_inputs(2, 600, 2, 2, 8, 8, 5, 1e-4, 1.0)]
    leaves = [t.clone().requires_grad_() for t in inputs]
    exact_leaves = [t.double().requires_grad_() for t in inputs]
    y, state = ssd_scan(*leaves[:5], initial_state_BHPN=leaves[5])
    exact_y, exact_state = recurrence(*exact_leaves)
    assert y.dtype == torch.bfloat16 and state.dtype == torch.float32
    assert relative(state, exact_state) < 1e-6
    assert relative(y, exact_y) < 2**-9  # half a unit of 8 bits
    seeds = [torch.ones_like(y), torch.ones_like(state)]
    found = torch.autograd.grad([y, state], leaves, seeds)
    exact = torch.autograd.grad([exact_y, exact_state], exact_leaves, [t.double() for t in seeds])
    for name, ours, theirs in zip(NAMES, found, exact, strict=True):
        assert ours.dtype == torch.bfloat16 and relative(ours, theirs) < 2**-8, name


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.detach().double() - exact.detach()).norm() / exact.detach().norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reverse", [False, True])
def test_100_000_tokens(dtype: torch.dtype, reverse: bool) -> None:
    # One head remembers everything, one a moment, one nothing at all.
    x, dt, A, B, C, initial = draw_inputs(1, 100_000, 1, 3, 2, 2, 4, 0.01)
    A[:] = torch.tensor([-1e-4, -1.0, -1e5])
    inputs = [t.to(dtype) for t in (x, dt, A, B, C, initial)]
    leaves = [t.clone().requires_grad_() for t in inputs]
    y, state = ssd_scan(*leaves[:5], initial_state_BHPN=leaves[5], reverse=reverse)
    (y.float().square().mean() + state.square().sum()).backward()
    x, dt, A, B, C, initial = (t.double() for t in inputs)
    if reverse:
        x, dt, B, C = (t.flip(1) for t in (x, dt, B, C))
        y = y.flip(1)
    # The recurrence in closed form: each step's decay to the end is the product of all later ones.
    log_BTH = (dt * A).cumsum(1)
    to_end_BTH = (log_BTH[:, -1:] - log_BTH).exp()
    exact = torch.einsum("bth,bthp,btn->bhpn", to_end_BTH * dt, x, B[:, :, 0])
    exact = exact + initial * log_BTH[:, -1].exp()[:, :, None, None]
    last_y = torch.einsum("bhpn,bn->bhp", exact, C[:, -1, 0])
    for head in range(3):
        assert relative(state[:, head], exact[:, head]) < 1e-5, head
    assert relative(y[:, -1], last_y) < (1e-5 if dtype == torch.float32 else 2**-8)
    assert y.isfinite().all()
    for name, leaf in zip(NAMES, leaves, strict=True):
        assert leaf.grad is not None and leaf.grad.isfinite().all(), name


def test_small_decays_after_a_strong_one_keep_their_precision() -> None:
    x, dt, A, B, C, initial = draw_inputs(1, 64, 1, 1, 4, 4, 7, 1e-3)
    dt[:, 5] = 1e4  # 10^4 forgotten in one step; what follows decays by thousandths
    errors = errors_against_recurrence(
        [x, dt, A, B, C, initial], torch.float32, chunk_size=64, bounded=False
    )
    assert errors["y"] < 1e-6 and errors["dx"] < 1e-6 and errors["dB"] < 1e-6, errors


@pytest.mark.parametrize("reverse", [False, True])
def test_exports_with_any_batch_and_any_number_of_tokens(reverse: bool) -> None:
    class Scan(torch.nn.Module):
        def forward(
            self,
            x: Tensor,
            dt: Tensor,
            A: Tensor,
            B: Tensor,
            C: Tensor,
            lengths: Tensor,
            seq_idx: Tensor,
            taken: Tensor,
        ) -> tuple[Tensor, Tensor]:
            # How many tokens there are is asked of data, as the exported classifier does.
            where_T = taken.nonzero().squeeze(1)
            torch._check(where_T.shape[0] >= 1)
            return ssd_scan(
                x[:, where_T],
                dt[:, where_T],
                A,
                B[:, where_T],
                C[:, where_T],
                chunk_size=4,
                lengths_B=lengths,
                seq_idx_BT=seq_idx[:, where_T],
                reverse=reverse,
            )

    def arguments(size: int, steps: int) -> tuple[Tensor, ...]:
        inputs = draw_inputs(size, 30, 1, 2, 2, 3, size)[:5]
        lengths = torch.arange(steps, steps - size, -1).clamp(min=0)
        seq_idx = (torch.arange(30) > 6).repeat(size, 1)
        return *inputs, lengths, seq_idx, torch.arange(30) < steps

    batch = torch.export.Dim("batch", min=1)
    dynamic: dict[str, Any] = {name: {0: batch} for name in ("x", "dt", "B", "C", "lengths")}
    dynamic |= {"seq_idx": {0: batch}, "A": None, "taken": None}
    program = torch.export.export(Scan(), arguments(3, 11), dynamic_shapes=dynamic).module()
    for size, steps in ((1, 1), (2, 11), (5, 30)):
        given_to_both = arguments(size, steps)
        found, expected = program(*given_to_both), Scan()(*given_to_both)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("position", "shape", "message"),
    [
        (1, (1, 4, 3), "dt has shape"),
        (2, (1,), "A has shape"),
        (4, (1, 4, 1, 9), "C has shape"),
        (5, (1, 2, 3, 9), "initial_state has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(
    position: int, shape: tuple[int, ...], message: str
) -> None:
    inputs = draw_inputs(1, 4, 1, 2, 3, 4, 0)
    inputs[position] = torch.zeros(shape, dtype=torch.float64)
    *scan_inputs, initial = inputs
    with pytest.raises(ValueError, match=message):
        ssd_scan(*scan_inputs, initial_state_BHPN=initial)


def test_what_cannot_be_scanned_is_named() -> None:
    inputs = draw_inputs(2, 4, 1, 2, 3, 4, 0)[:5]
    with pytest.raises(ValueError, match="seq_idx has shape"):
        ssd_scan(*inputs, seq_idx_BT=torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(ValueError, match="the length of row 1 is 5; expected 0 to 4"):
        ssd_scan(*inputs, lengths_B=torch.tensor([4, 5]))
    with pytest.raises(ValueError, match="chunk_size is 0"):
        ssd_scan(*inputs, chunk_size=0)
    with pytest.raises(ValueError, match="at least one time step"):
        ssd_scan(*(t if t.dim() == 1 else t[:, :0] for t in inputs))
    for position, value, message in (
        (1, -0.5, "dt falls to -0.5"),
        (2, 0.25, "A is 0.25 for some head"),
        (0, math.nan, "x holds nan at sequence 1, step 2, head or group 1, element 0"),
        (3, math.inf, "B holds inf at sequence 1, step 2, head or group 0, element 0"),
    ):
        changed = [t.clone() for t in inputs]
        at: tuple[int, ...] = {1: (1,), 3: (1, 2, 1), 4: (1, 2, 1, 0)}[changed[position].dim()]
        changed[position][(1, 2, 0, 0) if position == 3 else at] = value
        with pytest.raises(ValueError, match=message):
            ssd_scan(*changed)
        if position != 2:  # beyond the row it is no one's business
            ssd_scan(*changed, lengths_B=torch.tensor([4, 2]))
        with pytest.raises(ValueError, match=message):
            ssd_scan(*changed, lengths_B=torch.tensor([2, 4]))


def test_heads_must_share_groups_evenly() -> None:
    x, dt, A, *_ = draw_inputs(1, 4, 1, 3, 2, 2, 0)
    B = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="3 heads cannot be shared out over 2 groups"):
        ssd_scan(x, dt, A, B, B)


def test_ordinary_programs_never_read_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    x, dt, A, B, C, initial = draw_inputs(2, 9, 1, 2, 3, 4, 5)
    lengths = torch.tensor([9, 4])
    expected = ssd_scan(x, dt, A, B, C, initial_state_BHPN=initial, lengths_B=lengths)
    for tensor in (x, dt, B, C):
        tensor[1, 4:] = math.nan
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = ssd_scan(x, dt, A, B, C, initial_state_BHPN=initial, lengths_B=lengths)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("smallest", [1e-6, 1e-12, 1e-15])
def test_the_derivative_by_a_step_of_zero_keeps_its_precision(smallest: float) -> None:
    x, _, A, B, C, _ = (t.float() for t in draw_inputs(1, 6, 1, 2, 3, 4, 5))
    dt = torch.zeros(1, 6, 2, requires_grad=True)
    y, _ = ssd_scan(x, dt, A, B, C)
    (y * smallest).sum().backward()
    assert dt.grad is not None
    # Nothing decays: dy_t/ddt_s = (C_t . B_s) x_s for all t >= s.
    reads = torch.einsum("btgn,bsgn->bts", C.double(), B.double()).tril()
    exact = smallest * torch.einsum("bts,bshp->bsh", reads, x.double())
    assert float((dt.grad - exact).norm() / exact.norm()) < 1e-6


def test_whole_numbers_and_floating_point_are_told_apart() -> None:
    x, dt, A, B, C, _ = draw_inputs(1, 4, 1, 2, 3, 4, 0)
    with pytest.raises(ValueError, match="x is torch.int64; expected floating point"):
        ssd_scan(x.long(), dt, A, B, C)
    with pytest.raises(ValueError, match="chunk_size is 2.5; expected a whole number"):
        ssd_scan(x, dt, A, B, C, chunk_size=2.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seq_idx is torch.float32; expected whole numbers"):
        ssd_scan(x, dt, A, B, C, seq_idx_BT=torch.zeros(1, 4))
    with pytest.raises(ValueError, match="2 heads cannot be shared out over 0 groups"):
        ssd_scan(x, dt, A, B[:, :, :0], C[:, :, :0])
