"""Which frequency the mains has in a recording: stated, or seen in its spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from remit.recordings.recording import Recording

MAINS_HZ = (50.0, 60.0)
# The mains stands out when the density within 0.5 Hz of it is at least this many times that of its
# neighbours (2 to 6 Hz away), in the median channel: 3 dB. In 17 Muse recordings without mains the
# largest was 1.5 (1.7 dB).
STANDS_OUT = 2.0
_BLOCK_SECONDS = 4.0
_MOST_BLOCKS = 150  # ten minutes, evenly spread


def mains_of(recording: Recording) -> tuple[float | None, str]:
    """Frequency of the mains in Hz, None where nothing tells it; and a sentence that says why."""
    if recording.mains_hz is not None:
        return recording.mains_hz, f"Mains at {recording.mains_hz:g} Hz, as the recording states."
    ratios = prominence(recording, MAINS_HZ)
    found = max(ratios, key=lambda hz: ratios[hz])
    shown = ", ".join(
        f"{ratio:.2g} at {hz:g} Hz" if ratio else f"{hz:g} Hz is beyond the recording's reach"
        for hz, ratio in ratios.items()
    )
    if ratios[found] >= STANDS_OUT:
        return found, f"Mains at {found:g} Hz, seen in the spectrum (over its neighbours: {shown})."
    return None, f"No mains is stated or stands out of the spectrum (over its neighbours: {shown})."


def prominence(recording: Recording, frequencies_hz: Sequence[float]) -> dict[float, float]:
    """Density at each frequency over that of its neighbours, in the median channel; 0 if unknown."""
    rate = recording.sampling_rate
    size = round(_BLOCK_SECONDS * rate)
    starts = [
        start
        for segment in recording.segments
        for start in range(segment.start, segment.stop - size + 1, size)
    ]
    ratios = dict.fromkeys(frequencies_hz, 0.0)
    if not starts:
        return ratios
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(len(starts), _MOST_BLOCKS)).astype(int))
    taper_S = np.hanning(size)
    density_CF = np.zeros((len(recording.channels), size // 2 + 1))
    for index in chosen:
        block_CS = recording.signal_CS[:, starts[index] : starts[index] + size]
        block_CS = (block_CS - block_CS.mean(axis=1, keepdims=True)) * taper_S
        spectrum_CF = np.fft.rfft(block_CS, axis=1)
        density_CF += spectrum_CF.real**2 + spectrum_CF.imag**2
    frequency_F = np.fft.rfftfreq(size, 1 / rate)
    for hertz in ratios:
        if hertz + 1.0 > rate / 2:
            continue
        away_F = np.abs(frequency_F - hertz)
        at_C = density_CF[:, away_F <= 0.5].mean(axis=1)
        beside_F = (away_F >= 2.0) & (away_F <= 6.0)
        if hertz + 6.5 > rate / 2:  # an anti-alias filter may have taken those above it
            beside_F &= frequency_F < hertz
        near_C = np.median(density_CF[:, beside_F], axis=1)
        heard = near_C > 0
        if heard.any():
            ratios[hertz] = float(np.median(at_C[heard] / near_C[heard]))
    return ratios
