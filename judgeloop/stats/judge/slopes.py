"""The content model of the method notes §1.1: logit P(a picked) = γ·order + βᵀD + κ·gold, with item-clustered inference.

The order column is always there: left out, position shrinks every slope, and leaks where order and content correlate.
Slopes are log-odds per doubling (length), per generation-0 SD (style) or per unit of gold; positive = prefers more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import LogisticFit, cluster_covariance, firth, logistic, one_step_bootstrap, one_step_jackknife
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, bca, t_interval
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.separated import difference, profile_p, separated_effect, separated_slope

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
