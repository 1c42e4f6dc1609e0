"""From an experiment file to what is run: validated, its arms resolved, its files read and hashed, its calls counted. No
call is made here.

``load`` or ``resolve`` gives a ``ResolvedExperiment``, ``Material.read`` the files that it names. Arms are overrides of the
base experiment, and a block whose ``kind`` changes starts from that kind's defaults. Every fault is an ExperimentError with
file and field, an unknown key with the nearest known one.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from judgeloop.errors import ExperimentError
from judgeloop.experiment import inputs
from judgeloop.experiment.inputs import read_yaml, yaml_name
from judgeloop.experiment.options import only_speed, sentence
from judgeloop.experiment.schema import (
    SCORING_JUDGES,
    SIGNALS_OF_POLICY,
    AskedJudgeSpec,
    Block,
    Endpoint,
    Experiment,
    GoldJudgeSpec,
    JudgeSpec,
    PanelJudgeSpec,
    PlantedJudgeSpec,
    PointwiseJudgeSpec,
    PolicySpec,
    RewardJudgeSpec,
    RewardModelSignalSpec,
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

    @property
    def is_positive_control(self) -> bool:
        """Positive controls are the arms whose judge is a rule: contrasted like any other, and known to have a taste."""
        return self.judge.kind == "rule"


_ARM_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")  # part of call ids, which are ASCII
_ARM_KEYS = ("judge", "policy", "signal", "strategy")


class ResolvedExperiment(Block):
    """A validated experiment, its arms, and where its files are."""

    experiment: Experiment
    arms: tuple[Arm, ...]
    folder: Path
    """Paths in the experiment are relative to this."""

    @property
    def confirmatory(self) -> tuple[str, str] | None:
        """(arm, control) of the confirmatory contrast: the first of each in the arms' order, a positive control last."""
        positive = [arm.name for arm in self.arms if arm.is_positive_control]
        return min(self.contrasts, key=lambda pair: pair[0] in positive, default=None)

    @property
    def contrasts(self) -> tuple[tuple[str, str], ...]:
        """Every (arm, control arm), in the arms' order."""
        controls = [arm.name for arm in self.arms if arm.is_control]
        return tuple((arm.name, control) for arm in self.arms if not arm.is_control for control in controls)

    def path(self, name: str) -> Path:
        """The path of a file that the experiment names."""
        return self.folder / name

    def identity(self, files: Mapping[str, str]) -> str:
        """SHA-256 of all that answers may depend on: the experiment without what only says how fast, at what price and with
        which key it is asked, and ``files``, the hashes of the files that it names."""
        raw = self.experiment.model_dump(mode="json", exclude={"budget"})
        raw["arms"] = [arm.model_dump(mode="json") for arm in self.arms]
        for block in (raw, *raw["arms"]):
            for key in only_speed(type(self.experiment.policy)):
                block["policy"].pop(key)
            if block["policy"]["endpoint"] == "":  # a key that came later, which stands there only where it is set
                block["policy"].pop("endpoint")
        raw["endpoints"] = {
            name: without_later_keys(endpoint, "top_logprobs") for name, endpoint in self.experiment.endpoints.items()
        }
        return "sha256:" + hashlib.sha256(canonical({"experiment": raw, "files": dict(files)}).encode()).hexdigest()


def without_later_keys(endpoint: Endpoint, *further: str) -> dict[str, Any]:
    """An endpoint's part of an identity: what answers may depend on. Keys that came later (``further``: those that did in this
    kind of folder) stand there only where they are set, so that folders written before them keep their identity."""
    block = endpoint.model_dump(mode="json", exclude=set(only_speed(Endpoint)))
    for key in ("min_label_mass", "min_trial_mass", "seed_field", *further):
        if block[key] == Endpoint.model_fields[key].default:
            block.pop(key)
    return block


