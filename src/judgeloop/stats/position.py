"""Position bias of a judge from pairs judged in both orders. Positive = prefers the first slot.

Estimators of the method notes §1.2 and §7.1: the primary is model-free, the mean over complete pairs of how often the
first slot was picked beyond half, with standard errors clustered by item. ``judgments`` throughout: CONTRACT's columns,
one judge and one panel (any repeats); those of identical texts serve the identical-pair probe alone.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import (
    Interval,
    Undefined,
    bounded_mean,
    cluster_mean,
    clustered_proportion,
    mcnemar_mid_p,
    t_interval,
)
from judgeloop.stats.presentations import (
    first_picked,
    is_soft,
    item_codes,
    not_identical,
    only_identical,
    pair_codes,
    pairs,
    unscored,
)
from judgeloop.stats.rows import LOG_ODDS, PROBABILITY, RATE_MARGIN, Counts, Labels, row

_SINGLE_ORDER = Undefined("each pair was judged in one order only: position cannot be told from content")
_NO_PAIRS = Undefined("no pair has a verdict in both orders")
_CLIP = 1e-6


def position_estimates(
    judgments: pd.DataFrame,
    *,
    judge: str = "",
    arm: str = "",
    generation: int | None = None,
    panel: str = "",
    category: str = "",
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """All position terms of one judge on one set of judgments; the other arguments are the rows' labels.

    Always the same terms: what these judgments cannot tell (a single order, no repeats, no identical pairs) is
    ``undefined`` with the reason. ``margin`` is the equivalence margin of rates.
    """
    labels = Labels(judge, arm, generation, panel, category)
    compared = not_identical(judgments)
    table, matched = pairs(compared), _matched(compared)
    lost = unscored(compared)
    absent = _absent(table)
    return [
        *_first_slot(labels, compared, table, matched, absent, lost, margin),
        _log_odds(labels, compared, matched, absent, lost),
        *_conflicts(labels, matched, absent, lost),
        _excess_conflict(labels, compared, table, absent, lost),
        _stability(labels, compared, lost),
        _identical(labels, only_identical(judgments), margin),
    ]


def first_slot_excess(judgments: pd.DataFrame) -> Interval | Undefined:
    """P(first slot picked) − ½ over complete pairs, clustered by item: the primary of that term in ``position_estimates``."""
    return _excess(pairs(not_identical(judgments)))


def _excess(table: pd.DataFrame) -> Interval | Undefined:
    complete = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    values = ((complete["ab"] + complete["ba"]) / 2.0 - 0.5).to_numpy()
    return _absent(table) or bounded_mean(values, complete["item"].to_numpy(), -0.5, 0.5)


def _absent(table: pd.DataFrame) -> Undefined | None:
    """Why no pair is complete, or None where some are."""
    if ((table["n_ab"] > 0) & (table["n_ba"] > 0)).any():
        return None
    if len(table) and not ((table["asked_ab"] > 0) & (table["asked_ba"] > 0)).any():
        return _SINGLE_ORDER
    return _NO_PAIRS


def _first_slot(
    labels: Labels,
    judgments: pd.DataFrame,
    table: pd.DataFrame,
    matched: pd.DataFrame,
    absent: Undefined | None,
    lost: int,
    margin: float,
) -> list[Estimate]:
    term, complete = "first_slot_excess", table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    items = complete["item"].to_numpy()
    result = _excess(table)
    n_ff, n_ss = int(matched["ff"].sum()), int(matched["ss"].sum())
    note = ""
    if isinstance(result, Interval) and len(items) == len(np.unique(items)) and not is_soft(judgments):
        note = f"McNemar mid-p {mcnemar_mid_p(n_ff, n_ss):.4g} ({n_ff} both first, {n_ss} both second)"
    counts = Counts(len(complete), len(np.unique(items)), lost)
    rows = [row(labels, "position", term, result, counts, unit=PROBABILITY, margin=margin, note=note)]
    asked = table[(table["asked_ab"] > 0) & (table["asked_ba"] > 0)]
    for variant, value in (("worst_case_low", 0.0), ("worst_case_high", 1.0)):
        filled = [
            (asked[f"sum_{order}"] + value * (asked[f"asked_{order}"] - asked[f"n_{order}"])) / asked[f"asked_{order}"]
            for order in ("ab", "ba")
        ]
        bound: Interval | Undefined = _SINGLE_ORDER if absent is _SINGLE_ORDER else _NO_PAIRS
        if len(asked):
            bound = bounded_mean(((filled[0] + filled[1]) / 2.0 - 0.5).to_numpy(), asked["item"].to_numpy(), -0.5, 0.5)
        rows.append(row(
            labels, "position", term, bound, Counts(len(asked), asked["item"].nunique(), lost), unit=PROBABILITY,
            variant=variant, null=None,
            note=f"every unscored judgment counted as {'first' if value else 'second'} slot picked",
        ))  # fmt: skip
    rows += _calls(labels, judgments, absent, lost)
    return rows


def _calls(labels: Labels, judgments: pd.DataFrame, absent: Undefined | None, lost: int) -> list[Estimate]:
    """First-slot rates over calls: what a single-order log can bear, and without ties where there are any."""
    picked = first_picked(judgments).to_numpy()
    keep = ~np.isnan(picked)
    items = item_codes(judgments)
    rows = []
    ties = (judgments["verdict"] == "tie").to_numpy()
    caution = "over calls; position only if the order was randomised, and then with all the content noise in it"
    wanted = [("single_order", keep, caution)] if absent is _SINGLE_ORDER else []
    if ties.any():
        note = f"{ties.sum()} of {keep.sum()} calls are ties and are left out; over calls, both orders pooled"
        wanted.append(("ties_dropped", keep & ~ties, note if absent is not _SINGLE_ORDER else f"{note}; {caution}"))
    for variant, some, note in wanted:
        result = bounded_mean(picked[some] - 0.5, items[some], -0.5, 0.5)
        counts = Counts(int(some.sum()), len(np.unique(items[some])), lost)
        rows.append(
            row(labels, "position", "first_slot_excess", result, counts, unit=PROBABILITY, variant=variant, note=note)
        )
    return rows


def _matched(judgments: pd.DataFrame) -> pd.DataFrame:
    """Presentations matched by pair and repeat: ``item``, ``verdict_ab``, ``verdict_ba``, both scored; ``ff`` where both
    orders picked the first slot, ``ss`` where both picked the second."""
    repeat = judgments["repeat"].to_numpy() if "repeat" in judgments else np.zeros(len(judgments), dtype=int)
    frame = pd.DataFrame({
        "pair": pair_codes(judgments), "item": item_codes(judgments), "repeat": repeat,
        "order": judgments["order"].to_numpy(), "verdict": judgments["verdict"].to_numpy(),
    })  # fmt: skip
    frame = frame[frame["verdict"] != "unscored"].drop_duplicates(["pair", "repeat", "order"])
    sides = [frame[frame["order"] == order].drop(columns="order") for order in ("ab", "ba")]
    both = sides[0].merge(sides[1].drop(columns="item"), on=["pair", "repeat"], suffixes=("_ab", "_ba"))
    both["ff"] = (both["verdict_ab"] == "first") & (both["verdict_ba"] == "first")
    both["ss"] = (both["verdict_ab"] == "second") & (both["verdict_ba"] == "second")
    return both


def _log_odds(
    labels: Labels, judgments: pd.DataFrame, matched: pd.DataFrame, absent: Undefined | None, lost: int
) -> Estimate:
    if is_soft(judgments):
        return _soft_log_odds(labels, judgments, absent, lost)
    n_ff, n_ss = int(matched["ff"].sum()), int(matched["ss"].sum())
    result = absent or _haldane(matched, noisy=_within_order_flips(judgments) > 0)
    counts = Counts(len(matched), matched["item"].nunique(), lost)
    note = f"{n_ff} both first, {n_ss} both second"
    return row(labels, "position", "position_log_odds", result, counts, unit=LOG_ODDS, note=note)


def _haldane(matched: pd.DataFrame, *, noisy: bool) -> Interval | Undefined:
    """½ log(n_FF/n_SS), counts + ½: the conditional likelihood's closed form, which eliminates pair effects."""
    n_ff, n_ss = int(matched["ff"].sum()), int(matched["ss"].sum())
    if n_ff + n_ss == 0:
        return Undefined("no pair's verdict changed with the order")
    if min(n_ff, n_ss) == 0 and not noisy:
        which = "both second" if n_ss == 0 else "both first"
        return Undefined(
            f"no pair was {which}, as at temperature 0, where position has no log-odds; see first_slot_excess"
        )
    ff, ss = n_ff + 0.5, n_ss + 0.5
    estimate = 0.5 * math.log(ff / ss)
    items = matched["item"].to_numpy()
    if len(items) == len(np.unique(items)):
        se = 0.5 * math.sqrt(1.0 / ff + 1.0 / ss)
        interval = t_interval(estimate, se, None, method="conditional likelihood, Haldane")
        return Interval(
            estimate, se, interval.low, interval.high, interval.level, mcnemar_mid_p(n_ff, n_ss), None, interval.method
        )
    influence = 0.5 * (matched["ff"] / ff - matched["ss"] / ss).to_numpy()
    sums = np.bincount(pd.factorize(items)[0], weights=influence)
    groups = len(sums)
    if groups < 2:
        return Undefined("one item: an interval over items needs 2 or more")
    se = math.sqrt(groups / (groups - 1.0) * float(np.sum((sums - sums.mean()) ** 2)))
    return t_interval(estimate, se, groups - 1, method="conditional likelihood, Haldane, cluster t by item")


