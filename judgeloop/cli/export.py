"""``judgeloop export``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, fail, set_debug


class ExportFormat(StrEnum):
    """What a folder's results are written as."""

    trl_dpo = "trl-dpo"
    trl_kto = "trl-kto"
    openai_preference = "openai-preference"
    openai_batch = "openai-batch"
    labels = "labels"


@app.command()
def export(
    run_dir: Annotated[Path, typer.Argument(help="A run folder, or that of an audit or analysis.")],
    format: Annotated[  # noqa: A002  the option's name
        ExportFormat, typer.Option(help="Training data, requests, or a blinded sheet for people to label.")
    ],
    out: Annotated[Path, typer.Option(help="File to write; labels: the CSV, with an HTML form beside it.")],
    arm: Annotated[
        str | None,
        typer.Option(
            help="The arm whose preferences are written. [default: the first arm that is no control]",
            show_default=False,
        ),
    ] = None,
    generation: Annotated[
        int | None,
        typer.Option(
            help="The generation whose preferences are written. [default: the last]", min=0, show_default=False
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Of an audit with several judges: the judge whose preferences are written.", show_default=False
        ),
    ] = None,
    label_rule: Annotated[
        str, typer.Option(help="Of an audit: how picks become preferences: raw, swap_average or consistent_only.")
    ] = "swap_average",
    stage: Annotated[str, typer.Option(help="openai-batch: requests of judge, draft or all.")] = "judge",
    pairs: Annotated[
        int | None,
        typer.Option(
            help="labels: number of pairs. [default: what --effect takes, 100 or more]", min=1, show_default=False
        ),
    ] = None,
    effect: Annotated[
        float, typer.Option(help="labels: the length effect to find, log-odds per doubling at equal quality.")
    ] = 0.3,
    seed: Annotated[int, typer.Option(help="labels: seed of the draw of pairs and orders.", min=0)] = 0,
    collect: Annotated[
        list[Path] | None,
        typer.Option(
            help="labels: read this filled-in sheet back (again for more) and write pairs with gold.",
            show_default=False,
        ),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write preferences for training, requests for a batch, or a sheet for people to label; read labels back as gold."""
    set_debug(debug)
    if collect and format is not ExportFormat.labels:
        fail("export: --collect reads label sheets back; it goes with --format labels", 2)
    from judgeloop.commands.export import collect_labels
    from judgeloop.commands.export import export as export_command

    if collect:
        result = collect_labels(run_dir, collect, out)
    else:
        result = export_command(
            run_dir, format.value, out, arm=arm, generation=generation, judge=judge, label_rule=label_rule, stage=stage,
            pairs=pairs, effect=effect, seed=seed,
        )  # fmt: skip
    print(result.note)
    for path in result.files:
        print(path)
