"""A comparison in words: the recommendation, two tables, one screen, Markdown and JSON. The page says the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from judgeloop.report import page, wording
from judgeloop.report.claims import VERDICT_NAMES, Standing, margin_of, verdict_of
from judgeloop.report.figure import (
    BREAK,
    Figure,
    Panel,
    Spec,
    Style,
    axis_title,
    hover,
    layout,
    safe,
    scaled,
    styles,
    titled,
    within,
    wrapped,
)
from judgeloop.report.page import Card, Section
from judgeloop.report.reading import record
from judgeloop.report.tables import Table
from judgeloop.report.text import as_text, escape, grid, section
from judgeloop.stats.compare.contenders import Contender, Cost
from judgeloop.stats.compare.differences import Difference
from judgeloop.stats.compare.ranking import TERMS, Comparison, Harm, RankedContender
from judgeloop.stats.estimate import RATE_MARGIN, Estimate

FORMAT = "judgeloop-comparison/1"
METHOD = (
    "A difference is the first's value minus the second's. Where both judged the same pairs (same names, same texts) it is the mean over those pairs, with errors clustered by item; where two loops began from the same texts under the same seed, it is one number a replicate, with a t interval; else the two are taken as independent samples (Welch).",
    "Adjusted p-values: Holm over the confirmatory terms (first slot, length effect, padding, self-preference; drift of length, style and vocabulary beyond control), Benjamini-Hochberg over the others, over all that is compared here together.",
    "Harm is the upper limit of |bias| in multiples of its equivalence margin (5 points; 0.1 generation-0 SD), of the worst term that all contenders identify. The length effect is multiplied by the upper limit of its transmission into the training signal, where that is known and above 1. Unscored replies widen the first slot's limits.",
    "An order is licensed where intervals part, or where the paired difference on the heaviest term is found and no other term reaches as far. Least harm is not best judgment: look at agreement with gold.",
)
_VARIANTS = {"no_gold": "quality not held equal", "given_gold": "one gold taken as exact"}
_ROWS = 14
_NAMES = 5


def judged(one: Difference) -> Standing:
    """What the difference licenses, in the report's words."""
    return verdict_of(one.row, margin_of(one.row))


def recommendation(done: Comparison) -> list[str]:
    """What may be recommended, what it costs, and what speaks against it; in sentences."""
    ranking = done.ranking
    if not ranking.places:
        return [f"{wording.sentence_case(ranking.why)}.", *_left_out(done)]
    first = ranking.places[0]
    by_name = {one.name: one for one in done.contenders}
    said = []
    tied = [place.name for place in ranking.places[1:] if not ranking.apart(first.name, place.name)]
    what = "worst-case harm" if ranking.content_known else "harm by what all identify"
    if ranking.recommended:
        said.append(f"Recommended: {_name(first.name)}, whose worst-case harm is {_harm(first.harms[0])}.")
    else:
        why = f"{wording.sentence_case(ranking.why)}. " if ranking.why else ""
        if not ranking.content_known:
            why += (
                f"Nothing is recommended: all that everyone here identifies is “{_terms(first)}”. A taste for length is not identified for all, "
                "so this is no worst case. "
            )
        beside = f"; not told from it: {_several(tied)}" if tied else ""
        said.append(f"{why}Least {what}: {_name(first.name)}, {_harm(first.harms[0])}{beside}.")
    if len(ranking.places) > 1:
        others = "; ".join(f"{_name(place.name)} {_harm(place.harms[0])}" for place in ranking.places[1:5])
        said.append(f"{wording.sentence_case(what)} of the others: {others}.")
    said.append(
        _price(by_name[first.name], [one for one in done.contenders if not one.is_control and one.name != first.name])
    )
    said += _trained(by_name[first.name], [by_name[place.name] for place in ranking.places[1:]])
    said += _against(done, first)
    return [*said, *_left_out(done)]


