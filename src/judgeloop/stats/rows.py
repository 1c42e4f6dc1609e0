"""From an interval (or the reason why there is none) to an estimate's row: whose it is, its status and its licence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from judgeloop.stats.estimate import Estimate, Status
from judgeloop.stats.inference import Interval, Undefined, smallest_detectable, tost

Bias = Literal["position", "verbosity", "style", "self_preference", "quality", "diversity"]

RATE_MARGIN = 0.05
"""Default equivalence margin of rates: ±5 percentage points (the method notes §7.5)."""

UNCHANGED = "every pair was judged as at generation 0"
"""Begins or ends the note of a judge's drift where no verdict of the panel moved: true of these pairs, whatever of others."""

PROBABILITY = "probability"
LOG_ODDS = "log-odds"

LOG_ODDS_PER_RATE = 4.0
"""Log-odds that a small change of a probability amounts to at ½: the slope of the logit there. ±5 points are ±0.2."""

RATIO_MARGIN = 0.2
"""A ratio within its null ± this is equivalent to it: C_T's margin for ``steady`` (the method notes §7.4)."""

WIDEST_RATIO = 1.0
"""A ratio's interval around 1 that is wider than this (1 ± ½ is as wide) tells neither growth from decline nor how much."""

_MARGINS = {PROBABILITY: RATE_MARGIN, LOG_ODDS: LOG_ODDS_PER_RATE * RATE_MARGIN, "ratio": RATIO_MARGIN}


def default_margin(unit: str) -> float | None:
    """The equivalence margin of an estimate in that unit ("log-odds per doubling" is in log-odds); None where none is."""
    return _MARGINS.get(unit.split(" per ", maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class Labels:
    """Whose estimates these are: the columns that every row of one subset of judgments shares."""

    judge: str = ""
    arm: str = ""
    generation: int | None = None
    panel: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Counts:
    """What an estimator used: ``n`` in its own unit, ``items``, and the judgments without a verdict."""

    n: int
    items: int
    unscored: int = 0


def row(
    labels: Labels,
    bias: Bias,
    term: str,
    result: Interval | Undefined,
    counts: Counts,
    *,
    unit: str,
    variant: str = "",
    margin: float | None = None,
    null: float | None = 0.0,
    note: str = "",
) -> Estimate:
    """One estimate. With a ``margin`` (default: its unit's), an interval that holds ``null`` never reads as "no bias".

    It is then equivalent (TOST within ``null`` ± margin), undetected, or ``underpowered``: the effect that this sample
    finds with 80 % power is larger than the margin. The note says which, and how large that effect is. A ``null`` of
    None marks a description that has nothing to detect. An undefined row's note is its reason alone.
    """
    shared: dict[str, Any] = {
        "judge": labels.judge, "arm": labels.arm, "generation": labels.generation, "panel": labels.panel,
        "category": labels.category, "bias": bias, "term": term, "variant": variant, "unit": unit,
    }  # fmt: skip
    if isinstance(result, Undefined):
        return Estimate(
            scope="judge", status="undefined", n=counts.n, n_items=counts.items, n_unscored=counts.unscored, note=result.reason,
            **shared,
        )  # fmt: skip
    status, said = licence(result, default_margin(unit) if margin is None else margin, null)
    return Estimate(
        scope="judge",
        estimate=float(result.estimate),
        std_error=float(result.std_error),
        conf_low=float(result.low),
        conf_high=float(result.high),
        conf_level=result.level,
        p_value=None if result.p_value is None else float(result.p_value),
        n=counts.n,
        n_items=counts.items,
        n_unscored=counts.unscored,
        method=result.method,
        status=status,
        note="; ".join(part for part in (said, note) if part),
        **shared,
    )


def unchanged(row: Estimate) -> bool:
    """Whether a judge's drift is 0 because no verdict of its fixed panel moved at all.

    A census of the panel, not a sample of it: that the panel shows no change needs no interval; the row's interval is on
    other pairs.
    """
    return row.term.startswith("judge_drift_") and row.estimate == 0 and UNCHANGED in row.note


def licence(result: Interval, margin: float | None, null: float | None) -> tuple[Status, str]:
    """(status, words) of an interval: equivalent to ``null``, undetected, or neither, which is ``underpowered``.

    Nothing ("ok", "") where the interval excludes ``null``, or there is no margin or no null.
    """
    if margin is None or null is None or not result.covers(null):
        return "ok", ""
    if tost(result, margin, centre=null):
        return "ok", f"equivalent within ±{margin:g}"
    # Without spread the half-width is all that is known of the precision.
    seen = result.std_error or (result.high - result.low) / 4.0
    detectable = smallest_detectable(seen, result.df)
    what = f"undetected: this sample could have seen {detectable:.3f} with 80 % power"
    return ("underpowered" if detectable > margin else "ok"), what


def ratio_licence(ratio: Interval) -> tuple[Status, str]:
    """(status, words) of a ratio that 1 is the null of: ``underpowered`` where 1 is inside and the interval is too wide."""
    if ratio.covers(1.0) and ratio.high - ratio.low > WIDEST_RATIO:
        return "underpowered", f"the interval is wider than {WIDEST_RATIO:g} and decides nothing"
    return "ok", ""
