"""Replies without a verdict: how many, and whether order or length decides which. Positive = more of them.

Unscored replies are missing, never a tie or a pick (the method notes §1.4). Where they depend on the texts they are not
missing at random, and what is estimated from the rest is biased by an amount that the worst-case variants bound.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import logistic
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Undefined, clustered_proportion
from judgeloop.stats.joint import hotelling
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.presentations import item_codes, not_identical
from judgeloop.stats.rows import PROBABILITY, BareTest, Counts, Labels, row

TERM = "unscored_joint"
FEWEST_UNSCORED = 10
"""Fewer replies without a verdict than this cannot tell what they depend on."""


def missing_estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    labels: Labels,
    *,
    scales: Mapping[str, float] | None = None,
) -> list[Estimate]:
    """``unscored_rate`` (variants ``ab``, ``ba``: by order) and ``unscored_joint``, the test that the replies are missing at random.

    Arguments as in ``content_estimates``. The test is the score test, clustered by item (as ``style_joint``), of the slopes
    in logit P(unscored) = intercept + order + (length of the first text − of the second) + |difference|, in doublings:
    it needs no fit, so that replies which order or length cut off to the last one are found too.
    """
    asked = not_identical(judgments).reset_index(drop=True)
    lost: NDArray[np.float64] = (asked["verdict"] == "unscored").to_numpy().astype(np.float64)
    items, orders = item_codes(asked), asked["order"].to_numpy()
    rows = []
    for variant in ("", "ab", "ba"):
        some = orders == variant if variant else np.ones(len(asked), dtype=bool)
        rate = clustered_proportion(lost[some], items[some]) if some.any() else Undefined("no judgment in that order")
        counts = Counts(int(some.sum()), len(np.unique(items[some])), int(lost[some].sum()))
        rows.append(row(labels, "quality", "unscored_rate", rate, counts, unit=PROBABILITY, variant=variant, null=None))
    return [*rows, _joint(labels, asked, texts, lost, scales)]


def _joint(
    labels: Labels,
    asked: pd.DataFrame,
    texts: pd.DataFrame | None,
    lost: NDArray[np.float64],
    scales: Mapping[str, float] | None,
) -> Estimate:
    count = int(lost.sum())

    def undefined(why: str) -> Estimate:
        counts = Counts(len(asked), asked["item_id"].nunique(), count)
        return row(labels, "quality", TERM, Undefined(why), counts, unit="F")

    if count == 0:
        return undefined("every reply has a verdict")
    if min(count, len(lost) - count) < FEWEST_UNSCORED:
        return undefined(f"the test needs {FEWEST_UNSCORED} replies with a verdict and {FEWEST_UNSCORED} without")
    # As if every reply had a verdict: the covariates of all that was asked.
    rows = covariates(asked.assign(verdict="tie", p_first=np.nan), texts, scales=scales)
    names, columns = ["intercept"], [np.ones(len(rows))]
    if np.ptp(rows.order) > 0:
        names.append("order")
        columns.append(rows.order)
    if rows.length is not None:
        names += ["length", "|length|"]
        columns += [rows.order * rows.length, np.abs(rows.length)]
    x, y = np.stack(columns, axis=1), lost[rows.index]
    groups = len(np.unique(rows.items))
    if len(names) == 1 or groups <= len(names):
        return undefined("one order and no lengths: nothing that the missing replies could depend on is known")
    share = float(y.mean())
    result = hotelling(x * (y - share)[:, None], x.T @ x * share * (1.0 - share), range(1, len(names)), rows.items)
    if isinstance(result, Undefined):
        return undefined(result.reason)
    fit = logistic(x, y)
    slopes = "order and length part them from the others perfectly, or nearly so"
    if fit.converged and fit.rank == len(names):
        pairs = zip(names[1:], fit.coefficients[1:], strict=True)
        slopes = f"log-odds of no verdict: {', '.join(f'{name} {slope:+.2f}' for name, slope in pairs)}"
    return row(
        labels, "quality", TERM,
        BareTest(result.f, result.p_value, "score test; logistic regression, clustered by item"),
        Counts(len(rows), groups, count), unit="F", note=f"F on {result.q} and {result.df} degrees of freedom; {slopes}",
    )  # fmt: skip
