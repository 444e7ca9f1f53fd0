"""The nested fit, against the same written out with scikit-learn, and against looking ahead."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, log_loss, roc_auc_score

from remit.errors import RemitError
from remit.evaluation.crossfit import (
    apply,
    best_threshold,
    crossfit,
    final,
    leave_one_out,
    permuted,
)
from remit.evaluation.folds import deal
from tests.unit.evaluation.crossfit_made import Made, folds_of, options, people, table_of

LABEL_P = np.array([0] * 12 + [1] * 7)
WINDOWS = 3


def rows(seed: int = 0, columns: int = 6, windows: int = WINDOWS, missing: float = 0.0):
    rng = np.random.default_rng(seed)
    row_PX = rng.standard_normal((len(LABEL_P), columns)) + 0.7 * LABEL_P[:, None]
    row_NX = np.repeat(row_PX, windows, axis=0) * 3 + 5
    row_NX += rng.standard_normal(row_NX.shape)
    row_NX[rng.random(row_NX.shape) < missing] = np.nan
    return row_NX


class ByHand:
    """One fit, a loop over participants at a time."""

    def __init__(self, windows_by_name, labels, strength, select=None):
        names = sorted(labels)
        stack = {name: windows_by_name[name] for name in names}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # nobody has a value
            means_TX = np.array([np.nanmean(stack[name], axis=0) for name in names])
            self.median_X = np.nan_to_num(np.nanmedian(means_TX, axis=0))
        self.gaps = [
            column
            for column in range(means_TX.shape[1])
            if any(np.isnan(stack[name][:, column]).any() for name in names)
        ]
        full_TY = np.array([self.filled(stack[name]).mean(0) for name in names])
        self.mean_Y, self.sd_Y = full_TY.mean(0), full_TY.std(0)
        self.sd_Y[self.sd_Y < 1e-9] = np.inf
        scaled_TY = (full_TY - self.mean_Y) / self.sd_Y
        label_T = np.array([labels[name] for name in names])
        self.chosen = np.arange(scaled_TY.shape[1])
        if select:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a constant column, last in the order
                self.chosen = np.argsort(-f_classif(scaled_TY, label_T)[0])[:select]
        self.model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=10000)
        self.model.fit(scaled_TY[:, self.chosen], label_T)
        self.prevalence = label_T.mean()

    def filled(self, window_WX):
        value_WX = np.where(np.isnan(window_WX), self.median_X, window_WX)
        return np.column_stack([value_WX, np.isnan(window_WX)[:, self.gaps]])

    def probability(self, window_WX, prevalence=None):
        scaled_WY = (self.filled(window_WX) - self.mean_Y) / self.sd_Y
        shift = logit(prevalence) - logit(self.prevalence) if prevalence else 0.0
        return expit(self.model.decision_function(scaled_WY[:, self.chosen]) + shift).mean()


def tuned_by_hand(windows_by_name, labels, key, own, prevalence):
    """Strength and, for probabilities of ``prevalence``, threshold, by the inner folds."""
    dealt = deal(labels, min(own.inner_folds, *np.bincount(list(labels.values()))), key)
    names = sorted(labels)
    label_T = [labels[name] for name in names]
    losses, outs = [], []
    for strength in own.strengths:
        out, moved = {}, {}
        for fold in set(dealt.values()):
            seen = {name: labels[name] for name in names if dealt[name] != fold}
            head = ByHand(windows_by_name, seen, strength, own.select)
            for name in (name for name in names if dealt[name] == fold):
                out[name] = head.probability(windows_by_name[name], np.mean(label_T))
                moved[name] = head.probability(windows_by_name[name], prevalence)
        outs.append([moved[name] for name in names])
        losses.append(log_loss(label_T, [out[name] for name in names]))
    best = int(np.argmin(losses))
    values = sorted({0.0, 1.0, *outs[best]})
    middles = [0.5, *((a + b) / 2 for a, b in pairwise(values))]
    scores = [
        balanced_accuracy_score(label_T, np.array(outs[best]) >= middle) for middle in middles
    ]
    nearest = min(
        (abs(middle - 0.5), middle)
        for middle, score in zip(middles, scores, strict=True)
        if score > max(scores) - 1e-9
    )
    return own.strengths[best], nearest[1]


@pytest.mark.parametrize(
    ("columns", "missing", "select"),
    [(6, 0.0, None), (40, 0.0, None), (6, 0.15, None), (30, 0.0, 4)],
)
def test_is_the_same_as_written_out(columns: int, missing: float, select: int | None) -> None:
    row_NX = rows(1, columns, missing=missing)
    if missing:
        row_NX[:WINDOWS, 2] = np.nan  # somebody without any value
    folds, own = folds_of(LABEL_P, 3, 2), options(select=select)
    found = crossfit(table_of(row_NX, WINDOWS), folds, own, folds.label_P[None])
    names = folds.names
    windows = dict(zip(names, row_NX.reshape(len(names), WINDOWS, -1), strict=True))
    for repeat, fold in np.ndindex(2, 3):
        tested = folds.test(repeat, fold)
        labels = {name: folds.labels[name] for name in names if name not in tested}
        strength, threshold = tuned_by_hand(
            windows, labels, f"0:{repeat}:{fold}", own, LABEL_P.mean()
        )
        assert found.strength_RK[repeat, fold] == strength
        np.testing.assert_allclose(found.threshold_RK[repeat, fold], threshold, atol=1e-5)
        head = ByHand(windows, labels, strength, select)
        for name in tested:
            probability = head.probability(windows[name], LABEL_P.mean())
            at = names.index(name)
            np.testing.assert_allclose(found.probability_RP[repeat, at], probability, atol=1e-5)
            assert found.decision_RP[repeat, at] == (probability >= threshold)
    own_aucs = [
        roc_auc_score(LABEL_P[fold_P == fold], probability_P[fold_P == fold])
        for fold_P, probability_P in zip(found.fold_RP, found.probability_RP, strict=True)
        for fold in range(3)
    ]
    assert min(own_aucs) - 1e-9 <= found.auc <= max(own_aucs) + 1e-9 and found.p_value is None


@pytest.mark.parametrize("select", [None, 3])
def test_the_labels_of_the_test_part_change_nothing(select) -> None:
    """All but how many of each class the cohort has, which is one number for everybody."""
    folds = folds_of(LABEL_P)
    table = table_of(rows(2, 12), WINDOWS)
    label_SP = permuted(folds.label_P, 5, 0)
    found = crossfit(table, folds, options(select=select), label_SP)
    for repeat, fold in np.ndindex(folds.repeats, folds.folds):
        out_P = folds.fold_RP[repeat] == fold
        bent = folds_of(LABEL_P)
        bent_SP = label_SP.copy()
        bent_SP[:, out_P] = np.roll(label_SP[:, out_P], 1, axis=1)
        for at in np.flatnonzero(out_P):
            bent.labels[bent.names[at]] = int(bent_SP[0, at])
        again = crossfit(table, bent, options(select=select), bent_SP)
        same = found.probability_RP[repeat, out_P], again.probability_RP[repeat, out_P]
        assert same[0].tobytes() == same[1].tobytes()
        assert found.strength_RK[repeat, fold] == again.strength_RK[repeat, fold]
        assert found.threshold_RK[repeat, fold] == again.threshold_RK[repeat, fold]
        assert (found.probability_RP != again.probability_RP).any()  # where the bent ones fit


@pytest.mark.parametrize("select", [None, 3])
def test_the_features_of_the_test_part_change_no_other(select) -> None:
    """Scale, medians, columns: nothing of whoever is tested stands in another's prediction."""
    folds, row_NX = folds_of(LABEL_P), rows(3, 8, missing=0.05)
    found = crossfit(table_of(row_NX, WINDOWS), folds, options(select=select), folds.label_P[None])
    bent_NX = row_NX.copy()
    bent_NX[:WINDOWS] = 1e3
    again = crossfit(table_of(bent_NX, WINDOWS), folds, options(select=select), folds.label_P[None])
    for repeat in range(folds.repeats):
        fold = folds.fold_RP[repeat, 0]
        others = folds.fold_RP[repeat] == fold
        others[0] = False
        same = found.probability_RP[repeat, others], again.probability_RP[repeat, others]
        np.testing.assert_allclose(*same, rtol=1e-9)
        assert found.strength_RK[repeat, fold] == again.strength_RK[repeat, fold]


