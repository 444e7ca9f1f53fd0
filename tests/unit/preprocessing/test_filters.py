"""The filters' gains against scipy's designs of the same filters."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from remit.preprocessing import filters

RATE = 512.0


def twice(sos: np.ndarray, frequency_F: np.ndarray, rate: float) -> np.ndarray:
    """Amplitude gain of second-order sections run forwards and backwards."""
    return np.abs(signal.freqz_sos(sos, worN=frequency_F, fs=rate)[1]) ** 2


@given(
    kind=st.sampled_from(["highpass", "lowpass"]),
    cutoff=st.floats(0.1, 200.0),
    order=st.integers(1, 12),
    rate=st.sampled_from([440.0, 512.0, 1000.0]),
)
def test_butterworth_is_scipys(kind: str, cutoff: float, order: int, rate: float) -> None:
    frequency_F = np.linspace(0.01, rate / 2 - 0.01, 500)
    sos = signal.butter(order, cutoff, kind, fs=rate, output="sos")
    ours = filters.butterworth_gain(kind, cutoff, order, rate, frequency_F)  # type: ignore[arg-type]
    # scipy's own sections lose digits where a high-pass of high order has its poles at 1.
    np.testing.assert_allclose(ours, twice(sos, frequency_F, rate), atol=2e-5)


def test_butterworth_at_its_ends_and_its_cut_off() -> None:
    ends = np.array([0.0, 60.0, RATE / 2])
    low = filters.butterworth_gain("lowpass", 60.0, 4, RATE, ends)
    high = filters.butterworth_gain("highpass", 60.0, 4, RATE, ends)
    np.testing.assert_allclose(low, [1.0, 0.5, 0.0], atol=1e-12)
    np.testing.assert_allclose(high, [0.0, 0.5, 1.0], atol=1e-12)


@given(frequency=st.floats(5.0, 200.0), quality=st.floats(2.0, 60.0))
def test_notch_is_scipys(frequency: float, quality: float) -> None:
    frequency_F = np.concatenate([[0.0, RATE / 2], np.linspace(0.5, RATE / 2 - 0.5, 500)])
    sos = signal.tf2sos(*signal.iirnotch(frequency, quality, fs=RATE))
    ours = filters.notch_gain(frequency, quality, RATE, frequency_F)
    np.testing.assert_allclose(ours, twice(sos, frequency_F, RATE), atol=1e-7)
    assert filters.notch_gain(frequency, quality, RATE, np.array([frequency]))[0] < 1e-12


@pytest.mark.parametrize(("kind", "cutoff", "order"), [("lowpass", 60.0, 4), ("highpass", 0.5, 2)])
def test_settling_lasts_as_long_as_the_filter_rings(kind: str, cutoff: float, order: int) -> None:
    sos = signal.butter(order, cutoff, kind, fs=RATE, output="sos")
    length = int(filters.butterworth_settling_seconds(cutoff, order) * RATE)
    impulse = np.zeros(4 * length)
    impulse[0] = 1.0
    response = np.abs(signal.sosfilt(sos, impulse))
    assert response[length:].max() < 1e-3 * response.max()


def test_a_notch_settles() -> None:
    length = int(filters.notch_settling_seconds(50.0, 30.0) * RATE)
    impulse = np.zeros(4 * length)
    impulse[0] = 1.0
    response = np.abs(signal.lfilter(*signal.iirnotch(50.0, 30.0, fs=RATE), impulse))
    assert response[length:].max() < 1e-3 * response.max()
