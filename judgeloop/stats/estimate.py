"""Estimates as rows: the fields of a row, and how it gets its status and its verdict from an interval.

The path is: an estimator gives a ``Result`` (an interval, a number without one, a test alone, or the reason why there is
no number); ``estimate_row`` (``row`` for a judge's) adds the labels, the counts, the status and the verdict; the rows become
a table by ``estimates_frame``. Last come two estimates that need no estimator: values that hold by construction, and the
share of unscored judgments. ``multiplicity`` corrects a table's tests for their number.
"""

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
from judgeloop.stats.inference import Interval, Undefined, replicate_t, surely_detectable, tost
from judgeloop.stats.presentations import clusters, unscored

Bias = Literal["position", "verbosity", "style", "self_preference", "quality", "diversity"]
Status = Literal["ok", "underpowered", "undefined"]
PositiveControl = Literal["", "seen", "not_seen", "itself", "itself_seen", "itself_not_seen"]
"""What the run's positive control says of a row (``stats.loop.positive_control``); empty where there is none.

- ``seen``, ``not_seen``: of ``did_<feature>``, whether the arm that was trained alike on a known taste for this feature drifted
  beyond the control
- ``itself_seen``, ``itself_not_seen``: the same of that arm's own row; ``itself``: any other row of such an arm
"""

Verdict = Literal[
    "",
    "found",
    "found_if_unscored_alike",
    "none",
    "none_if_unscored_alike",
    "not_linear",
    "undetected",
    "cannot_tell",
    "unchanged",
    "drifting",
    "amplifying",
    "saturating",
    "as its strategy",
    "reversing",
    "steady",
    "compounding unclear",
    "early collapse",
    "late collapse",
    "tail lost, means unclear",
    "no loss of tail seen",
    "over-optimised",
]
"""The claim of a row, in a word; empty where it claims nothing (a description, or no number).

Of an effect or a drift, in this order (docs/method.md, "Words of the verdicts"):

- ``none``: equivalent to the null within ``margin`` (two one-sided tests, 5 %)
- ``not_linear``: a slope that would be ``none``, where a test shows that the effect has another shape than a slope; a probe
  that would be, where single pairs go with the edit or against it
- ``undetected``: the interval holds the null; ``detectable`` is an effect that would have been seen
- ``found``, of a drift ``drifting``: the interval leaves the null out, and the adjusted test, where there is one, agrees
- ``found_if_unscored_alike``, ``none_if_unscored_alike``: ``found`` or ``none`` of a judge, but not in the worst cases of its
  unscored judgments (``judge.missing.with_claims_withheld``)
- ``cannot_tell``: the adjusted test does not agree, too few were judged to say "none", or replicates give no interval
- ``unchanged``: of one judge at two times, no verdict on the pairs that it judged both times changed; of these pairs alone

Of the three ratios on compounding: the drift's own verdict where no drift is shown, else one of COMPOUNDING_WORDS. Of
``collapse_stage``: the stage. Of ``correct_per_proxy``: that reward rose and correctness fell.
"""

COMPOUNDING_WORDS: tuple[Verdict, ...] = (
    "amplifying", "saturating", "as its strategy", "reversing", "steady", "compounding unclear",
)  # fmt: skip

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """An estimate with its interval, its counts and its status (docs/contract.md, "Estimates").

    A field that does not apply is empty ("" or None). In ``unit``, and None where ``status`` is undefined:

    - ``estimate``, ``std_error``, ``conf_low``, ``conf_high``
    - ``margin``: of equivalence, where the row was tested against one
    - ``detectable``: where none was detected, an effect that would have been found with 80 % power or more (in 90 % of samples:
      the standard error is taken at its upper limit)
    - ``benchmark``: the value in theory where nothing feeds back on itself

    ``n`` counts what the estimator uses; ``n_unscored`` always counts judgments. ``note`` is for people; no program reads it.
    """

    scope: Literal["judge", "signal", "policy"]
    term: str
    bias: Bias
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
    positive_control: PositiveControl = ""
    note: str = ""


