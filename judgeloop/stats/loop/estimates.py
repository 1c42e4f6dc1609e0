"""All estimates of a run, from its tables alone: of the judge, of the preference signal, and of the policy."""

from __future__ import annotations

import dataclasses

import pandas as pd

from judgeloop.stats.design import ArmDesign, Design, Margins, RunTables
from judgeloop.stats.estimate import Estimate, estimates_frame, order_free
from judgeloop.stats.items import by_category, is_gold_exact, remarked
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.missing import with_claims_withheld
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.loop.amplification import (
    amplification_estimates,
    bias_amplification_series,
    kl_estimates,
    signal_slope_estimates,
    signal_slopes,
    transmission_estimates,
    with_settled_compounding,
)
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.drift import drift_estimates, gradient_estimates, new_item_estimates, trend_estimates
from judgeloop.stats.loop.panels import (
    anchor_judges,
    anchor_judgments,
    judge_drift_estimates,
    panel_texts,
    policy_panel_estimates,
    probe_panel_estimates,
)
from judgeloop.stats.loop.pools import range_estimates
from judgeloop.stats.loop.positive_control import with_positive_controls
from judgeloop.stats.loop.price import accounts, price_estimates
from judgeloop.stats.loop.replicates import MeasuredCandidates, measure, series
from judgeloop.stats.loop.strategy_gap import strategy_gap_estimates
from judgeloop.stats.loop.tail import collapse_estimates
from judgeloop.stats.multiplicity import adjust, with_run_families
from judgeloop.stats.near_copies import with_clusters
from judgeloop.stats.presentations import quick_texts

__all__ = ["ArmDesign", "Design", "Margins", "RunTables", "run_estimates"]


def run_estimates(tables: RunTables, design: Design) -> pd.DataFrame:
    """The run's estimates, a row each (docs/contract.md, "Estimates"); p_adjusted by Holm and Benjamini–Hochberg within
    families.

    Scope ``judge``: the anchor, probe and on-policy panels of every generation, and the judge's own drift. Scope
    ``signal``: transmission. Scope ``policy``: levels, drift and did of features, correctness and diversity, the Price
    identity, KL, and whether the drift compounds. An estimate that the tables do not support is ``undefined`` with the reason.
    """
    tables = RunTables(**{table.name: quick_texts(getattr(tables, table.name)) for table in dataclasses.fields(tables)})
    tables = dataclasses.replace(tables, judgments=with_clusters(tables.judgments, tables.items))
    measured = measure(tables, design)
    feature_series = series(measured)
    price_accounts = accounts(measured)
    all_series = [*feature_series, *diversity_series(measured, design), bias_amplification_series(measured)]
    drifts = drift_estimates(measured, all_series, design)
    rows: list[Estimate] = [
        *_anchor_estimates(tables, design, measured.scale),
        *judge_drift_estimates(tables, design, measured.scale),
        *probe_panel_estimates(tables, design),
        *policy_panel_estimates(tables, design),
        *transmission_estimates(tables, design, measured.scale),
        *signal_slope_estimates(tables, design, measured.scale),
        *drifts,
        *collapse_estimates(drifts, design),
        *new_item_estimates(measured, design, tables.items),
        *price_estimates(measured, design, price_accounts),
        *amplification_estimates(
            measured,
            feature_series,
            price_accounts,
            design,
            fitted_sizes(measured, tables.signals),
            {arm.name: signal_slopes(tables.signals, arm, measured.scale) for arm in design.arms},
        ),
        *range_estimates(measured, design),
        *kl_estimates(measured.rows, design),
        *trend_estimates(measured, all_series, design),
        *gradient_estimates(measured, design),
        *strategy_gap_estimates(measured, feature_series, design),
    ]
    single_text_judges = {arm.judge for arm in design.arms if arm.judge_kind == "reward"}
    adjusted = adjust(with_run_families(order_free(estimates_frame(rows), single_text_judges)), design.looks)
    return with_positive_controls(with_settled_compounding(adjusted, design.generations), design)


def fitted_sizes(measured: MeasuredCandidates, signals: pd.DataFrame) -> dict[str, int]:
    """Arm → candidates an item, of the arms whose reward is refitted: only for these is the law of best of n known."""
    if measured.rows.empty or signals.empty:
        return {}
    drawn = measured.rows.groupby(["replicate", "arm", "generation", "item_id"])["n_drawn"].sum()
    sizes = drawn.groupby(level="arm").max()
    return {str(arm): int(size) for arm, size in sizes.items() if arm in set(signals["arm"])}


def _anchor_estimates(tables: RunTables, design: Design, scales: dict[str, float]) -> list[Estimate]:
    """Every judge on the anchor panel in every generation: position and content terms, clustered by item."""
    rows: list[Estimate] = []
    texts = panel_texts(tables.candidates)
    margin = design.margins.rate
    for judge in anchor_judges(tables):
        for generation in range(design.generations + 1):
            judgments = anchor_judgments(tables, judge, generation)
            if judgments.empty:
                continue
            position = position_estimates(judgments, judge=judge, generation=generation, panel="anchor", margin=margin)
            content = content_estimates(
                judgments, texts, judge=judge, generation=generation, panel="anchor", scales=scales, margin=margin,
                gold_exact=is_gold_exact(judgments, tables.items),
            )  # fmt: skip
            rows += with_claims_withheld([*position, *content])
            if generation == 0:
                rows += _category_estimates(judgments, tables.items, texts, judge, scales, margin)
    return rows


def _category_estimates(
    judgments: pd.DataFrame,
    items: pd.DataFrame,
    texts: pd.DataFrame,
    judge: str,
    scales: dict[str, float],
    margin: float,
) -> list[Estimate]:
    """Position and content terms on generation 0's anchor panel, a category at a time."""
    rows: list[Estimate] = []
    for category, part, remark in by_category(judgments):
        position = position_estimates(part, judge=judge, generation=0, panel="anchor", category=category, margin=margin)
        content = content_estimates(
            part, texts, judge=judge, generation=0, panel="anchor", category=category, scales=scales, margin=margin,
            gold_exact=is_gold_exact(part, items),
        )  # fmt: skip
        rows += remarked(with_claims_withheld([*position, *content]), remark)
    return rows
