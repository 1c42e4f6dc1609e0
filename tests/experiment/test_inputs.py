"""Input files: the same rows from every format, and every fault with file, row and column."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judgeloop.errors import ExperimentError
from judgeloop.experiment import inputs
from judgeloop.experiment.inputs import load_anchor_pairs, load_items, load_real
from judgeloop.records import Item, Message


def not_utf_8() -> bytes:
    """A Parquet file whose column of text holds a byte that is none."""
    texts = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xe4"))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"item_id": ["a"], "prompt": texts}), sink)
    return bytes(sink.getvalue())


CHAT = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": 'Hallo, "Welt"\u2028?'}]
ROWS: list[dict[str, Any]] = [
    {
        "item_id": "ä 1",
        "prompt": "Two\nlines, and a comma",
        "category": "facts",
        "reference": "100",
        "match": "contains",
    },
    {"item_id": "2", "prompt": CHAT, "category": None, "reference": None, "match": None},
    {"item_id": "3", "prompt": "[{not json", "category": "x", "reference": "2.5", "match": "numeric"},
    {"item_id": "4", "prompt": '[{"a": 1}]', "category": "x", "reference": None, "match": None, "language": "de-AT"},
]
ROWS = [{"language": None, **row} for row in ROWS]
ITEMS = (
    Item("ä 1", "Two\nlines, and a comma", "facts", "100", "contains"),
    Item("2", (Message("system", "Be kind."), Message("user", 'Hallo, "Welt"\u2028?')), "", None, "exact"),
    Item("3", "[{not json", "x", "2.5", "numeric"),
    Item("4", '[{"a": 1}]', "x", None, "exact", "de-AT"),
)


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """The rows in the format of the path's ending; a CSV or Parquet cell holds a chat history as JSON."""
    flat = [{k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows]
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(flat)
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(flat), path)
    else:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".ndjson", ".csv", ".parquet", ".CSV"])
def test_items_are_the_same_from_every_format(tmp_path: Path, ending: str) -> None:
    assert load_items(_write(tmp_path / f"items{ending}".lower(), ROWS)) == ITEMS


def test_parquet_may_hold_a_history_as_a_list_and_numbers_as_floats_with_gaps(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(
        [{"item_id": 1, "prompt": CHAT, "reference": 100.0}, {"item_id": 2, "prompt": CHAT, "reference": float("nan")}]
    )
    pq.write_table(table, tmp_path / "items.parquet")
    first, second = load_items(tmp_path / "items.parquet")
    assert first == Item("1", ITEMS[1].prompt, "", "100")
    assert second.reference is None


@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_no_matter(tmp_path: Path, ending: str) -> None:
    path = _write(tmp_path / f"items{ending}", [{"item_id": "1", "prompt": "p"}, {"item_id": "2", "prompt": "q"}])
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode() + b"\r\n\r\n")
    assert load_items(path) == (Item("1", "p"), Item("2", "q"))


