"""Small inputs from real tools and first hours that once were misread, each with its right value (tests/cases)."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from command_line import command
from judgeloop.errors import InvalidInput
from judgeloop.interchange.pairs import read_pairs
from judgeloop.interchange.verdicts import read_log
from verdict_log import log

CASES = Path(__file__).parents[1] / "cases"


def said_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The screen of ``analyze``, which must succeed and leave standard error empty."""
    assert command("analyze", *arguments) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return " ".join(printed.out.split())


# -- nothing obscure --------------------------------------------------------------------------------------------------


def test_answers_that_are_all_alike_warn_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        words = said_of(capsys, CASES / "all_identical" / "annotations.json", "--out", tmp_path / "o")
    assert "my_annotator identical_outputs 8" in words
    assert "Longer text picked at equal gold – no judgment of different texts has a verdict" in words


def test_prompts_that_were_not_recorded_are_not_called_another_tool_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = said_of(capsys, CASES / "arena_hard_no_prompts" / "judgments.jsonl", "--out", tmp_path / "o")
    assert "8 of 8 pairs: no prompts recorded, so no texts or lengths" in words
    assert "are not Arena-Hard's" not in words
    assert "Longer text picked at equal gold – no texts and no lengths" in words
    row = judgeloop.open(tmp_path / "o").estimates.query("term == 'first_slot_excess' and variant == ''").iloc[0]
    assert (row["estimate"], row["n"]) == (0.0, 8)


def test_two_logs_of_identical_answers_leave_nothing_to_compare() -> None:
    with pytest.raises(InvalidInput, match="all 4 pairs are of identical texts: nothing to compare"):
        read_log(sorted((CASES / "inspect_identical").glob("*.json")))


def test_another_run_of_the_same_model_is_another_epoch(tmp_path: Path) -> None:
    runs = sorted((CASES / "inspect_rerun").glob("*.json"))
    read = read_log(runs)
    rows = read.judgments
    assert len(rows) == 12
    assert set(rows["judge"]) == {"lab/grader"}
    assert rows.loc[rows["item_id"] == "1", "pair_id"].tolist() == [
        f"1/lab/model-x#{a}/lab/model-x#{b}" for a, b in ((1, 2), (1, 3), (2, 3))
    ]
    assert sum("another run of lab/model-x on uses" in note for note in read.notes) == 2
    # Two runs of each of two models are compared run by run; samples of another task are other items.
    paths = []
    for number, (model, task) in enumerate([("m", "t"), ("m", "t"), ("n", "t"), ("n", "t"), ("m", "u"), ("n", "u")]):
        content = json.loads(runs[number % 2].read_text())
        content["eval"] |= {"model": model, "task": task}
        for sample in content["samples"]:
            sample["output"]["completion"] += f" {number}"
            sample["input"] += task
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps(content))
    rows = read_log(paths).judgments
    assert rows.loc[rows["item_id"].str.endswith("/1"), "pair_id"].tolist() == ["t/1/m/n", "t/1/m/n/2", "u/1/m/n"]


