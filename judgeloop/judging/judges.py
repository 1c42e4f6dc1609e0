"""Judges: who says which of two candidates is better, which of a list is the best, or how good one is on a scale.

A judge asks its client, draws from named streams, or computes; it keeps nothing between calls. Which orders or rotations
it is shown is its caller's part. How the replies of a model can be read is settled by trial calls (``settle_mode``).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from judgeloop import seeds
from judgeloop.bodies import choice_body, judge_body, score_body
from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment import schema
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.answers import (
    MOST_BY_LOGPROB,
    TRIAL_ANSWERS,
    TRIAL_QUESTION,
    Choice,
    Score,
    read_choice,
    read_score,
    read_verdict,
    said,
    unscored,
)
from judgeloop.judging.controls import GoldJudge, Matcher, Measure, PlantedJudge, RandomJudge, RuleJudge
from judgeloop.judging.pairing import call_id, draw_labels, quoted
from judgeloop.judging.reward_models import JudgeOfTexts, Reward, RewardJudge, reward_judge, score_call
from judgeloop.records import Call, Candidate, Client, Item, Judgment, Presentation, Reply, Verdict, rule_name
from judgeloop.seeds import Label
from judgeloop.text import templates
from judgeloop.text.templates import Mode, Scale, Template, parse_scale

TRIAL_PREFIX = "panels/g0/judge/trial"
TRIAL_MASS = Endpoint.model_fields["min_trial_mass"].default
"""Probability that the offered labels must hold at a trial question, where no endpoint says otherwise."""
SCORE_PREFIX, CHOICE_PREFIX = "audit/score", "audit/choice"
SCORE_TRIAL_PREFIX, CHOICE_TRIAL_PREFIX = f"{SCORE_PREFIX}/trial", f"{CHOICE_PREFIX}/trial"


class Judge(Protocol):
    """Judges presentations of one item."""

    @property
    def name(self) -> str:
        """What the tables' ``judge`` column says."""
        ...

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        """One judgment a presentation, in the order given.

        ``prefix`` is the call ids' stem; ``stream`` names replicate and generation, and no arm: judges that draw share
        their draws across arms. Raises what the client raises.
        """
        ...


ScoringJudge = JudgeOfTexts | RuleJudge | RandomJudge | PlantedJudge
"""A judge that also scores a text by itself: ``scores(item, candidates, prefix, stream)`` gives candidate_id → score, larger =
better, without the texts that got none. Gold scores by what the replicate knows (``GoldJudge.scores``)."""


@dataclass(frozen=True)
class _ModelAsked:
    """A model that is asked: its block, its endpoint, the prompt, and how its replies are read."""

    name: str
    spec: schema.AskedJudgeSpec
    endpoint: Endpoint
    template: Template
    mode: Mode
    client: Client
    seed: int

    def _seed(self, *labels: Label) -> int | None:
        """The request's seed from that stream; none where nothing is sampled."""
        return seeds.integer(self.seed, *labels) if self.spec.temperature > 0 else None

    async def _reply(self, call_id: str, body: Mapping[str, Any]) -> Reply:
        return await self.client.ask(Call(call_id, self.spec.endpoint, body))


@dataclass(frozen=True)
class ModelJudge(_ModelAsked):
    """A model that is asked once a presentation, all presentations at the same time."""

    member: int | None = None
    """Place in a panel: the call ids end in it, and it has its own seeds."""

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        return list(
            await asyncio.gather(*(self._ask(item, presentation, prefix, stream) for presentation in presentations))
        )

    async def _ask(self, item: Item, presentation: Presentation, prefix: str, stream: tuple[Label, ...]) -> Judgment:
        name, labels = call_id(prefix, presentation), (*stream, *draw_labels(presentation))
        if self.member is not None:
            name, labels = f"{name}/j{self.member}", (*labels, f"j{self.member}")
        body = judge_body(
            self.endpoint, self.template, self.mode, prompt=item.prompt, first_text=presentation.first.text,
            second_text=presentation.second.text, reference=item.reference, temperature=self.spec.temperature,
            max_tokens=self.spec.max_tokens, seed=self._seed("judge", *labels),
        )  # fmt: skip
        verdict = read_verdict(
            await self._reply(name, body), self.mode, self.template.ties, self.endpoint.min_label_mass
        )
        return Judgment(presentation, self.name, verdict, name)


