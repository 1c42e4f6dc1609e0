"""The content model and its inference (docs/method.md, "The content model"): slopes, average effects and joint tests.

logit P(a picked) = γ·order + βᵀD + κ·gold, clustered by item. The order column is always there: without it position
shrinks every slope, and it enters the slopes where order and content correlate. Slopes are log-odds per doubling
(length), per generation-0 SD (style) or per unit of gold; effects are probability per unit of a column; positive = the
judge prefers more of it.

Where the picks separate on the covariates (a judge that always picks the longer text), the fit is Firth's and the
intervals come from its penalised likelihood. Where two numeric golds exist, quality is calibrated first, and the
covariance counts both stages (docs/method.md, "Two golds").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.kernels import (
    LogisticFit,
    cluster_inference,
    cluster_informations,
    cluster_sums,
    dense_codes,
    distinct,
    firth,
    jackknife_error,
    logistic,
    one_step_bootstrap,
    one_step_jackknife,
    satterthwaite_df,
    sigmoid,
)
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import (
    LEVEL,
    Interval,
    Undefined,
    bca,
    clustered_proportion,
    f_tail,
    quantile,
    t_interval,
)
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.presentations import Booleans, Floats, Integers

ORDER, GOLD = "order", "gold"
FEWEST_ITEMS = 10
"""A style feature that differs in fewer items than this gets no slope."""
FEWEST_PAIRS = 90
"""Fewest pairs with two golds: a hundred pairs labelled twice, of which a tenth may have no verdict."""
FEWEST_SPARE = 10
"""A joint test needs that many more items than tested slopes."""
DRAWS = 10_000
"""Resamples of ``bootstrap_effect``."""
RELIABILITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_FAR = 0.02
"""Root mean square of log-odds up to which ``marginal_near_fit`` expands: the third order is then below 1e-6."""
_SEPARATED_METHOD = "Firth logistic regression (separated), penalised likelihood ratio by item"
_TOO_FEW_ITEMS = "too few items for a joint test of that many features"


@dataclass(frozen=True, slots=True)
class Slopes:
    """A fitted content model.

    ``names`` (p) of its columns: order, features, gold; ``coefficients`` (p,) and their item-clustered ``covariance``
    (p, p), CR2 with the degrees of freedom ``dfs`` (p,) of their t; ``df``: items − 1; ``left_out``: why a feature of the texts has no column; ``x`` (n, p), ``z`` (n,),
    whether a was picked, ``fit`` and ``clusters`` (n,) what the coefficients were fitted to. ``separated``: the picks
    separate, and the fit is Firth's. ``influence`` (G, p): contributions of the items to the errors of a fit that is not Firth's, by their
    codes in order, of which ``covariance`` is the cross product. ``first_stage``: where a column was itself estimated, the function that gives what
    that adds to the rows' scores (n, p) at given coefficients (p,). ``effects``: what ``_effect_and_left_out`` has made, by name.
    """

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    dfs: Floats
    df: int
    method: str
    left_out: dict[str, str]
    x: Floats
    z: Floats
    fit: LogisticFit
    clusters: Integers
    separated: bool = False
    influence: Floats | None = None
    first_stage: Callable[[Floats], Floats] | None = None
    effects: dict[str, tuple[float, Floats, float]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the columns that are features."""
        return tuple(name for name in self.names if name not in (ORDER, GOLD))

    def slope(self, name: str) -> Interval | Undefined:
        """The coefficient of a column, log-odds per unit; where the picks separate, see ``separated_slope``."""
        if name not in self.names:
            return Undefined(self.left_out.get(name, f"{name} does not differ between the texts"))
        j = self.names.index(name)
        se = float(np.sqrt(self.covariance[j, j]))
        if self.separated:
            p_value = profile_p_value(self.x, self.z, self.fit, j, self.df + 1)
            return separated_slope(float(self.coefficients[j]), se, self.df + 1, p_value)
        return t_interval(float(self.coefficients[j]), se, self.df_of(name), method=self.method)

    def df_of(self, *names: str) -> float:
        """Degrees of freedom of t for the coefficients of these columns: the fewest of theirs."""
        return float(min(self.dfs[self.names.index(name)] for name in names))

    def variance_inflation(self, name: str) -> float:
        """1/(1 − R²) of a column regressed on the others, not centred, weighted by the fit's information."""
        j = self.names.index(name)
        information = np.asarray(self.fit.hessian)
        return float(information[j, j] * np.linalg.pinv(information, hermitian=True)[j, j])

    def marginal(self, coefficients: Floats) -> Floats:
        """(draws,) mean over the rows of s′(η), the logistic function's derivative, at each of (draws, p) coefficients."""
        result = np.empty(len(coefficients))
        block = max(1, 2_000_000 // max(1, len(self.x)))
        for start in range(0, len(coefficients), block):
            slope_at_eta = np.exp(-np.abs(self.x @ coefficients[start : start + block].T))
            # s′(η) = e^−|η|/(1 + e^−|η|)²: one exponential, no overflow.
            np.divide(slope_at_eta, np.square(1.0 + slope_at_eta), out=slope_at_eta)
            result[start : start + block] = np.mean(slope_at_eta, axis=0)
        return result

    def marginal_near_fit(self, coefficients: Floats) -> Floats:
        """``marginal`` at (draws, p) coefficients near the fit's, of which few are far: by Taylor's expansion to the second order,
        so that the time is that of reading the rows once and not once a draw.

        Draws that move the rows' log-odds by more than ``_FAR`` in the root mean square are read row by row. One-step
        jackknife values are that far from the fit for few items whatever the number of rows: the squares of their distances
        sum to the order of p/n.
        """
        x, p = self.x, self.fit.probabilities
        first = p * (1.0 - p)
        second, third = first * (1.0 - 2.0 * p), first * (1.0 - 6.0 * first)
        moved = coefficients - self.coefficients
        result = np.mean(first) + moved @ (second @ x / len(x)) + _quadratic(moved, (x.T * third) @ x / len(x)) / 2.0
        far = _quadratic(moved, x.T @ x / len(x)) > _FAR**2
        result[far] = self.marginal(coefficients[far])
        return np.asarray(result, dtype=np.float64)


def _quadratic(rows: Floats, matrix: Floats) -> Floats:
    """(m,) rᵀMr of each of ``rows`` (m, p), ``matrix`` M (p, p)."""
    return np.asarray(np.einsum("ij,ij->i", rows @ matrix, rows), dtype=np.float64)


def fit_slopes(rows: Covariates, gold: Floats | None = None) -> Slopes | Undefined:
    """Fit the content model to ``rows``, with ``gold`` (n,) as a column where it is given.

    Undefined with a reason where nothing identifies the slopes; where the picks separate, Firth's fit.
    """
    rows, left_out = without_rare_features(rows)
    names, columns = [ORDER, *rows.features], [rows.order, *rows.differences.T]
    if gold is not None:
        if not np.any(gold != 0):
            return Undefined("gold calls every pair a tie")
        names.append(GOLD)
        columns.append(gold)
    return fit_columns(rows, tuple(names), np.stack(columns, axis=1), left_out)


def without_rare_features(rows: Covariates) -> tuple[Covariates, dict[str, str]]:
    """The rows without the style features that differ in fewer than ``FEWEST_ITEMS`` items, and why each is left out."""
    left_out = {}
    for j, name in enumerate(rows.features):
        differing = distinct(rows.items[rows.differences[:, j] != 0])
        if name != "length" and differing < FEWEST_ITEMS:
            left_out[name] = f"{name} differs in {differing} items only; a slope needs {FEWEST_ITEMS}"
    kept = [name not in left_out for name in rows.features]
    features = tuple(name for name in rows.features if name not in left_out)
    return replace(rows, features=features, differences=rows.differences[:, kept]), left_out


def fit_columns(
    rows: Covariates, names: tuple[str, ...], x: Floats, left_out: dict[str, str] | None = None
) -> Slopes | Undefined:
    """Fit of given columns ``x`` (n, p), called ``names``, to the picks of ``rows``, with the inference of ``fit_slopes``.

    ``left_out``: reasons to report for features that have no column.
    """
    items = distinct(rows.items)
    if items <= x.shape[1]:
        return Undefined(f"{items} items are too few for {x.shape[1]} coefficients")
    z = rows.picked_a
    fit = logistic(x, z)
    if fit.rank < x.shape[1]:
        return Undefined(f"{', '.join(names)} are collinear on these pairs")
    separated, influence = not fit.converged, None
    if separated:
        fit = firth(x, z)
        if not fit.converged:
            return Undefined("the picks separate perfectly on these covariates")
        # Separated residuals are next to 0, and a sandwich of them would be too: the covariance is that of the
        # information instead, as if each item had one row.
        covariance, dfs = fit.covariance * len(z) / items, np.full(x.shape[1], items - 1.0)
        method = "Firth logistic regression (separated), information by item"
    else:
        try:
            influence, dfs = cluster_inference(x, z, fit, rows.items)
        except ValueError as error:
            return Undefined(str(error))
        covariance = np.asarray(influence.T @ influence, dtype=np.float64)
        method = "logistic regression, CR2 by item, Bell-McCaffrey df"
    return Slopes(
        names,
        fit.coefficients,
        covariance,
        dfs,
        items - 1,
        method,
        left_out or {},
        x,
        z,
        fit,
        rows.items,
        separated,
        influence,
    )


def _working_weights(fit: LogisticFit) -> Floats:
    """(n,) each row's share in the information, p(1 − p)."""
    return np.asarray(fit.probabilities * (1.0 - fit.probabilities), dtype=np.float64)


def average_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect of a column on P(a picked), over these rows: probability per unit of the column.

    β·mean s′(η) at the rows as they are; its standard error is the one-step jackknife's over items, with Bell &
    McCaffrey's degrees of freedom of its gradient (``effect_df``). Its coverage equals the bootstrap's in easy worlds, and it holds where few verdicts carry the slope and the bootstrap's
    interval is too narrow (``judgeloop validate --claims --only order_locked_judge``); ``bootstrap_effect``
    gives that interval. Where the picks separate: ``separated_effect``.
    """
    missing = _missing_column(slopes, name)
    if missing is not None:
        return missing
    if slopes.separated:
        j = slopes.names.index(name)
        p_value = profile_p_value(slopes.x, slopes.z, slopes.fit, j, slopes.df + 1)
        return separated_effect(slopes.x, slopes.fit, slopes.clusters, j, p_value)
    return _jackknife_interval(*_effect_and_left_out(slopes, name))


@dataclass(frozen=True, slots=True)
class Factor:
    """A number that scales an effect: its ``value``, and its (G,) values with one item left out."""

    value: float
    left_out: Floats


def effect_difference(slopes: Slopes, other: Slopes, name: str, factor: Factor | None = None) -> Interval | Undefined:
    """Average marginal effect in ``slopes`` minus that in ``other``, fitted to the same rows: paired by item.

    ``factor``: what the other effect is multiplied by, itself estimated from these rows (default 1). Where the picks of
    either separate, from the limits of both effects as if they were independent.
    """
    missing = _missing_column(slopes, name) or _missing_column(other, name)
    if missing is not None:
        return missing
    if slopes.separated or other.separated:
        effect, subtracted = average_effect(slopes, name), average_effect(other, name)
        if isinstance(effect, Undefined):
            return effect
        if isinstance(subtracted, Undefined):
            return subtracted
        return separated_difference(effect, subtracted if factor is None else _scaled(subtracted, factor))
    estimate, left_out, df = _effect_and_left_out(slopes, name)
    other_estimate, other_left_out, other_df = _effect_and_left_out(other, name)
    value, values = (1.0, np.ones_like(left_out)) if factor is None else (factor.value, factor.left_out)
    return _jackknife_interval(estimate - value * other_estimate, left_out - values * other_left_out, min(df, other_df))


def _scaled(effect: Interval, factor: Factor) -> Interval:
    """The effect times the factor; its limits are widened by what the factor's own error moves the estimate."""
    moved = abs(effect.estimate) * jackknife_error(factor.left_out)
    estimate = factor.value * effect.estimate
    low, high = sorted((factor.value * effect.low, factor.value * effect.high))
    below, above = (math.hypot(gap, quantile(0.5 + LEVEL / 2.0) * moved) for gap in (estimate - low, high - estimate))
    se = math.hypot(factor.value * effect.std_error, moved)
    return replace(effect, estimate=estimate, std_error=se, low=estimate - below, high=estimate + above)


def bootstrap_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """``average_effect`` with the BCa interval of a cluster bootstrap by item, 10,000 one-step resamples (Efron 1987)."""
    missing = _missing_column(slopes, name)
    if missing is not None:
        return missing
    if slopes.separated:
        return Undefined("the picks separate on these covariates: there is no average effect to resample")
    estimate, left_out, _ = _effect_and_left_out(slopes, name)
    sample = one_step_bootstrap(slopes.x, slopes.z, slopes.fit, slopes.clusters, DRAWS, seeds.rng(0, "average effect"))
    return bca(estimate, slopes.marginal(sample) * sample[:, slopes.names.index(name)], left_out)


def delta_effect(slopes: Slopes, name: str) -> Interval | Undefined:
    """Average marginal effect by the delta method on the coefficients' own covariance, probability per unit of the column.

    For fits whose covariance counts two stages, which a jackknife of the second alone would miss.
    """
    if name not in slopes.names:
        return slopes.slope(name)
    gradient = _effect_gradient(slopes, name)
    estimate = float(slopes.coefficients[slopes.names.index(name)] * np.mean(_working_weights(slopes.fit)))
    se = float(np.sqrt(gradient @ slopes.covariance @ gradient))
    return t_interval(estimate, se, effect_df(slopes, name), method=f"{slopes.method}, delta")


def effect_df(slopes: Slopes, name: str) -> float:
    """Degrees of freedom of t for a column's average marginal effect: those of its gradient in the coefficients."""
    if slopes.separated:
        return float(slopes.df)
    informations = cluster_informations(slopes.x, _working_weights(slopes.fit), slopes.clusters)
    return float(satterthwaite_df(informations, _effect_gradient(slopes, name)[None])[0])


def _effect_gradient(slopes: Slopes, name: str) -> Floats:
    """(p,) derivative of β·mean s′(η) by the coefficients."""
    j, p = slopes.names.index(name), slopes.fit.probabilities
    weights = _working_weights(slopes.fit)
    gradient = slopes.coefficients[j] * np.mean((weights * (1 - 2 * p))[:, None] * slopes.x, axis=0)
    gradient[j] += float(np.mean(weights))
    return np.asarray(gradient)


def _missing_column(slopes: Slopes, name: str) -> Undefined | None:
    """Why the model has no column of that name, or None where it has one."""
    if name not in slopes.names:
        return Undefined(slopes.left_out.get(name, f"{name} does not differ between the texts"))
    return None


def _effect_and_left_out(slopes: Slopes, name: str) -> tuple[float, Floats, float]:
    """The average effect, its (G,) values with one item left out, and ``effect_df``; made once a fit."""
    if name not in slopes.effects:
        j = slopes.names.index(name)
        left_out = one_step_jackknife(slopes.x, slopes.z, slopes.fit, slopes.clusters)
        effect = float(slopes.coefficients[j] * np.mean(_working_weights(slopes.fit)))
        without_each = slopes.marginal_near_fit(left_out) * left_out[:, j]
        slopes.effects[name] = effect, without_each, effect_df(slopes, name)
    return slopes.effects[name]


def _jackknife_interval(estimate: float, left_out: Floats, df: float) -> Interval | Undefined:
    """The estimate's t interval on ``df`` degrees of freedom from its (G,) values with one item left out."""
    se = jackknife_error(left_out)
    if se == 0:
        return Undefined("the estimate is the same whichever item is left out")
    return t_interval(estimate, se, df, method="one-step jackknife t by item, Bell-McCaffrey df")


# Picks that separate on the covariates.


def separated_slope(estimate: float, std_error: float, items: int, p_value: float) -> Interval:
    """One coefficient in log-odds with an interval that agrees with the ``p_value`` of its likelihood ratio.

    ``std_error`` is that of the information, as if each item had one row. See ``separated_effect`` for the interval.
    """
    low, high = _separated_limits(estimate, std_error, items, p_value)
    return Interval(estimate, std_error, low, high, LEVEL, p_value, items - 1, _SEPARATED_METHOD)


def separated_effect(x: Floats, fit: LogisticFit, clusters: Integers, column: int, p_value: float) -> Interval:
    """Average marginal effect β·mean s′(η) where the picks separate: probability per unit of the column.

    ``x`` (n, p). Its variance is the sum of two: that of the coefficients (delta method on the information, as if each item had one
    row), and that of the few rows near an even choice, which alone make up mean s′. An effect has its slope's sign, so
    its test is that of the slope (``p_value``); the interval agrees with the test: on the log scale where p is below
    .05, else it holds 0. Planted judges of slope 3 to 20 a doubling on 30 to 100 items: coverage .92 to .97.
    """
    codes = dense_codes(clusters)[0]
    items = int(codes.max()) + 1
    b, p = float(fit.coefficients[column]), fit.probabilities
    derivative = p * (1.0 - p)
    estimate = b * float(np.mean(derivative))
    gradient = b * np.mean((derivative * (1.0 - 2.0 * p))[:, None] * x, axis=0)
    gradient[column] += float(np.mean(derivative))
    slope_variance = float(gradient @ fit.covariance @ gradient) * len(x) / items
    by_item = np.bincount(codes, weights=b * (derivative - np.mean(derivative)), minlength=items) / len(x)
    se = math.sqrt(slope_variance + items / (items - 1.0) * float(np.sum(by_item**2)))
    low, high = _separated_limits(estimate, se, items, p_value)
    return Interval(estimate, se, low, high, LEVEL, p_value, items - 1, _SEPARATED_METHOD)


def separated_difference(effect: Interval, other: Interval) -> Interval:
    """``effect`` − ``other`` from the limits of both, taken as independent; the intervals need not be symmetric.

    The method of variance estimates recovery of Zou & Donner (2008).
    """
    gap, df = effect.estimate - other.estimate, effect.df
    below = math.hypot(effect.estimate - effect.low, other.high - other.estimate)
    above = math.hypot(effect.high - effect.estimate, other.estimate - other.low)
    critical = quantile(0.5 + LEVEL / 2.0, df or None)
    error_towards_0 = (below if gap > 0 else above) / critical
    p_value = t_interval(gap, error_towards_0, df).p_value
    return Interval(
        gap, math.hypot(effect.std_error, other.std_error), gap - below, gap + above, LEVEL, p_value, df,
        "from both effects' own limits (picks separate)",
    )  # fmt: skip


def profile_p_value(x: Floats, z: Floats, fit: LogisticFit, column: int, items: int) -> float:
    """The p-value of coefficient 0 by Firth's penalised likelihood ratio on F(1, items − 1), as if each item had one row.

    ``x`` (n, p) and ``z`` (n,) are what ``fit`` was fitted to; ``column`` is the coefficient's position.
    """
    gap = _penalised_likelihood(fit) - _penalised_likelihood(firth(x, z, fixed=(column, 0.0), tolerance=1e-6))
    return f_tail(max(0.0, 2.0 * items / len(z) * gap), 1, items - 1)


def _separated_limits(estimate: float, std_error: float, items: int, p_value: float) -> tuple[float, float]:
    """(low, high) of the interval: multiplicative where the test rejects 0, else the t interval widened to hold 0."""
    interval = t_interval(estimate, std_error, items - 1)
    if p_value < 1.0 - LEVEL:
        factor = math.exp((interval.high - interval.low) / 2.0 / abs(estimate))
        low, high = sorted((estimate / factor, estimate * factor))
        return low, high
    return min(0.0, interval.low), max(0.0, interval.high)


def _penalised_likelihood(fit: LogisticFit) -> float:
    """Firth's penalised log-likelihood at the fit."""
    return fit.log_likelihood + 0.5 * float(np.linalg.slogdet(fit.hessian)[1])


# Several slopes at once.


@dataclass(frozen=True, slots=True)
class JointTest:
    """The statistic ``f``, F-distributed on ``q`` and ``df`` degrees of freedom under the null, and its p-value."""

    f: float
    q: int
    df: int
    p_value: float


def joint_score(slopes: Slopes, tested: Sequence[str], at: Floats | None = None) -> JointTest | Undefined:
    """The cluster score test that the ``tested`` coefficients are all 0 (or ``at`` (q,)), the other columns fitted.

    ``tested`` are column names of ``slopes``. See ``hotelling`` for the statistic.
    """
    tested_columns = [slopes.names.index(name) for name in tested]
    untested = [j for j in range(len(slopes.names)) if j not in tested_columns]
    if not tested_columns:
        return Undefined("no feature differs between the texts")
    b = np.zeros(len(slopes.names))
    b[tested_columns] = 0.0 if at is None else at
    offset = slopes.x @ b
    fit = logistic(slopes.x[:, untested], slopes.z, offset=offset)
    if not fit.converged:
        # The picks separate on the other columns (a judge that follows gold alone): Firth's fit, which takes no offset.
        fit = firth(slopes.x[:, untested], slopes.z)
        if not fit.converged or np.any(offset != 0):
            return Undefined("the picks separate perfectly on gold and order")
    b[untested] = fit.coefficients
    p = fit.probabilities
    scores = slopes.x * (slopes.z - p + fit.adjustment)[:, None]
    if slopes.first_stage is not None:
        scores = scores + slopes.first_stage(b)
    information = (slopes.x * (p * (1.0 - p))[:, None]).T @ slopes.x
    return hotelling(scores, information, tested_columns, slopes.clusters)


def least_favourable(slopes: Slopes, tested: Sequence[str], lost: Booleans) -> Floats:
    """(n,) the picks of text a, in [0, 1], with those of the ``lost`` rows such that ``joint_score`` of ``tested`` finds least.

    The tested scores, freed of the other columns, are linear in the picks: bounded least squares brings their sum as near to 0
    as the lost picks can, in the metric of the scores' covariance by item. ``slopes``: fitted with every lost pick ½.
    """
    from scipy import optimize  # only here: it is slow to import

    chosen = np.isin(slopes.names, tested)
    held = slopes.x[:, ~chosen]
    fit = logistic(held, slopes.z)
    p = (fit if fit.converged else firth(held, slopes.z)).probabilities
    weighted = held * (p * (1.0 - p))[:, None]
    free = slopes.x[:, chosen] - held @ np.linalg.pinv(weighted.T @ held) @ weighted.T @ slopes.x[:, chosen]
    scores = free * (slopes.z - p)[:, None]
    codes = np.unique(slopes.clusters, return_inverse=True)[1]
    by_item = cluster_sums(scores, codes, int(codes.max()) + 1)
    values, vectors = np.linalg.eigh(by_item.T @ by_item)
    metric = (vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1]))).T
    rest = scores[~lost].sum(axis=0) - free[lost].T @ p[lost]
    picks = slopes.z.copy()
    picks[lost] = optimize.lsq_linear(metric @ free[lost].T, -metric @ rest, (0.0, 1.0)).x
    return picks


