"""The first screen: the four questions that a reader comes with, each with a word, its sentences, and what to change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from judgeloop.report import wording
from judgeloop.report.claims import (
    COMPOUNDING,
    Finding,
    Standing,
    by_positive_control,
    is_probe,
    leading,
    unscored_alike,
)
from judgeloop.report.findings import beyond_length, judge_rows, less_varied, own_effect
from judgeloop.report.reading import POSITIVE, Reading, select
from judgeloop.stats.estimate import FEW_JUDGED, Estimate
from judgeloop.stats.inference import tail
from judgeloop.stats.items import copied
from judgeloop.stats.multiplicity import ALPHA, holm

Tone = Literal["found", "open", "calm", "plain"]

_WORDS: dict[Standing, tuple[str, Tone]] = {
    "found": ("Yes", "found"),
    "unconfirmed": ("Perhaps", "open"),
    "unclear": ("Unclear", "open"),
    "equivalent": ("None within margin", "calm"),
    "undetected": ("Not detected", "plain"),
    "underpowered": ("Too few data", "plain"),
    "undefined": ("Not known", "plain"),
    "described": ("Not known", "plain"),
}
_SURE = 0.01
_OF_JUDGE = {"position": "Position", "content": "Length and style", "self_preference": "Own texts"}
"""The questions about a judge's bias, and their names."""
_GROWING = {
    "amplifying": "Yes, and amplifying",
    "as its strategy": "Yes, at its strategy's pace",
    "reversing": "Yes, after a reversal",
}
"""The answer where a drift was found, by the word on compounding that is no plain adjective."""
_MOST_BIASES = 8
_MOST_GROWN = 4
_MANY_REPLICATES = 8
_MANY_PAIRS = 300


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question, the word that answers it, and the sentences behind the word, the weightiest first."""

    question: str
    word: str
    tone: Tone
    sentences: tuple[str, ...]
    grounds: tuple[Finding, ...] = ()
    """The findings that the word follows from, the one that decides it first; empty where nothing was measured."""
    advice: tuple[Advice, ...] = ()
    """Of what to change: the sentences with the estimates that they rest on."""


AdviceKind = Literal[
    "both_orders", "keep_disagreeing_pairs", "consistent_only", "length", "obedience", "form", "added_words",
    "probe_padding", "separate_quality", "real_data", "grown_alike", "larger_pool", "strategy", "pin_version", "add_control", "unscored",
    "label_mass", "more_replicates",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to change: its kind, its sentence, and the estimates that it follows from (none: a setting, or a count)."""

    kind: AdviceKind
    sentence: str
    rows: tuple[Estimate, ...] = ()


def answers(reading: Reading, findings: Sequence[Finding]) -> list[QuestionAnswer]:
    """The four answers in the order in which they are asked. None rests on the drift of a positive control, which says what
    the others' is worth."""
    findings = [finding for finding in findings if reading.controls.get(finding.row.arm) != POSITIVE]
    biased = _biased(reading, findings)
    return [biased, _growing(reading, findings), _sure(reading, findings, biased), _change(reading, findings)]


def headline(reading: Reading, findings: Sequence[Finding], four: Sequence[QuestionAnswer]) -> str:
    """The report's first sentences: what the judge does, and what training on its picks does. They say no more than the first two of
    the ``four`` answers, by the same findings; empty where neither was measured."""
    biased, growing = four[0].grounds, four[1].grounds
    sentences = []
    if biased:
        lead = biased[0]
        sentences.append(
            wording.judge_headline(lead.row.judge, lead.verdict, _tastes(findings, lead), _within(findings, lead))
        )
    if growing and growing[0].question == "drift":
        sentences.append(_loop_sentence(reading, findings, growing))
    elif reading.arms and reading.generations and not any(row.term.startswith("did_") for row in reading.estimates):
        sentences.append(wording.loop_headline(None, "", ""))
    text = " ".join(sentences)
    arms = [growing[0].row.arm] if growing else [arm for arm in reading.arms if arm not in reading.controls]
    by_scores = bool(arms) and all(_kind(reading, arm) == "group_advantage" for arm in arms)
    return text.replace("its picks", f"{'its' if biased else 'the'} {'scores' if by_scores else 'picks'}")


def _tastes(findings: Sequence[Finding], lead: Finding) -> list[str]:
    """What is found of the lead's judge: the lead and the weightiest of one further question."""
    if lead.verdict != "found":
        return []
    found = [
        finding
        for finding in findings
        if finding.verdict == "found" and finding.row.judge == lead.row.judge and finding.question in _OF_JUDGE
    ]
    second = [finding for finding in found if finding.question != lead.question][:1]
    return [
        f"{wording.taste(finding.row)}{f', {finding.assumption}' if finding.assumption else ''}"
        for finding in (lead, *second)
    ]


def _within(findings: Sequence[Finding], lead: Finding) -> list[str]:
    """The names of what lies within its margin, the first three; empty unless the lead does."""
    if lead.verdict != "equivalent":
        return []
    rows = [finding.row for finding in findings if finding.verdict == "equivalent" and finding.question in _OF_JUDGE]
    return list(dict.fromkeys(wording.term_name(row.term) for row in rows if row.judge == lead.row.judge))[:3]


