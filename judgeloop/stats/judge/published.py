"""Outputs of other tools' names, from the same judgments: for comparison with published numbers, never primary.

AlpacaEval's length-controlled win rate (Dubois et al. 2024), Arena's style control (FastChat), and the preference
fairness of Shi et al. (2024). Each keeps its own transform of the features, with its own faults: tanh saturates, and
z-scores move with the data.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import cluster_covariance, logistic, sigmoid
from judgeloop.stats.estimate import LOG_ODDS, PROBABILITY, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import FEW_CLUSTERS, Interval, Undefined, t_interval
from judgeloop.stats.presentations import first_picked, item_codes, not_identical, unscored

Floats = NDArray[np.float64]

ARENA_FEATURES = ("length", "headings", "list_items", "bold")
_ARENA_RIDGE = 0.5


def compatibility_estimates(judgments: pd.DataFrame, texts: pd.DataFrame | None, labels: RowLabels) -> list[Estimate]:
    """``preference_fairness``, ``alpaca_lc_winrate`` (a variant a model), ``arena_style_log_odds_<feature>``, one judge.

    ``judgments``: the columns of docs/contract.md, "Tables", with ``model_a, model_b`` for the last two, and ``len_a,
    len_b`` (characters) or ``texts`` (``item_id, candidate_id, characters, tokens`` and densities per 100 tokens). What
    these do not hold gives no row: these are extras.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    rows = _fairness(labels, compared)
    if {"model_a", "model_b"} <= set(compared.columns):
        rows += _alpaca(labels, compared, _side_values(compared, texts, "characters"))
        rows += _arena(labels, compared, texts)
    return rows


def _fairness(labels: RowLabels, judgments: pd.DataFrame) -> list[Estimate]:
    """Shi et al.'s (r² − p²)/(r + p)/n is (n_SS − n_FF)/n: minus twice the first-slot excess."""
    from judgeloop.stats.judge.position import position_estimates

    primary = position_estimates(judgments)[0]
    result: Interval | Undefined = Undefined(primary.note)
    if primary.status != "undefined" and primary.estimate is not None and primary.std_error is not None:
        assert primary.conf_low is not None
        assert primary.conf_high is not None
        result = Interval(
            -2 * primary.estimate, 2 * primary.std_error, -2 * primary.conf_high, -2 * primary.conf_low,
            primary.conf_level or 0.95, primary.p_value, None, primary.method,
        )  # fmt: skip
    counts = SampleCounts(primary.n, primary.n_items, primary.n_unscored)
    note = "positive = prefers the second slot; -2 times first_slot_excess"
    return [
        row(labels, "position", "preference_fairness", result, counts, unit="difference of rates", null=None, note=note)
    ]


def _side_values(judgments: pd.DataFrame, texts: pd.DataFrame | None, column: str) -> Floats | None:
    """(n, 2) a feature of texts a and b; None where it is not known."""
    if column == "characters" and {"len_a", "len_b"} <= set(judgments.columns):
        return judgments[["len_a", "len_b"]].astype("float64").to_numpy()
    if texts is None or column not in texts:
        return None
    values = texts.drop_duplicates(["item_id", "candidate_id"]).set_index(["item_id", "candidate_id"])[column]
    sides = []
    for slot in ("candidate_first", "candidate_second"):
        index = pd.MultiIndex.from_arrays([judgments["item_id"], judgments[slot]])
        sides.append(values.reindex(index).to_numpy(dtype=np.float64))
    ab = (judgments["order"] == "ab").to_numpy()
    return np.column_stack([np.where(ab, sides[0], sides[1]), np.where(ab, sides[1], sides[0])])


def _picked_a(judgments: pd.DataFrame) -> Floats:
    picked = first_picked(judgments).to_numpy()
    return np.asarray(np.where((judgments["order"] == "ab").to_numpy(), picked, 1.0 - picked), dtype=np.float64)


def _alpaca(labels: RowLabels, judgments: pd.DataFrame, lengths: Floats | None) -> list[Estimate]:
    """A baseline is a model that stands on one side of every pair; without one there is no such win rate."""
    models = [set(pair) for pair in zip(judgments["model_a"], judgments["model_b"], strict=True)]
    shared = set.intersection(*models) if models else set()
    if lengths is None or not shared:
        return []
    # Where all pairs are of the same two models, the baseline is the one that text_b names.
    baseline = str(judgments["model_b"].iloc[0]) if len(shared) > 1 else shared.pop()
    picked = _picked_a(judgments)
    is_a = (judgments["model_a"] != baseline).to_numpy()
    others = np.where(is_a, judgments["model_a"], judgments["model_b"])
    gap = (lengths[:, 0] - lengths[:, 1]) * np.where(is_a, 1.0, -1.0)
    won = np.where(is_a, picked, 1.0 - picked)
    rows = []
    for model in sorted(set(others) - {baseline}):
        some = (others == model) & ~np.isnan(won) & np.isfinite(gap)
        items = item_codes(judgments)[some]
        counts = SampleCounts(int(some.sum()), len(np.unique(items)), unscored(judgments[others == model]))
        result = _controlled_rate(won[some], gap[some], items)
        rows.append(row(
            labels, "verbosity", "alpaca_lc_winrate", result, counts, unit=PROBABILITY, variant=str(model), null=None,
            note=f"against {baseline}; lengths in characters; not as AlpacaEval: maximum likelihood in place of its "
            "cross-validated L1 penalty, without instance difficulty and gamed baselines, which need its own leaderboard",
        ))  # fmt: skip
    return rows


