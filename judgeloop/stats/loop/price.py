"""Data strategies compared at equal generations and at equal training tokens. Positive gap = drifts more than the first.

At equal generations an arm that accumulates has trained on far more text than one that replaces, so that a difference
may be one of size; at equal tokens the sizes agree and the number of steps does not. Both are shown
(docs/method.md, "Choices that change the answer"). Compared are arms that differ in their strategy alone, within
replicates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import Estimate, estimate_row, replicate_mean
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.loop.drift import quantity_series
from judgeloop.stats.loop.replicates import (
    CELL,
    MeasuredCandidates,
    Quantity,
    Rows,
    Series,
    across_replicates,
    by_replicate,
    item_means,
    replicate_means,
    snapped,
    unrounded,
)

QUANTITIES = ("length", "style_score")
_WHOLE = 1e-6


def strategy_gap_estimates(
    measured: MeasuredCandidates, quantities: Iterable[Series], design: Design
) -> list[Estimate]:
    """Rows ``training_tokens`` (cumulative, a generation), ``drift_<quantity>`` (variant ``equal_tokens``) and
    ``strategy_gap_<quantity>`` (variants "" at the last generation, ``equal_tokens``), contrast = the first such arm.

    Nothing where no two arms differ in their strategy alone.
    """
    arms = compared(design)
    if not arms or not len(measured.rows):
        return []
    trained = training_tokens(measured.rows, arms)
    found = list(quantities)
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
        one = quantity_series(found, name)
        if one is not None and not one.quantity.undefined:
            rows += _gaps(one, arms, trained, design.generations)
    return rows


def compared(design: Design) -> tuple[ArmDesign, ...]:
    """The first arm (controls left out) that others differ from in strategy or real share alone, and those others."""
    asked = [arm for arm in design.arms if not arm.is_control]
    for first in asked:
        same = [arm for arm in asked if _else(arm) == _else(first)]
        if len({(arm.strategy, arm.real_fraction) for arm in same}) > 1:
            return tuple(same)
    return ()


def training_tokens(rows: pd.DataFrame, arms: Sequence[ArmDesign]) -> pd.DataFrame:
    """Tokens trained on before each generation's candidates were drafted: (arm, generation) × replicate, from generation 1.

    A training set holds as many texts as were drafted in the generation (K an item), but for ``accumulate``: t + 2 times
    as many. Tokens are the expected ones under ``p_training``. NaN where some item's distribution is not whole.
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
    items["tokens"] = (items["tokens"] * items["n_drawn"]).where((items["mass"] - 1.0).abs() <= _WHOLE)
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


def _else(arm: ArmDesign) -> tuple[str, ...]:
    return (arm.judge, arm.judge_kind, arm.policy_kind, arm.label_rule, arm.update, arm.reference)


def _gaps(one: Series, arms: Sequence[ArmDesign], trained: pd.DataFrame, last: int) -> list[Estimate]:
    budgets = (
        pd.DataFrame({arm.name: across_replicates(trained, arm.name, last) for arm in arms})
        .min(axis=1, skipna=False)
        .dropna()
    )
    equal = {arm.name: _at_budget(one, arm.name, trained, budgets, last) for arm in arms}
    first = arms[0]
    quantity = one.quantity
    shared: dict[str, Any] = {"scope": "policy", "bias": quantity.bias, "unit": quantity.unit}
    note = f"after {budgets.mean():,.0f} training tokens" if len(budgets) else ""
    missing = "no replicate recorded its training sets completely"
    rows = []
    for arm in arms:
        values = equal[arm.name]
        rows.append(_gap_row(f"drift_{quantity.name}", arm.name, "", values, missing, note, shared))
        if (arm.strategy, arm.real_fraction) == (first.strategy, first.real_fraction):
            continue
        steps = snapped((one.drift(arm.name, last) - one.drift(first.name, last)).dropna())
        term = f"strategy_gap_{quantity.name}"
        rows.append(
            _gap_row(term, arm.name, first.name, steps, "no replicate has both", f"at generation {last}", shared, "")
        )
        gap = snapped((values - equal[first.name]).dropna())
        rows.append(_gap_row(term, arm.name, first.name, gap, missing, note, shared))
    return rows


def _at_budget(one: Series, arm: str, trained: pd.DataFrame, budgets: pd.Series[float], last: int) -> pd.Series[float]:
    drifts = {g: one.drift(arm, g) for g in range(1, last + 1)}
    tokens = {g: across_replicates(trained, arm, g) for g in range(1, last + 1)}
    found = {
        replicate: at_tokens(
            [0.0, *(drifts[g].get(replicate, np.nan) for g in drifts)],
            [0.0, *(tokens[g].get(replicate, np.nan) for g in tokens)],
            float(budget),
        )
        for replicate, budget in budgets.items()
    }
    return pd.Series(found, dtype="float64").dropna()


def _gap_row(
    term: str, arm: str, contrast: str, values: pd.Series[float], missing: str, note: str, shared: dict[str, Any],
    variant: str = "equal_tokens",
) -> Estimate:  # fmt: skip
    result = replicate_mean(values, missing)
    return estimate_row(
        result, note=note if isinstance(result, Interval) else "", term=term, arm=arm, contrast=contrast,
        variant=variant, n=len(values), n_replicates=len(values), **shared,
    )  # fmt: skip


# The Price identity: a generation's change of a feature mean, split exactly into selection, mixing and learning.

