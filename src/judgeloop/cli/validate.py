"""``judgeloop validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, remember


@app.command()
def validate(
    only: Annotated[
        str | None,
        typer.Option(
            help="Rows or letters, as A1,F1,L; with --coverage, cells parted by semicolons.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer draws: about a minute on two cores.")] = False,
    coverage: Annotated[
        bool, typer.Option("--coverage", help="The study of coverage and type I error instead of the rows.")
    ] = False,
    replications: Annotated[int, typer.Option(help="With --coverage: replications a cell.", min=20)] = 2000,
    share: Annotated[
        float | None, typer.Option(help="With --coverage: this share of the cells, evenly spaced.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Changes every draw.", min=0)] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the tables into this folder; a coverage study that was stopped goes on there.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Planted truth through the same code: theory, estimate, Monte-Carlo error, pass, row by row (exit 1: one fails)."""
    remember(debug)
    import os

    import pandas as pd

    from judgeloop import progress
    from judgeloop import validate as planted_truth

    view = progress.view()
    workers = os.cpu_count() or 1
    rows, whole, passed = [], None, True
    if coverage:
        earlier = planted_truth.studied(out) if out else None
        so_far = [] if earlier is None else [earlier]

        def cell_done(cell: pd.DataFrame) -> None:
            view.note(str(cell["cell"].iloc[0]))
            so_far.append(cell)
            if out:
                planted_truth.write([], pd.concat(so_far, ignore_index=True), out)

        study = planted_truth.coverage(
            seed, replications, cells=only.split(";") if only else None, share=share, workers=workers,
            on_cell=cell_done, known=earlier,
        )  # fmt: skip
        whole = pd.concat(so_far, ignore_index=True)
        print(study.to_string(index=False))
        passed = bool(study["passed"].all())
    else:
        rows = planted_truth.run(
            only.split(",") if only else None, quick, seed, workers=workers,
            on_row=lambda row: view.note(f"{row.name} {row.setting}"),
        )  # fmt: skip
        print(planted_truth.table(rows))
        passed = all(row.passed for row in rows)
    if out is not None:
        print("\n".join(str(path) for path in planted_truth.write(rows, whole, out)))
    if not passed:
        raise typer.Exit(1)
