"""The content model (docs/method.md, "The content model"): logit P(a picked) = γ·order + βᵀD + κ·gold, with
item-clustered inference.

The order column is always there: left out, position shrinks every slope, and leaks where order and content correlate.
Slopes are log-odds per doubling (length), per generation-0 SD (style) or per unit of gold; positive = prefers more of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import (
    LogisticFit,
    cluster_covariance,
    firth,
    logistic,
    one_step_bootstrap,
    one_step_jackknife,
    sigmoid,
)
from judgeloop.stats.inference import FEW_CLUSTERS, LEVEL, Interval, Undefined, bca, f_tail, quantile, t_interval
from judgeloop.stats.judge.covariates import Covariates

# Slopes and effects of picks that separate on the covariates: a judge that always picks the longer text, say.

_METHOD = "Firth logistic regression (separated), penalised likelihood ratio by item"


def separated_slope(estimate: float, std_error: float, items: int, p_value: float) -> Interval:
    """One coefficient with an interval that agrees with its likelihood ratio's ``p_value`` (see ``separated_effect``).

    ``std_error`` is the information's, as of one row an item.
    """
    low, high = _limits(estimate, std_error, items, p_value)
    return Interval(estimate, std_error, low, high, LEVEL, p_value, items - 1, _METHOD)


def profile_p(x: Floats, z: Floats, fit: LogisticFit, column: int, items: int) -> float:
    """The p of coefficient 0: Firth's penalised likelihood ratio on F(1, items − 1), as of one row an item."""
    gap = _penalised(fit) - _penalised(firth(x, z, fixed=(column, 0.0), tolerance=1e-6))
    return f_tail(max(0.0, 2.0 * items / len(z) * gap), 1, items - 1)


