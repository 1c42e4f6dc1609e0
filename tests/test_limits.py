"""Limits on estimates: the interval decides, which rows a limit is about, and the terms that a limit may name."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from judgeloop import limits
from judgeloop.limits import choose, is_known, limits_of, matches, sample_to_decide
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import replicates_for


def row(**more: Any) -> Estimate:
    """One judge's first-slot excess, unless said otherwise."""
    values: dict[str, Any] = {
        "scope": "judge", "bias": "position", "term": "first_slot_excess", "judge": "m", "panel": "pairs",
        "estimate": 0.02, "std_error": 0.01, "conf_low": 0.0, "conf_high": 0.04, "conf_level": 0.95, "n": 200,
        "n_items": 200, "unit": "probability",
    }  # fmt: skip
    return Estimate(**{**values, **more})


def between(low: float, high: float, **more: Any) -> Estimate:
    return row(estimate=(low + high) / 2, std_error=(high - low) / 4, conf_low=low, conf_high=high, **more)


def verdict(estimate: Estimate, **limit: Any) -> str:
    return limits.check("f", [estimate], limits_of({estimate.term: limit})).outcomes[0].verdict


@pytest.mark.parametrize(
    ("estimate", "limit", "expected", "margin"),
    [
        (between(-0.04, 0.04), {"max_abs": 0.05}, "passed", 0.01),
        (between(0.01, 0.05), {"max_abs": 0.05}, "passed", 0.0),
        (between(0.06, 0.10), {"max_abs": 0.05}, "exceeded", -0.01),
        (between(-0.10, -0.06), {"max_abs": 0.05}, "exceeded", -0.01),
        (between(0.01, 0.09), {"max_abs": 0.05}, "inconclusive", -0.04),
        (between(-0.3, 0.3), {"max_abs": 0.05}, "inconclusive", -0.25),
        (between(-0.9, 0.04), {"max": 0.05}, "passed", 0.01),
        (between(0.61, 0.7, term="gold_agreement"), {"min": 0.6}, "passed", 0.01),
        (between(0.55, 0.7, term="gold_agreement"), {"min": 0.6}, "inconclusive", -0.05),
        (between(0.4, 0.55, term="gold_agreement"), {"min": 0.6}, "exceeded", -0.05),
        (between(0.45, 0.55, term="gold_agreement"), {"min": 0.4, "max": 0.6}, "passed", 0.05),
        (row(status="undefined", estimate=None, note="no gold"), {"max": 1}, "inconclusive", None),
        (row(conf_low=None, conf_high=None, note="one replicate has no interval"), {"max": 1}, "inconclusive", None),
        (row(status="undefined", estimate=None), {"max": 1, "required": False}, "not_applied", None),
        # Underpowered for its own margin, and yet inside a wider limit: the interval decides.
        (between(-0.08, 0.08, status="underpowered"), {"max_abs": 0.2}, "passed", 0.12),
        (between(-0.08, 0.08, status="underpowered"), {"max_abs": 0.05}, "inconclusive", -0.03),
    ],
)  # fmt: skip
def test_the_interval_decides(estimate: Estimate, limit: dict[str, Any], expected: str, margin: float | None) -> None:
    outcome = limits.check("f", [estimate], limits_of({estimate.term: limit})).outcomes[0]
    assert outcome.verdict == expected
    assert outcome.margin == (None if margin is None else pytest.approx(margin))
    assert outcome.message


@given(
    st.floats(-0.9, 0.9), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.001, 0.9), st.floats(0, 0.1)
)  # fmt: skip
def test_more_data_or_a_wider_limit_never_turns_a_pass(
    centre: float, below: float, above: float, limit: float, more: float
) -> None:
    estimate = row(estimate=centre, conf_low=max(-1.0, centre - below), conf_high=min(1.0, centre + above))
    first = verdict(estimate, max_abs=limit)
    wider = row(estimate=centre, conf_low=estimate.conf_low - more, conf_high=estimate.conf_high + more)  # type: ignore[operator]
    if verdict(wider, max_abs=limit) != "inconclusive":
        assert first == verdict(wider, max_abs=limit)
    if first == "passed":
        assert verdict(estimate, max_abs=min(1.0, limit + more)) == "passed"
    if verdict(estimate, max_abs=min(1.0, limit + more)) == "exceeded":
        assert first == "exceeded"


