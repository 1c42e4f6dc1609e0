"""A comparison as a recommendation, two tables and two figures; on one screen, as Markdown, JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
    points,
    safe,
    scaled,
    styles,
    titled,
    value_range,
    within,
    wrapped,
)
from judgeloop.report.page import Card, Section
from judgeloop.report.reading import record
from judgeloop.report.tables import Table
from judgeloop.report.text import as_text, escape, grid, section
from judgeloop.stats.compare.contenders import Contender, Cost
from judgeloop.stats.compare.differences import JUDGE_DIFFERENCE, Difference
from judgeloop.stats.compare.ranking import TERMS, Comparison, Harm, RankedContender
from judgeloop.stats.estimate import RATE_MARGIN, Estimate

FORMAT = "judgeloop-comparison/1"
METHOD = (
    "A difference is the first's value minus the second's. Where both judged the same pairs (same names, same texts) it is the mean over those pairs, with errors clustered by item; where two loops began from the same texts under the same seed, it is one number a replicate, with a t interval; else the two are taken as independent samples (Welch).",
    "Adjusted p-values: Holm over the confirmatory terms (first slot, length effect, padding, self-preference; drift of length, style and vocabulary beyond control), Benjamini-Hochberg over the others, over all that is compared here together.",
    "Harm is the upper limit of |bias| in multiples of its equivalence margin (5 points; 0.1 generation-0 SD), of the worst measure that all contenders have. The length effect is multiplied by the upper limit of its transmission into the training signal, where that is known and above 1. Unscored replies widen the first slot's limits.",
    "One contender stands before another where their intervals do not overlap, or where the paired difference on the worst measure is found and no other measure reaches as far. Least harm is not best judgment: look at agreement with gold.",
)
_VARIANTS = {"no_gold": "quality not held equal", "given_gold": "one gold taken as exact"}
_LEVELS = (
    *TERMS,
    "conflict_rate",
    "gold_agreement",
    "longer_preferred_raw",
    "unscored_share",
    "did_mattr",
    "did_distinct_2",
    "did_correct",
)
_FROM_EVEN = ("first_slot_excess", "padding_probe", "gold_tied_longer_excess")
_MOST_ROWS = 14
_MOST_NAMES = 5
_MOST_DRAWN = 24
_FEWEST_OF_TREND = 3
"""Fewer folders of one judge than this are two points and no trend."""


def judged(difference: Difference) -> Standing:
    """The standing of a difference, as the report sorts and names findings."""
    return verdict_of(difference.row, margin_of(difference.row))


def recommendation(done: Comparison) -> list[str]:
    """Sentences: which contender is recommended or why none is, the harm of the others, the cost, and what the first does
    worse."""
    ranking = done.ranking
    if not ranking.places:
        return [f"{wording.sentence_case(ranking.why)}.", *_left_out(done)]
    first = ranking.places[0]
    by_name = {contender.name: contender for contender in done.contenders}
    tied = [place.name for place in ranking.places[1:] if not ranking.apart(first.name, place.name)]
    harm = "worst-case harm" if ranking.content_known else "harm"
    if ranking.recommended:
        lines = [f"Recommended: {_name(first.name)}, whose worst-case harm is {_harm(first.harms[0])}."]
    else:
        why = f"{wording.sentence_case(ranking.why)}. " if ranking.why else ""
        if not ranking.content_known:
            only = (
                "the only measure that all contenders have is" if len(first.harms) == 1 else "all contenders have only"
            )
            why += (
                f"Nothing is recommended: {only} “{_terms(first)}”. A preference for length is not measured for all of them, so "
                "this is not their worst case. "
            )
        beside = f"; the data do not separate it from {_several(tied)}" if tied else ""
        lines = [f"{why}Least {harm}: {_name(first.name)}, {_harm(first.harms[0])}{beside}."]
    if len(ranking.places) > 1:
        others = "; ".join(f"{_name(place.name)} {_harm(place.harms[0])}" for place in ranking.places[1:5])
        lines.append(f"{wording.sentence_case(harm)} of the others: {others}.")
    rivals = [contender for contender in done.contenders if not contender.is_control and contender.name != first.name]
    lines.append(_price(by_name[first.name], rivals))
    lines += _trained(by_name[first.name], [by_name[place.name] for place in ranking.places[1:]])
    lines += _drawbacks(done, first)
    return [*lines, *_left_out(done)]


def contenders_table(done: Comparison) -> Table:
    """The contenders: place, worst-case harm, agreement with gold, and cost."""
    places = {place.name: place for place in done.ranking.places}
    cheapest = _cheapest([contender.cost for contender in done.contenders])
    rows = []
    for contender in sorted(
        done.contenders, key=lambda contender: (contender.name not in places, _order(done, contender.name))
    ):
        place, cost = places.get(contender.name), contender.cost
        unit_cost = cost.a_pair()
        ratio = "–"
        if unit_cost and cheapest and unit_cost[0] == cheapest[0]:
            ratio = f"{unit_cost[1] / cheapest[1]:.2f}"
        rows.append((
            wording.label(contender.name, 36), _place(place, done), wording.label(contender.judge, 30) or "–",
            _harm(place.harms[0]) if place else "–", wording.cell(contender.primary("gold_agreement")) or "–", _count(cost.calls),
            _count(cost.tokens), "–" if cost.usd is None else f"{cost.usd:,.4g}", ratio,
        ))  # fmt: skip
    note = "Cost is of the judging; cost a pair is relative to the cheapest. Agreement with gold in %."
    harm = "Worst-case harm" if done.ranking.content_known else "Harm (measured for all)"
    return Table(
        "Contenders", note,
        ("Contender", "Place", "Judge", harm, "Agrees with gold", "Calls", "Tokens", "USD", "Cost a pair"), tuple(rows),
    )  # fmt: skip


def differences_table(done: Comparison) -> Table:
    """All differences, those that are found first."""
    rows = []
    for difference in in_order(done):
        row = difference.row
        rows.append((
            wording.term_name(row.term) + (f" ({_VARIANTS.get(row.variant, row.variant)})" if row.variant else "")
            + (f", beyond {row.contrast}" if row.contrast else ""),
            wording.label(difference.first, 28), wording.label(difference.second, 28),
            _value(difference, difference.first_estimate), _value(difference, difference.second_estimate),
            wording.cell(_as_difference(row)), wording.unit_name(_as_difference(row)), difference.pairing,
            "Unchanged" if row.verdict == "unchanged" else VERDICT_NAMES[judged(difference)],
        ))  # fmt: skip
    return Table(
        "Differences", "The first's value minus the second's, with its 95 % interval. Of picks, values are in % (even: 50).",
        ("Measure", "First", "Second", "Value 1", "Value 2", "Difference", "Unit", "Paired by", "Verdict"), tuple(rows),
    )  # fmt: skip


def in_order(done: Comparison) -> list[Difference]:
    """By standing, found first and undefined last; within it those of the leading contender first, then by family."""
    ranks: dict[Standing, int] = {
        "found": 0,
        "unconfirmed": 1,
        "equivalent": 2,
        "undetected": 3,
        "underpowered": 3,
        "undefined": 5,
    }
    families = {"confirmatory": 0, "exploratory": 1, "none": 2}
    leader = done.ranking.places[0].name if done.ranking.places else ""

    def key(difference: Difference) -> tuple[int, bool, bool, int]:
        row = difference.row
        nothing_unscored = (
            row.term == "unscored_share" and not difference.first_estimate and not difference.second_estimate
        )
        rank = 4 if nothing_unscored else ranks.get(judged(difference), 4)
        return rank, row.variant != "", leader not in (difference.first, difference.second), families[row.family]

    return sorted(done.differences, key=key)


def pairing_lines(done: Comparison) -> list[str]:
    """How each two contenders were paired."""
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
    parts.append(grid(contenders_table(done).without("Judge", "Calls").filled(), _MOST_ROWS, "compare.md"))
    if lines := trend_lines(done):
        parts.append(Padding(Group(Text("Over time", style="bold"), *map(Text, lines)), (1, 0, 0, 0)))
    # The screen keeps what can be read at a glance; compare.md holds every row.
    defined = sum(difference.row.status != "undefined" for difference in done.differences)
    parts.append(
        grid(differences_table(done).without("Unit", "Paired by").filled(), min(_MOST_ROWS, defined), "compare.md")
    )
    parts.append(Padding(Group(*map(Text, recommendation(done))), (1, 0, 0, 0)))
    return Group(*parts)


def markdown(done: Comparison) -> str:
    """compare.md; ends with a line end."""
    parts = [
        f"# {escape(comparison_title(done))}",
        "## Recommendation\n\n" + "\n".join(f"- {escape(line)}" for line in recommendation(done)),
    ]
    if lines := trend_lines(done):
        parts.append("## Over time\n\n" + "\n".join(f"- {escape(line)}" for line in lines))
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
            {"name": contender.name, "folder": contender.source, "judge": contender.judge, "arm": contender.arm,
             "control": contender.is_control, "cost": asdict(contender.cost)}
            for contender in done.contenders
        ],
        "pairings": [{"first": first, "second": second, "how": how} for (first, second), how in done.pairings.items()],
        "ranking": {
            "clear": ranking.clear, "why": ranking.why, "left_out": list(ranking.left_out),
            "separated": [{"better": better, "worse": worse} for better, worse in sorted(ranking.separated)],
            "places": [{"name": place.name, "place": place.place, "harms": [asdict(harm) | {"margins": harm.share} for harm in place.harms]} for place in ranking.places],
        },
        "recommendation": recommendation(done),
        "differences": [
            {"first": difference.first, "second": difference.second, "pairing": difference.pairing,
             "first_estimate": difference.first_estimate, "second_estimate": difference.second_estimate,
             "verdict": judged(difference), "estimate": record(difference.row)}
            for difference in done.differences
        ],
    }  # fmt: skip
    return wording.visible(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def comparison_title(done: Comparison) -> str:
    """ "a, b and 2 more"."""
    names = [_name(contender.name) for contender in done.contenders]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Comparison of {', '.join(names[:3])}{more}"


def _name(name: str) -> str:
    return wording.label(name, 40)


def _several(names: list[str]) -> str:
    listed = ", ".join(map(_name, names[:_MOST_NAMES]))
    return f"{listed} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else listed


def _as_difference(row: Estimate) -> Estimate:
    """The row of a difference under a term of its own, so that it is not shown as a level (93.8 % picked) but in points."""
    return replace(row, term=f"{JUDGE_DIFFERENCE}{row.term}")


def _harm(harm: Harm) -> str:
    """ "up to 4.1 points (first slot picked, from 50 %), 0.8 × margin"."""
    rate = harm.unit.startswith("probability")
    size = f"{100 * harm.worst:.1f} points" if rate else f"{harm.worst:.2f} {_unit(harm.unit)}"
    even = ", from 50 %" if harm.unit == "probability" and harm.term in _FROM_EVEN else ""
    transmission = f", × transmission {harm.amplified:.2f}" if harm.amplified is not None and harm.amplified > 1 else ""
    name = wording.sentence_start(wording.term_name(harm.term))
    return f"up to {size} ({name}{even}{transmission}), {harm.share:.1f} × margin"


def _unit(unit: str) -> str:
    return "SD" if unit == "generation-0 sd" else unit


def _place(place: RankedContender | None, done: Comparison) -> str:
    if place is None:
        return "–"
    others = [other.name for other in done.ranking.places if other.name != place.name]
    tied = not all(done.ranking.apart(place.name, other) for other in others)
    return f"{place.place}{'=' if tied else ''}"


def _order(done: Comparison, name: str) -> int:
    names = [place.name for place in done.ranking.places] or [contender.name for contender in done.contenders]
    return names.index(name) if name in names else len(names)


def _value(difference: Difference, value: float | None) -> str:
    return wording.figure(difference.row, value)


def _count(number: int | None) -> str:
    return "–" if number is None else f"{number:,}"


def _cheapest(costs: list[Cost]) -> tuple[str, float] | None:
    """(unit, amount) of the least cost a pair; None where a cost is not known or units differ."""
    amounts = [amount for cost in costs if (amount := cost.a_pair()) is not None]
    if not amounts or len(amounts) < len(costs) or len({unit for unit, _ in amounts}) > 1:
        return None
    return min(amounts, key=lambda amount: amount[1])


def _price(first: Contender, others: list[Contender]) -> str:
    cost = first.cost
    parts = [
        f"{cost.calls:,} judge calls" if cost.calls else "", f"{cost.tokens:,} tokens" if cost.tokens else "",
        f"{cost.usd:,.4g} USD" if cost.usd else "",
    ]  # fmt: skip
    spent = ", ".join(part for part in parts if part)
    if not spent:
        return f"What {_name(first.name)} costs is not recorded in its folder."
    line = f"{_name(first.name)} cost {spent} for {wording.count(cost.pairs, cost.per)}"
    # Of all that are compared, not of those alone that are tied with the first.
    cheapest, own = _cheapest([contender.cost for contender in (first, *others)]), cost.a_pair()
    if others and cheapest and own:
        who = next(contender for contender in (first, *others) if contender.cost.a_pair() == cheapest)
        if own[1] <= cheapest[1]:
            line += f"; no other is cheaper a {cost.per}"
        else:
            line += f": {own[1] / cheapest[1]:.2f} times as much a {cost.per} as the cheapest of the others, {_name(who.name)}"
    return line + "."


def _trained(first: Contender, others: list[Contender]) -> list[str]:
    """The tokens that the first was trained on, beside the fewest of the others; empty where loops do not state them."""
    own = _tokens_trained(first)
    tokens = {contender.name: n for contender in others if (n := _tokens_trained(contender))}
    if not own or not tokens:
        return []
    fewest = min(tokens, key=lambda name: tokens[name])
    line = f"{_name(first.name)} was trained on {own:,.0f} tokens over all generations"
    if own <= tokens[fewest]:
        return [f"{line}, no other on fewer."]
    times = own / tokens[fewest]
    return [f"{line}, {times:.1f} times those of {_name(fewest)}: part of a difference in drift may be due to that."]


def _tokens_trained(contender: Contender) -> float | None:
    rows = [
        row
        for row in contender.rows
        if row.term == "training_tokens" and row.variant == "" and row.estimate is not None
    ]
    last = max(rows, key=lambda row: row.generation or 0, default=None)
    return None if last is None else last.estimate


def _terms(place: RankedContender) -> str:
    return ", ".join(wording.sentence_start(wording.term_name(harm.term)) for harm in place.harms)


def _drawbacks(done: Comparison, first: RankedContender) -> list[str]:
    """Where the least harmful is found to agree less with gold, or to leave more unscored."""
    lines = []
    for difference in done.differences:
        row = difference.row
        if (
            first.name not in (difference.first, difference.second)
            or judged(difference) != "found"
            or row.estimate is None
        ):
            continue
        is_first = difference.first == first.name
        other = difference.second if is_first else difference.first
        gap = row.estimate if is_first else -row.estimate
        if row.term == "gold_agreement" and gap < 0:
            lines.append(
                f"But {_name(first.name)} agrees with gold less than {_name(other)}: by {100 * -gap:.1f} points."
            )
        if row.term == "unscored_share" and gap > 0:
            lines.append(
                f"But {_name(first.name)} leaves more unscored than {_name(other)}: by {100 * gap:.1f} points."
            )
    return lines


def _left_out(done: Comparison) -> list[str]:
    return [f"Not ranked by {wording.label(line, 200)}." for line in done.ranking.left_out]


# The page.


def render(done: Comparison) -> str:
    """compare.html: one page that needs no other file."""
    figures = [figure for figure in (_trend(done), _levels(done), *_differences(done)) if figure is not None]
    tone, word = ("calm", "Ranked") if done.ranking.recommended else ("open", "No ranking")
    headline, *reasons = recommendation(done)
    sections = [
        Section("recommendation", "Recommendation"),
        *([Section("side-by-side", "Side by side")] if figures else []),
        Section("differences", "All differences"),
        Section("methods", "How this was made"),
    ]
    facts = [
        ("Contenders", f"{len(done.contenders)}"),
        ("Folders", ", ".join(dict.fromkeys(wording.label(contender.source) for contender in done.contenders))),
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
        pairings=Table(
            "How the contenders were paired", "", ("Comparison",), tuple((line,) for line in pairing_lines(done))
        ),
    )


def series_of_one_judge(done: Comparison) -> list[Contender]:
    """The contenders in the order in which they were given, where three or more folders hold one judge at different times; else empty."""
    contenders = [contender for contender in done.contenders if not contender.is_control and not contender.arm]
    folders = {contender.source for contender in contenders}
    judges = {contender.judge for contender in contenders}
    return contenders if len(contenders) == len(folders) >= _FEWEST_OF_TREND and len(judges) == 1 else []


def trend_lines(done: Comparison) -> list[str]:
    """The path of every measure over the folders in words: "First slot picked: 53.4 → 56.8 → 63.5 % (even: 50 %)"."""
    lines = []
    for term, rows in _paths(series_of_one_judge(done)).items():
        values = " → ".join("–" if row is None else wording.figure(row, row.estimate) for row in rows)
        unit = wording.unit_name(next(row for row in rows if row is not None))
        lines.append(f"{wording.term_name(term)}: {values} {unit}".rstrip())
    return lines


def _paths(contenders: Sequence[Contender]) -> dict[str, list[Estimate | None]]:
    """Term → its estimate in each folder, of the terms that two folders or more have."""
    paths = {term: [contender.primary(term) for contender in contenders] for term in _LEVELS}
    known = {term: rows for term, rows in paths.items() if sum(row is not None for row in rows) > 1}
    # That no reply lacks a verdict at any time needs no panel.
    return {t: rows for t, rows in known.items() if t != "unscored_share" or any(row and row.estimate for row in rows)}


def _trend(done: Comparison) -> Figure | None:
    """One judge over its folders, in the order in which they were given: a panel a measure."""
    contenders = series_of_one_judge(done)
    paths = _paths(contenders)
    if not paths:
        return None
    names = [wording.label(contender.name, 14) for contender in contenders]
    panels, used = [], []
    for term, rows in paths.items():
        known = [(place, row) for place, row in enumerate(rows) if row is not None]
        used += [row for _, row in known]
        curve = points([row for _, row in known], Style("@arm0", "circle", "solid"), wording.term_name(term))
        curve["x"] = [place for place, _ in known]
        drawn = [row for _, row in known]
        axes = layout(
            height=230, x={"tickvals": list(range(len(names))), "ticktext": [safe(name) for name in names], "range": [-0.3, len(names) - 0.7], "zeroline": False},
            y=titled(axis_title(drawn), range=value_range(drawn, from_zero=all(map(wording.is_pick_share, drawn)))),
        )  # fmt: skip
        panels.append(Panel(wording.term_name(term), {"data": [curve], "layout": axes}))
    return Figure(
        name="trend",
        title=f"{wording.label(contenders[0].judge, 40) or 'The judge'} over time",
        caption="The folders in the order in which they were given; lines are 95 % intervals of each alone. Whether two of them differ is in the figure of "
        "differences, which pairs what they share.",
        alternative="; ".join(trend_lines(done)) + ".",
        panels=tuple(panels),
        rows=tuple(used),
    )


def _levels(done: Comparison) -> Figure | None:
    """Every contender's own estimates of the measures that are compared: rates alone, which share an axis."""
    looks = styles([contender.name for contender in done.contenders], {})
    estimates: list[tuple[Contender, Estimate]] = []
    for term in _LEVELS:
        of_term = [(contender, row) for contender in done.contenders if (row := contender.primary(term)) is not None]
        if len(of_term) > 1:
            estimates += [(contender, row) for contender, row in of_term if wording.is_rate(row)]
    if not estimates:
        return None
    panels = []
    # Picks from even and shares of a whole have no axis in common.
    for axis in dict.fromkeys(axis_title([row]) for _, row in estimates):
        drawn = [(contender, row) for contender, row in estimates if axis_title([row]) == axis]
        terms = list(dict.fromkeys(row.term for _, row in drawn))
        marks = [(row, contender.name, terms.index(row.term), looks[contender.name]) for contender, row in drawn]
        labels = [wording.term_name(term) for term in terms]
        panels.append(Panel("", _forest(marks, labels, len(done.contenders), axis, within)))
    return Figure(
        name="levels",
        title="Every contender's own estimates",
        caption="Dots are estimates on all of a folder's pairs, lines their 95 % intervals. Overlapping intervals do not mean "
        "that there is no difference: where pairs are shared, the figure below is the more precise one.",
        alternative="; ".join(f"{wording.label(contender.name)}, {wording.term_name(row.term)}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}" for contender, row in estimates),
        panels=tuple(panels),
        columns=1,
        rows=tuple(row for _, row in estimates),
        legend=tuple((wording.label(contender.name), looks[contender.name]) for contender in done.contenders),
    )  # fmt: skip


