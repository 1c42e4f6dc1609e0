"""Selections: closed forms (D1, C1), brute enumeration, Monte Carlo, and the picks that best-of-n counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop import seeds
from judgeloop.learning import signals
from judgeloop.learning.labels import preferences
from judgeloop.learning.selection import (
    MOST_GROUPS,
    best_of_n_law,
    expected_advantage,
    move_to_winner,
    tilt,
    winner,
)

NAMES = tuple("abcdef")


def gaussian(low: float = -9.0, high: float = 12.0, cells: int = 1001) -> tuple[dict[str, float], dict[str, float]]:
    """A pool on a fine grid: N(0, 1) masses, and the text's feature x."""
    grid = np.linspace(low, high, cells)
    mass = np.exp(-(grid**2) / 2)
    names = [f"x{index}" for index in range(cells)]
    return dict(zip(names, (mass / mass.sum()).tolist(), strict=True)), dict(zip(names, grid.tolist(), strict=True))


def moments(distribution: dict[str, float], x: dict[str, float]) -> tuple[float, float]:
    mean = math.fsum(mass * x[name] for name, mass in distribution.items())
    return mean, math.fsum(mass * (x[name] - mean) ** 2 for name, mass in distribution.items())


@st.composite
def distributions(draw: Any) -> dict[str, float]:
    masses = draw(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
    return {name: mass / sum(masses) for name, mass in zip(NAMES, masses, strict=False)}


rewards = st.lists(st.sampled_from([-2.0, -0.5, 0.0, 0.5, 3.0]), min_size=6, max_size=6).map(
    lambda values: dict(zip(NAMES, values, strict=True))
)


@pytest.mark.parametrize(("beta", "tau"), [(0.3, 1.0), (1.0, 2.0), (-0.5, 0.5)])
def test_d1_a_tilt_shifts_a_gaussian_by_c_times_its_variance(beta: float, tau: float) -> None:
    pool, x = gaussian()
    selected = tilt(pool, {name: beta * value for name, value in x.items()}, tau)
    mean, variance = moments(selected, x)
    assert mean == pytest.approx(beta / tau, abs=1e-9)
    assert variance == pytest.approx(1.0, abs=1e-9)


@given(reference=distributions(), reward=rewards, tau=st.floats(0.1, 10.0), shift=st.floats(-5, 5))
def test_tilt_invariants(reference: dict[str, float], reward: dict[str, float], tau: float, shift: float) -> None:
    selected = tilt(reference, reward, tau)
    weights = {name: mass * math.exp(reward[name] / tau) for name, mass in reference.items()}
    for name, weight in weights.items():
        assert selected[name] == pytest.approx(weight / sum(weights.values()), abs=1e-12)
    assert list(selected) == list(reference)
    assert math.fsum(selected.values()) == pytest.approx(1.0, abs=1e-12)
    moved = tilt(reference, {name: value + shift for name, value in reward.items()}, tau)
    assert moved == pytest.approx(selected, abs=1e-12)


def test_tilt_never_overflows() -> None:
    half = {"a": 0.5, "b": 0.5, "c": 0.0}
    assert tilt(half, {"a": 1e308, "b": -1e308, "c": 1e308}, 1e-300) == {"a": 1.0, "b": 0.0, "c": 0.0}
    assert tilt(half, {"a": 5000.0, "b": 5000.0, "c": 9999.0}, 1.0) == half
    # The best text has no mass: it must not starve the others of theirs.
    assert tilt(half, {"a": 0.0, "b": 0.0, "c": 1e6}, 1.0) == half


def by_enumeration(reference: dict[str, float], reward: dict[str, float], n: int) -> dict[str, float]:
    law = dict.fromkeys(reference, 0.0)
    for draws in itertools.product(reference, repeat=n):
        probability = math.prod(reference[name] for name in draws)
        best = max(reward[name] for name in draws)
        tied = [name for name in draws if reward[name] == best]
        for name in tied:
            law[name] += probability / len(tied)
    return law


@given(reference=distributions().filter(lambda d: len(d) <= 4), reward=rewards, n=st.integers(1, 4))
def test_best_of_n_law_by_enumeration(reference: dict[str, float], reward: dict[str, float], n: int) -> None:
    support_reward = {**reward, **{name: 99.0 for name, mass in reference.items() if mass == 0.0}}
    law = best_of_n_law(reference, support_reward, n)
    assert law == pytest.approx(by_enumeration(reference, support_reward, n), abs=1e-12)
    assert list(law) == list(reference)


def test_best_of_n_law_by_monte_carlo() -> None:
    reference = {"a": 0.1, "b": 0.2, "c": 0.4, "d": 0.25, "e": 0.05}
    reward = {"a": 1.0, "b": 0.3, "c": 0.3, "d": -1.0, "e": 1.0}
    draws, n = 40_000, 4
    rng = seeds.rng(2, "best of n")
    picked = rng.choice(5, size=(draws, n), p=list(reference.values()))
    values = np.array(list(reward.values()))[picked] + 1e-9 * rng.random((draws, n))
    counts = np.bincount(picked[np.arange(draws), values.argmax(axis=1)], minlength=5)
    law = best_of_n_law(reference, reward, n)
    for name, count in zip(reference, counts, strict=True):
        error = math.sqrt(law[name] * (1 - law[name]) / draws)
        assert count / draws == pytest.approx(law[name], abs=4 * error)


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (4, 1.0294), (8, 1.4236), (16, 1.7660)])
def test_c1_best_of_n_on_a_gaussian_gains_the_expected_maximum(n: int, expected: float) -> None:
    pool, x = gaussian()
    mean, variance = moments(best_of_n_law(pool, x, n), x)
    assert mean == pytest.approx(expected, abs=2e-4)
    if n == 4:
        assert variance == pytest.approx(0.4917, abs=2e-4)


