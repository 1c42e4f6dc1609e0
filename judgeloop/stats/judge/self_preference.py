"""Self-preference: whether a judge prefers texts of its own model beyond what gold says.

Two estimates (docs/method.md, "Self-preference"): given gold, the difference of two rates of following it
(probability); and over several judges, the log-odds of an own text given the generators' strengths. Positive = prefers
its own texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import distinct
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
from judgeloop.stats.judge.covariates import GOLD_AS_EXACT, Covariates, covariates, gold_margin
from judgeloop.stats.judge.missing import WORST_CASES
from judgeloop.stats.judge.slopes import FEWEST_ITEMS, fit_columns
from judgeloop.stats.presentations import (
    Booleans,
    Floats,
    Integers,
    a_first,
    clusters,
    in_known_order,
    in_one_order,
    item_codes,
    not_identical,
    pair_codes,
    pairs,
    picked_a,
    unscored,
)

_ROUNDING = 1e-9
"""Limits of an interval smaller than this (log-odds) are rounding."""
_NO_MODELS = "the texts' models are not known (model_a, model_b)"
_ORDER_UNKNOWN = "the order is not known: a preference for a slot cannot be told from one for its own texts"
_SINGLE_ORDER = (
    "each pair was judged in one order only: a preference for a slot cannot be told from one for its own texts"
)


def own_model(judge: str) -> str:
    """The name of a judge's own model: the judge's name without ``#prompt/verdict``."""
    return judge.split("#", 1)[0]


def self_preference_gold(
    judgments: pd.DataFrame, labels: RowLabels, *, margin: float = RATE_MARGIN, gold_exact: bool = False
) -> list[Estimate]:
    """P(picks own | gold prefers own) − P(picks the other | gold prefers the other), a probability; where it is tested and some
    judgments are unscored, with its worst cases, each of these counted as the other's text picked, or the judge's own.

    Wataoka et al. (2024). ``judgments`` of one judge, with ``gold``, ``model_a`` and ``model_b``. Pairs with the
    judge's own text on one side and a verdict in both orders count: their mean over orders is free of a preference for
    a slot, which in a log of single orders looks like one for own texts wherever these stand in one slot more often.
    See ``self_preference_single_order``. ``margin``: the equivalence margin of rates. ``gold_exact``: gold cannot err;
    else the number describes, for where own texts are better than others', a gold that errs prefers more of the others'
    wrongly than of the own, and a judge that follows quality alone departs from it there.
    """
    unit, table = PROBABILITY, own_text_pairs(judgments, labels.judge)
    lost = unscored(not_identical(judgments))
    if isinstance(table, Undefined):
        return [row(labels, "self_preference", "self_preference_gold", table, SampleCounts(0, 0, lost), unit=unit)]
    counts = SampleCounts(len(table.follows), distinct(table.items), lost)
    rows = [row(
        labels, "self_preference", "self_preference_gold", table.difference(), counts, unit=unit, margin=margin,
        null=0.0 if gold_exact else None, note="" if gold_exact else GOLD_AS_EXACT,
    )]  # fmt: skip
    for variant, value in zip(WORST_CASES, (0.0, 1.0), strict=True) if lost and gold_exact else ():
        every = own_text_pairs(judgments, labels.judge, value)
        assert isinstance(every, OwnTextPairs)
        rows.append(row(
            labels, "self_preference", "self_preference_gold", every.difference(),
            SampleCounts(len(every.follows), distinct(every.items), lost), unit=unit, variant=variant, null=None,
            note=f"every unscored judgment counted as a pick of the {'own' if value else 'other'} text",
        ))  # fmt: skip
    return rows


