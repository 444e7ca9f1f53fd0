"""The signal chain: a recording in, filtered windows with their quality out.

upsample -> high-pass -> notch -> low-pass -> downsample -> window -> remove offset, each step left
out when its setting is null. Filters run in float64 on a whole contiguous segment before it is cut
into windows, because filtering window by window puts an edge into every window; where the source is
already cut (``Recording.prewindowed``) each of its windows is a segment, filtered alone with
padding. Nothing is joined across a gap. One channel is worked on at a time, which bounds memory.

Shape suffixes: `W` windows, `C` channels, `S` samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import TYPE_CHECKING

import numpy as np

from remit.config import Preprocessing
from remit.errors import RemitError
from remit.preprocessing import filters, quality, resample

if TYPE_CHECKING:
    from remit.recordings.recording import Recording, Segment

# Raise when a change of the code alters the windows.
RESULT_VERSION = 1

# Samples are simply left out only where the low-pass leaves at most this part of an amplitude at
# the new Nyquist frequency (-40 dB; the default leaves 0.0023). Otherwise an anti-alias filter
# runs.
_SAFE_GAIN = 0.01


@dataclass(frozen=True)
class Windows:
    """The windows of one recording, in the order of time.

    ``window_start`` and ``window_end`` count samples at the output rate from the recording's start,
    end exclusive. The quality columns are the maximum over channels.
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
    """float32 [W]: part of the raw samples in flat stretches"""
    clipped_fraction: np.ndarray
    """float32 [W]: part of the raw samples at the channel's extreme value"""
    peak_to_peak_uv: np.ndarray
    """float32 [W]: of the filtered window"""
    good: np.ndarray
    """bool [W]: within all thresholds of the quality settings"""
    dropped_seconds: float
    """Seconds at the ends of segments, and in short segments, that fill no window"""


