"""Servers of a given shape, played in front of any answerer: what they refuse, ignore, limit and add.

A *shape* is what a kind of OpenAI-compatible server does beside answering. With it the planted server plays an Ollama, a
vLLM, a llama.cpp or a hosted reasoning model, so that clients, and `judgeloop doctor`, can be tried offline.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
import re
import socket
import struct
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from judgeloop import seeds
from judgeloop.errors import ExperimentError
from judgeloop.experiment.inputs import read_yaml
from judgeloop.experiment.schema import Block
from judgeloop.records import Route
from judgeloop.serving import protocol
from judgeloop.serving.protocol import Answerer, AnswerError, AnswerLike, ServerAnswer, error_answer
from judgeloop.text.features import tokenize

Kind = Literal["plain", "openai", "openai_reasoning", "vllm", "ollama", "llama_cpp"]


class Shape(Block):
    """A server's shape. `kind` sets the others to what such servers do; a key that is given wins."""

    kind: Kind = "plain"
    """plain (nothing limited), openai, openai_reasoning, vllm, ollama (before 0.12.11) or llama_cpp."""
    logprobs: int | Literal["ignored", "refused"] = Field(20)
    """Most `top_logprobs` that are given (more are refused with a 400); ignored: none come; refused: asking is an error."""
    json_schema: Literal["enforced", "ignored", "refused"] = "enforced"
    """What becomes of a `response_format` with a JSON schema."""
    seed: bool = True
    """Whether the same seed gives the same text; false: every draw above temperature 0 is new."""
    system: bool = True
    """False: a system message is refused, as by chat templates that know none."""
    n: Literal["served", "ignored", "refused"] = "served"
    """What becomes of `n` above 1."""
    context: int | None = Field(None, ge=1)
    """Tokens (words and punctuation marks) of a prompt that fit."""
    overflow: Literal["refused", "cut"] = "refused"
    """A longer prompt: a 400, or its beginning is dropped without a word."""
    max_tokens: bool = True
    """False: `max_tokens` is refused, `max_completion_tokens` is wanted."""
    temperature: bool = True
    """False: any temperature but 1 is refused."""
    thinks: int = Field(0, ge=0)
    """Tokens of reasoning before every answer; they count against the limit."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of every answer, as rate limits."""
    slots: int | None = Field(None, ge=1)
    """Calls worked on at once; others wait."""
    seconds: float = Field(0.0, ge=0, le=60)
    """Time that a call takes in its slot."""

    @model_validator(mode="before")
    @classmethod
    def _of_its_kind(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and raw.get("kind") in _KINDS:
            return {**_KINDS[str(raw["kind"])], **raw}
        return raw


_LIMITS = {
    "x-ratelimit-limit-requests": "500", "x-ratelimit-remaining-requests": "499", "x-ratelimit-reset-requests": "120ms",
    "x-ratelimit-limit-tokens": "200000", "x-ratelimit-remaining-tokens": "199900", "x-ratelimit-reset-tokens": "30ms",
}  # fmt: skip
_KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "openai": {"context": 128_000, "headers": {"openai-version": "2020-10-01", **_LIMITS}},
    "openai_reasoning": {
        "context": 200_000, "logprobs": "refused", "max_tokens": False, "temperature": False, "thinks": 40,
        "headers": {"openai-version": "2020-10-01", **_LIMITS},
    },
    "vllm": {"context": 8192},
    "ollama": {"logprobs": "ignored", "n": "ignored", "context": 2048, "overflow": "cut"},
    "llama_cpp": {"logprobs": 100, "context": 2048, "n": "refused", "headers": {"server": "llama.cpp"}},
}  # fmt: skip
_OWNERS = {
    "plain": "judgeloop", "openai": "system", "openai_reasoning": "system", "vllm": "vllm", "ollama": "library",
    "llama_cpp": "llamacpp",
}  # fmt: skip
_FINGERPRINTS = {
    "openai": "fp_0a1b2c3d",
    "openai_reasoning": "fp_0a1b2c3d",
    "ollama": "fp_ollama",
    "llama_cpp": "b6500-1a2b3c4d",
}


