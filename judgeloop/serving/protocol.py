"""The local server's side of OpenAI's HTTP protocol: requests checked as OpenAI checks them, who answers them, and answers
as bodies, as server-sent events and as HTTP responses.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from judgeloop.records import Route
from judgeloop.wire.reply import MAX_MESSAGE_BYTES, missing_field

_NUMBERS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")
_COUNTS = ("max_tokens", "max_completion_tokens", "n", "top_logprobs", "seed")
_FLAGS = ("stream", "logprobs")
_OBJECTS = ("stream_options", "response_format")
_AT_LEAST_ONE = ("max_tokens", "max_completion_tokens", "n")


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """An HTTP answer: a ``body`` for JSON, or a text. ``status`` 0: the connection breaks without an answer."""

    status: int
    body: Mapping[str, Any] | str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamedAnswer(ServerAnswer):
    """An answer whose server-sent events are relayed as they come; ``body`` is not sent."""

    events: AsyncIterator[bytes] | None = None


class AnswerLike(Protocol):
    """An answer of an answerer: a ServerAnswer, or another class with a status and a body."""

    @property
    def status(self) -> int: ...
    @property
    def body(self) -> Mapping[str, Any] | str: ...


@runtime_checkable
class Answerer(Protocol):
    """Gives the answers that the local server sends: planted, recorded, an upstream's or a model's.

    ``models`` may be a coroutine function. ``call_id`` is None for clients that send none.
    """

    def models(self) -> list[str] | Awaitable[list[str]]: ...

    async def answer(self, body: dict[str, Any], call_id: str | None) -> AnswerLike: ...


@runtime_checkable
class ScoringAnswerer(Answerer, Protocol):
    """An answerer that scores texts too, by the routes of ``wire.reply.ROUTE_PATHS``."""

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> AnswerLike: ...


class AnswerError(Exception):
    """The answer that is sent instead of the one that was asked for; raised by answerers and by the checks of requests."""

    def __init__(self, answer: ServerAnswer) -> None:
        super().__init__(str(answer.body))
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Incoming:
    """Headers and query of the request that is being answered, for answerers that pass them on. Never stored."""

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
) -> ServerAnswer:
    """An answer with an OpenAI error body, of the type that belongs to ``status``."""
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = "server_error" if status >= 500 else kinds.get(status, "invalid_request_error")
    return ServerAnswer(
        status, {"error": {"message": message, "type": kind, "param": param, "code": code}}, dict(headers or {})
    )


def parsed(raw: bytes, route: Route = "") -> dict[str, Any]:
    """The request body, checked as far as every server of that route checks it. Raises AnswerError with a 400."""
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
    if route and (name := missing_field(route, body)):
        raise _bad(f"'{name}' must be text, or where a list may stand a list of texts", name, "invalid_type")
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
        has_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
        if not (content is None or isinstance(content, str) or has_parts):
            path = f"messages[{number}].content"
            raise _bad("'content' must be a string or an array of objects", path, "invalid_type")
    for name in (*_NUMBERS, *_COUNTS, *_FLAGS, *_OBJECTS):
        if body.get(name) is not None and (kind := _required_type(name, body[name])):
            raise _bad(f"'{name}' must be {kind}", name, "invalid_type")
    for name in _AT_LEAST_ONE:
        if body.get(name) is not None and body[name] < 1:
            raise _bad(f"'{name}' must be at least 1", name, "integer_below_min_value")
    return body


def _required_type(name: str, value: object) -> str:
    """The type that a field must have; empty where its value has it."""
    is_flag = isinstance(value, bool)
    if name in _FLAGS:
        return "" if is_flag else "a boolean"
    if name in _OBJECTS:
        return "" if isinstance(value, dict) else "an object"
    if name in _COUNTS:
        return "" if isinstance(value, int) and not is_flag else "an integer"
    return "" if isinstance(value, int | float) and not is_flag else "a number"


def _bad(message: str, param: str | None, code: str) -> AnswerError:
    """The error of a malformed request."""
    return AnswerError(error_answer(400, message, param=param, code=code))


def _not_finite(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _not_finite(text)


# A chat completion as server-sent events for streaming clients, and back for the recording.

DONE = b"data: [DONE]\n\n"
_PIECE = re.compile(r"\s*\S+|\s+")
_ENVELOPE = ("id", "created", "model", "system_fingerprint")
_TEXTS = ("content", "refusal", "reasoning_content", "reasoning")
_MOST_PARTS = 1024


def event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event. ASCII only, so that lone surrogates in a reply pass."""
    return b"data: " + json.dumps(data, separators=(",", ":"), ensure_ascii=True).encode() + b"\n\n"