_INTEGERS = ("generation", "n", "n_items", "n_replicates", "n_unscored")
_NUMBERS = (
    "estimate", "std_error", "conf_low", "conf_high", "conf_level", "p_value", "p_adjusted", "margin", "detectable",
    "benchmark",
)  # fmt: skip
_fields = operator.attrgetter(*ESTIMATE_COLUMNS)
_key = operator.itemgetter(*map(ESTIMATE_COLUMNS.index, ESTIMATE_KEY))


def estimates_frame(rows: Iterable[Estimate]) -> pd.DataFrame:
    """The rows as a frame with the columns of docs/contract.md, "Estimates", in order: nullable integers, float64 with
    NaN for None, and text.

    Raises ValueError if two rows share (scope, judge, arm, contrast, generation, panel, category, term, variant).
    """
    fields = list(map(_fields, rows))
    values = zip(*fields, strict=True) if fields else [()] * len(ESTIMATE_COLUMNS)
    frame = pd.DataFrame(
        {name: _typed(name, list(column)) for name, column in zip(ESTIMATE_COLUMNS, values, strict=True)}
    )
    if len(set(map(_key, fields))) < len(fields):
        duplicates = frame.loc[frame.duplicated(list(ESTIMATE_KEY), keep=False), list(ESTIMATE_KEY)]
        raise ValueError(f"estimates are not unique: {duplicates.head(4).to_dict('records')}")
    return frame


def _typed(name: str, values: list[Any]) -> Any:
    """A column of the table of estimates, in its type."""
    if name in _NUMBERS:
        return np.array(values, dtype=np.float64)
    return pd.array(values, dtype="Int64" if name in _INTEGERS else "str")


RATE_MARGIN = 0.05
"""Default equivalence margin of rates: ±5 percentage points (docs/method.md, "Equivalence margins")."""

PROBABILITY = "probability"
LOG_ODDS = "log-odds"

LOG_ODDS_PER_RATE = 4.0
"""Log-odds per unit of probability at ½, the slope of the logit there: ±5 points are ±0.2."""

RATIO_MARGIN = 0.2
"""Equivalence margin of a ratio around its null: that of C_T for ``steady`` (docs/method.md, "Words of the verdicts")."""

WIDEST_RATIO = 1.0
"""The width from which an interval around 1 is too wide to tell growth from decline (that of 1 ± ½)."""

FEW_JUDGED = (20, 50)
"""Fewest items and fewest judgments (or pairs) for the verdict ``none`` on a judge. A t interval over a handful of items is
only as wide as those few happen to differ, so that nine judgments that agree could pass for equivalence within 5 points."""

_MARGINS = {PROBABILITY: RATE_MARGIN, LOG_ODDS: LOG_ODDS_PER_RATE * RATE_MARGIN, "ratio": RATIO_MARGIN}
_TEST_LEVEL = 0.05