class ShapedAnswerer:
    """Answers as a server of that shape would, with ``inner``'s words."""

    def __init__(self, inner: Answerer, shape: Shape) -> None:
        self.inner, self.shape = inner, shape
        self._slots = asyncio.Semaphore(shape.slots) if shape.slots else None
        self._drawn = 0

    def __getattr__(self, name: str) -> Any:
        # What else an answerer can do (score, aclose) it does as before.
        return getattr(self.inner, name)

    async def models(self) -> list[str]:
        """The inner answerer's models, listed with this server's own fields (as the AnswerError that is served)."""
        listed = self.inner.models()
        names = await listed if inspect.isawaitable(listed) else listed
        entries = [
            {"id": name, "object": "model", "created": 0, "owned_by": _OWNERS[self.shape.kind], **self._fields()}
            for name in names
        ]
        raise AnswerError(ServerAnswer(200, {"object": "list", "data": entries}, self.shape.headers))

    def _fields(self) -> dict[str, Any]:
        if self.shape.kind == "vllm":
            return {"root": "planted", "parent": None, "max_model_len": self.shape.context}
        if self.shape.kind == "llama_cpp":
            return {"meta": {"n_ctx": self.shape.context, "n_ctx_train": 8192, "n_params": 1_000_000}}
        return {}

    async def answer(self, body: dict[str, Any], call_id: str | None) -> AnswerLike:
        """The answer after a slot was free, or this server's refusal (which needs none)."""
        refusal = self._refusal(body)
        if refusal is not None:
            return ServerAnswer(refusal.status, refusal.body, self.shape.headers)
        if self._slots is None:
            await asyncio.sleep(self.shape.seconds)
            return await self._answered(body, call_id)
        async with self._slots:
            await asyncio.sleep(self.shape.seconds)
            return await self._answered(body, call_id)

    def _refusal(self, body: Mapping[str, Any]) -> ServerAnswer | None:
        shape = self.shape
        if not shape.max_tokens and body.get("max_tokens") is not None:
            return self._refused(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "max_tokens", "unsupported_parameter",
            )  # fmt: skip
        if not shape.temperature and body.get("temperature") not in (None, 1, 1.0):
            return self._refused(
                "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is supported.",
                "temperature", "unsupported_value",
            )  # fmt: skip
        if not shape.system and any(message["role"] == "system" for message in body["messages"]):
            return self._refused("System role not supported", None, None)
        if shape.logprobs == "refused" and body.get("logprobs"):
            return error_answer(403, "You are not allowed to request logprobs from this model")
        asked = body.get("top_logprobs")
        if isinstance(shape.logprobs, int) and isinstance(asked, int) and asked > shape.logprobs:
            return self._refused(self._too_many(asked, shape.logprobs), "top_logprobs", None)
        if shape.json_schema == "refused" and (body.get("response_format") or {}).get("type") == "json_schema":
            return self._refused("response_format type 'json_schema' is not supported", "response_format", None)
        if shape.n == "refused" and (body.get("n") or 1) > 1:
            return self._refused("Only one completion choice is allowed", "n", None)
        count = _tokens(body)
        if shape.context is not None and shape.overflow == "refused" and count > shape.context:
            return self._too_long(count, shape.context)
        return None

    def _too_many(self, asked: int, most: int) -> str:
        if self.shape.kind == "vllm":
            return f"Requested sample logprobs of {asked}, which is greater than max allowed: {most}"
        return f"Invalid value for 'top_logprobs': must be less than or equal to {most}."

    def _refused(self, message: str, param: str | None, code: str | None) -> ServerAnswer:
        if self.shape.kind == "vllm":
            return ServerAnswer(
                400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
            )
        return error_answer(400, message, param=param, code=code)

    def _too_long(self, count: int, most: int) -> ServerAnswer:
        if self.shape.kind == "llama_cpp":
            message = "the request exceeds the available context size, try increasing it"
            error = {
                "code": 400,
                "message": message,
                "type": "exceed_context_size_error",
                "n_prompt_tokens": count,
                "n_ctx": most,
            }
            return ServerAnswer(400, {"error": error})
        message = (
            f"This model's maximum context length is {most} tokens. However, your messages resulted in {count} tokens."
        )
        if self.shape.kind == "vllm":
            return self._refused(message, None, None)
        return error_answer(400, message, param="messages", code="context_length_exceeded")

    async def _answered(self, body: dict[str, Any], call_id: str | None) -> AnswerLike:
        shape, asked = self.shape, dict(body)
        if not shape.seed and (body.get("temperature") is None or body["temperature"] > 0):
            self._drawn += 1
            call_id = f"unseeded/{self._drawn}"
        if shape.logprobs == "ignored":
            asked.pop("logprobs", None)
            asked.pop("top_logprobs", None)
        if shape.json_schema == "ignored":
            asked.pop("response_format", None)
        if asked.pop("n", 1) not in (None, 1) and shape.n == "refused":
            raise AssertionError("refused before")
        if shape.context is not None and shape.overflow == "cut":
            asked["messages"] = _cut(asked["messages"], shape.context)
        name = next((name for name in ("max_completion_tokens", "max_tokens") if asked.get(name)), None)
        left = math.inf if name is None else asked[name] - shape.thinks
        if name is not None and left >= 1:
            asked[name] = int(left)
        found = await self.inner.answer(asked, call_id)
        if found.status != 200 or not isinstance(found.body, Mapping):
            return found
        made = json.loads(json.dumps(found.body))
        self._finish(made, body, asked, spent=left < 1)
        return ServerAnswer(200, made, {**shape.headers})

    def _finish(self, made: dict[str, Any], body: Mapping[str, Any], asked: Mapping[str, Any], *, spent: bool) -> None:
        """What the server adds to a completion: thought, schema, several choices, its fingerprint."""
        shape, choice = self.shape, made["choices"][0]
        schema = ((asked.get("response_format") or {}).get("json_schema") or {}).get("schema")
        if isinstance(schema, dict) and not _is_object(choice["message"]["content"]):
            choice["message"]["content"] = json.dumps(_smallest(schema))
        if shape.thinks:
            usage = made["usage"]
            limit = body.get("max_completion_tokens") or body.get("max_tokens") or shape.thinks
            thought = min(shape.thinks, limit)
            usage["completion_tokens"] = thought + (0 if spent else usage["completion_tokens"])
            usage["completion_tokens_details"] = {"reasoning_tokens": thought}
            if spent:
                choice |= {"message": {"role": "assistant", "content": ""}, "finish_reason": "length", "logprobs": None}
        if shape.n == "served" and (body.get("n") or 1) > 1:
            made["choices"] = [{**choice, "index": index} for index in range(body["n"])]
        if shape.kind in _FINGERPRINTS:
            made["system_fingerprint"] = _FINGERPRINTS[shape.kind]


