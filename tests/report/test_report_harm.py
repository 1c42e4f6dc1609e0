"""The largest effect on a judge is reported first, and what is undefined has its true reason, under a label of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from judgeloop import results, seeds
from judgeloop.report import judge_figures, page, tables, text, wording
from judgeloop.report.answers import answers
from judgeloop.report.claims import Finding
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.self_preference import self_preference_gold, self_preference_log_odds
from judgeloop.validation.worlds import judged, pair_table, picks, texts

ONE_GOLD = "one gold, of unknown reliability: label 100 pairs or more a second time (gold_2), or state --gold-exact where it cannot err"  # fmt: skip


def _row(term: str, size: float, half: float = 0.02, **changes: Any) -> Estimate:
    base = Estimate(
        scope="judge", bias="style", term=term, judge="j", panel="probe", estimate=size, std_error=half / 2, conf_low=size - half,
        conf_high=size + half, conf_level=0.95, n=240, n_items=60, unit="probability",
    )  # fmt: skip
    return replace(base, **changes)


def _unknown(term: str, note: str, **changes: Any) -> Estimate:
    nothing = {"estimate": None, "std_error": None, "conf_low": None, "conf_high": None, "n": 0, "n_items": 0}
    return _row(term, 0.0, **{**nothing, "status": "undefined", "note": note, **changes})


def _reading(rows: list[Estimate]) -> Reading:
    nothing = pd.DataFrame({"verdict": [], "panel": []})
    return Reading("x", tuple(rows), nothing, nothing, nothing, nothing, {}, {}, "", (), {})


def _glance(rows: list[Estimate]) -> str:
    return " ".join(answers(_reading(rows), findings(rows))[0].sentences)


def _of(rows: list[Estimate], question: str) -> list[Finding]:
    return [finding for finding in findings(rows) if finding.question == question]


# -- by harm -------------------------------------------------------------------------------------------------------------

EDITS = [
    _row("first_slot_excess", 0.12, bias="position", panel="pairs"),
    _row("padding_probe", 0.07, bias="verbosity"),
    _row("authority_probe", 0.01),
    _row("bandwagon_probe", 0.02),
    _row("bold_probe", -0.31, 0.03),
    _row("emoji_probe", 0.35, 0.4),
    _row("tone_probe", 0.09),
]


def test_the_largest_found_probe_stands_first_in_every_output() -> None:
    found = _of(EDITS, "content")
    assert [one.row.term.removesuffix("_probe") for one in found] == [
        "bold", "tone", "padding", "emoji", "bandwagon", "authority",
    ]  # fmt: skip
    reading, every = _reading(EDITS), findings(EDITS)
    said = text.render_markdown(reading, [], every, [])
    assert said.index("bold text added: edited copy picked 19.0 % of the time") < said.index("authority named")
    assert "bold text added" in text.as_text(text.render_terminal(reading, [], every, []), 200)
    html = page.report_page(reading, [], every, {}, {}, ())
    assert 'class="headline">j · bold text added' in html
    figure = judge_figures.probes(reading)
    assert figure is not None
    assert [row.term for row in figure.rows] == [one.row.term for one in found]


def test_the_glance_names_the_largest_found_probe_beside_slot_and_padding() -> None:
    said = _glance(EDITS)
    assert (
        said.index("First slot")
        < said.index("Padded copy")
        < said.index("Bold text added: edited copy picked 19.0 % of the time")
    )
    assert "warmer tone" not in said.lower()
    assert _glance([EDITS[4], EDITS[6]]).count("of the time") == 1  # the lead is the largest probe itself


def test_a_probe_that_applies_to_no_text_is_named_and_keeps_nothing_open() -> None:
    why = "applies to no text: it has nothing to edit there"
    rows = [
        _row("first_slot_excess", 0.0, bias="position", panel="pairs"),
        _row("padding_probe", 0.0, bias="verbosity"),
        _unknown("markdown_removed_probe", why),
        _unknown("headings_probe", why),
    ]
    unknown = [one for one in _of(rows, "content") if one.verdict == "undefined"]
    assert {one.row.term for one in unknown} == {"markdown_removed_probe", "headings_probe"}
    assert f"Markdown removed: undefined: {why}" in unknown[-1].sentence + unknown[0].sentence
    assert answers(_reading(rows), findings(rows))[0].word == "None within margin"
    assert answers(_reading(rows[2:]), findings(rows[2:]))[0].word == "Not known"


# -- own answers ---------------------------------------------------------------------------------------------------------


def test_without_gold_own_texts_are_compared_with_other_judges() -> None:
    against = _row(
        "self_preference_log_odds", 0.8, 0.2, bias="self_preference", panel="pairs", unit="log-odds",
    )  # fmt: skip
    rows = [_unknown("self_preference_gold", "no gold", bias="self_preference", panel="pairs"), against]
    assert "one number for all judges" not in _of(rows, "self_preference")[0].sentence
    rows.append(replace(against, judge="other"))
    finding, _ = _of(rows, "self_preference")
    assert finding.row is against
    assert finding.verdict == "found"
    assert "own texts: favoured by 0.80 log-odds compared with the other judges, 95 % interval 0.60 to 1.00" in finding.sentence  # fmt: skip
    assert "one number for all judges" in finding.sentence
    assert "own texts favoured, compared with other judges: 0.80 log-odds" in _glance(rows)
    at_gold = _row("self_preference_gold", 0.1, bias="self_preference", panel="pairs", verdict="found")
    assert _of([at_gold, against], "self_preference")[0].row is at_gold
    # Of one gold that may err no claim is made: the other judges' word comes first, and alone it stays open.
    fallible = replace(at_gold, verdict="", family="none")
    assert _of([fallible, against], "self_preference")[0].row is against
    (open_finding,) = _of([fallible], "self_preference")
    assert open_finding.verdict == "undefined"
    assert "no claim rests on this" in open_finding.sentence
    alone = replace(against, status="undefined", estimate=None, conf_low=None, conf_high=None, note="one judge")
    assert "Own texts: undefined (no gold)." in _glance([rows[0], alone])


@pytest.mark.parametrize("gold", [None, "", np.nan])
def test_no_gold_is_the_reason_where_there_is_none(gold: object) -> None:
    frame, _ = _two_judges(0.0)
    frame = frame.drop(columns="gold") if gold is None else frame.assign(gold=gold)
    assert self_preference_gold(frame[frame["judge"] == "JA"], RowLabels("JA"))[0].note == "no gold"
    others = frame[frame["judge"] == "JA"].assign(model_a="X", model_b="Y")
    assert (
        self_preference_gold(others, RowLabels("JA"))[0].note
        == "no pair has a text of the judge's own model on one side"
    )


def _two_judges(noise: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two judges of their two models' texts that favour a slot and length, and not their own; soft verdicts."""
    rng, pairs = seeds.rng(0, "report harm"), 40
    table, length = pair_table(pairs), seeds.rng(1, "report harm").standard_normal(40)
    own = np.where(np.arange(pairs) % 2 == 0, "JA", "JB")
    other = np.where(own == "JA", "JB", "JA")
    parts = []
    for judge in ("JA", "JB"):
        soft = {}
        for order, sign in (("ab", 1.0), ("ba", -1.0)):
            soft[order] = 1 / (1 + np.exp(-(0.5 + sign * 0.5 * length + noise * rng.standard_normal(pairs))))
        drawn = {order: picks(np.log(p / (1 - p)), rng) for order, p in soft.items()}
        frame = judged(table, drawn, columns={"gold": "a", "model_a": own, "model_b": other}, judge=judge)
        frame["p_first"] = np.where(
            frame["order"] == "ab", soft["ab"][frame.groupby("order").cumcount()], soft["ba"][frame.groupby("order").cumcount()]
        )  # fmt: skip
        parts.append(frame)
    return pd.concat(parts, ignore_index=True), texts(table, {"length": length / 2}, {"length": -length / 2})


