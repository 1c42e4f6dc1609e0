"""Replies read from HTTP answers: chat completions, scores by the routes of reward models, as vLLM serves them, and embeddings.

``parse`` decides on a fresh answer: readable, worth another try (TransientFault), or refused for good (Refusal). ``read``
makes a ``Reply`` of a recorded one, whatever is in it.
"""

from __future__ import annotations

import base64
import json
import math
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from judgeloop.records import CUT, REWARD_ROUTES, Reply, Route

CALL_HEADER = "x-judgeloop-call"
"""Header with a call's id, which our own server repeats in its answer."""
MAX_MESSAGE_BYTES = 32 * 2**20
"""Bytes of a request or an answer, unpacked, that are read at most."""
SHORTEST_SECRET_IN_ERROR, SHORTEST_SECRET_IN_ANSWER = 6, 16
"""Characters of the shortest key that is struck out of a server's texts: error bodies echo short keys too, while in an answer
a short text may be a word."""
TRANSIENT_4XX = (408, 409, 425, 429)
"""Statuses below 500 that are worth another try."""
_REFUSING_STATUS = (401, 402, 404)
_DEEPEST = 100
_LONGEST_DETAIL = 300
_MOST_TOKENS = 10**12

_VERSION = re.compile(r"/v\d+$")
_THINKING = re.compile(r"^\s*<(think|thinking|reasoning)>(.*?)(?:</\1>\s*|\Z)", re.DOTALL | re.IGNORECASE)
# Some chat templates open the thought in the prompt: the reply then holds its end alone.
_THOUGHT_END = re.compile(r"^(?:(?!<think>).)*?</think>\s*", re.DOTALL | re.IGNORECASE)
_CONTEXT = re.compile(
    r"context.{0,40}(length|size|window|limit)|maximum.{0,30}(token|context|length)|\b(is|are|was|were) too long|too many tokens|tokens.{0,60}must be (<=|less than)",
    re.I,
)
_NO_MODEL = re.compile(
    r"model\b.{0,80}\b(not found|does not exist|not exist|unknown)|unknown model|no such model", re.I
)
_ACCOUNT = re.compile(
    r"\b(api ?keys?|keys?|accounts?|credentials?|organi[sz]ations?|projects?|billing|credits?|subscriptions?|authenticat\w*|callers?|country|region|territory)\b",
    re.I,
)
"""In a 403, what no other question to the endpoint would change."""
_IN_ADDRESS = re.compile(r"%(?:25){0,4}[2-7][0-9A-Fa-f]")
_SURROGATES = re.compile("[\ud800-\udfff]")

# Requests and answers of the routes that score texts or embed them.

ROUTE_PATHS: dict[str, Route] = {
    f"{prefix}/{route}": route for route in REWARD_ROUTES for prefix in ("", "/v1", *(["/v2"] if route == "rerank" else []))
}  # fmt: skip
"""Where the local server answers each route."""
ROUTE_PATHS["/v1/embeddings"] = "embeddings"


class Struck:
    """Secrets that are struck out of texts, however they are spelled there: as they are, in JSON or percent-encoded (whole or some of
    their characters), in hexadecimal digits, and within base64 of something that holds them."""

    def __init__(self, secrets: Iterable[str], shortest: int) -> None:
        """``shortest``: the characters of the shortest secret that is struck out."""
        kept = {secret for secret in secrets if len(secret) >= shortest}
        # Longest first, so that no part of a longer one stays.
        self._spelled = sorted({text for secret in kept for text in _spellings(secret)}, key=len, reverse=True)
        self._escaped = [_with_escapes(secret) for secret in sorted(kept, key=len, reverse=True)]

    def __call__(self, text: str) -> str:
        """The text with *** for every secret."""
        for spelled in self._spelled:
            text = text.replace(spelled, "***")
        if "\\u00" in text or "\\/" in text or _IN_ADDRESS.search(text):
            for pattern in self._escaped:
                text = pattern.sub("***", text)
        return text


