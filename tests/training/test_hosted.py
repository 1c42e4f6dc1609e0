"""Training by an endpoint's fine-tuning API, over HTTP to the local server's: jobs are paid for once, whatever breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

import judgeloop
from conftest import Served, small_experiment, tables, write_experiment
from judgeloop.cli import main
from judgeloop.errors import BudgetReached, EndpointFailed, TrainingFailed
from judgeloop.records import Message, TrainingPair
from judgeloop.serving.faults import Faults, Rule
from judgeloop.training.hosted import examples
from judgeloop.wire.cassette import Cassette

Serve = Callable[..., Served]
pytestmark = [pytest.mark.at_hand, pytest.mark.tables, pytest.mark.usefixtures("quick_retries")]
ARMS = {"longer": {"judge": {"kind": "rule", "feature": "length"}}, "random": {"judge": {"kind": "random"}}}


def _experiment(tmp_path: Path, served: Served, *, price: dict[str, float] | None = None, **changes: Any) -> Path:
    policy = {"kind": "hosted", "endpoint": "m"}
    raw = small_experiment(
        served.base_url, policy=policy, arms=ARMS, panels={"anchor": 0}, replicates=1, candidates_per_item=6
    )
    raw.pop("signal")
    raw["endpoints"]["m"] |= {"price": price} if price else {}
    return write_experiment(tmp_path / "in", {**raw, **changes})


def _listed(served: Served, what: str) -> list[dict[str, Any]]:
    """What stands at the server: files or fine_tuning/jobs."""
    return list(httpx2.get(f"{served.base_url}/{what}").json()["data"])


def test_a_run_trains_at_the_endpoint_and_drafts_from_what_came_back(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = _experiment(tmp_path, served, generations=2)
    run = judgeloop.run(path, out=tmp_path / "run")
    jobs = {job["id"]: job for job in _listed(served, "fine_tuning/jobs")}
    assert len(jobs) == 4
    exchanges = {exchange.call: exchange for exchange in Cassette(run.path, writable=False).exchanges()}
    trained = exchanges["s0/g0/train/longer"].response
    job = jobs[trained["job"]]
    assert (trained["model"], trained["metrics"]["tokens"]) == (job["fine_tuned_model"], job["trained_tokens"])
    assert exchanges["s0/g1/draft/longer/rain/g1k0"].request["model"] == trained["model"]
    second = jobs[exchanges["s0/g1/train/longer"].response["job"]]
    assert second["model"] == trained["model"]  # reference: previous
    lengths = run.candidates.query("generation == 2 and n_drawn > 0").groupby("arm")["length"].mean()
    assert lengths["longer"] > lengths["random"] + 0.3
    replayed = judgeloop.run(path, replay=run.path, out=tmp_path / "replayed")
    assert tables(replayed.path) == tables(run.path)
    assert len(_listed(served, "fine_tuning/jobs")) == 4


def test_the_lines_of_a_training_file_are_those_of_the_api() -> None:
    pairs = [
        TrainingPair((Message("system", "s"), Message("user", "q")), "good", "bad", 1.0),
        TrainingPair("q", "good", "poor", 0.5),
    ]
    dpo = [json.loads(line) for line in examples(pairs, "dpo")]
    assert dpo[0] == {
        "input": {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        "preferred_output": [{"role": "assistant", "content": "good"}],
        "non_preferred_output": [{"role": "assistant", "content": "bad"}],
    }
    sft = [json.loads(line) for line in examples([*pairs, pairs[1]], "sft")]
    assert len(sft) == 2
    assert sft[1]["messages"] == [{"role": "user", "content": "q"}, {"role": "assistant", "content": "good"}]


@pytest.mark.parametrize(
    ("broken", "fails"), [("fine_tuning/create", False), ("fine_tuning/retrieve", True), ("files/create", True)]
)
def test_a_broken_connection_makes_no_second_job(tmp_path: Path, serve: Serve, broken: str, fails: bool) -> None:
    """Both attempts lose the answer after the request had its effect. A job that was created is found; else the same command goes on."""
    served = serve(faults=Faults(rules=(Rule(match=broken, kind="reset", times=2),)))
    path = _experiment(tmp_path, served)
    if fails:
        with pytest.raises(EndpointFailed, match="2 attempts failed"):
            judgeloop.run(path, out=tmp_path / "run", report=False)
    run = judgeloop.run(path, out=tmp_path / "run", report=False)
    jobs = {job["id"] for job in _listed(served, "fine_tuning/jobs")}
    trained = [e.response["job"] for e in Cassette(run.path, writable=False).exchanges() if "/train/" in e.call]
    assert sorted(trained) == sorted(jobs)
    assert len(jobs) == 2


def test_a_job_that_fails_ends_the_run_with_the_endpoints_reason(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _experiment(tmp_path, serve(), candidates_per_item=2)
    with pytest.raises(TrainingFailed, match=r"s0/g0/longer: job ftjob-\w+ failed .* training takes 10 or more"):
        judgeloop.run(path, out=tmp_path / "run")
    assert not (tmp_path / "run/training/s0/g0/longer/job.json").exists()
    with pytest.raises(SystemExit) as stopped:
        main(["run", str(path), "--out", str(tmp_path / "run")])
    assert stopped.value.code == 4
    assert "mend the cause and run the same command again" in capsys.readouterr().err


def test_a_job_is_within_the_budget_and_counted_at_its_price(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = _experiment(tmp_path, served, price={"training": 25.0})
    with pytest.raises(BudgetReached, match=r"budget of 0\.01 USD"):
        judgeloop.run(path, out=tmp_path / "run", max_cost=0.01)
    assert _listed(served, "files") == []
    run = judgeloop.run(path, out=tmp_path / "run", max_cost=5.0)
    tokens = sum(job["trained_tokens"] for job in _listed(served, "fine_tuning/jobs"))
    assert json.loads((run.path / "environment.json").read_text())["cost_usd"] == pytest.approx(tokens * 25e-6)


def test_an_endpoint_without_the_api_is_refused_in_a_sentence(tmp_path: Path, serve: Serve) -> None:
    served = serve(faults=Faults(rules=(Rule(match="fine_tuning/create", status=404, times="always"),)))
    with pytest.raises(EndpointFailed, match=r"no fine-tuning API here .* policy\.kind command"):
        judgeloop.run(_experiment(tmp_path, served), out=tmp_path / "run")
