"""``judgeloop report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, fail, print_json, set_debug


@app.command()
def report(
    run_dir: Annotated[Path | None, typer.Argument(help="A run folder.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of report.json and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Write report.html, report.md and report.json of a run folder again, and show the summary."""
    set_debug(debug)
    if schema:
        from judgeloop.report.document import schema as report_schema

        print_json(report_schema())
        return
    if run_dir is None:
        fail("report: give a run folder, as in: judgeloop report runs/demo", 2)
    from judgeloop.results import open_run

    result = open_run(run_dir)
    result.write_report()
    print(result.summary())
    print(f"Report: {result.path / 'report.html'}")
