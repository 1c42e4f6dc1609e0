"""Figures as Plotly specifications, with the estimates that they show and what they show in words.

From the first to the last: colours and styles of arms, the figure itself, texts and axes, then the two kinds of plot that
several figures share, estimates on one axis (``forest``) and over generations (``points``).
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.claims import Standing, verdict_of
from judgeloop.report.reading import POSITIVE, record
from judgeloop.stats.estimate import RATE_MARGIN, Estimate

# Colours and styles, for a light and a dark theme, shared by the style sheet and every figure

_HUES = (  # light, dark
    ("#0b6bb5", "#5cb3f0"), ("#c8500a", "#ff9a57"), ("#8a3f9c", "#d59be6"), ("#00835f", "#35c79d"),
    ("#a3174f", "#f588ad"), ("#5a6b00", "#c3d154"),
)  # fmt: skip
_CONTROL_HUES = {"random": ("#6b7280", "#a3abb8"), "gold": ("#9a6a00", "#e6b740")}
MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon")
_CONTROL_MARKERS = {"random": "x-thin-open", "gold": "cross-thin-open"}
_HOLLOW = "-open"
_PARTS = {"selection": ("#0b6bb5", "#5cb3f0"), "mixing": ("#c9a227", "#e6c75c"), "learning": ("#9b8fb0", "#b8abd0")}
_PAGE = {
    "page": ("#f6f7f9", "#101418"), "surface": ("#ffffff", "#171c22"), "raised": ("#f0f2f5", "#202730"),
    "ink": ("#1b2026", "#e8ecf1"), "muted": ("#57606c", "#a2adba"), "line": ("#dde1e7", "#2f3843"),
    "grid": ("#e6e9ee", "#29313b"), "accent": ("#0b5ea8", "#6cb6f5"), "focus": ("#0b5ea8", "#8ec8fb"),
    "found": ("#b3310c", "#ff9470"), "found-soft": ("#fdece6", "#3a211a"),
    "calm": ("#11694c", "#5fd3a8"), "calm-soft": ("#e4f4ed", "#15302a"),
    "open": ("#7a5500", "#e9bf58"), "open-soft": ("#fbf2dc", "#332a15"),
    "plain": ("#4a5563", "#b4bfcc"), "plain-soft": ("#eceff3", "#262e38"),
    "band": ("rgba(17,105,76,.12)", "rgba(95,211,168,.14)"), "zero": ("#8a93a0", "#76818f"),
    "low": ("#0b6bb5", "#5cb3f0"), "middle": ("#f4f5f7", "#222a33"), "high": ("#c8500a", "#ff9a57"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm is drawn everywhere: a colour token, a marker, a dash; and what a legend says of it behind its name."""

    colour: str
    marker: str
    dash: str
    words: str = ""