@dataclass(frozen=True)
class ChoiceJudge(_ModelAsked):
    """A model that is asked for the best of several texts."""

    async def choose(
        self, item: Item, set_id: str, texts: Sequence[Candidate], rotation: int, repeat: int
    ) -> tuple[Choice, str]:
        """The choice in that rotation of the texts, and its call's id."""
        name = f"{CHOICE_PREFIX}/{quoted(self.name)}/{quoted(item.item_id)}/{quoted(set_id)}/o{rotation}/r{repeat}"
        body = choice_body(
            self.endpoint, self.template, self.mode, prompt=item.prompt,
            texts=[text.text for text in rotated(texts, rotation)], reference=item.reference,
            temperature=self.spec.temperature, max_tokens=self.spec.max_tokens,
            seed=self._seed("choice", item.item_id, set_id, rotation, repeat),
        )  # fmt: skip
        return read_choice(await self._reply(name, body), self.mode, len(texts), self.endpoint.min_label_mass), name


def rotated(texts: Sequence[Candidate], rotation: int) -> list[Candidate]:
    """The texts in the order of the slots: in rotation r slot j holds text (j + r) mod k, all counted from 0."""
    return [texts[(slot + rotation) % len(texts)] for slot in range(len(texts))]


@dataclass(frozen=True)
class ScoreJudge(_ModelAsked):
    """A model that is asked for the score of one text at a time."""

    async def score(self, item: Item, text: Candidate, scale: Scale, place: str, repeat: int) -> tuple[Score, str]:
        """The score and its call's id. ``place`` names the text in calls and draws: ``pair/side``."""
        name = f"{SCORE_PREFIX}/{quoted(self.name)}/{quoted(item.item_id)}/{place}/r{repeat}/{scale.name}"
        body = score_body(
            self.endpoint, self.template, self.mode, scale, prompt=item.prompt, answer=text.text, reference=item.reference,
            temperature=self.spec.temperature, max_tokens=self.spec.max_tokens,
            seed=self._seed("score", item.item_id, place, repeat, scale.name),
        )  # fmt: skip
        return read_score(await self._reply(name, body), self.mode, scale, self.endpoint.min_label_mass), name


@dataclass(frozen=True)
class PointwiseJudge(_ModelAsked, JudgeOfTexts):
    """A model that is asked for the score of one text at a time, and judges pairs by it."""

    scale: Scale

    async def score(self, item: Item, candidate: Candidate, prefix: str, stream: tuple[Label, ...]) -> Reward:
        """The score in points of the scale, less them on a reversed one."""
        name = score_call(item, candidate, prefix)
        body = score_body(
            self.endpoint, self.template, self.mode, self.scale, prompt=item.prompt, answer=candidate.text,
            reference=item.reference, temperature=self.spec.temperature, max_tokens=self.spec.max_tokens,
            # By replicate, and by no generation: of a pool's text they share the call.
            seed=self._seed("score", *stream[:1], item.item_id, candidate.candidate_id),
        )  # fmt: skip
        score = read_score(await self._reply(name, body), self.mode, self.scale, self.endpoint.min_label_mass)
        better = 1.0 if self.scale.best > self.scale.worst else -1.0
        return Reward(None if score.value is None else better * score.value, score.reason, name, score.said)


