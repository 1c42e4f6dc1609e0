"""What an audit knows of its batches between two sittings: ``batch/jobs.json`` in its folder.

A job is a request file and what became of it. It is written down before anything that costs is done, so that a command
that was killed at any moment finds what it sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from judgeloop.errors import FolderMismatch, InvalidInput, StorageFailed
from judgeloop.rundir import RunFolder
from judgeloop.wire.batch_files import RequestFile

FOLDER = "batch"
_STATE = f"{FOLDER}/jobs.json"

Step = Literal["written", "creating", "sent", "answered", "done"]
"""written: nobody was asked · creating: a batch may exist · sent: it exists · answered: its output is here · done: recorded."""


@dataclass
class Job:
    """A request file. ``status`` is what the endpoint last said of its batch, ``error`` why it failed as a whole; ``outputs`` are files in ``batch/``."""

    file: str
    sha256: str
    endpoint: str
    model: str
    calls: int
    step: Step = "written"
    file_id: str = ""
    batch_id: str = ""
    status: str = ""
    error: str = ""
    outputs: list[str] = field(default_factory=list)


@dataclass
class _State:
    jobs: list[Job] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)
    collected: list[str] = field(default_factory=list)


class Jobs:
    """All jobs of a run folder. ``failures``: call id → attempts that failed so far; ``collected``: the hashes of output
    files whose failures are counted. Raises FolderMismatch where the state cannot be read."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self.path = folder.path / FOLDER
        self._state = self._load()

    def _load(self) -> _State:
        path = self._folder.path / _STATE
        if not path.is_file():
            return _State()
        try:
            return TypeAdapter(_State).validate_python(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError, ValidationError) as error:
            raise FolderMismatch(
                f"{path}: cannot be read ({type(error).__name__}); restore it, or delete it to forget the batches that were sent"
            ) from None

    def save(self) -> None:
        """Write it down, atomically."""
        content: dict[str, Any] = asdict(self._state)
        self._folder.write_json(_STATE, content)

    @property
    def all(self) -> list[Job]:
        """The jobs, oldest first."""
        return self._state.jobs

    @property
    def failures(self) -> dict[str, int]:
        """See the class."""
        return self._state.failures

    @property
    def collected(self) -> list[str]:
        """See the class."""
        return self._state.collected

    def at(self, *steps: Step) -> list[Job]:
        """The jobs at these steps."""
        return [job for job in self.all if job.step in steps]

    def requests(self, job: Job) -> Path:
        """A job's request file."""
        return self.path / job.file

    def outputs(self) -> list[Path]:
        """The output files of answered jobs."""
        return [self.path / name for job in self.at("answered") for name in job.outputs]

    def discard(self, drafts: Iterable[RequestFile]) -> None:
        """Delete drafts that nobody needs."""
        for draft in drafts:
            draft.path.unlink(missing_ok=True)

    def adopt(self, drafts: Iterable[RequestFile]) -> list[Job]:
        """The jobs of a round's drafts: one that was written before and says the same stays; other unsent ones go."""
        unsent = {(job.sha256, job.endpoint): job for job in self.at("written")}
        found = []
        try:
            for draft in drafts:
                job = unsent.pop((draft.sha256, draft.group), None)
                if job is None:
                    job = Job(self._next(), draft.sha256, draft.group, draft.model, draft.calls)
                    self.all.append(job)
                draft.path.replace(self.requests(job))
                found.append(job)
            for stale in unsent.values():
                self.requests(stale).unlink(missing_ok=True)
                self.all.remove(stale)
        except OSError as error:
            raise StorageFailed(
                f"{self.path}: cannot be written ({error.strerror or error}); make room and run the same command again"
            ) from None
        self.save()
        return found

    def _next(self) -> str:
        numbers = [int(job.file.removeprefix("requests-").removesuffix(".jsonl")) for job in self.all]
        return f"requests-{max(numbers, default=0) + 1:03d}.jsonl"


def refuse_running(folder: RunFolder) -> None:
    """Raises InvalidInput where a batch is under way: asked live, its calls would be paid for twice."""
    running = Jobs(folder).at("creating", "sent", "answered")
    if running:
        names = ", ".join(job.batch_id or job.file for job in running[:3])
        raise InvalidInput(
            f"{folder.path}: {sum(job.calls for job in running)} calls of this audit are in a batch ({names}); go on with --batch, or delete {folder.path / FOLDER} to ask them again, which may pay for them twice"
        )
