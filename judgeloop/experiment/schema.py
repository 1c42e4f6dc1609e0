"""The experiment: what a YAML file may say, every key with its default and a line on it.

From the small blocks to the whole: endpoints, judges, policies, signals, the training set's strategy, panels, and ``Experiment``
last. Every block is frozen and refuses unknown keys. Settings are stored with the run and shown in its report, so a key may
only be named in them (``${VARIABLE}``, ``api_key_env``), never written; what looks like one is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from judgeloop.errors import InvalidInput
from judgeloop.experiment import options
from judgeloop.experiment.options import Option
from judgeloop.records import PROBE_NAMES, ProbeName, RewardRoute, canonical
from judgeloop.text.features import FeatureName
from judgeloop.text.templates import parse_scale

# YAML's own types: neither true nor "3" is a number, and 3.0 is no count.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]

Engine = Literal["llama_cpp", "transformers"]

DEFAULT_KEY = "OPENAI_API_KEY"
"""The variable whose value is the key at OpenAI's own address, where an endpoint names none."""
_OPENAI_HOST = "api.openai.com"


class Block(BaseModel):
    """A part of the experiment: frozen, with no keys but its own."""

    # Built when first used: a command needs few of the blocks.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


class Price(Block):
    """US dollars per million tokens. None is guessed: where none is stated the cost is not known."""

    input: Number = Field(0.0, ge=0)
    """Per million prompt tokens."""
    output: Number = Field(0.0, ge=0)
    """Per million completion tokens."""
    training: Number = Field(0.0, ge=0)
    """Per million tokens of a fine-tuning job (policy kind `hosted`), each epoch counted."""

    @property
    def stated(self) -> bool:
        """Whether a price was given, be it 0; without one the cost of a call is not known."""
        return bool(self.model_fields_set)


class _Address(Block):
    """Where a model answers, under which name, for what price."""

    base_url: str | None = None
    """OpenAI-compatible base URL, as http://127.0.0.1:8000/v1. Leave out with `engine`."""
    engine: Engine | None = None
    """Start this engine on a free loopback port for the run: llama_cpp (needs the extra judgeloop[local]), or transformers for a reward judge (judgeloop[train])."""
    model: str
    """The model's name, as the endpoint knows it. With engine llama_cpp: smollm2-135m, or the path of a .gguf file; with transformers: the folder or name of a sequence classifier."""
    api_key_env: Annotated[str | None, Option(answers=False)] = None
    """Name of the environment variable that holds the key; default OPENAI_API_KEY at OpenAI's own address (https://api.openai.com), no key elsewhere."""
    price: Annotated[Price, Option(answers=False)] = Price()
    """What a token costs."""
    max_tokens: Whole = Field(512, ge=1)
    """Longest reply in tokens (logprob verdicts ask for one)."""

    @field_validator("model")
    @classmethod
    def _is_no_key(cls, model: str) -> str:
        if _KEY_FORM.search(model):
            raise ValueError("must be the model's name, not a key; name the variable that holds the key by api_key_env")
        return model

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, api_key_env: str | None) -> str | None:
        if api_key_env and not is_variable_name(api_key_env):
            # What stands here may be the key itself: it is not shown.
            raise ValueError(
                "must be the name of an environment variable, as JUDGE_KEY, not the key itself; export the key under that name"
            )
        return api_key_env


