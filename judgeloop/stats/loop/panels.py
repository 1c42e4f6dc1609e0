"""Panels: the judge in every generation of a run, on each of its three panels (docs/method.md, "The judge over time").

The anchor panel (fixed pairs, shared by replicates) shows whether the *judge* changed. The on-policy panel (the policy's own
pairs) shows its biases on the texts that it selects from; these also move when the candidates do. The probe panel (fixed
texts against their own edits) shows the effect of each edit. Signs are those of the terms; positive judge_drift = more of
the term than at generation 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.kernels import distinct, one_step_jackknife
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
from judgeloop.stats.inference import LEVEL, Interval, Undefined, surely_detectable, t_interval
from judgeloop.stats.judge.change import CONFLICT, DISAGREEMENT, changes, with_signs
from judgeloop.stats.judge.covariates import covariates
from judgeloop.stats.judge.position import position_estimates_by, position_margin
from judgeloop.stats.judge.probes import bias_of, probe_estimates
from judgeloop.stats.judge.slopes import Slopes, fit_slopes
from judgeloop.stats.loop.replicates import unrounded
from judgeloop.stats.presentations import are_identical, clusters, first_picked, item_codes, text_places, unscored

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
    of_replicates = _by_replicate(table)
    for arm in design.arms:
        of_arm = table[table["arm"] == arm.name]
        for generation in range(design.generations + 1):
            cell = of_arm[of_arm["generation"] == generation]
            by_replicate = of_replicates.get((arm.name, generation), [])
            labels: dict[str, Any] = {
                "scope": "judge", "judge": arm.judge, "arm": arm.name, "generation": generation, "panel": "policy",
            }  # fmt: skip
            for term in (*_POLICY_TERMS, "longer_preferred_raw"):
                rows.append(_over_replicates(term, [of_terms[term] for of_terms in by_replicate], cell, labels, margin))
    return rows


def _by_replicate(judgments: pd.DataFrame) -> dict[tuple[str, int], list[dict[str, Estimate]]]:
    """(arm, generation) → each replicate's estimates by term, from its own judgments (with ``length_first`` and
    ``length_second``)."""
    indices: dict[Any, Any] = judgments.groupby(["arm", "generation", "replicate"], sort=True).indices
    keys = [(str(arm), int(generation)) for arm, generation, _ in indices]
    groups = [np.asarray(places, dtype=np.intp) for places in indices.values()]
    longer, items = longer_picked(judgments).to_numpy(dtype=np.float64), item_codes(judgments)
    has_longer = ~np.isnan(longer) & ~are_identical(judgments)
    by_cell: dict[tuple[str, int], list[dict[str, Estimate]]] = {}
    for key, places, rows in zip(keys, groups, position_estimates_by(judgments, groups), strict=True):
        known = places[has_longer[places]]
        raw = Estimate(
            scope="judge", term="longer_preferred_raw", bias="verbosity", unit=PROBABILITY,
            estimate=float(longer[known].mean()) if len(known) else None, n=len(known), n_items=len(np.unique(items[known])),
            status="ok" if len(known) else "undefined", note="" if len(known) else "no pair's lengths differ",
        )  # fmt: skip
        of_terms = {row.term: row for row in rows if row.variant == ""} | {raw.term: raw}
        by_cell.setdefault(key, []).append(of_terms)
    return by_cell


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
    values = unrounded(np.array([row.estimate for row in defined], dtype=np.float64))
    return estimate_row(
        replicate_mean(values, tested=not described),
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
    """Rows ``judge_drift_<term>``: each judge's change since generation 0 on its fixed panels, paired by pair.

    Tested by permutation within presentations (``stats.judge.change``), all of one judge's together, in every generation: the
    rows of family confirmatory. ``order_agreement`` is 1 − the conflict rate and length_log_odds (the difference of two fits,
    with the jackknife over the items that both share) is of the same picks as ``longer_preferred_raw``: they describe.
    """
    rows: list[Estimate] = []
    for judge in _fixed_judges(tables):
        slopes = anchor_slopes(tables, judge, 0, scales)
        base = {panel: _fixed_panel(tables, judge, 0, panel) for panel in ("anchor", "probe")}
        of_judge: list[Estimate] = []
        for generation in range(1, design.generations + 1):
            for panel, (earlier, terms) in base.items():
                later, _ = _fixed_panel(tables, judge, generation, panel)
                labels = RowLabels(judge, "", generation, panel)
                of_judge += _panel_changes(labels, earlier, later, terms, design)
                if panel == "anchor" and not (earlier.empty and later.empty):
                    result = _slope_drift(slopes, anchor_slopes(tables, judge, generation, scales))
                    if isinstance(result, Interval):
                        result = replace(result, p_value=None)
                    scored = int((later["verdict"] != "unscored").sum())
                    counts = SampleCounts(scored, clusters(later).nunique(), unscored(later))
                    of_judge.append(row(
                        labels, "verbosity", "judge_drift_length_log_odds", result, counts, unit=LOG_ODDS + " per doubling", null=None,
                    ))  # fmt: skip
        rows += _as_one_family(of_judge, design)
    return rows


def _fixed_judges(tables: RunTables) -> list[str]:
    table = tables.judgments
    return (
        []
        if table.empty
        else [str(name) for name in table.loc[table["panel"].isin(["anchor", "probe"]), "judge"].unique()]
    )


def _fixed_panel(tables: RunTables, judge: str, generation: int, panel: str) -> tuple[pd.DataFrame, list[str]]:
    """The judge's judgments of a fixed panel in a generation, as ``with_signs`` gives them."""
    table = tables.judgments
    chosen = (table["panel"] == panel) & (table["judge"] == judge) & (table["generation"] == generation)
    judgments = _with_lengths(table[chosen].sort_values([*_PAIR, "order", "repeat"], kind="stable"), tables.candidates)
    gap = (judgments["length_first"] - judgments["length_second"]).to_numpy(dtype=np.float64)
    return with_signs(judgments, gap)


