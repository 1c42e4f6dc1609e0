"""Judges that follow a known law, for controls and tests: a coin, the reference, one feature, planted coefficients; and what is right."""

# ruff: noqa: ARG002
from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from judgeloop import seeds
from judgeloop.bodies import match_body
from judgeloop.errors import ExperimentError
from judgeloop.experiment.schema import Endpoint, PlantedJudgeSpec, RuleJudgeSpec
from judgeloop.judging.answers import read_match, unscored
from judgeloop.judging.pairing import draw_labels, quoted
from judgeloop.records import Call, Candidate, Client, Item, Judgment, Presentation, Slot, Verdict
from judgeloop.seeds import Label
from judgeloop.text.features import remembered
from judgeloop.text.matching import correct, gold_of, is_asked
from judgeloop.text.templates import Template

NOT_FEATURES = ("position", "quality")


def planted_log_odds(
    coefficients: Mapping[str, float],
    features_first: Mapping[str, float],
    features_second: Mapping[str, float],
    quality_difference: float = 0.0,
) -> float:
    """Log-odds that the first slot is picked; positive = prefers the first slot.

    position + quality · quality_difference + Σ_f coefficient_f · (f(first) − f(second)), the model of
    docs/method.md, "The content model". ``coefficients`` has ``position``, ``quality`` and one key a feature
    (``length``: log-odds per doubling of tokens, as the feature is log2 tokens; others: per unit, as 1 per 100 tokens);
    keys left out are 0. ``quality_difference`` is first − second. Raises ValueError where a text lacks a feature that
    has a coefficient.
    """
    total = coefficients.get("position", 0.0) + coefficients.get("quality", 0.0) * quality_difference
    for name, coefficient in coefficients.items():
        if name in NOT_FEATURES or coefficient == 0:
            continue
        if name not in features_first or name not in features_second:
            raise ValueError(f"no feature {name!r} was measured; known: {', '.join(sorted(features_first))}")
        total += coefficient * (features_first[name] - features_second[name])
    return float(total)


def logistic(log_odds: float) -> float:
    """The probability in [0, 1] with those log-odds; does not overflow."""
    if log_odds >= 0:
        return 1.0 / (1.0 + math.exp(-log_odds))
    odds = math.exp(log_odds)
    return odds / (1.0 + odds)


def log_logistic(log_odds: float) -> float:
    """Natural log of ``logistic(log_odds)``, exact also where the probability underflows."""
    return min(log_odds, 0.0) - math.log1p(math.exp(-abs(log_odds)))


Measure = Callable[[str], Mapping[str, float]]
"""A text's features: ``length`` in log2 tokens, others per 100 tokens."""


def candidates_of(presentations: Sequence[Presentation]) -> list[Candidate]:
    """The candidates shown in the presentations, one a slot."""
    return [candidate for presentation in presentations for candidate in (presentation.first, presentation.second)]


@dataclass(frozen=True)
class RandomJudge:
    """A fair coin for each pair of texts: the control for drift without a judge's preference.

    One toss decides a pair in every presentation, so that every pair prefers one of its texts, as under a judge that decides:
    two tosses would cancel in half of the pairs, and leave half as many to train on.
    """

    seed: int
    name: str = "random"

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        return [
            Judgment(presentation, self.name, Verdict(self._coin(presentation, stream)))
            for presentation in presentations
        ]

    async def scores(
        self, item: Item, candidates: Sequence[Candidate], prefix: str, stream: tuple[Label, ...]
    ) -> dict[str, float]:
        """candidate_id → 0 or 1, by a fair coin of that stream."""
        coins = {
            c.candidate_id: seeds.uniform(self.seed, "coin-score", *stream, item.item_id, c.candidate_id)
            for c in candidates
        }
        return {name: float(coin < 0.5) for name, coin in coins.items()}

    def _coin(self, presentation: Presentation, stream: tuple[Label, ...]) -> Slot:
        pair = presentation.matchup
        first_text = seeds.uniform(self.seed, "coin", *stream, pair.item_id, pair.pair_id) < 0.5
        return "first" if first_text == (presentation.order == "ab") else "second"


