"""The connection of ``judgeloop doctor`` to an endpoint: every answer whole, none hidden by retries; what it found out, and kinds of servers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any, Literal

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Reply, Verdict
from judgeloop.text.templates import Mode
from judgeloop.wire.client import Connection, brief, decoded
from judgeloop.wire.reply import Refusal, TransientFault, parse, read, root_path

_LONGEST_WAIT_S = 10.0
_LONGEST_VERSION = 40
SHORT_REPLY = 64
"""Most tokens of a reply by a model that does not think first."""


@dataclass(frozen=True, slots=True)
class HttpResult:
    """The answer to one request. ``status`` 0: no whole answer (``fault`` says why). ``body``: its JSON, or None."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str
    seconds: float
    fault: str = ""

    @property
    def ok(self) -> bool:
        """Whether it is a 200 with a readable completion."""
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
    def refused_for_good(self) -> bool:
        """Whether a run would end here: the key, the account, the address or the model is refused."""
        try:
            parse(self.status, self.text)
        except Refusal:
            return True
        except TransientFault:
            pass
        return False

    @property
    def message(self) -> str:
        """The message of an error body, on one line; the fault where no answer came."""
        body = self.body[0] if isinstance(self.body, list) and self.body else self.body
        error = body.get("error", body) if isinstance(body, dict) else self.text
        message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        return self.fault or brief(str(message or f"HTTP {self.status}"))

    @property
    def summary(self) -> str:
        """Status and message of an error, in a few words."""
        return self.fault if not self.status else f"HTTP {self.status}: {self.message}"


class CallsSpent(Exception):
    """The stated number of calls is used up."""


