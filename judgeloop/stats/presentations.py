"""Presentations as numbers: the pick in each judgment, and each pair with its two orders side by side.

``first_picked`` gives the picks of a table; ``coded`` reads the table once into arrays, and ``paired`` puts the two orders of
each pair side by side (``pairs`` does both and gives a table).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.records import UNKNOWN_ORDER

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Booleans = NDArray[np.bool_]

PICKED = {"first": 1.0, "second": 0.0, "tie": 0.5}
PICKED_A = {"a": 1.0, "b": 0.0, "tie": 0.5}


def in_known_order(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments whose order is known, those that can show something of the slots."""
    unknown = (judgments["order"] == UNKNOWN_ORDER).to_numpy()
    return judgments[~unknown] if unknown.any() else judgments


def a_first(judgments: pd.DataFrame) -> Booleans:
    """(n,) whether candidate_first is text a, as in order ab and where the order is unknown."""
    return (judgments["order"] != "ba").to_numpy(dtype=bool)


def picked_a(judgments: pd.DataFrame) -> Floats:
    """(n,) 1 where candidate a was picked, 0 b, ½ tie, the probability of a where the verdict is soft; NaN unscored."""
    picked = first_picked(judgments).to_numpy()
    picked = np.where(a_first(judgments), picked, 1.0 - picked)
    unknown = (judgments["order"] == UNKNOWN_ORDER).to_numpy()
    if unknown.any():
        picked = np.where(unknown, judgments["verdict"].map(PICKED_A).astype("float64").to_numpy(), picked)
    return np.asarray(picked, dtype=np.float64)


_FEW_ROWS = 10_000


def quick_texts(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, with its texts as Python objects where it has few rows: the estimates of a small table are hundreds of
    selections, and pandas makes each of them several times as fast as with Arrow's texts. Those take less room in large ones."""
    texts = [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.StringDtype)]
    if not texts or len(frame) > _FEW_ROWS:
        return frame
    return frame.assign(**{str(name): frame[name].astype("object") for name in texts})


def first_picked(judgments: pd.DataFrame) -> pd.Series[float]:
    """(n,) 1 = the first slot was picked, 0 the second, ½ tie; NaN unscored, or a verdict by text. The first slot's probability
    of a soft verdict."""
    codes, words = pd.factorize(judgments["verdict"])
    return pd.Series(_picked(judgments, codes, words), index=judgments.index, name="verdict")


def _picked(judgments: pd.DataFrame, codes: NDArray[Any], words: Any) -> Floats:
    """``first_picked`` as an array (n,), from the verdicts' codes (n,) (−1 missing) and the words that these stand for."""
    picked: Floats = np.array([*(PICKED.get(word, np.nan) for word in words), np.nan])[codes]
    if "p_first" in judgments:
        soft = judgments["p_first"].to_numpy(dtype=np.float64, na_value=np.nan)
        picked = np.where(np.isnan(picked) | np.isnan(soft), picked, soft)
    return picked


