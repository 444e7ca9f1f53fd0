"""Logistic regression with an L2 penalty, for a thousand sets of labels at once.

A permutation test fits the same few participants again and again under other labels. With n
participants and X features, n far below X, the fit lives in at most n - 1 directions: the
eigenvectors of the participants' Gram matrix, which no label changes. There the penalty is diagonal,
and so is the Hessian wherever all participants weigh the same, as they do at the start. So all sets of
labels descend together by conjugate gradients (Polak and Ribière, restarted where they turn) with that
diagonal as preconditioner: two matrix products for an iteration of all. The few sets that are not there
soon, of weak penalty and well separated labels, are finished by Newton steps.

The optimum is that of scikit-learn's LogisticRegression with C = 1 / strength: the penalty is strength
/ 2 times the squared length of the coefficients, the loss a sum over participants, the intercept
free. Coefficients and intercept are within ``TOLERANCE`` of it. Knows numbers only.

Shapes: N participants of a fit, X features, R directions, S sets of labels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from remit.errors import RemitError

TOLERANCE = 1e-7
"""Of the coefficients' length and the intercept; in Newton's steps relative to what is above 1"""

# Iterations of conjugate gradients, each at about a 40th of a Newton step's cost (29 participants).
_DESCENTS = 60
_NEWTON_STEPS = 100
_HALVINGS = 60
_TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True)
class Basis:
    """The directions in which the rows of a fit differ; made by :func:`basis_of`."""

    mean_X: np.ndarray
    axes_XR: np.ndarray
    """Orthonormal"""
    score_NR: np.ndarray
    """The rows along the axes; columns are orthogonal and of mean 0"""

    def score(self, rows_MX: np.ndarray) -> np.ndarray:
        """Other rows along the axes, [M, R]."""
        score_MR: np.ndarray = (rows_MX - self.mean_X) @ self.axes_XR
        return score_MR


def basis_of(rows_NX: np.ndarray) -> Basis:
    """The directions of rows, from the smaller one of their two Gram matrices.

    Directions below rounding are left out: they would move a coefficient by less than it.
    """
    mean_X = rows_NX.mean(0)
    centred_NX = rows_NX - mean_X
    wide = rows_NX.shape[1] > rows_NX.shape[0]
    gram = centred_NX @ centred_NX.T if wide else centred_NX.T @ centred_NX
    square_R, vectors = np.linalg.eigh(gram)
    largest = square_R[-1] if len(square_R) else 0.0
    kept = square_R > largest * len(gram) * np.finfo(float).eps
    if wide:
        axes_XR = centred_NX.T @ (vectors[:, kept] / np.sqrt(square_R[kept]))
        # Orthonormal but for rounding, which the weakest directions feel; made so again.
        axes_XR = np.linalg.qr(axes_XR)[0]
    else:
        axes_XR = vectors[:, kept]
    return Basis(mean_X, axes_XR, centred_NX @ axes_XR)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """The logistic function, of infinity too; where it is called often, for arrays that fit a cache.

    Of 20,000 values it takes 0.35 of the time of scipy's ``expit``, which is used elsewhere.
    """
    with np.errstate(over="ignore"):
        odds: np.ndarray = np.exp(-x)
    odds += 1
    np.reciprocal(odds, out=odds)
    return odds


def fit(
    rows_NX: np.ndarray,
    label_SN: np.ndarray,
    strength_S: np.ndarray,
    weight_SN: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients [S, X] and intercepts [S] for each set of labels and its strength.

    Args:
        rows_NX: float64, finite; standardised, if the penalty is to treat columns alike.
        label_SN: 0 or 1. A set of a single class has coefficients 0 and an infinite intercept.
        strength_S: of the penalty, above 0.
        weight_SN: how often each participant counts, 0 or more; once, if not given.
    """
    basis = basis_of(rows_NX)
    coefficient_SR, intercept_S = fit_in(basis, label_SN, strength_S, weight_SN)
    coefficient_SX = coefficient_SR @ basis.axes_XR.T
    return coefficient_SX, intercept_S - coefficient_SX @ basis.mean_X


