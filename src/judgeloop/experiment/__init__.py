"""The experiment: what a YAML file may say, every key with its default and a line on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from judgeloop.records import PROBE_NAMES, ProbeName, canonical

# YAML's own types: neither true nor "3" is a number, and 3.0 is no count.
Whole = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True)]
Switch = Annotated[bool, Field(strict=True)]


class Block(BaseModel):
    """A part of the experiment: frozen, with no keys but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Price(Block):
    """US dollars per million tokens. None is guessed: what is not stated costs 0."""

    input: Number = Field(0.0, ge=0)
    """Per million prompt tokens."""
    output: Number = Field(0.0, ge=0)
    """Per million completion tokens."""


class Endpoint(Block):
    """Where a model answers: an OpenAI-compatible base URL, or an engine that judgeloop starts itself."""

    base_url: str | None = None
    """OpenAI-compatible base URL, as http://127.0.0.1:8000/v1. Leave out with `engine`."""
    engine: Literal["llama_cpp"] | None = None
    """Start this engine on a free loopback port for the run (needs the extra judgeloop[local])."""
    model: str
    """The model's name, as the endpoint knows it. With engine llama_cpp: smollm2-135m, or the path of a .gguf file."""
    concurrency: Whole = Field(16, ge=1, le=4096)
    """Most calls in flight at once."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; default OPENAI_API_KEY where that is set. A local endpoint needs none."""
    timeout_s: Number = Field(120.0, gt=0)
    """Seconds until a call counts as timed out."""
    max_tokens: Whole = Field(512, ge=1)
    """Longest reply in tokens (logprob verdicts ask for one)."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """The body's name for it; reasoning models want max_completion_tokens."""
    send_temperature: Switch = True
    """False leaves `temperature` out of the body, for models that refuse it."""
    attempts: Whole = Field(6, ge=1, le=20)
    """Tries a call at transport faults and malformed replies, the first included."""
    threads: Whole | None = Field(None, ge=1)
    """Engine only: threads; default the cores of this machine."""
    context: Whole = Field(4096, ge=256)
    """Engine only: context tokens a call may use."""
    price: Price = Price()
    """What a token costs."""
    extra_headers: dict[str, str] = {}
    """Sent with every call. `${NAME}` is replaced by that environment variable and is stored as written."""
    extra_query: dict[str, str] = {}
    """Query parameters of every call (Azure: api-version)."""
    extra_body: dict[str, Any] = {}
    """Body fields of every call (vLLM: top_k, chat_template_kwargs …); part of the recorded request."""

    @field_validator("extra_body")
    @classmethod
    def _is_json(cls, extra_body: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical(extra_body).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                "must hold what JSON can: text, finite numbers, true/false, null, lists, mappings"
            ) from None
        return extra_body

    @model_validator(mode="after")
    def _one_place(self) -> Endpoint:
        if (self.base_url is None) == (self.engine is None):
            raise ValueError("give base_url or engine, one of them")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, not {self.base_url!r}")
        return self


VerdictMode = Literal["auto", "logprob", "json", "text"]


class ModelJudge(Block):
    """A model that is asked for a verdict, always in both orders."""

    kind: Literal["model"] = "model"
    """Who judges: model, random, gold, planted or panel."""
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


class RandomJudge(Block):
    """A fair coin for every presentation: the control for drift that no judge causes."""

    kind: Literal["random"] = "random"
    """Who judges: model, random, gold, planted or panel."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class GoldJudge(Block):
    """Prefers the candidate that matches the item's reference; both, neither or no reference: tie."""

    kind: Literal["gold"] = "gold"
    """Who judges: model, random, gold, planted or panel."""
    endpoint: str | None = None
    """A key of `endpoints`; only for items with `match: judge`."""
    prompt: str = "reference_match"
    """Template that asks whether a text agrees with the reference; only for items with `match: judge`."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class PlantedJudge(Block):
    """A judge with stated coefficients, computed here and not asked of a model: for known truth.

    P(first) = s(position + length·Δlog2 tokens + Σ feature·Δfeature + quality·Δmatch + noise), Δ = first − second.
    """

    kind: Literal["planted"] = "planted"
    """Who judges: model, random, gold, planted or panel."""
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


class PanelJudge(Block):
    """The majority of several model judges; an even split is a tie."""

    kind: Literal["panel"] = "panel"
    """Who judges: model, random, gold, planted or panel."""
    judges: tuple[ModelJudge, ...] = Field(min_length=2)
    """The members, each as a model judge."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged (by each member)."""

    @field_validator("judges")
    @classmethod
    def _repeats_belong_to_the_panel(cls, judges: tuple[ModelJudge, ...]) -> tuple[ModelJudge, ...]:
        if any(judge.repeats != 1 for judge in judges):
            raise ValueError("`repeats` belongs to the panel, not to its members")
        return judges


def _kind_of(default: str) -> Discriminator:
    return Discriminator(lambda raw: raw.get("kind", default) if isinstance(raw, dict) else getattr(raw, "kind", None))


