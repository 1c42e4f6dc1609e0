"""The strategy gap: data strategies compared at equal generations and at equal training tokens.

Positive gap = the arm drifts more than the first arm. At equal generations an arm that accumulates has trained on far more
text than one that replaces, so that a difference may be one of size; at equal tokens the sizes agree and the number of steps
does not. Both are reported (docs/method.md, "Choices that change the answer"), for arms that differ in their strategy alone,
within replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import Estimate, estimate_row, replicate_mean
from judgeloop.stats.inference import Interval
from judgeloop.stats.loop.drift import quantity_series
from judgeloop.stats.loop.replicates import CELL, MeasuredCandidates, Series, across_replicates, snapped

QUANTITIES = ("length", "style_score")
_SUM_TOLERANCE = 1e-6


def strategy_gap_estimates(
    measured: MeasuredCandidates, all_series: Iterable[Series], design: Design
) -> list[Estimate]:
    """Rows ``training_tokens`` (cumulative, a generation), ``drift_<quantity>`` (variant ``equal_tokens``) and
    ``strategy_gap_<quantity>`` (variants "" at the last generation, ``equal_tokens``), contrast = the first of ``strategy_arms``.

    Gaps and drifts are in the quantity's unit. Nothing where no two arms differ in their strategy alone.
    """
    arms = strategy_arms(design)
    if not arms or not len(measured.rows):
        return []
    trained = training_tokens(measured.rows, arms)
    measured_series = list(all_series)
    rows: list[Estimate] = []
    for arm in arms:
        for generation in range(1, design.generations + 1):
            values = across_replicates(trained, arm.name, generation)
            result = replicate_mean(values, "no replicate recorded its training set completely", tested=False)
            rows.append(
                estimate_row(
                    result, null=None, scope="policy", bias="verbosity", term="training_tokens", arm=arm.name,
                    generation=generation, n=len(values), n_replicates=len(values), unit="tokens",
                )
            )  # fmt: skip
    for name in QUANTITIES:
        series = quantity_series(measured_series, name)
        if series is not None and not series.quantity.undefined:
            rows += _gap_rows(series, arms, trained, design.generations)
    return rows


def strategy_arms(design: Design) -> tuple[ArmDesign, ...]:
    """The first arm (no control) from which others differ in strategy or real share alone, and those others; () if none."""
    judged = [arm for arm in design.arms if not arm.is_control]
    for first in judged:
        alike = [arm for arm in judged if _without_strategy(arm) == _without_strategy(first)]
        if len({(arm.strategy, arm.real_fraction) for arm in alike}) > 1:
            return tuple(alike)
    return ()


def training_tokens(rows: pd.DataFrame, arms: Sequence[ArmDesign]) -> pd.DataFrame:
    """Tokens trained on before each generation's candidates were drafted: (arm, generation) × replicate, from generation 1.

    A training set has as many texts as were drafted in the generation (K an item); with ``accumulate`` t + 2 times as many.
    Tokens are expected ones under ``p_training``. NaN where some item's distribution does not sum to 1.
    """
    if "p_training" not in rows.columns:
        return pd.DataFrame()
    part = rows[rows["arm"].isin([arm.name for arm in arms])]
    mass = pd.to_numeric(part["p_training"]).fillna(0.0).to_numpy(dtype=np.float64)
    length = part["length"].to_numpy(dtype=np.float64)
    tokens = np.where(mass > 0, mass * np.exp2(length), 0.0)
    summed = part[[*CELL, "item_id", "n_drawn"]].assign(mass=mass, tokens=tokens)
    items = summed.groupby([*CELL, "item_id"], sort=True, observed=True)[["n_drawn", "mass", "tokens"]].sum()
    items = items[items["mass"].groupby(level=CELL).transform("max") > 0]
    items["tokens"] = (items["tokens"] * items["n_drawn"]).where((items["mass"] - 1.0).abs() <= _SUM_TOLERANCE)
    step = (
        items["tokens"].groupby(level=CELL).agg(lambda values: values.sum(skipna=False)).rename("tokens").reset_index()
    )
    grows = {arm.name: arm.strategy == "accumulate" for arm in arms}
    step["tokens"] *= np.where(step["arm"].map(grows), step["generation"] + 2, 1)
    step = step.sort_values(["replicate", "arm", "generation"])
    step["tokens"] = step.groupby(["replicate", "arm"])["tokens"].transform(lambda values: values.cumsum(skipna=False))
    step["generation"] += 1
    return step.pivot(index=["arm", "generation"], columns="replicate", values="tokens")


def at_tokens(drifts: Sequence[float], tokens: Sequence[float], budget: float) -> float:
    """The drift after ``budget`` tokens, linear between generations; both lists begin at generation 0 with 0.

    NaN beyond the last generation, or where a number is missing.
    """
    if not np.all(np.isfinite([*drifts, *tokens, budget])) or budget > tokens[-1] * (1 + 1e-12):
        return float("nan")
    return float(np.interp(budget, tokens, drifts))


def _without_strategy(arm: ArmDesign) -> tuple[str, ...]:
    """All of an arm's design but its strategy and real share."""
    return (arm.judge, arm.judge_kind, arm.policy_kind, arm.label_rule, arm.update, arm.reference, arm.settings)


