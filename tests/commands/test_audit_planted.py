"""Planted truth over real HTTP: position, length and style of an audited judge, each inside its interval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import judgeloop
from audit_case import primary
from audit_pairs import MARKER, pairs
from conftest import Served

PLANTED = {"position": 0.6, "length": 0.7, "bold": 0.4, "quality": 1.0, "quality_marker": MARKER}


@pytest.mark.slow
@pytest.mark.parametrize("verdict", ["logprob", "text"])
def test_position_length_and_style_are_given_back(tmp_path: Path, serve: Callable[..., Served], verdict: str) -> None:
    served = serve(**PLANTED, noise=0.0)
    done = judgeloop.audit(
        pd.DataFrame(pairs(140)), base_url=served.base_url, model="planted", verdict=verdict, temperature=1.0,
        probes="padding,bold,whitespace,identical", out=tmp_path / "o",
    )  # fmt: skip
    rows = done.estimates
    position = primary(rows, "position_log_odds")
    assert abs(position["estimate"] - PLANTED["position"]) <= 1e-6 + 3.5 * position["std_error"]
    texts = done.candidates[~done.candidates["candidate_id"].str.contains("~")]
    given = rows[(rows["variant"] == "given_gold") & (rows["category"] == "")].set_index("term")
    for term, planted in (("length_log_odds", 0.7), ("bold_log_odds", 0.4 * texts["bold"].std(ddof=1))):
        row = given.loc[term]
        # Soft verdicts leave no spread but that of gold's rounding. Drawn verdicts may miss a 95 % interval by chance: one
        # in twenty does, so that the test allows 3.5 standard errors.
        reach = 2e-3 + 3.5 * row["std_error"]
        assert abs(row["estimate"] - planted) <= reach, term
        assert verdict == "text" or reach < 0.01
    assert primary(rows, "first_slot_excess")["conf_low"] > 0
    assert primary(rows, "padding_probe", "probe")["conf_low"] > 0
    assert primary(rows, "bold_probe", "probe")["conf_low"] > 0.1
    control = primary(rows, "whitespace_probe", "probe")
    assert abs(control["estimate"]) <= 1e-3 + 3.5 * control["std_error"]
    same = primary(rows, "identical_pair_excess", "probe")
    expected = 1 / (1 + 2.718281828459045 ** -PLANTED["position"]) - 0.5
    assert abs(same["estimate"] - expected) <= 1e-3 + 3.5 * same["std_error"]
