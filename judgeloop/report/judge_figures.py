"""Figures about a judge (bias with intervals, probes, slopes, position by slot and category, drift on fixed pairs), and the
table of what each mitigation leaves, passes on and costs."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from judgeloop.records import is_control_judge
from judgeloop.report import wording
from judgeloop.report.claims import harm, is_probe
from judgeloop.report.figure import (
    BREAK,
    MARKERS,
    REFERENCE,
    Figure,
    Panel,
    Spec,
    Style,
    asides,
    axis_title,
    defined,
    equivalence_band,
    forest,
    forest_legend,
    generations_panel,
    hover,
    in_words,
    layout,
    points,
    safe,
    scaled,
    strong,
    titled,
    value_range,
)
from judgeloop.report.findings import judge_rows
from judgeloop.report.reading import Reading, select
from judgeloop.report.tables import Table
from judgeloop.stats.estimate import RATE_MARGIN, Estimate
from judgeloop.stats.items import RARE
from judgeloop.stats.judge.mitigation import MITIGATIONS
from judgeloop.stats.judge.slopes import LONG, SHORT, LengthBin, picks_by_length

_RATES = (
    "first_slot_excess", "identical_pair_excess", "excess_conflict", "padding_probe", "gold_tied_longer_excess", "length_ame",
    "self_preference_gold",
)  # fmt: skip
_SLOPES = ("position_log_odds", "length_log_odds", "self_preference_log_odds", "gold_log_odds")
_HELD = {"given_gold": " (gold taken as exact)", "no_gold": " (quality not held equal)"}
_SLOT = re.compile(r"slot_(\d+)_excess")
_PANEL_RANKS = {"pairs": 0, "anchor": 1}
_BEYOND_LENGTH = "beyond_length"
_MOST_CATEGORIES = 30
_MOST_JUDGES = 8
_ALL = "all items"
_HEAT_TITLE = "Position, slot by category"


def figures(reading: Reading, drawn: Collection[Estimate] = ()) -> list[Figure]:
    """The judge's figures for which there are estimates, in reading order. ``drawn``: what a picture shows already; a figure of that alone
    is left out."""
    rates = _rates(reading)
    if rates is not None and all(row in drawn or row.term == "excess_conflict" for row in rates.rows):
        rates = None
    parts = (
        rates, picks_by_length_difference(reading), probes(reading), _slopes(reading), position_by_slot(reading),
        _over_generations(reading),
    )  # fmt: skip
    return [figure for figure in parts if figure is not None]


def _rates(reading: Reading) -> Figure | None:
    further = sorted({row.term for row in reading.estimates if is_probe(row.term)} - set(_RATES))
    rows = defined([row for term in _RATES for row in judge_rows(reading.estimates, term)])
    rows += sorted(defined([row for term in further for row in judge_rows(reading.estimates, term)]), key=harm)
    probed = probes(reading)  # which has them with their doses
    elsewhere = set(probed.rows) if probed is not None else set()
    rows = [row for row in rows if wording.is_rate(row) and row not in elsewhere]
    if not rows:
        return None
    margin = 100 * RATE_MARGIN
    return Figure(
        name="judge-bias",
        title="Judge bias, in points of choice",
        caption=f"Dots are estimates, lines their intervals. 0 is even-handed; the shaded band is ±{margin:.0f} points, the default margin "
        "of practical equivalence. Found: the interval excludes 0 and the adjusted test agrees.",
        alternative=in_words(rows),
        panels=(Panel("", forest(rows, "points from even", [equivalence_band()])),),
        rows=tuple(rows),
        legend=forest_legend(rows),
    )


_LOOKS = {True: Style("@arm0", "circle", "solid"), False: Style("@arm1", "square", "dash")}
"""By whether the longer text was shown first."""
_ORDERS = {True: "longer text first", False: "longer text second"}
_HALVES = {SHORT: "shorter half of the pairs", LONG: "longer half of the pairs"}


def picks_by_length_difference(reading: Reading) -> Figure | None:
    """How often the longer text was picked by how much longer it is, in the pairs with the shorter texts and with the longer
    ones, and in both orders; None where no lengths are known."""
    panels: list[Panel] = []
    used: list[Estimate] = []
    judged = [row for row in judge_rows(reading.estimates, "longer_preferred_raw") if row.status != "undefined"]
    for row in judged[:_MOST_JUDGES]:
        bins = picks_by_length(_judgments_of(reading, row), _texts_of(reading))
        for half in dict.fromkeys(one.half for one in bins):
            title = _HALVES[half] + (f", {wording.label(row.judge, 40)}" if len(judged) > 1 else "")
            drawn = [one for one in bins if one.half == half]
            panels.append(Panel(title, _length_curves(row, drawn)))
        used += [_of_bin(row, one) for one in bins]
    if not panels:
        return None
    return Figure(
        name="picks-by-length",
        title="How often the longer text is picked, by how much longer it is",
        caption="Dots are shares of the judgments of a quarter of the differences, lines their 95 % intervals; 50 % is even. Quality is not held equal: longer texts "
        "may be better. A gap between the two curves is the pull of a slot. Where the intervals of one half of the pairs lie above 50 % and those of the other below, one length is picked more, "
        "and no slope shows that.",
        alternative="; ".join(
            f"{wording.label(row.judge)}, {row.variant}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}" for row in used
        ) + ".",
        panels=tuple(panels), rows=tuple(used), legend=tuple((_ORDERS[first], look) for first, look in _LOOKS.items()), columns=2,
    )  # fmt: skip


def _judgments_of(reading: Reading, row: Estimate) -> pd.DataFrame:
    """The judgments behind a judge's row."""
    frame = reading.judgments
    own = pd.Series(True, index=frame.index)
    for column in ("judge", "panel", "arm", "generation"):
        value = getattr(row, column)
        # An estimate on a panel that all arms share names no arm.
        if column in frame and (value not in ("", None) or column == "judge"):
            own &= (frame[column] == value).fillna(False).astype(bool)
    return frame[own]


