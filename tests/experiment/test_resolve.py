"""From a file to arms: what is refused, in which words, what overrides mean, and what changes an experiment's identity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from changed_keys import BASE, with_key
from judgeloop.cli.app import app
from judgeloop.errors import ExperimentError
from judgeloop.experiment.resolve import ResolvedExperiment, check_environment, load, resolve, template

FIXTURES = Path(__file__).parents[2] / "fixtures"


def _fault(raw: dict[str, Any]) -> str:
    with pytest.raises(ExperimentError) as caught:
        resolve(raw, where="x.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("signl", {}, "x.yaml: signl: unknown key; did you mean signal?"),
        ("signal.taw", 1, "x.yaml: signal.taw: unknown key; did you mean tau?"),
        ("judge.endpont", "m", "x.yaml: judge.endpont: unknown key; did you mean endpoint?"),
        ("policy.pool_sise", 3, "x.yaml: policy.pool_sise: unknown key; known: kind, endpoint, prompt, temperature, max_tokens, exemplars"),
        ("endpoints.m.modl", "x", "x.yaml: endpoints.m.modl: unknown key; did you mean model?"),
        ("endpoints.m.price.ouput", 1, "x.yaml: endpoints.m.price.ouput: unknown key; did you mean output?"),
        ("panels.ancor", 1, "x.yaml: panels.ancor: unknown key; did you mean anchor?"),
        ("strategy.real_fracton", 1, "x.yaml: strategy.real_fracton: unknown key; did you mean real_fraction?"),
        ("budget.max_call", 1, "x.yaml: budget.max_call: unknown key; did you mean max_calls?"),
        ("judge", {"kind": "panel", "judges": [{"endpoint": "m"}, {"endpoint": "m", "verdct": "text"}]}, "x.yaml: judge.judges.1.verdct: unknown key; did you mean verdict?"),
        ("arms.judge.juge", {}, "x.yaml: arms.judge.juge: an arm may override judge, policy, signal, strategy; did you mean judge?"),
        ("arms.judge.judge", {"verdit": "text"}, "x.yaml: arms.judge.judge.verdit: unknown key; did you mean verdict?"),
        ("arms.model", {"signal": {"taw": 1}}, "x.yaml: arms.model.signal.taw: unknown key; did you mean tau?"),
        ("arms.judge.policy", {"exemplar": 1}, "x.yaml: arms.judge.policy.exemplar: unknown key; did you mean exemplars?"),
        ("arms.judge.policy", {"temperature": 2.0}, "x.yaml: arms.judge.policy: only `exemplars` may differ by arm, for arms share generation 0's drafts"),
        ("arms.judge.policy", {"kind": "pool", "endpoint": "m"}, "x.yaml: arms.judge.policy: only `exemplars` may differ by arm, for arms share generation 0's drafts"),
        ("arms.judge.judge", {"kind": "panel", "judges": [{"endpoint": "m"}, {}]}, "x.yaml: arms.judge.judge.judges.1.endpoint: required key is missing"),
        ("arms.judge.judge", {"kind": "planted", "features": {"headngs": 1}}, "x.yaml: arms.judge.judge.features.headngs: unknown feature; did you mean headings?"),
        ("judge", {"kind": "planted", "features": {"length": 1}}, "x.yaml: judge.features.length: unknown feature; known: headings"),
        ("endpoints.model", {"base_url": "http://x"}, "x.yaml: endpoints.model.model: required key is missing"),
        ("endpoints.random", {"base_url": "http://x", "model": "y", "atempts": 1}, "x.yaml: endpoints.random.atempts: unknown key; did you mean attempts?"),
        ("judge.endpoint", "n", "x.yaml: judge.endpoint: 'n' is not among `endpoints` (m); known: m"),
        ("policy.endpoint", "mm", "x.yaml: policy.endpoint: 'mm' is not among `endpoints` (m); did you mean m?"),
        ("arms.judge.judge", {"kind": "panel", "judges": [{"endpoint": "m"}, {"endpoint": "n"}]}, "x.yaml: arms.judge.judge.judges.1.endpoint: 'n' is not among"),
        ("arms.judge.signal", {"reference": "base"}, "x.yaml: arms.judge.signal.reference: base needs policy.kind pool"),
        ("arms.an arm", {}, "x.yaml: arms.an arm: an arm's name has"),
        ("arms.ärm", {}, "x.yaml: arms.ärm: an arm's name has"),
        ("panels.anchor", 1.5, "x.yaml: panels.anchor: must be a whole number or the path of a pairs file (got 1.5)"),
        ("panels.anchor", [1], "x.yaml: panels.anchor: must be a whole number or the path of a pairs file (got a list)"),
        ("panels.anchor", -1, "x.yaml: panels.anchor: must be 0 or more pairs, or the path of a pairs file (got -1)"),
        ("candidates_per_item", 1, "x.yaml: candidates_per_item: must be 2 or more (got 1)"),
        ("generations", "three", "x.yaml: generations: must be a whole number (got 'three')"),
        ("generations", True, "x.yaml: generations: must be a whole number (got True)"),
        ("signal.tau", 0, "x.yaml: signal.tau: must be more than 0 (got 0)"),
        ("signal.tau", "a", "x.yaml: signal.tau: must be a number (got 'a')"),
        ("signal.tau", float("inf"), "x.yaml: signal.tau: must be a finite number (got inf)"),
        ("strategy.real_fraction", 2, "x.yaml: strategy.real_fraction: must be 1 or less (got 2)"),
        ("endpoints.m.send_temperature", "no", "x.yaml: endpoints.m.send_temperature: must be true or false (got 'no')"),
        ("items", 3, "x.yaml: items: must be text (got 3)"),
        ("name", "../a", "x.yaml: name: must begin with a letter or digit"),
        ("signal", None, "x.yaml: signal: must be a mapping of keys, this is empty"),
        ("judge", "random", "x.yaml: judge: must be a mapping of keys, this is text"),
        ("endpoints", [1], "x.yaml: endpoints: must be a mapping of keys, this is a list"),
        ("arms.judge", None, "x.yaml: arms.judge: must be a mapping of keys, this is empty"),
        ("arms.judge.judge", None, "x.yaml: arms.judge.judge: must be a mapping of keys, this is empty"),
        ("arms.judge.judge", 0, "x.yaml: arms.judge.judge: must be a mapping of keys, this is a number"),
        ("judge.kind", "modle", "x.yaml: judge.kind: must be one of model, pointwise, reward, random, gold, rule, planted, panel; did you mean model?"),
        ("signal.kind", ["x"], "x.yaml: signal.kind: must be one of bradley_terry, reward_model, best_of_n"),
        ("arms.judge.judge", {"kind": "rule", "feature": "lenght"}, "x.yaml: arms.judge.judge.feature: must be one of length, headings"),
        ("arms.judge.judge", {"kind": "rule"}, "x.yaml: arms.judge.judge.feature: required key is missing"),
        ("judge.verdict", "jsn", "x.yaml: judge.verdict: must be one of auto, logprob, json, text; did you mean json?"),
        ("panels.probe", ["pading"], "x.yaml: panels.probe: 'pading' is no probe that a run can judge; known: padding, markdown_added"),
        ("panels", {"anchor": 0, "probe": "all"}, "x.yaml: panels: probe edits the anchor panel's texts; set anchor"),
        ("arms", {}, "x.yaml: arms: must hold at least 1"),
        ("endpoints", {}, "x.yaml: judge.endpoint: 'm' is not among `endpoints` (none given)"),
        ("endpoints.m.base_url", "m", "x.yaml: endpoints.m: base_url must start with http:// or https://, as http://127.0.0.1:8000/v1 (got a mapping)"),
    ],
)  # fmt: skip
def test_a_fault_is_one_sentence_with_the_field_and_what_to_do(path: str, value: Any, sentence: str) -> None:
    message = _fault(with_key(path, value))
    assert message.startswith(sentence), message
    assert "\n" not in message


def test_several_faults_are_a_line_each_and_many_are_counted() -> None:
    raw = {**BASE, "seed": "x", "generations": 0}
    assert _fault(raw).splitlines() == [
        "x.yaml: seed: must be a whole number (got 'x')",
        "x.yaml: generations: must be 1 or more (got 0)",
    ]
    many = _fault({**BASE, **{f"k{n}": 1 for n in range(9)}}).splitlines()
    assert len(many) == 6
    assert many[-1] == "x.yaml: 4 more faults of this sort"


def test_keys_that_are_no_text_are_refused_without_a_traceback() -> None:
    for raw in ({**BASE, 1: 2}, {**BASE, "arms": {True: {}}}, with_key("arms.judge.judge", {1: 2})):
        assert _fault(raw).startswith("x.yaml: ")


# -- arms ------------------------------------------------------------------------------------------------------------


def _arm(override: dict[str, Any], base: dict[str, Any] = BASE) -> Any:
    return resolve({**base, "arms": {"a": override}}).arms[0]


def test_an_override_merges_into_a_block_of_the_same_kind() -> None:
    arm = _arm({"judge": {"repeats": 2}, "signal": {"kind": "bradley_terry", "tau": 5.0}, "policy": {"exemplars": 7}})
    assert (arm.judge.prompt, arm.judge.temperature, arm.judge.repeats) == ("rubric", 0.5, 2)
    assert (arm.signal.tau, arm.signal.ridge) == (5.0, 3.0)
    assert (arm.policy.kind, arm.policy.endpoint, arm.policy.exemplars) == ("exemplar", "m", 7)
    assert (arm.strategy.kind, arm.strategy.real_fraction) == ("accumulate", 0.2)


def test_a_block_whose_kind_changes_starts_from_that_kind_s_defaults() -> None:
    arm = _arm({"judge": {"kind": "gold"}, "signal": {"kind": "best_of_n"}, "strategy": {"kind": "replace"}})
    assert (arm.judge.repeats, arm.judge.endpoint) == (1, None)
    assert arm.signal.label_rule == "raw"
    assert arm.strategy.real_fraction == 0.0
    # The base's kind by default counts as well as the stated one.
    assert _arm({"judge": {"kind": "model"}}).judge.prompt == "rubric"
    from_random = {**BASE, "judge": {"kind": "random", "repeats": 3}}
    assert _arm({"judge": {"kind": "model", "endpoint": "m"}}, from_random).judge.repeats == 1


def test_a_panel_s_members_are_replaced_as_a_whole() -> None:
    base = {**BASE, "judge": {"kind": "panel", "repeats": 2, "judges": [{"endpoint": "m"}, {"endpoint": "m"}]}}
    arm = _arm({"judge": {"judges": [{"endpoint": "m", "prompt": "rubric"}] * 3}}, base)
    assert (arm.judge.repeats, len(arm.judge.judges), arm.judge.judges[0].prompt) == (2, 3, "rubric")


def test_contrasts_are_each_arm_against_each_control_in_their_order() -> None:
    arms = {
        "g": {"judge": {"kind": "gold"}},
        "a": {},
        "r": {"judge": {"kind": "random"}},
        "b": {"signal": {"tau": 1.0}},
    }
    resolved = resolve({**BASE, "arms": arms})
    assert resolved.contrasts == (("a", "g"), ("a", "r"), ("b", "g"), ("b", "r"))
    assert resolved.confirmatory == ("a", "g")
    assert resolve({**BASE, "arms": {"a": {}}}).confirmatory is None


def test_a_positive_control_is_contrasted_and_confirmatory_only_where_it_is_alone() -> None:
    arms = {"longer": {"judge": {"kind": "rule", "feature": "length"}}, "r": {"judge": {"kind": "random"}}}
    resolved = resolve({**BASE, "arms": arms})
    assert [(arm.is_control, arm.is_positive_control) for arm in resolved.arms] == [(False, True), (True, False)]
    assert resolved.confirmatory == ("longer", "r")
    both = resolve({**BASE, "arms": {**arms, "judge": {}}})
    assert both.contrasts == (("longer", "r"), ("judge", "r"))
    assert both.confirmatory == ("judge", "r")


def test_the_experiment_to_start_from_has_a_judge_a_coin_and_a_known_taste(capsys: pytest.CaptureFixture[str]) -> None:
    app(["run", "--print-experiment"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert printed == template()
    resolved = resolve(yaml.safe_load(printed))
    assert resolved.confirmatory == ("judge", "coin")
    assert [arm.name for arm in resolved.arms if arm.is_positive_control] == ["longer"]


def test_an_experiment_as_resolved_resolves_to_itself() -> None:
    resolved = resolve(BASE)
    raw = resolved.experiment.model_dump(mode="json")
    raw["arms"] = {arm.name: arm.model_dump(mode="json", exclude={"name"}) for arm in resolved.arms}
    again = resolve(raw)
    assert again.arms == resolved.arms
    assert again.identity({}) == resolved.identity({})


# -- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("endpoints.m.concurrency", 3),
        ("endpoints.m.price", {"input": 1.0, "output": 2.0}),
        ("endpoints.m.timeout_s", 7.0),
        ("endpoints.m.api_key_env", "MY_KEY"),
        ("endpoints.m.attempts", 2),
        ("endpoints.m.threads", 2),
        ("budget", {"max_cost": 1.0, "max_calls": 5}),
        ("generations", 3),  # the default, stated
        ("signal.tau", 2),
    ],
)
def test_how_fast_and_how_dear_is_no_part_of_the_identity(path: str, value: Any) -> None:
    assert resolve(with_key(path, value)).identity({"items": "h"}) == resolve(BASE).identity({"items": "h"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name", "other"),
        ("seed", 1),
        ("generations", 4),
        ("replicates", 9),
        ("candidates_per_item", 5),
        ("matchups_per_item", 2),
        ("endpoints.m.model", "other"),
        ("endpoints.m.base_url", "http://127.0.0.1:2/v1"),
        ("endpoints.m.max_tokens", 9),
        ("endpoints.m.extra_body", {"top_k": 1}),
        ("judge.temperature", 0.6),
        ("policy.exemplars", 3),
        ("signal.tau", 2.5),
        ("strategy.real_fraction", 0.3),
        ("panels.anchor", 61),
        ("arms.judge.signal", {"tau": 9.0}),
        ("arms.more", {}),
    ],
)
def test_what_answers_depend_on_is_the_identity(path: str, value: Any) -> None:
    assert resolve(with_key(path, value)).identity({"items": "h"}) != resolve(BASE).identity({"items": "h"})


def test_the_files_hashes_are_part_of_the_identity() -> None:
    resolved = resolve(BASE)
    assert resolved.identity({"items": "h"}) != resolved.identity({"items": "g"})


@pytest.mark.parametrize(
    ("fixture", "identity"),
    [
        ("quickstart", "sha256:5fe3f021f757f64cd287f7358005314213ecbf8f7cc08a6b4b11874bcf8c415f"),
        ("exemplars", "sha256:9f483d33a1559cb5c16a608cd0555e3b56fb63f53e077a081afdf10d291df6bc"),
    ],
)
def test_a_fixture_s_identity_stays_what_its_recording_has(fixture: str, identity: str) -> None:
    """A change here means that every recorded run of an unchanged file is refused as another experiment's."""
    assert load(FIXTURES / fixture / "experiment.yaml").identity({"items": "sha256:0"}) == identity


