"""Forecast: the drift to expect before a loop is run, from a judge's slopes and the texts that it would choose from.

Positive = more of the feature than before any feedback. The model is that of docs/method.md, "The linear world": a
linear reward r(x) = bᵀx that does not change, texts whose features have covariance Σ within an item, and a next policy
that is its training set (no learning error). One selection moves the mean by Σb/τ (tilt), or by Σb·e_n/√(bᵀΣb) (best of
n); a strategy mixes. A *pool* is finite and is re-weighted; otherwise each generation *drafts anew* around its mean.

Prediction limits are for the drift that a run would measure: they include the error of the slopes, of Σ, of each
generation's own fit, and of the texts that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import Estimate, estimate_row, replicate_mean
from judgeloop.stats.inference import LEVEL, largest_normal, quantile
from judgeloop.stats.loop.replicates import MeasuredCandidates

Floats = NDArray[np.float64]
Update = Literal["tilt", "best_of_n", "winners"]

DRAWS = 4000
_POOLS = 1000
_TILTS = 25


@dataclass(frozen=True)
class SelectionPressure:
    """How a judge selects among texts with p features.

    - ``slopes`` (p,): for an ``update`` tilt or best_of_n, the learned reward's log-odds per unit of each feature; for
      ``winners`` (no fit) the selection differential of pair winners: the winning text's mean feature minus the pair's mean
    - ``covariance`` (p, p): of the slopes over items, on ``df`` degrees of freedom
    - ``scatter`` (p, p): divided by the number of preferences, the covariance of slopes learned anew from fresh pairs of the
      same items
    - ``calls``: for ``winners`` by noisy calls, (log-odds of a pick per SD of the score, log-odds of the first slot); None
      where picks follow the score
    """

    slopes: Floats
    covariance: Floats
    df: int
    scatter: Floats
    calls: tuple[float, float] | None = None


@dataclass(frozen=True)
class Texts:
    """The texts to choose from: ``covariance`` (p, p) of their features within items at generation 0, on ``df`` degrees of
    freedom."""

    covariance: Floats
    df: int


@dataclass(frozen=True)
class ForecastLoop:
    """The loop to forecast: T = ``generations`` steps of ``items`` items.

    - ``pool``: texts an item that are re-weighted; None where each generation drafts anew
    - ``size``: texts an item and generation (K); None for a whole distribution (selection from infinitely many)
    - ``rows``: preferences a generation and replicate; ``replicates``: how many are averaged
    - ``real`` (p,): the real data's feature means minus generation 0's
    """

    generations: int
    update: Update = "tilt"
    tau: float = 1.0
    strategy: Literal["replace", "accumulate", "accumulate_subsample"] = "replace"
    real_fraction: float = 0.0
    real: Floats | None = None
    reference: Literal["previous", "base"] = "previous"
    pool: int | None = None
    size: int | None = 4
    items: int = 100
    rows: float = 1000.0
    replicates: int = 1


@dataclass(frozen=True)
class Forecast:
    """Drift as arrays (T, q): a row a generation from 1, a column a combination of features.

    ``expected`` is the closed form at the estimated slopes, ``std_error`` its error; 95 % of runs would measure a drift
    between ``low`` and ``high``.
    """

    expected: Floats
    std_error: Floats
    low: Floats
    high: Floats


def forecast(
    pull: SelectionPressure, texts: Texts, course: ForecastLoop, combinations: Floats | None = None, *, seed: int = 0
) -> Forecast:
    """The drift of each combination of features and generation, with 95 % prediction limits.

    ``combinations`` (q, p): the weights of the features in each (default: each feature by itself). Slopes are drawn from their t distribution
    4,000 times, and each draw is followed through the loop. Raises ValueError where generations < 1, or for a best of
    fewer than 2.
    """
    if course.generations < 1:
        raise ValueError("generations must be 1 or more")
    if course.update != "tilt" and (course.size is None or course.size < 2):
        raise ValueError("a best of n needs 2 texts or more")
    stream = rng(seed, "forecast")
    weights = np.eye(len(pull.slopes)) if combinations is None else combinations
    gains = _winner_gains(pull, course, seed)
    expected = _paths(pull.slopes[None], np.ones(1), texts, course, gains, seed)[0]
    slopes = pull.slopes + _multivariate_t(pull.covariance, pull.df, stream)
    spread = stream.chisquare(max(texts.df, 1), DRAWS) / max(texts.df, 1)
    means = _paths(slopes, spread, texts, course, gains, seed)
    measured = means + _noise(pull, slopes, texts, course, gains, seed, stream)
    low, high = np.quantile(measured @ weights.T, [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0], axis=0)
    return Forecast(expected @ weights.T, np.std(means @ weights.T, axis=0, ddof=1), low, high)


FULLEST_RESPONSE = 2.0
"""The most that a training is taken to move a model, in selections: 1 = as far as its chosen texts, which is all that imitation
can do; a contrast of chosen and rejected texts can go beyond them."""


def unknown_response(
    pull: SelectionPressure, generations: int, combinations: Floats, *, adds_up: bool = True
) -> Forecast:
    """The drift of a model that is trained on pair winners, whose response to a selection nobody knows before it is trained.

    ``expected``: each training moves the model as far as its chosen texts. The limits hold every response from 0 (nothing is
    learned) to ``FULLEST_RESPONSE``, and the selection's own error. ``adds_up``: each training starts where the last one ended.
    """
    steps = _steps(generations, adds_up)[:, None]
    moved = combinations @ pull.slopes
    error = np.sqrt(np.maximum(np.einsum("qp,pr,qr->q", combinations, pull.covariance, combinations), 0.0))
    reach = quantile(0.5 + LEVEL / 2.0, max(pull.df, 1)) * error
    low, high = np.minimum(moved - reach, 0.0), np.maximum(moved + reach, 0.0)
    return Forecast(steps * moved, steps * error, FULLEST_RESPONSE * steps * low, FULLEST_RESPONSE * steps * high)


def steps_like_first(
    first: float, std_error: float, measured: int, generations: int, *, replicates: int | None, adds_up: bool = True
) -> Forecast:
    """The drift of a trained model if every later step is like the ``first`` one that was measured, arrays (T, 1).

    ``std_error``: of the mean first step over its ``measured`` (2 or more) independent replicates. The limits are for the mean
    of ``replicates`` new loops, or (None) for the same ones further on: there steps that vary by themselves leave a variance of
    T(T − 1), and noise of the measuring one of T² − T + 1, times the first step's, of which the larger is taken.
    """
    steps = _steps(generations, adds_up)[:, None]
    if replicates is None:
        factor = np.where(steps == 1, 2.0, steps**2 - steps + 1)
        factor[0] = 0.0
    else:
        factor = steps**2 + steps * measured / replicates
    reach = quantile(0.5 + LEVEL / 2.0, measured - 1) * std_error * np.sqrt(factor)
    return Forecast(steps * first, steps * std_error, steps * first - reach, steps * first + reach)


def _steps(generations: int, adds_up: bool) -> Floats:
    """(T,) how many steps a model is away from generation 0, after each training."""
    return np.arange(1.0, generations + 1.0) if adds_up else np.ones(generations)


def follow(shifts: Floats, course: ForecastLoop, real: Floats | None = None) -> Floats:
    """(draws, T, …) means after each step, from the ``shifts`` (draws, T, …) that each selection adds to its starting mean.

    The linear law of docs/method.md, "The linear world": replace trains on the selection; accumulate on equal parts
    of generation 0 and all selections; a share ``real_fraction`` is real data, at ``real`` (default generation 0's
    mean, 0).
    """
    mean = np.zeros_like(shifts[:, 0])
    fixed = np.zeros_like(mean) if real is None else mean + real
    total, means = np.zeros_like(mean), []
    for t in range(course.generations):
        selected = shifts[:, t] + (0.0 if course.reference == "base" else mean)
        total = total + selected
        mixed = selected if course.strategy == "replace" else total / (t + 2)
        mean = (1.0 - course.real_fraction) * mixed + course.real_fraction * fixed
        means.append(mean)
    return np.stack(means, axis=1)


def _paths(
    slopes: Floats, spread: Floats, texts: Texts, course: ForecastLoop, gains: tuple[float, float], seed: int
) -> Floats:
    """(draws, T, p) drift at each draw of the slopes (draws, p) and of the size of the texts' covariance (draws,)."""
    loading, strength = _score(slopes, spread, texts, course, gains)
    if course.pool is None:
        travelled = follow(_gain(strength, course, gains, seed)[:, None] * _spreads(course, gains), course)
    else:
        travelled = _pool_paths(strength, course, gains, seed)
    drift = travelled[:, :, None] * loading[:, None, :]
    if course.real is not None:
        still = np.zeros((1, course.generations, len(course.real)))
        drift = drift + follow(still, course, course.real)
    return np.asarray(drift, dtype=np.float64)