@dataclass(frozen=True, slots=True)
class OwnTextPairs:
    """Pairs of a judge's own text and another's with a verdict in both orders, as arrays of n pairs.

    ``prefers_own``: gold prefers the judge's own text; ``follows`` in [0, 1]: how often the judge picked what gold
    prefers; ``items``: item ids; ``confounded``: why position does not cancel in any of such pairs; empty where it does.
    """

    prefers_own: Booleans
    follows: Floats
    items: NDArray[np.object_]
    confounded: str

    def difference(self) -> Interval | Undefined:
        """P(follows gold | gold prefers its own text) − P(follows gold | gold prefers the other), clustered by item."""
        if self.confounded:
            return Undefined(self.confounded)
        return following_difference(self.prefers_own, self.follows, pd.factorize(self.items)[0])

    def without(self, items: set[str]) -> OwnTextPairs:
        """The pairs of all other items."""
        kept = np.array([item not in items for item in self.items], dtype=bool)
        return replace(
            self, prefers_own=self.prefers_own[kept], follows=self.follows[kept], items=self.items[kept]
        )  # fmt: skip


def own_text_pairs(judgments: pd.DataFrame, judge: str, unscored_as: float | None = None) -> OwnTextPairs | Undefined:
    """The pairs of ``judge`` with its own text on one side, and how it followed gold; else why there are none.

    ``unscored_as``: the probability of its own text with which unscored judgments count; without it, their pairs are left out.
    """
    compared = not_identical(judgments)
    own = own_model(judge)
    reason = _why_undefined(compared, own)
    if reason:
        return Undefined(reason)
    side, gold = _sides(compared, own)
    first = np.unique(pair_codes(compared), return_index=True)[1]
    side, gold = side[first], gold[first]
    a_picked = None if unscored_as is None else np.where(side > 0, unscored_as, 1.0 - unscored_as)
    table = pairs(compared, None if a_picked is None else (a_picked, 1.0 - a_picked))
    picked = ((table["ab"] + 1.0 - table["ba"]) / 2.0).to_numpy()
    usable = (side != 0) & ~np.isnan(gold) & (gold != 0)
    keep = usable & ~np.isnan(picked)
    asked = ((table["asked_ab"] > 0) & (table["asked_ba"] > 0)).to_numpy()
    confounded = ""
    if usable.any() and not asked[usable].any():
        confounded = _SINGLE_ORDER if len(in_known_order(compared)) else _ORDER_UNKNOWN
    return OwnTextPairs(
        np.sign(gold[keep]) == side[keep],
        np.where(gold[keep] > 0, picked[keep], 1 - picked[keep]),
        clusters(compared).to_numpy(dtype=object)[first[keep]],
        confounded,
    )


