"""Position bias of a judge from pairs judged in both orders. Positive = prefers the first slot.

Estimators of docs/method.md, "Position" and "Several matchups an item": the primary is model-free, the mean over
complete pairs of how much more often than half of the time the first slot was picked, with standard errors clustered by
item. ``judgments`` throughout: the columns of docs/contract.md, "Tables", one judge and one panel (any repeats); those of
identical texts serve the identical-pair probe alone. ``absent`` throughout: why no pair is complete, None where some pair is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.kernels import (
    cluster_covariance,
    cluster_inference,
    distinct,
    jackknife_error,
    logistic,
    sigmoid,
)
from judgeloop.records import UNKNOWN_ORDER
from judgeloop.stats.estimate import (
    LOG_ODDS,
    LOG_ODDS_PER_RATE,
    PROBABILITY,
    RATE_MARGIN,
    Estimate,
    RowLabels,
    SampleCounts,
    row,
)
from judgeloop.stats.inference import (
    FEW_CLUSTERS,
    Interval,
    Undefined,
    bounded_mean,
    cluster_mean,
    clustered_proportion,
    mcnemar_mid_p,
    t_interval,
)
from judgeloop.stats.judge.covariates import gold_margin
from judgeloop.stats.presentations import (
    Booleans,
    Floats,
    Integers,
    JudgmentArrays,
    Pairs,
    a_first,
    are_identical,
    coded,
    item_codes,
    not_identical,
    paired,
    picked_a,
    text_places,
    unscored,
)

_SINGLE_ORDER = Undefined("each pair was judged in one order only: position cannot be told from content")
_ORDER_UNKNOWN = Undefined("the order is not known: which text stood in which slot cannot be told")
_NO_PAIRS = Undefined("no pair has a verdict in both orders")
_CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before logarithms."""


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

    Always the same terms: what these judgments do not show (a single order, no repeats, no identical pairs) is
    ``undefined`` with the reason. Judgments whose order is unknown are left out. ``margin`` is the equivalence margin of rates.
    """
    labels = RowLabels(judge, arm, generation, panel, category)
    return next(_estimates(judgments, [np.arange(len(judgments))], labels, margin))


def position_estimates_by(judgments: pd.DataFrame, groups: Sequence[Integers]) -> Iterator[list[Estimate]]:
    """``position_estimates`` of each group of rows of the table, by place, which is read once for all of them."""
    return _estimates(judgments, groups, RowLabels(), RATE_MARGIN)


def _estimates(
    judgments: pd.DataFrame, groups: Iterable[Integers], labels: RowLabels, margin: float
) -> Iterator[list[Estimate]]:
    every, identical = coded(judgments), are_identical(judgments)
    known = (judgments["order"] != UNKNOWN_ORDER).to_numpy(dtype=bool)
    by_lot = judgments["order_drawn"].isin([True]).to_numpy() if "order_drawn" in judgments else None
    for rows in groups:
        in_order = rows[known[rows]]
        different = in_order[~identical[in_order]]
        compared = every.part(different)
        table, matched = paired(compared), match(compared)
        absent = _ORDER_UNKNOWN if len(rows) and not len(in_order) else _why_no_complete_pair(table)
        drawn = by_lot is not None and bool(by_lot[different].all())
        yield [
            *_first_slot_rows(labels, compared, table, matched, absent, margin, drawn=drawn),
            _log_odds_row(labels, compared, matched, absent, margin),
            *_conflict_rows(labels, matched, absent, compared.lost),
            _excess_conflict_row(labels, compared, table, absent, margin),
            _stability_row(labels, compared),
            _identical_row(labels, every.part(in_order[identical[in_order]]), margin),
        ]


def position_margin(term: str, margin: float) -> float:
    """The equivalence margin of ``term``, in its unit, that corresponds to ``margin`` of rates.

    It is the value that a judge shows whose first-slot excess is ``margin`` on every pair. Log-odds: 4·margin, the
    logit's slope at ½; ``excess_conflict``, E(p₁ − p₂)²: (2·margin)².
    """
    if term == "position_log_odds":
        return LOG_ODDS_PER_RATE * margin
    return (2.0 * margin) ** 2 if term == "excess_conflict" else margin


def first_slot_excess(judgments: pd.DataFrame) -> Interval | Undefined:
    """P(first slot picked) − ½ over complete pairs, clustered by item: the primary of ``first_slot_excess``."""
    return _mean_excess(paired(coded(not_identical(judgments))))


def _balanced_excess(judgments: JudgmentArrays) -> Interval | Undefined:
    """P(first slot picked) − ½ where each pair was shown in one order, drawn by lot: the mean over calls of either order, both
    orders weighing the same, so that what the texts of one side are worth cancels. Clustered by item."""
    scored = ~np.isnan(judgments.picked)
    total = np.zeros(len(judgments))
    estimate, fewest = -0.5, len(judgments)
    for shown in (judgments.forward & scored, judgments.backward & scored):
        n = int(shown.sum())
        fewest = min(fewest, n)
        if n < 2:
            return Undefined("too few calls in one of the two orders")
        mean = float(judgments.picked[shown].mean())
        total[shown] = (judgments.picked[shown] - mean) / (2.0 * (n - 1.0))
        estimate += mean / 2.0
    sums = np.bincount(judgments.items[scored], weights=total[scored])
    groups = _count_distinct(judgments.items[scored])
    se = math.sqrt(groups / (groups - 1.0) * float(np.sum(sums**2)))
    result = t_interval(
        estimate, se, min(groups, 2 * fewest) - 2.0, method="mean over both orders, drawn by lot; cluster t by item"
    )
    return replace(result, low=max(-0.5, result.low), high=min(0.5, result.high))


def _mean_excess(table: Pairs) -> Interval | Undefined:
    """P(first slot picked) − ½ over complete pairs, clustered by item."""
    complete = table.complete
    values = (table.ab[complete] + table.ba[complete]) / 2.0 - 0.5
    return _why_no_complete_pair(table) or bounded_mean(values, table.item[complete], -0.5, 0.5)


def _why_no_complete_pair(table: Pairs) -> Undefined | None:
    """Why no pair is complete, or None where some are."""
    if table.complete.any():
        return None
    return _SINGLE_ORDER if len(table.item) and not table.asked.any() else _NO_PAIRS


def _first_slot_rows(
    labels: RowLabels,
    judgments: JudgmentArrays,
    table: Pairs,
    matched: MatchedPresentations,
    absent: Undefined | None,
    margin: float,
    *,
    drawn: bool = False,
) -> list[Estimate]:
    """``first_slot_excess``: the primary, bounds with all unscored judgments counted as one slot, and rates over calls."""
    term, lost = "first_slot_excess", judgments.lost
    items = table.item[table.complete]
    result = absent or _mean_excess(table)
    n_ff, n_ss = matched.counts
    note = ""
    if isinstance(result, Interval) and len(items) == _count_distinct(items) and not judgments.soft:
        note = f"McNemar mid-p {mcnemar_mid_p(n_ff, n_ss):.4g} ({n_ff} both first, {n_ss} both second)"
    counts = SampleCounts(len(items), _count_distinct(items), lost)
    by_lot = drawn and absent is _SINGLE_ORDER
    if by_lot:
        scored = ~np.isnan(judgments.picked)
        result, note = _balanced_excess(judgments), "each pair in one order, which was drawn by lot"
        counts = SampleCounts(int(scored.sum()), _count_distinct(judgments.items[scored]), lost)
    rows = [row(labels, "position", term, result, counts, unit=PROBABILITY, margin=margin, note=note)]
    asked = table.asked
    asked_items = table.item[asked]
    for variant, value in (("worst_case_low", 0.0), ("worst_case_high", 1.0)):
        bound: Interval | Undefined = absent or _NO_PAIRS
        if by_lot:
            picked = np.where(judgments.scored, judgments.picked, value)
            bound = _balanced_excess(replace(judgments, picked=picked))
        elif asked.any():
            bound = _mean_excess(table.filled(value, value))
        rows.append(row(
            labels, "position", term, bound, SampleCounts(len(asked_items), _count_distinct(asked_items), lost),
            unit=PROBABILITY, variant=variant, null=None,
            note=f"every unscored judgment counted as {'first' if value else 'second'} slot picked",
        ))  # fmt: skip
    rows += _rows_over_calls(labels, judgments, absent, by_lot=by_lot)
    return rows


def _rows_over_calls(
    labels: RowLabels, judgments: JudgmentArrays, absent: Undefined | None, *, by_lot: bool
) -> list[Estimate]:
    """First-slot rates over calls: for a log of single orders, and without ties where there are any."""
    picked, items, ties = judgments.picked, judgments.items, judgments.ties
    scored = ~np.isnan(picked)
    rows = []
    caution = "over calls; it is position only if the order was randomised, and then with all the content noise in it"
    variants = [("single_order", scored, caution)] if absent is _SINGLE_ORDER and not by_lot else []
    if ties.any():
        note = f"{ties.sum()} of {scored.sum()} calls are ties and are left out; over calls, both orders pooled"
        variants.append(("ties_dropped", scored & ~ties, note if absent is not _SINGLE_ORDER else f"{note}; {caution}"))
    for variant, counted, note in variants:
        result = bounded_mean(picked[counted] - 0.5, items[counted], -0.5, 0.5)
        counts = SampleCounts(int(counted.sum()), _count_distinct(items[counted]), judgments.lost)
        rows.append(
            row(labels, "position", "first_slot_excess", result, counts, unit=PROBABILITY, variant=variant, note=note)
        )
    return rows


@dataclass(frozen=True, slots=True)
class MatchedPresentations:
    """Presentations matched by pair and repeat with a verdict in both orders, m rows.

    ``pair`` and ``item`` codes; ``net``: picks of the first slot less picks of the second, −2 to 2; ``ties``: how many of the two
    are ties.
    """

    pair: Integers
    item: Integers
    net: Integers
    ties: Integers

    @property
    def ff(self) -> Booleans:
        """(m,) both orders picked the first slot."""
        return np.asarray(self.net == 2)

    @property
    def ss(self) -> Booleans:
        """(m,) both orders picked the second slot."""
        return np.asarray(self.net == -2)

    @property
    def decided(self) -> Floats:
        """(m,) how far the average of both orders is from even: 1 where both pick one text, ½ for a pick and a tie, else 0."""
        agreed = (self.net == 0) & (self.ties == 0)
        return np.asarray(agreed + 0.5 * (np.abs(self.net) == 1), dtype=np.float64)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of rows with both first, and with both second."""
        return int(self.ff.sum()), int(self.ss.sum())

    def complete(self, lost: int) -> SampleCounts:
        """Numbers of complete pairs, whatever their repeats, of their items, and of ``lost`` judgments."""
        return SampleCounts(_count_distinct(self.pair), _count_distinct(self.item), lost)


