"""The logistic regression of many sets of labels, against scikit-learn's, one set after another."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from remit.evaluation import readout
from remit.evaluation.readout import basis_of, fit, fit_each, fit_in, sigmoid

CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def reference(rows_NX, label_N, strength, weight_N=None) -> tuple[np.ndarray, float]:
    """The better one of two solvers of scikit-learn, at their tightest."""
    centre_X = rows_NX.mean(0)
    best = None
    for solver in ("newton-cholesky", "lbfgs"):
        model = LogisticRegression(C=1 / strength, tol=1e-12, max_iter=20000, solver=solver)
        model.fit(rows_NX - centre_X, label_N, weight_N)
        w_X, b = model.coef_[0], model.intercept_[0]
        logit_N = (rows_NX - centre_X) @ w_X + b
        each_N = np.logaddexp(0, logit_N) - label_N * logit_N
        residual_N = (sigmoid(logit_N) - label_N) * (1 if weight_N is None else weight_N)
        steep = np.abs((rows_NX - centre_X).T @ residual_N + strength * w_X).max()
        if best is None or steep < best[0]:
            best = steep, w_X, b - w_X @ centre_X
        assert np.isfinite(each_N).all()
    return best[1], best[2]


def made(seed: int, n: int, columns: int, sets: int, signal: float = 0.0):
    rng = np.random.default_rng(seed)
    rows_NX = rng.standard_normal((n, columns)) @ (
        rng.standard_normal((columns, columns)) * np.arange(1, columns + 1)[:, None] ** -0.7
    )
    rows_NX = (rows_NX - rows_NX.mean(0)) / rows_NX.std(0)
    label_N = (np.arange(n) < max(2, n // 3)).astype(float)
    label_SN = np.stack([rng.permutation(label_N) for _ in range(sets)])
    rows_NX += signal * label_SN[0][:, None]
    return rows_NX, label_SN


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("strength", [1e-2, 1e-1, 1.0, 10.0, 1e2, 1e4])
@pytest.mark.parametrize(("n", "columns"), [(29, 512), (29, 40), (29, 3), (8, 30), (36, 1)])
def test_is_scikit_learns(n: int, columns: int, strength: float) -> None:
    rows_NX, label_SN = made(n + columns, n, columns, 12, signal=1.0)
    coefficient_SX, intercept_S = fit(rows_NX, label_SN, np.full(12, strength))
    for label_N, own_X, own in zip(label_SN, coefficient_SX, intercept_S, strict=True):
        theirs_X, theirs = reference(rows_NX, label_N, strength)
        np.testing.assert_allclose(own_X, theirs_X, **CLOSE)
        np.testing.assert_allclose(own, theirs, **CLOSE)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(4, 30),
    columns=st.integers(1, 40),
    log_strength=st.floats(-1, 4),
    how=st.sampled_from(["plain", "separable", "constant", "twice", "few values", "huge"]),
)
def test_degenerate_rows_too(seed, n, columns, log_strength, how) -> None:
    rows_NX, label_SN = made(seed, n, columns, 3)
    if how == "separable":
        rows_NX[:, 0] = 3 * label_SN[0]
    elif how == "constant":
        rows_NX[:, -1] = 0.0
    elif how == "twice":
        rows_NX = np.column_stack([rows_NX, rows_NX])
    elif how == "few values":
        rows_NX = np.round(rows_NX / 2)
    elif how == "huge":
        rows_NX[0] *= 50
    strength = 10**log_strength
    coefficient_SX, intercept_S = fit(rows_NX, label_SN, np.full(3, strength))
    theirs_X, theirs = reference(rows_NX, label_SN[0], strength)
    np.testing.assert_allclose(coefficient_SX[0], theirs_X, **CLOSE)
    np.testing.assert_allclose(intercept_S[0], theirs, **CLOSE)


@pytest.mark.parametrize("strength", [0.1, 10.0])
def test_a_weight_is_a_number_of_copies(strength: float) -> None:
    rows_NX, label_SN = made(1, 24, 100, 6)
    rng = np.random.default_rng(1)
    weight_SN = rng.multinomial(24, np.full(24, 1 / 24), 6).astype(float)
    coefficient_SX, intercept_S = fit(rows_NX, label_SN, np.full(6, strength), weight_SN)
    for s in range(6):
        copies = np.repeat(np.arange(24), weight_SN[s].astype(int))
        copied = fit(rows_NX[copies], label_SN[s : s + 1, copies], np.array([strength]))
        np.testing.assert_allclose(coefficient_SX[s], copied[0][0], **CLOSE)
        np.testing.assert_allclose(intercept_S[s], copied[1][0], **CLOSE)


def test_every_set_may_have_its_own_columns_and_strength() -> None:
    rows_NX, label_SN = made(2, 26, 30, 8)
    strength_S = np.geomspace(0.1, 1000, 8)
    column_SK = np.stack([np.random.default_rng(s).permutation(30)[:5] for s in range(8)])
    rows_SNK = np.moveaxis(rows_NX[:, column_SK], 1, 0)
    coefficient_SK, intercept_S = fit_each(rows_SNK, label_SN, strength_S)
    for s in range(8):
        alone = fit(rows_SNK[s], label_SN[s : s + 1], strength_S[s : s + 1])
        np.testing.assert_allclose(coefficient_SK[s], alone[0][0], **CLOSE)
        np.testing.assert_allclose(intercept_S[s], alone[1][0], **CLOSE)


@pytest.mark.parametrize("descents", [1, 3, 10, 40])
def test_newton_takes_over_wherever_the_descent_stops(descents, monkeypatch) -> None:
    """The two ways to the optimum meet, so neither can be wrong alone."""
    rows_NX, label_SN = made(3, 29, 80, 50)
    strength_S = np.resize([0.1, 1.0, 30.0], 50)
    expected = fit(rows_NX, label_SN, strength_S)
    monkeypatch.setattr(readout, "_DESCENTS", descents)
    for found, one in zip(fit(rows_NX, label_SN, strength_S), expected, strict=True):
        np.testing.assert_allclose(found, one, **CLOSE)


def test_a_single_class_is_certain_of_itself() -> None:
    rows_NX, label_SN = made(4, 12, 5, 3)
    label_SN[1], label_SN[2] = 0, 1
    coefficient_SX, intercept_S = fit(rows_NX, label_SN, np.ones(3))
    assert np.isfinite(intercept_S[0]) and intercept_S[1:].tolist() == [-np.inf, np.inf]
    assert coefficient_SX[0].all() and not coefficient_SX[1:].any()
    assert sigmoid(intercept_S[1:]).tolist() == [0.0, 1.0]


def test_without_columns_it_says_the_share() -> None:
    for rows_NX in (np.zeros((9, 0)), np.full((9, 3), 7.0)):
        label_SN = np.array([[1, 0, 0, 1, 0, 0, 1, 0, 0]])
        coefficient_SX, intercept_S = fit(rows_NX, label_SN, np.ones(1))
        assert not coefficient_SX.any()
        np.testing.assert_allclose(sigmoid(intercept_S), 1 / 3, rtol=1e-14)


def test_the_basis_holds_the_rows() -> None:
    for columns in (4, 90):
        rows_NX, _ = made(5, 20, columns, 1)
        basis = basis_of(rows_NX)
        assert basis.axes_XR.shape[1] == min(columns, 19)
        np.testing.assert_allclose(
            basis.axes_XR.T @ basis.axes_XR, np.eye(min(columns, 19)), atol=1e-12
        )
        np.testing.assert_allclose(
            basis.score(rows_NX) @ basis.axes_XR.T + basis.mean_X, rows_NX, atol=1e-10
        )


def test_a_set_does_not_depend_on_its_company() -> None:
    rows_NX, label_SN = made(6, 29, 200, 64)
    basis = basis_of(rows_NX)
    together = fit_in(basis, label_SN, np.ones(64))[0]
    alone = np.stack([fit_in(basis, label_SN[s : s + 1], np.ones(1))[0][0] for s in range(64)])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-10)
