"""Kernels against statsmodels, plain loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from conftest import examples
from judgeloop import seeds
from judgeloop.kernels import (
    cluster_covariance,
    cluster_informations,
    dense_codes,
    distinct,
    firth,
    left_out_log_odds,
    logistic,
    one_step_bootstrap,
    one_step_jackknife,
    satterthwaite_df,
    sigmoid,
)


def planted(n: int = 800, p: int = 4, groups: int = 60, label: str = "kernels", fractional: bool = False):
    rng = seeds.rng(0, label)
    x = rng.normal(size=(n, p))
    clusters = rng.integers(groups, size=n)
    eta = x @ (0.4 * rng.normal(size=p)) + 0.7 * rng.normal(size=groups)[clusters]
    z = sigmoid(eta) if fractional else (rng.random(n) < sigmoid(eta)).astype(float)
    return x, z, clusters


@pytest.mark.parametrize("fractional", [False, True])
def test_logistic_and_cluster_covariance_equal_statsmodels(fractional):
    from statsmodels.genmod.families import Binomial
    from statsmodels.genmod.generalized_linear_model import GLM

    x, z, clusters = planted(fractional=fractional)
    fit = logistic(x, z)
    oracle = GLM(z, x, family=Binomial()).fit(cov_type="cluster", cov_kwds={"groups": clusters}, tol=1e-14, maxiter=200)
    n, p = x.shape
    assert fit.converged
    assert np.max(np.abs(fit.coefficients - oracle.params)) < 1e-10
    # statsmodels multiplies CR1 by (n − 1)/(n − p).
    ours = np.sqrt(np.diag(cluster_covariance(x, z, fit, clusters, "CR1")) * (n - 1) / (n - p))
    assert np.max(np.abs(ours - oracle.bse)) < 1e-8


def test_cluster_covariance_equals_the_plain_loop():
    x, z, clusters = planted(n=200, groups=15)
    fit = logistic(x, z)
    inverse = np.linalg.inv(fit.hessian)
    scores = [x[clusters == g].T @ (z - fit.probabilities)[clusters == g] for g in np.unique(clusters)]
    meat = sum(np.outer(score, score) for score in scores)
    groups = len(scores)
    for correction, expected in (
        ("CR0", inverse @ meat @ inverse),
        ("CR1", inverse @ meat @ inverse * groups / (groups - 1)),
    ):
        assert np.allclose(cluster_covariance(x, z, fit, clusters, correction), expected, rtol=1e-9, atol=1e-14)


def bell_mccaffrey(x, weights, residual, clusters, contrast):
    """(variance, degrees of freedom) row by row, from the n × n hat matrix, of the working model with V = diag(1/weights)."""
    root = np.sqrt(weights)
    rows, standard = x * root[:, None], residual / root
    inverse = np.linalg.inv(rows.T @ rows)
    annihilator = np.eye(len(x)) - rows @ inverse @ rows.T
    terms, directions = [], []
    for g in np.unique(clusters):
        own = clusters == g
        values, axes = np.linalg.eigh(annihilator[np.ix_(own, own)])
        adjustment = axes @ np.diag(values**-0.5) @ axes.T
        weight = contrast @ inverse @ rows[own].T @ adjustment
        terms.append(weight @ standard[own])
        directions.append(annihilator[:, own] @ weight)
    covariance = np.array(directions) @ np.array(directions).T
    return np.sum(np.square(terms)), np.trace(covariance) ** 2 / np.sum(covariance**2)


@pytest.mark.parametrize("groups", [6, 20, 150])
def test_cr2_and_its_degrees_of_freedom_equal_the_formula_with_the_hat_matrix(groups):
    """The last case has clusters of next to no leverage, whose square roots are sums of series, and one of much."""
    x, z, clusters = planted(n=300, groups=groups)
    x[clusters == 3] *= 4.0
    fit = logistic(x, z)
    contrasts = np.vstack([np.eye(x.shape[1]), [1.0, -2.0, 0.3, 0.0]])
    weights = fit.probabilities * (1 - fit.probabilities)
    twins = [bell_mccaffrey(x, weights, z - fit.probabilities, clusters, contrast) for contrast in contrasts]
    variance = np.diag(contrasts @ cluster_covariance(x, z, fit, clusters, "CR2") @ contrasts.T)
    assert np.allclose(variance, [twin[0] for twin in twins], rtol=1e-8)
    df = satterthwaite_df(cluster_informations(x, weights, clusters), contrasts)
    assert np.allclose(df, [twin[1] for twin in twins], rtol=1e-8)
    assert np.all(df < groups - 1)


def test_equal_clusters_have_the_degrees_of_freedom_of_a_mean():
    informations = np.full((12, 1, 1), 3.0)
    assert satterthwaite_df(informations, np.ones((1, 1))) == pytest.approx(11.0)


def test_ridge_and_weights_solve_the_penalised_score():
    x, z, _ = planted(n=300, fractional=True)
    weights = seeds.rng(0, "weights").random(300) * 3
    ridge = np.array([0.0, 2.0, 0.5, 10.0])
    fit = logistic(x, z, weights, ridge)
    score = x.T @ (weights * (z - sigmoid(x @ fit.coefficients))) - ridge * fit.coefficients
    assert np.max(np.abs(score)) < 1e-9

    def loss(b):
        eta = x @ b
        return -np.sum(weights * (z * eta - np.logaddexp(0, eta))) + 0.5 * np.sum(ridge * b * b)

    best = optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-8})
    assert np.allclose(best.x, fit.coefficients, atol=1e-5)


def test_integer_weights_are_copies():
    x, z, _ = planted(n=60)
    counts = seeds.rng(0, "copies").integers(0, 4, size=60)
    weighted = logistic(x, z, counts.astype(float))
    copied = logistic(np.repeat(x, counts, axis=0), np.repeat(z, counts))
    assert np.allclose(weighted.coefficients, copied.coefficients, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "z"),
    [
        ([[1, -2], [1, -1], [1, 1], [1, 2.0]], [0, 0, 1, 1]),  # complete separation
        ([[1, -1], [1, -1], [1, 0], [1, 0], [1, 0.0]], [0, 0, 0, 1, 1]),  # quasi-complete
        ([[1.0], [1.0], [1.0]], [1, 1, 1]),
    ],
)
def test_separation_is_found_and_never_reported_as_a_fit(x, z):
    x, z = np.array(x, dtype=float), np.array(z, dtype=float)
    fit = logistic(x, z)
    assert fit.separated
    assert not fit.converged
    assert not fit.identified
    assert logistic(x, z, ridge=0.5).identified
    bounded = firth(x, z)
    assert bounded.converged
    assert np.all(np.abs(bounded.coefficients) < 10)


def test_firth_of_one_proportion_is_the_closed_form():
    # With an intercept alone, Firth's estimate is logit((k + ½)/(n + 1)).
    for k, n in ((0, 5), (5, 5), (3, 10)):
        z = np.r_[np.ones(k), np.zeros(n - k)]
        assert firth(np.ones((n, 1)), z).coefficients[0] == pytest.approx(math.log((k + 0.5) / (n - k + 0.5)), abs=1e-8)


def test_firth_maximises_the_penalised_likelihood():
    x = np.array([[1, -2], [1, -1], [1, 1], [1, 2.0], [1, 0.3]])
    z = np.array([0, 0, 1, 1, 1.0])

    def loss(b):
        p = sigmoid(x @ b)
        information = (x * (p * (1 - p))[:, None]).T @ x
        return -np.sum(z * np.log(p) + (1 - z) * np.log(1 - p)) - 0.5 * np.linalg.slogdet(information)[1]

    best = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert np.allclose(firth(x, z).coefficients, best.x, atol=1e-6)


def test_collinear_columns_are_named_not_guessed():
    x, z, _ = planted(n=200, p=2)
    fit = logistic(np.column_stack([x, x[:, 0] + x[:, 1]]), z)
    assert (fit.rank, fit.converged, fit.identified) == (2, True, False)
    assert np.allclose(fit.probabilities, logistic(x, z).probabilities, atol=1e-9)
    assert logistic(np.column_stack([x, x[:, 0]]), z, ridge=1e-3).identified


def test_one_step_bootstrap_equals_the_plain_loop():
    x, z, clusters = planted(n=150, p=3, groups=12)
    fit = logistic(x, z, ridge=0.3)
    fast = one_step_bootstrap(x, z, fit, clusters, 20, seeds.rng(1, "bootstrap"))
    drawn = seeds.rng(1, "bootstrap").integers(12, size=(20, 12))
    names = np.unique(clusters)
    for draw in range(20):
        rows = np.concatenate([np.flatnonzero(clusters == names[g]) for g in drawn[draw]])
        p = fit.probabilities[rows]
        hessian = (x[rows] * (p * (1 - p))[:, None]).T @ x[rows] + 0.3 * np.eye(3)
        gradient = x[rows].T @ (z[rows] - p) - 0.3 * fit.coefficients
        assert np.allclose(fast[draw], fit.coefficients + np.linalg.solve(hessian, gradient), atol=1e-10)


def test_one_step_bootstrap_is_near_full_refits_and_the_sandwich():
    x, z, clusters = planted(n=2000, p=3, groups=200, label="large")
    fit = logistic(x, z)
    draws = one_step_bootstrap(x, z, fit, clusters, 4000, seeds.rng(2, "bootstrap"))
    sandwich = np.sqrt(np.diag(cluster_covariance(x, z, fit, clusters, "CR0")))
    # 4,000 draws: the spread's Monte-Carlo error is 1/√8000 = 1.1 %.
    assert np.allclose(draws.std(axis=0), sandwich, rtol=0.05)
    drawn = seeds.rng(2, "bootstrap").integers(200, size=(20, 200))
    by_cluster = [np.flatnonzero(clusters == g) for g in np.unique(clusters)]
    for draw in range(20):
        rows = np.concatenate([by_cluster[g] for g in drawn[draw]])
        assert np.max(np.abs(logistic(x[rows], z[rows]).coefficients - draws[draw])) < 0.02


def test_bootstrap_blocks_do_not_change_the_stream(monkeypatch):
    x, z, clusters = planted(n=150, p=3, groups=12)
    fit = logistic(x, z)
    whole = one_step_bootstrap(x, z, fit, clusters, 50, seeds.rng(3, "blocks"))
    monkeypatch.setattr("judgeloop.kernels._BOOTSTRAP_BLOCK", 60)
    assert np.allclose(one_step_bootstrap(x, z, fit, clusters, 50, seeds.rng(3, "blocks")), whole, atol=1e-12)


def test_one_step_jackknife_equals_the_plain_loop():
    x, z, clusters = planted(n=120, p=2, groups=10)
    fit = logistic(x, z)
    for value, g in zip(one_step_jackknife(x, z, fit, clusters), np.unique(clusters), strict=True):
        rows = clusters != g
        p = fit.probabilities[rows]
        hessian = (x[rows] * (p * (1 - p))[:, None]).T @ x[rows]
        step = np.linalg.solve(hessian, x[rows].T @ (z[rows] - p))
        assert np.allclose(value, fit.coefficients + step, atol=1e-10)


@settings(max_examples=examples(40))
@given(seed=st.integers(0, 10_000), n=st.integers(3, 40), p=st.integers(1, 4))
def test_a_fit_is_antisymmetric_and_never_raises(seed, n, p):
    rng = seeds.rng(seed, "antisymmetry")
    x, z = rng.normal(size=(n, p)), rng.integers(3, size=n) / 2.0
    fit, mirrored = logistic(x, z), logistic(-x, 1 - z)
    assert fit.converged == mirrored.converged
    if fit.identified:
        assert np.allclose(fit.coefficients, mirrored.coefficients, atol=1e-7)


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": np.ones((3, 1)), "z": np.ones(2)},
        {"x": np.ones((3, 1)), "z": np.array([0, 1, np.nan])},
        {"x": np.ones((3, 1)), "z": np.array([0, 1, 1.5])},
        {"x": np.ones((3, 1)), "z": np.zeros(3), "weights": -np.ones(3)},
        {"x": np.ones((3, 1)), "z": np.zeros(3), "ridge": -1.0},
    ],
)
def test_wrong_input_raises(arguments):
    with pytest.raises(ValueError, match="must"):
        logistic(**arguments)


def test_covariance_needs_two_clusters_and_bears_no_cluster_that_identifies_alone():
    x = np.column_stack([np.ones(8), np.r_[1.0, -1.0, np.zeros(6)]])
    z = np.array([1, 1, 1, 0, 1, 0, 1, 0.0])
    z[1] = 0.5
    fit = logistic(x, z, ridge=0.0)
    clusters = np.array([0, 0, 1, 1, 2, 2, 3, 3])
    with pytest.raises(ValueError, match="one item alone"):
        cluster_covariance(x, z, logistic(x, np.full(8, 0.5)), clusters, "CR2")
    with pytest.raises(ValueError, match="two clusters"):
        cluster_covariance(x, z, fit, np.zeros(8, dtype=int))


@pytest.mark.parametrize("values", [[5, 0, 5, 2], [-3, 7, -3], [10**12, 4], ["b", "a", "b"], [1.5, 0.5]])
def test_dense_codes_are_those_of_sorting(values):
    unique, codes = np.unique(np.array(values), return_inverse=True)
    dense, count = dense_codes(values)
    assert (dense.tolist(), count, distinct(values)) == (codes.tolist(), len(unique), len(unique))


def test_many_small_items_by_series_and_by_blocks_are_each_solved_alike(monkeypatch):
    rng = seeds.rng(0, "small items")
    x = rng.normal(size=(4_000, 3))
    z, items = (rng.random(4_000) < sigmoid(x[:, 0])).astype(float), np.arange(4_000) // 2
    x[0] *= 30.0  # one item of large leverage
    fit = logistic(x, z)
    weights = fit.probabilities * (1.0 - fit.probabilities)
    parts = cluster_informations(x, weights, items)
    scores = x * (z - fit.probabilities)[:, None]
    by_item = scores[::2] + scores[1::2]
    whole = satterthwaite_df(parts, np.eye(3)), cluster_covariance(x, z, fit, items, "CR2")
    monkeypatch.setattr("judgeloop.kernels._CLUSTERS_AT_A_TIME", 300)
    left_out = one_step_jackknife(x, z, fit, items)
    assert left_out == pytest.approx(
        fit.coefficients - np.linalg.solve(fit.hessian - parts, by_item[:, :, None])[:, :, 0], abs=1e-11
    )
    assert satterthwaite_df(parts, np.eye(3)) == pytest.approx(whole[0], rel=1e-9)
    assert cluster_covariance(x, z, fit, items, "CR2") == pytest.approx(whole[1], rel=1e-9)


def test_log_odds_without_the_own_cluster_are_those_of_the_one_step_jackknife() -> None:
    rng = seeds.rng(0, "left out log-odds")
    x, clusters = rng.normal(size=(90, 12)), rng.permutation(np.repeat(np.arange(15), 6))
    z, weights = rng.random(90), rng.random(90)
    for ridge in (0.0, 0.5):
        fit = logistic(x, z, weights, ridge)
        without = one_step_jackknife(x, z, fit, clusters)
        expected = np.einsum("ij,ij->i", x, without[clusters])
        assert left_out_log_odds(x, z, fit, clusters) == pytest.approx(expected, abs=1e-9)
