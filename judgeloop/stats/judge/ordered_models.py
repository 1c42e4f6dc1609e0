"""Content slopes given true quality, from two imperfect golds: the latent-quality model of docs/method.md, "Two golds".

u ~ N(0, 1) a pair; its quality margin Q = aᵀD + σu; a gold says a with probability s(Q − θ), b with s(−Q − θ), else tie;
the judge picks likewise with η = γ·order + βᵀD + κQ and its own θ, and all its judgments of a pair share u. A source that
never ties has θ = 0, and a soft verdict is the fraction s(η). Half a vote in place of a tie would claim, within the
mixture, a precision that ties do not have. Marginal maximum likelihood by Gauss–Hermite quadrature (15 nodes); the
gradient is exact, the Hessian its numerical derivative, the covariance clustered by item. Treating one imperfect gold as
quality instead makes an unbiased judge look biased towards what correlates with quality.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop.kernels import sigmoid
from judgeloop.stats.estimate import PROBABILITY, Bias, Estimate, RowLabels, row
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, clustered_proportion, t_interval
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.judge.slopes import GOLD, JointTest, Slopes, joint_wald

# Ties: how often, where, and what the slopes are when a tie is an outcome of its own and not half a pick.

FEWEST_TIES = 10
"""Fewer ties, or fewer decided verdicts, than this do not place the threshold between them."""


def tie_estimates(
    labels: RowLabels, rows: Covariates, given: Slopes | Undefined, without: Slopes | Undefined
) -> list[Estimate]:
    """``tie_rate`` with variants by gold, and the variant ``ordered_logit`` of the content model's slopes where verdicts tie.

    Variants of the rate: ``gold_tied`` and ``gold_decided`` for a|b|tie; ``gold_low``, ``gold_middle``, ``gold_high``,
    thirds of |gold|, for numbers. The ordered logit has the columns of ``given`` (fitted to ``rows.with_gold()``), or
    without gold those of ``without`` (fitted to ``rows``).
    """
    if not len(rows):
        return []
    tied = rows.ties.astype(np.float64)
    found = [_rate(labels, rows, tied, np.ones(len(rows), dtype=bool), "")]
    known = ~np.isnan(rows.gold)
    if known.any() and rows.numeric_gold:
        gap = np.abs(rows.gold)
        low, high = np.quantile(gap[known], [1 / 3, 2 / 3])
        parts = {"gold_low": gap <= low, "gold_middle": (gap > low) & (gap <= high), "gold_high": gap > high}
    elif known.any():
        parts = {"gold_tied": rows.gold == 0, "gold_decided": rows.gold != 0}
    else:
        parts = {}
    found += [_rate(labels, rows, tied, known & part, name) for name, part in parts.items() if (known & part).any()]
    model, some = (given, rows.with_gold()) if isinstance(given, Slopes) else (without, rows)
    if not some.ties.any() or isinstance(model, Undefined):
        return found
    fitted = fit_ordered(model.x, some.picked_a, some.ties, some.items)
    gold = "given gold, taken as exact" if GOLD in model.names else "quality is not held equal"
    for j, name in enumerate(model.names):
        if name in model.features:
            bias: Bias = "verbosity" if name == "length" else "style"
            unit = "log-odds per doubling" if name == "length" else "log-odds per generation-0 SD"
            result: Interval | Undefined = fitted if isinstance(fitted, Undefined) else fitted.slope(j)
            found.append(row(
                labels, bias, f"{name}_log_odds", result, some.counts, unit=unit, variant="ordered_logit",
                note=f"a tie is an outcome of its own; {gold}",
            ))  # fmt: skip
    return found


def _rate(labels: RowLabels, rows: Covariates, tied: Floats, some: NDArray[np.bool_], variant: str) -> Estimate:
    chosen = rows.where(some)
    return row(
        labels, "quality", "tie_rate", clustered_proportion(tied[some], chosen.items), chosen.counts, unit=PROBABILITY,
        variant=variant, null=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderedFit:
    """``coefficients`` (p,) and ``threshold`` θ > 0 of the symmetric ordered logit, with the item-clustered covariance
    (p, p) of the coefficients; ``df`` = items − 1."""

    coefficients: Floats
    threshold: float
    covariance: Floats
    df: int

    def slope(self, column: int) -> Interval | Undefined:
        """One coefficient with its t interval."""
        se = float(np.sqrt(self.covariance[column, column]))
        method = "symmetric ordered logit, CR1 by item"
        return t_interval(float(self.coefficients[column]), se, self.df, method=method)


def ordered_logit(eta: Floats, side: Floats, ties: NDArray[np.bool_], theta: float) -> tuple[Floats, Floats, Floats]:
    """Log-likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), a tie the rest, and its derivatives by η and by log θ.

    ``eta`` of any shape, to which ``side`` (+1 a, −1 b, not read where ``ties``) and ``ties`` broadcast; ``theta`` > 0.
    """
    # Decided: log s(u), u = ±η − θ. Tied: s(η + θ) − s(η − θ) = s(η + θ) s(θ − η)(1 − e^−2θ).
    eta, side, tied = np.broadcast_arrays(eta, side, ties)
    value, by_eta, by_theta = (np.empty(eta.shape) for _ in range(3))
    decided = ~tied
    value[decided], rest = log_sigmoid(side[decided] * eta[decided] - theta)
    by_eta[decided], by_theta[decided] = side[decided] * rest, -rest
    if tied.any():
        within = -np.expm1(-2.0 * theta)
        (log_up, above), (log_down, below) = (log_sigmoid(theta + sign * eta[tied]) for sign in (1.0, -1.0))
        value[tied] = log_up + log_down + np.log(within)
        by_eta[tied] = above - below
        by_theta[tied] = above + below + 2.0 * np.exp(-2.0 * theta) / within
    return value, by_eta, theta * by_theta


def log_sigmoid(x: Floats) -> tuple[Floats, Floats]:
    """log s(x) and 1 − s(x), elementwise, from one exponential."""
    small = np.exp(-np.abs(x))
    return np.minimum(x, 0.0) - np.log1p(small), np.where(x >= 0, small, 1.0) / (1.0 + small)


def fit_ordered(
    x: Floats, picked_a: Floats, ties: NDArray[np.bool_], clusters: NDArray[np.intp]
) -> OrderedFit | Undefined:
    """Maximum likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), η = ``x`` (n, p) · β; θ > 0 by its logarithm.

    ``picked_a`` (n,) above ½ where a was picked, and not read where ``ties``. Covariance: sandwich over ``clusters``, CR1.
    """
    groups = np.unique(clusters, return_inverse=True)[1]
    count = int(groups.max()) + 1 if len(groups) else 0
    if min(int(ties.sum()), int((~ties).sum())) < FEWEST_TIES or count <= x.shape[1] + 1:
        return Undefined(f"{int(ties.sum())} ties and {int((~ties).sum())} decided verdicts place no threshold")
    side = np.where(picked_a > 0.5, 1.0, -1.0)

    def scores(parameters: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood (n,) and its gradient (n, p + 1)."""
        theta = float(np.exp(np.clip(parameters[-1], -20.0, 6.0)))
        value, by_eta, by_log = ordered_logit(x @ parameters[:-1], side, ties, theta)
        return value, np.concatenate([x * by_eta[:, None], by_log[:, None]], axis=1)

    def objective(parameters: Floats) -> tuple[float, Floats]:
        value, gradient = scores(parameters)
        return -float(value.sum()), -gradient.sum(axis=0)

    from scipy import optimize  # only here: it is slow to import

    found = optimize.minimize(
        objective, np.zeros(x.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-9 * len(x)}
    )
    at = np.asarray(found.x, dtype=np.float64)
    step = 1e-5
    hessian = np.stack([
        (objective(at + step * e)[1] - objective(at - step * e)[1]) / (2.0 * step) for e in np.eye(len(at))
    ])  # fmt: skip
    hessian = (hessian + hessian.T) / 2.0
    if not np.all(np.isfinite(hessian)) or np.linalg.eigvalsh(hessian)[0] < 1e-8 * len(x) or np.abs(at).max() > 30.0:
        return Undefined("the ordered logit has no single maximum: the verdicts separate on these covariates")
    gradient = scores(at)[1]
    sums = np.stack([np.bincount(groups, weights=column, minlength=count) for column in gradient.T], axis=1)
    inverse = np.linalg.inv(hessian)
    covariance = inverse @ (sums.T @ sums) @ inverse * (count / (count - 1.0))
    return OrderedFit(at[:-1], float(np.exp(at[-1])), covariance[:-1, :-1], count - 1)


Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
_LOG_WEIGHTS = np.log(_WEIGHTS / np.sqrt(2.0 * np.pi))
# log σ beyond this: the golds carry no pair-level information, or never disagree; neither identifies the model.
_EXTREME = 4.0
FEWEST_PAIRS = 90
"""A hundred pairs labelled twice, of which a tenth may have no verdict."""
_HESSIANS, _STEPS = 20, 6
_UNIDENTIFIED = "the two golds do not identify quality (they never differ, or hold no information)"