def _winner_gains(pull: SelectionPressure, course: ForecastLoop, seed: int) -> tuple[float, float]:
    """How far the winner of 2 and the winner of K lie above the mean, in SDs of the score.

    e_2 and e_K where the picks follow the score; less where each call is random (``pull.calls``), by 20,000 simulated rounds
    of every pair in both orders. (0, 0) for a tilt, which has no winner.
    """
    if course.update == "tilt":
        return 0.0, 0.0
    assert course.size is not None
    if course.update == "best_of_n" or pull.calls is None:
        return largest_normal(2)[0], largest_normal(course.size)[0]
    spread, position = pull.calls
    winner_gains = []
    for size in (2, course.size):
        stream = rng(seed, "forecast", "rounds", size)
        score = stream.standard_normal((20_000, size))
        gap = spread * (score[:, :, None] - score[:, None, :])
        upper = np.triu(np.ones((size, size)), 1)
        picks = np.zeros_like(score)
        for slot in (position, -position):
            won = (stream.random(gap.shape) < 1.0 / (1.0 + np.exp(-gap - slot))) * upper
            picks += won.sum(axis=2) + (upper - won).sum(axis=1)
        best = picks == picks.max(axis=1, keepdims=True)
        winner_gains.append(float(np.mean(np.sum(best * score, axis=1) / best.sum(axis=1))))
    return max(winner_gains[0], 1e-3), max(winner_gains[1], 1e-3)


