"""Coverage of every confirmatory term's interval over a grid of planted judges (the method notes §7.9).

A cell is a judge (position γ, length β per doubling), a number of items, and shares of unscored replies and ties. Truths
are those of the estimand as it stands: with ties, which carry ½, a slope's is the quasi-likelihood's pseudo-true value, by
quadrature. ``style_joint`` is a test without an interval: its entry is the coverage of the joint confidence region, the
Wald statistic at the truth below its critical value.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats

from judgeloop.seeds import rng
from judgeloop.stats.content import content_estimates
from judgeloop.stats.covariates import covariates
from judgeloop.stats.inference import Interval, Undefined
from judgeloop.stats.latent_quality import fit_latent
from judgeloop.stats.position import first_slot_excess, position_estimates
from judgeloop.stats.probes import probe_estimates
from judgeloop.stats.rows import Labels
from judgeloop.stats.self_preference import self_preference_gold
from judgeloop.stats.slopes import Slopes, average_effect, fit_slopes, joint_wald
from judgeloop.validate.worlds import Floats, Verdicts, judged, logistic, pair_table, picks, texts

BOLD, KAPPA, RHO, ITEM_SD, DOSE = 0.2, 1.0, 0.3, 0.5, 1.5
LATENT = {"length": 0.4, "sd": 1.0}
_SCALES = {"bold": 1.0}
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)


@dataclass(frozen=True, slots=True)
class Cell:
    """A planted judge and the sample that it is read from."""

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
    Cell(*one) for one in itertools.product((-1.0, 0.0, 0.4, 1.5), (0.0, 0.3), (30, 100, 400), (0.0, 0.1), (0.0, 0.2))
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
    """By Gauss–Hermite quadrature over length, style, quality (or the item's own level)."""
    grid = np.stack([axis.ravel() for axis in np.meshgrid(_NODES, _NODES, _NODES, indexing="ij")])
    weights = np.prod(np.meshgrid(_WEIGHTS, _WEIGHTS, _WEIGHTS, indexing="ij"), axis=0).ravel() / (2 * math.pi) ** 1.5
    length, bold = grid[0], grid[1]
    gold = RHO * length + math.sqrt(1.0 - RHO**2) * grid[2]
    content = cell.length * length + BOLD * bold + KAPPA * gold
    decided = 1.0 - cell.ties

    def said(log_odds: Floats) -> Floats:
        return decided * logistic(log_odds) + cell.ties / 2.0

    both = [(1.0, said(cell.position + content)), (-1.0, said(content - cell.position))]
    x = [np.stack([np.full(len(length), o), length, bold, gold], axis=1) for o, _ in both]

    def score(b: Floats) -> Floats:
        parts = [
            columns.T @ (weights * (seen - logistic(columns @ b))) for columns, (_, seen) in zip(x, both, strict=True)
        ]
        return np.asarray(parts[0] + parts[1])

    slopes = optimize.root(score, np.array([cell.position, cell.length, BOLD, KAPPA]), tol=1e-12).x
    effect = np.mean([float(weights @ _density(columns @ slopes)) for columns in x])
    first = 0.5 * float(weights @ (both[0][1] + 1.0 - both[1][1])) - 0.5
    u, w = _NODES * ITEM_SD, _WEIGHTS / math.sqrt(2.0 * math.pi)
    dose = cell.length * math.log2(DOSE)
    probe = float(w @ (said(dose + u - cell.position) + said(dose + u + cell.position))) / 2.0 - 0.5
    latent = None
    if cell.ties == 0.0 and cell.items >= 100:
        quality = LATENT["length"] * length + LATENT["sd"] * grid[2]
        eta = cell.length * length + BOLD * bold + KAPPA * quality
        bends = [float(weights @ _density(eta + o * cell.position)) for o in (1.0, -1.0)]
        latent = cell.length * float(np.mean(bends))
    own = float(np.mean([_follows(cell, 1.0, o) - _follows(cell, -1.0, o) for o in (1.0, -1.0)]))
    return Truths(first, float(slopes[1]) * float(effect), tuple(slopes.tolist()), probe, own, latent)  # type: ignore[arg-type]


def _density(eta: Floats) -> Floats:
    return np.asarray(logistic(eta) * (1.0 - logistic(eta)))


def _follows(cell: Cell, side: float, order: float) -> float:
    """P(the judge picks what gold prefers), where that is its own text (side +1) or the other's, shown in ``order``."""
    # The margin of gold, given whom it prefers, is half normal: the midpoint rule on its quantiles.
    q = stats.halfnorm.ppf((np.arange(2000) + 0.5) / 2000)
    follow = logistic(order * cell.position + cell.length * side + KAPPA * q)
    return float((1.0 - cell.ties) * np.mean(follow) + cell.ties / 2.0)


Outcome = tuple[str, float, bool | None]
"""A term (with its variant), the truth, and whether its interval covers it; None where the estimate is undefined."""


def replication(cell: Cell, truth: Truths, seed: int, number: int) -> list[Outcome]:
    """One sample of the cell: each confirmatory term's interval against its truth."""
    generator = rng(seed, "validate", "coverage", cell.name, number)
    table = pair_table(cell.items)
    length, bold, rest = generator.standard_normal((3, cell.items))
    gold = RHO * length + math.sqrt(1.0 - RHO**2) * rest
    features = texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))
    judgments = judged(
        table, _both(cell, cell.length * length + BOLD * bold + KAPPA * gold, generator), columns={"gold": gold}
    )
    place = first_slot_excess(judgments)
    rows = covariates(judgments, features, scales=_SCALES)
    model = fit_slopes(rows, rows.gold)
    effect = model if isinstance(model, Undefined) else average_effect(model, "length")
    found: list[Outcome] = [
        ("first_slot_excess", truth.first_slot_excess, _within(place, truth.first_slot_excess)),
        ("length_ame", truth.length_ame, _within(effect, truth.length_ame)),
        ("style_joint", math.nan, _region(model, truth)),
        _probe(cell, truth, generator),
        _own(cell, truth, generator),
    ]
    if truth.length_ame_two_golds is not None:
        found.append(_two_golds(cell, truth.length_ame_two_golds, generator))
    return found


