"""Two judges side by side, on the same pairs where they judged the same. Positive = more of the term in the first."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import cast

import numpy as np
import pandas as pd

from judgeloop.stats.compare.contender import (
    KEY,
    RATES,
    Contender,
    Difference,
    Pairing,
    independent,
    items_of,
    pair_values,
    shared_labels,
    with_pair_keys,
)
from judgeloop.stats.estimate import (
    PROBABILITY,
    RATE_MARGIN,
    Bias,
    Estimate,
    Result,
    RowLabels,
    SampleCounts,
    estimate_row,
    replicate_mean,
    row,
)
from judgeloop.stats.estimate import TERM as UNSCORED
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.self_preference import OwnTextPairs, own_text_pairs
from judgeloop.stats.judge.slopes import Slopes, effect_difference, fit_slopes
from judgeloop.stats.loop.replicates import Quantity
from judgeloop.stats.presentations import not_identical, unscored
from judgeloop.text.features import FEATURES

SHARED = 0.5
"""At least this share of the smaller contender's pairs must be common for a paired comparison."""
_BIASES: dict[str, Bias] = {
    "longer_preferred_raw": "verbosity", "gold_tied_longer_excess": "verbosity", "length_ame": "verbosity",
    "padding_probe": "verbosity", "whitespace_probe": "verbosity", "gold_agreement": "quality", UNSCORED: "quality",
    "self_preference_gold": "self_preference", "self_name_probe": "self_preference",
}  # fmt: skip
_UNPAIRED = (*RATES, "length_ame", "length_exchange_rate", "excess_longer_vs_gold", "self_preference_gold")
_MITIGATED = (
    "first_slot_excess",
    "length_ame",
    "longer_preferred_raw",
    "gold_agreement",
    "mitigation_kept",
    "mitigation_cost",
)
_APART = "different pairs: the difference is of judges and pairs together"
_GROUPS = 50
_GIVEN = "one gold taken as exact; if it errs, judges that follow quality unequally differ here too"


def judge_differences(first: Contender, second: Contender, margin: float) -> list[Difference]:
    """Every judge term that both bear; none for two arms with the very same judgments. ``margin``: of rates, for equivalence."""
    if first.mitigation and second.mitigation and first.source == second.source:
        note = "both of the same judge's verdicts: taken as independent, which is cautious"
        return _unpaired(first, second, _MITIGATED, margin, note)
    if first.judgments is second.judgments or first.judgments.empty or second.judgments.empty:
        return []
    common, n_first, n_second = shared_pairs(first, second)
    if common and common >= SHARED * min(n_first, n_second):
        return _paired(first, second, margin)
    return _unpaired(first, second, _UNPAIRED, margin)


def shared_pairs(first: Contender, second: Contender) -> tuple[int, int, int]:
    """(pairs that both judged, pairs of the first, pairs of the second), probes left out."""
    keys = [set(_fixed(one.judgments)[KEY].unique()) if len(one.judgments) else set() for one in (first, second)]
    return len(keys[0] & keys[1]), len(keys[0]), len(keys[1])


def _fixed(judgments: pd.DataFrame) -> pd.DataFrame:
    return judgments[judgments["panel"] != "probe"] if "panel" in judgments else judgments


def _bias(term: str) -> Bias:
    return _BIASES.get(term, "style" if term.endswith("_probe") else "position")


def _paired(first: Contender, second: Contender, margin: float) -> list[Difference]:
    keys = set(first.judgments[KEY]) & set(second.judgments[KEY])
    tables = [one.judgments[one.judgments[KEY].isin(keys)] for one in (first, second)]
    lost = sum(unscored(table) for table in tables)
    one, other = (
        who.values if len(table) == len(who.judgments) else pair_values(table, who.texts)
        for table, who in zip(tables, (first, second), strict=True)
    )
    items, labels, found = items_of(tables[0]), shared_labels(first, second), []
    for term in (name for name in one if name in other):
        index = one[term].index.intersection(other[term].index)
        if not len(index):
            continue
        a, b = (
            one[term].reindex(index).to_numpy(dtype=np.float64),
            other[term].reindex(index).to_numpy(dtype=np.float64),
        )
        clusters = items.reindex(index).to_numpy()
        result = bounded_mean(a - b, clusters, -1.0, 1.0)
        counts = SampleCounts(len(index), len(np.unique(clusters)), lost)
        same = "both gave the same on every pair" if np.array_equal(a, b) else ""
        made = row(labels, _bias(term), term, result, counts, unit=PROBABILITY, margin=margin, note=same)
        found.append(Difference(first.name, second.name, "pairs", float(a.mean()), float(b.mean()), made))
    found += _paired_effects(first, second, tables, labels, lost, margin)
    found += _paired_self_preference(first, second, tables, labels, lost, margin)
    return found