def _tokens(body: Mapping[str, Any]) -> int:
    return sum(len(tokenize(_text(message))) for message in body["messages"])


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content or [])


def _cut(messages: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The last message's last ``most`` words, if all messages together have more."""
    if _tokens({"messages": messages}) <= most:
        return messages
    return [{**messages[-1], "content": " ".join(_text(messages[-1]).split()[-most:])}]


def _is_object(text: Any) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, TypeError):
        return False


def _smallest(schema: Mapping[str, Any]) -> dict[str, Any]:
    """An object that the schema allows: the first word of each enumeration."""
    properties = schema.get("properties")
    return {
        name: (inner.get("enum") or [""])[0]
        for name, inner in (properties if isinstance(properties, dict) else {}).items()
    }


# Faults on purpose: what a client has to survive, served deterministically by the local server.

FaultKind = Literal[
    "reset", "timeout", "truncated", "not_json", "empty_choices", "null_content", "context_length", "slow"
]


class Rule(Block):
    """One fault, and the calls and attempts that it hits."""

    match: str = ""
    """Regular expression searched in the call id; empty matches every call, with or without an id."""
    status: int | None = Field(None, ge=400, le=599)
    """Answer with this HTTP status and an OpenAI error body. Give `status` or `kind`."""
    kind: FaultKind | None = None
    """reset (the connection breaks off inside the answer) · timeout (no answer) · truncated (fewer bytes than
    announced) · not_json · empty_choices · null_content · context_length (a 400) · slow (the answer, late)."""
    times: int | Literal["always"] = 1
    """The first attempts of each call id that are hit, or always."""
    rate: float = Field(1.0, ge=0, le=1)
    """Probability that a matching attempt is hit, by a coin that the seed, the call id and the attempt name."""
    delay_s: float | None = Field(None, ge=0)
    """Seconds before the fault; for timeout: until the connection is closed (default: until the client goes)."""
    retry_after_s: float | None = Field(None, ge=0)
    """Header retry-after of a `status`."""
    message: str = "planted fault"
    """Message of the error body."""
    code: str | None = None
    """Code of the error body."""

    @field_validator("match")
    @classmethod
    def _compiles(cls, match: str) -> str:
        try:
            re.compile(match)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return match

    @field_validator("times")
    @classmethod
    def _counts(cls, times: int | str) -> int | str:
        if isinstance(times, int) and times < 0:
            raise ValueError("give 0 or more attempts, or always")
        return times

    @model_validator(mode="after")
    def _one_fault(self) -> Rule:
        if (self.status is None) == (self.kind is None):
            raise ValueError("give status or kind, one of them")
        return self


