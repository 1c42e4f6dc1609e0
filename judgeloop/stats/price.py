"""The Price identity: a generation's change of a feature mean, split exactly into selection, mixing and learning.

mean(candidates_{t+1}) − mean(candidates_t) = [mean(S_t) − mean(candidates_t)] + [mean(training set) − mean(S_t)] +
[mean(candidates_{t+1}) − mean(training set)] (Price 1970; Frank 2012; the method notes §2.2). Positive = that step adds
to the feature. The rows at generation t describe t → t + 1. No model is fitted, so nothing can be misfitted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.replicates import (
    CELL,
    Measured,
    Quantity,
    Rows,
    by_replicate,
    item_means,
    replicate_means,
    unrounded,
)
from judgeloop.stats.rows import estimate_row, replicate_mean

_SUM_TOLERANCE = 1e-6
_INCOMPLETE = "no replicate recorded the distributions of this step completely"


@dataclass(frozen=True)
class Accounts:
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


def accounts(measured: Measured) -> Accounts:
    """The four means of every replicate, arm and generation, over the fixed items."""
    names = _names(measured.quantities)
    drawn = replicate_means(item_means(measured.rows, names, "n_drawn"), names) if len(measured.rows) else None
    if drawn is None:
        empty = pd.DataFrame(columns=names, index=pd.MultiIndex.from_arrays([[], [], []], names=CELL), dtype="float64")
        return Accounts(empty, empty, empty, empty)
    n_items = item_means(measured.rows, [], "n_drawn").groupby(level=CELL).size()
    parts = [_distribution_means(measured.rows, names, weight, n_items) for weight in _DISTRIBUTIONS]
    return Accounts(drawn, *parts)


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


def price_estimates(measured: Measured, design: Design, books: Accounts) -> list[Estimate]:
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
                    rows.append(_row(measured, quantity, f"{term}_{quantity.name}", wide, arm.name, t))
        for arm_name, control in design.contrasts:
            wide = Rows(replicate_table(against[control], quantity.name))
            for t in range(design.generations):
                rows.append(_row(measured, quantity, f"bias_selection_{quantity.name}", wide, arm_name, t, control))
    return rows


def replicate_table(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of an account as (arm, generation) × replicate; empty where it has none."""
    return by_replicate(frame, column) if column in frame.columns and len(frame) else pd.DataFrame()


def _names(quantities: Sequence[Quantity]) -> list[str]:
    return [q.name for q in quantities if not q.undefined and (q.has_sd or q.name == "correct")]


def _row(
    measured: Measured, quantity: Quantity, term: str, wide: Rows, arm: str, generation: int, control: str = ""
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
