"""Judges of texts, and reward models as such: each text is scored once, alone, and a pair's verdict follows from two scores.

P(first) = s((score of the first − score of the second) / temperature), the Bradley–Terry model by which reward models are
trained; the larger score is the verdict, equal scores are a tie. No text is shown beside another, so no order can matter:
both orders of a pair rest on the same two calls. Reasons are those of ``judging.answers`` and these:

==============  ====================================================================================================
no_score        the answer holds no number where the route has its score
not_finite      the score is NaN or infinite
several_scores  the model gives several numbers, and no label names the score
no_label        the model gives no number of that label
not_a_share     a score that was said to be a probability is not strictly between 0 and 1
==============  ====================================================================================================
"""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from judgeloop.bodies import reward_body
from judgeloop.errors import EndpointFailed
from judgeloop.experiment import schema
from judgeloop.experiment.options import remedy
from judgeloop.experiment.schema import Endpoint
from judgeloop.judging.answers import TRIAL_ANSWERS, TRIAL_QUESTION
from judgeloop.judging.controls import candidates_of, logistic
from judgeloop.judging.pairing import quoted
from judgeloop.records import Call, Candidate, Client, Item, Judgment, Presentation, Reply, Slot, Verdict
from judgeloop.seeds import Label
from judgeloop.text import templates
from judgeloop.text.templates import Template

_ADVICE = {
    "several_scores": "state judge.label, the place of the score among them, counted from 0",
    "no_label": "mend judge.label, which counts from 0",
    "not_a_share": "use score: raw or served, since its numbers are no probabilities",
}


@dataclass(frozen=True, slots=True)
class Reward:
    """A text's score; None where there is none, with ``reason``, and ``detail`` where the endpoint gave more. ``call``: the id
    of its call."""

    value: float | None
    reason: str = ""
    call: str = ""
    detail: str = ""


def read_reward(reply: Reply, spec: schema.RewardJudgeSpec, call: str = "") -> Reward:
    """The score in a reply, or the reason why it has none; never raises."""
    if reply.failure:
        return Reward(None, reply.failure, call, reply.detail)
    if not reply.numbers:
        return Reward(None, "no_score", call)
    if spec.label is None and len(reply.numbers) > 1:
        return Reward(None, "several_scores", call)
    if spec.label is not None and spec.label >= len(reply.numbers):
        return Reward(None, "no_label", call)
    value = reply.numbers[spec.label or 0]
    if value is None:
        return Reward(None, "not_finite", call)
    if spec.score == "probability":
        if not 0.0 < value < 1.0:
            return Reward(None, "not_a_share", call)
        value = math.log(value) - math.log1p(-value)
    return Reward(value, "", call)


def verdict_of(first: Reward, second: Reward, temperature: float | None) -> Verdict:
    """The verdict between two scored texts, without a probability where there is no ``temperature``; unscored where one of them
    has no score, with that one's reason."""
    if first.value is None or second.value is None:
        lacking = first if first.value is None else second
        return Verdict("unscored", reason=lacking.reason, said=lacking.detail)
    slot: Slot = "tie" if first.value == second.value else "first" if first.value > second.value else "second"
    return Verdict(slot, None if temperature is None else logistic((first.value - second.value) / temperature))


