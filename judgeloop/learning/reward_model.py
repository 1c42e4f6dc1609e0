"""The head of a reward model: a reward linear in frozen embeddings, fitted to preferences; and what it inherited; pure.

The fit is that of the Bradley–Terry signal, with the coordinates of embeddings in the place of text features
(docs/method.md, "A reward model"). What it learned has no names there, so it is told by names: the slopes of its reward on the
features, over the fixed pairs of the anchor panel, and the share of held-out preferences that it predicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from judgeloop.experiment.schema import RewardModelSignalSpec
from judgeloop.kernels import Floats, cluster_sums, dense_codes, left_out_log_odds, logistic
from judgeloop.learning.labels import preferences as label
from judgeloop.learning.signals import ORDER, FittedSignal, LearnedSelection, Support, by_item, design, fit, select
from judgeloop.records import SIGNAL_COLUMNS
from judgeloop.stats.inference import Undefined
from judgeloop.stats.judge.pointwise import LinearFit, fit_differences

ACCURACY = "accuracy"
"""The name of the held-out accuracy among the features of the table ``signals``."""
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""The penalties that are tried where none is stated."""
FOLDS = 5
MOST_AXES = 128
"""Directions beyond hold little of the embeddings' variance, and a fit takes time with the square of their number."""
_FLAT = 1e-10
"""Share of the largest variance below which a direction holds nothing but the rounding of float32."""


@dataclass(frozen=True)
class EmbeddingSpace:
    """Coordinates for embeddings: their projection on ``axes`` (d, k), the directions in which texts of one item differ most at
    generation 0, in the unit in which such texts have variance 1 in all directions together. Frozen for all generations."""

    axes: Floats

    def coordinates(self, embeddings: pd.DataFrame) -> pd.DataFrame:
        """(m, k) of the texts of ``embeddings`` (n, d) that have one, with their index."""
        present = embeddings[embeddings.notna().all(axis=1)]
        return pd.DataFrame(present.to_numpy(dtype=np.float64) @ self.axes, index=present.index)


def embedding_space(embeddings: pd.DataFrame) -> EmbeddingSpace | None:
    """The space of ``embeddings`` (n, d), indexed by (item_id, candidate_id); a text without one is left out. None where the texts
    of no item differ."""
    present = embeddings[embeddings.notna().all(axis=1)]
    if present.empty:
        return None
    codes, groups = dense_codes(present.index.get_level_values("item_id").to_numpy(dtype=str))
    values = present.to_numpy(dtype=np.float64)
    means = cluster_sums(values, codes, groups) / np.bincount(codes)[:, None]
    deviations = values - means[codes]
    total = float(np.sum(deviations**2)) / max(len(values) - groups, 1)
    # The eigenvectors of the smaller of the two products: embeddings may have thousands of numbers.
    if len(deviations) < deviations.shape[1]:
        variances, left = np.linalg.eigh(deviations @ deviations.T)
        kept = _leading(variances)
        axes = deviations.T @ left[:, kept] / np.sqrt(variances[kept])
    else:
        variances, right = np.linalg.eigh(deviations.T @ deviations)
        kept = _leading(variances)
        axes = right[:, kept]
    # Equal texts differ by rounding.
    if not kept.any() or total <= _FLAT * float(np.mean(np.sum(values**2, axis=1))):
        return None
    return EmbeddingSpace(axes / math.sqrt(total))


