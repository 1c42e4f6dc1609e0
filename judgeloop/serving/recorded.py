"""Answers from a cassette: replay what was recorded, or record an upstream as a proxy in front of it."""

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
from judgeloop.serving.protocol import (
    AnswerError,
    Assembler,
    Incoming,
    ServerAnswer,
    StreamedAnswer,
    error_answer,
    incoming,
)
from judgeloop.wire import reply
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.reply import Refusal, TransientFault, parse

_LOG = logging.getLogger("judgeloop.serve")
_MODELS = Call("models", "", {})
"""The list of models is one more exchange of the cassette, so that a replay knows it."""

# Of the connection and not of the request, or made anew by the client that forwards.
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
_SHORTEST_ECHOED, _SHORTEST_SAID = 6, 16


class ReplayAnswerer:
    """Answers from the recording in a run folder, and from nothing else.

    A request with a call id is matched by call id and request hash; one without by its request hash alone: repeats of
    it are served in recorded order, and then the last one again. What was recorded as a fault is replayed as it came.
    """

    def __init__(self, folder: str | Path) -> None:
        self._cassette = Cassette(folder, writable=False)
        self._served: Counter[str] = Counter()
        self._models: list[str] | None = None

    def models(self) -> list[str]:
        """The models that the upstream listed when it was recorded, and those that recorded requests name."""
        if self._models is None:
            names = _listed(self._cassette.get(_MODELS.call_id, _MODELS.key))
            asked = (exchange.request.get("model") for exchange in self._cassette.exchanges())
            self._models = list(dict.fromkeys([*names, *(name for name in asked if isinstance(name, str))]))
        return self._models

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """The recorded answer, or a 404 that names the nearest recording and what differs from it."""
        return self._answer(Call(call_id or "", "", body), call_id)

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """As ``answer``, by a scoring route."""
        return self._answer(Call(call_id or "", "", body, route), call_id)

    def _answer(self, call: Call, call_id: str | None) -> ServerAnswer:
        if call_id is not None:
            exchange = self._cassette.get(call_id, call.key)
        else:
            repeats = self._cassette.by_body(call.key)
            exchange = repeats[min(self._served[call.key], len(repeats) - 1)] if repeats else None
            self._served[call.key] += 1
        if exchange is None:
            asked = f"the call {call_id}" if call_id is not None else "this request"
            message = f"replay: {asked} is not recorded; {self._nearest(call)}"
            return error_answer(404, message, code="not_recorded")
        return _replayed(exchange)

    def _nearest(self, call: Call) -> str:
        if call.call_id:
            return self._cassette.nearest(call)
        # Without an id to go by: the recorded request that shares the longest beginning and end.
        text, best, most = canonical(call.body), "", -1
        for exchange in self._cassette.exchanges():
            other = canonical(exchange.request)
            shared = _shared(text, other) + _shared(text[::-1], other[::-1])
            if exchange.call != _MODELS.call_id and shared > most:
                best, most = exchange.call, shared
        return self._cassette.nearest(Call(best, "", call.body, call.route))


