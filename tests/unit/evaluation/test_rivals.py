"""The rivals: what they predict is what a library or a sum by hand gives, and they see no hidden token."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import huber
from sklearn.linear_model import Ridge

from remit.evaluation.resampling import Resampling, above, below
from remit.evaluation.rivals import RIDGE_PENALTY, Rivals, visible_mean

N, K, C, S = 6, 8, 3, 4


@pytest.fixture
def tokens():
    rng = np.random.default_rng(0)
    common = rng.normal(0, 1, (N, K, 1, S))
    return common + 0.3 * rng.normal(0, 1, (N, K, C, S)) + np.arange(C)[:, None]


@pytest.fixture
def valid():
    valid_NK = np.ones((N, K), bool)
    valid_NK[0, 5:] = False
    return valid_NK


def donors(tokens, valid):
    """Three participants of two sequences each."""
    return [(tokens[n : n + 2], valid[n : n + 2]) for n in range(0, N, 2)]


def drawn(seed=1):
    return np.random.default_rng(seed).random((N, K, C)) < 0.4


@pytest.mark.parametrize("alike", [True, False])
def test_rivals_do_not_see_what_is_masked(tokens, valid, alike):
    masked = drawn() & valid[:, :, None]
    rivals = Rivals(donors(tokens, valid), alike=alike)
    one = rivals.predict(tokens, valid, masked)
    other = rivals.predict(np.where(masked[..., None], np.nan, tokens), valid, masked)
    for name in one:
        assert np.isfinite(one[name][masked]).all(), name
        assert np.array_equal(one[name][masked], other[name][masked]), name


@pytest.mark.parametrize("alike", [True, False])
def test_other_channels_are_scikit_learns_ridge(tokens, valid, alike):
    rivals = Rivals(donors(tokens, valid), alike=alike)
    masked = np.zeros((N, K, C), bool)
    masked[:, 2, 1] = True
    found = rivals.predict(tokens, valid, masked)["other channels"][:, 2, 1]
    real = tokens[valid]
    for s in range(S):
        rows = real.transpose(0, 2, 1).reshape(-1, C) if alike else real[:, :, s]
        x = rows[:, [0, 2]]
        # Ridge with one penalty for columns in units of their own standard deviation.
        size = x.std(0)
        ridge = Ridge(alpha=RIDGE_PENALTY * len(x)).fit(x / size, rows[:, 1])
        assert found[:, s] == pytest.approx(ridge.predict(tokens[:, 2][:, [0, 2], s] / size))


@pytest.mark.parametrize("alike", [True, False])
def test_robust_levels_have_the_smallest_smooth_l1_error(tokens, valid, alike):
    heavy = tokens.copy()
    heavy[np.random.default_rng(2).random(tokens.shape) < 0.1] = 30.0
    predicted = Rivals(donors(heavy, valid), alike=alike).predict(heavy, valid, drawn())
    for c in range(C):
        rows = heavy[valid][:, c] if alike else heavy[valid][:, c, 1]
        best = minimize_scalar(lambda m, x=rows: huber(1, x - m).sum(), bounds=(-5, 5)).x
        assert predicted["robust mean"][0, 0, c, 1] == pytest.approx(best, abs=0.02)
        assert abs(predicted["mean"][0, 0, c, 1] - best) > 1


def test_means_are_those_of_real_tokens(tokens, valid):
    rivals = Rivals(donors(tokens, valid), alike=False)
    found = rivals.predict(tokens, valid, drawn() & valid[:, :, None])
    assert found["mean"][1, 1, 2] == pytest.approx(tokens[valid].mean(0)[2])
    assert found["position mean"][1, 6] == pytest.approx(tokens[1:, 6].mean(0))


def test_interpolation_of_a_straight_line_is_that_line(valid):
    ramp = np.arange(K * S, dtype=float).reshape(1, K, 1, S).repeat(N, 0)
    masked = np.zeros((N, K, 1), bool)
    masked[:, 3:5] = True
    masked[:, 7] = True
    everything = np.ones((N, K), bool)
    rivals = Rivals([(ramp, everything)], alike=True)
    found = rivals.predict(ramp, everything, masked)["interpolation"]
    assert found[:, :7] == pytest.approx(ramp[:, :7])
    assert found[:, 7] == pytest.approx(np.full((N, 1, S), ramp[0, 6, 0, -1]))  # the nearest


def test_a_recordings_mean_is_of_its_own_visible_tokens(tokens, valid):
    masked = drawn() & valid[:, :, None]
    recording = np.array([0, 0, 1, 1, 1, 2])
    masked[5, :, 0] = True
    found = visible_mean(tokens, valid, masked, recording, np.full((C, S), 9.0))
    shown = (valid[:, :, None] & ~masked)[2:5, :, 1]
    assert found[3, 4, 1] == pytest.approx(tokens[2:5, :, 1][shown].mean(0))
    assert found[5, 0, 0] == pytest.approx(np.full(S, 9.0))


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(300):
        values = rng.normal(1.0, 1.0, 40)
        resampling = Resampling(40, 300, rng)
        figure = resampling.figure(resampling.mean(values))
        assert figure["value"] == pytest.approx(values.mean()) and figure["n"] == 40
        hits += figure["low"] <= 1.0 <= figure["high"]
    assert 0.90 <= hits / 300 <= 0.98


@pytest.mark.parametrize("people", [5, 8])
def test_intervals_of_few_people_are_as_wide_as_they_must_be(people):
    rng = np.random.default_rng(4)
    wrong = 0
    for _ in range(600):
        resampling = Resampling(people, 300, rng)
        wrong += above(resampling.figure(resampling.mean(rng.normal(0.0, 1.0, people))))
    assert wrong / 600 <= 0.045  # 2.5 % is meant; plain percentiles are wrong in 5.5 to 7.5 %


def test_too_few_people_decide_nothing():
    figure = {"value": 1.0, "low": 0.9, "high": 1.1, "n": 4}
    assert not above(figure) and not below(figure, 5.0)
    assert above(figure | {"n": 5}) and below(figure | {"n": 5}, 5.0)


def test_an_interval_stays_where_the_figure_can_lie():
    resampling = Resampling(6, 300, np.random.default_rng(0))
    values = resampling.mean(np.array([0, 0, 1, 1, 1, 1.0]))
    inside, free = resampling.figure(values, (0, 1)), resampling.figure(values)
    assert free["high"] > 1 and inside == free | {"high": 1.0, "low": max(free["low"], 0.0)}


def test_one_participant_has_no_interval_and_decides_nothing():
    resampling = Resampling(1, 100, np.random.default_rng(0))
    figure = resampling.figure(resampling.mean(np.array([3.0])))
    assert figure == {"value": 3.0, "low": None, "high": None, "n": 1}
    assert not above(figure) and not below(figure, 5.0)
