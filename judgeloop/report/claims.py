"""Findings: the standing of an estimate, by its verdict, interval, status and adjusted test, and its sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from judgeloop.report import wording
from judgeloop.stats.estimate import FEW_JUDGED, RATE_MARGIN, Estimate, Verdict, few_judged
from judgeloop.stats.judge.content import COMPARED_WITH_GOLD, takes_gold_as_exact
from judgeloop.stats.multiplicity import ALPHA

Standing = Literal[
    "found", "unconfirmed", "unclear", "undetected", "underpowered", "undefined", "described", "equivalent"
]
"""How a report sorts, names and colours a finding; the row's own word is ``Estimate.verdict``.

- ``found``: the interval excludes 0 and the adjusted test agrees
- ``unconfirmed``: the interval excludes 0; the adjusted test does not agree, or the sample is too small
- ``unclear``: of compounding, neither growth nor decline is shown; of a slope, the effect has another shape than a slope; of a
  drift, none is shown, and none of the positive control either
- ``undetected``: the interval covers 0
- ``underpowered``: too few data
- ``undefined``: no number; the row's note gives the reason
- ``described``: a measurement without a claim
- ``equivalent``: within the margin around 0
"""

VERDICT_NAMES: dict[Standing, str] = {
    "found": "Found",
    "unconfirmed": "Unconfirmed",
    "unclear": "Unclear",
    "underpowered": "Too few data",
    "undetected": "Not detected",
    "undefined": "Undefined",
    "equivalent": "None within margin",
    "described": "Measured",
}
QUESTIONS = {
    "position": "Does the judge favour a slot?",
    "content": "Does the judge favour length or style?",
    "self_preference": "Does the judge favour itself?",
    "drift": "Did the judge make the model drift?",
    "amplification": "Does the drift compound?",
    "diversity": "Did the outputs' diversity change?",
    "quality": "Did correctness change?",
    "judge_drift": "Did the judge itself change?",
}
SD_MARGIN = 0.1
"""Equivalence margin for features, in generation-0 standard deviations (docs/method.md, "Equivalence margins")."""
COMPOUNDING: dict[Verdict, Standing] = {
    "amplifying": "found",
    "saturating": "described",
    "as its strategy": "described",
    "reversing": "described",
    "steady": "described",
    "compounding unclear": "unclear",
}
"""The words on compounding, with their standing."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One plain sentence on one estimate (``row``), the question it answers, and its standing."""

    question: str
    verdict: Standing
    sentence: str
    row: Estimate
    several: bool = False
    """The sentence sums up several rows of one contrast; ``row`` is the first of them."""
    with_number: bool = False
    """Undefined, with a number under a further assumption (gold taken as exact), on which no claim rests."""
    assumption: str = ""
    """What the finding takes for granted, in a few words, for wherever it is said in short."""

    @property
    def word(self) -> Verdict:
        """The row's own verdict word; empty where the sentence sums up several rows."""
        return "" if self.several else self.row.verdict


def is_probe(term: str) -> bool:
    """True for a probe's level (``bold_probe``), not for its drift (``judge_drift_bold_probe``)."""
    return term.endswith("_probe") and not term.startswith("judge_drift_")


def leading(findings: Sequence[Finding]) -> Finding:
    """The finding that answers a question: claims before open findings, those before "none" and plain measurements.

    A question with an undefined or undetected part is not answered by "none". A probe that applies to none of the texts does
    not count as such a part, where anything else was measured.
    """
    applicable = [
        finding for finding in findings if not (finding.verdict == "undefined" and is_probe(finding.row.term))
    ]
    return min(applicable or findings, key=_rank)


_BY_HARM: tuple[Standing, ...] = (
    "found", "unconfirmed", "unclear", "undetected", "underpowered", "equivalent", "described", "undefined",
)  # fmt: skip


def harm(row: Estimate, verdict: Standing | None = None) -> tuple[int, float]:
    """Sort key, the most harmful first: by standing (found, then open, then none), then by the estimate's magnitude.

    ``verdict``: the standing of the finding on the row (default: ``verdict_of`` the row).
    """
    return _BY_HARM.index(verdict or verdict_of(row, margin_of(row))), -abs(row.estimate or 0.0)


def verdict_name(finding: Finding) -> str:
    """The verdict as a label: the row's own word on compounding, or "Unchanged", else the name of the standing."""
    return finding.word.capitalize() if finding.word in (*COMPOUNDING, "unchanged") else VERDICT_NAMES[finding.verdict]


_LEADING = ("first_slot_excess", "length_ame", "padding_probe", "score_length_slope", "did_length")


