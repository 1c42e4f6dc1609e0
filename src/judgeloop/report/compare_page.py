"""compare.html: the recommendation, every contender's values and every difference, in one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from judgeloop.report import blocks, compare_text, shell, wording
from judgeloop.report.figure import Figure, Panel, Spec, axis_title, hover, layout, safe, scaled, titled, within
from judgeloop.report.forest import wrapped
from judgeloop.report.overview import Table
from judgeloop.report.palette import Style, styles
from judgeloop.report.shell import Section, text
from judgeloop.stats.comparison import Comparison
from judgeloop.stats.contender import Contender
from judgeloop.stats.difference import Difference
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.ranking import TERMS
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
    said = "".join(f"<li>{text(line)}</li>" for line in compare_text.recommendation(done))
    tone, word = ("calm", "Ranked") if done.ranking.recommended else ("open", "No ranking")
    card = (
        f'<div class="cards"><article class="card {tone}"><header><h3>What may be recommended</h3><p class="chip">{word}</p></header>'
        f"<ul>{said}</ul></article></div>"
    )
    how = Table(
        "How the contenders were paired",
        "",
        ("Comparison",),
        tuple((line,) for line in compare_text.pairing_lines(done)),
    )
    read = "".join(f"<li>{text(line)}</li>" for line in compare_text.METHOD)
    sections = [
        Section("recommendation", "Recommendation", card + blocks.table_block(compare_text.contenders_table(done))),
        Section("side-by-side", "Side by side", "\n".join(blocks.figure_block(one) for one in figures)),
        Section("differences", "All differences", blocks.table_block(compare_text.differences_table(done)) + _link(done)),
        Section("methods", "How this was made", f'<div class="block"><h3>How to read this</h3><ul class="said">{read}</ul></div>' + blocks.table_block(how)),
    ]  # fmt: skip
    facts = [
        ("Contenders", f"{len(done.contenders)}"),
        ("Folders", ", ".join(dict.fromkeys(wording.label(one.source) for one in done.contenders))),
        ("Differences", f"{len(done.differences):,}"),
    ]
    return shell.frame(
        kind="comparison", name=compare_text.title(done), facts=facts, sections=sections, specs=blocks.specs(figures)
    )


def _link(done: Comparison) -> str:
    link = blocks.csv_link(done.frame, "comparison.csv", "All differences (CSV)")
    return f'<div class="under">{link or "<span>All differences are in comparison.csv beside this file.</span>"}</div>'


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
        len(done.contenders), "percentage points",
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
    known = [one for one in compare_text.in_order(done) if one.row.conf_low is not None and one.row.variant == ""]
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
                       axis_title([one.row for one in shown]) if name == "rates" else "doublings, or generation-0 SD",
                       RATE_MARGIN if name == "rates" else None)  # fmt: skip
        found.append(Figure(
            name=f"differences-{name}",
            title=title,
            caption=f"The first's value minus the second's, with its 95 % interval.{' The band is ±5 points, the margin of equivalence.' if name == 'rates' else ''}{more}",
            alternative="; ".join(f"{wording.label(one.first)} minus {wording.label(one.second)}, {wording.term_name(one.row.term)}: {wording.figure(one.row, one.row.estimate)} {compare_text.unit_of_difference(one)}, {wording.interval(one.row)}" for one in shown),
            panels=(Panel("", spec),),
            rows=tuple(one.row for one in shown),
        ))  # fmt: skip
    return found


def _label(one: Difference, several: bool) -> str:
    name = wording.term_name(one.row.term)
    return f"{safe(name, 60)}<br>{safe(one.first, 24)} − {safe(one.second, 24)}" if several else safe(name, 60)


def _forest(
    marks: Sequence[tuple[Estimate, str, int, Style]],
    labels: Sequence[str],
    each: int,
    title: str,
    band: float | None = None,
) -> Spec:
    """Rows of estimates: (estimate, contender, row, look); contenders of one row stand under each other."""
    step = min(0.16, 0.7 / max(1, each))
    seen: dict[int, int] = {}
    lines: list[Spec] = []
    dots: list[Spec] = []
    spread = [0.0]
    for row, name, place, look in marks:
        nth = seen.setdefault(place, 0)
        seen[place] += 1
        y = len(labels) - 1 - place + step * ((each - 1) / 2 - nth)
        x, low, high = scaled(row, row.estimate), within(row, row.conf_low), within(row, row.conf_high)
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
    pad = 0.06 * (max(spread) - min(spread)) or 1.0
    return {
        "data": [*lines, *dots],
        "layout": layout(
            height=80 + (34 + 14 * each) * len(labels),
            x=titled(title, zeroline=False, range=[min(spread) - pad, max(spread) + pad]),
            y={"tickvals": list(range(len(labels)))[::-1], "ticktext": [wrapped(label) for label in labels], "range": [-0.6, len(labels) - 0.4], "showgrid": False, "zeroline": False, "tickfont": {"color": "@ink", "size": 13}},
            shapes=shapes,
        ),
    }  # fmt: skip
