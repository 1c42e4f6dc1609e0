"""One feedback step: judgments in, selection out, in every combination of signal, update and support."""

from __future__ import annotations

import functools
import math
from itertools import combinations
from typing import Any

import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.experiment.schema import BestOfNSignalSpec, BradleyTerrySignalSpec, GroupAdvantageSignalSpec
from judgeloop.learning import selection
from judgeloop.learning.signals import LearnedSelection, Support, learn, learn_from_scores
from judgeloop.records import JUDGMENT_COLUMNS

ITEMS = [f"i{n}" for n in range(8)]
NAMES = ["c0", "c1", "c2", "c3"]
SCALE = pd.Series({"length": 2.0, "bold": 0.5})
BT = BradleyTerrySignalSpec


def _features() -> pd.DataFrame:
    """Every item's texts differ in length alone, in bold alone, or in both."""
    rows = {(i, name): (float(k + n % 3), float((k * 3 + n) % 4)) for n, i in enumerate(ITEMS) for k, name in enumerate(NAMES)}  # fmt: skip
    index = pd.MultiIndex.from_tuples(list(rows), names=["item_id", "candidate_id"])
    return pd.DataFrame(list(rows.values()), index=index, columns=["length", "bold"])


def _judged(slopes: tuple[float, float] = (0.8, 0.3), shown: list[str] = NAMES, verdict: str = "") -> pd.DataFrame:
    """Soft verdicts of a judge with those slopes on length and bold, all pairs of the shown texts in both orders."""
    return _verdicts(slopes, tuple(shown), verdict).copy()


@functools.cache
def _verdicts(slopes: tuple[float, float], shown: tuple[str, ...], verdict: str) -> pd.DataFrame:
    features, rows = _features().to_dict("index"), []
    for item in ITEMS:
        for number, (a, b) in enumerate(combinations(shown, 2)):
            for order, first, second in (("ab", a, b), ("ba", b, a)):
                one, other = features[item, first], features[item, second]
                difference = {name: one[name] - other[name] for name in one}
                p = 1.0 / (1.0 + math.exp(-(slopes[0] * difference["length"] + slopes[1] * difference["bold"])))
                said, p_first = (
                    (verdict, None) if verdict else ("first" if p > 0.5 else "second" if p < 0.5 else "tie", p)
                )
                rows.append((0, "a", 0, "policy", item, "", f"m{number:02d}", "j", order, 0, said, p_first, "", first, second, False, "", ""))  # fmt: skip
    frame = pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))
    return frame.astype({"p_first": "float64"})


def _supports(drawn: list[str] = NAMES, extra: bool = False) -> dict[str, Support]:
    """Weights .4 .3 .2 .1; ``extra`` leaves the undrawn texts in the reference, as a pool does."""
    weights = dict(zip(NAMES, (0.4, 0.3, 0.2, 0.1), strict=True))
    kept = NAMES if extra else drawn
    total = sum(weights[name] for name in kept)
    return {i: Support({name: weights[name] / total for name in kept}, dict.fromkeys(drawn, 1)) for i in ITEMS}


def _learn(spec: Any, judgments: pd.DataFrame, supports: dict[str, Support], *, on_pool: bool) -> LearnedSelection:
    return learn(spec, judgments, _features(), SCALE, supports, on_pool=on_pool, size=4)


SPECS: list[Any] = [BT(), BT(update="best_of_n"), BT(label_rule="swap_average", tau=0.5), BT(label_rule="consistent_only"), BT(label_rule="length_controlled"), BestOfNSignalSpec(), BestOfNSignalSpec(label_rule="swap_average"), BestOfNSignalSpec(label_rule="consistent_only")]  # fmt: skip


