"""A reward model as the signal: a planted taste is inherited over HTTP, a coin teaches nothing, and a run resumes and replays."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import judgeloop
from conftest import Served, serving, small_experiment, tables, write_experiment
from judgeloop.cli import main
from judgeloop.commands.run import design_of
from judgeloop.errors import BudgetReached, EndpointFailed, ExperimentError, InvalidInput
from judgeloop.experiment.resolve import Material, load, resolve
from judgeloop.results import Run
from judgeloop.rundir import TABLES
from judgeloop.serving.faults import Faults, Rule
from judgeloop.stats.design import RunTables
from judgeloop.stats.loop.amplification import reward_accuracy_estimates, signal_slope_estimates
from judgeloop.text.features import FEATURES

Serve = Callable[..., Served]
REWARD = {"kind": "reward_model", "endpoint": "m"}
POOL: dict[str, Any] = {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 4}, "signal": REWARD}
EXEMPLAR: dict[str, Any] = {"policy": {"kind": "exemplar", "endpoint": "m", "exemplars": 2}, "signal": REWARD}


def experiment(folder: Path, base_url: str, items: int = 3, **changes: Any) -> Path:
    listed = [{"item_id": f"q{n}", "prompt": f"What is number {n}?"} for n in range(items)]
    return write_experiment(folder, small_experiment(base_url, **{**POOL, **changes}), listed)


def told(run: Run, arm: str, term: str) -> Any:
    """The estimate of an arm's signal at generation 0, or of the whole run."""
    estimates = run.estimates
    found = estimates[(estimates["scope"] == "signal") & (estimates["arm"] == arm) & (estimates["term"] == term)]
    return found[found["generation"].fillna(0) == 0].iloc[0]


# -- what is learned -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inherited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over HTTP whose judge has a taste for length alone, and a coin."""
    folder = tmp_path_factory.mktemp("inherited")
    with serving() as start:
        served = start(position=0.5, length=1.5, draft={"length_mean": 30, "length_sd": 0.6, "markdown": 0.6})
        path = experiment(
            folder / "in", served.base_url, 14, replicates=3, panels={"anchor": 28}, signal={**REWARD, "ridge": 0.01},
            judge={"endpoint": "m", "verdict": "logprob"},
            arms={"judge": {}, "random": {"judge": {"kind": "random"}}},
        )  # fmt: skip
        return judgeloop.run(path, out=folder / "run", report=False)


def test_a_planted_taste_for_length_is_inherited_and_nothing_else(inherited: Run) -> None:
    slope = told(inherited, "judge", "signal_slope_length")
    assert slope["verdict"] == "found"
    assert slope["unit"] == "log-odds per doubling"
    # The penalty, small as it is, takes a little of the planted 1.5.
    assert slope["estimate"] == pytest.approx(1.5, abs=0.1)
    assert 0 < slope["std_error"] < 0.05
    passed = told(inherited, "judge", "transmission_length")
    assert passed["estimate"] == pytest.approx(1.0, abs=0.07)
    assert passed["conf_low"] < passed["estimate"] < passed["conf_high"]
    estimates = inherited.estimates.query("arm == 'judge' and generation == 0")
    others = estimates[estimates["term"].str.startswith("signal_slope_") & (estimates["term"] != "signal_slope_length")]
    assert len(others)
    assert others["estimate"].abs().max() < 0.1
    accuracy = told(inherited, "judge", "reward_accuracy")
    assert accuracy["verdict"] == "found"
    # Soft verdicts: no reward predicts more of the weight than each pair's better side has.
    taught = inherited.folder.table("preferences").query("arm == 'judge' and generation == 0")
    sides = taught.groupby(["replicate", "item_id", "pair_id", "chosen"])["weight"].sum()
    best = sides.groupby(level=[0, 1, 2]).max().groupby(level=0).sum() / sides.groupby(level=0).sum()
    assert best.mean() - 0.02 < accuracy["estimate"] <= best.mean()
    learned = inherited.folder.table("signals").query("arm == 'judge' and feature == 'order'")["coefficient"]
    assert learned.to_numpy() == pytest.approx(0.5, abs=0.02)