def match(judgments: JudgmentArrays) -> MatchedPresentations:
    """The two orders of each pair and repeat, matched."""
    key = judgments.pairs * (int(judgments.repeats.max(initial=0)) + 1) + judgments.repeats
    by_order = []
    for shown in (judgments.forward, judgments.backward):
        places = np.flatnonzero(shown & judgments.scored)
        keys, first = np.unique(key[places], return_index=True)
        by_order.append((keys, places[first]))
    (forward_keys, ab), (backward_keys, ba) = by_order
    _, left, right = np.intersect1d(forward_keys, backward_keys, assume_unique=True, return_indices=True)
    ab, ba = ab[left], ba[right]
    slots = judgments.first.astype(np.intp) - judgments.second
    ties = judgments.ties.astype(np.intp)
    return MatchedPresentations(judgments.pairs[ab], judgments.items[ab], slots[ab] + slots[ba], ties[ab] + ties[ba])


def _log_odds_row(
    labels: RowLabels,
    judgments: JudgmentArrays,
    matched: MatchedPresentations,
    absent: Undefined | None,
    margin: float,
) -> Estimate:
    """``position_log_odds``: from probabilities where verdicts have them, else the conditional likelihood."""
    term, allowed = "position_log_odds", position_margin("position_log_odds", margin)
    if judgments.soft:
        result, note, counts = _mean_log_odds(judgments, absent)
        return row(labels, "position", term, result, counts, unit=LOG_ODDS, margin=allowed, note=note)
    n_ff, n_ss = matched.counts
    result = absent or _haldane_log_odds(matched, noisy=float(_repeat_flips(judgments)[0].sum()) > 0)
    note, counts = f"{n_ff} both first, {n_ss} both second", matched.complete(judgments.lost)
    return row(labels, "position", term, result, counts, unit=LOG_ODDS, margin=allowed, note=note)


