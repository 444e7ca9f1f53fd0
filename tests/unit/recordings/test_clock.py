"""Time is measured from the stamps, through rounding, gaps, late packets and lies."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings.clock import cut_missing, measure
from remit.recordings.recording import Segment

DEVICES = (256.0, 220.0)


def stamps(rate: float, seconds: float, start: float = 1542733533.231) -> np.ndarray:
    return start + np.arange(round(rate * seconds)) / rate


@pytest.mark.parametrize("rate", [256.0, 220.0])
def test_three_decimals_do_not_hide_the_rate(rate: float) -> None:
    rounded_S = np.round(stamps(rate, 20), 3)
    timing = measure(rounded_S, DEVICES, "x.csv")
    assert timing.sampling_rate == rate
    assert len(timing.segments) == 1


def test_a_gap_ends_a_segment_and_does_not_touch_the_rate() -> None:
    stamps_S = stamps(256, 60)
    stamps_S[5000:] += 1160.4
    timing = measure(np.round(stamps_S, 3), DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0
    assert [(s.start, s.stop) for s in timing.segments] == [(0, 5000), (5000, 15360)]
    assert timing.segments[1].onset_seconds == pytest.approx(5000 / 256 + 1160.4, abs=1e-3)
    assert any("Gap of 1160.4" in note for note in timing.notes)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_gap_is_found_where_it_is(data: st.DataObject) -> None:
    rows = 6000
    at = data.draw(st.lists(st.integers(100, rows - 100), max_size=4, unique=True))
    at = sorted(row for i, row in enumerate(sorted(at)) if i == 0 or row - sorted(at)[i - 1] > 50)
    missing = data.draw(st.lists(st.integers(12, 100_000), min_size=len(at), max_size=len(at)))
    index = np.arange(rows, dtype=float)
    for row, samples in zip(at, missing, strict=True):
        index[row:] += samples
    timing = measure(np.round(1.5e9 + index / 256, 3), DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0
    assert [segment.start for segment in timing.segments] == [0, *at]
    for segment in timing.segments:
        assert segment.onset_seconds == pytest.approx(index[segment.start] / 256, abs=2e-3)


def test_packets_that_arrive_late_leave_no_gap() -> None:
    stamps_S = stamps(256, 60)
    stamps_S[3000:3150] = stamps_S[3150]  # a stall of 0.6 s, then everything at once
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0 and len(timing.segments) == 1
    assert any("repeat" in note for note in timing.notes)


def test_a_rate_of_no_device_is_measured_and_said() -> None:
    timing = measure(stamps(500, 10), DEVICES, "x.csv")
    assert timing.sampling_rate == pytest.approx(500, rel=1e-6)
    assert any("no known device" in note for note in timing.notes)


@pytest.mark.parametrize(
    ("stamps_S", "says"),
    [
        (stamps(1, 600), "1 samples per second"),
        (stamps(256, 10) * 1000, "0.256 samples per second"),
        (np.zeros(1000), "do not advance"),
        (stamps(256, 10)[::-1], "do not advance"),
        (stamps(256, 0.1), "holds 26 rows"),
        (stamps(60, 60), "60 samples per second"),
        (np.cumsum(np.linspace(1 / 512, 1 / 128, 20000)), "off a steady rate"),
    ],
)
def test_stamps_that_tell_no_time_are_refused(stamps_S: np.ndarray, says: str) -> None:
    message = one_line(lambda: measure(stamps_S, DEVICES, "x.csv"))
    assert message.startswith("x.csv: ") and says in message


def true_index(
    data: st.DataObject, rows: int, apart: int, least: int = 1
) -> tuple[np.ndarray, list[int]]:
    """Sample numbers of the rows that arrived, with `least` packets of 12 or more lost here and there."""
    places = st.integers(30, rows // 12 - 30).map(lambda packet: packet * 12)
    at: list[int] = []
    for row in sorted(data.draw(st.lists(places, max_size=4, unique=True))):
        if not at or row - at[-1] >= apart:
            at.append(row)
    index = np.arange(rows, dtype=float)
    for row in at:
        index[row:] += 12 * data.draw(st.integers(least, 10_000))
    return index, at


def check(
    stamps_S: np.ndarray, rate: float, index: np.ndarray, at: list[int], by: int, group: int
) -> None:
    """Rate and segments are right, and no gap lies inside a segment.

    Segments end within `by` rows of the gaps; those of up to `group` rows that cannot be told apart
    there are left out. Onsets are right to a packet.
    """
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert timing.sampling_rate == rate
    segments = timing.segments
    assert segments[0].start == 0 and segments[-1].stop == stamps_S.size
    for true in at:
        assert min(abs(each.stop - true) for each in segments) <= by
        assert not any(each.start < true < each.stop for each in segments)
    for before, after in pairwise(segments):
        # A late packet before a gap may be cut off on its own.
        assert 0 <= after.start - before.stop <= group
        assert min(abs(before.stop - true) for true in at) <= by
    for segment in segments:
        true_S = index[segment.start] / rate
        assert segment.onset_seconds == pytest.approx(true_S, abs=max(by, 12) / rate)
    assert by or len(segments) == len(at) + 1
    left_out = sum(after.start - before.stop for before, after in pairwise(segments))
    said = [note for note in timing.notes if f"{left_out} rows that arrived together" in note]
    assert len(said) == bool(left_out)


@settings(max_examples=30)
@given(st.data(), st.sampled_from(DEVICES))
def test_jitter_and_rounding_do_not_matter(data: st.DataObject, rate: float) -> None:
    index, at = true_index(data, 6000, 60)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    jitter_S = rng.exponential(data.draw(st.sampled_from([0.0, 0.0005, 0.002])), index.size)
    check(np.round(1.5e9 + index / rate + jitter_S, 3), rate, index, at, 0, 3)


@settings(max_examples=30)
@given(st.data(), st.sampled_from(DEVICES), st.booleans())
def test_one_stamp_for_each_packet(data: st.DataObject, rate: float, drifting: bool) -> None:
    index, at = true_index(data, 6000, 120)
    stamps_S = 1.5e9 + (index // 12) * 12 / rate
    if drifting:  # as an app that takes a moment for each row of a packet
        stamps_S += index % 12 * 0.0004
    check(np.round(stamps_S, 3), rate, index, at, 0, 12)


@settings(max_examples=30)
@given(st.data(), st.sampled_from(DEVICES))
def test_packets_that_arrive_when_they_can(data: st.DataObject, rate: float) -> None:
    # One lost packet (47 ms) may drown in delays of up to 100 ms; two do not.
    index, at = true_index(data, 9000, 1800, least=2)
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    packets = index.size // 12
    due_S = index[11::12] / rate
    late_S = rng.uniform(0, 0.015, packets) + (rng.random(packets) < 0.03) * rng.uniform(0, 0.1)
    arrived_S = np.maximum.accumulate(due_S + late_S)
    check(np.round(1.5e9 + np.repeat(arrived_S, 12), 3), rate, index, at, 60, 72)


@settings(max_examples=40)
@given(st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from(DEVICES), st.floats(0, 1), st.data())
def test_stamps_may_be_coarse(step: float, rate: float, phase: float, data: st.DataObject) -> None:
    rows = data.draw(st.integers(5000, 20_000))
    index = np.arange(rows, dtype=float)
    gap = data.draw(st.integers(3000, rows - 2000)) if data.draw(st.booleans()) else None
    if gap is not None:
        index[gap:] += rate * data.draw(st.integers(5, 1000))
    stamps_S = np.floor((index / rate + phase) / step) * step
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert timing.sampling_rate == rate
    burst = step * rate
    starts = [segment.start for segment in timing.segments]
    # A stretch cut short inside a stamp may be told apart from the rest before it.
    assert all(min(abs(start - true) for true in (0, gap or 0)) <= burst + 1 for start in starts)
    assert gap is None or len(starts) >= 2
    assert gap is None or not any(each.start < gap < each.stop for each in timing.segments)
    for segment in timing.segments:
        true = index[segment.start] / rate
        assert segment.onset_seconds == pytest.approx(true, abs=step + 0.05)


@settings(max_examples=30)
@given(st.data(), st.sampled_from(DEVICES), st.sampled_from(["smooth", "packets"]))
def test_a_clock_that_restarts_is_a_new_segment(
    data: st.DataObject, rate: float, kind: str
) -> None:
    rows = 8000
    at = data.draw(st.integers(150, 500)) * 12
    back = data.draw(st.floats(1.0, 1e6))
    index = np.arange(rows) if kind == "smooth" else np.arange(rows) // 12 * 12
    stamps_S = 1.5e9 + index / rate
    stamps_S[at:] -= back
    timing = measure(np.round(stamps_S, 3), DEVICES, "x.csv")
    assert timing.sampling_rate == rate
    assert timing.restarts == (at,)
    assert [(s.start, s.stop) for s in timing.segments] == [(0, at), (at, rows)]
    assert timing.segments[1].onset_seconds == pytest.approx(at / rate, abs=1e-3)
    assert any("how much time passed there is unknown" in note for note in timing.notes)


def test_restarts_and_gaps_together() -> None:
    stamps_S = stamps(256, 120)
    stamps_S[9000:] -= 20
    stamps_S[15000:] += 300
    stamps_S[20000:] -= 500
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert timing.restarts == (9000, 20000)
    onsets = [segment.onset_seconds for segment in timing.segments]
    assert onsets == pytest.approx([0, 9000 / 256, 15000 / 256 + 300, 20000 / 256 + 300], abs=1e-3)


def test_packets_lost_all_the_time_do_not_spoil_the_rate() -> None:
    rng = np.random.default_rng(5)
    kept = np.repeat(rng.random(2500) > 0.05, 12)
    index = np.arange(kept.size)[kept]
    timing = measure(np.round(1.5e9 + index / 256, 3), DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0
    runs = np.flatnonzero(np.diff(index) > 1) + 1
    assert [segment.start for segment in timing.segments] == [0, *runs]
    for segment in timing.segments:
        true = (index[segment.start] - index[0]) / 256
        assert segment.onset_seconds == pytest.approx(true, abs=0.2)


def test_a_long_stall_that_is_caught_up_leaves_no_gap() -> None:
    stamps_S = stamps(256, 120)
    stamps_S[5000:5768] = stamps_S[5768]  # 3 s, then everything at once
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0 and len(timing.segments) == 1


def test_an_hour_exactly_may_be_the_clock() -> None:
    stamps_S = stamps(256, 60)
    stamps_S[5000:] += 3600
    timing = measure(stamps_S, DEVICES, "x.csv")
    assert any("an hour: perhaps only the clock" in note for note in timing.notes)


@settings(max_examples=40)
@given(st.data(), st.sampled_from(DEVICES), st.booleans())
def test_no_gap_inside_a_burst_is_joined(data: st.DataObject, rate: float, flushed: bool) -> None:
    """Bursts of 48 rows, by time of arrival or by number; a packet of 12 is lost inside of one."""
    rows = 9600
    at = 48 * data.draw(st.integers(40, 160)) + 12 * data.draw(st.integers(0, 3))
    lost = 12 * data.draw(st.integers(1, 3))
    index = np.arange(rows + lost) if not flushed else np.arange(rows)
    if flushed:
        index[at:] += lost
        burst = np.arange(rows) // 48
    else:
        index = np.delete(index, np.arange(at, at + lost))
        burst = index // 48
    last = np.searchsorted(burst, np.arange(burst[-1] + 1), side="right") - 1
    stamps_S = np.round(1.5e9 + (index[last] if flushed else 48 * np.arange(last.size)) / rate, 3)
    timing = measure(stamps_S[burst], DEVICES, "x.csv")
    assert timing.sampling_rate == rate
    assert not any(each.start < at < each.stop for each in timing.segments)
    assert [each.start for each in timing.segments[:1]] == [0] and len(timing.segments) == 2
    before, after = timing.segments
    assert at - 48 < before.stop <= at <= after.start <= at + 48 and after.stop == rows
    assert after.onset_seconds == pytest.approx(index[after.start] / rate, abs=0.05 + 48 / rate)
    assert any("rows that arrived together at a gap" in note for note in timing.notes)


def test_a_gap_inside_a_second_is_not_joined() -> None:
    index = np.arange(12_000, dtype=float)
    index[7000:] += 60
    timing = measure(np.floor(index / 256 + 0.297), DEVICES, "x.csv")
    assert timing.sampling_rate == 256.0
    before, after = timing.segments
    assert (before.start, before.stop) == (0, 6836) and after.stop == 12_000
    assert 7000 < after.start <= 6836 + 256 - 60
    assert after.onset_seconds == pytest.approx(index[after.start] / 256, abs=0.05)


@settings(max_examples=50)
@given(st.lists(st.booleans(), min_size=10, max_size=60), st.integers(1, 9))
def test_missing_rows_are_cut_out_and_time_goes_on(missing: list[bool], middle: int) -> None:
    missing_S = np.array(missing)
    rows = missing_S.size
    whole = (Segment(0, middle, 0.0), Segment(middle, rows, 100.0))
    segments, kept_S, notes = cut_missing(whole, missing_S, 10.0)
    np.testing.assert_array_equal(kept_S, ~missing_S)
    time_S = np.where(
        np.arange(rows) < middle, np.arange(rows) / 10, 100 + (np.arange(rows) - middle) / 10
    )
    kept = np.flatnonzero(~missing_S)
    covered = [row for segment in segments for row in range(segment.start, segment.stop)]
    assert covered == list(range(kept.size))
    for segment in segments:
        rows_S = kept[segment.start : segment.stop]
        np.testing.assert_array_equal(np.diff(rows_S), 1)
        expected = time_S[rows_S[0]] - time_S[kept[0]]
        assert segment.onset_seconds == pytest.approx(expected, abs=1e-6)
        assert not any(row == middle for row in rows_S[1:])
    assert bool(notes) == bool(missing_S.any())
