"""Buffers that are used again from call to call, and the ways in which they are looked at.

Fresh memory costs a page fault every 4 KiB, and every view of a tensor a microsecond or two, for part of
which Python holds its lock and another lane may wait for it: both are made once and kept. It knows
tensors only.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

# Shapes of buffers, and what is made of them, that are remembered: tiles of one size have some thirty.
MOST_SHAPES = 8000

K = TypeVar("K")
T = TypeVar("T")


class Stack:
    """Matrices [B, Z, heads or groups, rows, columns], contiguous, and what a tile sees of them."""

    def __init__(self, whole: Tensor) -> None:
        self.whole = whole

    @cached_property
    def flat(self) -> Tensor:
        """One matrix after the other, [B * Z * heads, rows, columns]."""
        return self.whole.flatten(0, 2)

    @cached_property
    def turned(self) -> Tensor:
        """The same, transposed."""
        return self.flat.mT

    @cached_property
    def diagonal(self) -> Tensor:
        """[B, Z, heads, rows] of square matrices."""
        return self.whole.diagonal(dim1=-2, dim2=-1)

    @cached_property
    def chunks(self) -> tuple[Tensor, ...]:
        """Those of each chunk, [B, heads, rows, columns]."""
        return self.whole.unbind(1)

    @cached_property
    def shared(self) -> Tensor:
        """Those of groups, to be combined with :meth:`by_group`: [B, Z, G, 1, rows, columns]."""
        return self.whole.unsqueeze(3)

    @cached_property
    def _by_group(self) -> dict[int, Tensor]:
        return {}

    def by_group(self, groups: int) -> Tensor:
        """Those of heads, [B, Z, G, heads of a group, rows, columns]."""
        view = self._by_group.get(groups)
        if view is None:
            B, Z, _, rows, columns = self.whole.shape
            view = self._by_group[groups] = self.whole.view(B, Z, groups, -1, rows, columns)
        return view


class Workspace(threading.local):
    """Buffers by name."""

    def __init__(self) -> None:
        self._flat: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}
        self._stacks: dict[tuple[str, torch.dtype, torch.device, tuple[int, ...]], Stack] = {}
        self._remembered: dict[Hashable, Any] = {}

    def __call__(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """A tensor of this shape with anything in it; the last one of that name is overwritten."""
        return self.stack(name, like, *shape).whole

    def stack(self, name: str, like: Tensor, *shape: int) -> Stack:
        """The same, with its views."""
        key = (name, like.dtype, like.device, shape)
        stack = self._stacks.get(key)
        if stack is not None:
            return stack
        size = math.prod(shape)
        # An inference tensor could not be written to outside inference mode.
        with torch.inference_mode(False):
            flat = self._flat.get(key[:3])
            if flat is None or flat.numel() < size:
                if flat is not None:
                    self.forget()  # some would keep the smaller one alive
                flat = torch.empty(size, dtype=like.dtype, device=like.device)
                self._flat[key[:3]] = flat
            stack = Stack(flat[:size].view(shape))
        _remember(self._stacks, key, stack)
        return stack

    def remembered(self, key: Hashable, like: Tensor, make: Callable[[], T]) -> T:
        """What ``make`` makes of this workspace's buffers, once for as long as these are the same."""
        key = (key, like.dtype, like.device)
        found = self._remembered.get(key)
        if found is None:
            found = make()
            _remember(self._remembered, key, found)
        return cast(T, found)

    def forget(self) -> None:
        """Forget all shapes and views, not the memory behind them."""
        self._stacks.clear()
        self._remembered.clear()


def _remember(among: dict[K, T], key: K, value: T) -> None:
    """Add an entry; what was added first goes when there are too many."""
    if len(among) >= MOST_SHAPES:
        del among[next(iter(among))]
    among[key] = value


workspace = Workspace()
