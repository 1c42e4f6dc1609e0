"""Agreement of a judge with gold. Positive = picks what gold calls better."""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, clustered_proportion
from judgeloop.stats.judge.covariates import Covariates, gold_margin
from judgeloop.stats.judge.ordered_models import LatentSlopes
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.presentations import first_picked, in_one_order, item_codes, not_identical, unscored
from judgeloop.stats.rows import LOG_ODDS, PROBABILITY, Counts, Labels, row


def gold_estimates(
    labels: Labels,
    judgments: pd.DataFrame,
    known: Covariates,
    given: Slopes | Undefined,
    corrected: Slopes | LatentSlopes | Undefined,
    second: Counts | None,
) -> list[Estimate]:
    """``gold_agreement`` and ``gold_log_odds`` (κ): primary given gold, variant ``corrected`` where two golds exist,
    on ``second``'s rows."""
    agreement, counts = gold_agreement(judgments)
    rows = [
        row(labels, "quality", "gold_agreement", agreement, counts, unit=PROBABILITY, null=None,
            note=f"{_orders(judgments)}; ties count half; pairs that gold ties are left out"),
        row(labels, "quality", "gold_log_odds", given if isinstance(given, Undefined) else given.slope("gold"),
            known.counts, unit=f"{LOG_ODDS} per unit of gold", note="gold's errors pull it towards 0"),
    ]  # fmt: skip
    if second:
        slope = corrected if isinstance(corrected, Undefined) else corrected.slope("gold")
        unit = f"{LOG_ODDS} per unit of gold" if isinstance(corrected, Slopes) else f"{LOG_ODDS} per log-odds of gold"
        rows.append(row(labels, "quality", "gold_log_odds", slope, second, unit=unit, variant="corrected"))
    return rows


def _orders(judgments: pd.DataFrame) -> str:
    """What the agreement's mean is over: a slot's pull cancels only between the orders of a pair."""
    if in_one_order(judgments):
        return "over calls, one order a pair: a slot's pull is in it wherever gold's text stands in one slot more often"
    return "both orders together"


def gold_agreement(judgments: pd.DataFrame) -> tuple[Interval | Undefined, Counts]:
    """Mean over scored judgments of whether the pick is gold's (a tie ½, a soft verdict its probability), and counts.

    Where both orders are complete that is the mean of the two orders' accuracies.
    """
    compared = not_identical(judgments)
    lost = unscored(compared)
    if "gold" not in compared:
        return Undefined("no gold"), Counts(0, 0, lost)
    margin, _ = gold_margin(compared["gold"])
    picked = first_picked(compared).to_numpy()
    a = np.where((compared["order"] == "ab").to_numpy(), picked, 1.0 - picked)
    right = np.where(margin > 0, a, 1.0 - a)
    keep = ~np.isnan(picked) & ~np.isnan(margin) & (margin != 0)
    items = item_codes(compared)[keep]
    counts = Counts(int(keep.sum()), len(np.unique(items)), lost)
    if not keep.any():
        why = "no gold" if np.all(np.isnan(margin)) else "gold ties every pair that has a verdict"
        return Undefined(why), counts
    return clustered_proportion(right[keep], items), counts
