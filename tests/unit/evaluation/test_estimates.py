"""Figures of predictions in folds: against scikit-learn, scipy and plain loops."""

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import bootstrap, mannwhitneyu
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from remit.evaluation import estimates as module
from remit.evaluation.estimates import (
    age_bands,
    calibration_curve,
    calibration_intercepts,
    calibration_slopes,
    figures,
    leave_one_out,
    paired,
    reached,
    spread_of,
    subgroups,
)
from remit.evaluation.metrics import auc_interval


@dataclass
class Predicted:
    probability_RP: np.ndarray
    decision_RP: np.ndarray
    fold_RP: np.ndarray
    null_auc_S: np.ndarray = field(default_factory=lambda: np.zeros(0))


def cohort(n1=8, n0=13, repeats=4, folds=4, effect=1.0, seed=0):
    """Labels and predictions with an effect, in stratified folds."""
    rng = np.random.default_rng(seed)
    label_P = rng.permutation(np.repeat([1, 0], [n1, n0]))
    fold_RP = np.zeros((repeats, n1 + n0), int)
    for repeat in range(repeats):
        splitter = StratifiedKFold(folds, shuffle=True, random_state=repeat)
        for fold, (_, test) in enumerate(splitter.split(label_P, label_P)):
            fold_RP[repeat, test] = fold
    own_P = effect * label_P + rng.normal(0, 1, n1 + n0)
    probability_RP = expit(own_P + rng.normal(0, 0.3, (repeats, n1 + n0)) - effect / 2)
    return label_P, Predicted(probability_RP, (probability_RP > 0.4).astype(int), fold_RP)


def computed(label_P, its, **more):
    more = {"seed": 0, "resamples": 300} | more
    return figures(label_P, its.probability_RP, its.decision_RP, its.fold_RP, **more)


def every_figure(found):
    for key in ("auc", "brier"):
        yield key, found[key]
    for at in ("at_half", "at_inner_threshold"):
        for key, figure in found[at].items():
            yield f"{at}.{key}", figure


@pytest.mark.parametrize("seed", range(5))
def test_values_are_scikit_learns(seed):
    label_P, its = cohort(seed=seed)
    found = computed(label_P, its)
    mean_P = its.probability_RP.mean(0)
    for at, guess_P in (
        ("at_half", mean_P >= 0.5),
        ("at_inner_threshold", its.decision_RP.sum(0) * 2 >= len(its.decision_RP)),
    ):
        expected = {
            "accuracy": sk.accuracy_score(label_P, guess_P),
            "balanced_accuracy": sk.balanced_accuracy_score(label_P, guess_P),
            "precision": sk.precision_score(label_P, guess_P, zero_division=0),
            "recall": sk.recall_score(label_P, guess_P),
            "f1": sk.f1_score(label_P, guess_P),
        }
        assert {key: figure["value"] for key, figure in found[at].items()} == pytest.approx(
            expected
        )
    briers = [sk.brier_score_loss(label_P, probability_P) for probability_P in its.probability_RP]
    assert found["brier"]["value"] == pytest.approx(np.mean(briers))
    own, pairs = [], []
    for probability_P, fold_P in zip(its.probability_RP, its.fold_RP, strict=True):
        for fold in range(4):
            y = label_P[fold_P == fold]
            own.append(sk.roc_auc_score(y, probability_P[fold_P == fold]))
            pairs.append(y.sum() * (1 - y).sum())
    assert found["auc"]["value"] == pytest.approx(np.average(own, weights=pairs))
    json.dumps(found, allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6), st.sampled_from([-9, 0, 2, 30]))
def test_every_interval_holds_its_figure_lies_in_range_and_is_not_empty(n1, n0, seed, effect):
    label_P, its = cohort(n1, n0, 2, 2, effect, seed)
    found = computed(label_P, its, resamples=50)
    for name, figure in every_figure(found):
        assert 0 <= figure["low"] < figure["high"] <= 1, name
        assert figure["low"] - 1e-9 <= figure["value"] <= figure["high"] + 1e-9, name
        if figure["bootstrap"] is not None:
            assert 0 <= figure["bootstrap"][0] < figure["bootstrap"][1] <= 1, name
    json.dumps(found, allow_nan=False)