_BIAS_OF_CHANGE: dict[str, Bias] = {"longer_preferred_raw": "verbosity", "gold_agreement": "quality"}


def _panel_changes(
    labels: RowLabels, earlier: pd.DataFrame, later: pd.DataFrame, terms: list[str], design: Design
) -> list[Estimate]:
    """``judge_drift_<term>`` of one panel and generation."""
    if earlier.empty:
        return []
    moved = changes(earlier, later, terms, labels.judge, labels.panel, labels.generation or 0)
    note = f"{moved.differing} of {moved.presentations} presentations got another verdict than in generation 0"
    always = ["first_slot_excess", CONFLICT, "longer_preferred_raw"] if labels.panel == "anchor" else terms
    rows = []
    for term in dict.fromkeys([*always, *moved.by_term]):  # not every panel has gold, repeats or identical texts
        change = moved.by_term.get(term)
        result = change.interval() if change else Undefined("no pair has a verdict in both orders in both generations")
        n, items = (len(change.values), distinct(change.items)) if change else (0, 0)
        counts = SampleCounts(n, items, unscored(later))
        bias = (
            bias_of(term.removesuffix("_probe")) if term.endswith("_probe") else _BIAS_OF_CHANGE.get(term, "position")
        )
        margin = design.margins.rate**2 if term == DISAGREEMENT else design.margins.rate
        rows.append(row(
            labels, bias, f"judge_drift_{term}", result, counts, unit=PROBABILITY, margin=margin, unchanged=moved.identical, note=note,
        ))  # fmt: skip
        if term == CONFLICT:
            if isinstance(result, Interval):
                result = replace(result, estimate=-result.estimate, low=-result.high, high=-result.low, p_value=None)
            rows.append(
                row(labels, "position", "judge_drift_order_agreement", result, counts, unit=PROBABILITY, null=None)
            )
    return rows


def _as_one_family(rows: list[Estimate], design: Design) -> list[Estimate]:
    """The tested rows of one judge as its confirmatory family, with the effect that Holm's first step could have seen."""
    tests = sum(row.p_value is not None for row in rows) * design.looks
    level = 1.0 - (1.0 - LEVEL) / max(tests, 1.0)
    family = []
    for each in rows:
        if each.p_value is not None and each.status != "undefined":
            detectable = each.detectable
            if detectable is not None and each.std_error and each.n_items > 1:
                detectable = surely_detectable(each.std_error, each.n_items - 1.0, level=level)
            each = replace(each, family="confirmatory", detectable=detectable)
        family.append(each)
    return family


def anchor_judges(tables: RunTables) -> list[str]:
    """The judges of the anchor panel, in the table's order."""
    table = tables.judgments
    return [] if table.empty else [str(name) for name in table.loc[table["panel"] == "anchor", "judge"].unique()]


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
    df = min(base.df_of("length"), later.df_of("length"))
    return t_interval(values[1] - values[0], se, df, method="difference of fits, jackknife t by item")


def _jackknife(slopes: Slopes, groups: int) -> NDArray[np.float64]:
    """(groups,) change of length's slope, one Newton step after leaving out each item; 0 where the item has no row."""
    j, moved = slopes.names.index("length"), np.zeros(groups)
    left_out = one_step_jackknife(slopes.x, slopes.z, slopes.fit, slopes.clusters)
    moved[np.unique(slopes.clusters)] = left_out[:, j] - slopes.coefficients[j]
    return moved


# The probe panel: the effect of each edit on each judge in every generation.


def probe_panel_estimates(tables: RunTables, design: Design) -> list[Estimate]:
    """Rows ``<probe>_probe`` and ``identical_pair_excess`` of every judge and generation on panel ``probe``. Nothing where the
    run has no probe panel."""
    table = tables.judgments
    if table.empty or "probe" not in table:
        return []
    table = table[table["panel"] == "probe"]
    rows: list[Estimate] = []
    for judge, of_judge in table.groupby("judge", sort=False):
        for generation in range(design.generations + 1):
            judgments = of_judge[of_judge["generation"] == generation].sort_values([*_PAIR, "order", "repeat"])
            rows += probe_estimates(judgments, judge=str(judge), generation=generation, margin=design.margins.rate)
    return rows
