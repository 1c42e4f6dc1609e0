"""From an experiment file to what is run: loaded, validated, its arms resolved, hashed. No call is made here.

Unknown keys are refused with the nearest known one. Arms are overrides of the base experiment, and a block whose
``kind`` changes starts from that kind's defaults.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError

from judgeloop.errors import ExperimentError
from judgeloop.experiment import Block, Experiment, Judge, PanelJudge, Policy, Signal, Strategy
from judgeloop.records import canonical


class Arm(Block):
    """An arm with everything that its overrides resolve to."""

    name: str
    judge: Judge
    policy: Policy
    signal: Signal
    strategy: Strategy

    @property
    def is_control(self) -> bool:
        """Control arms are those whose judge is random or gold."""
        return self.judge.kind in ("random", "gold")


_ARM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # it stands in call ids, which are ASCII
_ARM_KEYS = ("judge", "policy", "signal", "strategy")


class Resolved(Block):
    """A validated experiment, its arms, and where its files are."""

    experiment: Experiment
    arms: tuple[Arm, ...]
    folder: Path
    """Paths in the experiment are relative to this."""

    @property
    def confirmatory(self) -> tuple[str, str] | None:
        """(arm, control) of the confirmatory contrast: the first of each in the arms' order."""
        pairs = self.contrasts
        return pairs[0] if pairs else None

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """Every (arm, control arm), in the arms' order."""
        controls = [arm.name for arm in self.arms if arm.is_control]
        return tuple((arm.name, control) for arm in self.arms if not arm.is_control for control in controls)

    def path(self, name: str) -> Path:
        return self.folder / name

    def identity(self, files: Mapping[str, str]) -> str:
        """SHA-256 of all that the answers may depend on: the experiment without what only says how fast, how dear and
        with which key it is asked, and the hashes of the files it names."""
        raw = self.experiment.model_dump(mode="json", exclude={"budget"})
        raw["arms"] = [arm.model_dump(mode="json") for arm in self.arms]
        for endpoint in raw["endpoints"].values():
            for key in ("concurrency", "api_key_env", "timeout_s", "attempts", "price", "threads"):
                endpoint.pop(key)
        return "sha256:" + hashlib.sha256(canonical({"experiment": raw, "files": dict(files)}).encode()).hexdigest()


