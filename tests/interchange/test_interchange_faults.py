"""Malformed files of other tools: each fault names its file, its row (line, or member of an archive) and its field.

Those of judgeloop's own verdicts and pairs stand in test_interchange.py.
"""

from __future__ import annotations

import copy
import functools
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import format_samples
from command_line import command
from format_samples import FORMATS, records
from judgeloop.errors import ExperimentError, InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange import inspect_log
from judgeloop.interchange.verdicts import read_log

ALPACA = "alpaca_eval/annotations.json"
MT = "mt_bench/gpt-4_pair.jsonl"
ARENA = "arena_hard_2.0/gpt-4.1/model-x.jsonl"
LM = f"lm_eval/own__model-x/samples_things_{format_samples._DATE}.jsonl"


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for key in path[:-1]:
            record = record[key]
        if to is ...:
            record.pop(path[-1])
        else:
            record[path[-1]] = to

    return change


# (sample, what is changed in its second record, the field that is named, the words)
RECORDS: list[tuple[str, Callable[[Any], None], str, str]] = [
    (ALPACA, _set("instruction", to=...), "instruction", "is missing"),
    (ALPACA, _set("output_2", to=None), "output_2", "is empty"),
    (ALPACA, _set("output_1", to=["x"]), "output_1", "must be text"),
    (ALPACA, _set("preference", to="first"), "preference", "must be a finite number"),
    (ALPACA, _set("preference", to=2.5), "preference", "must be from 1 (output_1) to 2"),
    (ALPACA, _set("annotator", to=...), "annotator (read as judge)", "is missing"),
    (ALPACA, _set("generator_1", to={"name": "x"}), "generator_1", "must be text"),
    (ALPACA, _set("is_switched_outputs", to="perhaps"), "is_switched_outputs", "true or false"),
    (MT, _set("question_id", to=None), "question_id", "is empty"),
    (MT, _set("judge", to=[]), "judge", "must be [model, prompt]"),
    (MT, _set("g1_winner", to="model_3"), "g1_winner", "model_1, model_2, tie or error"),
    (MT, _set("g2_winner", to=...), "g2_winner", "is missing"),
    (MT, _set("m1_score", to=7), "m1_score", "two single gradings"),
    (MT, _set("turn", to=1.5), "turn", "whole number"),
    (ARENA, _set("games", to=[]), "games", "two games"),
    (ARENA, _set("games", 0, to={"judgment": "x"}), "games[0]", "must have a score"),
    (ARENA, _set("games", 1, "score", to="A>C"), "games[1].score", "must be one of A>>B"),
    (ARENA, _set("games", 1, "score", to=7), "games[1].score", "must be one of A>>B"),
    (ARENA, _set("judge", to=""), "judge", "is empty"),
    (ARENA, _set("uid", to=["u"]), "uid", "must be text"),
    (LM, _set("resps", to=[[["-1.5", "True"]]]), "resps", "log-likelihoods"),
    (LM, _set("resps", to=[["one", "two"]]), "resps", "2 repeats"),
    (LM, _set("resps", to="x"), "resps", "list of lists"),
    (LM, _set("arguments", to={}), "arguments", "gen_args_0.arg_0"),
    (LM, _set("metrics", to="acc"), "metrics", "list of names"),
    (LM, _set("doc_id", to=0), "doc_id", "stands twice"),
    (LM, _set("doc_id", to=...), "doc_id", "is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("sample", "change", "field", "what"), RECORDS)
def test_a_fault_of_a_record_names_file_line_and_field(
    tmp_path: Path, sample: str, change: Callable[[Any], None], field: str, what: str
) -> None:
    rows = copy.deepcopy(records(sample))[:4]
    change(rows[1])
    path = tmp_path / Path(sample).name
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=2), encoding="utf-8")
        line = [n for n, text in enumerate(path.read_text().splitlines(), start=1) if text == "  {"][1]
        where = f"{path}:{line}, record 2: "
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        where = f"{path}:2: "
    kind = next(name for name in ("alpaca_eval", "mt_bench", "arena_hard", "lm_eval") if sample.startswith(name))
    with pytest.raises(InvalidInput) as caught:
        read_log(path, format=kind)
    message = str(caught.value)
    assert message.startswith(where), message
    assert field in message.removeprefix(str(path))
    assert what in message
    assert "\n" not in message


def _member(change: Callable[[Any], None]) -> Callable[[dict[str, Any]], None]:
    return lambda members: change(members["samples/2_epoch_1.json"])


