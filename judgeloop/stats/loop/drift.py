"""Drift: how far a quantity of the policy's texts has moved since generation 0. Positive = more of the quantity.

In this order: levels, drift and drift beyond a control arm in every generation (docs/method.md, "Levels and drift"); the path
of the drift over generations and its exact test (docs/method.md, "Does drift compound?"); the selection gradient of each
feature; and drift for other items than the run's. All work with one number a replicate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import BareTest, Estimate, Point, estimate_row, joined, replicate_mean
from judgeloop.stats.inference import Interval, Undefined, fieller, sign_flip, t_interval
from judgeloop.stats.items import RARE, with_clusters
from judgeloop.stats.loop.replicates import CELL, MeasuredCandidates, Series, across_replicates, item_means, snapped
from judgeloop.stats.presentations import clusters
from judgeloop.text.features import FEATURES

CONFIRMATORY = ("did_length", "did_style_score", "did_mattr")
"""The confirmatory family of a run, at its last generation and confirmatory contrast (docs/method.md, "Many tests"). Of a positive
control the drift of its own feature is a family of its own."""


def drift_estimates(measured: MeasuredCandidates, all_series: Iterable[Series], design: Design) -> list[Estimate]:
    """Rows ``mean_``, ``sd_``, ``drift_`` and ``did_`` (levels of diversity under their own name) of every generation.

    Drift and did begin at generation 1: at generation 0 they are 0 by construction.
    """
    rows: list[Estimate] = []
    for series in all_series:
        for arm in design.arms:
            for generation in range(design.generations + 1):
                rows += _arm_rows(measured, series, arm.name, generation)
        for arm_name, control in design.contrasts:
            rows += [_did_row(measured, series, design, arm_name, control, t) for t in range(1, design.generations + 1)]
    return rows


def _arm_rows(measured: MeasuredCandidates, series: Series, arm: str, generation: int) -> list[Estimate]:
    quantity = series.quantity
    n, n_items, failed = measured.count(series.category, arm, generation)
    notes = [quantity.note] if quantity.note else []
    if series.category == RARE:
        notes.append(measured.pooled)
    if failed:
        notes.append(f"{failed} failed drafts are left out")
    if measured.left_out and not series.category:
        notes.append(f"{measured.left_out} items (over replicates) without a candidate in some generation are left out")
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "arm": arm, "generation": generation, "category": series.category,
        "unit": quantity.unit, "n": n, "n_items": n_items,
    }  # fmt: skip
    levels = _present(series.levels(arm, generation))
    rows = [_series_row(quantity.level_term, levels, series, labels, notes, tested=False)]
    if quantity.has_sd and not series.category:
        spreads = _present(series.spreads(arm, generation))
        rows.append(_series_row(f"sd_{quantity.name}", spreads, series, labels, notes, tested=False))
    if generation > 0:
        counts, remarks = _same_items(series, (arm, generation), (arm, 0))
        values = _present(series.drifts(arm, generation))
        term, notes = f"drift_{quantity.name}", [*remarks, *notes]
        groups = _groups(measured, series, (arm, generation), (arm, 0))
        rows.append(_series_row(term, values, series, {**labels, **counts}, notes, tested=True, groups=groups))
    return rows


def _series_row(
    term: str, values: NDArray[np.float64], series: Series, labels: dict[str, Any], notes: list[str], *, tested: bool,
    groups: Interval | Point | Undefined | None = None,
) -> Estimate:  # fmt: skip
    """The row of replicate ``values`` (S,), or of ``groups`` (``_groups``). ``tested`` False: a level, whose distance from 0
    means nothing; it has no p."""
    quantity = series.quantity
    if quantity.undefined:
        return estimate_row(Undefined(quantity.undefined), term=term, n_replicates=0, **labels)
    return estimate_row(
        groups or replicate_mean(values, quantity.missing, tested=tested), margin=quantity.margin, null=0.0 if tested else None,
        drift=True, note=joined(*notes, "" if groups else _missing_remark(len(values), series)), term=term, n_replicates=len(values), **labels,
    )  # fmt: skip


def _did_row(
    measured: MeasuredCandidates, series: Series, design: Design, arm: str, control: str, generation: int
) -> Estimate:
    quantity, term = series.quantity, f"did_{series.quantity.name}"
    last = generation == design.generations
    taste = design.arm(arm).taste
    stated = (taste is not None and taste[0] == series.quantity.name) or (
        (arm, control) == design.confirmatory and term in CONFIRMATORY
    )
    confirmatory = stated and last and not series.category
    labels: dict[str, Any] = {
        "scope": "policy", "bias": quantity.bias, "term": term, "arm": arm, "contrast": control,
        "generation": generation, "category": series.category, "unit": quantity.unit,
        "family": "confirmatory" if confirmatory else "exploratory",
    }  # fmt: skip
    if quantity.undefined:
        return estimate_row(Undefined(quantity.undefined), n_replicates=0, **labels)
    values = _present(series.dids(arm, control, generation))
    item_counts, remarks = _same_items(series, (arm, generation), (arm, 0), (control, generation), (control, 0))
    pools = measured.pooled if series.category == RARE else ""
    _, n_items, _ = measured.count(series.category, arm, generation)
    counts: dict[str, Any] = {"n": len(values), "n_items": n_items, "n_replicates": len(values), **item_counts}
    groups = _groups(measured, series, (arm, generation), (arm, 0), (control, generation), (control, 0))
    return estimate_row(
        groups or replicate_mean(values, quantity.missing), margin=quantity.margin, drift=True,
        note=joined(*remarks, quantity.note, pools, _missing_remark(len(values), series)), **counts, **labels,
    )  # fmt: skip


def _groups(
    measured: MeasuredCandidates, series: Series, *cells: tuple[str, int]
) -> Interval | Point | Undefined | None:
    """First − second (− (third − fourth)) of the cells' means, where generations answer other items each; else None, and for a
    paired quantity."""
    if measured.same_items or series.quantity.paired:
        return None
    return difference_of_groups(np.array([series.levels(arm, generation) for arm, generation in cells]))


def difference_of_groups(values: NDArray[np.float64]) -> Interval | Point | Undefined:
    """The change between the means of cells whose units (replicates, or items) differ in part or wholly.

    ``values`` (c, S): of each cell and unit, NaN where the cell lacks the unit; c is 2 (first − second) or 4 (first − second −
    (third − fourth)). The standard error sums each unit's share in the change over the cells that have it: with the same units in
    all cells it is that of the one-sample t, with none in common that of Welch's. The t has the smallest cell's units − 1
    degrees of freedom, Welch's lower bound. Level in tests/stats/loop/test_drift.py.
    """
    present = ~np.isnan(values)
    sizes = present.sum(axis=1)
    if not sizes.all():
        return Undefined("no text in some generation")
    means = np.nansum(values, axis=1) / sizes
    signs = np.array([1.0, -1.0, -1.0, 1.0][: len(values)])
    change = float(signs @ means)
    if sizes.min() < 2:
        return Point(change, "one replicate has no interval")
    weights = signs / np.sqrt(sizes * (sizes - 1.0))
    shares = weights @ np.where(present, values - means[:, None], 0.0)
    if np.abs(shares).max() <= 1e-12 * max(1.0, float(np.nanmax(np.abs(values)))):
        return Point(change, "all replicates of a generation are equal: without spread there is no interval")
    return t_interval(
        change, float(np.sqrt(shares @ shares)), int(sizes.min()) - 1, method="t over replicates, groups that differ"
    )


def _same_items(series: Series, *cells: tuple[str, int]) -> tuple[dict[str, int], list[str]]:
    """The counts of a paired quantity and the remark that says which items it compares; both empty for other quantities."""
    if not series.quantity.paired or series.quantity.undefined:
        return {}, []
    index = series.changes(*cells).index
    sizes = pd.Series(index.get_level_values("replicate")).value_counts() if len(index) else pd.Series(dtype="int64")
    span = f"{sizes.min()} to {sizes.max()} a replicate" if len(sizes) else "too few"
    where = "at both generations" if len(cells) == 2 else "at both generations in both arms"
    counts = {"n": len(index), "n_items": index.get_level_values("item_id").nunique() if len(index) else 0}
    return counts, [f"the same items, those wrong {where} ({span})"]


def _present(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[~np.isnan(values)]


def _missing_remark(present: int, series: Series) -> str:
    absent = len(series.values.columns) - present
    return f"missing in {absent} of {len(series.values.columns)} replicates" if present and absent > 0 else ""


def quantity_series(all_series: Iterable[Series], name: str, category: str = "") -> Series | None:
    """The series of a quantity in a category ("" is all), None where it was not measured."""
    return next((series for series in all_series if series.quantity.name == name and series.category == category), None)


# The path of the drift beyond the control.

FEWEST_FLIPS, MOST_FLIPS = 6, 20
"""Fewest replicates with which a sign-flip test can reject at 5 %, and most that it enumerates."""

_SUM_TOLERANCE = 1e-6
_WORST_CONDITION = 1e6


def trend_estimates(measured: MeasuredCandidates, all_series: Sequence[Series], design: Design) -> list[Estimate]:
    """``trend_<quantity>`` and ``loop_gain_<quantity>`` of every contrast, and ``did_`` variant ``sign_flip``.

    For each feature, the style score and correctness; the variant for the confirmatory terms at the last generation. A trend
    is in the quantity's unit per generation; a loop gain is a ratio, above 1 where steps grow.
    """
    rows: list[Estimate] = []
    for series in all_series:
        quantity = series.quantity
        if series.category or quantity.undefined:
            continue
        for arm, control in design.contrasts:
            _, n_items, _ = measured.count("", arm, design.generations)
            labels: dict[str, Any] = {
                "scope": "policy", "bias": quantity.bias, "arm": arm, "contrast": control, "n_items": n_items,
            }  # fmt: skip
            if quantity.has_sd or quantity.name == "correct":
                path = pd.DataFrame({t: series.did(arm, control, t) for t in range(1, design.generations + 1)}).dropna()
                rows += _path_rows(path.to_numpy(dtype=np.float64), quantity.name, quantity.unit, labels)
            if f"did_{quantity.name}" in CONFIRMATORY:
                rows += _sign_flip_rows(series, arm, control, design.generations, labels)
    return rows


def _path_rows(path: NDArray[np.float64], name: str, unit: str, labels: dict[str, Any]) -> list[Estimate]:
    """Trend and loop gain of ``path`` (replicates, T): D_1 … D_T, with D_0 = 0. Nothing for T = 1."""
    steps = path.shape[1]
    if steps < 2:
        return []
    counts: dict[str, Any] = {"n": len(path), "n_replicates": len(path), **labels}
    times = np.arange(steps + 1) - steps / 2
    slopes = snapped(pd.Series(path @ times[1:] / float(times @ times), dtype="float64"))
    trend = estimate_row(
        replicate_mean(slopes), term=f"trend_{name}", unit=unit, family="exploratory", **counts,
    )  # fmt: skip
    # The ratio of summed increments: increments on increments, least squares, are attenuated by their noise.
    gain = fieller(path[:, -1] - path[:, 0], path[:, -2], null=1.0) if len(path) else Undefined("no replicate")
    if isinstance(gain, Interval):
        gain = replace(gain, p_value=None, method="Fieller t over replicates")
    elif len(path) > 1:
        gain = Undefined(f"the 95 % interval of D_{steps - 1} covers 0, so a ratio to it means nothing")
    return [trend, estimate_row(gain, null=None, term=f"loop_gain_{name}", unit="ratio", **counts)]


def _sign_flip_rows(series: Series, arm: str, control: str, generation: int, labels: dict[str, Any]) -> list[Estimate]:
    values = series.did(arm, control, generation)
    if not FEWEST_FLIPS <= len(values) <= MOST_FLIPS:
        return []
    return [
        estimate_row(
            BareTest(float(values.mean()), sign_flip(values.to_numpy()), "exact sign flips over replicates"),
            term=f"did_{series.quantity.name}", variant="sign_flip", generation=generation, unit=series.quantity.unit,
            n=len(values), n_replicates=len(values), note="assumes that differences are symmetric, not that they are normal", **labels,
        )
    ]  # fmt: skip


# What the picks select directly.


def gradient_estimates(measured: MeasuredCandidates, design: Design) -> list[Estimate]:
    """``gradient_<feature>``: Lande & Arnold's (1983) Σ⁻¹S of each arm's picks, t = 0 … T − 1, in relative fitness per unit.

    Positive = the feature itself is selected for, with the others held. S: mean over items of the selection's feature means
    minus the candidates'. Σ: the candidates' covariance within items, over the same items. Only for features that vary at
    generation 0; a replicate whose features are (nearly) collinear has none.
    """
    names = [name for name in FEATURES if measured.scale.get(name, 0.0) > 0]
    if not names or measured.rows.empty or "p_selected" not in measured.rows.columns:
        return []
    gradients: dict[tuple[int, str, int], NDArray[np.float64]] = {}
    for _, cell in measured.rows.groupby(CELL, sort=True, observed=True):
        replicate, t = int(cell["replicate"].iloc[0]), int(cell["generation"].iloc[0])
        value = _gradient(cell, names) if t < design.generations else None
        if value is not None:
            gradients[replicate, str(cell["arm"].iloc[0]), t] = value
    rows = []
    keys = pd.MultiIndex.from_tuples(list(gradients), names=CELL) if gradients else None
    table = pd.DataFrame(list(gradients.values()), index=keys, columns=names) if gradients else None
    for quantity in measured.quantities:
        if quantity.name not in names:
            continue
        wide = table[quantity.name].unstack("replicate") if table is not None else pd.DataFrame()
        for arm in design.arms:
            for t in range(design.generations):
                n, n_items, _ = measured.count("", arm.name, t)
                values = across_replicates(wide, arm.name, t)
                result = replicate_mean(
                    values, "no replicate has a complete selection and features that are not collinear"
                )
                rows.append(
                    estimate_row(
                        result, scope="policy", bias=quantity.bias, term=f"gradient_{quantity.name}", arm=arm.name,
                        generation=t, n=n, n_items=n_items, n_replicates=len(values), unit="per unit of the feature",
                        family="exploratory",
                    )
                )  # fmt: skip
    return rows


def _gradient(cell: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64] | None:
    """(features,) Σ⁻¹S of the candidates of one replicate, arm and generation; None where it has none."""
    _, items = np.unique(cell["item_id"].astype(str).to_numpy(), return_inverse=True)
    x = cell[list(names)].to_numpy(dtype=np.float64)
    drawn = cell["n_drawn"].to_numpy(dtype=np.float64)
    selected = pd.to_numeric(cell["p_selected"]).fillna(0.0).to_numpy(dtype=np.float64)
    if np.any(np.abs(np.bincount(items, weights=selected) - 1.0) > _SUM_TOLERANCE):
        return None
    drawn = drawn / np.bincount(items, weights=drawn)[items]
    means = np.stack([np.bincount(items, weights=drawn * column) for column in x.T], axis=1)
    rest = x - means[items]
    n_items = len(means)
    covariance = (drawn[:, None] * rest).T @ rest / n_items
    if not np.all(np.isfinite(covariance)) or np.linalg.cond(covariance) > _WORST_CONDITION:
        return None
    return np.asarray(np.linalg.solve(covariance, selected @ rest / n_items), dtype=np.float64)


# Drift beyond the control for other items than the run's: variant ``new_items``.

NEW_ITEM_QUANTITIES = ("length", "style_score", "correct")
DRAWS = 4_000
FEWEST = 5
"""Fewest items and fewest replicates for a statement about other items."""


def new_item_estimates(measured: MeasuredCandidates, design: Design, items: pd.DataFrame) -> list[Estimate]:
    """``did_<quantity>``, variant ``new_items``, at the last generation: a row a contrast and quantity of NEW_ITEM_QUANTITIES.

    ``items``: the table items, whose near-copies (``near_copies``) are resampled as one item.
    """
    quantities = [
        quantity for quantity in measured.quantities if quantity.name in NEW_ITEM_QUANTITIES and not quantity.undefined
    ]
    if not quantities or design.generations < 1:
        return []
    means = item_means(measured.rows, [quantity.name for quantity in quantities], "n_drawn")
    rows = []
    for arm, control in design.contrasts:
        for quantity in quantities:
            wide = _item_dids(means[quantity.name], arm, control, design.generations)
            copies = pd.factorize(clusters(with_clusters(pd.DataFrame({"item_id": wide.columns}), items)))[0]
            table = wide.to_numpy(dtype=np.float64)
            result = over_both(table, copies, seeds.rng(design.seed, "new items", arm, control, quantity.name))
            rows.append(estimate_row(
                result, note="for other items, drawn in the same way as these", scope="policy", bias=quantity.bias,
                term=f"did_{quantity.name}", arm=arm, contrast=control, generation=design.generations,
                variant="new_items", unit=quantity.unit, n=table.shape[0], n_items=len(np.unique(copies)),
                n_replicates=table.shape[0],
            ))  # fmt: skip
    return rows


def over_both(
    table: NDArray[np.float64], copies: NDArray[np.intp], generator: np.random.Generator
) -> Interval | Undefined:
    """The mean of ``table`` (replicates, items), NaN where missing, with the pigeonhole bootstrap's standard error.

    Replicates and items, of these ``copies`` (items,) with one code together, are resampled independently of each other (Owen
    2007). The t has as many degrees of freedom as there are of the fewer of both, minus 1. Undefined for fewer than FEWEST
    replicates or items, or where none differs.
    """
    together = np.equal.outer(copies, np.unique(copies)).astype(np.float64)
    finite = np.isfinite(table)
    present, filled = finite @ together, np.where(finite, table, 0.0) @ together
    replicates, items = filled.shape
    if min(replicates, items) < FEWEST:
        return Undefined(
            f"{replicates} replicates and {items} items; a statement on other items needs {FEWEST} of each"
        )
    by_replicate = generator.multinomial(replicates, np.full(replicates, 1 / replicates), size=DRAWS)
    by_item = generator.multinomial(items, np.full(items, 1 / items), size=DRAWS)
    total = np.sum((by_replicate @ filled) * by_item, axis=1)
    weight = np.sum((by_replicate @ present) * by_item, axis=1)
    error = float(np.std(total[weight > 0] / weight[weight > 0], ddof=1))
    if error == 0:
        return Undefined("no replicate and no item differs")
    df = min(replicates, items) - 1
    return t_interval(float(filled.sum() / present.sum()), error, df, method="pigeonhole bootstrap, replicates × items")


def _item_dids(means: pd.Series[float], arm: str, control: str, generation: int) -> pd.DataFrame:
    """Drift in ``arm`` minus that in ``control``, a row a replicate and a column an item; empty where a cell is missing."""
    wide = means.unstack(["arm", "generation"])
    cells = [(arm, generation), (arm, 0), (control, generation), (control, 0)]
    if any(cell not in wide.columns for cell in cells):
        return pd.DataFrame()
    arm_end, arm_start, control_end, control_start = (wide[cell] for cell in cells)
    return ((arm_end - arm_start) - (control_end - control_start)).unstack("item_id")


# The strategy gap: data strategies compared at equal generations and at equal training tokens.

QUANTITIES = ("length", "style_score")


def strategy_gap_estimates(
    measured: MeasuredCandidates, all_series: Iterable[Series], design: Design
) -> list[Estimate]:
    """Rows ``training_tokens`` (cumulative, a generation), ``drift_<quantity>`` (variant ``equal_tokens``) and
    ``strategy_gap_<quantity>`` (variants "" at the last generation, ``equal_tokens``), contrast = the first of ``strategy_arms``.

    Gaps and drifts are in the quantity's unit. Nothing where no two arms differ in their strategy alone.
    """
    arms = strategy_arms(design)
    if not arms or not len(measured.rows):
        return []
    trained = training_tokens(measured.rows, arms)
    measured_series = list(all_series)
    rows: list[Estimate] = []
    for arm in arms:
        for generation in range(1, design.generations + 1):
            values = across_replicates(trained, arm.name, generation)
            result = replicate_mean(values, "no replicate recorded its training set completely", tested=False)
            rows.append(
                estimate_row(
                    result, null=None, scope="policy", bias="verbosity", term="training_tokens", arm=arm.name,
                    generation=generation, n=len(values), n_replicates=len(values), unit="tokens",
                )
            )  # fmt: skip
    for name in QUANTITIES:
        series = quantity_series(measured_series, name)
        if series is not None and not series.quantity.undefined:
            rows += _gap_rows(series, arms, trained, design.generations)
    return rows


def strategy_arms(design: Design) -> tuple[ArmDesign, ...]:
    """The first arm (no control) from which others differ in strategy or real share alone, and those others; () if none."""
    judged = [arm for arm in design.arms if not arm.is_control]
    for first in judged:
        alike = [arm for arm in judged if _without_strategy(arm) == _without_strategy(first)]
        if len({(arm.strategy, arm.real_fraction) for arm in alike}) > 1:
            return tuple(alike)
    return ()


def training_tokens(rows: pd.DataFrame, arms: Sequence[ArmDesign]) -> pd.DataFrame:
    """Tokens trained on before each generation's candidates were drafted: (arm, generation) × replicate, from generation 1.

    A training set has as many texts as were drafted in the generation (K an item); with ``accumulate`` t + 2 times as many, for
    generation 0's candidates are in it, and t + 1 times where a model is trained on preferences, which these are not.
    Tokens are expected ones under ``p_training``. NaN where some item's distribution does not sum to 1.
    """
    if "p_training" not in rows.columns:
        return pd.DataFrame()
    part = rows[rows["arm"].isin([arm.name for arm in arms])]
    mass = pd.to_numeric(part["p_training"]).fillna(0.0).to_numpy(dtype=np.float64)
    length = part["length"].to_numpy(dtype=np.float64)
    tokens = np.where(mass > 0, mass * np.exp2(length), 0.0)
    summed = part[[*CELL, "item_id", "n_drawn"]].assign(mass=mass, tokens=tokens)
    items = summed.groupby([*CELL, "item_id"], sort=True, observed=True)[["n_drawn", "mass", "tokens"]].sum()
    items = items[items["mass"].groupby(level=CELL).transform("max") > 0]
    if items.empty:  # generation 0 alone: nothing is trained on yet
        return pd.DataFrame()
    items["tokens"] = (items["tokens"] * items["n_drawn"]).where((items["mass"] - 1.0).abs() <= _SUM_TOLERANCE)
    step = (
        items["tokens"].groupby(level=CELL).agg(lambda values: values.sum(skipna=False)).rename("tokens").reset_index()
    )
    sets = {arm.name: 1 if arm.is_trained else 2 for arm in arms if arm.strategy == "accumulate"}
    more = step["arm"].map(sets)
    step["tokens"] *= np.where(more.isna(), 1, step["generation"] + more)
    step = step.sort_values(["replicate", "arm", "generation"])
    step["tokens"] = step.groupby(["replicate", "arm"])["tokens"].transform(lambda values: values.cumsum(skipna=False))
    step["generation"] += 1
    return step.pivot(index=["arm", "generation"], columns="replicate", values="tokens")


def at_tokens(drifts: Sequence[float], tokens: Sequence[float], budget: float) -> float:
    """The drift after ``budget`` tokens, linear between generations; both lists begin at generation 0 with 0.

    NaN beyond the last generation, or where a number is missing.
    """
    if not np.all(np.isfinite([*drifts, *tokens, budget])) or budget > tokens[-1] * (1 + 1e-12):
        return float("nan")
    return float(np.interp(budget, tokens, drifts))


def _without_strategy(arm: ArmDesign) -> tuple[str, ...]:
    """All of an arm's design but its strategy and real share."""
    return (arm.judge, arm.judge_kind, arm.policy_kind, arm.label_rule, arm.update, arm.reference, arm.settings)


