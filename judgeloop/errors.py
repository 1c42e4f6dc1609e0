"""Every error that judgeloop raises on purpose. The message is for the user: what, where, what to do.

JudgeloopError
├── InvalidInput          exit 2: usage or input is wrong; nothing was spent
│   ├── ExperimentError   the experiment file, its arms, items or templates
│   ├── ColumnsGuessed    a log has other columns; a guess at them waits for a yes
│   └── FolderMismatch    the run folder belongs to another experiment, or is damaged
├── BudgetReached         exit 3: the cost or call limit is reached; the same command resumes
├── EndpointFailed        exit 4: an endpoint refuses or fails for good; the same command resumes
│   └── ReplayMiss        a replayed recording holds no answer to this call
├── TrainingFailed        exit 4: a training command fails, or leaves no model; the same command resumes
├── AnswersOutstanding    exit 6: requests are written and wait for answers from elsewhere; resumable
├── StorageFailed         exit 4: the run folder cannot be written (disk full, permissions); the same command resumes
└── Interrupted           exit 130: stopped by the user; the same command resumes
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path


class JudgeloopError(Exception):
    """Base of all deliberate errors; ``exit_code`` is what the command line returns."""

    exit_code = 1


class InvalidInput(JudgeloopError):
    """Usage or input is wrong. Nothing has been asked of a model."""

    exit_code = 2


class ExperimentError(InvalidInput):
    """The experiment file, an arm, the items or a template is wrong."""


class ColumnsGuessed(InvalidInput):
    """A log has other columns than judgeloop's. ``columns``: a guess at them, as the text of a columns file."""

    def __init__(self, message: str, columns: str) -> None:
        super().__init__(message)
        self.columns = columns
        self.add_note(columns)  # where nobody prints it, as in a notebook


class FolderMismatch(InvalidInput):
    """The run folder belongs to another experiment, or a recorded file in it is damaged."""


class BudgetReached(JudgeloopError):
    """The cost or call limit is reached. All that was paid for is recorded."""

    exit_code = 3


class EndpointFailed(JudgeloopError):
    """An endpoint refuses (key, account, address, model) or keeps failing. All that was paid for is recorded."""

    exit_code = 4


class ReplayMiss(EndpointFailed):
    """A replayed recording holds no answer to this call."""


class TrainingFailed(JudgeloopError):
    """A training fails, takes too long or leaves no usable model. What was answered and trained before is recorded."""

    exit_code = 4


class AnswersOutstanding(JudgeloopError):
    """Request files are written and somebody else has to answer them. ``requests``: (model, request file) of each; of a
    training its call id and folder."""

    exit_code = 6

    def __init__(self, message: str, requests: Sequence[tuple[str, Path]] = ()) -> None:
        super().__init__(message)
        self.requests = tuple(requests)


class StorageFailed(JudgeloopError):
    """The run folder cannot be written."""

    exit_code = 4


class Interrupted(JudgeloopError):
    """Stopped by the user. All that was answered is recorded."""

    exit_code = 130


ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a command as Ctrl-C does: a scheduler sends the first, a terminal that is closed the second."""
