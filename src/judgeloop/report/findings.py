"""Estimates in, sentences out: each says no more than its interval, its test and its status license.

The terminal, Markdown, JSON and HTML all print these sentences; none of them words or computes its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.reading import as_estimates, last_generation, select
from judgeloop.report.verdicts import (
    ALPHA,
    COMPOUNDING,
    DETECTABLE,
    MARGIN,
    QUESTIONS,
    Finding,
    Verdict,
    compounding_word,
    drift_word,
    is_probe,
    margin_of,
    verdict_of,
)
from judgeloop.stats.estimate import Estimate

_SAID_BY_ANOTHER = ("judge_drift_order_agreement",)  # 1 − the conflict rate
_PANELS = {"pairs": 0, "anchor": 1, "probe": 2, "policy": 3, "": 4}
# subject, what more is, what less is; {} takes the size
_PHRASES = {
    "first_slot_excess": ("first slot", "picked {} more often than half", "picked {} less often than half"),
    "identical_pair_excess": ("first slot on identical texts", "picked {} more often than half", "picked {} less often than half"),
    "padding_probe": ("padded copy", "picked {} more often than half", "picked {} less often than half"),
    "gold_tied_longer_excess": ("longer answer at equal gold", "picked {} more often than half", "picked {} less often than half"),
    "length_ame": ("length", "a doubling raises the chance of being picked by {}", "a doubling lowers the chance of being picked by {}"),
    "excess_longer_vs_gold": ("length", "a doubling moves the judge {} more than it moves gold", "a doubling moves the judge {} less than it moves gold"),
    "self_preference_gold": ("own answers", "picked {} more often than others' at equal gold", "picked {} less often than others' at equal gold"),
    "score_length_slope": ("length", "longer texts score higher, by {}", "longer texts score lower, by {}"),
    "score_scale_anchoring": ("the scale's ends", "the other scale puts the same texts higher, by {}", "the other scale puts the same texts lower, by {}"),
    **{f"slot_{k}_excess": (f"slot {k} of the list", "picked {} more often than its share", "picked {} less often than its share") for k in range(1, 9)},
}  # fmt: skip
_RATED = ("score_scale_anchoring", *(f"slot_{k}_excess" for k in range(1, 9)))
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
        *(_about_judge(row, "self_preference") for row in judge_rows(rows, "self_preference_gold")),
        *_drift(rows),
        *_amplification(rows),
        *_contrasts(rows, "diversity"),
        *_contrasts(rows, "quality"),
        *_judge_drift(rows),
    ]
    return _without_repeats(sorted(found, key=lambda finding: list(QUESTIONS).index(finding.question)))


def _without_repeats(found: Iterable[Finding]) -> list[Finding]:
    """What is undefined for one and the same reason is said once a question and judge."""
    said: set[tuple[str, str, str]] = set()
    kept = []
    for finding in found:
        reason = (finding.question, finding.row.judge, finding.row.note)
        if finding.verdict != "undefined" or reason not in said:
            kept.append(finding)
        if finding.verdict == "undefined":
            said.add(reason)
    return kept


def judge_rows(rows: Iterable[Estimate], term: str, variant: str = "") -> list[Estimate]:
    """The row that speaks for each judge: pairs before anchor before on-policy panels, all generations before the first.

    Control judges (random, gold) are left out: they are planted, not questioned.
    """
    some = [
        row for row in select(rows, scope="judge", term=term, variant=variant, category="") if not _planted(row.judge)
    ]
    some.sort(
        key=lambda row: (_PANELS.get(row.panel, 9), row.arm != "", row.generation is not None, row.generation or 0)
    )
    return list({row.judge: row for row in reversed(some)}.values())[::-1]


def _planted(judge: str) -> bool:
    return judge in ("random", "gold")


def _position(rows: Sequence[Estimate]) -> list[Finding]:
    found = [_about_judge(row, "position") for row in judge_rows(rows, "first_slot_excess")]
    for low in judge_rows(rows, "first_slot_excess", "worst_case_low"):
        high = [row for row in judge_rows(rows, "first_slot_excess", "worst_case_high") if row.judge == low.judge]
        if low.n_unscored and high and low.estimate is not None and high[0].estimate is not None:
            text = (
                f"with the {wording.count(low.n_unscored, 'unscored judgment')} all counted against or all for the first slot, "
                f"its excess would be {wording.figure(low, low.estimate)} to {wording.quantity(high[0], high[0].estimate)}"
            )
            found.append(Finding("position", "described", _sentence(low.judge, text), low))
    for row in judge_rows(rows, "conflict_rate"):
        if row.estimate is not None and row.status != "undefined":
            text = (
                f"the verdict changed with the order in {100 * row.estimate:.1f} % of {wording.count(row.n, 'pair')}, "
                f"{wording.interval(row)} (noise and bias together)"
            )
            found.append(Finding("position", "described", _sentence(row.judge, text), row))
    found += [_about_judge(row, "position") for term in _RATED for row in judge_rows(rows, term)]
    found += [
        _about_judge(row, "position")
        # An audit's pairs hold no identical texts where its probes do.
        for row in judge_rows([one for one in rows if one.status != "undefined"], "identical_pair_excess")
    ]
    return found


def _content(rows: Sequence[Estimate]) -> list[Finding]:
    some = [row for term in _CONTENT for row in judge_rows(rows, term)]
    probes = sorted({row.term for row in rows if is_probe(row.term)} - {"padding_probe"})
    some += [row for term in probes for row in judge_rows(rows, term)]
    defined = {row.judge for row in some if row.status != "undefined"}
    found = []
    for row in some:
        if row.status == "undefined" and row.judge in defined and row.term not in ("length_ame", "style_joint"):
            continue  # one measure that another stands in for; it stays in the table of estimates
        found.append(_joint(row) if row.term == "style_joint" else _about_judge(row, "content"))
    for row in judge_rows(rows, "longer_preferred_raw"):
        if row.estimate is not None and row.status != "undefined":
            text = f"the longer answer was preferred in {100 * row.estimate:.1f} % of judgments, {wording.interval(row)} (raw: quality and bias together)"
            found.append(Finding("content", "described", _sentence(row.judge, text), row))
    return sorted(found, key=lambda one: one.verdict == "undefined")  # what is identified leads


def _joint(row: Estimate) -> Finding:
    p = row.p_adjusted if row.p_adjusted is not None else row.p_value
    if row.status == "undefined" or p is None:
        return Finding(
            "content", "undefined", _sentence(row.judge, f"style and length together: undefined{_why(row)}"), row
        )
    test = f"{wording.p_value(p)}{' after adjustment' if row.p_adjusted is not None else ''}"
    if p <= ALPHA.get(row.family, 0.05):
        verdict: Verdict = "unconfirmed" if row.status == "underpowered" else "found"
        return Finding(
            "content",
            verdict,
            _sentence(row.judge, f"style and length together move the verdict at equal quality ({test})"),
            row,
        )
    verdict = "underpowered" if row.status == "underpowered" else "undetected"
    text = f"style and length together: no effect detected ({test}), which does not show that there is none"
    return Finding("content", verdict, _sentence(row.judge, text), row)


def _about_judge(row: Estimate, question: str) -> Finding:
    feature = wording.feature_name(row.term.removesuffix("_probe"))
    subject, more, less = _PHRASES.get(
        row.term, (f"added {feature}", "picked {} more often than half", "picked {} less often than half")
    )
    where = [f"{row.panel} panel"] if row.panel not in ("", "pairs") else []
    where += [f"generation {row.generation}"] if row.generation is not None else []
    where += [wording.count(row.n, _counted(row))]
    return _claim(row, question, row.judge, subject, more, less, f" ({', '.join(where)})")


def _claim(row: Estimate, question: str, who: str, subject: str, more: str, less: str, where: str) -> Finding:
    verdict = verdict_of(row, margin_of(row))
    estimate = row.estimate or 0.0
    effect = (more if estimate >= 0 else less).format(wording.quantity(row, abs(estimate)))
    texts: dict[str, str] = {
        "undefined": f"{subject}: undefined{_why(row)}",
        "described": f"{subject}: {effect}, no interval",
        "found": f"{subject}: {effect}, {wording.interval(row)}",
        "unconfirmed": f"{subject}: {effect}, {wording.interval(row)}, but {_doubt(row)}",
        "equivalent": f"{subject}: no effect of practical size, {wording.interval(row)}{_within(row)}",
        "undetected": f"{subject}: {_nothing(row)}",
        "underpowered": f"{subject}: too few data to tell, {wording.interval(row)}{_could_have_seen(row)}",
    }
    return Finding(
        question,
        verdict,
        _sentence(who, texts[verdict] + (where if verdict != "undefined" else "")),
        row,
        drift_word(row),
    )


def _nothing(row: Estimate) -> str:
    what = "drift" if row.term.startswith(("did_", "judge_drift_")) else "effect"
    return f"no {what} detected, {wording.interval(row)}{_could_have_seen(row) or '; this does not show that there is none'}"


def _could_have_seen(row: Estimate) -> str:
    match = DETECTABLE.search(row.note)
    if not match:
        return ""
    what = "run" if row.n_replicates else "sample"
    unit = f" {wording.unit_name(row)}" if wording.unit_name(row) else ""
    return f"; this {what} could have seen {wording.figure(row, float(match.group(1)))}{unit} or more"


def _doubt(row: Estimate) -> str:
    if row.status == "underpowered":
        return "the sample is too small to rely on"
    return f"not after correction for several tests (adjusted {wording.p_value(row.p_adjusted)})"


def _within(row: Estimate) -> str:
    """The margin that the equivalence test used, from the row where it says."""
    said = MARGIN.search(row.note)
    margin = float(said.group(1)) if said else margin_of(row)
    return f", within ±{wording.quantity(row, margin)}" if margin is not None else " (equivalence test)"


def _why(row: Estimate) -> str:
    return f": {wording.label(row.note, 240)}" if row.note else ""


def _sentence(who: str, text: str) -> str:
    body = f"{wording.label(who)} · {text}" if who else wording.sentence_case(text)
    return body if body.endswith(".") else f"{body}."


def _counted(row: Estimate) -> str:
    if row.term.startswith("slot_"):
        return "set"
    if row.term.startswith("score_"):
        return "text" if row.bias == "position" else "pair"
    pairs = (row.bias == "position" and row.term != "identical_pair_excess") or is_probe(row.term)
    return "pair" if pairs else "judgment"


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
    return _claim(row, question, who, wording.feature_name(feature), more, less, "")


def _pairs_of_arms(rows: Iterable[Estimate]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row.arm, row.contrast) for row in rows))


def _final_contrasts(rows: Sequence[Estimate]) -> list[Estimate]:
    some = [row for row in rows if row.term.startswith("did_") and row.variant == "" and row.contrast]
    final = select(some, generation=last_generation(some))
    return sorted(final, key=lambda row: row.family != "confirmatory")


def _drift(rows: Sequence[Estimate]) -> list[Finding]:
    some = [row for row in _final_contrasts(rows) if row.bias not in ("diversity", "quality")]
    headline = [row for row in some if row.term in ("did_length", "did_style_score")]
    others = [row for row in some if row not in headline]
    found = [_contrast(row, "drift") for row in headline]
    for arm, contrast in _pairs_of_arms(others):
        found.append(_other_features(select(others, arm=arm, contrast=contrast)))
    return found


def _other_features(rows: Sequence[Estimate]) -> Finding:
    moved = [row for row in rows if verdict_of(row, None) == "found"]
    moved.sort(key=lambda row: -abs(row.estimate or 0.0))
    who = f"{rows[0].arm} against {rows[0].contrast}"
    if not moved:
        return Finding(
            "drift",
            "undetected",
            _sentence(who, f"no drift detected in any of {wording.count(len(rows), 'other feature')}"),
            rows[0],
        )
    named = [
        f"{wording.feature_name(wording.feature_of(row.term, 'did_'))} {wording.signed(row.estimate)} {wording.unit_name(row)}".rstrip()
        for row in moved
    ]
    text = f"{len(moved)} of {wording.count(len(rows), 'other feature')} drifted (exploratory): {', '.join(named[:5])}{', …' if len(named) > 5 else ''}"
    return Finding("drift", "found", _sentence(who, text), moved[0])


def _contrasts(rows: Sequence[Estimate], bias: str) -> list[Finding]:
    some = [row for row in _final_contrasts(rows) if row.bias == bias]
    if bias == "diversity":
        # One measure is declared beforehand; the others are shown and only named here where they moved.
        some = [row for row in some if row.term == "did_mattr" or verdict_of(row, None) == "found"]
    return [_contrast(row, bias) for row in some]


def _amplification(rows: Sequence[Estimate]) -> list[Finding]:
    found = []
    for feature in ("length", "style_score"):
        name = wording.feature_name(feature)
        for row in select(rows, term=f"compounding_{feature}", variant=""):
            who = f"{row.arm} against {row.contrast}" if row.contrast else row.arm
            if row.status == "undefined" or row.estimate is None:
                found.append(
                    Finding(
                        "amplification",
                        "undefined",
                        _sentence(who, f"{name}: compounding is undefined{_why(row)}"),
                        row,
                    )
                )
                continue
            index = f"compounding index {wording.figure(row, row.estimate)}, {wording.interval(row)} (1 is steady)"
            word = compounding_word(row)
            if not word:
                text = f"{name}: {index}, of a drift that is itself not shown"
                found.append(Finding("amplification", "unclear", _sentence(who, text), row))
                continue
            verdict, meaning = COMPOUNDING[word]
            verdict = "unclear" if row.status == "underpowered" else verdict
            found.append(
                Finding("amplification", verdict, _sentence(who, f"{name}: {word}: {meaning}; {index}"), row, word)
            )
        for row in select(rows, term=f"transmission_{feature}", variant=""):
            if row.status != "undefined" and row.estimate is not None:
                text = f"{name}: the signal carries {wording.figure(row, row.estimate)} times the judge's own slope, {wording.interval(row)} (1 passes it on unchanged)"
                found.append(Finding("amplification", "described", _sentence(row.arm, text), row))
    return found


def _judge_drift(rows: Sequence[Estimate]) -> list[Finding]:
    some = [
        row
        for row in rows
        if row.term.startswith("judge_drift_")
        and row.term not in _SAID_BY_ANOTHER
        and row.variant == ""
        and not _planted(row.judge)
    ]
    found = []
    for row in select(some, generation=last_generation(some)):
        subject = wording.TERMS.get(row.term.removeprefix("judge_drift_"), wording.term_name(row.term)).lower()
        where = f" (generation {row.generation} against 0, {row.panel} panel)"
        found.append(
            _claim(
                row,
                "judge_drift",
                row.judge,
                subject,
                "{} higher than at generation 0",
                "{} lower than at generation 0",
                where,
            )
        )
    return found
