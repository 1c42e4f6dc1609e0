"""Small inputs from real tools and first hours that once were misread, each with its right value (tests/cases)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from audit_pairs import pairs
from command_line import command
from conftest import ITEMS, Served, small_experiment, write_experiment
from judgeloop import seeds
from judgeloop.errors import FolderMismatch, InvalidInput, JudgeloopError
from judgeloop.interchange.pairs import read_pairs
from judgeloop.interchange.rows import load_columns
from judgeloop.interchange.verdicts import read_log, read_verdicts
from judgeloop.learning.labels import preferences
from judgeloop.stats.judge.content import content_estimates, gold_agreement
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.mitigation import majority
from judgeloop.stats.judge.position import position_estimates
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
    assert "identical_outputs 8" in words
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


# -- nothing lost without a word --------------------------------------------------------------------------------------


def test_a_scorer_that_columns_name_is_one_judge() -> None:
    folder = CASES / "inspect_named_scorer"
    read = read_log([folder / "x.json", folder / "y.json"], columns=load_columns(folder / "columns.yaml"))
    rows = read.judgments
    assert set(rows["judge"]) == {"rubric_judge"}
    assert rows.set_index("item_id")["verdict"].to_dict() == {
        "1": "a",
        "2": "a",
        "3": "b",
        "4": "a",
        "5": "a",
        "6": "b",
    }
    assert (rows["model_a"].iloc[0], rows["model_b"].iloc[0]) == ("lab/model-x", "lab/model-y")


def test_models_that_graded_themselves_are_named_first_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x", "y"):
        content = json.loads((CASES / "inspect_named_scorer" / f"{name}.json").read_text())
        for sample in content["samples"]:
            sample["scores"] = {"model_graded_qa": sample["scores"]["rubric_judge"]}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    words = said_of(capsys, tmp_path / "x.json", tmp_path / "y.json", "--out", tmp_path / "o")
    for judge in ("lab/model-x", "lab/model-y"):
        assert f"{judge}: all 6 verdicts are unscored (graded_by_itself 6)." in words
    assert words.index("all 6 verdicts are unscored") < words.index("Is the bias growing")
    assert (
        "How the log was read - the log names no grader, so that lab/model-x and lab/model-y graded their own answers"
        in words
    )
    assert "judgeloop doctor" not in words
    columns = load_columns({"verdict": "model_graded_qa"})
    named_ = read_log([tmp_path / "x.json", tmp_path / "y.json"], columns=columns).judgments
    assert set(named_["judge"]) == {"model_graded_qa"}
    assert "unscored" not in set(named_["verdict"])


# -- verdicts that name an answer -------------------------------------------------------------------------------------

TO_TEXT = {"verdict": {"column": "winner", "values": {"answer_a": "a", "answer_b": "b", "tie": "tie"}}}
NAMES = {"item_id": "question", "text_a": "answer_a", "text_b": "answer_b"}


def winner_log(pairs: int = 300, orders: tuple[str, ...] = ("ab", "ba")) -> pd.DataFrame:
    """The log that people have: a judge that picks the first slot in 65 %, whatever stands there, and the answer that won."""
    stream, rows = seeds.rng(0, "winners"), []
    for number in range(pairs):
        for order in orders:
            first, second = ("answer_a", "answer_b") if order == "ab" else ("answer_b", "answer_a")
            winner = "tie" if number % 20 == 7 else first if stream.random() < 0.65 else second
            rows.append({"question": f"q{number}", "answer_a": "x " * (1 + number % 9), "answer_b": f"y {number}",
                         "winner": winner, "judge": "J", "order": order})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("form", ["frame", "csv", "jsonl", "columns.yaml"])
def test_a_winner_that_names_an_answer_is_turned_into_a_slot_by_the_order(tmp_path: Path, form: str) -> None:
    frame, columns = winner_log(), {**NAMES, **TO_TEXT}
    source: Any = frame
    if form == "csv":
        frame.to_csv(source := tmp_path / "v.csv", index=False)
    elif form != "frame":
        frame.to_json(source := tmp_path / "v.jsonl", orient="records", lines=True)
    if form == "columns.yaml":
        (tmp_path / "columns.yaml").write_text(json.dumps(columns))
    read = read_log(source, columns=load_columns(tmp_path / "columns.yaml" if form == "columns.yaml" else columns))
    first = ((frame["winner"] == "answer_a") == (frame["order"] == "ab")).map({True: "first", False: "second"})
    assert read.judgments["verdict"].tolist() == first.where(frame["winner"] != "tie", "tie").tolist()
    assert read.notes == ()
    native = frame.rename(columns={"question": "item_id"}).assign(verdict=frame["winner"].str.removeprefix("answer_"))
    assert read_verdicts(native).judgments["verdict"].tolist() == read.judgments["verdict"].tolist()


def test_the_position_bias_of_a_winner_log_is_found_or_said_not_to_be_known() -> None:
    frame, columns = winner_log(), load_columns({**NAMES, **TO_TEXT})
    (row, *_) = position_estimates(read_log(frame, columns=columns).judgments)
    # 0.15 of the 95 % that are no ties; the tolerance is four standard errors of 600 picks.
    assert row.estimate == pytest.approx(0.15 * 0.95, abs=4 * (0.25 / 600) ** 0.5)
    assert row.verdict == "found"
    # Without the order: nothing of position, and all of content that the texts show.
    one_order = frame[frame["order"] == "ab"]
    known, absent, unknown = (
        read_log(rows, columns=columns).judgments
        for rows in (one_order, one_order.drop(columns="order"), one_order.assign(order="unknown"))
    )
    pd.testing.assert_frame_equal(absent, unknown)
    assert set(unknown["verdict"]) == {"a", "b", "tie"}
    position = position_estimates(unknown)
    assert {row.status for row in position} == {"undefined"}
    assert position[0].note.startswith("the order is not known")
    texts = [judgments.assign(len_a=range(1, 301), len_b=150) for judgments in (known, unknown)]
    rows = [[row for row in content_estimates(text) if row.term != "unscored_rate"] for text in texts]
    assert rows[0] == rows[1]


def test_what_unknown_order_costs_is_said() -> None:
    words = " ".join(
        judgeloop.analyze(winner_log(4, ("ab",)).drop(columns="order"), columns={**NAMES, **TO_TEXT}).summary().split()
    )
    assert "pairs 4 (0 in both orders, 0 in one, 4 in unknown order) · orders ab 0, ba 0, unknown 4" in words
    assert (
        "the order of 4 of 4 verdicts is not known: they show which text was picked, and nothing of position" in words
    )
    assert "– the order is not known: which text stood in which slot cannot be told" in words


def test_a_winner_is_never_taken_for_a_slot_without_a_word() -> None:
    frame = winner_log(4)
    for column in ("winner", "Better_Answer", "preferred", "chosen"):
        renamed = frame.rename(columns={"winner": column})
        values = {"answer_a": "first", "answer_b": "second"}
        with pytest.raises(InvalidInput, match=rf"column '{column}' may name an answer or a slot; write a or b"):
            read_log(renamed, columns=load_columns({**NAMES, "verdict": {"column": column, "values": values}}))
        with pytest.raises(InvalidInput, match=rf"column '{column}' may name an answer or a slot; give --columns"):
            read_log(renamed, columns=load_columns(NAMES))
        said = load_columns({**NAMES, "verdict": {"column": column, "by": "slot", "values": values}})
        assert read_log(renamed, columns=said).judgments["verdict"].tolist()[:2] == [
            values[word] for word in frame["winner"][:2]
        ]
    # A log whose own words are slots has said so.
    left = frame.assign(winner="left")
    columns = load_columns({**NAMES, "verdict": {"column": "winner", "values": {"left": "first", "right": "second"}}})
    assert set(read_log(left, columns=columns).judgments["verdict"]) == {"first"}
    with pytest.raises(InvalidInput, match=r"verdict\.by: only a verdict has it, as slot or model"):
        load_columns({"verdict": {"column": "winner", "by": "text"}})


def test_a_slot_in_unknown_order_is_unscored_and_counted() -> None:
    frame = log(items=5).assign(order="unknown", repeat=[0, 1] * 5, verdict="first", p_first=0.9)
    read = read_verdicts(frame)
    assert set(zip(read.judgments["verdict"], read.judgments["reason"], strict=True)) == {("unscored", "order_unknown")}
    assert "10 of 10 verdicts name a slot in unknown order" in read.notes[0]


def test_verdicts_by_text_serve_all_that_needs_no_slot() -> None:
    by_slot = log(items=40, judges=("m", "n", "o"))
    for_a = ((by_slot["verdict"] == "first") == (by_slot["order"] == "ab")).map({True: "a", False: "b"})
    verdict = for_a.where(by_slot["verdict"] != "unscored", "unscored")
    by_text = by_slot.assign(verdict=verdict, order="unknown", repeat=(by_slot["order"] == "ba").astype("int64"))
    slots, texts = (read_verdicts(frame).judgments for frame in (by_slot, by_text))
    for rows in (slots, texts):
        assert gold_agreement(rows) == gold_agreement(slots)
    votes = pd.concat([texts, texts.assign(repeat=texts["repeat"] + 2)])
    assert set(majority(votes, "panel")["verdict"]) <= {"a", "b", "tie", "unscored"}
    assert gold_agreement(majority(texts, "panel"))[0].estimate > gold_agreement(texts)[0].estimate  # type: ignore[union-attr]
    columns = ["item_id", "chosen", "rejected", "weight"]
    labels = [preferences(rows[rows["judge"] == "m"], "raw")[columns] for rows in (slots, texts)]
    assert sorted(labels[0].itertuples(index=False)) == sorted(labels[1].itertuples(index=False))
    assert preferences(texts[texts["judge"] == "m"], "swap_average").empty
    # A pair with one known order and one unknown is not judged in both.
    half = pd.concat([slots[slots["order"] == "ab"], texts[texts["repeat"] == 1]])
    assert preferences(half[half["judge"] == "m"], "swap_average").empty
    assert covariates(half).order.tolist() == [1.0] * len(covariates(slots[slots["order"] == "ab"])) + [0.0] * len(
        covariates(texts[texts["repeat"] == 1])
    )


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


# -- the first mistake ------------------------------------------------------------------------------------------------


@pytest.mark.tables
def test_the_first_mistake_of_an_audit_is_mended_in_its_folder(
    tmp_path: Path, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served, rows = serve(model=["planted"]), pd.DataFrame(pairs(2))
    (tmp_path / "none.yaml").write_text(
        "kind: judge\ndescription: x\nmessages: [{role: user, content: '{{ prompt }} {{ answer_a }} {{ answer_b }}'}]\nverdict: {text: Say nothing.}\n"
    )
    wrong: list[dict[str, Any]] = [
        {"base_url": served.base_url.replace("/v1", "/v7")}, {"model": "other"}, {"prompt": "none.yaml", "verdict": "text"},
    ]  # fmt: skip
    right: dict[str, Any] = {"base_url": served.base_url, "model": "planted", "verdict": "json"}
    for mistake in wrong:
        with pytest.raises(JudgeloopError):
            judgeloop.audit(rows, **{**right, **mistake})
        with pytest.raises(JudgeloopError):
            judgeloop.audit(rows, **{**right, **mistake}, out="named")
    done = judgeloop.audit(rows, **right)
    named_ = judgeloop.audit(rows, **right, out="named")
    assert len(done.judgments) == len(named_.judgments) == 4
    assert [path.name for path in Path("runs").iterdir()] == [done.path.name]
    # Answers stand here now: another audit takes the next folder, or is refused with the setting that differs.
    assert judgeloop.audit(rows, **right, repeats=2).path.name == f"{done.path.name}-2"
    with pytest.raises(FolderMismatch, match="--repeats is 1 there and 2 here"):
        judgeloop.audit(rows, **right, repeats=2, out="named")


@pytest.mark.tables
def test_the_first_mistake_of_a_run_is_mended_in_its_folder(tmp_path: Path, serve: Callable[..., Served]) -> None:
    served = serve()
    raw = small_experiment(served.base_url, generations=1, replicates=1, panels={"anchor": 0})
    mistaken = json.loads(json.dumps(raw))
    mistaken["endpoints"]["m"]["base_url"] = served.base_url.replace("/v1", "/v7")
    with pytest.raises(JudgeloopError):
        judgeloop.run(write_experiment(tmp_path, mistaken), out=tmp_path / "run")
    judgeloop.run(write_experiment(tmp_path, raw), out=tmp_path / "run")
    changed = json.loads(json.dumps(raw))
    changed["endpoints"]["m"]["concurrency"] = 2
    changed["judge"]["temperature"] = 0.5
    path = write_experiment(tmp_path, changed, [*ITEMS, {**ITEMS[0], "item_id": "more"}])
    with pytest.raises(
        FolderMismatch,
        match=r"judge\.temperature is 0\.0 there and 0\.5 here; the content of items has changed; give",
    ):
        judgeloop.run(path, out=tmp_path / "run")