def hotelling(scores: Floats, information: Floats, tested: Sequence[int], clusters: Integers) -> JointTest | Undefined:
    """The score test from ``scores`` (n, p) at the restricted fit, its ``information`` (p, p), by ``clusters`` (n,).

    ``tested``: positions of the q tested columns. Their scores are freed of the others, S_t − I_tk I_kk⁻¹ S_k (Boos
    1992), and summed by cluster; that their mean over the G clusters is 0 is tested by Hotelling's T²: T²(G − q)/(q(G −
    1)) on F(q, G − q), which allows for the estimated covariance that F(q, G − 1) takes as known.
    """
    columns = list(tested)
    untested = [j for j in range(len(information)) if j not in columns]
    free = scores[:, columns]
    if untested:
        free = (
            free
            - scores[:, untested]
            @ np.linalg.pinv(information[np.ix_(untested, untested)])
            @ information[np.ix_(untested, columns)]
        )
    codes = dense_codes(clusters)[0]
    groups, q = int(codes.max()) + 1, len(columns)
    if groups - q < FEWEST_SPARE:
        return Undefined(f"{_TOO_FEW_ITEMS}: {groups} items, {q} features, {q + FEWEST_SPARE} items needed")
    by_cluster = cluster_sums(free, codes, groups)
    scale = np.sqrt(np.sum(free**2, axis=0))
    # Both orders cancel within every item where a judge always picks one slot: what is left is rounding, not evidence.
    if np.any(np.sum(by_cluster**2, axis=0) <= 1e-18 * scale**2):
        return Undefined(
            "within each item the verdicts of the two orders cancel: they follow the slot and show nothing about content"
        )
    by_cluster = by_cluster / scale
    centred = by_cluster - by_cluster.mean(axis=0)
    if np.linalg.matrix_rank(centred, tol=1e-8 * float(np.linalg.norm(centred))) < q:
        return Undefined("the features are collinear on these pairs, or too few items separate them")
    mean = by_cluster.mean(axis=0)
    t2 = groups * (groups - 1.0) * float(mean @ np.linalg.solve(centred.T @ centred, mean))
    f = t2 * (groups - q) / (q * (groups - 1.0))
    return JointTest(f, q, groups - q, f_tail(f, q, groups - q))


