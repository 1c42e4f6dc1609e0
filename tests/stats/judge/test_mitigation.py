"""Mitigations measured on planted judges: what each removes, what it passes on, what it costs, and how surely."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from judgeloop import analysis, seeds
from judgeloop.errors import InvalidInput
from judgeloop.judging.judges import majority as majority_of
from judgeloop.learning.labels import preferences
from judgeloop.learning.signals import fit
from judgeloop.records import Verdict
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.judge.mitigation import Mitigation, majority, mitigation_estimates
from planted_verdicts import NAMES, UNSCALED, planted_judgments, s, texts_of, votes

RULES = ("raw", "swap_average", "consistent_only", "length_controlled")
EMPTY = {"replicate": pd.NA, "arm": "", "generation": pd.NA, "panel": "pairs"}


def judged(
    n, label, *, position=0.4, slopes=(0.5, 0.3), repeats=1, correlation=0.0, pairs_an_item=1, gold=True, **more
):
    """Judgments of a planted judge with calls independent given the pair, and the texts."""
    rng = seeds.rng(0, "mitigation world", str(label))
    deltas = rng.normal(size=(n, 2))
    deltas[:, 1] = correlation * deltas[:, 0] + math.sqrt(1 - correlation**2) * deltas[:, 1]
    frame = planted_judgments(
        n, label, position=position, slopes=slopes, deltas=deltas, repeats=repeats, pairs_an_item=pairs_an_item, **more
    ).assign(**EMPTY)  # fmt: skip
    if gold:
        frame["gold"] = np.tile(votes(deltas[:, 0], label), 2 * repeats)
    return frame, texts_of(deltas, NAMES, pairs_an_item)


def mitigation_rows(frame, texts, rules=RULES, **options) -> dict[tuple[str, str], Estimate]:
    mitigations = [
        Mitigation(rule, preferences(frame, rule), frame, len(frame), ("length",) if "length_c" in rule else ())
        for rule in rules
    ]
    rows = mitigation_estimates(frame, mitigations, texts, RowLabels("j", panel="pairs"), scales=UNSCALED, **options)
    return {(row.term, row.variant): row for row in rows}


# -- planted truth -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0.0, 1.5])
def test_consistency_filtering_doubles_every_content_slope_whatever_the_position(position: float) -> None:
    rows = mitigation_rows(
        *judged(3000, f"doubled {position}", position=position, pairs_an_item=4), rules=("raw", "consistent_only")
    )
    for feature in NAMES:
        passed = rows[f"transmission_{feature}", "consistent_only"]
        assert passed.conf_low < 2.0 < passed.conf_high
        assert passed.conf_high - passed.conf_low < 0.8 * math.sqrt(2)  # 0.8 at 6,000 pairs
        assert passed.scope == "signal"
    assert rows["first_slot_excess", "consistent_only"].estimate == 0.0
    assert rows["first_slot_excess", "consistent_only"].method == "by construction"


def test_unanimity_of_m_calls_multiplies_slopes_by_m() -> None:
    rows = mitigation_rows(
        *judged(3000, "unanimous", slopes=(0.3, 0.2), repeats=2, pairs_an_item=4), rules=("consistent_only",)
    )
    passed = rows["transmission_length", "consistent_only"]
    assert passed.conf_low < 4.0 < passed.conf_high
    assert passed.benchmark == 4
    kept = rows["mitigation_kept", "consistent_only"]
    assert rows["mitigation_cost", "consistent_only"].estimate == pytest.approx(4 / kept.estimate)


@pytest.mark.parametrize("position", [0.5, 2.0])
def test_swap_averaging_cancels_the_slot_and_shrinks_slopes_by_sech_squared(position: float) -> None:
    rows = mitigation_rows(
        *judged(3000, f"swapped {position}", position=position, slopes=(0.1, 0.1), pairs_an_item=4),
        rules=("swap_average",),
    )
    passed = rows["transmission_length", "swap_average"]
    theory = 1 / math.cosh(position / 2) ** 2
    assert abs(passed.estimate - theory) < max(0.02, 2 * passed.std_error)
    assert rows["first_slot_excess", "swap_average"].conf_high == 0.0
    assert rows["mitigation_cost", "swap_average"].estimate == 2.0


def test_raw_labels_are_the_judge_and_keep_its_position() -> None:
    rows = mitigation_rows(*judged(800, "raw"), rules=("raw",))
    passed = rows["transmission_length", "raw"]
    assert (passed.estimate, passed.conf_low, passed.conf_high) == pytest.approx((1.0, 1.0, 1.0))
    assert rows["first_slot_excess", "raw"].conf_low > 0.0
    assert (rows["mitigation_kept", "raw"].estimate, rows["mitigation_cost", "raw"].estimate) == (1.0, 1.0)


def test_length_control_leaves_no_length_while_style_passes_on_and_leaks_what_goes_with_length() -> None:
    frame, texts = judged(3000, "leak", slopes=(0.5, 0.6), correlation=0.7, pairs_an_item=4)
    rows = mitigation_rows(frame, texts, rules=("raw", "length_controlled"))
    assert rows["transmission_length", "length_controlled"].estimate == 0.0
    assert rows["length_ame", "length_controlled"].estimate == 0.0
    assert rows["transmission_bold", "length_controlled"].estimate == pytest.approx(1.0)
    # The truth of a reward on bold alone: P(sign of length = sign of bold) at correlation ρ is ½ + asin(ρ)/π.
    leaked = rows["longer_preferred_raw", "length_controlled"]
    assert leaked.conf_low < 0.5 + math.asin(0.7) / math.pi < leaked.conf_high
    unrelated = mitigation_rows(
        *judged(3000, "no leak", slopes=(0.5, 0.6), pairs_an_item=4), rules=("length_controlled",)
    )
    assert unrelated["longer_preferred_raw", "length_controlled"].conf_low < 0.5


@pytest.mark.parametrize("position", [0.0, 0.8])
def test_at_temperature_0_the_filter_only_drops_what_the_order_decides(position: float) -> None:
    """The noise is the pair's, shared by its orders: a_RJ is d/dη log(s(η−γ)/s(−η−γ)) at 0 = 2s(|γ|), not 2."""
    n = 2500
    rng = seeds.rng(0, "temperature 0", str(position))
    deltas = rng.normal(size=(n, 2))
    margin = deltas @ [0.2, 0.2] + rng.logistic(size=n)
    frame, _ = judged(n, "locked", position=position, gold=False, pairs_an_item=4)
    eta = np.tile(margin, 2) * np.where(frame["order"] == "ab", 1.0, -1.0) + position
    frame = frame.assign(verdict=np.where(eta > 0, "first", "second"))
    rows = mitigation_rows(frame, texts_of(deltas, NAMES, 4), rules=("consistent_only", "swap_average"))
    theory = 2 / (1 + math.exp(-position))
    for feature in NAMES:
        passed = rows[f"transmission_{feature}", "consistent_only"]
        assert passed.conf_low - 0.02 < theory < passed.conf_high + 0.02
    assert "at temperature 0 they are not" in passed.note
    # Swap averaging needs no independence.
    swapped = rows["transmission_length", "swap_average"]
    assert abs(swapped.estimate - 1 / math.cosh(position / 2) ** 2) < 0.03 + 2 * swapped.std_error


