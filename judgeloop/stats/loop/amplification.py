"""Amplification: what the loop adds to a bias from one generation to the next (docs/method.md, "Does drift compound?").

Four questions, in this order: does the drift compound (gain, compounding, observed over static drift); how far has a pool
policy moved from its start (KL); how much of the judge's content slope reached the preference signal (transmission); do
style features and categories of items go together more (bias amplification).

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
    claim,
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
    largest_normal,
    replicate_t,
    tost,
)
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.loop.drift import quantity_series
from judgeloop.stats.loop.panels import anchor_slopes
from judgeloop.stats.loop.price import PriceAccounts, replicate_table
from judgeloop.stats.loop.replicates import CELL, MeasuredCandidates, Quantity, Series, across_replicates, snapped
from judgeloop.text.features import FEATURES, STYLE_FEATURES

_FIRST = "the first loop's drift"


def compounding_benchmark(arm: ArmDesign, generations: int, candidates_per_item: int | None = None) -> float | None:
    """The C_T of a linear judge on which nothing feeds back; above it, drift feeds on drift. None where it is not known.

    Selection adds 1 unit to the mean it starts from (the current policy's; with ``reference`` base, generation 0's), the
    strategy mixes, the next policy is the training set, and real data has no drift. Closed forms
    (docs/method.md, "Benchmarks"): replace 1; accumulate (H_{T+1} − 1)/(T/2); real fraction α (1 − (1 − α)^T)/(αT);
    base with replace 1/T. Best of n shrinks the spread it selects from by √v_n a step, v_n the variance of the largest
    of n normal draws, so that with replace C_T = (1 − v_n^{T/2})/(T(1 − √v_n)); that is the Gaussian single-feature
    law.
    """
    if arm.real_fraction >= 1.0 or generations < 1 or arm.is_trained:
        return None
    step = 1.0
    if arm.update == "best_of_n" and arm.reference != "base":
        if arm.strategy != "replace" or arm.real_fraction > 0 or candidates_per_item is None:
            return None
        step = float(np.sqrt(largest_normal(candidates_per_item)[1]))
    means, selections = [0.0], []
    for t in range(generations):
        selections.append((0.0 if arm.reference == "base" else means[-1]) + step**t)
        mixed = selections[-1] if arm.strategy == "replace" else sum(selections) / (t + 2)
        means.append((1.0 - arm.real_fraction) * mixed)
    return means[-1] / (generations * means[1])


@dataclass(frozen=True, slots=True)
class Ratios:
    """The verdict on the drift D_T of one contrast and quantity, and its three ratios with their intervals."""

    drift: Verdict
    gain: Interval | Undefined
    compounding: Interval | Undefined
    observed_over_static: Interval | Undefined
    n_replicates: int

    def verdict(self, generations: int, benchmark: float | None) -> Verdict:
        """The drift's own verdict where no drift is shown or nothing can compound, else the verdict on compounding
        (docs/method.md, "Words of the verdicts")."""
        if self.drift != "drifting" or generations < 2 or isinstance(self.compounding, Undefined):
            return self.drift
        return compounding_word(self.compounding, self.observed_over_static, benchmark)


def compounding_word(
    compounding: Interval, observed_over_static: Interval | Undefined, benchmark: float | None
) -> Verdict:
    """The first that holds of amplifying, saturating, steady, else compounding unclear.

    docs/method.md, "Words of the verdicts". Amplifying: the lower limit of C_T is above 1; or that of O_T is above 1 and that
    of C_T above the strategy's benchmark.
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
    """The ratios from D_T (``last``), D_1 (``first``) and S^B_0 (``static``), one number a replicate each.

    A ratio uses the replicates that have both its parts. ``margin``: of equivalence of the drift.
    """
    drift, _ = claim(replicate_mean(last), margin, drift=True)
    return Ratios(
        drift,
        _fieller_ratio(last, first, 1.0, _FIRST),
        _fieller_ratio(last, first, float(generations), _FIRST),
        _fieller_ratio(last, static, float(generations), "the first selection"),
        len(last),
    )


def _fieller_ratio(
    numerator: pd.Series[float], denominator: pd.Series[float], times: float, name: str
) -> Interval | Undefined:
    common = numerator.index.intersection(denominator.index)
    if len(common) == 0:
        return Undefined(f"no replicate has {name}")
    ratio = fieller(numerator[common].to_numpy(), times * denominator[common].to_numpy(), null=1.0)
    if isinstance(ratio, Undefined) and isinstance(replicate_t(denominator[common].to_numpy()), Interval):
        return Undefined(f"the 95 % interval of {name} covers 0, so a ratio to it means nothing")
    return ratio


