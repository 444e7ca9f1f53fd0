"""What a table of features says about the labels of people it was not fitted on, and by chance.

One path for a model's embeddings, every baseline and prevalence. For each fold of each repeat,
everything is fitted on the participants outside the fold: what stands for missing values, the scale, the
selection of columns, the strength of the penalty and the threshold (inner folds), the head. A head is
fitted on one row per participant, the mean over their windows; their probability is the mean over
their windows' probabilities. Then the same again, whole, for each permutation of the labels.

The labels of a fold's test part cannot leak: tables hold no labels, and all that fits is given the
labels of the other participants alone (:func:`_test_fold` never sees the rest); besides, the prevalence
of the whole cohort, one number, to which every fold's probabilities are brought.

What the permutations share is what no label enters: the folds (stratified by the true labels, the inner
ones too), the medians, the scale and the directions in which the participants differ. A permuted fit may
so have folds less even than the true one, and in a tiny cohort even a single class to fit on, whose
prediction is that class: its AUC is still 0.5 on average, and varies a little more than the true labels'
would, so that the p value is, if anything, too large.

Knows tables, folds and numbers; no files.

Shapes: P participants, sorted by id; N windows; X columns of the table, Y with those that say what was
missing; R repeats; K folds; S sets of labels, the true ones first; L strengths; T, H the participants who fit
and who are held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from remit import progress
from remit.errors import RemitError, some_of
from remit.evaluation.concordance import comparisons, fold_auc
from remit.evaluation.folds import Folds, deal
from remit.evaluation.metrics import THRESHOLD
from remit.evaluation.readout import Basis, basis_of, fit_each, fit_in, sigmoid

# Raise when a change of the code alters a result.
RESULT_VERSION = 2

NO_FOLD = -1
"""The repeat (and fold) that a table is asked for outside the file of folds: for all, or without one."""

# Probabilities that differ by less are ties: equal rows must not be told apart by rounding. Far below
# what a fit can mean, and above what a sum can lose.
DECIMALS = 12
_SMALLEST = 1e-15  # a probability in the log loss
_AT_ONCE = 1024  # sets of labels; their logits for a fold's windows stay within some MB
_PERMUTE = 30  # what a random draw is for; part of its seed


class Table(Protocol):
    """Features of participants; `candidates.Table`, and those that learn their features in a fold."""

    @property
    def name(self) -> str:
        """For errors"""

    @property
    def columns(self) -> list[str] | None:
        """X names, if they have any"""

    @property
    def participants(self) -> tuple[str, ...]:
        """Everybody in the table, with a label or without"""

    def rows(self, repeat: int, fold: int, train_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows [N, X], NaN where missing, and the index [N] of each row's participant.

        ``train_P`` marks, among :attr:`participants`, who may be learnt from. ``repeat`` is
        ``NO_FOLD`` outside the folds; a table that has no features there raises
        :class:`RemitError`.
        """


class Options(Protocol):
    """What is fitted how; the section ``evaluation`` of the configuration has it."""

    @property
    def inner_folds(self) -> int:
        """Folds within a fit, for the strength and the threshold; fewer in a smaller class"""

    @property
    def strengths(self) -> Sequence[float]:
        """L2 penalties to choose from, on standardised columns"""

    @property
    def select(self) -> int | None:
        """The number of columns to select by \\|t\\| in each fit; all, if None"""

    @property
    def seed(self) -> int:
        """Of the inner folds"""


@dataclass(frozen=True)
class CrossFit:
    """Predictions for participants by fits without them; made by :func:`crossfit`."""

    name: str
    participants: tuple[str, ...]
    label_P: np.ndarray
    probability_RP: np.ndarray
    decision_RP: np.ndarray
    """0 or 1, by each fold's own threshold"""
    fold_RP: np.ndarray
    strength_RK: np.ndarray
    threshold_RK: np.ndarray
    auc: float
    """Within folds, see `concordance`"""
    null_auc_S: np.ndarray
    """The same of each permutation; NaN where no fold had both classes"""

    @property
    def p_value(self) -> float | None:
        """How often chance does as well: (1 + as good or undefined) / (1 + permutations)."""
        if not len(self.null_auc_S):
            return None
        worse = np.count_nonzero(self.null_auc_S < self.auc - 1e-12)
        return (1 + len(self.null_auc_S) - worse) / (1 + len(self.null_auc_S))