# -- environment -----------------------------------------------------------------------------------------------------


def test_a_missing_environment_variable_is_named_and_no_value_is_shown() -> None:
    raw = with_key("endpoints.m.api_key_env", "JL_KEY")
    raw["endpoints"]["m"]["extra_headers"] = {"x-org": "org ${JL_ORG}/${JL_TEAM}", "x-plain": "plain"}
    resolved = resolve(raw)
    full = {"JL_KEY": "sk-secret", "JL_ORG": "hidden", "JL_TEAM": "t"}
    check_environment(resolved, full)
    for name, field in (
        ("JL_KEY", "api_key_env"),
        ("JL_ORG", "extra_headers.x-org"),
        ("JL_TEAM", "extra_headers.x-org"),
    ):
        for absent in ({}, {name: ""}):
            environment = {**{k: v for k, v in full.items() if k != name}, **absent}
            with pytest.raises(ExperimentError, match=rf"^endpoints.m.{field}: environment variable {name} ") as caught:
                check_environment(resolved, environment)
            assert "sk-secret" not in str(caught.value)
            assert "hidden" not in str(caught.value)


# -- files -----------------------------------------------------------------------------------------------------------


def _load(tmp_path: Path, text: str | bytes) -> ResolvedExperiment:
    path = tmp_path / "x.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load(path)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name: x\nseed: [1\n", r"x\.yaml:3: not valid YAML: "),
        ("a: 1\n\tb: 2\n", r"x\.yaml:2: not valid YAML: "),
        ("name: x\nseed: 1\nname: y\n", r"x\.yaml:3: key 'name' stands twice \(first in line 1\); keep one"),
        ("judge: {kind: gold, kind: model}\n", r"x\.yaml:1: key 'kind' stands twice"),
        ("a:\n  - b: 1\n    'b': 2\n", r"x\.yaml:3: key 'b' stands twice"),
        ("", r"x\.yaml: an experiment is a mapping of keys, this is empty"),
        ("- 1\n", r"x\.yaml: an experiment is a mapping of keys, this is a list"),
        ("3\n", r"x\.yaml: an experiment is a mapping of keys, this is a number"),
        ("a: 1\n---\nb: 2\n", r"x\.yaml:2: not valid YAML: but found another document"),
        ("? [1, {a: b}]\n: 2\n", r"x\.yaml:1: not valid YAML: found unhashable key"),
        ("a: !!python/object/apply:os.system [ls]\n", r"x\.yaml:1: not valid YAML: could not determine a constructor"),
        ("a: 2026-13-45\n", r"x\.yaml: not valid YAML: month must be in 1..12"),
        (f"a: {'9' * 5000}\n", r"x\.yaml: not valid YAML: .*digits"),
        ("a: &a [*a]\n", r"x\.yaml:1: not valid YAML: an alias stands within its own anchor"),
        ("[\n" * 1500, r"x\.yaml: not valid YAML: nested too deeply"),
        (BOMB, r"x\.yaml:\d: the aliases here unfold to more than 1,000,000 values"),
        ("a: \0\n", r"x\.yaml: not valid YAML: character #x0000 may not stand in it"),
        (b"a: 1\nb: \xff\n", r"x\.yaml:2: not UTF-8 text; save it as UTF-8"),
        ("a: 1\n".encode("utf-16"), r"x\.yaml: UTF-16 text; save it as UTF-8"),
    ],
)  # fmt: skip
def test_a_broken_file_is_one_sentence_with_its_line(tmp_path: Path, text: str | bytes, sentence: str) -> None:
    with pytest.raises(ExperimentError, match=sentence) as caught:
        _load(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"none\.yaml: no such file; give the path of an experiment"):
        load(tmp_path / "none.yaml")
    with pytest.raises(ExperimentError, match=r"cannot be read \(Is a directory\)"):
        load(tmp_path)


def test_a_file_with_a_mark_merge_keys_and_plain_exponents_is_read(tmp_path: Path) -> None:
    text = yaml.safe_dump({key: value for key, value in BASE.items() if key not in ("arms", "signal")})
    text += "signal: {ridge: 1e-3, tau: 2E+1}\narms:\n  a: &a {signal: {tau: 3.0}}\n  b: {<<: *a, strategy: {kind: replace}}\n"
    resolved = _load(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert (resolved.experiment.signal.ridge, resolved.experiment.signal.tau) == (0.001, 20.0)  # type: ignore[union-attr]
    assert [arm.signal.tau for arm in resolved.arms] == [3.0, 3.0]
    assert resolved.folder == tmp_path
    assert resolved.path("items.jsonl") == tmp_path / "items.jsonl"
