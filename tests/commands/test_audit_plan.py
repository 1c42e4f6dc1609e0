"""--plan: what an audit takes is said before it is asked, and what was asked is what was said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import judgeloop
from audit_pairs import pairs, write
from command_line import command
from conftest import Served
from judgeloop import seeds
from judgeloop.commands.plan_audit import plan_audit
from judgeloop.kernels import logistic, sigmoid
from judgeloop.stats import inference

Serve = Callable[..., Served]


@pytest.mark.tables
def test_the_plan_counts_what_is_then_asked(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve()
    write(Path("answers.jsonl"), pairs(6))
    line = ("audit", "answers.jsonl", "--base-url", served.base_url, "--model", "planted", "--probes", "padding,self_name",
            "--repeats", "2", "--price", "2,10", "--verdict", "logprob")  # fmt: skip
    assert command(*line, "--plan", "--json", "--effect", "0.04", "--conflict", "0.4") == 0
    planned = json.loads(capsys.readouterr().out)
    assert not served.asked
    assert not Path("runs").exists()
    assert command(*line, "--quiet") == 0
    assert planned["calls"] == sum(served.asked.values())
    assert planned["loads"][0]["calls"] == 6 * 2 * 2
    for load in planned["loads"]:
        for end in ("low", "likely", "high"):
            assert load["cost"][end] == pytest.approx((2 * load["prompt"][end] + 10 * load["completion"][end]) / 1e6)
    sizes = planned["power"]
    assert {"effect": 0.04, "conflict_rate": 0.4, "pairs": inference.pairs_for_position(0.04, 0.4)} in sizes["position"]
    assert sizes["pairs"] == 6
    # Where a part is on record, the plan counts it, and takes its tokens.
    capsys.readouterr()
    assert command(*line, "--plan", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["recorded"] == again["calls"] == planned["calls"]
    assert again["seconds_a_second"] == 0
    assert again["loads"][0]["basis"] == "counted in answers-audit"
    assert again["loads"][0]["prompt"]["low"] == again["loads"][0]["prompt"]["high"]


def test_in_words_with_written_edits_and_two_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "answers.jsonl", pairs(5, gold=False))
    line = ("audit", source, "--base-url", "http://127.0.0.1:9/v1", "--model", "a", "--model", "b", "--out", tmp_path / "o",
            "--probes", "model_padding", "--edit-model", "w", "--plan", "--calls-per-second", "2")  # fmt: skip
    assert command(*line) == 0
    said = " ".join(capsys.readouterr().out.split())
    calls = 2 * (5 * 2 + 10 * 3 * 2 + 3) + 10 * 3
    assert f"in all {calls}" in said
    assert "Time: 88 seconds at 2 calls a second, as stated" in said
    assert "no price is stated for a, b, w" in said
    assert "no gold" in said
    assert not (tmp_path / "o").exists()


@pytest.mark.tables
@pytest.mark.at_hand
def test_other_modes_are_planned_too(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(), pd.DataFrame(pairs(4))
    options = {"base_url": served.base_url, "model": "planted", "mode": "pointwise", "scales": "1-5", "verdict": "json"}
    planned = plan_audit(rows, out=tmp_path / "o", **options)
    assert not planned.power
    judgeloop.audit(rows, out=tmp_path / "o", **options)
    assert planned.calls == sum(served.asked.values()) == 8


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--plan", "--effect", "0.7"), "--effect is a probability above 0 and at most 0.5"),
        (("--plan", "--conflict", "0"), "--conflict is the share of pairs"),
        (("--plan", "--calls-per-second", "0"), "--calls-per-second must be above 0"),
        (("--effect", "0.1"), "go with --plan; give it too"),
    ],
)
def test_wrong_plans_are_named(
    tmp_path: Path, options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "answers.jsonl", pairs(2))
    assert command("audit", source, "--base-url", "http://127.0.0.1:9/v1", "--model", "a", *options) == 2
    assert words in capsys.readouterr().err


def test_a_length_effect_is_found_with_the_planned_pairs_and_power() -> None:
    """The closed form against fits: one row a pair, no quality, at even odds, where the effect is a quarter of the slope."""
    effect, spread = 0.05, 0.9
    count = inference.rows_for_slope(4 * effect, 0.25 * spread**2)
    stream, found = seeds.rng(0, "planned power"), 0
    for _ in range(300):
        gap = spread * stream.standard_normal((count, 1))
        picked = (stream.random(count) < sigmoid(4 * effect * gap[:, 0])).astype(float)
        slope = logistic(gap, picked).coefficients[0]
        odds = sigmoid(gap[:, 0] * slope)
        found += abs(slope) * np.sqrt(np.sum(odds * (1 - odds) * gap[:, 0] ** 2)) > 1.96
    assert 0.72 < found / 300 < 0.88