def amplification_estimates(
    measured: MeasuredCandidates,
    all_series: Sequence[Series],
    accounts: PriceAccounts,
    design: Design,
    sizes: Mapping[str, int],
) -> list[Estimate]:
    """Rows ``cumulative_gain_``, ``compounding_`` and ``observed_over_static_`` of every contrast and feature.

    ``sizes``: arm → candidates an item, for the arms whose reward is refitted (the benchmark of best of n needs it). The
    three rows of a contrast share its verdict. With T = 1 gain and compounding are ``undefined``.
    """
    rows: list[Estimate] = []
    for quantity in measured.quantities:
        series = quantity_series(all_series, quantity.name)
        if series is None or not (quantity.has_sd or quantity.name == "correct"):
            continue
        for arm, control in design.contrasts:
            rows += _contrast_rows(measured, series, accounts, design, arm, control, sizes.get(arm))
    return rows


def _contrast_rows(
    measured: MeasuredCandidates,
    series: Series,
    accounts: PriceAccounts,
    design: Design,
    arm: str,
    control: str,
    size: int | None,
) -> list[Estimate]:
    quantity, steps = series.quantity, design.generations
    _, n_items, _ = measured.count("", arm, steps)
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "arm": arm, "contrast": control, "unit": "ratio", "n_items": n_items,
    }  # fmt: skip
    names = ("cumulative_gain", "compounding", "observed_over_static")
    if quantity.undefined:
        unknown = Undefined(quantity.undefined)
        return [estimate_row(unknown, term=f"{name}_{quantity.name}", n_replicates=0, **labels) for name in names]
    selected = replicate_table(accounts.bias_selection(design.arm(control).judge_kind), quantity.name)
    static = snapped(across_replicates(selected, arm, 0))
    first, last = series.did(arm, control, 1), series.did(arm, control, steps)
    contrast = ratios(last, first, static, steps, quantity.margin)
    benchmark = compounding_benchmark(design.arm(arm), steps, size)
    labels |= {"n": len(last), "n_replicates": len(last)}
    single = Undefined("one feedback step: there is nothing to compound")
    values = (
        single if steps < 2 else contrast.gain,
        single if steps < 2 else contrast.compounding,
        contrast.observed_over_static,
    )
    rows = []
    for name, ratio in zip(names, values, strict=True):
        if isinstance(ratio, Interval):
            ratio = replace(ratio, method="Fieller t over replicates")
        row = ratio_row(ratio, term=f"{name}_{quantity.name}", **labels)
        row = replace(row, verdict=contrast.verdict(steps, benchmark))
        if name == "compounding":
            row = replace(row, benchmark=benchmark, margin=None if row.status == "undefined" else RATIO_MARGIN)
        rows.append(row)
    return rows


# How far a pool policy has moved.


def kl_estimates(candidates: pd.DataFrame, design: Design) -> list[Estimate]:
    """Rows ``kl_from_reference``: KL(p_current ‖ generation 0's p_current) in nats, mean over items; 0 = has not moved.

    ``candidates``: of the fixed items. ``undefined`` where the policy is no pool (its texts have no known probabilities),
    and where it gives mass to a text that generation 0 could not draw.
    """
    rows: list[Estimate] = []
    pools = [arm.name for arm in design.arms if arm.policy_kind == "pool"]
    table = _divergences(candidates, pools) if len(candidates) and "p_current" in candidates.columns else pd.DataFrame()
    for arm in design.arms:
        for generation in range(design.generations + 1):
            labels: dict[str, Any] = {
                "scope": "policy", "bias": "diversity", "term": "kl_from_reference", "arm": arm.name,
                "generation": generation, "unit": "nats",
            }  # fmt: skip
            if arm.name not in pools:
                unknown = Undefined("the texts' probabilities are known for pool policies alone")
                rows.append(estimate_row(unknown, n_replicates=0, **labels))
                continue
            values = across_replicates(table, arm.name, generation)
            if bool(np.isinf(values).any()):
                infinite = Undefined(
                    "the policy gives mass to texts that generation 0 could not draw (real data): KL is infinite"
                )
                rows.append(estimate_row(infinite, n_replicates=len(values), **labels))
                continue
            # KL is never below 0, so its distance from 0 is no test.
            result = replicate_mean(values, "no replicate recorded p_current", tested=False)
            part = candidates[(candidates["arm"] == arm.name) & (candidates["generation"] == generation)]
            count = part["item_id"].nunique()
            labels |= {"n": count * len(values), "n_items": count, "n_replicates": len(values)}
            rows.append(estimate_row(result, null=None, **labels))
    return rows