class CallSettings(Block):
    """How a model is called: how fast, how patiently, and what every request carries."""

    concurrency: Annotated[Whole, Option(answers=False)] = Field(16, ge=1, le=4096)
    """Most calls in flight at once, for each model."""
    per_minute: Annotated[Number | None, Option(answers=False)] = Field(None, gt=0)
    """Most calls sent a minute to each model, evenly; default what its answers' headers allow, and its refusals teach."""
    timeout_s: Annotated[Number, Option(answers=False, flag="--timeout")] = Field(120.0, gt=0)
    """Seconds until a call counts as timed out."""
    attempts: Annotated[Whole, Option(answers=False)] = Field(6, ge=1, le=20)
    """Most tries of a call at transport faults and malformed replies, the first included; refusals for a rate limit (429) are none."""
    patience_s: Annotated[Number, Option(answers=False, flag="--patience")] = Field(3600.0, ge=0)
    """Seconds for which an endpoint that refuses every call for its rate limit is waited for; then the command stops (exit 4, resumable)."""
    threads: Annotated[Whole | None, Option(answers=False)] = Field(None, ge=1, le=1024)
    """Engine only: threads; default the cores of this machine."""
    context: Annotated[Whole, Option(answers=True)] = Field(4096, ge=256)
    """Engine only: context tokens a call may use."""
    max_tokens_field: Annotated[Literal["max_tokens", "max_completion_tokens"], Option(answers=True)] = "max_tokens"
    """The request's name for the longest reply; reasoning models want max_completion_tokens."""
    seed_field: Annotated[Literal["seed", "random_seed", "none"], Option(answers=True)] = "seed"
    """The request's name for the seed of what is drawn above temperature 0; none leaves it out, for endpoints that refuse it."""
    send_temperature: Annotated[Switch, Option(answers=True, flag="--no-temperature")] = True
    """False leaves `temperature` out of the request, for models that refuse it."""
    top_logprobs: Annotated[Whole, Option(answers=True)] = Field(20, ge=2, le=100)
    """Most likely tokens asked for in logprob verdicts; some endpoints allow 5 only (judgeloop doctor says how many)."""
    min_label_mass: Annotated[Number, Option(answers=True)] = Field(0.05, ge=0, le=1)
    """Least probability that the offered labels must hold at the first token for a logprob reply to count; below it, the reply is unscored (low_mass)."""
    min_trial_mass: Annotated[Number, Option(answers=True)] = Field(0.3, ge=0, le=1)
    """Least such probability at the trial question for auto to take logprob verdicts; below it, the next mode is tried."""
    extra_headers: Annotated[
        dict[str, str], Option(answers=True, flag="--header", several=True, form="'Name: value'", parse=options.header)
    ] = {}
    """Sent with every call. `${NAME}` is replaced by that environment variable and is stored as written."""
    extra_query: Annotated[
        dict[str, str], Option(answers=True, flag="--query", several=True, form="NAME=VALUE", parse=options.query)
    ] = {}
    """Query parameters of every call (Azure: api-version); `${NAME}` as in headers."""
    extra_body: Annotated[dict[str, Any], Option(answers=True, form="JSON object", parse=options.json_object)] = {}
    """Body fields of every call (vLLM: top_k, chat_template_kwargs …); part of the recorded request."""

    @field_validator("extra_headers", "extra_query")
    @classmethod
    def _names_keys(cls, extra: dict[str, str]) -> dict[str, str]:
        for name, value in extra.items():
            if is_written_key(name, value):
                raise ValueError(
                    f"{name} holds a key as it is, which would be stored with the run; write ${{VARIABLE}} in its place and set that environment variable"
                )
        return extra

    @field_validator("extra_body")
    @classmethod
    def _is_json(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical(extra_body).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "must hold what JSON can: text, finite numbers, true/false, null, lists, mappings"
            ) from None
        for place in written_keys(extra_body):
            raise ValueError(
                f"{place} holds a key, and bodies are recorded; give it by api_key_env, or by a header or query parameter with ${{VARIABLE}}"
            )
        return extra_body


def address_fault(base_url: str) -> str:
    """What is wrong with a base URL; empty where nothing is."""
    if not base_url.startswith(("http://", "https://")):
        return "base_url must start with http:// or https://, as http://127.0.0.1:8000/v1"
    # It would be stored with the run, and shown.
    if re.match(r"[^/]*//[^/?#]*@", base_url):
        return "base_url must hold no user name or password; give them by extra_headers with ${VARIABLE}, or by api_key_env"
    if _KEY_FORM.search(base_url):
        return "base_url must hold no key; give it by api_key_env, or by extra_headers or extra_query with ${VARIABLE}"
    if "?" in base_url or "#" in base_url:
        return "base_url must end before ? and #, for the calls' own paths are put behind it; give its query by extra_query, a key there as ${VARIABLE}"
    return ""


class Endpoint(CallSettings, _Address):
    """Where a model answers, an OpenAI-compatible base URL or an engine that judgeloop starts itself, and how it is called."""

    client: Annotated[Literal["openai"] | None, Option(answers=False)] = None
    """openai: calls travel by the openai package, slower, in place of judgeloop's own line; from Python, `client=` takes one of your own."""

    @model_validator(mode="after")
    def _one_place(self) -> Endpoint:
        if (self.base_url is None) == (self.engine is None):
            raise ValueError("give base_url or engine, one of them")
        if self.base_url is not None and (fault := address_fault(self.base_url)):
            raise ValueError(fault)
        return self

    @property
    def is_priced(self) -> bool:
        """Whether the cost of its calls is known: by a stated price, or because this machine answers."""
        return self.price.stated or self.engine is not None

    @property
    def key_variable(self) -> str:
        """The environment variable whose value is sent as the key: the one named, else OPENAI_API_KEY at OpenAI's own address
        (``at_openai``), else none (empty)."""
        return self.api_key_env or (DEFAULT_KEY if self.at_openai else "")

    @property
    def at_openai(self) -> bool:
        """Whether this is OpenAI's own address: https, api.openai.com and what is below it, as eu.api.openai.com."""
        try:
            address = urlsplit(self.base_url or "")
            is_usual = address.scheme == "https" and address.port in (None, 443)
        except ValueError:
            return False
        return is_usual and f".{address.hostname}".endswith(f".{_OPENAI_HOST}")

    def variables(self) -> list[tuple[str, str]]:
        """(field, environment variable) of every variable that these settings name."""
        variables = [("api_key_env", self.api_key_env)] if self.api_key_env else []
        for field in ("extra_headers", "extra_query"):
            for name, value in getattr(self, field).items():
                variables += [(f"{field}.{name}", variable) for variable in variables_in(value)]
        return variables


