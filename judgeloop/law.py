"""The planted judge's law: one formula, shared by the planted server and the in-process planted judge."""

from __future__ import annotations

import math
from collections.abc import Mapping

NOT_FEATURES = ("position", "quality")


def planted_log_odds(
    coefficients: Mapping[str, float],
    features_first: Mapping[str, float],
    features_second: Mapping[str, float],
    quality_difference: float = 0.0,
) -> float:
    """Log-odds that the first slot is picked; positive = prefers the first slot.

    position + quality · quality_difference + Σ_f coefficient_f · (f(first) − f(second)), the model of the method notes
    §1.1. ``coefficients`` has ``position``, ``quality`` and one key a feature (``length``: log-odds per doubling of
    tokens, as the feature is log2 tokens; others: per unit, as 1 per 100 tokens); keys left out are 0.
    ``quality_difference`` is first − second. Raises ValueError where a text lacks a feature that has a coefficient.
    """
    total = coefficients.get("position", 0.0) + coefficients.get("quality", 0.0) * quality_difference
    for name, coefficient in coefficients.items():
        if name in NOT_FEATURES or coefficient == 0:
            continue
        if name not in features_first or name not in features_second:
            raise ValueError(f"no feature {name!r} was measured; known: {', '.join(sorted(features_first))}")
        total += coefficient * (features_first[name] - features_second[name])
    return float(total)


def logistic(log_odds: float) -> float:
    """The probability in [0, 1] with those log-odds; does not overflow."""
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1.0 + odds)


def log_logistic(log_odds: float) -> float:
    """Natural log of ``logistic(log_odds)``, exact also where the probability underflows."""
    return min(log_odds, 0.0) - math.log1p(math.exp(-abs(log_odds)))