def _loop_sentence(reading: Reading, findings: Sequence[Finding], grounds: Sequence[Finding]) -> str:
    lead = grounds[0]
    contrasted = {
        row.arm
        for row in reading.estimates
        if row.term.startswith("did_") and reading.controls.get(row.arm) != POSITIVE and row.arm not in reading.controls
    }
    others = [
        finding
        for finding in findings
        if finding.question in ("drift", "diversity", "quality")
        and finding.verdict in ("found", "unconfirmed", "unclear")
        and reading.controls.get(finding.row.arm) != POSITIVE
    ]
    further = (
        ", and the drift compounds" if any(f.word == "amplifying" for f in grounds) and lead.verdict == "found" else ""
    )
    if lead.verdict != "found" and any(finding.question == "diversity" for finding in grounds):
        further = "; the outputs grew more alike"
    return wording.loop_headline(
        lead.row, lead.verdict, reading.controls.get(lead.row.contrast, "").replace("control", "") or lead.row.contrast,
        arm=lead.row.arm if len(contrasted) > 1 else "", others=bool(others), further=further,
    )  # fmt: skip


def brief(finding: Finding, *, named: bool = True) -> str:
    """A finding in few words: what, how much, its interval, what it takes for granted; if nothing was detected, what could
    have been.

    ``named``: with the names of judge or arms (not needed where there is one judge, or behind a finding on the same arms).
    """
    text = _in_short(finding, named=named)
    return f"{text}, {finding.assumption}" if finding.assumption else text


def _in_short(finding: Finding, *, named: bool) -> str:
    """``brief`` without the assumption."""
    row = finding.row
    name = wording.term_name(row.term)
    arms = f"{wording.label(row.arm)} against {wording.label(row.contrast)}: " if row.contrast and named else ""
    who = arms or (f"{wording.label(row.judge)}: " if row.judge and named else "")
    if who:
        name = wording.sentence_start(name)
    if finding.verdict == "undefined" or row.estimate is None:
        return f"{who}{name}: undefined"
    if row.term == "style_joint":
        test = wording.p_value(row.p_adjusted if row.p_adjusted is not None else row.p_value)
        condition = unscored_alike(row)
        moved = f"they change the verdict{', but only ' if condition else ''}{condition}"
        return f"{who}{name}: {moved if finding.verdict == 'found' or condition else 'no effect shown'} ({test})"
    if row.term == "length_shape":
        condition = f", but only {unscored_alike(row)}" if unscored_alike(row) else ""
        return (
            f"{who}{name} ({wording.p_value(row.p_adjusted if row.p_adjusted is not None else row.p_value)}){condition}"
        )
    if row.term == "phrase_spread":
        return f"{who}{name} ({wording.p_value(row.p_adjusted)})"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    effect = f" {wording.pick_share(row)}" if wording.is_pick_share(row) else f": {wording.signed_figure(row)}{unit}"
    limits = f", {wording.interval(row)}" if row.conf_low is not None else ""
    value = f"{who}{name}{effect}{limits}"
    if finding.question == "diversity" and finding.verdict == "found":
        return f"{value} ({'less' if less_varied(row) else 'more'} varied)"
    if finding.word in COMPOUNDING:
        return f"{value}; {finding.word}"
    if condition := unscored_alike(row):
        return f"{value}, {'' if finding.verdict == 'unconfirmed' else 'no effect of practical size, but '}only {condition}"
    if finding.verdict in ("undetected", "underpowered"):
        sample = "run" if row.n_replicates else "sample"
        smallest = f"; this {sample} could have seen {wording.detectable(row)}"
        unseen = smallest if row.detectable is not None else ""
        found = "not detected" if finding.verdict == "undetected" else "too few data"
        return f"{value}, {found}{unseen}{by_positive_control(row)}"
    if finding.verdict == "equivalent":
        return f"{value}, no effect of practical size{by_positive_control(row)}"
    if finding.verdict == "unclear" and by_positive_control(row):
        return f"{value}, not detected{by_positive_control(row)}"
    if finding.word == "not_linear":
        return f"{value}, on average within the margin, but it changes with {'the text' if is_probe(row.term) else 'length'}"
    if finding.verdict == "unconfirmed":
        return f"{value}, unconfirmed"
    return value


def _without_verdicts(reading: Reading) -> list[str]:
    """A sentence on each judge none of whose replies holds a verdict, and why: whatever else is said, it is not of that judge."""
    if reading.judgments.empty:
        return []
    sentences = []
    for judge, rows in reading.judgments.groupby("judge", sort=True):
        if (rows["verdict"] == "unscored").all():
            reasons = rows["reason"].replace("", "no reason given").value_counts()
            listed = ", ".join(f"{wording.label(str(reason))} {count:,}" for reason, count in reasons.items())
            sentences.append(f"{wording.label(str(judge))}: all {len(rows):,} verdicts are unscored ({listed}).")
    more = [f"{len(sentences) - _MOST_BIASES} more judges without a verdict."] if len(sentences) > _MOST_BIASES else []
    return [*sentences[:_MOST_BIASES], *more]


