"""Verbosity and style bias of a judge, and its agreement with gold.

Raw preference is not bias: longer answers may be better. Every term here is either named raw, or holds quality equal by
gold (docs/method.md, "Verbosity and style"). Without gold the primaries are ``undefined``. With one gold that may err
they are too, and the numbers of that gold stand as variant ``given_gold``; gold that cannot err, such as an exact match
with a reference, needs no second gold. Positive = the judge prefers more of the feature, or agrees with gold more
often.

Order: the terms of length and style, ``content_estimates``; agreement with gold (docs/method.md, "Quality").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.kernels import cluster_sums, dense_codes, distinct
from judgeloop.stats.estimate import (
    LOG_ODDS,
    PROBABILITY,
    RATE_MARGIN,
    BareTest,
    Estimate,
    RowLabels,
    SampleCounts,
    joined,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, clustered_proportion, fieller_from_moments
from judgeloop.stats.judge.covariates import (
    GOLD_AS_EXACT,
    NO_GOLD,
    Covariates,
    covariates,
    feature_bias,
    feature_unit,
    gold_margin,
)
from judgeloop.stats.judge.missing import LEAST_FAVOURABLE, WORST_CASES, missing_estimates
from judgeloop.stats.judge.ordered_models import LatentSlopes, fit_latent, tie_estimates
from judgeloop.stats.judge.slopes import (
    FEWEST_PAIRS,
    GOLD,
    LENGTH_SHAPE,
    Factor,
    JointTest,
    Slopes,
    average_effect,
    bootstrap_effect,
    delta_effect,
    effect_difference,
    fit_calibrated,
    fit_slopes,
    halves,
    joint_score,
    joint_wald,
    least_favourable,
    rejects_slope,
    reliability_curve,
    shape_test,
    with_shape,
    withheld_where_not_linear,
)
from judgeloop.stats.multiplicity import ALPHA
from judgeloop.stats.presentations import (
    Booleans,
    Floats,
    in_one_order,
    item_codes,
    not_identical,
    picked_a,
    unscored,
)
from judgeloop.text.features import FEATURES

GIVEN_GOLD = "given_gold"
"""The variant of a term that takes one gold as exact."""
LENGTH_SCREEN = "length_beyond_agreement"
"""The term of the screen against one gold that may err."""
GOLDS_AGREEMENT = "golds_agreement"
"""The term of how often two golds agree: it stands beside primaries that rest on two golds."""
MOST_AGREEMENT = 0.95
"""Two golds that agree on a larger share of pairs count as one: they correct none of each other's errors if one is a copy."""
RELATIVE = "relative to what the two raters share"
"""What holds of each term that two golds correct: a preference of both raters, or an error that both make, counts as quality."""
_GIVEN_QUALITY = frozenset(
    {"length_ame", LENGTH_SHAPE, "length_exchange_rate", "style_joint", *(f"{name}_log_odds" for name in FEATURES)}
)
"""Terms whose primary holds quality equal, by gold that cannot err or by two golds."""
COMPARED_WITH_GOLD = ("excess_longer_vs_gold", LENGTH_SCREEN)
"""Terms that set a judge beside one gold that may err: they claim no bias, whatever their interval."""
_TESTED_AT_EXACT_GOLD = ("gold_tied_longer_excess", "self_preference_gold")
"""Terms that describe, without a verdict, unless gold cannot err."""
_WITHOUT_GOLD = Undefined(NO_GOLD)
_NO_TEXTS = Undefined("no texts and no lengths: features of the candidates are not known")
_NO_VERDICT = Undefined("no judgment of different texts has a verdict")
_SAME_LENGTHS = Undefined("the texts' lengths never differ")
_MOST_RESAMPLED = 2_000
"""With more judgments than this, 10,000 resamples would take seconds and give the jackknife's interval."""
_ONE_GOLD = "one gold, of unknown reliability: label 100 pairs or more a second time (gold_2), or state --gold-exact where it cannot err"


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
    bootstrap: bool = True,
) -> list[Estimate]:
    """Verbosity, style and quality terms of one judge on one set of judgments; the other arguments are labels.

    ``texts``: frame of ``item_id, candidate_id`` and feature columns (``length`` in doublings, others raw), plus
    ``replicate`` where ids repeat across replicates; without it, columns ``len_a, len_b`` of ``judgments`` serve length
    alone. ``gold`` (and ``gold_2``) are columns of ``judgments``. ``scales``: generation-0 SD by feature (default: over
    ``texts``). ``margin``: equivalence margin of rates. ``gold_exact``: gold cannot err (a verifiable reference), so
    that the primaries take it as it is; else they need ``gold_2`` on 90 pairs. Variant ``given_gold`` takes one gold as
    exact, ``no_gold`` does not hold quality equal. ``bootstrap``: whether to make the variant of that name, the slowest row. Raises ValueError for a gold that is none (see ``gold_margin``).
    """
    labels = RowLabels(judge, arm, generation, panel, category)
    rows = covariates(judgments, texts, scales=scales)
    with_gold = rows.with_gold()
    if len(with_gold) == len(rows):
        with_gold = rows
    given_gold = fit_slopes(with_gold, with_gold.gold) if len(with_gold) else _WITHOUT_GOLD
    without_gold = fit_slopes(rows) if len(rows) else _NO_VERDICT
    corrected = _corrected_fit(rows, given_gold)
    fits = _ContentFits(rows, with_gold, given_gold, without_gold, corrected, gold_exact)
    features = rows.features or ("length",)
    on_length = [
        *_raw_preference(labels, rows, margin, gold_exact),
        *_worst_cases(labels, judgments, texts, scales, fits),
        *(estimate for name in features for estimate in _feature_log_odds(labels, fits, name)),
        *_length_effects(labels, fits, margin, bootstrap=bootstrap and not category),
        *_exchange_rates(labels, fits),
        *_compared_with_gold(labels, with_gold, without_gold if with_gold is rows else None),
    ]
    shaped = _shaped_fits(fits)
    shapes = {variant: fit.test() for variant, fit in shaped.items()}
    # Where the primary fit is undefined, a primary row that needs none takes one gold as exact.
    of_primary = shapes[GIVEN_GOLD] if isinstance(shapes[""], Undefined) else shapes[""]
    return [
        *(withheld_where_not_linear(one, {**shapes, "": of_primary}.get(one.variant)) for one in on_length),
        *_shape_rows(labels, shaped, shapes),
        *_joint_tests(labels, fits),
        *(
            withheld_where_not_linear(one, shapes[GIVEN_GOLD])
            for one in tie_estimates(labels, rows, given_gold, without_gold)
        ),
        *missing_estimates(judgments, texts, labels, scales=scales),
        *([_golds_agreement(labels, rows)] if fits.two_golds and not gold_exact else []),
        *gold_estimates(
            labels,
            judgments,
            with_gold,
            given_gold,
            corrected,
            rows.with_any_gold().counts if fits.two_golds else None,
            gold_exact=gold_exact,
        ),
    ]


