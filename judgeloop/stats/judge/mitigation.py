"""Mitigations measured on the same verdicts: what bias each leaves in the labels, what it passes on, and what it costs.

Rows bear the mitigation's name in ``variant``. ``raw`` is no mitigation, and the yardstick;
``raw_picks`` is the yardstick of what is made of picks alone where verdicts bear probabilities. A mitigation may remove one
bias and strengthen another: keeping only order-consistent pairs removes the slot and doubles every content slope.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.kernels import Correction, cluster_influence
from judgeloop.stats.estimate import PROBABILITY, RATE_MARGIN, Bias, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import (
    FEW_CLUSTERS,
    LEVEL,
    Interval,
    Undefined,
    bounded_mean,
    clustered_proportion,
    fieller_from_moments,
)
from judgeloop.stats.judge.content import gold_agreement
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.slopes import FEWEST_ITEMS, GOLD, ORDER, Slopes, average_effect, delta_effect, fit_columns
from judgeloop.stats.presentations import not_identical, pairs, unscored

# Transmission a_RJ = β_R/β_J of a mitigation: how much of a judge's content slope a signal trained on its labels inherits.

Floats = NDArray[np.float64]

FOLDS = 5
_NOT_AWAY = "the judge's own slope is not away from 0, so that a ratio to it means nothing"


@dataclass(frozen=True, slots=True)
class LabelSample:
    """Labels (or picks) with what their texts differ in. ``names`` (G,) of the items by code; ``pooled`` rows have no slot."""

    rows: Covariates
    names: NDArray[np.object_]
    pooled: bool

    def with_gold(self) -> LabelSample:
        """The rows whose gold is known."""
        return self.where(~np.isnan(self.rows.gold))

    def where(self, some: NDArray[np.bool_]) -> LabelSample:
        """These rows alone."""
        return replace(self, rows=self.rows.where(some))

    def of_items(self, chosen: NDArray[np.object_]) -> LabelSample:
        """The rows of these items."""
        return self.where(pd.Index(self.names).isin(chosen)[self.rows.items])

    def fit(self, features: Sequence[str], *, gold: bool = False) -> Slopes | Undefined:
        """The content model on those features, with the order column unless pooled, and with gold if asked for."""
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
        found = fit_columns(rows, tuple(names), np.stack(columns, axis=1))
        if isinstance(found, Slopes) and found.method.startswith("Firth"):
            return Undefined("the features separate the labels perfectly: the slope has no finite value")
        return found


def measured(
    labels: pd.DataFrame, texts: pd.DataFrame | None, *, pooled: bool, scales: Mapping[str, float] | None = None
) -> LabelSample:
    """Labels in the columns of judgments, and their texts' features (see ``covariates``)."""
    names = pd.factorize(not_identical(labels)["item_id"])[1]
    return LabelSample(covariates(labels, texts, scales=scales), np.asarray(names, dtype=object), pooled)


def shared_features(judge: LabelSample, labels: LabelSample) -> tuple[str, ...]:
    """The columns of both fits: length, and every style feature that differs in enough items of either."""
    found = []
    for name in judge.rows.features:
        differing = [
            len(np.unique(one.rows.items[one.rows.differences[:, one.rows.features.index(name)] != 0]))
            if name in one.rows.features
            else 0
            for one in (judge, labels)
        ]
        if min(differing) >= (1 if name == "length" else FEWEST_ITEMS):
            found.append(name)
    return tuple(found)