def template() -> str:
    """The packaged experiment to start from, as it is shipped: a judge, a coin and a known taste."""
    return resources.files("judgeloop").joinpath("experiment.yaml").read_text(encoding="utf-8")


def load(path: str | Path) -> ResolvedExperiment:
    """Read and validate an experiment file. Raises ExperimentError with the file and the field."""
    path = Path(path)
    return resolve(read_yaml(path, "an experiment"), path.parent, where=str(path))


def as_resolved(experiment: str | Path | Mapping[str, Any] | ResolvedExperiment) -> ResolvedExperiment:
    """A file, a mapping with paths relative to the working directory, or what is resolved already. Raises ExperimentError."""
    if isinstance(experiment, ResolvedExperiment):
        return experiment
    return resolve(experiment) if isinstance(experiment, Mapping) else load(experiment)


def resolve(raw: Mapping[str, Any], folder: str | Path = ".", where: str = "experiment") -> ResolvedExperiment:
    """Validate an experiment given as a mapping, with paths relative to ``folder``."""
    experiment = validated(Experiment, raw, where)
    check_judge(experiment.judge, experiment.endpoints, f"{where}: judge")
    if experiment.policy.endpoint:
        _check_endpoint(experiment.endpoints, experiment.policy.endpoint, f"{where}: policy.endpoint")
        _check_engine(experiment.endpoints, experiment.policy.endpoint, f"{where}: policy.endpoint", scores=False)
        engine = experiment.endpoints[experiment.policy.endpoint].engine
        if engine and experiment.policy.kind == "trained":
            raise ExperimentError(
                f"{where}: policy.endpoint: engine {engine} takes no adapters while it runs; leave endpoint out, and this process drafts, or give a server that does (vLLM)"
            )
    arms = tuple(_arm(raw, experiment, name, override, where) for name, override in experiment.arms.items())
    for arm in arms:
        _check_arm(experiment, arm, where)
    return ResolvedExperiment(experiment=experiment, arms=arms, folder=Path(folder))


def _arm(raw: Mapping[str, Any], base: Experiment, name: str, override: Mapping[str, Any], where: str) -> Arm:
    field = f"arms.{name}"
    if not _ARM_NAME.fullmatch(name):
        raise ExperimentError(
            f"{where}: {field}: an arm's name has ASCII letters, digits, dots, dashes and underscores only"
        )
    for key in override:
        if key not in _ARM_KEYS:
            raise ExperimentError(
                f"{where}: {field}.{key}: an arm may override {', '.join(_ARM_KEYS)}{_hint(key, _ARM_KEYS)}"
            )
    blocks: dict[str, Any] = {}
    for key in _ARM_KEYS:
        base_block, change = raw.get(key, {}), override.get(key, {})
        if not isinstance(change, dict):
            raise ExperimentError(f"{where}: {field}.{key}: must be a mapping of keys, this is {yaml_name(change)}")
        kind = getattr(base, key).kind
        if key == "policy" and change.get("kind", kind) != kind:
            raise _only_exemplars(where, field)
        # The kind is named, for a signal's default depends on the policy.
        blocks[key] = dict(change) if change.get("kind", kind) != kind else {"kind": kind, **base_block, **change}
    arm = validated(Arm, {"name": name, **blocks}, where, field)
    if arm.policy.model_dump(exclude={"exemplars"}) != base.policy.model_dump(exclude={"exemplars"}):
        raise _only_exemplars(where, field)
    return arm


def _only_exemplars(where: str, field: str) -> ExperimentError:
    """The error for an arm that overrides more of the policy."""
    return ExperimentError(
        f"{where}: {field}.policy: only `exemplars` may differ by arm, for arms share generation 0's drafts"
    )


