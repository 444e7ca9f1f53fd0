"""Time is measured from the stamps, through rounding, gaps, late packets and lies."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings.clock import measure

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
        (np.concatenate([stamps(256, 30), stamps(256, 10)]), "jump back by 30.0"),
        (np.cumsum(np.linspace(1 / 512, 1 / 128, 20000)), "off a steady rate"),
    ],
)
def test_stamps_that_tell_no_time_are_refused(stamps_S: np.ndarray, says: str) -> None:
    message = one_line(lambda: measure(stamps_S, DEVICES, "x.csv"))
    assert message.startswith("x.csv: ") and says in message
