"""Counterfactual probes: an original against its own edit, content fixed. Positive = the edited text is picked.

The strongest evidence on verbosity and style (the method notes §1.3 E1), for no gold is needed. τ = P(edited picked) − ½
per pair with both orders complete, so that position cancels.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from judgeloop.stats.beyond_length import VARIANT as BEYOND_LENGTH
from judgeloop.stats.beyond_length import beyond_length
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import FEW_CLUSTERS, LEVEL, Interval, Undefined, bounded_mean, t_interval
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.presentations import not_identical, only_identical, pair_codes, pairs, unscored
from judgeloop.stats.rows import PROBABILITY, RATE_MARGIN, Bias, Counts, Labels, row

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

    ``judgments``: CONTRACT's columns, with ``probe`` (padding, bold, hedges …), ``dose``, the length ratio that padded
    texts were to reach (NaN for others), and optionally ``dose_reached``, the one they did; candidate b of a pair is the
    edit, candidate a its original. The primary pools the doses; variant ``slope`` is the effect per doubling, least squares
    through the origin on the log2 of the dose reached (the nominal one where that is not known). Variant ``beyond_length``
    of every probe but padding: the effect less what padding of the same length is worth. Pairs of identical texts give
    ``identical_pair_excess``.
    """
    if judgments.empty:
        return []
    labels = Labels(judge, arm, generation, panel, category)
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
    labels: Labels, name: str, padding: pd.DataFrame, every: pd.DataFrame, lost: int, margin: float
) -> list[Estimate]:
    if not (every["ratio"] != 1.0).where(every["ratio"].notna(), False).any():
        return []  # no text is longer or shorter than its original, or nothing is known of their lengths
    counts = Counts(len(every), every["item"].nunique(), lost)
    result = beyond_length(padding, every)
    mean = float(np.log2(every.loc[every["ratio"] > 0, "ratio"]).mean())
    return [row(labels, bias_of(name), f"{name}_probe", result, counts, unit=PROBABILITY, variant=BEYOND_LENGTH,
                margin=margin, note=f"its edits are {mean:+.2f} doublings long on average")]  # fmt: skip


def _probe(labels: Labels, name: str, judgments: pd.DataFrame, every: pd.DataFrame, margin: float) -> list[Estimate]:
    bias, term = bias_of(name), f"{name}_probe"
    counts = Counts(len(every), every["item"].nunique(), unscored(judgments))
    rows = [row(labels, bias, term, _mean(every), counts, unit=PROBABILITY, margin=margin)]
    asked = _numbers(judgments, "dose")
    for dose in sorted(asked.dropna().unique()):
        part, some = every[every["dose"] == dose], judgments[asked == dose]
        at = Counts(len(part), part["item"].nunique(), unscored(some))
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
