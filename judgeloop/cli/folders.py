"""``judgeloop report``, ``compare``, ``check`` and ``export``: what is made of the folders that stand."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, Quiet, app, console, fail, print_json, set_debug


@app.command()
def report(
    run_dir: Annotated[Path | None, typer.Argument(help="A run folder.", show_default=False)] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of report.json and stop.")] = False,
    png: Annotated[
        bool, typer.Option("--png", help="The first screen as report.png too, by a Chromium on this machine.")
    ] = False,
    pdf: Annotated[
        bool, typer.Option("--pdf", help="The whole page as report.pdf too, by a Chromium on this machine.")
    ] = False,
    quiet: Quiet = False,
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
    page = result.path / "report.html"
    if quiet:
        print(page)
    else:
        print(result.summary())
        print(f"Report: {page}")
    if png or pdf:
        from judgeloop.report import printed

        for asked, write in ((png, printed.picture), (pdf, printed.paper)):
            if asked:
                print(write(page, page.with_suffix(".png" if write is printed.picture else ".pdf")))


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
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare judges, mitigations, strategies or weeks: differences with intervals, and what they allow to recommend."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.compare import compare as compare_command
    from judgeloop.report import comparison

    with views.view(quiet=quiet) as view:
        stage = views.late_stages(view)
        result = compare_command(
            *(run_dirs or ()), out=out, judges=judge or (), arms=arm or (), watch=lambda a, b: stage(f"{a} and {b}")
        )
    if quiet:
        print(result.path / "compare.html")
    else:
        console(140).print(comparison.renderable(result.comparison))
        print(f"Folder: {result.path}\nPage: {result.path / 'compare.html'}")


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
    quiet: Quiet = False,
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
    if not quiet:
        console(140).print(limit_files.table(result))
    if github if github is not None else bool(os.environ.get("GITHUB_ACTIONS")):
        print(limit_files.workflow_commands(result), end="")
    raise typer.Exit(result.exit_code)


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
    quiet: Quiet = False,
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
    if not quiet:
        print(result.note)
    for path in result.files:
        print(path)
