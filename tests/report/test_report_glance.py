"""The four answers claim no more than the findings, and advice rests on what was found or not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from judgeloop.report.answers import QuestionAnswer, advice, answers
from judgeloop.report.claims import Finding
from judgeloop.report.findings import findings
from judgeloop.report.reading import Reading, read
from judgeloop.stats.estimate import Estimate


def _row(term: str = "first_slot_excess", **changes: Any) -> Estimate:
    base = Estimate(
        scope="judge", bias="position", term=term, judge="j", panel="pairs", estimate=0.123, std_error=0.016, conf_low=0.091, conf_high=0.154,
        conf_level=0.95, n=240, unit="probability",
    )  # fmt: skip
    return replace(base, **changes)


def _did(**changes: Any) -> Estimate:
    base = Estimate(
        scope="policy", bias="verbosity", term="did_length", arm="a", contrast="random", generation=3, estimate=1.0, std_error=0.1, conf_low=0.8,
        conf_high=1.2, conf_level=0.95, n=8, n_replicates=8, unit="doublings", family="confirmatory", p_adjusted=0.001, verdict="drifting",
    )  # fmt: skip
    return replace(base, **changes)


_NULL = {"estimate": 0.0, "conf_low": -0.01, "conf_high": 0.01, "verdict": "none", "margin": 0.05}


def _probed(term: str, beyond: float | None) -> list[Estimate]:
    """A probe that is found, and what of it is beyond its length (None: padding was not probed)."""
    raw = _row(term, bias="style")
    if beyond is None:
        return [raw]
    return [
        raw,
        replace(raw, variant="beyond_length", estimate=beyond, conf_low=beyond - 0.02, conf_high=beyond + 0.02),
    ]


_OPEN = {
    "estimate": 0.02,
    "conf_low": -0.03,
    "conf_high": 0.07,
    "verdict": "undetected",
    "detectable": 0.04,
}


def _reading(rows: list[Estimate], experiment: dict[str, Any] | None = None, arms: tuple[str, ...] = ()) -> Reading:
    nothing = pd.DataFrame()
    controls = {"random": "random"} if "random" in arms else {}
    return Reading("x", tuple(rows), nothing, nothing, nothing, nothing, {}, experiment or {}, "", arms, controls)


def _answers(rows: list[Estimate], **more: Any) -> list[QuestionAnswer]:
    return answers(_reading(rows, **more), findings(rows))


def _said(reading: Reading, found: list[Finding]) -> str:
    return " ".join(line.sentence for line in advice(reading, found))


@pytest.mark.parametrize(
    ("rows", "word", "words"),
    [
        ([_row()], "Yes", "First slot picked 62.3 % of the time (even: 50 %), 95 % interval 59.1 to 65.4"),
        ([_row(**_NULL)], "None within margin", "no effect of practical size"),
        ([_row(**_OPEN)], "Not detected", "this sample could have seen 4.0 points or more"),
        ([_row(**_OPEN, status="underpowered")], "Too few data", "too few data"),
        ([_row(status="undefined", estimate=None, conf_low=None, conf_high=None)], "Not known", "undefined"),
        ([_row("longer_preferred_raw", bias="verbosity", estimate=0.9, conf_low=0.85, conf_high=0.95)], "Not measured", "Nothing in this run measures"),
        ([_row(**_NULL), _row("longer_preferred_raw", bias="verbosity", estimate=0.9, conf_low=0.85, conf_high=0.95)], "None within margin", "First slot"),
    ],
)  # fmt: skip
def test_bias_is_answered_from_what_is_identified(rows: list[Estimate], word: str, words: str) -> None:
    answer = _answers(rows)[0]
    assert answer.word == word
    assert words in " ".join(answer.sentences)
    assert "Longer answer preferred" not in " ".join(answer.sentences)


def test_one_open_question_keeps_the_whole_from_being_called_none() -> None:
    padded = _row("padding_probe", bias="verbosity", **_OPEN)
    assert _answers([_row(**_NULL), padded])[0].word == "Not detected"
    assert _answers([_row(**_NULL), padded, _row("bold_probe", bias="style")])[0].word == "Yes"


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([_did()], "Yes"),
        ([_did(), _did(term="compounding_length", generation=None, unit="ratio", estimate=1.5, conf_low=1.2, conf_high=1.8, verdict="amplifying")], "Yes, and amplifying"),
        ([_did(), _did(term="compounding_length", generation=None, unit="ratio", estimate=0.6, conf_low=0.4, conf_high=0.8, verdict="saturating")], "Yes, saturating"),
        ([_did(estimate=0.1, conf_low=-0.2, conf_high=0.4, status="underpowered", verdict="undetected", detectable=0.31)], "Not detected"),
    ],
)  # fmt: skip
def test_growth_is_answered_from_drift_beyond_control(rows: list[Estimate], word: str) -> None:
    assert _answers(rows, arms=("a", "random"))[1].word == word


def test_a_log_without_generations_has_no_answer_on_growth() -> None:
    assert _answers([_row()])[1].word == "Not measured"
    alone = _answers([_did(term="drift_length", contrast="")], arms=("a",))
    assert "No arm is contrasted with a control" in alone[1].sentences[0]


@given(low=st.floats(-0.4, 0.39), width=st.floats(0.001, 0.3), status=st.sampled_from(["ok", "underpowered"]))
def test_yes_needs_an_interval_without_zero(low: float, width: float, status: Any) -> None:
    row = _row(estimate=low + width / 2, conf_low=low, conf_high=low + width, status=status)
    word = _answers([row])[0].word
    if low <= 0 <= low + width or status == "underpowered":
        assert word != "Yes"
    if word == "None within margin":
        assert max(abs(low), abs(low + width)) <= 0.05


@pytest.mark.parametrize(
    ("rows", "experiment", "words"),
    [
        ([_row()], {"signal": {"label_rule": "raw"}, "arms": {"a": {}}}, "`label_rule: swap_average`"),
        ([_row()], {"signal": {"label_rule": "swap_average"}, "arms": {"a": {}}}, "average the two verdicts, as in arm a"),
        ([_row(**_NULL)], {"arms": {"a": {"signal": {"label_rule": "consistent_only"}}}}, "keeps only the pairs that both orders decide alike"),
        ([_row("padding_probe", bias="verbosity")], {"arms": {"a": {}}}, "favours longer answers"),
        ([_row("padding_probe", bias="verbosity", estimate=-0.1, conf_low=-0.2, conf_high=-0.05)], {"arms": {"a": {}}}, "favours shorter answers"),
        (_probed("injection_probe", 0.08), {"arms": {"a": {}}}, "obeys orders in a text"),
        (_probed("bold_probe", 0.08), {"arms": {"a": {}}}, "reacts to form alone (bold text added)"),
        (_probed("injection_probe", 0.0), {"arms": {"a": {}}}, "a preference for length alone could explain that they win"),
        (_probed("bold_probe", None), {"arms": {"a": {}}}, "probe `padding` as well"),
        ([_row("padding_probe", bias="verbosity")], {"signal": {"kind": "best_of_n"}, "arms": {"a": {}}}, "best_of_n has none"),
        ([_row("padding_probe", bias="verbosity")], {"signal": {"kind": "group_advantage"}, "arms": {"a": {}}}, "group_advantage has none"),
        ([_row()], {"signal": {"kind": "group_advantage"}, "arms": {"a": {}}}, "in both orders and average the two verdicts."),
        ([_row("padding_probe", bias="verbosity")], {"arms": {"a": {"signal": {"label_rule": "length_controlled"}}}}, "train as in arm a"),
        ([_row(), _did(generation=3)], {"arms": {"a": {"signal": {"label_rule": "swap_average"}}}}, "as in arm a, whose length drifted +1.00 doublings beyond random (95 % interval 0.80 to 1.20)"),
        ([_row(**_NULL)], {"arms": {"a": {}}}, "judge edited copies"),
        ([_did(term="drift_length", contrast="")], {"arms": {"a": {}}}, "Add a control arm"),
    ],
)  # fmt: skip
def test_advice_names_the_setting(rows: list[Estimate], experiment: dict[str, Any], words: str) -> None:
    reading = _reading(rows, experiment, ("a",))
    assert words in _said(reading, findings(rows))


def test_answers_carry_the_findings_and_estimates_that_they_follow_from() -> None:
    longer, slot = _row("length_ame", bias="verbosity", estimate=-0.1, conf_low=-0.2, conf_high=-0.05), _row()
    biased, _, _, change = _answers([longer, slot])
    assert [ground.row for ground in biased.grounds] == [slot]
    assert [(line.kind, line.rows) for line in change.advice] == [
        ("both_orders", (slot,)), ("keep_disagreeing_pairs", ()), ("length", (longer,)),
    ]  # fmt: skip
    assert change.sentences == tuple(line.sentence for line in change.advice)
    drift = _answers(
        [_did(), _did(term="compounding_length", generation=None, verdict="amplifying")], arms=("a", "random")
    )
    assert [ground.row.verdict for ground in drift[1].grounds] == ["drifting", "amplifying"]


def test_nothing_found_and_everything_measured_calls_for_nothing() -> None:
    rows = [_row(**_NULL), _row("padding_probe", bias="verbosity", **_NULL)]
    assert _answers(rows)[3].word == "Nothing yet"


def test_strategies_are_advised_only_where_they_differ() -> None:
    gap = _did(
        term="strategy_gap_length",
        arm="b",
        contrast="a",
        generation=None,
        variant="equal_tokens",
        estimate=-0.3,
        std_error=0.04,
        conf_low=-0.4,
        conf_high=-0.2,
        n_replicates=8,
        verdict="",
    )
    levels = [
        _did(term="drift_length", arm=arm, contrast="", generation=None, variant="equal_tokens", estimate=size)
        for arm, size in (("a", 0.5), ("b", 0.2))
    ]
    said = _said(_reading([gap, *levels], arms=("a", "b")), [])
    assert "b drifts less in length than a (0.30 doublings less, 95 % interval 0.20 to 0.40): prefer its data" in said
    for size, low, high, shown in (
        (0.1, -0.1, 0.3, "0.10 doublings more, 95 % interval −0.10 to 0.30"),
        (-0.1, -0.3, 0.1, "0.10 doublings less, 95 % interval −0.10 to 0.30"),
        (0.2, 0.1, 0.3, "0.20 doublings more, 95 % interval 0.10 to 0.30"),
    ):
        stepwise = replace(gap, variant="", estimate=size, conf_low=low, conf_high=high)
        said = _said(_reading([gap, stepwise, *levels], arms=("a", "b")), [])
        assert f"step by step no such difference is shown ({shown}): choose by which" in said
    shrinking = [replace(level, estimate=-size) for level, size in zip(levels, (0.2, 0.5), strict=True)]
    said = _said(_reading([gap, *shrinking], arms=("a", "b")), [])
    assert "a drifts less in length than b (0.30 doublings less, 95 % interval 0.20 to 0.40): prefer" in said
    apart = [replace(levels[0], estimate=-0.5), levels[1]]
    assert "drifts less" not in _said(_reading([gap, *apart], arms=("a", "b")), [])
    assert "drifts less" not in _said(_reading([gap, levels[0]], arms=("a", "b")), [])
    tokens = [
        _did(term="training_tokens", arm=arm, contrast="", unit="tokens", estimate=n)
        for arm, n in (("a", 1e5), ("b", 3e5))
    ]
    said = _said(_reading([gap, *levels, *tokens], arms=("a", "b")), [])
    assert "over all generations it trains on 3.0 times the tokens" in said
    # t = 2.8 on 7 degrees of freedom, p .026: told from 0 by itself, and not as the best of three.
    near = replace(gap, std_error=0.3 / 2.8, conf_low=-0.55, conf_high=-0.05)
    assert "b drifts less" in _said(_reading([near, *levels], arms=("a", "b")), [])
    others = [replace(gap, arm=arm, estimate=0.01) for arm in "cd"]
    assert "drifts less" not in _said(_reading([near, *others, *levels], arms=("a", "b", "c", "d")), [])


def test_a_whole_run_is_answered(tmp_path: Path) -> None:
    reading = read(report_folder.write(tmp_path / "demo"))
    found = answers(reading, findings(reading.estimates))
    assert [answer.word for answer in found[:3]] == ["Yes", "Yes, saturating", "Limited"]
    assert "5 replicates" in found[2].sentences[0]
    assert all(sentence.endswith((".", "!")) for answer in found for sentence in answer.sentences)
