"""Judgments as numbers: what was picked in each presentation, and pairs with their two orders side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]

_PICKED = {"first": 1.0, "second": 0.0, "tie": 0.5}


def first_picked(judgments: pd.DataFrame) -> pd.Series[float]:
    """1 first slot picked, 0 second, ½ tie; the probability of the first slot where the verdict is soft; NaN unscored."""
    codes, words = pd.factorize(judgments["verdict"])
    return pd.Series(_picked(judgments, codes, words), index=judgments.index, name="verdict")


def _picked(judgments: pd.DataFrame, codes: NDArray[Any], words: Any) -> Floats:
    """``first_picked`` as (n,), from the verdicts' codes (−1 missing) and words."""
    picked: Floats = np.array([*(_PICKED.get(word, np.nan) for word in words), np.nan])[codes]
    if "p_first" in judgments:
        soft = judgments["p_first"].to_numpy(dtype=np.float64, na_value=np.nan)
        picked = np.where(np.isnan(picked) | np.isnan(soft), picked, soft)
    return picked


@dataclass(frozen=True, slots=True)
class JudgmentArrays:
    """Judgments as arrays of n rows, read once: what the position estimators compute with.

    ``picked`` as ``first_picked``; ``verdicts`` a code a word, and ``scored``, ``ties`` of them; ``pairs`` and ``items`` as
    ``pair_codes`` and ``item_codes``; ``orders``, ``repeats`` a code a value; ``forward`` order ab, ``backward`` order ba;
    ``soft`` as ``is_soft``; ``lost`` how many have no verdict.
    """

    picked: Floats
    verdicts: Integers
    scored: Booleans
    first: Booleans
    second: Booleans
    ties: Booleans
    pairs: Integers
    items: Integers
    orders: Integers
    repeats: Integers
    forward: Booleans
    backward: Booleans
    soft: bool
    lost: int

    def __len__(self) -> int:
        return len(self.picked)


def coded(judgments: pd.DataFrame) -> JudgmentArrays:
    """The judgments as arrays. ``repeat`` may be missing: then every judgment is the first."""
    verdicts, words = pd.factorize(judgments["verdict"])
    orders, sides = pd.factorize(judgments["order"])
    n = len(judgments)
    repeats = pd.factorize(judgments["repeat"], use_na_sentinel=False)[0] if "repeat" in judgments else np.zeros(n)
    said = {word: verdicts == place for place, word in enumerate(words)}
    shown = {side: orders == place for place, side in enumerate(sides)}
    never = np.zeros(n, dtype=bool)
    lost = said.get("unscored", never)
    return JudgmentArrays(
        _picked(judgments, verdicts, words), np.asarray(verdicts, dtype=np.intp), ~lost, said.get("first", never),
        said.get("second", never), said.get("tie", never), pair_codes(judgments), item_codes(judgments),
        np.asarray(orders, dtype=np.intp), np.asarray(repeats, dtype=np.intp), shown.get("ab", never),
        shown.get("ba", never), is_soft(judgments), int(lost.sum()),
    )  # fmt: skip


def is_soft(judgments: pd.DataFrame) -> bool:
    """Whether every scored judgment bears a probability."""
    if "p_first" not in judgments:
        return False
    scored = (judgments["verdict"] != "unscored").to_numpy(dtype=bool)
    return bool(scored.any()) and bool(judgments["p_first"].notna().to_numpy()[scored].all())


def not_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of two different texts; identical ones are position probes only."""
    same = _identical(judgments)
    return judgments if same is None or not same.any() else judgments[~same]


def only_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of a text against itself."""
    same = _identical(judgments)
    return judgments.iloc[:0] if same is None or not same.any() else judgments[same]


def _identical(judgments: pd.DataFrame) -> Booleans | None:
    if "identical" not in judgments:
        return None
    values = judgments["identical"]
    if values.dtype == np.bool_:
        return values.to_numpy()
    return values.fillna(False).astype(bool).to_numpy()


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


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs side by side, (m,) arrays a pair: its ``item``'s code and, by order, the mean of first_picked over scored
    repeats (``ab``, ``ba``; NaN if none), their number ``n_``, the judgments ``asked_`` and the ``sum_`` of picks."""

    item: Integers
    ab: Floats
    ba: Floats
    n_ab: Floats
    n_ba: Floats
    asked_ab: Floats
    asked_ba: Floats
    sum_ab: Floats
    sum_ba: Floats

    @property
    def complete(self) -> Booleans:
        """(m,) whether both orders have a verdict."""
        return (self.n_ab > 0) & (self.n_ba > 0)

    @property
    def asked(self) -> Booleans:
        """(m,) whether both orders were asked."""
        return (self.asked_ab > 0) & (self.asked_ba > 0)


def paired(judgments: JudgmentArrays) -> Pairs:
    """The pairs of some judgments, in the order of their codes."""
    pair, picked = judgments.pairs, judgments.picked
    count = int(pair.max()) + 1 if len(pair) else 0
    item = np.empty(count, dtype=np.intp)
    item[pair[::-1]] = judgments.items[::-1]  # the first row of a pair is written last
    known = ~np.isnan(picked)
    found: dict[str, Any] = {}
    for order, shown in (("ab", judgments.forward), ("ba", judgments.backward)):
        scored = shown & known
        total = np.bincount(pair[scored], weights=picked[scored], minlength=count)
        counted = np.bincount(pair[scored], minlength=count).astype(np.float64)
        found[f"sum_{order}"], found[f"n_{order}"] = total, counted
        found[f"asked_{order}"] = np.bincount(pair[shown], minlength=count).astype(np.float64)
        found[order] = np.divide(total, counted, out=np.full(count, np.nan), where=counted > 0)
    return Pairs(item, **found)


def pairs(judgments: pd.DataFrame) -> pd.DataFrame:
    """``paired`` as a frame, a row a pair and a column an array."""
    found = paired(coded(judgments))
    names = ("item", "sum_ab", "n_ab", "asked_ab", "ab", "sum_ba", "n_ba", "asked_ba", "ba")
    return pd.DataFrame(
        {name: getattr(found, name) for name in names}, index=pd.RangeIndex(len(found.item), name="pair")
    )


def in_one_order(judgments: pd.DataFrame) -> bool:
    """Whether no pair of different texts was asked in both orders, though some was asked."""
    asked = paired(coded(not_identical(judgments))).asked
    return len(asked) > 0 and not bool(asked.any())
