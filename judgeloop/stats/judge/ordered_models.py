"""Models in which a tie is an outcome of its own: the ordered logit, and the latent-quality model of two golds.

Ordered logit (docs/method.md, "Ties"): P(a) = s(η − θ), P(b) = s(−η − θ), a tie the rest, with the content model's
columns in η. Half a pick in place of a tie, as in the content model, pulls slopes towards 0.

Latent quality (docs/method.md, "Two golds"), for content slopes given true quality: u ~ N(0, 1) a pair; its quality
margin Q = aᵀD + σu; a gold says a with probability s(Q − θ), b with s(−Q − θ), else tie; the judge picks likewise with
η = γ·order + βᵀD + κQ and its own θ, and all its judgments of a pair share u. A source that never ties has θ = 0, and a
soft verdict is the fraction s(η). Half a pick in place of a tie would claim, within the mixture, a precision that ties
do not have. Marginal maximum likelihood by quadrature in proportion to the spread σ (``Quadrature``); the gradient is exact,
the Hessian its numerical derivative, the covariance clustered by item. One imperfect gold taken as quality instead makes an unbiased
judge look biased towards what correlates with quality.

Slopes are log-odds per doubling (length) or generation-0 SD (style); positive = the judge prefers more of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from judgeloop.kernels import (
    cluster_informations,
    cluster_sums,
    dense_codes,
    distinct,
    logistic,
    satterthwaite_df,
    sigmoid,
)
from judgeloop.stats.estimate import PROBABILITY, Estimate, RowLabels, row
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, clustered_proportion, t_interval
from judgeloop.stats.judge.covariates import Covariates, feature_bias, feature_unit
from judgeloop.stats.judge.slopes import FEWEST_PAIRS, GOLD, JointTest, Slopes, joint_wald, without_rare_features
from judgeloop.stats.presentations import Booleans, Floats, Integers

FEWEST_TIES = 10
"""With fewer ties, or fewer decided verdicts, than this the threshold between them is not estimated."""
_NUMBERS_AT_A_TIME = 1 << 15
"""Numbers (rows times nodes) of the latent-quality likelihood that are worked on together."""
_WIDEST = 55.0
"""A spread of quality beyond this, or below 1 over it, in log-odds, is not bounded by the golds."""
_HESSIANS, _STEPS = 20, 6
"""Most Hessians of the Newton search, and most steps with each."""
_WIDEST_OF_15, _MESH, _REACH = 2.0, 1.5, 6.0
"""The widest spread for 15 Gauss–Hermite nodes; for a wider one the step between nodes, in log-odds, and their range in u."""


def tie_estimates(
    labels: RowLabels, rows: Covariates, given_gold: Slopes | Undefined, without_gold: Slopes | Undefined
) -> list[Estimate]:
    """``tie_rate`` with variants by gold, and variant ``ordered_logit`` of the content model's slopes where verdicts tie.

    Variants of the rate (probability): ``gold_tied`` and ``gold_decided`` for a|b|tie; ``gold_low``, ``gold_middle``,
    ``gold_high``, thirds of |gold|, for numbers. The ordered logit has the columns of ``given_gold`` (fitted to
    ``rows.with_gold()``), or without gold those of ``without_gold`` (fitted to ``rows``). No row where ``rows`` is
    empty.
    """
    if not len(rows):
        return []
    tied = rows.ties.astype(np.float64)
    estimates = [_tie_rate(labels, rows, tied, np.ones(len(rows), dtype=bool), "")]
    has_gold = ~np.isnan(rows.gold)
    if has_gold.any() and rows.numeric_gold:
        gap = np.abs(rows.gold)
        low, high = np.quantile(gap[has_gold], [1 / 3, 2 / 3])
        parts = {"gold_low": gap <= low, "gold_middle": (gap > low) & (gap <= high), "gold_high": gap > high}
    elif has_gold.any():
        parts = {"gold_tied": rows.gold == 0, "gold_decided": rows.gold != 0}
    else:
        parts = {}
    estimates += [
        _tie_rate(labels, rows, tied, has_gold & part, name) for name, part in parts.items() if (has_gold & part).any()
    ]
    model, fitted_rows = (given_gold, rows.with_gold()) if isinstance(given_gold, Slopes) else (without_gold, rows)
    if not fitted_rows.ties.any() or isinstance(model, Undefined):
        return estimates
    fit = fit_ordered(model.x, fitted_rows.picked_a, fitted_rows.ties, fitted_rows.items)
    gold = "given gold, taken as exact" if GOLD in model.names else "quality is not held equal"
    for j, name in enumerate(model.names):
        if name in model.features:
            result: Interval | Undefined = fit if isinstance(fit, Undefined) else fit.slope(j)
            estimates.append(row(
                labels, feature_bias(name), f"{name}_log_odds", result, fitted_rows.counts, unit=feature_unit(name),
                variant="ordered_logit", note=f"a tie is an outcome of its own; {gold}",
            ))  # fmt: skip
    return estimates


def _tie_rate(labels: RowLabels, rows: Covariates, tied: Floats, counted: Booleans, variant: str) -> Estimate:
    """The share of ties among the ``counted`` (n,) rows; ``tied`` (n,) 1 where the verdict is a tie, else 0."""
    counted_rows = rows.where(counted)
    return row(
        labels, "quality", "tie_rate", clustered_proportion(tied[counted], counted_rows.items), counted_rows.counts,
        unit=PROBABILITY, variant=variant, null=None,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrderedFit:
    """A fitted symmetric ordered logit.

    ``coefficients`` (p,), their item-clustered ``covariance`` (p, p), the ``threshold`` θ > 0; ``df`` = items − 1.
    """

    coefficients: Floats
    threshold: float
    covariance: Floats
    df: int

    def slope(self, column: int) -> Interval | Undefined:
        """The coefficient at a column's position, in log-odds, with its t interval."""
        se = float(np.sqrt(self.covariance[column, column]))
        method = "symmetric ordered logit, CR1 by item"
        return t_interval(float(self.coefficients[column]), se, self.df, method=method)