@pytest.mark.parametrize("on_pool", [True, False])
@pytest.mark.parametrize("spec", SPECS)
def test_every_selection_is_a_distribution_that_moves_to_what_the_judge_prefers(spec: Any, on_pool: bool) -> None:
    supports = _supports()
    learned = _learn(spec, _judged((1.0, 0.0) if spec.label_rule != "length_controlled" else (0.0, 1.0)), supports, on_pool=on_pool)  # fmt: skip
    feature = "bold" if spec.label_rule == "length_controlled" else "length"
    values = _features()[feature]
    before = after = 0.0
    for item in ITEMS:
        found = learned.selection[item]
        assert list(found) == NAMES
        assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)
        assert min(found.values()) >= 0.0
        before += sum(mass * values[(item, name)] for name, mass in supports[item].reference.items())
        after += sum(mass * values[(item, name)] for name, mass in found.items())
    assert after > before + 0.5
    assert (learned.signal is None) == (spec.kind == "best_of_n")
    assert set(learned.preferences["label_rule"]) == {spec.label_rule}


def test_tilt_is_the_reference_times_the_exponential_reward_on_pool_and_candidates() -> None:
    for on_pool in (True, False):
        learned = _learn(BT(tau=0.7), _judged(), _supports(), on_pool=on_pool)
        assert learned.signal is not None
        raw = {name: _supports()["i0"].reference[name] * math.exp(learned.rewards["i0"][name] / 0.7) for name in NAMES}
        total = sum(raw.values())
        assert learned.selection["i0"] == pytest.approx({name: mass / total for name, mass in raw.items()}, rel=1e-12)


def test_a_fitted_best_of_n_is_the_exact_law_on_a_pool_and_the_best_of_the_candidates() -> None:
    judged, supports = _judged(), _supports()
    on_pool = _learn(BT(update="best_of_n"), judged, supports, on_pool=True)
    of_candidates = _learn(BT(update="best_of_n"), judged, supports, on_pool=False)
    for item in ITEMS:
        assert on_pool.selection[item] == selection.best_of_n_law(supports[item].reference, on_pool.rewards[item], 4)
        best = max(NAMES, key=of_candidates.rewards[item].__getitem__)
        assert of_candidates.selection[item] == {name: float(name == best) for name in NAMES}


def test_a_fitted_reward_reaches_pool_texts_that_were_not_drawn_and_picks_do_not() -> None:
    shown = ["c0", "c1"]
    supports = _supports(shown, extra=True)
    fitted = _learn(BT(), _judged((1.0, 0.0), shown), supports, on_pool=True)
    assert fitted.selection["i0"]["c3"] > supports["i0"].reference["c3"]
    picked = _learn(BestOfNSignalSpec(), _judged((1.0, 0.0), shown), supports, on_pool=True)
    assert picked.selection["i0"] == pytest.approx({"c0": 0.0, "c1": 0.7, "c2": 0.2, "c3": 0.1})
    assert set(picked.rewards["i0"]) == {"c0", "c1"}


def test_of_candidates_the_winner_is_among_those_that_were_judged() -> None:
    learned = _learn(BestOfNSignalSpec(), _judged((1.0, 0.0), ["c0", "c1"]), _supports(), on_pool=False)
    assert learned.selection["i0"] == {"c0": 0.0, "c1": 1.0}


@pytest.mark.parametrize("on_pool", [True, False])
@pytest.mark.parametrize("verdict", ["unscored", None])
@pytest.mark.parametrize("spec", SPECS)
def test_where_nothing_was_compared_the_reference_stays(spec: Any, verdict: str | None, on_pool: bool) -> None:
    shown = ["c0", "c1"]  # a limit of matchups: some texts were never shown at all
    judged = _judged(shown=shown, verdict="unscored") if verdict else _judged().iloc[:0]
    supports = _supports(NAMES)
    if not on_pool:
        supports = {i: Support(dict.fromkeys(NAMES, 0.25), dict.fromkeys(NAMES, 1)) for i in ITEMS}
    learned = _learn(spec, judged, supports, on_pool=on_pool)
    assert learned.preferences.empty
    for item in ITEMS:
        assert learned.selection[item] == pytest.approx(dict(supports[item].reference), abs=1e-12)
    assert learned.signal is None or not learned.signal.converged


