"""Biases of a judge that scores one text at a time (docs/method.md, "Scores").

A score has no slot. Its biases are for length and style, for a number whatever it means (seen on a reversed scale),
crowding at the scale's ends, and picks that differ from those of the same judge asked about the pair. Slopes are score
points per doubling (length) or generation-0 SD (style), by least squares through the origin on the differences of a
pair's two texts; positive = gives more to more of the feature. Uncertainty by the delete-one-item jackknife.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import (
    cluster_informations,
    cluster_sums,
    dense_codes,
    distinct,
    jackknife_error,
    satterthwaite_df,
)
from judgeloop.stats.estimate import (
    PROBABILITY,
    RATE_MARGIN,
    Estimate,
    RowLabels,
    SampleCounts,
    estimates_frame,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, cluster_mean, clustered_proportion, t_interval
from judgeloop.stats.items import by_category, remarked
from judgeloop.stats.judge.covariates import GOLD_AS_EXACT, NO_GOLD, feature_bias, feature_unit, gold_margin
from judgeloop.stats.judge.slopes import FEWEST_ITEMS
from judgeloop.stats.multiplicity import adjust, with_judge_families
from judgeloop.stats.presentations import CLUSTER, Booleans, Floats, clusters, not_identical, picked_a
from judgeloop.text.features import FEATURES
from judgeloop.text.templates import Scale

POINTS, LENGTHS = "score points", "scale lengths"
METHOD = "jackknife t by item"
_TEXT_KEYS = ["item_id", "candidate_id", CLUSTER]
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
    gold_exact: bool = False,
) -> pd.DataFrame:
    """``score_estimates`` of every judge, over all items and by ``category``, with adjusted p-values.

    They are what ``audit --mode pointwise`` reports. ``scores`` also has ``judge`` and ``category``; ``judgments``:
    pairwise verdicts of the same judges, where they were asked. ``gold_exact``: gold cannot err, see ``score_estimates``.
    """
    rows: list[Estimate] = []
    spread = feature_spread(texts)
    for judge, judge_scores in scores.groupby("judge", sort=True):
        judge_verdicts = (
            None if judgments is None else judgments[(judgments["judge"] == judge) & (judgments["panel"] == panel)]
        )
        labels = RowLabels(str(judge), panel=panel)
        rows += score_estimates(
            judge_scores, pairs, texts, scales, labels, judge_verdicts, spread=spread, gold_exact=gold_exact
        )
        for category, category_scores, remark in by_category(judge_scores):
            category_labels = RowLabels(str(judge), panel=panel, category=category)
            category_pairs = pairs[pairs["item_id"].isin(category_scores["item_id"].unique())]
            rows += remarked(
                score_estimates(
                    category_scores,
                    category_pairs,
                    texts,
                    scales,
                    category_labels,
                    judge_verdicts,
                    spread=spread,
                    gold_exact=gold_exact,
                ),
                remark,
            )
    return adjust(with_judge_families(estimates_frame(rows)))


def feature_spread(texts: pd.DataFrame) -> dict[str, float]:
    """Standard deviation of each feature over all texts, by which style slopes are scaled; 0 for a single text."""
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
    gold_exact: bool = False,
) -> list[Estimate]:
    """The ``score_*`` terms of one judge.

    ``scores``: a row a call, ``item_id, candidate_id, repeat, scale`` (a name), ``score, at_worst, at_best`` (NaN where
    unscored). ``pairs``: ``pair_id, item_id, candidate_a, candidate_b`` and ``gold``. ``texts``: ``item_id,
    candidate_id`` and features. The first of ``scales`` is the primary one; all terms but anchoring are of it.
    ``judgments``: the same judge's verdicts on the pairs, where it was asked. ``spread``: the features' standard
    deviations over all texts. ``margin``: equivalence margin of rates. ``gold_exact``: gold
    cannot err; else the slopes given gold describe, for where quality that gold misses goes with length, an unbiased
    judge has one.
    """
    of_item = dict(zip(scores["item_id"], clusters(scores), strict=True))
    scores = scores.assign(**{CLUSTER: clusters(scores)})
    pairs = pairs.assign(**{CLUSTER: pairs["item_id"].map(of_item).fillna(pairs["item_id"])})
    primary = scores[scores["scale"] == scales[0].name]
    scored_texts = _scored_texts(primary, pairs)
    scored, note = scored_texts.scored, f"on the scale {scales[0].name}"
    text_counts = SampleCounts(len(scored_texts.means), scored_texts.means[CLUSTER].nunique(), scored_texts.unscored)
    call_counts = SampleCounts(len(scored), scored[CLUSTER].nunique(), scored_texts.unscored)

    def share(column: str) -> Interval | Undefined:
        return _NO_SCORE if scored.empty else clustered_proportion(scored[column], scored[CLUSTER])

    mean = _NO_SCORE if scored.empty else cluster_mean(scored_texts.means["score"], scored_texts.means[CLUSTER])
    return [
        row(labels, "quality", "score_mean", mean, text_counts, unit=POINTS, null=None, note=note),
        row(labels, "quality", "score_sd", _spread_of_means(scored_texts.means), text_counts, unit=POINTS, null=None,
            note=f"over texts; {note}"),
        row(labels, "quality", "score_ceiling_share", share("at_best"), call_counts, unit=PROBABILITY, null=None,
            note=note),
        row(labels, "quality", "score_floor_share", share("at_worst"), call_counts, unit=PROBABILITY, null=None,
            note=note),
        row(labels, "quality", "score_repeatability", _repeatability(scored), call_counts, unit="ratio", null=None),
        *_anchoring_rows(scores, scales, labels, margin),
        *_slope_rows(scored_texts, texts, spread, labels, gold_exact),
        *_pair_rows(scored_texts, judgments, labels),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class _ScoredTexts:
    """A judge's scores on the primary scale.

    ``scored``: its calls with a score; ``means``: the mean score by text; ``pairs``: the pairs of different texts that
    both have one (``score_a, score_b``, ``margin`` of gold, NaN where not known); ``unscored``: calls without a score.
    """

    scored: pd.DataFrame
    means: pd.DataFrame
    pairs: pd.DataFrame
    unscored: int


def _scored_texts(primary: pd.DataFrame, pairs: pd.DataFrame) -> _ScoredTexts:
    """The scores of the calls ``primary`` on one scale, by text and by pair."""
    scored = primary.dropna(subset=["score"])
    means = scored.groupby(_TEXT_KEYS, sort=False)["score"].mean().reset_index()
    scored_pairs = not_identical(pairs).reset_index(drop=True)
    for side in "ab":
        renamed = means.drop(columns=CLUSTER).rename(
            columns={"candidate_id": f"candidate_{side}", "score": f"score_{side}"}
        )
        scored_pairs = scored_pairs.merge(renamed, on=["item_id", f"candidate_{side}"], how="left")
    scored_pairs = scored_pairs.dropna(subset=["score_a", "score_b"]).reset_index(drop=True)
    gold = scored_pairs["gold"] if "gold" in scored_pairs else pd.Series("", index=scored_pairs.index)
    return _ScoredTexts(scored, means, scored_pairs.assign(margin=gold_margin(gold)[0]), len(primary) - len(scored))


def _spread_of_means(means: pd.DataFrame) -> Interval | Undefined:
    """The standard deviation over texts of their mean scores, in score points."""
    if len(means) < 2:
        return _NO_SCORE if means.empty else Undefined("one text has a score; a spread needs 2 or more")

    def deviation(sums: Floats) -> Floats:
        n, x, xx = np.moveaxis(sums, -1, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.sqrt(np.maximum(0.0, (xx - x * x / n) / (n - 1.0))))

    x = means["score"].to_numpy(dtype=np.float64)
    # Centred first: sums of squares of equal scores would leave the rounding of their size.
    x = x - x.mean()
    return jackknifed(_sums_by_item(means[CLUSTER], np.ones_like(x), x, x * x), deviation, low=0.0)


def _repeatability(scored: pd.DataFrame) -> Interval | Undefined:
    """ICC(1), by analysis of variance: 1 − the share of the variance of single scores that lies within texts."""
    texts = scored.groupby(_TEXT_KEYS, sort=False)["score"].agg(["size", "mean", "var"]).reset_index()
    if texts.empty:
        return _NO_SCORE
    if not (texts["size"] > 1).any():
        return Undefined(
            "every text was scored once; with --repeats 2 or more noise can be separated from differences between texts"
        )
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

    return jackknifed(
        _sums_by_item(texts[CLUSTER], np.ones_like(n), n, n * n, n * m, n * m * m, within), ratio, high=1.0
    )


def _sums_by_item(items: pd.Series, *columns: Floats) -> Floats:
    """(G, k) sums of the k ``columns`` (n,) by item."""
    codes, unique_items = pd.factorize(items)
    return cluster_sums(np.stack(columns, axis=1), codes, len(unique_items))


def _anchoring_rows(scores: pd.DataFrame, scales: Sequence[Scale], labels: RowLabels, margin: float) -> list[Estimate]:
    """``score_scale_anchoring``: a text's place between worst (0) and best (1) on another scale, minus on the primary."""
    if len(scales) < 2:
        undefined = Undefined(
            "one scale was asked; a second one, best the reversed one, shows whether the judge favours a number whatever it means"
        )
        return [row(labels, "position", "score_scale_anchoring", undefined, SampleCounts(0, 0), unit=LENGTHS)]
    shares = []
    for scale in scales:
        scale_scores = scores[scores["scale"] == scale.name].dropna(subset=["score"])
        placed = scale_scores.assign(place=[scale.share(float(value)) for value in scale_scores["score"]])
        shares.append(placed.groupby(_TEXT_KEYS, sort=False)["place"].mean())
    rows = []
    for number, scale in enumerate(scales[1:], start=1):
        gap = (shares[number] - shares[0]).dropna().reset_index()
        unscored = int(scores[scores["scale"].isin([scale.name, scales[0].name])]["score"].isna().sum())
        counts = SampleCounts(len(gap), gap[CLUSTER].nunique(), unscored)
        result = _NO_SCORE if gap.empty else bounded_mean(gap["place"], gap[CLUSTER], -1.0, 1.0)
        rows.append(row(
            labels, "position", "score_scale_anchoring", result, counts, unit=LENGTHS,
            variant="" if number == 1 else scale.name, margin=margin, note=f"{scale.name} minus {scales[0].name}",
        ))  # fmt: skip
    return rows


