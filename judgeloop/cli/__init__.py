"""The command line: a thin layer over the Python interface. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from functools import cache
from io import TextIOWrapper
from typing import Any

import typer

# The order of the commands here, and in each module, is the order of --help.
from judgeloop.cli import (  # isort: skip
    run as _run,
    analyze as _analyze,
    folders as _folders,
    plan as _plan,
    serve as _serve,
    validate as _validate,
)
from judgeloop.cli.app import app, debugging, fail, set_words
from judgeloop.errors import JudgeloopError

__all__ = ["app", "main"]

_COMMANDS = (_run, _analyze, _folders, _plan, _serve, _validate)


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every deliberate error becomes one sentence and its exit code."""
    set_words(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):  # texts of users and models, whatever the terminal can write
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        _command()(args=arguments, prog_name="judgeloop")
    except JudgeloopError as error:
        if debugging():
            traceback.print_exc()
        fail(str(error), error.exit_code)


@cache
def _command() -> Callable[..., Any]:
    """The application as one command, made once a process: a program or a notebook may call ``main`` many times, and
    signatures are slow to read."""
    return typer.main.get_command(app)
