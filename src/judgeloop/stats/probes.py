"""Counterfactual probes: an original against its own edit, content fixed. Positive = the edited text is picked.

The strongest evidence on verbosity and style (the method notes §1.3 E1), for no gold is needed. τ = P(edited picked) − ½
per pair with both orders complete, so that position cancels.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.presentations import not_identical, pairs, unscored
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, Bias, Counts, Labels, row

_VERBOSITY = ("padding", "whitespace")
_SELF = ("self_name",)


def probe_estimates(
    judgments: pd.DataFrame,
    *,
    judge: str = "",
    arm: str = "",
    generation: int | None = None,
    panel: str = "probe",
    category: str = "",
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """``<probe>_probe`` of one judge, a row a probe, and a variant a dose where a probe has several.

    ``judgments``: CONTRACT's columns, with ``probe`` (padding, bold, hedges …), and ``dose``, the length ratio of
    padded texts (NaN for others); candidate b of a pair is the edit, candidate a its original. The primary pools the
    doses; variant ``slope`` is the effect per doubling, least squares through the origin on log2 dose.
    """
    if judgments.empty:
        return []
    labels = Labels(judge, arm, generation, panel, category)
    rows: list[Estimate] = []
    for name, some in judgments.groupby("probe", sort=True):
        rows += _probe(labels, str(name), not_identical(some), margin)
    return rows


def _probe(labels: Labels, name: str, judgments: pd.DataFrame, margin: float) -> list[Estimate]:
    bias: Bias = "verbosity" if name in _VERBOSITY else "self_preference" if name in _SELF else "style"
    term = f"{name}_probe"
    has_doses = "dose" in judgments and judgments["dose"].notna().any()
    doses = sorted(judgments["dose"].dropna().unique()) if has_doses else []
    parts = []
    for dose in doses or [float("nan")]:
        some = judgments[judgments["dose"] == dose] if has_doses else judgments
        table = pairs(some)
        table = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
        items = some.drop_duplicates("item_id")["item_id"].to_numpy()
        parts.append(pd.DataFrame({
            "item": items[table["item"].to_numpy(dtype=np.intp)],
            "edited": ((1.0 - table["ab"]) + table["ba"]).to_numpy() / 2.0 - 0.5, "dose": dose,
        }))  # fmt: skip
    every = pd.concat(parts, ignore_index=True)
    lost = unscored(judgments)
    counts = Counts(len(every), every["item"].nunique(), lost)
    rows = [row(labels, bias, term, _mean(every), counts, unit=PROBABILITY, margin=margin)]
    if doses:
        for dose, part in zip(doses, parts, strict=True):
            some = judgments[judgments["dose"] == dose]
            counts_at = Counts(len(part), part["item"].nunique(), unscored(some))
            rows.append(
                row(labels, bias, term, _mean(part), counts_at, unit=PROBABILITY, variant=f"{dose:g}", margin=margin)
            )
        rows.append(row(labels, bias, term, _slope(every), counts, unit=f"{PROBABILITY} per doubling", variant="slope"))
    return rows


def _mean(frame: pd.DataFrame) -> Interval | Undefined:
    if frame.empty:
        return Undefined("no probe pair has a verdict in both orders")
    return bounded_mean(frame["edited"].to_numpy(), frame["item"].to_numpy(), -0.5, 0.5)


def _slope(frame: pd.DataFrame) -> Interval | Undefined:
    doubling, edited = np.log2(frame["dose"].to_numpy(dtype=np.float64)), frame["edited"].to_numpy()
    if frame["item"].nunique() < 2 or not np.any(doubling != 0):
        return Undefined("a slope needs 2 or more items with a dose other than 1")
    total = float(np.sum(doubling**2))
    slope = float(np.sum(doubling * edited)) / total
    sums = np.bincount(pd.factorize(frame["item"])[0], weights=doubling * (edited - slope * doubling) / total)
    groups = len(sums)
    se = math.sqrt(groups / (groups - 1.0) * float(np.sum(sums**2)))
    return t_interval(slope, se, groups - 1, method="least squares through the origin, cluster t by item")
