"""Mitigations measured on the same verdicts: the bias in their labels, the bias they transmit, and their cost.

A mitigation makes labels of a judge's picks (docs/method.md, "Mitigations"); ``variant`` of a row is its name. ``raw``
is no mitigation, with which the others are compared; ``raw_picks`` is that comparison for labels made of picks alone,
where verdicts have probabilities. A mitigation may remove one bias and strengthen another: keeping only
order-consistent pairs removes the effect of the slot and doubles every content slope.

Transmission a_RJ = β_R/β_J is the slope of a signal fitted to the labels over the judge's own: 1 = passed on as it is,
2 = doubled, 0 = removed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import distinct
from judgeloop.stats.estimate import PROBABILITY, RATE_MARGIN, Bias, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import (
    LEVEL,
    Interval,
    Undefined,
    bounded_mean,
    clustered_proportion,
    fieller_from_moments,
)
from judgeloop.stats.judge.content import gold_agreement
from judgeloop.stats.judge.covariates import NO_GOLD, Covariates, covariates, feature_bias
from judgeloop.stats.judge.slopes import (
    FEWEST_ITEMS,
    GOLD,
    ORDER,
    Slopes,
    average_effect,
    fit_columns,
    shape_test,
    withheld_where_not_linear,
)
from judgeloop.stats.presentations import (
    CLUSTER,
    Booleans,
    Floats,
    a_first,
    clusters,
    item_codes,
    not_identical,
    pairs,
    unscored,
)

MITIGATIONS = ("raw", "raw_picks", "swap_average", "consistent_only", "length_controlled", "rubric", "panel")
"""Every mitigation, in the order in which they are reported."""
FOLDS = 5
"""Parts of the items in ``longer_without_length``."""
_PAIR_KEYS = ["replicate", "arm", "generation", "item_id", "pair_id"]
_PRESENTATION_KEYS = [*_PAIR_KEYS, "panel", "order"]
_PAIR_COLUMNS = ("category", "gold", "gold_2", "len_a", "len_b", "model_a", "model_b", CLUSTER)
_VOTES = ("first", "second", "tie", "a", "b")
_WITHOUT_GOLD = Undefined(NO_GOLD)
_SLOPE_NEAR_0 = "the judge's own slope is not distinguishable from 0, so a ratio to it has no meaning"
_NO_SLOT_REASONS = {
    "swap_average": "a label counts both orders equally",
    "consistent_only": "a pair is kept only where both orders pick the same text",
}


@dataclass(frozen=True, slots=True)
class Mitigation:
    """One mitigation's labels, of one judge on one set of pairs.

    ``preferences``: PREFERENCE_COLUMNS, as the label rules return them. ``judgments``: what they were made of, a row a
    presentation (the judge's own, a panel's majorities, the rubric's). ``calls``: how many were asked for them.
    ``zeroed``: features whose slope is set to 0 once the signal is fitted.
    """

    name: str
    preferences: pd.DataFrame
    judgments: pd.DataFrame
    calls: int
    zeroed: tuple[str, ...] = ()

    @property
    def pooled(self) -> bool:
        """Whether a label stands for a pair in both orders, so that it has no slot."""
        return bool(len(self.preferences)) and bool((self.preferences["order"] == "").all())

    def labels(self) -> pd.DataFrame:
        """A row a label in the columns of judgments: ``p_first`` is the label's P(first slot); pooled labels have the order
        ab, so that first is a."""
        table, given = _pair_table(self.judgments), self.preferences
        place_of = {key: place for place, key in enumerate(_keys(table, _PAIR_KEYS))}
        # The preferences are sorted by pair, order and repeat: so are the labels, in the order of their first rows.
        label_of: dict[tuple[Any, ...], int] = {}
        keys = _keys(_with_integer_keys(given), [*_PAIR_KEYS, "order", "repeat"])
        codes = np.array([label_of.setdefault(key, len(label_of)) for key in keys], dtype=np.intp)
        labels = table.iloc[[place_of[key[: len(_PAIR_KEYS)]] for key in label_of]].reset_index(drop=True)
        a, b = (labels[name].to_numpy(dtype=object) for name in ("a", "b"))
        weight = given["weight"].to_numpy(dtype=np.float64)
        for_a = np.where(given["chosen"].to_numpy(dtype=object) == a[codes], weight, 0.0)
        sums = (np.bincount(codes, weights=values, minlength=len(labels)) for values in (for_a, weight))
        p_a = np.divide(*sums)
        backward = np.array([order == "ba" for *_, order, _ in label_of], dtype=np.bool_)
        return labels.drop(columns=["a", "b"]).assign(
            order=np.where(backward, "ba", "ab"),
            repeat=[repeat for *_, repeat in label_of],
            verdict="tie",
            p_first=np.where(backward, 1.0 - p_a, p_a),
            candidate_first=np.where(backward, b, a),
            candidate_second=np.where(backward, a, b),
            identical=False,
        )


def _pair_table(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a pair of different texts: its candidates ``a``, ``b`` by id, and the columns that belong to a pair."""
    shown = _with_integer_keys(not_identical(judgments))
    forward = a_first(shown)
    columns = [column for column in _PAIR_COLUMNS if column in shown]
    return (
        shown[[*_PAIR_KEYS, *columns]]
        .assign(
            a=shown["candidate_first"].where(forward, shown["candidate_second"]),
            b=shown["candidate_second"].where(forward, shown["candidate_first"]),
        )
        .drop_duplicates(_PAIR_KEYS)
    )


def pairs_asked(judgments: pd.DataFrame) -> pd.DataFrame:
    """The keys of every pair of different texts that was judged, whether or not it got a verdict."""
    return _with_integer_keys(not_identical(judgments))[_PAIR_KEYS].drop_duplicates(ignore_index=True)


def has_label(labels: pd.DataFrame, pairs: pd.DataFrame) -> Floats:
    """(n,) 1 where a pair of ``pairs`` has a label, else 0."""
    labelled_pairs = _with_integer_keys(labels)[_PAIR_KEYS].drop_duplicates().assign(has=1.0)
    return np.asarray(pairs.merge(labelled_pairs, on=_PAIR_KEYS, how="left")["has"].fillna(0.0), dtype=np.float64)


def _keys(frame: pd.DataFrame, names: Sequence[str]) -> list[tuple[Any, ...]]:
    """The values of these columns, a tuple a row; None where one is missing."""
    columns = (frame[name].astype("object").where(frame[name].notna(), None) for name in names)
    return list(zip(*columns, strict=True))


def _with_integer_keys(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``replicate`` and ``generation`` as nullable integers, which can be joined on even where empty."""
    return frame.assign(**{name: frame[name].astype("Int64") for name in ("replicate", "generation")})


def majority(judgments: pd.DataFrame, name: str) -> pd.DataFrame:
    """One judgment a presentation: the slot (the text, where the order is unknown) that most judges and repeats with a verdict
    picked.

    ``judge`` becomes ``name``. A tie where none alone has the most votes (as in ``judging.PanelJudge``), unscored
    where there is no verdict.
    """
    judgments = _with_integer_keys(judgments)
    shown = [column for column in _PRESENTATION_KEYS if column in judgments]
    votes = pd.DataFrame({vote: (judgments["verdict"] == vote).astype("float64") for vote in _VOTES})
    counts = pd.concat([judgments[shown], votes], axis=1).groupby(shown, dropna=False, sort=False).sum().reset_index()
    numbers = counts[list(_VOTES)].to_numpy()
    most = numbers.max(axis=1)
    has_winner = (numbers == most[:, None]).sum(axis=1) == 1
    vote = np.where(has_winner, np.array(_VOTES)[numbers.argmax(axis=1)], "tie")
    verdict = np.where(most > 0, vote, "unscored")
    rest = judgments.drop_duplicates(shown).drop(columns=["verdict"])
    return counts[shown].assign(verdict=verdict).merge(rest, on=shown, how="left").assign(
        judge=name, repeat=0, p_first=np.nan
    )  # fmt: skip


def mitigation_estimates(
    judgments: pd.DataFrame,
    mitigations: Sequence[Mitigation],
    texts: pd.DataFrame | None,
    labels: RowLabels,
    *,
    scales: Mapping[str, float] | None = None,
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """The rows of one judge's mitigations, ``variant`` = the mitigation.

    ``first_slot_excess``, ``length_ame``, ``longer_preferred_raw``, ``gold_agreement``, ``transmission_<feature>``,
    ``mitigation_kept`` and ``mitigation_cost``. ``judgments``: the judge's own, on the same pairs; ``texts`` and
    ``scales`` as in ``content_estimates``. Without gold ``length_ame`` is undefined, and ``longer_preferred_raw`` stays
    raw. ``transmission_length`` has two more variants: ``<name>_disjoint``, without any shared pick, and
    ``<name>_given_gold``, with gold held equal.
    """
    judge = label_sample(judgments, texts, pooled=False, scales=scales)
    rows: list[Estimate] = []
    for mitigation in mitigations:
        frame = mitigation.labels() if len(mitigation.preferences) else judgments.iloc[:0]
        sample = label_sample(frame, texts, pooled=mitigation.pooled, scales=scales)
        lost = unscored(not_identical(mitigation.judgments))
        columns = shared_features(judge, sample)
        rows += [
            _position_row(labels, mitigation, lost, margin),
            *_length_rows(labels, mitigation, sample, columns, lost, margin),
            _agreement_row(labels, mitigation, frame, lost),
            *_transmission_rows(labels, mitigation, judge, sample, columns, lost),
            *_cost_rows(labels, mitigation, frame, lost),
        ]
    return rows


def _clusters_of(mitigation: Mitigation, judged_pairs: pd.DataFrame) -> pd.Series[Any]:
    """(n,) the clusters of pairs that the mitigation's judgments hold (``presentations.clusters``)."""
    # pandas takes longer to hand over its texts one by one.
    items, own = (column.tolist() for column in (mitigation.judgments["item_id"], clusters(mitigation.judgments)))
    of_item = dict(zip(items, own, strict=True))
    return judged_pairs["item_id"].map(of_item)


def _position_row(labels: RowLabels, mitigation: Mitigation, lost: int, margin: float) -> Estimate:
    """``first_slot_excess`` of the labels: 0 by construction where a label counts both orders, else measured."""
    term = "first_slot_excess"
    table = pairs(not_identical(mitigation.judgments))
    complete = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    if mitigation.name in _NO_SLOT_REASONS:
        count = mitigation.preferences[["item_id", "pair_id"]].drop_duplicates()
        counts = SampleCounts(len(count), _clusters_of(mitigation, count).nunique(), lost)
        if not len(count):
            return row(
                labels, "position", term, _no_label(mitigation), counts, unit=PROBABILITY, variant=mitigation.name
            )
        return _zero_row(labels, "position", term, mitigation, counts, PROBABILITY, _NO_SLOT_REASONS[mitigation.name])
    values, items = ((complete["ab"] + complete["ba"]) / 2.0 - 0.5).to_numpy(), complete["item"].to_numpy()
    result = (
        bounded_mean(values, items, -0.5, 0.5) if len(complete) else Undefined("no pair has a verdict in both orders")
    )
    note = "in the labels; the order column of the signal's fit absorbs it"
    counts = SampleCounts(len(complete), distinct(items), lost)
    return row(
        labels, "position", term, result, counts, unit=PROBABILITY, variant=mitigation.name, margin=margin, note=note
    )


def _length_rows(
    labels: RowLabels, mitigation: Mitigation, sample: LabelSample, columns: Sequence[str], lost: int, margin: float
) -> list[Estimate]:
    """``length_ame`` and ``longer_preferred_raw`` of the labels."""
    unit, with_gold = f"{PROBABILITY} per doubling", sample.with_gold
    counts = dataclasses.replace(with_gold.rows.counts, unscored=lost)
    if "length" in mitigation.zeroed:
        why = "the coefficient is set to 0 after the fit; that of style that goes with length is not"
        ame = _zero_row(labels, "verbosity", "length_ame", mitigation, counts, unit, why)
        preferred = longer_without_length(sample, columns)
        preferred_counts = SampleCounts(distinct(sample.rows.pairs), sample.rows.counts.items, lost)
        note = "raw: quality and bias together; picks of the reward without length, fitted on the other items"
    else:
        slopes = with_gold.fit(columns, gold=True) if len(with_gold.rows) else _WITHOUT_GOLD
        effect = average_effect(slopes, "length") if isinstance(slopes, Slopes) else slopes
        ame = row(
            labels, "verbosity", "length_ame", effect, counts, unit=unit, variant=mitigation.name, margin=margin,
            note="of the labels, given gold taken as exact",
        )  # fmt: skip
        if isinstance(slopes, Slopes):
            ame = withheld_where_not_linear(ame, shape_test(slopes, with_gold.rows.mean_length))
        length = sample.rows.length
        preferred = Undefined("the labelled texts' lengths are not known or never differ")
        preferred_counts = SampleCounts(0, 0, lost)
        if length is not None:
            differ = length != 0
            longer = np.where(length > 0, sample.rows.picked_a, 1.0 - sample.rows.picked_a)[differ]
            preferred = clustered_proportion(longer, sample.rows.items[differ])
            preferred_counts = dataclasses.replace(sample.where(differ).rows.counts, unscored=lost)
        note = "raw: quality and bias together"
    raw = row(
        labels, "verbosity", "longer_preferred_raw", preferred, preferred_counts, unit=PROBABILITY,
        variant=mitigation.name, null=None, note=note,
    )  # fmt: skip
    return [ame, raw]


def _agreement_row(labels: RowLabels, mitigation: Mitigation, frame: pd.DataFrame, lost: int) -> Estimate:
    """``gold_agreement`` of the labels in ``frame``."""
    result, counts = gold_agreement(frame) if len(frame) else (_no_label(mitigation), SampleCounts(0, 0))
    note = "the labels are the raw ones; the correction comes after the fit" if mitigation.zeroed else "of the labels"
    if mitigation.name == "consistent_only":
        note = "of the pairs kept, which are the clearer ones"
    return row(
        labels, "quality", "gold_agreement", result, dataclasses.replace(counts, unscored=lost), unit=PROBABILITY,
        variant=mitigation.name, null=None, note=note,
    )  # fmt: skip


def _transmission_rows(
    labels: RowLabels,
    mitigation: Mitigation,
    judge: LabelSample,
    sample: LabelSample,
    columns: Sequence[str],
    lost: int,
) -> list[Estimate]:
    """``transmission_<feature>`` with its benchmark, and length's variants."""
    expected, note = benchmark(mitigation, judge, columns)
    counts = dataclasses.replace(sample.rows.counts, unscored=lost)
    absent = (
        _no_label(mitigation) if not len(sample.rows) else Undefined("the texts' lengths are not known or never differ")
    )
    ratios: dict[str, Interval | Undefined] = {"length": absent}
    if columns:
        ratios |= transmission(judge, sample, columns)
    rows = []
    for name, ratio in ratios.items():
        bias, term = feature_bias(name), f"transmission_{name}"
        if name in mitigation.zeroed and name in columns:
            estimate = _zero_row(
                labels, bias, term, mitigation, counts, "ratio", "the coefficient is set to 0 after the fit"
            )
        else:
            estimate = row(
                labels, bias, term, ratio, counts, unit="ratio",
                variant=mitigation.name, null=None, note=note, benchmark=expected,
            )  # fmt: skip
        rows.append(dataclasses.replace(estimate, scope="signal"))
    if "length" not in mitigation.zeroed:
        rows += _length_variants(
            labels, mitigation, judge, sample, columns if "length" in columns else (), counts, absent
        )
    return rows


def _length_variants(
    labels: RowLabels,
    mitigation: Mitigation,
    judge: LabelSample,
    sample: LabelSample,
    columns: Sequence[str],
    counts: SampleCounts,
    absent: Undefined,
) -> list[Estimate]:
    """Length's transmission with no pick shared, and with gold held equal on both sides."""
    without_shared: Interval | Undefined = (
        disjoint_transmission(judge, sample, columns, "length") if columns else absent
    )
    given_gold: Interval | Undefined = absent if not columns or len(judge.with_gold.rows) else _WITHOUT_GOLD
    if columns and len(judge.with_gold.rows):
        given_gold = transmission(judge.with_gold, sample.with_gold, columns, gold=True)["length"]
    gold_counts = dataclasses.replace(sample.with_gold.rows.counts, unscored=counts.unscored)
    disjoint_note = "no pick is shared; a wide interval, and only where half the items identify the judge's slope"
    rows = [
        row(labels, "verbosity", "transmission_length", ratio, n, unit="ratio", variant=f"{mitigation.name}_{kind}",
            null=None, note=note)
        for kind, ratio, n, note in (
            ("disjoint", without_shared, counts, disjoint_note),
            ("given_gold", given_gold, gold_counts, "gold is a column of both fits"),
        )
    ]  # fmt: skip
    return [dataclasses.replace(estimate, scope="signal") for estimate in rows]


def benchmark(mitigation: Mitigation, judge: LabelSample, columns: Sequence[str]) -> tuple[float | None, str]:
    """The transmission that theory gives (docs/method.md, "Transmission"), None where it gives no number; and the reason.

    ``swap_average`` and ``consistent_only``: with this judge's γ, its picks in log-odds for the first slot.
    """
    slopes = judge.fit(columns) if columns else None
    gamma = float(slopes.coefficients[slopes.names.index(ORDER)]) if isinstance(slopes, Slopes) else None
    if mitigation.name == "raw":
        return 1.0, "1 by construction: the labels are the judge's picks, and both fits hold the order column"
    if mitigation.name == "raw_picks":
        return None, "the same verdicts without their probabilities, with which labels of picks alone are compared"
    if mitigation.name == "length_controlled":
        return None, "the fit is the raw one; length alone is then set to 0"
    if mitigation.name == "swap_average":
        expected = None if gamma is None else 1.0 / math.cosh(gamma / 2.0) ** 2
        value = "" if expected is None else f", here {expected:.2f}"
        return expected, f"theory, slopes small beside 1: sech²(γ/2){value}"
    if mitigation.name == "consistent_only":
        presentations = _presentations_per_pair(mitigation)
        locked = "" if gamma is None or presentations != 2 else f", here {2.0 / (1.0 + math.exp(-abs(gamma))):.2f}"
        return float(presentations), (
            f"theory: exactly {presentations} where calls are independent given the pair; at temperature 0 they are not, and the "
            f"filter only drops the pairs that the order decides: 2s(|γ|){locked}"
        )
    return None, "slope of these labels over that of the judge as it was asked"


def _presentations_per_pair(mitigation: Mitigation) -> int:
    """The most frequent number of scored presentations of the kept pairs, all of which must agree."""
    kept_pairs = mitigation.preferences[["item_id", "pair_id"]].drop_duplicates()
    scored = mitigation.judgments[mitigation.judgments["verdict"] != "unscored"].merge(
        kept_pairs, on=["item_id", "pair_id"]
    )
    sizes = scored.groupby(["item_id", "pair_id"]).size()
    return int(sizes.mode().iloc[0]) if len(sizes) else 2


def _cost_rows(labels: RowLabels, mitigation: Mitigation, frame: pd.DataFrame, lost: int) -> list[Estimate]:
    """``mitigation_kept``, the share of pairs with a label, and ``mitigation_cost``, calls a label.

    A label is a presentation's, or a pair's where labels are pooled.
    """
    judged_pairs = pairs_asked(mitigation.judgments)
    labelled, items = has_label(frame, judged_pairs), pd.factorize(_clusters_of(mitigation, judged_pairs))[0]
    pair_counts = SampleCounts(len(judged_pairs), distinct(items), lost)
    kept_share = clustered_proportion(labelled, items) if len(judged_pairs) else Undefined("no pair was judged")
    rows = [
        row(labels, "quality", "mitigation_kept", kept_share, pair_counts, unit=PROBABILITY, variant=mitigation.name,
            null=None, note="share of the pairs that give a label")
    ]  # fmt: skip
    shown = not_identical(mitigation.judgments)
    if mitigation.name in _NO_SLOT_REASONS:
        units, labels_of_units, codes = len(judged_pairs), labelled, items
    else:
        units, codes = len(shown), item_codes(shown)
        labels_of_units = (shown["verdict"] != "unscored").to_numpy().astype(np.float64)
    counts = SampleCounts(int(labels_of_units.sum()), distinct(codes), lost)
    share = clustered_proportion(labels_of_units, codes) if units else Undefined("no pair was judged")
    cost: Interval | Undefined
    if isinstance(share, Undefined):
        cost = share
    elif share.estimate == 0:
        cost = _no_label(mitigation)
    else:
        calls_per_unit, lowest_share = mitigation.calls / units, max(share.low, 1e-12)
        cost = Interval(
            calls_per_unit / share.estimate, calls_per_unit * share.std_error / share.estimate**2,
            calls_per_unit / share.high, calls_per_unit / lowest_share, share.level, None, share.df, share.method,
        )  # fmt: skip
    of_pairs = mitigation.name in _NO_SLOT_REASONS
    note = "calls a label of a pair" if of_pairs else "calls a label; a label of either order counts"
    rows.append(row(
        labels, "quality", "mitigation_cost", cost, counts, unit="ratio", variant=mitigation.name, null=None, note=note
    ))  # fmt: skip
    return rows


def _no_label(mitigation: Mitigation) -> Undefined:
    """Why the mitigation gives no label."""
    both_orders = set(mitigation.judgments["order"]) == {"ab", "ba"}
    if mitigation.name in _NO_SLOT_REASONS and not both_orders:
        return Undefined("one order only: this mitigation needs both")
    return Undefined("no pair gives a label")


def _zero_row(
    labels: RowLabels, bias: Bias, term: str, mitigation: Mitigation, counts: SampleCounts, unit: str, why: str
) -> Estimate:
    """A row of 0 by construction, without an error: it is set, not estimated."""
    zero = Interval(0.0, 0.0, 0.0, 0.0, LEVEL, None, None, "by construction")
    note = f"0 by construction: {why}"
    return row(labels, bias, term, zero, counts, unit=unit, variant=mitigation.name, null=None, note=note)


@dataclass(frozen=True)
class LabelSample:
    """Labels (or picks) with the covariates of their texts; what is fitted to them is fitted once.

    ``rows``: the covariates; ``names`` (G,) the item ids by code; ``pooled``: a label stands for both orders of a pair,
    so that rows have no slot.
    """

    rows: Covariates
    names: NDArray[np.object_]
    pooled: bool
    fits: dict[tuple[tuple[str, ...], bool], Slopes | Undefined] = field(
        init=False, default_factory=dict, compare=False, repr=False
    )

    @cached_property
    def with_gold(self) -> LabelSample:
        """The rows whose gold is known."""
        return self.where(~np.isnan(self.rows.gold))

    def where(self, mask: Booleans) -> LabelSample:
        """The rows of the mask (n,)."""
        return replace(self, rows=self.rows.where(mask))

    def of_items(self, item_ids: NDArray[np.object_]) -> LabelSample:
        """The rows of these items."""
        wanted = set(item_ids)
        return self.where(
            np.fromiter((name in wanted for name in self.names), np.bool_, len(self.names))[self.rows.items]
        )

    def fit(self, features: Sequence[str], *, gold: bool = False) -> Slopes | Undefined:
        """The content model on ``features``, with the order column unless pooled, and with the gold column where ``gold``.

        Undefined where nothing identifies it, or where the features separate the labels.
        """
        key = tuple(features), gold
        if key not in self.fits:
            self.fits[key] = self._fitted(*key)
        return self.fits[key]

    def _fitted(self, features: tuple[str, ...], gold: bool) -> Slopes | Undefined:
        rows = self.rows
        if len(rows) == 0:
            return Undefined("no pair has a label")
        columns: list[Floats] = [] if self.pooled else [rows.order]
        names = [] if self.pooled else [ORDER]
        for name in features:
            if name not in rows.features:
                return Undefined(f"{name} does not differ between the labelled texts")
            names.append(name)
            columns.append(rows.differences[:, rows.features.index(name)])
        if gold:
            if not np.any(rows.gold != 0):
                return Undefined("gold calls every labelled pair a tie")
            names.append(GOLD)
            columns.append(rows.gold)
        slopes = fit_columns(rows, tuple(names), np.stack(columns, axis=1))
        if isinstance(slopes, Slopes) and slopes.method.startswith("Firth"):
            return Undefined("the features separate the labels perfectly: the slope has no finite value")
        return slopes


def label_sample(
    labels: pd.DataFrame, texts: pd.DataFrame | None, *, pooled: bool, scales: Mapping[str, float] | None = None
) -> LabelSample:
    """The sample of labels in the columns of judgments; ``texts`` and ``scales`` as in ``covariates``."""
    names = pd.factorize(clusters(not_identical(labels)))[1]
    return LabelSample(covariates(labels, texts, scales=scales), np.asarray(names, dtype=object), pooled)


def shared_features(judge: LabelSample, labels: LabelSample) -> tuple[str, ...]:
    """The features in both fits: length, and every style feature that differs in enough items of both samples."""
    names = []
    for name in judge.rows.features:
        differing = [
            distinct(sample.rows.items[sample.rows.differences[:, sample.rows.features.index(name)] != 0])
            if name in sample.rows.features
            else 0
            for sample in (judge, labels)
        ]
        if min(differing) >= (1 if name == "length" else FEWEST_ITEMS):
            names.append(name)
    return tuple(names)


def transmission(
    judge: LabelSample, labels: LabelSample, features: Sequence[str], *, gold: bool = False
) -> dict[str, Interval | Undefined]:
    """a_RJ by feature (ratio): Fieller's interval with the item-clustered covariance of both fits.

    ``features`` are the columns of both fits, with gold where ``gold``. Undefined where either fit is, or where the
    judge's slope cannot be distinguished from 0. Labels that are the judge's picks give 1 exactly.
    """
    signal_slopes, judge_slopes = labels.fit(features, gold=gold), judge.fit(features, gold=gold)
    if isinstance(judge_slopes, Undefined):
        return dict.fromkeys(features, Undefined(f"the judge's slope is not known: {judge_slopes.reason}"))
    if isinstance(signal_slopes, Undefined):
        return dict.fromkeys(features, signal_slopes)
    signal_influence, judge_influence = _item_influence(signal_slopes, labels), _item_influence(judge_slopes, judge)
    ratios: dict[str, Interval | Undefined] = {}
    for name in features:
        j, k = signal_slopes.names.index(name), judge_slopes.names.index(name)
        signal_part, judge_part = signal_influence[signal_slopes.names[j]], judge_influence[judge_slopes.names[k]]
        covariance = float((signal_part * judge_part.reindex(signal_part.index).fillna(0.0)).sum())
        ratio = fieller_from_moments(
            float(signal_slopes.coefficients[j]), float(judge_slopes.coefficients[k]), float((signal_part**2).sum()),
            float((judge_part**2).sum()), covariance, min(signal_slopes.df_of(name), judge_slopes.df_of(name)),
        )  # fmt: skip
        ratios[name] = (
            Undefined(_SLOPE_NEAR_0)
            if isinstance(ratio, Undefined)
            else replace(ratio, p_value=None, method="Fieller t, both fits clustered by item")
        )
    return ratios


def disjoint_transmission(
    judge: LabelSample, labels: LabelSample, features: Sequence[str], name: str
) -> Interval | Undefined:
    """a_RJ of ``name`` with no shared pick: β_R from a random half of the items, β_J from the other half; Fieller."""
    items = np.array(sorted(set(judge.names[judge.rows.items])), dtype=object)
    permutation = seeds.rng(0, "transmission", "halves").permutation(len(items))
    half, other_half = items[permutation[: len(items) // 2]], items[permutation[len(items) // 2 :]]
    signal_slopes = labels.of_items(half).fit(features)
    judge_slopes = judge.of_items(other_half).fit(features)
    if isinstance(judge_slopes, Undefined):
        return Undefined(f"half the items do not identify the judge's slope: {judge_slopes.reason}")
    if isinstance(signal_slopes, Undefined):
        return Undefined(f"half the items do not identify the labels' slope: {signal_slopes.reason}")
    j, k = signal_slopes.names.index(name), judge_slopes.names.index(name)
    ratio = fieller_from_moments(
        float(signal_slopes.coefficients[j]), float(judge_slopes.coefficients[k]), float(signal_slopes.covariance[j, j]),
        float(judge_slopes.covariance[k, k]), 0.0, min(signal_slopes.df_of(name), judge_slopes.df_of(name)),
    )  # fmt: skip
    return (
        Undefined(f"on half the items, {_SLOPE_NEAR_0}")
        if isinstance(ratio, Undefined)
        else replace(ratio, p_value=None, method="Fieller t, either fit on its own half of the items")
    )


def longer_without_length(labels: LabelSample, features: Sequence[str]) -> Interval | Undefined:
    """How often a reward whose length slope was set to 0 still prefers the longer text (probability).

    It does so by style that goes with length. The reward is fitted on the other four fifths of the items, so that it
    never ranks texts it was fitted to.
    """
    style = [name for name in features if name != "length"]
    if not style:
        return Undefined("no style feature: with length set to 0 the reward is 0 for every text")
    items = np.array(sorted(set(labels.names[labels.rows.items])), dtype=object)
    fold_of = dict(
        zip(items[seeds.rng(0, "leaked length").permutation(len(items))], np.arange(len(items)) % FOLDS, strict=True)
    )
    folds = np.array([fold_of[name] for name in labels.names[labels.rows.items]])
    rows, length = labels.rows, labels.rows.length
    if length is None:
        return Undefined("length does not differ between the labelled texts")
    longer = np.full(len(rows), math.nan)
    for fold in range(FOLDS):
        reward = labels.where(folds != fold).fit(features)
        if isinstance(reward, Undefined):
            return Undefined(f"four fifths of the items do not identify the reward: {reward.reason}")
        in_fold = folds == fold
        b = np.array([reward.coefficients[reward.names.index(name)] for name in style])
        d = rows.differences[np.ix_(in_fold, [rows.features.index(name) for name in style])]
        longer[in_fold] = (np.sign(d @ b) * np.sign(length[in_fold]) + 1.0) / 2.0
    # One row a pair, as the reward has no order column.
    _, first = np.unique(rows.pairs, return_index=True)
    first = first[length[first] != 0]
    return clustered_proportion(longer[first], rows.items[first])


def _item_influence(fit: Slopes, sample: LabelSample) -> pd.DataFrame:
    """(G, p) contributions of the items to the coefficients' errors, by item id and column name."""
    return pd.DataFrame(fit.influence, index=pd.Index(sample.names[np.unique(fit.clusters)]), columns=list(fit.names))
