"""Transmission a_RJ = β_R/β_J of a mitigation: how much of a judge's content slope a signal trained on its labels inherits.

β_J is the judge's slope, from its presentations with the order column; β_R that of the labels, by the same features. 1 =
passed on as it is, 2 = doubled, 0 = removed. The two fits share picks, so their noise is correlated. That correlation is
not assumed away: it is estimated from the items (each item's influence on either fit) and enters Fieller's interval.
``disjoint`` avoids it, at a price: β_R from one half of the items, β_J from the other (the method notes §2.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import Correction, cluster_influence
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, clustered_proportion, fieller_from_moments
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.slopes import FEWEST_ITEMS, GOLD, ORDER, Slopes, fit_columns
from judgeloop.stats.presentations import not_identical

Floats = NDArray[np.float64]

FOLDS = 5
_NOT_AWAY = "the judge's own slope is not away from 0, so that a ratio to it means nothing"


@dataclass(frozen=True, slots=True)
class Measured:
    """Labels (or picks) with what their texts differ in. ``names`` (G,) of the items by code; ``pooled`` rows have no slot."""

    rows: Covariates
    names: NDArray[np.object_]
    pooled: bool

    def with_gold(self) -> Measured:
        """The rows whose gold is known."""
        return self.where(~np.isnan(self.rows.gold))

    def where(self, some: NDArray[np.bool_]) -> Measured:
        """These rows alone."""
        return replace(self, rows=self.rows.where(some))

    def of_items(self, chosen: NDArray[np.object_]) -> Measured:
        """The rows of these items."""
        return self.where(pd.Index(self.names).isin(chosen)[self.rows.items])

    def fit(self, features: Sequence[str], *, gold: bool = False) -> Slopes | Undefined:
        """The content model on those features, with the order column unless pooled, and with gold if asked for."""
        rows = self.rows
        if len(rows) == 0:
            return Undefined("no pair has a label")
        columns: list[Floats] = [] if self.pooled else [rows.order]
        names = [] if self.pooled else [ORDER]
        for name in features:
            if name not in rows.features:
                return Undefined(f"{name} does not differ between the labelled texts")
            names.append(name)
            columns.append(rows.differences[:, rows.features.index(name)])
        if gold:
            if not np.any(rows.gold != 0):
                return Undefined("gold calls every labelled pair a tie")
            names.append(GOLD)
            columns.append(rows.gold)
        found = fit_columns(rows, tuple(names), np.stack(columns, axis=1))
        if isinstance(found, Slopes) and found.method.startswith("Firth"):
            return Undefined("the features separate the labels perfectly: the slope has no finite value")
        return found


def measured(
    labels: pd.DataFrame, texts: pd.DataFrame | None, *, pooled: bool, scales: Mapping[str, float] | None = None
) -> Measured:
    """Labels in the columns of judgments, and their texts' features (see ``covariates``)."""
    names = pd.factorize(not_identical(labels)["item_id"])[1]
    return Measured(covariates(labels, texts, scales=scales), np.asarray(names, dtype=object), pooled)


def shared_features(judge: Measured, labels: Measured) -> tuple[str, ...]:
    """The columns of both fits: length, and every style feature that differs in enough items of either."""
    found = []
    for name in judge.rows.features:
        differing = [
            len(np.unique(one.rows.items[one.rows.differences[:, one.rows.features.index(name)] != 0]))
            if name in one.rows.features
            else 0
            for one in (judge, labels)
        ]
        if min(differing) >= (1 if name == "length" else FEWEST_ITEMS):
            found.append(name)
    return tuple(found)


