"""The checks of ``judgeloop doctor``: what an endpoint answers to short questions, and what that means for judging.

A check gives a ``Check``, a line of the transcript, and notes in ``EndpointFindings`` what later checks need: a model that
thinks first, for one, is asked with more room. Every check raises CallsSpent where the calls are used up.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Reply, Verdict
from judgeloop.text.templates import Mode, Template
from judgeloop.wire.client import brief
from judgeloop.wire.doctor_connection import SHORT_REPLY, Check, EndpointFindings, HttpResult, Inquiry

TRIED_LOGPROBS = 20
MOST_CONCURRENCY_CALLS = 60
_LONG_REPLY = 2048
_READY = "Reply with the single word: ready"
_MOST_LOGPROBS = re.compile(
    r"(?:less than or equal to|at most|max(?:imum)?(?: allowed)?(?: is| of|:)?|more than|<=|up to)\s*(\d+)", re.I
)
_CONTEXT_LIMIT = re.compile(
    r"(?:maximum context length is|max(?:imum)? (?:model|context) len(?:gth)?(?: is| of|:)?|n_ctx\D{0,4}|context (?:size|window)(?: is| of|:)?)\s*\(?(\d+)",
    re.I,
)
_FILLER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def plain_body(findings: EndpointFindings, text: str, most: int, temperature: float = 0.0) -> dict[str, Any]:
    """A request that asks ``text``, by the settings found so far; ``most`` tokens of reply."""
    body: dict[str, Any] = {
        "model": findings.model,
        "messages": [{"role": "user", "content": text}],
        findings.max_tokens_field: most,
    }
    return {**body, "temperature": temperature} if findings.send_temperature else body


def _short_body(findings: EndpointFindings, text: str, most: int) -> dict[str, Any]:
    """A request for a short reply: ``most`` tokens, or as many as a model needs that thinks first."""
    return plain_body(findings, text, findings.max_tokens if findings.thinks else most)


def _quoted(text: str | None) -> str:
    """The beginning of a reply on one line, in quotes."""
    line = brief(text or "")
    return f"“{line[:60]}{'…' if len(line) > 60 else ''}”" if line else "an empty text"


# Does it answer, and by which settings?


async def answer(inquiry: Inquiry, findings: EndpointFindings) -> Check:
    """Whether the endpoint answers at all, by which settings, and whether it thinks first.

    Raises EndpointFailed where it does not answer.
    """
    refusals = []
    result = await inquiry.complete(plain_body(findings, _READY, 16))
    for _ in range(3):
        if result.status not in (400, 422) or not _adapt(findings, result.message):
            break
        refusals.append(f"refused ({result.message})")
        result = await inquiry.complete(plain_body(findings, _READY, 16))
    _require_answer(inquiry, result)
    if _thought(result) and not (result.reply.text or "").strip():
        result = await inquiry.complete(plain_body(findings, _READY, _LONG_REPLY))
        _require_answer(inquiry, result)
    reply = result.reply
    findings.thinks = _thought(result)
    findings.max_tokens = max(_LONG_REPLY, 4 * reply.completion_tokens) if findings.thinks else SHORT_REPLY
    findings.fingerprint = reply.fingerprint
    sentence = f"{_quoted(reply.text)} in {result.seconds:.2f} s, model {reply.model or 'not named'}"
    settings = [
        *(["wants max_completion_tokens"] if findings.max_tokens_field != "max_tokens" else []),
        *(["refuses temperature"] if not findings.send_temperature else []),
        *([f"thinks before it answers ({reply.completion_tokens} tokens): give it room, and no log-probabilities"] if findings.thinks else []),
        *([] if reply.prompt_tokens else ["counts no tokens (usage): cost cannot be counted"]),
    ]  # fmt: skip
    means = "; ".join(settings) or "answers with the usual settings"
    return Check("answer", "one word, temperature 0", "; ".join([*refusals, sentence]), "ok", means)


def _adapt(findings: EndpointFindings, message: str) -> bool:
    """Change the setting that a refusal names; False where it names none."""
    if "max_completion_tokens" in message and findings.max_tokens_field == "max_tokens":
        findings.max_tokens_field = "max_completion_tokens"
        return True
    if "temperature" in message and findings.send_temperature:
        findings.send_temperature = False
        return True
    return False


def _require_answer(inquiry: Inquiry, result: HttpResult) -> None:
    """Raise EndpointFailed unless the result is a readable completion."""
    if result.ok:
        return
    hint = remedy(result.message) or "see what the server logs"
    if result.refused_for_good:
        denied = result.summary.startswith(("HTTP 401", "HTTP 403"))
        hint = inquiry.mended("", "base_url and model", denied=denied)
    problem = brief(result.summary or result.reply.failure)
    raise EndpointFailed(f"{inquiry.where}: no answer to a plain question ({problem}); {hint}")


def _thought(result: HttpResult) -> bool:
    """Whether the model thought before it answered."""
    usage = result.body.get("usage") if isinstance(result.body, dict) else None
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    reasoning_tokens = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return bool(result.reply.reasoning or reasoning_tokens)


# Which verdict modes does it have? One trial question with the better answer first, and second.


class Trial(Protocol):
    """The question by which a judge of pairs is tried; the better answer is shown first."""

    @property
    def template(self) -> Template: ...

    def body(self, endpoint: Endpoint, mode: Mode) -> dict[str, Any]: ...

    def read(self, reply: Reply, mode: Mode) -> Verdict: ...

    def turned(self) -> Trial:
        """The same question with the better answer second."""
        ...


async def logprobs(inquiry: Inquiry, base: Endpoint, findings: EndpointFindings, trial: Trial) -> Check:
    """How many log-probabilities the endpoint gives, and whether a verdict is among them in both orders."""
    if "logprob" not in trial.template.modes:
        means = f"prompt {trial.template.name} reasons first: it has no verdict in its first token"
        return Check("logprobs", "nothing", "not asked", "unknown", means)
    if findings.thinks:
        return Check("logprobs", "nothing", "not asked", "no", "its first token is a thought and no verdict")
    most, asked = TRIED_LOGPROBS, f"a verdict, top_logprobs {TRIED_LOGPROBS}"
    result = await inquiry.complete(trial.body(_endpoint(base, findings, most), "logprob"))
    if result.status in (400, 422) and "logprob" in result.message.lower():
        stated = _MOST_LOGPROBS.search(result.message)
        most = min(int(stated[1]), TRIED_LOGPROBS) if stated and int(stated[1]) > 1 else 5
        asked += f", then {most} (refused: {result.message})"
        result = await inquiry.complete(trial.body(_endpoint(base, findings, most), "logprob"))
    if not result.ok:
        return Check("logprobs", asked, result.summary, "no", "no log-probabilities: verdicts are hard")
    top = result.reply.top_logprobs
    if not top:
        outcome, means = "an answer without log-probabilities", "asks for them are ignored: verdicts are hard"
        return Check("logprobs", asked, outcome, "no", means)
    findings.logprobs = most
    turned = await inquiry.complete(trial.turned().body(_endpoint(base, findings, most), "logprob"))
    verdicts = trial.read(result.reply, "logprob"), trial.read(turned.reply, "logprob")
    findings.verdicts["logprob"] = verdicts
    likeliest = ", ".join(f"{token!r}" for token, _ in top[:4])
    held = [verdict.mass for verdict in verdicts if verdict.mass is not None]
    mass = f", the offered labels hold {_mass(min(held))} of the probability" if held else ""
    outcome = f"{len(top)} tokens, likeliest {likeliest}{mass}; {_both_orders(verdicts)}"
    if any(verdict.reason == "low_mass" for verdict in verdicts):
        means = "what the letters say of one another is the tail of another answer: take json or text verdicts"
        return Check("logprobs", asked, outcome, "no", means)
    if any(verdict.slot == "unscored" for verdict in verdicts):
        means = "no verdict among the first tokens: this model or prompt does not answer with one letter"
        return Check("logprobs", asked, outcome, "no", means)
    setting = "" if most >= TRIED_LOGPROBS else f"; set top_logprobs: {most}"
    means = f"soft verdicts: P(first) from one token{setting}{_slot_warning(verdicts)}"
    return Check("logprobs", asked, outcome, "ok", means)


async def verdict_mode(inquiry: Inquiry, base: Endpoint, findings: EndpointFindings, trial: Trial, mode: Mode) -> Check:
    """Whether ``mode``, json or text, gives a verdict in both orders."""
    if mode not in trial.template.modes:
        means = f"prompt {trial.template.name} has no {mode} mode"
        return Check(mode, "nothing", "not asked", "unknown", means)
    replies: list[Reply] = []
    for question in (trial, trial.turned()):
        result = await inquiry.complete(question.body(_endpoint(base, findings, TRIED_LOGPROBS), mode))
        if not result.ok:
            return Check(mode, f"a verdict in {mode} mode", result.summary, "no", f"{mode} mode is refused")
        replies.append(result.reply)
    verdicts = tuple(trial.read(reply, mode) for reply in replies)
    findings.verdicts[mode] = verdicts
    asked = f"a verdict in {mode} mode, both orders"
    outcome = f"{_quoted(replies[0].text)}; {_both_orders(verdicts)}"
    if any(verdict.slot == "unscored" for verdict in verdicts):
        return Check(mode, asked, outcome, "no", f"no verdict in {mode} mode: replies would be unscored")
    return Check(mode, asked, outcome, "ok", f"{mode} verdicts can be read{_slot_warning(verdicts)}")


async def schema(inquiry: Inquiry, findings: EndpointFindings) -> Check:
    """Whether a JSON schema is enforced; asked where the prompt itself does not ask for JSON."""
    inner = {"type": "object", "properties": {"verdict": {"type": "string", "enum": ["left", "right"]}}, "required": ["verdict"], "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "side", "strict": True, "schema": inner}}
    body = plain_body(findings, "Say hello.", findings.max_tokens)
    result = await inquiry.complete({**body, "response_format": form})
    asked = "“Say hello.” with a JSON schema"
    findings.enforces_schema = False
    if not result.ok:
        return Check("json schema", asked, result.summary, "no", "response_format is refused: no json mode")
    text = result.reply.text or ""
    findings.enforces_schema = bool(re.fullmatch(r'\s*\{\s*"verdict"\s*:\s*"(left|right)"\s*\}\s*', text))
    if findings.enforces_schema:
        return Check("json schema", asked, _quoted(text), "ok", "the schema is enforced: json verdicts always parse")
    means = "the schema is not enforced: a json verdict parses only where the model keeps to the form"
    return Check("json schema", asked, _quoted(text), "no", means)


async def repeat(inquiry: Inquiry, base: Endpoint, findings: EndpointFindings, trial: Trial) -> Check | None:
    """Whether the same judge call at temperature 0 gives the same verdict; None where no mode gave one."""
    mode = best_mode(findings)
    if mode is None:
        return None
    top = findings.logprobs or TRIED_LOGPROBS
    result = await inquiry.complete(trial.body(_endpoint(base, findings, top), mode))
    before, after = findings.verdicts[mode][0], trial.read(result.reply, mode)
    shift = abs((before.p_first or 0.0) - (after.p_first or 0.0))
    asked = f"the {mode} verdict again" + (", temperature 0" if findings.send_temperature else "")
    if before == after or (before.slot == after.slot and shift < 1e-3):
        return Check("repeat", asked, "the same verdict", "ok", "the judge repeats itself")
    if before.slot == after.slot:
        outcome = f"the same pick, P(first) moved by {shift:.2g}"
        return Check("repeat", asked, outcome, "no", "equal calls differ a little: keep the recording")
    means = "equal calls differ: judge more than once (repeats), and keep the recording"
    return Check("repeat", asked, "another verdict", "no", means)


def best_mode(findings: EndpointFindings) -> Mode | None:
    """The most informative mode that gave a verdict in both orders: logprob, json where the schema holds, text, json."""
    readable = [
        mode for mode, verdicts in findings.verdicts.items() if all(verdict.slot != "unscored" for verdict in verdicts)
    ]
    order: list[Mode] = ["logprob", "json", "text"] if findings.enforces_schema else ["logprob", "text", "json"]
    return next((mode for mode in order if mode in readable), None)


def _endpoint(base: Endpoint, findings: EndpointFindings, top: int) -> Endpoint:
    """The endpoint with the settings found so far, for ``top`` log-probabilities."""
    return findings.endpoint(base).model_copy(update={"top_logprobs": top, "model": findings.model})


def _mass(share: float) -> str:
    """ "93 %", "1e-8"."""
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{share:.0e}"


def _both_orders(verdicts: Sequence[Verdict]) -> str:
    """The verdicts on the better answer shown first, then second."""
    phrases = []
    for verdict in verdicts:
        detail = f" (P {verdict.p_first:.2f})" if verdict.p_first is not None else ""
        phrases.append(f"{verdict.slot} ({verdict.reason})" if verdict.slot == "unscored" else verdict.slot + detail)
    return f"picks {phrases[0]}, turned round {phrases[-1]}"


def _slot_warning(verdicts: Sequence[Verdict]) -> str:
    """A warning where the picks are one slot, or not the right answer; empty where they are right."""
    slots = [verdict.slot for verdict in verdicts]
    if slots[0] == slots[1] != "tie":
        return f"; it picked the {slots[0]} slot both times: look at position bias in an audit"
    return "" if slots == ["first", "second"] else "; it did not pick the right answer: look at quality in an audit"


# How does it treat seeds, several choices, system messages and long prompts, and which limits does it state?


async def seed(inquiry: Inquiry, findings: EndpointFindings) -> Check:
    """Whether a seed decides a draft: two draws by one seed, and one by another."""
    if findings.thinks:
        means = "a resumed run uses the recording, not the seed"
        return Check("seed", "nothing", "not asked: three long calls", "unknown", means)
    asked = "one draft at temperature 1: seed 11 twice, seed 12"
    question = "Invent a village: its name, its river and its mayor, in one sentence."
    drafts: list[str | None] = []
    for number in (11, 11, 12):
        result = await inquiry.complete({**plain_body(findings, question, 32, temperature=1.0), "seed": number})
        if not result.ok:
            means = "seed is refused: set seed_field: random_seed, or none"
            return Check("seed", asked, result.summary, "no", means)
        drafts.append(result.reply.text)
    draft, repeated, other = drafts
    if draft != repeated:
        means = "drafts cannot be made again from their seeds: keep the recording"
        return Check("seed", asked, "one seed gave two texts", "no", means)
    if draft == other:
        means = "texts do not vary at all: temperature, or the cache of a proxy"
        return Check("seed", asked, f"three times {_quoted(draft)}", "unknown", means)
    return Check("seed", asked, "one seed, one text; another seed, another", "ok", "drafts are reproducible")


async def choices(inquiry: Inquiry, findings: EndpointFindings) -> Check:
    """Whether the endpoint gives two choices in one call (``n`` 2)."""
    result = await inquiry.complete({**_short_body(findings, "Reply with one word.", 16), "n": 2})
    count = len(result.body.get("choices") or []) if result.ok and isinstance(result.body, dict) else 0
    outcome = f"{count} choice{'s' if count > 1 else ''}" if count else result.summary
    means = "judgeloop asks one answer a call and does not need it"
    return Check("n", "two choices in one call", outcome, "ok" if count == 2 else "no", means)


async def system_role(inquiry: Inquiry, findings: EndpointFindings) -> Check:
    """Whether a system message is accepted, and followed."""
    body = _short_body(findings, "Which fruit?", 16)
    system = {"role": "system", "content": "Whatever is asked, reply with the single word BANANA."}
    result = await inquiry.complete({**body, "messages": [system, *body["messages"]]})
    asked = "a system message that asks for one word"
    if not result.ok:
        means = "prompts and items with a system message fail here; the shipped prompts have none"
        return Check("system role", asked, result.summary, "no", means)
    text = result.reply.text
    if "banana" in (text or "").lower():
        return Check("system role", asked, _quoted(text), "ok", "system messages are read")
    means = "accepted, and not followed here: the model may not heed it"
    return Check("system role", asked, _quoted(text), "unknown", means)


async def context(inquiry: Inquiry, findings: EndpointFindings, listed: tuple[int | None, str], tokens: int) -> Check:
    """Whether a prompt of about ``tokens`` tokens is read whole, refused, or cut without an error.

    ``listed``: the context that the list of models states, and the field that states it (``listed_context``).
    """
    limit, field = listed
    filler = " ".join(_FILLER_WORDS[place % len(_FILLER_WORDS)] for place in range(tokens))
    result = await inquiry.complete(_short_body(findings, f"{filler}\n\n{_READY}", 4))
    asked = f"a prompt of about {tokens:,} tokens"
    prefix = f"the list says {limit:,} ({field}); " if limit else ""
    read = result.reply.prompt_tokens
    if result.ok and 0 < read < 0.8 * tokens:
        findings.context = read
        outcome = f"{prefix}answered, having read {read:,} tokens"
        means = "longer prompts are cut without a word: judges would miss an answer; raise the server's context"
        return Check("context", asked, outcome, "no", means)
    if result.ok:
        findings.context = limit
        if read:
            outcome, means = f"{prefix}read whole ({read:,} tokens)", f"prompts of {tokens:,} tokens fit"
            return Check("context", asked, outcome, "ok", means)
        outcome, means = f"{prefix}answered, tokens not counted", "whether it was read whole is not known"
        return Check("context", asked, outcome, "unknown", means)
    outcome = f"{prefix}{result.summary}"
    if result.reply.failure != "context_length":
        return Check("context", asked, outcome, "unknown", "the limit is not known")
    findings.context = stated = _stated_context(result) or limit
    means = f"prompts may have {stated:,} tokens" if stated else f"prompts of {tokens:,} tokens are too long"
    return Check("context", asked, outcome, "no", f"{means}; longer ones are refused (unscored: context_length)")


def _stated_context(result: HttpResult) -> int | None:
    """The tokens of context that a refusal states; None where it states none."""
    error = result.body.get("error") if isinstance(result.body, dict) else None
    tokens = error.get("n_ctx") if isinstance(error, dict) else None
    if isinstance(tokens, int) and not isinstance(tokens, bool):
        return tokens
    stated = _CONTEXT_LIMIT.search(result.message)
    return int(stated[1]) if stated else None


def rate_limits(headers: Mapping[str, str]) -> Check:
    """The rate limits that the headers of all answers state."""
    asked = "headers of all answers"
    limits = {name: value for name, value in headers.items() if "ratelimit" in name or name.startswith("retry-after")}
    if not limits:
        means = "no limit is stated; if calls fail with 429 they are retried"
        return Check("rate limits", asked, "none", "unknown", means)
    stated = ", ".join(f"{name} {brief(value)[:40]}" for name, value in sorted(limits.items()))
    requests = [value for name, value in limits.items() if re.search(r"limit-requests$|ratelimit-limit$", name)]
    means = f"{requests[0]} requests a window" if requests and requests[0] else "limits are stated"
    return Check("rate limits", asked, stated, "ok", f"{means}; calls beyond are answered 429 and retried")


# How many calls at once does it work on? Levels that double, until throughput stops rising or latency doubles.

_RISE = 1.15
"""Throughput that grows by less from a level to the next has stopped rising."""
_LATENCY_RISE = 2.0
_FEWEST_CALLS = 3


@dataclass(frozen=True, slots=True)
class Level:
    """One number of calls in flight: calls asked and failed, answers a second, seconds of the 95th percentile."""

    at_once: int
    calls: int
    failed: int
    per_second: float
    p95: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The levels that were tried, the one to use, and why the search stopped."""

    levels: tuple[Level, ...]
    best: Level
    why: str