def is_relative_to_raters(row: Estimate, rows: Iterable[Estimate]) -> bool:
    """Whether the row's primary rests on two golds that may err, so that it holds ``RELATIVE``. ``rows``: all of its folder."""
    if row.variant or row.term not in _GIVEN_QUALITY:
        return False
    place = (GOLDS_AGREEMENT, "", row.judge, row.arm, row.generation, row.panel, row.category)
    return any(
        (other.term, other.variant, other.judge, other.arm, other.generation, other.panel, other.category) == place
        and other.estimate is not None
        for other in rows
    )


def takes_gold_as_exact(row: Estimate) -> bool:
    """Whether the row's number means what its term says only if a gold that may err does not."""
    slope = row.term.startswith("score_") and row.term.endswith("_slope") and row.variant == ""
    without_claim = row.status != "undefined" and row.verdict == "" and row.family == "none"
    return (slope or row.term in _TESTED_AT_EXACT_GOLD) and without_claim


@dataclass(frozen=True, slots=True)
class _ContentFits:
    """The fits that the terms share: ``given_gold``, ``without_gold``, and ``corrected`` for gold's errors.

    ``rows``: all scored judgments; ``with_gold``: those whose gold is known; ``exact``: gold cannot err.
    """

    rows: Covariates
    with_gold: Covariates
    given_gold: Slopes | Undefined
    without_gold: Slopes | Undefined
    corrected: Slopes | LatentSlopes | Undefined
    exact: bool

    @property
    def two_golds(self) -> bool:
        """Whether any pair has a second gold."""
        return bool(np.any(~np.isnan(self.rows.gold_2)))

    def primary(self) -> Slopes | LatentSlopes | Undefined:
        """The fit given gold where that is exact, else the one corrected by a second gold."""
        return self.given_gold if self.exact else self.corrected

    def primary_counts(self) -> SampleCounts:
        """Counts of the rows behind ``primary``: once enough pairs have two golds, pairs with one are used too."""
        return self.rows.with_any_gold().counts if self.two_golds and not self.exact else self.with_gold.counts

    @property
    def note(self) -> str:
        """How the primary treats gold's errors, for the rows' notes."""
        return (
            "gold cannot err, as a verifiable reference"
            if self.exact
            else "corrected for errors of the two golds that are independent"
        )


