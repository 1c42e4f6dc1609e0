"""Biases of a judge that picks the best text of a list: for a slot, for length and for style (docs/method.md, "Lists").

Every set of k texts is shown in all k cyclic rotations, so that each text stands once in each slot. From the complete
sets come how often each slot is picked beyond 1/k, the permutation test of no position bias, and the slots' log-odds
given how often each text won. McFadden's conditional logit of the picked slot over all scored calls gives the slopes on
content: P(slot j) ∝ exp(γ_j + βᵀf(text in j) + κ·[it is gold's best]), in log-odds per doubling (length) or
generation-0 SD (style). Positive = prefers that slot, or more of that feature. Clustered by item.

``choices`` throughout: one row a call of one judge, ``item_id, set_id, rotation`` (0 … slots − 1: slot j shows text
(j + rotation) mod slots, slots counted from 0) and ``picked``, the slot from 0, <NA> where unscored; optional ``p_1 …
p_<slots>``, the slots' probabilities.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import cluster_informations, cluster_sums, dense_codes, distinct, satterthwaite_df
from judgeloop.stats.estimate import (
    LOG_ODDS,
    PROBABILITY,
    RATE_MARGIN,
    BareTest,
    Estimate,
    RowLabels,
    SampleCounts,
    estimates_frame,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, cluster_mean, clustered_proportion, t_interval
from judgeloop.stats.items import by_category, remarked
from judgeloop.stats.judge.covariates import GOLD_AS_EXACT, NO_GOLD, feature_bias, feature_unit
from judgeloop.stats.judge.pointwise import feature_spread
from judgeloop.stats.judge.slopes import FEWEST_ITEMS, JointTest, hotelling, withheld_where_not_linear
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import Floats, Integers, item_codes
from judgeloop.text.features import FEATURES

PERMUTATIONS = 2000
"""Permutations drawn where not all are counted."""
MOST_PERMUTED = 1_000
"""Sets above which the slots' totals are drawn from the permutations' normal limit."""
MOST_EXACT = 20_000
"""Up to so many ways to permute the rotations of all sets, every one of them is counted."""
NO_COMPLETE_SET = Undefined("no set has a verdict in all rotations")
CLIP = 1e-6
"""Probabilities are kept this far from 0 and 1 before logarithms."""
_NUMBERS_PER_BLOCK = 1 << 18
"""Numbers a block of permutations may hold: it bounds the memory."""
_FLAT_INFORMATION = 0.01
"""With less information in some direction the likelihood has no maximum there; one undecided set has about 0.2."""
_STEP = 1e-5
"""Step of the numerical second derivatives."""
_NEWTON_STEPS, _LARGEST_COEFFICIENT = 50, 30.0
"""Bounds of the conditional logit's search; coefficients (log-odds per SD) beyond the second mean separation."""
_NO_LOG_ODDS = Undefined(
    "a slot is always, or never, picked where it could be, so its log-odds are infinite; see slot_<k>_excess"
)


def choice_frame(choices: pd.DataFrame, slots: int, texts: pd.DataFrame, *, panel: str = "pairs") -> pd.DataFrame:
    """Every judge's estimates, over all items and by ``category``, with adjusted p-values.

    They are what ``audit --mode listwise`` reports. ``choices``: a row a call, ``item_id, set_id, category, judge,
    rotation, repeat, slot`` (from 1, <NA> where unscored), ``candidate_1 … candidate_<slots>`` by slot, ``gold`` (the
    best one's candidate_id or empty) and ``p_1 … p_<slots>`` (NaN where the judge gave no probabilities). ``texts``:
    ``item_id, candidate_id`` and features. Raises ValueError for a slot out of range.
    """
    rows: list[Estimate] = []
    spread = feature_spread(texts)
    frame = choices.assign(picked=choices["slot"].astype("Int64") - 1)
    for judge, judge_choices in frame.groupby("judge", sort=True):
        rows += _judge_estimates(judge_choices, slots, texts, spread, RowLabels(str(judge), panel=panel))
        for category, category_choices, remark in by_category(judge_choices):
            labels = RowLabels(str(judge), panel=panel, category=category)
            rows += remarked(_judge_estimates(category_choices, slots, texts, spread, labels), remark)
    return adjust(with_judge_families(estimates_frame(rows)))


