"""Replicate values: one number a replicate, arm and generation for each quantity of the candidates' texts.

``measure`` gives the candidates with their quantities in estimate units, ``series`` the replicate values of each; all run
estimates on the policy start from these. A replicate's value is the mean over items of the item's mean over its candidates, weighted by ``n_drawn`` (or by a
distribution: ``p_selected`` …). Items are a fixed set within a replicate: those that have a candidate in every generation
of every arm, so that no change of a mean is a change of items (but for logs whose generations answer other items each). Failed drafts (no text) and undrawn pool texts are in no
candidate mean.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.estimate import Bias
from judgeloop.stats.items import correct_remark, pooled, why_correct_is_unknown
from judgeloop.text.features import FEATURES, STYLE_FEATURES

CELL = ["replicate", "arm", "generation"]
FEWEST_PAIRED = 5
"""Fewest items a replicate for the change of a paired quantity (see ``Quantity.paired``)."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Quantity:
    """A quantity that has a level in every replicate, arm and generation.

    ``margin``: of equivalence, in ``unit``. ``undefined``: the reason why it has no number, "" where it has one. ``missing``:
    the reason to give where no replicate has a value.
    """

    name: str
    level_term: str
    bias: Bias
    unit: str
    margin: float | None = None
    method: str = ""
    undefined: str = ""
    missing: str = "no candidate to measure"
    note: str = ""
    has_sd: bool = False
    paired: bool = False
    """Whether the items with a value change over time (as wrong answers do); a change is then that of the items which have a
    value in all cells compared."""


class Rows:
    """The rows of a frame (arm, generation) × replicate, as arrays for fast access."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._values = frame.to_numpy(dtype=np.float64)
        self._places = {(str(arm), int(generation)): place for place, (arm, generation) in enumerate(frame.index)}
        self._missing = np.full(self._values.shape[1], np.nan)

    def row(self, arm: str, generation: int) -> NDArray[np.float64]:
        """(replicates,) one number a replicate in the frame's order, NaN where missing; all NaN where the frame lacks the row."""
        place = self._places.get((arm, generation))
        return self._missing if place is None else self._values[place]


@dataclass(frozen=True)
class Series:
    """A quantity's replicate values within a category ("" is all).

    ``values``: (arm, generation) × replicate, NaN where missing; ``spread``: the SD over candidates in the same shape, None
    where it means nothing; ``items``: the items' values of a paired quantity, (arm, generation) × (replicate, item).
    """

    quantity: Quantity
    category: str
    values: pd.DataFrame
    spread: pd.DataFrame | None = None
    items: pd.DataFrame | None = None

    @functools.cached_property
    def _rows(self) -> Rows:
        return Rows(self.values)

    @functools.cached_property
    def _spreads(self) -> Rows:
        return Rows(pd.DataFrame() if self.spread is None else self.spread)

    def levels(self, arm: str, generation: int) -> NDArray[np.float64]:
        """``level`` as (replicates,), NaN where missing."""
        return self._rows.row(arm, generation)

    def spreads(self, arm: str, generation: int) -> NDArray[np.float64]:
        """The SD over candidates as (replicates,), NaN where missing; empty where it means nothing."""
        return self._spreads.row(arm, generation)

    def drifts(self, arm: str, generation: int) -> NDArray[np.float64]:
        """``drift`` as (replicates,), NaN where missing."""
        if self.items is not None:
            return self._item_mean(self.changes((arm, generation), (arm, 0)))
        return unrounded(self.levels(arm, generation) - self.levels(arm, 0))

    def dids(self, arm: str, control: str, generation: int) -> NDArray[np.float64]:
        """``did`` as (replicates,), NaN where missing."""
        if self.items is not None:
            return self._item_mean(self.changes((arm, generation), (arm, 0), (control, generation), (control, 0)))
        return unrounded(self.drifts(arm, generation) - self.drifts(control, generation))

    def level(self, arm: str, generation: int) -> pd.Series[float]:
        """The level by replicate, without missing ones."""
        return self._present(self.levels(arm, generation))

    def drift(self, arm: str, generation: int) -> pd.Series[float]:
        """The change since generation 0, by replicate; positive = more of the quantity than before feedback."""
        return self._present(self.drifts(arm, generation))

    def did(self, arm: str, control: str, generation: int) -> pd.Series[float]:
        """D_t: the arm's drift minus the control arm's, by replicate (docs/method.md, "Drift beyond a control")."""
        return self._present(self.dids(arm, control, generation))

    def _present(self, values: NDArray[np.float64]) -> pd.Series[float]:
        present = ~np.isnan(values)
        return pd.Series(values[present], index=self.values.columns[present], dtype="float64")

    def _item_mean(self, changes: pd.Series[float]) -> NDArray[np.float64]:
        """(replicates,) the mean of ``changes`` over items, NaN where missing."""
        means = snapped(changes.groupby(level="replicate").mean()) if len(changes) else changes
        return np.asarray(means.reindex(self.values.columns), dtype=np.float64)

    def changes(self, *cells: tuple[str, int]) -> pd.Series[float]:
        """First − second (− (third − fourth)) of the cells (arm, generation), by (replicate, item) with a value in all of them.

        Only for replicates with FEWEST_PAIRED such items or more; empty for a quantity that is not paired.
        """
        if self.items is None or not set(cells) <= set(self.items.index):
            return pd.Series(dtype="float64")
        complete = self.items.loc[list(cells)].dropna(axis="columns")
        signs = np.array([1.0, -1.0, -1.0, 1.0][: len(cells)])
        values = pd.Series(signs @ complete.to_numpy(dtype=np.float64), index=complete.columns)
        enough = values.groupby(level="replicate").transform("size") >= FEWEST_PAIRED
        return values[enough]