@dataclass(frozen=True)
class PanelJudge:
    """The members' most frequent slot among those that gave a verdict; no single most frequent one: tie."""

    members: tuple[ModelJudge, ...]
    name: str = "panel"

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        members = [replace(member, member=index) for index, member in enumerate(self.members)]
        votes = await asyncio.gather(*(member.judge(item, presentations, prefix, stream) for member in members))
        return [
            Judgment(
                presentation, self.name, majority([vote.verdict for vote in ballot]), call_id(prefix, presentation)
            )
            for presentation, *ballot in zip(presentations, *votes, strict=True)
        ]


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """The slot with most verdicts; an even split is a tie; none scored is unscored (no_majority_scored)."""
    ranked = Counter(verdict.slot for verdict in verdicts if verdict.slot != "unscored").most_common(2)
    if not ranked:
        return unscored("no_majority_scored")
    if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
        return Verdict("tie")
    return Verdict(ranked[0][0])


def make_judge(
    spec: schema.JudgeSpec,
    *,
    endpoints: Mapping[str, Endpoint],
    folder: str | Path,
    client: Client,
    seed: int,
    mode: Mode | Sequence[Mode] | None = None,
    measure: Measure | None = None,
    name: str | None = None,
) -> Judge:
    """The judge that a block of the experiment describes.

    ``mode`` is what ``resolve_mode`` returned; for a panel one a member, or one for all. ``measure`` gives a text's
    features, for planted judges. ``name`` replaces ``judge_name``'s. Raises ExperimentError for a template that is wrong
    or has not that mode.
    """
    if isinstance(spec, schema.RandomJudgeSpec):
        return RandomJudge(seed, name or judge_name(spec, endpoints))
    if isinstance(spec, schema.RuleJudgeSpec):
        return RuleJudge(spec, name or judge_name(spec, endpoints))
    if isinstance(spec, schema.PlantedJudgeSpec):
        if measure is None:
            raise ValueError("a planted judge needs a measure of texts")
        return PlantedJudge(spec, seed, measure, name or judge_name(spec, endpoints))
    if isinstance(spec, schema.GoldJudgeSpec):
        named = name or judge_name(spec, endpoints)
        if spec.endpoint is None:
            return GoldJudge(None, named)
        template = templates.load(spec.prompt, folder, "match")
        return GoldJudge(Matcher(client, spec.endpoint, endpoints[spec.endpoint], template), named)
    if isinstance(spec, schema.RewardJudgeSpec):
        named = name or judge_name(spec, endpoints)
        return reward_judge(spec, named, endpoints=endpoints, folder=folder, client=client)
    if isinstance(spec, schema.PanelJudgeSpec):
        modes: Sequence[Mode | None] = [mode] * len(spec.judges) if mode is None or isinstance(mode, str) else mode
        members = (
            _model_judge(block, endpoints, folder, client, seed, chosen, None)
            for block, chosen in zip(spec.judges, modes, strict=True)
        )
        return PanelJudge(tuple(members), name or judge_name(spec, endpoints))
    chosen_mode = mode if mode is None or isinstance(mode, str) else mode[0]
    if isinstance(spec, schema.PointwiseJudgeSpec):
        asked = templates.load(spec.prompt, folder, "score")
        return PointwiseJudge(
            name or judge_name(spec, endpoints), spec, endpoints[spec.endpoint], asked,
            _available(_settled(spec, chosen_mode), asked), client, seed, parse_scale(spec.scale),
        )  # fmt: skip
    return _model_judge(spec, endpoints, folder, client, seed, chosen_mode, name)


