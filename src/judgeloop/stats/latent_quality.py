"""Content slopes given true quality, from two imperfect golds: the latent-quality model of the method notes §7.2.

u ~ N(0, 1) a pair; its quality margin Q = aᵀD + σu; either gold says a with probability s(Q); the judge picks a with
probability s(γ·order + βᵀD + κQ), and all its judgments of a pair share u. Marginal maximum likelihood by Gauss–Hermite
quadrature (15 nodes); the gradient is exact, the Hessian its numerical derivative, the covariance clustered by item.
Treating one imperfect gold as quality instead makes an unbiased judge look biased towards what correlates with quality.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop.kernels import sigmoid
from judgeloop.stats.covariates import Covariates
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, t_interval

Floats = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_LOG_WEIGHTS = np.log(_WEIGHTS / np.sqrt(2.0 * np.pi))
# log σ beyond this: the golds carry no pair-level information, or never disagree; neither identifies the model.
_EXTREME = 4.0
FEWEST_PAIRS = 90
"""A hundred pairs labelled twice, of which a tenth may have no verdict."""


@dataclass(frozen=True, slots=True)
class LatentSlopes:
    """``coefficients`` (2p + 3,): γ, β (p), κ, a (p), log σ, with their item-clustered covariance; df = items − 1."""

    features: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int
    n_pairs: int
    method: str
    differences: Floats
    order: Floats

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the judge's coefficients, in order; the first p + 2 of ``coefficients``."""
        return ("order", *self.features, "gold")

    def slope(self, name: str) -> Interval | Undefined:
        """γ ("order"), β (a feature) or κ ("gold", per log-odds of a gold vote) with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} is not in the model")
        j = self.names.index(name)
        se = float(np.sqrt(self.covariance[j, j]))
        return t_interval(float(self.coefficients[j]), se, self.df, method=self.method)

    def average_effect(self, name: str) -> Interval | Undefined:
        """Average marginal effect on P(a picked) at fixed quality, over these rows and u; delta method."""
        if name not in self.features:
            return Undefined(f"{name} is not in the model")
        j = 1 + self.features.index(name)

        def effect(theta: Floats) -> float:
            eta, _, _ = _margins(theta, self.differences, self.order)
            p = sigmoid(eta)
            return float(theta[j] * np.mean((p * (1.0 - p)) @ np.exp(_LOG_WEIGHTS)))

        from scipy import optimize  # only here: it is slow to import

        gradient = optimize.approx_fprime(self.coefficients, effect, 1e-6)
        se = float(np.sqrt(gradient @ self.covariance @ gradient))
        return t_interval(effect(self.coefficients), se, self.df, method=f"{self.method}, delta")


def fit_latent(rows: Covariates) -> LatentSlopes | Undefined:
    """Fit to the rows whose two golds are both known, as a|b|tie. Undefined where the golds do not identify quality."""
    rows = rows.where(~np.isnan(rows.gold) & ~np.isnan(rows.gold_2))
    _, first, pair = np.unique(rows.pairs, return_index=True, return_inverse=True)
    if len(first) < FEWEST_PAIRS:
        return Undefined(f"two golds on {len(first)} pairs; the correction needs {FEWEST_PAIRS}")
    d, order, z = rows.differences, rows.order, rows.picked_a
    golds = np.stack([(gold[first] + 1.0) / 2.0 for gold in (rows.gold, rows.gold_2)], axis=1)
    votes = golds.sum(axis=1, keepdims=True)
    columns = d.shape[1]
    items = rows.items[first]
    if len(np.unique(items)) <= 2 * columns + 3:
        return Undefined("too few items for the latent-quality model")

    def parts(theta: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood (pairs,) and its gradient (pairs, parameters)."""
        eta, quality, nodes = _margins(theta, d, order)
        log_judge = z[:, None] * eta - np.logaddexp(0.0, eta)
        by_pair = np.stack(
            [np.bincount(pair, weights=log_judge[:, k], minlength=len(first)) for k in range(len(nodes))]
        )
        q = quality[first]
        log_golds = votes * q - 2.0 * np.logaddexp(0.0, q)
        joint = by_pair.T + log_golds + _LOG_WEIGHTS
        peak = joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint - peak)
        total = posterior.sum(axis=1, keepdims=True)
        posterior /= total
        residual = (z[:, None] - sigmoid(eta)) * posterior[pair]
        mean_residual = residual.sum(axis=1)
        gold_residual = (votes - 2.0 * sigmoid(q)) * posterior
        kappa, sigma = theta[1 + columns], np.exp(theta[-1])
        per_row = np.concatenate([
            (order * mean_residual)[:, None], d * mean_residual[:, None],
            (residual * quality).sum(axis=1)[:, None], kappa * d * mean_residual[:, None],
            (kappa * sigma * (residual * nodes).sum(axis=1))[:, None],
        ], axis=1)  # fmt: skip
        gradient = np.stack([np.bincount(pair, weights=column, minlength=len(first)) for column in per_row.T], axis=1)
        gradient[:, 2 + columns : 2 + 2 * columns] += d[first] * gold_residual.sum(axis=1)[:, None]
        gradient[:, -1] += sigma * (gold_residual * nodes).sum(axis=1)
        return np.asarray((np.log(total) + peak)[:, 0]), np.asarray(gradient, dtype=np.float64)

    def objective(theta: Floats) -> tuple[float, Floats]:
        value, gradient = parts(theta)
        return -float(value.sum()), -gradient.sum(axis=0)

    start = np.zeros(2 * columns + 3)
    start[1 + columns] = 0.5
    from scipy import optimize  # only here: it is slow to import

    found = optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-5 * len(z), "maxiter": 500}
    )
    theta = np.asarray(found.x, dtype=np.float64)
    hessian = _jacobian(lambda t: -parts(t)[1].sum(axis=0), theta)
    # Newton to the maximum: BFGS's own stop leaves the last digits, and the standard errors want a true maximum.
    for _ in range(20):
        gradient = parts(theta)[1].sum(axis=0)
        if np.linalg.eigvalsh(hessian)[0] <= 0 or abs(theta[-1]) > _EXTREME:
            return Undefined("the two golds do not identify quality (they never differ, or hold no information)")
        step = np.linalg.solve(hessian, gradient)
        theta = theta + step
        hessian = _jacobian(lambda t: -parts(t)[1].sum(axis=0), theta)
        if float(np.max(np.abs(step))) < 1e-7:
            break
    else:
        return Undefined("the latent-quality likelihood found no maximum")
    return LatentSlopes(
        rows.features, theta, _clustered(parts(theta)[1], hessian, items), len(np.unique(items)) - 1, len(first),
        "latent-quality model of two golds, clustered by item", d, order,
    )  # fmt: skip


