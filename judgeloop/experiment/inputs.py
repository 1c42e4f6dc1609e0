"""Input files: YAML, items, real data and pairs; rows from JSON Lines, CSV or Parquet by ending. Every fault is an
ExperimentError that names file, row and column."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from judgeloop.errors import ExperimentError
from judgeloop.records import Item, Message

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}([-_][A-Za-z0-9]+)*")
_ROLES = ("system", "user", "assistant")
_MATCHES = ("exact", "contains", "numeric", "judge")
_MOST_YAML_VALUES = 1_000_000
_PARQUET_ROWS = 256
"""Rows of a Parquet file that are Python objects at a time: it bounds the memory."""

Row = tuple[str, dict[str, Any]]
"""(where it stands, as file:line; value by column)."""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, tagged."""
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


class _YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but 1e-3 is a number, as in YAML 1.2: PyYAML alone reads it as text."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path, what: str, *, empty: bool = False) -> dict[str, Any]:
    """A YAML file's mapping; with ``empty``, an empty file is a mapping without keys. ``what``: the file's role, for errors.

    Raises ExperimentError with file:line, also for a key that occurs twice.
    """
    try:
        loader = _YamlLoader(_file_text(path, what))
        node = loader.get_single_node()
        if node is not None:
            _check_node(node, path, {}, set())
        raw = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        where = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise ExperimentError(f"{where}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        raise ExperimentError(
            f"{path}: not valid YAML: character #x{int(error.character):04x} may not stand in it"
        ) from None
    except ValueError as error:  # a date such as 2026-13-45, a whole number of thousands of digits
        raise ExperimentError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise ExperimentError(f"{path}: not valid YAML: nested too deeply") from None
    if raw is None and empty:
        return {}
    if not isinstance(raw, dict):
        raise ExperimentError(f"{path}: {what} is a mapping of keys, this is {yaml_name(raw)}")
    return raw


def _check_node(node: yaml.Node, path: Path, sizes: dict[int, int], open_nodes: set[int]) -> int:
    """The number of values that a node holds with its aliases written out; ``sizes``: those of the nodes so far, by id.
    Raises ExperimentError for keys that occur twice, aliases within their own anchor and aliases that unfold to too much."""
    if id(node) in sizes:
        return sizes[id(node)]
    line = node.start_mark.line + 1
    if id(node) in open_nodes:
        raise ExperimentError(f"{path}:{line}: not valid YAML: an alias stands within its own anchor")
    open_nodes.add(id(node))
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            children += [key, value]
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                name, key_line = (key.tag, key.value), key.start_mark.line + 1
                if name in lines:
                    raise ExperimentError(
                        f"{path}:{key_line}: key {key.value!r} stands twice (first in line {lines[name]}); keep one"
                    )
                lines[name] = key_line
    elif isinstance(node, yaml.SequenceNode):
        children = list(node.value)
    total = 1 + sum(_check_node(child, path, sizes, open_nodes) for child in children)
    if total > _MOST_YAML_VALUES:
        raise ExperimentError(
            f"{path}:{line}: the aliases here unfold to more than {_MOST_YAML_VALUES:,} values; write out what is meant"
        )
    open_nodes.discard(id(node))
    sizes[id(node)] = total
    return total


def yaml_name(raw: object) -> str:
    """What a value read from YAML is, in a user's words."""
    names = {type(None): "empty", list: "a list", dict: "a mapping", str: "text", bool: "true/false"}
    return names.get(type(raw), "a number" if isinstance(raw, int | float) else type(raw).__name__)