def _soft_log_odds(labels: Labels, judgments: pd.DataFrame, absent: Undefined | None, lost: int) -> Estimate:
    scored = judgments[judgments["verdict"] != "unscored"]
    p = scored["p_first"].to_numpy(dtype=np.float64)
    clipped = int(((p < _CLIP) | (p > 1 - _CLIP)).sum())
    p = np.clip(p, _CLIP, 1 - _CLIP)
    frame = pd.DataFrame({
        "pair": pair_codes(scored), "item": item_codes(scored), "order": scored["order"].to_numpy(),
        "logit": np.log(p / (1 - p)),
    })  # fmt: skip
    means = frame.groupby(["pair", "order"])["logit"].mean().unstack()
    means = means.dropna() if {"ab", "ba"} <= set(means.columns) else means.iloc[:0]
    items = frame.groupby("pair")["item"].first().reindex(means.index).to_numpy()
    result = absent or cluster_mean(((means["ab"] + means["ba"]) / 2.0).to_numpy(), items)
    note = f"{clipped} probabilities clipped at {_CLIP:g}" if clipped else ""
    counts = Counts(len(means), len(np.unique(items)), lost)
    return row(labels, "position", "position_log_odds", result, counts, unit=LOG_ODDS, note=note)


def _conflicts(labels: Labels, matched: pd.DataFrame, absent: Undefined | None, lost: int) -> list[Estimate]:
    conflict = (matched["ff"] | matched["ss"]).to_numpy(dtype=np.float64)
    ties = int(((matched["verdict_ab"] == "tie") | (matched["verdict_ba"] == "tie")).sum())
    result = absent or clustered_proportion(conflict, matched["item"].to_numpy())
    if isinstance(result, Interval):
        agreement: Interval | Undefined = Interval(
            1 - result.estimate, result.std_error, 1 - result.high, 1 - result.low, result.level, None, result.df,
            result.method,
        )  # fmt: skip
    else:
        agreement = result
    counts = Counts(len(matched), matched["item"].nunique(), lost)
    note = "noise and bias together" + (
        f"; {ties} pairs with a tie in one order or both are no conflict" if ties else ""
    )
    return [
        row(labels, "position", "conflict_rate", result, counts, unit=PROBABILITY, null=None, note=note),
        row(labels, "position", "order_agreement", agreement, counts, unit=PROBABILITY, null=None),
    ]


