"""From the candidates table to one number a replicate, arm and generation: what all run estimates stand on.

A replicate's value is the mean over items of the item's mean over its candidates, weighted by ``n_drawn`` (or by a
distribution: ``p_selected`` …). Items are a fixed set within a replicate: those that have a candidate in every generation
of every arm, so that no change of a mean is a change of items. Failed drafts (no text) and undrawn pool texts are in no
candidate mean.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import Design, RunTables
from judgeloop.stats.items import correct_remark, pooled, why_correct_is_unknown
from judgeloop.text.features import FEATURES, STYLE_FEATURES

Bias = Literal["position", "verbosity", "style", "self_preference", "quality", "diversity"]

CELL = ["replicate", "arm", "generation"]
FEWEST_PAIRED = 5
"""Items a replicate that the change of a quantity needs that not all items have at all times."""

_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Quantity:
    """Something with a level in every replicate, arm and generation. ``margin`` is for equivalence, in ``unit``.

    ``undefined`` says why it has no number; empty where it has. ``missing`` is what to say where replicates lack it.
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
    """Items come and go (wrong answers do), so a change is that of the items which have a value in all cells compared."""


class Rows:
    """A frame with an index (arm, generation) and a column a replicate, read as arrays: ``row`` is (replicates,), NaN where
    missing."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._values = frame.to_numpy(dtype=np.float64)
        self._places = {(str(arm), int(generation)): place for place, (arm, generation) in enumerate(frame.index)}
        self._nothing = np.full(self._values.shape[1], np.nan)

    def row(self, arm: str, generation: int) -> NDArray[np.float64]:
        """One number a replicate in the frame's order; all NaN where the frame has no such row."""
        place = self._places.get((arm, generation))
        return self._nothing if place is None else self._values[place]


@dataclass(frozen=True)
class Series:
    """A quantity's replicate values within a category ("" is all): ``values`` is indexed by (arm, generation), a column a
    replicate, NaN where missing. ``spread`` holds the SD over candidates likewise (None where that means nothing).
    ``items``: of a paired quantity, the items' values, a column a (replicate, item).
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
        """The SD over candidates as (replicates,), NaN where missing; none where that means nothing."""
        return self._spreads.row(arm, generation)

    def drifts(self, arm: str, generation: int) -> NDArray[np.float64]:
        """``drift`` as (replicates,), NaN where missing."""
        if self.items is not None:
            return self._placed(self.changes((arm, generation), (arm, 0)))
        return unrounded(self.levels(arm, generation) - self.levels(arm, 0))

    def dids(self, arm: str, control: str, generation: int) -> NDArray[np.float64]:
        """``did`` as (replicates,), NaN where missing."""
        if self.items is not None:
            return self._placed(self.changes((arm, generation), (arm, 0), (control, generation), (control, 0)))
        return unrounded(self.drifts(arm, generation) - self.drifts(control, generation))

    def level(self, arm: str, generation: int) -> pd.Series[float]:
        """One number a replicate, those that have it, by replicate."""
        return self._present(self.levels(arm, generation))

    def drift(self, arm: str, generation: int) -> pd.Series[float]:
        """Change since generation 0 within each replicate; positive = more of it than before feedback."""
        return self._present(self.drifts(arm, generation))

    def did(self, arm: str, control: str, generation: int) -> pd.Series[float]:
        """D_t: the arm's drift beyond the control arm's, within each replicate
        (docs/method.md, "Drift beyond a control")."""
        return self._present(self.dids(arm, control, generation))

    def _present(self, values: NDArray[np.float64]) -> pd.Series[float]:
        known = ~np.isnan(values)
        return pd.Series(values[known], index=self.values.columns[known], dtype="float64")

    def _placed(self, changes: pd.Series[float]) -> NDArray[np.float64]:
        return np.asarray(_over_items(changes).reindex(self.values.columns), dtype=np.float64)

    def changes(self, *cells: tuple[str, int]) -> pd.Series[float]:
        """By (replicate, item) with a value in all cells (arm, generation): first − second (− (third − fourth))."""
        if self.items is None or not set(cells) <= set(self.items.index):
            return pd.Series(dtype="float64")
        found = self.items.loc[list(cells)].dropna(axis="columns")
        signs = np.array([1.0, -1.0, -1.0, 1.0][: len(cells)])
        values = pd.Series(signs @ found.to_numpy(dtype=np.float64), index=found.columns)
        enough = values.groupby(level="replicate").transform("size") >= FEWEST_PAIRED
        return values[enough]


@dataclass(frozen=True)
class MeasuredCandidates:
    """The candidates with their quantities, and what was counted on the way.

    ``rows``: the candidates of the fixed items that have text, with a column a quantity in its unit. ``scale``: the
    pooled generation-0 SD of length and the style features, per raw unit. ``counts``: by (category, arm, generation),
    candidates ``n``, ``n_items`` and ``failed`` drafts.
    """

    rows: pd.DataFrame
    quantities: tuple[Quantity, ...]
    scale: dict[str, float]
    counts: Mapping[tuple[str, str, int], tuple[int, int, int]]
    left_out: int
    categories: tuple[str, ...]
    pooled: str = ""
    """Which categories RARE pools; the column ``group`` of the rows has a category's pooled name."""

    def count(self, category: str, arm: str, generation: int) -> tuple[int, int, int]:
        """(candidates, items, failed drafts) over all replicates."""
        return self.counts.get((category, arm, generation), (0, 0, 0))


