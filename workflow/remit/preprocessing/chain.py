"""The signal chain: a recording in, filtered windows with their quality out.

re-reference -> upsample -> high-pass -> notch -> low-pass -> downsample -> window -> remove offset,
each step left out when its setting is null. Everything up to the windows is one multiplication of a
whole contiguous segment's spectrum (see :mod:`remit.preprocessing.resample`), because filtering
window by window puts an edge into every window; where the source is already cut
(``Recording.prewindowed``) each of its windows is a segment, filtered alone. Gaps of a packet or
two are bridged and counted; nothing is joined across a longer one. One channel is worked on at a
time, which bounds memory.

Shape suffixes: `W` windows, `C` channels, `S` samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING, Any

import numpy as np

from remit import progress
from remit.config import Preprocessing
from remit.config import Quality as QualitySettings
from remit.errors import RemitError
from remit.preprocessing import filters, quality, resample
from remit.preprocessing.mains import mains_of
from remit.preprocessing.reference import reference_electrodes, reference_signal

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

# Raise when a change of the code alters the windows, or what their file says of them.
RESULT_VERSION = 3

# Where the low-pass leaves at most this part of an amplitude at the new Nyquist frequency (-40 dB;
# the default leaves 0.0023), no further edge is needed before it.
_SAFE_GAIN = 0.01
_LINE_SAMPLES = 10_000
# A recording whose median window is flatter than this in its spectrum is damaged: no window of real
# EEG was, and bytes out of place give 0.81 to 0.97.
_FLATTEST_RECORDING = 0.8


@dataclass(frozen=True)
class Windows:
    """The windows of one recording, in the order of time.

    ``window_start`` and ``window_end`` count samples at the output rate from the recording's start,
    end exclusive. A quality figure is NaN where the recording does not tell it.
    """

    signal_WCS: np.ndarray
    """float32 µV [windows, channels, samples per window]"""
    sampling_rate: float
    """Hz"""
    channels: tuple[str, ...]
    parent_window_id: np.ndarray
    """int32 [W]: the segment, or the source's own window, in the order of time"""
    sub_window_id: np.ndarray
    """int32 [W]: place within the parent"""
    window_start: np.ndarray
    """int64 [W]"""
    window_end: np.ndarray
    """int64 [W]"""
    flat_fraction: np.ndarray
    """float32 [W, C]: part of the raw samples in flat stretches"""
    clipped_fraction: np.ndarray
    """float32 [W, C]: part of the raw samples at the channel's extreme value"""
    dropout_fraction: np.ndarray
    """float32 [W, C]: part of the raw samples missing (and bridged) or repeated"""
    peak_to_peak_uv: np.ndarray
    """float32 [W, C]: of the filtered window"""
    line_noise_ratio: np.ndarray
    """float32 [W, C]: raw power at the mains over that at 1-30 Hz"""
    high_frequency_ratio: np.ndarray
    """float32 [W, C]: raw power at 30-100 Hz without the mains over that at 1-30 Hz"""
    spectral_flatness: np.ndarray
    """float32 [W, C]: of the raw samples, without the mains; near 1 for white noise"""
    contact_fraction: np.ndarray
    """float32 [W, C]: part of the time in which the headset reported contact"""
    worn_fraction: np.ndarray
    """float32 [W]: part of the time in which the headset reported to be on a head"""
    bad_because: tuple[str, ...]
    """Per window what is wrong with it, in words joined by commas; '' for a good one"""
    dropped_seconds: float
    """Seconds at the ends of segments, and in short segments, that fill no window"""
    notes: tuple[str, ...] = ()
    """What the chain found and did, one sentence each"""

    @property
    def good(self) -> np.ndarray:
        """bool [W]: within all thresholds of the quality settings."""
        return np.array([not reason for reason in self.bad_because], dtype=bool)

    def _seconds_covered(self, chosen: np.ndarray) -> float:
        """Seconds that some of the chosen windows cover; overlap counts once."""
        samples, end = 0, -1
        for start, stop in sorted(
            zip(self.window_start[chosen].tolist(), self.window_end[chosen].tolist(), strict=True)
        ):
            samples += max(0, stop - max(start, end))
            end = max(end, stop)
        return samples / self.sampling_rate

    def summary(self) -> dict[str, Any]:
        """Counts and medians for the recording's line in a report, as plain values."""
        reasons: dict[str, int] = {}
        for text in self.bad_because:
            for reason in text.split(", ") if text else ():
                reasons[reason] = reasons.get(reason, 0) + 1
        return {
            "windows": len(self.good),
            "good_windows": int(self.good.sum()),
            "good_seconds": self._seconds_covered(self.good),
            "bad_windows_because": dict(sorted(reasons.items())),
            "median_by_channel": {
                name: [_plain(value) for value in _medians(getattr(self, name))]
                for name in CHANNEL_QUALITY
            },
        }


