"""Position bias of a judge from pairs judged in both orders. Positive = prefers the first slot.

Estimators of docs/method.md, "Position" and "Several matchups an item": the primary is model-free, the mean over
complete pairs of how often the first slot was picked beyond half, with standard errors clustered by item. ``judgments``
throughout: the columns of docs/contract.md, "Tables", one judge and one panel (any repeats); those of identical texts
serve the identical-pair probe alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

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
from judgeloop.stats.presentations import JudgmentArrays, Pairs, coded, not_identical, only_identical, paired

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
    labels = RowLabels(judge, arm, generation, panel, category)
    compared = coded(not_identical(judgments))
    table, matched = paired(compared), _matched(compared)
    absent = _absent(table)
    return [
        *_first_slot(labels, compared, table, matched, absent, margin),
        _log_odds(labels, compared, matched, absent, margin),
        *_conflicts(labels, matched, absent, compared.lost),
        _excess_conflict(labels, compared, table, absent, margin),
        _stability(labels, compared),
        _identical(labels, coded(only_identical(judgments)), margin),
    ]


def position_margin(term: str, margin: float) -> float:
    """The equivalence margin of a term, from that of rates: what a judge whose slot excess is ``margin`` everywhere shows.

    Log-odds 4·margin, the logit's slope at ½; for ``excess_conflict``, E(p₁ − p₂)², (2·margin)².
    """
    if term == "position_log_odds":
        return LOG_ODDS_PER_RATE * margin
    return (2.0 * margin) ** 2 if term == "excess_conflict" else margin


def first_slot_excess(judgments: pd.DataFrame) -> Interval | Undefined:
    """P(first slot picked) − ½ over complete pairs, clustered by item: the primary of that term in ``position_estimates``."""
    return _excess(paired(coded(not_identical(judgments))))


def _excess(table: Pairs) -> Interval | Undefined:
    some = table.complete
    values = (table.ab[some] + table.ba[some]) / 2.0 - 0.5
    return _absent(table) or bounded_mean(values, table.item[some], -0.5, 0.5)


def _absent(table: Pairs) -> Undefined | None:
    """Why no pair is complete, or None where some are."""
    if table.complete.any():
        return None
    return _SINGLE_ORDER if len(table.item) and not table.asked.any() else _NO_PAIRS


def _first_slot(
    labels: RowLabels,
    judgments: JudgmentArrays,
    table: Pairs,
    matched: _MatchedPresentations,
    absent: Undefined | None,
    margin: float,
) -> list[Estimate]:
    term, lost = "first_slot_excess", judgments.lost
    items = table.item[table.complete]
    result = _excess(table)
    n_ff, n_ss = matched.counts
    note = ""
    if isinstance(result, Interval) and len(items) == _distinct(items) and not judgments.soft:
        note = f"McNemar mid-p {mcnemar_mid_p(n_ff, n_ss):.4g} ({n_ff} both first, {n_ss} both second)"
    counts = SampleCounts(len(items), _distinct(items), lost)
    rows = [row(labels, "position", term, result, counts, unit=PROBABILITY, margin=margin, note=note)]
    asked = table.asked
    of_asked = table.item[asked]
    for variant, value in (("worst_case_low", 0.0), ("worst_case_high", 1.0)):
        filled = [
            (of_order[asked] + value * (shown[asked] - known[asked])) / shown[asked]
            for of_order, shown, known in (
                (table.sum_ab, table.asked_ab, table.n_ab), (table.sum_ba, table.asked_ba, table.n_ba),
            )
        ]  # fmt: skip
        bound: Interval | Undefined = _SINGLE_ORDER if absent is _SINGLE_ORDER else _NO_PAIRS
        if asked.any():
            bound = bounded_mean((filled[0] + filled[1]) / 2.0 - 0.5, of_asked, -0.5, 0.5)
        rows.append(row(
            labels, "position", term, bound, SampleCounts(len(of_asked), _distinct(of_asked), lost), unit=PROBABILITY,
            variant=variant, null=None,
            note=f"every unscored judgment counted as {'first' if value else 'second'} slot picked",
        ))  # fmt: skip
    rows += _calls(labels, judgments, absent)
    return rows


def _calls(labels: RowLabels, judgments: JudgmentArrays, absent: Undefined | None) -> list[Estimate]:
    """First-slot rates over calls: what a single-order log can bear, and without ties where there are any."""
    picked, items, ties = judgments.picked, judgments.items, judgments.ties
    keep = ~np.isnan(picked)
    rows = []
    caution = "over calls; position only if the order was randomised, and then with all the content noise in it"
    wanted = [("single_order", keep, caution)] if absent is _SINGLE_ORDER else []
    if ties.any():
        note = f"{ties.sum()} of {keep.sum()} calls are ties and are left out; over calls, both orders pooled"
        wanted.append(("ties_dropped", keep & ~ties, note if absent is not _SINGLE_ORDER else f"{note}; {caution}"))
    for variant, some, note in wanted:
        result = bounded_mean(picked[some] - 0.5, items[some], -0.5, 0.5)
        counts = SampleCounts(int(some.sum()), _distinct(items[some]), judgments.lost)
        rows.append(
            row(labels, "position", "first_slot_excess", result, counts, unit=PROBABILITY, variant=variant, note=note)
        )
    return rows


@dataclass(frozen=True, slots=True)
class _MatchedPresentations:
    """Presentations matched by pair and repeat, both scored, (m,): ``ff`` where both orders picked the first slot, ``ss``
    where both picked the second, ``tied`` where either is a tie."""

    pair: NDArray[np.intp]
    item: NDArray[np.intp]
    ff: NDArray[np.bool_]
    ss: NDArray[np.bool_]
    tied: NDArray[np.bool_]

    @property
    def counts(self) -> tuple[int, int]:
        """How many are both first, and both second."""
        return int(self.ff.sum()), int(self.ss.sum())

    def complete(self, lost: int) -> SampleCounts:
        """Complete pairs, whatever their repeats, and their items."""
        return SampleCounts(_distinct(self.pair), _distinct(self.item), lost)


def _matched(judgments: JudgmentArrays) -> _MatchedPresentations:
    key = judgments.pairs * (int(judgments.repeats.max(initial=0)) + 1) + judgments.repeats
    found = []
    for shown in (judgments.forward, judgments.backward):
        places = np.flatnonzero(shown & judgments.scored)
        keys, first = np.unique(key[places], return_index=True)
        found.append((keys, places[first]))
    (keys, ab), (others, ba) = found
    _, left, right = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    ab, ba = ab[left], ba[right]
    first, second, ties = judgments.first, judgments.second, judgments.ties
    both = (first[ab] & first[ba], second[ab] & second[ba], ties[ab] | ties[ba])
    return _MatchedPresentations(judgments.pairs[ab], judgments.items[ab], *both)


def _log_odds(
    labels: RowLabels,
    judgments: JudgmentArrays,
    matched: _MatchedPresentations,
    absent: Undefined | None,
    margin: float,
) -> Estimate:
    term, allowed = "position_log_odds", position_margin("position_log_odds", margin)
    if judgments.soft:
        result, note, counts = _soft_log_odds(judgments, absent)
        return row(labels, "position", term, result, counts, unit=LOG_ODDS, margin=allowed, note=note)
    n_ff, n_ss = matched.counts
    result = absent or _haldane(matched, noisy=float(_repeat_flips(judgments)[0].sum()) > 0)
    note, counts = f"{n_ff} both first, {n_ss} both second", matched.complete(judgments.lost)
    return row(labels, "position", term, result, counts, unit=LOG_ODDS, margin=allowed, note=note)


def _haldane(matched: _MatchedPresentations, *, noisy: bool) -> Interval | Undefined:
    """½ log(n_FF/n_SS), counts + ½: the conditional likelihood's closed form, which eliminates pair effects."""
    n_ff, n_ss = matched.counts
    if n_ff + n_ss == 0:
        return Undefined("no pair's verdict changed with the order")
    if min(n_ff, n_ss) == 0 and not noisy:
        which = "both second" if n_ss == 0 else "both first"
        return Undefined(
            f"no pair was {which}, as at temperature 0, where position has no log-odds; see first_slot_excess"
        )
    ff, ss = n_ff + 0.5, n_ss + 0.5
    estimate = 0.5 * math.log(ff / ss)
    items = matched.item
    if len(items) == _distinct(items):
        se = 0.5 * math.sqrt(1.0 / ff + 1.0 / ss)
        interval = t_interval(estimate, se, None, method="conditional likelihood, Haldane")
        return Interval(
            estimate, se, interval.low, interval.high, interval.level, mcnemar_mid_p(n_ff, n_ss), None, interval.method
        )
    firsts, seconds = (np.bincount(pd.factorize(items)[0], weights=kind) for kind in (matched.ff, matched.ss))
    groups = len(firsts)
    # Degrees of freedom as of the mean that the log-odds are a function of.
    balance = cluster_mean(matched.ff.astype(np.float64) - matched.ss, items)
    if isinstance(balance, Undefined):
        return balance
    df = groups - 1.0 if balance.df is None else balance.df
    if df < FEW_CLUSTERS - 1:
        left_out = 0.5 * np.log((ff - firsts) / (ss - seconds))
        se = math.sqrt((groups - 1.0) / groups * float(np.sum((left_out - left_out.mean()) ** 2)))
        return t_interval(estimate, se, df, method="conditional likelihood, Haldane, jackknife t by item")
    sums = 0.5 * (firsts / ff - seconds / ss)
    se = math.sqrt(groups / (groups - 1.0) * float(np.sum((sums - sums.mean()) ** 2)))
    return t_interval(estimate, se, df, method="conditional likelihood, Haldane, cluster t by item")