def test_a_permutation_is_fitted_as_if_it_were_the_truth() -> None:
    """With inner folds that suit both: a permutation within the classes of one and the same fold."""
    folds, table, own = (
        folds_of(LABEL_P, 3, 1),
        table_of(rows(4), WINDOWS),
        options(strengths=[3.0]),
    )
    rng = np.random.default_rng(0)
    moved_P = folds.label_P.copy()
    for fold in range(3):
        at = np.flatnonzero(folds.fold_RP[0] == fold)
        moved_P[at] = rng.permutation(moved_P[at])
    assert (moved_P != folds.label_P).any()
    found = crossfit(table, folds, own, np.stack([folds.label_P, moved_P]))
    truth = folds_of(LABEL_P, 3, 1)
    truth.labels.update(zip(truth.names, moved_P.tolist(), strict=True))
    alone = crossfit(table, truth, own, moved_P[None])
    np.testing.assert_allclose(found.null_auc_S, [alone.auc], atol=1e-12)


def test_the_truth_does_not_depend_on_what_is_permuted() -> None:
    folds, table = folds_of(LABEL_P), table_of(rows(5, 20), WINDOWS)
    few, many = (
        crossfit(table, folds, options(), permuted(folds.label_P, number, 0)) for number in (3, 20)
    )
    assert few.probability_RP.tobytes() == many.probability_RP.tobytes()
    assert (few.auc, few.threshold_RK.tolist()) == (many.auc, many.threshold_RK.tolist())
    np.testing.assert_array_equal(few.null_auc_S, many.null_auc_S[:3])


