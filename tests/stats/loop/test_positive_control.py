"""What an arm with a known taste says of the others: whose rows, which feature, which side, and how often it is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from drift_tables import tables
from judgeloop.commands.run import design_of
from judgeloop.experiment.resolve import resolve
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.loop.drift import drift_estimates
from judgeloop.stats.loop.estimates import with_positive_controls
from judgeloop.stats.loop.replicates import measure, series

JUDGE = ArmDesign("judge", "j")
LONGER = ArmDesign("longer", "rule:more_length", judge_kind="rule", taste=("length", 1))
COIN = ArmDesign("coin", "random", is_control=True, judge_kind="random")


def _design(*arms: ArmDesign, generations: int = 1) -> Design:
    contrasts = tuple((arm.name, "coin") for arm in arms if not arm.is_control)
    return Design("d", 0, generations, arms, contrasts, contrasts[0])


def _marks(design: Design, *rows: tuple[str, str, float, float]) -> list[str]:
    """The marks of ``did_`` rows (arm, term, low, high) against the coin, at generation 1."""
    arms, terms, low, high = zip(*rows, strict=True)
    frame = pd.DataFrame({
        "arm": arms, "term": terms, "conf_low": low, "conf_high": high, "contrast": "coin", "generation": 1, "category": "",
        "variant": "", "status": "ok", "positive_control": "",
    })  # fmt: skip
    return list(with_positive_controls(frame, design)["positive_control"])


@pytest.mark.parametrize(
    ("low", "high", "judge", "control"),
    [
        (0.1, 0.3, "seen", "itself_seen"),
        (-0.1, 0.3, "not_seen", "itself_not_seen"),
        (-0.3, -0.1, "not_seen", "itself_not_seen"),  # against its taste
        (np.nan, np.nan, "not_seen", "itself_not_seen"),  # one replicate has no interval
    ],
)
def test_a_control_is_seen_where_its_interval_leaves_0_on_the_side_of_its_taste(
    low: float, high: float, judge: str, control: str
) -> None:
    design = _design(JUDGE, LONGER, COIN)
    rows = ("judge", "did_length", -1.0, 1.0), ("longer", "did_length", low, high), ("longer", "did_bold", 0.1, 0.3)
    assert _marks(design, *rows) == [judge, control, "itself"]
    shorter = replace(LONGER, taste=("length", -1))
    turned = _marks(_design(JUDGE, shorter, COIN), rows[0], ("longer", "did_length", -high, -low))
    assert turned == [judge, control]


def test_a_control_says_nothing_of_another_feature_or_of_an_arm_that_is_trained_in_another_way() -> None:
    others = (
        replace(JUDGE, name="slow", tau=5.0), replace(JUDGE, name="adds", strategy="accumulate"),
        replace(JUDGE, name="held", label_rule="length_controlled"), replace(JUDGE, name="averaged", label_rule="swap_average"),
    )  # fmt: skip
    design = _design(JUDGE, *others, LONGER, COIN)
    rows = [(arm.name, "did_length", -1.0, 1.0) for arm in (JUDGE, *others)]
    marks = _marks(
        design, *rows, ("judge", "did_style_score", -1.0, 1.0), ("longer", "did_length", 0.1, 0.3),
        ("longer", "did_style_score", 0.1, 0.3),
    )  # fmt: skip
    assert marks == ["seen", "", "", "", "seen", "", "itself_seen", "itself"]


def test_arms_that_learn_at_another_rate_are_not_trained_alike() -> None:
    rule = {"kind": "rule", "feature": "length", "prefer": "less"}
    resolved = resolve({
        "name": "d", "items": "i", "endpoints": {}, "judge": {"kind": "planted"}, "policy": {"kind": "trained", "base": "smollm2-135m"},
        "signal": {"kind": "dpo"}, "arms": {
            "judge": {}, "faster": {"signal": {"learning_rate": 0.01}}, "mild": {"signal": {"label_rule": "swap_average"}},
            "shorter": {"judge": rule}, "coin": {"judge": {"kind": "random"}},
        },
    })  # fmt: skip
    design = design_of(resolved, {arm.name: arm.name for arm in resolved.arms})
    assert design.arm("shorter").taste == ("length", -1)
    rows = [
        (arm, "did_length", -1.0, -0.5 if arm == "shorter" else 1.0) for arm in ("judge", "faster", "mild", "shorter")
    ]
    assert _marks(design, *rows) == ["seen", "", "seen", "itself_seen"]


def test_of_two_controls_of_a_feature_each_must_be_seen() -> None:
    shorter = replace(LONGER, name="shorter", taste=("length", -1))
    design = _design(JUDGE, LONGER, shorter, COIN)
    judge, longer = ("judge", "did_length", -1.0, 1.0), ("longer", "did_length", 0.1, 0.3)
    assert _marks(design, judge, longer, ("shorter", "did_length", -0.3, -0.1))[0] == "seen"
    marks = _marks(design, judge, longer, ("shorter", "did_length", -0.3, 0.1))
    assert marks == ["not_seen", "itself_seen", "itself_not_seen"]


def test_the_drift_of_its_own_feature_is_a_family_of_its_own() -> None:
    made = tables(replicates=4, items=4, pool=3)
    judge = made.candidates[made.candidates["arm"] == "judge"]
    coin = made.candidates[made.candidates["arm"] == "random"].assign(arm="coin")
    candidates = pd.concat([coin.assign(arm="judge"), judge.assign(arm="longer"), coin], ignore_index=True)
    made = RunTables(made.items, candidates, made.judgments, made.preferences, made.signals)
    design = _design(JUDGE, LONGER, COIN, generations=2)
    measured = measure(made, design)
    lines = [line for line in series(measured) if line.quantity.name in ("length", "style_score") and not line.category]
    frame = estimates_frame(drift_estimates(measured, lines, design))
    did = frame[(frame["generation"] == 2) & frame["term"].str.startswith("did_")]
    named = did[did["family"] == "confirmatory"].groupby("arm")["term"].agg(list).to_dict()
    assert named == {"judge": ["did_length", "did_style_score"], "longer": ["did_length"]}
    marked = with_positive_controls(frame, design)
    assert set(marked.loc[marked["arm"] == "longer", "positive_control"]) >= {"itself", "itself_seen"}
    of_judge = marked[(marked["arm"] == "judge") & (marked["positive_control"] != "")]
    assert set(of_judge["term"]) == {"did_length"}
    assert set(marked.loc[marked["arm"] == "coin", "positive_control"]) == {""}


@pytest.mark.parametrize(("drift", "rate"), [(0.0, 0.025), (1.0, 0.681), (2.0, 0.998)])
def test_it_is_said_that_the_run_could_see_in_2_5_percent_of_runs_that_pass_on_nothing(
    drift: float, rate: float
) -> None:
    """4,000 runs of 8 replicates; the control's drift in SDs between replicates. ``rate``: of the non-central t law."""
    runs, replicates = 4_000, 8
    values = drift + rng(0, "positive control", drift).standard_normal((runs, replicates))
    half = stats.t.ppf(0.975, replicates - 1) * values.std(axis=1, ddof=1) / np.sqrt(replicates)
    frame = pd.DataFrame({
        "arm": np.repeat(["judge", "longer"], runs), "term": "did_length", "contrast": "coin", "generation": [*range(runs)] * 2,
        "category": "", "variant": "", "status": "ok", "positive_control": "",
        "conf_low": np.tile(values.mean(axis=1) - half, 2), "conf_high": np.tile(values.mean(axis=1) + half, 2),
    })  # fmt: skip
    marked = with_positive_controls(frame, _design(JUDGE, LONGER, COIN))
    seen = (marked["positive_control"].head(runs) == "seen").mean()
    assert seen == pytest.approx(rate, abs=3 * np.sqrt(rate * (1 - rate) / runs))
