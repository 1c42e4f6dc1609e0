"""What a listwise judge's picks follow: McFadden's conditional logit of the picked slot on slots and texts.

P(slot j) ∝ exp(γ_j + βᵀf(text in j) + κ·[it is gold's best]). Slopes are log-odds per doubling or per generation-0 SD;
positive = prefers more of it. Clustered by item.
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
from judgeloop.stats.estimate import (
    LOG_ODDS,
    PROBABILITY,
    RATE_MARGIN,
    BareTest,
    Bias,
    Estimate,
    RowLabels,
    SampleCounts,
    estimates_frame,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, cluster_mean, clustered_proportion, t_interval
from judgeloop.stats.items import by_category, remarked
from judgeloop.stats.judge.pointwise import feature_spread
from judgeloop.stats.judge.slopes import FEWEST_ITEMS
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.text.features import FEATURES

# Position bias of a listwise judge from all cyclic rotations of each set.

PERMUTATIONS = 2000
MOST_EXACT = 20_000
"""Up to so many ways to permute the rotations of all sets, every one is counted."""
_BLOCK = 1 << 18
NO_SET = Undefined("no set has a verdict in all rotations")


@dataclass(frozen=True, slots=True)
class Rotations:
    """Complete sets: ``shares`` (sets, rotation, slot), the mean over repeats of what was picked (1 and 0, or probabilities
    where the judge gave them); ``items`` (sets,) their clusters; ``unscored`` calls."""

    shares: Floats
    items: NDArray[np.intp]
    unscored: int

    @property
    def counts(self) -> SampleCounts:
        """n sets, their items, and the unscored calls."""
        return SampleCounts(len(self.shares), len(np.unique(self.items)), self.unscored)


def rotations(choices: pd.DataFrame, slots: int) -> Rotations:
    """The sets of which every rotation has a verdict. See ``listwise_estimates``."""
    lost = int(choices["picked"].isna().sum())
    scored = choices.dropna(subset=["picked"])
    picked = scored["picked"].astype("int64").to_numpy()
    if np.any((picked < 0) | (picked >= slots)):
        raise ValueError(f"picked must be a slot from 0 to {slots - 1}")
    named = [f"p_{slot + 1}" for slot in range(slots)]
    hard = np.eye(slots)[picked]
    if set(named) <= set(scored.columns):
        soft = scored[named].to_numpy(dtype=np.float64)
        hard = np.where(np.isnan(soft).any(axis=1, keepdims=True), hard, soft)
    codes, sets = pd.factorize(pd.MultiIndex.from_frame(scored[["item_id", "set_id"]]))
    rotation = scored["rotation"].to_numpy(dtype=np.intp)
    total, count = np.zeros((len(sets), slots, slots)), np.zeros((len(sets), slots))
    np.add.at(total, (codes, rotation), hard)
    np.add.at(count, (codes, rotation), 1.0)
    complete = (count > 0).all(axis=1)
    items = pd.factorize(sets.get_level_values(0))[0] if len(sets) else np.empty(0, dtype=np.intp)
    return Rotations(total[complete] / count[complete][:, :, None], items[complete], lost)


def listwise_estimates(
    choices: pd.DataFrame, slots: int, labels: RowLabels, *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``slot_<k>_excess``, k = 1 … ``slots``: how often slot k is picked beyond 1/slots, over complete sets.

    ``choices``: one row a call, ``item_id, set_id, rotation`` (0 … slots − 1: slot j shows text (j + rotation) mod slots,
    slots counted from 0) and ``picked``, the slot from 0, <NA> where unscored; optional ``p_1 … p_<slots>``, the slots'
    probabilities. Repeats are averaged. Sets without all rotations scored are left out. The note of each row holds the
    joint permutation p over all slots. Raises ValueError for a slot out of range.
    """
    known = rotations(choices, slots)
    rows = []
    note = f"joint permutation p {rotation_test(known.shares):.4g}" if len(known.shares) else ""
    for slot in range(slots):
        result: Interval | Undefined = NO_SET
        if len(known.shares):
            excess = known.shares[:, :, slot].mean(axis=1) - 1.0 / slots
            result = bounded_mean(excess, known.items, -1.0 / slots, 1.0 - 1.0 / slots)
        rows.append(row(
            labels, "position", f"slot_{slot + 1}_excess", result, known.counts, unit=PROBABILITY, margin=margin, note=note
        ))  # fmt: skip
    return rows


