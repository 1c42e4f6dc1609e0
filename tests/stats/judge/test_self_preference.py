"""Self-preference with planted truth: separate from preferences for any text and for a slot, and from too few items."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from judgeloop import seeds
from judgeloop.stats.estimate import RowLabels
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.estimates import judge_estimates
from judgeloop.stats.judge.self_preference import (
    combined_rates,
    self_preference_gold,
    self_preference_log_odds,
    self_preference_single_order,
)
from judgeloop.validation.worlds import judged, pair_table, picks, texts

JUDGES = {"JA": (0.6, 1.5), "JB": (0.0, 0.7)}
"""Log-odds per doubling and κ: JA likes length and sees gold better, and its own texts are longer and better."""


def crossed(models, favour=0.0, pairs=1500, label="crossed"):
    """Two judges of the texts of ``models``, (judgments, features, length difference)."""
    rng = seeds.rng(0, "self preference", label, len(models))
    sides = np.array([rng.choice(len(models), 2, replace=False) for _ in range(pairs)])
    a, b = np.array(models)[sides[:, 0]], np.array(models)[sides[:, 1]]
    own = {judge: (a == judge) * 1.0 - (b == judge) for judge in JUDGES}
    gold = 0.7 * own["JA"] + rng.standard_normal(pairs)
    length = 0.8 * own["JA"] + rng.standard_normal(pairs)
    table = pair_table(pairs)
    parts = []
    for judge, (taste, kappa) in JUDGES.items():
        merit = taste * length + kappa * gold + favour * own[judge]
        verdicts = {order: picks(0.3 + sign * merit, rng) for order, sign in (("ab", 1.0), ("ba", -1.0))}
        columns = {"gold": gold, "model_a": a, "model_b": b}
        parts.append(judged(table, verdicts, columns=columns, judge=judge))
    return pd.concat(parts, ignore_index=True), texts(table, {"length": length / 2}, {"length": -length / 2}), length


@pytest.mark.parametrize("models", [("JA", "JB"), ("JA", "JB", "C")], ids=["two by two", "three generators"])
def test_a_taste_for_length_or_a_sharper_eye_is_no_self_preference(models):
    judgments, features, _ = crossed(models)
    for judge in JUDGES:
        fair = self_preference_log_odds(judgments, features, RowLabels(judge))
        assert fair.status != "undefined", fair.note
        assert abs(fair.estimate) < 4 * fair.std_error
        assert fair.std_error < 0.13  # the defect was +0.49
    judgments, features, _ = crossed(models, favour=0.8, label="fond")
    for judge in JUDGES:
        fond = self_preference_log_odds(judgments, features, RowLabels(judge))
        assert abs(fond.estimate - 0.8) < 4 * fond.std_error
        assert ("one coefficient for all judges" in fond.note) == (len(models) == 2)


def test_with_their_own_two_models_two_judges_bear_one_coefficient():
    judgments, features, length = crossed(("JA", "JB"), favour=0.5, pairs=300, label="oracle")
    a = (judgments["model_a"] == "JA").to_numpy() * 2.0 - 1.0
    order = np.where(judgments["order"] == "ab", 1.0, -1.0)
    gold, gap = judgments["gold"].to_numpy(dtype=float), np.tile(length, 4)
    in_judge = [(judgments["judge"] == judge).to_numpy() for judge in JUDGES]
    x = np.stack([np.where(in_judge[0], a, -a), a, *(v * h for v in (order, gap, gold) for h in in_judge)], axis=1)
    picked = np.where((judgments["verdict"] == "first") == (order > 0), 1.0, 0.0)
    oracle = sm.GLM(picked, x, family=sm.families.Binomial()).fit()
    for judge in JUDGES:
        estimate = self_preference_log_odds(judgments, features, RowLabels(judge))
        assert estimate.estimate == pytest.approx(oracle.params[0], abs=1e-8)


def test_without_spread_few_items_prove_nothing():
    for n, significant in ((4, False), (20, True)):
        table, gold = pair_table(n), np.where(np.arange(n) % 2 == 0, 1.0, -1.0)
        columns = {"gold": gold, "model_a": "planted", "model_b": "other"}
        follows = {"ab": np.where(gold > 0, "first", "second"), "ba": np.where(gold > 0, "second", "first")}
        fair = self_preference_gold(judged(table, follows, columns=columns), RowLabels("planted"), gold_exact=True)[0]
        assert (fair.estimate, fair.status, fair.p_value) == (0.0, "underpowered", 1.0)
        # Wilson's bound of n/2 items on either side.
        reach = 1.96**2 / (n / 2 + 1.96**2)
        assert (fair.conf_low, fair.conf_high) == pytest.approx((-reach, reach), abs=1e-4)
        always = judged(table, {"ab": ["first"] * n, "ba": ["second"] * n}, columns=columns)
        fond = self_preference_gold(always, RowLabels("planted"), gold_exact=True)[0]
        assert (fond.estimate, fond.status == "ok") == (1.0, significant)
        assert fond.p_value == pytest.approx(0.136, abs=1e-3) if n == 4 else fond.p_value < 0.01
        assert (fond.conf_low > 0) == significant


def test_a_single_order_log_tells_no_taste_for_own_texts_from_one_for_a_slot():
    rng, n = seeds.rng(0, "single order"), 400
    table, merit = pair_table(n), rng.standard_normal(n)
    columns = {"gold": np.where(merit > 0, "a", "b"), "model_a": "planted", "model_b": "other"}
    frame = judged(table, {"ab": picks(1.0 + merit, rng), "ba": picks(1.0 - merit, rng)}, columns=columns)
    first = frame[frame["order"] == "ab"]
    assert self_preference_gold(first, RowLabels("planted"))[0].status == "undefined"
    assert "one order only" in self_preference_gold(first, RowLabels("planted"))[0].note
    (cannot,) = self_preference_single_order(first, RowLabels("planted"))
    assert (cannot.status, cannot.variant) == ("undefined", "single_order")
    # Randomised: the slot's pull, γ = 1, cancels between own first and own second.
    drawn = frame[(frame["order"] == "ab").to_numpy() == np.tile(rng.random(n) < 0.7, 2)]
    (fair,) = self_preference_single_order(drawn, RowLabels("planted"))
    assert abs(fair.estimate) < 4 * fair.std_error
    assert "randomised" in fair.note
    assert self_preference_single_order(frame, RowLabels("planted")) == []
    estimates = judge_estimates(drawn)
    own = estimates[estimates["term"] == "self_preference_gold"].set_index("variant")
    assert own.loc["", "status"] == "undefined"
    assert "confirmatory" not in set(own["family"])


def test_combined_rates_are_the_plain_sums():
    rng = seeds.rng(0, "combined")
    cells, items = rng.integers(3, size=300), rng.integers(60, size=300)
    values, weights = rng.random(300), np.array([1.0, -0.5, -0.5])
    interval = combined_rates(values, cells, items, weights)
    assert isinstance(interval, Interval)
    means = [values[cells == c].mean() for c in range(3)]
    variance, parts = 0.0, np.zeros(3)
    counts = [len(set(items[cells == c])) for c in range(3)]
    few = [count < 50 for count in counts]
    for item in set(items):
        influence = 0.0
        for c in range(3):
            in_cell = (cells == c) & (items == item)
            size, n = in_cell.sum(), (cells == c).sum()
            scale = 1 - size / n if few[c] else math.sqrt(1 - 1 / counts[c])
            part = weights[c] * (values[in_cell] - means[c]).sum() / n / scale
            parts[c] += part**2
            influence += part
        variance += influence**2
    assert interval.estimate == pytest.approx(weights @ means)
    assert interval.std_error == pytest.approx(math.sqrt(variance))
    assert interval.df == pytest.approx(
        parts.sum() ** 2 / sum(v**2 / (k - 1) for v, k in zip(parts, counts, strict=True))
    )
    assert isinstance(combined_rates(values[:3], np.arange(3), items[:3], weights), Undefined)


@pytest.mark.parametrize(("few", "many"), [(6, 40), (15, 15)])
def test_type_one_error_with_few_items_on_a_side(few, many):
    """True null: either side follows gold in 0.8 of its pairs. 1,000 samples: 4 Monte-Carlo SEs of .05 are .028."""
    rng, rejected = seeds.rng(0, "few a side", few), 0
    cells = np.repeat([0, 1], [few, many])
    for _ in range(1000):
        values = rng.binomial(2, 0.8, size=few + many) / 2.0
        interval = combined_rates(values, cells, np.arange(few + many), np.array([1.0, -1.0]))
        assert isinstance(interval, Interval)
        rejected += interval.p_value < 0.05
    assert rejected <= 78
