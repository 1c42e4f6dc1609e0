"""Inference: reference distributions, intervals and tests by case, and sample sizes (docs/method.md, "Intervals by case").

The cases are one number a replicate, clustered means and proportions, ratios, and the bootstrap. A result that cannot be
computed is ``Undefined`` with its reason, never NaN. All arrays are one-dimensional and finite.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

# Quantiles and tails of the reference distributions: the normal, Student's t, F, the binomial.

_HALVINGS = 200
_SCORE_HALVINGS = 30


def quantile(probability: float, df: float | None = None) -> float:
    """The quantile of Student's t on ``df`` degrees of freedom; of the standard normal where ``df`` is None."""
    return float(scipy.special.ndtri(probability) if df is None else scipy.special.stdtrit(df, probability))


def tail(value: float, df: float | None = None) -> float:
    """P(T > value) for Student's t on ``df`` degrees of freedom; for the standard normal where ``df`` is None."""
    return float(scipy.special.ndtr(-value) if df is None else scipy.special.stdtr(df, -value))


def normal_cdf(value: Any) -> Any:
    """P(Z ≤ value) of the standard normal, of a number or an array."""
    return scipy.special.ndtr(value)


def normal_density(value: NDArray[np.float64] | float) -> Any:
    """The standard normal density, of a number or an array."""
    return np.exp(-np.square(value) / 2.0) / np.sqrt(2.0 * np.pi)


def f_tail(value: float, numerator_df: float, denominator_df: float) -> float:
    """P(F > value) of the F distribution."""
    return float(scipy.special.fdtrc(numerator_df, denominator_df, value))


def fair_coin_cdf(successes: int, trials: int) -> float:
    """P(X ≤ successes) for ``trials`` throws of a fair coin; 0 where ``successes`` is below 0."""
    return float(scipy.special.bdtr(successes, trials, 0.5)) if successes >= 0 else 0.0


@functools.lru_cache(maxsize=4096)
def detectable_shift(df: float, power: float, level: float) -> float:
    """The noncentrality at which a two-sided t test on ``df`` degrees of freedom has ``power``."""
    critical = quantile(0.5 + level / 2.0, df)

    def shortfall(shift: float) -> float:
        # The far lower tail is NaN for some shifts; there it is below 1e-9.
        far = float(np.nan_to_num(scipy.special.nctdtr(df, shift, -critical)))
        return 1.0 - float(scipy.special.nctdtr(df, shift, critical)) + far - power

    low, high = 0.0, critical + 1.0
    while shortfall(high) < 0:
        high += 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        if not low < middle < high:
            break
        low, high = (middle, high) if shortfall(middle) < 0 else (low, middle)
    return high


@functools.lru_cache(maxsize=64)
def largest_normal(n: int) -> tuple[float, float]:
    """(e_n, v_n): mean and variance of the largest of n standard normal draws, by quadrature."""

    from scipy import integrate

    def moment(power: int) -> float:
        value, _ = integrate.quad(
            lambda z: z**power * n * normal_density(z) * normal_cdf(z) ** (n - 1), -12.0, 12.0, epsabs=1e-12
        )
        return float(value)

    return moment(1), moment(2) - moment(1) ** 2


# Intervals and tests.

LEVEL = 0.95
"""Default level of every interval."""