def test_its_reward_moves_the_policy(inherited: Run) -> None:
    texts = inherited.candidates.query("arm == 'judge' and generation == 0 and replicate == 0").set_index("item_id")
    for _, pool in texts.groupby(level=0):
        assert np.corrcoef(pool["reward"], pool["length"])[0, 1] > 0.9
        tilted = pool["p_current"] * np.exp(pool["reward"] - pool["reward"].max())
        assert pool["p_selected"].to_numpy() == pytest.approx((tilted / tilted.sum()).to_numpy())
    drift = inherited.estimates.query("term == 'did_length' and generation == 1 and category == '' and variant == ''")
    assert drift["estimate"].item() > 0.1
    selected = inherited.estimates.query("term == 'compounding_length' and arm == 'judge'")
    assert selected["benchmark"].isna().all()  # of a reward that is no sum of features none is known


@pytest.mark.slow
@pytest.mark.tables
@pytest.mark.at_hand
def test_a_coin_is_told_to_teach_nothing_as_often_as_an_interval_says(tmp_path: Path, serve: Serve) -> None:
    """Sixteen groups of four replicates: their 95 % intervals leave out the truth in about one of twenty."""
    served = serve(draft={"length_mean": 30, "length_sd": 0.6, "markdown": 0.4})
    path = experiment(
        tmp_path, served.base_url, 12, replicates=64, panels={"anchor": 24}, judge={"kind": "random"},
        arms={"random": {}},
    )  # fmt: skip
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    made = RunTables(**{name: run.folder.table(name) for name in TABLES})
    design = design_of(load(path), {"random": "random"})
    scale = dict.fromkeys(FEATURES, 1.0)
    missed: dict[str, list[bool]] = {}
    for _, signals in made.signals.groupby(made.signals["replicate"] // 4):
        part = replace(made, signals=signals)
        for row in (*signal_slope_estimates(part, design, scale), *reward_accuracy_estimates(signals, design)):
            null = 0.5 if row.term == "reward_accuracy" else 0.0
            assert row.conf_low is not None
            assert row.conf_high is not None
            missed.setdefault(row.term, []).append(not row.conf_low <= null <= row.conf_high)
    assert {"signal_slope_length", "reward_accuracy"} <= set(missed)
    print({term: f"{sum(misses)} of {len(misses)}" for term, misses in missed.items()})
    for term, misses in missed.items():
        # Of 16, more than 4 are missed at 5 % with probability 0.001.
        assert sum(misses) <= 4, (term, sum(misses))
    accuracy = made.signals.query("feature == 'accuracy'")["coefficient"]
    assert accuracy.mean() == pytest.approx(0.5, abs=4 * accuracy.std() / len(accuracy) ** 0.5)


# -- what is asked -------------------------------------------------------------------------------------------------------


@pytest.mark.at_hand
@pytest.mark.tables
@pytest.mark.parametrize("kind", ["pool", "exemplar"])
def test_texts_are_embedded_once_as_planned_and_a_run_resumes_and_replays(tmp_path: Path, serve: Serve, kind: str) -> None:  # fmt: skip
    served = serve()
    path = experiment(
        tmp_path / "in", served.base_url, **{**(POOL if kind == "pool" else EXEMPLAR), "signal": {**REWARD, "ridge": 1.0}},
        generations=2, replicates=1,
        # One arm chooses its penalty itself: that takes most of a fit's time, and asks nothing.
        arms={
            "judge": {}, "best": {"signal": {"update": "best_of_n"}}, "named": {"signal": {"prompt": "reward", "ridge": None}},
            "random": {"judge": {"kind": "random"}},
        },
    )  # fmt: skip
    planned = Material.read(load(path))
    with pytest.raises(BudgetReached):
        judgeloop.run(path, out=tmp_path / "run", max_calls=60)
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    assert {call for call, count in served.asked.items() if count > 1} == set()
    embedded = [call for call in served.asked if "/embed/" in call and "/trial/" not in call]
    by_arm = {one.arm: one.calls for one in planned.planned() if one.kind == "embeddings"}
    shared = 8 + (12 if kind == "pool" else 9)
    drafts = 0 if kind == "pool" else 9
    assert by_arm == {"judge": shared + drafts, "best": drafts, "named": shared + drafts, "random": drafts}
    assert len(embedded) == sum(by_arm.values())
    assert ("s0/g0/embed/m/q0/k1" if kind == "pool" else "s0/g0/embed/m/q0/g0k1") in embedded
    assert any(call.startswith("panels/g0/embed/m/reward/q0/anchor") for call in embedded)
    assert any(call.startswith("s0/g1/embed/m/judge/q0/g1k") for call in embedded) == (kind == "exemplar")
    assert sum(served.asked.values()) <= planned.planned_calls() + 2  # and the trials
    calls = sum(served.asked.values())
    again = judgeloop.run(path, out=tmp_path / "again", replay=tmp_path / "run", report=False)
    whole = judgeloop.run(path, out=tmp_path / "whole", report=False)
    assert sum(served.asked.values()) == 2 * calls
    for other in (again, whole):
        assert tables(other.path) == tables(run.path)


def test_embeddings_are_planned_with_their_tokens_and_price(tmp_path: Path) -> None:
    raw = small_experiment("http://127.0.0.1:9/v1", **POOL)
    raw["endpoints"]["e"] = {"base_url": "http://127.0.0.1:9/v1", "model": "e", "price": {"input": 2.0, "output": 99.0}}
    raw["signal"] = {**REWARD, "endpoint": "e"}
    made = judgeloop.plan(write_experiment(tmp_path, raw), answer_tokens=100)
    [load_of_arm] = [load for load in made.loads if load.what == "embeddings, arm judge"]
    assert (load_of_arm.calls, load_of_arm.endpoint) == (8 + 2 * 3 * 4, "e")
    assert load_of_arm.prompt.likely == pytest.approx(32 * 100)
    assert load_of_arm.completion.high == 0
    assert load_of_arm.cost is not None
    assert load_of_arm.cost.likely == pytest.approx(32 * 100 * 2.0 / 1e6)
    calls = sum(load.calls for load in made.loads if not load.what.endswith("(at most)"))
    assert calls == made.planned_calls


@pytest.mark.at_hand
def test_another_embedding_model_is_another_experiment(tmp_path: Path) -> None:
    raw = small_experiment("http://127.0.0.1:9/v1", **POOL)
    raw["endpoints"]["e"] = {"base_url": "http://127.0.0.1:9/v1", "model": "e"}
    identities = {
        resolve({**raw, "signal": signal}).identity({})
        for signal in (REWARD, {**REWARD, "endpoint": "e"}, {**REWARD, "ridge": 1.0}, {**REWARD, "prompt": "reward"})
    }
    assert len(identities) == 4


# -- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"signal": {"kind": "reward_model"}}, "signal.endpoint: required key is missing"),
        ({"signal": {**REWARD, "endpoint": "none"}}, "arms.judge.signal.endpoint: 'none' is not among `endpoints`"),
        ({"signal": {**REWARD, "endpoint": "engine"}}, "engine llama_cpp of 'engine' serves no embeddings"),
        ({"signal": {**REWARD, "ridge": 0}}, "signal.ridge: must be more than 0"),
        ({"signal": {**REWARD, "label_rule": "length_controlled"}}, "signal.label_rule: must be one of raw, swap_average, consistent_only"),
        ({"policy": {"kind": "command", "endpoint": "m", "command": ["true"]}}, "reward_model does not go with policy.kind command"),
    ],
)  # fmt: skip
def test_a_block_that_is_wrong_is_refused(change: dict[str, Any], fault: str) -> None:
    raw = small_experiment("http://127.0.0.1:1/v1", **{**POOL, **change})
    raw["endpoints"]["engine"] = {"engine": "llama_cpp", "model": "smollm2-135m"}
    with pytest.raises(ExperimentError, match=fault):
        resolve(raw)


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (Rule(match="/embed/", status=404, times="always", message="no such page"), r"no such page \(asked /embeddings\); check base_url and model, then run"),
        (Rule(match="/embed/", status=501, times="always", message="start it with embeddings"), r"planted gave no embedding of a trial text by /embeddings \(start it with embeddings\); serve an embedding model"),
        (Rule(match="/embed/", kind="null_content", times="always"), r"answered panels/g0/embed/trial/m with an embedding with a number that is not finite"),
    ],
)  # fmt: skip
def test_an_endpoint_without_embeddings_ends_the_run_before_it_costs_anything(
    tmp_path: Path, serve: Serve, rule: Rule, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(faults=Faults(rules=(rule,)))
    path = experiment(tmp_path / "in", served.base_url)
    with pytest.raises(EndpointFailed, match=sentence) as caught:
        judgeloop.run(path, out=tmp_path / "run", report=False)
    assert "\n" not in str(caught.value)
    assert not any("/draft/" in call for call in served.asked)
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(path), "--out", str(tmp_path / "run"), "--quiet"])
    assert stopped.value.code == 4
    assert "embed" in capsys.readouterr().err


