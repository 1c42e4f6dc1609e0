"""The exemplar policy: every generation drafts anew, and texts of the training set are in-context examples of the next
generation's drafting prompts. A real recursion on any chat API, without fine-tuning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import quote

import numpy as np

from judgeloop import seeds
from judgeloop.bodies import draft_body
from judgeloop.experiment.schema import Endpoint, PolicySpec
from judgeloop.records import Call, Candidate, Client, Distribution, Item, Message
from judgeloop.text.templates import Template

# Policies, the sources of candidates: a drafted pool that is re-weighted, or new drafts with in-context examples.


@dataclass(frozen=True, slots=True)
class CandidateDraw:
    """One item's candidates in one generation: ``drawn`` in order (a pool text may occur twice); ``failed``: the reason by
    candidate_id of drafts without text."""

    drawn: tuple[Candidate, ...]
    failed: Mapping[str, str]


class Policy(Protocol):
    """One arm's policy in one replicate. Its state changes only in ``update``."""

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        """Every text of the item that has or may have weight, in a stable order."""
        ...

    def current(self, item_id: str) -> Mapping[str, float]:
        """p_current: this generation's distribution over texts (the pool's weights; uniform over an exemplar policy's
        own candidates). Sums to 1, or is empty if the item has no text."""
        ...

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        """K candidates an item, by item_id."""
        ...

    def update(self, training: Distribution) -> None:
        """Make the next policy from the training set, weights by item_id and candidate_id."""
        ...


# Drafting: one text sampled from a model for one item, as a named call.

Exemplar = tuple[str | tuple[Message, ...], str]
"""Another item's prompt and a text of the training set that answers it."""


@dataclass(frozen=True)
class Drafter:
    """Samples texts from the experiment's drafting model."""

    client: Client
    spec: PolicySpec
    endpoint: Endpoint
    template: Template
    seed: int

    async def draft(
        self,
        item: Item,
        candidate_id: str,
        prefix: str,
        stream: tuple[str | int, ...],
        exemplars: Sequence[Exemplar] = (),
    ) -> tuple[Candidate | None, str]:
        """(candidate, "") or (None, why there is none).

        ``prefix`` is the call id up to the item; ``stream`` names the body's seed, without the arm, so that arms whose
        prompts agree draft the same text.
        """
        body = draft_body(
            self.endpoint,
            self.template,
            prompt=item.prompt,
            exemplars=exemplars,
            temperature=self.spec.temperature,
            max_tokens=self.spec.max_tokens,
            seed=seeds.integer(self.seed, "draft", *stream, item.item_id),
        )
        call_id = f"{prefix}/{quote(item.item_id, safe='._-')}/{candidate_id}"
        reply = await self.client.ask(Call(call_id, self.spec.endpoint, body))
        if reply.failure:
            return None, reply.failure
        # A refusal is an answer too: it is the candidate's text.
        return Candidate(item.item_id, candidate_id, reply.text or reply.refusal), ""


@dataclass
class ExemplarPolicy:
    """One arm's exemplar policy in one replicate."""

    drafter: Drafter
    arm: str
    items: Sequence[Item]
    real: Mapping[str, Mapping[str, Candidate]]
    seed: int
    replicate: int
    size: int
    exemplars: int
    training: dict[str, dict[str, float]] = field(default_factory=dict)
    _texts: dict[str, dict[str, Candidate]] = field(default_factory=dict)
    _current: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._texts = {item.item_id: dict(self.real.get(item.item_id, {})) for item in self.items}

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        return self._texts[item_id]

    def current(self, item_id: str) -> Mapping[str, float]:
        names = self._current[item_id]
        return {name: 1.0 / len(names) for name in names}

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        draws = await asyncio.gather(*(self._draft(item, generation) for item in items))
        for item, draw in zip(items, draws, strict=True):
            names = self._current[item.item_id] = [candidate.candidate_id for candidate in draw.drawn]
            self._texts[item.item_id].update(zip(names, draw.drawn, strict=True))
        return {item.item_id: draw for item, draw in zip(items, draws, strict=True)}

    async def _draft(self, item: Item, generation: int) -> CandidateDraw:
        # Generation 0 has no examples, so that all arms share its drafts: no arm in the call id, and one call for all.
        arm = "" if generation == 0 else f"/{self.arm}"
        names = [f"g{generation}k{k}" for k in range(self.size)]
        drafts = await asyncio.gather(
            *(
                self.drafter.draft(
                    item,
                    name,
                    f"s{self.replicate}/g{generation}/draft{arm}",
                    (self.replicate, generation, k),
                    self._examples(item, generation, k),
                )
                for k, name in enumerate(names)
            )
        )
        drafts_by_name = list(zip(names, drafts, strict=True))
        return CandidateDraw(
            tuple(c for _, (c, _) in drafts_by_name if c is not None),
            {name: why for name, (c, why) in drafts_by_name if c is None},
        )

    def _examples(self, item: Item, generation: int, k: int) -> list[Exemplar]:
        """Texts of other items, drawn by training-set weight in the stream (replicate, generation, item, k)."""
        if generation == 0:
            return []
        rng = seeds.rng(self.seed, "exemplars", self.replicate, generation, item.item_id, k)
        # All random numbers are drawn before any choice, so that arms with the same weights choose the same texts.
        shuffled = [self.items[place] for place in rng.permutation(len(self.items))]
        picks = rng.random(self.exemplars)
        sources = [
            source for source in shuffled if source.item_id != item.item_id and self.training.get(source.item_id)
        ]
        return [(source.prompt, self._pick(source.item_id, pick)) for source, pick in zip(sources, picks, strict=False)]

    def _pick(self, item_id: str, pick: float) -> str:
        weights = self.training[item_id]
        names = list(weights)
        edges = np.cumsum([weights[name] for name in names])
        place = int(np.searchsorted(edges, pick * edges[-1], side="right"))
        return self._texts[item_id][names[min(place, len(names) - 1)]].text

    def update(self, training: Distribution) -> None:
        self.training = {
            item_id: {n: float(w) for n, w in weights.items() if w > 0} for item_id, weights in training.items()
        }


