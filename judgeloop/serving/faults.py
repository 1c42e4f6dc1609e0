"""Servers of a given shape, played in front of any answerer: what they refuse, ignore, limit and add.

A *shape* is what a kind of OpenAI-compatible server does beside answering. With it the planted server plays an Ollama, a
vLLM, a llama.cpp or a hosted reasoning model, so that clients, and `judgeloop doctor`, can be tried offline.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from judgeloop.experiment.blocks import Block
from judgeloop.serving.protocol import Answer, Answerer, AnswerError, AnswerLike, error_answer
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


class Shaped:
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
        raise AnswerError(Answer(200, {"object": "list", "data": entries}, self.shape.headers))

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
            return Answer(refusal.status, refusal.body, self.shape.headers)
        if self._slots is None:
            await asyncio.sleep(self.shape.seconds)
            return await self._answered(body, call_id)
        async with self._slots:
            await asyncio.sleep(self.shape.seconds)
            return await self._answered(body, call_id)

    def _refusal(self, body: Mapping[str, Any]) -> Answer | None:
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

    def _refused(self, message: str, param: str | None, code: str | None) -> Answer:
        if self.shape.kind == "vllm":
            return Answer(
                400, {"object": "error", "message": message, "type": "BadRequestError", "param": None, "code": 400}
            )
        return error_answer(400, message, param=param, code=code)

    def _too_long(self, count: int, most: int) -> Answer:
        if self.shape.kind == "llama_cpp":
            message = "the request exceeds the available context size, try increasing it"
            error = {
                "code": 400,
                "message": message,
                "type": "exceed_context_size_error",
                "n_prompt_tokens": count,
                "n_ctx": most,
            }
            return Answer(400, {"error": error})
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
        return Answer(200, made, {**shape.headers})

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
