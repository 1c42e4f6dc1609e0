"""Compounding, KL and transmission: closed forms, slow twins, and the words that are claimed of ratios."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planted_run
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval
from judgeloop.stats.loop.amplification import (
    Compounding,
    compounding,
    compounding_benchmark,
    divergences,
    kl_estimates,
    transmission_estimates,
)
from judgeloop.stats.loop.replicates import measure


def arm(**settings: object) -> ArmDesign:
    return ArmDesign("judge", "j", **settings)  # type: ignore[arg-type]


def test_benchmarks_of_the_method_notes() -> None:
    assert compounding_benchmark(arm(), 6) == 1.0
    harmonic = sum(1 / k for k in range(1, 8))
    assert compounding_benchmark(arm(strategy="accumulate"), 6) == pytest.approx((harmonic - 1) / 3, abs=1e-12)
    assert round((harmonic - 1) / 3, 3) == 0.531
    assert compounding_benchmark(arm(strategy="accumulate_subsample"), 6) == pytest.approx((harmonic - 1) / 3)
    assert compounding_benchmark(arm(reference="base"), 6) == pytest.approx(1 / 6)


@given(st.floats(0.01, 0.99), st.integers(1, 40))
def test_the_real_fractions_closed_form(alpha: float, steps: int) -> None:
    expected = (1 - (1 - alpha) ** steps) / (alpha * steps)
    assert compounding_benchmark(arm(real_fraction=alpha), steps) == pytest.approx(expected, rel=1e-9)
    assert compounding_benchmark(arm(real_fraction=alpha, reference="base"), steps) == pytest.approx(1 / steps)


def test_the_best_of_n_closed_form() -> None:
    v4 = 0.4917
    expected = (1 - v4**3) / (6 * (1 - math.sqrt(v4)))
    assert compounding_benchmark(arm(update="best_of_n"), 6, 4) == pytest.approx(expected, abs=2e-4)
    # The variance of the larger of two normals is 1 − 1/π.
    v2 = 1 - 1 / math.pi
    assert compounding_benchmark(arm(update="best_of_n"), 2, 2) == pytest.approx((1 + math.sqrt(v2)) / 2, abs=1e-9)
    assert compounding_benchmark(arm(update="best_of_n", strategy="accumulate"), 6, 4) is None
    assert compounding_benchmark(arm(update="best_of_n"), 6) is None
    assert compounding_benchmark(arm(real_fraction=1.0), 6) is None


def told(
    increments: list[float], sd: float, benchmark: float | None, seed: int = 0, replicates: int = 8
) -> Compounding:
    """Increments of one drift, the same in all replicates but for ``sd``."""
    noise = sd * rng(seed, "told").standard_normal((len(increments), replicates))
    path = np.cumsum(np.array(increments)[:, None] + noise - noise.mean(axis=1, keepdims=True), axis=0)
    return compounding(path[0], path[-1], len(increments), benchmark, 0.02)


@pytest.mark.parametrize(
    ("increments", "sd", "benchmark", "word"),
    [
        # Ratio rules said: amplifying; saturating; nothing.
        ([0.29, *[0.20] * 5], 0.01, 0.531, "compounding unclear"),
        ([-0.1, *[0.14] * 5], 0.02, 1.0, "reversing"),
        ([0.02 * 2**k for k in range(6)], 0.04, 1.0, "amplifying"),
        ([-0.02 * 2**k for k in range(6)], 0.04, 1.0, "amplifying"),
        ([0.3, *[0.1] * 5], 0.01, 1.0, "saturating"),
        ([-0.3, *[-0.1] * 5], 0.01, 0.531, "saturating"),
        ([0.6 / (k + 2) for k in range(6)], 0.02, 0.531, "as its strategy"),
        (
            [0.6 / (k + 2) for k in range(6)],
            0.13,
            0.531,
            "compounding unclear",
        ),  # not told from the strategy, nor shown alike
        ([0.3, *[0.1] * 5], 0.01, None, "compounding unclear"),
        ([0.2] * 6, 0.01, 1.0, "steady"),
        ([0.2] * 6, 0.2, 1.0, "compounding unclear"),
        ([0.001] * 6, 0.2, 1.0, "undetected"),
        ([0.001] * 6, 0.001, 1.0, "none"),
        ([0.3], 0.01, 1.0, "drifting"),
    ],
)
def test_words_on_compounding(increments: list[float], sd: float, benchmark: float | None, word: str) -> None:
    assert told(increments, sd, benchmark).verdict() == word


def test_the_differences_are_those_of_replicates_with_both_ends() -> None:
    first = np.array([0.9, 1.0, 1.1, np.nan, 0.95, 1.05])
    last = np.array([2.0, 2.1, 2.4, 2.2, np.nan, 2.3])
    seen = compounding(first, last, 3, 0.6, 0.1)
    both = [0, 1, 2, 5]
    assert isinstance(seen.beyond_first, Interval)
    assert isinstance(seen.beyond_strategy, Interval)
    assert seen.beyond_first.estimate == pytest.approx(float(np.mean(last[both] - 3 * first[both])))
    assert seen.beyond_strategy.estimate == pytest.approx(float(np.mean(last[both] - 1.8 * first[both])))
    assert seen.margin == pytest.approx(0.2 * float(np.mean(last[both])))
    single = compounding(first[:1], last[:1], 3, 0.6, 0.1)
    assert single.verdict() == "cannot_tell"
    # Five equal replicates show no spread, and claim nothing; six do, by the sign test.
    assert compounding(np.ones(5), np.zeros(5), 4, 1.0, 0.1).verdict() == "cannot_tell"
    assert compounding(np.zeros(6), np.zeros(6), 4, 1.0, 0.1).verdict() == "none"


@pytest.mark.parametrize("replicates", [5, 8])
@pytest.mark.parametrize("snr", [1.5, 2.5, 6.0])
@pytest.mark.slow
def test_a_word_on_compounding_is_wrong_in_one_run_of_forty_whatever_the_first_step(
    snr: float, replicates: int
) -> None:
    """Steady loops, and those of accumulate with a constant taste; ``snr`` is the first step over its standard error. A ratio
    rule said "saturating" of up to a fifth of the steady runs that it gave a word."""
    runs, steps = 1000, 6
    error = 3 * math.sqrt(0.025 * 0.975 / runs)
    shares = [1 / (k + 2) for k in range(steps)]
    for name, increments, benchmark in (
        ("steady", [1.0] * steps, 1.0), ("accumulate", [share / shares[0] for share in shares], sum(shares) / 3.0),
    ):  # fmt: skip
        stream = rng(3, "compounding", name)
        noise = math.sqrt(replicates) / snr * stream.standard_normal((runs, steps, replicates))
        paths = np.cumsum(np.array(increments)[:, None] + noise, axis=1)
        words = Counter(compounding(path[0], path[-1], steps, benchmark, 0.05).verdict() for path in paths)
        assert words["amplifying"] / runs < 0.025 + error
        assert words["saturating"] / runs < 0.025 + error
        assert words["reversing"] == 0


@pytest.mark.slow
def test_loops_that_grow_are_called_amplifying_where_a_ratio_to_the_first_step_is_lost() -> None:
    """Steps that grow by 1.3 a loop, 8 replicates, T = 6; a rule by the ratio's Fieller limits has power .04 and .39."""
    runs, steps, replicates = 1000, 6, 8
    for snr, power in ((1.5, 0.31), (2.5, 0.70)):
        noise = math.sqrt(replicates) / snr * rng(4, "power").standard_normal((runs, steps, replicates))
        paths = np.cumsum(np.array([1.3**k for k in range(steps)])[:, None] + noise, axis=1)
        words = Counter(compounding(path[0], path[-1], steps, 1.0, 0.05).verdict() for path in paths)
        assert words["amplifying"] / runs > power


