"""Finite pools: what a taste that does not change makes of one, and how much of its range a loop has used up.

A pool is a fixed number of texts an item, and feedback can only re-weight them: each step moves the mean by less as the
weight gathers on the best texts, whatever the judge does (docs/method.md, "Benchmarks").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import Estimate, estimate_row, replicate_mean
from judgeloop.stats.loop.forecast import ForecastLoop, pool_weights, selected
from judgeloop.stats.loop.replicates import MeasuredCandidates

Floats = NDArray[np.float64]

_PASSES = 10
"""How often the draws of accumulate_subsample are repeated: one set of them is as noisy as the run's own."""


@dataclass(frozen=True)
class ConstantTaste:
    """The course of one arm's pools under its signal of generation 0.

    ``rows``: the n pool texts; ``groups`` (n,) the replicate and item of each, as a number; ``weights``: three arrays (n,),
    the texts' weights at generations 0, 1 and T.
    """

    rows: pd.DataFrame
    groups: NDArray[np.intp]
    weights: tuple[Floats, Floats, Floats]

    def moves(self, quantity: str) -> tuple[float, float]:
        """The expected drift of a quantity after 1 and after T steps, mean over replicates and items; NaN where it has no value."""
        values = self.rows[quantity].to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        zero, *later = (_group_means(values[finite], w[finite], self.groups[finite]) for w in self.weights)
        first, last = (float(np.mean(means - zero)) if len(zero) else np.nan for means in later)
        return first, last


def _group_means(values: Floats, weights: Floats, groups: NDArray[np.intp]) -> Floats:
    """Weighted means of the groups that have weight."""
    total = np.bincount(groups, weights=weights)
    summed = np.bincount(groups, weights=weights * values, minlength=len(total))
    return np.asarray(summed[total > 0] / total[total > 0], dtype=np.float64)


def constant_taste(
    measured: MeasuredCandidates, slopes: pd.DataFrame | None, arm: ArmDesign, design: Design, size: int | None
) -> ConstantTaste | None:
    """What the signal of generation 0, held constant, makes of an arm's pools; None where it is not known.

    ``slopes``: replicate × feature, generation 0's fitted slopes in estimate units; their mean over replicates is the taste,
    since one replicate's own error, repeated T times, would pass for a taste. ``size``: candidates an item (K). Not known
    are policies that draft anew, picks without a fitted signal, and replicates whose weights were not recorded.
    """
    if arm.policy_kind != "pool" or arm.update == "training" or slopes is None or size is None:
        return None
    if "p_current" not in measured.rows.columns:
        return None
    rows = measured.rows[(measured.rows["arm"] == arm.name) & (measured.rows["generation"] == 0)]
    rows = rows[pd.to_numeric(rows["p_current"]).notna()]
    mean = slopes.mean().dropna()
    if rows.empty or mean.empty:
        return None
    reward = rows[mean.index].to_numpy(dtype=np.float64) @ mean.to_numpy(dtype=np.float64)
    groups = rows.groupby(["replicate", "item_id"], sort=True, observed=True).ngroup().to_numpy().astype(np.intp)
    # A row of the arrays is a pool, its texts in ascending order of the reward, behind cells without a text.
    order = np.lexsort((reward, groups))
    counts = np.bincount(groups)
    widest = int(counts.max())
    place = np.empty(len(rows), dtype=np.intp)
    place[order] = (
        np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(widest - counts, counts)
    )

    def pools(values: Floats, missing: float) -> Floats:
        table = np.full((len(counts), widest), missing)
        table[groups, place] = values
        return table

    base, drawn = (
        pools(pd.to_numeric(rows[name]).to_numpy(dtype=np.float64), 0.0) for name in ("p_current", "n_drawn")
    )
    base, zero = base / base.sum(axis=1, keepdims=True), drawn / drawn.sum(axis=1, keepdims=True)
    added = pools(np.asarray(rows["p_current"] == 0, dtype=np.float64), 0.0)
    # Real texts of a file join the pool without weight; without a file generation 0's candidates are the real data.
    n_added = added.sum(axis=1, keepdims=True)
    real = np.where(n_added > 0, added / np.maximum(n_added, 1.0), zero)
    course = ForecastLoop(
        design.generations, arm.update, arm.tau, arm.strategy, arm.real_fraction, None, arm.reference, widest, size
    )
    score = pools(reward, -np.inf)
    stream = rng(design.seed, "constant taste", arm.name)
    passes = _PASSES if arm.strategy == "accumulate_subsample" else 1
    first, last = np.zeros_like(base), np.zeros_like(base)
    for _ in range(passes):
        path = pool_weights(
            base, lambda weights: selected(weights, score, 1.0 / arm.tau, course), course, stream, zero=zero, real=real
        )
        first, last = first + path[0] / passes, last + path[-1] / passes
    return ConstantTaste(rows, groups, (base[groups, place], first[groups, place], last[groups, place]))


RANGE_USED = "pool_range_used"


def range_estimates(measured: MeasuredCandidates, design: Design) -> list[Estimate]:
    """Rows ``pool_range_used_<quantity>`` of every pool arm at the last generation: a share, 1 = nothing is left of the pool.

    How far the mean under the pool's weights has moved since generation 0, over how far it could: to the item's text with
    the most of the quantity (the least, where it falls), both means over items; t over replicates. A description.
    """
    rows: list[Estimate] = []
    quantities = [quantity for quantity in measured.quantities if quantity.has_sd and not quantity.undefined]
    if measured.rows.empty or "p_current" not in measured.rows.columns or design.generations < 1:
        return rows
    for arm in design.arms:
        if arm.policy_kind != "pool":
            continue
        shares, n_items = _shares_used(measured.rows, arm.name, design.generations, [q.name for q in quantities])
        for quantity in quantities:
            values = shares[quantity.name].dropna()
            result = replicate_mean(
                values, "the pool's weights were not recorded, or its texts are alike", tested=False
            )
            rows.append(estimate_row(
                result, null=None, scope="policy", bias=quantity.bias, term=f"{RANGE_USED}_{quantity.name}", arm=arm.name,
                generation=design.generations, unit="ratio", n=len(values), n_items=n_items, n_replicates=len(values),
            ))  # fmt: skip
    return rows


def _shares_used(table: pd.DataFrame, arm: str, last: int, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """(replicate × quantity, items) the share of the pools' range that is used at generation ``last``; NaN where there is none."""
    part = table[
        (table["arm"] == arm) & table["generation"].isin([0, last]) & pd.to_numeric(table["p_current"]).notna()
    ]
    keys = ["generation", "replicate", "item_id"]
    weighted = part[[*names]].mul(pd.to_numeric(part["p_current"]), axis=0)
    means = pd.concat([part[keys], weighted], axis=1).groupby(keys, sort=True, observed=True).sum()
    texts = part[part["generation"] == 0].groupby(keys[1:], sort=True, observed=True)[[*names]]
    if not len(texts) or last not in means.index.get_level_values("generation"):
        return pd.DataFrame(columns=[*names], dtype="float64"), 0
    start = means.xs(0, level="generation")
    moved = (means.xs(last, level="generation") - start).groupby(level="replicate").mean()
    up = (texts.max() - start).groupby(level="replicate").mean()
    down = (start - texts.min()).groupby(level="replicate").mean()
    rises = moved.to_numpy(dtype=np.float64).mean(axis=0) >= 0
    reach = pd.DataFrame(np.where(rises, up, -down), index=up.index, columns=up.columns)
    return moved / reach.where(reach.abs() > 1e-9), part["item_id"].nunique()