def contenders_table(done: Comparison) -> Table:
    """What is compared: place, worst-case harm, agreement with gold, and cost."""
    places = {place.name: place for place in done.ranking.places}
    cheapest = _cheapest([one.cost for one in done.contenders])
    rows = []
    for one in sorted(done.contenders, key=lambda one: (one.name not in places, _order(done, one.name))):
        place, agrees = places.get(one.name), one.primary("gold_agreement")
        unit_cost = one.cost.a_pair()
        ratio = "–"
        if unit_cost and cheapest and unit_cost[0] == cheapest[0]:
            ratio = f"{unit_cost[1] / cheapest[1]:.2f}"
        rows.append((
            wording.label(one.name, 36), _place(place, done), wording.label(one.judge, 30) or "–",
            _harm(place.harms[0]) if place else "–", wording.cell(agrees) or "–", _count(one.cost.calls), _count(one.cost.tokens),
            "–" if one.cost.usd is None else f"{one.cost.usd:,.4g}", ratio,
        ))  # fmt: skip
    note = "Cost is of the judging; cost a pair is relative to the cheapest. Agreement with gold in %."
    harm = "Worst-case harm" if done.ranking.content_known else "Harm by what all identify"
    return Table(
        "Contenders", note,
        ("Contender", "Place", "Judge", harm, "Agrees with gold", "Calls", "Tokens", "USD", "Cost a pair"), tuple(rows),
    )  # fmt: skip


def differences_table(done: Comparison) -> Table:
    """All differences, the ones that are claimed first."""
    rows = []
    for one in in_order(done):
        rows.append((
            wording.term_name(one.row.term) + (f" ({_VARIANTS.get(one.row.variant, one.row.variant)})" if one.row.variant else "")
            + (f", beyond {one.row.contrast}" if one.row.contrast else ""),
            wording.label(one.first, 28), wording.label(one.second, 28), _value(one, one.first_estimate),
            _value(one, one.second_estimate), wording.cell(one.row), unit_of_difference(one), one.pairing,
            VERDICT_NAMES[judged(one)],
        ))  # fmt: skip
    return Table(
        "Differences", "The first's value minus the second's, with its 95 % interval.",
        ("Measure", "First", "Second", "Value 1", "Value 2", "Difference", "Unit", "Paired by", "Verdict"), tuple(rows),
    )  # fmt: skip


def in_order(done: Comparison) -> list[Difference]:
    """Found first, then by family; undefined last; the comparison's order else."""
    rank: dict[Standing, int] = {
        "found": 0,
        "unconfirmed": 1,
        "equivalent": 2,
        "undetected": 3,
        "underpowered": 3,
        "undefined": 5,
    }
    families = {"confirmatory": 0, "exploratory": 1, "none": 2}

    leader = done.ranking.places[0].name if done.ranking.places else ""

    def place(one: Difference) -> tuple[int, bool, bool, int]:
        idle = one.row.term == "unscored_share" and not one.first_estimate and not one.second_estimate
        beside = leader not in (one.first, one.second)
        return 4 if idle else rank.get(judged(one), 4), one.row.variant != "", beside, families[one.row.family]

    return sorted(done.differences, key=place)


def pairing_lines(done: Comparison) -> list[str]:
    """How every two were paired."""
    return [
        f"{wording.label(first)} and {wording.label(second)}: {how}" for (first, second), how in done.pairings.items()
    ]


def summary(done: Comparison, width: int = 100) -> str:
    """One screen as plain text."""
    return as_text(renderable(done), width)


def renderable(done: Comparison) -> Group:
    """One screen for a rich console."""
    parts: list[RenderableType] = [Text(f"{comparison_title(done)}", style="bold")]
    parts += [Text(line, style="dim") for line in pairing_lines(done)[:3]]
    if len(done.pairings) > 3:
        parts.append(Text(f"… {len(done.pairings) - 3} more in compare.md", style="dim"))
    parts.append(grid(contenders_table(done).without("Judge", "Calls").filled(), _ROWS, "compare.md"))
    # The screen keeps what can be read at a glance; compare.md holds every row.
    known = sum(one.row.status != "undefined" for one in done.differences)
    parts.append(grid(differences_table(done).without("Unit", "Paired by").filled(), min(_ROWS, known), "compare.md"))
    said = [Text(f"{line}") for line in recommendation(done)]
    parts.append(Padding(Group(*said), (1, 0, 0, 0)))
    return Group(*parts)


