"""The Price identity: a generation's change of a feature mean, split exactly into selection, mixing and learning.

Each part is in the feature's unit; positive = it raises the mean. mean(candidates_{t+1}) − mean(candidates_t) is the sum of
selection (what the picks prefer), mixing (what the data strategy changes) and learning (what the policy makes of its
training set). See docs/method.md, "Where a change came from".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, estimate_row, replicate_mean
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.replicates import (
    CELL,
    MeasuredCandidates,
    Quantity,
    Rows,
    by_replicate,
    item_means,
    replicate_means,
    unrounded,
)

_SUM_TOLERANCE = 1e-6
_DISTRIBUTIONS = ("p_selected", "p_selected_gold", "p_training")
_INCOMPLETE = "no replicate recorded the distributions of this step completely"


@dataclass(frozen=True)
class PriceAccounts:
    """Replicate means by (replicate, arm, generation), a column a quantity: of the candidates, of the selection S_t, of
    gold's selection from the same candidates, and of the training set.

    A mean is missing (no row, or NaN) where some item's distribution does not sum to 1 over the texts in the table.
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
        """S^B_t: mean(S_t) minus the mean that the control's judge selects from the same candidates.

        ``control_kind``: ``random`` selects the candidates' own mean, ``gold`` its picks among this arm's candidates.
        """
        return self.selected - (self.selected_gold if control_kind == "gold" else self.candidates)


def accounts(measured: MeasuredCandidates) -> PriceAccounts:
    """The four means of every replicate, arm and generation, over the fixed items."""
    names = _account_names(measured.quantities)
    if measured.rows.empty:
        empty = pd.DataFrame(columns=names, index=pd.MultiIndex.from_arrays([[], [], []], names=CELL), dtype="float64")
        return PriceAccounts(empty, empty, empty, empty)
    of_items = item_means(measured.rows, names, "n_drawn")
    n_items = of_items.groupby(level=CELL).size()
    parts = [_distribution_means(measured.rows, names, weight, n_items) for weight in _DISTRIBUTIONS]
    return PriceAccounts(replicate_means(of_items, names), *parts)


def _distribution_means(rows: pd.DataFrame, names: Sequence[str], weight: str, n_items: pd.Series) -> pd.DataFrame:
    """Replicate means under the distribution in column ``weight``, of the cells in which every item's sums to 1."""
    empty = pd.DataFrame(columns=list(names), index=n_items.index[:0], dtype="float64")
    if weight not in rows.columns:
        return empty
    weights = pd.to_numeric(rows[weight]).fillna(0.0)
    if not bool((weights > 0).any()):
        return empty
    means = item_means(rows.assign(**{weight: weights}), names, weight)
    sums_to_1 = np.abs(means["weight"] - 1.0) <= _SUM_TOLERANCE
    counted = sums_to_1.groupby(level=CELL).sum()
    complete = counted[counted == n_items.reindex(counted.index)].index
    averaged = replicate_means(means, names)
    return averaged[averaged.index.isin(complete)]


def price_estimates(measured: MeasuredCandidates, design: Design, price_accounts: PriceAccounts) -> list[Estimate]:
    """Rows ``selection_``, ``mixing_``, ``learning_`` of every arm, and ``bias_selection_`` of every contrast."""
    rows: list[Estimate] = []
    terms = {
        "selection": price_accounts.selection(),
        "mixing": price_accounts.mixing(),
        "learning": price_accounts.learning(),
    }
    against = {
        control: price_accounts.bias_selection(design.arm(control).judge_kind) for _, control in design.contrasts
    }
    for quantity in measured.quantities:
        if not (quantity.has_sd or quantity.name == "correct"):
            continue
        for term, frame in terms.items():
            values = Rows(replicate_table(frame, quantity.name))
            for arm in design.arms:
                for t in range(design.generations):
                    name = f"{term}_{quantity.name}"
                    rows.append(_price_row(measured, quantity, name, values, arm.name, t))
        for arm_name, control in design.contrasts:
            values = Rows(replicate_table(against[control], quantity.name))
            for t in range(design.generations):
                rows.append(
                    _price_row(measured, quantity, f"bias_selection_{quantity.name}", values, arm_name, t, control)
                )
    return rows


def replicate_table(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of PriceAccounts' frames as (arm, generation) × replicate; empty where the frame lacks it."""
    return by_replicate(frame, column) if column in frame.columns and len(frame) else pd.DataFrame()


def _account_names(quantities: Sequence[Quantity]) -> list[str]:
    return [
        quantity.name
        for quantity in quantities
        if not quantity.undefined and (quantity.has_sd or quantity.name == "correct")
    ]


def _price_row(
    measured: MeasuredCandidates,
    quantity: Quantity,
    term: str,
    by_cell: Rows,
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
    values = unrounded(by_cell.row(arm, generation))
    values = values[~np.isnan(values)]
    # The parts of the identity describe what happened; only a contrast is tested against 0.
    tested = bool(control)
    result = replicate_mean(values, _INCOMPLETE, tested=tested)
    return estimate_row(result, null=0.0 if tested else None, n_replicates=len(values), **labels)
