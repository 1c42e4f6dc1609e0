"""Estimates in, sentences out: each says no more than its interval, its test and its status license.

The terminal, Markdown, JSON and HTML all print these sentences; none of them words or computes its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from judgeloop.report import loop_findings, wording
from judgeloop.report.claims import claim, interval_of_size, sentence, why
from judgeloop.report.loop_findings import PLANTED
from judgeloop.report.reading import as_estimates, select
from judgeloop.report.verdicts import QUESTIONS, Finding, Standing, harm, is_probe, margin_of, verdict_of
from judgeloop.stats.beyond_length import VARIANT as BEYOND_LENGTH
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.content import GIVEN as GIVEN_GOLD
from judgeloop.stats.multiplicity import ALPHA

_FIXED = ("anchor", "probe", "policy")
_PANELS = {"pairs": 0, "anchor": 1, "probe": 2, "policy": 3, "": 4}
# subject, what more is, what less is; {} takes the size
_PHRASES = {
    "first_slot_excess": ("first slot", "picked {} more often than half", "picked {} less often than half"),
    "identical_pair_excess": ("first slot on identical texts", "picked {} more often than half", "picked {} less often than half"),
    "padding_probe": ("padded copy", "picked {} more often than half", "picked {} less often than half"),
    "gold_tied_longer_excess": ("longer answer at equal gold", "picked {} more often than half", "picked {} less often than half"),
    "length_ame": ("length at equal gold", "a doubling raises the chance of being picked by {}", "a doubling lowers the chance of being picked by {}"),
    "excess_longer_vs_gold": ("length beyond gold's", "a doubling moves the judge {} more than it moves gold", "a doubling moves the judge {} less than it moves gold"),
    "self_preference_gold": ("own answers", "picked {} more often than others' at equal gold", "picked {} less often than others' at equal gold"),
    "self_preference_log_odds": ("own answers", "favoured by {} beyond what the other judges make of them", "disfavoured by {} against what the other judges make of them"),
    "score_length_slope": ("length", "longer texts score higher, by {}", "longer texts score lower, by {}"),
    "score_scale_anchoring": ("the scale's ends", "the other scale puts the same texts higher, by {}", "the other scale puts the same texts lower, by {}"),
    **{f"slot_{k}_excess": (f"slot {k} of the list", "picked {} more often than its share", "picked {} less often than its share") for k in range(1, 9)},
}  # fmt: skip
_RATED = ("score_scale_anchoring", *(f"slot_{k}_excess" for k in range(1, 9)))
_JOINT = "style and length together"
_AS_EXACT = "with gold taken as exact, which claims nothing"
_CONTENT = (
    "score_length_slope",
    "padding_probe",
    "excess_longer_vs_gold",
    "length_ame",
    "gold_tied_longer_excess",
    "style_joint",
)


def findings(estimates: pd.DataFrame | Sequence[Estimate]) -> list[Finding]:
    """Sentences in the order of QUESTIONS, the confirmatory first. A question that nothing measured has none."""
    rows = as_estimates(estimates) if isinstance(estimates, pd.DataFrame) else tuple(estimates)
    rows = tuple(row for row in rows if row.category == "")
    found = [
        *_position(rows),
        *_content(rows),
        *_self_preference(rows),
        *loop_findings.drift(rows),
        *loop_findings.amplification(rows),
        *loop_findings.diversity(rows),
        *loop_findings.quality(rows),
        *loop_findings.judge_drift(rows),
    ]
    return _without_repeats(sorted(found, key=lambda finding: list(QUESTIONS).index(finding.question)))


def _without_repeats(found: Iterable[Finding]) -> list[Finding]:
    """What is undefined for one and the same reason is said once a question and judge."""
    said: set[tuple[str, ...]] = set()
    kept = []
    for finding in found:
        # Each probe that applies to no text is named, and each number that stands beside a reason.
        alone = is_probe(finding.row.term) or finding.with_number
        reason = (finding.question, finding.row.judge, finding.row.note, finding.row.term if alone else "")
        if finding.verdict != "undefined" or reason not in said:
            kept.append(finding)
        if finding.verdict == "undefined":
            said |= {reason} if is_probe(finding.row.term) else {reason, (*reason[:3], "")}
    return kept


def judge_rows(rows: Iterable[Estimate], term: str, variant: str = "") -> list[Estimate]:
    """The row that speaks for each judge: pairs before anchor before on-policy panels, all generations before one.

    Of generations the first on a panel that is judged anew in each (its changes are judge drift), the last of a log's pairs:
    those are other texts each time, and the last are what is trained on now.

    Control judges (random, gold) are left out: they are planted, not questioned.
    """
    some = [
        row for row in select(rows, scope="judge", term=term, variant=variant, category="") if row.judge not in PLANTED
    ]
    some.sort(
        key=lambda row: (
            _PANELS.get(row.panel, 9),
            row.arm != "",
            row.generation is not None,
            (row.generation or 0) * (1 if row.panel in _FIXED else -1),
        )
    )
    return list({row.judge: row for row in reversed(some)}.values())[::-1]


def _position(rows: Sequence[Estimate]) -> list[Finding]:
    found = [_about_judge(row, "position") for row in judge_rows(rows, "first_slot_excess")]
    for low in judge_rows(rows, "first_slot_excess", "worst_case_low"):
        high = [row for row in judge_rows(rows, "first_slot_excess", "worst_case_high") if row.judge == low.judge]
        if low.n_unscored and high and low.estimate is not None and high[0].estimate is not None:
            text = (
                f"with the {wording.count(low.n_unscored, 'unscored judgment')} all counted against or all for the first slot, "
                f"its excess would be {wording.figure(low, low.estimate)} to {wording.quantity(high[0], high[0].estimate)}"
            )
            found.append(Finding("position", "described", sentence(low.judge, text), low))
    for row in judge_rows(rows, "conflict_rate"):
        if row.estimate is not None and row.status != "undefined":
            text = (
                f"the verdict changed with the order {100 * row.estimate:.1f} % of the time, {wording.interval(row)} "
                f"({wording.count(row.n, 'pair')} in both orders; noise and bias together)"
            )
            found.append(Finding("position", "described", sentence(row.judge, text), row))
    found += [_about_judge(row, "position") for term in _RATED for row in judge_rows(rows, term)]
    found += [
        _about_judge(row, "position")
        # An audit's pairs hold no identical texts where its probes do.
        for row in judge_rows([one for one in rows if one.status != "undefined"], "identical_pair_excess")
    ]
    return found


def _content(rows: Sequence[Estimate]) -> list[Finding]:
    """By harm: what is found leads, and of that what moves the judge by the most points."""
    probes = sorted({row.term for row in rows if is_probe(row.term)} - {"padding_probe"})
    some = [row for term in (*_CONTENT, *probes) for row in judge_rows(rows, term)]
    defined = {row.judge for row in some if row.status != "undefined"}
    found = []
    for row in some:
        if row.status != "undefined":
            found.append(
                _joint(row) if row.term == "style_joint" else _about_judge(row, "content", own_effect(rows, row))
            )
        elif row.judge not in defined or row.term in ("length_ame", "style_joint") or is_probe(row.term):
            found.append(_unknown_content(rows, row))
        # else: one measure that another stands in for; it stays in the table of estimates
    for row in judge_rows(rows, "longer_preferred_raw"):
        if row.estimate is not None and row.status != "undefined":
            text = f"the longer answer was preferred in {100 * row.estimate:.1f} % of judgments, {wording.interval(row)} (raw: quality and bias together)"
            found.append(Finding("content", "described", sentence(row.judge, text), row))
    return sorted(found, key=_by_harm)


def _by_harm(finding: Finding) -> tuple[int, bool, float]:
    """What is told in no points has no size to compare, and stands behind what harms as surely."""
    rate = wording.is_rate(finding.row)
    place, size = harm(finding.row, finding.verdict)
    return place, not rate, size if rate else 0.0


def _unknown_content(rows: Sequence[Estimate], row: Estimate) -> Finding:
    """What is undefined and why; with one gold also what it would be if that gold cannot err, which claims nothing."""
    subject = _JOINT if row.term == "style_joint" else _subject(row.term)
    same = {name: getattr(row, name) for name in ("judge", "arm", "generation", "panel", "term")}
    given = next(iter(select(rows, variant=GIVEN_GOLD, category="", **same)), None)
    if given is None or given.status == "undefined" or given.estimate is None:
        return Finding("content", "undefined", sentence(row.judge, f"{subject}: undefined{why(row)}"), row)
    if row.term == "style_joint":
        effect = f"they {'would move' if _moves(given) else 'would not be seen to move'} the verdict ({wording.p_value(given.p_value)})"
    else:
        low, high = _PHRASES[row.term][1:]
        size = (high if given.estimate < 0 else low).format(wording.quantity(given, abs(given.estimate)))
        limits = interval_of_size(given) if given.estimate < 0 else wording.interval(given)
        effect = f"{size}, {limits}"
    text = f"{subject}: not known{why(row)}; {_AS_EXACT}: {effect}"
    return Finding("content", "undefined", sentence(row.judge, text), row, with_number=True)


def _moves(joint: Estimate) -> bool:
    p = joint.p_adjusted if joint.p_adjusted is not None else joint.p_value
    return p is not None and p <= ALPHA.get(joint.family, 0.05)


def _joint(row: Estimate) -> Finding:
    p = row.p_adjusted if row.p_adjusted is not None else row.p_value
    if p is None:
        return Finding("content", "undefined", sentence(row.judge, f"{_JOINT}: undefined{why(row)}"), row)
    test = f"{wording.p_value(p)}{' after adjustment' if row.p_adjusted is not None else ''}"
    if _moves(row):
        verdict: Standing = "unconfirmed" if row.status == "underpowered" else "found"
        return Finding(
            "content",
            verdict,
            sentence(row.judge, f"style and length together move the verdict at equal quality ({test})"),
            row,
        )
    verdict = "underpowered" if row.status == "underpowered" else "undetected"
    text = f"{_JOINT}: no effect detected ({test}), which does not show that there is none"
    return Finding("content", verdict, sentence(row.judge, text), row)


def own_effect(rows: Iterable[Estimate], probe: Estimate) -> Estimate | None:
    """A probe's effect beyond that of its length, from the same judgments; None where padding was not probed beside it."""
    same = {name: getattr(probe, name) for name in ("judge", "arm", "generation", "panel", "term")}
    return next(iter(select(rows, variant=BEYOND_LENGTH, category="", **same)), None)