@pytest.mark.tables
@pytest.mark.usefixtures("quick_retries")
def test_a_server_that_is_mended_is_asked_again(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(match="/embed/trial/", status=501, times=2),)))
    path = experiment(tmp_path / "in", served.base_url, arms={"judge": {}}, replicates=1)
    with pytest.raises(EndpointFailed, match="no embedding of a trial"):
        judgeloop.run(path, out=tmp_path / "run", report=False)
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    assert "accuracy" in set(run.folder.table("signals")["feature"])


def test_a_text_that_is_too_long_to_embed_is_left_out(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(match="s0/g0/embed/m/q1/k1$", kind="context_length", times="always"),)))
    path = experiment(tmp_path / "in", served.base_url, arms={"judge": {}}, replicates=1)
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    texts = run.candidates.query("arm == 'judge' and generation == 0")
    lacks = (texts["item_id"] == "q1") & (texts["candidate_id"] == "k1")
    assert lacks.sum() == 1
    assert texts["reward"].isna().equals(lacks)
    assert texts.loc[lacks, "p_selected"].item() == pytest.approx(texts.loc[lacks, "p_current"].item())
    assert texts.groupby("item_id")["p_selected"].sum().to_numpy() == pytest.approx(1.0)


@pytest.mark.tables
def test_embeddings_of_two_lengths_and_equal_ones_end_the_run(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = experiment(tmp_path / "in", served.base_url, arms={"judge": {}}, replicates=1, panels={"anchor": 0})
    whole = judgeloop.run(path, out=tmp_path / "run", report=False)
    part = whole.path / "calls/s0/g00-embed.jsonl"
    lines = [json.loads(line) for line in part.read_text().splitlines()]
    for name, vectors, sentence in (
        ("lengths", ["AAAAAAAAgD8=", "AAAAAAAAgD8AAIA/"], "gave embeddings of 2 and of 3 numbers; serve one model"),
        ("equal", ["AAAAAAAAgD8="], "gives all texts of an item the same embedding"),
    ):
        for number, line in enumerate(lines):
            line.pop("checksum", None)
            line["response"]["data"][0]["embedding"] = vectors[number % len(vectors)]
        part.write_text("".join(json.dumps(line) + "\n" for line in lines))
        with pytest.raises(EndpointFailed, match=sentence):
            judgeloop.run(path, out=tmp_path / name, replay=whole.path, report=False)


def test_a_forecast_needs_a_taste_for_features(tmp_path: Path, serve: Serve, inherited: Run) -> None:
    with pytest.raises(InvalidInput, match=r"signal\.kind reward_model: what a head learns of embeddings is not known"):
        judgeloop.forecast(inherited.path, 2)
