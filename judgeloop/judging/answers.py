"""Answers: what a judge's reply says in the form that was asked for, or the reason why it says nothing.

There is one reader, ``read_answer``, and three forms: one of two answers (a *verdict*, by slot), the best of a list (a
*choice*, by slot) and a number on a scale (a *score*). Reasons of an unscored reply, a closed set but for the failures
that the client names:

==============  ====================================================================================================
refusal         the model declined to answer
empty           the reply has no text
truncated       the reply was cut off before a verdict, in its answer or in its reasoning; a label in the midst of a text that was
                cut counts as part of its reasoning
no_verdict      a readable reply that holds none of the offered labels, or no marked number (in JSON: no such key)
no_logprobs     logprob mode, and the endpoint gave no log-probabilities
no_letter       logprob mode, and none of the likeliest first tokens is an offered label
low_mass        logprob mode, and the offered labels (or numbers) hold less probability than they must: what they say of one
                another is then the tail of another answer, a thought that begins, say
not_json        JSON mode, and the reply is not one JSON object
wrong_label     JSON mode, and ``verdict`` is not one of the offered labels
no_number       logprob mode, and none of the likeliest first tokens is a number of the scale
off_scale       the reply's last marked number (in JSON: its ``score``) is not on the scale
split_number    logprob mode, and the tokenizer seems to write 10 as 1 and 0, so that a 1 may be the beginning of a 10
no_majority_scored  a panel none of whose members gave a verdict
http_500, timeout, context_length, …   the endpoint gave no readable answer: the client's reason, passed on
==============  ====================================================================================================

Prose is never interpreted: "A is better" is no verdict, and "a solid 8" no score.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from judgeloop.bodies import CHOICE_TOKEN, LETTERS, SCORE_TOKEN, VERDICT_TOKEN
from judgeloop.records import Reply, Slot, Verdict
from judgeloop.text.templates import Mode, Scale

LEAST_MASS = 0.05
"""Default floor of what the offered labels hold (``min_label_mass`` of an endpoint)."""
MOST_BY_LOGPROB = 20
"""Numbers of the largest scale that the listed tokens can hold."""
TRIAL_QUESTION = "What is the capital of France?"
TRIAL_ANSWERS = tuple(f"The capital of France is {city}." for city in ("Paris", "Lyon", "Nice"))
"""Of the calls by which a judge is tried: short, and the first is plainly the best, so that any working judge has an answer."""

_VERDICTS = {"a": Verdict("first"), "b": Verdict("second"), "tie": Verdict("tie")}
"""Label → its verdict, which all judgments share."""
_THOUGHT_END = re.compile(r"</(?:think|thinking|reasoning)>", re.I)
_THOUGHT_START = re.compile(r"<(?:think|thinking|reasoning)>", re.I)
_FENCE = re.compile(r"```[A-Za-z]*\s*\n(.*)\n\s*```", re.DOTALL)
_NUMERAL = re.compile(r"-?[0-9]{1,4}(?:\.[0-9]{1,4})?")
# What tokenizers put around a letter: space markers of SentencePiece and byte-level BPE, and what opens or closes it.
_TOKEN_WRAP = " \t\r\n▁ĠĊ*_`\"'([{<#:.,)]}>"
# What may stand around an answer that begins or ends a reply.
_AROUND = " \t\r\n*_`\"'.#>"
_SHOWN = 120
# A tokenizer may split the word tie; no other first piece of it is as short.
_TIE_TOKENS = ("tie", "ti", "t")
# The probability of a number that may be cut short (the 1 of a 10) above which a reply's mean is not trusted.
_DOUBTFUL = 0.01


@dataclass(frozen=True, slots=True)
class Answer:
    """What a reply says: ``label``, an offered label in lower case or a number of the scale in digits.

    In logprob mode ``weights`` stands in its place: the probability of each label or number that is listed, relative to the
    likeliest, in the order of listing, and ``mass`` is the probability of them all. Where there is neither, ``reason`` says why.
    """

    label: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    mass: float | None = None


class Form(Protocol):
    """A form of answer."""

    @property
    def mark(self) -> re.Pattern[str]:
        """What finds a marked answer in a text."""
        ...

    @property
    def key(self) -> str:
        """The key of the JSON object that holds the answer."""
        ...

    @property
    def unlisted(self) -> str:
        """The reason of a logprob reply that lists nothing of this form."""
        ...

    def in_text(self, text: str) -> Answer:
        """The last answer that is marked ``[[…]]`` in a text."""
        ...

    def in_json(self, value: object) -> Answer:
        """The answer that stands under the key."""
        ...

    def of_token(self, token: str) -> str | None:
        """The label or number that a first token is; None for any other."""
        ...


@dataclass(frozen=True, slots=True)
class Labels:
    """One of the ``offered`` labels (lower case), marked as ``mark`` finds them."""

    offered: tuple[str, ...]
    mark: re.Pattern[str] = VERDICT_TOKEN
    key: ClassVar[str] = "verdict"
    unlisted: ClassVar[str] = "no_letter"

    def in_text(self, text: str) -> Answer:
        labels = [match[2].lower() for match in self.mark.finditer(text)]
        last = next((label for label in reversed(labels) if label in self.offered), None)
        return Answer(reason="no_verdict") if last is None else Answer(last)

    def in_json(self, value: object) -> Answer:
        label = value.strip().lower() if isinstance(value, str) else ""
        return Answer(label) if label in self.offered else Answer(reason="wrong_label")

    def of_token(self, token: str) -> str | None:
        label = token.lower()
        label = "tie" if label in _TIE_TOKENS else label
        return label if label in self.offered else None


@dataclass(frozen=True, slots=True)
class Numbers:
    """A number on a scale, in digits; a mean over the likeliest ones need not be whole."""

    scale: Scale
    mark: ClassVar[re.Pattern[str]] = SCORE_TOKEN
    key: ClassVar[str] = "score"
    unlisted: ClassVar[str] = "no_number"

    def in_text(self, text: str) -> Answer:
        marked = list(self.mark.finditer(text))
        if not marked:
            return Answer(reason="no_verdict")
        number, of = marked[-1][2], marked[-1][3]
        # 7/10 says its scale, and 7/5 another one.
        return Answer(reason="off_scale") if of and int(of) != self.scale.high else self._on_scale(float(number))

    def in_json(self, value: object) -> Answer:
        if isinstance(value, str) and _NUMERAL.fullmatch(value.strip()):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return Answer(reason="off_scale")
        return self._on_scale(value)

    def of_token(self, token: str) -> str | None:
        return token if token in map(str, self.scale.values) else None

    def _on_scale(self, number: float) -> Answer:
        # NaN and infinity are on no scale.
        return Answer(str(number)) if self.scale.low <= number <= self.scale.high else Answer(reason="off_scale")


def read_answer(reply: Reply, mode: Mode, form: Form, floor: float = LEAST_MASS) -> Answer:
    """The answer in a reply. Total: every reply has an answer or a reason. ``floor``: in logprob mode the least probability that
    the listed answers must hold together, here and in the readers below."""
    if reply.failure or reply.refusal:
        return Answer(reason=reply.failure or "refusal")
    if mode == "logprob":
        return _listed(reply.top_logprobs, form, floor)
    # The client sets leading reasoning aside; some servers leave the tags, or only the closing one, in the text.
    text = _THOUGHT_END.split(reply.text or "")[-1]
    cut = reply.is_cut
    if _THOUGHT_START.search(text):
        return Answer(reason="truncated")
    if not text.strip():
        return Answer(reason="truncated" if cut else "empty")
    answer = _in_object(text, form) if mode == "json" else form.in_text(text)
    if cut and (answer.reason in ("no_verdict", "not_json") or (mode == "text" and not _is_outermost(text, form.mark))):
        return Answer(reason="truncated")
    return answer


def _is_outermost(text: str, mark: re.Pattern[str]) -> bool:
    """Whether the last marked answer of a text begins or ends it. In the midst of a reply that was cut by length it may belong to a
    thought that a server did not mark as one, and what the reply would have ended in is not known."""
    stripped = text.strip(_AROUND)
    last = list(mark.finditer(stripped))[-1]
    return last.start() == 0 or last.end() == len(stripped)


def _in_object(text: str, form: Form) -> Answer:
    """The answer in the one JSON object that a reply is, fenced or not."""
    text = text.strip()
    fenced = _FENCE.fullmatch(text)
    try:
        # A doubled key is an error, not a choice between its values.
        content = json.loads(fenced[1] if fenced else text, object_pairs_hook=_without_doubled_keys)
    except (ValueError, RecursionError):
        return Answer(reason="not_json")
    if not isinstance(content, dict):
        return Answer(reason="not_json")
    return form.in_json(content[form.key]) if form.key in content else Answer(reason="no_verdict")


def _without_doubled_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _listed(top: Sequence[tuple[str, float]], form: Form, floor: float) -> Answer:
    """The listed tokens that are of that form, the probabilities of one label's spellings summed."""
    if not top:
        return Answer(reason="no_logprobs")
    logs: dict[str, list[float]] = {}
    for token, logprob in top:
        label = form.of_token(token.strip(_TOKEN_WRAP))
        if label is not None and logprob > -math.inf:
            logs.setdefault(label, []).append(logprob)
    if not logs:
        return Answer(reason=form.unlisted)
    sums = {label: _log_sum(values) for label, values in logs.items()}
    # Relative to the largest, so that tiny probabilities do not underflow.
    largest = max(sums.values())
    mass = min(1.0, math.exp(min(0.0, _log_sum(list(sums.values())))))
    if mass < floor:
        return Answer(reason="low_mass", mass=mass)
    return Answer(weights={label: math.exp(value - largest) for label, value in sums.items()}, mass=mass)


