"""Which verdict modes an endpoint can do: the trial question in both orders, a schema where nothing else asks for JSON, and
the same call again."""

from __future__ import annotations

import re

from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Verdict
from judgeloop.text.templates import Mode
from judgeloop.wire.examination import Found, State, Trial, note, plain, quoted
from judgeloop.wire.inquiry import Inquiry

TRIED_LOGPROBS = 20
_MOST = re.compile(
    r"(?:less than or equal to|at most|max(?:imum)?(?: allowed)?(?: is| of|:)?|more than|<=|up to)\s*(\d+)", re.I
)


async def logprobs(inquiry: Inquiry, base: Endpoint, found: Found, trial: Trial) -> None:
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


async def verdict_mode(inquiry: Inquiry, base: Endpoint, found: Found, trial: Trial, mode: Mode) -> None:
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


async def repeat(inquiry: Inquiry, base: Endpoint, found: Found, trial: Trial) -> None:
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


def best_mode(found: Found) -> Mode | None:
    """The most informative mode that gave a verdict in both orders: logprob, json where the schema holds, text, json."""
    works = [mode for mode, verdicts in found.verdicts.items() if all(one.slot != "unscored" for one in verdicts)]
    order: list[Mode] = ["logprob", "json", "text"] if found.enforces_schema else ["logprob", "text", "json"]
    return next((mode for mode in order if mode in works), None)


def _endpoint(base: Endpoint, found: Found, top: int) -> Endpoint:
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
