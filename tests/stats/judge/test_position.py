"""Position estimators: closed forms, plain loops, and what a log cannot tell."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.discrete.conditional_models import ConditionalLogit

from conftest import examples
from judgeloop import seeds
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.inference import mcnemar_mid_p, surely_detectable
from judgeloop.stats.judge.position import position_estimates
from judgeloop.validation.worlds import judged, pair_table, picks
from planted_verdicts import planted_judgments, s, verdict_frame


def term(judgments, name, variant=""):
    return next(row for row in position_estimates(judgments) if (row.term, row.variant) == (name, variant))


def counted(n_ff, n_ss, agree, tied=0):
    """Pairs that are both first, both second, agreeing (on a), and tied in both orders; one pair an item."""
    kinds = [("first", "first")] * n_ff + [("second", "second")] * n_ss + [("first", "second")] * agree
    kinds += [("tie", "tie")] * tied
    n = range(len(kinds))
    return pd.concat(
        [verdict_frame([kind[o] for kind in kinds], n, n, [order] * len(kinds)) for o, order in enumerate(("ab", "ba"))]
    )


def test_closed_forms_with_one_pair_an_item():
    frame = counted(60, 30, 210)
    excess, n, conflict = term(frame, "first_slot_excess"), 300, 0.3
    assert excess.estimate == pytest.approx((60 - 30) / 600)
    paired = math.sqrt(conflict - (30 / n) ** 2) / (2 * math.sqrt(n))
    assert excess.std_error == pytest.approx(paired * math.sqrt(n / (n - 1)))
    assert f"{mcnemar_mid_p(60, 30):.4g}" in excess.note
    assert term(frame, "conflict_rate").estimate == pytest.approx(conflict)
    assert term(frame, "order_agreement").estimate == pytest.approx(0.7)
    odds = term(frame, "position_log_odds")
    assert odds.estimate == pytest.approx(0.5 * math.log(60.5 / 30.5))
    assert odds.std_error == pytest.approx(0.5 * math.sqrt(1 / 60.5 + 1 / 30.5))
    assert (excess.n, excess.n_items, excess.n_unscored) == (300, 300, 0)


def test_log_odds_equal_conditional_logit():
    frame = planted_judgments(1500, "conditional", position=0.4, sd=1.5)
    first = frame.assign(
        a=(frame["verdict"] == "first") == (frame["order"] == "ab"), o=np.where(frame["order"] == "ab", 1.0, -1.0)
    )
    # The response is "a picked" with pair effects; the order is the covariate.
    pairs = first.groupby("pair_id")["a"].transform("nunique") == 2  # the others do not enter the likelihood
    first = first[pairs]
    model = ConditionalLogit(first["a"].astype(float), first[["o"]], groups=first["pair_id"]).fit(disp=False)
    odds = term(frame, "position_log_odds")
    # Haldane's ½ is all that differs.
    assert odds.estimate == pytest.approx(model.params.iloc[0], abs=0.003)
    assert odds.std_error == pytest.approx(model.bse.iloc[0], rel=0.01)


def test_ties_count_half_and_are_no_conflict():
    frame = counted(20, 10, 50, tied=20)
    excess = term(frame, "first_slot_excess")
    assert excess.estimate == pytest.approx(10 / 200)
    d = np.r_[np.full(20, 0.5), np.full(10, -0.5), np.zeros(70)]
    assert excess.std_error == pytest.approx(d.std(ddof=1) / 10)
    assert term(frame, "conflict_rate").estimate == pytest.approx(0.3)
    assert term(frame, "first_slot_excess", "ties_dropped").n == 160


def test_soft_verdicts_eliminate_the_pair_effect_exactly():
    frame = planted_judgments(40, "soft", position=0.7, sd=2.0, soft=True)
    odds = term(frame, "position_log_odds")
    assert odds.estimate == pytest.approx(0.7, abs=1e-12)
    ab, ba = (frame[frame["order"] == o]["p_first"].to_numpy() for o in ("ab", "ba"))
    assert term(frame, "first_slot_excess").estimate == pytest.approx(np.mean(ab + ba) / 2 - 0.5)
    assert term(frame, "excess_conflict").estimate == pytest.approx(np.mean((ab - (1 - ba)) ** 2))
    frame.loc[0, "p_first"] = 1.0
    assert "1 probabilities clipped" in term(frame, "position_log_odds").note


def test_temperature_zero_has_no_log_odds():
    rng = seeds.rng(0, "deterministic")
    delta = rng.normal(size=200)
    picks = [np.where(0.5 + sign * delta > 0, "first", "second") for sign in (1, -1)]
    frame = pd.concat(
        [verdict_frame(pick, range(200), range(200), [o] * 200) for pick, o in zip(picks, ("ab", "ba"), strict=True)]
    )
    odds = term(frame, "position_log_odds")
    assert odds.status == "undefined"
    assert odds.estimate is None
    assert "temperature 0" in odds.note
    assert term(frame, "first_slot_excess").estimate > 0.1


def test_item_clusters_widen_the_interval():
    # Six matchups an item that agree with each other: the information is that of the items.
    rng = seeds.rng(0, "six")
    gamma = np.repeat(rng.normal(0, 1.0, size=80), 6)
    parts = [
        verdict_frame(
            np.where(rng.random(480) < s(gamma), "first", "second"), np.arange(480) // 6, range(480), [o] * 480
        )
        for o in ("ab", "ba")
    ]
    excess = term(pd.concat(parts), "first_slot_excess")
    alone = term(pd.concat(parts).assign(item_id=lambda f: f["pair_id"]), "first_slot_excess")
    assert excess.std_error > 1.2 * alone.std_error
    assert (excess.n, excess.n_items) == (480, 80)
    assert "McNemar" not in excess.note


def test_single_order_logs_are_undefined_with_the_reason():
    frame = planted_judgments(100, "single", position=0.5)
    single = frame[frame["order"] == "ab"]
    for name in ("first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement", "excess_conflict"):
        row = term(single, name)
        assert (row.status, row.estimate) == ("undefined", None)
        assert "one order" in row.note
    bearable = term(single, "first_slot_excess", "single_order")
    assert bearable.estimate == pytest.approx((single["verdict"] == "first").mean() - 0.5)
    assert "randomised" in bearable.note


def test_unscored_pairs_leave_and_are_bounded():
    frame = counted(60, 30, 210).reset_index(drop=True)
    frame.loc[:19, "verdict"] = "unscored"
    low, high = (term(frame, "first_slot_excess", f"worst_case_{side}") for side in ("low", "high"))
    excess = term(frame, "first_slot_excess")
    assert excess.n == 280
    assert excess.n_unscored == low.n_unscored == 20
    # The twenty were both first: with them the truth is .05, without their leg .05 or .05 − 20/600.
    assert high.estimate == pytest.approx(30 / 600)
    assert low.estimate == pytest.approx(30 / 600 - 20 / 600)
    assert low.estimate <= excess.estimate or excess.estimate <= high.estimate


def test_repeats_average_and_stability_counts_flips():
    # One pair: order ab first, first, second; ba always second.
    frame = verdict_frame(["first", "first", "second"] + ["second"] * 3, [0] * 6, [0] * 6, ["ab"] * 3 + ["ba"] * 3,
                          repeat=[0, 1, 2] * 2)  # fmt: skip
    other = frame.assign(item_id="1", pair_id="1")
    joined = pd.concat([frame, other])
    assert term(joined, "first_slot_excess").estimate == pytest.approx((2 / 3 + 0) / 2 - 0.5)
    # Two of three repeat pairs differ in ab, none in ba.
    assert term(joined, "repetition_stability").estimate == pytest.approx(1 - (2 / 3) / 2)
    assert term(frame[frame["repeat"] == 0], "repetition_stability").status == "undefined"


def test_excess_conflict_is_the_formula_and_unbiased():
    k, n = 4, 3000
    frame = planted_judgments(n, "excess", position=0.5, sd=1.0, repeats=k)
    rates = frame.assign(first=frame["verdict"] == "first").groupby(["pair_id", "order"])["first"].mean().unstack()
    a1, a2 = rates["ab"], 1 - rates["ba"]
    plain = a1 * (1 - a2) + a2 * (1 - a1) - 0.5 * sum(2 * a * (1 - a) * k / (k - 1) for a in (a1, a2))
    row = term(frame, "excess_conflict")
    assert row.estimate == pytest.approx(plain.mean(), abs=1e-12)
    delta = seeds.rng(0, "planted", "excess").normal(size=n)
    truth = np.mean((s(0.5 + delta) - s(-0.5 + delta)) ** 2)
    assert row.estimate == pytest.approx(truth, abs=4 * row.std_error)
    assert term(frame[frame["repeat"] == 0], "excess_conflict").status == "undefined"


def test_identical_pairs_are_probes_only():
    frame = counted(10, 10, 80)
    copies = counted(30, 10, 0).assign(
        identical=True, item_id=lambda f: "i" + f["item_id"], pair_id=lambda f: "i" + f["pair_id"]
    )
    joined = pd.concat([frame, copies])
    assert term(joined, "identical_pair_excess").estimate == pytest.approx(0.25)
    assert term(joined, "identical_pair_excess").n == 40
    assert term(joined, "first_slot_excess").n == 100
    assert term(frame, "identical_pair_excess").status == "undefined"


def test_no_bias_is_never_said_of_too_few_pairs():
    few = term(counted(3, 3, 14), "first_slot_excess")
    assert few.status == "underpowered"
    assert (few.verdict, few.margin) == ("undetected", 0.05)
    assert few.detectable == pytest.approx(surely_detectable(few.std_error, 19))
    many = term(counted(300, 300, 1400), "first_slot_excess")
    assert many.status == "ok"
    assert (many.verdict, many.margin, many.detectable) == ("none", 0.05, None)
    silent = term(counted(0, 0, 10), "first_slot_excess")
    assert silent.conf_low < 0 < silent.conf_high
    assert silent.status == "underpowered"


def test_every_subset_gives_the_same_terms_in_a_valid_frame():
    frame = planted_judgments(30, "subsets")
    full = {(r.term, r.variant) for r in position_estimates(frame)}
    for judgments in (frame, frame.iloc[:0], frame.assign(verdict="unscored"), frame.iloc[:1]):
        rows = position_estimates(judgments, judge="j", panel="pairs", generation=2)
        assert len(estimates_frame(rows)) == len(rows)
        assert {(r.term, r.variant) for r in rows} - {("first_slot_excess", "single_order")} == full
        for row in rows:
            assert (row.estimate is None) == (row.status == "undefined")
            assert row.estimate is None or math.isfinite(row.estimate)
            assert row.status != "undefined" or row.note


@settings(max_examples=examples(8))
@given(seed=st.integers(0, 1000))
def test_swapping_slots_turns_the_sign(seed):
    frame = planted_judgments(40, seed, position=0.3, sd=1.0, pairs_an_item=2)
    turned = frame.assign(verdict=frame["verdict"].map({"first": "second", "second": "first"}))
    estimate, reversed_slots = term(frame, "first_slot_excess"), term(turned, "first_slot_excess")
    assert estimate.estimate == pytest.approx(-reversed_slots.estimate)
    assert estimate.std_error == pytest.approx(reversed_slots.std_error)
    renamed = frame.assign(order=frame["order"].map({"ab": "ba", "ba": "ab"}))
    assert term(renamed, "first_slot_excess").estimate == pytest.approx(estimate.estimate)
    shuffled = frame.sample(frac=1, random_state=seed)
    assert term(shuffled, "first_slot_excess").std_error == pytest.approx(estimate.std_error)


def test_swap_average_is_antisymmetric_and_flattens_by_sech_squared():
    # E2: ½[s(δ+γ) + s(δ−γ)].
    delta = np.linspace(-4, 4, 81)
    for gamma, factor in ((0.5, 0.940), (1.0, 0.786), (2.0, 0.420)):
        mean = (s(delta + gamma) + s(delta - gamma)) / 2
        assert np.max(np.abs(mean + mean[::-1] - 1)) < 1e-12
        h = 1e-5
        slope = (s(h + gamma) + s(h - gamma) - s(-h + gamma) - s(-h - gamma)) / (4 * h)
        assert slope * 4 == pytest.approx(1 / math.cosh(gamma / 2) ** 2, abs=1e-6)
        assert slope * 4 == pytest.approx(factor, abs=6e-4)


@pytest.mark.parametrize(("delta", "gamma"), list(itertools.product((0.3, 1.0), (0.0, 0.8))))
def test_consistent_pairs_double_the_slope(delta, gamma):
    # E3: keep order-consistent pairs, and the log-odds are 2δ whatever γ; unanimous of four, 4δ.
    p1, p2 = s(delta + gamma), s(delta - gamma)
    for power, expected in ((1, 2 * delta), (2, 4 * delta)):
        kept_a, kept_b = (p1 * p2) ** power, ((1 - p1) * (1 - p2)) ** power
        assert math.log(kept_a / kept_b) == pytest.approx(expected, abs=1e-12)


@pytest.mark.slow
def test_planted_position_is_recovered_with_coverage():
    # E1: γ = .4, pair effects of SD 1.5, 500 pairs.
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    truth = float(weights @ ((s(0.4 + 1.5 * nodes) + s(0.4 - 1.5 * nodes)) / 2))
    assert truth == pytest.approx(0.5703, abs=5e-5)
    runs = 250
    log_odds, excesses, cover = [], [], []
    for run in range(runs):
        frame = planted_judgments(500, f"E1/{run}", position=0.4, sd=1.5)
        rows = {(r.term, r.variant): r for r in position_estimates(frame)}
        odds, excess = rows["position_log_odds", ""], rows["first_slot_excess", ""]
        log_odds.append(odds.estimate)
        excesses.append(excess.estimate)
        cover.append((odds.conf_low <= 0.4 <= odds.conf_high, excess.conf_low <= truth - 0.5 <= excess.conf_high))
    assert np.mean(log_odds) == pytest.approx(0.4, abs=4 * np.std(log_odds) / math.sqrt(runs) + 0.002)
    assert np.mean(excesses) == pytest.approx(truth - 0.5, abs=4 * np.std(excesses) / math.sqrt(runs))
    allowed = 0.02 + 3 * math.sqrt(0.95 * 0.05 / runs)
    assert np.mean(cover, axis=0) == pytest.approx([0.95, 0.95], abs=allowed)


@pytest.mark.slow
def test_type_one_error_with_several_matchups_an_item():
    # docs/method.md, "Several matchups an item": six matchups an item and an item-varying γ: McNemar's type I is .12 to
    # .19, the clustered test's is not.
    runs, rejected, naive = 250, [], []
    for run in range(runs):
        rng = seeds.rng(0, "type one", run)
        gamma = np.repeat(rng.normal(0, 1.0, size=60), 6)
        frame = pd.concat([
            verdict_frame(np.where(rng.random(360) < s(gamma), "first", "second"), np.arange(360) // 6, range(360), [o] * 360)
            for o in ("ab", "ba")
        ])  # fmt: skip
        rejected.append(term(frame, "first_slot_excess").p_value < 0.05)
        naive.append(term(frame.assign(item_id=frame["pair_id"]), "first_slot_excess").p_value < 0.05)
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.02 + 3 * math.sqrt(0.05 * 0.95 / runs))
    assert np.mean(naive) > 0.1


def test_n_counts_complete_pairs_whatever_their_repeats():
    rng = seeds.rng(0, "repeats")
    table = pair_table(20)
    verdicts = {f"{order}#{k}": picks(np.full(20, 0.3), rng) for order in ("ab", "ba") for k in range(4)}
    frame = judged(table, verdicts)
    frame.loc[(frame["item_id"] == "i0") & (frame["order"] == "ba"), "verdict"] = "unscored"
    copies = judged(table, verdicts).assign(identical=True, item_id=lambda f: "c" + f["item_id"])
    rows = {row.term: row for row in position_estimates(pd.concat([frame, copies])) if not row.variant}
    for name in ("first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement", "excess_conflict"):
        assert (rows[name].n, rows[name].n_items) == (19, 19), name
    assert rows["repetition_stability"].n == 20
    assert rows["identical_pair_excess"].n == 20


def test_a_null_of_log_odds_from_few_pairs_is_underpowered():
    few, many = counted(10, 10, 20), counted(1500, 1500, 1000)
    assert term(few, "position_log_odds").status == "underpowered"
    assert term(few, "position_log_odds").verdict == "undetected"
    assert term(many, "position_log_odds").status == "ok"
    assert (term(many, "position_log_odds").verdict, term(many, "position_log_odds").margin) == ("none", 0.2)


def test_log_odds_of_few_items_are_the_jackknifes():
    rng = seeds.rng(0, "few log-odds")
    table = pair_table(60, per_item=6)
    gamma = 0.5 + np.repeat(rng.standard_normal(10), 6)
    frame = judged(table, {order: picks(gamma, rng) for order in ("ab", "ba")})

    def log_odds(judgments):
        wide = judgments.pivot_table(index=["item_id", "pair_id"], columns="order", values="verdict", aggfunc="first")
        counts = [((wide["ab"] == slot) & (wide["ba"] == slot)).sum() + 0.5 for slot in ("first", "second")]
        return 0.5 * np.log(counts[0] / counts[1])

    left_out = np.array([log_odds(frame[frame["item_id"] != f"i{k}"]) for k in range(10)])
    estimate = term(frame, "position_log_odds")
    assert "jackknife" in estimate.method
    assert estimate.estimate == pytest.approx(log_odds(frame))
    assert estimate.std_error == pytest.approx(np.sqrt(0.9 * np.sum((left_out - left_out.mean()) ** 2)))
    assert estimate.conf_high - estimate.estimate == pytest.approx(stats.t.ppf(0.975, 9) * estimate.std_error)
