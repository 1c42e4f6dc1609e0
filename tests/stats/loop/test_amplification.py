"""Compounding, KL and transmission: closed forms, slow twins, and the words that are claimed of ratios."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planted_run
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.loop.amplification import (
    compounding_benchmark,
    compounding_word,
    kl_estimates,
    ratios,
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


def interval(estimate: float, half: float) -> Interval:
    return t_interval(estimate, half / 2.3646, 7)


@pytest.mark.parametrize(
    ("compounding", "static", "benchmark", "word"),
    [
        (interval(1.5, 0.3), Undefined(""), 1.0, "amplifying"),
        (interval(0.8, 0.1), interval(1.5, 0.2), 0.531, "amplifying"),
        (interval(0.8, 0.1), interval(1.5, 0.2), 1.0, "saturating"),
        (interval(0.8, 0.1), interval(1.5, 0.8), 0.531, "saturating"),
        (interval(0.55, 0.1), interval(1.5, 0.2), 0.531, "saturating"),
        (interval(1.0, 0.1), interval(1.0, 0.2), 1.0, "steady"),
        (interval(1.0, 0.5), interval(1.0, 0.2), 1.0, "compounding unclear"),
        (interval(1.15, 0.2), interval(1.3, 0.2), None, "compounding unclear"),
    ],
)  # fmt: skip
def test_words_on_compounding(
    compounding: Interval, static: Interval | Undefined, benchmark: float | None, word: str
) -> None:
    assert compounding_word(compounding, static, benchmark) == word


def numbers(values: list[float]) -> pd.Series[float]:
    return pd.Series(values, index=range(len(values)), dtype="float64")


def test_ratios_and_words() -> None:
    first = numbers([0.9, 1.0, 1.1, 1.0, 0.95, 1.05])
    last = first * 3 + numbers([0.01, -0.01, 0.02, -0.02, 0.01, -0.01])
    seen = ratios(last, first, first, 3, 0.1)
    assert isinstance(seen.gain, Interval)
    assert isinstance(seen.compounding, Interval)
    assert isinstance(seen.observed_over_static, Interval)
    assert seen.gain.estimate == pytest.approx(last.mean() / first.mean())
    assert seen.compounding.estimate == pytest.approx(seen.gain.estimate / 3)
    assert seen.verdict(3, 1.0) == "steady"
    # One feedback step has no word on compounding.
    assert seen.verdict(1, 1.0) == "drifting"


def test_no_ratio_to_a_drift_that_may_be_zero() -> None:
    first = numbers([0.1, -0.1, 0.2, -0.15, 0.05])
    last = numbers([1.0, 1.1, 0.9, 1.0, 1.05])
    seen = ratios(last, first, first, 4, 0.1)
    assert isinstance(seen.gain, Undefined)
    assert "the first loop's drift covers 0" in seen.gain.reason
    assert isinstance(seen.observed_over_static, Undefined)
    assert seen.verdict(4, 1.0) == "drifting"
    single = ratios(last[:1], first[:1], first[:1], 4, 0.1)
    assert single.verdict(4, 1.0) == "cannot_tell"
    # Five equal replicates show no spread, and claim nothing; six do, by the sign test.
    assert ratios(last * 0, first, first, 4, 0.1).verdict(4, 1.0) == "cannot_tell"
    assert ratios(numbers([0.0] * 6), first, first, 4, 0.1).verdict(4, 1.0) == "none"
    equal = ratios(numbers([0.3, 0.3]), numbers([0.1, 0.1]), numbers([0.1, 0.1]), 3, 0.1)
    assert isinstance(equal.compounding, Undefined)
    assert "all 2 replicates are equal" in equal.compounding.reason
    assert ratios(last - last.mean() + 0.001, last, last, 4, 0.01).verdict(4, 1.0) == "undetected"


@pytest.mark.slow
def test_a_loop_that_does_not_compound_is_called_amplifying_in_one_run_of_forty() -> None:
    """C_T's interval covers 1 in 95 % of runs of 8 replicates, and only its lower tail says amplifying."""
    stream, runs, covered, amplifying = rng(2, "steady"), 3000, 0, 0
    for _ in range(runs):
        drift = np.cumsum(0.3 + 0.08 * stream.normal(size=(4, 8)), axis=0)
        static = numbers(list(0.3 + 0.08 * stream.normal(size=8)))
        seen = ratios(numbers(list(drift[3])), numbers(list(drift[0])), static, 4, 0.1)
        assert isinstance(seen.compounding, Interval)
        covered += seen.compounding.covers(1.0)
        amplifying += seen.verdict(4, 1.0) == "amplifying"
    error = 3 * math.sqrt(0.95 * 0.05 / runs)
    assert abs(covered / runs - 0.95) < error
    assert amplifying / runs < 0.025 + error


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


def test_kl_is_the_slow_twins() -> None:
    made, design = pool_tables()
    rows = {row.generation: row for row in kl_estimates(measure(made, design).rows, design)}
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
    rows = {row.generation: row for row in kl_estimates(measure(made, design).rows, design)}
    assert rows[0].estimate == 0.0
    assert (rows[1].status, rows[1].estimate) == ("undefined", None)
    assert "infinite" in rows[1].note
    exemplar = Design("d", 0, 2, (arm(policy_kind="exemplar"),))
    assert {row.status for row in kl_estimates(measure(made, exemplar).rows, exemplar)} == {"undefined"}


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
