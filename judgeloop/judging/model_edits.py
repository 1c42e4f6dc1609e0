"""The probes that no rule can write: a model rewords a text in a named call, and its reply is checked before it is used.

The reply is recorded in the cassette like any other, so that a replay judges the same text. No check sees whether the
meaning is the same: read a sample of the edits.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from judgeloop.bodies import edit_body
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.edits import Probe, length_ratio, tokens, words
from judgeloop.judging.pairing import quoted
from judgeloop.records import Call, Client, Reply
from judgeloop.text.features import measure
from judgeloop.text.templates import Template

LENGTH_TOLERANCE = 0.3
"""A reply is used where its length is within this share of the requested length, in tokens."""

_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ROOM = 64


@dataclass(frozen=True, slots=True)
class ModelEdit:
    """A model's edit, or None and the reason why its reply is not used; ``call`` is the id of its call."""

    text: str | None
    reason: str
    call: str


def edit_call_id(pair_id: str, side: str, probe: str, dose: float | None = None, prefix: str = "audit/edit") -> str:
    """The id of the call for an edit: ``<prefix>/<pair>/<side>/<probe>[/<dose>]``."""
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
) -> ModelEdit:
    """Ask for the edit of a text (see ``edit_call_id``), at temperature 0, and check the reply.

    ``endpoint`` is the client's name for ``settings``; ``template`` is of kind edit: the shipped one has the probe's name.
    Raises ValueError for a probe by rule or a dose that the probe does not have, and what the client raises.
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
        # A reply that is cut off is not used: allow it enough tokens, whatever the endpoint's limit is.
        max_tokens=max(settings.max_tokens, math.ceil(2 * target * tokens(text)) + _ROOM),
    )
    reply = await client.ask(Call(call_id, endpoint, body))
    reason = refused(text, reply, dose)
    return ModelEdit(None if reason else (reply.text or "").strip(), reason, call_id)


def refused(original: str, reply: Reply, dose: float | None = None) -> str:
    """The reason why a reply is not used as an edit of ``original``; empty where it is.

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
    if reply.is_cut:
        return "truncated"
    if _opener(text) == "announcement" != _opener(original):
        return "comment"
    return unfit(original, text, dose)


def unfit(original: str, text: str, dose: float | None = None) -> str:
    """The reason why a text cannot be used as a reworded ``original`` (see ``refused``); empty where it can."""
    relative_length = length_ratio(original, text) / (dose or 1.0)
    if not relative_length >= 1.0 - LENGTH_TOLERANCE:
        return "too_short"
    if relative_length > 1.0 + LENGTH_TOLERANCE:
        return "too_long"
    before, after = numbers(original), numbers(text)
    if before - after:
        return "number_dropped"
    if after - before:
        return "number_added"
    return "unchanged" if words(original) == words(text) else ""


def numbers(text: str) -> set[str]:
    """The numbers in a text, without the marks that group their digits."""
    return {re.sub("[.,]", "", number) for number in _NUMBER.findall(text)}


def numbers_kept(original: str, edited: str) -> bool:
    """Whether both have the same numbers."""
    return numbers(original) == numbers(edited)


def _opener(text: str) -> str:
    return measure(text).opener
