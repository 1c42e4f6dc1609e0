"""Whose verdict log it is, told by its content, and every tool's log as the one kind that the statistics take."""

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

from judgeloop import inputs
from judgeloop.errors import InvalidInput
from judgeloop.interchange import alpaca_eval, arena_hard, inspect_log, lm_eval, mt_bench
from judgeloop.interchange.cells import STDIN, Input, Row, named, raw_rows
from judgeloop.interchange.columns import Columns
from judgeloop.interchange.verdicts import VerdictLog, verdict_log

FORMATS = ("judgeloop", "alpaca_eval", "mt_bench", "arena_hard", "inspect", "lm_eval")
_KEYS = {
    "alpaca_eval": alpaca_eval.KEYS, "mt_bench": mt_bench.KEYS, "arena_hard": arena_hard.KEYS, "lm_eval": lm_eval.KEYS,
}  # fmt: skip
_BY_RECORD: dict[str, Callable[[Iterable[Row]], tuple[list[Row], list[str]]]] = {
    "alpaca_eval": alpaca_eval.rows, "mt_bench": mt_bench.rows, "arena_hard": arena_hard.rows,
}  # fmt: skip
_GRADED_ALONE: dict[str, Callable[[Sequence[Path], str, str], tuple[list[Row], list[str]]]] = {
    "inspect": inspect_log.rows, "lm_eval": lm_eval.rows,
}  # fmt: skip
_IN_A_FOLDER = ("*.eval", "samples_*.jsonl", "annotations.json", "*_pair.jsonl", "*.jsonl")
_PEEK = 1 << 20
Sources = Input | Sequence[str | Path]


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given: files of one format, or one frame or standard input."""

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

    ``sources``: a path (file, folder or run folder), several paths of one format, "-", or a frame. ``format`` auto tells
    it by content. Raises InvalidInput naming file, row and field.
    """
    columns = columns or Columns()
    given = _given(sources, format)
    if given.format == "judgeloop":
        rows = (
            chain.from_iterable(_own_rows(path, pairs is not None) for path in given.files)
            if given.files
            else raw_rows(given.source, "verdicts")
        )
        return verdict_log(rows, _called(given), pairs, columns, source=given.source)
    if given.format in _BY_RECORD:
        found, notes = _BY_RECORD[given.format](chain.from_iterable(map(records, given.files)))
    else:
        judge, gold = (_scorer(columns, name) for name in ("verdict", "gold"))
        found, notes = _GRADED_ALONE[given.format](given.files, judge, gold)
        rest = {name: one for name, one in columns.sources.items() if name not in ("verdict", "gold")}
        columns = replace(columns, sources=rest)
    return verdict_log(found, _called(given), pairs, columns, notes=notes)


def files_of(sources: Sources) -> tuple[Path, ...]:
    """The files that ``sources`` names, folders opened; empty for a frame and standard input. Raises InvalidInput."""
    if isinstance(sources, pd.DataFrame):
        return ()
    several = [sources] if isinstance(sources, str | Path) else list(sources)
    if not several:
        raise InvalidInput("verdicts: no file given")
    if [str(one) for one in several] == [STDIN]:
        return ()
    if any(str(one) == STDIN for one in several):
        raise InvalidInput("verdicts: standard input stands alone; give files, or - alone")
    return tuple(file for one in several for file in _opened(Path(one)))


def told(path: Path) -> str:
    """The format of a file, by its content; judgeloop where it is none of the others."""
    if zipfile.is_zipfile(path):
        return "inspect"
    ending = path.suffix.lower()
    if ending == ".json":
        head = _head(path).lstrip()
        if head.startswith("{"):
            return "inspect"
        first = next(records(path), None)
        return _by_keys(first[1]) if first else "judgeloop"
    if ending in (".jsonl", ".ndjson"):
        line = next((line for line in _head(path).splitlines() if line.strip()), "")
        return _by_keys(_object(line) or _first_object(path))
    if ending == ".csv":
        return _by_keys(dict.fromkeys(next(csv.reader(_head(path).splitlines()[:1]), [])))
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
    decoder = json.JSONDecoder(object_pairs_hook=lambda pairs: _object_of(pairs, f"{path}:{line}"))
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


def _given(sources: Sources, asked: str) -> _Given:
    files = files_of(sources)
    if not files:
        if asked not in ("auto", "judgeloop"):
            raise InvalidInput(f"--format {asked}: is read from files; give a path")
        source = sources if isinstance(sources, pd.DataFrame) else STDIN
        return _Given("judgeloop", (), source)
    if asked != "auto":
        return _Given(asked, files, files[0])
    kinds = {told(path): path for path in reversed(files)}
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise InvalidInput(f"{second}: a log of {other}, but {first} is one of {one}; analyse one format at a time, or say which with --format")  # fmt: skip
    return _Given(next(iter(kinds)), files, files[0])


def _called(given: _Given) -> str:
    if len(given.files) > 1:
        return f"{given.files[0]} and {len(given.files) - 1} more"
    return str(given.files[0]) if given.files else named(given.source, "verdicts")


def _opened(path: Path) -> list[Path]:
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
        if found := sorted(path.rglob(pattern)):
            return found
    raise InvalidInput(f"{path}: a folder without a log; it should hold {', '.join(_IN_A_FOLDER)}, or be a run folder")


def _own_rows(path: Path, joined: bool) -> Iterator[Row]:
    """Rows of judgeloop's own log. A run folder's judgments joined to pairs are those of fixed pairs, and gold is the
    pairs': the run's own stands beside texts that the pairs file does not hold."""
    of_a_run = path.parent.name == "judgments" and path.parent.parent.name == "tables"
    for where, row in raw_rows(path, "verdicts"):
        if of_a_run:
            if joined and row.get("panel") not in ("anchor", "pairs"):
                continue
            row = {name: value for name, value in row.items() if not (joined and name in ("gold", "gold_2"))}
        yield where, row


def _scorer(columns: Columns, name: str) -> str:
    """The scorer or metric that --columns names for a column of a log that was graded one answer at a time."""
    one = columns.sources.get(name)
    if one is None:
        return ""
    if one.values or one.value is not None:
        raise InvalidInput(
            f"{columns.origin}: {name}: names a scorer of the log here; values and value say nothing of it"
        )
    return one.column


def _by_keys(record: Mapping[str, Any]) -> str:
    return next((name for name, keys in _KEYS.items() if keys <= set(record)), "judgeloop")


def _head(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_PEEK).decode("utf-8-sig", "ignore")
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from None


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _first_object(path: Path) -> dict[str, Any]:
    """The first line as an object where it is longer than the peek."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return _object(next((line for line in file if line.strip()), ""))
    except OSError:
        return {}


def _object_of(pairs: list[tuple[str, Any]], where: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"{where}: key {twice} stands twice; keep one")
    return found


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
