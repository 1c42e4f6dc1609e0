"""Findings from estimates: what a run or an audit says on each question, the judge's bias first, then the outputs.

Terminal, Markdown, JSON and HTML print these sentences as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from judgeloop.records import is_control_judge
from judgeloop.report import wording
from judgeloop.report.claims import (
    COMPOUNDING,
    DEPENDS_ON_VERDICT,
    QUESTIONS,
    Finding,
    Standing,
    away,
    claim,
    compounding_word,
    harm,
    interval_of_size,
    is_probe,
    margin_of,
    sentence,
    unscored_alike,
    verdict_of,
    why,
)
from judgeloop.report.reading import as_estimates, is_positive_control, last_generation, positive_controls, select
from judgeloop.stats.estimate import Estimate, Verdict
from judgeloop.stats.judge.content import (
    COMPARED_WITH_GOLD,
    GIVEN_GOLD,
    LENGTH_SCREEN,
    RELATIVE,
    is_relative_to_raters,
    takes_gold_as_exact,
)
from judgeloop.stats.judge.missing import (
    GOLD_MISSING_BY_VERDICT,
    UNSCORED_BY_VERDICT,
)
from judgeloop.stats.judge.probes import BEYOND_LENGTH
from judgeloop.stats.judge.slopes import LARGE, LENGTH_SHAPE, LONG, SHORT, SMALL
from judgeloop.stats.multiplicity import ALPHA

"""Judges that are planted as controls; there are no findings on them."""


def findings(estimates: pd.DataFrame | Sequence[Estimate]) -> list[Finding]:
    """Findings in the order of QUESTIONS, the confirmatory first; none on a question that was not measured."""
    rows = as_estimates(estimates) if isinstance(estimates, pd.DataFrame) else tuple(estimates)
    rows = tuple(row for row in rows if row.category == "")
    controls = positive_controls(rows)
    every = [
        *_position(rows),
        *_content(rows),
        *_self_preference(rows),
        *_drift(rows),
        *_amplification(rows),
        *_phrases(rows),
        *_diversity(rows),
        *_quality(rows),
        *_judge_drift(rows),
    ]
    # Of a judge whose taste is known nothing is claimed: its drift is what the others' is read with.
    every = [
        replace(finding, verdict="described")
        if finding.row.arm in controls and finding.verdict not in ("undefined", "unclear")
        else finding
        for finding in every
    ]
    return _without_repeats(sorted(every, key=lambda finding: list(QUESTIONS).index(finding.question)))


def _without_repeats(every: Iterable[Finding]) -> list[Finding]:
    """The findings, of those that are undefined for the same reason one a question and judge."""
    stated: set[tuple[str, ...]] = set()
    distinct = []
    for finding in every:
        # Each probe that applies to no text is named, and so is each number under a further assumption.
        alone = is_probe(finding.row.term) or finding.with_number
        reason = (finding.question, finding.row.judge, finding.row.note, finding.row.term if alone else "")
        if finding.verdict != "undefined" or reason not in stated:
            distinct.append(finding)
        if finding.verdict == "undefined":
            stated |= {reason} if is_probe(finding.row.term) else {reason, (*reason[:3], "")}
    return distinct


# The judge.

_FIXED = ("anchor", "probe", "policy")
_PANELS = {"pairs": 0, "anchor": 1, "probe": 2, "policy": 3, "": 4}
# subject, what more is, what less is; {} takes the size, or the share of picks.
_PHRASES = {
    "first_slot_excess": ("first slot", "picked {}", "picked {}"),
    "identical_pair_excess": ("first slot, identical texts", "picked {}", "picked {}"),
    "padding_probe": ("padded copy", "picked {}", "picked {}"),
    "gold_tied_longer_excess": ("longer text at equal gold", "picked {}", "picked {}"),
    "length_ame": ("length at equal gold", "a doubling raises the chance of being picked by {}", "a doubling lowers the chance of being picked by {}"),
    "excess_longer_vs_gold": ("length effect, judge minus gold", "a doubling moves the judge {} more than it moves gold", "a doubling moves the judge {} less than it moves gold"),
    LENGTH_SCREEN: ("length effect, beyond agreement with gold", "a doubling moves the judge {} further towards the longer text than its agreement with gold passes on", "a doubling moves the judge {} further towards the shorter text than its agreement with gold passes on"),
    "self_preference_gold": ("own texts", "picked {} more often than others' at equal gold", "picked {} less often than others' at equal gold"),
    "self_preference_log_odds": ("own texts", "favoured by {} compared with the other judges", "disfavoured by {} compared with the other judges"),
    "score_length_slope": ("length", "longer texts score higher, by {}", "longer texts score lower, by {}"),
    "score_scale_anchoring": ("the other scale", "puts the same texts higher, by {}", "puts the same texts lower, by {}"),
    **{f"slot_{k}_excess": (f"slot {k} of the list", "picked {} more often than its equal share", "picked {} less often than its equal share") for k in range(1, 9)},
}  # fmt: skip
_RATED = ("score_scale_anchoring", *(f"slot_{k}_excess" for k in range(1, 9)))
_JOINT = "style and length together"
_WORST_CASES = {
    "longer_preferred_raw": "the longer would be picked {} % of the time",
    "length_ame": "a doubling would be worth {} points",
}
_BY_VERDICT = {
    GOLD_MISSING_BY_VERDICT: "gold is known more often for some verdicts than for others: the pairs with gold do not stand for "
    "the rest, and no claim at equal gold is made; label pairs drawn by lot",
    UNSCORED_BY_VERDICT: "replies without a verdict depend on what the judge picks: a claim stands only where the worst cases agree",
}  # fmt: skip
_AS_EXACT = "if gold is taken as exact (no claim rests on this)"
_REMARKS = {
    "excess_longer_vs_gold": "; a judge that errs more or less often than gold differs from it without any bias",
    LENGTH_SCREEN: "; a screen and no claim of bias: it takes it that neither gold nor the judge errs more on longer texts of equal quality",
}  # fmt: skip
_CONTENT = (
    "score_length_slope",
    "padding_probe",
    *COMPARED_WITH_GOLD,
    "length_ame",
    "gold_tied_longer_excess",
    "style_joint",
    LENGTH_SHAPE,
)


def judge_rows(rows: Iterable[Estimate], term: str, variant: str = "") -> list[Estimate]:
    """The primary row of each judge but the planted ones: a panel of pairs before anchor, probe and on-policy panels, an
    estimate over all generations before that of one.

    Of single generations the first on a panel that is judged anew in each (what changed there is judge drift), and the last
    of a log's pairs: those are other texts each time, and the last are what is trained on now.
    """
    matches = [
        row
        for row in select(rows, scope="judge", term=term, variant=variant, category="")
        if not is_control_judge(row.judge)
    ]
    matches.sort(
        key=lambda row: (
            _PANELS.get(row.panel, 9),
            row.arm != "",
            row.generation is not None,
            (row.generation or 0) * (1 if row.panel in _FIXED else -1),
        )
    )
    return list({row.judge: row for row in reversed(matches)}.values())[::-1]


def _position(rows: Sequence[Estimate]) -> list[Finding]:
    results = [_on_judge(row, "position") for row in judge_rows(rows, "first_slot_excess")]
    highs = {row.judge: row for row in judge_rows(rows, "first_slot_excess", "worst_case_high")}
    for low in judge_rows(rows, "first_slot_excess", "worst_case_low"):
        high = highs.get(low.judge)
        if low.n_unscored and high is not None and low.estimate is not None and high.estimate is not None:
            text = (
                f"if the {wording.count(low.n_unscored, 'unscored judgment')} had all gone against the first slot, or all to it, "
                f"it would be picked {wording.figure(low, low.estimate)} or {wording.figure(high, high.estimate)} % of the time"
            )
            results.append(Finding("position", "described", sentence(low.judge, text), low))
    for row in judge_rows(rows, "conflict_rate"):
        if row.estimate is not None and row.status != "undefined":
            text = (
                f"the verdict changed with the order {100 * row.estimate:.1f} % of the time, {wording.interval(row)} "
                f"({wording.count(row.n, 'pair')} in both orders; noise and bias together)"
            )
            results.append(Finding("position", "described", sentence(row.judge, text), row))
    results += [_on_judge(row, "position") for term in _RATED for row in judge_rows(rows, term)]
    results += [
        _on_judge(row, "position")
        # Identical texts may be among the probes alone, and not among the pairs.
        for row in judge_rows([row for row in rows if row.status != "undefined"], "identical_pair_excess")
    ]
    return results


def _content(rows: Sequence[Estimate]) -> list[Finding]:
    """Length, style and probes, the most harmful first: what is found, and of that the largest effect in points."""
    probes = sorted({row.term for row in rows if is_probe(row.term)} - {"padding_probe"})
    measures = [row for term in (*_CONTENT, *probes) for row in judge_rows(rows, term)]
    measured = {row.judge for row in measures if row.status != "undefined"}
    results = []
    for row in measures:
        if row.term == LENGTH_SHAPE:
            results += [_relative_to_raters(_shape(rows, row), rows)] if _moves(row) else []
        elif row.status != "undefined":
            finding = _joint(row) if row.term == "style_joint" else _on_judge(row, "content", own_effect(rows, row))
            results.append(_relative_to_raters(finding, rows))
        elif row.judge not in measured or row.term in ("length_ame", "style_joint") or is_probe(row.term):
            results.append(_undefined_content(rows, row))
        # else: another measure answers the question; this one is in the table of estimates alone
    results += _missing(rows)
    for row in judge_rows(rows, "longer_preferred_raw"):
        if row.estimate is not None and row.status != "undefined":
            text = f"the longer text was picked {100 * row.estimate:.1f} % of the time, {wording.interval(row)} (raw: quality and bias together)"
            results.append(Finding("content", "described", sentence(row.judge, text), row))
    return sorted(results, key=_by_harm)


def _missing(rows: Sequence[Estimate]) -> list[Finding]:
    """What is missing by the verdict, and how far the missing verdicts could move the preference for the longer text."""
    results = []
    for term, text in _BY_VERDICT.items():
        for row in judge_rows(rows, term):
            if row.p_value is not None and row.p_value <= 0.05:
                results.append(
                    Finding(
                        "content", "described", sentence(row.judge, f"{text} ({wording.p_value(row.p_value)})"), row
                    )
                )
    for term, effect in _WORST_CASES.items():
        highs = {row.judge: row for row in judge_rows(rows, term, "worst_case_high")}
        for low in judge_rows(rows, term, "worst_case_low"):
            high = highs.get(low.judge)
            if high is not None and low.estimate is not None and high.estimate is not None:
                limits = f"{wording.figure(low, low.estimate)} or {wording.figure(high, high.estimate)}"
                lost = wording.count(low.n_unscored, "unscored judgment")
                text = f"if the {lost} had all gone to the shorter text, or all to the longer, {effect.format(limits)}"
                results.append(Finding("content", "described", sentence(low.judge, text), low))
    return results


def _relative_to_raters(finding: Finding, rows: Sequence[Estimate]) -> Finding:
    """The finding, with what it takes for granted where quality is what two raters agree on."""
    if not is_relative_to_raters(finding.row, rows):
        return finding
    text = f"That is {RELATIVE}: a preference of both raters, or an error that both make, counts as quality here"
    return replace(finding, sentence=f"{finding.sentence} {text}.", assumption=RELATIVE)


def _by_harm(finding: Finding) -> tuple[int, bool, float]:
    """Sort key: by standing, then rates by magnitude, then what is in other units and cannot be compared with rates."""
    rate = wording.is_rate(finding.row)
    place, magnitude = harm(finding.row, finding.verdict)
    return place, not rate, magnitude if rate else 0.0


def _undefined_content(rows: Sequence[Estimate], row: Estimate) -> Finding:
    """An undefined measure with its reason; with one gold also its value if that gold cannot err."""
    subject = _JOINT if row.term == "style_joint" else _subject(row.term)
    given = next(iter(select(rows, variant=GIVEN_GOLD, category="", **_place(row))), None)
    # A variant is not tested, so that of style and length together nothing would be left to say.
    if given is None or given.status == "undefined" or given.estimate is None or row.term == "style_joint":
        return Finding("content", "undefined", sentence(row.judge, f"{subject}: undefined{why(row)}"), row)
    more, less = _PHRASES[row.term][1:]
    size = (less if given.estimate < 0 else more).format(wording.size(given, abs(given.estimate)))
    effect = f"{size}, {interval_of_size(given) if given.estimate < 0 else wording.interval(given)}"
    text = f"{subject}: undefined{why(row)}; {_AS_EXACT}: {effect}"
    return Finding("content", "undefined", sentence(row.judge, text), row, with_number=True)


def _place(row: Estimate) -> dict[str, object]:
    """What the variants of one estimate share."""
    return {name: getattr(row, name) for name in ("judge", "arm", "generation", "panel", "term")}


def _p_of(row: Estimate) -> float | None:
    return row.p_adjusted if row.p_adjusted is not None else row.p_value


def _moves(joint: Estimate) -> bool:
    p = _p_of(joint)
    return p is not None and p <= ALPHA.get(joint.family, 0.05)


def _joint(row: Estimate) -> Finding:
    """Style and length tested together: whether they change the verdict at equal quality."""
    p = _p_of(row)
    if p is None:
        text = f"cannot be told: {DEPENDS_ON_VERDICT}" if row.verdict == "cannot_tell" else f"undefined{why(row)}"
        return Finding("content", "undefined", sentence(row.judge, f"{_JOINT}: {text}"), row)
    test = f"{wording.p_value(p)}{' after adjustment' if row.p_adjusted is not None else ''}"
    verdict: Standing
    if _moves(row):
        condition = unscored_alike(row)
        verdict = "unconfirmed" if condition or row.status == "underpowered" else "found"
        given = f", but only {condition}" if condition else ""
        text = f"style and length together change the verdict at equal quality ({test}){given}"
    else:
        verdict = "underpowered" if row.status == "underpowered" else "undetected"
        text = f"{_JOINT}: no effect detected ({test}), which does not show that there is none"
    return Finding("content", verdict, sentence(row.judge, text), row)


def _shape(rows: Sequence[Estimate], row: Estimate) -> Finding:
    """That the effect of length is not one slope, with the effect in the halves of the pairs that differ most."""
    place = {**_place(row), "term": "length_ame"}
    halves = {
        half.variant: half
        for half in select(rows, category="", **place)
        if half.estimate is not None and half.variant in (SHORT, LONG, SMALL, LARGE)
    }

    def gap(pair: tuple[str, str]) -> float:
        first, second = halves[pair[0]], halves[pair[1]]
        error = math.hypot(first.std_error or 0.0, second.std_error or 0.0)
        return abs((first.estimate or 0.0) - (second.estimate or 0.0)) / (error or 1.0)

    pairs = [pair for pair in ((SHORT, LONG), (SMALL, LARGE)) if set(pair) <= set(halves)]
    text = f"length at equal gold: its effect is not the same at every length ({wording.p_value(_p_of(row))})"
    if pairs:
        text += ": a doubling " + ", and ".join(_half(halves[name], name) for name in max(pairs, key=gap))
    condition = unscored_alike(row)
    text += f"; but only {condition}" if condition else ""
    return Finding("content", "unconfirmed" if condition else "found", sentence(row.judge, text), row)


_HALVES = {
    SHORT: "in the half of the pairs with the shorter texts", LONG: "in the half with the longer ones",
    SMALL: "where the lengths differ less than in half of the pairs", LARGE: "where they differ more",
}  # fmt: skip


def _half(row: Estimate, name: str) -> str:
    """What a doubling does in one half of the pairs."""
    estimate = row.estimate or 0.0
    verb = "raises" if estimate >= 0 else "lowers"
    limits = wording.interval(row) if estimate >= 0 else interval_of_size(row)
    return f"{verb} the chance of being picked by {wording.size(row, abs(estimate))} {_HALVES[name]}, {limits}"


def own_effect(rows: Iterable[Estimate], probe: Estimate) -> Estimate | None:
    """A probe's effect beyond that of its length, from the same judgments; None where padding was not probed beside it."""
    return next(iter(select(rows, variant=BEYOND_LENGTH, category="", **_place(probe))), None)