def test_verdicts_without_noise_leave_no_effect_of_the_last_bit() -> None:
    frame, features = _two_judges(0.0)
    found = self_preference_log_odds(frame.drop(columns="gold"), features, RowLabels("JA"))
    assert found.estimate == 0.0  # it was −5.6e−18 with p = 0
    assert found.p_value == 1.0
    (finding,) = _of([found], "self_preference")
    assert finding.verdict not in ("found", "unconfirmed")


# -- length with one gold ------------------------------------------------------------------------------------------------


def _one_gold() -> list[Estimate]:
    length = {"bias": "verbosity", "panel": "pairs", "unit": "probability per doubling"}
    return [
        _row("padding_probe", 0.074, bias="verbosity"),
        _row("padding_probe", 0.116, bias="verbosity", variant="slope", unit="probability per doubling"),
        _unknown("length_ame", ONE_GOLD, **length),
        _row("length_ame", 0.051, variant="given_gold", note="gold taken as exact", **length),
        _unknown("style_joint", ONE_GOLD, panel="pairs", unit="F"),
        _row("style_joint", 9.0, variant="given_gold", panel="pairs", unit="F", conf_low=None, conf_high=None),
    ]  # fmt: skip


def test_one_gold_has_its_number_beside_what_to_do() -> None:
    unknown = [one for one in _of(_one_gold(), "content") if one.verdict == "undefined"]
    # What claims nothing stays so; style has no test of its own left, and the same reason need not be said twice.
    assert [(one.row.term, one.row.variant) for one in unknown] == [("length_ame", "")]
    length = unknown[0].sentence
    assert "length at equal gold: undefined: one gold" in length
    assert "(gold_2), or state --gold-exact where it cannot err" in length
    assert "if gold is taken as exact (no claim rests on this): a doubling raises the chance of being picked by 5.1 points, 95 % interval 3.1 to 7.1" in length  # fmt: skip
    assert "given_gold" not in length
    table = tables.judge_table(_reading(_one_gold()))
    assert table is not None
    assert ("Length effect per doubling", "5.1 [3.1, 7.1] ‡") in [row[:2] for row in table.rows]
    assert "one gold taken as exact" in table.note


