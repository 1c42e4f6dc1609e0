"""The project's data strategies applied to whole batches: the share of each batch in the training set.

``strategies.mix`` mixes distributions over texts. A generation that is one batch of draws is one id with all its mass, so
the share that ``mix`` gives an id is the share of that batch, and a learner may then be vectorised over many simulated
loops. ``agrees`` checks that mixing the single points gives the same training set.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.experiment.schema import Strategy
from judgeloop.learning import strategies

Floats = NDArray[np.float64]

REPLACE = Strategy(kind="replace")
ACCUMULATE = Strategy(kind="accumulate")
SUBSAMPLE = Strategy(kind="accumulate_subsample")


def shares(strategy: Strategy, synthetic: int, *, fresh_real: bool = False) -> dict[int, float]:
    """Share of the training set by batch: 0 is generation 0's real batch, k ≥ 1 the k-th synthetic one; with
    ``fresh_real``, −1 is a new real batch, from which the share ``real_fraction`` comes.

    Not for accumulate_subsample, whose training set is a random draw.
    """
    training = strategies.mix(
        strategy,
        selections=[{str(k): 1.0} for k in range(1, synthetic + 1)],
        generation_zero={"0": 1.0},
        real={"-1": 1.0} if fresh_real else None,
        size=1,
        rng=seeds.rng(0, "validate", "no draw"),
    )
    return {int(batch): share for batch, share in training.items()}


def pointwise(strategy: Strategy, batches: list[list[str]], size: int, rng: np.random.Generator) -> dict[str, float]:
    """The training set over single points: every batch is a uniform distribution over its ids."""
    parts = [dict.fromkeys(batch, 1.0 / len(batch)) for batch in batches]
    return strategies.mix(
        strategy, selections=parts[1:], generation_zero=parts[0], real=None, size=size, rng=rng
    )  # fmt: skip


def agrees(strategy: Strategy, synthetic: int, size: int = 4) -> bool:
    """Whether mixing points gives each point its batch's share, divided by the batch's size."""
    batches = [[f"{batch}:{point}" for point in range(size)] for batch in range(synthetic + 1)]
    points = pointwise(strategy, batches, size, seeds.rng(0, "validate", "no draw"))
    whole: Mapping[int, float] = shares(strategy, synthetic)
    expected = {f"{batch}:{p}": share / size for batch, share in whole.items() for p in range(size)}
    return expected.keys() == points.keys() and all(abs(points[name] - expected[name]) < 1e-12 for name in expected)
