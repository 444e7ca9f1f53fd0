"""The AUC within folds, against scikit-learn's fold by fold."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from remit.evaluation.concordance import comparisons, fold_auc


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_pair_weighted_mean_of_the_folds_own_aucs(seed):
    rng = np.random.default_rng(seed)
    label_P = np.repeat([0, 1], [14, 8])
    fold_RP = np.stack([rng.permutation(np.arange(22) % 4) for _ in range(3)])
    probability_RP = rng.random((3, 22)).round(1)  # with ties
    own, pairs = [], []
    for probability_P, fold_P in zip(probability_RP, fold_RP, strict=True):
        for fold in range(4):
            its = fold_P == fold
            if len(set(label_P[its])) == 2:
                own.append(roc_auc_score(label_P[its], probability_P[its]))
                pairs.append((label_P[its] == 1).sum() * (label_P[its] == 0).sum())
    above_PP, met_PP = comparisons(probability_RP, fold_RP)
    found = fold_auc(above_PP, met_PP, label_P, np.ones((1, 22)))
    np.testing.assert_allclose(found, np.average(own, weights=pairs))


def test_a_weight_is_a_number_of_copies_in_the_same_fold():
    rng = np.random.default_rng(0)
    label_P, fold_RP = np.array([0, 0, 1, 1, 0, 1]), np.array([[0, 0, 0, 1, 1, 1]])
    probability_RP = rng.random((1, 6))
    weight_P = np.array([2, 1, 3, 1, 2, 1])
    copied = np.repeat(np.arange(6), weight_P)
    weighted = fold_auc(*comparisons(probability_RP, fold_RP), label_P, weight_P[None])
    copies = comparisons(probability_RP[:, copied], fold_RP[:, copied])
    np.testing.assert_allclose(
        weighted, fold_auc(*copies, label_P[copied], np.ones((1, len(copied))))
    )


def test_without_a_pair_there_is_no_auc():
    above_PP, met_PP = comparisons(np.array([[0.2, 0.8]]), np.array([[0, 1]]))
    assert np.isnan(fold_auc(above_PP, met_PP, np.array([0, 1]), np.ones((1, 2)))).all()