def _fault(load: Callable[[Path], object], path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ExperimentError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("i.jsonl", "", ": no items; give one item a line: item_id, prompt"),
        ("i.csv", "", ": no items"),
        ("i.csv", "item_id,prompt\n", ": no items"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p"}\n\n{"item_id": "a", "prompt": "q"}\n', ":3: item_id 'a' stands twice; ids must be unique"),
        ("i.jsonl", '{"item_id": 1, "prompt": "p"}\n{"item_id": "1", "prompt": "q"}\n', ":2: item_id '1' stands twice"),
        ("i.jsonl", '{"item_id": "a", "promt": "p"}\n', ":1: column prompt is missing (this row has item_id, promt)"),
        ("i.csv", "prompt\np\n", ":2: column item_id is missing (this row has prompt)"),
        ("i.jsonl", '{"prompt": "p"}\n', ":1: column item_id is missing"),
        ("i.jsonl", '{"item_id": "", "prompt": "p"}\n', ":1: item_id: must be text that is not empty, not ''"),
        ("i.jsonl", '{"item_id": true, "prompt": "p"}\n', ":1: item_id: must be text that is not empty, not True"),
        ("i.jsonl", '{"item_id": 1.5, "prompt": "p"}\n', ":1: item_id: must be text"),
        ("i.jsonl", '{"item_id": "a", "prompt": 5}\n', ":1: prompt: must be text or a list of chat messages"),
        ("i.jsonl", '{"item_id": "a", "prompt": []}\n', ":1: prompt: must be text or a list of chat messages"),
        ("i.jsonl", '{"item_id": "a", "prompt": ""}\n', ":1: prompt: must be text that is not empty"),
        ("i.jsonl", '{"item_id": "a", "prompt": [{"role": "tool", "content": "x"}]}\n', ":1: prompt: a chat message needs role (system, user, assistant) and content (text)"),
        ("i.jsonl", '{"item_id": "a", "prompt": [{"role": "user", "content": ["x"]}]}\n', ":1: prompt: a chat message needs role"),
        ("i.jsonl", '{"item_id": "a", "prompt": [{"role": "assistant", "content": "x"}]}\n', ":1: prompt: a chat history ends with a user's message"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p", "match": "fuzzy"}\n', ":1: match: must be one of exact, contains, numeric, judge, not 'fuzzy'"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p", "reference": ["x"]}\n', ":1: reference: must be text or a number, not ['x']"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p", "language": "German"}\n', ":1: language: must be a language tag such as en or de-AT, not 'German'"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p", "category": false}\n', ":1: category: must be text or a number, not False"),
        ("i.jsonl", '{"item_id": "a", "prompt": "p", "match": "numeric", "reference": "ten"}\n', ":1: reference: match numeric needs a reference with a number, not 'ten'"),
        ("i.jsonl", '{"item_id": "a", "item_id": "b", "prompt": "p"}\n', ":1: column item_id stands twice; keep one"),
        ("i.csv", "item_id,prompt,prompt\na,b,c\n", ":1: column prompt stands twice; keep one"),
        ("i.jsonl", '{"item_id": "a"\n', ":1: not valid JSON ("),
        ("i.jsonl", "[1]\n", ":1: one JSON object a line, this is list"),
        ("i.jsonl", "[" * 100_000 + "\n", ":1: not valid JSON (nested too deeply)"),
        ("i.jsonl", '{"item_id": "a\0", "prompt": "p"}\n', ":1: not valid JSON (Invalid control character"),
        ("i.jsonl", '{"item_id": "\\ud800", "prompt": "p"}\n', ":1: item_id: holds half of a surrogate pair, which is no Unicode text"),
        ("i.jsonl", '{"item_id": "a", "prompt": [{"role": "user", "content": "\\udc00"}]}\n', ":1: prompt: holds half of a surrogate pair"),
        ("i.csv", "item_id,prompt\na,b\nc\n", ":3: this row has not as many cells as the header"),
        ("i.csv", "item_id,prompt\na,b,c\n", ":2: this row has not as many cells as the header"),
        ("i.csv", 'item_id,prompt\na,"b\nc\n', ":2: not valid CSV (unexpected end of data)"),
        ("i.csv", "item_id,prompt\na,b\nc,\0\n", ":3: holds NUL bytes, so it is no CSV text; save it as UTF-8"),
        ("i.csv", "item_id,prompt\na,b\n".encode("utf-16-le"), ":1: holds NUL bytes"),
        ("i.csv", b"item_id,prompt\na,b\nc,\xe4\n", ":3: not UTF-8 text; save it as UTF-8"),
        ("i.csv", b"\xef\xbb\xbfitem_id,prompt\na,\xe4\n", ":2: not UTF-8 text"),
        ("i.jsonl", b'{"item_id": "a", "prompt": "p"}\n\xff\n', ":2: not UTF-8 text"),
        ("i.parquet", b"PAR1 this is none", ": cannot be read as Parquet ("),
        ("i.parquet", b"", ": cannot be read as Parquet ("),
        ("i.parquet", not_utf_8(), ": holds text that is not UTF-8"),
        ("i.csv", "\nitem_id,prompt\na,b\n", ":1: this line is empty; the first line names the columns"),
        ("i.json", "[]", ": items are read from .jsonl (one JSON object a line), .csv or .parquet files; an array"),
        ("i", "", ": items are read from .jsonl, .csv or .parquet files, not no ending"),
    ],
)  # fmt: skip
def test_a_fault_of_the_items_names_file_row_and_column(
    tmp_path: Path, name: str, content: str | bytes, sentence: str
) -> None:
    message = _fault(load_items, tmp_path / name, content)
    assert message.startswith(sentence), message


def test_a_parquet_row_is_named_by_its_number_and_no_column_stands_twice(tmp_path: Path) -> None:
    path = tmp_path / "i.parquet"
    pq.write_table(pa.Table.from_pylist([{"item_id": "a", "prompt": "p"}, {"item_id": "b", "prompt": None}]), path)
    with pytest.raises(ExperimentError, match=r"i\.parquet: row 2: column prompt is missing"):
        load_items(path)
    pq.write_table(pa.table([pa.array(["a"])] * 3, names=["item_id", "prompt", "prompt"]), path)
    with pytest.raises(ExperimentError, match=r"i\.parquet: column prompt stands twice"):
        load_items(path)