def differing_terms(cell: Cell, seed: int) -> frozenset[str]:
    """The terms whose reported intervals are not those that ``replication`` reads from the estimators' parts."""
    generator = rng(seed, "validate", "coverage", cell.name, "same")
    table = pair_table(cell.items)
    length, bold, gold = generator.standard_normal((3, cell.items))
    features = texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))
    judgments = judged(table, _both(cell, cell.length * length + KAPPA * gold, generator), columns={"gold": gold})
    rows = covariates(judgments, features, scales=_SCALES)
    model = fit_slopes(rows, rows.gold)
    parts = {
        "length_ame": model if isinstance(model, Undefined) else average_effect(model, "length"),
        "first_slot_excess": first_slot_excess(judgments),
    }
    reported = [*content_estimates(judgments, features, scales=_SCALES), *position_estimates(judgments)]
    differ = set()
    for one in reported:
        if one.term in parts and not one.variant:
            part = parts[one.term]
            limits = (None, None) if isinstance(part, Undefined) else (part.low, part.high)
            if (one.conf_low, one.conf_high) != limits:
                differ.add(one.term)
    return frozenset(differ)


def _both(cell: Cell, content: Floats, generator: np.random.Generator) -> dict[str, Verdicts]:
    return {
        order: picks(cell.position + sign * content, generator, tie=cell.ties, unscored=cell.unscored)
        for order, sign in (("ab", 1.0), ("ba", -1.0))
    }


def _probe(cell: Cell, truth: Truths, generator: np.random.Generator) -> Outcome:
    # Candidate b is the edit, candidate a the original; items differ in what they make of edits.
    content = -(cell.length * math.log2(DOSE) + ITEM_SD * generator.standard_normal(cell.items))
    columns = {"panel": "probe", "probe": "padding", "dose": DOSE}
    table = judged(pair_table(cell.items), _both(cell, content, generator), columns=columns)
    one = next(one for one in probe_estimates(table) if one.term == "padding_probe" and not one.variant)
    return "padding_probe", truth.padding_probe, _covers(one.conf_low, one.conf_high, truth.padding_probe)


def _own(cell: Cell, truth: Truths, generator: np.random.Generator) -> Outcome:
    """β stands for the log-odds that the judge gives its own text; a is its own in half of the items."""
    side = np.where(np.arange(cell.items) % 2 == 0, 1.0, -1.0)
    gold = generator.standard_normal(cell.items)
    columns = {
        "gold": gold, "model_a": np.where(side > 0, "planted", "other"), "model_b": np.where(side > 0, "other", "planted"),
    }  # fmt: skip
    table = judged(pair_table(cell.items), _both(cell, cell.length * side + KAPPA * gold, generator), columns=columns)
    one = self_preference_gold(table, Labels(judge="planted"))
    wanted = truth.self_preference_gold
    return "self_preference_gold", wanted, _covers(one.conf_low, one.conf_high, wanted)


def _two_golds(cell: Cell, wanted: float, generator: np.random.Generator) -> Outcome:
    length, bold, unseen = generator.standard_normal((3, cell.items))
    quality = LATENT["length"] * length + LATENT["sd"] * unseen
    golds = {name: np.where(generator.random(cell.items) < logistic(quality), "a", "b") for name in ("gold", "gold_2")}
    table = pair_table(cell.items)
    features = texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))
    content = cell.length * length + BOLD * bold + KAPPA * quality
    model = fit_latent(
        covariates(judged(table, _both(cell, content, generator), columns=golds), features, scales=_SCALES)
    )
    effect = model if isinstance(model, Undefined) else model.average_effect("length")
    return "length_ame (two golds)", wanted, _within(effect, wanted)


def _region(model: Slopes | Undefined, truth: Truths) -> bool | None:
    if isinstance(model, Undefined) or not {"length", "bold"} <= set(model.names):
        return None
    gap = model.coefficients - np.array(truth.slopes)
    result = joint_wald(model.names, ("length", "bold"), gap, model.covariance, model.df)
    return None if isinstance(result, Undefined) else result[2] > 0.05


def _within(interval: Interval | Undefined, truth: float) -> bool | None:
    return None if isinstance(interval, Undefined) else interval.covers(truth)


def _covers(low: float | None, high: float | None, truth: float) -> bool | None:
    return None if low is None or high is None else low <= truth <= high
