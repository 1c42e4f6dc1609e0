"""What moved a feature from one generation to the next: the Price decomposition, stacked, a panel an arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from judgeloop.report import wording
from judgeloop.report.figure import Figure, Panel, Spec, axis_title, generations_axis, hover, layout, scaled, titled
from judgeloop.report.palette import Style
from judgeloop.report.reading import Reading, arm_series, select
from judgeloop.stats.estimate import Estimate

_PARTS = (
    ("selection", "selected minus drafted"),
    ("mixing", "training set minus selected"),
    ("learning", "next drafts minus training set"),
)
_PALE = 0.3
"""Opacity of a part that may be nothing."""
_STEP = 0.16
"""Generations between the whiskers of one stack."""


def price(reading: Reading, feature: str) -> Figure | None:
    """Every step's change as the sum of its parts, each with its interval; a part whose interval covers 0 is pale."""
    panels, used = [], []
    for arm in reading.arms:
        parts = {
            part: {row.generation or 0: row for row in select(arm_series(reading, f"{part}_{feature}"), arm=arm)}
            for part, _ in _PARTS
        }
        if not any(parts.values()):
            continue
        used += [row for rows in parts.values() for _, row in sorted(rows.items())]
        axis = generations_axis([generation for rows in parts.values() for generation in rows])
        axis |= {
            "title": {"text": "from generation t to t + 1"},
            "range": [axis["range"][0] - 0.4, axis["range"][1] + 0.4],
            "showgrid": False,
        }
        spec: Spec = {
            "data": [*(_bars(part, rows) for part, rows in parts.items()), *_whiskers(parts)],
            "layout": layout(height=250, x=axis, y=titled(axis_title(used)), barmode="relative", bargap=0.3),
        }
        panels.append(Panel(f"Arm {wording.label(arm, 30)}", spec))
    if not panels:
        return None
    _share_range(panels)
    return Figure(
        name=f"price-{feature.replace('_', '-')}",
        title=f"What moved {wording.feature_name(feature)}",
        caption="Each step's change, split exactly: "
        + "; ".join(f"{part} ({meaning})" for part, meaning in _PARTS)
        + ". The three add up to the change. A whisker is the interval of one part, drawn from the end of its bar; a pale bar may be nothing: its interval "
        "covers 0, or there are too few replicates for one.",
        alternative=_in_words(used),
        panels=tuple(panels),
        rows=tuple(used),
        legend=tuple((part, Style(f"@{part}", "bar", "solid")) for part, _ in _PARTS),
    )


def is_sure(row: Estimate) -> bool:
    """True where the interval excludes 0."""
    return row.conf_low is not None and row.conf_high is not None and not row.conf_low <= 0.0 <= row.conf_high


def _bars(part: str, rows: Mapping[int, Estimate]) -> Spec:
    some = [rows[generation] for generation in sorted(rows)]
    return {
        "type": "bar", "x": [row.generation for row in some], "y": [scaled(row, row.estimate) for row in some],
        "marker": {"color": f"@{part}", "opacity": [1.0 if is_sure(row) else _PALE for row in some]},
        "text": [hover(row, part) for row in some], "hoverinfo": "text", "textposition": "none",
    }  # fmt: skip


def _whiskers(parts: Mapping[str, Mapping[int, Estimate]]) -> list[Spec]:
    """A whisker a part, at the end of its bar in the stack and a step aside, so that those of one stack can be told apart."""
    drawn = []
    ends: dict[tuple[int, bool], float] = {}
    for place, (part, rows) in enumerate(parts.items()):
        x, y, above, below = [], [], [], []
        for generation, row in sorted(rows.items()):
            size = scaled(row, row.estimate) or 0.0
            low, high = scaled(row, row.conf_low), scaled(row, row.conf_high)
            end = ends.get((generation, size >= 0), 0.0) + size
            ends[generation, size >= 0] = end
            if low is None or high is None or (size == 0.0 and low == high):
                continue  # no interval, or a part that there is not: nothing is mixed in
            x.append(generation + _STEP * (place - (len(parts) - 1) / 2))
            y.append(end)
            above.append(high - size)
            below.append(size - low)
        if x:
            drawn.append({
                "type": "scatter", "mode": "markers", "x": x, "y": y, "marker": {"size": 4, "color": f"@{part}", "line": {"width": 1, "color": "@ink"}},
                "error_y": {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "color": "@ink", "thickness": 1.2, "width": 3},
                "hoverinfo": "skip",
            })  # fmt: skip
    return drawn


def _share_range(panels: Sequence[Panel]) -> None:
    """The same y range in all panels, so that arms can be compared by eye."""
    reached = [0.0]
    for panel in panels:
        for trace in panel.spec["data"]:
            if trace["type"] == "scatter":
                error = trace["error_y"]
                reached += [end + up for end, up in zip(trace["y"], error["array"], strict=True)]
                reached += [end - down for end, down in zip(trace["y"], error["arrayminus"], strict=True)]
        for above in (True, False):
            stacks: dict[int, float] = {}
            for bar in panel.spec["data"]:
                for place, value in zip(bar["x"], bar["y"], strict=True) if bar["type"] == "bar" else ():
                    if ((value or 0.0) >= 0) == above:
                        stacks[place] = stacks.get(place, 0.0) + (value or 0.0)
            reached += stacks.values()
    room = 0.06 * (max(reached) - min(reached)) or 0.1
    for panel in panels:
        panel.spec["layout"]["yaxis"]["range"] = [min(reached) - room, max(reached) + room]


def _in_words(rows: Sequence[Estimate]) -> str:
    sure = [row for row in rows if is_sure(row)]
    if not sure:
        return "No part of any step can be told from 0; the table holds every value."
    said = "; ".join(
        f"{wording.label(row.arm)}, step {row.generation}, {row.term.split('_')[0]}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in sure[:12]
    )
    return f"Parts that can be told from 0: {said}" + ("." if len(sure) <= 12 else "; the table holds every value.")
