"""What is reported of predictions made in folds: figures with intervals, differences, subgroups.

The participant is the unit. A model's probability of a participant is the mean over the repeats; its
decision is what most repeats decide (half of them is enough), once at 0.5 and once at the thresholds
chosen in the inner folds. The AUC is that of the pairs within folds.

The interval of a figure has to hold what the *procedure* gives on other cohorts of this size, and
there other people are in the fit as well. A bootstrap of the predictions as they are misses that: its
95 % intervals held an AUC of 0.5 in 91.5 % of null cohorts of 7 against 14, and the true difference of
two AUCs in 75-80 % (docs/benchmarks.md). So the intervals that are called low and high are score and
exact intervals whose standard error is multiplied by the *spread*: how much wider the AUC scatters
when the whole fit is run again under permuted labels than the exact null of fixed scores does. The
bias-corrected and accelerated bootstrap stands beside each figure, unwidened; calibration has no
other: that of its slope is widened. How alike two candidates' AUCs scatter is taken from the same
permutations. The intervals of the slope and of a difference of Brier scores remain too narrow.

Knows numbers only; the labels come from the sheet, the predictions from the cross-fit.

Shapes: P participants, R repeats of the folds, S sets of weights (everybody once, then the
resamples, then everybody but one), G groups of the calibration curve.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from scipy.special import expit, logit
from scipy.stats import norm

from remit.evaluation.concordance import comparisons, fold_auc
from remit.evaluation.metrics import (
    FEWEST_TO_BOOTSTRAP,
    LEVEL,
    THRESHOLD,
    auc_interval,
    decision_figures,
    exact,
)
from remit.evaluation.power import widening
from remit.evaluation.roc import drawn_curves, mean_curve, thinned

# Raise when a change of the code alters the figures.
RESULT_VERSION = 4

PAIRED = ("auc", "brier", "balanced_accuracy")
POOLED_BIAS = (
    "pooled over folds of one participant: whoever is left out moves the fit's prevalence away from "
    "their own class, so without an effect this AUC lies below 0.5 (down to 0.0 under strong "
    "regularisation; Austin et al., Sci Adv 2025); secondary, not comparable with the AUC within "
    "folds"
)
AGE_BANDS = (30, 45, 60)
_SMALLEST_PROBABILITY = 1e-6
_FEWEST_IN_A_POINT = 7  # participants in a point of the calibration curve
_MOST_POINTS = 10
# What a draw is for, after the seed.
_STRATIFIED, _UNSTRATIFIED, _SHUFFLED = 1, 2, 3
_SHUFFLES = 1000
_BAND_AT = np.linspace(0, 1, 51)  # false positive rates at which the band of a ROC curve is known
_TOO_FEW = f"too few: under {FEWEST_TO_BOOTSTRAP} in a class"
_NO_WIDTH = "the resamples do not differ"


class Predictions(Protocol):
    """Predictions in folds, as `crossfit` returns them."""

    @property
    def probability_RP(self) -> np.ndarray:
        """Probability of class 1 of each participant, out of the fold that had them left out."""

    @property
    def decision_RP(self) -> np.ndarray:
        """The decision at the threshold of the inner folds, 0 or 1."""

    @property
    def fold_RP(self) -> np.ndarray:
        """The fold of each participant."""

    @property
    def null_auc_S(self) -> np.ndarray:
        """The AUC of the whole fit under permuted labels, the same for all candidates; may be empty."""


class _Draws:
    """The resamples of a set of labels: the same for every candidate, so that differences pair.

    AUC and balanced accuracy are resampled within the classes: they do not depend on the prevalence,
    and the folds were made for these class sizes. Brier score, accuracy, precision, F1 and
    calibration do depend on it, so there the prevalence is drawn along with the people.
    """

    def __init__(self, label_P: np.ndarray, seed: int, resamples: int) -> None:
        self.label_P, self.resamples = label_P, resamples
        people = len(label_P)
        rng = np.random.default_rng([seed, _STRATIFIED])
        within_SP = np.zeros((resamples, people))
        for label in (0, 1):
            its = np.flatnonzero(label_P == label)
            even = np.full(len(its), 1 / max(len(its), 1))
            within_SP[:, its] = rng.multinomial(len(its), even, resamples)
        rng = np.random.default_rng([seed, _UNSTRATIFIED])
        any_SP = rng.multinomial(people, np.full(people, 1 / people), resamples)
        ends = np.ones((1, people)), 1 - np.eye(people)
        self.within_SP = np.vstack([ends[0], within_SP, ends[1]])
        self.any_SP = np.vstack([ends[0], any_SP, ends[1]])

    def interval(
        self, values_S: np.ndarray, range_: tuple[float, float]
    ) -> tuple[float, float] | None:
        """BCa (Efron 1987) from a figure's values for the sets of weights; None without width."""
        drawn_R = values_S[1 : self.resamples + 1]
        drawn_R = drawn_R[~np.isnan(drawn_R)]
        value, jack_P = values_S[0], values_S[self.resamples + 1 :]
        if np.isnan(value) or not len(drawn_R) or drawn_R.min() == drawn_R.max():
            return None
        share = (np.mean(drawn_R < value) + np.mean(drawn_R <= value)) / 2
        bias = norm.ppf(np.clip(share, 1 / (len(drawn_R) + 1), len(drawn_R) / (len(drawn_R) + 1)))
        acceleration = 0.0
        if np.isfinite(jack_P).all() and np.ptp(jack_P) > 0:
            apart_P = jack_P.mean() - jack_P
            acceleration = (apart_P**3).sum() / (6 * (apart_P**2).sum() ** 1.5)
        z_2 = bias + norm.ppf([(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        share_2 = norm.cdf(bias + z_2 / np.maximum(1 - acceleration * z_2, 1e-9))
        # A quantile that is a resample's own value: between infinite ones there is no other.
        low, high = np.quantile(drawn_R, share_2, method="nearest")
        # Strongly skewed draws can leave the figure outside of its own interval.
        low, high = min(low, value), max(high, value)
        return (float(max(low, range_[0])), float(min(high, range_[1]))) if low < high else None


def _checked(label_P: np.ndarray, *arrays_RP: np.ndarray) -> None:
    """Callers inside remit made these arrays, so what is wrong here is a defect: no RemitError."""
    if label_P.ndim != 1 or not np.isin(label_P, (0, 1)).all() or len(set(label_P.tolist())) < 2:
        raise ValueError("labels must be 0 or 1, and both must be there")
    for array_RP in arrays_RP:
        if array_RP.ndim != 2 or array_RP.shape[1] != len(label_P) or not len(array_RP):
            raise ValueError(f"{array_RP.shape} is not (repeats, {len(label_P)} participants)")
        if not np.isfinite(array_RP).all() or (array_RP < 0).any():
            raise ValueError("probabilities, decisions and folds must be finite and not negative")
    if (arrays_RP[0] > 1).any():
        raise ValueError("probabilities must not be above 1")


def majority(decision_RP: np.ndarray) -> np.ndarray:
    """What most repeats decide for each participant, bool [P]; half of them is enough for class 1."""
    decided_P: np.ndarray = np.asarray(decision_RP).mean(0) >= THRESHOLD
    return decided_P


def spread_of(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    fold_RP: np.ndarray,
    null_auc_S: np.ndarray | None,
    *,
    seed: int,
) -> float:
    """How much wider this AUC scatters than that of fixed scores compared in all pairs; at least 1.

    By the AUCs of the whole fit under permuted labels (:func:`remit.evaluation.power.widening`).
    Without them the found scores are held fixed and only the labels permuted: that has what
    comparing only within folds costs, and lacks what fitting costs.
    """
    null_S = np.asarray(null_auc_S if null_auc_S is not None else [], dtype=float)
    if not len(null_S):
        rng = np.random.default_rng([seed, _SHUFFLED])
        met = comparisons(probability_RP, fold_RP)
        all_1P = np.ones((1, len(label_P)))
        null_S = np.array(
            [fold_auc(*met, rng.permutation(label_P), all_1P)[0] for _ in range(_SHUFFLES)]
        )
    n1 = int((label_P == 1).sum())
    return widening(null_S, n1, len(label_P) - n1)


def _finite(bounds: tuple[float, float] | None) -> list[float | None] | None:
    """The bounds for JSON: a side that is open is None."""
    return [edge if math.isfinite(edge) else None for edge in bounds] if bounds else None


def _decision_values(label_P: np.ndarray, guess_P: np.ndarray, draws: _Draws) -> dict[str, Any]:
    """The figures of decisions for each set of weights, [S] each; NaN where one is undefined."""

    def counts(weight_SP: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(
            weight_SP @ ((label_P == label) & (guess_P == guess)).astype(float)
            for label, guess in ((1, True), (1, False), (0, True), (0, False))
        )

    with np.errstate(invalid="ignore"):
        hit, miss, false_alarm, right_no = counts(draws.any_SP)
        # As in metrics: precision and F1 are 0 where nothing is guessed.
        guessed = np.where(hit + false_alarm > 0, hit + false_alarm, 1)
        values = {
            "accuracy": (hit + right_no) / (hit + miss + false_alarm + right_no),
            "precision": hit / guessed,
            "f1": 2 * hit / np.maximum(2 * hit + miss + false_alarm, 1),
        }
        hit, miss, false_alarm, right_no = counts(draws.within_SP)
        values["recall"] = hit / (hit + miss)
        values["balanced_accuracy"] = (values["recall"] + right_no / (false_alarm + right_no)) / 2
    return values


def _auc(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    fold_RP: np.ndarray,
    draws: _Draws,
    spread: float,
) -> tuple[dict[str, Any], np.ndarray]:
    above_PP, met_PP = comparisons(probability_RP, fold_RP)
    values_S = fold_auc(above_PP, met_PP, label_P, draws.within_SP)
    value, n1 = float(values_S[0]), int((label_P == 1).sum())
    if not math.isfinite(value):
        method = "undefined: nobody of one class met anybody of the other in a fold"
        return dict.fromkeys(("value", "low", "high", "bootstrap")) | {"method": method}, values_S
    if np.array_equal(above_PP, met_PP / 2):  # everybody has the same probability, whoever they are
        same = {"value": value, "low": value, "high": value, "bootstrap": [value, value]}
        return same | {"method": "0.5 by construction"}, values_S
    low, high = auc_interval(value, n1, len(label_P) - n1, LEVEL, spread)
    bootstrap = _finite(draws.interval(values_S, (0.0, 1.0)))
    return {
        "value": value,
        "low": low,
        "high": high,
        "method": "score interval times the spread",
        "bootstrap": bootstrap,
    }, values_S


def _brier(
    label_P: np.ndarray, probability_RP: np.ndarray, draws: _Draws, spread: float
) -> tuple[dict[str, Any], np.ndarray]:
    """The mean over repeats: one fit is what will be used, and a mean of fits is better than one."""
    weight_SP = draws.any_SP
    values_S = weight_SP @ ((probability_RP - label_P) ** 2).mean(0) / weight_SP.sum(1)
    value, bounds = float(values_S[0]), draws.interval(values_S, (0.0, 1.0))
    method = "BCa bootstrap times the spread"
    few = min((label_P == 1).sum(), (label_P == 0).sum()) < FEWEST_TO_BOOTSTRAP
    if few or bounds is None:
        low, high, method = 0.0, 1.0, _TOO_FEW if few else _NO_WIDTH
    else:
        low, high = (min(1.0, max(0.0, value + spread * (edge - value))) for edge in bounds)
    return {
        "value": value,
        "low": low,
        "high": high,
        "method": method,
        "bootstrap": _finite(bounds),
    }, values_S


def figures(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    decision_RP: np.ndarray,
    fold_RP: np.ndarray,
    *,
    seed: int,
    resamples: int,
    null_auc_S: np.ndarray | None = None,
) -> dict[str, Any]:
    """All figures of one candidate at participant level, ready for JSON.

    Args:
        label_P: 0 or 1; both must be there.
        probability_RP: probability of class 1 in each repeat.
        decision_RP: decision at the thresholds of the inner folds, 0 or 1.
        fold_RP: fold of each participant in each repeat.
        seed: of the resamples; the same seed and labels give the same resamples.
        resamples: of the bootstrap.
        null_auc_S: AUC of the whole fit under permuted labels. Without it the intervals leave out
            what fitting to other people would change (:func:`spread_of`).

    Returns:
        ``n``, ``n_positive``, ``repeats``, ``level``, ``spread``; ``auc`` and ``brier``, each
        ``{value, low, high, method, bootstrap}``; the same for accuracy, balanced accuracy,
        precision, recall and F1 under ``at_half`` and ``at_inner_threshold``; ``calibration``
        with ``intercept``, ``slope`` and ``curve``. ``bootstrap`` is [low, high] of the predictions as
        they are, or None without width; a side without a limit is None.
    """
    label_P = np.asarray(label_P)
    _checked(label_P, probability_RP, decision_RP, fold_RP)
    draws = _Draws(label_P, seed, resamples)
    mean_P = probability_RP.mean(0)
    spread = spread_of(label_P, probability_RP, fold_RP, null_auc_S, seed=seed)
    permuted = null_auc_S is not None and len(null_auc_S) > 0

    def decided(guess_P: np.ndarray) -> dict[str, Any]:
        values = _decision_values(label_P, guess_P, draws)
        found = decision_figures(label_P, guess_P, spread=spread)
        for key, figure in found.items():
            figure["method"] += " times the spread"
            figure["bootstrap"] = _finite(draws.interval(values[key], (0.0, 1.0)))
        return found

    return {
        "n": len(label_P),
        "n_positive": int(label_P.sum()),
        "repeats": len(probability_RP),
        "level": LEVEL,
        "spread": {
            "value": spread,
            "method": "refit under permuted labels"
            if permuted
            else "fixed scores, permuted labels",
        },
        "auc": _auc(label_P, probability_RP, fold_RP, draws, spread)[0],
        "brier": _brier(label_P, probability_RP, draws, spread)[0],
        "at_half": decided(mean_P >= THRESHOLD),
        "at_inner_threshold": decided(majority(decision_RP)),
        "calibration": _calibration(label_P, probability_RP, draws, spread),
    }


def roc(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    fold_RP: np.ndarray,
    *,
    seed: int,
    resamples: int,
    spread: float,
) -> dict[str, Any]:
    """The mean ROC curve of the folds (:func:`remit.evaluation.roc.mean_curve`) and its band.

    Returns:
        ``folds``, those with both classes; ``curve``, pairs of false and true positive rate; ``band``,
        false positive rate, low and high of the true positive rate: 95 % of the resamples of
        participants at each rate by itself, and no less than the score interval (Wilson 1927) of a part
        of the class that is found, times the spread; None with the reason in ``method``.

    Where a curve runs along an edge all resamples do: by them alone the band of a perfect separation of
    7 from 14 has no width.
    """
    label_P = np.asarray(label_P)
    _checked(label_P, probability_RP, fold_RP)
    fpr_K, tpr_K, folds = mean_curve(label_P, probability_RP, fold_RP)
    found: dict[str, Any] = {
        "folds": folds,
        "curve": [[float(x), float(y)] for x, y in zip(*thinned(fpr_K, tpr_K), strict=True)],
        "band": None,
    }
    if not folds:
        return found | {
            "method": "undefined: nobody of one class met anybody of the other in a fold"
        }
    if min((label_P == 1).sum(), (label_P == 0).sum()) < FEWEST_TO_BOOTSTRAP:
        return found | {"method": f"no band: {_TOO_FEW}"}
    draws = _Draws(label_P, seed, resamples)
    drawn_SX = drawn_curves(
        label_P, probability_RP, fold_RP, draws.within_SP[: resamples + 1], _BAND_AT
    )
    value_X, drawn_SX = drawn_SX[0], drawn_SX[1:][~np.isnan(drawn_SX[1:, 0])]
    edges_2X = np.quantile(drawn_SX, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    score_2X = _score_interval(value_X, int((label_P == 1).sum()))
    score_2X[:, _BAND_AT == 1] = 1.0  # where everybody is called positive, class 1 is too
    edges_2X = np.stack(
        [np.minimum(edges_2X[0], score_2X[0]), np.maximum(edges_2X[1], score_2X[1])]
    )
    low_X = np.minimum(value_X, np.clip(value_X + spread * (edges_2X[0] - value_X), 0, 1))
    high_X = np.maximum(value_X, np.clip(value_X + spread * (edges_2X[1] - value_X), 0, 1))
    found["band"] = [
        [float(x), float(low), float(high)]
        for x, low, high in zip(_BAND_AT, low_X, high_X, strict=True)
    ]
    return found | {
        "method": "bootstrap over participants, no less than a score interval of class 1, times the "
        "spread, at each rate by itself"
    }


def _score_interval(part_X: np.ndarray, n: int) -> np.ndarray:
    """Low and high of parts of ``n`` (Wilson 1927), [2, X]; a mean over folds is no whole count."""
    squared = float(norm.ppf((1 + LEVEL) / 2)) ** 2
    middle_X = (part_X + squared / (2 * n)) / (1 + squared / n)
    half_X = np.sqrt(squared * (part_X * (1 - part_X) / n + squared / (4 * n**2)))
    half_X /= 1 + squared / n
    bounds_2X: np.ndarray = np.clip(np.stack([middle_X - half_X, middle_X + half_X]), 0, 1)
    return bounds_2X


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Of probabilities; those of 0 and 1 as of the nearest that have finite ones."""
    odds: np.ndarray = logit(np.clip(probability, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY))
    return odds


def calibration_intercepts(
    logit_P: np.ndarray, label_P: np.ndarray, weight_SP: np.ndarray
) -> np.ndarray:
    """What has to be added to the log odds for the mean probability to be the prevalence, [S].

    The intercept of a logistic regression with the log odds as offset (calibration in the large);
    infinite where one class is missing. By bisection: the mean probability grows with it.
    """
    rate_S = weight_SP @ label_P / weight_SP.sum(1)
    low_S, high_S = np.full((2, len(weight_SP)), [[-60.0], [60.0]])
    for _ in range(60):  # 120 / 2^60 is below the rounding of the result
        middle_S = (low_S + high_S) / 2
        mean_S = (weight_SP * expit(logit_P + middle_S[:, None])).sum(1) / weight_SP.sum(1)
        low_S, high_S = (
            np.where(mean_S < rate_S, middle_S, low_S),
            np.where(mean_S < rate_S, high_S, middle_S),
        )
    found_S = (low_S + high_S) / 2
    return np.where(rate_S == 0, -np.inf, np.where(rate_S == 1, np.inf, found_S))


def calibration_slopes(
    logit_P: np.ndarray, label_P: np.ndarray, weight_SP: np.ndarray
) -> np.ndarray:
    """The slope of a logistic regression of the label on the log odds, [S].

    Infinite where the log odds separate the classes (no best slope exists), NaN where they do not
    differ. Newton's steps, halved as long as the likelihood does not grow.
    """
    slope_S = np.full(len(weight_SP), np.nan)
    there_SP = weight_SP > 0

    def edge(label: int, of: Callable[..., Any], fill: float) -> np.ndarray:
        found: np.ndarray = of(np.where(there_SP & (label_P == label), logit_P, fill), axis=1)
        return found

    least1_S, most1_S = edge(1, np.min, np.inf), edge(1, np.max, -np.inf)
    least0_S, most0_S = edge(0, np.min, np.inf), edge(0, np.max, -np.inf)
    up_S, down_S = most0_S <= least1_S, most1_S <= least0_S
    slope_S[up_S & ~down_S], slope_S[down_S & ~up_S] = np.inf, -np.inf
    todo = np.flatnonzero(~up_S & ~down_S)
    if not len(todo):
        return slope_S
    w_SP = weight_SP[todo]
    scale = float(logit_P.std())
    x_P = (logit_P - logit_P.mean()) / scale

    def likelihood(b_S2: np.ndarray) -> np.ndarray:
        eta_SP = b_S2[:, :1] + b_S2[:, 1:] * x_P
        total: np.ndarray = (w_SP * (label_P * eta_SP - np.logaddexp(0, eta_SP))).sum(1)
        return total

    b_S2 = np.zeros((len(todo), 2))
    reached_S = likelihood(b_S2)
    for _ in range(100):
        p_SP = expit(b_S2[:, :1] + b_S2[:, 1:] * x_P)
        residual_SP, v_SP = w_SP * (label_P - p_SP), w_SP * p_SP * (1 - p_SP)
        g_S2 = np.stack([residual_SP.sum(1), residual_SP @ x_P], 1)
        h00_S, h01_S, h11_S = v_SP.sum(1), v_SP @ x_P, v_SP @ x_P**2
        inverse_S = 1 / np.maximum(h00_S * h11_S - h01_S**2, 1e-300)
        step_S2 = inverse_S[:, None] * np.stack(
            [h11_S * g_S2[:, 0] - h01_S * g_S2[:, 1], h00_S * g_S2[:, 1] - h01_S * g_S2[:, 0]], 1
        )
        size_S = np.ones(len(todo))
        for _ in range(30):
            after_S = likelihood(b_S2 + size_S[:, None] * step_S2)
            worse_S = ~(after_S >= reached_S - 1e-12 * np.abs(reached_S))
            if not worse_S.any():
                break
            size_S = np.where(worse_S, size_S / 2, size_S)
        b_S2 = b_S2 + size_S[:, None] * step_S2
        reached_S = likelihood(b_S2)
        if (np.abs(step_S2) <= 1e-10 * (1 + np.abs(b_S2))).all():
            break
    slope_S[todo] = b_S2[:, 1] / scale
    return slope_S


def _calibration(
    label_P: np.ndarray, probability_RP: np.ndarray, draws: _Draws, spread: float
) -> dict[str, Any]:
    """Intercept, slope and curve; Van Calster et al. 2016, J Clin Epidemiol 74:167.

    Intercept and slope are those of one fit, averaged over the repeats: a mean of fits is less sure of
    itself than the one that will be used. The slope's interval is widened by the spread, the
    intercept's holds the prevalence that all fits are brought to and needs none.
    """
    logit_RP = log_odds(probability_RP)
    undefined = {
        "intercept": "undefined",
        "slope": "undefined: the log odds separate the classes, or do not differ",
    }
    found: dict[str, Any] = {}
    for key, compute in (("intercept", calibration_intercepts), ("slope", calibration_slopes)):
        with np.errstate(invalid="ignore"):  # infinite in one repeat and minus infinite in another
            values_S = np.mean([compute(p, label_P, draws.any_SP) for p in logit_RP], axis=0)
        bounds, value = draws.interval(values_S, (-math.inf, math.inf)), float(values_S[0])
        method = "BCa bootstrap over participants"
        if not math.isfinite(value):
            value, bounds, method = None, None, undefined[key]  # type: ignore[assignment]
        elif bounds is None:
            method = f"no limits: {_NO_WIDTH}"
        else:
            if key == "slope":
                method += " times the spread; too narrow"
                below, above = (value + spread * (edge - value) for edge in bounds)
                bounds = below, above
            if not np.isfinite(bounds).all():
                method += "; a limit is open: some resamples are separated"
        low, high = _finite(bounds) or (None, None)
        found[key] = {"value": value, "low": low, "high": high, "method": method}
    return found | {"curve": calibration_curve(label_P, probability_RP.mean(0))}


def calibration_curve(label_P: np.ndarray, mean_P: np.ndarray) -> list[dict[str, Any]]:
    """The observed share of class 1 in groups of equal size by predicted probability.

    As many groups as hold 7 participants each, 2 to 10; participants with the same probability stay
    together. Each: ``n``, ``n_positive``, mean ``probability``, ``observed`` and its exact interval.
    """
    order_P = np.argsort(mean_P, kind="stable")
    groups = int(np.clip(len(mean_P) // _FEWEST_IN_A_POINT, 2, _MOST_POINTS))
    sorted_P = mean_P[order_P]
    cuts = {
        int(np.searchsorted(sorted_P, sorted_P[round(len(mean_P) * group / groups)]))
        for group in range(1, groups)
        if len(mean_P) > 1
    }
    curve = []
    for its in np.split(order_P, sorted(cuts - {0})):
        positive = int(label_P[its].sum())
        low, high = exact(positive, len(its))
        curve.append(
            {
                "n": len(its),
                "n_positive": positive,
                "probability": float(mean_P[its].mean()),
                "observed": positive / len(its),
                "low": low,
                "high": high,
            }
        )
    return curve


def paired(
    label_P: np.ndarray, model: Predictions, other: Predictions, *, seed: int, resamples: int
) -> dict[str, Any]:
    """How much the model's figures differ from another candidate's on the same people and folds.

    ``{figure: {value, low, high, method, bootstrap, correlation}}`` for AUC, Brier score and balanced
    accuracy at the inner thresholds; model minus other. The intervals of the two are joined by square
    and add (Zou and Donner 2008, Stat Med 27:1693) with the correlation of the two: of AUCs over the
    same permuted labels, both fitted again, where both have them; of the others over the same
    resamples, which know no other fit. ``bootstrap`` is BCa of the difference itself.
    """
    label_P = np.asarray(label_P)
    for its in (model, other):
        _checked(label_P, its.probability_RP, its.decision_RP, its.fold_RP)
    if not np.array_equal(model.fold_RP, other.fold_RP):
        raise ValueError("candidates to be compared must have the same folds")
    draws = _Draws(label_P, seed, resamples)

    def single(its: Predictions) -> dict[str, tuple[dict[str, Any], np.ndarray]]:
        spread = spread_of(label_P, its.probability_RP, its.fold_RP, its.null_auc_S, seed=seed)
        guess_P = majority(its.decision_RP)
        return {
            "auc": _auc(label_P, its.probability_RP, its.fold_RP, draws, spread),
            "brier": _brier(label_P, its.probability_RP, draws, spread),
            "balanced_accuracy": (
                decision_figures(label_P, guess_P, spread=spread)["balanced_accuracy"],
                _decision_values(label_P, guess_P, draws)["balanced_accuracy"],
            ),
        }

    one, two = single(model), single(other)
    nulls = model.null_auc_S, other.null_auc_S
    of_refits = {"auc": _correlation(*nulls)} if all(map(len, nulls)) else {}
    return {key: _difference(*one[key], *two[key], draws, of_refits.get(key)) for key in PAIRED}


def _correlation(one_N: np.ndarray, two_N: np.ndarray) -> float:
    """Of what is finite in both; a candidate that does not vary shares nothing with another."""
    kept = np.isfinite(one_N) & np.isfinite(two_N)
    one_N, two_N = one_N[kept], two_N[kept]
    flat = not len(one_N) or np.ptp(one_N) == 0 or np.ptp(two_N) == 0
    return 0.0 if flat else float(np.corrcoef(one_N, two_N)[0, 1])


def _difference(
    one: dict[str, Any],
    one_S: np.ndarray,
    two: dict[str, Any],
    two_S: np.ndarray,
    draws: _Draws,
    of_refits: float | None,
) -> dict[str, Any]:
    """The difference of two figures; ``of_refits`` is their correlation where fits are run again."""
    if one["value"] is None or two["value"] is None:
        keys = ("value", "low", "high", "bootstrap", "correlation")
        return dict.fromkeys(keys) | {"method": "undefined"}
    drawn = slice(1, draws.resamples + 1)
    over, correlation = "permuted labels", of_refits
    if correlation is None:
        over, correlation = "resamples", _correlation(one_S[drawn], two_S[drawn])

    def reach(one_side: float, two_side: float) -> float:
        square = one_side**2 + two_side**2 - 2 * correlation * one_side * two_side
        return math.sqrt(max(0.0, square))

    value = one["value"] - two["value"]
    below = reach(one["value"] - one["low"], two["high"] - two["value"])
    above = reach(one["high"] - one["value"], two["value"] - two["low"])
    return {
        "value": value,
        "low": max(-1.0, value - below),
        "high": min(1.0, value + above),
        "method": f"square and add with the correlation over {over}",
        "bootstrap": _finite(draws.interval(one_S - two_S, (-1.0, 1.0))),
        "correlation": correlation,
    }


def reached(
    model_auc: float, nuisance_auc: float, nuisance_p: float, difference: Mapping[str, Any]
) -> bool:
    """Whether a nuisance candidate reaches the model, so that the report's first line must say so.

    It does if its AUC is not below the model's; or if it is above chance (permutation p up to 0.05)
    while the interval of the difference (model minus nuisance, of :func:`paired`) holds 0 or lies
    below it.
    """
    if nuisance_auc >= model_auc:
        return True
    return bool(nuisance_p <= 0.05 and difference["low"] is not None and difference["low"] <= 0)


def age_bands(ages: Sequence[float | None]) -> list[str | None]:
    """The band of each age in years (below 30, 30-44, 45-59, 60 and more); None where unknown."""
    names = [f"under {AGE_BANDS[0]}"]
    names += [f"{low}-{high - 1}" for low, high in pairwise(AGE_BANDS)]
    names += [f"{AGE_BANDS[-1]} and over"]
    return [
        None
        if age is None or math.isnan(age)
        else names[int(np.searchsorted(AGE_BANDS, age, "right"))]
        for age in ages
    ]


def subgroups(
    label_P: np.ndarray,
    probability_RP: np.ndarray,
    fold_RP: np.ndarray,
    groups: Mapping[str, Sequence[str | None]],
    *,
    seed: int,
    resamples: int,
    spread: float = 1.0,
) -> dict[str, list[dict[str, Any]]]:
    """AUC and Brier score within each group of each covariate, with intervals.

    Args:
        label_P: 0 or 1.
        probability_RP: probability of class 1 in each repeat.
        fold_RP: folds as they are: only pairs of the same group and fold are compared.
        groups: covariate (sex, age band, site) to the group of each participant; None is unknown
            and a group of its own, last.
        seed: of the resamples.
        resamples: of the bootstrap.
        spread: that of the whole cohort (``figures(...)["spread"]["value"]``).

    Returns:
        For each covariate rows of ``group``, ``n``, ``n_positive``, ``auc``, ``brier``. Where a class
        has fewer than 5 no figure is given and its method says "too few".
    """
    label_P = np.asarray(label_P)
    _checked(label_P, probability_RP, fold_RP)
    out: dict[str, list[dict[str, Any]]] = {}
    for covariate, group_P in groups.items():
        if len(group_P) != len(label_P):
            raise ValueError(f"{covariate}: {len(group_P)} groups of {len(label_P)} participants")
        out[covariate] = []
        for group in sorted(set(group_P), key=lambda its: (its is None, its or "")):
            its_P = np.array([its == group for its in group_P])
            own_P, n1 = label_P[its_P], int(label_P[its_P].sum())
            row: dict[str, Any] = {"group": group, "n": len(own_P), "n_positive": n1}
            if min(n1, len(own_P) - n1) < FEWEST_TO_BOOTSTRAP:
                none = dict.fromkeys(("value", "low", "high", "bootstrap")) | {"method": _TOO_FEW}
                row |= {"auc": dict(none), "brier": dict(none)}
            else:
                own_RP, own_fold_RP = probability_RP[:, its_P], fold_RP[:, its_P]
                draws = _Draws(own_P, seed, resamples)
                # Few meet in a fold: then the comparison costs more than in the whole cohort.
                wider = max(spread, spread_of(own_P, own_RP, own_fold_RP, None, seed=seed))
                row["auc"] = _auc(own_P, own_RP, own_fold_RP, draws, wider)[0]
                row["brier"] = _brier(own_P, own_RP, draws, wider)[0]
            out[covariate].append(row)
    return out


def leave_one_out(label_P: np.ndarray, probability_P: np.ndarray) -> dict[str, Any]:
    """The pooled AUC of leaving one participant out, with what is wrong with it (``note``).

    The score interval is that of fixed scores: it knows nothing of the bias.
    """
    label_P, probability_1P = np.asarray(label_P), np.asarray(probability_P)[None]
    _checked(label_P, probability_1P)
    pooled_1P = np.zeros_like(probability_1P, dtype=int)
    everybody_1P = np.ones((1, len(label_P)))
    auc = float(fold_auc(*comparisons(probability_1P, pooled_1P), label_P, everybody_1P)[0])
    n1 = int(label_P.sum())
    low, high = auc_interval(auc, n1, len(label_P) - n1)
    return {
        "auc": {"value": auc, "low": low, "high": high, "method": "score interval, fixed scores"},
        "n": len(label_P),
        "n_positive": n1,
        "note": POOLED_BIAS,
    }