def judge_name(
    spec: schema.JudgeSpec, endpoints: Mapping[str, Endpoint], mode: Mode | None = None, ambiguous: bool = False
) -> str:
    """What the tables call a judge: the model's name, with ``#prompt/verdict`` behind it where that alone is ambiguous;
    a panel's members in brackets; a reward model's with ``#route``; ``rule:more_length``; else its kind."""
    if isinstance(spec, schema.RuleJudgeSpec):
        return rule_name(spec.prefer, spec.feature)
    if isinstance(spec, schema.PanelJudgeSpec):
        return "panel(" + ",".join(endpoints[member.endpoint].model for member in spec.judges) + ")"
    if not isinstance(spec, schema.AskedJudgeSpec | schema.RewardJudgeSpec):
        return spec.kind
    model = endpoints[spec.endpoint].model
    if isinstance(spec, schema.RewardJudgeSpec):
        return f"{model}#{spec.route}" if ambiguous else model
    return f"{model}#{Path(spec.prompt).stem}/{mode or spec.verdict}" if ambiguous else model


def model_name(judge: Judge) -> str:
    """The name of the model that a judge asks; empty for a judge that asks none or several."""
    return judge.endpoint.model if isinstance(judge, ModelJudge | PointwiseJudge | RewardJudge) else ""


# How a model's replies can be read, by trial calls


class _Readable(Protocol):
    @property
    def reason(self) -> str: ...


@dataclass(frozen=True)
class Trial(ABC):
    """A question by which a model is tried, in the form in which it will be asked; ``what``: what a reply is to give."""

    template: Template
    what: ClassVar[str]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that come into question, the most informative first."""
        return self.template.modes

    @abstractmethod
    def body(self, endpoint: Endpoint, mode: Mode, max_tokens: int | None = None) -> dict[str, Any]: ...

    @abstractmethod
    def read(self, reply: Reply, mode: Mode, floor: float = TRIAL_MASS) -> _Readable: ...


@dataclass(frozen=True)
class PairTrial(Trial):
    """Which of two answers is better; the better one is shown first."""

    answers: tuple[str, str] = (TRIAL_ANSWERS[0], TRIAL_ANSWERS[1])
    question: str = TRIAL_QUESTION
    reference: str | None = None
    what: ClassVar[str] = "verdict"

    def body(self, endpoint: Endpoint, mode: Mode, max_tokens: int | None = None) -> dict[str, Any]:
        first, second = self.answers
        return judge_body(
            endpoint, self.template, mode, prompt=self.question, first_text=first, second_text=second,
            reference=self.reference, max_tokens=max_tokens,
        )  # fmt: skip

    def read(self, reply: Reply, mode: Mode, floor: float = TRIAL_MASS) -> Verdict:
        return read_verdict(reply, mode, self.template.ties, floor)

    def turned(self) -> PairTrial:
        """The same question with the better answer second."""
        return replace(self, answers=self.answers[::-1])


@dataclass(frozen=True)
class ChoiceTrial(Trial):
    """Which of three answers is the best."""

    what: ClassVar[str] = "choice"

    def body(self, endpoint: Endpoint, mode: Mode, max_tokens: int | None = None) -> dict[str, Any]:
        return choice_body(
            endpoint, self.template, mode, prompt=TRIAL_QUESTION, texts=TRIAL_ANSWERS, max_tokens=max_tokens
        )

    def read(self, reply: Reply, mode: Mode, floor: float = TRIAL_MASS) -> Choice:
        return read_choice(reply, mode, len(TRIAL_ANSWERS), floor)


@dataclass(frozen=True)
class ScoreTrial(Trial):
    """What one answer deserves. A tokenizer that splits the scale's largest number fails in logprob mode."""

    scale: Scale
    what: ClassVar[str] = "score"

    @property
    def modes(self) -> tuple[Mode, ...]:
        long = len(self.scale.values) > MOST_BY_LOGPROB
        return tuple(mode for mode in self.template.modes if not (long and mode == "logprob"))

    def body(self, endpoint: Endpoint, mode: Mode, max_tokens: int | None = None) -> dict[str, Any]:
        return score_body(
            endpoint, self.template, mode, self.scale, prompt=TRIAL_QUESTION, answer=TRIAL_ANSWERS[0],
            max_tokens=max_tokens,
        )  # fmt: skip

    def read(self, reply: Reply, mode: Mode, floor: float = TRIAL_MASS) -> Score:
        return read_score(reply, mode, self.scale, floor, sure=True)


