"""Row L: the whole loop with planted truth, and the estimates of ``stats.loop.estimates`` from its tables.

Texts are points (x, q) of a Gaussian with unit variances and correlation ρ: x is the length in doublings, q a quality that
the judge reads too, written in the column ``bold``. The judge picks with log-odds γ + βΔx + κΔq, gold with κΔq, random by a
coin. Each feedback step is the project's code: ``learning.signals.learn`` makes preferences, signal and selection from the judgments,
``learning.strategies.mix`` the training set. The learner is a toy: it refits the Gaussian's mean to the training set and keeps Σ.
A policy is a lattice of texts with the Gaussian's weights (``selection`` says why that is exact), the same in every item;
arms share all draws.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.experiment.schema import BradleyTerrySignalSpec, StrategySpec
from judgeloop.learning import strategies
from judgeloop.learning.selection import tilt
from judgeloop.learning.signals import LearnedSelection, Support, learn
from judgeloop.records import CANDIDATE_COLUMNS, JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.amplification import compounding_benchmark
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.text.features import FEATURES
from judgeloop.validation.table import Row, SampleSizes, compare, demand, exact
from judgeloop.validation.worlds import Floats, judged, logistic, pair_table

GAMMA, BETA, KAPPA, TAU, RHO, STEPS = 0.3, 0.3, 1.0, 2.0, 0.3, 6
SLOPES = {"judge": (BETA, KAPPA), "gold": (0.0, KAPPA), "random": (0.0, 0.0)}
_GRID = np.array(list(itertools.product(np.arange(-6.0, 7.0), repeat=2)))
_SIGMA = np.array([[1.0, RHO], [RHO, 1.0]])
_LAW = np.exp(-0.5 * np.einsum("ni,ij,nj->n", _GRID, np.linalg.inv(_SIGMA), _GRID))
_LAW /= _LAW.sum()
_FEATURES = pd.Index(["length", "bold"], dtype=object)
_SCALE = pd.Series(1.0, index=_FEATURES)
_REPLACE = StrategySpec()
_SIGNAL = BradleyTerrySignalSpec(tau=TAU, ridge=0.0)


@dataclass(frozen=True)
class World:
    """One planted run: T = ``steps`` feedback steps; an item and generation have ``size`` candidates and ``pairs`` matchups, judged
    in both orders."""

    arms: tuple[str, ...] = ("judge", "random", "gold")
    strategy: StrategySpec = _REPLACE
    signal: BradleyTerrySignalSpec = _SIGNAL
    steps: int = STEPS
    replicates: int = 24
    items: int = 1
    size: int = 8
    pairs: int = 1000
    anchor: int = 0

    def design(self) -> Design:
        """The design that ``run_estimates`` takes."""
        arms = tuple(
            ArmDesign(
                name, "planted" if name == "judge" else name, is_control=name != "judge",
                judge_kind="planted" if name == "judge" else name, policy_kind="exemplar",
                label_rule=self.signal.label_rule, reference=self.signal.reference, strategy=self.strategy.kind,
                real_fraction=self.strategy.real_fraction,
            )
            for name in self.arms
        )  # fmt: skip
        contrasts = tuple(("judge", name) for name in self.arms if name != "judge")
        return Design("planted loop", 0, self.steps, arms, contrasts, contrasts[0])


def run(world: World, seed: int) -> RunTables:
    """The tables that a run of this world writes: items, candidates, anchor judgments and signals."""
    candidates, signals = [], []
    for replicate in range(world.replicates):
        for arm in world.arms:
            arm_candidates, arm_signals = _arm(world, seed, replicate, arm)
            candidates += arm_candidates
            signals += arm_signals
    judgments = pd.DataFrame(columns=list(JUDGMENT_COLUMNS))
    if world.anchor:
        texts, judgments = _anchor(world.anchor, seed)
        candidates.append(texts)
    return RunTables(
        items=pd.DataFrame({"item_id": [f"i{k}" for k in range(world.items)], "category": ""}),
        candidates=pd.concat(candidates, ignore_index=True),
        judgments=judgments,
        preferences=pd.DataFrame(columns=list(PREFERENCE_COLUMNS)),
        signals=pd.concat(signals, ignore_index=True) if signals else pd.DataFrame(columns=list(SIGNAL_COLUMNS)),
    )


def _arm(world: World, seed: int, replicate: int, arm: str) -> tuple[list[pd.DataFrame], list[pd.DataFrame]]:
    tables, signals = [], []
    mean = np.zeros(2)
    places: dict[str, Floats] = {}
    chosen: list[Mapping[str, float]] = []
    zero = _names(0)
    for t in range(world.steps + 1):
        names = _names(t)
        places.update(zip(names, mean + _GRID, strict=True))
        current = dict(zip(names, _LAW.tolist(), strict=True))
        reference = current if world.signal.reference == "previous" else dict(zip(zero, _LAW.tolist(), strict=True))
        draws = [
            rng(seed, "validate", "L draws", replicate, t, item).choice(len(_GRID), size=world.size, p=_LAW)
            for item in range(world.items)
        ]
        if t == world.steps:
            tables.append(_table(world, replicate, arm, t, places, names, draws, {}, {}))
            break
        learned = _feedback(world, seed, replicate, arm, t, places, names, reference)
        law = learned.selection["i0"]
        chosen.append(law)
        training = strategies.mix(
            world.strategy, selections=chosen, generation_zero=dict(zip(zero, _LAW.tolist(), strict=True)), real=None,
            size=world.size, rng=rng(seed, "validate", "L mix", replicate, t),
        )  # fmt: skip
        gold = (2.0 if world.signal.label_rule == "consistent_only" else 1.0) * KAPPA
        by_gold = tilt(reference, {name: gold * float(places[name][1]) for name in reference}, TAU)
        tables.append(_table(world, replicate, arm, t, places, names, draws, law, by_gold))
        if learned.signal is not None:
            signals.append(learned.signal.frame(replicate, arm, t))
        weight = np.fromiter(training.values(), dtype=np.float64)
        mean = weight @ np.array([places[name] for name in training])
    return tables, signals


def _names(t: int) -> list[str]:
    return [f"g{t}k{k}" for k in range(len(_GRID))]


def _feedback(
    world: World, seed: int, replicate: int, arm: str, t: int, places: Mapping[str, Floats], names: list[str],
    reference: Mapping[str, float],
) -> LearnedSelection:  # fmt: skip
    """One generation's judgments in both orders, and what the project learns of them."""
    stream = rng(seed, "validate", "L picks", replicate, t)
    count = world.pairs * world.items
    sides = stream.choice(len(_GRID), size=(2, count), p=_LAW)
    difference = _GRID[sides[0]] - _GRID[sides[1]]
    content = difference @ np.array(SLOPES[arm])
    position = GAMMA if arm == "judge" else 0.0
    coins = stream.random((2, count))
    if arm == "random":  # the coin is tossed once a pair: the same text in both orders
        coins[1] = 1.0 - coins[0]
    verdicts = {
        order: np.where(coin < logistic(position + sign * content), "first", "second")
        for order, sign, coin in (("ab", 1.0, coins[0]), ("ba", -1.0, coins[1]))
    }
    named = np.array(names, dtype=object)
    table = pair_table(count, world.pairs).assign(a=named[sides[0]], b=named[sides[1]])
    judgments = judged(table, verdicts, columns={"replicate": replicate, "arm": arm, "generation": t})
    support = {f"i{item}": Support(reference, {}) for item in range(world.items)}
    texts = list(dict.fromkeys([*names, *reference]))
    points = np.tile(np.array([places[name] for name in texts]), (world.items, 1))
    features = pd.DataFrame(points, index=_index(world.items, tuple(texts)), columns=_FEATURES)
    return learn(world.signal, judgments, features, _SCALE, support, on_pool=False, size=world.size)