_SUM_TOLERANCE = 1e-6
_INCOMPLETE = "no replicate recorded the distributions of this step completely"


@dataclass(frozen=True)
class PriceAccounts:
    """Replicate means, indexed by (replicate, arm, generation), a column a quantity: of the candidates, the selection
    S_t, gold's selection on the same candidates, and the training set. A mean is missing (no row, or NaN) where some
    item's distribution does not sum to 1 over texts that the table holds.
    """

    candidates: pd.DataFrame
    selected: pd.DataFrame
    selected_gold: pd.DataFrame
    training: pd.DataFrame

    def selection(self) -> pd.DataFrame:
        """mean(S_t) − mean(candidates_t)."""
        return self.selected - self.candidates

    def mixing(self) -> pd.DataFrame:
        """mean(training set) − mean(S_t)."""
        return self.training - self.selected

    def learning(self) -> pd.DataFrame:
        """mean(candidates_{t+1}) − mean(training set)."""
        following = self.candidates.rename(index=lambda generation: generation - 1, level="generation")
        return following - self.training

    def bias_selection(self, control_kind: str) -> pd.DataFrame:
        """mean(S_t) less the mean that the control's judge selects from the same candidates (S^B_t).

        ``random`` selects the candidates' own mean, ``gold`` what it picked of this arm's candidates.
        """
        return self.selected - (self.selected_gold if control_kind == "gold" else self.candidates)


def accounts(measured: MeasuredCandidates) -> PriceAccounts:
    """The four means of every replicate, arm and generation, over the fixed items."""
    names = _names(measured.quantities)
    drawn = replicate_means(item_means(measured.rows, names, "n_drawn"), names) if len(measured.rows) else None
    if drawn is None:
        empty = pd.DataFrame(columns=names, index=pd.MultiIndex.from_arrays([[], [], []], names=CELL), dtype="float64")
        return PriceAccounts(empty, empty, empty, empty)
    n_items = item_means(measured.rows, [], "n_drawn").groupby(level=CELL).size()
    parts = [_distribution_means(measured.rows, names, weight, n_items) for weight in _DISTRIBUTIONS]
    return PriceAccounts(drawn, *parts)


_DISTRIBUTIONS = ("p_selected", "p_selected_gold", "p_training")


def _distribution_means(rows: pd.DataFrame, names: Sequence[str], weight: str, n_items: pd.Series) -> pd.DataFrame:
    empty = pd.DataFrame(columns=list(names), index=n_items.index[:0], dtype="float64")
    if weight not in rows.columns:
        return empty
    weights = pd.to_numeric(rows[weight]).fillna(0.0)
    if not bool((weights > 0).any()):
        return empty
    means = item_means(rows.assign(**{weight: weights}), names, weight)
    whole = np.abs(means["weight"] - 1.0) <= _SUM_TOLERANCE
    counted = whole.groupby(level=CELL).sum()
    complete = counted[counted == n_items.reindex(counted.index)].index
    averaged = replicate_means(means, names)
    return averaged[averaged.index.isin(complete)]


def price_estimates(measured: MeasuredCandidates, design: Design, books: PriceAccounts) -> list[Estimate]:
    """Rows ``selection_``, ``mixing_``, ``learning_`` of every arm, and ``bias_selection_`` of every contrast."""
    rows: list[Estimate] = []
    terms = {"selection": books.selection(), "mixing": books.mixing(), "learning": books.learning()}
    against = {control: books.bias_selection(design.arm(control).judge_kind) for _, control in design.contrasts}
    for quantity in measured.quantities:
        if not (quantity.has_sd or quantity.name == "correct"):
            continue
        for term, frame in terms.items():
            wide = Rows(replicate_table(frame, quantity.name))
            for arm in design.arms:
                for t in range(design.generations):
                    rows.append(_price_row(measured, quantity, f"{term}_{quantity.name}", wide, arm.name, t))
        for arm_name, control in design.contrasts:
            wide = Rows(replicate_table(against[control], quantity.name))
            for t in range(design.generations):
                rows.append(
                    _price_row(measured, quantity, f"bias_selection_{quantity.name}", wide, arm_name, t, control)
                )
    return rows


def replicate_table(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of an account as (arm, generation) × replicate; empty where it has none."""
    return by_replicate(frame, column) if column in frame.columns and len(frame) else pd.DataFrame()


def _names(quantities: Sequence[Quantity]) -> list[str]:
    return [q.name for q in quantities if not q.undefined and (q.has_sd or q.name == "correct")]


def _price_row(
    measured: MeasuredCandidates,
    quantity: Quantity,
    term: str,
    wide: Rows,
    arm: str,
    generation: int,
    control: str = "",
) -> Estimate:
    n, n_items, _ = measured.count("", arm, generation)
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "term": term, "arm": arm, "contrast": control,
        "generation": generation, "unit": quantity.unit, "n": n, "n_items": n_items,
    }  # fmt: skip
    if quantity.undefined:
        return estimate_row(Undefined(quantity.undefined), n_replicates=0, **labels)
    values = unrounded(wide.row(arm, generation))
    values = values[~np.isnan(values)]
    # The parts of an identity split what happened; whether a part is 0 is no question that they answer.
    tested = bool(control)
    result = replicate_mean(values, _INCOMPLETE, tested=tested)
    return estimate_row(result, null=0.0 if tested else None, n_replicates=len(values), **labels)
