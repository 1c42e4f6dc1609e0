"""What is found out about an endpoint, and the first question: does it answer, by which settings, and does it think first?

What one answer shows (which limit field, whether it thinks first) shapes the questions after it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import httpx2
import openai

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Reply, Verdict
from judgeloop.text.templates import Mode, Template
from judgeloop.wire.client import Line, brief
from judgeloop.wire.reply import Refusal, TransientFault, parse, read

# Questions to one endpoint, one at a time or several: whatever comes back is looked at, nothing is hidden by a retry.

_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class HttpResult:
    """What a request came back with. ``status`` 0: no whole answer (``fault`` says why). ``body`` is its JSON, or None."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str
    seconds: float
    fault: str = ""

    @property
    def ok(self) -> bool:
        """A 200 with a readable completion."""
        return self.status == 200 and not self.reply.failure

    @property
    def reply(self) -> Reply:
        """The completion as a run would read it."""
        try:
            return read(self.status, parse(self.status, self.text), self.fault)
        except TransientFault as fault:
            return Reply(None, failure=fault.fault)
        except Refusal:
            return Reply(None, failure=f"http_{self.status}")

    @property
    def message(self) -> str:
        """What an error says, on one line; the fault where nothing came."""
        error = self.body.get("error", self.body) if isinstance(self.body, dict) else self.text
        said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        return self.fault or brief(str(said or f"HTTP {self.status}"))

    @property
    def said(self) -> str:
        """Status and error in a few words."""
        return self.fault if not self.status else f"HTTP {self.status}: {self.message}"


class CallsSpent(Exception):
    """The stated number of calls is used up."""


class Inquiry(Line):
    """A connection that answers with all that came: status, headers, body, seconds. Counts its completions."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str], most: int) -> None:
        super().__init__("doctor", endpoint, environment)
        self.most, self.calls = most, 0
        self.seen_headers: dict[str, str] = {}

    async def models(self) -> HttpResult:
        """The list of models. Raises EndpointFailed where no server answers at all."""
        await self.check_alive()
        return await self._came("GET", "/models", None)

    async def complete(self, body: Mapping[str, Any], *, patient: bool = True) -> HttpResult:
        """One chat completion; asked once more after a 429, a 5xx or no answer if ``patient``. Raises CallsSpent."""
        self._count()
        came = await self._came("POST", "/chat/completions", body)
        if (
            not patient
            or not (came.status in (0, 408, 429) or came.status >= 500)
            or came.reply.failure == "context_length"
        ):
            return came
        await asyncio.sleep(min(_seconds(came.headers.get("retry-after", "")), _LONGEST_WAIT_S))
        self._count()
        return await self._came("POST", "/chat/completions", body)

    def left(self) -> int:
        """Completions that may still be asked."""
        return self.most - self.calls

    def _count(self) -> None:
        if self.calls >= self.most:
            raise CallsSpent
        self.calls += 1

    async def _came(self, method: str, path: str, body: Mapping[str, Any] | None) -> HttpResult:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                if method == "GET":
                    response = await self._openai.get(path, cast_to=httpx2.Response)
                else:
                    response = await self._openai.post(path, cast_to=httpx2.Response, body=dict(body or {}))
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APITimeoutError, TimeoutError):
            return HttpResult(
                0, {}, None, "", time.perf_counter() - began, f"no answer in {self.endpoint.timeout_s:g} s"
            )
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            why = brief(self.scrub(str(error.__cause__ or error)))
            return HttpResult(0, {}, None, "", time.perf_counter() - began, f"the connection broke ({why})")
        took = time.perf_counter() - began
        if 300 <= response.status_code < 400:
            target = self.scrub(response.headers.get("location", "another address"))
            raise EndpointFailed(f"{self.where}: redirects to {target}; give that as --base-url")
        headers = {name.lower(): self.scrub(value) for name, value in response.headers.items()}
        self.seen_headers |= headers
        text = self.scrub(response.content.decode("utf-8-sig", "replace"))
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        return HttpResult(response.status_code, headers, found, text, took)


def _seconds(value: str) -> float:
    try:
        return max(0.2, float(value))
    except ValueError:
        return 1.0


State = Literal["ok", "no", "unknown"]

SHORT, THOUGHTFUL = 64, 2048


class Trial(Protocol):
    """The question by which a judge of pairs is tried; the better answer is shown first."""

    @property
    def template(self) -> Template: ...

    def body(self, endpoint: Endpoint, mode: Mode) -> dict[str, Any]: ...

    def read(self, reply: Reply, mode: Mode) -> Verdict: ...

    def turned(self) -> Trial:
        """The same question with the better answer second."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the transcript: what was asked, what came back, what that means. ``calls``: completions it took."""

    name: str
    asked: str
    came: str
    state: State
    means: str
    calls: int = 0