def _gap_rows(series: Series, arms: Sequence[ArmDesign], trained: pd.DataFrame, last: int) -> list[Estimate]:
    """The rows of one quantity. The token budget of a replicate is the least that any of the arms trained on."""
    budgets = (
        pd.DataFrame({arm.name: across_replicates(trained, arm.name, last) for arm in arms})
        .min(axis=1, skipna=False)
        .dropna()
    )
    at_budget = {arm.name: _at_budget(series, arm.name, trained, budgets, last) for arm in arms}
    first = arms[0]
    quantity = series.quantity
    shared: dict[str, Any] = {"scope": "policy", "bias": quantity.bias, "unit": quantity.unit}
    note = f"after {budgets.mean():,.0f} training tokens" if len(budgets) else ""
    missing = "no replicate recorded its training sets completely"
    rows = []
    for arm in arms:
        values = at_budget[arm.name]
        rows.append(_gap_row(f"drift_{quantity.name}", arm.name, "", values, missing, note, shared))
        if (arm.strategy, arm.real_fraction) == (first.strategy, first.real_fraction):
            continue
        last_gap = snapped((series.drift(arm.name, last) - series.drift(first.name, last)).dropna())
        term = f"strategy_gap_{quantity.name}"
        rows.append(
            _gap_row(term, arm.name, first.name, last_gap, "no replicate has both", f"at generation {last}", shared, "")
        )
        budget_gap = snapped((values - at_budget[first.name]).dropna())
        rows.append(_gap_row(term, arm.name, first.name, budget_gap, missing, note, shared))
    return rows


def _at_budget(
    series: Series, arm: str, trained: pd.DataFrame, budgets: pd.Series[float], last: int
) -> pd.Series[float]:
    """By replicate: the arm's drift after the ``budgets`` of training tokens."""
    drifts = {g: series.drift(arm, g) for g in range(1, last + 1)}
    tokens = {g: across_replicates(trained, arm, g) for g in range(1, last + 1)}
    by_replicate = {
        replicate: at_tokens(
            [0.0, *(drifts[g].get(replicate, np.nan) for g in drifts)],
            [0.0, *(tokens[g].get(replicate, np.nan) for g in tokens)],
            float(budget),
        )
        for replicate, budget in budgets.items()
    }
    return pd.Series(by_replicate, dtype="float64").dropna()


def _gap_row(
    term: str, arm: str, contrast: str, values: pd.Series[float], missing: str, note: str, shared: dict[str, Any],
    variant: str = "equal_tokens",
) -> Estimate:  # fmt: skip
    result = replicate_mean(values, missing)
    return estimate_row(
        result, note=note if isinstance(result, Interval) else "", term=term, arm=arm, contrast=contrast,
        variant=variant, n=len(values), n_replicates=len(values), **shared,
    )  # fmt: skip
