"""From a generation's judgments to its selection S_t, by a fitted signal or without one; pure.

The Bradley–Terry signal is a linear reward on text features, fitted to preferences by ridge logistic regression:
P(first preferred to second) = s(γ + βᵀ(f(first) − f(second)) / scale): docs/method.md, "The content model" without
gold. Positive β = more of the feature is preferred; positive γ = prefers the first slot. Differences are never
mean-centred, so swapping the names of two texts changes nothing. The best-of-n signal has no fit: a text's reward is the
number of times that the judge picked it. Nor has the group advantage, whose rewards are the judge's scores
(``learn_from_scores``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from judgeloop.experiment.schema import (
    BradleyTerrySignalSpec,
    GroupAdvantageSignalSpec,
    RewardSignal,
    SignalSpec,
    TrainingSignal,
)
from judgeloop.kernels import Floats, Integers, cluster_covariance, logistic
from judgeloop.learning import selection
from judgeloop.learning.labels import preferences as label
from judgeloop.records import ORDERS, SIGNAL_COLUMNS, Distribution

ORDER = "order"
"""The name of γ among a signal's features."""

_SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class FittedSignal:
    """A fitted reward r(x) = βᵀf(x)/scale. Positive coefficient = more of the feature is preferred.

    ``coefficients`` are log-odds per scaled unit, by feature (those of ``scale``); ``order_log_odds`` is γ (positive =
    prefers the first slot), None where rows stand for both orders. ``std_error`` has the coefficients' index, and ORDER
    where γ was fitted; NaN where it is not defined (fewer than two items). ``covariance`` is that of the coefficients
    with the same index, None where nothing was compared. ``converged`` is False where the likelihood has no maximum or
    nothing was compared; ``note`` then says which.
    """

    coefficients: pd.Series[float]
    order_log_odds: float | None
    std_error: pd.Series[float]
    scale: pd.Series[float]
    ridge: float
    n: int
    n_items: int
    converged: bool
    note: str = ""
    covariance: pd.DataFrame | None = None

    def reward(self, features: pd.DataFrame) -> pd.Series[float]:
        """r(x) of every text, in log-odds, without the order term; only differences within an item mean anything.

        features: indexed by (item_id, candidate_id). A candidate without text has features that are missing: it has no
        reward and is left out.
        """
        values = features[list(self.scale.index)].to_numpy(dtype=np.float64, na_value=np.nan)
        present = ~np.isnan(values).any(axis=1)
        per_unit = (self.coefficients / self.scale).to_numpy(dtype=np.float64)
        return pd.Series(values[present] @ per_unit, index=features.index[present], name="reward", dtype=float)

    def frame(self, replicate: int, arm: str, generation: int) -> pd.DataFrame:
        """SIGNAL_COLUMNS, a row a feature, and one for ``order`` (scale 1) where γ was fitted."""
        coefficients, errors, scale = self.coefficients.to_dict(), self.std_error.to_dict(), self.scale.to_dict()
        if self.order_log_odds is not None:
            coefficients[ORDER], scale[ORDER] = self.order_log_odds, 1.0
        columns = {
            "replicate": replicate, "arm": arm, "generation": generation, "feature": list(coefficients),
            "coefficient": np.array(list(coefficients.values()), dtype=np.float64),
            "std_error": np.array([errors[name] for name in coefficients], dtype=np.float64),
            "scale": np.array([scale[name] for name in coefficients], dtype=np.float64), "converged": self.converged,
        }  # fmt: skip
        return pd.DataFrame({name: columns[name] for name in SIGNAL_COLUMNS}, index=range(len(coefficients)))