def _paired_effects(
    first: Contender, second: Contender, tables: Sequence[pd.DataFrame], labels: RowLabels, lost: int, margin: float
) -> list[Difference]:
    """``length_ame`` on the presentations that both scored: given gold (primary) and without it. On the same pairs quality
    is the same for both, so that the difference without gold is of the judges too, unless they follow quality unequally."""
    parts = []
    for table in tables:
        some = not_identical(_fixed(table))
        repeat = some["repeat"] if "repeat" in some else pd.Series(0, index=some.index)
        parts.append(
            some.assign(repeat=repeat)[some["verdict"] != "unscored"].drop_duplicates([KEY, "order", "repeat"])
        )
    place = [KEY, "order", "repeat"]
    shared = parts[0][place].merge(parts[1][place], on=place)
    rows = [
        covariates(shared.merge(part, on=place, how="left"), one.texts)
        for part, one in zip(parts, (first, second), strict=True)
    ]
    found = []
    given = [one.with_gold() for one in rows]
    for variant, both in ((_gold_variant(first, second), given), ("no_gold", rows)):
        if variant is None:
            continue
        if not len(both[0]) or len(both[0]) != len(both[1]):
            continue
        fits = [fit_slopes(one, None if variant == "no_gold" else one.gold) for one in both]
        result: Interval | Undefined = next((fit for fit in fits if isinstance(fit, Undefined)), Undefined(""))
        values: list[float | None] = [None, None]
        one, other = fits
        if isinstance(one, Slopes) and isinstance(other, Slopes):
            result = effect_difference(one, other, "length")
            if isinstance(result, Interval):
                values = [_effect(one), _effect(other)]
        counts = SampleCounts(len(both[0]), len(np.unique(both[0].items)), lost)
        note = "quality is not held equal" if variant == "no_gold" else _GIVEN
        made = row(labels, "verbosity", "length_ame", result, counts, unit=f"{PROBABILITY} per doubling", variant=variant,
                   margin=margin, note=note)  # fmt: skip
        found.append(Difference(first.name, second.name, "pairs", values[0], values[1], made))
    return found


def _gold_variant(first: Contender, second: Contender) -> str | None:
    """Under which variant a difference given gold may stand: as the primary, unless a folder's own estimate is undefined;
    then as what it kept, or (None) not at all. A comparison claims no more than what it compares."""
    own = [{row.variant: row.status for row in one.rows if row.term == "length_ame" and row.category == ""} for one in (first, second)]  # fmt: skip
    if all(status.get("") != "undefined" for status in own):
        return ""
    return "given_gold" if all(status.get("given_gold", "undefined") != "undefined" for status in own) else None


def _effect(fit: Slopes) -> float:
    """The average marginal effect of length."""
    return float(fit.marginal(fit.coefficients[None])[0] * fit.coefficients[fit.names.index("length")])