def fit_ordered(x: Floats, picked_a: Floats, ties: Booleans, clusters: Integers) -> OrderedFit | Undefined:
    """Maximum likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), η = ``x`` (n, p) · β; θ > 0 by its logarithm.

    ``picked_a`` (n,) above ½ where a was picked, and not read where ``ties``. Covariance: sandwich over ``clusters``,
    CR1. Undefined with a reason where there are too few ties or items, or where the verdicts separate.
    """
    codes = dense_codes(clusters)[0]
    count = int(codes.max()) + 1 if len(codes) else 0
    if min(int(ties.sum()), int((~ties).sum())) < FEWEST_TIES or count <= x.shape[1] + 1:
        return Undefined(
            f"{int(ties.sum())} ties and {int((~ties).sum())} decided verdicts are too few to estimate a threshold"
        )
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

    maximum = optimize.minimize(
        objective, np.zeros(x.shape[1] + 1), jac=True, method="BFGS", options={"gtol": 1e-9 * len(x)}
    )
    estimate = np.asarray(maximum.x, dtype=np.float64)
    step = 1e-5
    hessian = np.stack([
        (objective(estimate + step * e)[1] - objective(estimate - step * e)[1]) / (2.0 * step)
        for e in np.eye(len(estimate))
    ])  # fmt: skip
    hessian = (hessian + hessian.T) / 2.0
    if (
        not np.all(np.isfinite(hessian))
        or np.linalg.eigvalsh(hessian)[0] < 1e-8 * len(x)
        or np.abs(estimate).max() > 30.0
    ):
        return Undefined("the ordered logit has no single maximum: the verdicts separate on these covariates")
    covariance = _sandwich(scores(estimate)[1], hessian, codes, count, fitted=1)
    return OrderedFit(estimate[:-1], float(np.exp(estimate[-1])), covariance[:-1, :-1], count - 1)


