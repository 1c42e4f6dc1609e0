"""The four questions that a reader comes with, each answered in a sentence that its interval and test license.

Is my judge biased? Is the bias growing in my outputs? How sure are we? What should I change? Every number is that of a
finding; nothing is computed here but counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from judgeloop.report import wording
from judgeloop.report.answers import advice
from judgeloop.report.loop_findings import less_varied
from judgeloop.report.reading import Reading, select
from judgeloop.report.verdicts import COMPOUNDING, Finding, Standing, is_probe, leading

Tone = Literal["found", "open", "calm", "plain"]

_WORDS: dict[Standing, tuple[str, Tone]] = {
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
_MOST_SAID = 8
_MOST_GROWN = 4
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
        name = wording.sentence_start(name)
    if finding.verdict == "undefined" or row.estimate is None:
        return f"{who}{name}: undefined"
    if row.term == "style_joint":
        test = wording.p_value(row.p_adjusted if row.p_adjusted is not None else row.p_value)
        moved = "move the verdict" if finding.verdict == "found" else "no effect shown"
        return f"{who}{name}: {moved} ({test})"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    limits = f", {wording.interval(row)}" if row.conf_low is not None else ""
    value = f"{who}{name}: {wording.signed_figure(row)}{unit}{limits}"
    if finding.question == "diversity" and finding.verdict == "found":
        return f"{value} ({'less' if less_varied(row) else 'more'} varied)"
    if finding.word in COMPOUNDING:
        return f"{value}; {finding.word}"
    if finding.verdict in ("undetected", "underpowered"):
        could = f"; this {'run' if row.n_replicates else 'sample'} could only have seen {wording.quantity(row, row.detectable)} or more" if row.detectable is not None else ""  # fmt: skip
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
    known = [one for group in some if group for one in _said_of(group) if one.verdict != "undefined"]
    known.sort(key=lambda finding: finding.verdict in ("underpowered", "undetected"))
    said = [f"{brief(finding, named=len(judges) > 1)}." for finding in known[:_MOST_SAID]]
    if len(known) > _MOST_SAID:
        said.append(f"{len(known) - _MOST_SAID} more below.")
    for asks, name in _NAMES.items():
        why = [finding.row.note for finding in leads if finding.question == asks and finding.verdict == "undefined"]
        if why:
            said.append(f"{name}: undefined{f' ({wording.reason(why[0], 200)})' if why[0] else ''}.")
    return Answer(question, word, tone, tuple(said))


def _said_of(group: Sequence[Finding]) -> list[Finding]:
    """What stands for a question and judge, and beside it the largest probe that was found: the findings come by harm."""
    lead = leading(group)
    probes = [one for one in group if one.verdict == "found" and is_probe(one.row.term) and one is not lead]
    own = [lead] if not is_probe(lead.row.term) or lead.row.term == "padding_probe" else []
    return list(dict.fromkeys([lead, *(probes[:1] if own else [])]))


def _growing(reading: Reading, found: Sequence[Finding]) -> Answer:
    question = "Is the bias growing in my outputs?"
    if not reading.arms:
        return Answer(question, "Not measured", "plain", (_of_log(reading),))
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
    others = [finding for finding in drift if finding is not lead and finding.verdict == "found"]
    others.sort(key=lambda finding: finding.row.term != "did_length")
    kept = [lead]
    compounding = [f for f in found if f.question == "amplification" and f.word in COMPOUNDING]
    of_lead = [
        f for f in compounding if (f.row.arm, f.row.contrast) == (lead.row.arm, lead.row.contrast)
    ] or compounding
    if of_lead:
        first = leading(of_lead)
        kept.append(first)
        if first.word == "amplifying":
            word = "Yes, and amplifying"
        elif lead.verdict == "found":
            word = f"Yes, {first.word}"
    alike = [f for f in found if f.question == "diversity" and f.verdict == "found" and less_varied(f.row)]
    if alike:
        same = [f for f in alike if (f.row.arm, f.row.contrast) == (lead.row.arm, lead.row.contrast)]
        kept.append((same or alike)[0])
        if lead.verdict != "found":
            word, tone = "Outputs grow alike", "found"
    return Answer(question, word, tone, tuple(f"{brief(finding)}." for finding in [*kept, *others][:_MOST_GROWN]))


def _of_log(reading: Reading) -> str:
    """Why verdicts alone do not answer whether the outputs drift."""
    if not reading.generations:
        return "These verdicts name no generation; `judgeloop run` closes the loop."
    last = reading.generations[-1]
    return (
        f"The log has generations {reading.generations[0]} to {last}, and what is said of the judge is of generation {last}. "
        "Whether its bias made the outputs drift takes arms and a control; `judgeloop run` closes the loop."
    )


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
            f"{wording.count(most, 'pair')} in both orders for the judge{f'; {_MANY_PAIRS} or more are advised, for fewer can miss a small taste for a slot' if few else ''}."
        )
    rated = select(
        reading.estimates, scope="judge", term=("score_mean", "position_permutation"), variant="", category=""
    )
    for term, what in (("score_mean", "text"), ("position_permutation", "set")):
        most = max((row.n for row in rated if row.term == term), default=0)
        if most:
            how = "scored by the judge" if what == "text" else "in all rotations for the judge"
            said.append(f"{wording.count(most, what)} {how}.")
    unseen = [f for f in found if f.verdict in ("undetected", "underpowered") and f.row.detectable is not None]
    if unseen:
        parts = [f"{_whose(f)} {wording.quantity(f.row, f.row.detectable)}" for f in _largest(unseen)]
        said.append(f"Smallest effects that could have been seen with 80 % power: {'; '.join(parts)}.")
    undefined = sum(finding.verdict == "undefined" for finding in found)
    if undefined:
        said.append(f"{wording.count(undefined, 'finding')} cannot be told from this run at all; each says why.")
    if not said:
        return Answer("How sure are we?", "Not at all", "open", ("Nothing was measured.",))
    if weak or unseen:
        return Answer("How sure are we?", "Limited", "open", tuple(said))
    return Answer("How sure are we?", "Fairly sure", "plain", tuple(said))


def _largest(unseen: Sequence[Finding]) -> list[Finding]:
    """Of each measure the contrast that saw the least, four measures at most."""
    known = sorted(unseen, key=lambda finding: -(finding.row.detectable or 0.0))
    return list({finding.row.term: finding for finding in reversed(known)}.values())[::-1][:4]


def _whose(finding: Finding) -> str:
    row = finding.row
    arms = f" ({wording.label(row.arm)} against {wording.label(row.contrast)})" if row.contrast else ""
    return f"{wording.sentence_start(wording.term_name(row.term))}{arms}"


def _change(reading: Reading, found: Sequence[Finding]) -> Answer:
    said = advice(reading, found)
    if not said:
        return Answer("What should I change?", "Nothing yet", "plain", ("Nothing that was found calls for a change.",))
    return Answer("What should I change?", wording.count(len(said), "thing"), "plain", tuple(said))
