"""``judgeloop compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, console, set_debug


@app.command()
def compare(
    run_dirs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders; of a single one, its judges, mitigations or arms are compared.", show_default=False
        ),
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
    """Compare judges, mitigations, strategies or weeks: differences with intervals, and what they allow to recommend."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.compare import compare as compare_command
    from judgeloop.report import comparison

    with views.view() as view:
        stage = views.late_stages(view)
        result = compare_command(
            *(run_dirs or ()), out=out, judges=judge or (), arms=arm or (), watch=lambda a, b: stage(f"{a} and {b}")
        )
    console(140).print(comparison.renderable(result.comparison))
    print(f"Folder: {result.path}\nPage: {result.path / 'compare.html'}")
