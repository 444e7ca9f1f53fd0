"""What makes a window bad, seen on the raw samples: flat, clipped, lost or repeated, noisy.

Filtering hides these, so they are looked for before it. Windows are marked here, never dropped.

Shape suffixes: `C` channels, `S` samples, `W` windows, `F` frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

# Bands in Hz of the spectral ratios: the EEG proper, muscle above it, and what counts as mains.
EEG_BAND = (1.0, 30.0)
MUSCLE_BAND = (30.0, 100.0)
_MAINS_HALF_WIDTH = 1.0
_FLATNESS_BINS = 16  # averaged, for a single bin of noise is anything
_FLAT_LAG_SECONDS = 0.002
# A value is a rail, too, when it makes up this part of the outermost hundredth or thousandth.
_RAIL_PART = 0.5
_FEWEST_AT_RAIL = 5
_SORTED_SAMPLES = 50_000
# Packets of a device have up to this many samples (Muse: 12); a repeated one is looked for.
_LONGEST_PACKET = 32
_SHORTEST_PACKET = 6
_BLOCK_WINDOWS = 64  # transformed at a time


def flat_samples(raw_S: np.ndarray, flat_uv: float, flat_seconds: float, rate: float) -> np.ndarray:
    """Which samples ``[samples]`` of a contiguous segment lie in a flat stretch (bool).

    A stretch is flat where samples 2 ms apart (successive ones, below 750 Hz) differ by no more than
    ``flat_uv`` µV for at least ``flat_seconds``.
    """
    lag = max(1, round(_FLAT_LAG_SECONDS * rate))
    least = max(1, ceil(flat_seconds * rate - 1e-9) - lag + 1)  # differences
    flat_S = np.zeros(len(raw_S), dtype=bool)
    for start, stop in _runs(np.abs(raw_S[lag:] - raw_S[:-lag]) <= flat_uv, least):
        flat_S[start : stop + lag] = True  # a run of n differences spans n + lag samples
    return flat_S


def rails(pieces: Sequence[np.ndarray]) -> tuple[float | None, float | None]:
    """The lowest and the highest value of a channel over its segments, where it clips there.

    A value that an amplifier cannot pass is met again and again: the value that makes up half of
    the outermost samples and comes twice as often as the next inside it, so that a glitch beyond a
    rail does not hide it; or else the extreme, when it occurs more than once. A channel that never
    moves is flat, not clipped: None.
    """
    low = min(float(piece_S.min()) for piece_S in pieces)
    high = max(float(piece_S.max()) for piece_S in pieces)
    if low == high:
        return None, None
    at_low = sum(int(np.count_nonzero(piece_S == low)) for piece_S in pieces)
    at_high = sum(int(np.count_nonzero(piece_S == high)) for piece_S in pieces)
    total = sum(len(piece_S) for piece_S in pieces)
    stride = max(1, total // _SORTED_SAMPLES)
    sorted_S = np.sort(np.concatenate([piece_S[::stride] for piece_S in pieces]))
    found_low, found_high = _rail(sorted_S), _rail(sorted_S[::-1])
    return (
        found_low if found_low is not None else (low if at_low > 1 else None),
        found_high if found_high is not None else (high if at_high > 1 else None),
    )


def _rail(sorted_S: np.ndarray) -> float | None:
    """The value that makes up half of the first hundredth or thousandth of sorted samples."""
    for part in (0.01, 0.001):
        outer_S = sorted_S[: int(len(sorted_S) * part)]
        if len(outer_S) < _FEWEST_AT_RAIL:
            break
        values, counts = np.unique(outer_S, return_counts=True)
        most = int(np.argmax(counts))
        if counts[most] < max(_FEWEST_AT_RAIL, _RAIL_PART * len(outer_S)):
            continue
        rail = values[most]
        stop = int(np.flatnonzero(sorted_S == rail)[-1]) + 1
        inner = sorted_S[stop] if stop < len(sorted_S) else None
        # Coarse steps alone pile up too, but less and less outwards.
        if inner is None or np.count_nonzero(sorted_S == rail) >= 2 * np.count_nonzero(
            sorted_S == inner
        ):
            return float(rail)
    return None


def clipped_samples(raw_S: np.ndarray, low: float | None, high: float | None) -> np.ndarray:
    """Which samples ``[samples]`` stand at or beyond one of the channel's :func:`rails` (bool)."""
    clipped = np.zeros(len(raw_S), dtype=bool)
    if low is not None:
        clipped |= raw_S <= low
    if high is not None:
        clipped |= raw_S >= high
    return clipped


def fraction_per_window(
    marked_S: np.ndarray, start_W: np.ndarray, stop_W: np.ndarray
) -> np.ndarray:
    """The marked part of samples ``[start, stop)`` for every window: float64 ``[windows]``."""
    if not marked_S.any():
        return np.zeros(len(start_W))
    running = np.concatenate([[0], np.cumsum(marked_S)])
    fraction_W: np.ndarray = (running[stop_W] - running[start_W]) / (stop_W - start_W)
    return fraction_W


