"""Transmission a_RJ: how much of the judge's content slope reached the preference signal (the method notes §2.1).

a_RJ = β_R/β_J, both in log-odds per unit of the feature at generation 0: β_R the signal's coefficient, a replicate each;
β_J the judge's slope on the anchor panel, which shares no pick with the signal. 1 = passed on as it is; consistency
filtering gives 2, a ridge or flipped labels less than 1.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, fieller_from_moments
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.loop.panels import anchor_slopes
from judgeloop.stats.rows import estimate_row, joined, ratio_row, replicate_mean
from judgeloop.text.features import FEATURES


def transmission_estimates(tables: RunTables, design: Design, scales: dict[str, float]) -> list[Estimate]:
    """Rows ``transmission_<feature>`` (scope signal) of every arm with a judge, for the features of its signal.

    The ratio of the mean over replicates of β_R to β_J, with Fieller's interval: the replicates' variance in the
    numerator, the item-clustered one in the denominator (shared by replicates, independent of the numerator), and the
    smaller degrees of freedom. ``scales``: the SD that style slopes are per.
    """
    rows: list[Estimate] = []
    slopes: dict[str, Slopes | Undefined] = {}
    for arm in design.arms:
        if arm.is_control:
            continue
        if arm.judge not in slopes:
            slopes[arm.judge] = anchor_slopes(tables, arm.judge, 0, scales)
        fitted = _coefficients(tables.signals, arm, scales)
        for feature in FEATURES:
            if fitted is None or feature not in fitted.columns:
                if feature == "length":
                    rows.append(_row(arm, feature, Undefined("no signal was fitted on length at generation 0"), 0, 0))
                continue
            values = fitted[feature].dropna()
            result = _ratio(values, slopes[arm.judge], feature)
            lost = len(fitted) - len(values)
            rows.append(_row(arm, feature, result, len(values), lost))
    return rows


def _coefficients(
    signals: pd.DataFrame, arm: ArmDesign, scales: dict[str, float], generation: int = 0
) -> pd.DataFrame | None:
    """Replicate × feature: β_R per doubling (length) or per pooled generation-0 SD; NaN where the fit did not converge."""
    if signals.empty:
        return None
    part = signals[
        (signals["arm"] == arm.name) & (signals["generation"] == generation) & signals["feature"].isin(FEATURES)
    ]
    if part.empty:
        return None
    unit = part["feature"].map({name: 1.0 if name == "length" else value for name, value in scales.items()})
    value = part["coefficient"].astype("float64") / part["scale"].astype("float64") * unit.astype("float64")
    value = value.where(part["converged"].astype("bool") & np.isfinite(value))
    return part.assign(value=value).pivot(index="replicate", columns="feature", values="value")


def _ratio(values: pd.Series[float], slopes: Slopes | Undefined, feature: str) -> Interval | Undefined:
    if isinstance(slopes, Undefined):
        return Undefined(f"the judge's slope is not known: {slopes.reason}")
    denominator = slopes.slope(feature)
    if isinstance(denominator, Undefined):
        return Undefined(f"the judge's slope is not known: {denominator.reason}")
    if len(values) == 0:
        return Undefined("the signal converged in no replicate")
    if len(values) < 2:
        return Undefined("one replicate has no interval")
    variance = float(values.var(ddof=1)) / len(values)
    df = float(min(len(values) - 1, slopes.df))
    result = fieller_from_moments(
        float(values.mean()), denominator.estimate, variance, denominator.std_error**2, 0.0, df, null=1.0
    )
    if isinstance(result, Undefined):
        return Undefined("the judge's slope on the anchor panel is not away from 0, so a ratio to it means nothing")
    return result


def _row(arm: ArmDesign, feature: str, result: Interval | Undefined, count: int, lost: int) -> Estimate:
    shared: dict[str, Any] = {
        "scope": "signal", "judge": arm.judge, "arm": arm.name, "bias": "verbosity" if feature == "length" else "style",
        "term": f"transmission_{feature}", "unit": "ratio", "n": count, "n_replicates": count,
    }  # fmt: skip
    if isinstance(result, Interval):
        result = replace(result, method="Fieller t, replicates over anchor items")
    unfitted = f"the fit did not converge in {lost} replicates" if lost else ""
    return ratio_row(result, note=joined(f"label rule {arm.label_rule}", unfitted), **shared)


def signal_slope_estimates(tables: RunTables, design: Design, scales: dict[str, float]) -> list[Estimate]:
    """Rows ``signal_slope_<feature>`` (scope signal): β_R of every arm whose signal is fitted, generation by generation.

    Log-odds per doubling (length) or per pooled generation-0 SD; positive = the signal rewards more of the feature. The
    mean over replicates with its t interval.
    """
    rows: list[Estimate] = []
    for arm in design.arms:
        for generation in range(design.generations + 1):
            fitted = _coefficients(tables.signals, arm, scales, generation)
            if fitted is None:
                continue
            for feature in FEATURES:
                if feature not in fitted.columns:
                    continue
                values = fitted[feature].dropna()
                result = replicate_mean(values, "the signal converged in no replicate")
                rows.append(
                    estimate_row(
                        result, scope="signal", judge=arm.judge, arm=arm.name, generation=generation,
                        bias="verbosity" if feature == "length" else "style", term=f"signal_slope_{feature}",
                        unit="log-odds per doubling" if feature == "length" else "log-odds per generation-0 SD",
                        n=len(values), n_replicates=len(values),
                    )
                )  # fmt: skip
    return rows
