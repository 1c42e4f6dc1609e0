"""Replicates and shards as tasks of Ray: on a real cluster of two workers the results are those of this process, whatever dies meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import audit_pairs
import judgeloop
from command_line import command
from conftest import Served, small_experiment, tables, without, write_experiment
from judgeloop.commands import audit, ray_executor
from judgeloop.commands.ray_executor import Cluster, Unit, _Budget, _execute, _Order, _Outcome
from judgeloop.commands.session import EndpointRecord, Session
from judgeloop.errors import BudgetReached, EndpointFailed, InvalidInput
from judgeloop.experiment.schema import Endpoint
from judgeloop.rundir import RunFolder
from judgeloop.serving.faults import Faults, Rule
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Ledger

Serve = Callable[..., Served]
pytestmark = pytest.mark.xdist_group("ray")  # one cluster for all of them
SLOW = Faults(rules=(Rule(kind="slow", delay_s=0.02, times="always"),))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A cluster of two workers on this machine, to which this process is connected."""
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    signal.signal(signal.SIGTERM, before)
    yield
    ray.shutdown()


def recorded(folder: Path) -> dict[tuple[str, str], Any]:
    """(call id, key) → response of every recorded call."""
    return {(e.call, e.key): (e.status, e.response) for e in Cassette(folder, writable=False).exchanges()}


def facts(folder: Path) -> dict[str, Any]:
    """environment.json without what says how it was asked."""
    content = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return {name: value for name, value in content.items() if name != "executor"}


def assert_same(folder: Path, local: Path) -> None:
    assert tables(folder) == tables(local)
    assert (folder / "estimates.csv").read_bytes() == (local / "estimates.csv").read_bytes()
    assert recorded(folder) == recorded(local)
    assert not (folder / ".ray").exists()


def worker_of(folder: Path, unit: str) -> int | None:
    """The process that holds the lock of a unit."""
    lock = folder / ".ray" / unit / ".lock"
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.readlink() == lock:
                return int(descriptor.parts[2])
        except OSError:
            continue
    return None


@pytest.mark.slow
def test_a_worker_is_killed_and_the_results_are_those_of_one_process(
    tmp_path: Path, serve: Serve, cluster: None
) -> None:
    served = serve(faults=SLOW)
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url))
    killed: list[int] = []

    def kill() -> None:
        while sum(call.startswith("s1/") for call in list(served.asked)) < 15:
            time.sleep(0.01)
        worker = worker_of(tmp_path / "ray", "s1")
        assert worker is not None
        os.kill(worker, signal.SIGKILL)
        killed.append(worker)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    on_ray = judgeloop.run(experiment, out=tmp_path / "ray", executor="ray")
    killer.join(timeout=1)
    assert killed
    share = 8 // 3  # two workers and this process
    assert sum(count - 1 for count in served.asked.values()) <= share
    local = judgeloop.run(experiment, out=tmp_path / "local")
    assert_same(on_ray.path, local.path)
    assert facts(on_ray.path) == facts(local.path)


@pytest.mark.slow
def test_an_audit_by_shards(
    tmp_path: Path, serve: Serve, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(audit, "_SHARD_ITEMS", 5)
    served = serve()
    source = audit_pairs.write(tmp_path / "pairs.jsonl", audit_pairs.pairs(12))
    asked: dict[str, Any] = {
        "model": "planted",
        "base_url": served.base_url,
        "probes": "padding,bold",
        "concurrency": 6,
    }
    local = judgeloop.audit(source, out=tmp_path / "local", **asked)
    calls = sum(served.asked.values())
    on_ray = judgeloop.audit(source, out=tmp_path / "ray", executor="ray", max_calls=calls, **asked)
    assert sum(served.asked.values()) == 2 * calls
    assert_same(on_ray.path, local.path)
    assert facts(on_ray.path) == facts(local.path)
    assert sorted(path.name for path in (on_ray.path / "calls").glob("shard-*")) == [f"shard-0000{n}" for n in range(3)]
    judgeloop.audit(source, out=tmp_path / "ray", **asked)
    assert sum(served.asked.values()) == 2 * calls


@pytest.mark.slow
@pytest.mark.tables
def test_the_budget_is_shared_out_and_errors_are_those_of_one_process(
    tmp_path: Path, serve: Serve, cluster: None
) -> None:
    served = serve()
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url))
    with pytest.raises(BudgetReached, match="budget of 40 calls is reached"):
        judgeloop.run(experiment, out=tmp_path / "run", max_calls=40)
    with pytest.raises(BudgetReached, match=r"s\d: its share of the budget is used up"):
        judgeloop.run(experiment, out=tmp_path / "run", executor="ray", max_calls=90)
    assert 40 < sum(served.asked.values()) <= 90
    judgeloop.run(experiment, out=tmp_path / "run", executor="ray", max_calls=2000)
    assert max(served.asked.values()) == 1
    broken = serve(faults=Faults(rules=(Rule(match="s1/", status=500, times="always"),)))
    raw = small_experiment(broken.base_url)
    raw["endpoints"]["m"]["attempts"] = 1
    with pytest.raises(EndpointFailed, match="none of 9 drafts of generation 0 has a text"):
        judgeloop.run(write_experiment(tmp_path / "in2", raw), out=tmp_path / "broken", executor="ray")