def _spellings(secret: str) -> set[str]:
    """How a secret may stand in a text, but for single characters that are escaped."""
    raw = secret.encode()
    found = {secret, json.dumps(secret)[1:-1], urllib.parse.quote_plus(secret), raw.hex(), raw.hex().upper()}
    for before in range(3):  # base64 takes three bytes at a time: the characters that no neighbour shares
        whole = (before + len(raw)) // 3 * 3 - before
        inside = base64.b64encode(bytes(before) + raw[:whole])[4 * (before > 0) :].decode()
        if len(inside) >= SHORTEST_SECRET_IN_ANSWER:
            found |= {inside, inside.replace("+", "-").replace("/", "_")}
    return found


def _with_escapes(secret: str) -> re.Pattern[str]:
    """The secret with any of its characters escaped as JSON or an address may have it."""

    def either(character: str) -> str:
        code = ord(character)  # what a header carries is ASCII
        return rf"(?:\\{{0,7}}{re.escape(character)}|(?i:\\{{1,7}}u{code:04x}|%(?:25){{0,4}}{code:02x}))"

    return re.compile("".join(map(either, secret)))


def root_path(base: str) -> str:
    """The path of a server's root, from the path of a base URL, which may end in a version (/v1)."""
    return _VERSION.sub("", base.rstrip("/"))


def route_path(base: str, route: Route) -> str:
    """The path of a scoring route, from the path of a base URL, which may end in a version (/v1). Embeddings stand beside chat
    completions."""
    base = base.rstrip("/")
    if route == "embeddings":
        return f"{base}/embeddings"
    if route == "rerank":
        return f"{base if _VERSION.search(base) else base + '/v1'}/rerank"
    return f"{root_path(base)}/{route}"


def missing_field(route: Route, body: Mapping[str, Any]) -> str:
    """The field that a scoring request lacks or has in a wrong form; empty where the request is whole."""
    if route == "embeddings":
        return "" if _holds_texts(body.get("input")) else "input"
    if route in ("classify", "pooling"):
        if "messages" in body:
            return ""  # checked as those of every chat
        return "" if _holds_texts(body.get("input")) else "input"
    if route == "rerank":
        names = ("query", "documents")
    else:
        names = ("text_1", "text_2") if "text_1" in body else ("queries", "documents")
    if route == "rerank" and not isinstance(body.get("query"), str):
        return "query"
    return next((name for name in names if not _holds_texts(body.get(name))), "")


def _holds_texts(value: Any) -> bool:
    """Whether a field is a text or a list of texts that is not empty."""
    is_list = isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)
    return isinstance(value, str) or is_list


