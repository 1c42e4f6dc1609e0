"""``judgeloop check``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, console, fail, set_debug


@app.command()
def check(
    run_dir: Annotated[Path | None, typer.Argument(help="A run folder.", show_default=False)] = None,
    limits: Annotated[
        Path | None,
        typer.Option(help="Limits by term, a YAML file. [default: as --print-limits shows]", show_default=False),
    ] = None,
    print_limits: Annotated[
        bool, typer.Option("--print-limits", help="Print the default limits, a file to start from, and stop.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to this file.", show_default=False)] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the results as JSON to this file.", show_default=False)
    ] = None,
    github: Annotated[
        bool | None,
        typer.Option(
            "--github/--no-github",
            help="Print GitHub annotations too. [default: where GITHUB_ACTIONS is set]",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Compare a run's estimates with limits: exit 0 if every interval is within its limit, 1 if one is exceeded, 5 if the
    sample is too small to tell."""
    set_debug(debug)
    if print_limits:
        from judgeloop.limits import default_text

        print(default_text(), end="")
        return
    if run_dir is None:
        fail("check: give a run folder, as in: judgeloop check runs/my-loop", 2)
    from judgeloop import limits as limit_files
    from judgeloop.commands.check import check as check_command
    from judgeloop.commands.check import check_outputs

    result = check_command(run_dir, limits)
    check_outputs(result, junit=junit, json=json)
    console(140).print(limit_files.table(result))
    if github if github is not None else bool(os.environ.get("GITHUB_ACTIONS")):
        print(limit_files.workflow_commands(result), end="")
    raise typer.Exit(result.exit_code)