def _texts_of(reading: Reading) -> pd.DataFrame | None:
    """The texts with the column that the picture reads."""
    table = reading.candidates
    if "length" not in table:
        return None
    return table[[name for name in ("replicate", "item_id", "candidate_id", "length") if name in table]]


def _of_bin(row: Estimate, one: LengthBin) -> Estimate:
    """A bin as an estimate of the raw preference, its place in ``variant``."""
    place = f"{_HALVES[one.half]}, {_ORDERS[one.longer_first]}, by {one.difference:.2f} doublings"
    return replace(
        row, variant=place, estimate=one.picked.estimate, std_error=one.picked.std_error, conf_low=one.picked.low,
        conf_high=one.picked.high, n=one.n, n_items=one.n_items, method=one.picked.method,
    )  # fmt: skip


def _length_curves(row: Estimate, bins: Sequence[LengthBin]) -> Spec:
    """The two curves of one half of the pairs, in % of picks over doublings."""
    data = []
    for first, look in _LOOKS.items():
        own = [one for one in bins if one.longer_first == first]
        rows = [_of_bin(row, one) for one in own]
        curve = points(rows, look, _ORDERS[first])
        # By difference and not by generation; the two orders stand beside each other.
        curve["x"] = [one.difference * (1.01 if first else 0.99) for one in own]
        data.append(curve)
    even: Spec = {
        "type": "line", "xref": "paper", "yref": "y", "x0": 0, "x1": 1, "y0": 50, "y1": 50, "line": {"color": "@zero", "width": 1.2}, "layer": "below",
    }  # fmt: skip
    x, y = titled("longer by, in doublings", rangemode="tozero"), titled("longer text picked, %", range=[-4, 104])
    return {"data": data, "layout": layout(height=280, x=x, y=y, shapes=[even])}


