"""Pairing: which candidates meet, in which orders they are shown, and how a presentation is named in calls and draws."""

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

    ``pair_id`` is m00, m01 … by place among all K(K−1)/2 pairs, so that a limit renames nothing. ``a`` is the candidate
    drawn earlier. The same candidate may stand twice among the K (draws with replacement): the pair then shows identical
    texts. Raises ValueError if a limit below the number of pairs comes without ``rng``.
    """
    pairs = [Matchup(item_id, f"m{index:02d}", a, b) for index, (a, b) in enumerate(combinations(candidates, 2))]
    if limit is None or limit >= len(pairs):
        return pairs
    if rng is None:
        raise ValueError("a limited number of matchups needs a random stream")
    kept = rng.choice(len(pairs), size=limit, replace=False)
    return [pairs[index] for index in sorted(kept.tolist())]


def presentations(pairs: Sequence[Matchup], repeats: int = 1) -> list[Presentation]:
    """Every matchup in both orders, each ``repeats`` times: matchup by matchup, ab before ba."""
    return [Presentation(matchup, order, repeat) for matchup in pairs for order in ORDERS for repeat in range(repeats)]


def quoted(name: str) -> str:
    """A name as one segment of a call id."""
    return quote(name, safe="._-")


def call_id(prefix: str, shown: Presentation) -> str:
    """The id of the call that judges a presentation: ``prefix/item/pair/order/r<repeat>``."""
    matchup = shown.matchup
    return f"{prefix}/{quoted(matchup.item_id)}/{quoted(matchup.pair_id)}/{shown.order}/r{shown.repeat}"


def draw_labels(shown: Presentation) -> tuple[Label, ...]:
    """What names a presentation in a random stream."""
    return shown.matchup.item_id, shown.matchup.pair_id, shown.order, shown.repeat
