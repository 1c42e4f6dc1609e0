"""HTTP responses of the local server: whole, as a stream, and broken on purpose."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from judgeloop.records import Route
from judgeloop.serving.protocol import Answer, AnswerLike, error_answer
from judgeloop.wire import sse
from judgeloop.wire.faults import Rule


def response(answer: AnswerLike, body: Mapping[str, Any] | None = None) -> Response:
    """The HTTP response to a request ``body``; a 200 is streamed where it asks for that."""
    headers = dict(getattr(answer, "headers", {}) or {})
    if answer.status == 0:
        return BrokenResponse(b"", sent=None, reset=True)
    events = getattr(answer, "events", None)
    streaming = body is not None and body.get("stream") is True and answer.status == 200
    if streaming and events is None and isinstance(answer.body, Mapping):
        events = _each(sse.chunked(answer.body, include_usage=_include_usage(body)))
    if events is not None:
        return StreamingResponse(
            events, answer.status, {**headers, "cache-control": "no-cache"}, media_type="text/event-stream"
        )
    if isinstance(answer.body, str):
        text = answer.body.encode("utf-8", "replace")
        return Response(text, answer.status, headers, media_type="text/plain")
    return Response(_json(answer.body), answer.status, headers, media_type="application/json")


def _include_usage(body: Mapping[str, Any] | None) -> bool:
    return bool(((body or {}).get("stream_options") or {}).get("include_usage"))


async def _each(events: Iterator[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event


def _json(body: Mapping[str, Any]) -> bytes:
    # ASCII only: a lone surrogate in a recorded reply cannot be sent as UTF-8.
    return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode()


async def fault_response(rule: Rule, body: Mapping[str, Any], route: Route) -> Response | None:
    """What a rule answers, or None where the true answer follows (``slow``)."""
    if rule.kind == "timeout":
        return BrokenResponse(b"", sent=None, reset=False, hold_s=math.inf if rule.delay_s is None else rule.delay_s)
    if rule.delay_s:
        await asyncio.sleep(rule.delay_s)
    if rule.status is not None:
        headers = {} if rule.retry_after_s is None else {"retry-after": f"{rule.retry_after_s:g}"}
        return response(error_answer(rule.status, rule.message, code=rule.code, headers=headers))
    whole = _whole(body, route)
    match rule.kind:
        case "reset" | "truncated":
            content, streaming = _json(whole), body.get("stream") is True
            if streaming:
                content = b"".join(sse.chunked(whole, include_usage=False))
            return BrokenResponse(content, sent=len(content) // 2, reset=rule.kind == "reset", streaming=streaming)
        case "not_json":
            return response(Answer(200, "<html><body>502 Bad Gateway</body></html>"))
        case "empty_choices":
            return response(
                Answer(200, {**whole, "choices": []} if not route else {**whole, "data": [], "results": []}), body
            )
        case "null_content":
            choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
            return response(Answer(200, whole if route else {**whole, "choices": [choice]}), body)
        case "context_length":
            message = "This model's maximum context length is 8192 tokens; your messages resulted in more"
            return response(error_answer(400, message, code="context_length_exceeded", param="messages"))
    return None


def _whole(body: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """An answer that a fault breaks off or empties; of a scoring route, one whose number is null."""
    envelope: dict[str, Any] = {
        "id": "fault", "created": 0, "model": body["model"],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }  # fmt: skip
    if route:
        entry = {"index": 0, "probs": [None], "data": [None], "score": None, "relevance_score": None}
        return {**envelope, "object": "list", "data": [entry], "results": [entry]}
    choice = {"index": 0, "message": {"role": "assistant", "content": "planted fault"}, "finish_reason": "stop"}
    return {**envelope, "object": "chat.completion", "choices": [choice]}


class BrokenResponse(Response):
    """An answer that breaks off: ``sent`` bytes of ``content`` (None: not even the headers), held for ``hold_s``
    seconds or until the client goes, then the connection is closed, or reset (TCP RST)."""

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
        gone = asyncio.ensure_future(_gone(receive))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(gone), None if self._hold_s == math.inf else self._hold_s)
        transport = (scope.get("state") or {}).get("transport")
        if transport is None:  # another ASGI server: returning unfinished closes the connection
            gone.cancel()
            return
        if self._reset:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
        await gone


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