def _biased(reading: Reading, findings: Sequence[Finding]) -> QuestionAnswer:
    """Answered by estimates of bias alone: a raw preference may be one for quality, and never answers this."""
    on_judges = [finding for finding in findings if finding.question in _OF_JUDGE and finding.verdict != "described"]
    judges = list(dict.fromkeys(finding.row.judge for finding in on_judges))
    groups = [
        [finding for finding in on_judges if finding.question == question and finding.row.judge == judge]
        for question in _OF_JUDGE
        for judge in judges
    ]
    groups = [group for group in groups if group]
    leads = [leading(group) for group in groups]
    question = "Is my judge biased?"
    if not leads:
        nothing = (
            "These are texts without verdicts."
            if _of_texts(reading)
            else "Nothing in this run measures a bias of the judge."
        )
        return QuestionAnswer(question, "Not measured", "plain", (nothing,))
    # "None" may be said only where every question that was asked has that answer.
    lead = leading(leads)
    word, tone = _WORDS["unconfirmed" if _is_exploratory_and_unsure(lead) else lead.verdict]
    defined = [finding for group in groups for finding in _weightiest(group) if finding.verdict != "undefined"]
    grounds = [lead] if lead.verdict != "equivalent" else defined
    if lead.verdict in ("found", "equivalent"):
        word = ", ".join(dict.fromkeys([word, *(finding.assumption for finding in grounds if finding.assumption)]))
    rank = {"equivalent": 1, "undetected": 2, "underpowered": 2}
    defined.sort(key=lambda finding: rank.get(finding.verdict, 0))
    sentences = _without_verdicts(reading)
    sentences += [f"{brief(finding, named=len(judges) > 1)}." for finding in defined[:_MOST_BIASES]]
    if len(defined) > _MOST_BIASES:
        sentences.append(f"{len(defined) - _MOST_BIASES} more below.")
    for asked, name in _OF_JUDGE.items():
        reasons = [lead.row.note for lead in leads if lead.question == asked and lead.verdict == "undefined"]
        if reasons:
            sentences.append(f"{name}: undefined{f' ({wording.reason(reasons[0], 200)})' if reasons[0] else ''}.")
    return QuestionAnswer(question, word, tone, tuple(sentences), (lead,))


def _is_exploratory_and_unsure(lead: Finding) -> bool:
    """Whether what was found is exploratory and its adjusted p above 1 %: such findings, one in ten of which may be false, would bring
    the answers "Yes" that are false above 5 %."""
    p = lead.row.p_adjusted if lead.row.p_adjusted is not None else lead.row.p_value
    return lead.verdict == "found" and lead.row.family == "exploratory" and p is not None and p > _SURE


def _of_texts(reading: Reading) -> bool:
    """Whether the report is on texts by generation without verdicts."""
    return reading.environment.get("mode") == "texts"


def _weightiest(group: Sequence[Finding]) -> list[Finding]:
    """The leading finding on a question and judge, and beside it the largest probe that was found (findings are in the order
    of harm)."""
    lead = leading(group)
    if is_probe(lead.row.term) and lead.row.term != "padding_probe":
        return [lead]
    probes = [finding for finding in group if finding.verdict == "found" and is_probe(finding.row.term)]
    return [lead, *[probe for probe in probes if probe is not lead][:1]]


def _growing(reading: Reading, findings: Sequence[Finding]) -> QuestionAnswer:
    question = "Is the bias growing in my outputs?"
    if not reading.arms:
        return QuestionAnswer(question, "Not measured", "plain", (_why_no_drift(reading),))
    untrained = [arm for arm, pairs in reading.pairs_trained().items() if not pairs]
    lost = (*_drafts_lost(reading), *_nothing_trained(untrained))
    contrasted = [finding for finding in findings if finding.question == "drift" and finding.row.contrast]
    drift = [finding for finding in contrasted if finding.row.arm not in untrained]
    if contrasted and not drift:
        return QuestionAnswer(question, "Not measured", "plain", lost)
    if not drift:
        reason = (
            "No arm is contrasted with a control: a drift could have any cause."
            if reading.generations
            else "No drift was measured."
        )
        changes = [f"{brief(finding)}." for finding in findings if finding.question == "drift"]
        return QuestionAnswer(question, "Not measured", "plain", (*lost, reason, *changes[:_MOST_GROWN]))
    lead = leading(drift)
    word, tone = _WORDS[lead.verdict]
    others = [finding for finding in drift if finding is not lead and finding.verdict == "found"]
    others.sort(key=lambda finding: finding.row.term != "did_length")
    weightiest = [lead]
    compounding = [f for f in findings if f.question == "amplification" and f.word in COMPOUNDING]
    compounding = [f for f in compounding if _same_arms(f, lead)] or compounding
    # Of the drift that answers the question, or of another feature; then it is a sentence, and not the answer's word.
    own = [f for f in compounding if _same_arms(f, lead) and f.row.term.endswith(lead.row.term.removeprefix("did"))]
    if compounding:
        first = leading(own or compounding)
        weightiest.append(first)
        if own and lead.verdict == "found":
            word = _GROWING.get(first.word, f"Yes, {first.word}")
    alike = _grown_alike(findings)
    if alike:
        weightiest.append(([f for f in alike if _same_arms(f, lead)] or alike)[0])
        if lead.verdict != "found":
            word, tone = "Outputs grow alike", "found"
    if word.startswith("Yes") and lead.row.n_replicates is None:
        word = f"{word}, in this one training run"
    told = [*weightiest, *others][:_MOST_GROWN]
    sentences = [
        f"{brief(finding, named=finding is lead or not _same_arms(finding, before))}."
        for before, finding in zip([lead, *told], told, strict=False)
    ]
    further = (*_unequally_trained(reading), *_drafts_cut(reading))
    return QuestionAnswer(question, word, tone, (*lost, *sentences, *further), tuple(weightiest))