@dataclass(frozen=True, slots=True)
class LatentSlopes:
    """``coefficients`` (2p + 3 + ties,): γ, β (p), κ, a (p), log σ, then log θ of each gold that ties and of the judge if it
    does, with their item-clustered covariance; df = items − 1."""

    features: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int
    n_pairs: int
    method: str
    model: _Model

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
        """Average marginal effect on the chance that a is picked, a tie ½, at fixed quality, over these rows and u; delta method.

        β·mean of ½[s′(η − θ) + s′(η + θ)], the derivative of P(a) + ½P(tie).
        """
        if name not in self.features:
            return Undefined(f"{name} is not in the model")
        j = 1 + self.features.index(name)

        def effect(theta: Floats) -> float:
            eta = self.model.margins(theta)[0]
            threshold = self.model.threshold(theta)
            sides = (eta,) if threshold == 0 else (eta - threshold, eta + threshold)
            bends = [float(np.mean((p * (1.0 - p)) @ np.exp(_LOG_WEIGHTS))) for p in map(sigmoid, sides)]
            return float(theta[j] * np.mean(bends))

        from scipy import optimize  # only here: it is slow to import

        gradient = optimize.approx_fprime(self.coefficients, effect, 1e-6)
        se = float(np.sqrt(gradient @ self.covariance @ gradient))
        return t_interval(effect(self.coefficients), se, self.df, method=f"{self.method}, delta")

    def joint(self, tested: Sequence[str]) -> JointTest | Undefined:
        """The Wald test that those features' β are all 0, with Hotelling's scale.

        A score test (see ``joint_score``) would take the mixture's Hessian far from its maximum, and loses its power there.
        """
        p = len(self.names)
        return joint_wald(self.names, tested, self.coefficients[:p], self.covariance[:p, :p], self.df, hotelling=True)


