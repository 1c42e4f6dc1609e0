"""What the local server plays in front of an answerer, by a faults file: a kind of server, and faults on purpose.

A ``Shape`` is what a kind of OpenAI-compatible server refuses, ignores, limits and adds: with it the planted server plays an
Ollama, a vLLM, a llama.cpp or a hosted reasoning model, so that clients, and ``judgeloop doctor``, can be tried offline. A
``Rule`` hits chosen attempts with a fault that a client has to survive. Both are deterministic.
"""

from __future__ import annotations

import asyncio
import functools
import gzip
import inspect
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

from pydantic import Field, ValidationError, field_validator, model_validator
from starlette.responses import Response

from judgeloop import seeds
from judgeloop.errors import ExperimentError
from judgeloop.experiment.inputs import read_yaml
from judgeloop.experiment.schema import Block
from judgeloop.records import Route
from judgeloop.serving.protocol import (
    Answerer,
    AnswerError,
    AnswerLike,
    BrokenResponse,
    ServerAnswer,
    chunked,
    error_answer,
    incoming,
    json_bytes,
    response,
)
from judgeloop.text.features import tokenize
from judgeloop.wire.reply import MAX_MESSAGE_BYTES

ServerKind = Literal[
    "plain", "openai", "openai_reasoning", "azure", "anthropic", "gemini", "bedrock", "mistral", "openrouter", "litellm",
    "vllm", "sglang", "ollama", "llama_cpp",
]  # fmt: skip


def _regular_expression(pattern: str) -> str:
    """The pattern itself. Raises ValueError where it is no regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return pattern


class Shape(Block):
    """A server's shape. `kind` sets the others to what such servers do; a key that is given wins."""

    kind: ServerKind = "plain"
    """plain (nothing limited), ollama (before 0.12.11), openrouter (a host behind it that ignores log-probabilities), litellm (a model
    behind it without them), bedrock (gpt-oss), gemini (a model that thinks), or what the others' names say."""
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
    thought_tag: str = ""
    """Tag in which the reasoning stands before the text; empty: it is not shown."""
    refuses: tuple[str, ...] = ()
    """Fields of a request that are refused as unknown (400; mistral: 422)."""
    needs_header: str = ""
    """Header that holds the key; a request without it is a 401."""
    needs_query: str = ""
    """Query parameter without which no address exists (404)."""
    lists_models: bool = True
    """False: there is no list of models (404)."""
    blocks: str = ""
    """Regular expression of the prompts that a content filter stops, with a 400."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of every answer, as rate limits."""
    slots: int | None = Field(None, ge=1)
    """Calls worked on at once; others wait."""
    seconds: float = Field(0.0, ge=0, le=60)
    """Time that a call takes in its slot."""

    @field_validator("blocks")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return _regular_expression(pattern)

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_kind(cls, raw: Any) -> Any:
        if isinstance(raw, Mapping) and isinstance(kind := raw.get("kind"), str) and kind in _KINDS:
            return {**_KINDS[kind], **raw}
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
    "azure": {
        "context": 128_000, "needs_header": "api-key", "needs_query": "api-version", "lists_models": False,
        "headers": {"apim-request-id": "7c1d2f3a-planted", **_LIMITS},
    },
    "anthropic": {
        "context": 200_000, "logprobs": "ignored", "json_schema": "ignored", "seed": False, "n": "refused",
        "headers": {"request-id": "req_planted", "openai-version": "2020-10-01"},
    },
    "gemini": {"context": 1_000_000, "logprobs": "refused", "refuses": ("seed",), "thinks": 40},
    "bedrock": {"context": 128_000, "thinks": 40, "thought_tag": "reasoning", "lists_models": False},
    "mistral": {"context": 128_000, "refuses": ("logprobs", "top_logprobs", "seed", "max_completion_tokens")},
    "openrouter": {"context": 128_000, "logprobs": "ignored"},
    "litellm": {"refuses": ("logprobs", "top_logprobs"), "headers": {"x-litellm-version": "1.80.0"}},
    "vllm": {"context": 8192},
    "sglang": {"context": 8192},
    "ollama": {"logprobs": "ignored", "n": "ignored", "context": 2048, "overflow": "cut"},
    "llama_cpp": {"logprobs": 100, "context": 2048, "n": "refused", "headers": {"server": "llama.cpp"}},
}  # fmt: skip
_OWNERS = {
    "plain": "judgeloop", "openai": "system", "openai_reasoning": "system", "gemini": "google", "mistral": "mistralai",
    "litellm": "openai", "vllm": "vllm", "sglang": "sglang", "ollama": "library", "llama_cpp": "llamacpp",
}  # fmt: skip
_FINGERPRINTS = {
    "openai": "fp_0a1b2c3d",
    "openai_reasoning": "fp_0a1b2c3d",
    "ollama": "fp_ollama",
    "llama_cpp": "b6500-1a2b3c4d",
}
_PAGES: dict[str, dict[str, dict[str, Any]]] = {
    "vllm": {"/version": {"version": "0.11.0"}},
    "sglang": {"/server_info": {"version": "0.5.5", "status": "ready"}},
    "ollama": {"/api/version": {"version": "0.12.6"}},
    "llama_cpp": {"/props": {"build_info": "b6500-1a2b3c4d"}},
}
_UNKNOWN_FIELD = {
    "mistral": (422, "Extra inputs are not permitted: {field}"),
    "litellm": (400, "UnsupportedParamsError: the model behind does not support {field}; to drop it, set drop_params"),
}
_LISTED_ERRORS = ("gemini",)
"""Kinds whose error bodies are lists of one."""
_NO_LOGPROBS = {"gemini": (400, "Logprobs is not enabled for this model")}


