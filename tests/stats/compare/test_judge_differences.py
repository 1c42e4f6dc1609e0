"""Judges of one audit side by side: signs, pairing, and when there is nothing to compare."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from judgeloop import analysis, seeds
from judgeloop.stats.compare.differences import MOST_JUDGES, judge_difference_estimates
from judgeloop.stats.estimate import estimates_frame


def judged(position: dict[str, float], pairs: int = 200, panel: str = "pairs", offset: int = 0) -> pd.DataFrame:
    """Soft verdicts of judges that share a pair's merit and differ in their taste for the first slot (log-odds)."""
    stream, rows = seeds.rng(0, "judges side by side"), []
    for number in range(pairs):
        merit = 2.0 * float(stream.standard_normal())
        for judge, taste in position.items():
            noise = 0.1 * float(stream.standard_normal())
            for order, sign in (("ab", 1.0), ("ba", -1.0)):
                p = 1.0 / (1.0 + math.exp(-(taste + noise + sign * merit)))
                rows.append({
                    "item_id": f"i{number + offset}", "pair_id": f"i{number + offset}", "judge": judge, "order": order,
                    "repeat": 0, "verdict": "first" if p > 0.5 else "second", "p_first": p, "panel": panel,
                    "candidate_first": order[0], "candidate_second": order[1], "identical": False, "gold": "",
                    "category": "", "reason": "", "arm": "", "len_a": 100 + number, "len_b": 150,
                })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.assign(generation=pd.array([pd.NA] * len(frame), dtype="Int64"))


def differences(frame: pd.DataFrame) -> pd.DataFrame:
    return estimates_frame(judge_difference_estimates(frame, None, sorted(frame["judge"].unique())))


def row(found: pd.DataFrame, term: str) -> pd.Series[Any]:
    some = found[found["term"] == f"judge_difference_{term}"]
    assert len(some) == 1
    return some.iloc[0]


def test_the_difference_is_of_the_estimates_and_far_narrower_than_they_are() -> None:
    found = analysis.estimates(judged({"m": 0.8, "other": 0.6}), None)
    apart = found[(found["term"] == "first_slot_excess") & (found["variant"] == "")].set_index("judge")
    gap = row(found, "first_slot_excess")
    assert (gap["judge"], gap["variant"], gap["panel"], gap["family"]) == ("m", "vs other", "pairs", "none")
    assert gap["estimate"] == pytest.approx(apart.loc["m", "estimate"] - apart.loc["other", "estimate"], abs=1e-12)
    assert gap["conf_low"] > 0
    assert np.isnan(gap["p_adjusted"])
    # The merit of a pair is the same for both judges, and cancels.
    assert gap["std_error"] < 0.5 * math.hypot(apart.loc["m", "std_error"], apart.loc["other", "std_error"])


def test_every_two_judges_and_only_on_shared_pairs() -> None:
    three = differences(judged({"a": 0.5, "b": 0.0, "c": -0.5}, 60))
    rows = three[three["term"] == "judge_difference_first_slot_excess"]
    assert list(zip(rows["judge"], rows["variant"], strict=True)) == [("a", "vs b"), ("a", "vs c"), ("b", "vs c")]
    assert (rows["estimate"] > 0).all()
    assert differences(pd.concat([judged({"a": 1.0}, 30), judged({"b": 0.0}, 30, offset=100)])).empty
    some = pd.concat([judged({"a": 1.0}, 30), judged({"b": 0.0}, 30, offset=10)])
    assert row(differences(some), "first_slot_excess")["n"] == 20


def test_what_is_not_compared() -> None:
    assert differences(judged({"a": 1.0}, 10)).empty
    assert differences(judged({f"j{n}": 0.0 for n in range(MOST_JUDGES + 1)}, 4)).empty
    # A judge's rubric is a mitigation of it, which has terms of its own.
    found = analysis.estimates(judged({"m": 1.0, f"m#{analysis.RUBRIC}": 0.0}, 20), None)
    assert not found["term"].str.startswith("judge_difference_").any()


def test_probes_are_compared_on_their_own_panel() -> None:
    probes = judged({"m": 0.0, "other": 0.0}, 40, panel="probe").assign(probe="bold", dose=np.nan)
    edited = np.where(probes["order"] == "ab", probes["candidate_second"], probes["candidate_first"])
    assert set(edited) == {"b"}
    liking = probes["judge"] == "m"
    shift = np.where(probes["order"] == "ab", -0.2, 0.2)
    probes["p_first"] = np.clip(probes["p_first"] + np.where(liking, shift, 0.0), 0.001, 0.999)
    found = row(differences(pd.concat([judged({"m": 0.0, "other": 0.0}, 40), probes])), "bold_probe")
    assert found["panel"] == "probe"
    assert found["estimate"] > 0.05
