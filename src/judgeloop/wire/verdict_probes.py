"""Which verdict modes an endpoint can do: the trial question in both orders, a schema where nothing else asks for JSON, and
the same call again."""

from __future__ import annotations

import re
from typing import Any

from judgeloop.bodies import judge_body
from judgeloop.experiment import Endpoint
from judgeloop.records import Verdict
from judgeloop.templates import Mode, Template
from judgeloop.wire.examination import Found, Reader, State, note, plain, quoted
from judgeloop.wire.inquiry import Inquiry

TRIED_LOGPROBS = 20
QUESTION = "What is the capital of France?"
ANSWERS = ("The capital of France is Paris.", "The capital of France is Lyon.")
"""The better one first."""
_MOST = re.compile(
    r"(?:less than or equal to|at most|max(?:imum)?(?: allowed)?(?: is| of|:)?|more than|<=|up to)\s*(\d+)", re.I
)


async def logprobs(inquiry: Inquiry, base: Endpoint, found: Found, template: Template, read: Reader) -> None:
    """How many log-probabilities, and is a verdict among them, in both orders?"""
    calls = inquiry.calls
    if "logprob" not in template.modes:
        return note(
            found,
            inquiry,
            calls,
            "logprobs",
            "nothing",
            "not asked",
            "unknown",
            f"prompt {template.name} reasons first: it has no verdict in its first token",
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
    came = await inquiry.complete(_trial(base, found, template, "logprob", 0, most))
    if came.status in (400, 422) and "logprob" in came.message.lower():
        named = _MOST.search(came.message)
        most = min(int(named[1]), TRIED_LOGPROBS) if named and int(named[1]) > 1 else 5
        asked += f", then {most} (refused: {came.message})"
        came = await inquiry.complete(_trial(base, found, template, "logprob", 0, most))
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
    other = await inquiry.complete(_trial(base, found, template, "logprob", 1, found.logprobs))
    verdicts = tuple(read(one.reply, "logprob", template.ties) for one in (came, other))
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


async def verdict_mode(
    inquiry: Inquiry, base: Endpoint, found: Found, template: Template, mode: Mode, read: Reader
) -> None:
    """Does json or text mode give a verdict, in both orders?"""
    calls, came = inquiry.calls, []
    if mode not in template.modes:
        return note(
            found, inquiry, calls, mode, "nothing", "not asked", "unknown", f"prompt {template.name} has no {mode} mode"
        )
    for order in (0, 1):
        came.append(await inquiry.complete(_trial(base, found, template, mode, order, TRIED_LOGPROBS)))
        if not came[-1].ok:
            return note(
                found, inquiry, calls, mode, f"a verdict in {mode} mode", came[-1].said, "no", f"{mode} mode is refused"
            )
    verdicts = tuple(read(one.reply, mode, template.ties) for one in came)
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


async def schema(inquiry: Inquiry, found: Found) -> None:
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


async def repeat(inquiry: Inquiry, base: Endpoint, found: Found, template: Template, read: Reader) -> None:
    """The same judge call again at temperature 0: the same verdict?"""
    calls = inquiry.calls
    mode = best_mode(found)
    if mode is None:
        return None
    came = await inquiry.complete(_trial(base, found, template, mode, 0, found.logprobs or TRIED_LOGPROBS))
    before, after = found.verdicts[mode][0], read(came.reply, mode, template.ties)
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


def best_mode(found: Found) -> Mode | None:
    """The most informative mode that gave a verdict in both orders: logprob, json where the schema holds, text, json."""
    works = [mode for mode, verdicts in found.verdicts.items() if all(one.slot != "unscored" for one in verdicts)]
    order: list[Mode] = ["logprob", "json", "text"] if found.enforces_schema else ["logprob", "text", "json"]
    return next((mode for mode in order if mode in works), None)


def _trial(base: Endpoint, found: Found, template: Template, mode: Mode, order: int, top: int) -> dict[str, Any]:
    """A judge call on two short answers, the better one first (order 0) or second."""
    first, second = ANSWERS if order == 0 else ANSWERS[::-1]
    endpoint = found.endpoint(base).model_copy(update={"top_logprobs": top, "model": found.model})
    return judge_body(
        endpoint, template, mode, prompt=QUESTION, first_text=first, second_text=second, reference="Paris"
    )


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