def probes(reading: Reading) -> Figure | None:
    """Every probe and dose, the most harmful first; None where fewer than two were run."""
    rows = [
        row for row in defined(reading.estimates)
        if row.scope == "judge" and is_probe(row.term) and row.category == "" and wording.is_rate(row) and not row.arm
    ]  # fmt: skip
    rows = [row for row in rows if row.generation in (None, 0)]
    beyond_length = {_probe_key(row): row for row in rows if row.variant == _BEYOND_LENGTH}
    rows = [row for row in rows if row.variant != _BEYOND_LENGTH]
    if len(rows) < 2:
        return None
    rows.sort(key=harm)
    several = len({row.judge for row in rows}) > 1
    names = [
        wording.term_name(row.term)
        + (f", ×{safe(row.variant, 12)}" if re.fullmatch(r"[\d.]+", row.variant) else f", {safe(row.variant, 24)}" if row.variant else "")
        + (f"{BREAK}{safe(row.judge, 30)}" if several else "")
        for row in rows
    ]  # fmt: skip
    references = {
        row: _length_effect(row, beyond_length[_probe_key(row)])
        for row in rows
        if row.variant == "" and _probe_key(row) in beyond_length
    }
    how_to_read = (
        " The upright mark is where the edit's added length alone would put the judge, by what a doubling of padding does to it: what lies beyond the mark "
        "is the edit itself."
        if references
        else ""
    )
    return Figure(
        name="probes",
        title="Edits that sway the judge, most harmful first",
        caption="Each text against its own edit, content unchanged: how often the edited copy was picked, in percentage points from even (50 %). Sorted by "
        f"verdict, what was found first, then by size. Only the edit differs, so that no quality can explain it; the whitespace edit is the control and should be at 0.{how_to_read}",
        alternative=in_words([*rows, *beyond_length.values()]),
        panels=(Panel("", forest(rows, "points from even", [equivalence_band()], names, references)),),
        rows=(*rows, *beyond_length.values()),
        legend=(*forest_legend(rows), *((("what the added length alone would do", REFERENCE),) if references else ())),
    )


def _probe_key(row: Estimate) -> tuple[str, str, str, int | None]:
    """What the estimates of one probe have in common, whatever their variant: (judge, panel, term, generation)."""
    return row.judge, row.panel, row.term, row.generation


def _length_effect(row: Estimate, beyond_length: Estimate) -> tuple[float, str]:
    """The effect of the added length alone, in axis units, and its words for hover: the whole effect minus that beyond length."""
    size = (scaled(row, row.estimate) or 0.0) - (scaled(beyond_length, beyond_length.estimate) or 0.0)
    return size, f"{strong(wording.term_name(row.term))}{BREAK}added length alone: {wording.signed(size, 1)} points"


def _slopes(reading: Reading) -> Figure | None:
    named = [
        row.term
        for row in reading.estimates
        if row.scope == "judge" and row.term.endswith("_log_odds") and not row.term.startswith("judge_drift_")
    ]
    rows = [row for term in dict.fromkeys([*_SLOPES, *sorted(named)]) for row in _best_founded(reading, term)]
    if not rows:
        return None
    several = len({row.judge for row in rows}) > 1
    names = [
        wording.term_name(row.term) + _HELD.get(row.variant, "") + (f"{BREAK}{safe(row.judge, 30)}" if several else "")
        for row in rows
    ]
    return Figure(
        name="judge-slopes",
        title="What moves the judge, in log-odds",
        caption="Coefficients of the judge's choice model: length per doubling, other features per generation-0 standard deviation. “Quality not held "
        "equal” marks a slope that quality may explain. Noise shrinks all of a judge's slopes alike, so do not compare judges by them.",
        alternative=in_words(rows),
        panels=(Panel("", forest(rows, "log-odds", names=names)),),
        rows=tuple(rows),
        legend=forest_legend(rows),
    )


def _best_founded(reading: Reading, term: str) -> list[Estimate]:
    """A row a judge: the primary estimate, or where it is undefined the best founded of its variants."""
    by_judge: dict[str, Estimate] = {}
    for variant in ("", *_HELD):
        for row in defined(judge_rows(reading.estimates, term, variant)):
            by_judge.setdefault(row.judge, row)
    return list(by_judge.values())


