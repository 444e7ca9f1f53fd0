"""Filtering and resampling in one step, against analytic sines and scipy's steps one by one."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from remit.errors import RemitError
from remit.preprocessing import filters, resample
from remit.preprocessing.resample import Conditioner


def sine(samples: int, rate: float, frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(samples) / rate + 0.4)


def to(source: float, target: float, **others: object) -> Conditioner:
    return Conditioner(source, resample.rate_ratio(source, target), **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "target"),
    [(500.0, 256.0), (250.0, 256.0), (220.0, 256.0), (256.0, 512.0), (512.0, 256.0)],
)
def test_a_sine_keeps_its_values_and_times(source: float, target: float) -> None:
    out = to(source, target)(sine(int(20 * source), source, 17.0))
    assert len(out) == int(20 * target)
    expected = sine(len(out), target, 17.0)
    middle = slice(int(2 * target), int(-2 * target))
    np.testing.assert_allclose(out[middle], expected[middle], atol=2e-3)


def test_nothing_aliases_and_the_rest_stays() -> None:
    for frequency in (128.5, 140.0, 180.0, 200.0, 240.0):
        out = to(500.0, 256.0)(sine(10000, 500.0, frequency))
        assert np.abs(out[512:-512]).max() < 3e-4, frequency
    for frequency in (1.0, 60.0, 114.0):
        out = to(500.0, 256.0)(sine(10000, 500.0, frequency))
        assert np.abs(out[512:-512]).max() == pytest.approx(1.0, abs=2e-3), frequency


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("linear", [False, True])
def test_it_is_scipys_steps_one_by_one(factor: int, linear: bool) -> None:
    """Upsample, filter forwards and backwards, leave samples out: the long way."""
    rate, raised = 250.0, 250.0 * factor
    noise = np.random.default_rng(1).standard_normal(int(80 * rate))
    if linear:
        steps = np.arange(len(noise) * factor) / factor
        long = np.interp(steps, np.arange(len(noise)), noise)
    else:
        long = signal.resample(noise, len(noise) * factor)
    high = signal.butter(2, 0.5, "highpass", fs=raised, output="sos")
    low = signal.butter(4, 60.0, "lowpass", fs=raised, output="sos")
    long = signal.sosfiltfilt(low, signal.sosfiltfilt(high, long))[::factor]

    def gain(frequency_F: np.ndarray) -> np.ndarray:
        high_F = filters.butterworth_gain("highpass", 0.5, 2, raised, frequency_F)
        return high_F * filters.butterworth_gain("lowpass", 60.0, 4, raised, frequency_F)

    settling = filters.butterworth_settling_seconds(0.5, 2)
    ours = Conditioner(rate, Fraction(1), gain, settling, factor if linear else 0)(noise)
    middle = slice(int(20 * rate), int(-20 * rate))
    # Leaving samples out folds what the low-pass left of the line's images, 0.002 at most.
    np.testing.assert_allclose(ours[middle], long[middle], atol=0.01 if linear else 1e-4)


def test_lines_between_samples_are_lines() -> None:
    """At the raised rate, nothing is left out and everything can be compared."""
    noise = np.random.default_rng(2).standard_normal(400)
    ours = Conditioner(100.0, Fraction(3), interpolation_factor=3)(noise)
    expected = np.interp(np.arange(1198) / 3, np.arange(400), noise)
    np.testing.assert_allclose(ours[:1198], expected, atol=1e-9)


def test_the_ends_of_a_level_stretch_do_not_ring() -> None:
    out = to(500.0, 256.0)(np.full(4000, 3.0))
    np.testing.assert_allclose(out, 3.0, atol=1e-9)


def test_nothing_to_do_is_nothing_done() -> None:
    values = np.random.default_rng(0).standard_normal(100)
    conditioner = Conditioner(100.0, Fraction(1))
    assert conditioner.leaves_as_is
    np.testing.assert_array_equal(conditioner(values), values)


@settings(max_examples=60)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(1, 9), st.sampled_from([0, 2, 5]))
def test_length(samples: int, up: int, down: int, factor: int) -> None:
    conditioner = Conditioner(100.0, Fraction(up, down), interpolation_factor=factor)
    out = conditioner(np.ones(samples))
    assert len(out) == ceil(samples * up / down) == conditioner.samples_out(samples)
    np.testing.assert_allclose(out, 1.0, atol=1e-9)


@settings(max_examples=200)
@given(st.floats(260.0, 2500.0), st.sampled_from([128.0, 200.0, 256.0]))
def test_ratio_is_good_to_a_millionth(source: float, target: float) -> None:
    try:
        ratio = resample.rate_ratio(source, target)
    except RemitError:  # only where no fraction of that size is near enough
        exact = Fraction(str(target)) / Fraction(str(source))
        near = exact.limit_denominator(131072)
        assert abs(near / exact - 1) > 1e-6
        return
    assert abs(float(ratio) * source / target - 1) <= 1e-6
    assert max(ratio.numerator, ratio.denominator) <= 131072


def test_a_measured_rate_is_taken_as_it_is() -> None:
    source = sine(int(60 * 255.97), 255.97, 10.0)
    out = to(255.97, 256.0)(source)
    np.testing.assert_allclose(out[512:-512], sine(len(out), 256.0, 10.0)[512:-512], atol=2e-3)


def test_a_rate_without_a_ratio_is_refused() -> None:
    with pytest.raises(RemitError, match=r"256\.001234 Hz cannot be brought to 256 Hz; expected"):
        resample.rate_ratio(256.001234, 256.0)
