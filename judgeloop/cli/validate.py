"""``judgeloop validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, Quiet, app, set_debug


@app.command()
def validate(
    only: Annotated[
        str | None,
        typer.Option(
            help="Rows or letters, as A1,F1,L; of a study, cells with semicolons between them.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer draws: about a minute on two cores.")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="The study of how often intervals hold the truth, instead of the rows.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims", help="The study of how often reports claim what is false, instead of the rows.")
    ] = False,
    replications: Annotated[
        int | None,
        typer.Option(
            help="Of a study: replications a cell. Default: 2000, of --claims 1000.", min=20, show_default=False
        ),
    ] = None,
    share: Annotated[
        float | None, typer.Option(help="Of a study: this share of the cells, evenly spaced.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random draws.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the tables into this folder; a study that was stopped goes on there.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Test the statistics on data with planted truth: theory, estimate, Monte-Carlo error and pass, row by row (exit 1: a row
    fails)."""
    set_debug(debug)
    import os

    from judgeloop.cli import views
    from judgeloop.commands.validate import validate as validate_command

    result = validate_command(
        only.split(";" if coverage or claims else ",") if only else None, quick=quick, coverage=coverage, claims=claims,
        replications=replications, share=share, seed=seed, workers=os.cpu_count() or 1, out=out, watch=views.view(quiet=quiet).note,
    )  # fmt: skip
    if not quiet:
        print(result.summary())
    if result.files:
        print("\n".join(str(path) for path in result.files))
    if not result.passed:
        raise typer.Exit(1)
