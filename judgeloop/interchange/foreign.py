"""Verdict logs of any tool, recognised by their content, as the one form that the statistics take."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange import alpaca_eval, arena_hard, arenas, inspect_log, lm_eval
from judgeloop.interchange.columns import Columns
from judgeloop.interchange.rows import STDIN, Input, Row, named, raw_rows
from judgeloop.interchange.verdicts import VerdictLog, verdict_log

FORMATS = ("judgeloop", "alpaca_eval", "mt_bench", "arena_hard", "inspect", "lm_eval")
_KEYS = {
    "alpaca_eval": alpaca_eval.KEYS, "mt_bench": arenas.KEYS, "arena_hard": arena_hard.KEYS, "lm_eval": lm_eval.KEYS,
}  # fmt: skip
_BY_RECORD: dict[str, Callable[[Iterable[Row]], tuple[list[Row], list[str]]]] = {
    "alpaca_eval": alpaca_eval.rows, "mt_bench": arenas.rows, "arena_hard": arena_hard.rows,
}  # fmt: skip
_GRADED_ALONE: dict[str, Callable[[Sequence[Path], str, str], tuple[list[Row], list[str]]]] = {
    "inspect": inspect_log.rows, "lm_eval": lm_eval.rows,
}  # fmt: skip
_IN_A_FOLDER = ("*.eval", "samples_*.jsonl", "annotations.json", "*_pair.jsonl", "*.jsonl")
_PEEK = 1 << 20
Sources = Input | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class _LogInput:
    """One log's input: files of one format, or a frame or standard input (no files)."""

    format: str
    files: tuple[Path, ...]
    source: Input


def read_log(
    sources: Sources,
    pairs: Input | None = None,
    columns: Columns | None = None,
    *,
    format: str = "auto",  # noqa: A002
) -> VerdictLog:
    """A verdict log of any of FORMATS, joined to ``pairs`` on pair_id.

    ``sources``: a path (file, folder or run folder), several paths of one format, "-", or a frame. ``format`` auto
    recognises it by content. Raises InvalidInput naming file, row and field.
    """
    columns = columns or Columns()
    log = _input_of(sources, format)
    if log.format == "judgeloop":
        rows = (
            chain.from_iterable(_judgeloop_rows(path, pairs is not None) for path in log.files)
            if log.files
            else raw_rows(log.source, "verdicts")
        )
        return verdict_log(rows, _name_in_errors(log), pairs, columns, source=log.source)
    if log.format in _BY_RECORD:
        log_rows, notes = _BY_RECORD[log.format](chain.from_iterable(map(records, log.files)))
    else:
        judge, gold = (_scorer(columns, name) for name in ("verdict", "gold"))
        log_rows, notes = _GRADED_ALONE[log.format](log.files, judge, gold)
        sources_left = {name: source for name, source in columns.sources.items() if name not in ("verdict", "gold")}
        columns = replace(columns, sources=sources_left)
    return verdict_log(log_rows, _name_in_errors(log), pairs, columns, notes=notes)


def files_of(sources: Sources) -> tuple[Path, ...]:
    """The files of ``sources``, with those in folders; empty for a frame and standard input. Raises InvalidInput."""
    if isinstance(sources, pd.DataFrame):
        return ()
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    if not paths:
        raise InvalidInput("verdicts: no file given")
    if [str(path) for path in paths] == [STDIN]:
        return ()
    if any(str(path) == STDIN for path in paths):
        raise InvalidInput("verdicts: standard input stands alone; give files, or - alone")
    return tuple(file for path in paths for file in _files_below(Path(path)))


def format_of(path: Path) -> str:
    """The format of a file by its content, one of FORMATS; judgeloop where it is none of the others."""
    if zipfile.is_zipfile(path):
        return "inspect"
    ending = path.suffix.lower()
    if ending == ".json":
        head = _beginning(path).lstrip()
        if head.startswith("{"):
            return "inspect"
        first = next(records(path), None)
        return _format_by_keys(first[1]) if first else "judgeloop"
    if ending in (".jsonl", ".ndjson"):
        line = next((line for line in _beginning(path).splitlines() if line.strip()), "")
        return _format_by_keys(_parsed_object(line) or _first_object(path))
    if ending == ".csv":
        return _format_by_keys(dict.fromkeys(next(csv.reader(_beginning(path).splitlines()[:1]), [])))
    return "judgeloop"


