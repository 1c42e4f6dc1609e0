"""``judgeloop run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, fail, print_json, set_debug
from judgeloop.errors import Interrupted


@app.command()
def run(
    experiment: Annotated[Path | None, typer.Argument(help="The experiment, a YAML file.", show_default=False)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder; an existing one is resumed. [default: runs/<name>]", show_default=False),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="Answer every call from this recorded run folder; ask no endpoint.", show_default=False),
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option(help="Stop at this cost in USD (exit 3; resumable).", min=0, show_default=False)
    ] = None,
    max_calls: Annotated[
        int | None, typer.Option(help="Stop at this many calls (exit 3; resumable).", min=0, show_default=False)
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no summary: the report's path alone.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of an experiment and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Close the loop: draft, judge in both orders, learn, draft again; end in estimates and a report."""
    set_debug(debug)
    if schema:
        from judgeloop.experiment.schema import schema as experiment_schema

        print_json(experiment_schema())
        return
    if experiment is None:
        fail("run: give an experiment file, as in: judgeloop run experiment.yaml", 2)
    from judgeloop.cli import views
    from judgeloop.commands.run import run as run_command

    try:
        with views.view(quiet=quiet) as view:
            result = run_command(
                experiment, out=out, replay=replay, max_cost=max_cost, max_calls=max_calls, observer=view
            )
    except KeyboardInterrupt:
        raise Interrupted("interrupted; all answers so far are recorded, run the same command to resume") from None
    if quiet:
        print(result.path / "report.html")
    else:
        print(result.summary())
        print(f"Report: {result.path / 'report.html'}")
