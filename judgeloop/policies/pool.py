"""The pool policy: a pool of drafts an item, made once a replicate and shared by the arms; an arm's policy is a weight a
text. Generation t draws K texts an item with replacement from w_t; w_0 is uniform over the drafts, 0 on real data."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from judgeloop import seeds
from judgeloop.policies import Drawn
from judgeloop.policies.drafting import Drafter
from judgeloop.records import Candidate, Distribution, Item


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

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, Drawn]:
        return {item.item_id: self._draw(item.item_id, generation) for item in items}

    def _draw(self, item_id: str, generation: int) -> Drawn:
        weights, failed = self.current(item_id), self.pool.failed[item_id] if generation == 0 else {}
        if not weights:
            return Drawn((), failed)
        names = list(weights)
        # Inversion of uniforms that arms share: arms with equal weights draw equal texts.
        edges = np.cumsum([weights[name] for name in names])
        draws = seeds.rng(self.seed, "pool", self.replicate, generation, item_id).random(self.size) * edges[-1]
        places = np.searchsorted(edges, draws, side="right")
        texts = self.texts(item_id)
        return Drawn(tuple(texts[names[min(int(place), len(names) - 1)]] for place in places), failed)

    def update(self, training: Distribution) -> None:
        for item_id, weights in self.weights.items():
            if training.get(item_id):
                self.weights[item_id] = {name: float(training[item_id].get(name, 0.0)) for name in weights}
