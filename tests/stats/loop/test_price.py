"""The Price identity: its parts sum to the drift, and a distribution that is not complete gives no number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from drift_tables import tables, two_arms
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.price import accounts, price_estimates, replicate_table
from judgeloop.stats.loop.replicates import measure, series

DISTRIBUTIONS = ("p_selected", "p_training", "p_selected_gold")


def priced(seed: int, replicates: int = 3, items: int = 4, pool: int = 5) -> RunTables:
    """Random tables with random distributions over each item's texts."""
    plain = tables(seed, replicates=replicates, items=items, pool=pool)
    frame = plain.candidates.copy()
    stream = rng(seed, "distributions")
    for name in DISTRIBUTIONS:
        weights = stream.gamma(0.3, size=(len(frame) // pool, pool)) + 1e-9
        frame[name] = (weights / weights.sum(axis=1, keepdims=True)).ravel()
    frame.loc[frame["generation"] == 2, list(DISTRIBUTIONS)] = np.nan
    return RunTables(plain.items, frame, *[pd.DataFrame()] * 3)


@settings(max_examples=examples(12))
@given(st.integers(0, 10_000))
def test_selection_mixing_and_learning_are_the_drift(seed: int) -> None:
    measured = measure(priced(seed), two_arms())
    books = accounts(measured)
    of = {one.quantity.name: one for one in series(measured) if one.category == ""}
    for name in ("length", "bold", "style_score", "correct"):
        parts = [replicate_table(part, name) for part in (books.selection(), books.mixing(), books.learning())]
        for arm in ("judge", "random"):
            for t in (0, 1):
                total = sum(part.loc[(arm, t)] for part in parts)
                step = of[name].level(arm, t + 1) - of[name].level(arm, t)
                assert len(step) == 3
                np.testing.assert_allclose(total[step.index], step, atol=1e-12, rtol=0)


def test_selection_is_the_slow_twins() -> None:
    made = priced(3)
    frame = made.candidates
    measured = measure(made, two_arms())
    found = replicate_table(accounts(measured).selection(), "length")
    for replicate in range(3):
        gaps = []
        for item in sorted(set(frame["item_id"])):
            chosen = drawn = count = 0.0
            for row in frame.itertuples():
                if (row.replicate, row.arm, row.generation, row.item_id) == (replicate, "judge", 1, item):
                    chosen += row.p_selected * row.length
                    drawn += row.n_drawn * row.length
                    count += row.n_drawn
            gaps.append(chosen - drawn / count)
        assert found.loc[("judge", 1), replicate] == pytest.approx(np.mean(gaps), abs=1e-12)


def test_bias_selection_is_against_the_controls_own_choice() -> None:
    made = priced(5)
    gold = ArmDesign("gold", "gold", is_control=True, judge_kind="gold")
    frame = pd.concat(
        [made.candidates, made.candidates[made.candidates["arm"] == "random"].assign(arm="gold")], ignore_index=True
    )
    design = Design("d", 0, 2, (*two_arms().arms, gold), (("judge", "random"), ("judge", "gold")), ("judge", "random"))
    measured = measure(RunTables(made.items, frame, *[pd.DataFrame()] * 3), design)
    rows = price_estimates(measured, design, accounts(measured))

    def estimate(term: str, contrast: str = "") -> float:
        (row,) = [r for r in rows if (r.term, r.contrast, r.arm, r.generation) == (term, contrast, "judge", 0)]
        assert row.estimate is not None
        return row.estimate

    # A random judge selects nothing: its bias selection is the whole selection.
    assert estimate("bias_selection_length", "random") == estimate("selection_length")
    by_gold = frame.assign(p_selected=frame["p_selected_gold"])
    swapped = measure(RunTables(made.items, by_gold, *[pd.DataFrame()] * 3), design)
    gold_rows = price_estimates(swapped, design, accounts(swapped))
    (chosen,) = [r for r in gold_rows if (r.term, r.arm, r.generation) == ("selection_length", "judge", 0)]
    assert chosen.estimate is not None
    assert estimate("bias_selection_length", "gold") == pytest.approx(estimate("selection_length") - chosen.estimate)


def test_rows_stop_before_the_last_generation() -> None:
    measured = measure(priced(1), two_arms())
    rows = price_estimates(measured, two_arms(), accounts(measured))
    assert {row.generation for row in rows} == {0, 1}
    assert all((row.status == "undefined") == (row.estimate is None) for row in rows)


def test_a_distribution_that_is_not_whole_gives_no_number() -> None:
    made = priced(2)
    frame = made.candidates.copy()
    broken = (
        (frame["replicate"] == 1) & (frame["generation"] == 0) & (frame["arm"] == "judge") & (frame["item_id"] == "i1")
    )
    frame.loc[broken, "p_training"] *= 0.5
    measured = measure(RunTables(made.items, frame, *[pd.DataFrame()] * 3), two_arms())
    rows = price_estimates(measured, two_arms(), accounts(measured))
    of = {(row.term, row.arm, row.generation): row for row in rows if row.contrast == ""}
    assert of[("mixing_length", "judge", 0)].n_replicates == 2
    assert of[("selection_length", "judge", 0)].n_replicates == 3
    nothing = frame.assign(p_training=np.nan)
    measured = measure(RunTables(made.items, nothing, *[pd.DataFrame()] * 3), two_arms())
    rows = price_estimates(measured, two_arms(), accounts(measured))
    assert {row.status for row in rows if row.term.startswith(("mixing", "learning"))} == {"undefined"}


def test_replace_mixes_nothing() -> None:
    made = priced(4)
    frame = made.candidates.assign(p_training=made.candidates["p_selected"])
    measured = measure(RunTables(made.items, frame, *[pd.DataFrame()] * 3), two_arms())
    rows = price_estimates(measured, two_arms(), accounts(measured))
    assert {row.estimate for row in rows if row.term == "mixing_length"} == {0.0}