def _leading(variances: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which of the ascending variances are axes: the MOST_AXES largest of those that are no rounding."""
    kept = variances > max(_FLAT * float(variances[-1]), 0.0)
    kept[:-MOST_AXES] = False
    return kept


@dataclass(frozen=True)
class AnchorTexts:
    """The anchor panel: ``pairs`` (item_id, a, b), and the ``features`` and ``embeddings`` of its texts, each indexed by (item_id,
    candidate_id)."""

    pairs: pd.DataFrame
    features: pd.DataFrame
    embeddings: pd.DataFrame


@dataclass(frozen=True)
class RewardModel:
    """A trained head: ``fitted`` to the preferences ``taught``, with texts at ``coordinates`` of its ``space``, by the stated ``ridge``.
    What it is told by is computed when it is asked for."""

    fitted: FittedSignal
    taught: pd.DataFrame
    space: EmbeddingSpace
    coordinates: pd.DataFrame
    ridge: float | None
    anchor: AnchorTexts | None
    near_copies: Mapping[str, str]

    @cached_property
    def slopes(self) -> LinearFit | Undefined:
        """``inherited_slopes``."""
        return inherited_slopes(self.fitted, self.space, self.anchor)

    @cached_property
    def accuracy(self) -> tuple[float, float]:
        """``held_out_accuracy``."""
        return held_out_accuracy(self.taught, self.coordinates, self.ridge, self.near_copies)

    def frame(self, replicate: int, arm: str, generation: int) -> pd.DataFrame:
        """SIGNAL_COLUMNS, a row a feature with a slope, ``order`` where γ was fitted, and ``accuracy`` where it is known."""
        rows: dict[str, tuple[float, float]] = {}
        if isinstance(self.slopes, LinearFit):
            errors = np.sqrt(np.maximum(np.diag(self.slopes.covariance), 0.0))
            rows |= dict(zip(self.slopes.names, zip(self.slopes.coefficients, errors, strict=True), strict=True))
        if self.fitted.order_log_odds is not None:
            rows[ORDER] = self.fitted.order_log_odds, float(self.fitted.std_error[ORDER])
        converged = [self.fitted.converged] * len(rows)
        if not math.isnan(self.accuracy[0]):
            rows[ACCURACY] = self.accuracy
            converged.append(True)
        columns = {
            "replicate": replicate, "arm": arm, "generation": generation, "feature": list(rows),
            "coefficient": [value for value, _ in rows.values()], "std_error": [error for _, error in rows.values()],
            "scale": 1.0, "converged": converged,
        }  # fmt: skip
        return pd.DataFrame(columns, index=range(len(rows)))[list(SIGNAL_COLUMNS)]


def learn_reward_model(
    spec: RewardModelSignalSpec,
    judgments: pd.DataFrame,
    embeddings: pd.DataFrame,
    space: EmbeddingSpace,
    anchor: AnchorTexts | None,
    supports: Mapping[str, Support],
    near_copies: Mapping[str, str],
    *,
    on_pool: bool,
    size: int,
) -> LearnedSelection:
    """One feedback step by a reward model, as ``signals.learn`` by the other signals.

    ``embeddings``: of every text of ``supports``, indexed by (item_id, candidate_id). A text without one (NaN) has no reward: its
    preferences teach nothing, and it keeps its weight. Where nothing was compared the reference distributions stay.
    ``near_copies``: item_id → the item that it copies, of the items that copy one.
    """
    preferences = label(judgments, spec.label_rule)
    coordinates = space.coordinates(embeddings)
    known = _known(preferences, coordinates, "chosen") & _known(preferences, coordinates, "rejected")
    taught = preferences[known]
    fitted = train(taught, coordinates, spec.ridge)
    reward = fitted.reward(coordinates)
    model = RewardModel(fitted, taught, space, coordinates, spec.ridge, anchor, near_copies)
    known_rewards, rewards, selections = by_item(reward), {}, {}
    for item_id, support in supports.items():
        if support.reference:
            known_of_item = known_rewards.get(item_id, {})
            selections[item_id] = select(spec, support, known_of_item, on_pool=on_pool, size=size)
            # No embedding is not a reward of 0.
            rewards[item_id] = {name: known_of_item.get(name, math.nan) for name in support.reference}
    return LearnedSelection(preferences, model, rewards, selections)


def train(preferences: pd.DataFrame, coordinates: pd.DataFrame, ridge: float | None) -> FittedSignal:
    """The head fitted to preferences by ``signals.fit``; ``coordinates`` of all their texts, indexed by (item_id, candidate_id).
    ``ridge`` None: the one of RIDGES that predicts left-out items best."""
    unit = pd.Series(1.0, index=coordinates.columns, name="scale")
    if ridge is None:
        ridge = best_ridge(preferences, coordinates)
    return fit(preferences, coordinates, unit, ridge)


def best_ridge(preferences: pd.DataFrame, coordinates: pd.DataFrame) -> float:
    """The penalty of RIDGES with the least logistic loss over preferences of an item that was left out, by the one-step
    jackknife; the largest of equals. 1 with fewer than two items, which leave nothing to choose by."""
    if preferences["item_id"].nunique() < 2:
        return 1.0
    rows = design(preferences, coordinates, pd.Series(1.0, index=coordinates.columns))
    losses = {}
    for ridge in reversed(RIDGES):
        fitted = logistic(rows.x, rows.z, rows.weights, ridge * rows.penalised)
        losses[ridge] = math.inf
        with suppress(np.linalg.LinAlgError):
            eta = left_out_log_odds(rows.x, rows.z, fitted, rows.clusters)
            loss = float(np.sum(rows.weights * (np.logaddexp(0.0, eta) - rows.z * eta)))
            losses[ridge] = loss if math.isfinite(loss) else math.inf
    return min(losses, key=losses.__getitem__)


def held_out_accuracy(
    preferences: pd.DataFrame, coordinates: pd.DataFrame, ridge: float | None, near_copies: Mapping[str, str]
) -> tuple[float, float]:  # fmt: skip
    """(share of the preferences' weight that a head trained on other items predicts, standard error by item); ½ = chance, equal
    rewards count half. Items are dealt to FOLDS folds in their order, near-copies to one, and a head's penalty is chosen among its
    own items.

    NaN with fewer than two items.
    """
    codes, items = pd.factorize(preferences["item_id"].replace(dict(near_copies)), sort=True)
    if len(items) < 2:
        return math.nan, math.nan
    predicted, folds = np.empty(len(preferences)), codes % FOLDS
    for fold in np.unique(folds):
        held_out = folds == fold
        reward = train(preferences[~held_out], coordinates, ridge).reward(coordinates)
        rows = preferences[held_out]
        chosen, rejected = (reward.reindex(_index(rows, side)).to_numpy() for side in ("chosen", "rejected"))
        gap = np.where(np.abs(chosen - rejected) < 1e-12, 0.0, chosen - rejected)
        predicted[held_out] = (1.0 + np.sign(gap)) / 2.0
    weights = preferences["weight"].to_numpy(dtype=np.float64)
    share = float(np.average(predicted, weights=weights))
    residuals = np.bincount(codes, weights=weights * (predicted - share)) / weights.sum()
    return share, float(np.sqrt(len(items) / (len(items) - 1.0) * np.sum(residuals**2)))


def inherited_slopes(
    fitted: FittedSignal, space: EmbeddingSpace, anchor: AnchorTexts | None
) -> LinearFit | Undefined:  # fmt: skip
    """The slopes of the reward on the text features, over the pairs of the anchor panel: least squares of the differences in
    reward on those in all features, through the origin, clustered by item. Log-odds per unit of a feature."""
    if anchor is None:
        return Undefined("there is no anchor panel")
    reward = fitted.reward(space.coordinates(anchor.embeddings))
    sides = [_index(anchor.pairs, side) for side in ("a", "b")]
    gap = reward.reindex(sides[0]).to_numpy() - reward.reindex(sides[1]).to_numpy()
    measured = [anchor.features.reindex(side).to_numpy(dtype=np.float64) for side in sides]
    used, differences = ~np.isnan(gap), measured[0] - measured[1]
    names = np.isfinite(differences).all(axis=0)
    if not used.any() or not names.any():
        return Undefined("no anchor pair has two rewards and features")
    return fit_differences(
        list(anchor.features.columns[names]), differences[used][:, names], gap[used],
        anchor.pairs["item_id"].to_numpy(dtype=object)[used],
    )  # fmt: skip


def _known(
    preferences: pd.DataFrame, coordinates: pd.DataFrame, side: str
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(n,) whether the text on that side has coordinates."""
    return np.asarray(_index(preferences, side).isin(coordinates.index), dtype=np.bool_)


def _index(rows: pd.DataFrame, side: str) -> pd.MultiIndex:
    """(item_id, candidate_id) of the text on that side of the rows."""
    return pd.MultiIndex.from_arrays([rows["item_id"], rows[side]], names=["item_id", "candidate_id"])
