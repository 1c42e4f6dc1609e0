"""``--columns``: names and words of a log in judgeloop's terms.

A YAML mapping of judgeloop's column to the log's: ``judge: model``; or, where words differ too, ``verdict: {column: winner,
values: {A: first, B: second, none: unscored}}``; or, where the log has no such column, ``judge: {value: gpt-4}``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.experiment.inputs import read_yaml, yaml_name

VERDICT_COLUMNS = (
    "item_id", "judge", "order", "verdict", "pair_id", "repeat", "p_first", "reason", "generation", "arm", "replicate",
    "panel", "category", "gold", "gold_2", "prompt", "text_a", "text_b", "len_a", "len_b", "length_unit", "candidate_a",
    "candidate_b", "model_a", "model_b", "identical", "probe", "dose", "dose_reached", "call",
)  # fmt: skip
PAIR_COLUMNS = (
    "item_id", "pair_id", "prompt", "text_a", "text_b", "candidate_a", "candidate_b", "model_a", "model_b", "gold", "gold_2",
    "category", "len_a", "len_b", "length_unit",
)  # fmt: skip
SET_COLUMNS = ("item_id", "set_id", "prompt", "texts", "candidates", "models", "gold", "category")
KNOWN = tuple(dict.fromkeys((*VERDICT_COLUMNS, *PAIR_COLUMNS, *SET_COLUMNS)))
_KEYS = ("column", "values", "value")


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one of judgeloop's columns: a column of the log and the meaning of its words, or a constant."""

    column: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Sources by judgeloop's column. ``origin`` is the file's name, for errors."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    origin: str = "columns"

    def renamed(self, row: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        """The row with judgeloop's names of ``known`` added. A source whose column is not in this row adds nothing."""
        renamed = dict(row)
        for name, source in self.sources.items():
            if name not in known:
                continue
            if source.value is not None:
                renamed[name] = source.value
            elif source.column in row:
                raw = row[source.column]
                renamed[name] = source.values.get("" if raw is None else str(raw), raw)
        return renamed

    def missing(self, present: set[str]) -> str | None:
        """The first of judgeloop's columns whose source is not among the ``present`` column names; None where all are."""
        return next(
            (name for name, source in self.sources.items() if source.column and source.column not in present), None
        )


def load_columns(source: str | Path | Mapping[str, Any] | None) -> Columns:
    """The columns of a YAML file or a mapping; none for None. Raises InvalidInput with file and key."""
    if source is None:
        return Columns()
    raw: Mapping[str, Any]
    if isinstance(source, Mapping):
        raw, origin = source, "columns"
    else:
        raw, origin = read_yaml(Path(source), "--columns"), str(source)
    return Columns({str(name): _source(str(name), value, origin) for name, value in raw.items()}, origin)


def _source(name: str, value: object, origin: str) -> Source:
    if name not in KNOWN:
        raise InvalidInput(f"{origin}: {name}: no column of verdicts, pairs or sets{near(name, KNOWN)}")
    if isinstance(value, str) and value:
        return Source(column=value)
    if not isinstance(value, Mapping) or not value:
        raise InvalidInput(
            f"{origin}: {name}: give the log's column, or {{column, values}}, or {{value}}, not {yaml_name(value)}"
        )
    for key in value:
        if key not in _KEYS:
            raise InvalidInput(f"{origin}: {name}.{key}: unknown key{near(str(key), _KEYS)}; known: {', '.join(_KEYS)}")
    if "value" in value:
        if len(value) > 1 or not isinstance(value["value"], str | int) or isinstance(value["value"], bool):
            raise InvalidInput(f"{origin}: {name}.value: must be text or a whole number, and stands alone")
        return Source(value=str(value["value"]))
    column, values = value.get("column", name), value.get("values", {})
    if not isinstance(column, str) or not column:
        raise InvalidInput(f"{origin}: {name}.column: must be a column's name, not {yaml_name(column)}")
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{origin}: {name}.values: must be a mapping of the log's words, not {yaml_name(values)}")
    for word, meaning in values.items():
        if any(isinstance(entry, bool) or not isinstance(entry, str | int) for entry in (word, meaning)):
            raise InvalidInput(
                f"{origin}: {name}.values: {word!r}: {meaning!r}: words and numbers only; put yes, no, on, off, null in quotes"
            )
    return Source(column=column, values={str(word): str(meaning) for word, meaning in values.items()})


def near(name: str, known: tuple[str, ...]) -> str:
    """ "; did you mean …?" where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
