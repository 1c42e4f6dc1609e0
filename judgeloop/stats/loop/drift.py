"""The path of a drift, one number a replicate: its slope over generations, its growth a loop, its exact test; and what the
judge's picks select directly. Positive = more of the quantity, or steps that grow (the method notes §2.2–2.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import Design
from judgeloop.stats.drift import CONFIRMATORY
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, fieller, sign_flip
from judgeloop.stats.loop.replicates import CELL, Measured, Series, across_replicates, snapped
from judgeloop.stats.rows import BareTest, estimate_row, replicate_mean
from judgeloop.text.features import FEATURES

FEWEST_FLIPS, MOST_FLIPS = 6, 20
"""Replicates with which a sign-flip test can reject at 5 %, and those that it enumerates."""

_SUM_TOLERANCE = 1e-6
_WORST_CONDITION = 1e6


def trend_estimates(measured: Measured, found: Sequence[Series], design: Design) -> list[Estimate]:
    """``trend_<quantity>`` and ``loop_gain_<quantity>`` of every contrast, and ``did_`` variant ``sign_flip``.

    A row a feature, style score and correctness; the variant for the confirmatory terms at the last generation.
    """
    rows: list[Estimate] = []
    for one in found:
        quantity = one.quantity
        if one.category or quantity.undefined:
            continue
        for arm, control in design.contrasts:
            _, n_items, _ = measured.count("", arm, design.generations)
            labels: dict[str, Any] = {
                "scope": "policy", "bias": quantity.bias, "arm": arm, "contrast": control, "n_items": n_items,
            }  # fmt: skip
            if quantity.has_sd or quantity.name == "correct":
                path = pd.DataFrame({t: one.did(arm, control, t) for t in range(1, design.generations + 1)}).dropna()
                rows += _of_path(path.to_numpy(dtype=np.float64), quantity.name, quantity.unit, labels)
            if f"did_{quantity.name}" in CONFIRMATORY:
                rows += _flipped(one, arm, control, design.generations, labels)
    return rows


def _of_path(path: NDArray[np.float64], name: str, unit: str, labels: dict[str, Any]) -> list[Estimate]:
    """``path``: (replicates, T), D_1 … D_T; D_0 = 0."""
    steps = path.shape[1]
    if steps < 2:
        return []
    counts: dict[str, Any] = {"n": len(path), "n_replicates": len(path), **labels}
    times = np.arange(steps + 1) - steps / 2
    slopes = snapped(pd.Series(path @ times[1:] / float(times @ times), dtype="float64"))
    trend = estimate_row(
        replicate_mean(slopes), term=f"trend_{name}", unit=unit, family="exploratory", **counts,
    )  # fmt: skip
    # The ratio of summed increments: increments on increments, least squares, are attenuated by their noise.
    gain = fieller(path[:, -1] - path[:, 0], path[:, -2], null=1.0) if len(path) else Undefined("no replicate")
    if isinstance(gain, Interval):
        gain = replace(gain, p_value=None, method="Fieller t over replicates")
    elif len(path) > 1:
        gain = Undefined(f"the 95 % interval of D_{steps - 1} covers 0, so a ratio to it means nothing")
    return [trend, estimate_row(gain, null=None, term=f"loop_gain_{name}", unit="ratio", **counts)]


def _flipped(one: Series, arm: str, control: str, generation: int, labels: dict[str, Any]) -> list[Estimate]:
    values = one.did(arm, control, generation)
    if not FEWEST_FLIPS <= len(values) <= MOST_FLIPS:
        return []
    return [
        estimate_row(
            BareTest(float(values.mean()), sign_flip(values.to_numpy()), "exact sign flips over replicates"),
            term=f"did_{one.quantity.name}", variant="sign_flip", generation=generation, unit=one.quantity.unit,
            n=len(values), n_replicates=len(values), note="asks that differences are symmetric, not normal", **labels,
        )
    ]  # fmt: skip


def gradient_estimates(measured: Measured, design: Design) -> list[Estimate]:
    """``gradient_<feature>``: Lande & Arnold's (1983) Σ⁻¹S of each arm's picks, t = 0 … T − 1, in relative fitness per unit.

    S: mean over items of the selection's feature means less the candidates'. Σ: the candidates' covariance within items,
    over the same items. Direct selection: what a feature's own unit is worth with the others held. Features that vary at
    generation 0; a replicate whose features are (nearly) collinear has none.
    """
    names = [name for name in FEATURES if measured.scale.get(name, 0.0) > 0]
    if not names or measured.rows.empty or "p_selected" not in measured.rows.columns:
        return []
    found: dict[tuple[int, str, int], NDArray[np.float64]] = {}
    for _, cell in measured.rows.groupby(CELL, sort=True, observed=True):
        replicate, t = int(cell["replicate"].iloc[0]), int(cell["generation"].iloc[0])
        value = _gradient(cell, names) if t < design.generations else None
        if value is not None:
            found[replicate, str(cell["arm"].iloc[0]), t] = value
    rows = []
    keys = pd.MultiIndex.from_tuples(list(found), names=CELL) if found else None
    table = pd.DataFrame(list(found.values()), index=keys, columns=names) if found else None
    for quantity in measured.quantities:
        if quantity.name not in names:
            continue
        wide = table[quantity.name].unstack("replicate") if table is not None else pd.DataFrame()
        for arm in design.arms:
            for t in range(design.generations):
                n, n_items, _ = measured.count("", arm.name, t)
                values = across_replicates(wide, arm.name, t)
                result = replicate_mean(values, "no replicate's selection is whole and its features apart")
                rows.append(
                    estimate_row(
                        result, scope="policy", bias=quantity.bias, term=f"gradient_{quantity.name}", arm=arm.name,
                        generation=t, n=n, n_items=n_items, n_replicates=len(values), unit="per unit of the feature",
                        family="exploratory",
                    )
                )  # fmt: skip
    return rows


def _gradient(cell: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64] | None:
    """Σ⁻¹S of the candidates of one replicate, arm and generation; None where it has none."""
    _, items = np.unique(cell["item_id"].astype(str).to_numpy(), return_inverse=True)
    x = cell[list(names)].to_numpy(dtype=np.float64)
    drawn = cell["n_drawn"].to_numpy(dtype=np.float64)
    selected = pd.to_numeric(cell["p_selected"]).fillna(0.0).to_numpy(dtype=np.float64)
    if np.any(np.abs(np.bincount(items, weights=selected) - 1.0) > _SUM_TOLERANCE):
        return None
    drawn = drawn / np.bincount(items, weights=drawn)[items]
    means = np.stack([np.bincount(items, weights=drawn * column) for column in x.T], axis=1)
    rest = x - means[items]
    many = len(means)
    covariance = (drawn[:, None] * rest).T @ rest / many
    if not np.all(np.isfinite(covariance)) or np.linalg.cond(covariance) > _WORST_CONDITION:
        return None
    return np.asarray(np.linalg.solve(covariance, selected @ rest / many), dtype=np.float64)
