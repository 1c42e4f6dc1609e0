"""``judgeloop analyze``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, Quiet, app, set_debug
from judgeloop.errors import ColumnsGuessed, Interrupted


class LogFormat(StrEnum):
    """Tools whose verdict logs can be read."""

    auto = "auto"
    judgeloop = "judgeloop"
    alpaca_eval = "alpaca_eval"
    mt_bench = "mt_bench"
    arena_hard = "arena_hard"
    chatbot_arena = "chatbot_arena"
    preferences = "preferences"
    inspect = "inspect"
    lm_eval = "lm_eval"
    promptfoo = "promptfoo"
    openai_evals = "openai_evals"
    deepeval = "deepeval"
    ragas = "ragas"
    texts = "texts"


@app.command()
def analyze(
    verdicts: Annotated[
        list[Path],
        typer.Argument(
            help="One judgment a row (.jsonl, .csv, .parquet, or - for standard input), another tool's log or logs, or a folder of them."
        ),
    ],
    pairs: Annotated[
        Path | None, typer.Option(help="The pairs judged, with texts and gold; joined on pair_id.", show_default=False)
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="A YAML file that names the log's own columns and words.", show_default=False)
    ] = None,
    yes: Annotated[
        bool,
        typer.Option(
            "--yes", help="Take the columns as they are guessed: without --columns an unknown log's are shown first."
        ),
    ] = False,
    format: Annotated[  # noqa: A002  the option's name
        LogFormat, typer.Option(help="The tool that wrote the log; auto finds it by content.")
    ] = LogFormat.auto,
    mitigate: Annotated[
        str,
        typer.Option(
            help="Mitigations to measure on these verdicts, with commas: swap_average, consistent_only, length_controlled, "
            "panel; and rubric, if the log holds that judge.",
            show_default=False,
        ),
    ] = "",
    gold_exact: Annotated[
        bool,
        typer.Option(
            "--gold-exact",
            help="Gold cannot err: it is a verifiable reference, as an exact match. Without this, no bias is claimed from one gold alone.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write. [default: runs/<the log's name>, numbered where another log's stands]",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Estimate judges' biases from verdicts that you have already, or the drift of texts by generation; ask no model."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.analyze import analyze as analyze_command
    from judgeloop.rundir import default_folder

    try:
        with views.view(quiet=quiet) as view:
            stage = views.late_stages(view)
            result = analyze_command(
                verdicts[0] if len(verdicts) == 1 else verdicts,
                pairs, format=format.value, columns=columns, yes=yes, mitigate=mitigate, gold_exact=gold_exact,
                watch=lambda judge, done, judges: stage(f"estimates of {judge} ({done + 1} of {judges})"),
            )  # fmt: skip
            identity = result.record.environment()["experiment_hash"]
            result = result.save(out or default_folder(result.record.name, identity).path)
    except ColumnsGuessed as guessed:
        print(guessed.columns)
        raise
    except KeyboardInterrupt:
        raise Interrupted("interrupted; run the same command again") from None
    if quiet:
        print(result.path / "report.html")
    else:
        print(result.summary())
        print(f"Folder: {result.path}\nReport: {result.path / 'report.html'}")