def transmission(
    judge: LabelSample, labels: LabelSample, features: Sequence[str], *, gold: bool = False
) -> dict[str, Interval | Undefined]:
    """a_RJ by feature: Fieller's interval with the item-clustered covariance of both fits; ``features`` are their columns,
    with gold besides if asked for.

    Undefined where either fit is, or where the judge's slope is not away from 0. Labels that are the judge's picks give
    1 exactly.
    """
    signal, own = labels.fit(features, gold=gold), judge.fit(features, gold=gold)
    if isinstance(own, Undefined):
        return dict.fromkeys(features, Undefined(f"the judge's slope is not known: {own.reason}"))
    if isinstance(signal, Undefined):
        return dict.fromkeys(features, signal)
    try:
        ours, theirs = _influence(signal, labels), _influence(own, judge)
    except ValueError as error:
        return dict.fromkeys(features, Undefined(str(error)))
    found: dict[str, Interval | Undefined] = {}
    for name in features:
        j, k = signal.names.index(name), own.names.index(name)
        a, b = ours[signal.names[j]], theirs[own.names[k]]
        shared = float((a * b.reindex(a.index).fillna(0.0)).sum())
        ratio = fieller_from_moments(
            float(signal.coefficients[j]), float(own.coefficients[k]), float((a**2).sum()), float((b**2).sum()), shared,
            float(min(signal.df, own.df)),
        )  # fmt: skip
        found[name] = (
            Undefined(_NOT_AWAY)
            if isinstance(ratio, Undefined)
            else replace(ratio, p_value=None, method="Fieller t, both fits clustered by item")
        )
    return found