@given(st.lists(st.sampled_from(["passed", "exceeded", "inconclusive", "not_applied"]), min_size=1, max_size=5))
def test_the_whole_is_its_worst_part(parts: list[str]) -> None:
    row_by_verdict = {
        "passed": between(-0.01, 0.01), "exceeded": between(0.2, 0.3), "inconclusive": between(0.0, 0.3),
        "not_applied": row(status="undefined", estimate=None),
    }  # fmt: skip
    rows = [replace(row_by_verdict[part], judge=f"m{place}") for place, part in enumerate(parts)]
    checked = limits.check("f", rows, limits_of({"first_slot_excess": {"max_abs": 0.05, "required": False}}))
    assert [outcome.verdict for outcome in checked.outcomes] == parts
    if "exceeded" in parts:
        assert checked.exit_code == 1
    elif "inconclusive" in parts or "passed" not in parts:
        assert checked.exit_code == 5
    else:
        assert checked.exit_code == 0


def test_a_limit_that_looks_at_nothing_is_no_pass() -> None:
    for raw, words in (
        ({"did_length": {"max": 0.1}}, "no estimate of did_length"),
        ({"first_slot_excess": {"max": 0.1, "judge": "other"}}, "is of judge other (judges: m)"),
        ({"first_slot_excess": {"max": 0.1, "generation": 3}}, "is of generation 3"),
    ):
        checked = limits.check("f", [row()], limits_of(raw))
        assert (checked.exit_code, checked.outcomes[0].row) == (5, None)
        assert words in checked.outcomes[0].message
    only_skipped = limits.check("f", [row()], limits_of({"did_length": {"max": 0.1, "required": False}}))
    assert only_skipped.exit_code == 5


def test_the_sample_that_would_decide() -> None:
    estimate = row(estimate=0.03, std_error=0.02, n_items=100)
    words = sample_to_decide(estimate, 0.02)
    needed = int(re.search(r"about ([\d,]+) items \(now 100\)", words)[1].replace(",", ""))  # type: ignore[index]
    # With that many items the limit stands z(.975) + z(.8) = 2.80 standard errors away.
    assert 0.02 / (0.02 * math.sqrt(100 / needed)) == pytest.approx(2.802, abs=0.01)
    loops = row(estimate=0.03, std_error=0.02, n_replicates=8)
    assert f"about {replicates_for(0.02 / (0.02 * math.sqrt(8)))} replicates (now 8)" == sample_to_decide(loops, 0.02)
    assert sample_to_decide(estimate, 0.0) == ""
    assert sample_to_decide(row(std_error=0.0, conf_low=0.02, conf_high=0.02), 0.1) == ""
    assert "more than" in sample_to_decide(estimate, 1e-6)
    # What nobody runs is no advice.
    assert sample_to_decide(loops, 0.0025).startswith("no sample of this kind (it takes about")
    assert sample_to_decide(estimate, 3e-4).startswith("no sample of this kind (it takes about")
    across = limits.check("f", [estimate, loops], limits_of({"first_slot_excess": {"max": 0.05}})).outcomes
    assert "would decide it" not in across[0].message or across[0].verdict == "inconclusive"


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


def test_a_positive_control_is_gated_only_by_its_name() -> None:
    did = {"scope": "policy", "judge": "", "panel": "", "term": "did_length", "unit": "doublings", "contrast": "random"}
    picks = {"scope": "judge", "panel": "policy", "term": "longer_preferred_raw", "arm": "longer", "generation": 3}
    rows = [
        between(0.8, 1.0, arm="longer", **did),
        between(0.01, 0.05, arm="judge", **did),
        between(0.4, 0.5, judge="rule:more_length", **picks),
    ]
    assert [row.arm for row in choose(rows, limits_of({"did_length": {"max_abs": 0.1}})[0])] == ["judge"]
    assert [row.arm for row in choose(rows, limits_of({"did_length": {"max": 1, "arm": "longer"}})[0])] == ["longer"]
    assert choose(rows, limits_of({"longer_preferred_raw": {"max": 1}})[0]) == []


def test_a_limit_is_not_passed_by_a_run_that_could_not_see_a_drift() -> None:
    did = {"scope": "policy", "judge": "", "panel": "", "term": "did_length", "unit": "doublings", "arm": "judge", "contrast": "random"}  # fmt: skip
    blind = {**did, "positive_control": "not_seen"}
    assert verdict(between(-0.05, 0.05, **blind), max_abs=0.1) == "inconclusive"
    assert verdict(between(-0.05, 0.05, **blind), min=-0.1) == "inconclusive"
    (outcome,) = limits.check("f", [between(-0.05, 0.05, **blind)], limits_of({"did_length": {"max": 0.1}})).outcomes
    assert "this run could not see it" in outcome.message
    assert verdict(between(0.01, 0.05, **blind), max_abs=0.1) == "passed"  # a drift, seen, and small
    assert verdict(between(0.2, 0.3, **blind), max_abs=0.1) == "exceeded"
    assert verdict(between(-0.05, 0.05, **did, positive_control="seen"), max_abs=0.1) == "passed"
    assert verdict(between(-0.05, 0.05, **did), max_abs=0.1) == "passed"
    for control, says in (("seen", "this run could see one as strong"), ("not_seen", "this run could not see it")):
        across = between(-0.05, 0.2, **did, positive_control=control)
        (outcome,) = limits.check("f", [across], limits_of({"did_length": {"max": 0.1}})).outcomes
        assert outcome.verdict == "inconclusive"
        assert says in outcome.message


