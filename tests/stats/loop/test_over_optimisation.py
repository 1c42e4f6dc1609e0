"""Over-optimisation: the best of n by enumeration, Gao's curves recovered, and the claim where it is false."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import judgeloop
from conftest import serving, small_experiment, write_experiment
from judgeloop.report.findings import findings
from judgeloop.seeds import rng
from judgeloop.stats.design import ArmDesign, Design, RunTables
from judgeloop.stats.estimate import estimates_frame
from judgeloop.stats.loop.amplification import divergences
from judgeloop.stats.loop.over_optimisation import (
    best_of_n_weights,
    fit,
    is_over_optimised,
    over_optimisation_estimates,
)
from judgeloop.stats.loop.replicates import measure, series

RUNS = 2000
ERROR = 2 * np.sqrt(0.025 * 0.975 / RUNS)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_best_of_n_weights_are_those_of_all_subsets(n: int) -> None:
    reward = np.array([0.3, 1.0, -2.0, 1.0, 0.3])
    counted = np.zeros(5)
    subsets = list(itertools.combinations(range(5), n))
    for subset in subsets:
        best = [k for k in subset if reward[k] == max(reward[list(subset)])]
        counted[best] += 1 / len(best)
    other = np.arange(6.0)  # another item's texts, of another number, stand in between
    item = np.array([1, 0, 0, 1, 0, 1, 1, 0, 1, 0, 1], dtype=np.intp)
    mixed = np.empty(11)
    mixed[item == 0], mixed[item == 1] = reward, other
    weights = best_of_n_weights(item, mixed, n)
    assert weights[item == 0] == pytest.approx(counted / len(subsets))
    assert weights[item == 1].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("best_of_n", [True, False])
def test_gao_s_curve_is_recovered_and_needs_five_levels(best_of_n: bool) -> None:
    d = np.array([0.0, 0.4, 0.7, 1.0, 1.3, 1.9])
    gold = d * (0.5 - 0.2 * (d if best_of_n else np.log(np.maximum(d, 1e-12))))
    assert fit(d, gold, best_of_n=best_of_n) == pytest.approx((0.5, 0.2))
    assert fit(d[:5], gold[:5], best_of_n=best_of_n) is None  # the start has no distance


@pytest.mark.parametrize(
    ("rise", "fall", "correlation"),
    [*((*null, r) for null in ((0.0, -5.0), (5.0, 0.0), (0.0, 0.0)) for r in (-0.9, 0.0, 0.9)), (5.0, 2.0, 0.0), (-2.0, -2.0, 0.0)],
)  # fmt: skip
def test_it_is_rarely_said_where_reward_did_not_rise_or_right_answers_did_not_fall(
    rise: float, fall: float, correlation: float
) -> None:
    stream = np.random.default_rng(3)
    root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
    noise = stream.standard_normal((RUNS, 5, 2)) @ root.T
    said = [is_over_optimised(rise + run[:, 0], fall + run[:, 1]) for run in noise]
    assert np.mean(said) <= 0.025 + ERROR


def test_it_is_said_where_both_are_large() -> None:
    noise = np.random.default_rng(4).standard_normal((RUNS, 5, 2))
    said = [is_over_optimised(3.0 + run[:, 0], -3.0 + run[:, 1]) for run in noise]
    assert np.mean(said) >= 0.95


def test_a_pool_s_best_of_n_stands_once_whatever_the_number_of_its_controls() -> None:
    stream = rng(7, "pools")
    rows = []
    for replicate in range(3):
        for item in ("x", "y"):
            reward, right = stream.standard_normal(32), stream.integers(2, size=32)
            for arm, t in itertools.product(("judge", "random", "gold"), (0, 1)):
                rising = arm == "judge" and t == 1
                drawn = (reward >= np.sort(reward)[16]).astype(int) if rising else np.ones(32, dtype=int)
                rows += [
                    (
                        replicate,
                        arm,
                        t,
                        item,
                        f"k{k}",
                        "text",
                        reward[k] if arm == "judge" else np.nan,
                        drawn[k],
                        right[k],
                    )
                    for k in range(32)
                ]
    columns = ["replicate", "arm", "generation", "item_id", "candidate_id", "text", "reward", "n_drawn", "correct"]
    frame = pd.DataFrame(rows, columns=columns).assign(length=5.0)
    items = pd.DataFrame({"item_id": ["x", "y"], "category": "", "match": "contains", "reference": "a"})
    arms = (
        ArmDesign("judge", "j"), ArmDesign("random", "random", is_control=True, judge_kind="random"),
        ArmDesign("gold", "gold", is_control=True, judge_kind="gold"),
    )  # fmt: skip
    design = Design("d", 0, 1, arms, (("judge", "random"), ("judge", "gold")))
    measured = measure(RunTables(items, frame, *[pd.DataFrame()] * 3), design)
    correct = next(one for one in series(measured) if one.quantity.name == "correct" and not one.category)
    found = over_optimisation_estimates(measured, correct, design, {}, divergences(frame, design))
    table = estimates_frame(found)  # which refuses rows that stand twice
    assert set(table["term"]) == {"proxy_gain", "correct_per_proxy", "gao_alpha_correct", "gao_beta_correct", *(f"best_of_n_{name}" for name in ("proxy", "correct", "length", "kl"))}  # fmt: skip
    # Counts of picks are no reward of a text that nobody was shown.
    picks = replace(design, arms=(replace(arms[0], update="best_of_n"), *arms[1:]))
    rows = over_optimisation_estimates(measured, correct, picks, {}, divergences(frame, picks))
    assert {(row.term, row.status) for row in rows} == {("correct_per_proxy", "undefined")}
    zero = frame[(frame["arm"] == "judge") & (frame["generation"] == 0)]
    gains = []
    for _, of_replicate in zero.groupby("replicate"):
        upper = of_replicate.groupby("item_id")["reward"].apply(
            lambda reward: np.sort(reward)[16:].mean() - reward.mean()
        )
        gains.append(upper.mean() / of_replicate["reward"].std(ddof=0))
    assert table.set_index(["term", "contrast"]).loc[("proxy_gain", "random"), "estimate"] == pytest.approx(
        np.mean(gains)
    )


@pytest.mark.slow
@pytest.mark.at_hand
def test_a_judge_that_rewards_what_makes_answers_wrong_is_over_optimised_and_a_coin_is_not(tmp_path: Path) -> None:
    # Planted drafts hold the word more often the longer they are, so that a taste for short ones costs right answers.
    items = [
        {"item_id": f"i{k}", "prompt": f"Say something about {k}.", "reference": "and then", "match": "contains"}
        for k in range(16)
    ]
    with serving(at_hand=True) as serve:
        raw = small_experiment(
            serve(draft={"length_mean": 30, "length_sd": 0.5}).base_url, panels={"anchor": 0}, generations=2, replicates=5,
            policy={"kind": "pool", "endpoint": "m", "pool_size": 8}, signal={"kind": "bradley_terry", "tau": 2.0},
            arms={"shorter": {"judge": {"kind": "rule", "feature": "length", "prefer": "less"}}, "coin": {"judge": {"kind": "random"}}},
        )  # fmt: skip
        run = judgeloop.run(write_experiment(tmp_path, raw, items), out=tmp_path / "run", report=False)
    rows = run.estimates[(run.estimates["arm"] == "shorter") & (run.estimates["category"] == "")]
    table = {(row.term, row.variant, row.generation): row for row in rows.itertuples()}
    gain, ratio, right = (table[term, "", 2] for term in ("proxy_gain", "correct_per_proxy", "did_correct"))
    assert gain.conf_low > 0
    assert ratio.estimate == pytest.approx(right.estimate / gain.estimate)
    assert ratio.verdict == "over-optimised"
    # The proxy is the reward that the texts had at generation 0, in its SDs, by the tables alone.
    candidates = run.candidates[run.candidates["arm"].isin(["shorter", "coin"])]
    zero = candidates[(candidates["arm"] == "shorter") & (candidates["generation"] == 0)]
    reward = zero.set_index(["replicate", "item_id", "candidate_id"])["reward"]
    drawn = candidates[candidates["n_drawn"] > 0].copy()
    drawn["proxy"] = [reward[row.replicate, row.item_id, row.candidate_id] for row in drawn.itertuples()]
    gains = []
    for replicate, part in drawn.groupby("replicate"):
        cells = {
            cell: (rows["proxy"] * rows["n_drawn"]).groupby(rows["item_id"]).sum() / rows["n_drawn"].groupby(rows["item_id"]).sum()
            for cell, rows in part.groupby(["arm", "generation"])
        }  # fmt: skip
        start = part[(part["arm"] == "shorter") & (part["generation"] == 0)]
        change = cells["shorter", 2].mean() - cells["coin", 2].mean()
        gains.append(change / start["proxy"].std(ddof=0))
        assert replicate in reward.index.get_level_values(0)
    assert gain.estimate == pytest.approx(np.mean(gains))
    best = table["best_of_n_correct", "n=4", 0]
    assert best.conf_high < 0
    assert table["best_of_n_kl", "n=2", 0].estimate < table["best_of_n_kl", "n=8", 0].estimate < np.log(8) + 1e-9
    said = [finding.sentence for finding in findings(run.estimates) if finding.row.verdict == "over-optimised"]
    assert len(said) == 1
    assert "over-optimised: the reward that was learned from the judge rose by" in said[0]
    alone = run.estimates.query("term == 'correct_per_proxy'")
    assert any("rose while right answers became fewer" in finding.sentence for finding in findings(alone))