@functools.lru_cache(maxsize=64)
def _index(items: int, texts: tuple[str, ...]) -> pd.MultiIndex:
    """Every item's texts; arms and replicates have the same in a generation, and pandas sorts an index once."""
    levels = [pd.Index([f"i{item}" for item in range(items)], dtype=object), pd.Index(texts, dtype=object)]
    return pd.MultiIndex.from_product(levels, names=["item_id", "candidate_id"])


def _table(
    world: World, replicate: int, arm: str, t: int, places: Mapping[str, Floats], names: list[str], draws: list[NDArray[np.int64]],
    law: Mapping[str, float], by_gold: Mapping[str, float],
) -> pd.DataFrame:  # fmt: skip
    """This generation's candidates and every text with selected mass. All features but length and bold are 0."""
    texts = list(dict.fromkeys([*names, *law]))
    earlier = [0.0] * (len(texts) - len(names))
    points = np.tile(np.array([places[name] for name in texts]), (world.items, 1))
    counts = np.concatenate([[*np.bincount(places_drawn, minlength=len(names)), *earlier] for places_drawn in draws])
    selected, gold = (
        np.array([values.get(name, 0.0) for name in texts]) if values else np.full(len(texts), np.nan)
        for values in (law, by_gold)
    )
    selected = np.tile(selected, world.items)
    keep = (counts > 0) | (selected > 1e-12)
    columns = {
        "item_id": np.repeat([f"i{item}" for item in range(world.items)], len(texts))[keep],
        "candidate_id": np.tile(np.array(texts), world.items)[keep], "n_drawn": counts[keep].astype(int),
        "p_current": np.tile([*_LAW.tolist(), *earlier], world.items)[keep], "p_selected": selected[keep],
        "p_selected_gold": np.tile(gold, world.items)[keep], "replicate": replicate, "arm": arm, "generation": t,
    }  # fmt: skip
    return _candidates(points[keep], columns)


