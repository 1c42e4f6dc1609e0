"""The ranking of contenders: no order that the intervals do not support, and none by what was not measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from compare_case import Judges, bias, contender, log
from judgeloop.stats.compare.differences import Difference
from judgeloop.stats.compare.ranking import compared, ranked
from judgeloop.stats.estimate import Estimate


def gap(first: str, second: str, term: str, low: float, high: float, p: float) -> Difference:
    row = Estimate(
        scope="judge",
        bias="position",
        term=term,
        estimate=(low + high) / 2,
        conf_low=low,
        conf_high=high,
        p_value=p,
        p_adjusted=p,
        family="confirmatory",
    )
    return Difference(first, second, "pairs", None, None, row)


def test_the_order_is_what_the_intervals_support() -> None:
    slot = "first_slot_excess"
    clear = ranked([bias("b", (slot, 0.10, 0.14)), bias("a", (slot, -0.02, 0.04))], [])
    assert (clear.clear, [(entry.name, entry.place) for entry in clear.places]) == (True, [("a", 1), ("b", 2)])
    overlap = [bias("a", (slot, 0.01, 0.09)), bias("b", (slot, 0.05, 0.12))]
    assert not ranked(overlap, []).clear
    assert ranked(overlap, []).why == "no ranking: intervals overlap"
    assert [entry.place for entry in ranked(overlap, []).places] == [1, 1]
    # A place counts the contenders shown to be better: b overlaps with both a and c, which differ.
    chain = ranked([bias("a", (slot, 0.0, 0.04)), bias("b", (slot, 0.03, 0.07)), bias("c", (slot, 0.06, 0.1))], [])
    assert [(entry.name, entry.place) for entry in chain.places] == [("a", 1), ("b", 1), ("c", 2)]
    assert chain.separated == {("a", "c")}
    assert not chain.apart("b", "c")
    # The paired difference is sharper than the two intervals.
    assert ranked(overlap, [gap("a", "b", slot, -0.06, -0.01, 0.01)]).clear
    assert not ranked(overlap, [gap("a", "b", slot, -0.06, -0.01, 0.2)]).clear
    assert not ranked(overlap, [gap("a", "b", slot, -0.06, 0.01, 0.01)]).clear
    # Another term of the first reaches further than what the second is shown to reach.
    two = [
        bias("a", (slot, 0.01, 0.09), ("length_ame", -0.08, 0.08)),
        bias("b", (slot, 0.05, 0.12), ("length_ame", 0.0, 0.01)),
    ]
    assert not ranked(two, [gap("a", "b", slot, -0.06, -0.01, 0.01)]).clear
    # Opposite signs: a signed difference does not show which is the larger.
    opposite = [bias("a", (slot, -0.09, -0.01)), bias("b", (slot, 0.05, 0.12))]
    assert not ranked(opposite, [gap("a", "b", slot, -0.2, -0.1, 0.001)]).clear


def test_nobody_ranks_better_for_not_being_measured() -> None:
    known = bias("known", ("first_slot_excess", 0.0, 0.02), ("length_ame", 0.2, 0.3))
    silent = bias("silent", ("first_slot_excess", 0.06, 0.08))
    ranking = ranked([known, silent], [])
    assert [entry.name for entry in ranking.places] == ["known", "silent"]
    assert ranking.left_out == ("length_ame: not identified for silent",)
    assert ranked([known, bias("x", ("padding_probe", 0.0, 0.1))], []).places == ()
    control = dataclasses.replace(silent, is_control=True)
    assert ranked([known, control], []).places == ()


def test_position_alone_is_no_recommendation() -> None:
    slot = ("first_slot_excess", -0.02, 0.04)
    alone = ranked([bias("a", slot), bias("b", ("first_slot_excess", 0.10, 0.14))], [])
    assert (alone.clear, alone.content_known, alone.recommended) == (True, False, False)
    both = ranked(
        [
            bias("a", slot, ("length_ame", 0.0, 0.02)),
            bias("b", ("first_slot_excess", 0.1, 0.14), ("length_ame", 0.0, 0.02)),
        ],
        [],
    )
    assert (both.clear, both.recommended) == (True, True)


def test_transmission_and_unscored_replies_weigh_in() -> None:
    plain = bias("plain", ("length_ame", 0.02, 0.06))
    passed = Estimate(
        scope="signal", bias="verbosity", term="transmission_length", estimate=2.0, conf_low=1.8, conf_high=2.2
    )
    doubled = dataclasses.replace(bias("doubled", ("length_ame", 0.02, 0.06)), rows=(*plain.rows, passed))
    harms = {entry.name: entry.harms[0] for entry in ranked([plain, doubled], []).places}
    assert harms["doubled"].worst == pytest.approx(2.2 * harms["plain"].worst)
    hidden = Estimate(
        scope="judge", bias="position", term="first_slot_excess", variant="worst_case_high", estimate=0.2, n_unscored=9
    )
    slot = bias("s", ("first_slot_excess", 0.0, 0.02))
    lost = dataclasses.replace(slot, name="lost", rows=(*slot.rows, hidden))
    assert [entry.harms[0].worst for entry in ranked([slot, lost], []).places] == pytest.approx([0.02, 0.2])
    of_length = dataclasses.replace(hidden, term="length_ame")
    longer = dataclasses.replace(plain, name="longer", rows=(*plain.rows, of_length))
    assert [entry.harms[0].worst for entry in ranked([plain, longer], []).places] == pytest.approx([0.06, 0.2])


def test_many_contenders_are_compared_with_the_first_and_the_least_harmful(tmp_path: Path) -> None:
    judges: Judges = {f"j{k}": (0.2 + 0.1 * k, 0.1, 1.0) for k in range(8)}
    contenders = [contender(name, log({name: value}, items=40)) for name, value in judges.items()]
    rows = [
        bias(one.name, ("first_slot_excess", 0.01 * (9 - k), 0.01 * (10 - k))).rows for k, one in enumerate(contenders)
    ]
    comparison = compared([dataclasses.replace(one, rows=own) for one, own in zip(contenders, rows, strict=True)])
    assert comparison.ranking.places[0].name == "j7"
    assert set(comparison.pairings) == {("j0", f"j{k}") for k in range(1, 8)} | {(f"j{k}", "j7") for k in range(1, 7)}
