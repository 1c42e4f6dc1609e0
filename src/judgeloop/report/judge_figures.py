"""Figures about the judge: bias with intervals, drift on fixed pairs, position by category."""

from __future__ import annotations

from collections.abc import Sequence

from judgeloop.report import wording
from judgeloop.report.figure import (
    Figure,
    Panel,
    Spec,
    axis_title,
    generations_axis,
    hover,
    layout,
    safe,
    scaled,
    titled,
)
from judgeloop.report.findings import judge_rows
from judgeloop.report.palette import Style
from judgeloop.report.reading import Reading, select
from judgeloop.report.verdicts import RATE_MARGIN, verdict_of
from judgeloop.stats.estimate import Estimate

_RATES = (
    "first_slot_excess", "identical_pair_excess", "padding_probe", "gold_tied_longer_excess", "length_ame",
    "excess_longer_vs_gold", "self_preference_gold",
)  # fmt: skip
_SLOPES = ("position_log_odds", "length_log_odds", "self_preference_log_odds", "gold_log_odds")
_ELSEWHERE = ("length_exchange_rate",)
MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon")


def figures(reading: Reading) -> list[Figure]:
    """The judge's figures that the run bears, in reading order."""
    made = [_rates(reading), _slopes(reading), _over_generations(reading), _by_category(reading)]
    return [figure for figure in made if figure is not None]


def _defined(rows: Sequence[Estimate]) -> list[Estimate]:
    return [row for row in rows if row.status != "undefined" and row.estimate is not None]


