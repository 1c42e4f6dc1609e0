"""Level, drift and drift beyond a control arm, per generation, from one number a replicate (the method notes §2.3, §7.4).

Positive drift = more of the quantity than before any feedback; positive did = more drift than the control arm's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.categories import RARE
from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, Status
from judgeloop.stats.generations import Measured, Series
from judgeloop.stats.inference import LEVEL, Interval, Undefined, replicate_t, smallest_detectable, tost

Word = Literal["none", "undetected", "drifting"]

CONFIRMATORY = ("did_length", "did_style_score", "did_mattr")
"""The confirmatory family of a run, at its last generation and confirmatory contrast (the method notes §7.6)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may be said of a drift: a word of the method notes §7.4 and the sentence behind it."""

    word: Word
    sentence: str

    @property
    def status(self) -> Status:
        """``underpowered`` where neither a drift nor its absence was shown."""
        return "underpowered" if self.word == "undetected" else "ok"


def verdict(interval: Interval, margin: float | None, unit: str) -> Verdict:
    """none (equivalent to 0 within ``margin``), undetected (the interval covers 0), else drifting; in this order."""
    alike = "; all replicates are equal, so that this is of their median" if interval.std_error == 0 else ""
    if margin is not None and tost(interval, margin):
        return Verdict("none", f"equivalent to 0 within ±{margin:.3g} {unit} (two one-sided tests, 5 %){alike}")
    if interval.covers(0.0):
        if interval.std_error == 0:
            return Verdict("undetected", "no replicate differs; without spread nothing can be said of power")
        seen = smallest_detectable(interval.std_error, interval.df)
        equivalence = "" if margin is not None else "; no equivalence margin is set for this measure"
        return Verdict(
            "undetected",
            f"the smallest drift that this run could have seen at 80 % power is {seen:.3g} {unit}{equivalence}",
        )
    return Verdict("drifting", f"the interval excludes 0{alike}")


def over_replicates(values: pd.Series[float] | NDArray[np.float64], missing: str = "") -> dict[str, Any]:
    """Estimate's numeric fields, status and note for one number a replicate, (S,): the mean with its t_{S−1} interval.

    One replicate, or a few that are all equal, give an estimate without an interval (``underpowered``); none gives
    ``undefined`` with ``missing``.
    """
    if len(values) == 0:
        return {"n_replicates": 0, "status": "undefined", "note": missing or "no replicate has a value"}
    found = replicate_t(values)
    if isinstance(found, Undefined):
        return {
            "estimate": float(values.mean()), "n_replicates": len(values), "method": "mean over replicates",
            "status": "underpowered", "note": "one replicate has no interval" if len(values) == 1 else found.reason,
        }  # fmt: skip
    return {**fields(found), "n_replicates": len(values)}


def fields(interval: Interval) -> dict[str, Any]:
    """An interval as Estimate's fields."""
    return {
        "estimate": interval.estimate, "std_error": interval.std_error, "conf_low": interval.low,
        "conf_high": interval.high, "conf_level": interval.level, "p_value": interval.p_value, "method": interval.method,
    }  # fmt: skip


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
        return Estimate(term=term, status="undefined", note=quantity.undefined, n_replicates=0, **labels)
    found = over_replicates(values, quantity.missing)
    said = [found.pop("note", ""), *notes]
    if test and found.get("std_error") is not None:
        judged = verdict(_interval(found), quantity.margin, quantity.unit)
        found["status"] = judged.status
        said.insert(0, "" if judged.word == "drifting" else judged.sentence)
    elif not test:
        found["p_value"] = None
    said.append(_lost(len(values), one))
    return Estimate(term=term, note=_joined(said), **labels, **found)


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
        return Estimate(status="undefined", note=quantity.undefined, n_replicates=0, **labels)
    values = _known(one.dids(arm, control, generation))
    found = over_replicates(values, quantity.missing)
    same, remarks = _same_items(one, (arm, generation), (arm, 0), (control, generation), (control, 0))
    pools = measured.pooled if one.category == RARE else ""
    said = [found.pop("note", ""), *remarks, quantity.note, pools, _lost(len(values), one)]
    if found.get("std_error") is not None:
        judged = verdict(_interval(found), quantity.margin, quantity.unit)
        found["status"] = judged.status
        said.insert(0, f"{judged.word}: {judged.sentence}")
    elif len(values) > 1:
        said[0] = f"undetected: {said[0]}"
    _, n_items, _ = measured.count(one.category, arm, generation)
    counts: dict[str, Any] = {"n": len(values), "n_items": n_items, **same}
    return Estimate(note=_joined(said), **counts, **labels, **found)


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


def _interval(found: dict[str, Any]) -> Interval:
    return Interval(
        found["estimate"], found["std_error"], found["conf_low"], found["conf_high"], LEVEL, found["p_value"],
        found["n_replicates"] - 1, found["method"],
    )  # fmt: skip


def _lost(present: int, one: Series) -> str:
    absent = len(one.values.columns) - present
    return f"missing in {absent} of {len(one.values.columns)} replicates" if present and absent > 0 else ""


def _joined(parts: Iterable[str]) -> str:
    return "; ".join(part for part in parts if part)


def quantity_series(found: Iterable[Series], name: str, category: str = "") -> Series | None:
    """The series of that quantity, None where it was not measured."""
    return next((one for one in found if one.quantity.name == name and one.category == category), None)
