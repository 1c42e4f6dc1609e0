"""The validation table: it passes on the code as it is, and a row fails where an estimator or a strategy is broken."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import judgeloop
from judgeloop import kernels
from judgeloop.errors import InvalidInput
from judgeloop.learning import labels, selection, signals, strategies
from judgeloop.seeds import rng
from judgeloop.stats.inference import Interval
from judgeloop.validation import coverage_study, loop, refits, worlds
from judgeloop.validation.table import compare, covered, rejected

validate = import_module("judgeloop.validation")  # the package; judgeloop.validate is the function


def test_a_strategy_that_forgets_generation_zero_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = strategies.mix

    def forgetful(strategy: Any, **parts: Any) -> Mapping[str, float]:
        return honest(strategy, **{**parts, "generation_zero": {}})

    monkeypatch.setattr(strategies, "mix", forgetful)
    rows = validate.run(["B2"], quick=True)
    assert not all(row.passed for row in rows)


@pytest.mark.slow
def test_a_strategy_that_forgets_generation_zero_lets_the_variance_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = strategies.mix

    def forgetful(strategy: Any, **parts: Any) -> Mapping[str, float]:
        return honest(strategy, **{**parts, "generation_zero": {}})

    monkeypatch.setattr(strategies, "mix", forgetful)
    # That A3 passes otherwise is seen in test_in_python_it_gives_rows_and_writes_where_it_is_told.
    assert not any(row.passed for row in validate.run(["A3"], quick=True))
    assert not all(row.passed for row in validate.run(["D2"], quick=True))


def test_a_tilt_of_half_the_strength_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = selection.tilt
    monkeypatch.setattr(selection, "tilt", lambda reference, reward, tau: honest(reference, reward, 2.0 * tau))
    moved = [row for row in validate.run(["D2"], quick=True) if "μ_" in row.setting]
    assert moved
    assert not any(row.passed for row in moved)


@pytest.mark.slow
def test_a_learner_without_an_order_column_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = signals.fit

    def blind(preferences: pd.DataFrame, *others: Any) -> signals.FittedSignal:
        return honest(preferences.assign(order=""), *others)

    def failed() -> set[str]:
        rows = validate.run(["F1"], quick=True, seed=1, factor=0.2)
        return {row.setting.split("=")[0] for row in rows if not row.passed}

    assert not failed()
    monkeypatch.setattr(signals, "fit", blind)
    # The order goes with length in this row's world: what position did, length now seems to do.
    assert failed() >= {"Bradley-Terry order", "Bradley-Terry length"}


def test_one_feedback_step_of_the_planted_loop_moves_the_policy_by_its_signal() -> None:
    world = loop.World(replicates=2, steps=1, pairs=100)
    tables = loop.run(world, seed=5)
    rows = tables.candidates
    zero = rows[(rows["generation"] == 0) & (rows["replicate"] == 0)]
    drawn = {arm: part.loc[part["n_drawn"] > 0, ["candidate_id", "n_drawn"]] for arm, part in zero.groupby("arm")}
    for arm in world.arms:
        assert drawn[arm].to_numpy().tolist() == drawn["judge"].to_numpy().tolist()
    # A Gaussian tilted by exp(b·x/τ) has its mean moved by Σb/τ, and the lattice's law is a Gaussian's.
    for (replicate, arm), part in tables.signals.groupby(["replicate", "arm"]):
        b = part.set_index("feature")["coefficient"]
        chosen = rows[(rows["replicate"] == replicate) & (rows["arm"] == arm) & (rows["generation"] == 0)]
        moved = float(np.average(chosen["length"], weights=chosen["p_selected"]))
        assert moved == pytest.approx((b["length"] + loop.RHO * b["bold"]) / loop.TAU, abs=1e-5)


def test_a_small_synthetic_share_leaves_an_error_floor() -> None:
    error = [refits.small_share_error(rows, 5, 20) for rows in (10**4, 10**6, 10**8)]
    floor = (refits.SYNTHETIC * refits.BEND / (1.0 - refits.SYNTHETIC)) ** 2
    assert error[0] > error[1] > error[2] > floor
    assert error[2] == pytest.approx(floor, rel=1e-3)


def test_truths_of_a_cell_agree_with_one_large_sample() -> None:
    cell = coverage_study.Cell(position=0.4, length=0.3, items=60_000, unscored=0.0, ties=0.2)
    truth = coverage_study.truths(cell)
    stream = rng(11, "one large sample")
    length, bold, rest = stream.standard_normal((3, cell.items))
    gold = coverage_study.RHO * length + np.sqrt(1.0 - coverage_study.RHO**2) * rest
    content = cell.length * length + coverage_study.BOLD * bold + coverage_study.KAPPA * gold
    verdicts = {o: worlds.picks(cell.position + s * content, stream, tie=0.2) for o, s in (("ab", 1), ("ba", -1))}
    x = np.concatenate([np.stack([np.full(cell.items, s), length, bold, gold], axis=1) for s in (1.0, -1.0)])
    values = {"first": 1.0, "second": 0.0, "tie": 0.5}
    first = {order: np.array([values[v] for v in said]) for order, said in verdicts.items()}
    fit = kernels.logistic(x, np.concatenate([first["ab"], 1.0 - first["ba"]]))
    assert fit.coefficients == pytest.approx(truth.slopes, abs=0.03)
    p = fit.probabilities
    assert fit.coefficients[1] * np.mean(p * (1.0 - p)) == pytest.approx(truth.length_ame, abs=0.006)
    assert np.mean([first["ab"], first["ba"]]) - 0.5 == pytest.approx(truth.first_slot_excess, abs=0.006)
    level = coverage_study.truths(coverage_study.Cell(0.0, 0.0, 30, 0.0, 0.0))
    assert (level.first_slot_excess, level.length_ame, level.padding_probe) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    assert level.self_preference_gold == pytest.approx(0.0, abs=1e-12)


def test_the_study_names_a_cell_whose_intervals_are_too_narrow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cell = "position=0.4,length=0.3,items=30,unscored=0.1,ties=0.2"
    told: list[pd.DataFrame] = []
    found = validate.coverage(3, 25, cells=[cell], on_cell=told.append).set_index("term")
    assert len(told) == 1
    assert found["passed"].all(), found.to_string()
    assert (found["replications"] + found["undefined"] == 25).all()

    def point(model: Any, name: str) -> Interval:
        found = model.slope(name)
        return Interval(found.estimate, 0.0, found.estimate, found.estimate)

    monkeypatch.setattr(coverage_study, "average_effect", point)
    validate.write([], tmp_path, coverage=told[0])
    earlier = validate.earlier_study(tmp_path / "coverage.csv", coverage_study.COLUMNS)
    again = validate.coverage(3, 25, cells=[cell], earlier=earlier, on_cell=told.append)
    assert len(told) == 1  # taken over from the file, not drawn again
    pd.testing.assert_frame_equal(again, told[0].reset_index(drop=True), check_dtype=False)
    broken = validate.coverage(3, 10, cells=[cell])
    missed = broken[~broken["passed"]]
    assert missed["term"].tolist() == ["length_ame"]
    assert missed["note"].iloc[0] == "the tables report another interval"
    page = validate.write([], tmp_path, coverage=broken)[1].read_text(encoding="utf-8")
    assert f"- {cell}, length_ame: 0.0000 of 10" in page


def test_in_python_it_gives_rows_and_writes_where_it_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    done = judgeloop.validate(["A3"], quick=True, watch=told.append)
    assert done.passed
    assert set(done.rows["name"]) == {"A3"}
    assert len(told) == len(done.rows)
    assert done.summary().endswith(f"{len(told)} of {len(told)} rows pass")
    assert (done.files, list(tmp_path.iterdir())) == ((), [])
    cell = "position=0.4,length=0.3,items=30,unscored=0.1,ties=0.2"
    study = judgeloop.validate([cell], coverage=True, replications=3, out=tmp_path)
    assert set(study.rows["cell"]) == {cell}
    assert {path.name for path in study.files} >= {"coverage.csv", "validate.md"}
    again = judgeloop.validate([cell], coverage=True, replications=3, out=tmp_path, watch=told.append)
    assert len(told) == len(done.rows)  # taken over from the file
    assert again.summary() == study.summary()
    with pytest.raises(InvalidInput, match="unknown row 'Z'"):
        judgeloop.validate(["Z"])


def test_a_share_of_the_study_is_the_same_for_every_seed_and_bad_requests_are_named() -> None:
    with pytest.raises(InvalidInput, match="unknown cell 'position=9'"):
        validate.coverage(cells=["position=9"])
    for bad in ({"replications": 0}, {"share": 0.0}, {"share": 1.5}):
        with pytest.raises(InvalidInput, match="1 replication or more"):
            validate.coverage(cells=["replicates=5"], **bad)
    few = [name for name in validate.CELLS if "items=30," in name][:9]  # the quickest
    shares = [validate.coverage(seed, 1, cells=few, share=0.3)["cell"].unique() for seed in (1, 2)]
    assert shares[0].tolist() == shares[1].tolist()
    assert len(shares[0]) == 3


def test_a_row_without_a_number_fails() -> None:
    assert not compare("X", "nothing", 0.0, float("nan"), 1.0).passed
    assert not rejected("X", "nothing", [0.2, float("nan")]).passed
    assert rejected("X", "few", [0.5] * 40).passed
    assert not rejected("X", "many", [0.01] * 40).passed
    assert not covered("X", "too wide", [True] * 2000).passed


@pytest.mark.slow
def test_a_label_rule_that_looks_at_one_order_only_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = labels.preferences

    def one_eyed(judgments: pd.DataFrame, rule: Any) -> pd.DataFrame:
        seen = judgments[judgments["order"] == "ab"]
        mirrored = seen.assign(
            order="ba",
            verdict=seen["verdict"].map({"first": "second", "second": "first"}),
            candidate_first=seen["candidate_second"],
            candidate_second=seen["candidate_first"],
        )
        return honest(pd.concat([seen, mirrored], ignore_index=True), rule)

    monkeypatch.setattr(labels, "preferences", one_eyed)
    rows = validate.run(["E3"], quick=True)
    assert rows
    assert not any(row.passed for row in rows if "unanimous of 2" in row.setting and "γ=0" in row.setting)


def test_an_unknown_row_is_named() -> None:
    with pytest.raises(InvalidInput, match="unknown row 'Z9'"):
        validate.run(["Z9"])


def test_the_table_is_written_and_says_what_failed(tmp_path: Path) -> None:
    rows = validate.run(["E2"], quick=True)
    assert f"{len(rows)} of {len(rows)} rows pass" in validate.table(rows)
    sheet, page = validate.write(rows, tmp_path)
    assert len(sheet.read_text(encoding="utf-8").splitlines()) == len(rows) + 1
    assert "| E2 |" in page.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))  # side by side
def test_the_quick_table_passes_for_another_seed_than_that_of_the_pages(part: int) -> None:
    names = list(validate.CHECKS)[part::4]
    rows = validate.run(names, quick=True, seed=1)
    failed = [row for row in rows if not row.passed]
    assert not failed, validate.table(failed)
    assert {row.name for row in rows} == set(names)


def test_another_seed_draws_other_samples() -> None:
    one, other = (validate.run(["B1"], quick=True, seed=seed) for seed in (1, 2))
    assert [row.estimate for row in one] != [row.estimate for row in other]


@pytest.mark.slow
def test_an_advantage_that_leaves_its_own_text_out_of_the_mean_fails_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(row.passed for row in validate.run(["C5"], quick=True, seed=2, factor=0.25))
    honest = selection.expected_advantage

    def of_others(*parts: Any, **settings: Any) -> dict[str, float]:
        return {name: value * 8 / 7 for name, value in honest(*parts, **settings).items()}

    monkeypatch.setattr(selection, "expected_advantage", of_others)
    assert not any(row.passed for row in validate.run(["C5"], quick=True, seed=2, factor=0.25))