@dataclass(frozen=True)
class MeasuredCandidates:
    """The candidates with their quantities, and their counts.

    - ``rows``: the candidates of the fixed items that have text, with a column for each quantity in its unit, and the column
      ``group``, the category with rare ones pooled
    - ``scale``: the pooled generation-0 SD of length and the style features, in raw units
    - ``counts``: (category, arm, generation) → (candidates, items, failed drafts)
    - ``left_out``: items, over replicates, without a candidate in some generation
    - ``same_items``: whether generations answer the same items, so that a change is one within replicates
    - ``categories``: those with estimates of their own; ``pooled``: a remark that names what RARE pools
    """

    rows: pd.DataFrame
    quantities: tuple[Quantity, ...]
    scale: dict[str, float]
    counts: Mapping[tuple[str, str, int], tuple[int, int, int]]
    left_out: int
    categories: tuple[str, ...]
    pooled: str = ""
    same_items: bool = True

    def count(self, category: str, arm: str, generation: int) -> tuple[int, int, int]:
        """(candidates, items, failed drafts) over all replicates."""
        return self.counts.get((category, arm, generation), (0, 0, 0))


def measure(tables: RunTables, design: Design) -> MeasuredCandidates:
    """The candidates of the run in estimate units: length in doublings, style features in generation-0 SDs."""
    table = tables.candidates
    if table.empty:
        empty = pd.DataFrame(columns=[*CELL, "item_id", "candidate_id", "category", "group", "n_drawn", *FEATURES])
        return MeasuredCandidates(empty, (), {}, {}, 0, ())
    rows = _of_run(table, design.generations)
    category_of = _categories(tables.items)
    rows["category"] = [category_of.get(str(item_id), "") for item_id in rows["item_id"]]
    groups, remark = pooled({str(item_id): category_of.get(str(item_id), "") for item_id in rows["item_id"].unique()})
    rows["group"] = [groups[str(item_id)] for item_id in rows["item_id"]]
    failed = rows[rows["text"].isna()]
    rows = rows[rows["text"].notna()]
    rows, left_out = _fixed_items(rows) if design.same_items else (rows, 0)
    scale = _units(rows)
    quantities = _add_quantities(rows, scale, design, tables.items)
    names = tuple(sorted(name for name in rows["group"].unique() if name))
    categories = names if len(names) > 1 else ()
    counts = _counts(rows, failed, categories)
    return MeasuredCandidates(
        rows, quantities, scale, counts, left_out, categories, remark, design.same_items
    )  # fmt: skip


