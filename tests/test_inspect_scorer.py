"""The scorer in a real evaluation with Inspect, whose model is asked over HTTP; and its log, read by analyze."""

from __future__ import annotations

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import judgeloop
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app

HAS_INSPECT = importlib.util.find_spec("inspect_ai") is not None
needs_inspect = pytest.mark.skipif(not HAS_INSPECT, reason="the extra judgeloop[inspect] is not installed")


# In a process of its own: Inspect leaves its connections open.
EVALUATE = """
import json, sys
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import get_model
from inspect_ai.solver import generate
from judgeloop.inspect_scorer import both_orders

model = get_model("openai-api/planted/planted", base_url=sys.argv[1], api_key="none")
samples = [Sample(id=n, input=f"What is {n} + {n}?", target=f"It is {2 * n}.") for n in range(12)]
task = Task(dataset=samples, solver=generate(), scorer=both_orders(model), name="sums")
(log,) = eval(task, model=model, log_dir=sys.argv[2], display="none")
(scores,) = log.results.scores
score = log.samples[0].scores["both_orders"]
metrics = {name: metric.value for name, metric in scores.metrics.items()}
print(json.dumps({"log": log.location, "metrics": metrics, "explanation": score.explanation, "metadata": score.metadata}))
"""


def _evaluated(folder: Path, **planted: Any) -> dict[str, Any]:
    """What an evaluation of twelve questions gave, each answer against its target, by a planted judge."""
    with LocalServer(create_app(PlantedAnswerer(PlantedSpec.model_validate({"seed": 3, **planted})))) as server:
        command = [sys.executable, "-c", EVALUATE, server.base_url, str(folder)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    result: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return result


@needs_inspect
def test_a_judge_that_reads_the_slot_flips_every_pair_and_analyze_says_so(tmp_path: Path) -> None:
    result = _evaluated(tmp_path, position=40.0)
    assert result["metrics"] == {"mean": 0.5, "stderr": 0.0, "first_slot": 1.0, "order_flips": 1.0}
    assert "shown first: first" in result["explanation"]
    assert "shown second: first" in result["explanation"]
    read = judgeloop.analyze(result["log"])
    assert len(read.judgments) == 24
    assert set(read.judgments["verdict"]) == {"first"}
    excess = read.estimates.query("term == 'first_slot_excess' and variant == ''")["estimate"]
    assert set(excess) == {0.5}


@needs_inspect
def test_a_judge_of_length_picks_the_same_text_in_both_orders(tmp_path: Path) -> None:
    result = _evaluated(tmp_path, length=40.0, temperature0=True)
    assert result["metrics"] == {"mean": 1.0, "stderr": 0.0, "first_slot": 0.5, "order_flips": 0.0}


@needs_inspect
def test_a_reply_without_a_verdict_is_unscored_with_its_reason(tmp_path: Path) -> None:
    result = _evaluated(tmp_path, unscored=1.0)
    assert result["metadata"]["unscored_reason"]
    assert judgeloop.analyze(result["log"]).judgments["verdict"].tolist() == ["unscored"] * 24


@pytest.mark.skipif(HAS_INSPECT, reason="Inspect is installed")
def test_without_inspect_the_command_that_installs_it_is_named() -> None:
    sys.modules.pop("judgeloop.inspect_scorer", None)
    with pytest.raises(ImportError, match=r"pip install 'judgeloop\[inspect\]'"):
        importlib.import_module("judgeloop.inspect_scorer")


def test_pairs_that_were_judged_in_both_orders_are_read_with_their_slot(tmp_path: Path) -> None:
    """A log in Inspect's JSON form, of two samples and a second scorer by rule."""
    verdicts = [("first", "first"), ("second", "first")]
    pair = {"judge": "openai/j", "against": "target", "other": "It is four."}
    samples = [
        {
            "id": number, "epoch": 1, "input": f"Question {number}?", "output": {"completion": "Four."},
            "scores": {
                "match": {"value": "C"},
                "both_orders": {"value": 0.5, "metadata": {"judgeloop": {
                    **pair, "orders": {order: {"verdict": verdict, "reason": ""} for order, verdict in zip(("ab", "ba"), both, strict=True)},
                }}},
            },
        }
        for number, both in enumerate(verdicts)
    ]  # fmt: skip
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"status": "success", "eval": {"model": "m", "task": "sums"}, "samples": samples}))
    rows = judgeloop.analyze(path, format="inspect").judgments
    assert rows[["item_id", "order", "verdict"]].to_numpy().tolist() == [
        ["sums/0", "ab", "first"], ["sums/0", "ba", "first"], ["sums/1", "ab", "second"], ["sums/1", "ba", "first"],
    ]  # fmt: skip
    assert set(rows["judge"]) == {"openai/j"}
    again = tmp_path / "again.json"
    again.write_text(path.read_text())
    both = judgeloop.analyze([path, again], format="inspect").judgments
    assert (len(both), both["pair_id"].nunique()) == (8, 4)  # another run of the task: another epoch, and no repeat


@pytest.mark.parametrize("metadata", [["a"], "text", {"judgeloop": {"judge": "j"}}, {"judgeloop": []}])
def test_metadata_of_another_shape_is_no_traceback(tmp_path: Path, metadata: object) -> None:
    scores = {"mine": {"value": 1.0, "metadata": metadata}}
    sample = {"id": 1, "epoch": 1, "input": "?", "output": {"completion": "Four."}, "scores": scores}
    path = tmp_path / "log.json"
    path.write_text(json.dumps({"status": "success", "eval": {"model": "m", "task": "t"}, "samples": [sample]}))
    with pytest.raises(judgeloop.JudgeloopError):
        judgeloop.analyze(path, format="inspect")