def transmission(
    judge: Measured, labels: Measured, features: Sequence[str], *, gold: bool = False
) -> dict[str, Interval | Undefined]:
    """a_RJ by feature: Fieller's interval with the item-clustered covariance of both fits; ``features`` are their columns,
    with gold besides if asked for.

    Undefined where either fit is, or where the judge's slope is not away from 0. Labels that are the judge's picks give
    1 exactly.
    """
    signal, own = labels.fit(features, gold=gold), judge.fit(features, gold=gold)
    if isinstance(own, Undefined):
        return dict.fromkeys(features, Undefined(f"the judge's slope is not known: {own.reason}"))
    if isinstance(signal, Undefined):
        return dict.fromkeys(features, signal)
    try:
        ours, theirs = _influence(signal, labels), _influence(own, judge)
    except ValueError as error:
        return dict.fromkeys(features, Undefined(str(error)))
    found: dict[str, Interval | Undefined] = {}
    for name in features:
        j, k = signal.names.index(name), own.names.index(name)
        a, b = ours[signal.names[j]], theirs[own.names[k]]
        shared = float((a * b.reindex(a.index).fillna(0.0)).sum())
        ratio = fieller_from_moments(
            float(signal.coefficients[j]), float(own.coefficients[k]), float((a**2).sum()), float((b**2).sum()), shared,
            float(min(signal.df, own.df)),
        )  # fmt: skip
        found[name] = (
            Undefined(_NOT_AWAY)
            if isinstance(ratio, Undefined)
            else replace(ratio, p_value=None, method="Fieller t, both fits clustered by item")
        )
    return found


def disjoint(judge: Measured, labels: Measured, features: Sequence[str], name: str) -> Interval | Undefined:
    """a_RJ of one feature with no shared pick: β_R from a random half of the items, β_J from the other; Fieller."""
    items = np.array(sorted(set(judge.names[judge.rows.items])), dtype=object)
    drawn = seeds.rng(0, "transmission", "halves").permutation(len(items))
    half, rest = items[drawn[: len(items) // 2]], items[drawn[len(items) // 2 :]]
    signal = labels.of_items(half).fit(features)
    own = judge.of_items(rest).fit(features)
    if isinstance(own, Undefined):
        return Undefined(f"half the items do not tell the judge's slope: {own.reason}")
    if isinstance(signal, Undefined):
        return Undefined(f"half the items do not tell the labels' slope: {signal.reason}")
    j, k = signal.names.index(name), own.names.index(name)
    ratio = fieller_from_moments(
        float(signal.coefficients[j]), float(own.coefficients[k]), float(signal.covariance[j, j]),
        float(own.covariance[k, k]), 0.0, float(min(signal.df, own.df)),
    )  # fmt: skip
    return (
        Undefined(f"on half the items, {_NOT_AWAY}")
        if isinstance(ratio, Undefined)
        else replace(ratio, p_value=None, method="Fieller t, either fit on its own half of the items")
    )


def leaked_length(labels: Measured, features: Sequence[str]) -> Interval | Undefined:
    """How often a reward whose length slope was set to 0 still prefers the longer text: style that goes with length.

    The reward is fitted on the other four fifths of the items, so that it never picks among texts that it has seen.
    """
    style = [name for name in features if name != "length"]
    if not style:
        return Undefined("no style feature: with length set to 0, nothing is left of the reward")
    items = np.array(sorted(set(labels.names[labels.rows.items])), dtype=object)
    fold_of = dict(
        zip(items[seeds.rng(0, "leaked length").permutation(len(items))], np.arange(len(items)) % FOLDS, strict=True)
    )
    folds = np.array([fold_of[name] for name in labels.names[labels.rows.items]])
    rows, length = labels.rows, labels.rows.length
    if length is None:
        return Undefined("length does not differ between the labelled texts")
    longer = np.full(len(rows), math.nan)
    for fold in range(FOLDS):
        reward = labels.where(folds != fold).fit(features)
        if isinstance(reward, Undefined):
            return Undefined(f"four fifths of the items do not tell the reward: {reward.reason}")
        here = folds == fold
        b = np.array([reward.coefficients[reward.names.index(name)] for name in style])
        d = rows.differences[np.ix_(here, [rows.features.index(name) for name in style])]
        longer[here] = (np.sign(d @ b) * np.sign(length[here]) + 1.0) / 2.0
    # One row a pair: the reward knows no order.
    _, first = np.unique(rows.pairs, return_index=True)
    first = first[length[first] != 0]
    return clustered_proportion(longer[first], rows.items[first])


def _influence(fit: Slopes, of: Measured) -> pd.DataFrame:
    """(G, p) each item's part of the coefficients' errors, by the item's name."""
    codes = np.unique(fit.clusters)
    correction: Correction = "mancl_derouen" if len(codes) < FEW_CLUSTERS else "CR1"
    values = cluster_influence(fit.x, fit.z, fit.fit, fit.clusters, correction)
    return pd.DataFrame(values, index=pd.Index(of.names[codes]), columns=list(fit.names))