FEW_CLUSTERS = 50
"""Fewest clusters for the CR1 covariance; with fewer it is Mancl–DeRouen's."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its two-sided interval [``low``, ``high``] at ``level``.

    ``p_value`` is two-sided, of the null that the function was given (default 0), None without a test. ``std_error`` is on
    the estimate's scale. ``df``: degrees of freedom of the t reference, None for the normal or an exact method.
    """

    estimate: float
    std_error: float
    low: float
    high: float
    level: float = LEVEL
    p_value: float | None = None
    df: float | None = None
    method: str = ""
    equivalence: tuple[float, float] | None = None
    """The 90 % limits, by which two one-sided tests go; None where they are estimate ± t·std_error."""

    def covers(self, value: float) -> bool:
        """Whether ``value`` lies in the interval, limits included."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Undefined:
    """A result without a number, and the reason why."""

    reason: str


def t_interval(
    estimate: float, std_error: float, df: float | None, *, level: float = LEVEL, null: float = 0.0, method: str = ""
) -> Interval:
    """estimate ± t·std_error, with the two-sided p of ``null``; the normal where ``df`` is None.

    A standard error of 0 gives a point, and p 1 or 0 as the estimate is the null or not.
    """
    p_value = 2.0 * tail(abs(estimate - null) / std_error, df) if std_error > 0 else float(estimate == null)
    half = quantile(0.5 + level / 2.0, df) * std_error
    return Interval(estimate, std_error, estimate - half, estimate + half, level, p_value, df, method)


def replicate_t(values: ArrayLike, *, level: float = LEVEL, null: float = 0.0) -> Interval | Undefined:
    """The mean of one number a replicate, with the one-sample t interval on S − 1 degrees of freedom.

    Replicates that are all equal (but for rounding) have no spread, which a t would take for certainty; the sign test of
    their median takes its place. Were that median elsewhere, S equal replicates on one side of it would have a chance of
    2/2^S at most, which is below 5 % from S = 6 on: the interval is then the point, and p is 2/2^S where the point is not
    the null (1 where it is). Rare replicates that differ stay unseen. Undefined below 6 equal replicates, or 2 replicates.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) < 2:
        return Undefined(f"{_count(len(x), 'replicate')}: an interval needs 2 or more")
    rounding = 1e-12 * max(1.0, float(np.max(np.abs(x))))
    if np.ptp(x) <= rounding:
        mean, chance = float(np.mean(x)), 2.0 * 0.5 ** len(x)
        if chance > 1.0 - level + 1e-12:
            return Undefined(f"all {len(x)} replicates are equal: without spread an interval needs 6 or more")
        p_value = 1.0 if abs(mean - null) <= rounding else chance
        return Interval(
            mean, 0.0, mean, mean, level, p_value, len(x) - 1, "all replicates equal: sign test of the median"
        )
    se = float(np.std(x, ddof=1)) / math.sqrt(len(x))
    return t_interval(float(np.mean(x)), se, len(x) - 1, level=level, null=null, method="one-sample t over replicates")


def cluster_mean(
    values: ArrayLike, clusters: ArrayLike, *, level: float = LEVEL, null: float = 0.0
) -> Interval | Undefined:
    """The mean over rows of ``values`` (n,), with the t_{G−1} interval for rows that depend within ``clusters`` (n,).

    The intercept-only closed form of the sandwich: SE² = f Σ e_g²/n², e_g a cluster's sum of residuals; CR1
    (f = G/(G − 1)) from 50 clusters on, below that Mancl–DeRouen, e_g/(1 − n_g/n). With one row a cluster that is s/√n by
    CR1, and s/√n·√(n/(n − 1)) by Mancl–DeRouen. Clusters of unequal size count for fewer: t has the degrees of freedom of
    ``effective_df`` (G − 1 where all are of one size), and these decide between the two as well. Undefined for one cluster.
    """
    x = np.asarray(values, dtype=np.float64)
    if len(x) == 0:
        return Undefined("no rows")
    names, codes = np.unique(np.asarray(clusters), return_inverse=True)
    groups = len(names)
    if groups < 2:
        return Undefined("one item: an interval over items needs 2 or more")
    mean = float(np.mean(x))
    sums = np.bincount(codes, weights=x - mean, minlength=groups)
    sizes = np.bincount(codes, minlength=groups)
    # Rounding of equal values must not pass for spread.
    sums[np.abs(sums) < 1e-13 * np.maximum(1.0, sizes * np.max(np.abs(x)))] = 0.0
    pairs = float(np.sum(sizes * (sizes - 1.0)))
    squares = np.bincount(codes, weights=(x - mean) ** 2, minlength=groups)
    total = float(squares.sum())
    shared = float(np.sum(sums**2 - squares)) / pairs / (total / len(x)) if pairs > 0 and total > 0 else 0.0
    df = effective_df(sizes, min(1.0, max(0.0, shared)))
    if df < FEW_CLUSTERS - 1.0 - 1e-9:
        variance = float(np.sum((sums / (1.0 - sizes / len(x))) ** 2)) / len(x) ** 2
        method = "cluster t by item (Mancl-DeRouen)"
    else:
        variance = groups / (groups - 1.0) * float(np.sum(sums**2)) / len(x) ** 2
        method = "cluster t by item (CR1)"
    return t_interval(mean, math.sqrt(variance), df, level=level, null=null, method=method)