def _haldane_log_odds(matched: MatchedPresentations, *, noisy: bool) -> Interval | Undefined:
    """½ log(n_FF/n_SS), counts + ½: the conditional likelihood's closed form, in which pair effects cancel.

    ``noisy``: repeats of a presentation differ, so that an empty cell is chance and not a verdict fixed by the order.
    """
    n_ff, n_ss = matched.counts
    if n_ff + n_ss == 0:
        return Undefined("no pair's verdict changed with the order")
    if min(n_ff, n_ss) == 0 and not noisy:
        empty_cell = "both second" if n_ss == 0 else "both first"
        return Undefined(
            f"no pair was {empty_cell}, as at temperature 0, where position has no log-odds; see first_slot_excess"
        )
    ff, ss = n_ff + 0.5, n_ss + 0.5
    estimate = 0.5 * math.log(ff / ss)
    items = matched.item
    if len(items) == _count_distinct(items):
        se = 0.5 * math.sqrt(1.0 / ff + 1.0 / ss)
        interval = t_interval(estimate, se, None, method="conditional likelihood, Haldane")
        return Interval(
            estimate, se, interval.low, interval.high, interval.level, mcnemar_mid_p(n_ff, n_ss), None, interval.method
        )
    firsts, seconds = (np.bincount(pd.factorize(items)[0], weights=kind) for kind in (matched.ff, matched.ss))
    groups = len(firsts)
    # The degrees of freedom are those of the mean of which the log-odds are a function.
    balance = cluster_mean(matched.ff.astype(np.float64) - matched.ss, items)
    if isinstance(balance, Undefined):
        return balance
    df = groups - 1.0 if balance.df is None else balance.df
    if df < FEW_CLUSTERS - 1:
        left_out = 0.5 * np.log((ff - firsts) / (ss - seconds))
        return t_interval(
            estimate, jackknife_error(left_out), df, method="conditional likelihood, Haldane, jackknife t by item"
        )
    sums = 0.5 * (firsts / ff - seconds / ss)
    se = math.sqrt(groups / (groups - 1.0) * float(np.sum((sums - sums.mean()) ** 2)))
    return t_interval(estimate, se, df, method="conditional likelihood, Haldane, cluster t by item")