@dataclass(frozen=True)
class GoldJudge:
    """Prefers the candidate that matches the item's reference; both, neither or no reference: tie.

    With ``match: judge`` ``matcher`` decides whether a text agrees with the reference, by one call a distinct text.
    """

    matcher: Matcher | None = None
    name: str = "gold"

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        """See ``Judge``; a run calls ``verdicts`` instead, with one Truth for all its arms. Raises ExperimentError for an
        item with match: judge and no matcher."""
        if self.matcher is None and is_asked(item):
            raise ExperimentError(
                f"items: {item.item_id}: match: judge needs a model; name an endpoint in the gold judge (judge.endpoint)"
            )
        truth = Truth(self.matcher)
        await truth.learn({item.item_id: item}, candidates_of(presentations), prefix)
        return self.verdicts(item, presentations, truth)

    def verdicts(self, item: Item, presentations: Sequence[Presentation], truth: Truth) -> list[Judgment]:
        """One judgment a presentation, from the known matches; ``call`` is that of the text in the first slot."""
        return [self._judgment(item, presentation, truth) for presentation in presentations]

    def scores(self, item: Item, candidates: Sequence[Candidate], truth: Truth) -> dict[str, float]:
        """candidate_id → 1 where a text is right, 0 where it is wrong; without those of which that is not known."""
        known = {candidate.candidate_id: truth.correct(item, candidate) for candidate in candidates}
        return {name: float(correct) for name, correct in known.items() if correct is not None}

    def _judgment(self, item: Item, presentation: Presentation, truth: Truth) -> Judgment:
        first, second = truth.match(item, presentation.first.text), truth.match(item, presentation.second.text)
        why = first.reason or second.reason
        if why:
            return Judgment(presentation, self.name, unscored(why), first.call)
        slots: dict[str, Slot] = {"a": "first", "b": "second", "tie": "tie"}
        return Judgment(presentation, self.name, Verdict(slots[gold_of(first.value, second.value)]), first.call)


@dataclass(frozen=True)
class RuleJudge:
    """Prefers the text with more of a feature, or with less; equal: tie. The positive control: its taste is known."""

    spec: RuleJudgeSpec
    name: str

    async def judge(
        self,
        item: Item,
        presentations: Sequence[Presentation],
        prefix: str,
        stream: tuple[Label, ...],
    ) -> list[Judgment]:
        texts = {candidate.text for candidate in candidates_of(presentations)}
        worth = {text: self._worth(item, text) for text in texts}
        return [
            Judgment(shown, self.name, Verdict(_higher(worth[shown.first.text], worth[shown.second.text])))
            for shown in presentations
        ]

    async def scores(
        self, item: Item, candidates: Sequence[Candidate], prefix: str, stream: tuple[Label, ...]
    ) -> dict[str, float]:
        """candidate_id → the feature, or less it where the rule prefers less."""
        return {candidate.candidate_id: self._worth(item, candidate.text) for candidate in candidates}

    def _worth(self, item: Item, text: str) -> float:
        value = float(getattr(remembered(text, item.language), self.spec.feature))
        return value if self.spec.prefer == "more" else -value


def _higher(first: float, second: float) -> Slot:
    """The slot of the higher number; equal: tie."""
    return "tie" if first == second else "first" if first > second else "second"


