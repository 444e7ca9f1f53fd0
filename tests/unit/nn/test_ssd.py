"""The chunked scan against the recurrence it must equal, written out step by step in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from remit.nn.ssd import ssd_output, ssd_scan

NAMES = ("x", "dt", "A", "B", "C", "initial_state")


def recurrence(
    x_BTHP: Tensor,
    dt_BTH: Tensor,
    A_H: Tensor,
    B_BTGN: Tensor,
    C_BTGN: Tensor,
    state_BHPN: Tensor,
) -> tuple[Tensor, Tensor]:
    """h_t = exp(dt A) h_{t-1} + dt x B^T; y_t = h_t C. One step at a time."""
    heads_per_group = x_BTHP.shape[2] // B_BTGN.shape[2]
    outputs = []
    for t in range(x_BTHP.shape[1]):
        B_BHN = B_BTGN[:, t].repeat_interleave(heads_per_group, dim=1)
        C_BHN = C_BTGN[:, t].repeat_interleave(heads_per_group, dim=1)
        decay_BH = torch.exp(dt_BTH[:, t] * A_H)
        written = torch.einsum("bh,bhp,bhn->bhpn", dt_BTH[:, t], x_BTHP[:, t], B_BHN)
        state_BHPN = decay_BH[:, :, None, None] * state_BHPN + written
        outputs.append(torch.einsum("bhpn,bhn->bhp", state_BHPN, C_BHN))
    return torch.stack(outputs, dim=1), state_BHPN


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
    found = {f"d{name}": gradient for name, gradient in zip(NAMES, gradients, strict=True)}
    return {"y": y_BTHP.detach(), "state": state_BHPN.detach(), **found}


def errors_against_recurrence(
    inputs: list[Tensor], dtype: torch.dtype, chunk_size: int, *, bounded: bool
) -> dict[str, float]:
    """Norm of the error over the norm of the exact value, for each output and gradient.

    ``bounded``: over the norm of what the same sums give when every term is made positive
    instead. Drawn inputs cancel by chance, where no float32 computation has a small error
    relative to what remains.
    """

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *scan_inputs, initial_BHPN = tensors
        return ssd_scan(*scan_inputs, chunk_size=chunk_size, initial_state_BHPN=initial_BHPN)

    generator = torch.Generator().manual_seed(1)
    shapes = (inputs[0].shape, inputs[5].shape)
    seeds = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes]
    # Both see the same numbers, rounded to the dtype under test.
    rounded = [tensor.to(dtype) for tensor in inputs]
    wide, wide_seeds = [t.double() for t in rounded], [t.double() for t in seeds]
    found = values_and_gradients(scan, rounded, seeds)
    exact = values_and_gradients(recurrence, wide, wide_seeds)
    scale = exact
    if bounded:
        positive = [t if name == "A" else t.abs() for name, t in zip(NAMES, wide, strict=True)]
        scale = values_and_gradients(recurrence, positive, [t.abs() for t in wide_seeds])
        # d/d(dt) is a difference, of what is written and what decays: bound it by either part.
        scale["ddt"] = scale["ddt"].abs() + scale["dA"].abs() / positive[1].mean()
    # What has decayed below 2^-60 (1e-18; in float64 2^-120, 1e-36) is forgotten by design: of a
    # value that small, only the smallness is checked.
    floor = 1e-10 if dtype == torch.float32 else 1e-20
    return {
        name: float((found[name].double() - exact[name]).norm() / scale[name].norm().clamp(floor))
        for name in exact
    }


shapes = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "steps": st.integers(1, 40),
        "groups": st.integers(1, 2),
        "per_group": st.integers(1, 3),
        "width": st.integers(1, 5),
        "size": st.integers(1, 6),
        "seed": st.integers(0, 2**31),
        "dt_scale": st.sampled_from([1e-3, 0.05, 1.0]),
        "A_scale": st.sampled_from([0.1, 1.0, 10.0]),
    }
)


@settings(max_examples=40, deadline=None)
@given(shape=shapes, chunk_size=st.integers(1, 24))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_equals_the_recurrence(
    shape: dict[str, Any], chunk_size: int, dtype: torch.dtype, tolerance: float
) -> None:
    inputs = draw_inputs(**shape)
    errors = errors_against_recurrence(inputs, dtype, chunk_size, bounded=True)
    assert max(errors.values()) < tolerance, errors


@pytest.mark.parametrize("chunk_size", [16, 64, 128])
@pytest.mark.parametrize(
    # Gradients of strong decays are small remainders of large sums: a little more is lost.
    ("dt_scale", "A_scale", "tolerance_64"),
    [(0.001, 1.0, 1e-13), (0.02, 4.0, 1e-12), (1.0, 20.0, 5e-12)],
)
def test_equals_the_recurrence_at_a_realistic_size(
    chunk_size: int, dt_scale: float, A_scale: float, tolerance_64: float
) -> None:
    inputs = draw_inputs(2, 200, 2, 2, 16, 16, 5, dt_scale, A_scale)
    for dtype, tolerance in ((torch.float64, tolerance_64), (torch.float32, 2e-6)):
        errors = errors_against_recurrence(inputs, dtype, chunk_size, bounded=False)
        assert max(errors.values()) < tolerance, (dtype, errors)


def test_gradcheck() -> None:
    inputs = [tensor.requires_grad_() for tensor in draw_inputs(2, 7, 2, 1, 2, 3, 11, 0.3)]

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        *scan_inputs, initial_BHPN = tensors
        return ssd_scan(*scan_inputs, chunk_size=3, initial_state_BHPN=initial_BHPN)

    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradgradcheck(scan, inputs)


@pytest.mark.parametrize("steps", [1, 5, 23])
def test_chunk_size_changes_nothing(steps: int) -> None:
    *inputs, initial = draw_inputs(2, steps, 1, 2, 3, 4, 3, 0.1)
    expected_y, expected_state = ssd_scan(*inputs, chunk_size=64, initial_state_BHPN=initial)
    for chunk_size in (1, 2, 5, 7, 23):
        y, state = ssd_scan(*inputs, chunk_size=chunk_size, initial_state_BHPN=initial)
        torch.testing.assert_close(y, expected_y, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(state, expected_state, rtol=1e-12, atol=1e-12)


def test_output_alone_is_that_of_the_scan() -> None:
    *inputs, _ = draw_inputs(2, 13, 2, 2, 3, 4, 3, 0.1)
    for chunk_size in (4, 64):
        y, _ = ssd_scan(*inputs, chunk_size=chunk_size)
        assert torch.equal(ssd_output(*inputs, chunk_size=chunk_size), y)


def test_a_sequence_can_be_continued_from_its_state() -> None:
    x, dt, A, B, C, _ = draw_inputs(2, 20, 1, 2, 3, 4, 9, 0.1)
    whole_y, whole_state = ssd_scan(x, dt, A, B, C, chunk_size=4)
    first_y, state = ssd_scan(x[:, :9], dt[:, :9], A, B[:, :9], C[:, :9], chunk_size=4)
    rest_y, state = ssd_scan(
        x[:, 9:], dt[:, 9:], A, B[:, 9:], C[:, 9:], chunk_size=4, initial_state_BHPN=state
    )
    torch.testing.assert_close(torch.cat([first_y, rest_y], 1), whole_y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, whole_state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dt_value", [0.0, 1e-12, 1e4, 1e30])
@pytest.mark.parametrize("A_value", [-1e-12, -1.0, -1e6, -1e30])
@pytest.mark.parametrize("chunk_size", [4, 64])
def test_extreme_steps_and_decays_stay_finite(
    dt_value: float, A_value: float, chunk_size: int
) -> None:
    x, dt, A, B, C, initial = (t.float() for t in draw_inputs(1, 20, 1, 2, 2, 3, 2))
    # Every other step ordinary, so that extreme and ordinary decays meet within a chunk. The
    # input is divided by dt: what is written (dt * x) stays ordinary.
    dt[:, ::2] = dt_value
    x[:, ::2] /= max(dt_value, 1.0)
    A[0] = A_value
    leaves = [t.clone().requires_grad_() for t in (x, dt, A, B, C, initial)]
    y, state = ssd_scan(*leaves[:5], chunk_size=chunk_size, initial_state_BHPN=leaves[5])
    (y.square().sum() + state.square().sum()).backward()
    assert y.isfinite().all() and state.isfinite().all()
    for name, leaf in zip(NAMES, leaves, strict=True):
        assert leaf.grad is not None
        # The derivative by dt = 1e30 or A of x * dt terms may be huge, but never NaN.
        assert not leaf.grad.isnan().any(), name


def test_small_decays_after_a_strong_one_keep_their_precision() -> None:
    x, dt, A, B, C, initial = draw_inputs(1, 64, 1, 1, 4, 4, 7, 1e-3)
    dt[:, 5] = 1e4  # 10^4 forgotten in one step; what follows decays by thousandths
    errors = errors_against_recurrence(
        [x, dt, A, B, C, initial], torch.float32, chunk_size=64, bounded=False
    )
    assert errors["y"] < 1e-6 and errors["dx"] < 1e-6 and errors["dB"] < 1e-6, errors


def test_exports_with_a_dynamic_batch() -> None:
    class Scan(torch.nn.Module):
        def forward(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
            y, state = ssd_scan(x, dt, A, B, C, chunk_size=4)
            return y.sum(-1) + state.sum((-1, -2)).unsqueeze(1)

    batch = torch.export.Dim("batch", min=1)
    dynamic = {name: {0: batch} for name in ("x", "dt", "B", "C")} | {"A": None}
    example = draw_inputs(3, 11, 1, 2, 2, 3, 0)[:5]
    program = torch.export.export(Scan(), tuple(example), dynamic_shapes=dynamic).module()
    for size in (1, 2, 5):
        inputs = draw_inputs(size, 11, 1, 2, 2, 3, size)[:5]
        torch.testing.assert_close(program(*inputs), Scan()(*inputs))


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


def test_heads_must_share_groups_evenly() -> None:
    x, dt, A, *_ = draw_inputs(1, 4, 1, 3, 2, 2, 0)
    B = torch.zeros(1, 4, 2, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match="3 heads cannot be shared out over 2 groups"):
        ssd_scan(x, dt, A, B, B)