def _slope_rows(
    scored_texts: _ScoredTexts, texts: pd.DataFrame, spread: Mapping[str, float], labels: RowLabels,
    gold_exact: bool,
) -> list[Estimate]:  # fmt: skip
    """``score_<feature>_slope``: score differences of pairs on feature differences, in which the item cancels."""
    pairs = scored_texts.pairs
    names = [name for name in FEATURES if name == "length" or spread.get(name, 0.0) > 0]
    differences = _side_features(pairs, texts, "a", names) - _side_features(pairs, texts, "b", names)
    differences /= np.array([1.0 if name == "length" else spread[name] for name in names])
    y = (pairs["score_a"] - pairs["score_b"]).to_numpy(dtype=np.float64)
    items, margin = pairs[CLUSTER].to_numpy(), pairs["margin"].to_numpy(dtype=np.float64)
    has_gold = ~np.isnan(margin)
    raw = fit_differences(names, differences, y, items) if len(pairs) else _NO_PAIR
    given_gold: LinearFit | Undefined = Undefined(NO_GOLD)
    if has_gold.any():
        given_gold = fit_differences(names, differences[has_gold], y[has_gold], items[has_gold], margin[has_gold])
    rows = []
    for name in names:
        bias, unit = feature_bias(name), feature_unit(name, POINTS)
        for variant, fit, used, note in (
            ("", given_gold, has_gold, "" if gold_exact else GOLD_AS_EXACT),
            ("no_gold", raw, np.ones(len(pairs), dtype=bool), "raw: quality is not held equal"),
        ):
            slope = fit if isinstance(fit, Undefined) else fit.slope(name)
            counts = SampleCounts(int(used.sum()), distinct(items[used]), scored_texts.unscored)
            rows.append(row(
                labels, bias, f"score_{name}_slope", slope, counts, unit=unit, variant=variant, note=note,
                null=0.0 if gold_exact and not variant else None,
            ))  # fmt: skip
    return rows


