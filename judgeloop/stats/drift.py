"""Level, drift and drift beyond a control arm, per generation, from one number a replicate (the method notes §2.3, §7.4).

Positive drift = more of the quantity than before any feedback; positive did = more drift than the control arm's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.categories import RARE
from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.replicates import Measured, Series
from judgeloop.stats.rows import estimate_row, joined, replicate_mean

CONFIRMATORY = ("did_length", "did_style_score", "did_mattr")
"""The confirmatory family of a run, at its last generation and confirmatory contrast (the method notes §7.6)."""


def drift_estimates(measured: Measured, quantities: Iterable[Series], design: Design) -> list[Estimate]:
    """Rows ``mean_``, ``sd_``, ``drift_`` and ``did_`` (levels of diversity under their own name) of every generation.

    Drift and did begin at generation 1: at generation 0 they are 0 by construction.
    """
    rows: list[Estimate] = []
    for one in quantities:
        for arm in design.arms:
            for generation in range(design.generations + 1):
                rows += _of_arm(measured, one, arm.name, generation)
        for arm_name, control in design.contrasts:
            rows += [_did(measured, one, design, arm_name, control, t) for t in range(1, design.generations + 1)]
    return rows


def _of_arm(measured: Measured, one: Series, arm: str, generation: int) -> list[Estimate]:
    quantity = one.quantity
    n, n_items, failed = measured.count(one.category, arm, generation)
    notes = [quantity.note] if quantity.note else []
    if one.category == RARE:
        notes.append(measured.pooled)
    if failed:
        notes.append(f"{failed} failed drafts are left out")
    if measured.left_out and not one.category:
        notes.append(f"{measured.left_out} items (over replicates) without a candidate in some generation are left out")
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "arm": arm, "generation": generation, "category": one.category,
        "unit": quantity.unit, "n": n, "n_items": n_items,
    }  # fmt: skip
    rows = [_row(quantity.level_term, _known(one.levels(arm, generation)), one, labels, notes, test=False)]
    if quantity.has_sd and not one.category:
        spread = _known(one.spreads(arm, generation))
        rows.append(_row(f"sd_{quantity.name}", spread, one, labels, notes, test=False))
    if generation > 0:
        same, said = _same_items(one, (arm, generation), (arm, 0))
        values = _known(one.drifts(arm, generation))
        rows.append(_row(f"drift_{quantity.name}", values, one, {**labels, **same}, [*said, *notes], test=True))
    return rows


def _row(
    term: str, values: NDArray[np.float64], one: Series, labels: dict[str, Any], notes: list[str], *, test: bool
) -> Estimate:
    """``test`` False: a level, whose distance from 0 means nothing, so it has no p."""
    quantity = one.quantity
    if quantity.undefined:
        return estimate_row(Undefined(quantity.undefined), term=term, n_replicates=0, **labels)
    return estimate_row(
        replicate_mean(values, quantity.missing, tested=test), margin=quantity.margin, null=0.0 if test else None,
        drift=True, note=joined(*notes, _lost(len(values), one)), term=term, n_replicates=len(values), **labels,
    )  # fmt: skip


def _did(measured: Measured, one: Series, design: Design, arm: str, control: str, generation: int) -> Estimate:
    quantity, term = one.quantity, f"did_{one.quantity.name}"
    last = generation == design.generations
    confirmatory = (arm, control) == design.confirmatory and last and not one.category and term in CONFIRMATORY
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "term": term, "arm": arm, "contrast": control,
        "generation": generation, "category": one.category, "unit": quantity.unit,
        "family": "confirmatory" if confirmatory else "exploratory",
    }  # fmt: skip
    if quantity.undefined:
        return estimate_row(Undefined(quantity.undefined), n_replicates=0, **labels)
    values = _known(one.dids(arm, control, generation))
    same, remarks = _same_items(one, (arm, generation), (arm, 0), (control, generation), (control, 0))
    pools = measured.pooled if one.category == RARE else ""
    _, n_items, _ = measured.count(one.category, arm, generation)
    counts: dict[str, Any] = {"n": len(values), "n_items": n_items, "n_replicates": len(values), **same}
    return estimate_row(
        replicate_mean(values, quantity.missing), margin=quantity.margin, drift=True,
        note=joined(*remarks, quantity.note, pools, _lost(len(values), one)), **counts, **labels,
    )  # fmt: skip


def _same_items(one: Series, *cells: tuple[str, int]) -> tuple[dict[str, int], list[str]]:
    """Of a paired quantity: its counts, and the remark that says which items it compares; nothing of others."""
    if not one.quantity.paired or one.quantity.undefined:
        return {}, []
    index = one.changes(*cells).index
    each = pd.Series(index.get_level_values("replicate")).value_counts() if len(index) else pd.Series(dtype="int64")
    span = f"{each.min()} to {each.max()} a replicate" if len(each) else "too few"
    where = "at both generations" if len(cells) == 2 else "at both generations in both arms"
    kept = {"n": len(index), "n_items": index.get_level_values("item_id").nunique() if len(index) else 0}
    return kept, [f"the same items, those wrong {where} ({span})"]


def _known(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _lost(present: int, one: Series) -> str:
    absent = len(one.values.columns) - present
    return f"missing in {absent} of {len(one.values.columns)} replicates" if present and absent > 0 else ""


def quantity_series(found: Iterable[Series], name: str, category: str = "") -> Series | None:
    """The series of that quantity, None where it was not measured."""
    return next((one for one in found if one.quantity.name == name and one.category == category), None)