# The quality columns with one figure for each channel.
CHANNEL_QUALITY = (
    "flat_fraction",
    "clipped_fraction",
    "dropout_fraction",
    "peak_to_peak_uv",
    "line_noise_ratio",
    "high_frequency_ratio",
    "spectral_flatness",
    "contact_fraction",
)


def _medians(values_WC: np.ndarray) -> list[float]:
    known_W = ~np.isnan(values_WC).any(axis=1)
    return np.median(values_WC[known_W], axis=0).tolist() if known_W.any() else [np.nan]


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.4g}")


@dataclass(frozen=True)
class _Stretch:
    """Successive segments joined over gaps short enough to bridge: ``length`` samples in all.

    ``pieces``: first sample in the recording, first sample in the stretch, number of samples.
    """

    pieces: tuple[tuple[int, int, int], ...]
    length: int
    onset_seconds: float

    def of(self, values_S: np.ndarray) -> np.ndarray:
        """The stretch's samples, [..., samples]; gaps are filled by straight lines (bool: held)."""
        first, _, count = self.pieces[0]
        if len(self.pieces) == 1:
            return values_S[..., first : first + count]
        out = np.empty((*values_S.shape[:-1], self.length), dtype=values_S.dtype)
        end = 0
        for source, place, count in self.pieces:
            piece = values_S[..., source : source + count]
            if place > end:
                before, after = out[..., end - 1, None], piece[..., :1]
                part = np.arange(1, place - end + 1) / (place - end + 1)
                held = out.dtype == np.bool_
                out[..., end:place] = before if held else before + (after - before) * part
            out[..., place : place + count] = piece
            end = place + count
        return out

    def missing_S(self) -> np.ndarray:
        """Which samples were not in the recording: bool [S]."""
        missing = np.ones(self.length, dtype=bool)
        for _, place, count in self.pieces:
            missing[place : place + count] = False
        return missing


@dataclass(frozen=True)
class _Plan:
    """How one recording becomes windows: all that does not depend on the samples."""

    source_rate: float
    conditioner: resample.Conditioner
    keeps_offset: bool
    window: int  # samples at the output rate
    step: int
    rate: float
    stretches: tuple[_Stretch, ...]
    counts: tuple[int, ...]  # windows in each stretch
    mains_hz: float | None
    notes: tuple[str, ...]

    @property
    def raw_window(self) -> int:
        """Whole samples of the source in a window."""
        return floor(self.window / self.rate * self.source_rate + 1e-9)

    def raw_spans(self, stretch: int) -> tuple[np.ndarray, np.ndarray]:
        """First and end sample, at the source's rate, of the time each window of a stretch covers."""
        samples = self.stretches[stretch].length
        start_W = np.arange(self.counts[stretch]) * self.step
        scale = self.source_rate / self.rate
        raw_start_W = np.minimum(np.rint(start_W * scale).astype(np.int64), samples - 1)
        raw_stop_W = np.minimum(np.rint((start_W + self.window) * scale).astype(np.int64), samples)
        return raw_start_W, np.maximum(raw_stop_W, raw_start_W + 1)

    def rows(self, stretch: int) -> slice:
        """The rows of a stretch's windows."""
        first = sum(self.counts[:stretch])
        return slice(first, first + self.counts[stretch])


