"""Zero-phase filters for one channel of one contiguous segment.

Butterworth and notch filters as second-order sections, run forwards and backwards in float64. The
padding is as long as the filter rings, so that a segment's edge leaves no transient in its first
window. Knows arrays and rates; which filters are wanted is the chain's business.

Shape suffix: `S` samples.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import signal

# The padding ends where the impulse response has fallen to this part of its start. For the default
# high-pass (0.5 Hz, order 2) that is 4.1 s; scipy's own default is a few milliseconds.
_SETTLED = 1e-4


def butterworth(
    kind: Literal["highpass", "lowpass"], cutoff_hz: float, order: int, rate: float
) -> np.ndarray:
    """Second-order sections ``[sections, 6]`` of a Butterworth filter at ``rate`` Hz."""
    return np.atleast_2d(signal.butter(order, cutoff_hz, kind, fs=rate, output="sos"))


def notch(frequency_hz: float, quality: float, rate: float) -> np.ndarray:
    """Second-order sections ``[1, 6]`` of a notch; ``quality`` is frequency / width at -3 dB."""
    return np.atleast_2d(signal.tf2sos(*signal.iirnotch(frequency_hz, quality, fs=rate)))


def settling_samples(sos: np.ndarray) -> int:
    """Samples until the impulse response of ``sos`` has died away, from its slowest pole."""
    slowest = max(float(np.abs(np.roots(section[3:])).max(initial=0.0)) for section in sos)
    if slowest <= 0.0:
        return 2 * len(sos)
    return int(np.ceil(np.log(_SETTLED) / np.log(slowest))) + 2 * len(sos)


def zero_phase(signal_S: np.ndarray, sos: np.ndarray) -> np.ndarray:
    """Filter ``[samples]`` forwards and backwards; float64, same length, no shift in time.

    The gain is the square of one pass's: -6 dB at a Butterworth cut-off. Beyond its ends the signal
    is continued by its mirror image, at most as far as it is long. (The more usual odd reflection
    pivots on the very first sample: if that is the crest of an alpha wave, the padding stands off
    by twice the wave, and a high-pass turns it into a drift. Windows of real EEG filtered alone are
    off by 0.04-0.06 of their SD against the whole recording with the mirror image, by 0.13-0.16
    with the odd reflection, whatever its length.)
    """
    padding = min(settling_samples(sos), len(signal_S) - 1)
    filtered_S: np.ndarray = signal.sosfiltfilt(sos, signal_S, padtype="even", padlen=padding)
    return filtered_S


def zero_phase_gain(sos: np.ndarray, frequency_hz: float, rate: float) -> float:
    """The amplitude gain of :func:`zero_phase` at one frequency in Hz."""
    _, response = signal.freqz_sos(sos, worN=[frequency_hz], fs=rate)
    return float(np.abs(response[0]) ** 2)
