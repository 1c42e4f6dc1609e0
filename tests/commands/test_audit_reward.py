"""``judgeloop audit --reward``: reward models asked about pairs, a text at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import audit_pairs
import judgeloop
from conftest import Served, tables
from judgeloop.cli.app import app
from judgeloop.commands.audit_spec import chosen_reward
from judgeloop.commands.plan_audit import plan_audit
from judgeloop.errors import EndpointFailed, FolderMismatch, InvalidInput
from judgeloop.stats.estimate import BY_CONSTRUCTION

Serve = Callable[..., Served]
PLANTED: dict[str, Any] = {
    "position": 1.0, "length": 0.6, "quality": 1.0, "quality_marker": audit_pairs.MARKER, "noise": 0.8, "draft": {"length_mean": 45},
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit_pairs.write(tmp_path_factory.mktemp("pairs") / "pairs.jsonl", audit_pairs.pairs(60))


def command(pairs: Path, served: Served, out: Path, *more: str) -> list[str]:
    return ["audit", str(pairs), "--base-url", served.base_url, "--model", "planted", "--reward", "classify", "--out", str(out), *more]  # fmt: skip


@pytest.mark.slow
def test_the_planted_length_is_found_and_position_is_not_claimed(tmp_path: Path, serve: Serve, pairs: Path) -> None:
    served = serve(**PLANTED)
    done = CliRunner().invoke(app, command(pairs, served, tmp_path / "run", "--probes", "bold,padding"))
    assert done.exit_code == 0, done.output
    assert "Not detected" not in next(line for line in done.output.splitlines() if "first slot" in line.lower())
    assert set(served.asked.values()) == {1}
    asked = {name for name in served.asked if "/trial" not in name}
    assert {name.split("/")[-2] for name in asked} == {"score"}
    run = judgeloop.open(tmp_path / "run")
    # Every text once, its originals in probes too: 120 texts and their edits.
    assert len(asked) == len({(row.item_id, row.candidate_id) for row in run.candidates.itertuples()})
    rows = run.estimates[(run.estimates["category"] == "") & (run.estimates["variant"] == "given_gold")].set_index(
        "term"
    )
    length = rows.loc["length_log_odds"]
    assert length["conf_low"] < PLANTED["length"] < length["conf_high"]
    position = run.estimates[run.estimates["term"] == "first_slot_excess"]
    assert set(position["method"]) == {BY_CONSTRUCTION}
    assert not (run.estimates["family"][position.index] == "confirmatory").any()
    padded = run.estimates[(run.estimates["term"] == "padding_probe") & (run.estimates["variant"] == "2")].iloc[0]
    assert padded["conf_low"] > 0
    again = judgeloop.audit(
        pairs, base_url=served.base_url, model="planted", reward="classify", probes="bold,padding", out=tmp_path / "again", replay=tmp_path / "run"
    )  # fmt: skip
    assert tables(again.path) == tables(run.path)
    record = yaml.safe_load((tmp_path / "run/experiment.yaml").read_text())["audit"]
    assert record["reward"] == {"route": "classify", "prompt": None, "score": "raw", "label": None, "temperature": 1.0}
    with pytest.raises(FolderMismatch):
        judgeloop.audit(pairs, base_url=served.base_url, model="planted", reward="pooling", out=tmp_path / "run")


@pytest.mark.tables
@pytest.mark.at_hand
def test_the_plan_counts_a_text_once(tmp_path: Path, serve: Serve, pairs: Path) -> None:
    served = serve(**PLANTED)
    options = {"base_url": served.base_url, "model": "planted", "reward": "rerank", "probes": "bold"}
    made = plan_audit(pairs, out=tmp_path / "run", **options)
    assert not served.asked
    assert any("nothing to find" in note for note in made.notes)
    judgeloop.audit(pairs, out=tmp_path / "run", **options)
    assert sum(served.asked.values()) == made.calls


@pytest.mark.at_hand
def test_two_reward_models_by_a_template_are_compared(tmp_path: Path, serve: Serve) -> None:
    served = serve(**PLANTED, model=["one", "two"])
    done = judgeloop.audit(
        pd.DataFrame(audit_pairs.pairs(12)), base_url=served.base_url, model=["one", "two"], reward="pooling,score=probability,temperature=2",
        prompt="reward", out=tmp_path / "run",
    )  # fmt: skip
    rows = done.estimates[(done.estimates["term"] == "first_slot_excess") & (done.estimates["variant"] == "")]
    assert set(rows["judge"]) == {"one", "two"}
    assert set(rows["method"]) == {BY_CONSTRUCTION}
    assert done.judgments["p_first"].notna().all()


def test_a_route_that_is_not_there_ends_at_the_first_call(tmp_path: Path, serve: Serve, pairs: Path) -> None:
    served = serve(**PLANTED)
    with pytest.raises(EndpointFailed, match=r"gave no score.*no_label.*judge\.label"):
        judgeloop.audit(
            pairs, base_url=served.base_url, model="planted", reward="classify,label=3", out=tmp_path / "run"
        )
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        ("guess", "--reward: route: input should be 'classify'"), ("classify,lable=1", "did you mean label"), ("classify,label", "give ROUTE,KEY=VALUE"),
        ("classify,label=x", "--reward: label:"), ("classify,temperature=0", "--reward: temperature:"), ("", "--reward: route:"),
        ("classify,temperature=nan", "--reward: temperature:"),
    ],
)  # fmt: skip
def test_a_reward_that_is_wrong_is_refused(reward: str, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        chosen_reward(reward, None)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "option",
    [
        {"mode": "pointwise"}, {"verdict": "json"}, {"repeats": 2}, {"temperature": 1.0}, {"mitigate": "swap_average"},
        {"edit_model": "x", "probes": "model_padding"},
    ],
)  # fmt: skip
def test_what_goes_with_writing_judges_alone_is_refused(tmp_path: Path, option: dict[str, Any], pairs: Path) -> None:
    name = "--" + next(iter(option)).replace("_", "-")
    with pytest.raises(InvalidInput, match=f"{name}: not with --reward"):
        judgeloop.audit(pairs, base_url="http://127.0.0.1:1/v1", model="m", reward="score", out=tmp_path, **option)
    with pytest.raises(InvalidInput, match="route score sends prompt and text apart"):
        judgeloop.audit(
            pairs, base_url="http://127.0.0.1:1/v1", model="m", reward="score", prompt="reward", out=tmp_path
        )
