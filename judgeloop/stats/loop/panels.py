"""Panels: the judge in every generation of a run, on each of its three panels (docs/method.md, "The judge over time").

The anchor panel (fixed pairs, shared by replicates) shows whether the *judge* changed. The on-policy panel (the policy's own
pairs) shows its biases on the texts that it selects from; these also move when the candidates do. The probe panel (fixed
texts against their own edits) shows the effect of each edit. Signs are those of the terms; positive judge_drift = more of
the term than at generation 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.estimate import (
    LOG_ODDS,
    PROBABILITY,
    Bias,
    Estimate,
    RowLabels,
    SampleCounts,
    estimate_row,
    replicate_mean,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.position import position_estimates, position_margin
from judgeloop.stats.judge.probes import bias_of, edited_picked, probe_estimates
from judgeloop.stats.judge.slopes import Slopes, fit_slopes
from judgeloop.stats.presentations import first_picked, not_identical, only_identical, text_places, unscored

_PAIR = ["item_id", "pair_id"]
_POLICY_TERMS = ("first_slot_excess", "position_log_odds", "conflict_rate", "order_agreement", "excess_conflict",
                 "repetition_stability", "identical_pair_excess")  # fmt: skip
_DESCRIPTIONS = ("conflict_rate", "order_agreement", "repetition_stability", "longer_preferred_raw")


def panel_texts(candidates: pd.DataFrame) -> pd.DataFrame:
    """The texts of the anchor and probe panels, each once: the candidates without a replicate."""
    if candidates.empty:
        return candidates
    return candidates[candidates["replicate"].isna() & candidates["text"].notna()].drop_duplicates(
        ["item_id", "candidate_id"]
    )


def anchor_judgments(tables: RunTables, judge: str, generation: int) -> pd.DataFrame:
    """The judge's anchor judgments of a generation, in an order that is the same in every generation."""
    table = tables.judgments
    if table.empty:
        return table
    chosen = (table["panel"] == "anchor") & (table["judge"] == judge) & (table["generation"] == generation)
    return table[chosen].sort_values([*_PAIR, "order", "repeat"], kind="stable")


def anchor_slopes(tables: RunTables, judge: str, generation: int, scales: dict[str, float]) -> Slopes | Undefined:
    """The judge's content slopes on the anchor panel, jointly, with the order column and without gold."""
    judgments = anchor_judgments(tables, judge, generation)
    if judgments.empty:
        return Undefined("no anchor panel was judged")
    design = covariates(judgments, panel_texts(tables.candidates), scales=scales)
    if len(design) == 0 or not design.features:
        return Undefined("no scored anchor pair has texts that differ in a feature")
    return fit_slopes(design)


def policy_panel_estimates(tables: RunTables, design: Design) -> list[Estimate]:
    """Position terms and ``longer_preferred_raw`` of each arm's judge on the policy's own pairs: t over replicates.

    A replicate's value is the estimate over its own pairs. Identical texts count for ``identical_pair_excess`` alone.
    """
    table = tables.judgments
    rows: list[Estimate] = []
    if table.empty:
        return rows
    margin = design.margins.rate
    table = _with_lengths(table[(table["panel"] == "policy") & table["replicate"].notna()], tables.candidates)
    for arm in design.arms:
        of_arm = table[table["arm"] == arm.name]
        for generation in range(design.generations + 1):
            cell = of_arm[of_arm["generation"] == generation]
            by_replicate = [_replicate_estimates(part) for _, part in cell.groupby("replicate", sort=True)]
            labels: dict[str, Any] = {
                "scope": "judge", "judge": arm.judge, "arm": arm.name, "generation": generation, "panel": "policy",
            }  # fmt: skip
            for term in (*_POLICY_TERMS, "longer_preferred_raw"):
                rows.append(_over_replicates(term, [rows[term] for rows in by_replicate], cell, labels, margin))
    return rows


def _replicate_estimates(judgments: pd.DataFrame) -> dict[str, Estimate]:
    """Term → the estimate from one replicate's judgments of one arm and generation."""
    estimates = {row.term: row for row in position_estimates(judgments) if row.variant == ""}
    longer = longer_picked(not_identical(judgments))
    known = longer.notna()
    estimates["longer_preferred_raw"] = Estimate(
        scope="judge", term="longer_preferred_raw", bias="verbosity", unit=PROBABILITY,
        estimate=float(longer[known].mean()) if known.any() else None, n=int(known.sum()),
        n_items=judgments.loc[longer.index[known], "item_id"].nunique(),
        status="ok" if known.any() else "undefined", note="" if known.any() else "no pair's lengths differ",
    )  # fmt: skip
    return estimates


