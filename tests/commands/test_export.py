"""Preferences and requests as other tools take them: checked by those tools' own loaders and schemas where they install."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from openai.types.chat import ChatCompletionAssistantMessageParam, ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

import judgeloop
from command_line import command
from conftest import serving, small_experiment, tables_alone, write_experiment
from format_samples import FORMATS
from judgeloop.commands.export import export
from judgeloop.errors import InvalidInput, StorageFailed
from judgeloop.interchange.preferences import Preference, net_preferences, openai_preference, trl_dpo, trl_kto
from judgeloop.records import PREFERENCE_COLUMNS, Call, split_custom_id
from judgeloop.wire import batch_files
from judgeloop.wire.cassette import Cassette


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of two arms against a planted judge with a taste for length."""
    folder = tmp_path_factory.mktemp("export")
    with serving(at_hand=True) as serve:
        served = serve(position=0.3, length=1.5, draft={"length_mean": 30, "length_sd": 0.6})
        raw = small_experiment(served.base_url, generations=1, replicates=2)
        with tables_alone():
            done = judgeloop.run(write_experiment(folder, raw), out=folder / "run")
        yield done.path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def exported(folder: Path, kind: str, out: Path, **options: Any) -> list[dict[str, Any]]:
    done = export(folder, kind, out, **options)
    assert done.files[0] == out
    return lines(out)


# -- training data ---------------------------------------------------------------------------------------------------


def test_dpo_lines_are_the_arms_net_preferences(run_folder: Path, tmp_path: Path) -> None:
    exported_lines = exported(run_folder, "trl-dpo", tmp_path / "dpo.jsonl")
    run = judgeloop.open(run_folder)
    table = run.folder.table("preferences")
    table = table[(table["arm"] == "judge") & (table["generation"] == table["generation"].max())]
    texts = run.candidates.set_index(["replicate", "arm", "generation", "item_id", "candidate_id"])["text"]
    prompts = run.folder.table("items").set_index("item_id")["prompt"]
    balance: Counter[tuple[str, str, str]] = Counter()
    for row in table.to_dict("records"):
        place = (row["replicate"], row["arm"], row["generation"], row["item_id"])
        chosen, rejected = str(texts[(*place, row["chosen"])]), str(texts[(*place, row["rejected"])])
        sides = tuple(sorted((chosen, rejected)))
        balance[prompts[row["item_id"]], sides[0], sides[1]] += row["weight"] * (1 if chosen == sides[0] else -1)
    expected = {(prompt, a, b) if net > 0 else (prompt, b, a) for (prompt, a, b), net in balance.items() if abs(net) > 1e-9 and a != b}  # fmt: skip
    assert {(line["prompt"][0]["content"], line["chosen"][0]["content"], line["rejected"][0]["content"]) for line in exported_lines} == expected  # fmt: skip
    longer = [len(line["chosen"][0]["content"]) > len(line["rejected"][0]["content"]) for line in exported_lines]
    assert sum(longer) / len(longer) > 0.6  # the planted judge pays for length


def test_every_training_format_has_its_tools_shape(run_folder: Path, tmp_path: Path) -> None:
    messages = TypeAdapter(list[ChatCompletionMessageParam])
    assistant = TypeAdapter(list[ChatCompletionAssistantMessageParam])
    dpo = exported(run_folder, "trl-dpo", tmp_path / "d.jsonl")
    for line in dpo:
        assert set(line) == {"prompt", "chosen", "rejected"}
        messages.validate_python(line["prompt"], strict=True)
        assert assistant.validate_python(line["chosen"]) != assistant.validate_python(line["rejected"])
    kto = exported(run_folder, "trl-kto", tmp_path / "k.jsonl")
    assert {line["label"] for line in kto} == {True, False}
    for line in kto:
        assert set(line) == {"prompt", "completion", "label"}
        messages.validate_python(line["prompt"])
        assistant.validate_python(line["completion"])
    tuned = exported(run_folder, "openai-preference", tmp_path / "o.jsonl")
    assert len(tuned) == len(dpo)
    for line in tuned:
        assert set(line) == {"input", "preferred_output", "non_preferred_output"}
        assert messages.validate_python(line["input"]["messages"])[-1]["role"] == "user"
        for side in ("preferred_output", "non_preferred_output"):
            assert len(assistant.validate_python(line[side])) == 1


