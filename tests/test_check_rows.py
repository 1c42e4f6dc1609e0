"""Which rows a limit is about, and the one that needs no interval."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import report_folder
from judgeloop import limits
from judgeloop.limits import choose, limits_of
from judgeloop.stats.estimate import Estimate
from limit_rows import between


def verdict(estimate: Estimate, **limit: Any) -> str:
    return limits.check("f", [estimate], limits_of({estimate.term: limit})).outcomes[0].verdict


def test_what_is_not_selected_is_the_row_that_speaks() -> None:
    rows = report_folder.estimates()
    at_end = choose(rows, limits_of({"first_slot_excess": {"max": 1}})[0])
    assert [(estimate.panel, estimate.generation, estimate.category) for estimate in at_end] == [
        ("anchor", report_folder.GENERATIONS, "")
    ]
    by_category = choose(rows, limits_of({"first_slot_excess": {"max": 1, "category": "*"}})[0])
    assert sorted(estimate.category for estimate in by_category) == sorted(report_folder.CATEGORIES)
    did = choose(rows, limits_of({"did_length": {"max": 1}})[0])
    assert [(estimate.arm, estimate.contrast, estimate.generation) for estimate in did] == [("judge", "random", 3)]
    every = choose(rows, limits_of({"did_length": {"max": 1, "contrast": "*", "generation": "all"}})[0])
    assert len(every) == 2 * report_folder.GENERATIONS
    drift = choose(rows, limits_of({"drift_length": {"max": 1}})[0])
    assert [estimate.arm for estimate in drift] == ["judge"]
    assert [estimate.arm for estimate in choose(rows, limits_of({"drift_length": {"max": 1, "arm": "gold"}})[0])] == [
        "gold"
    ]
    styles = choose(rows, limits_of({"did_*": {"max": 1, "contrast": "gold"}})[0])
    assert {estimate.term for estimate in styles} > {"did_length", "did_mattr", "did_bold"}


def test_a_strategy_that_others_are_compared_with_is_gated_like_them() -> None:
    did = {"scope": "policy", "judge": "", "panel": "", "term": "did_length", "unit": "doublings", "contrast": "random"}
    gap = {**did, "term": "strategy_gap_length", "arm": "accumulate", "contrast": "judge"}
    rows = [
        between(0.8, 1.0, arm="judge", **did),
        between(0.01, 0.05, arm="accumulate", **did),
        between(-0.9, -0.7, **gap),
    ]
    done = limits.check("f", rows, limits_of({"did_length": {"max_abs": 0.1}}))
    assert [(outcome.row.arm, outcome.verdict) for outcome in done.outcomes if outcome.row] == [
        ("judge", "exceeded"), ("accumulate", "passed"),
    ]  # fmt: skip


def test_a_judge_that_gave_every_verdict_again_passes_and_no_other() -> None:
    """The gate is on the fixed panel: there nothing moved, however few pairs it holds."""
    same = between(-0.24, 0.24, term="judge_drift_first_slot_excess", panel="anchor", status="underpowered",
                   verdict="unchanged", detectable=0.34)  # fmt: skip
    done = limits.check("f", [same], limits_of({same.term: {"max_abs": 0.05}}))
    assert (done.exit_code, done.outcomes[0].margin) == (0, 0.05)
    assert "every pair was judged as at generation 0" in done.outcomes[0].message
    assert verdict(same, min=0.01, max=0.05) == "inconclusive"
    assert verdict(replace(same, verdict="undetected"), max_abs=0.05) == "inconclusive"
