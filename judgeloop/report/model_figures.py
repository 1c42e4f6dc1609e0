"""Figures about the model: drift and spread, drift beyond control, what moved it (the Price decomposition), diversity, the tail,
correctness, and the distance from generation 0."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.figure import (
    Figure,
    Panel,
    Spec,
    Style,
    arm_legend,
    asides,
    axis_title,
    cut_note,
    generations_axis,
    generations_panel,
    hover,
    layout,
    points,
    safe,
    scaled,
    styles,
    titled,
    value_range,
)
from judgeloop.report.reading import Reading, arm_series, length_outcome, sampled, select
from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.loop.replicates import measure, series

_TRACES = 40
"""The most replicates that are drawn; more would be a blur."""
_FIRST = ("length", "style_score")
_PARTS = (
    ("selection", "selected minus drafted"),
    ("mixing", "training set minus selected"),
    ("learning", "next drafts minus training set"),
)
_PALE = 0.3
"""Opacity of a part whose interval covers 0."""
_STEP = 0.16
"""Generations between the whiskers of one stack."""
_VARIETY = tuple(term for term in wording.DIVERSITY if term != "tail_mass_retained")
_DIVERSITY_CAPTION = (
    "All measures on the same number of texts cut to the same number of tokens. Higher is more varied, but for compression ratio and "
    "self-BLEU, where it is less."
)
_SPREAD_CAPTION = (
    " Beside each is the standard deviation between outputs: a drift that stops may only have run out of spread."
)


def figures(reading: Reading, drawn: Collection[Estimate] = ()) -> list[Figure]:
    """The model's figures for which there are estimates, in reading order. ``drawn``: what a picture shows already; of drift beyond
    control it is left out."""
    looks = styles(reading.arms, reading.controls)
    parts = [
        _drift(reading, looks, _FIRST, "drift", "Drift since generation 0"),
        _drift(reading, looks, _further(reading), "drift-features", "Drift of every other feature"),
        _contrasts(reading, looks, drawn),
        _forecasts(reading, looks),
        *(price(reading, feature) for feature in _FIRST),
        _diversity(reading, looks),
        _phrases(reading, looks),
        _tail(reading, looks),
        _levels(
            reading,
            looks,
            ("mean_correct", "hedging_when_wrong"),
            "correctness",
            "Correctness",
            "On items with a reference: the share of answers that match it.",
        ),
        _kl(reading, looks),
        _over_optimisation(reading, looks),
    ]
    return [figure for figure in parts if figure is not None]


def _further(reading: Reading) -> tuple[str, ...]:
    """The features with a drift beside length and style score."""
    drifts = [
        row for row in reading.estimates if row.term.startswith("drift_") and row.bias not in ("diversity", "quality")
    ]
    features = dict.fromkeys(row.term.removeprefix("drift_") for row in drifts)
    return tuple(feature for feature in features if feature not in _FIRST)


def _drift(
    reading: Reading, looks: Mapping[str, Style], features: Sequence[str], name: str, title: str
) -> Figure | None:
    panels, used, parts = [], [], []
    replicates = replicate_drifts(reading) if name == "drift" else pd.DataFrame()
    for feature in features:
        rows = arm_series(reading, f"drift_{feature}")
        if not rows:
            continue
        used += rows
        traces = replicates[replicates["feature"] == feature] if len(replicates) else replicates
        data: list[Spec] = []
        for arm, look in looks.items():
            data += _fan(sorted(select(rows, arm=arm), key=lambda row: row.generation or 0), look, arm)
        if len(traces):
            parts.append(traces)
            data = [*_faint(traces, looks), *data]
        generations = [0, *(row.generation or 0 for row in rows)]
        panels.append(generations_panel(
            wording.sentence_case(wording.feature_name(feature)), data, generations, value_axis=titled(axis_title(rows)),
            height=330 if name == "drift" else 230,
        ))  # fmt: skip
        if name == "drift" and (spreads := arm_series(reading, f"sd_{feature}")):
            panels.append(_spread(spreads, looks))
            used += spreads
    if not panels:
        return None
    last = max(row.generation or 0 for row in used)
    return Figure(
        name=name,
        title=title,
        caption=f"Mean over {sampled(reading)} with its interval"
        + ("; faint lines are single replicates (a seed with all its arms)." if parts else ".")
        + (_SPREAD_CAPTION if name == "drift" else ""),
        alternative=_in_words([row for row in used if row.generation == last and row.term == used[0].term]),
        panels=tuple(panels),
        rows=tuple(used),
        legend=_legend(looks, used),
        traces=pd.concat(parts, ignore_index=True) if parts else None,
        columns=2 if name == "drift" else 3,
    )


def _spread(rows: Sequence[Estimate], looks: Mapping[str, Style]) -> Panel:
    """The SD between an item's candidates by generation, from 0 up; without spread, selection changes nothing."""
    return _level_panel(rows, looks, value_range(rows, from_zero=True), height=330)


