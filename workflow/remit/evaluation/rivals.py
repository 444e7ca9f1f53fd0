"""What a pretrained backbone must beat: predictions of masked tokens that need no pretraining.

Fitted on training participants; they see the same visible tokens as the model and nothing else.
Knows arrays only.

Shapes: N sequences, K token steps in time, C channels, S samples per token (of the waveform) or
frequencies (of the log spectrum), V visible channels, H hidden ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Of the variance of a channel; it only has to keep channels apart that a common reference makes
# linearly dependent, as there are a thousand samples and more for every weight.
RIDGE_PENALTY = 1e-3

LEVEL_STEPS = (
    10  # towards the smallest smooth L1 error; each is a pass over the training participants
)


class Rivals:
    """The rivals for one target, waveform or log spectrum.

    All are fitted for the squared error. The means are fitted for smooth L1 (beta 1) as well, as
    "robust …": the levels of Huber (1964, doi:10.1214/aoms/1177703732), reached by weights of
    1 / max(1, size of the residual).

    Args:
        donors: tokens_NKCS and valid_NK (False where a step is padding) of each training participant.
        alike: True for the waveform, whose samples are one kind of quantity; False for the log
            spectrum, whose frequencies each have a mean and a covariance of their own.
    """

    def __init__(self, donors: Sequence[tuple[np.ndarray, np.ndarray]], *, alike: bool) -> None:
        self.alike = alike
        self.mean_CS, self.position_KCS = robust = self._levels(donors, None)
        for _ in range(LEVEL_STEPS):
            robust = self._levels(donors, robust)
        self._robust_mean_CS, self._robust_position_KCS = robust
        # Ridge regression for every pattern of visible channels at once: each is solved from the
        # same covariance, of samples or of each frequency, [G, C, C].
        whole, count = [], 0
        for tokens_NKCS, valid_NK in donors:
            rows_GXC = (tokens_NKCS[valid_NK].astype(np.float64) - self.mean_CS).transpose(2, 0, 1)
            if alike:
                rows_GXC = rows_GXC.reshape(1, -1, rows_GXC.shape[2])
            whole.append(rows_GXC.transpose(0, 2, 1) @ rows_GXC)
            count += rows_GXC.shape[1]
        self._covariance_GCC = np.sum(whole, axis=0) / count

    def _levels(
        self,
        donors: Sequence[tuple[np.ndarray, np.ndarray]],
        levels: tuple[np.ndarray, np.ndarray] | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means of a channel, and at each position; weighted by the distance from ``levels``."""
        sums: list[Any] = [0.0, 0.0, 0.0, 0.0]
        for tokens_NKCS, valid_NK in donors:
            real_NKCS = tokens_NKCS.astype(np.float64)
            for place in (0, 1):
                weight_NKCS = np.broadcast_to(valid_NK[:, :, None, None], real_NKCS.shape)
                if levels is not None:
                    weight_NKCS = weight_NKCS / np.maximum(np.abs(real_NKCS - levels[place]), 1)
                sums[2 * place] += (real_NKCS * weight_NKCS).sum(0)
                sums[2 * place + 1] += weight_NKCS.sum(0, dtype=np.float64)
        whole_KCS, count_KCS, at_KCS, at_count_KCS = sums
        axes = (0, 2) if self.alike else (0,)
        mean_C = whole_KCS.sum(axes, keepdims=True)[0] / count_KCS.sum(axes, keepdims=True)[0]
        mean_CS = np.broadcast_to(mean_C, whole_KCS.shape[1:])
        # A step that no training sequence reaches has no mean of its own.
        there = at_count_KCS > 0
        return mean_CS, np.where(there, at_KCS / np.where(there, at_count_KCS, 1), mean_CS)

    def predict(
        self, tokens_NKCS: np.ndarray, valid_NK: np.ndarray, masked_NKC: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Each rival's prediction, of the shape of ``tokens_NKCS``; its masked tokens are not read.

        What is returned for visible tokens and for padding has no meaning.
        """
        shape = tokens_NKCS.shape
        visible_NKC = valid_NK[:, :, None] & ~masked_NKC
        return {
            "mean": np.broadcast_to(self.mean_CS, shape),
            "position mean": np.broadcast_to(self.position_KCS[: shape[1]], shape),
            "robust mean": np.broadcast_to(self._robust_mean_CS, shape),
            "robust position mean": np.broadcast_to(self._robust_position_KCS[: shape[1]], shape),
            "interpolation": self._interpolated(tokens_NKCS, visible_NKC),
            "other channels": self._from_channels(tokens_NKCS, visible_NKC),
        }

    def _interpolated(self, tokens_NKCS: np.ndarray, visible_NKC: np.ndarray) -> np.ndarray:
        """A straight line between what is visible before and after, on the same channel."""
        N, K, C, S = tokens_NKCS.shape
        out_NKCS = np.empty(tokens_NKCS.shape)
        for n in range(N):
            for c in range(C):
                values, seen = tokens_NKCS[n, :, c], visible_NKC[n, :, c]
                if self.alike:  # from sample to sample
                    line = _line(values.reshape(K * S, 1), np.repeat(seen, S))
                else:  # from token to token, at each frequency
                    line = _line(values, seen)
                out_NKCS[n, :, c] = self.mean_CS[c] if line is None else line.reshape(K, S)
        return out_NKCS

    def _from_channels(self, tokens_NKCS: np.ndarray, visible_NKC: np.ndarray) -> np.ndarray:
        """Ridge regression from the channels that are visible at the same moment."""
        C = tokens_NKCS.shape[2]
        tokens_MCS = tokens_NKCS.reshape(-1, *tokens_NKCS.shape[2:])
        out_MCS = np.broadcast_to(self.mean_CS, tokens_MCS.shape).copy()
        patterns_XC, pattern_M = np.unique(visible_NKC.reshape(-1, C), axis=0, return_inverse=True)
        penalty_GC = RIDGE_PENALTY * np.diagonal(self._covariance_GCC, axis1=1, axis2=2)
        for number, seen_C in enumerate(patterns_XC):
            v, h = np.flatnonzero(seen_C), np.flatnonzero(~seen_C)
            if not len(v) or not len(h):
                continue
            covariance_GVV = self._covariance_GCC[:, v[:, None], v].copy()
            covariance_GVV[:, range(len(v)), range(len(v))] += penalty_GC[:, v] + 1e-12
            weights_GVH = np.linalg.solve(covariance_GVV, self._covariance_GCC[:, v[:, None], h])
            rows = np.flatnonzero(pattern_M.reshape(-1) == number)
            centred_MSV = (tokens_MCS[rows][:, v] - self.mean_CS[v]).transpose(0, 2, 1)
            found_MSH = (centred_MSV[:, :, None] @ weights_GVH)[:, :, 0]
            out_MCS[rows[:, None], h] += found_MSH.transpose(0, 2, 1)
        return out_MCS.reshape(tokens_NKCS.shape)


def _line(values_XS: np.ndarray, seen_X: np.ndarray) -> np.ndarray | None:
    """Linear interpolation along the first axis; the nearest one beyond the ends; None for nothing."""
    at = np.flatnonzero(seen_X)
    if not len(at):
        return None
    place_X = np.interp(np.arange(len(values_XS)), at, np.arange(len(at)))
    before_X = np.floor(place_X).astype(int)
    part_X1 = (place_X - before_X)[:, None]
    after_X = np.minimum(before_X + 1, len(at) - 1)
    line_XS: np.ndarray = (1 - part_X1) * values_XS[at[before_X]] + part_X1 * values_XS[at[after_X]]
    return line_XS


def visible_mean(
    tokens_NKCS: np.ndarray,
    valid_NK: np.ndarray,
    masked_NKC: np.ndarray,
    recording_N: np.ndarray,
    otherwise_CS: np.ndarray,
) -> np.ndarray:
    """The mean over each recording's visible tokens of a channel, at every token of that channel.

    ``otherwise_CS`` stands where a recording shows nothing of a channel.
    """
    visible_NKC = (valid_NK[:, :, None] & ~masked_NKC).astype(np.float64)
    out_NKCS = np.empty(tokens_NKCS.shape)
    for recording in np.unique(recording_N):
        rows = recording_N == recording
        count_C = visible_NKC[rows].sum((0, 1))
        sum_CS = np.einsum("nkcs,nkc->cs", tokens_NKCS[rows], visible_NKC[rows])
        mean_CS = sum_CS / np.maximum(count_C, 1)[:, None]
        out_NKCS[rows] = np.where(count_C[:, None] > 0, mean_CS, otherwise_CS)
    return out_NKCS