def test_best_of_n_law_keeps_the_digits_of_small_masses() -> None:
    tiny = {"low": 1.0 - 1e-15, "high": 1e-15}
    assert best_of_n_law(tiny, {"low": 0.0, "high": 1.0}, 8)["high"] == pytest.approx(8e-15, rel=1e-12)


def test_winner_splits_ties() -> None:
    assert winner({"a": 1.0, "b": 3.0, "c": 3.0}) == {"a": 0.0, "b": 0.5, "c": 0.5}
    assert winner({"a": -1.0}) == {"a": 1.0}
    assert winner({}) == {}


@given(weights=distributions(), reward=rewards, data=st.data())
def test_move_to_winner_invariants(weights: dict[str, float], reward: dict[str, float], data: Any) -> None:
    drawn = {name: data.draw(st.integers(0, 2)) for name in weights}
    after = move_to_winner(weights, drawn, reward)
    assert list(after) == list(weights)
    assert math.fsum(after.values()) == pytest.approx(1.0, abs=1e-12)
    for name, weight in weights.items():
        if drawn[name] == 0:
            assert after[name] == weight
    before_mean, after_mean = (math.fsum(d[name] * reward[name] for name in d) for d in (weights, after))
    assert after_mean >= before_mean - 1e-12
    assert move_to_winner(weights, drawn, dict.fromkeys(NAMES, 0.0)) == pytest.approx(weights, abs=1e-12)


def test_move_to_winner_moves_what_was_drawn() -> None:
    weights = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    moved = move_to_winner(weights, {"a": 1, "b": 2, "c": 1}, {"a": 5.0, "b": 1.0, "c": 0.0})
    assert moved == pytest.approx({"a": 0.6, "b": 0.0, "c": 0.0, "d": 0.4}, abs=1e-15)
    tied = move_to_winner(weights, {"a": 1, "b": 1, "c": 1}, {"a": 5.0, "b": 5.0, "c": 0.0})
    assert tied == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.0, "d": 0.4}, abs=1e-15)
    unjudged = move_to_winner(weights, {"a": 1, "b": 1, "c": 1}, {"a": 5.0, "b": 1.0})
    assert unjudged == pytest.approx({"a": 0.3, "b": 0.0, "c": 0.3, "d": 0.4}, abs=1e-15)
    assert move_to_winner(weights, {"a": 1}, {}) == weights


def test_wrong_input_is_refused() -> None:
    half = {"a": 0.5, "b": 0.5}
    with pytest.raises(ValueError, match="tau must be a positive number"):
        tilt(half, half, 0.0)
    with pytest.raises(ValueError, match="'b' has mass but no reward"):
        tilt(half, {"a": 1.0}, 1.0)
    with pytest.raises(ValueError, match="the reward of 'b' is nan"):
        best_of_n_law(half, {"a": 1.0, "b": math.nan}, 2)
    with pytest.raises(ValueError, match="n must be 1 or more"):
        best_of_n_law(half, half, 0)
    with pytest.raises(ValueError, match="sums to 1, not"):
        tilt({"a": 0.5}, half, 1.0)
    with pytest.raises(ValueError, match="no negative mass"):
        tilt({"a": 1.5, "b": -0.5}, half, 1.0)
    with pytest.raises(ValueError, match="not in the pool: z"):
        move_to_winner(half, {"z": 1}, {"z": 1.0})
    with pytest.raises(ValueError, match="the reward of 'a' is inf"):
        winner({"a": math.inf})
    assert tilt({}, {}, 1.0) == best_of_n_law({}, {}, 2) == {}


