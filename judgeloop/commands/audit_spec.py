"""The settings of an audit, checked and hashed before any call: which judges are asked what, where and how."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import ValidationError

from judgeloop import analysis
from judgeloop.commands.questions import Editor, ProbeQuestions, Questions, questions_of, rule_probes
from judgeloop.commands.rated import Pointwise, RatingForm, listwise
from judgeloop.errors import InvalidInput
from judgeloop.experiment.audit import AuditCall, AuditPlanCall, AuditSpec
from judgeloop.experiment.options import flags, only_speed, sentence
from judgeloop.experiment.resolve import without_later_keys
from judgeloop.experiment.schema import Block, CallSettings, Endpoint, ModelJudgeSpec, Price, RewardJudgeSpec
from judgeloop.interchange.pairs import read_pairs, read_sets
from judgeloop.interchange.rows import STDIN, Input, load_columns, near
from judgeloop.judging.answers import MOST_BY_LOGPROB
from judgeloop.judging.panels import PROBES, RULE_PROBES
from judgeloop.records import canonical
from judgeloop.text import templates
from judgeloop.text.templates import Kind, Template, parse_scales

B = TypeVar("B", bound=Block)

MODES = ("pairwise", "pointwise", "listwise")
DEFAULT_SCALES = "1-10,10-1"
"""The reversed scale is to a score what the swapped order is to a pair: it shows how far the numbers themselves move it."""
PAIRWISE = "pairwise"
_KINDS: dict[str, Kind] = {"pointwise": "score", "listwise": "choice"}
EDITOR = "edits"
"""The name of the endpoint of the model that writes edits, where no judge is that model."""

OPTIONS = flags(AuditCall, AuditPlanCall)
"""Field → option, for sentences about a value."""
_IN_BLOCKS = frozenset(Endpoint.model_fields) - {"max_tokens"} | {"endpoint", "columns"}
"""Fields that the record shows as the judges' endpoints and as the pairs."""
_OF_WRITERS = frozenset(ModelJudgeSpec.model_fields) & frozenset(AuditSpec.model_fields)
"""Fields that only judges that write replies have."""
_HASHED = _IN_BLOCKS | _OF_WRITERS | {"edit_model", "mode", "scales", "against_pairwise", "reward"}
"""Fields that the identity holds as what was made of them: judges, endpoints, templates, pairs, and how they are asked."""
_ALWAYS_HASHED = ("probes", "seed")

_ANY_ENDPOINT = "any"
_REWARD_KEYS = ("score", "label", "temperature")
_REWARD_EXAMPLE = "as classify, or classify,label=1,score=probability"


