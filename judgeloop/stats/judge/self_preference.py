"""Self-preference: does a judge prefer texts of its own model beyond what gold says. Positive = prefers its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.estimate import LOG_ODDS, PROBABILITY, RATE_MARGIN, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import (
    FEW_CLUSTERS,
    LEVEL,
    Interval,
    Undefined,
    clustered_proportion,
    quantile,
    t_interval,
    tail,
)
from judgeloop.stats.judge.covariates import Covariates, covariates, gold_margin
from judgeloop.stats.judge.slopes import FEWEST_ITEMS, fit_columns
from judgeloop.stats.presentations import (
    first_picked,
    in_one_order,
    item_codes,
    not_identical,
    pair_codes,
    pairs,
    unscored,
)

Floats = NDArray[np.float64]

_ROUNDING = 1e-9
_NO_MODELS = "the texts' models are not known (model_a, model_b)"
_SINGLE_ORDER = "each pair was judged in one order only: a taste for a slot cannot be told from one for its own texts"


def own_model(judge: str) -> str:
    """The model's name in a judge's name, without ``#prompt/verdict``."""
    return judge.split("#", 1)[0]


def self_preference_gold(judgments: pd.DataFrame, labels: RowLabels, *, margin: float = RATE_MARGIN) -> Estimate:
    """P(picks own | gold prefers own) − P(picks the other | gold prefers the other), of Wataoka et al. (2024).

    ``judgments`` of one judge, with ``gold``, ``model_a`` and ``model_b``. Complete pairs count, those with its own text
    on one side and a verdict in both orders: the mean over orders is free of a taste for a slot, which in a log of single
    orders passes for one for its own texts wherever these stand in one slot more often. See ``single_order``.
    """
    unit, found = PROBABILITY, followed(judgments, labels.judge)
    lost = unscored(not_identical(judgments))
    if isinstance(found, Undefined):
        return row(labels, "self_preference", "self_preference_gold", found, SampleCounts(0, 0, lost), unit=unit)
    counts = SampleCounts(len(found.follows), len(np.unique(found.items)), lost)
    return row(labels, "self_preference", "self_preference_gold", found.difference(), counts, unit=unit, margin=margin)


@dataclass(frozen=True, slots=True)
class OwnTextPairs:
    """Complete pairs of a judge's own text against another's, as arrays of n pairs.

    ``prefers_own``: gold prefers its own text. ``follows`` in [0, 1]: whether it picked what gold prefers. ``items``: item
    ids. ``single_order``: there are pairs, and none was asked in both orders.
    """

    prefers_own: NDArray[np.bool_]
    follows: Floats
    items: NDArray[np.object_]
    single_order: bool

    def difference(self) -> Interval | Undefined:
        """P(follows | gold prefers its own) − P(follows | gold prefers the other)."""
        if self.single_order:
            return Undefined(_SINGLE_ORDER)
        return following_difference(self.prefers_own, self.follows, pd.factorize(self.items)[0])

    def without(self, items: set[str]) -> OwnTextPairs:
        """The pairs of other items."""
        kept = np.array([item not in items for item in self.items], dtype=bool)
        return replace(
            self, prefers_own=self.prefers_own[kept], follows=self.follows[kept], items=self.items[kept]
        )  # fmt: skip


def followed(judgments: pd.DataFrame, judge: str) -> OwnTextPairs | Undefined:
    """How a judge followed gold in pairs with its own text on one side; Undefined where nothing can be told."""
    compared = not_identical(judgments)
    own = own_model(judge)
    why = _unknown(compared, own)
    if why:
        return Undefined(why)
    table = pairs(compared)
    side, gold = _sides(compared, own)
    first = np.full(len(table), -1)
    first[pair_codes(compared)[::-1]] = np.arange(len(compared))[::-1]
    side, gold = side[first], gold[first]
    a = ((table["ab"] + 1.0 - table["ba"]) / 2.0).to_numpy()
    counted = (side != 0) & ~np.isnan(gold) & (gold != 0)
    keep = counted & ~np.isnan(a)
    asked = ((table["asked_ab"] > 0) & (table["asked_ba"] > 0)).to_numpy()
    return OwnTextPairs(
        np.sign(gold[keep]) == side[keep],
        np.where(gold[keep] > 0, a[keep], 1 - a[keep]),
        compared["item_id"].to_numpy(dtype=object)[first[keep]],
        bool(counted.any() and not asked[counted].any()),
    )


