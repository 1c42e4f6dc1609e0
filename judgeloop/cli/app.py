"""The application that the commands hang on, and what they share: options of every command, failing in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="judgeloop",
    help="What will my LLM judge do to my model? Measure a judge's bias, close the loop, and see what drifts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_DEBUG = False
_LINE: tuple[str, ...] = ()

Debug = Annotated[bool, typer.Option("--debug", hidden=True)]
"""Every command takes --debug behind its name too; pass it to ``remember``."""


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
    remember(debug)


def remember(debug: bool) -> None:
    """Whether tracebacks are wanted, wherever on the line that was said."""
    global _DEBUG  # noqa: PLW0603  one process, one command
    _DEBUG = _DEBUG or debug


def hear(line: Sequence[str]) -> None:
    """The words of the command line, behind the program's name."""
    global _LINE  # noqa: PLW0603  one process, one command
    _LINE = tuple(line)


def heard() -> list[str]:
    """What ``hear`` was told, for messages that repeat the command."""
    return list(_LINE)


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return _DEBUG


def fail(message: str, code: int) -> NoReturn:
    """One sentence on standard error, and the exit code."""
    print(f"judgeloop: {message}", file=sys.stderr)
    raise SystemExit(code)
