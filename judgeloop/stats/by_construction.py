"""What needs no measurement: a judge that scores each text alone cannot know the order in which a pair was shown.

Both orders' verdicts rest on the same two scores, so every term of position is what it is by construction. A zero with an
interval of no width would pass for a measurement; the rows are ``undefined`` and say why instead.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

METHOD = "by construction"
VALUES = {
    "first_slot_excess": 0.0, "position_log_odds": 0.0, "conflict_rate": 0.0, "order_agreement": 1.0,
    "excess_conflict": 0.0, "repetition_stability": 1.0, "identical_pair_excess": 0.0, "preference_fairness": 0.0,
}  # fmt: skip
"""Term → its value for a judge that scores each text alone; the drift of each is 0."""

_DRIFT = "judge_drift_"
_NUMBERS = (
    "estimate", "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "margin", "detectable",
    "benchmark",
)  # fmt: skip


def value_of(term: str) -> float | None:
    """What a term is by construction, None for a term that has to be measured."""
    return 0.0 if term.startswith(_DRIFT) and term.removeprefix(_DRIFT) in VALUES else VALUES.get(term)


def order_free(estimates: pd.DataFrame, judges: Collection[str]) -> pd.DataFrame:
    """The estimates with the position terms of ``judges``, who score each text alone, ``undefined`` by construction.

    Variants (bounds for unscored replies, ties dropped) bound nothing there and go the same way.
    """
    known = estimates["term"].map(lambda term: value_of(str(term)))
    told = (estimates["scope"] == "judge") & estimates["judge"].isin(list(judges)) & known.notna()
    if not told.any():
        return estimates
    found = estimates.copy()
    found.loc[told, list(_NUMBERS)] = np.nan
    found.loc[told, ["status", "method", "family", "verdict"]] = ["undefined", METHOD, "none", ""]
    found.loc[told, "note"] = [
        f"{value:g} by construction, not measured: each text is scored alone, once, so the order cannot matter"
        for value in known[told]
    ]
    return found
