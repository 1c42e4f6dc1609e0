"""Pairs files, one matchup a row with its texts and their gold, lengths, models and category; and files of sets, several
answers to one prompt a row, of which a judge picks the best."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.experiment.inputs import csv_header
from judgeloop.interchange.rows import PAIR_COLUMNS, SET_COLUMNS, Cells, Columns, Input, extras, named, raw_rows

OF_A_PAIR = (
    "prompt", "category", "text_a", "text_b", "candidate_a", "candidate_b", "model_a", "model_b", "gold", "gold_2", "len_a",
    "len_b", "length_unit",
)  # fmt: skip
"""Columns that do not depend on the presentation: equal in all rows of a pair, or empty."""
LENGTH_UNITS = ("characters", "tokens")


@dataclass(frozen=True, slots=True)
class Pair:
    """One row: ``values`` by OF_A_PAIR (None or "" where empty), ``other_columns`` the rest of the file's."""

    where: str
    item_id: str
    pair_id: str
    values: Mapping[str, Any]
    other_columns: Mapping[str, Any]


def read_pairs(source: Input, columns: Columns | None = None, column_names: set[str] | None = None) -> dict[str, Pair]:
    """Pairs by pair_id. The file's column names are added to ``column_names``. Raises InvalidInput with row and column for
    what is missing, ill-typed or duplicate."""
    columns, column_names = columns or Columns(), set() if column_names is None else column_names
    pairs: dict[str, Pair] = {}
    prompts: dict[str, tuple[str, str]] = {}
    for where, raw in raw_rows(source, "pairs"):
        column_names.update(raw)
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
            # A text may be empty (a model that answered nothing) but not missing.
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
        pairs[pair_id] = Pair(where, item_id, pair_id, values, extras(row, PAIR_COLUMNS))
    if not pairs:
        _check_header(source, columns)
        raise InvalidInput(f"{named(source, 'pairs')}: no pairs; give one a row: item_id, prompt, text_a, text_b")
    return pairs


def _check_header(source: Input, columns: Columns) -> None:
    """Raises InvalidInput for a CSV whose first line, taken as the header, lacks required columns: it may be data."""
    if isinstance(source, pd.DataFrame) or Path(source).suffix.lower() != ".csv":
        return
    columns_present = columns.renamed(dict.fromkeys(csv_header(Path(source))), PAIR_COLUMNS)
    lacking = [name for name in ("item_id", "prompt", "text_a", "text_b") if name not in columns_present]
    if lacking:
        raise InvalidInput(f"{source}:1: the header lacks {', '.join(lacking)}, and no row follows; give a first line with the columns' names")  # fmt: skip


def of_a_pair(cells: Cells) -> dict[str, Any]:
    """The columns of OF_A_PAIR, checked; None or "" where they are empty."""
    values: dict[str, Any] = {"prompt": cells.prompt()}
    values |= {column: cells.text(column) for column in ("text_a", "text_b")}
    values |= {
        column: cells.label(column) for column in ("category", "candidate_a", "candidate_b", "model_a", "model_b")
    }
    values |= {column: cells.gold(column) for column in ("gold", "gold_2")}
    values |= {column: cells.number(column, low=0) for column in ("len_a", "len_b")}
    for a_column, b_column in (("len_a", "len_b"), ("candidate_a", "candidate_b"), ("text_a", "text_b")):
        absent: tuple[Any, ...] = (None,) if a_column == "text_a" else (None, "")
        if (values[a_column] in absent) != (values[b_column] in absent):
            lacking, present = (a_column, b_column) if values[a_column] in absent else (b_column, a_column)
            raise cells.fault(lacking, f"is empty, but {present} is not; give both or neither")
    unit = cells.word("length_unit", LENGTH_UNITS, "characters or tokens", default="")
    return values | {"length_unit": unit}


FEWEST, MOST = 2, 8


