"""From an interval (or the reason why there is none) to an estimate's row: whose it is, its status and its verdict."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.records import ESTIMATE_COLUMNS, ESTIMATE_KEY
from judgeloop.stats.inference import Interval, Undefined, replicate_t, smallest_detectable, tost
from judgeloop.stats.presentations import unscored

# One tidy row an estimate (docs/contract.md, "Estimates"): the dataclass, and the frame that checks its unique key.

Status = Literal["ok", "underpowered", "undefined"]

Verdict = Literal[
    "",
    "found",
    "none",
    "undetected",
    "cannot_tell",
    "unchanged",
    "drifting",
    "amplifying",
    "saturating",
    "steady",
    "compounding unclear",
    "early collapse",
    "late collapse",
    "tail lost, means unclear",
    "no loss of tail seen",
]
"""What a row claims, in a word; empty where it claims nothing (a description, or no number).

Of an effect or a drift, in this order (docs/method.md, "Words of the verdicts"):

- ``none``: equivalent to the null within ``margin`` (two one-sided tests, 5 %)
- ``undetected``: the interval holds the null; ``detectable`` is the smallest effect that would have been seen
- ``found``, of a drift ``drifting``: the interval leaves the null out, and the adjusted test, where there is one, agrees
- ``cannot_tell``: the adjusted test does not agree, too few were judged to say "none", or replicates give no interval
- ``unchanged``: of a judge's drift, no verdict of the fixed panel moved: true of these pairs, whatever of others

Of the three compounding terms the word on the drift where none is shown, else ``amplifying``, ``saturating``, ``steady`` or
``compounding unclear``. Of ``collapse_stage`` the stage.
"""

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate with its interval, its counts and its status. What does not apply is empty ("" or None).

    ``estimate``, ``std_error``, ``conf_low``, ``conf_high`` are in ``unit``; None where ``status`` is undefined. So are
    ``margin`` (of equivalence, where the row was tested against one), ``detectable`` (the smallest effect that this sample
    finds with 80 % power, where none was detected) and ``benchmark`` (what theory gives where nothing feeds back on itself).
    ``note`` is a remark for people: no program needs it. ``n`` counts what the estimator uses; ``n_unscored`` always counts judgments.
    """

    scope: Literal["judge", "signal", "policy"]
    term: str
    bias: Literal["position", "verbosity", "style", "self_preference", "quality", "diversity"]
    judge: str = ""
    arm: str = ""
    contrast: str = ""
    generation: int | None = None
    panel: str = ""
    category: str = ""
    variant: str = ""
    estimate: float | None = None
    std_error: float | None = None
    conf_low: float | None = None
    conf_high: float | None = None
    conf_level: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    family: Literal["confirmatory", "exploratory", "none"] = "none"
    n: int = 0
    n_items: int = 0
    n_replicates: int | None = None
    n_unscored: int = 0
    unit: str = ""
    method: str = ""
    status: Status = "ok"
    verdict: Verdict = ""
    margin: float | None = None
    detectable: float | None = None
    benchmark: float | None = None
    note: str = ""


_INTEGERS = ("generation", "n", "n_items", "n_replicates", "n_unscored")
_VALUES = operator.attrgetter(*ESTIMATE_COLUMNS)
_FLOATS = (
    "estimate", "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "margin", "detectable",
    "benchmark",
)  # fmt: skip


def estimates_frame(rows: Iterable[Estimate]) -> pd.DataFrame:
    """The rows as a frame with the columns of docs/contract.md, "Estimates", in order; nullable integers, float64 with
    NaN for "none", text.

    Raises ValueError if two rows share (scope, judge, arm, contrast, generation, panel, category, term, variant).
    """
    frame = pd.DataFrame(map(_VALUES, rows), columns=list(ESTIMATE_COLUMNS))
    for column in _INTEGERS:
        frame[column] = frame[column].astype("Int64")
    for column in _FLOATS:
        frame[column] = frame[column].astype("float64")
    for column in set(ESTIMATE_COLUMNS) - set(_INTEGERS) - set(_FLOATS):
        frame[column] = frame[column].astype("str")
    doubled = frame.duplicated(list(ESTIMATE_KEY), keep=False)
    if doubled.any():
        raise ValueError(
            f"estimates are not unique: {frame.loc[doubled, list(ESTIMATE_KEY)].head(4).to_dict('records')}"
        )
    return frame


Bias = Literal["position", "verbosity", "style", "self_preference", "quality", "diversity"]

RATE_MARGIN = 0.05
"""Default equivalence margin of rates: ±5 percentage points (docs/method.md, "Equivalence margins")."""

PROBABILITY = "probability"
LOG_ODDS = "log-odds"

LOG_ODDS_PER_RATE = 4.0
"""Log-odds that a small change of a probability amounts to at ½: the slope of the logit there. ±5 points are ±0.2."""

RATIO_MARGIN = 0.2
"""A ratio within its null ± this is equivalent to it: C_T's margin for ``steady``
(docs/method.md, "Words of the verdicts")."""