@pytest.mark.slow
def test_steady_is_said_of_loops_that_change_by_a_fifth_in_one_run_of_twenty() -> None:
    """At the margin, L = D_T/5, equivalence within a fifth of the estimated drift holds its level."""
    runs, steps, replicates = 2000, 6, 8
    increments = np.array([0.8, *[1.04] * 5])
    noise = math.sqrt(replicates) / 15.0 * rng(5, "margin").standard_normal((runs, steps, replicates))
    paths = np.cumsum(increments[:, None] + noise, axis=1)
    steady = sum(compounding(path[0], path[-1], steps, 1.0, 0.05).verdict() == "steady" for path in paths)
    assert steady / runs < 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def pool_tables(real: bool = False) -> tuple[RunTables, Design]:
    stream = rng(1, "kl")
    rows = []
    for replicate in range(3):
        for t in range(3):
            for item in ("x", "y"):
                weights = np.full(4, 0.25) if t == 0 else stream.dirichlet(np.ones(4))
                if real:
                    weights = np.array([0.5, 0.5, 0.0, 0.0]) if t == 0 else weights
                rows += [(replicate, "judge", t, item, f"k{k}", "text", w, 1) for k, w in enumerate(weights)]
    columns = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "p_current", "n_drawn"]
    frame = pd.DataFrame(rows, columns=columns).assign(length=5.0)
    return RunTables(pd.DataFrame(), frame, *[pd.DataFrame()] * 3), Design("d", 0, 2, (arm(),))


