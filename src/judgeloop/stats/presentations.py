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
    keys = [key for key in ("replicate", "arm", "generation", "panel", "item_id", "pair_id") if key in judgments]
    return np.asarray(judgments.groupby(keys, sort=False, dropna=False).ngroup(), dtype=np.intp)


def item_codes(judgments: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) a code an item: the cluster of all judge estimates."""
    return np.asarray(pd.factorize(judgments["item_id"])[0], dtype=np.intp)


def pairs(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a pair: ``item`` and, by order, the mean of first_picked over scored repeats (NaN if none), their number
    ``n_ab``, ``n_ba``, the judgments asked ``asked_ab``, ``asked_ba``, and the sum of picks ``sum_ab``, ``sum_ba``."""
    picked = first_picked(judgments).to_numpy()
    frame = pd.DataFrame({
        "pair": pair_codes(judgments), "item": item_codes(judgments), "order": judgments["order"].to_numpy(),
        "picked": picked, "scored": ~np.isnan(picked),
    })  # fmt: skip
    grouped = frame.groupby(["pair", "order"], sort=True).agg(
        item=("item", "first"), sum=("picked", "sum"), n=("scored", "sum"), asked=("scored", "size")
    )
    result = pd.DataFrame({"item": frame.groupby("pair")["item"].first()})
    by_order = grouped.reset_index().set_index("pair")
    for order in ("ab", "ba"):
        side = by_order[by_order["order"] == order]
        for column in ("sum", "n", "asked"):
            result[f"{column}_{order}"] = side[column].reindex(result.index).fillna(0).astype("float64")
        counted = result[f"n_{order}"].to_numpy()
        total = result[f"sum_{order}"].to_numpy()
        result[order] = np.divide(total, counted, out=np.full(len(result), np.nan), where=counted > 0)
    return result
