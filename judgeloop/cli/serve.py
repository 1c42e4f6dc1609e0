"""``judgeloop serve`` and ``judgeloop watch``: the local servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, Quiet, app, fail, print_json, set_debug


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
    yes: Annotated[
        bool, typer.Option("--yes", help="Let keys of clients go to an --upstream on another machine by plain http.")
    ] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a planted spec and stop.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve the OpenAI API locally: replay a recording, record an upstream, or play a judge with planted biases."""
    set_debug(debug)
    from judgeloop.commands.serve import planted_schema
    from judgeloop.commands.serve import serve as serve_command

    if schema:
        print_json(planted_schema())
        return
    if sum(mode is not None for mode in (replay, record, planted)) != 1:
        fail("serve: give one of --replay DIR, --record DIR --upstream URL, --planted SPEC.yaml", 2)
    if (record is None) != (upstream is None):
        fail("serve: --record DIR and --upstream URL go together", 2)
    serve_command(
        replay=replay, record=record, upstream=upstream, planted=planted, host=host, port=port, faults=faults, in_clear=yes,
        ready=lambda url: print(url if quiet else f"judgeloop serves {url} (Ctrl-C ends)", flush=True),
    )  # fmt: skip


@app.command()
def watch(
    run_dir: Annotated[Path, typer.Argument(help="A run folder; its run may be going on.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 8010,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Serve the live report of a run on this machine: it refreshes when a generation is complete."""
    set_debug(debug)
    from judgeloop.commands.watch import watch as watch_command

    watch_command(
        run_dir, port=port,
        ready=lambda url: print(url if quiet else f"judgeloop watches {run_dir} at {url} (Ctrl-C ends)", flush=True),
    )  # fmt: skip