def position_by_slot(reading: Reading) -> Figure | None:
    """How much more often than its even share each slot was picked, by category: a heat map slot × category, a panel a judge."""
    rows = [
        row for row in defined(reading.estimates)
        if row.scope == "judge" and row.variant == "" and not is_control_judge(row.judge) and (row.term == "first_slot_excess" or _SLOT.fullmatch(row.term))
    ]  # fmt: skip
    rows.sort(
        key=lambda row: (_PANEL_RANKS.get(row.panel, 2), row.generation is not None, row.generation or 0, row.arm)
    )
    panels: list[Panel] = []
    used: list[Estimate] = []
    judges = list(dict.fromkeys(row.judge for row in rows if row.category))[:_MOST_JUDGES]
    not_drawn: list[Estimate] = []
    for judge in judges:
        # Categories of one panel, generation and arm: the first of them, by rank.
        first = next(row for row in rows if row.judge == judge and row.category)
        drawn = select(rows, judge=judge, panel=first.panel, generation=first.generation, arm=first.arm)
        spec, cells = _heat_map(drawn)
        if spec:
            panels.append(Panel(wording.label(judge, 60), spec))
            used += cells
        else:
            not_drawn += [row for row in drawn if row.category]
    if not panels:
        return _too_few_categories(reading, rows, not_drawn)
    return Figure(
        name="position-by-category",
        title=_HEAT_TITLE,
        caption="How many percentage points more (or less) often than its even share each slot was picked, by item category. Orange is more, blue less. † too few data to tell. "
        "Exploratory: small categories swing, and the intervals are in the table.",
        alternative="; ".join(
            f"{wording.label(row.judge)}, {_category_name(row.category)}, {wording.sentence_start(wording.term_name(row.term))}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
            for row in used[:12]
        ) + ("." if len(used) <= 12 else "; the table holds every value."),
        panels=tuple(panels),
        rows=tuple(used),
    )  # fmt: skip


def _category_name(category: str) -> str:
    return "rare, pooled" if category == RARE else wording.label(category) or _ALL


def _too_few_categories(reading: Reading, rows: Sequence[Estimate], not_drawn: Sequence[Estimate]) -> Figure | None:
    """A line in the heat map's place where fewer than two categories have rows; None where the items have fewer than two."""
    categories = set(reading.items["category"].dropna()) - {""} if "category" in reading.items.columns else set()
    if not rows or len(categories) < 2:
        return None
    why = f"Not shown: the items have {len(categories)} categories, and {'one' if not_drawn else 'none'} of them has items enough for an estimate of its own"
    if not_drawn:
        row = not_drawn[0]
        why += f" ({_category_name(row.category)}, {wording.sentence_start(wording.term_name(row.term))}: {wording.quantity(row, row.estimate)}, {wording.interval(row)})"
    return Figure(
        name="position-by-category", title=_HEAT_TITLE, caption=f"{why}. With more items a category, the slots stand here by category.",
        alternative=in_words(not_drawn) if not_drawn else "", panels=(), rows=tuple(not_drawn),
    )  # fmt: skip