def test_a_strategy_that_others_are_compared_with_is_gated_like_them() -> None:
    did = {"scope": "policy", "judge": "", "panel": "", "term": "did_length", "unit": "doublings", "contrast": "random"}
    gap = {**did, "term": "strategy_gap_length", "arm": "accumulate", "contrast": "judge"}
    rows = [
        between(0.8, 1.0, arm="judge", **did),
        between(0.01, 0.05, arm="accumulate", **did),
        between(-0.9, -0.7, **gap),
    ]
    checked = limits.check("f", rows, limits_of({"did_length": {"max_abs": 0.1}}))
    assert [(outcome.row.arm, outcome.verdict) for outcome in checked.outcomes if outcome.row] == [
        ("judge", "exceeded"), ("accumulate", "passed"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"verdict": "found", "p_value": 0.001}, "exceeded"),
        ({"verdict": "cannot_tell", "p_value": 0.02}, "exceeded"),  # not found after correction for several tests
        ({"verdict": "cannot_tell"}, "inconclusive"),  # withheld: what is missing depends on the verdict
        ({"verdict": "found_if_unscored_alike", "p_value": 0.001}, "inconclusive"),
    ],
)
def test_what_missing_replies_could_account_for_exceeds_no_limit(claim: dict[str, Any], expected: str) -> None:
    assert verdict(between(0.06, 0.1, **claim), max_abs=0.05) == expected


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        ({"verdict": "none", "p_value": 0.4}, "passed"),
        (
            {"verdict": "cannot_tell", "p_value": 0.4},
            "passed",
        ),  # too few data for its own margin, and enough for this limit
        ({"verdict": "cannot_tell"}, "inconclusive"),
        ({"verdict": "none_if_unscored_alike", "p_value": 0.4}, "inconclusive"),
        ({"verdict": "not_linear", "p_value": 0.4}, "inconclusive"),  # within the limit on average alone
    ],
)
def test_what_the_report_withholds_passes_no_limit(claim: dict[str, Any], expected: str) -> None:
    assert verdict(between(-0.02, 0.03, **claim), max_abs=0.05) == expected


def test_what_is_within_a_limit_in_its_worst_cases_passes_it() -> None:
    alike = between(-0.02, 0.03, verdict="none_if_unscored_alike", p_value=0.4)
    cases = [between(-0.12, -0.05, variant="worst_case_low"), between(0.05, 0.13, variant="worst_case_high")]
    for limit, expected in ((0.2, "passed"), (0.1, "inconclusive")):
        checked = limits.check("f", [alike, *cases], limits_of({alike.term: {"max_abs": limit}}))
        assert [outcome.verdict for outcome in checked.outcomes] == [expected]


def test_a_judge_that_gave_every_verdict_again_passes_and_no_other() -> None:
    """The gate is on the fixed panel: there nothing moved, however few pairs it holds."""
    same = between(-0.24, 0.24, term="judge_drift_first_slot_excess", panel="anchor", status="underpowered",
                   verdict="unchanged", detectable=0.34)  # fmt: skip
    checked = limits.check("f", [same], limits_of({same.term: {"max_abs": 0.05}}))
    assert (checked.exit_code, checked.outcomes[0].margin) == (0, 0.05)
    assert "every pair was judged as at generation 0" in checked.outcomes[0].message
    assert verdict(same, min=0.01, max=0.05) == "inconclusive"
    assert verdict(replace(same, verdict="undetected"), max_abs=0.05) == "inconclusive"


def test_terms_of_the_contract_and_of_the_folder_are_known() -> None:
    for term in (
        "first_slot_excess", "slot_3_excess", "padding_probe", "bold_probe", "tone_probe", "style_joint", "did_mattr",
        "mean_length", "mean_correct", "hedging_when_wrong", "judge_drift_conflict_rate", "transmission_length",
        "cumulative_gain_style_score", "kl_from_reference", "forecast_drift_length", "vendi", "score_length_ame",
        "arena_style_log_odds_tokens", "preference_fairness", "did_*", "*_probe",
    ):  # fmt: skip
        assert is_known(term), term
    assert all(is_known(estimate.term) for estimate in report_folder.estimates())
    assert not is_known("my_term")
    assert is_known("my_term", {"my_term"})
    assert matches("a*c", "abc")
    assert not matches("a*c", "ac")
    assert not matches("a.c", "abc")
