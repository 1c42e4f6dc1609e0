"""BiasAmp T→A: do a category's habits of style grow? Positive = what went together at generation 0 goes together more.

Wang & Russakovsky (2021): over features a (present or not) and categories t, the mean of
sign[P₀(a, t) − P₀(a)P₀(t)] · [P(a | t) − P₀(a | t)]. A shift that is the same in all categories cancels, so it stands
beside drift and is no measure of it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop.stats.loop.replicates import CELL, Measured, Quantity, Series
from judgeloop.text.features import STYLE_FEATURES

NAME = "bias_amplification"


def bias_amplification_series(measured: Measured) -> Series:
    """One number a replicate, arm and generation, 0 at generation 0; undefined where items have fewer than two categories.

    The signs are those of all replicates' generation 0 together. They are read from the sample that later generations are
    compared with, so that chance alone makes the number a little negative; ``did_`` is free of that.
    """
    present = [name for name in STYLE_FEATURES if measured.scale.get(name, 0.0) > 0]
    several = measured.rows.loc[measured.rows["category"] != "", "category"].nunique()
    why = "" if several > 1 else "the items name fewer than two categories"
    why = why or ("" if present else "no style feature varies at generation 0")
    quantity = Quantity(
        NAME, NAME, "style", "probability", undefined=why, missing="no candidate to measure",
        note=f"{len(present)} features × {several} categories",
    )  # fmt: skip
    if why:
        return Series(quantity, "", pd.DataFrame())
    rows = measured.rows[(measured.rows["n_drawn"] > 0) & (measured.rows["category"] != "")]
    has = rows[present].gt(0).astype("float64")
    frame = pd.concat([rows[[*CELL, "category", "n_drawn"]], has], axis=1)
    zero = frame[frame["generation"] == 0]
    overall = np.average(zero[present].to_numpy(), axis=0, weights=zero["n_drawn"])
    # P₀(a, t) − P₀(a)P₀(t) has the sign of P₀(a | t) − P₀(a).
    signs = (_shares(zero, ["category"], present) - overall).apply(np.sign)
    shares = _shares(frame, [*CELL, "category"], present)
    start = shares.xs(0, level="generation")
    keys = shares.index.to_frame(index=False)
    changes = (
        shares - start.reindex(pd.MultiIndex.from_frame(keys[["replicate", "arm", "category"]])).to_numpy()
    ) * signs.reindex(keys["category"]).to_numpy()
    means = changes.mean(axis="columns").groupby(level=CELL).mean()
    table = means.unstack("replicate")
    return Series(quantity, "", table)


def _shares(frame: pd.DataFrame, keys: list[str], features: list[str]) -> pd.DataFrame:
    """P(a | key): the weighted share of texts with each feature."""
    weighted = frame[features].mul(frame["n_drawn"], axis=0)
    sums = pd.concat([frame[keys], weighted, frame["n_drawn"]], axis=1).groupby(keys, sort=True, observed=True).sum()
    return sums[features].div(sums["n_drawn"], axis=0)