def fit(preferences: pd.DataFrame, features: pd.DataFrame, scale: pd.Series[float], ridge: float) -> FittedSignal:
    """The signal fitted to preferences; it maximises Σ weight·log P(chosen) − ½·ridge·‖β‖².

    preferences: of one replicate, arm and generation, as ``labels.preferences`` returns them. A row with an order
        needs ``candidate_first``; it enters γ's column, which is not penalised and exists only where a row has an order.
    features: a column a feature, indexed by (item_id, candidate_id). scale: the unit of each feature that is fitted (its
        generation-0 SD); features without one are left out.
    ridge: 0 or more, per squared scaled unit, on β alone; it does not grow with the rows.

    Standard errors are the sandwich with the ridge in its bread, clusters = items, G/(G − 1) (Liang & Zeger 1986). The
    two weighted rows of one presentation lie in one cluster, so merging them to a fractional response changes neither
    the fit nor its errors.

    No preferences: coefficients 0, not converged, and the note says so.

    Raises ValueError for a missing ``candidate_first``, a text without features, or a scale that is not positive.
    """
    if not (scale > 0.0).all():
        raise ValueError(f"the scale of {scale.index[~(scale > 0.0)][0]!r} is not positive")
    if preferences.empty:
        return _empty_signal(scale, ridge)
    rows = design(preferences, features, scale)
    fitted = logistic(rows.x, rows.z, rows.weights, float(ridge) * rows.penalised)
    names = [*scale.index, *([ORDER] if rows.has_order else [])]
    n_items = int(rows.clusters.max()) + 1
    if n_items > 1:
        covariance = cluster_covariance(rows.x, rows.z, fitted, rows.clusters)
    else:
        covariance = np.full((len(names), len(names)), math.nan)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return FittedSignal(
        coefficients=pd.Series(fitted.coefficients[: len(scale)], index=scale.index, name="coefficient"),
        order_log_odds=float(fitted.coefficients[-1]) if rows.has_order else None,
        std_error=pd.Series(errors, index=names, name="std_error"),
        scale=scale,
        ridge=float(ridge),
        n=len(preferences),
        n_items=n_items,
        converged=fitted.converged,
        note=_note(fitted.converged, fitted.separated, fitted.identified),
        covariance=pd.DataFrame(covariance, index=names, columns=names),
    )


@dataclass(frozen=True, slots=True)
class Design:
    """What a reward is fitted to: ``x`` (n, p) differences of scaled features, the front text's less the other's, with the order
    column last where rows have an order (``has_order``); ``z`` (n,) 1 where the front text is chosen; ``weights`` (n,);
    ``penalised`` (p,) 1 for a feature and 0 for the order; ``clusters`` (n,) codes of the items."""

    x: Floats
    z: Floats
    weights: Floats
    penalised: Floats
    clusters: Integers
    has_order: bool


def design(preferences: pd.DataFrame, features: pd.DataFrame, scale: pd.Series[float]) -> Design:
    """The rows that ``fit`` fits, with its arguments and errors; preferences, one or more."""
    ordered = preferences["order"].isin(ORDERS).to_numpy(dtype=bool)
    if ordered.any() and "candidate_first" not in preferences.columns:
        raise ValueError(
            "preferences with an order need the column candidate_first, the candidate that was shown first"
        )
    chosen = preferences["chosen"].to_numpy(dtype=object)
    rejected = preferences["rejected"].to_numpy(dtype=object)
    # The front text is the one shown first; without an order any fixed choice gives the same fit, here the smaller id.
    front_is_chosen = chosen < rejected
    if ordered.any():
        front_is_chosen = np.where(
            ordered, chosen == preferences["candidate_first"].to_numpy(dtype=object), front_is_chosen
        )
    of_chosen, of_rejected = _values(preferences, features, scale)
    difference = of_chosen - of_rejected
    x = np.where(front_is_chosen[:, None], difference, -difference)
    penalised = np.ones(len(scale))
    if ordered.any():
        x, penalised = np.column_stack([x, ordered.astype(np.float64)]), np.append(penalised, 0.0)
    return Design(
        x, front_is_chosen.astype(np.float64), preferences["weight"].to_numpy(dtype=np.float64), penalised,
        pd.factorize(preferences["item_id"])[0].astype(np.intp), bool(ordered.any()),
    )  # fmt: skip


def length_controlled(signal: FittedSignal) -> FittedSignal:
    """A fitted signal with the coefficient of length set to 0, and its error too: it is set, not estimated."""
    if "length" not in signal.coefficients.index:
        return signal
    coefficients, errors = signal.coefficients.copy(), signal.std_error.copy()
    coefficients["length"] = errors["length"] = 0.0
    covariance = signal.covariance
    if covariance is not None:
        not_length = (covariance.index != "length").astype("float64")
        covariance = covariance * np.outer(not_length, not_length)
    return dataclasses.replace(signal, coefficients=coefficients, std_error=errors, covariance=covariance)


def generation_zero_scale(features: pd.DataFrame) -> pd.Series[float]:
    """SD (n − 1) of each feature over generation 0's texts: the frozen unit of β. Constant features are left out.

    features: a row a text; a candidate without text (missing features) does not count.
    """
    values = features.astype("float64")
    spread = values.std(ddof=1)
    # By rounding a constant feature can have a spread of 1e-17, a unit in which noise would be huge.
    varies = spread > 1e-12 * values.abs().max()
    return spread[varies].rename("scale")