def _over_replicates(
    term: str, estimates: Sequence[Estimate], cell: pd.DataFrame, labels: dict[str, Any], margin: float
) -> Estimate:
    """The row of a term: the mean of the replicates' ``estimates``, with its t interval."""
    shared: dict[str, Any] = {
        **labels, "term": term, "bias": "verbosity" if term == "longer_preferred_raw" else "position", "n_unscored": unscored(cell),
        "unit": LOG_ODDS if term.endswith("log_odds") else PROBABILITY,
    }  # fmt: skip
    defined = [row for row in estimates if row.estimate is not None]
    if not defined:
        reasons = sorted({row.note for row in estimates if row.note})
        unknown = Undefined(reasons[0] if reasons else "nothing was judged")
        return estimate_row(unknown, n_replicates=0, **shared)
    lost = (
        f"undefined in {len(estimates) - len(defined)} of {len(estimates)} replicates"
        if len(defined) < len(estimates)
        else ""
    )
    described = term in _DESCRIPTIONS
    return estimate_row(
        replicate_mean(np.array([row.estimate for row in defined], dtype=np.float64), tested=not described),
        margin=position_margin(term, margin), null=None if described else 0.0, note=lost, n=sum(row.n for row in defined),
        n_items=max(row.n_items for row in defined), n_replicates=len(defined), **shared,
    )  # fmt: skip


def longer_picked(judgments: pd.DataFrame) -> pd.Series[float]:
    """(n,) 1 = the longer text was picked, 0 the shorter, ½ tie; a probability for soft verdicts; NaN where unscored, or where
    the lengths are equal or unknown.

    ``judgments`` with the columns ``length_first``, ``length_second``.
    """
    picked = first_picked(judgments)
    gap = judgments["length_first"] - judgments["length_second"]
    return picked.where(gap > 0, 1.0 - picked).where(gap.notna() & (gap != 0)).astype("float64")


def _with_lengths(judgments: pd.DataFrame, candidates: pd.DataFrame) -> pd.DataFrame:
    """The judgments with ``length_first`` and ``length_second`` (log2 tokens), NaN for a text that ``candidates`` lacks."""
    lengths = np.full((len(judgments), 2), np.nan)
    if len(judgments) and "length" in candidates:
        # Ids are unique within an item of a replicate; panels have no replicate.
        texts = candidates[candidates["text"].notna()]
        lengths = np.append(texts["length"].to_numpy(dtype=np.float64), np.nan)[text_places(judgments, texts)]
    return judgments.assign(length_first=lengths[:, 0], length_second=lengths[:, 1])


def judge_drift_estimates(tables: RunTables, design: Design, scales: dict[str, float]) -> list[Estimate]:
    """Rows ``judge_drift_<term>``: each judge's change on the anchor panel since generation 0, paired by pair.

    Exactly 0 for a judge that repeats its verdicts. Rates: over the pairs that are complete in both generations, clustered
    by item. length_log_odds: the difference of two fits, with the jackknife over the items that both share.
    """
    rows: list[Estimate] = []
    for judge in anchor_judges(tables):
        base = _pair_table(tables, judge, 0)
        slopes = anchor_slopes(tables, judge, 0, scales)
        for generation in range(1, design.generations + 1):
            judgments = anchor_judgments(tables, judge, generation)
            labels = RowLabels(judge, "", generation, "anchor")
            later, lost = _pair_table(tables, judge, generation).reindex(base.index), unscored(judgments)
            for term in ("first_slot_excess", "conflict_rate", "order_agreement", "longer_preferred_raw"):
                rows.append(_rate_drift(labels, term, base, later, lost, design.margins.rate))
            unchanged = _unchanged(base, later, "first_slot_excess")
            result = _slope_drift(slopes, anchor_slopes(tables, judge, generation, scales))
            counts = SampleCounts(int((judgments["verdict"] != "unscored").sum()), judgments["item_id"].nunique(), lost)
            rows.append(
                row(
                    labels,
                    "verbosity",
                    "judge_drift_length_log_odds",
                    result,
                    counts,
                    unit=LOG_ODDS + " per doubling",
                    unchanged=unchanged,
                )
            )
    return rows