def _shared(one: str, other: str) -> int:
    """Characters that two texts have in common at their beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _replayed(exchange: Exchange) -> ServerAnswer:
    body = exchange.response
    if isinstance(body, dict | str) and exchange.status:
        return ServerAnswer(exchange.status, body)
    if exchange.status not in (0, 200):
        return error_answer(exchange.status, f"recorded: {exchange.fault or 'no readable body'}")
    return ServerAnswer(0, "")  # no answer came: the connection breaks, as it did


def _listed(exchange: Exchange | None) -> list[str]:
    entries = exchange.response.get("data") if exchange and isinstance(exchange.response, dict) else None
    return [str(entry["id"]) for entry in entries or [] if isinstance(entry, dict) and "id" in entry]


class RecordAnswerer:
    """A recording proxy: passes requests on to ``upstream`` and keeps what comes back in a run folder's cassette.

    The client's headers (keys among them) and query are passed on and never stored; a key that the upstream echoes is
    struck out of the recording. Streams are relayed as they come, and recorded as the completion they make up once
    they are complete. Requests without a call id are recorded as ``foreign/<n>-<hash>``, n counting the repeats of a
    request. A call id that is already recorded with a readable answer is answered from the recording: it is not paid
    for twice. Refusals of the caller (401, 403, unknown model, no quota) and an upstream that cannot be reached are
    passed on and not recorded. Use as an async context manager, or call ``aclose``.
    """

    def __init__(self, folder: str | Path, upstream: str, *, timeout_s: float = 600.0) -> None:
        """``upstream`` is an OpenAI-compatible base URL, as http://127.0.0.1:8000/v1."""
        self._cassette = Cassette(folder, writable=True)
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

    async def models(self) -> list[str]:
        """The upstream's models, remembered for the replay. Raises AnswerError with what the upstream says instead."""
        came = incoming.get()
        response = await self._upstream_response("GET", "", came, b"")
        text = (await response.aread()).decode("utf-8", "replace")
        try:
            listing = json.loads(text)
        except ValueError:
            listing = None
        exchange = Exchange(_MODELS.call_id, _MODELS.key, {}, response.status_code, listing, 1)
        names = _listed(exchange)
        if response.status_code != 200 or not isinstance(listing, dict):
            raise AnswerError(_relayed(response, listing if isinstance(listing, dict) else text))
        known = self._cassette.get(_MODELS.call_id, _MODELS.key)
        if names != _listed(known):
            kept = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
            self._cassette.append(Exchange(_MODELS.call_id, _MODELS.key, {}, 200, kept, 1))
        return names

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """The upstream's answer, recorded."""
        return await self._answer(Call(call_id or "", "", body))

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        """As ``answer``, by a scoring route."""
        return await self._answer(Call(call_id or "", "", body, route))

    async def _answer(self, call: Call) -> ServerAnswer:
        if call.call_id and not _is_sound(call.call_id):
            return error_answer(400, "x-judgeloop-call: not a call id", code="invalid_call_id")
        if not call.call_id:
            call = dataclasses.replace(call, call_id=self._foreign_id(call.key))
        known = self._cassette.get(call.call_id, call.key)
        if known is not None and known.status == 200 and not known.fault:
            return _replayed(known)
        came = incoming.get()
        content = json.dumps(call.body, ensure_ascii=True).encode()
        response = await self._upstream_response("POST", call.route, came, content)
        event_stream = response.headers.get("content-type", "").startswith("text/event-stream")
        if response.status_code == 200 and event_stream:
            return StreamedAnswer(200, {}, _kept_headers(response), self._relay(call, response, came))
        try:
            text = (await response.aread()).decode("utf-8", "replace")
        except httpx2.HTTPError as error:
            return _unreachable(self._upstream, error)
        return _relayed(response, self._record(call, response.status_code, text, came))

    def _foreign_id(self, key: str) -> str:
        number = self._foreign[key]
        self._foreign[key] += 1
        return f"foreign/{number}-{key.removeprefix('sha256:')[:12]}"

    async def _upstream_response(self, method: str, route: Route, came: Incoming, content: bytes) -> httpx2.Response:
        headers = [
            (name, value) for name, value in came.headers if name.lower().decode("latin-1") not in _NOT_FORWARDED
        ]
        if content:
            headers.append((b"content-type", b"application/json"))
        address = f"{self._upstream}{'/chat/completions' if method == 'POST' else '/models'}"
        if route:
            base = httpx2.URL(self._upstream)
            address = str(base.copy_with(path=reply.path(base.path, route)))
        url = f"{address}{'?' + came.query if came.query else ''}"
        request = self._http.build_request(method, url, headers=headers, content=content or None)
        try:
            return await self._http.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise AnswerError(_unreachable(self._upstream, error)) from None

    def _record(self, call: Call, status: int, text: str, came: Incoming) -> Mapping[str, Any] | str:
        """Record a whole answer; gives what to send on."""
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
        kept = _struck(response, _secrets(came, refused=status != 200))
        self._cassette.append(Exchange(call.call_id, call.key, call.body, status, kept, 1, fault, call.route))
        return _json_or_text(text)

    async def _relay(self, call: Call, response: httpx2.Response, came: Incoming) -> AsyncIterator[bytes]:
        """The upstream's events as they come. Recorded at the end, before the last bytes leave; a stream that breaks
        off, here or there, is not recorded."""
        assembler = Assembler()
        last = b""
        try:
            async for data in response.aiter_bytes():
                assembler.feed(data)
                if last:
                    yield last
                last = data
            if assembler.complete:
                self._record(call, 200, json.dumps(assembler.completion()), came)
            else:
                _LOG.warning("%s: the upstream's stream is not complete; not recorded", call.call_id)
            yield last
        except httpx2.HTTPError as error:
            _LOG.warning("%s: the upstream's stream broke off (%s); not recorded", call.call_id, type(error).__name__)
            raise
        finally:
            await response.aclose()


def _json_or_text(text: str) -> Mapping[str, Any] | str:
    try:
        body = json.loads(text)
    except ValueError:
        return text
    return body if isinstance(body, dict) else text


def _relayed(response: httpx2.Response, body: Mapping[str, Any] | str) -> ServerAnswer:
    return ServerAnswer(response.status_code, body, _kept_headers(response))


def _kept_headers(response: httpx2.Response) -> dict[str, str]:
    return {name: response.headers[name] for name in _RELAYED if name in response.headers}


def _unreachable(upstream: str, error: httpx2.HTTPError) -> ServerAnswer:
    if isinstance(error, httpx2.TimeoutException):
        return error_answer(504, f"the upstream {upstream} did not answer in time", code="upstream_timeout")
    return error_answer(502, f"the upstream {upstream} cannot be reached ({type(error).__name__})", code="upstream")


def _is_sound(call_id: str) -> bool:
    """A client's call id becomes a file's name: no empty, dotted or endless parts."""
    parts = call_id.split("/")
    return len(call_id) <= 1000 and all(0 < len(part) <= 200 and part not in (".", "..") for part in parts)


def _secrets(came: Incoming, *, refused: bool) -> tuple[str, ...]:
    """The keys in a request's headers and query, longest first, so that no part of one stays.

    Error bodies echo keys, short ones too; in an answer only what is long enough to be no word counts.
    """
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in came.headers]
    pairs += httpx2.QueryParams(came.query).multi_items()
    found = {part for name, value in pairs if _SECRET_NAME.search(name) for part in (value, value.split(" ")[-1])}
    shortest = _SHORTEST_ECHOED if refused else _SHORTEST_SAID
    return tuple(sorted((secret for secret in found if len(secret) >= shortest), key=len, reverse=True))


def _struck(value: Any, secrets: tuple[str, ...]) -> Any:
    """A recorded response without any of the request's keys in it."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "***")
        return value
    if isinstance(value, dict):
        return {_struck(name, secrets): _struck(inner, secrets) for name, inner in value.items()}
    if isinstance(value, list):
        return [_struck(inner, secrets) for inner in value]
    return value