def _file_text(path: Path, what: str) -> str:
    """A file's text without a byte order mark. Raises ExperimentError with the line of the first byte that is not UTF-8."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ExperimentError(f"{path}: no such file; give the path of {what}") from None
    except OSError as error:
        raise ExperimentError(f"{path}: cannot be read ({error.strerror or error})") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ExperimentError(f"{path}: UTF-16 text; save it as UTF-8, as by iconv -f UTF-16 -t UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind the mark.
        line = error.object[: error.start].count(b"\n") + 1
        raise ExperimentError(f"{path}:{line}: not UTF-8 text; save it as UTF-8") from None


MAX_UNPACKED_BYTES = 4 * 2**30
"""Bytes of a packed file (Parquet, an archive), unpacked, that are read at most."""


def rows(path: Path, what: str) -> Iterator[Row]:
    """Every row of a file. ``what``: its role (items, real data, pairs), for errors. Raises ExperimentError."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise ExperimentError(
            f"{path}: no such {what} file; give a .jsonl, .csv or .parquet file (paths in a YAML file are relative to it)"
        )
    json_rows = functools.partial(_json_rows, strict=what == "pairs")
    readers: dict[str, Callable[[Path], Iterator[Row]]] = {
        ".parquet": _parquet_rows,
        ".csv": _csv_rows,
        ".jsonl": json_rows,
        ".ndjson": json_rows,
    }
    if ending == ".json":
        raise ExperimentError(
            f"{path}: {what} are read from .jsonl (one JSON object a line), .csv or .parquet files; an array becomes one by jq -c '.[]', and a file of lines by its name"
        )
    if ending not in readers:
        raise ExperimentError(
            f"{path}: {what} are read from .jsonl, .csv or .parquet files, not {ending or 'no ending'}"
        )
    return readers[ending](path)


def parquet_names(path: Path) -> list[str]:
    """The columns of a Parquet file; none where it cannot be read, which its rows then say."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return list(pq.read_schema(path).names)
    except (OSError, pa.ArrowException):
        return []


def unpacked_too_large(path: Path, gigabytes: str) -> str:
    """What is said of a file that unpacks to more than ``MAX_UNPACKED_BYTES``."""
    return f"{path}: holds {gigabytes} GB unpacked, and {MAX_UNPACKED_BYTES / 2**30:g} GB are read at most; give it in several files"


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        parts = file.metadata
        size = sum(parts.row_group(number).total_byte_size for number in range(parts.num_row_groups))
        if size > MAX_UNPACKED_BYTES:
            raise ExperimentError(unpacked_too_large(path, f"{size / 2**30:.3g}"))
        _no_column_twice(parts.schema.to_arrow_schema().names, str(path))
        number = size = 0
        for batch in file.iter_batches(_PARQUET_ROWS):
            # A value that stands once in the file may be many rows'.
            size += batch.nbytes
            if size > MAX_UNPACKED_BYTES:
                raise ExperimentError(unpacked_too_large(path, f"over {MAX_UNPACKED_BYTES / 2**30:.3g}"))
            for row in batch.to_pylist():
                number += 1
                yield f"{path}: row {number}", row
    except UnicodeDecodeError:
        raise ExperimentError(f"{path}: holds text that is not UTF-8; write it anew as UTF-8") from None
    except (OSError, pa.ArrowException) as error:
        raise ExperimentError(f"{path}: cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _csv_rows(path: Path) -> Iterator[Row]:
    text = _file_text(path, "a CSV file")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ExperimentError(f"{path}:{line}: holds NUL bytes, so it is no CSV text; save it as UTF-8")
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = list(reader.fieldnames or ())
        if not names and text.strip():
            raise ExperimentError(f"{path}:1: this line is empty; the first line names the columns")
        _no_column_twice(names, f"{path}:1")
        for separator, plural in ((";", "semicolons"), ("\t", "tabs")):
            if len(names) == 1 and separator in names[0]:
                raise ExperimentError(f"{path}:1: the cells stand between {plural}; save it with commas between them")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            empty = [name for name in names if row[name] is None]
            if empty:
                raise ExperimentError(
                    f"{where}: this row has not as many cells as the header: none for {', '.join(empty[:8])}"
                )
            if None in row:
                extra = row[None]  # DictReader's place for cells without a name
                raise ExperimentError(
                    f"{where}: this row has not as many cells as the header: {len(extra)} more, behind {names[-1]}; put cells that hold a comma in quotes"
                )
            yield where, dict(row)
    except csv.Error as error:
        # The line where the faulty row begins: an open quote is noticed only at the end of the file.
        raise ExperimentError(f"{path}:{reader.line_num + 1}: not valid CSV ({error})") from None


def csv_header(path: Path) -> list[str]:
    """The names in a CSV file's first line."""
    return next(csv.reader(io.StringIO(_file_text(path, "a CSV file"), newline="")), [])


