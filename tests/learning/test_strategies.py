"""Strategies: what mixes, exactly, and rows D1, D2 and D3 of docs/method.md, "Analytic truths" on a grid of a Gaussian.

What the closed forms claim, and what is tested here:

- replace on a pool (D1): tilting N(μ, 1) gives N(μ + c, 1), so μ_T = Tc holds exactly, with no refit.
- accumulate (D2) holds exactly in the *moments* where each generation's policy is a Gaussian refitted to its training
  set (its mean and variance, or its mean and variance 1). A pool policy is not refitted: its mixture is tilted as it is,
  and the tilt of a mixture is no Gaussian. There D2 is an approximation, and the exact law is another: a mixture of
  N(jc, 1), whose weights follow the recursion in ``lattice``. Both are tested.
- the real fraction (D3): exact for the refitted Gaussian, as is its variance's fixed point.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop import seeds
from judgeloop.experiment.schema import StrategySpec
from judgeloop.learning.selection import tilt
from judgeloop.learning.strategies import mix, mix_pairs

GRID = np.linspace(-9.0, 16.0, 501)
NAMES = tuple(f"x{index}" for index in range(len(GRID)))
X = dict(zip(NAMES, GRID.tolist(), strict=True))


def normal(mean: float = 0.0, variance: float = 1.0) -> dict[str, float]:
    mass = np.exp(-((GRID - mean) ** 2) / (2 * variance))
    return dict(zip(NAMES, (mass / mass.sum()).tolist(), strict=True))


def moments(distribution: dict[str, float]) -> tuple[float, float]:
    mass = np.array([distribution[name] for name in NAMES])
    mean = float(mass @ GRID)
    return mean, float(mass @ (GRID - mean) ** 2)


def shifted(reference: dict[str, float], c: float) -> dict[str, float]:
    return tilt(reference, {name: c * value for name, value in X.items()}, 1.0)


def mixed(strategy: StrategySpec, selections: list[dict[str, float]], zero: dict[str, float], **options: Any) -> Any:
    settings: dict[str, Any] = {"real": None, "size": 4, "rng": seeds.rng(0, "mix")}
    return mix(strategy, selections=selections, generation_zero=zero, **(settings | options))


ZERO, S0, S1 = {"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.0}, {"c": 0.25, "a": 0.75}


def test_replace_is_the_last_selection_to_the_bit() -> None:
    assert mixed(StrategySpec(kind="replace"), [S0, S1], ZERO) == S1


def test_accumulate_takes_equal_parts_with_generation_zero() -> None:
    training = mixed(StrategySpec(kind="accumulate"), [S0, S1], ZERO)
    assert training == pytest.approx({"a": 2.25 / 3, "b": 0.5 / 3, "c": 0.25 / 3}, abs=1e-15)
    assert list(training) == ["a", "b", "c"]


def test_real_data_is_generation_zero_or_a_files() -> None:
    quarter = StrategySpec(kind="replace", real_fraction=0.25)
    assert mixed(quarter, [S1], ZERO) == pytest.approx({"c": 0.1875, "a": 0.6875, "b": 0.125}, abs=1e-15)
    assert mixed(quarter, [S1], ZERO, real={"r": 1.0}) == pytest.approx({"c": 0.1875, "a": 0.5625, "r": 0.25})
    assert mixed(StrategySpec(real_fraction=1.0), [S1], ZERO) == ZERO


def test_empty_parts_are_left_out() -> None:
    accumulate = StrategySpec(kind="accumulate")
    assert mixed(accumulate, [{}, S1], ZERO) == pytest.approx({"a": 0.625, "b": 0.25, "c": 0.125}, abs=1e-15)
    assert mixed(StrategySpec(), [S0, {}], ZERO) == {}
    assert mixed(StrategySpec(real_fraction=0.1), [{}], ZERO) == ZERO
    assert mixed(StrategySpec(real_fraction=0.1), [S1], ZERO, real={}) == S1
    for kind in ("replace", "accumulate", "accumulate_subsample"):
        assert mixed(StrategySpec(kind=kind, real_fraction=0.5), [{}, {}], {}) == {}


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one generation"):
        mixed(StrategySpec(), [], ZERO)
    with pytest.raises(ValueError, match="size must be 1 text or more"):
        mixed(StrategySpec(), [S0], ZERO, size=0)
    with pytest.raises(ValueError, match=r"sums to 1, not 0\.5"):
        mixed(StrategySpec(), [{"a": 0.5}], ZERO)


def test_subsample_draws_texts_of_the_mixture_with_its_frequencies() -> None:
    strategy = StrategySpec(kind="accumulate_subsample", real_fraction=0.4)
    real = {"r": 0.5, "b": 0.5}
    expected = mixed(StrategySpec(kind="accumulate", real_fraction=0.4), [S0, S1], ZERO, real=real)
    rng, draws, size = seeds.rng(3, "subsample"), 4000, 5
    total = dict.fromkeys(expected, 0.0)
    squares = dict.fromkeys(expected, 0.0)
    for _ in range(draws):
        training = mixed(strategy, [S0, S1], ZERO, real=real, size=size, rng=rng)
        assert list(training) == list(expected)
        assert sum(training.values()) == pytest.approx(1.0, abs=1e-12)
        for name, share in training.items():
            assert share * size == pytest.approx(round(share * size), abs=1e-12)
            total[name] += share / draws
            squares[name] += (share - expected[name]) ** 2 / draws
    for name, share in expected.items():
        variance = share * (1 - share) / size
        assert total[name] == pytest.approx(share, abs=4 * math.sqrt(variance / draws))
        # Real data joins before the draw, so its number of texts varies as any other text's does.
        assert squares[name] == pytest.approx(variance, rel=0.15)


def test_subsample_takes_its_size_of_uniforms_from_the_stream_and_no_other_strategy_any() -> None:
    for kind, used in (("replace", 0), ("accumulate", 0), ("accumulate_subsample", 7)):
        rng, twin = seeds.rng(1, "stream"), seeds.rng(1, "stream")
        mixed(StrategySpec(kind=kind), [S0, S1], ZERO, size=7, rng=rng)
        twin.random(used)
        assert rng.random() == twin.random()


def test_close_mixtures_draw_the_same_texts_under_one_stream() -> None:
    strategy = StrategySpec(kind="accumulate_subsample")
    near = {"a": 1.0 - 1e-9, "b": 1e-9}
    for label in range(20):
        first, second = (mixed(strategy, [s], ZERO, rng=seeds.rng(4, "close", label)) for s in (S0, near))
        assert first == second


parts = st.lists(st.integers(0, 5), min_size=3, max_size=3).map(
    lambda n: {name: mass / sum(n) for name, mass in zip("abc", n, strict=True)} if any(n) else {}
)


@given(
    kind=st.sampled_from(["replace", "accumulate", "accumulate_subsample"]),
    alpha=st.floats(0, 1),
    selections=st.lists(parts, min_size=1, max_size=4),
    zero=parts,
    real=st.none() | parts,
)
def test_a_training_set_is_a_distribution_or_empty(
    kind: Any, alpha: float, selections: list[dict[str, float]], zero: dict[str, float], real: dict[str, float] | None
) -> None:
    strategy = StrategySpec(kind=kind, real_fraction=alpha)
    training = mixed(strategy, selections, zero, real=real)
    assert not training or sum(training.values()) == pytest.approx(1.0, abs=1e-9)
    assert all(share >= 0 for share in training.values())
    assert training == mixed(strategy, selections, zero, real=real)


def test_d1_replace_on_a_pool_drifts_by_c_a_generation() -> None:
    c, current, selections = 0.3, normal(), []
    for generation in range(10):
        selections.append(shifted(current, c))
        current = mixed(StrategySpec(kind="replace"), selections, normal())
        mean, variance = moments(current)
        assert mean == pytest.approx(c * (generation + 1), abs=1e-9)
        assert variance == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(("generations", "figure"), [(10, 0.6386), (40, 1.110)])
def test_d2_accumulate_with_a_refitted_gaussian(generations: int, figure: float) -> None:
    c, current, selections = 0.3, normal(), []
    mean, variance = 0.0, 1.0
    for k in range(1, generations + 1):
        selections.append(shifted(current, c))
        training = mixed(StrategySpec(kind="accumulate"), selections, normal())
        mean, variance = mean + c * variance / (k + 1), variance + k / (k + 1) ** 2 * (c * variance) ** 2
        assert moments(training) == pytest.approx((mean, variance), abs=1e-8)
        current = normal(*moments(training))
    assert mean == pytest.approx(figure, abs=5e-4)


def test_d2_accumulate_with_fixed_variance_grows_as_the_harmonic_number() -> None:
    c, current, selections = 0.3, normal(), []
    for generation in range(10):
        selections.append(shifted(current, c))
        training = mixed(StrategySpec(kind="accumulate"), selections, normal())
        harmonic = sum(1 / k for k in range(1, generation + 3))
        assert moments(training)[0] == pytest.approx(c * (harmonic - 1), abs=1e-9)
        current = normal(moments(training)[0])


def lattice(c: float, generations: int) -> tuple[float, float]:
    """Mean and variance of the pool's exact law: Σ a_j N(jc, 1), tilted by e^{cx} to weights ∝ a_j e^{jc²} at (j+1)c."""
    weights = np.array([1.0])
    for parts_so_far in range(1, generations + 1):
        moved = weights * np.exp(c * c * np.arange(len(weights)))
        moved /= moved.sum()
        weights = (parts_so_far * np.append(weights, 0.0) + np.insert(moved, 0, 0.0)) / (parts_so_far + 1)
    centres = c * np.arange(len(weights))
    mean = float(weights @ centres)
    return mean, 1.0 + float(weights @ (centres - mean) ** 2)


