"""The probes that a rule cannot write: a model rewords a text, as a named call, and its reply is checked before it is used.

The reply is recorded in the cassette like any other, so that a replay judges the very same text. What a check cannot see is
whether the meaning is the same: look at some.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from judgeloop.bodies import edit_body
from judgeloop.experiment import Endpoint
from judgeloop.features import measure
from judgeloop.judging.edits.probe import Probe, length_ratio, tokens, words
from judgeloop.judging.pairing import quoted
from judgeloop.records import Call, Client, Reply
from judgeloop.templates import Template

LENGTH_TOLERANCE = 0.3
"""A reply is used where its length is within this share of what was asked, in tokens."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ROOM = 64


@dataclass(frozen=True, slots=True)
class Written:
    """What a model wrote: the edit, or None and the reason why the reply is not used; and the call that asked for it."""

    text: str | None
    reason: str
    call: str


def edit_call_id(pair_id: str, side: str, probe: str, dose: float | None = None, prefix: str = "audit/edit") -> str:
    """``<prefix>/<pair>/<side>/<probe>[/<dose>]``."""
    return "/".join([prefix, quoted(pair_id), side, probe, *([] if dose is None else [f"{dose:g}"])])


async def write_edit(
    probe: Probe,
    text: str,
    *,
    client: Client,
    endpoint: str,
    settings: Endpoint,
    template: Template,
    call_id: str,
    dose: float | None = None,
) -> Written:
    """Ask for the edit of a text (see ``edit_call_id``), at temperature 0, and check the reply.

    ``endpoint`` is the name that the client knows ``settings`` by; ``template`` is of kind edit: the shipped one bears the
    probe's name. Raises ValueError for a rule's probe or a dose that the probe has not, and what the client raises.
    """
    if probe.kind != "model":
        raise ValueError(f"{probe.name} is an edit by rule: use apply")
    probe.check_dose(dose)
    target = dose or 1.0
    body = edit_body(
        settings,
        template,
        text=text,
        length=max(1, round(target * len(text.split()))),
        # A reply that is cut off is no edit: leave it room, whatever the endpoint's usual limit is.
        max_tokens=max(settings.max_tokens, math.ceil(2 * target * tokens(text)) + _ROOM),
    )
    reply = await client.ask(Call(call_id, endpoint, body))
    reason = refused(text, reply, dose)
    return Written(None if reason else (reply.text or "").strip(), reason, call_id)


def refused(original: str, reply: Reply, dose: float | None = None) -> str:
    """Why a reply is not used as an edit of ``original``; empty where it is.

    ``failure`` of the endpoint as it is named there, else ``refusal``, ``empty``, ``truncated``, ``comment`` (words about
    the task before the text), ``too_short``, ``too_long``, ``number_dropped``, ``number_added``, ``unchanged``.
    """
    if reply.failure:
        return reply.failure
    text = (reply.text or "").strip()
    if reply.refusal or (text and _opener(text) == "refusal" != _opener(original)):
        return "refusal"
    if not text:
        return "empty"
    if reply.finish_reason == "length":
        return "truncated"
    if _opener(text) == "announcement" != _opener(original):
        return "comment"
    return unfit(original, text, dose)


def unfit(original: str, text: str, dose: float | None = None) -> str:
    """Why a text does not serve as a reworded ``original``; empty where it does (see ``refused``)."""
    reached = length_ratio(original, text) / (dose or 1.0)
    if not reached >= 1.0 - LENGTH_TOLERANCE:
        return "too_short"
    if reached > 1.0 + LENGTH_TOLERANCE:
        return "too_long"
    before, after = numbers(original), numbers(text)
    if before - after:
        return "number_dropped"
    if after - before:
        return "number_added"
    return "unchanged" if words(original) == words(text) else ""


def numbers(text: str) -> set[str]:
    """The numbers in a text, without the marks that group their digits."""
    return {re.sub("[.,]", "", found) for found in _NUMBER.findall(text)}


def numbers_kept(original: str, edited: str) -> bool:
    """Whether both have the same numbers."""
    return numbers(original) == numbers(edited)


def _opener(text: str) -> str:
    return measure(text).opener
