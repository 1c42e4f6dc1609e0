"""All estimates of judges that chose from lists, a row an estimate: what ``audit --mode listwise`` reports."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from judgeloop.stats.categories import by_category, remarked
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.judge.listwise import content_of_choices
from judgeloop.stats.judge.pointwise import feature_spread
from judgeloop.stats.listwise import listwise_estimates, rotations, set_estimates
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.rows import Labels
from judgeloop.stats.slot_log_odds import slot_log_odds


def choice_frame(choices: pd.DataFrame, slots: int, texts: pd.DataFrame, *, panel: str = "pairs") -> pd.DataFrame:
    """Every judge's estimates, over all items and by ``category``, with adjusted p-values.

    ``choices``: a row a call, ``item_id, set_id, category, judge, rotation, repeat, slot`` (from 1, <NA> where unscored),
    ``candidate_1 … candidate_<slots>`` by slot, ``gold`` (the best one's candidate_id or empty) and ``p_1 … p_<slots>`` (NaN
    where the judge gave no probabilities). ``texts``: ``item_id, candidate_id`` and features.
    """
    rows: list[Estimate] = []
    spread = feature_spread(texts)
    frame = choices.assign(picked=choices["slot"].astype("Int64") - 1)
    for judge, some in frame.groupby("judge", sort=True):
        rows += _of(some, slots, texts, spread, Labels(str(judge), panel=panel))
        for category, part, remark in by_category(some):
            named = Labels(str(judge), panel=panel, category=category)
            rows += remarked(_of(part, slots, texts, spread, named), remark)
    return adjust(with_judge_families(estimates_frame(rows)))


def _of(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: Labels
) -> list[Estimate]:
    known = rotations(choices, slots)
    soft = bool(choices.dropna(subset=["picked"])["p_1"].notna().all()) if "p_1" in choices else False
    # Of hard picks every repeat is a set of its own: a mean of picks is no pick.
    each = choices.assign(set_id=choices["set_id"].astype(str) + "/r" + choices["repeat"].astype(str))
    return [
        *listwise_estimates(choices, slots, labels),
        *set_estimates(known, labels),
        *slot_log_odds(known, slots, labels, None if soft else rotations(each, slots)),
        *content_of_choices(choices, slots, texts, spread, labels),
    ]
