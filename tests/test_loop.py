"""The main path against a planted judge and drafter over real HTTP: the loop closes, and the tables add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import judgeloop
from conftest import Served, serving, small_experiment, tables, write_experiment
from judgeloop.records import CANDIDATE_COLUMNS, ESTIMATE_COLUMNS, JUDGMENT_COLUMNS, PREFERENCE_COLUMNS, SIGNAL_COLUMNS

Serve = Callable[..., Served]
pytestmark = pytest.mark.at_hand
ACCUMULATES = {"strategy": {"kind": "accumulate"}}


def _run(tmp_path: Path, served: Served, name: str = "run", **changes: Any) -> judgeloop.Run:
    path = write_experiment(tmp_path / "in", small_experiment(served.base_url, **{"generations": 2, **changes}))
    return judgeloop.run(path, out=tmp_path / name)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[judgeloop.Run, Served]]:
    """The small experiment with a training set that accumulates, run once, and what its server was asked."""
    with serving(at_hand=True) as serve:
        served = serve()
        yield _run(tmp_path_factory.mktemp("small"), served, **ACCUMULATES), served


def _mean_length(run: judgeloop.Run, arm: str, generation: int) -> float:
    table = run.candidates
    rows = table[(table["arm"] == arm) & (table["generation"] == generation) & (table["n_drawn"] > 0)]
    return float(np.average(rows["length"], weights=rows["n_drawn"]))


def test_a_judge_that_likes_length_makes_its_own_outputs_longer_and_a_coin_does_not(
    tmp_path: Path, serve: Serve
) -> None:
    run = _run(tmp_path, serve(length=3.0), replicates=2, candidates_per_item=4, panels={"anchor": 0})
    assert _mean_length(run, "judge", 0) == _mean_length(run, "random", 0)
    grown = _mean_length(run, "judge", 2) - _mean_length(run, "judge", 0)
    assert grown > 0.5
    estimates = run.estimates
    whole = (estimates["category"] == "") & (estimates["variant"] == "")
    did = estimates[whole & (estimates["term"] == "did_length") & (estimates["generation"] == 2)]
    assert did["estimate"].item() == pytest.approx(
        grown - (_mean_length(run, "random", 2) - _mean_length(run, "random", 0))
    )


def test_tables_have_the_contract_s_columns_and_the_price_identity_holds_to_rounding(
    small: tuple[judgeloop.Run, Served],
) -> None:
    run = small[0]
    assert set(JUDGMENT_COLUMNS) <= set(run.judgments.columns)
    assert set(CANDIDATE_COLUMNS) <= set(run.candidates.columns)
    assert set(PREFERENCE_COLUMNS) <= set(run.folder.table("preferences").columns)
    assert list(run.estimates.columns) == list(ESTIMATE_COLUMNS)
    whole = run.estimates[(run.estimates["arm"] == "judge") & (run.estimates["category"] == "")]

    def value(term: str, generation: int) -> float:
        return float(whole.loc[(whole["term"] == term) & (whole["generation"] == generation), "estimate"].item())

    for generation in (0, 1):
        parts = sum(value(f"{part}_length", generation) for part in ("selection", "mixing", "learning"))
        assert parts == pytest.approx(
            value("mean_length", generation + 1) - value("mean_length", generation), abs=1e-12
        )


def test_what_arms_share_is_asked_once_and_bears_no_arm(small: tuple[judgeloop.Run, Served]) -> None:
    run, served = small
    assert max(served.asked.values()) == 1
    shared = [call for call in served.asked if call.startswith(("s0/g0/", "s1/g0/", "panels/"))]
    assert shared
    assert not [call for call in shared if "/judge/judge/" in call or "/draft/judge/" in call or "random" in call]
    later = [call for call in served.asked if "/g1/" in call and not call.startswith("panels/")]
    assert all(call.split("/")[3] in ("judge", "random") for call in later)
    judged = run.judgments
    assert set(judged.loc[judged["panel"] == "anchor", "generation"]) == {0, 1, 2}
    assert judged.loc[judged["panel"] == "anchor", "replicate"].isna().all()


def test_the_anchor_panel_of_a_frozen_judge_does_not_drift_at_all(small: tuple[judgeloop.Run, Served]) -> None:
    estimates = small[0].estimates
    drift = estimates[estimates["term"].str.startswith("judge_drift_") & estimates["estimate"].notna()]
    assert len(drift) > 0
    assert (drift["estimate"].abs() < 1e-12).all()


def test_a_run_without_probes_has_no_trace_of_them(small: tuple[judgeloop.Run, Served]) -> None:
    run = small[0]
    assert "probe" not in run.judgments.columns
    assert not run.estimates["term"].str.endswith("_probe").any()


@pytest.mark.parametrize(
    ("signal", "strategy"),
    [
        pytest.param({"kind": "bradley_terry"}, "accumulate", marks=pytest.mark.tables),
        ({"kind": "bradley_terry", "update": "best_of_n"}, "accumulate_subsample"),
        pytest.param({"kind": "best_of_n"}, "replace", marks=pytest.mark.tables),
    ],
)
def test_pool_distributions_sum_to_one_through_every_step(
    tmp_path: Path, serve: Serve, signal: dict[str, Any], strategy: str
) -> None:
    run = _run(
        tmp_path,
        serve(),
        policy={"kind": "pool", "endpoint": "m", "pool_size": 6},
        signal=signal,
        strategy={"kind": strategy, "real_fraction": 0.25},
        arms={"judge": {}, "random": {"judge": {"kind": "random"}}, "gold": {"judge": {"kind": "gold"}}},
        panels={"anchor": 0},
        replicates=1,
    )
    candidates = run.candidates
    by = candidates.groupby(["replicate", "arm", "generation", "item_id"])
    assert (by["n_drawn"].sum() == 3).all()
    for column in ("p_current", "p_selected", "p_training", "p_next"):
        sums = by[column].sum(min_count=1)
        last = sums.index.get_level_values("generation") == 2
        assert sums[~last].to_numpy() == pytest.approx(1.0)
        if column != "p_current":
            assert sums[last].isna().all()
    gold = by["p_selected_gold"].sum(min_count=1)
    assert gold.xs("judge", level="arm").dropna().to_numpy() == pytest.approx(1.0)
    nexts = candidates.set_index(["arm", "generation", "item_id", "candidate_id"])["p_next"].drop(2, level="generation")
    following = candidates.assign(generation=candidates["generation"] - 1)
    following = following.set_index(["arm", "generation", "item_id", "candidate_id"])["p_current"].drop(
        -1, level="generation"
    )
    pd.testing.assert_series_equal(nexts.sort_index(), following.sort_index(), check_names=False)
    if signal["kind"] == "bradley_terry":
        assert set(SIGNAL_COLUMNS) <= set(run.folder.table("signals").columns)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    tmp_path: Path, serve: Serve, small: tuple[judgeloop.Run, Served]
) -> None:
    served = serve()  # another server: nothing is answered from what the first was asked
    first, again = small[0], _run(tmp_path, served, "b", **ACCUMULATES)
    assert tables(first.path) == tables(again.path)
    other = _run(tmp_path, served, "c", seed=1, **ACCUMULATES)
    assert tables(first.path) != tables(other.path)


def test_a_positive_control_moves_with_no_call_and_is_not_judged_on_the_panels(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    arms = {"judge": {}, "longer": {"judge": {"kind": "rule", "feature": "length"}}, "random": {"judge": {"kind": "random"}}}  # fmt: skip
    run = _run(tmp_path, served, arms=arms, generations=1)
    assert not [call for call in served.asked if "/judge/longer" in call]
    judged = run.judgments
    assert set(judged.loc[judged["panel"] == "anchor", "judge"]) == {"planted"}
    assert set(judged.loc[judged["arm"] == "longer", "judge"]) == {"rule:more_length"}
    assert _mean_length(run, "longer", 1) > _mean_length(run, "longer", 0)
    estimates = run.estimates
    did = estimates[(estimates["term"] == "did_length") & (estimates["arm"] == "longer")]
    assert set(did["contrast"]) == {"random"}
    assert set(estimates.loc[estimates["term"] == "did_bold", "positive_control"]) == {"", "itself"}
    judged = estimates[
        (estimates["term"] == "did_length") & (estimates["arm"] == "judge") & (estimates["variant"] == "")
    ]
    assert set(judged["positive_control"]) <= {"seen", "not_seen"}
    assert not ((estimates["arm"] == "longer") & (estimates["scope"] == "signal")).any()


def test_a_draft_that_never_comes_is_a_row_with_its_reason(tmp_path: Path, serve: Serve) -> None:
    from judgeloop.serving.faults import Faults, Rule

    faults = Faults(rules=(Rule(match=r"s0/g1/draft/judge/sleep/", kind="context_length", times="always"),))
    run = _run(tmp_path, serve(faults=faults), generations=1, replicates=1, panels={"anchor": 0})
    lost = run.candidates[run.candidates["text"].isna()]
    assert len(lost) == 3
    assert set(lost["reason"]) == {"context_length"}
    assert set(lost["item_id"]) == {"sleep"}
    estimates = run.estimates
    mean = estimates[
        (estimates["term"] == "mean_length") & (estimates["arm"] == "judge") & (estimates["generation"] == 1)
    ]
    assert mean["estimate"].notna().all()


@pytest.mark.tables
def test_a_debiased_arm_has_its_own_calls_and_its_own_name(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    arms = {"judge": {}, "rubric": {"judge": {"prompt": "rubric"}}, "random": {"judge": {"kind": "random"}}}
    run = _run(tmp_path, served, arms=arms, generations=1, replicates=1)
    names = set(run.judgments["judge"])
    assert names == {"planted#pairwise/logprob", "planted#rubric/logprob", "random"}
    assert [call for call in served.asked if call.startswith("s0/g0/judge/rubric/")]
    assert [call for call in served.asked if call.startswith("panels/g1/judge/rubric/")]


SCORED = {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 6}, "panels": {"anchor": 0}}


@pytest.mark.tables
def test_scores_of_every_kind_of_judge_tilt_its_pool(tmp_path: Path, serve: Serve) -> None:
    served = serve(length=0.7)
    judges: dict[str, dict[str, Any]] = {
        "reward": {"kind": "reward", "endpoint": "m"}, "shorter": {"kind": "rule", "feature": "length", "prefer": "less"},
        "planted": {"kind": "planted", "length": 0.7, "position": 3.0}, "gold": {"kind": "gold"}, "random": {"kind": "random"},
    }  # fmt: skip
    run = _run(
        tmp_path, served, signal={"kind": "group_advantage", "normalize": "none", "step": 2.0}, replicates=1,
        arms={name: {"judge": judge} for name, judge in judges.items()}, **SCORED,
    )  # fmt: skip
    table = run.candidates
    steps = table[table["generation"] < 2]
    worth = {
        "reward": 0.7 * table["length"], "shorter": -table["length"], "planted": 0.7 * table["length"],
        "gold": table["correct"],
    }  # fmt: skip
    for arm in judges:
        of_arm = steps[steps["arm"] == arm]
        if arm in worth:
            above = (of_arm["reward"] - worth[arm][of_arm.index]).groupby(of_arm["item_id"])
            assert (above.max() - above.min()).dropna().to_numpy() == pytest.approx(0.0, abs=1e-9)
        else:
            assert set(of_arm["reward"]) == {0.0, 1.0}
        # Selection is the tilt with 1/tau = step·(K − 1)/K.
        tilted = of_arm["p_current"] * np.exp(of_arm["reward"].fillna(0.0) * 2.0 * (3 - 1) / 3)
        cell = [of_arm["generation"], of_arm["item_id"]]
        assert of_arm["p_selected"].to_numpy() == pytest.approx(tilted / tilted.groupby(cell).transform("sum"))
    gold = steps[steps["arm"] == "reward"]
    tilted = gold["p_current"] * np.exp(gold["correct"].fillna(0.0) * 2.0 * (3 - 1) / 3)
    cell = [gold["generation"], gold["item_id"]]
    assert gold["p_selected_gold"].to_numpy() == pytest.approx(tilted / tilted.groupby(cell).transform("sum"))
    assert _mean_of(table, "reward", 2) > _mean_of(table, "reward", 0)
    assert _mean_of(table, "shorter", 2) < _mean_of(table, "shorter", 0)
    assert len(run.folder.table("signals")) == 0


def _mean_of(table: pd.DataFrame, arm: str, generation: int) -> float:
    """Mean length by the policy's weights."""
    rows = table[(table["arm"] == arm) & (table["generation"] == generation)]
    return float(np.average(rows["length"], weights=rows["p_current"]))
