"""Time measured from time stamps: the sampling rate, and where samples are missing.

Stamps lie. Those of muse-lsl are rounded to a millisecond, so that their median step says 250 Hz
where the truth is 256; one gap spoils an estimate from the whole span; Bluetooth delivers packets
late, so stamps jump forward by tens of milliseconds and back again although the samples are evenly
spaced; an app stamps whole packets with one time, or every row with the second; and a clock is set
back in the middle. Three facts help: samples are in order, a stamp can come late but never early,
and of rows that arrive together the last one is the least late. So a gap is a step of the *lower
envelope* of (stamp - row x period) that lasts, and the rate is the least-squares slope inside the
stretches between gaps.

Where a gap lies is known to the row if the stamps tell the rows around it apart. Rows that arrived
together, or share one coarse stamp, are not told apart: samples may be missing at their start or
anywhere among them. Unless the gap is longer than rows ever waited for each other in this file,
such rows at a gap belong to neither side: the segment ends before them, and the next one begins
behind them. Samples that are missing without a gap being found (GAP_PERIODS or fewer, or so few
that late packets hide them) are not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
# Rows nearer than this many periods to the one before arrived together with it.
TOGETHER_PERIODS = 0.4
# A measured rate this near to a device's own rate is the device's. Real files: within 0.01 %; the
# nearest wrong candidate, 250 Hz for 256 Hz, is 2.4 % away. In a short recording with late packets
# the rate is known less well, and the tolerance grows, up to the second number.
SNAP_TOLERANCE = 0.005
# Two statements of a rate this near to each other are of the same, rounded (as 1000/7 Hz is).
SAME_RATE = 0.005
SNAP_WIDEST = 0.01
# Below 100 Hz the file is a log of an app, not EEG; above 25 kHz the stamps are in another unit.
PLAUSIBLE_HZ = (100.0, 25_000.0)
# Fewer rows say nothing about time.
FEWEST_ROWS = 32
# After gaps are taken out, stamps further than this from a straight line follow no steady clock.
WANDER_SECONDS = 0.5
HOUR_SECONDS = 3600.0
_LAG_ROWS = 2400  # 9.4 s at 256 Hz, whole packets of 12: rounding and jitter are 1e-4 of it
_SHORT_LAG_ROWS = 96  # short enough to fit between the losses of a bad connection
_PASSES = 6
_SAME = 1e-3  # rates nearer to each other than this lead to the same reading of the stamps
_WELL_PERIODS = 1.0  # an envelope that strays by less on average leaves nothing to look for
# Where stamps share values, a gap hides inside the rows of one stamp; so does its exact place.
_SLACK_ROWS = 2 * round(ENVELOPE_ROWS * ENVELOPE_PERCENTILE / 100)


@dataclass(frozen=True)
class Timing:
    """What the stamps say: rate in Hz, contiguous segments, and a sentence for each finding.

    The segments leave out rows of which it is unknown on which side of a gap they lie.
    `restarts`: rows at which the stamps jump back for good.
    """

    sampling_rate: float
    segments: tuple[Segment, ...]
    notes: tuple[str, ...]
    restarts: tuple[int, ...] = ()


@dataclass(frozen=True)
class _Fit:
    """One reading of the stamps: seconds per row, where stretches start, and how well it fits."""

    period: float
    starts: tuple[int, ...]
    restarts: tuple[int, ...]
    low_S: np.ndarray  # how late the last row is that arrived together with this one, seconds
    last_S: np.ndarray  # the last of the rows that arrived together with this one
    sure: tuple[int, ...]  # per stretch: first row after those whose companions may be missing
    stray: float  # mean distance of `low_S` from its median in each stretch, seconds

    @property
    def bounds(self) -> list[tuple[int, int]]:
        return list(zip(self.starts, [*self.starts[1:], self.low_S.size], strict=True))


def same_rate(one: float, other: float) -> bool:
    """Whether two rates in Hz, each stated or measured, are the same within SAME_RATE."""
    return abs(one / other - 1) <= SAME_RATE


def measure(stamps_S: np.ndarray, device_rates: Sequence[float], source: str) -> Timing:
    """Measure rate and gaps from one time stamp per row, float64 seconds [S], in the file's order.

    `device_rates` are rates in Hz that devices really have; the measured rate becomes the nearest
    of them within SNAP_TOLERANCE. Stamps that jump back for good are a clock that was set or
    started anew: the rows after it are a segment of their own, placed directly behind the rows
    before it. `source` names the file in errors. Raises RemitError for too few rows, for stamps
    that do not advance or follow no steady clock, and for a rate outside PLAUSIBLE_HZ.
    """

    rows = stamps_S.size
    if rows < FEWEST_ROWS:
        raise RemitError(
            f"{source}: holds {rows} rows; expected at least {FEWEST_ROWS}, to measure the "
            "sampling rate; leave this recording out."
        )
    time_S = stamps_S - stamps_S[0]
    rough = _rough(time_S)
    if rough <= 0:
        raise RemitError(
            f"{source}: the time stamps do not advance; expected seconds that grow from row to "
            "row; export the recording again."
        )
    fit = _best_fit(time_S, rough, device_rates)
    _check_rate(1.0 / fit.period, source)
    _check_steady(fit, source)

    measured = 1.0 / fit.period
    device = min(device_rates, key=lambda rate: abs(rate - measured))
    longest = max(stop - start for start, stop in fit.bounds) * fit.period
    tolerance = min(SNAP_WIDEST, SNAP_TOLERANCE + fit.stray / longest)
    known = abs(measured / device - 1) <= tolerance
    rate = float(device) if known else measured
    notes = [f"The time stamps give {measured:.3f} Hz; {rate:.6g} Hz is used."]
    if not known:
        devices = some_of((f"{each:g}" for each in device_rates), 20)
        notes.append(
            f"This is the rate of no known device ({devices} Hz); samples may be missing evenly."
        )
    segments, found = _segments(stamps_S, fit, rate)
    notes += [*found, *_disorder(stamps_S, fit.bounds)]
    return Timing(rate, segments, tuple(notes), fit.restarts)


def cut_missing(
    segments: Sequence[Segment], missing_S: np.ndarray, rate: float
) -> tuple[tuple[Segment, ...], np.ndarray, list[str]]:
    """Take out rows without samples: the segments of what remains, the rows kept, and a note.

    `missing_S`: bool [S], rows that have a time but lack a sample. Each stretch of them ends a
    segment; time goes on meanwhile. The segments returned count the kept rows only. Their onsets
    keep the recording's clock, shifted so that the first kept row is at 0.
    """
    import numpy as np

    from remit.recordings.recording import Segment

    kept_S = ~missing_S
    if kept_S.all():
        return tuple(segments), kept_S, []
    before_S = np.concatenate([[0], np.cumsum(kept_S)])
    cut: list[Segment] = []
    stretches = 0
    for segment in segments:
        edges = np.diff(
            np.concatenate([[0], kept_S[segment.start : segment.stop], [0]]).astype(int)
        )
        firsts = np.flatnonzero(edges == 1) + segment.start
        stops = np.flatnonzero(edges == -1) + segment.start
        stretches += 1 + firsts.size - int(kept_S[segment.start]) - int(kept_S[segment.stop - 1])
        for first, stop in zip(firsts.tolist(), stops.tolist(), strict=True):
            onset = segment.onset_seconds + (first - segment.start) / rate
            cut.append(Segment(int(before_S[first]), int(before_S[stop]), onset))
    origin = cut[0].onset_seconds if cut else 0.0
    moved = tuple(
        Segment(each.start, each.stop, round(each.onset_seconds - origin, 6)) for each in cut
    )
    missing = int(missing_S.sum())
    note = (
        f"{missing} rows lack a sample of some channel ({missing / rate:.3f} s in {stretches} "
        "stretches); they are left out, and each stretch ends a segment."
    )
    return moved, kept_S, [note]


def _check_rate(measured: float, source: str) -> None:
    if measured < PLAUSIBLE_HZ[0]:
        raise RemitError(
            f"{source}: the time stamps give {measured:.4g} samples per second; expected at least "
            f"{PLAUSIBLE_HZ[0]:g} Hz and stamps in seconds: a log at this rate holds no EEG "
            "spectrum; record at the device's full rate, or correct the unit of the stamps."
        )
    if measured > PLAUSIBLE_HZ[1]:
        raise RemitError(
            f"{source}: the time stamps give {measured:.4g} samples per second; expected at most "
            f"{PLAUSIBLE_HZ[1]:g} Hz and stamps in seconds; correct the unit of the stamps."
        )


def _best_fit(time_S: np.ndarray, rough: float, device_rates: Sequence[float]) -> _Fit:
    """The reading of the stamps that leaves the least unexplained.

    The first guess is from long lags. Where it fits badly, samples may be lost so often that every
    long lag holds a gap: then guesses from short lags and the devices' own rates are tried too.
    """
    short = _guess(time_S, rough, _SHORT_LAG_ROWS)
    first = _guess(time_S, rough, _LAG_ROWS)
    best = _fit(time_S, short if first > 1.2 * short else first, short)
    if best.stray <= _WELL_PERIODS * best.period or short > 2 / PLAUSIBLE_HZ[0]:
        return best
    others = [1 / rate for rate in device_rates if 0.8 < 1 / rate / best.period < 1.05]
    for period in [short, *others]:
        if abs(period / best.period - 1) < _SAME:
            continue
        fit = _fit(time_S, period, short)
        if fit.stray < 0.75 * best.stray:
            best = fit
    return best


def _rough(time_S: np.ndarray) -> float:
    """Seconds per row to within some per cent, or a number below 0 where time does not advance."""
    import numpy as np

    found = []
    for lag_rows in (_LAG_ROWS, _SHORT_LAG_ROWS):
        lag = max(1, min(lag_rows, time_S.size // 8))
        found.append(float(np.median(time_S[lag:] - time_S[:-lag])) / lag)
    if found[0] < 0:
        return found[0]
    # Few different stamps: the median of a short lag is 0 where the mean is not.
    return min((each for each in found if each > 0), default=float(time_S[-1]) / time_S.size)


def _guess(time_S: np.ndarray, rough: float, lag_rows: int) -> float:
    """Seconds per row from pairs of rows that each were the last to arrive together."""
    import numpy as np

    last_S = _last_together(time_S, rough)
    ends = np.flatnonzero(last_S == np.arange(last_S.size))[:-1]
    if ends.size < 4:
        return rough
    apart = max(1, min(round(lag_rows * ends.size / time_S.size), ends.size // 8))
    seconds = time_S[ends[apart:]] - time_S[ends[:-apart]]
    guess = float(np.median(seconds / (ends[apart:] - ends[:-apart])))
    return guess if guess > 0 else rough


def _last_together(time_S: np.ndarray, period: float) -> np.ndarray:
    """For each row the last of the rows that arrived together with it, int [S], never falling."""
    import numpy as np

    step_S = np.diff(time_S)
    together_S = (step_S < TOGETHER_PERIODS * period) & (step_S > -GAP_PERIODS * period)
    row_S = np.arange(time_S.size)
    row_S[:-1][together_S] = time_S.size
    last_S: np.ndarray = np.minimum.accumulate(row_S[::-1])[::-1]
    return last_S


def _fit(time_S: np.ndarray, period: float, short: float) -> _Fit:
    """Alternate between finding gaps and measuring the rate between them until both stay.

    `period` is where to begin; `short`, the guess from short lags, tells who arrived together.
    """
    import numpy as np

    row_S = np.arange(time_S.size)
    seen: tuple[int, ...] | None = None
    last_S = _last_together(time_S, min(period, short))
    for _ in range(_PASSES):
        low_S = (time_S - row_S * period)[last_S]
        starts, restarts = _cuts(time_S, low_S, last_S, period)
        bounds = list(zip(starts, [*starts[1:], time_S.size], strict=True))
        sure = tuple(_sure(last_S, start, stop) for start, stop in bounds)
        again = _slope(low_S + row_S * period, bounds, sure, period)
        settled = seen == starts and abs(again / period - 1) < 1e-6
        period, seen = again, starts
        if settled:
            break
    low_S = (time_S - row_S * period)[last_S]
    away = rows = 0.0
    for (start, _), stop in zip(bounds, sure, strict=True):
        away += float(np.abs(low_S[start:stop] - np.median(low_S[start:stop])).sum())
        rows += stop - start
    return _Fit(period, starts, restarts, low_S, last_S, sure, away / rows)


def _sure(last_S: np.ndarray, start: int, stop: int) -> int:
    """Where the rows begin that arrived together at a stretch's end, for some may be missing."""
    import numpy as np

    first = start + int(np.searchsorted(last_S[start:stop], last_S[stop - 1]))
    return first if first - start >= FEWEST_ROWS else stop


