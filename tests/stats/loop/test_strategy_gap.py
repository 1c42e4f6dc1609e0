"""Strategies at equal generations and at equal training tokens: hand-made tables whose answers can be read off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop import seeds
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.loop.drift import at_tokens, strategy_arms, strategy_gap_estimates, training_tokens
from judgeloop.stats.loop.replicates import measure, series
from judgeloop.text.features import FEATURES

ARMS = (
    ArmDesign("replace", "j"),
    ArmDesign("accumulate", "j", strategy="accumulate"),
    ArmDesign("random", "random", is_control=True, judge_kind="random"),
)
T, REPLICATES = 3, 4


def _design(arms: tuple[ArmDesign, ...] = ARMS) -> Design:
    return Design("gap", 0, T, arms)


def _tables(step: dict[str, float]) -> RunTables:
    """Two items, two texts each; replicate r's length rises by ``step[arm]`` + r/100 a generation from 2^4 tokens."""
    rows = []
    for replicate in range(REPLICATES):
        for arm in ARMS:
            for generation in range(T + 1):
                for item in ("i0", "i1"):
                    for k in range(2):
                        length = 4.0 + generation * (step[arm.name] + replicate / 100)
                        training = 0.5 if generation < T else np.nan
                        rows.append((replicate, arm.name, generation, item, f"g{generation}k{k}", "text", length, 1, training))  # fmt: skip
    names = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "length", "n_drawn", "p_training"]
    noise = seeds.rng(0, "gap")
    frame = pd.DataFrame(rows, columns=names)
    frame = frame.assign(**{name: noise.gamma(1, 1, len(frame)) for name in FEATURES if name != "length"})
    empty = pd.DataFrame()
    return RunTables(pd.DataFrame({"item_id": ["i0", "i1"]}), frame, empty, empty, empty)


def _rows(step: dict[str, float]) -> dict[tuple[str, str, str, int | None], Estimate]:
    measured = measure(_tables(step), _design())
    found = strategy_gap_estimates(measured, series(measured), _design())
    return {(row.term, row.arm, row.variant, row.generation): row for row in found}


STEP = {"replace": 0.4, "accumulate": 0.2, "random": 0.0}


def test_training_tokens_count_what_each_strategy_trains_on() -> None:
    trained = training_tokens(measure(_tables(STEP), _design()).rows, ARMS[:2])
    lengths = [4.0 + t * 0.4 for t in range(T)]
    assert trained.loc[("replace", 1), 0] == pytest.approx(4 * 2 ** lengths[0])
    assert trained.loc[("replace", 3), 0] == pytest.approx(sum(4 * 2**length for length in lengths))
    slow = [4.0 + t * 0.2 for t in range(T)]
    assert trained.loc[("accumulate", 3), 0] == pytest.approx(sum(4 * (t + 2) * 2 ** slow[t] for t in range(T)))
    # A model is trained on the preferences so far: its first training set is the same under both.
    models = [replace(arm, update="training") for arm in ARMS[:2]]
    trained = training_tokens(measure(_tables(STEP), _design()).rows, models)
    assert trained.loc[("accumulate", 1), 0] == trained.loc[("replace", 1), 0]
    assert trained.loc[("accumulate", 3), 0] == pytest.approx(sum(4 * (t + 1) * 2 ** slow[t] for t in range(T)))


def test_gaps_at_equal_generations_and_at_equal_tokens() -> None:
    rows = _rows(STEP)
    steps = rows["strategy_gap_length", "accumulate", "", None]
    assert steps.estimate == pytest.approx(3 * (0.2 - 0.4))
    assert steps.contrast == "replace"
    tokens = rows["strategy_gap_length", "accumulate", "equal_tokens", None]
    assert tokens.estimate is not None
    assert tokens.estimate < steps.estimate  # accumulate has spent the budget on far fewer steps
    drift = rows["drift_length", "replace", "equal_tokens", None]
    assert drift.estimate == pytest.approx(np.mean([3 * (0.4 + r / 100) for r in range(REPLICATES)]), rel=1e-9)
    assert "training tokens" in drift.note


def test_nothing_is_compared_where_arms_differ_in_more_than_the_strategy() -> None:
    assert [arm.name for arm in strategy_arms(_design())] == ["replace", "accumulate"]
    other = (ARMS[0], ArmDesign("accumulate", "another", strategy="accumulate"), ARMS[2])
    assert strategy_arms(_design(other)) == ()
    slower = (replace(ARMS[0], settings="learning rate 1"), replace(ARMS[1], settings="learning rate 2"), ARMS[2])
    assert strategy_arms(_design(slower)) == ()
    measured = measure(_tables(STEP), _design(other))
    assert strategy_gap_estimates(measured, series(measured), _design(other)) == []


def test_an_incomplete_training_set_is_undefined() -> None:
    tables = _tables(STEP)
    tables.candidates["p_training"] = 0.3
    measured = measure(tables, _design())
    rows = strategy_gap_estimates(measured, series(measured), _design())
    assert {row.status for row in rows if row.variant == "equal_tokens"} == {"undefined"}
    # These replicates are all equal, and few.
    assert {row.status for row in rows if row.term == "strategy_gap_length" and not row.variant} == {"underpowered"}


@given(st.lists(st.floats(0.1, 5), min_size=1, max_size=6), st.floats(0, 1))
def test_interpolation_stays_between_its_ends(steps: list[float], share: float) -> None:
    tokens = [0.0, *np.cumsum(steps)]
    drifts = [0.0, *np.cumsum(steps)]
    assert at_tokens(drifts, tokens, share * tokens[-1]) == pytest.approx(share * tokens[-1])
    assert np.isnan(at_tokens(drifts, tokens, 2 * tokens[-1]))
