"""``judgeloop compare``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, remember

_SILENT_S = 3.0


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders; one alone is compared within.", show_default=False)
    ] = None,
    judge: Annotated[
        list[str] | None, typer.Option(help="Compare this judge only; may be given again.", show_default=False)
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="Compare this arm only; may be given again.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. [default: runs/compare-<a>-<b>]", show_default=False)
    ] = None,
    debug: Debug = False,
) -> None:
    """Judges, mitigations, strategies or weeks side by side: differences with intervals, and what may be recommended."""
    remember(debug)
    from rich.console import Console

    from judgeloop.cli import views
    from judgeloop.commands.compare import compare as compare_command
    from judgeloop.report import comparison

    began = time.monotonic()

    def watch(first: str, second: str) -> None:
        if time.monotonic() - began > _SILENT_S:
            view.stage(f"{first} and {second}")

    with views.view() as view:
        done = compare_command(*(run_dirs or ()), out=out, judges=judge or (), arms=arm or (), watch=watch)
    Console(width=None if sys.stdout.isatty() else 140, highlight=False).print(comparison.renderable(done.comparison))
    print(f"Folder: {done.path}\nPage: {done.path / 'compare.html'}")
