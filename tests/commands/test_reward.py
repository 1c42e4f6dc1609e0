"""A judge as a trainer's reward function: what it gives, what it asks, and that its verdicts can be analysed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import judgeloop
from conftest import Served
from judgeloop.errors import BudgetReached, EndpointFailed, ExperimentError, FolderMismatch, InvalidInput
from judgeloop.serving.faults import Faults, Rule
from judgeloop.text import templates

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
    with pytest.raises(
        FolderMismatch,
        match=r"another judge's answers stand here: judge\.kind is model there and random here; .*; give another out, for verdicts of another judge are never used again$",
    ):
        judgeloop.reward({"kind": "random"}, out=tmp_path / "r")


@pytest.mark.parametrize(("kind", "shipped"), [("judge", "pairwise"), ("pointwise", "pointwise"), ("reward", "reward")])
def test_another_text_of_the_prompt_is_another_judge(tmp_path: Path, serve: Serve, kind: str, shipped: str) -> None:
    prompt = tmp_path / "mine.yaml"
    prompt.write_text(templates.source(shipped))
    judge = {"endpoint": "m", "prompt": str(prompt), **({} if kind == "judge" else {"kind": kind})}
    endpoints = _endpoints(serve())
    with judgeloop.reward(judge, endpoints, out=tmp_path / "r") as reward:
        reward(PROMPTS, COMPLETIONS)
    with judgeloop.reward(judge, endpoints, out=tmp_path / "r"):
        pass
    prompt.write_text(templates.source(shipped) + "# changed\n")
    with pytest.raises(
        FolderMismatch, match=r"stand here: the content of template\.mine has changed; give another out"
    ):
        judgeloop.reward(judge, endpoints, out=tmp_path / "r")


def test_a_controls_verdicts_are_its_own_too(tmp_path: Path) -> None:
    with judgeloop.reward({"kind": "rule", "feature": "length"}, out=tmp_path / "r") as reward:
        reward(PROMPTS, COMPLETIONS)
    with pytest.raises(FolderMismatch, match=r"judge\.kind is rule there and random here"):
        judgeloop.reward({"kind": "random"}, out=tmp_path / "r")


@pytest.mark.parametrize("texts", [3, 5])  # 6 and 20 judgments, which are as many failures in a row as end a client
def test_the_same_call_on_the_same_object_goes_on_after_an_outage(tmp_path: Path, serve: Serve, texts: int) -> None:
    rule = Rule(match="reward/picks", status=503, times=1)
    endpoints = {"m": {**_endpoints(serve(Faults(rules=(rule,)), length=40.0, position=0.0))["m"], "attempts": 1}}
    prompts, completions = ["q"] * texts, ["word " * 2**number for number in range(texts)]
    log = tmp_path / "r/verdicts.jsonl"
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, endpoints, out=tmp_path / "r") as reward:
        if texts == 3:
            assert reward(prompts, completions) == [None] * 3
            assert [json.loads(line)["reason"] for line in log.read_text().splitlines()] == ["http_503"] * 6
        else:
            with pytest.raises(EndpointFailed, match="20 calls in a row failed"):
                reward(prompts, completions)
        assert reward(prompts, completions) == [number / (texts - 1) for number in range(texts)]
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert len({(row["pair_id"], row["order"]) for row in rows}) == len(rows) == texts * (texts - 1)
        assert {row["reason"] for row in rows} == {""}
    assert "failed_calls" not in json.loads((tmp_path / "r/environment.json").read_text())


def test_a_trial_that_an_outage_failed_settles_no_other_way_to_read(tmp_path: Path, serve: Serve) -> None:
    endpoints = _endpoints(serve(Faults(rules=(Rule(match="reward/trial", status=503, times=2),))))
    with pytest.raises(EndpointFailed, match="the trial call failed with http_503"):
        judgeloop.reward({"endpoint": "m"}, endpoints, out=tmp_path / "r")


@pytest.mark.parametrize(("lost", "rewards"), [("all", [None] * 3), ("one", [0.5] * 3)])
def test_a_pair_with_a_verdict_in_one_order_is_left_out(
    tmp_path: Path, serve: Serve, lost: str, rewards: list[float | None]
) -> None:
    pair = sorted(hashlib.sha256(text.encode()).hexdigest()[:16] for text in map(str, COMPLETIONS[:2]))
    rule = Rule(match="/ab/" if lost == "all" else f"{'-'.join(pair)}/ab/", status=500, times="always")
    served = serve(Faults(rules=(rule,)), position=40.0, length=0.0)  # the first slot alone would be rewarded
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r") as reward:
        assert reward(PROMPTS[:3], COMPLETIONS[:3]) == rewards


LAST = [{"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("prompts", "completions", "more", "fault"),
    [
        (["q", "q"], ["a", "b", "c"], {}, "prompts and completions must be as many, not 2 and 3$"),
        (["q"] * 3, ["a", "b"], {}, "prompts and completions must be as many, not 3 and 2$"),
        (["q"] * 2, ["a", "b"], {"reference": ["4"]}, "reference and completions must be as many, not 1 and 2$"),
        (None, ["a", "b"], {}, "prompts must be a list with an entry for each completion, not None"),
        ("qq", ["a", "b"], {}, "prompts must be a list"), ({"role": "user"}, ["a"], {}, "prompts must be a list"),
        (["q"] * 2, ["a", 5], {}, r"completions\[1\] must be a text or a list of chat turns, not 5"),
        (["q"] * 2, ["a", None], {}, r"completions\[1\] must be .*, not None"),
        (["q"] * 2, [[], LAST], {}, r"completions\[0\] must be .*, not \[\]"),
        ([[], "q"], ["a", "b"], {}, r"prompts\[0\] must be a text or a list of chat turns, not \[\]"),
        (["q"] * 2, ["a", LAST[0]], {}, r"completions\[1\] must be a text or a list of chat turns, not {'role'"),
        (["q"] * 2, ["a", [{"role": "assistant", "content": None, "tool_calls": [1]}]], {}, r"completions\[1\]\[-1\] must be a turn with a role and a content that is text"),
        (["q"] * 2, ["a", [{"role": "assistant", "content": [{"type": "text", "text": "b"}, {"type": "image"}]}]], {}, r"completions\[1\]\[-1\] must be"),
        ([[{"content": "q"}], "q"], ["a", "b"], {}, r"prompts\[0\]\[0\] must be a turn"),
        ([[{"role": "user", "content": "q"}, {"role": "user"}], "q"], ["a", "b"], {}, r"prompts\[0\]\[1\] must be a turn"),
        ([["q"], "q"], ["a", "b"], {}, r"prompts\[0\]\[0\] must be a turn"),
        (["q"] * 2, ["a", "b"], {"reference": [{4}, None]}, r"reference\[0\] must be text, or a number, list or mapping"),
        (["q"] * 2, ["a", "b"], {"reference": [float("nan"), None]}, r"reference\[0\] must be text"),
    ],
)  # fmt: skip
def test_inputs_that_are_none_are_refused_by_their_place(
    tmp_path: Path, prompts: Any, completions: Any, more: dict[str, Any], fault: str
) -> None:
    with judgeloop.reward({"kind": "rule", "feature": "length"}, out=tmp_path / "r") as reward:
        with pytest.raises(InvalidInput, match=f"^reward: {fault}"):
            reward(prompts, completions, **more)
        assert not (tmp_path / "r/verdicts.jsonl").exists()


def test_parts_numbers_and_half_characters_are_read_as_text(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=40.0, position=0.0)
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": " pear\ud800"}]
    turns = [{"role": "assistant", "content": None}, {"role": "assistant", "content": parts}]
    prompts = [[{"role": "user", "content": [{"type": "text", "text": "q\udfff"}]}]] * 2
    with judgeloop.reward({"endpoint": "m", "verdict": "text"}, _endpoints(served), out=tmp_path / "r") as reward:
        assert reward(prompts, [turns, "a"], reference=[4, "4"]) == [1.0, 0.0]
        assert reward(np.array(["q", "q"]), ("x", "a pear"), reference=[np.array([1, 2]), "[1, 2]"]) == [0.0, 1.0]
        assert reward(["q"] * 2, ["x", "a pear"], reference=[{"target": 4}, '{"target": 4}']) == [0.0, 1.0]
    rows = [json.loads(line) for line in (tmp_path / "r/verdicts.jsonl").read_text().splitlines()]
    assert {rows[0]["text_a"], rows[0]["text_b"]} == {"a", "a pear\ufffd"}
    assert rows[0]["prompt"] == "User: q\ufffd"
    assert len(judgeloop.analyze(tmp_path / "r/verdicts.jsonl").judgments) == 6


def test_after_it_is_closed_it_says_so(tmp_path: Path) -> None:
    reward = judgeloop.reward({"kind": "random"}, out=tmp_path / "r")
    reward.close()
    reward.close()
    with pytest.raises(InvalidInput, match="it is closed; make it again with the same out"):
        reward(PROMPTS, COMPLETIONS)


@pytest.mark.parametrize("line", ["no JSON", "[1]", '{"pair_id": "p", "order": "ab"}'])
def test_a_line_that_is_no_verdict_is_named(tmp_path: Path, line: str) -> None:
    with judgeloop.reward({"kind": "random"}, out=tmp_path / "r") as coin:
        coin(PROMPTS, COMPLETIONS)
    with (tmp_path / "r/verdicts.jsonl").open("a") as log:
        log.write(f"{line}\n")
    with pytest.raises(
        FolderMismatch, match=r"verdicts\.jsonl:9: this line is no verdict of a reward; restore the file"
    ):
        judgeloop.reward({"kind": "random"}, out=tmp_path / "r")


@pytest.mark.parametrize(
    ("judge", "fault"),
    [
        ({"endpoint": "jdge"}, "reward: judge.endpoint: 'jdge' is not among `endpoints` \\(judge\\); did you mean judge"),
        ({"endpoint": "judge", "prompt": "mine"}, "prompt 'mine': no shipped template"),
    ],
)  # fmt: skip
def test_a_judge_that_cannot_be_leaves_no_folder(tmp_path: Path, judge: dict[str, Any], fault: str) -> None:
    endpoints = {"judge": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    with pytest.raises(ExperimentError, match=fault):
        judgeloop.reward(judge, endpoints, out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


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