def preprocess(
    recording: Recording, settings: Preprocessing, channels: Sequence[str] | None = None
) -> Windows:
    """Run the signal chain on one recording; ``channels`` are those to keep, by default all.

    Raises :class:`RemitError` naming participant and recording for a channel or a reference that is
    not there, NaN or infinity, a cut-off at or above the source's Nyquist frequency, a rate that
    cannot be converted, and a recording in which no segment is as long as one window.
    """
    name = f"participant {recording.participant}, recording {recording.recording}"
    try:
        recording.validate()  # arrays can have changed since it was read
        picked = recording if channels is None else recording.pick(channels)
    except RemitError as error:
        raise RemitError(f"participant {recording.participant}, {error}") from None
    plan = _plan(recording, settings, name)
    reference_S, notes = None, plan.notes
    behind: list[str] = []  # electrodes of the reference
    if settings.reference is not None:
        behind = reference_electrodes(recording, settings.reference)
        _check_reference(recording, behind, picked.channels, settings, name)
        reference_S, note = reference_signal(recording, behind)
        notes = (note, *notes)

    num_windows, num_channels = sum(plan.counts), len(picked.channels)
    signal_CWS = np.empty((num_channels, num_windows, plan.window), dtype=np.float32)
    peak_to_peak = np.empty((num_windows, num_channels), dtype=np.float32)
    workspace = resample.Workspace()
    for channel in progress.track(range(num_channels), f"filtering {name}", "channel"):
        raw_S = picked.signal_CS[channel]
        if reference_S is not None:
            raw_S = raw_S - reference_S
        for index, stretch in enumerate(plan.stretches):
            if plan.counts[index]:
                filtered_S = _condition(stretch.of(raw_S), plan, workspace)
                rows = plan.rows(index)
                signal_CWS[channel, rows] = _cut(
                    filtered_S, plan.counts[index], plan, settings.offset
                )
        peak_to_peak[:, channel] = np.ptp(signal_CWS[channel], axis=1)

    figures = _figures(picked, plan, settings.quality, reference_S)
    if settings.quality.max_spectral_flatness is not None:
        _refuse_white_noise(figures["spectral_flatness"], name)
    if settings.reference != "average" and behind:
        lost = _figures(recording.pick(behind), plan, settings.quality, None)
        for figure in ("flat_fraction", "clipped_fraction", "dropout_fraction"):
            worst_W = lost[figure].max(axis=1)
            figures[figure] = np.maximum(figures[figure], worst_W[:, None])
    figures["peak_to_peak_uv"] = peak_to_peak
    bad_because = _judge(figures, picked.bad_channels, settings.quality)
    stretch_of_W = np.repeat(np.arange(len(plan.stretches)), plan.counts)
    sub_window_id = np.concatenate([np.arange(count) for count in plan.counts])
    origin = [_nearest(stretch.onset_seconds * plan.rate) for stretch in plan.stretches]
    window_start = np.asarray(origin, dtype=np.int64)[stretch_of_W] + sub_window_id * plan.step
    return Windows(
        signal_WCS=signal_CWS.swapaxes(0, 1),
        sampling_rate=plan.rate,
        channels=tuple(picked.channels),
        parent_window_id=stretch_of_W.astype(np.int32),
        sub_window_id=sub_window_id.astype(np.int32),
        window_start=window_start,
        window_end=window_start + plan.window,
        **figures,
        bad_because=bad_because,
        dropped_seconds=_dropped_seconds(plan),
        notes=notes,
    )


def conditioned(
    recording: Recording, settings: Preprocessing, channels: Sequence[str], stretch: int
) -> Iterator[np.ndarray]:
    """Each channel of one stretch as it is before windows are cut out of it: float64 µV [S].

    ``stretch`` is the ``parent_window_id`` of its windows; the rate is ``settings.sampling_rate``.
    A channel's samples are overwritten when the next one is asked for. Raises what
    :func:`preprocess` raises.
    """
    name = f"participant {recording.participant}, recording {recording.recording}"
    plan = _plan(recording, settings, name)
    reference_S = None
    if settings.reference is not None:
        behind = reference_electrodes(recording, settings.reference)
        reference_S, _ = reference_signal(recording, behind)
    workspace = resample.Workspace()
    for raw_S in recording.pick(channels).signal_CS:
        own_S = raw_S if reference_S is None else raw_S - reference_S
        yield _condition(plan.stretches[stretch].of(own_S), plan, workspace)


