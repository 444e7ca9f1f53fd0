"""Sequences of any number of datasets, of any montages, in an order that is drawn for each epoch.

What is kept is an index of the sequences. Signal is read in pools of whole recordings, scaled as
`sequences` has it, and dropped when the next pool needs the room, so memory does not grow with the
datasets. Everything follows from seeds: where an epoch was left is a position in its order. Knows no
model and no training.

Shapes: as in `sequences`, and R recordings, N sequences, D draws of an epoch (a sequence may be drawn
several times, or not at all).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch

from remit.config import Sequences
from remit.dataset.sequences import Tokens, index_sequences
from remit.dataset.windows import SORTED_BY, WindowsFile
from remit.nn.scaling import RobustScale, scale_of

RESULT_VERSION = 1  # raise when a change here alters a pretrained backbone

WINDOWS_AT_ONCE = 64  # that are handed out when everything is read

Montage = tuple[str, ...]


@dataclass(frozen=True)
class Read:
    """Some sequences of one montage, in the order in which they were asked for.

    ``number_B`` are their numbers among all sequences; ``turn_B`` says how many times they were drawn
    before in the same epoch.
    """

    channels: Montage
    samples_BKCS: torch.Tensor
    valid_BK: torch.Tensor
    number_B: np.ndarray
    turn_B: np.ndarray


@dataclass(frozen=True)
class _Unit:
    """Recordings that lie together in a file, and are read together: slices of a part's windows and
    sequences."""

    part: int
    windows: slice
    sequences: slice
    num_bytes: int


class Part:
    """What one dataset contributes: the sequences of some of its participants.

    Args:
        dataset: opened.
        participants: whose sequences.
        settings: how windows become sequences.
        weight: how often each sequence stands in an epoch.

    Raises:
        RemitError: for a participant who is not in the file or has no usable window.
    """

    def __init__(
        self,
        dataset: WindowsFile,
        participants: Sequence[str],
        settings: Sequences,
        weight: float = 1.0,
    ) -> None:
        self.dataset = dataset
        self.weight = weight
        self.passes = 1.0
        self.cohort = str(dataset.metadata["cohort"])
        self.channels: Montage = tuple(dataset.channels)
        self.index = index_sequences(dataset, participants, settings)
        self.window_samples = int(dataset.metadata["window_samples"])
        self.window_bytes = 4 * len(self.channels) * self.window_samples
        recordings = int(self.index.recording_W[-1]) + 1
        shape = (recordings, len(self.channels), 1)
        self._middle_RC1, self._scale_RC1 = torch.full(shape, math.nan), torch.full(shape, math.nan)

    def __len__(self) -> int:
        return len(self.index.windows_NV)

    @property
    def times(self) -> float:
        """How often each of its sequences stands in an epoch."""
        return self.weight * self.passes

    def units(self, number: int, most_bytes: float) -> list[_Unit]:
        """Its recordings in the order of the file, those of one row group together where they fit."""
        index, end_G = self.index, self.dataset.group_ends
        numbers_R = np.arange(len(self._scale_RC1))
        first_R, stop_R = (
            np.searchsorted(index.recording_W, numbers_R, side=side) for side in ("left", "right")
        )
        sequence_W = index.windows_NV[:, 0]
        from_R, to_R = np.searchsorted(sequence_W, first_R), np.searchsorted(sequence_W, stop_R)
        group_R = np.searchsorted(end_G, index.row_W[first_R], side="right")
        last_R = np.searchsorted(end_G, index.row_W[stop_R - 1], side="right")
        units: list[_Unit] = []
        shared = -1  # the row group in which the unit before lies, -1 where it has several
        for r in numbers_R:
            first, begin = int(first_R[r]), int(from_R[r])
            if group_R[r] == last_R[r] == shared:
                joined = (int(stop_R[r]) - units[-1].windows.start) * self.window_bytes
                if joined <= most_bytes:
                    before = units.pop()
                    first, begin = before.windows.start, before.sequences.start
            shared = int(group_R[r]) if group_R[r] == last_R[r] else -1
            windows, sequences = slice(first, int(stop_R[r])), slice(begin, int(to_R[r]))
            size = (windows.stop - windows.start) * self.window_bytes
            units.append(_Unit(number, windows, sequences, size))
        return units

    def recordings(self, windows: slice) -> Iterator[tuple[int, slice]]:
        """The recordings among some windows: number, and where they lie, counted from the first."""
        within_W = self.index.recording_W[windows]
        for number in range(int(within_W[0]), int(within_W[-1]) + 1):
            first, stop = np.searchsorted(within_W, [number, number + 1])
            yield number, slice(int(first), int(stop))

    def read_into(self, out_WCL: torch.Tensor, windows: Sequence[slice], learn: bool) -> None:
        """Read some units' windows, each row group once, and scale them in place.

        With ``learn`` each recording's scale is found first.
        """
        self.dataset.read_into(
            out_WCL.numpy(), np.concatenate([self.index.row_W[its] for its in windows])
        )
        first = 0
        for its in windows:
            for number, place in self.recordings(its):
                raw_WCL = out_WCL[first + place.start : first + place.stop]
                if learn:
                    self._middle_RC1[number], self._scale_RC1[number] = scale_of(raw_WCL)
                RobustScale(self._middle_RC1[number], self._scale_RC1[number]).in_place(raw_WCL)
            first += its.stop - its.start


class SignalMemory:
    """Pools in memory: together at most ``most_bytes`` of signal, or one alone if it is larger."""

    def __init__(self, most_bytes: float) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[object, tuple[int, _Pool]] = OrderedDict()

    def get(self, key: object, num_bytes: int, load: Callable[[], _Pool]) -> _Pool:
        """The pool of that key; loaded, once there is room, if it is not there."""
        if key not in self._held:
            while self._held and num_bytes + sum(n for n, _ in self._held.values()) > (
                self.most_bytes
            ):
                self._held.popitem(last=False)
            self._held[key] = (num_bytes, load())
        self._held.move_to_end(key)
        return self._held[key][1]


# Of each montage: the tokens, and the numbers of their sequences, ascending.
_Pool = dict[Montage, tuple[Tokens, np.ndarray]]


class Corpora:
    """The sequences of several parts, numbered through in the order of the parts.

    Call :meth:`scan` before anything is read. A recording longer than the memory's bound is held by
    itself: the bound is then its length.
    """

    def __init__(self, parts: Sequence[Part], memory: SignalMemory) -> None:
        self.parts = list(parts)
        self._memory = memory
        self._first_P = [0, *accumulate(len(part) for part in self.parts)]
        self._units = [
            unit
            for number, part in enumerate(self.parts)
            for unit in part.units(number, memory.most_bytes)
        ]
        self.num_bytes = sum(unit.num_bytes for unit in self._units)
        self.participants = [
            f"{part.cohort}/{n}" for part in parts for n in part.index.participants
        ]
        self.samples_per_token = self.parts[0].index.samples_per_token
        self.num_steps = (
            self.parts[0].index.windows_NV.shape[1]
            * self.parts[0].window_samples
            // self.samples_per_token
        )
        self.montages = list(dict.fromkeys(part.channels for part in self.parts))

    def __len__(self) -> int:
        return self._first_P[-1]

    @property
    def draws(self) -> int:
        """How many sequences stand in an epoch."""
        return sum(sum(_copies(part)) for part in self.parts)

    def repeat(self, least_draws: float) -> None:
        """Let an epoch be as many passes, if more than one, as give this many draws; the last one may
        be of a part of the sequences."""
        passes = max(1.0, least_draws / self.draws)
        for part in self.parts:
            part.passes = passes

    @property
    def in_memory(self) -> bool:
        """Whether all of it is one pool, which is read once."""
        return self.num_bytes <= self._memory.most_bytes or len(self._units) == 1

    def name_of(self, number: int) -> str:
        """A sequence in words: participant, which of theirs it is, its recording, first and last window."""
        place = int(np.searchsorted(self._first_P, number, side="right")) - 1
        part, own = self.parts[place], number - self._first_P[place]
        person_N = part.index.participant_N
        nth = int((person_N[: own + 1] == person_N[own]).sum())
        chain_V = part.index.windows_NV[own]
        rows = part.index.row_W[chain_V[chain_V >= 0]][[0, -1]]
        (recording, *first), (_, *last) = part.dataset.frame(SORTED_BY[1:]).iloc[rows].to_numpy()
        return (
            f"{part.cohort}/{part.index.participants[person_N[own]]} sequence {nth} (recording {recording}, "
            f"windows {first[0]}/{first[1]} to {last[0]}/{last[1]})"
        )

    def scan(self) -> Iterator[torch.Tensor]:
        """Read everything once, learn each recording's scale, and yield all scaled tokens, [tokens, S]."""
        pools = self.in_order().pools
        for units in pools:
            pool = self.pool(units, learn=True)
            for tokens, _ in pool.values():
                for some_WCL in tokens.signal_WCL.split(WINDOWS_AT_ONCE):
                    # A copy: who holds on to a view holds on to the pool.
                    yield some_WCL.reshape(-1, self.samples_per_token).clone()
            del pool, tokens, some_WCL

    def epoch(self, seed: Sequence[int]) -> Epoch:
        """An order drawn from ``seed``: every sequence as often as its part's weight says.

        A pool is filled with recordings in an order of their own and shuffled in itself. Where one pool
        holds all, that is a permutation of all.
        """
        rng = np.random.default_rng(list(seed))
        turns_N = np.concatenate([_turns(part, rng) for part in self.parts])
        pools = [tuple(range(len(self._units)))]
        if not self.in_memory:
            pools = self._fill(rng.permutation(len(self._units)).tolist())
        return Epoch(self, pools, turns_N, rng)

    def in_order(self) -> Epoch:
        """Every sequence once, in the order of their numbers."""
        return Epoch(
            self, self._fill(range(len(self._units))), np.ones(len(self), dtype=np.int64), None
        )

    def _fill(self, units: Sequence[int]) -> list[tuple[int, ...]]:
        """Share units out over pools, in their order."""
        pools: list[list[int]] = []
        size = 0
        for unit in units:
            size += self._units[unit].num_bytes
            if not pools or size > self._memory.most_bytes:
                pools.append([])
                size = self._units[unit].num_bytes
            pools[-1].append(unit)
        # Within a pool in the order of the files, so that each row group is read once.
        return [tuple(sorted(pool)) for pool in pools]

    def numbers(self, pool: Sequence[int]) -> np.ndarray:
        """The sequences of a pool, ascending."""
        return np.concatenate(
            [
                np.arange(its.sequences.start, its.sequences.stop) + self._first_P[its.part]
                for its in (self._units[unit] for unit in pool)
            ]
        )

    def pool(self, units: tuple[int, ...], learn: bool = False) -> _Pool:
        """A pool, from memory or read."""
        size = sum(self._units[unit].num_bytes for unit in units)
        return self._memory.get((id(self), units), size, partial(self._load, units, learn))

    def _load(self, units: tuple[int, ...], learn: bool) -> _Pool:
        pool: _Pool = {}
        for channels in self.montages:
            chosen = [u for u in units if self.parts[self._units[u].part].channels == channels]
            if not chosen:
                continue
            its = [self._units[unit] for unit in chosen]
            total = sum(unit.windows.stop - unit.windows.start for unit in its)
            signal_WCL = torch.empty(total, len(channels), self.parts[0].window_samples)
            windows, filled = [], 0
            for place in sorted({unit.part for unit in its}):
                part, slices = self.parts[place], [unit for unit in its if unit.part == place]
                begin = filled
                for unit in slices:
                    chain_NV = part.index.windows_NV[unit.sequences]
                    shift = filled - unit.windows.start
                    windows.append(np.where(chain_NV >= 0, chain_NV + shift, -1))
                    filled += unit.windows.stop - unit.windows.start
                part.read_into(signal_WCL[begin:filled], [unit.windows for unit in slices], learn)
            tokens = Tokens(signal_WCL, np.concatenate(windows), self.samples_per_token)
            pool[channels] = tokens, self.numbers(chosen)
        return pool


