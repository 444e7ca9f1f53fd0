"""Time measured from time stamps: the sampling rate, and where samples are missing.

Stamps lie. Those of muse-lsl are rounded to a millisecond, so that their median step says 250 Hz
where the truth is 256; one gap spoils an estimate from the whole span; and where Bluetooth delivers
packets late, stamps jump forward by tens of milliseconds and back again although the samples are
evenly spaced. Two facts help: samples are in order, and a stamp can come late but never early. So
a gap is a step of the *lower envelope* of (stamp - row x period) that lasts, and the rate is the
least-squares slope inside the stretches between gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from remit.errors import RemitError, some_of

if TYPE_CHECKING:
    import numpy as np

    from remit.recordings.recording import Segment

# A step of more than this many sample periods is a gap. At 256 Hz it is 20 ms: less than half of
# the smallest loss over Bluetooth (a Muse packet, 12 samples, 47 ms), and more than the envelope
# of the most disordered real file wanders (13 ms; its single stamps jump by 58 ms).
GAP_PERIODS = 5.0
# Rows on each side of a jump that show whether it lasts: 2 s at 256 Hz, so that a packet delivered
# up to a second late and then caught up is not taken for a gap.
ENVELOPE_ROWS = 512
ENVELOPE_PERCENTILE = 5.0
# A measured rate this near to a device's own rate is the device's. Real files: within 0.01 %; the
# nearest wrong candidate, 250 Hz for 256 Hz, is 2.4 % away.
SNAP_TOLERANCE = 0.005
# Below 100 Hz the file is a log of an app, not EEG; above 2000 Hz the stamps are in another unit.
PLAUSIBLE_HZ = (100.0, 2000.0)
# Fewer rows say nothing about time.
FEWEST_ROWS = 32
# After gaps are taken out, stamps further than this from a straight line follow no steady clock.
WANDER_SECONDS = 0.5
_LAG_ROWS = 2400  # 9.4 s at 256 Hz, whole packets of 12: rounding and jitter are 1e-4 of it
_PASSES = 4


@dataclass(frozen=True)
class Timing:
    """What the stamps say: rate in Hz, contiguous segments, and a sentence for each finding."""

    sampling_rate: float
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]


def measure(stamps_S: np.ndarray, device_rates: Sequence[float], source: str) -> Timing:
    """Measure rate and gaps from one time stamp per row, float64 seconds [S], in the file's order.

    `device_rates` are rates in Hz that devices really have; the measured rate becomes the nearest
    of them within SNAP_TOLERANCE. `source` names the file in errors. Raises RemitError for too few
    rows, for stamps that do not advance, that jump back for good (a clock that restarted) or that
    follow no steady clock, and for a rate outside PLAUSIBLE_HZ.
    """
    import numpy as np

    from remit.recordings.recording import Segment

    rows = stamps_S.size
    if rows < FEWEST_ROWS:
        raise RemitError(
            f"{source}: holds {rows} rows; expected at least {FEWEST_ROWS}, to measure the "
            "sampling rate; leave this recording out."
        )
    time_S = stamps_S - stamps_S[0]
    lag = max(1, min(_LAG_ROWS, rows // 8))
    period = float(np.median(time_S[lag:] - time_S[:-lag])) / lag
    if period <= 0:
        raise RemitError(
            f"{source}: the time stamps do not advance; expected seconds that grow from row to "
            "row; export the recording again."
        )
    bounds = _bounds(time_S, period, source)
    for _ in range(_PASSES):
        period = _slope(time_S, bounds)
        again = _bounds(time_S, period, source)
        if again == bounds:
            break
        bounds = again
    _check_steady(time_S, bounds, period, source)

    measured = 1.0 / period
    device = min(device_rates, key=lambda rate: abs(rate - measured))
    rate = float(device) if abs(measured / device - 1) <= SNAP_TOLERANCE else measured
    if not PLAUSIBLE_HZ[0] <= rate <= PLAUSIBLE_HZ[1]:
        raise RemitError(
            f"{source}: the time stamps give {measured:.4g} samples per second; expected "
            f"{PLAUSIBLE_HZ[0]:g} to {PLAUSIBLE_HZ[1]:g} Hz and stamps in seconds; record at the "
            "device's full rate or correct the stamps."
        )
    notes = [f"The time stamps give {measured:.3f} Hz; {rate:.6g} Hz is used."]
    if rate != device:
        devices = some_of(f"{known:g}" for known in device_rates)
        notes.append(
            f"This is the rate of no known device ({devices} Hz); samples may be missing evenly."
        )
    onsets = [
        float(np.median(time_S[start:stop] - np.arange(stop - start) * period))
        for start, stop in bounds
    ]
    segments = tuple(
        Segment(start, stop, round(onset - onsets[0], 6))
        for (start, stop), onset in zip(bounds, onsets, strict=True)
    )
    for before, after in pairwise(segments):
        end = before.onset_seconds + (before.stop - before.start) / rate
        notes.append(f"Gap of {after.onset_seconds - end:.3f} s after {end:.3f} s.")
    notes += _disorder(stamps_S, bounds)
    return Timing(rate, segments, tuple(notes))


def _bounds(time_S: np.ndarray, period: float, source: str) -> list[tuple[int, int]]:
    """First and last (exclusive) row of each contiguous stretch."""
    import numpy as np

    late_S = time_S - np.arange(time_S.size) * period
    limit = GAP_PERIODS * period
    starts = [0]
    for row in np.flatnonzero(np.abs(np.diff(late_S)) > limit) + 1:
        before = np.percentile(late_S[max(0, row - ENVELOPE_ROWS) : row], ENVELOPE_PERCENTILE)
        after = np.percentile(late_S[row : row + ENVELOPE_ROWS], ENVELOPE_PERCENTILE)
        if after - before < -limit:
            raise RemitError(
                f"{source}: at row {row + 1} the time stamps jump back by {before - after:.3f} s "
                "and stay there (the clock was set, or rows are repeated); expected one clock; "
                "cut the file there into two recordings."
            )
        if after - before > limit:
            starts.append(int(row))
    return list(zip(starts, [*starts[1:], time_S.size], strict=True))


def _slope(time_S: np.ndarray, bounds: list[tuple[int, int]]) -> float:
    """Least-squares seconds per row, one slope for all stretches, each with its own offset."""
    import numpy as np

    product = square = 0.0
    for start, stop in bounds:
        row = np.arange(stop - start) - (stop - start - 1) / 2
        product += float(row @ time_S[start:stop])
        square += float(row @ row)
    return product / square if square and product > 0 else float(time_S[-1]) / (time_S.size - 1)


def _check_steady(
    time_S: np.ndarray, bounds: list[tuple[int, int]], period: float, source: str
) -> None:
    import numpy as np

    block = ENVELOPE_ROWS // 2
    for start, stop in bounds:
        late_S = time_S[start:stop] - np.arange(stop - start) * period
        late_S -= np.median(late_S)
        for first in range(0, late_S.size, block):
            wander = float(np.median(late_S[first : first + block]))
            if abs(wander) > WANDER_SECONDS:
                raise RemitError(
                    f"{source}: near row {start + first + 1} the time stamps are {wander:.2f} s "
                    f"off a steady rate of {1 / period:.4g} Hz; expected evenly sampled rows; "
                    "export the recording again."
                )


def _disorder(stamps_S: np.ndarray, bounds: list[tuple[int, int]]) -> list[str]:
    import numpy as np

    steps_S = np.concatenate([np.diff(stamps_S[start:stop]) for start, stop in bounds])
    back = int((steps_S < 0).sum())
    same = int((steps_S == 0).sum())
    if not back and not same:
        return []
    return [
        f"{back} time stamps run backwards (by up to {max(0.0, -float(steps_S.min())):.3f} s) and "
        f"{same} repeat: packets arrived late; the samples are placed by their order."
    ]