def permuted(label_P: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """The true labels, then as many random orders of them, [1 + permutations, P]."""
    rng = np.random.default_rng([seed, _PERMUTE])
    label_SP: np.ndarray = np.stack(
        [label_P, *(rng.permutation(label_P) for _ in range(permutations))]
    )
    return label_SP


@dataclass(frozen=True)
class _Rows:
    """A table's rows in the order of the participants, and what a fit needs of each participant."""

    row_NX: np.ndarray
    start_P: np.ndarray
    """Where each participant's rows begin; P + 1 of them"""
    known_PX: np.ndarray
    """The mean over a participant's rows, missing values counted as 0"""
    missing_PX: np.ndarray
    """The share of a participant's rows in which a value is missing"""

    def of(self, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows of some participants [M, X], and the matrix [H, M] that averages them."""
        at = [np.arange(self.start_P[i], self.start_P[i + 1]) for i in people]
        mean_HM = np.zeros((len(people), sum(map(len, at))))
        edges = np.cumsum([0, *map(len, at)])
        for own, (low, high) in zip(mean_HM, pairwise(edges), strict=True):
            own[low:high] = 1 / (high - low)
        return self.row_NX[np.concatenate(at)], mean_HM


def _rows(
    table: Table, names: Sequence[str], repeat: int, fold: int, train: Sequence[str]
) -> _Rows:
    """The rows of ``names`` in their order, as they are when only ``train`` may be learnt from."""
    learnt, place = set(train), {name: i for i, name in enumerate(table.participants)}
    absent = sorted(set(names) - set(place))
    if absent:
        raise RemitError(
            f"{table.name}: has no participant {some_of(absent)}; expected everybody in the folds; "
            "make both from the same dataset."
        )
    train_P = np.array([name in learnt for name in table.participants])
    row_NX, owner_N = table.rows(repeat, fold, train_P)
    row_NX = np.asarray(row_NX, dtype=np.float64)
    order = np.full(len(place), -1)
    order[[place[name] for name in names]] = np.arange(len(names))
    own_N = order[owner_N]
    sort = np.argsort(own_N, kind="stable")
    sort = sort[own_N[sort] >= 0]
    row_NX, own_N = row_NX[sort], own_N[sort]
    count_P = np.bincount(own_N, minlength=len(names))
    if not count_P.all():
        without = [name for name, count in zip(names, count_P, strict=True) if not count]
        raise RemitError(
            f"{table.name}: participant {some_of(without)} has no row; expected at least one window; "
            "leave them out of the cohort sheet, or look at why their windows were refused."
        )
    if np.isinf(row_NX).any():
        column = int(np.flatnonzero(np.isinf(row_NX).any(0))[0])
        called = table.columns[column] if table.columns else str(column)
        raise RemitError(
            f"{table.name}: column {called} holds an infinite value; expected a number, or none where "
            "it is missing; correct what it is made from."
        )
    start_P = np.concatenate([[0], np.cumsum(count_P)])
    gone_NX = np.isnan(row_NX)
    known_PX, missing_PX = (
        np.add.reduceat(values_NX, start_P[:-1], axis=0) / count_P[:, None]
        for values_NX in (np.where(gone_NX, 0.0, row_NX), gone_NX.astype(np.float64))
    )
    return _Rows(row_NX, start_P, known_PX, missing_PX)


@dataclass(frozen=True)
class _Scale:
    """What a fit learns of its participants without labels: medians, means, standard deviations."""

    median_X: np.ndarray
    indicated: np.ndarray
    """The columns in which somebody missed a value: each gets one that says so"""
    mean_Y: np.ndarray
    sd_Y: np.ndarray
    """0 where the participants do not differ: such a column is left out"""

    def filled(self, row_NX: np.ndarray) -> np.ndarray:
        """Rows without missing values, [N, Y]."""
        gone_NX = np.isnan(row_NX)
        return np.column_stack(
            [np.where(gone_NX, self.median_X, row_NX), gone_NX[:, self.indicated]]
        )

    def scaled(self, filled_NY: np.ndarray) -> np.ndarray:
        """Filled rows, standardised."""
        used_Y = self.sd_Y > 0
        standard_NY: np.ndarray = np.where(
            used_Y, (filled_NY - self.mean_Y) / np.where(used_Y, self.sd_Y, 1.0), 0.0
        )
        return standard_NY


def _scale(rows: _Rows, people: np.ndarray) -> tuple[_Scale, np.ndarray]:
    """What is learnt of some participants, and their own standardised rows, [T, Y]."""
    known_TX, missing_TX = rows.known_PX[people], rows.missing_PX[people]
    indicated = np.flatnonzero(missing_TX.any(0))
    median_X = np.zeros(known_TX.shape[1])
    if rows.missing_PX.any():  # of the participants who fit or of the others, who are filled too
        share_TX = np.where(missing_TX < 1, 1 - missing_TX, np.nan)
        some = (missing_TX < 1).any(0)
        median_X[some] = np.nanmedian((known_TX / share_TX)[:, some], axis=0)
    filled_TY = np.column_stack([known_TX + missing_TX * median_X, missing_TX[:, indicated]])
    mean_Y, sd_Y = filled_TY.mean(0), filled_TY.std(0)
    # Equal values have a standard deviation of rounding.
    sd_Y[sd_Y <= 1e-12 * np.abs(filled_TY).max(0, initial=0.0)] = 0.0
    scale = _Scale(median_X, indicated, mean_Y, sd_Y)
    return scale, scale.scaled(filled_TY)


def _selected(scaled_TY: np.ndarray, label_ST: np.ndarray, select: int) -> np.ndarray:
    """The columns [S, select] of the largest absolute t between the classes, for each set of labels.

    Columns have mean 0 and equal spread, so that the order by \\|t\\| is that by the sum over a class.
    """
    apart_SY = np.abs(label_ST @ scaled_TY).round(DECIMALS)
    chosen: np.ndarray = np.argsort(-apart_SY, axis=1, kind="stable")[:, :select]
    return chosen


@dataclass(frozen=True)
class _Design:
    """Who fits and who is held out, as numbers that no label has entered."""

    fit: np.ndarray
    held_out: np.ndarray
    scale: _Scale
    scaled_TY: np.ndarray
    basis: Basis
    window_MY: np.ndarray
    """The windows of the held out"""
    mean_HM: np.ndarray
    """Averages windows to participants"""


def _design(rows: _Rows, fit: np.ndarray, held_out: np.ndarray) -> _Design:
    scale, scaled_TY = _scale(rows, fit)
    row_MX, mean_HM = rows.of(held_out)
    window_MY = scale.scaled(scale.filled(row_MX))
    return _Design(fit, held_out, scale, scaled_TY, basis_of(scaled_TY), window_MY, mean_HM)


def _heads(
    design: _Design, label_ST: np.ndarray, strength_S: np.ndarray, select: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Coefficients, intercepts, and the selected columns [S, select] that the coefficients are of.

    Without a selection they are of the basis.
    """
    if select is None or select >= design.scaled_TY.shape[1]:
        return *fit_in(design.basis, label_ST, strength_S), None
    chosen_SX = _selected(design.scaled_TY, label_ST, select)
    own_STX = np.moveaxis(design.scaled_TY[:, chosen_SX], 1, 0)
    return *fit_each(own_STX, label_ST, strength_S), chosen_SX


def prevalence_shift(own_S: np.ndarray, asked_S: np.ndarray) -> np.ndarray:
    """What to add to logits of one prevalence that they are those of another, [S].

    0 where one of the two is 0 or 1: those who fit then have one class only.
    """
    both_S = (own_S > 0) & (own_S < 1) & (asked_S > 0) & (asked_S < 1)
    own_S, asked_S = np.where(both_S, own_S, 0.5), np.where(both_S, asked_S, 0.5)
    shift_S: np.ndarray = np.log(asked_S / (1 - asked_S)) - np.log(own_S / (1 - own_S))
    return shift_S


def _predict(
    design: _Design,
    label_ST: np.ndarray,
    strength_LS: np.ndarray,
    select: int | None,
    prevalence_S: np.ndarray | None,
) -> np.ndarray:
    """Probabilities [L, S, H] of the held out, by heads fitted with the labels of those who fit.

    A fold that tests more of one class fits on fewer of it. So that probabilities of all folds can be
    looked at together, each head's intercept is moved from its own prevalence to one for all,
    ``prevalence_S``; it stays where that is None.
    """
    own_S = label_ST.mean(1)
    shift_S = prevalence_shift(own_S, own_S if prevalence_S is None else prevalence_S)
    shift_S = np.tile(shift_S, len(strength_LS))
    score_MR = design.basis.score(design.window_MY)
    sets_ST, strength_S = np.tile(label_ST, (len(strength_LS), 1)), strength_LS.reshape(-1)
    probability_SH = np.empty((len(sets_ST), len(design.held_out)))
    for low in range(0, len(sets_ST), _AT_ONCE):
        part = slice(low, low + _AT_ONCE)
        coefficients, intercept_S, chosen_SX = _heads(
            design, sets_ST[part], strength_S[part], select
        )
        logit_MS = (
            score_MR @ coefficients.T
            if chosen_SX is None
            else np.einsum("msx,sx->ms", design.window_MY[:, chosen_SX], coefficients)
        )
        moved_MS = logit_MS + (intercept_S + shift_S[part])
        probability_SH[part] = (design.mean_HM @ sigmoid(moved_MS)).T
    return probability_SH.round(DECIMALS).reshape(*strength_LS.shape, -1)


def _inner(
    rows: _Rows, fit: np.ndarray, names: Sequence[str], label_T: np.ndarray, key: str, folds: int
) -> list[_Design]:
    """The inner folds of the participants who fit; none, with fewer than two of a class."""
    folds = min(folds, *np.bincount(label_T.astype(int), minlength=2).tolist())
    if folds < 2:
        return []
    dealt = deal(dict(zip(names, label_T.astype(int).tolist(), strict=True)), folds, key)
    fold_T = np.array([dealt[name] for name in names])
    return [_design(rows, fit[fold_T != fold], fit[fold_T == fold]) for fold in range(folds)]


def _tune(
    inner: list[_Design],
    fit: np.ndarray,
    label_ST: np.ndarray,
    options: Options,
    prevalence: float | None,
) -> tuple[np.ndarray, float]:
    """The strength for each set of labels, and the threshold for the first set, by inner folds.

    The strength has the smallest log loss of participants, the stronger one where two are equal.
    Without inner folds the strongest is taken, and 0.5. The threshold is for probabilities of
    ``prevalence``, as those of the held out will be: how far the prevalence of those who fit lies from
    everybody's tells how many of the held out are of which class, and no decision may know that.
    """
    strength_L = np.array(sorted(options.strengths, reverse=True), dtype=np.float64)
    strength_LS = np.repeat(strength_L[:, None], len(label_ST), axis=1)
    if not inner:
        return strength_LS[0], THRESHOLD
    probability_LST = np.empty((*strength_LS.shape, len(fit)))
    for design in inner:
        seen, out = np.isin(fit, design.fit), np.isin(fit, design.held_out)
        probability_LST[..., out] = _predict(
            design, label_ST[:, seen], strength_LS, options.select, label_ST.mean(1)
        )
    right_LST = np.where(label_ST == 1, probability_LST, 1 - probability_LST)
    loss_LS = -np.log(np.clip(right_LST, _SMALLEST, 1.0)).mean(2)
    strength_S = strength_L[loss_LS.round(DECIMALS).argmin(0)]
    asked_1 = label_ST[:1].mean(1) if prevalence is None else np.array([prevalence])
    probability_T = np.empty(len(fit))
    for design in inner:
        seen, out = np.isin(fit, design.fit), np.isin(fit, design.held_out)
        probability_T[out] = _predict(
            design, label_ST[:1, seen], strength_S[None, :1], options.select, asked_1
        )[0, 0]
    return strength_S, best_threshold(probability_T, label_ST[0])


def best_threshold(probability_P: np.ndarray, label_P: np.ndarray) -> float:
    """Where "yes from here on" has the largest balanced accuracy; the nearest to 0.5 of equal ones.

    It lies at 0.5, half-way between two neighbouring probabilities (or one of them and 0 or 1), or at 0 or
    just above 1; at 0.5 where one class is all there is, as permuted labels of a tiny cohort can have it.
    """
    if len(np.unique(label_P)) < 2:
        return THRESHOLD
    edge = np.unique(np.concatenate([[0.0, 1.0], probability_P]))
    ends = [0.0, THRESHOLD, np.nextafter(1, 2)]  # everybody, and nobody, where one stands at 0 or 1
    candidate_C = np.unique(np.append((edge[:-1] + edge[1:]) / 2, ends))
    yes_CP = probability_P >= candidate_C[:, None]
    one_P = label_P == 1
    balanced_C = (yes_CP[:, one_P].mean(1) + (~yes_CP[:, ~one_P]).mean(1)) / 2
    best = balanced_C.round(DECIMALS) == balanced_C.round(DECIMALS).max()
    return float(min(candidate_C[best], key=lambda candidate: (abs(candidate - 0.5), candidate)))


def _test_fold(
    rows: _Rows,
    fit: np.ndarray,
    held_out: np.ndarray,
    names: Sequence[str],
    label_ST: np.ndarray,
    key: str,
    options: Options,
    prevalence: float | None,
) -> tuple[np.ndarray, float, float]:
    """Probabilities [S, H] of the held out; strength and threshold of the true labels.

    Args:
        rows: of everybody.
        fit, held_out: indices of participants, ascending.
        names: of those who fit.
        label_ST: of those who fit; nobody else's are here.
        key: of the inner folds.
        options: what is fitted how.
        prevalence: of class 1, that the probabilities are of: the one thing known of everybody's labels,
            and the same for all of them; None for that of those who fit.
    """
    design = _design(rows, fit, held_out)
    inner = _inner(rows, fit, names, label_ST[0], key, options.inner_folds)
    found, tuned = [], []
    # The true labels go alone: their figures must not depend on how many permutations follow.
    for part in (label_ST[:1], label_ST[1:]):
        if len(part):
            tuned.append(_tune(inner, fit, part, options, prevalence))
            asked_S = None if prevalence is None else np.full(len(part), prevalence)
            found.append(_predict(design, part, tuned[-1][0][None], options.select, asked_S)[0])
    return np.concatenate(found), float(tuned[0][0][0]), tuned[0][1]


def crossfit(table: Table, folds: Folds, options: Options, label_SP: np.ndarray) -> CrossFit:
    """Predict each participant in each repeat by a head fitted without their fold.

    Args:
        table: features of everybody in the folds, at least.
        folds: who is tested where.
        options: what is fitted how.
        label_SP: the true labels of ``folds.names``, then permutations; see :func:`permuted`.

    Raises:
        RemitError: the table lacks somebody or holds an infinite value; the labels are not those of
            the folds.
    """
    names, fold_RP = folds.names, folds.fold_RP
    label_SP = np.asarray(label_SP)
    if label_SP.ndim != 2 or not np.array_equal(label_SP[0], folds.label_P):
        raise RemitError(
            f"{folds.path}: its labels are not the first of those given; expected the labels that the "
            "folds were made with; make the folds again."
        )
    probability_SRP = np.empty((len(label_SP), *fold_RP.shape))
    strength_RK, threshold_RK = np.empty((2, folds.repeats, folds.folds))
    with threadpool_limits(1):  # how many threads add up must not change a sum
        every = list(np.ndindex(folds.repeats, folds.folds))
        for repeat, fold in progress.track(every, f"folds of {table.name}", "fold"):
            out_P = fold_RP[repeat] == fold
            fit, held_out = np.flatnonzero(~out_P), np.flatnonzero(out_P)
            seen = [names[i] for i in fit]
            rows = _rows(table, names, repeat, fold, seen)
            (
                probability_SRP[:, repeat, held_out],
                strength_RK[repeat, fold],
                threshold_RK[repeat, fold],
            ) = _test_fold(
                rows,
                fit,
                held_out,
                seen,
                label_SP[:, fit],
                f"{options.seed}:{repeat}:{fold}",
                options,
                float(folds.label_P.mean()),
            )
    auc_S = np.array(
        [
            fold_auc(*comparisons(probability_RP, fold_RP), label_P, np.ones((1, len(names))))[0]
            for probability_RP, label_P in zip(probability_SRP, label_SP, strict=True)
        ]
    )
    threshold_RP = np.take_along_axis(threshold_RK, fold_RP, axis=1)
    return CrossFit(
        name=table.name,
        participants=names,
        label_P=folds.label_P,
        probability_RP=probability_SRP[0],
        decision_RP=(probability_SRP[0] >= threshold_RP).astype(int),
        fold_RP=fold_RP,
        strength_RK=strength_RK,
        threshold_RK=threshold_RK,
        auc=float(auc_S[0]),
        null_auc_S=auc_S[1:],
    )


@dataclass(frozen=True)
class LeaveOneOut:
    """Predictions for each participant by a fit on all others; made by :func:`leave_one_out`."""

    participants: tuple[str, ...]
    probability_P: np.ndarray
    decision_P: np.ndarray
    auc: float
    """Over all pairs. Each is of two fits: who is left out makes their own class rarer, which draws
    this figure below 0.5 where nothing can be found (Austin et al., Sci Adv 2025)."""


def leave_one_out(table: Table, labels: Mapping[str, int], options: Options) -> LeaveOneOut:
    """:func:`crossfit` with a fold for each participant, and the pooled AUC."""
    names, label_P = _labelled(table, labels)
    everybody = np.arange(len(names))
    probability_P, threshold_P = np.empty((2, len(names)))
    with threadpool_limits(1):
        for left in everybody:
            fit = np.delete(everybody, left)
            seen = [names[i] for i in fit]
            rows = _rows(table, names, NO_FOLD, int(left), seen)
            key = f"{options.seed}:leave out:{left}"
            probability_SH, _, threshold_P[left] = _test_fold(
                rows, fit, everybody[left : left + 1], seen, label_P[None, fit], key, options, None
            )
            probability_P[left] = probability_SH[0, 0]
    pooled = comparisons(probability_P[None], np.zeros((1, len(names)), dtype=int))
    auc = float(fold_auc(*pooled, label_P, np.ones((1, len(names))))[0])
    return LeaveOneOut(names, probability_P, (probability_P >= threshold_P).astype(int), auc)


def _labelled(table: Table, labels: Mapping[str, int]) -> tuple[tuple[str, ...], np.ndarray]:
    names = tuple(sorted(labels))
    label_P = np.array([labels[name] for name in names])
    if min(np.bincount(label_P, minlength=2)) < 2:
        raise RemitError(
            f"{table.name}: {np.count_nonzero(label_P == 0)} participants have label 0 and "
            f"{np.count_nonzero(label_P)} have label 1; expected at least 2 of each; label more people."
        )
    return names, label_P


def final(table: Table, labels: Mapping[str, int], options: Options) -> dict[str, Any]:
    """The head fitted on everybody, for people to come: plain numbers and lists, see :func:`apply`.

    Its ``coefficient`` (with those that say what was missing, ``indicated`` by column number, at the end)
    and ``intercept`` are of the features as they are, missing ones filled with ``median``; ``mean`` and
    ``sd`` are over participants, one row each.
    """
    names, label_P = _labelled(table, labels)
    everybody = np.arange(len(names))
    with threadpool_limits(1):
        rows = _rows(table, names, NO_FOLD, NO_FOLD, names)
        inner = _inner(
            rows, everybody, names, label_P, f"{options.seed}:final", options.inner_folds
        )
        strength_S, threshold = _tune(inner, everybody, label_P[None], options, None)
        design = _design(rows, everybody, everybody)
        coefficients, intercept_S, chosen_SX = _heads(
            design, label_P[None], strength_S, options.select
        )
    scale = design.scale
    standard_Y = np.zeros(len(scale.mean_Y))
    if chosen_SX is None:
        standard_Y = design.basis.axes_XR @ coefficients[0]
        intercept = intercept_S[0] - standard_Y @ design.basis.mean_X
    else:
        standard_Y[chosen_SX[0]] = coefficients[0]
        intercept = intercept_S[0]
    own_Y = np.where(scale.sd_Y > 0, standard_Y / np.where(scale.sd_Y > 0, scale.sd_Y, 1.0), 0.0)
    return {
        "table": table.name,
        "columns": table.columns,
        "median": scale.median_X.tolist(),
        "indicated": scale.indicated.tolist(),
        "mean": scale.mean_Y.tolist(),
        "sd": scale.sd_Y.tolist(),
        "coefficient": own_Y.tolist(),
        "intercept": float(intercept - own_Y @ scale.mean_Y),
        "strength": float(strength_S[0]),
        "threshold": threshold,
        "participants": len(names),
        "labels": np.bincount(label_P, minlength=2).tolist(),
    }


def apply(head: Mapping[str, Any], row_NX: np.ndarray) -> np.ndarray:
    """The probability of each row [N] by :func:`final`'s head; a participant's is the mean of theirs."""
    row_NX = np.asarray(row_NX, dtype=np.float64)
    median_X = np.array(head["median"])
    if row_NX.ndim != 2 or row_NX.shape[1] != len(median_X):
        raise RemitError(
            f"{head['table']}: rows of shape {row_NX.shape} are given; expected {len(median_X)} columns, "
            "as the head was fitted with; make the features again."
        )
    gone_NX = np.isnan(row_NX)
    filled_NY = np.column_stack(
        [np.where(gone_NX, median_X, row_NX), gone_NX[:, np.array(head["indicated"], dtype=int)]]
    )
    return sigmoid(filled_NY @ np.array(head["coefficient"]) + head["intercept"])