@dataclass
class EndpointFindings:
    """What the questions have brought to light; None or empty where it is not known."""

    model: str = ""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_temperature: bool = True
    thinks: bool = False
    max_tokens: int = SHORT
    logprobs: int | None = None
    enforces_schema: bool | None = None
    verdicts: dict[Mode, tuple[Verdict, ...]] = field(default_factory=dict)
    context: int | None = None
    fingerprint: str = ""
    checks: list[Check] = field(default_factory=list)

    def endpoint(self, base: Endpoint) -> Endpoint:
        """The endpoint with the settings that were found."""
        return base.model_copy(
            update={
                "max_tokens_field": self.max_tokens_field, "send_temperature": self.send_temperature,
                "max_tokens": self.max_tokens, "top_logprobs": self.logprobs or base.top_logprobs,
            }
        )  # fmt: skip


async def answer(inquiry: Inquiry, found: EndpointFindings) -> None:
    """Does it answer at all, by which settings, and does it think first? Raises EndpointFailed where it refuses."""
    calls, said = inquiry.calls, []
    came = await inquiry.complete(plain(found, "Reply with the single word: ready", 16))
    for _ in range(3):
        if came.status not in (400, 422) or not _adapt(found, came.message):
            break
        said.append(f"refused ({came.message})")
        came = await inquiry.complete(plain(found, "Reply with the single word: ready", 16))
    _demand(inquiry, came)
    reply = came.reply
    if _thought(came) and not (reply.text or "").strip():
        came = await inquiry.complete(plain(found, "Reply with the single word: ready", THOUGHTFUL))
        _demand(inquiry, came)
        reply = came.reply
    found.thinks = _thought(came)
    found.max_tokens = max(THOUGHTFUL, 4 * reply.completion_tokens) if found.thinks else SHORT
    found.fingerprint = reply.fingerprint
    came_back = "; ".join([*said, f"{quoted(reply.text)} in {came.seconds:.2f} s, model {reply.model or 'not named'}"])
    settings = [
        *(["wants max_completion_tokens"] if found.max_tokens_field != "max_tokens" else []),
        *(["refuses temperature"] if not found.send_temperature else []),
        *([f"thinks before it answers ({reply.completion_tokens} tokens): give it room, and no log-probabilities"] if found.thinks else []),
        *([] if reply.prompt_tokens else ["counts no tokens (usage): cost cannot be counted"]),
    ]  # fmt: skip
    means = "; ".join(settings) or "answers with the usual settings"
    note(found, inquiry, calls, "answer", "one word, temperature 0", came_back, "ok", means)


def _adapt(found: EndpointFindings, message: str) -> bool:
    """Change the setting that a refusal names; False where it names none."""
    if "max_completion_tokens" in message and found.max_tokens_field == "max_tokens":
        found.max_tokens_field = "max_completion_tokens"
        return True
    if "temperature" in message and found.send_temperature:
        found.send_temperature = False
        return True
    return False


def _demand(inquiry: Inquiry, came: HttpResult) -> None:
    if not came.ok:
        hint = (
            f"check the key in {inquiry.key_variable}, base_url and model"
            if came.status in (401, 402, 403, 404)
            else "see what the server logs"
        )
        raise EndpointFailed(
            f"{inquiry.where}: no answer to a plain question ({brief(came.said or came.reply.failure)}); {hint}"
        )


def _thought(came: HttpResult) -> bool:
    usage = came.body.get("usage") if isinstance(came.body, dict) else None
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    counted = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return bool(came.reply.reasoning or counted)


def plain(found: EndpointFindings, text: str, most: int, temperature: float = 0.0) -> dict[str, Any]:
    """A request that asks this text, by the settings found so far; ``most`` tokens of reply."""
    body: dict[str, Any] = {
        "model": found.model,
        "messages": [{"role": "user", "content": text}],
        found.max_tokens_field: most,
    }
    return {**body, "temperature": temperature} if found.send_temperature else body


def quoted(text: str | None) -> str:
    """The beginning of a reply on one line, in quotes."""
    line = brief(text or "")
    return f"“{line[:60]}{'…' if len(line) > 60 else ''}”" if line else "an empty text"


def note(
    found: EndpointFindings, inquiry: Inquiry, before: int, name: str, asked: str, came: str, state: State, means: str
) -> None:
    """Add a check to the transcript; ``before``: completions asked when it began."""
    found.checks.append(Check(name, asked, came, state, means, inquiry.calls - before))


