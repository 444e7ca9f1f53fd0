"""Figures of merit of a classifier of participants, with intervals.

The unit that is counted is the participant, never the window. Class 1 is the class of interest
(remission). A figure that is not defined (an AUC of one class) is None, never a number. Every
figure is computed for many weightings of the participants at once, as a bootstrap needs it; the
tests hold them against scikit-learn's.

Shapes: R resamples, N participants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

THRESHOLD = 0.5
FEWEST_TO_BOOTSTRAP = 5  # participants of either class


def _ratio(above_R: np.ndarray, below_R: np.ndarray, otherwise: float) -> np.ndarray:
    """above / below, and ``otherwise`` where below is 0."""
    empty_R = below_R == 0
    return np.where(empty_R, otherwise, above_R / np.where(empty_R, 1, below_R))


def _figures(y_N: np.ndarray, p_N: np.ndarray, weight_RN: np.ndarray) -> dict[str, np.ndarray]:
    """Every figure for every row of weights [R, N]; NaN where it is not defined."""
    guess_N, true_N = p_N >= THRESHOLD, y_N == 1
    hit = weight_RN[:, guess_N & true_N].sum(1)
    false_alarm = weight_RN[:, guess_N & ~true_N].sum(1)
    miss = weight_RN[:, ~guess_N & true_N].sum(1)
    right_no = weight_RN[:, ~guess_N & ~true_N].sum(1)
    total = weight_RN.sum(1)
    # Precision, recall and F1 are 0 where nothing is guessed or nothing is there, as a classifier
    # that never says yes must not look good.
    sensitivity = _ratio(hit, hit + miss, np.nan)
    specificity = _ratio(right_no, right_no + false_alarm, np.nan)
    p1, p0 = p_N[true_N], p_N[~true_N]
    wins = (p1[:, None] > p0[None, :]) + 0.5 * (p1[:, None] == p0[None, :])
    w1, w0 = weight_RN[:, true_N], weight_RN[:, ~true_N]
    return {
        "accuracy": (hit + right_no) / total,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "precision": _ratio(hit, hit + false_alarm, 0.0),
        "recall": _ratio(hit, hit + miss, 0.0),
        "f1": _ratio(2 * hit, 2 * hit + false_alarm + miss, 0.0),
        # Mann and Whitney 1947: the probability that a case of class 1 stands above one of class 0.
        "auc": _ratio(((w1 @ wins) * w0).sum(1), w1.sum(1) * w0.sum(1), np.nan),
        "brier": weight_RN @ (p_N - y_N) ** 2 / total,
    }


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
    """The figures for one label (0 or 1) and one probability of class 1 per participant."""
    y, p = _checked(labels, probabilities)
    figures: dict[str, float | int | None] = {
        key: None if np.isnan(value[0]) else float(value[0])
        for key, value in _figures(y, p, np.ones((1, len(y)))).items()
    }
    return {"n": len(y), "n_positive": int(y.sum()), **figures}


def _exact(count: int, of: int, level: float) -> tuple[float, float]:
    """The exact binomial interval of a proportion; everything where there was no trial."""
    if not of:
        return 0.0, 1.0
    found = binomtest(count, of).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def with_intervals(
    labels: Sequence[int],
    probabilities: Sequence[float],
    *,
    seed: int,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Any]:
    """The figures and an interval for each: ``{figure: {value, low, high, method}}``.

    Accuracy, precision and recall are proportions and have the exact binomial interval (Clopper and
    Pearson 1934). The others have percentile intervals of a bootstrap over participants within each
    class (Efron and Tibshirani 1993). With fewer than 5 participants in a class the bootstrap would
    claim a certainty that is not there (one against one: an AUC of 1 and nothing else), so the
    interval is everything from 0 to 1. An undefined figure has no interval.
    """
    y, p = _checked(labels, probabilities)
    values = participant_metrics(labels, probabilities)
    rng = np.random.default_rng(seed)
    weight_RN = np.zeros((resamples, len(y)))
    for label in (0, 1):
        group = np.flatnonzero(y == label)
        if len(group):
            weight_RN[:, group] = rng.multinomial(
                len(group), np.full(len(group), 1 / len(group)), size=resamples
            )
    drawn = _figures(y, p, weight_RN)
    guess = p >= THRESHOLD
    proportions = {
        "accuracy": (int((guess == y).sum()), len(y)),
        "precision": (int((guess & (y == 1)).sum()), int(guess.sum())),
        "recall": (int((guess & (y == 1)).sum()), int(y.sum())),
    }
    fewest = min(int((y == label).sum()) for label in (0, 1))
    tails = [(1 - level) / 2 * 100, (1 + level) / 2 * 100]
    out: dict[str, Any] = {"n": values["n"], "n_positive": values["n_positive"], "level": level}
    for key, drawn_R in drawn.items():
        low: float | None = None
        high: float | None = None
        method = "undefined"
        if key in proportions:
            method = "exact binomial"
            low, high = _exact(*proportions[key], level)
        elif values[key] is not None and fewest < FEWEST_TO_BOOTSTRAP:
            low, high, method = 0.0, 1.0, f"fewer than {FEWEST_TO_BOOTSTRAP} in a class"
        elif values[key] is not None:
            low, high = (float(x) for x in np.percentile(drawn_R, tails))
            method = "bootstrap over participants"
        out[key] = {"value": values[key], "low": low, "high": high, "method": method}
    return out
