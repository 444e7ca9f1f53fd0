"""Windows -> the token sequences that the model reads.

A sequence is up to ``context_windows`` windows of one recording, each beginning at the sample where
the one before it ends, so it never crosses a gap, a left-out window, a recording or a participant.
Signals are scaled per recording and channel over all windows used, never per window. Knows no model
and no training.

Shapes: W windows, C channels, L samples per window, B sequences of a batch, K token steps in time,
S samples per token (K = context_windows * L / S), V = context_windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from remit.config import Sequences
from remit.dataset.windows import WindowsFile
from remit.errors import RemitError, some_of
from remit.nn.scaling import robust_scale

RESULT_VERSION = 1  # raise when a change here alters a trained model
MOST_PADDING = 0.05  # of a batch of uneven sequences, where they are batched by length


@dataclass(frozen=True)
class Tokens:
    """Windows in memory and the sequences that they make, ready to be cut into tokens.

    ``signal_WCL`` is the scaled signal (no unit); ``windows_NV`` holds for each sequence the indices
    of its windows in time order, -1 where there is none.
    """

    signal_WCL: torch.Tensor
    windows_NV: np.ndarray
    samples_per_token: int

    def __len__(self) -> int:
        return len(self.windows_NV)

    @property
    def steps_per_window(self) -> int:
        """Token steps of one window."""
        return int(self.signal_WCL.shape[2]) // self.samples_per_token

    @property
    def num_steps(self) -> int:
        """K: token steps of a whole sequence."""
        return int(self.windows_NV.shape[1]) * self.steps_per_window

    def tokens_NS(self) -> torch.Tensor:
        """Every token of every window, [W * C * tokens of a window, S]."""
        return self.signal_WCL.reshape(-1, self.samples_per_token)

    def batch(
        self, indices: Sequence[int] | np.ndarray, device: torch.device, *, cut: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``samples_BKCS`` (zero where padded) and ``valid_BK`` of some sequences.

        With ``cut`` K ends with the longest of them, otherwise it is :attr:`num_steps`.
        """
        # By numpy, whose calls cost a fraction of torch's: a batch is small.
        chosen_BV = self.windows_NV[np.asarray(indices)]
        real_BV = chosen_BV >= 0
        if cut:
            longest = int(real_BV.sum(axis=1).max())
            chosen_BV, real_BV = chosen_BV[:, :longest], real_BV[:, :longest]
        B, V = chosen_BV.shape
        C, steps = self.signal_WCL.shape[1], self.steps_per_window
        # Of each token the row in [W * C * steps, S], so that a sample is copied once.
        within_kC = np.arange(C * steps).reshape(C, steps).T
        rows_BVkC = np.maximum(chosen_BV, 0)[:, :, None, None] * (C * steps) + within_kC
        samples_BKCS = (
            self.tokens_NS()
            .index_select(0, torch.from_numpy(rows_BVkC.reshape(-1)))
            .view(B, V * steps, C, -1)
        )
        valid_BK = torch.from_numpy(np.repeat(real_BV, steps, axis=1))
        if not real_BV.all():
            samples_BKCS *= valid_BK[:, :, None, None]
        return samples_BKCS.to(device), valid_BK.to(device)


@dataclass(frozen=True)
class TokenSequences(Tokens):
    """The sequences of some participants.

    ``participant_N`` is the index of a sequence's participant in ``participants``; ``windows_used``
    and ``windows_bad`` count per participant.
    """

    participants: tuple[str, ...]
    labels: tuple[int | None, ...]
    participant_N: np.ndarray
    windows_used: tuple[int, ...]
    windows_bad: tuple[int, ...]

    def valid_steps(self, index: int) -> int:
        """The number of token steps of one sequence that are not padding."""
        return int((self.windows_NV[index] >= 0).sum()) * self.steps_per_window

    @property
    def valid_steps_N(self) -> np.ndarray:
        """:meth:`valid_steps` of every sequence."""
        windows_N: np.ndarray = (self.windows_NV >= 0).sum(axis=1)
        return windows_N * self.steps_per_window

    def of_participant(self, participant: int) -> np.ndarray:
        """The indices of a participant's sequences, in time order."""
        return np.flatnonzero(self.participant_N == participant)


def length_sorted_batches(steps_N: np.ndarray, steps_at_once: int) -> list[np.ndarray]:
    """Share sequences out over batches of nearly equal length; returns indices into ``steps_N``.

    From the shortest to the longest, equal ones in their order. No batch holds more than
    ``steps_at_once`` steps, padding included, except a sequence alone in its batch; none is padded by
    more than 5 per cent of itself.
    """
    batches: list[list[int]] = []
    valid = 0
    for index in np.argsort(steps_N, kind="stable").tolist():
        steps = int(steps_N[index])
        whole = (len(batches[-1]) + 1) * steps if batches else 0
        if batches and whole <= steps_at_once and whole - valid - steps <= MOST_PADDING * whole:
            batches[-1].append(index)
            valid += steps
        else:
            batches.append([index])
            valid = steps
    return [np.asarray(batch) for batch in batches]