def _rates(reading: Reading) -> Figure | None:
    probes = sorted({row.term for row in reading.estimates if row.term.endswith("_probe")} - set(_RATES))
    rows = _defined([row for term in (*_RATES, *probes) for row in judge_rows(reading.estimates, term)])
    rows = [row for row in rows if wording.is_rate(row)]
    if not rows:
        return None
    margin = 100 * RATE_MARGIN
    band: Spec = {
        "type": "rect", "xref": "x", "yref": "paper", "x0": -margin, "x1": margin, "y0": 0, "y1": 1,
        "fillcolor": "@band", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    return Figure(
        name="judge-bias",
        title="Judge bias, in points of choice",
        caption=f"Dots are estimates, lines their intervals. 0 is even-handed; the shaded band is ±{margin:.0f} points, the default margin "
        "of practical equivalence. Filled dots: the interval excludes 0 and the adjusted test agrees.",
        alternative=_told(rows),
        panels=(Panel("", _forest(rows, "percentage points from even", [band])),),
        rows=tuple(rows),
    )


def _slopes(reading: Reading) -> Figure | None:
    named = set(_SLOPES) | {
        row.term for row in reading.estimates if row.scope == "judge" and row.term.endswith("_log_odds")
    }
    terms = [*_SLOPES, *sorted(named - set(_SLOPES))]
    rows = _defined([row for term in terms for row in judge_rows(reading.estimates, term)])
    if not rows:
        return None
    return Figure(
        name="judge-slopes",
        title="What moves the judge, in log-odds",
        caption="Coefficients of the judge's choice model: length per doubling, other features per generation-0 standard deviation. "
        "Log-odds of different judges are not comparable one by one: noise shrinks all of a judge's slopes alike.",
        alternative=_told(rows),
        panels=(Panel("", _forest(rows, "log-odds", [])),),
        rows=tuple(rows),
    )


def _forest(rows: Sequence[Estimate], title: str, shapes: list[Spec]) -> Spec:
    several = len({row.judge for row in rows}) > 1
    names = [wording.term_name(row.term) + (f"<br>{safe(row.judge, 30)}" if several else "") for row in rows]
    places = list(range(len(rows)))[::-1]
    marks: Spec = {
        "type": "scatter", "mode": "markers", "x": [scaled(row, row.estimate) for row in rows], "y": places,
        "marker": {"size": 11, "color": [_dot(row) for row in rows], "line": {"width": 2, "color": [_ring(row) for row in rows]}},
        "text": [hover(row, wording.term_name(row.term)) for row in rows], "hoverinfo": "text",
    }  # fmt: skip
    lines = [
        {
            "type": "scatter", "mode": "lines", "x": [scaled(row, row.conf_low), scaled(row, row.conf_high)], "y": [place, place],
            "line": {"color": _ring(row), "width": 2.5}, "hoverinfo": "skip",
        }
        for row, place in zip(rows, places, strict=True)
        if row.conf_low is not None
    ]  # fmt: skip
    zero: Spec = {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": 0,
        "x1": 0,
        "y0": 0,
        "y1": 1,
        "line": {"color": "@zero", "width": 1.2},
        "layer": "below",
    }
    spread = [
        value
        for row in rows
        for value in (scaled(row, row.conf_low), scaled(row, row.conf_high), scaled(row, row.estimate), 0.0)
        if value is not None
    ]
    edge = max(abs(value) for value in spread) * 1.12 or 1.0
    low = -edge if min(spread) < -0.12 * edge else -0.35 * edge
    high = edge if max(spread) > 0.12 * edge else 0.35 * edge
    if shapes:
        low, high = min(low, -1.4 * 100 * RATE_MARGIN), max(high, 1.4 * 100 * RATE_MARGIN)
    return {
        "data": [*lines, marks],
        "layout": layout(
            height=76 + (54 if several else 42) * len(rows),
            x=titled(title, zeroline=False, range=[low, high]),
            y={"tickvals": places, "ticktext": names, "range": [-0.6, len(rows) - 0.4], "showgrid": False, "zeroline": False, "tickfont": {"color": "@ink", "size": 13}},
            shapes=[*shapes, zero],
        ),
    }  # fmt: skip


def _dot(row: Estimate) -> str:
    return "@found" if verdict_of(row, None) == "found" else "@surface"


def _ring(row: Estimate) -> str:
    margin = RATE_MARGIN if wording.is_rate(row) else None
    verdict = verdict_of(row, margin)
    return {"found": "@found", "equivalent": "@calm", "unconfirmed": "@open"}.get(verdict, "@plain")


def _told(rows: Sequence[Estimate]) -> str:
    parts = [
        f"{wording.label(row.judge)}, {wording.term_name(row.term).lower()}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in rows
    ]
    return "; ".join(parts) + "."


def _over_generations(reading: Reading) -> Figure | None:
    judges = list(
        dict.fromkeys(row.judge for row in reading.estimates if row.scope == "judge" and row.panel == "anchor")
    )
    looks = {judge: Style(f"@arm{n % 6}", MARKERS[n % 6], "solid") for n, judge in enumerate(judges)}
    panels: list[Panel] = []
    used: list[Estimate] = []
    for term in ("first_slot_excess", "length_ame", "length_log_odds", "longer_preferred_raw"):
        rows = [
            row
            for row in _defined(
                select(reading.estimates, scope="judge", panel="anchor", term=term, variant="", category="")
            )
            if row.generation is not None
        ]
        if len({row.generation for row in rows}) < 2 or (
            term == "length_log_odds" and any(r.term == "length_ame" for r in used)
        ):
            continue
        used += rows
        data = []
        for judge, look in looks.items():
            some = sorted(select(rows, judge=judge), key=lambda row: row.generation or 0)
            data.append(points(some, look, wording.label(judge)))
        panels.append(
            Panel(
                wording.term_name(term),
                {
                    "data": data,
                    "layout": layout(
                        height=260,
                        x=generations_axis([r.generation or 0 for r in rows]),
                        y=titled(axis_title(rows, "log-odds"), rangemode="tozero"),
                    ),
                },
            )
        )
    if not panels:
        return None
    return Figure(
        name="judge-over-generations",
        title="The same fixed pairs, judged every generation",
        caption="Nobody trains on the anchor panel, so movement here is movement of the judge itself: a judge that does not change gives a flat line.",
        alternative="Estimates on the anchor panel by generation; the table holds every value.",
        panels=tuple(panels),
        rows=tuple(used),
        legend=tuple((wording.label(judge), look) for judge, look in looks.items()),
    )


def points(rows: Sequence[Estimate], look: Style, name: str, aside: float = 0.0) -> Spec:
    """Estimates over generations with interval bars, one look; ``aside`` shifts them along the axis."""
    above = [_reach(row, row.conf_high) for row in rows]
    below = [-_reach(row, row.conf_low) for row in rows]
    return {
        "type": "scatter", "mode": "lines+markers", "x": [(row.generation or 0) + aside for row in rows], "y": [scaled(row, row.estimate) for row in rows],
        "error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": look.colour, "thickness": 1.6, "width": 4},
        "line": {"color": look.colour, "dash": look.dash, "width": 2}, "marker": {"symbol": look.marker, "size": 9, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        "text": [hover(row, name) for row in rows], "hoverinfo": "text",
    }  # fmt: skip


def _reach(row: Estimate, limit: float | None) -> float:
    """From the estimate to a limit of its interval, in axis units; 0 where there is none."""
    centre, end = scaled(row, row.estimate), scaled(row, limit)
    return 0.0 if centre is None or end is None else end - centre


def _by_category(reading: Reading) -> Figure | None:
    """First-slot excess by category and judge, of the panel that speaks for most categories."""
    some = [
        row
        for row in _defined(select(reading.estimates, scope="judge", term="first_slot_excess", variant=""))
        if row.category
    ]
    some = [row for row in some if row.judge not in ("random", "gold")]
    some.sort(
        key=lambda row: (
            {"pairs": 0, "anchor": 1}.get(row.panel, 2),
            row.generation is not None,
            row.generation or 0,
            row.arm,
        )
    )
    cells = {(row.category, row.judge): row for row in reversed(some)}
    categories = list(dict.fromkeys(category for category, _ in cells))[:30]
    judges = list(dict.fromkeys(judge for _, judge in cells))
    if len(categories) < 2:
        return None
    rows = [cells[category, judge] for category in categories for judge in judges if (category, judge) in cells]
    values = [
        [scaled(cells[c, j], cells[c, j].estimate) if (c, j) in cells else None for j in judges] for c in categories
    ]
    texts = [[wording.signed(value, 1) if value is not None else "" for value in line] for line in values]
    edge = max(abs(value) for line in values for value in line if value is not None) or 1.0
    spec: Spec = {
        "data": [
            {
                "type": "heatmap", "z": values, "x": [safe(judge) for judge in judges], "y": [safe(category) for category in categories], "text": texts,
                "texttemplate": "%{text}", "textfont": {"color": "@ink", "size": 13}, "zmin": -edge * 1.6, "zmax": edge * 1.6, "xgap": 3, "ygap": 3, "showscale": False, "hoverinfo": "skip",
                "colorscale": [[0, "@low"], [0.5, "@middle"], [1, "@high"]],
            }
        ],
        "layout": layout(height=90 + 36 * len(categories), x={"type": "category", "showgrid": False, "side": "top"}, y={"type": "category", "showgrid": False, "autorange": "reversed"}),
    }  # fmt: skip
    return Figure(
        name="position-by-category",
        title="Position by category",
        caption="Points that the first slot was picked beyond half, by item category. Exploratory: small categories swing; the intervals are in the table.",
        alternative=_told(rows).replace("first slot picked, beyond half", "first slot beyond half")
        if len(rows) <= 8
        else "First-slot excess by category; the table holds every value.",
        panels=(Panel("", spec),),
        rows=tuple(rows),
    )