def _values(preferences: pd.DataFrame, features: pd.DataFrame, scale: pd.Series[float]) -> tuple[Floats, Floats]:
    """(n, p) features of the chosen and of the rejected texts, in scaled units."""
    place = {key: k for k, key in enumerate(features.index)}
    if len(place) < len(features):
        raise ValueError("features hold one row a text, indexed by (item_id, candidate_id)")
    items = preferences["item_id"].tolist() * 2
    texts = [text for side in _SIDES for text in preferences[side].tolist()]
    # A dictionary, for a table of a generation's texts: pandas would sort both indexes anew for each fit.
    positions = np.array([place.get(key, -1) for key in zip(items, texts, strict=True)], dtype=np.intp)

    def named(row: int) -> str:
        return f"{_SIDES[2 * row // len(items)]} text {(items[row], texts[row])}"

    if (positions < 0).any():
        raise ValueError(f"no features of the {named(int(np.argmin(positions)))}")
    table = features[list(scale.index)].to_numpy(dtype=np.float64)[positions] / scale.to_numpy(dtype=np.float64)
    missing = ~np.isfinite(table).all(axis=1)
    if missing.any():
        raise ValueError(f"missing features of the {named(int(np.argmax(missing)))}")
    return table[: len(preferences)], table[len(preferences) :]


def _empty_signal(scale: pd.Series[float], ridge: float) -> FittedSignal:
    return FittedSignal(
        coefficients=pd.Series(0.0, index=scale.index, name="coefficient"),
        order_log_odds=None,
        std_error=pd.Series(math.nan, index=scale.index, name="std_error"),
        scale=scale,
        ridge=float(ridge),
        n=0,
        n_items=0,
        converged=False,
        note="no preferences: every judgment is unscored, of identical texts, or dropped by the label rule",
    )


def _note(converged: bool, separated: bool, identified: bool) -> str:
    if separated:
        return "the picks are separated (as where the judge always picks one slot): the likelihood has no maximum"
    if not converged:
        return "the fit did not converge"
    return "" if identified else "features are collinear and nothing is penalised: coefficients have minimum norm"


def pick_counts(judgments: pd.DataFrame, preferences: pd.DataFrame) -> pd.Series[float]:
    """Picks of each candidate over both orders (0 or more; positive = the judge picks it), ties split ½ and ½.

    judgments: policy-panel judgments (JUDGMENT_COLUMNS) of one replicate, arm and generation. A soft verdict gives each
        side its probability. Unscored judgments count nothing and identical texts' matchups are left out, so a
        candidate that is only in those has 0 picks; one that no judgment shows has no row.
    preferences: those that a label rule makes of them (``labels.preferences``); picks are counted in these.

    Returns picks indexed by (item_id, candidate_id), sorted.

    Raises ValueError if the judgments are of several replicates, arms or generations.
    """
    if len(judgments[["replicate", "arm", "generation"]].drop_duplicates()) > 1:
        raise ValueError("picks are counted within one replicate, arm and generation")
    index = ["item_id", "candidate_id"]
    candidates = pd.concat(
        [
            judgments[["item_id", column]].set_axis(index, axis="columns")
            for column in ("candidate_first", "candidate_second")
        ]
    )
    all_candidates = pd.MultiIndex.from_frame(candidates.drop_duplicates().sort_values(index))
    chosen = preferences.rename(columns={"chosen": "candidate_id"})
    picks = chosen.groupby(index, observed=True)["weight"].sum()
    return picks.reindex(all_candidates, fill_value=0.0).astype("float64").rename("reward")


@dataclass(frozen=True)
class Support:
    """One item's texts: the reference distribution that selection re-weights, and how often each text was drawn."""

    reference: Mapping[str, float]
    draw_counts: Mapping[str, int]


class ToldSignal(Protocol):
    """A fitted signal, as the table ``signals`` tells of it."""

    def frame(self, replicate: int, arm: str, generation: int) -> pd.DataFrame:
        """SIGNAL_COLUMNS."""
        ...


@dataclass(frozen=True)
class LearnedSelection:
    """Preferences, what is told of the fitted signal (None for best_of_n), a reward a text, and the selection S_t an item. Where a model is
    trained on the preferences, nothing is fitted or selected here."""

    preferences: pd.DataFrame
    signal: ToldSignal | None
    rewards: Mapping[str, Mapping[str, float]]
    selection: Distribution