WIDEST_RATIO = 1.0
"""A ratio's interval around 1 that is wider than this (1 ± ½ is as wide) tells neither growth from decline nor how much."""

FEW_JUDGED = (20, 50)
"""Fewest items and judgments (or pairs) for the word "none" on a judge. A t interval over a handful of items is only as
wide as those few happen to differ, so that equivalence within 5 points can come of nine judgments that agree."""

_MARGINS = {PROBABILITY: RATE_MARGIN, LOG_ODDS: LOG_ODDS_PER_RATE * RATE_MARGIN, "ratio": RATIO_MARGIN}
_TEST_LEVEL = 0.05


def default_margin(unit: str) -> float | None:
    """The equivalence margin of an estimate in that unit ("log-odds per doubling" is in log-odds); None where none is."""
    return _MARGINS.get(unit.split(" per ", maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class RowLabels:
    """Whose estimates these are: the columns that every row of one subset of judgments shares."""

    judge: str = ""
    arm: str = ""
    generation: int | None = None
    panel: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """What an estimator used: ``n`` in its own unit, ``items``, and the judgments without a verdict."""

    n: int
    items: int
    unscored: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """A number without an interval, and why it has none."""

    estimate: float
    reason: str
    method: str = "mean over replicates"


@dataclass(frozen=True, slots=True)
class BareTest:
    """A statistic with the p-value of its null, and no interval."""

    estimate: float
    p_value: float
    method: str


Result = Interval | Point | BareTest | Undefined


def replicate_mean(
    values: pd.Series[float] | NDArray[np.float64], missing: str = "", *, tested: bool = True
) -> Interval | Point | Undefined:
    """The mean of one number a replicate, (S,), with its t_{S−1} interval.

    A Point where one replicate, or a few that are all equal, give no interval; Undefined with ``missing`` where no replicate
    has a value. ``tested`` False drops the p-value: the number's distance from 0 means nothing.
    """
    if len(values) == 0:
        return Undefined(missing or "no replicate has a value")
    result = replicate_t(values)
    if isinstance(result, Undefined):
        return Point(float(values.mean()), "one replicate has no interval" if len(values) == 1 else result.reason)
    return result if tested else dataclasses.replace(result, p_value=None)


def row(
    labels: RowLabels,
    bias: Bias,
    term: str,
    result: Result,
    counts: SampleCounts,
    *,
    unit: str,
    variant: str = "",
    margin: float | None = None,
    null: float | None = 0.0,
    note: str = "",
    **more: Any,
) -> Estimate:
    """A judge's estimate: ``estimate_row`` with the columns of ``labels`` and ``counts``, and by default its unit's margin."""
    columns: dict[str, Any] = {
        "scope": "judge", "judge": labels.judge, "arm": labels.arm, "generation": labels.generation,
        "panel": labels.panel, "category": labels.category, "bias": bias, "term": term, "variant": variant, "unit": unit,
        "n": counts.n, "n_items": counts.items, "n_unscored": counts.unscored, **more,
    }  # fmt: skip
    return estimate_row(
        result, margin=default_margin(unit) if margin is None else margin, null=null, note=note, **columns
    )


def estimate_row(
    result: Result,
    *,
    margin: float | None = None,
    null: float | None = 0.0,
    drift: bool = False,
    unchanged: bool = False,
    note: str = "",
    **columns: Any,
) -> Estimate:
    """The row of a result, with its verdict and its status. ``columns``: the other columns, as Estimate names them.

    With a ``margin`` an interval that holds ``null`` never reads as "no bias": it is equivalent, or undetected, and then
    ``underpowered`` where the effect that this sample finds with 80 % power is larger than the margin. ``drift``: an effect
    is called ``drifting``, and what is undetected is always ``underpowered``. A ``null`` of None marks a description that
    has nothing to detect. ``unchanged``: no verdict behind a judge's drift moved. An undefined row's note is its reason
    alone.
    """
    if isinstance(result, Undefined):
        return Estimate(status="undefined", note=result.reason, **columns)
    few = few_judged(columns["scope"], columns.get("n", 0), columns.get("n_items", 0))
    word, detectable = claimed(result, margin, null, drift=drift, few=few)
    if isinstance(result, Point):
        return Estimate(
            estimate=result.estimate, method=result.method, status="underpowered", verdict=word,
            note=joined(result.reason, note), **columns,
        )  # fmt: skip
    if isinstance(result, BareTest):
        return Estimate(
            estimate=result.estimate, p_value=result.p_value, method=result.method, verdict=word, note=note, **columns
        )
    status: Status = "ok"
    if word == "undetected" and (drift or (margin is not None and detectable is not None and detectable > margin)):
        status = "underpowered"
    return Estimate(
        estimate=float(result.estimate),
        std_error=float(result.std_error),
        conf_low=float(result.low),
        conf_high=float(result.high),
        conf_level=result.level,
        p_value=None if result.p_value is None else float(result.p_value),
        method=result.method,
        status=status,
        verdict="unchanged" if unchanged and result.estimate == 0 else word,
        margin=None if null is None else margin,
        detectable=detectable,
        note=note,
        **columns,
    )


def claimed(
    result: Result, margin: float | None, null: float | None = 0.0, *, drift: bool = False, few: bool = False
) -> tuple[Verdict, float | None]:
    """The verdict and, where it is ``undetected``, the smallest effect that would have been found with 80 % power.

    Before adjustment for several tests. ``few``: too few were judged to say ``none`` of a judge.
    """
    if isinstance(result, Undefined) or null is None:
        return "", None
    if isinstance(result, Point):
        return "cannot_tell", None
    if isinstance(result, BareTest):
        return "found" if result.p_value <= _TEST_LEVEL else "undetected", None
    covered = result.covers(null)
    effect: Verdict = "drifting" if drift else "found"
    if margin is not None and tost(result, margin, centre=null):
        return ("none" if not few else "cannot_tell" if covered else effect), None
    if not covered:
        return effect, None
    # Without a standard error the half-width is all that is known of the precision; equal replicates have neither.
    seen = result.std_error or (result.high - result.low) / 4.0
    return "undetected", smallest_detectable(seen, result.df) if seen > 0 else None


def ratio_row(result: Interval | Undefined, *, note: str = "", **columns: Any) -> Estimate:
    """The row of a ratio whose null is 1: ``underpowered`` where 1 is inside and the interval is too wide to say anything.

    It has no p-value: whether a ratio is 1 is read from its interval, and a p against 0 would test what nobody asks.
    """
    if isinstance(result, Interval):
        result = dataclasses.replace(result, p_value=None)
    made = estimate_row(result, null=None, note=note, **columns)
    if isinstance(result, Interval) and result.covers(1.0) and result.high - result.low > WIDEST_RATIO:
        wide = f"the interval is wider than {WIDEST_RATIO:g} and decides nothing"
        made = dataclasses.replace(made, status="underpowered", note=joined(wide, note))
    return made


def joined(*parts: str) -> str:
    """Remarks as one note."""
    return "; ".join(part for part in parts if part)


def few_judged(scope: str, n: int, n_items: int) -> bool:
    """Whether a row rests on too few items or judgments for an absence to be claimed of a judge (FEW_JUDGED)."""
    items, judged = FEW_JUDGED
    return scope == "judge" and (0 < n_items < items or n < judged)


# What needs no measurement: a judge that scores each text alone cannot know the order in which a pair was shown.

METHOD = "by construction"
VALUES = {
    "first_slot_excess": 0.0, "position_log_odds": 0.0, "conflict_rate": 0.0, "order_agreement": 1.0,
    "excess_conflict": 0.0, "repetition_stability": 1.0, "identical_pair_excess": 0.0, "preference_fairness": 0.0,
}  # fmt: skip
"""Term → its value for a judge that scores each text alone; the drift of each is 0."""

_DRIFT = "judge_drift_"
_NUMBERS = (
    "estimate", "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "margin", "detectable",
    "benchmark",
)  # fmt: skip


def value_of(term: str) -> float | None:
    """What a term is by construction, None for a term that has to be measured."""
    return 0.0 if term.startswith(_DRIFT) and term.removeprefix(_DRIFT) in VALUES else VALUES.get(term)


def order_free(estimates: pd.DataFrame, judges: Collection[str]) -> pd.DataFrame:
    """The estimates with the position terms of ``judges``, who score each text alone, ``undefined`` by construction.

    Variants (bounds for unscored replies, ties dropped) bound nothing there and go the same way.
    """
    known = estimates["term"].map(lambda term: value_of(str(term)))
    told = (estimates["scope"] == "judge") & estimates["judge"].isin(list(judges)) & known.notna()
    if not told.any():
        return estimates
    found = estimates.copy()
    found.loc[told, list(_NUMBERS)] = np.nan
    found.loc[told, ["status", "method", "family", "verdict"]] = ["undefined", METHOD, "none", ""]
    found.loc[told, "note"] = [
        f"{value:g} by construction, not measured: each text is scored alone, once, so the order cannot matter"
        for value in known[told]
    ]
    return found


# The share of judgments without a verdict: a count of what was asked, not a sample of anything.

TERM = "unscored_share"


def unscored_shares(judgments: pd.DataFrame) -> list[Estimate]:
    """``unscored_share`` of every judge and arm: n_unscored over all its judgments. Larger = more replies without a verdict.

    The interval is the number itself: every judgment that was asked is counted.
    """
    if judgments.empty:
        return []
    arms = judgments["arm"].fillna("").astype(str) if "arm" in judgments else pd.Series("", index=judgments.index)
    rows = []
    for (judge, arm), some in judgments.groupby([judgments["judge"], arms], sort=True):
        lost = unscored(some)
        share = lost / len(some)
        rows.append(Estimate(
            scope="judge", bias="quality", term=TERM, judge=str(judge), arm=str(arm), estimate=share, conf_low=share,
            conf_high=share, n=len(some), n_items=some["item_id"].nunique(), n_unscored=lost, unit=PROBABILITY,
            method="count of all judgments",
        ))  # fmt: skip
    return rows