def effective_df(sizes: NDArray[np.intp], correlation: float) -> float:
    """Degrees of freedom of the clustered variance of a mean: Satterthwaite's, after Bell & McCaffrey (2002).

    ``sizes`` (G,) rows a cluster; rows of a cluster are taken to correlate by ``correlation`` (Imbens & Kolesár 2016), so
    that a cluster's sum has variance w_g ∝ n_g(1 + (n_g − 1)ρ). With M the covariance of the terms that the variance sums
    the squares of, it is (tr M)²/tr M². G − 1 where all clusters are of a size.
    """
    share = sizes / sizes.sum()
    w = sizes * (1.0 + (sizes - 1.0) * correlation)
    d = (1.0 - share) ** -2.0
    whole = float(w.sum())
    # Cov of cluster sums of residuals: diag(w) − share wᵀ − w shareᵀ + whole·share shareᵀ; the sums below are its traces.
    trace = float(np.sum(d * (w - 2.0 * share * w + whole * share**2)))
    a, b, m = float(np.sum(d * share**2)), float(np.sum(d * w**2)), float(np.sum(d * share * w))
    squared = float(np.sum(d**2 * (w**2 + 2.0 * w * (whole * share**2 - 2.0 * share * w))))
    squared += 2.0 * a * b + 2.0 * m**2 + (whole * a) ** 2 - 4.0 * whole * a * m
    return min(len(sizes) - 1.0, trace**2 / squared)


def wilson(successes: float, n: float, *, level: float = LEVEL, null: float | None = None) -> Interval | Undefined:
    """Wilson's score interval of a proportion of ``n`` independent trials; fractions are allowed (n may be effective).

    ``p_value`` is of the score test of ``null``, where that is given.
    """
    if n <= 0:
        return Undefined("no trials")
    p, z = successes / n, quantile(0.5 + level / 2.0)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    p_value = None if null is None else 2.0 * tail(abs(p - null) / math.sqrt(null * (1 - null) / n), None)
    low, high = max(0.0, centre - half) if p > 0 else 0.0, min(1.0, centre + half) if p < 1 else 1.0
    return Interval(p, math.sqrt(p * (1 - p) / n), low, high, level, p_value, None, "Wilson")


def clustered_proportion(
    values: ArrayLike, clusters: ArrayLike, *, level: float = LEVEL, null: float | None = None
) -> Interval | Undefined:
    """The mean of ``values`` in [0, 1], with the cluster t interval on the logit scale.

    Where the rows do not vary (a rate of 0 or 1 among them): Wilson with n = the number of clusters, which is right if
    the rows of a cluster agree and cautious otherwise. ``null`` is tested on the natural scale.
    """
    plain = cluster_mean(values, clusters, level=level, null=0.5 if null is None else null)
    if isinstance(plain, Undefined):
        return plain
    p, se = plain.estimate, plain.std_error
    groups = len(np.unique(np.asarray(clusters)))
    if se == 0 or p <= 0 or p >= 1:
        bound = wilson(p * groups, groups, level=level, null=null)
        if isinstance(bound, Undefined):
            return bound
        return Interval(p, bound.std_error, bound.low, bound.high, level, bound.p_value, None, "Wilson, n = items")
    half = quantile(0.5 + level / 2.0, plain.df) * se / (p * (1 - p))
    logit = math.log(p / (1 - p))
    low, high = 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit))
    p_value = None if null is None else plain.p_value
    return Interval(p, se, low, high, level, p_value, plain.df, plain.method + ", logit scale")