def _mean_log_odds(
    judgments: JudgmentArrays, absent: Undefined | None
) -> tuple[Interval | Undefined, str, SampleCounts]:
    """The mean logit of the first slot over complete pairs, in log-odds; a note on clipped probabilities; and counts."""
    scored = judgments.scored
    p, pair = judgments.picked[scored], judgments.pairs[scored]
    clipped = int(((p < _CLIP) | (p > 1 - _CLIP)).sum())
    p = np.clip(p, _CLIP, 1 - _CLIP)
    logit = np.log(p / (1 - p))
    count = int(pair.max(initial=-1)) + 1
    item = np.zeros(count, dtype=np.intp)
    item[pair] = judgments.items[scored]
    sums, sizes = [], []
    for shown in (judgments.forward[scored], judgments.backward[scored]):
        sums.append(np.bincount(pair[shown], weights=logit[shown], minlength=count))
        sizes.append(np.bincount(pair[shown], minlength=count))
    complete = (sizes[0] > 0) & (sizes[1] > 0)
    means = (sums[0][complete] / sizes[0][complete] + sums[1][complete] / sizes[1][complete]) / 2.0
    reach = math.log((1.0 - _CLIP) / _CLIP)
    result = absent or bounded_mean(means, item[complete], -reach, reach)
    note = f"{clipped} probabilities clipped at {_CLIP:g}" if clipped else ""
    return result, note, SampleCounts(len(means), _count_distinct(item[complete]), judgments.lost)


def _conflict_rows(
    labels: RowLabels, matched: MatchedPresentations, absent: Undefined | None, lost: int
) -> list[Estimate]:
    """``conflict_rate`` and ``order_agreement``: the shares of pairs whose picks differ, or agree, between orders; and
    ``consistency_factor``."""
    conflict = (matched.ff | matched.ss).astype(np.float64)
    n_tied = int((matched.ties > 0).sum())
    result = absent or clustered_proportion(conflict, matched.item)
    if isinstance(result, Interval):
        agreement: Interval | Undefined = Interval(
            1 - result.estimate, result.std_error, 1 - result.high, 1 - result.low, result.level, None, result.df,
            result.method,
        )  # fmt: skip
    else:
        agreement = result
    counts = matched.complete(lost)
    note = "noise and bias together" + (
        f"; {n_tied} pairs with a tie in one order or both are no conflict" if n_tied else ""
    )
    return [
        row(labels, "position", "conflict_rate", result, counts, unit=PROBABILITY, null=None, note=note),
        row(labels, "position", "order_agreement", agreement, counts, unit=PROBABILITY, null=None),
        _factor_row(labels, matched, absent, counts),
    ]


