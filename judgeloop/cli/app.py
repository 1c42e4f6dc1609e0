"""The application that the commands hang on, and what they share: --debug, failing in one sentence, printing, and options made
from the fields of a block."""

from __future__ import annotations

import inspect
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from judgeloop.errors import ENDING, Interrupted

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo
    from rich.console import Console

    from judgeloop.commands.consent import Consent

app = typer.Typer(
    name="judgeloop",
    help="What will my LLM judge do to my model? Measure a judge's bias, close the loop, and see what drifts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_debug = False
_words: tuple[str, ...] = ()

Debug = Annotated[bool, typer.Option("--debug", hidden=True)]
"""Every command takes --debug behind its name too; pass it to ``set_debug``."""


Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="No progress and no summary: the path, the address or the exit code alone."),
]
"""Every command takes --quiet."""


Yes = Annotated[
    bool,
    typer.Option("--yes", help="Send keys where the experiment file says, or unencrypted, without being asked first."),
]
"""Every command that sends keys takes --yes; give it to ``consent``."""


def consent(yes: bool) -> Consent:
    """How the command has it confirmed where keys go: by --yes, else by a person at the terminal."""
    from judgeloop.commands.consent import Consent

    return Consent(yes, _confirmed)


def _confirmed(sentences: Sequence[str]) -> bool | None:
    """A person's answer to these sentences; None where there is no terminal. The standard output stays free for results."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    print("\n".join(sentences), end="\nSend it? [y/N] ", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


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
    set_debug(debug)


def set_debug(debug: bool) -> None:
    """Ask for tracebacks, wherever on the line --debug stands."""
    global _debug  # noqa: PLW0603  one process, one command
    _debug = _debug or debug


def debugging() -> bool:
    """Whether tracebacks are wanted."""
    return _debug


def set_words(words: Sequence[str]) -> None:
    """Keep the words of the command line behind the program's name, for ``words``."""
    global _words  # noqa: PLW0603  one process, one command
    _words = tuple(words)


def words() -> list[str]:
    """The words of the command line behind the program's name, for messages that repeat the command."""
    return list(_words)


def fail(message: str, code: int) -> NoReturn:
    """One sentence on standard error, and the exit code."""
    print(f"judgeloop: {message}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it the signals of ``ENDING`` end the command as Ctrl-C does; one that is ignored, as SIGHUP by nohup, stays so. Raises
    Interrupted."""
    in_main = threading.current_thread() is threading.main_thread()
    before = {sign: signal.getsignal(sign) for sign in ENDING if in_main}
    try:
        for sign, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(sign, _interrupt)
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted; all answers so far are recorded, run the same command to resume") from None
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler or signal.SIG_DFL)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def print_json(content: object) -> None:
    """Print as JSON, for programs."""
    print(json.dumps(content, indent=1, ensure_ascii=False))


def console(width: int = 120) -> Console:
    """Standard output for tables; ``width`` where it is no terminal, for tables that wrap at 80 columns are hard to read."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def from_fields(callback: Callable[..., None], blocks: Callable[[], type[BaseModel]]) -> type[TyperCommand]:
    """A command class whose options are the fields of a block, between the arguments and the keywords of ``callback``.

    ``callback`` is called with its own parameters and with ``given``: field → value of the fields that the command line
    names. The options are made when they are first looked at, since --help of all commands needs none of them.
    """

    class Deferred(TyperCommand):
        """A command that stands in for the whole one until its parameters are looked at."""

        _whole: Any = None

        @property
        def whole(self) -> Any:
            if self._whole is None:
                own = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
                own.command(self.name)(_with_options(callback, blocks()))
                self._whole = typer.main.get_command(own)
            return self._whole

        @property
        def params(self) -> Any:
            return self.whole.params

        @params.setter
        def params(self, _: object) -> None:
            """typer sets the stand-in's own parameters, of which there are none."""

        def invoke(self, ctx: Any) -> Any:
            return self.whole.invoke(ctx)

    return Deferred


def _with_options(callback: Callable[..., None], block: type[BaseModel]) -> Callable[..., None]:
    """The callback with a keyword for every option of the block."""
    from judgeloop.experiment.options import from_words

    own = inspect.signature(callback, eval_str=True).parameters
    fixed = [parameter for name, parameter in own.items() if name != "given"]
    fields = {parameter.name: parameter for parameter in _parameters(block)}
    before = [parameter for parameter in fixed if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    behind = [parameter for parameter in fixed if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*before, *fields.values(), *behind)
    ]

    def with_given(**values: Any) -> None:
        field_words = {name: values.pop(name) for name in fields}
        callback(**values, given=from_words(block, field_words))

    with_given.__doc__ = callback.__doc__
    with_given.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_given.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_given


def _parameters(block: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """The fields that are options, each as a parameter that typer reads."""
    from judgeloop.experiment.options import flag, is_negated, option, word_type

    for name, field in block.model_fields.items():
        mark = option(field)
        if mark is None:
            continue
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        kind: Any = str if mark.parse else word_type(field)
        if mark.several:
            kind, default = list[kind], None
        elif mark.parse or default in ((), ""):
            default = None
        if is_negated(name, field):
            default = not default
        show_default = default is not None and default is not False
        settings = {"help": _help(name, field), "show_default": show_default, **_bounds(field)}
        yield inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.is_required() else default,
            annotation=Annotated[
                kind if field.is_required() or default is not None else kind | None,
                typer.Option(flag(name, field), **settings),
            ],
        )


def _help(name: str, field: FieldInfo) -> str:
    """The option's line in --help."""
    from judgeloop.experiment.options import is_negated, line, option

    mark, text = option(field), line(field).replace("`", "")
    if is_negated(name, field):
        text = text.removeprefix("False ").capitalize()
    if mark is None:
        return text
    if mark.form:
        is_name = text[:2].isupper()
        text = f"{mark.form}: {text if is_name else text[:1].lower() + text[1:]}"
    if mark.several:
        text = f"{text.removesuffix('.')}; again for several."
    return f"{text} [default: {mark.unset}]" if mark.unset else text


def _bounds(field: FieldInfo) -> Mapping[str, Any]:
    """A number's min and max, which typer checks itself."""
    names = {"min": "ge", "max": "le"}
    return {
        name: getattr(mark, bound) for name, bound in names.items() for mark in field.metadata if hasattr(mark, bound)
    }