async def find_knee(
    inquiry: Inquiry, body: Callable[[int], Mapping[str, Any]], most: int = MOST_CONCURRENCY_CALLS
) -> Knee | None:
    """The concurrency beyond which throughput stops rising: levels 1, 2, 4 …, each with a call or two a place in flight.

    ``body(k)`` gives bodies that all differ. At most ``most`` calls, and what the inquiry has left. None where even single
    calls fail.
    """
    levels: list[Level] = []
    spent, at_once, why = 0, 1, ""
    while not why:
        calls = max(_FEWEST_CALLS, 2 * at_once if at_once <= 8 else at_once)
        if calls > min(most - spent, inquiry.left()):
            why = "the calls for this check are used up; more at once may be possible"
            break
        level = await _measure_level(inquiry, [body(spent + k) for k in range(calls)], at_once)
        spent += calls
        if level.failed:
            why = f"{level.failed} of {calls} calls failed at {at_once} in flight"
        elif levels and level.per_second < _RISE * levels[-1].per_second:
            why = f"throughput stops rising at {at_once} in flight"
        elif levels and level.p95 > _LATENCY_RISE * levels[0].p95:
            why = f"latency doubles at {at_once} in flight"
        levels.append(level)
        at_once *= 2
    sound = [level for level in levels if not level.failed]
    if not sound:
        return None
    best = sound[0]
    for level in sound[1:]:
        if level.per_second >= _RISE * best.per_second:
            best = level
    return Knee(tuple(levels), best, why)