def _corrected_fit(rows: Covariates, given_gold: Slopes | Undefined) -> Slopes | LatentSlopes | Undefined:
    """The fit that allows for gold's errors by a second gold, or why there is none."""
    any_gold, two_golds = rows.with_any_gold(), rows.where(~np.isnan(rows.gold) & ~np.isnan(rows.gold_2))
    if not len(any_gold):
        return _WITHOUT_GOLD
    if np.all(np.isnan(rows.gold_2)):
        return Undefined(_ONE_GOLD)
    if isinstance(given_gold, Undefined):
        return given_gold
    n_both = distinct(two_golds.pairs)
    if n_both < FEWEST_PAIRS:
        return Undefined(f"two golds on {n_both} pairs; the correction needs {FEWEST_PAIRS}")
    agreement = float(np.mean(_golds_agree(two_golds)[1]))
    if agreement > MOST_AGREEMENT:
        return Undefined(
            f"the two golds agree on {100 * agreement:.1f} % of pairs: one may be a copy of the other, and then their agreement hides "
            "errors; label pairs by raters who do not see each other's labels, or state --gold-exact where gold cannot err"
        )
    return fit_calibrated(any_gold) if any_gold.numeric_gold else fit_latent(any_gold)


def _raw_preference(labels: RowLabels, rows: Covariates, margin: float, gold_exact: bool) -> list[Estimate]:
    """``longer_preferred_raw``, with nothing held equal, and ``gold_tied_longer_excess``, where gold calls texts equal.

    The latter is tested where gold cannot err. Of texts that a gold which may err calls equal, the better ones may be
    the longer, so that an unbiased judge prefers them: it then describes.
    """
    length, term, caution = rows.length, "longer_preferred_raw", "raw: quality and bias together"
    empty = SampleCounts(0, 0, rows.n_unscored)
    if length is None:
        reason = _NO_TEXTS if rows.n_without_features else _NO_VERDICT if not len(rows) else _SAME_LENGTHS
        return [
            row(labels, "verbosity", term, reason, empty, unit=PROBABILITY),
            row(labels, "verbosity", "gold_tied_longer_excess", reason, empty, unit=PROBABILITY),
        ]
    if not np.intersect1d(rows.pairs[rows.order > 0], rows.pairs[rows.order < 0]).size:
        caution = "raw: quality, bias and, in one order a pair, the preference for a slot together"
    differ = length != 0
    longer = np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a)
    different = rows.where(differ)
    estimates = [
        row(labels, "verbosity", term, clustered_proportion(longer[differ], different.items), different.counts,
            unit=PROBABILITY, null=None, note=caution)
    ]  # fmt: skip
    if different.ties.any():
        decided = differ & ~rows.ties
        estimates.append(row(
            labels, "verbosity", term, clustered_proportion(longer[decided], rows.items[decided]),
            rows.where(decided).counts, unit=PROBABILITY, variant="ties_dropped", null=None,
            note=f"{caution}; {int(different.ties.sum())} of {len(different)} judgments are ties and are left out",
        ))  # fmt: skip
    result, counts, note = _gold_tied_excess(rows, longer, differ & (rows.gold == 0))
    estimates.append(row(
        labels, "verbosity", "gold_tied_longer_excess", result, counts, unit=PROBABILITY, margin=margin,
        null=0.0 if gold_exact else None, note=joined(note, "" if gold_exact else GOLD_AS_EXACT),
    ))  # fmt: skip
    return estimates


@dataclass(frozen=True, slots=True)
class _Filled:
    """All judgments of different texts, ``every``, of which the ``lost`` ones (n,) have no verdict and stand as ties, and the
    ``fits`` without these."""

    every: Covariates
    lost: Booleans
    fits: _ContentFits

    def rows(self, picked_a: Floats) -> Covariates:
        """All rows, each lost one with the pick of text a in ``picked_a`` (n,)."""
        every = self.every
        return replace(
            every, picked_a=np.where(self.lost, picked_a, every.picked_a), ties=every.ties & ~self.lost,
            n_unscored=self.fits.rows.n_unscored,
        )  # fmt: skip

    def refitted(self, rows: Covariates) -> _ContentFits:
        """The fits to such rows, but for the one without gold."""
        with_gold = rows.with_gold()
        given_gold = fit_slopes(with_gold, with_gold.gold)
        corrected = self.fits.corrected if self.fits.exact else _corrected_fit(rows, given_gold)
        return replace(self.fits, rows=rows, with_gold=with_gold, given_gold=given_gold, corrected=corrected)

    def least(self, term: str) -> _ContentFits | None:
        """The fits with each lost verdict such that the test of ``term`` finds least (``least_favourable``); None where the
        model does not hold what it tests."""
        even = self.rows(np.full(len(self.every), 0.5)).with_gold()
        slopes = fit_slopes(even, even.gold)
        if isinstance(slopes, Undefined):
            return None
        tested = with_shape(slopes, even.mean_length) if term == LENGTH_SHAPE else (slopes, slopes.features)
        if isinstance(tested, Undefined):
            return None
        picks, known = np.full(len(self.every), 0.5), ~np.isnan(self.every.gold)
        picks[known] = least_favourable(*tested, self.lost[known])
        return self.refitted(self.rows(picks))


