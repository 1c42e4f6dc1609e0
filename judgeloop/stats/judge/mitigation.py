"""Mitigations measured on the same verdicts: what bias each leaves in the labels, what it passes on, and what it costs.

Rows bear the mitigation's name in ``variant``. ``raw`` is no mitigation, and the yardstick;
``raw_picks`` is the yardstick of what is made of picks alone where verdicts bear probabilities. A mitigation may remove one
bias and strengthen another: keeping only order-consistent pairs removes the slot and doubles every content slope.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from judgeloop.stats.calibration import delta_effect
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.gold import gold_agreement
from judgeloop.stats.inference import LEVEL, Interval, Undefined, bounded_mean, clustered_proportion
from judgeloop.stats.inherited import Measured, disjoint, leaked_length, measured, shared_features, transmission
from judgeloop.stats.judge.slopes import ORDER, Slopes, average_effect
from judgeloop.stats.mitigated import Mitigation, labelled, pairs_asked
from judgeloop.stats.presentations import not_identical, pairs, unscored
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, Bias, Counts, Labels, row

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
    labels: Labels,
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


def _position(labels: Labels, one: Mitigation, lost: int, margin: float) -> Estimate:
    term = "first_slot_excess"
    table = pairs(not_identical(one.judgments))
    complete = table[(table["n_ab"] > 0) & (table["n_ba"] > 0)]
    if one.name in _NO_SLOT:
        count = one.preferences[["item_id", "pair_id"]].drop_duplicates()
        counts = Counts(len(count), count["item_id"].nunique(), lost)
        if not len(count):
            return row(labels, "position", term, _none(one), counts, unit=PROBABILITY, variant=one.name)
        return _exact(labels, "position", term, one, counts, PROBABILITY, _NO_SLOT[one.name])
    values, items = ((complete["ab"] + complete["ba"]) / 2.0 - 0.5).to_numpy(), complete["item"].to_numpy()
    result = (
        bounded_mean(values, items, -0.5, 0.5) if len(complete) else Undefined("no pair has a verdict in both orders")
    )
    note = "in the labels; the signal's order column takes it up"
    counts = Counts(len(complete), len(np.unique(items)), lost)
    return row(labels, "position", term, result, counts, unit=PROBABILITY, variant=one.name, margin=margin, note=note)


def _length(
    labels: Labels, one: Mitigation, got: Measured, columns: Sequence[str], lost: int, margin: float
) -> list[Estimate]:
    unit, known = f"{PROBABILITY} per doubling", got.with_gold()
    counts = dataclasses.replace(known.rows.counts, unscored=lost)
    if "length" in one.zeroed:
        why = "the coefficient is set to 0 after the fit; style that goes with length is not"
        given = _exact(labels, "verbosity", "length_ame", one, counts, unit, why)
        leaked = leaked_length(got, columns)
        n = Counts(len(np.unique(got.rows.pairs)), got.rows.counts.items, lost)
        note = "raw: quality and bias together; picks of the reward without length, fitted on the other items"
    else:
        fitted = known.fit(columns, gold=True) if len(known.rows) else _NO_GOLD
        effect = _effect(fitted) if isinstance(fitted, Slopes) else fitted
        given = row(
            labels, "verbosity", "length_ame", effect, counts, unit=unit, variant=one.name, margin=margin,
            note="of the labels, given gold taken as exact",
        )  # fmt: skip
        length = got.rows.length
        leaked, n = Undefined("the labelled texts' lengths are not known or never differ"), Counts(0, 0, lost)
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


def _agreement(labels: Labels, one: Mitigation, frame: pd.DataFrame, lost: int) -> Estimate:
    result, counts = gold_agreement(frame) if len(frame) else (_none(one), Counts(0, 0))
    note = "the labels are the raw ones; the correction comes after the fit" if one.zeroed else "of the labels"
    if one.name == "consistent_only":
        note = "of the pairs kept, which are the clearer ones"
    return row(
        labels, "quality", "gold_agreement", result, dataclasses.replace(counts, unscored=lost), unit=PROBABILITY,
        variant=one.name, null=None, note=note,
    )  # fmt: skip


def _transmitted(
    labels: Labels, one: Mitigation, judge: Measured, got: Measured, columns: Sequence[str], lost: int
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
    labels: Labels, one: Mitigation, judge: Measured, got: Measured, columns: Sequence[str], counts: Counts,
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


def benchmark(one: Mitigation, judge: Measured, columns: Sequence[str]) -> tuple[float | None, str]:
    """What theory says of the mitigation's transmission (the method notes §2.1), None where it says no number; and why.

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


def _price(labels: Labels, one: Mitigation, frame: pd.DataFrame, lost: int) -> list[Estimate]:
    """Share of the pairs that get a label, and calls a label: a label is a presentation's, or a pair's where it is pooled."""
    asked = pairs_asked(one.judgments)
    has, items = labelled(frame, asked), pd.factorize(asked["item_id"])[0]
    kept = clustered_proportion(has, items) if len(asked) else Undefined("no pair was judged")
    rows = [
        row(labels, "quality", "mitigation_kept", kept, Counts(len(asked), len(np.unique(items)), lost), unit=PROBABILITY,
            variant=one.name, null=None, note="share of the pairs that give a label")
    ]  # fmt: skip
    shown = not_identical(one.judgments)
    if one.name in _NO_SLOT:
        units, yielded, codes = len(asked), has, items
    else:
        units, codes = len(shown), pd.factorize(shown["item_id"])[0]
        yielded = (shown["verdict"] != "unscored").to_numpy().astype(np.float64)
    counts = Counts(int(yielded.sum()), len(np.unique(codes)), lost)
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


def _exact(labels: Labels, bias: Bias, term: str, one: Mitigation, counts: Counts, unit: str, why: str) -> Estimate:
    """0 by construction, with no error: it is set, not estimated."""
    zero = Interval(0.0, 0.0, 0.0, 0.0, LEVEL, None, None, "by construction")
    return row(
        labels, bias, term, zero, counts, unit=unit, variant=one.name, null=None, note=f"0 by construction: {why}"
    )