def _soft_log_odds(
    judgments: JudgmentArrays, absent: Undefined | None
) -> tuple[Interval | Undefined, str, SampleCounts]:
    some = judgments.scored
    p, pair = judgments.picked[some], judgments.pairs[some]
    clipped = int(((p < _CLIP) | (p > 1 - _CLIP)).sum())
    p = np.clip(p, _CLIP, 1 - _CLIP)
    logit = np.log(p / (1 - p))
    count = int(pair.max(initial=-1)) + 1
    item = np.zeros(count, dtype=np.intp)
    item[pair] = judgments.items[some]
    sums, sizes = [], []
    for shown in (judgments.forward[some], judgments.backward[some]):
        sums.append(np.bincount(pair[shown], weights=logit[shown], minlength=count))
        sizes.append(np.bincount(pair[shown], minlength=count))
    both = (sizes[0] > 0) & (sizes[1] > 0)
    means = (sums[0][both] / sizes[0][both] + sums[1][both] / sizes[1][both]) / 2.0
    reach = math.log((1.0 - _CLIP) / _CLIP)
    result = absent or bounded_mean(means, item[both], -reach, reach)
    note = f"{clipped} probabilities clipped at {_CLIP:g}" if clipped else ""
    return result, note, SampleCounts(len(means), _distinct(item[both]), judgments.lost)


