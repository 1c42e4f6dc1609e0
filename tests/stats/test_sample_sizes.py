"""Sample sizes: the figures of docs/method.md, "Sample sizes", and the power that they state, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from judgeloop import seeds
from judgeloop.stats.inference import (
    detectable_per_sd,
    mcnemar_mid_p,
    pairs_for_equivalence,
    pairs_for_position,
    replicates_for,
    rows_for_slope,
)


@pytest.mark.parametrize(
    ("excess", "conflict", "pairs"),
    [
        (0.05, 0.2, 155),
        (0.05, 0.3, 234),
        (0.05, 0.4, 312),
        (0.05, 0.5, 391),
        (0.05, 1.0, 783),
        (0.03, 0.3, 652),
        (0.10, 0.3, 57),
    ],
)
def test_pairs_for_position(excess, conflict, pairs):
    assert pairs_for_position(excess, conflict) == pytest.approx(pairs, abs=1)


def test_an_excess_beyond_half_the_conflict_is_impossible():
    with pytest.raises(ValueError, match="conflict"):
        pairs_for_position(0.2, 0.3)


def test_pairs_for_equivalence():
    assert pairs_for_equivalence(0.02, 0.3) == pytest.approx(1600, rel=0.01)


def test_rows_for_slope():
    # The notes' 3816/967/440: a covariate and a quality of SD 1, κ = 1.
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    for slope, rows in ((0.1, 3816), (0.2, 967), (0.3, 440)):
        p = 1 / (1 + np.exp(-slope * nodes[:, None] - nodes[None, :]))
        information = float((weights * nodes**2) @ (p * (1 - p)) @ weights)
        assert rows_for_slope(slope, information) == pytest.approx(rows, abs=2)
    assert rows_for_slope(0.2, 0.25, r_squared=0.5, design_effect=2) == pytest.approx(
        4 * rows_for_slope(0.2, 0.25), abs=4
    )


def test_replicates():
    assert detectable_per_sd(8) == pytest.approx(1.16, abs=0.006)
    for effect in (0.5, 1.0, 1.2, 2.0):
        needed = replicates_for(effect)
        assert detectable_per_sd(needed) <= effect < detectable_per_sd(needed - 1)
    with pytest.raises(ValueError, match="more than"):
        replicates_for(0.001, most=100)


def test_the_planned_pairs_have_the_power():
    # 234 pairs at ψ = .3, Δ = .05: both-first .2, both-second .1.
    runs, rng = 1500, seeds.rng(0, "power")
    counts = rng.multinomial(234, [0.2, 0.1, 0.7], size=runs)
    power = np.mean([mcnemar_mid_p(int(ff), int(ss)) < 0.05 for ff, ss, _ in counts])
    assert power == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / runs))
