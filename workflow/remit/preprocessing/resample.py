"""Changing the sampling rate of one channel of one contiguous segment.

Sample k of every result lies at the time k / rate after the segment's first sample, exactly: no
method here shifts the signal. A result has ``ceil(samples * up / down)`` samples, those whose time
lies before the end of the segment's last sample period. Beyond its ends a segment is continued by
its odd reflection.

Shape suffix: `S` samples.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil

import numpy as np
from scipy import signal

from remit.errors import RemitError

# The polyphase filter: flat to 0.9 of the lower Nyquist frequency, and 80 dB down from that Nyquist
# frequency on, so nothing folds back. (scipy.signal.resample_poly's default is 6 dB down there.)
# Kaiser (1974): beta = 0.1102 (A - 8.7), taps = (A - 7.95) / (2.285 * width).
_PASSBAND = 0.9
_STOPBAND_DB = 80.0
_KAISER_BETA = 0.1102 * (_STOPBAND_DB - 8.7)
_HALF_LENGTH = ceil((_STOPBAND_DB - 7.95) / (2.285 * np.pi * (1 - _PASSBAND)) / 2)
# Largest error of the rate where the ratio of two rates is no ratio of moderate whole numbers, and
# the largest such number: the filter has about 100 times as many taps.
_RATE_TOLERANCE = 1e-6
_LARGEST_FACTOR = 131072
_ALWAYS_EXACT = 4096  # up to here the filter is small, and no approximation is looked for


def rate_ratio(source_hz: float, target_hz: float) -> Fraction:
    """``target / source`` as a ratio of whole numbers, exact or to 1e-6 relative.

    Raises :class:`RemitError` where there is none with numbers up to 131072.
    """
    exact = Fraction(str(float(target_hz))) / Fraction(str(float(source_hz)))
    if max(exact.numerator, exact.denominator) <= _ALWAYS_EXACT:
        return exact
    below_one = min(exact, 1 / exact)
    limit = 16
    while limit <= _LARGEST_FACTOR:
        near = below_one.limit_denominator(limit)
        if near and abs(near / below_one - 1) <= _RATE_TOLERANCE:
            return near if exact <= 1 else 1 / near
        limit *= 2
    raise RemitError(
        f"the sampling rate {source_hz:.9g} Hz cannot be brought to {target_hz:.9g} Hz; expected a "
        f"ratio of whole numbers up to {_LARGEST_FACTOR}, exact to {_RATE_TOLERANCE:g}; correct "
        "the recording's rate or preprocessing.sampling_rate."
    )


def _continued(signal_S: np.ndarray, before: int, after: int) -> np.ndarray:
    """``signal_S`` with samples of its odd reflection before and after it."""
    first, last = signal_S[0], signal_S[-1]
    head = 2 * first - signal_S[before:0:-1]
    tail = 2 * last - signal_S[-2 : -after - 2 : -1]
    return np.concatenate([head, signal_S, tail])


def upsample_linear(signal_S: np.ndarray, factor: int) -> np.ndarray:
    """``[samples]`` -> ``[samples * factor]`` float64 by linear interpolation.

    Input samples are kept bit for bit at every ``factor``-th place. The last one has no successor:
    the ``factor - 1`` samples after it continue the line through the last two.
    """
    if factor == 1:
        return np.asarray(signal_S, dtype=np.float64)
    signal_S = np.asarray(signal_S, dtype=np.float64)
    next_S = np.append(signal_S[1:], 2 * signal_S[-1] - signal_S[max(len(signal_S) - 2, 0)])
    part = np.arange(factor) / factor
    raised: np.ndarray = signal_S[:, None] + (next_S - signal_S)[:, None] * part
    return raised.ravel()


@lru_cache(maxsize=2)
def _polyphase_filter(up: int, down: int) -> np.ndarray:
    longest = max(up, down)
    taps = 2 * _HALF_LENGTH * longest + 1
    cutoff = (1 + _PASSBAND) / 2 / longest
    response: np.ndarray = signal.firwin(taps, cutoff, window=("kaiser", _KAISER_BETA)) * up
    return response


def polyphase(signal_S: np.ndarray, up: int, down: int) -> np.ndarray:
    """``[samples]`` -> ``[ceil(samples * up / down)]`` float64 by an anti-aliased polyphase filter.

    A linear-phase FIR filter at ``up`` times the rate, its delay taken out exactly. A large
    constant should be taken off first: the filter leaves about 1e-4 of it as ripple.
    """
    signal_S = np.asarray(signal_S, dtype=np.float64)
    if up == down:
        return signal_S
    taps = _polyphase_filter(up, down)
    delay = len(taps) // 2
    padding = min(delay // up + 1, len(signal_S) - 1)
    # upfirdn gives every down-th sample from the first on; zeros before the taps move the sample
    # that belongs to the segment's first sample onto that raster.
    origin = padding * up + delay
    shift = -origin % down
    filtered: np.ndarray = signal.upfirdn(
        np.concatenate([np.zeros(shift), taps]),
        _continued(signal_S, padding, padding),
        up,
        down,
    )
    first = (origin + shift) // down
    return filtered[first : first + -(-len(signal_S) * up // down)]


def decimate(signal_S: np.ndarray, factor: int) -> np.ndarray:
    """Every ``factor``-th sample; only for a signal already low-pass filtered for the new rate."""
    return signal_S[::factor]
