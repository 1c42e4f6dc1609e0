"""Counterfactual probes: an original against its own edit, content fixed (docs/method.md, "Probes").

They are the strongest evidence on verbosity and style, as they need no gold. τ = P(edited text picked) − ½ per pair
with both orders complete, so that position cancels; positive = the edited text is picked. Most edits also add or cut
words: variant ``beyond_length`` is τ minus what padding of the same length is worth to the judge.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from judgeloop import kernels
from judgeloop.stats.estimate import PROBABILITY, RATE_MARGIN, Bias, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import LEVEL, Interval, Undefined, bounded_mean, cluster_mean, quantile, t_interval
from judgeloop.stats.judge.missing import WORST_CASES, with_claims_withheld
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.presentations import Floats, clusters, not_identical, only_identical, pair_codes, pairs, unscored

BEYOND_LENGTH = "beyond_length"
"""The variant of a probe: its effect minus that of padding of the same length."""
_BEYOND_LENGTH_METHOD = "less the padding curve at the edit's own length, jackknife t by item"
_ROUNDING = 1e-9
"""Effects and errors smaller than this are rounding."""
_PADDING = "padding"
_VERBOSITY = ("padding", "model_padding", "whitespace")
_SELF_PREFERENCE = ("self_name",)


def probe_estimates(
    judgments: pd.DataFrame,
    *,
    judge: str = "",
    arm: str = "",
    generation: int | None = None,
    panel: str = "probe",
    category: str = "",
    margin: float = RATE_MARGIN,
) -> list[Estimate]:
    """``<probe>_probe`` of one judge, a row a probe, and a variant a dose where a probe has several.

    ``judgments``: the columns of docs/contract.md, "Tables", with ``probe`` (padding, bold, hedges …), ``dose``, the
    length ratio that padded texts were to reach (NaN for others), and optionally ``dose_reached``, the one they did
    reach; candidate b of a pair is the edit, candidate a its original. The primary pools the doses (probability).
    Variant ``slope`` is the effect per doubling, least squares through the origin on the log2 of the dose reached (the
    nominal one where that is not known). Variant ``beyond_length`` of every probe but padding: the effect minus that of
    padding of the same length. Pairs of identical texts give ``identical_pair_excess``. The other arguments are the
    rows' labels.
    """
    if judgments.empty:
        return []
    labels = RowLabels(judge, arm, generation, panel, category)
    rows: list[Estimate] = []
    probes = {str(name): group for name, group in not_identical(judgments).groupby("probe", sort=True)}
    pairs_of = {name: edited_picked(group) for name, group in probes.items()}
    for name, group in probes.items():
        rows += _probe_rows(labels, name, group, pairs_of[name], margin)
        if name != _PADDING and _PADDING in pairs_of:
            rows += _beyond_length_rows(labels, name, pairs_of[_PADDING], pairs_of[name], unscored(group), margin)
    identical = only_identical(judgments)
    if len(identical):
        position = position_estimates(
            identical, judge=judge, arm=arm, generation=generation, panel=panel, category=category, margin=margin
        )
        rows += [estimate for estimate in position if estimate.term == "identical_pair_excess"]
    return with_claims_withheld(rows)


def bias_of(probe: str) -> Bias:
    """The kind of bias that a probe shows."""
    return "verbosity" if probe in _VERBOSITY else "self_preference" if probe in _SELF_PREFERENCE else "style"


def edited_picked(judgments: pd.DataFrame, unscored_as: float | None = None) -> pd.DataFrame:
    """A row a probe pair with both orders complete, from one probe's judgments of different texts. ``unscored_as``: the
    probability of the edit with which unscored judgments count; without it, their pairs are left out.

    Columns ``item`` (its item_id), ``pair_id``, ``edited`` in [−½, ½] (positive = the edit is picked), ``as_first`` and
    ``as_second`` (how often it is picked in each slot, in [0, 1]), ``dose`` and ``reached`` (NaN where there is none),
    ``ratio`` (tokens per token of the original, NaN unknown).
    """
    table = pairs(judgments, None if unscored_as is None else (1.0 - unscored_as, unscored_as))
    # The index of pairs() is the code of pair_codes.
    codes = pair_codes(judgments)
    first = judgments.assign(code=codes).drop_duplicates("code").set_index("code").reindex(table.index)
    complete = (table["n_ab"] > 0) & (table["n_ba"] > 0)
    nominal = _column(first, "dose")
    ratio = _column(first, "dose_reached")
    reached = ratio.where(nominal.notna())
    rows = pd.DataFrame({
        "item": clusters(first), "pair_id": first["pair_id"], "edited": ((1.0 - table["ab"]) + table["ba"]) / 2.0 - 0.5,
        "as_first": table["ba"], "as_second": 1.0 - table["ab"],
        "dose": nominal, "reached": reached.where(reached.notna(), nominal), "ratio": ratio.where(ratio.notna(), nominal),
    })  # fmt: skip
    return rows[complete].reset_index(drop=True)


def _column(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as numbers; NaN where the frame has none of that name."""
    return frame[column].astype("float64") if column in frame else pd.Series(np.nan, index=frame.index)


