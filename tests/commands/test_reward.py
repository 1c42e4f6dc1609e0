"""A judge as a trainer's reward function: what it gives, what it asks, and that its verdicts can be analysed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import judgeloop
from conftest import Served
from judgeloop.errors import BudgetReached, EndpointFailed, ExperimentError, FolderMismatch, InvalidInput

Serve = Callable[..., Served]
pytestmark = pytest.mark.at_hand
PROMPTS = ["Why is the sky blue?"] * 3 + [[{"role": "user", "content": "Name a fruit."}]] * 2
COMPLETIONS = [
    "word " * 10, "word " * 80, "word " * 20, [{"role": "assistant", "content": "apple"}], [{"role": "assistant", "content": "a pear"}],
]  # fmt: skip


def _endpoints(served: Served) -> dict[str, dict[str, Any]]:
    return {"m": {"base_url": served.base_url, "model": "planted", "attempts": 2}}


def test_a_rule_is_a_known_taste_and_asks_nothing(tmp_path: Path) -> None:
    with judgeloop.reward({"kind": "rule", "feature": "length"}, out=tmp_path / "r") as reward:
        assert reward(PROMPTS, COMPLETIONS, trainer_state=None, other=[1] * 5) == [0.0, 1.0, 0.5, 0.0, 1.0]
        assert reward(["q"] * 3, ["same", "same", "longer text"]) == [0.25, 0.25, 1.0]
        assert reward.__name__ == "judge_reward"
    with judgeloop.reward({"kind": "random"}, out=tmp_path / "coin", seed=1) as coin:
        assert coin(PROMPTS, COMPLETIONS) == coin(PROMPTS, COMPLETIONS)


def test_both_orders_are_asked_once_and_the_slot_cancels(tmp_path: Path, serve: Serve) -> None:
    served = serve(position=40.0, length=0.0)
    judge = {"endpoint": "m", "verdict": "text"}
    with judgeloop.reward(judge, _endpoints(served), out=tmp_path / "r") as reward:
        assert reward(PROMPTS, COMPLETIONS) == [0.5] * 5
        asked = sum(served.asked.values())
        assert asked == 8
        # The same texts in another order of the batch, as a later step of the training may draw them.
        assert reward(PROMPTS[2::-1], COMPLETIONS[2::-1]) == [0.5] * 3
    with judgeloop.reward(judge, _endpoints(served), out=tmp_path / "r") as again:
        assert again(PROMPTS, COMPLETIONS) == [0.5] * 5
    assert sum(served.asked.values()) == asked
    rows = [json.loads(line) for line in (tmp_path / "r/verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    audit = judgeloop.analyze(tmp_path / "r/verdicts.jsonl")
    row = audit.estimates.query("term == 'first_slot_excess' and variant == ''").iloc[0]
    assert (row["estimate"], row["n"]) == (0.5, 4)


def test_a_row_that_a_killed_process_left_torn_is_written_again(tmp_path: Path) -> None:
    log, taste = tmp_path / "r" / "verdicts.jsonl", {"kind": "rule", "feature": "length"}
    with judgeloop.reward(taste, out=tmp_path / "r") as reward:
        reward(PROMPTS, COMPLETIONS)
    whole = log.read_text()
    log.write_text(whole[:-40])
    with judgeloop.reward(taste, out=tmp_path / "r") as reward:
        reward(PROMPTS, COMPLETIONS)
    assert sorted(log.read_text().splitlines()) == sorted(whole.splitlines())


def test_another_judge_never_takes_its_verdicts(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r") as reward:
        reward(PROMPTS, COMPLETIONS)
    with pytest.raises(FolderMismatch, match="verdicts of another judge are never used again"):
        judgeloop.reward({"kind": "random"}, out=tmp_path / "r")


def test_faults_are_a_sentence_and_the_same_call_resumes(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=40.0, position=0.0)
    with pytest.raises(ExperimentError, match=r"reward: judge\.feature"):
        judgeloop.reward({"kind": "rule", "feature": "charm"}, out=tmp_path / "r")
    with judgeloop.reward(
        {"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r", max_calls=3
    ) as reward:
        with pytest.raises(InvalidInput, match="prompt 1 has one completion"):
            reward(["p", "q", "p"], ["a", "b", "c"])
        with pytest.raises(BudgetReached):
            reward(PROMPTS, COMPLETIONS)
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r") as reward:
        assert reward(PROMPTS, COMPLETIONS) == [0.0, 1.0, 0.5, 0.0, 1.0]
    assert max(served.asked.values()) == 1


def test_a_completion_without_a_verdict_has_no_reward(tmp_path: Path, serve: Serve) -> None:
    served = serve(unscored=1.0)
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r") as reward:
        assert reward(PROMPTS[:3], COMPLETIONS[:3]) == [None] * 3


def test_a_judge_that_scores_texts_gives_its_scores_and_is_asked_once_a_text(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=1.0, position=0.0)
    points = {"kind": "pointwise", "endpoint": "m", "verdict": "text"}
    with judgeloop.reward(points, _endpoints(served), out=tmp_path / "points") as reward:
        scores = reward([*PROMPTS, "A prompt with one completion"], [*COMPLETIONS, "alone"])
        assert sum(served.asked.values()) == 6
        assert all(score in range(1, 11) for score in scores)
        assert scores[0] < scores[2] < scores[1]
    reversed_scale = {**points, "scale": "10-1"}
    with judgeloop.reward(reversed_scale, _endpoints(served), out=tmp_path / "reversed") as reward:
        points_less = reward(PROMPTS, COMPLETIONS)
        assert all(score in range(-10, 0) for score in points_less)
        assert points_less[0] < points_less[1]
    audit = judgeloop.analyze(tmp_path / "points/verdicts.jsonl")
    row = audit.estimates.query("term == 'longer_preferred_raw' and category == ''").iloc[0]
    assert (row["estimate"], row["n"]) == (0.875, 8)  # a tie of "apple" and "a pear"


def test_a_reward_model_gives_its_numbers_and_is_tried_first(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=1.0, position=0.0)
    judge = {"kind": "reward", "endpoint": "m"}
    with judgeloop.reward(judge, _endpoints(served), out=tmp_path / "r") as reward:
        rewards = reward(PROMPTS[:3], COMPLETIONS[:3])
        short, long, middle = (value for value in rewards if value is not None)
        assert long - middle == pytest.approx(2.0)  # a log-odds a doubling
        assert middle - short == pytest.approx(1.0)
    silent = serve(unscored=1.0)
    with pytest.raises(EndpointFailed, match="gave no score to a trial text"):
        judgeloop.reward(judge, _endpoints(silent), out=tmp_path / "silent")
    points = {"kind": "pointwise", "endpoint": "m", "verdict": "text"}
    with judgeloop.reward(points, _endpoints(silent), out=tmp_path / "points") as reward:
        assert reward(PROMPTS, COMPLETIONS) == [None] * 5