def _heat_map(rows: Sequence[Estimate]) -> tuple[Spec, list[Estimate]]:
    """The heat map of one judge's rows, and the rows that it shows; empty where it would have fewer than two categories."""
    listwise = {int(match.group(1)) for row in rows if (match := _SLOT.fullmatch(row.term))}
    slots = sorted(listwise) if listwise else [1, 2]
    cells: dict[tuple[str, int], tuple[float, Estimate]] = {}
    for row in rows:
        match = _SLOT.fullmatch(row.term)
        value = scaled(row, row.estimate) or 0.0
        if listwise and match:
            cells.setdefault((row.category, int(match.group(1))), (value, row))
        elif not listwise:
            # Of two slots, the second is picked as much below half as the first beyond it.
            cells.setdefault((row.category, 1), (value, row))
            cells.setdefault((row.category, 2), (-value, row))
    single = sorted({category for category, _ in cells if category} - {RARE})[:_MOST_CATEGORIES]
    named = [*single, *([RARE] if any(category == RARE for category, _ in cells) else [])]
    if len(named) < 2:
        return {}, []
    categories = [*([""] if any(category == "" for category, _ in cells) else []), *named]
    grid = [[cells.get((category, slot)) for slot in slots] for category in categories]
    values = [[cell[0] if cell else None for cell in line] for line in grid]
    edge = max(abs(value) for line in values for value in line if value is not None) or 1.0
    words = [[_heat_words(cell) for cell in line] for line in grid]
    hovers = [[hover(cell[1], _category_name(cell[1].category)) if cell else "" for cell in line] for line in grid]
    names = ["first slot", "second slot"] if slots == [1, 2] and not listwise else [f"slot {slot}" for slot in slots]
    spec: Spec = {
        "data": [
            {
                "type": "heatmap", "z": values, "x": names, "y": [safe(_category_name(category)) for category in categories], "text": words,
                "texttemplate": "%{text}", "textfont": {"color": "@ink", "size": 13}, "zmin": -edge * 1.6, "zmax": edge * 1.6, "xgap": 3, "ygap": 3, "showscale": False,
                "hovertext": hovers, "hoverinfo": "text", "colorscale": [[0, "@low"], [0.5, "@middle"], [1, "@high"]],
            }
        ],
        "layout": layout(height=60 + 34 * len(categories), x={"type": "category", "showgrid": False, "side": "top"}, y={"type": "category", "showgrid": False, "autorange": "reversed"}),
    }  # fmt: skip
    return spec, list(dict.fromkeys(cell[1] for line in grid for cell in line if cell))


def _heat_words(cell: tuple[float, Estimate] | None) -> str:
    return "" if cell is None else wording.signed(cell[0], 1) + (" †" if cell[1].status == "underpowered" else "")


def _over_generations(reading: Reading) -> Figure | None:
    judges = list(
        dict.fromkeys(row.judge for row in reading.estimates if row.scope == "judge" and row.panel == "anchor")
    )
    looks = {
        judge: Style(f"@arm{n % len(MARKERS)}", MARKERS[n % len(MARKERS)], "solid") for n, judge in enumerate(judges)
    }
    panels: list[Panel] = []
    used: list[Estimate] = []
    for term in ("first_slot_excess", "length_ame", "length_log_odds", "longer_preferred_raw"):
        rows = [
            row
            for row in defined(
                select(reading.estimates, scope="judge", panel="anchor", term=term, variant="", category="")
            )
            if row.generation is not None
        ]
        if len({row.generation for row in rows}) < 2 or (
            term == "length_log_odds" and any(r.term == "length_ame" for r in used)
        ):
            continue
        used += rows
        by_judge = {judge: own for judge in looks if (own := select(rows, judge=judge))}
        data = [
            points(sorted(own, key=lambda row: row.generation or 0), looks[judge], wording.label(judge), aside)
            for (judge, own), aside in zip(by_judge.items(), asides(len(by_judge)), strict=True)
        ]
        value_axis = titled(axis_title(rows, "log-odds"), range=value_range(rows, from_zero=True))
        panels.append(generations_panel(
            wording.term_name(term), data, [row.generation or 0 for row in rows], value_axis=value_axis, height=260,
            curves=len(data),
        ))  # fmt: skip
    if not panels:
        return None
    return Figure(
        name="judge-over-generations",
        title="The same fixed pairs, judged every generation",
        caption="Nobody trains on the anchor panel, so what moves here is the judge itself: a judge that does not change gives a flat line.",
        alternative="Estimates on the anchor panel by generation; the table holds every value.",
        panels=tuple(panels),
        rows=tuple(used),
        legend=tuple((wording.label(judge), look) for judge, look in looks.items()),
    )


# Mitigations: a table a judge, and the sentence on consistency filtering


