"""Planted tables: judgments and texts with known truth, in the columns that audits and runs write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.records import JUDGMENT_COLUMNS
from judgeloop.text.features import FEATURES

Floats = NDArray[np.float64]
Verdicts = NDArray[np.object_] | NDArray[np.str_]

SLOTS = np.array(["first", "second", "tie", "unscored"], dtype=object)


def logistic(log_odds: Floats) -> Floats:
    """(n,) probabilities with these log-odds; does not overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(log_odds / 2.0)))


def pair_table(pairs: int, per_item: int = 1) -> pd.DataFrame:
    """``item_id``, ``pair_id`` and the two candidates of each pair: a, b; or a<k>, b<k> for the item's k-th pair."""
    item = np.arange(pairs) // per_item
    within = np.arange(pairs) % per_item
    suffix = [""] * pairs if per_item == 1 else [str(k) for k in within]
    return pd.DataFrame({
        "item_id": [f"i{k}" for k in item], "pair_id": [f"m{k:02d}" for k in within],
        "a": [f"a{s}" for s in suffix], "b": [f"b{s}" for s in suffix],
    })  # fmt: skip


def judged(
    table: pd.DataFrame,
    verdicts: Mapping[str, Verdicts],
    *,
    p_first: Mapping[str, Floats] | None = None,
    columns: Mapping[str, object] | None = None,
    judge: str = "planted",
) -> pd.DataFrame:
    """JUDGMENT_COLUMNS of those pairs: ``verdicts`` by order ("ab", "ba"; "ab#1" is its second repeat) and pair.

    ``columns``: further ones, one value a pair (``gold`` …) or one for all.
    """
    parts = []
    for key, verdict in verdicts.items():
        order, _, repeat = key.partition("#")
        first, second = ("a", "b") if order == "ab" else ("b", "a")
        parts.append(pd.DataFrame({
            "item_id": table["item_id"], "pair_id": table["pair_id"], "order": order, "repeat": int(repeat or 0),
            "verdict": verdict, "p_first": np.nan if p_first is None else p_first[key],
            "candidate_first": table[first], "candidate_second": table[second], **(columns or {}),
        }))  # fmt: skip
    frame = pd.concat(parts, ignore_index=True)
    defaults: dict[str, Any] = {
        "replicate": 0, "arm": "judge", "generation": 0, "panel": "policy", "category": "", "judge": judge, "reason": "",
        "identical": False, "gold": "", "call": "",
    }  # fmt: skip
    for name, value in defaults.items():
        if name not in frame:
            frame[name] = value
    extra = [name for name in frame.columns if name not in JUDGMENT_COLUMNS]
    return frame[[*JUDGMENT_COLUMNS, *extra]]


def picks(log_odds: Floats, generator: np.random.Generator, *, tie: float = 0.0, unscored: float = 0.0) -> Verdicts:
    """(n,) verdicts by slot with P(first) = s(log_odds); shares ``tie`` and ``unscored`` of them whatever the texts."""
    size = len(log_odds)
    slot = np.where(generator.random(size) < logistic(log_odds), 0, 1)
    slot = np.where(generator.random(size) < tie, 2, slot)
    slot = np.where(generator.random(size) < unscored, 3, slot)
    return SLOTS[slot]


def texts(table: pd.DataFrame, a: Mapping[str, Floats], b: Mapping[str, Floats]) -> pd.DataFrame:
    """The features of every pair's two texts: ``item_id, candidate_id`` and a column a feature."""
    sides = [
        pd.DataFrame({"item_id": table["item_id"], "candidate_id": table[side], **values})
        for side, values in (("a", a), ("b", b))
    ]
    return pd.concat(sides, ignore_index=True)


def candidate_texts(length: Floats, items: object, names: object, generation: int) -> pd.DataFrame:
    """Candidates of a generation, each drawn once, with these lengths; their other features are 0."""
    columns: dict[str, object] = dict.fromkeys(FEATURES, 0.0)
    columns |= {
        "item_id": items, "candidate_id": names, "length": length, "generation": generation, "text": "a", "reason": "",
        "n_drawn": 1, "reward": np.nan,
    }  # fmt: skip
    return pd.DataFrame(columns)
