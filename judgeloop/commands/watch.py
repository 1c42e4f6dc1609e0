"""``judgeloop.watch``: the report of a run that is under way, as a page on 127.0.0.1. The run folder is only read."""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from judgeloop import report
from judgeloop.commands.forecast import with_forecast
from judgeloop.commands.run import design_of_tables
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.experiment.resolve import ResolvedExperiment, resolve
from judgeloop.report.page import live_page
from judgeloop.report.wording import count
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.serving.server import Page, serve_pages
from judgeloop.stats.design import RunTables
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.wire.cassette import Tally

SILENT_S = 120
"""After so long without a recorded answer, the page says that the run may have stopped."""
ESTIMATING_S = 600
"""How long a run whose generations are all complete may take for its final estimates, in which it makes no call."""

_PART = re.compile(r"(?:s(?P<replicate>\d+)|panels)-g(?P<generation>\d+)(?:-.+)?")
_CALLS = re.compile(r"g(?P<generation>\d+)-(?P<stage>\w+)")
"""The name of a part of the recording: a generation and what was asked."""
_STEP = ("preferences", "signals")
"""Tables of the step to the next generation: a run's last generation has none of them."""
_STEP_COLUMNS = ("reward", "p_selected", "p_selected_gold", "p_training", "p_next")


