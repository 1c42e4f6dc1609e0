"""``--columns``: which column of a log bears which of judgeloop's, and what its words mean.

A YAML mapping of judgeloop's column to the log's: ``judge: model``; or ``verdict: {column: winner, values: {A: first, B:
second, none: unscored}}``; or, for what the log does not say, ``judge: {value: gpt-4}``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.inputs import read_yaml, yaml_name

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
    """Where one of judgeloop's columns comes from: a column with its words' meanings, or a constant."""

    column: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """judgeloop's column → its source. ``origin`` is the file's name, for errors."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    origin: str = "columns"

    def renamed(self, row: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        """The row under judgeloop's names. A source whose column this row has not leaves judgeloop's own name as it is."""
        out = dict(row)
        for name, source in self.sources.items():
            if name not in known:
                continue
            if source.value is not None:
                out[name] = source.value
            elif source.column in row:
                raw = row[source.column]
                out[name] = source.values.get("" if raw is None else str(raw), raw)
        return out

    def missing(self, seen: set[str]) -> str | None:
        """The first column that is named here and stands in no file; None where all do."""
        return next((name for name, one in self.sources.items() if one.column and one.column not in seen), None)


def load_columns(source: str | Path | Mapping[str, Any] | None) -> Columns:
    """The mapping of a YAML file, or as given. Raises InvalidInput with file and key."""
    if source is None:
        return Columns()
    raw: Mapping[str, Any]
    if isinstance(source, Mapping):
        raw, origin = source, "columns"
    else:
        raw, origin = read_yaml(Path(source), "--columns"), str(source)
    return Columns({str(name): _source(str(name), given, origin) for name, given in raw.items()}, origin)


def _source(name: str, given: object, origin: str) -> Source:
    if name not in KNOWN:
        raise InvalidInput(f"{origin}: {name}: no column of verdicts, pairs or sets{near(name, KNOWN)}")
    if isinstance(given, str) and given:
        return Source(column=given)
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(
            f"{origin}: {name}: give the log's column, or {{column, values}}, or {{value}}, not {yaml_name(given)}"
        )
    for key in given:
        if key not in _KEYS:
            raise InvalidInput(f"{origin}: {name}.{key}: unknown key{near(str(key), _KEYS)}; known: {', '.join(_KEYS)}")
    if "value" in given:
        if len(given) > 1 or not isinstance(given["value"], str | int) or isinstance(given["value"], bool):
            raise InvalidInput(f"{origin}: {name}.value: must be text or a whole number, and stands alone")
        return Source(value=str(given["value"]))
    column, values = given.get("column", name), given.get("values", {})
    if not isinstance(column, str) or not column:
        raise InvalidInput(f"{origin}: {name}.column: must be a column's name, not {yaml_name(column)}")
    if not isinstance(values, Mapping):
        raise InvalidInput(f"{origin}: {name}.values: must be a mapping of the log's words, not {yaml_name(values)}")
    for word, meaning in values.items():
        if any(isinstance(one, bool) or not isinstance(one, str | int) for one in (word, meaning)):
            raise InvalidInput(
                f"{origin}: {name}.values: {word!r}: {meaning!r}: words and numbers only; put yes, no, on, off, null in quotes"
            )
    return Source(column=column, values={str(word): str(meaning) for word, meaning in values.items()})


def near(name: str, known: tuple[str, ...]) -> str:
    """ "; did you mean …?" where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""
