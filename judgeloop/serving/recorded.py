"""Answerers with a cassette: one replays a recording, the other records an upstream as a proxy in front of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx2

from judgeloop.records import Call, Route, canonical
from judgeloop.rundir import Lock
from judgeloop.serving.protocol import (
    AnswerError,
    Assembler,
    Incoming,
    ServerAnswer,
    StreamedAnswer,
    error_answer,
    incoming,
)
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.reply import (
    SHORTEST_SECRET_IN_ANSWER,
    SHORTEST_SECRET_IN_ERROR,
    Refusal,
    Struck,
    TransientFault,
    parse,
    route_path,
    unpacked,
)
from judgeloop.wire.transport import read_bounded

_LOG = logging.getLogger("judgeloop.serve")
_MODELS = Call("models", "", {})
"""The call by which the list of models is recorded, so that a replay can list them too."""

# Headers of the connection and not of the request, or made anew by the client that forwards.
_NOT_FORWARDED = frozenset(
    [
        "host",
        "content-length",
        "content-type",
        "accept-encoding",
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "expect",
    ]
)
_RELAYED = ("retry-after", "retry-after-ms", "x-request-id", "x-should-retry")
_SECRET_NAME = re.compile("auth|key|token|secret|cookie|password|signature|credential", re.IGNORECASE)


class ReplayAnswerer:
    """Answers from the recording in a run folder, and from nothing else.

    A request with a call id is matched by call id and request hash. One without is matched by its request hash alone: its
    repeats are served in recorded order, and then the last one again. A recorded fault is replayed as it came.
    """

    def __init__(self, folder: str | Path) -> None:
        self._cassette = Cassette(folder, writable=False)
        self._served: Counter[str] = Counter()
        self._models: list[str] | None = None

    def models(self) -> list[str]:
        """The models that the upstream listed when it was recorded, and those that recorded requests name."""
        if self._models is None:
            names = _model_names(self._cassette.get(_MODELS.call_id, _MODELS.key))
            requested = (exchange.request.get("model") for exchange in self._cassette.exchanges())
            self._models = list(dict.fromkeys([*names, *(name for name in requested if isinstance(name, str))]))
        return self._models

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """The recorded answer, or a 404 that names the nearest recording and what differs from it."""
        return self._answer(Call(call_id or "", "", body), call_id)

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """As ``answer``, for a route that scores or embeds."""
        return _as_asked(self._answer(Call(call_id or "", "", body, route), call_id), route, body)

    def _answer(self, call: Call, call_id: str | None) -> ServerAnswer:
        if call_id is not None:
            exchange = self._cassette.get(call_id, call.key)
        else:
            repeats = self._cassette.by_body(call.key)
            exchange = repeats[min(self._served[call.key], len(repeats) - 1)] if repeats else None
            self._served[call.key] += 1
        if exchange is None:
            subject = f"the call {call_id}" if call_id is not None else "this request"
            message = f"replay: {subject} is not recorded; {self._nearest(call)}"
            return error_answer(404, message, code="not_recorded")
        return _replayed(exchange)

    def _nearest(self, call: Call) -> str:
        """The nearest recording and what differs from it, as part of a sentence."""
        if call.call_id:
            return self._cassette.nearest(call)
        # Without an id: the recorded request that shares the longest beginning and end.
        text, best, most = canonical(call.body), "", -1
        for exchange in self._cassette.exchanges():
            other = canonical(exchange.request)
            shared = _shared_start(text, other) + _shared_start(text[::-1], other[::-1])
            if exchange.call != _MODELS.call_id and shared > most:
                best, most = exchange.call, shared
        return self._cassette.nearest(Call(best, "", call.body, call.route))


def _shared_start(text: str, other: str) -> int:
    """The number of characters that two texts share at their beginning."""
    low, high = 0, min(len(text), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text[:middle] == other[:middle] else (low, middle - 1)
    return low


def _replayed(exchange: Exchange) -> ServerAnswer:
    """A recorded exchange as the answer that it was."""
    body = exchange.response
    if isinstance(body, dict | str) and exchange.status:
        return ServerAnswer(exchange.status, body)
    if exchange.status not in (0, 200):
        return error_answer(exchange.status, f"recorded: {exchange.fault or 'no readable body'}")
    return ServerAnswer(0, "")  # no answer came: the connection breaks, as it did


def _as_asked(answer: ServerAnswer, route: Route, body: Mapping[str, Any]) -> ServerAnswer:
    """The answer with embeddings in the request's encoding: they are recorded as base64, whatever was asked."""
    if route != "embeddings" or body.get("encoding_format") == "base64" or not isinstance(answer.body, Mapping):
        return answer
    return dataclasses.replace(answer, body=unpacked(answer.body)) if "data" in answer.body else answer


