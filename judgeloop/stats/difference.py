"""A difference of two contenders, and that of two independent estimates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from judgeloop.stats.compare.contender import Contender
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.rows import Labels

Pairing = Literal["pairs", "replicates", "unpaired"]


@dataclass(frozen=True, slots=True)
class Difference:
    """``row``: the first's minus the second's, in CONTRACT's columns; ``first_estimate`` and ``second_estimate`` on what was
    compared (the shared pairs or replicates where ``pairing`` says so)."""

    first: str
    second: str
    pairing: Pairing
    first_estimate: float | None
    second_estimate: float | None
    row: Estimate


def shared_labels(first: Contender, second: Contender) -> Labels:
    """Judge and arm, where both have the same."""

    def both(name: str) -> str:
        one, other = getattr(first, name), getattr(second, name)
        return one if one == other else ""

    return Labels(both("judge"), both("arm"))


def independent(one: Estimate, other: Estimate) -> Interval | Undefined:
    """The difference of two independent estimates: Welch's t, or MOVER from their intervals where one has no spread."""
    if one.estimate is None or other.estimate is None:
        return Undefined("one of the two has no number")
    gap = one.estimate - other.estimate
    exact = [row.std_error == 0 and row.conf_low == row.conf_high == row.estimate for row in (one, other)]
    if any(exact) and not all(exact):  # a constant has no error of its own
        known = other if exact[0] else one
        if known.std_error:
            left = _freedom(known)
            return t_interval(gap, known.std_error, left if left > 0 else None, method="t, one of the two is exact")
    if one.std_error and other.std_error:
        se = math.hypot(one.std_error, other.std_error)
        freedom = [_freedom(one), _freedom(other)]
        df = None
        if min(freedom) > 0:
            df = se**4 / (one.std_error**4 / freedom[0] + other.std_error**4 / freedom[1])
        return t_interval(gap, se, df, method="independent samples, Welch t")
    limits = (one.conf_low, one.conf_high, other.conf_low, other.conf_high)
    if any(limit is None for limit in limits):
        return Undefined("one of the two has no interval")
    low_1, high_1, low_2, high_2 = (float(limit) for limit in limits)  # type: ignore[arg-type]
    below = math.hypot(one.estimate - low_1, high_2 - other.estimate)
    above = math.hypot(high_1 - one.estimate, other.estimate - low_2)
    return Interval(gap, 0.0, gap - below, gap + above, method="independent samples, MOVER")


def _freedom(row: Estimate) -> int:
    """Degrees of freedom: replicates, else items, else rows, less one."""
    return (row.n_replicates or row.n_items or row.n) - 1
