"""Differences: one contender's estimates minus another's, term by term. Positive = more of the term in the first.

Where both judged the same pairs, or ran the same replicates under common random numbers, the difference is taken pair by
pair or replicate by replicate; otherwise the two are independent samples. Who is compared is in ``contenders``; the
order that all differences together allow is in ``ranking``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, cast

import numpy as np
import pandas as pd

from judgeloop.kernels import distinct
from judgeloop.stats.compare.contenders import KEY, RATES, Contender, items_of, pair_values, with_pair_keys
from judgeloop.stats.estimate import (
    PROBABILITY,
    RATE_MARGIN,
    UNSCORED_SHARE,
    Bias,
    Estimate,
    Result,
    RowLabels,
    SampleCounts,
    estimate_row,
    replicate_mean,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.judge.change import Changes, changes, with_signs
from judgeloop.stats.judge.content import COMPARED_WITH_GOLD, takes_gold_as_exact
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.probes import differs_by_text, edited_picked
from judgeloop.stats.judge.self_preference import OwnTextPairs, own_text_pairs
from judgeloop.stats.judge.slopes import (
    LENGTH_SHAPE,
    SHAPE_LEVEL,
    Slopes,
    effect_difference,
    fit_slopes,
    shape_test,
    withheld_where_not_linear,
)
from judgeloop.stats.loop.drift import CONFIRMATORY
from judgeloop.stats.loop.replicates import Quantity
from judgeloop.stats.multiplicity import JUDGE_FAMILY, benjamini_hochberg, holm, settled
from judgeloop.stats.presentations import clusters, in_known_order, not_identical, unscored
from judgeloop.text.features import FEATURES

Pairing = Literal["pairs", "replicates", "unpaired"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two contenders in one term.

    ``row``: the first's minus the second's, with its interval (docs/contract.md, "Estimates"). ``first_estimate`` and
    ``second_estimate``: each one's own value, on the shared pairs or replicates where ``pairing`` names these.
    """

    first: str
    second: str
    pairing: Pairing
    first_estimate: float | None
    second_estimate: float | None
    row: Estimate


def shared_labels(first: Contender, second: Contender) -> RowLabels:
    """Judge and arm of a difference's row: those that both contenders have in common, else ""."""

    return RowLabels(first.judge if first.judge == second.judge else "", first.arm if first.arm == second.arm else "")


def independent(first: Estimate, second: Estimate) -> Interval | Undefined:
    """The difference of two independent estimates, first − second, in their unit.

    Welch's t from the standard errors; where one is exact, the other's t; MOVER from the intervals where one has no
    standard error (Zou & Donner 2008).
    """
    if first.estimate is None or second.estimate is None:
        return Undefined("one of the two has no number")
    gap = first.estimate - second.estimate
    exact = [row.std_error == 0 and row.conf_low == row.conf_high == row.estimate for row in (first, second)]
    if any(exact) and not all(exact):  # a constant has no error of its own
        measured = second if exact[0] else first
        if measured.std_error:
            df = _degrees_of_freedom(measured)
            return t_interval(gap, measured.std_error, df if df > 0 else None, method="t, one of the two is exact")
    if first.std_error and second.std_error:
        se = math.hypot(first.std_error, second.std_error)
        dfs = [_degrees_of_freedom(first), _degrees_of_freedom(second)]
        welch = None
        if min(dfs) > 0:
            welch = se**4 / (first.std_error**4 / dfs[0] + second.std_error**4 / dfs[1])
        return t_interval(gap, se, welch, method="independent samples, Welch t")
    limits = (first.conf_low, first.conf_high, second.conf_low, second.conf_high)
    if any(limit is None for limit in limits):
        return Undefined("one of the two has no interval")
    low_1, high_1, low_2, high_2 = (float(limit) for limit in limits)  # type: ignore[arg-type]
    below = math.hypot(first.estimate - low_1, high_2 - second.estimate)
    above = math.hypot(high_1 - first.estimate, second.estimate - low_2)
    return Interval(gap, 0.0, gap - below, gap + above, method="independent samples, MOVER")


def _degrees_of_freedom(row: Estimate) -> int:
    """The number of replicates, else of items, else of rows, minus 1."""
    return (row.n_replicates or row.n_items or row.n) - 1


def differences(first: Contender, second: Contender, *, margin: float = RATE_MARGIN) -> list[Difference]:
    """The differences in every term that both contenders have, before adjustment for several tests (``adjusted``).

    ``margin``: for the equivalence of rates, a probability.
    """
    return [*judge_differences(first, second, margin), *loop_differences(first, second)]


