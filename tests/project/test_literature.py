"""The experiments of examples/literature: each runs, and shows its finding where the planted truth says so (docs/literature.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import judgeloop
from conftest import Served

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "literature"
NAMES = ("strategies", "one_in_a_thousand", "contamination")
NUMBERS = json.loads((ROOT / "docs" / "pictures" / "numbers.json").read_text(encoding="utf-8"))
SMALL = {"generations": 4, "replicates": 1, "candidates_per_item": 4}
pytestmark = [pytest.mark.at_hand, pytest.mark.tables]
Serve = Callable[..., Served]


@pytest.fixture
def small(tmp_path: Path, serve: Serve) -> Callable[[str], pd.DataFrame]:
    """The candidates of a shipped experiment with fewer items and texts, against the shipped planted server."""

    def run(name: str) -> pd.DataFrame:
        planted = yaml.safe_load((FOLDER / "planted.yaml").read_text(encoding="utf-8"))
        served = serve(position=0, **{**planted, "references": str(FOLDER / "items.jsonl")})
        raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")) | SMALL
        items = (FOLDER / raw["items"]).read_text(encoding="utf-8").splitlines(keepends=True)[:4]
        (tmp_path / "items.jsonl").write_text("".join(items), encoding="utf-8")
        raw["items"], raw["endpoints"]["m"]["base_url"] = str(tmp_path / "items.jsonl"), served.base_url
        raw["policy"]["pool_size"] = 8
        return judgeloop.run(raw, out=tmp_path / "run").candidates

    return run


def mean(texts: pd.DataFrame, value: str, weight: str = "p_current") -> pd.Series:
    """The mean over items of a column under a distribution, by arm and generation."""
    weighted = texts[value].astype(float) * texts[weight].astype(float)
    return weighted.groupby([texts["arm"], texts["generation"]]).sum() / texts["item_id"].nunique()


def row(picture: str, term: str, arm: str, generation: int = 6) -> dict[str, Any]:
    """A row of the full experiment, as docs/pictures.py measured it (a slow test measures it again)."""
    of_row = {"term": term, "arm": arm, "generation": generation}
    [found] = [one for one in NUMBERS[picture] if all(one.get(key) == value for key, value in of_row.items())]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_experiment_resolves_and_plans_as_it_stands(name: str) -> None:
    raw = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    made = judgeloop.plan(FOLDER / f"{name}.yaml")
    drafts = 16 * raw["replicates"] * raw["policy"]["pool_size"]
    # The scored texts of contamination are the pool's, once each, after a trial call.
    calls = 2 * drafts if name == "contamination" else drafts
    assert calls <= made.calls <= calls + 8


# -- replace, accumulate, a share of real data ---------------------------------------------------------------------------


def test_a_pool_loses_texts_under_replace_and_keeps_them_under_accumulate(small: Callable[[str], pd.DataFrame]) -> None:
    """The chance that two texts of an item are the same text, which only grows under replace."""
    texts = small("strategies")
    alike = mean(texts.assign(again=texts["p_current"]), "again").unstack("arm")
    assert alike.loc[0].tolist() == pytest.approx([1 / 8] * 5)
    assert (np.diff(alike["replace"]) > 0).all()
    assert alike.loc[4, "replace"] > 1.3 * alike.loc[4, "accumulate"]
    # Real data are a half of every set, and generation 0's candidates more than a fifth of an accumulated one's.
    real = texts[(texts["generation"] == 0) & (texts["arm"] == "replace")].assign(p=lambda t: t["n_drawn"] / 4)
    for arm, share in (("half_real", 0.5), ("accumulate", 1 / 5), ("plain_accumulate", 1 / 5)):
        last = texts[(texts["arm"] == arm) & (texts["generation"] == 4)]
        both = last.merge(real[["item_id", "candidate_id", "p"]], on=["item_id", "candidate_id"])
        assert (both["p_current"].astype(float) >= share * both["p"].astype(float) - 1e-9).all()


def test_variety_goes_before_means_and_its_loss_is_bounded_under_accumulate() -> None:
    path = [row("strategies", "drift_vendi", "replace", t) for t in range(1, 7)]
    assert (np.diff([one["estimate"] for one in path]) < 0).all()
    assert (
        path[5]["conf_high"]
        < path[2]["conf_low"]
        < path[2]["conf_high"]
        < path[0]["conf_low"]
        < path[0]["conf_high"]
        < 0
    )
    for arm in ("replace", "accumulate", "half_real"):
        for t in range(1, 7):
            for term in ("drift_length", "drift_correct"):
                assert row("strategies", term, arm, t)["verdict"] != "drifting"
    first, last = (row("strategies", "drift_vendi", "accumulate", t) for t in (1, 6))
    assert first["conf_low"] < last["estimate"] < first["conf_high"]
    half = row("strategies", "drift_vendi", "half_real")
    assert path[-1]["conf_high"] < half["conf_low"] < half["conf_high"] < last["conf_low"]


def test_rare_kinds_of_text_go_under_a_taste_for_plain_ones_and_not_under_a_coin() -> None:
    coin, plain, kept = (
        row("strategies", "drift_tail_mass_retained", arm) for arm in ("replace", "plain", "plain_accumulate")
    )
    assert coin["conf_low"] < 0 < coin["conf_high"]
    assert plain["verdict"] == kept["verdict"] == "drifting"
    assert plain["conf_high"] < kept["conf_low"] < kept["conf_high"] < 0
    assert row("strategies", "drift_tail_mass_retained", "plain", 1)["conf_high"] < 0
    assert row("strategies", "drift_length", "plain", 1)["verdict"] != "drifting"
    assert row("strategies", "drift_correct", "plain")["verdict"] != "drifting"


# -- one in 1,000 --------------------------------------------------------------------------------------------------------


def test_a_thousandth_pulls_by_a_thousandth_of_what_is_selected(small: Callable[[str], pd.DataFrame]) -> None:
    texts = small("one_in_a_thousand")
    texts = texts[texts["generation"] < 4]
    trained, selected = (mean(texts, "length", weight)["one_in_a_thousand"] for weight in ("p_training", "p_selected"))
    real = mean(texts, "length", "p_training")["real_only"]
    assert (selected - real > 0.1).all()
    assert (trained - real).tolist() == pytest.approx((0.001 * (selected - real)).tolist(), rel=1e-6)


def test_the_pull_of_a_thousandth_does_not_add_up_and_more_rows_do_not_remove_it() -> None:
    assert row("one_in_a_thousand", "drift_length", "replace")["conf_low"] > 0.5
    assert row("one_in_a_thousand", "drift_length", "one_in_a_thousand")["verdict"] == "none"
    pulls = [row("one_in_a_thousand", "mixing_length", "one_in_a_thousand", t)["estimate"] for t in range(1, 6)]
    assert pulls[0] < -0.1
    assert np.ptp(pulls) < 0.01
    errors = [one for one in NUMBERS["one_in_a_thousand"] if "rows" in one]
    assert [one["rows"] for one in errors] == [4_000, 16_000, 64_000]
    for one in errors:
        assert one["conf_low"] - (one["conf_high"] - one["estimate"]) < one["theory"]
        assert one["theory"] < one["conf_high"] + (one["conf_high"] - one["estimate"])
    # Sixteen times the rows: a sixteenth of the error without synthetic data, and with it no less than the floor of 1.
    assert errors[0]["without"] == pytest.approx(16 * errors[-1]["without"], rel=0.01)
    assert all(one["estimate"] > 1 for one in errors)
    assert errors[-1]["conf_low"] > 100 * errors[-1]["without"]


# -- one judge as evaluator and training signal --------------------------------------------------------------------------


def test_the_judge_s_score_rises_with_what_it_selects(small: Callable[[str], pd.DataFrame]) -> None:
    """Tilting by a score raises its mean in every step, whatever the score is worth; by gold the share of right texts."""
    texts = small("contamination")
    texts = texts[texts["generation"] < 4]
    score = mean(texts, "reward")
    assert (np.diff(score["judge"]) > 0).all()
    right = mean(texts, "correct")
    assert (np.diff(right["gold"]) > 0).all()
    assert score["gold"].tolist() == pytest.approx(right["gold"].tolist())
    drafted = texts[(texts["arm"] == "judge") & (texts["generation"] == 0)]
    assert 0.3 < drafted["correct"].astype(float).mean() < 0.7


def test_the_judge_reports_a_gain_that_gold_does_not() -> None:
    scores = [row("contamination", "proxy_gain", "judge", t) for t in range(1, 7)]
    assert all(one["conf_low"] > 0 for one in scores)
    assert scores[-1]["estimate"] > scores[0]["estimate"]
    assert all(row("contamination", "drift_correct", "judge", t)["verdict"] != "drifting" for t in range(1, 7))
    gold = row("contamination", "drift_correct", "gold")
    assert gold["conf_low"] > row("contamination", "drift_correct", "judge")["conf_high"]