def _copies(part: Part) -> tuple[int, int]:
    """How many draws of a part are whole rounds of it, and how many a part of a round."""
    whole = math.floor(part.times)
    rest = round((part.times - whole) * len(part))
    return whole * len(part), max(rest, 1) if whole == 0 else rest


def _turns(part: Part, rng: np.random.Generator) -> np.ndarray:
    """How often each sequence of a part stands in an epoch."""
    rest = _copies(part)[1]
    turns_N = np.full(len(part), math.floor(part.times), dtype=np.int64)
    if rest:
        turns_N[rng.permutation(len(part))[:rest]] += 1
    return turns_N


class Epoch:
    """Draws in their order; made by :class:`Corpora`.

    Args:
        corpora: whose sequences.
        pools: units of each pool, in the order in which they are read.
        turns_N: how often each sequence stands in it.
        rng: shuffles each pool; None leaves them in order.
    """

    def __init__(
        self,
        corpora: Corpora,
        pools: Sequence[tuple[int, ...]],
        turns_N: np.ndarray,
        rng: np.random.Generator | None,
    ) -> None:
        self._corpora = corpora
        self.pools = pools
        numbers, turns = [], []
        for pool in pools:
            number_P = corpora.numbers(pool)
            often_P = turns_N[number_P]
            number_D = np.repeat(number_P, often_P)
            turn_D = np.arange(len(number_D)) - np.repeat(np.cumsum(often_P) - often_P, often_P)
            order_D = slice(None) if rng is None else rng.permutation(len(number_D))
            numbers.append(number_D[order_D])
            turns.append(turn_D[order_D])
        self.number_D, self.turn_D = np.concatenate(numbers), np.concatenate(turns)
        self._pool_D = np.repeat(np.arange(len(pools)), [len(each) for each in numbers])

    def __len__(self) -> int:
        return len(self.number_D)

    def read(self, draws: np.ndarray) -> list[Read]:
        """The sequences of some draws, ascending positions in this epoch; one :class:`Read` a montage.

        Montages come in the order of the parts.
        """
        found: dict[Montage, list[Read]] = {}
        pool_B = self._pool_D[draws]
        for pool in range(pool_B[0], pool_B[-1] + 1):
            for part in self._read(pool, draws[pool_B == pool]):
                found.setdefault(part.channels, []).append(part)
        return [
            _joined(found[channels]) for channels in self._corpora.montages if channels in found
        ]

    def _read(self, pool: int, draws: np.ndarray) -> list[Read]:
        # By itself, so that nothing holds on to a pool while the next one is read.
        out = []
        for channels, (tokens, number_P) in self._corpora.pool(self.pools[pool]).items():
            rows = np.searchsorted(number_P, self.number_D[draws])
            here = number_P.take(rows, mode="clip") == self.number_D[draws]
            its, rows = draws[here], rows[here]
            if len(its):
                samples_BKCS, valid_BK = tokens.batch(rows, torch.device("cpu"))
                number_B, turn_B = self.number_D[its], self.turn_D[its]
                out.append(Read(channels, samples_BKCS, valid_BK, number_B, turn_B))
        return out


def _joined(reads: Sequence[Read]) -> Read:
    if len(reads) == 1:
        return reads[0]
    return Read(
        reads[0].channels,
        torch.cat([read.samples_BKCS for read in reads]),
        torch.cat([read.valid_BK for read in reads]),
        np.concatenate([read.number_B for read in reads]),
        np.concatenate([read.turn_B for read in reads]),
    )