def adjusted(pairwise: Sequence[Difference]) -> list[Difference]:
    """The differences with ``family``, ``p_adjusted`` and the verdict that the adjusted test leaves.

    Holm over the confirmatory terms and Benjamini–Hochberg over the others, each over all pairs of contenders together. Where one
    judge was asked the same pairs twice, all terms are confirmatory: what is asked is whether it changed at all.
    """
    confirmatory = {*JUDGE_FAMILY, *CONFIRMATORY}
    settled_rows = list(pairwise)
    for family, method in (("confirmatory", holm), ("exploratory", benjamini_hochberg)):
        places = [
            place for place, difference in enumerate(pairwise)
            if difference.row.p_value is not None and difference.row.variant == ""
            and (difference.row.term in confirmatory or _of_one_judge(difference)) == (family == "confirmatory")
        ]  # fmt: skip
        if not places:
            continue
        for place, p in zip(places, method(np.array([pairwise[n].row.p_value for n in places])), strict=True):
            row = settled_rows[place].row
            settled_row = dataclasses.replace(
                row, family=family, p_adjusted=float(p),  # type: ignore[arg-type]
                verdict=settled(row.verdict, row.conf_low, row.conf_high, float(p), family, row.term),
            )  # fmt: skip
            settled_rows[place] = dataclasses.replace(settled_rows[place], row=settled_row)
    return settled_rows


def _of_one_judge(difference: Difference) -> bool:
    return difference.pairing == "pairs" and difference.row.judge != ""


# Two judges: on the pairs that both judged where these are enough, else as independent samples.

SHARED = 0.5
"""The share of the smaller contender's pairs that both must have judged for a paired comparison."""
_BIASES: dict[str, Bias] = {
    "longer_preferred_raw": "verbosity", "gold_tied_longer_excess": "verbosity", "length_ame": "verbosity",
    "padding_probe": "verbosity", "whitespace_probe": "verbosity", "gold_agreement": "quality", UNSCORED_SHARE: "quality",
    "self_preference_gold": "self_preference", "self_name_probe": "self_preference",
}  # fmt: skip
_INDEPENDENT_TERMS = (*RATES, "length_ame", "length_exchange_rate", "excess_longer_vs_gold", "self_preference_gold")
_MITIGATION_TERMS = (
    "first_slot_excess", "length_ame", "longer_preferred_raw", "gold_agreement", "mitigation_kept", "mitigation_cost",
)  # fmt: skip
_OTHER_PAIRS = "different pairs: the difference is of judges and pairs together"
_JACKKNIFE_GROUPS = 50
_GOLD_NOTE = "one gold taken as exact; if it errs, judges that follow quality unequally differ here too"


def judge_differences(first: Contender, second: Contender, margin: float) -> list[Difference]:
    """The differences in every judge term that both have; none for two arms with the very same judgments.

    ``margin``: for the equivalence of rates, a probability.
    """
    if first.mitigation and second.mitigation and first.source == second.source:
        note = "both of the same judge's verdicts: taken as independent, which is cautious"
        return _independent_differences(first, second, _MITIGATION_TERMS, margin, note)
    if first.judgments is second.judgments or first.judgments.empty or second.judgments.empty:
        return []
    common, n_first, n_second = shared_pairs(first, second)
    if common and common >= SHARED * min(n_first, n_second):
        pairwise = _paired_differences(first, second, margin)
    else:
        pairwise = _independent_differences(first, second, _INDEPENDENT_TERMS, margin)
    return [_claiming_no_more(difference, first, second) for difference in pairwise]


def _claiming_no_more(difference: Difference, first: Contender, second: Contender) -> Difference:
    """The difference; without a test where a gold that may err makes either judge's own number a description.

    Two unbiased judges that err unequally often differ there too.
    """
    own = [contender.primary(difference.row.term) for contender in (first, second)]
    described = any(row is not None and (row.term in COMPARED_WITH_GOLD or takes_gold_as_exact(row)) for row in own)
    if not described:
        return difference
    row = dataclasses.replace(difference.row, p_value=None, verdict="", margin=None, detectable=None, note=_GOLD_NOTE)
    return dataclasses.replace(difference, row=row)


