"""Does the drift compound? Gain, compounding and observed over static drift, over the run (the method notes §2, §7.3–4).

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

from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.drift import quantity_series
from judgeloop.stats.estimate import Estimate, Verdict
from judgeloop.stats.inference import Interval, Undefined, fieller, replicate_t, tost
from judgeloop.stats.loop.replicates import Measured, Series, across_replicates, snapped
from judgeloop.stats.price import Accounts, replicate_table
from judgeloop.stats.reference import normal_cdf, normal_density
from judgeloop.stats.rows import RATIO_MARGIN, claimed, estimate_row, ratio_row, replicate_mean

_FIRST = "the first loop's drift"


def compounding_benchmark(arm: ArmDesign, generations: int, candidates_per_item: int | None = None) -> float | None:
    """C_T where the judge is linear and nothing feeds back on it; above it, drift feeds on drift. None where not known.

    Selection adds 1 unit to the mean it starts from (the current policy's; with ``reference`` base, generation 0's), the
    strategy mixes, the next policy is the training set, and real data has no drift. Closed forms (the method notes §2.3):
    replace 1; accumulate (H_{T+1} − 1)/(T/2); real fraction α (1 − (1 − α)^T)/(αT); base with replace 1/T. Best of n
    shrinks the spread it selects from by √v_n a step, v_n the variance of the largest of n normal draws, so that with
    replace C_T = (1 − v_n^{T/2})/(T(1 − √v_n)); that is the Gaussian single-feature law.
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
        """The word of the method notes §7.4: of the drift where none is shown or nothing can compound, else on compounding."""
        if self.drift != "drifting" or generations < 2 or isinstance(self.compounding, Undefined):
            return self.drift
        return compounding_word(self.compounding, self.observed_over_static, benchmark)


def compounding_word(
    compounding: Interval, observed_over_static: Interval | Undefined, benchmark: float | None
) -> Verdict:
    """amplifying, saturating, steady or compounding unclear, in this order (the method notes §7.4).

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
    measured: Measured, found: Sequence[Series], books: Accounts, design: Design, sizes: Mapping[str, int]
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
    measured: Measured, one: Series, books: Accounts, design: Design, arm: str, control: str, size: int | None
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
