"""Judgments as numbers: what was picked in each presentation, and pairs with their two orders side by side."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PICKED = {"first": 1.0, "second": 0.0, "tie": 0.5}


def first_picked(judgments: pd.DataFrame) -> pd.Series[float]:
    """1 first slot picked, 0 second, ½ tie; the probability of the first slot where the verdict is soft; NaN unscored."""
    picked = judgments["verdict"].astype("object").map(_PICKED).astype("float64")
    if "p_first" in judgments:
        soft = judgments["p_first"].astype("float64")
        picked = picked.where(picked.isna() | soft.isna(), soft)
    return picked


def is_soft(judgments: pd.DataFrame) -> bool:
    """Whether every scored judgment bears a probability."""
    scored = judgments["verdict"] != "unscored"
    return "p_first" in judgments and bool(scored.any()) and bool(judgments.loc[scored, "p_first"].notna().all())


def not_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of two different texts; identical ones are position probes only."""
    if "identical" not in judgments:
        return judgments
    return judgments[~judgments["identical"].fillna(False).astype(bool)]


def only_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of a text against itself."""
    return (
        judgments[judgments["identical"].fillna(False).astype(bool)] if "identical" in judgments else judgments.iloc[:0]
    )


def unscored(judgments: pd.DataFrame) -> int:
    """How many judgments have no verdict."""
    return int((judgments["verdict"] == "unscored").sum())


def pair_codes(judgments: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) a code a pair; pairs of different replicates, arms, generations or panels are different pairs."""
    codes = np.zeros(len(judgments), dtype=np.intp)
    for key in ("replicate", "arm", "generation", "panel", "item_id", "pair_id"):
        if key in judgments:
            # Column by column, made dense again each time: no product of the columns' sizes can overflow.
            column, values = pd.factorize(judgments[key], use_na_sentinel=False)
            if len(values) > 1:
                codes = pd.factorize(codes * len(values) + column)[0]
    return codes


def item_codes(judgments: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) a code an item: the cluster of all judge estimates."""
    return np.asarray(pd.factorize(judgments["item_id"])[0], dtype=np.intp)


def pairs(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a pair: ``item`` and, by order, the mean of first_picked over scored repeats (NaN if none), their number
    ``n_ab``, ``n_ba``, the judgments asked ``asked_ab``, ``asked_ba``, and the sum of picks ``sum_ab``, ``sum_ba``."""
    picked = first_picked(judgments).to_numpy()
    pair, item = pair_codes(judgments), item_codes(judgments)
    count = int(pair.max()) + 1 if len(pair) else 0
    first_row = np.full(count, len(pair), dtype=np.intp)
    np.minimum.at(first_row, pair, np.arange(len(pair)))
    result = pd.DataFrame({"item": item[first_row]}, index=pd.RangeIndex(count, name="pair"))
    orders = judgments["order"].to_numpy()
    for order in ("ab", "ba"):
        shown = orders == order
        scored = shown & ~np.isnan(picked)
        total = np.bincount(pair[scored], weights=picked[scored], minlength=count)
        counted = np.bincount(pair[scored], minlength=count).astype(np.float64)
        result[f"sum_{order}"], result[f"n_{order}"] = total, counted
        result[f"asked_{order}"] = np.bincount(pair[shown], minlength=count).astype(np.float64)
        result[order] = np.divide(total, counted, out=np.full(count, np.nan), where=counted > 0)
    return result