def _drafts_lost(reading: Reading) -> tuple[str, ...]:
    """A sentence on drafts without text, where they are many: whatever else is said, it is of the others."""
    drafts, reasons = reading.drafts()
    lost = sum(reasons.values())
    if lost <= _MUCH_UNSCORED * drafts:
        return ()
    mended = ""
    if {"truncated", "empty"} & set(reasons):
        mended = "; a thought that uses up `policy.max_tokens` leaves no text: raise it"
    return (f"{lost:,} of {drafts:,} drafts have no text and do not compete{mended}.",)


def _nothing_trained(arms: Sequence[str]) -> tuple[str, ...]:
    """A sentence on arms in which nothing was trained: that these do not drift is no finding."""
    if not arms:
        return ()
    listed = ", ".join(f"`{arm}`" for arm in arms)
    return (f"In {listed} no text was preferred to another, so that nothing was trained: that outputs do not drift there says nothing of the judge.",)  # fmt: skip


def _unequally_trained(reading: Reading) -> tuple[str, ...]:
    """A sentence on trainings that had more to learn from than the control's, or less."""
    pairs = {arm: count for arm, count in reading.pairs_trained().items() if count}
    controls = [count for arm, count in pairs.items() if reading.controls.get(arm, POSITIVE) != POSITIVE]
    if not any(max(count, control) > _MUCH_MORE * min(count, control) for count in pairs.values() for control in controls):  # fmt: skip
        return ()
    listed = ", ".join(f"{count:.0f} in `{arm}`" for arm, count in pairs.items())
    return (f"A generation's picks preferred a text in so many pairs on average: {listed}. Where an arm trains on more than its control, part of its drift beyond it may come from more training.",)  # fmt: skip


def _drafts_cut(reading: Reading) -> tuple[str, ...]:
    """A sentence on drafts that may be no longer, where they are many in an arm: what is said of length is of what was left."""
    shares = {arm: share for arm, share in reading.cut_drafts().items() if share > _MUCH_CUT}
    if not shares:
        return ()
    listed = ", ".join(f"{100 * share:.0f} % in `{arm}`" for arm, share in shares.items())
    return (
        f"Drafts of the last generation were cut at their longest, `max_tokens` ({listed}): lengths there are lower bounds, and a larger limit shows them in full.",
    )


def _same_arms(finding: Finding, other: Finding) -> bool:
    return (finding.row.arm, finding.row.contrast) == (other.row.arm, other.row.contrast)


def _grown_alike(findings: Sequence[Finding]) -> list[Finding]:
    return [f for f in findings if f.question == "diversity" and f.verdict == "found" and less_varied(f.row)]


def _why_no_drift(reading: Reading) -> str:
    """Why verdicts alone do not answer whether the outputs drift."""
    if not reading.generations:
        return "These verdicts name no generation; `judgeloop run` closes the loop."
    last = reading.generations[-1]
    return (
        f"The log has generations {reading.generations[0]} to {last}; the findings on the judge are those of generation {last}. "
        "Whether its bias made the outputs drift takes arms and a control; `judgeloop run` closes the loop."
    )


def _sure(reading: Reading, findings: Sequence[Finding], biased: QuestionAnswer) -> QuestionAnswer:
    """How far the answers may be relied on: no further than whether the judge is biased is known."""
    sentences: list[str] = []
    replicates = max((row.n_replicates or 0 for row in reading.estimates), default=0)
    weak = 0 < replicates < _MANY_REPLICATES
    if replicates:
        sentences.append(
            f"{wording.count(replicates, 'replicate')} of the whole loop{f'; {_MANY_REPLICATES} or more are advised' if weak else ''}."
        )
    elif _of_texts(reading):
        weak = True
        sentences.append(
            "One training run: intervals are over its items, and say nothing of what another run would do."
        )
    slots = select(reading.estimates, scope="judge", term="first_slot_excess", variant="", category="")
    pairs, items = max(((row.n, row.n_items) for row in slots if row.panel in ("anchor", "pairs")), default=(0, 0))
    if pairs:
        few = pairs < _MANY_PAIRS
        of_few = 0 < items < FEW_JUDGED[0] < pairs
        weak = weak or few or of_few
        of_items = f" of {wording.count(items, 'item')}" if of_few else ""
        why = f"; {_MANY_PAIRS} or more are advised: fewer can miss a small preference for a slot" if few else ""
        if of_few:
            why = f"; {FEW_JUDGED[0]} items or more are needed to say that there is no bias"
        single = _is_of_single_orders(reading)
        shown = "for the judge, each in one order that was drawn by lot" if single else "in both orders for the judge"
        sentences.append(f"{wording.count(pairs, 'pair')}{of_items} {shown}{why}.")
    for term, noun, how in (
        ("score_mean", "text", "scored by the judge"),
        ("position_permutation", "set", "in all rotations for the judge"),
    ):
        rated = select(reading.estimates, scope="judge", term=term, variant="", category="")
        most = max((row.n for row in rated), default=0)
        if most:
            sentences.append(f"{wording.count(most, noun)} {how}.")
    mass = _label_mass(reading)
    if mass is not None:
        sentences.append(
            f"Verdicts were read from log-probabilities; the offered labels hold {100 * mass:.0f} % of the first token's probability (median)."
        )
    copies, originals = copied(reading.items)
    if copies:
        sentences.append(
            f"{copies:,} of {len(reading.items):,} items are near-copies of one another by the words of their prompts or texts, and count as "
            f"{wording.count(originals, 'item')} in every interval over items."
        )
    unseen = [f for f in findings if f.verdict in ("undetected", "underpowered") and f.row.detectable is not None]
    if unseen:
        parts = [f"{_measure(f)}: {wording.detectable(f.row)}" for f in _least_sensitive(unseen)]
        sentences.append(f"Effects that would have been seen with 80 % power: {'; '.join(parts)}.")
    undefined = sum(finding.verdict == "undefined" for finding in findings)
    if undefined:
        sentences.append(
            f"{wording.count(undefined, 'finding is', 'findings are')} undefined in this run, each with its reason."
        )
    if not sentences:
        return QuestionAnswer("How sure are we?", "Not at all", "open", ("Nothing was measured.",))
    open_ = ("unconfirmed", "unclear", "underpowered", "undefined")
    unknown = any(ground.verdict in open_ for ground in biased.grounds)
    blind = any(finding.row.positive_control == "not_seen" and finding.verdict == "unclear" for finding in findings)
    if weak or unseen or unknown or blind:
        return QuestionAnswer("How sure are we?", "Limited", "open", tuple(sentences))
    return QuestionAnswer("How sure are we?", "Fairly sure", "plain", tuple(sentences))


