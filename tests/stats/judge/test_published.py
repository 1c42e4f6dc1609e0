"""Numbers as other tools publish them, and what dropping inconsistent pairs does, on verdicts counted by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.inference import Interval, clustered_proportion
from judgeloop.stats.judge.position import compatibility_estimates, position_estimates
from planted_verdicts import planted_judgments, s, verdict_frame

LETTERS = {"A": "first", "B": "second", "C": "tie", "N": "unscored"}


def _judged(counts: dict[str, int], gold: str = "") -> pd.DataFrame:
    """Pairs by what was said in order ab and then in ba: A first, B second, C tie, N nothing."""
    said = [both for both, n in counts.items() for _ in range(n)]
    names = [f"i{k}" for k in range(len(said))]
    picked = [LETTERS[both[k]] for k in (0, 1) for both in said]
    return verdict_frame(picked, names * 2, names * 2, ["ab"] * len(said) + ["ba"] * len(said), gold=gold)


def _terms(frame: pd.DataFrame) -> dict[str, Estimate]:
    rows = [*position_estimates(frame), *compatibility_estimates(frame, None, RowLabels())]
    return {row.term: row for row in rows if row.variant == ""}


def test_agreement_and_fairness_with_ties_are_as_shi_et_al_count_them() -> None:
    """primacy AA, AC, CA; recency BB, BC, CB; consistent AB, BA, CC."""
    terms = _terms(_judged({"AA": 10, "AC": 5, "CA": 3, "BB": 4, "BC": 6, "CB": 2, "AB": 30, "BA": 25, "CC": 15}))
    assert terms["position_consistency"].estimate == pytest.approx(70 / 100)
    assert terms["order_agreement"].estimate == pytest.approx(86 / 100)
    p, r = 18, 12
    assert terms["preference_fairness"].estimate == pytest.approx((r * r / (r + p) - p * p / (r + p)) / 100)
    assert terms["first_slot_excess"].estimate == pytest.approx((10 - 4) / 200 + (8 - 8) / 400)
    # A pick and a tie are half way from even.
    assert terms["consistency_factor"].estimate == pytest.approx(100 / (55 + 16 / 2))


def test_judgebench_counts_two_orders_together() -> None:
    """Gold is a: AB is right twice, AC once and a tie, AA once right and once wrong, AN once and nothing."""
    row = _terms(_judged({"AB": 20, "AC": 10, "CB": 10, "AA": 15, "AN": 5, "BA": 25, "CC": 10, "NB": 5}, gold="a"))[
        "judgebench_accuracy"
    ]
    assert row.estimate == pytest.approx((20 + 10 + 10 + 5 + 5) / 100)
    assert (row.n, row.n_unscored) == (100, 10)


def test_one_factor_scales_every_effect_of_a_judge() -> None:
    """The share of picks of any kind of text, less even, among consistent pairs over that in the average of both orders."""
    draw = seeds.rng(0, "factor")
    frame = planted_judgments(400, "factor", position=0.8, quality=1.0, margin=draw.standard_normal(400), sd=0.5)
    both = frame.pivot(index="pair_id", columns="order", values="verdict")
    picks = {order: np.where(both[order] == "first", 1.0, -1.0) for order in ("ab", "ba")}
    average = (picks["ab"] - picks["ba"]) / 2
    factor = _terms(frame)["consistency_factor"]
    for name in ("longer", "better"):
        kind = np.where(seeds.rng(0, "kind", name).random(400) < 0.7, 1.0, -1.0)
        kept = average != 0
        assert (kind * average)[kept].mean() / (kind * average).mean() == pytest.approx(factor.estimate)
    assert factor.conf_low is not None
    assert 1.0 < factor.conf_low < factor.estimate < (factor.conf_high or 0.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairs", "position", "tied"), [(20, 0.5, 0.1), (60, 1.5, 0.0), (300, 0.0, 0.3), (300, 3.0, 0.1)]
)
def test_the_factor_s_interval_covers(pairs: int, position: float, tied: float) -> None:
    """Truth: how far the mean of two orders is from even, integrated over the texts' lead, half of whose variance
    the two pairs of an item share. The factor's limits are one over those of this mean, as the first draw shows through the estimates."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    forward, backward = s(position + nodes), s(position - nodes)
    alike = np.dot(forward * (1 - backward) + (1 - forward) * backward, weights) / weights.sum()
    truth = (1 - tied) ** 2 * alike + tied * (1 - tied)
    draw, draws, covered = seeds.rng(0, "factor", pairs, position, tied), 1000, 0
    pair = np.arange(pairs)
    for k in range(draws):
        lead = (draw.standard_normal(pairs) + np.repeat(draw.standard_normal(pairs // 2), 2)) / np.sqrt(2)
        first = np.array([draw.random(pairs) < s(position + sign * lead) for sign in (1, -1)])
        tie = draw.random((2, pairs)) < tied
        decided = np.where(tie.any(axis=0), 0.5 * (tie.sum(axis=0) == 1), first[0] != first[1])
        result = clustered_proportion(decided, pair // 2)
        assert isinstance(result, Interval)
        covered += result.low <= truth <= result.high
        if k == 0:
            verdicts = np.where(tie, "tie", np.where(first, "first", "second")).ravel()
            frame = verdict_frame(verdicts, np.tile(pair // 2, 2), np.tile(pair, 2), np.repeat(["ab", "ba"], pairs))
            factor = _terms(frame)["consistency_factor"]
            assert (factor.conf_low, factor.conf_high) == pytest.approx((1 / result.high, 1 / result.low))
    assert covered / draws >= 0.95 - 2 * np.sqrt(0.95 * 0.05 / draws)


def test_an_order_that_was_drawn_identifies_position() -> None:
    """Texts a are far better and shown first in 60 of 100 pairs: the plain mean over calls takes that for position."""
    draw = seeds.rng(0, "drawn")
    forward = draw.random(2000) < 0.6
    p = s(0.4 + np.where(forward, 1.5, -1.5))
    names = [f"i{k}" for k in range(2000)]
    picked = np.where(draw.random(2000) < p, "first", "second")
    frame = verdict_frame(picked, names, names, np.where(forward, "ab", "ba"))
    truth = float((s(1.9) + s(-1.1)) / 2 - 0.5)
    row = _terms(frame.assign(order_drawn=True))["first_slot_excess"]
    assert row.conf_low is not None
    assert row.conf_low < truth < (row.conf_high or 0.0)
    assert row.verdict == "found"
    assert (picked == "first").mean() - 0.5 > (row.conf_high or 0.0)
    # Without a word on the draw, position cannot be told from content.
    assert _terms(frame)["first_slot_excess"].status == "undefined"
    assert _terms(frame.assign(order_drawn=[True, None] * 1000))["first_slot_excess"].status == "undefined"