def _model_names(exchange: Exchange | None) -> list[str]:
    """The models in a recorded list; empty where there is none."""
    entries = exchange.response.get("data") if exchange and isinstance(exchange.response, dict) else None
    return [str(entry["id"]) for entry in entries or [] if isinstance(entry, dict) and "id" in entry]


class RecordAnswerer:
    """A recording proxy: passes requests on to an upstream and records its answers in a run folder's cassette.

    The client's headers (keys among them) and query are passed on and never stored; a key that the upstream echoes is
    struck out of the recording. Streams are relayed as they come, and recorded once complete, as the completion that they
    make up. Requests without a call id are recorded as ``foreign/<n>-<hash>``, n counting the repeats of a request. A call
    that is already recorded with a readable answer is answered from the recording: it is not paid for twice. Refusals (the
    key, the account, an unknown model, no quota) and the error of an upstream that cannot be reached are passed on and not recorded. Use as
    an async context manager, or call ``aclose``.
    """

    def __init__(self, folder: str | Path, upstream: str, *, timeout_s: float = 600.0) -> None:
        """``upstream`` is an OpenAI-compatible base URL, as http://127.0.0.1:8000/v1. Raises FolderMismatch where another process
        writes into ``folder``."""
        self._lock = Lock(Path(folder))
        try:
            self._cassette = Cassette(folder, writable=True)
        except BaseException:
            self._lock.release()
            raise
        self._upstream = upstream.rstrip("/")
        host = httpx2.URL(upstream).host
        self._http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout_s, connect=min(10.0, timeout_s)),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100),
            trust_env=host not in ("localhost", "127.0.0.1", "::1"),
        )
        self._foreign: Counter[str] = Counter()
        for exchange in self._cassette.exchanges():
            if exchange.call.startswith("foreign/"):
                self._foreign[exchange.key] += 1

    async def __aenter__(self) -> RecordAnswerer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections and the recording."""
        await self._http.aclose()
        self._cassette.close()
        self._lock.release()

    async def models(self) -> list[str]:
        """The upstream's models, recorded for the replay. Raises AnswerError with the upstream's answer where it has none."""
        response = await self._upstream_response("GET", "", incoming.get(), b"")
        try:
            text = await _text(response)
        except TransientFault as fault:
            raise AnswerError(error_answer(502, str(fault), code="upstream_too_large")) from None
        try:
            listing = json.loads(text)
        except ValueError:
            listing = None
        exchange = Exchange(_MODELS.call_id, _MODELS.key, {}, response.status_code, listing, 1)
        names = _model_names(exchange)
        if response.status_code != 200 or not isinstance(listing, dict):
            raise AnswerError(_relayed(response, listing if isinstance(listing, dict) else text))
        recorded = self._cassette.get(_MODELS.call_id, _MODELS.key)
        if names != _model_names(recorded):
            bare_listing = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
            self._cassette.append(Exchange(_MODELS.call_id, _MODELS.key, {}, 200, bare_listing, 1))
        return names

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """The upstream's answer, recorded."""
        return await self._answer(Call(call_id or "", "", body))

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """As ``answer``, for a route that scores or embeds."""
        return _as_asked(await self._answer(Call(call_id or "", "", body, route)), route, body)

    async def _answer(self, call: Call) -> ServerAnswer:
        if call.call_id and not _is_valid_call_id(call.call_id):
            return error_answer(400, "x-judgeloop-call: not a call id", code="invalid_call_id")
        if not call.call_id:
            call = dataclasses.replace(call, call_id=self._foreign_id(call.key))
        recorded = self._cassette.get(call.call_id, call.key)
        if recorded is not None and recorded.status == 200 and not recorded.fault:
            return _replayed(recorded)
        request = incoming.get()
        content = json.dumps(call.body, ensure_ascii=True).encode()
        response = await self._upstream_response("POST", call.route, request, content)
        event_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        if response.status_code == 200 and event_stream:
            return StreamedAnswer(200, {}, _relayed_headers(response), self._relay(call, response, request))
        try:
            text = await _text(response)
        except httpx2.HTTPError as error:
            return _unreachable(self._upstream, error)
        except TransientFault as fault:
            return error_answer(502, str(fault), code="upstream_too_large")
        return _relayed(response, self._record(call, response.status_code, text, request))

    def _foreign_id(self, key: str) -> str:
        number = self._foreign[key]
        self._foreign[key] += 1
        return f"foreign/{number}-{key.removeprefix('sha256:')[:12]}"

    async def _upstream_response(self, method: str, route: Route, request: Incoming, content: bytes) -> httpx2.Response:
        """The upstream's response to a forwarded request, its body not read yet. Raises AnswerError."""
        headers = [
            (name, value) for name, value in request.headers if name.lower().decode("latin-1") not in _NOT_FORWARDED
        ]
        if content:
            headers.append((b"content-type", b"application/json"))
        address = f"{self._upstream}{'/chat/completions' if method == 'POST' else '/models'}"
        if route:
            base = httpx2.URL(self._upstream)
            address = str(base.copy_with(path=route_path(base.path, route)))
        url = f"{address}{'?' + request.query if request.query else ''}"
        forwarded = self._http.build_request(method, url, headers=headers, content=content or None)
        try:
            return await self._http.send(forwarded, stream=True)
        except httpx2.HTTPError as error:
            raise AnswerError(_unreachable(self._upstream, error)) from None

    def _record(self, call: Call, status: int, text: str, request: Incoming) -> Mapping[str, Any] | str:
        """Record a whole answer, and give the body to send on."""
        fault = ""
        response: Any = text
        try:
            response = parse(status, text, call.route)
        except TransientFault as transient:
            fault, response = transient.fault, transient.response
        except Refusal:
            _LOG.warning("%s: the upstream refuses with status %d; not recorded", call.call_id, status)
            return _json_or_text(text)
        if not isinstance(response, dict | str):
            response = text
        recorded = _without_secrets(response, _struck(request, is_error=status != 200))
        self._cassette.append(Exchange(call.call_id, call.key, call.body, status, recorded, 1, fault, call.route))
        return _json_or_text(text)

    async def _relay(self, call: Call, response: httpx2.Response, request: Incoming) -> AsyncIterator[bytes]:
        """The upstream's events as they come, recorded at the end, before the last bytes leave.

        A stream that breaks off, at the upstream or at the client, is not recorded.
        """
        assembler = Assembler()
        last = b""
        try:
            async for data in response.aiter_bytes():
                assembler.feed(data)
                if last:
                    yield last
                last = data
            if assembler.complete:
                self._record(call, 200, json.dumps(assembler.completion()), request)
            else:
                _LOG.warning("%s: the upstream's stream is not complete; not recorded", call.call_id)
            yield last
        except httpx2.HTTPError as error:
            _LOG.warning("%s: the upstream's stream broke off (%s); not recorded", call.call_id, type(error).__name__)
            raise
        finally:
            await response.aclose()