def _log_sum(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


# Pairs


def said(reply: Reply) -> str:
    """What a reply without an answer says, in a few words on one line: the endpoint's message, or the end of its text; empty where
    it says nothing."""
    words = " ".join((reply.detail or reply.refusal or reply.text or "").split())
    if reply.detail or len(words) <= _SHOWN:
        return words
    return f"…{words[-_SHOWN:]}"


def unscored(reason: str) -> Verdict:
    """A judgment without a verdict: kept and counted, never imputed."""
    return Verdict("unscored", reason=reason)


def read_verdict(reply: Reply, mode: Mode, ties: bool, floor: float = LEAST_MASS) -> Verdict:
    """The verdict in a reply; positive = prefers the first slot: A is the first slot, B the second.

    ``ties`` says whether the template offered a tie. In logprob mode p_first = (P(A) + ½ P(tie)) / (P(A) + P(B) + P(tie))
    over the listed tokens, of which an unlisted label has none; the slot is its side of ½, but for a tie that is likelier
    than either letter.
    """
    answer = read_answer(reply, mode, Labels(("a", "b", "tie") if ties else ("a", "b")), floor)
    if answer.reason:
        return Verdict("unscored", reason=answer.reason, mass=answer.mass, said=said(reply))
    if answer.label:
        return _VERDICTS[answer.label]
    a, b, tie = (answer.weights.get(label, 0.0) for label in ("a", "b", "tie"))
    p_first = (a + tie / 2) / (a + b + tie)
    slot: Slot = "tie" if tie > max(a, b) or p_first == 0.5 else "first" if p_first > 0.5 else "second"
    return Verdict(slot, p_first, mass=answer.mass)


def read_match(reply: Reply) -> tuple[bool | None, str]:
    """Whether a reply says that a text agrees with the reference: (True, ""), (False, "") or (None, reason).

    The last of ``[[yes]]`` and ``[[no]]`` counts.
    """
    answer = read_answer(reply, "text", Labels(("yes", "no")))
    return (None, answer.reason) if answer.reason else (answer.label == "yes", "")


# Lists


@dataclass(frozen=True, slots=True)
class Choice:
    """``slot`` counted from 0, None where there is none, with ``reason`` and what the reply ``said``; ``shares`` the slots'
    probabilities (k,) where the judge gave them."""

    slot: int | None
    shares: tuple[float, ...] | None = None
    reason: str = ""
    said: str = field(default="", compare=False)


def read_choice(reply: Reply, mode: Mode, slots: int, floor: float = LEAST_MASS) -> Choice:
    """The slot that a reply picks of so many. In logprob mode a letter that is not listed has probability 0."""
    letters = tuple(LETTERS[:slots].lower())
    answer = read_answer(reply, mode, Labels(letters, CHOICE_TOKEN), floor)
    if answer.reason:
        return Choice(None, reason=answer.reason, said=said(reply))
    if answer.label:
        return Choice(letters.index(answer.label))
    weights = [answer.weights.get(letter, 0.0) for letter in letters]
    shares = tuple(weight / sum(weights) for weight in weights)
    return Choice(max(range(slots), key=shares.__getitem__), shares)


# Scores


@dataclass(frozen=True, slots=True)
class Score:
    """``value`` on the scale, a mean over the likeliest numbers in logprob mode; None where there is none, with ``reason`` and what
    the reply ``said``.

    ``at_worst``, ``at_best``: the probability of the scale's two ends, 0 or 1 where the reply says one number.
    """

    value: float | None
    at_worst: float | None = None
    at_best: float | None = None
    reason: str = ""
    said: str = field(default="", compare=False)


def read_score(reply: Reply, mode: Mode, scale: Scale, floor: float = LEAST_MASS, *, sure: bool = False) -> Score:
    """The score in a reply; in logprob mode the mean of the scale's numbers over the listed tokens.

    ``sure``: a logprob reply that lists no number of two digits is not trusted with a scale that has one.
    """
    answer = read_answer(reply, mode, Numbers(scale), floor)
    if answer.reason:
        return Score(None, reason=answer.reason, said=said(reply))
    if answer.label:
        value = float(answer.label)
        return Score(value, float(value == scale.worst), float(value == scale.best))
    weights = {int(label): weight for label, weight in answer.weights.items()}
    total = sum(weights.values())
    long = {str(value)[0] for value in scale.values if value > 9}
    begun = sum(weight for value, weight in weights.items() if value <= 9 and str(value) in long)
    # 10 stands among the likeliest tokens of a tokenizer that has it, unless it is out of the question.
    if long and not any(value > 9 for value in weights) and (sure or begun / total > _DOUBTFUL):
        return Score(None, reason="split_number", said=said(reply))
    mean = sum(value * weight for value, weight in weights.items()) / total
    worst, best = (weights.get(end, 0.0) / total for end in (scale.worst, scale.best))
    return Score(min(max(mean, scale.low), scale.high), worst, best)