def beyond_length(probe: Estimate, own: Estimate | None) -> bool:
    """Whether a probe's effect is shown to be more than its added words are worth to the judge: the same way, and found."""
    if own is None or probe.estimate is None or own.estimate is None:
        return False
    return verdict_of(own, margin_of(own)) == "found" and own.estimate * probe.estimate > 0


def _by_words(probe: Estimate, own: Estimate | None) -> str:
    """What a probe's sentence says of the words that its edit adds or cuts."""
    if own is None or verdict_of(probe, margin_of(probe)) != "found":
        return ""
    if own.status == "undefined" or own.estimate is None:
        return "; whether by its length alone cannot be told"
    if beyond_length(probe, own):
        # Told by its size, as the effect itself is.
        size = wording.quantity(own, abs(own.estimate))
        limits = wording.interval(own) if own.estimate > 0 else interval_of_size(own)
        return f"; {size} of it beyond its length, {limits}"
    return f"; its added words alone could explain this: {wording.quantity(own, own.estimate)} beyond them, {wording.interval(own)}"


def _self_preference(rows: Sequence[Estimate]) -> list[Finding]:
    """At equal gold where that is known, else against what the other judges make of the judge's own texts."""
    against = {row.judge: row for row in judge_rows(rows, "self_preference_log_odds")}
    at_gold = {row.judge: row for row in judge_rows(rows, "self_preference_gold")}
    found = []
    for judge in dict.fromkeys([*at_gold, *against]):
        row, other = at_gold.get(judge), against.get(judge)
        if other is not None and (row is None or (row.status == "undefined" and other.status != "undefined")):
            row = other
        if row is not None:
            found.append(_about_judge(row, "self_preference", common=_common(row, against.values())))
    return found