def _factor_row(
    labels: RowLabels, matched: MatchedPresentations, absent: Undefined | None, counts: SampleCounts
) -> Estimate:
    """``consistency_factor``: how much larger any effect is among the pairs that both orders decide alike than in the average of
    both orders over all pairs. The average of a pair that they decide differently is even, so that this is one over the mean
    distance from even."""
    result = absent or clustered_proportion(matched.decided, matched.item)
    if isinstance(result, Interval):
        if result.estimate <= 0:
            result = Undefined("no pair is decided alike in both orders")
        else:
            factor, high = 1.0 / result.estimate, 1.0 / result.low if result.low > 0 else math.inf
            result = replace(
                result, estimate=factor, std_error=result.std_error * factor**2, low=1.0 / result.high, high=high, p_value=None
            )  # fmt: skip
            if not math.isfinite(high):
                result = Undefined("too few pairs are decided alike in both orders")
    return row(labels, "position", "consistency_factor", result, counts, unit="ratio", null=None)


def _excess_conflict_row(
    labels: RowLabels, judgments: JudgmentArrays, table: Pairs, absent: Undefined | None, margin: float
) -> Estimate:
    """``excess_conflict``, unbiased for E(p₁ − p₂)², p_o = P(a picked in order o) (probability).

    The squared difference of the two orders' rates, minus what the repeats' noise adds.
    """
    term, lost = "excess_conflict", judgments.lost
    if absent is not None:
        return row(labels, "position", term, absent, SampleCounts(0, 0, lost), unit=PROBABILITY)
    if judgments.soft:
        usable, note = table.complete, "from the verdicts' probabilities"
    else:
        usable, note = (table.n_ab >= 2) & (table.n_ba >= 2), ""
        if not usable.any():
            reason = Undefined(
                "needs 2 or more repeats in each order, or soft verdicts, to separate noise from position"
            )
            return row(labels, "position", term, reason, SampleCounts(0, 0, lost), unit=PROBABILITY)
    values = (table.ab[usable] - (1.0 - table.ba[usable])) ** 2
    if not judgments.soft:
        values = values - _noise_variance(judgments, table, usable)
    items = table.item[usable]
    counts = SampleCounts(len(values), _count_distinct(items), lost)
    # The noise term is at most ¼ an order, with two repeats.
    result, allowed = bounded_mean(values, items, -0.5, 1.0), position_margin(term, margin)
    return row(labels, "position", term, result, counts, unit=PROBABILITY, margin=allowed, note=note)


def _noise_variance(judgments: JudgmentArrays, table: Pairs, usable: Booleans) -> Floats:
    """(pairs of ``usable``,) variance of both orders' mean picks, from the spread of the repeats."""
    scored, variance = ~np.isnan(judgments.picked), np.zeros(int(usable.sum()))
    for shown, mean, n in ((judgments.forward, table.ab, table.n_ab), (judgments.backward, table.ba, table.n_ba)):
        rows = shown & scored
        pair = judgments.pairs[rows]
        squares = np.bincount(pair, weights=(judgments.picked[rows] - mean[pair]) ** 2, minlength=len(mean))
        variance = variance + squares[usable] / (n[usable] - 1.0) / n[usable]
    return variance


def _repeat_flips(judgments: JudgmentArrays) -> tuple[Floats, Integers, int]:
    """Flip rates and item codes of the presentations with two or more scored repeats, and the number of their pairs.

    A flip rate is the share of pairs of repeats that differ.
    """
    scored = judgments.scored
    if not scored.any():
        return np.empty(0), np.empty(0, dtype=np.intp), 0
    presentation_codes = judgments.pairs[scored] * (int(judgments.orders.max()) + 1) + judgments.orders[scored]
    _, first, presentation, total = np.unique(
        presentation_codes, return_index=True, return_inverse=True, return_counts=True
    )
    repeated = total >= 2
    if not repeated.any():
        return np.empty(0), np.empty(0, dtype=np.intp), 0
    n_verdicts = int(judgments.verdicts.max()) + 1
    counts = np.bincount(presentation * n_verdicts + judgments.verdicts[scored], minlength=len(total) * n_verdicts)
    counts, total = counts.reshape(len(total), n_verdicts)[repeated], total[repeated]
    same = (counts * (counts - 1)).sum(axis=1) / (total * (total - 1))
    positions = first[repeated]
    return 1.0 - same, judgments.items[scored][positions], _count_distinct(judgments.pairs[scored][positions])