def default_margin(unit: str) -> float | None:
    """The equivalence margin of estimates in ``unit`` ("log-odds per doubling" counts as log-odds); None where there is none."""
    return _MARGINS.get(unit.split(" per ", maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class RowLabels:
    """The label columns that all estimates from one set of judgments share."""

    judge: str = ""
    arm: str = ""
    generation: int | None = None
    panel: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """The size of an estimator's sample: ``n`` in its own unit, ``items``, and the judgments without a verdict."""

    n: int
    items: int
    unscored: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """A number without an interval, and the reason why it has none."""

    estimate: float
    reason: str
    method: str = "mean over replicates"


@dataclass(frozen=True, slots=True)
class BareTest:
    """A statistic with the p-value of its null and no interval."""

    estimate: float
    p_value: float
    method: str


Result = Interval | Point | BareTest | Undefined


def replicate_mean(
    values: pd.Series[float] | NDArray[np.float64], missing: str = "", *, tested: bool = True
) -> Interval | Point | Undefined:
    """The mean of one number a replicate, (S,), with its t_{S−1} interval.

    A Point where one replicate, or a few that are all equal, give no interval; Undefined with ``missing`` where no replicate
    has a value. ``tested`` False drops the p-value, for numbers whose distance from 0 means nothing.
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
    equivalence: bool = True,
    **more: Any,
) -> Estimate:
    """The row of a judge's result: ``estimate_row`` with the columns of ``labels`` and ``counts`` and, by default, the margin of
    its unit. ``equivalence`` False: no margin, for a number whose nearness to 0 shows nothing. ``more``: other columns, as
    Estimate names them."""
    columns: dict[str, Any] = {
        "scope": "judge", "judge": labels.judge, "arm": labels.arm, "generation": labels.generation,
        "panel": labels.panel, "category": labels.category, "bias": bias, "term": term, "variant": variant, "unit": unit,
        "n": counts.n, "n_items": counts.items, "n_unscored": counts.unscored, **more,
    }  # fmt: skip
    allowed = (default_margin(unit) if margin is None else margin) if equivalence else None
    return estimate_row(result, margin=allowed, null=null, note=note, **columns)


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

    - ``margin``: of equivalence. An interval that holds ``null`` is equivalent to it within the margin, or undetected, and
      then ``underpowered`` where the effect that is surely found with 80 % power is larger than the margin
    - ``null``: None for a description, which has nothing to detect, and no p-value
    - ``drift``: an effect is then called ``drifting``, and an undetected one is always ``underpowered``
    - ``unchanged``: no verdict behind a judge's drift changed
    - ``note``: dropped where the row is undefined, whose note is the reason alone
    """
    if isinstance(result, Undefined):
        return Estimate(status="undefined", note=result.reason, **columns)
    few = few_judged(columns["scope"], columns.get("n", 0), columns.get("n_items", 0))
    verdict, detectable = claim(result, margin, null, drift=drift, few=few)
    if isinstance(result, Point):
        return Estimate(
            estimate=result.estimate, method=result.method, status="underpowered", verdict=verdict,
            note=joined(result.reason, note), **columns,
        )  # fmt: skip
    if isinstance(result, BareTest):
        return Estimate(
            estimate=result.estimate,
            p_value=result.p_value,
            method=result.method,
            verdict=verdict,
            note=note,
            **columns,
        )
    status: Status = "ok"
    if verdict == "undetected" and (drift or (margin is not None and detectable is not None and detectable > margin)):
        status = "underpowered"
    return Estimate(
        estimate=float(result.estimate),
        std_error=float(result.std_error),
        conf_low=float(result.low),
        conf_high=float(result.high),
        conf_level=result.level,
        p_value=None if result.p_value is None or null is None else float(result.p_value),
        method=result.method,
        status=status,
        verdict="unchanged" if unchanged and result.estimate == 0 else verdict,
        margin=None if null is None else margin,
        detectable=detectable,
        note=note,
        **columns,
    )


def claim(
    result: Result, margin: float | None, null: float | None = 0.0, *, drift: bool = False, few: bool = False
) -> tuple[Verdict, float | None]:
    """(verdict, effect that 90 % of such samples would have found with 80 % power or more where the verdict is ``undetected``).

    Before correction for several tests. ``few``: too few were judged for the verdict ``none``.
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
    # Without a standard error the width is all that is known of the precision; equal replicates have neither.
    std_error = result.std_error or (result.high - result.low) / 4.0
    return "undetected", surely_detectable(std_error, result.df) if std_error > 0 else None


def ratio_row(result: Interval | Undefined, *, note: str = "", **columns: Any) -> Estimate:
    """The row of a ratio whose null is 1: ``underpowered`` where 1 is inside and the interval is too wide to say anything.

    It has no p-value: its interval shows whether the ratio may be 1, and a ratio of 0 is of no interest.
    """
    estimate = estimate_row(result, null=None, note=note, **columns)
    if isinstance(result, Interval) and result.covers(1.0) and result.high - result.low > WIDEST_RATIO:
        reason = f"the interval is wider than {WIDEST_RATIO:g} and decides nothing"
        estimate = dataclasses.replace(estimate, status="underpowered", note=joined(reason, note))
    return estimate


def joined(*parts: str) -> str:
    """The remarks that are not empty, as one note."""
    return "; ".join(part for part in parts if part)


def few_judged(scope: str, n: int, n_items: int) -> bool:
    """Whether a judge's row rests on too few items or judgments for the verdict ``none`` (FEW_JUDGED)."""
    fewest_items, fewest_judged = FEW_JUDGED
    return scope == "judge" and (0 < n_items < fewest_items or n < fewest_judged)


# Values by construction: a judge that scores each text alone does not see the order in which a pair is shown.

BY_CONSTRUCTION = "by construction"
"""The ``method`` of such an estimate."""

CONSTRUCTED_VALUES = {
    "first_slot_excess": 0.0, "position_log_odds": 0.0, "conflict_rate": 0.0, "order_agreement": 1.0,
    "excess_conflict": 0.0, "repetition_stability": 1.0, "identical_pair_excess": 0.0, "preference_fairness": 0.0,
    "position_consistency": 1.0, "consistency_factor": 1.0,
}  # fmt: skip
"""Term → its value for a judge that scores each text alone; the drift of each is 0."""

_JUDGE_DRIFT = "judge_drift_"


def constructed_value(term: str) -> float | None:
    """The value of a term for a judge that scores each text alone; None for a term that has to be measured."""
    if term.startswith(_JUDGE_DRIFT) and term.removeprefix(_JUDGE_DRIFT) in CONSTRUCTED_VALUES:
        return 0.0
    return CONSTRUCTED_VALUES.get(term)


def order_free(estimates: pd.DataFrame, judges: Collection[str]) -> pd.DataFrame:
    """The estimates with the position terms of ``judges``, who score each text alone, ``undefined`` by construction.

    Their variants too (bounds for unscored replies, ties dropped).
    """
    if not judges:
        return estimates
    values = estimates["term"].map(lambda term: constructed_value(str(term)))
    constructed = (estimates["scope"] == "judge") & estimates["judge"].isin(list(judges)) & values.notna()
    if not constructed.any():
        return estimates
    frame = estimates.copy()
    frame.loc[constructed, list(_NUMBERS)] = np.nan
    frame.loc[constructed, ["status", "method", "family", "verdict"]] = ["undefined", BY_CONSTRUCTION, "none", ""]
    frame.loc[constructed, "note"] = [
        f"{value:g} by construction, not measured: each text is scored alone, once, so the order cannot matter"
        for value in values[constructed]
    ]
    return frame


# The share of judgments without a verdict: a count, not a sample.

UNSCORED_SHARE = "unscored_share"


def unscored_shares(judgments: pd.DataFrame) -> list[Estimate]:
    """``unscored_share`` of every judge and arm, a probability: the share of its judgments without a verdict.

    The interval is the number itself, for every judgment is counted.
    """
    if judgments.empty:
        return []
    arms = judgments["arm"].fillna("").astype(str) if "arm" in judgments else pd.Series("", index=judgments.index)
    rows = []
    for (judge, arm), group in judgments.groupby([judgments["judge"], arms], sort=True):
        lost = unscored(group)
        share = lost / len(group)
        rows.append(Estimate(
            scope="judge", bias="quality", term=UNSCORED_SHARE, judge=str(judge), arm=str(arm), estimate=share, conf_low=share,
            conf_high=share, n=len(group), n_items=clusters(group).nunique(), n_unscored=lost, unit=PROBABILITY,
            method="count of all judgments",
        ))  # fmt: skip
    return rows