def markdown(done: Comparison) -> str:
    """compare.md; ends with a line end."""
    parts = [
        f"# {escape(comparison_title(done))}",
        "## Recommendation\n\n" + "\n".join(f"- {escape(line)}" for line in recommendation(done)),
    ]
    parts += [section(contenders_table(done)), section(differences_table(done))]
    parts.append(
        "## How the contenders were paired\n\n" + "\n".join(f"- {escape(line)}" for line in pairing_lines(done))
    )
    parts.append("## How to read this\n\n" + "\n".join(f"- {escape(line)}" for line in METHOD))
    return "\n\n".join(parts) + "\n"


def document(done: Comparison) -> str:
    """compare.json: ``format, contenders, pairings, ranking, recommendation, differences``."""
    ranking = done.ranking
    content: dict[str, Any] = {
        "format": FORMAT,
        "contenders": [
            {"name": one.name, "folder": one.source, "judge": one.judge, "arm": one.arm, "control": one.is_control, "cost": asdict(one.cost)}
            for one in done.contenders
        ],
        "pairings": [{"first": first, "second": second, "how": how} for (first, second), how in done.pairings.items()],
        "ranking": {
            "licensed": ranking.licensed, "why": ranking.why, "left_out": list(ranking.left_out),
            "told": [{"better": better, "worse": worse} for better, worse in sorted(ranking.told)],
            "places": [{"name": place.name, "place": place.place, "harms": [asdict(harm) | {"margins": harm.share} for harm in place.harms]} for place in ranking.places],
        },
        "recommendation": recommendation(done),
        "differences": [
            {"first": one.first, "second": one.second, "pairing": one.pairing, "first_estimate": one.first_estimate,
             "second_estimate": one.second_estimate, "verdict": judged(one), "estimate": record(one.row)}
            for one in done.differences
        ],
    }  # fmt: skip
    return wording.visible(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def comparison_title(done: Comparison) -> str:
    """ "a, b and 2 more"."""
    names = [_name(one.name) for one in done.contenders]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Comparison of {', '.join(names[:3])}{more}"


def _name(name: str) -> str:
    return wording.label(name, 40)


def _several(names: list[str]) -> str:
    shown = ", ".join(map(_name, names[:_NAMES]))
    return f"{shown} and {len(names) - _NAMES} more" if len(names) > _NAMES else shown


def _harm(harm: Harm) -> str:
    """ "up to 4.1 points (First slot picked, beyond half), 0.8 × margin"."""
    size = (
        f"{100 * harm.worst:.1f} points"
        if harm.unit.startswith("probability")
        else f"{harm.worst:.2f} {_unit(harm.unit)}"
    )
    passed = f", × transmission {harm.amplified:.2f}" if harm.amplified is not None and harm.amplified > 1 else ""
    return f"up to {size} ({wording.term_name(harm.term).lower()}{passed}), {harm.share:.1f} × margin"


def _unit(unit: str) -> str:
    return "SD" if unit == "generation-0 sd" else unit


def _place(place: RankedContender | None, done: Comparison) -> str:
    if place is None:
        return "–"
    others = [one.name for one in done.ranking.places if one.name != place.name]
    tied = not all(done.ranking.apart(place.name, other) for other in others)
    return f"{place.place}{'=' if tied else ''}"


def _order(done: Comparison, name: str) -> int:
    names = [place.name for place in done.ranking.places] or [one.name for one in done.contenders]
    return names.index(name) if name in names else len(names)


def _value(one: Difference, value: float | None) -> str:
    return "–" if value is None else wording.figure(one.row, value)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _cheapest(costs: list[Cost]) -> tuple[str, float] | None:
    """The cheapest a pair, in the unit that all know."""
    known = [cost.a_pair() for cost in costs]
    if not known or any(one is None for one in known) or len({one[0] for one in known if one}) > 1:
        return None
    return min((one for one in known if one), key=lambda one: one[1])


def _price(first: Contender, others: list[Contender]) -> str:
    cost = first.cost
    parts = [
        f"{cost.calls:,} judge calls" if cost.calls else "", f"{cost.tokens:,} tokens" if cost.tokens else "",
        f"{cost.usd:,.4g} USD" if cost.usd else "",
    ]  # fmt: skip
    said = ", ".join(part for part in parts if part)
    if not said:
        return f"What {_name(first.name)} costs is not recorded in its folder."
    line = f"{_name(first.name)} cost {said} for {wording.count(cost.pairs, cost.per)}"
    # Of all that are compared: the cheapest of those that cannot be told from the first may be dearer than another.
    cheapest, own = _cheapest([one.cost for one in (first, *others)]), cost.a_pair()
    if others and cheapest and own:
        who = next(one for one in (first, *others) if one.cost.a_pair() == cheapest)
        if own[1] <= cheapest[1]:
            line += f"; no other is cheaper a {cost.per}"
        else:
            line += f": {own[1] / cheapest[1]:.2f} times as much a {cost.per} as the cheapest of the others, {_name(who.name)}"
    return line + "."


def _trained(first: Contender, others: list[Contender]) -> list[str]:
    """What the first was trained on, beside the one that took the fewest tokens; empty where no loop says it."""
    known = [(one, row.estimate) for one in (first, *others) if (row := _tokens_trained(one)) and row.estimate]
    if len(known) < 2 or known[0][0] is not first:
        return []
    (_, own), (fewest, least) = known[0], min(known, key=lambda one: one[1])
    if fewest is first:
        return [f"{_name(first.name)} was trained on {own:,.0f} tokens over all generations, no other on fewer."]
    return [
        f"{_name(first.name)} was trained on {own:,.0f} tokens over all generations, {own / least:.1f} times those of {_name(fewest.name)}: "
        "part of a difference in drift may be the tokens'."
    ]


def _tokens_trained(one: Contender) -> Estimate | None:
    rows = [row for row in one.rows if row.term == "training_tokens" and row.variant == "" and row.estimate is not None]
    return max(rows, key=lambda row: row.generation or 0, default=None)


def _terms(place: RankedContender) -> str:
    return ", ".join(wording.sentence_start(wording.term_name(harm.term)) for harm in place.harms)


def unit_of_difference(one: Difference) -> str:
    """The unit of a difference: of two shares in % it is points."""
    return "points" if wording.is_rate(one.row) else wording.unit_name(one.row)


def _against(done: Comparison, first: RankedContender) -> list[str]:
    """Where the least harmful is found to agree less with gold, or to leave more unscored."""
    said = []
    for one in done.differences:
        if first.name not in (one.first, one.second) or judged(one) != "found" or one.row.estimate is None:
            continue
        other = one.second if one.first == first.name else one.first
        gap = one.row.estimate if one.first == first.name else -one.row.estimate
        if one.row.term == "gold_agreement" and gap < 0:
            said.append(
                f"But {_name(first.name)} agrees with gold less than {_name(other)}: by {100 * -gap:.1f} points."
            )
        if one.row.term == "unscored_share" and gap > 0:
            said.append(f"But {_name(first.name)} leaves more unscored than {_name(other)}: by {100 * gap:.1f} points.")
    return said


def _left_out(done: Comparison) -> list[str]:
    return [f"Not ranked by {wording.label(line, 200)}." for line in done.ranking.left_out]


# compare.html: the recommendation, every contender's values and every difference, in one file that needs nothing else.

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
    headline, *reasons = recommendation(done)
    how = tuple((line,) for line in pairing_lines(done))
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
    return page.page_frame(
        "compare.html",
        kind="comparison",
        name=comparison_title(done),
        facts=facts,
        sections=sections,
        specs=page.specs(figures),
        card=Card("What may be recommended", tone, word, headline, tuple(("", line) for line in reasons)),
        contenders=contenders_table(done).filled(),
        figures=figures,
        differences=differences_table(done),
        every_difference=page.csv_download(done.frame, "comparison.csv", "All differences (CSV)"),
        notes=METHOD,
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
    known = [one for one in in_order(done) if one.row.conf_low is not None and one.row.variant == ""]
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
            alternative="; ".join(f"{wording.label(one.first)} minus {wording.label(one.second)}, {wording.term_name(one.row.term)}: {wording.figure(one.row, one.row.estimate)} {unit_of_difference(one)}, {wording.interval(one.row)}" for one in shown),
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