def _excess_conflict(
    labels: Labels, judgments: pd.DataFrame, table: pd.DataFrame, absent: Undefined | None, lost: int
) -> Estimate:
    """Unbiased for E(p₁ − p₂)², p_o = P(a picked in order o): squared difference of rates minus what repeats' noise adds."""
    term = "excess_conflict"
    complete = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    gap = (complete["ab"] - (1.0 - complete["ba"])) ** 2
    if absent is not None:
        return row(labels, "position", term, absent, Counts(0, 0, lost), unit=PROBABILITY)
    if is_soft(judgments):
        values, items, note = gap.to_numpy(), complete["item"].to_numpy(), "from the verdicts' probabilities"
    else:
        picked = first_picked(judgments)
        spread = pd.DataFrame({
            "pair": pair_codes(judgments), "order": judgments["order"].to_numpy(), "picked": picked.to_numpy()
        }).groupby(["pair", "order"])["picked"].var(ddof=1).unstack()  # fmt: skip
        repeated = complete[(complete["n_ab"] >= 2) & (complete["n_ba"] >= 2)]
        if repeated.empty:
            reason = Undefined("needs 2 or more repeats in each order, or soft verdicts, to tell noise from position")
            return row(labels, "position", term, reason, Counts(0, 0, lost), unit=PROBABILITY)
        noise = sum(spread[order].reindex(repeated.index) / repeated[f"n_{order}"] for order in ("ab", "ba"))
        values = (gap.reindex(repeated.index) - noise).to_numpy()
        items, note = repeated["item"].to_numpy(), ""
    counts = Counts(len(values), len(np.unique(items)), lost)
    return row(labels, "position", term, cluster_mean(values, items), counts, unit=PROBABILITY, note=note)


