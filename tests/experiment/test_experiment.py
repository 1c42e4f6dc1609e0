"""The experiment's schema: its defaults, a description on every key, types that are not bent, blocks that are
frozen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from judgeloop.experiment.schema import (
    Endpoint,
    Experiment,
    GoldJudgeSpec,
    ModelJudgeSpec,
    PanelJudgeSpec,
    PlantedJudgeSpec,
    RandomJudgeSpec,
    RuleJudgeSpec,
)
from judgeloop.experiment.schema import schema as experiment_schema

EXEMPLARS = Path(__file__).parents[1].parent / "fixtures" / "exemplars" / "experiment.yaml"

# Every default, with the required keys of the blocks.
STATED = yaml.safe_load("""
name: demo
seed: 0
items: items.jsonl
generations: 3
replicates: 8
candidates_per_item: 4
endpoints:
  m: {base_url: "http://127.0.0.1:8000/v1", model: name, concurrency: 16, api_key_env: null, timeout_s: 120, max_tokens: 512, price: {input: 0, output: 0}}
judge: {kind: model, endpoint: m, prompt: pairwise, verdict: auto, repeats: 1, temperature: 0}
policy: {kind: pool, endpoint: m, prompt: draft, temperature: 1, pool_size: 32}
signal: {kind: bradley_terry, label_rule: raw, update: tilt, tau: 1.0, ridge: 1.0, reference: previous}
strategy: {kind: replace, real_fraction: 0}
panels: {anchor: 60, probe: none}
budget: {max_cost: null, max_calls: null}
arms: {judge: {}, random: {judge: {kind: random}}}
""")
SCHEMA = experiment_schema()
REQUIRED = {
    "name": "demo",
    "items": "items.jsonl",
    "endpoints": {"m": {"base_url": "http://127.0.0.1:8000/v1", "model": "name"}},
    "judge": {"endpoint": "m"},
    "policy": {"endpoint": "m"},
    "arms": {"judge": {}, "random": {"judge": {"kind": "random"}}},
}


def test_every_default_is_the_contract_s() -> None:
    assert Experiment.model_validate(REQUIRED) == Experiment.model_validate(STATED)
    assert (
        Experiment.model_validate({**REQUIRED, "policy": {"kind": "exemplar", "endpoint": "m"}}).policy.exemplars == 4
    )  # type: ignore[union-attr]


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_each_required_key_is_required(key: str) -> None:
    with pytest.raises(ValidationError, match="Field required"):
        Experiment.model_validate({name: value for name, value in REQUIRED.items() if name != key})


def test_blocks_are_frozen() -> None:
    experiment = Experiment.model_validate(REQUIRED)
    for block, key in (
        (experiment, "seed"),
        (experiment.judge, "prompt"),
        (experiment.endpoints["m"], "model"),
        (experiment.panels, "anchor"),
    ):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(block, key, 1)


@pytest.mark.parametrize(
    ("judge", "kind"),
    [
        ({"kind": "random"}, RandomJudgeSpec),
        ({"kind": "gold"}, GoldJudgeSpec),
        ({"kind": "rule", "feature": "length"}, RuleJudgeSpec),
        ({"kind": "planted", "position": 1, "features": {"bold": 0.5}}, PlantedJudgeSpec),
        ({"kind": "panel", "judges": [{"endpoint": "m"}, {"endpoint": "m"}]}, PanelJudgeSpec),
        ({"endpoint": "m"}, ModelJudgeSpec),
    ],
)
def test_kind_picks_the_block(judge: dict[str, Any], kind: type) -> None:
    assert type(Experiment.model_validate({**REQUIRED, "judge": judge}).judge) is kind


def test_a_panel_s_members_have_no_repeats_of_their_own_and_are_two_or_more() -> None:
    with pytest.raises(ValidationError, match="belongs to the panel"):
        PanelJudgeSpec.model_validate({"judges": [{"endpoint": "m", "repeats": 2}, {"endpoint": "m"}]})
    with pytest.raises(ValidationError, match="at least 2"):
        PanelJudgeSpec.model_validate({"judges": [{"endpoint": "m"}]})


@pytest.mark.parametrize(
    "change",
    [
        {"generations": True},
        {"generations": "3"},
        {"generations": 3.0},
        {"seed": -1},
        {"replicates": 0},
        {"candidates_per_item": 1},
        {"matchups_per_item": 0},
        {"signal": {"tau": 0}},
        {"signal": {"tau": "1"}},
        {"signal": {"tau": float("inf")}},
        {"signal": {"ridge": True}},
        {"signal": {"kind": "best_of_n", "update": "tilt"}},
        {"signal": {"kind": "best_of_n", "label_rule": "length_controlled"}},
        {"strategy": {"real_fraction": 1.5}},
        {"panels": {"anchor": -1}},
        {"panels": {"anchor": True}},
        {"panels": {"anchor": 1.5}},
        {"panels": {"probe": "padding"}},
        {"budget": {"max_cost": float("nan")}},
        {"name": "../x"},
        {"name": "a\n"},
        {"arms": {}},
    ],
)
def test_values_out_of_range_or_of_another_type_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Experiment.model_validate({**REQUIRED, **change})


@pytest.mark.parametrize("anchor", [0, 300, "pairs.jsonl"])
def test_the_anchor_is_a_number_or_a_path(anchor: int | str) -> None:
    assert Experiment.model_validate({**REQUIRED, "panels": {"anchor": anchor}}).panels.anchor == anchor


@pytest.mark.parametrize(
    "place",
    [
        {},
        {"base_url": "http://h/v1", "engine": "llama_cpp"},
        {"base_url": "h:8000"},
        {"base_url": "http://h", "send_temperature": "no"},
        {"base_url": "http://h", "extra_body": {"stop": {1, 2}}},
        {"base_url": "http://h", "extra_body": {"stop": float("nan")}},
        {"base_url": "http://h", "extra_body": {"stop": "\ud800"}},
    ],
)
def test_an_endpoint_is_one_place_and_its_body_is_json(place: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Endpoint.model_validate({"model": "m", **place})


def _keys(schema: dict[str, Any], where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, part in schema.get("properties", {}).items():
        yield f"{where}.{name}", part
    for name, part in schema.get("$defs", {}).items():
        yield from _keys(part, name)


def test_the_json_schema_says_a_line_on_every_key_and_block() -> None:
    schema = SCHEMA
    keys = dict(_keys(schema))
    assert len(keys) > 70
    assert [key for key, part in keys.items() if not part.get("description")] == []
    assert [name for name, part in schema["$defs"].items() if not part.get("description")] == []
    assert set(Experiment.model_fields) == {key[1:] for key in keys if key.startswith(".")}


def _faults(value: Any, schema: dict[str, Any], root: dict[str, Any], where: str = "") -> list[str]:
    """What a JSON value does against a schema, for the words that ours uses; an unknown word is a fault of the test."""
    words = set(schema) - {"title", "description", "default", "$defs", "$schema", "$ref", "examples"}
    keywords = {
        "type", "properties", "required", "additionalProperties", "anyOf", "const", "enum", "items", "minItems",
        "minProperties", "minimum", "maximum", "exclusiveMinimum", "pattern",
    }  # fmt: skip
    assert words <= keywords, words - keywords
    faults = []
    if "$ref" in schema:
        faults += _faults(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, where)
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}  # fmt: skip
    if "type" in schema and not (
        isinstance(value, kinds[schema["type"]]) and (schema["type"] == "boolean" or not isinstance(value, bool))
    ):
        return [f"{where}: not {schema['type']}"]
    if "anyOf" in schema and all(_faults(value, option, root, where) for option in schema["anyOf"]):
        faults.append(f"{where}: none of the kinds")
    if "const" in schema and value != schema["const"]:
        faults.append(f"{where}: not {schema['const']}")
    if "enum" in schema and value not in schema["enum"]:
        faults.append(f"{where}: not among {schema['enum']}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        faults.append(f"{where}: pattern")
    if isinstance(value, int | float):
        if value < schema.get("minimum", value) or value > schema.get("maximum", value):
            faults.append(f"{where}: range")
        if value <= schema.get("exclusiveMinimum", value - 1):
            faults.append(f"{where}: range")
    if isinstance(value, dict):
        named, additional = schema.get("properties", {}), schema.get("additionalProperties", True)
        faults += [f"{where}.{key}: missing" for key in schema.get("required", []) if key not in value]
        faults += [f"{where}: too few"] if len(value) < schema.get("minProperties", 0) else []
        for key, inner in value.items():
            if key in named:
                faults += _faults(inner, named[key], root, f"{where}.{key}")
            elif additional is False:
                faults.append(f"{where}.{key}: unknown")
            elif isinstance(additional, dict):
                faults += _faults(inner, additional, root, f"{where}.{key}")
    if isinstance(value, list):
        faults += [f"{where}: too few"] if len(value) < schema.get("minItems", 0) else []
        for place, inner in enumerate(value):
            faults += _faults(inner, schema.get("items", {}), root, f"{where}.{place}")
    return faults


@pytest.mark.parametrize("raw", [yaml.safe_load(EXEMPLARS.read_text(encoding="utf-8")), STATED, REQUIRED])
def test_the_json_schema_accepts_what_is_valid(raw: dict[str, Any]) -> None:
    assert _faults(raw, SCHEMA, SCHEMA) == []


@pytest.mark.parametrize(
    "change",
    [
        {"signl": {}},
        {"judge": {"endpoint": "m", "promt": "x"}},
        {"judge": {"kind": "modle", "endpoint": "m"}},
        {"endpoints": {"m": {"model": 3}}},
        {"candidates_per_item": 1},
        {"signal": {"tau": 0}},
        {"name": "a b"},
    ],
)
def test_the_json_schema_refuses_what_is_not(change: dict[str, Any]) -> None:
    assert _faults({**REQUIRED, **change}, SCHEMA, SCHEMA) != []
