"""Amplification: what the loop adds to a bias from one generation to the next (docs/method.md, "Does drift compound?").

Four questions, in this order: does the drift compound (gain, compounding, observed over static drift); how far has a pool
policy moved from its start (KL); how much of the judge's content slope reached the preference signal (transmission); do
style features and categories of items go together more (bias amplification).

D_t is the arm's drift beyond a control arm's after t feedback steps, one number a replicate. Whether it compounds is told by
differences, L = D_T − T·D_1 and B = D_T − c_T·T·D_1 with c_T the benchmark of the strategy: a first step that is small
against its noise makes no ratio, and no word. The ratios A_T = D_T/D_1, C_T = A_T/T and O_T = D_T/(T·S^B_0), S^B_0 the
judge's selection at generation 0 beyond that same control's, describe; so does the response of a trained model to its first
selection, D_1/S^B_0. They are those of replicate means with Fieller-t intervals, and ``undefined`` where the denominator's
interval covers 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import (
    COMPOUNDING_WORDS,
    PROBABILITY,
    RATIO_MARGIN,
    Estimate,
    Result,
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
    t_interval,
)
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.stats.loop.drift import quantity_series
from judgeloop.stats.loop.forecast import ConstantTaste, constant_taste
from judgeloop.stats.loop.panels import anchor_slopes, panel_texts
from judgeloop.stats.loop.price import PriceAccounts, replicate_table
from judgeloop.stats.loop.replicates import (
    CELL,
    MeasuredCandidates,
    Quantity,
    Series,
    across_replicates,
    by_replicate,
    item_means,
    replicate_means,
    snapped,
    unrounded,
)
from judgeloop.text.features import FEATURES, STYLE_FEATURES

Floats = NDArray[np.float64]

_FIRST = "the first loop's drift"
_RATIOS = ("cumulative_gain", "compounding", "observed_over_static")
_WORD = "beyond_first_step"
_WORDED = f"^({'|'.join((_WORD, *_RATIOS))})_"
_WIDE = "the interval covers 0, and is too wide to show equivalence within the margin"
_NO_FIRST = "no replicate has the drift of the first loop and of the last"


def compounding_benchmark(arm: ArmDesign, generations: int, candidates_per_item: int | None = None) -> float | None:
    """The C_T of a linear judge on which nothing feeds back; above it, drift feeds on drift. None where it is not known.

    Selection adds 1 unit to the mean it starts from (the current policy's; with ``reference`` base, generation 0's), the
    strategy mixes, the next policy is the training set, and real data has no drift. Closed forms
    (docs/method.md, "Benchmarks"): replace 1; accumulate (H_{T+1} − 1)/(T/2); real fraction α (1 − (1 − α)^T)/(αT);
    base with replace 1/T. Best of n shrinks the spread it selects from by √v_n a step, v_n the variance of the largest
    of n normal draws, so that with replace C_T = (1 − v_n^{T/2})/(T(1 − √v_n)); that is the Gaussian single-feature
    law, of texts that are drafted anew; a pool that is re-weighted has its own (``constant_taste``), which is not computed for
    scores.
    """
    if arm.real_fraction >= 1.0 or generations < 1 or arm.is_trained:
        return None
    step = 1.0
    if arm.update == "group_advantage" and arm.reference != "base":
        return None
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
class Compounding:
    """One drift D_1 … D_T of a contrast, told without a ratio (docs/method.md, "Does drift compound?").

    ``drift``: the verdict on D_T. ``first``, ``last``, ``beyond_first``, ``beyond_strategy``: D_1, D_T, L = D_T − T·D_1 and
    B = D_T − c_T·T·D_1, means over the replicates that have both ends. ``margin``: of equivalence of L and B, a fifth of the
    mean drift; None where there is none.
    """

    drift: Verdict
    first: Result
    last: Result
    beyond_first: Result
    beyond_strategy: Result
    margin: float | None

    def verdict(self) -> Verdict:
        """The drift's own verdict where no drift is shown, else the first that holds of reversing, amplifying, saturating, as its
        strategy, steady, compounding unclear (docs/method.md, "Words of the verdicts")."""
        if self.drift != "drifting" or isinstance(self.beyond_first, Undefined):
            return self.drift
        onward = direction(self.last)
        if direction(self.first) == -onward:
            return "reversing"
        if direction(self.beyond_first) == onward:
            return "amplifying"
        if direction(self.beyond_first) == -onward:
            if claim(self.beyond_strategy, self.margin)[0] == "none":
                return "as its strategy"
            return "saturating" if direction(self.beyond_strategy) == -onward else "compounding unclear"
        return "steady" if claim(self.beyond_first, self.margin)[0] == "none" else "compounding unclear"


def direction(result: Result) -> int:
    """1 or −1 as the whole interval lies above or below 0, else 0."""
    if not isinstance(result, Interval) or result.covers(0.0):
        return 0
    return 1 if result.estimate > 0 else -1


def compounding(
    first: Floats, last: Floats, generations: int, benchmark: float | None, margin: float | None
) -> Compounding:
    """What D_1 (``first``) and D_T (``last``), (replicates,) with NaN where missing, say after T = ``generations`` steps.

    ``benchmark``: c_T, None where it is not known. ``margin``: of equivalence of the drift itself.
    """
    drift, _ = claim(replicate_mean(last[~np.isnan(last)]), margin, drift=True)
    both = ~(np.isnan(first) | np.isnan(last))
    start, end = first[both], last[both]
    beyond_first: Result = Undefined("one feedback step: there is nothing to compound")
    beyond_strategy = beyond_first
    if generations > 1:
        beyond_first = replicate_mean(unrounded(end - generations * start), _NO_FIRST, tested=False)
        beyond_strategy = Undefined("what this strategy makes of a constant taste is not known")
    if generations > 1 and benchmark is not None:
        beyond_strategy = replicate_mean(unrounded(end - benchmark * generations * start), _NO_FIRST, tested=False)
    size = RATIO_MARGIN * abs(float(end.mean())) if len(end) else 0.0
    return Compounding(drift, replicate_mean(start), replicate_mean(end), beyond_first, beyond_strategy, size or None)


def amplification_estimates(
    measured: MeasuredCandidates,
    all_series: Sequence[Series],
    accounts: PriceAccounts,
    design: Design,
    sizes: Mapping[str, int],
    slopes: Mapping[str, pd.DataFrame | None],
) -> list[Estimate]:
    """Rows ``beyond_first_step_``, ``beyond_strategy_``, ``cumulative_gain_``, ``compounding_`` and ``observed_over_static_``
    of every contrast and feature, and ``response_`` of arms whose model is trained.

    ``sizes``: arm → candidates an item, for the arms whose reward is refitted (the benchmark of best of n needs it).
    ``slopes``: arm → replicate × feature, the signal's slopes at generation 0 (the benchmark of a pool needs them). They
    share the word on compounding as their verdict, but for ``beyond_strategy_``, whose verdict is by its own interval.
    """
    rows: list[Estimate] = []
    tastes = {
        arm.name: constant_taste(measured, slopes.get(arm.name), arm, design, sizes.get(arm.name))
        for arm in design.arms
    }
    for quantity in measured.quantities:
        series = quantity_series(all_series, quantity.name)
        if series is None or not (quantity.has_sd or quantity.name == "correct"):
            continue
        for arm, control in design.contrasts:
            rows += _contrast_rows(measured, series, accounts, design, arm, control, sizes.get(arm), tastes)
    return rows


def _contrast_rows(
    measured: MeasuredCandidates,
    series: Series,
    accounts: PriceAccounts,
    design: Design,
    arm: str,
    control: str,
    size: int | None,
    tastes: Mapping[str, ConstantTaste | None],
) -> list[Estimate]:
    quantity, steps = series.quantity, design.generations
    _, n_items, _ = measured.count("", arm, steps)
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "arm": arm, "contrast": control, "n_items": n_items,
    }  # fmt: skip
    if quantity.undefined:
        unknown = Undefined(quantity.undefined)
        units = {_WORD: quantity.unit, "beyond_strategy": quantity.unit} | dict.fromkeys(_RATIOS, "ratio")
        return [
            estimate_row(unknown, term=f"{name}_{quantity.name}", unit=unit, n_replicates=0, **labels)
            for name, unit in units.items()
        ]
    selected = replicate_table(accounts.bias_selection(design.arm(control).judge_kind), quantity.name)
    static = snapped(across_replicates(selected, arm, 0))
    first, last = series.did(arm, control, 1), series.did(arm, control, steps)
    benchmark = compounding_benchmark(design.arm(arm), steps, size)
    if design.arm(arm).policy_kind == "pool" and design.arm(arm).reference != "base":
        benchmark = _pool_benchmark(tastes, design.arm(arm), design.arm(control), quantity.name, steps, static)
    told = compounding(
        series.dids(arm, control, 1), series.dids(arm, control, steps), steps, benchmark, quantity.margin
    )
    single = Undefined("one feedback step: there is nothing to compound")
    ratios = (
        single if steps < 2 else _fieller_ratio(last, first, 1.0, _FIRST),
        single if steps < 2 else _fieller_ratio(last, first, float(steps), _FIRST),
        _fieller_ratio(last, static, float(steps), "the first selection"),
    )
    labels |= {"n": len(last), "n_replicates": len(last)}
    expected = benchmark * steps * float(first.mean()) if benchmark is not None and len(first) else None
    word = told.verdict()
    both: dict[str, Any] = {"margin": told.margin, "unit": quantity.unit, **labels}
    later = estimate_row(told.beyond_first, term=f"{_WORD}_{quantity.name}", **both)
    apart = estimate_row(told.beyond_strategy, term=f"beyond_strategy_{quantity.name}", **both)
    rows = [
        replace(
            later, verdict=word, detectable=None, note=later.note or (_WIDE if later.status == "underpowered" else "")
        ),
        replace(apart, benchmark=None if apart.status == "undefined" else expected),
    ]
    for name, ratio in zip(_RATIOS, ratios, strict=True):
        row = ratio_row(ratio, term=f"{name}_{quantity.name}", unit="ratio", **labels)
        rows.append(replace(row, verdict=word, benchmark=benchmark if name == "compounding" else None))
    if design.arm(arm).is_trained:
        response = _fieller_ratio(first, static, 1.0, "the first selection")
        rows.append(ratio_row(response, term=f"response_{quantity.name}", unit="ratio", **labels, generation=1))
    return rows


def _pool_benchmark(
    tastes: Mapping[str, ConstantTaste | None],
    arm: ArmDesign,
    control: ArmDesign,
    quantity: str,
    steps: int,
    static: pd.Series[float],
) -> float | None:
    """C_T of the arm's pools against the control's under the signals of generation 0, held constant; a random control stays.

    None where it is not known, and where the first selection is not told from 0 (its replicates' ``static``).
    """
    taste = tastes.get(arm.name)
    if taste is None or direction(replicate_mean(static)) == 0:
        return None
    first, last = taste.moves(quantity)
    if control.judge_kind != "random":
        of_control = tastes.get(control.name)
        if of_control is None:
            return None
        stays, ends = of_control.moves(quantity)
        first, last = first - stays, last - ends
    # Its sign can differ from the replicates' where their fits do not agree.
    return last / (steps * first) if first * float(static.mean()) > 0 else None


def _fieller_ratio(
    numerator: pd.Series[float], denominator: pd.Series[float], times: float, name: str
) -> Interval | Undefined:
    common = numerator.index.intersection(denominator.index)
    if len(common) == 0:
        return Undefined(f"no replicate has {name}")
    ratio = fieller(numerator[common].to_numpy(), times * denominator[common].to_numpy(), null=1.0)
    if isinstance(ratio, Interval):
        return replace(ratio, method="Fieller t over replicates")
    if isinstance(replicate_t(denominator[common].to_numpy()), Interval):
        return Undefined(f"the 95 % interval of {name} covers 0, so a ratio to it means nothing")
    return ratio


def with_settled_compounding(frame: pd.DataFrame, generations: int) -> pd.DataFrame:
    """The adjusted estimates with the drift's verdict in place of a word on compounding where D_T is not ``drifting`` after
    correction for several tests."""
    words = frame["verdict"].isin(COMPOUNDING_WORDS)
    drifts = frame[(frame["generation"] == generations) & (frame["variant"] == "") & (frame["category"] == "")]
    drifts = drifts[drifts["term"].str.startswith("did_")]
    names = drifts["term"].str.removeprefix("did_")
    settled = dict(zip(zip(drifts["arm"], drifts["contrast"], names, strict=True), drifts["verdict"], strict=True))
    quantity = frame["term"].str.replace(_WORDED, "", regex=True)
    verdicts = [
        settled.get(key, word) if is_word and settled.get(key) != "drifting" else word
        for key, word, is_word in zip(
            zip(frame["arm"], frame["contrast"], quantity, strict=True), frame["verdict"], words, strict=True
        )
    ]
    return frame.assign(verdict=pd.Series(verdicts, index=frame.index, dtype=frame["verdict"].dtype))


# How far a pool policy has moved.


def kl_estimates(candidates: pd.DataFrame, design: Design, table: pd.DataFrame) -> list[Estimate]:
    """Rows ``kl_from_reference``: KL(p_current ‖ generation 0's p_current) in nats, mean over items; 0 = has not moved.

    ``candidates``: of the fixed items; ``table``: their ``divergences``. ``undefined`` where the texts' probabilities are not known,
    and where a pool policy gives mass to a text that generation 0 could not draw.
    """
    rows: list[Estimate] = []
    known = set(table.index.get_level_values("arm"))
    for arm in design.arms:
        for generation in range(design.generations + 1):
            labels: dict[str, Any] = {
                "scope": "policy", "bias": "diversity", "term": "kl_from_reference", "arm": arm.name,
                "generation": generation, "unit": "nats",
            }  # fmt: skip
            if arm.name not in known:
                unknown = Undefined(
                    "the texts' probabilities are not recorded: they are for pools, and for drafts of models that are trained here"
                )
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


def divergences(candidates: pd.DataFrame, design: Design) -> pd.DataFrame:
    """KL in nats, mean over items: (arm, generation) × replicate. Of pool policies it is exact, possibly infinite; of models that are
    trained here the mean over drafts of ``log_ratio``, which has the KL as its expectation and may come out below 0."""
    by_law = [arm.name for arm in design.arms if arm.policy_kind == "pool"]
    by_draft = [arm.name for arm in design.arms if arm.policy_kind == "trained"]
    tables = [pd.DataFrame(index=pd.MultiIndex.from_arrays([[], []], names=["arm", "generation"]))]
    if by_law and len(candidates) and "p_current" in candidates.columns:
        tables.append(_of_pools(candidates, by_law))
    if by_draft and len(candidates) and "log_ratio" in candidates.columns:
        drafts = candidates[candidates["arm"].isin(by_draft) & candidates["log_ratio"].notna()]
        means = item_means(drafts, ["log_ratio"], "n_drawn")
        tables.append(by_replicate(replicate_means(means, ["log_ratio"]), "log_ratio"))
    return pd.concat([table for table in tables if len(table)]) if any(map(len, tables)) else tables[0]


def _of_pools(candidates: pd.DataFrame, arms: Sequence[str]) -> pd.DataFrame:
    """The exact KL of pool policies."""
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
        fitted = signal_slopes(tables.signals, arm, scales)
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
            panel = _panel_error(tables, arm, feature, scales, 0)
            result = _transmission_ratio(values, slopes[arm.judge], feature, panel)
            lost = len(fitted) - len(values)
            rows.append(_transmission_row(arm, feature, result, len(values), lost))
    return rows


def signal_slopes(
    signals: pd.DataFrame, arm: ArmDesign, scales: dict[str, float], generation: int = 0
) -> pd.DataFrame | None:
    """Replicate × feature: the signal's slope β_R in log-odds per doubling (length) or per pooled generation-0 SD.

    NaN where the fit did not converge; None where the arm's signal was not fitted.
    """
    return _of_signal(signals, arm, scales, generation, "coefficient")


def _of_signal(
    signals: pd.DataFrame, arm: ArmDesign, scales: dict[str, float], generation: int, column: str
) -> pd.DataFrame | None:
    """``signal_slopes`` of a column of the table: ``coefficient``, or ``std_error`` in the same units."""
    if signals.empty:
        return None
    part = signals[
        (signals["arm"] == arm.name) & (signals["generation"] == generation) & signals["feature"].isin(FEATURES)
    ]
    if part.empty:
        return None
    unit = part["feature"].map({name: 1.0 if name == "length" else value for name, value in scales.items()})
    value = part[column].astype("float64") / part["scale"].astype("float64") * unit.astype("float64")
    value = value.where(part["converged"].astype("bool") & np.isfinite(value))
    return part.assign(value=value).pivot(index="replicate", columns="feature", values="value")


@dataclass(frozen=True, slots=True)
class PanelError:
    """What the anchor panel's texts add to the error of a reward model's slope, which no replicate shows, for all share the
    texts: the standard error by item, the root mean square over replicates, and its degrees of freedom."""

    std_error: float
    df: float


def _panel_error(
    tables: RunTables, arm: ArmDesign, feature: str, scales: dict[str, float], generation: int
) -> PanelError | None:
    """None where the signal's coefficients are of the features themselves."""
    errors = _of_signal(tables.signals, arm, scales, generation, "std_error")
    if arm.signal_kind != "reward_model" or errors is None:
        return None
    items = panel_texts(tables.candidates)["item_id"].nunique()
    return PanelError(float(np.sqrt(np.mean(errors[feature].dropna() ** 2))), max(1.0, float(items - errors.shape[1])))


def _transmission_ratio(
    values: pd.Series[float], slopes: Slopes | Undefined, feature: str, panel: PanelError | None
) -> Interval | Undefined:
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
    if panel is not None:
        variance, df = variance + panel.std_error**2, min(df, panel.df)
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
    mean over replicates with its t interval; of a reward model the variance over replicates and that by the panel's items
    add up, on the fewer degrees of freedom.
    """
    rows: list[Estimate] = []
    for arm in design.arms:
        for generation in range(design.generations + 1):
            fitted = signal_slopes(tables.signals, arm, scales, generation)
            if fitted is None:
                continue
            for feature in FEATURES:
                if feature not in fitted.columns:
                    continue
                values = fitted[feature].dropna()
                result = replicate_mean(values, "the signal converged in no replicate")
                panel = _panel_error(tables, arm, feature, scales, generation)
                if panel is not None and isinstance(result, Interval):
                    error, df = math.hypot(result.std_error, panel.std_error), min(len(values) - 1.0, panel.df)
                    result = t_interval(result.estimate, error, df, method=f"{result.method}, and over anchor items")
                rows.append(
                    estimate_row(
                        result, scope="signal", judge=arm.judge, arm=arm.name, generation=generation,
                        bias="verbosity" if feature == "length" else "style", term=f"signal_slope_{feature}",
                        unit="log-odds per doubling" if feature == "length" else "log-odds per generation-0 SD",
                        n=len(values), n_replicates=len(values),
                    )
                )  # fmt: skip
    return rows


def reward_accuracy_estimates(signals: pd.DataFrame, design: Design) -> list[Estimate]:
    """Rows ``reward_accuracy`` (scope signal) of every arm whose signal is a reward model, generation by generation: the share of
    held-out preferences that it predicts, ½ = chance. The mean over replicates with its t interval."""
    rows: list[Estimate] = []
    if signals.empty:
        return rows
    accuracies = signals[signals["feature"] == "accuracy"]
    for arm in design.arms:
        for generation in range(design.generations) if arm.signal_kind == "reward_model" else ():
            part = accuracies[(accuracies["arm"] == arm.name) & (accuracies["generation"] == generation)]
            values = part["coefficient"].astype("float64").reset_index(drop=True)
            result = replicate_mean(values, "preferences of fewer than two items in every replicate", null=0.5)
            rows.append(
                estimate_row(
                    result, margin=design.margins.rate, null=0.5, scope="signal", judge=arm.judge, arm=arm.name,
                    generation=generation, bias="quality", term="reward_accuracy", unit=PROBABILITY, n=len(values),
                    n_replicates=len(values),
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