def _side_features(pairs: pd.DataFrame, texts: pd.DataFrame, side: str, names: Sequence[str]) -> Floats:
    """(n, p) features ``names`` of the texts ``a`` or ``b`` (``side``) of the pairs; NaN where not known."""
    features = texts.rename(columns={"candidate_id": f"candidate_{side}"}).drop_duplicates(
        ["item_id", f"candidate_{side}"]
    )
    rows = pairs[["item_id", f"candidate_{side}"]].merge(features, on=["item_id", f"candidate_{side}"], how="left")
    return rows[list(names)].to_numpy(dtype=np.float64)


def fit_differences(
    names: Sequence[str], differences: Floats, y: Floats, items: NDArray[np.object_], gold: Floats | None = None
) -> LinearFit | Undefined:
    """Fit of the score differences ``y`` (n,) of pairs on their ``differences`` (n, p) in the features ``names`` that differ in
    enough of the ``items`` (n,), and on ``gold`` (n,) where it is given."""
    used = [
        j for j, name in enumerate(names)
        if distinct(items[differences[:, j] != 0]) >= (1 if name == "length" else FEWEST_ITEMS)
    ]  # fmt: skip
    columns, column_names = [differences[:, j] for j in used], [names[j] for j in used]
    if gold is not None and np.any(gold != 0):
        columns, column_names = [*columns, gold], [*column_names, "gold"]
    if not column_names:
        return Undefined("the texts do not differ in any feature")
    return fit_linear(tuple(column_names), np.stack(columns, axis=1), y, items)


