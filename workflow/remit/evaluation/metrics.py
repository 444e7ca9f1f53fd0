"""Figures of merit of a classifier of participants, with intervals.

The unit that is counted is the participant, never the window. Class 1 is the class of interest
(remission). The figures themselves are scikit-learn's; a figure that is not defined (an AUC of one
class) is None, never a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import beta, norm
from sklearn import metrics as sk

THRESHOLD = 0.5
DECISION_FIGURES = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")
FIGURES = (*DECISION_FIGURES, "auc", "brier")
LEVEL = 0.95
FEWEST_TO_BOOTSTRAP = 5  # participants of either class


def shown(figure: Mapping[str, Any]) -> str:
    """A figure for a line of text: ``0.62 [0.41, 0.80]``; without limits where it has none."""
    if figure["value"] is None:
        return "undefined"
    if figure["low"] is None or figure["high"] is None:
        return f"{figure['value']:.2f}"
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _checked(
    labels: Sequence[int], probabilities: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(labels, dtype=int), np.asarray(probabilities, dtype=float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise ValueError(
            f"labels {y.shape} and probabilities {p.shape} must be two equal, non-empty rows"
        )
    if not np.isin(y, (0, 1)).all() or not np.isfinite(p).all() or (p < 0).any() or (p > 1).any():
        raise ValueError("labels must be 0 or 1 and probabilities between 0 and 1")
    return y, p


def participant_metrics(
    labels: Sequence[int], probabilities: Sequence[float]
) -> dict[str, float | int | None]:
    """The figures for one label (0 or 1) and one probability of class 1 per participant.

    Precision, recall and F1 are 0 where nothing is guessed or nothing is there: a classifier that
    never says yes must not look good.
    """
    y, p = _checked(labels, probabilities)
    guess = p >= THRESHOLD
    both = len(np.unique(y)) == 2
    return {
        "n": len(y),
        "n_positive": int(y.sum()),
        "accuracy": float(sk.accuracy_score(y, guess)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(y, guess)) if both else None,
        "precision": float(sk.precision_score(y, guess, zero_division=0)),
        "recall": float(sk.recall_score(y, guess, zero_division=0)),
        "f1": float(sk.f1_score(y, guess, zero_division=0)),
        "auc": float(sk.roc_auc_score(y, p)) if both else None,
        "brier": float(np.mean((p - y) ** 2)),
    }


def exact(
    count: float, of: float, level: float = LEVEL, spread: float = 1.0
) -> tuple[float, float]:
    """The exact binomial interval of a proportion (Clopper and Pearson 1934); all, without a trial.

    With a ``spread`` above 1 (how much wider than of independent trials the spread is) it is that of
    as many fewer trials (Korn and Graubard 1998, Surv Methodol 24:193).
    """
    hits, misses, tail = count / spread**2, (of - count) / spread**2, (1 - level) / 2
    low = float(beta.ppf(tail, hits, misses + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, misses)) if misses > 0 else 1.0
    return low, high


def auc_interval(
    auc: float, n1: int, n0: int, level: float = LEVEL, spread: float = 1.0
) -> tuple[float, float]:
    """A score interval of the AUC of n1 against n0 (Newcombe 2006, Stat Med 25:559, method 5).

    The limits are where the standard error (Hanley and McNeil 1982, both class sizes replaced by
    their mean) at the limit itself makes the found AUC just plausible; so it is wide for few
    participants, and not empty when the classes are separated perfectly. The standard error is
    multiplied by ``spread``.
    """
    z = float(norm.ppf((1 + level) / 2)) * spread
    star = (n1 + n0) / 2 - 1

    def beyond(theta: float) -> float:
        extra = 1 + star * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (auc - theta) ** 2 - z**2 * theta * (1 - theta) * extra / (n1 * n0)

    low = 0.0 if auc == 0 else float(brentq(beyond, 0.0, min(auc, 1 - 1e-9)))
    high = 1.0 if auc == 1 else float(brentq(beyond, max(auc, 1e-9), 1.0))
    # For a handful the normal approximation behind the score is too sure of itself: not narrower than
    # the exact interval of as many trials as the smaller class has people.
    n = min(n1, n0)
    if n < FEWEST_TO_BOOTSTRAP:
        exact_low, exact_high = exact(auc * n, n, level, spread)
        low, high = min(low, exact_low), max(high, exact_high)
    return low, high


def decision_figures(
    label_P: np.ndarray, guess_P: np.ndarray, *, level: float = LEVEL, spread: float = 1.0
) -> dict[str, dict[str, Any]]:
    """The figures of decisions, each with its interval: ``{figure: {value, low, high, method}}``.

    Args:
        label_P: 0 or 1, one per participant.
        guess_P: whether class 1 is decided for.
        level: of the intervals.
        spread: how much wider than those of independent trials the intervals are.
    """
    true, guess = label_P == 1, np.asarray(guess_P, dtype=bool)
    hit, miss = int((guess & true).sum()), int((~guess & true).sum())
    false_alarm, right_no = int((guess & ~true).sum()), int((~guess & ~true).sum())
    n1, n0 = hit + miss, false_alarm + right_no

    def within(count: int, of: int) -> tuple[float, float]:
        return exact(count, of, level, spread)

    f1_low, f1_high = (2 * j / (1 + j) for j in within(hit, hit + miss + false_alarm))
    bounds: dict[str, tuple[float, float, str]] = {
        "accuracy": (*within(hit + right_no, len(true)), "exact binomial"),
        "precision": (*within(hit, hit + false_alarm), "exact binomial"),
        "recall": (*within(hit, n1), "exact binomial"),
        "f1": (f1_low, f1_high, "exact binomial of the Jaccard index"),
    }
    if n1 and n0:
        parts = [(k / n, *within(k, n)) for k, n in ((hit, n1), (right_no, n0))]
        center = sum(value for value, _, _ in parts) / 2
        below = sum((value - low) ** 2 for value, low, _ in parts) ** 0.5 / 2
        above = sum((high - value) ** 2 for value, _, high in parts) ** 0.5 / 2
        bounds["balanced_accuracy"] = (
            max(0.0, center - below),
            min(1.0, center + above),
            "square and add",
        )
    values = participant_metrics(true.astype(int).tolist(), guess.astype(float).tolist())
    return {key: _figure(values[key], bounds.get(key)) for key in DECISION_FIGURES}


def _figure(value: float | None, bounds: tuple[float, float, str] | None) -> dict[str, Any]:
    low, high, method = bounds or (None, None, "undefined")
    return {"value": value, "low": low, "high": high, "method": method}


def with_intervals(
    labels: Sequence[int],
    probabilities: Sequence[float],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = LEVEL,
) -> dict[str, Any]:
    """The figures and an interval for each: ``{figure: {value, low, high, method}}``.

    All are intervals over participants for this model; none is empty, however few there are.

    - accuracy, precision, recall: exact binomial (Clopper and Pearson 1934);
    - F1: the exact interval of hits among hits, misses and false alarms, J, as F1 = 2 J / (1 + J);
    - balanced accuracy: the exact intervals of sensitivity and specificity, joined by square and add
      (Newcombe 1998, Stat Med 17:873);
    - AUC: a score interval (Newcombe 2006), for a handful widened to the exact one;
    - Brier score: percentiles of a bootstrap over participants within each class, or everything from
      0 to 1 with fewer than 5 participants in a class.

    An undefined figure has no interval.
    """
    y, p = _checked(labels, probabilities)
    values = participant_metrics(labels, probabilities)
    n1 = int(y.sum())
    n0 = len(y) - n1
    bounds: dict[str, tuple[float, float, str]] = {
        "brier": (0.0, 1.0, f"fewer than {FEWEST_TO_BOOTSTRAP} in a class"),
    }
    if n1 and n0:
        bounds["auc"] = (*auc_interval(float(values["auc"] or 0.0), n1, n0, level), "score")
    if min(n1, n0) >= FEWEST_TO_BOOTSTRAP:
        low, high = _brier_interval(y, p, seed, resamples, level)
        if low < high:  # equal errors everywhere would give an interval without width
            bounds["brier"] = (low, high, "bootstrap over participants")
    decided = decision_figures(y, p >= THRESHOLD, level=level)
    found = decided | {key: _figure(values[key], bounds.get(key)) for key in ("auc", "brier")}
    return {"n": len(y), "n_positive": n1, "level": level} | {key: found[key] for key in FIGURES}


def _brier_interval(
    y: np.ndarray, p: np.ndarray, seed: int, resamples: int, level: float
) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    total = np.zeros(resamples)
    for label in (0, 1):
        errors = (p[y == label] - label) ** 2
        total += (
            rng.multinomial(len(errors), np.full(len(errors), 1 / len(errors)), resamples) @ errors
        )
    low, high = np.percentile(total / len(y), [(1 - level) / 2 * 100, (1 + level) / 2 * 100])
    return float(low), float(high)
