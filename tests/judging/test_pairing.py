"""Pairing: every pair once, both orders always, a limit that renames nothing."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop import seeds
from judgeloop.judging.pairing import call_id, draw_labels, matchups, presentations
from judgeloop.records import Candidate, Matchup


def _candidates(count: int) -> list[Candidate]:
    return [Candidate("i", f"c{index}", f"text {index}") for index in range(count)]


@given(st.integers(2, 9))
def test_all_pairs_equal_the_slow_twin(count: int) -> None:
    candidates = _candidates(count)
    expected, index = [], 0
    for i in range(count):
        for j in range(i + 1, count):
            expected.append(Matchup("i", f"m{index:02d}", candidates[i], candidates[j]))
            index += 1
    assert matchups("i", candidates) == expected
    assert matchups("i", candidates, limit=len(expected)) == expected


@given(st.integers(2, 8), st.integers(1, 40), st.integers(0, 99))
def test_a_limit_keeps_names_and_order(count: int, limit: int, seed: int) -> None:
    everything = matchups("i", _candidates(count))
    some = matchups("i", _candidates(count), limit, seeds.rng(seed, "matchups", "i"))
    assert len(some) == min(limit, len(everything))
    assert some == [matchup for matchup in everything if matchup in some]
    assert some == matchups("i", _candidates(count), limit, seeds.rng(seed, "matchups", "i"))


def test_a_limit_draws_every_pair_alike() -> None:
    counts = Counter(
        matchup.pair_id for seed in range(600) for matchup in matchups("i", _candidates(4), 2, seeds.rng(seed, "limit"))
    )
    # 1,200 draws over 6 pairs: 200 each; four standard deviations of a binomial(600, 1/3) are 46.
    assert set(counts) == {f"m{index:02d}" for index in range(6)}
    assert all(abs(count - 200) < 47 for count in counts.values())


def test_a_limit_needs_a_stream() -> None:
    with pytest.raises(ValueError, match="random stream"):
        matchups("i", _candidates(4), 2)


def test_the_same_candidate_may_be_drawn_twice() -> None:
    one, other = _candidates(2)
    assert [(pair.a, pair.b) for pair in matchups("i", [one, other, one])] == [(one, other), (one, one), (other, one)]


@given(st.integers(2, 5), st.integers(1, 4))
def test_both_orders_are_shown_alike(count: int, repeats: int) -> None:
    pairs = matchups("i", _candidates(count))
    shown = presentations(pairs, repeats)
    assert [(p.matchup, p.order, p.repeat) for p in shown] == list(product(pairs, ("ab", "ba"), range(repeats)))
    slots = Counter((p.matchup.pair_id, p.first.candidate_id) for p in shown)
    assert set(slots.values()) == {repeats}


def test_names_are_readable_and_unique() -> None:
    shown = presentations(matchups("a b/c", _candidates(3)), 2)
    ids = [call_id("s0/g1/judge", p) for p in shown]
    assert ids[0] == "s0/g1/judge/a%20b%2Fc/m00/ab/r0"
    assert len(set(ids)) == len({draw_labels(p) for p in shown}) == len(shown)