def shared_pairs(first: Contender, second: Contender) -> tuple[int, int, int]:
    """(pairs that both judged, pairs of the first, pairs of the second), without the probe panel's."""
    first_keys, second_keys = (
        set(_without_probes(contender.judgments)[KEY].unique()) if len(contender.judgments) else set()
        for contender in (first, second)
    )
    return len(first_keys & second_keys), len(first_keys), len(second_keys)


def _without_probes(judgments: pd.DataFrame) -> pd.DataFrame:
    return judgments[judgments["panel"] != "probe"] if "panel" in judgments else judgments


def _bias(term: str) -> Bias:
    return _BIASES.get(term, "style" if term.endswith("_probe") else "position")


def _paired_differences(first: Contender, second: Contender, margin: float) -> list[Difference]:
    """Rates pair by pair on the pairs that both judged, then the length effect and self-preference on the same pairs."""
    keys = set(first.judgments[KEY]) & set(second.judgments[KEY])
    tables = [contender.judgments[contender.judgments[KEY].isin(keys)] for contender in (first, second)]
    lost = sum(unscored(table) for table in tables)
    first_values, second_values = (
        contender.values if len(table) == len(contender.judgments) else pair_values(table, contender.texts)
        for table, contender in zip(tables, (first, second), strict=True)
    )
    items, labels = items_of(tables[0]), shared_labels(first, second)
    again = _asked_again(first, second, tables) if labels.judge else None
    unchanged = again is not None and again.identical
    pairwise = []
    for term in (name for name in first_values if name in second_values):
        index = first_values[term].index.intersection(second_values[term].index)
        if not len(index):
            continue
        a = first_values[term].reindex(index).to_numpy(dtype=np.float64)
        b = second_values[term].reindex(index).to_numpy(dtype=np.float64)
        clusters = items.reindex(index).to_numpy()
        result = bounded_mean(a - b, clusters, -1.0, 1.0)
        if again is not None and term in again.by_term and isinstance(result, Interval):
            result = dataclasses.replace(result, p_value=again.by_term[term].p_value)
        counts = SampleCounts(len(index), distinct(clusters), lost)
        note = "both gave the same on every pair" if np.array_equal(a, b) else ""
        estimate = row(
            labels, _bias(term), term, result, counts, unit=PROBABILITY, margin=margin, note=note, unchanged=unchanged
        )  # fmt: skip
        if estimate.verdict == "none" and any(_probe_differs_by_text(table, term, margin) for table in tables):
            estimate = dataclasses.replace(estimate, verdict="not_linear")
        pairwise.append(Difference(first.name, second.name, "pairs", float(a.mean()), float(b.mean()), estimate))
    pairwise += _paired_length_effects(first, second, tables, labels, lost, margin)
    pairwise += _paired_self_preference(first, second, tables, labels, lost, margin)
    return pairwise


def _probe_differs_by_text(judgments: pd.DataFrame, term: str, margin: float) -> bool:
    """Whether a probe's effect changes from text to text (``differs_by_text``); False for other terms."""
    if not term.endswith("_probe"):
        return False
    own = not_identical(judgments[judgments["probe"] == term.removesuffix("_probe")])
    return differs_by_text(edited_picked(own), margin)


def _asked_again(first: Contender, second: Contender, tables: Sequence[pd.DataFrame]) -> Changes:
    """What changed between two times that one judge judged the same pairs, first − second."""
    asked = []
    for table, contender in zip(tables, (first, second), strict=True):
        by_pair = in_known_order(table.assign(pair_id=table[KEY])).reset_index(drop=True)
        lengths = covariates(by_pair, contender.texts)
        gap = np.full(len(by_pair), np.nan)
        if lengths.length is not None:
            gap[not_identical(by_pair).index[lengths.index]] = lengths.length * lengths.order
        asked.append(with_signs(by_pair, gap))
    (later, _), (earlier, terms) = asked
    return changes(earlier, later, terms, first.name, second.name)