def beyond_length(probe: Estimate, own: Estimate | None) -> bool:
    """Whether a probe's effect is shown to exceed that of its added words: ``own`` is found, and has the probe's sign."""
    if own is None or probe.estimate is None or own.estimate is None:
        return False
    return verdict_of(own, margin_of(own)) == "found" and own.estimate * probe.estimate > 0


def _length_part(probe: Estimate, own: Estimate | None) -> str:
    """What a found probe's sentence says on the words that its edit adds or cuts; else empty."""
    if own is None or verdict_of(probe, margin_of(probe)) != "found":
        return ""
    if own.status == "undefined" or own.estimate is None:
        return "; whether its length alone explains this is not known"
    if beyond_length(probe, own):
        limits = wording.interval(own) if own.estimate > 0 else interval_of_size(own)
        return f"; {wording.size(own, abs(own.estimate))} of the effect are not due to its length, {limits}"
    return f"; its added words alone could explain this: {wording.size(own, own.estimate)} are left without them, {wording.interval(own)}"


def _self_preference(rows: Sequence[Estimate]) -> list[Finding]:
    """At equal gold where that is known, else by comparison with the other judges of the same texts."""
    compared = {row.judge: row for row in judge_rows(rows, "self_preference_log_odds")}
    at_gold = {row.judge: row for row in judge_rows(rows, "self_preference_gold")}
    results = []
    for judge in dict.fromkeys([*at_gold, *compared]):
        row, other = at_gold.get(judge), compared.get(judge)
        unknown = row is None or row.status == "undefined" or takes_gold_as_exact(row)
        if other is not None and (row is None or (unknown and other.status != "undefined")):
            row = other
        if row is not None and takes_gold_as_exact(row):
            results.append(_own_texts_given_gold(row))
        elif row is not None:
            results.append(_on_judge(row, "self_preference", common=_is_common(row, compared.values())))
    return results


