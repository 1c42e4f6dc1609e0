"""A taste for one length: no slope, and yet it decides the picks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.report.findings import findings
from judgeloop.report.judge_figures import picks_by_length_difference
from judgeloop.report.reading import Reading
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.slopes import LARGE, LONG, SHORT, SMALL, fit_slopes, picks_by_length, shape_test
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.validation.worlds import judged, pair_table, picks, texts


def world(generator, items=300, *, taste=0.0, slope=0.0, pull=0.0, quality=1.0):
    """(judgments, texts): utility slope·L − taste·(L − 7)², gold that cannot err; lengths around 7 doublings."""
    table = pair_table(items)
    item = 0.8 * generator.standard_normal(items)
    a, b = 7.0 + item + generator.standard_normal((2, items))
    gold = generator.standard_normal(items)
    content = slope * (a - b) - taste * ((a - 7.0) ** 2 - (b - 7.0) ** 2) + quality * gold
    verdicts = {"ab": picks(pull + content, generator), "ba": picks(pull - content, generator)}
    return judged(table, verdicts, columns={"gold": gold}), texts(table, {"length": a}, {"length": b})


def estimates_of(frame, features):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("judgeloop.stats.judge.slopes.DRAWS", 100)
        return content_estimates(frame, features, judge="planted", panel="policy", gold_exact=True)


def by_place(estimates):
    return {(row.term, row.variant): row for row in estimates}


@pytest.fixture(scope="module")
def one_length():
    """(judgments, texts, estimates) of a judge with a taste for one length."""
    frame, features = world(seeds.rng(0, "one length"), 500, taste=0.4, quality=0.7)
    return frame, features, estimates_of(frame, features)


def test_a_taste_for_one_length_is_not_called_no_effect(one_length):
    rows = by_place(one_length[2])
    effect, shape = rows["length_ame", ""], rows["length_shape", ""]
    assert effect.conf_low > -0.05  # within the margin by two one-sided tests: "none" but for the shape
    assert effect.conf_high < 0.05
    assert (effect.verdict, shape.verdict) == ("not_linear", "found")
    assert rows["length_ame", SHORT].conf_low > 0.05
    assert rows["length_ame", LONG].conf_high < -0.05
    assert {rows["length_ame", half].verdict for half in (SHORT, LONG, SMALL, LARGE)} == {""}


def test_a_slope_is_no_shape_and_without_a_shape_there_are_no_halves():
    for slope in (0.0, 0.6):
        rows = by_place(estimates_of(*world(seeds.rng(4, "slope", slope), 500, slope=slope)))
        assert rows["length_shape", ""].verdict == "undetected"
        assert ("length_ame", SHORT) not in rows
        assert rows["length_ame", ""].verdict == ("none" if slope == 0 else "found")


def test_lengths_that_differ_by_one_amount_show_no_shape():
    frame, features = world(seeds.rng(0, "one amount"), 60)
    shift = np.tile(np.where(np.arange(60) % 2 == 0, 0.5, -0.5), 2)
    features["length"] = 7.0 + np.where(features["candidate_id"] == "a", shift, -shift)
    data = covariates(frame, features)
    assert "differ enough" in shape_test(fit_slopes(data, data.gold), data.mean_length).reason


def test_the_report_says_the_shape_and_pictures_it(one_length):
    frame, features, estimates = one_length
    rows = adjust(with_judge_families(estimates_frame(estimates)))
    sentences = " ".join(finding.sentence for finding in findings(rows))
    assert "no effect of practical size" not in sentences
    assert "does not show that there is none" in sentences
    assert "raises the chance of being picked by" in sentences
    assert "in the half of the pairs with the shorter texts" in sentences
    nothing = pd.DataFrame()
    reading = Reading("x", tuple(estimates), nothing, features, frame, nothing, {}, {}, "", (), {})
    figure = picks_by_length_difference(reading)
    assert [panel.title for panel in figure.panels] == ["shorter half of the pairs", "longer half of the pairs"]
    assert [len(curve["x"]) for panel in figure.panels for curve in panel.spec["data"]] == [4, 4, 4, 4]
    assert "shorter half of the pairs, longer text first" in figure.alternative


def test_bins_hold_every_judgment_once_with_the_share_of_picks_of_the_longer_text():
    frame, features = world(seeds.rng(0, "bins"), 300, slope=0.5, pull=1.0)
    bins = picks_by_length(frame, features)
    data = covariates(frame, features)
    longer = np.where(data.length > 0, data.picked_a, 1 - data.picked_a)
    assert sum(one.n for one in bins) == len(data)
    assert sum(one.n * one.picked.estimate for one in bins) == pytest.approx(longer.sum())
    shown_first = [one.picked.estimate for one in bins if one.longer_first]
    assert np.mean(shown_first) - np.mean([one.picked.estimate for one in bins if not one.longer_first]) > 0.2
    assert picks_by_length(frame, None) == []


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"slope": 1.0}, {"slope": 0.4, "pull": 1.0}])
def test_the_shape_test_holds_its_level(settings):
    runs, rejected = 600, []  # a level of 8 % is found six times in seven
    generator = seeds.rng(0, "shape level", str(settings))
    for _ in range(runs):
        data = covariates(*world(generator, 200, **settings))
        rejected.append(shape_test(fit_slopes(data, data.gold), data.mean_length).p_value <= 0.05)
    assert np.mean(rejected) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)
