"""Canaries: three ways to fool oneself, and that each is caught here.

How the pipeline makes the third one impossible: a table holds no labels and is never given any, so
that no column can be chosen by them before the folds; what chooses columns is inside the fold's own
fit, which is given the labels of those who fit alone. The first two need nobody's good intention
either: who is tested is decided for participants, never for windows, by a file that is dealt again when
it is read.
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from remit.evaluation.crossfit import crossfit, permuted
from tests.unit.evaluation.crossfit_made import folds_of, options, table_of

LABEL_P = np.array([0] * 14 + [1] * 7)
SEEDS = 16


def test_shuffled_labels_give_half() -> None:
    aucs, p_values = [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng([1, seed])
        label_P = rng.permutation(LABEL_P)
        folds = folds_of(label_P, 5, 3, seed)
        table = table_of(rng.standard_normal((21 * 3, 60)), 3)
        found = crossfit(table, folds, options(), permuted(folds.label_P, 19, seed))
        aucs.append(found.auc)
        p_values.append(found.p_value)
    assert abs(np.mean(aucs) - 0.5) < 0.05
    assert 0.3 < np.mean(p_values) < 0.7 and min(p_values) >= 0.05


def test_shuffled_labels_decide_as_well_as_a_coin() -> None:
    # A strong penalty: all probabilities lie near the prevalence that they are moved to, so that a
    # threshold of another prevalence would tell which folds hold more of class 1.
    right = []
    for seed in range(SEEDS):
        rng = np.random.default_rng([5, seed])
        folds = folds_of(rng.permutation(LABEL_P), 5, 3, seed)
        table = table_of(rng.standard_normal((21, 60)))
        found = crossfit(table, folds, options(strengths=[1e5]), folds.label_P[None])
        yes_P = found.decision_RP.mean(0)
        right.append((yes_P[folds.label_P == 1].mean() + 1 - yes_P[folds.label_P == 0].mean()) / 2)
    assert abs(np.mean(right) - 0.5) < 0.05


def test_the_number_of_the_participant_says_nothing_about_another() -> None:
    """A split of windows lets a classifier look the label up; a split of people has nothing to look up."""
    windows = 10
    aucs, by_window = [], []
    for seed in range(SEEDS):
        rng = np.random.default_rng([2, seed])
        label_P = rng.permutation(LABEL_P)
        number_P = rng.permutation(21)
        row_NX = np.repeat(number_P, windows)[:, None].astype(float)
        label_N = np.repeat(label_P, windows)
        look_up = make_pipeline(OneHotEncoder(), LogisticRegression())
        guess_N = cross_val_predict(
            look_up,
            row_NX,
            label_N,
            cv=StratifiedKFold(5, shuffle=True, random_state=seed),
            method="predict_proba",
        )[:, 1]
        by_window.append(roc_auc_score(label_N, guess_N))
        for features_NX in (row_NX, np.eye(21)[row_NX[:, 0].astype(int)]):
            folds = folds_of(label_P, 5, 3, seed)
            found = crossfit(table_of(features_NX, windows), folds, options(), label_P[None])
            aucs.append(found.auc)
    assert min(by_window) > 0.95
    assert abs(np.mean(aucs) - 0.5) < 0.05


def test_selection_outside_the_folds_finds_what_is_not_there() -> None:
    outside, inside = [], []
    for seed in range(10):
        rng = np.random.default_rng([3, seed])
        label_P = rng.permutation(LABEL_P)
        noise_PX = rng.standard_normal((21, 200))
        folds = folds_of(label_P, 5, 3, seed)
        apart_X = np.abs(noise_PX[label_P == 1].mean(0) - noise_PX[label_P == 0].mean(0))
        best = np.argsort(-apart_X / noise_PX.std(0))[:5]
        outside.append(crossfit(table_of(noise_PX[:, best]), folds, options(), label_P[None]).auc)
        inside.append(crossfit(table_of(noise_PX), folds, options(select=5), label_P[None]).auc)
    assert np.mean(outside) > 0.85
    assert abs(np.mean(inside) - 0.5) < 0.1