def _score(
    slopes: Floats, spread: Floats, texts: Texts, course: ForecastLoop, gains: tuple[float, float]
) -> tuple[Floats, Floats]:
    """(draws, p) covariance of the features with the standardised score that selects, and (draws,) that score's SD over τ."""
    if course.update == "winners":
        # The winner of 2 moves the mean by its gain times this covariance.
        return slopes / gains[0], np.ones(len(slopes))
    pulled = slopes @ texts.covariance
    size = np.sqrt(np.maximum(np.einsum("dp,dp->d", pulled, slopes), 0.0))
    safe = np.where(size > 0, size, 1.0)
    root = np.sqrt(spread)
    return pulled / safe[:, None] * root[:, None], size * root / course.tau


def _gain(strength: Floats, course: ForecastLoop, gains: tuple[float, float], seed: int) -> Floats:
    """(draws,) the change that one selection makes to the mean of a standard normal score."""
    if course.update != "tilt":
        return np.full(len(strength), gains[1])
    if course.size is None:
        return strength
    drawn = rng(seed, "forecast", "candidates", course.size).standard_normal((20_000, course.size))
    grid = _grid(strength)
    means = [float(np.mean(np.sum(_softmax(c * drawn) * drawn, axis=1) - drawn.mean(axis=1))) for c in grid]
    return np.interp(strength, grid, means)


def _spreads(course: ForecastLoop, gains: tuple[float, float]) -> Floats:
    """(T,) SD of the score in each generation.

    A tilt keeps a Gaussian's SD; the best of n leaves √v_n of it; a mixture has the variance within and between its parts.
    """
    if course.update == "tilt" or course.reference == "base":
        return np.ones(course.generations)
    assert course.size is not None
    e, v = gains[1], largest_normal(course.size)[1]
    # Picks that follow the score only in part lose that part of the variance.
    v = 1.0 - (1.0 - v) * (e / largest_normal(course.size)[0]) ** 2
    mean, variance, parts, spreads = 0.0, 1.0, [(0.0, 1.0)], []
    for _ in range(course.generations):
        spreads.append(math.sqrt(variance))
        parts.append((mean + e * math.sqrt(variance), v * variance))
        chosen = parts[-1:] if course.strategy == "replace" else parts
        share = np.full(len(chosen), (1.0 - course.real_fraction) / len(chosen))
        all_parts, shares = [*chosen, (0.0, 1.0)], np.append(share, course.real_fraction)
        means, variances = np.array(all_parts).T
        mean = float(shares @ means)
        variance = float(shares @ (variances + (means - mean) ** 2))
    return np.array(spreads)


