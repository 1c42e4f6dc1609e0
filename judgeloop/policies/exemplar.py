"""The exemplar policy: every generation drafts anew, and texts of the training set are in-context examples of the next
generation's drafting prompts. A real recursion on any chat API, without fine-tuning."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from judgeloop import seeds
from judgeloop.policies import Drawn
from judgeloop.policies.drafting import Drafter, Exemplar
from judgeloop.records import Candidate, Distribution, Item


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

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, Drawn]:
        draws = await asyncio.gather(*(self._draft(item, generation) for item in items))
        for item, draw in zip(items, draws, strict=True):
            names = self._current[item.item_id] = [candidate.candidate_id for candidate in draw.drawn]
            self._texts[item.item_id].update(zip(names, draw.drawn, strict=True))
        return {item.item_id: draw for item, draw in zip(items, draws, strict=True)}

    async def _draft(self, item: Item, generation: int) -> Drawn:
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
        return Drawn(
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
