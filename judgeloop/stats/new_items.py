"""Drift beyond the control for other items than these: variant ``new_items``. Positive = more drift than the control arm's.

The t over replicates is conditional on the run's items. Items and replicates are crossed, so both are resampled at once:
the pigeonhole bootstrap (Owen 2007), whose variance is cautious (the method notes §2.3).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, t_interval
from judgeloop.stats.loop.replicates import Measured, item_means
from judgeloop.stats.rows import estimate_row

QUANTITIES = ("length", "style_score", "correct")
DRAWS = 4_000
FEWEST = 5
"""Fewer items or replicates than this tell nothing of others."""


def new_item_estimates(measured: Measured, design: Design) -> list[Estimate]:
    """``did_<quantity>``, variant ``new_items``, at the last generation: a row a contrast and quantity of QUANTITIES."""
    known = [one for one in measured.quantities if one.name in QUANTITIES and not one.undefined]
    if not known or design.generations < 1:
        return []
    means = item_means(measured.rows, [one.name for one in known], "n_drawn")
    rows = []
    for arm, control in design.contrasts:
        for quantity in known:
            table = _differences(means[quantity.name], arm, control, design.generations)
            found = over_both(table, seeds.rng(design.seed, "new items", arm, control, quantity.name))
            rows.append(estimate_row(
                found, note="for other items than these, drawn alike", scope="policy", bias=quantity.bias,
                term=f"did_{quantity.name}", arm=arm, contrast=control, generation=design.generations,
                variant="new_items", unit=quantity.unit, n=table.shape[0], n_items=table.shape[1],
                n_replicates=table.shape[0],
            ))  # fmt: skip
    return rows


def over_both(table: NDArray[np.float64], generator: np.random.Generator) -> Interval | Undefined:
    """The mean of ``table`` (replicates, items), NaN where missing, with the pigeonhole bootstrap's standard error.

    The t has the degrees of freedom of the shorter side less one.
    """
    present = np.isfinite(table)
    if min(table.shape) < FEWEST:
        return Undefined(
            f"{table.shape[0]} replicates and {table.shape[1]} items; other items ask for {FEWEST} of each"
        )
    filled = np.where(present, table, 0.0)
    by_replicate = generator.multinomial(table.shape[0], np.full(table.shape[0], 1 / table.shape[0]), size=DRAWS)
    by_item = generator.multinomial(table.shape[1], np.full(table.shape[1], 1 / table.shape[1]), size=DRAWS)
    total = np.sum((by_replicate @ filled) * by_item, axis=1)
    weight = np.sum((by_replicate @ present.astype(np.float64)) * by_item, axis=1)
    error = float(np.std(total[weight > 0] / weight[weight > 0], ddof=1))
    if error == 0:
        return Undefined("no replicate and no item differs")
    df = min(table.shape) - 1
    return t_interval(float(filled.sum() / present.sum()), error, df, method="pigeonhole bootstrap, replicates × items")


def _differences(means: pd.Series[float], arm: str, control: str, generation: int) -> NDArray[np.float64]:
    """(replicates, items) drift in ``arm`` less that in ``control``."""
    wide = means.unstack(["arm", "generation"])
    wanted = [(arm, generation), (arm, 0), (control, generation), (control, 0)]
    if any(column not in wide.columns for column in wanted):
        return np.empty((0, 0))
    there, start, other, origin = (wide[column] for column in wanted)
    return ((there - start) - (other - origin)).unstack("item_id").to_numpy(dtype=np.float64)
