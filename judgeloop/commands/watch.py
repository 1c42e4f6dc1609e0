"""``judgeloop watch``: the report of a run that goes on, as a page on loopback. Nothing is written into the run folder."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from judgeloop import report
from judgeloop.api import so_far
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.experiment.resolve import Resolved
from judgeloop.report import live
from judgeloop.report.wording import count
from judgeloop.rundir import RunFolder
from judgeloop.wire.page_server import Page, serve_pages
from judgeloop.wire.tally import Tally

SILENT_S = 120
"""After so long without a recorded answer, the page says that the run may have stopped."""
ESTIMATING_S = 600
"""How long a run whose generations are all complete is left alone with its final estimates, in which it asks nobody."""


def watch(run_dir: str | Path, *, port: int = 8010, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve the live report of a run folder on 127.0.0.1 until interrupted; a finished one is served as it is. Port 0 takes
    a free one; ``ready`` is told the URL. Raises FolderMismatch, ExperimentError, or InvalidInput where the port is taken."""
    serve_pages(Watched(run_dir).pages(), port, ready=ready)


class Watched:
    """One run folder while it grows. Its pages may be asked from several threads; a report is made once a version."""

    def __init__(self, run_dir: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = RunFolder.existing(run_dir)
        self._estimates = self.folder.path / "estimates.parquet"
        self.experiment: Resolved | None = None
        # A finished folder needs no experiment: one that an older judgeloop wrote can be looked at too.
        with suppress(InvalidInput) if self._estimates.is_file() else nullcontext():
            self.experiment = so_far.experiment_of(self.folder)
        self._clock = clock
        self._tally = Tally(self.folder.path)
        self._looking, self._making = threading.Lock(), threading.Lock()
        self._made: tuple[str, str] = ("", "")
        self._made_of: so_far.Block | None = None

    def pages(self) -> Mapping[str, Page]:
        """Path → page, for ``wire.page_server``."""
        return {"/": self.page, "/state": self.state, "/report": self.report}

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return self.experiment.experiment.name if self.experiment else self.folder.path.resolve().name

    def page(self) -> str:
        """The page around the report."""
        return live.page(self.name)

    def state(self) -> dict[str, Any]:
        """How far the run is (``report.live`` says which keys). Quick: no estimate is made."""
        if not self.folder.exists:
            raise FolderMismatch(f"{self.folder.path}: the run folder is gone")
        version, block, last = self._version()
        largest = so_far.largest_block(last)
        with self._looking:
            answers, written = self._tally.look()
        silent = None if written is None else max(0.0, self._clock() - written)
        steps = self.experiment.experiment.generations + 1 if self.experiment else 1
        replicates = self.experiment.experiment.replicates if self.experiment else 1
        is_done = version.startswith("done")
        done = steps * replicates if is_done else sum(generation + 1 for generation in last.values())
        return {
            "version": version,
            "headline": self._headline(is_done, largest),
            "detail": _detail(
                answers, silent, is_done, ESTIMATING_S if largest and self._is_whole(largest) else SILENT_S
            ),
            "caution": "" if is_done or block is None else self._caution(block),
            "done": done,
            "of": steps * replicates,
        }

    def report(self) -> str:
        """The report's page: of the finished run, or of the generations that are complete. Raises FolderMismatch where
        there is none yet."""
        with self._making:
            version, block, _ = self._version()
            if not version:
                raise FolderMismatch(f"{self.folder.path}: no generation is complete yet; load this page again later")
            if version != self._made[0]:
                self._made, self._made_of = (version, self._report(block)), block
            return self._made[1]

    def _report(self, block: so_far.Block | None) -> str:
        if block is None or self.experiment is None:
            return report.html(self.folder)
        with tempfile.TemporaryDirectory(prefix="judgeloop-watch-") as scratch:
            folder = so_far.write_so_far(self.folder, self.experiment, block, Path(scratch) / self.folder.path.name)
            return report.html(folder)

    def _version(self) -> tuple[str, so_far.Block | None, Mapping[int, int]]:
        """(what a report asked for now is of, the block it is made from unless the run has finished, replicate → its last
        finished generation). The version is empty where there is nothing yet."""
        try:
            return f"done-{self._estimates.stat().st_mtime_ns}", None, {}
        except OSError:
            pass
        last = so_far.finished(self.folder) if self.experiment else {}
        block, made = so_far.largest_block(last), self._made_of
        if block is None:
            return "", None, last
        if made is None:
            block = so_far.smallest_block(last) or block  # little to read within seconds; the rest when that stands
        elif self._is_whole(block) and not self._is_silent():
            block = made  # the run itself makes the final estimates now: making them here too would slow both
        return block.name, block, last

    def _is_whole(self, block: so_far.Block) -> bool:
        """True where nothing but the run's own estimates is to come."""
        assert self.experiment is not None
        stated = self.experiment.experiment
        return (block.generation, len(block.replicates)) == (stated.generations, stated.replicates)

    def _is_silent(self) -> bool:
        """True where no answer came for so long that the run has probably stopped and leaves no estimates of its own."""
        with self._looking:
            _, written = self._tally.look()
        return written is not None and self._clock() - written > ESTIMATING_S

    def _headline(self, is_done: bool, block: so_far.Block | None) -> str:
        if is_done:
            return "Finished: this is the whole report."
        if self.experiment is None:
            return "Judgments are being collected; an audit's estimates come at its end."
        generations, replicates = self.experiment.experiment.generations, self.experiment.experiment.replicates
        if block is None:
            return f"Generation 0 of {generations} is under way; no replicate of {replicates} has finished it yet."
        some = len(block.replicates)
        which = (
            "" if replicates == 1 else f" in {'all ' if some == replicates else f'{some} of '}{replicates} replicates"
        )
        if block.generation == generations and some == replicates:
            return "Every generation is complete; the final estimates are being made."
        return f"The run goes on: generation {block.generation} of {generations} is complete{which}."

    def _caution(self, block: so_far.Block) -> str:
        assert self.experiment is not None
        span = "generation 0" if block.generation == 0 else f"generations 0 to {block.generation}"
        return (
            f"Below is what a run of {span} and {count(len(block.replicates), 'replicate')} would report. Its intervals hold for one look: "
            "a run that is stopped when it looks good finds too much."
        )


def _detail(answers: int, silent: float | None, is_done: bool, patience: float) -> str:
    if silent is None:
        return "" if is_done else "No answer is recorded yet."
    said = f"{count(answers, 'answer')} recorded"
    if is_done:
        return f"{said}."
    said += f", the last {_ago(silent)} ago."
    return f"{said} The run may have stopped: the same command resumes it." if silent > patience else said


def _ago(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