def _paired_self_preference(
    first: Contender, second: Contender, tables: Sequence[pd.DataFrame], labels: RowLabels, lost: int, margin: float
) -> list[Difference]:
    """``self_preference_gold`` by the jackknife over items, of which at most 50 groups are left out in turn."""
    if not {"model_a", "model_b", "gold"} <= set(tables[0].columns) & set(tables[1].columns):
        return []
    fixed = [_fixed(table) for table in tables]
    one, other = own_text_pairs(fixed[0], first.judge), own_text_pairs(fixed[1], second.judge)
    if isinstance(one, Undefined) or isinstance(other, Undefined):
        return []

    def rates(one: OwnTextPairs, other: OwnTextPairs) -> tuple[float, float] | None:
        a, b = one.difference(), other.difference()
        return None if isinstance(a, Undefined) or isinstance(b, Undefined) else (a.estimate, b.estimate)

    whole = rates(one, other)
    if whole is None:
        return []
    items = sorted(set(fixed[0]["item_id"]) | set(fixed[1]["item_id"]))
    groups = min(_GROUPS, len(items))
    outs = (set(items[n::groups]) for n in range(groups))
    left_out = [pair[0] - pair[1] for out in outs if (pair := rates(one.without(out), other.without(out)))]
    result: Interval | Undefined = Undefined("too few items tell of own texts to leave any out")
    if groups > 1 and len(left_out) == groups:
        spread = np.array(left_out) - np.mean(left_out)
        se = math.sqrt((groups - 1.0) / groups * float(np.sum(spread**2)))
        if se > 0:
            result = t_interval(whole[0] - whole[1], se, groups - 1, method="jackknife t by item")
    made = row(labels, "self_preference", "self_preference_gold", result, SampleCounts(len(fixed[0]), len(items), lost),
               unit=PROBABILITY, margin=margin)  # fmt: skip
    return [Difference(first.name, second.name, "pairs", *whole, made)]


def _unpaired(
    first: Contender, second: Contender, terms: Iterable[str], margin: float, note: str = _APART
) -> list[Difference]:
    found = []
    probes = {one.term for one in (*first.rows, *second.rows) if one.term.endswith("_probe")}
    for term in (*terms, *sorted(probes)):
        one, other = first.primary(term), second.primary(term)
        if one is None or other is None:
            continue
        result = independent(one, other)
        counts = SampleCounts(one.n + other.n, one.n_items + other.n_items, one.n_unscored + other.n_unscored)
        rate = margin if one.unit.startswith(PROBABILITY) else None
        made = row(shared_labels(first, second), one.bias, term, result, counts, unit=one.unit, margin=rate,
                   note=note)  # fmt: skip
        found.append(Difference(first.name, second.name, "unpaired", one.estimate, other.estimate, made))
    return found


# Two arms side by side, replicate by replicate where they ran under common random numbers.

POLICY = (*FEATURES, "style_score", "correct", "mattr", "distinct_2")


def loop_differences(first: Contender, second: Contender) -> list[Difference]:
    """``drift_`` and ``did_`` of every quantity at the last generation that both reached, and ``transmission_``.

    Within a folder did and drift differ by the same control: one number, under ``did_`` where neither is that control.
    """
    found: list[Difference] = []
    last = min(first.generations, second.generations)
    shared, one_folder = same_randomness(first, second), first.source == second.source
    controlled = bool(first.control) and first.control == second.control
    controlled = controlled and first.control not in (first.arm, second.arm)
    prefixes = (("did",) if one_folder else ("did", "drift")) if controlled else ("drift",)
    for name in POLICY if last >= 1 else ():
        one, other = first.series.get(name), second.series.get(name)
        if one is None or other is None or one.quantity.undefined or other.quantity.undefined:
            continue
        for prefix in prefixes:
            if prefix == "did":
                values = one.did(first.arm, first.control, last), other.did(second.arm, second.control, last)
            else:
                values = one.drift(first.arm, last), other.drift(second.arm, last)
            found.append(_difference(first, second, f"{prefix}_{name}", one.quantity, values, last, shared))
    return [*found, *_transmissions(first, second)]


def same_randomness(first: Contender, second: Contender) -> list[int]:
    """The replicates that both ran from the very same generation-0 texts under the same seed: common random numbers."""
    if first.source != second.source and (first.seed is None or first.seed != second.seed):
        return []
    return [key for key, value in first.first_texts.items() if second.first_texts.get(key) == value]


