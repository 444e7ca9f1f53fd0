"""Units: whatever a file's numbers are in, microvolts come out, or the file is refused.

A unit that the file, the sheet or the config states is taken at its word; without one, the size of
the numbers decides where it can. Either way the result must look like EEG: a damaged file read as
garbage is refused here, not scaled until it fits.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from remit.errors import RemitError

if TYPE_CHECKING:
    import numpy as np

# Microvolts in one of them.
MICROVOLTS = {
    "v": 1e6,
    "volt": 1e6,
    "volts": 1e6,
    "mv": 1e3,
    "millivolt": 1e3,
    "millivolts": 1e3,
    "uv": 1.0,
    "microv": 1.0,
    "microvolt": 1.0,
    "microvolts": 1.0,
    "nv": 1e-3,
    "nanovolt": 1e-3,
    "nanovolts": 1e-3,
}
COUNTS = {"count", "counts", "adc", "raw", "digital", "bit", "bits", "lsb", "adu"}
UNSTATED = {"", "n/a", "na", "none", "unknown", "-"}
# The typical amplitude is the median over channels of the SD within a second, in µV. A clean scalp
# EEG has about 12 µV (eegmat), Muse recordings 10 to 100; an amplifier that swings from rail to
# rail at every sample stays below 1000 (Muse: +-1000 µV).
PLAUSIBLE_UV = (0.1, 1000.0)
# What the numbers of a file without a unit must be like to tell it. The ranges leave gaps, for a
# guess that could go either way is none.
_TELLING = (("uV", 1.0, 1000.0), ("mV", 1e-3, 0.1), ("V", 1e-6, 1e-4))
_SAMPLED_BLOCKS = 60
_PIECE = 1 << 16
_FACTOR = re.compile(
    r"^([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*\*?\s*([a-zµμ]+)(?:\s*(?:/|per)\s*\w+)?$"
)


def parse(text: str) -> float | None:
    """Microvolts per number for 'uV', 'µV', 'mV', 'V', 'nV' or '0.02235 uV' (each count).

    None for anything else, counts included.
    """
    bare = text.strip().lower().replace("µ", "u").replace("μ", "u")
    if bare in MICROVOLTS:
        return MICROVOLTS[bare]
    found = _FACTOR.match(bare)
    if found and found[2] in MICROVOLTS:
        return float(found[1]) * MICROVOLTS[found[2]] or None
    return None


def typical_amplitude(signal_CS: np.ndarray, rate: float) -> float:
    """Median over channels of the SD within a second, in the numbers' own unit.

    At most 60 seconds, evenly spread, are looked at. NaN where a value is none.
    """
    import numpy as np

    block = max(2, min(round(rate), signal_CS.shape[1]))
    count = signal_CS.shape[1] // block
    if not count:
        return 0.0
    chosen = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED_BLOCKS)).round().astype(int))
    spread_BC = [
        signal_CS[:, first * block : (first + 1) * block].astype(np.float64).std(axis=1)
        for first in chosen
    ]
    return float(np.median(np.median(spread_BC, axis=0)))


def in_microvolts(
    signal_CS: np.ndarray, rate: float, stated: str | None, source: str
) -> tuple[np.ndarray, list[str]]:
    """float32 microvolts [C, S] of numbers in a stated or unstated unit, and what to say of it.

    `stated` is what file, sheet or config call the unit; `source` names the file in errors. Raises
    RemitError for a unit that is no voltage, for counts whose size is not stated, and for numbers
    without a unit that tell none.
    """
    import numpy as np

    stated = (stated or "").strip()
    notes = []
    if stated.lower() in UNSTATED:
        unit = _told_by_size(signal_CS, rate, source)
        notes.append(f"The file states no unit; by their size the numbers are taken as {unit}.")
    else:
        unit = stated
        if unit.lower() in COUNTS:
            raise RemitError(
                f"{source}: the numbers are raw counts ('{unit}'); expected a voltage; state the "
                "microvolts of one count as units, such as '0.02235 uV', in the cohort sheet or "
                "cohorts.<name>.units."
            )
    scale = parse(unit)
    if scale is None:
        raise RemitError(
            f"{source}: the unit '{unit}' is no voltage; expected uV, mV, V, nV or the microvolts "
            "of one count, such as '0.02235 uV'; state it as units in the cohort sheet or "
            "cohorts.<name>.units."
        )
    if stated and scale != 1.0:
        notes.append(f"The numbers are in '{unit}': {scale:g} microvolts each.")
    if scale == 1.0 and signal_CS.dtype == np.float32:
        return signal_CS, notes
    with np.errstate(over="ignore"):  # becomes infinite, which a recording refuses
        scaled_CS = np.multiply(signal_CS, scale, dtype=np.float64) if scale != 1.0 else signal_CS
        return scaled_CS.astype(np.float32), notes


def _told_by_size(signal_CS: np.ndarray, rate: float, source: str) -> str:
    amplitude = typical_amplitude(signal_CS, rate)
    counts = _whole(signal_CS)
    for unit, low, high in _TELLING:
        if low <= amplitude <= high and not counts:
            return unit
    what = ", and are whole: raw counts, it seems" if counts else ""
    raise RemitError(
        f"{source}: states no unit, and its numbers vary by {amplitude:.3g} within a second{what}; "
        "expected what EEG has in uV, mV or V; state units in the cohort sheet or "
        "cohorts.<name>.units, such as 'uV', or '0.02235 uV' for each count."
    )


def _whole(signal_CS: np.ndarray) -> bool:
    """Whether every number that is one is whole; looked at piece by piece."""
    import numpy as np

    if signal_CS.dtype.kind in "iub":
        return True
    for start in range(0, signal_CS.shape[1], _PIECE):
        piece_CS = signal_CS[:, start : start + _PIECE]
        known = np.isfinite(piece_CS)
        if not np.array_equal(piece_CS[known], np.round(piece_CS[known])):
            return False
    return True


def check_plausible(signal_CS: np.ndarray, rate: float, source: str) -> None:
    """Refuse microvolts that no EEG has; raises RemitError.

    Single channels may be flat or wild; that is for the quality of windows.
    """
    amplitude = typical_amplitude(signal_CS, rate)
    low, high = PLAUSIBLE_UV
    if math.isfinite(amplitude) and not low <= amplitude <= high:
        if not signal_CS.any():
            raise RemitError(
                f"{source}: every value of every EEG channel is 0; expected a signal; leave this "
                "recording out."
            )
        raise RemitError(
            f"{source}: the EEG varies by {amplitude:.3g} µV (SD within a second, median channel); "
            f"expected {low:g} to {high:g} µV; the file is damaged, or its unit or scaling is "
            "wrong; state its unit if the file does not, export it again, or leave it out."
        )