def test_datasets_loads_the_training_files(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the package datasets, TRL's loader, is not installed")
    turns = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    for kind, columns in (
        ("trl-dpo", ("prompt", "chosen", "rejected")),
        ("trl-kto", ("prompt", "completion", "label")),
    ):
        path = tmp_path / f"{kind}.jsonl"
        expected = exported(run_folder, kind, path)
        loaded = datasets.Dataset.from_json(str(path), cache_dir=str(tmp_path / "cache"))
        assert loaded.column_names == list(columns)
        assert loaded.features["prompt"] == datasets.Features({"x": turns})["x"]
        assert loaded.to_list() == expected
        if kind == "trl-kto":
            assert loaded.features["label"] == datasets.Value("bool")


def test_trl_knows_the_types(run_folder: Path, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl", reason="the package trl (extra train) is not installed")
    dpo = exported(run_folder, "trl-dpo", tmp_path / "d.jsonl")[0]
    datasets = pytest.importorskip("datasets", reason="the package datasets, TRL's loader, is not installed")
    assert trl.is_conversational(dpo)
    unpaired = trl.unpair_preference_dataset(datasets.Dataset.from_list([dpo]))
    kto = exported(run_folder, "trl-kto", tmp_path / "k.jsonl")[0]
    assert set(unpaired.column_names) == set(kto)
    assert trl.is_conversational(kto)


def _rows(*rows: tuple[str, str, float]) -> pd.DataFrame:
    return pd.DataFrame([
        dict.fromkeys(PREFERENCE_COLUMNS, "") | {"replicate": 0, "generation": 0, "item_id": "i", "chosen": a, "rejected": b, "weight": w}
        for a, b, w in rows
    ])  # fmt: skip


def test_soft_weights_and_both_orders_become_one_net_preference_a_pair() -> None:
    rows = _rows(("x", "y", 0.9), ("y", "x", 0.1), ("y", "x", 0.6), ("x", "y", 0.4), ("x", "z", 0.5), ("z", "x", 0.5), ("y", "w", 1.0))  # fmt: skip
    texts = {"x": "X", "y": "Y", "z": "Z", "w": "Y"}
    net = net_preferences(rows, lambda _, name: texts[name], {"i": "?"})
    assert [(preference.chosen, preference.rejected) for preference in net] == [
        ("X", "Y")
    ]  # x and z cancel; y and w are one text
    assert net[0].margin == pytest.approx(0.3)


def test_kto_labels_a_text_by_its_balance() -> None:
    group = ("0", "judge", "1", "i")
    pairs = [Preference(group, "?", "A", "B", 1.0, "a"), Preference(group, "?", "B", "C", 0.4, "b"), Preference(group, "?", "C", "D", 0.4, "c")]  # fmt: skip
    assert {line["completion"][0]["content"]: line["label"] for line in trl_kto(pairs)} == {
        "A": True,
        "B": False,
        "D": False,
    }
    assert [line["chosen"][0]["content"] for line in trl_dpo(pairs)] == ["A", "B", "C"]
    assert openai_preference(pairs)[0]["input"]["messages"] == [{"role": "user", "content": "?"}]


@pytest.mark.tables
def test_an_analysis_exports_its_judges_preferences(tmp_path: Path) -> None:
    folder = judgeloop.analyze(FORMATS / "mt_bench", out=tmp_path / "a").path
    exported_lines = exported(folder, "trl-dpo", tmp_path / "d.jsonl", judge="gpt-4#pair-v2")
    assert 10 < len(exported_lines) <= 22
    longer = [len(line["chosen"][0]["content"]) > len(line["rejected"][0]["content"]) for line in exported_lines]
    assert sum(longer) / len(longer) > 0.8
    consistent = exported(folder, "trl-dpo", tmp_path / "c.jsonl", judge="gpt-4#pair-v2", label_rule="consistent_only")
    assert len(consistent) <= len(exported_lines)
    with pytest.raises(
        InvalidInput, match=r"2 judges \(gpt-4#pair-v2, gpt-4#pair-v2-multi-turn\); say whose preferences"
    ):
        export(folder, "trl-dpo", tmp_path / "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "trl-dpo", "arm": "none"}, "--arm none: no preferences of that arm"),
        ({"format": "trl-dpo", "generation": 9}, "--generation 9: no preferences there (arm judge has 0 to"),
        ({"format": "openai-batch", "stage": "all-of-it"}, "--stage all-of-it: not one of judge, draft, all"),
        ({"format": "csv"}, "--format csv: not one of trl-dpo"),
        ({"format": "labels", "effect": 0.0}, "--effect: must be above 0"),
    ],
)
def test_what_a_folder_does_not_hold_is_said(
    run_folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        export(run_folder, out=tmp_path / "x", **options)
    assert message in str(caught.value)
    assert not (tmp_path / "x").exists()


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batch_requests_are_the_live_calls(run_folder: Path, tmp_path: Path) -> None:
    exported_lines = exported(run_folder, "openai-batch", tmp_path / "b.jsonl")
    cassette = Cassette(run_folder, writable=False)
    body = TypeAdapter(CompletionCreateParamsNonStreaming)
    assert len({line["custom_id"] for line in exported_lines}) == len(exported_lines)
    for line in exported_lines:
        assert (line["method"], line["url"]) == ("POST", "/v1/chat/completions")
        body.validate_python(line["body"])
        call, digest = split_custom_id(line["custom_id"])
        key = Call(call, "", line["body"]).key
        assert cassette.get(call, key) is not None
        assert digest == key[7:19]
    calls = {exchange.call for exchange in cassette.exchanges() if "/trial/" not in exchange.call}
    stages = {
        stage: exported(run_folder, "openai-batch", tmp_path / "s.jsonl", stage=stage) for stage in ("draft", "all")
    }
    assert {split_custom_id(line["custom_id"])[0] for line in stages["all"]} == calls
    assert {split_custom_id(line["custom_id"])[0] for line in [*exported_lines, *stages["draft"]]} == calls


def test_a_batch_file_bears_one_model_and_no_more_than_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 3)
    requests = [(f"c{n}", {"model": "m" if n % 2 else "n", "messages": []}) for n in range(10)]
    written = batch_files.write_requests(requests, tmp_path / "b.jsonl")
    assert [path.name for path in written] == ["b.jsonl", "b-2.jsonl", "b-3.jsonl", "b-4.jsonl"]
    parts = [lines(path) for path in written]
    assert all(len({line["body"]["model"] for line in part}) == 1 and len(part) <= 3 for part in parts)
    assert sorted(split_custom_id(line["custom_id"])[0] for part in parts for line in part) == sorted(
        name for name, _ in requests
    )
    monkeypatch.setattr(batch_files, "MOST_REQUESTS", 100)
    monkeypatch.setattr(batch_files, "MOST_BYTES", 300)
    assert all(path.stat().st_size <= 300 for path in batch_files.write_requests(requests, tmp_path / "c.jsonl"))
    with pytest.raises(InvalidInput, match="two requests have the call id 'c1'"):
        batch_files.write_requests([requests[1], requests[1]], tmp_path / "d.jsonl")
    assert batch_files.write_requests([], tmp_path / "e.jsonl") == []
    surrogate = batch_files.write_requests(
        [("s", {"model": "m", "messages": [{"role": "user", "content": "\ud800"}]})], tmp_path / "f"
    )
    assert lines(surrogate[0])[0]["body"]["messages"][0]["content"] == "\ud800"
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageFailed, match="cannot be written"):
        batch_files.write_requests(requests, tmp_path / "file" / "b.jsonl")