def styles(arms: Sequence[str], controls: Mapping[str, str]) -> dict[str, Style]:
    """Each arm's style: controls dashed and in the control's own hue, the others by their order; positive controls hollow."""
    looks: dict[str, Style] = {}
    used = 0
    for arm in arms:
        kind = controls.get(arm, "")
        if kind in _CONTROL_HUES and not any(style.colour == f"@{kind}" for style in looks.values()):
            looks[arm] = Style(f"@{kind}", _CONTROL_MARKERS[kind], "dash")
        else:
            place = used % len(_HUES)
            hollow = kind == POSITIVE
            looks[arm] = Style(
                f"@arm{place}",
                f"{MARKERS[place]}{_HOLLOW}" if hollow else MARKERS[place],
                "dash" if kind else ("solid", "dot", "longdash")[used // len(_HUES) % 3],
                " (positive control: a judge with a known taste)" if hollow else "",
            )
            used += 1
    return looks


def arm_legend(arms: Iterable[str], looks: Mapping[str, Style]) -> tuple[tuple[str, Style], ...]:
    """A legend of these arms."""
    return tuple((f"{wording.label(arm)}{looks[arm].words}", looks[arm]) for arm in arms)


def colours(*, dark: bool = False) -> dict[str, str]:
    """Every token's value in that theme, without the leading "@"; ``<arm>-band`` is an arm's translucent fill."""
    place = 1 if dark else 0
    arms = {f"arm{n}": hue for n, hue in enumerate(_HUES)} | _CONTROL_HUES
    named = {name: pair[place] for name, pair in (_PAGE | _PARTS | arms).items()}
    return named | {f"{name}-band": _translucent(pair[place]) for name, pair in arms.items()}


def style_sheet() -> str:
    """CSS custom properties for both themes (``--found`` and so on)."""

    def block(dark: bool) -> str:
        return "".join(f"--{name}:{value};" for name, value in colours(dark=dark).items())

    dark = f"{{color-scheme:dark;{block(True)}}}"
    light = f"{{color-scheme:light;{block(False)}}}"
    # The reader's choice (data-theme) stands above the system's; paper is always light.
    return (
        f":root{light}\n@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}\n"
        f"@media screen{{:root[data-theme=dark]{dark}}}\n"
    )


def resolved(spec: Any, *, dark: bool = False) -> Any:
    """A figure's specification with its colour tokens replaced, for use without the page."""
    values = colours(dark=dark)

    def walk(node: Any, colour: bool) -> Any:
        if isinstance(node, dict):
            return {key: walk(value, "color" in key) for key, value in node.items()}
        if isinstance(node, list):
            return [walk(value, colour) for value in node]
        return values.get(node[1:], node) if colour and isinstance(node, str) and node.startswith("@") else node

    return walk(spec, False)


def _translucent(hue: str) -> str:
    red, green, blue = (int(hue[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},.12)"


# The figure

Spec = dict[str, Any]
BREAK = "<br>"
"""The end of a line in Plotly's texts, which are no HTML of the page: they travel in its JSON, and Plotly draws them."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot: a title and a Plotly figure as a plain mapping, with colours as tokens (``@name``, see ``colours``)."""

    title: str
    spec: Spec


@dataclass(frozen=True, slots=True)
class Stroke:
    """A path of a sketch: its colour's name and how it is drawn (band, line, curve, dashed, interval, whisker, mark or hollow);
    ``words``: what it says when pointed at."""

    path: str
    colour: str
    kind: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Label:
    """Words in a sketch, at a place; ``anchor``: start, middle or end."""

    x: float
    y: float
    words: str
    anchor: str
    colour: str


@dataclass(frozen=True, slots=True)
class Sketch:
    """A picture that needs no script: strokes in the order in which they cover each other, and words, in units of a pixel."""

    width: float
    height: float
    strokes: tuple[Stroke, ...]
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that share a legend, with their data as estimates (``rows``) and, where drawn, replicates' traces.

    ``caption``: how to read it; ``alternative``: what it shows, in words. Without panels the caption says why there is no plot.
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
    sketch: Sketch | None = None
    """Drawn by the page itself, without a plot's panels."""

    def data(self) -> pd.DataFrame:
        """The plotted estimates, a row each, in those columns of docs/contract.md, "Estimates" that are not empty here."""
        records = [record(row) for row in self.rows]
        shown = [
            column
            for column in (records[0] if records else ())
            if any(row[column] not in ("", None) and row[column] == row[column] for row in records)
        ]
        return pd.DataFrame(records, columns=shown)


_MARKS: tuple[tuple[Standing, str, Style], ...] = (
    ("found", "found", Style("@found", "circle", "")),
    ("unconfirmed", "unconfirmed", Style("@open", "circle-open", "")),
    ("unclear", "unclear", Style("@open", "circle-open", "")),
    ("undetected", "not detected", Style("@plain", "circle-open", "")),
    ("underpowered", "too few data", Style("@plain", "circle-open", "")),
    ("equivalent", "none within the margin", Style("@calm", "circle-open", "")),
    ("described", "measured, no claim", Style("@plain", "circle-open", "")),
)


def mark_legend(standings: Iterable[Standing]) -> tuple[tuple[str, Style], ...]:
    """What the colour and the filling of marks say, of those standings alone; what looks alike stands together."""
    drawn, words = set(standings), dict[Style, list[str]]()
    for standing, name, style in _MARKS:
        if standing in drawn:
            words.setdefault(style, []).append(name)
    return tuple((" or ".join(names), style) for style, names in words.items())


# Texts and axes


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
    if any(map(wording.is_pick_share, rows)):
        return "points from even (50 %)"
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
_SIZES = ("tail_mass_retained", "new_mode_mass", "kl_from_reference", "sd_", "hedging_when_wrong")
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
    most = wording.reach(row)
    if row.term in _SHARES or (row.term in wording.SHARES and not row.contrast):
        return 0.0, scaled(row, 1.0)
    if most is not None:
        return -100 * most, 100 * most
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
    """The sentence that intervals are cut, where one is; else empty."""
    is_cut = any(within(row, end) != scaled(row, end) for row in rows for end in (row.conf_low, row.conf_high))
    return " Intervals are drawn no further than the measure can go." if is_cut else ""


def value_range(rows: Sequence[Estimate], *, from_zero: bool = False) -> list[float]:
    """(least, most) of the value axis, in axis units: holds all estimates and intervals with room for their marks, but hardly goes
    beyond what the measure can be (``bounds``). ``from_zero``: holds 0 too."""
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
    merged = dict(base)
    for key, value in more.items():
        merged[key] = (
            {**merged[key], **value} if isinstance(value, dict) and isinstance(merged.get(key), dict) else value
        )
    return merged


# Estimates with their intervals as dots and lines: on one axis, and over generations

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
    """Estimates as dots with their intervals on one axis, a line each; ``shapes`` lie below.

    A line's label is its term, and its judge where there are several; ``names`` replace the labels. ``references``: row →
    (value in axis units, words for hover), drawn as an upright mark.
    """
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
    upright = [
        (*references[row], place) for row, place in zip(rows, places, strict=True) if references and row in references
    ]
    if upright:
        lines.append({
            "type": "scatter", "mode": "markers", "x": [value for value, _, _ in upright], "y": [place for _, _, place in upright],
            "marker": {"symbol": REFERENCE.marker, "size": 22, "color": REFERENCE.colour, "line": {"width": 3, "color": REFERENCE.colour}},
            "text": [words for _, words, _ in upright], "hoverinfo": "text",
        })  # fmt: skip
    drawn = [value for value, _, _ in upright] + [
        value
        for row in rows
        for value in (within(row, row.conf_low), within(row, row.conf_high), scaled(row, row.estimate), 0.0)
        if value is not None
    ]
    edge = max(abs(value) for value in drawn) * 1.12 or 1.0
    low = -edge if min(drawn) < -0.12 * edge else -0.35 * edge
    high = edge if max(drawn) > 0.12 * edge else 0.35 * edge
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
    if verdict_of(row, None) != "found":
        return "@surface"
    return "@plain" if _is_no_bias(row) else "@found"


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
    """Whether the estimate is no bias: the effect of quality, one that quality may explain, since it is not held equal, one that
    holds only where a gold cannot err, or a share."""
    measured = row.term in wording.SHARES or row.term in ("excess_conflict", "score_mean")
    return row.bias == "quality" or row.variant in ("no_gold", "given_gold") or (measured and not row.contrast)


def forest_legend(rows: Iterable[Estimate]) -> tuple[tuple[str, Style], ...]:
    """What the colour and the filling of these rows' marks say in a ``forest``."""
    words = {
        ("@found", True): "found",
        ("@plain", True): "off 0, but no claim of bias",
        ("@open", False): "unconfirmed",
        ("@calm", False): "none within the margin",
        ("@plain", False): "not detected, or no claim",
    }
    looks = {(_ring(row), _dot(row) != "@surface") for row in rows}
    return tuple(
        (text, Style(colour, "circle" if filled else "circle-open", ""))
        for (colour, filled), text in words.items()
        if (colour, filled) in looks
    )


def _ring(row: Estimate) -> str:
    if _is_no_bias(row):
        return "@plain"
    margin = RATE_MARGIN if wording.is_rate(row) else None
    verdict = verdict_of(row, margin)
    return {"found": "@found", "equivalent": "@calm", "unconfirmed": "@open"}.get(verdict, "@plain")


def in_words(rows: Sequence[Estimate]) -> str:
    """The rows of judges in words: judge, measure, value, interval."""
    parts = [
        f"{wording.label(row.judge)}, {wording.sentence_start(wording.term_name(row.term))}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in rows
    ]
    return "; ".join(parts) + "."


def points(rows: Sequence[Estimate], look: Style, name: str, aside: float = 0.0) -> Spec:
    """A curve of estimates over generations with interval bars; ``aside``: generations by which it is shifted along the axis."""
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


def generations_panel(
    title: str, data: Sequence[Spec], generations: Sequence[int], *, value_axis: Spec, height: int, curves: int = 1
) -> Panel:
    """A panel of curves over generations; ``curves``: how many stand side by side (``asides``)."""
    axes = layout(height=height, x=generations_axis(generations, curves), y=value_axis)
    return Panel(title, {"data": list(data), "layout": axes})
