"""Buffers that are used again: their views are made once, and never of memory that is gone."""

from __future__ import annotations

import pytest
import torch

from remit.nn import buffers
from remit.nn.buffers import Stack, Workspace

LIKE = torch.empty(0)


def test_a_stack_is_seen_as_the_scan_needs_it() -> None:
    whole = torch.arange(2 * 3 * 4 * 5 * 5.0).view(2, 3, 4, 5, 5)
    stack = Stack(whole)
    views = {
        "flat": whole.reshape(24, 5, 5),
        "turned": whole.reshape(24, 5, 5).transpose(1, 2),
        "diagonal": torch.einsum("bzhqq->bzhq", whole),
        "shared": whole[:, :, :, None],
    }
    for name, expected in views.items():
        assert torch.equal(getattr(stack, name), expected), name
        assert getattr(stack, name) is getattr(stack, name), name
    assert torch.equal(stack.by_group(2), whole.reshape(2, 3, 2, 2, 5, 5))
    assert stack.by_group(2) is stack.by_group(2) and stack.by_group(4).shape[2] == 4
    assert torch.equal(torch.stack(stack.chunks, 1), whole)
    stack.flat.zero_()
    assert not whole.any()  # views, and no copies


def test_a_name_is_one_piece_of_memory_that_grows() -> None:
    workspace = Workspace()
    small, other = workspace("a", LIKE, 2, 3), workspace("b", LIKE, 6)
    assert workspace("a", LIKE, 2, 3) is small
    assert workspace("a", LIKE, 6).data_ptr() == small.data_ptr() != other.data_ptr()
    made = workspace.remembered("views", LIKE, lambda: workspace("a", LIKE, 3, 2).t())
    assert workspace.remembered("views", LIKE, lambda: None) is made
    large = workspace("a", LIKE, 100)
    # What was made of the smaller memory is made anew: nothing keeps that alive.
    for view in (
        workspace("a", LIKE, 2, 3),
        workspace.remembered("views", LIKE, lambda: workspace("a", LIKE, 3, 2).t()),
    ):
        assert view.data_ptr() == large.data_ptr()
    assert workspace("b", LIKE, 6).data_ptr() == other.data_ptr()


def test_a_dtype_has_memory_and_views_of_its_own() -> None:
    workspace, wide = Workspace(), LIKE.double()
    assert workspace("a", LIKE, 4).dtype != workspace("a", wide, 4).dtype
    found = [
        workspace.remembered("x", t, lambda t=t: workspace("a", t, 2, 2)) for t in (LIKE, wide)
    ]
    assert [view.dtype for view in found] == [torch.float32, torch.float64]


def test_shapes_are_forgotten_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "MOST_SHAPES", 5)
    workspace = Workspace()
    first = workspace("a", LIKE, 1000)
    for size in range(1, 100):
        assert workspace("a", LIKE, size).data_ptr() == first.data_ptr()
        workspace.remembered(size, LIKE, lambda size=size: workspace("a", LIKE, size))
        assert len(workspace._stacks) <= 5 and len(workspace._remembered) <= 5
    assert workspace("a", LIKE, 99) is workspace("a", LIKE, 99)
    assert workspace.remembered(99, LIKE, lambda: None).shape == (99,)  # the oldest went


def test_buffers_made_in_inference_mode_serve_training() -> None:
    workspace = Workspace()
    with torch.inference_mode():
        assert torch.empty(4).is_inference()  # which nothing may write to outside
        made = workspace("a", LIKE, 4)
        view = workspace.remembered("v", LIKE, lambda: workspace("a", LIKE, 4).view(2, 2))
    assert not made.is_inference() and not view.is_inference()
    view.zero_()