def _difference(
    first: Contender,
    second: Contender,
    term: str,
    quantity: Quantity,
    values: tuple[pd.Series[float], pd.Series[float]],
    last: int,
    shared: Sequence[int],
) -> Difference:
    both = [key for key in shared if key in values[0].index and key in values[1].index]
    result: Result
    pairing: Pairing
    if len(both) >= 2:
        values = values[0].loc[both], values[1].loc[both]
        result, pairing, n = replicate_mean(values[0] - values[1]), "replicates", len(both)
        note = "" if len(both) == len(shared) else f"missing in {len(shared) - len(both)} of {len(shared)} replicates"
    else:
        parts = [
            estimate_row(
                replicate_mean(one), scope="policy", bias=quantity.bias, term=term, n=len(one), n_replicates=len(one)
            )
            for one in values
        ]
        result, pairing, n = independent(*parts), "unpaired", sum(map(len, values))
        note = "no common random numbers: two independent sets of replicates"
    common = shared_labels(first, second)
    made = estimate_row(
        result, margin=quantity.margin, drift=True, note=note, scope="policy", bias=quantity.bias, term=term,
        judge=common.judge, arm=common.arm, contrast=first.control if term.startswith("did_") else "", generation=last,
        unit=quantity.unit, n=n, n_replicates=n,
    )  # fmt: skip
    means = [float(one.mean()) if len(one) else None for one in values]
    return Difference(first.name, second.name, pairing, means[0], means[1], made)


def _transmissions(first: Contender, second: Contender) -> list[Difference]:
    """Differences of ``transmission_<feature>``. What two arms share (judge, panel, random numbers) makes them alike, so that
    taking them as independent is cautious."""
    found = []
    for name in FEATURES:
        one, other = first.primary(f"transmission_{name}"), second.primary(f"transmission_{name}")
        if one is None or other is None:
            continue
        note = "taken as independent, which is cautious where they share judge or random numbers"
        made = row(
            shared_labels(first, second), one.bias, one.term, independent(one, other), SampleCounts(one.n + other.n, 0),
            unit=one.unit, note=note, scope="signal", n_replicates=(one.n_replicates or 0) + (other.n_replicates or 0),
        )  # fmt: skip
        found.append(Difference(first.name, second.name, "unpaired", one.estimate, other.estimate, made))
    return found


# Judges of one audit side by side, on the pairs that both judged.

PREFIX = "judge_difference_"
MOST_JUDGES = 8
"""More judges than these have too many pairs to read: `judgeloop compare` takes those that matter."""

_PANELS = ("pairs", "anchor", "policy")


def judge_difference_estimates(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str], *, margin: float = RATE_MARGIN
) -> list[Estimate]:
    """``judge_difference_<term>`` of every two of ``judges`` that share half of their pairs or more, variant ``vs <other>``.

    ``judgments``: the columns of docs/contract.md, "Tables", of all judges; ``texts``: features (see
    ``content_estimates``). The difference is the judge's minus the other's, on the same pairs and for probes on the
    same edits, clustered by item (see ``compared_judges``). Rows of different ``arm`` or ``generation`` stand apart;
    none for more than MOST_JUDGES judges.
    """
    if not 2 <= len(judges) <= MOST_JUDGES:
        return []
    found: list[Estimate] = []
    keyed = with_pair_keys(judgments[judgments["judge"].isin(judges)], None)
    for (arm, generation), several in keyed.groupby(["arm", "generation"], dropna=False, sort=True):
        panel = next((name for name in _PANELS if (several["panel"] == name).any()), "")
        turn = None if pd.isna(cast(float, generation)) else int(cast(float, generation))
        some = several[several["panel"].isin([panel, "probe"])]
        for one, other in combinations(_contenders(some, texts, judges), 2):
            shared, *counts = shared_pairs(one, other)
            if shared and shared >= SHARED * min(counts):
                rows = (difference.row for difference in judge_differences(one, other, margin))
                found += _named(rows, one.name, other.name, str(arm), turn, panel)
    return found


def _contenders(judgments: pd.DataFrame, texts: pd.DataFrame | None, judges: Sequence[str]) -> list[Contender]:
    by_judge = dict(list(judgments.groupby("judge", sort=True)))
    return [
        Contender(name=judge, source="", judge=judge, judgments=by_judge[judge], texts=texts)
        for judge in judges
        if judge in by_judge
    ]


def _named(
    rows: Iterable[Estimate], judge: str, other: str, arm: str, generation: int | None, panel: str
) -> list[Estimate]:
    return [
        dataclasses.replace(
            row, judge=judge, arm=arm, generation=generation, term=PREFIX + row.term,
            panel="probe" if row.term.endswith("_probe") else panel,
            variant=f"vs {other}" + (f", {row.variant}" if row.variant else ""),
        )
        for row in rows
    ]  # fmt: skip
