"""The coverage study: how often intervals hold the truth, over many drawn samples.

Its cells are planted judges on a grid (docs/method.md, "Coverage criterion"), and runs by their number of replicates. A cell of
the grid is a judge (position γ, length β per doubling), a number of items, and shares
of unscored replies and ties. A truth is the value that the estimator estimates: with ties, which count ½, a slope's is the
quasi-likelihood's pseudo-true value, by quadrature. ``style_joint`` is a test without an interval: its entry is the coverage
of the joint confidence region, how often the score test does not reject the truth. A cell that misses is a defect of the
estimator or of its claimed range; the study lists it as a miss.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from judgeloop.seeds import rng
from judgeloop.stats.estimate import Estimate, RowLabels
from judgeloop.stats.inference import Interval, Undefined, bounded_mean
from judgeloop.stats.judge.content import content_estimates
from judgeloop.stats.judge.covariates import Covariates
from judgeloop.stats.judge.ordered_models import fit_latent
from judgeloop.stats.judge.position import position_estimates
from judgeloop.stats.judge.probes import probe_estimates
from judgeloop.stats.judge.self_preference import following_difference, self_preference_gold
from judgeloop.stats.judge.slopes import Slopes, average_effect, fit_slopes, joint_score
from judgeloop.validation.run_coverage import REPLICATES, Outcome, run_replication
from judgeloop.validation.table import study
from judgeloop.validation.worlds import SLOTS, Floats, Verdicts, judged, logistic, pair_table, picks, texts

BOLD, KAPPA, RHO, ITEM_SD, DOSE = 0.2, 1.0, 0.3, 0.5, 1.5
LATENT = {"length": 0.4, "sd": 1.0}
OWN = "planted"
_SCALES = {"bold": 1.0}
_PICKED = dict(zip(SLOTS, (1.0, 0.0, 0.5, math.nan), strict=True))

Orders = dict[str, Verdicts]
"""``ab`` and ``ba`` → (items,) verdicts by slot."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One drawn sample: arrays with a value an item, and the verdicts on the items' pairs in both orders.

    ``length, bold, gold`` are differences a − b, in SDs. ``side``: 1 where candidate a is the judge's own text, −1 where b is.
    ``latent``: (length, bold, golds by name, verdicts) of the pairs with two golds.
    """

    length: Floats
    bold: Floats
    gold: Floats
    verdicts: Orders
    probe: Orders
    side: Floats
    own_gold: Floats
    own: Orders
    latent: tuple[Floats, Floats, dict[str, NDArray[np.str_]], Orders] | None


def draw(
    position: float, slope: float, items: int, unscored: float, ties: float, generator: np.random.Generator,
    *, two_golds: bool,
) -> Sample:  # fmt: skip
    """One sample of a judge with ``position`` γ and ``slope`` β per doubling, from one stream in a fixed order."""

    def both_orders(content: Floats) -> Orders:
        return {
            order: picks(position + sign * content, generator, tie=ties, unscored=unscored)
            for order, sign in (("ab", 1.0), ("ba", -1.0))
        }

    length, bold, residual = generator.standard_normal((3, items))
    gold = RHO * length + math.sqrt(1.0 - RHO**2) * residual
    verdicts = both_orders(slope * length + BOLD * bold + KAPPA * gold)
    # Candidate b is the edit, candidate a the original; the effect of the edit varies by item.
    probe = both_orders(-(slope * math.log2(DOSE) + ITEM_SD * generator.standard_normal(items)))
    # β is here the log-odds for the judge's own text, which is a in half of the items.
    side = np.where(np.arange(items) % 2 == 0, 1.0, -1.0)
    own_gold = generator.standard_normal(items)
    own = both_orders(slope * side + KAPPA * own_gold)
    latent = None
    if two_golds:
        long, marked, unseen = generator.standard_normal((3, items))
        quality = LATENT["length"] * long + LATENT["sd"] * unseen
        golds = {name: np.where(generator.random(items) < logistic(quality), "a", "b") for name in ("gold", "gold_2")}
        latent = long, marked, golds, both_orders(slope * long + BOLD * marked + KAPPA * quality)
    return Sample(length, bold, gold, verdicts, probe, side, own_gold, own, latent)


def by_arrays(sample: Sample) -> dict[str, Interval | Undefined | Slopes]:
    """Intervals by term; under ``model`` the content model, for its joint test."""
    rows = _covariates(sample.length, sample.bold, sample.gold, None, sample.verdicts)
    model = fit_slopes(rows, rows.gold)
    intervals: dict[str, Interval | Undefined | Slopes] = {
        "model": model,
        "length_ame": model if isinstance(model, Undefined) else average_effect(model, "length"),
        "first_slot_excess": _mean(*_excess_of_half(sample.verdicts, 1.0)),
        "padding_probe": _mean(*_excess_of_half(sample.probe, -1.0)),
        "self_preference_gold": _self_preference_interval(sample),
    }
    if sample.latent is not None:
        length, bold, golds, verdicts = sample.latent
        signs = {name: np.where(gold == "a", 1.0, -1.0) for name, gold in golds.items()}
        latent = fit_latent(_covariates(length, bold, signs["gold"], signs["gold_2"], verdicts))
        length_ame = latent if isinstance(latent, Undefined) else latent.average_effect("length")
        intervals["length_ame (two golds)"] = length_ame
    return intervals


def by_tables(sample: Sample) -> dict[str, tuple[float | None, float | None]]:
    """Limits by term (F and p under ``style_joint``), as the functions behind ``audit`` and ``analyze`` report them."""
    table = pair_table(len(sample.length))
    judgments = judged(table, sample.verdicts, columns={"gold": sample.gold})
    features = texts(table, *({"length": s * sample.length / 2, "bold": s * sample.bold / 2} for s in (1.0, -1.0)))
    probe = judged(table, sample.probe, columns={"panel": "probe", "probe": "padding", "dose": DOSE})
    generators = {
        "model_a": np.where(sample.side > 0, OWN, "other"), "model_b": np.where(sample.side > 0, "other", OWN),
    }  # fmt: skip
    own = judged(table, sample.own, columns={"gold": sample.own_gold, **generators})
    rows = [
        *position_estimates(judgments),
        *content_estimates(judgments, features, scales=_SCALES, gold_exact=True), *probe_estimates(probe),
        *self_preference_gold(own, RowLabels(judge=OWN), gold_exact=True),
    ]  # fmt: skip
    terms = ("first_slot_excess", "length_ame", "padding_probe", "self_preference_gold")
    limits = {row.term: _interval(row) for row in rows if row.term in terms and not row.variant}
    joint = next(row for row in rows if row.term == "style_joint" and not row.variant)
    limits["style_joint"] = joint.estimate, joint.p_value
    if sample.latent is not None:
        length, bold, golds, verdicts = sample.latent
        features = texts(table, *({"length": s * length / 2, "bold": s * bold / 2} for s in (1.0, -1.0)))
        latent_rows = content_estimates(judged(table, verdicts, columns=golds), features, scales=_SCALES)
        length_ame = next(row for row in latent_rows if row.term == "length_ame" and not row.variant)
        limits["length_ame (two golds)"] = _interval(length_ame)
    return limits


def _interval(row: Estimate) -> tuple[float | None, float | None]:
    return row.conf_low, row.conf_high


def _picked(verdicts: Verdicts) -> Floats:
    """(n,) picks of the first slot: 1 first, 0 second, ½ tie, NaN unscored."""
    return np.array([_PICKED[verdict] for verdict in verdicts])


def _excess_of_half(verdicts: Orders, sign: float) -> tuple[Floats, NDArray[np.intp]]:
    """(values, items) of the pairs with both verdicts: the share of picks of the first slot (sign +1) or of candidate b
    (−1), less ½."""
    ab, ba = _picked(verdicts["ab"]), _picked(verdicts["ba"])
    values = (ab + ba) / 2.0 - 0.5 if sign > 0 else ((1.0 - ab) + ba) / 2.0 - 0.5
    complete = ~np.isnan(values)
    return values[complete], np.flatnonzero(complete)


def _mean(values: Floats, items: NDArray[np.intp]) -> Interval | Undefined:
    return bounded_mean(values, items, -0.5, 0.5)


def _covariates(length: Floats, bold: Floats, gold: Floats, gold_2: Floats | None, verdicts: Orders) -> Covariates:
    count = len(length)
    ab, ba = _picked(verdicts["ab"]), _picked(verdicts["ba"])
    picked = np.concatenate([ab, 1.0 - ba])
    keep = ~np.isnan(picked)
    codes = np.tile(np.arange(count), 2)[keep]

    def in_both_orders(values: Floats) -> Floats:
        return np.asarray(np.tile(values, 2)[keep], dtype=np.float64)

    return Covariates(
        features=("length", "bold"), picked_a=picked[keep], order=np.repeat([1.0, -1.0], count)[keep],
        differences=np.stack([in_both_orders(length), in_both_orders(bold)], axis=1), gold=in_both_orders(gold),
        gold_2=np.full(len(codes), np.nan) if gold_2 is None else in_both_orders(gold_2), numeric_gold=gold_2 is None,
        items=codes, pairs=codes, ties=picked[keep] == 0.5, index=np.flatnonzero(keep), n_unscored=int((~keep).sum()),
        n_without_features=0,
    )  # fmt: skip


def _self_preference_interval(sample: Sample) -> Interval | Undefined:
    picked_a = (_picked(sample.own["ab"]) + 1.0 - _picked(sample.own["ba"])) / 2.0
    keep = ~np.isnan(picked_a)
    follows = np.where(sample.own_gold > 0, picked_a, 1.0 - picked_a)[keep]
    return following_difference((np.sign(sample.own_gold) == sample.side)[keep], follows, np.flatnonzero(keep))


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


def replication(cell: Cell, truth: Truths, seed: int, number: int) -> list[Outcome]:
    """One sample of the cell: for each confirmatory term, whether its interval covers the truth."""
    sample = _sample(cell, truth, rng(seed, "validate", "coverage", cell.name, number))
    intervals = by_arrays(sample)
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
    arrays = by_arrays(sample)
    limits = {name: _limits(interval) for name, interval in arrays.items() if not isinstance(interval, Slopes)}
    limits["style_joint"] = _joint(arrays["model"])
    reported = by_tables(sample)
    return frozenset(name for name in reported if not _equal_limits(limits[name], reported[name]))


def _sample(cell: Cell, truth: Truths, generator: np.random.Generator) -> Sample:
    return draw(
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


# The study of all cells

COLUMNS = (
    "study", "cell", "term", "truth", "expected", "rate", "mc_error", "tolerance", "replications", "undefined", "passed",
    "note", "seed",
)  # fmt: skip

CELLS = (
    *(f"replicates={count}" for count in REPLICATES),
    *(cell.name for cell in GRID),
)
"""Every cell's name, in the study's order."""


def coverage(
    seed: int = 0,
    replications: int = 2_000,
    *,
    cells: Sequence[str] | None = None,
    share: float | None = None,
    on_cell: Callable[[pd.DataFrame], None] | None = None,
    workers: int = 1,
    earlier: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """A row a cell and term (COLUMNS); ``rate`` is coverage. The arguments are those of ``study.study``, cells from CELLS.

    An entry passes by docs/method.md, "Coverage criterion": |rate − .95| ≤ .02 + 3√(.95·.05/R). R counts the replications in
    which the estimate is defined; none fails. Raises InvalidInput as ``study.study`` does.
    """
    return study(
        CELLS, study_cell, seed, replications,
        cells=cells, share=share, on_cell=on_cell, workers=workers, earlier=earlier,
    )  # fmt: skip


def study_cell(name: str, seed: int, replications: int) -> pd.DataFrame:
    """The rows of one cell (COLUMNS), a row a term."""
    if name.startswith("replicates="):
        size = int(name.partition("=")[2])
        return _coverage_rows(name, [run_replication(size, seed, k) for k in range(replications)], frozenset(), seed)
    cell = next(cell for cell in GRID if cell.name == name)
    truth = truths(cell)
    samples = [replication(cell, truth, seed, k) for k in range(replications)]
    return _coverage_rows(name, samples, differing_terms(cell, truth, seed), seed)


def _coverage_rows(name: str, samples: list[list[Outcome]], differ: frozenset[str], seed: int) -> pd.DataFrame:
    rows = []
    for j, (term, truth, _) in enumerate(samples[0]):
        hits = [sample[j][2] for sample in samples]
        defined = [hit for hit in hits if hit is not None]
        rate = float(np.mean(defined)) if defined else math.nan
        error = math.sqrt(0.95 * 0.05 / len(defined)) if defined else math.nan
        tolerance = 0.02 + 3.0 * error
        passed = bool(defined) and abs(rate - 0.95) <= tolerance and term not in differ
        note = "the tables report another interval" if term in differ else ""
        rows.append((
            "coverage", name, term, truth, 0.95, rate, error, tolerance, len(defined), len(hits) - len(defined), passed,
            note if defined else "undefined in every replication", seed,
        ))  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS))