@dataclass(frozen=True, slots=True)
class TextSet:
    """One row. ``names`` and ``models`` are empty where the file has none; ``gold`` is the best text's index, from 0.

    ``other_columns``: the rest of the file's.
    """

    where: str
    item_id: str
    set_id: str
    prompt: str
    category: str
    texts: tuple[str, ...]
    names: tuple[str, ...]
    models: tuple[str, ...]
    gold: int | None
    other_columns: Mapping[str, Any]


def read_sets(source: Input, columns: Columns | None = None) -> dict[str, TextSet]:
    """Sets by set_id. Raises InvalidInput with row and column for what is missing, ill-typed, duplicate or of another size."""
    columns = columns or Columns()
    sets: dict[str, TextSet] = {}
    prompts: dict[str, tuple[str, str]] = {}
    for where, raw in raw_rows(source, "sets"):
        cells = Cells(where, columns.renamed(raw, SET_COLUMNS))
        item_id = cells.name("item_id")
        set_id = cells.label("set_id", item_id)
        if set_id in sets:
            raise InvalidInput(
                f"{where}: set_id {set_id!r} stands twice (first at {sets[set_id].where}); ids must be unique (default: item_id)"
            )
        cells.required("prompt")
        prompt = str(cells.prompt())
        first_prompt, first_where = prompts.setdefault(item_id, (prompt, where))
        if prompt != first_prompt:
            raise InvalidInput(
                f"{where}: prompt: item_id {item_id!r} has another prompt at {first_where}; one prompt an item_id"
            )
        texts = _texts(cells)
        first_set = next(iter(sets.values()), None)
        if first_set is not None and len(first_set.texts) != len(texts):
            raise cells.fault(
                "texts",
                f"holds {len(texts)} texts, but {len(first_set.texts)} at {first_set.where}; a file has sets of one size",
            )
        gold = cells.whole("gold")
        if gold is not None and gold >= len(texts):
            raise cells.fault("gold", f"must be the best text's place in texts, from 0 to {len(texts) - 1}, not {gold}")
        sets[set_id] = TextSet(
            where, item_id, set_id, prompt, cells.label("category"), texts, _names(cells, "candidates", len(texts)),
            _names(cells, "models", len(texts)), gold, extras(raw, SET_COLUMNS),
        )  # fmt: skip
    if not sets:
        raise InvalidInput(f"{named(source, 'sets')}: no sets; give one a row: item_id, prompt, texts")
    return sets


def _texts(cells: Cells) -> tuple[str, ...]:
    cells.required("texts")
    texts = _list(cells, "texts")
    if not FEWEST <= len(texts) <= MOST:
        raise cells.fault("texts", f"must hold {FEWEST} to {MOST} texts, not {len(texts)}")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            raise cells.fault("texts", f"entry {place} must be text, not {text!r:.60}")
        if texts.index(text) < place:
            raise cells.fault(
                "texts", f"entries {texts.index(text)} and {place} are equal; a list shows different texts"
            )
        cells.unicode("texts", text)
    return tuple(texts)


def _names(cells: Cells, column: str, count: int) -> tuple[str, ...]:
    """An optional list of names, one a text."""
    if cells.cell(column) is None:
        return ()
    names = _list(cells, column)
    if len(names) != count or not all(isinstance(name, str) and name for name in names):
        raise cells.fault(column, f"must be a list of {count} names, one a text, not {names!r:.60}")
    if column == "candidates" and len(set(names)) < count:
        raise cells.fault(column, "holds a name twice; one name a text")
    return tuple(cells.unicode(column, name) for name in names)


def _list(cells: Cells, column: str) -> list[Any]:
    """A list as it is, or as JSON in a cell of text."""
    value = cells.cell(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise cells.fault(column, f"must be a list, as JSON in a CSV cell, not {value!r:.60}") from None
    # A list column of Parquet comes as an array in frames.
    if isinstance(value, Mapping | bytes | str) or not (isinstance(value, Sequence) or hasattr(value, "tolist")):
        raise cells.fault(column, f"must be a list, not {value!r:.60}")
    return list(value)