def by_kind(default: str) -> Discriminator:
    """A union's discriminator: a mapping is the block that its ``kind`` names, ``default`` where it names none."""
    return Discriminator(lambda raw: raw.get("kind", default) if isinstance(raw, dict) else getattr(raw, "kind", None))


VerdictMode = Literal["auto", "logprob", "json", "text"]


class ModelJudgeSpec(Block):
    """A model that is asked for a verdict, always in both orders."""

    kind: Literal["model"] = "model"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    endpoint: str
    """A key of `endpoints`."""
    prompt: str = "pairwise"
    """A shipped template's name (pairwise, rubric, few_shot, chain_of_thought) or a template file."""
    verdict: VerdictMode = "auto"
    """How the verdict is read: logprob (soft), json, text, or auto (tries them in that order)."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""
    temperature: Number = Field(0.0, ge=0)
    """Sampling temperature of the judge."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest reply in json and text mode; default the endpoint's."""


class PointwiseJudgeSpec(Block):
    """A model that is asked for the score of each text alone; the text with the better score is picked, equal scores are a tie.

    A text is scored once and both orders follow from the two scores, so that no order can matter.
    """

    kind: Literal["pointwise"] = "pointwise"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    endpoint: str
    """A key of `endpoints`."""
    prompt: str = "pointwise"
    """A shipped template's name (pointwise, pointwise_rubric) or a template file of kind score."""
    scale: str = "1-10"
    """WORST-BEST, whole numbers; on a reversed scale, as 10-1, a text's score is less its points, so that larger is better."""
    verdict: VerdictMode = "auto"
    """How the score is read: logprob (a mean over the likeliest numbers), json, text, or auto (tries them in that order)."""
    temperature: Number = Field(0.0, ge=0)
    """Sampling temperature of the judge."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest reply in json and text mode; default the endpoint's."""

    @property
    def repeats(self) -> int:
        """A score is asked once."""
        return 1

    @field_validator("scale")
    @classmethod
    def _is_a_scale(cls, scale: str) -> str:
        try:
            return parse_scale(scale).name
        except InvalidInput as error:
            raise ValueError(str(error).removeprefix("--scales: ")) from None


AskedJudgeSpec = ModelJudgeSpec | PointwiseJudgeSpec
"""A judge that a chat model is, by its replies."""


class RewardJudgeSpec(Block):
    """A reward model that scores each text alone: P(first) = s((score of the first − score of the second) / temperature).

    A text is scored once and both orders follow from the two scores, so that no order can matter. Equal scores are a tie.
    """

    kind: Literal["reward"] = "reward"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    endpoint: str
    """A key of `endpoints`, with a base_url (with or without its /v1) or engine: transformers."""
    route: RewardRoute = "classify"
    """The server's route (vLLM's names): classify or pooling score one conversation, score or rerank a prompt and a text."""
    prompt: str | None = None
    """A template of kind reward (shipped: reward, or a file) that writes prompt and text as one string; default the conversation itself, in the model's own chat template. Only with classify and pooling."""
    score: Literal["raw", "served", "probability"] = "raw"
    """What the number is: raw, as the model was trained (asks `use_activation: false`) · served, as the server gives it · probability, as served, a p whose log-odds log(p / (1 − p)) are the score."""
    label: Whole | None = Field(None, ge=0)
    """Which number is the score, counted from 0, where the model gives several; default its only one."""
    temperature: Number = Field(1.0, gt=0)
    """Divides the difference of two scores. 1 is the Bradley–Terry model, by which reward models are trained."""

    @property
    def repeats(self) -> int:
        """A score is asked once."""
        return 1

    @model_validator(mode="after")
    def _pairs_have_no_template(self) -> RewardJudgeSpec:
        if self.prompt is not None and self.route in ("score", "rerank"):
            raise ValueError(
                f"route {self.route} sends prompt and text apart; leave `prompt` out, or use classify or pooling"
            )
        return self