def _check_reference(
    recording: Recording,
    names: Sequence[str],
    channels: Sequence[str],
    settings: Preprocessing,
    name: str,
) -> None:
    """Refuse a reference that would make a channel nothing, or that the source calls bad."""
    if len(names) == 1 and names[0] in channels:
        raise RemitError(
            f"{name}: {names[0]} is the reference and one of the channels, so it would be 0; expected "
            "another preprocessing.reference, or channels without it."
        )
    bad = [electrode for electrode in names if electrode in recording.bad_channels]
    if bad and not settings.quality.use_bad_channels:
        raise RemitError(
            f"{name}: the reference {', '.join(bad)} is a bad channel, as the source says; expected a "
            "good one; choose another preprocessing.reference or leave the recording out."
        )


def _refuse_white_noise(flatness_WC: np.ndarray, name: str) -> None:
    known = ~np.isnan(flatness_WC).any(axis=1)
    if not known.any():
        return
    flatness = float(np.median(np.median(flatness_WC[known], axis=1)))
    if flatness > _FLATTEST_RECORDING:
        raise RemitError(
            f"{name}: has the spectrum of white noise (flatness {flatness:.2f}, median window); "
            f"expected EEG, below {_FLATTEST_RECORDING:g}; the file is damaged, or its numbers are "
            "in another order or type; export it again or leave it out (or, where noise is meant, set "
            "preprocessing.quality.max_spectral_flatness to null)."
        )


def _nearest(value: float) -> int:
    return floor(value + 0.5)


def _stretches(recording: Recording, bridge_seconds: float) -> tuple[_Stretch, ...]:
    """Join segments whose gap is at least a sample and at most ``bridge_seconds`` long."""
    rate = recording.sampling_rate
    joined: list[list[tuple[int, int, int]]] = []
    onsets: list[float] = []
    for segment in recording.segments:
        count = segment.stop - segment.start
        if joined and not recording.prewindowed:
            end = sum(joined[-1][-1][1:])
            place = _nearest((segment.onset_seconds - onsets[-1]) * rate)
            # A gap of unknown length has the onset of none, and is never bridged.
            if end < place <= end + bridge_seconds * rate + 1e-6:
                joined[-1].append((segment.start, place, count))
                continue
        joined.append([(segment.start, 0, count)])
        onsets.append(segment.onset_seconds)
    return tuple(
        _Stretch(tuple(pieces), pieces[-1][1] + pieces[-1][2], onset)
        for pieces, onset in zip(joined, onsets, strict=True)
    )


