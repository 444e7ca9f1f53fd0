"""What a linear readout finds in embeddings: band powers, age, sex, and who the participant is.

Every fit is scikit-learn's, and every prediction is made for people who were not in its fit; only the
identity is asked of later sequences of people it knows. Knows arrays only.

Shapes: N rows (sequences, or channels of them), D model width, P participants, X targets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS = 5
PENALTIES = np.logspace(-2, 5, 15)  # of ridge on standardised columns; the best within each fit
FEWEST_PEOPLE = 10  # below, age is not regressed
FEWEST_PER_CLASS = 5


def _ridge() -> Any:
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES, alpha_per_target=True))


def explained(
    rows_ND: np.ndarray, targets_NX: np.ndarray, participant_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Squared errors of ridge regression on people outside its fit, and of the fit's mean.

    Each of the X targets by itself, with a penalty of its own; they share what is costly.

    Returns:
        error_PX, mean_error_PX: mean squared error of each participant, in order of number; the mean
        beside the regression is that of the same people.
    """
    folds = GroupKFold(min(FOLDS, len(np.unique(participant_N))))
    error_NX, mean_error_NX = np.empty((2, *targets_NX.shape))
    for fit, test in folds.split(rows_ND, groups=participant_N):
        found_NX = _ridge().fit(rows_ND[fit], targets_NX[fit]).predict(rows_ND[test])
        error_NX[test] = (targets_NX[test] - found_NX.reshape(-1, targets_NX.shape[1])) ** 2
        mean_error_NX[test] = (targets_NX[test] - targets_NX[fit].mean(0)) ** 2
    people = np.unique(participant_N)
    return (
        np.array([error_NX[participant_N == p].mean(0) for p in people]),
        np.array([mean_error_NX[participant_N == p].mean(0) for p in people]),
    )


def identified(rows_ND: np.ndarray, participant_N: np.ndarray, place_N3: np.ndarray) -> np.ndarray:
    """The part of each participant's later sequences that is known from their earlier ones, [P].

    Rows stand in time order; the first half of a participant's is fitted. A later one that shares
    samples with an earlier one (windows may overlap) is left out; a participant with no other is NaN.

    Args:
        place_N3: number of the recording, first sample, and the sample after the last.
    """
    early_N, late_N = np.zeros((2, len(rows_ND)), dtype=bool)
    people = np.unique(participant_N)
    for p in people:
        own = np.flatnonzero(participant_N == p)
        first, second = np.split(own, [(len(own) + 1) // 2])
        early_N[first] = True
        recording, start, end = place_N3.T[:, :, None]
        shares = (
            (recording[second] == recording[first].T)
            & (start[second] < end[first].T)
            & (end[second] > start[first].T)
        )
        late_N[second[~shares.any(1)]] = True
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    model.fit(rows_ND[early_N], participant_N[early_N])
    right_N = np.full(len(rows_ND), np.nan)
    if late_N.any():
        right_N[late_N] = model.predict(rows_ND[late_N]) == participant_N[late_N]
    return np.array(
        [
            right_N[late_N & (participant_N == p)].mean()
            if (late_N & (participant_N == p)).any()
            else np.nan
            for p in people
        ]
    )


def regressed(rows_PD: np.ndarray, target_P: np.ndarray) -> np.ndarray:
    """Predictions of a number for each participant, who is not in the fit, [P]."""
    folds = GroupKFold(min(FOLDS, len(rows_PD)))
    found: np.ndarray = cross_val_predict(
        _ridge(), rows_PD, target_P, cv=folds, groups=np.arange(len(rows_PD))
    )
    return found


def classified(rows_PD: np.ndarray, label_P: np.ndarray) -> np.ndarray:
    """Probabilities of class 1 for each participant, who is not in the fit, [P]."""
    folds = StratifiedKFold(FOLDS)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=500))
    found: np.ndarray = cross_val_predict(
        model, rows_PD, label_P, cv=folds, method="predict_proba"
    )[:, 1]
    return found


def auc(label_P: np.ndarray, score_P: np.ndarray, weight_P: np.ndarray) -> float:
    """Area under the curve with a weight for each participant; NaN where a class has none."""
    if not weight_P[label_P == 1].sum() or not weight_P[label_P == 0].sum():
        return float("nan")
    return float(roc_auc_score(label_P, score_P, sample_weight=weight_P))