def _own_texts_given_gold(row: Estimate) -> Finding:
    """Undefined with one gold that may err, with the number that would hold if it did not."""
    more, less = _PHRASES[row.term][1:]
    size = (less if (row.estimate or 0.0) < 0 else more).format(wording.size(row, abs(row.estimate or 0.0)))
    limits = interval_of_size(row) if (row.estimate or 0.0) < 0 else wording.interval(row)
    text = f"{_subject(row.term)}: undefined: one gold, which may err; {_AS_EXACT}: {size}, {limits}"
    return Finding("self_preference", "undefined", sentence(row.judge, text), row, with_number=True)


def _is_common(row: Estimate, compared: Iterable[Estimate]) -> bool:
    """Whether the pairs identify one coefficient for all judges: it is then the same for each, to the last digit."""
    limits = (row.estimate, row.conf_low, row.conf_high)
    return (
        row.term == "self_preference_log_odds"
        and row.estimate is not None
        and any(
            other.judge != row.judge and (other.estimate, other.conf_low, other.conf_high) == limits
            for other in compared
        )
    )


def _subject(term: str) -> str:
    return _PHRASES[term][0] if term in _PHRASES else wording.probe_name(term)


def _on_judge(row: Estimate, question: str, own: Estimate | None = None, *, common: bool = False) -> Finding:
    """The finding on one measure of a judge. ``own``: of a probe, its effect beyond length; ``common``: the number is the
    same for all judges."""
    _, more, less = _PHRASES.get(row.term, ("", "edited copy picked {}", "edited copy picked {}"))
    where = [f"{row.panel} panel"] if row.panel not in ("", "pairs") else []
    where += [f"generation {row.generation}"] if row.generation is not None else []
    where += [wording.count(row.n, wording.counted(row))]
    shared = "; one number for all judges, since these pairs do not separate them" if common else ""
    remark = f"; {_AS_EXACT}" if takes_gold_as_exact(row) else _REMARKS.get(row.term, "")
    place = f" ({', '.join(where)}){_length_part(row, own)}{shared}{remark}{_sharper(row)}"
    return claim(row, question, row.judge, _subject(row.term), more, less, place)