def _conflicts(
    labels: RowLabels, matched: _MatchedPresentations, absent: Undefined | None, lost: int
) -> list[Estimate]:
    conflict = (matched.ff | matched.ss).astype(np.float64)
    ties = int(matched.tied.sum())
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
        f"; {ties} pairs with a tie in one order or both are no conflict" if ties else ""
    )
    return [
        row(labels, "position", "conflict_rate", result, counts, unit=PROBABILITY, null=None, note=note),
        row(labels, "position", "order_agreement", agreement, counts, unit=PROBABILITY, null=None),
    ]


def _excess_conflict(
    labels: RowLabels, judgments: JudgmentArrays, table: Pairs, absent: Undefined | None, margin: float
) -> Estimate:
    """Unbiased for E(p₁ − p₂)², p_o = P(a picked in order o): squared difference of rates minus what repeats' noise adds."""
    term, lost = "excess_conflict", judgments.lost
    if absent is not None:
        return row(labels, "position", term, absent, SampleCounts(0, 0, lost), unit=PROBABILITY)
    if judgments.soft:
        some, note = table.complete, "from the verdicts' probabilities"
    else:
        some, note = (table.n_ab >= 2) & (table.n_ba >= 2), ""
        if not some.any():
            reason = Undefined("needs 2 or more repeats in each order, or soft verdicts, to tell noise from position")
            return row(labels, "position", term, reason, SampleCounts(0, 0, lost), unit=PROBABILITY)
    values = (table.ab[some] - (1.0 - table.ba[some])) ** 2
    if not judgments.soft:
        values = values - _noise(judgments, table, some)
    items = table.item[some]
    counts = SampleCounts(len(values), _distinct(items), lost)
    # Two repeats an order take off ¼ each at most.
    result, allowed = bounded_mean(values, items, -0.5, 1.0), position_margin(term, margin)
    return row(labels, "position", term, result, counts, unit=PROBABILITY, margin=allowed, note=note)


