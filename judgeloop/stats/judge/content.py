"""Verbosity and style bias of a judge, and its agreement with gold. Positive = prefers more of the feature.

Raw preference is not bias: longer answers may be better. Every term here is either named raw, or conditions on gold
(docs/method.md, "Verbosity and style"). Without gold the primaries are ``undefined``; with one gold of unknown
reliability too, and its numbers stand as variant ``given_gold``; gold that is exact by its making, as a reference that
was matched, needs no second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import logistic
from judgeloop.stats.estimate import (
    LOG_ODDS,
    PROBABILITY,
    RATE_MARGIN,
    BareTest,
    Bias,
    Estimate,
    RowLabels,
    SampleCounts,
    joined,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, clustered_proportion, fieller_from_moments
from judgeloop.stats.judge.covariates import Covariates, covariates, gold_margin
from judgeloop.stats.judge.ordered_models import FEWEST_PAIRS, LatentSlopes, fit_latent, tie_estimates
from judgeloop.stats.judge.slopes import (
    GOLD,
    JointTest,
    Slopes,
    average_effect,
    bootstrap_effect,
    delta_effect,
    effect_difference,
    fit_calibrated,
    fit_slopes,
    hotelling,
    joint_score,
    joint_wald,
    reliability_curve,
)
from judgeloop.stats.presentations import (
    Booleans,
    Floats,
    first_picked,
    in_one_order,
    item_codes,
    not_identical,
    unscored,
)

# Agreement of a judge with gold.


def gold_estimates(
    labels: RowLabels,
    judgments: pd.DataFrame,
    known: Covariates,
    given: Slopes | Undefined,
    corrected: Slopes | LatentSlopes | Undefined,
    second: SampleCounts | None,
) -> list[Estimate]:
    """``gold_agreement`` and ``gold_log_odds`` (κ): primary given gold, variant ``corrected`` where two golds exist,
    on ``second``'s rows."""
    agreement, counts = gold_agreement(judgments)
    rows = [
        row(labels, "quality", "gold_agreement", agreement, counts, unit=PROBABILITY, null=None,
            note=f"{_orders(judgments)}; ties count half; pairs that gold ties are left out"),
        row(labels, "quality", "gold_log_odds", given if isinstance(given, Undefined) else given.slope("gold"),
            known.counts, unit=f"{LOG_ODDS} per unit of gold", note="gold's errors pull it towards 0"),
    ]  # fmt: skip
    if second:
        slope = corrected if isinstance(corrected, Undefined) else corrected.slope("gold")
        unit = f"{LOG_ODDS} per unit of gold" if isinstance(corrected, Slopes) else f"{LOG_ODDS} per log-odds of gold"
        rows.append(row(labels, "quality", "gold_log_odds", slope, second, unit=unit, variant="corrected"))
    return rows


def _orders(judgments: pd.DataFrame) -> str:
    """What the agreement's mean is over: a slot's pull cancels only between the orders of a pair."""
    if in_one_order(judgments):
        return "over calls, one order a pair: a slot's pull is in it wherever gold's text stands in one slot more often"
    return "both orders together"


def gold_agreement(judgments: pd.DataFrame) -> tuple[Interval | Undefined, SampleCounts]:
    """Mean over scored judgments of whether the pick is gold's (a tie ½, a soft verdict its probability), and counts.

    Where both orders are complete that is the mean of the two orders' accuracies.
    """
    compared = not_identical(judgments)
    lost = unscored(compared)
    if "gold" not in compared:
        return Undefined("no gold"), SampleCounts(0, 0, lost)
    margin, _ = gold_margin(compared["gold"])
    picked = first_picked(compared).to_numpy()
    a = np.where((compared["order"] == "ab").to_numpy(), picked, 1.0 - picked)
    right = np.where(margin > 0, a, 1.0 - a)
    keep = ~np.isnan(picked) & ~np.isnan(margin) & (margin != 0)
    items = item_codes(compared)[keep]
    counts = SampleCounts(int(keep.sum()), len(np.unique(items)), lost)
    if not keep.any():
        why = "no gold" if np.all(np.isnan(margin)) else "gold ties every pair that has a verdict"
        return Undefined(why), counts
    return clustered_proportion(right[keep], items), counts


# Replies without a verdict: how many, and whether order or length decides which.

TERM = "unscored_joint"
FEWEST_UNSCORED = 10
"""Fewer replies without a verdict than this cannot tell what they depend on."""


