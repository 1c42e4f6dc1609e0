"""``judgeloop check``: a run folder's estimates against limits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from judgeloop import limits as limit_files
from judgeloop.errors import FolderMismatch
from judgeloop.limits import CheckResult, limits_of
from judgeloop.report.reading import as_estimates
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import unscored_shares


def check(run_dir: str | Path, limits: str | Path | Mapping[str, Any] | None = None) -> CheckResult:
    """The folder's estimates against ``limits``: a YAML file, a mapping of the same form, or None for the defaults.

    ``.verdict`` is passed, exceeded or inconclusive, ``.exit_code`` 0, 1 or 5, ``.outcomes`` one entry a limit and row.
    Raises InvalidInput for wrong limits, FolderMismatch where the folder has no estimates.
    """
    folder = RunFolder.existing(run_dir)
    try:
        rows = [*as_estimates(folder.estimates()), *unscored_shares(folder.table("judgments"))]
    except ValueError as error:
        raise FolderMismatch(f"{folder.path}/estimates.parquet: {error}; run the same command again") from None
    present = {row.term for row in rows}
    limit_list = limits_of(limits, present) if isinstance(limits, Mapping) else limit_files.load_limits(limits, present)
    return limit_files.check(folder.path.resolve().name, rows, limit_list)


def check_outputs(checked: CheckResult, *, junit: str | Path | None = None, json: str | Path | None = None) -> None:
    """Write a check as JUnit XML and as JSON to the files that are named. Raises StorageFailed."""
    for target, text in ((junit, limit_files.junit), (json, limit_files.record)):
        if target is not None:
            path = Path(target)
            RunFolder(path.parent).write_text(path.name, text(checked))
