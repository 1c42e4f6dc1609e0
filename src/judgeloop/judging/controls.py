"""Judges whose law is known: the coin, the reference and the planted coefficients. Controls and test beds."""

# Every judge takes the arguments of the protocol, whether its law needs them or not.
# ruff: noqa: ARG002

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from judgeloop import law, seeds
from judgeloop.bodies import match_body
from judgeloop.errors import ExperimentError
from judgeloop.experiment import Endpoint
from judgeloop.experiment import PlantedJudge as PlantedJudgeSpec
from judgeloop.gold import correct, gold_of
from judgeloop.judging.pairing import draw_labels, quoted
from judgeloop.judging.verdicts import read_match, unscored
from judgeloop.records import Call, Candidate, Client, Item, Judgment, Presentation, Slot, Verdict
from judgeloop.seeds import Label
from judgeloop.templates import Template

Measure = Callable[[str], Mapping[str, float]]
"""A text's features: ``length`` in log2 tokens, others per 100 tokens."""


@dataclass(frozen=True)
class RandomJudge:
    """A fair coin a presentation: the control for drift that no judge causes."""

    seed: int
    name: str = "random"

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        return [Judgment(shown, self.name, Verdict(self._coin(shown, stream))) for shown in presentations]

    def _coin(self, shown: Presentation, stream: tuple[Label, ...]) -> Slot:
        return "first" if seeds.uniform(self.seed, "coin", *stream, *draw_labels(shown)) < 0.5 else "second"


@dataclass(frozen=True)
class GoldJudge:
    """Prefers the candidate that matches the item's reference; both, neither or no reference: tie.

    With ``match: judge`` a model is asked whether a text agrees with the reference: one call a distinct text.
    """

    client: Client
    endpoint_key: str | None = None
    endpoint: Endpoint | None = None
    template: Template | None = None
    name: str = "gold"

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        shown_candidates = [candidate for shown in presentations for candidate in (shown.first, shown.second)]
        matches = await self.matches(item, shown_candidates, prefix)
        return [self._judgment(shown, matches) for shown in presentations]

    async def matches(
        self, item: Item, candidates: Sequence[Candidate], prefix: str
    ) -> dict[str, tuple[bool | None, str, str]]:
        """text → (it matches the reference, why that is not known, call id) for each distinct text.

        None with no reason: the item has no reference. Raises ExperimentError if a model must say and none is named.
        """
        by_text: dict[str, Candidate] = {}
        # The call is named by the smallest id, not by the order of presentation.
        for candidate in sorted(candidates, key=lambda candidate: candidate.candidate_id):
            by_text.setdefault(candidate.text, candidate)
        if item.match != "judge" or item.reference is None:
            return {text: (correct(item, text), "", "") for text in by_text}
        found = await asyncio.gather(*(self._agrees(item, item.reference, c, prefix) for c in by_text.values()))
        return dict(zip(by_text, found, strict=True))

    async def _agrees(
        self, item: Item, reference: str, candidate: Candidate, prefix: str
    ) -> tuple[bool | None, str, str]:
        if self.endpoint is None or self.endpoint_key is None or self.template is None:
            raise ExperimentError(
                f"items: {item.item_id}: match: judge needs a model; name an endpoint in the gold judge (judge.endpoint)"
            )
        call_id = f"{prefix}/gold/{quoted(item.item_id)}/{quoted(candidate.candidate_id)}"
        body = match_body(self.endpoint, self.template, prompt=item.prompt, answer=candidate.text, reference=reference)
        agrees, reason = read_match(await self.client.ask(Call(call_id, self.endpoint_key, body)))
        return agrees, reason, call_id

    def _judgment(self, shown: Presentation, matches: Mapping[str, tuple[bool | None, str, str]]) -> Judgment:
        (first, why_first, call_first), (second, why_second, _) = (
            matches[candidate.text] for candidate in (shown.first, shown.second)
        )
        why = why_first or why_second
        if why:
            return Judgment(shown, self.name, unscored(why), call_first)
        slots: dict[str, Slot] = {"a": "first", "b": "second", "tie": "tie"}
        return Judgment(shown, self.name, Verdict(slots[gold_of(first, second)]), call_first)


@dataclass(frozen=True)
class PlantedJudge:
    """A judge with stated coefficients, for known truth; no model is asked.

    P(first) is the logistic of ``law.planted_log_odds`` plus noise, the model of the method notes §1.1.
    """

    spec: PlantedJudgeSpec
    seed: int
    measure: Measure
    name: str = "planted"

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        texts = {candidate.text for shown in presentations for candidate in (shown.first, shown.second)}
        known = {text: (self.measure(text), float(correct(item, text) or False)) for text in texts}
        coefficients = {
            "position": self.spec.position,
            "length": self.spec.length,
            "quality": self.spec.quality,
            **self.spec.features,
        }
        judgments = []
        for shown in presentations:
            (features_first, right_first), (features_second, right_second) = (
                known[shown.first.text],
                known[shown.second.text],
            )
            log_odds = law.planted_log_odds(coefficients, features_first, features_second, right_first - right_second)
            judgments.append(Judgment(shown, self.name, self._verdict(log_odds, (*stream, *draw_labels(shown)))))
        return judgments

    def _verdict(self, log_odds: float, labels: tuple[Label, ...]) -> Verdict:
        spec = self.spec
        if spec.unscored and seeds.uniform(self.seed, "planted-unscored", *labels) < spec.unscored:
            return unscored("no_verdict")
        if spec.noise:
            log_odds += spec.noise * float(seeds.rng(self.seed, "planted-noise", *labels).standard_normal())
        p_first = law.logistic(log_odds)
        if spec.hard and not spec.temperature0:
            return Verdict("first" if seeds.uniform(self.seed, "planted-pick", *labels) < p_first else "second")
        slot: Slot = "tie" if log_odds == 0 else "first" if log_odds > 0 else "second"
        return Verdict(slot, None if spec.temperature0 else p_first)