class JudgeOfTexts(ABC):
    """A judge that scores each text once, alone; the verdict on a pair follows from two scores. A judgment's ``call`` is that of
    the text in the first slot."""

    name: str

    @property
    def temperature(self) -> float | None:
        """Divides the difference of two scores; None where a verdict has no probability."""
        return None

    @abstractmethod
    async def score(self, item: Item, candidate: Candidate, prefix: str, stream: tuple[Label, ...]) -> Reward:
        """One text's score, larger = better, by the call ``prefix/item/score/candidate``."""

    async def judge(
        self, item: Item, presentations: Sequence[Presentation], prefix: str, stream: tuple[Label, ...]
    ) -> list[Judgment]:
        rewards = await self._rewards(item, candidates_of(presentations), prefix, stream)
        return [self._judgment(presentation, rewards) for presentation in presentations]

    async def scores(
        self, item: Item, candidates: Sequence[Candidate], prefix: str, stream: tuple[Label, ...]
    ) -> dict[str, float]:
        """candidate_id → score, without those that got none; the calls are those of ``judge``."""
        rewards = await self._rewards(item, candidates, prefix, stream)
        values = {candidate.candidate_id: rewards[candidate.text].value for candidate in candidates}
        return {name: value for name, value in values.items() if value is not None}

    async def _rewards(
        self, item: Item, candidates: Sequence[Candidate], prefix: str, stream: tuple[Label, ...]
    ) -> dict[str, Reward]:
        """Text → its reward, one call a text."""
        by_text: dict[str, Candidate] = {}
        # The call is named by the smallest id, not by the order of presentation.
        for candidate in sorted(candidates, key=lambda candidate: candidate.candidate_id):
            by_text.setdefault(candidate.text, candidate)
        scores = await asyncio.gather(*(self.score(item, one, prefix, stream) for one in by_text.values()))
        return dict(zip(by_text, scores, strict=True))

    def _judgment(self, presentation: Presentation, rewards: Mapping[str, Reward]) -> Judgment:
        first, second = rewards[presentation.first.text], rewards[presentation.second.text]
        return Judgment(presentation, self.name, verdict_of(first, second, self.temperature), first.call)


def score_call(item: Item, candidate: Candidate, prefix: str) -> str:
    """The id of the call that scores a text."""
    return f"{prefix}/{quoted(item.item_id)}/score/{quoted(candidate.candidate_id)}"


@dataclass(frozen=True)
class RewardJudge(JudgeOfTexts):
    """A reward model."""

    name: str
    spec: schema.RewardJudgeSpec
    endpoint: Endpoint
    template: Template | None
    client: Client

    @property
    def temperature(self) -> float:
        """Divides the difference of two scores."""
        return self.spec.temperature

    async def score(
        self,
        item: Item,
        candidate: Candidate,
        prefix: str,
        stream: tuple[Label, ...] = (),  # noqa: ARG002 - nothing is drawn
    ) -> Reward:
        name = score_call(item, candidate, prefix)
        body = reward_body(
            self.endpoint, self.spec.route, self.template, prompt=item.prompt, answer=candidate.text,
            raw=self.spec.score == "raw",
        )  # fmt: skip
        reply = await self.client.ask(Call(name, self.spec.endpoint, body, self.spec.route))
        return read_reward(reply, self.spec, name)


def reward_judge(
    spec: schema.RewardJudgeSpec, name: str, *, endpoints: Mapping[str, Endpoint], folder: str | Path, client: Client
) -> RewardJudge:
    """The judge that a block describes. Raises ExperimentError for a template that is wrong."""
    template = None if spec.prompt is None else templates.load(spec.prompt, folder, "reward")
    return RewardJudge(name, spec, endpoints[spec.endpoint], template, client)


async def check_reward(judge: RewardJudge, prefix: str) -> None:
    """One recorded trial call, ``prefix/model/score/trial``: raises EndpointFailed where it gives no score."""
    item = Item(judge.spec.endpoint, TRIAL_QUESTION)
    reward = await judge.score(item, Candidate(item.item_id, "trial", TRIAL_ANSWERS[0]), prefix)
    if reward.value is None:
        advice = _ADVICE.get(reward.reason, f"check that {judge.endpoint.model} is served as a reward model, or try another judge.route")  # fmt: skip
        raise EndpointFailed(
            f"endpoints.{judge.spec.endpoint}: {judge.endpoint.model} gave no score to a trial text by route "
            f"{judge.spec.route} ({reward.detail or reward.reason}); {remedy(reward.detail) or advice}"
        )
