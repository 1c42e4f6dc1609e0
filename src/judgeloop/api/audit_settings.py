"""What ``judgeloop.audit`` is given, checked and hashed before any call: who is asked what, where and how."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from judgeloop import auditing, templates
from judgeloop.api import audit_reward
from judgeloop.auditing import mitigating
from judgeloop.auditing.asking import Editor
from judgeloop.auditing.listwise import listwise
from judgeloop.auditing.pointwise import Pointwise
from judgeloop.auditing.questions import Questions, questions
from judgeloop.auditing.rated import Form
from judgeloop.errors import InvalidInput
from judgeloop.experiment import Block, Endpoint, ModelJudge, Price, RewardJudge
from judgeloop.interchange import load_columns, read_pairs
from judgeloop.interchange.cells import STDIN, Input
from judgeloop.interchange.columns import near
from judgeloop.interchange.sets import read_sets
from judgeloop.judging.edits import PROBES, RULE_PROBES
from judgeloop.judging.verdicts import MOST_BY_LOGPROB
from judgeloop.records import canonical
from judgeloop.scales import parse_all
from judgeloop.templates import Kind, Template

MODES = ("pairwise", "pointwise", "listwise")
DEFAULT_SCALES = "1-10,10-1"
"""The reversed scale is to a score what the swapped order is to a pair: it shows what the numbers themselves pull."""
PAIRWISE = "pairwise"
_KINDS: dict[str, Kind] = {"pointwise": "score", "listwise": "choice"}
EDITOR = "edits"
"""The name under which the model that writes edits is known, where no judge is that model."""

OPTIONS = {
    "base_url": "--base-url", "engine": "--engine", "model": "--model", "concurrency": "--concurrency", "api_key_env": "--api-key-env",
    "threads": "--threads", "timeout_s": "--timeout", "attempts": "--attempts", "max_tokens": "--max-tokens", "price": "--price", "input": "--price",
    "output": "--price", "extra_headers": "--header", "extra_query": "--query", "extra_body": "--extra-body",
    "prompt": "--prompt", "verdict": "--verdict", "repeats": "--repeats", "temperature": "--temperature",
}  # fmt: skip
ONLY_SPEED = ("concurrency", "api_key_env", "timeout_s", "attempts", "price", "threads")
"""What changes no answer, and may change between two sessions of one audit."""


@dataclass(frozen=True)
class Settings:
    """An audit that may begin. ``judges`` are by name, ``endpoints`` by the model's; a judge's name is its model's, and
    ``<model>#rubric_scores`` where it is asked by the rubric, as the mitigation of that name."""

    name: str
    asked: Questions
    judges: Mapping[str, ModelJudge]
    endpoints: Mapping[str, Endpoint]
    template: Template
    probes: tuple[str, ...]
    editor: Editor | None
    seed: int
    sources: Mapping[str, Any]
    mitigate: tuple[str, ...] = ()
    form: Form | None = None
    """What is asked where that is not pairs alone; None in mode pairwise."""
    reward: RewardJudge | None = None
    """How the judges score where they are reward models, but for the endpoint, which is each judge's own."""
    gold_exact: bool = False
    """Gold cannot err; it changes the estimates and no answer."""

    @property
    def pairwise(self) -> bool:
        """Whether the pairs are shown, in both orders."""
        return self.form is None or self.form.against

    @property
    def calls(self) -> int:
        """Calls of one judge, without probes and trials."""
        return (self.asked.calls if self.pairwise else 0) + (self.form.calls if self.form else 0)

    @property
    def bases(self) -> tuple[str, ...]:
        """The judges that are audited; the others are their rubrics, which are shown no probe."""
        return tuple(name for name in self.judges if name in self.endpoints)

    def template_of(self, judge: str) -> Template:
        """The prompt that a judge is asked by."""
        return self.template if judge in self.endpoints else templates.load(mitigating.RUBRIC)

    @property
    def rules(self) -> tuple[str, ...]:
        """The probes that need no model."""
        return tuple(name for name in self.probes if PROBES[name].kind == "rule")

    def record(self) -> dict[str, Any]:
        """What was asked, for experiment.yaml: settings that are not the default."""
        judge = next(iter(self.judges.values()))
        endpoints = [self.endpoints[name].model_dump(mode="json", exclude_defaults=True) for name in self.bases]
        edits = {"edit_model": self.editor.settings.model} if self.editor else {}
        asked = {"prompt", "verdict", "repeats", "temperature", "max_tokens"}
        how = judge.model_dump(mode="json", include=asked) if self.reward is None else {"reward": self._reward()}
        return {
            "name": self.name,
            "audit": {
                **{role: source["name"] for role, source in self.sources.items()},
                "judges": endpoints,
                **how,
                "probes": list(self.probes),
                **edits,
                **({"mitigate": list(self.mitigate)} if self.mitigate else {}),
                **(self.form.record() if self.form else {}),
                **({"gold_exact": True} if self.gold_exact else {}),
                "seed": self.seed,
            },
        }

    def _reward(self) -> dict[str, Any]:
        return {} if self.reward is None else self.reward.model_dump(mode="json", exclude={"kind", "endpoint"})

    def identity(self) -> str:
        """SHA-256 of all that the answers may depend on: without what only says how fast, how dear and with which key a model
        is asked, and with the pairs as they were read, whatever kind of file bore them. Mitigations re-score the same answers,
        and a rubric's calls are its own: they may be added to an audit that is done."""
        endpoints = {name: one.model_dump(mode="json", exclude=set(ONLY_SPEED)) for name, one in self.endpoints.items()}
        asked = {
            "judges": [self.judges[name].model_dump(mode="json") for name in self.bases], "endpoints": endpoints,
            "probes": list(self.probes), "edits": self.editor.endpoint if self.editor else "", "seed": self.seed,
            "templates": [self.template.sha256, *(t.sha256 for t in (self.editor.templates.values() if self.editor else ()))],
            "pairs": [
                [pair.item_id, pair.pair_id, dict(pair.values), {name: str(cell) for name, cell in pair.kept.items()}]
                for pair in self.asked.known.values()
            ],
            **({"form": self.form.identity()} if self.form else {}),
            **({"reward": self._reward(), "template": self._reward_template()} if self.reward else {}),
        }  # fmt: skip
        return "sha256:" + hashlib.sha256(canonical({"audit": asked}).encode("utf-8", "replace")).hexdigest()

    def _reward_template(self) -> str:
        named = self.reward is not None and self.reward.prompt
        return templates.load(named, ".", "reward").sha256 if named else ""


