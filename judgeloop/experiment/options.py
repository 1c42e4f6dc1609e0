"""The options of a command as fields of a block: how each is given on the command line, and whether it changes answers."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from types import UnionType
from typing import Annotated, Any, Concatenate, Literal, ParamSpec, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from judgeloop.errors import InvalidInput

P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Option:
    """The mark of a field that is an option, beside the field's type, default and line.

    ``answers``: whether recorded answers depend on it; an option on which none depends may change between two sessions of
    one folder. ``flag``: its name on the command line where that is not the field's. ``several``: the flag may be given
    again. ``form``: what its word on the command line looks like, or goes with. ``parse``: the function from that word to the
    value, or to (key, value) where the field is a mapping. ``unset``: what is used where the default is None.
    """

    answers: bool
    flag: str = ""
    several: bool = False
    form: str = ""
    parse: Callable[[str], Any] | None = None
    unset: str = ""


def option(field: FieldInfo) -> Option | None:
    """The field's Option; None where it is no option."""
    return next((mark for mark in field.metadata if isinstance(mark, Option)), None)


def flag(name: str, field: FieldInfo) -> str:
    """The field's name on the command line."""
    mark = option(field)
    return (mark.flag if mark else "") or f"--{name.replace('_', '-')}"


def flags(*blocks: type[BaseModel]) -> dict[str, str]:
    """Field → its name on the command line, of every field that is an option."""
    return {name: flag(name, field) for block in blocks for name, field in block.model_fields.items() if option(field)}


def only_speed(block: type[BaseModel]) -> frozenset[str]:
    """The options on which no answer depends: how fast, at what price and with which key a model is asked, and the like."""
    return frozenset(name for name, field in block.model_fields.items() if (mark := option(field)) and not mark.answers)


def word_type(field: FieldInfo) -> type:
    """The type of a word on the command line: the first type that the field may have."""
    return _first_type(field.annotation)


def _first_type(annotation: Any) -> type:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _first_type(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return next(_first_type(member) for member in get_args(annotation) if member is not type(None))
    if origin is Literal:
        return str
    kind: type = origin or annotation
    return kind


# Python's keywords.


def with_keywords(
    block: Callable[P, BaseModel],
) -> Callable[[Callable[Concatenate[S, ...], T]], Callable[Concatenate[S, P], T]]:
    """A decorator: the function's keywords are the fields of ``block``, for people, completion and type checkers alike, and
    ``{options}`` in its docstring becomes a line on each. An unknown keyword is a TypeError, as of any function."""
    kind = cast(type[BaseModel], block)

    def decorated(function: Callable[Concatenate[S, ...], T]) -> Callable[Concatenate[S, P], T]:
        own = inspect.signature(function)
        signature = own.replace(parameters=[next(iter(own.parameters.values())), *_keywords(kind)])

        @wraps(function)
        def checked(*arguments: Any, **options: Any) -> T:
            signature.bind(*arguments, **options)
            return function(*arguments, **options)

        checked.__doc__ = (function.__doc__ or "").replace("{options}", "\n    ".join(_lines(kind)))
        checked.__signature__ = signature  # type: ignore[attr-defined]
        checked.block = kind  # type: ignore[attr-defined]
        return checked

    return decorated


def _keywords(block: type[BaseModel]) -> Iterator[inspect.Parameter]:
    for name, field in block.model_fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        yield inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_type_text(field.annotation)
        )


def _lines(block: type[BaseModel]) -> Iterator[str]:
    """``name: what it is for``, wrapped, of every field."""
    for name, field in block.model_fields.items():
        yield from textwrap.wrap(
            f"{name}: {described(field)}", 116, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )


def line(field: FieldInfo) -> str:
    """What the field is for."""
    return " ".join((field.description or "").split())


def described(field: FieldInfo) -> str:
    """What the field is for, and what is used where the default is None."""
    mark = option(field)
    return f"{line(field)} Default: {mark.unset}." if mark and mark.unset else line(field)


