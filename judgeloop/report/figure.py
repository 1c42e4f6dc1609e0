"""A figure before it is drawn: Plotly specifications, the numbers behind them, and what they show in words."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.palette import Style
from judgeloop.report.reading import record
from judgeloop.stats.estimate import Estimate

Spec = dict[str, Any]
BREAK = "<br>"
"""The end of a line in Plotly's texts, which are no HTML of the page: they travel in its JSON, and Plotly draws them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: a title and a Plotly figure as a plain mapping, with colours as tokens (see palette)."""

    title: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that share a legend, with their data as estimates (``rows``) and, where drawn, replicates' traces.

    ``caption`` says how to read it; ``alternative`` says in words what it shows. Without panels it is a line that says why there
    is no plot.
    """

    name: str
    title: str
    caption: str
    alternative: str
    panels: tuple[Panel, ...]
    rows: tuple[Estimate, ...]
    legend: tuple[tuple[str, Style], ...] = ()
    traces: pd.DataFrame | None = None
    columns: int = 3
    """Panels side by side on a wide screen."""

    def data(self) -> pd.DataFrame:
        """The plotted estimates, in CONTRACT's columns that bear anything here; empty where there are none."""
        frame = pd.DataFrame([record(row) for row in self.rows])
        kept = [
            column
            for column in frame.columns
            if not frame[column].isin(["", None]).all() and frame[column].notna().any()
        ]
        return frame[kept]


def safe(text: str, limit: int = 40) -> str:
    """A name as Plotly text: on one line, shortened, and with no markup (Plotly reads a little HTML)."""
    return html.escape(wording.label(text, limit), quote=False)


def strong(text: str) -> str:
    """A name as bold Plotly text."""
    return f"<b>{safe(text)}</b>"


def scaled(row: Estimate, value: float | None) -> float | None:
    """The value as axes show it: rates in percentage points, all else in its unit."""
    return None if value is None else 100 * value if wording.is_rate(row) else value


def axis_title(rows: Sequence[Estimate], fallback: str = "") -> str:
    """The unit that an axis shows."""
    unit = next((wording.unit_name(row) for row in rows if wording.unit_name(row)), fallback)
    return {"SD": "generation-0 SD", "points": "percentage points"}.get(unit, unit)


def layout(*, height: int, x: Spec | None = None, y: Spec | None = None, **more: Any) -> Spec:
    """The look that all plots share."""
    axis: Spec = {
        "gridcolor": "@grid", "linecolor": "@line", "zerolinecolor": "@zero", "zerolinewidth": 1.2, "automargin": True,
        "tickfont": {"color": "@muted", "size": 12}, "title": {"font": {"color": "@muted", "size": 12}, "standoff": 8},
        "fixedrange": True,
    }  # fmt: skip
    return {
        "height": height, "margin": {"l": 8, "r": 12, "t": 14, "b": 8}, "showlegend": False, "dragmode": False,
        "paper_bgcolor": "@surface", "plot_bgcolor": "@surface", "font": {"color": "@ink", "family": "system-ui, sans-serif", "size": 13},
        "hoverlabel": {"bgcolor": "@raised", "bordercolor": "@line", "font": {"color": "@ink"}},
        "xaxis": _merged(axis, x or {}), "yaxis": _merged(axis, y or {}), **more,
    }  # fmt: skip


def titled(text: str, **more: Any) -> Spec:
    """An axis with a title."""
    return {"title": {"text": text}, **more}


_ASIDE = 0.07
"""Generations between curves that stand side by side."""
_SHARES = frozenset({
    "mean_correct", "conflict_rate", "order_agreement", "longer_preferred_raw", "gold_agreement",
    "unscored_share", "mattr", "distinct_2",
})  # fmt: skip
_SIZES = ("tail_mass_retained", "kl_from_reference", "sd_", "hedging_when_wrong")
"""Not below 0. The tail may grow, so that 1 does not bound it."""


def asides(curves: int) -> list[float]:
    """How far each of so many curves is shifted along the generations, so that intervals do not hide one another."""
    return [_ASIDE * (place - (curves - 1) / 2) for place in range(curves)]


def generations_axis(generations: Sequence[int], curves: int = 1) -> Spec:
    """The x axis of everything that runs over generations, wide enough for markers that ``asides`` shifts."""
    low, high = (min(generations), max(generations)) if generations else (0, 1)
    room = max(asides(max(1, curves))) + max(0.2, 0.05 * (high - low))
    # More ticks than fit would stand on one another.
    ticks = list(range(low, high + 1, 1 + (high - low) // 12))
    return titled("generation", tickvals=ticks, range=[low - room, high + room], zeroline=False)


def bounds(row: Estimate) -> tuple[float | None, float | None]:
    """The least and the greatest value that the measure can take, in axis units; None where nothing bounds it."""
    if row.term in _SHARES:
        return 0.0, scaled(row, 1.0)
    return (0.0 if row.term.startswith(_SIZES) else None), None


def within(row: Estimate, value: float | None) -> float | None:
    """The value in axis units, cut to what the measure can be: a symmetric interval of a share may reach beyond it."""
    drawn = scaled(row, value)
    if drawn is None:
        return None
    least, most = bounds(row)
    drawn = drawn if least is None else max(least, drawn)
    return drawn if most is None else min(most, drawn)


def cut_note(rows: Sequence[Estimate]) -> str:
    """Says that intervals are cut, where one is; else empty."""
    ends = [(row, end) for row in rows for end in (row.conf_low, row.conf_high)]
    return (
        " Intervals are drawn no further than the measure can go."
        if any(within(*one) != scaled(*one) for one in ends)
        else ""
    )


def value_range(rows: Sequence[Estimate], *, from_zero: bool = False) -> list[float]:
    """A range of the value axis that holds all estimates and intervals with room for their marks, and of shares no room that no
    share could fill."""
    drawn = [0.0] if from_zero else []
    drawn += [
        v
        for row in rows
        for value in (row.estimate, row.conf_low, row.conf_high)
        if (v := within(row, value)) is not None
    ]
    low, high = (min(drawn), max(drawn)) if drawn else (0.0, 1.0)
    span = max(high - low, 10.0 if any(map(wording.is_rate, rows)) else 0.02 * max(abs(low), abs(high)) or 0.1)
    low, high = low - (span - (high - low)) / 2 - 0.08 * span, high + (span - (high - low)) / 2 + 0.08 * span
    least, most = bounds(rows[0]) if rows else (None, None)
    if least is not None and low < least:
        low, high = least - 0.05 * span, max(high, least + span)
    if most is not None and high > most:
        low, high = min(low, max(most - span, -0.05 * span)), most + 0.05 * span
    return [low, high]


def hover(row: Estimate, name: str) -> str:
    """What a point says on hover: the same words as everywhere."""
    lines = [strong(name)]
    if row.generation is not None:
        lines.append(f"generation {row.generation}")
    lines += [
        safe(wording.quantity(row, row.estimate)),
        safe(wording.interval(row)),
        f"n = {row.n:,}" + (f", {row.n_replicates} replicates" if row.n_replicates else ""),
    ]
    if row.status != "ok":
        lines.append(row.status)
    return BREAK.join(lines)


def _merged(base: Spec, more: Spec) -> Spec:
    out = dict(base)
    for key, value in more.items():
        out[key] = {**out[key], **value} if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out