def _worst_cases(
    labels: RowLabels,
    judgments: pd.DataFrame,
    texts: pd.DataFrame | None,
    scales: Mapping[str, float] | None,
    fits: _ContentFits,
) -> list[Estimate]:
    """What the primaries could be with the unscored judgments; no row where every reply has a verdict.

    Variant ``worst_case_low``: each counted as the text with less of the feature picked; ``worst_case_high``: with more. Of
    ``longer_preferred_raw``, ``gold_tied_longer_excess``, and where their primary has a number ``length_ame`` and
    ``length_log_odds``, refitted in the same way; of another feature's ``_log_odds`` where its interval leaves 0 out. Of
    ``style_joint`` and ``length_shape``, where they may reject, variant ``worst_case``: so that the test finds least.
    """
    if not fits.rows.n_unscored:
        return []
    every = covariates(judgments.assign(verdict=judgments["verdict"].replace("unscored", "tie")), texts, scales=scales)
    lost = (not_identical(judgments)["verdict"] == "unscored").to_numpy()[every.index]
    filled, primary = _Filled(every, lost, fits), fits.primary()
    estimates = []
    for variant, sign in zip(WORST_CASES, (-1.0, 1.0), strict=True):
        for name, difference in zip(every.features, every.differences.T, strict=True):
            slope = _slope_of(primary, name)
            if name == "length" or not (isinstance(slope, Undefined) or slope.covers(0.0)):
                rows = filled.rows((np.sign(sign * difference) + 1.0) / 2.0)
                estimates += _if_picked_by(labels, filled, rows, name, variant)
    shape, note = _shaped_fits(fits)[""], "every unscored judgment counted so that the test finds least"
    for test in (
        _joint_test(labels, primary, fits.primary_counts(), "", ""),
        _shape_row(labels, shape, shape.test(), ""),
    ):
        may_reject = test.p_value is not None and test.p_value <= max(ALPHA.values())
        least = filled.least(test.term) if may_reject else None
        if least is not None and test.term == LENGTH_SHAPE:
            shape = _shaped_fits(least)[""]
            estimates.append(_shape_row(labels, shape, shape.test(), LEAST_FAVOURABLE, note))
        elif least is not None:
            estimates.append(_joint_test(labels, least.primary(), least.with_gold.counts, LEAST_FAVOURABLE, note))
    return estimates


def _if_picked_by(labels: RowLabels, filled: _Filled, rows: Covariates, name: str, variant: str) -> list[Estimate]:
    """The worst cases of the terms of one feature, whose lost verdicts in ``rows`` go by it."""
    estimates = []
    way = f"{'less' if variant == WORST_CASES[0] else 'more'} {name}"

    def add(term: str, result: Interval | Undefined, counts: SampleCounts, unit: str) -> None:
        estimates.append(row(
            labels, feature_bias(name), term, result, counts, unit=unit, variant=variant, null=None,
            note=f"every unscored judgment counted as a pick of the text with {way}",
        ))  # fmt: skip

    length = rows.length
    if name == "length" and length is not None:
        differ, longer = length != 0, np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a)
        different = rows.where(differ)
        share = clustered_proportion(longer[differ], different.items)
        add("longer_preferred_raw", share, different.counts, PROBABILITY)
        excess, counts, _ = _gold_tied_excess(rows, longer, differ & (rows.gold == 0))
        if isinstance(excess, Interval):
            add("gold_tied_longer_excess", excess, counts, PROBABILITY)
    if not isinstance(filled.fits.primary(), Undefined):
        model, counts = filled.refitted(rows).primary(), rows.with_gold().counts
        if name == "length":
            add("length_ame", _length_effect(model), counts, f"{PROBABILITY} per doubling")
        add(f"{name}_log_odds", _slope_of(model, name), counts, feature_unit(name))
    return estimates


def _gold_tied_excess(
    rows: Covariates, longer: Floats, tied: Booleans
) -> tuple[Interval | Undefined, SampleCounts, str]:
    """P(longer text picked) − ½ over the pairs of the ``tied`` judgments, whose texts gold calls equal; counts; a note."""
    note = "pairs that gold calls equal"
    if not tied.any():
        why = _WITHOUT_GOLD if np.all(np.isnan(rows.gold)) else Undefined("gold ties no pair")
        return why, SampleCounts(0, 0, rows.n_unscored), note
    means = pd.DataFrame(
        {"pair": rows.pairs[tied], "item": rows.items[tied], "longer": longer[tied], "order": rows.order[tied]}
    )
    # A mean over each order first: position then cancels within the pair.
    by_order = means.groupby(["pair", "order"]).agg(item=("item", "first"), longer=("longer", "mean")).reset_index()
    by_order["known"] = by_order["order"] != 0
    by_pair = by_order.groupby("pair").agg(item=("item", "first"), longer=("longer", "mean"), orders=("known", "sum"))
    complete = by_pair[by_pair["orders"] == 2]
    if complete.empty:
        complete, note = by_pair, f"{note}; one order only, so position does not cancel"
    result = bounded_mean(complete["longer"].to_numpy() - 0.5, complete["item"].to_numpy(), -0.5, 0.5)
    return result, SampleCounts(len(complete), complete["item"].nunique(), rows.n_unscored), note