def _stability_row(labels: RowLabels, judgments: JudgmentArrays) -> Estimate:
    """``repetition_stability``: the share of pairs of repeats of a presentation that agree."""
    flips, items, n_pairs = _repeat_flips(judgments)
    result: Interval | Undefined = Undefined("needs 2 or more repeats of a presentation")
    if len(flips):
        result = clustered_proportion(1.0 - flips, items)
    counts = SampleCounts(n_pairs, _count_distinct(items), judgments.lost)
    return row(labels, "position", "repetition_stability", result, counts, unit=PROBABILITY, null=None)


def _identical_row(labels: RowLabels, judgments: JudgmentArrays, margin: float) -> Estimate:
    """``identical_pair_excess``: how often the first slot is picked, mean over orders, minus ½; one order is enough."""
    table = paired(judgments)
    orders = np.stack([table.ab, table.ba])
    has_verdict = ~np.isnan(orders)
    counted = has_verdict.any(axis=0)
    values = np.where(has_verdict, orders, 0.0).sum(axis=0)[counted] / has_verdict.sum(axis=0)[counted] - 0.5
    items = table.item[counted]
    result: Interval | Undefined = Undefined("no pair of identical texts was judged")
    if len(values):
        result = bounded_mean(values, items, -0.5, 0.5)
    elif len(judgments):
        result = Undefined("no judgment of identical texts has a verdict")
    counts = SampleCounts(len(values), _count_distinct(items), judgments.lost)
    return row(labels, "position", "identical_pair_excess", result, counts, unit=PROBABILITY, margin=margin)


def _count_distinct(codes: Integers) -> int:
    """The number of different codes."""
    return distinct(codes)


# Estimates under the names of other tools, from the same judgments: to compare with published numbers, never primary.

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
    arrays = coded(compared)
    rows = [*_shi_rows(labels, arrays), *_judgebench_rows(labels, compared, arrays)]
    if {"model_a", "model_b"} <= set(compared.columns):
        places = None if texts is None or texts.empty else text_places(compared, texts)
        rows += _alpaca_rows(labels, compared, _side_values(compared, texts, places, "characters"))
        rows += _arena_rows(labels, compared, texts, places)
    return rows


def _shi_rows(labels: RowLabels, arrays: JudgmentArrays) -> list[Estimate]:
    """``preference_fairness`` and ``position_consistency`` of Shi et al., of pairs with a verdict in both orders.

    p pairs lean to the first slot (picked in both orders, or in one where the other is a tie), r to the second, and the rest,
    two ties among them, are consistent. Their (r·r/(r + p) − p·p/(r + p))/n is (r − p)/n.
    """
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


def _judgebench_rows(labels: RowLabels, judgments: pd.DataFrame, arrays: JudgmentArrays) -> list[Estimate]:
    """``judgebench_accuracy``: the share of pairs that gold decides whose two orders together pick gold's text more often than
    the other, of all that were asked in both. A tie or no verdict counts for neither; no row without such pairs."""
    if "gold" not in judgments:
        return []
    margin, _ = gold_margin(judgments["gold"])
    decided = ~np.isnan(margin) & (margin != 0) & (arrays.forward | arrays.backward)
    if not decided.any():
        return []
    asked = arrays.part(decided)
    right = (
        (asked.first.astype(np.float64) - asked.second) * np.where(asked.forward, 1.0, -1.0) * np.sign(margin[decided])
    )
    # A unit is one repeat of a pair.
    codes = asked.pairs * (int(asked.repeats.max()) + 1) + asked.repeats
    _, first, unit = np.unique(codes, return_index=True, return_inverse=True)
    whole = (np.bincount(unit, asked.forward) > 0) & (np.bincount(unit, asked.backward) > 0)
    if not whole.any():
        return []
    items = asked.items[first][whole]
    result = clustered_proportion((np.bincount(unit, right)[whole] > 0).astype(np.float64), items)
    lost = int(np.bincount(unit, ~asked.scored)[whole].sum())
    counts = SampleCounts(distinct(asked.pairs[first][whole]), distinct(items), lost)
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
        influence, dfs = cluster_inference(x, won, fit, items)
    except ValueError as error:
        return Undefined(str(error))
    theta = t_interval(float(fit.coefficients[0]), float(np.linalg.norm(influence[:, 0])), float(dfs[0]))
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
