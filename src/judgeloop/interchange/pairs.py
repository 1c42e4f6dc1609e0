"""A pairs file: one matchup a row, with its texts, and what is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.inputs import csv_header
from judgeloop.interchange.cells import Cells, Input, extras, named, raw_rows
from judgeloop.interchange.columns import PAIR_COLUMNS, Columns

OF_A_PAIR = (
    "prompt", "category", "text_a", "text_b", "candidate_a", "candidate_b", "model_a", "model_b", "gold", "gold_2", "len_a",
    "len_b", "length_unit",
)  # fmt: skip
"""What is true of a pair in whatever order it is shown: every row of the pair says the same, or nothing."""
LENGTH_UNITS = ("characters", "tokens")


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: ``values`` by OF_A_PAIR (None or "" where empty), ``kept`` the columns that judgeloop does not know."""

    where: str
    item_id: str
    pair_id: str
    values: Mapping[str, Any]
    kept: Mapping[str, Any]


def read_pairs(source: Input, columns: Columns | None = None, seen: set[str] | None = None) -> dict[str, Pair]:
    """pair_id → Pair. ``seen`` collects the file's column names. Raises InvalidInput with row and column: missing, ill-typed
    or duplicate."""
    columns, seen = columns or Columns(), set() if seen is None else seen
    pairs: dict[str, Pair] = {}
    prompts: dict[str, tuple[str, str]] = {}
    for where, raw in raw_rows(source, "pairs"):
        seen.update(raw)
        row = columns.renamed(raw, PAIR_COLUMNS)
        cells = Cells(where, row)
        item_id = cells.name("item_id")
        pair_id = cells.label("pair_id", item_id)
        if pair_id in pairs:
            raise InvalidInput(
                f"{where}: pair_id {pair_id!r} stands twice (first at {pairs[pair_id].where}); ids must be unique (default: item_id)"
            )
        cells.required("prompt")
        for column in ("text_a", "text_b"):
            # A text may be empty, unlike an absent one: a model that answered nothing.
            if row.get(column) is None:
                cells.required(column)
        values = of_a_pair(cells)
        if not values["text_a"].strip() and not values["text_b"].strip():
            raise cells.fault("text_a", "is blank, and so is text_b: there is nothing to judge; leave the row out")
        prompt, first = prompts.setdefault(item_id, (values["prompt"], where))
        if prompt != values["prompt"]:
            raise InvalidInput(
                f"{where}: prompt: item_id {item_id!r} has another prompt at {first}; one prompt an item_id"
            )
        pairs[pair_id] = Pair(where, item_id, pair_id, values, extras(raw, PAIR_COLUMNS))
    if not pairs:
        _check_header(source, columns)
        raise InvalidInput(f"{named(source, 'pairs')}: no pairs; give one a row: item_id, prompt, text_a, text_b")
    return pairs


def _check_header(source: Input, columns: Columns) -> None:
    """A CSV without rows may be one without a header, whose only row was read as one. Raises InvalidInput."""
    if isinstance(source, pd.DataFrame) or Path(source).suffix.lower() != ".csv":
        return
    found = columns.renamed(dict.fromkeys(csv_header(Path(source))), PAIR_COLUMNS)
    lacking = [name for name in ("item_id", "prompt", "text_a", "text_b") if name not in found]
    if lacking:
        raise InvalidInput(f"{source}:1: the header lacks {', '.join(lacking)}, and no row follows; give a first line with the columns' names")  # fmt: skip


def of_a_pair(cells: Cells) -> dict[str, Any]:
    """The columns of OF_A_PAIR, checked; what the row does not say is None or ""."""
    values: dict[str, Any] = {"prompt": cells.prompt()}
    values |= {column: cells.text(column) for column in ("text_a", "text_b")}
    values |= {
        column: cells.label(column) for column in ("category", "candidate_a", "candidate_b", "model_a", "model_b")
    }
    values |= {column: cells.gold(column) for column in ("gold", "gold_2")}
    values |= {column: cells.number(column, low=0) for column in ("len_a", "len_b")}
    for one, other in (("len_a", "len_b"), ("candidate_a", "candidate_b"), ("text_a", "text_b")):
        absent: tuple[Any, ...] = (None,) if one == "text_a" else (None, "")
        if (values[one] in absent) != (values[other] in absent):
            lacking, there = (one, other) if values[one] in absent else (other, one)
            raise cells.fault(lacking, f"is empty, but {there} is not; give both or neither")
    unit = cells.word("length_unit", LENGTH_UNITS, "characters or tokens", default="")
    return values | {"length_unit": unit}
