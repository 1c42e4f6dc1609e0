"""A probe's effect less what its added (or cut) tokens alone are worth to this judge. Positive = the edit wins beyond its length.

Most edits add words. What words are worth is read from the padding probe: the logistic curve s(βδ + γo) over δ = log2 of the
length that each padded text reached, o = ±1 the slot of the edit. A straight line per doubling would promise too much to long
edits and too little to short ones: a judge with no taste but length would then be found to trust authorities.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import kernels
from judgeloop.stats.inference import Interval, Undefined, t_interval

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