def generation_zero_units(candidates: pd.DataFrame) -> dict[str, float]:
    """The SD of each feature at generation 0, 0 for a constant one: ``measure``'s ``scale`` of all generations of a run."""
    rows = _of_run(candidates, int(candidates["generation"].max()))
    return _units(_fixed_items(rows[rows["text"].notna()])[0])


def _of_run(candidates: pd.DataFrame, generations: int) -> pd.DataFrame:
    """The candidates of replicates up to a generation, without those of panels, with numbers as numbers."""
    rows = candidates[candidates["replicate"].notna() & candidates["generation"].le(generations).fillna(False)].copy()
    rows["replicate"] = rows["replicate"].astype("int64")
    rows["generation"] = rows["generation"].astype("int64")
    rows["arm"] = rows["arm"].astype("str")
    rows["n_drawn"] = pd.to_numeric(rows["n_drawn"]).fillna(0.0).astype("float64")
    return rows


def _units(rows: pd.DataFrame) -> dict[str, float]:
    zero = _at_zero(rows)
    return {name: _sd(zero, name) for name in FEATURES if name in rows.columns}


def item_means(rows: pd.DataFrame, columns: Sequence[str], weight: str) -> pd.DataFrame:
    """Weighted means of ``columns`` within (replicate, arm, generation, item_id); NaN where no weight has a value.

    Rows without a value (NaN) or weight do not count. The column ``weight`` has the summed weights.
    """
    index = [*CELL, "item_id"]
    weights = pd.to_numeric(rows[weight]).to_numpy(dtype=np.float64)
    part = rows[weights > 0]
    weights = weights[weights > 0]
    grouper = part.groupby(index, sort=True, observed=True)
    codes = grouper.ngroup().to_numpy()
    keys = part.iloc[np.sort(np.unique(codes, return_index=True)[1])][index].sort_values(index)
    means: dict[str, NDArray[np.float64]] = {}
    means["weight"] = np.asarray(np.bincount(codes, weights=weights, minlength=len(keys)), dtype=np.float64)
    for column in columns:
        values = part[column].to_numpy(dtype=np.float64)
        finite = np.isfinite(values)
        total = np.bincount(codes[finite], weights=weights[finite], minlength=len(keys))
        summed = np.bincount(codes[finite], weights=weights[finite] * values[finite], minlength=len(keys))
        with np.errstate(invalid="ignore", divide="ignore"):
            means[column] = np.asarray(summed / total, dtype=np.float64)
    return pd.DataFrame(means, index=pd.MultiIndex.from_frame(keys))