def _gap_rows(series: Series, arms: Sequence[ArmDesign], trained: pd.DataFrame, last: int) -> list[Estimate]:
    """The rows of one quantity. The token budget of a replicate is the least that any of the arms trained on."""
    budgets = (
        pd.DataFrame({arm.name: across_replicates(trained, arm.name, last) for arm in arms})
        .min(axis=1, skipna=False)
        .dropna()
    )
    at_budget = {arm.name: _at_budget(series, arm.name, trained, budgets, last) for arm in arms}
    first = arms[0]
    quantity = series.quantity
    shared: dict[str, Any] = {"scope": "policy", "bias": quantity.bias, "unit": quantity.unit}
    note = f"after {budgets.mean():,.0f} training tokens" if len(budgets) else ""
    missing = "no replicate recorded its training sets completely"
    rows = []
    for arm in arms:
        values = at_budget[arm.name]
        rows.append(_gap_row(f"drift_{quantity.name}", arm.name, "", values, missing, note, shared))
        if (arm.strategy, arm.real_fraction) == (first.strategy, first.real_fraction):
            continue
        last_gap = snapped((series.drift(arm.name, last) - series.drift(first.name, last)).dropna())
        term = f"strategy_gap_{quantity.name}"
        rows.append(
            _gap_row(term, arm.name, first.name, last_gap, "no replicate has both", f"at generation {last}", shared, "")
        )
        budget_gap = snapped((values - at_budget[first.name]).dropna())
        rows.append(_gap_row(term, arm.name, first.name, budget_gap, missing, note, shared))
    return rows


def _at_budget(
    series: Series, arm: str, trained: pd.DataFrame, budgets: pd.Series[float], last: int
) -> pd.Series[float]:
    """By replicate: the arm's drift after the ``budgets`` of training tokens."""
    drifts = {g: series.drift(arm, g) for g in range(1, last + 1)}
    tokens = {g: across_replicates(trained, arm, g) for g in range(1, last + 1)}
    by_replicate = {
        replicate: at_tokens(
            [0.0, *(drifts[g].get(replicate, np.nan) for g in drifts)],
            [0.0, *(tokens[g].get(replicate, np.nan) for g in tokens)],
            float(budget),
        )
        for replicate, budget in budgets.items()
    }
    return pd.Series(by_replicate, dtype="float64").dropna()


def _gap_row(
    term: str, arm: str, contrast: str, values: pd.Series[float], missing: str, note: str, shared: dict[str, Any],
    variant: str = "equal_tokens",
) -> Estimate:  # fmt: skip
    result = replicate_mean(values, missing)
    return estimate_row(
        result, note=note if isinstance(result, Interval) else "", term=term, arm=arm, contrast=contrast,
        variant=variant, n=len(values), n_replicates=len(values), **shared,
    )  # fmt: skip
