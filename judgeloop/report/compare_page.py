"""compare.html: the recommendation, every contender's values and every difference, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from judgeloop.report import blocks, comparison, shell, wording
from judgeloop.report.blocks import Card
from judgeloop.report.figure import BREAK, Figure, Panel, Spec, axis_title, hover, layout, safe, scaled, titled, within
from judgeloop.report.forest import wrapped
from judgeloop.report.palette import Style, styles
from judgeloop.report.shell import Section
from judgeloop.report.tables import Table
from judgeloop.stats.compare.comparison import TERMS
from judgeloop.stats.compare.contender import Contender
from judgeloop.stats.comparison import Comparison
from judgeloop.stats.difference import Difference
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import RATE_MARGIN

_SHOWN = (
    *TERMS,
    "conflict_rate",
    "gold_agreement",
    "longer_preferred_raw",
    "unscored_share",
    "did_mattr",
    "did_distinct_2",
    "did_correct",
)
_MOST = 24


def render(done: Comparison) -> str:
    """The whole page."""
    figures = [one for one in (_levels(done), *_differences(done)) if one is not None]
    tone, word = ("calm", "Ranked") if done.ranking.recommended else ("open", "No ranking")
    headline, *reasons = comparison.recommendation(done)
    how = tuple((line,) for line in comparison.pairing_lines(done))
    sections = [
        Section("recommendation", "Recommendation"),
        *([Section("side-by-side", "Side by side")] if figures else []),
        Section("differences", "All differences"),
        Section("methods", "How this was made"),
    ]
    facts = [
        ("Contenders", f"{len(done.contenders)}"),
        ("Folders", ", ".join(dict.fromkeys(wording.label(one.source) for one in done.contenders))),
        ("Differences", f"{len(done.differences):,}"),
    ]
    return shell.frame(
        "compare.html",
        kind="comparison",
        name=comparison.title(done),
        facts=facts,
        sections=sections,
        specs=blocks.specs(figures),
        card=Card("What may be recommended", tone, word, headline, tuple(("", line) for line in reasons)),
        contenders=comparison.contenders_table(done).filled(),
        figures=figures,
        differences=comparison.differences_table(done),
        every_difference=blocks.csv_download(done.frame, "comparison.csv", "All differences (CSV)"),
        notes=comparison.METHOD,
        pairings=Table("How the contenders were paired", "", ("Comparison",), how),
    )


def _levels(done: Comparison) -> Figure | None:
    """Every contender's own estimates of what is compared: rates alone, which share an axis."""
    looks = styles([one.name for one in done.contenders], {})
    rows: list[tuple[Contender, Estimate]] = []
    for term in _SHOWN:
        some = [(one, row) for one in done.contenders if (row := one.primary(term)) is not None]
        rows += [(one, row) for one, row in some if wording.is_rate(row) and len(some) > 1]
    if not rows:
        return None
    terms = list(dict.fromkeys(row.term for _, row in rows))
    spec = _forest(
        [(row, one.name, terms.index(row.term), looks[one.name]) for one, row in rows], [wording.term_name(term) for term in terms],
        len(done.contenders), "percentage points", within,
    )  # fmt: skip
    return Figure(
        name="levels",
        title="Every contender's own estimates",
        caption="Dots are estimates on all of a folder's pairs, lines their 95 % intervals. Overlapping intervals do not mean "
        "that there is no difference: where pairs are shared, the figure below is the sharper one.",
        alternative="; ".join(f"{wording.label(one.name)}, {wording.term_name(row.term)}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}" for one, row in rows),
        panels=(Panel("", spec),),
        rows=tuple(row for _, row in rows),
        legend=tuple((wording.label(one.name), looks[one.name]) for one in done.contenders),
    )  # fmt: skip