def joint_wald(
    names: Sequence[str], tested: Sequence[str], b: Floats, covariance: Floats, df: int, *, hotelling: bool = False
) -> JointTest | Undefined:
    """The Wald test that all ``tested`` coefficients of ``b`` (p,) are 0, on F(q, ``df``): for few slopes on many items.

    ``names`` (p) of the coefficients and their ``covariance`` (p, p). ``hotelling``: scaled for a covariance estimated
    from ``df`` + 1 clusters, on F(q, ``df`` + 1 − q).
    """
    index = [list(names).index(name) for name in tested]
    if not index:
        return Undefined("no feature differs between the texts")
    block = covariance[np.ix_(index, index)]
    if np.linalg.matrix_rank(block, hermitian=True) < len(index):
        return Undefined(_TOO_FEW_ITEMS)
    q, denominator_df = len(index), df
    f = float(b[index] @ np.linalg.solve(block, b[index])) / q
    if hotelling:
        denominator_df = df + 1 - q
        if denominator_df < FEWEST_SPARE:
            return Undefined(_TOO_FEW_ITEMS)
        f *= denominator_df / df
    return JointTest(f, q, denominator_df, f_tail(f, q, denominator_df))


# Gold that errs.


def fit_calibrated(rows: Covariates) -> Slopes | Undefined:
    """The content model given quality calibrated from two numeric golds; its covariance counts both stages.

    Regression calibration: the second gold is regressed on the first and the features over the pairs with both; that
    prediction is the gold column for all pairs with the first. Undefined with a reason where fewer than
    ``FEWEST_PAIRS`` pairs have both, or where nothing identifies the slopes.
    """
    rows, left_out = without_rare_features(rows.with_gold())
    has_second = ~np.isnan(rows.gold_2)
    n_both = distinct(rows.pairs[has_second])
    if n_both < FEWEST_PAIRS:
        return Undefined(f"two golds on {n_both} pairs; the correction needs {FEWEST_PAIRS}")
    predictors = np.column_stack([rows.differences, rows.gold])
    solution, _, rank, _ = np.linalg.lstsq(predictors[has_second], rows.gold_2[has_second], rcond=None)
    if rank < predictors.shape[1]:
        return Undefined("gold and the texts' features are collinear")
    theta = np.asarray(solution, dtype=np.float64)
    slopes = fit_slopes(rows, predictors @ theta)
    if isinstance(slopes, Undefined):
        return slopes
    residual = np.where(has_second, rows.gold_2 - predictors @ theta, 0.0)
    influence = predictors * residual[:, None] @ np.linalg.inv(predictors[has_second].T @ predictors[has_second])
    j = slopes.names.index(GOLD)

    def first_stage(b: Floats) -> Floats:
        """What the calibration's error adds to each row's score at coefficients ``b``."""

        def score(t: Floats) -> Floats:
            x = slopes.x.copy()
            x[:, j] = predictors @ t
            return np.asarray(x.T @ (slopes.z - sigmoid(x @ b)))

        steps = 1e-6 * np.eye(len(theta))
        sensitivity = np.stack([(score(theta + h) - score(theta - h)) / 2e-6 for h in steps], axis=1)
        return np.asarray(influence @ sensitivity.T)

    return replace(
        slopes, covariance=_two_stage_covariance(slopes, first_stage(slopes.coefficients)), influence=None, first_stage=first_stage,
        method=f"calibrated {slopes.method}, both stages", left_out=left_out,
    )  # fmt: skip


