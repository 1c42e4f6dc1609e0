"""Adjusted p-values against statsmodels, and the family of each row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.multiplicity import adjust, benjamini_hochberg, holm, with_judge_families, with_run_families


@settings(max_examples=examples(8))
@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=12))
def test_adjustment_equals_statsmodels(p_values):
    from statsmodels.stats.multitest import multipletests

    p = np.array(p_values)
    # statsmodels computes Holm's in the same way; ties may be ordered otherwise without changing values.
    assert np.allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)
    assert np.allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], atol=1e-12)


def rows():
    def one(term, p, judge="j", **more):
        return Estimate(scope="judge", bias="position", term=term, judge=judge, p_value=p, estimate=0.1, **more)

    return estimates_frame([
        one("first_slot_excess", 0.01), one("length_ame", 0.04), one("style_joint", 0.02),
        one("padding_probe", None, status="undefined"), one("length_ame", 0.001, variant="no_gold"),
        one("first_slot_excess", 0.03, category="math"), one("position_log_odds", 0.2),
        one("preference_fairness", 0.01), one("first_slot_excess", 0.04, judge="k"), one("conflict_rate", None),
    ])  # fmt: skip


def test_families_of_a_judge():
    frame = with_judge_families(rows())
    assert frame["family"].tolist() == [
        "confirmatory", "confirmatory", "confirmatory", "none", "none", "exploratory", "exploratory", "none",
        "confirmatory", "none",
    ]  # fmt: skip


def test_each_judge_is_adjusted_apart_and_within_its_family():
    adjusted = adjust(with_judge_families(rows()))["p_adjusted"]
    assert adjusted[:3].tolist() == pytest.approx([0.03, 0.04, 0.04])
    assert adjusted[5:7].tolist() == pytest.approx([0.06, 0.2])
    assert adjusted[8] == pytest.approx(0.04)
    assert adjusted[[3, 4, 7, 9]].isna().all()


def test_an_empty_frame_stays_empty():
    assert len(adjust(with_judge_families(estimates_frame([])))) == 0


def test_families_of_a_run_leave_no_test_unadjusted():
    def one(term, p, family="none", **more):
        return Estimate(scope="policy", bias="verbosity", term=term, arm="judge", p_value=p, family=family, **more)

    frame = estimates_frame([
        one("did_length", 0.01, "confirmatory", contrast="random", generation=2), one("drift_length", 0.03, generation=1),
        one("drift_bold", 0.02, generation=1), one("bias_selection_length", 0.5, contrast="random", generation=0),
        one("drift_length", 0.03, variant="equal_tokens"), one("mean_length", None, generation=1),
    ])  # fmt: skip
    found = adjust(with_run_families(frame))
    assert found["family"].tolist() == ["confirmatory", *["exploratory"] * 3, "none", "none"]
    assert found["p_adjusted"].tolist()[:4] == pytest.approx([0.01, 0.03, 0.03, 0.5])
    assert found["p_value"].isna().tolist() == [False] * 4 + [True] * 2