def settings(
    pairs: Input,
    *,
    base_url: str | Sequence[str] | None = None,
    model: str | Sequence[str],
    engine: str | None = None,
    api_key_env: str | Sequence[str] | None = None,
    price: tuple[float, float] | Sequence[tuple[float, float]] | None = None,
    endpoint: Mapping[str, Any] | None = None,
    prompt: str = "pairwise",
    verdict: str = "auto",
    repeats: int = 1,
    temperature: float = 0.0,
    max_tokens: int | None = None,
    probes: str | Sequence[str] = "none",
    edit_model: str | None = None,
    concurrency: int = 16,
    seed: int = 0,
    columns: str | Path | Mapping[str, Any] | None = None,
    mitigate: str | Sequence[str] = (),
    mode: str = "pairwise",
    scales: str | None = None,
    against_pairwise: bool = False,
    reward: str | None = None,
    gold_exact: bool = False,
) -> Settings:
    """See ``judgeloop.audit``. Reads the pairs and checks everything; asks nothing. Raises InvalidInput."""
    models = [model] if isinstance(model, str) else list(model)
    if not models:
        raise InvalidInput("--model: name the model that judges")
    twice = next((name for name in models if models.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"--model: {twice} is named twice; each judge once")
    if seed < 0:
        raise InvalidInput(f"--seed must be 0 or more, not {seed}")
    scoring = None
    if reward is not None:
        audit_reward.refuse(
            mode=mode, verdict=verdict, repeats=repeats, temperature=temperature, edit_model=edit_model, mitigate=mitigate
        )  # fmt: skip
        scoring = audit_reward.chosen_reward(reward, None if str(prompt) == PAIRWISE else str(prompt))
        prompt = PAIRWISE
    _check_place(base_url, engine, scoring is not None)
    urls = _for_each(models, base_url, "--base-url")
    keys = _for_each(models, api_key_env, "--api-key-env")
    prices = _for_each(models, _as_list(price), "--price")
    shared = {"concurrency": concurrency, **(endpoint or {})}
    endpoints, judges = {}, {}
    for name, url, key, paid in zip(models, urls, keys, prices, strict=True):
        cost = _valid(Price, {"input": paid[0], "output": paid[1]}) if paid else Price()
        endpoints[name] = _valid(
            Endpoint, {"base_url": url, "engine": engine, "model": name, "api_key_env": key, "price": cost, **shared}
        )
        judges[name] = _valid(
            ModelJudge,
            {
                "endpoint": name, "prompt": str(prompt) if mode == "pairwise" else PAIRWISE, "verdict": verdict, "repeats": repeats,
                "temperature": temperature, "max_tokens": max_tokens,
            },
        )  # fmt: skip
    _check_mode(mode, scales, against_pairwise, probes, mitigate)
    template = templates.load(str(prompt) if mode == "pairwise" else PAIRWISE, ".", "judge")
    if verdict != "auto" and verdict not in template.modes:
        raise InvalidInput(
            f"--verdict: prompt {template.name} cannot be asked in mode {verdict}; it has {', '.join(template.modes)}"
        )
    wanted = mitigating.wanted(mitigate)
    mitigating.refuse(wanted, judges=len(models), repeats=repeats, asks=True)
    if "rubric" in wanted:
        judges |= _rubrics(judges, template)
    chosen = chosen_probes(probes, edit_model)
    editor = _editor(chosen, edit_model, endpoints)
    if editor is not None and editor.endpoint not in endpoints:
        endpoints[editor.endpoint] = editor.settings
    if mode == "listwise":
        asked = Questions({}, (), {}, repeats)
        form: Form | None = listwise(
            read_sets(pairs, load_columns(columns)), _form_template(mode, prompt, verdict), repeats
        )
    else:
        asked = questions(read_pairs(pairs, load_columns(columns)), repeats)
        form = _pointwise(asked, prompt, verdict, scales, against_pairwise) if mode == "pointwise" else None
    is_file = not isinstance(pairs, pd.DataFrame) and str(pairs) != STDIN
    name = f"{Path(str(pairs)).stem}-audit" if is_file else "audit"
    found = auditing.sources_of(pairs, None, columns)
    sources = {"pairs": found.pop("verdicts"), **found}
    return Settings(
        name, asked, judges, endpoints, template, chosen, editor, seed, sources, wanted, form, scoring, gold_exact
    )


def _check_place(base_url: str | Sequence[str] | None, engine: str | None, scores: bool) -> None:
    """The judges answer at an address, or an engine is started that does what they are asked for."""
    if not base_url and engine is None:
        raise InvalidInput("--base-url: say where the judge answers, or start it with --engine")
    if base_url and engine is not None:
        raise InvalidInput("--engine: judgeloop starts the model itself; leave --base-url out")
    if engine == "transformers" and not scores:
        raise InvalidInput("--engine transformers: a sequence classifier scores texts; give --reward classify too")
    if engine == "llama_cpp" and scores:
        raise InvalidInput("--reward: engine llama_cpp scores no texts; use --engine transformers, or --base-url")


def _check_mode(
    mode: str, scales: str | None, against: bool, probes: str | Sequence[str], mitigate: str | Sequence[str]
) -> None:
    if mode not in MODES:
        raise InvalidInput(f"--mode: must be one of {', '.join(MODES)}, not {mode!r:.40}")
    if mode != "pointwise":
        for given, option in ((scales, "--scales"), (against, "--against-pairwise")):
            if given:
                raise InvalidInput(f"{option}: only --mode pointwise has it")
    if mode != "pairwise":
        named = [probes] if isinstance(probes, str) else list(probes)
        if named not in ([], ["none"]):
            raise InvalidInput(f"--probes: a probe is a pair of a text and its edit; --mode {mode} asks none")
        if mitigate:
            raise InvalidInput(f"--mitigate: mitigations are of verdicts on pairs; --mode {mode} measures none")


def _form_template(mode: str, prompt: str, verdict: str) -> Template:
    """The template of a mode other than pairwise; where none was named, the one of the mode's own name."""
    template = templates.load(mode if str(prompt) == PAIRWISE else str(prompt), ".", _KINDS[mode])
    if verdict != "auto" and verdict not in template.modes:
        raise InvalidInput(
            f"--verdict: prompt {template.name} cannot be asked in mode {verdict}; it has {', '.join(template.modes)}"
        )
    return template


def _pointwise(asked: Questions, prompt: str, verdict: str, scales: str | None, against: bool) -> Pointwise:
    found = parse_all(DEFAULT_SCALES if scales is None else scales)
    long = next((one.name for one in found if len(one.values) > MOST_BY_LOGPROB), None)
    if verdict == "logprob" and long is not None:
        raise InvalidInput(
            f"--scales: {long} has more than the {MOST_BY_LOGPROB} numbers that --verdict logprob can list; use json or text"
        )
    return Pointwise(asked, _form_template("pointwise", prompt, verdict), found, against)


def chosen_probes(probes: str | Sequence[str], edit_model: str | None) -> tuple[str, ...]:
    """``none``, ``all`` (those by rule, and with ``edit_model`` those that a model writes), or names, in the order of PROBES.

    Raises InvalidInput for a name that is none, and for one that needs a model where none is named.
    """
    given = [probes] if isinstance(probes, str) else list(probes)
    names = [name.strip() for one in given for name in one.split(",") if name.strip()]
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


def check_keys(endpoints: Mapping[str, Endpoint], environment: Mapping[str, str] = os.environ) -> None:
    """Every environment variable that an endpoint names is set; else InvalidInput. Nothing is printed of its value."""
    for one in endpoints.values():
        for field, variable in one.variables():
            if not environment.get(variable):
                name, _, key = field.partition(".")
                raise InvalidInput(
                    f"{OPTIONS[name]}{f' {key}' if key else ''}: environment variable {variable} is not set; set it to the endpoint's key"
                )


def check_price(endpoints: Mapping[str, Endpoint]) -> None:
    """A limit of cost needs a price of every model. Raises InvalidInput."""
    free = [one.model for one in endpoints.values() if not (one.price.input or one.price.output)]
    if free:
        raise InvalidInput(
            f"--max-cost: no price is stated for {', '.join(free)}, so no cost can be counted; give --price IN,OUT (USD per million tokens)"
        )


def _rubrics(judges: Mapping[str, ModelJudge], template: Template) -> dict[str, ModelJudge]:
    """The same judges asked by the rubric; it reasons first, so that it has no verdict in a first token."""
    if template.name == mitigating.RUBRIC:
        raise InvalidInput(
            f"--mitigate rubric: --prompt {template.name} is that rubric already; nothing differs to measure"
        )
    return {
        f"{name}#{mitigating.RUBRIC}": one.model_copy(
            update={"prompt": mitigating.RUBRIC, "verdict": "auto" if one.verdict == "logprob" else one.verdict}
        )
        for name, one in judges.items()
    }


def _editor(probes: Sequence[str], model: str | None, endpoints: Mapping[str, Endpoint]) -> Editor | None:
    written = [name for name in probes if PROBES[name].kind == "model"]
    if not written or model is None:
        return None
    asked = {name: templates.load(name, ".", "edit") for name in written}
    if model in endpoints:
        return Editor(model, endpoints[model], asked)
    first = next(iter(endpoints.values()))
    return Editor(EDITOR, first.model_copy(update={"model": model, "price": Price()}), asked)


def _as_list(price: Any) -> Any:
    """One price, or one a model."""
    return [price] if price is not None and price and not isinstance(price[0], list | tuple) else price


def _for_each(models: Sequence[str], given: Any, option: str) -> list[Any]:
    """One value for all models, or one each in their order."""
    values = [given] if given is None or isinstance(given, str) else list(given) or [None]
    if len(values) not in (1, len(models)):
        raise InvalidInput(
            f"{option}: give one for all, or one for each of the {len(models)} models, not {len(values)}"
        )
    return values * len(models) if len(values) == 1 else values


def _valid(kind: type[Block], raw: Mapping[str, Any]) -> Any:
    """The block, or InvalidInput that names the option."""
    try:
        return kind.model_validate(dict(raw))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = [str(part) for part in problem["loc"]]
        key = place[0] if place else ""
        message = str(problem["msg"]).removeprefix("Value error, ")
        option = OPTIONS.get(key) or key or "--base-url"
        raise InvalidInput(f"{option}: {message[:1].lower()}{message[1:]}") from None
