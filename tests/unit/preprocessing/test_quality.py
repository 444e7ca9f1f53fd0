"""Flat, clipped, repeated and noisy samples, made up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    assert quality.rails([raw]) == (None, None)
    assert not quality.clipped_samples(raw, *quality.rails([raw])).any()


def test_clipping_is_found_at_either_rail() -> None:
    raw = np.random.default_rng(0).standard_normal(1000)
    limited = np.clip(raw, -1.5, 1.0)
    low, high = quality.rails([limited])
    assert (low, high) == (-1.5, 1.0)
    clipped = quality.clipped_samples(limited, low, high)
    np.testing.assert_array_equal(clipped, (raw <= -1.5) | (raw >= 1.0))


def test_a_dead_channel_is_flat_and_not_clipped() -> None:
    raw = np.full(1000, 3.0)
    assert quality.rails([raw]) == (None, None)
    assert quality.flat_samples(raw, 0.05, 0.25, 256.0).all()


def test_fraction_per_window() -> None:
    marked = np.zeros(20, dtype=bool)
    marked[8:12] = True
    fractions = quality.fraction_per_window(marked, np.array([0, 10]), np.array([10, 20]))
    np.testing.assert_allclose(fractions, [0.2, 0.2])


def test_rails_are_those_of_all_segments() -> None:
    assert quality.rails([np.array([0.0, 5.0]), np.array([5.0, -3.0])]) == (None, 5.0)


def eeg(channels: int, samples: int, seed: int = 0) -> np.ndarray:
    """Numbers digitised as coarsely as a Muse's: 0.488 µV."""
    raw_CS = np.random.default_rng(seed).standard_normal((channels, samples)) * 10
    return (np.round(raw_CS / 0.488) * 0.488).astype(np.float32)


@given(
    channels=st.integers(1, 5),
    lag=st.integers(6, 32),
    at=st.integers(100, 400),
    seed=st.integers(0, 9),
)
def test_a_packet_sent_twice_is_found(channels: int, lag: int, at: int, seed: int) -> None:
    raw_CS = eeg(channels, 600, seed)
    raw_CS[:, at : at + lag] = raw_CS[:, at - lag : at]
    repeated_S = quality.repeated_samples(raw_CS)
    assert repeated_S[at : at + lag].all()
    assert repeated_S.sum() <= lag + 2  # chance may lengthen it


@given(channels=st.integers(1, 5), count=st.integers(8, 60), at=st.integers(10, 400))
def test_a_held_sample_is_found_on_all_channels_only(channels: int, count: int, at: int) -> None:
    raw_CS = eeg(channels, 600)
    raw_CS[:, at : at + count] = raw_CS[:, at - 1, None]
    repeated_S = quality.repeated_samples(raw_CS)
    assert repeated_S[at : at + count].all()
    assert repeated_S.sum() <= count + 2
    if channels > 1:
        raw_CS[0] = eeg(1, 600, seed=1)[0]
        assert not quality.repeated_samples(raw_CS)[at : at + count].all()


def test_chance_repeats_little() -> None:
    for channels in (1, 2, 4, 19):
        assert quality.repeated_samples(eeg(channels, 50_000)).mean() < 1e-3


@pytest.mark.parametrize("mains", [50.0, 60.0, None])
def test_ratios_of_sines_are_those_of_their_powers(mains: float | None) -> None:
    time_S = np.arange(2000) / 250
    raw_S = 10 * np.sin(2 * np.pi * 10 * time_S) + 2 * np.sin(2 * np.pi * (mains or 60.0) * time_S)
    raw_S += 3 * np.sin(2 * np.pi * 40 * time_S) + 500
    line_W, muscle_W, _ = quality.spectral_ratios(
        raw_S.astype(np.float32), np.array([0, 500]), 1000, 250.0, mains
    )
    np.testing.assert_allclose(line_W, 4 / 100, rtol=1e-3)
    np.testing.assert_allclose(muscle_W, 9 / 100, rtol=1e-3)


def test_ratios_of_a_dead_channel_are_unknown() -> None:
    ratios = quality.spectral_ratios(np.zeros(1000, np.float32), np.array([0]), 1000, 250.0, None)
    assert np.isnan(ratios).all()


@given(
    lengths=st.lists(st.tuples(st.booleans(), st.integers(1, 12)), max_size=12),
    least=st.integers(1, 9),
)
def test_runs_are_those_found_one_by_one(lengths: list[tuple[bool, int]], least: int) -> None:
    marked = [value for value, count in lengths for _ in range(count)]
    expected, start = [], None
    for index, value in enumerate([*marked, False]):
        if value and start is None:
            start = index
        if not value and start is not None:
            if index - start >= least:
                expected.append((start, index))
            start = None
    assert quality._runs(np.array(marked, dtype=bool), least) == expected


def test_a_glitch_beyond_a_rail_does_not_hide_it() -> None:
    raw = np.clip(np.random.default_rng(0).standard_normal(5000) * 300, -300, 300)
    raw[[100, 200]] = 310.0, -310.0
    low, high = quality.rails([raw])
    assert (low, high) == (-300.0, 300.0)
    assert quality.clipped_samples(raw, low, high).sum() == (np.abs(raw) >= 300).sum()
    # Coarsely digitised, and never clipped.
    fine = np.round(np.random.default_rng(1).standard_normal(5000) * 20)
    low, high = quality.rails([fine])
    assert quality.clipped_samples(fine, low, high).mean() < 0.002


def test_a_glitch_of_one_value_does_not_hide_a_rail_either() -> None:
    raw = np.clip(np.random.default_rng(0).standard_normal(5000) * 300, -150, 150)
    raw[[100, 200, 300]] = 400.0
    raw[[150, 250, 350]] = -400.0
    assert quality.rails([raw]) == (-150.0, 150.0)


@given(spread=st.floats(1.2, 20.0), seed=st.integers(0, 50))
def test_coarse_steps_are_no_clipping(spread: float, seed: int) -> None:
    raw = np.round(np.random.default_rng(seed).standard_normal(20_000) * spread)
    assert quality.clipped_samples(raw, *quality.rails([raw])).mean() < 0.005


def test_flat_does_not_depend_on_the_rate() -> None:
    rng = np.random.default_rng(0)
    for rate in (250.0, 1000.0, 20_000.0):
        slow = np.interp(
            np.arange(int(4 * rate)) / rate, np.arange(1001) / 250, rng.normal(0, 10, 1001)
        )
        assert not quality.flat_samples(slow, 0.05, 0.25, rate).any()
        held = slow.copy()
        held[int(rate) : int(2 * rate)] = 3.0
        assert abs(quality.flat_samples(held, 0.05, 0.25, rate).sum() - rate) <= 3 + rate / 250


def test_white_noise_is_flat_and_eeg_is_not() -> None:
    rng = np.random.default_rng(0)
    white = rng.standard_normal(2048 * 20).astype(np.float32)
    walk = np.cumsum(white)
    start_W = np.arange(20) * 2048
    assert quality.spectral_ratios(white, start_W, 2048, 256.0, None)[2].min() > 0.9
    assert quality.spectral_ratios(walk, start_W, 2048, 256.0, None)[2].max() < 0.4