@dataclass(frozen=True, slots=True)
class _Model:
    """The likelihood on n rows of P pairs, a pair's rows together, from ``first`` (P,) on: ``picked_a`` (n,) the fraction of
    a, ``tied``, ``soft``; ``golds`` (P, 2) +1 a, −1 b, 0 tie, NaN not known."""

    d: Floats
    order: Floats
    picked_a: Floats
    tied: NDArray[np.bool_]
    soft: NDArray[np.bool_]
    pair: Integers
    first: Integers
    items: Integers
    golds: Floats

    @property
    def tying(self) -> list[int]:
        """Columns of ``golds`` with ties."""
        return [k for k in (0, 1) if np.any(self.golds[:, k] == 0)]

    @property
    def size(self) -> int:
        """How many parameters there are."""
        return 2 * int(self.d.shape[1]) + 3 + len(self.tying) + int(self.tied.any())

    def threshold(self, theta: Floats) -> float:
        """The judge's θ; 0 where it never ties."""
        return float(np.exp(theta[-1])) if self.tied.any() else 0.0

    def margins(self, theta: Floats) -> tuple[Floats, Floats]:
        """(n, nodes) judge's log-odds and (n, nodes) quality margins."""
        p = self.d.shape[1]
        quality = (self.d @ theta[2 + p : 2 + 2 * p])[:, None] + np.exp(theta[2 + 2 * p]) * _NODES
        eta = (self.order * theta[0] + self.d @ theta[1 : 1 + p])[:, None] + theta[1 + p] * quality
        return np.asarray(eta), np.asarray(quality)

    def parts(self, theta: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood (pairs,) and its gradient (pairs, parameters)."""
        p = self.d.shape[1]
        eta, quality = self.margins(theta)
        log_judge, residual, by_judge = self._judge(eta, self.threshold(theta))
        q = quality[self.first]
        log_golds, gold_residual, by_golds = self._golds(q, theta)
        joint = np.add.reduceat(log_judge, self.first, axis=0) + log_golds + _LOG_WEIGHTS
        peak = joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint - peak)
        total = posterior.sum(axis=1, keepdims=True)
        posterior /= total
        residual = residual * posterior[self.pair]
        mean_residual = residual.sum(axis=1)
        gold_residual = gold_residual * posterior
        kappa, sigma = theta[1 + p], np.exp(theta[2 + 2 * p])
        columns = [
            (self.order * mean_residual)[:, None], self.d * mean_residual[:, None],
            (residual * quality).sum(axis=1)[:, None], kappa * self.d * mean_residual[:, None],
            (kappa * sigma * (residual * _NODES).sum(axis=1))[:, None],
        ]  # fmt: skip
        if by_judge is not None:
            columns.append((by_judge * posterior[self.pair]).sum(axis=1)[:, None])
        per_row = np.concatenate(columns, axis=1)
        by_pair = np.add.reduceat(per_row, self.first, axis=0)
        gradient = by_pair[:, : 2 * p + 3]
        gradient[:, 2 + p : 2 + 2 * p] += self.d[self.first] * gold_residual.sum(axis=1)[:, None]
        gradient[:, 2 + 2 * p] += sigma * (gold_residual * _NODES).sum(axis=1)
        thresholds = [(by * posterior).sum(axis=1)[:, None] for by in by_golds]
        gradient = np.concatenate([gradient, *thresholds, by_pair[:, 2 * p + 3 :]], axis=1)
        return np.asarray((np.log(total) + peak)[:, 0]), np.asarray(gradient, dtype=np.float64)

    def _judge(self, eta: Floats, threshold: float) -> tuple[Floats, Floats, Floats | None]:
        """Log-likelihood (n, nodes), its derivative by η, and by log θ where the judge ties."""
        z = self.picked_a[:, None]
        # By the data and not by θ, which a line search may take to 0.
        if not self.tied.any():
            log_b, p = log_sigmoid(-eta)
            return z * eta + log_b, z - p, None
        value, by_eta, by_log = ordered_logit(eta, np.where(z > 0.5, 1.0, -1.0), self.tied[:, None], threshold)
        if self.soft.any():
            some = self.soft
            log_b, p = log_sigmoid(-eta[some])
            value[some] = z[some] * eta[some] + log_b
            by_eta[some], by_log[some] = z[some] - p, 0.0
        return value, by_eta, by_log

    def _golds(self, q: Floats, theta: Floats) -> tuple[Floats, Floats, list[Floats]]:
        """Log-likelihood of the golds (pairs, nodes), its derivative by Q, and by log θ of each gold that ties."""
        plain = [k for k in (0, 1) if k not in self.tying]
        votes = (self.golds[:, plain] > 0).sum(axis=1, keepdims=True)
        known = (~np.isnan(self.golds[:, plain])).sum(axis=1, keepdims=True)
        value, by_q, thresholds = np.zeros_like(q), np.zeros_like(q), []
        if plain:
            log_b, p = log_sigmoid(-q)
            value, by_q = votes * q + known * log_b, votes - known * p
        for place, k in enumerate(self.tying):
            gold = self.golds[:, [k]]
            at = 3 + 2 * self.d.shape[1] + place
            parts = ordered_logit(q, np.where(gold > 0, 1.0, -1.0), gold == 0, float(np.exp(theta[at])))
            one, by_one, by_log = (np.where(np.isnan(gold), 0.0, part) for part in parts)
            value, by_q = value + one, by_q + by_one
            thresholds.append(by_log)
        return np.asarray(value), np.asarray(by_q), thresholds


def fit_latent(rows: Covariates) -> LatentSlopes | Undefined:
    """Fit to the rows with one gold or two, as a|b|tie; a pair with one contributes that one.

    Undefined where fewer than ``FEWEST_PAIRS`` pairs have both, or where the golds do not identify quality.
    """
    rows = rows.where(~np.isnan(rows.gold) | ~np.isnan(rows.gold_2))
    rows = rows.where(np.argsort(rows.pairs, kind="stable"))
    _, first, pair = np.unique(rows.pairs, return_index=True, return_inverse=True)
    golds = np.sign(np.stack([rows.gold[first], rows.gold_2[first]], axis=1))
    twice = int((~np.isnan(golds)).all(axis=1).sum())
    if twice < FEWEST_PAIRS:
        return Undefined(f"two golds on {twice} pairs; the correction needs {FEWEST_PAIRS}")
    tied = rows.ties & (rows.picked_a == 0.5)
    soft = ~tied & (rows.picked_a > 0.0) & (rows.picked_a < 1.0)
    model = _Model(rows.differences, rows.order, rows.picked_a, tied, soft, pair, first, rows.items[first], golds)
    groups = len(np.unique(model.items))
    if groups <= model.size:
        return Undefined("too few items for the latent-quality model")
    start = np.zeros(model.size)
    start[1 + model.d.shape[1]] = 0.5
    start[3 + 2 * model.d.shape[1] :] = np.log(0.5)
    found = _maximum(model, start)
    if isinstance(found, Undefined):
        return found
    theta, hessian = found
    return LatentSlopes(
        rows.features, theta, _clustered(model.parts(theta)[1], hessian, model.items), groups - 1, len(first),
        "latent-quality model of two golds, clustered by item", model,
    )  # fmt: skip


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _maximum(model: _Model, start: Floats) -> tuple[Floats, Floats] | Undefined:
    """The parameters (k,) where the likelihood is greatest, and its negative Hessian (k, k) there.

    A line search may try a spread that overflows (where the golds hardly agree, any spread is nearly as likely): such a
    place counts as infinitely unlikely, and the search turns back.
    """

    def objective(theta: Floats) -> tuple[float, Floats]:
        value, gradient = model.parts(theta)
        total = -float(value.sum())
        if not (math.isfinite(total) and np.all(np.isfinite(gradient))):
            return math.inf, np.zeros_like(theta)
        return total, -gradient.sum(axis=0)

    from scipy import optimize  # only here: it is slow to import

    found = optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-5 * len(model.order), "maxiter": 500}
    )
    theta, spread = np.asarray(found.x, dtype=np.float64), 2 + 2 * model.d.shape[1]

    def hessian(theta: Floats) -> Floats:
        return _jacobian(lambda t: -model.parts(t)[1].sum(axis=0), theta)

    # Newton to the maximum: BFGS's own stop leaves the last digits, and the standard errors want a true maximum. Near it
    # one Hessian, which is what costs, serves several steps.
    for _ in range(_HESSIANS):
        curve = hessian(theta)
        if not np.all(np.isfinite(curve)) or np.linalg.eigvalsh(curve)[0] <= 0 or abs(theta[spread]) > _EXTREME:
            return Undefined(_UNIDENTIFIED)
        for _ in range(_STEPS):
            step = np.linalg.solve(curve, model.parts(theta)[1].sum(axis=0))
            theta = theta + step
            if float(np.max(np.abs(step))) < 1e-7:
                return theta, hessian(theta)
    return Undefined("the latent-quality likelihood found no maximum")


def _jacobian(function: Callable[[Floats], Floats], theta: Floats) -> Floats:
    columns = []
    for j in range(len(theta)):
        step = np.zeros(len(theta))
        step[j] = 1e-5 * max(1.0, abs(theta[j]))
        columns.append((function(theta + step) - function(theta - step)) / (2.0 * step[j]))
    matrix = np.stack(columns, axis=1)
    return np.asarray((matrix + matrix.T) / 2.0)


def _clustered(gradient: Floats, hessian: Floats, items: Integers) -> Floats:
    """Sandwich by item, times G/(G − 1), or G/(G − parameters) with few items, where Mancl–DeRouen has no closed form."""
    _, codes = np.unique(items, return_inverse=True)
    scores = np.stack([np.bincount(codes, weights=column) for column in gradient.T], axis=1)
    groups = len(scores)
    inverse = np.linalg.inv(hessian)
    factor = groups / (groups - (len(hessian) if groups < FEW_CLUSTERS else 1.0))
    return np.asarray(inverse @ (scores.T @ scores) @ inverse * factor)