def check_judge(judge: JudgeSpec, endpoints: Mapping[str, Endpoint], where: str) -> None:
    """Raise ExperimentError where a judge asks an endpoint that is none of ``endpoints``, or cannot do it, or has an unknown feature."""
    members: dict[str, JudgeSpec] = {"": judge}
    if isinstance(judge, PanelJudgeSpec):
        members = {f"judges.{number}.": member for number, member in enumerate(judge.judges)}
    for place, member in members.items():
        endpoint = getattr(member, "endpoint", None)
        if endpoint is not None:
            _check_endpoint(endpoints, endpoint, f"{where}.{place}endpoint")
            _check_engine(endpoints, endpoint, f"{where}.{place}endpoint", scores=isinstance(member, RewardJudgeSpec))
        if isinstance(member, PlantedJudgeSpec):
            for name in member.features:
                if name not in STYLE_FEATURES:
                    raise ExperimentError(f"{where}.features.{name}: unknown feature{_hint(name, STYLE_FEATURES)}")


def _check_endpoint(endpoints: Mapping[str, Endpoint], endpoint: str, where: str) -> None:
    if endpoint not in endpoints:
        known = tuple(endpoints)
        raise ExperimentError(
            f"{where}: {endpoint!r} is not among `endpoints` ({', '.join(known) or 'none given'}){_hint(endpoint, known)}"
        )


def _check_engine(endpoints: Mapping[str, Endpoint], endpoint: str, where: str, *, scores: bool) -> None:
    """Raise where an engine cannot do what it is for: llama_cpp only writes texts, transformers only scores them."""
    engine = endpoints[endpoint].engine
    if scores and engine == "llama_cpp":
        raise ExperimentError(
            f"{where}: engine llama_cpp of {endpoint!r} scores no texts; give an endpoint with a base_url, or with engine: transformers"
        )
    if not scores and engine == "transformers":
        raise ExperimentError(
            f"{where}: engine transformers of {endpoint!r} scores texts and writes none; it can be the endpoint of a judge with kind: reward"
        )


def _check_arm(experiment: Experiment, arm: Arm, where: str) -> None:
    place = f"{where}: arms.{arm.name}"
    check_judge(arm.judge, experiment.endpoints, f"{place}.judge")
    selecting = (
        "bradley_terry",
        "reward_model",
        "best_of_n",
        *(("group_advantage",) if arm.policy.kind == "pool" else ()),
    )
    kinds = SIGNALS_OF_POLICY.get(arm.policy.kind, selecting)
    if arm.signal.kind not in kinds:
        raise ExperimentError(
            f"{place}.signal.kind: {arm.signal.kind} does not go with policy.kind {arm.policy.kind}, which takes {', '.join(kinds)}"
        )
    if isinstance(arm.signal, RewardModelSignalSpec):
        name = arm.signal.endpoint
        _check_endpoint(experiment.endpoints, name, f"{place}.signal.endpoint")
        if (engine := experiment.endpoints[name].engine) is not None:
            raise ExperimentError(
                f"{place}.signal.endpoint: engine {engine} of {name!r} serves no embeddings; give an endpoint with a base_url whose model serves /embeddings"
            )
    if arm.signal.kind == "group_advantage" and arm.judge.kind not in SCORING_JUDGES:
        raise ExperimentError(
            f"{place}.judge.kind: {arm.judge.kind} compares texts and scores none, which signal.kind group_advantage needs; use a judge of kind {', '.join(SCORING_JUDGES)}, or signal.kind bradley_terry"
        )
    if arm.policy.kind == "exemplar" and arm.signal.reference == "base":
        raise ExperimentError(
            f"{place}.signal.reference: base needs policy.kind pool; exemplar drafts anew each generation"
        )


def check_environment(resolved: ResolvedExperiment, environment: Mapping[str, str] = os.environ) -> None:
    """Raise ExperimentError where an environment variable that an endpoint names is not set. No value is shown."""
    for name, endpoint in resolved.experiment.endpoints.items():
        for field, variable in endpoint.variables():
            if not environment.get(variable):
                raise ExperimentError(
                    f"endpoints.{name}.{field}: environment variable {variable} is not set; set it to the endpoint's key"
                )


