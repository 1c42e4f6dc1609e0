"""``judgeloop report``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, fail, remember


@app.command()
def report(
    run_dir: Annotated[Path | None, typer.Argument(help="A run folder.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of report.json and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Write report.html, report.md and report.json of a run folder anew, and show the summary."""
    remember(debug)
    if schema:
        from judgeloop.report.document import schema as report_schema

        print(json.dumps(report_schema(), indent=1, ensure_ascii=False))
        return
    if run_dir is None:
        fail("report: give a run folder, as in: judgeloop report runs/demo", 2)
    from judgeloop.results import open_run

    done = open_run(run_dir)
    done.write_report()
    print(done.summary())
    print(f"Report: {done.path / 'report.html'}")