def _level_panel(
    rows: Sequence[Estimate], looks: Mapping[str, Style], value_limits: Sequence[float], height: int
) -> Panel:
    """One measure by generation, a curve an arm."""
    data = _with_intervals(rows, looks)
    return generations_panel(
        wording.term_name(rows[0].term), data, [row.generation or 0 for row in rows],
        value_axis=titled(axis_title(rows), range=list(value_limits)), height=height, curves=len(data),
    )  # fmt: skip


_BY_FIRST_STEP = Style("@ink", "circle", "dash")
"""The line of a forecast by the first step that was measured."""


def _forecasts(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """What generation 0 let expect, as a band, and what came, a panel an arm."""
    forecasts = [row for row in select(reading.estimates, term="forecast_drift_length") if row.estimate is not None]
    panels, used, said = [], [], []
    for arm in dict.fromkeys(row.arm for row in forecasts):
        expected, onward = select(forecasts, arm=arm, variant=""), select(forecasts, arm=arm, variant="first_step")
        came = length_outcome(reading, arm)
        if not expected or not came:
            continue
        look = looks[arm]
        band, middle = _fan(expected, Style(look.colour, "line-ew", "dot"), f"{arm}, forecast")
        outcome = points(came, replace(look, dash="solid"), f"{arm}, measured")
        # A forecast by the first step starts there.
        later = [row for row in came if row.generation == 1] + onward
        dashed = {
            **points(later, replace(_BY_FIRST_STEP, marker="line-ew"), f"{arm}, by the first step"),
            "error_y": {},
        }
        panels.append(generations_panel(
            wording.label(arm), [band, middle, *([dashed] if onward else []), _from_origin(outcome)],
            [0, *(row.generation or 0 for row in expected)], value_axis=titled(axis_title(came)), height=260,
        ))  # fmt: skip
        used += [*expected, *onward, *came]
        said.append(
            f"{wording.label(arm)}: forecast {wording.quantity(expected[-1], expected[-1].estimate)}, {wording.interval(expected[-1])}; "
            f"came {wording.quantity(came[-1], came[-1].estimate)}, {wording.interval(came[-1])}"
        )
    if not panels:
        return None
    trained = any(row.variant for row in used if row.term.startswith("forecast_"))
    caption = "The band holds the drift of length that generation 0's picks and texts let expect before anything was learned from them, the dotted line its middle; points are what came"
    caption += f", beyond {wording.label(used[-1].contrast)}." if used[-1].contrast else "."
    if trained:
        caption += " How a trained model responds is not known before: the band allows for nothing learned up to twice as far as its chosen texts. The dashed line repeats the first step that was measured."
    return Figure(
        name="drift-forecast", title="Forecast and outcome", caption=caption, alternative="; ".join(said) + ".", panels=tuple(panels),
        rows=tuple(used), legend=arm_legend(dict.fromkeys(row.arm for row in used), looks), columns=3,
    )  # fmt: skip


def _fan(rows: Sequence[Estimate], look: Style, arm: str) -> list[Spec]:
    """An arm's curve in the band of its intervals."""
    if not rows:
        return []
    banded = [row for row in rows if row.conf_low is not None and row.conf_high is not None]
    generations = [row.generation for row in banded]
    band: Spec = {
        "type": "scatter", "mode": "lines", "x": [*generations, *generations[::-1]],
        "y": [*(scaled(row, row.conf_high) for row in banded), *(scaled(row, row.conf_low) for row in reversed(banded))],
        "fill": "toself", "fillcolor": f"{look.colour}-band", "line": {"width": 0, "color": look.colour}, "hoverinfo": "skip",
    }  # fmt: skip
    line: Spec = {
        "type": "scatter", "mode": "lines+markers", "x": [row.generation for row in rows], "y": [scaled(row, row.estimate) for row in rows],
        "line": {"color": look.colour, "dash": look.dash, "width": 2.5}, "marker": {"symbol": look.marker, "size": 9, "color": look.colour, "line": {"width": 2, "color": look.colour}},
        "text": [hover(row, arm) for row in rows], "hoverinfo": "text",
    }  # fmt: skip
    return [_from_origin(band), _from_origin(line)] if banded else [_from_origin(line)]


def _from_origin(spec: Spec) -> Spec:
    """The curve with its start at (0, 0): at generation 0 a drift is 0 by definition, and has no estimate."""
    if 0 in spec["x"]:
        return spec
    started = {**spec, "x": [0, *spec["x"]], "y": [0, *spec["y"]]}
    if "text" in spec:
        started["text"] = ["generation 0: the start", *spec["text"]]
    if "error_y" in spec:
        error = spec["error_y"]
        started["error_y"] = {**error, "array": [0, *error["array"]], "arrayminus": [0, *error["arrayminus"]]}
    return started


def _with_intervals(rows: Sequence[Estimate], looks: Mapping[str, Style]) -> list[Spec]:
    """A curve an arm, each a small step aside, so that intervals do not hide one another."""
    by_arm = {arm: sorted(own, key=lambda row: row.generation or 0) for arm in looks if (own := select(rows, arm=arm))}
    return [
        points(own, looks[arm], _curve_name(own[0]), aside)
        for (arm, own), aside in zip(by_arm.items(), asides(len(by_arm)), strict=True)
    ]


def _curve_name(row: Estimate) -> str:
    return f"{row.arm} against {row.contrast}" if row.contrast else row.arm


def replicate_drifts(reading: Reading) -> pd.DataFrame:
    """Each replicate's drift in length (doublings) and style score (generation-0 SD): columns replicate, arm, generation, feature,
    drift; their means are the estimates. Empty where the candidates' table lacks a column that they are computed from.
    """
    columns = ["replicate", "arm", "generation", "feature", "drift"]
    needed = {"replicate", "arm", "generation", "item_id", "candidate_id", "text", "n_drawn"}
    if not needed <= set(reading.candidates.columns) or not reading.generations:
        return pd.DataFrame(columns=columns)
    nothing = pd.DataFrame()
    tables = RunTables(reading.items, reading.candidates, reading.judgments, nothing, reading.signals)
    last = reading.generations[-1]
    measured = series(measure(tables, Design(reading.name, 0, last, ())))
    rows = [
        (int(str(replicate)), arm, generation, line.quantity.name, float(drift))
        for line in measured
        if line.quantity.name in _FIRST and line.category == "" and not line.quantity.undefined
        for arm in reading.arms
        for generation in range(last + 1)
        for replicate, drift in line.drift(arm, generation).items()
    ]
    return pd.DataFrame(rows, columns=columns)


def _faint(traces: pd.DataFrame, looks: Mapping[str, Style]) -> list[Spec]:
    """A thin line a replicate and arm."""
    return [
        {
            "type": "scatter", "mode": "lines", "x": [int(g) for g in part["generation"]], "y": [float(v) for v in part["drift"]],
            "line": {"color": looks[str(arm)].colour, "width": 1}, "opacity": 0.3, "hoverinfo": "skip",
        }
        for (number, arm), part in traces.groupby(["replicate", "arm"], sort=True)
        if str(arm) in looks and int(str(number)) < _TRACES
    ]  # fmt: skip


def _contrasts(reading: Reading, looks: Mapping[str, Style], drawn: Collection[Estimate]) -> Figure | None:
    panels, used = [], []
    controls = list(
        dict.fromkeys(row.contrast for row in reading.estimates if row.term.startswith("did_") and row.contrast)
    )
    for control in controls:
        for feature in _FIRST:
            rows = select(arm_series(reading, f"did_{feature}", contrasted=True), contrast=control)
            if not rows or all(row in drawn for row in rows):
                continue
            used += rows
            data = [_from_origin(spec) for spec in _with_intervals(rows, looks)]
            title = f"{wording.sentence_case(wording.feature_name(feature))}, against {wording.label(control, 24)}"
            panels.append(generations_panel(
                title, data, [0, *(row.generation or 0 for row in rows)], value_axis=titled(axis_title(rows, "raw")),
                height=270, curves=len(data),
            ))  # fmt: skip
    if not panels:
        return None
    last = max(row.generation or 0 for row in used)
    return Figure(
        name="drift-beyond-control",
        title="Drift beyond control",
        caption="The arm's drift minus its control's in the same replicate: what the judge, and not mere feedback, did. 0 is no more than the control.",
        alternative=_in_words([row for row in used if row.generation == last]),
        panels=tuple(panels),
        rows=tuple(used),
        legend=_legend(looks, used),
    )


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
        + ". The three add up to the change. A whisker is the interval of one part, drawn from the end of its bar; of a pale bar the interval "
        "covers 0, or there are too few replicates for one.",
        alternative=_parts_in_words(used),
        panels=tuple(panels),
        rows=tuple(used),
        legend=tuple((part, Style(f"@{part}", "bar", "solid")) for part, _ in _PARTS),
    )