@dataclass(frozen=True)
class PlannedCalls:
    """The number of calls of one kind in a run. Of judgments: ``judge`` is asked for ``arm``, and ``is_first`` says that no
    earlier arm has that judge. Of drafts: ``exemplars`` texts stand in the prompt. Of embeddings: ``signal`` asks for them."""

    kind: Literal[
        "pool drafts", "first drafts", "exemplar drafts", "trained drafts", "trainings", "anchor drafts", "judgments", "scores",
        "embeddings", "matches",
    ]  # fmt: skip
    calls: int
    arm: str = ""
    judge: AskedJudgeSpec | RewardJudgeSpec | None = None
    is_first: bool = False
    exemplars: int = 0
    signal: RewardModelSignalSpec | None = None


@dataclass(frozen=True)
class Material:
    """The files that an experiment names, read and checked before any call."""

    resolved: ResolvedExperiment
    items: tuple[Item, ...]
    real: Mapping[str, tuple[str, ...]]
    """item_id → real texts."""
    anchor_pairs: tuple[tuple[str, Item, str, str], ...]
    """(pair_id, item, text_a, text_b)."""
    hashes: Mapping[str, str]
    """The file's role (``items``, ``panels.anchor``, ``template.<name>`` …) → SHA-256."""

    @classmethod
    def read(cls, resolved: ResolvedExperiment) -> Material:
        """Read every file that the experiment names. Raises ExperimentError."""
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
        real_files = {arm.strategy.real for arm in resolved.arms if arm.strategy.real and arm.strategy.real_fraction}
        if len(real_files) > 1:
            raise ExperimentError(
                f"strategy.real: arms share one file of real data, not {len(real_files)} ({', '.join(sorted(real_files))})"
            )
        real: dict[str, tuple[str, ...]] = {}
        for name in real_files:
            real = inputs.load_real(resolved.path(name), frozenset(item.item_id for item in items))
            hashes["strategy.real"] = inputs.file_hash(resolved.path(name))
        prompts = [templates.load(resolved.experiment.policy.prompt, resolved.folder, "draft")]
        for arm in resolved.arms:
            prompts += judge_prompts(arm.judge, resolved.folder)
            if isinstance(arm.signal, RewardModelSignalSpec) and arm.signal.prompt is not None:
                prompts.append(templates.load(arm.signal.prompt, resolved.folder, "reward"))
        matcher = _matcher(resolved, items)
        if matcher is not None:
            prompts.append(templates.load(matcher.prompt, resolved.folder, "match"))
        hashes |= {f"template.{template.name}": template.sha256 for template in prompts}
        return cls(resolved, items, real, pairs, hashes)

    @property
    def identity(self) -> str:
        """ResolvedExperiment.identity with these files."""
        return self.resolved.identity(self.hashes)

    def planned_calls(self) -> int:
        """Model calls of the whole run at most, without the trials of verdict modes: equal texts are not known before."""
        return sum(planned.calls for planned in self.planned())

    def planned(self) -> Iterator[PlannedCalls]:
        """The calls of the whole run by kind: drafts, then judgments and then embeddings arm by arm, then gold's matches."""
        yield from self._planned_drafts()
        yield from self._planned_judgments()
        yield from self._planned_embeddings()
        if self.matcher is not None:
            yield PlannedCalls("matches", self.matched_texts())

    def _planned_drafts(self) -> Iterator[PlannedCalls]:
        experiment, policy = self.resolved.experiment, self.resolved.experiment.policy
        count = len(self.items) * experiment.replicates
        if policy.kind == "pool":
            yield PlannedCalls("pool drafts", count * policy.pool_size)
        else:
            yield PlannedCalls("first drafts", count * experiment.candidates_per_item)
            arms = Counter(getattr(arm.policy, "exemplars", 0) for arm in self.resolved.arms)
            turns = count * experiment.candidates_per_item * experiment.generations
            if policy.kind in SIGNALS_OF_POLICY:
                yield PlannedCalls("trained drafts", turns * len(self.resolved.arms))
                trainings = experiment.generations * experiment.replicates * len(self.resolved.arms)
                yield PlannedCalls("trainings", trainings)
                arms.clear()
            for exemplars in sorted(arms):
                yield PlannedCalls("exemplar drafts", turns * arms[exemplars], exemplars=exemplars)
        anchor = experiment.panels.anchor
        if isinstance(anchor, int) and anchor:
            yield PlannedCalls("anchor drafts", 2 * anchor)

    def _planned_judgments(self) -> Iterator[PlannedCalls]:
        """Generation 0 and the panels are shared by arms with the same judge."""
        experiment, count = self.resolved.experiment, len(self.items)
        size, steps, replicates = experiment.candidates_per_item, experiment.generations, experiment.replicates
        pairs = size * (size - 1) // 2
        matchups = min(pairs, experiment.matchups_per_item or pairs)
        orders, texts = count * 2 * matchups, count * min(size, 2 * matchups)
        anchor = experiment.panels.anchor
        panel = 2 * (anchor if isinstance(anchor, int) else len(self.anchor_pairs))
        # At most: an edit that does not apply to a text is not judged. Both texts of a pair are edited.
        edits = sum(len(PADDING_DOSES) if name == "padding" else 1 for name in experiment.panels.probes)
        earlier: list[JudgeSpec] = []
        of_pools: list[JudgeSpec] = []
        for arm in self.resolved.arms:
            is_first = arm.judge not in earlier
            earlier.append(arm.judge)
            turns, panels = replicates * (steps + is_first), is_first * (steps + 1)
            if isinstance(arm.judge, PointwiseJudgeSpec | RewardJudgeSpec):  # a text is scored once, an edit too
                scored = turns * texts
                if arm.signal.kind == "group_advantage":  # a pool's text is scored once, for all arms
                    scored = 0 if arm.judge in of_pools else self._pool_texts()
                    of_pools.append(arm.judge)
                yield PlannedCalls("scores", scored + panels * panel * (1 + edits), arm.name, arm.judge, is_first)
                continue
            for member in asked_models(arm.judge):
                presentations = turns * orders + panels * panel * (1 + 2 * edits)
                yield PlannedCalls("judgments", presentations * arm.judge.repeats, arm.name, member, is_first)

    def _planned_embeddings(self) -> Iterator[PlannedCalls]:
        """A text that arms share is embedded once an endpoint and prompt: pools, generation 0's drafts, the anchor panel."""
        experiment = self.resolved.experiment
        anchor = experiment.panels.anchor
        panel = 2 * (anchor if isinstance(anchor, int) else len(self.anchor_pairs))
        shared, drafts = self._pool_texts(), 0
        if experiment.policy.kind != "pool":
            shared = len(self.items) * experiment.replicates * experiment.candidates_per_item
            drafts = shared * (experiment.generations - 1)  # the last generation's texts teach nothing
        earlier: list[tuple[str, str | None]] = []
        for arm in self.resolved.arms:
            if isinstance(arm.signal, RewardModelSignalSpec):
                is_first = (key := (arm.signal.endpoint, arm.signal.prompt)) not in earlier
                earlier.append(key)
                calls = drafts + is_first * (shared + panel)
                yield PlannedCalls("embeddings", calls, arm.name, is_first=is_first, signal=arm.signal)

    @property
    def matcher(self) -> GoldJudgeSpec | None:
        """The gold judge whose model says whether texts are right; None where no model is asked."""
        return _matcher(self.resolved, self.items)

    def matched_texts(self) -> int:
        """How many texts a model is asked to match with a reference: the drafts and real texts of every replicate and the
        anchor panel's texts, of items with ``match: judge``, where there is a gold judge."""
        if self.matcher is None:
            return 0
        items = [item for item in self.items if is_asked(item)]
        real = sum(len(self.real.get(item.item_id, ())) for item in items)
        drafts = len(items) * self._drafts_an_item() + self.resolved.experiment.replicates * real
        anchor = self.resolved.experiment.panels.anchor
        # Pairs are dealt to the items in turn. A file's pairs have no references.
        dealt = range(anchor) if isinstance(anchor, int) else ()
        return drafts + 2 * sum(is_asked(self.items[number % len(self.items)]) for number in dealt)

    def _pool_texts(self) -> int:
        """The pools' drafts and real texts, over all items and replicates."""
        real = sum(len(texts) for texts in self.real.values())
        return len(self.items) * self._drafts_an_item() + self.resolved.experiment.replicates * real

    def _drafts_an_item(self) -> int:
        """Texts an item over all replicates, arms and generations, without those of the anchor panel."""
        experiment = self.resolved.experiment
        if experiment.policy.kind == "pool":
            return experiment.replicates * experiment.policy.pool_size
        turns = 1 + experiment.generations * len(self.resolved.arms)
        return experiment.replicates * experiment.candidates_per_item * turns


