"""Does the drift compound? Gain, compounding and observed over static drift, over the run
(docs/method.md, "Does drift compound?").

D_t is the arm's drift beyond a control arm's after t feedback steps, one number a replicate. A_T = D_T/D_1,
C_T = A_T/T, O_T = D_T/(T·S^B_0) with S^B_0 the judge's selection at generation 0 beyond that same control's. Ratios are
those of replicate means with Fieller-t intervals, and ``undefined`` where the denominator's interval covers 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import (
    RATIO_MARGIN,
    Estimate,
    Verdict,
    claimed,
    estimate_row,
    joined,
    ratio_row,
    replicate_mean,
)
from judgeloop.stats.inference import (
    Interval,
    Undefined,
    fieller,
    fieller_from_moments,
    normal_cdf,
    normal_density,
    replicate_t,
    tost,
)
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.loop.drift import quantity_series
from judgeloop.stats.loop.panels import anchor_slopes
from judgeloop.stats.loop.price import PriceAccounts, replicate_table
from judgeloop.stats.loop.replicates import MeasuredCandidates, Series, across_replicates, snapped
from judgeloop.text.features import FEATURES

_FIRST = "the first loop's drift"


def compounding_benchmark(arm: ArmDesign, generations: int, candidates_per_item: int | None = None) -> float | None:
    """C_T where the judge is linear and nothing feeds back on it; above it, drift feeds on drift. None where not known.

    Selection adds 1 unit to the mean it starts from (the current policy's; with ``reference`` base, generation 0's), the
    strategy mixes, the next policy is the training set, and real data has no drift. Closed forms
    (docs/method.md, "Benchmarks"): replace 1; accumulate (H_{T+1} − 1)/(T/2); real fraction α (1 − (1 − α)^T)/(αT);
    base with replace 1/T. Best of n shrinks the spread it selects from by √v_n a step, v_n the variance of the largest
    of n normal draws, so that with replace C_T = (1 − v_n^{T/2})/(T(1 − √v_n)); that is the Gaussian single-feature
    law.
    """
    if arm.real_fraction >= 1.0 or generations < 1:
        return None
    step = 1.0
    if arm.update == "best_of_n" and arm.reference != "base":
        if arm.strategy != "replace" or arm.real_fraction > 0 or candidates_per_item is None:
            return None
        step = float(np.sqrt(_largest_variance(candidates_per_item)))
    means, selections = [0.0], []
    for t in range(generations):
        selections.append((0.0 if arm.reference == "base" else means[-1]) + step**t)
        mixed = selections[-1] if arm.strategy == "replace" else sum(selections) / (t + 2)
        means.append((1.0 - arm.real_fraction) * mixed)
    return means[-1] / (generations * means[1])


def _largest_variance(n: int) -> float:
    """v_n, the variance of the largest of n standard normal draws, by quadrature."""

    from scipy import integrate

    def moment(power: int) -> float:
        value, _ = integrate.quad(
            lambda z: z**power * n * normal_density(z) * normal_cdf(z) ** (n - 1), -12.0, 12.0, epsabs=1e-12
        )
        return float(value)

    return moment(2) - moment(1) ** 2


@dataclass(frozen=True, slots=True)
class Ratios:
    """What a contrast says about one quantity: the verdict on its drift D_T, and the three ratios with their intervals."""

    drift: Verdict
    gain: Interval | Undefined
    compounding: Interval | Undefined
    observed_over_static: Interval | Undefined
    n_replicates: int

    def verdict(self, generations: int, benchmark: float | None) -> Verdict:
        """The word of docs/method.md, "Words of the verdicts": of the drift where none is shown or nothing can
        compound, else on compounding."""
        if self.drift != "drifting" or generations < 2 or isinstance(self.compounding, Undefined):
            return self.drift
        return compounding_word(self.compounding, self.observed_over_static, benchmark)


def compounding_word(
    compounding: Interval, observed_over_static: Interval | Undefined, benchmark: float | None
) -> Verdict:
    """amplifying, saturating, steady or compounding unclear, in this order (docs/method.md, "Words of the verdicts").

    A claim needs a limit on its side: O_T's way to ``amplifying`` asks the lower limits both of O_T above 1 and of C_T
    above the strategy's benchmark.
    """
    beyond_static = not isinstance(observed_over_static, Undefined) and observed_over_static.low > 1.0
    if compounding.low > 1.0 or (beyond_static and benchmark is not None and compounding.low > benchmark):
        return "amplifying"
    if compounding.high < 1.0:
        return "saturating"
    return "steady" if tost(compounding, RATIO_MARGIN, centre=1.0) else "compounding unclear"


def ratios(
    last: pd.Series[float],
    first: pd.Series[float],
    static: pd.Series[float],
    generations: int,
    margin: float | None,
) -> Ratios:
    """From D_T, D_1 and S^B_0, one number a replicate each; a ratio uses the replicates that have both its parts."""
    drift, _ = claimed(replicate_mean(last), margin, drift=True)
    return Ratios(
        drift,
        _ratio(last, first, 1.0, _FIRST),
        _ratio(last, first, float(generations), _FIRST),
        _ratio(last, static, float(generations), "the first selection"),
        len(last),
    )


def _ratio(numerator: pd.Series[float], denominator: pd.Series[float], times: float, name: str) -> Interval | Undefined:
    both = numerator.index.intersection(denominator.index)
    if len(both) == 0:
        return Undefined(f"no replicate has {name}")
    found = fieller(numerator[both].to_numpy(), times * denominator[both].to_numpy(), null=1.0)
    if isinstance(found, Undefined) and isinstance(replicate_t(denominator[both].to_numpy()), Interval):
        return Undefined(f"the 95 % interval of {name} covers 0, so a ratio to it means nothing")
    return found


def amplification_estimates(
    measured: MeasuredCandidates,
    found: Sequence[Series],
    books: PriceAccounts,
    design: Design,
    sizes: Mapping[str, int],
) -> list[Estimate]:
    """Rows ``cumulative_gain_``, ``compounding_`` and ``observed_over_static_`` of every contrast and feature.

    ``sizes``: candidates an item of the arms whose reward is refitted, for best of n's benchmark. The three rows of a contrast
    share its verdict. T = 1 has no gain and no compounding: ``undefined``.
    """
    rows: list[Estimate] = []
    for quantity in measured.quantities:
        one = quantity_series(found, quantity.name)
        if one is None or not (quantity.has_sd or quantity.name == "correct"):
            continue
        for arm, control in design.contrasts:
            rows += _of_contrast(measured, one, books, design, arm, control, sizes.get(arm))
    return rows


def _of_contrast(
    measured: MeasuredCandidates,
    one: Series,
    books: PriceAccounts,
    design: Design,
    arm: str,
    control: str,
    size: int | None,
) -> list[Estimate]:
    quantity, steps = one.quantity, design.generations
    _, n_items, _ = measured.count("", arm, steps)
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "arm": arm, "contrast": control, "unit": "ratio", "n_items": n_items,
    }  # fmt: skip
    names = ("cumulative_gain", "compounding", "observed_over_static")
    if quantity.undefined:
        unknown = Undefined(quantity.undefined)
        return [estimate_row(unknown, term=f"{name}_{quantity.name}", n_replicates=0, **labels) for name in names]
    selected = replicate_table(books.bias_selection(design.arm(control).judge_kind), quantity.name)
    static = snapped(across_replicates(selected, arm, 0))
    first, last = one.did(arm, control, 1), one.did(arm, control, steps)
    seen = ratios(last, first, static, steps, quantity.margin)
    benchmark = compounding_benchmark(design.arm(arm), steps, size)
    labels |= {"n": len(last), "n_replicates": len(last)}
    single = Undefined("one feedback step: there is nothing to compound")
    values = (
        single if steps < 2 else seen.gain, single if steps < 2 else seen.compounding, seen.observed_over_static
    )  # fmt: skip
    rows = []
    for name, ratio in zip(names, values, strict=True):
        if isinstance(ratio, Interval):
            ratio = replace(ratio, method="Fieller t over replicates")
        made = replace(
            ratio_row(ratio, term=f"{name}_{quantity.name}", **labels), verdict=seen.verdict(steps, benchmark)
        )
        if name == "compounding":
            made = replace(made, benchmark=benchmark, margin=None if made.status == "undefined" else RATIO_MARGIN)
        rows.append(made)
    return rows


def kl_estimates(rows: pd.DataFrame, design: Design) -> list[Estimate]:
    """Rows ``kl_from_reference``: KL(p_current ‖ generation 0's p_current) in nats, mean over items; 0 = has not moved.

    ``rows``: the candidates of the fixed items. ``undefined`` where the policy is no pool (its texts have no known
    probabilities), and where it gives mass to a text that generation 0 could not draw.
    """
    made: list[Estimate] = []
    pools = [arm.name for arm in design.arms if arm.policy_kind == "pool"]
    table = _divergences(rows, pools) if len(rows) and "p_current" in rows.columns else pd.DataFrame()
    for arm in design.arms:
        for generation in range(design.generations + 1):
            labels: dict[str, Any] = {
                "scope": "policy", "bias": "diversity", "term": "kl_from_reference", "arm": arm.name,
                "generation": generation, "unit": "nats",
            }  # fmt: skip
            if arm.name not in pools:
                unknown = Undefined("the texts' probabilities are known for pool policies alone")
                made.append(estimate_row(unknown, n_replicates=0, **labels))
                continue
            values = across_replicates(table, arm.name, generation)
            if bool(np.isinf(values).any()):
                infinite = Undefined(
                    "the policy gives mass to texts that generation 0 could not draw (real data): KL is infinite"
                )
                made.append(estimate_row(infinite, n_replicates=len(values), **labels))
                continue
            # KL is never below 0, so its distance from 0 is no test.
            result = replicate_mean(values, "no replicate recorded p_current", tested=False)
            part = rows[(rows["arm"] == arm.name) & (rows["generation"] == generation)]
            count = part["item_id"].nunique()
            labels |= {"n": count * len(values), "n_items": count, "n_replicates": len(values)}
            made.append(estimate_row(result, null=None, **labels))
    return made


def _divergences(rows: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """(arm, generation) × replicate of the mean over items of KL, infinite where it is."""
    part = rows[rows["arm"].isin(arms) & pd.to_numeric(rows["p_current"]).notna()]
    text = ["replicate", "arm", "item_id", "candidate_id"]
    current = part[[*text, "generation", "p_current"]]
    zero = current[current["generation"] == 0].drop(columns="generation").rename(columns={"p_current": "p_zero"})
    both = current.merge(zero, on=text, how="left")
    p = both["p_current"].to_numpy(dtype=np.float64)
    q = both["p_zero"].fillna(0.0).to_numpy(dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        both["kl"] = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    by_item = both.groupby(["arm", "generation", "replicate", "item_id"], sort=True)["kl"].sum(min_count=1)
    return by_item.clip(lower=0.0).groupby(level=[0, 1, 2]).mean().unstack("replicate")


# Transmission a_RJ: how much of the judge's content slope reached the preference signal
# (docs/method.md, "Transmission").


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
            result = _transmission_ratio(values, slopes[arm.judge], feature)
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


def _transmission_ratio(values: pd.Series[float], slopes: Slopes | Undefined, feature: str) -> Interval | Undefined:
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
