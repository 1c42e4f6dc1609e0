"""Estimates in, sentences out: each says no more than its interval, its test and its status license.

The terminal, Markdown, JSON and HTML all print these sentences; none of them words or computes its own.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.claims import (
    COMPOUNDING,
    QUESTIONS,
    Finding,
    Standing,
    claim,
    compounding_word,
    harm,
    interval_of_size,
    is_probe,
    margin_of,
    sentence,
    verdict_of,
    why,
)
from judgeloop.report.reading import as_estimates, last_generation, select
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.content import GIVEN_GOLD
from judgeloop.stats.judge.probes import BEYOND_LENGTH
from judgeloop.stats.multiplicity import ALPHA

# What became of the outputs over the generations, and of the judge on its fixed panels: estimates in, sentences out.

PLANTED = ("random", "gold")
"""Judges that are planted as controls, and not questioned."""
_SAID_BY_ANOTHER = ("judge_drift_order_agreement",)  # 1 − the conflict rate
_HEADLINE = ("did_length", "did_style_score")
_DIVERSITY = (
    "did_mattr",
    "did_distinct_2",
    "did_vendi",
    "did_compression_ratio",
    "did_self_bleu",
    "did_opener_entropy",
)
"""The measure that speaks for diversity is the first of these that is defined; the first is declared beforehand."""
_NAMED = 5
_EXPLAINED = {
    "did_bias_amplification": "BiasAmp: the styles that stood out in a category at generation 0 stand in its texts that much more often",
}  # fmt: skip


def drift(rows: Sequence[Estimate]) -> list[Finding]:
    """Drift beyond control at the last generation: length and style score a sentence each, the other features in one."""
    some = [row for row in _final(rows) if row.bias not in ("diversity", "quality")]
    headline = [row for row in some if row.term in _HEADLINE]
    others = [row for row in some if row.term not in _HEADLINE]
    found = [_contrast(row, "drift") for row in headline]
    unexplained = dict(_EXPLAINED)
    for arm, contrast in _pairs_of_arms(others):
        found.append(_others(select(others, arm=arm, contrast=contrast), "drift", "other feature", unexplained))
    return found


def diversity(rows: Sequence[Estimate]) -> list[Finding]:
    """A sentence a contrast on the measure that speaks, and one on all others together."""
    some = [row for row in _final(rows) if row.bias == "diversity"]
    found, further = [], []
    for arm, contrast in _pairs_of_arms(some):
        of_pair = select(some, arm=arm, contrast=contrast)
        known = {row.term: row for row in of_pair if row.status != "undefined" and row.estimate is not None}
        speaks = next((known[term] for term in _DIVERSITY if term in known), of_pair[0])
        found.append(_contrast(speaks, "diversity"))
        others = [row for row in known.values() if row is not speaks]
        if others:
            further.append(_others(others, "diversity", "other measure"))
    return sorted(found, key=lambda one: one.row.family != "confirmatory") + further


def quality(rows: Sequence[Estimate]) -> list[Finding]:
    """Correctness beyond control at the last generation, a sentence a contrast and measure."""
    return [_contrast(row, "quality") for row in _final(rows) if row.bias == "quality"]


def less_varied(row: Estimate) -> bool:
    """Whether a diversity estimate says that the texts became more alike."""
    feature = wording.feature_of(row.term, "did_")
    return feature in wording.DIVERSITY and ((row.estimate or 0.0) > 0) == (feature in wording.MORE_MEANS_LESS_DIVERSE)


def amplification(rows: Sequence[Estimate]) -> list[Finding]:
    """Whether later loops add more than the first did, and what share of the judge's taste the signal carries."""
    found = []
    for feature in ("length", "style_score"):
        name = wording.feature_name(feature)
        for row in select(rows, term=f"compounding_{feature}", variant=""):
            who = f"{row.arm} against {row.contrast}" if row.contrast else row.arm
            if row.status == "undefined" or row.estimate is None:
                text = f"{name}: cannot be told{why(row)}"
                found.append(Finding("amplification", "undefined", sentence(who, text), row))
                continue
            index = f"compounding index {wording.figure(row, row.estimate)}, {wording.interval(row)} (1 is steady)"
            word = compounding_word(row)
            if not row.verdict:
                found.append(Finding("amplification", "described", sentence(who, f"{name}: {index}"), row))
                continue
            if not word:
                text = f"{name}: {index}, of a drift that is itself not shown"
                found.append(Finding("amplification", "unclear", sentence(who, text), row))
                continue
            verdict, meaning = COMPOUNDING[word]
            verdict = "unclear" if row.status == "underpowered" else verdict
            found.append(Finding("amplification", verdict, sentence(who, f"{name}: {word}: {meaning}; {index}"), row))
        for row in select(rows, term=f"transmission_{feature}", variant=""):
            if row.status != "undefined" and row.estimate is not None:
                text = f"{name}: the signal carries {wording.figure(row, row.estimate)} times the judge's own slope, {wording.interval(row)} (1 passes it on unchanged)"
                found.append(Finding("amplification", "described", sentence(row.arm, text), row))
    return found