def _judge_estimates(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels
) -> list[Estimate]:
    """All estimates of one judge's choices."""
    sets = rotations(choices, slots)
    soft = bool(choices.dropna(subset=["picked"])["p_1"].notna().all()) if "p_1" in choices else False
    # Without probabilities every repeat is a set of its own, as the mean of two picks is no pick.
    by_repeat = choices.assign(set_id=choices["set_id"].astype(str) + "/r" + choices["repeat"].astype(str))
    return [
        *listwise_estimates(choices, slots, labels),
        *set_estimates(sets, labels),
        *slot_log_odds(sets, slots, labels, None if soft else rotations(by_repeat, slots)),
        *content_of_choices(choices, slots, texts, spread, labels),
    ]


# Slots.


@dataclass(frozen=True, slots=True)
class Rotations:
    """The complete sets, those of which every rotation has a verdict.

    ``shares`` (sets, rotation, slot): the mean over repeats of what was picked (1 and 0, or probabilities where the
    judge gave them); ``items`` (sets,) their clusters; ``unscored``: calls without a verdict.
    """

    shares: Floats
    items: Integers
    unscored: int

    @property
    def counts(self) -> SampleCounts:
        """Numbers of sets, of their items, and of unscored calls."""
        return SampleCounts(len(self.shares), distinct(self.items), self.unscored)


def rotations(choices: pd.DataFrame, slots: int) -> Rotations:
    """The complete sets of ``choices``; raises ValueError for a slot out of range."""
    unscored = int(choices["picked"].isna().sum())
    scored = choices.dropna(subset=["picked"])
    picked = scored["picked"].astype("int64").to_numpy()
    if np.any((picked < 0) | (picked >= slots)):
        raise ValueError(f"picked must be a slot from 0 to {slots - 1}")
    in_item, names = pd.factorize(scored["set_id"])
    codes, sets = pd.factorize(pd.factorize(scored["item_id"])[0] * max(1, len(names)) + in_item)
    rotation = scored["rotation"].to_numpy(dtype=np.intp)
    of_call = codes * slots + rotation
    total = cluster_sums(_pick_shares(scored, slots), of_call, len(sets) * slots).reshape(len(sets), slots, slots)
    count = np.bincount(of_call, minlength=len(sets) * slots).reshape(len(sets), slots)
    complete = (count > 0).all(axis=1)
    items = np.zeros(len(sets), dtype=np.intp)
    items[codes] = item_codes(scored)
    return Rotations(total[complete] / count[complete][:, :, None], items[complete], unscored)


def _pick_shares(scored: pd.DataFrame, slots: int) -> Floats:
    """(n, slots) of each scored call: its slots' probabilities where the judge gave them, else 1 for the pick and 0."""
    picks: Floats = np.eye(slots)[scored["picked"].to_numpy(dtype=np.intp)]
    columns = [f"p_{slot + 1}" for slot in range(slots)]
    if not set(columns) <= set(scored.columns):
        return picks
    probabilities = scored[columns].to_numpy(dtype=np.float64)
    return np.asarray(np.where(np.isnan(probabilities).any(axis=1, keepdims=True), picks, probabilities))


