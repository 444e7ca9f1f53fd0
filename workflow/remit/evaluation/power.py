"""What a cohort of n1 against n0 could have shown: the smallest AUC told from chance, and the power.

Two readings. *Fixed*: a score that was fixed before the cohort was seen, all pairs compared; the
exact Mann-Whitney null. *Fit*: this candidate, whose whole fit was run again under permuted labels; its
null scatters wider, so more is needed. Knows numbers only.

Shapes: S permutations, N draws.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu, norm, rankdata

# Raise when a change of the code alters the figures.
RESULT_VERSION = 1

LEVEL = 0.05  # one-sided
TRUE_AUCS = (0.65, 0.70, 0.80)
DRAWS = 20_000
_POWER = 4  # what the draws are for, after the seed
# Beyond, the exact null takes seconds and is the normal one to three digits.
_MOST_PAIRS = 10_000


def smallest_auc(n1: int, n0: int, level: float = LEVEL) -> float | None:
    """The smallest AUC of fixed scores of n1 against n0 with a one-sided p of ``level`` or below.

    None if even perfect separation is not enough. Without ties; exact up to 10,000 pairs, beyond that
    by the normal approximation with continuity correction. Source: Mann and Whitney 1947.
    """
    _check(n1, n0)
    if n1 * n0 > _MOST_PAIRS:
        deviation = math.sqrt(n1 * n0 * (n1 + n0 + 1) / 12)
        pairs = math.ceil(n1 * n0 / 2 + 0.5 + norm.isf(level) * deviation)
        return min(1.0, float(pairs / (n1 * n0)))
    low, high = 0, n1 * n0 + 1  # not enough; enough, where one more than all pairs stands for never
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _p_of(middle, n1, n0) <= level else (middle, high)
    return high / (n1 * n0) if high <= n1 * n0 else None


def _p_of(pairs: int, n1: int, n0: int) -> float:
    """The exact probability of at least so many pairs won, from scores that win that many."""
    each, more = divmod(pairs, n1)
    # A score of 2.5 stands above three of 0, 1, 2, 3, ...
    won_of_1 = np.full(n1, each) + (np.arange(n1) < more) - 0.5
    return float(
        mannwhitneyu(won_of_1, np.arange(n0), alternative="greater", method="exact").pvalue
    )


def _check(n1: int, n0: int) -> None:
    if n1 < 1 or n0 < 1:
        raise ValueError(f"{n1} against {n0} participants; expected at least 1 of each class")


def binormal_aucs(auc: float, n1: int, n0: int, *, seed: int, draws: int = DRAWS) -> np.ndarray:
    """AUCs of n1 draws of N(d, 1) against n0 of N(0, 1), ``d = sqrt(2) Phi^-1(auc)``; [N]."""
    _check(n1, n0)
    # The same draws for every true AUC, so that power grows with it.
    rng = np.random.default_rng([seed, _POWER])
    shift = math.sqrt(2) * norm.ppf(auc)
    found = []
    for start in range(0, draws, 1000):
        scores = rng.standard_normal((min(1000, draws - start), n1 + n0))
        scores[:, :n1] += shift
        ranks_1 = rankdata(scores, axis=1)[:, :n1].sum(1)
        found.append((ranks_1 - n1 * (n1 + 1) / 2) / (n1 * n0))
    return np.concatenate(found)


def smallest_auc_of_fit(null_auc_S: np.ndarray, level: float = LEVEL) -> float | None:
    """The smallest AUC with a permutation p of ``level`` or below, for AUCs in floating point.

    p is (1 + how many of S are not below the found) / (1 + S), so it is what comes just above one of
    the null's AUCs, its 95th percentile. None if S is too small for ``level``, or if that AUC is 1.
    """
    # An undefined AUC of a permutation counts against the found one.
    null_S = np.sort(np.nan_to_num(np.asarray(null_auc_S, dtype=float), nan=np.inf))[::-1]
    not_below = math.floor(level * (1 + len(null_S)) + 1e-9) - 1
    if not 0 <= not_below < len(null_S) or null_S[not_below] >= 1:
        return None
    return float(np.nextafter(null_S[not_below], 1))


def could_have_shown(
    n1: int, n0: int, *, seed: int, null_auc_S: np.ndarray | None = None
) -> dict[str, Any]:
    """Smallest AUC and power at a true AUC of 0.65, 0.70 and 0.80 (one-sided 5 %), ready for JSON.

    ``fixed``: binormal scores, 20,000 draws, against the exact null. ``fit``, with a permutation
    null: against its 95th percentile; the draws are scattered about their true AUC as much wider as
    the permutation null is than the Mann-Whitney null. That presumes that fitting adds the same
    share of scatter with an effect as without one.
    """
    drawn = {auc: binormal_aucs(auc, n1, n0, seed=seed) for auc in TRUE_AUCS}

    def power(needed: float | None, wider: float) -> dict[str, float]:
        # A cohort in which no AUC is enough finds nothing.
        needed = math.inf if needed is None else needed
        return {
            f"{auc:.2f}": float((np.clip(auc + wider * (found_N - auc), 0, 1) >= needed).mean())
            for auc, found_N in drawn.items()
        }

    least = smallest_auc(n1, n0)
    found: dict[str, Any] = {
        "n_positive": n1,
        "n_negative": n0,
        "level": LEVEL,
        "draws": DRAWS,
        "fixed": {
            "smallest_auc": least,
            "power": power(least, 1.0),
            "method": "exact Mann-Whitney null, binormal scores",
        },
        "fit": None,
    }
    if null_auc_S is not None and len(null_auc_S):
        of_fit, wider = smallest_auc_of_fit(null_auc_S), widening(null_auc_S, n1, n0)
        # Few labels have few orders: what no fixed score could show, no fit can.
        least = None if least is None or of_fit is None else max(least, of_fit)
        found["fit"] = {
            "smallest_auc": least,
            "permutations": len(null_auc_S),
            "power": power(least, wider),
            "method": f"permutation null of the whole fit, binormal scores scattered {wider:.2f} times",
        }
    return found


def widening(null_auc_S: np.ndarray, n1: int, n0: int) -> float:
    """How much wider an AUC scatters under permuted labels than that of fixed scores; at least 1.

    Root mean square distance from 0.5 (a null that lies below 0.5 counts as wider, not as better)
    over the Mann-Whitney null's standard deviation, ``sqrt((n1 + n0 + 1) / (12 n1 n0))``. 1 without
    a finite AUC.
    """
    null_S = np.asarray(null_auc_S, dtype=float)
    null_S = null_S[np.isfinite(null_S)]
    found = math.sqrt(np.mean((null_S - 0.5) ** 2)) if len(null_S) else 0.0
    return max(1.0, found / math.sqrt((n1 + n0 + 1) / (12 * n1 * n0)))
