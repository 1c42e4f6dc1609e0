"""The limits of a forecast hold what loops of planted truth measure: the toy loop (docs/method.md, "Analytic truths",
row L1), and finite pools."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from judgeloop.commands.forecast import CandidateTexts, read_evidence, selection_pressure
from judgeloop.experiment.schema import BestOfNSignalSpec, BradleyTerrySignalSpec, StrategySpec
from judgeloop.kernels import sigmoid
from judgeloop.learning.signals import Support, learn
from judgeloop.seeds import rng
from judgeloop.stats.design import RunTables
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.forecast import ForecastLoop, Texts, forecast
from judgeloop.text.features import FEATURES
from judgeloop.validation import loop
from judgeloop.validation.worlds import judged, pair_table

SIGMA = np.array([[1.0, 0.3], [0.3, 1.0]])
B = np.array([0.3, 1.0])
TEXTS = Texts(SIGMA, 10_000)
CHOICE = CandidateTexts(("length", "bold"), pd.Series({"length": 1.0, "bold": 1.0}), TEXTS, pd.Series({"length": 0.0, "bold": 0.0}), 999, 99)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "rule"),
    [(StrategySpec(), "raw"), (StrategySpec(kind="accumulate"), "raw"), (StrategySpec(real_fraction=0.5), "swap_average"), (StrategySpec(), "consistent_only")],
)  # fmt: skip
def test_the_limits_cover_the_drift_of_the_toy_loop(strategy: StrategySpec, rule: str) -> None:
    """Row L's world: a panel is judged, a forecast made, the loop run; 95 % of the loops end within the limits."""
    signal = BradleyTerrySignalSpec(tau=loop.TAU, ridge=0.0, label_rule=rule)  # type: ignore[arg-type]
    loops, held = 80, 0
    for seed in range(loops):
        world = loop.World(
            arms=("judge",),
            strategy=strategy,
            signal=signal,
            steps=3,
            replicates=1,
            pairs=250,
            anchor=300,
            size=20_000,
        )
        tables = loop.run(world, seed)
        (evidence,), _ = read_evidence(tables, "toy")
        found = selection_pressure(evidence, CHOICE, signal, 500.0)
        assert not isinstance(found, Undefined)
        pull, _, rows = found
        course = ForecastLoop(
            3, tau=signal.tau, strategy=strategy.kind, real_fraction=strategy.real_fraction, size=None, rows=rows
        )
        made = forecast(pull, TEXTS, course, seed=seed)
        means = means_of(tables)
        held += made.low[2, 0] <= means[3] - means[0] <= made.high[2, 0]
    assert abs(held / loops - 0.95) <= 0.02 + 3 * np.sqrt(0.95 * 0.05 / loops)


def means_of(tables: RunTables) -> list[float]:
    """Mean length by generation, of so many drawn texts that their own scatter is nothing."""
    rows = tables.candidates[tables.candidates["replicate"].notna()]
    summed = (rows["length"] * rows["n_drawn"]).groupby(rows["generation"]).sum()
    return list(summed / rows["n_drawn"].groupby(rows["generation"]).sum())


ITEMS, POOL, SIZE = 24, 10, 4


def pool_loop(seed: int, signal: BradleyTerrySignalSpec | BestOfNSignalSpec, steps: int) -> tuple[RunTables, float]:
    """A loop on finite pools by the project's learner: generation 0's tables, and the measured drift of length."""
    stream = rng(seed, "pool loop")
    points = stream.standard_normal((ITEMS, POOL, 2)) @ np.linalg.cholesky(SIGMA).T
    names = [str(k) for k in range(POOL)]
    index = pd.MultiIndex.from_product([[f"i{k}" for k in range(ITEMS)], names], names=["item_id", "candidate_id"])
    features = pd.DataFrame(points.reshape(-1, 2), index=index, columns=["length", "bold"])
    placed = {(f"i{k}", name): points[k, int(name)] for k in range(ITEMS) for name in names}
    weights = {f"i{k}": dict.fromkeys(names, 1 / POOL) for k in range(ITEMS)}
    first: pd.DataFrame | None = None
    means = []
    for t in range(steps + 1):
        drawn = {
            item: Counter(stream.choice(names, size=SIZE, p=np.array(list(w.values())) / sum(w.values())))
            for item, w in weights.items()
        }
        means.append(np.mean([placed[i, n][0] for i, some in drawn.items() for n in some.elements()]))
        if t == steps:
            break
        pairs = [
            (item, a, b)
            for item, some in drawn.items()
            for k, a in enumerate(list(some.elements()))
            for b in list(some.elements())[k + 1 :]
            if a != b
        ]
        table = pair_table(len(pairs))
        table["item_id"], table["a"], table["b"] = ([pair[k] for pair in pairs] for k in range(3))
        table["pair_id"] = [f"m{k}" for k in range(len(pairs))]
        gap = np.array([placed[i, a] - placed[i, b] for i, a, b in pairs]) @ B
        verdicts = {
            order: np.where(stream.random(len(pairs)) < sigmoid(0.4 + sign * gap), "first", "second")
            for order, sign in (("ab", 1.0), ("ba", -1.0))
        }
        judgments = judged(table, verdicts, columns={"generation": t})
        first = judgments if first is None else first
        support = {item: Support(weights[item], drawn[item]) for item in weights}
        scale = pd.Series({"length": 1.0, "bold": 1.0})
        law = learn(signal, judgments, features, scale, support, on_pool=True, size=SIZE).selection
        weights = {item: dict(law[item]) for item in weights}
    assert first is not None
    texts = features.reset_index().assign(text="a", generation=0, arm="judge", n_drawn=1, correct=np.nan)
    texts["replicate"] = pd.array([0] * len(texts), dtype="Int64")
    candidates = texts.assign(**{name: 0.0 for name in FEATURES if name not in texts})
    empty = pd.DataFrame()
    items = pd.DataFrame({"item_id": [f"i{k}" for k in range(ITEMS)], "category": ""})
    return RunTables(items, candidates, first, empty, empty), float(means[-1] - means[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal", "update"),
    [
        (BradleyTerrySignalSpec(tau=2.0), "tilt"),
        (BradleyTerrySignalSpec(update="best_of_n"), "best_of_n"),
        (BestOfNSignalSpec(), "winners"),
    ],
)
def test_the_limits_cover_the_drift_of_loops_on_pools(
    signal: BradleyTerrySignalSpec | BestOfNSignalSpec, update: str
) -> None:
    """Another loop's generation 0 is the evidence: pools, candidates and picks are all fresh."""
    loops, held = 80, 0
    for seed in range(loops):
        tables, _ = pool_loop(2 * seed, signal, 1)
        _, drift = pool_loop(2 * seed + 1, signal, 3)
        (evidence,), choice = read_evidence(tables, "pools")
        found = selection_pressure(evidence, choice, signal, ITEMS * 6 * 2.0)
        assert not isinstance(found, Undefined)
        pull, _, rows = found
        course = ForecastLoop(
            3, update, tau=getattr(signal, "tau", 1.0), pool=POOL, size=SIZE, items=ITEMS,
            rows=float(ITEMS) if update == "winners" else rows,
        )  # fmt: skip
        made = forecast(pull, choice.texts, course, seed=seed)
        held += made.low[2, 0] <= drift <= made.high[2, 0]
    # Nominal or cautious: within-pool duplicates and shared texts are not modelled.
    assert held / loops >= 0.95 - 0.02 - 3 * np.sqrt(0.95 * 0.05 / loops)
    assert held / loops <= 1.0