def _pool_paths(strength: Floats, course: ForecastLoop, gains: tuple[float, float], seed: int) -> Floats:
    """(draws, T) mean standard normal score of re-weighted pools, by simulated pools whose weights are exact."""
    grid = _grid(strength) if course.update == "tilt" else np.ones(1)
    paths = np.array([_pool_path(float(c), course, gains, seed)[0] for c in grid])
    if len(grid) == 1:
        return np.broadcast_to(paths[0], (len(strength), course.generations))
    return np.stack([np.interp(strength, grid, paths[:, t]) for t in range(course.generations)], axis=1)


def _pool_path(c: float, course: ForecastLoop, gains: tuple[float, float], seed: int) -> tuple[Floats, Floats, Floats]:
    """(T,) each: the mean change of the score over pools, its variance, and the mean of Σ(w_t − w_0)².

    The last is the variance of a feature that is independent of the score, per unit variance. ``c``: the score's SD over τ.
    """
    assert course.pool is not None
    stream = rng(seed, "forecast", "pools", course.pool)
    score = np.sort(stream.standard_normal((_POOLS, course.pool)), axis=1)
    base = np.full_like(score, 1.0 / course.pool)

    def select(weights: Floats) -> Floats:
        if course.update == "winners":
            assert course.size is not None
            return _weights_to_winners(weights, gains[1] / largest_normal(course.size)[0], course.size, stream)
        return selected(weights, score, c, course)

    moves = [weights - base for weights in pool_weights(base, select, course, stream)]
    along = np.array([np.sum(move * score, axis=1) for move in moves])
    return along.mean(axis=1), along.var(axis=1), np.array([np.mean(np.sum(move**2, axis=1)) for move in moves])


def pool_weights(
    base: Floats,
    select: Callable[[Floats], Floats],
    course: ForecastLoop,
    stream: np.random.Generator,
    *,
    zero: Floats | None = None,
    real: Floats | None = None,
) -> list[Floats]:
    """The weights of pools after each step, T arrays (pools, M), from ``base`` before any feedback; rows sum to 1.

    ``select`` makes a selection from the reference weights. ``zero``: what training sets hold of generation 0, ``real`` of
    real data (default ``base`` and ``zero``). ``stream`` draws the training sets of accumulate_subsample.
    """
    zero = base if zero is None else zero
    real = zero if real is None else real
    weights, selections, path = base, [zero], []
    for _ in range(course.generations):
        chosen = select(base if course.reference == "base" else weights)
        selections = [*selections, chosen] if course.strategy != "replace" else [chosen]
        mixture = (1.0 - course.real_fraction) * np.mean(selections, axis=0) + course.real_fraction * real
        if course.strategy == "accumulate_subsample" and course.size is not None:
            mixture = stream.multinomial(course.size, mixture / mixture.sum(axis=1, keepdims=True)) / course.size
        weights = mixture
        path.append(weights)
    return path


def selected(weights: Floats, score: Floats, c: float, course: ForecastLoop) -> Floats:
    """(pools, M) the selection that a fitted reward makes from ``weights``: a tilt by exp(c·score), or the best of K.

    Scores ascend in each row.
    """
    if course.update == "tilt":
        raw = weights * np.exp(c * (score - score[:, -1:]))
        return np.asarray(raw / raw.sum(axis=1, keepdims=True))
    assert course.size is not None
    up_to = np.cumsum(weights, axis=1)
    best = up_to**course.size - np.maximum(up_to - weights, 0.0) ** course.size
    return np.asarray(best / best.sum(axis=1, keepdims=True))


