"""Figures about the judge: bias with intervals, drift on fixed pairs, position by category."""

from __future__ import annotations

from judgeloop.report import wording
from judgeloop.report.figure import (
    BREAK,
    Figure,
    Panel,
    asides,
    axis_title,
    generations_axis,
    layout,
    safe,
    titled,
    value_range,
)
from judgeloop.report.findings import judge_rows
from judgeloop.report.forest import defined, equivalence_band, forest, points, told
from judgeloop.report.palette import Style
from judgeloop.report.reading import Reading, select
from judgeloop.report.static_figures import position_by_slot, probes
from judgeloop.report.verdicts import harm, is_probe
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import RATE_MARGIN

_RATES = (
    "first_slot_excess", "identical_pair_excess", "excess_conflict", "padding_probe", "gold_tied_longer_excess", "length_ame",
    "excess_longer_vs_gold", "self_preference_gold",
)  # fmt: skip
_SLOPES = ("position_log_odds", "length_log_odds", "self_preference_log_odds", "gold_log_odds")
MARKERS = ("circle", "square", "diamond", "triangle-up", "star", "hexagon")


def figures(reading: Reading) -> list[Figure]:
    """The judge's figures that the run bears, in reading order."""
    made = [_rates(reading), probes(reading), _slopes(reading), position_by_slot(reading), _over_generations(reading)]
    return [figure for figure in made if figure is not None]


def _rates(reading: Reading) -> Figure | None:
    further = sorted({row.term for row in reading.estimates if is_probe(row.term)} - set(_RATES))
    rows = defined([row for term in _RATES for row in judge_rows(reading.estimates, term)])
    rows += sorted(defined([row for term in further for row in judge_rows(reading.estimates, term)]), key=harm)
    rows = [row for row in rows if wording.is_rate(row)]
    if not rows:
        return None
    margin = 100 * RATE_MARGIN
    return Figure(
        name="judge-bias",
        title="Judge bias, in points of choice",
        caption=f"Dots are estimates, lines their intervals. 0 is even-handed; the shaded band is ±{margin:.0f} points, the default margin "
        "of practical equivalence. Filled dots: the interval excludes 0 and the adjusted test agrees.",
        alternative=told(rows),
        panels=(Panel("", forest(rows, "points from even", [equivalence_band()])),),
        rows=tuple(rows),
    )


def _slopes(reading: Reading) -> Figure | None:
    named = [
        row.term
        for row in reading.estimates
        if row.scope == "judge" and row.term.endswith("_log_odds") and not row.term.startswith("judge_drift_")
    ]
    rows = [row for term in dict.fromkeys([*_SLOPES, *sorted(named)]) for row in _best_founded(reading, term)]
    if not rows:
        return None
    several = len({row.judge for row in rows}) > 1
    names = [
        wording.term_name(row.term) + _HELD.get(row.variant, "") + (f"{BREAK}{safe(row.judge, 30)}" if several else "")
        for row in rows
    ]
    return Figure(
        name="judge-slopes",
        title="What moves the judge, in log-odds",
        caption="Coefficients of the judge's choice model: length per doubling, other features per generation-0 standard deviation. “Quality not held "
        "equal” marks a taste that may be one for quality. Noise shrinks all of a judge's slopes alike, so do not compare judges by them.",
        alternative=told(rows),
        panels=(Panel("", forest(rows, "log-odds", names=names)),),
        rows=tuple(rows),
    )


_HELD = {"given_gold": " (gold taken as exact)", "no_gold": " (quality not held equal)"}


def _best_founded(reading: Reading, term: str) -> list[Estimate]:
    """A row a judge: the primary estimate, or where it is undefined the best founded of its variants."""
    found: dict[str, Estimate] = {}
    for variant in ("", *_HELD):
        for row in defined(judge_rows(reading.estimates, term, variant)):
            found.setdefault(row.judge, row)
    return list(found.values())


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
            for row in defined(
                select(reading.estimates, scope="judge", panel="anchor", term=term, variant="", category="")
            )
            if row.generation is not None
        ]
        if len({row.generation for row in rows}) < 2 or (
            term == "length_log_odds" and any(r.term == "length_ame" for r in used)
        ):
            continue
        used += rows
        drawn = {judge: some for judge in looks if (some := select(rows, judge=judge))}
        data = [
            points(sorted(some, key=lambda row: row.generation or 0), looks[judge], wording.label(judge), aside)
            for (judge, some), aside in zip(drawn.items(), asides(len(drawn)), strict=True)
        ]
        panels.append(
            Panel(
                wording.term_name(term),
                {
                    "data": data,
                    "layout": layout(
                        height=260,
                        x=generations_axis([r.generation or 0 for r in rows], len(data)),
                        y=titled(axis_title(rows, "log-odds"), range=value_range(rows, from_zero=True)),
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
