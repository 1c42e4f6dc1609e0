"""What became of the outputs over the generations, and of the judge on its fixed panels: estimates in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence

from judgeloop.report import wording
from judgeloop.report.claims import claim, sentence, why
from judgeloop.report.reading import last_generation, select
from judgeloop.report.verdicts import COMPOUNDING, Finding, compounding_word, verdict_of
from judgeloop.stats.estimate import Estimate

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
