"""Judges: who says which of two candidates is better. Every judge is shown both orders of a matchup by its caller.

A judge asks its client, draws from named streams, or computes; it keeps nothing between calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from judgeloop import experiment, seeds, templates
from judgeloop.bodies import judge_body
from judgeloop.errors import EndpointFailed, ExperimentError
from judgeloop.experiment import Endpoint
from judgeloop.judging.controls import GoldJudge, Measure, PlantedJudge, RandomJudge
from judgeloop.judging.pairing import call_id, draw_labels, quoted
from judgeloop.judging.rewards import RewardJudge, reward_judge
from judgeloop.judging.truth import Matcher
from judgeloop.judging.verdicts import read, unscored
from judgeloop.records import Call, Client, Item, Judgment, Presentation, Verdict
from judgeloop.seeds import Label
from judgeloop.templates import Mode, Template

TRIAL_PREFIX = "panels/g0/judge/trial"

# The matchup of the trial calls: short, and one answer is plainly better, so that any working judge has a verdict.
_TRIAL_QUESTION = "What is the capital of France?"
_TRIAL_ANSWERS = ("The capital of France is Paris.", "The capital of France is Lyon.")


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


@dataclass(frozen=True)
class ModelJudge:
    """A model that is asked once a presentation, all presentations at the same time."""

    name: str
    spec: experiment.ModelJudge
    endpoint: Endpoint
    template: Template
    mode: Mode
    client: Client
    seed: int
    member: int | None = None
    """Place in a panel: the call ids end in it, and it has its own seeds."""

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        return list(await asyncio.gather(*(self._ask(item, shown, prefix, stream) for shown in presentations)))

    async def _ask(self, item: Item, shown: Presentation, prefix: str, stream: tuple[Label, ...]) -> Judgment:
        name, labels = call_id(prefix, shown), (*stream, *draw_labels(shown))
        if self.member is not None:
            name, labels = f"{name}/j{self.member}", (*labels, f"j{self.member}")
        body = judge_body(
            self.endpoint,
            self.template,
            self.mode,
            prompt=item.prompt,
            first_text=shown.first.text,
            second_text=shown.second.text,
            reference=item.reference,
            temperature=self.spec.temperature,
            max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "judge", *labels),
        )
        reply = await self.client.ask(Call(name, self.spec.endpoint, body))
        return Judgment(shown, self.name, read(reply, self.mode, self.template.ties), name)


@dataclass(frozen=True)
class PanelJudge:
    """The members' most frequent slot among those that gave a verdict; no single most frequent one: tie."""

    members: tuple[ModelJudge, ...]
    name: str = "panel"

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        votes = await asyncio.gather(
            *(
                replace(member, member=index).judge(item, presentations, prefix, stream)
                for index, member in enumerate(self.members)
            )
        )
        return [
            Judgment(shown, self.name, majority([vote.verdict for vote in ballot]), call_id(prefix, shown))
            for shown, *ballot in zip(presentations, *votes, strict=True)
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
    spec: experiment.Judge,
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
    if isinstance(spec, experiment.RandomJudge):
        return RandomJudge(seed, name or judge_name(spec, endpoints))
    if isinstance(spec, experiment.PlantedJudge):
        if measure is None:
            raise ValueError("a planted judge needs a measure of texts")
        return PlantedJudge(spec, seed, measure, name or judge_name(spec, endpoints))
    if isinstance(spec, experiment.GoldJudge):
        named = name or judge_name(spec, endpoints)
        if spec.endpoint is None:
            return GoldJudge(None, named)
        template = templates.load(spec.prompt, folder, "match")
        return GoldJudge(Matcher(client, spec.endpoint, endpoints[spec.endpoint], template), named)
    if isinstance(spec, experiment.RewardJudge):
        named = name or judge_name(spec, endpoints)
        return reward_judge(spec, named, endpoints=endpoints, folder=folder, client=client)
    if isinstance(spec, experiment.PanelJudge):
        modes: Sequence[Mode | None] = [mode] * len(spec.judges) if mode is None or isinstance(mode, str) else mode
        members = (
            _model_judge(block, endpoints, folder, client, seed, chosen, None)
            for block, chosen in zip(spec.judges, modes, strict=True)
        )
        return PanelJudge(tuple(members), name or judge_name(spec, endpoints))
    chosen_mode = mode if mode is None or isinstance(mode, str) else mode[0]
    return _model_judge(spec, endpoints, folder, client, seed, chosen_mode, name)


def judge_name(
    spec: experiment.Judge, endpoints: Mapping[str, Endpoint], mode: Mode | None = None, ambiguous: bool = False
) -> str:
    """What the tables call a judge: the model's name, with ``#prompt/verdict`` behind it where that alone is ambiguous;
    a panel's members in brackets; a reward model's with ``#route``; else its kind."""
    if isinstance(spec, experiment.PanelJudge):
        return "panel(" + ",".join(endpoints[member.endpoint].model for member in spec.judges) + ")"
    if not isinstance(spec, experiment.ModelJudge | experiment.RewardJudge):
        return spec.kind
    model = endpoints[spec.endpoint].model
    if isinstance(spec, experiment.RewardJudge):
        return f"{model}#{spec.route}" if ambiguous else model
    return f"{model}#{Path(spec.prompt).stem}/{mode or spec.verdict}" if ambiguous else model


def model_name(judge: Judge) -> str:
    """The name of the model that a judge asks; empty for a judge that asks none or several."""
    return judge.endpoint.model if isinstance(judge, ModelJudge | RewardJudge) else ""


async def resolve_mode(
    spec: experiment.ModelJudge,
    *,
    endpoints: Mapping[str, Endpoint],
    folder: str | Path,
    client: Client,
    label: str = "",
    prefix: str = TRIAL_PREFIX,
) -> Mode:
    """How this judge's verdicts are read: the block's own mode, or for auto the first of logprob, json and text (of those
    the template has) whose trial call gives a verdict.

    The calls are ``<prefix>/<label>/<mode>``; without a label, endpoint and prompt are it. Raises EndpointFailed if no
    mode gives a verdict, ExperimentError if the template has not the stated mode.
    """
    template = templates.load(spec.prompt, folder, "judge")
    if spec.verdict != "auto":
        return _available(spec.verdict, template)
    label = label or f"{spec.endpoint}.{template.name}"
    failed = []
    for mode in template.modes:
        body = judge_body(
            endpoints[spec.endpoint],
            template,
            mode,
            prompt=_TRIAL_QUESTION,
            first_text=_TRIAL_ANSWERS[0],
            second_text=_TRIAL_ANSWERS[1],
            max_tokens=spec.max_tokens,
        )
        reply = await client.ask(Call(f"{prefix}/{quoted(label)}/{mode}", spec.endpoint, body))
        verdict = read(reply, mode, template.ties)
        if verdict.slot != "unscored":
            return mode
        failed.append(f"{mode}: {verdict.reason}")
    raise EndpointFailed(
        f"endpoints.{spec.endpoint}: {endpoints[spec.endpoint].model} gave no verdict to a trial question with prompt "
        f"{template.name} ({', '.join(failed)}); try another prompt or model, or state judge.verdict"
    )


def _model_judge(
    block: experiment.ModelJudge,
    endpoints: Mapping[str, Endpoint],
    folder: str | Path,
    client: Client,
    seed: int,
    mode: Mode | None,
    name: str | None,
) -> ModelJudge:
    if mode is None:
        if block.verdict == "auto":
            raise ValueError("verdict auto is settled by resolve_mode before the judge is made")
        mode = block.verdict
    template = templates.load(block.prompt, folder, "judge")
    name = name or judge_name(block, endpoints)
    return ModelJudge(name, block, endpoints[block.endpoint], template, _available(mode, template), client, seed)


def _available(mode: Mode, template: Template) -> Mode:
    if mode not in template.modes:
        raise ExperimentError(
            f"judge.verdict: prompt {template.name} cannot be asked in mode {mode}; it has {', '.join(template.modes)}"
        )
    return mode