State = Literal["ok", "no", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of doctor's transcript: the request, the answer, what it means. ``calls``: completions it took."""

    name: str
    asked: str
    came: str
    state: State
    means: str
    calls: int = 0


@dataclass
class EndpointFindings:
    """What the checks have found out about an endpoint; None or empty where it is not known.

    ``max_tokens``: most tokens of a reply, as its model needs them. ``logprobs``: the most ``top_logprobs`` that it gives.
    ``verdicts``: by mode, with the better answer shown first, and second. ``context``: tokens.
    """

    model: str = ""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_temperature: bool = True
    thinks: bool = False
    max_tokens: int = SHORT_REPLY
    logprobs: int | None = None
    enforces_schema: bool | None = None
    verdicts: dict[Mode, tuple[Verdict, ...]] = field(default_factory=dict)
    context: int | None = None
    fingerprint: str = ""
    checks: list[Check] = field(default_factory=list)

    def endpoint(self, base: Endpoint) -> Endpoint:
        """The endpoint with the settings that the checks found."""
        return base.model_copy(
            update={
                "max_tokens_field": self.max_tokens_field, "send_temperature": self.send_temperature,
                "max_tokens": self.max_tokens, "top_logprobs": self.logprobs or base.top_logprobs,
            }
        )  # fmt: skip


class Inquiry(Connection):
    """A connection that shows status, headers, body and seconds of every answer, and counts its completions."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str], most: int) -> None:
        """``most``: completions that may be asked; one more raises CallsSpent."""
        super().__init__("doctor", endpoint, environment)
        self.most, self.calls = most, 0
        self.seen_headers: dict[str, str] = {}
        self.host = self._address.hostname or ""

    async def models(self) -> HttpResult:
        """The list of models. Raises EndpointFailed where no server answers at all."""
        await self.check_alive()
        return await self._request("GET", "/models", None)

    async def version(self, server: Server) -> str:
        """The version that the server states by a header or at an address of its own beside the API; empty where it states none."""
        if stated := self.seen_headers.get(server.version_header, ""):
            return brief(stated)[:_LONGEST_VERSION]
        root = root_path(self._address.path)
        for path, key in server.version_pages:
            # A server that sends another way has no such page: that ends no examination.
            with suppress(EndpointFailed):
                page = await self._request("GET", self._address._replace(path=root + path).geturl(), None)
                version = page.body.get(key) if page.status == 200 and isinstance(page.body, dict) else None
                if isinstance(version, str) and version:
                    return brief(version)[:_LONGEST_VERSION]
        return ""

    async def complete(self, body: Mapping[str, Any], *, patient: bool = True) -> HttpResult:
        """One chat completion; asked once more after a 429, a 5xx or no answer if ``patient``. Raises CallsSpent."""
        self._count()
        result = await self._request("POST", "/chat/completions", body)
        is_passing = result.status in (0, 408, 429) or result.status >= 500
        if not patient or not is_passing or result.reply.failure == "context_length":
            return result
        await asyncio.sleep(min(_wait_s(result.headers.get("retry-after", "")), _LONGEST_WAIT_S))
        self._count()
        return await self._request("POST", "/chat/completions", body)

    async def counted(self, checking: Awaitable[Check | None]) -> Check | None:
        """The check with the completions that it took; None where it had nothing to ask."""
        before = self.calls
        check = await checking
        return None if check is None else replace(check, calls=self.calls - before)

    def left(self) -> int:
        """Completions that may still be asked."""
        return self.most - self.calls

    def _count(self) -> None:
        if self.calls >= self.most:
            raise CallsSpent
        self.calls += 1

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> HttpResult:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                answer = await self._line.send(method, path, body)
        except (TimeoutError, TransientFault) as error:
            fault = f"the connection broke ({brief(self.scrub(str(error)))})"
            if isinstance(error, TimeoutError) or error.fault == "timeout":
                fault = f"no answer in {self.endpoint.timeout_s:g} s"
            return HttpResult(0, {}, None, "", time.perf_counter() - began, fault)
        seconds = time.perf_counter() - began
        if 300 <= answer.status < 400:
            target = self.scrub(answer.headers.get("location", "another address"))
            raise EndpointFailed(f"{self.where}: redirects to {target}; give that as --base-url")
        headers = {name.lower(): self.scrub(value) for name, value in answer.headers.items()}
        self.seen_headers |= headers
        text = self.scrub(decoded(answer.content))
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        return HttpResult(answer.status, headers, content, text, seconds)


def _wait_s(retry_after: str) -> float:
    """Seconds to wait by a header of seconds; 1 where it is none."""
    try:
        return max(0.2, float(retry_after))
    except ValueError:
        return 1.0


# Kinds of OpenAI-compatible servers, for ``judgeloop doctor``: how each is recognised, and what is odd about it.


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity of a kind of server: ``check`` names the check that shows it, ``do`` says what to do about it."""

    check: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server, and what it is recognised by.

    ``hosts``: patterns of the host's name. ``headers``: (name, word) pairs of its answers. ``fields`` of a model's entry in the
    list of models. ``owners``: words of ``owned_by`` there, which every entry has. ``fingerprints``: beginnings of
    ``system_fingerprint``. ``version_header`` holds its version; ``version_pages``: (path below the server's root, key) of JSON
    that does. ``quirks``: its oddities.
    """

    name: str
    hosts: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    version_header: str = ""
    version_pages: tuple[tuple[str, str], ...] = ()
    quirks: tuple[Quirk, ...] = ()


OPENAI = Server(
    "OpenAI",
    hosts=("api.openai.com",),
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
    version_pages=(("/version", "version"),),
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
    version_pages=(("/api/version", "version"),),
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
    version_pages=(("/props", "build_info"),),
    quirks=(
        Quirk("context", "divides its context among its slots (--parallel), and says a slot's part in the error", "raise --ctx-size, or lower --parallel"),
        Quirk("n", "older builds refuse n above 1", "nothing: judgeloop asks one answer a call"),
        Quirk("repeat", "slots and prompt caches may change the last digits between equal calls", "rely on the recording"),
        Quirk("concurrency", "works on --parallel calls at once; others wait", "keep concurrency at its slots"),
    ),
)  # fmt: skip
AZURE = Server(
    "Azure OpenAI",
    hosts=("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com"),
    headers=(("apim-request-id", ""),),
    quirks=(
        Quirk("models", "lists no models below the address of a deployment", "give the deployment's name with --model"),
        Quirk("answer", "stops a prompt by its content filter with a 400 (content_filter), and a reply by its finish_reason", "nothing: such a judgment is unscored (refusal)"),
    ),
)  # fmt: skip
ANTHROPIC = Server(
    "Anthropic",
    hosts=("api.anthropic.com",),
    headers=(("request-id", "req_"),),
    quirks=(
        Quirk("logprobs", "ignores logprobs, without an error", "use verdict text"),
        Quirk("json schema", "ignores response_format, without an error", "use verdict text: a JSON verdict is only a wish"),
        Quirk("seed", "ignores a seed", "rely on the recording"),
        Quirk("n", "takes n of exactly 1", "nothing: judgeloop asks one answer a call"),
    ),
)  # fmt: skip
GEMINI = Server(
    "Gemini",
    hosts=("generativelanguage.googleapis.com",),
    owners=("google",),
    quirks=(
        Quirk("logprobs", "refuses log-probabilities for many models (Logprobs is not enabled)", "use verdict json"),
        Quirk("answer", "its models think first by default, and the thoughts count against max_tokens", "set max_tokens: 4096, or less thinking by extra_body: {reasoning_effort: low}"),
    ),
)  # fmt: skip
BEDROCK = Server(
    "Amazon Bedrock",
    hosts=("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
    quirks=(
        Quirk("answer", "gpt-oss models write their reasoning in front of the text, as <reasoning>…</reasoning>", "set max_tokens: 4096; judgeloop sets the reasoning aside"),
    ),
)  # fmt: skip
MISTRAL = Server(
    "Mistral",
    hosts=("api.mistral.ai",),
    owners=("mistralai",),
    quirks=(
        Quirk("logprobs", "refuses fields that it does not know with a 422, logprobs among them", "use verdict json"),
        Quirk("seed", "calls a seed random_seed, and refuses seed", "set seed_field: random_seed"),
    ),
)  # fmt: skip
OPENROUTER = Server(
    "OpenRouter",
    hosts=("openrouter.ai",),
    fields=("canonical_slug",),
    quirks=(
        Quirk("logprobs", "passes a call on to hosts of which some ignore logprobs or response_format", "state a verdict mode, with extra_body: {provider: {require_parameters: true}}"),
        Quirk("repeat", "may answer equal calls from different hosts", "name one by extra_body: {provider: {order: [NAME], allow_fallbacks: false}}"),
    ),
)  # fmt: skip
LITELLM = Server(
    "LiteLLM",
    headers=(("x-litellm-version", ""), ("x-litellm-call-id", "")),
    version_header="x-litellm-version",
    quirks=(
        Quirk("logprobs", "refuses fields that the model behind it does not take, or drops them where drop_params is set", "use verdict json or text for such models"),
    ),
)  # fmt: skip
SGLANG = Server(
    "SGLang",
    owners=("sglang",),
    version_pages=(("/server_info", "version"), ("/get_server_info", "version")),
    quirks=(
        Quirk("context", "its limit is --context-length, the model's own where it is not set", "raise it at the server if judge prompts do not fit"),
        Quirk("concurrency", "batches what comes: throughput grows far beyond 16 calls at once", "try a higher concurrency with --max-calls"),
    ),
)  # fmt: skip
UNKNOWN = Server("unknown")
# Gateways and what speaks with OpenAI's headers come before OpenAI.
SERVERS = (LITELLM, ANTHROPIC, AZURE, GEMINI, BEDROCK, MISTRAL, OPENROUTER, OPENAI, VLLM, SGLANG, OLLAMA, LLAMA_CPP)

# Fields of a model's entry that say how much context it has, the one in force first.
_SERVED_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")
_TRAINED_CONTEXT = ("n_ctx_train",)


def recognise(
    host: str, entries: Iterable[Mapping[str, Any]], headers: Mapping[str, str], fingerprint: str
) -> tuple[Server, str]:
    """(kind of server, what shows it: a guess all the same); (UNKNOWN, "") where nothing does.

    ``host``: its name in the address; ``entries`` of the list of models; ``headers`` of all answers, by names in lower case;
    ``fingerprint`` of a completion.
    """
    entries = list(entries)
    owners = {str(entry.get("owned_by", "")).lower() for entry in entries}
    for server in SERVERS:
        if any(fnmatchcase(host.lower(), pattern) for pattern in server.hosts):
            return server, f"host {host}"
    for server in SERVERS:
        for name, word in server.headers:
            if name in headers and word in headers[name].lower():
                return server, f"header {name}"
    for server in SERVERS:
        for field_name in server.fields:
            if any(field_name in entry for entry in entries):
                return server, f"{field_name} in the list of models"
        # A gateway lists models of many owners.
        if owners and owners <= set(server.owners):
            return server, f"owned_by {min(owners)}"
    for server in (OLLAMA, LLAMA_CPP):
        for start in server.fingerprints:
            # A single letter is the beginning of a build number: a digit has to follow it.
            is_specific = fingerprint[len(start) : len(start) + 1].isdigit() or len(start) > 1
            if fingerprint.startswith(start) and is_specific:
                return server, f"fingerprint {fingerprint[:24]}"
    return UNKNOWN, ""


def listed_context(entry: Mapping[str, Any]) -> tuple[int | None, str]:
    """(tokens of context, the field that states them) of a model's entry in the list; (None, "") where none does.

    The context that the model was trained with counts only where the served one is not stated.
    """
    meta = entry.get("meta")
    mappings: list[Mapping[str, Any]] = [entry, meta] if isinstance(meta, Mapping) else [entry]
    for fields in (_SERVED_CONTEXT, _TRAINED_CONTEXT):
        for mapping in mappings:
            for name in fields:
                value = mapping.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value, name
    return None, ""