def self_preference_single_order(
    judgments: pd.DataFrame, labels: RowLabels, *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """Variant ``single_order`` of ``self_preference_gold``: what a log with one order a pair can bear; else nothing.

    Either rate is the mean of that with its own text first and that with it second, so that a slot's pull cancels. It is
    free of position only where the order was drawn by lot; ``undefined`` where its own texts stand in one slot alone.
    """
    compared = not_identical(judgments)
    own = own_model(labels.judge)
    if _unknown(compared, own) or not in_one_order(compared):
        return []
    side, gold = _sides(compared, own)
    picked, shown = first_picked(compared).to_numpy(), np.where(compared["order"] == "ab", 1, -1)
    a = np.where(shown > 0, picked, 1.0 - picked)
    keep = (side != 0) & ~np.isnan(a) & ~np.isnan(gold) & (gold != 0)
    if not keep.any():
        return []
    follows, items = np.where(gold > 0, a, 1.0 - a)[keep], item_codes(compared)[keep]
    # Cells 0, 1: gold prefers its own text, shown second or first; 2, 3: gold prefers the other.
    cells = np.where(np.sign(gold) == side, 0, 2)[keep] + (shown == side)[keep]
    result = combined_rates(follows, cells, items, np.array([0.5, 0.5, -0.5, -0.5]))
    if isinstance(result, Undefined):
        result = Undefined(
            f"in one order a pair it needs 2 or more items with the text of {own} first and as many with it second, both "
            "where gold prefers it and where gold does not"
        )
    return [row(
        labels, "self_preference", "self_preference_gold", result, SampleCounts(int(keep.sum()), len(np.unique(items)),
        unscored(compared)), unit=PROBABILITY, variant="single_order", margin=margin,
        note="free of position only if the order was randomised",
    )]  # fmt: skip


def _unknown(judgments: pd.DataFrame, own: str) -> str:
    """Why nothing can be told given gold, what is the least mendable first; a column of empty gold is none."""
    if not {"model_a", "model_b"} <= set(judgments.columns):
        return _NO_MODELS
    if len(judgments) and not ((judgments["model_a"] == own) != (judgments["model_b"] == own)).any():
        return "no pair has a text of the judge's own model on one side"
    return "" if "gold" in judgments and not np.isnan(gold_margin(judgments["gold"])[0]).all() else "no gold"


def _sides(judgments: pd.DataFrame, own: str) -> tuple[NDArray[np.int_], Floats]:
    """(n,) +1 where text a alone is its own, −1 text b alone, else 0; and gold's margin."""
    side = (judgments["model_a"] == own).to_numpy().astype(int) - (judgments["model_b"] == own).to_numpy().astype(int)
    return side, gold_margin(judgments["gold"])[0]


def following_difference(
    prefers_own: NDArray[np.bool_], follows: Floats, items: NDArray[np.intp]
) -> Interval | Undefined:
    """How much more often the judge follows gold where gold prefers its own text; arrays of n pairs, clustered by item.

    ``follows`` in [0, 1]: whether it picked what gold prefers.
    """
    if not (prefers_own.any() and (~prefers_own).any()):
        return Undefined(
            "needs pairs with a text of the judge's own model that gold prefers, and such that it does not"
        )
    found = combined_rates(follows, (~prefers_own).astype(np.intp), items, np.array([1.0, -1.0]))
    if isinstance(found, Undefined):
        return Undefined(
            "gold prefers (or does not prefer) the judge's own text in one item only: an interval needs 2 or more of either"
        )
    return found


def combined_rates(
    values: Floats, cells: NDArray[np.intp], items: NDArray[np.intp], weights: Floats
) -> Interval | Undefined:
    """Σ w_c·mean of ``values`` (n,) in [0, 1] over the rows of cell c, clustered by item; ``cells`` (n,) in 0 … C − 1.

    An item's influence is Σ_c w_c e_gc/n_c, e_gc its sum of residuals: over 1 − n_gc/n_c (Mancl–DeRouen) where a cell has
    fewer than 50 items, else times √(G_c/(G_c − 1)) (CR1); t on Satterthwaite's degrees of freedom, a cell having G_c − 1.
    Where a cell's rows do not vary, that cell tells of no spread, and none must not pass for certainty: it may lie as far
    away as Wilson's bound for G_c items, and these distances are added to the root of the others' squares (cautious: they
    may all err to one side). Undefined where a cell has fewer than 2 items.
    """
    codes, kept = pd.factorize(items)
    influence, parts, centre = np.zeros(len(kept)), [], 0.0
    for cell, weight in enumerate(weights):
        some = cells == cell
        sizes = np.bincount(codes[some], minlength=len(kept))
        groups = int((sizes > 0).sum())
        if groups < 2:
            return Undefined("a rate of one item has no interval")
        mean, n = float(values[some].mean()), int(some.sum())
        sums = np.bincount(codes[some], weights=values[some] - mean, minlength=len(kept))
        sums[np.abs(sums) < 1e-13 * np.maximum(1, sizes)] = 0.0
        scaled = sums / ((1.0 - sizes / n) if groups < FEW_CLUSTERS else math.sqrt(1.0 - 1.0 / groups)) / n
        centre += weight * mean
        influence += weight * scaled
        parts.append((float(np.sum((weight * scaled) ** 2)), groups, some))
    own_variances = np.array([part[0] for part in parts])
    variance, few = float(np.sum(influence**2)), min(part[1] for part in parts) < FEW_CLUSTERS
    if np.all(own_variances > 0) and variance > 0:
        df = float(own_variances.sum() ** 2 / np.sum(own_variances**2 / np.array([part[1] - 1.0 for part in parts])))
        how = f"difference of rates, cluster t by item ({'Mancl-DeRouen' if few else 'CR1'})"
        found = t_interval(centre, math.sqrt(variance), df, method=how)
        return Interval(
            centre, found.std_error, max(-1.0, found.low), min(1.0, found.high), LEVEL, found.p_value, df, how
        )
    below, above = _reaches(values, items, weights, [part[2] for part in parts], own_variances)
    z = quantile(0.5 + LEVEL / 2.0)
    towards = below if centre > 0 else above
    p_value = 1.0 if centre == 0 else 2.0 * tail(z * abs(centre) / towards)
    se = (below + above) / (2.0 * z) if np.any(own_variances > 0) else 0.0
    return Interval(
        centre, se, max(-1.0, centre - below), min(1.0, centre + above), LEVEL, p_value, None,
        "difference of rates, no spread on a side: Wilson bound, n = items",
    )  # fmt: skip


def _reaches(
    values: Floats, items: NDArray[np.intp], weights: Floats, cells: list[NDArray[np.bool_]], variances: Floats
) -> tuple[float, float]:
    """How far the combination may lie below and above its estimate."""
    squares, added = np.zeros(2), np.zeros(2)
    for some, weight, variance in zip(cells, weights, variances, strict=True):
        rate = clustered_proportion(values[some], items[some])
        assert isinstance(rate, Interval)
        reach = abs(weight) * np.array([rate.estimate - rate.low, rate.high - rate.estimate])
        reach = reach if weight > 0 else reach[::-1]
        squares, added = (squares + reach**2, added) if variance > 0 else (squares, added + reach)
    below, above = np.sqrt(squares) + added
    return float(below), float(above)


def self_preference_log_odds(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    labels: RowLabels,
    *,
    scales: Mapping[str, float] | None = None,
    margin: float | None = None,
) -> Estimate:
    """The judge's coefficient on 1[own text], given the generators' strengths and each judge's own tastes (log-odds).

    ``judgments`` of all judges: a judge's own texts are told from good ones only by what other judges make of them, so
    with fewer than two judges on the same pairs it is undefined. Order, features and gold have a coefficient a judge, for
    a judge's taste for length, or its sharper eye for gold, is none for its own texts though these be longer or better.
    The generators' strengths are common to the judges, and so is how length's slope depends on who is compared (generator
    × length). Where the design bears one coefficient of own texts only, as two judges of their own two models do, it is
    common to the judges, and ``note`` says so.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    term, empty = "self_preference_log_odds", SampleCounts(0, 0, unscored(compared[compared["judge"] == labels.judge]))

    def undefined(why: str) -> Estimate:
        return row(labels, "self_preference", term, Undefined(why), empty, unit=LOG_ODDS)

    if not {"model_a", "model_b"} <= set(compared.columns):
        return undefined(_NO_MODELS)
    own = own_model(labels.judge)
    mine = (compared["model_a"] == own) != (compared["model_b"] == own)
    judged = set(compared.loc[mine & (compared["verdict"] != "unscored"), "judge"].astype(str))
    if labels.judge not in judged:
        return undefined("no pair has a text of the judge's own model on one side")
    if len({own_model(name) for name in judged}) < 2:
        return undefined(
            "one judge: its taste for its own texts cannot be told from their quality; needs 2 or more judges"
        )
    data = covariates(compared, texts, scales=scales)
    kept = compared.iloc[data.index]
    if f"own {labels.judge}" not in (owned := _own_columns(kept)):
        return undefined("no scored pair with known features has a text of the judge's own model on one side")
    shared = {**_tastes(data, kept), **_strengths(kept)}
    notes = [
        "given the generators, and each judge's order, features" + (" and gold" if _knows(data) else "; without gold")
    ]
    term_of, columns = f"own {labels.judge}", {**owned, **shared}
    if not _independent(columns):
        term_of, columns = "own", {"own": np.sum(list(owned.values()), axis=0), **shared}
        notes.append("one coefficient for all judges: these pairs bear no more")
        if not _independent(columns):
            return undefined("what judges make of their own texts is collinear with the generators, features and gold")
    for name, column in _generator_lengths(data, kept):
        if _independent({**columns, name: column}):
            columns[name] = column
    fitted = fit_columns(data, tuple(columns), np.stack(list(columns.values()), axis=1))
    counts = SampleCounts(int((kept["judge"] == labels.judge).sum()), data.counts.items, empty.unscored)
    result = fitted if isinstance(fitted, Undefined) else fitted.slope(term_of)
    if isinstance(result, Interval) and max(abs(result.low), abs(result.high)) < _ROUNDING:
        # Soft verdicts without noise fit to the last bit: what is left has a sign and a tiny p, and is none of the judge's.
        result = replace(result, estimate=0.0, std_error=0.0, low=0.0, high=0.0, p_value=1.0)
    return row(labels, "self_preference", term, result, counts, unit=LOG_ODDS, margin=margin, note="; ".join(notes))


def _knows(data: Covariates) -> bool:
    return not np.any(np.isnan(data.gold)) and bool(np.any(data.gold != 0))


def _own_columns(kept: pd.DataFrame) -> dict[str, Floats]:
    """(n,) a judge: +1 where text a is its own and text b is not, −1 the reverse, in its own rows."""
    columns = {}
    for judge in sorted({str(name) for name in kept["judge"]}):
        model = own_model(judge)
        side = (kept["model_a"] == model).astype(float) - (kept["model_b"] == model).astype(float)
        column = np.where(kept["judge"] == judge, side, 0.0)
        if np.any(column != 0):
            columns[f"own {judge}"] = column
    return columns


def _tastes(data: Covariates, kept: pd.DataFrame) -> dict[str, Floats]:
    """Order, every feature and gold, each in a judge's rows alone. A style feature that differs in few items is left out."""
    columns: dict[str, Floats] = {}
    for judge in sorted({str(name) for name in kept["judge"]}):
        here = (kept["judge"] == judge).to_numpy()
        every = {"order": data.order, **dict(zip(data.features, data.differences.T, strict=True))}
        if _knows(data):
            every["gold"] = data.gold
        for name, values in every.items():
            column = np.where(here, values, 0.0)
            differing = len(np.unique(data.items[column != 0]))
            if differing >= (1 if name in ("order", "gold", "length") else FEWEST_ITEMS):
                columns[f"{name} {judge}"] = column
    return columns


def _models(kept: pd.DataFrame) -> list[str]:
    return sorted(set(kept["model_a"].astype(str)) | set(kept["model_b"].astype(str)))


def _strengths(kept: pd.DataFrame) -> dict[str, Floats]:
    """1[a is the generator's] − 1[b is], for all generators but the first."""
    return {
        f"model {model}": np.where(kept["model_a"] == model, 1.0, 0.0) - np.where(kept["model_b"] == model, 1.0, 0.0)
        for model in _models(kept)[1:]
    }


def _generator_lengths(data: Covariates, kept: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
    """The length difference in pairs that a generator takes part in: antisymmetric, as every covariate."""
    length = data.length
    if length is not None:
        for model in _models(kept)[1:]:
            takes_part = ((kept["model_a"] == model) != (kept["model_b"] == model)).to_numpy()
            yield f"length with {model}", np.where(takes_part, length, 0.0)


def _independent(columns: Mapping[str, Floats]) -> bool:
    x = np.stack(list(columns.values()), axis=1)
    lengths = np.linalg.norm(x, axis=0)
    return bool(np.all(lengths > 0)) and int(np.linalg.matrix_rank(x / lengths)) == x.shape[1]
