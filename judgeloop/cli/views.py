"""Progress of a command: a live view on a terminal, a plain line now and then elsewhere, or nothing.

A run counts turns (a generation of a replicate), an audit judgments. Every view takes every event of
``commands.session.Observer``; ``Quiet`` lists them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from judgeloop.loop import GenerationDone
    from judgeloop.wire.client import AnsweredCall

_WINDOW_S = 20.0
"""Seconds over which calls a second are counted."""
_QUIET_S = 15.0
"""Seconds without a plain line until the next step writes one."""
_LATE_S = 3.0
"""Seconds until a command that asks no model shows its stages."""
_MOST_BARS = 12
_LONGEST_NAME = 28


class Quiet:
    """A view that shows nothing: the methods of an Observer, and ``stop``, which the end of a ``with`` block calls."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0
    ) -> None: ...

    def planned(self, judgments: Mapping[str, int]) -> None: ...

    def answered(self, event: AnsweredCall) -> None: ...

    def judged(self, judge: str, judgments: int, unscored: int) -> None: ...

    def generation(self, event: GenerationDone) -> None: ...

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


def view(*, quiet: bool = False, lines: bool = True) -> Quiet:
    """The view of standard error: live on a terminal; elsewhere plain lines, or nothing without ``lines``."""
    console = Console(stderr=True)
    if quiet or not (lines or console.is_terminal):
        return Quiet()
    return Terminal(console) if console.is_terminal else Plain(sys.stderr)


def late_stages(view: Quiet) -> Callable[[str], None]:
    """The view's ``stage``, but silent for the first seconds: a quick command shows nothing."""
    began = time.monotonic()

    def stage(text: str) -> None:
        if time.monotonic() - began > _LATE_S:
            view.stage(text)

    return stage


class ProgressCounts:
    """Calls, cost and unscored judgments so far. Rates are of calls to endpoints, without answers from a recording."""

    def __init__(self) -> None:
        self.planned, self.done, self.recorded, self.cost = 0, 0, 0, 0.0
        self.unpriced: tuple[str, ...] = ()
        self.unscored, self.lost = 0, 0
        self.purpose = ""
        """What a run's last call was for: an arm, all arms, or the panels; empty in an audit."""
        self.began = time.monotonic()
        self._call_times: list[float] = []

    def answered(self, event: AnsweredCall) -> None:
        new = max(0, event.calls - self.done)  # an answer that arms share counts once
        self.recorded += new * event.recorded
        self.done = event.calls
        self.planned = max(self.planned, self.done)  # trial calls are not planned
        self.cost, self.unpriced = event.cost, event.unpriced
        self.purpose = _purpose(event.call.call_id)
        if not event.recorded:
            self._call_times += [time.monotonic()] * new

    def pace(self) -> list[str]:
        """Calls a second and time left; nothing where every answer so far came from a recording."""
        if not self._call_times and self.done <= self.recorded:
            return []
        return [f"{self.rate():.1f} calls/s", f"ETA {self.eta()}"]

    def spent(self) -> list[str]:
        """The cost so far; nothing where no price is known."""
        from judgeloop.report import wording  # imported late: it loads the statistics

        return [wording.cost(self.cost, self.unpriced)] if self.cost > 0 else []

    def without_text(self) -> list[str]:
        """The drafts without text; nothing where every draft has one."""
        return [f"{self.lost:,} drafts without text"] if self.lost else []

    def rate(self) -> float:
        """Calls to endpoints, a second, over the last 20 s."""
        now = time.monotonic()
        self._call_times = [moment for moment in self._call_times if now - moment < _WINDOW_S]
        return len(self._call_times) / max(1e-9, min(_WINDOW_S, now - self.began))

    def eta(self) -> str:
        """Time left at this rate, h:mm:ss; a dash where no endpoint was called of late."""
        rate, left = self.rate(), max(0, self.planned - self.done)
        return "–" if rate <= 0 else _clock(left / rate)