def measure(tables: RunTables, design: Design) -> MeasuredCandidates:
    """The candidates of the run in estimate units: length in doublings, style features in generation-0 SDs."""
    table = tables.candidates
    if table.empty:
        empty = pd.DataFrame(columns=[*CELL, "item_id", "candidate_id", "category", "group", "n_drawn", *FEATURES])
        return MeasuredCandidates(empty, (), {}, {}, 0, ())
    rows = table[table["replicate"].notna() & table["generation"].le(design.generations).fillna(False)].copy()
    rows["replicate"] = rows["replicate"].astype("int64")
    rows["generation"] = rows["generation"].astype("int64")
    rows["arm"] = rows["arm"].astype("str")
    rows["n_drawn"] = pd.to_numeric(rows["n_drawn"]).fillna(0.0).astype("float64")
    known = _categories(tables.items)
    rows["category"] = [known.get(str(item_id), "") for item_id in rows["item_id"]]
    groups, remark = pooled({str(item_id): known.get(str(item_id), "") for item_id in rows["item_id"].unique()})
    rows["group"] = [groups[str(item_id)] for item_id in rows["item_id"]]
    failed = rows[rows["text"].isna()]
    rows = rows[rows["text"].notna()]
    rows, left_out = _fixed_items(rows)
    scale = {name: _zero_sd(rows, name) for name in FEATURES if name in rows.columns}
    quantities = _add_quantities(rows, scale, design, tables.items)
    named = tuple(sorted(name for name in rows["group"].unique() if name))
    categories = named if len(named) > 1 else ()
    return MeasuredCandidates(rows, quantities, scale, _counts(rows, failed, categories), left_out, categories, remark)


def item_means(rows: pd.DataFrame, columns: Sequence[str], weight: str) -> pd.DataFrame:
    """Weighted means of ``columns`` within (replicate, arm, generation, item_id); NaN where no weight has a value.

    A row without a value (NaN) or without weight takes no part. Also the column ``weight``: the summed weights.
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
        known = np.isfinite(values)
        total = np.bincount(codes[known], weights=weights[known], minlength=len(keys))
        summed = np.bincount(codes[known], weights=weights[known] * values[known], minlength=len(keys))
        with np.errstate(invalid="ignore", divide="ignore"):
            means[column] = np.asarray(summed / total, dtype=np.float64)
    return pd.DataFrame(means, index=pd.MultiIndex.from_frame(keys))


def replicate_means(means: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Means over items of ``item_means``, indexed by (replicate, arm, generation)."""
    return means[list(columns)].groupby(level=CELL, sort=True).mean()


