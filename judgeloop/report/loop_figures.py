"""Figures about the loop: the chain from the judge's slopes to the outputs' drift, and data strategies compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from judgeloop.report import wording
from judgeloop.report.figure import (
    Figure,
    Panel,
    Spec,
    Style,
    arm_legend,
    axis_title,
    generations_panel,
    hover,
    layout,
    points,
    safe,
    scaled,
    styles,
    titled,
)
from judgeloop.report.reading import Reading, last_generation, select
from judgeloop.stats.estimate import Estimate
from judgeloop.text.features import FEATURES

_MOST_FEATURES = 6
_PLOT_WIDTH = 0.5
"""The plot's share of the signal's panel; the transmissions stand in the rest."""
_HEADS = ("1 · What the judge favours", "2 · What the signal learned", "3 · What the outputs did")
_UNITS = ("log-odds a unit", "log-odds a unit", "units")
_HALF_HEIGHT = 0.35
"""Half of the height that a feature's arms share, in rows."""


def figures(reading: Reading) -> list[Figure]:
    """The chain and the strategies, where there are estimates for them."""
    looks = styles(reading.arms, reading.controls)
    parts = [chain(reading, looks), strategies(reading, looks)]
    return [figure for figure in parts if figure is not None]


@dataclass(frozen=True, slots=True)
class Link:
    """One arm's chain for a feature: the judge's slope β_J, the signal's β_R, the outputs' drift Δx̄, and the transmission β_R/β_J;
    None where there is no estimate."""

    arm: str
    feature: str
    judge: Estimate | None
    signal: Estimate | None
    drift: Estimate | None
    transmission: Estimate | None

    @property
    def steps(self) -> tuple[Estimate | None, Estimate | None, Estimate | None]:
        """Judge, signal and drift, in the order of the loop."""
        return self.judge, self.signal, self.drift


def links(reading: Reading) -> list[Link]:
    """The chain of every arm with a judge, by feature: β_J on generation 0's anchor panel, β_R at generation 0, and the last generation's drift
    beyond the first control (drift alone where there is none)."""
    judges = {row.arm: row.judge for row in reading.estimates if row.scope == "signal" and row.arm}
    rows = [row for row in reading.estimates if row.category == "" and row.status != "undefined"]
    chains = []
    for arm in reading.arms:
        if arm in reading.controls:
            continue
        for feature in FEATURES:
            slopes = select(
                rows, scope="judge", judge=judges.get(arm, ""), panel="anchor", generation=0, term=f"{feature}_log_odds"
            )
            # The slope without gold first, for the signal is fitted without gold too.
            slopes.sort(key=lambda row: ("no_gold", "", "given_gold").index(row.variant) if row.variant in ("no_gold", "", "given_gold") else 9)  # fmt: skip
            learned = select(rows, scope="signal", arm=arm, term=f"signal_slope_{feature}", generation=0)
            ratio = select(rows, scope="signal", arm=arm, term=f"transmission_{feature}", variant="")
            moved = select(rows, arm=arm, term=f"did_{feature}") or select(
                rows, arm=arm, term=f"drift_{feature}", variant=""
            )
            moved = select(moved, generation=last_generation(moved))
            if moved and (slopes or learned):
                chains.append(Link(arm, feature, _first(slopes), _first(learned), moved[0], _first(ratio)))
    return chains


def _first(rows: Sequence[Estimate]) -> Estimate | None:
    return rows[0] if rows else None


