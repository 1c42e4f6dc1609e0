"""Rows E1–E3: position bias, through ``stats.position`` and ``learning.labels``."""

from __future__ import annotations

import math

import numpy as np

from judgeloop.experiment.schema import LabelRule
from judgeloop.learning import labels
from judgeloop.seeds import rng
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge.position import position_estimates
from judgeloop.validate.row import Row, Scale, compare, covered, exact, sampled
from judgeloop.validate.worlds import Floats, judged, logistic, pair_table, picks

GAMMA, ITEM_SD = 0.4, 1.5


def normal_mean(values: Floats, weights: Floats) -> float:
    """E of a function of a standard normal, from its values at Hermite nodes."""
    return float(values @ weights) / math.sqrt(2.0 * math.pi)


def rows_e1(scale: Scale) -> list[Row]:
    """γ̂ = ½ log(n_FF/n_SS) recovers γ whatever the pairs differ in; p_F = E ½[s(γ + δ) + s(γ − δ)], δ ~ N(0, 1.5²)."""
    pairs, size = 500, scale.size(4_000, 160)
    table = pair_table(pairs)
    log_odds: list[Estimate] = []
    rates: list[Estimate] = []
    for replicate in range(size):
        generator = rng(scale.seed, "validate", "E1", replicate)
        delta = ITEM_SD * generator.standard_normal(pairs)
        verdicts = {"ab": picks(GAMMA + delta, generator), "ba": picks(GAMMA - delta, generator)}
        estimates = {row.term: row for row in position_estimates(judged(table, verdicts)) if not row.variant}
        log_odds.append(estimates["position_log_odds"])
        rates.append(estimates["first_slot_excess"])
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    excess = normal_mean(logistic(GAMMA + ITEM_SD * nodes), weights) - 0.5
    setting = f"γ={GAMMA:g}, item sd {ITEM_SD:g}, n={pairs} pairs, R={size}"
    # Half the log of a ratio of counts has a bias of order 1/n_SS (a tenth of an error of the estimate).
    return [
        sampled("E1", f"position_log_odds, {setting}", GAMMA, [number(estimate.estimate) for estimate in log_odds]),
        covered("E1", f"position_log_odds covers, {setting}", [holds(estimate, GAMMA) for estimate in log_odds]),
        sampled("E1", f"first_slot_excess, {setting}", excess, [number(estimate.estimate) for estimate in rates]),
        covered("E1", f"first_slot_excess covers, {setting}", [holds(estimate, excess) for estimate in rates]),
    ]


def rows_e2(scale: Scale) -> list[Row]:
    """swap_average: ½[s(δ + γ) + s(δ − γ)] exactly; antisymmetric, ½ at δ = 0, slope there ×sech²(γ/2)."""
    rows = []
    contents = np.abs(rng(scale.seed, "validate", "E2").standard_normal(200)) * 2.0
    step = 1e-4
    delta = np.concatenate([contents, -contents, [0.0, step, -step]])
    for gamma in (0.5, 1.0, 2.0):
        p = {"ab": logistic(gamma + delta), "ba": logistic(gamma - delta)}
        verdict = np.where(p["ab"] > 0.5, "first", "second")
        table = pair_table(len(delta))
        preferences = labels.preferences(judged(table, {"ab": verdict, "ba": verdict}, p_first=p), "swap_average")
        chosen = preferences[preferences["chosen"] == "a"].set_index("item_id")["weight"]
        weight = chosen.reindex(table["item_id"]).to_numpy(dtype=np.float64)
        expected = 0.5 * (logistic(delta + gamma) + logistic(delta - gamma))
        count, factor = len(contents), 1.0 / math.cosh(gamma / 2.0) ** 2
        slope = 4.0 * float(weight[-2] - weight[-1]) / (2.0 * step)
        rows += [
            exact("E2", f"swap_average, γ={gamma:g}, largest gap to the closed form", 0.0, float(np.max(np.abs(weight - expected))), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, antisymmetry", 0.0, float(np.max(np.abs(weight[:count] + weight[count:-3] - 1.0))), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, δ = 0", 0.5, float(weight[-3]), 1e-12),
            exact("E2", f"swap_average, γ={gamma:g}, slope factor sech²(γ/2)", factor, slope, 1e-7, "central difference"),
        ]  # fmt: skip
    return rows


def rows_e3(scale: Scale) -> list[Row]:
    """consistent_only doubles the log-odds of content at any γ, and unanimity over m order-balanced calls makes them m-fold:
    s(δ + γ)s(δ − γ)/(… + …) = s(2δ)."""
    rows = []
    pairs = scale.size(60_000, 20_000)
    rule: LabelRule = "consistent_only"
    for repeats, deltas in ((1, (0.3, 1.0)), (2, (0.3, 1.0))):
        for delta in deltas:
            for gamma in (0.0, 1.0):
                generator = rng(scale.seed, "validate", "E3", repeats, str(delta), str(gamma))
                verdicts = {
                    f"{order}#{repeat}": picks(np.full(pairs, gamma + sign * delta), generator)
                    for repeat in range(repeats)
                    for order, sign in (("ab", 1.0), ("ba", -1.0))
                }
                rows.append(_row_of_rule(judged(pair_table(pairs), verdicts), rule, delta, gamma, 2 * repeats, pairs))
    return rows


def _row_of_rule(judgments: object, rule: LabelRule, delta: float, gamma: float, calls: int, pairs: int) -> Row:
    preferences = labels.preferences(judgments, rule)  # type: ignore[arg-type]
    wins, losses = int((preferences["chosen"] == "a").sum()), int((preferences["chosen"] == "b").sum())
    estimate = math.log((wins + 0.5) / (losses + 0.5))
    error = math.sqrt(1.0 / (wins + 0.5) + 1.0 / (losses + 0.5))
    setting = f"unanimous of {calls}, δ={delta:g}, γ={gamma:g}, {pairs} pairs"
    return compare(
        "E3", f"log-odds of kept picks, {setting}", calls * delta, estimate, error, note=f"{wins + losses} kept"
    )


def number(value: float | None) -> float:
    """The value, NaN (which fails any row) where an estimate is undefined."""
    return math.nan if value is None else value


def holds(estimate: Estimate, truth: float) -> bool:
    """Whether an estimate has an interval and it covers the truth."""
    return (
        estimate.conf_low is not None
        and estimate.conf_high is not None
        and estimate.conf_low <= truth <= estimate.conf_high
    )
