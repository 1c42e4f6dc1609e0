"""``judgeloop watch``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from judgeloop.cli.app import Debug, app, set_debug


@app.command()
def watch(
    run_dir: Annotated[Path, typer.Argument(help="A run folder; its run may be going on.")],
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; 0 takes a free one.", min=0, max=65535)] = 8010,
    debug: Debug = False,
) -> None:
    """Serve the live report of a run on this machine: it refreshes when a generation is complete."""
    set_debug(debug)
    from judgeloop.commands.watch import watch as watch_command

    watch_command(
        run_dir, port=port, ready=lambda url: print(f"judgeloop watches {run_dir} at {url} (Ctrl-C ends)", flush=True)
    )