def _pair_rows(scored_texts: _ScoredTexts, judgments: pd.DataFrame | None, labels: RowLabels) -> list[Estimate]:
    """The two scores of a pair as a pick: its ties, agreement with gold, and disagreement with the judge's verdict."""
    pairs = scored_texts.pairs
    gap = (pairs["score_a"] - pairs["score_b"]).to_numpy(dtype=np.float64)
    # Means of repeats and of probabilities are equal but for rounding.
    pick = np.where(np.abs(gap) < 1e-9, 0.0, np.sign(gap))
    items = pairs[CLUSTER].to_numpy()
    tied = _NO_PAIR if pairs.empty else clustered_proportion(pick == 0, items)
    margin = pairs["margin"].to_numpy(dtype=np.float64)
    decided = np.nan_to_num(margin) != 0
    no_gold = np.all(np.isnan(margin))
    agreement: Interval | Undefined = Undefined("no gold" if no_gold else "gold ties every pair that has two scores")
    if decided.any():
        agreement = clustered_proportion((1.0 + pick[decided] * np.sign(margin[decided])) / 2.0, items[decided])
    pairwise = _pairwise_picks(pairs, judgments)
    has_verdict = ~np.isnan(pairwise)
    disagreement: Interval | Undefined = Undefined(
        "the judge was not asked about the pairs; --against-pairwise asks it"
    )
    if judgments is not None and len(judgments):
        disagreement = Undefined("no pair has two scores and a verdict in both orders")
    if has_verdict.any():
        disagreement = clustered_proportion(np.abs(pick[has_verdict] - pairwise[has_verdict]) / 2.0, items[has_verdict])

    def counts(used: Booleans) -> SampleCounts:
        return SampleCounts(int(used.sum()), distinct(items[used]), scored_texts.unscored)

    all_pairs = np.ones(len(pairs), dtype=bool)
    return [
        row(labels, "quality", "score_pair_ties", tied, counts(all_pairs), unit=PROBABILITY, null=None),
        row(labels, "quality", "score_gold_agreement", agreement, counts(decided), unit=PROBABILITY, null=None,
            note="equal scores count half; pairs that gold ties are left out"),
        row(labels, "quality", "score_pairwise_disagreement", disagreement, counts(has_verdict), unit=PROBABILITY,
            null=None, note="a tie on one side alone counts half"),
    ]  # fmt: skip


