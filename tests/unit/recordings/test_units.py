"""Whatever the unit, microvolts come out, or nothing does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recordings_made import one_line

from remit.recordings.units import check_plausible, in_microvolts, parse, typical_amplitude

RATE = 100.0


def eeg(scale: float = 1.0, channels: int = 3) -> np.ndarray:
    """20 µV of noise with a large offset, in another unit."""
    return (np.random.default_rng(0).standard_normal((channels, 3000)) * 20 + 800) * scale


@pytest.mark.parametrize(
    ("text", "microvolts"),
    [
        *(("uV", 1.0), ("µV", 1.0), ("μV", 1.0), ("microvolts", 1.0), (" uv ", 1.0)),
        *(("mV", 1e3), ("V", 1e6), ("volts", 1e6), ("nV", 1e-3)),
        *(
            ("0.02235 uV", 0.02235),
            ("0.488uV/count", 0.488),
            ("5e-7 V", 0.5),
            ("2.5 nV per bit", 2.5e-3),
        ),
        *(
            ("counts", None),
            ("Ohm", None),
            ("", None),
            ("uV2", None),
            ("0 uV", None),
            ("-1 uV", None),
        ),
    ],
)
def test_spellings(text: str, microvolts: float | None) -> None:
    found = parse(text)
    assert found == (None if microvolts is None else pytest.approx(microvolts))


@pytest.mark.parametrize("unit", ["uV", "mV", "V", "nV"])
def test_a_stated_unit_is_scaled(unit: str) -> None:
    scale = {"uV": 1.0, "mV": 1e-3, "V": 1e-6, "nV": 1e3}[unit]
    found, notes = in_microvolts(eeg(scale), RATE, unit, "file")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, eeg(), rtol=1e-5)
    assert bool(notes) == (unit != "uV")


@given(
    unit=st.sampled_from(["uV", "mV", "V"]),
    amplitude=st.floats(3.0, 80.0),
    offset=st.floats(-1e4, 1e4),
)
def test_an_unstated_unit_is_told_by_size(unit: str, amplitude: float, offset: float) -> None:
    signal_CS = np.random.default_rng(1).standard_normal((3, 1000)) * amplitude + offset
    scale = {"uV": 1.0, "mV": 1e-3, "V": 1e-6}[unit]
    found, notes = in_microvolts(signal_CS * scale, RATE, None, "file")
    np.testing.assert_allclose(found, signal_CS, rtol=1e-4, atol=1e-2)
    assert f"are taken as {unit}" in notes[0]


def test_raw_counts_need_their_size() -> None:
    counts = np.round(eeg(1e3))
    assert "raw counts ('ADC')" in one_line(lambda: in_microvolts(counts, RATE, "ADC", "file"))
    message = one_line(lambda: in_microvolts(counts, RATE, None, "file"))
    assert "are whole: raw counts, it seems" in message and "state units" in message
    found, notes = in_microvolts(counts, RATE, "0.001 uV", "file")
    np.testing.assert_allclose(found, eeg(), atol=0.01)
    assert notes == ["The numbers are in '0.001 uV': 0.001 microvolts each."]


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.float64])
def test_whole_numbers_are_counts_whatever_their_size_and_type(kind: type) -> None:
    counts = np.round(eeg()).astype(kind)  # as an amplifier of 12 bits gives them
    assert "raw counts" in one_line(lambda: in_microvolts(counts, RATE, None, "file"))
    found, _ = in_microvolts(counts, RATE, "uV", "file")
    np.testing.assert_array_equal(found, counts)


@pytest.mark.parametrize("amplitude", [0.7, 0.2, 1e-9, 5e6, 0.0])
def test_numbers_that_tell_no_unit_are_refused(amplitude: float) -> None:
    signal_CS = np.random.default_rng(1).standard_normal((3, 1000)) * amplitude
    assert "states no unit" in one_line(lambda: in_microvolts(signal_CS, RATE, "n/a", "file"))


def test_an_unknown_unit_is_refused() -> None:
    assert "'Ohm' is no voltage" in one_line(lambda: in_microvolts(eeg(), RATE, "Ohm", "file"))


def test_plausibility_is_that_of_the_median_channel() -> None:
    signal_CS = eeg().astype(np.float32)
    signal_CS[0] *= 1e4  # one wild, one dead channel: for the quality of windows
    signal_CS[1] = 0
    check_plausible(signal_CS, RATE, "file")
    assert "20" not in one_line(lambda: check_plausible(signal_CS[:1], RATE, "file"))[:4]
    assert "every EEG channel is 0" in one_line(
        lambda: check_plausible(signal_CS[1:2], RATE, "file")
    )


def test_drift_and_offset_are_no_amplitude() -> None:
    drift = np.linspace(-5000, 5000, 6000) + eeg(channels=1)[:, :1]
    assert typical_amplitude(drift, RATE) < 60
    assert typical_amplitude(eeg(), RATE) == pytest.approx(20, rel=0.1)