def fit_in(
    basis: Basis,
    label_SN: np.ndarray,
    strength_S: np.ndarray,
    weight_SN: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`fit` within a basis: coefficients [S, R] of the scores, and intercepts [S] at their mean."""
    label_SN = np.asarray(label_SN, dtype=np.float64)
    coefficient_SR, intercept_S, both_S = _prepared(label_SN, weight_SN, basis.score_NR.shape[1])
    labels, strengths = label_SN[both_S], np.asarray(strength_S, dtype=np.float64)[both_S]
    if not len(labels) or not basis.score_NR.shape[1]:
        return coefficient_SR, intercept_S
    design_NR = np.column_stack([np.ones(len(basis.score_NR)), basis.score_NR])
    start = np.column_stack([intercept_S, coefficient_SR])[both_S]
    left = np.ones(len(labels), dtype=bool)
    if weight_SN is None:  # copies would be no orthogonal columns
        start, left = _descend(basis.score_NR, labels, strengths)
    if left.any():
        weights = None if weight_SN is None else weight_SN[both_S][left]
        start[left] = _newton(design_NR, labels[left], strengths[left], weights, start[left])
    coefficient_SR[both_S], intercept_S[both_S] = start[:, 1:], start[:, 0]
    return coefficient_SR, intercept_S


def fit_each(
    rows_SNX: np.ndarray, label_SN: np.ndarray, strength_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """:func:`fit` where each set of labels has (few) columns of its own."""
    label_SN = np.asarray(label_SN, dtype=np.float64)
    coefficient_SX, intercept_S, both_S = _prepared(label_SN, None, rows_SNX.shape[2])
    if both_S.any():
        rows = rows_SNX[both_S]
        design = np.concatenate([np.ones((*rows.shape[:2], 1)), rows], axis=2)
        start = np.column_stack([intercept_S, coefficient_SX])[both_S]
        found = _newton(design, label_SN[both_S], strength_S[both_S], None, start)
        coefficient_SX[both_S], intercept_S[both_S] = found[:, 1:], found[:, 0]
    return coefficient_SX, intercept_S


def _prepared(
    label_SN: np.ndarray, weight_SN: np.ndarray | None, columns: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coefficients 0, the intercepts that go with them, and which sets have both classes."""
    share_S = np.average(
        label_SN, axis=1, weights=np.ones_like(label_SN) if weight_SN is None else weight_SN
    )
    both_S = (share_S > 0) & (share_S < 1)
    with np.errstate(divide="ignore"):
        intercept_S = np.log(share_S) - np.log1p(-share_S)
    return np.zeros((len(label_SN), columns)), intercept_S, both_S


def _descend(
    score_NR: np.ndarray, label_SN: np.ndarray, strength_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Conjugate gradients: intercept and coefficients [S, 1 + R], and whose are not yet good enough.

    Everything is transposed, [., S], so that what is done for each set runs along the memory. The
    unknowns are the logits' coordinates in an orthonormal basis, the intercept's being the first.
    """
    n = len(score_NR)
    length_R = np.sqrt((score_NR**2).sum(0))
    basis_NR = np.ascontiguousarray(np.column_stack([np.full(n, n**-0.5), score_NR / length_R]))
    found_RS = np.zeros((basis_NR.shape[1], len(label_SN)))
    left_S = np.ones(len(label_SN), dtype=bool)

    label_NS = np.ascontiguousarray(label_SN.T)
    at_S, strength = np.arange(len(label_SN)), strength_S
    penalty_RS = np.concatenate([[0.0], length_R**-2.0])[:, None] * strength
    x_RS = np.zeros_like(found_RS)
    share_S = label_NS.mean(0)
    x_RS[0] = np.log(share_S / (1 - share_S)) * n**0.5
    logit_NS = basis_NR @ x_RS
    # No step has been made: nothing to go on from, and nothing that went too far.
    way_RS, before_RS, along_NS = np.zeros_like(x_RS), np.zeros_like(x_RS), np.zeros_like(label_NS)
    slope_S, size_before_S, step_S = -np.ones_like(strength), np.ones_like(strength), 0 * strength
    for _ in range(_DESCENTS):
        p_NS = sigmoid(logit_NS)
        w_NS = p_NS * p_NS
        np.subtract(p_NS, w_NS, out=w_NS)
        p_NS -= label_NS
        gradient_RS = basis_NR.T @ p_NS
        gradient_RS += penalty_RS * x_RS
        # The step was Newton's along the line; where that went far beyond the line's minimum, the
        # shorter step of the bound 1/4 on every weight, which always descends.
        far = np.flatnonzero(_dots(gradient_RS, way_RS) > -0.5 * slope_S)
        if len(far):
            way, along = way_RS[:, far], along_NS[:, far]
            bend = 0.25 * _dots(along, along) + _square(penalty_RS[:, far], way)
            back = -slope_S[far] / np.maximum(bend, _TINY) - step_S[far]
            x_RS[:, far] += back * way
            logit_NS[:, far] += back * along
            p = sigmoid(logit_NS[:, far])
            w_NS[:, far] = p * (1 - p)
            gradient_RS[:, far] = (
                basis_NR.T @ (p - label_NS[:, far]) + penalty_RS[:, far] * x_RS[:, far]
            )
        shape_RS = w_NS.mean(0) + penalty_RS
        shaped_RS = gradient_RS / shape_RS
        size_gradient_S = _dots(gradient_RS, shaped_RS)
        # The Hessian is at least the smallest weight plus the penalty, in every direction: that bounds
        # how far the optimum is. With the mean weight for the smallest the bound is too small, and
        # says whom to look at.
        least_S = w_NS.min(0)
        limit_S = TOLERANCE**2 * np.minimum(strength, n * least_S)
        near = np.flatnonzero((size_gradient_S <= limit_S) & left_S[at_S])
        if len(near):
            floor = np.maximum(least_S[near] + penalty_RS[:, near], _TINY)
            off = _square(1 / floor, gradient_RS[:, near])
            near = near[off <= limit_S[near]]
        # Whoever is there is written down at once, so that nobody depends on the company they are in.
        found_RS[:, at_S[near]] = x_RS[:, near]
        left_S[at_S[near]] = False
        on = np.flatnonzero(left_S[at_S])
        if not len(on):
            break
        if len(on) < 0.8 * len(at_S):
            at_S, strength = at_S[on], strength[on]
            x_RS, logit_NS, label_NS, w_NS = (
                a.take(on, 1) for a in (x_RS, logit_NS, label_NS, w_NS)
            )
            gradient_RS, shaped_RS, penalty_RS, way_RS, before_RS = (
                a.take(on, 1) for a in (gradient_RS, shaped_RS, penalty_RS, way_RS, before_RS)
            )
            size_gradient_S, size_before_S = size_gradient_S[on], size_before_S[on]
        turn_S = (size_gradient_S - _dots(before_RS, shaped_RS)) / np.maximum(size_before_S, _TINY)
        way_RS *= np.maximum(0.0, turn_S)
        way_RS -= shaped_RS
        slope_S = _dots(gradient_RS, way_RS)
        up = np.flatnonzero(slope_S > 0)  # given up for the steepest way
        way_RS[:, up], slope_S[up] = -shaped_RS[:, up], -size_gradient_S[up]
        before_RS, size_before_S = gradient_RS, size_gradient_S
        along_NS = basis_NR @ way_RS
        bend_S = _square(w_NS, along_NS) + _square(penalty_RS, way_RS)
        step_S = -slope_S / np.maximum(bend_S, _TINY)
        x_RS += step_S * way_RS
        logit_NS += step_S * along_NS
    else:
        on = np.flatnonzero(left_S[at_S])
        found_RS[:, at_S[on]] = x_RS[:, on]
    found_RS[0] /= n**0.5
    found_RS[1:] /= length_R[:, None]
    return np.ascontiguousarray(found_RS.T), left_S


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    products: np.ndarray = np.einsum("rs,rs->s", a, b)
    return products


def _square(weight: np.ndarray, a: np.ndarray) -> np.ndarray:
    total: np.ndarray = np.einsum("rs,rs,rs->s", weight, a, a)
    return total


def _newton(
    design: np.ndarray,
    label_SN: np.ndarray,
    strength_S: np.ndarray,
    weight_SN: np.ndarray | None,
    start_SR: np.ndarray,
) -> np.ndarray:
    """Newton steps, halved while the objective does not fall; the first column is the intercept's.

    Args:
        design: [N, R], or [S, N, R] for columns of their own.
        start_SR: where to begin.
    """
    x_SR = start_SR.copy()
    weight_SN = np.ones_like(label_SN) if weight_SN is None else weight_SN
    penalty_SR = np.repeat(strength_S[:, None], x_SR.shape[1], axis=1)
    penalty_SR[:, 0] = 0.0
    on = np.arange(len(x_SR))
    diagonal = np.arange(x_SR.shape[1])
    for _ in range(_NEWTON_STEPS):
        own = design if design.ndim == 2 else design[on]
        label, weight, penalty, x = label_SN[on], weight_SN[on], penalty_SR[on], x_SR[on]

        def loss(
            x: np.ndarray,
            own: np.ndarray = own,
            label: np.ndarray = label,
            weight: np.ndarray = weight,
            penalty: np.ndarray = penalty,
        ) -> np.ndarray:
            logit = _times(own, x)
            each = weight * (np.logaddexp(0.0, logit) - label * logit)
            total: np.ndarray = each.sum(1) + (penalty * x * x).sum(1) / 2
            return total

        p = sigmoid(_times(own, x))
        gradient = _times(own.swapaxes(-1, -2), weight * (p - label)) + penalty * x
        hessian = own.swapaxes(-1, -2) @ ((weight * p * (1 - p))[..., None] * own)
        hessian[:, diagonal, diagonal] += penalty
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        before = loss(x)
        for _ in range(_HALVINGS):
            rose = loss(x - step) > before + 1e-12 * np.abs(before)
            if not rose.any():
                break
            step[rose] /= 2
        x_SR[on] = x - step
        # The convergence is quadratic: what is left after a step this small is below rounding.
        small = 0.1 * TOLERANCE * np.maximum(1.0, np.abs(x).max(1))
        on = on[np.abs(step).max(1) > small]
        if not len(on):
            return x_SR
    raise RemitError(
        f"evaluation.strengths: with {strength_S[on[0]]:g} the logistic regression was not found in "
        f"{_NEWTON_STEPS} Newton steps; expected a penalty that holds it; leave out the weakest."
    )


def _times(matrix: np.ndarray, vector_S: np.ndarray) -> np.ndarray:
    product: np.ndarray = (matrix @ vector_S[..., None])[..., 0]
    return product