class ShapedAnswerer:
    """Gives the answers of ``inner`` as a server of that shape would give them."""

    def __init__(self, inner: Answerer, shape: Shape) -> None:
        self.inner, self.shape = inner, shape
        self._slots = asyncio.Semaphore(shape.slots) if shape.slots else None
        self._draws = 0

    def __getattr__(self, name: str) -> Any:
        # Whatever else the inner answerer has (score, aclose) is not shaped.
        return getattr(self.inner, name)

    @property
    def pages(self) -> Mapping[str, Mapping[str, Any]]:
        """What this kind of server answers beside the API, by path: its version."""
        return _PAGES.get(self.shape.kind, {})

    async def models(self) -> list[str]:
        """Always raises AnswerError: the list of the inner answerer's models with this kind of server's own fields."""
        refusal = self._barred()
        if refusal is None and not self.shape.lists_models:
            refusal = error_answer(404, "Resource not found", code="404")
        if refusal is not None:
            raise AnswerError(self._headed(refusal))
        listed = self.inner.models()
        names = await listed if inspect.isawaitable(listed) else listed
        entries = [{"id": name, "object": "model", "created": 0, **self._model_fields(name)} for name in names]
        raise AnswerError(ServerAnswer(200, {"object": "list", "data": entries}, self.shape.headers))

    def _model_fields(self, name: str) -> dict[str, Any]:
        shape = self.shape
        owner = {"owned_by": _OWNERS[shape.kind]} if shape.kind in _OWNERS else {}
        more: dict[str, dict[str, Any]] = {
            "vllm": {"root": "planted", "parent": None, "max_model_len": shape.context},
            "sglang": {"root": "planted", "max_model_len": shape.context},
            "llama_cpp": {"meta": {"n_ctx": shape.context, "n_ctx_train": 8192, "n_params": 1_000_000}},
            "mistral": {"max_context_length": shape.context, "capabilities": {"completion_chat": True}},
            "openrouter": {
                "canonical_slug": name, "context_length": shape.context, "supported_parameters": ["max_tokens", "temperature"],
            },
            "anthropic": {"type": "model", "display_name": name},
        }  # fmt: skip
        return {**owner, **more.get(shape.kind, {})}

    def _barred(self) -> ServerAnswer | None:
        """The error for a request without the header or the query parameter that is needed; None where it has both."""
        shape, request = self.shape, incoming.get()
        if shape.needs_query and shape.needs_query not in parse_qs(request.query):
            return error_answer(404, "Resource not found", code="404")
        given = {name.decode().lower() for name, value in request.headers if value}
        if shape.needs_header and shape.needs_header.lower() not in given:
            message = f"Access denied: the header {shape.needs_header} with a key is missing"
            return error_answer(401, message, code="401")
        return None

    def _headed(self, answer: ServerAnswer) -> ServerAnswer:
        """A refusal in the form in which this kind of server sends it, with its headers."""
        body = json.dumps([answer.body]) if self.shape.kind in _LISTED_ERRORS else answer.body
        return ServerAnswer(answer.status, body, self.shape.headers)

    async def answer(self, body: dict[str, Any], call_id: str | None) -> AnswerLike:
        """The answer once a slot was free, or this kind of server's refusal, which needs none."""
        refusal = self._barred() or self._refusal(body)
        if refusal is not None:
            return self._headed(refusal)
        if self._slots is None:
            await asyncio.sleep(self.shape.seconds)
            return await self._shaped_answer(body, call_id)
        async with self._slots:
            await asyncio.sleep(self.shape.seconds)
            return await self._shaped_answer(body, call_id)

    def _refusal(self, body: Mapping[str, Any]) -> ServerAnswer | None:
        """The error that this kind of server answers; None where it takes the request."""
        shape = self.shape
        unknown = next((field for field in shape.refuses if body.get(field) is not None), None)
        if unknown is not None:
            status, message = _UNKNOWN_FIELD.get(shape.kind, (400, 'Unknown name "{field}": Cannot find field.'))
            return error_answer(status, message.format(field=unknown), param=unknown)
        if shape.blocks and re.search(shape.blocks, "\n".join(map(_text, body["messages"]))):
            return self._bad_request(
                "The response was filtered due to the prompt triggering the content management policy.",
                "prompt", "content_filter",
            )  # fmt: skip
        if not shape.max_tokens and body.get("max_tokens") is not None:
            return self._bad_request(
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                "max_tokens", "unsupported_parameter",
            )  # fmt: skip
        if not shape.temperature and body.get("temperature") not in (None, 1, 1.0):
            return self._bad_request(
                "Unsupported value: 'temperature' does not support this value with this model. Only the default (1) value is supported.",
                "temperature", "unsupported_value",
            )  # fmt: skip
        if not shape.system and any(message["role"] == "system" for message in body["messages"]):
            return self._bad_request("System role not supported", None, None)
        if shape.logprobs == "refused" and body.get("logprobs"):
            return error_answer(
                *_NO_LOGPROBS.get(shape.kind, (403, "You are not allowed to request logprobs from this model"))
            )
        requested = body.get("top_logprobs")
        if isinstance(shape.logprobs, int) and isinstance(requested, int) and requested > shape.logprobs:
            return self._bad_request(self._logprobs_message(requested, shape.logprobs), "top_logprobs", None)
        if shape.json_schema == "refused" and (body.get("response_format") or {}).get("type") == "json_schema":
            return self._bad_request("response_format type 'json_schema' is not supported", "response_format", None)
        if shape.n == "refused" and (body.get("n") or 1) > 1:
            return self._bad_request("Only one completion choice is allowed", "n", None)
        count = _prompt_tokens(body["messages"])
        if shape.context is not None and shape.overflow == "refused" and count > shape.context:
            return self._too_long(count, shape.context)
        return None

    def _logprobs_message(self, requested: int, most: int) -> str:
        if self.shape.kind == "vllm":
            return f"Requested sample logprobs of {requested}, which is greater than max allowed: {most}"
        return f"Invalid value for 'top_logprobs': must be less than or equal to {most}."

    def _bad_request(self, message: str, param: str | None, code: str | None) -> ServerAnswer:
        if self.shape.kind == "vllm":
            return ServerAnswer(
                400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
            )
        return error_answer(400, message, param=param, code=code)

    def _too_long(self, count: int, most: int) -> ServerAnswer:
        if self.shape.kind == "llama_cpp":
            message = "the request exceeds the available context size, try increasing it"
            error = {
                "code": 400, "message": message, "type": "exceed_context_size_error", "n_prompt_tokens": count, "n_ctx": most,
            }  # fmt: skip
            return ServerAnswer(400, {"error": error})
        message = (
            f"This model's maximum context length is {most} tokens. However, your messages resulted in {count} tokens."
        )
        if self.shape.kind == "vllm":
            return self._bad_request(message, None, None)
        return error_answer(400, message, param="messages", code="context_length_exceeded")

    async def _shaped_answer(self, body: dict[str, Any], call_id: str | None) -> AnswerLike:
        """The inner answerer's answer to the request without what this kind of server ignores, with what it adds."""
        shape, forwarded = self.shape, dict(body)
        if not shape.seed and (body.get("temperature") is None or body["temperature"] > 0):
            self._draws += 1
            call_id = f"unseeded/{self._draws}"
        if shape.logprobs == "ignored":
            forwarded.pop("logprobs", None)
            forwarded.pop("top_logprobs", None)
        if shape.json_schema == "ignored":
            forwarded.pop("response_format", None)
        forwarded.pop("n", None)
        if shape.context is not None and shape.overflow == "cut":
            forwarded["messages"] = _cut(forwarded["messages"], shape.context)
        name = next((name for name in ("max_completion_tokens", "max_tokens") if forwarded.get(name)), None)
        left = math.inf if name is None else forwarded[name] - shape.thinks
        if name is not None and left >= 1:
            forwarded[name] = int(left)
        answer = await self.inner.answer(forwarded, call_id)
        if answer.status != 200 or not isinstance(answer.body, Mapping):
            return answer
        completion = json.loads(json.dumps(answer.body))
        self._complete(completion, body, forwarded, spent=left < 1)
        return ServerAnswer(200, completion, {**shape.headers})

    def _complete(
        self, completion: dict[str, Any], body: Mapping[str, Any], forwarded: Mapping[str, Any], *, spent: bool
    ) -> None:
        """Add to a completion what the server adds: thought, schema, several choices, its fingerprint.

        ``forwarded``: the request as the inner answerer got it. ``spent``: thinking has used up the tokens.
        """
        shape, choice = self.shape, completion["choices"][0]
        schema = ((forwarded.get("response_format") or {}).get("json_schema") or {}).get("schema")
        if isinstance(schema, dict) and not _is_object(choice["message"]["content"]):
            choice["message"]["content"] = json.dumps(_smallest(schema))
        if shape.thinks:
            usage = completion["usage"]
            limit = body.get("max_completion_tokens") or body.get("max_tokens") or shape.thinks
            thought = min(shape.thinks, limit)
            usage["completion_tokens"] = thought + (0 if spent else usage["completion_tokens"])
            usage["completion_tokens_details"] = {"reasoning_tokens": thought}
            if shape.thought_tag:
                thoughts, content = " ".join(["thought"] * thought), choice["message"]["content"]
                choice["message"]["content"] = f"<{shape.thought_tag}>{thoughts}</{shape.thought_tag}>{content}"
            if spent:
                choice |= {"message": {"role": "assistant", "content": ""}, "finish_reason": "length", "logprobs": None}
        if shape.n == "served" and (body.get("n") or 1) > 1:
            completion["choices"] = [{**choice, "index": index} for index in range(body["n"])]
        if shape.kind in _FINGERPRINTS:
            completion["system_fingerprint"] = _FINGERPRINTS[shape.kind]