@dataclass(frozen=True)
class PlantedJudge:
    """A judge with stated coefficients, whose biases are known; it calls no model.

    P(first) is the logistic of ``planted_log_odds`` plus noise, the law that the planted server has too.
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
        texts = {candidate.text for candidate in candidates_of(presentations)}
        measured = {text: (self.measure(text), float(correct(item, text) or False)) for text in texts}
        coefficients = {"position": self.spec.position, **self._content}
        judgments = []
        for presentation in presentations:
            (features_first, right_first), (features_second, right_second) = (
                measured[presentation.first.text],
                measured[presentation.second.text],
            )
            log_odds = planted_log_odds(coefficients, features_first, features_second, right_first - right_second)
            judgments.append(
                Judgment(presentation, self.name, self._verdict(log_odds, (*stream, *draw_labels(presentation))))
            )
        return judgments

    async def scores(
        self, item: Item, candidates: Sequence[Candidate], prefix: str, stream: tuple[Label, ...]
    ) -> dict[str, float]:
        """candidate_id → the log-odds of the text by itself, in which position plays no part. Each text has its own noise, of
        SD noise/√2, so that the difference of two has ``noise``; a share ``unscored`` has no score."""
        scores = {}
        for candidate in candidates:
            labels = (*stream, item.item_id, candidate.candidate_id)
            if self.spec.unscored and seeds.uniform(self.seed, "planted-no-score", *labels) < self.spec.unscored:
                continue
            features = self.measure(candidate.text)
            right = float(correct(item, candidate.text) or False)
            score = planted_log_odds(self._content, features, dict.fromkeys(features, 0.0), right)
            if self.spec.noise:
                draw = seeds.rng(self.seed, "planted-score-noise", *labels).standard_normal()
                score += self.spec.noise / math.sqrt(2.0) * float(draw)
            scores[candidate.candidate_id] = score
        return scores

    @property
    def _content(self) -> dict[str, float]:
        """The coefficients of what a text has wherever it stands."""
        return {"length": self.spec.length, "quality": self.spec.quality, **self.spec.features}

    def _verdict(self, log_odds: float, labels: tuple[Label, ...]) -> Verdict:
        spec = self.spec
        if spec.unscored and seeds.uniform(self.seed, "planted-unscored", *labels) < spec.unscored:
            return unscored("no_verdict")
        if spec.noise:
            log_odds += spec.noise * float(seeds.rng(self.seed, "planted-noise", *labels).standard_normal())
        p_first = logistic(log_odds)
        if spec.hard and not spec.temperature0:
            return Verdict("first" if seeds.uniform(self.seed, "planted-pick", *labels) < p_first else "second")
        return Verdict(_higher(log_odds, 0.0), None if spec.temperature0 else p_first)


# Whether texts are right by their items' references: by rule, or by a model where an item has ``match: judge``.

_DIGITS = 16
"""Digits of the text's SHA-256 in a call id. The cassette also compares the body, so that a clash mixes up no texts."""


@dataclass(frozen=True, slots=True)
class Match:
    """Whether a text matches; None where that is not known, with ``reason`` where a reply gave no answer.

    ``call``: the id of the call, where a model was asked.
    """

    value: bool | None
    reason: str = ""
    call: str = ""


@dataclass(frozen=True)
class Matcher:
    """A model that is asked whether a text agrees with the reference."""

    client: Client
    endpoint_key: str
    endpoint: Endpoint
    template: Template

    async def match(self, item: Item, text: str, stem: str) -> Match:
        """The answer to the call ``<stem>/gold/<item>/<digest of the text>``, whose id does not depend on candidate,
        arm or generation. Raises what the client raises."""
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
        call_id = f"{stem}/gold/{quoted(item.item_id)}/{digest}"
        body = match_body(self.endpoint, self.template, prompt=item.prompt, answer=text, reference=item.reference or "")
        agrees, reason = read_match(await self.client.ask(Call(call_id, self.endpoint_key, body)))
        return Match(agrees, reason, call_id)


class Truth:
    """The matches of the texts of one unit of work (a replicate, or the panels). A model is asked once about an item's
    text, however many candidates, arms and generations have it. Without a matcher ``match: judge`` items stay unknown."""

    def __init__(self, matcher: Matcher | None) -> None:
        self._matcher = matcher
        self._tasks: dict[tuple[str, str], asyncio.Task[Match]] = {}

    async def learn(self, items: Mapping[str, Item], candidates: Iterable[Candidate], stem: str) -> None:
        """Ask the model about the candidates' texts that need it and are new; returns when all are known.

        ``stem`` begins the call ids of the new texts (see ``Matcher.match``). It must not name an arm: arms share the calls
        of the first of them. Raises what the client raises.
        """
        if self._matcher is None:
            return
        texts = {(c.item_id, c.text): items[c.item_id] for c in candidates if is_asked(items[c.item_id])}
        for key, item in texts.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._matcher.match(item, key[1], stem))
        await asyncio.gather(*(self._tasks[key] for key in texts))

    def match(self, item: Item, text: str) -> Match:
        """The match of a text; where a model must decide it, known only after ``learn``."""
        if not is_asked(item):
            return Match(correct(item, text))
        task = self._tasks.get((item.item_id, text))
        return task.result() if task is not None else Match(None)

    def correct(self, item: Item, candidate: Candidate) -> bool | None:
        """Whether a candidate is right; None where that is not known."""
        return self.match(item, candidate.text).value