def _label_mass(reading: Reading) -> float | None:
    """The median probability that the offered labels hold, over all logprob replies that list one; None where there are none."""
    if "label_mass" not in reading.judgments:
        return None
    masses = reading.judgments["label_mass"].dropna()
    return float(masses.median()) if len(masses) else None


def _least_sensitive(unseen: Sequence[Finding]) -> list[Finding]:
    """Of each measure the finding with the largest detectable effect, four measures at most."""
    ordered = sorted(unseen, key=lambda finding: -(finding.row.detectable or 0.0))
    return list({finding.row.term: finding for finding in reversed(ordered)}.values())[::-1][:4]


def _measure(finding: Finding) -> str:
    """ "drift of length beyond control (judge against random)"."""
    row = finding.row
    arms = f" ({wording.label(row.arm)} against {wording.label(row.contrast)})" if row.contrast else ""
    return f"{wording.sentence_start(wording.term_name(row.term))}{arms}"


def _change(reading: Reading, findings: Sequence[Finding]) -> QuestionAnswer:
    lines = advice(reading, findings)
    if not lines:
        return QuestionAnswer(
            "What should I change?", "Nothing yet", "plain", ("Nothing that was found calls for a change.",)
        )
    sentences = tuple(line.sentence for line in lines)
    return QuestionAnswer(
        "What should I change?", wording.count(len(lines), "thing"), "plain", sentences, advice=tuple(lines)
    )


# What to change.

_SLOTS = ("first_slot_excess", "identical_pair_excess")
_LENGTH = ("padding_probe", "length_ame", "gold_tied_longer_excess")
_IDENTIFIED = (*_LENGTH, "style_joint", "score_length_slope")
_OBEDIENCE = {
    "injection_probe": "obeys orders in a text",
    "authority_probe": "trusts a text because it names an authority",
    "bandwagon_probe": "trusts a text because many are said to agree",
    "self_name_probe": "favours a text for the name in it",
}
_MUCH_UNSCORED = 0.02
_MUCH_CUT = 0.1
"""A share of drafts that were cut, above which their mean length is no good measure of the uncut one's."""
_MUCH_MORE = 1.25
"""Times as many pairs, from which on a difference between arms may be one of how much was trained."""
_LITTLE_MASS = 0.3
_MUCH_USED = 0.5
_MOST_ADVICE = 5