def test_shared_noise_of_pairs_lowers_the_measured_doubling() -> None:
    """What calls do not see (a pair's own merit) is shared by its orders, so that the filter gives less than 2: the report
    must say what was measured and not what theory promises."""
    rows = mitigation_rows(*judged(3000, "merit", sd=1.5, pairs_an_item=4), rules=("consistent_only",))
    assert 1.1 < rows["transmission_length", "consistent_only"].conf_high < 2.0


def test_merit_that_gold_knows_is_held_equal_where_asked() -> None:
    n = 2500
    rng = seeds.rng(0, "known merit")
    deltas, margin = rng.normal(size=(n, 2)), 1.5 * rng.normal(size=n)
    frame = planted_judgments(
        n, "known merit", position=0.4, slopes=(0.5, 0.3), deltas=deltas, margin=margin, quality=1.0, pairs_an_item=4
    ).assign(**EMPTY, gold=np.tile(margin, 2))  # fmt: skip
    rows = mitigation_rows(frame, texts_of(deltas, NAMES, 4), rules=("raw", "consistent_only"))
    assert rows["transmission_length", "consistent_only"].conf_high < 2.0
    given = rows["transmission_length", "consistent_only_given_gold"]
    assert given.conf_low < 2.0 < given.conf_high
    assert rows["transmission_length", "raw_given_gold"].estimate == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "truth", "slack"), [("consistent_only", 2.0, 0.0), ("swap_average", 0.9607, 0.0)])