def is_sure(row: Estimate) -> bool:
    """True where the interval excludes 0."""
    return row.conf_low is not None and row.conf_high is not None and not row.conf_low <= 0.0 <= row.conf_high


def _bars(part: str, rows: Mapping[int, Estimate]) -> Spec:
    ordered = [rows[generation] for generation in sorted(rows)]
    return {
        "type": "bar", "x": [row.generation for row in ordered], "y": [scaled(row, row.estimate) for row in ordered],
        "marker": {"color": f"@{part}", "opacity": [1.0 if is_sure(row) else _PALE for row in ordered]},
        "text": [hover(row, part) for row in ordered], "hoverinfo": "text", "textposition": "none",
    }  # fmt: skip


def _whiskers(parts: Mapping[str, Mapping[int, Estimate]]) -> list[Spec]:
    """A whisker a part, at the end of its bar in the stack and a step aside, so that those of one stack do not overlap."""
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
                continue  # no interval, or a part that is 0 throughout: nothing is mixed in
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


def _parts_in_words(rows: Sequence[Estimate]) -> str:
    sure = [row for row in rows if is_sure(row)]
    if not sure:
        return "The interval of every part covers 0; the table holds every value."
    parts = "; ".join(
        f"{wording.label(row.arm)}, step {row.generation}, {row.term.split('_')[0]}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in sure[:12]
    )
    return f"Parts whose interval excludes 0: {parts}" + ("." if len(sure) <= 12 else "; the table holds every value.")