async def _text(response: httpx2.Response) -> str:
    """The body of an upstream's response. Raises TransientFault where it is larger than is read."""
    try:
        return (await read_bounded(response)).decode("utf-8", "replace")
    finally:
        await response.aclose()


def _json_or_text(text: str) -> Mapping[str, Any] | str:
    try:
        body = json.loads(text)
    except ValueError:
        return text
    return body if isinstance(body, dict) else text


def _relayed(response: httpx2.Response, body: Mapping[str, Any] | str) -> ServerAnswer:
    return ServerAnswer(response.status_code, body, _relayed_headers(response))


def _relayed_headers(response: httpx2.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in _RELAYED if name in response.headers}


def _unreachable(upstream: str, error: httpx2.HTTPError) -> ServerAnswer:
    if isinstance(error, httpx2.TimeoutException):
        return error_answer(504, f"the upstream {upstream} did not answer in time", code="upstream_timeout")
    return error_answer(502, f"the upstream {upstream} cannot be reached ({type(error).__name__})", code="upstream")


def _is_valid_call_id(call_id: str) -> bool:
    """Whether a client's call id can name a file: it has no empty, dotted or very long parts."""
    parts = call_id.split("/")
    return len(call_id) <= 1000 and all(0 < len(part) <= 200 and part not in (".", "..") for part in parts)


def _struck(request: Incoming, *, is_error: bool) -> Struck:
    """What strikes the keys in a request's headers and query out of a text."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
    pairs += httpx2.QueryParams(request.query).multi_items()
    values = {part for name, value in pairs if _SECRET_NAME.search(name) for part in (value, value.split(" ")[-1])}
    return Struck(values, SHORTEST_SECRET_IN_ERROR if is_error else SHORTEST_SECRET_IN_ANSWER)


def _without_secrets(value: Any, struck: Struck) -> Any:
    """A JSON value with *** for every secret in its texts and names."""
    if isinstance(value, str):
        return struck(value)
    if isinstance(value, dict):
        return {_without_secrets(name, struck): _without_secrets(inner, struck) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_secrets(inner, struck) for inner in value]
    return value
