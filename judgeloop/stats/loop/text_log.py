"""Drift, diversity and tails of texts that were logged by generation, with or without a control (docs/method.md, "Texts without
verdicts").

The estimators are those of a run. Where the log has one replicate, what a single item can show is estimated by item, each item in
the place of a replicate: the interval is then one over items, holds for this one training run, and says nothing of another.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

from judgeloop.records import JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import joined
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.stats.multiplicity import adjust
from judgeloop.stats.near_copies import with_clusters
from judgeloop.stats.presentations import clusters

SHARED = 0.5
"""Least share of the items that stand in every generation and arm for changes to be those of the same items."""
OTHER_ITEMS = "other items in each generation: had their kind changed too, this would look the same"
ONE_RUN = "one training run: the interval is over its items, and says nothing of what another run would do"
_NOT_OF_TEXTS = (
    "selection_", "mixing_", "learning_", "bias_selection_", "gradient_", "kl_", "strategy_gap_", "compounding_",
    "cumulative_gain_", "observed_over_static_", "mean_correct", "drift_correct", "did_correct", "hedging_when_wrong",
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