def _sharper(row: Estimate) -> str:
    """What the screen's sentence adds where a judge that follows quality more, or less, closely than gold would show it."""
    off_zero = row.conf_low is not None and row.conf_high is not None and not row.conf_low <= 0.0 <= row.conf_high
    shown = row.term == LENGTH_SCREEN and off_zero and row.p_value is not None and row.p_value > 0.05
    return "; an unbiased judge that follows quality more closely than gold does would show it too" if shown else ""


# The outputs over the generations, and the judge on its fixed panels.

_DESCRIBED = ("judge_drift_order_agreement", "judge_drift_length_log_odds")
"""Functions of the same verdicts as ``conflict_rate`` and ``longer_preferred_raw``, which are tested."""
_SEEN_BY = ("judge_drift_first_slot_excess", "judge_drift_padding_probe")
"""What a panel without a change is described by: how small a change of these it could have seen."""
_HEADLINE = ("did_length", "did_style_score")
_CHANGES = ("drift_length", "drift_style_score", "drift_mattr", "drift_tail_mass_retained")
_DIVERSITY = (
    "did_mattr",
    "did_distinct_2",
    "did_vendi",
    "did_compression_ratio",
    "did_self_bleu",
    "did_opener_entropy",
)
"""The headline on diversity is the first of these that is defined; the first of all is declared beforehand."""
_MOST_NAMED = 5
_MEANINGS = {
    "did_bias_amplification": "BiasAmp: the styles that stood out in a category at generation 0 stand in its texts that much more often",
}  # fmt: skip