def _common(row: Estimate, against: Iterable[Estimate]) -> bool:
    """Whether the pairs bear one coefficient for all judges, which then have it in common to the last digit."""
    limits = (row.estimate, row.conf_low, row.conf_high)
    return (
        row.term == "self_preference_log_odds"
        and row.estimate is not None
        and any(
            other.judge != row.judge and (other.estimate, other.conf_low, other.conf_high) == limits
            for other in against
        )
    )


def _subject(term: str) -> str:
    return _PHRASES[term][0] if term in _PHRASES else wording.probe_name(term)


def _about_judge(row: Estimate, question: str, own: Estimate | None = None, *, common: bool = False) -> Finding:
    subject, more, less = _PHRASES.get(
        row.term, (wording.probe_name(row.term), "picked {} more often than half", "picked {} less often than half")
    )
    where = [f"{row.panel} panel"] if row.panel not in ("", "pairs") else []
    where += [f"generation {row.generation}"] if row.generation is not None else []
    where += [wording.count(row.n, _counted(row))]
    shared = "; one number for all judges, for these pairs bear no more" if common else ""
    return claim(row, question, row.judge, subject, more, less, f" ({', '.join(where)}){_by_words(row, own)}{shared}")


def _counted(row: Estimate) -> str:
    if row.term.startswith("slot_"):
        return "set"
    if row.term.startswith("score_"):
        return "text" if row.bias == "position" else "pair"
    pairs = (row.bias == "position" and row.term != "identical_pair_excess") or is_probe(row.term)
    return "pair" if pairs else "judgment"