def ordered_logit(eta: Floats, side: Floats, ties: Booleans, theta: float) -> tuple[Floats, Floats, Floats]:
    """Log-likelihood of P(a) = s(η − θ), P(b) = s(−η − θ), a tie the rest, and its derivatives by η and by log θ.

    ``eta`` of any shape; ``side`` (+1 a, −1 b, not read where ``ties``) and ``ties`` broadcast to it; ``theta`` > 0.
    """
    # Decided: log s(u), u = ±η − θ. Tied: s(η + θ) − s(η − θ) = s(η + θ) s(θ − η)(1 − e^−2θ).
    eta, side, tied = np.broadcast_arrays(eta, side, ties)
    value, by_eta, by_theta = (np.empty(eta.shape) for _ in range(3))
    decided = ~tied
    value[decided], residual = log_sigmoid(side[decided] * eta[decided] - theta)
    by_eta[decided], by_theta[decided] = side[decided] * residual, -residual
    if tied.any():
        tie_factor = -np.expm1(-2.0 * theta)
        (log_up, above), (log_down, below) = (log_sigmoid(theta + sign * eta[tied]) for sign in (1.0, -1.0))
        value[tied] = log_up + log_down + np.log(tie_factor)
        by_eta[tied] = above - below
        by_theta[tied] = above + below + 2.0 * np.exp(-2.0 * theta) / tie_factor
    return value, by_eta, theta * by_theta


def log_sigmoid(x: Floats) -> tuple[Floats, Floats]:
    """log s(x) and 1 − s(x), elementwise, from one exponential."""
    small = np.exp(-np.abs(x))
    return np.minimum(x, 0.0) - np.log1p(small), np.where(x >= 0, small, 1.0) / (1.0 + small)


@dataclass(frozen=True, slots=True)
class Quadrature:
    """Nodes (m,) and log-weights (m,) of the mean over u ~ N(0, 1) of a function of spread·u that varies like s(·).

    15 Gauss–Hermite nodes up to a ``spread`` of 2 log-odds. They fail from about 5 (two golds that agree on 85 % or more), as
    the step between them, 0.8·spread, jumps over the place where the logistic function turns: beyond 2 the trapezoid
    rule in steps of 1.5 log-odds, whose error falls exponentially with the step.
    """

    spread: float
    nodes: Floats
    log_weights: Floats

    @classmethod
    def of(cls, spread: float) -> Quadrature:
        """The quadrature for a spread of at most ``spread``."""
        if spread <= _WIDEST_OF_15:
            nodes, weights = np.polynomial.hermite_e.hermegauss(15)
            return cls(_WIDEST_OF_15, nodes, np.log(weights / weights.sum()))
        nodes = np.linspace(-_REACH, _REACH, 1 + 2 * math.ceil(_REACH * spread / _MESH))
        log_weights = -(nodes**2) / 2.0
        return cls(spread, nodes, log_weights - np.log(np.sum(np.exp(log_weights))))


@dataclass(frozen=True, slots=True)
class LatentSlopes:
    """A fitted latent-quality model.

    ``coefficients`` (2p + 3 + ties,): γ, β (p), κ, a (p), log σ, then log θ of each gold that ties, and of the judge if
    it does; their item-clustered ``covariance``; ``df`` = items − 1; ``dfs`` (p + 2,) those of t for the judge's own (see
    ``_judge_dfs``); ``model`` the likelihood that was maximised; ``left_out``: why a feature of the texts has no slope.
    """

    features: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int
    dfs: Floats
    n_pairs: int
    method: str
    model: _LatentModel
    left_out: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the judge's coefficients, in order; the first p + 2 of ``coefficients``."""
        return ("order", *self.features, "gold")

    def slope(self, name: str) -> Interval | Undefined:
        """γ ("order"), β (a feature) or κ ("gold", per log-odds of a gold vote), in log-odds, with its t interval."""
        if name not in self.names:
            return Undefined(self.left_out.get(name, f"{name} does not differ between the texts"))
        j = self.names.index(name)
        se = float(np.sqrt(self.covariance[j, j]))
        return t_interval(float(self.coefficients[j]), se, self.df_of(name), method=self.method)

    def df_of(self, *names: str) -> float:
        """Degrees of freedom of t for these coefficients of the judge: the fewest of theirs."""
        return float(min(self.dfs[self.names.index(name)] for name in names))

    def average_effect(self, name: str) -> Interval | Undefined:
        """Average marginal effect of a feature on P(a picked), a tie ½, at fixed quality: probability per unit.

        By the delta method: β·mean of ½[s′(η − θ) + s′(η + θ)], the derivative of P(a) + ½P(tie), over these rows and
        u.
        """
        if name not in self.features:
            return Undefined(self.left_out.get(name, f"{name} does not differ between the texts"))
        j = 1 + self.features.index(name)

        def effect(theta: Floats) -> float:
            eta = self.model.margins(theta)[0]
            threshold = self.model.threshold(theta)
            sides = (eta,) if threshold == 0 else (eta - threshold, eta + threshold)
            weights = np.exp(self.model.quadrature.log_weights)
            derivatives = [float(np.mean((p * (1.0 - p)) @ weights)) for p in map(sigmoid, sides)]
            return float(theta[j] * np.mean(derivatives))

        from scipy import optimize  # only here: it is slow to import

        gradient = optimize.approx_fprime(self.coefficients, effect, 1e-6)
        se = float(np.sqrt(gradient @ self.covariance @ gradient))
        return t_interval(effect(self.coefficients), se, self.df_of(name), method=f"{self.method}, delta")

    def joint(self, tested: Sequence[str]) -> JointTest | Undefined:
        """The Wald test that the β of the ``tested`` features are all 0, with Hotelling's scale.

        A score test (see ``joint_score``) would take the mixture's Hessian far from its maximum, where it has little
        power.
        """
        p = len(self.names)
        return joint_wald(self.names, tested, self.coefficients[:p], self.covariance[:p, :p], self.df, hotelling=True)