def _weights_to_winners(weights: Floats, share: float, size: int, stream: np.random.Generator) -> Floats:
    """(pools, M) weights after K texts a pool were drawn and their weight has moved to the winner among them.

    The winner is the drawn text of the highest score (the last in the row) in a ``share`` of cases, a random one in others.
    """
    rows = np.arange(len(weights))
    up_to = np.cumsum(weights, axis=1)
    up_to[:, -1] = 1.0
    drawn = np.sum(up_to[:, None, :] <= stream.random((len(weights), size))[:, :, None], axis=2)
    taken = np.zeros(weights.shape, dtype=bool)
    taken[rows[:, None], drawn] = True
    follows = stream.random(len(weights)) < share
    winner = np.where(follows, drawn.max(axis=1), drawn[rows, stream.integers(size, size=len(weights))])
    after = np.where(taken, 0.0, weights)
    after[rows, winner] += np.sum(np.where(taken, weights, 0.0), axis=1)
    return after


def _noise(
    pull: SelectionPressure, slopes: Floats, texts: Texts, course: ForecastLoop, gains: tuple[float, float], seed: int,
    stream: np.random.Generator,
) -> Floats:  # fmt: skip
    """(draws, T, p) the deviation of one loop's measured drift from its mean, given judge and texts."""
    shape = (DRAWS, course.generations, len(pull.slopes))
    sigma, loops = _root(texts.covariance), float(course.items * course.replicates)
    fitted = stream.standard_normal(shape) @ _root(pull.scatter / (course.rows * course.replicates)).T
    shifts = _fit_error_shifts(slopes, fitted, texts, course, gains)
    if course.pool is None and course.size is not None and course.update != "winners":
        sum_of_squares = _summed_squares(pull, texts, course, stream)
        shifts = shifts + stream.standard_normal(shape) @ sigma.T * math.sqrt(sum_of_squares / loops)
    if course.strategy == "accumulate_subsample" and course.size is not None:
        shifts = shifts + stream.standard_normal(shape) @ sigma.T * math.sqrt(1.0 / (course.size * loops))
    noise = follow(shifts, course)
    if course.pool is not None:
        # The pools that happen to be drawn stay through the loop: one draw for all generations.
        loading, strength = _score(pull.slopes[None], np.ones(1), texts, course, gains)
        _, along, across = _pool_path(float(strength[0]), course, gains, seed)
        rest = _root(texts.covariance - np.outer(loading[0], loading[0]))
        by_score = stream.standard_normal((DRAWS, 1, 1)) * np.sqrt(along / loops)[None, :, None] * loading[0]
        by_rest = (stream.standard_normal((DRAWS, 1, shape[2])) @ rest.T) * np.sqrt(across / loops)[None, :, None]
        noise = noise + by_score + by_rest
    if course.size is not None:
        before, after = stream.standard_normal((DRAWS, 1, shape[2])), stream.standard_normal(shape)
        noise = noise + (after - before) @ sigma.T * math.sqrt(1.0 / (course.size * loops))
    return np.asarray(noise, dtype=np.float64)


def _fit_error_shifts(
    slopes: Floats, fitted: Floats, texts: Texts, course: ForecastLoop, gains: tuple[float, float]
) -> Floats:
    """(draws, T, p) the change that errors ``fitted`` (draws, T, p) of each generation's own fit make to its selection."""
    if course.update == "tilt":
        finite = course.pool or course.size
        return np.asarray(fitted @ texts.covariance / course.tau * (1.0 if finite is None else 1.0 - 1.0 / finite))
    assert course.size is not None
    if course.update == "winners":
        moved = 1.0 if course.pool is None else 1.0 - (1.0 - 1.0 / course.pool) ** course.size
        return np.asarray(fitted * (gains[1] / gains[0] * moved))
    flat = (slopes[:, None, :] + fitted).reshape(-1, fitted.shape[2])
    loading, _ = _score(flat, np.ones(len(flat)), texts, course, gains)
    centre, _ = _score(slopes, np.ones(len(slopes)), texts, course, gains)
    gain = gains[1] * _spreads(course, gains)[None, :, None]
    return np.asarray((loading.reshape(fitted.shape) - centre[:, None, :]) * gain)


def _summed_squares(pull: SelectionPressure, texts: Texts, course: ForecastLoop, stream: np.random.Generator) -> float:
    """Mean of Σ(weight)² of a selection over its candidates: 1/K where all weigh the same, 1 where one is selected."""
    if course.update != "tilt":
        return 1.0
    assert course.size is not None
    _, strength = _score(pull.slopes[None], np.ones(1), texts, course, (1.0, 1.0))
    weights = _softmax(strength[0] * stream.standard_normal((2000, course.size)))
    return float(np.mean(np.sum(weights**2, axis=1)))