def across_replicates(frame: pd.DataFrame, arm: str, generation: int) -> pd.Series[float]:
    """The row (arm, generation) of a frame with a column a replicate: those that have a value, by replicate."""
    if (arm, generation) not in frame.index:
        return pd.Series(dtype="float64")
    place = frame.index.get_loc((arm, generation))
    assert isinstance(place, int)
    return frame.iloc[place].dropna()


def unrounded(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """``snapped`` of an array; NaN stays."""
    return np.where(np.abs(values) <= _ROUNDING, 0.0, values)


def snapped(values: pd.Series[float]) -> pd.Series[float]:
    """Differences with what is rounding alone set to 0: equal values must not pass for a tiny, certain change."""
    return values.where(values.abs() > _ROUNDING, 0.0).dropna()


def by_replicate(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of ``replicate_means`` as (arm, generation) × replicate."""
    return frame[column].unstack("replicate")


def series(measured: MeasuredCandidates) -> list[Series]:
    """Every quantity's replicate values, over all items and by category."""
    made: list[Series] = []
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
                made.append(Series(quantity, category, pd.DataFrame()))
                continue
            values = by_replicate(averages, quantity.name)
            spread: pd.DataFrame | None = None
            if quantity.has_sd and not category:
                # Rounding may leave a constant's variance a hair below 0.
                variance = by_replicate(averages, squares[quantity.name]) - values**2
                spread = variance.where(variance > 1e-12 * (1.0 + values**2), 0.0) ** 0.5
                spread = spread.where(values.notna())
            items = chosen[quantity.name].unstack(["replicate", "item_id"]) if quantity.paired else None
            made.append(Series(quantity, category, values, spread, items))
    return made


def _over_items(changes: pd.Series[float]) -> pd.Series[float]:
    return snapped(changes.groupby(level="replicate").mean()) if len(changes) else changes


def _categories(items: pd.DataFrame) -> dict[str, str]:
    if items.empty or "category" not in items.columns:
        return {}
    return {str(i): "" if pd.isna(c) else str(c) for i, c in zip(items["item_id"], items["category"], strict=True)}


def _fixed_items(rows: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of items that have a candidate in every arm and generation of their replicate, and how many do not."""
    drawn = rows[rows["n_drawn"] > 0][["replicate", "item_id", "arm", "generation"]].drop_duplicates()
    cells = drawn[["replicate", "arm", "generation"]].drop_duplicates().groupby("replicate").size()
    present = drawn.groupby(["replicate", "item_id"]).size()
    wanted = cells.reindex(present.index.get_level_values("replicate")).to_numpy()
    complete = present.index[present.to_numpy() == wanted]
    everyone = rows[["replicate", "item_id"]].drop_duplicates()
    keep = pd.MultiIndex.from_frame(rows[["replicate", "item_id"]]).isin(complete)
    return rows[keep].copy(), len(everyone) - len(complete)


def _zero_sd(rows: pd.DataFrame, name: str) -> float:
    """The SD over all replicates' generation-0 candidates, each counted as often as it was drawn."""
    zero = rows[(rows["generation"] == 0) & (rows["n_drawn"] > 0)]
    values, weights = zero[name].to_numpy(dtype=np.float64), zero["n_drawn"].to_numpy(dtype=np.float64)
    known = np.isfinite(values)
    values, weights = values[known], weights[known]
    if len(values) == 0 or float(np.ptp(values)) <= 1e-12 * float(np.max(np.abs(values))):
        return 0.0
    mean = np.average(values, weights=weights)
    return float(np.sqrt(np.average((values - mean) ** 2, weights=weights)))


def _add_quantities(
    rows: pd.DataFrame, scale: dict[str, float], design: Design, items: pd.DataFrame
) -> tuple[Quantity, ...]:
    """Write a column a quantity into ``rows``; describe them."""
    sd, rate = design.margins.sd, design.margins.rate
    made = []
    for name in FEATURES:
        unit = "doublings" if name == "length" else "generation-0 sd"
        bias: Bias = "verbosity" if name == "length" else "style"
        why = "" if name in scale else f"the candidates table has no column {name}"
        if name in scale and name != "length":
            why = "" if scale[name] > 0 else _constant(rows, name)
            rows[name] = rows[name].astype("float64") / scale[name] if scale[name] > 0 else np.nan
        spread = scale.get(name, 0.0)
        margin = sd if name != "length" else (sd * spread if spread > 0 else None)
        made.append(Quantity(name, f"mean_{name}", bias, unit, margin, undefined=why, has_sd=True))
    present = [name for name in STYLE_FEATURES if scale.get(name, 0.0) > 0]
    rows["style_score"] = rows[present].mean(axis="columns", skipna=False) if present else np.nan
    score_sd = _zero_sd(rows, "style_score") if present else 0.0
    made.append(
        Quantity(
            "style_score", "mean_style_score", "style", "generation-0 sd", sd * score_sd if score_sd > 0 else None,
            undefined="" if present else "no style feature varies at generation 0",
            note=f"mean of {len(present)} of {len(STYLE_FEATURES)} standardised style features" if present else "",
            has_sd=True,
        )
    )  # fmt: skip
    rows["correct"] = pd.to_numeric(rows["correct"]).astype("float64") if "correct" in rows.columns else np.nan
    unknown, remark = why_correct_is_unknown(rows, items, design), correct_remark(rows, items)
    # A share of 0 in every arm and generation tells of the references or of how they are matched, not of the answers.
    matched = bool((rows["correct"] > 0).any())
    unmatched = unknown or ("" if matched else "no answer matched its reference in any arm or generation")
    made.append(
        Quantity(
            "correct", "mean_correct", "quality", "probability", rate, undefined=unmatched,
            missing="no candidate of an item with a reference", note="" if unknown else remark,
        )
    )  # fmt: skip
    hedges = scale.get("hedges", 0.0) > 0
    rows["hedging_when_wrong"] = rows["hedges"].where(rows["correct"] == 0.0) if hedges and not unknown else np.nan
    wrong = bool(rows["hedging_when_wrong"].notna().any())
    why = unknown or ("" if hedges else "hedges: no spread at generation 0") or ("" if wrong else "no answer is wrong")
    made.append(
        Quantity(
            "hedging_when_wrong", "hedging_when_wrong", "quality", "generation-0 sd", sd, undefined=why,
            missing=f"no wrong answer, or no {FEWEST_PAIRED} items a replicate that are wrong in all that is compared",
            note="; ".join(part for part in ("mean of hedges over wrong answers", "" if unknown else remark) if part),
            paired=True,
        )
    )  # fmt: skip
    return tuple(made)


def _constant(rows: pd.DataFrame, name: str) -> str:
    """Why a feature has no unit, and whether it appears later all the same."""
    last = rows[(rows["generation"] > 0) & (rows["n_drawn"] > 0)][name].astype("float64")
    appears = float(last.max() - last.min()) > 0 if len(last) else False
    return "its standard deviation at generation 0 is 0" + (
        f"; it varies later (up to {last.max():.3g} per 100 tokens)" if appears else ""
    )


def _counts(
    rows: pd.DataFrame, failed: pd.DataFrame, categories: Sequence[str]
) -> dict[tuple[str, str, int], tuple[int, int, int]]:
    cell = ["arm", "generation"]
    made: dict[tuple[str, str, int], tuple[int, int, int]] = {}
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
            made[(category, str(arm), int(generation))] = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
    return made
