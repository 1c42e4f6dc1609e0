"""What an experiment names, read before any call; and the number of calls it announces is the number it makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import ITEMS, Served, small_experiment, write_experiment
from judgeloop.commands.run import run
from judgeloop.errors import ExperimentError
from judgeloop.experiment.inputs import file_hash
from judgeloop.experiment.resolve import Material, asked_models, load

Serve = Callable[..., Served]
URL = "http://127.0.0.1:1/v1"
PAIRS = [
    {"item_id": f"p{n}", "prompt": f"Question {n}?", "text_a": f"short {n}", "text_b": f"a longer answer {n}"}
    for n in range(3)
]


def _read(folder: Path, raw: dict[str, Any], items: list[dict[str, Any]] | None = None) -> Material:
    return Material.read(load(write_experiment(folder, raw, items)))


def _lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path.name


# -- planned calls ---------------------------------------------------------------------------------------------------

POOL = {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 4}, "signal": {"kind": "bradley_terry"}}


TEXT = [{"endpoint": "m", "verdict": "text"}, {"endpoint": "m", "prompt": "rubric", "verdict": "text"}]


@pytest.mark.tables
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="exemplar"),
        pytest.param(POOL, id="pool"),
        pytest.param(
            {"arms": {"judge": {}, "rubric": {"judge": {"prompt": "rubric", "repeats": 2}}}, "matchups_per_item": 2},
            id="two-judges",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {**POOL, "arms": {"judge": {}, "tilted": {"signal": {"tau": 0.2}}}},
            id="one-judge-twice",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"panels": {"anchor": "pairs.jsonl"}, "matchups_per_item": 1}, id="pairs-file", marks=pytest.mark.slow
        ),
        pytest.param(
            {"judge": {"kind": "panel", "judges": TEXT}, "panels": {"anchor": 0}}, id="panel", marks=pytest.mark.slow
        ),
    ],
)
@pytest.mark.at_hand
def test_the_planned_calls_are_those_of_the_run(tmp_path: Path, serve: Serve, changes: dict[str, Any]) -> None:
    server = serve()
    raw = small_experiment(server.base_url, generations=1, replicates=2, **changes)
    _lines(tmp_path / "pairs.jsonl", PAIRS)
    path = write_experiment(tmp_path, raw)
    planned = Material.read(load(path)).planned_calls()
    run(path, out=tmp_path / "run")
    calls = [call_id for call_id in server.asked if "/trial/" not in call_id]
    assert len(calls) == planned
    assert set(server.asked.values()) == {1}


# -- what is read ----------------------------------------------------------------------------------------------------


def test_every_file_that_answers_depend_on_is_in_the_identity(tmp_path: Path) -> None:
    raw = small_experiment(URL, panels={"anchor": "pairs.jsonl"}, strategy={"real_fraction": 0.5, "real": "real.jsonl"})
    _lines(tmp_path / "pairs.jsonl", PAIRS)
    real = [{"item_id": item["item_id"], "text": "human"} for item in ITEMS]
    _lines(tmp_path / "real.jsonl", real)
    material = _read(tmp_path, raw)
    assert material.hashes["items"] == file_hash(tmp_path / "items.jsonl")
    assert set(material.hashes) == {"items", "panels.anchor", "strategy.real", "template.draft", "template.pairwise"}
    assert [pair[0] for pair in material.anchor_pairs] == ["p0", "p1", "p2"]
    assert material.real == {item["item_id"]: ("human",) for item in ITEMS}
    assert _read(tmp_path, raw).identity == material.identity
    _lines(tmp_path / "real.jsonl", [*real, real[0]])
    assert _read(tmp_path, raw).identity != material.identity
    _lines(tmp_path / "real.jsonl", real)
    _lines(tmp_path / "pairs.jsonl", PAIRS[:2])
    assert _read(tmp_path, raw).identity != material.identity
    _lines(tmp_path / "pairs.jsonl", PAIRS)
    assert _read(tmp_path, raw, [*ITEMS[:2], {**ITEMS[2], "prompt": "Other?"}]).identity != material.identity


def test_real_data_that_no_arm_uses_is_not_read_and_arms_share_one_file(tmp_path: Path) -> None:
    assert _read(tmp_path, small_experiment(URL, strategy={"real": "none.jsonl"})).real == {}
    arms_with_files = {"judge": {"strategy": {"real_fraction": 0.5, "real": "a.jsonl"}}, "other": {"strategy": {"real_fraction": 0.5, "real": "b.jsonl"}}}  # fmt: skip
    with pytest.raises(
        ExperimentError, match=r"strategy\.real: arms share one file of real data, not 2 \(a\.jsonl, b\.jsonl\)"
    ):
        _read(tmp_path, small_experiment(URL, arms=arms_with_files))


def test_an_exemplar_policy_needs_another_item_to_show(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"items\.jsonl: policy\.kind exemplar shows texts of other items"):
        _read(tmp_path, small_experiment(URL), ITEMS[:1])
    assert len(_read(tmp_path, small_experiment(URL, **POOL), ITEMS[:1]).items) == 1


def test_a_gold_judge_needs_an_endpoint_only_where_a_model_must_say(tmp_path: Path) -> None:
    with_open_item = [*ITEMS[:2], {**ITEMS[0], "item_id": "open", "match": "judge"}]
    gold = {"judge": {}, "gold": {"judge": {"kind": "gold"}}}
    assert "template.reference_match" not in _read(tmp_path, small_experiment(URL, arms=gold)).hashes
    with pytest.raises(ExperimentError, match=r"judge\.endpoint: the gold judge needs an endpoint"):
        _read(tmp_path, small_experiment(URL, arms=gold), with_open_item)
    gold["gold"]["judge"]["endpoint"] = "m"
    assert "template.reference_match" in _read(tmp_path, small_experiment(URL, arms=gold), with_open_item).hashes


@pytest.mark.parametrize("missing", ["items", "panels", "judge"])
def test_a_file_that_is_not_there_is_named_before_any_call(tmp_path: Path, missing: str) -> None:
    changes: dict[str, Any] = {
        "items": {"items": "none.jsonl"},
        "panels": {"panels": {"anchor": "none.jsonl"}},
        "judge": {"judge": {"endpoint": "m", "prompt": "none.txt"}},
    }[missing]
    with pytest.raises(ExperimentError, match="none"):
        _read(tmp_path, small_experiment(URL, **changes))


def test_who_is_asked_how_often(tmp_path: Path) -> None:
    members = [{"endpoint": "m"}, {"endpoint": "m", "prompt": "rubric"}, {"endpoint": "m", "prompt": "few_shot"}]
    arms = {"one": {"judge": {"repeats": 3}}, "all": {"judge": {"kind": "panel", "judges": members, "repeats": 2}}, "random": {"judge": {"kind": "random"}}}  # fmt: skip
    material = _read(tmp_path, small_experiment(URL, arms=arms))
    judges = {arm.name: arm.judge for arm in material.resolved.arms}
    assert [member.prompt for member in asked_models(judges["all"])] == ["pairwise", "rubric", "few_shot"]
    judged = [planned for planned in material.planned() if planned.kind == "judgments"]
    assert [planned.arm for planned in judged] == ["one", *["all"] * 3]
    assert {planned.calls / judged[0].calls for planned in judged[1:]} == {2 / 3}