def _noise(judgments: JudgmentArrays, table: Pairs, some: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(pairs of ``some``,) variance of both orders' mean picks, from the spread of the repeats."""
    known, found = ~np.isnan(judgments.picked), np.zeros(int(some.sum()))
    for shown, mean, n in ((judgments.forward, table.ab, table.n_ab), (judgments.backward, table.ba, table.n_ba)):
        rows = shown & known
        pair = judgments.pairs[rows]
        squares = np.bincount(pair, weights=(judgments.picked[rows] - mean[pair]) ** 2, minlength=len(mean))
        found = found + squares[some] / (n[some] - 1.0) / n[some]
    return found


def _repeat_flips(judgments: JudgmentArrays) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """(flip rates, item codes) of the presentations with two or more scored repeats, and their pairs' number.

    A flip rate is the share of repeat pairs that differ.
    """
    some = judgments.scored
    if not some.any():
        return np.empty(0), np.empty(0, dtype=np.intp), 0
    shown = judgments.pairs[some] * (int(judgments.orders.max()) + 1) + judgments.orders[some]
    _, first, presentation, total = np.unique(shown, return_index=True, return_inverse=True, return_counts=True)
    repeated = total >= 2
    if not repeated.any():
        return np.empty(0), np.empty(0, dtype=np.intp), 0
    words = int(judgments.verdicts.max()) + 1
    counts = np.bincount(presentation * words + judgments.verdicts[some], minlength=len(total) * words)
    counts, total = counts.reshape(len(total), words)[repeated], total[repeated]
    same = (counts * (counts - 1)).sum(axis=1) / (total * (total - 1))
    shown_at = first[repeated]
    return 1.0 - same, judgments.items[some][shown_at], _distinct(judgments.pairs[some][shown_at])


def _stability(labels: RowLabels, judgments: JudgmentArrays) -> Estimate:
    flips, items, n_pairs = _repeat_flips(judgments)
    result: Interval | Undefined = Undefined("needs 2 or more repeats of a presentation")
    if len(flips):
        result = clustered_proportion(1.0 - flips, items)
    counts = SampleCounts(n_pairs, _distinct(items), judgments.lost)
    return row(labels, "position", "repetition_stability", result, counts, unit=PROBABILITY, null=None)


def _identical(labels: RowLabels, judgments: JudgmentArrays, margin: float) -> Estimate:
    """Every pair with a verdict tells of position, in one order too: its mean over orders, less ½."""
    table = paired(judgments)
    orders = np.stack([table.ab, table.ba])
    known = ~np.isnan(orders)
    some = known.any(axis=0)
    values = np.where(known, orders, 0.0).sum(axis=0)[some] / known.sum(axis=0)[some] - 0.5
    items = table.item[some]
    result: Interval | Undefined = Undefined("no pair of identical texts was judged")
    if len(values):
        result = bounded_mean(values, items, -0.5, 0.5)
    elif len(judgments):
        result = Undefined("no judgment of identical texts has a verdict")
    counts = SampleCounts(len(values), _distinct(items), judgments.lost)
    return row(labels, "position", "identical_pair_excess", result, counts, unit=PROBABILITY, margin=margin)


def _distinct(codes: NDArray[np.intp]) -> int:
    """How many different codes."""
    return len(np.unique(codes))