async def settle_mode(
    spec: schema.AskedJudgeSpec, trial: Trial, *, endpoint: Endpoint, client: Client, stem: str, key: str = "--verdict"
) -> Mode:
    """How a model's replies are read: the stated mode, or for auto the first of the trial's modes whose reply can be.

    The trial calls are ``<stem>/<mode>``; ``key`` is the setting that states a mode. Raises EndpointFailed if no mode
    works, ExperimentError if the template has not the stated mode.
    """
    if spec.verdict != "auto":
        return _available(spec.verdict, trial.template)
    failed: list[str] = []
    sentences: list[str] = []
    for mode in trial.modes:
        body = trial.body(endpoint, mode, spec.max_tokens)
        reply = await client.ask(Call(f"{stem}/{mode}", spec.endpoint, body))
        reason = trial.read(reply, mode, endpoint.min_trial_mass).reason
        if not reason:
            return mode
        failed.append(f"{mode}: {reason}")
        if mode != "logprob" or reply.failure:  # what a reply of one token says is in its log-probabilities
            sentences.append(said(reply))
    words = "".join(f"; it says “{sentence}”" for sentence in dict.fromkeys(sentences) if sentence)
    # Of several modes the last is the simplest: what it lacks they all lack.
    mended = next(filter(None, map(remedy, reversed(sentences))), "")
    if not mended and any(reason.endswith("truncated") for reason in failed):
        mended = "set a larger max_tokens (audit: --max-tokens)"
    raise EndpointFailed(
        f"endpoints.{spec.endpoint}: {endpoint.model} gave no {trial.what} to a trial question with prompt "
        f"{trial.template.name} ({', '.join(failed)}{words}); {mended or f'try another prompt or model, or state {key}'}"
    )


async def resolve_mode(
    spec: schema.AskedJudgeSpec,
    *,
    endpoints: Mapping[str, Endpoint],
    folder: str | Path,
    client: Client,
    label: str = "",
    prefix: str = TRIAL_PREFIX,
) -> Mode:
    """``settle_mode`` of a judge of pairs or texts, by the calls ``<prefix>/<label>/<mode>``; without a label, which an audit
    gives, endpoint and prompt are it."""
    if isinstance(spec, schema.PointwiseJudgeSpec):
        template = templates.load(spec.prompt, folder, "score")
        trial: Trial = ScoreTrial(template, parse_scale(spec.scale))
    else:
        template = templates.load(spec.prompt, folder, "judge")
        trial = PairTrial(template)
    stem = f"{prefix}/{quoted(label or f'{spec.endpoint}.{template.name}')}"
    return await settle_mode(
        spec, trial, endpoint=endpoints[spec.endpoint], client=client, stem=stem,
        key="--verdict" if label else "judge.verdict",
    )  # fmt: skip


def _model_judge(
    block: schema.ModelJudgeSpec,
    endpoints: Mapping[str, Endpoint],
    folder: str | Path,
    client: Client,
    seed: int,
    mode: Mode | None,
    name: str | None,
) -> ModelJudge:
    mode = _settled(block, mode)
    template = templates.load(block.prompt, folder, "judge")
    name = name or judge_name(block, endpoints)
    return ModelJudge(name, block, endpoints[block.endpoint], template, _available(mode, template), client, seed)


def _settled(block: schema.AskedJudgeSpec, mode: Mode | None) -> Mode:
    if mode is not None:
        return mode
    if block.verdict == "auto":
        raise ValueError("verdict auto is settled by resolve_mode before the judge is made")
    return block.verdict


def _available(mode: Mode, template: Template) -> Mode:
    if mode not in template.modes:
        raise ExperimentError(
            f"judge.verdict: prompt {template.name} cannot be asked in mode {mode}; it has {', '.join(template.modes)}"
        )
    return mode
