"""Least squares through the origin, and statistics of sums, with the jackknife over clusters for their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from judgeloop.stats.inference import Interval, Undefined, t_interval

Floats = NDArray[np.float64]
METHOD = "jackknife t by item"


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Coefficients (p,) of ``names`` and their jackknife covariance over ``df`` + 1 clusters."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough between the texts")
        j = self.names.index(name)
        se = math.sqrt(max(0.0, float(self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, self.df, method=f"least squares through the origin, {METHOD}"
        )


def fit_linear(names: tuple[str, ...], x: Floats, y: Floats, clusters: NDArray[Any]) -> LinearFit | Undefined:
    """y (n,) on x (n, p) without an intercept; rows depend within ``clusters`` (n,).

    The exact delete-one-cluster jackknife, that is CR3: cautious with few clusters. Undefined where the columns do not
    identify the coefficients with every cluster left out in turn.
    """
    kept, codes = np.unique(clusters, return_inverse=True)
    groups, p = len(kept), x.shape[1]
    if groups <= p:
        return Undefined(f"{groups} items are too few for {p} coefficients")
    products, sums = np.zeros((groups, p, p)), np.zeros((groups, p))
    np.add.at(products, codes, x[:, :, None] * x[:, None, :])
    np.add.at(sums, codes, x * y[:, None])
    information, total = products.sum(axis=0), sums.sum(axis=0)
    scale = np.sqrt(np.diag(information))
    if np.any(scale == 0) or np.linalg.matrix_rank(information / np.outer(scale, scale), hermitian=True) < p:
        return Undefined(f"{', '.join(names)} are collinear on these pairs")
    left = (information - products) / np.outer(scale, scale)
    if np.any(np.linalg.eigvalsh(left)[:, 0] < 1e-10):
        return Undefined("a single item identifies a slope; more items are needed")
    b = np.linalg.solve(information, total)
    without = np.linalg.solve(left, ((total - sums) / scale)[:, :, None])[:, :, 0] / scale
    spread = without - without.mean(axis=0)
    return LinearFit(names, b, (groups - 1.0) / groups * spread.T @ spread, groups - 1)


def jackknifed(
    sums: Floats, statistic: Callable[[Floats], Floats], *, low: float = -math.inf, high: float = math.inf
) -> Interval | Undefined:
    """A statistic of sums over clusters: ``sums`` (G, k) a row a cluster, ``statistic`` (…, k) → (…); limits are clipped
    to [low, high]."""
    groups = len(sums)
    if groups < 3:
        return Undefined(f"{groups} items: a jackknife over items needs 3 or more")
    total = sums.sum(axis=0)
    values = statistic(np.concatenate([total[None], total - sums]))
    if not np.all(np.isfinite(values)):
        return Undefined("with some item left out there is nothing to compute it from")
    spread = values[1:] - values[1:].mean()
    se = math.sqrt((groups - 1.0) / groups * float(np.sum(spread**2)))
    found = t_interval(float(values[0]), se, groups - 1, method=METHOD)
    return Interval(
        found.estimate, found.std_error, max(low, found.low), min(high, found.high), found.level, None, found.df, METHOD
    )