class RandomJudgeSpec(Block):
    """A fair coin for every pair of texts, alike in both orders: the control for drift that no judge causes."""

    kind: Literal["random"] = "random"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class GoldJudgeSpec(Block):
    """Prefers the candidate that matches the item's reference; both, neither or no reference: tie."""

    kind: Literal["gold"] = "gold"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    endpoint: str | None = None
    """A key of `endpoints`; only for items with `match: judge`, where every text of every arm is asked about, once."""
    prompt: str = "reference_match"
    """Template that asks whether a text agrees with the reference; only for items with `match: judge`."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class RuleJudgeSpec(Block):
    """Prefers the text with more (or less) of one feature; equal: tie. No model is asked.

    Its taste is known, so that its arm is a positive control: it shows whether the run could have seen such a taste.
    """

    kind: Literal["rule"] = "rule"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    feature: FeatureName
    """What the rule looks at: length, or a style feature per 100 tokens."""
    prefer: Literal["more", "less"] = "more"
    """Which text it takes: the one with more of the feature, or with less."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class PlantedJudgeSpec(Block):
    """A judge with stated coefficients, computed here and not asked of a model: for known truth.

    P(first) = s(position + length·Δlog2 tokens + Σ feature·Δfeature + quality·Δmatch + noise), Δ = first − second.
    """

    kind: Literal["planted"] = "planted"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    position: Number = 0.0
    """Log-odds for the first slot."""
    length: Number = 0.0
    """Log-odds per doubling of tokens."""
    features: dict[str, Number] = {}
    """Log-odds per unit of a feature (per 100 tokens): headings, bold, list_items …"""
    quality: Number = 0.0
    """Log-odds for matching the reference."""
    noise: Number = Field(0.0, ge=0)
    """Standard deviation of the log-odds' noise, a draw a presentation."""
    unscored: Number = Field(0.0, ge=0, le=1)
    """Share of presentations without a verdict."""
    temperature0: Switch = False
    """True: always the more probable slot, no soft verdict. False: soft verdicts unless `hard`."""
    hard: Switch = False
    """True: the slot is drawn with P(first), and no probability is shown."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class PanelJudgeSpec(Block):
    """The majority of several model judges; an even split is a tie."""

    kind: Literal["panel"] = "panel"
    """Who judges: model, pointwise, reward, random, gold, rule, planted or panel."""
    judges: tuple[ModelJudgeSpec, ...] = Field(min_length=2)
    """The members, each as a model judge."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged (by each member)."""

    @field_validator("judges")
    @classmethod
    def _repeats_belong_to_the_panel(cls, judges: tuple[ModelJudgeSpec, ...]) -> tuple[ModelJudgeSpec, ...]:
        if any(judge.repeats != 1 for judge in judges):
            raise ValueError("`repeats` belongs to the panel, not to its members")
        return judges


JudgeSpec = Annotated[
    Annotated[ModelJudgeSpec, Tag("model")]
    | Annotated[PointwiseJudgeSpec, Tag("pointwise")]
    | Annotated[RewardJudgeSpec, Tag("reward")]
    | Annotated[RandomJudgeSpec, Tag("random")]
    | Annotated[GoldJudgeSpec, Tag("gold")]
    | Annotated[RuleJudgeSpec, Tag("rule")]
    | Annotated[PlantedJudgeSpec, Tag("planted")]
    | Annotated[PanelJudgeSpec, Tag("panel")],
    by_kind("model"),
]


class PoolPolicySpec(Block):
    """`pool_size` drafts an item, made once; each generation draws from them with updated weights."""

    kind: Literal["pool"] = "pool"
    """Where candidates come from: pool, exemplar, command, trained or hosted."""
    endpoint: str
    """A key of `endpoints`."""
    prompt: str = "draft"
    """A shipped template's name or a template file."""
    temperature: Number = Field(1.0, ge=0)
    """Sampling temperature of the drafts."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest draft; default the endpoint's."""
    pool_size: Whole = Field(32, ge=2)
    """Drafts an item."""


class ExemplarPolicySpec(Block):
    """Every generation drafts anew; the training set's texts are in-context examples of the next drafts."""

    kind: Literal["exemplar"] = "exemplar"
    """Where candidates come from: pool, exemplar, command, trained or hosted."""
    endpoint: str
    """A key of `endpoints`."""
    prompt: str = "draft"
    """A shipped template's name or a template file."""
    temperature: Number = Field(1.0, ge=0)
    """Sampling temperature of the drafts."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest draft; default the endpoint's."""
    exemplars: Whole = Field(4, ge=1)
    """Texts of other items shown in a drafting prompt from generation 1 on."""


class CommandPolicySpec(Block):
    """Every generation drafts anew, from the model that your own command trained on this generation's preferences."""

    kind: Literal["command"] = "command"
    """Where candidates come from: pool, exemplar, command, trained or hosted."""
    endpoint: str
    """A key of `endpoints`: where generation 0 is drafted, and where trained models answer unless they say otherwise."""
    prompt: str = "draft"
    """A shipped template's name or a template file."""
    temperature: Number = Field(1.0, ge=0)
    """Sampling temperature of the drafts."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest draft; default the endpoint's."""
    command: Annotated[tuple[str, ...], Option(answers=False)] = Field(min_length=1)
    """The program and its arguments, run without a shell in the training's folder, which holds preferences.jsonl and training.json; it leaves model.json. A word that names a file, seen from the experiment's file, is passed as its absolute path. It may be mended until a training has ended."""
    timeout_s: Annotated[Number, Option(answers=False)] = Field(86400.0, gt=0)
    """Seconds until a training counts as failed."""
    at_once: Annotated[Whole, Option(answers=False)] = Field(1, ge=1)
    """Trainings that may run at the same time, over all arms and replicates."""


class HostedPolicySpec(Block):
    """Every generation drafts anew, from the model that the endpoint's fine-tuning service trained on this generation's
    preferences."""

    kind: Literal["hosted"] = "hosted"
    """Where candidates come from: pool, exemplar, command, trained or hosted."""
    endpoint: str
    """A key of `endpoints`: its model drafts generation 0 and is trained; trained models answer there too."""
    prompt: str = "draft"
    """A shipped template's name or a template file."""
    temperature: Number = Field(1.0, ge=0)
    """Sampling temperature of the drafts."""
    max_tokens: Whole | None = Field(None, ge=1)
    """Longest draft; default the endpoint's."""
    timeout_s: Annotated[Number, Option(answers=False)] = Field(86400.0, gt=0)
    """Seconds for which a job is waited for; it goes on, and the same command waits on."""
    at_once: Annotated[Whole, Option(answers=False)] = Field(1, ge=1)
    """Jobs that may run at the same time, over all arms and replicates."""