def _paired_length_effects(
    first: Contender, second: Contender, tables: Sequence[pd.DataFrame], labels: RowLabels, lost: int, margin: float
) -> list[Difference]:
    """``length_ame`` on the presentations that both scored: given gold (primary) and without it.

    Both see the same quality on the same pairs, so that the difference without gold is of the judges too, unless they
    follow quality unequally.
    """
    place = [KEY, "order", "repeat"]
    parts = []
    for table in tables:
        plain = not_identical(_without_probes(table))
        repeat = plain["repeat"] if "repeat" in plain else pd.Series(0, index=plain.index)
        parts.append(plain.assign(repeat=repeat)[plain["verdict"] != "unscored"].drop_duplicates(place))
    shared = parts[0][place].merge(parts[1][place], on=place)
    rows = [
        covariates(shared.merge(part, on=place, how="left"), contender.texts)
        for part, contender in zip(parts, (first, second), strict=True)
    ]
    with_gold = [design.with_gold() for design in rows]
    pairwise = []
    for variant, designs in ((_gold_variant(first, second), with_gold), ("no_gold", rows)):
        if variant is None or not len(designs[0]) or len(designs[0]) != len(designs[1]):
            continue
        fits = [fit_slopes(design, None if variant == "no_gold" else design.gold) for design in designs]
        result: Interval | Undefined = next((fit for fit in fits if isinstance(fit, Undefined)), Undefined(""))
        effects: list[float | None] = [None, None]
        first_fit, second_fit = fits
        if isinstance(first_fit, Slopes) and isinstance(second_fit, Slopes):
            result = effect_difference(first_fit, second_fit, "length")
            if isinstance(result, Interval):
                effects = [_length_effect(first_fit), _length_effect(second_fit)]
        counts = SampleCounts(len(designs[0]), distinct(designs[0].items), lost)
        note = "quality is not held equal" if variant == "no_gold" else _GOLD_NOTE
        estimate = row(labels, "verbosity", "length_ame", result, counts, unit=f"{PROBABILITY} per doubling",
                       variant=variant, margin=margin, note=note)  # fmt: skip
        for fit, design in zip(fits, designs, strict=True):
            if isinstance(fit, Slopes):
                estimate = withheld_where_not_linear(estimate, shape_test(fit, design.mean_length))
        pairwise.append(Difference(first.name, second.name, "pairs", effects[0], effects[1], estimate))
    return pairwise


def _gold_variant(first: Contender, second: Contender) -> str | None:
    """The variant under which a difference given gold is reported: "" (primary), ``given_gold``, or None for not at all.

    It is primary unless a folder's own primary estimate is undefined: a comparison claims no more than what it compares.
    """
    statuses = [
        {row.variant: row.status for row in contender.rows if row.term == "length_ame" and row.category == ""}
        for contender in (first, second)
    ]
    if all(status.get("") != "undefined" for status in statuses):
        return ""
    return "given_gold" if all(status.get("given_gold", "undefined") != "undefined" for status in statuses) else None


def _length_effect(fit: Slopes) -> float:
    """The average marginal effect of length, in probability per doubling."""
    return float(fit.marginal(fit.coefficients[None])[0] * fit.coefficients[fit.names.index("length")])


def _paired_self_preference(
    first: Contender, second: Contender, tables: Sequence[pd.DataFrame], labels: RowLabels, lost: int, margin: float
) -> list[Difference]:
    """``self_preference_gold`` with the jackknife over items, in at most 50 groups that are left out in turn."""
    if not {"model_a", "model_b", "gold"} <= set(tables[0].columns) & set(tables[1].columns):
        return []
    plain = [_without_probes(table) for table in tables]
    first_pairs, second_pairs = own_text_pairs(plain[0], first.judge), own_text_pairs(plain[1], second.judge)
    if isinstance(first_pairs, Undefined) or isinstance(second_pairs, Undefined):
        return []

    def rates(first_pairs: OwnTextPairs, second_pairs: OwnTextPairs) -> tuple[float, float] | None:
        a, b = first_pairs.difference(), second_pairs.difference()
        return None if isinstance(a, Undefined) or isinstance(b, Undefined) else (a.estimate, b.estimate)

    all_items = rates(first_pairs, second_pairs)
    if all_items is None:
        return []
    items = sorted(set(clusters(plain[0])) | set(clusters(plain[1])))
    groups = min(_JACKKNIFE_GROUPS, len(items))
    omitted = (set(items[n::groups]) for n in range(groups))
    left_out = [
        pair[0] - pair[1]
        for group in omitted
        if (pair := rates(first_pairs.without(group), second_pairs.without(group)))
    ]
    result: Interval | Undefined = Undefined("too few items have own texts to leave any out")
    if groups > 1 and len(left_out) == groups:
        spread = np.array(left_out) - np.mean(left_out)
        se = math.sqrt((groups - 1.0) / groups * float(np.sum(spread**2)))
        if se > 0:
            result = t_interval(all_items[0] - all_items[1], se, groups - 1, method="jackknife t by item")
    counts = SampleCounts(len(plain[0]), len(items), lost)
    estimate = row(
        labels, "self_preference", "self_preference_gold", result, counts, unit=PROBABILITY, margin=margin
    )  # fmt: skip
    return [Difference(first.name, second.name, "pairs", *all_items, estimate)]


