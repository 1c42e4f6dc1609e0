"""What each mitigation leaves, passes on and costs: a table a judge, and the sentence that goes with consistency filtering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from judgeloop.report import wording
from judgeloop.report.reading import Reading
from judgeloop.report.tables import Table
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.mitigation import MITIGATIONS

TITLE = "What would a trained signal inherit?"
NAMES = {
    "raw": "none (raw)",
    "raw_picks": "none (raw picks)",
    "swap_average": "swap average",
    "consistent_only": "consistent only",
    "length_controlled": "length controlled",
    "rubric": "rubric",
    "panel": "panel",
}
RATIO = "transmission_length"
GIVEN_GOLD = "_given_gold"

Key = tuple[str, str, int | None, str]
Place = tuple[str, str]

_EXACT = 1e-9
"""A ratio whose error is rounding: the labels are the judge's picks."""
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
    "gold_agreement": "Gold agrees", "mitigation_cost": "Calls",
}  # fmt: skip


def tables(reading: Reading, *, narrow: bool = False) -> list[Table]:
    """A table a judge (and panel of pairs, arm or generation) whose mitigations were measured; none without any.

    ``narrow``: for a terminal, in fewer and shorter words. Where gold is known length is that at equal gold, else raw.
    """
    found = measured(reading.estimates)
    return [_table(key, rows, narrow=narrow, alone=len(found) == 1) for key, rows in found.items()]


def sentences(reading: Reading) -> list[str]:
    """What the columns of the narrow table are, and in plain words what consistency filtering does to content slopes, with
    the measured ratio: a sentence a judge. None where no mitigation was measured."""
    found = measured(reading.estimates)
    if not found:
        return []
    marked = any(_ratios(rows) for rows in found.values())
    why = "; * at equal gold, since the judge's plain slope cannot be told from 0" if marked else ""
    return [
        "Passes on: the length slope of a signal trained on these labels over the judge's own; 1 = as it is, 2 = doubled, "
        f"0 = removed{why}.",
        *(
            (f"{wording.label(key[0])}: " if len(found) > 1 else "") + sentence
            for key, rows in found.items()
            for sentence in _of_filter(rows)
        ),
    ]


def measured(rows: Sequence[Estimate]) -> dict[Key, dict[Place, Estimate]]:
    """The mitigations' rows by (judge, arm, generation, panel), and in each by (variant, term)."""
    found: dict[Key, dict[Place, Estimate]] = {}
    for row in rows:
        if row.variant.removesuffix(GIVEN_GOLD) in NAMES and row.term in _COLUMNS and row.category == "":
            found.setdefault((row.judge, row.arm, row.generation, row.panel), {})[row.variant, row.term] = row
    return found


def _table(key: Key, rows: Mapping[Place, Estimate], *, narrow: bool, alone: bool) -> Table:
    judge, arm, generation, panel = key
    known = any(row.term == "length_ame" and row.status != "undefined" for row in rows.values())
    hidden = {"longer_preferred_raw"} if known and narrow else set() if known else {"length_ame"}
    hidden |= {"mitigation_kept"} if narrow else set()
    if all(row.status == "undefined" for row in rows.values() if row.term == "gold_agreement"):
        hidden.add("gold_agreement")
    terms = [term for term in _COLUMNS if term not in hidden]
    suffix = _ratios(rows)
    body = []
    for name in MITIGATIONS:
        if (name, RATIO) not in rows:
            continue
        own = {term: rows.get((name, term)) for term in terms}
        own[RATIO] = rows.get((name + suffix, RATIO), rows[name, RATIO])
        body.append((NAMES[name], *(_cell(own[term], narrow=narrow) for term in terms)))
    heads = {term: _SHORT.get(term, _COLUMNS[term]) if narrow else _COLUMNS[term] for term in terms}
    at = ", at equal gold" if suffix else ""
    heads[RATIO] += "*" if suffix and narrow else at
    whose = [wording.label(judge)] * (not (alone and narrow)) + [wording.label(arm)] * bool(arm)
    whose += [f"generation {generation}"] * (generation is not None) + [panel] * (panel not in ("", "pairs"))
    caption = (
        "Labels made of the same verdicts, or asked anew (rubric, panel). First slot, length and agreement in percentage "
        f"points; length per doubling. Passes on: the length slope of a signal trained on these labels over the judge's{at}; "
        "1 = as it is, 2 = doubled, 0 = removed."
    )
    if ("raw_picks", RATIO) in rows:
        caption += " Raw picks: the same verdicts without their probabilities, as consistent only, rubric and panel take them; compare those with it."
    return Table(
        " – ".join([TITLE, ", ".join(whose)]) if whose else TITLE,
        " ".join([caption, *_of_filter(rows)]),
        ("Mitigation", *heads.values()),
        tuple(body),
    )


def _ratios(rows: Mapping[Place, Estimate]) -> str:
    """Which transmission is shown: the plain one, or where the judge's plain slope cannot be told from 0, that at equal
    gold. One choice for all mitigations, so that they can be compared."""
    plain, given = rows.get(("raw", RATIO)), rows.get((f"raw{GIVEN_GOLD}", RATIO))
    hidden = plain is None or plain.status == "undefined"
    return GIVEN_GOLD if hidden and given is not None and given.status != "undefined" else ""


def _of_filter(rows: Mapping[Place, Estimate]) -> list[str]:
    suffix = _ratios(rows)
    kept = rows.get((f"consistent_only{suffix}", RATIO))
    if kept is None:
        return []
    factor = _factor(rows)
    what = "doubles content slopes" if factor == 2 else f"multiplies content slopes by {factor}"
    plain = f"Consistency filtering removes position bias and {what}"
    slope = "length slope at equal gold" if suffix else "length slope"
    if kept.status == "undefined" or kept.estimate is None or kept.conf_high is None:
        why = wording.label(kept.note, 160)
        return [f"{plain}, where calls are independent. Here its effect could not be measured: {why}."]
    said = f"{wording.number(kept.estimate)} ({wording.interval(kept)})"
    if kept.conf_high < factor:
        return [
            f"{plain}, where calls are independent. Here a signal would inherit {said} times the judge's {slope}: less than {factor}, "
            "as where both orders share what moves them (temperature 0, or merit that no feature holds)."
        ]
    return [
        f"{plain}: here a signal would inherit {said} times the judge's {slope}; theory says {factor} for independent calls."
    ]


def _factor(rows: Mapping[Place, Estimate]) -> int:
    """What theory multiplies slopes by: the calls that must agree on a pair, 2 a repeat."""
    row = rows.get(("consistent_only", RATIO))
    return 2 if row is None or row.benchmark is None else round(row.benchmark)


def _cell(row: Estimate | None, *, narrow: bool) -> str:
    if row is None:
        return "–"
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    if row.method == "by construction":
        return "0 by construction" if not narrow else "0 exactly"
    if row.term == "mitigation_kept":
        return f"{100 * row.estimate:.0f} %"
    if row.term == "mitigation_cost" or (row.term == RATIO and (row.std_error or 0.0) < _EXACT):
        return wording.figure(row, row.estimate)
    return wording.cell(row)