def _pairwise_picks(pairs: pd.DataFrame, judgments: pd.DataFrame | None) -> Floats:
    """(n,) +1 where the judge picks a over both orders, −1 b, 0 neither; NaN without a verdict in both orders."""
    if judgments is None or judgments.empty:
        return np.full(len(pairs), np.nan)
    picked = pd.Series(picked_a(judgments), index=judgments.index)
    mean = picked.groupby([judgments["pair_id"], judgments["order"]]).mean().unstack().reindex(columns=["ab", "ba"])
    lead = mean.mean(axis=1, skipna=False).reindex(pairs["pair_id"]).to_numpy(dtype=np.float64) - 0.5
    return np.where(np.abs(lead) < 1e-9, 0.0, np.sign(lead))


@dataclass(frozen=True, slots=True)
class LinearFit:
    """Least squares through the origin: ``coefficients`` (p,) of ``names``, their jackknife covariance, and ``dfs`` (p,) of their t."""

    names: tuple[str, ...]
    coefficients: Floats
    covariance: Floats
    dfs: Floats

    def slope(self, name: str) -> Interval | Undefined:
        """One coefficient, in score points per unit of the column, with its t interval."""
        if name not in self.names:
            return Undefined(f"{name} does not differ enough between the texts")
        j = self.names.index(name)
        se = math.sqrt(max(0.0, float(self.covariance[j, j])))
        return t_interval(
            float(self.coefficients[j]), se, float(self.dfs[j]), method=f"least squares through the origin, {METHOD}"
        )


def fit_linear(names: tuple[str, ...], x: Floats, y: Floats, clusters: NDArray[Any]) -> LinearFit | Undefined:
    """y (n,) on the columns ``names`` of x (n, p) without an intercept; rows depend within ``clusters`` (n,).

    The exact delete-one-cluster jackknife, that is CR3, with the degrees of freedom of ``satterthwaite_df``. Undefined where the columns do not
    identify the coefficients with every cluster left out in turn.
    """
    codes, groups = dense_codes(clusters)
    p = x.shape[1]
    if groups <= p:
        return Undefined(f"{groups} items are too few for {p} coefficients")
    products, sums = cluster_informations(x, np.ones(len(x)), codes), cluster_sums(x * y[:, None], codes, groups)
    information, total = products.sum(axis=0), sums.sum(axis=0)
    scale = np.sqrt(np.diag(information))
    if np.any(scale == 0) or np.linalg.matrix_rank(information / np.outer(scale, scale), hermitian=True) < p:
        return Undefined(f"{', '.join(names)} are collinear on these pairs")
    try:
        dfs = satterthwaite_df(products, np.eye(p))
    except ValueError as error:
        return Undefined(str(error))
    scaled_left_out = (information - products) / np.outer(scale, scale)
    b = np.linalg.solve(information, total)
    left_out = np.linalg.solve(scaled_left_out, ((total - sums) / scale)[:, :, None])[:, :, 0] / scale
    spread = left_out - left_out.mean(axis=0)
    return LinearFit(names, b, (groups - 1.0) / groups * spread.T @ spread, dfs)


def jackknifed(
    sums: Floats, statistic: Callable[[Floats], Floats], *, low: float = -math.inf, high: float = math.inf
) -> Interval | Undefined:
    """A statistic of sums over clusters with its jackknife t interval, clipped to [low, high].

    ``sums`` (G, k) a row a cluster; ``statistic`` (…, k) → (…). Undefined with fewer than 3 clusters, or where the
    statistic is not finite with some cluster left out.
    """
    groups = len(sums)
    if groups < 3:
        return Undefined(f"{groups} items: a jackknife over items needs 3 or more")
    total = sums.sum(axis=0)
    values = statistic(np.concatenate([total[None], total - sums]))
    if not np.all(np.isfinite(values)):
        return Undefined("with some item left out the statistic has no value")
    interval = t_interval(float(values[0]), jackknife_error(values[1:]), groups - 1, method=METHOD)
    return replace(interval, low=max(low, interval.low), high=min(high, interval.high), p_value=None)