def load(path: str | Path) -> Resolved:
    """Read and validate an experiment file. Raises ExperimentError with the file and the field."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ExperimentError(f"{path}: no such experiment file; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ExperimentError(f"{path}: cannot be read as UTF-8 text ({error})") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ExperimentError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(raw, dict):
        raise ExperimentError(f"{path}: an experiment is a mapping of keys, this is {_yaml_name(raw)}")
    return resolve(raw, path.parent, where=str(path))


def resolve(raw: Mapping[str, Any], folder: str | Path = ".", where: str = "experiment") -> Resolved:
    """Validate an experiment given as a mapping, with paths relative to ``folder``."""
    experiment = _validate(Experiment, raw, where)
    assert isinstance(experiment, Experiment)
    arms = tuple(_arm(raw, name, override or {}, where) for name, override in experiment.arms.items())
    for arm in arms:
        _check_arm(experiment, arm, where)
    return Resolved(experiment=experiment, arms=arms, folder=Path(folder))


def _arm(raw: Mapping[str, Any], name: str, override: Mapping[str, Any], where: str) -> Arm:
    if not _ARM_NAME.fullmatch(str(name)):
        raise ExperimentError(f"{where}: arms.{name}: an arm's name has letters, digits, dots, dashes and underscores only")
    blocks: dict[str, Any] = {}
    for key in override:
        if key not in _ARM_KEYS:
            raise ExperimentError(
                f"{where}: arms.{name}.{key}: an arm may override {', '.join(_ARM_KEYS)}{_hint(key, _ARM_KEYS)}"
            )
    policy = override.get("policy") or {}
    if not isinstance(policy, dict) or set(policy) - {"exemplars"}:
        raise ExperimentError(
            f"{where}: arms.{name}.policy: only `exemplars` may differ by arm, for arms share generation 0's drafts"
        )
    for key in _ARM_KEYS:
        base, change = raw.get(key) or {}, override.get(key) or {}
        if not isinstance(change, dict):
            raise ExperimentError(
                f"{where}: arms.{name}.{key}: must be a mapping of keys, this is {_yaml_name(change)}"
            )
        kinds_differ = "kind" in change and change["kind"] != base.get("kind", _DEFAULT_KINDS[key])
        blocks[key] = dict(change) if kinds_differ else {**base, **change}
    arm = _validate(Arm, {"name": name, **blocks}, f"{where}: arms.{name}")
    assert isinstance(arm, Arm)
    return arm


_DEFAULT_KINDS = {"judge": "model", "policy": "pool", "signal": "bradley_terry", "strategy": "replace"}


def _check_arm(experiment: Experiment, arm: Arm, where: str) -> None:
    here = f"{where}: arms.{arm.name}"
    members = arm.judge.judges if isinstance(arm.judge, PanelJudge) else (arm.judge,)
    named = [("judge", getattr(member, "endpoint", None)) for member in members] + [("policy", arm.policy.endpoint)]
    for block, endpoint in named:
        if endpoint is not None and endpoint not in experiment.endpoints:
            known = tuple(experiment.endpoints)
            raise ExperimentError(
                f"{here}: {block}.endpoint {endpoint!r} is not among `endpoints` ({', '.join(known) or 'none given'}){_hint(endpoint, known)}"
            )
    if arm.policy.kind == "exemplar" and arm.signal.reference == "base":
        raise ExperimentError(
            f"{here}: signal.reference base needs policy.kind pool; exemplar drafts anew each generation"
        )


def check_environment(resolved: Resolved, environment: Mapping[str, str] = os.environ) -> None:
    """Every environment variable that an endpoint names is set; else ExperimentError. Nothing is printed of its value."""
    for name, endpoint in resolved.experiment.endpoints.items():
        variables = [endpoint.api_key_env] if endpoint.api_key_env else []
        variables += [part.split("}")[0] for value in endpoint.extra_headers.values() for part in value.split("${")[1:]]
        for variable in variables:
            if not environment.get(variable):
                raise ExperimentError(
                    f"endpoints.{name}: environment variable {variable} is not set; set it to the endpoint's key"
                )


def _validate(model: type[BaseModel], raw: Mapping[str, Any], where: str) -> BaseModel:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ExperimentError("\n".join(_sentences(model, error, where))) from None


def _sentences(model: type[BaseModel], error: ValidationError, where: str) -> list[str]:
    sentences = []
    for problem in error.errors(include_url=False)[:5]:
        location = [str(part) for part in problem["loc"] if not str(part).startswith("function-")]
        field = ".".join(part for part in location if part not in _TAGS or part in ("judge",)) or "experiment"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(model, problem["loc"][:-1])
            sentences.append(f"{where}: {field}: unknown key{_hint(location[-1], known)}")
        elif problem["type"] == "missing":
            sentences.append(f"{where}: {field}: required key is missing")
        elif problem["type"] == "union_tag_not_found":
            sentences.append(f"{where}: {field}: must be a mapping of keys, this is {_yaml_name(problem.get('input'))}")
        elif problem["type"] == "union_tag_invalid":
            kinds = str(problem.get("ctx", {}).get("expected_tags", "")).replace("'", "")
            tag = str(problem.get("ctx", {}).get("tag", ""))
            sentences.append(f"{where}: {field}.kind: must be one of {kinds}{_hint(tag, tuple(kinds.split(', ')))}")
        else:
            message = problem["msg"].removeprefix("Value error, ")
            sentences.append(
                f"{where}: {field}: {message[:1].lower()}{message[1:]} (got {str(problem.get('input'))[:80]!r})"
            )
    return sentences


_TAGS = frozenset({"model", "random", "gold", "planted", "panel", "pool", "exemplar", "bradley_terry", "best_of_n"})


def _known_keys(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys that stand at a place in the schema, for the did-you-mean."""
    candidates: list[Any] = [model]
    for part in location:
        following: list[Any] = []
        for candidate in candidates:
            fields = getattr(candidate, "model_fields", {})
            if part in fields:
                following += _models_in(fields[part].annotation)
            elif part in _TAGS or part not in fields:
                following.append(candidate)
        candidates = following
        tagged = [c for c in candidates if part in _TAGS and str(part) == c.model_fields.get("kind", Field()).default]
        candidates = tagged or candidates
    return tuple(dict.fromkeys(key for candidate in candidates for key in candidate.model_fields))


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}" if known else ""


def _yaml_name(raw: object) -> str:
    names = {type(None): "empty", list: "a list", str: "text", int: "a number", float: "a number", bool: "true/false"}
    return names.get(type(raw), type(raw).__name__)
