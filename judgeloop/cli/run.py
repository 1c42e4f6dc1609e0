"""``judgeloop run`` and ``judgeloop audit``: the commands that ask judges."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judgeloop.cli.app import (
    Debug,
    Quiet,
    Yes,
    app,
    consent,
    fail,
    from_fields,
    interruptible,
    print_json,
    set_debug,
    words,
)
from judgeloop.errors import AnswersOutstanding, InvalidInput

if TYPE_CHECKING:
    from judgeloop.experiment.audit import AuditLine
    from judgeloop.results import Run


Out = Annotated[
    Path | None,
    typer.Option(help="Run folder; an existing one is resumed. [default: runs/<name>]", show_default=False),
]
MaxCost = Annotated[
    float | None, typer.Option(help="Stop at this cost in USD (exit 3; resumable).", min=0, show_default=False)
]
MaxCalls = Annotated[
    int | None,
    typer.Option(help="Stop at this many calls, every attempt counted (exit 3; resumable).", min=0, show_default=False),
]
LeaveFailed = Annotated[
    bool,
    typer.Option("--no-retry-failed", help="Leave calls as they are whose attempts all failed in an earlier session."),
]
Executor = Annotated[
    str, typer.Option(help="What works the replicates: this process (local), or a Ray cluster (ray; extra [ray]).")
]


@app.command()
def run(
    experiment: Annotated[Path | None, typer.Argument(help="The experiment, a YAML file.", show_default=False)] = None,
    out: Out = None,
    replay: Annotated[
        Path | None,
        typer.Option(help="Answer every call from this recorded run folder; ask no endpoint.", show_default=False),
    ] = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    leave_failed: LeaveFailed = False,
    executor: Executor = "local",
    yes: Yes = False,
    quiet: Quiet = False,
    print_experiment: Annotated[
        bool, typer.Option("--print-experiment", help="Print an experiment to start from, and stop.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of an experiment and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Close the loop: draft, judge in both orders, learn, draft again; end in estimates and a report."""
    set_debug(debug)
    if print_experiment:
        from judgeloop.experiment.resolve import template

        print(template(), end="")
        return
    if schema:
        from judgeloop.experiment.schema import schema as experiment_schema

        print_json(experiment_schema())
        return
    if experiment is None:
        fail("run: give an experiment file, as in: judgeloop run experiment.yaml", 2)
    from judgeloop.cli import views
    from judgeloop.commands.run import run as run_command

    with interruptible(), views.view(quiet=quiet) as view:
        result = run_command(
            experiment, out=out, replay=replay, max_cost=max_cost, max_calls=max_calls,
            retry_failed=not leave_failed, observer=view, executor=executor, consent=consent(yes),
        )  # fmt: skip
    _show(result, quiet, replayed=replay is not None)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/demo"),
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the report in the browser.")] = True,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show what a run gives: the report of a recorded one of a small model, opened in the browser; nothing is asked."""
    set_debug(debug)
    import webbrowser

    from judgeloop.commands.demo import demo as demo_command

    result = demo_command(out)
    page = result.path / "report.html"
    if quiet:
        print(page)
    else:
        print(result.summary())
        print(f"Report: {page}")
    if browser:
        webbrowser.open(page.resolve().as_uri())


