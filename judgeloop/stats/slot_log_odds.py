"""``slot_<k>_log_odds``: the log-odds for a slot against the average other slot, whatever the texts in it are worth.

The model is P(slot j in rotation r of set s) ∝ exp(g_j + α_{s, text in j}): every text of every set has its own effect, so
content is not modelled. Hard picks: given how often each text of a set won, its wins may stand in any rotations; their
conditional likelihood Π exp(g at the winners' slots) / permanent is free of α (conditional logit with item × set effects).
Soft picks: the mean over rotations of log p gives g exactly, up to a constant. For k = 2 both are ``position_log_odds``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, cluster_mean, t_interval
from judgeloop.stats.listwise import NO_SET, Rotations
from judgeloop.stats.rows import LOG_ODDS, Labels, row

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

CLIP = 1e-6
_FLAT = 0.01
"""Below this information in some direction the likelihood has no maximum there; one undecided set has about 0.2."""
_LOCKED = Undefined("a slot is always, or never, picked where it could be: log-odds do not exist; see the excess")
_STEP = 1e-5


def slot_log_odds(known: Rotations, slots: int, labels: Labels, hard: Rotations | None = None) -> list[Estimate]:
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