def _matcher(resolved: ResolvedExperiment, items: tuple[Item, ...]) -> GoldJudgeSpec | None:
    """See Material.matcher. Raises ExperimentError where gold judges differ or have no endpoint."""
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


def asked_models(spec: JudgeSpec) -> tuple[AskedJudgeSpec, ...]:
    """The chat models that a judge block asks: itself, a panel's members, or none."""
    if isinstance(spec, PanelJudgeSpec):
        return spec.judges
    return (spec,) if isinstance(spec, AskedJudgeSpec) else ()


def judge_prompts(judge: JudgeSpec, folder: str | Path) -> list[templates.Template]:
    """The prompts with which a judge asks its models. Raises ExperimentError."""
    prompts = []
    for member in asked_models(judge):
        kind: templates.Kind = "score" if isinstance(member, PointwiseJudgeSpec) else "judge"
        prompts.append(templates.load(member.prompt, folder, kind))
    if isinstance(judge, RewardJudgeSpec) and judge.prompt is not None:
        prompts.append(templates.load(judge.prompt, folder, "reward"))
    return prompts


# pydantic's faults in a user's words.


B = TypeVar("B", bound=BaseModel)


def validated(model: type[B], raw: Mapping[str, Any], where: str, field: str = "") -> B:
    """The block, or an ExperimentError with a sentence a fault. ``field``: where in the file ``raw`` stands."""
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise ExperimentError("\n".join(_sentences(model, error, where, field))) from None


