"""What an audit shows while it goes on: a live view on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from judgeloop.progress import Counts
from judgeloop.wire.client import Answered

_EVERY_S = 15.0
_MOST_BARS = 12
_LONGEST_NAME = 28


class Quiet:
    """Shows nothing."""

    def start(self, name: str, folder: Path) -> None: ...

    def planned(self, judgments: Mapping[str, int]) -> None: ...

    def answered(self, event: Answered) -> None: ...

    def judged(self, judge: str, judgments: int, unscored: int) -> None: ...

    def stage(self, text: str) -> None: ...

    def note(self, text: str) -> None: ...

    def stop(self) -> None: ...


class Plain(Quiet):
    """A line at each quarter of the judgments, and every 15 seconds: for pipes and logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._counts = stream, Counts()
        self._judged, self._said, self._told = 0, 0, time.monotonic()

    def start(self, name: str, folder: Path) -> None:
        self._say(f"{name} → {folder}")

    def planned(self, judgments: Mapping[str, int]) -> None:
        self._counts.planned = sum(judgments.values())
        self._say(
            f"{len(judgments)} {'judge' if len(judgments) == 1 else 'judges'}, {self._counts.planned:,} judgments"
        )

    def answered(self, event: Answered) -> None:
        self._counts.answered(event)

    def judged(self, judge: str, judgments: int, unscored: int) -> None:  # noqa: ARG002 - the view's interface
        counts = self._counts
        self._judged += judgments
        counts.unscored += unscored
        quarter = 4 * self._judged // max(1, counts.planned)
        now = time.monotonic()
        if quarter > self._said or now - self._told > _EVERY_S:
            self._said, self._told = quarter, now
            parts = [f"{self._judged:,}/{counts.planned:,} judgments ({counts.recorded:,} recorded)", *counts.pace()]
            self._say(" · ".join([*parts, f"{counts.unscored:,} unscored", *counts.spent()]))

    def stage(self, text: str) -> None:
        self._say(text)

    def note(self, text: str) -> None:
        self._say(text)

    def _say(self, line: str) -> None:
        print(f"judgeloop: {line}", file=self._stream, flush=True)


class Terminal(Quiet):
    """The live view: a bar a judge with its unscored replies, calls a second, time left, cost so far, what is done now."""

    def __init__(self, console: Console) -> None:
        self._console, self._counts, self._stage = console, Counts(), "starting"
        self._bars = Progress(
            TextColumn("{task.fields[name]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("{task.fields[unscored]}", style="yellow"), console=console,
        )  # fmt: skip
        self._tasks: dict[str, TaskID] = {}
        self._unscored: dict[str, int] = {}
        self._live = Live(get_renderable=self._view, console=console, refresh_per_second=4, transient=True)

    def start(self, name: str, folder: Path) -> None:
        self._console.print(Text.assemble(("judgeloop ", "bold"), f"{name} → {folder}"))
        self._live.start()

    def planned(self, judgments: Mapping[str, int]) -> None:
        self._counts.planned = sum(judgments.values())
        width = min(_LONGEST_NAME, max(len(name) for name in judgments))
        for name, total in judgments.items():
            if name in self._tasks:
                self._bars.update(self._tasks[name], total=total)
            else:
                shown = name if len(name) <= width else name[: width - 1] + "…"
                visible = len(self._tasks) < _MOST_BARS
                self._tasks[name] = self._bars.add_task(
                    "", total=total, name=f"{shown:<{width}}", unscored="", visible=visible
                )

    def answered(self, event: Answered) -> None:
        self._counts.answered(event)

    def judged(self, judge: str, judgments: int, unscored: int) -> None:
        self._counts.unscored += unscored
        self._unscored[judge] = self._unscored.get(judge, 0) + unscored
        lost = self._unscored[judge]
        self._bars.update(self._tasks[judge], advance=judgments, unscored=f"{lost:,} unscored" if lost else "")

    def stage(self, text: str) -> None:
        self._stage = text

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def stop(self) -> None:
        if self._live.is_started:
            self._live.stop()

    def _view(self) -> Group:
        counts = self._counts
        facts = Table.grid(padding=(0, 3))
        facts.add_row(
            *counts.pace(), *counts.spent(), f"{counts.recorded:,} from recordings", Text(self._stage, style="cyan"),
        )  # fmt: skip
        return Group(self._bars, facts)
