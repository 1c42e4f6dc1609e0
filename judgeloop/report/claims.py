"""One estimate in a sentence that says no more than its interval, its test and its status license."""

from __future__ import annotations

from judgeloop.report import wording
from judgeloop.report.verdicts import Finding, margin_of, verdict_of
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import FEW_JUDGED, few_judged


def claim(row: Estimate, question: str, who: str, subject: str, more: str, less: str, where: str) -> Finding:
    """The finding on ``row``: ``more`` and ``less`` take the size of the effect, ``where`` stands behind what has a number."""
    verdict = verdict_of(row, margin_of(row))
    estimate = row.estimate or 0.0
    effect = (more if estimate >= 0 else less).format(wording.quantity(row, abs(estimate)))
    flipped = estimate < 0 and "{}" in less and more != less
    limits = interval_of_size(row) if flipped else wording.interval(row)
    texts: dict[str, str] = {
        "undefined": f"{subject}: undefined{why(row)}",
        "described": f"{subject}: {effect}, no interval",
        "found": f"{subject}: {effect}, {limits}",
        "unconfirmed": f"{subject}: {effect}, {limits}, but {_doubt(row)}",
        "equivalent": f"{subject}: no effect of practical size, {wording.interval(row)}{_within(row)}",
        "undetected": f"{subject}: {_nothing(row)}",
        "underpowered": f"{subject}: too few data to tell, {wording.interval(row)}{_could_have_seen(row) or _few(row)}",
    }
    said = f"{subject}: the same as at generation 0" if row.verdict == "unchanged" else texts[verdict]
    return Finding(question, verdict, sentence(who, said + (where if verdict != "undefined" else "")), row)


def interval_of_size(row: Estimate) -> str:
    """The interval of an effect that is told by its size and a word for its side ("0.29 below, 95 % interval 0.25 to 0.33"):
    the limits with their signs turned. Meant for a negative estimate."""
    if row.conf_low is None or row.conf_high is None:
        return wording.interval(row)
    low, high = wording.figure(row, -row.conf_high), wording.figure(row, -row.conf_low)
    return f"{wording.level(row)} {low} to {high}"


def sentence(who: str, text: str) -> str:
    """ "who · text." """
    body = f"{wording.label(who)} · {text}" if who else wording.sentence_case(text)
    return body if body.endswith(".") else f"{body}."


def why(row: Estimate) -> str:
    """The row's note, which of an undefined row is the reason, after a colon; empty where it gives none."""
    return f": {wording.reason(row.note)}" if row.note else ""


def _nothing(row: Estimate) -> str:
    what = "drift" if row.term.startswith(("did_", "judge_drift_")) else "effect"
    return f"no {what} detected, {wording.interval(row)}{_could_have_seen(row) or '; this does not show that there is none'}"


def _could_have_seen(row: Estimate) -> str:
    if row.detectable is None:
        return ""
    what = "run" if row.n_replicates else "sample"
    return f"; this {what} could have seen {wording.quantity(row, row.detectable)} or more"


def _few(row: Estimate) -> str:
    if not few_judged(row.scope, row.n, row.n_items):
        return ""
    items, judged = FEW_JUDGED
    return f"; to say that there is none takes {items} items and {judged} judgments or more"


def _doubt(row: Estimate) -> str:
    if row.status == "underpowered":
        return "the sample is too small to rely on"
    return f"not after correction for several tests (adjusted {wording.p_value(row.p_adjusted)})"


def _within(row: Estimate) -> str:
    """The margin of the equivalence test."""
    margin = margin_of(row)
    return f", within ±{wording.quantity(row, margin)}" if margin is not None else " (equivalence test)"
