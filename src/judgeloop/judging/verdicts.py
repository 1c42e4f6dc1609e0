"""Verdicts: what a judge's reply says, by slot, or the reason why it says nothing.

Reasons of an unscored judgment, a closed set but for the failures that the client names:

==============  ====================================================================================================
refusal         the model declined to answer
empty           the reply has no text
truncated       the reply was cut off before a verdict, in its answer or in its reasoning
no_verdict      a readable reply that holds none of the offered labels (in JSON: no ``verdict`` key)
no_logprobs     logprob mode, and the endpoint gave no log-probabilities
no_letter       logprob mode, and none of the likeliest first tokens is an offered label
not_json        JSON mode, and the reply is not one JSON object
wrong_label     JSON mode, and ``verdict`` is not one of the offered labels
no_majority_scored  a panel none of whose members gave a verdict
http_500, timeout, context_length, …   the endpoint gave no readable answer: the client's reason, passed on
==============  ====================================================================================================

Prose is never interpreted: "A is better" is no verdict.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from judgeloop.bodies import VERDICT_TOKEN
from judgeloop.records import Reply, Slot, Verdict
from judgeloop.templates import Mode

REASONS = (
    "refusal", "empty", "truncated", "no_verdict", "no_logprobs", "no_letter", "not_json", "wrong_label",
    "no_majority_scored",
)  # fmt: skip

_SLOTS: dict[str, Slot] = {"a": "first", "b": "second", "tie": "tie"}
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning)>", re.I)
_THOUGHT_START = re.compile(r"<(?:think|thinking|reasoning)>", re.I)
_FENCE = re.compile(r"```[A-Za-z]*\s*\n(.*)\n\s*```", re.DOTALL)
# What tokenizers put around a letter: space markers of SentencePiece and byte-level BPE, and what opens or closes it.
_TOKEN_WRAP = " \t\r\n▁ĠĊ*_`\"'([{<#:.,)]}>"
# A tokenizer may split the word tie; no other first piece of it is as short.
_TIE_TOKENS = ("tie", "ti", "t")


def unscored(reason: str) -> Verdict:
    """A judgment without a verdict: kept and counted, never imputed."""
    return Verdict("unscored", reason=reason)


def read(reply: Reply, mode: Mode, ties: bool) -> Verdict:
    """The verdict in a reply; positive = prefers the first slot: A is the first slot, B the second.

    ``ties`` says whether the template offered a tie. Total: every reply has a verdict or a reason.
    """
    if reply.failure:
        return unscored(reply.failure)
    if reply.refusal:
        return unscored("refusal")
    if mode == "logprob":
        return _from_logprobs(reply.top_logprobs, ties)
    answer = answer_of(reply)
    if isinstance(answer, Verdict):
        return answer
    verdict = _from_json(answer, ties) if mode == "json" else _from_text(answer, ties)
    if verdict.reason in ("no_verdict", "not_json") and reply.finish_reason == "length":
        return unscored("truncated")
    return verdict


def read_match(reply: Reply) -> tuple[bool | None, str]:
    """Whether a reply says that a text agrees with the reference: (True, ""), (False, "") or (None, reason).

    The last of ``[[yes]]`` and ``[[no]]`` counts.
    """
    if reply.failure or reply.refusal:
        return None, reply.failure or "refusal"
    answer = answer_of(reply)
    if isinstance(answer, Verdict):
        return None, answer.reason
    label = _last_label(answer, ("yes", "no"))
    if label is None:
        return None, "truncated" if reply.finish_reason == "length" else "no_verdict"
    return label == "yes", ""


def answer_of(reply: Reply) -> str | Verdict:
    """The reply's text behind any reasoning; unscored where there is none."""
    # The client sets leading reasoning aside; some servers leave the tags, or only the closing one, in the text.
    text = _THOUGHT_END.split(reply.text or "")[-1]
    if _THOUGHT_START.search(text):
        return unscored("truncated")
    if not text.strip():
        return unscored("truncated" if reply.finish_reason == "length" else "empty")
    return text


def _from_text(text: str, ties: bool) -> Verdict:
    label = _last_label(text, ("a", "b", "tie") if ties else ("a", "b"))
    return unscored("no_verdict") if label is None else Verdict(_SLOTS[label])


def _last_label(text: str, offered: Sequence[str]) -> str | None:
    labels = [match[2].lower() for match in VERDICT_TOKEN.finditer(text)]
    return next((label for label in reversed(labels) if label in offered), None)


def _from_json(text: str, ties: bool) -> Verdict:
    found = json_object(text)
    if found is None:
        return unscored("not_json")
    if "verdict" not in found:
        return unscored("no_verdict")
    label = found["verdict"].strip().lower() if isinstance(found["verdict"], str) else ""
    if label not in _SLOTS or (label == "tie" and not ties):
        return unscored("wrong_label")
    return Verdict(_SLOTS[label])


def json_object(text: str) -> dict[str, Any] | None:
    """The one JSON object that a reply is, fenced or not; None where it is none."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        # A doubled key is an error, not a choice between its values.
        found = json.loads(fenced[1] if fenced else text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def bare(token: str) -> str:
    """A token without the white space, quotes and brackets that tokenizers put around a label."""
    return token.strip(_TOKEN_WRAP)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _from_logprobs(top: Sequence[tuple[str, float]], ties: bool) -> Verdict:
    """p_first = (P(A) + ½ P(tie)) / (P(A) + P(B) + P(tie)) over the listed tokens.

    A label that is not listed counts as probability 0. The slot is p_first's side of ½, but for a tie that is likelier
    than either letter.
    """
    if not top:
        return unscored("no_logprobs")
    masses = _masses(top, ties)
    if not masses:
        return unscored("no_letter")
    # Relative to the largest, so that a pair of tiny probabilities does not underflow.
    largest = max(masses.values())
    a, b, tie = (math.exp(masses.get(label, -math.inf) - largest) for label in ("a", "b", "tie"))
    p_first = (a + tie / 2) / (a + b + tie)
    slot: Slot = "tie" if tie > max(a, b) or p_first == 0.5 else "first" if p_first > 0.5 else "second"
    return Verdict(slot, p_first)


def _masses(top: Sequence[tuple[str, float]], ties: bool) -> dict[str, float]:
    """label → log of its tokens' summed probability, for the labels that are listed."""
    tokens = [(bare(token), logprob) for token, logprob in top if logprob > -math.inf]
    found: dict[str, list[float]] = {}
    for token, logprob in tokens:
        if token.lower() in ("a", "b"):
            found.setdefault(token.lower(), []).append(logprob)
        elif ties and token.lower() in _TIE_TOKENS:
            found.setdefault("tie", []).append(logprob)
    return {label: _log_sum(values) for label, values in found.items()}


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))
