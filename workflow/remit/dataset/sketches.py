"""A few numbers by which a piece of a recording is found again, wherever it was cut.

Every stretch of 32 samples of a channel is a number; the smallest ones are kept (bottom-k MinHash:
Broder, On the resemblance and containment of documents, 1997). A crop keeps those of them that lie in
it, so two recordings that share samples share numbers, whatever the order and choice of channels. Of
the samples' bits: a copy that was resampled, filtered or scaled shares none. Knows no file.

Shape suffixes: `S` samples, `N` stretches.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

STRETCH = 32  # samples; a power of two
LEAST_VALUES = 8  # different ones in a stretch: flat, clipped and lost signal is everybody's
VALUES = 128  # kept of a recording, shared among its channels
LEAST_PER_CHANNEL = 8
SHARED = 2  # values from which on two recordings hold the same signal
_BASE = 0x9E3779B97F4A7C15  # odd; of the polynomial
_BLOCK = 2**14  # stretches at a time: they fit a cache, and memory is bounded


def sketch(rows: Sequence[np.ndarray]) -> np.ndarray:
    """The smallest values of each channel of a float32 signal, ascending: uint64 ``[values]``.

    ``rows`` are channels of S samples. 128 values are shared among them, but each has 8 at least;
    fewer where a channel has fewer stretches with 8 different samples.
    """
    most = max(LEAST_PER_CHANNEL, VALUES // len(rows))
    return joined(_smallest(row_S, most) for row_S in rows)


def joined(sketches: Iterable[np.ndarray]) -> np.ndarray:
    """The different values of some sketches, ascending."""
    return np.unique(np.concatenate([np.empty(0, np.uint64), *sketches]))


def encode(values: np.ndarray) -> str:
    """Values as text, 11 characters each: base64 of their bytes, little-endian."""
    return base64.b64encode(values.astype("<u8").tobytes()).decode()


def decode(text: str) -> np.ndarray:
    """What :func:`encode` has made a text of; raises ValueError for any other."""
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8").astype(np.uint64)


def packed(by_recording: Mapping[str, np.ndarray]) -> bytes:
    """Sketches in the order of their names: of each how many values (uint32), then all values (uint64).

    Little-endian.
    """
    values = [by_recording[name] for name in sorted(by_recording)]
    counts = np.array([len(each) for each in values], dtype="<u4")
    return counts.tobytes() + np.concatenate([np.empty(0, "<u8"), *values]).astype("<u8").tobytes()


def unpacked(data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """What :func:`packed` has made bytes of, by name; raises ValueError where they are not of these names."""
    ordered = sorted(names)
    ends = np.cumsum(np.frombuffer(data[: 4 * len(ordered)], "<u4"), dtype=np.int64)
    values = np.frombuffer(data[4 * len(ordered) :], "<u8")
    if len(ends) != len(ordered) or len(values) != ends[-1:].sum():
        raise ValueError(f"{len(values)} values of {len(ends)}, expected {len(ordered)} recordings")
    return dict(zip(ordered, np.split(values.astype(np.uint64), ends)[:-1], strict=True))


class Holders:
    """Finds out of which of some recordings a piece is, by their sketches.

    Args:
        sketches: by the recording's name; a value of several is the first one's.
    """

    def __init__(self, sketches: Mapping[str, np.ndarray]) -> None:
        self._names = list(sketches)
        values, places = _listed(sketches.values())
        self._values, first = np.unique(values, return_index=True)  # the first of equal ones
        self._places = places[first]

    def of(self, values: np.ndarray) -> str | None:
        """Who holds the most of these values, if that is at least :data:`SHARED`."""
        at = np.searchsorted(self._values, values)
        there = self._values.take(at, mode="clip") == values if len(self._values) else at < 0
        known = self._places[at[there]]
        counts = np.bincount(known)
        return self._names[counts.argmax()] if counts.max(initial=0) >= SHARED else None


def shared_by_two(
    sketches: Sequence[np.ndarray], participants: Sequence[str]
) -> tuple[int, int] | None:
    """The first two sketches of two participants that share :data:`SHARED` values, by their places."""
    values, places = _listed(sketches)
    order = np.argsort(values, kind="stable")
    values, places = values[order], places[order]
    (new,) = np.nonzero(np.diff(values, prepend=~values[:1]))
    holders = np.repeat(
        places[new], np.diff(new, append=len(values))
    )  # who came first with a value
    again = places != holders
    pairs, counts = np.unique(np.stack([places[again], holders[again]]), axis=1, return_counts=True)
    for later, earlier in pairs[:, counts >= SHARED].T.tolist():
        if participants[later] != participants[earlier]:
            return earlier, later
    return None


def _listed(sketches: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """All values, and the place of the sketch that each is of."""
    listed = list(sketches)
    places = np.repeat(np.arange(len(listed), dtype=np.int32), [len(each) for each in listed])
    return np.concatenate([np.empty(0, np.uint64), *listed]), places


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
