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


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: a title and a Plotly figure as a plain mapping, with colours as tokens (see palette)."""

    title: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that share a legend, with their data as estimates (``rows``) and, where drawn, replicates' traces.

    ``caption`` says how to read it; ``alternative`` says in words what it shows.
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
        """The plotted estimates, in CONTRACT's columns that bear anything here."""
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


def generations_axis(generations: Sequence[int]) -> Spec:
    """The x axis of everything that runs over generations."""
    low, high = (min(generations), max(generations)) if generations else (0, 1)
    return titled("generation", tickvals=list(range(low, high + 1)), range=[low - 0.2, high + 0.2], zeroline=False)


def hover(row: Estimate, name: str) -> str:
    """What a point says on hover: the same words as everywhere."""
    lines = [f"<b>{safe(name)}</b>"]
    if row.generation is not None:
        lines.append(f"generation {row.generation}")
    lines += [
        safe(wording.quantity(row, row.estimate)),
        safe(wording.interval(row)),
        f"n = {row.n:,}" + (f", {row.n_replicates} replicates" if row.n_replicates else ""),
    ]
    if row.status != "ok":
        lines.append(row.status)
    return "<br>".join(lines)


def _merged(base: Spec, more: Spec) -> Spec:
    out = dict(base)
    for key, value in more.items():
        out[key] = {**out[key], **value} if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out
