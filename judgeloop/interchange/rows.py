"""Rows of a file, a frame or standard input, the user's names for their columns, and checks of their cells. An error is one
sentence: row, column, fault."""

from __future__ import annotations

import difflib
import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd

from judgeloop.errors import ExperimentError, InvalidInput
from judgeloop.experiment import inputs
from judgeloop.experiment.inputs import read_yaml, yaml_name
from judgeloop.records import Message, prompt_text

VERDICT_COLUMNS = (
    "item_id", "judge", "order", "verdict", "pair_id", "repeat", "p_first", "reason", "generation", "arm", "replicate",
    "panel", "category", "gold", "gold_2", "prompt", "text_a", "text_b", "len_a", "len_b", "length_unit", "candidate_a",
    "candidate_b", "model_a", "model_b", "identical", "order_drawn", "probe", "dose", "dose_reached", "call",
)  # fmt: skip
PAIR_COLUMNS = (
    "item_id", "pair_id", "prompt", "text_a", "text_b", "candidate_a", "candidate_b", "model_a", "model_b", "gold", "gold_2",
    "category", "len_a", "len_b", "length_unit",
)  # fmt: skip
SET_COLUMNS = ("item_id", "set_id", "prompt", "texts", "candidates", "models", "gold", "category")
TEXT_COLUMNS = (
    "item_id", "prompt", "text", "generation", "step", "arm", "control", "replicate", "category", "language",
)  # fmt: skip
KEPT_COLUMNS = ("language",)
"""Columns that have a meaning and stand among a file's further ones in the tables."""
KNOWN = tuple(dict.fromkeys((*VERDICT_COLUMNS, *PAIR_COLUMNS, *SET_COLUMNS, *TEXT_COLUMNS, *KEPT_COLUMNS)))
_KEYS = ("column", "values", "value", "by")
_WINNER = re.compile(r"winner|better|preferred|preference|chosen", re.IGNORECASE)
_SLOT_WORDS = ("first", "second", "left", "right")


@dataclass(frozen=True, slots=True)
class Source:
    """The source of one of judgeloop's columns: a column of the log and the meaning of its words, or a constant.

    ``by``: ``slot`` where a verdict's words are known to name the slot, ``model`` where they name the model of the better text, as
    model_a and model_b do.
    """

    column: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    value: str | None = None
    by: str = ""


@dataclass(frozen=True, slots=True)
class Columns:
    """Sources by judgeloop's column. ``origin`` is the file's name, for errors."""

    sources: Mapping[str, Source] = field(default_factory=dict)
    origin: str = "columns"

    def renamed(self, row: Mapping[str, Any], known: tuple[str, ...]) -> dict[str, Any]:
        """The row with judgeloop's names of ``known`` added. A source whose column is not in this row adds nothing."""
        renamed = dict(row)
        for name, source in self.sources.items():
            if name not in known and name not in KEPT_COLUMNS:
                continue
            if source.value is not None:
                renamed[name] = source.value
            elif source.column in row:
                raw = row[source.column]
                renamed[name] = source.values.get("" if raw is None else str(raw), raw)
        for name, source in self.sources.items():
            if source.by == "model" and name in renamed:
                models = {str(renamed.get("model_b")): "b", str(renamed.get("model_a")): "a"}
                renamed[name] = models.get(str(renamed[name]), renamed[name]) if len(models) == 2 else renamed[name]
        return renamed

    def names(self, row: Mapping[str, Any]) -> dict[str, str]:
        """judgeloop's column → the log's column that it is read from in this row."""
        return {name: source.column for name, source in self.sources.items() if source.column in row}

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
    by = value.get("by", "")
    if by not in ("", "slot", "model") or (by and name != "verdict"):
        raise InvalidInput(f"{origin}: {name}.by: only a verdict has it, as slot or model")
    source = Source(column, {str(word): str(meaning) for word, meaning in values.items()}, by=by)
    _check_winner(name, source, origin)
    return source


def _check_winner(name: str, source: Source, origin: str) -> None:
    """Raises InvalidInput where the words of a column such as winner are made slots, and nothing says that they are."""
    as_slots = [
        (word, meaning)
        for word, meaning in source.values.items()
        if meaning in ("first", "second") and word.strip().lower() not in _SLOT_WORDS
    ]
    if name == "verdict" and as_slots and not source.by and names_a_winner(source.column):
        word, meaning = as_slots[0]
        raise InvalidInput(
            f"{origin}: verdict.values: {word}: {meaning}: column {source.column!r} may name an answer or a slot; write a or b "
            f"({word}: a) where {word} is an answer, whichever was shown first, or add by: slot where {word} is the slot shown {meaning}"
        )


