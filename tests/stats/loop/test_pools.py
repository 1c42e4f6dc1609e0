"""Finite pools: their course under a constant taste is the loop's own code's, and its end is no saturation of the judge."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from judgeloop.experiment.schema import StrategySpec
from judgeloop.learning import strategies
from judgeloop.learning.selection import best_of_n_law, tilt
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.loop.amplification import amplification_estimates, compounding, signal_slopes
from judgeloop.stats.loop.forecast import ForecastLoop, constant_taste, pool_weights, range_estimates, selected
from judgeloop.stats.loop.price import accounts
from judgeloop.stats.loop.replicates import MeasuredCandidates, measure, series
from judgeloop.text.features import FEATURES

SLOPES = pd.DataFrame({"length": [0.5, 0.9], "bold": [0.2, -0.4]})  # two replicates' fits; their mean is the taste


def design(steps: int, **judge: object) -> Design:
    arms = (ArmDesign("judge", "m", **judge), ArmDesign("random", "random", is_control=True, judge_kind="random"))  # type: ignore[arg-type]
    return Design("pools", 0, steps, arms, (("judge", "random"),), ("judge", "random"))


def pools(sizes: tuple[int, ...] = (6, 4, 5), added: int = 0, steps: int = 3) -> pd.DataFrame:
    """One replicate's pools at generations 0 and ``steps``, ``added`` real texts an item at weight 0; K = 4 of each were drawn."""
    stream, rows = rng(0, "pools"), []
    for item, size in enumerate(sizes):
        values = stream.standard_normal((size + added, 2))
        drawn = np.bincount(stream.integers(size, size=4), minlength=size + added)
        for k, (length, bold) in enumerate(values):
            weight = 1.0 / size if k < size else 0.0
            later = 1.0 if k == int(np.argmax(values[:, 0])) else 0.0
            rows.append((0, f"i{item}", f"k{k}", "a", drawn[k], length, bold, weight, later))
    names = ["replicate", "item_id", "candidate_id", "text", "n_drawn", "length", "bold", "p_current", "later"]
    zero = pd.DataFrame(rows, columns=names).assign(arm="judge", generation=0, reason="")
    frame = pd.concat([zero, zero.assign(generation=steps, p_current=zero["later"])], ignore_index=True)
    return frame.assign(**{name: 0.0 for name in FEATURES if name not in names})


def measured(frame: pd.DataFrame, plan: Design) -> MeasuredCandidates:
    return measure(RunTables(pd.DataFrame(), frame, *[pd.DataFrame()] * 3), plan)


@pytest.mark.parametrize(
    ("strategy", "update", "real", "added", "reference"),
    [
        ("replace", "tilt", 0.0, 0, "previous"), ("accumulate", "tilt", 0.0, 0, "previous"),
        ("replace", "best_of_n", 0.0, 0, "previous"), ("accumulate", "tilt", 0.3, 2, "previous"),
        ("replace", "tilt", 0.25, 0, "base"),
    ],
)  # fmt: skip
def test_a_constant_tastes_course_is_that_of_the_loops_own_code(
    strategy: str, update: str, real: float, added: int, reference: str
) -> None:
    plan = design(3, strategy=strategy, update=update, real_fraction=real, tau=0.7, reference=reference)
    candidates = measured(pools(added=added), plan)
    taste = constant_taste(candidates, SLOPES, plan.arm("judge"), plan, 4)
    assert taste is not None
    rows = candidates.rows[candidates.rows["generation"] == 0]
    moves = []
    for _, item in rows.groupby("item_id"):
        base = dict(zip(item["candidate_id"], item["p_current"], strict=True))
        # bold is in pooled generation-0 SDs there, and so are its slopes.
        reward = dict(zip(item["candidate_id"], 0.7 * item["length"] - 0.1 * item["bold"], strict=True))
        zero = {k: n / 4 for k, n in zip(item["candidate_id"], item["n_drawn"], strict=True) if n}
        fresh = {k: 1 / added for k, weight in base.items() if weight == 0} if added else None
        weights, selections, path = base, [], []
        for _ in range(3):
            start = {k: w for k, w in (base if reference == "base" else weights).items() if w > 0}
            selections.append(tilt(start, reward, 0.7) if update == "tilt" else best_of_n_law(start, reward, 4))
            weights = strategies.mix(
                StrategySpec(kind=strategy, real_fraction=real), selections=selections, generation_zero=zero, real=fresh,
                size=4, rng=rng(0, "unused"),
            )  # fmt: skip
            path.append(weights)
        length = dict(zip(item["candidate_id"], item["length"], strict=True))
        start_mean = sum(base[k] * length[k] for k in base)
        moves.append([sum(w[k] * length[k] for k in w) - start_mean for w in (path[0], path[-1])])
    assert taste.moves("length") == pytest.approx(tuple(np.mean(moves, axis=0)), abs=1e-12)