@pytest.mark.parametrize("c", [0.3, 0.5])
def test_accumulate_on_a_pool_follows_its_own_exact_law(c: float) -> None:
    current, selections = normal(), []
    for generation in range(10):
        selections.append(shifted(current, c))
        current = mixed(StrategySpec(kind="accumulate"), selections, normal())
        assert moments(current) == pytest.approx(lattice(c, generation + 1), abs=1e-8)


def test_d2_is_close_on_a_pool_but_not_exact() -> None:
    mean, _ = lattice(0.3, 10)
    assert mean == pytest.approx(0.6386, rel=0.02)
    assert abs(mean - 0.6386) > 1e-4


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_d3_real_data_bounds_the_drift(alpha: float) -> None:
    c, mean = 0.3, 0.0
    strategy = StrategySpec(kind="replace", real_fraction=alpha)
    for _ in range(100):
        mean, _variance = moments(mixed(strategy, [shifted(normal(mean), c)], normal()))
    assert mean == pytest.approx(c * (1 - alpha) / alpha, abs=1e-8)


def test_d3_fixed_point_with_a_refitted_variance() -> None:
    c, alpha, state = 0.3, 0.5, (0.0, 1.0)
    for _ in range(200):
        state = moments(mixed(StrategySpec(real_fraction=alpha), [shifted(normal(*state), c)], normal()))
    a = (1 - alpha) * c**2 / alpha**2
    variance = (1 - math.sqrt(1 - 4 * a)) / (2 * a)
    assert state == pytest.approx((c * (1 - alpha) / alpha * variance, variance), abs=1e-6)
    assert state == pytest.approx((0.392, 1.308), abs=1e-3)