def disjoint(judge: LabelSample, labels: LabelSample, features: Sequence[str], name: str) -> Interval | Undefined:
    """a_RJ of one feature with no shared pick: β_R from a random half of the items, β_J from the other; Fieller."""
    items = np.array(sorted(set(judge.names[judge.rows.items])), dtype=object)
    drawn = seeds.rng(0, "transmission", "halves").permutation(len(items))
    half, rest = items[drawn[: len(items) // 2]], items[drawn[len(items) // 2 :]]
    signal = labels.of_items(half).fit(features)
    own = judge.of_items(rest).fit(features)
    if isinstance(own, Undefined):
        return Undefined(f"half the items do not tell the judge's slope: {own.reason}")
    if isinstance(signal, Undefined):
        return Undefined(f"half the items do not tell the labels' slope: {signal.reason}")
    j, k = signal.names.index(name), own.names.index(name)
    ratio = fieller_from_moments(
        float(signal.coefficients[j]), float(own.coefficients[k]), float(signal.covariance[j, j]),
        float(own.covariance[k, k]), 0.0, float(min(signal.df, own.df)),
    )  # fmt: skip
    return (
        Undefined(f"on half the items, {_NOT_AWAY}")
        if isinstance(ratio, Undefined)
        else replace(ratio, p_value=None, method="Fieller t, either fit on its own half of the items")
    )


def leaked_length(labels: LabelSample, features: Sequence[str]) -> Interval | Undefined:
    """How often a reward whose length slope was set to 0 still prefers the longer text: style that goes with length.

    The reward is fitted on the other four fifths of the items, so that it never picks among texts that it has seen.
    """
    style = [name for name in features if name != "length"]
    if not style:
        return Undefined("no style feature: with length set to 0, nothing is left of the reward")
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
            return Undefined(f"four fifths of the items do not tell the reward: {reward.reason}")
        here = folds == fold
        b = np.array([reward.coefficients[reward.names.index(name)] for name in style])
        d = rows.differences[np.ix_(here, [rows.features.index(name) for name in style])]
        longer[here] = (np.sign(d @ b) * np.sign(length[here]) + 1.0) / 2.0
    # One row a pair: the reward knows no order.
    _, first = np.unique(rows.pairs, return_index=True)
    first = first[length[first] != 0]
    return clustered_proportion(longer[first], rows.items[first])


def _influence(fit: Slopes, of: LabelSample) -> pd.DataFrame:
    """(G, p) each item's part of the coefficients' errors, by the item's name."""
    codes = np.unique(fit.clusters)
    correction: Correction = "mancl_derouen" if len(codes) < FEW_CLUSTERS else "CR1"
    values = cluster_influence(fit.x, fit.z, fit.fit, fit.clusters, correction)
    return pd.DataFrame(values, index=pd.Index(of.names[codes]), columns=list(fit.names))


# What a mitigation makes of a judge's picks: the labels that a signal would be trained on.

_PAIR = ["replicate", "arm", "generation", "item_id", "pair_id"]
_SHOWN = [*_PAIR, "panel", "order"]
_OF_A_PAIR = ("category", "gold", "gold_2", "len_a", "len_b", "model_a", "model_b")
_SLOTS = ("first", "second", "tie")


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
        """A row a label in the columns of judgments: ``p_first`` is the label's P(first slot); pooled labels bear the
        order ab, so that first is a."""
        pairs = _pairs(self.judgments)
        keys = [*_PAIR, "order", "repeat"]
        rows = _keyed(self.preferences).merge(pairs, on=_PAIR, how="left")
        weight = rows["weight"].astype("float64")
        for_a = weight.where(rows["chosen"] == rows["a"], 0.0)
        sums = rows[keys].assign(for_a=for_a, weight=weight).groupby(keys, dropna=False, sort=True).sum().reset_index()
        found = sums.merge(pairs, on=_PAIR, how="left")
        p_a = (found["for_a"] / found["weight"]).astype("float64")
        backward = found["order"] == "ba"
        return found.drop(columns=["for_a", "weight", "a", "b"]).assign(
            order=found["order"].where(backward, "ab"),
            verdict="tie",
            p_first=p_a.where(~backward, 1.0 - p_a),
            candidate_first=found["a"].where(~backward, found["b"]),
            candidate_second=found["b"].where(~backward, found["a"]),
            identical=False,
        )


def _pairs(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a pair of different texts: its candidates ``a``, ``b`` by name, and what is known of it."""
    shown = _keyed(not_identical(judgments))
    forward = shown["order"] == "ab"
    known = [column for column in _OF_A_PAIR if column in shown]
    return (
        shown[[*_PAIR, *known]]
        .assign(
            a=shown["candidate_first"].where(forward, shown["candidate_second"]),
            b=shown["candidate_second"].where(forward, shown["candidate_first"]),
        )
        .drop_duplicates(_PAIR)
    )


def pairs_asked(judgments: pd.DataFrame) -> pd.DataFrame:
    """The keys of every pair of different texts that was judged, whether or not it got a verdict."""
    return _keyed(not_identical(judgments))[_PAIR].drop_duplicates(ignore_index=True)


def _keyed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with keys of one kind each, whether or not all of them are empty: only such keys can be joined on."""
    return frame.assign(**{name: frame[name].astype("Int64") for name in ("replicate", "generation")})


def labelled(labels: pd.DataFrame, pairs: pd.DataFrame) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """(n,) 1 where that pair has a label, else 0."""
    marked = _keyed(labels)[_PAIR].drop_duplicates().assign(has=1.0)
    return np.asarray(pairs.merge(marked, on=_PAIR, how="left")["has"].fillna(0.0), dtype=np.float64)


def majority(judgments: pd.DataFrame, name: str) -> pd.DataFrame:
    """One judgment a presentation: the slot most often said by all judges and repeats that gave a verdict; a tie where no
    single slot is (as in ``judging.PanelJudge``), unscored where none gave one. ``judge`` becomes ``name``.
    """
    judgments = _keyed(judgments)
    shown = [column for column in _SHOWN if column in judgments]
    votes = pd.DataFrame({slot: (judgments["verdict"] == slot).astype("float64") for slot in _SLOTS})
    counts = pd.concat([judgments[shown], votes], axis=1).groupby(shown, dropna=False, sort=False).sum().reset_index()
    table = counts[list(_SLOTS)].to_numpy()
    most = table.max(axis=1)
    single = (table == most[:, None]).sum(axis=1) == 1
    slot = np.where(single, np.array(_SLOTS)[table.argmax(axis=1)], "tie")
    verdict = np.where(most > 0, slot, "unscored")
    rest = judgments.drop_duplicates(shown).drop(columns=["verdict"])
    return counts[shown].assign(verdict=verdict).merge(rest, on=shown, how="left").assign(
        judge=name, repeat=0, p_first=np.nan
    )  # fmt: skip


MITIGATIONS = ("raw", "raw_picks", "swap_average", "consistent_only", "length_controlled", "rubric", "panel")
"""Every mitigation, in the order in which they are reported."""
_MOST_JACKKNIFED = 2_000
_NO_GOLD = Undefined("no gold: what the labels like cannot be told from what is better")
_NO_SLOT = {
    "swap_average": "a label counts both orders equally",
    "consistent_only": "a pair is kept only where both orders pick the same text",
}


def mitigation_estimates(
    judgments: pd.DataFrame,
    found: Sequence[Mitigation],
    texts: pd.DataFrame | None,
    labels: RowLabels,
    *,
    scales: Mapping[str, float] | None = None,
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """The rows of one judge's mitigations: ``first_slot_excess``, ``length_ame``, ``longer_preferred_raw``,
    ``gold_agreement``, ``transmission_<feature>``, ``mitigation_kept`` and ``mitigation_cost``, variant = the mitigation.

    ``judgments``: the judge's own, on the same pairs; ``texts`` and ``scales`` as in ``content_estimates``. Without gold
    ``length_ame`` is undefined and ``longer_preferred_raw`` stays raw. ``transmission_length`` has two
    variants besides: ``<name>_disjoint``, without any shared pick, and ``<name>_given_gold``, with gold held equal.
    """
    judge = measured(judgments, texts, pooled=False, scales=scales)
    rows: list[Estimate] = []
    for one in found:
        frame = one.labels() if len(one.preferences) else judgments.iloc[:0]
        got = measured(frame, texts, pooled=one.pooled, scales=scales)
        lost = unscored(not_identical(one.judgments))
        columns = shared_features(judge, got)
        rows += [
            _position(labels, one, lost, margin),
            *_length(labels, one, got, columns, lost, margin),
            _agreement(labels, one, frame, lost),
            *_transmitted(labels, one, judge, got, columns, lost),
            *_price(labels, one, frame, lost),
        ]
    return rows


def _position(labels: RowLabels, one: Mitigation, lost: int, margin: float) -> Estimate:
    term = "first_slot_excess"
    table = pairs(not_identical(one.judgments))
    complete = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    if one.name in _NO_SLOT:
        count = one.preferences[["item_id", "pair_id"]].drop_duplicates()
        counts = SampleCounts(len(count), count["item_id"].nunique(), lost)
        if not len(count):
            return row(labels, "position", term, _none(one), counts, unit=PROBABILITY, variant=one.name)
        return _exact(labels, "position", term, one, counts, PROBABILITY, _NO_SLOT[one.name])
    values, items = ((complete["ab"] + complete["ba"]) / 2.0 - 0.5).to_numpy(), complete["item"].to_numpy()
    result = (
        bounded_mean(values, items, -0.5, 0.5) if len(complete) else Undefined("no pair has a verdict in both orders")
    )
    note = "in the labels; the signal's order column takes it up"
    counts = SampleCounts(len(complete), len(np.unique(items)), lost)
    return row(labels, "position", term, result, counts, unit=PROBABILITY, variant=one.name, margin=margin, note=note)


def _length(
    labels: RowLabels, one: Mitigation, got: LabelSample, columns: Sequence[str], lost: int, margin: float
) -> list[Estimate]:
    unit, known = f"{PROBABILITY} per doubling", got.with_gold()
    counts = dataclasses.replace(known.rows.counts, unscored=lost)
    if "length" in one.zeroed:
        why = "the coefficient is set to 0 after the fit; style that goes with length is not"
        given = _exact(labels, "verbosity", "length_ame", one, counts, unit, why)
        leaked = leaked_length(got, columns)
        n = SampleCounts(len(np.unique(got.rows.pairs)), got.rows.counts.items, lost)
        note = "raw: quality and bias together; picks of the reward without length, fitted on the other items"
    else:
        fitted = known.fit(columns, gold=True) if len(known.rows) else _NO_GOLD
        effect = _effect(fitted) if isinstance(fitted, Slopes) else fitted
        given = row(
            labels, "verbosity", "length_ame", effect, counts, unit=unit, variant=one.name, margin=margin,
            note="of the labels, given gold taken as exact",
        )  # fmt: skip
        length = got.rows.length
        leaked, n = Undefined("the labelled texts' lengths are not known or never differ"), SampleCounts(0, 0, lost)
        if length is not None:
            differ = length != 0
            longer = np.where(length > 0, got.rows.picked_a, 1.0 - got.rows.picked_a)[differ]
            leaked = clustered_proportion(longer, got.rows.items[differ])
            n = dataclasses.replace(got.where(differ).rows.counts, unscored=lost)
        note = "raw: quality and bias together"
    raw = row(
        labels, "verbosity", "longer_preferred_raw", leaked, n, unit=PROBABILITY, variant=one.name, null=None, note=note
    )
    return [given, raw]


def _effect(fitted: Slopes) -> Interval | Undefined:
    """As ``length_ame``; the jackknife's cost is items times labels, and on many the delta method gives the same."""
    return average_effect(fitted, "length") if len(fitted.x) <= _MOST_JACKKNIFED else delta_effect(fitted, "length")


def _agreement(labels: RowLabels, one: Mitigation, frame: pd.DataFrame, lost: int) -> Estimate:
    result, counts = gold_agreement(frame) if len(frame) else (_none(one), SampleCounts(0, 0))
    note = "the labels are the raw ones; the correction comes after the fit" if one.zeroed else "of the labels"
    if one.name == "consistent_only":
        note = "of the pairs kept, which are the clearer ones"
    return row(
        labels, "quality", "gold_agreement", result, dataclasses.replace(counts, unscored=lost), unit=PROBABILITY,
        variant=one.name, null=None, note=note,
    )  # fmt: skip


def _transmitted(
    labels: RowLabels, one: Mitigation, judge: LabelSample, got: LabelSample, columns: Sequence[str], lost: int
) -> list[Estimate]:
    expected, why = benchmark(one, judge, columns)
    counts = dataclasses.replace(got.rows.counts, unscored=lost)
    absent = _none(one) if not len(got.rows) else Undefined("the texts' lengths are not known or never differ")
    ratios: dict[str, Interval | Undefined] = {"length": absent}
    if columns:
        ratios |= transmission(judge, got, columns)
    rows = []
    for name, ratio in ratios.items():
        bias: Bias = "verbosity" if name == "length" else "style"
        term = f"transmission_{name}"
        if name in one.zeroed and name in columns:
            made = _exact(labels, bias, term, one, counts, "ratio", "the coefficient is set to 0 after the fit")
        else:
            made = row(
                labels, bias, term, ratio, counts, unit="ratio",
                variant=one.name, null=None, note=why, benchmark=expected,
            )  # fmt: skip
        rows.append(dataclasses.replace(made, scope="signal"))
    if "length" not in one.zeroed:
        rows += _length_besides(labels, one, judge, got, columns if "length" in columns else (), counts, absent)
    return rows


def _length_besides(
    labels: RowLabels, one: Mitigation, judge: LabelSample, got: LabelSample, columns: Sequence[str], counts: SampleCounts,
    absent: Undefined,
) -> list[Estimate]:  # fmt: skip
    """Length's transmission with no pick shared, and with gold held equal on both sides."""
    apart: Interval | Undefined = disjoint(judge, got, columns, "length") if columns else absent
    given: Interval | Undefined = absent if not columns or len(judge.with_gold().rows) else _NO_GOLD
    if columns and len(judge.with_gold().rows):
        given = transmission(judge.with_gold(), got.with_gold(), columns, gold=True)["length"]
    known = dataclasses.replace(got.with_gold().rows.counts, unscored=counts.unscored)
    wide = "no pick is shared; wide, and only where half the items tell the judge's slope"
    made = [
        row(labels, "verbosity", "transmission_length", ratio, n, unit="ratio", variant=f"{one.name}_{kind}", null=None,
            note=note)
        for kind, ratio, n, note in (
            ("disjoint", apart, counts, wide), ("given_gold", given, known, "gold is a column of both fits"),
        )
    ]  # fmt: skip
    return [dataclasses.replace(each, scope="signal") for each in made]


def benchmark(one: Mitigation, judge: LabelSample, columns: Sequence[str]) -> tuple[float | None, str]:
    """What theory says of the mitigation's transmission (docs/method.md, "Transmission"), None where it says no number;
    and why.

    ``swap_average``: with this judge's γ, its picks in log-odds for the first slot.
    """
    fitted = judge.fit(columns) if columns else None
    gamma = float(fitted.coefficients[fitted.names.index(ORDER)]) if isinstance(fitted, Slopes) else None
    if one.name == "raw":
        return 1.0, "1 by construction: the labels are the judge's picks, and both fits hold the order column"
    if one.name == "raw_picks":
        return (
            None,
            "the same verdicts without their probabilities: what is made of picks alone is to be compared with this",
        )
    if one.name == "length_controlled":
        return None, "the fit is the raw one; length alone is then set to 0"
    if one.name == "swap_average":
        expected = None if gamma is None else 1.0 / math.cosh(gamma / 2.0) ** 2
        return (
            expected,
            f"theory, slopes small beside 1: sech²(γ/2){'' if expected is None else f', here {expected:.2f}'}",
        )
    if one.name == "consistent_only":
        most = _presentations_a_pair(one)
        locked = "" if gamma is None or most != 2 else f", here {2.0 / (1.0 + math.exp(-abs(gamma))):.2f}"
        return float(most), (
            f"theory: exactly {most} where calls are independent given the pair; at temperature 0 they are not, and the "
            f"filter only drops the pairs that the order decides: 2s(|γ|){locked}"
        )
    return None, "slope of these labels over that of the judge as it was asked"


def _presentations_a_pair(one: Mitigation) -> int:
    """The most frequent number of scored presentations of the kept pairs: each of them must agree."""
    kept = one.preferences[["item_id", "pair_id"]].drop_duplicates()
    scored = one.judgments[one.judgments["verdict"] != "unscored"].merge(kept, on=["item_id", "pair_id"])
    sizes = scored.groupby(["item_id", "pair_id"]).size()
    return int(sizes.mode().iloc[0]) if len(sizes) else 2


def _price(labels: RowLabels, one: Mitigation, frame: pd.DataFrame, lost: int) -> list[Estimate]:
    """Share of the pairs that get a label, and calls a label: a label is a presentation's, or a pair's where it is pooled."""
    asked = pairs_asked(one.judgments)
    has, items = labelled(frame, asked), pd.factorize(asked["item_id"])[0]
    kept = clustered_proportion(has, items) if len(asked) else Undefined("no pair was judged")
    rows = [
        row(labels, "quality", "mitigation_kept", kept, SampleCounts(len(asked), len(np.unique(items)), lost), unit=PROBABILITY,
            variant=one.name, null=None, note="share of the pairs that give a label")
    ]  # fmt: skip
    shown = not_identical(one.judgments)
    if one.name in _NO_SLOT:
        units, yielded, codes = len(asked), has, items
    else:
        units, codes = len(shown), pd.factorize(shown["item_id"])[0]
        yielded = (shown["verdict"] != "unscored").to_numpy().astype(np.float64)
    counts = SampleCounts(int(yielded.sum()), len(np.unique(codes)), lost)
    share = clustered_proportion(yielded, codes) if units else Undefined("no pair was judged")
    cost: Interval | Undefined
    if isinstance(share, Undefined):
        cost = share
    elif share.estimate == 0:
        cost = _none(one)
    else:
        each, top = one.calls / units, max(share.low, 1e-12)
        cost = Interval(
            each / share.estimate, each * share.std_error / share.estimate**2, each / share.high, each / top,
            share.level, None, share.df, share.method,
        )  # fmt: skip
    note = "calls a label; a label of either order counts" if one.name not in _NO_SLOT else "calls a label of a pair"
    rows.append(
        row(labels, "quality", "mitigation_cost", cost, counts, unit="ratio", variant=one.name, null=None, note=note)
    )
    return rows


def _none(one: Mitigation) -> Undefined:
    both = set(one.judgments["order"]) == {"ab", "ba"}
    if one.name in _NO_SLOT and not both:
        return Undefined("one order only: this mitigation needs both")
    return Undefined("no pair gives a label")


def _exact(
    labels: RowLabels, bias: Bias, term: str, one: Mitigation, counts: SampleCounts, unit: str, why: str
) -> Estimate:
    """0 by construction, with no error: it is set, not estimated."""
    zero = Interval(0.0, 0.0, 0.0, 0.0, LEVEL, None, None, "by construction")
    return row(
        labels, bias, term, zero, counts, unit=unit, variant=one.name, null=None, note=f"0 by construction: {why}"
    )
