"""What a run shows while it goes on: a live view on a terminal, a plain line a generation elsewhere, or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from judgeloop.loop import GenerationDone
from judgeloop.wire.client import Answered

_WINDOW_S = 20.0
_QUIET_S = 15.0


class Quiet:
    """Shows nothing."""

    def start(self, name: str, folder: Path, planned_calls: int, generations: int, replicates: int) -> None: ...

    def answered(self, event: Answered) -> None: ...

    def generation(self, event: GenerationDone) -> None: ...

    def stage(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Counts:
    """What every view counts. Rates are of calls that were asked, not of answers found in a recording."""

    def __init__(self) -> None:
        self.planned, self.done, self.recorded, self.failed, self.cost = 0, 0, 0, 0, 0.0
        self.unscored = 0
        self.generations, self.replicates = 0, 0
        self.place: dict[int, int] = {}
        self.arm = ""
        self.began = time.monotonic()
        self._asked: list[float] = []

    def answered(self, event: Answered) -> None:
        self.recorded += event.recorded and event.calls > self.done  # an answer that arms share counts once
        self.done = event.calls
        self.planned = max(self.planned, self.done)  # trial calls are not planned
        self.cost = event.cost
        self.failed += bool(event.reply.failure)
        parts = event.call.call_id.split("/")
        shared = len(parts) < 4 or parts[1] == "g0"  # what arms share bears no arm
        self.arm = "panels" if parts[0] == "panels" else "all arms" if shared else f"arm {parts[3]}"
        if not event.recorded:
            self._asked.append(time.monotonic())

    def pace(self) -> list[str]:
        """Calls a second and time left; nothing where every answer so far was found in a recording."""
        return [f"{self.rate():.1f} calls/s", f"ETA {self.eta()}"] if self._asked or self.done > self.recorded else []

    def spent(self) -> list[str]:
        """The cost so far; nothing where no price is known."""
        return [f"{self.cost:.4f} USD"] if self.cost > 0 else []

    def rate(self) -> float:
        """Calls asked a second over the last 20 s."""
        now = time.monotonic()
        self._asked = [moment for moment in self._asked if now - moment < _WINDOW_S]
        return len(self._asked) / max(1e-9, min(_WINDOW_S, now - self.began))

    def eta(self) -> str:
        rate, left = self.rate(), max(0, self.planned - self.done)
        if rate <= 0:
            return "–"
        seconds = int(left / rate)
        return f"{seconds // 3600}:{seconds % 3600 // 60:02d}:{seconds % 60:02d}"


class Plain(Quiet):
    """A line at each quarter of the turns (a generation of a replicate), and at a turn's end after 15 silent seconds: for pipes and
    logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._counts = Counts()
        self._turns, self._finished, self._told, self._quarter = 1, 0, time.monotonic(), 0

    def start(self, name: str, folder: Path, planned_calls: int, generations: int, replicates: int) -> None:
        self._counts.planned, self._turns = planned_calls, replicates * (generations + 1)
        self._say(
            f"judgeloop: {name}: {replicates} replicates, generations 0–{generations}, about {planned_calls} calls → {folder}"
        )

    def answered(self, event: Answered) -> None:
        self._counts.answered(event)

    def generation(self, event: GenerationDone) -> None:
        counts, now = self._counts, time.monotonic()
        counts.unscored += event.unscored
        self._finished += 1
        quarter = 4 * self._finished // self._turns
        if quarter == self._quarter and now - self._told < _QUIET_S:
            return
        self._quarter, self._told = quarter, now
        parts = [
            f"judgeloop: s{event.replicate} generation {event.generation} done ({self._finished} of {self._turns})",
            f"{counts.done:,}/{counts.planned:,} calls ({counts.recorded:,} recorded)",
        ]
        self._say(" · ".join([*parts, *counts.pace(), f"{counts.unscored:,} unscored", *counts.spent()]))

    def stage(self, text: str) -> None:
        self._say(f"judgeloop: {text}")

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class Terminal(Quiet):
    """The live view: a bar a replicate by generation, calls and rate, cost so far, unscored, what is asked now."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._counts = Counts()
        self._stage = "asking"
        self._calls = Progress(
            TextColumn("calls       "), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._replicates = Progress(
            TextColumn("{task.fields[name]:<12}"), BarColumn(), TextColumn("{task.fields[place]}"), console=console
        )
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True)
        self._tasks: dict[int, object] = {}

    def start(self, name: str, folder: Path, planned_calls: int, generations: int, replicates: int) -> None:
        counts = self._counts
        counts.planned, counts.generations, counts.replicates = planned_calls, generations, replicates
        self._console.print(Text.assemble(("judgeloop ", "bold"), f"{name} → {folder}"))
        self._total = self._calls.add_task("calls", total=planned_calls)
        shown = range(min(replicates, 12))
        self._tasks = {
            number: self._replicates.add_task(
                "", name=f"replicate {number}", total=generations + 1, place="generation 0"
            )
            for number in shown
        }
        self._live.start()

    def answered(self, event: Answered) -> None:
        self._counts.answered(event)
        self._calls.update(self._total, completed=min(event.calls, self._counts.planned))

    def generation(self, event: GenerationDone) -> None:
        self._counts.unscored += event.unscored
        done = event.generation + 1 > self._counts.generations
        if event.replicate in self._tasks:
            self._replicates.update(
                self._tasks[event.replicate],  # type: ignore[arg-type]
                completed=event.generation + 1,
                place="done" if done else f"generation {event.generation + 1} of {self._counts.generations}",
            )

    def stage(self, text: str) -> None:
        self._stage = text

    def stop(self) -> None:
        if self._live.is_started:
            self._live.stop()

    def _view(self) -> Group:
        counts = self._counts
        facts = Table.grid(padding=(0, 3))
        facts.add_row(
            *counts.pace(),
            *counts.spent(),
            Text(f"{counts.unscored} unscored", style="yellow" if counts.unscored else ""),
            f"{counts.recorded} from recordings",
            Text(f"{self._stage}: {counts.arm}" if self._stage == "asking" else self._stage, style="cyan"),
        )
        return Group(self._replicates, self._calls, facts)
