"""What an estimate licenses: a verdict from its interval, its test, its status and the words of the run's statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from judgeloop.report import wording
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import unchanged

Verdict = Literal[
    "found", "unconfirmed", "unclear", "undetected", "underpowered", "undefined", "described", "equivalent"
]
"""found: the interval excludes 0 and the adjusted test agrees · unconfirmed: the interval does, the adjusted test or the
sample does not · unclear: compounding cannot be told · undetected: the interval covers 0 · underpowered: too few data ·
undefined: no number, and why · described: a measurement without a claim · equivalent: within the margin around 0."""

VERDICT_NAMES: dict[Verdict, str] = {
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
RATE_MARGIN = 0.05
"""Equivalence margin for rates, in probability (the method notes §7.5)."""
SD_MARGIN = 0.1
"""Equivalence margin for features, in generation-0 standard deviations (the method notes §7.5)."""
FEW_JUDGED = (20, 50)
"""Fewest items and judgments (or pairs) for the word "none" on a judge. A t interval over a handful of items is only as
wide as those few happen to differ, so that equivalence within 5 points can come of nine judgments that agree."""
ALPHA = {"confirmatory": 0.05, "exploratory": 0.10}
"""Holm level of the confirmatory family; BH rate of the exploratory one."""

_DRIFT_WORDS = ("none", "undetected", "drifting")
COMPOUNDING: dict[str, tuple[Verdict, str]] = {
    "amplifying": ("found", "later loops add more than the first did"),
    "saturating": ("described", "later loops add less than the first did"),
    "steady": ("described", "every loop adds about as much as the first"),
    "compounding unclear": ("unclear", "this run cannot tell whether later loops add more or less than the first"),
}
_COMPOUNDING_WORD = re.compile(r"\b(" + "|".join(COMPOUNDING) + r")\b")
DETECTABLE = re.compile(r"could have seen (?:at \d+ % power is )?(\d+(?:\.\d+)?(?:e-?\d+)?)(?! %)")
MARGIN = re.compile(r"equivalent (?:to 0 )?within ±(\d+(?:\.\d+)?(?:e-?\d+)?)")


@dataclass(frozen=True, slots=True)
class Finding:
    """One plain sentence on one estimate (``row``), the question it answers, and what it is licensed to claim."""

    question: str
    verdict: Verdict
    sentence: str
    row: Estimate
    word: str = ""
    """The verdict word of the run's statistics (none, undetected, drifting; amplifying, saturating, steady, …; unchanged)."""
    several: bool = False
    """The sentence sums up several rows of one contrast; ``row`` is the first of them."""


def is_probe(term: str) -> bool:
    """True for a probe's level (``bold_probe``), not for its drift (``judge_drift_bold_probe``)."""
    return term.endswith("_probe") and not term.startswith("judge_drift_")


def leading(some: Sequence[Finding]) -> Finding:
    """The finding that stands for a question: what is claimed before what is open, and only then "none" or a mere measure.

    An undefined or undetected part keeps a whole from being called none; a probe that applies to none of these texts does not,
    where anything else was measured.
    """
    open_ones = [one for one in some if not (one.verdict == "undefined" and is_probe(one.row.term))]
    return min(open_ones or some, key=_rank)


_BY_HARM: tuple[Verdict, ...] = (
    "found", "unconfirmed", "unclear", "undetected", "underpowered", "equivalent", "described", "undefined",
)  # fmt: skip


def harm(row: Estimate, verdict: Verdict | None = None) -> tuple[int, float]:
    """Key that puts what harms most first: by verdict (found, then open, then none), then by the estimate's size.

    ``verdict``: that of the finding on the row (default: what its interval licenses).
    """
    return _BY_HARM.index(verdict or verdict_of(row, margin_of(row))), -abs(row.estimate or 0.0)


def verdict_name(finding: Finding) -> str:
    """The verdict as a label; a compounding word, or that nothing changed, speaks for itself."""
    return finding.word.capitalize() if finding.word in (*COMPOUNDING, "unchanged") else VERDICT_NAMES[finding.verdict]


_LEADING = ("first_slot_excess", "length_ame", "padding_probe", "score_length_slope", "did_length")


def _rank(finding: Finding) -> tuple[float, bool, bool, bool]:
    """By what is claimed; among equals the confirmatory before the exploratory, and position and length before the rest."""
    # Steady and saturating are measured, and yet the answer to their question: they stand before what is undefined.
    place = (
        4.5
        if finding.verdict == "described" and finding.word in COMPOUNDING
        else list(VERDICT_NAMES).index(finding.verdict)
    )
    return place, finding.row.family != "confirmatory", finding.row.term not in _LEADING, finding.several


def verdict_of(row: Estimate, margin: float | None) -> Verdict:
    """What the row licenses. ``margin`` is the equivalence margin in the row's unit; None where none is stated.

    Equivalence is the run's own test where it said so, else the whole interval within the margin (stricter than TOST at
    the same level). An underpowered row never licenses "none".
    """
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    if row.conf_low is None or row.conf_high is None:
        return "described"
    if unchanged(row):
        return "described"
    word = drift_word(row)
    if word == "undetected":
        return "undetected" if DETECTABLE.search(row.note) else "underpowered"
    away = row.conf_low > 0 or row.conf_high < 0
    if row.status == "underpowered":
        return "unconfirmed" if away else "underpowered"
    within = margin is not None and row.conf_low >= -margin and row.conf_high <= margin
    if word == "none" or MARGIN.search(row.note) or (word == "" and within):
        if not few_to_say_none(row):
            return "equivalent"
        if not away:
            return "underpowered"
    if not away:
        return "undetected"
    refuted = row.p_adjusted is not None and row.p_adjusted > ALPHA.get(row.family, 1.0)
    return "unconfirmed" if refuted else "found"


def few_to_say_none(row: Estimate) -> bool:
    """Whether a judge's row rests on too few items or judgments for an absence to be claimed (FEW_JUDGED)."""
    items, judged = FEW_JUDGED
    return row.scope == "judge" and (0 < row.n_items < items or row.n < judged)


def drift_word(row: Estimate) -> str:
    """The first word of a ``did_`` row's note where it is a verdict (none, undetected, drifting); else empty."""
    first = re.split(r"[^a-z]", row.note, maxsplit=1)[0] if row.term.startswith("did_") else ""
    return first if first in _DRIFT_WORDS else ""


def compounding_word(row: Estimate) -> str:
    """The compounding verdict in a note (amplifying, saturating, steady, compounding unclear); else empty."""
    match = _COMPOUNDING_WORD.search(row.note)
    return match.group(1) if match else ""


def margin_of(row: Estimate) -> float | None:
    """The default equivalence margin in the row's unit; None where there is none."""
    if wording.is_rate(row):
        return RATE_MARGIN
    return SD_MARGIN if wording.unit_name(row) == "SD" else None
