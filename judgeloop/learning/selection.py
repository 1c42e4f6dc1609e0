"""Selections: one item's distribution re-weighted by a reward. Positive reward difference = more mass.

A distribution is a plain dict candidate_id → probability. Its order is that of the distribution it is made from, so the
same input gives the same bytes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from judgeloop.kernels import Floats

MOST_GROUPS = 10_000
"""Groups that are enumerated at most; where there are more, as many are drawn."""


def tilt(reference: Mapping[str, float], reward: Mapping[str, float], tau: float) -> dict[str, float]:
    """The tilted distribution, with more mass on higher rewards: q(x) ∝ reference(x)·exp(reward(x)/tau).

    The maximiser of mean reward − tau·KL(q ‖ reference); on a Gaussian of variance σ² a reward βx shifts the mean by
    βσ²/tau (docs/method.md, "Analytic truths", row D1). No overflow at any reward or tau: the largest reward is
    subtracted first.

    Raises ValueError if tau is not positive, the reference is no distribution, or a candidate with mass lacks a reward.
    """
    if not (math.isfinite(tau) and tau > 0.0):
        raise ValueError(f"tau must be a positive number, not {tau}")
    support = _support(reference, reward)
    if not support:
        return {}
    top = max(reward[candidate] for candidate in support)
    raw = dict.fromkeys(reference, 0.0)
    for candidate, mass in support.items():
        raw[candidate] = mass * math.exp((reward[candidate] - top) / tau)
    total = math.fsum(raw.values())
    return {candidate: mass / total for candidate, mass in raw.items()}


def best_of_n_law(reference: Mapping[str, float], reward: Mapping[str, float], n: int) -> dict[str, float]:
    """The exact law of the highest-reward text among n independent draws from ``reference``: F(r)ⁿ − F(r−)ⁿ.

    F is the reference's distribution function of the reward; texts of equal reward share their group's mass in
    proportion to the reference, as a uniform choice among the tied draws does. n = 1 gives the reference.

    Raises ValueError if n < 1, the reference is no distribution, or a candidate with mass lacks a reward.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    support = _support(reference, reward)
    law = dict.fromkeys(reference, 0.0)
    groups: dict[float, list[str]] = {}
    for candidate in sorted(support, key=lambda candidate: reward[candidate]):
        groups.setdefault(reward[candidate], []).append(candidate)
    below = 0.0
    for members in groups.values():
        up_to = below + math.fsum(support[candidate] for candidate in members)
        # (Fⁿ − F₋ⁿ) / (F − F₋), as a sum without a difference: small masses keep their digits.
        factor = math.fsum(up_to**k * below ** (n - 1 - k) for k in range(n))
        for candidate in members:
            law[candidate] = support[candidate] * factor
        below = up_to
    total = math.fsum(law.values())
    return {candidate: mass / total for candidate, mass in law.items()}


def expected_advantage(
    reference: Mapping[str, float],
    score: Mapping[str, float],
    size: int,
    *,
    normalize: Literal["sd", "none"],
    epsilon: float = 0.0,
    rng: np.random.Generator,
) -> dict[str, float]:
    """E[A_j | j drawn] of each text with mass, A_j = s_j − m its advantage in a group of ``size`` = K independent draws from
    ``reference``; positive = scores above its groups' means.

    ``none``: (s_j − Σ_i reference_i·s_i)·(K − 1)/K exactly, for j itself is in the mean. ``sd``: A_j over the group's standard
    deviation (divisor K − 1) plus ``epsilon``, as GRPO trainers have it, 0 where all of a group score alike: the sum over all
    groups of the K − 1 others, which are told apart by their scores; where these are more than MOST_GROUPS, the mean over as
    many drawn by ``rng``, whose standard error is 0.01 at most: its root mean square over draws, for E A² < 1.

    Raises ValueError if size < 2, epsilon < 0, the reference is no distribution, or a candidate with mass lacks a score.
    """
    if size < 2 or not epsilon >= 0.0:
        raise ValueError(f"a group has 2 texts or more and an epsilon of 0 or more, not {size} and {epsilon}")
    support = _support(reference, score)
    if normalize == "none" or not support:
        mean = math.fsum(mass * score[candidate] for candidate, mass in support.items())
        return {candidate: (score[candidate] - mean) * (size - 1) / size for candidate in support}
    values, place = np.unique([score[candidate] for candidate in support], return_inverse=True)
    law = np.bincount(place, weights=np.fromiter(support.values(), dtype=np.float64), minlength=len(values))
    if math.comb(len(values) + size - 2, size - 1) <= MOST_GROUPS:
        others, arrangements = _groups(len(values), size - 1)
        weights = arrangements * law[others].prod(axis=1)
    else:
        others = rng.choice(len(values), size=(MOST_GROUPS, size - 1), p=law / law.sum())
        weights = np.full(MOST_GROUPS, 1.0)
    weights = weights / weights.sum()
    # About one of its own members, so that a group that scores alike has no spread by rounding, and by sums of squares alone.
    shown = values[others]
    away = shown - shown[:, :1]
    center = away.mean(axis=1)
    squares = ((away - center[:, None]) ** 2).sum(axis=1)
    of_value = np.empty(len(values))
    for k, value in enumerate(values):
        distance = value - shown[:, 0] - center
        sd = np.sqrt((squares + distance**2 * (size - 1) / size) / (size - 1))
        advantage = np.divide(distance * (size - 1) / size, sd + epsilon, out=np.zeros_like(sd), where=sd > 0.0)
        of_value[k] = weights @ advantage
    return dict(zip(support, of_value[place].tolist(), strict=True))