def _repeat_flips(judgments: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """(flip rates, item codes) of the presentations with two or more scored repeats: the share of repeat pairs that differ."""
    scored = judgments[judgments["verdict"] != "unscored"]
    frame = pd.DataFrame({
        "pair": pair_codes(scored), "item": item_codes(scored), "order": scored["order"].to_numpy(),
        "verdict": scored["verdict"].to_numpy(),
    })  # fmt: skip
    frame = frame[frame.duplicated(["pair", "order"], keep=False)]
    if frame.empty:
        return np.empty(0), np.empty(0, dtype=np.intp)
    counts = frame.groupby(["item", "pair", "order", "verdict"]).size().unstack(fill_value=0)
    total = counts.sum(axis=1)
    same = (counts * (counts - 1)).sum(axis=1) / (total * (total - 1))
    return 1.0 - same.to_numpy(dtype=np.float64), counts.index.get_level_values("item").to_numpy(dtype=np.intp)


def _within_order_flips(judgments: pd.DataFrame) -> float:
    flips, _ = _repeat_flips(judgments)
    return float(flips.sum())


def _stability(labels: Labels, judgments: pd.DataFrame, lost: int) -> Estimate:
    flips, items = _repeat_flips(judgments)
    result: Interval | Undefined = Undefined("needs 2 or more repeats of a presentation")
    if len(flips):
        result = clustered_proportion(1.0 - flips, items)
    counts = Counts(len(flips), len(np.unique(items)), lost)
    return row(labels, "position", "repetition_stability", result, counts, unit=PROBABILITY, null=None)


def _identical(labels: Labels, judgments: pd.DataFrame, margin: float) -> Estimate:
    picked = first_picked(judgments).to_numpy()
    keep = ~np.isnan(picked)
    items = item_codes(judgments)[keep]
    result: Interval | Undefined = Undefined("no pair of identical texts was judged")
    if keep.any():
        result = bounded_mean(picked[keep] - 0.5, items, -0.5, 0.5)
    elif len(judgments):
        result = Undefined("no judgment of identical texts has a verdict")
    counts = Counts(int(keep.sum()), len(np.unique(items)), unscored(judgments))
    return row(labels, "position", "identical_pair_excess", result, counts, unit=PROBABILITY, margin=margin)