@pytest.mark.slow
@pytest.mark.tables
def test_sigterm_lets_the_workers_calls_in_flight_end(
    tmp_path: Path, serve: Serve, cluster: None, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve(faults=Faults(rules=(Rule(kind="slow", delay_s=0.2, times="always"),)))
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url))

    def stop() -> None:
        while sum(call.startswith("s") for call in list(served.asked)) < 10:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop, daemon=True)
    stopper.start()
    assert command("run", experiment, "--out", tmp_path / "run", "--executor", "ray") == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("run the same command to resume")
    asked = dict(served.asked)
    judgeloop.run(experiment, out=tmp_path / "run")  # either executor goes on where the other stopped
    assert {call: served.asked[call] for call in asked} == asked


def test_what_a_worker_lacks_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        return

    keyed = Endpoint(base_url="http://127.0.0.1:9", model="m", api_key_env="JUDGE_KEY")
    order = _Order("s0", nothing, tmp_path, "token", {"m": keyed}, None, None, True)
    monkeypatch.setattr(ray_executor, "_SHARED_S", 0.0)
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    outcome = _execute(order)
    assert outcome.error is not None
    assert outcome.error[0] == "FolderMismatch"
    assert "does not see this folder; give an --out on a file system that all nodes share" in outcome.error[1]
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "token").write_text("token", encoding="utf-8")
    outcome = _execute(order)
    assert outcome.error is not None
    assert outcome.error[0] == "InvalidInput"
    assert "JUDGE_KEY is not set for the Ray worker" in outcome.error[1]
    monkeypatch.setenv("JUDGE_KEY", "secret-of-the-node")
    assert _execute(order).error is None
    assert "secret-of-the-node" not in repr(order)


def test_what_ray_cannot_do_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = small_experiment("http://127.0.0.1:9")

    def refused(match: str, experiment: dict[str, Any] = raw, **options: Any) -> None:
        path = write_experiment(tmp_path / "in", experiment)
        with pytest.raises(InvalidInput, match=match):
            judgeloop.run(path, out=tmp_path / "run", **{"executor": "ray", **options})
        assert not (tmp_path / "run").exists()

    refused("must be local or ray, not 'slurm'", executor="slurm")
    with monkeypatch.context() as patch:
        without(patch, "ray")
        refused(r'Ray is not installed; run: pip install "judgeloop\[ray\]"')
    monkeypatch.setattr(ray_executor.importlib.util, "find_spec", lambda _: object())
    refused("client: an object of this process", client=object())
    refused("--replay asks no endpoint", replay=tmp_path)
    alone = small_experiment("http://127.0.0.1:9")
    alone["endpoints"]["m"]["concurrency"] = 1
    refused(r"endpoints\.m\.concurrency: 1 call at a time", alone)
    with monkeypatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "127.0.0.1:9")
        refused("RAY_ADDRESS: nothing answers at 127.0.0.1:9")
    pairs = audit_pairs.write(tmp_path / "pairs.jsonl", audit_pairs.pairs(2))
    for options, match in (
        ({"batch": True}, "batch files are answered elsewhere"),
        ({"mode": "pointwise"}, "shards are of pairs"),
    ):
        with pytest.raises(InvalidInput, match=match):
            judgeloop.audit(
                pairs, model="m", base_url="http://127.0.0.1:9", out=tmp_path / "a", executor="ray", **options
            )


def test_all_processes_together_keep_to_an_endpoint_s_limits() -> None:
    endpoint = Endpoint(base_url="http://127.0.0.1:9", model="m", concurrency=7, per_minute=600)

    session = Session(RunFolder("run"), "", {"m": endpoint}, {}, {})
    for workers in (1, 3, 100):
        cluster = Cluster(session, workers)
        share = cluster.share_of(session.endpoints)["m"]
        at_once = cluster.workers + 1
        assert cluster.workers == min(workers, 6)
        assert share.concurrency * at_once <= 7
        assert share.per_minute == pytest.approx(600 / at_once)


@pytest.mark.parametrize("at_once", [1, 3])
def test_what_was_answered_before_leaves_its_share_of_the_budget_to_others(at_once: int) -> None:
    # 600 of 1,000 calls were asked by one process; ten shards of 100 calls then need 400 of the 600 that are left.
    ledger = Ledger(max_calls=1200, attempts=600)
    budget, left = _Budget.of(ledger, shares=1000, own=0), [*[0] * 6, *[100] * 4]
    running: list[tuple[str, int]] = []
    for number, needed in enumerate(left):
        most, _ = budget.take(Unit(f"shard-{number}", lambda *_: None, 100))
        assert most is not None
        assert most >= needed
        running.append((f"shard-{number}", needed))
        if len(running) == at_once:
            unit, spent = running.pop(0)
            ledger.count(spent, 0.0)
            budget.ended(unit, ledger, _Outcome(EndpointRecord(None), spent, 0.0))
    for unit, spent in running:
        ledger.count(spent, 0.0)
        budget.ended(unit, ledger, _Outcome(EndpointRecord(None), spent, 0.0))
    assert ledger.attempts == 1000
    assert budget.calls == pytest.approx(200)
    assert ledger.max_calls == 1000  # this process had no share
