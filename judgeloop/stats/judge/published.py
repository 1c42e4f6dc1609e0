"""Estimates under the names of other tools, from the same judgments: to compare with published numbers, never primary.

AlpacaEval's length-controlled win rate (Dubois et al. 2024), Arena's style control (FastChat), the preference fairness and
position consistency of Shi et al. (2024), and JudgeBench's accuracy over both orders (Tan et al. 2025); docs/method.md, "Other tools' numbers". Each keeps its own transform of the features with
the drawbacks of that: tanh saturates, and z-scores change with the data.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd

from judgeloop.kernels import cluster_covariance, cluster_informations, distinct, logistic, satterthwaite_df, sigmoid
from judgeloop.stats.estimate import LOG_ODDS, PROBABILITY, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, clustered_proportion, t_interval
from judgeloop.stats.judge.covariates import gold_margin
from judgeloop.stats.judge.position import match
from judgeloop.stats.presentations import (
    Floats,
    Integers,
    a_first,
    coded,
    in_known_order,
    item_codes,
    not_identical,
    pair_codes,
    picked_a,
    text_places,
    unscored,
)

ARENA_FEATURES = ("length", "headings", "list_items", "bold")
_ARENA_RIDGE = 0.5
"""FastChat's penalty, on coefficients in units of log 10."""


def compatibility_estimates(judgments: pd.DataFrame, texts: pd.DataFrame | None, labels: RowLabels) -> list[Estimate]:
    """``preference_fairness``, ``position_consistency``, ``judgebench_accuracy``, ``alpaca_lc_winrate`` (a variant a model),
    ``arena_style_log_odds_<feature>``; one judge.

    ``judgments``: the columns of docs/contract.md, "Tables", with ``model_a, model_b`` for the last two, and ``len_a,
    len_b`` (characters) or ``texts`` (``item_id, candidate_id, characters, tokens`` and densities per 100 tokens).
    Where columns are missing there is no row.
    """
    compared = not_identical(judgments).reset_index(drop=True)
    rows = [*_shi_rows(labels, compared), *_judgebench_rows(labels, compared)]
    if {"model_a", "model_b"} <= set(compared.columns):
        places = None if texts is None or texts.empty else text_places(compared, texts)
        rows += _alpaca_rows(labels, compared, _side_values(compared, texts, places, "characters"))
        rows += _arena_rows(labels, compared, texts, places)
    return rows


def _shi_rows(labels: RowLabels, judgments: pd.DataFrame) -> list[Estimate]:
    """``preference_fairness`` and ``position_consistency`` of Shi et al., of pairs with a verdict in both orders.

    p pairs lean to the first slot (picked in both orders, or in one where the other is a tie), r to the second, and the rest,
    two ties among them, are consistent. Their (r·r/(r + p) − p·p/(r + p))/n is (r − p)/n.
    """
    arrays = coded(judgments)
    matched = match(arrays)
    counts = matched.complete(arrays.lost)
    fairness: Interval | Undefined = Undefined("no pair has a verdict in both orders")
    consistency = fairness
    if len(matched.net):
        fairness = bounded_mean(-np.sign(matched.net).astype(np.float64), matched.item, -1.0, 1.0)
        consistency = clustered_proportion((matched.net == 0).astype(np.float64), matched.item)
    note = "positive = prefers the second slot; without ties -2 times first_slot_excess"
    tied = int((matched.ties == 1).sum())
    agreed = (
        f"{tied} pairs with a pick and a tie are not consistent here, and no conflict in order_agreement"
        if tied
        else ""
    )
    return [
        row(
            labels,
            "position",
            "preference_fairness",
            fairness,
            counts,
            unit="difference of rates",
            null=None,
            note=note,
        ),
        row(labels, "position", "position_consistency", consistency, counts, unit=PROBABILITY, null=None, note=agreed),
    ]