def names_a_winner(column: str) -> bool:
    """Whether a column's name says that it holds the better of two, which may be an answer or a slot."""
    return bool(_WINNER.search(column))


def near(name: str, known: tuple[str, ...]) -> str:
    """ "; did you mean …?" where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


STDIN = "-"
_STDIN_NAME = "standard input"
Row = tuple[str, dict[str, Any]]
Input = str | Path | pd.DataFrame
_LONGEST = 60
_ROLES = ("system", "user", "assistant")


def named(source: Input, what: str) -> str:
    """The name of a source in errors: the file, standard input, or ``what`` for a frame."""
    if isinstance(source, pd.DataFrame):
        return what
    return _STDIN_NAME if str(source) == STDIN else str(source)


def raw_rows(source: Input, what: str) -> Iterator[Row]:
    """(where, row) of every row; a null cell is None, an empty CSV cell "". Raises InvalidInput with file and line."""
    rows = (
        _frame_rows(source, what) if isinstance(source, pd.DataFrame)
        else _stdin_rows(what) if str(source) == STDIN
        else _file_rows(Path(source), what)
    )  # fmt: skip
    for where, row in rows:
        yield where, {key: None if _is_null(value) else value for key, value in row.items()}


def _frame_rows(frame: pd.DataFrame, what: str) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"{what}: column {twice} stands twice; keep one")
    columns = [frame[name].tolist() for name in frame.columns]
    for number, values in enumerate(zip(*columns, strict=True), start=1):
        yield f"{what}: row {number}", dict(zip(names, values, strict=True))


def _file_rows(path: Path, what: str) -> Iterator[Row]:
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise InvalidInput(
            f"{path}: {kind}; give the {what} as a .jsonl, .csv or .parquet file, or - for standard input"
        )
    return inputs.rows(path, what)


def _stdin_rows(what: str) -> Iterator[Row]:
    """The rows of standard input: Parquet by its magic bytes, JSON Lines by an opening brace, else CSV."""
    content = sys.stdin.buffer.read()
    if not content.strip():
        raise InvalidInput(f"{_STDIN_NAME}: empty; pipe the {what} in, or give a file")
    head = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    ending = ".parquet" if content.startswith(b"PAR1") else ".jsonl" if head.startswith((b"{", b"[")) else ".csv"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"stdin{ending}"
        path.write_bytes(content)
        try:
            for where, row in inputs.rows(path, what):
                yield where.replace(str(path), _STDIN_NAME, 1), row
        except ExperimentError as error:
            raise InvalidInput(str(error).replace(str(path), _STDIN_NAME)) from None


def _is_null(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


class Cells:
    """One row's cells by column, checked as they are taken.

    ``names``: judgeloop's column → the file's own name of what it is read from, for errors.
    """

    def __init__(self, where: str, row: Mapping[str, Any], names: Mapping[str, str] | None = None) -> None:
        self.where, self.row, self.names = where, row, names or {}

    def cell(self, column: str) -> Any:
        """The cell as it is; None where it is blank or the column is missing."""
        value = self.row.get(column)
        return None if isinstance(value, str) and not value.strip() else value

    def fault(self, column: str, what: str) -> InvalidInput:
        """The error to raise: row, column and what is wrong."""
        own = self.names.get(column, column)
        return InvalidInput(f"{self.where}: {own if own == column else f'{own} (read as {column})'}: {what}")

    def required(self, column: str, hint: str = "") -> Any:
        """The cell. Raises InvalidInput where the column is missing, or empty in this row."""
        if column not in self.row and column in self.names:
            raise self.fault(column, f"is missing; --columns can state it ({column}: {{value: …}})")
        if column not in self.row:
            names = tuple(self.row)
            close = near(column, tuple(name for name in names if name not in KNOWN))  # text_a is not text_b misspelt
            raise InvalidInput(
                f"{self.where}: column {column} is missing (this row has {', '.join(names[:8]) or 'none'}){close or '; use --columns if the log has another name for it'}"
            )
        value = self.cell(column)
        if value is None:
            raise self.fault(column, f"is empty{hint}")
        return value

    def name(self, column: str) -> str:
        """A required id or name: text, or a whole number as text."""
        self.required(column)
        return self.label(column)

    def label(self, column: str, default: str = "") -> str:
        """An optional id or name."""
        value = self.cell(column)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.fault(column, f"must be text, not {_quoted(value)}")
        # A column of whole numbers with gaps comes as floats from Parquet and from frames.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        return self.unicode(column, text)

    def text(self, column: str) -> str | None:
        """An optional text, which may be empty; None where it is null or the column is missing."""
        value = self.row.get(column)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.fault(column, f"must be text, not {_quoted(value)}")
        return self.unicode(column, value)

    def word(self, column: str, words: Sequence[str], meaning: str, default: str | None = None) -> str:
        """One of ``words``, which ``meaning`` explains in errors; required where there is no default."""
        value = self.cell(column) if default is not None else self.required(column, f"; {meaning}")
        if value is None:
            return cast(str, default)
        if not isinstance(value, str) or value not in words:
            raise self.fault(column, f"must be {meaning}, not {_quoted(value)}{_other_words(column)}")
        return value

    def number(self, column: str, *, low: float = -math.inf, high: float = math.inf) -> float | None:
        """An optional finite number."""
        value = self.cell(column)
        if value is None:
            return None
        number = _number(value)
        if number is None or not low <= number <= high:
            span = (
                f" from {low:g} to {high:g}"
                if math.isfinite(high)
                else f" of {low:g} or more"
                if low > -math.inf
                else ""
            )
            raise self.fault(column, f"must be a finite number{span}, not {_quoted(value)}")
        return number

    def whole(self, column: str) -> int | None:
        """An optional whole number of 0 or more."""
        number = self.number(column)
        if number is not None and (number < 0 or not number.is_integer()):
            raise self.fault(column, f"must be a whole number of 0 or more, not {_quoted(self.row[column])}")
        return None if number is None else int(number)

    def truth(self, column: str) -> bool | None:
        """An optional true or false."""
        value = self.cell(column)
        if value is None:
            return None
        truth = {"true": True, "false": False, "1": True, "0": False}.get(str(value).lower())
        if truth is None:
            raise self.fault(column, f"must be true or false, not {_quoted(value)}")
        return truth

    def gold(self, column: str) -> str:
        """Optional gold: ``a``, ``b``, ``tie``, or a finite number as text (positive: a is better); "" where it is empty."""
        value = self.cell(column)
        if value is None:
            return ""
        if isinstance(value, str) and value.strip().lower() in ("a", "b", "tie"):
            return value.strip().lower()
        number = _number(value)
        if number is None:
            raise self.fault(
                column,
                f"must be a, b, tie or a finite number (positive: a is better), not {_quoted(value)}{_other_words(column)}",
            )
        return repr(number)

    def prompt(self) -> str | None:
        """An optional prompt as one text; a chat history becomes labelled turns."""
        value = self.cell("prompt")
        if isinstance(value, str) and value.startswith("[{"):
            try:
                turns = json.loads(value)
            except (ValueError, RecursionError):
                turns = value
            value = turns if isinstance(turns, list) and all(isinstance(turn, dict) and "role" in turn for turn in turns) else value  # fmt: skip
        if value is None or isinstance(value, str):
            return None if value is None else self.unicode("prompt", value)
        # A list column of Parquet comes as an array in frames.
        turns = list(value) if hasattr(value, "__iter__") and not isinstance(value, Mapping) else []
        if not turns or not all(
            isinstance(turn, Mapping) and turn.get("role") in _ROLES and isinstance(turn.get("content"), str)
            for turn in turns
        ):
            raise self.fault(
                "prompt", f"must be text or a list of chat messages with role and content, not {_quoted(value)}"
            )
        return self.unicode("prompt", prompt_text([Message(turn["role"], turn["content"]) for turn in turns]))

    def unicode(self, column: str, text: str) -> str:
        """The text. Raises InvalidInput where it cannot be written as UTF-8."""
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self.fault(column, "holds half of a surrogate pair, which is no Unicode text") from None
        return text


def is_number(gold: str) -> bool:
    """Whether a gold value, as ``Cells.gold`` returns it, is a number."""
    return bool(gold) and gold not in ("a", "b", "tie")


def extras(row: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """The columns of a row that are not in ``known``, unchanged but for nested values, which become JSON."""
    return {
        name: value if value is None or isinstance(value, str | int | float) else json.dumps(value, ensure_ascii=False, default=str)
        for name, value in row.items()
        if name not in known
    }  # fmt: skip


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    # Not 1_000, nor digits of other scripts, which float() reads.
    if isinstance(value, str) and not re.fullmatch(r"\s*[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?\s*", value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _quoted(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _other_words(column: str) -> str:
    return f"; --columns translates other words ({column}: {{column: …, values: {{…}}}})"
