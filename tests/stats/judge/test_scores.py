"""Score estimates against planted truth, and what they say where there is nothing to estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop import seeds
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.judge.pointwise import fit_linear, jackknifed, score_frame
from rated_rows import BACK, FIVE, TEN, world


def primary(frame: pd.DataFrame, term: str, variant: str = "", category: str = "") -> pd.Series[Any]:
    rows = frame[(frame["term"] == term) & (frame["variant"] == variant) & (frame["category"] == category)]
    assert len(rows) == 1, term
    return rows.iloc[0]


def covers(row: pd.Series[Any], truth: float) -> bool:
    return bool(row["conf_low"] <= truth <= row["conf_high"])


def test_planted_slopes_come_back_given_gold_and_the_raw_ones_are_named_raw() -> None:
    scores, pairs, texts = world(anchor=0.05)
    estimates = score_frame(scores, pairs, texts, (TEN, BACK))
    assert covers(primary(estimates, "score_length_slope"), 0.5)
    sd = float(texts["bold"].std(ddof=1))
    assert covers(primary(estimates, "score_bold_slope"), 0.3 * sd)
    raw = primary(estimates, "score_length_slope", "no_gold")
    assert raw["conf_low"] > 0.6
    assert raw["note"].startswith("raw")
    assert primary(estimates, "score_length_slope")["unit"] == "score points per doubling"
    anchoring = primary(estimates, "score_scale_anchoring")
    assert covers(anchoring, -0.1)
    assert anchoring["note"].endswith("10-1 minus 1-10")
    assert primary(estimates, "score_gold_agreement")["conf_low"] > 0.6
    assert primary(estimates, "score_length_slope", category="c")["n_items"] == 100
    signal = 1 + 0.5**2 + 0.3**2 + 1 + 2 * 0.5 * 0.4 + (0.5 * 0.4) ** 2
    assert covers(primary(estimates, "score_repeatability"), signal / (signal + 0.64 + 1 / 12))
    assert primary(estimates, "score_pairwise_disagreement")["status"] == "undefined"


def test_levels_are_those_of_the_numbers() -> None:
    scores, pairs, texts = world(60)
    estimates = score_frame(scores, pairs, texts, (TEN, BACK))
    first_scale = scores[scores["scale"] == "1-10"]
    means = first_scale.groupby(["item_id", "candidate_id"])["score"].mean()
    assert primary(estimates, "score_mean")["estimate"] == pytest.approx(means.mean())
    assert primary(estimates, "score_sd")["estimate"] == pytest.approx(means.std(ddof=1))
    assert primary(estimates, "score_ceiling_share")["estimate"] == pytest.approx((first_scale["score"] == 10).mean())
    assert primary(estimates, "score_floor_share")["estimate"] == pytest.approx((first_scale["score"] == 1).mean())
    by_pair = means.unstack()
    assert primary(estimates, "score_pair_ties")["estimate"] == pytest.approx((by_pair["a"] == by_pair["b"]).mean())


def test_a_judge_without_a_pull_is_not_found_to_have_one_and_a_noiseless_one_repeats_itself() -> None:
    scores, pairs, texts = world(noise=0.0, scales=(TEN, BACK, FIVE))
    estimates = score_frame(scores, pairs, texts, (TEN, BACK, FIVE))
    assert primary(estimates, "score_scale_anchoring")["estimate"] == pytest.approx(0, abs=1e-3)
    assert abs(primary(estimates, "score_scale_anchoring", "1-5")["estimate"]) < 0.02
    assert primary(estimates, "score_repeatability")["estimate"] == pytest.approx(1)


def test_pairwise_disagreement_compares_with_the_mean_of_both_orders() -> None:
    scores, pairs, texts = world(6, repeats=1, scales=(TEN,))
    scores_of = {"i0": (9, 2), "i1": (9, 2), "i2": (5, 5), "i3": (2, 9), "i4": (9, 2), "i5": (5, 5)}
    scores["score"] = [scores_of[item][name == "b"] for item, name in zip(scores["item_id"], scores["candidate_id"], strict=True)]  # fmt: skip
    # a wins, b wins, a wins (scores tie), orders conflict, one order unscored, tie twice
    verdicts_of = {"i0": ("first", "second"), "i1": ("second", "first"), "i2": ("first", "second"), "i3": ("first", "first"),
            "i4": ("first", "unscored"), "i5": ("tie", "tie")}  # fmt: skip
    judgments = pd.DataFrame([
        {"pair_id": pair, "item_id": pair, "order": order, "judge": "j", "panel": "pairs", "verdict": verdict}
        for pair, verdicts in verdicts_of.items() for order, verdict in zip(("ab", "ba"), verdicts, strict=True)
    ])  # fmt: skip
    row = primary(score_frame(scores, pairs, texts, (TEN,), judgments), "score_pairwise_disagreement")
    assert row["n"] == 5
    assert row["estimate"] == pytest.approx((0 + 1 + 0.5 + 0.5 + 0) / 5)
    one_order = judgments[judgments["order"] == "ab"]
    one_order_row = primary(score_frame(scores, pairs, texts, (TEN,), one_order), "score_pairwise_disagreement")
    assert "both orders" in one_order_row["note"]


def test_nothing_is_made_up_where_there_is_nothing() -> None:
    scores, pairs, texts = world(30)
    lost = scores.assign(score=np.nan, at_worst=np.nan, at_best=np.nan)
    estimates = score_frame(lost, pairs, texts, (TEN, BACK))
    assert set(estimates["status"]) == {"undefined"}
    assert primary(estimates, "score_mean")["n_unscored"] == 120
    no_gold = score_frame(scores[scores["repeat"] == 0], pairs.assign(gold=""), texts, (TEN,))
    for term in ("score_length_slope", "score_gold_agreement", "score_repeatability", "score_scale_anchoring"):
        assert primary(no_gold, term)["status"] == "undefined", term
    assert primary(no_gold, "score_length_slope", "no_gold")["status"] == "ok"
    same = score_frame(scores.assign(score=7.0), pairs, texts, (TEN, BACK))
    assert primary(same, "score_sd")["estimate"] == 0
    assert "no variance" in primary(same, "score_repeatability")["note"]
    assert primary(same, "score_pair_ties")["estimate"] == 1
    one_item = score_frame(scores[scores["item_id"] == "i0"], pairs[:1], texts, (TEN, BACK))
    assert primary(one_item, "score_length_slope")["status"] == "undefined"


@pytest.mark.slow
def test_the_slope_s_interval_covers_as_it_claims() -> None:
    hits = []
    for number in range(40):
        scores, pairs, texts = world(30, repeats=1, scales=(TEN,), label=f"cover {number}")
        hits.append(covers(primary(score_frame(scores, pairs, texts, (TEN,)), "score_length_slope"), 0.5))
    assert sum(hits) >= 34


# -- kernels -------------------------------------------------------------------------------------------------------------


def test_the_jackknife_leaves_out_one_cluster_at_a_time() -> None:
    rng = seeds.rng(0, "jackknife")
    x, y, clusters = rng.normal(size=(40, 2)), rng.normal(size=40), rng.integers(0, 9, size=40)
    fit = fit_linear(("one", "two"), x, y, clusters)
    assert not isinstance(fit, Undefined)
    assert fit.coefficients == pytest.approx(np.linalg.lstsq(x, y, rcond=None)[0])
    left_out = np.array([np.linalg.lstsq(x[clusters != g], y[clusters != g], rcond=None)[0] for g in range(9)])
    spread = left_out - left_out.mean(axis=0)
    assert fit.covariance == pytest.approx(8 / 9 * spread.T @ spread)
    assert isinstance(fit.slope("three"), Undefined)
    assert isinstance(fit_linear(("one", "two"), np.stack([x[:, 0], 2 * x[:, 0]], axis=1), y, clusters), Undefined)
    assert isinstance(fit_linear(("one",), x[:, :1] * (clusters == 3)[:, None], y, clusters), Undefined)
    assert isinstance(fit_linear(("one", "two"), x, y, clusters * 0), Undefined)


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=30))
def test_the_jackknife_of_a_mean_is_the_standard_error_of_the_mean(values: list[float]) -> None:
    x = np.array(values)
    interval = jackknifed(np.stack([np.ones_like(x), x], axis=1), lambda sums: sums[..., 1] / sums[..., 0])
    assert isinstance(interval, Interval)
    assert interval.std_error == pytest.approx(x.std(ddof=1) / np.sqrt(len(x)), abs=1e-6, rel=1e-6)


def test_slopes_of_scores_given_a_gold_that_may_err_describe() -> None:
    """Longer texts are better here and gold is noisy: an unbiased judge's scores have a slope on length."""
    scores, pairs, texts = world(200, length=0.0, label="noisy gold of scores")
    rng = seeds.rng(0, "noisy gold of scores")
    noisy = pairs.assign(gold=[repr(float(gold) + 2.0 * float(rng.normal())) for gold in pairs["gold"]])
    slope = primary(score_frame(scores, noisy, texts, (TEN,)), "score_length_slope")
    assert slope["conf_low"] > 0
    assert (slope["verdict"], slope["family"]) == ("", "none")
    exact = primary(score_frame(scores, noisy, texts, (TEN,), gold_exact=True), "score_length_slope")
    assert (exact["verdict"], exact["family"]) == ("found", "exploratory")