class Faults(Block):
    """Rules in order: the first that hits an attempt decides it. ``Faults(rules=[Rule(status=429, times=2)])``."""

    rules: tuple[Rule, ...] = ()
    """The faults."""
    seed: int = Field(0, ge=0)
    """Names the random stream of `rate`."""
    server: Shape | None = None
    """A kind of server to play, with what it refuses, ignores and limits."""


class FaultCounter:
    """Which rule hits which attempt. An attempt's number counts the requests of one call id (without one: one body)
    since the server started, so that the same requests meet the same faults."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.attempts: dict[str, int] = {}
        self.fired: list[tuple[str, Rule]] = []

    def next(self, name: str, call_id: str | None) -> Rule | None:
        """The rule that hits this attempt of the call that ``name`` tells from others, or None."""
        attempt = self.attempts.get(name, 0)
        self.attempts[name] = attempt + 1
        for number, rule in enumerate(self.faults.rules):
            if not re.search(rule.match, call_id or ""):
                continue
            if rule.times != "always" and attempt >= rule.times:
                continue
            if rule.rate < 1 and seeds.uniform(self.faults.seed, "fault", number, name, attempt) >= rule.rate:
                continue
            self.fired.append((name, rule))
            return rule
        return None


def fault_schema() -> dict[str, Any]:
    """JSON schema of a faults file, with a line on every key."""
    return Faults.model_json_schema()


def load_faults(path: str | Path) -> Faults:
    """Read a faults file (YAML). Raises ExperimentError with the file and the field."""
    raw = read_yaml(Path(path), "a faults file")
    try:
        return Faults.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in problem["loc"])
        raise ExperimentError(f"{path}: {field or 'faults'}: {problem['msg'].removeprefix('Value error, ')}") from None


# HTTP responses of the local server: whole, as a stream, and broken on purpose.


def response(answer: AnswerLike, body: Mapping[str, Any] | None = None) -> Response:
    """The HTTP response to a request ``body``; a 200 is streamed where it asks for that."""
    headers = dict(getattr(answer, "headers", {}) or {})
    if answer.status == 0:
        return BrokenResponse(b"", sent=None, reset=True)
    events = getattr(answer, "events", None)
    streaming = body is not None and body.get("stream") is True and answer.status == 200
    if streaming and events is None and isinstance(answer.body, Mapping):
        events = _each(protocol.chunked(answer.body, include_usage=_include_usage(body)))
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
                content = b"".join(protocol.chunked(whole, include_usage=False))
            return BrokenResponse(content, sent=len(content) // 2, reset=rule.kind == "reset", streaming=streaming)
        case "not_json":
            return response(ServerAnswer(200, "<html><body>502 Bad Gateway</body></html>"))
        case "empty_choices":
            return response(
                ServerAnswer(200, {**whole, "choices": []} if not route else {**whole, "data": [], "results": []}), body
            )
        case "null_content":
            choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
            return response(ServerAnswer(200, whole if route else {**whole, "choices": [choice]}), body)
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