def test_a_perfect_classifier_of_few_is_not_certain():
    label_P, its = cohort(4, 4, 2, 2, effect=40)
    for name, figure in every_figure(computed(label_P, its)):
        assert figure["value"] == pytest.approx(0.0 if name == "brier" else 1.0, abs=1e-3)
        assert figure["high"] - figure["low"] > 0.35, name


def test_the_bootstrap_interval_is_scipys_bca():
    label_P, its = cohort(12, 20, effect=1.2)
    its.fold_RP[:] = 0  # all pairs, so that scipy can resample the two classes
    found = computed(label_P, its, resamples=40_000)
    one, zero = its.probability_RP[:1, label_P == 1], its.probability_RP[:1, label_P == 0]
    single = Predicted(its.probability_RP[:1], its.decision_RP[:1], its.fold_RP[:1])
    found = computed(label_P, single, resamples=40_000)

    def auc(x, y, axis=-1):
        return mannwhitneyu(x, y, axis=axis).statistic / (x.shape[axis] * y.shape[axis])

    expected = bootstrap(
        (one[0], zero[0]), auc, method="BCa", n_resamples=20_000, rng=1, vectorized=True
    ).confidence_interval
    assert found["auc"]["bootstrap"] == pytest.approx(list(expected), abs=0.012)
    errors_P = (single.probability_RP[0] - label_P) ** 2
    expected = bootstrap((errors_P,), np.mean, method="BCa", n_resamples=40_000, rng=1)
    assert found["brier"]["bootstrap"] == pytest.approx(
        list(expected.confidence_interval), abs=0.003
    )


def test_without_permutations_comparing_within_folds_widens_and_fixed_scores_in_all_pairs_do_not():
    label_P, its = cohort(10, 20, repeats=1, folds=5, effect=0)
    within = spread_of(label_P, its.probability_RP, its.fold_RP, None, seed=0)
    pooled = spread_of(label_P, its.probability_RP, np.zeros_like(its.fold_RP), None, seed=0)
    assert pooled == pytest.approx(1.0, abs=0.06)
    assert within > 1.1


def test_a_wider_permutation_null_widens_every_interval():
    label_P, its = cohort()
    rng = np.random.default_rng(0)
    narrow, wide = (
        computed(label_P, its, null_auc_S=rng.normal(0.5, sd, 4000)) for sd in (0.1, 0.26)
    )
    assert narrow["spread"]["value"] == 1.0
    assert wide["spread"]["value"] == pytest.approx(0.26 / np.sqrt(22 / 12 / 8 / 13), rel=0.05)
    for (name, a), (_, b) in zip(every_figure(narrow), every_figure(wide), strict=True):
        assert b["low"] < a["low"] or a["low"] == 0, name
        assert b["high"] > a["high"] or a["high"] == 1, name
        assert a["bootstrap"] == b["bootstrap"], name
    a, b = (its["calibration"]["slope"] for its in (narrow, wide))
    for edge in ("low", "high"):
        grown = wide["spread"]["value"] * (a[edge] - a["value"])
        assert b[edge] - b["value"] == pytest.approx(grown)


def test_the_interval_of_the_auc_holds_half_as_often_as_the_permutation_test_accepts():
    # By construction: half is inside where the found AUC is within 1.96 of the null's own spread.
    label_P, its = cohort(7, 14, effect=0.8)
    auc = computed(label_P, its)["auc"]["value"]
    for sd in (0.15, 0.2, 0.25):
        null_auc_S = np.array([0.5 - sd, 0.5 + sd])
        low = computed(label_P, its, null_auc_S=null_auc_S)["auc"]["low"]
        # Newcombe's standard error at half is that of Hanley and McNeil with equal classes.
        hanley = 0.5 * np.sqrt((1 + 9.5 * (1 / 3 + 1 / 3)) / 98)
        spread = max(1, sd / np.sqrt(22 / 12 / 98))
        assert (low < 0.5) == (auc - 0.5 < 1.959964 * hanley * spread)


def test_the_slope_is_scikit_learns_for_any_weights():
    rng = np.random.default_rng(0)
    label_P = rng.permutation(np.repeat([0, 1], [15, 9]))
    logit_P = rng.normal(0, 3, 24) + label_P
    weight_SP = rng.multinomial(24, np.full(24, 1 / 24), 40).astype(float)
    weight_SP[0] = 1
    found_S = calibration_slopes(logit_P, label_P, weight_SP)
    checked = 0
    for weight_P, slope in zip(weight_SP, found_S, strict=True):
        if np.isfinite(slope):
            fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000)
            fit.fit(logit_P[:, None], label_P, sample_weight=weight_P)
            assert slope == pytest.approx(fit.coef_[0, 0], rel=1e-4, abs=1e-5)
            checked += 1
    assert checked > 30