def anchor_judges(tables: RunTables) -> list[str]:
    """The judges of the anchor panel, in the table's order."""
    table = tables.judgments
    return [] if table.empty else [str(name) for name in table.loc[table["panel"] == "anchor", "judge"].unique()]


def _pair_table(tables: RunTables, judge: str, generation: int) -> pd.DataFrame:
    """A row a pair (item_id, pair_id): its value of each rate term, NaN where its verdicts give none, and ``ab``.

    ``ab`` is the first slot's rate in that order; together with the excess it shows whether any verdict changed.
    """
    terms = ["ab", "first_slot_excess", "conflict_rate", "order_agreement", "longer_preferred_raw"]
    judgments = not_identical(anchor_judgments(tables, judge, generation))
    if judgments.empty:
        empty = pd.MultiIndex.from_arrays([[], []], names=_PAIR)
        return pd.DataFrame(columns=terms, index=empty, dtype="float64")
    judgments = _with_lengths(judgments, tables.candidates)
    judgments = judgments.assign(picked=first_picked(judgments), longer=longer_picked(judgments))
    orders = judgments.groupby([*_PAIR, "order"])["picked"].mean().unstack("order").reindex(columns=["ab", "ba"])
    verdicts = judgments[judgments["verdict"] != "unscored"].drop_duplicates([*_PAIR, "repeat", "order"])
    matched = verdicts.set_index([*_PAIR, "repeat", "order"])["verdict"].unstack("order").reindex(columns=["ab", "ba"])
    matched = matched.dropna()
    conflict = (
        ((matched["ab"] == matched["ba"]) & (matched["ab"] != "tie")).astype("float64").groupby(level=_PAIR).mean()
    )
    return pd.DataFrame(
        {
            "ab": orders["ab"],
            "first_slot_excess": (orders["ab"] + orders["ba"]) / 2.0 - 0.5,
            "conflict_rate": conflict,
            "order_agreement": 1.0 - conflict,
            "longer_preferred_raw": judgments.groupby(_PAIR)["longer"].mean(),
        }
    )


def _rate_drift(
    labels: RowLabels, term: str, base: pd.DataFrame, later: pd.DataFrame, lost: int, margin: float
) -> Estimate:
    """``judge_drift_<term>``: the mean change of ``term`` from ``base`` to ``later`` (both of ``_pair_table``, same rows)."""
    both = _in_both(base, later, term)
    change = (later[term] - base[term]).to_numpy()[both]
    items = base.index.get_level_values("item_id").to_numpy()[both]
    result: Interval | Undefined = Undefined("no anchor pair has a value in both generations")
    if len(change):
        result = bounded_mean(change, items, -1.0, 1.0)
    counts = SampleCounts(len(change), len(set(items)), lost)
    bias: Any = "verbosity" if term == "longer_preferred_raw" else "position"
    return row(
        labels, bias, f"judge_drift_{term}", result, counts, unit=PROBABILITY, margin=margin,
        unchanged=_unchanged(base, later, term),
    )  # fmt: skip


def _unchanged(base: pd.DataFrame, later: pd.DataFrame, term: str) -> bool:
    """Whether every pair with a value of ``term`` in both generations was judged the same in both orders."""
    both, columns = _in_both(base, later, term), ["ab", "first_slot_excess"]
    moved = later[columns].to_numpy()[both] - base[columns].to_numpy()[both]
    return bool(both.any()) and not np.any(np.nan_to_num(moved, nan=0.0))


def _in_both(base: pd.DataFrame, later: pd.DataFrame, term: str) -> NDArray[np.bool_]:
    """(pairs,) which have a value of ``term`` in both generations."""
    return (base[term].notna() & later[term].notna()).to_numpy()


def _slope_drift(base: Slopes | Undefined, later: Slopes | Undefined) -> Interval | Undefined:
    """The change of length's slope, later − base, in log-odds per doubling."""
    for slopes in (base, later):
        if isinstance(slopes, Undefined):
            return slopes
        if "length" not in slopes.names:
            return Undefined("length does not differ between the anchor texts")
    assert isinstance(base, Slopes)
    assert isinstance(later, Slopes)
    groups = int(max(base.clusters.max(), later.clusters.max())) + 1
    values = [float(slopes.coefficients[slopes.names.index("length")]) for slopes in (base, later)]
    moved = _jackknife(later, groups) - _jackknife(base, groups)
    se = float(np.sqrt((groups - 1.0) / groups * np.sum((moved - moved.mean()) ** 2)))
    return t_interval(values[1] - values[0], se, groups - 1, method="difference of fits, jackknife t by item")


