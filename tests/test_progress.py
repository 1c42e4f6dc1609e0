"""What is said off a terminal while a run or an audit goes on: little, and nothing that is not known."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from judgeloop import progress
from judgeloop.cli import audit_progress
from judgeloop.loop import GenerationDone
from judgeloop.records import Call, Reply
from judgeloop.wire.client import Answered


def _answered(n: int, *, recorded: bool, cost: float) -> Answered:
    call = Call(call_id=f"s0/g1/judge/a/item/m{n}", endpoint="e", body={})
    return Answered(call=call, reply=Reply(text="A"), recorded=recorded, attempts=1, calls=n + 1, cost=cost)


def _run(*, recorded: bool, cost: float) -> list[str]:
    stream = io.StringIO()
    view = progress.Plain(stream)
    view.start("demo", Path("out"), 40, 3, 5)
    for turn in range(20):
        view.answered(_answered(2 * turn, recorded=recorded, cost=cost))
        view.answered(_answered(2 * turn + 1, recorded=recorded, cost=cost))
        view.generation(GenerationDone(turn % 5, turn // 5, 0))
    return stream.getvalue().splitlines()[1:]


def _audit(*, recorded: bool, cost: float) -> list[str]:
    stream = io.StringIO()
    view = audit_progress.Plain(stream)
    view.planned({"j": 40})
    for n in range(40):
        view.answered(_answered(n, recorded=recorded, cost=cost))
        view.judged("j", 1, 0)
    return stream.getvalue().splitlines()[1:]


@pytest.mark.parametrize("say", [_run, _audit])
def test_a_replay_says_four_lines_without_rate_or_price(say: Callable[..., list[str]]) -> None:
    lines = say(recorded=True, cost=0.0)
    assert len(lines) == 4
    assert "40/40" in lines[-1]
    assert not any(word in line for line in lines for word in ("calls/s", "ETA", "USD"))


@pytest.mark.parametrize("say", [_run, _audit])
def test_a_priced_run_says_pace_and_cost(say: Callable[..., list[str]]) -> None:
    lines = say(recorded=False, cost=0.25)
    assert all("calls/s" in line and "ETA" in line and "0.2500 USD" in line for line in lines)


def test_a_slow_turn_is_told_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_QUIET_S", 0.0)
    assert len(_run(recorded=True, cost=0.0)) == 20
