"""What is asked and answered over HTTP: request bodies checked as OpenAI checks them, answers, OpenAI error bodies."""

from __future__ import annotations

import contextvars
import json
import math
from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from judgeloop.records import Route
from judgeloop.wire import scored

_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_COUNTS = ("max_tokens", "max_completion_tokens", "n", "top_logprobs", "seed")
_FLAGS = ("stream", "logprobs")
_OBJECTS = ("stream_options", "response_format")
_AT_LEAST_ONE = ("max_tokens", "max_completion_tokens", "n")


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer. ``body`` is sent as JSON, text as it is; ``status`` 0 breaks the connection without an answer."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamedAnswer(Answer):
    """An answer whose server-sent events are relayed as they come; ``body`` is not sent."""

    events: AsyncIterator[bytes] | None = None


class AnswerLike(Protocol):
    """What an answerer gives back; Answer is one."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Mapping[str, Any] | str: ...


@runtime_checkable
class Answerer(Protocol):
    """Who answers. ``models`` may be a coroutine function; ``call_id`` is None for clients that send none."""

    def models(self) -> list[str] | Awaitable[list[str]]: ...

    async def answer(self, body: dict[str, Any], call_id: str | None) -> AnswerLike: ...


@runtime_checkable
class ScoringAnswerer(Answerer, Protocol):
    """Who scores texts too, by the routes of ``wire.scored``."""

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> AnswerLike: ...


class AnswerError(Exception):
    """Raised by an answerer instead of answering: the answer to send."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer.body))
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Incoming:
    """Headers and query of the request being answered, for answerers that pass them on. Never stored."""

    headers: tuple[tuple[bytes, bytes], ...] = ()
    query: str = ""


incoming: contextvars.ContextVar[Incoming] = contextvars.ContextVar("incoming", default=Incoming())  # noqa: B039


def error_answer(
    status: int,
    message: str,
    *,
    code: str | None = None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """An OpenAI error body with that status."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return Answer(
        status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, dict(headers or {})
    )


def parsed(raw: bytes, route: Route = "") -> dict[str, Any]:
    """The request body, checked as far as every server of that route checks it; else AnswerError (400)."""
    try:
        body = json.loads(raw, parse_constant=_not_finite, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise _bad(f"The request body is not valid JSON: {str(error)[:200]}", None, "invalid_json") from None
    if not isinstance(body, dict):
        raise _bad("The request body must be a JSON object", None, "invalid_type")
    if "model" not in body:
        raise _bad("You must provide a model parameter", "model", "missing_required_parameter")
    if not isinstance(body["model"], str) or not body["model"]:
        raise _bad("'model' must be a non-empty string", "model", "invalid_type")
    if route and (lacking := scored.missing(route, body)):
        raise _bad(f"'{lacking}' must be text, or where a list may stand a list of texts", lacking, "invalid_type")
    if route and "messages" not in body:
        return body
    messages = body.get("messages")
    if messages is None:
        raise _bad("Missing required parameter: 'messages'", "messages", "missing_required_parameter")
    if not isinstance(messages, list) or not messages:
        raise _bad("'messages' must be a non-empty array", "messages", "invalid_type")
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad("A message must be an object with a 'role'", f"messages[{number}]", "invalid_type")
        content = message.get("content")
        parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        if not (content is None or isinstance(content, str) or parts):
            where = f"messages[{number}].content"
            raise _bad("'content' must be a string or an array of objects", where, "invalid_type")
    for name in (*_NUMBERS, *_COUNTS, *_FLAGS, *_OBJECTS):
        if body.get(name) is not None and (wanted := _wanted(name, body[name])):
            raise _bad(f"'{name}' must be {wanted}", name, "invalid_type")
    for name in _AT_LEAST_ONE:
        if body.get(name) is not None and body[name] < 1:
            raise _bad(f"'{name}' must be at least 1", name, "integer_below_min_value")
    return body


def _wanted(name: str, value: object) -> str:
    """What a field must be, or nothing if it is that."""
    flag = isinstance(value, bool)
    if name in _FLAGS:
        return "" if flag else "a boolean"
    if name in _OBJECTS:
        return "" if isinstance(value, dict) else "an object"
    if name in _COUNTS:
        return "" if isinstance(value, int) and not flag else "an integer"
    return "" if isinstance(value, int | float) and not flag else "a number"


def _bad(message: str, param: str | None, code: str) -> AnswerError:
    return AnswerError(error_answer(400, message, param=param, code=code))


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)
