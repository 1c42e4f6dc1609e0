"""Biases of a judge that scores one text at a time. Positive slopes = gives more to more of the feature.

A score has no slot. Its biases are a taste for length and style, the pull of a number whatever it means (seen on a
reversed scale), crowding at the scale's ends, and picks that are not those of the same judge asked about the pair.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.estimate import (
    PROBABILITY,
    RATE_MARGIN,
    Bias,
    Estimate,
    RowLabels,
    SampleCounts,
    estimates_frame,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, cluster_mean, clustered_proportion, t_interval
from judgeloop.stats.items import by_category, remarked
from judgeloop.stats.judge.covariates import gold_margin
from judgeloop.stats.judge.slopes import FEWEST_ITEMS
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import first_picked, not_identical
from judgeloop.text.features import FEATURES
from judgeloop.text.templates import Scale

# Least squares through the origin, and statistics of sums, with the jackknife over clusters for their uncertainty.
METHOD = "jackknife t by item"


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Coefficients (p,) of ``names`` and their jackknife covariance over ``df`` + 1 clusters."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    df: int

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough between the texts")
        j = self.names.index(name)
        se = math.sqrt(max(0.0, float(self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, self.df, method=f"least squares through the origin, {METHOD}"
        )


def fit_linear(names: tuple[str, ...], x: Floats, y: Floats, clusters: NDArray[Any]) -> LinearFit | Undefined:
    """y (n,) on x (n, p) without an intercept; rows depend within ``clusters`` (n,).

    The exact delete-one-cluster jackknife, that is CR3: cautious with few clusters. Undefined where the columns do not
    identify the coefficients with every cluster left out in turn.
    """
    kept, codes = np.unique(clusters, return_inverse=True)
    groups, p = len(kept), x.shape[1]
    if groups <= p:
        return Undefined(f"{groups} items are too few for {p} coefficients")
    products, sums = np.zeros((groups, p, p)), np.zeros((groups, p))
    np.add.at(products, codes, x[:, :, None] * x[:, None, :])
    np.add.at(sums, codes, x * y[:, None])
    information, total = products.sum(axis=0), sums.sum(axis=0)
    scale = np.sqrt(np.diag(information))
    if np.any(scale == 0) or np.linalg.matrix_rank(information / np.outer(scale, scale), hermitian=True) < p:
        return Undefined(f"{', '.join(names)} are collinear on these pairs")
    left = (information - products) / np.outer(scale, scale)
    if np.any(np.linalg.eigvalsh(left)[:, 0] < 1e-10):
        return Undefined("a single item identifies a slope; more items are needed")
    b = np.linalg.solve(information, total)
    without = np.linalg.solve(left, ((total - sums) / scale)[:, :, None])[:, :, 0] / scale
    spread = without - without.mean(axis=0)
    return LinearFit(names, b, (groups - 1.0) / groups * spread.T @ spread, groups - 1)


def jackknifed(
    sums: Floats, statistic: Callable[[Floats], Floats], *, low: float = -math.inf, high: float = math.inf
) -> Interval | Undefined:
    """A statistic of sums over clusters: ``sums`` (G, k) a row a cluster, ``statistic`` (…, k) → (…); limits are clipped
    to [low, high]."""
    groups = len(sums)
    if groups < 3:
        return Undefined(f"{groups} items: a jackknife over items needs 3 or more")
    total = sums.sum(axis=0)
    values = statistic(np.concatenate([total[None], total - sums]))
    if not np.all(np.isfinite(values)):
        return Undefined("with some item left out there is nothing to compute it from")
    spread = values[1:] - values[1:].mean()
    se = math.sqrt((groups - 1.0) / groups * float(np.sum(spread**2)))
    found = t_interval(float(values[0]), se, groups - 1, method=METHOD)
    return Interval(
        found.estimate, found.std_error, max(low, found.low), min(high, found.high), found.level, None, found.df, METHOD
    )


Floats = NDArray[np.float64]

POINTS, LENGTHS = "score points", "scale lengths"
_TEXT = ["item_id", "candidate_id"]
_NO_SCORE = Undefined("no text has a score")
_NO_PAIR = Undefined("no pair of different texts has two scores")


def score_frame(
    scores: pd.DataFrame,
    pairs: pd.DataFrame,
    texts: pd.DataFrame,
    scales: Sequence[Scale],
    judgments: pd.DataFrame | None = None,
    *,
    panel: str = "pairs",
) -> pd.DataFrame:
    """``score_estimates`` of every judge, over all items and by ``category``, with adjusted p-values."""
    rows: list[Estimate] = []
    spread = feature_spread(texts)
    for judge, some in scores.groupby("judge", sort=True):
        own = None if judgments is None else judgments[(judgments["judge"] == judge) & (judgments["panel"] == panel)]
        labels = RowLabels(str(judge), panel=panel)
        rows += score_estimates(some, pairs, texts, scales, labels, own, spread=spread)
        for category, part, remark in by_category(some):
            named = RowLabels(str(judge), panel=panel, category=category)
            kept = pairs[pairs["item_id"].isin(part["item_id"].unique())]
            rows += remarked(score_estimates(part, kept, texts, scales, named, own, spread=spread), remark)
    return adjust(with_judge_families(estimates_frame(rows)))


def feature_spread(texts: pd.DataFrame) -> dict[str, float]:
    """Feature → its standard deviation over all texts, by which style slopes are scaled."""
    return {name: float(texts[name].astype("float64").std(ddof=1)) if len(texts) > 1 else 0.0 for name in FEATURES}


def score_estimates(
    scores: pd.DataFrame,
    pairs: pd.DataFrame,
    texts: pd.DataFrame,
    scales: Sequence[Scale],
    labels: RowLabels,
    judgments: pd.DataFrame | None = None,
    *,
    spread: Mapping[str, float],
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """The ``score_*`` terms of one judge.

    ``scores``: a row a call, ``item_id, candidate_id, repeat, scale`` (a name), ``score, at_worst, at_best`` (NaN where
    unscored). ``pairs``: ``pair_id, item_id, candidate_a, candidate_b`` and ``gold``. ``texts``: ``item_id, candidate_id``
    and features. The first of ``scales`` is the primary one; all but anchoring is of it. ``judgments``: the same judge's
    verdicts on the pairs, where it was asked. ``spread``: the features' standard deviations over all texts.
    """
    primary = scores[scores["scale"] == scales[0].name]
    made = _scored(primary, pairs)
    scored, note = made.scored, f"on the scale {scales[0].name}"
    known = SampleCounts(len(made.means), made.means["item_id"].nunique(), made.unscored)
    calls = SampleCounts(len(scored), scored["item_id"].nunique(), made.unscored)

    def share(column: str) -> Interval | Undefined:
        return _NO_SCORE if scored.empty else clustered_proportion(scored[column], scored["item_id"])

    mean = _NO_SCORE if scored.empty else cluster_mean(made.means["score"], made.means["item_id"])
    return [
        row(labels, "quality", "score_mean", mean, known, unit=POINTS, null=None, note=note),
        row(labels, "quality", "score_sd", _deviation(made.means), known, unit=POINTS, null=None, note=f"over texts; {note}"),
        row(labels, "quality", "score_ceiling_share", share("at_best"), calls, unit=PROBABILITY, null=None, note=note),
        row(labels, "quality", "score_floor_share", share("at_worst"), calls, unit=PROBABILITY, null=None, note=note),
        row(labels, "quality", "score_repeatability", _repeatability(scored), calls, unit="ratio", null=None),
        *_anchoring(scores, scales, labels, margin),
        *_slopes(made, texts, spread, labels),
        *_of_pairs(made, judgments, labels),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _ScoredTexts:
    """A judge's ``scored`` calls on the primary scale, their ``means`` by text, and the pairs whose two different texts
    have one (``both``: ``score_a, score_b``, ``margin`` of gold, NaN where not known)."""

    scored: pd.DataFrame
    means: pd.DataFrame
    both: pd.DataFrame
    unscored: int


def _scored(primary: pd.DataFrame, pairs: pd.DataFrame) -> _ScoredTexts:
    scored = primary.dropna(subset=["score"])
    means = scored.groupby(_TEXT, sort=False)["score"].mean().reset_index()
    both = not_identical(pairs).reset_index(drop=True)
    for side in "ab":
        renamed = means.rename(columns={"candidate_id": f"candidate_{side}", "score": f"score_{side}"})
        both = both.merge(renamed, on=["item_id", f"candidate_{side}"], how="left")
    both = both.dropna(subset=["score_a", "score_b"]).reset_index(drop=True)
    gold = both["gold"] if "gold" in both else pd.Series("", index=both.index)
    return _ScoredTexts(scored, means, both.assign(margin=gold_margin(gold)[0]), len(primary) - len(scored))


def _deviation(means: pd.DataFrame) -> Interval | Undefined:
    """The standard deviation over texts."""
    if len(means) < 2:
        return _NO_SCORE if means.empty else Undefined("one text has a score; a spread needs 2 or more")

    def deviation(sums: Floats) -> Floats:
        n, x, xx = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(np.maximum(0.0, (xx - x * x / n) / (n - 1.0))))

    x = means["score"].to_numpy(dtype=np.float64)
    # Centred first: sums of squares of equal scores would leave the rounding of their size.
    x = x - x.mean()
    return jackknifed(_by_item(means["item_id"], np.ones_like(x), x, x * x), deviation, low=0.0)


def _repeatability(scored: pd.DataFrame) -> Interval | Undefined:
    """1 − the share of the variance of single scores that lies within texts: ICC(1), by analysis of variance."""
    texts = scored.groupby(_TEXT, sort=False)["score"].agg(["size", "mean", "var"]).reset_index()
    if texts.empty:
        return _NO_SCORE
    if not (texts["size"] > 1).any():
        return Undefined("every text was scored once; --repeats 2 or more tells noise from differences between texts")
    if float(scored["score"].std(ddof=0)) == 0:
        return Undefined("all scores are equal: there is no variance to share")
    n = texts["size"].to_numpy(dtype=np.float64)
    m = texts["mean"].to_numpy(dtype=np.float64) - float(scored["score"].mean())
    within = np.nan_to_num(texts["var"].to_numpy(dtype=np.float64)) * (n - 1.0)

    def ratio(sums: Floats) -> Floats:
        k, total, squares, x, xx, inside = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            noise = inside / (total - k)
            between = (xx - x * x / total) / (k - 1.0)
            usual = (total - squares / total) / (k - 1.0)
            return np.asarray((between - noise) / (between + (usual - 1.0) * noise))

    return jackknifed(_by_item(texts["item_id"], np.ones_like(n), n, n * n, n * m, n * m * m, within), ratio, high=1.0)


def _by_item(items: pd.Series, *columns: Floats) -> Floats:
    codes, kept = pd.factorize(items)
    return np.stack([np.bincount(codes, weights=column, minlength=len(kept)) for column in columns], axis=1)


def _anchoring(scores: pd.DataFrame, scales: Sequence[Scale], labels: RowLabels, margin: float) -> list[Estimate]:
    """Where the same text stands between worst and best on another scale, less where it stands on the primary one."""
    if len(scales) < 2:
        none = Undefined(
            "one scale was asked; a second one, best the reversed one, shows what the numbers themselves pull"
        )
        return [row(labels, "position", "score_scale_anchoring", none, SampleCounts(0, 0), unit=LENGTHS)]
    shares = []
    for scale in scales:
        some = scores[scores["scale"] == scale.name].dropna(subset=["score"])
        placed = some.assign(place=[scale.share(float(value)) for value in some["score"]])
        shares.append(placed.groupby(_TEXT, sort=False)["place"].mean())
    rows = []
    for number, scale in enumerate(scales[1:], start=1):
        gap = (shares[number] - shares[0]).dropna().reset_index()
        lost = scores[scores["scale"].isin([scale.name, scales[0].name])]["score"].isna().sum()
        found = _NO_SCORE if gap.empty else bounded_mean(gap["place"], gap["item_id"], -1.0, 1.0)
        rows.append(row(
            labels, "position", "score_scale_anchoring", found, SampleCounts(len(gap), gap["item_id"].nunique(), int(lost)),
            unit=LENGTHS, variant="" if number == 1 else scale.name, margin=margin, note=f"{scale.name} less {scales[0].name}",
        ))  # fmt: skip
    return rows


def _slopes(made: _ScoredTexts, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels) -> list[Estimate]:
    """Score difference of a pair's two texts on their differences in features: what they share, the item, drops out."""
    both = made.both
    names = [name for name in FEATURES if name == "length" or spread.get(name, 0.0) > 0]
    differences = _feature(both, texts, "a", names) - _feature(both, texts, "b", names)
    differences /= np.array([1.0 if name == "length" else spread[name] for name in names])
    y = (both["score_a"] - both["score_b"]).to_numpy(dtype=np.float64)
    items, margin = both["item_id"].to_numpy(), both["margin"].to_numpy(dtype=np.float64)
    known = ~np.isnan(margin)
    raw = _fit(names, differences, y, items) if len(both) else _NO_PAIR
    given: LinearFit | Undefined = Undefined("no gold: what the judge likes cannot be told from what is better")
    if known.any():
        given = _fit(names, differences[known], y[known], items[known], margin[known])
    rows = []
    for name in names:
        bias: Bias = "verbosity" if name == "length" else "style"
        unit = f"{POINTS} per {'doubling' if name == 'length' else 'generation-0 SD'}"
        for variant, fit, used, note in (
            ("", given, known, "gold taken as exact; if it errs, quality it misses counts as bias"),
            ("no_gold", raw, np.ones(len(both), dtype=bool), "raw: quality is not held equal"),
        ):
            slope = fit if isinstance(fit, Undefined) else fit.slope(name)
            counts = SampleCounts(int(used.sum()), len(np.unique(items[used])), made.unscored)
            rows.append(row(
                labels, bias, f"score_{name}_slope", slope, counts, unit=unit, variant=variant, note=note,
                null=0.0 if not variant else None,
            ))  # fmt: skip
    return rows