def fit_latent(rows: Covariates) -> LatentSlopes | Undefined:
    """The latent-quality model fitted to the rows with one gold or two, as a|b|tie; a pair with one contributes that one.

    Features that differ in few items are left out, as with one gold. Undefined, each with its own reason, where fewer
    than ``FEWEST_PAIRS`` pairs have both golds, where items are too few, where the golds never differ or agree as coins
    do, and where the judgments do not determine the coefficients.
    """
    rows, left_out = without_rare_features(rows.with_any_gold())
    rows = rows.where(np.argsort(rows.pairs, kind="stable"))
    pair, first = dense_codes(rows.pairs)[0], np.flatnonzero(np.diff(rows.pairs, prepend=-1))
    golds = np.sign(np.stack([rows.gold[first], rows.gold_2[first]], axis=1))
    both = golds[(~np.isnan(golds)).all(axis=1)]
    if len(both) < FEWEST_PAIRS:
        return Undefined(f"two golds on {len(both)} pairs; the correction needs {FEWEST_PAIRS}")
    differ = int((both[:, 0] != both[:, 1]).sum())
    if differ == 0:
        return Undefined(
            f"the two golds never differ on the {len(both)} pairs that have both: their errors are not seen"
        )
    tied = rows.ties & (rows.picked_a == 0.5)
    soft = ~tied & (rows.picked_a > 0.0) & (rows.picked_a < 1.0)
    tying = tuple(k for k in (0, 1) if np.any(golds[:, k] == 0))
    model = _LatentModel(rows.differences, rows.order, rows.picked_a, tied, soft, pair, first, rows.items[first], golds,
                         Quadrature.of(0.0), tying, bool(tied.any()))  # fmt: skip
    groups = distinct(model.items)
    if groups <= model.size:
        return Undefined("too few items for the latent-quality model")
    start = np.zeros(model.size)
    start[1 + model.d.shape[1]] = 0.5
    start[3 + 2 * model.d.shape[1] :] = np.log(0.5)
    maximum = _maximum(model, start, f"the two golds differ on {differ} of {len(both)} pairs")
    if isinstance(maximum, Undefined):
        return maximum
    model, theta, hessian = maximum
    # With few items G/(G − parameters): Mancl–DeRouen has no closed form here.
    codes, fitted = dense_codes(model.items)[0], len(hessian) if groups < FEW_CLUSTERS else 1
    covariance = _sandwich(model.value_and_gradient(theta)[1], hessian, codes, groups, fitted=fitted)
    try:
        dfs = _judge_dfs(model)
    except ValueError as error:
        return Undefined(str(error))
    method = "latent-quality model of two golds, clustered by item, Bell-McCaffrey df"
    return LatentSlopes(rows.features, theta, covariance, groups - 1, dfs, len(first), method, model, left_out)