def _independent_differences(
    first: Contender, second: Contender, terms: Iterable[str], margin: float, note: str = _OTHER_PAIRS
) -> list[Difference]:
    """The differences of the folders' own estimates of ``terms`` and of every probe, as independent samples."""
    pairwise = []
    probes = {row.term for row in (*first.rows, *second.rows) if row.term.endswith("_probe")}
    for term in (*terms, *sorted(probes)):
        first_row, second_row = first.primary(term), second.primary(term)
        if first_row is None or second_row is None:
            continue
        counts = SampleCounts(
            first_row.n + second_row.n,
            first_row.n_items + second_row.n_items,
            first_row.n_unscored + second_row.n_unscored,
        )
        estimate = row(
            shared_labels(first, second), first_row.bias, term, independent(first_row, second_row), counts, unit=first_row.unit,
            margin=margin if first_row.unit.startswith(PROBABILITY) else None, note=note,
        )  # fmt: skip
        shapes = [contender.primary(LENGTH_SHAPE) for contender in (first, second)] if term == "length_ame" else []
        shaped = any(shape is not None and (shape.p_value or 1.0) <= SHAPE_LEVEL for shape in shapes)
        if estimate.verdict == "none" and (shaped or "not_linear" in (first_row.verdict, second_row.verdict)):
            estimate = dataclasses.replace(estimate, verdict="not_linear")
        pairwise.append(
            Difference(first.name, second.name, "unpaired", first_row.estimate, second_row.estimate, estimate)
        )
    return pairwise


# Two arms: replicate by replicate where they ran under common random numbers.

_LOOP_QUANTITIES = (*FEATURES, "style_score", "correct", "mattr", "distinct_2")


def loop_differences(first: Contender, second: Contender) -> list[Difference]:
    """``drift_`` and ``did_`` of every quantity at the last generation that both reached, and ``transmission_``.

    Within a folder did and drift differ by the same control: one number, under ``did_`` where neither is that control.
    """
    pairwise: list[Difference] = []
    last = min(first.generations, second.generations)
    shared, one_folder = same_randomness(first, second), first.source == second.source
    controlled = bool(first.control) and first.control == second.control
    controlled = controlled and first.control not in (first.arm, second.arm)
    prefixes = (("did",) if one_folder else ("did", "drift")) if controlled else ("drift",)
    for name in _LOOP_QUANTITIES if last >= 1 else ():
        first_series, second_series = first.series.get(name), second.series.get(name)
        if (
            first_series is None
            or second_series is None
            or first_series.quantity.undefined
            or second_series.quantity.undefined
        ):
            continue
        for prefix in prefixes:
            if prefix == "did":
                values = (
                    first_series.did(first.arm, first.control, last),
                    second_series.did(second.arm, second.control, last),
                )
            else:
                values = first_series.drift(first.arm, last), second_series.drift(second.arm, last)
            pairwise.append(
                _loop_difference(first, second, f"{prefix}_{name}", first_series.quantity, values, last, shared)
            )
    return [*pairwise, *_transmission_differences(first, second)]


def same_randomness(first: Contender, second: Contender) -> list[int]:
    """The replicates under common random numbers: both started from the same generation-0 texts with the same seed."""
    if first.source != second.source and (first.seed is None or first.seed != second.seed):
        return []
    return [replicate for replicate, texts in first.first_texts.items() if second.first_texts.get(replicate) == texts]


