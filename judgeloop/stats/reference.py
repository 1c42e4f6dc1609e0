"""Quantiles and tails of the reference distributions: the normal, Student's t, F, the binomial.

scipy.special itself: scipy.stats gives the same numbers, takes a second to import and a hundred times as long a call.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy  # loads scipy.special when it is first used
from numpy.typing import NDArray

_HALVINGS = 200


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
    """P(F > value)."""
    return float(scipy.special.fdtrc(numerator_df, denominator_df, value))


def fair_coin_cdf(successes: int, trials: int) -> float:
    """P(X ≤ successes) of that many throws of a fair coin; 0 below 0."""
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
