"""The share of judgments without a verdict: a count of what was asked, not a sample of anything."""

from __future__ import annotations

import pandas as pd

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.presentations import unscored
from judgeloop.stats.rows import PROBABILITY

TERM = "unscored_share"


def unscored_shares(judgments: pd.DataFrame) -> list[Estimate]:
    """``unscored_share`` of every judge and arm: n_unscored over all its judgments. Larger = more replies without a verdict.

    The interval is the number itself: every judgment that was asked is counted.
    """
    if judgments.empty:
        return []
    arms = judgments["arm"].fillna("").astype(str) if "arm" in judgments else pd.Series("", index=judgments.index)
    rows = []
    for (judge, arm), some in judgments.groupby([judgments["judge"], arms], sort=True):
        lost = unscored(some)
        share = lost / len(some)
        rows.append(Estimate(
            scope="judge", bias="quality", term=TERM, judge=str(judge), arm=str(arm), estimate=share, conf_low=share,
            conf_high=share, n=len(some), n_items=some["item_id"].nunique(), n_unscored=lost, unit=PROBABILITY,
            method="count of all judgments",
        ))  # fmt: skip
    return rows
