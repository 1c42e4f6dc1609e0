"""Correction of a table of estimates for several tests (docs/method.md, "Many tests").

Each tested row belongs to a family. Holm's method corrects the confirmatory family and the probes of a judge,
Benjamini–Hochberg's the other exploratory rows; a verdict then claims an effect only where the corrected test agrees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.estimate import Verdict

Floats = NDArray[np.float64]

JUDGE_FAMILY = ("first_slot_excess", "length_ame", "style_joint", "padding_probe", "self_preference_gold")
"""The confirmatory terms of a judge (docs/method.md, "Many tests")."""

ALPHA = {"confirmatory": 0.05, "exploratory": 0.10}
"""Holm level of the confirmatory family; Benjamini–Hochberg rate of the exploratory one."""

_COMPATIBILITY = ("alpaca_", "arena_", "preference_fairness", "position_consistency", "judgebench_")
_KEYS = ("family", "scope", "judge", "arm", "contrast")
_PROBE_KEYS = ("generation", "panel", "category")


def holm(p_values: Floats, tests: float | None = None) -> Floats:
    """Holm's (1979) step-down adjusted p-values, in the order given: familywise error. ``tests``: their number where more are
    still to come (default: those given)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * ((len(p) if tests is None else tests) - np.arange(len(p))))
    return _in_given_order(np.minimum(1.0, stepped), order)


def benjamini_hochberg(p_values: Floats) -> Floats:
    """Benjamini & Hochberg's (1995) step-up adjusted p-values, in the order given: false discovery rate."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / (1.0 + np.arange(len(p)))
    stepped = np.minimum.accumulate(scaled[::-1])[::-1]
    return _in_given_order(np.minimum(1.0, stepped), order)


def _in_given_order(values: Floats, order: NDArray[np.intp]) -> Floats:
    """The sorted values at the places that ``order`` took them from."""
    result = np.empty(len(values))
    result[order] = values
    return result


def with_judge_families(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``family`` of an audit's judge rows: confirmatory, exploratory (any other tested primary), else none.

    ``none`` holds variants (sensitivity analyses of a primary), rows without a p (descriptions) and the published measures of
    other tools.
    """
    tested = (frame["scope"] == "judge") & (frame["variant"] == "") & frame["p_value"].notna()
    tested &= (frame["status"] != "undefined") & ~frame["term"].str.startswith(_COMPATIBILITY)
    confirmatory = tested & (frame["category"] == "") & frame["term"].isin(JUDGE_FAMILY)
    family = np.where(confirmatory, "confirmatory", np.where(tested, "exploratory", "none"))
    return frame.assign(family=pd.Series(family, index=frame.index, dtype=frame["family"].dtype))


def with_run_families(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with ``family`` of a run's rows: exploratory for every tested primary that is not marked confirmatory yet.

    All features, generations, judges and signals are searched for change, so their tests are corrected together. ``none`` is
    as in an audit (``with_judge_families``).
    """
    tested = (frame["family"] == "none") & (frame["variant"] == "") & frame["p_value"].notna()
    tested &= (frame["status"] != "undefined") & ~frame["term"].str.startswith(_COMPATIBILITY)
    return frame.assign(family=frame["family"].mask(tested, "exploratory"))


def adjust(frame: pd.DataFrame, looks: float = 1.0) -> pd.DataFrame:
    """The estimates with ``p_adjusted``, and with the ``verdict`` that the corrected test leaves (``settled``).

    Holm within family confirmatory, Benjamini–Hochberg within exploratory; families are kept apart by scope, judge, arm and
    contrast. Exploratory ``<probe>_probe`` rows are a family of their own, by generation, panel and category, corrected by
    Holm: of a dozen edits tried on a judge, one works by chance. ``phrase_spread``, whose p is that of all phrases already, is
    one too. Rows of family ``none`` describe: they lose their p-value, which would read as a test, and keep their interval.
    ``looks``: how many times as many tests of judge drift the whole run has, where it goes on (``Design.looks``).
    """
    p_values = frame["p_value"].to_numpy(dtype=np.float64)
    families: dict[tuple[Any, ...], list[int]] = {}
    columns = (frame[name].astype("object") for name in (*_KEYS, *_PROBE_KEYS, "term"))
    for place, (p, *keys, term) in enumerate(zip(p_values, *columns, strict=True)):
        if keys[0] not in ALPHA or np.isnan(p):
            continue
        is_probe = term.endswith("_probe") and not term.startswith("judge_drift_")
        is_apart = keys[0] == "exploratory" and (is_probe or term == "phrase_spread")
        family = (is_apart, *(None if pd.isna(key) else key for key in (keys if is_apart else keys[: len(_KEYS)])))
        families.setdefault(family, []).append(place)
    adjusted = np.full(len(frame), np.nan)
    is_drift = frame["term"].str.startswith("judge_drift_").to_numpy(dtype=np.bool_)
    for (is_apart, family, *_), places in families.items():
        tests = len(places) * (looks if is_drift[places].all() else 1.0)
        by_holm = is_apart or family == "confirmatory"
        adjusted[places] = holm(p_values[places], tests) if by_holm else benjamini_hochberg(p_values[places])
    return frame.assign(
        p_value=frame["p_value"].where(frame["family"] != "none"),
        p_adjusted=adjusted,
        verdict=_settled_verdicts(frame, adjusted),
    )


def settled(
    verdict: Verdict, low: float | None, high: float | None, p_adjusted: float, family: str, term: str
) -> Verdict:
    """The verdict after correction for several tests: an effect is claimed only where the corrected test agrees.

    ``low`` and ``high`` are the limits of the interval, whose null is 0; None for a test without an interval.
    """
    agrees = p_adjusted <= ALPHA.get(family, 1.0)
    effect: Verdict = "drifting" if term.startswith(("did_", "drift_")) else "found"
    if verdict == "found_if_unscored_alike":
        effect = verdict
    if low is None or high is None:
        return effect if agrees else "undetected"
    if verdict not in ("found", "drifting", "cannot_tell", effect) or low <= 0 <= high:
        return verdict
    return effect if agrees else "cannot_tell"


def _settled_verdicts(frame: pd.DataFrame, adjusted: Floats) -> pd.Series[str]:
    verdicts: list[Verdict] = []
    columns = (frame[name] for name in ("verdict", "conf_low", "conf_high", "family", "term"))
    for verdict, low, high, family, term, p in zip(*columns, adjusted, strict=True):
        no_interval = pd.isna(low)
        if not np.isnan(p):
            verdict = settled(verdict, None if no_interval else low, None if no_interval else high, p, family, term)
        elif no_interval and verdict in ("found", "found_if_unscored_alike", "undetected"):
            # A test without an interval that is in no family has lost its p-value, and with it its claim.
            verdict = ""
        verdicts.append(verdict)
    return pd.Series(verdicts, index=frame.index, dtype=frame["verdict"].dtype)