def replicate_means(means: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over items of ``item_means``, indexed by (replicate, arm, generation)."""
    return means[list(columns)].groupby(level=CELL, sort=True).mean()


def across_replicates(frame: pd.DataFrame, arm: str, generation: int) -> pd.Series[float]:
    """The row (arm, generation) of a frame with a column a replicate: the values by replicate, without missing ones."""
    if (arm, generation) not in frame.index:
        return pd.Series(dtype="float64")
    place = frame.index.get_loc((arm, generation))
    assert isinstance(place, int)
    return frame.iloc[place].dropna()


def unrounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``snapped`` for an array; NaN stays."""
    return np.where(np.abs(values) <= _ROUNDING, 0.0, values)


def snapped(values: pd.Series[float]) -> pd.Series[float]:
    """Differences with pure rounding set to 0 and NaN dropped: equal values must not pass for a tiny, certain change."""
    return values.where(values.abs() > _ROUNDING, 0.0).dropna()


def by_replicate(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of ``replicate_means`` as (arm, generation) × replicate."""
    return frame[column].unstack("replicate")


def series(measured: MeasuredCandidates) -> list[Series]:
    """Every quantity's replicate values, over all items and by category."""
    all_series: list[Series] = []
    names = [quantity.name for quantity in measured.quantities if not quantity.undefined]
    if not names:
        return [Series(quantity, "", pd.DataFrame()) for quantity in measured.quantities]
    squares = {name: f"{name}²" for name in names}
    rows = measured.rows.assign(**{squares[name]: measured.rows[name] ** 2 for name in names})
    means = item_means(rows, [*names, *squares.values()], "n_drawn")
    of_item = dict(zip(rows["item_id"], rows["group"], strict=True))
    for category in ("", *measured.categories):
        chosen = means
        if category:
            chosen = means[means.index.get_level_values("item_id").map(of_item) == category]
        averages = replicate_means(chosen, [*names, *squares.values()])
        for quantity in measured.quantities:
            if quantity.undefined:
                all_series.append(Series(quantity, category, pd.DataFrame()))
                continue
            values = by_replicate(averages, quantity.name)
            spread: pd.DataFrame | None = None
            if quantity.has_sd and not category:
                # Rounding may leave a constant's variance a hair below 0.
                variance = by_replicate(averages, squares[quantity.name]) - values**2
                spread = variance.where(variance > 1e-12 * (1.0 + values**2), 0.0) ** 0.5
                spread = spread.where(values.notna())
            items = chosen[quantity.name].unstack(["replicate", "item_id"]) if quantity.paired else None
            all_series.append(Series(quantity, category, values, spread, items))
    return all_series


def _categories(items: pd.DataFrame) -> dict[str, str]:
    """item_id → category, "" for none."""
    if items.empty or "category" not in items.columns:
        return {}
    return {
        str(item): "" if pd.isna(category) else str(category)
        for item, category in zip(items["item_id"], items["category"], strict=True)
    }


def _fixed_items(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of items that have a candidate in every arm and generation of their replicate, and how many do not."""
    drawn = rows[rows["n_drawn"] > 0][["replicate", "item_id", "arm", "generation"]].drop_duplicates()
    cells = drawn[["replicate", "arm", "generation"]].drop_duplicates().groupby("replicate").size()
    present = drawn.groupby(["replicate", "item_id"]).size()
    needed = cells.reindex(present.index.get_level_values("replicate")).to_numpy()
    complete = present.index[present.to_numpy() == needed]
    all_items = rows[["replicate", "item_id"]].drop_duplicates()
    keep = pd.MultiIndex.from_frame(rows[["replicate", "item_id"]]).isin(complete)
    return rows[keep].copy(), len(all_items) - len(complete)


def _at_zero(rows: pd.DataFrame) -> pd.DataFrame:
    """All replicates' generation-0 candidates that were drawn."""
    return rows[(rows["generation"] == 0) & (rows["n_drawn"] > 0)]


def _sd(zero: pd.DataFrame, name: str) -> float:
    """The SD over the candidates of ``_at_zero``, each counted as often as it was drawn."""
    values, weights = zero[name].to_numpy(dtype=np.float64), zero["n_drawn"].to_numpy(dtype=np.float64)
    finite = np.isfinite(values)
    values, weights = values[finite], weights[finite]
    if len(values) == 0 or float(np.ptp(values)) <= 1e-12 * float(np.max(np.abs(values))):
        return 0.0
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _add_quantities(
    rows: pd.DataFrame, scale: dict[str, float], design: Design, items: pd.DataFrame
) -> tuple[Quantity, ...]:
    """The quantities of the run. Writes a column for each into ``rows``, in its unit."""
    sd, rate = design.margins.sd, design.margins.rate
    later = rows[(rows["generation"] > 0) & (rows["n_drawn"] > 0)]
    quantities = []
    for name in FEATURES:
        unit = "doublings" if name == "length" else "generation-0 sd"
        bias: Bias = "verbosity" if name == "length" else "style"
        why = "" if name in scale else f"the candidates table has no column {name}"
        if name in scale and name != "length":
            why = "" if scale[name] > 0 else _constant(later[name])
            rows[name] = rows[name].astype("float64") / scale[name] if scale[name] > 0 else np.nan
        spread = scale.get(name, 0.0)
        margin = sd if name != "length" else (sd * spread if spread > 0 else None)
        quantities.append(Quantity(name, f"mean_{name}", bias, unit, margin, undefined=why, has_sd=True))
    present = [name for name in STYLE_FEATURES if scale.get(name, 0.0) > 0]
    rows["style_score"] = rows[present].mean(axis="columns", skipna=False) if present else np.nan
    score_sd = _sd(_at_zero(rows), "style_score") if present else 0.0
    quantities.append(
        Quantity(
            "style_score", "mean_style_score", "style", "generation-0 sd", sd * score_sd if score_sd > 0 else None,
            undefined="" if present else "no style feature varies at generation 0",
            note=f"mean of {len(present)} of {len(STYLE_FEATURES)} standardised style features" if present else "",
            has_sd=True,
        )
    )  # fmt: skip
    rows["correct"] = pd.to_numeric(rows["correct"]).astype("float64") if "correct" in rows.columns else np.nan
    unknown, remark = why_correct_is_unknown(rows, items, design), correct_remark(rows, items)
    # A share of 0 in every arm and generation is a fault of the references or of their match, not of the answers.
    matched = bool((rows["correct"] > 0).any())
    unmatched = unknown or ("" if matched else "no answer matched its reference in any arm or generation")
    quantities.append(
        Quantity(
            "correct", "mean_correct", "quality", "probability", rate, undefined=unmatched,
            missing="no candidate of an item with a reference", note="" if unknown else remark,
        )
    )  # fmt: skip
    hedges = scale.get("hedges", 0.0) > 0
    rows["hedging_when_wrong"] = rows["hedges"].where(rows["correct"] == 0.0) if hedges and not unknown else np.nan
    wrong = bool(rows["hedging_when_wrong"].notna().any())
    why = unknown or ("" if hedges else "hedges: no spread at generation 0") or ("" if wrong else "no answer is wrong")
    quantities.append(
        Quantity(
            "hedging_when_wrong", "hedging_when_wrong", "quality", "generation-0 sd", sd, undefined=why,
            missing=f"no wrong answer, or no {FEWEST_PAIRED} items a replicate that are wrong in all that is compared",
            note="; ".join(part for part in ("mean of hedges over wrong answers", "" if unknown else remark) if part),
            paired=True,
        )
    )  # fmt: skip
    return tuple(quantities)


def _constant(later: pd.Series[float]) -> str:
    """The reason why a feature has no unit, and whether it varies ``later``, after generation 0."""
    last = later.astype("float64")
    appears = float(last.max() - last.min()) > 0 if len(last) else False
    return "its standard deviation at generation 0 is 0" + (
        f"; it varies later (up to {last.max():.3g} per 100 tokens)" if appears else ""
    )


def _counts(
    rows: pd.DataFrame, failed: pd.DataFrame, categories: Sequence[str]
) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    """(category, arm, generation) → (candidates, items, failed drafts)."""
    cell = ["arm", "generation"]
    counts: dict[tuple[str, str, int], tuple[int, int, int]] = {}
    for category in ("", *categories):
        part = rows[rows["group"] == category] if category else rows
        lost = failed[failed["group"] == category] if category else failed
        drawn = part[part["n_drawn"] > 0].groupby(cell, observed=True)
        counted = pd.DataFrame(
            {
                "n": drawn["n_drawn"].sum(),
                "n_items": drawn["item_id"].nunique(),
                "failed": lost.groupby(cell, observed=True).size(),
            }
        )
        for arm, generation, *numbers in counted.fillna(0).reset_index().itertuples(index=False, name=None):
            counts[(category, str(arm), int(generation))] = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return counts