def test_no_course_is_made_up_where_the_signal_or_the_pool_is_not_known() -> None:
    plan = design(3)
    candidates = measured(pools(), plan)
    assert constant_taste(candidates, None, plan.arm("judge"), plan, 4) is None
    assert constant_taste(candidates, SLOPES, plan.arm("judge"), plan, None) is None
    assert constant_taste(candidates, SLOPES * np.nan, plan.arm("judge"), plan, 4) is None
    drafting = design(3, policy_kind="exemplar")
    assert constant_taste(candidates, SLOPES, drafting.arm("judge"), drafting, 4) is None
    assert range_estimates(candidates, drafting)[0].arm == "random"


def test_all_of_the_range_is_used_once_the_longest_text_has_all_weight() -> None:
    plan = design(3)
    frame = pools()
    rows = {row.term: row for row in range_estimates(measured(frame, plan), plan) if row.arm == "judge"}
    assert rows["pool_range_used_length"].estimate == pytest.approx(1.0)
    zero, last = (frame[frame["generation"] == t].set_index(["item_id", "candidate_id"]) for t in (0, 3))
    start = (zero["p_current"] * zero["bold"]).groupby(level=0).sum()
    moved = ((last["p_current"] * zero["bold"]).groupby(level=0).sum() - start).mean()
    extreme = zero["bold"].groupby(level=0).max() if moved > 0 else zero["bold"].groupby(level=0).min()
    assert rows["pool_range_used_bold"].estimate == pytest.approx(moved / (extreme - start).mean())


# The world: 32 drafts an item, a judge of constant taste, a fit with noise each generation; T = 6, β = 0.8, τ = 1.