def test_the_intercept_is_the_most_likely_one_with_the_log_odds_as_offset():
    rng = np.random.default_rng(0)
    label_P = rng.permutation(np.repeat([0, 1], [15, 9]))
    logit_P = rng.normal(1, 2, 24)
    weight_SP = rng.multinomial(24, np.full(24, 1 / 24), 20).astype(float)
    for weight_P, found in zip(
        weight_SP, calibration_intercepts(logit_P, label_P, weight_SP), strict=True
    ):

        def loss(a, weight_P=weight_P):
            eta_P = a + logit_P
            return (weight_P * (np.logaddexp(0, eta_P) - label_P * eta_P)).sum()

        assert found == pytest.approx(minimize_scalar(loss, bracket=(-1, 1)).x, abs=1e-5)


def test_separated_and_constant_predictions_have_no_slope():
    label_P, weight_1P = np.array([0, 0, 1, 1]), np.ones((1, 4))
    slopes = [
        calibration_slopes(np.array(logit_P, float), label_P, weight_1P)[0]
        for logit_P in ([0, 1, 2, 3], [0, 1, 1, 2], [3, 2, 1, 0], [1, 1, 1, 1], [0, 2, 1, 3])
    ]
    assert slopes[:3] == [np.inf, np.inf, -np.inf]
    assert np.isnan(slopes[3])
    assert np.isfinite(slopes[4])
    label_P, its = cohort(8, 13, effect=40)
    found = computed(label_P, its)["calibration"]["slope"]
    assert (found["value"], found["low"], found["high"]) == (None, None, None)
    assert "separate" in found["method"]


def test_a_slope_that_some_resamples_cannot_have_is_open_on_that_side():
    label_P, its = cohort(8, 13, effect=40)
    # One of each class on the other side: without that one the classes are separated.
    first, last = np.argmax(label_P == 1), np.argmax(label_P == 0)
    its.probability_RP[:, first], its.probability_RP[:, last] = 0.2, 0.8
    its.probability_RP[:] = np.clip(its.probability_RP, 0.1, 0.9)
    slope = computed(label_P, its, resamples=1000)["calibration"]["slope"]
    assert slope["low"] < slope["value"]
    assert slope["high"] is None
    assert "open" in slope["method"]


def test_true_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    probability_RP = rng.uniform(0.05, 0.95, (1, 700))
    label_P = (rng.random(700) < probability_RP[0]).astype(int)
    fold_RP = np.arange(700)[None] % 5
    found = figures(label_P, probability_RP, probability_RP > 0.5, fold_RP, seed=0, resamples=100)
    calibration = found["calibration"]
    assert calibration["slope"]["low"] < 1 < calibration["slope"]["high"]
    assert calibration["intercept"]["low"] < 0 < calibration["intercept"]["high"]
    inside = [p["low"] <= p["probability"] <= p["high"] for p in calibration["curve"]]
    assert len(inside) == 10
    assert sum(inside) >= 8


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.4, 0.7, 0.71])), min_size=2)
)
def test_the_curve_counts_everybody_once_and_keeps_equals_together(rows):
    label_P, mean_P = (np.array(column) for column in zip(*rows, strict=True))
    curve = calibration_curve(label_P, mean_P)
    assert sum(point["n"] for point in curve) == len(rows)
    assert sum(point["n_positive"] for point in curve) == label_P.sum()
    assert all(point["n"] > 0 for point in curve)
    means = [point["probability"] for point in curve]
    assert means == sorted(means)
    start = 0
    for point in curve[:-1]:
        start += point["n"]
        assert np.sort(mean_P)[start - 1] < np.sort(mean_P)[start]


def test_chance_has_an_auc_of_exactly_half():
    label_P, its = cohort()
    its.probability_RP[:] = 0.38
    found = computed(label_P, its)
    assert found["auc"]["value"] == 0.5
    assert found["auc"]["low"] == found["auc"]["high"] == 0.5  # whoever the participants are
    assert found["calibration"]["slope"]["value"] is None