def _entries(route: Route, body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """An answer's entries, one a text; empty where its envelope is malformed."""
    entries = body.get("results" if route == "rerank" else "data")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return []
    return entries


def _numbers(route: Route, body: Mapping[str, Any]) -> tuple[float | None, ...]:
    """The numbers of an answer's one text; empty where something else stands in their place.

    None stands for a number that is not finite (several servers write NaN as null). Where each token has a row, the last
    token's counts: it has seen the whole text.
    """
    value = _entries(route, body)[0].get(_NUMBERS_OF[route], ())
    if isinstance(value, str) and route == "embeddings":
        vector = decoded_vector(value)
        return () if vector is None else tuple(number if math.isfinite(number) else None for number in vector.tolist())
    if isinstance(value, list) and value and all(isinstance(row, list) for row in value):
        value = value[-1]
    values = value if isinstance(value, list | tuple) else [value]
    if not all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        return ()
    return tuple(_finite(value) for value in values)


_NUMBERS_OF = {
    "classify": "probs", "pooling": "data", "score": "score", "rerank": "relevance_score", "embeddings": "embedding",
}  # fmt: skip
"""Route → the field of an answer's entry that holds its numbers."""


def encoded_vector(values: Any) -> str:
    """An embedding (d,) as base64 of little-endian float32, OpenAI's ``encoding_format: base64``."""
    return base64.b64encode(np.asarray(values, dtype="<f4").tobytes()).decode()


def decoded_vector(text: str) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    """(d,) float32 of base64, None where the text is none."""
    try:
        content = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return None if len(content) % 4 else np.frombuffer(content, dtype="<f4")


def packed(body: dict[str, Any]) -> dict[str, Any]:
    """An answer of the route embeddings with base64 for lists of numbers, a quarter of their size: what servers that know no
    base64 give. What is no list of numbers stays."""
    entries = []
    for entry in _entries("embeddings", body):
        numbers = _numbers("embeddings", {"data": [entry]}) if isinstance(entry.get("embedding"), list) else ()
        values = [math.nan if number is None else number for number in numbers]
        # A number beyond float32 becomes infinite, and is then no embedding.
        with np.errstate(over="ignore"):
            entries.append({**entry, "embedding": encoded_vector(values)} if values else entry)
    return {**body, "data": entries}


def unpacked(body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer with lists of numbers for base64, null for those that are not finite: for requests that do not ask for base64."""
    entries = [
        {**entry, "embedding": list(_numbers("embeddings", {"data": [entry]}))}
        for entry in _entries("embeddings", body)
    ]
    return {**body, "data": entries}


def _finite(value: float | None) -> float | None:
    """The number, or None where it is not finite."""
    try:
        number = math.nan if value is None else float(value)
    except OverflowError:  # JSON bounds no whole number
        number = math.inf
    return number if math.isfinite(number) else None


# Fresh answers: readable, worth another try, or refused for good.


class TransientFault(Exception):
    """A transport fault or malformed envelope: worth another try.

    ``fault`` is the reason in snake_case; ``status`` and ``response`` are what arrived; ``wait_s`` seconds that the server
    asks to wait, None where it asks for none. ``sent``: whether the request may have reached the server; ``tokens``: prompt and
    completion tokens that it may have taken.
    """

    def __init__(
        self, fault: str, *, status: int = 0, response: Any = None, wait_s: float | None = None, detail: str = "", sent: bool = True
    ) -> None:  # fmt: skip
        super().__init__(detail or fault)
        self.fault, self.status, self.response, self.wait_s, self.sent = fault, status, response, wait_s, sent
        self.tokens = (0, 0)

    @property
    def limited(self) -> bool:
        """Whether the server refused the call for a limit of its own: 429, or any fault with a time to come back."""
        return self.status == 429 or self.wait_s is not None


class Refusal(Exception):
    """The endpoint refuses for good (key, account, address, model, no credit): the run ends. A 403 that speaks of neither is one
    call's failure.

    ``absent``: the address or model does not exist, so that another key would not help.
    """

    def __init__(self, message: str, *, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


def parse(status: int, text: str, route: Route = "") -> Any:
    """The JSON of a response with that HTTP status, from which ``read`` makes a reply or a final failure.

    Raises TransientFault for what is retried, Refusal for what ends the run, and nothing else, whatever the text.
    """
    body = _json(text)
    if status == 200:
        if stated := _status_of_error(body):  # a gateway passes an error on as an answer
            parse(stated, text, route)
        if fault := _malformed(body, route):
            raise TransientFault(fault, status=status, response=body if isinstance(body, dict) else text[:2000])
        return packed(body) if route == "embeddings" else body
    message, codes = _error(body, text)
    barred = status == 403 and _ACCOUNT.search(re.sub("[_-]", " ", " ".join((message, *codes))))
    if status in _REFUSING_STATUS or barred or 300 <= status < 400 or _unknown_model(status, message, codes):
        raise Refusal(f"HTTP {status}: {message}", absent=status == 404 or _unknown_model(status, message, codes))
    if "insufficient_quota" in codes:
        raise Refusal(f"HTTP {status}: {message}")
    error_body = body if isinstance(body, dict) else {"error": {"message": message}}
    # llama.cpp and others answer 500 to a prompt that is too long: asking again cannot help.
    if status >= 500 and _is_context_length(message, codes):
        return error_body
    if status >= 500 or status in TRANSIENT_4XX or status < 300:
        fault = "rate_limited" if status == 429 else f"http_{status}"
        raise TransientFault(fault, status=status, response=error_body, detail=message)
    return error_body


def _status_of_error(body: Any) -> int:
    """The HTTP status that an answer without choices names as its error's code; 0 where it is no error."""
    error = body.get("error") if isinstance(body, dict) and not body.get("choices") else None
    code = error.get("code") if isinstance(error, dict) else None
    code = int(code) if isinstance(code, str) and re.fullmatch(r"[45]\d\d", code) else code
    return code if isinstance(code, int) and not isinstance(code, bool) and 400 <= code < 600 else 0


def _json(text: str) -> Any:
    """The JSON in a text, or None; also None where it is nested too deeply to be recorded again."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return None if text.count("[") + text.count("{") > _DEEPEST and _is_deep(body) else body


def _is_deep(body: Any) -> bool:
    """Whether a value is nested more than ``_DEEPEST`` levels."""
    level = [body]
    for _ in range(_DEEPEST):
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [inner for value in containers for inner in (value.values() if isinstance(value, dict) else value)]
    return bool(level)


def _malformed(body: Any, route: Route) -> str:
    """Why no reply can be read from the body of a 200; empty where one can."""
    if not isinstance(body, dict):
        return "not_json"
    if route == "train":
        return ""
    if route:
        return "" if _entries(route, body) else "no_entry"
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return "empty_choices"
    answer = choices[0].get("message")
    if not isinstance(answer, dict):
        return "empty_choices"
    # A null content may have its reason: the filter stepped in, or thinking used up the tokens.
    explained = _text(choices[0].get("finish_reason")).lower() in ("content_filter", *CUT) or answer.get("refusal")
    has_text = isinstance(answer.get("content"), str) or bool(_parts(answer.get("content")))
    return "" if has_text or explained else "null_content"


# Recorded answers: the reply, or why there is none.


def read(status: int, body: Any, fault: str, route: Route = "") -> Reply:
    """The reply in a recorded response with that HTTP status; a damaged one has a ``failure``. Never raises.

    ``fault``: why there is no readable response, empty where there is one.
    """
    if fault:
        message = _error(body, "")[0] if isinstance(body, dict) and "error" in body else ""
        return Reply(None, failure=fault, detail=clean(message)[:_LONGEST_DETAIL])
    if status != 200:
        message, codes = _error(body, "")
        failure = "refused_by_endpoint" if status == 403 else "bad_request"
        failure = "context_length" if status == 413 or _is_context_length(message, codes) else failure
        detail = clean(message)[:_LONGEST_DETAIL]
        # A filter that stops the prompt: what it would have stopped in the reply is a refusal in a 200.
        if codes & _FILTERED:
            return Reply("", refusal="content_filter", detail=detail)
        return Reply(None, failure=failure, detail=detail)
    if fault := _malformed(body, route):
        return Reply(None, failure=fault)
    if route == "train":
        return Reply(text="", trained=body)
    if route:
        return _scored_reply(route, body)
    choice = body["choices"][0]
    message = choice["message"]
    content, thought = _content(message.get("content"))
    refusal = _text(message.get("refusal"))
    if message.get("content") is None and choice.get("finish_reason") == "content_filter" and not refusal:
        refusal = "content_filter"
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning")) or thought
    content, thought = _without_thinking(clean(content))
    reasoning = reasoning or thought
    prompt_tokens, completion_tokens = used_tokens(body)
    return Reply(
        text=content,
        reasoning=clean(reasoning),
        refusal=clean(refusal),
        top_logprobs=() if reasoning else _first_logprobs(choice.get("logprobs")),
        finish_reason=clean(_text(choice.get("finish_reason"))),
        model=clean(_text(body.get("model"))),
        fingerprint=clean(_text(body.get("system_fingerprint"))),
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        log_ratio=_finite(ratio) if isinstance(ratio := body.get("log_ratio"), float) else None,
    )


def _scored_reply(route: Route, body: dict[str, Any]) -> Reply:
    return Reply(
        text="",
        model=clean(_text(body.get("model"))),
        prompt_tokens=used_tokens(body)[0],
        numbers=_numbers(route, body),
    )


def used_tokens(body: Any) -> tuple[int, int]:
    """(prompt, completion) tokens that an answer says it took; 0 where it does not say. A score has no completion."""
    usage = body.get("usage") if isinstance(body, dict) else None
    if not isinstance(usage, dict):
        return 0, 0
    prompt = _count(usage.get("prompt_tokens"))
    if "choices" in body:
        return prompt, _count(usage.get("completion_tokens"))
    return prompt or _count(usage.get("total_tokens")), 0


def clean(text: str) -> str:
    """A text with U+FFFD for lone surrogates, which JSON can carry and UTF-8 files and requests cannot."""
    return _SURROGATES.sub("\ufffd", text)


def _text(value: Any) -> str:
    return "" if value is None or value is False else str(value)


def _parts(content: Any) -> list[Any]:
    """The parts of a content that some gateways answer as a list: objects with a text, or texts."""
    return [part for part in content if isinstance(part, dict | str)] if isinstance(content, list) else []


def _content(content: Any) -> tuple[str, str]:
    """(text, reasoning) of a message's content, which is a text, or parts of which some may be thinking."""
    if isinstance(content, str):
        return content, ""
    text, reasoning = [], []
    for part in _parts(content):
        if isinstance(part, str):
            text.append(part)
        elif part.get("type") in ("thinking", "reasoning"):
            inner = part.get("thinking", part.get("text"))
            reasoning.append(inner if isinstance(inner, str) else _content(inner)[0])
        elif isinstance(part.get("text"), str):
            text.append(part["text"])
    return "".join(text), "".join(reasoning)


def _without_thinking(text: str) -> tuple[str, str]:
    """(answer, thought) of a text; a thought that was not ended leaves no answer."""
    if thought := _THINKING.match(text):
        return text[thought.end() :], thought[2]
    if thought := _THOUGHT_END.match(text):
        return text[thought.end() :], re.sub(r"</think>\s*$", "", thought[0], flags=re.IGNORECASE)
    return text, ""


def _first_logprobs(logprobs: Any) -> tuple[tuple[str, float], ...]:
    """(token, natural log-probability) pairs at the first token; malformed ones are left out."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return ()
    top = content[0].get("top_logprobs") or [content[0]]
    pairs = []
    for entry in top if isinstance(top, list) else []:
        token, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(logprob, int | float) or isinstance(logprob, bool):
            continue
        if -1e300 < logprob <= 1e-6 or logprob == float("-inf"):
            pairs.append((clean(token), float(logprob)))
    return tuple(pairs)


def _error(body: Any, text: str) -> tuple[str, frozenset[str]]:
    """(message, codes) of an error body, which Gemini puts into a list; ``text`` is shown where it is no JSON object.

    The codes include the type: llama.cpp's ``code`` is the status, and its ``type`` the code.
    """
    body = body[0] if isinstance(body, list) and body else body
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        codes = frozenset(str(error[name]) for name in ("code", "type") if error.get(name))
        return str(error.get("message") or error), codes
    if isinstance(error, str):
        return error, frozenset()
    if isinstance(body, dict):
        return str(body.get("detail") or body.get("message") or body), frozenset()
    return text[:200].strip() or "no message", frozenset()


_FILTERED = frozenset({"content_filter", "content_policy_violation"})


def _is_context_length(message: str, codes: frozenset[str]) -> bool:
    return bool(codes & {"context_length_exceeded", "exceed_context_size_error"}) or bool(_CONTEXT.search(message))


def _unknown_model(status: int, message: str, codes: frozenset[str]) -> bool:
    return status in (400, 422) and ("model_not_found" in codes or bool(_NO_MODEL.search(message)))


def _count(value: Any) -> int:
    """A token count; 0 where the value cannot be one."""
    return int(value) if type(value) in (int, float) and 0 < value < _MOST_TOKENS else 0