def bounded_mean(
    values: ArrayLike, clusters: ArrayLike, low: float, high: float, *, level: float = LEVEL, null: float = 0.0
) -> Interval | Undefined:
    """``cluster_mean`` for values known to lie in [low, high]: the interval stays inside, and is never a point.

    Where few rows differ from the null, t limits on the far side from it are too near: they give way to those of the score test
    (``_score_reach``), which never bring a null back in that the t test leaves out.
    Where all rows equal c, the share u of the population that differs is bounded by Wilson's upper limit for 0 of G
    clusters, and the mean lies between c − u(c − low) and c + u(high − c). Its p is then the score test's of a fair
    split where c is not the null, else 1.
    """
    plain = cluster_mean(values, clusters, level=level, null=null)
    if isinstance(plain, Undefined):
        return plain
    groups = len(np.unique(np.asarray(clusters)))
    if plain.std_error > 0:
        reach, scaled = high - null, np.zeros(0)
        if math.isclose(reach, null - low):
            scaled = (np.asarray(values, dtype=np.float64) - null) / reach
        limits = []
        for of_level in (level, 0.9):
            half = quantile(0.5 + of_level / 2.0, plain.df) * plain.std_error
            below, above = plain.estimate - half, plain.estimate + half
            if len(scaled):
                # The effective number of pairs is itself estimated where items have several: by t, then.
                z = quantile(0.5 + of_level / 2.0, plain.df if len(scaled) > groups else None)
                score_below, score_above = (
                    null + reach * limit for limit in _score_reach(scaled, plain.std_error / reach, z)
                )
                below, above = (
                    below if below > null else min(below, score_below),
                    above if above < null else max(above, score_above),
                )
            limits.append((max(low, below), min(high, above)))
        return Interval(
            plain.estimate, plain.std_error, *limits[0], level, plain.p_value, plain.df, plain.method, limits[1]
        )  # fmt: skip
    z = quantile(0.5 + level / 2.0)
    upper = z * z / (groups + z * z)
    c = plain.estimate
    p_value = 1.0 if c == null else 2.0 * 0.5**groups
    return Interval(
        c, 0.0, c - upper * (c - low), c + upper * (high - c), level, min(1.0, p_value), None,
        "no spread: Wilson bound, n = items",
    )  # fmt: skip


def _score_reach(x: NDArray[np.float64], std_error: float, z: float) -> tuple[float, float]:
    """The limits of Tango's (1998) score interval for a mean of ``x`` in [−1, 1], at ``z`` standard errors.

    As of a difference of paired proportions: the share of positive parts less that of negative ones, of so many pairs as give
    the mean's own ``std_error`` (fewer than the rows where clusters agree, more where parts are fractions).
    """
    up, down = float(np.maximum(x, 0.0).mean()), float(np.maximum(-x, 0.0).mean())
    gap = up - down
    n = max(1e-12, up + down - gap**2) / std_error**2
    b, c = n * up, n * down

    def score(delta: float) -> float:
        middle = -b - c + (2.0 * n - b + c) * delta
        share = (math.sqrt(max(0.0, middle**2 + 8.0 * n * c * delta * (1.0 - delta))) - middle) / (4.0 * n)
        spread = n * (2.0 * share + delta * (1.0 - delta))
        away = b - c - n * delta
        return away / math.sqrt(spread) if spread > 0 else math.copysign(math.inf, away)

    limits = []
    for inner, outer, bound in ((gap, -1.0, z), (gap, 1.0, -z)):
        for _ in range(_SCORE_HALVINGS):
            middle = (inner + outer) / 2.0
            inner, outer = (middle, outer) if abs(score(middle)) < abs(bound) else (inner, middle)
        limits.append((inner + outer) / 2.0)
    return limits[0], limits[1]


