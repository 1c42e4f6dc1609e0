"""Pairing: matchups of candidates, presentations in both orders, and the names of presentations in calls and draws."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from urllib.parse import quote

import numpy as np

from judgeloop.records import ORDERS, Candidate, Matchup, Presentation
from judgeloop.seeds import Label


def matchups(
    item_id: str, candidates: Sequence[Candidate], limit: int | None = None, rng: np.random.Generator | None = None
) -> list[Matchup]:
    """All pairs of an item's K candidates in stable order, or ``limit`` of them drawn without replacement.

    ``pair_id`` is m00, m01 … by place among all K(K−1)/2 pairs, so that the names do not depend on the limit. ``a`` is the candidate
    drawn earlier. The same candidate may be twice among the K (draws with replacement): the pair then shows identical
    texts. Raises ValueError if a limit below the number of pairs comes without ``rng``.
    """
    pairs = [Matchup(item_id, f"m{index:02d}", a, b) for index, (a, b) in enumerate(combinations(candidates, 2))]
    if limit is None or limit >= len(pairs):
        return pairs
    if rng is None:
        raise ValueError("a limited number of matchups needs a random stream")
    indices = rng.choice(len(pairs), size=limit, replace=False)
    return [pairs[index] for index in sorted(indices.tolist())]


def presentations(pairs: Sequence[Matchup], repeats: int = 1) -> list[Presentation]:
    """Every matchup in both orders, each ``repeats`` times: matchup by matchup, ab before ba."""
    return [Presentation(matchup, order, repeat) for matchup in pairs for order in ORDERS for repeat in range(repeats)]


def quoted(name: str) -> str:
    """A name as one segment of a call id."""
    return quote(name, safe="._-")


def call_id(prefix: str, presentation: Presentation) -> str:
    """The id of the call that judges a presentation: ``prefix/item/pair/order/r<repeat>``."""
    matchup = presentation.matchup
    return f"{prefix}/{quoted(matchup.item_id)}/{quoted(matchup.pair_id)}/{presentation.order}/r{presentation.repeat}"


def draw_labels(presentation: Presentation) -> tuple[Label, ...]:
    """The labels of a presentation in a random stream."""
    return presentation.matchup.item_id, presentation.matchup.pair_id, presentation.order, presentation.repeat
