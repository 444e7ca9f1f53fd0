"""What the filters leave of each frequency: the gains that the chain multiplies spectra with.

All are the gains of digital Butterworth and notch filters run forwards and backwards (zero phase:
the square of one pass's), in closed form: the bilinear transform maps a frequency f to
tan(pi f / rate) (Oppenheim and Schafer, Discrete-Time Signal Processing, 3rd ed., 7.2), and a notch
is the second-order section of Orfanidis (Introduction to Signal Processing, 1996, 11.3). Knows
frequencies and rates; which filters are wanted is the chain's business.

Shape suffix: `F` frequencies.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

# A filter has settled when its impulse response has fallen to this part of its start.
_SETTLED = 1e-5


def butterworth_gain(
    kind: Literal["highpass", "lowpass"],
    cutoff_hz: float,
    order: int,
    rate: float,
    frequency_F: np.ndarray,
) -> np.ndarray:
    """Zero-phase amplitude gain, float64 [F], of a Butterworth filter at ``rate`` Hz.

    0.5 (-6 dB) at the cut-off; frequencies from 0 to ``rate`` / 2.
    """
    with np.errstate(over="ignore", divide="ignore"):
        warped_F = np.tan(np.pi * frequency_F / rate) / np.tan(np.pi * cutoff_hz / rate)
        power_F = np.abs(warped_F) ** (2 * order)
        gain_F: np.ndarray = 1 / (1 + (power_F if kind == "lowpass" else 1 / power_F))
    return gain_F


def notch_gain(
    frequency_hz: float, quality: float, rate: float, frequency_F: np.ndarray
) -> np.ndarray:
    """Zero-phase amplitude gain, float64 [F], of a notch; ``quality`` is frequency / width (-3 dB)."""
    centre = 2 * np.pi * frequency_hz / rate
    angle_F = 2 * np.pi * frequency_F / rate
    passed_F = (np.cos(angle_F) - np.cos(centre)) ** 2
    stopped_F = (np.tan(centre / quality / 2) * np.sin(angle_F)) ** 2
    whole_F = passed_F + stopped_F
    gain_F: np.ndarray = np.divide(passed_F, whole_F, out=np.ones_like(whole_F), where=whole_F > 0)
    return gain_F


def butterworth_settling_seconds(cutoff_hz: float, order: int) -> float:
    """Seconds until the slowest pole of a Butterworth filter has died away."""
    decay = 2 * np.pi * cutoff_hz * np.sin(np.pi / (2 * order))
    return float(-np.log(_SETTLED) / decay)


def notch_settling_seconds(frequency_hz: float, quality: float) -> float:
    """Seconds until a notch has died away."""
    return float(-np.log(_SETTLED) * quality / (np.pi * frequency_hz))