def learn(
    spec: SignalSpec,
    judgments: pd.DataFrame,
    features: pd.DataFrame,
    scale: pd.Series[float],
    supports: Mapping[str, Support],
    *,
    on_pool: bool,
    size: int,
) -> LearnedSelection:
    """One feedback step: the selection S_t from the on-policy judgments of one arm, replicate and generation (docs/method.md,
    "One generation, exactly", 3–5).

    ``features`` is indexed by (item_id, candidate_id) and holds every text of ``supports``; ``scale`` is the replicate's
    generation-0 SD of each feature; ``size`` is K = candidates_per_item. Where nothing was compared the reference distribution
    stays: in the whole generation for bradley_terry (its reward is one for all items), in that item for best_of_n.
    """
    preferences = label(judgments, spec.label_rule)
    if isinstance(spec, TrainingSignal):
        return LearnedSelection(preferences, None, {}, {})
    if isinstance(spec, BradleyTerrySignalSpec):
        fitted = fit(preferences, features, scale, spec.ridge)
        if spec.label_rule == "length_controlled":
            fitted = length_controlled(fitted)
        reward = fitted.reward(features)
    else:
        fitted, reward = None, pick_counts(judgments, preferences)
    rewards = by_item(reward)
    compared = frozenset(preferences["item_id"])
    selections = {}
    for item_id, support in supports.items():
        if not support.reference:
            continue
        if fitted is None and item_id not in compared:
            selections[item_id] = dict(support.reference)
        else:
            selections[item_id] = select(spec, support, rewards.get(item_id, {}), on_pool=on_pool, size=size)
    return LearnedSelection(preferences, fitted, rewards, selections)


def learn_from_scores(
    spec: GroupAdvantageSignalSpec,
    judgments: pd.DataFrame,
    scores: Mapping[str, Mapping[str, float]],
    supports: Mapping[str, Support],
    *,
    size: int,
    stream: Callable[[str], np.random.Generator],
) -> LearnedSelection:
    """One feedback step on a pool from ``scores``, item_id → candidate_id → score: the selection S_t is each reference tilted by
    ``spec.step`` times a text's expected advantage in groups of ``size`` draws from it (docs/method.md, "Scores as rewards").

    A text without a score stands in no group and keeps its weight. ``preferences`` are what the judge's picks say, for the
    tables; nothing is learned from them. ``stream``: item_id → the draws of groups that are too many to enumerate.
    """
    selections, rewards = {}, {}
    for item_id, support in supports.items():
        if not support.reference:
            continue
        known = scores.get(item_id, {})
        # No score is not a score of 0.
        rewards[item_id] = {name: known.get(name, math.nan) for name in support.reference}
        scored = {name: mass for name, mass in support.reference.items() if name in known}
        share = math.fsum(scored.values())
        if share == 0.0:
            selections[item_id] = dict(support.reference)
            continue
        law = {name: mass / share for name, mass in scored.items()}
        advantage = selection.expected_advantage(
            law, known, size, normalize=spec.normalize, epsilon=spec.epsilon, rng=stream(item_id)
        )
        tilted = selection.tilt(law, advantage, 1.0 / spec.step)
        selections[item_id] = {
            name: share * tilted[name] if name in tilted else mass for name, mass in support.reference.items()
        }
    return LearnedSelection(label(judgments, spec.label_rule), None, rewards, selections)


def select(
    spec: SignalSpec, support: Support, reward: Mapping[str, float], *, on_pool: bool, size: int
) -> dict[str, float]:
    """S_t of one item by a ``reward`` a text, of a signal whose reward is fitted or counts picks. A text without a fitted reward
    keeps its weight, which is no reward of 0; on candidates it cannot win."""
    if isinstance(spec, RewardSignal):
        law = {name: mass for name, mass in support.reference.items() if name in reward}
        if len(law) < len(support.reference):
            share = math.fsum(law.values())
            if share == 0.0:
                return dict(support.reference)
            part = Support({name: mass / share for name, mass in law.items()}, support.draw_counts)
            selected = select(spec, part, reward, on_pool=on_pool, size=size)
            if spec.update == "best_of_n" and not on_pool:
                return selected
            return {
                name: share * selected.get(name, 0.0) if name in law else mass
                for name, mass in support.reference.items()
            }
        rewards = {name: reward[name] for name in support.reference}
        if spec.update == "tilt":
            return selection.tilt(support.reference, rewards, spec.tau)
        return selection.best_of_n_law(support.reference, rewards, size) if on_pool else selection.winner(rewards)
    rewards_of_drawn = {name: reward[name] for name in support.draw_counts if name in reward}
    if on_pool:
        return selection.move_to_winner(support.reference, support.draw_counts, rewards_of_drawn)
    return selection.winner(rewards_of_drawn) or dict(support.reference)


def by_item(reward: pd.Series[float]) -> dict[str, dict[str, float]]:
    """item_id → candidate_id → reward, of rewards that are indexed by both."""
    rewards: dict[str, dict[str, float]] = {}
    for (item_id, candidate_id), value in zip(reward.index, reward.to_numpy(dtype=float), strict=True):
        rewards.setdefault(str(item_id), {})[str(candidate_id)] = float(value)
    return rewards