def _feature_log_odds(labels: RowLabels, fits: _ContentFits, name: str) -> list[Estimate]:
    """``<feature>_log_odds``: primary, ``given_gold`` and ``no_gold``."""
    bias, unit, term = feature_bias(name), feature_unit(name), f"{name}_log_odds"
    inflation = curve = ""
    if isinstance(fits.given_gold, Slopes) and name in fits.given_gold.names:
        inflation = f"variance inflation {fits.given_gold.variance_inflation(name):.2f}"
        if not fits.exact and not fits.two_golds:
            curve = f"by gold's reliability the slope would be {reliability_curve(fits.given_gold, name)}"
    return [
        row(labels, bias, term, _slope_of(fits.primary(), name), fits.primary_counts(), unit=unit, note=fits.note),
        row(labels, bias, term, _slope_of(fits.given_gold, name), fits.with_gold.counts, unit=unit, variant=GIVEN_GOLD,
            note=joined(GOLD_AS_EXACT, curve, inflation)),
        row(labels, bias, term, _slope_of(fits.without_gold, name), fits.rows.counts, unit=unit, variant="no_gold",
            note="quality is not held equal"),
    ]  # fmt: skip


def _slope_of(model: Slopes | LatentSlopes | Undefined, name: str) -> Interval | Undefined:
    """The slope on a feature, or why there is no fit."""
    return model if isinstance(model, Undefined) else model.slope(name)


def _length_effects(labels: RowLabels, fits: _ContentFits, margin: float, *, bootstrap: bool) -> list[Estimate]:
    """``length_ame``: primary, ``given_gold``, ``bootstrap`` and ``no_gold``."""
    unit, term = f"{PROBABILITY} per doubling", "length_ame"
    estimates = [
        row(labels, "verbosity", term, _length_effect(fits.primary()), fits.primary_counts(), unit=unit, margin=margin,
            note=fits.note)
    ]  # fmt: skip
    given_gold = fits.given_gold
    if len(fits.with_gold):
        counts = fits.with_gold.counts
        estimates.append(row(
            labels, "verbosity", term, _length_effect(given_gold), counts, unit=unit, variant=GIVEN_GOLD, margin=margin,
            note=GOLD_AS_EXACT,
        ))  # fmt: skip
        if isinstance(given_gold, Slopes) and bootstrap and len(given_gold.x) <= _MOST_RESAMPLED:
            estimates.append(row(
                labels, "verbosity", term, bootstrap_effect(given_gold, "length"), counts, unit=unit, variant="bootstrap",
                note=f"another interval for the estimate of {GIVEN_GOLD}",
            ))  # fmt: skip
    estimates.append(row(
        labels, "verbosity", term, _length_effect(fits.without_gold), fits.rows.counts, unit=unit, variant="no_gold",
        null=None, note="quality is not held equal",
    ))  # fmt: skip
    return estimates


def _length_effect(model: Slopes | LatentSlopes | Undefined) -> Interval | Undefined:
    """Average marginal effect of one doubling, by the method that fits the model."""
    match model:
        case LatentSlopes():
            return model.average_effect("length")
        case Slopes() if model.first_stage is not None and not model.separated:
            return delta_effect(model, "length")
        case Slopes():
            return average_effect(model, "length")
        case Undefined():
            return model


@dataclass(frozen=True, slots=True)
class _ShapedFit:
    """A fit whose shape in length is tested: ``slopes`` on ``rows`` with the column ``gold`` (n,), None without it."""

    slopes: Slopes | Undefined
    rows: Covariates
    gold: Floats | None
    note: str

    def test(self) -> JointTest | Undefined:
        """``shape_test`` of the fit."""
        return self.slopes if isinstance(self.slopes, Undefined) else shape_test(self.slopes, self.rows.mean_length)