def _purpose(call_id: str) -> str:
    """See ProgressCounts.purpose."""
    parts = call_id.split("/")
    if parts[0] == "audit":
        return ""
    shared = len(parts) < 4 or parts[1] == "g0"  # the ids of calls that arms share name no arm
    return "panels" if parts[0] == "panels" else "all arms" if shared else f"arm {parts[3]}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


class DriftsSoFar:
    """Every arm's mean change in length since generation 0, over the replicates that have it: what is known before any estimate."""

    def __init__(self) -> None:
        self._lengths: dict[int, dict[int, Mapping[str, float]]] = {}

    def generation(self, event: GenerationDone) -> None:
        """Take in a finished generation."""
        if event.lengths:
            self._lengths.setdefault(event.generation, {})[event.replicate] = event.lengths

    def line(self) -> str:
        """The change at the latest generation by arm, in doublings; empty before generation 1. Without an interval it claims nothing."""
        latest = max(self._lengths, default=0)
        first, last = self._lengths.get(0, {}), self._lengths.get(latest, {})
        replicates = [replicate for replicate in last if replicate in first]
        if latest == 0 or not replicates:
            return ""
        means = {
            arm: sum(last[replicate][arm] - first[replicate][arm] for replicate in replicates) / len(replicates)
            for arm in last[replicates[0]]
        }
        listed = " · ".join(f"{arm} {mean:+.2f}".replace("-", "−") for arm, mean in means.items() if mean == mean)
        of = f"{len(replicates)} replicate{'' if len(replicates) == 1 else 's'}"
        return f"length so far, doublings since generation 0 (generation {latest}, {of}, no interval yet): {listed}"


