"""Intervals by bootstrap over participants, for figures made of one value per participant.

Every participant counts the same, however long their recording. Knows numbers only.

Shapes: P participants, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import stats

LEVEL = 0.95
FEWEST_TO_TRUST = 5  # participants; an interval from fewer decides nothing


class Resampling:
    """The same resamples of P participants for every figure, so that differences are paired.

    Args:
        participants: P, at least 1.
        resamples: R.
        rng: draws the participants of each resample, with replacement.
    """

    def __init__(self, participants: int, resamples: int, rng: np.random.Generator) -> None:
        self.participants = participants
        even = np.full(participants, 1 / participants)
        drawn_RP = rng.multinomial(participants, even, resamples) / participants
        free = max(participants - 1, 1)
        self._wider = float(
            stats.t.ppf(0.5 + LEVEL / 2, free) / stats.norm.ppf(0.5 + LEVEL / 2)
        ) * math.sqrt(participants / free)
        # Row 0 is everybody once: the figure itself.
        self.weights_RP = np.vstack([even, drawn_RP])

    def mean(self, values_P: np.ndarray) -> np.ndarray:
        """The mean over participants of the cohort and of each resample, [1 + R]."""
        means_R: np.ndarray = self.weights_RP @ np.asarray(values_P, dtype=np.float64)
        return means_R

    def figure(
        self, values_R: np.ndarray, range_: tuple[float, float] = (-math.inf, math.inf)
    ) -> dict[str, Any]:
        """``{value, low, high, n}`` from :meth:`mean`'s rows, or from anything computed of them.

        Percentiles, drawn apart by what a t interval of so few is wider than a normal one: with normal
        values the interval then holds as often as it says; with skewed ones it still holds less often.
        No interval goes beyond ``range_``, in which the figure lies by its nature. One participant has
        no interval, a value that is not finite is None.
        """
        value, drawn_R = float(values_R[0]), values_R[1:][np.isfinite(values_R[1:])]
        low = high = None
        if self.participants > 1 and len(drawn_R):
            tail = 100 * (1 - LEVEL) / 2
            edges = np.percentile(drawn_R, [tail, 100 - tail])
            wider = np.clip(value + self._wider * (edges - value), *range_)
            low, high = (float(edge) for edge in wider)
        return {
            "value": value if np.isfinite(value) else None,
            "low": low,
            "high": high,
            "n": self.participants,
        }

    def of(
        self,
        compute: Callable[[np.ndarray], float],
        most: int,
        range_: tuple[float, float] = (-math.inf, math.inf),
    ) -> dict[str, Any]:
        """The figure of a function of the weights [P], on the first ``most`` resamples only."""
        rows_RP = self.weights_RP[: most + 1]
        return self.figure(np.array([compute(weights_P) for weights_P in rows_RP]), range_)


def above(figure: dict[str, Any], bound: float = 0.0) -> bool:
    """Whether a figure is above a bound by more than chance: with the whole interval of enough."""
    return figure["n"] >= FEWEST_TO_TRUST and figure["low"] is not None and figure["low"] > bound


def below(figure: dict[str, Any], bound: float = 0.0) -> bool:
    """Whether a figure is below a bound by more than chance: with the whole interval of enough."""
    return figure["n"] >= FEWEST_TO_TRUST and figure["high"] is not None and figure["high"] < bound