def _shaped_fits(fits: _ContentFits) -> dict[str, _ShapedFit]:
    """The fits by the variant of the rows that claim something on length from them: primary, given gold, without gold.

    In the latent-quality model quality has no column: there the sum of a pair's golds stands for it.
    """
    given = _ShapedFit(fits.given_gold, fits.with_gold, fits.with_gold.gold, GOLD_AS_EXACT)
    without = _ShapedFit(fits.without_gold, fits.rows, None, "quality is not held equal")
    match fits.primary():
        case Slopes() as slopes:
            primary = _ShapedFit(slopes, fits.with_gold, slopes.x[:, slopes.names.index(GOLD)], fits.note)
        case LatentSlopes():
            rows = fits.rows.with_any_gold()
            votes = np.nansum(np.sign([rows.gold, rows.gold_2]), axis=0)
            primary = _ShapedFit(fit_slopes(rows, votes), rows, votes, "at an equal sum of golds")
        case Undefined() as reason:
            primary = replace(given, slopes=reason)
    return {"": primary, GIVEN_GOLD: given, "no_gold": without}


def _shape_rows(
    labels: RowLabels, shaped: dict[str, _ShapedFit], shapes: dict[str, JointTest | Undefined]
) -> list[Estimate]:
    """``length_shape``, primary and ``given_gold``; where the best founded of the tests rejects, ``length_ame`` of halves."""
    variants = ("", GIVEN_GOLD) if len(shaped[GIVEN_GOLD].rows) else ("",)
    estimates = [_shape_row(labels, shaped[variant], shapes[variant], variant) for variant in variants]
    best = next((name for name, shape in shapes.items() if isinstance(shape, JointTest)), None)
    if best is None or labels.category or not rejects_slope(shapes[best]):
        return estimates
    fit = shaped[best]
    for variant, half in halves(fit.rows).items():
        slopes = fit_slopes(fit.rows.where(half), None if fit.gold is None else fit.gold[half])
        estimates.append(row(
            labels, "verbosity", "length_ame", _length_effect(slopes), fit.rows.where(half).counts,
            unit=f"{PROBABILITY} per doubling", variant=variant, null=None, note=fit.note,
        ))  # fmt: skip
    return estimates


def _shape_row(
    labels: RowLabels, fit: _ShapedFit, shape: JointTest | Undefined, variant: str, note: str = ""
) -> Estimate:
    """One row of ``length_shape``: the test ``shape`` of ``fit``."""
    if isinstance(shape, Undefined):
        return row(labels, "verbosity", LENGTH_SHAPE, shape, fit.rows.counts, unit="F", variant=variant)
    test = BareTest(shape.f, shape.p_value, "cluster score test (Hotelling)")
    note = joined(f"F on {shape.q} and {shape.df} degrees of freedom", fit.note, note)
    return row(labels, "verbosity", LENGTH_SHAPE, test, fit.rows.counts, unit="F", variant=variant, note=note)


def _exchange_rates(labels: RowLabels, fits: _ContentFits) -> list[Estimate]:
    """``length_exchange_rate``: primary and ``given_gold``."""
    term, note = "length_exchange_rate", "units of gold that one doubling outweighs"
    rate = _length_rate(fits.primary())
    estimates = [row(labels, "verbosity", term, rate, fits.primary_counts(), unit="ratio", note=f"{note}; {fits.note}")]
    if len(fits.with_gold):
        rate, counts = _length_rate(fits.given_gold), fits.with_gold.counts
        estimates.append(row(
            labels, "verbosity", term, rate, counts, unit="ratio", variant=GIVEN_GOLD, note=f"{note}; {GOLD_AS_EXACT}",
        ))  # fmt: skip
    return estimates


def _length_rate(model: Slopes | LatentSlopes | Undefined) -> Interval | Undefined:
    """β/κ of length over gold, Fieller's interval; Undefined where κ cannot be distinguished from 0."""
    if isinstance(model, Undefined):
        return model
    if "length" not in model.names:
        return _slope_of(model, "length")
    j, k, v = model.names.index("length"), model.names.index(GOLD), model.covariance
    df = model.df_of("length", GOLD)
    result = fieller_from_moments(
        float(model.coefficients[j]), float(model.coefficients[k]), float(v[j, j]), float(v[k, k]), float(v[j, k]),
        df,
    )  # fmt: skip
    if isinstance(result, Undefined):
        return Undefined(f"the judge's slope on gold is not distinguishable from 0: {result.reason}")
    return result


