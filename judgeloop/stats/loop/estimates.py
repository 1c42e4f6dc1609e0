"""All estimates of a run, from its tables alone: of the judge, of the preference signal, and of the policy."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from judgeloop.records import JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.stats.design import ArmDesign, Design, Margins, RunTables
from judgeloop.stats.estimate import Estimate, estimates_frame, joined, order_free
from judgeloop.stats.items import by_category, is_gold_exact, remarked, with_clusters
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.missing import with_claims_withheld
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.loop.amplification import (
    amplification_estimates,
    bias_amplification_series,
    divergences,
    kl_estimates,
    reward_accuracy_estimates,
    signal_slope_estimates,
    signal_slopes,
    transmission_estimates,
    with_settled_compounding,
)
from judgeloop.stats.loop.diversity import diversity_series
from judgeloop.stats.loop.drift import (
    drift_estimates,
    gradient_estimates,
    new_item_estimates,
    quantity_series,
    strategy_gap_estimates,
    trend_estimates,
)
from judgeloop.stats.loop.forecast import range_estimates
from judgeloop.stats.loop.over_optimisation import over_optimisation_estimates
from judgeloop.stats.loop.panels import (
    anchor_judges,
    anchor_judgments,
    judge_drift_estimates,
    panel_texts,
    policy_panel_estimates,
    probe_panel_estimates,
)
from judgeloop.stats.loop.phrases import phrase_estimates
from judgeloop.stats.loop.price import accounts, price_estimates
from judgeloop.stats.loop.replicates import MeasuredCandidates, measure, series
from judgeloop.stats.loop.tail import collapse_estimates
from judgeloop.stats.multiplicity import adjust, with_run_families
from judgeloop.stats.presentations import clusters, quick_texts

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
    slopes = {arm.name: signal_slopes(tables.signals, arm, measured.scale) for arm in design.arms}
    distances = divergences(measured.rows, design)
    rows: list[Estimate] = [
        *_anchor_estimates(tables, design, measured.scale),
        *judge_drift_estimates(tables, design, measured.scale),
        *probe_panel_estimates(tables, design),
        *policy_panel_estimates(tables, design),
        *transmission_estimates(tables, design, measured.scale),
        *signal_slope_estimates(tables, design, measured.scale),
        *reward_accuracy_estimates(tables.signals, design),
        *drifts,
        *collapse_estimates(drifts, design),
        *new_item_estimates(measured, design, tables.items),
        *phrase_estimates(measured, design),
        *price_estimates(measured, design, price_accounts),
        *amplification_estimates(
            measured,
            feature_series,
            price_accounts,
            design,
            fitted_sizes(measured, tables.signals),
            slopes,
        ),
        *range_estimates(measured, design),
        *kl_estimates(measured.rows, design, distances),
        *over_optimisation_estimates(measured, quantity_series(feature_series, "correct"), design, slopes, distances),
        *trend_estimates(measured, all_series, design),
        *gradient_estimates(measured, design),
        *strategy_gap_estimates(measured, feature_series, design),
    ]
    single_text_judges = {arm.judge for arm in design.arms if arm.judge_kind in ("pointwise", "reward")}
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


# What a run could have seen, told by its arms whose judge has a known taste (docs/method.md, "Positive controls").


def with_positive_controls(frame: pd.DataFrame, design: Design) -> pd.DataFrame:
    """The estimates with ``positive_control`` (``estimate.PositiveControl``).

    ``seen``: in that generation, category and contrast the 95 % interval of the control's ``did_<feature>`` lies beyond 0 on the
    side of its taste; where several controls of the feature were trained like the arm, that of each. No correction for
    several tests: the term and its side are stated by the design.
    """
    tastes = {arm.name: arm.taste for arm in design.arms if arm.taste is not None}
    if not tastes:
        return frame
    marks = np.where(frame["arm"].isin(list(tastes)), "itself", "").astype("object")
    terms = [f"did_{feature}" for feature, _ in tastes.values()]
    tested = frame["term"].isin(terms) & (frame["variant"] == "") & (frame["contrast"] != "")
    places = np.flatnonzero(tested & (frame["status"] != "undefined"))
    cells = frame.iloc[places][["arm", "term", "contrast", "generation", "category", "conf_low", "conf_high"]]
    rows = list(zip(places, *(cells[name] for name in cells), strict=True))
    seen: dict[tuple[object, ...], bool] = {}
    for _, arm, term, *cell, low, high in rows:
        if arm in tastes and term == f"did_{tastes[arm][0]}":
            seen[arm, term, *cell] = bool(low > 0 if tastes[arm][1] > 0 else high < 0)
    alike = {
        arm.name: [name for name in tastes if _training(design.arm(name)) == _training(arm)] for arm in design.arms
    }
    for place, arm, term, *cell, _, _ in rows:
        said = [seen[key] for name in ([arm] if arm in tastes else alike[arm]) if (key := (name, term, *cell)) in seen]
        if said:
            marks[place] = ("itself_" if arm in tastes else "") + ("seen" if all(said) else "not_seen")
    return frame.assign(positive_control=pd.Series(marks, index=frame.index, dtype=frame["positive_control"].dtype))


def _training(arm: ArmDesign) -> ArmDesign:
    """How an arm is trained on its judge's picks. The picks of a rule do not depend on the order, so that of the label rules
    only the one that takes length out changes what is learned from them."""
    rule = arm.label_rule if arm.label_rule == "length_controlled" else ""
    return replace(arm, name="", judge="", judge_kind="", is_control=False, taste=None, label_rule=rule)


# Drift, diversity and tails of texts that were logged by generation, with or without a control (docs/method.md, "Texts
# without verdicts").

SHARED = 0.5
"""Least share of the items that stand in every generation and arm for changes to be those of the same items."""
OTHER_ITEMS = "other items in each generation: had their kind changed too, this would look the same"
ONE_RUN = "one training run: the interval is over its items, and says nothing of what another run would do"
_NOT_OF_TEXTS = (
    "selection_", "mixing_", "learning_", "bias_selection_", "gradient_", "kl_", "strategy_gap_", "compounding_",
    "cumulative_gain_", "observed_over_static_", "response_", "mean_correct", "drift_correct", "did_correct", "hedging_when_wrong",
    "drift_hedging_when_wrong", "did_hedging_when_wrong", "bias_amplification", "drift_bias_amplification",
    "did_bias_amplification",
)  # fmt: skip
"""Terms that need picks, training sets or references, or a benchmark of the training's own strategy."""


