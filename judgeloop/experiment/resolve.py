"""From an experiment file to what is run: loaded, validated, its arms resolved, hashed. No call is made here.

Unknown keys are refused with the nearest known one. Arms are overrides of the base experiment, and a block whose
``kind`` changes starts from that kind's defaults.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from judgeloop.errors import ExperimentError
from judgeloop.experiment import inputs
from judgeloop.experiment.inputs import read_yaml, yaml_name
from judgeloop.experiment.options import only_speed
from judgeloop.experiment.schema import (
    Block,
    Endpoint,
    Experiment,
    GoldJudgeSpec,
    JudgeSpec,
    ModelJudgeSpec,
    PanelJudgeSpec,
    PlantedJudgeSpec,
    PolicySpec,
    RewardJudgeSpec,
    SignalSpec,
    StrategySpec,
)
from judgeloop.records import PADDING_DOSES, Item, canonical
from judgeloop.text import templates
from judgeloop.text.features import STYLE_FEATURES
from judgeloop.text.matching import is_asked


class Arm(Block):
    """An arm with everything that its overrides resolve to."""

    name: str
    judge: JudgeSpec
    policy: PolicySpec
    signal: SignalSpec
    strategy: StrategySpec

    @property
    def is_control(self) -> bool:
        """Control arms are those whose judge is random or gold."""
        return self.judge.kind in ("random", "gold")


_ARM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # it stands in call ids, which are ASCII
_ARM_KEYS = ("judge", "policy", "signal", "strategy")


class ResolvedExperiment(Block):
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
            for key in only_speed(Endpoint):
                endpoint.pop(key)
            if endpoint["top_logprobs"] == Endpoint.model_fields["top_logprobs"].default:
                endpoint.pop("top_logprobs")  # a later key: folders written before it stay the experiment's own
        return "sha256:" + hashlib.sha256(canonical({"experiment": raw, "files": dict(files)}).encode()).hexdigest()


def load(path: str | Path) -> ResolvedExperiment:
    """Read and validate an experiment file. Raises ExperimentError with the file and the field."""
    path = Path(path)
    return resolve(read_yaml(path, "an experiment"), path.parent, where=str(path))


def resolve(raw: Mapping[str, Any], folder: str | Path = ".", where: str = "experiment") -> ResolvedExperiment:
    """Validate an experiment given as a mapping, with paths relative to ``folder``."""
    experiment = _validate(Experiment, raw, where)
    assert isinstance(experiment, Experiment)
    _check_judge(experiment, experiment.judge, f"{where}: judge")
    _check_endpoint(experiment, experiment.policy.endpoint, f"{where}: policy.endpoint")
    _check_engine(experiment, experiment.policy.endpoint, f"{where}: policy.endpoint", scores=False)
    arms = tuple(_arm(raw, experiment, name, override, where) for name, override in experiment.arms.items())
    for arm in arms:
        _check_arm(experiment, arm, where)
    return ResolvedExperiment(experiment=experiment, arms=arms, folder=Path(folder))


def _arm(raw: Mapping[str, Any], base: Experiment, name: str, override: Mapping[str, Any], where: str) -> Arm:
    here = f"arms.{name}"
    if not _ARM_NAME.fullmatch(name):
        raise ExperimentError(
            f"{where}: {here}: an arm's name has ASCII letters, digits, dots, dashes and underscores only"
        )
    for key in override:
        if key not in _ARM_KEYS:
            raise ExperimentError(
                f"{where}: {here}.{key}: an arm may override {', '.join(_ARM_KEYS)}{_hint(key, _ARM_KEYS)}"
            )
    blocks: dict[str, Any] = {}
    for key in _ARM_KEYS:
        stated, change = raw.get(key, {}), override.get(key, {})
        if not isinstance(change, dict):
            raise ExperimentError(f"{where}: {here}.{key}: must be a mapping of keys, this is {yaml_name(change)}")
        kind = getattr(base, key).kind
        if key == "policy" and change.get("kind", kind) != kind:
            raise _only_exemplars(where, here)
        blocks[key] = dict(change) if change.get("kind", kind) != kind else {**stated, **change}
    arm = _validate(Arm, {"name": name, **blocks}, where, here)
    assert isinstance(arm, Arm)
    if arm.policy.model_dump(exclude={"exemplars"}) != base.policy.model_dump(exclude={"exemplars"}):
        raise _only_exemplars(where, here)
    return arm


def _only_exemplars(where: str, here: str) -> ExperimentError:
    return ExperimentError(
        f"{where}: {here}.policy: only `exemplars` may differ by arm, for arms share generation 0's drafts"
    )


def _check_judge(experiment: Experiment, judge: JudgeSpec, where: str) -> None:
    members = {f"judges.{place}.": member for place, member in enumerate(judge.judges)} if isinstance(judge, PanelJudgeSpec) else {"": judge}  # fmt: skip
    for place, member in members.items():
        endpoint = getattr(member, "endpoint", None)
        if endpoint is not None:
            _check_endpoint(experiment, endpoint, f"{where}.{place}endpoint")
            _check_engine(experiment, endpoint, f"{where}.{place}endpoint", scores=isinstance(member, RewardJudgeSpec))
        if isinstance(member, PlantedJudgeSpec):
            for name in member.features:
                if name not in STYLE_FEATURES:
                    raise ExperimentError(f"{where}.features.{name}: unknown feature{_hint(name, STYLE_FEATURES)}")


def _check_endpoint(experiment: Experiment, endpoint: str, where: str) -> None:
    if endpoint not in experiment.endpoints:
        known = tuple(experiment.endpoints)
        raise ExperimentError(
            f"{where}: {endpoint!r} is not among `endpoints` ({', '.join(known)}){_hint(endpoint, known)}"
        )


def _check_engine(experiment: Experiment, endpoint: str, where: str, *, scores: bool) -> None:
    """An engine does what it is asked for: llama_cpp writes, transformers scores."""
    engine = experiment.endpoints[endpoint].engine
    if scores and engine == "llama_cpp":
        raise ExperimentError(
            f"{where}: engine llama_cpp of {endpoint!r} scores no texts; give an endpoint with a base_url, or with engine: transformers"
        )
    if not scores and engine == "transformers":
        raise ExperimentError(
            f"{where}: engine transformers of {endpoint!r} scores texts and writes none; it can be the endpoint of a judge with kind: reward"
        )


def _check_arm(experiment: Experiment, arm: Arm, where: str) -> None:
    here = f"{where}: arms.{arm.name}"
    _check_judge(experiment, arm.judge, f"{here}.judge")
    if arm.policy.kind == "exemplar" and arm.signal.reference == "base":
        raise ExperimentError(
            f"{here}.signal.reference: base needs policy.kind pool; exemplar drafts anew each generation"
        )


def check_environment(resolved: ResolvedExperiment, environment: Mapping[str, str] = os.environ) -> None:
    """Every environment variable that an endpoint names is set; else ExperimentError. Nothing is printed of its value."""
    for name, endpoint in resolved.experiment.endpoints.items():
        for field, variable in endpoint.variables():
            if not environment.get(variable):
                raise ExperimentError(
                    f"endpoints.{name}.{field}: environment variable {variable} is not set; set it to the endpoint's key"
                )


def _validate(model: type[BaseModel], raw: Mapping[str, Any], where: str, here: str = "") -> BaseModel:
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise ExperimentError("\n".join(_sentences(model, error, where, here))) from None


_MOST_SENTENCES = 5


def _sentences(model: type[BaseModel], error: ValidationError, where: str, here: str) -> list[str]:
    """A sentence a fault: file, field, what is wrong."""
    found = error.errors(include_url=False)
    # A list with a faulty member counts as shorter than it is.
    faulty = {problem["loc"][:-depth] for problem in found for depth in range(1, len(problem["loc"]))}
    problems = [problem for problem in found if problem["type"] != "too_short" or problem["loc"] not in faulty]
    sentences = []
    for problem in problems[:_MOST_SENTENCES]:
        place, _ = _place(model, problem["loc"])
        if problem["type"] == "union_tag_invalid":
            place.append("kind")
        field = ".".join([*([here] if here else []), *place]) or "experiment"
        sentences.append(f"{where}: {field}: {_said(model, problem)}")
    if len(problems) > _MOST_SENTENCES:
        sentences.append(f"{where}: {len(problems) - _MOST_SENTENCES} more faults of this sort")
    return sentences


def _said(model: type[BaseModel], problem: Mapping[str, Any]) -> str:
    kind, given, told = str(problem["type"]), problem.get("input"), problem.get("ctx", {})
    if kind == "extra_forbidden":
        _, kinds = _place(model, problem["loc"][:-1])
        known = tuple(dict.fromkeys(key for _, found in kinds for key in getattr(found, "model_fields", {})))
        return "unknown key" + _hint(str(problem["loc"][-1]), known)
    if kind == "missing":
        return "required key is missing"
    if kind in ("union_tag_not_found", "dict_type", "model_type", "model_attributes_type"):
        return f"must be a mapping of keys, this is {yaml_name(given)}"
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = tuple(re.findall(r"'([^']*)'", str(told.get("expected_tags", told.get("expected", "")))))
        wrong = str(told.get("tag", given if isinstance(given, str) else ""))
        near = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
        return f"must be {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    limits = {name: value for name, value in told.items() if name in ("ge", "gt", "le", "min_length", "max_length")}
    for prefix, sentence in _WORDS.items():
        if kind.startswith(prefix):
            return f"{sentence.format(**limits)} (got {_shown(given)})"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "value_error" and _MAY_HOLD_KEYS & set(problem["loc"]):
        return message
    return f"{message[:1].lower()}{message[1:]} (got {_shown(given)})"


_MAY_HOLD_KEYS = {"api_key_env", "extra_headers", "extra_query", "extra_body"}

_WORDS = {
    "int_": "must be a whole number", "float_": "must be a number", "finite_number": "must be a finite number",
    "string_pattern": "must begin with a letter or digit and hold letters, digits, dots, dashes and underscores only",
    "string_": "must be text", "bool_": "must be true or false", "greater_than_equal": "must be {ge:g} or more",
    "greater_than": "must be more than {gt:g}", "less_than_equal": "must be {le:g} or less",
    "too_short": "must hold at least {min_length}", "tuple_type": "must be a list", "invalid_key": "a key must be text",
}  # fmt: skip


def _shown(given: object) -> str:
    # The repr of a container may be endless, and hold what is no fault of this field.
    return repr(given)[:80] if isinstance(given, str | int | float | None) else yaml_name(given)


_Kinds = list[tuple[str | None, Any]]


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], _Kinds]:
    """pydantic's location as a user reads it, without the tags of unions; and what may stand there, as (tag, type)."""
    shown: list[str] = []
    kinds: _Kinds = [(None, model)]
    for part in location:
        tagged = [kind for tag, kind in kinds if tag is not None and tag == part]
        if tagged:
            kinds = [(None, kind) for kind in tagged]
            continue
        inner: list[Any] = []
        for _, kind in kinds:
            origin: Any = get_origin(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                inner += [kind.model_fields[str(part)].annotation] if part in kind.model_fields else []
            elif origin in (dict, tuple):
                inner.append(get_args(kind)[1 if origin is dict else 0])
        if part != "[key]":
            shown.append(str(part))
        kinds = [found for annotation in inner for found in _kinds_in(annotation)]
    return shown, kinds


def _kinds_in(annotation: Any, tag: str | None = None) -> _Kinds:
    if get_origin(annotation) is Annotated:
        inner, *said = get_args(annotation)
        return _kinds_in(inner, next((str(one.tag) for one in said if isinstance(one, Tag)), tag))
    if get_origin(annotation) in (Union, UnionType):
        return [found for member in get_args(annotation) for found in _kinds_in(member, tag)]
    return [(tag, annotation)]


def _hint(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}" if known else ""


# The files that an experiment names, read, checked and hashed before any call; and how many calls it will take.


@dataclass(frozen=True)
class Planned:
    """How many calls of one kind a run makes. ``judge``: who is asked, in ``arm``; ``is_first``: in the first arm that has
    that judge; ``exemplars``: the texts that a draft is shown."""

    kind: Literal["pool drafts", "first drafts", "exemplar drafts", "anchor drafts", "judgments", "scores", "matches"]
    calls: int
    arm: str = ""
    judge: ModelJudgeSpec | RewardJudgeSpec | None = None
    is_first: bool = False
    exemplars: int = 0


@dataclass(frozen=True)
class Material:
    """The files that an experiment names, read and checked before any call."""

    resolved: ResolvedExperiment
    items: tuple[Item, ...]
    real: Mapping[str, tuple[str, ...]]
    anchor_pairs: tuple[tuple[str, Item, str, str], ...]
    hashes: Mapping[str, str]

    @classmethod
    def read(cls, resolved: ResolvedExperiment) -> Material:
        path = resolved.path(resolved.experiment.items)
        items = inputs.load_items(path)
        if resolved.experiment.policy.kind == "exemplar" and len(items) < 2:
            raise ExperimentError(
                f"{path}: policy.kind exemplar shows texts of other items; give two items or more, or policy.kind pool"
            )
        hashes = {"items": inputs.file_hash(path)}
        anchor = resolved.experiment.panels.anchor
        pairs: tuple[tuple[str, Item, str, str], ...] = ()
        if isinstance(anchor, str):
            pairs = inputs.load_anchor_pairs(resolved.path(anchor))
            hashes["panels.anchor"] = inputs.file_hash(resolved.path(anchor))
        named = {arm.strategy.real for arm in resolved.arms if arm.strategy.real and arm.strategy.real_fraction}
        if len(named) > 1:
            raise ExperimentError(
                f"strategy.real: arms share one file of real data, not {len(named)} ({', '.join(sorted(named))})"
            )
        real: dict[str, tuple[str, ...]] = {}
        for name in named:
            real = inputs.load_real(resolved.path(name), frozenset(item.item_id for item in items))
            hashes["strategy.real"] = inputs.file_hash(resolved.path(name))
        loaded = [templates.load(resolved.experiment.policy.prompt, resolved.folder, "draft")]
        for arm in resolved.arms:
            loaded += [templates.load(member.prompt, resolved.folder, "judge") for member in asked_models(arm.judge)]
            if isinstance(arm.judge, RewardJudgeSpec) and arm.judge.prompt is not None:
                loaded.append(templates.load(arm.judge.prompt, resolved.folder, "reward"))
        matcher = _matcher(resolved, items)
        if matcher is not None:
            loaded.append(templates.load(matcher.prompt, resolved.folder, "match"))
        hashes |= {f"template.{template.name}": template.sha256 for template in loaded}
        return cls(resolved, items, real, pairs, hashes)

    @property
    def identity(self) -> str:
        return self.resolved.identity(self.hashes)

    def planned_calls(self) -> int:
        """Model calls of the whole run, but for verdict trials; equal texts are not known before."""
        return sum(planned.calls for planned in self.planned())

    def planned(self) -> Iterator[Planned]:
        """The calls of the whole run by kind: drafts, then judgments arm by arm, then gold's matches."""
        yield from self._drafted()
        yield from self._judged()
        if self.matcher is not None:
            yield Planned("matches", self.matched_texts())

    def _drafted(self) -> Iterator[Planned]:
        experiment, policy = self.resolved.experiment, self.resolved.experiment.policy
        count = len(self.items) * experiment.replicates
        if policy.kind == "pool":
            yield Planned("pool drafts", count * policy.pool_size)
        else:
            yield Planned("first drafts", count * experiment.candidates_per_item)
            arms = Counter(getattr(arm.policy, "exemplars", 0) for arm in self.resolved.arms)
            turns = count * experiment.candidates_per_item * experiment.generations
            for exemplars in sorted(arms):
                yield Planned("exemplar drafts", turns * arms[exemplars], exemplars=exemplars)
        anchor = experiment.panels.anchor
        if isinstance(anchor, int) and anchor:
            yield Planned("anchor drafts", 2 * anchor)

    def _judged(self) -> Iterator[Planned]:
        """Generation 0 and the panels are shared by arms with the same judge."""
        experiment, count = self.resolved.experiment, len(self.items)
        size, steps, replicates = experiment.candidates_per_item, experiment.generations, experiment.replicates
        pairs = size * (size - 1) // 2
        matchups = min(pairs, experiment.matchups_per_item or pairs)
        shown, texts = count * 2 * matchups, count * min(size, 2 * matchups)
        anchor = experiment.panels.anchor
        panel = 2 * (anchor if isinstance(anchor, int) else len(self.anchor_pairs))
        # At most: an edit that does not apply to a text is not judged. Both texts of a pair are edited.
        edits = sum(len(PADDING_DOSES) if name == "padding" else 1 for name in experiment.panels.probes)
        asked: list[JudgeSpec] = []
        for arm in self.resolved.arms:
            fresh = arm.judge not in asked
            asked.append(arm.judge)
            turns, panels = replicates * (steps + fresh), fresh * (steps + 1)
            if isinstance(arm.judge, RewardJudgeSpec):  # a text is scored once, an edit too
                yield Planned("scores", turns * texts + panels * panel * (1 + edits), arm.name, arm.judge)
            for member in asked_models(arm.judge):
                presentations = turns * shown + panels * panel * (1 + 2 * edits)
                yield Planned("judgments", presentations * arm.judge.repeats, arm.name, member, fresh)

    @property
    def matcher(self) -> GoldJudgeSpec | None:
        """The gold judge that asks a model whether texts are right, None where none is asked."""
        return _matcher(self.resolved, self.items)

    def matched_texts(self) -> int:
        """How many texts a model is asked to match with a reference: the drafts and real texts of every replicate and the
        anchor panel's texts, of items with ``match: judge``, where there is a gold judge."""
        if self.matcher is None:
            return 0
        asked = [item for item in self.items if is_asked(item)]
        real = sum(len(self.real.get(item.item_id, ())) for item in asked)
        drafts = len(asked) * self._drafts_an_item() + self.resolved.experiment.replicates * real
        anchor = self.resolved.experiment.panels.anchor
        # Pairs are dealt to the items in turn. A file's pairs have no references.
        dealt = range(anchor) if isinstance(anchor, int) else ()
        return drafts + 2 * sum(is_asked(self.items[number % len(self.items)]) for number in dealt)

    def _drafts_an_item(self) -> int:
        """Over all replicates, arms and generations; the anchor panel's aside."""
        experiment = self.resolved.experiment
        if experiment.policy.kind == "pool":
            return experiment.replicates * experiment.policy.pool_size
        turns = 1 + experiment.generations * len(self.resolved.arms)
        return experiment.replicates * experiment.candidates_per_item * turns


def _matcher(resolved: ResolvedExperiment, items: tuple[Item, ...]) -> GoldJudgeSpec | None:
    golds = [arm.judge for arm in resolved.arms if isinstance(arm.judge, GoldJudgeSpec)]
    if not golds or not any(is_asked(item) for item in items):
        return None
    if any(gold.endpoint is None for gold in golds):
        raise ExperimentError("judge.endpoint: the gold judge needs an endpoint, for some items have `match: judge`")
    if len({(gold.endpoint, gold.prompt) for gold in golds}) > 1:
        raise ExperimentError(
            "judge: gold judges share one endpoint and one prompt where items have `match: judge`, for a text is right or "
            "wrong in all arms"
        )
    return golds[0]


def asked_models(spec: JudgeSpec) -> tuple[ModelJudgeSpec, ...]:
    """The model judges that a judge block asks: itself, a panel's members, or none."""
    if isinstance(spec, PanelJudgeSpec):
        return spec.judges
    return (spec,) if isinstance(spec, ModelJudgeSpec) else ()