def panel(rows: list[tuple[str, str, str, str, str, float | None]], **constant: Any) -> pd.DataFrame:
    """Rows of (item, pair, first, second, verdict, p_first); the order is ab where the first name is the smaller."""
    table = pd.DataFrame(
        rows, columns=["item_id", "pair_id", "candidate_first", "candidate_second", "verdict", "p_first"]
    )
    table["order"] = np.where(table["candidate_first"] <= table["candidate_second"], "ab", "ba")
    common: dict[str, Any] = {"replicate": 0, "arm": "judge", "generation": 1, "repeat": 0, "identical": False}
    return table.assign(**(common | constant)).astype({"p_first": "float64"})


def test_picks_are_counted_over_both_orders() -> None:
    table = panel(
        [
            ("i", "p", "a", "b", "first", None),
            ("i", "p", "b", "a", "second", None),
            ("i", "q", "a", "c", "tie", None),
            ("i", "q", "c", "a", "first", 0.75),
            ("i", "r", "b", "c", "unscored", None),
            ("j", "p", "a", "b", "unscored", None),
        ]
    )
    same = panel([("k", "p", "a", "b", "first", None)], identical=True)
    both = pd.concat([table, same], ignore_index=True)
    picks = signals.pick_counts(both, preferences(both, "raw"))
    assert picks.index.names == ["item_id", "candidate_id"]
    assert picks.to_dict() == {
        ("i", "a"): 2.75, ("i", "b"): 0.0, ("i", "c"): 1.25, ("j", "a"): 0.0, ("j", "b"): 0.0, ("k", "a"): 0.0,
        ("k", "b"): 0.0,
    }  # fmt: skip
    consistent = signals.pick_counts(table, preferences(table, "consistent_only"))
    assert consistent[("i", "a")] == 1.0
    assert consistent.sum() == 1.0


def test_picks_of_two_generations_are_not_added() -> None:
    row = ("i", "p", "a", "b", "first", None)
    with pytest.raises(ValueError, match="one replicate, arm and generation"):
        signals.pick_counts(pd.concat([panel([row]), panel([row], generation=2)]), preferences(panel([row]), "raw"))


def test_no_judgments_no_picks() -> None:
    assert signals.pick_counts(panel([]), preferences(panel([]), "raw")).empty


def enumerated(reference: dict[str, float], score: dict[str, float], size: int, divided: bool, epsilon: float) -> dict[str, float]:  # fmt: skip
    """E[A_j | j drawn] by the definition: every ordered group that has j in front, with its probability."""
    expected = {}
    for first in (name for name, mass in reference.items() if mass > 0):
        total = 0.0
        for others in itertools.product(reference, repeat=size - 1):
            group = [score[first], *(score[name] for name in others)]
            mean = math.fsum(group) / size
            sd = math.sqrt(math.fsum((value - mean) ** 2 for value in group) / (size - 1))
            advantage = group[0] - mean if len(set(group)) > 1 else 0.0
            if divided and advantage:
                advantage /= sd + epsilon
            total += math.prod(reference[name] for name in others) * advantage
        expected[first] = total
    return expected


@given(distributions(), rewards, st.integers(2, 4), st.sampled_from(["sd", "none"]), st.sampled_from([0.0, 1e-4, 0.5]))
def test_expected_advantage_by_enumeration(
    reference: dict[str, float], score: dict[str, float], size: int, normalize: Any, epsilon: float
) -> None:
    unused = seeds.rng(0, "unused")
    found = expected_advantage(reference, score, size, normalize=normalize, epsilon=epsilon, rng=unused)
    assert found == pytest.approx(enumerated(reference, score, size, normalize == "sd", epsilon), abs=1e-12)
    assert math.fsum(reference[name] * value for name, value in found.items()) == pytest.approx(0.0, abs=1e-12)
    assert unused.random() == seeds.rng(0, "unused").random()


@given(distributions(), rewards, st.integers(2, 16), st.floats(0.1, 5.0))
def test_without_the_sd_a_step_is_the_tilt_of_the_scores(
    reference: dict[str, float], score: dict[str, float], size: int, step: float
) -> None:
    advantage = expected_advantage(reference, score, size, normalize="none", rng=seeds.rng(0, "unused"))
    closed = tilt(reference, score, size / (step * (size - 1)))
    assert tilt(reference, advantage, 1.0 / step) == pytest.approx(closed, abs=1e-12)


