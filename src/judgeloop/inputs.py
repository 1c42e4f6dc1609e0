"""Input files: items and real data, from JSON Lines, CSV or Parquet by ending. Every fault names file, row and column."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from judgeloop.errors import ExperimentError
from judgeloop.records import Item, Message

_ROLES = ("system", "user", "assistant")
_MATCHES = ("exact", "contains", "numeric", "judge")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, tagged."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def rows(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of every row, ``where`` as file:line. Raises ExperimentError."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise ExperimentError(
            f"{path}: no such {what} file; give a .jsonl, .csv or .parquet file, relative to the experiment"
        )
    try:
        if ending == ".parquet":
            import pyarrow.parquet as pq

            for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
                yield f"{path}: row {number}", {key: value for key, value in row.items() if value is not None}
        elif ending == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                csv.field_size_limit(1 << 30)
                reader = csv.DictReader(file, strict=True)
                for row in reader:
                    if None in row or any(value is None for value in row.values()):
                        raise ExperimentError(f"{path}:{reader.line_num}: this row has not as many cells as the header")
                    yield f"{path}:{reader.line_num}", {key: value for key, value in row.items() if value != ""}
        elif ending in (".jsonl", ".ndjson"):
            with path.open(encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield f"{path}:{number}", _json_row(line, f"{path}:{number}")
        else:
            raise ExperimentError(
                f"{path}: {what} are read from .jsonl, .csv or .parquet files, not {ending or 'no ending'}"
            )
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    except csv.Error as error:
        raise ExperimentError(f"{path}: not valid CSV ({error})") from None
    except OSError as error:  # pyarrow's errors too
        raise ExperimentError(f"{path}: cannot be read ({error})") from None


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ExperimentError(f"{where}: not valid JSON ({error}); one JSON object a line") from None
    if not isinstance(row, dict):
        raise ExperimentError(f"{where}: one JSON object a line, this is {type(row).__name__}")
    return {key: value for key, value in row.items() if value is not None}


def load_items(path: Path) -> tuple[Item, ...]:
    """The items of an experiment. Raises ExperimentError for empty files, duplicate ids, missing or ill-typed columns."""
    items: dict[str, Item] = {}
    for where, row in rows(path, "items"):
        item_id = _text(row, "item_id", where)
        if item_id in items:
            raise ExperimentError(f"{where}: item_id {item_id!r} stands twice; ids must be unique")
        match = row.get("match", "exact")
        if match not in _MATCHES:
            raise ExperimentError(f"{where}: match: must be one of {', '.join(_MATCHES)}, not {match!r}")
        reference = row.get("reference")
        items[item_id] = Item(
            item_id=item_id,
            prompt=_prompt(row.get("prompt"), where),
            category=str(row.get("category", "")),
            reference=None if reference is None else str(reference),
            match=match,
        )
    if not items:
        raise ExperimentError(f"{path}: no items; give one item a line: item_id, prompt")
    return tuple(items.values())


def load_real(path: Path, item_ids: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Real texts by item (`item_id, text`), in file order."""
    real: dict[str, list[str]] = {}
    for where, row in rows(path, "real data"):
        item_id = _text(row, "item_id", where)
        if item_id not in item_ids:
            raise ExperimentError(f"{where}: item_id {item_id!r} is not among the items")
        real.setdefault(item_id, []).append(_text(row, "text", where, empty=True))
    missing = sorted(item_ids - set(real))
    if missing:
        raise ExperimentError(f"{path}: no real text for item {missing[0]!r} ({len(missing)} items without one)")
    return {item_id: tuple(texts) for item_id, texts in real.items()}


def load_anchor_pairs(path: Path) -> tuple[tuple[str, Item, str, str], ...]:
    """(pair_id, item, text_a, text_b) of a pairs file."""
    pairs: dict[str, tuple[str, Item, str, str]] = {}
    for where, row in rows(path, "pairs"):
        item_id = _text(row, "item_id", where)
        pair_id = str(row.get("pair_id", item_id))
        if pair_id in pairs:
            raise ExperimentError(f"{where}: pair_id {pair_id!r} stands twice; ids must be unique (default: item_id)")
        item = Item(item_id, _prompt(row.get("prompt"), where), str(row.get("category", "")))
        pairs[pair_id] = (
            pair_id,
            item,
            _text(row, "text_a", where, empty=True),
            _text(row, "text_b", where, empty=True),
        )
    if not pairs:
        raise ExperimentError(f"{path}: no pairs; give one a line: item_id, prompt, text_a, text_b")
    return tuple(pairs.values())


def _text(row: dict[str, Any], column: str, where: str, *, empty: bool = False) -> str:
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool) and column.endswith("_id"):
        value = str(value)
    if value is None and empty and column in row:
        return ""
    if value is None:
        raise ExperimentError(f"{where}: column {column} is missing")
    if not isinstance(value, str) or (not value and not empty):
        raise ExperimentError(
            f"{where}: {column}: must be text{'' if empty else ' that is not empty'}, not {value!r:.60}"
        )
    return value


def _prompt(value: Any, where: str) -> str | tuple[Message, ...]:
    if isinstance(value, str) and value.startswith("[{"):  # a chat history in a CSV cell
        try:
            turns: Any = json.loads(value)
        except ValueError:
            return value
        return _prompt(turns, where)
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list) and value:
        messages = []
        for turn in value:
            if not isinstance(turn, dict) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
                raise ExperimentError(
                    f"{where}: prompt: a chat message needs role ({', '.join(_ROLES)}) and content (text)"
                )
            messages.append(Message(turn["role"], turn["content"]))
        if messages[-1].role != "user":
            raise ExperimentError(f"{where}: prompt: a chat history ends with a user's message")
        return tuple(messages)
    raise ExperimentError(
        f"{where}: prompt: {'is missing' if value is None else 'must be text or a list of chat messages'}"
    )