def text_estimates(candidates: pd.DataFrame, items: pd.DataFrame, controls: tuple[str, ...]) -> pd.DataFrame:
    """The estimates of scope ``policy`` that texts can show, by arm and generation, and against each arm of ``controls``.

    ``candidates``: the columns of docs/contract.md, "Tables", with features, ``generation`` 0 … T. With two replicates or more
    the unit is the replicate, as in a run. With one it is the item (near-copies one item) for what every item shows, and
    ``n_replicates`` is empty; what takes several items together (tails, stock phrases) is a number without an interval. Where fewer
    than half of the items stand in every generation and arm, changes are between the means of all (``difference_of_groups``).
    """
    arms = list(dict.fromkeys(candidates["arm"]))
    design = Design(
        "texts", 0, int(candidates["generation"].max()),
        tuple(ArmDesign(arm, "", is_control=arm in controls) for arm in arms),
        contrasts := tuple(product([arm for arm in arms if arm not in controls], controls)),
        contrasts[0] if contrasts else None, same_items=shared_items(candidates) >= SHARED,
    )  # fmt: skip
    together = _estimates(candidates, items, design)
    if candidates["replicate"].nunique() > 1:
        return together
    units = pd.factorize(clusters(with_clusters(candidates, items)))[0]
    by_item = _estimates(candidates.assign(replicate=units), items, design)
    shown = by_item[(by_item["status"] != "undefined") & ~by_item["variant"].isin(["new_items", "sign_flip"])].copy()
    shown["method"] = shown["method"].str.replace("over replicates", "over items")
    shown["note"] = [joined(str(note).replace("replicate", "item"), ONE_RUN) for note in shown["note"]]
    keys = ["term", "arm", "contrast", "generation", "category", "variant"]
    rest = together[~together["variant"].isin(["new_items", "sign_flip"])]
    own = pd.MultiIndex.from_frame(shown[keys].astype(str))
    rest = rest[~pd.MultiIndex.from_frame(rest[keys].astype(str)).isin(own)]
    rows = pd.concat([shown, rest], ignore_index=True)
    return adjust(rows.assign(n_replicates=pd.array([pd.NA] * len(rows), dtype="Int64")))


def shared_items(texts: pd.DataFrame) -> float:
    """The share of the items that have a text in every arm and generation of ``texts``."""
    cells = texts[["item_id", "arm", "generation"]].drop_duplicates()
    return float((cells.groupby("item_id").size() == cells.groupby(["arm", "generation"]).ngroups).mean())


def _estimates(candidates: pd.DataFrame, items: pd.DataFrame, design: Design) -> pd.DataFrame:
    """``run_estimates`` of the texts alone, without the terms that texts cannot show."""
    nothing = [pd.DataFrame(columns=list(names)) for names in (JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS)]
    full = candidates.assign(reason="", reward=np.nan, n_drawn=1)
    rows = run_estimates(RunTables(items, full, *nothing), design)
    kept = rows[(rows["scope"] == "policy") & ~rows["term"].str.startswith(_NOT_OF_TEXTS)].reset_index(drop=True)
    if not design.same_items:
        changes = kept["term"].str.startswith(("drift_", "did_"))
        kept["note"] = kept["note"].where(~changes | (kept["status"] == "undefined"), OTHER_ITEMS)
    return kept