class Plain(Quiet):
    """A line at each quarter of the turns or judgments, and after 15 silent seconds: for pipes and logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._counts, self._drifts = stream, ProgressCounts(), DriftsSoFar()
        self._steps, self._done, self._quarter, self._last_line = 1, 0, 0, time.monotonic()

    def start(self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0) -> None:
        size = ""
        if replicates:
            self._counts.planned, self._steps = planned_calls, replicates * (generations + 1)
            size = f": {replicates} replicates, generations 0–{generations}, about {planned_calls} calls"
        self.note(f"{name}{size} → {folder}")

    def planned(self, judgments: Mapping[str, int]) -> None:
        self._counts.planned = self._steps = sum(judgments.values())
        self.note(f"{len(judgments)} {'judge' if len(judgments) == 1 else 'judges'}, {self._steps:,} judgments")

    def answered(self, event: AnsweredCall) -> None:
        self._counts.answered(event)

    def judged(self, judge: str, judgments: int, unscored: int) -> None:  # noqa: ARG002 - the view's interface
        if self._advance(judgments, unscored):
            self._write_line(f"{self._done:,}/{self._steps:,} judgments")

    def generation(self, event: GenerationDone) -> None:
        self._counts.lost += event.lost
        self._drifts.generation(event)
        if self._advance(1, event.unscored):
            turn = f"s{event.replicate} generation {event.generation} done ({self._done} of {self._steps})"
            self._write_line(f"{turn} · {self._counts.done:,}/{self._counts.planned:,} calls")
            if drifted := self._drifts.line():
                self.note(drifted)

    def stage(self, text: str) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        print(f"judgeloop: {text}", file=self._stream, flush=True)

    def _advance(self, steps: int, unscored: int) -> bool:
        """Count steps; whether it is time for a line."""
        self._done += steps
        self._counts.unscored += unscored
        quarter, now = 4 * self._done // max(1, self._steps), time.monotonic()
        if quarter <= self._quarter and now - self._last_line < _QUIET_S:
            return False
        self._quarter, self._last_line = quarter, now
        return True

    def _write_line(self, done: str) -> None:
        counts = self._counts
        parts = [f"{done} ({counts.recorded:,} recorded)", *counts.pace(), f"{counts.unscored:,} unscored"]
        self.note(" · ".join([*parts, *counts.without_text(), *counts.spent()]))


class Terminal(Quiet):
    """The live view: a bar a replicate or a judge, for a run a bar of all calls, and a line with calls a second, time left,
    cost, time elapsed, unscored judgments, answers from recordings, and what is done now."""

    def __init__(self, console: Console) -> None:
        self._console, self._counts, self._stage = console, ProgressCounts(), "starting"
        self._bars = Progress(
            TextColumn("{task.fields[name]}"), BarColumn(), TextColumn("{task.fields[place]}"),
            TextColumn("{task.fields[unscored]}", style="yellow"), console=console,
        )  # fmt: skip
        self._tasks: dict[str | int, TaskID] = {}
        self._calls: TaskID | None = None
        self._generations = 0
        self._unscored: dict[str, int] = {}
        self._drifts = DriftsSoFar()
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True)

    def start(self, name: str, folder: Path, planned_calls: int = 0, generations: int = 0, replicates: int = 0) -> None:
        self._console.print(Text.assemble(("judgeloop ", "bold"), f"{name} → {folder}"))
        if replicates:
            self._counts.planned, self._generations, self._stage = planned_calls, generations, "asking"
            for number in range(min(replicates, _MOST_BARS)):
                self._tasks[number] = self._bar(f"replicate {number}", generations + 1, place="generation 0")
            self._calls = self._bar("calls", planned_calls, width=len(f"replicate {min(replicates, _MOST_BARS) - 1}"))
        self._live.start()

    def planned(self, judgments: Mapping[str, int]) -> None:
        self._counts.planned = sum(judgments.values())
        width = min(_LONGEST_NAME, max(len(name) for name in judgments))
        for name, total in judgments.items():
            if name not in self._tasks:
                self._tasks[name] = self._bar(name, total, width=width, visible=len(self._tasks) < _MOST_BARS)
            self._set(self._tasks[name], total=total)

    def answered(self, event: AnsweredCall) -> None:
        self._counts.answered(event)
        if self._calls is not None:
            self._set(self._calls, done=event.calls, total=self._counts.planned)

    def judged(self, judge: str, judgments: int, unscored: int) -> None:
        self._counts.unscored += unscored
        total = self._unscored[judge] = self._unscored.get(judge, 0) + unscored
        task = self._tasks[judge]
        self._bars.update(task, advance=judgments, unscored=f"{total:,} unscored" if total else "")
        self._set(task)

    def generation(self, event: GenerationDone) -> None:
        self._counts.unscored += event.unscored
        self._counts.lost += event.lost
        self._drifts.generation(event)
        upcoming = event.generation + 1
        place = "done" if upcoming > self._generations else f"generation {upcoming} of {self._generations}"
        if event.replicate in self._tasks:
            self._bars.update(self._tasks[event.replicate], completed=upcoming, place=place)

    def stage(self, text: str) -> None:
        self._stage = text
        if not self._live.is_started:
            self._live.start()

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def stop(self) -> None:
        if self._live.is_started:
            self._live.stop()

    def _bar(self, name: str, total: int, *, width: int = 0, place: str = "", visible: bool = True) -> TaskID:
        label = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        place = place or f"0/{total:,}"
        return self._bars.add_task("", total=total, name=f"{label:<{width}}", place=place, unscored="", visible=visible)

    def _set(self, task: TaskID, *, done: int | None = None, total: int | None = None) -> None:
        """Move a bar that counts calls or judgments."""
        self._bars.update(task, completed=done, total=total)
        bar = self._bars.tasks[self._bars.task_ids.index(task)]
        self._bars.update(task, place=f"{bar.completed:,.0f}/{bar.total or 0:,.0f}")

    def _view(self) -> Group:
        counts = self._counts
        asking = self._stage == "asking" and counts.purpose
        stage = Text(f"asking: {counts.purpose}" if asking else self._stage, style="cyan")
        if not self._tasks:
            return Group(stage)
        facts = Table.grid(padding=(0, 3))
        facts.add_row(
            *counts.pace(), *counts.spent(), f"{_clock(time.monotonic() - counts.began)} elapsed",
            Text(f"{counts.unscored:,} unscored", style="yellow" if counts.unscored else ""),
            *(Text(words, style="yellow") for words in counts.without_text()),
            f"{counts.recorded:,} from recordings", stage,
        )  # fmt: skip
        drifted = self._drifts.line()
        return Group(self._bars, facts, *([Text(drifted)] if drifted else []))
