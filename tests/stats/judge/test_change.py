"""Whether a judge changed: an unchanged one is rarely said to have, a changed one is seen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.judge.change import changes, with_signs
from judgeloop.stats.multiplicity import holm
from planted_verdicts import s


def _judged(eta: np.ndarray, slot: float, label: object, *, repeats: int = 1, ties: float = 0.0) -> pd.DataFrame:
    """Verdicts on one pair an item, with P(first) = s(slot ± eta)."""
    draw, parts = seeds.rng(0, "change", str(label)), []
    for order, sign in (("ab", 1.0), ("ba", -1.0)):
        for repeat in range(repeats):
            picked = np.where(draw.random(len(eta)) < s(slot + sign * eta), "first", "second")
            picked = np.where(draw.random(len(eta)) < ties, "tie", picked)
            names = [f"i{k}" for k in range(len(eta))]
            texts = pd.DataFrame({"item_id": names, "pair_id": names, "order": order, "verdict": picked}, dtype=object)
            parts.append(texts.assign(repeat=repeat))
    return pd.concat(parts, ignore_index=True)


def _p_values(earlier: pd.DataFrame, later: pd.DataFrame, eta: np.ndarray, *stream: object) -> dict[str, float]:
    """Term → p; longer is the text of a positive ``eta``."""
    gap = np.tile(eta, len(earlier) // len(eta) // 2)
    coded, terms = with_signs(earlier, np.concatenate([gap, -gap]))
    return {term: change.p_value for term, change in changes(coded, later, terms, *map(str, stream)).by_term.items()}


def test_a_change_has_the_interval_of_near_copies_taken_together() -> None:
    eta = np.repeat(seeds.rng(0, "copies").standard_normal(20), 3)
    earlier, later = _judged(eta, 0.0, "c"), _judged(eta, 1.0, "d")
    coded, terms = with_signs(earlier, np.concatenate([eta, -eta]))
    apart, together = (
        changes(frame, later.assign(item_cluster=cluster), terms).by_term["first_slot_excess"]
        for cluster in (later["item_id"], np.tile(np.repeat(np.arange(20), 3).astype(str), 2))
        for frame in [coded.assign(item_cluster=cluster)]
    )
    assert (len(np.unique(apart.items)), len(np.unique(together.items))) == (60, 20)
    assert together.interval().df < 20 < apart.interval().df
    assert together.p_value == apart.p_value  # permuted within presentations, which stay as they are


def test_changes_are_the_differences_of_the_rates() -> None:
    eta = seeds.rng(0, "change world").standard_normal(40)
    earlier, later = _judged(eta, 0.0, "a", repeats=2), _judged(eta, 1.5, "b", repeats=2)
    gap = np.concatenate([eta, eta, -eta, -eta])
    coded, terms = with_signs(earlier, gap)
    moved = changes(coded, later, terms)
    firsts = [float((frame["verdict"] == "first").mean()) for frame in (earlier, later)]
    assert moved.by_term["first_slot_excess"].values.mean() == pytest.approx(firsts[1] - firsts[0])
    longer = [float(((frame["verdict"] == "first") == (gap > 0)).mean()) for frame in (earlier, later)]
    assert moved.by_term["longer_preferred_raw"].values.mean() == pytest.approx(longer[1] - longer[0])
    assert moved.by_term["first_slot_excess"].p_value < 0.01
    assert moved.by_term["disagreement"].values.mean() > 0
    assert (moved.presentations, moved.verdicts) == (80, 160)
    # Verdicts given again are no change, whatever a t interval of no spread would say.
    again = changes(coded, earlier, terms)
    assert again.identical
    assert {change.p_value for change in again.by_term.values()} == {1.0}


def test_one_verdict_a_time_is_the_sign_test_of_the_changed_ones() -> None:
    names = [f"i{k}" for k in range(20)]
    earlier = pd.concat(
        [pd.DataFrame({"item_id": names, "pair_id": names, "order": o, "verdict": "second"}) for o in ("ab", "ba")]
    )
    later = earlier.reset_index(drop=True).copy()
    later.loc[:7, "verdict"] = "first"
    coded, terms = with_signs(earlier, np.full(40, np.nan))
    change = changes(coded, later, terms).by_term["first_slot_excess"]
    assert change.values.mean() == pytest.approx(8 / 40)
    assert change.p_value == pytest.approx(2 / 2**8, abs=0.003)


def test_a_lost_order_moves_nothing() -> None:
    """A pair whose second order was unscored later would read as less of the first slot."""
    eta = np.zeros(30)
    earlier, later = _judged(eta, 3.0, "full"), _judged(eta, 3.0, "full")
    later.loc[later["order"].eq("ab") & later.index.isin(range(10)), "verdict"] = "unscored"
    coded, terms = with_signs(earlier, np.where(earlier["order"] == "ab", 1.0, -1.0))
    moved = changes(coded, later, terms)
    assert moved.identical
    assert len(moved.by_term["longer_preferred_raw"].values) == 20


_WORLDS = {
    "fair, 60 pairs": {"n": 60},
    "biased, 300 pairs": {"n": 300, "slot": 1.0},
    "nearly locked, 60 pairs": {"n": 60, "slot": 2.5},
    "ties": {"n": 60, "ties": 0.3},
    "two repeats": {"n": 60, "slot": 0.5, "repeats": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("world", _WORLDS)
def test_an_unchanged_judge_is_claimed_changed_in_one_report_in_twenty(world: str) -> None:
    """A report is all terms in three generations, by Holm."""
    settings = dict(_WORLDS[world])
    n, slot, replications = int(settings.pop("n")), settings.pop("slot", 0.0), 200
    claimed = 0
    for k in range(replications):
        eta = 1.2 * seeds.rng(1, "change null", world, k).standard_normal(n)
        base, tests = _judged(eta, slot, (world, k, 0), **settings), []
        for t in (1, 2, 3):
            tests += _p_values(base, _judged(eta, slot, (world, k, t), **settings), eta, k, t).values()
        claimed += bool(min(holm(np.array(tests))) <= 0.05)
    rate = claimed / replications
    assert rate <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / replications), rate


@pytest.mark.slow
@pytest.mark.parametrize(("n", "shift", "power"), [(60, 1.5, 0.8), (300, 0.6, 0.8)])
def test_a_change_in_one_generation_alone_is_seen(n: int, shift: float, power: float) -> None:
    found, replications = 0, 60
    for k in range(replications):
        eta = 1.2 * seeds.rng(2, "change", k).standard_normal(n)
        base, tests = _judged(eta, 0.0, (k, 0)), []
        for t in (1, 2, 3, 4):
            tests += _p_values(base, _judged(eta, shift if t == 2 else 0.0, ("alone", k, t)), eta, k, t).values()
        found += bool(min(holm(np.array(tests))) <= 0.05)
    assert found / replications >= power, found