@dataclass(frozen=True)
class Settings:
    """An audit whose options are checked. ``judges`` are by name, ``endpoints`` by the model's; a judge's name is its
    model's, and ``<model>#rubric_scores`` where it is asked by the rubric for the mitigation of that name."""

    name: str
    spec: AuditSpec
    questions: Questions
    judges: Mapping[str, ModelJudgeSpec]
    endpoints: Mapping[str, Endpoint]
    template: Template
    probes: tuple[str, ...]
    editor: Editor | None
    sources: Mapping[str, Any]
    mitigate: tuple[str, ...] = ()
    form: RatingForm | None = None
    """The questions of modes pointwise and listwise; None in mode pairwise."""
    reward: RewardJudgeSpec | None = None
    """How the judges score where they are reward models; each judge's endpoint replaces the block's."""

    @property
    def pairwise(self) -> bool:
        """Whether the pairs are asked, in both orders."""
        return self.form is None or self.form.against

    @property
    def calls(self) -> int:
        """Calls of one judge, without probes and trials."""
        return (self.questions.calls if self.pairwise else 0) + (self.form.calls if self.form else 0)

    @property
    def bases(self) -> tuple[str, ...]:
        """The judges that are audited; the others are their rubrics, which are shown no probe."""
        return tuple(name for name in self.judges if name in self.endpoints)

    def template_of(self, judge: str) -> Template:
        """The template by which a judge is asked about pairs."""
        return self.template if judge in self.endpoints else templates.load(analysis.RUBRIC)

    @property
    def rules(self) -> tuple[str, ...]:
        """The probes that need no model."""
        return tuple(name for name in self.probes if PROBES[name].kind == "rule")

    def rule_probes(self, watch: Callable[[int, int], None] = lambda *_: None) -> ProbeQuestions:
        """Every judge's probe pairs that need no model. ``watch`` is called with (pairs done, of how many)."""
        models = {name: self.endpoints[name].model for name in self.bases}
        if not self.rules:
            return ProbeQuestions({name: [] for name in models} if self.probes else {})
        return rule_probes(self.questions, self.rules, models, seed=self.seed, watch=watch)

    @property
    def seed(self) -> int:
        """The seed of all random draws."""
        return self.spec.seed

    def _values(self) -> dict[str, Any]:
        """Field → value as JSON can hold it: the probes and mitigations by name, and the reward's block for its text."""
        values = self.spec.model_dump(mode="json", include=set(AuditSpec.model_fields) - _IN_BLOCKS)
        values |= {"probes": list(self.probes), "mitigate": list(self.mitigate)}
        return values | ({"reward": self._reward()} if self.reward else {}) | (self.form.record() if self.form else {})

    def record(self) -> dict[str, Any]:
        """The content of experiment.yaml: the pairs, each judge's endpoint, and every field that is not empty."""
        endpoints = [self.endpoints[name].model_dump(mode="json", exclude_defaults=True) for name in self.bases]
        omitted = _OF_WRITERS if self.reward else frozenset()
        values = {name: value for name, value in self._values().items() if name not in omitted and _is_stated(value)}
        pairs = {role: source["name"] for role, source in self.sources.items()}
        return {"name": self.name, "audit": {**pairs, "judges": endpoints, **values}}

    def _reward(self) -> dict[str, Any]:
        return {} if self.reward is None else self.reward.model_dump(mode="json", exclude={"kind", "endpoint"})

    def identity(self) -> str:
        """SHA-256 of all that the answers may depend on: the pairs as they were read from whatever kind of file, without the
        settings of speed, price and key. Mitigations are left out too, since they re-score the same answers or ask calls of
        their own: they may be added to an audit that is done."""
        endpoints = {name: without_later_keys(endpoint) for name, endpoint in self.endpoints.items()}
        values, excluded = self._values(), only_speed(AuditSpec) | _HASHED
        # Defaults are left out, so that the folders of an older version without the field keep their identity.
        stated = {
            name: value
            for name, value in values.items()
            if name not in excluded
            and (name in _ALWAYS_HASHED or value != AuditSpec.model_fields[name].get_default(call_default_factory=True))
        }
        audit = {
            **stated, "judges": [self.judges[name].model_dump(mode="json") for name in self.bases], "endpoints": endpoints,
            "edits": self.editor.endpoint if self.editor else "",
            "templates": [self.template.sha256, *(t.sha256 for t in (self.editor.templates.values() if self.editor else ()))],
            "pairs": [
                [pair.item_id, pair.pair_id, dict(pair.values), {name: str(cell) for name, cell in pair.other_columns.items()}]
                for pair in self.questions.rows.values()
            ],
            **({"form": self.form.identity()} if self.form else {}),
            **({"reward": self._reward(), "template": self._reward_template()} if self.reward else {}),
        }  # fmt: skip
        return "sha256:" + hashlib.sha256(canonical({"audit": audit}).encode("utf-8", "replace")).hexdigest()

    def _reward_template(self) -> str:
        """The hash of the reward model's template; empty where it has none."""
        prompt = self.reward is not None and self.reward.prompt
        return templates.load(prompt, ".", "reward").sha256 if prompt else ""