def _cuts(
    time_S: np.ndarray, low_S: np.ndarray, last_S: np.ndarray, period: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """First row of each stretch, and those of them where the clock was set back."""
    import numpy as np

    limit = GAP_PERIODS * period
    ending = int(np.searchsorted(last_S, last_S[-1]))  # rows that arrived together at the end
    # Some that belong to them may be missing, which makes the last of them seem late.
    ends = np.flatnonzero(last_S == np.arange(last_S.size))
    unsure = float(np.percentile(np.diff(ends, prepend=-1), 90)) * period
    starts, restarts = [0], []
    levels = [-np.inf]  # of the envelope before each start
    for row in (np.flatnonzero(np.abs(np.diff(low_S)) > limit) + 1).tolist():
        if row <= starts[-1]:
            continue
        before, after = _around(low_S, starts[-1], row)
        recent_S = low_S[max(starts[-1], row - 4 * ENVELOPE_ROWS) : row]
        latest = max(limit, float(recent_S.max()) - before)  # how late rows lately came
        few = time_S.size - row < ENVELOPE_ROWS // 2  # too few to show whether it lasts
        most = limit + latest if few else limit
        if after - before > (most + unsure if row == ending else most):
            level = min(after - limit / 2, before + latest)  # rows below are not behind the gap
            early = np.flatnonzero(low_S[row : row + _SLACK_ROWS] < level)
            start = row + int(early[-1]) + 1 if 0 < early.size < _SLACK_ROWS // 2 else row
            starts.append(start)
            levels.append(before)
        elif before - after > limit:
            first = max(starts[-1], row - _SLACK_ROWS)
            steps = np.diff(time_S[first : row + ENVELOPE_ROWS])
            start = first + int(np.argmin(steps)) + 1
            before, after = _around(low_S, starts[-1], start)
            if float(steps.min()) < -limit and before - after > limit:
                starts.append(start)
                restarts.append(start)
                levels.append(np.inf)
            elif abs(levels[-1] - after) <= limit:
                starts.pop()  # what seemed lost came late
                levels.pop()
            # Else rows came late for a while, and then no longer.
    return tuple(starts), tuple(restarts)


def _around(low_S: np.ndarray, start: int, row: int) -> tuple[float, float]:
    """The envelope before and after a row of the stretch that begins at `start`, in seconds."""
    before = _envelope(low_S[max(start, row - ENVELOPE_ROWS) : row])
    return before, _envelope(low_S[row : row + ENVELOPE_ROWS])


def _envelope(late_S: np.ndarray) -> float:
    import numpy as np

    rank = int(late_S.size * ENVELOPE_PERCENTILE / 100)
    return float(np.partition(late_S, rank)[rank])


def _slope(
    time_S: np.ndarray, bounds: list[tuple[int, int]], sure: Sequence[int], period: float
) -> float:
    """Least-squares seconds per row, one slope for all stretches, each with its own offset."""
    import numpy as np

    product = square = 0.0
    for (start, _), stop in zip(bounds, sure, strict=True):
        row = np.arange(stop - start) - (stop - start - 1) / 2
        product += float(row @ time_S[start:stop])
        square += float(row @ row)
    return product / square if square and product > 0 else period


def _check_steady(fit: _Fit, source: str) -> None:
    import numpy as np

    block = ENVELOPE_ROWS // 2
    for (start, _), stop in zip(fit.bounds, fit.sure, strict=True):
        late_S = fit.low_S[start:stop] - np.median(fit.low_S[start:stop])
        for first in range(0, late_S.size, block):
            wander = float(np.median(late_S[first : first + block]))
            if abs(wander) > WANDER_SECONDS:
                raise RemitError(
                    f"{source}: near row {start + first + 1} the time stamps are {wander:.2f} s "
                    f"off a steady rate of {1 / fit.period:.4g} Hz; expected evenly sampled rows; "
                    "export the recording again."
                )


def _segments(
    stamps_S: np.ndarray, fit: _Fit, rate: float
) -> tuple[tuple[Segment, ...], list[str]]:
    """The stretches with their onsets in seconds, and a sentence for each gap and restart."""
    import numpy as np

    from remit.recordings.recording import Segment

    wait = _longest_wait(fit)
    segments: list[Segment] = []
    notes = []
    dropped = shift = end = 0.0
    for (start, stop), sure in zip(fit.bounds, fit.sure, strict=True):
        offset = float(np.median(fit.low_S[start:sure])) + start * fit.period
        begin = start
        if start == 0:
            shift = -offset
        elif start in fit.restarts:
            shift = end - offset
            back = float(stamps_S[start - 1] - stamps_S[start])
            notes.append(
                f"The clock is set back by {back:.3f} s at row {start + 1}, after {end:.3f} s of "
                "recording: how much time passed there is unknown, and what follows is placed "
                "directly behind."
            )
        else:
            gap = offset + shift - end
            hour = (
                ", an hour: perhaps only the clock was set forward"
                if abs(gap - HOUR_SECONDS) < 1
                else ""
            )
            notes.append(f"Gap of {gap:.3f} s after {end:.3f} s{hour}.")
            if gap <= wait:
                begin = _told_apart(fit, start, stop)
                dropped += begin - start
        onset = max(offset + shift, end)
        end = onset + (stop - start) / rate
        if begin < stop:
            onset += (begin - start) / rate
            segments.append(Segment(begin, stop, round(onset, 6)))
    if dropped:
        notes.append(
            f"{dropped:.0f} rows that arrived together at a gap are left out: on which side of it "
            "each lies is unknown."
        )
    return tuple(segments), notes


def _longest_wait(fit: _Fit) -> float:
    """Seconds that a row may have waited for the last of those that it arrived together with.

    A longer gap cannot lie among rows that arrived together.
    """
    import numpy as np

    ends = np.flatnonzero(fit.last_S == np.arange(fit.last_S.size))
    late = max(
        float(fit.low_S[start:stop].max() - _envelope(fit.low_S[start:stop]))
        for (start, _), stop in zip(fit.bounds, fit.sure, strict=True)
    )
    return float(np.diff(ends, prepend=-1).max()) * fit.period + late


def _told_apart(fit: _Fit, start: int, stop: int) -> int:
    """First row of a stretch behind a gap that certainly lies behind it.

    Until one row is as early as those that follow, all may have been sent before the gap. Of those
    that arrived together with it, that is known of the last one only.
    """
    import numpy as np

    level = _envelope(fit.low_S[start : min(stop, start + ENVELOPE_ROWS)])
    early = fit.low_S[start:stop] <= level + GAP_PERIODS * fit.period
    first = start + int(np.argmax(early))
    last = int(fit.last_S[first])
    return first if last == first else last + 1


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