def test_the_same_seed_gives_the_same_figures():
    label_P, its = cohort()
    assert computed(label_P, its) == computed(label_P, its)
    assert computed(label_P, its) != computed(label_P, its, seed=1)


def test_paired_differences_are_those_of_the_figures_and_change_sign_with_the_order():
    label_P, model = cohort(12, 18, effect=2.0)
    _, other = cohort(12, 18, effect=0.2, seed=5)
    other.fold_RP = model.fold_RP
    found = paired(label_P, model, other, seed=0, resamples=500)
    back = paired(label_P, other, model, seed=0, resamples=500)
    one, two = computed(label_P, model), computed(label_P, other)
    values = {
        "auc": one["auc"]["value"] - two["auc"]["value"],
        "brier": one["brier"]["value"] - two["brier"]["value"],
        "balanced_accuracy": one["at_inner_threshold"]["balanced_accuracy"]["value"]
        - two["at_inner_threshold"]["balanced_accuracy"]["value"],
    }
    for key, value in values.items():
        assert found[key]["value"] == pytest.approx(value)
        assert -1 <= found[key]["low"] < value < found[key]["high"] <= 1
        assert back[key]["low"] == pytest.approx(-found[key]["high"])
        assert back[key]["high"] == pytest.approx(-found[key]["low"])
    json.dumps(found, allow_nan=False)


def test_what_two_candidates_share_narrows_their_difference():
    label_P, model = cohort(15, 20, effect=1.0)
    alike = Predicted(
        expit(np.log(model.probability_RP / (1 - model.probability_RP)) * 1.1),
        model.decision_RP,
        model.fold_RP,
    )
    _, other = cohort(15, 20, effect=1.0, seed=9)
    other.fold_RP = model.fold_RP
    near, far = (paired(label_P, model, its, seed=0, resamples=500) for its in (alike, other))
    assert near["brier"]["correlation"] > 0.95
    assert abs(far["brier"]["correlation"]) < 0.6
    for key in ("auc", "brier"):
        width = [its[key]["high"] - its[key]["low"] for its in (near, far)]
        assert width[0] < 0.5 * width[1]


def test_the_aucs_difference_is_as_wide_as_that_of_refits_under_permuted_labels():
    # Scores in pairs of one of each class: an AUC of half.
    label_P, score_RP = np.tile([0, 1], 10), np.repeat(np.linspace(0.1, 0.9, 10), 2)[None]
    fold_RP = np.zeros((1, 20), int)
    model, other = (Predicted(score_RP, fold_RP, fold_RP) for _ in range(2))
    rng = np.random.default_rng(0)
    for shared in (0.0, 0.6, 0.95):
        covariance = 0.03 * np.array([[1, shared], [shared, 1]])
        both = rng.multivariate_normal([0.5, 0.5], covariance, 20_000)
        model.null_auc_S, other.null_auc_S = both.T
        found = paired(label_P, model, other, seed=0, resamples=50)["auc"]
        assert found["value"] == 0
        assert found["correlation"] == pytest.approx(shared, abs=0.02)
        # Mann and Whitney's variance for 10 against 10 is 21 / 1200.
        one = auc_interval(0.5, 10, 10, spread=np.sqrt(0.03 * 1200 / 21))[1] - 0.5
        apart = np.std(both[:, 0] - both[:, 1]) / np.sqrt(0.03)
        assert found["high"] == pytest.approx(one * apart, rel=0.02)
        assert found["low"] == pytest.approx(-found["high"])
    model.null_auc_S = np.empty(0)
    alone = paired(label_P, model, other, seed=0, resamples=50)["auc"]
    assert "over resamples" in alone["method"] and "permuted labels" in found["method"]


def test_candidates_in_other_folds_are_not_compared():
    label_P, model = cohort()
    _, other = cohort()
    other.fold_RP = other.fold_RP[::-1]
    with pytest.raises(ValueError, match="same folds"):
        paired(label_P, model, other, seed=0, resamples=50)


@pytest.mark.parametrize(
    ("model", "nuisance", "p", "low", "flagged"),
    [
        (0.7, 0.7, 0.9, -0.3, True),  # as good as the model, by chance or not
        (0.5, 0.6, 0.4, -0.3, True),
        (0.8, 0.75, 0.01, -0.1, True),  # above chance, and not told from the model
        (0.8, 0.75, 0.2, -0.1, False),  # not above chance
        (0.9, 0.7, 0.01, 0.05, False),  # above chance, but the model is better
    ],
)
def test_when_a_nuisance_reaches_the_model(model, nuisance, p, low, flagged):
    assert reached(model, nuisance, p, {"low": low, "high": 0.4}) is flagged