@app.command()
def step(
    run: Annotated[
        Path,
        typer.Argument(help="The experiment, a YAML file, or the run folder of an earlier step.", show_default=False),
    ],
    out: Out = None,
    max_cost: MaxCost = None,
    max_calls: MaxCalls = None,
    leave_failed: LeaveFailed = False,
    yes: Yes = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on to the next training, write its files and stop (exit 6); with model.json in their folders, go on from there."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.run import step as step_command

    try:
        with interruptible(), views.view(quiet=quiet) as view:
            result = step_command(
                run, out=out, max_cost=max_cost, max_calls=max_calls, retry_failed=not leave_failed, observer=view,
                consent=consent(yes),
            )  # fmt: skip
    except AnswersOutstanding as error:
        for call, folder in error.requests:
            print(f"{call}: {folder}")
        raise
    _show(result, quiet)


def _show(result: Run, quiet: bool, *, replayed: bool = False, folder: bool = False) -> None:
    """Print a result: first what failed, with the command that asks it again; then the summary and where the report is."""
    if (failed := result.failed_calls) and not replayed:
        from judgeloop.report import wording

        again = [word for word in words() if word != "--no-retry-failed"]
        line = f"{wording.failed_calls(failed)}; to ask again: {shlex.join(['judgeloop', *again])}"
        print(line, file=sys.stderr if quiet else sys.stdout)
    if quiet:
        print(result.path / "report.html")
        return
    print(result.summary())
    if folder:
        print(f"Folder: {result.path}")
    print(f"Report: {result.path / 'report.html'}")


def _line() -> type[AuditLine]:
    from judgeloop.experiment.audit import AuditLine

    return AuditLine


def _print_prompt(name: str | None) -> None:
    """Print a shipped template and stop."""
    if name is not None:
        from judgeloop.text import templates

        print(templates.source(name), end="")
        raise typer.Exit


def _audit(
    pairs: Annotated[
        Path,
        typer.Argument(help="One pair (or list) of answers a row: .jsonl, .csv, .parquet, or - for standard input."),
    ],
    *,
    given: dict[str, Any],
    plan: Annotated[
        bool, typer.Option("--plan", help="Calls, tokens, cost, time, and what so many pairs can show; ask nothing.")
    ] = False,
    json_plan: Annotated[bool, typer.Option("--json", help="With --plan: print it as JSON.")] = False,
    show_prompt: Annotated[
        str | None,
        typer.Option(
            help="Print what the judge is sent about this pair or item, by its id; ask nothing.", show_default=False
        ),
    ] = None,
    print_prompt: Annotated[  # noqa: ARG001  its callback prints and stops
        str | None,
        typer.Option(
            help="Print the shipped template of this name, to start from, and stop.",
            show_default=False,
            is_eager=True,
            callback=_print_prompt,
        ),
    ] = None,
    yes: Yes = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    set_debug(debug)
    if show_prompt is not None:
        from judgeloop.commands.prompts import shown_prompt

        print(shown_prompt(pairs, show_prompt, given))
        return
    from judgeloop.cli import views
    from judgeloop.commands.audit import run_audit
    from judgeloop.commands.audit_spec import audit_name, checked, valid
    from judgeloop.commands.plan_audit import plan_audit
    from judgeloop.experiment.audit import AuditCall, AuditPlanCall

    # The same command resumes; Python's default is a folder that nobody else has.
    given.setdefault("out", Path("runs") / audit_name(pairs))
    plan_only = AuditPlanCall.model_fields.keys() - AuditCall.model_fields.keys()
    if plan:
        from judgeloop.cli.plan import show_audit

        keywords = {name: value for name, value in given.items() if name in AuditPlanCall.model_fields}
        show_audit(plan_audit(pairs, **keywords), as_json=json_plan)
        return
    if json_plan or plan_only & given.keys():
        raise InvalidInput("--effect, --conflict, --calls-per-second and --json go with --plan; give it too")
    view = views.view(quiet=quiet)
    try:
        with interruptible(), view:
            call = valid(AuditCall, {**given, "observer": view})
            result = run_audit(checked(pairs, call), call, consent(yes))
    except AnswersOutstanding as error:
        _print_next_commands(error)
        raise
    _show(result, quiet, replayed="replay" in given, folder=True)


@app.command(cls=from_fields(_audit, _line))
def audit() -> None:
    """Ask judges about pairs of answers, in both orders and with probes; end in estimates of their biases and a report."""


def _print_next_commands(error: AnswersOutstanding) -> None:
    """The commands that answer the request files and take the answers back, to be copied."""
    outputs = [path.with_name(path.name.replace("requests", "output")) for _, path in error.requests]
    for (model, path), output in zip(error.requests, outputs, strict=True):
        print(shlex.join(["vllm", "run-batch", "-i", str(path), "-o", str(output), "--model", model]))
    if outputs:
        collect = [word for output in outputs for word in ("--collect", str(output))]
        print(shlex.join(["judgeloop", *_without_batch(words()), *collect]))


def _without_batch(line: list[str]) -> list[str]:
    """The command line without --batch and --collect."""
    rest, remaining = [], iter(line)
    for word in remaining:
        if word == "--collect":
            next(remaining, None)
        elif word != "--batch" and not word.startswith("--collect="):
            rest.append(word)
    return rest
