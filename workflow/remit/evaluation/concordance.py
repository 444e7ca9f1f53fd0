"""The AUC of predictions made in folds: pairs of participants are compared only within a fold.

Scores of different folds come from different fits, and comparing them drags the pooled AUC below 0.5
when there is nothing to be found (Austin et al., Sci Adv 2025). So the AUC here is the part of all
pairs, one participant of each class out of the same fold, in which the one of class 1 has the
higher probability; ties count half. Knows numbers only.

Shapes: P participants, R repeats of the folds, S sets of labels or weights.
"""

from __future__ import annotations

import numpy as np


def comparisons(probability_RP: np.ndarray, fold_RP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How often participant i stood above j, and how often the two met, over all repeats.

    Returns:
        above_PP, met_PP: float64; a tie is half. Nobody meets themselves.
    """
    above_PP, met_PP = np.zeros((2, fold_RP.shape[1], fold_RP.shape[1]))
    for probability_P, fold_P in zip(probability_RP, fold_RP, strict=True):
        meet_PP = fold_P[:, None] == fold_P
        apart_PP = probability_P[:, None] - probability_P
        above_PP += meet_PP * (0.5 + 0.5 * np.sign(apart_PP))
        met_PP += meet_PP
    np.fill_diagonal(above_PP, 0.0)
    np.fill_diagonal(met_PP, 0.0)
    return above_PP, met_PP


def fold_auc(
    above_PP: np.ndarray, met_PP: np.ndarray, label_P: np.ndarray, weight_SP: np.ndarray
) -> np.ndarray:
    """The AUC within folds for each set of participants' weights, [S]; NaN where no pair is left."""
    one_SP = weight_SP * (label_P == 1)
    zero_SP = weight_SP * (label_P == 0)
    won_S = np.einsum("si,ij,sj->s", one_SP, above_PP, zero_SP, optimize=True)
    all_S = np.einsum("si,ij,sj->s", one_SP, met_PP, zero_SP, optimize=True)
    with np.errstate(invalid="ignore"):
        auc_S: np.ndarray = np.where(all_S > 0, won_S / np.where(all_S > 0, all_S, 1), np.nan)
    return auc_S