def chain(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """β_J → β_R → Δx̄ as one picture: a panel a step of the loop, side by side or stacked, in each a row a feature."""
    chains = links(reading)
    features = list(dict.fromkeys(link.feature for link in chains))[:_MOST_FEATURES]
    chains = [link for link in chains if link.feature in features]
    arms = list(dict.fromkeys(link.arm for link in chains))
    if not chains:
        return None
    rows = [row for link in chains for row in (*link.steps, link.transmission) if row is not None]
    return Figure(
        name="amplification-chain",
        title="From the judge's preference to the outputs",
        caption="Read from the judge to the outputs: its slope on fixed pairs, the slope that the training signal learned from its picks, and how far the outputs "
        "then moved by the last generation, beyond the control. A unit is a doubling for length and a generation-0 standard deviation for the rest. "
        "The number beside the signal is the transmission with its interval: 1 passes the slope on unchanged, 2 doubles it. Quality is not held equal in these "
        "slopes. An interval that is not seen is narrower than its mark.",
        alternative="; ".join(_in_words(link) for link in chains) + ".",
        panels=tuple(Panel(head, _step(column, chains, features, arms, looks)) for column, head in enumerate(_HEADS)),
        rows=tuple(dict.fromkeys(rows)),
        legend=arm_legend(arms, looks),
    )


def _step(
    column: int, chains: Sequence[Link], features: Sequence[str], arms: Sequence[str], looks: Mapping[str, Style]
) -> Spec:
    """One step of the loop: every arm's slope or drift with its interval, and in the signal's panel the transmissions."""
    data: list[Spec] = []
    notes: list[Spec] = []
    drawn = [0.0]
    with_transmission = column == 1 and any(
        link.transmission is not None and link.transmission.estimate is not None for link in chains
    )
    domain = [0.0, _PLOT_WIDTH if with_transmission else 1.0]
    for link in chains:
        place, row = _height(link, features, arms), link.steps[column]
        if row is None or row.estimate is None:
            missing = "not known"
            if column == 1:
                fitted = any(other.signal is not None for other in chains if other.arm == link.arm)
                missing = "not in the signal" if fitted else "no signal is fitted"
            notes.append(_note(missing, domain[1] / 2, place))
            continue
        data.append(_dot(row, link, place, looks[link.arm]))
        drawn += [
            value for end in (row.estimate, row.conf_low, row.conf_high) if (value := scaled(row, end)) is not None
        ]
        if with_transmission and link.transmission is not None and link.transmission.estimate is not None:
            notes.append(_note(_transmission_words(link.transmission), 1.0, place, "right"))
    if with_transmission:
        notes.append({
            "text": "passed on", "x": 1.0, "xref": "paper", "xanchor": "right", "y": 1.0, "yref": "paper", "yanchor": "bottom", "showarrow": False,
            "font": {"color": "@muted", "size": 12},
        })  # fmt: skip
    room = 0.07 * (max(drawn) - min(drawn)) or 0.5
    return {
        "data": data,
        "layout": layout(
            height=84 + max(48, 26 * len(arms)) * len(features),
            x=titled(_UNITS[column], domain=domain, zeroline=True, nticks=4, range=[min(drawn) - room, max(drawn) + room], visible=bool(data)),
            y={
                "tickvals": list(range(len(features))), "ticktext": [safe(wording.sentence_case(wording.feature_name(f)), 16) for f in features],
                "range": [len(features) - 0.4, -0.6], "zeroline": False, "tickfont": {"color": "@ink", "size": 13},
            },
            annotations=notes,
            margin={"l": 8, "r": 8, "t": 24, "b": 8},
        ),
    }  # fmt: skip


def _transmission_words(row: Estimate) -> str:
    """The transmission, short: ×0.96 (0.95–0.97)."""
    factor = f"×{wording.number(row.estimate)}"
    if row.conf_low is None or row.conf_high is None:
        return factor
    joint = "–" if row.conf_low >= 0 else " to "
    return f"{factor} ({wording.number(row.conf_low)}{joint}{wording.number(row.conf_high)})"


def _height(link: Link, features: Sequence[str], arms: Sequence[str]) -> float:
    step = 2 * _HALF_HEIGHT / max(1, len(arms))
    return features.index(link.feature) + (arms.index(link.arm) - (len(arms) - 1) / 2) * step


def _dot(row: Estimate, link: Link, place: float, look: Style) -> Spec:
    centre = scaled(row, row.estimate) or 0.0
    low, high = (scaled(row, limit) for limit in (row.conf_low, row.conf_high))
    return {
        "type": "scatter", "mode": "markers", "x": [centre], "y": [place],
        "error_x": {
            "type": "data", "symmetric": False, "array": [0.0 if high is None else high - centre], "arrayminus": [0.0 if low is None else centre - low],
            "color": look.colour, "thickness": 2, "width": 5,
        },
        "marker": {"symbol": look.marker, "size": 8, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        "text": [hover(row, f"{link.arm}: {wording.term_name(row.term)}")], "hoverinfo": "text", "cliponaxis": False,
    }  # fmt: skip


def _note(words: str, x: float, place: float, side: str = "center") -> Spec:
    return {
        "text": words, "x": x, "xref": "paper", "xanchor": side, "y": place, "yref": "y", "showarrow": False, "font": {"color": "@muted", "size": 12}
    }  # fmt: skip


def _in_words(link: Link) -> str:
    parts = [
        f"{name} {wording.figure(row, row.estimate)} ({wording.interval(row)})"
        if row is not None
        else f"{name} not known"
        for name, row in zip(("judge", "signal", "drift"), link.steps, strict=True)
    ]
    transmission = (
        f", transmission {wording.figure(link.transmission, link.transmission.estimate)}" if link.transmission else ""
    )
    return f"{wording.label(link.arm)}, {wording.feature_name(link.feature)}: {', '.join(parts)}{transmission}"


def strategies(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """The drift of arms that differ in their data strategy alone, by generation and by tokens trained on."""
    tokens = [row for row in select(reading.estimates, term="training_tokens") if row.estimate is not None]
    arms = list(dict.fromkeys(row.arm for row in tokens))
    if len(arms) < 2:
        return _one_strategy(reading)
    spent = {(row.arm, row.generation): row.estimate or 0.0 for row in tokens}
    most = max(spent.values())
    size, unit = (1e6, "million tokens trained on") if most >= 1e6 else (1e3, "thousand tokens trained on")
    panels: list[Panel] = []
    used: list[Estimate] = list(tokens)
    for feature in ("length", "style_score"):
        rows = [
            row for row in select(reading.estimates, term=f"drift_{feature}", variant="", category="", contrast="")
            if row.arm in arms and row.estimate is not None
        ]  # fmt: skip
        if not rows:
            continue
        gaps = select(reading.estimates, term=f"strategy_gap_{feature}")
        used += [*rows, *gaps, *select(reading.estimates, term=f"drift_{feature}", variant="equal_tokens")]
        by_generation, by_tokens = [], []
        for arm in arms:
            drifts = sorted(select(rows, arm=arm), key=lambda row: row.generation or 0)
            line = points(drifts, looks[arm], wording.label(arm))
            by_generation.append(_from_start(line, [0, *line["x"]]))
            with_tokens = [row for row in drifts if (arm, row.generation) in spent]
            line = points(with_tokens, looks[arm], wording.label(arm))
            by_tokens.append(_from_start(line, [0.0, *(spent[arm, row.generation] / size for row in with_tokens)]))
        budget = min(max(spent[key] for key in spent if key[0] == arm) for arm in arms) / size
        name, axis = wording.sentence_case(wording.feature_name(feature)), titled(axis_title(rows))
        generations = [0, *(row.generation or 0 for row in rows)]
        panels.append(generations_panel(
            f"{name}, at equal generations", by_generation, generations, value_axis=axis, height=260, curves=len(arms)
        ))  # fmt: skip
        line = {
            "type": "line", "x0": budget, "x1": budget, "xref": "x", "y0": 0, "y1": 1, "yref": "paper",
            "line": {"color": "@zero", "width": 1, "dash": "dot"},
        }  # fmt: skip
        panels.append(Panel(f"{name}, at equal tokens", {"data": by_tokens, "layout": layout(height=260, x=titled(unit, rangemode="tozero"), y=axis, shapes=[line])}))  # fmt: skip
    if not panels:
        return None
    return Figure(
        name="strategies",
        title="Data strategies compared",
        caption="Arms that differ in their data strategy alone. An arm that accumulates trains on more text in each step, so the right panels put the same drift against the "
        "tokens trained on; the dotted line is where the arm that trained on fewest ended, and the gaps at that line are in the table.",
        alternative=_gaps_in_words(select(used, term=("strategy_gap_length", "strategy_gap_style_score"))),
        panels=tuple(panels),
        rows=tuple(used),
        columns=2,
        legend=arm_legend(arms, looks),
    )


def _one_strategy(reading: Reading) -> Figure | None:
    """A figure without panels, whose caption says which arms would make it; None where nothing drifts (an audit)."""
    arms = [arm for arm in reading.arms if arm not in reading.controls]
    if not arms or reading.environment.get("mode") == "texts":
        return None
    if not any(row.term.startswith("drift_") for row in reading.estimates):
        return None
    first = wording.label(arms[0], 30)
    return Figure(
        name="strategies",
        title="Data strategies compared",
        caption="Not shown: no two arms of this run differ in their data strategy alone. Arms that differ from "
        f"{first} in nothing but it (in experiment.yaml under arms: “accumulate: {{strategy: {{kind: accumulate}}}}”, or a real_fraction) "
        "are compared here at equal generations and at equal tokens trained on.",
        alternative="",
        panels=(),
        rows=(),
    )


def _from_start(line: Spec, x: Sequence[float]) -> Spec:
    """The curve with its start at 0: before any feedback there is no drift."""
    error = line["error_y"]
    return {
        **line, "x": list(x), "y": [0.0, *line["y"]], "text": ["generation 0: the start", *line["text"]],
        "error_y": {**error, "array": [0.0, *error["array"]], "arrayminus": [0.0, *error["arrayminus"]]},
    }  # fmt: skip


def _gaps_in_words(gaps: Sequence[Estimate]) -> str:
    estimated = [row for row in gaps if row.estimate is not None]
    if not estimated:
        return "No gap between strategies could be computed; the table holds every value."
    return "; ".join(
        f"{wording.label(row.arm)} minus {wording.label(row.contrast)}, {wording.sentence_start(wording.term_name(row.term))}, "
        f"{'at equal tokens' if row.variant else 'at equal generations'}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in estimated
    ) + "."  # fmt: skip
