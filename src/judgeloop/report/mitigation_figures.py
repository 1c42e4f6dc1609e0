"""What each mitigation leaves, passes on and costs: a table a judge, and the sentence that goes with consistency filtering."""

from __future__ import annotations

from collections.abc import Sequence

from judgeloop.report import wording
from judgeloop.report.overview import Table
from judgeloop.report.reading import Reading
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.mitigation import MITIGATIONS

TITLE = "What would a trained signal inherit?"
NAMES = {
    "raw": "none (raw)",
    "swap_average": "swap average",
    "consistent_only": "consistent only",
    "length_controlled": "length controlled",
    "rubric": "rubric",
    "panel": "panel",
}
_COLUMNS = {
    "first_slot_excess": "First slot",
    "length_ame": "Length at equal gold",
    "longer_preferred_raw": "Longer won (raw)",
    "transmission_length": "Passes on of length",
    "gold_agreement": "Agrees with gold",
    "mitigation_kept": "Pairs kept",
    "mitigation_cost": "Calls a label",
}
_SHORT = {
    "length_ame": "Length", "longer_preferred_raw": "Longer won", "transmission_length": "Passes on",
    "gold_agreement": "Gold agrees", "mitigation_kept": "Kept", "mitigation_cost": "Calls",
}  # fmt: skip
_POINTS_ONLY = ("mitigation_kept", "mitigation_cost")


def tables(reading: Reading, *, narrow: bool = False) -> list[Table]:
    """A table a judge (and panel of pairs, arm or generation) whose mitigations were measured; none without any.

    ``narrow``: for a terminal, in fewer and shorter words. Where gold is known length is that at equal gold, else raw.
    """
    made = []
    several = len(measured(reading.estimates)) > 1
    for (judge, arm, generation, panel), rows in measured(reading.estimates).items():
        known = any(row.term == "length_ame" and row.status != "undefined" for row in rows)
        left_out = {"longer_preferred_raw"} if known and narrow else set() if known else {"length_ame"}
        if all(row.status == "undefined" for row in rows if row.term == "gold_agreement"):
            left_out.add("gold_agreement")
        terms = [term for term in _COLUMNS if term not in left_out]
        place = {(row.variant, row.term): row for row in rows}
        body = tuple(
            (NAMES[name], *(_cell(place.get((name, term)), term) for term in terms))
            for name in MITIGATIONS
            if any(variant == name for variant, _ in place)
        )
        whose = [wording.label(judge)] if several or not narrow else []
        whose += [wording.label(arm)] if arm else []
        whose += [f"generation {generation}"] if generation is not None else []
        whose += [panel] if panel not in ("", "pairs") else []
        title = " – ".join([TITLE, ", ".join(whose)]) if whose else TITLE
        heads = [_SHORT.get(term, _COLUMNS[term]) if narrow else _COLUMNS[term] for term in terms]
        caption = (
            "Labels made of the same verdicts, or asked anew (rubric, panel). First slot, length and agreement in percentage "
            "points; length per doubling. Passes on: the slope of a signal trained on these labels over the judge's own, "
            "1 = as it is, 2 = doubled, 0 = removed. "
        )
        made.append(Table(title, (caption + " ".join(_of_filter(rows))).rstrip(), ("Mitigation", *heads), body))
    return made


def sentences(reading: Reading) -> list[str]:
    """What consistency filtering does to content slopes, in plain words with the measured ratio; a sentence a judge."""
    found = measured(reading.estimates)
    return [
        (f"{wording.label(judge)}: " if len(found) > 1 else "") + sentence
        for (judge, _, _, _), rows in found.items()
        for sentence in _of_filter(rows)
    ]


def measured(rows: Sequence[Estimate]) -> dict[tuple[str, str, int | None, str], list[Estimate]]:
    """The mitigations' rows by (judge, arm, generation, panel), in the estimates' order."""
    found: dict[tuple[str, str, int | None, str], list[Estimate]] = {}
    for row in rows:
        if row.variant in NAMES and row.term in _COLUMNS and row.category == "":
            found.setdefault((row.judge, row.arm, row.generation, row.panel), []).append(row)
    return found


def _of_filter(rows: Sequence[Estimate]) -> list[str]:
    kept = next((row for row in rows if (row.variant, row.term) == ("consistent_only", "transmission_length")), None)
    if kept is None:
        return []
    plain = "Consistency filtering removes position bias and doubles content slopes"
    if kept.status == "undefined" or kept.estimate is None:
        why = kept.note.split("; ", maxsplit=1)[0]
        return [
            f"{plain}: 2 times the judge's own where calls are independent. Here that could not be measured: {wording.label(why, 160)}."
        ]
    said = f"{wording.number(kept.estimate)} ({wording.interval(kept)})"
    if kept.conf_high is not None and kept.conf_high < 2.0:
        return [
            f"{plain} where calls are independent. Here it passes on {said} times the judge's length slope: less than 2, as where "
            "both orders share what moves them (temperature 0, or merit that no feature holds)."
        ]
    return [f"{plain}: here a signal would inherit {said} times the judge's length slope; 2 is what theory says."]


def _cell(row: Estimate | None, term: str) -> str:
    if row is None:
        return "–"
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    if row.method == "by construction":
        return "0 by construction"
    if term in _POINTS_ONLY:
        return f"{100 * row.estimate:.0f} %" if term == "mitigation_kept" else wording.figure(row, row.estimate)
    if term == "transmission_length" and row.conf_low is not None and row.conf_low == row.conf_high:
        return wording.figure(row, row.estimate)
    return wording.cell(row)