@dataclass(frozen=True, slots=True)
class JudgmentArrays:
    """n judgments as arrays (n,), for the position estimators.

    - ``picked``: as ``first_picked``
    - ``verdicts``: a code for each verdict; ``scored``, ``first``, ``second``, ``ties``: which judgments have which verdict
    - ``pairs``, ``items``: as ``pair_codes`` and ``item_codes``
    - ``orders``, ``repeats``: a code for each value; ``forward``: order ab, ``backward``: order ba
    - ``probable``: which judgments have a probability ``p_first``
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
    probable: Booleans

    def __len__(self) -> int:
        return len(self.picked)

    @property
    def soft(self) -> bool:
        """Whether every scored judgment has a probability, and there is one."""
        return bool(self.scored.any()) and bool(self.probable[self.scored].all())

    @property
    def lost(self) -> int:
        """The number of judgments without a verdict."""
        return len(self) - int(self.scored.sum())

    def part(self, rows: Integers | Booleans) -> JudgmentArrays:
        """Some of the judgments, with the codes of pairs and items dense again."""
        arrays = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        dense = {name: np.unique(arrays[name], return_inverse=True)[1] for name in ("pairs", "items")}
        return JudgmentArrays(**{**arrays, **dense})


def coded(judgments: pd.DataFrame) -> JudgmentArrays:
    """The judgments as arrays. Without a column ``repeat`` every judgment counts as the first repeat."""
    verdicts, words = pd.factorize(judgments["verdict"])
    orders, sides = pd.factorize(judgments["order"])
    n = len(judgments)
    repeats = pd.factorize(judgments["repeat"], use_na_sentinel=False)[0] if "repeat" in judgments else np.zeros(n)
    by_verdict = {word: verdicts == place for place, word in enumerate(words)}
    by_order = {side: orders == place for place, side in enumerate(sides)}
    never = np.zeros(n, dtype=bool)
    probable = judgments["p_first"].notna().to_numpy() if "p_first" in judgments else never
    return JudgmentArrays(
        _picked(judgments, verdicts, words), np.asarray(verdicts, dtype=np.intp), ~by_verdict.get("unscored", never), by_verdict.get("first", never),
        by_verdict.get("second", never), by_verdict.get("tie", never), pair_codes(judgments), item_codes(judgments),
        np.asarray(orders, dtype=np.intp), np.asarray(repeats, dtype=np.intp), by_order.get("ab", never),
        by_order.get("ba", never), np.asarray(probable, dtype=np.bool_),
    )  # fmt: skip


def is_soft(judgments: pd.DataFrame) -> bool:
    """Whether every scored judgment has a probability ``p_first``, and there is one."""
    if "p_first" not in judgments:
        return False
    scored = (judgments["verdict"] != "unscored").to_numpy(dtype=bool)
    return bool(scored.any()) and bool(judgments["p_first"].notna().to_numpy()[scored].all())


def not_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of two different texts; a text against itself probes position alone."""
    identical = are_identical(judgments)
    return judgments[~identical] if identical.any() else judgments


def only_identical(judgments: pd.DataFrame) -> pd.DataFrame:
    """The judgments of a text against itself."""
    return judgments[are_identical(judgments)]


def are_identical(judgments: pd.DataFrame) -> Booleans:
    """(n,) whether both slots show the same text; False where that is not known."""
    if "identical" not in judgments:
        return np.zeros(len(judgments), dtype=bool)
    values = judgments["identical"]
    if values.dtype == np.bool_:
        return values.to_numpy()
    return values.fillna(False).astype(bool).to_numpy()


def unscored(judgments: pd.DataFrame) -> int:
    """How many judgments have no verdict."""
    return int((judgments["verdict"] == "unscored").sum())


def pair_codes(judgments: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) the code of each judgment's pair; different replicates, arms, generations or panels make different pairs."""
    codes = np.zeros(len(judgments), dtype=np.intp)
    for key in ("replicate", "arm", "generation", "panel", "item_id", "pair_id"):
        if key in judgments:
            # Column by column, made dense again each time: no product of the columns' sizes can overflow.
            column, values = pd.factorize(judgments[key], use_na_sentinel=False)
            if len(values) > 1:
                codes = pd.factorize(codes * len(values) + column)[0]
    return codes


CLUSTER = "item_cluster"
"""The column that names the first of the near-copies that a row's item belongs to (``near_copies``)."""


def clusters(rows: pd.DataFrame) -> pd.Series[Any]:
    """(n,) what rows are clustered by in every estimate of a judge: an item's near-copies where they are known, else the item."""
    return rows[CLUSTER] if CLUSTER in rows else rows["item_id"]


def item_codes(judgments: pd.DataFrame) -> NDArray[np.intp]:
    """(n,) the code of each judgment's cluster (``clusters``)."""
    return np.asarray(pd.factorize(clusters(judgments))[0], dtype=np.intp)


