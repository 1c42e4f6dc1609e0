"""How many pairs, judgments or replicates an effect takes: closed forms of the method notes §1.4."""

from __future__ import annotations

import math

from judgeloop.stats.inference import smallest_detectable
from judgeloop.stats.reference import quantile


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
    """Complete pairs for TOST to show |first_slot_excess| < ``margin`` when it is 0."""
    root = quantile(1 - alpha) + quantile(0.5 + power / 2)
    return math.ceil(root**2 * conflict / 4.0 / margin**2)


def detectable_excess(pairs: int, conflict: float, *, power: float = 0.8) -> float | None:
    """The smallest |first_slot_excess| that so many complete pairs find at that conflict rate; None where even the
    largest possible one (half the conflict rate) takes more pairs. The inverse of ``pairs_for_position``."""
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
    """Smallest effect over the between-replicate SD that the one-sample t test finds with ``power``."""
    return smallest_detectable(1.0 / math.sqrt(replicates), replicates - 1, power=power)


def replicates_for(effect_per_sd: float, *, power: float = 0.8, most: int = 10_000) -> int:
    """Fewest replicates that find an effect of that many between-replicate SDs. Raises ValueError above ``most``."""
    if not effect_per_sd > 0:
        raise ValueError("the effect must be above 0")
    # The normal's answer is too few: start there and count up.
    start = max(2, math.floor(((quantile(0.975) + quantile(power)) / effect_per_sd) ** 2))
    for replicates in range(start, most + 1):
        if detectable_per_sd(replicates, power=power) <= effect_per_sd:
            return replicates
    raise ValueError(f"an effect of {effect_per_sd} SD takes more than {most} replicates")