def judge_drift(rows: Sequence[Estimate]) -> list[Finding]:
    """Whether the judge itself changed on its fixed panels; where no verdict of a panel moved, that is the sentence."""
    some = [
        row
        for row in rows
        if row.term.startswith("judge_drift_")
        and row.term not in _SAID_BY_ANOTHER
        and row.variant == ""
        and row.judge not in PLANTED
    ]
    found = []
    same: set[tuple[str, str]] = set()
    for row in select(some, generation=last_generation(some)):
        if row.verdict == "unchanged":
            if (row.judge, row.panel) not in same:
                same.add((row.judge, row.panel))
                found.append(_same(row))
            continue
        subject = wording.TERMS.get(
            row.term.removeprefix("judge_drift_"), wording.term_name(row.term.removeprefix("judge_drift_"))
        )
        where = f" (generation {row.generation} against 0, {row.panel} panel)"
        found.append(
            claim(
                row, "judge_drift", row.judge, wording.sentence_start(subject), "{} higher than at generation 0",
                "{} lower than at generation 0", where,
            )
        )  # fmt: skip
    return found


def _same(row: Estimate) -> Finding:
    text = (
        f"every pair was judged as at generation 0: no change on this panel (generation {row.generation}, {row.panel} panel, "
        f"{wording.count(row.n, 'pair')}); other pairs were not asked"
    )
    return Finding("judge_drift", "described", sentence(row.judge, text), row)


def _contrast(row: Estimate, question: str) -> Finding:
    feature = wording.feature_of(row.term, "did_")
    who = f"{row.arm} against {row.contrast}, generation {row.generation}"
    above, below = "", ""
    if wording.unit_name(row) == "doublings" and row.estimate is not None:
        share = 100 * (2**row.estimate - 1)
        above, below = f" ({share:.0f} % more tokens)", f" ({-share:.0f} % fewer tokens)"
    elif feature in wording.DIVERSITY:
        above, below = " (more varied)", " (less varied)"
        if feature in wording.MORE_MEANS_LESS_DIVERSE:
            above, below = below, above
    more, less = f"drifted {{}} above the control{above}", f"drifted {{}} below the control{below}"
    return claim(row, question, who, wording.feature_name(feature), more, less, "")


def _others(
    rows: Sequence[Estimate], question: str, noun: str, unexplained: MutableMapping[str, str] | None = None
) -> Finding:
    """All further measures of one contrast in one sentence: those that moved, by the size of their test, with intervals.

    ``unexplained``: term → meaning of measures of an unfamiliar name; what the sentence explains is taken out of it.
    """
    moved = [row for row in rows if verdict_of(row, None) == "found"]
    moved.sort(key=lambda row: -abs(row.estimate or 0.0) / (row.std_error or 1.0))
    who = f"{rows[0].arm} against {rows[0].contrast}"
    if not moved:
        text = f"no change detected in any of {wording.count(len(rows), noun)}"
        return Finding(question, "undetected", sentence(who, text), rows[0], several=True)
    shown = moved[:_NAMED]
    named = [_named(row) for row in shown]
    meanings = [unexplained.pop(row.term) for row in shown if row.term in unexplained] if unexplained else []
    what = "drifted" if question == "drift" else "moved"
    text = f"{len(moved)} of {wording.count(len(rows), noun)} {what} (exploratory): {'; '.join(named)}{'; …' if len(moved) > _NAMED else ''}"
    text += "".join(f" ({meaning})" for meaning in meanings)
    return Finding(question, "found", sentence(who, text), moved[0], several=True)


def _named(row: Estimate) -> str:
    """ "self-BLEU +0.46, 95 % interval 0.40 to 0.52 (less varied)"."""
    way = ""
    if row.bias == "diversity":
        way = " (less varied)" if less_varied(row) else " (more varied)"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    name = wording.feature_name(wording.feature_of(row.term, "did_"))
    return f"{name} {wording.signed_figure(row)}{unit}, {wording.interval(row)}{way}"


def _pairs_of_arms(rows: Iterable[Estimate]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.arm, row.contrast) for row in rows))


def _final(rows: Sequence[Estimate]) -> list[Estimate]:
    """``did_`` rows of the last generation, the confirmatory first."""
    some = [row for row in rows if row.term.startswith("did_") and row.variant == "" and row.contrast]
    final = select(some, generation=last_generation(some))
    return sorted(final, key=lambda row: row.family != "confirmatory")


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
        *drift(rows),
        *amplification(rows),
        *diversity(rows),
        *quality(rows),
        *judge_drift(rows),
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