def _loop_difference(
    first: Contender,
    second: Contender,
    term: str,
    quantity: Quantity,
    values: tuple[pd.Series[float], pd.Series[float]],
    last: int,
    shared: Sequence[int],
) -> Difference:
    """The difference of two arms' replicate values at generation ``last``: paired by two or more ``shared`` replicates."""
    paired = [replicate for replicate in shared if replicate in values[0].index and replicate in values[1].index]
    result: Result
    pairing: Pairing
    if len(paired) >= 2:
        values = values[0].loc[paired], values[1].loc[paired]
        result, pairing, n = replicate_mean(values[0] - values[1]), "replicates", len(paired)
        missing = len(shared) - len(paired)
        note = f"missing in {missing} of {len(shared)} replicates" if missing else ""
    else:
        means = [
            estimate_row(
                replicate_mean(part), scope="policy", bias=quantity.bias, term=term, n=len(part),
                n_replicates=len(part),
            )
            for part in values
        ]  # fmt: skip
        result, pairing, n = independent(*means), "unpaired", sum(map(len, values))
        note = "no common random numbers: two independent sets of replicates"
    labels = shared_labels(first, second)
    estimate = estimate_row(
        result, margin=quantity.margin, drift=True, note=note, scope="policy", bias=quantity.bias, term=term,
        judge=labels.judge, arm=labels.arm, contrast=first.control if term.startswith("did_") else "", generation=last,
        unit=quantity.unit, n=n, n_replicates=n,
    )  # fmt: skip
    levels = [float(part.mean()) if len(part) else None for part in values]
    return Difference(first.name, second.name, pairing, levels[0], levels[1], estimate)


def _transmission_differences(first: Contender, second: Contender) -> list[Difference]:
    """Differences of ``transmission_<feature>``, as independent samples.

    What two arms share (judge, panel, random numbers) makes them alike, so that this is cautious.
    """
    pairwise = []
    for name in FEATURES:
        first_row, second_row = first.primary(f"transmission_{name}"), second.primary(f"transmission_{name}")
        if first_row is None or second_row is None:
            continue
        estimate = row(
            shared_labels(first, second), first_row.bias, first_row.term, independent(first_row, second_row), SampleCounts(first_row.n + second_row.n, 0),
            unit=first_row.unit, note="taken as independent, which is cautious where they share judge or random numbers",
            scope="signal", n_replicates=(first_row.n_replicates or 0) + (second_row.n_replicates or 0),
        )  # fmt: skip
        pairwise.append(
            Difference(first.name, second.name, "unpaired", first_row.estimate, second_row.estimate, estimate)
        )
    return pairwise


# Judges of one audit, every two on the pairs that both judged, as rows of its estimates.

JUDGE_DIFFERENCE = "judge_difference_"
"""How the terms of differences between the judges of one audit begin."""

MOST_JUDGES = 8
"""Judges above which no differences are computed: they would be too many to read. `judgeloop compare` takes a few of them."""

_PANELS = ("pairs", "anchor", "policy")


def judge_difference_estimates(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str], *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``judge_difference_<term>``, variant ``vs <other>``, of every two ``judges`` that share half of their pairs or more.

    Positive = more of the term in ``judge`` than in the other, on the same pairs, and for probes on the same edits,
    clustered by item. Each ``arm`` and ``generation`` is compared by itself; no rows for more than MOST_JUDGES judges.

    ``judgments``: the columns of docs/contract.md, "Tables", of all judges; ``texts``: the texts' features, or None;
    ``margin``: for the equivalence of rates.
    """
    if not 2 <= len(judges) <= MOST_JUDGES:
        return []
    estimates: list[Estimate] = []
    keyed = with_pair_keys(judgments[judgments["judge"].isin(judges)], None)
    for (arm, generation), group in keyed.groupby(["arm", "generation"], dropna=False, sort=True):
        panel = next((name for name in _PANELS if (group["panel"] == name).any()), "")
        number = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
        on_panel = group[group["panel"].isin([panel, "probe"])]
        for first, second in combinations(_judge_contenders(on_panel, texts, judges), 2):
            shared, *counts = shared_pairs(first, second)
            if shared and shared >= SHARED * min(counts):
                rows = (difference.row for difference in judge_differences(first, second, margin))
                estimates += _labelled(rows, first.name, second.name, str(arm), number, panel)
    return estimates


def _judge_contenders(judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str]) -> list[Contender]:
    by_judge = dict(list(judgments.groupby("judge", sort=True)))
    return [
        Contender(name=judge, source="", judge=judge, judgments=by_judge[judge], texts=texts)
        for judge in judges
        if judge in by_judge
    ]


def _labelled(
    rows: Iterable[Estimate], judge: str, other: str, arm: str, generation: int | None, panel: str
) -> list[Estimate]:
    """The rows of a difference, named as estimates of ``judge`` against ``other``."""
    return [
        dataclasses.replace(
            row, judge=judge, arm=arm, generation=generation, term=JUDGE_DIFFERENCE + row.term,
            panel="probe" if row.term.endswith("_probe") else panel,
            variant=f"vs {other}" + (f", {row.variant}" if row.variant else ""),
        )
        for row in rows
    ]  # fmt: skip