def output(call: str, response: Any, error: Any = None) -> dict[str, Any]:
    return {"id": "batch_req_1", "custom_id": call, "response": response, "error": error}


def test_a_batchs_output_is_read_back_as_answers(tmp_path: Path) -> None:
    completion = {"choices": [{"message": {"role": "assistant", "content": "A"}}]}
    rows = [
        output("a", {"status_code": 200, "request_id": "r", "body": completion}),
        output("b", {"status_code": 400, "request_id": "r", "body": {"error": {"message": "too long"}}}),
        output("c", None, {"code": "batch_expired", "message": "This request could not be executed in time."}),
    ]
    paths = [tmp_path / "o.jsonl", tmp_path / "e.jsonl"]
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in rows[:1]))
    paths[1].write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    assert [batch_files.answer_at(place) for path in paths for place in batch_files.places(path)] == [
        batch_files.BatchAnswer("a", 200, completion), batch_files.BatchAnswer("b", 400, {"error": {"message": "too long"}}, "http_400"),
        batch_files.BatchAnswer("c", 0, {"error": rows[2]["error"]}, "batch_expired"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"custom_id": "a", "error": None}, "o.jsonl:2: response: is empty"),
        ({"response": {"status_code": 200, "body": {}}}, "o.jsonl:2: column custom_id is missing"),
        (output("b", "text"), "o.jsonl:2: response: must have status_code"),
        (output("b", {"body": {}}), "o.jsonl:2: response.status_code: must be a whole number"),
        (output("b", {"status_code": 200, "body": "text"}), "o.jsonl:2: response.body: must be a chat completion"),
    ],
)
def test_a_fault_of_a_batchs_output_names_line_and_field(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    path = tmp_path / "o.jsonl"
    good = output("a", {"status_code": 200, "body": {}})
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    first, second = batch_files.places(path)
    assert (first.call, first.fault) == ("a", "")
    assert message in second.fault


def test_the_command_writes_and_says_what(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("export", run_folder, "--format", "trl-kto", "--out", tmp_path / "sub" / "k.jsonl") == 0
    message = capsys.readouterr().out
    assert "net preferences of arm judge, generation" in message
    assert str(tmp_path / "sub" / "k.jsonl") in message
    assert command("export", tmp_path, "--format", "trl-dpo", "--out", tmp_path / "x") == 2
    assert "not a run folder" in capsys.readouterr().err
    assert command("export", run_folder, "--format", "trl-dpo", "--collect", "x.csv", "--out", tmp_path / "x") == 2
    assert "it goes with --format labels" in capsys.readouterr().err