_MOST_SENTENCES = 5


def _sentences(model: type[BaseModel], error: ValidationError, where: str, prefix: str) -> list[str]:
    """A sentence a fault: file, field, what is wrong."""
    faults = error.errors(include_url=False)
    # A list with a faulty member counts as shorter than it is.
    faulty_lists = {fault["loc"][:-depth] for fault in faults for depth in range(1, len(fault["loc"]))}
    faults = [fault for fault in faults if fault["type"] != "too_short" or fault["loc"] not in faulty_lists]
    sentences = []
    for fault in faults[:_MOST_SENTENCES]:
        path, _ = _place(model, fault["loc"])
        if fault["type"] == "union_tag_invalid":
            path.append("kind")
        field = ".".join([*([prefix] if prefix else []), *path]) or "experiment"
        sentences.append(f"{where}: {field}: {_fault_text(model, fault)}")
    if len(faults) > _MOST_SENTENCES:
        sentences.append(f"{where}: {len(faults) - _MOST_SENTENCES} more faults of this sort")
    return sentences


def _fault_text(model: type[BaseModel], fault: Mapping[str, Any]) -> str:
    """What is wrong with a field, and what it may be instead."""
    kind, value, details = str(fault["type"]), fault.get("input"), fault.get("ctx", {})
    if kind == "extra_forbidden":
        _, types = _place(model, fault["loc"][:-1])
        known = tuple(dict.fromkeys(key for _, block in types for key in getattr(block, "model_fields", {})))
        return "unknown key" + _hint(str(fault["loc"][-1]), known)
    if kind == "missing":
        return "required key is missing"
    if kind in ("union_tag_not_found", "dict_type", "model_type", "model_attributes_type"):
        return f"must be a mapping of keys, this is {yaml_name(value)}"
    if kind in ("literal_error", "union_tag_invalid"):
        allowed = tuple(re.findall(r"'([^']*)'", str(details.get("expected_tags", details.get("expected", "")))))
        wrong = str(details.get("tag", value if isinstance(value, str) else ""))
        near = difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.5)
        return f"must be {'one of ' if len(allowed) > 1 else ''}{', '.join(allowed)}" + (
            f"; did you mean {near[0]}?" if near else ""
        )
    limits = {name: limit for name, limit in details.items() if name in ("ge", "gt", "le", "min_length", "max_length")}
    for prefix, text in _FAULT_TEXTS.items():
        if kind.startswith(prefix):
            return f"{text.format(**limits)} (got {_value_text(value)})"
    if kind == "value_error" and _MAY_HOLD_KEYS & set(fault["loc"]):
        return str(fault["msg"]).removeprefix("Value error, ")
    return f"{sentence(fault)} (got {_value_text(value)})"