# The pool policy: a pool of drafts an item, made once a replicate and shared by the arms; an arm's policy is a weight a text.


@dataclass(frozen=True)
class Pool:
    """The drafted texts of one replicate, by item_id and candidate_id; ``failed``: the reason of drafts without text."""

    texts: Mapping[str, Mapping[str, Candidate]]
    failed: Mapping[str, Mapping[str, str]]


async def draft_pool(drafter: Drafter, items: Sequence[Item], replicate: int, size: int) -> Pool:
    """``size`` drafts an item, as calls ``s<replicate>/g0/draft/<item>/k<NN>``, shared by the arms."""

    async def of_item(item: Item) -> tuple[dict[str, Candidate], dict[str, str]]:
        names = [f"k{number:0{len(str(size - 1))}d}" for number in range(size)]
        drafts = await asyncio.gather(
            *(drafter.draft(item, name, f"s{replicate}/g0/draft", (replicate, 0, k)) for k, name in enumerate(names))
        )
        drafts_by_name = list(zip(names, drafts, strict=True))
        return {name: c for name, (c, _) in drafts_by_name if c is not None}, {
            name: why for name, (c, why) in drafts_by_name if c is None
        }

    pools = await asyncio.gather(*(of_item(item) for item in items))
    ids = [item.item_id for item in items]
    return Pool(
        {i: texts for i, (texts, _) in zip(ids, pools, strict=True)},
        {i: failed for i, (_, failed) in zip(ids, pools, strict=True)},
    )


@dataclass
class PoolPolicy:
    """One arm's weights over the pool and the real texts, which start with weight 0."""

    pool: Pool
    real: Mapping[str, Mapping[str, Candidate]]
    seed: int
    replicate: int
    size: int
    weights: dict[str, dict[str, float]] = field(init=False)
    base: Mapping[str, Mapping[str, float]] = field(init=False)

    def __post_init__(self) -> None:
        self.base = {
            item_id: {
                **{name: 1.0 / len(texts) for name in texts},
                **dict.fromkeys(self.real.get(item_id, {}), 0.0),
            }
            for item_id, texts in self.pool.texts.items()
        }
        self.weights = {item_id: dict(weights) for item_id, weights in self.base.items()}

    def texts(self, item_id: str) -> Mapping[str, Candidate]:
        return {**self.pool.texts[item_id], **self.real.get(item_id, {})}

    def current(self, item_id: str) -> Mapping[str, float]:
        weights = self.weights[item_id]
        return weights if any(weights.values()) else {}

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, CandidateDraw]:
        return {item.item_id: self._draw(item.item_id, generation) for item in items}

    def _draw(self, item_id: str, generation: int) -> CandidateDraw:
        weights, failed = self.current(item_id), self.pool.failed[item_id] if generation == 0 else {}
        if not weights:
            return CandidateDraw((), failed)
        names = list(weights)
        # Inversion of uniforms that arms share: arms with equal weights draw equal texts.
        edges = np.cumsum([weights[name] for name in names])
        draws = seeds.rng(self.seed, "pool", self.replicate, generation, item_id).random(self.size) * edges[-1]
        places = np.searchsorted(edges, draws, side="right")
        texts = self.texts(item_id)
        return CandidateDraw(tuple(texts[names[min(int(place), len(names) - 1)]] for place in places), failed)

    def update(self, training: Distribution) -> None:
        for item_id, weights in self.weights.items():
            if training.get(item_id):
                self.weights[item_id] = {name: float(training[item_id].get(name, 0.0)) for name in weights}