def test_subgroups_compare_only_within_and_say_where_there_are_too_few():
    label_P, its = cohort(20, 30, effect=1.5)
    sex_P = np.where(np.arange(50) % 2, "F", "M").tolist()
    site_P = ["A"] * 46 + [None] * 4
    found = subgroups(
        label_P,
        its.probability_RP,
        its.fold_RP,
        {"sex": sex_P, "site": site_P},
        seed=0,
        resamples=99,
    )
    assert [row["group"] for row in found["sex"]] == ["F", "M"]
    assert [row["group"] for row in found["site"]] == ["A", None]
    few = found["site"][1]
    assert few["auc"]["value"] is None
    assert few["brier"]["value"] is None
    assert few["auc"]["method"].startswith("too few")
    won = met = 0.0
    for probability_P, fold_P in zip(its.probability_RP, its.fold_RP, strict=True):
        for i in np.flatnonzero(label_P == 1):
            for j in np.flatnonzero(label_P == 0):
                if sex_P[i] == sex_P[j] == "F" and fold_P[i] == fold_P[j]:
                    won += probability_P[i] > probability_P[j]
                    met += 1
    row = found["sex"][0]
    assert row["n"] == 25
    assert row["auc"]["value"] == pytest.approx(won / met)
    assert 0 <= row["auc"]["low"] < row["auc"]["value"] < row["auc"]["high"] <= 1
    its_P = np.array(sex_P) == "F"
    briers = [sk.brier_score_loss(label_P[its_P], own_P[its_P]) for own_P in its.probability_RP]
    assert row["brier"]["value"] == pytest.approx(np.mean(briers))
    json.dumps(found, allow_nan=False)


def test_age_bands():
    found = age_bands([18, 29.9, 30, 44, 45, 60, 93, None, float("nan")])
    assert found == [
        *["under 30"] * 2, *["30-44"] * 2, "45-59", *["60 and over"] * 2, None, None,
    ]  # fmt: skip


def test_leaving_one_out_is_pooled_and_says_what_is_wrong_with_that():
    label_P, its = cohort(effect=0.5)
    found = leave_one_out(label_P, its.probability_RP[0])
    assert found["auc"]["value"] == pytest.approx(sk.roc_auc_score(label_P, its.probability_RP[0]))
    assert found["auc"]["low"] < found["auc"]["value"] < found["auc"]["high"]
    assert "below 0.5" in found["note"]


def test_the_bias_of_the_pooled_auc_is_real():
    # The prevalence of the others, as a fit without any information predicts it.
    label_P = np.repeat([0, 1], [14, 7])
    probability_P = (label_P.sum() - label_P) / (len(label_P) - 1)
    assert leave_one_out(label_P, probability_P)["auc"]["value"] == 0.0


def test_nobody_met_is_no_auc():
    label_P = np.array([0, 1] * 5)
    probability_RP = np.linspace(0.1, 0.9, 10)[None]
    found = figures(
        label_P, probability_RP, probability_RP > 0.5, label_P[None], seed=0, resamples=20
    )
    assert found["auc"]["value"] is None
    assert "nobody" in found["auc"]["method"]


@pytest.mark.parametrize(
    ("label", "probability"),
    [
        ([1, 1], [[0.1, 0.2]]),
        ([0, 2], [[0.1, 0.2]]),
        ([0, 1], [[0.1, 1.2]]),
        ([0, 1], [[0.1, float("nan")]]),
        ([0, 1], [[0.1, 0.2, 0.3]]),
        ([0, 1], [0.1, 0.2]),
    ],
)
def test_what_is_no_prediction_is_refused(label, probability):
    with pytest.raises(ValueError):
        leave_one_out_or_figures(np.array(label), np.array(probability))


def leave_one_out_or_figures(label_P, probability_RP):
    fold_RP = np.zeros_like(probability_RP, dtype=int)
    return figures(label_P, probability_RP, fold_RP, fold_RP, seed=0, resamples=20)


def test_a_majority_is_half_of_the_repeats():
    assert module.majority(np.array([[1, 0, 1], [0, 0, 1]])).tolist() == [True, False, True]
