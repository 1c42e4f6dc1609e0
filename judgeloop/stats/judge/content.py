"""Verbosity and style bias of a judge, and its agreement with gold. Positive = prefers more of the feature.

Raw preference is not bias: longer answers may be better. Every term here is either named raw, or conditions on gold (the
method notes §1.3). Without gold the primaries are ``undefined``; with one gold of unknown reliability too (§7.2), and its
numbers stand as variant ``given_gold``; gold that is exact by its making, as a reference that was matched, needs no second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from judgeloop.stats.calibration import delta_effect, fit_calibrated, reliability_curve
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.gold import gold_estimates
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, clustered_proportion, fieller_from_moments
from judgeloop.stats.joint import JointTest, joint_score, joint_wald
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.ordered_models import FEWEST_PAIRS, LatentSlopes, fit_latent
from judgeloop.stats.judge.slopes import GOLD, Slopes, average_effect, bootstrap_effect, effect_difference, fit_slopes
from judgeloop.stats.missing import missing_estimates
from judgeloop.stats.presentations import Booleans, Floats
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, BareTest, Bias, Counts, Labels, joined, row
from judgeloop.stats.ties import tie_estimates

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
    labels = Labels(judge, arm, generation, panel, category)
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

    def primary_counts(self) -> Counts:
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


def _raw(labels: Labels, rows: Covariates, margin: float) -> list[Estimate]:
    """What was preferred, with nothing held equal; and among pairs that gold ties, with quality held equal."""
    length, term, caution = rows.length, "longer_preferred_raw", "raw: quality and bias together"
    empty = Counts(0, 0, rows.n_unscored)
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


def _gold_tied(rows: Covariates, longer: Floats, tied: Booleans) -> tuple[Interval | Undefined, Counts, str]:
    """P(longer text picked) − ½ over the pairs whose judgments are ``tied`` by gold, with counts and a note."""
    note = "pairs that gold calls equal"
    if not tied.any():
        why = _NO_GOLD if np.all(np.isnan(rows.gold)) else Undefined("gold ties no pair")
        return why, Counts(0, 0, rows.n_unscored), note
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
    return result, Counts(len(complete), complete["item"].nunique(), rows.n_unscored), note


def _log_odds(labels: Labels, models: _Models, name: str) -> list[Estimate]:
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


def _effects(labels: Labels, models: _Models, margin: float) -> list[Estimate]:
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


def _exchange(labels: Labels, models: _Models) -> list[Estimate]:
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


def _beyond_gold(labels: Labels, models: _Models, margin: float) -> Estimate:
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


def _joints(labels: Labels, models: _Models) -> list[Estimate]:
    """Length and all style features at once: collinear features hide one another in single tests."""
    found = [_joint(labels, models.primary(), models.primary_counts(), "", models.note)]
    if len(models.known):
        found.append(_joint(labels, models.given, models.known.counts, GIVEN, _DILUTED))
        if not isinstance(models.given, Undefined):
            found.append(_joint(labels, models.given, models.known.counts, "wald", f"rejects too often; {_DILUTED}"))
    return found


def _joint(
    labels: Labels, model: Slopes | LatentSlopes | Undefined, counts: Counts, variant: str, note: str
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
