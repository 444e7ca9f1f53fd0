"""Figures of merit of a classifier of participants, with intervals.

The unit that is counted is the participant, never the window. Class 1 is the class of interest
(remission). The figures themselves are scikit-learn's; a figure that is not defined (an AUC of one
class) is None, never a number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn import metrics as sk

THRESHOLD = 0.5


def _auc(y: np.ndarray, p: np.ndarray) -> float | None:
    return float(sk.roc_auc_score(y, p)) if len(np.unique(y)) == 2 else None


_FIGURES: dict[str, Callable[[np.ndarray, np.ndarray], float | None]] = {
    "accuracy": lambda y, p: float(sk.accuracy_score(y, p >= THRESHOLD)),
    "balanced_accuracy": lambda y, p: (
        float(sk.balanced_accuracy_score(y, p >= THRESHOLD)) if len(np.unique(y)) == 2 else None
    ),
    "precision": lambda y, p: float(sk.precision_score(y, p >= THRESHOLD, zero_division=0)),
    "recall": lambda y, p: float(sk.recall_score(y, p >= THRESHOLD, zero_division=0)),
    "f1": lambda y, p: float(sk.f1_score(y, p >= THRESHOLD, zero_division=0)),
    "auc": _auc,
    "brier": lambda y, p: float(np.mean((p - y) ** 2)),
}


def _checked(labels: Sequence[int], probabilities: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    y, p = np.asarray(labels, dtype=int), np.asarray(probabilities, dtype=float)
    if y.shape != p.shape or y.ndim != 1 or not len(y):
        raise ValueError(f"labels {y.shape} and probabilities {p.shape} must be two equal, non-empty rows")
    if not np.isin(y, (0, 1)).all() or not np.isfinite(p).all() or (p < 0).any() or (p > 1).any():
        raise ValueError("labels must be 0 or 1 and probabilities between 0 and 1")
    return y, p


def participant_metrics(
    labels: Sequence[int], probabilities: Sequence[float]
) -> dict[str, float | int | None]:
    """The figures for one label (0 or 1) and one probability of class 1 per participant."""
    y, p = _checked(labels, probabilities)
    figures: dict[str, float | int | None] = {key: of(y, p) for key, of in _FIGURES.items()}
    return {"n": len(y), "n_positive": int(y.sum()), **figures}


def with_intervals(
    labels: Sequence[int],
    probabilities: Sequence[float],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """The figures and an interval for each: ``{figure: {value, low, high, method}}``.

    Accuracy has the exact binomial interval (Clopper and Pearson 1934); the others have percentile
    intervals of a bootstrap over participants within each class (Efron and Tibshirani 1993), which
    are too narrow for a handful of participants. An undefined figure has no interval.
    """
    y, p = _checked(labels, probabilities)
    values = participant_metrics(labels, probabilities)
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(y == label) for label in (0, 1) if (y == label).any()]
    drawn: dict[str, list[float]] = {key: [] for key in _FIGURES}
    for _ in range(resamples):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        for key, of in _FIGURES.items():
            value = of(y[rows], p[rows])
            if value is not None:
                drawn[key].append(value)
    tails = [(1 - level) / 2 * 100, (1 + level) / 2 * 100]
    out: dict[str, Any] = {"n": values["n"], "n_positive": values["n_positive"], "level": level}
    for key, value in ((key, values[key]) for key in _FIGURES):
        low: float | None = None
        high: float | None = None
        method = "undefined"
        if key == "accuracy":
            correct = int(((p >= THRESHOLD) == y).sum())
            exact = binomtest(correct, len(y)).proportion_ci(level, method="exact")
            low, high, method = float(exact.low), float(exact.high), "exact binomial"
        elif value is not None:
            low, high = (float(x) for x in np.percentile(drawn[key], tails))
            method = "bootstrap over participants"
        out[key] = {"value": value, "low": low, "high": high, "method": method}
    return out
