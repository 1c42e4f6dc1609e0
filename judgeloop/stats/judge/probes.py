"""Counterfactual probes: an original against its own edit, content fixed. Positive = the edited text is picked.

The strongest evidence on verbosity and style (docs/method.md, "Probes"), for no gold is needed. τ = P(edited picked) −
½ per pair with both orders complete, so that position cancels.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import kernels
from judgeloop.stats.estimate import PROBABILITY, RATE_MARGIN, Bias, Estimate, RowLabels, SampleCounts, row
from judgeloop.stats.inference import FEW_CLUSTERS, LEVEL, Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.presentations import not_identical, only_identical, pair_codes, pairs, unscored

# A probe's effect less what its added (or cut) tokens alone are worth to this judge.

Floats = NDArray[np.float64]

VARIANT = "beyond_length"
_METHOD = "less the padding curve at the edit's own length, jackknife t by item"
_EXACT = 1e-9


def beyond_length(padding: pd.DataFrame, probe: pd.DataFrame) -> Interval | Undefined:
    """mean(edited − m(δ)) over the probe's pairs, m(δ) = ½[s(βδ + γ) + s(βδ − γ)] − ½ the padding curve at a pair's own δ.

    Both frames: a row a pair with both orders, ``item``, ``as_first`` and ``as_second`` (how often the edit was picked in
    that slot) and ``ratio`` (tokens of the edit per token of its original). The interval leaves out one item at a time from
    both, a Newton step for the curve (Pregibon 1981): padding and probe rest on the same items.
    """
    padding, probe = _known(padding), _known(probe)
    if probe.empty:
        return Undefined("no probe pair of known length has a verdict in both orders")
    codes, items = pd.factorize(pd.concat([padding["item"], probe["item"]], ignore_index=True))
    groups, of_curve, of_probe = len(items), codes[: len(padding)], codes[len(padding) :]
    if len(np.unique(of_curve)) < 2 or len(np.unique(of_probe)) < 2:
        return Undefined("what length alone is worth needs padding and the probe on 2 or more items")
    doubling = _doublings(padding)
    slot = np.ones(len(padding))
    x = np.column_stack([np.concatenate([doubling, doubling]), np.concatenate([slot, -slot])])
    z = np.concatenate([padding["as_first"].to_numpy(np.float64), padding["as_second"].to_numpy(np.float64)])
    fit = kernels.logistic(x, z)
    if not fit.identified:
        return Undefined("padding decides every verdict: what length alone is worth has no finite slope")
    left_out = np.tile(fit.coefficients, (groups, 1))
    both = np.concatenate([of_curve, of_curve])
    left_out[np.unique(of_curve)] = kernels.one_step_jackknife(x, z, fit, both)
    edited = ((probe["as_first"] + probe["as_second"]) / 2.0 - 0.5).to_numpy(np.float64)
    worth, gradient = _curve(fit.coefficients, _doublings(probe))
    gaps = edited - worth
    estimate = float(gaps.mean())
    # The mean without each item, and the curve moved to first order: one pass over the pairs, not one an item.
    sizes = np.bincount(of_probe, minlength=groups)
    sums = np.bincount(of_probe, weights=gaps, minlength=groups)
    moved = np.column_stack(
        [
            gradient[:, k].sum() - np.bincount(of_probe, weights=gradient[:, k], minlength=groups)
            for k in range(gradient.shape[1])
        ]
    )
    rest = len(gaps) - sizes
    values = (gaps.sum() - sums - np.sum(moved * (left_out - fit.coefficients), axis=1)) / rest
    spread = values - values.mean()
    se = math.sqrt((groups - 1.0) / groups * float(np.sum(spread**2)))
    # A judge that is a function of length is foretold but for rounding, which is no spread.
    if se < _EXACT and abs(estimate) < _EXACT:
        estimate = se = 0.0
    return t_interval(estimate, se, groups - 1, method=_METHOD)


def _known(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["ratio"] > 0) & np.isfinite(frame["ratio"].astype("float64"))]


def _doublings(frame: pd.DataFrame) -> Floats:
    return np.asarray(np.log2(frame["ratio"].to_numpy(dtype=np.float64)), dtype=np.float64)


def _curve(coefficients: Floats, doubling: Floats) -> tuple[Floats, Floats]:
    """(n,) the curve at those doublings, less ½, and (n, 2) its derivative in β and γ."""
    slope, slot = coefficients
    first, second = kernels.sigmoid(slope * doubling + slot), kernels.sigmoid(slope * doubling - slot)
    steep_first, steep_second = first * (1.0 - first), second * (1.0 - second)
    derivative = np.column_stack([doubling * (steep_first + steep_second), steep_first - steep_second]) / 2.0
    return (first + second) / 2.0 - 0.5, derivative


_PADDING = "padding"
_VERBOSITY = ("padding", "model_padding", "whitespace")
_SELF = ("self_name",)


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
    length ratio that padded texts were to reach (NaN for others), and optionally ``dose_reached``, the one they did;
    candidate b of a pair is the edit, candidate a its original. The primary pools the doses; variant ``slope`` is the
    effect per doubling, least squares through the origin on the log2 of the dose reached (the nominal one where that is
    not known). Variant ``beyond_length`` of every probe but padding: the effect less what padding of the same length is
    worth. Pairs of identical texts give ``identical_pair_excess``.
    """
    if judgments.empty:
        return []
    labels = RowLabels(judge, arm, generation, panel, category)
    rows: list[Estimate] = []
    probes = {str(name): some for name, some in not_identical(judgments).groupby("probe", sort=True)}
    pairs_of = {name: edited_picked(some) for name, some in probes.items()}
    for name, some in probes.items():
        rows += _probe(labels, name, some, pairs_of[name], margin)
        if name != _PADDING and _PADDING in pairs_of:
            rows += _beyond_length(labels, name, pairs_of[_PADDING], pairs_of[name], unscored(some), margin)
    same = only_identical(judgments)
    if len(same):
        position = position_estimates(
            same, judge=judge, arm=arm, generation=generation, panel=panel, category=category, margin=margin
        )
        rows += [one for one in position if one.term == "identical_pair_excess"]
    return rows