def _kl(made: RunTables, design: Design) -> list[Estimate]:
    rows = measure(made, design).rows
    return kl_estimates(rows, design, divergences(rows, design))


def test_kl_is_the_slow_twins() -> None:
    made, design = pool_tables()
    rows = {row.generation: row for row in _kl(made, design)}
    assert rows[0].estimate == 0.0
    total = []
    for replicate in range(3):
        for item in ("x", "y"):
            frame = made.candidates
            part = frame[(frame["replicate"] == replicate) & (frame["item_id"] == item) & (frame["generation"] == 2)]
            total.append(sum(w * math.log(w / 0.25) for w in part["p_current"]))
    assert rows[2].estimate == pytest.approx(sum(total) / 6)
    assert rows[2].n_replicates == 3


def test_kl_is_undefined_off_pools_and_where_it_is_infinite() -> None:
    made, design = pool_tables(real=True)
    rows = {row.generation: row for row in _kl(made, design)}
    assert rows[0].estimate == 0.0
    assert (rows[1].status, rows[1].estimate) == ("undefined", None)
    assert "infinite" in rows[1].note
    exemplar = Design("d", 0, 2, (arm(policy_kind="exemplar"),))
    assert {row.status for row in _kl(made, exemplar)} == {"undefined"}


@pytest.mark.parametrize(("doubled", "expected"), [(False, 1.0), (True, 2.0)])
def test_transmission_of_raw_and_of_consistent_labels(doubled: bool, expected: float) -> None:
    """Keeping order-consistent pairs alone doubles every slope that reaches the signal
    (docs/method.md, "Analytic truths", row E3)."""
    made = planted_run.loop(3, generations=1, items=2, size=4, pairs=6000, doubled=doubled, anchor=1500)
    design = planted_run.design(1)
    rows = {row.term: row for row in transmission_estimates(made, design, measure(made, design).scale)}
    row = rows["transmission_bold"]
    assert row.conf_low is not None
    assert row.conf_high is not None
    # bold is per pooled SD in both slopes, so their ratio is free of it; the panel's noise (sd .3) shrinks β_J by 1.5 %.
    assert row.conf_low - 0.03 < expected < row.conf_high + 0.03
    assert row.scope == "signal"


def test_transmission_without_a_panel_or_a_signal() -> None:
    made = planted_run.loop(3, generations=1, items=2, size=4, pairs=200)
    design = planted_run.design(1)
    scale = measure(made, design).scale
    assert {row.status for row in transmission_estimates(made, design, scale)} == {"undefined"}
    none = RunTables(made.items, made.candidates, made.judgments, made.preferences, pd.DataFrame())
    (row,) = transmission_estimates(none, design, scale)
    assert row.term == "transmission_length"
    assert "no signal" in row.note