def fieller(
    numerator: ArrayLike, denominator: ArrayLike, *, level: float = LEVEL, null: float = 0.0
) -> Interval | Undefined:
    """Ratio of two means, mean(numerator)/mean(denominator), from paired values, one of each a replicate: Fieller-t.

    Undefined where the denominator's own interval covers 0: the set of ratios is then unbounded (Fieller 1954); and where
    the denominator has none (see ``replicate_t``).
    """
    a, b = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError("numerator and denominator must be paired")
    below = replicate_t(b, level=level)
    if isinstance(below, Undefined):
        return below
    covariance = np.cov(a, b) / len(a)
    return fieller_from_moments(
        float(a.mean()), float(b.mean()), float(covariance[0, 0]), float(covariance[1, 1]), float(covariance[0, 1]),
        len(a) - 1, level=level, null=null,
    )  # fmt: skip


def fieller_from_moments(
    a: float, b: float, var_a: float, var_b: float, cov_ab: float, df: float | None, *, level: float = LEVEL,
    null: float = 0.0,
) -> Interval | Undefined:  # fmt: skip
    """The ratio a/b of two estimates with their (co)variances: all r for which a − r·b is not significantly 0.

    ``std_error`` is the delta method's; ``p_value`` is that of a − null·b = 0. Undefined where b is not significant.
    """
    t2 = quantile(0.5 + level / 2.0, df) ** 2
    if b == 0 or t2 * var_b >= b * b:
        return Undefined(f"the denominator's {level:.0%} interval covers 0")
    ratio = a / b
    leading, middle = b * b - t2 * var_b, a * b - t2 * cov_ab
    root = math.sqrt(max(0.0, middle * middle - leading * (a * a - t2 * var_a)))
    se = math.sqrt(max(0.0, var_a - 2 * ratio * cov_ab + ratio * ratio * var_b)) / abs(b)
    gap_se = math.sqrt(max(0.0, var_a - 2 * null * cov_ab + null * null * var_b))
    gap = a - null * b
    p_value = 2.0 * tail(abs(gap) / gap_se, df) if gap_se > 0 else float(gap == 0)
    return Interval(ratio, se, (middle - root) / leading, (middle + root) / leading, level, p_value, df, "Fieller")


def bca(
    estimate: float, draws: ArrayLike, jackknife: ArrayLike, *, level: float = LEVEL, null: float = 0.0
) -> Interval | Undefined:
    """Efron's (1987) bias-corrected and accelerated bootstrap interval; the p inverts it at ``null``.

    ``draws`` (B,) the statistic in bootstrap samples, ``jackknife`` (G,) with one cluster left out.
    """
    sample, left_out = np.asarray(draws, dtype=np.float64), np.asarray(jackknife, dtype=np.float64)
    spread = float(np.std(sample, ddof=1)) if len(sample) > 1 else 0.0
    if spread == 0 or len(left_out) < 2:
        return Undefined("the bootstrap samples do not vary")
    sample = np.sort(sample)
    below = (np.sum(sample < estimate) + 0.5 * np.sum(sample == estimate)) / len(sample)
    z0 = quantile(min(max(below, 1 / (len(sample) + 1)), len(sample) / (len(sample) + 1)))
    centred = left_out.mean() - left_out
    reach, acceleration = float(np.max(np.abs(centred))), 0.0
    if reach > 1e-12 * float(np.max(np.abs(left_out))):  # equal but for rounding: no skewness to correct
        centred = centred / reach  # the ratio has no unit, and tiny cubes would underflow
        acceleration = float(np.sum(centred**3) / (6.0 * np.sum(centred**2) ** 1.5))

    def limit(z: float) -> float:
        shift = z0 + (z0 + z) / max(1e-9, 1.0 - acceleration * (z0 + z))
        return float(np.quantile(sample, normal_cdf(shift)))

    z = quantile(0.5 + level / 2.0)
    # The p is that of the symmetric z of the null's own place among the draws, corrected the same way.
    place = (np.sum(sample < null) + 0.5) / (len(sample) + 1)
    w = quantile(place) - z0
    p_value = 2.0 * tail(abs(w / (1.0 + acceleration * w) - z0), None)
    return Interval(estimate, spread, limit(-z), limit(z), level, p_value, None, "BCa cluster bootstrap by item")