def _feature(both: pd.DataFrame, texts: pd.DataFrame, side: str, names: Sequence[str]) -> Floats:
    right = texts.rename(columns={"candidate_id": f"candidate_{side}"}).drop_duplicates(
        ["item_id", f"candidate_{side}"]
    )
    left = both[["item_id", f"candidate_{side}"]].merge(right, on=["item_id", f"candidate_{side}"], how="left")
    return left[list(names)].to_numpy(dtype=np.float64)


def _fit(
    names: Sequence[str], differences: Floats, y: Floats, items: NDArray[np.object_], gold: Floats | None = None
) -> LinearFit | Undefined:
    """All features that differ in enough items together, and gold beside them."""
    used = [
        j for j, name in enumerate(names)
        if len(np.unique(items[differences[:, j] != 0])) >= (1 if name == "length" else FEWEST_ITEMS)
    ]  # fmt: skip
    columns, kept = [differences[:, j] for j in used], [names[j] for j in used]
    if gold is not None and np.any(gold != 0):
        columns, kept = [*columns, gold], [*kept, "gold"]
    if not kept:
        return Undefined("the texts do not differ in any feature")
    return fit_linear(tuple(kept), np.stack(columns, axis=1), y, items)


def _of_pairs(made: _ScoredTexts, judgments: pd.DataFrame | None, labels: RowLabels) -> list[Estimate]:
    """What the two scores of a pair say of it, against gold and against the judge's own verdict on the pair."""
    both = made.both
    gap = (both["score_a"] - both["score_b"]).to_numpy(dtype=np.float64)
    # Means of repeats and of probabilities are equal but for rounding.
    pick = np.where(np.abs(gap) < 1e-9, 0.0, np.sign(gap))
    items = both["item_id"].to_numpy()
    tied = _NO_PAIR if both.empty else clustered_proportion(pick == 0, items)
    margin = both["margin"].to_numpy(dtype=np.float64)
    decided = np.nan_to_num(margin) != 0
    agreed: Interval | Undefined = Undefined("no gold" if np.all(np.isnan(margin)) else "gold ties every pair that has two scores")  # fmt: skip
    if decided.any():
        agreed = clustered_proportion((1.0 + pick[decided] * np.sign(margin[decided])) / 2.0, items[decided])
    other = _pairwise(both, judgments)
    judged = ~np.isnan(other)
    differ: Interval | Undefined = Undefined("the judge was not asked about the pairs; --against-pairwise asks it")
    if judgments is not None and len(judgments):
        differ = Undefined("no pair has two scores and a verdict in both orders")
    if judged.any():
        differ = clustered_proportion(np.abs(pick[judged] - other[judged]) / 2.0, items[judged])

    def counts(used: NDArray[np.bool_]) -> SampleCounts:
        return SampleCounts(int(used.sum()), len(np.unique(items[used])), made.unscored)

    every = np.ones(len(both), dtype=bool)
    return [
        row(labels, "quality", "score_pair_ties", tied, counts(every), unit=PROBABILITY, null=None),
        row(labels, "quality", "score_gold_agreement", agreed, counts(decided), unit=PROBABILITY, null=None,
            note="equal scores count half; pairs that gold ties are left out"),
        row(labels, "quality", "score_pairwise_disagreement", differ, counts(judged), unit=PROBABILITY, null=None,
            note="a tie on one side alone counts half"),
    ]  # fmt: skip


def _pairwise(both: pd.DataFrame, judgments: pd.DataFrame | None) -> Floats:
    """(n,) +1 where the judge picks a over both orders, −1 b, 0 neither; NaN without a verdict in both orders."""
    if judgments is None or judgments.empty:
        return np.full(len(both), np.nan)
    picked = first_picked(judgments)
    a = picked.where(judgments["order"] == "ab", 1.0 - picked)
    mean = a.groupby([judgments["pair_id"], judgments["order"]]).mean().unstack().reindex(columns=["ab", "ba"])
    lead = mean.mean(axis=1, skipna=False).reindex(both["pair_id"]).to_numpy(dtype=np.float64) - 0.5
    return np.where(np.abs(lead) < 1e-9, 0.0, np.sign(lead))