def set_estimates(known: Rotations, labels: RowLabels) -> list[Estimate]:
    """``position_permutation``, the joint test, and ``rotation_consistency``, over complete sets."""
    counts, shares = known.counts, known.shares
    if not len(shares):
        return [
            row(labels, "position", "position_permutation", NO_SET, counts, unit=PROBABILITY),
            row(labels, "position", "rotation_consistency", NO_SET, counts, unit=PROBABILITY),
        ]
    k = shares.shape[1]
    winners = np.argmax(_by_text(shares), axis=2)
    same = clustered_proportion((winners == winners[:, :1]).all(axis=1), known.items)
    exact = math.factorial(k) ** len(shares) <= MOST_EXACT if len(shares) < 20 else False
    how = "all permutations" if exact else f"{PERMUTATIONS:,} permutations"
    distance = float(np.sum(np.abs(shares.mean(axis=(0, 1)) - 1.0 / k)) / 2.0)
    moved = BareTest(distance, rotation_test(shares), f"{how} of the rotations within sets")
    return [
        row(labels, "position", "position_permutation", moved, counts, unit=PROBABILITY,
            note="total variation distance of the slots' shares from 1/k"),
        row(labels, "position", "rotation_consistency", same, counts, unit=PROBABILITY, null=None,
            note=f"the same text wins in all {k} rotations"),
    ]  # fmt: skip


