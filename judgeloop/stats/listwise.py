"""Position bias of a listwise judge from all cyclic rotations of each set. Positive = prefers that slot.

With k texts shown in all k rotations, every text stands once in every slot, so a judge without position bias picks each
slot in 1/k of the calls (the method notes §1.2). The rotations of a set depend on each other: sets are the clusters.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, clustered_proportion
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, BareTest, Counts, Labels, row

Floats = NDArray[np.float64]

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
    def counts(self) -> Counts:
        """n sets, their items, and the unscored calls."""
        return Counts(len(self.shares), len(np.unique(self.items)), self.unscored)


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
    choices: pd.DataFrame, slots: int, labels: Labels, *, margin: float = RATE_MARGIN
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


def set_estimates(known: Rotations, labels: Labels) -> list[Estimate]:
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
