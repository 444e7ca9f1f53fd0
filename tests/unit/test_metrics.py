"""Figures of merit and their intervals, against references and known cases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn import metrics as sk

from remit.evaluation.metrics import FIGURES, participant_metrics, with_intervals

pairs = st.lists(
    st.tuples(st.integers(0, 1), st.floats(0, 1, allow_nan=False)), min_size=1, max_size=40
)


@given(pairs)
def test_figures_against_scikit_learn(rows):
    y = np.array([label for label, _ in rows])
    p = np.array([probability for _, probability in rows])
    found = participant_metrics(y.tolist(), p.tolist())
    guess = p >= 0.5
    assert found["n"] == len(y)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, guess))
    assert found["precision"] == pytest.approx(sk.precision_score(y, guess, zero_division=0))
    assert found["recall"] == pytest.approx(sk.recall_score(y, guess, zero_division=0))
    assert found["f1"] == pytest.approx(sk.f1_score(y, guess, zero_division=0))
    assert found["brier"] == pytest.approx(((p - y) ** 2).mean())
    if 0 < y.sum() < len(y):
        assert found["auc"] == pytest.approx(sk.roc_auc_score(y, p))
        assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, guess))
    else:
        assert found["auc"] is None
        assert found["balanced_accuracy"] is None


def test_an_interval_stands_beside_every_number_and_says_how_little_three_people_show():
    found = with_intervals([0, 1, 1], [0.2, 0.7, 0.9], seed=0)
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 3))  # Clopper and Pearson
    assert found["recall"]["low"] == pytest.approx(0.025 ** (1 / 2))
    assert found["auc"]["value"] == 1.0
    assert found["auc"]["low"] < 0.5
    assert (found["brier"]["low"], found["brier"]["high"]) == (0.0, 1.0)


@given(pairs)
def test_every_interval_holds_its_figure_and_none_is_empty(rows):
    found = with_intervals([y for y, _ in rows], [p for _, p in rows], seed=0, resamples=200)
    for key in FIGURES:
        figure = found[key]
        if figure["value"] is None:
            assert (figure["low"], figure["high"]) == (None, None)
            continue
        assert 0 <= figure["low"] < figure["high"] <= 1
        if key != "brier":
            assert figure["low"] - 1e-9 <= figure["value"] <= figure["high"] + 1e-9


def test_one_against_one_says_next_to_nothing():
    auc = with_intervals([0, 1], [0.1, 0.9], seed=0)["auc"]
    assert (auc["low"], auc["high"]) == (pytest.approx(0.025), 1.0)  # one trial, exact


def test_one_class_has_no_auc_and_no_interval_for_it():
    found = with_intervals([1, 1], [0.2, 0.7], seed=0)
    assert found["auc"] == {"value": None, "low": None, "high": None, "method": "undefined"}


def test_intervals_are_the_same_for_the_same_seed():
    y, p = [0, 1] * 6, [0.1, 0.6, 0.7, 0.4, 0.2, 0.9, 0.3, 0.8, 0.5, 0.45, 0.15, 0.65]
    assert with_intervals(y, p, seed=3) == with_intervals(y, p, seed=3)
    assert with_intervals(y, p, seed=3) != with_intervals(y, p, seed=4)


@pytest.mark.parametrize(("n1", "n0"), [(5, 5), (7, 14), (30, 30)])
@pytest.mark.parametrize("truth", [0.5, 0.7, 0.95])
def test_the_interval_of_the_auc_covers_the_truth_as_often_as_it_says(n1, n0, truth):
    rng = np.random.default_rng(0)
    shift = norm.ppf(truth) * 2**0.5
    labels = [0] * n0 + [1] * n1
    covered = 0
    for trial in range(200):
        x = np.concatenate([rng.normal(0, 1, n0), rng.normal(shift, 1, n1)])
        auc = with_intervals(labels, norm.cdf(x).tolist(), seed=trial, resamples=10)["auc"]
        covered += auc["low"] <= truth <= auc["high"]
    assert covered >= 182  # 91 %; 190 are expected at least


@pytest.mark.parametrize(
    ("y", "p"),
    [([], []), ([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, float("nan")]), ([0], [1.5])],
)
def test_what_is_no_prediction_is_refused(y, p):
    with pytest.raises(ValueError):
        participant_metrics(y, p)