def test_measures_of_length_have_labels_of_their_own() -> None:
    names = [
        wording.term_name(term) for term in ("padding_probe", "length_ame", "length_log_odds", "excess_longer_vs_gold")
    ]
    assert len(set(names)) == 4
    padded, given = (results._judge_table(rows) for rows in (_one_gold(), _one_gold()[2:4]))
    assert padded is not None
    assert given is not None
    assert padded.columns == ("Judge", "Padding, per doubling")
    assert padded.rows[0][1] == "11.6 [9.6, 13.6]"
    assert given.columns == ("Judge", "Length at equal gold")
    assert given.rows[0][1].endswith("‡")
    unknown = results.unknown_measures(_one_gold())
    assert all("Padding" not in what and "at equal gold" not in what for what, _ in unknown)
    assert "state --gold-exact" in unknown[0][1]


# -- pairs ---------------------------------------------------------------------------------------------------------------


def test_flips_are_of_the_time_and_counted_in_pairs() -> None:
    table, rng = pair_table(30), seeds.rng(0, "flips")
    parts = [judged(table, {order: picks(np.zeros(30), rng) for order in ("ab", "ba")}, judge="j").assign(repeat=repeat) for repeat in (0, 1)]  # fmt: skip
    rows = position_estimates(pd.concat(parts, ignore_index=True), judge="j")
    said = next(one.sentence for one in findings(rows) if one.row.term == "conflict_rate")
    assert "% of the time" in said
    assert "(30 pairs in both orders; noise and bias together)" in said
    assert "% of 30 pairs" not in said


def test_of_pairs_in_one_drawn_order_none_is_said_to_disagree_or_to_stand_in_both() -> None:
    table, rng = pair_table(400), seeds.rng(0, "drawn")
    every = judged(table, {order: picks(np.ones(400), rng) for order in ("ab", "ba")}, judge="j")
    drawn = dict(zip(table["item_id"], rng.choice(["ab", "ba"], 400), strict=True))
    shown = every[every["order"] == every["item_id"].map(drawn)].assign(order_drawn=True)
    rows = position_estimates(shown, judge="j", panel="pairs")
    _, _, sure, change = answers(_reading(rows), findings(rows))
    assert any("The judge favours a slot" in sentence for sentence in change.sentences)
    assert "400 pairs for the judge, each in one order that was drawn by lot." in sure.sentences
    assert "disagree" not in " ".join(change.sentences)


def test_the_advice_on_pairs_does_not_belie_what_probes_show() -> None:
    rows = [replace(EDITS[0], n=40), _row("padding_probe", 0.0, bias="verbosity", n=80)]
    sure = answers(_reading(rows), findings(rows))[2]
    assert "40 pairs in both orders for the judge; 300 or more are advised: fewer can miss a small preference for a slot." in sure.sentences  # fmt: skip
