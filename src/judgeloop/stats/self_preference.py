"""Self-preference: does a judge prefer texts of its own model beyond what gold says. Positive = prefers its own."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.covariates import covariates, gold_margin
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.presentations import first_picked, item_codes, not_identical, unscored
from judgeloop.stats.rows import LOG_ODDS, PROBABILITY, RATE_MARGIN, Counts, Labels, row
from judgeloop.stats.slopes import fit_columns

_NO_MODELS = "the texts' models are not known (model_a, model_b)"


def own_model(judge: str) -> str:
    """The model's name in a judge's name, without ``#prompt/verdict``."""
    return judge.split("#", 1)[0]


def self_preference_gold(judgments: pd.DataFrame, labels: Labels, *, margin: float = RATE_MARGIN) -> Estimate:
    """P(picks own | gold prefers own) − P(picks the other | gold prefers the other), of Wataoka et al. (2024).

    ``judgments`` of one judge, with ``gold``, ``model_a`` and ``model_b``; pairs with its own text on one side count.
    """
    compared = not_identical(judgments)
    lost, empty = unscored(compared), Counts(0, 0, unscored(compared))
    term, unit = "self_preference_gold", PROBABILITY
    if not {"model_a", "model_b"} <= set(compared.columns):
        return row(labels, "self_preference", term, Undefined(_NO_MODELS), empty, unit=unit)
    if "gold" not in compared:
        return row(labels, "self_preference", term, Undefined("no gold"), empty, unit=unit)
    own = own_model(labels.judge)
    side = (compared["model_a"] == own).to_numpy().astype(int) - (compared["model_b"] == own).to_numpy().astype(int)
    gold = gold_margin(compared["gold"])[0]
    picked = first_picked(compared).to_numpy()
    a = np.where((compared["order"] == "ab").to_numpy(), picked, 1 - picked)
    keep = (side != 0) & ~np.isnan(a) & ~np.isnan(gold) & (gold != 0)
    prefers_own = np.sign(gold[keep]) == side[keep]
    # In either group: whether the judge follows gold.
    follows = np.where(gold[keep] > 0, a[keep], 1 - a[keep])
    items = item_codes(compared)[keep]
    counts = Counts(int(keep.sum()), len(np.unique(items)), lost)
    result = following_difference(prefers_own, follows, items, own)
    return row(labels, "self_preference", term, result, counts, unit=unit, margin=margin)


def following_difference(
    prefers_own: NDArray[np.bool_], follows: NDArray[np.float64], items: NDArray[np.intp], own: str
) -> Interval | Undefined:
    """How much more often the judge follows gold where gold prefers its own text; arrays of n judgments, clustered by item.

    ``follows`` in [0, 1]: whether it picked what gold prefers. ``own`` names the judge's model in a reason.
    """
    if not (prefers_own.any() and (~prefers_own).any()):
        return Undefined(f"needs pairs with a text of {own} that gold prefers, and such that it does not")
    if len(np.unique(items)) < 2:
        return Undefined("one item: an interval over items needs 2 or more")
    influence = np.zeros(len(follows))
    estimate = 0.0
    for sign, group in ((1.0, prefers_own), (-1.0, ~prefers_own)):
        mean = float(follows[group].mean())
        estimate += sign * mean
        influence[group] = sign * (follows[group] - mean) / group.sum()
    sums = np.bincount(pd.factorize(items)[0], weights=influence)
    se = math.sqrt(len(sums) / (len(sums) - 1.0) * float(np.sum(sums**2)))
    return t_interval(estimate, se, len(sums) - 1, method="difference of rates, cluster t by item (CR1)")


def self_preference_log_odds(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, labels: Labels, *, scales: Mapping[str, float] | None = None
) -> Estimate:
    """The judge's coefficient on 1[own text], given generators, order by judge, features and gold (log-odds).

    ``judgments`` of all judges: a judge's own texts are told from good ones only by what other judges make of them, so
    with fewer than two judges on the same pairs it is undefined.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    term, empty = "self_preference_log_odds", Counts(0, 0, unscored(compared[compared["judge"] == labels.judge]))

    def undefined(why: str) -> Estimate:
        return row(labels, "self_preference", term, Undefined(why), empty, unit=LOG_ODDS)

    if not {"model_a", "model_b"} <= set(compared.columns):
        return undefined(_NO_MODELS)
    own = own_model(labels.judge)
    mine = (compared["model_a"] == own) != (compared["model_b"] == own)
    judged = set(compared.loc[mine & (compared["verdict"] != "unscored"), "judge"].astype(str))
    if labels.judge not in judged:
        return undefined(f"no pair has a text of {own} on one side")
    if len({own_model(name) for name in judged}) < 2:
        return undefined(
            "one judge: its taste for its own texts cannot be told from their quality; needs 2 or more judges"
        )
    data = covariates(compared, texts, scales=scales)
    kept = compared.iloc[data.index]
    names, columns = [], []
    for judge in sorted({str(name) for name in kept["judge"]}):
        names.append(f"order {judge}")
        columns.append(np.where(kept["judge"] == judge, data.order, 0.0))
    for judge in sorted({str(name) for name in kept["judge"]}):
        model = own_model(judge)
        side = (kept["model_a"] == model).astype(float) - (kept["model_b"] == model).astype(float)
        column = np.where(kept["judge"] == judge, side, 0.0)
        if np.any(column != 0):
            names.append(f"own {judge}")
            columns.append(column)
    models = sorted(set(kept["model_a"].astype(str)) | set(kept["model_b"].astype(str)))
    for model in models[1:]:
        names.append(f"model {model}")
        columns.append((kept["model_a"] == model).astype(float).to_numpy() - (kept["model_b"] == model).astype(float))
    names += list(data.features)
    columns += list(data.differences.T)
    if not np.any(np.isnan(data.gold)) and np.any(data.gold != 0):
        names.append("gold")
        columns.append(data.gold)
    fitted = fit_columns(data, tuple(names), np.stack([np.asarray(column) for column in columns], axis=1))
    counts = Counts(int((kept["judge"] == labels.judge).sum()), data.counts.items, empty.unscored)
    result = fitted if isinstance(fitted, Undefined) else fitted.slope(f"own {labels.judge}")
    return row(
        labels, "self_preference", term, result, counts, unit=LOG_ODDS, note="given the generators and the other judges"
    )
