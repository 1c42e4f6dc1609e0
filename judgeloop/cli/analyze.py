"""``judgeloop analyze``."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judgeloop.cli.app import Debug, Quiet, app, set_debug
from judgeloop.errors import ColumnsGuessed, Interrupted, InvalidInput

if TYPE_CHECKING:
    from judgeloop.results import Audit

_LOOK_EVERY_S = 2.0
"""How often ``--follow`` looks whether the log has changed."""


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
            help="Gold cannot err and is all of quality: right or wrong by a verifiable reference, as an exact match, or a number. Without this, no bias is claimed from one gold alone.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write. [default: runs/<the log's name>, numbered where another log's stands]",
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow",
            help="Analyse anew whenever the log has grown, as that of a training does, into the same folder, until Ctrl-C.",
        ),
    ] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Estimate judges' biases from verdicts that you have already, or the drift of texts by generation; ask no model."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.analyze import analyze as analyze_command

    def analysed() -> Audit:
        with views.view(quiet=quiet) as view:
            stage = views.late_stages(view)
            return analyze_command(
                verdicts[0] if len(verdicts) == 1 else verdicts,
                pairs, format=format.value, columns=columns, yes=yes, mitigate=mitigate, gold_exact=gold_exact,
                watch=lambda judge, done, judges: stage(f"estimates of {judge} ({done + 1} of {judges})"),
            )  # fmt: skip

    try:
        if follow:
            _follow(analysed, [*verdicts, *([pairs] if pairs else [])], out)
            return
        result = analysed()
        result = result.save(out or _folder_of(result))
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


def _folder_of(result: Audit) -> Path:
    """The default folder of an analysis."""
    from judgeloop.rundir import default_folder

    return default_folder(result.record.name, result.record.environment()["experiment_hash"]).path


def _follow(analysed: Callable[[], Audit], sources: Sequence[Path], out: Path | None) -> None:
    """Analyse the sources, and again whenever they have changed, until Ctrl-C. What cannot be analysed yet, as a log of one
    generation or a line that is still being written, is said once."""
    if Path("-") in sources:
        raise InvalidInput("--follow: standard input is read once; give the log's file or folder")
    state: list[tuple[Path, int, int]] | None = None
    folder, said = None, ""
    with suppress(KeyboardInterrupt):
        while True:
            before, state = state, _state(sources)
            if state != before:
                try:
                    folder = _written(analysed(), folder, out)
                    print(f"{datetime.now().astimezone():%H:%M:%S} {folder / 'report.html'}", flush=True)
                except ColumnsGuessed:
                    raise
                except InvalidInput as error:
                    if str(error) != said:
                        said = str(error)
                        print(f"judgeloop: {said}; waiting for more", file=sys.stderr, flush=True)
            time.sleep(_LOOK_EVERY_S)


def _state(sources: Sequence[Path]) -> list[tuple[Path, int, int]]:
    """(path, bytes, time of change) of every file of the sources."""
    files = [path for source in sources for path in (sorted(source.rglob("*")) if source.is_dir() else [source])]
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()]


def _written(result: Audit, folder: Path | None, out: Path | None) -> Path:
    """Where the result now is: in ``folder``, in place of an earlier one, else in ``out`` or the log's own folder."""
    if folder is None:
        return result.save(out or _folder_of(result)).path
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    result.save(part)
    shutil.rmtree(folder)
    return part.rename(folder)
