"""The best-of-n signal, without a fit: a text's reward is the number of times that the judge picked it."""

from __future__ import annotations

import pandas as pd


def rewards(judgments: pd.DataFrame, preferences: pd.DataFrame) -> pd.Series[float]:
    """Picks of each candidate over both orders (0 or more; positive = the judge picks it), ties split ½ and ½.

    judgments: policy-panel judgments (JUDGMENT_COLUMNS) of one replicate, arm and generation. A soft verdict gives each
        side its probability. Unscored judgments count nothing and identical texts' matchups are left out, so a
        candidate that is only in those has 0 picks; one that no judgment shows has no row.
    preferences: those that a label rule makes of them (``labels.preferences``); picks are counted in these.

    Returns picks indexed by (item_id, candidate_id), sorted.

    Raises ValueError if the judgments are of several replicates, arms or generations.
    """
    if len(judgments[["replicate", "arm", "generation"]].drop_duplicates()) > 1:
        raise ValueError("picks are counted within one replicate, arm and generation")
    index = ["item_id", "candidate_id"]
    candidates = pd.concat(
        [
            judgments[["item_id", column]].set_axis(index, axis="columns")
            for column in ("candidate_first", "candidate_second")
        ]
    )
    all_candidates = pd.MultiIndex.from_frame(candidates.drop_duplicates().sort_values(index))
    chosen = preferences.rename(columns={"chosen": "candidate_id"})
    picks = chosen.groupby(index, observed=True)["weight"].sum()
    return picks.reindex(all_candidates, fill_value=0.0).astype("float64").rename("reward")
