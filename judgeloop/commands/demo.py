"""``judgeloop.demo``: the report of a recorded run that ships with judgeloop; nothing is asked."""

from __future__ import annotations

from pathlib import Path

from judgeloop.results import Run
from judgeloop.rundir import TABLES, RunFolder


def demo(out: str | Path = "runs/demo", *, report: bool = True) -> Run:
    """Write a run folder with the tables and estimates of a recorded run of SmolLM2-135M and, with ``report``, make its report, as
    ``run`` does at its end. A folder that is whole is left as it is. Raises FolderMismatch where something else stands there,
    StorageFailed."""
    source, folder = RunFolder(_shipped()), RunFolder(out)
    environment = source.environment()
    with folder.claim(environment["experiment_hash"]):
        if not (folder.path / "estimates.csv").exists():
            folder.write_json("environment.json", environment)
            folder.write_text("experiment.yaml", source.experiment_text())
            for name in TABLES:
                if len(table := source.table(name)):
                    folder.write_part(name, "run", table)
            folder.write_estimates(source.estimates())
        run = Run(folder)
        if report and not (folder.path / "report.html").exists():
            run.write_report()
    return run


def _shipped() -> Path:
    """The recorded run: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "quickstart"
    return installed if installed.is_dir() else package.parent / "fixtures" / "quickstart" / "run"