def _margins(theta: Floats, d: Floats, order: Floats) -> tuple[Floats, Floats, Floats]:
    """(n, nodes) judge's log-odds, (n, nodes) quality margins, and the nodes."""
    columns = d.shape[1]
    quality = (d @ theta[2 + columns : 2 + 2 * columns])[:, None] + np.exp(theta[-1]) * _NODES
    eta = (order * theta[0] + d @ theta[1 : 1 + columns])[:, None] + theta[1 + columns] * quality
    return np.asarray(eta), np.asarray(quality), np.asarray(_NODES, dtype=np.float64)


def _jacobian(function: Callable[[Floats], Floats], theta: Floats) -> Floats:
    columns = []
    for j in range(len(theta)):
        step = np.zeros(len(theta))
        step[j] = 1e-5 * max(1.0, abs(theta[j]))
        columns.append((function(theta + step) - function(theta - step)) / (2.0 * step[j]))
    matrix = np.stack(columns, axis=1)
    return np.asarray((matrix + matrix.T) / 2.0)


def _clustered(gradient: Floats, hessian: Floats, items: NDArray[np.intp]) -> Floats:
    """Sandwich by item, times G/(G − 1), or G/(G − parameters) with few items, where Mancl–DeRouen has no closed form."""
    _, codes = np.unique(items, return_inverse=True)
    scores = np.stack([np.bincount(codes, weights=column) for column in gradient.T], axis=1)
    groups = len(scores)
    inverse = np.linalg.inv(hessian)
    factor = groups / (groups - (len(hessian) if groups < FEW_CLUSTERS else 1.0))
    return np.asarray(inverse @ (scores.T @ scores) @ inverse * factor)