def records(path: Path) -> Iterator[Row]:
    """(where, record) of a file: a JSON array of objects (.json), else the rows of JSON Lines, CSV or Parquet."""
    if path.suffix.lower() != ".json":
        yield from inputs.rows(path, "verdicts")
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read as UTF-8 text ({error!s:.80})") from None
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _object_without_duplicates(pairs, f"{path}:{line}"))
    place, line, counted = _after_space(text, 0), 1, 0
    if text[place : place + 1] != "[":
        raise InvalidInput(f"{path}:1: must be a JSON array of records")
    place = _after_space(text, place + 1)
    while text[place : place + 1] != "]":
        line, counted = line + text.count("\n", counted, place), place
        where = f"{path}:{line}"
        try:
            value, place = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise InvalidInput(f"{path}:{error.lineno}: not valid JSON ({error.msg})") from None
        except RecursionError:
            raise InvalidInput(f"{where}: not valid JSON (nested too deeply)") from None
        if not isinstance(value, dict):
            raise InvalidInput(f"{where}: each record is a JSON object, this is {type(value).__name__}")
        yield where, value
        place = _after_space(text, place)
        if text[place : place + 1] == ",":
            place = _after_space(text, place + 1)
        elif text[place : place + 1] != "]":
            raise InvalidInput(
                f"{path}:{line + text.count(chr(10), counted, place)}: not valid JSON (the array is cut off)"
            )


def _input_of(sources: Sources, format_name: str) -> _LogInput:
    files = files_of(sources)
    if not files:
        if format_name not in ("auto", "judgeloop"):
            raise InvalidInput(f"--format {format_name}: is read from files; give a path")
        source = sources if isinstance(sources, pd.DataFrame) else STDIN
        return _LogInput("judgeloop", (), source)
    if format_name != "auto":
        return _LogInput(format_name, files, files[0])
    kinds = {format_of(path): path for path in reversed(files)}
    if len(kinds) > 1:
        (first_kind, first), (second_kind, second), *_ = kinds.items()
        raise InvalidInput(f"{second}: a log of {second_kind}, but {first} is one of {first_kind}; analyse one format at a time, or say which with --format")  # fmt: skip
    return _LogInput(next(iter(kinds)), files, files[0])


def _name_in_errors(log: _LogInput) -> str:
    if len(log.files) > 1:
        return f"{log.files[0]} and {len(log.files) - 1} more"
    return str(log.files[0]) if log.files else named(log.source, "verdicts")


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InvalidInput(f"{path}: no such file; give the verdicts as a file or folder, or - for standard input")
        return [path]
    if (path / "experiment.yaml").is_file():
        parts = sorted((path / "tables" / "judgments").glob("*.parquet"))
        if not parts:
            raise InvalidInput(f"{path}: a folder of judgeloop without judgments yet")
        return parts
    for pattern in _IN_A_FOLDER:
        if files := sorted(path.rglob(pattern)):
            return files
    raise InvalidInput(f"{path}: a folder without a log; it should hold {', '.join(_IN_A_FOLDER)}, or be a run folder")


def _judgeloop_rows(path: Path, joined: bool) -> Iterator[Row]:
    """Rows of judgeloop's own log. Of a run folder that is joined to pairs, only judgments of fixed pairs, without the run's
    gold: the pairs file has it."""
    of_a_run = path.parent.name == "judgments" and path.parent.parent.name == "tables"
    for where, row in raw_rows(path, "verdicts"):
        if of_a_run:
            if joined and row.get("panel") not in ("anchor", "pairs"):
                continue
            row = {name: value for name, value in row.items() if not (joined and name in ("gold", "gold_2"))}
        yield where, row


def _scorer(columns: Columns, name: str) -> str:
    """The scorer or metric that --columns names as verdict or gold of a log of single grades; "" where it names none."""
    source = columns.sources.get(name)
    if source is None:
        return ""
    if source.values or source.value is not None:
        raise InvalidInput(
            f"{columns.origin}: {name}: names a scorer of the log here; give its name alone, without values or value"
        )
    return source.column


def _format_by_keys(record: Mapping[str, Any]) -> str:
    return next((name for name, keys in _KEYS.items() if keys <= set(record)), "judgeloop")


def _beginning(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_PEEK).decode("utf-8-sig", "ignore")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from None


def _parsed_object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_object(path: Path) -> dict[str, Any]:
    """The first line of a file as an object; {} where it is none. For lines longer than the beginning that was read."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return _parsed_object(next((line for line in file if line.strip()), ""))
    except OSError:
        return {}


def _object_without_duplicates(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{where}: key {twice} stands twice; keep one")
    return record


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
