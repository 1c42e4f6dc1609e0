"""Policies, the sources of candidates: a drafted pool that is re-weighted, or new drafts with in-context examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from judgeloop.records import Candidate, Distribution, Item


@dataclass(frozen=True, slots=True)
class Drawn:
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

    async def candidates(self, items: Sequence[Item], generation: int) -> dict[str, Drawn]:
        """K candidates an item, by item_id."""
        ...

    def update(self, training: Distribution) -> None:
        """Make the next policy from the training set, weights by item_id and candidate_id."""
        ...
