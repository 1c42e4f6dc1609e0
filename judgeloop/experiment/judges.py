"""Who judges: the blocks of `judge`, a kind each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag, field_validator, model_validator

from judgeloop.experiment.blocks import Block, Number, Switch, Whole, kind_of
from judgeloop.records import RewardRoute

VerdictMode = Literal["auto", "logprob", "json", "text"]


class ModelJudge(Block):
    """A model that is asked for a verdict, always in both orders."""

    kind: Literal["model"] = "model"
    """Who judges: model, reward, random, gold, planted or panel."""
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


class RewardJudge(Block):
    """A reward model that scores each text alone: P(first) = s((score of the first − score of the second) / temperature).

    A text is scored once and both orders follow from the two scores, so that no order can matter. Equal scores are a tie.
    """

    kind: Literal["reward"] = "reward"
    """Who judges: model, reward, random, gold, planted or panel."""
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
    def _pairs_have_no_template(self) -> RewardJudge:
        if self.prompt is not None and self.route in ("score", "rerank"):
            raise ValueError(
                f"route {self.route} sends prompt and text apart; leave `prompt` out, or use classify or pooling"
            )
        return self


class RandomJudge(Block):
    """A fair coin for every presentation: the control for drift that no judge causes."""

    kind: Literal["random"] = "random"
    """Who judges: model, reward, random, gold, planted or panel."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class GoldJudge(Block):
    """Prefers the candidate that matches the item's reference; both, neither or no reference: tie."""

    kind: Literal["gold"] = "gold"
    """Who judges: model, reward, random, gold, planted or panel."""
    endpoint: str | None = None
    """A key of `endpoints`; only for items with `match: judge`, where every text of every arm is asked about, once."""
    prompt: str = "reference_match"
    """Template that asks whether a text agrees with the reference; only for items with `match: judge`."""
    repeats: Whole = Field(1, ge=1)
    """Times each presentation is judged."""


class PlantedJudge(Block):
    """A judge with stated coefficients, computed here and not asked of a model: for known truth.

    P(first) = s(position + length·Δlog2 tokens + Σ feature·Δfeature + quality·Δmatch + noise), Δ = first − second.
    """

    kind: Literal["planted"] = "planted"
    """Who judges: model, reward, random, gold, planted or panel."""
    position: Number = 0.0
    """Log-odds for the first slot."""
    length: Number = 0.0
    """Log-odds per doubling of tokens."""
    features: dict[str, Number] = {}  # noqa: RUF012 - pydantic copies it
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
    """Who judges: model, reward, random, gold, planted or panel."""
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


Judge = Annotated[
    Annotated[ModelJudge, Tag("model")]
    | Annotated[RewardJudge, Tag("reward")]
    | Annotated[RandomJudge, Tag("random")]
    | Annotated[GoldJudge, Tag("gold")]
    | Annotated[PlantedJudge, Tag("planted")]
    | Annotated[PanelJudge, Tag("panel")],
    kind_of("model"),
]
