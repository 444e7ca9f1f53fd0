"""What candidates share that train a network anew in every fold, and not a head on a table.

One training takes minutes and not milliseconds. So they are trained in the first repeats only
(`folds.MOST_REPEATS`) and not for permuted labels, and nothing is chosen: the number of steps is fixed,
the last one is kept, decisions are made at 0.5.

Shapes: P participants with a label, sorted; R repeats; K folds; T, H the participants who fit and who
are held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from remit import progress
from remit.errors import RemitError, some_of
from remit.evaluation.candidates import Kind
from remit.evaluation.concordance import comparisons, fold_auc
from remit.evaluation.crossfit import DECIMALS, CrossFit, prevalence_shift
from remit.evaluation.folds import MOST_REPEATS, Folds
from remit.evaluation.metrics import THRESHOLD

RESULT_VERSION = 1  # raise when a change here alters a prediction

COSTS = (
    "decisions at 0.5, for no inner folds are fitted; the model's difference to it is of decisions at 0.5",
    f"trained in the first {MOST_REPEATS} repeats at most; the difference is of the same ones",
    "no permutations: no p value, and intervals without what a fit to other people would change",
)
"""Notes of every such candidate: what it lacks, for what it costs"""


class Trained(Protocol):
    """A candidate that trains itself; like a `candidates.Table`, but it has no columns."""

    name: str
    kind: Kind
    columns: None

    @property
    def notes(self) -> tuple[str, ...]:
        """How it is trained, and what it lacks"""

    def crossfit(self, folds: Folds, *, seed: int, log: Callable[[str], None]) -> CrossFit:
        """Predict each participant in each repeat of ``folds`` by a network trained without their fold."""


@dataclass(frozen=True)
class Fold:
    """What a training may know: who fits, their labels alone, and who is predicted then."""

    repeat: int
    fold: int
    """Both counted from 0"""
    fit: tuple[str, ...]
    held_out: tuple[str, ...]
    label_T: np.ndarray
    prevalence: float
    """Of class 1 in everybody: the one thing known of the other labels, and the same in every fold"""

    def shift(self, own: float | None = None) -> float:
        """What to add to the logit of class 1, so that probabilities of all folds are of one prevalence.

        ``own`` is the prevalence that the training was made to see; that of those who fit, if None.
        """
        seen = self.label_T.mean() if own is None else own
        return float(prevalence_shift(np.array([seen]), np.array([self.prevalence]))[0])


def train_in_folds(
    name: str,
    folds: Folds,
    train: Callable[[Fold], np.ndarray],
    log: Callable[[str], None],
) -> CrossFit:
    """Collect the predictions of one training per fold.

    Args:
        name: of the candidate.
        folds: who is tested where.
        train: trains a network for a fold; returns the probability of class 1 of each held out, [H].
        log: takes lines of progress.

    Raises:
        RemitError: when a prediction is no number.
    """
    names, fold_RP, label_P = folds.names, folds.fold_RP, folds.label_P
    probability_RP = np.empty(fold_RP.shape)
    with torch.random.fork_rng(devices=[]):  # nobody else's draws are moved
        every = list(np.ndindex(folds.repeats, folds.folds))
        for repeat, number in progress.track(every, f"folds of {name}", "fold"):
            out_P = fold_RP[repeat] == number
            fold = Fold(
                repeat,
                number,
                tuple(names[i] for i in np.flatnonzero(~out_P)),
                tuple(names[i] for i in np.flatnonzero(out_P)),
                label_P[~out_P],
                float(label_P.mean()),
            )
            probability_RP[repeat, out_P] = train(fold).round(DECIMALS)
            log(f"{name}: repeat {repeat + 1}, fold {number + 1} of {folds.folds}")
    wrong = np.flatnonzero(~np.isfinite(probability_RP).all(0))
    if len(wrong):
        raise RemitError(
            f"{name}: the probability of participant {some_of([names[i] for i in wrong])} is no "
            "number; expected one; look for extreme values in the recordings."
        )
    auc = fold_auc(*comparisons(probability_RP, fold_RP), label_P, np.ones((1, len(names))))
    return CrossFit(
        name=name,
        participants=names,
        label_P=label_P,
        probability_RP=probability_RP,
        decision_RP=(probability_RP >= THRESHOLD).astype(int),
        fold_RP=fold_RP,
        strength_RK=np.empty((folds.repeats, 0)),  # it has none
        threshold_RK=np.full((folds.repeats, folds.folds), THRESHOLD),
        auc=float(auc[0]),
        null_auc_S=np.empty(0),
    )