def _drift(rows: Sequence[Estimate]) -> list[Finding]:
    """Drift beyond control at the last generation: length, style score and what a positive control has a taste for a sentence
    each, the other features in one."""
    final = [row for row in _final(rows) if row.bias not in ("diversity", "quality")]
    if not final:
        return _uncontrolled(rows)
    further = [row for row in final if not _has_a_sentence(row)]
    results = [_contrast(row, "drift") for row in final if _has_a_sentence(row)]
    unexplained = dict(_MEANINGS)
    for arm, contrast in _pairs_of_arms(further):
        results.append(_several(select(further, arm=arm, contrast=contrast), "drift", "other feature", unexplained))
    return results


def _has_a_sentence(row: Estimate) -> bool:
    return row.term in _HEADLINE or row.positive_control not in ("", "itself")


def _uncontrolled(rows: Sequence[Estimate]) -> list[Finding]:
    """The change since generation 0 where no control says what caused it: measured, and no claim on the judge."""
    changes = [row for row in rows if row.term in _CHANGES and row.variant == "" and row.estimate is not None]
    results = []
    for row in select(changes, generation=last_generation(changes)):
        estimate = row.estimate or 0.0
        limits = (
            (wording.interval(row) if estimate >= 0 else interval_of_size(row))
            if row.conf_low is not None
            else "no interval"
        )
        text = (
            f"{wording.feature_name(wording.feature_of(row.term, 'drift_'))}: {wording.size(row, abs(estimate))} "
            f"{'above' if estimate >= 0 else 'below'} generation 0, {limits}; without a control its cause is not known"
        )
        results.append(Finding("drift", "described", sentence(f"{row.arm}, generation {row.generation}", text), row))
    return results


def _diversity(rows: Sequence[Estimate]) -> list[Finding]:
    """A sentence a contrast on the headline measure, and one on all other measures together."""
    final = [row for row in _final(rows) if row.bias == "diversity"]
    headlines, further = [], []
    for arm, contrast in _pairs_of_arms(final):
        of_pair = select(final, arm=arm, contrast=contrast)
        defined = {row.term: row for row in of_pair if row.status != "undefined" and row.estimate is not None}
        headline = next((defined[term] for term in _DIVERSITY if term in defined), of_pair[0])
        headlines.append(_contrast(headline, "diversity"))
        others = [row for row in defined.values() if row is not headline]
        if others:
            further.append(_several(others, "diversity", "other measure"))
    headlines.sort(key=lambda finding: (is_positive_control(finding.row), finding.row.family != "confirmatory"))
    return headlines + further