Judge = Annotated[
    Annotated[ModelJudge, Tag("model")]
    | Annotated[RandomJudge, Tag("random")]
    | Annotated[GoldJudge, Tag("gold")]
    | Annotated[PlantedJudge, Tag("planted")]
    | Annotated[PanelJudge, Tag("panel")],
    _kind_of("model"),
]


class PoolPolicy(Block):
    """`pool_size` drafts an item, made once; each generation draws from them with updated weights."""

    kind: Literal["pool"] = "pool"
    """Where candidates come from: pool or exemplar."""
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


class ExemplarPolicy(Block):
    """Every generation drafts anew; the training set's texts are in-context examples of the next drafts."""

    kind: Literal["exemplar"] = "exemplar"
    """Where candidates come from: pool or exemplar."""
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


Policy = Annotated[
    Annotated[PoolPolicy, Tag("pool")] | Annotated[ExemplarPolicy, Tag("exemplar")],
    _kind_of("pool"),
]

LabelRule = Literal["raw", "swap_average", "consistent_only", "length_controlled"]


class BradleyTerrySignal(Block):
    """A linear reward on text features, fitted to this generation's preferences by ridge logistic regression."""

    kind: Literal["bradley_terry"] = "bradley_terry"
    """What is learned from the picks: bradley_terry or best_of_n."""
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


class BestOfNSignal(Block):
    """No fit: a text's reward is the number of times it was picked over both orders; each item keeps its winner."""

    kind: Literal["best_of_n"] = "best_of_n"
    """What is learned from the picks: bradley_terry or best_of_n."""
    label_rule: LabelRule = "raw"
    """How picks become preferences (length_controlled needs a fitted signal and is refused)."""
    update: Literal["best_of_n"] = "best_of_n"
    """Selection; tilt needs a fitted reward and is refused."""
    reference: Literal["previous", "base"] = "previous"
    """What the winners' weights move from (pool policy only)."""

    @model_validator(mode="after")
    def _needs_a_fit(self) -> BestOfNSignal:
        if self.label_rule == "length_controlled":
            raise ValueError("label_rule length_controlled needs a fitted signal; use kind: bradley_terry")
        return self


Signal = Annotated[
    Annotated[BradleyTerrySignal, Tag("bradley_terry")] | Annotated[BestOfNSignal, Tag("best_of_n")],
    _kind_of("bradley_terry"),
]


class Strategy(Block):
    """How the training set is mixed from this and earlier generations and real data."""

    kind: Literal["replace", "accumulate", "accumulate_subsample"] = "replace"
    """replace: this generation's selections; accumulate: equal parts of generation 0's candidates and all selections so far; accumulate_subsample: a draw of one generation's size from that union."""
    real_fraction: Number = Field(0.0, ge=0, le=1)
    """Share of the training set that is real data."""
    real: str | None = None
    """A file of `item_id, text`; default: generation 0's candidates."""


class Panels(Block):
    """Fixed pairs that the judge re-judges every generation and nobody trains on."""

    anchor: Whole | str = 60
    """That many pairs drafted once by the base policy, or a pairs file; 0 is off."""
    probe: Literal["none", "all"] | tuple[ProbeName, ...] = "none"
    """Counterfactual edits of the anchor panel's texts, judged every generation: names of docs/probes.md, all, or none."""

    @field_validator("anchor", mode="before")
    @classmethod
    def _pairs(cls, anchor: object) -> object:
        # Before the union, whose own errors are one a member.
        if isinstance(anchor, bool) or not isinstance(anchor, int | str):
            raise ValueError("must be a whole number or the path of a pairs file")  # noqa: TRY004 - what pydantic reads
        if isinstance(anchor, int) and anchor < 0:
            raise ValueError("must be 0 or more pairs, or the path of a pairs file")
        return anchor

    @field_validator("probe", mode="before")
    @classmethod
    def _known(cls, probe: object) -> object:
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
    def _needs_texts(self) -> Panels:
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
    endpoints: dict[str, Endpoint] = Field(min_length=1)
    """Named endpoints."""
    judge: Judge
    """Who judges."""
    policy: Policy
    """Where candidates come from."""
    signal: Signal = BradleyTerrySignal()
    """What is learned from the picks."""
    strategy: Strategy = Strategy()
    """What the next policy is trained on."""
    panels: Panels = Panels()
    """Fixed pairs."""
    budget: Budget = Budget()
    """Limits."""
    arms: dict[str, dict[str, Any]] = Field(min_length=1)
    """Conditions by name, each an override of judge, signal, strategy or policy.exemplars."""


def schema() -> dict[str, Any]:
    """JSON schema of an experiment file, with a line on every key."""
    raw: dict[str, Any] = _any_of(Experiment.model_json_schema())
    raw["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return raw


def _any_of(node: Any) -> Any:
    """The schema with anyOf for oneOf: a block that leaves out ``kind`` may fit several kinds."""
    if isinstance(node, dict):
        return {"anyOf" if key == "oneOf" else key: _any_of(value) for key, value in node.items()}
    return [_any_of(value) for value in node] if isinstance(node, list) else node
