"""A few numbers by which a piece of a recording is found again, wherever it was cut.

Every stretch of 32 samples of a channel is a number; the smallest ones are kept (bottom-k MinHash:
Broder, On the resemblance and containment of documents, 1997). A crop keeps those of them that lie in
it, so two recordings that share samples share numbers, whatever the order and choice of channels. Of
the samples' bits: a copy that was resampled, filtered or scaled shares none. Knows no file.

Shape suffixes: `S` samples, `N` stretches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

STRETCH = 32  # samples; a power of two
LEAST_VALUES = 8  # different ones in a stretch: flat, clipped and lost signal is everybody's
VALUES = 128  # kept of a recording, shared among its channels
LEAST_PER_CHANNEL = 8
SHARED = 2  # values from which on two recordings hold the same signal
_BASE = 0x9E3779B97F4A7C15  # odd; of the polynomial
_BLOCK = 2**14  # stretches at a time: they fit a cache, and memory is bounded


def sketch(rows: Sequence[np.ndarray]) -> list[str]:
    """The smallest values of each channel of a float32 signal, hexadecimal, ascending.

    ``rows`` are channels of S samples. 128 values are shared among them, but each has 8 at least;
    fewer where a channel has fewer stretches with 8 different samples.
    """
    most = max(LEAST_PER_CHANNEL, VALUES // len(rows))
    values = [_smallest(row_S, most) for row_S in rows]
    return [f"{value:016x}" for value in np.unique(np.concatenate(values)).tolist()]


def holder_of(values: Iterable[str], holders: Mapping[str, str]) -> str | None:
    """Who of the holders of values holds the most of these, if that is at least :data:`SHARED`."""
    found = Counter(holders[value] for value in values if value in holders).most_common(1)
    return found[0][0] if found and found[0][1] >= SHARED else None


def _smallest(row_S: np.ndarray, most: int) -> np.ndarray:
    bits_S = np.ascontiguousarray(row_S, dtype="<f4").view("<u4")
    kept = np.empty(0, np.uint64)
    for first in range(0, len(bits_S) - STRETCH + 1, _BLOCK):
        block_S = bits_S[first : first + _BLOCK + STRETCH - 1]
        hash_N = _hashes(block_S)
        near = hash_N < kept[-1] if len(kept) == most else np.ones(len(hash_N), bool)
        (at,) = np.nonzero(near)
        values, which = np.unique(hash_N[at], return_index=True)
        stretches = np.lib.stride_tricks.sliding_window_view(block_S, STRETCH)[at[which]]
        different = (np.diff(np.sort(stretches, axis=1), axis=1) != 0).sum(axis=1) + 1
        kept = np.union1d(kept, values[different >= LEAST_VALUES])[:most]
    return kept


def _hashes(bits_S: np.ndarray) -> np.ndarray:
    """Of each stretch a polynomial of its samples' bits modulo 2**64, both well mixed."""
    hash_N = _mixed(bits_S.astype(np.uint64))
    length = 1
    while length < STRETCH:  # two neighbours make one of twice their length
        power = np.uint64(pow(_BASE, length, 2**64))
        hash_N = hash_N[:-length] * power + hash_N[length:]
        length *= 2
    return _mixed(hash_N)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Each bit hangs on all others: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = values ^ (values >> np.uint64(31))
    return mixed