def _probe_rows(
    labels: RowLabels, name: str, judgments: pd.DataFrame, probe_pairs: pd.DataFrame, margin: float
) -> list[Estimate]:
    """The primary row of a probe, and where it has doses a row a dose and the ``slope``."""
    bias, term = bias_of(name), f"{name}_probe"
    counts = SampleCounts(len(probe_pairs), probe_pairs["item"].nunique(), unscored(judgments))
    primary = row(labels, bias, term, _mean_effect(probe_pairs), counts, unit=PROBABILITY, margin=margin)
    if primary.verdict == "none" and differs_by_text(probe_pairs, margin):
        primary = replace(primary, verdict="not_linear")
    rows = [primary]
    for variant, value in zip(WORST_CASES, (0.0, 1.0), strict=True) if counts.unscored else ():
        every = edited_picked(judgments, value)
        rows.append(row(
            labels, bias, term, _mean_effect(every), SampleCounts(len(every), every["item"].nunique(), counts.unscored),
            unit=PROBABILITY, variant=variant, null=None,
            note=f"every unscored judgment counted as a pick of the {'edit' if value else 'original'}",
        ))  # fmt: skip
    doses = _column(judgments, "dose")
    for dose in sorted(doses.dropna().unique()):
        dose_pairs, dose_judgments = probe_pairs[probe_pairs["dose"] == dose], judgments[doses == dose]
        dose_counts = SampleCounts(len(dose_pairs), dose_pairs["item"].nunique(), unscored(dose_judgments))
        reached = dose_pairs["reached"]
        note = f"reached {reached.mean():.2f} on average" if len(dose_pairs) and (reached != dose).any() else ""
        rows.append(row(
            labels, bias, term, _mean_effect(dose_pairs), dose_counts, unit=PROBABILITY, variant=f"{dose:g}",
            margin=margin, note=note,
        ))  # fmt: skip
    if doses.notna().any():
        slope, unit = _dose_slope(probe_pairs), f"{PROBABILITY} per doubling"
        rows.append(row(labels, bias, term, slope, counts, unit=unit, variant="slope"))
    return rows


def _mean_effect(frame: pd.DataFrame) -> Interval | Undefined:
    """τ over the pairs, as probability."""
    if frame.empty:
        return Undefined("no probe pair has a verdict in both orders")
    return bounded_mean(frame["edited"].to_numpy(), frame["item"].to_numpy(), -0.5, 0.5)


