"""Flat and clipped samples, made up."""

import numpy as np

from remit.preprocessing import quality


def test_flat_stretch_is_found_exactly() -> None:
    raw = np.random.default_rng(0).standard_normal(1000) * 20
    raw[300:400] = 7.0
    flat = quality.flat_samples(raw, 0.05, 0.25, 256.0)
    assert flat[300:400].all()
    assert flat.sum() == 100


def test_flat_stretch_must_be_long_enough() -> None:
    raw = np.random.default_rng(0).standard_normal(1000) * 20
    raw[300:364] = 7.0  # 63 differences, one too few for 0.25 s at 256 Hz
    assert not quality.flat_samples(raw, 0.05, 0.25, 256.0).any()
    raw[364] = 7.0
    assert quality.flat_samples(raw, 0.05, 0.25, 256.0).sum() == 65


def test_two_flat_stretches_side_by_side() -> None:
    raw = np.repeat([0.0, 100.0], 80)
    assert quality.flat_samples(raw, 0.05, 0.25, 256.0).all()


def test_slow_wave_is_not_flat() -> None:
    raw = 20 * np.sin(2 * np.pi * 1.0 * np.arange(2560) / 256)
    assert not quality.flat_samples(raw, 0.05, 0.25, 256.0).any()


def test_a_peak_reached_once_is_no_clipping() -> None:
    raw = np.random.default_rng(0).standard_normal(1000)
    assert quality.rails(raw) == (None, None)
    assert not quality.clipped_samples(raw, *quality.rails(raw)).any()


def test_clipping_is_found_at_either_rail() -> None:
    raw = np.random.default_rng(0).standard_normal(1000)
    limited = np.clip(raw, -1.5, 1.0)
    low, high = quality.rails(limited)
    assert (low, high) == (-1.5, 1.0)
    clipped = quality.clipped_samples(limited, low, high)
    np.testing.assert_array_equal(clipped, (raw <= -1.5) | (raw >= 1.0))


def test_a_dead_channel_is_flat_and_not_clipped() -> None:
    raw = np.full(1000, 3.0)
    assert quality.rails(raw) == (None, None)
    assert quality.flat_samples(raw, 0.05, 0.25, 256.0).all()


def test_fraction_per_window() -> None:
    marked = np.zeros(20, dtype=bool)
    marked[8:12] = True
    fractions = quality.fraction_per_window(marked, np.array([0, 10]), np.array([10, 20]))
    np.testing.assert_allclose(fractions, [0.2, 0.2])