class TrainedPolicySpec(Block):
    """Every generation drafts anew, from a model that judgeloop trains here (LoRA, extra judgeloop[train]) on this
    generation's preferences; drafts are made in this process, or by a server that loads the adapters."""

    kind: Literal["trained"] = "trained"
    """Where candidates come from: pool, exemplar, command, trained or hosted."""
    base: str = Field(min_length=1)
    """The model that is trained: smollm2-135m, a .gguf file, or the folder or name of a causal language model."""
    endpoint: str = ""
    """A key of `endpoints`: a server of the base model that loads each adapter and drafts with it (vLLM); default: this process drafts."""
    prompt: str = "draft"
    """A shipped template's name or a template file."""
    temperature: Number = Field(1.0, ge=0)
    """Sampling temperature of the drafts."""
    max_tokens: Whole = Field(256, ge=1)
    """Longest draft."""
    batch: Whole = Field(32, ge=1)
    """Drafts that are made at once in this process; another number may change their last digits, and so the drafts."""
    context: Whole = Field(1024, ge=16)
    """Most tokens of a prompt with its text, in drafting and in training; more than max_tokens, unless a server drafts."""
    threads: Annotated[Whole | None, Option(answers=False)] = Field(None, ge=1, le=1024)
    """Threads of the processor; default its cores."""

    @model_validator(mode="after")
    def _drafts_fit(self) -> TrainedPolicySpec:
        if not self.endpoint and self.context <= self.max_tokens:
            raise ValueError(
                f"context, {self.context} tokens, leaves no room for a prompt beside max_tokens, {self.max_tokens}; give a larger context or a smaller max_tokens"
            )
        return self


PolicySpec = Annotated[
    Annotated[PoolPolicySpec, Tag("pool")]
    | Annotated[ExemplarPolicySpec, Tag("exemplar")]
    | Annotated[CommandPolicySpec, Tag("command")]
    | Annotated[TrainedPolicySpec, Tag("trained")]
    | Annotated[HostedPolicySpec, Tag("hosted")],
    by_kind("pool"),
]

LabelRule = Literal["raw", "swap_average", "consistent_only", "length_controlled"]
TrainingLabelRule = Literal["raw", "swap_average", "consistent_only"]


class BradleyTerrySignalSpec(Block):
    """A linear reward on text features, fitted to this generation's preferences by ridge logistic regression."""

    kind: Literal["bradley_terry"] = "bradley_terry"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    label_rule: LabelRule = "raw"
    """How picks become preferences; length_controlled is raw with the fitted length coefficient set to 0."""
    update: Literal["tilt", "best_of_n"] = "tilt"
    """Selection: tilt by exp(reward/tau), or the best of n = candidates_per_item."""
    tau: Number = Field(1.0, gt=0)
    """Temperature of the tilt."""
    ridge: Number = Field(1.0, ge=0)
    """Ridge penalty ½·ridge·‖coefficients‖² on the scaled features (the order column is not penalised)."""
    reference: Literal["previous", "base"] = "previous"
    """What the tilt re-weights: the policy of this generation, or always that of generation 0 (pool policy only)."""


class RewardModelSignalSpec(Block):
    """A reward model: a linear head over frozen embeddings of the texts, fitted to this generation's preferences by ridge logistic
    regression. What it inherited is told by its slopes on the anchor panel, and how well it predicts held-out preferences.
    """

    kind: Literal["reward_model"] = "reward_model"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    endpoint: str
    """A key of `endpoints`, with a base_url: a model that serves `/embeddings`."""
    prompt: str | None = None
    """A template of kind reward (shipped: reward, or a file) that writes prompt and text as one string to embed; default the text alone."""
    label_rule: TrainingLabelRule = "raw"
    """How picks become preferences."""
    update: Literal["tilt", "best_of_n"] = "tilt"
    """Selection: tilt by exp(reward/tau), or the best of n = candidates_per_item."""
    tau: Number = Field(1.0, gt=0)
    """Temperature of the tilt."""
    ridge: Number | None = Field(None, gt=0)
    """Ridge penalty ½·ridge·‖head‖² in units in which texts of an item have variance 1 in all at generation 0; default the one of 0.01, 0.1, 1, 10 and 100 that predicts left-out items best, anew for every fit."""
    reference: Literal["previous", "base"] = "previous"
    """What the tilt re-weights: the policy of this generation, or always that of generation 0 (pool policy only)."""