def _plan(recording: Recording, settings: Preprocessing, name: str) -> _Plan:
    source_rate = float(recording.sampling_rate)
    raised_rate = source_rate * (settings.upsample.factor if settings.upsample else 1)
    _refuse_above_nyquist(settings, source_rate, name)
    try:
        ratio = resample.rate_ratio(source_rate, settings.sampling_rate)
    except RemitError as error:
        raise RemitError(f"{name}: {error}") from None
    mains_hz, mains_note = mains_of(recording)
    notches = _notches(settings, source_rate, mains_hz)
    by_mains = settings.notch is not None and settings.notch.frequencies_hz == "mains"
    linear = settings.upsample is not None and settings.upsample.method == "linear"
    conditioner = resample.Conditioner(
        source_rate,
        ratio,
        _Gain(settings, raised_rate, notches).of_any(),
        _settling_seconds(settings, notches),
        settings.upsample.factor if linear and settings.upsample else 0,
        edge=_lowpass_gain(settings, raised_rate) > _SAFE_GAIN,
    )
    # Whole and positive: the configuration refuses anything else.
    window = round(settings.window_seconds * settings.sampling_rate)
    step = round((settings.window_seconds - settings.overlap_seconds) * settings.sampling_rate)
    stretches = _stretches(recording, settings.bridge_seconds)
    counts = tuple(
        max(0, (conditioner.samples_out(stretch.length) - window) // step + 1)
        for stretch in stretches
    )
    if not sum(counts):
        longest = max(stretch.length for stretch in stretches)
        raise RemitError(
            f"{name}: the longest contiguous segment has {longest / source_rate:.3g} s; "
            f"expected at least one window of {settings.window_seconds:g} s; leave the recording "
            "out of the cohort sheet or shorten preprocessing.window_seconds."
        )
    bridged = len(recording.segments) - len(stretches)
    notes = [mains_note] if by_mains or recording.mains_hz is not None else []
    if by_mains and notches:
        notes.append(f"Notch at {', '.join(f'{frequency:g}' for frequency in notches)} Hz.")
    if bridged:
        notes.append(
            f"{bridged} gaps of up to {settings.bridge_seconds:g} s bridged by straight lines."
        )
    return _Plan(
        source_rate=source_rate,
        conditioner=conditioner,
        keeps_offset=settings.highpass is None,
        window=window,
        step=step,
        rate=float(settings.sampling_rate),
        stretches=stretches,
        counts=counts,
        mains_hz=mains_hz,
        notes=tuple(notes),
    )


def _notches(
    settings: Preprocessing, source_rate: float, mains_hz: float | None
) -> tuple[float, ...]:
    if settings.notch is None:
        return ()
    if settings.notch.frequencies_hz != "mains":
        return tuple(settings.notch.frequencies_hz)
    if mains_hz is None:
        return ()
    return tuple(np.arange(mains_hz, source_rate / 2, mains_hz).tolist())


@dataclass(frozen=True)
class _Gain:
    """The gain of all filters together, at the raised rate."""

    settings: Preprocessing
    raised_rate: float
    notches: tuple[float, ...]

    def __hash__(self) -> int:
        return hash((self.raised_rate, self.notches))

    def of_any(self) -> _Gain | None:
        """Itself, or None where there is no filter."""
        some = self.settings.highpass or self.settings.lowpass or self.notches
        return self if some else None

    def __call__(self, frequency_F: np.ndarray) -> np.ndarray:
        gain_F = np.ones(len(frequency_F))
        if (highpass := self.settings.highpass) is not None:
            gain_F *= filters.butterworth_gain(
                "highpass", highpass.cutoff_hz, highpass.order, self.raised_rate, frequency_F
            )
        if (notch := self.settings.notch) is not None:
            for frequency in self.notches:
                gain_F *= filters.notch_gain(
                    frequency, notch.quality, self.raised_rate, frequency_F
                )
        if (lowpass := self.settings.lowpass) is not None:
            gain_F *= filters.butterworth_gain(
                "lowpass", lowpass.cutoff_hz, lowpass.order, self.raised_rate, frequency_F
            )
        return gain_F


def _lowpass_gain(settings: Preprocessing, raised_rate: float) -> float:
    """What the low-pass leaves at the new Nyquist frequency."""
    nyquist = settings.sampling_rate / 2
    if settings.lowpass is None:
        return 1.0
    if nyquist >= raised_rate / 2:
        return 0.0
    lowpass = settings.lowpass
    gain = filters.butterworth_gain(
        "lowpass", lowpass.cutoff_hz, lowpass.order, raised_rate, np.array([nyquist])
    )
    return float(gain[0])


def _settling_seconds(settings: Preprocessing, notches: Sequence[float]) -> float:
    """How long the slowest of the filters rings."""
    seconds = [
        filters.butterworth_settling_seconds(step.cutoff_hz, step.order)
        for step in (settings.highpass, settings.lowpass)
        if step is not None
    ]
    if settings.notch is not None:
        seconds += [filters.notch_settling_seconds(f, settings.notch.quality) for f in notches]
    return max(seconds, default=0.0)


def _refuse_above_nyquist(settings: Preprocessing, source_rate: float, name: str) -> None:
    """No filter may ask for what the source cannot hold; raising the rate adds nothing above it."""
    wanted = []
    if settings.highpass:
        wanted.append(("highpass.cutoff_hz", settings.highpass.cutoff_hz))
    if settings.notch and settings.notch.frequencies_hz != "mains":
        wanted += [("notch.frequencies_hz", value) for value in settings.notch.frequencies_hz]
    if settings.lowpass:
        wanted.append(("lowpass.cutoff_hz", settings.lowpass.cutoff_hz))
    for setting, frequency in wanted:
        if frequency >= source_rate / 2:
            raise RemitError(
                f"{name}: preprocessing.{setting} is {frequency:g} Hz and the recording has "
                f"{source_rate:g} Hz, Nyquist frequency {source_rate / 2:g} Hz; expected a source "
                f"above {2 * frequency:g} Hz; lower the setting or leave the recording out."
            )


def _condition(raw_S: np.ndarray, plan: _Plan, workspace: resample.Workspace) -> np.ndarray:
    """Filter and resample one stretch of one channel: float64 at the output rate, in the workspace.

    A straight line, fitted to some of the samples, is taken off first and put back unless a
    high-pass removes it: every step is linear and passes a line as it is, an electrode's offset of
    100 000 µV would cost precision, and the mirror image of a drift has a cusp.
    """
    if plan.conditioner.leaves_as_is:
        return raw_S.astype(np.float64)
    start, step = _line(raw_S)
    signal_S = plan.conditioner(raw_S, (start, step), workspace)
    if plan.keeps_offset:
        step_out = step / float(plan.conditioner.ratio)
        signal_S = signal_S + (start + step_out * np.arange(len(signal_S)))
    return signal_S


def _line(raw_S: np.ndarray) -> tuple[float, float]:
    """Value at the first sample, and step, of the line through some of the samples."""
    stride = max(1, len(raw_S) // _LINE_SAMPLES)
    some_S = raw_S[::stride].astype(np.float64)
    middle = (len(some_S) - 1) / 2
    place_S = np.arange(len(some_S)) - middle
    square = float(place_S @ place_S)
    level = float(some_S.mean())
    slope = float(place_S @ (some_S - level)) / square if square else 0.0
    return level - slope * middle, slope / stride


def _cut(signal_S: np.ndarray, count: int, plan: _Plan, offset: str | None) -> np.ndarray:
    """Cut windows out of a stretch and remove each one's offset: ``[windows, samples]``."""
    windows_WS = np.lib.stride_tricks.sliding_window_view(signal_S, plan.window)[:: plan.step][
        :count
    ]
    if offset == "mean":
        windows_WS = windows_WS - windows_WS.mean(axis=1, keepdims=True)
    elif offset == "median":
        windows_WS = windows_WS - np.median(windows_WS, axis=1, keepdims=True)
    return windows_WS


def _figures(
    recording: Recording, plan: _Plan, settings: QualitySettings, reference_S: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The quality figures of the raw samples: float32 [W, C], and [W] for ``worn_fraction``.

    Spectra are those after re-referencing, which can take noise away that all electrodes share.
    """
    num_windows, num_channels = sum(plan.counts), len(recording.channels)
    unknown = np.full((num_windows, num_channels), np.nan, dtype=np.float32)
    figures = {name: unknown.copy() for name in CHANNEL_QUALITY if name != "peak_to_peak_uv"}
    figures["worn_fraction"] = unknown[:, 0].copy()
    rails = [
        quality.rails([raw_S[s.start : s.stop] for s in recording.segments])
        for raw_S in recording.signal_CS
    ]
    for index, stretch in enumerate(plan.stretches):
        if not plan.counts[index]:
            continue
        rows = plan.rows(index)
        start_W, stop_W = plan.raw_spans(index)
        lost_S = np.zeros(stretch.length, dtype=bool)
        for source, place, count in stretch.pieces:
            piece_CS = recording.signal_CS[:, source : source + count]
            lost_S[place : place + count] = quality.repeated_samples(piece_CS)
        lost_S |= stretch.missing_S()
        lost_W = quality.fraction_per_window(lost_S, start_W, stop_W)
        figures["dropout_fraction"][rows] = lost_W[:, None]
        if recording.worn_S is not None:
            worn_S = stretch.of(recording.worn_S)
            figures["worn_fraction"][rows] = quality.fraction_per_window(worn_S, start_W, stop_W)
        for channel in range(num_channels):
            raw_S = stretch.of(recording.signal_CS[channel])
            flat_S = quality.flat_samples(
                raw_S, settings.flat_uv, settings.flat_seconds, plan.source_rate
            )
            clipped_S = quality.clipped_samples(raw_S, *rails[channel])
            for name, marked_S in (("flat_fraction", flat_S), ("clipped_fraction", clipped_S)):
                figures[name][rows, channel] = quality.fraction_per_window(
                    marked_S, start_W, stop_W
                )
            if recording.contact_CS is not None:
                figures["contact_fraction"][rows, channel] = quality.fraction_per_window(
                    stretch.of(recording.contact_CS[channel]), start_W, stop_W
                )
            whole = min(plan.raw_window, stretch.length)
            if reference_S is not None:
                raw_S = raw_S - stretch.of(reference_S)
            line_W, muscle_W, flatness_W = quality.spectral_ratios(
                raw_S,
                np.minimum(start_W, stretch.length - whole),
                whole,
                plan.source_rate,
                plan.mains_hz,
            )
            figures["line_noise_ratio"][rows, channel] = line_W
            figures["high_frequency_ratio"][rows, channel] = muscle_W
            figures["spectral_flatness"][rows, channel] = flatness_W
    return figures


def beyond_thresholds(
    figures: Mapping[str, np.ndarray], settings: QualitySettings
) -> dict[str, np.ndarray]:
    """By reason, in which windows which electrode is beyond its threshold: bool [W, C].

    ``figures``: those of :data:`CHANNEL_QUALITY`, float32 [W, C]. A reason without a threshold is
    left out.
    """
    too_much = (
        ("flat", "flat_fraction", settings.max_flat_fraction),
        ("clipped", "clipped_fraction", settings.max_clipped_fraction),
        ("dropout", "dropout_fraction", settings.max_dropout_fraction),
        ("amplitude", "peak_to_peak_uv", settings.max_peak_to_peak_uv),
        ("line noise", "line_noise_ratio", settings.max_line_noise_ratio),
        ("high frequencies", "high_frequency_ratio", settings.max_high_frequency_ratio),
        ("flat spectrum", "spectral_flatness", settings.max_spectral_flatness),
    )
    found = {word: figures[name] > most for word, name, most in too_much if most is not None}
    if settings.min_contact_fraction is not None:
        found["no contact"] = figures["contact_fraction"] < settings.min_contact_fraction
    return found


def _judge(
    figures: dict[str, np.ndarray], bad_channels: Sequence[str], settings: QualitySettings
) -> tuple[str, ...]:
    """Per window the reasons why it is bad, joined by commas; one channel is enough."""
    found: list[tuple[str, Any]] = [
        (word, bad_WC.any(axis=1)) for word, bad_WC in beyond_thresholds(figures, settings).items()
    ]
    if settings.min_worn_fraction is not None:
        found.append(("not worn", figures["worn_fraction"] < settings.min_worn_fraction))
    if bad_channels and not settings.use_bad_channels:
        found.append(("bad channel", np.ones(len(figures["worn_fraction"]), dtype=bool)))
    num_windows = len(figures["worn_fraction"])
    return tuple(
        ", ".join(word for word, bad_W in found if bad_W[window]) for window in range(num_windows)
    )


def _dropped_seconds(plan: _Plan) -> float:
    dropped = 0.0
    for stretch, count in zip(plan.stretches, plan.counts, strict=True):
        seconds = stretch.length / plan.source_rate
        used = ((count - 1) * plan.step + plan.window) / plan.rate if count else 0.0
        dropped += max(0.0, seconds - used)
    return dropped