SECOND = "samples/2_epoch_1.json"
ARCHIVES: list[tuple[Callable[[dict[str, Any]], None], str, str]] = [
    (_set("header.json", to=...), "", "no header.json"),
    (_set("header.json", "eval", to=...), "header: eval", "missing"),
    (_set("header.json", "eval", "model", to=3), "eval: model", "must not be 3"),
    (_set("header.json", to=[1]), "header.json", "must be a JSON object"),
    (_set(SECOND, to="text"), SECOND, "must be a JSON object"),
    (_set(SECOND, "id", to=...), f"{SECOND}: id", "missing"),
    (_set(SECOND, "epoch", to="one"), f"{SECOND}: epoch", "whole number"),
    (_set(SECOND, "scores", to=[]), f"{SECOND}: scores", "by scorer"),
    (_set(SECOND, "scores", "model_graded_qa", "value", to=...), f"{SECOND}: scores.model_graded_qa.value", "missing"),
    (
        _set(SECOND, "scores", "model_graded_qa", "value", to="maybe"),
        f"{SECOND}: scores.model_graded_qa.value",
        "C, P, I, N",
    ),
    (
        _set(SECOND, "scores", "model_graded_qa", "value", to={"a": 1}),
        f"{SECOND}: scores.model_graded_qa.value",
        "one grade",
    ),
    (_set(SECOND, "input", to=None), f"{SECOND}: input", "text or chat messages"),
    (_set(SECOND, "input", to=[{"role": "user"}]), f"{SECOND}: input", "no content"),
    (_set(SECOND, "output", to=...), f"{SECOND}: output", "missing"),
    (lambda members: [members.pop(name) for name in list(members) if name.startswith("samples")], "samples/", "empty"),
]  # type: ignore[assignment]


@pytest.mark.parametrize(("change", "field", "what"), ARCHIVES)
def test_a_fault_of_an_inspect_log_names_file_member_and_field(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], field: str, what: str
) -> None:
    score = {"value": "C", "answer": "x", "metadata": {"grading": []}}
    sample = {"id": 1, "epoch": 1, "input": "?", "output": {"completion": "x"}, "scores": {"model_graded_qa": score}}
    members: dict[str, Any] = {f"samples/{n}_epoch_1.json": copy.deepcopy({**sample, "id": n}) for n in (1, 2)}
    members["header.json"] = {"version": 2, "status": "success", "eval": {"model": "m", "task": "t"}}
    change(members)
    path = tmp_path / "log.eval"
    path.write_bytes(format_samples.archive(members, zstd=False))
    with pytest.raises(InvalidInput) as caught:
        read_log(path)
    assert str(caught.value).startswith(f"{path}: {field}"), str(caught.value)
    assert what in str(caught.value)


def _damaged(place: str) -> bytes:
    content = bytearray(format_samples.inspect_eval("m", True, zstd=True))
    where = content.index(b"samples/1_epoch_1.json") + 60
    if place == "end":
        return bytes(content[:-200])
    content[where : where + 40] = b"\0" * 40
    return bytes(content)


FILES: list[tuple[str, bytes, str, str]] = [
    ("annotations.json", b'[{"instruction": "a",}]', "alpaca_eval", "annotations.json:1: not valid JSON"),
    ("annotations.json", b"[\n" + json.dumps(records(ALPACA)[0]).encode() + b"\n{", "alpaca_eval", "annotations.json:3: not valid JSON (the array is cut off)"),
    ("annotations.json", b'{"instruction": "a"}', "alpaca_eval", "annotations.json:1: must be a JSON array"),
    ("annotations.json", b'[\n\n3]', "alpaca_eval", "annotations.json:3, record 1: each record is a JSON object"),
    ("annotations.json", b'[{"a": 1, "a": 2}]', "alpaca_eval", "annotations.json:1, record 1: key a stands twice"),
    ("annotations.json", b'[]', "alpaca_eval", "annotations.json: no verdicts"),
    ("annotations.json", b"[\xff]", "alpaca_eval", "annotations.json: cannot be read as UTF-8"),
    ("annotations.json", b"[" * 100_000, "alpaca_eval", "nested too deeply"),
    ("x_pair.jsonl", b'{"g1_winner": "tie"', "mt_bench", "x_pair.jsonl:1: not valid JSON"),
    ("log.eval", b"not a zip", "inspect", "log.eval: neither a zip archive nor JSON"),
    ("log.json", b'{"eval": {}}', "auto", "log.json: samples: missing"),
    ("log.eval", _damaged("end"), "inspect", "log.eval: "),
    ("log.eval", _damaged("inside"), "inspect", "log.eval: samples/1_epoch_1.json: cannot be unpacked"),
    ("samples_t.jsonl", b'{"doc_id": 1, "resps": [["a"]], "metrics": []}\n', "lm_eval", "samples_t.jsonl: metrics: none"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "kind", "what"), FILES)