def test_a_folder_and_a_file_that_is_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "i.jsonl").mkdir()
    for path in (tmp_path / "i.jsonl", tmp_path / "none.jsonl"):
        with pytest.raises(ExperimentError, match=r"no such items file; give a \.jsonl, \.csv or \.parquet file"):
            load_items(path)


# -- real data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_real_texts_keep_their_order_and_may_be_empty(tmp_path: Path, ending: str) -> None:
    rows = [{"item_id": "b", "text": "2"}, {"item_id": "a", "text": "1"}, {"item_id": "b", "text": ""}]
    real = load_real(_write(tmp_path / f"real{ending}", rows), frozenset({"a", "b"}))
    assert real == {"b": ("2", ""), "a": ("1",)}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"item_id": "z", "text": "t"}\n', ":1: item_id 'z' is not among the items"),
        ('{"item_id": "a"}\n', ":1: column text is missing"),
        ('{"item_id": "a", "text": 3}\n', ":1: text: must be text, not 3"),
        ('{"item_id": "a", "text": "t"}\n', ": no real text for item 'b' (2 items without one)"),
        ("", ": no real text for item 'a' (3 items without one)"),
    ],
)
def test_a_fault_of_the_real_data_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    message = _fault(lambda path: load_real(path, frozenset("abc")), tmp_path / "real.jsonl", content)
    assert message.startswith(sentence), message


# -- anchor pairs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_anchor_pairs_are_the_same_from_every_format(tmp_path: Path, ending: str) -> None:
    rows = [
        {"item_id": "a", "pair_id": None, "prompt": "p", "text_a": "1", "text_b": "", "category": "c", "gold": "a"},
        {"item_id": "a", "pair_id": "a-2", "prompt": "p", "text_a": "3", "text_b": "3", "category": None, "gold": None},
        {"item_id": "b", "pair_id": "7", "prompt": CHAT, "text_a": "5", "text_b": "6", "category": None, "gold": None},
    ]
    anchor_pairs = load_anchor_pairs(_write(tmp_path / f"pairs{ending}", rows))
    item = Item("a", "p", "c")
    assert anchor_pairs == (("a", item, "1", ""), ("a-2", item, "3", "3"), ("7", Item("b", ITEMS[1].prompt), "5", "6"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", ": no pairs; give one a line: item_id, prompt, text_a, text_b"),
        ('{"item_id": "a", "prompt": "p", "text_a": "x"}\n', ":1: column text_b is missing"),
        ('{"item_id": "a", "prompt": "p", "text_a": "x", "text_b": 1}\n', ":1: text_b: must be text, not 1"),
        ('{"item_id": "a", "prompt": "p", "text_a": "x", "text_b": "y"}\n' * 2, ":2: pair_id 'a' stands twice; ids must be unique (default: item_id)"),
        ('{"item_id": "a", "prompt": "p", "text_a": "x", "text_b": "y"}\n{"item_id": "a", "pair_id": "2", "prompt": "q", "text_a": "x", "text_b": "y"}\n', ":2: prompt: item_id 'a' has another prompt in an earlier row"),
        ('{"item_id": "a", "pair_id": [1], "prompt": "p", "text_a": "x", "text_b": "y"}\n', ":1: pair_id: must be text"),
    ],
)  # fmt: skip
def test_a_fault_of_the_pairs_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    message = _fault(load_anchor_pairs, tmp_path / "pairs.jsonl", content)
    assert message.startswith(sentence), message


def test_a_file_s_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert inputs.file_hash(tmp_path / "x") == (
        "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_parquet_file_that_unpacks_to_too_much_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "MAX_UNPACKED_BYTES", 2**20)
    path = tmp_path / "items.parquet"
    once = pa.table({"item_id": ["a"], "prompt": ["b" * 2**21]})
    # One text of half a megabyte, of every row.
    often = pa.table({"item_id": [f"i{n}" for n in range(2000)], "prompt": ["b" * 2**19] * 2000})
    for table, size in ((once, "0.00195"), (often, "over 0.000977")):
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 2**16
        with pytest.raises(ExperimentError, match=f"holds {size} GB unpacked, and 0.000976562 GB are read at most"):
            load_items(path)