class BestOfNSignalSpec(Block):
    """No fit: a text's reward is the number of times it was picked over both orders; each item keeps its winner."""

    kind: Literal["best_of_n"] = "best_of_n"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    label_rule: LabelRule = "raw"
    """How picks become preferences (length_controlled needs a fitted signal and is refused)."""
    update: Literal["best_of_n"] = "best_of_n"
    """Selection; tilt needs a fitted reward and is refused."""
    reference: Literal["previous", "base"] = "previous"
    """What the winners' weights move from (pool policy only)."""

    @model_validator(mode="after")
    def _no_length_control(self) -> BestOfNSignalSpec:
        if self.label_rule == "length_controlled":
            raise ValueError("label_rule length_controlled needs a fitted signal; use kind: bradley_terry")
        return self


class GroupAdvantageSignalSpec(Block):
    """No fit: a text's reward is its score by the judge, and the pool moves by its advantage over the mean of a group of
    candidates_per_item texts, as GRPO and RLOO train (policy kind `pool`; judges that score: pointwise, reward, rule, gold, random, planted).
    """

    kind: Literal["group_advantage"] = "group_advantage"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    normalize: Literal["sd", "none"] = "sd"
    """sd divides the advantage by the standard deviation of its group's scores (GRPO); none leaves it in points of the score (RLOO)."""
    step: Number = Field(1.0, gt=0)
    """A text's weight is multiplied by exp(step · its expected advantage)."""
    epsilon: Number = Field(1e-4, ge=0)
    """Added to the group's standard deviation; scores that differ by less count as equal."""
    reference: Literal["previous", "base"] = "previous"
    """What is re-weighted, and from what groups are drawn: the policy of this generation, or always that of generation 0."""

    @property
    def update(self) -> Literal["group_advantage"]:
        """How the next policy is made."""
        return "group_advantage"

    @property
    def label_rule(self) -> Literal["raw"]:
        """By what the table of preferences is made; nothing is learned from it."""
        return "raw"


class TrainingSignal(Block):
    """Preferences on which a model is trained; no reward is fitted and nothing selected."""

    label_rule: TrainingLabelRule = "raw"
    """How picks become preferences. Of each pair the text with more weight is chosen; a pair that is even is left out."""
    reference: Literal["previous", "base"] = "previous"
    """What training starts from: the model that drafted this generation, or always that of generation 0."""

    @property
    def update(self) -> Literal["training"]:
        """How the next policy is made."""
        return "training"


class ExternalSignalSpec(TrainingSignal):
    """What is learned is up to the command that trains (policy kind `command`); here picks become preferences, and no more."""

    kind: Literal["external"] = "external"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""


class HostedSignalSpec(TrainingSignal):
    """A job of the endpoint's fine-tuning API (policy kind `hosted`)."""

    kind: Literal["hosted_finetune"] = "hosted_finetune"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    method: Literal["dpo", "sft"] = "dpo"
    """dpo: chosen over rejected texts; sft: the chosen texts alone, each once."""
    epochs: Whole = Field(1, ge=1)
    """Passes over the training set."""
    beta: Number | None = Field(None, gt=0)
    """Strength of the pull back to the reference model (dpo); default the endpoint's."""
    learning_rate_multiplier: Number | None = Field(None, gt=0)
    """Of the endpoint's learning rate; default the endpoint's."""
    batch_size: Whole | None = Field(None, ge=1)
    """Examples a step; default the endpoint's."""


class LoraSignal(TrainingSignal):
    """A LoRA adapter on the attention projections, trained by the TRL library (policy kind `trained`). TRL's losses do not
    use the pairs' weights."""

    epochs: Number = Field(1.0, gt=0)
    """Passes over the training set."""
    learning_rate: Number = Field(2e-4, gt=0)
    """Highest learning rate; it falls linearly to 0."""
    batch_size: Whole = Field(8, ge=1)
    """Pairs (of sft and kto texts) a step."""
    rank: Whole = Field(16, ge=1)
    """Rank of the adapter; its scale is 2."""


class DpoSignalSpec(LoraSignal):
    """Direct preference optimisation: the chosen text's log-odds over the rejected one's, against the reference model's."""

    kind: Literal["dpo"] = "dpo"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    beta: Number = Field(0.1, gt=0)
    """Strength of the pull back to the reference model."""
    length_normalised: Switch = False
    """True: log-probabilities are means over a text's tokens, not sums."""
    label_smoothing: Number = Field(0.0, ge=0, lt=0.5)
    """Share of the preferences that are taken to be the wrong way round (conservative DPO); not with length_normalised."""

    @model_validator(mode="after")
    def _one_loss(self) -> DpoSignalSpec:
        if self.length_normalised and self.label_smoothing:
            raise ValueError(
                "label_smoothing does not go with length_normalised, for TRL has no such loss; leave one out"
            )
        return self


class SftSignalSpec(LoraSignal):
    """Supervised fine-tuning on the chosen texts, each once."""

    kind: Literal["sft"] = "sft"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""


class KtoSignalSpec(LoraSignal):
    """Kahneman-Tversky optimisation: chosen texts are desirable, rejected ones are not; they need not be pairs."""

    kind: Literal["kto"] = "kto"
    """What is learned from the picks: bradley_terry, reward_model, best_of_n, group_advantage (from scores), or a training: external, dpo, sft, kto, hosted_finetune."""
    beta: Number = Field(0.1, gt=0)
    """Strength of the pull back to the reference model."""


