"""Coverage of every confirmatory term's interval over a grid of planted judges (the method notes §7.9).

A cell is a judge (position γ, length β per doubling), a number of items, and shares of unscored replies and ties. A truth
is the value that the estimator estimates: with ties, which count ½, a slope's is the quasi-likelihood's pseudo-true value,
by quadrature. ``style_joint`` is a test without an interval: its entry is the coverage of the joint confidence region, how
often the score test does not reject the truth.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from judgeloop.seeds import rng
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.joint import joint_score
from judgeloop.stats.judge.slopes import Slopes
from judgeloop.validate import grid_readers
from judgeloop.validate.grid_readers import BOLD, DOSE, ITEM_SD, KAPPA, LATENT, RHO, Sample
from judgeloop.validate.worlds import Floats, logistic

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)


@dataclass(frozen=True, slots=True)
class Cell:
    """A planted judge, and the size and losses of a sample of its judgments."""

    position: float
    length: float
    items: int
    unscored: float
    ties: float

    @property
    def name(self) -> str:
        """As ``position=0.4,length=0.3,items=100,unscored=0.1,ties=0``."""
        return (
            f"position={self.position:g},length={self.length:g},items={self.items},unscored={self.unscored:g},"
            f"ties={self.ties:g}"
        )


GRID = tuple(
    Cell(*setting)
    for setting in itertools.product((-1.0, 0.0, 0.4, 1.5), (0.0, 0.3), (30, 100, 400), (0.0, 0.1), (0.0, 0.2))
)


@dataclass(frozen=True, slots=True)
class Truths:
    """The estimands of a cell; ``slopes`` are the content model's (order, length, bold, gold) pseudo-true coefficients."""

    first_slot_excess: float
    length_ame: float
    slopes: tuple[float, float, float, float]
    padding_probe: float
    self_preference_gold: float
    length_ame_two_golds: float | None


def truths(cell: Cell) -> Truths:
    """The estimands of a cell, by Gauss–Hermite quadrature over length, style and quality (or the item's own level)."""
    grid = np.stack([axis.ravel() for axis in np.meshgrid(_NODES, _NODES, _NODES, indexing="ij")])
    weights = np.prod(np.meshgrid(_WEIGHTS, _WEIGHTS, _WEIGHTS, indexing="ij"), axis=0).ravel() / (2 * math.pi) ** 1.5
    length, bold = grid[0], grid[1]
    gold = RHO * length + math.sqrt(1.0 - RHO**2) * grid[2]
    content = cell.length * length + BOLD * bold + KAPPA * gold
    decided = 1.0 - cell.ties

    def picked_rate(log_odds: Floats) -> Floats:
        return decided * logistic(log_odds) + cell.ties / 2.0

    orders = [(1.0, picked_rate(cell.position + content)), (-1.0, picked_rate(content - cell.position))]
    x = [np.stack([np.full(len(length), o), length, bold, gold], axis=1) for o, _ in orders]

    def score(b: Floats) -> Floats:
        parts = [
            columns.T @ (weights * (rates - logistic(columns @ b)))
            for columns, (_, rates) in zip(x, orders, strict=True)
        ]
        return np.asarray(parts[0] + parts[1])

    slopes = optimize.root(score, np.array([cell.position, cell.length, BOLD, KAPPA]), tol=1e-12).x
    effect = np.mean([float(weights @ _density(columns @ slopes)) for columns in x])
    first = 0.5 * float(weights @ (orders[0][1] + 1.0 - orders[1][1])) - 0.5
    u, w = _NODES * ITEM_SD, _WEIGHTS / math.sqrt(2.0 * math.pi)
    dose = cell.length * math.log2(DOSE)
    probe = float(w @ (picked_rate(dose + u - cell.position) + picked_rate(dose + u + cell.position))) / 2.0 - 0.5
    latent = None
    # Thirty items have too few pairs for the correction. It is the study's slowest fit: only where every reply is scored, and
    # with ties only at 100 items.
    if cell.unscored == 0.0 and cell.items >= 100 and (cell.ties == 0.0 or cell.items == 100):
        quality = LATENT["length"] * length + LATENT["sd"] * grid[2]
        eta = cell.length * length + BOLD * bold + KAPPA * quality
        bends = [float(weights @ _density(eta + o * cell.position)) for o in (1.0, -1.0)]
        # The change of P(a) + ½P(tie): these judges tie by a coin, whatever the content.
        latent = decided * cell.length * float(np.mean(bends))
    self_preference = float(np.mean([_follows_gold(cell, 1.0, o) - _follows_gold(cell, -1.0, o) for o in (1.0, -1.0)]))
    return Truths(first, float(slopes[1]) * float(effect), tuple(slopes.tolist()), probe, self_preference, latent)  # type: ignore[arg-type]


