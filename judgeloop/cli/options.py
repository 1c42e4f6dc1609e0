"""A command's options from the fields of a block, made when they are first looked at: --help of all commands needs none."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo


def from_fields(callback: Callable[..., None], blocks: Callable[[], type[BaseModel]]) -> type[TyperCommand]:
    """A kind of command whose options are the fields of the block, and then the parameters of ``callback``, which is given
    them all: of the fields, those that the line names, as ``given``."""

    class Deferred(TyperCommand):
        """Its parameters are made when they are first looked at."""

        _whole: Any = None

        @property
        def whole(self) -> Any:
            if self._whole is None:
                app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
                app.command(self.name)(_with_options(callback, blocks()))
                self._whole = typer.main.get_command(app)
            return self._whole

        @property
        def params(self) -> Any:
            return self.whole.params

        @params.setter
        def params(self, _: object) -> None:
            """The stand-in has none."""

        def invoke(self, ctx: Any) -> Any:
            return self.whole.invoke(ctx)

    return Deferred


def _with_options(callback: Callable[..., None], block: type[BaseModel]) -> Callable[..., None]:
    from judgeloop.experiment.options import from_words

    own = inspect.signature(callback, eval_str=True).parameters
    fixed = [parameter for name, parameter in own.items() if name != "given"]
    fields = {parameter.name: parameter for parameter in _parameters(block)}
    before = [parameter for parameter in fixed if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    behind = [parameter for parameter in fixed if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
    every = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*before, *fields.values(), *behind)]

    def called(**values: Any) -> None:
        words = {name: values.pop(name) for name in fields}
        callback(**values, given=from_words(block, words))

    called.__doc__ = callback.__doc__
    called.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in every}
    return called


def _parameters(block: type[BaseModel]) -> Iterator[inspect.Parameter]:
    """Every field that is an option as typer reads it."""
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
        shown = default is not None and default is not False
        settings = {"help": _help(name, field), "show_default": shown, **_bounds(field)}
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
    """What typer checks itself, of numbers."""
    ends = {"min": "ge", "max": "le"}
    return {
        name: getattr(mark, end) for name, end in ends.items() for mark in field.metadata if hasattr(mark, end)
    }  # fmt: skip