def chain_windows(
    starts: np.ndarray, ends: np.ndarray, groups: np.ndarray, context_windows: int
) -> np.ndarray:
    """Group windows into sequences; returns ``windows_NV`` of int64 with -1 for padding.

    ``groups`` numbers the recording (and its segment) of each window. A window follows another when
    it starts at the sample where that one ends; with overlapping windows this gives several
    interleaved chains, so that no sample stands twice in one sequence.
    """
    by_start = {(int(g), int(s)): i for i, (g, s) in enumerate(zip(groups, starts, strict=True))}
    has_previous = {(int(g), int(e)) for g, e in zip(groups, ends, strict=True)}
    sequences: list[list[int]] = []
    for index in range(len(starts)):
        if (int(groups[index]), int(starts[index])) in has_previous:
            continue
        chain = [index]
        while (key := (int(groups[chain[-1]]), int(ends[chain[-1]]))) in by_start:
            chain.append(by_start[key])
        for first in range(0, len(chain), context_windows):
            sequences.append(chain[first : first + context_windows])
    sequences.sort()
    out = np.full((len(sequences), context_windows), -1, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        out[row, : len(sequence)] = sequence
    return out


def unusable(dataset: WindowsFile, participants: Sequence[str], settings: Sequences) -> list[str]:
    """Those of the participants who have no window that may be used; reads no signal."""
    code_W, names = dataset.coded("Participant")
    if not settings.use_bad_windows:
        code_W = code_W[dataset.frame(["good"])["good"].to_numpy(dtype=bool)]
    there = {names[code] for code in np.unique(code_W)}
    known = set(dataset.participants)
    return sorted(name for name in participants if name in known and name not in there)


def check_usable(dataset: WindowsFile, participants: Sequence[str], settings: Sequences) -> None:
    """Raise :class:`RemitError` unless each has a window that may be used; reads no signal."""
    empty = unusable(dataset, participants, settings)
    if empty:
        raise RemitError(
            f"{dataset.path}: participant {some_of(empty)} has no window of good quality; expected at "
            "least one; look at the recording, or set sequences.use_bad_windows, or leave the "
            "participant out."
        )


@dataclass(frozen=True)
class SequenceIndex:
    """Which windows of a dataset make which sequences of some participants; no signal.

    ``row_W`` are the rows of the windows used, as they stand in the file; ``recording_W`` numbers
    their recordings in that order; ``windows_NV`` points into ``row_W``, -1 where there is none. No
    sequence crosses a recording, so the sequences of one follow each other too.
    """

    participants: tuple[str, ...]
    row_W: np.ndarray
    recording_W: np.ndarray
    windows_NV: np.ndarray
    participant_N: np.ndarray
    samples_per_token: int
    windows_used: tuple[int, ...]
    windows_bad: tuple[int, ...]


def index_sequences(
    dataset: WindowsFile, participants: Sequence[str], settings: Sequences
) -> SequenceIndex:
    """Find the sequences of some participants of an opened dataset.

    Raises :class:`RemitError` for a participant who is not in the file or has no usable window.
    """
    check_usable(dataset, participants, settings)
    chosen = sorted(set(participants))
    dataset.check_there(chosen)
    samples_per_token = round(settings.token_seconds * dataset.metadata["sampling_rate"])
    window_samples = dataset.metadata["window_samples"]
    if window_samples % samples_per_token:
        raise RemitError(
            f"{dataset.path}: windows of {window_samples} samples; expected a multiple of "
            f"{samples_per_token} (sequences.token_seconds); change that setting."
        )
    frame = dataset.frame(["parent_window_id", "window_start", "window_end", "good"])
    code_W, names = dataset.coded("Participant")
    place = {name: number for number, name in enumerate(chosen)}
    person_W = np.array([place.get(name, -1) for name in names])[code_W]
    good = frame["good"].to_numpy(dtype=bool)
    row_W = np.flatnonzero((person_W >= 0) & (good | settings.use_bad_windows))
    used, participant_W = frame.iloc[row_W], person_W[row_W]
    recording_W = np.cumsum(np.diff(dataset.coded("recording")[0][row_W], prepend=0) != 0)
    recording_W -= recording_W[0]
    starts, ends = used["window_start"].to_numpy(), used["window_end"].to_numpy()
    segments = used["parent_window_id"].to_numpy()
    # One recording after another, so that no table of all windows is made.
    first_R = np.flatnonzero(np.diff(recording_W, prepend=-1))
    chains = []
    for first, stop in zip(first_R, [*first_R[1:], len(row_W)], strict=True):
        its = slice(first, stop)
        chain_NV = chain_windows(starts[its], ends[its], segments[its], settings.context_windows)
        chains.append(np.where(chain_NV >= 0, chain_NV + first, -1))
    windows_NV = np.concatenate(chains)
    bad_W = person_W[(person_W >= 0) & ~good]
    return SequenceIndex(
        participants=tuple(chosen),
        row_W=row_W,
        recording_W=recording_W,
        windows_NV=windows_NV,
        participant_N=participant_W[windows_NV[:, 0]],
        samples_per_token=samples_per_token,
        windows_used=tuple(np.bincount(participant_W, minlength=len(chosen)).tolist()),
        windows_bad=tuple(np.bincount(bad_W, minlength=len(chosen)).tolist()),
    )


def load_sequences(
    dataset: WindowsFile, participants: Sequence[str], settings: Sequences
) -> TokenSequences:
    """Read the windows of some participants of an opened dataset and make their sequences.

    Raises as :func:`index_sequences`.
    """
    index = index_sequences(dataset, participants, settings)
    channels, samples = len(dataset.channels), dataset.metadata["window_samples"]
    signal_WCL = torch.empty(len(index.row_W), channels, samples)
    dataset.read_into(signal_WCL.numpy(), index.row_W)
    for number in range(index.recording_W.max() + 1):
        first, stop = np.searchsorted(index.recording_W, [number, number + 1])
        signal_WCL[first:stop] = robust_scale(signal_WCL[first:stop])
    return TokenSequences(
        participants=index.participants,
        labels=tuple(dataset.labels[name] for name in index.participants),
        signal_WCL=signal_WCL,
        windows_NV=index.windows_NV,
        participant_N=index.participant_N,
        samples_per_token=index.samples_per_token,
        windows_used=index.windows_used,
        windows_bad=index.windows_bad,
    )
