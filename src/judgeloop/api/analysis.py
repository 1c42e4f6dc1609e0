"""``judgeloop.analyze``: judgments that exist already, into a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from judgeloop import auditing, report
from judgeloop.interchange import load_columns
from judgeloop.interchange.cells import STDIN, Input
from judgeloop.results import Audit
from judgeloop.rundir import RunFolder


def analyze(
    verdicts: Input,
    pairs: Input | None = None,
    *,
    out: str | Path | None = None,
    columns: str | Path | Mapping[str, Any] | None = None,
    watch: auditing.Watch = lambda *_: None,
) -> Audit:
    """The statistics of an audit on judgments that exist already; nothing is asked. Writes estimates and report into ``out``
    (default runs/<the log's name>).

    ``verdicts``, ``pairs``: a path (JSON Lines, CSV or Parquet by ending), "-" for standard input, or a frame, with CONTRACT's
    columns; ``columns`` names them where the log calls them otherwise. ``watch`` is told (judge, done, of) before each
    judge's estimates. Raises InvalidInput naming file, row and column.
    """
    log = auditing.read(verdicts, pairs, load_columns(columns))
    is_file = not isinstance(verdicts, pd.DataFrame) and str(verdicts) != STDIN
    name = Path(str(verdicts)).stem if is_file else "analysis"
    done = auditing.analyze(log, name=name, sources=auditing.sources_of(verdicts, pairs, columns), watch=watch)
    folder = RunFolder(out or Path("runs") / name)
    auditing.write(done, folder)
    report.write(folder)
    return Audit(folder)
