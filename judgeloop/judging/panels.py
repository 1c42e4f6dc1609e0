"""The fixed panels that the judge judges again in every generation, shared by arms and replicates: anchor pairs, and
probes, the edits of their texts. They are never trained on: a change of the verdicts is the judge's drift, not the
candidates'."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from judgeloop.judging.probes import ProbePair, rule_pairs
from judgeloop.records import Candidate, Item, Matchup

Draft = Callable[[Item, str, str, tuple[str | int, ...]], Awaitable[tuple[Candidate | None, str]]]
"""(item, candidate_id, call-id prefix, stream) → (candidate, "") or (None, reason)."""


@dataclass(frozen=True)
class AnchorPanel:
    """Pairs with their items; ``failed`` are drafts that have no text, as (item_id, candidate_id, reason)."""

    items: Mapping[str, Item]
    matchups: tuple[Matchup, ...]
    failed: tuple[tuple[str, str, str], ...] = ()

    def by_item(self) -> dict[str, list[Matchup]]:
        """Matchups by item_id, in panel order."""
        matchups: dict[str, list[Matchup]] = {}
        for matchup in self.matchups:
            matchups.setdefault(matchup.item_id, []).append(matchup)
        return matchups


async def draft_anchor(size: int, items: Sequence[Item], draft: Draft) -> AnchorPanel:
    """``size`` pairs, dealt to the items in turn, each of two texts that the base policy drafts for the panel only."""

    async def pair(number: int) -> tuple[Item, list[tuple[str, Candidate | None, str]]]:
        item, turn = items[number % len(items)], number // len(items)
        names = [f"anchor{2 * turn}", f"anchor{2 * turn + 1}"]
        drafts = [await draft(item, name, "panels/g0/draft", ("anchor", name)) for name in names]
        return item, [(name, candidate, why) for name, (candidate, why) in zip(names, drafts, strict=True)]

    pairs = await asyncio.gather(*(pair(number) for number in range(size)))
    matchups, failed = [], []
    for number, (item, drafts) in enumerate(pairs):
        (_, a, _), (_, b, _) = drafts
        if a is not None and b is not None:
            matchups.append(Matchup(item.item_id, f"anchor-{number:03d}", a, b))
        failed += [(item.item_id, name, why) for name, candidate, why in drafts if candidate is None]
    return AnchorPanel({item.item_id: item for item in items}, tuple(matchups), tuple(failed))


def anchor_from_pairs(pairs: Sequence[tuple[str, Item, str, str]]) -> AnchorPanel:
    """The anchor panel of a pairs file: (pair_id, item, text_a, text_b)."""
    items = {item.item_id: item for _, item, _, _ in pairs}
    matchups = [
        Matchup(
            item.item_id,
            pair_id,
            Candidate(item.item_id, f"{pair_id}:a", text_a),
            Candidate(item.item_id, f"{pair_id}:b", text_b),
        )
        for pair_id, item, text_a, text_b in pairs
    ]
    return AnchorPanel(items, tuple(matchups))


def probes_of_panel(panel: AnchorPanel, probes: Sequence[str], seed: int, judge_name: str = "") -> list[ProbePair]:
    """The probe panel: every anchor text against its edits by rule, in the item's language; edits that name the judge use
    ``judge_name``."""
    return [
        pair
        for matchup in panel.matchups
        for pair in rule_pairs(
            matchup, probes, seed=seed, language=panel.items[matchup.item_id].language, judge_name=judge_name
        )
    ]