def test_the_p_value_counts() -> None:
    folds = folds_of(LABEL_P)
    strong = table_of(LABEL_P[:, None] + 0.1 * rows(6, 1, 1))
    found = crossfit(strong, folds, options(), permuted(folds.label_P, 19, 0))
    assert found.auc > 0.95 and found.null_auc_S.shape == (19,)
    as_good = sum(not null < found.auc for null in found.null_auc_S)
    assert found.p_value == (1 + as_good) / 20


def test_permuted_labels() -> None:
    label_SP = permuted(LABEL_P, 50, 3)
    assert (label_SP[0] == LABEL_P).all() and (label_SP.sum(1) == 7).all()
    assert len(np.unique(label_SP, axis=0)) == 51
    assert (permuted(LABEL_P, 20, 3) == label_SP[:21]).all()
    assert (permuted(LABEL_P, 50, 4)[1:] != label_SP[1:]).any()


@settings(max_examples=15, deadline=None)
@example(3, 8, 1)  # a permutation leaves one class to fit on
@given(zeros=st.integers(2, 15), ones=st.integers(2, 15), windows=st.integers(1, 4))
def test_prevalence_is_a_table_without_columns(zeros, ones, windows) -> None:
    label_P = np.array([0] * zeros + [1] * ones)
    folds = folds_of(label_P, 4, 2)
    owner_N = np.repeat(np.arange(len(label_P)), 1 + np.arange(len(label_P)) % windows)
    table = Made(people(len(label_P)), np.zeros((len(owner_N), 0)), owner_N)
    found = crossfit(table, folds, options(), permuted(folds.label_P, 4, 0))
    assert found.auc == 0.5
    assert set(found.null_auc_S[np.isfinite(found.null_auc_S)]) <= {0.5}
    if np.isfinite(found.null_auc_S).all():
        assert found.p_value == 1.0
    # Of every fold the same: whoever is tested where the other class is rarer is no worse off.
    several = min(zeros, ones) > 2
    if several:
        np.testing.assert_allclose(found.probability_RP, label_P.mean(), atol=1e-11)
    if several:
        head = final(table, folds.labels, options())
        np.testing.assert_allclose(apply(head, np.zeros((2, 0))), label_P.mean(), atol=1e-12)


def test_equal_rows_are_ties() -> None:
    """A site is the same number for many people: rounding must not rank them."""
    rng = np.random.default_rng(0)
    site_PX = np.eye(3)[rng.integers(0, 3, len(LABEL_P))] + 0.1
    found = crossfit(
        table_of(site_PX), folds_of(LABEL_P), options(), folds_of(LABEL_P).label_P[None]
    )
    for repeat, fold in np.ndindex(2, 4):
        out_P = found.fold_RP[repeat] == fold
        assert len(set(found.probability_RP[repeat, out_P])) == len(
            np.unique(site_PX[out_P], axis=0)
        )


def test_nothing_is_tuned_with_one_of_a_class() -> None:
    label_P = np.array([0, 0, 0, 0, 1, 1])
    folds = folds_of(label_P, 5, 1)
    found = crossfit(table_of(rows(7, 3, 1)[:6]), folds, options(), permuted(label_P, 10, 0))
    assert folds.folds == 2 and (found.threshold_RK == 0.5).all()
    assert (found.strength_RK == 100.0).all() and np.isfinite(found.probability_RP).all()


def test_a_table_is_told_who_may_be_learnt_from() -> None:
    """And may hold people without a label, in its own order, whose rows are used for nothing here."""
    folds, row_NX = folds_of(LABEL_P), rows(8)
    plain = crossfit(table_of(row_NX, WINDOWS), folds, options(), folds.label_P[None])
    order = np.random.default_rng(0).permutation(len(row_NX))
    more = Made(
        ("z99", *folds.names[::-1]),
        np.vstack([row_NX, np.full((2, 6), 1e6)])[np.r_[order, len(row_NX), len(row_NX) + 1]],
        np.r_[len(LABEL_P) - np.repeat(np.arange(len(LABEL_P)), WINDOWS)[order], 0, 0],
    )
    found = crossfit(more, folds, options(), folds.label_P[None])
    np.testing.assert_allclose(found.probability_RP, plain.probability_RP, atol=1e-8)
    assert len(more.asked) == 8
    for repeat, fold, seen in more.asked:
        assert sorted(seen) == sorted(set(folds.names) - set(folds.test(repeat, fold)))