@pytest.mark.parametrize(("n", "pairs_an_item"), [(300, 1), (160, 4)])
def test_intervals_of_transmission_cover(rule: str, truth: float, slack: float, n: int, pairs_an_item: int) -> None:
    """Coverage by docs/method.md, "Coverage criterion", of the joint interval; few items: 40, by Mancl and DeRouen."""
    covered, apart, of = 0, [], 150
    for sample in range(of):
        frame, texts = judged(
            n, f"cover {rule} {n} {sample}", slopes=(0.5, 0.1) if rule == "consistent_only" else (0.4, 0.0),
            pairs_an_item=pairs_an_item, gold=False,
        )  # fmt: skip
        rows = mitigation_rows(frame, texts, rules=(rule,))
        row, alone = rows["transmission_length", rule], rows["transmission_length", f"{rule}_disjoint"]
        covered += row.status != "undefined" and row.conf_low <= truth <= row.conf_high
        covered += row.status == "undefined"
        if alone.status != "undefined" and row.status != "undefined":
            apart.append((alone.conf_high - alone.conf_low) / (row.conf_high - row.conf_low))
    assert abs(covered / of - 0.95) <= 0.02 + 3 * math.sqrt(0.95 * 0.05 / of) + slack
    assert np.median(apart) > 2.0  # why the fits may share picks: the covariance is known, and the halves are wide


# -- the same labels as loops train on -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_slopes_are_those_of_the_signal_that_a_loop_fits(rule: str) -> None:
    frame, texts = judged(400, "twin", pairs_an_item=2, repeats=2)
    frame.loc[::7, "verdict"] = "unscored"
    frame.loc[::11, "verdict"] = "tie"
    signal = fit(
        preferences(frame, rule), texts.set_index(["item_id", "candidate_id"])[NAMES], pd.Series(1.0, index=NAMES), 0.0
    )
    own = fit(
        preferences(frame, "raw"), texts.set_index(["item_id", "candidate_id"])[NAMES], pd.Series(1.0, index=NAMES), 0.0
    )
    rows = mitigation_rows(frame, texts, rules=(rule,))
    for feature in NAMES:
        if rule == "length_controlled" and feature == "length":
            continue
        expected = signal.coefficients[feature] / own.coefficients[feature]
        assert rows[f"transmission_{feature}", rule].estimate == pytest.approx(expected, rel=1e-6)


def test_labels_know_gold_and_agreement_is_of_the_labels() -> None:
    frame, texts = judged(1200, "agreement", slopes=(0.8, 0.0), position=1.0, pairs_an_item=4)
    rows = mitigation_rows(frame, texts, rules=("raw", "swap_average", "consistent_only"))
    raw, kept = rows["gold_agreement", "raw"], rows["gold_agreement", "consistent_only"]
    assert rows["gold_agreement", "swap_average"].estimate == pytest.approx(raw.estimate)
    assert kept.estimate > raw.conf_high
    assert "clearer ones" in kept.note
    by_hand = frame.assign(
        a=np.where(frame["order"] == "ab", frame["verdict"] == "first", frame["verdict"] == "second")
    ).groupby("pair_id").agg(a=("a", "mean"), gold=("gold", "first"))  # fmt: skip
    by_hand = by_hand[by_hand["a"].isin([0.0, 1.0])]
    assert kept.estimate == pytest.approx(np.mean((by_hand["a"] == 1.0) == (by_hand["gold"] == "a")))
    assert kept.n == len(by_hand)


def test_what_is_not_known_is_undefined_and_says_why() -> None:
    frame, texts = judged(300, "partial", gold=False)
    rows = mitigation_rows(frame, texts, rules=("swap_average",))
    assert rows["length_ame", "swap_average"].status == "undefined"
    assert "no gold" in rows["length_ame", "swap_average"].note
    assert rows["longer_preferred_raw", "swap_average"].status == "ok"
    alone = mitigation_rows(frame[frame["order"] == "ab"], texts, rules=("consistent_only",))
    for term in ("transmission_length", "first_slot_excess", "gold_agreement", "mitigation_cost"):
        assert alone[term, "consistent_only"].status == "undefined"
        assert "one order only" in alone[term, "consistent_only"].note
    assert mitigation_rows(frame, None, rules=("raw",))["transmission_length", "raw"].status == "undefined"
    flat = mitigation_rows(*judged(200, "flat", slopes=(0.0, 0.0), gold=False), rules=("consistent_only",))
    assert "not distinguishable from 0" in flat["transmission_length", "consistent_only"].note


