"""The ROC curve that belongs to the AUC within folds, and its band.

Scores of different fits have no common scale, so a curve over all participants would be one of no
model. Here each fold of each repeat has a curve of its own, and at every false positive rate the mean
of their true positive rates is taken (vertical averaging; Fawcett 2006,
doi:10.1016/j.patrec.2005.10.010), a fold weighted by its pairs of participants, one of each class. With
these weights the area under the mean curve is the AUC within folds (`concordance`), exactly. Knows
numbers only.

Shapes: P participants, R repeats, N participants of a fold, K knots of a curve, X false positive rates,
S sets of participants' weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from sklearn.metrics import roc_curve

MOST_KNOTS = 400  # of a curve that is written down; more of them no eye tells apart


def folds_of(
    label_P: np.ndarray, probability_RP: np.ndarray, fold_RP: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Who is in each fold of each repeat that has both classes: their places [N], labels, scores."""
    for probability_P, fold_P in zip(probability_RP, fold_RP, strict=True):
        for fold in np.unique(fold_P):
            own_N = np.flatnonzero(fold_P == fold)
            if 0 < label_P[own_N].sum() < len(own_N):
                yield own_N, label_P[own_N], probability_P[own_N]


def mean_curve(
    label_P: np.ndarray, probability_RP: np.ndarray, fold_RP: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mean curve, whose steps are upright: false and true positive rates [K], and of how many folds.

    Its area by trapezes is the AUC within folds. Both arrays are empty where no fold has both classes.
    """
    curves, weights = [], []
    for _, label_N, score_N in folds_of(label_P, probability_RP, fold_RP):
        curves.append(roc_curve(label_N, score_N, drop_intermediate=False)[:2])
        weights.append(label_N.sum() * (1 - label_N).sum())
    if not curves:
        return np.empty(0), np.empty(0), 0
    weight_F = np.array(weights) / sum(weights)
    knots_X = np.unique(np.concatenate([fpr_K for fpr_K, _ in curves]))
    ends_2X = sum(
        weight * _ends(fpr_K, tpr_K, knots_X)
        for weight, (fpr_K, tpr_K) in zip(weight_F, curves, strict=True)
    )
    # The last digit of a sum of weights may be beyond 1.
    tpr_K = np.clip(ends_2X, 0, 1).T.reshape(-1)
    return np.repeat(knots_X, 2), tpr_K, len(curves)


def _ends(fpr_K: np.ndarray, tpr_K: np.ndarray, at_X: np.ndarray) -> np.ndarray:
    """The lower and the upper end of a curve at these false positive rates, [2, X]: they differ where
    it is upright."""
    first_X = np.searchsorted(fpr_K, at_X, "left")
    last_X = np.searchsorted(fpr_K, at_X, "right") - 1
    width_X = fpr_K[first_X] - fpr_K[last_X]  # 0 where the curve has a knot
    part_X = np.where(width_X > 0, at_X - fpr_K[last_X], 0) / np.where(width_X > 0, width_X, 1)
    between_X = tpr_K[last_X] + part_X * (tpr_K[first_X] - tpr_K[last_X])
    return np.stack([np.where(width_X > 0, between_X, tpr_K[first_X]), between_X])


def thinned(fpr_K: np.ndarray, tpr_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most so many knots that an eye still tells apart; the first and the last are kept."""
    if len(fpr_K) <= MOST_KNOTS:
        return fpr_K, tpr_K
    kept = np.round(np.linspace(0, len(fpr_K) - 1, MOST_KNOTS)).astype(int)
    return fpr_K[kept], tpr_K[kept]


def drawn_curves(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    fold_RP: np.ndarray,
    weight_SP: np.ndarray,
    at_X: np.ndarray,
) -> np.ndarray:
    """The upper end of the mean curve at these false positive rates for each set of weights, [S, X].

    NaN where a set of weights leaves no fold with both classes.
    """
    tpr_SX = np.zeros((len(weight_SP), len(at_X)))
    pairs_S = np.zeros(len(weight_SP))
    for own_N, label_N, score_N in folds_of(label_P, probability_RP, fold_RP):
        order_N = np.argsort(-score_N, kind="stable")
        last_G = np.append(np.flatnonzero(np.diff(score_N[order_N])), len(own_N) - 1)
        weight_SN = weight_SP[:, own_N[order_N]]
        one_SN = np.cumsum(weight_SN * label_N[order_N], axis=1)
        zero_SN = np.cumsum(weight_SN * (1 - label_N[order_N]), axis=1)
        both_S = one_SN[:, -1] * zero_SN[:, -1]
        usable_S = np.flatnonzero(both_S)
        fpr_SG = np.zeros((len(weight_SP), len(last_G) + 1))
        tpr_SG = np.zeros_like(fpr_SG)
        fpr_SG[usable_S, 1:] = zero_SN[usable_S][:, last_G] / zero_SN[usable_S, -1:]
        tpr_SG[usable_S, 1:] = one_SN[usable_S][:, last_G] / one_SN[usable_S, -1:]
        for s in usable_S:  # at a rate where the curve is upright, interp takes its upper end
            tpr_SX[s] += both_S[s] * np.interp(at_X, fpr_SG[s], tpr_SG[s])
        pairs_S += both_S
    known_S = pairs_S > 0
    tpr_SX[known_S] = np.clip(tpr_SX[known_S] / pairs_S[known_S, None], 0, 1)
    tpr_SX[~known_S] = np.nan
    return tpr_SX
