"""One recording in memory: what every reader returns and what the signal chain starts from.

Knows no file format. Array names carry their shape: `C` channels, `S` samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from remit.errors import RemitError, did_you_mean, some_of


@dataclass(frozen=True)
class Segment:
    """A contiguous stretch of a recording: samples `start` to `stop` (exclusive).

    `onset_seconds` is the time of its first sample in seconds from the recording's first sample.
    """

    start: int
    stop: int
    onset_seconds: float


@dataclass(frozen=True, eq=False)
class Recording:
    """EEG of one participant in microvolts, with the gaps in it known.

    `signal_CS`: float32 microvolts [channels, samples].
    `sampling_rate`: samples per second.
    `channels`: 10-10 names, one per row of `signal_CS`.
    `segments`: contiguous stretches in order of time; nothing is to be joined across their ends.
    `prewindowed`: each segment is one window that the source had already cut.
    `simulated`: made by remit, not measured on a person.
    `source_sha256`: hexadecimal SHA-256 of the source file's bytes; empty where there is no file.
    `left_out`: channels of the file that are not used, by the file's own names.
    `notes`: what the reader found and did, one sentence each.
    `bad_channels`: those of `channels` that the source itself calls bad.
    `mains_hz`: frequency of the mains in Hz where the source states it.
    `contact_CS`: bool [channels, samples], whether the headset reported contact at the electrode;
    None where it says nothing of it.
    `worn_S`: bool [samples], whether the headset reported that it was on a head; None likewise.

    Raises RemitError when `validate` does.
    """

    participant: str
    recording: str
    signal_CS: np.ndarray
    sampling_rate: float
    channels: tuple[str, ...]
    segments: tuple[Segment, ...]
    prewindowed: bool
    simulated: bool
    source_sha256: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    bad_channels: tuple[str, ...] = ()
    mains_hz: float | None = None
    contact_CS: np.ndarray | None = None
    worn_S: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Nothing is made that `validate` refuses."""
        self.validate()

    @property
    def seconds(self) -> float:
        """Seconds of signal, gaps not counted."""
        return sum(segment.stop - segment.start for segment in self.segments) / self.sampling_rate

    def validate(self) -> None:
        """Refuse what no later stage could treat rightly.

        Raises RemitError for a signal that is not float32 [channels, samples], has no samples,
        NaN or infinity; for channel names that are missing, too many or repeated; for a sampling
        rate that is not a positive number; and for segments that are empty, overlap or leave the
        signal.
        """
        name = f"recording '{self.recording}'"
        if self.signal_CS.ndim != 2 or self.signal_CS.dtype != np.float32:
            raise RemitError(
                f"{name}: the signal is {self.signal_CS.dtype} {list(self.signal_CS.shape)}; "
                "expected float32 [channels, samples]; correct the reader."
            )
        if self.signal_CS.size == 0:
            raise RemitError(
                f"{name}: the signal is empty, {list(self.signal_CS.shape)} [channels, samples]; "
                "expected at least one sample; leave this recording out."
            )
        if len(self.channels) != self.signal_CS.shape[0]:
            raise RemitError(
                f"{name}: {len(self.channels)} channel names for {self.signal_CS.shape[0]} rows of "
                "signal; expected one each; correct the channel names."
            )
        twice = sorted({channel for channel in self.channels if self.channels.count(channel) > 1})
        if twice:
            raise RemitError(
                f"{name}: channel {some_of(twice)} is there more than once; expected each channel "
                "once; rename or remove one in the source file."
            )
        if not (math.isfinite(self.sampling_rate) and self.sampling_rate > 0):
            raise RemitError(
                f"{name}: the sampling rate is {self.sampling_rate}; expected a positive number of "
                "Hz; state it."
            )
        self._check_segments(name)
        self._check_finite(name)
        self._check_headset(name)

    def _check_headset(self, name: str) -> None:
        shapes = (
            ("contact_CS", self.contact_CS, self.signal_CS.shape),
            ("worn_S", self.worn_S, self.signal_CS.shape[1:]),
        )
        for what, values, shape in shapes:
            if values is not None and (values.shape != shape or values.dtype != np.bool_):
                raise RemitError(
                    f"{name}: {what} is {values.dtype} {list(values.shape)}; expected bool "
                    f"{list(shape)}; correct the reader."
                )

    def _check_segments(self, name: str) -> None:
        if not self.segments:
            raise RemitError(f"{name}: no segment; expected at least one; correct the reader.")
        end, onset = 0, -math.inf
        for segment in self.segments:
            inside = end <= segment.start < segment.stop <= self.signal_CS.shape[1]
            if not (inside and onset < segment.onset_seconds < math.inf):
                raise RemitError(
                    f"{name}: segment [{segment.start}, {segment.stop}) at "
                    f"{segment.onset_seconds} s is empty, overlaps the one before it (up to sample "
                    f"{end}, from {onset} s) or leaves the {self.signal_CS.shape[1]} samples; "
                    "expected segments one after another; correct the reader."
                )
            end, onset = segment.stop, segment.onset_seconds

    def _check_finite(self, name: str) -> None:
        for channel, signal_S in zip(self.channels, self.signal_CS, strict=True):
            finite_S = np.isfinite(signal_S)
            if not finite_S.all():
                first = int(np.argmin(finite_S))
                raise RemitError(
                    f"{name}: channel {channel} has {signal_S.size - int(finite_S.sum())} values "
                    f"that are NaN or infinite, the first at {self._seconds_of(first):.3f} s; "
                    "expected numbers only; repair the file or leave this recording out."
                )

    def _seconds_of(self, sample: int) -> float:
        """Time of a sample in seconds from the recording's start."""
        for segment in self.segments:
            if segment.start <= sample < segment.stop:
                return segment.onset_seconds + (sample - segment.start) / self.sampling_rate
        return sample / self.sampling_rate

    def pick(self, channels: Sequence[str]) -> Recording:
        """The same recording with these channels only, by name, in this order.

        Raises RemitError naming the first channel that is not there, and what is.
        """
        for channel in channels:
            if channel not in self.channels:
                raise RemitError(
                    f"recording '{self.recording}': no channel '{channel}'; it has "
                    f"{some_of(self.channels, 40)}; change channels in the config or leave this "
                    f"recording out.{did_you_mean(channel, self.channels)}"
                )
        if tuple(channels) == self.channels:
            return self
        rows = [self.channels.index(channel) for channel in channels]
        return replace(
            self,
            signal_CS=self.signal_CS[rows],
            channels=tuple(channels),
            bad_channels=tuple(name for name in channels if name in self.bad_channels),
            contact_CS=None if self.contact_CS is None else self.contact_CS[rows],
        )
