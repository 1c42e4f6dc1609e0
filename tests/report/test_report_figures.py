"""Figures of the loop and of logs: what they hold, and that they hold it from the estimates alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from judgeloop.report import cases, judge_figures, loop_figures, model_figures, page
from judgeloop.report.figure import Figure, Style, arm_legend, points, styles, value_range
from judgeloop.report.findings import findings
from judgeloop.report.judge_figures import position_by_slot, probes
from judgeloop.report.reading import Reading, read
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import Estimate

ARMS = ("judge", "accumulate", "random")


def _reading(rows: list[Estimate], arms: tuple[str, ...] = ARMS) -> Reading:
    nothing = pd.DataFrame()
    return Reading("x", tuple(rows), nothing, nothing, nothing, nothing, {}, {}, "", arms, {"random": "random"})


def _row(scope: Any, term: str, estimate: float | None, half: float = 0.1, **more: Any) -> Estimate:
    values: dict[str, Any] = {"bias": "verbosity", "unit": "doublings", "conf_level": 0.95, "n": 10, **more}
    if estimate is not None:
        values |= {"conf_low": estimate - half, "conf_high": estimate + half}
    return Estimate(scope=scope, term=term, estimate=estimate, **values)


def _looks(reading: Reading) -> Any:
    return styles(reading.arms, reading.controls)


def _set(figure: Figure) -> str:
    """The figure as the page sets it."""
    return str(page.environment().get_template("parts.html").module.figure(figure))


def _listed(figure: Figure) -> str:
    """The figure as the page sets it among others."""
    return str(page.environment().get_template("parts.html").module.figures([figure]))


# -- the chain -----------------------------------------------------------------------------------------------------------

CHAIN = [
    _row("judge", "length_log_odds", None, judge="j", panel="anchor", generation=0, status="undefined"),
    _row("judge", "length_log_odds", 0.4, judge="j", panel="anchor", generation=0, variant="no_gold", unit="log-odds"),
    _row("signal", "signal_slope_length", 0.8, judge="j", arm="judge", generation=0, unit="log-odds per doubling"),
    _row("signal", "transmission_length", 2.0, judge="j", arm="judge", unit="ratio"),
    _row("policy", "did_length", 0.5, arm="judge", contrast="random", generation=1),
    _row("policy", "did_length", 0.9, arm="judge", contrast="random", generation=3),
    _row("signal", "transmission_length", None, judge="j", arm="accumulate", status="undefined"),
    _row("policy", "did_length", 0.2, arm="accumulate", contrast="random", generation=3),
]


def test_a_chain_joins_judge_signal_and_last_drift() -> None:
    first, second = loop_figures.links(_reading(CHAIN))
    assert [row.estimate for row in first.steps if row is not None] == [0.4, 0.8, 0.9]
    assert first.transmission is not None
    assert first.transmission.estimate == 2.0
    assert second.judge is not None
    assert (second.signal, second.transmission) == (None, None)
    assert all(link.arm != "random" for link in (first, second))


def test_the_chain_is_one_picture_that_says_what_is_missing() -> None:
    figure = loop_figures.chain(_reading(CHAIN), _looks(_reading(CHAIN)))
    assert figure is not None
    assert [panel.title[:1] for panel in figure.panels] == ["1", "2", "3"]
    notes = [note["text"] for panel in figure.panels for note in panel.spec["layout"]["annotations"]]
    assert "×2.00 (1.90–2.10)" in notes
    assert "no signal is fitted" in notes
    for panel in figure.panels:
        low, high = panel.spec["layout"]["xaxis"]["range"]
        assert low < 0 < high  # a mark at 0 is whole
        for dot in panel.spec["data"]:
            assert dot["error_x"]["array"] == pytest.approx([0.1])
            assert low < dot["x"][0] - dot["error_x"]["arrayminus"][0]
            assert dot["x"][0] + dot["error_x"]["array"][0] < high
    assert "transmission 2.00" in figure.alternative
    assert loop_figures.chain(_reading(CHAIN[:2]), _looks(_reading(CHAIN))) is None


# -- strategies ----------------------------------------------------------------------------------------------------------


def test_strategies_stand_at_equal_generations_and_at_equal_tokens() -> None:
    rows = [
        *(_row("policy", "drift_length", 0.1 * g, arm=arm, generation=g) for arm in ARMS[:2] for g in (1, 2)),
        *(_row("policy", "training_tokens", 1000.0 * g * (1 + (arm != "judge")), arm=arm, generation=g, unit="tokens") for arm in ARMS[:2] for g in (1, 2)),
        _row("policy", "strategy_gap_length", -0.3, arm="accumulate", contrast="judge", variant="equal_tokens"),
    ]  # fmt: skip
    figure = loop_figures.strategies(_reading(rows), _looks(_reading(rows)))
    assert figure is not None
    by_generation, by_tokens = (panel.spec["data"] for panel in figure.panels)
    assert [line["x"] for line in by_generation] == [[0, 1, 2], [0, 1, 2]]
    assert [line["x"] for line in by_tokens] == [[0.0, 1.0, 2.0], [0.0, 2.0, 4.0]]
    assert all(line["y"][0] == 0.0 for line in (*by_generation, *by_tokens))
    assert figure.panels[1].spec["layout"]["shapes"][0]["x0"] == 2.0
    assert "at equal tokens: −0.30 doublings" in figure.alternative
    alone = loop_figures.strategies(_reading(rows[:2]), _looks(_reading(rows)))
    assert alone is not None
    assert alone.panels == ()
    assert "strategy: {kind: accumulate}" in alone.caption
    assert loop_figures.strategies(_reading([], ()), {}) is None


def test_a_strategy_that_others_are_compared_with_is_no_control(tmp_path: Path) -> None:
    gap = _row("policy", "strategy_gap_length", -0.3, arm="gold", contrast="judge", variant="equal_tokens")
    folder = report_folder.write(tmp_path / "demo", rows=[*report_folder.estimates(), gap])
    assert set(read(folder).controls) == {"random", "gold"}


# -- logs ----------------------------------------------------------------------------------------------------------------


def _probe(term: str, estimate: float, half: float, **more: Any) -> Estimate:
    return _row(
        "judge", term, estimate, half, judge="j", panel="probe", bias="style", **{"unit": "probability", **more}
    )


def test_probes_are_sorted_by_verdict_and_then_by_size() -> None:
    rows = [_probe("bold_probe", 0.30, 0.31), _probe("padding_probe", 0.10, 0.02), _probe("hedges_probe", -0.20, 0.05), _probe("padding_probe", 0.19, 0.02, variant="2")]  # fmt: skip
    figure = probes(_reading(rows, ()))
    assert figure is not None
    assert [(row.term, row.variant) for row in figure.rows] == [
        ("hedges_probe", ""),
        ("padding_probe", "2"),
        ("padding_probe", ""),
        ("bold_probe", ""),
    ]
    assert figure.panels[0].spec["layout"]["yaxis"]["ticktext"][1].endswith(", ×2")
    assert probes(_reading(rows[:1], ())) is None
    drifted = _probe("judge_drift_bold_probe", 0.3, 0.01, generation=None)
    again = probes(_reading([*rows, drifted], ()))
    assert again is not None
    assert len(again.rows) == len(rows)
    assert all(finding.question != "content" for finding in findings([drifted]))


def test_the_heat_map_has_slots_by_category_and_judges_apart() -> None:
    rows = [
        _row("judge", "first_slot_excess", size, judge=judge, panel="pairs", category=category, unit="probability", bias="position", status=status)
        for judge in ("j", "k") for category, size, status in (("", 0.1, "ok"), ("code", 0.2, "ok"), ("maths", -0.05, "underpowered"))
    ]  # fmt: skip
    figure = position_by_slot(_reading(rows, ()))
    assert figure is not None
    assert [panel.title for panel in figure.panels] == ["j", "k"]
    heat = figure.panels[0].spec["data"][0]
    assert heat["x"] == ["first slot", "second slot"]
    assert heat["y"] == ["all items", "code", "maths"]
    assert heat["z"] == [[10.0, -10.0], [20.0, -20.0], [-5.0, 5.0]]
    assert heat["text"][2] == ["−5.0 †", "+5.0 †"]


def test_too_few_categories_are_a_line_and_no_empty_panel() -> None:
    rows = [
        _row("judge", "first_slot_excess", 0.1, judge="j", panel="pairs", category=category, unit="probability", bias="position")
        for category in ("", "(rare)")
    ]  # fmt: skip
    items = pd.DataFrame({"item_id": ["a", "b"], "category": ["code", "maths"]})
    figure = position_by_slot(replace(_reading(rows, ()), items=items))
    assert figure is not None
    assert figure.panels == ()
    assert "one of them" in figure.caption
    assert "(rare, pooled, first slot" in figure.caption
    assert "rare, pooled" in _listed(figure)
    figure = position_by_slot(replace(_reading(rows[:1], ()), items=items))
    assert figure is not None
    assert "none of them" in figure.caption
    assert "<figure" not in _listed(figure)
    assert position_by_slot(_reading(rows[:1], ())) is None


def test_a_probe_has_a_mark_where_its_length_alone_would_be() -> None:
    rows = [_probe("bold_probe", 0.30, 0.05), _probe("bold_probe", 0.22, 0.06, variant="beyond_length"), _probe("padding_probe", 0.1, 0.02)]  # fmt: skip
    figure = probes(_reading(rows, ()))
    assert figure is not None
    *_, mark, dots = figure.panels[0].spec["data"]
    assert len(dots["x"]) == 2  # what lies beyond length is no probe of its own
    assert mark["x"] == pytest.approx([8.0])
    assert mark["y"] == [dots["y"][dots["x"].index(30.0)]]
    assert rows[1] in figure.rows
    assert [name for name, _ in figure.legend] == ["found", "what the added length alone would do"]
    without = probes(_reading([rows[0], rows[2]], ()))
    assert without is not None
    assert [name for name, _ in without.legend] == ["found"]


def test_a_listwise_heat_map_has_every_slot() -> None:
    rows = [
        _row("judge", f"slot_{k}_excess", 0.1 * k, judge="j", panel="pairs", category=category, unit="probability", bias="position")
        for category in ("a", "b") for k in (1, 2, 3)
    ]  # fmt: skip
    figure = position_by_slot(_reading(rows, ()))
    assert figure is not None
    assert figure.panels[0].spec["data"][0]["x"] == ["slot 1", "slot 2", "slot 3"]


# -- the whole -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return report_folder.write(tmp_path_factory.mktemp("runs") / "demo")


def test_the_spread_stands_beside_the_mean(folder: RunFolder) -> None:
    reading = read(folder)
    drift = next(figure for figure in model_figures.figures(reading) if figure.name == "drift")
    assert [panel.title for panel in drift.panels][:2] == ["Length", "Spread (SD) of length"]
    assert drift.traces is not None


def test_every_plotted_number_is_an_estimate_in_the_data_of_its_figure(folder: RunFolder) -> None:
    """What is drawn is what can be downloaded: every y of every curve stands among the figure's rows, scaled."""
    for figure in model_figures.figures(read(folder)):
        plotted = {
            round(value, 9)
            for row in figure.rows
            for value in (row.estimate, 100 * (row.estimate or 0.0))
            if value is not None
        }
        for panel in figure.panels:
            for curve in panel.spec["data"]:
                if "text" in curve:
                    assert {round(y, 9) for y in curve["y"]} <= plotted | {0}, figure.name


