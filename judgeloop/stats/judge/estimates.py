"""All estimates of judges from one table of judgments, a row an estimate: what ``audit`` and ``analyze`` report."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import pandas as pd

from judgeloop.stats.estimate import RATE_MARGIN, Estimate, RowLabels, estimates_frame, order_free
from judgeloop.stats.items import by_category, remarked
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.missing import with_claims_withheld
from judgeloop.stats.judge.position import compatibility_estimates, position_estimates
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import (
    self_preference_gold,
    self_preference_log_odds,
    self_preference_single_order,
)
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import quick_texts


def judge_estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None = None,
    *,
    scales: Mapping[str, float] | None = None,
    margin: float = RATE_MARGIN,
    scored_alone: Collection[str] = (),
    gold_exact: bool = False,
    bootstrap: bool = True,
) -> pd.DataFrame:
    """The estimates of every judge in ``judgments``, over all items and by ``category`` (rare ones pooled), with
    adjusted p-values.

    ``judgments``: the columns of docs/contract.md, "Tables" (``item_id, pair_id, judge, order, verdict`` at least).
    Optional, and used where present: ``repeat``, ``p_first``, ``identical``, ``gold``, ``gold_2``, ``category``,
    ``model_a, model_b``, ``len_a, len_b``, and for rows of panel ``probe`` the columns ``probe`` and ``dose`` (see
    ``probe_estimates``). ``texts``: ``item_id, candidate_id`` and feature columns of the texts (see
    ``content_estimates``). A judge's rows of different ``arm``, ``generation`` or ``panel`` are estimated apart.
    ``scored_alone``: the judges that score each text alone, whose position terms follow from that.
    ``gold_exact``, ``bootstrap``: see ``content_estimates``. Raises ValueError for a gold that is neither a, b, tie
    nor a number.
    """
    rows: list[Estimate] = []
    defaults: dict[str, str | int | None] = {"arm": "", "panel": "", "category": "", "generation": None, "repeat": 0}
    frame = judgments.copy()
    for column in defaults.keys() - set(judgments.columns):
        frame[column] = defaults[column]
    frame = quick_texts(
        frame.assign(**{key: frame[key].fillna("").astype(str) for key in ("arm", "panel", "category")})
    )
    texts = None if texts is None else quick_texts(texts)
    groups = ["arm", "generation", "panel"]
    for (arm, generation, panel), subset in frame.groupby(groups, dropna=False, sort=True):
        generation_number = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
        for judge, judge_rows in subset.groupby("judge", sort=True):
            labels = RowLabels(str(judge), str(arm), generation_number, str(panel))
            if panel == "probe":
                if "probe" in judge_rows:
                    names = {"judge": str(judge), "arm": str(arm)}
                    rows += probe_estimates(judge_rows, **names, generation=generation_number, margin=margin)
                    for category, category_rows, remark in by_category(judge_rows):
                        category_estimates = probe_estimates(
                            category_rows, **names, generation=generation_number, category=category, margin=margin
                        )
                        rows += remarked(category_estimates, remark)
                continue
            rows += _position_and_content(judge_rows, texts, labels, scales, margin, gold_exact, bootstrap)
            rows += self_preference_single_order(judge_rows, labels, margin=margin)
            rows.append(self_preference_log_odds(subset, texts, labels, scales=scales))
            rows += compatibility_estimates(judge_rows, texts, labels)
            for category, category_rows, remark in by_category(judge_rows):
                category_labels = RowLabels(str(judge), str(arm), generation_number, str(panel), category)
                category_estimates = _position_and_content(
                    category_rows, texts, category_labels, scales, margin, gold_exact, bootstrap
                )
                rows += remarked(category_estimates, remark)
    return adjust(with_judge_families(order_free(estimates_frame(rows), scored_alone)))


def _position_and_content(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    labels: RowLabels,
    scales: Mapping[str, float] | None,
    margin: float,
    gold_exact: bool,
    bootstrap: bool,
) -> list[Estimate]:
    """The terms of one judge's ``judgments`` alone, without the claims that missing ones could account for.

    Arguments as in ``judge_estimates``.
    """
    position = position_estimates(
        judgments, judge=labels.judge, arm=labels.arm, generation=labels.generation, panel=labels.panel,
        category=labels.category, margin=margin,
    )  # fmt: skip
    content = content_estimates(
        judgments, texts, judge=labels.judge, arm=labels.arm, generation=labels.generation, panel=labels.panel,
        category=labels.category, scales=scales, margin=margin, gold_exact=gold_exact, bootstrap=bootstrap,
    )  # fmt: skip
    own_texts = self_preference_gold(judgments, labels, margin=margin, gold_exact=gold_exact)
    return with_claims_withheld([*position, *content, *own_texts])
