"""Judges of one audit side by side, on the pairs that both judged. Positive = more of the term in the row's judge.

A description: pairs of judges are many and were not declared beforehand, so that no p of theirs is adjusted or claimed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import cast

import pandas as pd

from judgeloop.stats.compare.contender import Contender, with_pair_keys
from judgeloop.stats.compare.differences import SHARED, judge_differences, shared_pairs
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.rows import RATE_MARGIN

PREFIX = "judge_difference_"
MOST_JUDGES = 8
"""More judges than these have too many pairs to read: `judgeloop compare` takes those that matter."""

_PANELS = ("pairs", "anchor", "policy")


def judge_difference_estimates(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str], *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``judge_difference_<term>`` of every two of ``judges`` that share half of their pairs or more, variant ``vs <other>``.

    ``judgments``: CONTRACT's columns, of all judges; ``texts``: features (see ``content_estimates``). The difference is the
    judge's minus the other's, on the same pairs and for probes on the same edits, clustered by item (see
    ``compared_judges``). Rows of different ``arm`` or ``generation`` stand apart; none for more than MOST_JUDGES judges.
    """
    if not 2 <= len(judges) <= MOST_JUDGES:
        return []
    found: list[Estimate] = []
    keyed = with_pair_keys(judgments[judgments["judge"].isin(judges)], None)
    for (arm, generation), several in keyed.groupby(["arm", "generation"], dropna=False, sort=True):
        panel = next((name for name in _PANELS if (several["panel"] == name).any()), "")
        turn = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
        some = several[several["panel"].isin([panel, "probe"])]
        for one, other in combinations(_contenders(some, texts, judges), 2):
            shared, *counts = shared_pairs(one, other)
            if shared and shared >= SHARED * min(counts):
                rows = (difference.row for difference in judge_differences(one, other, margin))
                found += _named(rows, one.name, other.name, str(arm), turn, panel)
    return found


def _contenders(judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str]) -> list[Contender]:
    by_judge = dict(list(judgments.groupby("judge", sort=True)))
    return [
        Contender(name=judge, source="", judge=judge, judgments=by_judge[judge], texts=texts)
        for judge in judges
        if judge in by_judge
    ]


def _named(
    rows: Iterable[Estimate], judge: str, other: str, arm: str, generation: int | None, panel: str
) -> list[Estimate]:
    return [
        dataclasses.replace(
            row, judge=judge, arm=arm, generation=generation, term=PREFIX + row.term,
            panel="probe" if row.term.endswith("_probe") else panel,
            variant=f"vs {other}" + (f", {row.variant}" if row.variant else ""),
        )
        for row in rows
    ]  # fmt: skip
