"""Training by a command: its files, what is recorded of it, resuming, replaying, failing, and training by hand."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import yaml

import judgeloop
from conftest import ITEMS, Served, asked_to_load, small_experiment, tables, tables_alone, write_experiment
from judgeloop.cli import main
from judgeloop.commands.forecast import BEFORE
from judgeloop.errors import (
    AnswersOutstanding,
    EndpointFailed,
    ExperimentError,
    FolderMismatch,
    ReplayMiss,
    TrainingFailed,
)
from judgeloop.records import served_name
from judgeloop.rundir import RunFolder, as_csv
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.training.command import _end_earlier, _model, _started, forget_mended, weights_digest
from judgeloop.wire.cassette import Cassette

Serve = Callable[..., Served]
pytestmark = pytest.mark.at_hand
EXAMPLE = Path(__file__).parents[2] / "examples" / "train_planted.py"
ARMS = {"longer": {"judge": {"kind": "rule", "feature": "length"}}, "random": {"judge": {"kind": "random"}}}
# Trains to 60 tokens in the arm "longer" and to 30 elsewhere; counts its runs beside the run folder.
SHELL = """
grep -q '"arm": "longer"' training.json && n=60 || n=30
printf '{"model": "planted@length_mean=%s", "metrics": {"loss": 0.5}}' $n > model.json
printf x >> "$0"
"""


def _experiment(tmp_path: Path, served: Served, command: list[str] | None = None, **changes: Any) -> Path:
    command = command or ["sh", "-c", SHELL, str(tmp_path / "runs")]
    policy = {"kind": "command", "endpoint": "m", "command": command, **changes.pop("policy", {})}
    raw = small_experiment(served.base_url, policy=policy, arms=ARMS, panels={"anchor": 0}, replicates=1)
    raw.pop("signal")
    return write_experiment(tmp_path / "in", {**raw, **changes})


def _trainings(tmp_path: Path) -> int:
    """How often the command was run."""
    counted = tmp_path / "runs"
    return len(counted.read_text()) if counted.exists() else 0


def _mean_length(run: judgeloop.Run, arm: str, generation: int) -> float:
    rows = run.candidates.query("arm == @arm and generation == @generation and n_drawn > 0")
    return float(rows["length"].mean())


@pytest.mark.tables
def test_the_example_trainer_lengthens_what_a_rule_for_length_picks(tmp_path: Path, serve: Serve) -> None:
    run = judgeloop.run(_experiment(tmp_path, serve(), [sys.executable, str(EXAMPLE)]), out=tmp_path / "run")
    assert _mean_length(run, "longer", 0) == _mean_length(run, "random", 0)
    left = {e.call: e.response for e in Cassette(run.path, writable=False).exchanges() if "/train/" in e.call}
    gap = [left[f"s0/g0/train/{arm}"]["metrics"]["log2_tokens"] for arm in ("longer", "random")]
    assert gap[0] > gap[1] + 0.1
    assert left["s0/g0/train/longer"]["model"] == f"planted@length_mean={2 ** gap[0]:.4f}"
    folder = tmp_path / "run/training/s0/g0/longer"
    assert "chosen texts have" in (folder / "log.txt").read_text()
    pairs = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    assert {"prompt", "chosen", "rejected", "weight"} == set(pairs[0])
    assert all(len(pair["chosen"].split()) >= len(pair["rejected"].split()) for pair in pairs)
    assert 0 < min(pair["weight"] for pair in pairs) <= 1
    settings = json.loads((folder / "training.json").read_text())
    assert set(settings) == {
        "experiment",
        "arm",
        "generation",
        "replicate",
        "seed",
        "model",
        "base",
        "reference",
        "folder",
    }
    assert (settings["arm"], settings["model"], settings["base"]) == ("longer", "planted", "planted")
    assert settings["folder"] == str(folder.resolve())


@pytest.mark.slow
@pytest.mark.tables
def test_where_a_training_leaves_what_was_chosen_accumulate_drifts_less_than_replace(
    tmp_path: Path, serve: Serve
) -> None:
    # The limit of fine-tuning on the chosen texts. DPO steps on from where it is: docs/quickstart.md does not show that it drifts less.
    arms = {name: {**ARMS["longer"], "strategy": {"kind": name}} for name in ("replace", "accumulate")}
    path = _experiment(
        tmp_path, serve(), [sys.executable, str(EXAMPLE)], arms=arms, generations=3, replicates=2, candidates_per_item=4,
        policy={"at_once": 2},
    )  # fmt: skip
    items = [{"item_id": f"i{k}", "prompt": f"Say something about {k}."} for k in range(12)]
    write_experiment(path.parent, yaml.safe_load(path.read_text()), items)
    run = judgeloop.run(path, out=tmp_path / "run")
    lengths = run.candidates.query("n_drawn > 0").groupby(["replicate", "arm", "generation"])["length"].mean().unstack()
    drifts = (lengths[3] - lengths[0]).unstack()
    assert (drifts["accumulate"] > 0.2).all()
    assert (drifts["replace"] > drifts["accumulate"] + 0.2).all()


@pytest.mark.tables
def test_drafts_come_from_the_trained_model_whose_weights_their_key_names(tmp_path: Path, serve: Serve) -> None:
    run = judgeloop.run(_experiment(tmp_path, serve(), generations=2), out=tmp_path / "run")
    exchanges = {exchange.call: exchange for exchange in Cassette(run.path, writable=False).exchanges()}
    training = exchanges["s0/g0/train/longer"]
    metrics = dict(training.response["metrics"])
    assert 0 <= metrics.pop("seconds") < 60  # which the command did not state
    assert {**training.response, "metrics": metrics} == {
        "model": "planted@length_mean=60", "weights": "", "metrics": {"loss": 0.5},
    }  # fmt: skip
    assert {"training_set", "configuration", "start", "pairs", "seed"} == set(training.request)
    first, later = exchanges["s0/g0/draft/rain/g0k0"], exchanges["s0/g1/draft/longer/rain/g1k0"]
    assert (first.request["model"], first.weights) == ("planted", "")
    assert (later.request["model"], later.weights) == ("planted@length_mean=60", training.key)
    assert exchanges["s0/g1/train/longer"].request["start"] == training.key
    again = json.loads((run.path / "training/s0/g1/longer/training.json").read_text())
    assert (again["model"], again["base"]) == ("planted@length_mean=60", "planted")
    assert _trainings(tmp_path) == 4


def test_a_change_is_split_into_what_was_chosen_what_was_mixed_in_and_what_the_training_made_of_it(
    tmp_path: Path, serve: Serve
) -> None:
    arms = {**ARMS, "mixed": {**ARMS["longer"], "strategy": {"kind": "accumulate"}}}
    run = judgeloop.run(_experiment(tmp_path, serve(), replicates=2, generations=2, arms=arms), out=tmp_path / "run")
    rows = run.estimates[(run.estimates["category"] == "") & (run.estimates["variant"] == "")]
    table = rows[rows["contrast"] == ""].pivot_table("estimate", ["arm", "generation"], "term")
    parts = table[["selection_length", "mixing_length", "learning_length"]]
    for arm in arms:
        changes = np.diff([0.0, *table.loc[arm, "drift_length"].loc[1:]])
        assert parts.loc[arm].sum(axis=1).loc[:1].to_numpy() == pytest.approx(changes, abs=1e-9)
    assert parts.loc["longer", "mixing_length"].abs().max() < 1e-12
    assert parts.loc[("mixed", 1), "mixing_length"] != 0
    # The training sets themselves, as the command read them.
    candidates = run.candidates[run.candidates["n_drawn"] > 0]
    lengths = {(row.item_id, row.text): row.length for row in candidates.itertuples()}
    prompts = {item["prompt"]: item["item_id"] for item in ITEMS}
    for arm, generation in (("longer", 0), ("mixed", 1)):
        gaps = []
        for replicate in (0, 1):
            folder = run.path / f"training/s{replicate}/g{generation}/{arm}"
            chosen: dict[str, list[float]] = {}
            for line in (folder / "preferences.jsonl").read_text().splitlines():
                pair = json.loads(line)
                item = prompts[pair["prompt"]]
                chosen.setdefault(item, []).append(lengths[item, pair["chosen"]])
            drawn = candidates.query("replicate == @replicate and arm == @arm and generation == @generation")
            means = drawn.groupby("item_id")["length"].mean()
            gaps.append(np.mean([np.mean(chosen.get(item, mean)) - mean for item, mean in means.items()]))
        split = parts.loc[(arm, generation), ["selection_length", "mixing_length"]].sum()
        assert split == pytest.approx(np.mean(gaps), abs=1e-9)
    compounding = rows[rows["term"] == "compounding_length"]
    assert compounding["benchmark"].isna().all()
    forecast = rows[(rows["term"] == "forecast_drift_length") & (rows["arm"] == "longer")]
    assert set(forecast["note"]) == {"3 items with a pair judged in both orders; a forecast needs 10"}


def test_generation_0_forecasts_a_range_and_the_first_step_repeats_itself(tmp_path: Path, serve: Serve) -> None:
    items = [{"item_id": f"i{k}", "prompt": f"Say something about {k}."} for k in range(12)]
    path = _experiment(tmp_path, serve(), replicates=2, generations=3)
    write_experiment(path.parent, yaml.safe_load(path.read_text()), items)
    run = judgeloop.run(path, out=tmp_path / "run")
    trainings = [part.stat().st_mtime_ns for part in run.path.glob("training/*/*/*/preferences.jsonl")]
    assert (run.path / BEFORE).stat().st_mtime_ns < min(trainings)
    # What was stored then is what the report shows.
    shown = run.estimates[run.estimates["term"].str.startswith("forecast_") & (run.estimates["variant"] == "")]
    assert (run.path / BEFORE).read_text() == as_csv(shown)
    rows = run.estimates[(run.estimates["arm"] == "longer") & (run.estimates["category"] == "")]
    forecast = rows[rows["term"] == "forecast_drift_length"].set_index(["variant", "generation"])
    selected = forecast.loc[("", 1), "estimate"]
    assert selected == pytest.approx(
        rows.query("term == 'selection_length' and generation == 0")["estimate"].iloc[0], rel=0.5
    )
    for t in (1, 2, 3):
        row = forecast.loc[("", t)]
        assert row["estimate"] == pytest.approx(t * selected)
        assert row["conf_low"] == 0.0 < 2 * row["estimate"] < row["conf_high"]
    first = rows.query("term == 'did_length' and generation == 1")["estimate"].iloc[0]
    assert forecast.loc[("first_step", 3), "estimate"] == pytest.approx(3 * first)
    assert ("first_step", 1) not in forecast.index
    further = judgeloop.forecast(run.path, 5).rows
    own = further[(further["arm"] == "longer") & (further["term"] == "forecast_drift_length")]
    assert sorted(own.loc[own["variant"] == "first_step", "generation"]) == [1, 2, 3, 4, 5]


@pytest.mark.tables
def test_a_training_that_ended_is_never_run_again_and_a_replay_needs_neither_command_nor_model(
    tmp_path: Path, serve: Serve
) -> None:
    served = serve()
    script = tmp_path / "train.sh"
    script.write_text(SHELL.replace('"$0"', f'"{tmp_path}/runs"'))
    path = _experiment(tmp_path, served, ["sh", str(script)])
    first = judgeloop.run(path, out=tmp_path / "run")
    written, asked = tables(first.path), sum(served.asked.values())
    assert _trainings(tmp_path) == 2
    script.unlink()
    judgeloop.run(path, out=tmp_path / "run")
    replayed = judgeloop.run(path, replay=tmp_path / "run", out=tmp_path / "replayed")
    assert (_trainings(tmp_path), sum(served.asked.values())) == (2, asked)
    assert tables(first.path) == tables(replayed.path) == written
    assert not (replayed.path / "training").exists()
    other = _experiment(tmp_path, served, ["sh", "other.sh"])
    with pytest.raises(ReplayMiss, match=r"s0/g0/train/.* configuration"):
        judgeloop.run(other, replay=tmp_path / "run", out=tmp_path / "missed")


@pytest.mark.tables
def test_a_run_whose_training_failed_resumes_to_the_tables_of_one_that_did_not(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    script = tmp_path / "train.sh"
    path = _experiment(tmp_path, served, ["sh", str(script)], generations=2)
    good = SHELL.replace('"$0"', f'"{tmp_path}/runs"')
    script.write_text(good)
    whole = judgeloop.run(path, out=tmp_path / "whole")
    script.write_text("grep -q '\"generation\": 1' training.json && echo no luck && exit 3\n" + good)
    with pytest.raises(TrainingFailed, match=r"'sh' ended with exit code 3 \(see .*log\.txt\)") as failed:
        judgeloop.run(path, out=tmp_path / "run")
    assert failed.value.exit_code == 4
    script.write_text(good)
    assert tables(judgeloop.run(path, out=tmp_path / "run").path) == tables(whole.path)
    assert (tmp_path / "run/training/s0/g1/longer/log.txt").read_text() == "no luck\n"
    # Two in the whole run's second generation; the first generation's two were not run again.
    assert _trainings(tmp_path) == 8


@pytest.mark.tables
@pytest.mark.parametrize(
    ("command", "policy", "sentence"),
    [
        (["sh", "-c", "exit 7"], {}, "ended with exit code 7"),
        (["sh", "-c", "true"], {}, "ended and left no "),
        (["sh", "-c", "sleep 60"], {"timeout_s": 0.05}, "did not end within policy.timeout_s, 0.05 s"),
        (["sh", "-c", "echo '{' > model.json"], {}, "model.json: cannot be read as JSON"),
        (["sh", "-c", "echo '[]' > model.json"], {}, "must be a JSON object"),
        (["sh", "-c", "echo '{}' > model.json"], {}, "names no model; give `model`"),
        (["sh", "-c", """echo '{"model": 3}' > model.json"""], {}, "model must be text"),
        (["sh", "-c", """echo '{"model": "m", "base_url": "m:1"}' > model.json"""], {}, "base_url must start with http"),
        (["sh", "-c", """echo '{"model": "m", "adapter": "gone"}' > model.json"""], {}, "adapter 'gone': no weights are at"),
        (["sh", "-c", """echo '{"model": "m", "metrics": {"loss": "low"}}' > model.json"""], {}, "metrics must be numbers"),
    ],
)  # fmt: skip
def test_a_command_that_leaves_no_model_ends_the_run_with_one_sentence(
    tmp_path: Path, serve: Serve, command: list[str], policy: dict[str, Any], sentence: str
) -> None:
    path = _experiment(tmp_path, serve(), command, policy=policy)
    with pytest.raises(TrainingFailed) as failed:
        judgeloop.run(path, out=tmp_path / "run")
    assert sentence in str(failed.value)
    assert "\n" not in str(failed.value)


@pytest.mark.parametrize("program", ["pythn", "./pythn", "py\0thon", "items.jsonl"])
def test_a_command_that_is_no_program_is_refused_before_anything_is_asked(
    tmp_path: Path, serve: Serve, program: str
) -> None:
    served = serve()
    with pytest.raises(ExperimentError, match=r"policy\.command: .* is no program that can be run here; give"):
        judgeloop.run(_experiment(tmp_path, served, [program]), out=tmp_path / "run")
    assert not served.asked


@pytest.mark.tables
def test_a_command_may_be_mended_until_a_training_has_ended(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    (tmp_path / "in").mkdir()
    script = tmp_path / "in/train"  # is named as seen from the experiment's file, and runs elsewhere
    script.write_text("#!/no/such/program\n")
    script.chmod(0o755)
    with pytest.raises(TrainingFailed, match=r"'.*/in/train' cannot be run"):
        judgeloop.run(_experiment(tmp_path, served, ["./train"]), out=tmp_path / "run")
    asked = served.asked.total()
    script.write_text(SHELL.replace('"$0"', f'"{tmp_path}/runs"'))
    judgeloop.run(_experiment(tmp_path, served, ["sh", "train"]), out=tmp_path / "run")
    drafted = [call for call in served.asked if call.startswith("s0/g1/draft/")]
    assert (_trainings(tmp_path), served.asked.total()) == (2, asked + len(drafted))
    before = (tmp_path / "run/experiment.yaml").read_bytes()
    other = _experiment(tmp_path, served, ["sh", "other"], seed=5, policy={"timeout_s": 5.0})
    with pytest.raises(FolderMismatch, match="answers stand here: seed is 0 there and 5 here; give"):
        judgeloop.run(other, out=tmp_path / "run")
    with pytest.raises(FolderMismatch, match=r"its trainings were made by policy\.command sh train; restore that, or"):
        judgeloop.run(_experiment(tmp_path, served, ["sh", "other"]), out=tmp_path / "run")
    assert (tmp_path / "run/experiment.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"model": "  "}', "model must be text"),
        (r'{"model": "\ud800"}', "model must be text"),
        (r'{"model": "\u001b[31mred"}', "model must be text"),
        (json.dumps({"model": "m" * 10_000}), "model must be text of at most 1000 characters"),
        (r'{"model": "m", "adapter": "a\u0000"}', "adapter must be text"),
        (json.dumps({"model": "m", "adapter": "a" * 900}), "adapter 'a{60}…' cannot be read"),
        ('{"model": "m", "adaptor": "adapter"}', "unknown key 'adaptor'; did you mean adapter"),
        ('{"model": "m", "metrics": {"loss": 0.5, "note": "good"}}', "metrics must be numbers by name, and 'note' is none"),
        ('{"model": "m", "metrics": {"loss": true}}', "metrics must be numbers by name, and 'loss' is none"),
        ("9" * (17 << 20), "has more than 16 MB"),
        (None, "is no file"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_model_that_cannot_be_meant_is_refused_with_both_ways_on(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    path = tmp_path / "model.json"
    os.mkfifo(path) if content is None else path.write_text(content)
    with pytest.raises(TrainingFailed, match=f"model.json: {sentence}.*; mend this file and run judgeloop step") as failed:  # fmt: skip
        _model(path, tmp_path)
    assert str(failed.value).isprintable()


def test_a_model_may_be_written_with_a_byte_order_mark_and_keys_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"model": "m", "trained_by": "me"}', encoding="utf-8-sig")
    assert _model(tmp_path / "model.json", tmp_path) == {"model": "m", "weights": "", "metrics": {}}


def test_what_a_command_started_is_ended_with_it_where_it_does_not_listen(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("judgeloop.training.command._GRACE_S", 0.3)
    # The first process has ended when it is told; its child does not listen.
    child = """trap "" TERM; while sleep .02; do echo x >> late; done"""
    script = f"sh -c '{child}' & until [ -s late ]; do sleep .01; done; exit 3"
    with pytest.raises(TrainingFailed, match="ended with exit code 3"):
        judgeloop.run(_experiment(tmp_path, serve(), ["sh", "-c", script]), out=tmp_path / "run")
    [late] = (tmp_path / "run").rglob("late")
    size = late.stat().st_size
    time.sleep(0.2)
    assert late.stat().st_size == size > 0


@pytest.mark.tables
@pytest.mark.usefixtures("quick_retries")
def test_a_model_with_a_mistaken_name_is_named_anew_by_step_and_not_trained_again(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    answerer = PlantedAnswerer(PlantedSpec.model_validate({"model": "other"}))
    with LocalServer(create_app(answerer)) as elsewhere:
        wrong = f', "base_url": "{elsewhere.base_url}"}}'
        script = SHELL.replace("}}'", "}" + wrong + "'")
        path = _experiment(tmp_path, served, ["sh", "-c", script, str(tmp_path / "runs")])
        named = r"HTTP 404.*; if model\.json names the wrong one, mend that and run judgeloop step in place of judgeloop run once$"
        with pytest.raises(EndpointFailed, match=named):
            judgeloop.run(path, out=tmp_path / "run")
        trained = _trainings(tmp_path)
        for model in (tmp_path / "run").rglob("model.json"):
            model.write_text(model.read_text().replace(wrong, "}"))
        with pytest.raises(EndpointFailed):  # what is recorded is changed by step alone
            judgeloop.run(path, out=tmp_path / "run")
    for _ in range(2):  # with a single slot, the first failure may have come before the second arm's training
        with suppress(AnswersOutstanding):
            judgeloop.step(path, out=tmp_path / "run")
    run = judgeloop.run(path, out=tmp_path / "run")
    assert run.candidates.query("generation == 1")["text"].notna().all()
    assert _trainings(tmp_path) <= max(trained, 2)
    asked = served.asked.total()
    for model in (tmp_path / "run").rglob("model.json"):  # what it drafted stands, whatever the file says now
        model.write_text('{"model": "another"}')
    assert tables(judgeloop.step(path, out=tmp_path / "run").path) == tables(run.path)
    assert served.asked.total() == asked


@pytest.mark.tables
def test_an_arm_whose_command_says_a_loss_that_is_not_finite_stops_with_its_reason_and_the_others_go_on(
    tmp_path: Path, serve: Serve
) -> None:
    wild = f"""{SHELL}
    if grep -q '"arm": "wild"' training.json; then echo '{{"metrics": {{"loss": NaN, "steps": 1{"0" * 400}}}}}' > model.json; fi"""
    arms = {**ARMS, "wild": ARMS["longer"]}
    path = _experiment(tmp_path, serve(), ["sh", "-c", wild, str(tmp_path / "runs")], arms=arms, generations=2)
    run = judgeloop.run(path, out=tmp_path / "run")
    left = {e.call: e.response for e in Cassette(run.path, writable=False).exchanges() if "/train/" in e.call}
    assert left["s0/g0/train/wild"]["stopped"] == "training_diverged"
    assert left["s0/g0/train/wild"]["metrics"]["loss"] == "nan"
    later = run.candidates[run.candidates["generation"] > 0]
    assert set(later.loc[later["arm"] == "wild", "reason"]) == {"training_diverged"}
    assert set(later.loc[later["arm"] != "wild", "reason"]) == {""}
    # It is trained no more: three arms once, and two of them again.
    assert _trainings(tmp_path) == len(left) == 3 + 2
    assert tables(judgeloop.run(path, replay=run.path, out=tmp_path / "replayed").path) == tables(run.path)


@pytest.mark.tables
@pytest.mark.parametrize("loss", ["Infinity", "-Infinity", "NaN"])
def test_the_loss_of_a_diverged_training_has_the_names_that_trainers_give_it(tmp_path: Path, loss: str) -> None:
    (tmp_path / "model.json").write_text(f'{{"model": "m", "adapter": "gone", "metrics": {{"train_loss": {loss}}}}}')
    assert _model(tmp_path / "model.json", tmp_path)["stopped"] == "training_diverged"
    (tmp_path / "model.json").write_text(f'{{"model": "m", "metrics": {{"loss": 0.1, "margin": {loss}}}}}')
    assert "stopped" not in _model(tmp_path / "model.json", tmp_path)


@pytest.mark.tables
def test_a_model_left_by_an_earlier_training_is_not_taken_for_this_one_s(tmp_path: Path, serve: Serve) -> None:
    path = _experiment(tmp_path, serve(), ["sh", "-c", "true"])
    folder = tmp_path / "run/training/s0/g0/longer"
    with pytest.raises(TrainingFailed):
        judgeloop.run(path, out=tmp_path / "run")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text('{"model": "planted@length_mean=60"}')
    with pytest.raises(TrainingFailed, match="left no"):
        judgeloop.run(path, out=tmp_path / "run")


@pytest.mark.tables
def test_a_model_may_answer_elsewhere_and_its_adapter_is_known_by_its_weights(tmp_path: Path, serve: Serve) -> None:
    served, elsewhere = serve(), serve(model="policy", draft={"length_mean": 100})
    script = f"""printf w > adapter.safetensors; printf d > README.md
    echo '{{"model": "policy", "base_url": "{elsewhere.base_url}", "adapter": "."}}' > model.json"""
    run = judgeloop.run(_experiment(tmp_path, served, ["sh", "-c", script]), out=tmp_path / "run")
    assert {call.split("/")[1] for call in elsewhere.asked} == {"g1"}
    assert _mean_length(run, "longer", 1) > _mean_length(run, "longer", 0) + 1
    [training] = [e for e in Cassette(run.path, writable=False).exchanges() if e.call == "s0/g0/train/longer"]
    assert training.response["adapter"] == "training/s0/g0/longer"
    assert training.response["weights"] == weights_digest(run.path / "training/s0/g0/longer")
    (run.path / "training/s0/g0/longer/README.md").write_text("another date")
    assert training.response["weights"] == weights_digest(run.path / "training/s0/g0/longer")


@pytest.mark.parametrize(
    ("base_url", "sentence"),
    [
        ("http://[::1", "base_url is no address"),
        ("http://me:secret@host/v1", "no user name or password"),
        ("http://host/v1?key=k", "must end before [?]"),
    ],
)
def test_an_address_that_cannot_be_asked_or_holds_a_key_is_refused_before_it_is_recorded(
    tmp_path: Path, base_url: str, sentence: str
) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"model": "m", "base_url": base_url}))
    with pytest.raises(TrainingFailed, match=f"model.json: .*{sentence}") as failed:
        _model(tmp_path / "model.json", tmp_path)
    assert "secret" not in str(failed.value)


@pytest.mark.usefixtures("quick_retries")
def test_a_trained_model_that_does_not_answer_is_named_and_asked_again_without_another_training(
    tmp_path: Path, serve: Serve
) -> None:
    def server(*models: str, port: int = 0) -> LocalServer:
        return LocalServer(create_app(PlantedAnswerer(PlantedSpec.model_validate({"model": list(models)}))), port=port)

    with server("other") as gone:
        base_url = gone.base_url
    script = f"""{SHELL}
    echo '{{"model": "mine", "base_url": "{base_url}"}}' > model.json"""
    items = [{"item_id": f"i{k}", "prompt": f"Say something about {k}."} for k in range(12)]
    path = _experiment(tmp_path, serve(), ["sh", "-c", script, str(tmp_path / "runs")])
    write_experiment(path.parent, yaml.safe_load(path.read_text()), items)
    place, port = re.escape(base_url), urlsplit(base_url).port or 0
    who = rf"s0/g1/draft/\w+: model mine, as its training left it: endpoint m \({place}, model mine\)"
    again = "then run the same command to resume; if model.json names the wrong one, mend that and run judgeloop step in place of judgeloop run once"
    with pytest.raises(EndpointFailed, match=f"^{who}: no server answers .*; start it, {again}$") as failed:
        judgeloop.run(path, out=tmp_path / "run")
    assert failed.value.exit_code == 4
    # No draft of generation 1 was made, and what is expected of it stands.
    assert not list((tmp_path / "run/calls").rglob("g01-draft*"))
    assert "forecast_drift_length" in set(pd.read_csv(tmp_path / "run" / BEFORE)["term"])
    # Nothing in model.json was mended: the duration that was recorded is not its own.
    assert forget_mended(Cassette(tmp_path / "run", writable=False), RunFolder(tmp_path / "run")) == []
    named = rf"^{who}: HTTP 404: .*does not exist.*; have the server give it this name, {again}$"
    with server("other", port=port), pytest.raises(EndpointFailed, match=named):
        judgeloop.run(path, out=tmp_path / "run")
    with server("mine", port=port), tables_alone():
        run = judgeloop.run(path, out=tmp_path / "run")
    assert run.candidates.query("generation == 1")["text"].notna().all()
    assert _trainings(tmp_path) == 2


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell when a process started")
def test_a_command_that_outlived_a_killed_session_is_ended_before_the_next_one_starts(tmp_path: Path) -> None:
    known = tmp_path / "process.json"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        # The number of a process that ended may be another one's by now.
        known.write_text(json.dumps({"pid": process.pid, "started": "1"}))
        asyncio.run(_end_earlier(known))
        assert process.poll() is None
        known.write_text(json.dumps({"pid": process.pid, "started": _started(process.pid)}))
        asyncio.run(_end_earlier(known))
        assert process.wait() == -signal.SIGTERM


@pytest.mark.tables
def test_an_adapter_without_a_name_is_loaded_by_the_server_and_drafted_with(tmp_path: Path, serve: Serve) -> None:
    (tmp_path / "twin").mkdir()
    (tmp_path / "twin/adapter.safetensors").write_text("weights")
    name = served_name(weights_digest(tmp_path / "twin"))
    served = serve(model=["planted", name])
    loaded = asked_to_load(served)
    script = """mkdir -p lora; printf weights > lora/adapter.safetensors; echo '{"adapter": "lora"}' > model.json"""
    path = _experiment(tmp_path, served, ["sh", "-c", script], arms={"longer": ARMS["longer"]}, generations=2)
    run = judgeloop.run(path, out=tmp_path / "run")
    folders = [run.path / f"training/s0/g{generation}/longer/lora" for generation in range(2)]
    assert loaded == [{"lora_name": name, "lora_path": str(folders[0].resolve())}]  # the second has the same weights
    second = json.loads((run.path / "training/s0/g1/longer/training.json").read_text())
    assert (second["model"], second["adapter"]) == (name, str(folders[0].resolve()))
    rows = run.candidates.query("generation > 0")
    assert rows["text"].notna().all()
    loaded.clear()
    again = judgeloop.run(path, replay=run.path, out=tmp_path / "again")
    assert tables(again.path) == tables(run.path)
    assert not loaded


@pytest.mark.tables
def test_by_hand_every_arm_and_replicate_waits_and_goes_on_where_its_model_stands(tmp_path: Path, serve: Serve) -> None:
    path = _experiment(tmp_path, serve(), replicates=2, panels={"anchor": 2}, arms={**ARMS, "judge": {}})
    with pytest.raises(AnswersOutstanding) as waits:
        judgeloop.step(path, out=tmp_path / "run")
    assert waits.value.exit_code == 6
    assert sorted(call for call, _ in waits.value.requests) == [
        f"s{replicate}/g0/train/{arm}" for replicate in (0, 1) for arm in ("judge", "longer", "random")
    ]
    for call, folder in waits.value.requests[1:]:
        (folder / "model.json").write_text(
            json.dumps({"model": f"planted@length_mean={60 if 'longer' in call else 30}"})
        )
    with pytest.raises(AnswersOutstanding) as waits:
        judgeloop.step(tmp_path / "run")
    [(_, folder)] = waits.value.requests
    (folder / "model.json").write_text(json.dumps({"model": "planted@length_mean=60"}))
    by_hand = judgeloop.step(tmp_path / "run")
    assert _trainings(tmp_path) == 0
    assert tables(by_hand.path) == tables(judgeloop.run(path, out=tmp_path / "run").path)
    assert tables(by_hand.path) == tables(judgeloop.run(path, out=tmp_path / "by_command").path)


@pytest.mark.tables
def test_the_command_line_lists_the_folders_that_wait_and_ends_with_exit_code_6(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _experiment(tmp_path, serve())
    with pytest.raises(SystemExit) as ended:
        main(["step", str(path), "--out", str(tmp_path / "run"), "--quiet"])
    assert ended.value.code == 6
    printed = capsys.readouterr()
    assert [line.split(": ")[0] for line in printed.out.splitlines()] == ["s0/g0/train/longer", "s0/g0/train/random"]
    assert "put model.json there, and run the same command again" in printed.err


@pytest.mark.tables
def test_a_prompt_of_messages_is_trained_on_as_messages(tmp_path: Path, serve: Serve) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    path = _experiment(tmp_path, serve())
    (path.parent / "items.jsonl").write_text(json.dumps({"item_id": "why", "prompt": turns}) + "\n")
    judgeloop.run(path, out=tmp_path / "run")
    lines = (tmp_path / "run/training/s0/g0/longer/preferences.jsonl").read_text().splitlines()
    pair = json.loads(lines[0])
    assert pair["prompt"] == turns
    assert [turn["role"] for turn in (*pair["chosen"], *pair["rejected"])] == ["assistant", "assistant"]


@pytest.mark.tables
def test_strategies_mix_the_pairs_that_are_trained_on(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    arms = {
        "replace": {}, "accumulate": {"strategy": {"kind": "accumulate"}},
        "subsample": {"strategy": {"kind": "accumulate_subsample"}}, "real": {"strategy": {"real_fraction": 0.5}},
        "file": {"strategy": {"real_fraction": 0.5, "real": "real.jsonl"}},
    }  # fmt: skip
    path = _experiment(
        tmp_path,
        served,
        generations=2,
        judge={"kind": "rule", "feature": "length"},
        arms={**arms, "random": ARMS["random"]},
    )
    lines = [json.dumps({"item_id": item["item_id"], "text": "It rains."}) for item in ITEMS]
    (path.parent / "real.jsonl").write_text("\n".join(lines))
    judgeloop.run(path, out=tmp_path / "run")

    def trained(arm: str, generation: int) -> list[str]:
        text = (tmp_path / f"run/training/s0/g{generation}/{arm}/preferences.jsonl").read_text()
        return text.splitlines()

    zero = trained("replace", 0)
    assert trained("accumulate", 0) == zero
    assert set(trained("accumulate", 1)) > set(zero)
    assert len(trained("accumulate", 1)) > len(trained("subsample", 1)) >= len(trained("replace", 1)) - 3
    assert np.mean([line in zero for line in trained("real", 1)]) == pytest.approx(0.5, abs=0.1)
    real = [json.loads(line)["chosen"] == "It rains." for line in trained("file", 1)]
    assert np.mean(real) == pytest.approx(0.5, abs=0.1)


@pytest.mark.tables
def test_a_real_text_makes_no_pair_with_a_draft_that_says_the_same(tmp_path: Path, serve: Serve) -> None:
    arms = {"judge": {"strategy": {"real_fraction": 1.0, "real": "real.jsonl"}}, "random": ARMS["random"]}
    path = _experiment(tmp_path, serve(), judge={"kind": "rule", "feature": "length"}, arms=arms)
    real = path.parent / "real.jsonl"

    def trained(out: str, texts: dict[str, str]) -> list[tuple[str, str]]:
        real.write_text("".join(json.dumps({"item_id": name, "text": text}) + "\n" for name, text in texts.items()))
        judgeloop.run(path, out=tmp_path / out)
        lines = (tmp_path / out / "training/s0/g0/judge/preferences.jsonl").read_text().splitlines()
        return [(pair["chosen"], pair["rejected"]) for pair in map(json.loads, lines)]

    others = trained("a", {item["item_id"]: "It rains." for item in ITEMS})
    assert {chosen for chosen, _ in others} == {"It rains."}
    candidates = pd.read_parquet(tmp_path / "a/tables/candidates").query("arm == 'judge' and generation == 0")
    texts = {
        item["item_id"]: candidates[(candidates["item_id"] == item["item_id"]) & (candidates["n_drawn"] > 0)][
            "text"
        ].iloc[0]
        for item in ITEMS
    }
    pairs = trained("b", texts)
    assert len(pairs) == len(others)
    assert {chosen for chosen, _ in pairs} == set(texts.values())
    assert all(chosen != rejected for chosen, rejected in pairs)


@pytest.mark.tables
def test_where_nothing_is_preferred_nothing_is_trained_and_the_model_stays(tmp_path: Path, serve: Serve) -> None:
    arms = {"gold": {"judge": {"kind": "gold"}}, "judge": {"judge": {"kind": "gold"}}}
    path = _experiment(tmp_path, serve(), arms=arms)
    run = judgeloop.run(path, out=tmp_path / "run")
    assert _trainings(tmp_path) == 0
    assert set(run.candidates["generation"]) == {0, 1}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"signal": {"kind": "bradley_terry"}}, "signal.kind: bradley_terry does not go with policy.kind command"),
        ({"signal": {"label_rule": "length_controlled"}}, "signal.label_rule: must be one of raw, swap_average"),
        ({"policy": {"command": []}}, "policy.command: must hold at least 1"),
    ],
)
def test_a_signal_that_fits_here_does_not_go_with_a_command(
    tmp_path: Path, serve: Serve, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ExperimentError) as wrong:
        judgeloop.run(_experiment(tmp_path, serve(), **changes), out=tmp_path / "run")
    assert sentence in str(wrong.value)


def test_step_needs_a_command(tmp_path: Path, serve: Serve) -> None:
    with pytest.raises(ExperimentError, match="nothing is trained by hand here"):
        judgeloop.step(write_experiment(tmp_path, small_experiment(serve().base_url)), out=tmp_path / "run")


@pytest.mark.tables
def test_a_plan_counts_trainings_and_their_drafts(tmp_path: Path, serve: Serve) -> None:
    path = _experiment(tmp_path, serve(), generations=2, replicates=2)
    loads = {load.what: load.calls for load in judgeloop.plan(path).loads}
    assert loads["drafts of trained models"] == 2 * 2 * 2 * 3 * 3
    assert loads["trainings (time and cost are not counted)"] == 2 * 2 * 2
    run = judgeloop.run(path, out=tmp_path / "run")
    assert judgeloop.plan(path).calls >= run.folder.environment()["calls"]
