"""Verdict logs and pairs files: the same log from every format, and every fault with its file, row and column."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from judgeloop.errors import InvalidInput
from judgeloop.interchange import verdicts
from judgeloop.interchange.rows import Columns, load_columns, raw_rows
from judgeloop.interchange.verdicts import read_verdicts, verdict_log

GOOD: list[dict[str, Any]] = [
    {"item_id": "i1", "judge": "j", "order": "ab", "verdict": "first", "p_first": 0.9, "gold": "a", "colour": "red"},
    {"item_id": "i1", "judge": "j", "order": "ba", "verdict": "tie", "p_first": None, "gold": "a", "colour": "blue"},
    {"item_id": "i2", "judge": "j", "order": "ab", "verdict": "unscored", "p_first": None, "gold": "", "colour": "red"},
]
PAIRS: list[dict[str, Any]] = [
    {"item_id": "i1", "prompt": "Why?", "text_a": "Because.", "text_b": "It is so.", "source": "s1"},
    {"item_id": "i2", "prompt": "Who?", "text_a": "", "text_b": "Me.", "source": "s2"},
    {"item_id": "i3", "prompt": "When?", "text_a": "Now.", "text_b": "Now.", "source": "s3"},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".csv":
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_a_log_is_the_same_from_every_format(tmp_path: Path, ending: str) -> None:
    log = read_verdicts(write(tmp_path / f"v{ending}", GOOD), write(tmp_path / f"p{ending}", PAIRS))
    expected = read_verdicts(pd.DataFrame(GOOD), pd.DataFrame(PAIRS))
    pd.testing.assert_frame_equal(log.judgments, expected.judgments)
    pd.testing.assert_frame_equal(log.texts, expected.texts)
    assert log.judgments["candidate_first"].tolist() == ["t1", "t2", "t1"]
    assert log.judgments["colour"].tolist() == ["red", "blue", "red"]
    assert log.judgments["source"].tolist() == ["s1", "s1", "s2"]
    assert log.judgments["gold"].tolist() == ["a", "a", ""]
    assert log.texts["text"].tolist() == ["Because.", "It is so.", "", "Me."]
    assert log.items["prompt"].tolist() == ["Why?", "Who?"]
    assert (log.unused_pairs, log.length_unit) == (1, "")


LOG = {
    "item_id": ["1", "1", "2", "2"],
    "judge": "j",
    "order": ["ab", "ba"] * 2,
    "verdict": ["first", "tie", "second", "unscored"],
}
WINNERS = {"item_id": [7, 8, 8], "judge": "j", "winner": ["A", None, "B"], "score": [1, 2, 3], "word": ["x", None, "y"]}
NAMED = {"verdict": {"column": "winner", "values": {"A": "a", "B": "b", "": "tie"}}, "pair_id": "score"}
RICH = {
    **LOG, "pair_id": ["p", "p", "", None], "repeat": [0.0, 0.0, 1.0, 2.0], "p_first": [0.25, None, 1.0, None], "gold": [2, 2, None, -1.5],
    "len_a": [3, 3, 4.5, 4.5], "len_b": ["7", "7", "8", "8"], "length_unit": "tokens", "generation": [1.0, 1.0, None, 0.0],
    "candidate_a": ["x", "x", "", ""], "candidate_b": ["x", "x", None, None], "category": ["c", None, "d", "d"], "model_a": 12,
    "order_drawn": [True, None, "false", 1], "reason": ["", "", "", "said nothing"], "arm": None, "extra": [1.5, None, 2, 3], "note": "n",
}  # fmt: skip
KNOWN_IN_PART = {
    **LOG,
    "order": ["ab", "", "unknown", None],
    "verdict": ["a", "b", "first", "tie"],
    "pair_id": list("wxyz"),
}


@pytest.mark.parametrize(
    ("log", "columns", "by_columns"),
    [(LOG, {}, True), (RICH, {}, False), ({**RICH, "order_drawn": True, "gold": "a"}, {}, True), (WINNERS, NAMED, True),
     (KNOWN_IN_PART, {}, True), ({**LOG, "extra": [["a list"]] * 4}, {}, False)],
)  # fmt: skip
def test_a_log_read_by_columns_is_the_log_read_row_by_row(
    log: dict[str, Any], columns: dict[str, Any], by_columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame(log)
    by_rows = verdict_log(raw_rows(frame, "verdicts"), "verdicts", None, load_columns(columns), source=frame)
    rows_read: list[str] = []
    monkeypatch.setattr(verdicts, "verdict_log", lambda *_, **__: rows_read.append("") or by_rows)
    read = read_verdicts(frame, columns=load_columns(columns))
    assert (not rows_read) == by_columns
    for name in ("judgments", "items", "texts"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(by_rows, name))
    assert (read.notes, read.length_unit, read.unused_pairs) == (by_rows.notes, by_rows.length_unit, 0)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_standard_input_is_told_by_its_content(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write(tmp_path / f"v{ending}", GOOD).read_bytes()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))
    pd.testing.assert_frame_equal(read_verdicts("-").judgments, read_verdicts(pd.DataFrame(GOOD)).judgments)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(b"item_id,judge\ni1,j\n")))
    with pytest.raises(InvalidInput, match=r"^standard input:2: column verdict is missing"):
        read_verdicts("-")


def test_the_texts_decide_what_is_identical() -> None:
    rows = [{**GOOD[0], "item_id": "i3", "identical": False}]
    assert read_verdicts(pd.DataFrame(rows), pd.DataFrame(PAIRS)).judgments["identical"].tolist() == [True]


def _verdict(place: int = 1, **changes: Any) -> list[dict[str, Any]]:
    """Three good rows with one changed; ``...`` takes a column away."""
    rows = [dict(row) for row in GOOD]
    for name, value in changes.items():
        if value is ...:
            rows[place].pop(name)
        else:
            rows[place][name] = value
    return rows


BAD_VERDICTS: list[tuple[list[dict[str, Any]], int, str, str]] = [
    (_verdict(item_id=...), 2, "item_id", "is missing"),
    (_verdict(judge=...), 2, "judge", "is missing"),
    (_verdict(0, order=...), 1, "order", "is missing"),
    (_verdict(0, order=" "), 1, "order", "is empty; write unknown where it is not known"),
    (_verdict(0, order="unknown", verdict="a"), 1, "p_first", "is the first slot's, but the order is not known"),
    (
        _verdict(verdict=..., winner="A"),
        2,
        "verdict is missing, and column 'winner' may name an answer or a slot",
        "by: slot",
    ),
    (_verdict(verdict=...), 2, "verdict", "is missing"),
    (_verdict(item_id=None), 2, "item_id", "is empty"),
    (_verdict(judge=" "), 2, "judge", "is empty"),
    (_verdict(judge=["j"]), 2, "judge", "must be text"),
    (_verdict(order="AB"), 2, "order", "must be ab"),
    (_verdict(verdict="A"), 2, "verdict", "must be first, second, tie or unscored (by slot), or a, b (by text"),
    (_verdict(verdict=None), 2, "verdict", "is empty; first, second"),
    (_verdict(verdict=1), 2, "verdict", "--columns translates"),
    (_verdict(p_first=1.2), 2, "p_first", "from 0 to 1"),
    (_verdict(p_first="high"), 2, "p_first", "must be a finite number"),
    (_verdict(repeat=-1), 2, "repeat", "whole number"),
    (_verdict(repeat=0.5), 2, "repeat", "whole number"),
    (_verdict(generation="one"), 2, "generation", "must be a finite number"),
    (_verdict(replicate=True), 2, "replicate", "must be a finite number"),
    (_verdict(panel="main"), 2, "panel", "pairs, anchor"),
    (_verdict(panel="probe"), 2, "probe", "is empty"),
    (_verdict(gold="first"), 2, "gold", "a, b, tie"),
    (_verdict(gold_2=float("inf")), 2, "gold_2", "finite"),
    (_verdict(2, gold=1.5), 3, "gold", "words (a, b, tie) or numbers throughout"),
    (_verdict(gold="b"), 2, "gold", "differs from gold of the same pair"),
    (_verdict(len_a=-1, len_b=2), 2, "len_a", "of 0 or more"),
    (_verdict(len_a=10), 2, "len_b", "give both or neither"),
    (_verdict(text_a="x"), 2, "text_b", "give both or neither"),
    (_verdict(candidate_b="x"), 2, "candidate_a", "give both or neither"),
    (_verdict(text_a=3, text_b="y"), 2, "text_a", "must be text"),
    (_verdict(len_a=1, len_b=1, length_unit="words"), 2, "length_unit", "characters or tokens"),
    (_verdict(order="ab"), 2, "verdict", "has judged pair 'i1' in order ab before"),
    (_verdict(identical="perhaps"), 2, "identical", "true or false"),
    (_verdict(prompt=[{"role": "judge", "content": "?"}]), 2, "prompt", "chat messages"),
    (_verdict(reason="\ud800"), 2, "reason", "surrogate"),
]


@pytest.mark.parametrize(("rows", "line", "column", "what"), BAD_VERDICTS)
def test_a_fault_of_a_log_names_file_row_and_column(
    tmp_path: Path, rows: list[dict[str, Any]], line: int, column: str, what: str
) -> None:
    path = write(tmp_path / "v.jsonl", rows)
    with pytest.raises(InvalidInput) as caught:
        read_verdicts(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: "), message
    assert column in message.removeprefix(str(path))
    assert what in message
    assert "\n" not in message


def _pair(place: int = 1, **changes: Any) -> list[dict[str, Any]]:
    rows = [{**row, **(changes if n == place else {})} for n, row in enumerate(PAIRS)]
    return [{name: value for name, value in row.items() if value is not ...} for row in rows]


BAD_PAIRS: list[tuple[list[dict[str, Any]], int, str, str]] = [
    (_pair(prompt=...), 2, "prompt", "is missing"),
    (_pair(text_b=...), 2, "text_b", "is missing"),
    (_pair(text_a=None), 2, "text_a", "is empty"),
    (_pair(text_a=7), 2, "text_a", "must be text"),
    (_pair(item_id="i1"), 2, "pair_id", "stands twice"),
    (_pair(item_id="i1", pair_id="p2"), 2, "prompt", "another prompt"),
    (_pair(gold="c"), 2, "gold", "a, b, tie"),
    (_pair(model_a={"name": "m"}), 2, "model_a", "must be text"),
]


@pytest.mark.parametrize(("rows", "line", "column", "what"), BAD_PAIRS)
def test_a_fault_of_the_pairs_names_file_row_and_column(
    tmp_path: Path, rows: list[dict[str, Any]], line: int, column: str, what: str
) -> None:
    path = write(tmp_path / "p.jsonl", rows)
    with pytest.raises(InvalidInput) as caught:
        read_verdicts(pd.DataFrame(GOOD), path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert column in str(caught.value)
    assert what in str(caught.value)


def test_verdicts_and_pairs_must_not_contradict_each_other() -> None:
    pairs = pd.DataFrame(PAIRS)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"item_id": "i9"}, "row 2: pair_id: 'i9' is not among the pairs"),
        ({"pair_id": "i2"}, "row 2: item_id: 'i1', but pair 'i2' is of item 'i2'"),
        (
            {"text_a": "Other.", "text_b": "It is so."},
            "row 2: text_a: differs from text_a of the same pair at pairs: row 1",
        ),
    ]
    for changes, what in cases:
        with pytest.raises(InvalidInput, match=f"^verdicts: {what}"):
            read_verdicts(pd.DataFrame(_verdict(**changes)), pairs)


def test_texts_named_by_slot_are_refused_rather_than_swapped() -> None:
    # A log whose text_a is "the text shown first" would cancel every content effect.
    texts = {"ab": ("Short.", "A longer one."), "ba": ("A longer one.", "Short.")}
    rows = [{**row, "text_a": texts[row["order"]][0], "text_b": texts[row["order"]][1]} for row in GOOD[:2]]
    with pytest.raises(InvalidInput, match="a and b name the same texts in both orders"):
        read_verdicts(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("v.csv", "item_id,judge,judge\n1,j,j\n", "v.csv:1: column judge stands twice"),
        ("v.csv", "item_id,judge\n1\n", "v.csv:2: this row has not as many cells"),
        ("v.csv", "item_id,judge\n", "v.csv: no verdicts"),
        ("v.jsonl", "{}\n", "v.jsonl:1: column item_id is missing"),
        ("v.jsonl", "\n[1]\n", "v.jsonl:2: one JSON object a line"),
        ("v.jsonl", '{"item_id": 1,}\n', "v.jsonl:1: not valid JSON"),
        ("v.txt", "x", "v.txt: verdicts are read from"),
        ("v.parquet", "x", "v.parquet: cannot be read as Parquet"),
    ],
)
def test_a_file_that_is_no_log_is_named(tmp_path: Path, name: str, content: str, what: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidInput) as caught:
        read_verdicts(path)
    assert what in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.csv: no such file"):
        read_verdicts(tmp_path / "none.csv")
    with pytest.raises(InvalidInput, match="a folder"):
        read_verdicts(tmp_path)
    with pytest.raises(InvalidInput, match="standard input holds the verdicts"):
        read_verdicts("-", "-")


def test_columns_translate_names_words_and_what_a_log_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "columns.yaml"
    path.write_text(
        "verdict: {column: winner, by: slot, values: {A: first, B: second, '': unscored}}\njudge: {value: m}\nitem_id: q\n"
    )
    raw = pd.DataFrame({"q": [1, 1, 2], "order": ["ab", "ba", "ab"], "winner": ["A", "B", ""], "item_id": [7, 8, 9]})
    found = read_verdicts(raw, columns=load_columns(path)).judgments
    assert found["verdict"].tolist() == ["first", "second", "unscored"]
    assert found["item_id"].tolist() == ["1", "1", "2"]
    assert set(found["judge"]) == {"m"}
    with pytest.raises(InvalidInput, match="verdict: no column 'winner' in verdicts"):
        read_verdicts(pd.DataFrame(GOOD), columns=load_columns({"verdict": "winner"}))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"verdikt": "x"}, "verdikt: no column of verdicts, pairs or sets; did you mean verdict?"),
        ({"verdict": 3}, "verdict: give the log's column"),
        ({"verdict": {"colum": "x"}}, "verdict.colum: unknown key; did you mean column?"),
        ({"verdict": {"value": "first", "column": "x"}}, "verdict.value: must be"),
        ({"verdict": {"values": {True: "first"}}}, "put yes, no, on, off, null in quotes"),
        ({"verdict": {"values": ["first"]}}, "verdict.values: must be a mapping"),
        ({"verdict": {"column": ""}}, "verdict.column: must be a column's name"),
    ],
)
def test_faults_of_columns_name_the_key(given: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_columns(given)
    assert what in str(caught.value)
    assert load_columns(None) == Columns()
