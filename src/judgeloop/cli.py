"""The command line: a thin layer over the Python interface. Heavy imports wait until a command needs them."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from judgeloop.errors import Interrupted, JudgeloopError

app = typer.Typer(
    name="judgeloop",
    help="What will my LLM judge do to my model? Measure a judge's bias, close the loop, and see what drifts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_DEBUG = False
_SILENT_S = 3.0


class LogFormat(StrEnum):
    """Whose verdict log it is."""

    auto = "auto"
    judgeloop = "judgeloop"


def _version(show: bool) -> None:
    if show:
        from judgeloop import __version__

        print(f"judgeloop {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    _: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    global _DEBUG  # noqa: PLW0603  one process, one command
    _DEBUG = _DEBUG or debug


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
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Close the loop: draft, judge in both orders, learn, draft again; end in estimates and a report."""
    _remember(debug)
    if schema:
        from judgeloop.experiment import schema as experiment_schema

        print(json.dumps(experiment_schema(), indent=1, ensure_ascii=False))
        return
    if experiment is None:
        _fail("run: give an experiment file, as in: judgeloop run experiment.yaml", 2)
    from rich.console import Console

    from judgeloop import api, progress

    console = Console(stderr=True)
    view = (
        progress.Quiet() if quiet else progress.Terminal(console) if console.is_terminal else progress.Plain(sys.stderr)
    )
    try:
        done = api.run(experiment, out=out, replay=replay, max_cost=max_cost, max_calls=max_calls, observer=view)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; all answers so far are recorded, run the same command to resume") from None
    finally:
        view.stop()
    if quiet:
        print(done.path / "report.html")
    else:
        print(done.summary())
        print(f"Report: {done.path / 'report.html'}")


@app.command()
def analyze(
    verdicts: Annotated[
        Path, typer.Argument(help="One judgment a row: .jsonl, .csv, .parquet, or - for standard input.")
    ],
    pairs: Annotated[
        Path | None, typer.Option(help="The pairs judged, with texts and gold; joined on pair_id.", show_default=False)
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="A YAML file that names the log's own columns and words.", show_default=False)
    ] = None,
    format: Annotated[  # noqa: A002, ARG001  CONTRACT's option; one format so far
        LogFormat, typer.Option(help="Whose log this is; auto tells it from the columns.")
    ] = LogFormat.auto,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. [default: runs/<the log's name>]", show_default=False)
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Estimate judges' biases from verdicts that you have already; ask no model."""
    _remember(debug)
    from judgeloop import api

    began = time.monotonic()

    def watch(judge: str, done: int, of: int) -> None:
        if time.monotonic() - began > _SILENT_S:
            print(f"estimates of {judge} ({done + 1} of {of})", file=sys.stderr, flush=True)

    try:
        done = api.analyze(verdicts, pairs, out=out, columns=columns, watch=watch)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; run the same command again") from None
    print(done.summary())
    print(f"Folder: {done.path}\nReport: {done.path / 'report.html'}")


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run folder.")],
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Write report.html, report.md and report.json of a run folder anew, and show the summary."""
    _remember(debug)
    from judgeloop import api

    done = api.open_run(run_dir)
    done.write_report()
    print(done.summary())
    print(f"Report: {done.path / 'report.html'}")


@app.command()
def serve(
    replay: Annotated[
        Path | None, typer.Option(help="Answer from this recorded run folder.", show_default=False)
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Pass calls on to --upstream and record them in this folder.", show_default=False),
    ] = None,
    upstream: Annotated[
        str | None, typer.Option(help="With --record: the OpenAI-compatible base URL to record.", show_default=False)
    ] = None,
    planted: Annotated[
        Path | None,
        typer.Option(help="Play a judge and drafter with the biases that this YAML file states.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 takes a free one.", min=0, max=65535)] = 8000,
    faults: Annotated[
        Path | None, typer.Option(help="Fail as this YAML file says: for testing clients.", show_default=False)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a planted spec and stop.")] = False,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Serve the OpenAI API locally: replay a recording, record an upstream, or play a judge with planted biases."""
    _remember(debug)
    from judgeloop import api

    if schema:
        print(json.dumps(api.planted_schema(), indent=1, ensure_ascii=False))
        return
    if sum(mode is not None for mode in (replay, record, planted)) != 1:
        _fail("serve: give one of --replay DIR, --record DIR --upstream URL, --planted SPEC.yaml", 2)
    if (record is None) != (upstream is None):
        _fail("serve: --record DIR and --upstream URL go together", 2)
    api.serve(
        replay=replay, record=record, upstream=upstream, planted=planted, host=host, port=port, faults=faults,
        ready=lambda url: print(f"judgeloop serves {url} (Ctrl-C ends)", flush=True),
    )  # fmt: skip


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
    out: Annotated[Path | None, typer.Option(help="Write the tables into this folder.", show_default=False)] = None,
    debug: Annotated[bool, typer.Option("--debug", hidden=True)] = False,
) -> None:
    """Planted truth through the same code: theory, estimate, Monte-Carlo error, pass, row by row (exit 1: one fails)."""
    _remember(debug)
    import os

    from judgeloop import validate as planted_truth

    workers = os.cpu_count() or 1
    rows, study, passed = [], None, True
    if coverage:
        study = planted_truth.coverage(
            seed, replications, cells=only.split(";") if only else None, share=share, workers=workers,
            on_cell=lambda cell: print(f"judgeloop: {cell['cell'].iloc[0]}", file=sys.stderr, flush=True),
        )  # fmt: skip
        print(study.to_string(index=False))
        passed = bool(study["passed"].all())
    else:
        rows = planted_truth.run(
            only.split(",") if only else None, quick, seed, workers=workers,
            on_row=lambda row: print(f"judgeloop: {row.name} {row.setting}", file=sys.stderr, flush=True),
        )  # fmt: skip
        print(planted_truth.table(rows))
        passed = all(row.passed for row in rows)
    if out is not None:
        print("\n".join(str(path) for path in planted_truth.write(rows, study, out)))
    if not passed:
        raise typer.Exit(1)


def _remember(debug: bool) -> None:
    global _DEBUG  # noqa: PLW0603
    _DEBUG = _DEBUG or debug


def _fail(message: str, code: int) -> NoReturn:
    print(f"judgeloop: {message}", file=sys.stderr)
    raise SystemExit(code)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every deliberate error becomes one sentence and its exit code."""
    command: Callable[..., Any] = typer.main.get_command(app)
    try:
        command(args=arguments, prog_name="judgeloop")
    except JudgeloopError as error:
        if _DEBUG:
            raise
        _fail(str(error), error.exit_code)