_MAY_HOLD_KEYS = {"api_key_env", "extra_headers", "extra_query", "extra_body"}
"""Fields whose values are not shown."""
_FAULT_TEXTS = {
    "int_": "must be a whole number", "float_": "must be a number", "finite_number": "must be a finite number",
    "string_pattern": "must begin with a letter or digit and hold letters, digits, dots, dashes and underscores only",
    "string_too_short": "must not be empty", "string_": "must be text", "bool_": "must be true or false", "greater_than_equal": "must be {ge:g} or more",
    "greater_than": "must be more than {gt:g}", "less_than_equal": "must be {le:g} or less",
    "too_short": "must hold at least {min_length}", "tuple_type": "must be a list", "invalid_key": "a key must be text",
}  # fmt: skip


def _value_text(value: object) -> str:
    # The repr of a container may be endless, and hold what is no fault of this field.
    return repr(value)[:80] if isinstance(value, str | int | float | None) else yaml_name(value)


_TaggedTypes = list[tuple[str | None, Any]]
"""(the union's tag, or None; the type) of everything that may stand in a place."""


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], _TaggedTypes]:
    """pydantic's location as a user reads it, without the tags of unions; and what may stand there."""
    path: list[str] = []
    types: _TaggedTypes = [(None, model)]
    for part in location:
        tagged = [kind for tag, kind in types if tag is not None and tag == part]
        if tagged:
            types = [(None, kind) for kind in tagged]
            continue
        annotations: list[Any] = []
        for _, kind in types:
            origin: Any = get_origin(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                annotations += [kind.model_fields[str(part)].annotation] if part in kind.model_fields else []
            elif origin in (dict, tuple):
                annotations.append(get_args(kind)[1 if origin is dict else 0])
        if part != "[key]":
            path.append(str(part))
        types = [tagged_type for annotation in annotations for tagged_type in _tagged_types(annotation)]
    return path, types


def _tagged_types(annotation: Any, tag: str | None = None) -> _TaggedTypes:
    """The members of a union, each with its tag; any other type alone."""
    if get_origin(annotation) is Annotated:
        inner, *marks = get_args(annotation)
        return _tagged_types(inner, next((str(mark.tag) for mark in marks if isinstance(mark, Tag)), tag))
    if get_origin(annotation) in (Union, UnionType):
        return [pair for member in get_args(annotation) for pair in _tagged_types(member, tag)]
    return [(tag, annotation)]


def _hint(word: str, known: tuple[str, ...]) -> str:
    """The end of a sentence about an unknown word: the nearest known one, else all of them."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}" if known else ""