def missing_estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    labels: RowLabels,
    *,
    scales: Mapping[str, float] | None = None,
) -> list[Estimate]:
    """``unscored_rate`` (variants ``ab``, ``ba``: by order) and ``unscored_joint``, the test that the replies are missing at random.

    Arguments as in ``content_estimates``. The test is the score test, clustered by item (as ``style_joint``), of the slopes
    in logit P(unscored) = intercept + order + (length of the first text − of the second) + |difference|, in doublings:
    it needs no fit, so that replies which order or length cut off to the last one are found too.
    """
    asked = not_identical(judgments).reset_index(drop=True)
    lost: NDArray[np.float64] = (asked["verdict"] == "unscored").to_numpy().astype(np.float64)
    items, orders = item_codes(asked), asked["order"].to_numpy()
    rows = []
    for variant in ("", "ab", "ba"):
        some = orders == variant if variant else np.ones(len(asked), dtype=bool)
        rate = clustered_proportion(lost[some], items[some]) if some.any() else Undefined("no judgment in that order")
        counts = SampleCounts(int(some.sum()), len(np.unique(items[some])), int(lost[some].sum()))
        rows.append(row(labels, "quality", "unscored_rate", rate, counts, unit=PROBABILITY, variant=variant, null=None))
    return [*rows, _unscored_joint(labels, asked, texts, lost, scales)]


def _unscored_joint(
    labels: RowLabels,
    asked: pd.DataFrame,
    texts: pd.DataFrame | None,
    lost: NDArray[np.float64],
    scales: Mapping[str, float] | None,
) -> Estimate:
    count = int(lost.sum())

    def undefined(why: str) -> Estimate:
        counts = SampleCounts(len(asked), asked["item_id"].nunique(), count)
        return row(labels, "quality", TERM, Undefined(why), counts, unit="F")

    if count == 0:
        return undefined("every reply has a verdict")
    if min(count, len(lost) - count) < FEWEST_UNSCORED:
        return undefined(f"the test needs {FEWEST_UNSCORED} replies with a verdict and {FEWEST_UNSCORED} without")
    # As if every reply had a verdict: the covariates of all that was asked.
    rows = covariates(asked.assign(verdict="tie", p_first=np.nan), texts, scales=scales)
    names, columns = ["intercept"], [np.ones(len(rows))]
    if np.ptp(rows.order) > 0:
        names.append("order")
        columns.append(rows.order)
    if rows.length is not None:
        names += ["length", "|length|"]
        columns += [rows.order * rows.length, np.abs(rows.length)]
    x, y = np.stack(columns, axis=1), lost[rows.index]
    groups = len(np.unique(rows.items))
    if len(names) == 1 or groups <= len(names):
        return undefined("one order and no lengths: nothing that the missing replies could depend on is known")
    share = float(y.mean())
    result = hotelling(x * (y - share)[:, None], x.T @ x * share * (1.0 - share), range(1, len(names)), rows.items)
    if isinstance(result, Undefined):
        return undefined(result.reason)
    fit = logistic(x, y)
    slopes = "order and length part them from the others perfectly, or nearly so"
    if fit.converged and fit.rank == len(names):
        pairs = zip(names[1:], fit.coefficients[1:], strict=True)
        slopes = f"log-odds of no verdict: {', '.join(f'{name} {slope:+.2f}' for name, slope in pairs)}"
    return row(
        labels, "quality", TERM,
        BareTest(result.f, result.p_value, "score test; logistic regression, clustered by item"),
        SampleCounts(len(rows), groups, count), unit="F", note=f"F on {result.q} and {result.df} degrees of freedom; {slopes}",
    )  # fmt: skip


_NO_GOLD = Undefined("no gold: what the judge likes cannot be told from what is better")
_NO_TEXTS = Undefined("no texts and no lengths: features of the candidates are not known")
DOUBLING, SD = "log-odds per doubling", "log-odds per generation-0 SD"
_MOST_RESAMPLED = 2_000
"""Judgments above which 10,000 resamples would take seconds and tell nothing new."""
_DILUTED = "gold taken as exact; if it errs, quality it misses counts as bias"
_ONE_GOLD = "one gold, of unknown reliability: label 100 pairs or more a second time (gold_2), or state --gold-exact where it cannot err"
GIVEN = "given_gold"