def _compared_with_gold(labels: RowLabels, rows: Covariates, fitted: Slopes | Undefined | None) -> list[Estimate]:
    """``excess_longer_vs_gold``, a description, and ``length_beyond_agreement``, the screen. ``rows``: those with gold;
    ``fitted``: the judge's slopes on them without gold, where they are known.

    ``excess_longer_vs_gold`` is the judge's average marginal effect of length minus gold's own on the same pairs. It is
    not 0 for any judge that errs more or less than gold does (a coin: minus gold's), and so it tests nothing.
    """
    unit = f"{PROBABILITY} per doubling"
    judge_slopes = _WITHOUT_GOLD if not len(rows) else fit_slopes(rows) if fitted is None else fitted
    gold_slopes = fit_slopes(rows.picked_by_gold()) if len(rows) else _WITHOUT_GOLD
    difference: Interval | Undefined
    screen: Interval | Undefined
    note = ""
    if isinstance(judge_slopes, Undefined):
        difference = screen = judge_slopes
    elif isinstance(gold_slopes, Undefined):
        difference = screen = Undefined(f"gold's own slopes: {gold_slopes.reason}")
    else:
        difference = effect_difference(judge_slopes, gold_slopes, "length")
        agreement = _net_agreement(rows)
        screen = agreement if isinstance(agreement, Undefined) else _screen(judge_slopes, gold_slopes, agreement)
        if isinstance(agreement, Factor):
            note = f"agreement with gold a = {(1.0 + agreement.value) / 2.0:.3f}"
    return [
        row(labels, "verbosity", "excess_longer_vs_gold", difference, rows.counts, unit=unit, null=None,
            note="a judge that errs more or less often than gold differs from it without any bias"),
        row(labels, "verbosity", LENGTH_SCREEN, screen, rows.counts, unit=unit, equivalence=False, note=note),
    ]  # fmt: skip


def _net_agreement(rows: Covariates) -> Factor | Undefined:
    """2a − 1, a the share of picks that are gold's (a tie ½) where gold decides; with one item left out too."""
    decided = rows.gold != 0
    if not decided.any():
        return Undefined("gold calls every pair a tie")
    agreed = np.where(decided, (2.0 * rows.picked_a - 1.0) * np.sign(rows.gold), 0.0)
    codes = dense_codes(rows.items)[0]
    sums = cluster_sums(np.stack([agreed, decided.astype(np.float64)], axis=1), codes, int(codes.max()) + 1)
    total, others = sums.sum(axis=0), sums.sum(axis=0) - sums
    if np.any(others[:, 1] == 0):
        return Undefined("gold decides in one item only")
    return Factor(float(total[0] / total[1]), others[:, 0] / others[:, 1])


def _screen(judge: Slopes, gold: Slopes, agreement: Factor) -> Interval | Undefined:
    """AME_judge − (2a − 1)·AME_gold, probability per doubling; positive = the judge favours longer texts beyond gold.

    An unbiased judge that is gold with errors has AME_judge = (2a − 1)·AME_gold; one of whom gold is a version with
    errors has AME_gold = (2a − 1)·AME_judge; where both err, it lies between. So the p-value is the larger of the two
    differences', and 1 where these have different signs. Errors must not depend on length given quality.
    """
    if np.array_equal(judge.z, gold.z):
        return Undefined("the judge picks gold's text in every judgment")
    beyond = effect_difference(judge, gold, "length", agreement)
    no_worse = Factor(max(0.0, agreement.value), np.maximum(0.0, agreement.left_out))
    other = effect_difference(gold, judge, "length", no_worse)
    if isinstance(beyond, Undefined) or isinstance(other, Undefined):
        return beyond if isinstance(beyond, Undefined) else other
    same_side = beyond.estimate * other.estimate < 0.0
    p_value = max(beyond.p_value or 0.0, other.p_value or 0.0) if same_side else 1.0
    return replace(beyond, p_value=p_value, method=f"{beyond.method}, agreement estimated")


def _joint_tests(labels: RowLabels, fits: _ContentFits) -> list[Estimate]:
    """``style_joint``: length and all style features at once, as collinear features hide one another in single tests."""
    estimates = [_joint_test(labels, fits.primary(), fits.primary_counts(), "", fits.note)]
    if len(fits.with_gold):
        estimates.append(_joint_test(labels, fits.given_gold, fits.with_gold.counts, GIVEN_GOLD, GOLD_AS_EXACT))
        if not isinstance(fits.given_gold, Undefined):
            estimates.append(
                _joint_test(
                    labels, fits.given_gold, fits.with_gold.counts, "wald", f"rejects too often; {GOLD_AS_EXACT}"
                )
            )
    return estimates


def _joint_test(
    labels: RowLabels, model: Slopes | LatentSlopes | Undefined, counts: SampleCounts, variant: str, note: str
) -> Estimate:
    """One row of ``style_joint``."""

    def undefined(reason: Undefined) -> Estimate:
        return row(labels, "style", "style_joint", reason, counts, unit="F", variant=variant)

    if isinstance(model, Undefined):
        return undefined(model)
    features = model.features
    if not set(features) - {"length"}:
        why = "no style feature of the texts is known or differs enough: there is only length, see length_ame"
        return undefined(Undefined(why))
    result = _test_of(model, features, variant)
    if isinstance(result, Undefined):
        return undefined(result)
    notes = [f"F on {result.q} and {result.df} degrees of freedom: {', '.join(features)}"]
    if isinstance(model, Slopes):
        worst = max(features, key=model.variance_inflation)
        notes.append(f"largest variance inflation {model.variance_inflation(worst):.2f} ({worst})")
    kind = "cluster score test (Hotelling)" if isinstance(model, Slopes) else "Wald (Hotelling)"
    kind = "Wald" if variant == "wald" else kind
    test = BareTest(result.f, result.p_value, f"{kind}; {model.method}")
    return row(labels, "style", "style_joint", test, counts, unit="F", variant=variant, note=joined(*notes, note))