def _judge_dfs(model: _LatentModel) -> Floats:
    """(p + 2,) degrees of freedom of the judge's coefficients: those of a plain logistic regression on the same columns.

    Its gold column is the sum of a pair's golds. What makes a judge's slope rest on few items, that they differ much in its
    column, is in these columns; quality between the golds is not. Raises ValueError where one item alone identifies one.
    """
    votes = np.nansum(model.golds, axis=1)[model.pair]
    x = np.column_stack([model.order, model.d, votes])
    fit = logistic(x, model.picked_a)
    weights = fit.probabilities * (1.0 - fit.probabilities) if fit.converged else np.ones(len(x))
    return satterthwaite_df(cluster_informations(x, weights, model.items[model.pair]), np.eye(x.shape[1]))


@dataclass(frozen=True, slots=True)
class _LatentModel:
    """The likelihood of n judgments of P pairs, a pair's rows next to each other.

    ``d`` (n, p) feature differences; ``order``, ``picked_a`` (n,) as in ``Covariates``; ``tied`` and ``soft`` (n,)
    kinds of verdict; ``tying`` the positions of the golds that tie somewhere, ``judge_ties`` whether the judge does; ``pair`` (n,) codes; ``first`` (P,) position of each pair's first row; ``items`` (P,); ``golds``
    (P, 2) +1 a, −1 b, 0 tie, NaN not known; ``quadrature`` with m nodes. Parameters (k,) are in the order of
    ``LatentSlopes.coefficients``.
    """

    d: Floats
    order: Floats
    picked_a: Floats
    tied: Booleans
    soft: Booleans
    pair: Integers
    first: Integers
    items: Integers
    golds: Floats
    quadrature: Quadrature
    tying: tuple[int, ...]
    judge_ties: bool

    def spread(self, theta: Floats) -> float:
        """The larger of the standard deviations of quality given the features: σ for the golds, κσ for the judge."""
        p = self.d.shape[1]
        return float(np.exp(theta[2 + 2 * p]) * max(1.0, abs(theta[1 + p])))

    @property
    def size(self) -> int:
        """The number k of parameters."""
        return 2 * int(self.d.shape[1]) + 3 + len(self.tying) + int(self.judge_ties)

    def threshold(self, theta: Floats) -> float:
        """The judge's θ; 0 where it never ties."""
        return float(np.exp(theta[-1])) if self.judge_ties else 0.0

    def margins(self, theta: Floats) -> tuple[Floats, Floats]:
        """(n, nodes) log-odds η of the judge, and (n, nodes) quality margins Q."""
        p = self.d.shape[1]
        quality = (self.d @ theta[2 + p : 2 + 2 * p])[:, None] + np.exp(theta[2 + 2 * p]) * self.quadrature.nodes
        eta = (self.order * theta[0] + self.d @ theta[1 : 1 + p])[:, None] + theta[1 + p] * quality
        return np.asarray(eta), np.asarray(quality)

    def value_and_gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        """Log-likelihood (P,) and its gradient (P, k); so many pairs at a time as stay in the processor's cache."""
        pairs, ends = len(self.first), np.append(self.first, len(self.order))
        block = max(1, _NUMBERS_AT_A_TIME * pairs // max(1, len(self.order) * len(self.quadrature.nodes)))
        parts = [
            self._of_pairs(start, min(pairs, start + block), ends)._value_and_gradient(theta)
            for start in range(0, pairs, block)
        ]
        values, gradients = zip(*parts, strict=True)
        return np.concatenate(values), np.concatenate(gradients)

    def _of_pairs(self, start: int, end: int, ends: Integers) -> _LatentModel:
        """The model of the pairs from ``start`` to before ``end``; ``ends`` (P + 1,): ``first`` and the number of rows."""
        rows, pairs = slice(ends[start], ends[end]), slice(start, end)
        return replace(
            self, d=self.d[rows], order=self.order[rows], picked_a=self.picked_a[rows], tied=self.tied[rows],
            soft=self.soft[rows], pair=self.pair[rows] - start, first=self.first[pairs] - ends[start], items=self.items[pairs],
            golds=self.golds[pairs],
        )  # fmt: skip

    def _value_and_gradient(self, theta: Floats) -> tuple[Floats, Floats]:
        p = self.d.shape[1]
        eta, quality = self.margins(theta)
        log_judge, residual, by_judge = self._judge_likelihood(eta, self.threshold(theta))
        q = quality[self.first]
        log_golds, gold_residual, by_golds = self._gold_likelihood(q, theta)
        joint = np.add.reduceat(log_judge, self.first, axis=0) + log_golds
        joint = joint + self.quadrature.log_weights
        peak = joint.max(axis=1, keepdims=True)
        posterior = np.exp(joint - peak)
        total = posterior.sum(axis=1, keepdims=True)
        posterior /= total
        residual = residual * posterior[self.pair]
        mean_residual = residual.sum(axis=1)
        gold_residual = gold_residual * posterior
        kappa, sigma, nodes = theta[1 + p], np.exp(theta[2 + 2 * p]), self.quadrature.nodes
        columns = [
            (self.order * mean_residual)[:, None], self.d * mean_residual[:, None],
            (residual * quality).sum(axis=1)[:, None], kappa * self.d * mean_residual[:, None],
            (kappa * sigma * (residual * nodes).sum(axis=1))[:, None],
        ]  # fmt: skip
        if by_judge is not None:
            columns.append((by_judge * posterior[self.pair]).sum(axis=1)[:, None])
        per_row = np.concatenate(columns, axis=1)
        by_pair = np.add.reduceat(per_row, self.first, axis=0)
        gradient = by_pair[:, : 2 * p + 3]
        gradient[:, 2 + p : 2 + 2 * p] += self.d[self.first] * gold_residual.sum(axis=1)[:, None]
        gradient[:, 2 + 2 * p] += sigma * (gold_residual * nodes).sum(axis=1)
        thresholds = [(by * posterior).sum(axis=1)[:, None] for by in by_golds]
        gradient = np.concatenate([gradient, *thresholds, by_pair[:, 2 * p + 3 :]], axis=1)
        return np.asarray((np.log(total) + peak)[:, 0]), np.asarray(gradient, dtype=np.float64)

    def _judge_likelihood(self, eta: Floats, threshold: float) -> tuple[Floats, Floats, Floats | None]:
        """Log-likelihood (n, nodes), its derivative by η, and by log θ where the judge ties."""
        z = self.picked_a[:, None]
        # Whether the judge ties is read from the data: a line search may take θ to 0.
        if not self.judge_ties:
            log_b, p = log_sigmoid(-eta)
            return z * eta + log_b, z - p, None
        value, by_eta, by_log = ordered_logit(eta, np.where(z > 0.5, 1.0, -1.0), self.tied[:, None], threshold)
        if self.soft.any():
            soft = self.soft
            log_b, p = log_sigmoid(-eta[soft])
            value[soft] = z[soft] * eta[soft] + log_b
            by_eta[soft], by_log[soft] = z[soft] - p, 0.0
        return value, by_eta, by_log

    def _gold_likelihood(self, q: Floats, theta: Floats) -> tuple[Floats, Floats, list[Floats]]:
        """Log-likelihood of the golds (P, nodes), its derivative by Q, and by log θ of each gold that ties."""
        untied = [k for k in (0, 1) if k not in self.tying]
        votes = (self.golds[:, untied] > 0).sum(axis=1, keepdims=True)
        count = (~np.isnan(self.golds[:, untied])).sum(axis=1, keepdims=True)
        value, by_q, thresholds = np.zeros_like(q), np.zeros_like(q), []
        if untied:
            log_b, p = log_sigmoid(-q)
            value, by_q = votes * q + count * log_b, votes - count * p
        for number, k in enumerate(self.tying):
            gold = self.golds[:, [k]]
            position = 3 + 2 * self.d.shape[1] + number
            parts = ordered_logit(q, np.where(gold > 0, 1.0, -1.0), gold == 0, float(np.exp(theta[position])))
            gold_value, gold_by_q, by_log = (np.where(np.isnan(gold), 0.0, part) for part in parts)
            value, by_q = value + gold_value, by_q + gold_by_q
            thresholds.append(by_log)
        return np.asarray(value), np.asarray(by_q), thresholds


@np.errstate(over="ignore", invalid="ignore", divide="ignore")
def _maximum(model: _LatentModel, start: Floats, golds: str) -> tuple[_LatentModel, Floats, Floats] | Undefined:
    """The model, the parameters (k,) where its likelihood is greatest, and its negative Hessian (k, k) there.

    The model's quadrature is made finer until it serves the spread at the maximum. A line search may try a spread that
    overflows (where the golds hardly agree, any spread is nearly as likely): such a point counts as infinitely
    unlikely, and the search turns back. ``golds``: how often they differ, for the reasons.
    """

    def objective(theta: Floats) -> tuple[float, Floats]:
        value, gradient = model.value_and_gradient(theta)
        total = -float(value.sum())
        if not (math.isfinite(total) and np.all(np.isfinite(gradient))):
            return math.inf, np.zeros_like(theta)
        return total, -gradient.sum(axis=0)

    def hessian(theta: Floats) -> Floats:
        return _jacobian(lambda t: -model.value_and_gradient(t)[1].sum(axis=0), theta)

    from scipy import optimize  # only here: it is slow to import

    theta, log_sigma = start, 2 + 2 * model.d.shape[1]
    while True:
        search = optimize.minimize(
            objective, theta, jac=True, method="BFGS", options={"gtol": 1e-5 * len(model.order), "maxiter": 500}
        )
        theta = np.asarray(search.x, dtype=np.float64)
        served, needed = model.quadrature.spread, model.spread(theta)
        if needed <= served:
            break
        if served >= _WIDEST:
            why = "too few to bound how far the pairs' quality is spread"
            closely = "these judgments do not bound how closely the judge follows quality"
            return Undefined(f"{golds}: {why}" if np.exp(theta[log_sigma]) > served else closely)
        # A quadrature that is too coarse overstates the spread: it is made finer by steps.
        wanted = min(1.25 * needed, 3.0 * served, _WIDEST)
        theta[log_sigma] = min(theta[log_sigma], math.log(wanted))
        model = replace(model, quadrature=Quadrature.of(wanted))
    if theta[log_sigma] < -math.log(_WIDEST):
        return Undefined(f"{golds}, as coins would: they hold no quality beyond the features")

    # Newton to the maximum: BFGS stops before the last digits, and the standard errors need a true maximum. Near it one
    # Hessian, the costly part, serves several steps.
    for _ in range(_HESSIANS):
        negative_hessian = hessian(theta)
        if not np.all(np.isfinite(negative_hessian)) or np.linalg.eigvalsh(negative_hessian)[0] <= 0:
            return Undefined(f"{golds}: these judgments and golds do not determine all slopes (no single maximum)")
        for _ in range(_STEPS):
            step = np.linalg.solve(negative_hessian, model.value_and_gradient(theta)[1].sum(axis=0))
            theta = theta + step
            if float(np.max(np.abs(step))) < 1e-7:
                return model, theta, hessian(theta)
    return Undefined("the latent-quality likelihood found no maximum")


def _jacobian(function: Callable[[Floats], Floats], theta: Floats) -> Floats:
    """(k, k) numerical derivative of a (k,) gradient at ``theta``, made symmetric."""
    columns = []
    for j in range(len(theta)):
        step = np.zeros(len(theta))
        step[j] = 1e-5 * max(1.0, abs(theta[j]))
        columns.append((function(theta + step) - function(theta - step)) / (2.0 * step[j]))
    matrix = np.stack(columns, axis=1)
    return np.asarray((matrix + matrix.T) / 2.0)


def _sandwich(gradient: Floats, hessian: Floats, codes: Integers, count: int, *, fitted: int) -> Floats:
    """(k, k) covariance clustered by the ``count`` = G item codes (n,), times G/(G − ``fitted``).

    ``gradient`` (n, k) of the log-likelihood's rows, ``hessian`` (k, k) its negative second derivative.
    """
    scores, inverse = cluster_sums(gradient, codes, count), np.linalg.inv(hessian)
    return np.asarray(inverse @ (scores.T @ scores) @ inverse * (count / (count - fitted)))