def test_every_figure_has_words_data_and_a_place(folder: RunFolder) -> None:
    reading = read(folder)
    for figure in [*model_figures.figures(reading), *loop_figures.figures(reading)]:
        if not figure.panels:
            assert "Not shown" in _listed(figure)
            continue
        html = _set(figure)
        assert figure.alternative.endswith(".")
        assert "data:text/csv" in html
        assert all(f'id="{name}"' in html for name in page.specs([figure]))
    assert json.dumps(page.specs(model_figures.figures(reading)), allow_nan=False)


def test_a_probe_whose_edit_won_is_a_case(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "demo")
    judged = folder.table("judgments")
    pairs = judged[(judged["panel"] == "anchor") & (judged["generation"] == 0)].head(4).copy()
    pairs = pairs.assign(panel="probe", probe="bold", verdict=["second", "first"] * 2, pair_id=["p0", "p0", "p1", "p1"])
    folder.write_part("judgments", "probe", pairs)
    kinds = {group.name: group for group in cases.groups(read(folder))}
    (case, *_) = kinds["Edits that won"].cases
    assert [side.heading for side in case.sides] == ["Original", "Edited copy"]
    assert "bold" in case.what
    assert "Before and after, by chance" in kinds


def test_an_arm_named_like_a_colour_or_markup_stays_a_name() -> None:
    rows = [replace(row, arm="<b>@page</b>" if row.arm == "judge" else row.arm) for row in CHAIN]
    reading = _reading(rows, ("<b>@page</b>", "accumulate", "random"))
    figure = loop_figures.chain(reading, _looks(reading))
    assert figure is not None
    assert "<b>@page" not in _set(figure)
    assert all("<b>@page" not in str(curve["text"]) for panel in figure.panels for curve in panel.spec["data"])