def test_leave_one_out_fits_without_that_one() -> None:
    table, labels = table_of(rows(9), WINDOWS), dict(zip(people(19), LABEL_P.tolist(), strict=True))
    found = leave_one_out(table, labels, options(strengths=[10.0]))
    windows = dict(zip(people(19), table.row_NX.reshape(19, WINDOWS, -1), strict=True))
    for at, name in enumerate(people(19)):
        seen = {other: label for other, label in labels.items() if other != name}
        by_hand = ByHand(windows, seen, 10.0).probability(windows[name])
        np.testing.assert_allclose(found.probability_P[at], by_hand, atol=1e-5)
    assert found.auc == pytest.approx(roc_auc_score(LABEL_P, found.probability_P))
    assert [repeat for repeat, _, _ in table.asked] == [-1] * 19
    prevalence = table_of(np.zeros((19, 0)))
    assert leave_one_out(prevalence, labels, options()).auc == 0.0  # the known bias, at its worst


@pytest.mark.parametrize(("select", "missing"), [(None, 0.0), (None, 0.1), (3, 0.0)])
def test_the_final_head_is_that_of_everybody(select, missing) -> None:
    row_NX = rows(10, 9, missing=missing)
    row_NX[:, 4] = 2.0  # says nothing
    table, labels = table_of(row_NX, WINDOWS), dict(zip(people(19), LABEL_P.tolist(), strict=True))
    head = json.loads(json.dumps(final(table, labels, options(select=select))))
    windows = dict(zip(people(19), row_NX.reshape(19, WINDOWS, -1), strict=True))
    strength, threshold = tuned_by_hand(
        windows, labels, "0:final", options(select=select), np.mean(list(labels.values()))
    )
    assert head["strength"] == strength and head["threshold"] == pytest.approx(threshold, abs=1e-5)
    by_hand = ByHand(windows, labels, strength, select)
    new_NX = rows(11, 9, missing=missing)
    new_NX[:, 4] = -50.0
    np.testing.assert_allclose(
        apply(head, new_NX).reshape(19, WINDOWS).mean(1),
        [by_hand.probability(window_WX) for window_WX in new_NX.reshape(19, WINDOWS, -1)],
        atol=1e-5,
    )
    if select:
        assert np.count_nonzero(head["coefficient"]) == select
    with pytest.raises(RemitError, match="expected 9 columns"):
        apply(head, new_NX[:, :8])


def test_the_threshold() -> None:
    label_P = np.array([0, 0, 0, 1, 1])
    assert best_threshold(np.array([0.1, 0.2, 0.3, 0.35, 0.4]), label_P) == pytest.approx(0.325)
    assert best_threshold(np.array([0.1, 0.2, 0.3, 0.6, 0.8]), label_P) == 0.5
    assert best_threshold(np.full(5, 0.4), label_P) == 0.5  # everything is as good
    assert best_threshold(np.array([0.1, 0.2, 0.9, 0.6, 0.8]), label_P) == 0.5


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32), decimals=st.integers(1, 6))
def test_no_threshold_is_better(seed: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    label_P, probability_P = rng.permutation(LABEL_P), rng.random(len(LABEL_P)).round(decimals)
    found = best_threshold(probability_P, label_P)
    score = balanced_accuracy_score(label_P, probability_P >= found)
    for threshold in [*probability_P, 0.0, 1.1]:  # every way to cut them
        other = balanced_accuracy_score(label_P, probability_P >= threshold)
        assert other <= score + 1e-9


def test_what_does_not_fit_is_refused() -> None:
    folds, label_SP = folds_of(LABEL_P), folds_of(LABEL_P).label_P[None]
    with pytest.raises(RemitError, match=r"made: has no participant p17, p18"):
        crossfit(table_of(rows(0, 4, 1)[:17]), folds, options(), label_SP)
    with pytest.raises(RemitError, match=r"made: participant p18 has no row"):
        crossfit(Made(people(19), rows(0, 4, 1)[:18], np.arange(18)), folds, options(), label_SP)
    infinite = rows(0, 4, 1)
    infinite[3, 2] = np.inf
    with pytest.raises(RemitError, match="column c holds an infinite value"):
        crossfit(table_of(infinite, columns=list("abcd")), folds, options(), label_SP)
    with pytest.raises(RemitError, match="not the first of those given"):
        crossfit(table_of(rows(0, 4, 1)), folds, options(), 1 - label_SP)
    with pytest.raises(RemitError, match="1 have label 1; expected at least 2 of each"):
        final(table_of(rows(0, 4, 1)), dict.fromkeys(people(18), 0) | {"p18": 1}, options())