def checked(pairs: Input, spec: AuditSpec) -> Settings:
    """The settings of an audit of these pairs, with the pairs read and every option checked. No call is made. Raises
    InvalidInput."""
    models = [spec.model] if isinstance(spec.model, str) else list(spec.model)
    if not models:
        raise InvalidInput("--model: name the model that judges")
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"--model: {twice} is named twice; name each judge once")
    prompt, reward = str(spec.prompt), None
    if spec.reward is not None:
        _check_with_reward(spec)
        reward = chosen_reward(spec.reward, None if prompt == PAIRWISE else prompt)
        prompt = PAIRWISE
    _check_address(spec)
    urls = _for_each(models, spec.base_url, "--base-url")
    keys = _for_each(models, spec.api_key_env, "--api-key-env")
    prices, edit_price = _as_list(spec.price), None
    if spec.edit_model not in (None, *models) and prices and len(prices) == len(models) + 1:
        *prices, edit_price = prices
    prices = _for_each(models, prices, "--price")
    shared = {name: getattr(spec, name) for name in CallSettings.model_fields} | {"engine": spec.engine}
    of_judge = {name: getattr(spec, name) for name in _OF_WRITERS}
    pair_prompt = prompt if spec.mode == PAIRWISE else PAIRWISE
    endpoints, judges = {}, {}
    for name, url, key, price_pair in zip(models, urls, keys, prices, strict=True):
        own = {"base_url": url, "model": name, "api_key_env": key, "price": _price(price_pair)}
        endpoints[name] = valid(Endpoint, {**shared, **own, **spec.endpoint})
        judges[name] = valid(ModelJudgeSpec, {**of_judge, "endpoint": name, "prompt": pair_prompt})
    _check_mode(spec)
    template = templates.load(pair_prompt, ".", "judge")
    _check_verdict(spec, template)
    mitigations = analysis.named_mitigations(spec.mitigate)
    analysis.check_mitigations(mitigations, judges=len(models), repeats=spec.repeats, asks=True)
    if "rubric" in mitigations:
        judges |= _rubrics(judges, template)
    probes = chosen_probes(spec.probes, spec.edit_model)
    editor = _editor(probes, spec.edit_model, endpoints, _price(edit_price))
    if editor is not None and editor.endpoint not in endpoints:
        endpoints[editor.endpoint] = editor.settings
    columns = load_columns(spec.columns)
    if spec.mode == "listwise":
        questions = Questions({}, (), {}, spec.repeats)
        form: RatingForm | None = listwise(read_sets(pairs, columns), _form_template(spec), spec.repeats)
    else:
        questions = questions_of(read_pairs(pairs, columns), spec.repeats)
        form = _pointwise(questions, spec) if spec.mode == "pointwise" else None
    files = analysis.sources_of(pairs, None, spec.columns)
    sources = {"pairs": files.pop("verdicts"), **files}
    return Settings(
        audit_name(pairs), spec, questions, judges, endpoints, template, probes, editor, sources, mitigations, form, reward
    )  # fmt: skip


def audit_name(pairs: Input) -> str:
    """The name of an audit of these pairs, and of its default folder: by the file's name."""
    is_file = not isinstance(pairs, pd.DataFrame) and str(pairs) != STDIN
    return f"{Path(str(pairs)).stem}-audit" if is_file else "audit"


