"""``judgeloop.demo``: the report of a recorded run that ships with judgeloop; nothing is asked."""

from __future__ import annotations

from pathlib import Path

from judgeloop.commands.run import design_of_tables
from judgeloop.experiment.resolve import resolve
from judgeloop.results import Run
from judgeloop.rundir import TABLES, RunFolder
from judgeloop.stats.design import RunTables
from judgeloop.stats.loop.estimates import run_estimates


def demo(out: str | Path = "runs/demo", *, report: bool = True) -> Run:
    """Write a run folder with the tables of a recorded run of SmolLM2-135M, make its estimates and, with ``report``, its report, as
    ``run`` does at its end. A folder that is whole is left as it is. Raises FolderMismatch where something else stands there,
    StorageFailed."""
    source, folder = RunFolder(_shipped()), RunFolder(out)
    environment = source.environment()
    with folder.claim(environment["experiment_hash"]):
        if not (folder.path / "estimates.csv").exists():
            folder.write_json("environment.json", environment)
            folder.write_text("experiment.yaml", source.experiment_text())
            tables = {name: source.table(name) for name in TABLES}
            for name, table in tables.items():
                if len(table):
                    folder.write_part(name, "run", table)
            resolved = resolve(source.experiment(), source.path, where=str(source.path / "experiment.yaml"))
            folder.write_estimates(run_estimates(RunTables(**tables), design_of_tables(resolved, tables["judgments"])))
        run = Run(folder)
        if report and not (folder.path / "report.html").exists():
            run.write_report()
    return run


def _shipped() -> Path:
    """The recorded run: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "quickstart"
    return installed if installed.is_dir() else package.parent / "fixtures" / "quickstart" / "run"
