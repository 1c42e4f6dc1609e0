"""Position bias of a listwise judge from all cyclic rotations of each set. Positive = prefers that slot.

With k texts shown in all k rotations, every text stands once in every slot, so a judge without position bias picks each
slot in 1/k of the calls (the method notes §1.2). The rotations of a set depend on each other: sets are the clusters.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from judgeloop import seeds
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, bounded_mean
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, Counts, Labels, row

PERMUTATIONS = 2000


def listwise_estimates(
    choices: pd.DataFrame, slots: int, labels: Labels, *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``slot_<k>_excess``, k = 1 … ``slots``: how often slot k is picked beyond 1/slots, over complete sets.

    ``choices``: one row a call, ``item_id, set_id, rotation`` (0 … slots − 1: slot j shows text (j + rotation) mod slots,
    slots counted from 0) and ``picked``, the slot from 0, <NA> where unscored. Sets without all rotations scored are
    left out. The note of each row holds the joint permutation p over all slots. Raises ValueError for a slot out of
    range.
    """
    lost = int(choices["picked"].isna().sum())
    scored = choices.dropna(subset=["picked"]).drop_duplicates(["item_id", "set_id", "rotation"])
    picked = scored["picked"].astype("int64")
    if not picked.between(0, slots - 1).all():
        raise ValueError(f"picked must be a slot from 0 to {slots - 1}")
    table = scored.assign(picked=picked).pivot(index=["item_id", "set_id"], columns="rotation", values="picked")
    table = table.reindex(columns=range(slots)).dropna().astype("int64")
    items = pd.factorize(table.index.get_level_values("item_id"))[0]
    counts = Counts(len(table), len(np.unique(items)), lost)
    rows = []
    note = f"joint permutation p {rotation_test(table.to_numpy()):.4g}" if len(table) else ""
    for slot in range(slots):
        result: Interval | Undefined = Undefined("no set has a verdict in all rotations")
        if len(table):
            excess = (table == slot).to_numpy(dtype=np.float64).mean(axis=1) - 1.0 / slots
            result = bounded_mean(excess, items, -1.0 / slots, 1.0 - 1.0 / slots)
        rows.append(row(
            labels, "position", f"slot_{slot + 1}_excess", result, counts, unit=PROBABILITY, margin=margin, note=note
        ))  # fmt: skip
    return rows


def rotation_test(picked: np.ndarray) -> float:
    """Permutation p of no position bias for ``picked`` (sets, k): the slot picked in each rotation.

    Without position bias which text wins does not depend on the rotation, so the winners of a set may be permuted over
    its rotations; Σ (slot share − 1/k)² is the statistic (Pearson's χ² would take rotations for independent).
    2,000 permutations from a named stream.
    """
    sets, k = picked.shape
    rotation = np.arange(k)
    winners = (picked + rotation) % k
    rng = seeds.rng(0, "rotations", sets, k)

    def statistic(slots: np.ndarray) -> float:
        return float(np.sum((np.bincount(slots.ravel(), minlength=k) / slots.size - 1.0 / k) ** 2))

    observed = statistic(picked)
    drawn = [statistic((rng.permuted(winners, axis=1) - rotation) % k) for _ in range(PERMUTATIONS)]
    return (1.0 + sum(value >= observed - 1e-12 for value in drawn)) / (PERMUTATIONS + 1.0)