def differs_by_text(frame: pd.DataFrame, margin: float) -> bool:
    """Whether an edit with no effect on average moves the picks on single pairs: E τ² > ``margin``², one-sided t by item at 5 %.

    A pair's two calls both go with the edit, or both against it, more often than two coins: their product, each less ½, is
    τ² on average where the calls are independent given the pair, and less where they follow a slot. So it is of a taste for one
    length, which prefers the padded copy of a short text and the original of a long one.
    """
    product = ((frame["as_first"] - 0.5) * (frame["as_second"] - 0.5)).to_numpy(dtype=np.float64)
    squared = cluster_mean(product, frame["item"].to_numpy())
    if isinstance(squared, Undefined):
        return False
    return squared.estimate - quantile(0.95, squared.df) * squared.std_error > margin**2


def _dose_slope(frame: pd.DataFrame) -> Interval | Undefined:
    """τ per doubling of the length reached, least squares through the origin (probability per doubling)."""
    frame = frame[frame["reached"] > 0]
    doubling, edited = np.log2(frame["reached"].to_numpy(dtype=np.float64)), frame["edited"].to_numpy()
    if frame["item"].nunique() < 2 or not np.any(doubling != 0):
        return Undefined("a slope needs 2 or more items with a dose other than 1")
    total = float(np.sum(doubling**2))
    slope = float(np.sum(doubling * edited)) / total
    codes = pd.factorize(frame["item"])[0]
    sums = np.bincount(codes, weights=doubling * (edited - slope * doubling) / total)
    groups, method = len(sums), "least squares through the origin, cluster t by item"
    if np.all(np.abs(sums) < 1e-13):
        # No spread: Wilson's bound of the share of items that may differ, at the steepest slope that these doses allow.
        share = bounded_mean(np.zeros(groups), np.arange(groups), 0.0, 1.0)
        assert isinstance(share, Interval)
        steepest = 0.5 * float(np.sum(np.abs(doubling))) / total
        low, high = slope - share.high * (slope + steepest), slope + share.high * (steepest - slope)
        p_value = 1.0 if slope == 0 else min(1.0, 2.0 * 0.5**groups)
        return Interval(slope, 0.0, low, high, LEVEL, p_value, None, "no spread: Wilson bound, n = items")
    leverage = np.bincount(codes, weights=doubling**2) / total
    try:
        df = float(kernels.satterthwaite_df(leverage[:, None, None], np.ones((1, 1)))[0])
    except ValueError:
        return Undefined("a slope needs 2 or more items with a dose other than 1")
    # One column: CR2 divides an item's residuals by the root of what it leaves to the others.
    se = float(np.sqrt(np.sum(sums**2 / (1.0 - leverage))))
    return t_interval(slope, se, df, method=f"{method} (CR2)")


def _beyond_length_rows(
    labels: RowLabels, name: str, padding: pd.DataFrame, probe_pairs: pd.DataFrame, lost: int, margin: float
) -> list[Estimate]:
    """Variant ``beyond_length`` of a probe; no row where no text's length changed or no length is known."""
    if not (probe_pairs["ratio"] != 1.0).where(probe_pairs["ratio"].notna(), False).any():
        return []
    counts = SampleCounts(len(probe_pairs), probe_pairs["item"].nunique(), lost)
    result = beyond_length(padding, probe_pairs)
    mean_doublings = float(np.log2(probe_pairs.loc[probe_pairs["ratio"] > 0, "ratio"]).mean())
    return [row(
        labels, bias_of(name), f"{name}_probe", result, counts, unit=PROBABILITY, variant=BEYOND_LENGTH, margin=margin,
        note=f"its edits are {mean_doublings:+.2f} doublings longer than their originals on average",
    )]  # fmt: skip


