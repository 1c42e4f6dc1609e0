"""Figures that a log alone bears: position by slot and category, and probes by the harm that they show."""

from __future__ import annotations

import re
from collections.abc import Sequence

from judgeloop.report import wording
from judgeloop.report.figure import BREAK, Figure, Panel, Spec, hover, layout, safe, scaled, strong
from judgeloop.report.forest import REFERENCE, defined, equivalence_band, forest, told
from judgeloop.report.reading import Reading
from judgeloop.report.verdicts import harm, is_probe
from judgeloop.stats.categories import RARE
from judgeloop.stats.estimate import Estimate

_SLOT = re.compile(r"slot_(\d+)_excess")
_PANELS = {"pairs": 0, "anchor": 1}
BEYOND_LENGTH = "beyond_length"
_MOST_CATEGORIES = 30
_MOST_JUDGES = 8
_ALL = "all items"
_HEAT_TITLE = "Position, slot by category"


def probes(reading: Reading) -> Figure | None:
    """Every probe and dose, the most harmful first; None where fewer than two were run."""
    rows = [
        row for row in defined(reading.estimates)
        if row.scope == "judge" and is_probe(row.term) and row.category == "" and wording.is_rate(row) and not row.arm
    ]  # fmt: skip
    rows = [row for row in rows if row.generation in (None, 0)]
    beyond = {_probed(row): row for row in rows if row.variant == BEYOND_LENGTH}
    rows = [row for row in rows if row.variant != BEYOND_LENGTH]
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
        row: _by_length(row, beyond[_probed(row)]) for row in rows if row.variant == "" and _probed(row) in beyond
    }
    read = (
        " The upright mark is where the edit's added length alone would put the judge, by what a doubling of padding does to it: what lies beyond the mark "
        "is the edit itself."
        if references
        else ""
    )
    return Figure(
        name="probes",
        title="Edits that sway the judge, most harmful first",
        caption="Each text against its own edit, content unchanged: how much more often than half the edited copy was picked, in percentage points. Sorted by "
        f"verdict, what was found first, then by size. Only the edit differs, so that no quality can explain it; the whitespace edit is the control and should be at 0.{read}",
        alternative=told([*rows, *beyond.values()]),
        panels=(Panel("", forest(rows, "points from even", [equivalence_band()], names, references)),),
        rows=(*rows, *beyond.values()),
        legend=(("what the added length alone would do", REFERENCE),) if references else (),
    )


def _probed(row: Estimate) -> tuple[str, str, str, int | None]:
    """What a probe's estimates by variant share."""
    return row.judge, row.panel, row.term, row.generation


def _by_length(row: Estimate, beyond: Estimate) -> tuple[float, str]:
    """What the added length alone would do, in axis units, and in words: the whole effect minus what lies beyond length."""
    size = (scaled(row, row.estimate) or 0.0) - (scaled(beyond, beyond.estimate) or 0.0)
    return size, f"{strong(wording.term_name(row.term))}{BREAK}added length alone: {wording.signed(size, 1)} points"


def position_by_slot(reading: Reading) -> Figure | None:
    """How often each slot was picked beyond its even share, by category: a heat map slot × category, a panel a judge."""
    some = [
        row for row in defined(reading.estimates)
        if row.scope == "judge" and row.variant == "" and row.judge not in ("random", "gold") and (row.term == "first_slot_excess" or _SLOT.fullmatch(row.term))
    ]  # fmt: skip
    some.sort(key=lambda row: (_PANELS.get(row.panel, 2), row.generation is not None, row.generation or 0, row.arm))
    panels: list[Panel] = []
    used: list[Estimate] = []
    judges = list(dict.fromkeys(row.judge for row in some if row.category))[:_MOST_JUDGES]
    alone: list[Estimate] = []
    for judge in judges:
        mine = [row for row in some if row.judge == judge]
        where = next(row for row in mine if row.category)
        here = [
            row for row in mine if (row.panel, row.generation, row.arm) == (where.panel, where.generation, where.arm)
        ]
        spec, shown = _heat(here)
        if spec:
            panels.append(Panel(wording.label(judge, 60), spec))
            used += shown
        else:
            alone += [row for row in here if row.category]
    if not panels:
        return _too_small(reading, some, alone)
    return Figure(
        name="position-by-category",
        title=_HEAT_TITLE,
        caption="How many percentage points more (or less) often than its even share each slot was picked, by item category. Orange is more, blue less. † too few data to tell. "
        "Exploratory: small categories swing, and the intervals are in the table.",
        alternative="; ".join(
            f"{wording.label(row.judge)}, {_category_name(row.category)}, {wording.term_name(row.term).lower()}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
            for row in used[:12]
        ) + ("." if len(used) <= 12 else "; the table holds every value."),
        panels=tuple(panels),
        rows=tuple(used),
    )  # fmt: skip


def _category_name(category: str) -> str:
    return "rare, pooled" if category == RARE else wording.label(category) or _ALL


def _too_small(reading: Reading, some: Sequence[Estimate], alone: Sequence[Estimate]) -> Figure | None:
    """A line in the heat map's place where fewer than two categories have rows; None where the items have fewer than two."""
    known = reading.items["category"].nunique() if "category" in reading.items.columns else 0
    known -= int("" in set(reading.items["category"])) if known else 0
    if not some or known < 2:
        return None
    said = f"Not shown: the items have {known} categories, and {'none' if not alone else 'one'} of them has items enough for an estimate of its own"
    if alone:
        row = alone[0]
        said += f" ({_category_name(row.category)}, {wording.term_name(row.term).lower()}: {wording.quantity(row, row.estimate)}, {wording.interval(row)})"
    return Figure(
        name="position-by-category", title=_HEAT_TITLE, caption=f"{said}. With more items a category, the slots stand here by category.",
        alternative=told(alone) if alone else "", panels=(), rows=tuple(alone),
    )  # fmt: skip


def _heat(rows: Sequence[Estimate]) -> tuple[Spec, list[Estimate]]:
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
            # Of two slots, what the first is picked beyond half the second is picked below it.
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
    words = [[_cell(cell) for cell in line] for line in grid]
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
    shown = [cell[1] for line in grid for cell in line if cell]
    return spec, list(dict.fromkeys(shown))


def _cell(cell: tuple[float, Estimate] | None) -> str:
    return "" if cell is None else wording.signed(cell[0], 1) + (" †" if cell[1].status == "underpowered" else "")