def _grid(strength: Floats) -> Floats:
    """(_TILTS,) strengths of a tilt from 0 to the largest, between which results are interpolated."""
    return np.linspace(0.0, max(float(np.max(strength)), 1e-9), _TILTS)


def _softmax(values: Floats) -> Floats:
    raw = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def _multivariate_t(covariance: Floats, df: int, stream: np.random.Generator) -> Floats:
    """(DRAWS, p) draws of a multivariate t, centred at 0, with scale matrix ``covariance`` (p, p)."""
    normal = stream.standard_normal((DRAWS, len(covariance))) @ _root(covariance).T
    return np.asarray(normal * np.sqrt(max(df, 1) / stream.chisquare(max(df, 1), DRAWS))[:, None])


def _root(covariance: Floats) -> Floats:
    """R (p, p) with RRᵀ = ``covariance``; directions whose variance rounding made negative are left out."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


# Finite pools: what a taste that does not change makes of one, and how much of its range a loop has used up.


_PASSES = 10
"""How often the draws of accumulate_subsample are repeated: one set of them is as noisy as the run's own."""


@dataclass(frozen=True)
class ConstantTaste:
    """The course of one arm's pools under its signal of generation 0.

    ``rows``: the n pool texts; ``groups`` (n,) the replicate and item of each, as a number; ``weights``: three arrays (n,),
    the texts' weights at generations 0, 1 and T.
    """

    rows: pd.DataFrame
    groups: NDArray[np.intp]
    weights: tuple[Floats, Floats, Floats]

    def moves(self, quantity: str) -> tuple[float, float]:
        """The expected drift of a quantity after 1 and after T steps, mean over replicates and items; NaN where it has no value."""
        values = self.rows[quantity].to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        zero, *later = (_group_means(values[finite], w[finite], self.groups[finite]) for w in self.weights)
        first, last = (float(np.mean(means - zero)) if len(zero) else np.nan for means in later)
        return first, last


def _group_means(values: Floats, weights: Floats, groups: NDArray[np.intp]) -> Floats:
    """Weighted means of the groups that have weight."""
    total = np.bincount(groups, weights=weights)
    summed = np.bincount(groups, weights=weights * values, minlength=len(total))
    return np.asarray(summed[total > 0] / total[total > 0], dtype=np.float64)


def constant_taste(
    measured: MeasuredCandidates, slopes: pd.DataFrame | None, arm: ArmDesign, design: Design, size: int | None
) -> ConstantTaste | None:
    """What the signal of generation 0, held constant, makes of an arm's pools; None where it is not known.

    ``slopes``: replicate × feature, generation 0's fitted slopes in estimate units; their mean over replicates is the taste,
    since one replicate's own error, repeated T times, would pass for a taste. ``size``: candidates an item (K). Not known
    are policies that draft anew, picks without a fitted signal, and replicates whose weights were not recorded.
    """
    if arm.policy_kind != "pool" or slopes is None or size is None:
        return None
    if arm.update == "training" or arm.update == "group_advantage":  # noqa: PLR1714 - mypy reads this
        return None
    if "p_current" not in measured.rows.columns:
        return None
    rows = measured.rows[(measured.rows["arm"] == arm.name) & (measured.rows["generation"] == 0)]
    rows = rows[pd.to_numeric(rows["p_current"]).notna()]
    mean = slopes.mean().dropna()
    if rows.empty or mean.empty:
        return None
    reward = rows[mean.index].to_numpy(dtype=np.float64) @ mean.to_numpy(dtype=np.float64)
    groups = rows.groupby(["replicate", "item_id"], sort=True, observed=True).ngroup().to_numpy().astype(np.intp)
    # A row of the arrays is a pool, its texts in ascending order of the reward, behind cells without a text.
    order = np.lexsort((reward, groups))
    counts = np.bincount(groups)
    widest = int(counts.max())
    place = np.empty(len(rows), dtype=np.intp)
    place[order] = (
        np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(widest - counts, counts)
    )

    def pools(values: Floats, missing: float) -> Floats:
        table = np.full((len(counts), widest), missing)
        table[groups, place] = values
        return table

    base, drawn = (
        pools(pd.to_numeric(rows[name]).to_numpy(dtype=np.float64), 0.0) for name in ("p_current", "n_drawn")
    )
    base, zero = base / base.sum(axis=1, keepdims=True), drawn / drawn.sum(axis=1, keepdims=True)
    added = pools(np.asarray(rows["p_current"] == 0, dtype=np.float64), 0.0)
    # Real texts of a file join the pool without weight; without a file generation 0's candidates are the real data.
    n_added = added.sum(axis=1, keepdims=True)
    real = np.where(n_added > 0, added / np.maximum(n_added, 1.0), zero)
    course = ForecastLoop(
        design.generations, arm.update, arm.tau, arm.strategy, arm.real_fraction, None, arm.reference, widest, size
    )
    score = pools(reward, -np.inf)
    stream = rng(design.seed, "constant taste", arm.name)
    passes = _PASSES if arm.strategy == "accumulate_subsample" else 1
    first, last = np.zeros_like(base), np.zeros_like(base)
    for _ in range(passes):
        path = pool_weights(
            base, lambda weights: selected(weights, score, 1.0 / arm.tau, course), course, stream, zero=zero, real=real
        )
        first, last = first + path[0] / passes, last + path[-1] / passes
    return ConstantTaste(rows, groups, (base[groups, place], first[groups, place], last[groups, place]))