@pytest.mark.parametrize("on_pool", [True, False])
def test_an_item_whose_replies_are_all_unscored_keeps_its_reference_under_picks(on_pool: bool) -> None:
    judged = _judged(shown=["c0", "c1", "c2"])
    judged.loc[judged["item_id"] == "i3", ["verdict", "p_first"]] = ["unscored", math.nan]
    learned = _learn(BestOfNSignalSpec(), judged, _supports(), on_pool=on_pool)
    assert learned.selection["i3"] == _supports()["i3"].reference
    assert learned.selection["i0"] != _supports()["i0"].reference


def test_an_item_without_texts_has_no_selection() -> None:
    supports = {**_supports(), "lost": Support({}, {})}
    for spec in (BT(), BestOfNSignalSpec()):
        assert set(_learn(spec, _judged(), supports, on_pool=True).selection) == set(ITEMS)


def test_length_controlled_makes_the_reward_independent_of_length() -> None:
    judged, supports = _judged((1.5, 0.4)), _supports()
    controlled = _learn(BT(label_rule="length_controlled"), judged, supports, on_pool=True)
    raw = _learn(BT(), judged, supports, on_pool=True)
    assert controlled.signal is not None
    assert raw.signal is not None
    assert controlled.signal.coefficients["length"] == 0.0
    # Length was in the fit: the other coefficient is the one that it has beside length.
    assert controlled.signal.coefficients["bold"] == raw.signal.coefficients["bold"] > 0.0
    longer = _features().assign(length=lambda frame: frame["length"] * 100 + 7)
    pd.testing.assert_series_equal(controlled.signal.reward(longer), controlled.signal.reward(_features()))
    for item in ITEMS:
        by_bold: dict[float, set[float]] = {}
        for name in NAMES:
            by_bold.setdefault(_features().loc[(item, name), "bold"], set()).add(controlled.rewards[item][name])
        assert all(len(rewards) == 1 for rewards in by_bold.values())


def test_the_order_of_the_judgments_changes_nothing() -> None:
    judged = _judged()
    for spec in SPECS:
        straight = _learn(spec, judged, _supports(), on_pool=True)
        shuffled = _learn(spec, judged.sample(frac=1.0, random_state=3), _supports(), on_pool=True)
        assert straight.selection == shuffled.selection


@pytest.mark.parametrize("normalize", ["sd", "none"])
def test_scores_move_a_pool_and_a_text_without_one_keeps_its_weight(normalize: Any) -> None:
    spec = GroupAdvantageSignalSpec(normalize=normalize, step=0.8)
    supports = _supports()
    scores = {item: {"c0": 0.0, "c1": 3.0, "c3": 1.0} for item in ITEMS[:3]} | {ITEMS[3]: {}}
    learned = learn_from_scores(
        spec, _judged(verdict="tie"), scores, supports, size=4, stream=lambda item: seeds.rng(0, "groups", item)
    )
    assert learned.signal is None
    for item in ITEMS:
        known = {name: value for name, value in learned.rewards[item].items() if not math.isnan(value)}
        assert known == scores.get(item, {})
    assert set(learned.preferences["label_rule"]) == {"raw"}
    for item in ITEMS[3:]:  # nothing was scored
        assert learned.selection[item] == supports[item].reference
    for item in ITEMS[:3]:
        found, reference = learned.selection[item], supports[item].reference
        assert list(found) == NAMES
        assert math.fsum(found.values()) == pytest.approx(1.0, abs=1e-12)
        assert found["c2"] == reference["c2"]
        up = [math.log(found[name] / reference[name]) for name in ("c0", "c3", "c1")]
        assert up == sorted(up)
        if normalize == "none":
            assert [value - up[0] for value in up] == pytest.approx([0.0, 0.8 * 3 / 4, 0.8 * 3 * 3 / 4])