def rotation_test(picked: NDArray[np.generic]) -> float:
    """Permutation p of no position bias. ``picked``: (sets, k), the slot picked in each rotation; or (sets, k, k), shares.

    Without position bias which text wins does not depend on the rotation, so the winners of a set may be permuted over
    its rotations; Σ (slot share − 1/k)² is the statistic (Pearson's χ² would take rotations for independent). All ways
    where they are few, else 2,000 from a named stream.
    """
    sets, k = picked.shape[:2]
    shares = np.eye(k)[picked.astype(np.intp)] if picked.ndim == 2 else picked.astype(np.float64)
    texts, calls = _by_text(shares), float(sets * k)

    def statistic(totals: Floats) -> Floats:
        return np.asarray(np.sum((totals / calls - 1.0 / k) ** 2, axis=-1))

    observed = float(statistic(shares.sum(axis=(0, 1)))) - 1e-12
    # slot j of rotation r holds text (j + r) mod k
    place = (np.arange(k)[None, :] + np.arange(k)[:, None]) % k
    if sets < 20 and math.factorial(k) ** sets <= MOST_EXACT:
        ways = np.array(list(itertools.permutations(range(k))))
        totals = np.zeros((1, k))
        for one in texts:
            of_set = one[ways[:, :, None], place[None]].sum(axis=1)
            totals = (totals[:, None] + of_set[None]).reshape(-1, k)
        return float(np.mean(statistic(totals) >= observed))
    rng = seeds.rng(0, "rotations", sets, k)
    rows, extreme, left = np.arange(sets)[None, :, None, None], 0, PERMUTATIONS
    while left:
        some = min(left, max(1, _BLOCK // (sets * k * k)))
        order = np.argsort(rng.random((some, sets, k)), axis=2)
        totals = texts[rows, order[..., None], place].sum(axis=(1, 2))
        extreme, left = extreme + int(np.sum(statistic(totals) >= observed)), left - some
    return (1.0 + extreme) / (PERMUTATIONS + 1.0)


def _by_text(shares: Floats) -> Floats:
    """(sets, rotation, text) from (sets, rotation, slot)."""
    k = shares.shape[1]
    return np.stack([np.roll(shares[:, r], r, axis=1) for r in range(k)], axis=1) if len(shares) else shares


# ``slot_<k>_log_odds``: the log-odds for a slot against the average other slot, whatever the texts in it are worth.
Integers = NDArray[np.intp]

CLIP = 1e-6
_FLAT = 0.01
"""Below this information in some direction the likelihood has no maximum there; one undecided set has about 0.2."""
_LOCKED = Undefined("a slot is always, or never, picked where it could be: log-odds do not exist; see the excess")
_STEP = 1e-5


def slot_log_odds(known: Rotations, slots: int, labels: RowLabels, hard: Rotations | None = None) -> list[Estimate]:
    """A row a slot. ``known``: shares by rotation; where they are picks and not probabilities, ``hard`` has a row a set and
    repeat, in which each rotation has one pick."""
    picks = known if hard is None else hard
    found: list[Interval | Undefined] = [NO_SET] * slots
    if len(known.shares) and hard is None:
        found = _soft(known, slots)
    elif hard is not None and len(hard.shares):
        found = _conditional(hard, slots)
    return [
        row(labels, "position", f"slot_{slot + 1}_log_odds", found[slot], picks.counts, unit=LOG_ODDS,
            note="against the mean of the other slots")
        for slot in range(slots)
    ]  # fmt: skip


def _soft(known: Rotations, slots: int) -> list[Interval | Undefined]:
    logs = np.log(np.clip(known.shares, CLIP, 1.0)).mean(axis=1)
    against = (logs - logs.mean(axis=1, keepdims=True)) * slots / (slots - 1.0)
    return [cluster_mean(against[:, slot], known.items) for slot in range(slots)]


def _conditional(hard: Rotations, slots: int) -> list[Interval | Undefined]:
    picked = np.argmax(hard.shares, axis=2)
    winners = (picked + np.arange(slots)) % slots
    # A text that wins in all rotations says nothing of slots.
    some = (winners != winners[:, :1]).any(axis=1)
    if not some.any():
        return [Undefined("the same text wins in every rotation of every set: no pick depends on the slot")] * slots
    picked, winners, items = picked[some], winners[some], hard.items[some]
    observed = np.stack([(picked == slot).sum(axis=1) for slot in range(slots)], axis=1).astype(np.float64)
    codes, kept = _codes(items)
    if kept <= slots - 1:
        return [Undefined(f"{kept} items with picks that depend on the rotation are too few for {slots} slots")] * slots

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
        return [_LOCKED] * slots

    def scores(at: Floats) -> Floats:
        """(items, slots − 1) of the log-likelihood's derivatives."""
        part = (observed - permanents(np.concatenate([[0.0], at]), winners)[1])[:, 1:]
        return np.stack([np.bincount(codes, weights=part[:, j], minlength=kept) for j in range(slots - 1)], axis=1)

    shifts = np.eye(slots - 1) * _STEP
    information = np.stack([(scores(free - shift) - scores(free + shift)) / (2 * _STEP) for shift in shifts], axis=2)
    if np.linalg.eigvalsh(information.sum(axis=0))[0] < _FLAT:
        return [_LOCKED] * slots
    covariance = one_step_covariance(information, scores(free))
    if isinstance(covariance, Undefined):
        return [covariance] * slots
    out: list[Interval | Undefined] = []
    for slot in range(slots):
        contrast = np.where(np.arange(slots) == slot, 1.0, -1.0 / (slots - 1))[1:]
        se = float(np.sqrt(max(0.0, float(contrast @ covariance @ contrast))))
        out.append(t_interval(
            float(contrast @ free), se, kept - 1, method="conditional logit within sets, one-step jackknife by item"
        ))  # fmt: skip
    return out


def one_step_covariance(information: Floats, scores: Floats) -> Floats | Undefined:
    """(p, p) jackknife covariance over clusters, each left out by one Newton step. ``information`` (G, p, p) and ``scores``
    (G, p) are the clusters' parts at the maximum."""
    groups = len(scores)
    left = information.sum(axis=0) - information
    left = (left + np.swapaxes(left, 1, 2)) / 2.0
    if np.any(np.linalg.eigvalsh(left)[:, 0] <= 1e-10):
        return Undefined("a single item identifies a coefficient; more items are needed")
    moved = np.linalg.solve(left, scores[:, :, None])[:, :, 0]
    spread = moved - moved.mean(axis=0)
    return np.asarray((groups - 1.0) / groups * spread.T @ spread)


def permanents(g: Floats, winners: Integers) -> tuple[Floats, Floats]:
    """(sets,) log of the sum over all ways to place a set's ``winners`` (sets, k) in its rotations of exp(Σ g at their
    slots), and (sets, k) the expected number of picks of each slot. By subsets of winners, so k ≤ 8 is quick."""
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


def _codes(items: Integers) -> tuple[Integers, int]:
    kept, codes = np.unique(items, return_inverse=True)
    return codes, len(kept)


Floats = NDArray[np.float64]

_STEPS, _FARTHEST = 50, 30.0
_NO_GOLD = "no gold: what the judge likes cannot be told from what is better"


@dataclass(frozen=True, slots=True)
class ChoiceFit:
    """Coefficients (p,) of ``names`` (slots first), their one-step jackknife covariance over items, t's degrees of freedom."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough within the sets")
        j = self.names.index(name)
        se = float(np.sqrt(max(0.0, self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, self.df, method="conditional logit, one-step jackknife by item"
        )


def fit_choices(names: Sequence[str], x: Floats, share: Floats, clusters: NDArray[np.intp]) -> ChoiceFit | Undefined:
    """Maximum likelihood by Newton's method. ``x`` (n, k, p) covariates of the k alternatives, ``share`` (n, k) of the pick:
    1 and 0, or probabilities."""
    kept, codes = np.unique(clusters, return_inverse=True)
    p = x.shape[2]
    if len(kept) <= p:
        return Undefined(f"{len(kept)} items are too few for {p} coefficients")
    scale = np.sqrt(np.mean((x - x.mean(axis=1, keepdims=True)) ** 2, axis=(0, 1)))
    if np.any(scale == 0):
        return Undefined("a covariate does not differ within the sets")
    x, b = x / scale, np.zeros(p)
    for _ in range(_STEPS):
        gradient, information = _parts(x, share, b)
        total = information.sum(axis=0)
        if np.linalg.matrix_rank(total, hermitian=True, tol=1e-9 * len(x)) < p:
            return Undefined(f"{', '.join(names)} are collinear, or the picks separate on them")
        step = np.linalg.solve(total, gradient.sum(axis=0))
        step *= min(1.0, 2.0 / float(np.max(np.abs(step)) or 1.0))
        b = b + step
        if np.max(np.abs(step)) < 1e-9:
            break
    else:
        return Undefined("the picks separate on these covariates")
    if np.max(np.abs(b)) > _FARTHEST:
        return Undefined("the picks separate on these covariates")
    gradient, information = _parts(x, share, b)
    by_item, inside = np.zeros((len(kept), p)), np.zeros((len(kept), p, p))
    np.add.at(by_item, codes, gradient)
    np.add.at(inside, codes, information)
    covariance = one_step_covariance(inside, by_item)
    if isinstance(covariance, Undefined):
        return covariance
    return ChoiceFit(tuple(names), b / scale, covariance / np.outer(scale, scale), len(kept) - 1)


def _parts(x: Floats, share: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(n, p) derivatives and (n, p, p) information of every choice."""
    eta = x @ b
    odds = np.exp(eta - eta.max(axis=1, keepdims=True))
    chance = odds / odds.sum(axis=1, keepdims=True)
    mean = np.einsum("nk,nkp->np", chance, x)
    gradient = np.einsum("nk,nkp->np", share, x) - mean
    spread = x - mean[:, None, :]
    return gradient, np.einsum("nk,nkp,nkq->npq", chance, spread, spread)


def content_of_choices(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels
) -> list[Estimate]:
    """``length_log_odds`` and the style features', and of gold: ``gold_agreement`` and ``gold_log_odds``.

    ``choices``: as in ``listwise_estimates``, and ``candidate_1 … candidate_<slots>`` by slot; ``gold`` the best one's
    candidate_id, empty where not known. ``texts``: ``item_id, candidate_id`` and features; ``spread`` their standard
    deviations. The slots' effects are always in the model.
    """
    scored = choices.dropna(subset=["picked"]).reset_index(drop=True)
    lost = len(choices) - len(scored)
    names = [name for name in FEATURES if name == "length" or spread.get(name, 0.0) > 0]
    x = _features(scored, slots, texts, names, spread)
    share = _shares(scored, slots)
    items = pd.factorize(scored["item_id"])[0].astype(np.intp)
    best = np.stack([(scored[f"candidate_{n + 1}"] == scored["gold"]).to_numpy() for n in range(slots)], axis=1)
    known = (scored["gold"] != "").to_numpy()
    raw = _fit(names, x, share, items)
    given: ChoiceFit | Undefined = Undefined(_NO_GOLD)
    if known.any():
        given = _fit(names, x[known], share[known], items[known], best[known].astype(np.float64))
    counts = [SampleCounts(int(some.sum()), len(np.unique(items[some])), lost) for some in (known, np.ones_like(known))]
    primary = Undefined("one gold, of unknown reliability" if known.any() else _NO_GOLD)
    rows = []
    for name in names:
        bias: Bias = "verbosity" if name == "length" else "style"
        unit = f"{LOG_ODDS} per {'doubling' if name == 'length' else 'generation-0 SD'}"
        with_gold, without = (fit if isinstance(fit, Undefined) else fit.slope(name) for fit in (given, raw))
        rows += [
            row(labels, bias, f"{name}_log_odds", primary, counts[0], unit=unit),
            row(labels, bias, f"{name}_log_odds", with_gold, counts[0], unit=unit, variant="given_gold",
                note="gold taken as exact; if it errs, quality it misses counts as bias"),
            row(labels, bias, f"{name}_log_odds", without, counts[1], unit=unit, variant="no_gold",
                note="quality is not held equal"),
        ]  # fmt: skip
    agreed: Interval | Undefined = Undefined("no gold")
    if known.any():
        agreed = clustered_proportion((share * best).sum(axis=1)[known], items[known])
    slope = given if isinstance(given, Undefined) else given.slope("gold")
    return [
        *rows,
        row(labels, "quality", "gold_agreement", agreed, counts[0], unit=PROBABILITY, null=None,
            note=f"all rotations together; chance is {1 / slots:.3f}"),
        row(labels, "quality", "gold_log_odds", slope, counts[0], unit=f"{LOG_ODDS} per unit of gold",
            note="gold's best against the others; gold's errors pull it towards 0"),
    ]  # fmt: skip


def _shares(scored: pd.DataFrame, slots: int) -> Floats:
    hard: Floats = np.eye(slots)[scored["picked"].to_numpy(dtype=np.intp)]
    named = [f"p_{slot + 1}" for slot in range(slots)]
    if not set(named) <= set(scored.columns):
        return hard
    soft = scored[named].to_numpy(dtype=np.float64)
    return np.asarray(np.where(np.isnan(soft).any(axis=1, keepdims=True), hard, soft))


def _features(
    scored: pd.DataFrame, slots: int, texts: pd.DataFrame, names: Sequence[str], spread: Mapping[str, float]
) -> Floats:
    """(n, slots, features) in their units."""
    units = np.array([1.0 if name == "length" else spread[name] for name in names])
    known = texts.drop_duplicates(["item_id", "candidate_id"])
    by_slot = []
    for slot in range(slots):
        left = scored[["item_id", f"candidate_{slot + 1}"]].set_axis(["item_id", "candidate_id"], axis=1)
        values = left.merge(known, on=["item_id", "candidate_id"], how="left")[list(names)]
        by_slot.append(values.to_numpy(dtype=np.float64) / units)
    return np.stack(by_slot, axis=1)


def _fit(
    names: Sequence[str], x: Floats, share: Floats, items: NDArray[np.intp], gold: Floats | None = None
) -> ChoiceFit | Undefined:
    if not len(x):
        return Undefined("no choice has a verdict")
    n, slots = x.shape[:2]
    differs = np.ptp(x, axis=1) > 0
    kept = [
        j for j, name in enumerate(names)
        if len(np.unique(items[differs[:, j]])) >= (1 if name == "length" else FEWEST_ITEMS)
    ]  # fmt: skip
    places = np.broadcast_to(np.eye(slots)[:, 1:], (n, slots, slots - 1))
    columns, used = [places, x[:, :, kept]], [*(f"slot_{j + 1}" for j in range(1, slots)), *(names[j] for j in kept)]
    if gold is not None:
        columns, used = [*columns, gold[:, :, None]], [*used, "gold"]
    return fit_choices(used, np.concatenate(columns, axis=2), share, items)


# All estimates of judges that chose from lists, a row an estimate: what ``audit --mode listwise`` reports.


def choice_frame(choices: pd.DataFrame, slots: int, texts: pd.DataFrame, *, panel: str = "pairs") -> pd.DataFrame:
    """Every judge's estimates, over all items and by ``category``, with adjusted p-values.

    ``choices``: a row a call, ``item_id, set_id, category, judge, rotation, repeat, slot`` (from 1, <NA> where unscored),
    ``candidate_1 … candidate_<slots>`` by slot, ``gold`` (the best one's candidate_id or empty) and ``p_1 … p_<slots>`` (NaN
    where the judge gave no probabilities). ``texts``: ``item_id, candidate_id`` and features.
    """
    rows: list[Estimate] = []
    spread = feature_spread(texts)
    frame = choices.assign(picked=choices["slot"].astype("Int64") - 1)
    for judge, some in frame.groupby("judge", sort=True):
        rows += _of(some, slots, texts, spread, RowLabels(str(judge), panel=panel))
        for category, part, remark in by_category(some):
            named = RowLabels(str(judge), panel=panel, category=category)
            rows += remarked(_of(part, slots, texts, spread, named), remark)
    return adjust(with_judge_families(estimates_frame(rows)))


def _of(
    choices: pd.DataFrame, slots: int, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels
) -> list[Estimate]:
    known = rotations(choices, slots)
    soft = bool(choices.dropna(subset=["picked"])["p_1"].notna().all()) if "p_1" in choices else False
    # Of hard picks every repeat is a set of its own: a mean of picks is no pick.
    each = choices.assign(set_id=choices["set_id"].astype(str) + "/r" + choices["repeat"].astype(str))
    return [
        *listwise_estimates(choices, slots, labels),
        *set_estimates(known, labels),
        *slot_log_odds(known, slots, labels, None if soft else rotations(each, slots)),
        *content_of_choices(choices, slots, texts, spread, labels),
    ]