# Kinds of OpenAI-compatible servers: how each is told from what it says of itself, and what is odd about it.


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity: ``check`` is the probe that shows it, ``do`` what to do about it."""

    check: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server: ``owners`` are words of ``owned_by`` in the model list, ``fingerprints`` beginnings of
    ``system_fingerprint``, ``headers`` (name, word) pairs of its answers."""

    name: str
    owners: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    quirks: tuple[Quirk, ...] = ()


OPENAI = Server(
    "OpenAI",
    owners=("system", "openai", "openai-internal"),
    headers=(("openai-version", ""), ("openai-organization", "")),
    quirks=(
        Quirk("logprobs", "gives at most 20 log-probabilities, and none for reasoning models", "use verdict json there"),
        Quirk("answer", "reasoning models refuse max_tokens and any temperature but 1", "set max_tokens_field: max_completion_tokens and send_temperature: false"),
        Quirk("seed", "a seed is best effort: equal texts are likely, not certain", "rely on the recording, not on the seed"),
        Quirk("rate limits", "limits requests and tokens a minute", "keep concurrency below what the headers allow; 429 is retried"),
    ),
)  # fmt: skip
VLLM = Server(
    "vLLM",
    owners=("vllm",),
    quirks=(
        Quirk("logprobs", "gives at most --max-logprobs log-probabilities (20; 5 in old releases)", "raise it at the server, or set top_logprobs"),
        Quirk("context", "its limit is --max-model-len, often below the model's own", "raise it at the server if judge prompts do not fit"),
        Quirk("system role", "a chat template without a system role refuses one with a 400", "use prompts without a system message"),
        Quirk("concurrency", "batches what comes: throughput grows far beyond 16 calls at once", "try a higher concurrency with --max-calls"),
    ),
)  # fmt: skip
OLLAMA = Server(
    "Ollama",
    owners=("library",),
    fingerprints=("fp_ollama",),
    quirks=(
        Quirk("logprobs", "gives no log-probabilities before 0.12.11, without an error, and none for cloud models", "update it, or use verdict json"),
        Quirk("context", "cuts a prompt longer than num_ctx (often 2048 or 4096) without a word", "raise OLLAMA_CONTEXT_LENGTH: a cut judge prompt has lost its first answer"),
        Quirk("n", "ignores n", "nothing: judgeloop asks one answer a call"),
        Quirk("concurrency", "works on OLLAMA_NUM_PARALLEL calls at once; others wait", "keep concurrency at what it serves in parallel"),
    ),
)  # fmt: skip
LLAMA_CPP = Server(
    "llama.cpp",
    owners=("llamacpp",),
    fingerprints=("b",),
    headers=(("server", "llama.cpp"),),
    quirks=(
        Quirk("context", "divides its context among its slots (--parallel), and says a slot's part in the error", "raise --ctx-size, or lower --parallel"),
        Quirk("n", "older builds refuse n above 1", "nothing: judgeloop asks one answer a call"),
        Quirk("repeat", "slots and prompt caches may change the last digits between equal calls", "rely on the recording"),
        Quirk("concurrency", "works on --parallel calls at once; others wait", "keep concurrency at its slots"),
    ),
)  # fmt: skip
UNKNOWN = Server("unknown")
SERVERS = (OPENAI, VLLM, OLLAMA, LLAMA_CPP)

# Fields of a model's entry that say how much context it has, the one in force first.
_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")
_TRAINED = ("n_ctx_train",)


def recognise(entries: Iterable[Mapping[str, Any]], headers: Mapping[str, str], fingerprint: str) -> tuple[Server, str]:
    """The kind of server, and what told it; UNKNOWN and nothing where it does not say."""
    owners = {str(entry.get("owned_by", "")).lower() for entry in entries}
    for server in SERVERS:
        for name, word in server.headers:
            if name in headers and word in headers[name].lower():
                return server, f"header {name}"
    for server in SERVERS:
        for owner in server.owners:
            if owner in owners:
                return server, f"owned_by {owner}"
    for server in (OLLAMA, LLAMA_CPP):
        for start in server.fingerprints:
            digits = fingerprint[len(start) : len(start) + 1].isdigit() or len(start) > 1
            if fingerprint.startswith(start) and digits:
                return server, f"fingerprint {fingerprint[:24]}"
    return UNKNOWN, ""


def listed_context(entry: Mapping[str, Any]) -> tuple[int | None, str]:
    """(tokens, the field that says so) of a model's entry in the list; (None, "") where it says nothing. What the model was
    trained for counts only where nothing says what the server gives."""
    meta = entry.get("meta")
    places: list[Mapping[str, Any]] = [entry, meta] if isinstance(meta, Mapping) else [entry]
    for names in (_CONTEXT, _TRAINED):
        for place in places:
            for name in names:
                value = place.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value, name
    return None, ""