def concurrency(knee: Knee | None) -> Check:
    """The search for the knee as a line of the transcript."""
    asked = "judge calls, 1, 2, 4 … at once"
    if knee is None:
        outcome = "too few calls left, or single calls fail"
        return Check("concurrency", asked, outcome, "unknown", "start with a low concurrency")
    outcome = "; ".join(
        f"{level.at_once}: {level.per_second:.3g}/s, p95 {level.p95:.2g} s"
        + (f", {level.failed} failed" if level.failed else "")
        for level in knee.levels
    )
    means = f"{knee.why}: concurrency {knee.best.at_once} gives {knee.best.per_second:.3g} calls a second"
    return Check("concurrency", asked, outcome, "ok", means)


async def _measure_level(inquiry: Inquiry, bodies: Sequence[Mapping[str, Any]], at_once: int) -> Level:
    queue = list(bodies)[::-1]
    results: list[HttpResult] = []

    async def work() -> None:
        while queue:
            results.append(await inquiry.complete(queue.pop(), patient=False))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    duration_s = time.perf_counter() - began
    latencies = sorted(result.seconds for result in results)
    failed = sum(not result.ok for result in results)
    p95 = latencies[min(len(latencies) - 1, math.ceil(0.95 * len(latencies)) - 1)]
    answered = len(results) - failed
    return Level(at_once, len(results), failed, answered / max(duration_s, 1e-9), p95)
