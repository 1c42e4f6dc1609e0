"""The four questions that a reader comes with, each answered in a sentence that its interval and test license.

Is my judge biased? Is the bias growing in my outputs? How sure are we? What should I change? Every number is that of a
finding; nothing is computed here but counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from judgeloop.report import wording
from judgeloop.report.advice import advice
from judgeloop.report.reading import Reading, select
from judgeloop.report.verdicts import COMPOUNDING, DETECTABLE, Finding, Verdict, leading

Tone = Literal["found", "open", "calm", "plain"]

_WORDS: dict[Verdict, tuple[str, Tone]] = {
    "found": ("Yes", "found"),
    "unconfirmed": ("Perhaps", "open"),
    "unclear": ("Unclear", "open"),
    "equivalent": ("None within margin", "calm"),
    "undetected": ("Not detected", "plain"),
    "underpowered": ("Too few data", "plain"),
    "undefined": ("Cannot be told", "plain"),
    "described": ("Cannot be told", "plain"),
}
_OF_JUDGE = ("position", "content", "self_preference")
_NAMES = {"position": "Position", "content": "Length and style", "self_preference": "Own answers"}
_MOST_SAID = 6
_MANY_REPLICATES = 8
_MANY_PAIRS = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """One question, the word that answers it, and the sentences behind the word, the weightiest first."""

    question: str
    word: str
    tone: Tone
    sentences: tuple[str, ...]


def answers(reading: Reading, found: Sequence[Finding]) -> list[Answer]:
    """The four answers in the order in which they are asked."""
    return [
        _biased(found),
        _growing(reading, found),
        _sure(reading, found),
        _change(reading, found),
    ]


def brief(finding: Finding, *, named: bool = True) -> str:
    """A finding in few words: what, how much, its interval; for what was not detected, what could have been.

    ``named``: the judge is named (not needed where there is one).
    """
    row = finding.row
    name = wording.term_name(row.term)
    arms = f"{wording.label(row.arm)} against {wording.label(row.contrast)}: " if row.contrast else ""
    who = arms or (f"{wording.label(row.judge)}: " if row.judge and named else "")
    if who:
        name = name[:1].lower() + name[1:]
    if finding.verdict == "undefined" or row.estimate is None:
        return f"{who}{name}: undefined"
    if row.term == "style_joint":
        test = wording.p_value(row.p_adjusted if row.p_adjusted is not None else row.p_value)
        moved = "move the verdict" if finding.verdict == "found" else "no effect shown"
        return f"{who}{name}: {moved} ({test})"
    seen = DETECTABLE.search(row.note)
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    limits = f", {wording.interval(row)}" if row.conf_low is not None else ""
    value = f"{who}{name}: {wording.signed_figure(row)}{unit}{limits}"
    if finding.word in COMPOUNDING:
        return f"{value}; {finding.word}"
    if finding.verdict in ("undetected", "underpowered"):
        could = f"; this {'run' if row.n_replicates else 'sample'} could only have seen {wording.figure(row, float(seen.group(1)))}{unit} or more" if seen else ""  # fmt: skip
        return f"{value}, {'undetected' if finding.verdict == 'undetected' else 'too few data'}{could}"
    if finding.verdict == "equivalent":
        return f"{value}, none of practical size"
    if finding.verdict == "unconfirmed":
        return f"{value}, unconfirmed"
    return value


def _biased(found: Sequence[Finding]) -> Answer:
    """What is identified leads: a raw preference, which may be for quality, never answers this."""
    asked = [finding for finding in found if finding.question in _OF_JUDGE and finding.verdict != "described"]
    judges = list(dict.fromkeys(finding.row.judge for finding in asked))
    some = [
        [finding for finding in asked if finding.question == question and finding.row.judge == judge]
        for question in _OF_JUDGE
        for judge in judges
    ]
    leads = [leading(group) for group in some if group]
    question = "Is my judge biased?"
    if not leads:
        return Answer(question, "Not measured", "plain", ("Nothing in this run identifies a bias of the judge.",))
    # "None" may be said only where every question that was asked has that answer.
    word, tone = _WORDS[leading(leads).verdict]
    known = [finding for finding in leads if finding.verdict != "undefined"]
    known.sort(key=lambda finding: finding.verdict in ("underpowered", "undetected"))
    said = [f"{brief(finding, named=len(judges) > 1)}." for finding in known[:_MOST_SAID]]
    if len(known) > _MOST_SAID:
        said.append(f"{len(known) - _MOST_SAID} more below.")
    for asks, name in _NAMES.items():
        why = [finding.row.note for finding in leads if finding.question == asks and finding.verdict == "undefined"]
        if why:
            said.append(f"{name}: undefined{f' ({wording.label(why[0], 160)})' if why[0] else ''}.")
    return Answer(question, word, tone, tuple(said))


def _growing(reading: Reading, found: Sequence[Finding]) -> Answer:
    question = "Is the bias growing in my outputs?"
    if not reading.arms:
        return Answer(
            question,
            "Not measured",
            "plain",
            ("A log of verdicts has no generations; `judgeloop run` closes the loop.",),
        )
    drift = [finding for finding in found if finding.question == "drift"]
    if not drift:
        why = (
            "No arm is contrasted with a control: a drift could be anything."
            if reading.generations
            else "No drift was measured."
        )
        return Answer(question, "Not measured", "plain", (why,))
    lead = leading(drift)
    word, tone = _WORDS[lead.verdict]
    kept = [lead, *(finding for finding in drift if finding is not lead and finding.verdict == "found")]
    compounding = [f for f in found if f.question == "amplification" and f.word]
    if compounding:
        first = leading(compounding)
        kept.append(first)
        if first.word == "amplifying":
            word = "Yes, and amplifying"
        elif lead.verdict == "found":
            word = f"Yes, {first.word}"
    return Answer(question, word, tone, tuple(f"{brief(finding)}." for finding in kept[:3]))


def _sure(reading: Reading, found: Sequence[Finding]) -> Answer:
    said: list[str] = []
    replicates = max((row.n_replicates or 0 for row in reading.estimates), default=0)
    weak = 0 < replicates < _MANY_REPLICATES
    if replicates:
        said.append(
            f"{wording.count(replicates, 'replicate')} of the whole loop{f'; {_MANY_REPLICATES} or more are advised' if weak else ''}."
        )
    pairs = [row for row in select(reading.estimates, scope="judge", term="first_slot_excess", variant="", category="") if row.panel in ("anchor", "pairs")]  # fmt: skip
    if pairs:
        most = max(row.n for row in pairs)
        few = most < _MANY_PAIRS
        weak = weak or few
        said.append(
            f"{wording.count(most, 'pair')} in both orders for the judge{f'; {_MANY_PAIRS} or more are needed to claim that there is no bias' if few else ''}."
        )
    rated = select(
        reading.estimates, scope="judge", term=("score_mean", "position_permutation"), variant="", category=""
    )
    for term, what in (("score_mean", "text"), ("position_permutation", "set")):
        most = max((row.n for row in rated if row.term == term), default=0)
        if most:
            how = "scored by the judge" if what == "text" else "in all rotations for the judge"
            said.append(f"{wording.count(most, what)} {how}.")
    unseen = [f for f in found if f.verdict in ("undetected", "underpowered") and DETECTABLE.search(f.row.note)]
    if unseen:
        parts = [
            f"{wording.term_name(f.row.term).lower()} {wording.quantity(f.row, float(match.group(1)))}"
            for f in unseen[:4]
            if (match := DETECTABLE.search(f.row.note))
        ]
        said.append(f"Smallest effects that could have been seen with 80 % power: {'; '.join(parts)}.")
    undefined = sum(finding.verdict == "undefined" for finding in found)
    if undefined:
        said.append(f"{wording.count(undefined, 'finding')} cannot be told from this run at all; each says why.")
    if not said:
        return Answer("How sure are we?", "Not at all", "open", ("Nothing was measured.",))
    if weak or unseen:
        return Answer("How sure are we?", "Limited", "open", tuple(said))
    return Answer("How sure are we?", "Fairly sure", "plain", tuple(said))


def _change(reading: Reading, found: Sequence[Finding]) -> Answer:
    said = advice(reading, found)
    if not said:
        return Answer("What should I change?", "Nothing yet", "plain", ("Nothing that was found calls for a change.",))
    return Answer("What should I change?", wording.count(len(said), "thing"), "plain", tuple(said))
