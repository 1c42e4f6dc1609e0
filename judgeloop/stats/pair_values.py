"""One number a pair, term by term: what is subtracted where two judges judged the same pairs.

Each term's mean over pairs is the folder's own estimate, but for pairs with unequal numbers of scored judgments, which
count once here. ``judgments``: CONTRACT's columns and ``pair_key``; one judge.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.stats.judge.covariates import covariates, gold_margin
from judgeloop.stats.presentations import first_picked, is_soft, not_identical, only_identical
from judgeloop.stats.unscored_share import TERM as UNSCORED

KEY = "pair_key"
RATES = (
    "first_slot_excess", "conflict_rate", "excess_conflict", "identical_pair_excess", "longer_preferred_raw",
    "gold_tied_longer_excess", "gold_agreement", UNSCORED,
)  # fmt: skip
"""The terms that have a number a pair, beside the probes."""


def pair_values(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    """Term → values by ``pair_key``; a term that these judgments do not bear is absent. ``<probe>_probe`` from panel probe."""
    probes = judgments["panel"] == "probe" if "panel" in judgments else pd.Series(False, index=judgments.index)
    every, compared = judgments[~probes], not_identical(judgments[~probes])
    found = {
        **_position(compared),
        "identical_pair_excess": _identical(only_identical(every)),
        **_content(compared, texts),
        "gold_agreement": _agreement(compared),
        UNSCORED: (every["verdict"] == "unscored").astype("float64").groupby(every[KEY]).mean(),
        **_probes(judgments[probes]),
    }
    return {term: values.dropna() for term, values in found.items() if len(values.dropna())}


def items_of(judgments: pd.DataFrame) -> pd.Series[str]:
    """pair_key → item_id, the cluster."""
    return judgments.drop_duplicates(KEY).set_index(KEY)["item_id"].astype(str)


def _orders(judgments: pd.DataFrame) -> pd.DataFrame:
    """Mean of first_picked by pair, a column an order."""
    picked = first_picked(judgments)
    return picked.groupby([judgments[KEY], judgments["order"]]).mean().unstack("order").reindex(columns=["ab", "ba"])


def _position(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    orders = _orders(judgments)
    found = {"first_slot_excess": (orders["ab"] + orders["ba"]) / 2.0 - 0.5}
    scored = judgments[judgments["verdict"] != "unscored"]
    repeat = scored["repeat"] if "repeat" in scored else pd.Series(0, index=scored.index)
    matched = scored.assign(repeat=repeat).drop_duplicates([KEY, "repeat", "order"])
    sides = (
        matched.set_index([KEY, "repeat", "order"])["verdict"].unstack("order").reindex(columns=["ab", "ba"]).dropna()
    )
    conflict = ((sides["ab"] == sides["ba"]) & (sides["ab"] != "tie")).astype("float64")
    found["conflict_rate"] = conflict.groupby(level=KEY).mean()
    gap = (orders["ab"] - (1.0 - orders["ba"])) ** 2
    if is_soft(judgments):
        found["excess_conflict"] = gap
    else:
        # What repeats' noise adds to a squared difference, taken off (position.py, excess_conflict).
        by_order = first_picked(judgments).groupby([judgments[KEY], judgments["order"]])
        noise = (by_order.var(ddof=1) / by_order.count()).unstack("order").reindex(columns=["ab", "ba"])
        found["excess_conflict"] = gap - noise["ab"] - noise["ba"]
    return found


def _identical(judgments: pd.DataFrame) -> pd.Series[float]:
    return (first_picked(judgments) - 0.5).groupby(judgments[KEY]).mean()


def _content(judgments: pd.DataFrame, texts: pd.DataFrame | None) -> dict[str, pd.Series[float]]:
    rows = covariates(judgments, texts)
    length = rows.length
    if length is None:
        return {}
    frame = pd.DataFrame({
        KEY: judgments[KEY].to_numpy()[rows.index], "order": rows.order,
        "longer": np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a), "tied": rows.gold == 0,
    })[length != 0]  # fmt: skip
    found = {"longer_preferred_raw": frame.groupby(KEY)["longer"].mean()}
    tied = frame[frame["tied"]]
    if len(tied):
        by_order = tied.groupby([KEY, "order"])["longer"].mean().unstack("order")
        if by_order.shape[1] == 2:
            found["gold_tied_longer_excess"] = by_order.mean(axis=1, skipna=False) - 0.5
    return found


def _agreement(judgments: pd.DataFrame) -> pd.Series[float]:
    if "gold" not in judgments:
        return pd.Series(dtype="float64")
    margin, _ = gold_margin(judgments["gold"])
    picked = first_picked(judgments).to_numpy()
    a = np.where((judgments["order"] == "ab").to_numpy(), picked, 1.0 - picked)
    right = np.where(margin > 0, a, 1.0 - a)
    right[np.isnan(margin) | (margin == 0)] = np.nan
    return pd.Series(right, index=judgments.index).groupby(judgments[KEY]).mean()


def _probes(judgments: pd.DataFrame) -> dict[str, pd.Series[float]]:
    """Candidate b is the edit: how often it was picked beyond half, both orders."""
    if judgments.empty or "probe" not in judgments:
        return {}
    found = {}
    for name, some in not_identical(judgments).groupby("probe", sort=True):
        orders = _orders(some)
        found[f"{name}_probe"] = ((1.0 - orders["ab"]) + orders["ba"]) / 2.0 - 0.5
    return found