def test_a_file_that_is_no_log_is_named(tmp_path: Path, name: str, content: bytes, kind: str, what: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        read_log(path, format=kind)
    assert what in str(caught.value), str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_one_answer_an_item_cannot_be_compared() -> None:
    for kind in ("inspect", "lm_eval"):
        path = sorted(
            (FORMATS / kind).rglob("*model-x*/*.jsonl") if kind == "lm_eval" else (FORMATS / kind).glob("*x.eval")
        )
        with pytest.raises(InvalidInput, match="no item has two answers to compare; give the logs of two models"):
            read_log(path)


def test_a_judge_that_the_log_does_not_name_is_asked_for() -> None:
    from judgeloop.interchange.rows import load_columns

    with pytest.raises(InvalidInput, match=r"no scorer 'own' \(the log has includes, model_graded_qa\)"):
        read_log(FORMATS / "inspect", columns=load_columns({"verdict": "own"}))
    with pytest.raises(InvalidInput, match=r"own: no such metric \(the log has exact_match, llm_judge\)"):
        read_log(FORMATS / "lm_eval", columns=load_columns({"gold": "own"}))
    with pytest.raises(InvalidInput, match="names a scorer of the log here"):
        read_log(FORMATS / "lm_eval", columns=load_columns({"gold": {"value": "a"}}))


def test_the_command_says_it_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("analyze", FORMATS / ALPACA, "--format", "mt_bench") == 2
    error = capsys.readouterr().err
    assert "annotations.json:2, record 1: column judge is missing" in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("zstd", [False, True])
def test_a_member_that_unpacks_to_too_much_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zstd: bool
) -> None:
    monkeypatch.setattr(inspect_log, "MAX_MEMBER_BYTES", 2**20)
    members = {
        "header.json": {"version": 2, "eval": {"model": "m", "task": "t"}},
        "samples/1_epoch_1.json": {"id": "x" * 2**21},
    }
    path = tmp_path / "log.eval"
    path.write_bytes(format_samples.archive(members, zstd=zstd))
    assert zstd or path.stat().st_size < 2**16
    with pytest.raises(
        InvalidInput, match=r"samples/1_epoch_1\.json: larger than 1 MB unpacked, the most that is read"
    ):
        read_log(path)
    monkeypatch.setattr(inputs, "MAX_UNPACKED_BYTES", 2**20)
    with pytest.raises(
        InvalidInput, match=r"log\.eval: holds 0\.00195 GB unpacked, and 0\.000976562 GB are read at most"
    ):
        read_log(path)


JUNK = (None, True, 0, -1, 3.5, "", "x", [], {}, [1], {"a": 1}, "\ud800", [{"role": "user"}], '[{"role": 1}]', 10**400)
TOOLS = ("chatbot_arena", "preferences", "promptfoo", "openai_evals", "deepeval", "ragas")


def _places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a record, of lists in their first entries."""
    entries = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*above, key)
        yield from _places(entry, (*above, key))


@pytest.mark.parametrize("tool", TOOLS)
def test_a_damaged_log_is_read_or_refused_in_one_sentence(tool: str, tmp_path: Path) -> None:
    logs = []
    for place, path in enumerate(sorted(path for path in (FORMATS / tool).rglob("*") if path.is_file())):
        table = path.suffix == ".csv"
        content: Any = pd.read_csv(path, dtype=str).to_dict("records") if table else records(str(path.relative_to(FORMATS)))  # fmt: skip
        whole = path.suffix == ".json"
        logs.append((tmp_path / f"m{place}{'.json' if whole else '.jsonl'}", content))
    places = list(_places(logs[0][1]))
    for number in range(25):
        stream = random.Random(f"{tool}{number}")
        damaged = json.loads(json.dumps(logs[0][1]))
        *above, last = stream.choice(places)
        holder = functools.reduce(lambda value, key: value[key], above, damaged)
        holder[last] = stream.choice(JUNK)
        for path, content in ((logs[0][0], damaged), *logs[1:]):
            lines = (json.dumps(line) + "\n" for line in content)
            path.write_text(json.dumps(content) if path.suffix == ".json" else "".join(lines))
        try:
            log = read_log([path for path, _ in logs], format=tool)
        except (InvalidInput, ExperimentError) as error:
            said = str(error)
        else:
            said = ""
            assert len(log.judgments)
        assert "\n" not in said
        assert len(said) < 600


def test_half_a_surrogate_pair_in_a_column_that_is_only_kept_stops_nothing(tmp_path: Path) -> None:
    row = {"item_id": "i", "judge": "j", "order": "ab", "verdict": "first", "note": "a \ud83d b"}
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert read_log(path).judgments["note"].tolist() == ["a ? b"]
    path.write_text(json.dumps({**row, "text_a": "x", "text_b": "y"}) + "\n")
    assert read_log(path).judgments["note"].tolist() == ["a ? b"]