_MITIGATION_TITLE = "What would a trained signal inherit?"
_MITIGATION_NAMES = {
    "raw": "none (raw)",
    "raw_picks": "none (raw picks)",
    "swap_average": "swap average",
    "consistent_only": "consistent only",
    "length_controlled": "length controlled",
    "rubric": "rubric",
    "panel": "panel",
}
_RATIO = "transmission_length"
_GIVEN_GOLD = "_given_gold"

Key = tuple[str, str, int | None, str]
Place = tuple[str, str]

_EXACT = 1e-9
"""A ratio whose error is rounding: the labels are the judge's picks."""
_MITIGATION_COLUMNS = {
    "first_slot_excess": "First slot (even: 50)",
    "length_ame": "Length at equal gold",
    "longer_preferred_raw": "Longer won (raw)",
    "transmission_length": "Passes on of length",
    "gold_agreement": "Agrees with gold",
    "mitigation_kept": "Pairs kept",
    "mitigation_cost": "Calls a label",
}
_SHORT_TITLES = {
    "first_slot_excess": "First slot", "length_ame": "Length", "longer_preferred_raw": "Longer won", "transmission_length": "Passes on",
    "gold_agreement": "Gold agrees", "mitigation_cost": "Calls",
}  # fmt: skip


def mitigation_tables(reading: Reading, *, narrow: bool = False) -> list[Table]:
    """A table a judge (and panel of pairs, arm or generation) whose mitigations were measured; none without any.

    ``narrow``: for a terminal, in fewer and shorter words. Where gold is known length is that at equal gold, else raw.
    """
    groups = mitigation_rows(reading.estimates)
    return [_mitigation_table(key, rows, narrow=narrow, alone=len(groups) == 1) for key, rows in groups.items()]


def mitigation_sentences(reading: Reading) -> list[str]:
    """What the columns of the narrow table are, and what consistency filtering does to content slopes, with the measured ratio:
    a sentence a judge. Empty where no mitigation was measured."""
    groups = mitigation_rows(reading.estimates)
    if not groups:
        return []
    marked = any(_ratio_suffix(rows) for rows in groups.values())
    why = "; * at equal gold, since the judge's plain slope is too near 0 for a ratio" if marked else ""
    return [
        "Passes on: the length slope of a signal trained on these labels over the judge's own; 1 = as it is, 2 = doubled, "
        f"0 = removed{why}.",
        *(
            (f"{wording.label(key[0])}: " if len(groups) > 1 else "") + sentence
            for key, rows in groups.items()
            for sentence in _filter_sentences(rows)
        ),
    ]


def mitigation_rows(rows: Sequence[Estimate]) -> dict[Key, dict[Place, Estimate]]:
    """The mitigations' rows by (judge, arm, generation, panel), and in each by (variant, term)."""
    groups: dict[Key, dict[Place, Estimate]] = {}
    for row in rows:
        if (
            row.variant.removesuffix(_GIVEN_GOLD) in _MITIGATION_NAMES
            and row.term in _MITIGATION_COLUMNS
            and row.category == ""
        ):
            groups.setdefault((row.judge, row.arm, row.generation, row.panel), {})[row.variant, row.term] = row
    return groups