SignalSpec = Annotated[
    Annotated[BradleyTerrySignalSpec, Tag("bradley_terry")]
    | Annotated[RewardModelSignalSpec, Tag("reward_model")]
    | Annotated[BestOfNSignalSpec, Tag("best_of_n")]
    | Annotated[GroupAdvantageSignalSpec, Tag("group_advantage")]
    | Annotated[ExternalSignalSpec, Tag("external")]
    | Annotated[DpoSignalSpec, Tag("dpo")]
    | Annotated[SftSignalSpec, Tag("sft")]
    | Annotated[KtoSignalSpec, Tag("kto")]
    | Annotated[HostedSignalSpec, Tag("hosted_finetune")],
    by_kind("bradley_terry"),
]
RewardSignal = BradleyTerrySignalSpec | RewardModelSignalSpec
"""A signal with a fitted reward, which tilts or gives the best of n."""
SIGNALS_OF_POLICY = {"command": ("external",), "trained": ("dpo", "sft", "kto"), "hosted": ("hosted_finetune",)}
"""Kind of policy that trains a model → the kinds of signal that go with it, the first by default."""
SCORING_JUDGES = ("pointwise", "reward", "rule", "gold", "random", "planted")
"""Kinds of judge that score a text by itself, as the signal group_advantage needs; the others only compare."""


class StrategySpec(Block):
    """How the training set is mixed from this and earlier generations and real data."""

    kind: Literal["replace", "accumulate", "accumulate_subsample"] = "replace"
    """replace: this generation's selections; accumulate: equal parts of generation 0's candidates and all selections so far, and of a trained model all preferences so far; accumulate_subsample: a draw of one generation's size from these."""
    real_fraction: Number = Field(0.0, ge=0, le=1)
    """Share of the training set that is real data."""
    real: str | None = None
    """A file of `item_id, text`; default: generation 0's candidates."""


class PanelsSpec(Block):
    """Fixed pairs that the judge re-judges every generation and nobody trains on."""

    anchor: Whole | str = 60
    """That many pairs drafted once by the base policy, or a pairs file; 0 is off."""
    probe: Literal["none", "all"] | tuple[ProbeName, ...] = "none"
    """Counterfactual edits of the anchor panel's texts, judged every generation: names of docs/probes.md, all, or none."""

    @field_validator("anchor", mode="before")
    @classmethod
    def _pairs_or_file(cls, anchor: object) -> object:
        # Before the union, whose own errors are one a member.
        if isinstance(anchor, bool) or not isinstance(anchor, int | str):
            raise ValueError("must be a whole number or the path of a pairs file")  # noqa: TRY004 - what pydantic reads
        if isinstance(anchor, int) and anchor < 0:
            raise ValueError("must be 0 or more pairs, or the path of a pairs file")
        return anchor

    @field_validator("probe", mode="before")
    @classmethod
    def _known_probes(cls, probe: object) -> object:
        if probe in ("none", "all"):
            return probe
        if not isinstance(probe, list | tuple) or not probe:
            raise ValueError("must be none, all or a list of probes, as [padding, bold]")
        unknown = [name for name in probe if name not in PROBE_NAMES]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no probe that a run can judge; known: {', '.join(PROBE_NAMES)}")
        if len(set(probe)) < len(probe):
            raise ValueError("each probe once")
        return tuple(probe)

    @model_validator(mode="after")
    def _needs_texts(self) -> PanelsSpec:
        if self.probe != "none" and self.anchor == 0:
            raise ValueError("probe edits the anchor panel's texts; set anchor to a number of pairs or a pairs file")
        return self

    @property
    def probes(self) -> tuple[str, ...]:
        """Names of the probes that are judged; empty where there are none."""
        return () if self.probe == "none" else PROBE_NAMES if self.probe == "all" else self.probe


class Budget(Block):
    """Limits over the whole run, resumed sessions included."""

    max_cost: Number | None = Field(None, ge=0)
    """US dollars, by the endpoints' prices."""
    max_calls: Whole | None = Field(None, ge=0)
    """Model calls."""