# -- axes ----------------------------------------------------------------------------------------------------------------


def test_marks_side_by_side_stand_within_their_axis(folder: RunFolder) -> None:
    reading = read(folder)
    for figure in [*model_figures.figures(reading), *judge_figures.figures(reading)]:
        for panel in figure.panels:
            axes = {name: panel.spec["layout"][f"{name}axis"].get("range") for name in ("x", "y")}
            for trace in panel.spec["data"]:
                for name, ends in axes.items():
                    if ends and trace["type"] == "scatter":
                        values = [value for value in trace[name] if value is not None]
                        assert min(ends) < min(values), (figure.name, name)
                        assert max(values) < max(ends), (figure.name, name)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=5))
def test_no_share_is_drawn_beyond_what_a_share_can_be(values: list[tuple[float, float]]) -> None:
    rows = [
        _row("policy", "mean_correct", share, half, unit="probability", arm="judge", generation=0)
        for share, half in values
    ]
    curve = points(rows, Style("@arm0", "circle", "solid"), "judge")
    for y, up, down in zip(curve["y"], curve["error_y"]["array"], curve["error_y"]["arrayminus"], strict=True):
        assert -1e-9 <= y - down <= y + up <= 100 + 1e-9
    low, high = value_range(rows)
    assert -10 < low < high < 110
    assert low < min(curve["y"]) <= max(curve["y"]) < high