def test_expected_advantage_of_too_many_groups_is_drawn_within_its_stated_error() -> None:
    size, stream = 4, np.random.default_rng(3)
    scores, masses = stream.normal(size=40), stream.dirichlet(np.ones(40))
    assert math.comb(40 + size - 2, size - 1) > MOST_GROUPS
    names = [f"k{n}" for n in range(40)]
    reference = dict(zip(names, masses.tolist(), strict=True))
    score = dict(zip(names, scores.tolist(), strict=True))
    draws = [seeds.rng(n, "groups") for n in range(20)]
    found = np.array(
        [list(expected_advantage(reference, score, size, normalize="sd", rng=one).values()) for one in draws]
    )
    # All 40³ groups of the others.
    others = np.array(list(itertools.product(range(40), repeat=size - 1)))
    weights = masses[others].prod(axis=1)
    exact = []
    for value in scores:
        group = np.column_stack([np.full(len(others), value), scores[others]])
        sd = group.std(axis=1, ddof=1)
        exact.append(weights @ np.where(sd > 1e-12, (value - group.mean(axis=1)) / np.maximum(sd, 1e-12), 0.0))
    error = np.sqrt((masses * (found - np.array(exact)) ** 2).sum(axis=1))
    assert np.sqrt(np.mean(error**2)) < 0.01
    assert error.max() < 0.04


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_sd_pushes_a_judge_that_all_but_agrees_as_hard_as_one_that_does_not(size: int) -> None:
    """Σ_j A_j(s_j − m) = (K − 1)·SD: the push in SDs of the scores is (K − 1)/K·E SD/SD(s) at any spread; without the division
    it shrinks with the spread."""
    reference = dict(zip(NAMES, (0.3, 0.25, 0.2, 0.1, 0.1, 0.05), strict=True))
    worth = dict(zip(NAMES, (1.3, -0.4, 0.2, 2.0, -1.1, 0.7), strict=True))
    sds = 0.0
    for group in itertools.product(NAMES, repeat=size):
        values = np.array([worth[name] for name in group])
        sds += math.prod(reference[name] for name in group) * float(values.std(ddof=1))
    for spread in (1.0, 1e-3, 1e-9):
        score = {name: spread * value for name, value in worth.items()}
        unused = seeds.rng(0, "unused")
        divided = expected_advantage(reference, score, size, normalize="sd", rng=unused)
        plain = expected_advantage(reference, score, size, normalize="none", rng=unused)
        _, variance = moments(reference, worth)
        push, without = (
            math.fsum(mass * advantage[name] * worth[name] for name, mass in reference.items())
            for advantage in (divided, plain)
        )
        assert push == pytest.approx((size - 1) / size * sds, rel=1e-9)
        assert without == pytest.approx((size - 1) / size * spread * variance, rel=1e-9)


def test_a_pair_s_divided_advantage_is_the_sign_alone() -> None:
    reference = dict(zip("abc", (0.5, 0.3, 0.2), strict=True))
    score = {"a": 0.0, "b": 1e-7, "c": 50.0}
    found = expected_advantage(reference, score, 2, normalize="sd", rng=seeds.rng(0, "unused"))
    half = 1.0 / math.sqrt(2.0)
    assert found == pytest.approx({"a": -0.5 * half, "b": (0.5 - 0.2) * half, "c": 0.8 * half})


def test_epsilon_is_the_spread_below_which_scores_count_as_equal() -> None:
    reference, unused = {"a": 0.5, "b": 0.5}, seeds.rng(0, "unused")
    apart, near = (
        expected_advantage(reference, {"a": 0.0, "b": gap}, 2, normalize="sd", epsilon=1e-4, rng=unused)["b"]
        for gap in (1.0, 1e-7)
    )
    assert apart > 0.35
    assert near < 3e-4


def test_expected_advantage_of_one_score_is_nothing_and_of_none_empty() -> None:
    unused = seeds.rng(0, "unused")
    same = dict.fromkeys("abc", 0.1 + 0.2)
    for normalize in ("sd", "none"):
        third: Any = {"normalize": normalize, "rng": unused}
        found = expected_advantage(dict.fromkeys("abc", 1 / 3), same, 8, **third)
        assert found == pytest.approx(dict.fromkeys("abc", 0.0), abs=1e-15)
        assert expected_advantage({}, {}, 2, **third) == {}
    with pytest.raises(ValueError, match="2 texts or more"):
        expected_advantage({"a": 1.0}, {"a": 0.0}, 1, normalize="sd", rng=unused)
    with pytest.raises(ValueError, match="has mass but no reward"):
        expected_advantage({"a": 1.0}, {}, 2, normalize="sd", rng=unused)
