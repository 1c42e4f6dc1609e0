"""Kinds of OpenAI-compatible servers, for ``judgeloop doctor``: how each is recognised, and what is odd about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity of a kind of server: ``check`` names the check that shows it, ``do`` says what to do about it."""

    check: str
    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Server:
    """A kind of server, and what it is recognised by.

    ``owners``: words of ``owned_by`` in the list of models. ``fingerprints``: beginnings of ``system_fingerprint``.
    ``headers``: (name, word) pairs of its answers. ``quirks``: its oddities.
    """

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
_SERVED_CONTEXT = ("max_model_len", "context_length", "context_window", "max_context_length", "n_ctx")
_TRAINED_CONTEXT = ("n_ctx_train",)


def recognise(entries: Iterable[Mapping[str, Any]], headers: Mapping[str, str], fingerprint: str) -> tuple[Server, str]:
    """(kind of server, the field or header that shows it); (UNKNOWN, "") where nothing does.

    ``entries`` of the list of models; ``headers`` of all answers, by names in lower case; ``fingerprint`` of a completion.
    """
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
            for field in fields:
                value = mapping.get(field)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value, field
    return None, ""