RANGE_USED = "pool_range_used"


def range_estimates(measured: MeasuredCandidates, design: Design) -> list[Estimate]:
    """Rows ``pool_range_used_<quantity>`` of every pool arm at the last generation: a share, 1 = nothing is left of the pool.

    How far the mean under the pool's weights has moved since generation 0, over how far it could: to the item's text with
    the most of the quantity (the least, where it falls), both means over items; t over replicates. A description.
    """
    rows: list[Estimate] = []
    quantities = [quantity for quantity in measured.quantities if quantity.has_sd and not quantity.undefined]
    if measured.rows.empty or "p_current" not in measured.rows.columns or design.generations < 1:
        return rows
    for arm in design.arms:
        if arm.policy_kind != "pool":
            continue
        shares, n_items = _shares_used(measured.rows, arm.name, design.generations, [q.name for q in quantities])
        for quantity in quantities:
            values = shares[quantity.name].dropna()
            result = replicate_mean(
                values, "the pool's weights were not recorded, or its texts are alike", tested=False
            )
            rows.append(estimate_row(
                result, null=None, scope="policy", bias=quantity.bias, term=f"{RANGE_USED}_{quantity.name}", arm=arm.name,
                generation=design.generations, unit="ratio", n=len(values), n_items=n_items, n_replicates=len(values),
            ))  # fmt: skip
    return rows


def _shares_used(table: pd.DataFrame, arm: str, last: int, names: Sequence[str]) -> tuple[pd.DataFrame, int]:
    """(replicate × quantity, items) the share of the pools' range that is used at generation ``last``; NaN where there is none."""
    part = table[
        (table["arm"] == arm) & table["generation"].isin([0, last]) & pd.to_numeric(table["p_current"]).notna()
    ]
    keys = ["generation", "replicate", "item_id"]
    weighted = part[[*names]].mul(pd.to_numeric(part["p_current"]), axis=0)
    means = pd.concat([part[keys], weighted], axis=1).groupby(keys, sort=True, observed=True).sum()
    texts = part[part["generation"] == 0].groupby(keys[1:], sort=True, observed=True)[[*names]]
    if not len(texts) or last not in means.index.get_level_values("generation"):
        return pd.DataFrame(columns=[*names], dtype="float64"), 0
    start = means.xs(0, level="generation")
    moved = (means.xs(last, level="generation") - start).groupby(level="replicate").mean()
    up = (texts.max() - start).groupby(level="replicate").mean()
    down = (start - texts.min()).groupby(level="replicate").mean()
    rises = moved.to_numpy(dtype=np.float64).mean(axis=0) >= 0
    reach = pd.DataFrame(np.where(rises, up, -down), index=up.index, columns=up.columns)
    return moved / reach.where(reach.abs() > 1e-9), part["item_id"].nunique()