def advice(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    """What to change, in the order of their weight, five at most, each from a finding that answers "Yes" or from what was not
    measured."""
    findings = [finding for finding in findings if not _is_exploratory_and_unsure(finding)]
    if _of_texts(reading):
        return _on_texts(reading, findings)
    lines = [
        *_position(reading, findings),
        *_content(reading, findings),
        *_loop(reading, findings),
        *_measuring(reading, findings),
    ]
    return list({line.sentence: line for line in lines}.values())[:_MOST_ADVICE]


def _on_texts(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    """What to log besides, and what to train on."""
    lines = []
    if not any(row.contrast for row in reading.estimates):
        text = (
            "Add the texts of a model trained without this judge (random picks, or people's) on the same prompts, as an arm with `control`: "
            "without it the cause of a drift is not known."
        )
        lines.append(Advice("add_control", text))
    if not any(row.n_replicates for row in reading.estimates):
        text = "Train once more with another seed and give both as `replicate`: one run shows what happened, not what would happen again."
        lines.append(Advice("more_replicates", text))
    if alike := _grown_alike(findings):
        name = wording.feature_name(wording.feature_of(alike[0].row.term, "did_"))
        text = f"The outputs grow alike ({name}): mix real data into every training set, and watch diversity beside length."
        lines.append(Advice("grown_alike", text, _rows(alike)))
    return lines


def _position(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    lines = []
    slots = _rows([f for f in findings if f.verdict == "found" and f.row.term in _SLOTS])
    if slots:
        rules = {arm: _rule(reading, arm) for arm in reading.arms if arm not in reading.controls}
        averaged = [arm for arm, rule in rules.items() if rule == "swap_average"]
        how = "average the two verdicts"
        if averaged:
            how = f"average the two verdicts, as in arm {_names(averaged)}{_drifted(reading, averaged[0])}"
        elif "raw" in rules.values():
            how = "train on the average of both (`label_rule: swap_average`)"
        text = f"The judge favours a slot: show every pair in both orders and {how}."
        lines.append(Advice("both_orders", text, slots))
        if not _is_of_single_orders(reading):
            text = f"Do not merely drop the pairs that disagree: {_among_kept(reading)}."
            lines.append(Advice("keep_disagreeing_pairs", text, _consistency_factors(reading)))
    if any(_rule(reading, arm) == "consistent_only" for arm in reading.arms):
        text = f"`label_rule: consistent_only` keeps only the pairs that both orders decide alike: {_among_kept(reading)}. `swap_average` removes position without that."
        lines.append(Advice("consistent_only", text, _consistency_factors(reading)))
    return lines


def _is_of_single_orders(reading: Reading) -> bool:
    """Whether no pair was judged in both orders, so that no two verdicts can disagree."""
    conflicts = judge_rows(reading.estimates, "conflict_rate")
    return bool(conflicts) and all(row.estimate is None for row in conflicts)


def _consistency_factors(reading: Reading) -> tuple[Estimate, ...]:
    return tuple(row for row in judge_rows(reading.estimates, "consistency_factor") if row.estimate is not None)


def _among_kept(reading: Reading) -> str:
    """What dropping the pairs that the order decides does to every preference: as measured, else that it makes all larger; or
    that no pair is left."""
    rows = _consistency_factors(reading)
    conflicts = judge_rows(reading.estimates, "conflict_rate")
    if conflicts and all(row.estimate == 1.0 for row in conflicts):
        return "none would be left"
    if not rows:
        return "among the others every preference is larger, that for quality as well as those for length and style, and twice as large where two calls on a pair are independent"
    row = max(rows, key=lambda row: row.estimate or 0.0)
    whose = f" of {wording.label(row.judge)}" if len(rows) > 1 else " of this judge"
    return (
        f"among the others every preference{whose}, that for quality as well as those for length and style, is {wording.figure(row, row.estimate)} times "
        f"as large as in the average of both orders ({wording.interval(row)})"
    )


def _content(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    lines = []
    longer = [f for f in findings if f.verdict == "found" and f.row.term in _LENGTH]
    if longer:
        favoured = "longer" if (longer[0].row.estimate or 0.0) > 0 else "shorter"
        text = f"The judge favours {favoured} answers{_given(longer[0])}: {_length_rule(reading)}, and say in the prompt that length does not count."
        lines.append(Advice("length", text, _rows(longer)))
    probed = [f for f in findings if f.verdict == "found" and is_probe(f.row.term) and f.row.term not in _LENGTH]
    own = {id(f): own_effect(reading.estimates, f.row) for f in probed}
    beyond = [f for f in probed if beyond_length(f.row, own[id(f)]) or not _adds_words(f, own[id(f)])]
    for finding in beyond:  # the most harmful first
        if finding.row.term in _OBEDIENCE and (finding.row.estimate or 0.0) > 0:
            text = f"The judge {_OBEDIENCE[finding.row.term]}: mark candidates as data in the prompt, strip such passages before judging, or take another judge."
            lines.append(Advice("obedience", text, (finding.row,)))
    style = [f for f in beyond if f.row.term not in _OBEDIENCE]
    if style:
        text = f"The judge reacts to form alone ({_edits(style)}): strip it before judging, or judge with a prompt that asks for content only."
        lines.append(Advice("form", text, _rows(style)))
    words = [f for f in probed if f not in beyond and own[id(f)] is not None]
    if words:
        text = f"{wording.sentence_case(_edits(words, 6))}: these edits add words, and a preference for length alone could explain that they win. Remove that preference first, then probe again."
        lines.append(Advice("added_words", text, _rows(words)))
    unexplained = [f for f in probed if f not in beyond and own[id(f)] is None]
    if unexplained:
        text = f"{wording.sentence_case(_edits(unexplained))}: these edits win, but they add words too: probe `padding` as well, which measures the effect of added words alone."
        lines.append(Advice("probe_padding", text, _rows(unexplained)))
    probed_at_all = any(is_probe(row.term) and row.status != "undefined" for row in reading.estimates)
    at_gold = any(
        row.term in _IDENTIFIED and row.variant == "" and row.status != "undefined" for row in reading.estimates
    )
    one_gold = any(row.variant == "given_gold" and row.status != "undefined" for row in reading.estimates)
    where = "`panels: {probe: all}`" if reading.arms else "`judgeloop audit --probes all`"
    joint = [f for f in findings if f.verdict == "found" and f.row.term == "style_joint"]
    if joint and not lines and not probed_at_all:
        text = f"Style and length together change the verdict, and which of them does is not shown: judge edited copies ({where}), which change one thing at a time."
        lines.append(Advice("separate_quality", text, _rows(joint)))
    is_known = bool(reading.arms) and set(reading.arms) <= {*reading.controls, *reading.known_tastes}
    if not probed_at_all and not at_gold and reading.estimates and not is_known:
        by_hand = "again (`gold_2`)" if one_gold else "by hand (`judgeloop export --format labels`)"
        what = "One gold that may err" if one_gold else "This run"
        text = f"{what} cannot separate a preference for length or style from one for quality: judge edited copies ({where}), or label some pairs {by_hand}."
        lines.append(Advice("separate_quality", text))
    return lines


def _rows(findings: Sequence[Finding]) -> tuple[Estimate, ...]:
    return tuple(finding.row for finding in findings)


def _given(finding: Finding) -> str:
    """The finding's assumption in brackets; empty where it has none."""
    return f" ({finding.assumption})" if finding.assumption else ""


def _adds_words(finding: Finding, own: Estimate | None) -> bool:
    """Whether an edit's length could be a part of its effect: it has a row beyond length, or no padding was probed and it adds
    text. White space and Markdown's removal add none."""
    return own is not None or finding.row.term not in ("whitespace_probe", "markdown_removed_probe")


def _edits(findings: Sequence[Finding], most: int = 4) -> str:
    names = list(dict.fromkeys(wording.probe_name(finding.row.term) for finding in findings))
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def _length_rule(reading: Reading) -> str:
    """What can be done about length in this run: only a fitted signal can be controlled for it."""
    arms = [arm for arm in reading.arms if arm not in reading.controls]
    if not arms:
        return "compare at equal length, or control for length"
    controlled = [arm for arm in arms if _rule(reading, arm) == "length_controlled"]
    if controlled:
        return (
            f"train as in arm {_names(controlled)} (`label_rule: length_controlled`){_drifted(reading, controlled[0])}"
        )
    unfitted = dict.fromkeys(kind for arm in arms if (kind := _kind(reading, arm)) in ("best_of_n", "group_advantage"))
    if unfitted and all(_kind(reading, arm) in unfitted for arm in arms):
        return f"train on a fitted signal that can be controlled for it (`signal: {{kind: bradley_terry, label_rule: length_controlled}}`; {' and '.join(unfitted)} ha{'ve' if len(unfitted) > 1 else 's'} none)"
    return "train with `label_rule: length_controlled`"


def _drifted(reading: Reading, arm: str) -> str:
    """ ", whose length drifted +0.95 doublings beyond random (95 % interval 0.83 to 1.07)"; empty where that is not known."""
    last = reading.generations[-1] if reading.generations else None
    rows = select(reading.estimates, term="did_length", arm=arm, variant="", category="", generation=last)
    if not rows or rows[0].estimate is None:
        return ""
    row = rows[0]
    return f", whose length drifted {wording.signed_figure(row)} {wording.unit_name(row)} beyond {wording.label(row.contrast)} ({wording.interval(row)})"


def _names(arms: Sequence[str]) -> str:
    return ", ".join(wording.label(arm) for arm in arms)


def _loop(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    lines = []
    alike = _grown_alike(findings)
    mixed = "mix real data into every training set (`strategy: {real_fraction: 0.3}`)"
    amplifying = [finding for finding in findings if finding.word == "amplifying"]
    if amplifying:
        text = f"The drift compounds: {mixed}, and stop after fewer steps."
        lines.append(Advice("real_data", text, _rows(amplifying)))
    elif alike:
        name = wording.feature_name(wording.feature_of(alike[0].row.term, "did_"))
        text = f"The outputs grow alike ({name}): {mixed}, and watch diversity beside length."
        lines.append(Advice("grown_alike", text, _rows(alike)))
    lines += _pools(reading)
    for row in _apart(select(reading.estimates, term="strategy_gap_length", variant="equal_tokens")):
        drifts = select(reading.estimates, term="drift_length", variant="equal_tokens")
        sizes = {drift.arm: drift.estimate for drift in drifts if drift.estimate is not None}
        if sizes.get(row.arm, 0.0) * sizes.get(row.contrast, 0.0) <= 0.0:
            continue  # one is not known, or they drift apart, and neither drifts less
        better, other = sorted((row.arm, row.contrast), key=lambda arm: abs(sizes[arm]))
        text = f"At equal training tokens {wording.label(better)} drifts less in length than {wording.label(other)} ({_gap(row, 'less')}{_tokens(reading, better, other)})"
        stepwise = select(reading.estimates, term=row.term, arm=row.arm, contrast=row.contrast, variant="")
        if stepwise and not _same_sign(stepwise[0], row):
            shown = _gap(stepwise[0], "more" if (stepwise[0].estimate or 0.0) * (row.estimate or 0.0) < 0 else "less")
            text += f"; step by step no such difference is shown ({shown}): choose by which of the two your training holds equal."
        else:
            text += ": prefer its data strategy."
        lines.append(Advice("strategy", text, (row,)))
    changed = [finding for finding in findings if finding.question == "judge_drift" and finding.verdict == "found"]
    if changed:
        text = "The judge itself changed between generations: pin its model version, or judge everything again with one version."
        lines.append(Advice("pin_version", text, _rows(changed)))
    if reading.generations and reading.arms and not reading.controls:
        text = "Add a control arm (`random: {judge: {kind: random}}`): without it the cause of a drift is not known."
        lines.append(Advice("add_control", text))
    return lines


def _apart(gaps: Sequence[Estimate]) -> list[Estimate]:
    """Those of the gaps, means over replicates, that are told from 0 by t tests at 5 %, with Holm's correction for their number."""
    tested = [row for row in gaps if row.estimate and row.std_error is not None and (row.n_replicates or 0) > 1]
    sizes = [abs(row.estimate or 0.0) / row.std_error if row.std_error else math.inf for row in tested]
    p_values = [2.0 * tail(size, (row.n_replicates or 0) - 1.0) for size, row in zip(sizes, tested, strict=True)]
    return [row for row, p in zip(tested, holm(np.array(p_values)), strict=True) if p <= ALPHA["confirmatory"]]


def _same_sign(row: Estimate, other: Estimate) -> bool:
    """Whether the interval of ``row`` lies on the side of 0 on which ``other`` lies."""
    limit = row.conf_low if (other.estimate or 0.0) > 0 else row.conf_high
    return limit is not None and limit * (other.estimate or 0.0) > 0


def _gap(row: Estimate, word: str) -> str:
    """ "0.66 doublings less, 95 % interval 0.10 to 1.22": how far one arm drifts beyond another, as a size."""
    size = f"{wording.size(row, abs(row.estimate or 0.0))} {word}"
    if row.conf_low is None or row.conf_high is None:
        return size
    low, high = sorted(math.copysign(1.0, row.estimate or 0.0) * limit for limit in (row.conf_low, row.conf_high))
    return f"{size}, {wording.level(row)} {wording.figure(row, low)} to {wording.figure(row, high)}"


def _pools(reading: Reading) -> list[Advice]:
    """A larger pool for arms that have used up most of theirs: what is left of it, and not the judge, slows their drift."""
    lines = []
    for arm in reading.arms:
        rows = select(
            reading.estimates, term=("pool_range_used_length", "pool_range_used_style_score"), arm=arm, category=""
        )
        used = [row for row in rows if row.estimate is not None and row.estimate >= _MUCH_USED]
        if used and arm not in reading.controls:
            most = max(used, key=lambda row: row.estimate or 0.0)
            feature = wording.feature_name(wording.feature_of(most.term, "pool_range_used_"))
            own = _block(_block(_block(reading.experiment.get("arms")).get(arm)).get("policy"))
            size = own.get("pool_size")
            now = f" (`policy: {{pool_size: {4 * size}}}`, now {size})" if isinstance(size, int) else ""
            text = f"The texts of arm {wording.label(arm)} have drifted through {100 * (most.estimate or 0.0):.0f} % of their pool's range in {feature}, and what is left slows any further drift: draft more texts an item{now}."
            lines.append(Advice("larger_pool", text, (most,)))
    return lines


def _tokens(reading: Reading, arm: str, other: str) -> str:
    """ "; over all generations it trains on 2.4 times the tokens"; empty where that is not known."""
    rows = select(reading.estimates, term="training_tokens", variant="", category="")
    tokens = {row.arm: row.estimate for row in sorted(rows, key=lambda row: row.generation or 0) if row.estimate}
    own, others = tokens.get(arm), tokens.get(other)
    return f"; over all generations it trains on {own / others:.1f} times the tokens" if own and others else ""


def _measuring(reading: Reading, findings: Sequence[Finding]) -> list[Advice]:
    lines = []
    total = len(reading.judgments)
    unscored = int((reading.judgments["verdict"] == "unscored").sum()) if total else 0
    if total and unscored / total > _MUCH_UNSCORED:
        mend = (
            "their reasons stand in the table of unscored judgments" if "analyze" in reading.experiment
            else "`judgeloop doctor` shows which verdict mode this judge can do"
        )  # fmt: skip
        text = f"{100 * unscored / total:.1f} % of replies have no verdict: {mend}."
        lines.append(Advice("unscored", text))
    mass = _label_mass(reading)
    if mass is not None and mass < _LITTLE_MASS:
        text = f"The offered labels hold only {100 * mass:.0f} % of the first token's probability (median): ask for json or text verdicts (`--verdict text`)."
        lines.append(Advice("label_mass", text))
    blind = [f for f in findings if f.row.positive_control == "not_seen" and f.verdict == "unclear"]
    if blind:
        text = (
            "Under the positive control, a judge known to have such a taste, nothing drifted detectably either: train harder "
            "(more steps, a smaller tau, a higher learning rate) or on more replicates, before anything is concluded from drift that is not seen."
        )
        return [*lines, Advice("more_replicates", text, _rows(blind[:1]))]
    open_drift = [
        f
        for f in findings
        if f.question == "drift" and f.verdict in ("undetected", "underpowered") and f.row.n_replicates
    ]
    if open_drift:
        replicates = open_drift[0].row.n_replicates or 0
        text = f"To see a drift half the size takes about four times the replicates: {4 * replicates} instead of {replicates} (`judgeloop plan` counts what they cost)."
        if not reading.known_tastes:
            text += " An arm with a known taste (`longer: {judge: {kind: rule, feature: length}}`) shows whether this run passes one on at all."
        lines.append(Advice("more_replicates", text, _rows(open_drift[:1])))
    return lines


def _rule(reading: Reading, arm: str) -> str:
    """The label rule of an arm, from the experiment as it stands in the run folder; empty where scores are learned from."""
    if _kind(reading, arm) == "group_advantage":
        return ""
    return str(_signal(reading, arm).get("label_rule", "raw"))


def _kind(reading: Reading, arm: str) -> str:
    """The kind of an arm's signal, from the experiment as it stands in the run folder."""
    return str(_signal(reading, arm).get("kind") or "bradley_terry")


def _signal(reading: Reading, arm: str) -> dict[str, Any]:
    """The keys of ``signal`` that hold for an arm: the experiment's, and the arm's own over them."""
    own = _block(_block(reading.experiment.get("arms")).get(arm))
    return {**_block(reading.experiment.get("signal")), **_block(own.get("signal"))}


def _block(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