def beyond_length(padding: pd.DataFrame, probe: pd.DataFrame) -> Interval | Undefined:
    """Mean over the probe's pairs of edited − m(δ), m(δ) = ½[s(βδ + γ) + s(βδ − γ)] − ½ the padding curve (probability).

    δ is the log2 of a pair's own ratio; β, γ the logistic fit of the padded pairs on δ and the edit's slot. Both
    frames: a row a pair with both orders, ``item``, ``as_first`` and ``as_second`` (how often the edit was picked in
    that slot) and ``ratio`` (tokens of the edit per token of its original). The interval leaves out one item at a time
    from both, as padding and probe rest on the same items, with a Newton step for the curve (Pregibon 1981). Undefined
    with a reason where the curve or the effect cannot be estimated.
    """
    padding, probe = _with_ratio(padding), _with_ratio(probe)
    if probe.empty:
        return Undefined("no probe pair of known length has a verdict in both orders")
    codes, items = pd.factorize(pd.concat([padding["item"], probe["item"]], ignore_index=True))
    groups, curve_items, probe_items = len(items), codes[: len(padding)], codes[len(padding) :]
    if len(np.unique(curve_items)) < 2 or len(np.unique(probe_items)) < 2:
        return Undefined("the effect of length alone needs padding and the probe on 2 or more items")
    doubling = _doublings(padding)
    in_first_slot = np.ones(len(padding))
    x = np.column_stack([np.concatenate([doubling, doubling]), np.concatenate([in_first_slot, -in_first_slot])])
    z = np.concatenate([padding["as_first"].to_numpy(np.float64), padding["as_second"].to_numpy(np.float64)])
    fit = kernels.logistic(x, z)
    if not fit.identified:
        return Undefined("padding decides every verdict: the effect of length alone has no finite slope")
    left_out = np.tile(fit.coefficients, (groups, 1))
    curve_items_twice = np.concatenate([curve_items, curve_items])
    left_out[np.unique(curve_items)] = kernels.one_step_jackknife(x, z, fit, curve_items_twice)
    edited = ((probe["as_first"] + probe["as_second"]) / 2.0 - 0.5).to_numpy(np.float64)
    by_length, gradient = _padding_curve(fit.coefficients, _doublings(probe))
    gaps = edited - by_length
    estimate = float(gaps.mean())
    # The mean without each item, and the curve moved to first order: one pass over the pairs, not one an item.
    sizes = np.bincount(probe_items, minlength=groups)
    sums = np.bincount(probe_items, weights=gaps, minlength=groups)
    gradient_without = np.column_stack(
        [
            gradient[:, k].sum() - np.bincount(probe_items, weights=gradient[:, k], minlength=groups)
            for k in range(gradient.shape[1])
        ]
    )
    sizes_without = len(gaps) - sizes
    values = (gaps.sum() - sums - np.sum(gradient_without * (left_out - fit.coefficients), axis=1)) / sizes_without
    se = kernels.jackknife_error(values)
    # The curve predicts a judge that is a function of length up to rounding, which is no spread.
    if se < _ROUNDING and abs(estimate) < _ROUNDING:
        estimate = se = 0.0
    return t_interval(estimate, se, groups - 1, method=_BEYOND_LENGTH_METHOD)


def _with_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose length ratio is known."""
    return frame[(frame["ratio"] > 0) & np.isfinite(frame["ratio"].astype("float64"))]


def _doublings(frame: pd.DataFrame) -> Floats:
    """(n,) log2 of the length ratios."""
    return np.asarray(np.log2(frame["ratio"].to_numpy(dtype=np.float64)), dtype=np.float64)


def _padding_curve(coefficients: Floats, doubling: Floats) -> tuple[Floats, Floats]:
    """(n,) the curve m at those doublings, and (n, 2) its derivatives by β and γ."""
    slope, slot = coefficients
    first, second = kernels.sigmoid(slope * doubling + slot), kernels.sigmoid(slope * doubling - slot)
    steep_first, steep_second = first * (1.0 - first), second * (1.0 - second)
    derivative = np.column_stack([doubling * (steep_first + steep_second), steep_first - steep_second]) / 2.0
    return (first + second) / 2.0 - 0.5, derivative