def _controlled_rate(won: Floats, gap: Floats, items: NDArray[np.intp]) -> Interval | Undefined:
    """s(θ) of logit P(model wins) = θ + φ·tanh(gap/sd(gap)): the win rate at equal lengths.

    θ is the column "not the gamed baseline" of the reference code, which is 1 for every pair where no such baseline is
    added; its gap is baseline less model, which turns the sign of φ alone. Its L1 penalty is not applied.
    """
    spread = float(np.std(gap, ddof=1)) if len(gap) > 1 else 0.0
    groups = len(np.unique(items))
    if spread == 0 or groups < 3:
        return Undefined("lengths do not differ, or too few items")
    x = np.column_stack([np.ones(len(gap)), np.tanh(gap / spread)])
    fit = logistic(x, won)
    if not fit.identified:
        return Undefined("wins separate by length")
    covariance = cluster_covariance(x, won, fit, items, "mancl_derouen" if groups < FEW_CLUSTERS else "CR1")
    theta = t_interval(float(fit.coefficients[0]), math.sqrt(covariance[0, 0]), groups - 1)
    rate, low, high = (float(v) for v in sigmoid(np.array([theta.estimate, theta.low, theta.high])))
    se = theta.std_error * rate * (1 - rate)
    return Interval(
        rate, se, low, high, theta.level, None, theta.df, "AlpacaEval-LC form, cluster t by item, logit scale"
    )


def _arena(labels: RowLabels, judgments: pd.DataFrame, texts: pd.DataFrame | None) -> list[Estimate]:
    """(a − b)/(a + b + 1) of raw counts, z-scored with centring, beside Bradley–Terry strengths with ridge ½, ties ½."""
    tokens = _side_values(judgments, texts, "tokens")
    if tokens is None or texts is None:
        return []
    names: list[str] = []
    columns: list[Floats] = []
    for name in ARENA_FEATURES:
        density = _side_values(judgments, texts, name) if name != "length" else None
        raw = tokens if name == "length" else None if density is None else density * tokens / 100.0
        if raw is None:
            continue
        relative = (raw[:, 0] - raw[:, 1]) / (raw[:, 0] + raw[:, 1] + 1.0)
        spread = float(np.nanstd(relative))
        if spread > 0:
            names.append(name)
            columns.append((relative - np.nanmean(relative)) / spread)
    picked = _picked_a(judgments)
    models = sorted(set(judgments["model_a"].astype(str)) | set(judgments["model_b"].astype(str)))
    strengths = [
        (judgments["model_a"] == model).to_numpy(dtype=np.float64)
        - (judgments["model_b"] == model).to_numpy(dtype=np.float64)
        for model in models
    ]
    if not names:
        return []
    x = np.stack([*columns, *strengths], axis=1)
    some = ~np.isnan(picked) & np.all(np.isfinite(x), axis=1)
    items = item_codes(judgments)[some]
    groups = len(np.unique(items))
    # FastChat fits strengths in units of log 10 with ridge ½ on all; ours are in log-odds.
    ridge = np.array([_ARENA_RIDGE] * len(names) + [_ARENA_RIDGE / math.log(10) ** 2] * len(models))
    fit = logistic(x[some], picked[some], ridge=ridge) if groups > 2 else None
    counts = SampleCounts(int(some.sum()), groups, unscored(judgments))
    covariance = None if fit is None else cluster_covariance(x[some], picked[some], fit, items)
    rows = []
    for j, name in enumerate(names):
        result: Interval | Undefined = Undefined("too few items")
        if fit is not None and covariance is not None:
            se = math.sqrt(covariance[j, j])
            shown = t_interval(
                float(fit.coefficients[j]), se, groups - 1, method="Arena style control, ridge ½, CR1 by item"
            )
            result = dataclasses.replace(shown, p_value=None)
        rows.append(row(
            labels, "verbosity" if name == "length" else "style", f"arena_style_log_odds_{name}", result, counts,
            unit=f"{LOG_ODDS} per SD of the relative difference", null=None, note="features centred and z-scored here",
        ))  # fmt: skip
    return rows
