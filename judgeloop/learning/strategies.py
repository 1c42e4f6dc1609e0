"""Data strategies: how one item's training set is mixed from this and earlier generations and real data.

A training set is a mixture of selected-text distributions (docs/method.md, "Training sets"). Candidate ids are unique
in an item over generations, so a mixture is a sum by id; shares are those of texts. A policy whose weights are trained has a
list of preference pairs instead (``mix_pairs``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from judgeloop.experiment.schema import StrategySpec

Row = TypeVar("Row")

Parts = Sequence[tuple[float, Mapping[str, float]]]


def mix(
    strategy: StrategySpec,
    *,
    selections: Sequence[Mapping[str, float]],
    generation_zero: Mapping[str, float],
    real: Mapping[str, float] | None,
    size: int,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One item's training set after generation t: candidate_id → share, in [0, 1], sum 1.

    selections: S_0 … S_t of this item, each a distribution. generation_zero: the distribution of generation 0's
        candidates. real: the item's real texts; None is generation_zero. size: texts a generation (K).

    - replace: S_t;
    - accumulate: equal parts of generation_zero and S_0 … S_t, 1/(t+2) each;
    - accumulate_subsample: ``size`` independent draws, with replacement, from what accumulate gives.

    A share ``real_fraction`` of the set is real: it joins the mixture, before the draw where there is one. An empty
    distribution (the item lost all its candidates in that generation, or has no real text) is left out and the others
    keep their proportions; all empty gives {}. Only accumulate_subsample uses ``rng``: exactly ``size`` uniforms.

    Order: ids as they first appear in generation_zero, S_0 … S_t, real (those of the parts that are mixed).

    Raises ValueError if there is no selection, a part is no distribution, or size < 1.
    """
    if not selections:
        raise ValueError("a training set needs the selection of at least one generation")
    if size < 1:
        raise ValueError(f"size must be 1 text or more, not {size}")
    parts = [selections[-1]] if strategy.kind == "replace" else [generation_zero, *selections]
    synthetic = _mixture([(1.0, part) for part in parts])
    alpha = strategy.real_fraction
    mixture = _mixture([(1.0 - alpha, synthetic), (alpha, generation_zero if real is None else real)])
    if strategy.kind == "accumulate_subsample" and mixture:
        return _draw(mixture, size, rng)
    return mixture


def mix_pairs(
    strategy: StrategySpec, *, generations: Sequence[Sequence[Row]], real: Sequence[Row], rng: np.random.Generator
) -> list[Row]:
    """The preference pairs that are trained on after generation t, N of them.

    generations: the pairs of generations 0 … t. real: pairs whose chosen text is real data.

    - replace: those of generation t;
    - accumulate: those of generations 0 … t, so that the set grows;
    - accumulate_subsample: as many as generation t has, drawn from these independently, with replacement.

    With a share ``real_fraction`` round(N·share) of the N pairs are real, drawn without replacement (all of them before any
    a second time), and take the place of pairs drawn at random. Without real pairs nothing is replaced.
    """
    pairs = list(generations[-1]) if strategy.kind == "replace" else [pair for part in generations for pair in part]
    if strategy.kind == "accumulate_subsample" and pairs:
        pairs = [pairs[int(place)] for place in rng.integers(len(pairs), size=len(generations[-1]))]
    count = round(strategy.real_fraction * len(pairs)) if real else 0
    if not count:
        return pairs
    kept = sorted(rng.permutation(len(pairs))[count:].tolist())
    rounds = [rng.permutation(len(real)) for _ in range(-(-count // len(real)))]
    chosen = np.concatenate(rounds)[:count].tolist()
    return [*(pairs[place] for place in kept), *(real[place] for place in chosen)]


def _mixture(parts: Parts) -> dict[str, float]:
    """The weighted mixture of the parts that are not empty; weights in proportion, those of 0 left out."""
    present = [(weight, part) for weight, part in parts if weight > 0.0 and part]
    for _, part in present:
        total = math.fsum(part.values())
        if any(not mass >= 0.0 for mass in part.values()) or not math.isclose(total, 1.0, abs_tol=1e-6):
            raise ValueError(f"every part is a distribution that sums to 1, not {total}")
    if len(present) == 1:
        # The part itself, unscaled, so that replace gives exactly the selection.
        return dict(present[0][1])
    total_weight = math.fsum(weight for weight, _ in present)
    mixture: dict[str, float] = {}
    for weight, part in present:
        for candidate, mass in part.items():
            mixture[candidate] = mixture.get(candidate, 0.0) + weight / total_weight * mass
    return mixture


def _draw(mixture: Mapping[str, float], size: int, rng: np.random.Generator) -> dict[str, float]:
    """The empirical distribution of ``size`` independent draws, by inversion: mixtures that are close (two arms under
    one stream) draw mostly the same texts."""
    cumulative = np.cumsum(np.fromiter(mixture.values(), dtype=np.float64, count=len(mixture)))
    # Scaled to end in exactly 1, and searched from the right: no uniform in [0, 1) falls beyond the last text, or on one
    # without mass.
    positions = np.searchsorted(cumulative / cumulative[-1], rng.random(size), side="right")
    counts = np.bincount(positions, minlength=len(mixture))
    return {candidate: float(count) / size for candidate, count in zip(mixture, counts, strict=True)}
