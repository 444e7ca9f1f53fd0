"""The mean ROC curve against scikit-learn's, and against the AUC within folds that it belongs to."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from remit.evaluation.concordance import comparisons, fold_auc
from remit.evaluation.estimates import roc
from remit.evaluation.roc import MOST_KNOTS, drawn_curves, mean_curve, thinned


def cohort(seed: int, people: int, repeats: int, folds: int, digits: int = 1, effect=0.3):
    """Labels, probabilities with ties, folds."""
    rng = np.random.default_rng(seed)
    label_P = rng.permutation(np.arange(people) < max(2, people // 3)).astype(int)
    fold_RP = np.stack([rng.permutation(np.arange(people) % folds) for _ in range(repeats)])
    probability_RP = np.round(0.6 * rng.random((repeats, people)) + effect * label_P, digits)
    return label_P, probability_RP, fold_RP


def test_of_one_fold_it_is_that_of_scikit_learn():
    label_P, probability_RP, fold_RP = cohort(0, 30, 1, 1)
    fpr_K, tpr_K, folds = mean_curve(label_P, probability_RP, fold_RP)
    theirs = roc_curve(label_P, probability_RP[0], drop_intermediate=False)
    at = np.linspace(0, 1, 97) + 1e-6  # beside the steps, where both have one value
    assert folds == 1
    assert np.interp(at[:-1], fpr_K, tpr_K) == pytest.approx(np.interp(at[:-1], *theirs[:2]))
    assert np.trapezoid(tpr_K, fpr_K) == pytest.approx(roc_auc_score(label_P, probability_RP[0]))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    people=st.integers(6, 40),
    repeats=st.integers(1, 4),
    folds=st.integers(1, 6),
    digits=st.integers(0, 3),
)
def test_its_area_is_the_auc_within_folds(seed, people, repeats, folds, digits):
    label_P, probability_RP, fold_RP = cohort(seed, people, repeats, folds, digits)
    fpr_K, tpr_K, used = mean_curve(label_P, probability_RP, fold_RP)
    auc = fold_auc(*comparisons(probability_RP, fold_RP), label_P, np.ones((1, people)))[0]
    assert (used == 0) == bool(np.isnan(auc))
    if used:
        assert np.trapezoid(tpr_K, fpr_K) == pytest.approx(auc, abs=1e-12)
        assert (np.diff(fpr_K) >= 0).all() and (np.diff(tpr_K) >= -1e-12).all()
        assert (fpr_K[0], tpr_K[0]) == (0, 0)
        assert (fpr_K[-1], tpr_K[-1]) == pytest.approx((1, 1))


def test_a_set_of_weights_is_the_curve_of_people_who_are_there_so_often():
    """Against the unweighted curve of a cohort in which each participant stands as often."""
    label_P, probability_RP, fold_RP = cohort(3, 24, 3, 4)
    weight_SP = np.random.default_rng(1).integers(0, 3, (6, 24))
    at_X = np.linspace(0, 1, 21) + 1e-7
    found_SX = drawn_curves(label_P, probability_RP, fold_RP, weight_SP, at_X[:-1])
    for weight_P, found_X in zip(weight_SP, found_SX, strict=True):
        often = np.repeat(np.arange(24), weight_P)
        curve = mean_curve(label_P[often], probability_RP[:, often], fold_RP[:, often])
        assert found_X == pytest.approx(np.interp(at_X[:-1], *curve[:2]), abs=1e-9)
    nobody_SP = np.zeros((1, 24))
    assert np.isnan(drawn_curves(label_P, probability_RP, fold_RP, nobody_SP, at_X)).all()


def test_the_band_holds_the_curve_and_narrows_with_more_people():
    widths = []
    for people in (24, 96):
        given = cohort(5, people, 2, 4, 3, effect=0.1)
        found = roc(*given, seed=0, resamples=100, spread=1.0)
        x, low, high = np.array(found["band"]).T
        value = drawn_curves(*given, np.ones((1, people)), x)[0]
        assert (low <= value).all() and (value <= high).all()
        assert low.min() >= 0 and high.max() <= 1
        wider = np.array(roc(*given, seed=0, resamples=100, spread=1.5)["band"])
        assert (wider[:, 1] <= low).all() and (wider[:, 2] >= high).all()
        widths.append((high - low).mean())
    assert 0 < widths[1] < 0.8 * widths[0]


def test_a_perfect_separation_of_few_is_not_certain():
    """All resamples run along the edge; 7 found of 7 are 65 % to 100 % (Wilson)."""
    label_P = np.repeat([1, 0], [7, 14])
    fold_RP = np.arange(21)[None] % 3
    found = roc(label_P, label_P[None] * 0.5, fold_RP, seed=0, resamples=100, spread=1.0)
    for x, low, high in found["band"]:
        assert high == 1 and low == pytest.approx(7 / (7 + 1.959964**2) if x < 1 else 1, abs=1e-6)


def test_without_pairs_or_with_few_people_the_reason_is_said():
    label_P = np.array([1, 1, 0, 0])
    fold_RP = np.array([[0, 0, 1, 1]])
    found = roc(label_P, np.full((1, 4), 0.5), fold_RP, seed=0, resamples=100, spread=1.0)
    assert found["folds"] == 0 and found["curve"] == [] and "nobody" in found["method"]
    found = roc(label_P, np.full((1, 4), 0.5), 0 * fold_RP, seed=0, resamples=100, spread=1.0)
    assert found["curve"][-1] == [1.0, 1.0] and found["band"] is None and "few" in found["method"]


def test_a_curve_of_many_knots_is_thinned_and_keeps_its_ends():
    x = np.linspace(0, 1, 5000)
    fpr, tpr = thinned(x, x**0.3)
    assert len(fpr) == MOST_KNOTS and fpr[0] == 0 and fpr[-1] == tpr[-1] == 1
    assert np.trapezoid(tpr, fpr) == pytest.approx(np.trapezoid(x**0.3, x), abs=1e-3)