class Experiment(Block):
    """One closed-loop experiment: what is asked, who drafts, who judges, what is learned, in which arms."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the run and its default folder runs/<name>: letters, digits, dot, dash, underscore."""
    seed: Whole = Field(0, ge=0)
    """Every random stream starts here."""
    items: str
    """JSON Lines, CSV or Parquet of item_id, prompt and optional category, reference, match; relative to this file."""
    generations: Whole = Field(3, ge=1)
    """Feedback steps T; estimates are for generations 0 (before any feedback) to T."""
    replicates: Whole = Field(8, ge=1)
    """Seeds s0, s1 …: whole independent loops, the unit of inference."""
    candidates_per_item: Whole = Field(4, ge=2)
    """Texts an item in each generation."""
    matchups_per_item: Whole | None = Field(None, ge=1)
    """Pairs judged an item and generation; default all pairs of its candidates."""
    endpoints: dict[str, Endpoint]
    """Named endpoints; {} where no model is asked."""
    judge: JudgeSpec
    """Who judges."""
    policy: PolicySpec
    """Where candidates come from."""
    signal: SignalSpec = BradleyTerrySignalSpec()
    """What is learned from the picks."""
    strategy: StrategySpec = StrategySpec()
    """What the next policy is trained on."""
    panels: PanelsSpec = PanelsSpec()
    """Fixed pairs."""
    budget: Budget = Budget()
    """Limits."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Conditions by name, each an override of judge, signal, strategy or policy.exemplars."""

    @model_validator(mode="before")
    @classmethod
    def _signal_by_policy(cls, raw: Any) -> Any:
        """A policy that trains a model has its own signal where none is named."""
        policy, signal = (
            (raw.get(key, {}) for key in ("policy", "signal")) if isinstance(raw, Mapping) else (None, None)
        )
        kind = policy.get("kind") if isinstance(policy, Mapping) else None
        # A kind that is no text is refused behind this.
        if (
            not isinstance(kind, str)
            or kind not in SIGNALS_OF_POLICY
            or not isinstance(signal, Mapping)
            or "kind" in signal
        ):
            return raw
        return {**raw, "signal": {"kind": SIGNALS_OF_POLICY[kind][0], **signal}}

    def endpoint(self, name: str) -> Endpoint:
        """The endpoint of that name; an empty one is that of the policy's own model in this process, which nobody asks."""
        if not name and isinstance(self.policy, TrainedPolicySpec):
            return Endpoint(engine="transformers", model=self.policy.base, max_tokens=self.policy.max_tokens)
        return self.endpoints[name]


def schema() -> dict[str, Any]:
    """JSON schema of an experiment file, with a line on every key."""
    document: dict[str, Any] = _with_any_of(Experiment.model_json_schema())
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return document


def _with_any_of(node: Any) -> Any:
    """The schema with anyOf for oneOf: a block that leaves out ``kind`` may fit several kinds."""
    if isinstance(node, dict):
        return {"anyOf" if key == "oneOf" else key: _with_any_of(value) for key, value in node.items()}
    return [_with_any_of(value) for value in node] if isinstance(node, list) else node


# Keys in settings, told by their names and looks.

_KEY_NAME = re.compile(r"authorization|key|token|secret|password|passwd|passphrase|cookie|credential|signature", re.I)
# Bodies have fields of tokens and cache keys that are no secrets: their names are compared whole, without separators.
_KEY_FIELD = re.compile(
    r"(.*(api|access|secret|private|subscription|account|auth|openai|azure))?key"
    r"|(.*(access|auth|api|bearer|refresh|session|secret|security|client|hf))?token"
    r"|.*(secret|password|passwd|passphrase|authorization|cookie|credentials?)"
)
_KEY_VALUE = re.compile(r"\s*((bearer|basic)\s+\S|(sk|gsk|hf|ghp|xai|pplx|nvapi)[-_][\w-]{8})", re.I)
# Anywhere in a text: what services begin their keys with, and JSON web tokens.
_KEY_FORM = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"(?:sk|gsk|hf|gh[opsu]|github_pat|glpat|xai|pplx|nvapi|r8|xox[abps])[-_](?=[\w-]*\d)[\w-]{16}"
    r"|AIza[\w-]{30}|A[KS]IA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8})"
)
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SCHEME = re.compile(r"([A-Za-z_-]+[ =:;,]+|[ =:;,])*")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def variables_in(value: str) -> list[str]:
    """The environment variables that a header or query value names as ``${NAME}``."""
    return _VARIABLE.findall(value)


def _looks_like_a_key(text: str) -> bool:
    return bool(_KEY_VALUE.match(text) or _KEY_FORM.search(text))


def is_written_key(name: str, value: str) -> bool:
    """Whether a header or query parameter holds a key as it is, by its name or by the look of its value. A scheme before
    ``${NAME}`` (``Bearer ${NAME}``) is no key."""
    rest = _VARIABLE.sub("", value)
    if not _KEY_NAME.search(name):
        return _looks_like_a_key(rest)
    return not _SCHEME.fullmatch(rest if rest != value else f"{value}.") if value.strip() else False


def written_keys(body: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The places (``a.b``) of texts in a body that are keys by their name or look."""
    for name, value in body.items():
        place = f"{prefix}{name}"
        field = re.sub(r"[^a-z]", "", str(name).lower())
        for member in value if isinstance(value, list) else [value]:
            if isinstance(member, Mapping):
                yield from written_keys(member, f"{place}.")
            elif (
                isinstance(member, str)
                and member.strip()
                and (_KEY_FIELD.fullmatch(field) or _looks_like_a_key(member))
            ):
                yield place


def is_variable_name(text: str) -> bool:
    """Whether a text names an environment variable; a key that was typed in its place does not."""
    long = len(text) >= 20 and re.search(r"[a-z]", text) and re.search(r"\d", text)
    return bool(_VARIABLE_NAME.fullmatch(text)) and not long and not _looks_like_a_key(text)
