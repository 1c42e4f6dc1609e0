"""One tidy row an estimate (CONTRACT, "Estimates"): the dataclass, and the frame that checks its unique key."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import pandas as pd

from judgeloop.records import ESTIMATE_COLUMNS, ESTIMATE_KEY

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
    """The rows as a frame with CONTRACT's columns in order; nullable integers, float64 with NaN for "none", text.

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