def _diversity(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """Each measure's change beyond the first control's in the same replicate, since diversity falls a little under any feedback; levels where
    no arm has a control."""
    contrasts = [row.contrast for row in reading.estimates if row.term.startswith("did_") and row.contrast]
    panels, used = [], []
    for measured in _VARIETY if contrasts else ():
        rows = select(arm_series(reading, f"did_{measured}", contrasted=True), contrast=contrasts[0])
        if not rows:
            continue
        used += rows
        data = [_from_origin(spec) for spec in _with_intervals(rows, looks)]
        panels.append(generations_panel(
            wording.sentence_case(wording.feature_name(measured)), data, [0, *(row.generation or 0 for row in rows)],
            value_axis=titled(axis_title(rows, "raw"), range=value_range(rows, from_zero=True)), height=250, curves=len(data),
        ))  # fmt: skip
    if not panels:
        return _levels(reading, looks, _VARIETY, "diversity", "Diversity of the outputs", _DIVERSITY_CAPTION)
    last = max(row.generation or 0 for row in used)
    control = wording.label(contrasts[0], 24)
    return Figure(
        name="diversity",
        title=f"Diversity of the outputs, as difference to {control}",
        caption=f"{_DIVERSITY_CAPTION} An arm's change less that of {control}, whose diversity falls a little too: 0 is as varied as there.",
        alternative=_in_words([row for row in used if row.generation == last and row.term == used[0].term]),
        panels=tuple(panels),
        rows=tuple(used),
        legend=_legend(looks, used),
    )


def _phrases(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """The phrases that spread: the share of an arm's texts that hold each, and the share that would without."""
    rows = [row for row in select(reading.estimates, term="phrase_spread") if row.variant]
    panels, legend = [], dict[str, Style]()
    for arm, contrast in dict.fromkeys((row.arm, row.contrast) for row in rows):
        listed = [row for row in rows if (row.arm, row.contrast) == (arm, contrast)]
        places = list(range(len(listed)))[::-1]
        without = [100 * (row.benchmark or 0.0) for row in listed]
        now = [share + 100 * (row.estimate or 0.0) for row, share in zip(listed, without, strict=True)]
        words = [f"{safe(row.variant, 60)}: {share:.0f} % of texts, {'else' if contrast else 'before'} {least:.0f} %" for row, share, least in zip(listed, now, without, strict=True)]  # fmt: skip
        ends = [end for least, share in zip(without, now, strict=True) for end in (least, share, None)]
        line: Spec = {"type": "scatter", "mode": "lines", "x": ends, "y": [end for place in places for end in (place, place, None)],
                      "line": {"color": looks[arm].colour, "width": 2}, "hoverinfo": "skip"}  # fmt: skip
        marks = [
            {
                "type": "scatter", "mode": "markers", "x": shares, "y": places, "text": words, "hoverinfo": "text",
                "marker": {"size": 11, "color": fill, "line": {"width": 2, "color": looks[arm].colour}},
            }
            for shares, fill in ((without, "@surface"), (now, looks[arm].colour))
        ]  # fmt: skip
        axes = layout(
            height=90 + 34 * len(listed), x=titled("% of texts", range=[-4, 104], zeroline=False),
            y={"tickvals": places, "ticktext": [f"“{safe(row.variant, 36)}”" for row in listed], "range": [-0.6, len(listed) - 0.4], "showgrid": False, "zeroline": False},
        )  # fmt: skip
        panels.append(Panel(f"{arm} against {contrast}" if contrast else arm, {"data": [line, *marks], "layout": axes}))
        legend[arm] = looks[arm]
    if not panels:
        return None
    return Figure(
        name="phrases", title="Phrases that spread",
        caption="Filled: the share of texts that hold a phrase at their beginning or end after the last loop. Hollow: the share had the arm gone as its control, or where there is none the share before. These spread more than any phrase does by chance.",
        alternative="; ".join(f"{row.arm}: “{row.variant}” +{100 * (row.estimate or 0.0):.0f} points" for row in rows),
        panels=tuple(panels), rows=tuple(rows), legend=tuple(legend.items()), columns=2,
    )  # fmt: skip


def _tail(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    caption = (
        "Mass in the rare kinds of output of generation 0, over what it was then: below 1 they are being lost; 1 or more is all "
        "of it and no further survival. Texts that lie farther out than any of generation 0 are new, and counted beside it. "
        "Rare is named on one half of generation 0 and measured on the other, so that nothing but change moves it. Resampling "
        "alone loses some: compare with the random arm."
    )
    figure = _levels(
        reading, looks, ("tail_mass_retained", "new_mode_mass"), "tail", "Rare modes and new ones", caption
    )
    if figure is not None:
        figure.panels[0].spec["layout"]["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": {"color": "@zero", "width": 1, "dash": "dot"}}
        ]  # fmt: skip
        figure.panels[0].spec["layout"]["yaxis"]["range"] = value_range(
            [row for row in figure.rows if row.term == "tail_mass_retained"], from_zero=True
        )
    return figure


def _kl(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    caption = "Kullback–Leibler divergence from generation 0 in nats; compare arms at equal distance as well as at equal generation."
    return _levels(reading, looks, ("kl_from_reference",), "distance", "Distance from where it started", caption)


def _over_optimisation(reading: Reading, looks: Mapping[str, Style]) -> Figure | None:
    """The reward that was learned, and right answers, by the policy's distance from generation 0: of the loop, and of the best of n."""
    gains = arm_series(reading, "proxy_gain", contrasted=True)
    distance = {(row.arm, row.generation): row for row in arm_series(reading, "kl_from_reference")}
    far = bool(gains) and all((row.arm, row.generation) in distance for row in gains)
    used: list[Estimate] = []
    panels = []
    for term, best, title in (
        ("proxy_gain", "proxy", "Reward learned from the judge"),
        ("did_correct", "correct", "Right answers"),
    ):
        data: list[Spec] = []
        rows = []
        for arm, contrast in dict.fromkeys((row.arm, row.contrast) for row in gains):
            loop = [
                row for row in arm_series(reading, term, contrasted=True) if (row.arm, row.contrast) == (arm, contrast)
            ]
            loop.sort(key=lambda row: row.generation or 0)
            line = points(loop, looks[arm], arm)
            if far:
                line["x"] = [(distance[arm, row.generation].estimate or 0.0) ** 0.5 for row in loop]
            data.append(_from_origin(line))
            curve = select(reading.estimates, term=f"best_of_n_{best}", arm=arm)
            steps = {
                row.variant: row.estimate or 0.0 for row in select(reading.estimates, term="best_of_n_kl", arm=arm)
            }
            if far and curve:
                line = points(curve, replace(looks[arm], dash="dot", marker="line-ew"), f"{arm}, best of n")
                data.append(_from_origin({**line, "x": [steps[row.variant] ** 0.5 for row in curve]}))
            rows += [*loop, *(curve if far else [])]
        if rows:
            axes = layout(
                height=270,
                x=titled("square root of the KL divergence, nats", rangemode="tozero") if far else titled("generation"),
                y=titled(axis_title(rows)),
            )
            panels.append(Panel(title, {"data": data, "layout": axes}))
            used += rows
    if len(panels) < 2:
        return None
    caption = "What was learned from the judge's picks of generation 0, in its standard deviations, and right answers, on items with a reference, beyond the control"
    caption += ". Dotted: the best of n of the pool, before any training." if far else "."
    return Figure(
        name="over-optimisation", title="Is the judge over-optimised?", caption=caption + " Where the first rises and the second falls, more training on this judge is worse.",
        alternative=_in_words([row for row in used if row.generation == max(one.generation or 0 for one in gains)]), panels=tuple(panels), rows=tuple(used),
        legend=arm_legend(dict.fromkeys(row.arm for row in gains), looks), columns=2,
    )  # fmt: skip


def _levels(
    reading: Reading, looks: Mapping[str, Style], terms: Sequence[str], name: str, title: str, caption: str
) -> Figure | None:
    panels, used = [], []
    for term in terms:
        rows = arm_series(reading, term)
        if not rows:
            continue
        used += rows
        panels.append(_level_panel(rows, looks, value_range(rows), height=250))
    if not panels:
        return None
    last = max(row.generation or 0 for row in used)
    return Figure(
        name=name,
        title=title,
        caption=caption + cut_note(used),
        alternative=_in_words([row for row in used if row.generation == last and row.term == used[0].term]),
        panels=tuple(panels),
        rows=tuple(used),
        legend=_legend(looks, used),
    )


def _in_words(rows: Sequence[Estimate]) -> str:
    """The rows of arms in one generation in words, the first eight of them."""
    if not rows:
        return "The table holds every value."
    parts = [
        f"{wording.label(row.arm)}{' against ' + wording.label(row.contrast) if row.contrast else ''}, {wording.sentence_start(wording.term_name(row.term))}: {wording.quantity(row, row.estimate)}, {wording.interval(row)}"
        for row in rows[:8]
    ]
    return f"At generation {rows[0].generation}: " + "; ".join(parts) + "."


def _legend(looks: Mapping[str, Style], rows: Sequence[Estimate]) -> tuple[tuple[str, Style], ...]:
    drawn = {row.arm for row in rows}
    return arm_legend([arm for arm in looks if arm in drawn], looks)
