"""A file of sets: a row holds several answers to one prompt, of which a judge picks the best."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.interchange.columns import SET_COLUMNS, Columns
from judgeloop.interchange.rows import Cells, Input, extras, named, raw_rows

FEWEST, MOST = 2, 8


@dataclass(frozen=True, slots=True)
class TextSet:
    """One row. ``names`` and ``models`` are empty where the file has none; ``gold`` is the best text's index, from 0.

    ``kept``: the file's other columns.
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
    kept: Mapping[str, Any]


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