def _mitigation_table(key: Key, rows: Mapping[Place, Estimate], *, narrow: bool, alone: bool) -> Table:
    judge, arm, generation, panel = key
    gold_known = any(row.term == "length_ame" and row.status != "undefined" for row in rows.values())
    hidden = {"longer_preferred_raw"} if gold_known and narrow else set() if gold_known else {"length_ame"}
    hidden |= {"mitigation_kept"} if narrow else set()
    if all(row.status == "undefined" for row in rows.values() if row.term == "gold_agreement"):
        hidden.add("gold_agreement")
    terms = [term for term in _MITIGATION_COLUMNS if term not in hidden]
    suffix = _ratio_suffix(rows)
    body = []
    for name in MITIGATIONS:
        if (name, _RATIO) not in rows:
            continue
        by_term = {term: rows.get((name, term)) for term in terms}
        by_term[_RATIO] = rows.get((name + suffix, _RATIO), rows[name, _RATIO])
        body.append((_MITIGATION_NAMES[name], *(_mitigation_cell(by_term[term], narrow=narrow) for term in terms)))
    heads = {
        term: _SHORT_TITLES.get(term, _MITIGATION_COLUMNS[term]) if narrow else _MITIGATION_COLUMNS[term]
        for term in terms
    }
    at = ", at equal gold" if suffix else ""
    heads[_RATIO] += "*" if suffix and narrow else at
    names = [wording.label(judge)] * (not (alone and narrow)) + [wording.label(arm)] * bool(arm)
    names += [f"generation {generation}"] * (generation is not None) + [panel] * (panel not in ("", "pairs"))
    caption = (
        "Labels made of the same verdicts, or asked anew (rubric, panel). First slot picked and agreement in %; length in "
        f"percentage points per doubling. Passes on: the length slope of a signal trained on these labels over the judge's{at}; "
        "1 = as it is, 2 = doubled, 0 = removed."
    )
    if ("raw_picks", _RATIO) in rows:
        caption += " Raw picks: the same verdicts without their probabilities, as consistent only, rubric and panel take them; compare those with it."
    return Table(
        " – ".join([_MITIGATION_TITLE, ", ".join(names)]) if names else _MITIGATION_TITLE,
        " ".join([caption, *_filter_sentences(rows)]),
        ("Mitigation", *heads.values()),
        tuple(body),
    )


def _ratio_suffix(rows: Mapping[Place, Estimate]) -> str:
    """The variant suffix of the transmission that is shown: the plain one (""), or where that is undefined (the judge's plain
    slope is too near 0) that at equal gold. One choice for all mitigations, so that they can be compared."""
    plain, at_equal_gold = rows.get(("raw", _RATIO)), rows.get((f"raw{_GIVEN_GOLD}", _RATIO))
    hidden = plain is None or plain.status == "undefined"
    return _GIVEN_GOLD if hidden and at_equal_gold is not None and at_equal_gold.status != "undefined" else ""


def _filter_sentences(rows: Mapping[Place, Estimate]) -> list[str]:
    """What consistency filtering does to content slopes by theory and here; empty where it was not measured."""
    suffix = _ratio_suffix(rows)
    ratio = rows.get((f"consistent_only{suffix}", _RATIO))
    if ratio is None:
        return []
    factor = _theory_factor(rows)
    what = "doubles content slopes" if factor == 2 else f"multiplies content slopes by {factor}"
    plain = f"Consistency filtering removes position bias and {what}"
    slope = "length slope at equal gold" if suffix else "length slope"
    if ratio.status == "undefined" or ratio.estimate is None or ratio.conf_high is None:
        why = wording.label(ratio.note, 160)
        return [f"{plain}, where calls are independent. Here its effect could not be measured: {why}."]
    times = f"{wording.number(ratio.estimate)} ({wording.interval(ratio)})"
    if ratio.conf_high < factor:
        return [
            f"{plain}, where calls are independent. Here a signal would inherit {times} times the judge's {slope}: less than {factor}, "
            "as where both orders share what moves them (temperature 0, or merit that no feature holds)."
        ]
    return [
        f"{plain}: here a signal would inherit {times} times the judge's {slope}; theory says {factor} for independent calls."
    ]


def _theory_factor(rows: Mapping[Place, Estimate]) -> int:
    """The factor on slopes by theory: the number of calls that must agree on a pair, 2 a repeat."""
    row = rows.get(("consistent_only", _RATIO))
    return 2 if row is None or row.benchmark is None else round(row.benchmark)


def _mitigation_cell(row: Estimate | None, *, narrow: bool) -> str:
    if row is None:
        return "–"
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    if row.method == "by construction":
        return f"{50 if wording.is_pick_share(row) else 0} {'exactly' if narrow else 'by construction'}"
    if row.term == "mitigation_kept":
        return f"{100 * row.estimate:.0f} %"
    if row.term == "mitigation_cost" or (row.term == _RATIO and (row.std_error or 0.0) < _EXACT):
        return wording.figure(row, row.estimate)
    return wording.cell(row)
