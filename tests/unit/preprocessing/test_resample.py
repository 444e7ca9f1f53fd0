"""Resampling keeps every sample at its time."""

from fractions import Fraction
from math import ceil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import RemitError
from remit.preprocessing import resample


def sine(samples: int, rate: float, frequency: float) -> np.ndarray:
    return np.sin(2 * np.pi * frequency * np.arange(samples) / rate + 0.4)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_linear_is_exact_interpolation(factor: int) -> None:
    values = np.random.default_rng(0).standard_normal(50)
    raised = resample.upsample_linear(values, factor)
    assert len(raised) == 50 * factor
    np.testing.assert_array_equal(raised[::factor], values)
    inside = np.arange(49 * factor + 1) / factor
    np.testing.assert_allclose(
        raised[: len(inside)], np.interp(inside, np.arange(50), values), atol=1e-12
    )
    # After the last sample the line goes on.
    step = (values[-1] - values[-2]) / factor
    np.testing.assert_allclose(
        raised[49 * factor :], values[-1] + step * np.arange(factor), atol=1e-12
    )


def test_linear_of_a_line_is_the_line() -> None:
    raised = resample.upsample_linear(np.arange(10.0), 4)
    np.testing.assert_allclose(raised, np.arange(40) / 4, atol=1e-12)


@pytest.mark.parametrize(
    ("source", "target"),
    [(500.0, 256.0), (250.0, 256.0), (220.0, 256.0), (256.0, 512.0), (512.0, 256.0)],
)
def test_polyphase_sine_has_the_analytic_values(source: float, target: float) -> None:
    ratio = resample.rate_ratio(source, target)
    assert ratio == Fraction(int(target), int(source))
    out = resample.polyphase(
        sine(int(20 * source), source, 17.0), ratio.numerator, ratio.denominator
    )
    assert len(out) == int(20 * target)
    expected = sine(len(out), target, 17.0)
    middle = slice(int(target), int(-target))
    np.testing.assert_allclose(out[middle], expected[middle], atol=3e-4)


def test_polyphase_never_aliases() -> None:
    """Up to the new Nyquist frequency and beyond it: what cannot be held is gone."""
    for frequency in (128.5, 140.0, 180.0, 200.0, 240.0):
        out = resample.polyphase(sine(10000, 500.0, frequency), 64, 125)
        assert np.abs(out[256:-256]).max() < 3e-4, frequency
    for frequency in (1.0, 60.0, 114.0):
        out = resample.polyphase(sine(10000, 500.0, frequency), 64, 125)
        assert np.abs(out[256:-256]).max() == pytest.approx(1.0, abs=2e-3), frequency


def test_polyphase_has_no_transient_at_the_ends_of_a_line() -> None:
    line = np.linspace(-3.0, 5.0, 400)
    out = resample.polyphase(line, 2, 1)
    expected = -3.0 + np.arange(800) / 2 * (8.0 / 399)
    np.testing.assert_allclose(out, expected, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 300), st.integers(1, 9), st.integers(1, 9))
def test_polyphase_length(samples: int, up: int, down: int) -> None:
    ratio = Fraction(up, down)
    out = resample.polyphase(np.ones(samples), ratio.numerator, ratio.denominator)
    assert len(out) == ceil(samples * up / down)
    assert np.isfinite(out).all()


@settings(max_examples=200, deadline=None)
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
    ratio = resample.rate_ratio(255.97, 256.0)
    assert float(ratio) == pytest.approx(256 / 255.97, rel=1e-6)
    source = sine(int(60 * 255.97), 255.97, 10.0)
    out = resample.polyphase(source, ratio.numerator, ratio.denominator)
    np.testing.assert_allclose(out[256:-256], sine(len(out), 256.0, 10.0)[256:-256], atol=3e-4)


def test_a_rate_without_a_ratio_is_refused() -> None:
    with pytest.raises(RemitError, match=r"256\.001234 Hz cannot be brought to 256 Hz; expected"):
        resample.rate_ratio(256.001234, 256.0)