def _test_of(model: Slopes | LatentSlopes, tested: tuple[str, ...], variant: str) -> JointTest | Undefined:
    """The joint test of the ``tested`` features: Wald for variant ``wald``, else the model's own."""
    if variant == "wald":
        return joint_wald(model.names, tested, model.coefficients, model.covariance, model.df)
    return model.joint(tested) if isinstance(model, LatentSlopes) else joint_score(model, tested)


def _golds_agree(both: Covariates) -> tuple[Covariates, Floats]:
    """A row a pair of those whose judgments have two golds, and whether these say the same of it: a, b or tie; of numbers the sign."""
    pairs = both.where(np.unique(both.pairs, return_index=True)[1])
    return pairs, (np.sign(pairs.gold) == np.sign(pairs.gold_2)).astype(np.float64)


def _golds_agreement(labels: RowLabels, rows: Covariates) -> Estimate:
    """``golds_agreement``: the share of pairs with two golds on which both say the same."""
    pairs, agree = _golds_agree(rows.where(~np.isnan(rows.gold) & ~np.isnan(rows.gold_2)))
    share = clustered_proportion(agree, pairs.items) if len(pairs) else Undefined("no judged pair has two golds")
    return row(labels, "quality", GOLDS_AGREEMENT, share, pairs.counts, unit=PROBABILITY, null=None)


def gold_estimates(
    labels: RowLabels,
    judgments: pd.DataFrame,
    with_gold: Covariates,
    given_gold: Slopes | Undefined,
    corrected: Slopes | LatentSlopes | Undefined,
    second: SampleCounts | None,
    *,
    gold_exact: bool = False,
) -> list[Estimate]:
    """``gold_agreement`` (probability) and ``gold_log_odds`` κ, with variant ``corrected`` where two golds exist.

    The primary is given gold. ``with_gold``: the rows whose gold is known, to which ``given_gold`` was fitted;
    ``corrected``: the fit that allows for gold's errors, on the rows that ``second`` counts; ``second`` None where
    there is no second gold. ``gold_exact``: gold cannot err.
    """
    agreement, counts = gold_agreement(judgments)
    rows = [
        row(labels, "quality", "gold_agreement", agreement, counts, unit=PROBABILITY, null=None,
            note=f"{_agreement_note(judgments)}; ties count half; pairs that gold ties are left out"),
        row(labels, "quality", "gold_log_odds", _slope_of(given_gold, GOLD), with_gold.counts,
            unit=f"{LOG_ODDS} per unit of gold", note="" if gold_exact else "gold's errors pull it towards 0"),
    ]  # fmt: skip
    if second:
        slope = _slope_of(corrected, GOLD)
        unit = f"{LOG_ODDS} per unit of gold" if isinstance(corrected, Slopes) else f"{LOG_ODDS} per log-odds of gold"
        rows.append(row(labels, "quality", "gold_log_odds", slope, second, unit=unit, variant="corrected"))
    return rows


def _agreement_note(judgments: pd.DataFrame) -> str:
    """What the agreement's mean is over, for the row's note: a slot's effect cancels only where both orders are asked."""
    if in_one_order(judgments):
        return "over calls, one order a pair: it holds the judge's preference for a slot wherever gold's text stands in one slot more often"
    return "both orders together"


def gold_agreement(judgments: pd.DataFrame) -> tuple[Interval | Undefined, SampleCounts]:
    """The share of scored judgments that pick gold's text (a tie ½, a soft verdict its probability), and their counts.

    Clustered by item. Where both orders are complete it is the mean of the two orders' accuracies. Pairs that gold ties
    are left out. Undefined with a reason where no judgment remains.
    """
    compared = not_identical(judgments)
    lost = unscored(compared)
    if "gold" not in compared:
        return Undefined("no gold"), SampleCounts(0, 0, lost)
    margin, _ = gold_margin(compared["gold"])
    picked = picked_a(compared)
    right = np.where(margin > 0, picked, 1.0 - picked)
    keep = ~np.isnan(picked) & ~np.isnan(margin) & (margin != 0)
    items = item_codes(compared)[keep]
    counts = SampleCounts(int(keep.sum()), distinct(items), lost)
    if not keep.any():
        why = "no gold" if np.all(np.isnan(margin)) else "gold ties every pair that has a verdict"
        return Undefined(why), counts
    return clustered_proportion(right[keep], items), counts
