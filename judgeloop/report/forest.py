"""Estimates with their intervals as dots and lines: the forest plot, and the curve over generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from judgeloop.report import wording
from judgeloop.report.figure import BREAK, Spec, hover, layout, safe, scaled, titled, within
from judgeloop.report.palette import Style
from judgeloop.report.verdicts import verdict_of
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import RATE_MARGIN

REFERENCE = Style("@muted", "line-ns-open", "")
"""An upright mark that an estimate is read against."""
_LABEL = 24
"""Characters a line of a row's label holds."""


def equivalence_band() -> Spec:
    """The default margin of practical equivalence around 0, in percentage points, as a shape."""
    margin = 100 * RATE_MARGIN
    return {
        "type": "rect", "xref": "x", "yref": "paper", "x0": -margin, "x1": margin, "y0": 0, "y1": 1,
        "fillcolor": "@band", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def defined(rows: Sequence[Estimate]) -> list[Estimate]:
    """The rows that have a number."""
    return [row for row in rows if row.status != "undefined" and row.estimate is not None]


def forest(
    rows: Sequence[Estimate],
    title: str,
    shapes: Sequence[Spec] = (),
    names: Sequence[str] | None = None,
    references: Mapping[Estimate, tuple[float, str]] | None = None,
) -> Spec:
    """Estimates as dots with their intervals on one axis, a row each; ``shapes`` lie below. The label of a row is its term, and its judge
    where there are several; ``names`` replace them. ``references``: row → (value in axis units, words for hover), an upright mark."""
    several = len({row.judge for row in rows}) > 1
    labels = names or [
        wording.term_name(row.term) + (f"{BREAK}{safe(row.judge, 30)}" if several else "") for row in rows
    ]
    places = list(range(len(rows)))[::-1]
    marks: Spec = {
        "type": "scatter", "mode": "markers", "x": [scaled(row, row.estimate) for row in rows], "y": places,
        "marker": {"size": 11, "color": [_dot(row) for row in rows], "line": {"width": 2, "color": [_ring(row) for row in rows]}},
        "text": [hover(row, wording.term_name(row.term)) for row in rows], "hoverinfo": "text",
    }  # fmt: skip
    lines = [
        {
            "type": "scatter", "mode": "lines", "x": [within(row, row.conf_low), within(row, row.conf_high)], "y": [place, place],
            "line": {"color": _ring(row), "width": 2.5}, "hoverinfo": "skip",
        }
        for row, place in zip(rows, places, strict=True)
        if row.conf_low is not None
    ]  # fmt: skip
    zero: Spec = {
        "type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "line": {"color": "@zero", "width": 1.2}, "layer": "below",
    }  # fmt: skip
    known = (
        [(*references[row], place) for row, place in zip(rows, places, strict=True) if row in references]
        if references
        else []
    )
    if known:
        lines.append({
            "type": "scatter", "mode": "markers", "x": [value for value, _, _ in known], "y": [place for _, _, place in known],
            "marker": {"symbol": REFERENCE.marker, "size": 22, "color": REFERENCE.colour, "line": {"width": 3, "color": REFERENCE.colour}},
            "text": [words for _, words, _ in known], "hoverinfo": "text",
        })  # fmt: skip
    spread = [value for value, _, _ in known] + [
        value
        for row in rows
        for value in (within(row, row.conf_low), within(row, row.conf_high), scaled(row, row.estimate), 0.0)
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
            height=76 + (58 if several else 46) * len(rows),
            x=titled(title, zeroline=False, range=[low, high]),
            y={"tickvals": places, "ticktext": [wrapped(label) for label in labels], "range": [-0.6, len(rows) - 0.4], "showgrid": False, "zeroline": False, "tickfont": {"color": "@ink", "size": 13}},
            shapes=[*shapes, zero],
        ),
    }  # fmt: skip


def _dot(row: Estimate) -> str:
    found = verdict_of(row, None) == "found"
    return "@surface" if not found else "@plain" if _is_no_bias(row) else "@found"


def wrapped(label: str) -> str:
    """A long label on two or three lines, so that a narrow screen keeps room for the plot."""
    lines: list[str] = []
    for part in label.split(BREAK):
        for word in part.split(" "):
            if lines and lines[-1] != BREAK and len(lines[-1]) + len(word) < _LABEL:
                lines[-1] += f" {word}"
            else:
                lines.append(word)
        lines.append(BREAK)
    return BREAK.join(line for line in lines if line != BREAK)


def _is_no_bias(row: Estimate) -> bool:
    """What moves a judge rightly (quality), or may do so (a taste that quality is not held equal in), is no alarm."""
    return row.bias == "quality" or row.variant == "no_gold"


def _ring(row: Estimate) -> str:
    if _is_no_bias(row):
        return "@plain"
    margin = RATE_MARGIN if wording.is_rate(row) else None
    verdict = verdict_of(row, margin)
    return {"found": "@found", "equivalent": "@calm", "unconfirmed": "@open"}.get(verdict, "@plain")


def told(rows: Sequence[Estimate]) -> str:
    """The rows in words: judge, measure, value, interval."""
    parts = [
        f"{wording.label(row.judge)}, {wording.term_name(row.term).lower()}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in rows
    ]
    return "; ".join(parts) + "."


def points(rows: Sequence[Estimate], look: Style, name: str, aside: float = 0.0) -> Spec:
    """Estimates over generations with interval bars, one look; ``aside`` shifts them along the axis."""
    above = [_reach(row, row.conf_high) for row in rows]
    below = [-_reach(row, row.conf_low) for row in rows]
    return {
        "type": "scatter", "mode": "lines+markers", "x": [(row.generation or 0) + aside for row in rows], "y": [scaled(row, row.estimate) for row in rows],
        "error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": look.colour, "thickness": 1.6, "width": 4},
        "line": {"color": look.colour, "dash": look.dash, "width": 2}, "marker": {"symbol": look.marker, "size": 9, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        "text": [hover(row, name) for row in rows], "hoverinfo": "text", "cliponaxis": False,
    }  # fmt: skip


def _reach(row: Estimate, limit: float | None) -> float:
    """From the estimate to a limit of its interval, in axis units; 0 where there is none."""
    centre, end = scaled(row, row.estimate), within(row, limit)
    return 0.0 if centre is None or end is None else end - centre
