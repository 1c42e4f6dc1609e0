"""Estimates for tests of limits: one judge's first-slot excess, unless said otherwise."""

from __future__ import annotations

from typing import Any

from judgeloop.stats.estimate import Estimate


def row(**more: Any) -> Estimate:
    values: dict[str, Any] = {
        "scope": "judge", "bias": "position", "term": "first_slot_excess", "judge": "m", "panel": "pairs",
        "estimate": 0.02, "std_error": 0.01, "conf_low": 0.0, "conf_high": 0.04, "conf_level": 0.95, "n": 200,
        "n_items": 200, "unit": "probability",
    }  # fmt: skip
    return Estimate(**{**values, **more})


def between(low: float, high: float, **more: Any) -> Estimate:
    return row(estimate=(low + high) / 2, std_error=(high - low) / 4, conf_low=low, conf_high=high, **more)