_SHOWN_PHRASES = 3


def _phrases(rows: Sequence[Estimate]) -> list[Finding]:
    """A sentence a contrast in which a phrase spread, with those that spread most."""
    results = []
    for row in select(rows, term="phrase_spread", variant="", verdict="found"):
        listed = [row for row in select(rows, term="phrase_spread", arm=row.arm, contrast=row.contrast) if row.variant]
        shown = [_phrase(row) for row in listed[:_SHOWN_PHRASES]]
        more = len(listed) - len(shown)
        tail = f" and {more} more" if more > 0 else ""
        where = f"{_arm(row)} against {row.contrast}" if row.contrast else f"{row.arm}, generation {row.generation}"
        text = (
            f"phrases spread at the beginning or end of texts: {', '.join(shown)}{tail} ({wording.p_value(_p_of(row))})"
        )
        results.append(Finding("diversity", "found", sentence(where, text), row))
    return results


def _phrase(row: Estimate) -> str:
    rise, without = 100 * (row.estimate or 0.0), 100 * (row.benchmark or 0.0)
    return (
        f"“{row.variant}” in {without + rise:.0f} % of texts ({'else' if row.contrast else 'before'} {without:.0f} %)"
    )


def _quality(rows: Sequence[Estimate]) -> list[Finding]:
    """Correctness beyond control at the last generation, a sentence a contrast and measure."""
    of_contrast = [_contrast(row, "quality") for row in _final(rows) if row.bias == "quality"]
    return [
        *map(partial(_over_optimised, rows), select(rows, term="correct_per_proxy", verdict="over-optimised")),
        *of_contrast,
    ]


def _over_optimised(rows: Sequence[Estimate], row: Estimate) -> Finding:
    """That what was learned from the judge rose while correctness fell."""
    at = {"arm": row.arm, "contrast": row.contrast, "generation": row.generation, "variant": "", "category": ""}
    text = "over-optimised: the reward that was learned from the judge rose while right answers became fewer"
    gain, right = select(rows, term="proxy_gain", **at), select(rows, term="did_correct", **at)
    if gain and right:  # a table that was cut by hand may lack them
        text = (
            f"over-optimised: the reward that was learned from the judge rose by {_with_interval(gain[0])}, "
            f"while right answers changed by {_with_interval(right[0])}"
        )
    return Finding(
        "quality", "found", sentence(f"{_arm(row)} against {row.contrast}, generation {row.generation}", text), row
    )


def _with_interval(row: Estimate) -> str:
    return f"{wording.quantity(row, row.estimate)}, {wording.interval(row)}"


def less_varied(row: Estimate) -> bool:
    """Whether a diversity estimate says that the texts became more alike."""
    feature = wording.feature_of(row.term, "did_")
    return feature in wording.DIVERSITY and ((row.estimate or 0.0) > 0) == (feature in wording.MORE_MEANS_LESS_DIVERSE)


def _amplification(rows: Sequence[Estimate]) -> list[Finding]:
    """Whether later loops add more than the first did, and how much of the judge's slope the learned signal has."""
    results = []
    for feature in ("length", "style_score"):
        name = wording.feature_name(feature)
        # Run folders of earlier versions have the ratio alone.
        told = select(rows, term=f"beyond_first_step_{feature}", variant="") or select(
            rows, term=f"compounding_{feature}", variant=""
        )
        results += [_compounding(row, _of_contrast(rows, row, feature), name) for row in told]
        for row in select(rows, term=f"transmission_{feature}", variant=""):
            if row.status != "undefined" and row.estimate is not None:
                text = f"{name}: the learned signal's slope is {wording.figure(row, row.estimate)} times the judge's own, {wording.interval(row)} (1: passed on unchanged)"
                results.append(Finding("amplification", "described", sentence(row.arm, text), row))
    return results


@dataclass(frozen=True, slots=True)
class _Path:
    """What else is known of the drift of one contrast and feature; None where it is not."""

    first: Estimate | None
    last: Estimate | None
    index: Estimate | None
    beyond_strategy: Estimate | None
    pool: Estimate | None


def _of_contrast(rows: Sequence[Estimate], row: Estimate, feature: str) -> _Path:
    def only(term: str, contrast: str, generation: int | None = None) -> Estimate | None:
        found = select(rows, term=term, arm=row.arm, contrast=contrast, variant="")
        found = [one for one in found if one.generation == generation and one.estimate is not None]
        return found[0] if found else None

    dids = select(rows, term=f"did_{feature}", arm=row.arm, contrast=row.contrast, variant="")
    last = last_generation(dids) if dids else None
    return _Path(
        only(f"did_{feature}", row.contrast, 1),
        only(f"did_{feature}", row.contrast, last),
        only(f"compounding_{feature}", row.contrast),
        only(f"beyond_strategy_{feature}", row.contrast),
        only(f"pool_range_used_{feature}", "", last),
    )