def _differences(done: Comparison) -> list[Figure]:
    """Differences with intervals: a figure for rates, one for what is measured in other units."""
    drawable = [
        difference
        for difference in in_order(done)
        if difference.row.conf_low is not None and difference.row.variant == ""
    ]
    rates = [difference for difference in drawable if wording.is_rate(difference.row)]
    drifts = [
        difference
        for difference in drawable
        if not wording.is_rate(difference.row) and difference.row.scope == "policy"
    ]
    figures = []
    if rates:
        figures.append(_difference_figure("rates", "Differences of the judges", rates, len(done.contenders) > 2))
    if drifts:
        figures.append(_difference_figure("drift", "Differences of the loops", drifts, len(done.contenders) > 2))
    return figures


def _difference_figure(name: str, title: str, differences: Sequence[Difference], several: bool) -> Figure:
    """``several``: labels name the two contenders, since there are more than two."""
    drawn = differences[:_MOST_DRAWN]
    left_out = (
        f" The first {_MOST_DRAWN} of {len(differences)}; the table holds all."
        if len(differences) > _MOST_DRAWN
        else ""
    )
    rows = [_as_difference(difference.row) for difference in drawn]
    look = Style("@arm0", "circle", "solid")
    rates = name == "rates"
    panels = []
    for axis in dict.fromkeys(axis_title([row], "its own unit") for row in rows):
        own = [
            (row, difference)
            for row, difference in zip(rows, drawn, strict=True)
            if axis_title([row], "its own unit") == axis
        ]
        marks = [(row, difference.first, n, look) for n, (row, difference) in enumerate(own)]
        labels = [_label(difference, several) for _, difference in own]
        panels.append(Panel("", _forest(marks, labels, 1, axis, within, RATE_MARGIN if rates else None)))
    band = " The band is ±5 points, the margin of equivalence." if rates else ""
    return Figure(
        name=f"differences-{name}",
        title=title,
        caption=f"The first's value minus the second's, with its 95 % interval.{band}{left_out}",
        alternative="; ".join(
            f"{wording.label(difference.first)} minus {wording.label(difference.second)}, "
            f"{wording.term_name(difference.row.term)}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
            for row, difference in zip(rows, drawn, strict=True)
        ),
        panels=tuple(panels),
        columns=1,
        rows=tuple(difference.row for difference in drawn),
    )


def _label(difference: Difference, several: bool) -> str:
    name = safe(wording.term_name(difference.row.term), 60)
    return f"{name}{BREAK}{safe(difference.first, 24)} − {safe(difference.second, 24)}" if several else name


def _forest(
    marks: Sequence[tuple[Estimate, str, int, Style]],
    labels: Sequence[str],
    each: int,
    title: str,
    end: Callable[[Estimate, float | None], float | None],
    band: float | None = None,
) -> Spec:
    """Estimates with their intervals, in rows; contenders of one row stand under each other.

    ``marks``: (estimate, contender, row from the top, look). ``each``: contenders a row. ``end``: an interval's limit in axis
    units. ``band``: the equivalence margin, as a probability.
    """
    step = min(0.16, 0.7 / max(1, each))
    drawn: dict[int, int] = {}
    lines: list[Spec] = []
    dots: list[Spec] = []
    spread = [0.0]
    for row, name, place, look in marks:
        nth = drawn.setdefault(place, 0)
        drawn[place] += 1
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