@functools.lru_cache(maxsize=8)
def _groups(values: int, size: int) -> tuple[np.ndarray[tuple[int, int], np.dtype[np.intp]], Floats]:
    """All groups of ``size`` draws from so many values, without their order: (n, size) the values' places, and (n,) in how many
    orders each group is drawn."""
    groups = np.array(list(itertools.combinations_with_replacement(range(values), size)), dtype=np.intp)
    orders = np.array(
        [
            math.factorial(size) // math.prod(math.factorial(len(list(run))) for _, run in itertools.groupby(group))
            for group in groups.tolist()
        ],
        dtype=np.float64,
    )
    return groups, orders


def winner(reward: Mapping[str, float]) -> dict[str, float]:
    """The distribution with all mass on the highest reward, shared equally between equal ones; {} for no rewards.

    Raises ValueError if a reward is not finite.
    """
    best = _best(reward)
    return {candidate: 1.0 / len(best) if candidate in best else 0.0 for candidate in reward}


def move_to_winner(
    weights: Mapping[str, float], draw_counts: Mapping[str, int], reward: Mapping[str, float]
) -> dict[str, float]:
    """The weights after those of the judged texts have moved to the highest reward among them; others are unchanged.

    weights: the item's pool weights. draw_counts: how often each text was drawn (0 and absent: not drawn). reward: of the
        drawn texts; a drawn text without a reward was not judged and keeps its weight.

    Equal highest rewards share the moved mass in proportion to their weights, as in ``best_of_n_law``: where all tie (a
    gold judge without a reference, every reply unscored) nothing moves.

    Raises ValueError if the weights are no distribution, or a drawn text is not in the pool.
    """
    _check(weights)
    strangers = [candidate for candidate, times in draw_counts.items() if times > 0 and candidate not in weights]
    if strangers:
        raise ValueError(f"drawn texts that are not in the pool: {', '.join(strangers[:3])}")
    judged_rewards = {
        candidate: reward[candidate]
        for candidate in weights
        if draw_counts.get(candidate, 0) > 0 and candidate in reward
    }
    best = _best(judged_rewards)
    best_mass = math.fsum(weights[candidate] for candidate in best)
    if best_mass == 0.0:
        return dict(weights)
    judged_mass = math.fsum(weights[candidate] for candidate in judged_rewards)
    after = {candidate: 0.0 if candidate in judged_rewards else mass for candidate, mass in weights.items()}
    for candidate in best:
        after[candidate] = judged_mass * (weights[candidate] / best_mass)
    return after


def _best(reward: Mapping[str, float]) -> frozenset[str]:
    """The candidates with the highest reward. Raises ValueError for one that is not finite."""
    for candidate, value in reward.items():
        if not math.isfinite(value):
            raise ValueError(f"the reward of {candidate!r} is {value}")
    top = max(reward.values(), default=0.0)
    return frozenset(candidate for candidate, value in reward.items() if value == top)


def _check(distribution: Mapping[str, float]) -> None:
    if any(not mass >= 0.0 for mass in distribution.values()):
        raise ValueError("a distribution has no negative mass and no NaN")
    total = math.fsum(distribution.values())
    if distribution and not math.isclose(total, 1.0, abs_tol=1e-6):
        raise ValueError(f"a distribution sums to 1, not {total}")


def _support(reference: Mapping[str, float], reward: Mapping[str, float]) -> dict[str, float]:
    """The candidates with mass, each with a finite reward."""
    _check(reference)
    support = {candidate: mass for candidate, mass in reference.items() if mass > 0.0}
    for candidate in support:
        if candidate not in reward:
            raise ValueError(f"candidate {candidate!r} has mass but no reward")
        if not math.isfinite(reward[candidate]):
            raise ValueError(f"the reward of {candidate!r} is {reward[candidate]}")
    return support