def _compounding(row: Estimate, path: _Path, name: str) -> Finding:
    word = compounding_word(row)
    verdict: Standing = COMPOUNDING.get(word, "unclear" if row.verdict else "described")
    index = _index(path)
    if word:
        clause, rest = _meaning(word, row, path)
        increments, used = _increments(path), _pool_used(path)
        shown = f" ({increments})" if increments else ""
        text = f"{word}: {clause}{shown}{rest}{used}" + (f"; {index}" if index and not increments else "")
    elif row.status == "undefined" or row.estimate is None:
        verdict, text = "undefined", f"undefined{why(row)}"
    else:
        text = f"{index or wording.quantity(row, row.estimate)}{', of a drift that is itself not shown' if row.verdict else ''}"
    who = f"{_arm(row)} against {row.contrast}" if row.contrast else row.arm
    return Finding("amplification", verdict, sentence(who, f"{name}: {text}"), row)


def _meaning(word: Verdict, row: Estimate, path: _Path) -> tuple[str, str]:
    """What a word on compounding says: of the loops, and of a judge whose taste is constant."""
    less = "later loops add less than the first did"
    apart = path.beyond_strategy.verdict if path.beyond_strategy is not None else ""
    match word:
        case "amplifying":
            return "later loops add more than the first did", ""
        case "saturating":
            return less, ", and less than with a constant taste"
        case "as its strategy":
            return less, ", about as a constant taste makes them under this strategy"
        case "reversing":
            return "the first loop went one way, all loops together went the other", ""
        case "steady":
            return "every loop adds about as much as the first", ""
    if row.term.startswith("beyond_") and away(row):
        constant = "what this strategy makes of a constant taste"
        if apart == "found":
            return less, f", but more than {constant.removeprefix('what ')}"
        return less, f", which is not told apart from {constant}" if apart else f"; {constant} is not known"
    return "this run does not show whether later loops add more or less than the first", ""


def _increments(path: _Path) -> str:
    """ "0.29 doublings, then 0.20 a loop on average"; empty where that is not known."""
    first, last = path.first, path.last
    if first is None or last is None or first.estimate is None or last.estimate is None or (last.generation or 0) < 2:
        return ""
    steps = (last.generation or 0) - 1
    later = wording.figure(last, (last.estimate - first.estimate) / steps)
    return f"{wording.quantity(first, first.estimate)}, then {later}{' a loop on average' if steps > 1 else ''}"


def _index(path: _Path) -> str:
    row = path.index
    if row is None:
        return ""
    theory = (
        f", {wording.figure(row, row.benchmark)} with a constant taste under this strategy"
        if row.benchmark not in (None, 1.0)
        else ""
    )
    return f"compounding index {wording.figure(row, row.estimate)}, {wording.interval(row)} (1 is steady{theory})"


def _pool_used(path: _Path) -> str:
    row = path.pool
    if row is None or row.estimate is None:
        return ""
    return f"; {100 * row.estimate:.0f} % of the pool's range is used up"


def _judge_drift(rows: Sequence[Estimate]) -> list[Finding]:
    """Whether the judge itself changed on its fixed panels, in any generation: a sentence a term that changed, else one a panel."""
    tested = [
        row
        for row in rows
        if row.term.startswith("judge_drift_") and row.variant == "" and not is_control_judge(row.judge)
        and row.status != "undefined" and row.term not in _DESCRIBED
    ]  # fmt: skip
    results = []
    for judge, panel in dict.fromkeys((row.judge, row.panel) for row in tested):
        of_panel = select(tested, judge=judge, panel=panel)
        changed = [row for row in of_panel if verdict_of(row, margin_of(row)) == "found"]
        for term in dict.fromkeys(row.term for row in changed):
            results.append(_changed(select(changed, term=term), last_generation(of_panel)))
        if not changed:
            results.append(_not_changed(of_panel))
    return results


def _changed(rows: Sequence[Estimate], last: int | None) -> Finding:
    """The sentence on a term that changed: at the generation where that is surest, with the others where it was found."""
    row = min(rows, key=lambda row: (_p_of(row) or 0.0, row.generation or 0))
    name = wording.sentence_start(wording.term_name(row.term.removeprefix("judge_drift_")))
    others = [str(other.generation) for other in rows if other is not row]
    further = f"; found in generation {', '.join(others)} too" if others else ""
    gone = "" if last in [row.generation for row in rows] else f"; not found in generation {last}"
    where = f" (generation {row.generation} against 0, {row.panel} panel{further}{gone})"
    return claim(row, "judge_drift", row.judge, f"change of the judge, {name}", "{} higher", "{} lower", where)