def listwise_estimates(
    choices: pd.DataFrame, slots: int, labels: RowLabels, *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``slot_<k>_excess``, k = 1 … ``slots``: how often slot k is picked beyond 1/slots (probability), over complete sets.

    Repeats are averaged. Sets without a verdict in every rotation are left out. The note of each row holds the joint
    permutation p over all slots. Raises ValueError for a slot out of range.
    """
    sets = rotations(choices, slots)
    rows = []
    note = f"joint permutation p {rotation_test(sets.shares):.4g}" if len(sets.shares) else ""
    for slot in range(slots):
        result: Interval | Undefined = NO_COMPLETE_SET
        if len(sets.shares):
            excess = sets.shares[:, :, slot].mean(axis=1) - 1.0 / slots
            result = bounded_mean(excess, sets.items, -1.0 / slots, 1.0 - 1.0 / slots)
        rows.append(row(
            labels, "position", f"slot_{slot + 1}_excess", result, sets.counts, unit=PROBABILITY, margin=margin, note=note
        ))  # fmt: skip
    return rows


def set_estimates(sets: Rotations, labels: RowLabels) -> list[Estimate]:
    """``position_permutation``, the joint test over slots, and ``rotation_consistency``, over complete sets.

    The first is the total variation distance of the slots' shares from 1/k with the test's p; the second the share of
    sets in which the same text wins in all rotations.
    """
    counts, shares = sets.counts, sets.shares
    if not len(shares):
        return [
            row(labels, "position", "position_permutation", NO_COMPLETE_SET, counts, unit=PROBABILITY),
            row(labels, "position", "rotation_consistency", NO_COMPLETE_SET, counts, unit=PROBABILITY),
        ]
    k = shares.shape[1]
    winners = np.argmax(_by_text(shares), axis=2)
    consistency = clustered_proportion((winners == winners[:, :1]).all(axis=1), sets.items)
    all_counted = math.factorial(k) ** len(shares) <= MOST_EXACT if len(shares) < 20 else False
    permutations = "all permutations" if all_counted else f"{PERMUTATIONS:,} permutations"
    if len(shares) > MOST_PERMUTED:
        permutations = f"{PERMUTATIONS:,} draws from the normal limit of all permutations"
    distance = float(np.sum(np.abs(shares.mean(axis=(0, 1)) - 1.0 / k)) / 2.0)
    permutation = BareTest(distance, rotation_test(shares), f"{permutations} of the rotations within sets")
    return [
        row(labels, "position", "position_permutation", permutation, counts, unit=PROBABILITY,
            note="total variation distance of the slots' shares from 1/k"),
        row(labels, "position", "rotation_consistency", consistency, counts, unit=PROBABILITY, null=None,
            note=f"the same text wins in all {k} rotations"),
    ]  # fmt: skip


def rotation_test(picked: NDArray[np.generic]) -> float:
    """Permutation p of no position bias; ``picked``: (sets, k) the slot picked in each rotation, or (sets, k, k) shares.

    Without position bias the winning text does not depend on the rotation, so the winners of a set may be permuted over
    its rotations; the statistic is Σ (slot share − 1/k)² (Pearson's χ² would take rotations for independent). All
    permutations where they are few, else 2,000 from a named stream; of more than ``MOST_PERMUTED`` sets the totals are drawn from
    their normal limit, with the permutations' own mean and covariance (Hoeffding 1951).
    """
    sets, k = picked.shape[:2]
    shares = np.eye(k)[picked.astype(np.intp)] if picked.ndim == 2 else picked.astype(np.float64)
    texts, calls = _by_text(shares), float(sets * k)

    def statistic(totals: Floats) -> Floats:
        return np.asarray(np.sum((totals / calls - 1.0 / k) ** 2, axis=-1))

    observed = float(statistic(shares.sum(axis=(0, 1)))) - 1e-12
    # Slot j of rotation r holds text (j + r) mod k.
    text_in_slot = (np.arange(k)[None, :] + np.arange(k)[:, None]) % k
    if sets < 20 and math.factorial(k) ** sets <= MOST_EXACT:
        permutations = np.array(list(itertools.permutations(range(k))))
        totals = np.zeros((1, k))
        for by_rotation in texts:
            of_set = by_rotation[permutations[:, :, None], text_in_slot[None]].sum(axis=1)
            totals = (totals[:, None] + of_set[None]).reshape(-1, k)
        return float(np.mean(statistic(totals) >= observed))
    rng = seeds.rng(0, "rotations", sets, k)
    if sets > MOST_PERMUTED:
        centre, covariance = _permutation_moments(texts)
        drawn = statistic(rng.multivariate_normal(centre, covariance, PERMUTATIONS, method="eigh"))
        return (1.0 + int(np.sum(drawn >= observed))) / (PERMUTATIONS + 1.0)
    rows, extreme, remaining = np.arange(sets)[None, :, None, None], 0, PERMUTATIONS
    while remaining:
        draws = min(remaining, max(1, _NUMBERS_PER_BLOCK // (sets * k * k)))
        order = np.argsort(rng.random((draws, sets, k)), axis=2)
        totals = texts[rows, order[..., None], text_in_slot].sum(axis=(1, 2))
        extreme, remaining = extreme + int(np.sum(statistic(totals) >= observed)), remaining - draws
    return (1.0 + extreme) / (PERMUTATIONS + 1.0)


def _permutation_moments(texts: Floats) -> tuple[Floats, Floats]:
    """(k,) mean and (k, k) covariance of the slots' totals, where each set's winners are permuted over its rotations at random.

    ``texts`` (sets, rotation, text). Of Σ_r a(r, π(r)) over a random permutation π: Hoeffding (1951), in several dimensions.
    """
    k = texts.shape[1]
    mean, covariance = np.zeros(k), np.zeros((k, k))
    block = max(1, _NUMBERS_PER_BLOCK // k**3)
    for start in range(0, len(texts), block):
        # What each slot gets where the winners of rotation r come to stand in rotation s: (sets, r, s, slot).
        placed = np.stack([np.roll(texts[start : start + block], -s, axis=2) for s in range(k)], axis=2)
        mean += placed.sum(axis=(0, 1, 2)) / k
        deviations = placed - placed.mean(axis=1, keepdims=True)
        deviations -= deviations.mean(axis=2, keepdims=True)
        covariance += np.tensordot(deviations, deviations, axes=((0, 1, 2), (0, 1, 2))) / (k - 1.0)
    return mean, covariance


def _by_text(shares: Floats) -> Floats:
    """(sets, rotation, text) from shares (sets, rotation, slot)."""
    k = shares.shape[1]
    return np.stack([np.roll(shares[:, r], r, axis=1) for r in range(k)], axis=1) if len(shares) else shares


def slot_log_odds(sets: Rotations, slots: int, labels: RowLabels, hard: Rotations | None = None) -> list[Estimate]:
    """``slot_<k>_log_odds``: log-odds for slot k against the mean of the other slots, whatever texts stand in them.

    ``sets``: the complete sets, with probabilities. Where the judge gave picks alone, ``hard`` has one set for each set
    and repeat, with one pick a rotation, and the estimate is that of the conditional likelihood given how often each
    text won.
    """
    picks = sets if hard is None else hard
    results: list[Interval | Undefined] = [NO_COMPLETE_SET] * slots
    if len(sets.shares) and hard is None:
        results = _mean_log_odds(sets, slots)
    elif hard is not None and len(hard.shares):
        results = _conditional_log_odds(hard, slots)
    return [
        row(labels, "position", f"slot_{slot + 1}_log_odds", results[slot], picks.counts, unit=LOG_ODDS,
            note="against the mean of the other slots")
        for slot in range(slots)
    ]  # fmt: skip


def _mean_log_odds(sets: Rotations, slots: int) -> list[Interval | Undefined]:
    """A result a slot from probabilities: the mean over rotations of log p, minus that of the other slots."""
    logs = np.log(np.clip(sets.shares, CLIP, 1.0)).mean(axis=1)
    contrasts = (logs - logs.mean(axis=1, keepdims=True)) * slots / (slots - 1.0)
    return [cluster_mean(contrasts[:, slot], sets.items) for slot in range(slots)]


def _conditional_log_odds(hard: Rotations, slots: int) -> list[Interval | Undefined]:
    """A result a slot from picks: conditional logit within sets, given how often each text won."""
    picked = np.argmax(hard.shares, axis=2)
    winners = (picked + np.arange(slots)) % slots
    # A set whose text wins in all rotations holds no information about slots.
    informative = (winners != winners[:, :1]).any(axis=1)
    if not informative.any():
        return [Undefined("the same text wins in every rotation of every set: no pick depends on the slot")] * slots
    picked, winners, items = picked[informative], winners[informative], hard.items[informative]
    observed = np.stack([(picked == slot).sum(axis=1) for slot in range(slots)], axis=1).astype(np.float64)
    codes, groups = dense_codes(items)
    if groups <= slots - 1:
        return [
            Undefined(f"{groups} items with picks that depend on the rotation are too few for {slots} slots")
        ] * slots

    def objective(free: Floats) -> tuple[float, Floats]:
        g = np.concatenate([[0.0], free])
        log_z, expected = permanents(g, winners)
        return float(np.sum(log_z) - np.sum(observed @ g)), np.sum(expected - observed, axis=0)[1:]

    from scipy import optimize  # only here: it is slow to import

    fit = optimize.minimize(
        objective, np.zeros(slots - 1), jac=True, method="BFGS", options={"gtol": 1e-7 * len(picked)}
    )
    free = np.asarray(fit.x, dtype=np.float64)
    if not np.all(np.isfinite(free)):
        return [_NO_LOG_ODDS] * slots

    def scores(at: Floats) -> Floats:
        """(items, slots − 1) derivatives of the log-likelihood."""
        by_set = (observed - permanents(np.concatenate([[0.0], at]), winners)[1])[:, 1:]
        return cluster_sums(by_set, codes, groups)

    shifts = np.eye(slots - 1) * _STEP
    information = np.stack([(scores(free - shift) - scores(free + shift)) / (2 * _STEP) for shift in shifts], axis=2)
    if np.linalg.eigvalsh(information.sum(axis=0))[0] < _FLAT_INFORMATION:
        return [_NO_LOG_ODDS] * slots
    covariance = _jackknife_covariance(information, scores(free))
    if isinstance(covariance, Undefined):
        return [covariance] * slots
    results: list[Interval | Undefined] = []
    for slot in range(slots):
        contrast = np.where(np.arange(slots) == slot, 1.0, -1.0 / (slots - 1))[1:]
        se = float(np.sqrt(max(0.0, float(contrast @ covariance @ contrast))))
        results.append(t_interval(
            float(contrast @ free), se, groups - 1, method="conditional logit within sets, one-step jackknife by item"
        ))  # fmt: skip
    return results


def permanents(g: Floats, winners: Integers) -> tuple[Floats, Floats]:
    """Log of the sum over all placements of a set's winners of exp(Σ g at their slots), and each slot's expected picks.

    ``g`` (k,) log-odds of the slots; ``winners`` (sets, k) texts, which may stand in any of the k rotations. The arrays
    are (sets,) and (sets, k). Sums over subsets of winners, so that k ≤ 8 is quick.
    """
    sets, k = winners.shape
    # Winner i of a set, put in rotation r, is picked in this slot.
    slot = (winners[:, None, :] - np.arange(k)[None, :, None]) % k
    weight = np.exp(g - np.max(g))[slot]
    size = [bin(mask).count("1") for mask in range(1 << k)]
    ahead, behind = np.zeros((1 << k, sets)), np.zeros((1 << k, sets))
    ahead[0], behind[-1] = 1.0, 1.0
    for mask in range(1, 1 << k):
        for i in range(k):
            if mask >> i & 1:
                ahead[mask] += ahead[mask ^ (1 << i)] * weight[:, size[mask] - 1, i]
    chance = np.zeros((sets, k, k))
    for mask in range((1 << k) - 2, -1, -1):
        for i in range(k):
            if not mask >> i & 1:
                step = weight[:, size[mask], i] * behind[mask | (1 << i)]
                behind[mask] += step
                chance[:, size[mask], i] += ahead[mask] * step
    total = ahead[-1]
    chance /= total[:, None, None]
    expected = np.stack([(chance * (slot == j)).sum(axis=(1, 2)) for j in range(k)], axis=1)
    return np.log(total) + k * np.max(g), expected


# Content.


def content_of_choices(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels
) -> list[Estimate]:
    """The content terms: ``length_log_odds`` and the style features', ``gold_agreement`` and ``gold_log_odds``.

    ``choices`` also has ``candidate_1 … candidate_<slots>`` by slot, and ``gold``, the best one's candidate_id, empty
    where not known. ``texts``: ``item_id, candidate_id`` and features; ``spread``: their standard deviations. The
    slots' effects are always in the model. ``gold_agreement`` is a probability.
    """
    scored = choices.dropna(subset=["picked"]).reset_index(drop=True)
    lost = len(choices) - len(scored)
    names = [name for name in FEATURES if name == "length" or spread.get(name, 0.0) > 0]
    x = _slot_features(scored, slots, texts, names, spread)
    share = _pick_shares(scored, slots)
    items = item_codes(scored)
    best = np.stack([(scored[f"candidate_{n + 1}"] == scored["gold"]).to_numpy() for n in range(slots)], axis=1)
    has_gold = (scored["gold"] != "").to_numpy()
    raw, raw_shape = _fit_content(names, x, share, items)
    given_gold: ChoiceFit | Undefined = Undefined(NO_GOLD)
    given_shape: JointTest | Undefined = Undefined(NO_GOLD)
    if has_gold.any():
        given_gold, given_shape = _fit_content(
            names, x[has_gold], share[has_gold], items[has_gold], best[has_gold].astype(np.float64)
        )
    gold_counts, all_counts = (
        SampleCounts(int(used.sum()), distinct(items[used]), lost) for used in (has_gold, np.ones_like(has_gold))
    )
    primary = Undefined("one gold, of unknown reliability" if has_gold.any() else NO_GOLD)
    rows = []
    for name in names:
        bias, unit = feature_bias(name), feature_unit(name)
        given_slope, raw_slope = (fit if isinstance(fit, Undefined) else fit.slope(name) for fit in (given_gold, raw))
        given, no_gold = (
            row(labels, bias, f"{name}_log_odds", slope, counts, unit=unit, variant=variant, note=note)
            for slope, counts, variant, note in (
                (given_slope, gold_counts, "given_gold", GOLD_AS_EXACT),
                (raw_slope, all_counts, "no_gold", "quality is not held equal"),
            )
        )
        rows += [
            row(labels, bias, f"{name}_log_odds", primary, gold_counts, unit=unit),
            withheld_where_not_linear(given, given_shape), withheld_where_not_linear(no_gold, raw_shape),
        ]  # fmt: skip
    agreement: Interval | Undefined = Undefined("no gold")
    if has_gold.any():
        agreement = clustered_proportion((share * best).sum(axis=1)[has_gold], items[has_gold])
    slope = given_gold if isinstance(given_gold, Undefined) else given_gold.slope("gold")
    return [
        *rows,
        row(labels, "quality", "gold_agreement", agreement, gold_counts, unit=PROBABILITY, null=None,
            note=f"all rotations together; chance is {1 / slots:.3f}"),
        row(labels, "quality", "gold_log_odds", slope, gold_counts, unit=f"{LOG_ODDS} per unit of gold",
            note="gold's best against the others; gold's errors pull it towards 0"),
    ]  # fmt: skip


def _slot_features(
    scored: pd.DataFrame, slots: int, texts: pd.DataFrame, names: Sequence[str], spread: Mapping[str, float]
) -> Floats:
    """(n, slots, features) of the texts in the slots, in their units; NaN where ``texts`` has no such text."""
    units = np.array([1.0 if name == "length" else spread[name] for name in names])
    features = texts.drop_duplicates(["item_id", "candidate_id"])
    by_slot = []
    for slot in range(slots):
        shown = scored[["item_id", f"candidate_{slot + 1}"]].set_axis(["item_id", "candidate_id"], axis=1)
        values = shown.merge(features, on=["item_id", "candidate_id"], how="left")[list(names)]
        by_slot.append(values.to_numpy(dtype=np.float64) / units)
    return np.stack(by_slot, axis=1)


def _fit_content(
    names: Sequence[str], x: Floats, share: Floats, items: Integers, gold: Floats | None = None
) -> tuple[ChoiceFit | Undefined, JointTest | Undefined]:
    """Conditional logit on the slots, the features that differ in enough items, and ``gold`` (n, slots) where given; and the
    cluster score test that the square of length, less its mean, adds nothing to its slope."""
    if not len(x):
        nothing = Undefined("no choice has a verdict")
        return nothing, nothing
    n, slots = x.shape[:2]
    differs = np.ptp(x, axis=1) > 0
    used = [
        j for j, name in enumerate(names)
        if distinct(items[differs[:, j]]) >= (1 if name == "length" else FEWEST_ITEMS)
    ]  # fmt: skip
    slot_columns = np.broadcast_to(np.eye(slots)[:, 1:], (n, slots, slots - 1))
    columns, column_names = (
        [slot_columns, x[:, :, used]],
        [*(f"slot_{j + 1}" for j in range(1, slots)), *(names[j] for j in used)],
    )
    if gold is not None:
        columns, column_names = [*columns, gold[:, :, None]], [*column_names, "gold"]
    columns_of_fit = np.concatenate(columns, axis=2)
    fit = fit_choices(column_names, columns_of_fit, share, items)
    if isinstance(fit, Undefined) or "length" not in fit.names:
        return fit, Undefined("no slope on length")
    length = x[:, :, names.index("length")]
    square = (length - length.mean()) ** 2
    scores, spread = _scores_and_spreads(
        np.concatenate([columns_of_fit, square[:, :, None]], axis=2), share, np.append(fit.coefficients, 0.0)
    )
    information = np.tensordot(spread, spread, axes=((0, 1), (0, 1)))
    return fit, hotelling(scores, information, [len(fit.names)], items)


@dataclass(frozen=True, slots=True)
class ChoiceFit:
    """A fitted conditional logit.

    ``coefficients`` (p,) of ``names`` (slots first) and their one-step jackknife covariance over items; ``dfs`` (p,)
    of their t (``kernels.satterthwaite_df``).
    """

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    dfs: Floats

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient in log-odds with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough within the sets")
        j = self.names.index(name)
        se = float(np.sqrt(max(0.0, self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, float(self.dfs[j]), method="conditional logit, one-step jackknife by item"
        )


def fit_choices(names: Sequence[str], x: Floats, share: Floats, clusters: Integers) -> ChoiceFit | Undefined:
    """Conditional logit by Newton's method; clustered by item.

    ``x`` (n, k, p) covariates of the k alternatives, called ``names`` (p,); ``share`` (n, k) of the pick: 1 and 0, or
    probabilities; ``clusters`` (n,). Undefined with a reason where nothing identifies the coefficients.
    """
    codes, groups = dense_codes(clusters)
    p = x.shape[2]
    if groups <= p:
        return Undefined(f"{groups} items are too few for {p} coefficients")
    scale = np.sqrt(np.mean((x - x.mean(axis=1, keepdims=True)) ** 2, axis=(0, 1)))
    if np.any(scale == 0):
        return Undefined("a covariate does not differ within the sets")
    x, b = x / scale, np.zeros(p)
    for _ in range(_NEWTON_STEPS):
        gradient, spread = _scores_and_spreads(x, share, b)
        total = np.tensordot(spread, spread, axes=((0, 1), (0, 1)))
        if np.linalg.matrix_rank(total, hermitian=True, tol=1e-9 * len(x)) < p:
            return Undefined(f"{', '.join(names)} are collinear, or the picks separate on them")
        step = np.linalg.solve(total, gradient.sum(axis=0))
        step *= min(1.0, 2.0 / float(np.max(np.abs(step)) or 1.0))
        b = b + step
        if np.max(np.abs(step)) < 1e-9:
            break
    else:
        return Undefined("the picks separate on these covariates")
    if np.max(np.abs(b)) > _LARGEST_COEFFICIENT:
        return Undefined("the picks separate on these covariates")
    gradient, spread = _scores_and_spreads(x, share, b)
    scores = cluster_sums(gradient, codes, groups)
    informations = cluster_informations(spread.reshape(-1, p), np.ones(spread.size // p), np.repeat(codes, x.shape[1]))
    covariance = _jackknife_covariance(informations, scores)
    if isinstance(covariance, Undefined):
        return covariance
    try:
        dfs = satterthwaite_df(informations, np.eye(p))
    except ValueError as error:
        return Undefined(str(error))
    return ChoiceFit(tuple(names), b / scale, covariance / np.outer(scale, scale), dfs)


def _scores_and_spreads(x: Floats, share: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(n, p) derivatives of every choice at coefficients ``b`` (p,), and (n, k, p) the alternatives' deviations from their mean
    times the root of their probabilities: a choice's information is the sum of their squares and products."""
    eta = x @ b
    odds = np.exp(eta - eta.max(axis=1, keepdims=True))
    chance = odds / odds.sum(axis=1, keepdims=True)
    mean = np.einsum("nk,nkp->np", chance, x)
    gradient = np.einsum("nk,nkp->np", share, x) - mean
    return gradient, (x - mean[:, None, :]) * np.sqrt(chance)[:, :, None]


def _jackknife_covariance(information: Floats, scores: Floats) -> Floats | Undefined:
    """(p, p) jackknife covariance over clusters, each left out by one Newton step.

    ``information`` (G, p, p) and ``scores`` (G, p) are the clusters' parts at the maximum. Undefined where one cluster
    alone identifies a coefficient.
    """
    groups = len(scores)
    without_each = information.sum(axis=0) - information
    without_each = (without_each + np.swapaxes(without_each, 1, 2)) / 2.0
    if np.any(np.linalg.eigvalsh(without_each)[:, 0] <= 1e-10):
        return Undefined("a single item identifies a coefficient; more items are needed")
    steps = np.linalg.solve(without_each, scores[:, :, None])[:, :, 0]
    spread = steps - steps.mean(axis=0)
    return np.asarray((groups - 1.0) / groups * spread.T @ spread)
