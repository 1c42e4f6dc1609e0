"""One feedback step, pure: judgments of a generation in, the selection S_t out (DESIGN, "One generation, exactly" 3–5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from judgeloop.experiment.schema import BradleyTerrySignal, Signal
from judgeloop.learning import best_of_n, selection, signals
from judgeloop.learning.labels import preferences as label
from judgeloop.records import Distribution


@dataclass(frozen=True)
class Support:
    """One item's texts: the reference distribution that selection re-weights, and how often each text was drawn."""

    reference: Mapping[str, float]
    drawn: Mapping[str, int]


@dataclass(frozen=True)
class Learned:
    """Preferences, the fitted signal (None for best_of_n), a reward a text, and the selection S_t an item."""

    preferences: pd.DataFrame
    signal: signals.Signal | None
    rewards: Mapping[str, Mapping[str, float]]
    selection: Distribution


def learn(
    spec: Signal,
    judgments: pd.DataFrame,
    features: pd.DataFrame,
    scale: pd.Series[float],
    supports: Mapping[str, Support],
    *,
    on_pool: bool,
    size: int,
) -> Learned:
    """Learn from the on-policy judgments of one arm, replicate and generation.

    ``features`` is indexed by (item_id, candidate_id) and holds every text of ``supports``; ``scale`` is the replicate's
    generation-0 SD of each feature; ``size`` is K = candidates_per_item. Where nothing was compared the reference distribution
    stays: in the whole generation for bradley_terry (its reward is one for all items), in that item for best_of_n.
    """
    preferences = label(judgments, spec.label_rule)
    if isinstance(spec, BradleyTerrySignal):
        fitted = signals.fit(preferences, features, scale, spec.ridge)
        if spec.label_rule == "length_controlled":
            fitted = signals.length_controlled(fitted)
        reward = fitted.reward(features)
    else:
        fitted, reward = None, best_of_n.rewards(judgments, preferences)
    rewards = _by_item(reward)
    compared = frozenset(preferences["item_id"])
    selections = {}
    for item_id, support in supports.items():
        if not support.reference:
            continue
        if fitted is None and item_id not in compared:
            selections[item_id] = dict(support.reference)
        else:
            selections[item_id] = _select(spec, support, rewards.get(item_id, {}), on_pool=on_pool, size=size)
    return Learned(preferences, fitted, rewards, selections)


def _select(
    spec: Signal, support: Support, reward: Mapping[str, float], *, on_pool: bool, size: int
) -> dict[str, float]:
    if isinstance(spec, BradleyTerrySignal):
        rewards = {name: reward[name] for name in support.reference}
        if spec.update == "tilt":
            return selection.tilt(support.reference, rewards, spec.tau)
        return selection.best_of_n_law(support.reference, rewards, size) if on_pool else selection.winner(rewards)
    rewards_of_drawn = {name: reward[name] for name in support.drawn if name in reward}
    if on_pool:
        return selection.move_to_winner(support.reference, support.drawn, rewards_of_drawn)
    return selection.winner(rewards_of_drawn) or dict(support.reference)


def _by_item(reward: pd.Series[float]) -> dict[str, dict[str, float]]:
    by_item: dict[str, dict[str, float]] = {}
    for (item_id, candidate_id), value in zip(reward.index, reward.to_numpy(dtype=float), strict=True):
        by_item.setdefault(str(item_id), {})[str(candidate_id)] = float(value)
    return by_item
