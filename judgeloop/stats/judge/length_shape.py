"""Whether length moves a judge's picks by one slope, and how the picks go with length where it does not.

A slope of 0 is no sign that length does not count: a taste for one length, which prefers the longer text below it and the
shorter one above, decides picks and has no slope (docs/method.md, "The shape of length's effect"). Positive = the longer text
is picked more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import Interval, Undefined, clustered_proportion
from judgeloop.stats.judge.covariates import Covariates, covariates
from judgeloop.stats.judge.slopes import JointTest, Slopes, joint_score
from judgeloop.stats.presentations import Booleans, Floats

LENGTH_SHAPE = "length_shape"
"""The term of the test that length moves the picks by its slope alone."""
SHORT, LONG, SMALL, LARGE = "short_pairs", "long_pairs", "small_differences", "large_differences"
"""Variants of ``length_ame``: of the half of the pairs with the shorter texts, the longer ones, and of the half whose lengths
differ less, or more."""
SHAPE_LEVEL = 0.05
"""Level at which the test of the shape withholds ``none``, and the halves are reported."""
_WITHHELD = ("length_ame", "length_log_odds", "gold_tied_longer_excess", "excess_longer_vs_gold")
"""The terms that would say that length has no effect."""
_BINS, _FEWEST_ROWS = 4, 10


def shape_test(slopes: Slopes, mean_length: Floats | None) -> JointTest | Undefined:
    """The cluster score test that length moves the log-odds by its slope alone, at every length and every difference.

    ``mean_length`` (n,) of each row's two texts, in doublings. Tested beside the model's columns: ΔL × (mean length − its
    mean), which is not 0 where the taste changes with length (a quadratic taste for one length), and ΔL·|ΔL|, where it
    changes with the size of the difference. Both change sign with the texts, as the slope does. (ΔL³ would rest on the few
    largest differences: it rejects a true null in 6.8 % of 1,500 samples of 200 pairs, this in 6.1 %, and it finds less.)
    """
    shaped = with_shape(slopes, mean_length)
    return shaped if isinstance(shaped, Undefined) else joint_score(*shaped)


def with_shape(slopes: Slopes, mean_length: Floats | None) -> tuple[Slopes, tuple[str, ...]] | Undefined:
    """The model with the columns that ``shape_test`` tests, at its own coefficients, and their names."""
    if "length" not in slopes.names or mean_length is None:
        return Undefined(slopes.left_out.get("length", "length does not differ between the texts"))
    difference = slopes.x[:, slopes.names.index("length")]
    added = np.stack([difference * (mean_length - mean_length.mean()), difference * np.abs(difference)], axis=1)
    # A column that the others make up already (lengths that differ by one amount) has nothing to be tested on.
    left = added - slopes.x @ np.linalg.lstsq(slopes.x, added, rcond=None)[0]
    own = np.sum(left**2, axis=0) > 1e-8 * np.sum(added**2, axis=0)
    if not own.any():
        return Undefined("the texts' lengths do not differ enough to show a shape")
    names = tuple(name for name, kept in zip(("length × mean length", "length × |length|"), own, strict=True) if kept)
    columns = left[:, own] / np.sqrt(np.mean(left[:, own] ** 2, axis=0))
    extended = replace(
        slopes, names=(*slopes.names, *names), x=np.column_stack([slopes.x, columns]), first_stage=None
    )  # fmt: skip
    return extended, names


def rejects_slope(shape: JointTest | Undefined | None) -> bool:
    """Whether the test of the shape shows that length moves the picks other than by one slope."""
    return isinstance(shape, JointTest) and shape.p_value <= SHAPE_LEVEL


def withheld_where_not_linear(estimate: Estimate, shape: JointTest | Undefined | None) -> Estimate:
    """The row; where it would say that length has no effect and ``shape`` rejects a slope, with the verdict ``not_linear``.

    A taste for one length, longer below it and shorter above, has a slope of 0 and decides the picks all the same.
    """
    if estimate.term in _WITHHELD and estimate.verdict == "none" and rejects_slope(shape):
        return replace(estimate, verdict="not_linear")
    return estimate


def halves(rows: Covariates) -> dict[str, Booleans]:
    """The variants of ``length_ame`` that show a shape, each with the rows (n,) of its half; empty where no length is known."""
    mean, length = rows.mean_length, rows.length
    if mean is None or length is None:
        return {}
    size = np.abs(length)
    short, small = mean <= np.median(mean), size <= np.median(size[size > 0])
    return {SHORT: short, LONG: ~short, SMALL: small, LARGE: ~small}


@dataclass(frozen=True, slots=True)
class LengthBin:
    """How often the longer text was picked (probability, a tie ½), in judgments alike in length and order.

    ``half``: SHORT or LONG, of the pairs by their texts' mean length; ``longer_first``: the longer text was shown first;
    ``difference``: mean of |ΔL|, in doublings; ``n`` judgments of ``n_items`` items.
    """

    half: str
    longer_first: bool
    difference: float
    picked: Interval
    n: int
    n_items: int


def picks_by_length(
    judgments: pd.DataFrame, texts: pd.DataFrame | None, scales: Mapping[str, float] | None = None
) -> list[LengthBin]:
    """The bins of one judge's judgments, four of equal counts by |ΔL| in each half and order; arguments as in ``covariates``.

    Bins of fewer than ten judgments are left out; empty where the texts' lengths are not known or never differ.
    """
    rows = covariates(judgments, texts, scales=scales)
    length = rows.length
    if length is None or not np.any(length != 0):
        return []
    size, longer = np.abs(length), np.where(length > 0, rows.picked_a, 1.0 - rows.picked_a)
    longer_first = (rows.order > 0) == (length > 0)
    edges = np.quantile(size[size > 0], np.arange(1, _BINS) / _BINS)
    place = np.searchsorted(edges, size)
    bins = []
    by_half = halves(rows)
    for half in (SHORT, LONG):
        for first in (True, False):
            for number in range(_BINS):
                shown = by_half[half] & (longer_first == first) & (place == number) & (size > 0)
                if shown.sum() < _FEWEST_ROWS:
                    continue
                picked = clustered_proportion(longer[shown], rows.items[shown])
                if isinstance(picked, Interval):
                    items = len(np.unique(rows.items[shown]))
                    bins.append(LengthBin(half, first, float(size[shown].mean()), picked, int(shown.sum()), items))
    return bins