def _two_stage_covariance(slopes: Slopes, first: Floats) -> Floats:
    """(p, p) item-clustered covariance; ``first`` (n, p) is what the calibration's error adds to the rows' scores."""
    second = slopes.x * (slopes.z - slopes.fit.probabilities + slopes.fit.adjustment)[:, None]
    codes = dense_codes(slopes.clusters)[0]
    groups = int(codes.max()) + 1
    # Separated residuals are next to 0: the second stage's part is then the information's, as in the plain fit.
    total = first if slopes.separated else second + first
    scores = cluster_sums(total, codes, groups)
    inverse = np.linalg.inv(slopes.fit.hessian)
    sandwich = np.asarray(inverse @ (scores.T @ scores) @ inverse * groups / (groups - 1.0))
    return slopes.covariance + sandwich if slopes.separated else sandwich


def reliability_curve(slopes: Slopes, name: str) -> str:
    """β(λ) as text: what the slope given one gold would be if that gold had reliability λ.

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


# Whether length moves a judge's picks by one slope, and how the picks go with length where it does not.

LENGTH_SHAPE = "length_shape"
"""The term of the test that length moves the picks by its slope alone."""
SHORT, LONG, SMALL, LARGE = "short_pairs", "long_pairs", "small_differences", "large_differences"
"""Variants of ``length_ame``: of the half of the pairs with the shorter texts, the longer ones, and of the half whose lengths
differ less, or more."""
SHAPE_LEVEL = 0.05
"""Level at which the test of the shape withholds ``none``, and the halves are reported."""
_WITHHELD = ("length_ame", "length_log_odds", "gold_tied_longer_excess", "excess_longer_vs_gold")
"""The terms that would say that length has no effect."""
_BINS, _FEWEST_ROWS = 4, 10


def shape_test(slopes: Slopes, mean_length: Floats | None) -> JointTest | Undefined:
    """The cluster score test that length moves the log-odds by its slope alone, at every length and every difference.

    ``mean_length`` (n,) of each row's two texts, in doublings. Tested beside the model's columns: ΔL × (mean length − its
    mean), which is not 0 where the taste changes with length (a quadratic taste for one length), and ΔL·|ΔL|, where it
    changes with the size of the difference. Both change sign with the texts, as the slope does. (ΔL³ would rest on the few
    largest differences: it rejects a true null in 6.8 % of 1,500 samples of 200 pairs, this in 6.1 %, and it finds less.)
    """
    shaped = with_shape(slopes, mean_length)
    return shaped if isinstance(shaped, Undefined) else joint_score(*shaped)


def with_shape(slopes: Slopes, mean_length: Floats | None) -> tuple[Slopes, tuple[str, ...]] | Undefined:
    """The model with the columns that ``shape_test`` tests, at its own coefficients, and their names."""
    if "length" not in slopes.names or mean_length is None:
        return Undefined(slopes.left_out.get("length", "length does not differ between the texts"))
    difference = slopes.x[:, slopes.names.index("length")]
    added = np.stack([difference * (mean_length - mean_length.mean()), difference * np.abs(difference)], axis=1)
    # A column that the others make up already (lengths that differ by one amount) has nothing to be tested on.
    left = added - slopes.x @ np.linalg.lstsq(slopes.x, added, rcond=None)[0]
    own = np.sum(left**2, axis=0) > 1e-8 * np.sum(added**2, axis=0)
    if not own.any():
        return Undefined("the texts' lengths do not differ enough to show a shape")
    names = tuple(name for name, kept in zip(("length × mean length", "length × |length|"), own, strict=True) if kept)
    columns = left[:, own] / np.sqrt(np.mean(left[:, own] ** 2, axis=0))
    extended = replace(
        slopes, names=(*slopes.names, *names), x=np.column_stack([slopes.x, columns]), influence=None, first_stage=None
    )  # fmt: skip
    return extended, names


def rejects_slope(shape: JointTest | Undefined | None) -> bool:
    """Whether the test of the shape shows that length moves the picks other than by one slope."""
    return isinstance(shape, JointTest) and shape.p_value <= SHAPE_LEVEL


def withheld_where_not_linear(estimate: Estimate, shape: JointTest | Undefined | None) -> Estimate:
    """The row; where it would say that length has no effect and ``shape`` rejects a slope, with the verdict ``not_linear``.

    A taste for one length, longer below it and shorter above, has a slope of 0 and decides the picks all the same.
    """
    if estimate.term in _WITHHELD and estimate.verdict == "none" and rejects_slope(shape):
        return replace(estimate, verdict="not_linear")
    return estimate


def halves(rows: Covariates) -> dict[str, Booleans]:
    """The variants of ``length_ame`` that show a shape, each with the rows (n,) of its half; empty where no length is known."""
    mean, length = rows.mean_length, rows.length
    if mean is None or length is None:
        return {}
    size = np.abs(length)
    short, small = mean <= np.median(mean), size <= np.median(size[size > 0])
    return {SHORT: short, LONG: ~short, SMALL: small, LARGE: ~small}


@dataclass(frozen=True, slots=True)
class LengthBin:
    """How often the longer text was picked (probability, a tie ½), in judgments alike in length and order.

    ``half``: SHORT or LONG, of the pairs by their texts' mean length; ``longer_first``: the longer text was shown first;
    ``difference``: mean of |ΔL|, in doublings; ``n`` judgments of ``n_items`` items.
    """

    half: str
    longer_first: bool
    difference: float
    picked: Interval
    n: int
    n_items: int


def picks_by_length(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, scales: Mapping[str, float] | None = None
) -> list[LengthBin]:
    """The bins of one judge's judgments, four of equal counts by |ΔL| in each half and order; arguments as in ``covariates``.

    Bins of fewer than ten judgments are left out; empty where the texts' lengths are not known or never differ.
    """
    rows = covariates(judgments, texts, scales=scales)
    length = rows.length
    if length is None or not np.any(length != 0):
        return []
    size, longer = np.abs(length), np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a)
    longer_first = (rows.order > 0) == (length > 0)
    edges = np.quantile(size[size > 0], np.arange(1, _BINS) / _BINS)
    place = np.searchsorted(edges, size)
    bins = []
    by_half = halves(rows)
    for half in (SHORT, LONG):
        for first in (True, False):
            for number in range(_BINS):
                shown = by_half[half] & (longer_first == first) & (place == number) & (size > 0)
                if shown.sum() < _FEWEST_ROWS:
                    continue
                picked = clustered_proportion(longer[shown], rows.items[shown])
                if isinstance(picked, Interval):
                    items = distinct(rows.items[shown])
                    bins.append(LengthBin(half, first, float(size[shown].mean()), picked, int(shown.sum()), items))
    return bins