def _rank(finding: Finding) -> tuple[float, bool, bool, bool]:
    """Sort key: by standing; among equals the confirmatory before the exploratory, and position and length before others."""
    # Words that claim no growth answer their question too: they stand before what is undefined.
    place = (
        4.5
        if finding.verdict == "described" and finding.word in COMPOUNDING
        else list(VERDICT_NAMES).index(finding.verdict)
    )
    return place, finding.row.family != "confirmatory", finding.row.term not in _LEADING, finding.several


def verdict_of(row: Estimate, margin: float | None) -> Standing:
    """The row's standing. ``margin``: of equivalence in the row's unit, for a row without a verdict; None where none is stated.

    It follows the row's own verdict. A row without one (a description, or a run folder of an earlier version) is judged by
    its interval: it is equivalent if the whole interval lies within the margin, which is stricter than two one-sided tests at
    the same level.
    """
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    if row.conf_low is None or row.conf_high is None or row.term in COMPARED_WITH_GOLD or takes_gold_as_exact(row):
        return "described"
    if _could_not_see(row) and not away(row):
        return "unclear"
    match row.verdict:
        case "over-optimised":
            return "found"
        case "found" | "drifting":
            return "unconfirmed" if row.status == "underpowered" or _refuted(row) else "found"
        case "none":
            return "equivalent"
        case "found_if_unscored_alike":
            return "unconfirmed"
        case "none_if_unscored_alike":
            return "undetected"
        case "not_linear":
            return "unclear"
        case "undetected":
            return "undetected" if _could_see(row) else "underpowered"
        case "cannot_tell":
            if away(row):
                return "unconfirmed"
            return "undetected" if _measured_on_few(row) else "underpowered"
        case "":
            return _by_interval(row, margin, row.conf_low, row.conf_high)
        case _:
            return "described"


def _could_not_see(row: Estimate) -> bool:
    """Whether a judge that is known to have a taste of this kind made no drift that the run shows."""
    return row.positive_control in ("not_seen", "itself_not_seen")


def by_positive_control(row: Estimate) -> str:
    """What the positive control says of a drift that is not shown, to stand behind it; empty where there is none."""
    if away(row) or row.status == "undefined":
        return ""
    match row.positive_control:
        case "seen":
            return "; the positive control's was detected: this run could see a taste as strong as that"
        case "not_seen":
            return ", and the positive control's was not either: this run could not see such a taste"
        case "itself_not_seen":
            return ": this run could not see such a taste, and that other arms show none says nothing of their judges"
    return ""


def _by_interval(row: Estimate, margin: float | None, low: float, high: float) -> Standing:
    if row.status == "underpowered":
        return "unconfirmed" if away(row) else "underpowered"
    within = margin is not None and low >= -margin and high <= margin
    if within and not few_judged(row.scope, row.n, row.n_items):
        return "equivalent"
    if not away(row):
        return "undetected"
    return "unconfirmed" if _refuted(row) else "found"


def _refuted(row: Estimate) -> bool:
    """Whether the test that is adjusted for several of them does not agree with the interval."""
    return row.p_adjusted is not None and row.p_adjusted > ALPHA.get(row.family, 1.0)


def away(row: Estimate) -> bool:
    """Whether the interval leaves 0 out."""
    return row.conf_low is not None and row.conf_high is not None and (row.conf_low > 0 or row.conf_high < 0)


def _could_see(row: Estimate) -> bool:
    """Whether a sample that detected nothing was large enough to detect something: of a drift any size, of a judge's bias a
    size within the margin (status ok)."""
    return row.detectable is not None and (row.status == "ok" or row.term.startswith("did_"))


def compounding_word(row: Estimate) -> Verdict:
    """The row's verdict where it is about compounding (amplifying, saturating, …); else empty."""
    return row.verdict if row.verdict in COMPOUNDING else ""


def margin_of(row: Estimate) -> float | None:
    """The equivalence margin in the row's unit: the one it was tested against, else the default; None where there is none."""
    if row.margin is not None:
        return row.margin
    if wording.is_rate(row):
        return RATE_MARGIN
    return SD_MARGIN if wording.unit_name(row) == "SD" else None