# -- preference pairs ------------------------------------------------------------------------------------------------

PAIRS = [[f"g{t}p{n}" for n in range(8)] for t in range(3)]
REAL = ["r0", "r1", "r2"]


def _pairs(kind: str, share: float = 0.0, real: list[str] = REAL, generations: list[list[str]] = PAIRS) -> list[str]:
    strategy = StrategySpec(kind=kind, real_fraction=share)  # type: ignore[arg-type]
    return mix_pairs(strategy, generations=generations, real=real, rng=seeds.rng(0, "mixture"))


def test_pairs_are_replaced_accumulated_or_drawn_from_all() -> None:
    assert _pairs("replace") == PAIRS[2]
    assert _pairs("accumulate") == [pair for part in PAIRS for pair in part]
    drawn = _pairs("accumulate_subsample", generations=[[f"g{t}p{n}" for n in range(3000)] for t in range(3)])
    assert len(drawn) == 3000
    # A third of each generation: 1,000 ± four standard deviations of 25.8.
    assert all(abs(sum(pair.startswith(f"g{t}") for pair in drawn) - 1000) < 104 for t in range(3))
    assert _pairs("accumulate_subsample", generations=[["a"], []]) == []


@pytest.mark.parametrize("kind", ["replace", "accumulate", "accumulate_subsample"])
def test_a_share_of_the_pairs_is_real_and_their_number_stays(kind: str) -> None:
    mixed = _pairs(kind, 0.5)
    assert len(mixed) == len(_pairs(kind))
    assert [pair in REAL for pair in mixed].count(True) == len(mixed) / 2
    counts = [mixed.count(name) for name in REAL]
    assert max(counts) - min(counts) <= 1
    assert set(_pairs(kind, 1.0)) == set(REAL)
    assert _pairs(kind, 0.5, real=[]) == _pairs(kind)
