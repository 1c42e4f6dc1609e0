"""``judgeloop report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, remember


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: Debug = False,
) -> None:
    """Write report.html, report.md and report.json of a run folder anew, and show the summary."""
    remember(debug)
    from judgeloop import api

    done = api.open_run(run_dir)
    done.write_report()
    print(done.summary())
    print(f"Report: {done.path / 'report.html'}")
