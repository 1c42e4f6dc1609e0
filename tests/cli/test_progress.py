"""What is said off a terminal while a run or an audit goes on: little, and nothing that is not known."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from judgeloop.cli import views
from judgeloop.loop import GenerationDone
from judgeloop.records import Call, Reply
from judgeloop.wire.client import AnsweredCall


def _answered(n: int, *, recorded: bool, cost: float) -> AnsweredCall:
    call = Call(call_id=f"s0/g1/judge/a/item/m{n}", endpoint="e", body={})
    return AnsweredCall(call=call, reply=Reply(text="A"), recorded=recorded, attempts=1, calls=n + 1, cost=cost)


def _run(*, recorded: bool, cost: float) -> list[str]:
    stream = io.StringIO()
    view = views.Plain(stream)
    view.start("demo", Path("out"), 40, 3, 5)
    for turn in range(20):
        view.answered(_answered(2 * turn, recorded=recorded, cost=cost))
        view.answered(_answered(2 * turn + 1, recorded=recorded, cost=cost))
        view.generation(GenerationDone(turn % 5, turn // 5, 0))
    return stream.getvalue().splitlines()[1:]


def _audit(*, recorded: bool, cost: float) -> list[str]:
    stream = io.StringIO()
    view = views.Plain(stream)
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


def test_a_model_without_a_price_is_named_beside_the_least_cost() -> None:
    counts = views.ProgressCounts()
    counts.answered(dataclasses.replace(_answered(0, recorded=False, cost=1.25), unpriced=("x", "y")))
    assert counts.spent() == ["at least 1.25 USD; x, y have no price"]


def test_a_slow_turn_is_told_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_QUIET_S", 0.0)
    assert len(_run(recorded=True, cost=0.0)) == 20


def _screen(*, audit: bool) -> str:
    """The last picture on a terminal, half-way through a run or an audit."""
    stream = io.StringIO()
    view = views.Terminal(Console(file=stream, force_terminal=True, width=150, color_system=None))
    if audit:
        view.start("demo", Path("out"))
        view.planned({"j": 40, "a judge of a very long name that no bar has room for": 40})
    else:
        view.start("demo", Path("out"), 40, 3, 2)
    view.stage("asking")
    for n in range(20):
        view.answered(_answered(n, recorded=n < 5, cost=0.25))
        if audit:
            view.judged("j", 1, int(n == 0))
    if not audit:
        view.generation(GenerationDone(0, 0, 2, lost=3))
    view.note("batch b1 is sent")
    view.stop()
    return stream.getvalue().rpartition("batch b1 is sent")[2]


@pytest.mark.parametrize(
    ("audit", "words"),
    [
        (False, ("replicate 0", "generation 1 of 3", "replicate 1", "generation 0", "calls", "20/40", "2 unscored", "3 drafts without text", "asking: arm a")),
        (True, ("j ", "20/40", "1 unscored", "a judge of a very long name…", "0/40", "asking")),
    ],
)  # fmt: skip
def test_the_terminal_shows_counts_rate_time_and_cost(audit: bool, words: tuple[str, ...]) -> None:
    screen = _screen(audit=audit)
    for word in (*words, "calls/s", "ETA 0:0", "elapsed", "0.2500 USD", "5 from recordings"):
        assert word in screen


def test_a_view_fits_where_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(views.view(quiet=True)) is views.Quiet
    assert type(views.view()) is views.Plain
    assert type(views.view(lines=False)) is views.Quiet
    monkeypatch.setattr(Console, "is_terminal", True)
    assert type(views.view(lines=False)) is views.Terminal


def test_the_drift_so_far_is_the_plain_mean_over_replicates_that_have_it() -> None:
    view = views.DriftsSoFar()
    assert view.line() == ""
    for replicate, start in ((0, 6.0), (1, 7.0)):
        view.generation(GenerationDone(replicate, 0, 0, 0, {"judge": start, "coin": start}))
    assert view.line() == ""  # nothing has drifted before generation 1
    view.generation(GenerationDone(1, 1, 0, 0, {"judge": 7.5, "coin": 6.75}))
    assert "(generation 1, 1 replicate, no interval yet): judge +0.50 · coin −0.25" in view.line()
    view.generation(GenerationDone(0, 1, 0, 0, {"judge": 6.1, "coin": float("nan")}))
    assert "2 replicates" in view.line()
    assert view.line().endswith("judge +0.30")