def test_soft_verdicts_filtered_to_certainty_are_separated_not_doubled() -> None:
    """A probability without noise is certain of its side: the filter then throws away how sure the judge was."""
    rows = mitigation_rows(*judged(400, "soft", soft=True, gold=False), rules=("consistent_only", "swap_average"))
    assert "separate" in rows["transmission_length", "consistent_only"].note
    assert rows["transmission_length", "swap_average"].status == "ok"


# -- panels, rubrics and what is asked for -------------------------------------------------------------------------------


@settings(max_examples=examples(25))
@given(st.lists(st.sampled_from(["first", "second", "tie", "unscored"]), min_size=1, max_size=7))
def test_majorities_are_those_of_the_panel_judge(slots: list[str]) -> None:
    frame = pd.DataFrame({
        **EMPTY, "item_id": "i", "pair_id": "p", "order": "ab", "repeat": 0, "verdict": slots,
        "judge": [f"m{n}" for n in range(len(slots))], "p_first": np.nan, "gold": "a",
    })  # fmt: skip
    one = majority(frame, "panel").iloc[0]
    assert one["verdict"] == majority_of([Verdict(slot) for slot in slots]).slot
    assert (one["judge"], one["gold"]) == ("panel", "a")


def three_judges(n=700, label="panel"):
    frames = []
    for place, name in enumerate(("m1", "m2", "m1#rubric_scores/json")):
        frame, texts = judged(n, label, position=(0.8, -0.4, 0.1)[place], slopes=(0.6 - 0.25 * place, 0.3))
        noise = seeds.rng(0, "judge", place).random(len(frame))
        deltas = texts[NAMES].to_numpy()[:n]
        eta = deltas @ [0.6 - 0.25 * place, 0.3]
        p = s((0.8, -0.4, 0.1)[place] + np.where(frame["order"] == "ab", 1.0, -1.0) * np.tile(eta, 2))
        frames.append(frame.assign(judge=name, verdict=np.where(noise < p, "first", "second")))
    return pd.concat(frames, ignore_index=True), texts


def test_panel_and_rubric_stand_against_every_judge_of_their_own() -> None:
    judgments, texts = three_judges()
    table = analysis.mitigation_rows(judgments, texts, analysis.named_mitigations("panel,rubric"))
    assert set(table["judge"]) == {"m1", "m2"}
    rows = {(row.judge, row.term, row.variant): row for row in table.itertuples()}
    # The rubric of m1 was planted with a third of its slope, and is asked once a label.
    rubric = rows["m1", "transmission_length", "rubric"]
    assert rubric.conf_low < 0.1 / 0.6 < rubric.conf_high
    assert rows["m1", "mitigation_cost", "rubric"].estimate == 1.0
    assert ("m2", "transmission_length", "rubric") not in rows
    # Two judges: two calls a label, and positions that cancel in part.
    assert rows["m1", "mitigation_cost", "panel"].estimate == 2.0
    assert 0.0 < rows["m1", "first_slot_excess", "panel"].estimate < rows["m1", "first_slot_excess", "raw"].estimate
    assert (table["family"] == "none").all()


def test_a_panel_may_be_the_repeats_of_one_judge() -> None:
    frame, texts = judged(1000, "repeats", repeats=3, position=0.5)
    table = analysis.mitigation_rows(frame.assign(category=""), texts, analysis.named_mitigations(["panel"]))
    rows = {(row.term, row.variant): row for row in table.itertuples()}
    assert rows["mitigation_cost", "panel"].estimate == 3.0
    # A majority of independent calls sharpens what each call leans to, position and length alike.
    assert rows["transmission_length", "panel"].conf_low > 1.2
    assert rows["first_slot_excess", "panel"].estimate > rows["first_slot_excess", "raw"].estimate


def test_what_cannot_be_done_is_refused_before_anything_is_asked() -> None:
    assert analysis.named_mitigations("") == ()
    assert analysis.named_mitigations("rubric, swap_average") == ("raw", "swap_average", "rubric")
    with pytest.raises(InvalidInput, match="did you mean swap_average"):
        analysis.named_mitigations("swap-average")
    with pytest.raises(InvalidInput, match="two or more --model"):
        analysis.check_mitigations(("raw", "panel"), judges=1, repeats=1, asks=True)
    frame, texts = judged(40, "alone")
    for words, why in (("panel", "one judge and no repeats"), ("rubric", "asks the model again")):
        with pytest.raises(InvalidInput, match=why):
            analysis.mitigation_rows(frame, texts, analysis.named_mitigations(words))
    for names, repeats in itertools.product([("panel",), ("rubric",)], [1, 3]):
        analysis.check_mitigations(names, judges=2, repeats=repeats, asks=True)
