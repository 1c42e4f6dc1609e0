"""Listwise position bias by cyclic rotation."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.estimate import RowLabels
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.listwise import (
    choice_frame,
    content_of_choices,
    fit_choices,
    listwise_estimates,
    permanents,
    rotation_test,
    rotations,
    set_estimates,
    slot_log_odds,
)
from rated_rows import worlds


def choices(sets=200, k=4, bonus=0.0, label="listwise"):
    """Texts of unequal quality in all rotations; slot 1 has ``bonus`` log-odds."""
    rng = seeds.rng(0, label)
    rows = []
    for number in range(sets):
        quality = 1.5 * rng.normal(size=k)
        for rotation in range(k):
            shown = quality[(np.arange(k) + rotation) % k] + np.eye(k)[0] * bonus
            picked = int(np.argmax(shown + rng.gumbel(size=k)))
            rows.append({"item_id": str(number), "set_id": "0", "rotation": rotation, "picked": picked})
    return pd.DataFrame(rows)


def test_excesses_are_slot_shares_and_sum_to_nothing():
    frame = choices(bonus=0.8)
    rows = listwise_estimates(frame, 4, RowLabels("j"))
    assert [row.term for row in rows] == [f"slot_{k}_excess" for k in (1, 2, 3, 4)]
    for slot, row in enumerate(rows):
        assert row.estimate == pytest.approx((frame["picked"] == slot).mean() - 0.25)
    assert sum(row.estimate for row in rows) == pytest.approx(0, abs=1e-12)
    assert rows[0].conf_low > 0
    assert (rows[0].n, rows[0].n_items) == (200, 200)


def test_no_bias_is_not_found_and_quality_does_not_matter():
    rows = listwise_estimates(choices(label="fair"), 4, RowLabels("j"))
    assert all(row.conf_low < 0 < row.conf_high for row in rows)


def test_incomplete_sets_leave_and_slots_out_of_range_are_refused():
    frame = choices(sets=10)
    frame["picked"] = frame["picked"].astype("Int64")
    frame.loc[0, "picked"] = pd.NA
    row = listwise_estimates(frame, 4, RowLabels("j"))[0]
    assert (row.n, row.n_unscored) == (9, 1)
    none = listwise_estimates(frame.assign(picked=pd.NA), 4, RowLabels("j"))[0]
    assert none.status == "undefined"
    with pytest.raises(ValueError, match="slot"):
        listwise_estimates(frame.assign(picked=4), 4, RowLabels("j"))


def test_the_permutation_test_is_exact_on_extremes():
    k = 3
    always_first = np.zeros((40, k), dtype=int)
    assert rotation_test(always_first) < 0.001
    # The same text wins wherever it stands: every slot once.
    same_text = (0 - np.arange(k)) % k * np.ones((40, 1), dtype=int)
    assert rotation_test(same_text) == 1.0


# -- slot log-odds: the conditional likelihood against plain enumeration ------------------------------------------------


def enumerated(g, winners):
    """Log of the sum over all placements, and the expected slots, by enumeration."""
    k = len(winners)
    logs, slots = [], []
    for order in itertools.permutations(range(k)):
        picked_slots = [(winners[order[r]] - r) % k for r in range(k)]
        logs.append(sum(g[slot] for slot in picked_slots))
        slots.append(np.bincount(picked_slots, minlength=k))
    weights = np.exp(logs)
    return np.log(weights.sum()), weights @ np.array(slots) / weights.sum()


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_permanents_are_the_sum_over_all_placements(k):
    rng = seeds.rng(0, "permanents", k)
    winners = rng.integers(0, k, size=(6, k))
    g = rng.normal(size=k) * 2
    logs, expected = permanents(g, winners)
    for row, set_winners in enumerate(winners):
        log, slots = enumerated(g, set_winners)
        assert logs[row] == pytest.approx(log)
        assert expected[row] == pytest.approx(slots)


def test_slot_log_odds_give_the_planted_bonus_back():
    covered = {}
    for label in ("one", "two", "three"):
        frame = choices(sets=250, k=4, bonus=0.8, label=label)
        sets = rotations(frame, 4)
        rows = slot_log_odds(sets, 4, RowLabels("j"), sets)
        assert [row.term for row in rows] == [f"slot_{k}_log_odds" for k in (1, 2, 3, 4)]
        covered[label] = rows[0].conf_low <= 0.8 <= rows[0].conf_high
        assert sum(row.estimate for row in rows) == pytest.approx(0, abs=1e-6)
    assert sum(covered.values()) >= 2


def test_two_slots_are_the_position_log_odds_of_pairs():
    frame = choices(sets=300, k=2, bonus=0.6, label="pairs")
    sets = rotations(frame, 2)
    row = slot_log_odds(sets, 2, RowLabels("j"), sets)[0]
    picked = np.argmax(sets.shares, axis=2)
    both_first, both_second = (int((picked == slot).all(axis=1).sum()) for slot in (0, 1))
    assert row.estimate == pytest.approx(0.5 * np.log(both_first / both_second), abs=1e-4)
    assert row.std_error == pytest.approx(0.5 * np.sqrt(1 / both_first + 1 / both_second), rel=0.03)


def test_a_judge_locked_on_a_slot_has_no_log_odds_and_one_locked_on_a_text_tells_nothing():
    base = choices(sets=20, k=3)
    locked = rotations(base.assign(picked=0), 3)
    assert slot_log_odds(locked, 3, RowLabels("j"), locked)[0].status == "undefined"
    text = rotations(base.assign(picked=(0 - base["rotation"]) % 3), 3)
    row = slot_log_odds(text, 3, RowLabels("j"), text)[0]
    assert row.status == "undefined"
    assert "same text wins" in row.note
    consistency = set_estimates(text, RowLabels("j"))[1]
    assert (consistency.term, consistency.estimate) == ("rotation_consistency", 1.0)
    assert set_estimates(locked, RowLabels("j"))[1].estimate == 0.0
    joint = set_estimates(locked, RowLabels("j"))[0]
    assert joint.estimate == pytest.approx(2 / 3)
    assert joint.p_value < 0.001


def test_soft_picks_give_slot_log_odds_exactly():
    rng = seeds.rng(0, "soft")
    rows = []
    for number in range(12):
        quality = rng.normal(size=4)
        for rotation in range(4):
            eta = quality[(np.arange(4) + rotation) % 4] + np.array([0.7, 0, 0, -0.2])
            p = np.exp(eta) / np.exp(eta).sum()
            row = {"item_id": str(number), "set_id": "0", "rotation": rotation, "picked": int(np.argmax(p))}
            rows.append({**row, **{f"p_{j + 1}": p[j] for j in range(4)}})
    estimates = slot_log_odds(rotations(pd.DataFrame(rows), 4), 4, RowLabels("j"))
    assert estimates[0].estimate == pytest.approx(0.7 + 0.2 / 3)
    assert estimates[0].std_error == pytest.approx(0, abs=1e-9)


def test_few_sets_are_counted_in_all_their_ways():
    rng = seeds.rng(0, "few")
    picked = rng.integers(0, 3, size=(3, 3))
    winners = (picked + np.arange(3)) % 3
    permutations = list(itertools.permutations(range(3)))

    def statistic(totals):
        return np.sum((totals / 9 - 1 / 3) ** 2)

    observed = statistic(np.bincount(picked.ravel(), minlength=3))
    extreme = []
    for combination in itertools.product(permutations, repeat=3):
        slots = [(winners[s][combination[s][r]] - r) % 3 for s in range(3) for r in range(3)]
        extreme.append(statistic(np.bincount(slots, minlength=3)) >= observed - 1e-12)
    assert rotation_test(picked) == pytest.approx(np.mean(extreme))


def test_the_permutation_test_keeps_its_level():
    rejected = 0
    for number in range(40):
        frame = choices(sets=25, k=3, label=f"level {number}")
        rejected += rotation_test(rotations(frame, 3).shares) < 0.05
    assert rejected <= 7


# -- content ---------------------------------------------------------------------------------------------------


def test_conditional_logit_agrees_with_statsmodels():
    from statsmodels.discrete.conditional_models import ConditionalLogit

    rng = seeds.rng(0, "oracle")
    x = rng.normal(size=(150, 3, 2))
    picked = np.argmax(x @ np.array([0.7, -0.4]) + rng.gumbel(size=(150, 3)), axis=1)
    ours = fit_choices(("one", "two"), x, np.eye(3)[picked], np.arange(150))
    groups = np.repeat(np.arange(150), 3)
    theirs = ConditionalLogit(np.eye(3)[picked].ravel(), x.reshape(-1, 2), groups=groups).fit(disp=0)
    assert ours.coefficients == pytest.approx(theirs.params, abs=1e-4)
    assert np.sqrt(np.diag(ours.covariance)) == pytest.approx(theirs.bse, rel=0.15)


def test_planted_slopes_slots_and_gold_come_back():
    frame, texts = worlds(gold=0.9)
    rows = choice_frame(frame, 3, texts).set_index(["term", "variant"])
    for key, truth in (
        (("length_log_odds", "given_gold"), 0.6), (("bold_log_odds", "given_gold"), 0.0), (("gold_log_odds", ""), 0.9),
        (("slot_1_log_odds", ""), 0.5),
    ):  # fmt: skip
        row = rows.loc[key]
        assert row["conf_low"] <= truth <= row["conf_high"], key
    assert rows.loc[("length_log_odds", ""), "status"] == "undefined"
    assert rows.loc[("gold_agreement", ""), "conf_low"] > 1 / 3
    assert rows.loc[("position_permutation", ""), "p_value"] < 0.01
    assert rows.loc[("slot_1_excess", ""), "family"] == "exploratory"
    assert "chance is 0.333" in rows.loc[("gold_agreement", ""), "note"]


def test_what_separates_or_has_too_few_items_is_undefined():
    x = np.zeros((30, 2, 1))
    x[:, 0, 0] = 1.0
    shares = np.tile([1.0, 0.0], (30, 1))
    assert isinstance(fit_choices(("x",), x, shares, np.arange(30)), Undefined)
    assert isinstance(fit_choices(("x",), x, shares, np.zeros(30, dtype=int)), Undefined)
    frame, texts = worlds(sets=3)
    rows = choice_frame(frame.assign(gold=""), 3, texts).set_index(["term", "variant"])
    assert rows.loc[("length_log_odds", "no_gold"), "status"] == "undefined"
    assert rows.loc[("gold_agreement", ""), "note"] == "no gold"
    nothing = choice_frame(frame.assign(slot=pd.NA), 3, texts)
    assert set(nothing["status"]) <= {"undefined"}
    assert set(nothing["n_unscored"]) == {9}


def test_a_taste_for_one_length_in_lists_is_not_called_no_effect():
    rng = seeds.rng(0, "one length in lists")
    length = rng.normal(size=(700, 3))
    items = [f"i{k}" for k in range(700)]
    texts = pd.DataFrame(
        {"item_id": np.repeat(items, 3), "candidate_id": np.tile(list("abc"), 700), "length": length.ravel()}
    )
    sets = pd.DataFrame({"item_id": items, "gold": "", **{f"candidate_{n + 1}": name for n, name in enumerate("abc")}})
    for taste in (0.0, 1.5):
        picked = np.argmax(rng.gumbel(size=(700, 3)) - taste * length**2, axis=1)
        rows = content_of_choices(sets.assign(picked=picked), 3, texts, {}, RowLabels("j"))
        raw = next(row for row in rows if (row.term, row.variant) == ("length_log_odds", "no_gold"))
        assert max(abs(raw.conf_low), raw.conf_high) < 0.25
        assert raw.verdict == ("not_linear" if taste else "none")
