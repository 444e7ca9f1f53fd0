"""What makes a window bad: flat stretches and clipping, seen on the raw samples of one channel.

Filtering hides both, so they are looked for before it. Windows are marked here, never dropped.

Shape suffixes: `S` samples, `W` windows.
"""

from __future__ import annotations

from math import ceil

import numpy as np


def flat_samples(raw_S: np.ndarray, flat_uv: float, flat_seconds: float, rate: float) -> np.ndarray:
    """Which samples ``[samples]`` of a contiguous segment lie in a flat stretch (bool).

    A stretch is flat where successive samples differ by no more than ``flat_uv`` µV for at least
    ``flat_seconds``.
    """
    least = max(1, ceil(flat_seconds * rate - 1e-9))  # successive differences
    still = np.abs(np.diff(raw_S.astype(np.float64))) <= flat_uv
    edges = np.diff(np.concatenate([[0], still.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long_enough = stops - starts >= least
    # A run of n differences spans n + 1 samples.
    change = np.zeros(len(raw_S) + 1, dtype=np.int64)
    np.add.at(change, starts[long_enough], 1)
    np.add.at(change, stops[long_enough] + 1, -1)
    return np.cumsum(change[:-1]) > 0


def rails(raw_S: np.ndarray) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a channel over a recording, where it clips there.

    A value that an amplifier cannot pass is met again and again: an extreme that occurs once is a
    peak (None). A channel that never moves is flat, not clipped.
    """
    low, high = float(raw_S.min()), float(raw_S.max())
    if low == high:
        return None, None
    return (
        low if np.count_nonzero(raw_S == low) > 1 else None,
        high if np.count_nonzero(raw_S == high) > 1 else None,
    )


def clipped_samples(raw_S: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Which samples ``[samples]`` stand at one of the channel's :func:`rails` (bool)."""
    clipped = np.zeros(len(raw_S), dtype=bool)
    for rail in (low, high):
        if rail is not None:
            clipped |= raw_S == rail
    return clipped


def fraction_per_window(
    marked_S: np.ndarray, start_W: np.ndarray, stop_W: np.ndarray
) -> np.ndarray:
    """The marked part of samples ``[start, stop)`` for every window: float64 ``[windows]``."""
    running = np.concatenate([[0], np.cumsum(marked_S)])
    fraction_W: np.ndarray = (running[stop_W] - running[start_W]) / (stop_W - start_W)
    return fraction_W