def content_estimates(
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None = None,
    *,
    judge: str = "",
    arm: str = "",
    generation: int | None = None,
    panel: str = "",
    category: str = "",
    scales: Mapping[str, float] | None = None,
    margin: float = RATE_MARGIN,
    gold_exact: bool = False,
) -> list[Estimate]:
    """Verbosity, style and quality terms of one judge on one set of judgments; the other arguments are labels.

    ``texts``: frame of ``item_id, candidate_id`` and feature columns (``length`` in doublings, others raw), plus
    ``replicate`` where ids repeat across replicates; without it, columns ``len_a, len_b`` of ``judgments`` serve length
    alone. ``gold`` (and ``gold_2``) are columns of ``judgments``. ``scales``: generation-0 SD by feature (default: over
    ``texts``). ``margin``: equivalence margin of rates. ``gold_exact``: gold cannot err (a verifiable reference), so that the
    primaries take it as it is; else they need ``gold_2`` on 90 pairs. Variants ``given_gold`` and ``no_gold`` are what they say.
    """
    labels = RowLabels(judge, arm, generation, panel, category)
    rows = covariates(judgments, texts, scales=scales)
    known = rows.with_gold()
    given = fit_slopes(known, known.gold) if len(known) else _NO_GOLD
    without = fit_slopes(rows) if len(rows) else Undefined("no judgment of different texts has a verdict")
    corrected = _corrected(rows, given)
    models = _Models(rows, known, given, without, corrected, gold_exact)
    features = rows.features or ("length",)
    return [
        *_raw(labels, rows, margin),
        *(estimate for name in features for estimate in _log_odds(labels, models, name)),
        *_effects(labels, models, margin),
        *_exchange(labels, models),
        _beyond_gold(labels, models, margin),
        *_joints(labels, models),
        *tie_estimates(labels, rows, given, without),
        *missing_estimates(judgments, texts, labels, scales=scales),
        *gold_estimates(
            labels, judgments, known, given, corrected, rows.with_any_gold().counts if models.two_golds else None
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Models:
    """The fits that the terms share: given one gold, without gold, and corrected for gold's errors."""

    rows: Covariates
    known: Covariates
    given: Slopes | Undefined
    without: Slopes | Undefined
    corrected: Slopes | LatentSlopes | Undefined

    exact: bool

    @property
    def two_golds(self) -> bool:
        """Whether any pair has a second gold."""
        return bool(np.any(~np.isnan(self.rows.gold_2)))

    def primary(self) -> Slopes | LatentSlopes | Undefined:
        """The fit given gold where that is exact, else the one corrected by a second gold."""
        return self.given if self.exact else self.corrected

    def primary_counts(self) -> SampleCounts:
        """Of the rows behind ``primary``: a pair with one gold helps, once enough pairs have two."""
        return self.rows.with_any_gold().counts if self.two_golds and not self.exact else self.known.counts

    @property
    def note(self) -> str:
        """What the primary takes gold for."""
        return "gold is exact by its making" if self.exact else "corrected for gold's errors"


def _corrected(rows: Covariates, given: Slopes | Undefined) -> Slopes | LatentSlopes | Undefined:
    known, both = rows.with_any_gold(), rows.where(~np.isnan(rows.gold) & ~np.isnan(rows.gold_2))
    if not len(known):
        return _NO_GOLD
    if np.all(np.isnan(rows.gold_2)):
        return Undefined(_ONE_GOLD)
    if isinstance(given, Undefined):
        return given
    twice = len(np.unique(both.pairs))
    if twice < FEWEST_PAIRS:
        return Undefined(f"two golds on {twice} pairs; the correction needs {FEWEST_PAIRS}")
    if np.array_equal(both.gold, both.gold_2):
        # Two golds that never differ bound no error: they are one exact gold.
        return given
    return fit_calibrated(known) if known.numeric_gold else fit_latent(known)


def _raw(labels: RowLabels, rows: Covariates, margin: float) -> list[Estimate]:
    """What was preferred, with nothing held equal; and among pairs that gold ties, with quality held equal."""
    length, term, caution = rows.length, "longer_preferred_raw", "raw: quality and bias together"
    empty = SampleCounts(0, 0, rows.n_unscored)
    if length is None:
        reason = (
            Undefined("the texts' lengths never differ") if rows.n_without_features == 0 and len(rows) else _NO_TEXTS
        )
        return [
            row(labels, "verbosity", term, reason, empty, unit=PROBABILITY),
            row(labels, "verbosity", "gold_tied_longer_excess", reason, empty, unit=PROBABILITY),
        ]
    if not np.intersect1d(rows.pairs[rows.order > 0], rows.pairs[rows.order < 0]).size:
        caution = "raw: quality, bias and, in one order a pair, the slot's pull together"
    differ = length != 0
    longer = np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a)
    some = rows.where(differ)
    found = [
        row(labels, "verbosity", term, clustered_proportion(longer[differ], some.items), some.counts, unit=PROBABILITY,
            null=None, note=caution)
    ]  # fmt: skip
    if some.ties.any():
        decided = differ & ~rows.ties
        found.append(row(
            labels, "verbosity", term, clustered_proportion(longer[decided], rows.items[decided]),
            rows.where(decided).counts, unit=PROBABILITY, variant="ties_dropped", null=None,
            note=f"{caution}; {int(some.ties.sum())} of {len(some)} judgments are ties and are left out",
        ))  # fmt: skip
    result, counts, note = _gold_tied(rows, longer, differ & (rows.gold == 0))
    found.append(
        row(labels, "verbosity", "gold_tied_longer_excess", result, counts, unit=PROBABILITY, margin=margin, note=note)
    )
    return found


def _gold_tied(rows: Covariates, longer: Floats, tied: Booleans) -> tuple[Interval | Undefined, SampleCounts, str]:
    """P(longer text picked) − ½ over the pairs whose judgments are ``tied`` by gold, with counts and a note."""
    note = "pairs that gold calls equal"
    if not tied.any():
        why = _NO_GOLD if np.all(np.isnan(rows.gold)) else Undefined("gold ties no pair")
        return why, SampleCounts(0, 0, rows.n_unscored), note
    means = pd.DataFrame(
        {"pair": rows.pairs[tied], "item": rows.items[tied], "longer": longer[tied], "order": rows.order[tied]}
    )
    # A mean over each order first: position then cancels within the pair.
    by_order = means.groupby(["pair", "order"]).agg(item=("item", "first"), longer=("longer", "mean")).reset_index()
    by_pair = by_order.groupby("pair").agg(item=("item", "first"), longer=("longer", "mean"), orders=("order", "size"))
    complete = by_pair[by_pair["orders"] == 2]
    if complete.empty:
        complete, note = by_pair, f"{note}; one order only, so position does not cancel"
    result = bounded_mean(complete["longer"].to_numpy() - 0.5, complete["item"].to_numpy(), -0.5, 0.5)
    return result, SampleCounts(len(complete), complete["item"].nunique(), rows.n_unscored), note


def _log_odds(labels: RowLabels, models: _Models, name: str) -> list[Estimate]:
    bias: Bias = "verbosity" if name == "length" else "style"
    unit, term = DOUBLING if name == "length" else SD, f"{name}_log_odds"
    inflation = curve = ""
    if isinstance(models.given, Slopes) and name in models.given.names:
        inflation = f"variance inflation {models.given.variance_inflation(name):.2f}"
        if not models.exact and not models.two_golds:
            curve = f"by gold's reliability the slope would be {reliability_curve(models.given, name)}"
    return [
        row(labels, bias, term, _slope(models.primary(), name), models.primary_counts(), unit=unit, note=models.note),
        row(labels, bias, term, _slope(models.given, name), models.known.counts, unit=unit, variant="given_gold",
            note=joined(_DILUTED, curve, inflation)),
        row(labels, bias, term, _slope(models.without, name), models.rows.counts, unit=unit, variant="no_gold",
            note="quality is not held equal"),
    ]  # fmt: skip


def _slope(model: Slopes | LatentSlopes | Undefined, name: str) -> Interval | Undefined:
    return model if isinstance(model, Undefined) else model.slope(name)


def _effects(labels: RowLabels, models: _Models, margin: float) -> list[Estimate]:
    unit, term = f"{PROBABILITY} per doubling", "length_ame"
    found = [
        row(labels, "verbosity", term, _effect(models.primary()), models.primary_counts(), unit=unit, margin=margin,
            note=models.note)
    ]  # fmt: skip
    given = models.given
    if len(models.known):
        counts = models.known.counts
        found.append(
            row(
                labels,
                "verbosity",
                term,
                _effect(given),
                counts,
                unit=unit,
                variant=GIVEN,
                margin=margin,
                note=_DILUTED,
            )
        )
        if isinstance(given, Slopes) and not labels.category and len(given.x) <= _MOST_RESAMPLED:
            found.append(row(
                labels, "verbosity", term, bootstrap_effect(given, "length"), counts, unit=unit, variant="bootstrap",
                note=f"another interval for {GIVEN}'s estimate",
            ))  # fmt: skip
    found.append(row(
        labels, "verbosity", term, _effect(models.without), models.rows.counts, unit=unit, variant="no_gold", null=None,
        note="quality is not held equal",
    ))  # fmt: skip
    return found


def _effect(model: Slopes | LatentSlopes | Undefined) -> Interval | Undefined:
    match model:
        case LatentSlopes():
            return model.average_effect("length")
        case Slopes() if model.first_stage is not None and not model.separated:
            return delta_effect(model, "length")
        case Slopes():
            return average_effect(model, "length")
        case Undefined():
            return model


def _exchange(labels: RowLabels, models: _Models) -> list[Estimate]:
    term, note = "length_exchange_rate", "units of gold bought by one doubling"
    rate = _rate(models.primary())
    found = [row(labels, "verbosity", term, rate, models.primary_counts(), unit="ratio", note=f"{note}; {models.note}")]
    if len(models.known):
        rate, counts = _rate(models.given), models.known.counts
        found.append(
            row(labels, "verbosity", term, rate, counts, unit="ratio", variant=GIVEN, note=f"{note}; {_DILUTED}")
        )
    return found


def _rate(model: Slopes | LatentSlopes | Undefined) -> Interval | Undefined:
    if isinstance(model, Undefined):
        return model
    if "length" not in model.names:
        return _slope(model, "length")
    j, k, v = model.names.index("length"), model.names.index(GOLD), model.covariance
    result = fieller_from_moments(
        float(model.coefficients[j]), float(model.coefficients[k]), float(v[j, j]), float(v[k, k]), float(v[j, k]),
        model.df,
    )  # fmt: skip
    if isinstance(result, Undefined):
        return Undefined(f"the judge's slope on gold is not away from 0: {result.reason}")
    return result


def _beyond_gold(labels: RowLabels, models: _Models, margin: float) -> Estimate:
    """The judge's average marginal effect minus gold's on the same pairs: gold's raters may like length too."""
    known = models.known
    judge = fit_slopes(known) if len(known) else _NO_GOLD
    rater = fit_slopes(known.picked_by_gold()) if len(known) else _NO_GOLD
    difference: Interval | Undefined
    if isinstance(judge, Undefined):
        difference = judge
    elif isinstance(rater, Undefined):
        difference = Undefined(f"gold's own slopes: {rater.reason}")
    else:
        difference = effect_difference(judge, rater, "length")
    return row(
        labels, "verbosity", "excess_longer_vs_gold", difference, known.counts, unit=f"{PROBABILITY} per doubling",
        margin=margin, note="relative to gold, whoever gave it",
    )  # fmt: skip


def _joints(labels: RowLabels, models: _Models) -> list[Estimate]:
    """Length and all style features at once: collinear features hide one another in single tests."""
    found = [_joint(labels, models.primary(), models.primary_counts(), "", models.note)]
    if len(models.known):
        found.append(_joint(labels, models.given, models.known.counts, GIVEN, _DILUTED))
        if not isinstance(models.given, Undefined):
            found.append(_joint(labels, models.given, models.known.counts, "wald", f"rejects too often; {_DILUTED}"))
    return found


def _joint(
    labels: RowLabels, model: Slopes | LatentSlopes | Undefined, counts: SampleCounts, variant: str, note: str
) -> Estimate:
    def undefined(reason: Undefined) -> Estimate:
        return row(labels, "style", "style_joint", reason, counts, unit="F", variant=variant)

    if isinstance(model, Undefined):
        return undefined(model)
    features = model.features
    if not set(features) - {"length"}:
        why = "no style feature of the texts is known or differs enough; length stands alone, see length_ame"
        return undefined(Undefined(why))
    result = _tested(model, features, variant)
    if isinstance(result, Undefined):
        return undefined(result)
    said = [f"F on {result.q} and {result.df} degrees of freedom: {', '.join(features)}"]
    if isinstance(model, Slopes):
        worst = max(features, key=model.variance_inflation)
        said.append(f"largest variance inflation {model.variance_inflation(worst):.2f} ({worst})")
    kind = "cluster score test (Hotelling)" if isinstance(model, Slopes) else "Wald (Hotelling)"
    kind = "Wald" if variant == "wald" else kind
    tested = BareTest(result.f, result.p_value, f"{kind}; {model.method}")
    return row(labels, "style", "style_joint", tested, counts, unit="F", variant=variant, note=joined(*said, note))


def _tested(model: Slopes | LatentSlopes, tested: tuple[str, ...], variant: str) -> JointTest | Undefined:
    if variant == "wald":
        return joint_wald(model.names, tested, model.coefficients, model.covariance, model.df)
    return model.joint(tested) if isinstance(model, LatentSlopes) else joint_score(model, tested)