def tost(interval: Interval, margin: float, *, centre: float = 0.0, alpha: float = 0.05) -> bool:
    """Whether two one-sided tests at ``alpha`` put the estimate within ``centre`` ± ``margin`` (Schuirmann 1987).

    For estimates with a standard error; where that is 0 (no spread seen) the interval's own limits must lie inside. Limits of
    another kind (``Interval.equivalence``) take the place of estimate ± t·std_error.
    """
    if interval.equivalence is not None and alpha == 0.05:
        return centre - margin < interval.equivalence[0] and interval.equivalence[1] < centre + margin
    if interval.std_error == 0:
        return centre - margin < interval.low and interval.high < centre + margin
    half = quantile(1.0 - alpha, interval.df) * interval.std_error
    return centre - margin < interval.estimate - half and interval.estimate + half < centre + margin


def smallest_detectable(std_error: float, df: float | None, *, power: float = 0.8, level: float = LEVEL) -> float:
    """The effect that a two-sided t test with this standard error finds with ``power``, from the noncentral t."""
    if df is None or df > 1e5:
        return std_error * (quantile(0.5 + level / 2.0, df) + quantile(power))
    return std_error * detectable_shift(df, power, level)


SURENESS = 0.9
"""The share of samples in which ``surely_detectable`` is found with at least the power that is said."""


def upper_deviation(deviation: float, df: float) -> float:
    """The upper confidence limit, at SURENESS, of a standard deviation or error that was estimated on ``df`` degrees of freedom
    (χ²)."""
    return deviation * math.sqrt(df / float(scipy.special.chdtri(df, SURENESS)))


def surely_detectable(std_error: float, df: float | None, *, power: float = 0.8, level: float = LEVEL) -> float:
    """``smallest_detectable`` where the standard error is itself estimated, on ``df`` degrees of freedom.

    The true error is as often larger as smaller, with few degrees of freedom much larger. So it is taken at its upper limit:
    in 90 % of samples the power at this effect is ``power`` or more.
    """
    if df is not None and df <= 1e5:
        std_error = upper_deviation(std_error, df)
    return smallest_detectable(std_error, df, power=power, level=level)


def mcnemar_mid_p(n_ff: int, n_ss: int) -> float:
    """Two-sided mid-p of McNemar's test on pairs that were both-first and both-second (Fagerland et al. 2013)."""
    n, k = n_ff + n_ss, min(n_ff, n_ss)
    if n == 0:
        return 1.0
    # The mid-p counts half of the point itself: the tail with it plus the tail without it.
    return min(1.0, fair_coin_cdf(k, n) + fair_coin_cdf(k - 1, n))


def sign_flip(values: ArrayLike) -> float:
    """Exact two-sided p of mean 0 over 1 to 20 replicates, by sign flips; its least value is 2/2^S, so 5 % needs 6.

    Raises ValueError for no values or more than 20.
    """
    x = np.asarray(values, dtype=np.float64)
    if not 1 <= len(x) <= 20:
        raise ValueError(f"sign_flip enumerates 1 to 20 values, got {len(x)}")
    sums = np.zeros(1)
    for value in x:
        sums = np.concatenate([sums + value, sums - value])
    # Sums equal but for rounding count as equal.
    return float(np.mean(np.abs(sums) >= abs(x.sum()) - 1e-12 * np.sum(np.abs(x))))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