def bias_of(probe: str) -> Bias:
    """The kind of bias that a probe shows."""
    return "verbosity" if probe in _VERBOSITY else "self_preference" if probe in _SELF else "style"


def edited_picked(judgments: pd.DataFrame) -> pd.DataFrame:
    """A row a probe pair with both orders complete: ``item`` (its item_id), ``pair_id``, ``edited`` in [−½, ½] (positive =
    the edit is picked), ``as_first`` and ``as_second`` (the same in each slot, in [0, 1]), ``dose`` and ``reached`` (NaN
    where there is none), ``ratio`` (tokens per token of the original, NaN unknown). One probe's judgments, of different texts.
    """
    table = pairs(judgments)
    # pairs() numbers the pairs in the order of pair_codes.
    codes = pair_codes(judgments)
    first = judgments.assign(code=codes).drop_duplicates("code").set_index("code").reindex(table.index)
    known = (table["n_ab"] > 0) & (table["n_ba"] > 0)
    nominal = _numbers(first, "dose")
    ratio = _numbers(first, "dose_reached")
    reached = ratio.where(nominal.notna())
    found = pd.DataFrame({
        "item": first["item_id"], "pair_id": first["pair_id"], "edited": ((1.0 - table["ab"]) + table["ba"]) / 2.0 - 0.5,
        "as_first": table["ba"], "as_second": 1.0 - table["ab"],
        "dose": nominal, "reached": reached.where(reached.notna(), nominal), "ratio": ratio.where(ratio.notna(), nominal),
    })  # fmt: skip
    return found[known].reset_index(drop=True)


def _numbers(frame: pd.DataFrame, column: str) -> pd.Series[float]:
    return frame[column].astype("float64") if column in frame else pd.Series(np.nan, index=frame.index)


def _beyond_length(
    labels: RowLabels, name: str, padding: pd.DataFrame, every: pd.DataFrame, lost: int, margin: float
) -> list[Estimate]:
    if not (every["ratio"] != 1.0).where(every["ratio"].notna(), False).any():
        return []  # no text is longer or shorter than its original, or nothing is known of their lengths
    counts = SampleCounts(len(every), every["item"].nunique(), lost)
    result = beyond_length(padding, every)
    mean = float(np.log2(every.loc[every["ratio"] > 0, "ratio"]).mean())
    return [row(labels, bias_of(name), f"{name}_probe", result, counts, unit=PROBABILITY, variant=VARIANT,
                margin=margin, note=f"its edits are {mean:+.2f} doublings long on average")]  # fmt: skip


def _probe(labels: RowLabels, name: str, judgments: pd.DataFrame, every: pd.DataFrame, margin: float) -> list[Estimate]:
    bias, term = bias_of(name), f"{name}_probe"
    counts = SampleCounts(len(every), every["item"].nunique(), unscored(judgments))
    rows = [row(labels, bias, term, _mean(every), counts, unit=PROBABILITY, margin=margin)]
    asked = _numbers(judgments, "dose")
    for dose in sorted(asked.dropna().unique()):
        part, some = every[every["dose"] == dose], judgments[asked == dose]
        at = SampleCounts(len(part), part["item"].nunique(), unscored(some))
        reached = part["reached"]
        note = f"reached {reached.mean():.2f} on average" if len(part) and (reached != dose).any() else ""
        rows.append(
            row(labels, bias, term, _mean(part), at, unit=PROBABILITY, variant=f"{dose:g}", margin=margin, note=note)
        )
    if asked.notna().any():
        rows.append(row(labels, bias, term, _slope(every), counts, unit=f"{PROBABILITY} per doubling", variant="slope"))
    return rows


def _mean(frame: pd.DataFrame) -> Interval | Undefined:
    if frame.empty:
        return Undefined("no probe pair has a verdict in both orders")
    return bounded_mean(frame["edited"].to_numpy(), frame["item"].to_numpy(), -0.5, 0.5)


def _slope(frame: pd.DataFrame) -> Interval | Undefined:
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
        # No spread: the share of items that may differ, by Wilson's bound, at the steepest slope these doses allow.
        share = bounded_mean(np.zeros(groups), np.arange(groups), 0.0, 1.0)
        assert isinstance(share, Interval)
        steepest = 0.5 * float(np.sum(np.abs(doubling))) / total
        low, high = slope - share.high * (slope + steepest), slope + share.high * (steepest - slope)
        p_value = 1.0 if slope == 0 else min(1.0, 2.0 * 0.5**groups)
        return Interval(slope, 0.0, low, high, LEVEL, p_value, None, "no spread: Wilson bound, n = items")
    if groups < FEW_CLUSTERS:
        leverage = np.bincount(codes, weights=doubling**2) / total
        if np.any(leverage > 1.0 - 1e-9):
            return Undefined("a slope needs 2 or more items with a dose other than 1")
        se, method = float(np.sqrt(np.sum((sums / (1.0 - leverage)) ** 2))), f"{method} (Mancl-DeRouen)"
    else:
        se = math.sqrt(groups / (groups - 1.0) * float(np.sum(sums**2)))
    return t_interval(slope, se, groups - 1, method=method)
