"""A run that a limit, an endpoint or a signal ended is run again: the same tables byte for byte (kills: test_nothing_lost.py)."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import judgeloop
from conftest import Served, small_experiment, tables, write_experiment
from judgeloop.cli.app import interruptible
from judgeloop.cli.views import Quiet
from judgeloop.commands.session import unwrapped
from judgeloop.errors import ENDING, BudgetReached, EndpointFailed, Interrupted, StorageFailed
from judgeloop.serving.faults import Faults, Rule

Serve = Callable[..., Served]


@pytest.mark.slow
def test_a_budget_stops_the_run_and_a_larger_one_finishes_it(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url))
    with pytest.raises(BudgetReached, match="50 calls"):
        judgeloop.run(experiment, out=tmp_path / "run", max_calls=50)
    assert sum(served.asked.values()) == 50
    judgeloop.run(experiment, out=tmp_path / "run", max_calls=1000)
    assert max(served.asked.values()) == 1
    whole = judgeloop.run(experiment, out=tmp_path / "whole")
    assert tables(tmp_path / "run") == tables(whole.path)


@pytest.mark.tables
def test_an_endpoint_that_fails_for_good_ends_the_run_and_is_asked_again(tmp_path: Path, serve: Serve) -> None:
    broken = serve(faults=Faults(rules=(Rule(match="g1/", status=500, times="always"),)))
    raw = small_experiment(broken.base_url)
    raw["endpoints"]["m"]["attempts"] = 1
    experiment = write_experiment(tmp_path / "in", raw)
    with pytest.raises(EndpointFailed, match="20 calls in a row failed"):
        judgeloop.run(experiment, out=tmp_path / "run")


@pytest.mark.slow
def test_the_same_command_asks_again_what_failed_until_nothing_is_missing(tmp_path: Path, serve: Serve) -> None:
    passing = serve(faults=Faults(rules=(Rule(match="judge/", status=500, times=1, rate=0.2),)))
    raw = small_experiment(passing.base_url, replicates=1)
    raw["endpoints"]["m"]["attempts"] = 1
    experiment = write_experiment(tmp_path / "in", raw)
    first = judgeloop.run(experiment, out=tmp_path / "run")
    failed = sum(first.failed_calls.values())
    reasons = [*first.judgments["reason"], *first.candidates["reason"]]
    assert failed == reasons.count("http_500") > 0
    asked = sum(passing.asked.values())
    assert judgeloop.run(experiment, out=tmp_path / "run", retry_failed=False).failed_calls == first.failed_calls
    assert sum(passing.asked.values()) == asked
    run = first
    while run.failed_calls:  # what a verdict changes is asked for the first time, and may fail too
        run = judgeloop.run(experiment, out=tmp_path / "run")
    raw["endpoints"]["m"]["base_url"] = serve().base_url
    whole = judgeloop.run(write_experiment(tmp_path / "in2", raw), out=tmp_path / "whole")
    assert tables(run.path) == tables(whole.path)


@pytest.mark.tables
def test_a_finished_run_is_run_again_without_a_call(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url, replicates=1))
    first = tables(judgeloop.run(experiment, out=tmp_path / "run").path)
    total = sum(served.asked.values())
    assert tables(judgeloop.run(experiment, out=tmp_path / "run").path) == first
    assert sum(served.asked.values()) == total


@pytest.mark.slow
def test_a_run_folder_replays_as_a_fixture_packed_or_not(tmp_path: Path, serve: Serve) -> None:
    from judgeloop.wire.cassette import Cassette

    served = serve()
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url))
    first = judgeloop.run(experiment, out=tmp_path / "run")
    Cassette(first.path, writable=True).pack()
    assert list((first.path / "calls").rglob("*.jsonl.gz"))
    assert not list((first.path / "calls").rglob("*.jsonl"))
    total = sum(served.asked.values())
    again = judgeloop.run(experiment, out=tmp_path / "again", replay=first.path)
    assert tables(again.path) == tables(first.path)
    assert sum(served.asked.values()) == total


@pytest.mark.parametrize("sign", ENDING, ids=lambda sign: sign.name)
def test_a_signal_lets_what_is_in_flight_end_as_ctrl_c_does(sign: signal.Signals) -> None:
    ended: list[str] = []

    async def command(*, late: bool) -> str:
        try:
            os.kill(os.getpid(), sign)
            if not late:
                await asyncio.sleep(60)
        finally:
            if not late:
                os.kill(os.getpid(), sign)  # a terminal that is closed may send two
                await asyncio.sleep(0.01)  # as a client does that waits for its calls
            ended.append("drained")
        return "done"

    before = signal.signal(sign, signal.SIG_DFL)  # whatever the tests were started by: nohup ignores SIGHUP
    try:
        for late in (False, True):  # one that comes as the last answer does ends the command too
            with pytest.raises(KeyboardInterrupt):
                unwrapped(command(late=late))
        assert ended == ["drained", "drained"]
        assert signal.getsignal(sign) is signal.SIG_DFL
        with pytest.raises(Interrupted, match="run the same command to resume"), interruptible():
            signal.raise_signal(sign)
        assert signal.getsignal(sign) is signal.SIG_DFL
        signal.signal(sign, signal.SIG_IGN)
        with interruptible():
            signal.raise_signal(sign)
            assert unwrapped(command(late=True)) == "done"
    finally:
        signal.signal(sign, before)


@pytest.mark.tables
@pytest.mark.at_hand
def test_calls_that_vanish_before_the_end_are_an_error(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    experiment = write_experiment(tmp_path / "in", small_experiment(served.base_url, replicates=1))
    out = tmp_path / "run"

    class Thief(Quiet):
        """Takes the calls away once the last generation is done."""

        def stage(self, text: str) -> None:
            if text == "estimates":
                (out / "calls").rename(tmp_path / "elsewhere")

    with pytest.raises(StorageFailed, match="moved, deleted or replaced") as caught:
        judgeloop.run(experiment, out=out, observer=Thief())
    assert caught.value.exit_code == 4