def _not_changed(rows: Sequence[Estimate]) -> Finding:
    """One sentence on a panel where no change is found: that every verdict is the same, or what could have been seen."""
    last = last_generation(rows)
    row = next((row for row in select(rows, generation=last) if row.term in _SEEN_BY), select(rows, generation=last)[0])
    pairs = wording.count(row.n, "pair")
    first = min(row.generation or 0 for row in rows)
    span = f"generation {last}" if first == last else f"generations {first} to {last}"
    if all(row.verdict == "unchanged" for row in rows):
        text = (
            f"unchanged: all verdicts on the {pairs} of the {row.panel} panel are the same as in generation 0 ({span}); other "
            "pairs were not asked"
        )
        return Finding("judge_drift", "described", sentence(row.judge, text), row)
    seen = max((each for each in rows if each.term == row.term), key=lambda each: each.detectable or 0.0)
    name = wording.sentence_start(wording.term_name(row.term.removeprefix("judge_drift_")))
    could = (
        f"; {pairs} could have shown {wording.detectable(seen, 'change')} in one generation ({name}; 80 % power, corrected for all generations)"
        if seen.detectable is not None
        else ""
    )
    text = f"no change of the judge detected on the {row.panel} panel ({span} against 0){could}"
    within = seen.detectable is not None and seen.margin is not None and seen.detectable <= seen.margin
    return Finding("judge_drift", "undetected" if within else "underpowered", sentence(row.judge, text), seen)


def _contrast(row: Estimate, question: str) -> Finding:
    feature = wording.feature_of(row.term, "did_")
    who = f"{_arm(row)} against {row.contrast}, generation {row.generation}"
    above, below = "", ""
    if wording.unit_name(row) == "doublings" and row.estimate is not None:
        share = 100 * (2**row.estimate - 1)
        above, below = f" ({share:.0f} % more tokens)", f" ({-share:.0f} % fewer tokens)"
    elif feature in wording.DIVERSITY:
        above, below = " (more varied)", " (less varied)"
        if feature in wording.MORE_MEANS_LESS_DIVERSE:
            above, below = below, above
    more, less = f"drifted {{}} above the control{above}", f"drifted {{}} below the control{below}"
    # Without replicates (texts that were logged) the items of one training run are the sample.
    where = "" if row.n_replicates is not None else "; in this one training run, over its items"
    return claim(row, question, who, wording.feature_name(feature), more, less, where)


def _several(
    rows: Sequence[Estimate], question: str, noun: str, unexplained: MutableMapping[str, str] | None = None
) -> Finding:
    """All further measures of one contrast in one sentence: those that changed, by the size of their test, with intervals.

    ``unexplained``: term → meaning of measures with an unfamiliar name; a meaning that the sentence gives is taken out.
    """
    changed = [row for row in rows if verdict_of(row, None) == "found"]
    changed.sort(key=lambda row: -abs(row.estimate or 0.0) / (row.std_error or 1.0))
    who = f"{_arm(rows[0])} against {rows[0].contrast}"
    tested = [row for row in rows if row.conf_low is not None and row.conf_high is not None]
    if not tested:
        text = f"none of {wording.count(len(rows), noun)} has an interval"
        return Finding(question, "described", sentence(who, text), rows[0], several=True)
    if not changed:
        text = f"no change detected in any of {wording.count(len(tested), noun)}"
        return Finding(question, "undetected", sentence(who, text), tested[0], several=True)
    named = changed[:_MOST_NAMED]
    meanings = [unexplained.pop(row.term) for row in named if row.term in unexplained] if unexplained else []
    verb = "drifted" if question == "drift" else "changed"
    more = "; …" if len(changed) > _MOST_NAMED else ""
    text = f"{len(changed)} of {wording.count(len(rows), noun)} {verb} (exploratory): {'; '.join(map(_named, named))}{more}"
    text += "".join(f" ({meaning})" for meaning in meanings)
    return Finding(question, "found", sentence(who, text), changed[0], several=True)


def _named(row: Estimate) -> str:
    """ "self-BLEU +0.46, 95 % interval 0.40 to 0.52 (less varied)"."""
    direction = ""
    if wording.feature_of(row.term, "did_") in wording.DIVERSITY:
        direction = " (less varied)" if less_varied(row) else " (more varied)"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    name = wording.feature_name(wording.feature_of(row.term, "did_"))
    return f"{name} {wording.signed_figure(row)}{unit}, {wording.interval(row)}{direction}"


def _arm(row: Estimate) -> str:
    return f"{row.arm} (positive control)" if is_positive_control(row) else row.arm


def _pairs_of_arms(rows: Iterable[Estimate]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.arm, row.contrast) for row in rows))


def _final(rows: Sequence[Estimate]) -> list[Estimate]:
    """``did_`` rows of the last generation, the confirmatory first and positive controls last."""
    contrasts = [row for row in rows if row.term.startswith("did_") and row.variant == "" and row.contrast]
    final = select(contrasts, generation=last_generation(contrasts))
    return sorted(final, key=lambda row: (is_positive_control(row), row.family != "confirmatory"))