def text_places(judgments: pd.DataFrame, texts: pd.DataFrame) -> Integers:
    """(n, 2) the row of ``texts`` (``item_id, candidate_id``) that each slot of the judgments shows: the first of that
    name, −1 for none. Of the same ``replicate`` where the texts have one, for ids repeat across replicates."""
    names = ["item_id"]
    if "replicate" in texts and "replicate" in judgments and texts["replicate"].notna().any():
        names.append("replicate")

    def keys(frame: pd.DataFrame, *candidates: str) -> list[list[tuple[Any, ...]]]:
        columns = [frame[name].astype("Float64").fillna(-1) if name == "replicate" else frame[name] for name in names]
        units = [column.tolist() for column in columns]
        return [list(zip(*units, frame[candidate].tolist(), strict=True)) for candidate in candidates]

    (named,) = keys(texts, "candidate_id")
    place_of = {key: len(named) - 1 - place for place, key in enumerate(reversed(named))}
    shown = keys(judgments, "candidate_first", "candidate_second")
    return np.array([[place_of.get(key, -1) for key in slot] for slot in shown], dtype=np.intp).T


@dataclass(frozen=True, slots=True)
class Pairs:
    """m pairs with their two orders side by side, as arrays (m,).

    ``item``: the item's code. For each order: the mean of ``first_picked`` over scored repeats (``ab``, ``ba``; NaN without
    one), the number of these (``n_``), of all judgments (``asked_``), and the sum of the picks (``sum_``).
    """

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
        """(m,) whether both orders were judged, with a verdict or without."""
        return (self.asked_ab > 0) & (self.asked_ba > 0)

    def filled(self, ab: float | Floats, ba: float | Floats) -> Pairs:
        """The pairs with every unscored judgment counted: in order ab as a pick of the first slot with that probability, (m,) or
        for all, in order ba likewise."""
        columns: dict[str, Any] = {}
        for order, first in (("ab", ab), ("ba", ba)):
            asked = getattr(self, f"asked_{order}")
            total = getattr(self, f"sum_{order}") + first * (asked - getattr(self, f"n_{order}"))
            columns |= {f"sum_{order}": total, f"n_{order}": asked}
            columns[order] = np.divide(total, asked, out=np.full(len(asked), np.nan), where=asked > 0)
        return replace(self, **columns)


def paired(judgments: JudgmentArrays) -> Pairs:
    """The pairs of the judgments, in the order of their codes."""
    pair, picked = judgments.pairs, judgments.picked
    count = int(pair.max()) + 1 if len(pair) else 0
    item = np.empty(count, dtype=np.intp)
    item[pair[::-1]] = judgments.items[::-1]  # the first row of a pair is written last
    has_pick = ~np.isnan(picked)
    columns: dict[str, Any] = {}
    for order, in_order in (("ab", judgments.forward), ("ba", judgments.backward)):
        scored = in_order & has_pick
        total = np.bincount(pair[scored], weights=picked[scored], minlength=count)
        counted = np.bincount(pair[scored], minlength=count).astype(np.float64)
        columns[f"sum_{order}"], columns[f"n_{order}"] = total, counted
        columns[f"asked_{order}"] = np.bincount(pair[in_order], minlength=count).astype(np.float64)
        columns[order] = np.divide(total, counted, out=np.full(count, np.nan), where=counted > 0)
    return Pairs(item, **columns)


def pairs(judgments: pd.DataFrame, filled: tuple[float | Floats, float | Floats] | None = None) -> pd.DataFrame:
    """``paired`` of a table, as a frame with a row for each pair and a column for each array. ``filled``: how unscored judgments
    count (``Pairs.filled``)."""
    arrays = paired(coded(judgments))
    if filled is not None:
        arrays = arrays.filled(*filled)
    names = ("item", "sum_ab", "n_ab", "asked_ab", "ab", "sum_ba", "n_ba", "asked_ba", "ba")
    return pd.DataFrame(
        {name: getattr(arrays, name) for name in names}, index=pd.RangeIndex(len(arrays.item), name="pair")
    )


def in_one_order(judgments: pd.DataFrame) -> bool:
    """Whether pairs of different texts were judged, and none of them in both orders, as far as orders are known."""
    asked = paired(coded(not_identical(judgments))).asked
    return len(asked) > 0 and not bool(asked.any())