def _judgebench_rows(labels: RowLabels, judgments: pd.DataFrame) -> list[Estimate]:
    """``judgebench_accuracy``: the share of pairs that gold decides whose two orders together pick gold's text more often than
    the other, of all that were asked in both. A tie or no verdict counts for neither; no row without such pairs."""
    if "gold" not in judgments:
        return []
    judgments = in_known_order(judgments)
    margin, _ = gold_margin(judgments["gold"])
    repeat = judgments.get("repeat", 0)
    slot = judgments["verdict"].map({"first": 1.0, "second": -1.0}).fillna(0.0).to_numpy(dtype=np.float64)
    forward = np.where((judgments["order"] == "ab").to_numpy(), 1.0, -1.0)
    asked = pd.DataFrame({
        "pair": pair_codes(judgments), "repeat": repeat, "item": item_codes(judgments), "order": forward,
        "right": slot * forward * np.sign(margin), "lost": (judgments["verdict"] == "unscored").to_numpy(),
    })[~np.isnan(margin) & (margin != 0)]  # fmt: skip
    units = asked.groupby(["pair", "repeat"]).agg(
        orders=("order", "nunique"), right=("right", "sum"), item=("item", "first"), lost=("lost", "sum")
    )
    units = units[units["orders"] == 2]
    if units.empty:
        return []
    result = clustered_proportion((units["right"] > 0).astype("float64"), units["item"])
    pairs = units.index.get_level_values("pair").nunique()
    counts = SampleCounts(pairs, units["item"].nunique(), int(units["lost"].sum()))
    return [row(labels, "quality", "judgebench_accuracy", result, counts, unit=PROBABILITY, null=None)]


def _side_values(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, places: Integers | None, column: str
) -> Floats | None:
    """(n, 2) the feature ``column`` of texts a and b; None where it is not known. ``places``: ``text_places``."""
    if column == "characters" and {"len_a", "len_b"} <= set(judgments.columns):
        return judgments[["len_a", "len_b"]].astype("float64").to_numpy()
    if texts is None or places is None or column not in texts:
        return None
    values = np.append(texts[column].to_numpy(dtype=np.float64), np.nan)[places]  # of the place −1: not there
    forward = a_first(judgments)
    return np.where(forward[:, None], values, values[:, ::-1])


def _alpaca_rows(labels: RowLabels, judgments: pd.DataFrame, lengths: Floats | None) -> list[Estimate]:
    """``alpaca_lc_winrate`` against the baseline, the model that stands on one side of every pair; no row without one.

    ``lengths`` (n, 2) of texts a and b in characters, None where not known.
    """
    different = judgments[["model_a", "model_b"]].drop_duplicates()
    models_of_pairs = list(map(set, different.itertuples(index=False, name=None)))
    shared = set.intersection(*models_of_pairs) if models_of_pairs else set()
    if lengths is None or not shared:
        return []
    # Where all pairs are of the same two models, the baseline is the one that text_b names.
    baseline = str(judgments["model_b"].iloc[0]) if len(shared) > 1 else shared.pop()
    picked = picked_a(judgments)
    is_a = (judgments["model_a"] != baseline).to_numpy()
    opponents = np.where(is_a, judgments["model_a"], judgments["model_b"])
    gap = (lengths[:, 0] - lengths[:, 1]) * np.where(is_a, 1.0, -1.0)
    won = np.where(is_a, picked, 1.0 - picked)
    rows = []
    for model in sorted(set(opponents) - {baseline}):
        model_rows = (opponents == model) & ~np.isnan(won) & np.isfinite(gap)
        items = item_codes(judgments)[model_rows]
        counts = SampleCounts(int(model_rows.sum()), distinct(items), unscored(judgments[opponents == model]))
        result = _length_controlled_rate(won[model_rows], gap[model_rows], items)
        rows.append(row(
            labels, "verbosity", "alpaca_lc_winrate", result, counts, unit=PROBABILITY, variant=str(model), null=None,
            note=f"against {baseline}; lengths in characters; not as AlpacaEval: maximum likelihood in place of its "
            "cross-validated L1 penalty, without instance difficulty and gamed baselines, which need its own leaderboard",
        ))  # fmt: skip
    return rows