def self_preference_single_order(
    judgments: pd.DataFrame, labels: RowLabels, *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """Variant ``single_order`` of ``self_preference_gold``, for a log with one order a pair; else no row.

    Either rate is the mean of that with the judge's own text first and that with it second, so that a preference for a
    slot cancels. It is free of position only where the order was drawn at random; ``undefined`` where own texts stand
    in one slot alone.
    """
    compared = not_identical(judgments)
    own = own_model(labels.judge)
    if _why_undefined(compared, own) or not in_one_order(compared):
        return []
    side, gold = _sides(compared, own)
    picked, shown = picked_a(compared), np.where(a_first(compared), 1, -1)
    keep = (side != 0) & ~np.isnan(picked) & ~np.isnan(gold) & (gold != 0)
    if not keep.any():
        return []
    follows, items = np.where(gold > 0, picked, 1.0 - picked)[keep], item_codes(compared)[keep]
    # Cells 0, 1: gold prefers the own text, shown second or first; 2, 3: gold prefers the other.
    cells = np.where(np.sign(gold) == side, 0, 2)[keep] + (shown == side)[keep]
    result = combined_rates(follows, cells, items, np.array([0.5, 0.5, -0.5, -0.5]))
    if isinstance(result, Undefined):
        result = Undefined(
            f"in one order a pair it needs 2 or more items with the text of {own} first and as many with it second, both "
            "where gold prefers it and where gold does not"
        )
    return [row(
        labels, "self_preference", "self_preference_gold", result, SampleCounts(int(keep.sum()), distinct(items),
        unscored(compared)), unit=PROBABILITY, variant="single_order", margin=margin,
        note="free of position only if the order was randomised",
    )]  # fmt: skip


def _why_undefined(judgments: pd.DataFrame, own: str) -> str:
    """Why the estimates given gold do not exist, "" where they do; the reason that is hardest to remedy first."""
    if not {"model_a", "model_b"} <= set(judgments.columns):
        return _NO_MODELS
    if len(judgments) and not ((judgments["model_a"] == own) != (judgments["model_b"] == own)).any():
        return "no pair has a text of the judge's own model on one side"
    return "" if "gold" in judgments and not np.isnan(gold_margin(judgments["gold"])[0]).all() else "no gold"


def _sides(judgments: pd.DataFrame, own: str) -> tuple[NDArray[np.int_], Floats]:
    """(n,) +1 where text a alone is of the model ``own``, −1 text b alone, else 0; and gold's margin."""
    side = (judgments["model_a"] == own).to_numpy().astype(int) - (judgments["model_b"] == own).to_numpy().astype(int)
    return side, gold_margin(judgments["gold"])[0]


def following_difference(prefers_own: Booleans, follows: Floats, items: Integers) -> Interval | Undefined:
    """How much more often the judge follows gold where gold prefers its own text (probability), clustered by item.

    Arrays of n pairs: ``prefers_own``, whether gold prefers the judge's own text; ``follows`` in [0, 1], how often the
    judge picked what gold prefers; ``items``, codes.
    """
    if not (prefers_own.any() and (~prefers_own).any()):
        return Undefined(
            "needs pairs with a text of the judge's own model that gold prefers, and pairs with one that it does not prefer"
        )
    difference = combined_rates(follows, (~prefers_own).astype(np.intp), items, np.array([1.0, -1.0]))
    if isinstance(difference, Undefined):
        return Undefined(
            "gold prefers (or does not prefer) the judge's own text in one item only: an interval needs 2 or more of either"
        )
    return difference


def combined_rates(values: Floats, cells: Integers, items: Integers, weights: Floats) -> Interval | Undefined:
    """Σ w_c·mean of ``values`` (n,) in [0, 1] over the rows of cell c, clustered by item; ``cells`` (n,) in 0 … C − 1.

    An item's influence is Σ_c w_c e_gc/n_c, e_gc its sum of residuals: over 1 − n_gc/n_c (Mancl–DeRouen) where a cell
    has fewer than 50 items, else times √(G_c/(G_c − 1)) (CR1); t on Satterthwaite's degrees of freedom, a cell having
    G_c − 1. Rows of a cell that do not vary have no spread, which is no certainty: such a cell may lie as far away as
    Wilson's bound for G_c items, and these distances are added to the root of the others' squares (cautious: they may
    all err to one side). Undefined where a cell has fewer than 2 items.
    """
    codes, unique_items = pd.factorize(items)
    influence, cell_parts, centre = np.zeros(len(unique_items)), [], 0.0
    for cell, weight in enumerate(weights):
        in_cell = cells == cell
        sizes = np.bincount(codes[in_cell], minlength=len(unique_items))
        groups = int((sizes > 0).sum())
        if groups < 2:
            return Undefined("a rate of one item has no interval")
        mean, n = float(values[in_cell].mean()), int(in_cell.sum())
        sums = np.bincount(codes[in_cell], weights=values[in_cell] - mean, minlength=len(unique_items))
        sums[np.abs(sums) < 1e-13 * np.maximum(1, sizes)] = 0.0
        scaled = sums / ((1.0 - sizes / n) if groups < FEW_CLUSTERS else math.sqrt(1.0 - 1.0 / groups)) / n
        centre += weight * mean
        influence += weight * scaled
        cell_parts.append((float(np.sum((weight * scaled) ** 2)), groups, in_cell))
    cell_variances = np.array([part[0] for part in cell_parts])
    variance, few = float(np.sum(influence**2)), min(part[1] for part in cell_parts) < FEW_CLUSTERS
    if np.all(cell_variances > 0) and variance > 0:
        cell_dfs = np.array([part[1] - 1.0 for part in cell_parts])
        df = float(cell_variances.sum() ** 2 / np.sum(cell_variances**2 / cell_dfs))
        method = f"difference of rates, cluster t by item ({'Mancl-DeRouen' if few else 'CR1'})"
        interval = t_interval(centre, math.sqrt(variance), df, method=method)
        return replace(interval, low=max(-1.0, interval.low), high=min(1.0, interval.high))
    below, above = _combined_reach(values, items, weights, [part[2] for part in cell_parts], cell_variances)
    z = quantile(0.5 + LEVEL / 2.0)
    reach_towards_0 = below if centre > 0 else above
    p_value = 1.0 if centre == 0 else 2.0 * tail(z * abs(centre) / reach_towards_0)
    se = (below + above) / (2.0 * z) if np.any(cell_variances > 0) else 0.0
    return Interval(
        centre, se, max(-1.0, centre - below), min(1.0, centre + above), LEVEL, p_value, None,
        "difference of rates, no spread on a side: Wilson bound, n = items",
    )  # fmt: skip


def _combined_reach(
    values: Floats, items: Integers, weights: Floats, cells: list[Booleans], variances: Floats
) -> tuple[float, float]:
    """How far the combination may lie below and above its estimate: cells that vary in squares, the others added."""
    squares, added = np.zeros(2), np.zeros(2)
    for in_cell, weight, variance in zip(cells, weights, variances, strict=True):
        rate = clustered_proportion(values[in_cell], items[in_cell])
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
    """The judge's coefficient on 1[own text] (log-odds), given the generators' strengths and each judge's own slopes.

    ``judgments`` of all judges: whether a judge's own texts are good is known only from what other judges make of them,
    so with fewer than two judges on the same pairs it is undefined. Order, features and gold have a coefficient for
    each judge: a judge that favours length, or follows gold more closely, does not favour its own texts because these
    are longer or better. The generators' strengths are common to the judges, and so is how length's slope depends on
    which generators are compared (generator × length). Where the pairs identify one coefficient of own texts only, as
    with two judges of their own two models, it is common to the judges, and ``note`` says so. ``margin``: the
    equivalence margin, default that of log-odds.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    term, empty = "self_preference_log_odds", SampleCounts(0, 0, unscored(compared[compared["judge"] == labels.judge]))

    def undefined(why: str) -> Estimate:
        return row(labels, "self_preference", term, Undefined(why), empty, unit=LOG_ODDS)

    if not {"model_a", "model_b"} <= set(compared.columns):
        return undefined(_NO_MODELS)
    own = own_model(labels.judge)
    has_own = (compared["model_a"] == own) != (compared["model_b"] == own)
    judges = set(compared.loc[has_own & (compared["verdict"] != "unscored"), "judge"].astype(str))
    if labels.judge not in judges:
        return undefined("no pair has a text of the judge's own model on one side")
    if len({own_model(name) for name in judges}) < 2:
        return undefined(
            "one judge: a preference for its own texts cannot be told from their quality; needs 2 or more judges"
        )
    rows = covariates(compared, texts, scales=scales)
    judged_pairs = compared.iloc[rows.index]
    if f"own {labels.judge}" not in (own_columns := _own_columns(judged_pairs)):
        return undefined("no scored pair with known features has a text of the judge's own model on one side")
    shared = {**_judge_columns(rows, judged_pairs), **_generator_strengths(judged_pairs)}
    notes = [
        "given the generators, and each judge's order, features"
        + (" and gold" if _has_gold(rows) else "; without gold")
    ]
    column_name, columns = f"own {labels.judge}", {**own_columns, **shared}
    if not _linearly_independent(columns):
        column_name, columns = "own", {"own": np.sum(list(own_columns.values()), axis=0), **shared}
        notes.append("one coefficient for all judges: these pairs identify no more")
        if not _linearly_independent(columns):
            return undefined("what judges make of their own texts is collinear with the generators, features and gold")
    for name, column in _generator_lengths(rows, judged_pairs):
        if _linearly_independent({**columns, name: column}):
            columns[name] = column
    slopes = fit_columns(rows, tuple(columns), np.stack(list(columns.values()), axis=1))
    counts = SampleCounts(int((judged_pairs["judge"] == labels.judge).sum()), rows.counts.items, empty.unscored)
    result = slopes if isinstance(slopes, Undefined) else slopes.slope(column_name)
    if isinstance(result, Interval) and max(abs(result.low), abs(result.high)) < _ROUNDING:
        # Soft verdicts without noise fit up to rounding: what is left has a sign and a tiny p, but is no effect.
        result = replace(result, estimate=0.0, std_error=0.0, low=0.0, high=0.0, p_value=1.0)
    return row(labels, "self_preference", term, result, counts, unit=LOG_ODDS, margin=margin, note="; ".join(notes))


def _has_gold(rows: Covariates) -> bool:
    """Whether every row has a gold, and gold prefers a text in some."""
    return not np.any(np.isnan(rows.gold)) and bool(np.any(rows.gold != 0))


def _own_columns(judgments: pd.DataFrame) -> dict[str, Floats]:
    """(n,) columns, one a judge: in its own rows +1 where text a alone is its own, −1 text b alone, else 0."""
    columns = {}
    for judge in sorted({str(name) for name in judgments["judge"]}):
        model = own_model(judge)
        side = (judgments["model_a"] == model).astype(float) - (judgments["model_b"] == model).astype(float)
        column = np.where(judgments["judge"] == judge, side, 0.0)
        if np.any(column != 0):
            columns[f"own {judge}"] = column
    return columns


def _judge_columns(rows: Covariates, judgments: pd.DataFrame) -> dict[str, Floats]:
    """Order, every feature and gold, each in one judge's rows alone; no column where a feature differs in few items."""
    columns: dict[str, Floats] = {}
    for judge in sorted({str(name) for name in judgments["judge"]}):
        in_judge = (judgments["judge"] == judge).to_numpy()
        covariate_columns = {"order": rows.order, **dict(zip(rows.features, rows.differences.T, strict=True))}
        if _has_gold(rows):
            covariate_columns["gold"] = rows.gold
        for name, values in covariate_columns.items():
            column = np.where(in_judge, values, 0.0)
            differing = distinct(rows.items[column != 0])
            if differing >= (1 if name in ("order", "gold", "length") else FEWEST_ITEMS):
                columns[f"{name} {judge}"] = column
    return columns


def _generators(judgments: pd.DataFrame) -> list[str]:
    """The names of the generators, sorted."""
    return sorted({model for side in ("model_a", "model_b") for model in judgments[side].astype(str).tolist()})


def _generator_strengths(judgments: pd.DataFrame) -> dict[str, Floats]:
    """1[a is the generator's] − 1[b is], for all generators but the first, with which they are compared."""
    return {
        f"model {model}": np.where(judgments["model_a"] == model, 1.0, 0.0)
        - np.where(judgments["model_b"] == model, 1.0, 0.0)
        for model in _generators(judgments)[1:]
    }


def _generator_lengths(rows: Covariates, judgments: pd.DataFrame) -> Iterator[tuple[str, Floats]]:
    """The length difference in pairs that a generator takes part in, one column a generator but the first."""
    length = rows.length
    if length is not None:
        for model in _generators(judgments)[1:]:
            takes_part = ((judgments["model_a"] == model) != (judgments["model_b"] == model)).to_numpy()
            yield f"length with {model}", np.where(takes_part, length, 0.0)


def _linearly_independent(columns: Mapping[str, Floats]) -> bool:
    """Whether the columns (n,) are linearly independent."""
    x = np.stack(list(columns.values()), axis=1)
    lengths = np.linalg.norm(x, axis=0)
    return bool(np.all(lengths > 0)) and int(np.linalg.matrix_rank(x / lengths)) == x.shape[1]