def drifts(
    stream: np.random.Generator, runs: int, replicates: int, strategy: str, items: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(runs, replicates) D_1 and D_6 and (runs,) c_6: drift is that of 4 texts an item drawn by weight, beyond a random arm
    with the same draws, and c_6 from the mean of the fits of generation 0."""
    count, size, drawn, steps, features = runs * replicates * items, 32, 4, 6, 3
    texts = stream.standard_normal((count, size, features))
    course = ForecastLoop(steps, "tilt", 1.0, strategy, 0.0, None, "previous", size, drawn)  # type: ignore[arg-type]
    uniforms = stream.random((steps + 1, count, drawn, 1))
    base = np.full((count, size), 1.0 / size)

    def tilted(weights: np.ndarray, slopes: np.ndarray) -> np.ndarray:
        """Slopes (runs, replicates or 1, features)."""
        each = np.broadcast_to(slopes, (runs, replicates, features)).reshape(-1, features)
        reward = np.einsum("nmf,nf->nm", texts, np.repeat(each, items, axis=0))
        order, result = np.argsort(reward, axis=1), np.empty_like(weights)
        chosen = selected(np.take_along_axis(weights, order, 1), np.take_along_axis(reward, order, 1), 1.0, course)
        np.put_along_axis(result, order, chosen, 1)
        return result

    def picks(weights: np.ndarray, t: int) -> np.ndarray:
        edges = np.cumsum(weights, axis=1)
        return np.sum(uniforms[t] * edges[:, None, -1:] >= edges[:, None, :], axis=2)

    def length(weights: np.ndarray, t: int) -> np.ndarray:
        values = np.take_along_axis(texts[..., 0], picks(weights, t), 1)
        return np.asarray(values.reshape(runs, replicates, -1).mean(axis=2))

    zero = np.zeros_like(base)
    np.add.at(zero, (np.arange(count)[:, None], picks(base, 0)), 1.0 / drawn)
    ends: list[list[np.ndarray]] = []
    fits: list[np.ndarray] = []
    for taste in (0.8, 0.0):

        def select(weights: np.ndarray, taste: float = taste) -> np.ndarray:
            fits.append(np.eye(features)[0] * taste + 0.1 * stream.standard_normal((runs, replicates, features)))
            return tilted(weights, fits[-1])

        path = pool_weights(base, select, course, stream, zero=zero)
        ends.append([length(path[0], 1), length(path[-1], steps)])
    mean = fits[0].mean(axis=1, keepdims=True)
    path = pool_weights(base, lambda weights: tilted(weights, mean), course, stream, zero=zero)
    moved = [np.sum((path[t] - base) * texts[..., 0], axis=1).reshape(runs, -1).mean(axis=1) for t in (0, -1)]
    (d1, d6), (r1, r6) = ends
    return d1 - r1, d6 - r6, np.asarray(moved[1] / (steps * moved[0]))


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "replicates"), [("replace", 5), ("replace", 8), ("accumulate", 8)])
def test_a_pool_that_runs_out_is_not_called_saturating(strategy: str, replicates: int) -> None:
    """Against the benchmark of an endless pool it was called so in nearly all runs."""
    runs, stream = 1000, rng(6, "finite pools", strategy, replicates)
    words, endless, factors = Counter[str](), Counter[str](), []
    for _ in range(20):
        firsts, lasts, own = drifts(stream, runs // 20, replicates, strategy)
        for first, last, factor in zip(firsts, lasts, own, strict=True):
            words[compounding(first, last, 6, float(factor), 0.05).verdict()] += 1
            endless[compounding(first, last, 6, 1.0 if strategy == "replace" else 0.531, 0.05).verdict()] += 1
        factors += own.tolist()
    assert words["saturating"] / runs < 0.025 + 3 * math.sqrt(0.025 * 0.975 / runs), words
    assert words["amplifying"] == 0
    if strategy == "replace":
        assert np.mean(factors) == pytest.approx(0.44, abs=0.02)
        assert endless["saturating"] / runs > 0.7


@pytest.mark.slow
def test_the_whole_path_from_tables_takes_the_pools_own_benchmark() -> None:
    """Weights, draws and signals as a run writes them: no saturation is claimed, and the pool is nearly used up."""
    steps, replicates, items, size = 6, 6, 10, 32
    stream, parts, signals = rng(7, "pool tables"), [], []
    values = stream.standard_normal((replicates, items, size, 2))
    for arm, beta in (("judge", 0.8), ("random", 0.0)):
        weights = np.full((replicates, items, size), 1.0 / size)
        for t in range(steps + 1):
            uniforms = rng(7, "draws", t).random((replicates, items, 4, 1))
            drawn = np.sum(uniforms >= np.cumsum(weights, axis=2)[:, :, None, :], axis=3).clip(max=size - 1)
            counts = np.zeros_like(weights)
            for k in range(4):
                np.add.at(counts, (*np.ogrid[:replicates, :items], drawn[:, :, k]), 1)
            slopes = np.array([beta, 0.0]) + 0.1 * stream.standard_normal((replicates, 2))
            raw = weights * np.exp(np.einsum("simf,sf->sim", values, slopes))
            chosen = raw / raw.sum(axis=2, keepdims=True)
            index = pd.MultiIndex.from_product([range(replicates), range(items), range(size)])
            frame = index.to_frame(index=False, name=["replicate", "item_id", "candidate_id"])
            frame["item_id"], frame["candidate_id"] = (
                "i" + frame["item_id"].astype(str),
                "k" + frame["candidate_id"].astype(str),
            )
            columns = {"n_drawn": counts, "p_current": weights, "length": values[..., 0], "bold": values[..., 1]}
            frame = frame.assign(**{name: table.ravel() for name, table in columns.items()})
            frame["p_selected"] = chosen.ravel() if t < steps else np.nan
            parts.append(frame.assign(arm=arm, generation=t, text="a", reason=""))
            signals += [
                (s, arm, t, name, slopes[s, k], 0.1, 1.0, True)
                for s in range(replicates)
                for k, name in enumerate(("length", "bold"))
            ]
            weights = chosen
    columns = ["replicate", "arm", "generation", "feature", "coefficient", "std_error", "scale", "converged"]
    table, plan = pd.DataFrame(signals, columns=columns), design(steps)
    frame = pd.concat(parts, ignore_index=True)
    candidates = measured(frame.assign(**{name: 0.0 for name in FEATURES if name not in frame}), plan)
    found = {
        row.term: row
        for row in amplification_estimates(
            candidates, series(candidates), accounts(candidates), plan, {"judge": 4, "random": 4},
            {arm.name: signal_slopes(table, arm, candidates.scale) for arm in plan.arms},
        )
    }  # fmt: skip
    assert found["beyond_first_step_length"].verdict == "compounding unclear"
    index = found["compounding_length"]
    assert index.benchmark == pytest.approx(0.44, abs=0.03)
    assert index.conf_high is not None
    assert index.conf_high < 1.0
    assert found["beyond_strategy_length"].verdict in ("none", "undetected")
    used = {(row.arm, row.term): row.estimate for row in range_estimates(candidates, plan)}
    assert used["judge", "pool_range_used_length"] == pytest.approx(0.95, abs=0.02)
    assert abs(used["random", "pool_range_used_length"]) < 0.2