def _prompt_tokens(messages: list[dict[str, Any]]) -> int:
    return sum(len(tokenize(_text(message))) for message in messages)


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content or [])


def _cut(messages: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The messages, or the last one's last ``most`` words where all together have more tokens."""
    if _prompt_tokens(messages) <= most:
        return messages
    return [{**messages[-1], "content": " ".join(_text(messages[-1]).split()[-most:])}]


def _is_object(text: Any) -> bool:
    """Whether a text is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, TypeError):
        return False


def _smallest(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a schema's properties with the first value of each enumeration."""
    properties = schema.get("properties")
    return {
        name: (inner.get("enum") or [""])[0]
        for name, inner in (properties if isinstance(properties, dict) else {}).items()
    }


# Faults on purpose.

FaultKind = Literal[
    "reset", "timeout", "truncated", "not_json", "empty_choices", "null_content", "context_length", "slow", "doubled", "too_large",
]  # fmt: skip


class Rule(Block):
    """One fault, and the calls and attempts that it hits."""

    match: str = ""
    """Regular expression searched in the call id; empty matches every call, with or without an id."""
    status: int | None = Field(None, ge=400, le=599)
    """Answer with this HTTP status and an OpenAI error body. Give `status` or `kind`."""
    kind: FaultKind | None = None
    """reset (the connection breaks off inside the answer) · timeout (no answer) · truncated (fewer bytes than
    announced) · not_json · empty_choices · null_content · context_length (a 400) · slow (the answer, late) · doubled (the answer, and on the same connection once more) · too_large
    (64 MB of JSON, packed into 64 kB)."""
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
        return _regular_expression(match)

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
    """The rules that hit attempts: ``attempts`` counts them by call, ``fired`` lists the hits as (name, rule).

    An attempt's number counts the requests of one call id (without one: one body) since the server started, so that the same
    requests meet the same faults.
    """

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.attempts: dict[str, int] = {}
        self.fired: list[tuple[str, Rule]] = []

    def next(self, name: str, call_id: str | None) -> Rule | None:
        """The rule that hits the next attempt of a call, or None. ``name``: its id, or else the hash of its body."""
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


async def fault_response(rule: Rule, body: Mapping[str, Any], route: Route) -> Response | None:
    """The response of a rule to a request ``body``; None where the true answer follows (``slow``, ``doubled``)."""
    if rule.kind == "timeout":
        return BrokenResponse(b"", sent=None, reset=False, hold_s=math.inf if rule.delay_s is None else rule.delay_s)
    if rule.delay_s:
        await asyncio.sleep(rule.delay_s)
    if rule.status is not None:
        headers = {} if rule.retry_after_s is None else {"retry-after": f"{rule.retry_after_s:g}"}
        return response(error_answer(rule.status, rule.message, code=rule.code, headers=headers))
    whole = _unbroken(body, route)
    match rule.kind:
        case "reset" | "truncated":
            content, streaming = json_bytes(whole), body.get("stream") is True
            if streaming:
                content = b"".join(chunked(whole, include_usage=False))
            return BrokenResponse(content, sent=len(content) // 2, reset=rule.kind == "reset", streaming=streaming)
        case "not_json":
            return response(ServerAnswer(200, "<html><body>502 Bad Gateway</body></html>"))
        case "empty_choices":
            empty = {**whole, "data": [], "results": []} if route else without_answer(whole, "empty_choices")
            return response(ServerAnswer(200, empty), body)
        case "null_content":
            return response(ServerAnswer(200, whole if route else without_answer(whole, "null_content")), body)
        case "context_length":
            return response(context_length_answer())
        case "too_large":
            packed = {"content-encoding": "gzip"}
            return Response(_unending(), 200, packed, media_type="application/json")
    return None


@functools.cache
def _unending() -> bytes:
    return gzip.compress(b" " * (2 * MAX_MESSAGE_BYTES))


def without_answer(completion: Mapping[str, Any], kind: FaultKind | None) -> dict[str, Any]:
    """A completion without choices, by ``kind`` empty_choices, else with one whose content is null."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
    return {**completion, "choices": [] if kind == "empty_choices" else [choice]}


def context_length_answer() -> ServerAnswer:
    """The error that says that a prompt is too long."""
    message = "This model's maximum context length is 8192 tokens; your messages resulted in more"
    return error_answer(400, message, code="context_length_exceeded", param="messages")


def _unbroken(body: Mapping[str, Any], route: Route) -> dict[str, Any]:
    """The answer that a fault breaks off or empties; of a scoring route, one whose number is null."""
    envelope: dict[str, Any] = {
        "id": "fault", "created": 0, "model": body["model"],
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    }  # fmt: skip
    if route:
        entry = {
            "index": 0,
            "probs": [None],
            "data": [None],
            "score": None,
            "relevance_score": None,
            "embedding": [None],
        }
        return {**envelope, "object": "list", "data": [entry], "results": [entry]}
    choice = {"index": 0, "message": {"role": "assistant", "content": "planted fault"}, "finish_reason": "stop"}
    return {**envelope, "object": "chat.completion", "choices": [choice]}