def _density(eta: Floats) -> Floats:
    return np.asarray(logistic(eta) * (1.0 - logistic(eta)))


def _follows_gold(cell: Cell, side: float, order: float) -> float:
    """P(the judge picks the text that gold prefers), which is its own (side +1) or the other (−1), in ``order`` ±1."""
    # The margin of gold, given which text it prefers, is half normal: the midpoint rule on its quantiles.
    q = stats.halfnorm.ppf((np.arange(2000) + 0.5) / 2000)
    follow = logistic(order * cell.position + cell.length * side + KAPPA * q)
    return float((1.0 - cell.ties) * np.mean(follow) + cell.ties / 2.0)


Outcome = tuple[str, float, bool | None]
"""A term (with its variant), the truth, and whether its interval covers it; None where the estimate is undefined."""


def replication(cell: Cell, truth: Truths, seed: int, number: int) -> list[Outcome]:
    """One sample of the cell: for each confirmatory term, whether its interval covers the truth."""
    sample = _sample(cell, truth, rng(seed, "validate", "coverage", cell.name, number))
    intervals = grid_readers.by_arrays(sample)
    outcomes: list[Outcome] = [
        ("first_slot_excess", truth.first_slot_excess, _covers(intervals["first_slot_excess"], truth.first_slot_excess)),
        ("length_ame", truth.length_ame, _covers(intervals["length_ame"], truth.length_ame)),
        ("style_joint", math.nan, _joint_region_covers(intervals["model"], truth)),
        ("padding_probe", truth.padding_probe, _covers(intervals["padding_probe"], truth.padding_probe)),
        ("self_preference_gold", truth.self_preference_gold, _covers(intervals["self_preference_gold"], truth.self_preference_gold)),
    ]  # fmt: skip
    if truth.length_ame_two_golds is not None:
        length_ame = truth.length_ame_two_golds
        outcomes.append(
            ("length_ame (two golds)", length_ame, _covers(intervals["length_ame (two golds)"], length_ame))
        )
    return outcomes


def differing_terms(cell: Cell, truth: Truths, seed: int) -> frozenset[str]:
    """The terms whose interval in the users' tables differs, on one sample, from the one that ``replication`` computes."""
    sample = _sample(cell, truth, rng(seed, "validate", "coverage", cell.name, "same"))
    arrays = grid_readers.by_arrays(sample)
    limits = {name: _limits(interval) for name, interval in arrays.items() if not isinstance(interval, Slopes)}
    limits["style_joint"] = _joint(arrays["model"])
    reported = grid_readers.by_tables(sample)
    return frozenset(name for name in reported if not _equal_limits(limits[name], reported[name]))


def _sample(cell: Cell, truth: Truths, generator: np.random.Generator) -> Sample:
    return grid_readers.draw(
        cell.position, cell.length, cell.items, cell.unscored, cell.ties, generator,
        two_golds=truth.length_ame_two_golds is not None,
    )  # fmt: skip


def _equal_limits(a_limits: tuple[float | None, float | None], b_limits: tuple[float | None, float | None]) -> bool:
    """Whether two pairs of limits are equal, up to the rounding of sums in another order."""
    return all(
        a is b is None or (a is not None and b is not None and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12))
        for a, b in zip(a_limits, b_limits, strict=True)
    )


def _limits(interval: Interval | Undefined) -> tuple[float | None, float | None]:
    return (None, None) if isinstance(interval, Undefined) else (interval.low, interval.high)


def _joint(model: Slopes | Interval | Undefined) -> tuple[float | None, float | None]:
    """(F, p) of the joint test of no effect."""
    result = joint_score(model, model.features) if isinstance(model, Slopes) else None
    return (None, None) if result is None or isinstance(result, Undefined) else (result.f, result.p_value)


def _joint_region_covers(model: Slopes | Interval | Undefined, truth: Truths) -> bool | None:
    """Whether the score test at 5 % does not reject the true slopes of length and bold."""
    if not isinstance(model, Slopes) or not {"length", "bold"} <= set(model.names):
        return None
    result = joint_score(model, ("length", "bold"), at=np.array(truth.slopes[1:3]))
    return None if isinstance(result, Undefined) else result.p_value > 0.05


def _covers(interval: Slopes | Interval | Undefined, truth: float) -> bool | None:
    return interval.covers(truth) if isinstance(interval, Interval) else None