def _json_rows(path: Path, *, strict: bool = False) -> Iterator[Row]:
    """``strict``: NaN and Infinity are refused in every column, not in gold alone. JSON has neither, and would be read as a
    null where a number was meant."""
    # Not splitlines(): a raw U+2028 within a text ends no line of JSON.
    for number, line in enumerate(io.StringIO(_file_text(path, "a JSON Lines file"), newline=None), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"

        def checked(members: list[tuple[str, Any]], where: str = where) -> dict[str, Any]:
            _no_column_twice([name for name, _ in members], where)
            for name, value in members:
                if isinstance(value, float) and not math.isfinite(value) and (strict or name in ("gold", "gold_2")):
                    raise ExperimentError(
                        f"{where}: {name}: must be a finite number, not {value}; write null where there is none"
                    )
            return dict(members)

        try:
            row = json.loads(line, object_pairs_hook=checked)
        except ValueError as error:
            raise ExperimentError(f"{where}: not valid JSON ({error}); one JSON object a line") from None
        except RecursionError:
            raise ExperimentError(f"{where}: not valid JSON (nested too deeply); one JSON object a line") from None
        if not isinstance(row, dict):
            hint = "; an array becomes lines by jq -c '.[]'" if isinstance(row, list) else ""
            raise ExperimentError(f"{where}: one JSON object a line, this is {type(row).__name__}{hint}")
        yield where, row


def _no_column_twice(names: list[str], where: str) -> None:
    if len(set(names)) < len(names):
        name = next(name for name in names if names.count(name) > 1)
        raise ExperimentError(f"{where}: column {name} stands twice; keep one")


def load_items(path: Path) -> tuple[Item, ...]:
    """The items of an experiment, in file order. Raises ExperimentError for an empty file, an id that occurs twice, a column
    that is missing or of the wrong type."""
    items: dict[str, Item] = {}
    for where, row in rows(path, "items"):
        item_id = _text(row, "item_id", where)
        if item_id in items:
            raise ExperimentError(f"{where}: item_id {item_id!r} stands twice; ids must be unique")
        match = _optional(row, "match", where) or "exact"
        if match not in _MATCHES:
            raise ExperimentError(f"{where}: match: must be one of {', '.join(_MATCHES)}, not {match!r}")
        reference = _optional(row, "reference", where)
        if match == "numeric" and reference is not None and not re.search(r"\d", reference):
            raise ExperimentError(
                f"{where}: reference: match numeric needs a reference with a number, not {reference!r:.60}"
            )
        items[item_id] = Item(
            item_id=item_id,
            prompt=_prompt(row, where),
            category=_optional(row, "category", where) or "",
            reference=reference,
            match=match,  # type: ignore[arg-type]
            language=_language(row, where),
        )
    if not items:
        raise ExperimentError(f"{path}: no items; give one item a line: item_id, prompt")
    return tuple(items.values())


def load_real(path: Path, item_ids: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """item_id → its real texts in file order, from a file of `item_id, text`. Raises ExperimentError, also where an item has
    none."""
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
    """(pair_id, item, text_a, text_b) of every row of a pairs file; pairs of one item_id have one prompt. Raises
    ExperimentError."""
    pairs: dict[str, tuple[str, Item, str, str]] = {}
    items: dict[str, Item] = {}
    for where, row in rows(path, "pairs"):
        item_id = _text(row, "item_id", where)
        pair_id = _text(row, "pair_id", where) if row.get("pair_id") not in (None, "") else item_id
        if pair_id in pairs:
            raise ExperimentError(f"{where}: pair_id {pair_id!r} stands twice; ids must be unique (default: item_id)")
        prompt = _prompt(row, where)
        category = _optional(row, "category", where) or ""
        item = items.setdefault(item_id, Item(item_id, prompt, category, language=_language(row, where)))
        if item.prompt != prompt:
            raise ExperimentError(
                f"{where}: prompt: item_id {item_id!r} has another prompt in an earlier row; one prompt an item_id"
            )
        texts = (_text(row, "text_a", where, empty=True), _text(row, "text_b", where, empty=True))
        pairs[pair_id] = (pair_id, item, *texts)
    if not pairs:
        raise ExperimentError(f"{path}: no pairs; give one a line: item_id, prompt, text_a, text_b")
    return tuple(pairs.values())


def _text(row: dict[str, Any], column: str, where: str, *, empty: bool = False) -> str:
    """A required text; ``empty`` texts are refused unless allowed."""
    value = row.get(column)
    if isinstance(value, int) and not isinstance(value, bool) and column.endswith("_id"):
        value = str(value)
    if value is None:
        raise ExperimentError(
            f"{where}: column {column} is missing (this row has {', '.join(list(row)[:8]) or 'none'})"
        )
    if not isinstance(value, str) or (not value and not empty):
        raise ExperimentError(
            f"{where}: {column}: must be text{'' if empty else ' that is not empty'}, not {value!r:.60}"
        )
    return _unicode(value, column, where)


def _optional(row: dict[str, Any], column: str, where: str) -> str | None:
    """A text or number as text; None where there is none: an empty CSV cell, a null."""
    value = row.get(column)
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ExperimentError(f"{where}: {column}: must be text or a number, not {value!r:.60}")
    # A column of whole numbers with gaps comes as floats from Parquet.
    is_whole = isinstance(value, float) and value.is_integer()
    return _unicode(str(int(value) if is_whole else value), column, where)


def _language(row: dict[str, Any], where: str) -> str:
    """A language tag (BCP 47: en, de-AT); en where there is none."""
    tag = _optional(row, "language", where) or "en"
    if not _LANGUAGE.fullmatch(tag):
        raise ExperimentError(f"{where}: language: must be a language tag such as en or de-AT, not {tag!r:.60}")
    return tag


def _unicode(text: str, column: str, where: str) -> str:
    """The text, which must be valid Unicode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ExperimentError(f"{where}: {column}: holds half of a surrogate pair, which is no Unicode text") from None
    return text


def _prompt(row: dict[str, Any], where: str) -> str | tuple[Message, ...]:
    """The row's prompt: a text, or a chat history that ends with a user's turn."""
    value = row.get("prompt")
    if isinstance(value, str) and value.startswith("[{"):
        value = _history(value)
    if value is None or isinstance(value, str):
        return _text(row, "prompt", where)
    if not isinstance(value, list) or not value:
        raise ExperimentError(f"{where}: prompt: must be text or a list of chat messages")
    messages = []
    for turn in value:
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            raise ExperimentError(
                f"{where}: prompt: a chat message needs role ({', '.join(_ROLES)}) and content (text)"
            )
        messages.append(Message(turn["role"], _unicode(turn["content"], "prompt", where)))
    if messages[-1].role != "user":
        raise ExperimentError(f"{where}: prompt: a chat history ends with a user's message")
    return tuple(messages)


def _history(text: str) -> Any:
    """The chat history that a CSV cell holds as JSON, or the text as it is."""
    try:
        turns = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return turns if all(isinstance(turn, dict) and {"role", "content"} <= set(turn) for turn in turns) else text