def test_shares_that_are_all_nought_have_an_axis_from_nought() -> None:
    low, high = value_range([_row("policy", "mean_correct", 0.0, 0.0, unit="probability")])
    assert -1 < low < 0
    assert 5 <= high <= 20


def test_a_price_part_that_may_be_nothing_is_pale_and_has_its_whisker() -> None:
    rows = [
        _row("policy", "selection_length", 0.4, 0.1, arm="judge", generation=0),
        _row("policy", "learning_length", 0.05, 0.2, arm="judge", generation=0),
        _row("policy", "mixing_length", -0.1, 0.05, arm="judge", generation=0),
    ]
    figure = model_figures.price(_reading(rows), "length")
    assert figure is not None
    traces = figure.panels[0].spec["data"]
    shades = {bar["marker"]["color"]: bar["marker"]["opacity"] for bar in traces if bar["type"] == "bar"}
    assert shades["@selection"] == shades["@mixing"] == [1.0]
    assert shades["@learning"][0] < 0.5
    ends = {
        trace["marker"]["color"]: (trace["y"][0], trace["error_y"]["array"][0])
        for trace in traces
        if trace["type"] == "scatter"
    }
    assert ends["@selection"] == pytest.approx((0.4, 0.1))
    assert ends["@learning"] == pytest.approx((0.45, 0.2))  # on top of what is below it
    assert ends["@mixing"] == pytest.approx((-0.1, 0.05))
    low, high = figure.panels[0].spec["layout"]["yaxis"]["range"]
    assert low < -0.15
    assert high > 0.65
    assert "learning" not in figure.alternative


def test_a_positive_control_is_hollow_and_dashed_and_its_legend_says_so() -> None:
    arms = ("judge", "longer", "coin")
    looks = styles(arms, {"longer": "positive", "coin": "random"})
    assert (looks["longer"].marker, looks["longer"].dash) == ("square-open", "dash")
    assert arm_legend(arms, looks)[1][0] == "longer (positive control: a judge with a known taste)"
    assert [name for name, _ in arm_legend(("judge", "coin"), looks)] == ["judge", "coin"]
    many = tuple(f"a{n}" for n in range(7))
    looks = styles(many, dict.fromkeys(many, "positive"))
    assert len({page.glyph(look) for look in looks.values()}) == 6  # every marker has a character for the legend