def repeated_samples(raw_CS: np.ndarray) -> np.ndarray:
    """Which samples of a contiguous segment repeat what came before on all channels: bool [S].

    Either the last sample again (held), long enough that chance is no explanation for so many
    channels, or a whole packet again, of 6 to 32 samples.
    """
    num_channels, samples = raw_CS.shape
    repeated_S = np.zeros(samples, dtype=bool)
    # Successive samples of coarsely digitised EEG agree by chance in a tenth of cases or more.
    for lag, least in (
        (1, max(1, ceil(6 / num_channels))),
        *((lag, lag) for lag in range(_SHORTEST_PACKET, _LONGEST_PACKET + 1)),
    ):
        if samples <= lag:
            break
        same = raw_CS[0, lag:] == raw_CS[0, :-lag]
        if lag > 1:
            same &= ~repeated_S[lag:]  # what is held repeats at any lag
        for row_S in raw_CS[1:]:
            if not _may_run(same, least):
                break
            same &= row_S[lag:] == row_S[:-lag]
        for first, stop in _runs(same, least):
            repeated_S[first + lag : stop + lag] = True
    return repeated_S


def _may_run(marked_S: np.ndarray, least: int) -> bool:
    """Whether there may be a run of ``least`` True; quick where there is none, never wrong then.

    Such a run holds a multiple of ``least``, and half of it lies on one side of that.
    """
    right = left = np.flatnonzero(marked_S[::least]) * least
    last = len(marked_S) - 1
    for step in range(1, least // 2):
        if not (right.size or left.size):
            break
        right = right[marked_S[np.minimum(right + step, last)]]
        left = left[marked_S[np.maximum(left - step, 0)]]
    return bool(right.size or left.size)


def _runs(marked_S: np.ndarray, least: int) -> list[tuple[int, int]]:
    """First and end (exclusive) place of each run of at least ``least`` True."""
    if not _may_run(marked_S, least):
        return []
    edges = np.diff(np.concatenate([[0], marked_S.astype(np.int8), [0]]))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    long = stops - starts >= least
    return list(zip(starts[long].tolist(), stops[long].tolist(), strict=True))


def spectral_ratios(
    raw_S: np.ndarray, start_W: np.ndarray, length: int, rate: float, mains_hz: float | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise over EEG, in power, and flatness of each window of one channel: three float64 [W].

    The first is the mains (within 1 Hz of it; of 50 or 60 Hz, whichever is more, where the mains is
    not known) and the second what lies at 30 to 100 Hz without the mains, both divided by the power
    at 1 to 30 Hz. The third is the spectral flatness from 1 Hz to 0.45 of the rate without the
    mains, geometric over arithmetic mean of the power in bands of 16 bins: white noise, as of
    damaged bytes, has 0.92 to 0.97, Muse recordings 0.23 in the median and 0.87 at most. NaN where
    the rate does not reach so far or there is no signal at all.
    """
    frequency_F = np.fft.rfftfreq(length, 1 / rate)
    eeg_F = (frequency_F >= EEG_BAND[0]) & (frequency_F <= EEG_BAND[1])
    lines = (50.0, 60.0) if mains_hz is None else (mains_hz,)
    mains_F = [np.abs(frequency_F - line) <= _MAINS_HALF_WIDTH for line in lines]
    near_mains_F = np.logical_or.reduce(
        [
            np.abs(frequency_F - harmonic * line) <= 2 * _MAINS_HALF_WIDTH
            for line in lines
            for harmonic in (1, 2)
        ]
    )
    top = min(MUSCLE_BAND[1], 0.45 * rate)
    muscle_F = (frequency_F > MUSCLE_BAND[0]) & (frequency_F <= top) & ~near_mains_F
    measurable = rate / 2 >= max(lines) + _MAINS_HALF_WIDTH
    taper_S = np.hanning(length)  # float64: numpy's transforms of float32 are slower
    band_F = np.flatnonzero(
        (frequency_F >= EEG_BAND[0]) & (frequency_F <= 0.45 * rate) & ~near_mains_F
    )
    band_F = band_F[: len(band_F) // _FLATNESS_BINS * _FLATNESS_BINS]
    sums = np.full((3, len(start_W)), np.nan)
    flatness_W = np.full(len(start_W), np.nan)
    for first in range(0, len(start_W), _BLOCK_WINDOWS):
        rows = slice(first, first + _BLOCK_WINDOWS)
        windows_WS = np.lib.stride_tricks.sliding_window_view(raw_S, length)[start_W[rows]]
        windows_WS = (windows_WS - windows_WS.mean(axis=1, keepdims=True)) * taper_S
        spectrum_WF = np.fft.rfft(windows_WS, axis=1)
        power_WF = spectrum_WF.real**2 + spectrum_WF.imag**2
        sums[0, rows] = power_WF[:, eeg_F].sum(axis=1)
        if measurable:
            sums[1, rows] = np.max([power_WF[:, line].sum(axis=1) for line in mains_F], axis=0)
        if muscle_F.any():
            sums[2, rows] = power_WF[:, muscle_F].sum(axis=1)
        if len(band_F) >= 4 * _FLATNESS_BINS:
            bands = power_WF[:, band_F].reshape(len(power_WF), -1, _FLATNESS_BINS).mean(axis=2)
            mean_W = bands.mean(axis=1)
            some = mean_W > 0
            with np.errstate(divide="ignore"):  # a band without any power: flatness 0
                log_W = np.log(bands[some]).mean(axis=1)
            flatness_W[np.arange(len(start_W))[rows][some]] = np.exp(log_W) / mean_W[some]
    there = sums[0] > 0
    ratios = np.divide(sums[1:], sums[0], out=np.full((2, len(start_W)), np.nan), where=there)
    return ratios[0], ratios[1], flatness_W