def _length_controlled_rate(won: Floats, gap: Floats, items: Integers) -> Interval | Undefined:
    """s(θ) of logit P(model wins) = θ + φ·tanh(gap/sd(gap)): the win rate at equal lengths (probability).

    ``won`` and ``gap`` (n,): the model's picks, and its length minus the baseline's. θ is the column "not the gamed
    baseline" of the reference code, which is 1 for every pair where no such baseline is added; its gap is baseline
    minus model, which changes the sign of φ alone. Its L1 penalty is not applied.
    """
    spread = float(np.std(gap, ddof=1)) if len(gap) > 1 else 0.0
    groups = distinct(items)
    if spread == 0 or groups < 3:
        return Undefined("lengths do not differ, or too few items")
    x = np.column_stack([np.ones(len(gap)), np.tanh(gap / spread)])
    fit = logistic(x, won)
    if not fit.identified:
        return Undefined("wins separate by length")
    try:
        covariance = cluster_covariance(x, won, fit, items, "CR2")
        informations = cluster_informations(x, fit.probabilities * (1.0 - fit.probabilities), items)
        df = satterthwaite_df(informations, np.eye(2)[:1])
    except ValueError as error:
        return Undefined(str(error))
    theta = t_interval(float(fit.coefficients[0]), math.sqrt(covariance[0, 0]), float(df[0]))
    rate, low, high = (float(v) for v in sigmoid(np.array([theta.estimate, theta.low, theta.high])))
    se = theta.std_error * rate * (1 - rate)
    return Interval(
        rate, se, low, high, theta.level, None, theta.df, "AlpacaEval-LC form, cluster t by item, logit scale"
    )


def _arena_rows(
    labels: RowLabels, judgments: pd.DataFrame, texts: pd.DataFrame | None, places: Integers | None
) -> list[Estimate]:
    """``arena_style_log_odds_<feature>``: (a − b)/(a + b + 1) of raw counts, z-scored with centring.

    Fitted beside Bradley–Terry strengths with ridge ½; a tie counts ½.
    """
    tokens = _side_values(judgments, texts, places, "tokens")
    if tokens is None or texts is None:
        return []
    names: list[str] = []
    columns: list[Floats] = []
    for name in ARENA_FEATURES:
        density = _side_values(judgments, texts, places, name) if name != "length" else None
        raw = tokens if name == "length" else None if density is None else density * tokens / 100.0
        if raw is None:
            continue
        relative = (raw[:, 0] - raw[:, 1]) / (raw[:, 0] + raw[:, 1] + 1.0)
        known = relative[~np.isnan(relative)]
        spread = float(known.std()) if len(known) else 0.0
        if spread > 0:
            names.append(name)
            columns.append((relative - known.mean()) / spread)
    picked = picked_a(judgments)
    models = sorted(set(judgments["model_a"].astype(str)) | set(judgments["model_b"].astype(str)))
    strengths = [
        (judgments["model_a"] == model).to_numpy(dtype=np.float64)
        - (judgments["model_b"] == model).to_numpy(dtype=np.float64)
        for model in models
    ]
    if not names:
        return []
    x = np.stack([*columns, *strengths], axis=1)
    complete = ~np.isnan(picked) & np.all(np.isfinite(x), axis=1)
    items = item_codes(judgments)[complete]
    groups = distinct(items)
    # FastChat fits strengths in units of log 10 with ridge ½ on all; ours are in log-odds.
    ridge = np.array([_ARENA_RIDGE] * len(names) + [_ARENA_RIDGE / math.log(10) ** 2] * len(models))
    fit = logistic(x[complete], picked[complete], ridge=ridge) if groups > 2 else None
    counts = SampleCounts(int(complete.sum()), groups, unscored(judgments))
    covariance = None if fit is None else cluster_covariance(x[complete], picked[complete], fit, items)
    rows = []
    for j, name in enumerate(names):
        result: Interval | Undefined = Undefined("too few items")
        if fit is not None and covariance is not None:
            se = math.sqrt(covariance[j, j])
            interval = t_interval(
                float(fit.coefficients[j]), se, groups - 1, method="Arena style control, ridge ½, CR1 by item"
            )
            result = dataclasses.replace(interval, p_value=None)
        rows.append(row(
            labels, "verbosity" if name == "length" else "style", f"arena_style_log_odds_{name}", result, counts,
            unit=f"{LOG_ODDS} per SD of the relative difference", null=None, note="features centred and z-scored here",
        ))  # fmt: skip
    return rows