def _candidates(points: Floats, columns: Mapping[str, object]) -> pd.DataFrame:
    """Rows of CANDIDATE_COLUMNS and features; columns that are not in ``columns`` are empty."""
    blank: dict[str, object] = {
        "text": "a", "reason": "", "n_drawn": 0, "p_training": np.nan, "p_next": np.nan, "p_current": np.nan,
        "p_selected": np.nan, "p_selected_gold": np.nan, "reward": np.nan, "correct": np.nan, "generation": 0,
    }  # fmt: skip
    features: dict[str, object] = dict.fromkeys(FEATURES, 0.0)
    features |= {"length": points[:, 0], "bold": points[:, 1]}
    order = [*CANDIDATE_COLUMNS[:7], *FEATURES, *CANDIDATE_COLUMNS[7:]]
    values = {**blank, **features, **columns}
    return pd.DataFrame({name: values[name] for name in order}, index=range(len(points)))


def _anchor(pairs: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(texts, judgments) of a fixed panel, judged once at generation 0; the signal uses none of these judgments."""
    stream = rng(seed, "validate", "L anchor")
    points = stream.standard_normal((pairs, 2, 2)) @ np.linalg.cholesky(_SIGMA).T
    table = pair_table(pairs)
    nobody = {"replicate": pd.array([pd.NA] * pairs, dtype="Int64"), "arm": ""}
    texts = [
        _candidates(points[:, side], {"item_id": table["item_id"], "candidate_id": name, **nobody})
        for side, name in enumerate("ab")
    ]
    content = (points[:, 0] - points[:, 1]) @ np.array(SLOPES["judge"])
    verdicts = {
        order: np.where(stream.random(pairs) < logistic(GAMMA + sign * content), "first", "second")
        for order, sign in (("ab", 1.0), ("ba", -1.0))
    }
    return pd.concat(texts, ignore_index=True), judged(table, verdicts, columns={**nobody, "panel": "anchor"})


VARIANTS = ("replace", "accumulate", "always from base", "real share .5", "consistent picks only")
"""L1 to L5."""


def _variants() -> dict[str, tuple[World, float, float]]:
    """Each variant's world, with D_T against gold and C_T of a linear judge that does not change."""
    step, t = BETA / TAU, STEPS
    harmonic = sum(1.0 / k for k in range(1, t + 2))
    pair = ("judge", "gold")
    alpha = 0.5
    shrunk = (1.0 - (1.0 - alpha) ** t) / alpha
    filtered = BradleyTerrySignalSpec(tau=TAU, ridge=0.0, label_rule="consistent_only")
    base = BradleyTerrySignalSpec(tau=TAU, ridge=0.0, reference="base")
    real = StrategySpec(real_fraction=alpha)
    return {
        "replace": (World(anchor=1500), t * step, 1.0),
        "accumulate": (
            World(pair, StrategySpec(kind="accumulate")),
            step * (harmonic - 1.0),
            (harmonic - 1.0) / (t / 2),
        ),
        "always from base": (World(pair, signal=base), step, 1.0 / t),
        "real share .5": (World(pair, real), (1.0 - alpha) * step * shrunk, shrunk / t),
        "consistent picks only": (World(pair, signal=filtered, anchor=1500), 2.0 * t * step, 1.0),
    }


def rows_l(variant: str, scale: SampleSizes) -> list[Row]:
    """D_T = Tβ/τ against gold and T(β + ρκ)/τ against random; C_T by strategy (H_{T+1} − 1)/(T/2), 1/T, (1 − (1 − α)^T)/(αT);
    keeping only consistent picks doubles D_T and a_RJ; O_T = 1. The Monte-Carlo error is the estimate's own, over
    replicates. ``variant``: one of VARIANTS."""
    world, drift, compounding = _variants()[variant]
    name = f"L{VARIANTS.index(variant) + 1}"
    world = replace(
        world, replicates=scale.size(48, 20), pairs=scale.size(3000, 240, 120),
        anchor=world.anchor and scale.size(4000, 1500, 300),
    )  # fmt: skip
    design = world.design()
    estimates = run_estimates(run(world, scale.seed), design)
    setting = f"{variant}, T={STEPS}, S={world.replicates}, {world.items * world.pairs} pairs a generation"
    rows = [
        _row_of_term(estimates, name, "did_length", drift, f"D_T vs gold, {setting}", contrast="gold"),
        _row_of_term(estimates, name, "compounding_length", compounding, f"C_T, {setting}", contrast="gold"),
    ]
    if "random" in world.arms:
        vs_random = STEPS * (BETA + RHO * KAPPA) / TAU
        rows.append(
            _row_of_term(estimates, name, "did_length", vs_random, f"D_T vs random, {setting}", contrast="random")
        )
        rows.append(
            _row_of_term(estimates, name, "observed_over_static_length", 1.0, f"O_T, {setting}", contrast="gold")
        )
    if world.anchor:
        transmission = 2.0 if world.signal.label_rule == "consistent_only" else 1.0
        rows.append(_row_of_term(estimates, name, "transmission_length", transmission, f"a_RJ, {setting}", contrast=""))
    benchmark = compounding_benchmark(design.arm("judge"), STEPS)
    computed = np.nan if benchmark is None else benchmark
    return [*rows, exact(name, f"compounding_benchmark, {variant}", compounding, computed, 1e-12)]


def _row_of_term(estimates: pd.DataFrame, name: str, term: str, theory: float, setting: str, contrast: str) -> Row:
    rows = estimates[(estimates["term"] == term) & (estimates["arm"] == "judge") & (estimates["contrast"] == contrast)]
    rows = rows[(rows["variant"] == "") & (rows["generation"].isna() | (rows["generation"] == STEPS))]
    if len(rows) != 1:
        missing = compare(name, setting, theory, np.nan, np.nan, tolerance=0.0)
        return demand(missing, False, f"{len(rows)} rows of {term}")
    estimate = rows.iloc[0]
    row = compare(name, setting, theory, float(estimate["estimate"]), float(estimate["std_error"]))
    return demand(row, estimate["status"] != "undefined", str(estimate["note"]))