# Sample sizes: the pairs, judgments or replicates that an effect takes (docs/method.md, "Sample sizes").


def pairs_for_position(excess: float, conflict: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Complete pairs (both orders) to detect |first_slot_excess| = ``excess`` when a share ``conflict`` of pairs conflicts.

    n = [z_{1−α/2}√(ψ/4) + z_power√(ψ/4 − Δ²)]²/Δ², one pair an item. Raises ValueError where 2·excess > conflict: the
    excess is at most half the conflict rate.
    """
    if not 0 < excess <= conflict / 2 <= 0.5:
        raise ValueError("excess must be above 0 and at most half the conflict rate")
    spread = conflict / 4.0
    root = quantile(1 - alpha / 2) * math.sqrt(spread) + quantile(power) * math.sqrt(spread - excess**2)
    return round((root / excess) ** 2)


def pairs_for_equivalence(margin: float, conflict: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Complete pairs (both orders) for TOST to show |first_slot_excess| < ``margin`` when it is 0."""
    root = quantile(1 - alpha) + quantile(0.5 + power / 2)
    return math.ceil(root**2 * conflict / 4.0 / margin**2)


def detectable_excess(pairs: int, conflict: float, *, power: float = 0.8) -> float | None:
    """The smallest |first_slot_excess|, a probability, that ``pairs`` complete pairs find at the rate ``conflict``.

    None where even the largest possible one (half the conflict rate) takes more pairs. The inverse of
    ``pairs_for_position``.
    """
    low, high = 0.0, conflict / 2.0
    if pairs_for_position(high, conflict, power=power) > pairs:
        return None
    for _ in range(60):
        middle = (low + high) / 2.0
        enough = middle > 0 and pairs_for_position(middle, conflict, power=power) <= pairs
        low, high = (low, middle) if enough else (middle, high)
    return high


def rows_for_slope(
    slope: float, information: float, *, r_squared: float = 0.0, design_effect: float = 1.0, power: float = 0.8,
    alpha: float = 0.05,
) -> int:  # fmt: skip
    """Judgments to detect a slope: (z + z)²/(β²·E[s(1−s)D²]·(1−R²))·deff, ``information`` = E[s(1−s)D²] a judgment."""
    root = quantile(1 - alpha / 2) + quantile(power)
    return math.ceil(root**2 / (slope**2 * information * (1 - r_squared)) * design_effect)


def detectable_per_sd(replicates: int, *, power: float = 0.8) -> float:
    """The smallest effect, in between-replicate SDs, that the one-sample t test finds with ``power``."""
    return smallest_detectable(1.0 / math.sqrt(replicates), replicates - 1, power=power)


def power_of_replicates(effect_per_sd: float, replicates: int) -> float:
    """The chance that the one-sample t interval of LEVEL lies beyond 0 on the effect's side: the noncentral t law. ``effect_per_sd``
    in between-replicate SDs."""
    df = replicates - 1
    critical = quantile(0.5 + LEVEL / 2, df)
    return 1.0 - float(scipy.special.nctdtr(df, abs(effect_per_sd) * math.sqrt(replicates), critical))


def replicates_for(effect_per_sd: float, *, power: float = 0.8, most: int = 10_000) -> int:
    """Fewest replicates that find an effect of ``effect_per_sd`` between-replicate SDs.

    Raises ValueError where the effect is not above 0, or takes more than ``most``.
    """
    if not effect_per_sd > 0:
        raise ValueError("the effect must be above 0")
    # The normal's answer is too few: start there and count up.
    start = max(2, math.floor(((quantile(0.975) + quantile(power)) / effect_per_sd) ** 2))
    for replicates in range(start, most + 1):
        if detectable_per_sd(replicates, power=power) <= effect_per_sd:
            return replicates
    raise ValueError(f"an effect of {effect_per_sd} SD takes more than {most} replicates")
