"""Judgments as rows of the run folder's table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import pandas as pd

from judgeloop.gold import gold_of
from judgeloop.records import JUDGMENT_COLUMNS, Candidate, Item, Judgment, Panel


def judgments_frame(
    judgments: Iterable[Judgment],
    items: Mapping[str, Item],
    correct: Callable[[Item, Candidate], bool | None],
    *,
    panel: Panel,
    generation: int,
    replicate: int | None = None,
    arm: str = "",
) -> pd.DataFrame:
    """One row a judgment, in the order given, with CONTRACT's columns.

    ``correct`` says whether a candidate matches its item's reference (None: not known); ``gold`` follows from it.
    """
    rows = []
    for judgment in judgments:
        presentation, matchup = judgment.presentation, judgment.presentation.matchup
        item, verdict = items[matchup.item_id], judgment.verdict
        truth = (correct(item, matchup.a), correct(item, matchup.b))
        rows.append(
            (
                replicate,
                arm,
                generation,
                panel,
                matchup.item_id,
                item.category,
                matchup.pair_id,
                judgment.judge,
                presentation.order,
                presentation.repeat,
                verdict.slot,
                verdict.p_first,
                verdict.reason,
                presentation.first.candidate_id,
                presentation.second.candidate_id,
                matchup.a.text == matchup.b.text,
                gold_of(truth[0], truth[1]) if None not in truth else "",
                judgment.call,
            )
        )
    frame = pd.DataFrame(rows, columns=list(JUDGMENT_COLUMNS))
    frame["replicate"] = frame["replicate"].astype("Int64")
    frame["p_first"] = frame["p_first"].astype("float64")
    frame["identical"] = frame["identical"].astype("bool")
    return frame
