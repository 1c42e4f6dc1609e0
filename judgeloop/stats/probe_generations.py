"""The probe panel of a run: what each edit is worth to each judge in every generation, and whether that changed."""

from __future__ import annotations

import pandas as pd

from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, bounded_mean
from judgeloop.stats.judge.probes import bias_of, edited_picked, probe_estimates
from judgeloop.stats.presentations import first_picked, not_identical, only_identical, unscored
from judgeloop.stats.rows import PROBABILITY, Bias, Counts, Labels, row

_PAIR = ["item_id", "pair_id"]


def probe_panel_estimates(tables: RunTables, design: Design) -> list[Estimate]:
    """Rows ``<probe>_probe`` and ``identical_pair_excess`` of every judge and generation on panel ``probe``, and
    ``judge_drift_`` of each (positive = more than at generation 0)."""
    table = tables.judgments
    if table.empty or "probe" not in table:
        return []
    table = table[table["panel"] == "probe"]
    rows: list[Estimate] = []
    for judge, of_judge in table.groupby("judge", sort=False):
        turns = {
            generation: of_judge[of_judge["generation"] == generation].sort_values([*_PAIR, "order", "repeat"])
            for generation in range(design.generations + 1)
        }
        for generation, judgments in turns.items():
            levels = probe_estimates(judgments, judge=str(judge), generation=generation, margin=design.margins.rate)
            rows += levels
            if generation:
                labels = Labels(str(judge), "", generation, "probe")
                rows += _drift(labels, turns[0], judgments, design.margins.rate)
    return rows


def _drift(labels: Labels, base: pd.DataFrame, later: pd.DataFrame, margin: float) -> list[Estimate]:
    rows, different, after = [], not_identical(base), not_identical(later)
    for name in sorted(different["probe"].dropna().unique()):
        some = after[after["probe"] == name]
        before = different[different["probe"] == name]
        change = _edited(some) - _edited(before)
        # Which text won and which slot: the same in both only where the same verdicts were given in both orders.
        moved = pd.concat([change, _first_slot(some) - _first_slot(before)])
        rows.append(_change(labels, bias_of(str(name)), f"{name}_probe", change, moved, unscored(some), margin))
    same = only_identical(base), only_identical(later)
    if len(same[0]):
        change = _first_slot(same[1]) - _first_slot(same[0])
        rows.append(_change(labels, "position", "identical_pair_excess", change, change, unscored(same[1]), margin))
    return rows


def _change(
    labels: Labels, bias: Bias, term: str, change: pd.Series[float], moved: pd.Series[float], lost: int, margin: float
) -> Estimate:
    change = change.dropna()
    items = change.index.get_level_values("item_id")
    result: Interval | Undefined = Undefined("no probe pair has a verdict in both orders in both generations")
    if len(change):
        result = bounded_mean(change.to_numpy(), items.to_numpy(), -1.0, 1.0)
    same = len(change) > 0 and bool((moved.dropna() == 0).all())
    counts = Counts(len(change), items.nunique(), lost)
    return row(labels, bias, f"judge_drift_{term}", result, counts, unit=PROBABILITY, margin=margin, unchanged=same)


def _edited(judgments: pd.DataFrame) -> pd.Series[float]:
    """(item_id, pair_id) → how often the edit was picked beyond half, of pairs complete in both orders."""
    found = edited_picked(judgments).rename(columns={"item": "item_id"})
    return found.set_index(_PAIR)["edited"]


def _first_slot(judgments: pd.DataFrame) -> pd.Series[float]:
    """(item_id, pair_id) → how often the first of two identical texts was picked beyond half."""
    picked = judgments.assign(picked=first_picked(judgments) - 0.5)
    return picked.groupby(_PAIR)["picked"].mean()
