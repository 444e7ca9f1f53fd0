"""Zero-phase filters against closed forms and an independent filter."""

import numpy as np
import pytest
from scipy import signal

from remit.preprocessing import filters

RATE = 512.0


def test_butterworth_gain_is_the_squared_closed_form() -> None:
    sos = filters.butterworth("lowpass", 60.0, 4, RATE)

    def warped(frequency: float) -> float:  # the bilinear transform's frequency axis
        return float(np.tan(np.pi * frequency / RATE))

    for frequency in (5.0, 30.0, 60.0, 90.0, 128.0):
        expected = 1 / (1 + (warped(frequency) / warped(60.0)) ** 8)
        assert filters.zero_phase_gain(sos, frequency, RATE) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("frequency", [5.0, 40.0, 60.0, 80.0])
def test_sine_comes_out_with_the_squared_gain_and_no_shift(frequency: float) -> None:
    seconds = np.arange(int(20 * RATE)) / RATE
    sine = np.sin(2 * np.pi * frequency * seconds + 0.3)
    sos = filters.butterworth("lowpass", 60.0, 4, RATE)
    expected = filters.zero_phase_gain(sos, frequency, RATE) * sine
    middle = slice(int(2 * RATE), int(-2 * RATE))
    np.testing.assert_allclose(filters.zero_phase(sine, sos)[middle], expected[middle], atol=1e-9)


@pytest.mark.parametrize(("kind", "cutoff", "order"), [("lowpass", 60.0, 4), ("highpass", 0.5, 2)])
def test_agrees_with_mne(kind: str, cutoff: float, order: int) -> None:
    mne = pytest.importorskip("mne")
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(int(60 * RATE))
    design = {"order": order, "ftype": "butter"}
    limits = (None, cutoff) if kind == "lowpass" else (cutoff, None)
    theirs = mne.filter.filter_data(
        noise, RATE, *limits, method="iir", iir_params=design, phase="zero", verbose="error"
    )
    ours = filters.zero_phase(noise, filters.butterworth(kind, cutoff, order, RATE))  # type: ignore[arg-type]
    middle = slice(int(20 * RATE), int(-20 * RATE))
    np.testing.assert_allclose(ours[middle], theirs[middle], atol=1e-6)


def test_agrees_with_filtfilt_in_transfer_function_form() -> None:
    noise = np.random.default_rng(2).standard_normal(4096)
    numerator, denominator = signal.butter(4, 60.0, fs=RATE)
    reference = signal.filtfilt(numerator, denominator, noise, padlen=500)
    ours = filters.zero_phase(noise, filters.butterworth("lowpass", 60.0, 4, RATE))
    np.testing.assert_allclose(ours[100:-100], reference[100:-100], atol=1e-9)


def test_notch_takes_out_its_frequency_and_little_else() -> None:
    sos = filters.notch(50.0, 30.0, RATE)
    assert filters.zero_phase_gain(sos, 50.0, RATE) < 1e-12
    assert filters.zero_phase_gain(sos, 45.0, RATE) > 0.96
    assert filters.zero_phase_gain(sos, 55.0, RATE) > 0.96


def test_padding_lasts_as_long_as_the_filter_rings() -> None:
    for sos in (
        filters.butterworth("highpass", 0.5, 2, RATE),
        filters.butterworth("lowpass", 60.0, 4, RATE),
        filters.notch(50.0, 30.0, RATE),
    ):
        length = filters.settling_samples(sos)
        impulse = np.zeros(8 * length)
        impulse[0] = 1.0
        response = np.abs(signal.sosfilt(sos, impulse))
        assert response[length:].max() < 1e-3 * response.max()
    assert filters.settling_samples(filters.butterworth("highpass", 0.5, 2, RATE)) > 4 * RATE


def test_a_signal_shorter_than_the_padding_is_filtered() -> None:
    sos = filters.butterworth("highpass", 0.5, 2, RATE)
    assert np.isfinite(filters.zero_phase(np.ones(20), sos)).all()