def claim(row: Estimate, question: str, who: str, subject: str, more: str, less: str, where: str) -> Finding:
    """The finding on ``row``, in a sentence that claims no more than its interval, test and status allow.

    ``more`` and ``less`` say what a positive and a negative effect is. {} in them takes the size of the effect; of a share of
    picks, the share. ``where`` follows whatever has a number.
    """
    verdict = verdict_of(row, margin_of(row))
    estimate, limits = row.estimate or 0.0, wording.interval(row)
    measured, effect_limits = (
        f"{limits} {wording.unit_name(row)}".rstrip() if row.conf_low is not None else limits,
        limits,
    )
    if wording.is_pick_share(row):
        effect = more.format(wording.pick_share(row))
        measured = f"{effect}, {limits}"
    else:
        effect = (more if estimate >= 0 else less).format(wording.size(row, abs(estimate)))
        if estimate < 0 and "{}" in less and more != less:
            effect_limits = interval_of_size(row)
    texts: dict[Standing, str] = {
        "undefined": f"undefined{why(row)}",
        "described": f"{effect}, {effect_limits}",
        "found": f"{effect}, {effect_limits}",
        "unconfirmed": f"{effect}, {effect_limits}, but {_doubt(row)}",
        "equivalent": f"no effect of practical size, {measured}{_within(row)}",
        "unclear": f"no drift detected, {measured}"
        if _could_not_see(row)
        else f"{measured} on average{_within(row)}, but the effect changes with {'the text' if is_probe(row.term) else 'length'}: this does not show that there is none",
        "undetected": _nothing(row, measured),
        "underpowered": f"cannot be told, {measured}: {DEPENDS_ON_VERDICT}"
        if _withheld(row)
        else f"too few data to tell, {measured}{_could_have_seen(row)}",
    }
    place = by_positive_control(row) + where if verdict != "undefined" else ""
    return Finding(question, verdict, sentence(who, f"{subject}: {texts[verdict]}{place}"), row)


def interval_of_size(row: Estimate) -> str:
    """The interval of a negative estimate that is given as a size and a direction ("0.29 below, 95 % interval 0.25 to
    0.33"): the limits with their signs turned."""
    if row.conf_low is None or row.conf_high is None:
        return wording.interval(row)
    low, high = wording.figure(row, -row.conf_high), wording.figure(row, -row.conf_low)
    return f"{wording.level(row)} {low} to {high}"


def sentence(who: str, text: str) -> str:
    """ "who · text." """
    body = f"{wording.label(who, 80)} · {text}" if who else wording.sentence_case(text)
    return body if body.endswith(".") else f"{body}."


def why(row: Estimate) -> str:
    """The row's note after a colon (of an undefined row its reason); empty where there is none."""
    return f": {wording.reason(row.note)}" if row.note else ""


def unscored_alike(row: Estimate) -> str:
    """The condition of a claim that does not hold in the worst cases of its unscored judgments; empty where it has none."""
    if row.verdict not in ("found_if_unscored_alike", "none_if_unscored_alike"):
        return ""
    return f"if the {wording.count(row.n_unscored, 'unscored judgment')} would have gone as the others"


def _nothing(row: Estimate, measured: str) -> str:
    if row.verdict == "none_if_unscored_alike":
        return f"no effect of practical size, {measured}{_within(row)}, but only {unscored_alike(row)}"
    what = "drift" if row.term.startswith(("did_", "judge_drift_")) else "effect"
    return f"no {what} detected, {measured}{_could_have_seen(row) or _few(row) or '; this does not show that there is none'}"


def _could_have_seen(row: Estimate) -> str:
    if row.detectable is None:
        return ""
    what = "run" if row.n_replicates else "sample"
    return f"; this {what} could have seen {wording.detectable(row)}"


def _measured_on_few(row: Estimate) -> bool:
    """Whether the interval lies within the margin and "none" is not said, as too few items or judgments bear it."""
    margin = margin_of(row)
    within = margin is not None and max(abs(row.conf_low or 0.0), abs(row.conf_high or 0.0)) <= margin
    return within and few_judged(row.scope, row.n, row.n_items)


def _few(row: Estimate) -> str:
    if not few_judged(row.scope, row.n, row.n_items):
        return ""
    items, judged = FEW_JUDGED
    over = f" over {wording.count(row.n_items, 'item')}" if row.n_items else ""
    return f"{over}; at least {items} items and {judged} judgments are needed to say that there is none"


DEPENDS_ON_VERDICT = "which judgments have a verdict, or gold, depends on the verdict, and that could account for it"


def _withheld(row: Estimate) -> bool:
    """Whether a judge's claim was withheld for what is missing (``stats.judge.missing.with_claims_withheld``)."""
    tested = row.p_value is not None or row.variant != "" or row.conf_low is None
    return (
        row.scope == "judge"
        and row.verdict == "cannot_tell"
        and not tested
        and not few_judged(row.scope, row.n, row.n_items)
    )


def _doubt(row: Estimate) -> str:
    if _withheld(row):
        return DEPENDS_ON_VERDICT
    if row.verdict == "found_if_unscored_alike":
        return f"only {unscored_alike(row)}"
    if row.status == "underpowered":
        return "the sample is too small to rely on"
    return f"not after correction for several tests (adjusted {wording.p_value(row.p_adjusted)})"


def _within(row: Estimate) -> str:
    """The margin of the equivalence test."""
    margin = margin_of(row)
    if margin is None:
        return " (equivalence test)"
    return f", within ±{wording.size(row, margin)}{' of even' if wording.is_pick_share(row) else ''}"
