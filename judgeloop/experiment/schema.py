"""The experiment: what a YAML file may say, every key with its default and a line on it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag, field_validator, model_validator

from judgeloop.experiment.blocks import Block, Endpoint, Engine, Number, Price, Switch, Whole, kind_of
from judgeloop.experiment.judges import (
    GoldJudge,
    Judge,
    ModelJudge,
    PanelJudge,
    PlantedJudge,
    RandomJudge,
    RewardJudge,
    VerdictMode,
)
from judgeloop.records import PROBE_NAMES, ProbeName

__all__ = [
    "BestOfNSignal", "Block", "BradleyTerrySignal", "Budget", "Endpoint", "Engine", "ExemplarPolicy", "Experiment", "GoldJudge", "Judge",
    "LabelRule", "ModelJudge", "Number", "PanelJudge", "Panels", "PlantedJudge", "Policy", "PoolPolicy", "Price", "RandomJudge",
    "RewardJudge", "Signal", "Strategy", "Switch", "VerdictMode", "Whole", "schema",
]  # fmt: skip


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
    kind_of("pool"),
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
    kind_of("bradley_terry"),
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