def test_single_gradings_of_mt_bench_are_joined(tmp_path: Path) -> None:
    files = sorted((CASES / "mt_bench_single").glob("*.jsonl"))
    read = read_log(files)
    assert len(read.judgments) == 4
    assert set(read.judgments["judge"]) == {"gpt-4"}
    assert set(read.judgments["pair_id"]) == {f"{n}/1/model-x/model-y" for n in (81, 82, 83, 84)}
    assert read.texts["text"].tolist()[:2] == ["Answer x 81", "Answer y 81"]
    assert read.items["prompt"].tolist()[0] == "Q81"
    pd.testing.assert_frame_equal(read_log(files, format="mt_bench").judgments, read.judgments)
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert (read.judgments["grade_a"] - read.judgments["grade_b"]).tolist() == [
        lines[n]["score"] - lines[n + 4]["score"] for n in range(4)
    ]
    # The second turn, another prompt of the same judge, a reply without a rating, and a prompt of another template.
    conversation = (
        "<|The Start of Assistant A's Conversation with User|>\n\n### User:\nOne?\n\n### Assistant A:\nFirst.\n\n### User:\n"
        "Two?\n\n### Assistant A:\n{}\n\n<|The End of Assistant A's Conversation with User|>"
    )
    for line in lines:
        if line["question_id"] == 81:
            prompt = conversation.format(f"Second of {line['model']}.")
            line |= {"turn": 2, "judge": ["gpt-4", "single-v1-multi-turn"], "user_prompt": prompt}
        if line["question_id"] == 82:
            line |= {"score": -1, "judgment": "$ERROR$" if line["model"] == "model-x" else "Fine."}
        if line["question_id"] == 83:
            line["user_prompt"] = "another"
    both = _lines(tmp_path / "gpt-4_single.jsonl", lines)
    read = read_log(tmp_path)
    assert read.items.set_index("item_id").loc["81/2", "prompt"] == "One?\n\nTwo?"
    assert "Second of model-y." in set(read.texts["text"])
    assert read.judgments.loc[read.judgments["reason"] != "", ["item_id", "reason"]].to_numpy().tolist() == [["82/1", "no_answer"]]  # fmt: skip
    assert set(read.judgments["judge"]) == {"gpt-4#single-v1", "gpt-4#single-v1-multi-turn"}
    assert len(read.judgments) == 4
    assert "2 of 8 answers without texts: their recorded prompts are not MT-Bench's" in read.notes
    with pytest.raises(InvalidInput, match="gpt-4#single-v1 grades this answer of model-x twice"):
        read_log(_lines(both, [*lines, lines[3]]))
    with pytest.raises(InvalidInput, match="give pairwise judgments and single gradings apart"):
        read_log(_lines(both, [*lines, {"question_id": 1, "model_1": "x", "model_2": "y"}]))


def _lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_record_of_an_array_in_one_line_is_named_by_its_number() -> None:
    with pytest.raises(InvalidInput, match=r"annotations\.json:1, record 4: preference: must be from 1"):
        read_log(CASES / "one_line_array" / "annotations.json")


def test_faults_found_after_reading_speak_of_the_file_s_own_fields(tmp_path: Path) -> None:
    records = json.loads((CASES / "default_out_collides" / "a" / "annotations.json").read_text())
    path = tmp_path / "annotations.json"
    for changed, words in (
        ([*records, records[2]], r"record 9: preference \(read as verdict\): .* before, at .*record 3; give each record once"),
        ([*records, {**records[2], "output_1": "other"}], r"record 9: (preference|output_1) \(read as"),
        ([{key: value for key, value in records[0].items() if key != "annotator"}], r"record 1: annotator \(read as judge\): is missing"),
        ([], "the log holds no record"),
    ):  # fmt: skip
        path.write_text(json.dumps(changed), encoding="utf-8")
        with pytest.raises(InvalidInput, match=words):
            read_log(path, format="alpaca_eval")
    (tmp_path / "v.csv").write_text("item_id,judge,order,label\ni,j,ab,A\n", encoding="utf-8")
    with pytest.raises(InvalidInput, match=r"v\.csv:2: label \(read as verdict\): must be first, second"):
        judgeloop.analyze(tmp_path / "v.csv", columns={"verdict": "label"})


@pytest.mark.tables
@pytest.mark.parametrize("value", ["many", 1.5])
def test_a_log_s_own_columns_may_have_any_name(tmp_path: Path, value: object) -> None:
    own = (
        "slot",
        "tokens",
        "n_drawn",
        "characters",
        "converged",
        "rotation",
        "scale",
        "reference",
        "weight",
        "pair_key",
    )
    done = judgeloop.analyze(log(items=3).assign(**dict.fromkeys(own, value)), out=tmp_path / "o", report=False)
    assert done.summary()
    for name in own:
        assert done.judgments[name].tolist() == [value] * 6, name


def test_a_text_that_is_no_text_is_refused_with_its_row() -> None:
    with pytest.raises(InvalidInput, match=r"pairs\.jsonl:3: text_a: must be text, not True"):
        read_pairs(CASES / "boolean_text" / "pairs.jsonl")


# -- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.tables
def test_default_folders_of_two_logs_of_one_name_do_not_collide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, folder in (("a", "annotations"), ("b", "annotations-2"), ("b", "annotations-2"), ("a", "annotations")):
        assert f"Folder: runs/{folder} " in said_of(capsys, CASES / "default_out_collides" / name / "annotations.json")
    for items in (3, 4):
        judgeloop.analyze(log(items=items))  # in memory, so that a second frame of a session is no other's folder
    assert sorted(path.name for path in Path("runs").iterdir()) == ["annotations", "annotations-2"]
