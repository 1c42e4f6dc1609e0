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
    }, dtype=object)  # fmt: skip


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
    orders = [key.partition("#")[0] for key in verdicts]
    repeats = [int(key.partition("#")[2] or 0) for key in verdicts]
    sides = {name: table[name].to_numpy(dtype=object) for name in ("item_id", "pair_id", "a", "b")}
    count, parts = len(table), len(orders)
    values: dict[str, Any] = {
        "replicate": 0, "arm": "judge", "generation": 0, "panel": "policy", "category": "", "judge": judge, "reason": "",
        "identical": False, "gold": "", "call": "", **{name: _repeated(value, parts) for name, value in (columns or {}).items()},
        "item_id": np.tile(sides["item_id"], parts), "pair_id": np.tile(sides["pair_id"], parts),
        "order": np.repeat(np.array(orders, dtype=object), count), "repeat": np.repeat(repeats, count),
        "verdict": np.concatenate([np.asarray(verdict, dtype=object) for verdict in verdicts.values()]),
        "p_first": np.nan if p_first is None else np.concatenate([p_first[key] for key in verdicts]),
        "candidate_first": np.concatenate([sides["a" if order == "ab" else "b"] for order in orders]),
        "candidate_second": np.concatenate([sides["b" if order == "ab" else "a"] for order in orders]),
    }  # fmt: skip
    extra = [name for name in values if name not in JUDGMENT_COLUMNS]
    rows = range(count * parts)
    return pd.DataFrame({name: _column(values[name], rows) for name in (*JUDGMENT_COLUMNS, *extra)}, index=rows)


def _repeated(value: object, times: int) -> object:
    """A column's value for each pair, for ``times`` orders and repeats of the pairs; one value for all stays one."""
    return value if np.isscalar(value) or value is pd.NA else pd.concat([pd.Series(value)] * times, ignore_index=True)


def _column(value: Any, rows: range) -> Any:
    """The value or values as a column; texts as Python objects, in which tables of some thousand rows are worked on several times
    as fast as in Arrow's."""
    is_text = isinstance(value, str) or getattr(value, "dtype", None) == np.dtype(object)
    return pd.Series(value, index=rows, dtype=object) if is_text else value


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