def _type_text(annotation: Any) -> str:
    """The type as a signature shows it."""
    arguments, origin = get_args(annotation), get_origin(annotation)
    if annotation is type(None):
        return "None"
    if origin is Annotated:
        return _type_text(arguments[0])
    if origin in (Union, UnionType):
        return " | ".join(_type_text(member) for member in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(str, arguments))}]"
    if arguments:
        inner = ", ".join("..." if member is Ellipsis else _type_text(member) for member in arguments)
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    return str(getattr(annotation, "__name__", annotation))


# Words of the command line to values.


def header(text: str) -> tuple[str, str]:
    """``Name: value``. Raises InvalidInput, and shows nothing: a key may stand there."""
    return _split(text, ":", "--header", "'Name: value'")


def query(text: str) -> tuple[str, str]:
    """``NAME=VALUE``. Raises InvalidInput, and shows nothing: a key may stand there."""
    return _split(text, "=", "--query", "NAME=VALUE")


def setting(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``, the value as YAML reads it. Raises InvalidInput."""
    key, value = _split(text, "=", "--endpoint", "KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return key, value


def _split(text: str, separator: str, name: str, form: str) -> tuple[str, str]:
    key, present, value = text.partition(separator)
    if not present or not key.strip():
        raise InvalidInput(f"{name}: must be {form}; what was given may hold a key and is not shown")
    return key.strip(), value.strip()


def json_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises InvalidInput."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput('--extra-body: must be a JSON object, as {"top_k": 1}')
    return value


def price(text: str) -> tuple[float, float]:
    """``IN,OUT``. Raises InvalidInput."""
    try:
        first, second = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidInput(
            f"--price: must be IN,OUT in USD per million prompt and reply tokens, as 0.15,0.6, not {text!r}"
        ) from None
    return first, second


def from_words(block: type[BaseModel], words: Mapping[str, Any]) -> dict[str, Any]:
    """Field → value, from the words of the command line by field; fields without a word are left out. Raises InvalidInput."""
    values: dict[str, Any] = {}
    for name, field in block.model_fields.items():
        mark, value = option(field), words.get(name)
        if mark is None or value is None or value == []:
            continue
        if mark.parse is not None:
            value = [mark.parse(word) for word in value] if mark.several else mark.parse(value)
            if issubclass(word_type(field), Mapping) and mark.several:
                value = dict(value)
        elif is_negated(name, field):
            value = not value
        values[name] = value
    return values


def is_negated(name: str, field: FieldInfo) -> bool:
    """Whether the flag switches the field off."""
    return word_type(field) is bool and flag(name, field).startswith("--no-")


def sentence(problem: Mapping[str, Any]) -> str:
    """One of pydantic's errors as the end of a sentence that names the field."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"


_MENDED_BY = (
    (r"max_completion_tokens", "max_tokens_field: max_completion_tokens", "--max-tokens-field max_completion_tokens"),
    (r"\bseed\b", "seed_field: random_seed, or none", "--seed-field random_seed, or none"),
    (r"temperature", "send_temperature: false", "--no-temperature"),
    (r"enable_thinking", "extra_body: {enable_thinking: false}", """--extra-body '{"enable_thinking": false}'"""),
    (r"api-version", "extra_query: {api-version: …}", "--query api-version=…"),
    (r"log_?-?prob", "a smaller top_logprobs or verdict: json", "--top-logprobs, --verdict json"),
    (r"response_format|json_schema", "verdict: text", "--verdict text"),
    (r"no endpoints found", "verdict: text, or extra_body without require_parameters", "--verdict text, --extra-body"),
)
"""(what a server's message says, setting of an experiment, option of audit)."""


def remedy(message: str) -> str:
    """The setting that mends a refusal with this message, as "set …"; empty where none is known."""
    for words, key, flags in _MENDED_BY:
        if re.search(words, message, re.I):
            return f"set {key} (audit: {flags})"
    return ""