def _divergences(candidates: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """KL in nats, mean over items, possibly infinite: (arm, generation) × replicate."""
    part = candidates[candidates["arm"].isin(arms) & pd.to_numeric(candidates["p_current"]).notna()]
    text = ["replicate", "arm", "item_id", "candidate_id"]
    current = part[[*text, "generation", "p_current"]]
    zero = current[current["generation"] == 0].drop(columns="generation").rename(columns={"p_current": "p_zero"})
    table = current.merge(zero, on=text, how="left")
    p = table["p_current"].to_numpy(dtype=np.float64)
    q = table["p_zero"].fillna(0.0).to_numpy(dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["kl"] = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    by_item = table.groupby(["arm", "generation", "replicate", "item_id"], sort=True)["kl"].sum(min_count=1)
    return by_item.clip(lower=0.0).groupby(level=[0, 1, 2]).mean().unstack("replicate")


# Transmission: how much of the judge's content slope reached the preference signal (docs/method.md, "Transmission").


def transmission_estimates(tables: RunTables, design: Design, scales: dict[str, float]) -> list[Estimate]:
    """Rows ``transmission_<feature>`` (scope signal) of every arm with a judge, for the features of its signal.

    The ratio β_R/β_J of the signal's slope (mean over replicates) to the judge's, 1 = all of it; Fieller's interval from
    the replicates' variance of the numerator, the item-clustered one of the denominator (shared by replicates, independent
    of the numerator) and the smaller degrees of freedom. ``scales``: feature → the SD that style slopes are per.
    """
    rows: list[Estimate] = []
    slopes: dict[str, Slopes | Undefined] = {}
    for arm in design.arms:
        if arm.is_control or arm.is_positive_control:
            continue
        if arm.judge not in slopes:
            slopes[arm.judge] = anchor_slopes(tables, arm.judge, 0, scales)
        fitted = _coefficients(tables.signals, arm, scales)
        for feature in FEATURES:
            if fitted is None or feature not in fitted.columns:
                if feature == "length":
                    rows.append(
                        _transmission_row(
                            arm, feature, Undefined("no signal was fitted on length at generation 0"), 0, 0
                        )
                    )
                continue
            values = fitted[feature].dropna()
            result = _transmission_ratio(values, slopes[arm.judge], feature)
            lost = len(fitted) - len(values)
            rows.append(_transmission_row(arm, feature, result, len(values), lost))
    return rows


def _coefficients(
    signals: pd.DataFrame, arm: ArmDesign, scales: dict[str, float], generation: int = 0
) -> pd.DataFrame | None:
    """Replicate × feature: the signal's slope β_R in log-odds per doubling (length) or per pooled generation-0 SD.

    NaN where the fit did not converge; None where the arm's signal was not fitted.
    """
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
    df = min(len(values) - 1.0, slopes.df_of(feature))
    result = fieller_from_moments(
        float(values.mean()), denominator.estimate, variance, denominator.std_error**2, 0.0, df, null=1.0
    )
    if isinstance(result, Undefined):
        return Undefined("the judge's slope on the anchor panel is not away from 0, so a ratio to it means nothing")
    return result


def _transmission_row(arm: ArmDesign, feature: str, result: Interval | Undefined, count: int, lost: int) -> Estimate:
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


# Bias amplification: do the style features that go with a category of items at generation 0 go with it more later on?


def bias_amplification_series(measured: MeasuredCandidates) -> Series:
    """BiasAmp T→A of style features and categories, as replicate values in probability; 0 at generation 0.

    Positive = features and categories that went together at generation 0 do so more (Wang & Russakovsky 2021). The signs are
    those of all replicates' generation 0 together. They come from the sample that later generations are compared with, so
    that chance alone makes the number a little negative; ``did_`` is free of that. Undefined where the items have fewer than
    two categories.
    """
    present = [name for name in STYLE_FEATURES if measured.scale.get(name, 0.0) > 0]
    several = measured.rows.loc[measured.rows["category"] != "", "category"].nunique()
    why = "" if several > 1 else "the items name fewer than two categories"
    why = why or ("" if present else "no style feature varies at generation 0")
    name = "bias_amplification"
    quantity = Quantity(
        name, name, "style", "probability", undefined=why, missing="no candidate to measure",
        note=f"{len(present)} features × {several} categories",
    )  # fmt: skip
    if why:
        return Series(quantity, "", pd.DataFrame())
    rows = measured.rows[(measured.rows["n_drawn"] > 0) & (measured.rows["category"] != "")]
    uses_feature = rows[present].gt(0).astype("float64")
    frame = pd.concat([rows[[*CELL, "category", "n_drawn"]], uses_feature], axis=1)
    zero = frame[frame["generation"] == 0]
    overall = np.average(zero[present].to_numpy(), axis=0, weights=zero["n_drawn"])
    # P₀(a, t) − P₀(a)P₀(t) has the sign of P₀(a | t) − P₀(a).
    signs = (_shares(zero, ["category"], present) - overall).apply(np.sign)
    shares = _shares(frame, [*CELL, "category"], present)
    start = shares.xs(0, level="generation")
    keys = shares.index.to_frame(index=False)
    changes = (
        shares - start.reindex(pd.MultiIndex.from_frame(keys[["replicate", "arm", "category"]])).to_numpy()
    ) * signs.reindex(keys["category"]).to_numpy()
    means = changes.mean(axis="columns").groupby(level=CELL).mean()
    table = means.unstack("replicate")
    return Series(quantity, "", table)


def _shares(frame: pd.DataFrame, keys: list[str], features: list[str]) -> pd.DataFrame:
    """P(feature | key): the share of texts, weighted by ``n_drawn``, that use each feature."""
    weighted = frame[features].mul(frame["n_drawn"], axis=0)
    sums = pd.concat([frame[keys], weighted, frame["n_drawn"]], axis=1).groupby(keys, sort=True, observed=True).sum()
    return sums[features].div(sums["n_drawn"], axis=0)