def watch(run_dir: str | Path, *, port: int = 8010, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve the live report of a run folder on 127.0.0.1 until interrupted; the report of a finished run does not change.
    Port 0 takes a free one; ``ready`` is called with the URL. Raises FolderMismatch, ExperimentError, or InvalidInput where
    the port is taken."""
    serve_pages(LiveReport(run_dir).pages(), port, ready=ready)


class LiveReport:
    """The pages about one run folder while it grows. They may be asked from several threads; a report is made once a version
    of the folder."""

    def __init__(self, run_dir: str | Path, clock: Callable[[], float] = time.time) -> None:
        self.folder = RunFolder.existing(run_dir)
        self._estimates = self.folder.path / "estimates.parquet"
        self.experiment: ResolvedExperiment | None = None
        # A finished folder needs no experiment: a folder of an older judgeloop can be shown too.
        with suppress(InvalidInput) if self._estimates.is_file() else nullcontext():
            self.experiment = experiment_of(self.folder)
        self._clock = clock
        self._tally = Tally(self.folder.path)
        self._tally_lock, self._report_lock = threading.Lock(), threading.Lock()
        self._latest: tuple[str, str] = ("", "")
        """The version of the latest report, and its page."""
        self._latest_block: FinishedGenerations | None = None

    def pages(self) -> Mapping[str, Page]:
        """Path → page, for ``serving.server``."""
        return {"/": self.page, "/state": self.state, "/report": self.report}

    @property
    def name(self) -> str:
        """The experiment's name, or the folder's."""
        return self.experiment.experiment.name if self.experiment else self.folder.path.resolve().name

    def page(self) -> str:
        """The page around the report."""
        return live_page(self.name)

    def state(self) -> dict[str, Any]:
        """How far the run is, with the keys that ``report.page`` shows. Quick: no estimate is made. Raises FolderMismatch
        where the folder is gone."""
        if not self.folder.exists:
            raise FolderMismatch(f"{self.folder.path}: the run folder is gone")
        version, block, last = self._version()
        largest = largest_block(last)
        with self._tally_lock:
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
            "known": self._known(last),
        }

    def _known(self, last: Mapping[int, int]) -> list[tuple[str, str]]:
        """What is known of a run before its first estimate: (label, value), shown until there is a report."""
        if self.experiment is None:
            return []
        stated = self.experiment.experiment
        rows = [
            ("Arms", ", ".join(arm.name for arm in self.experiment.arms)),
            ("Generations", f"0 to {stated.generations}"),
            ("Replicates", f"{stated.replicates}"),
        ]
        with self._tally_lock:
            asked = self._tally.by_part()
        for name, answers in asked.items():
            if match := _CALLS.fullmatch(name):
                rows.append((f"Generation {int(match['generation'])}, {match['stage']}", count(answers, "answer")))
        if last:
            rows.append(
                ("Finished", ", ".join(f"replicate {r} to generation {g}" for r, g in sorted(last.items())[:8]))
            )
        return rows

    def report(self) -> str:
        """The report's page: of the finished run, or of the generations that are complete. Raises FolderMismatch where
        there is none yet."""
        with self._report_lock:
            version, block, _ = self._version()
            if not version:
                raise FolderMismatch(f"{self.folder.path}: no generation is complete yet; load this page again later")
            if version != self._latest[0]:
                self._latest, self._latest_block = (version, self._report(block)), block
            return self._latest[1]

    def _report(self, block: FinishedGenerations | None) -> str:
        if block is None or self.experiment is None:
            return report.html(self.folder)
        with tempfile.TemporaryDirectory(prefix="judgeloop-watch-") as scratch:
            folder = write_so_far(self.folder, self.experiment, block, Path(scratch) / self.folder.path.name)
            return report.html(folder)

    def _version(self) -> tuple[str, FinishedGenerations | None, Mapping[int, int]]:
        """(the version of a report made now, the block that it is made from unless the run has finished, replicate → its last
        finished generation). The version is empty where no generation is complete."""
        try:
            return f"done-{self._estimates.stat().st_mtime_ns}", None, {}
        except OSError:
            pass
        last = finished_generations(self.folder) if self.experiment else {}
        block, latest = largest_block(last), self._latest_block
        if block is None:
            return "", None, last
        if latest is None:
            block = smallest_block(last) or block  # a first report within seconds; the next one is of the largest block
        elif self._is_whole(block) and not self._is_silent():
            block = latest  # the run itself makes the final estimates now: making them here too would slow both
        return block.name, block, last

    def _is_whole(self, block: FinishedGenerations) -> bool:
        """Whether every generation is complete and only the run's own estimates are missing."""
        assert self.experiment is not None
        stated = self.experiment.experiment
        return (block.generation, len(block.replicates)) == (stated.generations, stated.replicates)

    def _is_silent(self) -> bool:
        """Whether no answer came for so long that the run has probably stopped and will write no estimates."""
        with self._tally_lock:
            _, written = self._tally.look()
        return written is not None and self._clock() - written > ESTIMATING_S

    def _headline(self, is_done: bool, block: FinishedGenerations | None) -> str:
        if is_done:
            return "Finished: this is the whole report."
        if self.experiment is None:
            return "Judgments are being collected; an audit's estimates come at its end."
        generations, replicates = self.experiment.experiment.generations, self.experiment.experiment.replicates
        if block is None:
            return f"Generation 0 of {generations} is under way; no replicate of {replicates} has finished it yet."
        complete = len(block.replicates)
        if block.generation == generations and complete == replicates:
            return "Every generation is complete; the final estimates are being made."
        which = "all" if complete == replicates else f"{complete} of"
        where = "" if replicates == 1 else f" in {which} {replicates} replicates"
        return f"The run goes on: generation {block.generation} of {generations} is complete{where}."

    def _caution(self, block: FinishedGenerations) -> str:
        assert self.experiment is not None
        span = "generation 0" if block.generation == 0 else f"generations 0 to {block.generation}"
        return (
            f"Below is the report of a run of {span} and {count(len(block.replicates), 'replicate')}. Its intervals hold for one look: "
            "a run that is stopped as soon as it shows an effect finds effects too often."
        )


def _detail(answers: int, silent: float | None, is_done: bool, patience: float) -> str:
    """The sentence on recorded answers. ``silent``: seconds since the last one, None where there is none; after
    ``patience`` seconds the run may have stopped."""
    if silent is None:
        return "" if is_done else "No answer is recorded yet."
    recorded = f"{count(answers, 'answer')} recorded"
    if is_done:
        return f"{recorded}."
    recorded += f", the last {_duration(silent)} ago."
    return f"{recorded} The run may have stopped: the same command resumes it." if silent > patience else recorded


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# -- what a run has finished: its tables and estimates as a shorter run would have left them ---------------------------


@dataclass(frozen=True, slots=True)
class FinishedGenerations:
    """Replicates that have all finished generations 0 to ``generation``."""

    replicates: tuple[int, ...]
    generation: int

    @property
    def name(self) -> str:
        """A name that no other block of the same run has."""
        return f"g{self.generation}-s{'.'.join(map(str, self.replicates))}"


def experiment_of(folder: RunFolder) -> ResolvedExperiment | None:
    """The folder's experiment; None where it is of an audit or analysis. Raises ExperimentError, FolderMismatch."""
    if folder.kind != "run":
        return None
    return resolve(folder.experiment(), folder.path, where=str(folder.path / "experiment.yaml"))


def finished_generations(folder: RunFolder) -> dict[int, int]:
    """Replicate → its last finished generation. A generation is finished once its candidates and judgments are written."""
    written = set(_parts(folder, "candidates").values()) & set(_parts(folder, "judgments").values())
    last: dict[int, int] = {}
    for replicate in sorted(
        replicate for replicate, generation in written if replicate is not None and generation == 0
    ):
        generation = 0
        while (replicate, generation + 1) in written:
            generation += 1
        last[replicate] = generation
    return last


def largest_block(last: Mapping[int, int]) -> FinishedGenerations | None:
    """The most replicates times feedback steps of which none is missing, so that every generation rests on the same
    replicates; of equal ones the one with more steps, or where none has made one, more replicates. None where nothing is finished."""
    blocks = [
        FinishedGenerations(tuple(r for r, g in last.items() if g >= reached), reached)
        for reached in set(last.values())
    ]
    return max(blocks, key=lambda block: (len(block.replicates) * block.generation, block.generation), default=None)


def smallest_block(last: Mapping[int, int]) -> FinishedGenerations | None:
    """The first replicate's generation 0, which is estimated fastest. None where nothing is finished."""
    return FinishedGenerations((min(last),), 0) if last else None


def write_so_far(
    folder: RunFolder, resolved: ResolvedExperiment, block: FinishedGenerations, target: Path
) -> RunFolder:
    """The block as a run folder at ``target``, with tables and estimates of a run that ended with that generation. Raises
    FolderMismatch where a part cannot be read."""
    so_far = RunFolder(target)
    ends_early = block.generation < resolved.experiment.generations
    for table in TABLES:
        for part, (replicate, generation) in _parts(folder, table).items():
            if generation > block.generation or (replicate is not None and replicate not in block.replicates):
                continue
            is_last = ends_early and generation == block.generation and replicate is not None
            if is_last and table in _STEP:
                continue
            source = folder.path / "tables" / table / part
            if is_last and table == "candidates":
                so_far.write_part(table, source.stem, _without_step(source))
            else:
                _link(source, target / "tables" / table / part)
    so_far.write_text("experiment.yaml", folder.experiment_text())
    so_far.write_json("environment.json", folder.environment())
    tables = RunTables(**{table: so_far.table(table) for table in TABLES})
    design = design_of_tables(resolved, tables.judgments)
    looks = design.generations / max(block.generation, 1)
    design = replace(design, generations=block.generation, looks=looks)
    so_far.write_estimates(
        with_forecast(run_estimates(tables, design), tables, resolved, resolved.experiment.generations)
    )
    return so_far


def _parts(folder: RunFolder, table: str) -> dict[str, tuple[int | None, int]]:
    """File name → (replicate, generation) of every part of a table; parts of the whole run have generation −1."""
    parts: dict[str, tuple[int | None, int]] = {}
    for path in sorted((folder.path / "tables" / table).glob("*.parquet")):
        match = _PART.fullmatch(path.stem)
        replicate = match["replicate"] if match else None
        parts[path.name] = (int(replicate) if replicate else None, int(match["generation"]) if match else -1)
    return parts


def _link(part: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(part.resolve())


def _without_step(part: Path) -> pd.DataFrame:
    """A generation's candidates without the columns of the step to the next one."""
    try:
        frame = pd.read_parquet(part)
    except (OSError, ValueError) as error:
        raise FolderMismatch(f"{part}: cannot be read ({type(error).__name__})") from None
    return frame.assign(**dict.fromkeys(_STEP_COLUMNS, np.nan))
