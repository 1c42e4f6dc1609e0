"""Sheets for people: blinded, balanced, escaped; read back as gold, with every fault named."""

from __future__ import annotations

import csv
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import judgeloop
from command_line import command
from conftest import tables_alone
from format_samples import FORMATS
from judgeloop.commands.export import collect_labels, labels_needed
from judgeloop.errors import InvalidInput
from judgeloop.interchange import labels
from judgeloop.interchange.pairs import read_pairs
from judgeloop.stats.inference import rows_for_slope

HOSTILE = "</script><img src=x onerror=alert(1)>\u202etxet\u202c & ]]> <!-- {{data}}"
PAIRS = pd.DataFrame([
    {"item_id": f"i{n}", "pair_id": f"p{n}", "prompt": "Why?", "text_a": f"text a {n}", "text_b": f"text b {n}",
     "candidate_a": "secret-a", "candidate_b": "secret-b", "model_a": "model-secret", "model_b": "model-other", "category": "c"}
    for n in range(40)
])  # fmt: skip


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def filled(sheet: labels.LabelSheet, say: Any) -> bytes:
    """The sheet as its labellers send it back; ``say(row, labeller)`` is the label."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["row", "labeller", "label"])
    for row in sheet.rows:
        writer.writerow([row["row"], row["labeller"], say(row, row["labeller"])])
    return sink.getvalue().encode()


def written(tmp_path: Path, sheet: labels.LabelSheet, content: bytes) -> tuple[Path, Path]:
    sheet_path, key = tmp_path / "sheet.csv", tmp_path / "key.json"
    sheet_path.write_bytes(content)
    key.write_text(json.dumps(sheet.key))
    return sheet_path, key


def test_a_sheet_is_blinded_balanced_and_swapped() -> None:
    sheet = labels.sheet(PAIRS, 30)
    shown = {n: [row for row in sheet.rows if row["labeller"] == n] for n in (1, 2)}
    places = sheet.key["rows"]
    by_pair = {n: {places[row["row"]][0]: (row, places[row["row"]][2]) for row in shown[n]} for n in (1, 2)}
    assert by_pair[1].keys() == by_pair[2].keys()
    assert len(by_pair[1]) == 30
    for pair, (row, order) in by_pair[1].items():
        other, other_order = by_pair[2][pair]
        assert {order, other_order} == {"ab", "ba"}
        assert (row["first"], row["second"]) == (other["second"], other["first"])
        assert row["first"].startswith("text a" if order == "ab" else "text b")
    assert sum(order == "ab" for _, order in by_pair[1].values()) == 15
    # Neither the sequence nor the ids tell which pair, or which side, a row is.
    assert [places[row["row"]][0] for row in shown[1]] != [places[row["row"]][0] for row in shown[2]]
    for content in (labels.as_csv(sheet), labels.as_html(sheet)):
        assert b"secret" not in content
        assert b"p1" not in content.replace(b"<p", b"")
    assert labels.sheet(PAIRS, 30).rows == sheet.rows
    assert labels.sheet(PAIRS, 30, seed=1).id != sheet.id


def test_labels_come_back_as_gold_by_side_and_not_by_slot(tmp_path: Path) -> None:
    sheet = labels.sheet(PAIRS, 30)

    def say(row: dict[str, Any], labeller: int) -> str:
        number = int(row["first"].split()[-1])
        if labeller == 2 and number % 5 == 0:
            return ""
        if number % 3 == 0:
            return "tie" if labeller == 1 else "="
        wanted = "text a" if (number % 2 == 0 or labeller == 2) else "text b"
        return ("1" if labeller == 1 else "FIRST ") if row["first"].startswith(wanted) else "2"

    collected = labels.read_labels(
        [sheet_path := written(tmp_path, sheet, filled(sheet, say))[0]], tmp_path / "key.json"
    )
    assert labels.sheets_of([sheet_path]) == [sheet.id]
    shown = {sheet.key["rows"][row["row"]][0] for row in sheet.rows}
    for row in collected.pairs.to_dict("records"):
        number = int(row["pair_id"][1:])
        expected = ("tie", "tie") if number % 3 == 0 else ("a" if number % 2 == 0 else "b", "a")
        if row["pair_id"] not in shown:
            expected = ("", "")
        elif number % 5 == 0:
            expected = (expected[0], "")
        assert (row["gold"], row["gold_2"]) == expected
    assert collected.once + collected.twice == 30
    assert collected.agreed < collected.twice
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in collected.pairs.to_dict("records")))
    assert len(read_pairs(path)) == 40


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "tie", ""])] * 2), min_size=1, max_size=12), st.integers(0, 99))
def test_whatever_people_mean_comes_back(meant: list[tuple[str, str]], seed: int) -> None:
    pairs = PAIRS.head(len(meant))
    sheet = labels.sheet(pairs, len(meant), seed=seed)

    def say(row: dict[str, Any], labeller: int) -> str:
        label = meant[int(row["first"].split()[-1])][labeller - 1]
        return label if label in ("tie", "") else "1" if row["first"].startswith(f"text {label}") else "2"

    with tempfile.TemporaryDirectory() as folder:
        sheet_path, key = written(Path(folder), sheet, filled(sheet, say))
        if not any(one for both in meant for one in both):
            with pytest.raises(InvalidInput, match="no row is labelled"):
                labels.read_labels([sheet_path], key)
            return
        collected = labels.read_labels([sheet_path], key).pairs
    expected = [(one or other, other if one else "") for one, other in meant]
    assert list(zip(collected["gold"], collected["gold_2"], strict=True)) == expected


def test_files_of_two_labellers_and_of_spreadsheets_are_read_together(tmp_path: Path) -> None:
    sheet = labels.sheet(PAIRS, 6)
    lines = filled(sheet, lambda *_: "1").decode().splitlines()
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("\ufeff" + "\r\n".join(line.replace(",", ";") for line in lines[:7]) + "\r\n", encoding="utf-8")
    two.write_text("\n".join([lines[0], *lines[7:]]) + "\n")
    _, key = written(tmp_path, sheet, b"")
    collected = labels.read_labels([one, two], key)
    assert (collected.once, collected.twice, collected.agreed) == (0, 6, 0)  # the same slot is the other side
    assert labels.read_labels([two], key).pairs["gold"].isin(["a", "b", ""]).all()


def test_hostile_texts_stay_texts() -> None:
    pairs = PAIRS.assign(text_a=[HOSTILE, "=HYPERLINK(1)", "@x", "-1", *["t"] * 36], prompt=HOSTILE)
    sheet = labels.sheet(pairs, 40)
    page = labels.as_html(sheet).decode()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    assert json.loads(data[1])["rows"] == [dict(row) for row in sheet.rows]
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert not re.search(r"innerHTML|https?://|src=", page.replace(data[1], ""))
    for row in rows_of(labels.as_csv(sheet)):
        assert not row["first"].startswith(("=", "@", "-", "+"))
    long = labels.sheet(PAIRS.assign(text_a="x" * 1_000_000).head(1), 1)
    assert len(labels.as_html(long)) > 2_000_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("row,label\n{row},3\n", "sheet.csv:2: label: must be 1, 2, tie or empty, not '3'"),
        ("row,label\nnone-10001,1\n", "sheet.csv:2: row: 'none-10001' is not a row of the sheet"),
        ("row,label\n,1\n", "sheet.csv:2: row: is empty"),
        ("row,label\n{row},1\n{row},2\n", "sheet.csv:3: label: {row} has another label at"),
        ("row,verdict\n{row},1\n", "sheet.csv:1: column label is missing"),
        ("", "sheet.csv:1: column row is missing"),
        ("row,label\n{row},\n", "sheet.csv: label: no row is labelled"),
        ('row,label\n{row},"1\n', "sheet.csv:2: not valid CSV"),
    ],
)
def test_a_fault_of_a_sheet_names_line_and_column(tmp_path: Path, content: str, message: str) -> None:
    sheet = labels.sheet(PAIRS, 5)
    row = sheet.rows[0]["row"]
    sheet_path, key = written(tmp_path, sheet, content.replace("{row}", row).encode())
    with pytest.raises(InvalidInput) as caught:
        labels.read_labels([sheet_path], key)
    assert message.replace("{row}", row) in str(caught.value)


def test_keys_and_sheets_that_are_none_are_named(tmp_path: Path) -> None:
    sheet = labels.sheet(PAIRS, 5)
    sheet_path, key = written(tmp_path, sheet, filled(sheet, lambda *_: "1"))
    for content, message in (("{", "not valid JSON"), ("[]", "no key of a label sheet")):
        key.write_text(content)
        with pytest.raises(InvalidInput, match=message):
            labels.read_labels([sheet_path], key)
    with pytest.raises(InvalidInput, match=r"none\.json: the sheet's key cannot be read"):
        labels.read_labels([sheet_path], tmp_path / "none.json")
    with pytest.raises(InvalidInput, match=r"none\.csv: cannot be read"):
        labels.sheets_of([tmp_path / "none.csv"])
    sheet_path.write_bytes(b"row,label\n\xff\n")
    with pytest.raises(InvalidInput, match=r"sheet\.csv:2: not UTF-8"):
        labels.sheets_of([sheet_path])
    with pytest.raises(InvalidInput, match="no pair of different texts"):
        labels.sheet(PAIRS.assign(text_b=PAIRS["text_a"]), 5)


def test_the_number_of_labels_is_that_of_the_power_formula() -> None:
    gaps = np.array([1.0, -1.0, 2.0, 0.0])
    expected = rows_for_slope(0.3, float(np.mean(gaps**2)) / 4, r_squared=0.25)
    assert labels_needed(gaps, 0.3) == expected
    assert labels_needed(gaps, 0.6) == pytest.approx(expected / 4, abs=1)
    assert labels_needed(np.zeros(3), 0.3) is None
    assert labels_needed(np.array([]), 0.3) is None


def test_labelled_pairs_become_the_gold_of_the_same_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("analyze", FORMATS / "arena_hard_2.0", "--out", "a") == 0
    assert command("export", "a", "--format", "labels", "--out", "sheet.csv") == 0
    message = capsys.readouterr().out
    assert "24 pairs, each for two labellers with its sides swapped: 48 rows." in message
    assert "24 are too few for that claim" in message
    assert re.search(r"takes about [\d,]+ labelled pairs \(80 % power", message)
    assert Path("sheet.html").is_file()
    # Both people like the shorter answer.
    rows = rows_of(Path("sheet.csv").read_bytes())
    lines = [f"{row['row']},{1 if len(row['first']) < len(row['second']) else 2}" for row in rows]
    Path("back.csv").write_text("\n".join(["row,label", *lines]) + "\n")
    assert command("export", "a", "--format", "labels", "--collect", "back.csv", "--out", "gold.jsonl") == 0
    assert "24 of 24 pairs labelled, 24 by both, 100 % of them alike" in capsys.readouterr().out
    assert command("analyze", "a", "--pairs", "gold.jsonl", "--out", "b") == 0
    done = judgeloop.open("b")
    before = judgeloop.open("a").estimates.query("term == 'first_slot_excess' and variant == '' and category == ''")
    after = done.estimates.query("term == 'first_slot_excess' and variant == '' and category == ''")
    assert after["estimate"].tolist() == before["estimate"].tolist()
    agreement = done.estimates.query("term == 'gold_agreement' and variant == '' and category == ''")
    assert agreement["estimate"].iloc[0] < 0.3  # the judge likes the longer one
    assert (done.judgments["gold_2"] != "").all()
    with tables_alone():
        other = judgeloop.analyze(FORMATS / "mt_bench", out="c").path
    with pytest.raises(InvalidInput, match="no key of label sheet"):
        collect_labels(other, ["back.csv"], "x.jsonl")