def _jackknife(slopes: Slopes, groups: int) -> NDArray[np.float64]:
    """(groups,) change of length's slope, one Newton step after leaving out each item; 0 where the item has no row."""
    x, fit, j = slopes.x, slopes.fit, slopes.names.index("length")
    residual = slopes.z - fit.probabilities + fit.adjustment
    curvature = fit.probabilities * (1.0 - fit.probabilities)
    moved = np.zeros(groups)
    for group in range(groups):
        part = slopes.clusters == group
        if part.any():
            information = fit.hessian - (x[part] * curvature[part, None]).T @ x[part]
            moved[group] = -(np.linalg.pinv(information, hermitian=True) @ (x[part].T @ residual[part]))[j]
    return moved


# The probe panel: the effect of each edit on each judge in every generation, and its change.


def probe_panel_estimates(tables: RunTables, design: Design) -> list[Estimate]:
    """Rows ``<probe>_probe`` and ``identical_pair_excess`` of every judge and generation on panel ``probe``, and the
    ``judge_drift_`` of each. Nothing where the run has no probe panel."""
    table = tables.judgments
    if table.empty or "probe" not in table:
        return []
    table = table[table["panel"] == "probe"]
    rows: list[Estimate] = []
    for judge, of_judge in table.groupby("judge", sort=False):
        by_generation = {
            generation: of_judge[of_judge["generation"] == generation].sort_values([*_PAIR, "order", "repeat"])
            for generation in range(design.generations + 1)
        }
        for generation, judgments in by_generation.items():
            rows += probe_estimates(judgments, judge=str(judge), generation=generation, margin=design.margins.rate)
            if generation:
                labels = RowLabels(str(judge), "", generation, "probe")
                rows += _probe_drifts(labels, by_generation[0], judgments, design.margins.rate)
    return rows


def _probe_drifts(labels: RowLabels, base: pd.DataFrame, later: pd.DataFrame, margin: float) -> list[Estimate]:
    rows, edits_base, edits_later = [], not_identical(base), not_identical(later)
    for name in sorted(edits_base["probe"].dropna().unique()):
        before = edits_base[edits_base["probe"] == name]
        after = edits_later[edits_later["probe"] == name]
        change = _edited_excess(after) - _edited_excess(before)
        # The edit's and the first slot's rates are both unchanged only where every verdict is the same.
        moved = pd.concat([change, _first_slot_excess(after) - _first_slot_excess(before)])
        rows.append(_probe_drift(labels, bias_of(str(name)), f"{name}_probe", change, moved, unscored(after), margin))
    before, after = only_identical(base), only_identical(later)
    if len(before):
        change = _first_slot_excess(after) - _first_slot_excess(before)
        rows.append(_probe_drift(labels, "position", "identical_pair_excess", change, change, unscored(after), margin))
    return rows


def _probe_drift(
    labels: RowLabels,
    bias: Bias,
    term: str,
    change: pd.Series[float],
    moved: pd.Series[float],
    lost: int,
    margin: float,
) -> Estimate:
    """``judge_drift_<term>``: the mean ``change`` by pair. ``moved``: 0 for every pair whose verdicts stayed the same."""
    change = change.dropna()
    items = change.index.get_level_values("item_id")
    result: Interval | Undefined = Undefined("no probe pair has a verdict in both orders in both generations")
    if len(change):
        result = bounded_mean(change.to_numpy(), items.to_numpy(), -1.0, 1.0)
    unchanged = len(change) > 0 and bool((moved.dropna() == 0).all())
    counts = SampleCounts(len(change), items.nunique(), lost)
    return row(
        labels, bias, f"judge_drift_{term}", result, counts, unit=PROBABILITY, margin=margin, unchanged=unchanged
    )


def _edited_excess(judgments: pd.DataFrame) -> pd.Series[float]:
    """(item_id, pair_id) → the edit's share of picks less ½, of pairs complete in both orders."""
    picks = edited_picked(judgments).rename(columns={"item": "item_id"})
    return picks.set_index(_PAIR)["edited"]


def _first_slot_excess(judgments: pd.DataFrame) -> pd.Series[float]:
    """(item_id, pair_id) → the first slot's share of picks less ½, over the judgments of the pair."""
    picked = judgments.assign(picked=first_picked(judgments) - 0.5)
    return picked.groupby(_PAIR)["picked"].mean()
