"""What came back over the wire, read: a Reply, a transient fault that is worth another try, or a final failure."""

from __future__ import annotations

import json
import re
from typing import Any

from judgeloop.records import Reply

_THINKING = re.compile(r"^\s*<(think|thinking|reasoning)>(.*?)</\1>\s*", re.DOTALL)
_CONTEXT = re.compile(
    r"context.{0,40}(length|size|window|limit)|maximum.{0,30}(token|context|length)|too (long|many tokens)", re.I
)
_NO_MODEL = re.compile(
    r"model\b.{0,80}\b(not found|does not exist|not exist|unknown)|unknown model|no such model", re.I
)
_SURROGATES = re.compile("[\ud800-\udfff]")
_FATAL_STATUS = (401, 403, 404)
_TRANSIENT_4XX = (408, 409, 425, 429)


class Transient(Exception):
    """A transport fault or malformed envelope: worth another try. ``fault`` is the reason, snake_case."""

    def __init__(
        self, fault: str, *, status: int = 0, response: Any = None, wait_s: float | None = None, detail: str = ""
    ) -> None:
        super().__init__(detail or fault)
        self.fault, self.status, self.response, self.wait_s = fault, status, response, wait_s


class Refused(Exception):
    """The endpoint refuses for good (key, permission, address, model): the run ends."""


def parse(status: int, text: str) -> Any:
    """The JSON of a response with that status, if a verdict or a final failure can be read from it.

    Raises Transient for what is retried, Refused for what ends the run.
    """
    try:
        body = json.loads(text)
    except ValueError:
        body = None
    if status != 200:
        message, code = _error(body, text)
        if status in _FATAL_STATUS or _unknown_model(status, message, code):
            raise Refused(f"HTTP {status}: {message}")
        if code == "insufficient_quota":
            raise Refused(f"HTTP {status}: {message}")
        if status >= 500 or status in _TRANSIENT_4XX:
            # llama.cpp and others answer 500 to a prompt that is too long: asking again cannot help.
            if status >= 500 and _is_context_length(message, code):
                return body
            fault = "rate_limited" if status == 429 else f"http_{status}"
            raise Transient(fault, status=status, response=body, detail=message)
        return body if isinstance(body, dict) else {"error": {"message": message}}
    if not isinstance(body, dict):
        raise Transient("not_json", status=status, response=text[:2000])
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise Transient("empty_choices", status=status, response=body)
    answer = choices[0].get("message")
    if not isinstance(answer, dict):
        raise Transient("empty_choices", status=status, response=body)
    if answer.get("content") is None and not answer.get("refusal") and not _explained(choices[0]):
        raise Transient("null_content", status=status, response=body)
    return body


def _explained(choice: dict[str, Any]) -> bool:
    """A null content that has its reason: the filter stepped in, or thinking used up the tokens."""
    return choice.get("finish_reason") in ("content_filter", "length")


def read(status: int, body: Any, fault: str) -> Reply:
    """The Reply in a recorded response; total: every recorded exchange has one."""
    if fault:
        return Reply(None, failure=fault)
    if status != 200:
        message, code = _error(body, "")
        return Reply(None, failure="context_length" if _is_context_length(message, code) else "bad_request")
    choice = body["choices"][0]
    message = choice["message"]
    content = message.get("content")
    if isinstance(content, list):  # content parts, as some gateways answer
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    refusal = str(message.get("refusal") or "")
    if content is None and choice.get("finish_reason") == "content_filter" and not refusal:
        refusal = "content_filter"
    text = clean(str(content or ""))
    reasoning = str(message.get("reasoning_content") or message.get("reasoning") or "")
    thought = _THINKING.match(text)
    if thought:
        text, reasoning = text[thought.end() :], reasoning or thought[2]
    usage = body.get("usage") or {}
    return Reply(
        text=text,
        reasoning=clean(reasoning),
        refusal=clean(refusal),
        top_logprobs=() if reasoning else _first_logprobs(choice),
        finish_reason=str(choice.get("finish_reason") or ""),
        model=str(body.get("model") or ""),
        fingerprint=str(body.get("system_fingerprint") or ""),
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def clean(text: str) -> str:
    """JSON can carry lone surrogates, which no UTF-8 file or request can: they become U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def _first_logprobs(choice: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    content = (choice.get("logprobs") or {}).get("content")
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return ()
    top = content[0].get("top_logprobs") or [content[0]]
    found = []
    for entry in top:
        token, logprob = entry.get("token"), entry.get("logprob")
        if isinstance(token, str) and isinstance(logprob, int | float) and logprob == logprob and logprob <= 1e-6:
            found.append((clean(token), float(logprob)))
    return tuple(found)


def _error(body: Any, text: str) -> tuple[str, str]:
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        return str(error.get("message") or error), str(error.get("code") or error.get("type") or "")
    if isinstance(error, str):
        return error, ""
    return (
        str(body.get("detail") or body.get("message") or body)
        if isinstance(body, dict)
        else text[:200].strip() or "no message"
    ), ""


def _is_context_length(message: str, code: str) -> bool:
    return code in ("context_length_exceeded", "exceed_context_size_error") or bool(_CONTEXT.search(message))


def _unknown_model(status: int, message: str, code: str) -> bool:
    return status in (400, 422) and (code == "model_not_found" or bool(_NO_MODEL.search(message)))


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and value > 0 else 0
