"""Which verdict modes an endpoint can do: the trial question in both orders, a schema where nothing else asks for JSON, and
the same call again."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Verdict
from judgeloop.text.templates import Mode
from judgeloop.wire.client import brief
from judgeloop.wire.inquiry import Check, EndpointFindings, HttpResult, Inquiry, State, Trial, note, plain, quoted

TRIED_LOGPROBS = 20
_MOST = re.compile(
    r"(?:less than or equal to|at most|max(?:imum)?(?: allowed)?(?: is| of|:)?|more than|<=|up to)\s*(\d+)", re.I
)


async def logprobs(inquiry: Inquiry, base: Endpoint, found: EndpointFindings, trial: Trial) -> None:
    """How many log-probabilities, and is a verdict among them, in both orders?"""
    calls = inquiry.calls
    if "logprob" not in trial.template.modes:
        return note(
            found,
            inquiry,
            calls,
            "logprobs",
            "nothing",
            "not asked",
            "unknown",
            f"prompt {trial.template.name} reasons first: it has no verdict in its first token",
        )
    if found.thinks:
        return note(
            found,
            inquiry,
            calls,
            "logprobs",
            "nothing",
            "not asked",
            "no",
            "its first token is a thought and no verdict",
        )
    most, asked = TRIED_LOGPROBS, f"a verdict, top_logprobs {TRIED_LOGPROBS}"
    came = await inquiry.complete(trial.body(_endpoint(base, found, most), "logprob"))
    if came.status in (400, 422) and "logprob" in came.message.lower():
        named = _MOST.search(came.message)
        most = min(int(named[1]), TRIED_LOGPROBS) if named and int(named[1]) > 1 else 5
        asked += f", then {most} (refused: {came.message})"
        came = await inquiry.complete(trial.body(_endpoint(base, found, most), "logprob"))
    if not came.ok:
        return note(
            found, inquiry, calls, "logprobs", asked, came.said, "no", "no log-probabilities: verdicts are hard"
        )
    top = came.reply.top_logprobs
    if not top:
        return note(
            found,
            inquiry,
            calls,
            "logprobs",
            asked,
            "an answer without log-probabilities",
            "no",
            "asks for them are ignored: verdicts are hard",
        )
    found.logprobs = most
    other = await inquiry.complete(trial.turned().body(_endpoint(base, found, most), "logprob"))
    verdicts = tuple(trial.read(one.reply, "logprob") for one in (came, other))
    found.verdicts["logprob"] = verdicts
    shown = ", ".join(f"{token!r}" for token, _ in top[:4])
    came_back = f"{len(top)} tokens, likeliest {shown}; {_both(verdicts)}"
    if any(verdict.slot == "unscored" for verdict in verdicts):
        return note(
            found,
            inquiry,
            calls,
            "logprobs",
            asked,
            came_back,
            "no",
            "no verdict among the first tokens: this model or prompt does not answer with one letter",
        )
    means = "soft verdicts: P(first) from one token" + (
        "" if found.logprobs >= TRIED_LOGPROBS else f"; set top_logprobs: {found.logprobs}"
    )
    return note(found, inquiry, calls, "logprobs", asked, came_back, "ok", means + _locked(verdicts))


async def verdict_mode(inquiry: Inquiry, base: Endpoint, found: EndpointFindings, trial: Trial, mode: Mode) -> None:
    """Does json or text mode give a verdict, in both orders?"""
    calls, came = inquiry.calls, []
    if mode not in trial.template.modes:
        return note(
            found,
            inquiry,
            calls,
            mode,
            "nothing",
            "not asked",
            "unknown",
            f"prompt {trial.template.name} has no {mode} mode",
        )
    for question in (trial, trial.turned()):
        came.append(await inquiry.complete(question.body(_endpoint(base, found, TRIED_LOGPROBS), mode)))
        if not came[-1].ok:
            return note(
                found, inquiry, calls, mode, f"a verdict in {mode} mode", came[-1].said, "no", f"{mode} mode is refused"
            )
    verdicts = tuple(trial.read(one.reply, mode) for one in came)
    found.verdicts[mode] = verdicts
    scored = all(verdict.slot != "unscored" for verdict in verdicts)
    means = (
        f"{mode} verdicts can be read" + _locked(verdicts)
        if scored
        else f"no verdict in {mode} mode: replies would be unscored"
    )
    return note(
        found, inquiry, calls, mode, f"a verdict in {mode} mode, both orders", f"{quoted(came[0].reply.text)}; {_both(verdicts)}",
        "ok" if scored else "no", means,
    )  # fmt: skip


async def schema(inquiry: Inquiry, found: EndpointFindings) -> None:
    """Is a JSON schema enforced, or only a wish? Asked where the prompt itself does not ask for JSON."""
    calls = inquiry.calls
    inner = {"type": "object", "properties": {"verdict": {"type": "string", "enum": ["left", "right"]}}, "required": ["verdict"], "additionalProperties": False}  # fmt: skip
    form = {"type": "json_schema", "json_schema": {"name": "side", "strict": True, "schema": inner}}
    came = await inquiry.complete({**plain(found, "Say hello.", found.max_tokens), "response_format": form})
    asked = "“Say hello.” with a JSON schema"
    if not came.ok:
        found.enforces_schema = False
        return note(
            found, inquiry, calls, "json schema", asked, came.said, "no", "response_format is refused: no json mode"
        )
    found.enforces_schema = bool(re.fullmatch(r'\s*\{\s*"verdict"\s*:\s*"(left|right)"\s*\}\s*', came.reply.text or ""))
    means = (
        "the schema is enforced: json verdicts always parse"
        if found.enforces_schema
        else "the schema is not enforced: json verdicts depend on the model's goodwill"
    )
    return note(
        found,
        inquiry,
        calls,
        "json schema",
        asked,
        quoted(came.reply.text),
        "ok" if found.enforces_schema else "no",
        means,
    )


async def repeat(inquiry: Inquiry, base: Endpoint, found: EndpointFindings, trial: Trial) -> None:
    """The same judge call again at temperature 0: the same verdict?"""
    calls = inquiry.calls
    mode = best_mode(found)
    if mode is None:
        return None
    came = await inquiry.complete(trial.body(_endpoint(base, found, found.logprobs or TRIED_LOGPROBS), mode))
    before, after = found.verdicts[mode][0], trial.read(came.reply, mode)
    shift = abs((before.p_first or 0.0) - (after.p_first or 0.0))
    state: State = "ok" if before == after or (before.slot == after.slot and shift < 1e-3) else "no"
    if state == "ok":
        came_back, means = "the same verdict", "the judge repeats itself"
    elif before.slot == after.slot:
        came_back, means = (
            f"the same pick, P(first) moved by {shift:.2g}",
            "equal calls differ a little: keep the recording",
        )
    else:
        came_back, means = (
            "another verdict",
            "equal calls differ: judge more than once (repeats), and keep the recording",
        )
    return note(
        found,
        inquiry,
        calls,
        "repeat",
        f"the {mode} verdict again" + (", temperature 0" if found.send_temperature else ""),
        came_back,
        state,
        means,
    )


def best_mode(found: EndpointFindings) -> Mode | None:
    """The most informative mode that gave a verdict in both orders: logprob, json where the schema holds, text, json."""
    works = [mode for mode, verdicts in found.verdicts.items() if all(one.slot != "unscored" for one in verdicts)]
    order: list[Mode] = ["logprob", "json", "text"] if found.enforces_schema else ["logprob", "text", "json"]
    return next((mode for mode in order if mode in works), None)


def _endpoint(base: Endpoint, found: EndpointFindings, top: int) -> Endpoint:
    return found.endpoint(base).model_copy(update={"top_logprobs": top, "model": found.model})


def _both(verdicts: tuple[Verdict, ...]) -> str:
    """The verdicts on the better answer shown first, then second."""
    words = [
        f"{one.slot} ({one.reason})" if one.slot == "unscored" else one.slot + (f" (P {one.p_first:.2f})" if one.p_first is not None else "")
        for one in verdicts
    ]  # fmt: skip
    return f"picks {words[0]}, turned round {words[-1]}"


def _locked(verdicts: tuple[Verdict, ...]) -> str:
    slots = [one.slot for one in verdicts]
    if slots[0] == slots[1] != "tie":
        return f"; it picked the {slots[0]} slot both times: look at position bias in an audit"
    return "" if slots == ["first", "second"] else "; it did not pick the right answer: look at quality in an audit"


# How an endpoint treats seeds, several choices, system messages and long prompts, and what limits it states.

_LIMIT = re.compile(
    r"(?:maximum context length is|max(?:imum)? (?:model|context) len(?:gth)?(?: is| of|:)?|n_ctx\D{0,4}|context (?:size|window)(?: is| of|:)?)\s*\(?(\d+)",
    re.I,
)
_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


async def seed(inquiry: Inquiry, found: EndpointFindings) -> None:
    """Two draws by one seed, and one by another."""
    calls, asked = inquiry.calls, "one draft at temperature 1: seed 11 twice, seed 12"
    if found.thinks:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            "nothing",
            "not asked: three long calls",
            "unknown",
            "a resumed run uses the recording, not the seed",
        )
    drawn = []
    for number in (11, 11, 12):
        body = plain(
            found, "Invent a village: its name, its river and its mayor, in one sentence.", 32, temperature=1.0
        )
        came = await inquiry.complete({**body, "seed": number})
        if not came.ok:
            return note(
                found,
                inquiry,
                calls,
                "seed",
                asked,
                came.said,
                "no",
                "seed is refused; judgeloop sends one with every draft",
            )
        drawn.append(came.reply.text)
    same, differs = drawn[0] == drawn[1], drawn[0] != drawn[2]
    if not same:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            asked,
            "one seed gave two texts",
            "no",
            "drafts cannot be made again from their seeds: keep the recording",
        )
    if not differs:
        return note(
            found,
            inquiry,
            calls,
            "seed",
            asked,
            f"three times {quoted(drawn[0])}",
            "unknown",
            "texts do not vary at all: temperature, or the cache of a proxy",
        )
    return note(
        found,
        inquiry,
        calls,
        "seed",
        asked,
        "one seed, one text; another seed, another",
        "ok",
        "drafts are reproducible",
    )


async def choices(inquiry: Inquiry, found: EndpointFindings) -> None:
    """n = 2."""
    calls = inquiry.calls
    came = await inquiry.complete(
        {**plain(found, "Reply with one word.", 16 if not found.thinks else found.max_tokens), "n": 2}
    )
    got = len(came.body.get("choices") or []) if came.ok and isinstance(came.body, dict) else 0
    came_back = came.said if not got else f"{got} choice{'s' if got > 1 else ''}"
    means = "judgeloop asks one answer a call and does not need it"
    note(found, inquiry, calls, "n", "two choices in one call", came_back, "ok" if got == 2 else "no", means)


async def system_role(inquiry: Inquiry, found: EndpointFindings) -> None:
    """Is a system message accepted, and followed?"""
    calls = inquiry.calls
    body = plain(found, "Which fruit?", 16 if not found.thinks else found.max_tokens)
    told = {"role": "system", "content": "Whatever is asked, reply with the single word BANANA."}
    came = await inquiry.complete({**body, "messages": [told, *body["messages"]]})
    asked = "a system message that asks for one word"
    if not came.ok:
        return note(
            found,
            inquiry,
            calls,
            "system role",
            asked,
            came.said,
            "no",
            "prompts and items with a system message fail here; the shipped prompts have none",
        )
    followed = "banana" in (came.reply.text or "").lower()
    means = "system messages are read" if followed else "accepted, and not followed here: the model may not heed it"
    return note(
        found, inquiry, calls, "system role", asked, quoted(came.reply.text), "ok" if followed else "unknown", means
    )


async def context(inquiry: Inquiry, found: EndpointFindings, listed: tuple[int | None, str], tokens: int) -> None:
    """One prompt of about that many tokens: read whole, refused, or cut without a word?"""
    calls, (limit, named) = inquiry.calls, listed
    filler = " ".join(_WORDS[k % len(_WORDS)] for k in range(tokens))
    came = await inquiry.complete(
        plain(found, f"{filler}\n\nReply with the single word: ready", 4 if not found.thinks else found.max_tokens)
    )
    asked = f"a prompt of about {tokens:,} tokens"
    known = f"the list says {limit:,} ({named}); " if limit else ""
    read = came.reply.prompt_tokens
    if came.ok and 0 < read < 0.8 * tokens:
        found.context = read
        return note(
            found,
            inquiry,
            calls,
            "context",
            asked,
            f"{known}answered, having read {read:,} tokens",
            "no",
            "longer prompts are cut without a word: judges would miss an answer; raise the server's context",
        )
    if came.ok:
        found.context = limit
        came_back = f"{known}read whole ({read:,} tokens)" if read else f"{known}answered, tokens not counted"
        return note(
            found,
            inquiry,
            calls,
            "context",
            asked,
            came_back,
            "ok" if read else "unknown",
            f"prompts of {tokens:,} tokens fit" if read else "whether it was read whole is not known",
        )
    if came.reply.failure != "context_length":
        return note(found, inquiry, calls, "context", asked, f"{known}{came.said}", "unknown", "the limit is not known")
    stated = _stated_limit(came) or limit
    found.context = stated
    means = f"prompts may have {stated:,} tokens" if stated else f"prompts of {tokens:,} tokens are too long"
    return note(
        found,
        inquiry,
        calls,
        "context",
        asked,
        f"{known}{came.said}",
        "no",
        f"{means}; longer ones are refused (unscored: context_length)",
    )


def _stated_limit(came: HttpResult) -> int | None:
    error = came.body.get("error") if isinstance(came.body, dict) else None
    value = error.get("n_ctx") if isinstance(error, dict) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    named = _LIMIT.search(came.message)
    return int(named[1]) if named else None


def rate_limits(headers: Mapping[str, str]) -> Check:
    """What the headers of all answers said of limits."""
    limits = {name: value for name, value in headers.items() if "ratelimit" in name or name.startswith("retry-after")}
    if not limits:
        return Check(
            "rate limits",
            "headers of all answers",
            "none",
            "unknown",
            "no limit is stated; if calls fail with 429 they are retried",
        )
    shown = ", ".join(f"{name} {brief(value)[:40]}" for name, value in sorted(limits.items()))
    requests = next(
        (value for name, value in limits.items() if re.search(r"limit-requests$|ratelimit-limit$", name)), ""
    )
    means = f"{requests} requests a window" if requests else "limits are stated"
    return Check(
        "rate limits", "headers of all answers", shown, "ok", f"{means}; calls beyond are answered 429 and retried"
    )


# How many calls at once an endpoint bears: levels that double, until throughput stops rising or latency doubles.

_RISE = 1.15
"""Throughput that grows by less from a level to the next has stopped rising."""
_SLOWER = 2.0
MOST_CALLS = 60
_FIRST = 3


@dataclass(frozen=True, slots=True)
class Level:
    """One number of calls in flight: how many were asked, calls a second, seconds of the 95th percentile."""

    at_once: int
    calls: int
    failed: int
    per_second: float
    p95: float


@dataclass(frozen=True, slots=True)
class Knee:
    """The levels that were tried, the one to use, and why the probe stopped there."""

    levels: tuple[Level, ...]
    best: Level
    why: str


async def find(inquiry: Inquiry, body: Callable[[int], Mapping[str, Any]], most: int = MOST_CALLS) -> Knee | None:
    """Levels 1, 2, 4 …, each with a call or two a place in flight, of bodies ``body(k)`` that all differ.

    At most ``most`` calls, and what the inquiry has left. None where even single calls fail.
    """
    levels: list[Level] = []
    asked, at_once, why = 0, 1, ""
    while not why:
        calls = max(_FIRST, 2 * at_once if at_once <= 8 else at_once)
        if asked + calls > min(most, asked + inquiry.left()):
            why = "the calls for this probe are used up; it may bear more"
            break
        level = await _level(inquiry, [body(asked + k) for k in range(calls)], at_once)
        asked += calls
        if level.failed:
            why = f"{level.failed} of {calls} calls failed at {at_once} in flight"
        elif levels and level.per_second < _RISE * levels[-1].per_second:
            why = f"throughput stops rising at {at_once} in flight"
        elif levels and level.p95 > _SLOWER * levels[0].p95:
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


def check(knee: Knee | None, calls: int) -> Check:
    """The probe as a line of the transcript."""
    asked = "judge calls, 1, 2, 4 … at once"
    if knee is None:
        return Check(
            "concurrency",
            asked,
            "too few calls left, or single calls fail",
            "unknown",
            "start with a low concurrency",
            calls,
        )
    shown = "; ".join(
        f"{one.at_once}: {one.per_second:.3g}/s, p95 {one.p95:.2g} s" + (f", {one.failed} failed" if one.failed else "")
        for one in knee.levels
    )
    means = f"{knee.why}: concurrency {knee.best.at_once} gives {knee.best.per_second:.3g} calls a second"
    return Check("concurrency", asked, shown, "ok", means, calls)


async def _level(inquiry: Inquiry, bodies: Sequence[Mapping[str, Any]], at_once: int) -> Level:
    queue = list(bodies)[::-1]
    came: list[HttpResult] = []

    async def work() -> None:
        while queue:
            came.append(await inquiry.complete(queue.pop(), patient=False))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(at_once)))
    took = time.perf_counter() - began
    seconds = sorted(one.seconds for one in came)
    failed = sum(not one.ok for one in came)
    p95 = seconds[min(len(seconds) - 1, math.ceil(0.95 * len(seconds)) - 1)]
    return Level(at_once, len(came), failed, (len(came) - failed) / max(took, 1e-9), p95)