def _differences(done: Comparison) -> list[Figure]:
    """Differences with intervals: a figure for rates, one for what is measured in other units."""
    known = [one for one in comparison.in_order(done) if one.row.conf_low is not None and one.row.variant == ""]
    found = []
    for name, title, some in (
        ("rates", "Differences of the judges", [one for one in known if wording.is_rate(one.row)]),
        ("drift", "Differences of the loops", [one for one in known if not wording.is_rate(one.row) and one.row.scope == "policy"]),
    ):  # fmt: skip
        if not some:
            continue
        shown = some[:_MOST]
        more = f" The first {_MOST} of {len(some)}; the table holds all." if len(some) > _MOST else ""
        labels = [_label(one, len(done.contenders) > 2) for one in shown]
        look = Style("@arm0", "circle", "solid")
        spec = _forest([(one.row, one.first, n, look) for n, one in enumerate(shown)], labels, 1,
                       axis_title([one.row for one in shown]) if name == "rates" else "doublings, or generation-0 SD", scaled,
                       RATE_MARGIN if name == "rates" else None)  # fmt: skip
        found.append(Figure(
            name=f"differences-{name}",
            title=title,
            caption=f"The first's value minus the second's, with its 95 % interval.{' The band is ±5 points, the margin of equivalence.' if name == 'rates' else ''}{more}",
            alternative="; ".join(f"{wording.label(one.first)} minus {wording.label(one.second)}, {wording.term_name(one.row.term)}: {wording.figure(one.row, one.row.estimate)} {comparison.unit_of_difference(one)}, {wording.interval(one.row)}" for one in shown),
            panels=(Panel("", spec),),
            rows=tuple(one.row for one in shown),
        ))  # fmt: skip
    return found


def _label(one: Difference, several: bool) -> str:
    name = wording.term_name(one.row.term)
    return f"{safe(name, 60)}{BREAK}{safe(one.first, 24)} − {safe(one.second, 24)}" if several else safe(name, 60)


def _forest(
    marks: Sequence[tuple[Estimate, str, int, Style]],
    labels: Sequence[str],
    each: int,
    title: str,
    end: Callable[[Estimate, float | None], float | None],
    band: float | None = None,
) -> Spec:
    """Rows of estimates: (estimate, contender, row, look); contenders of one row stand under each other. ``end`` gives an
    interval's limit in axis units."""
    step = min(0.16, 0.7 / max(1, each))
    seen: dict[int, int] = {}
    lines: list[Spec] = []
    dots: list[Spec] = []
    spread = [0.0]
    for row, name, place, look in marks:
        nth = seen.setdefault(place, 0)
        seen[place] += 1
        y = len(labels) - 1 - place + step * ((each - 1) / 2 - nth)
        x, low, high = scaled(row, row.estimate), end(row, row.conf_low), end(row, row.conf_high)
        spread += [value for value in (x, low, high) if value is not None]
        if low is not None and high is not None:
            lines.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "x": [low, high],
                    "y": [y, y],
                    "line": {"color": look.colour, "width": 2.5},
                    "hoverinfo": "skip",
                }
            )
        dots.append({
            "type": "scatter", "mode": "markers", "x": [x], "y": [y],
            # Set off from the lines by a rim of the ground's colour: a mark must not melt into its own interval.
            "marker": {"size": 13 if look.marker.startswith(("triangle", "star")) else 11, "color": look.colour, "symbol": look.marker, "line": {"width": 1.5, "color": "@surface"}},
            "text": [hover(row, name)], "hoverinfo": "text",
        })  # fmt: skip
    shapes: list[Spec] = [{
        "type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1,
        "line": {"color": "@zero", "width": 1.2}, "layer": "below",
    }]  # fmt: skip
    if band is not None:
        spread += [-140 * band, 140 * band]
        shapes.insert(0, {
            "type": "rect", "xref": "x", "yref": "paper", "x0": -100 * band, "x1": 100 * band, "y0": 0, "y1": 1,
            "fillcolor": "@band", "line": {"width": 0}, "layer": "below",
        })  # fmt: skip
    names = [wrapped(label) for label in labels]
    lines_of_label = 1 + max(name.count(BREAK) for name in names)
    pad = 0.06 * (max(spread) - min(spread)) or 1.0
    return {
        "data": [*lines, *dots],
        "layout": layout(
            height=80 + max(34 + 14 * each, 14 + 18 * lines_of_label) * len(labels),
            x=titled(title, zeroline=False, range=[min(spread) - pad, max(spread) + pad]),
            y={"tickvals": list(range(len(labels)))[::-1], "ticktext": names, "range": [-0.6, len(labels) - 0.4], "showgrid": False, "zeroline": False, "tickfont": {"color": "@ink", "size": 13}},
            shapes=shapes,
        ),
    }  # fmt: skip