def chunked(completion: Mapping[str, Any], *, include_usage: bool) -> Iterator[bytes]:
    """The events of a completion: role, text word by word, finish reason, usage if asked for, and [DONE].

    Log-probabilities travel with the first text chunk.
    """
    envelope = {name: completion[name] for name in _ENVELOPE if name in completion}
    envelope["object"] = "chat.completion.chunk"
    if include_usage:
        envelope["usage"] = None

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> bytes:
        return event({**envelope, "choices": [{"index": index, "delta": delta, "finish_reason": None, **more}]})

    for place, choice in enumerate(completion.get("choices") or []):
        index = choice.get("index", place)
        message = choice.get("message") or {}
        yield chunk(index, {"role": message.get("role", "assistant")})
        logprobs = {"logprobs": choice["logprobs"]} if choice.get("logprobs") else {}
        for name, value in message.items():
            if name in _TEXTS and isinstance(value, str):
                for piece in _PIECE.findall(value) or [""]:
                    yield chunk(index, {name: piece}, **logprobs)
                    logprobs = {}
            elif name == "tool_calls" and value:
                yield chunk(index, {name: [{"index": n, **call} for n, call in enumerate(value)]})
        yield chunk(index, {}, **{"finish_reason": choice.get("finish_reason"), **logprobs})
    if include_usage:
        yield event({**envelope, "choices": [], "usage": completion.get("usage")})
    yield DONE


class Assembler:
    """The completion that server-sent events make up; their bytes may come in pieces of any size."""

    def __init__(self) -> None:
        self.done = False
        self.damaged = False
        self._rest = b""
        self._body: dict[str, Any] = {"object": "chat.completion"}
        self._choices: dict[int, dict[str, Any]] = {}

    def feed(self, data: bytes) -> None:
        """Take in the next bytes of the stream."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            line = line.strip()
            if not line.startswith(b"data:"):
                continue  # comments, event names and blank lines
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self.done = True
                continue
            try:
                self._add_chunk(json.loads(payload))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.damaged = True

    @property
    def complete(self) -> bool:
        """Whether every choice has ended, or [DONE] came, and every event could be read."""
        ended = bool(self._choices) and all(choice["finish_reason"] for choice in self._choices.values())
        return (self.done or ended) and not self.damaged and "error" not in self._body

    def completion(self) -> dict[str, Any]:
        """The chat completion so far."""
        return {**self._body, "choices": [self._choices[index] for index in sorted(self._choices)]}

    def _add_chunk(self, chunk: dict[str, Any]) -> None:
        for name in (*_ENVELOPE, "usage", "error"):
            if chunk.get(name) is not None:
                self._body[name] = chunk[name]
        for part in chunk.get("choices") or []:
            index = _index(part)
            empty = {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
            choice = self._choices.setdefault(index, empty)
            message = choice["message"]
            for name, value in (part.get("delta") or {}).items():
                if name in _TEXTS and isinstance(value, str):
                    message[name] = (message.get(name) or "") + value
                elif name == "tool_calls":
                    _add_tool_calls(message.setdefault(name, []), value or [])
                elif value is not None:
                    message[name] = value
            for name, tokens in (part.get("logprobs") or {}).items():
                if tokens:
                    choice.setdefault("logprobs", {}).setdefault(name, []).extend(tokens)
            choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]


def _index(part: Mapping[str, Any]) -> int:
    """The place of a choice or tool call. Raises ValueError for none, and for one beyond what any server sends: a list is made as long."""
    index = part["index"]
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _MOST_PARTS:
        raise ValueError(index)
    return index


def _add_tool_calls(calls: list[dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    for part in parts:
        index = _index(part)
        while len(calls) <= index:
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call = calls[index]
        for name, value in part.items():
            if name == "function":
                for key, text in value.items():
                    call[name][key] = call[name].get(key, "") + (text or "")
            elif name != "index" and value is not None:
                call[name] = value


# Answers as HTTP responses: whole, as a stream, or broken off.


async def read_json(request: Request, most: int = MAX_MESSAGE_BYTES) -> bytes:
    """The body of a request. Raises AnswerError with a 415 where it is no JSON by its content-type, with a 413 where it has more than
    ``most`` bytes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # what a form of another site's page can send is none
        raise AnswerError(error_answer(415, "The body must be application/json, by its content-type", code="not_json"))
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise AnswerError(
                error_answer(
                    413, f"The request body is larger than {most} bytes, the most that is read", code="too_large"
                )
            )
        parts.append(part)
    return b"".join(parts)