@dataclass(frozen=True)
class _Plan:
    """How one recording's segments become windows: all that does not depend on the samples."""

    source_rate: float
    upsample_factor: int
    upsample_linear: bool
    sos: np.ndarray | None
    keeps_offset: bool
    decimate_by: int
    ratio: (
        Fraction  # of the output rate to the upsampled rate, where samples are not simply left out
    )
    window: int  # samples at the output rate
    step: int
    rate: float

    def samples_out(self, samples: int) -> int:
        return ceil(Fraction(samples * self.upsample_factor, self.decimate_by) * self.ratio)

    def windows_in(self, samples: int) -> int:
        return max(0, (self.samples_out(samples) - self.window) // self.step + 1)


def preprocess(recording: Recording, settings: Preprocessing) -> Windows:
    """Run the signal chain on one recording.

    Raises :class:`RemitError` naming participant and recording for NaN or infinity, a cut-off at or
    above the source's Nyquist frequency, a rate that cannot be converted, and a recording in which
    no segment is as long as one window.
    """
    name = f"participant {recording.participant}, recording {recording.recording}"
    try:
        recording.validate()  # arrays can have changed since it was read
    except RemitError as error:
        raise RemitError(f"participant {recording.participant}, {error}") from None
    segments = recording.segments
    plan = _plan(recording, settings, name)
    counts = [plan.windows_in(segment.stop - segment.start) for segment in segments]
    if not sum(counts):
        longest = max(segment.stop - segment.start for segment in segments)
        raise RemitError(
            f"{name}: the longest contiguous segment has {longest / plan.source_rate:.3g} s; "
            f"expected at least one window of {settings.window_seconds:g} s; leave the recording "
            "out of the cohort sheet or shorten preprocessing.window_seconds."
        )

    num_windows, num_channels = sum(counts), len(recording.channels)
    signal_WCS = np.empty((num_windows, num_channels, plan.window), dtype=np.float32)
    flat_WC = np.zeros((num_windows, num_channels))
    clipped_WC = np.zeros((num_windows, num_channels))
    for channel in range(num_channels):
        raw = recording.signal_CS[channel]
        low, high = quality.rails(np.concatenate([raw[s.start : s.stop] for s in segments]))
        first = 0
        for segment, count in zip(segments, counts, strict=True):
            if not count:
                continue
            rows = slice(first, first + count)
            first += count
            raw_S = raw[segment.start : segment.stop]
            signal_WCS[rows, channel] = _cut(_condition(raw_S, plan), count, plan, settings.offset)
            start_W, stop_W = _raw_spans(count, len(raw_S), plan)
            flat_S = quality.flat_samples(
                raw_S, settings.quality.flat_uv, settings.quality.flat_seconds, plan.source_rate
            )
            flat_WC[rows, channel] = quality.fraction_per_window(flat_S, start_W, stop_W)
            clipped_S = quality.clipped_samples(raw_S, low, high)
            clipped_WC[rows, channel] = quality.fraction_per_window(clipped_S, start_W, stop_W)

    sub_window_id = np.concatenate([np.arange(count) for count in counts])
    origin = np.repeat([_nearest(s.onset_seconds * plan.rate) for s in segments], counts)
    window_start = origin.astype(np.int64) + sub_window_id * plan.step
    flat = flat_WC.max(axis=1).astype(np.float32)
    clipped = clipped_WC.max(axis=1).astype(np.float32)
    peak_to_peak = np.ptp(signal_WCS, axis=2).max(axis=1).astype(np.float32)
    return Windows(
        signal_WCS=signal_WCS,
        sampling_rate=plan.rate,
        channels=tuple(recording.channels),
        parent_window_id=np.repeat(np.arange(len(segments)), counts).astype(np.int32),
        sub_window_id=sub_window_id.astype(np.int32),
        window_start=window_start,
        window_end=window_start + plan.window,
        flat_fraction=flat,
        clipped_fraction=clipped,
        peak_to_peak_uv=peak_to_peak,
        good=(flat <= settings.quality.max_flat_fraction)
        & (clipped <= settings.quality.max_clipped_fraction)
        & (peak_to_peak <= settings.quality.max_peak_to_peak_uv),
        dropped_seconds=_dropped_seconds(segments, counts, plan),
    )


def _nearest(value: float) -> int:
    return floor(value + 0.5)


def _plan(recording: Recording, settings: Preprocessing, name: str) -> _Plan:
    source_rate = float(recording.sampling_rate)
    factor = settings.upsample.factor if settings.upsample else 1
    raised_rate = source_rate * factor
    _refuse_above_nyquist(settings, source_rate, name)
    sections = []
    if settings.highpass:
        highpass = settings.highpass
        sections.append(
            filters.butterworth("highpass", highpass.cutoff_hz, highpass.order, raised_rate)
        )
    if settings.notch:
        sections += [
            filters.notch(frequency, settings.notch.quality, raised_rate)
            for frequency in settings.notch.frequencies_hz
        ]
    lowpass_sos = None
    if settings.lowpass:
        lowpass = settings.lowpass
        lowpass_sos = filters.butterworth("lowpass", lowpass.cutoff_hz, lowpass.order, raised_rate)
        sections.append(lowpass_sos)

    try:
        ratio = resample.rate_ratio(raised_rate, settings.sampling_rate)
    except RemitError as error:
        raise RemitError(f"{name}: {error}") from None
    decimate_by = 1
    if ratio.numerator == 1 and lowpass_sos is not None:
        new_nyquist = settings.sampling_rate / 2
        if filters.zero_phase_gain(lowpass_sos, new_nyquist, raised_rate) <= _SAFE_GAIN:
            decimate_by, ratio = ratio.denominator, Fraction(1)

    # Whole and positive: the configuration refuses anything else.
    step = round((settings.window_seconds - settings.overlap_seconds) * settings.sampling_rate)
    return _Plan(
        source_rate=source_rate,
        upsample_factor=factor,
        upsample_linear=settings.upsample is not None and settings.upsample.method == "linear",
        sos=np.concatenate(sections) if sections else None,
        keeps_offset=settings.highpass is None,
        decimate_by=decimate_by,
        ratio=ratio,
        window=round(settings.window_seconds * settings.sampling_rate),
        step=step,
        rate=float(settings.sampling_rate),
    )


def _refuse_above_nyquist(settings: Preprocessing, source_rate: float, name: str) -> None:
    """No filter may ask for what the source cannot hold; raising the rate adds nothing above it."""
    wanted = []
    if settings.highpass:
        wanted.append(("highpass.cutoff_hz", settings.highpass.cutoff_hz))
    if settings.notch:
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


def _condition(raw_S: np.ndarray, plan: _Plan) -> np.ndarray:
    """Resample and filter one segment of one channel: float64 at the output rate.

    The segment's median is taken off first and put back unless a high-pass removes it: every step
    is linear and passes a constant, and an electrode's offset of 100 000 µV would otherwise show as
    ripple.
    """
    signal_S = raw_S.astype(np.float64)
    level = float(np.median(signal_S))
    signal_S -= level
    if plan.upsample_linear:
        signal_S = resample.upsample_linear(signal_S, plan.upsample_factor)
    else:
        signal_S = resample.polyphase(signal_S, plan.upsample_factor, 1)
    if plan.sos is not None:
        signal_S = filters.zero_phase(signal_S, plan.sos)
    if plan.decimate_by > 1:
        signal_S = resample.decimate(signal_S, plan.decimate_by)
    else:
        signal_S = resample.polyphase(signal_S, plan.ratio.numerator, plan.ratio.denominator)
    return signal_S + level if plan.keeps_offset else signal_S


def _cut(signal_S: np.ndarray, count: int, plan: _Plan, offset: str | None) -> np.ndarray:
    """Cut windows out of a segment and remove each one's offset: ``[windows, samples]``."""
    windows_WS = np.lib.stride_tricks.sliding_window_view(signal_S, plan.window)[:: plan.step][
        :count
    ]
    if offset == "mean":
        windows_WS = windows_WS - windows_WS.mean(axis=1, keepdims=True)
    elif offset == "median":
        windows_WS = windows_WS - np.median(windows_WS, axis=1, keepdims=True)
    return windows_WS


def _raw_spans(count: int, samples: int, plan: _Plan) -> tuple[np.ndarray, np.ndarray]:
    """First and end sample, at the source's rate, of the time that each window covers."""
    start_W = np.arange(count) * plan.step
    scale = plan.source_rate / plan.rate
    raw_start_W = np.minimum(np.rint(start_W * scale).astype(np.int64), samples - 1)
    raw_stop_W = np.minimum(np.rint((start_W + plan.window) * scale).astype(np.int64), samples)
    return raw_start_W, np.maximum(raw_stop_W, raw_start_W + 1)


def _dropped_seconds(segments: Sequence[Segment], counts: list[int], plan: _Plan) -> float:
    dropped = 0.0
    for segment, count in zip(segments, counts, strict=True):
        seconds = (segment.stop - segment.start) / plan.source_rate
        used = ((count - 1) * plan.step + plan.window) / plan.rate if count else 0.0
        dropped += max(0.0, seconds - used)
    return dropped