def separated_effect(x: Floats, fit: LogisticFit, clusters: NDArray[np.intp], column: int, p_value: float) -> Interval:
    """Average marginal effect β·mean s′(η) where the picks separate, (n, p) rows ``x``.

    Its error adds the coefficients' (delta method on the information, as of one row an item) and that of the few rows near
    an even choice, which alone make up mean s′. An effect has its slope's sign, so that its test is the slope's
    ``p_value``; the interval agrees with it: on the log scale where that is below .05, else it holds 0. Planted judges of
    slope 3 to 20 a doubling on 30 to 100 items: coverage .92 to .97.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    items = int(codes.max()) + 1
    b, p = float(fit.coefficients[column]), fit.probabilities
    bend = p * (1.0 - p)
    estimate = b * float(np.mean(bend))
    gradient = b * np.mean((bend * (1.0 - 2.0 * p))[:, None] * x, axis=0)
    gradient[column] += float(np.mean(bend))
    from_slopes = float(gradient @ fit.covariance @ gradient) * len(x) / items
    sums = np.bincount(codes, weights=b * (bend - np.mean(bend)), minlength=items) / len(x)
    se = math.sqrt(from_slopes + items / (items - 1.0) * float(np.sum(sums**2)))
    low, high = _limits(estimate, se, items, p_value)
    return Interval(estimate, se, low, high, LEVEL, p_value, items - 1, _METHOD)


def _limits(estimate: float, std_error: float, items: int, p_value: float) -> tuple[float, float]:
    plain = t_interval(estimate, std_error, items - 1)
    if p_value < 1.0 - LEVEL:
        factor = math.exp((plain.high - plain.low) / 2.0 / abs(estimate))
        low, high = sorted((estimate / factor, estimate * factor))
        return low, high
    return min(0.0, plain.low), max(0.0, plain.high)


def difference(one: Interval, other: Interval) -> Interval:
    """``one`` − ``other`` from their own limits, taken as independent: the intervals need not be symmetric (Zou & Donner 2008)."""
    gap, df = one.estimate - other.estimate, one.df
    below = math.hypot(one.estimate - one.low, other.high - other.estimate)
    above = math.hypot(one.high - one.estimate, other.estimate - other.low)
    critical = quantile(0.5 + LEVEL / 2.0, df or None)
    towards = (below if gap > 0 else above) / critical
    p_value = t_interval(gap, towards, df).p_value
    return Interval(
        gap, math.hypot(one.std_error, other.std_error), gap - below, gap + above, LEVEL, p_value, df,
        "from both effects' own limits (picks separate)",
    )  # fmt: skip


def _penalised(fit: LogisticFit) -> float:
    return fit.log_likelihood + 0.5 * float(np.linalg.slogdet(fit.hessian)[1])


Floats = NDArray[np.float64]

ORDER, GOLD = "order", "gold"
FEWEST_ITEMS = 10
"""A style feature that differs in fewer items than this gets no slope."""
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Slopes:
    """A fitted content model: ``names`` of its columns (order, features, gold), coefficients, their item-clustered
    covariance, the degrees of freedom of t (items − 1), and why a feature of the texts has no column (``left_out``).

    ``separated``: the picks separate, and the fit is Firth's. ``first_stage``: where a column was itself estimated, what
    that adds to the rows' scores (n, p) at given coefficients.
    """

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int
    method: str
    left_out: dict[str, str]
    x: Floats
    z: Floats
    fit: LogisticFit
    clusters: NDArray[np.intp]
    separated: bool = False
    first_stage: Callable[[Floats], Floats] | None = None

    @property
    def features(self) -> tuple[str, ...]:
        """The columns that are features."""
        return tuple(name for name in self.names if name not in (ORDER, GOLD))

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient with its t interval; where the picks separate, see ``separated_slope``."""
        if name not in self.names:
            return Undefined(self.left_out.get(name, f"{name} does not differ between the texts"))
        j = self.names.index(name)
        se = float(np.sqrt(self.covariance[j, j]))
        if self.separated:
            p_value = profile_p(self.x, self.z, self.fit, j, self.df + 1)
            return separated_slope(float(self.coefficients[j]), se, self.df + 1, p_value)
        return t_interval(float(self.coefficients[j]), se, self.df, method=self.method)

    def variance_inflation(self, name: str) -> float:
        """1/(1 − R²) of a column on the others, uncentred as the columns are; weighted by the fit's information."""
        j = self.names.index(name)
        information = np.asarray(self.fit.hessian)
        return float(information[j, j] * np.linalg.pinv(information, hermitian=True)[j, j])

    def marginal(self, coefficients: Floats) -> Floats:
        """(draws,) mean over the panel's rows of s′(η) at each of (draws, p) coefficients."""
        result = np.empty(len(coefficients))
        block = max(1, 2_000_000 // max(1, len(self.x)))
        for start in range(0, len(coefficients), block):
            tail = np.exp(-np.abs(self.x @ coefficients[start : start + block].T))
            # s′(η) = e^−|η|/(1 + e^−|η|)²: one exponential, no overflow.
            np.divide(tail, np.square(1.0 + tail), out=tail)
            result[start : start + block] = np.mean(tail, axis=0)
        return result


def fit_slopes(rows: Covariates, gold: Floats | None = None) -> Slopes | Undefined:
    """Fit the content model; ``gold`` (n,) enters as a column. Separation: Firth. Undefined where nothing identifies it."""
    names, columns, left_out = [ORDER], [rows.order], {}
    for j, name in enumerate(rows.features):
        differing = len(np.unique(rows.items[rows.differences[:, j] != 0]))
        if name != "length" and differing < FEWEST_ITEMS:
            left_out[name] = f"{name} differs in {differing} items only; a slope needs {FEWEST_ITEMS}"
            continue
        names.append(name)
        columns.append(rows.differences[:, j])
    if gold is not None:
        if not np.any(gold != 0):
            return Undefined("gold calls every pair a tie")
        names.append(GOLD)
        columns.append(gold)
    return fit_columns(rows, tuple(names), np.stack(columns, axis=1), left_out)


def fit_columns(
    rows: Covariates, names: tuple[str, ...], x: Floats, left_out: dict[str, str] | None = None
) -> Slopes | Undefined:
    """The same inference for given columns ``x`` (n, p)."""
    items = len(np.unique(rows.items))
    if items <= x.shape[1]:
        return Undefined(f"{items} items are too few for {x.shape[1]} coefficients")
    z = rows.picked_a
    fit = logistic(x, z)
    if fit.rank < x.shape[1]:
        return Undefined(f"{', '.join(names)} are collinear on these pairs")
    few = items < FEW_CLUSTERS
    method = f"logistic regression, {'Mancl-DeRouen' if few else 'CR1'} by item"
    separated = not fit.converged
    if separated:
        fit = firth(x, z)
        if not fit.converged:
            return Undefined("the picks separate perfectly on these covariates")
        # Separated residuals are next to 0, and so would be a sandwich of them: the information instead, as of one row
        # an item.
        covariance, method = (
            fit.covariance * len(z) / items,
            "Firth logistic regression (separated), information by item",
        )
    else:
        try:
            covariance = cluster_covariance(x, z, fit, rows.items, "mancl_derouen" if few else "CR1")
        except ValueError as error:
            return Undefined(str(error))
    return Slopes(
        names, fit.coefficients, covariance, items - 1, method, left_out or {}, x, z, fit, rows.items, separated
    )


def average_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect of a column on P(a picked), over these rows, per unit of the column (probability).

    β·mean s′(η) on the panel as it is; its standard error is the one-step jackknife's over items, with t. Its coverage is
    the bootstrap's in easy worlds, and holds where few verdicts carry the slope and the bootstrap's is too narrow
    (``judgeloop validate --coverage --only type1:order_locked_judge``); ``bootstrap_effect`` gives that one besides. Where
    the picks separate: ``separated_effect``.
    """
    unusable = _usable(slopes, name)
    if unusable is not None:
        return unusable
    if slopes.separated:
        return _separated(slopes, name)
    return _jackknifed(*_values(slopes, name))


def effect_difference(slopes: Slopes, other: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect in ``slopes`` minus that in ``other``, fitted to the same rows: paired by item.

    Where either's picks separate, from both effects' own limits, as if they were independent.
    """
    unusable = _usable(slopes, name) or _usable(other, name)
    if unusable is not None:
        return unusable
    if slopes.separated or other.separated:
        one, less = average_effect(slopes, name), average_effect(other, name)
        if isinstance(one, Undefined):
            return one
        return less if isinstance(less, Undefined) else difference(one, less)
    (estimate, left_out), (gold, without) = _values(slopes, name), _values(other, name)
    return _jackknifed(estimate - gold, left_out - without)


def bootstrap_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """``average_effect`` with the BCa interval of a cluster bootstrap by item, 10,000 one-step resamples (Efron 1987)."""
    unusable = _usable(slopes, name)
    if unusable is not None:
        return unusable
    if slopes.separated:
        return Undefined("the picks separate on these covariates: there is no average effect to resample")
    estimate, left_out = _values(slopes, name)
    sample = one_step_bootstrap(slopes.x, slopes.z, slopes.fit, slopes.clusters, DRAWS, seeds.rng(0, "average effect"))
    return bca(estimate, slopes.marginal(sample) * sample[:, slopes.names.index(name)], left_out)


def _usable(slopes: Slopes, name: str) -> Undefined | None:
    if name not in slopes.names:
        return Undefined(slopes.left_out.get(name, f"{name} does not differ between the texts"))
    return None


def _separated(slopes: Slopes, name: str) -> Interval:
    j = slopes.names.index(name)
    p_value = profile_p(slopes.x, slopes.z, slopes.fit, j, slopes.df + 1)
    return separated_effect(slopes.x, slopes.fit, slopes.clusters, j, p_value)


def _values(slopes: Slopes, name: str) -> tuple[float, Floats]:
    """The average effect, and (G,) its values with one item left out."""
    b = np.concatenate([
        slopes.coefficients[None], one_step_jackknife(slopes.x, slopes.z, slopes.fit, slopes.clusters)
    ])  # fmt: skip
    effect = slopes.marginal(b) * b[:, slopes.names.index(name)]
    return float(effect[0]), effect[1:]


def _jackknifed(estimate: float, left_out: Floats) -> Interval | Undefined:
    spread, groups = left_out - np.mean(left_out), len(left_out)
    se = float(np.sqrt((groups - 1.0) / groups * np.sum(spread**2)))
    if se == 0:
        return Undefined("no item's absence changes the estimate")
    return t_interval(estimate, se, groups - 1, method="one-step jackknife t by item")


# Tests that several slopes are 0 at once: the cluster score test, and the Wald test as a companion.

FEWEST_SPARE = 10
"""A joint test needs that many more items than tested slopes."""
_TOO_FEW = "too few items for a joint test of that many features"


@dataclass(frozen=True, slots=True)
class JointTest:
    """F on ``q`` and ``df`` degrees of freedom, and its p."""

    f: float
    q: int
    df: int
    p_value: float


def joint_score(slopes: Slopes, tested: Sequence[str], at: Floats | None = None) -> JointTest | Undefined:
    """The score test that the ``tested`` coefficients are all 0 (or ``at`` (q,)), the other columns of the fit kept."""
    t = [slopes.names.index(name) for name in tested]
    kept = [j for j in range(len(slopes.names)) if j not in t]
    if not t:
        return Undefined("no feature differs between the texts")
    b = np.zeros(len(slopes.names))
    b[t] = 0.0 if at is None else at
    known = slopes.x @ b
    fit = logistic(slopes.x[:, kept], slopes.z, offset=known)
    if not fit.converged:
        # What is kept separates (a judge that follows gold alone, say): its penalised fit; `at` is then 0.
        fit = firth(slopes.x[:, kept], slopes.z)
        if not fit.converged or np.any(known != 0):
            return Undefined("the picks separate perfectly on gold and order")
    b[kept] = fit.coefficients
    p = fit.probabilities
    rows = slopes.x * (slopes.z - p + fit.adjustment)[:, None]
    if slopes.first_stage is not None:
        rows = rows + slopes.first_stage(b)
    information = (slopes.x * (p * (1.0 - p))[:, None]).T @ slopes.x
    return hotelling(rows, information, t, slopes.clusters)


def hotelling(
    scores: Floats, information: Floats, tested: Sequence[int], clusters: NDArray[np.intp]
) -> JointTest | Undefined:
    """The score test from ``scores`` (n, p) at the restricted fit, its ``information`` (p, p), by ``clusters`` (n,).

    The tested scores are freed of the others, S_t − I_tk I_kk⁻¹ S_k (Boos 1992), summed by cluster, and their mean over
    the G clusters is tested by Hotelling's T²: T²(G − q)/(q(G − 1)) on F(q, G − q), which allows for the estimated
    covariance that F(q, G − 1) takes as known.
    """
    t = list(tested)
    kept = [j for j in range(len(information)) if j not in t]
    free = scores[:, t]
    if kept:
        free = free - scores[:, kept] @ np.linalg.pinv(information[np.ix_(kept, kept)]) @ information[np.ix_(kept, t)]
    codes = np.unique(clusters, return_inverse=True)[1]
    groups, q = int(codes.max()) + 1, len(t)
    if groups - q < FEWEST_SPARE:
        return Undefined(f"{_TOO_FEW}: {groups} items, {q} features, {q + FEWEST_SPARE} items needed")
    u = np.stack([np.bincount(codes, weights=column, minlength=groups) for column in free.T], axis=1)
    scale = np.sqrt(np.sum(free**2, axis=0))
    # Both orders may cancel within every item (a judge locked to a slot): rounding must not pass for evidence.
    if np.any(np.sum(u**2, axis=0) <= 1e-18 * scale**2):
        return Undefined("within each item the verdicts cancel: they follow the slot, and say nothing of content")
    u = u / scale
    centred = u - u.mean(axis=0)
    if np.linalg.matrix_rank(centred, tol=1e-8 * float(np.linalg.norm(centred))) < q:
        return Undefined("the features are collinear on these pairs, or too few items tell them apart")
    mean = u.mean(axis=0)
    t2 = groups * (groups - 1.0) * float(mean @ np.linalg.solve(centred.T @ centred, mean))
    f = t2 * (groups - q) / (q * (groups - 1.0))
    return JointTest(f, q, groups - q, f_tail(f, q, groups - q))


def joint_wald(
    names: Sequence[str], tested: Sequence[str], b: Floats, covariance: Floats, df: int, *, hotelling: bool = False
) -> JointTest | Undefined:
    """The Wald test that all ``tested`` coefficients of ``b`` are 0, on F(q, ``df``): for few slopes on many items.

    ``hotelling``: scaled for an estimated covariance of ``df`` + 1 clusters, on F(q, ``df`` + 1 − q).
    """
    index = [list(names).index(name) for name in tested]
    if not index:
        return Undefined("no feature differs between the texts")
    block = covariance[np.ix_(index, index)]
    if np.linalg.matrix_rank(block, hermitian=True) < len(index):
        return Undefined(_TOO_FEW)
    q, rest = len(index), df
    f = float(b[index] @ np.linalg.solve(block, b[index])) / q
    if hotelling:
        rest = df + 1 - q
        if rest < FEWEST_SPARE:
            return Undefined(_TOO_FEW)
        f *= rest / df
    return JointTest(f, q, rest, f_tail(f, q, rest))


# Content slopes given quality, from two numeric golds: regression calibration (docs/method.md, "Two golds").

RELIABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
FEWEST_PAIRS = 90
"""As in the latent-quality model: a hundred pairs labelled twice, of which a tenth may have no verdict."""


def fit_calibrated(rows: Covariates) -> Slopes | Undefined:
    """The content model with calibrated quality; its covariance counts both stages.

    The regression is of the pairs with both golds; the content model is of all with the first, whose quality it predicts.
    """
    rows = rows.with_gold()
    both = ~np.isnan(rows.gold_2)
    twice = len(np.unique(rows.pairs[both]))
    if twice < FEWEST_PAIRS:
        return Undefined(f"two golds on {twice} pairs; the correction needs {FEWEST_PAIRS}")
    known = np.column_stack([rows.differences, rows.gold])
    solved, _, rank, _ = np.linalg.lstsq(known[both], rows.gold_2[both], rcond=None)
    if rank < known.shape[1]:
        return Undefined("gold and the texts' features are collinear")
    theta = np.asarray(solved, dtype=np.float64)
    slopes = fit_slopes(rows, known @ theta)
    if isinstance(slopes, Undefined):
        return slopes
    residual = np.where(both, rows.gold_2 - known @ theta, 0.0)
    influence = known * residual[:, None] @ np.linalg.inv(known[both].T @ known[both])
    j = slopes.names.index(GOLD)

    def first_stage(b: Floats) -> Floats:
        """What the calibration's error adds to each row's score at coefficients ``b``."""

        def score(t: Floats) -> Floats:
            x = slopes.x.copy()
            x[:, j] = known @ t
            return np.asarray(x.T @ (slopes.z - sigmoid(x @ b)))

        steps = 1e-6 * np.eye(len(theta))
        sensitivity = np.stack([(score(theta + h) - score(theta - h)) / 2e-6 for h in steps], axis=1)
        return np.asarray(influence @ sensitivity.T)

    return replace(
        slopes, covariance=_stacked(slopes, first_stage(slopes.coefficients)), first_stage=first_stage,
        method=f"calibrated {slopes.method}, both stages",
    )  # fmt: skip


def _stacked(slopes: Slopes, first: Floats) -> Floats:
    second = slopes.x * (slopes.z - slopes.fit.probabilities + slopes.fit.adjustment)[:, None]
    _, codes = np.unique(slopes.clusters, return_inverse=True)
    groups = int(codes.max()) + 1
    # Separated residuals are next to 0: the information stands for the second stage then, as in the plain fit.
    total = first if slopes.separated else second + first
    scores = np.stack([np.bincount(codes, weights=column, minlength=groups) for column in total.T], axis=1)
    inverse = np.linalg.inv(slopes.fit.hessian)
    sandwich = np.asarray(inverse @ (scores.T @ scores) @ inverse * groups / (groups - 1.0))
    return slopes.covariance + sandwich if slopes.separated else sandwich


def delta_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect with the delta method on the coefficients' own covariance (which counts both stages)."""
    if name not in slopes.names:
        return slopes.slope(name)
    j = slopes.names.index(name)
    p = slopes.fit.probabilities
    mean = float(np.mean(p * (1 - p)))
    gradient = slopes.coefficients[j] * np.mean((p * (1 - p) * (1 - 2 * p))[:, None] * slopes.x, axis=0)
    gradient[j] += mean
    se = float(np.sqrt(gradient @ slopes.covariance @ gradient))
    return t_interval(float(slopes.coefficients[j]) * mean, se, slopes.df, method=f"{slopes.method}, delta")


def reliability_curve(slopes: Slopes, name: str) -> str:
    """β(λ) in words: what the slope given one gold would be if that gold had reliability λ.

    The errors-in-variables correction (Σ − (1 − λ)σ_g²)⁻¹Σ·b on the covariates' second moments weighted by the fit's
    information, to first order in the slopes; "–" where gold of that reliability would vary less than the covariates
    already explain.
    """
    moments = np.asarray(slopes.fit.hessian)
    g, j = slopes.names.index(GOLD), slopes.names.index(name)
    parts = []
    for reliability in RELIABILITIES:
        corrected = moments.copy()
        corrected[g, g] *= reliability
        if np.linalg.eigvalsh(corrected)[0] <= 1e-9 * np.trace(moments):
            parts.append(f"{reliability:g}: –")
            continue
        value = np.linalg.solve(corrected, moments @ slopes.coefficients)[j]
        parts.append(f"{reliability:g}: {value:.3f}")
    return ", ".join(parts)