def response(answer: AnswerLike, body: Mapping[str, Any] | None = None) -> Response:
    """The HTTP response of an answer to a request ``body``; a 200 is streamed where the request asks for that."""
    headers = dict(getattr(answer, "headers", {}) or {})
    if answer.status == 0:
        return BrokenResponse(b"", sent=None, reset=True)
    events = getattr(answer, "events", None)
    streaming = body is not None and body.get("stream") is True and answer.status == 200
    if streaming and events is None and isinstance(answer.body, Mapping):
        events = _iterated(chunked(answer.body, include_usage=_include_usage(body)))
    if events is not None:
        return StreamingResponse(
            events, answer.status, {**headers, "cache-control": "no-cache"}, media_type="text/event-stream"
        )
    if isinstance(answer.body, str):
        content = answer.body.encode("utf-8", "replace")
        return Response(content, answer.status, headers, media_type="text/plain")
    return Response(json_bytes(answer.body), answer.status, headers, media_type="application/json")


def _include_usage(body: Mapping[str, Any] | None) -> bool:
    return bool(((body or {}).get("stream_options") or {}).get("include_usage"))


async def _iterated(events: Iterator[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """A body as compact JSON. ASCII only: a lone surrogate in a recorded reply cannot be sent as UTF-8."""
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()


class BrokenResponse(Response):
    """A response that breaks off: ``sent`` bytes of ``content`` (None: not even the headers), then the connection is closed,
    or reset (TCP RST), after ``hold_s`` seconds or once the client has closed it."""

    def __init__(
        self, content: bytes, *, sent: int | None, reset: bool, hold_s: float = 0.0, streaming: bool = False
    ) -> None:
        super().__init__(content, media_type="text/event-stream" if streaming else "application/json")
        if streaming:  # the length of a stream is not announced
            del self.headers["content-length"]
        self._sent, self._reset, self._hold_s = sent, reset, hold_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._sent is not None:
            start: Message = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            part = bytes(self.body)[: self._sent]
            await send({"type": "http.response.body", "body": part, "more_body": True})
        disconnected = asyncio.ensure_future(_disconnected(receive))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(disconnected), None if self._hold_s == math.inf else self._hold_s)
        transport = (scope.get("state") or {}).get("transport")
        if transport is None:  # another ASGI server: returning unfinished closes the connection
            disconnected.cancel()
            return
        if self._reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await disconnected


class DoubledResponse(Response):
    """A response that is sent twice on its connection: the copy answers a call that nobody has made."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)
        if (transport := (scope.get("state") or {}).get("transport")) is not None:
            head = b"".join(b"%s: %s\r\n" % header for header in self.raw_headers)
            transport.write(b"HTTP/1.1 %d OK\r\n%s\r\n%s" % (self.status_code, head, bytes(self.body)))


async def _disconnected(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