def with_client_addresses(options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The keywords of an audit with the addresses of the caller's own client where no base_url is given."""
    client = options.get("client")
    if client is None or options.get("base_url") or "model" not in options:
        return options
    models = [options["model"]] if isinstance(options["model"], str) else list(options["model"])
    try:
        clients = [client[model] for model in models] if isinstance(client, Mapping) else [client]
        return {**options, "base_url": [str(each.base_url.copy_with(query=None)).rstrip("/") for each in clients]}
    except (KeyError, AttributeError):
        raise InvalidInput("client: give an openai.AsyncOpenAI, or a mapping that has one for each model") from None


def valid(kind: type[B], raw: Mapping[str, Any], name: str = "") -> B:
    """The block of these values. Raises InvalidInput that names the option: ``name``, else the field's."""
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path = [str(part) for part in problem["loc"]]
        key = path[0] if path else ""
        raise InvalidInput(f"{name or OPTIONS.get(key) or key or '--base-url'}: {sentence(problem)}") from None


def _as_list(price: Any) -> Any:
    """The option --price as a list: one price, or one a model."""
    return [price] if price is not None and price and not isinstance(price[0], list | tuple) else price


def _for_each(models: Sequence[str], option_value: Any, option: str) -> list[Any]:
    """The option's values, one a model: one for all models, or one each in their order. Raises InvalidInput."""
    values = [option_value] if option_value is None or isinstance(option_value, str) else list(option_value) or [None]
    if len(values) not in (1, len(models)):
        raise InvalidInput(
            f"{option}: give one for all, or one for each of the {len(models)} models, not {len(values)}"
        )
    return values * len(models) if len(values) == 1 else values


def _is_stated(value: Any) -> bool:
    """Whether a value is neither empty nor off."""
    return value is not None and value is not False and value not in ("", {})


# -- checks before any call --------------------------------------------------------------------------------------------


def _check_address(spec: AuditSpec) -> None:
    """Raises InvalidInput unless there is an address, or an engine that can do what the judges are asked for."""
    if not spec.base_url and spec.engine is None:
        raise InvalidInput("--base-url: say where the judge answers, or start it with --engine")
    if spec.base_url and spec.engine is not None:
        raise InvalidInput("--engine: judgeloop starts the model itself; leave --base-url out")
    if spec.engine == "transformers" and spec.reward is None:
        raise InvalidInput("--engine transformers: a sequence classifier scores texts; give --reward classify too")
    if spec.engine == "llama_cpp" and spec.reward is not None:
        raise InvalidInput("--reward: engine llama_cpp scores no texts; use --engine transformers, or --base-url")
    if spec.engine is None and spec.threads is not None:
        raise InvalidInput("--threads: goes with --engine only, which judgeloop starts; set a server's threads where you start it")  # fmt: skip


def _check_mode(spec: AuditSpec) -> None:
    """Raises InvalidInput for an unknown mode, and for options that the mode does not have."""
    if spec.mode not in MODES:
        raise InvalidInput(f"--mode: must be one of {', '.join(MODES)}, not {spec.mode!r:.40}")
    if spec.mode != "pointwise":
        for value, name in ((spec.scales, "--scales"), (spec.against_pairwise, "--against-pairwise")):
            if value:
                raise InvalidInput(f"{name}: only --mode pointwise has it")
    if spec.mode != "pairwise":
        names = [spec.probes] if isinstance(spec.probes, str) else list(spec.probes)
        if names not in ([], ["none"]):
            raise InvalidInput(f"--probes: a probe is a pair of a text and its edit; --mode {spec.mode} asks none")
        if spec.mitigate:
            raise InvalidInput(f"--mitigate: mitigations are of verdicts on pairs; --mode {spec.mode} measures none")


def _check_verdict(spec: AuditSpec, template: Template) -> None:
    """Raises InvalidInput for a verdict mode that the template does not have."""
    if spec.verdict != "auto" and spec.verdict not in template.modes:
        raise InvalidInput(
            f"--verdict: prompt {template.name} cannot be asked in mode {spec.verdict}; it has {', '.join(template.modes)}"
        )


def _form_template(spec: AuditSpec) -> Template:
    """The template of a mode other than pairwise; where none was named, the one of the mode's own name."""
    prompt = str(spec.prompt)
    template = templates.load(spec.mode if prompt == PAIRWISE else prompt, ".", _KINDS[spec.mode])
    _check_verdict(spec, template)
    return template


def _pointwise(questions: Questions, spec: AuditSpec) -> Pointwise:
    """The scores to ask for. Raises InvalidInput for a scale that the verdict mode cannot list."""
    scales = parse_scales(DEFAULT_SCALES if spec.scales is None else spec.scales)
    long = next((scale.name for scale in scales if len(scale.values) > MOST_BY_LOGPROB), None)
    if spec.verdict == "logprob" and long is not None:
        raise InvalidInput(
            f"--scales: {long} has more than the {MOST_BY_LOGPROB} numbers that --verdict logprob can list; use json or text"
        )
    return Pointwise(questions, _form_template(spec), scales, spec.against_pairwise, spec.gold_exact)


def check_keys(endpoints: Mapping[str, Endpoint], environment: Mapping[str, str] = os.environ) -> None:
    """Raises InvalidInput for an environment variable that an endpoint names and that is not set. No value is shown."""
    for endpoint in endpoints.values():
        for field, variable in endpoint.variables():
            if not environment.get(variable):
                name, _, key = field.partition(".")
                raise InvalidInput(
                    f"{OPTIONS[name]}{f' {key}' if key else ''}: environment variable {variable} is not set; set it to the endpoint's key"
                )


# -- reward models: judges that score one text at a time ---------------------------------------------------------------


def chosen_reward(reward: str, prompt: str | None) -> RewardJudgeSpec:
    """The block of ``ROUTE[,KEY=VALUE…]``, with keys of an experiment's reward judge and no endpoint yet. ``prompt``: a
    template of kind reward, None for the conversation. Raises InvalidInput."""
    route, *parts = (part.strip() for part in reward.split(","))
    raw: dict[str, object] = {"endpoint": _ANY_ENDPOINT, "route": route, "prompt": prompt}
    for part in parts:
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if key not in _REWARD_KEYS or not sign:
            raise InvalidInput(f"--reward: {part!r:.60}: give ROUTE,KEY=VALUE with the keys {', '.join(_REWARD_KEYS)}{near(key, _REWARD_KEYS)}; {_REWARD_EXAMPLE}")  # fmt: skip
        raw[key] = value if key == "score" else _number(value)
    try:
        block = RewardJudgeSpec.model_validate(raw)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = f"{problem['loc'][0]}: " if problem["loc"] else ""
        raise InvalidInput(f"--reward: {field}{sentence(problem)}; {_REWARD_EXAMPLE}") from None
    if block.prompt is not None:
        templates.load(block.prompt, ".", "reward")
    return block


def _number(value: str) -> int | float | str:
    """The number that a text is; any other text stays as it is, and the block refuses it."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(value)
    return value


def _check_with_reward(spec: AuditSpec) -> None:
    """Raises InvalidInput for options that only judges that write replies have."""
    for is_given, option, why in (
        (
            spec.mode != "pairwise",
            "--mode",
            f"a reward model has its own way of scoring; --mode {spec.mode} asks a model in words",
        ),
        (spec.verdict != "auto", "--verdict", "a score is a number, and not read from words"),
        (spec.repeats != 1, "--repeats", "a text is scored once"),
        (spec.temperature != 0.0, "--temperature", "nothing is sampled; --reward ROUTE,temperature=T divides scores"),
        (spec.edit_model, "--edit-model", "the endpoint of a reward model writes no text"),
        (
            spec.mitigate,
            "--mitigate",
            "each text is scored alone, so there is no order to average over and no prompt to mend",
        ),
    ):
        if is_given:
            raise InvalidInput(f"{option}: not with --reward: {why}")


# -- probes, mitigations, and the models that they ask -----------------------------------------------------------------


def chosen_probes(probes: str | Sequence[str], edit_model: str | None) -> tuple[str, ...]:
    """The probes named, in the order of PROBES. ``probes``: names, in lists or with commas, ``none``, or ``all`` (those by
    rule, and with ``edit_model`` those that a model writes).

    Raises InvalidInput for an unknown name, for a probe that needs a model where ``edit_model`` names none, and for a model
    that no probe needs.
    """
    words = [probes] if isinstance(probes, str) else list(probes)
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if names == ["none"]:
        names = []
    elif names == ["all"]:
        names = list(PROBES if edit_model else RULE_PROBES)
    for name in names:
        if name not in PROBES:
            raise InvalidInput(
                f"--probes: {name!r} is no probe{near(name, tuple(PROBES))}; give none, all, or a list of {', '.join(PROBES)}"
            )
        if PROBES[name].kind == "model" and not edit_model:
            raise InvalidInput(f"--probes: a model writes the edits of {name}; name it with --edit-model")
    if edit_model and not any(PROBES[name].kind == "model" for name in names):
        raise InvalidInput("--edit-model writes the edits of model_padding and model_paraphrase; name one in --probes")
    return tuple(name for name in PROBES if name in names)


def _rubrics(judges: Mapping[str, ModelJudgeSpec], template: Template) -> dict[str, ModelJudgeSpec]:
    """The same judges asked by the rubric. The rubric asks for reasons first, so that the first token is no verdict."""
    if template.name == analysis.RUBRIC:
        raise InvalidInput(
            f"--mitigate rubric: --prompt {template.name} is that rubric already; nothing differs to measure"
        )
    return {
        f"{name}#{analysis.RUBRIC}": judge.model_copy(
            update={"prompt": analysis.RUBRIC, "verdict": "auto" if judge.verdict == "logprob" else judge.verdict}
        )
        for name, judge in judges.items()
    }


def _price(pair: tuple[float, float] | None) -> Price:
    """A price by --price; none is stated where it is None."""
    return valid(Price, {"input": pair[0], "output": pair[1]}, "--price") if pair else Price()


def _editor(probes: Sequence[str], model: str | None, endpoints: Mapping[str, Endpoint], price: Price) -> Editor | None:
    """The model that writes the probes' edits: a judge's endpoint where it is that model, else the first one's address."""
    prompts = {name: templates.load(name, ".", "edit") for name in probes if PROBES[name].kind == "model"}
    if not prompts or model is None:
        return None
    if model in endpoints:
        return Editor(model, endpoints[model], prompts)
    first = next(iter(endpoints.values()))
    return Editor(EDITOR, first.model_copy(update={"model": model, "price": price}), prompts)
