"""Items whose gold a model says (match: judge): asked once a text, and then known of every candidate and judgment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import judgeloop
from conftest import ITEMS, Served, small_experiment, tables, write_experiment
from judgeloop.commands.plan import plan
from judgeloop.commands.run import run as run_command
from judgeloop.errors import BudgetReached, ExperimentError
from judgeloop.experiment.resolve import Material, load
from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.items import correct_remark, is_gold_exact, why_correct_is_unknown

Serve = Callable[..., Served]
pytestmark = pytest.mark.at_hand
URL = "http://127.0.0.1:1/v1"
WORD = "village"
"""What the planted model looks for in a text; about half of its drafts have it."""
ASKED = [ITEMS[0], {**ITEMS[1], "reference": WORD, "match": "judge"}, ITEMS[2]]
GOLD = {"judge": {}, "random": {"judge": {"kind": "random"}}, "gold": {"judge": {"kind": "gold", "endpoint": "m"}}}
POOL = {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 4}, "signal": {"kind": "bradley_terry"}}


def _experiment(folder: Path, base_url: str, items: list[dict[str, Any]] = ASKED, **changes: Any) -> Path:
    return write_experiment(folder, small_experiment(base_url, **{"arms": GOLD, "replicates": 1, **changes}), items)


def _matching(served: Served) -> list[str]:
    return [call_id for call_id in served.asked if "/judge/gold/" in call_id]


def _right(text: str) -> bool:
    """What the planted model answers to the template reference_match, said anew."""
    return WORD in text.casefold()


@pytest.mark.tables
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="exemplar"),
        pytest.param(POOL, id="pool"),
        pytest.param({"strategy": {"real_fraction": 0.5, "real": "real.jsonl"}}, id="real"),
    ],
)
def test_correct_and_gold_are_the_model_s_answers_and_a_text_is_asked_about_once(
    tmp_path: Path, serve: Serve, changes: dict[str, Any]
) -> None:
    served = serve()
    # As long as drafts are: short ones would be drafted twice the same, and be asked about once.
    rows = [{"item_id": item["item_id"], "text": f"A human {WORD}. " + "No more of it. " * 8} for item in ASKED]
    (tmp_path / "real.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = _experiment(tmp_path, served.base_url, **changes)
    planned = plan(path)
    run = run_command(path, out=tmp_path / "run")
    found = run.candidates[run.candidates["text"].notna()]
    of_model = found[found["item_id"] == "sleep"]
    assert [bool(x) for x in of_model["correct"]] == [_right(text) for text in of_model["text"]]
    assert set(of_model["correct"]) == {0.0, 1.0}
    assert set(of_model.loc[of_model["replicate"].notna(), "arm"]) == set(GOLD)
    assert found.loc[found["item_id"] == "rain", "correct"].isna().all()
    assert found.loc[found["item_id"] == "capital", "correct"].notna().all()

    texts = of_model[["replicate", "text"]].drop_duplicates()  # the panel's have no replicate
    loads = {load.what: load.calls for load in planned.loads}
    assert len(_matching(served)) == len(texts) == loads["gold matching"] == Material.read(load(path)).matched_texts()
    assert set(served.asked.values()) == {1}
    assert len([call_id for call_id in served.asked if "/trial/" not in call_id]) <= planned.planned_calls
    if not changes:
        assert sum(served.asked.values()) == planned.planned_calls
    assert {tuple(call.split("/")[2:5]) for call in _matching(served)} == {("judge", "gold", "sleep")}

    of_model = of_model.assign(replicate=of_model["replicate"].fillna(-1))
    said = of_model.set_index(["replicate", "arm", "candidate_id"])["text"].to_dict()
    judged = run.judgments[run.judgments["item_id"] == "sleep"]
    assert set(judged["panel"]) == {"anchor", "policy"}
    for row in judged.itertuples():
        unit = (-1 if pd.isna(row.replicate) else row.replicate, row.arm)
        shown = [_right(said[*unit, name]) for name in (row.candidate_first, row.candidate_second)]
        a, b = shown if row.order == "ab" else shown[::-1]
        assert row.gold == ("tie" if a == b else "a" if a else "b")
    told = judged[judged["judge"] == "gold"]
    slot = {("a", "ab"): "first", ("b", "ba"): "first", ("a", "ba"): "second", ("b", "ab"): "second"}
    wanted = [slot.get(pair, "tie") for pair in zip(told["gold"], told["order"], strict=True)]
    assert list(told["verdict"]) == wanted
    assert all(call in served.asked for call in told["call"])
    assert (run.judgments.loc[run.judgments["item_id"] == "rain", "gold"] == "").all()


@pytest.mark.tables
def test_stopped_resumed_and_replayed_it_is_the_same_run(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = _experiment(tmp_path / "in", served.base_url, panels={"anchor": 0})
    whole = judgeloop.run(path, out=tmp_path / "whole")
    asked = dict(served.asked)
    replayed = judgeloop.run(path, out=tmp_path / "replayed", replay=whole.path)
    assert dict(served.asked) == asked
    assert tables(replayed.path) == tables(whole.path)
    served.asked.clear()
    for most in (40, 70, 1000):
        try:
            judgeloop.run(path, out=tmp_path / "stopped", max_calls=most)
        except BudgetReached:
            assert sum(served.asked.values()) == most
    assert dict(served.asked) == asked
    assert tables(tmp_path / "stopped") == tables(whole.path)


def _row(frame: pd.DataFrame, term: str, **labels: Any) -> pd.Series:
    labels = {"category": "", "variant": "", **labels}
    found = frame[frame["term"] == term]
    for name, value in labels.items():
        found = found[found[name] == value]
    assert len(found) == 1, (term, labels, len(found))
    return found.iloc[0]


def test_a_model_s_word_is_measured_and_is_no_exact_gold(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    run = judgeloop.run(_experiment(tmp_path / "in", served.base_url, ASKED[1:]), out=tmp_path / "run")
    found = run.candidates
    cell = found[(found["arm"] == "judge") & (found["generation"] == 1) & (found["n_drawn"] > 0)]
    row = _row(run.estimates, "mean_correct", arm="judge", generation=1)
    means = cell[cell["item_id"] == "sleep"].groupby("replicate")["correct"].mean()
    assert row["estimate"] == pytest.approx(np.mean(means))
    assert "1 items are matched by a model, which can err (match: judge)" in row["note"]
    anchor = {"panel": "anchor", "generation": 0}
    row = _row(run.estimates, "length_log_odds", **anchor)
    assert row["status"] == "undefined"
    assert "state --gold-exact where it cannot err" in row["note"]
    assert not is_gold_exact(run.judgments, run.folder.table("items"))


def test_gold_is_exact_where_references_alone_are_matched() -> None:
    items = pd.DataFrame({"item_id": ["r", "m"], "reference": ["x", "x"], "match": ["exact", "judge"]})
    judgments = pd.DataFrame({"item_id": ["r", "m"], "gold": ["a", ""]})
    assert is_gold_exact(judgments, items)
    assert not is_gold_exact(judgments.assign(gold="tie"), items)
    assert is_gold_exact(judgments.assign(gold="tie"), items.assign(reference=["x", " "]))
    assert is_gold_exact(judgments.assign(gold="tie"), pd.DataFrame())
    assert is_gold_exact(judgments[["item_id"]], items)


def test_a_remark_says_which_items_a_model_matches() -> None:
    items = pd.DataFrame({"item_id": ["r", "m"], "reference": ["x", "x"], "match": ["exact", "judge"]})
    rows = pd.DataFrame(
        {"replicate": 0, "item_id": ["r", "m", "m"], "text": ["x", "y", "z"], "correct": [1.0, 0.0, 0.0]}
    )
    plain = Design("d", 0, 1, (ArmDesign("judge", "m"),))
    gold = Design("d", 0, 1, (ArmDesign("gold", "gold", is_control=True, judge_kind="gold"),))
    assert correct_remark(rows, items) == "1 items are matched by a model, which can err (match: judge)"
    assert correct_remark(rows.assign(correct=[1.0, 0.0, np.nan]), items).endswith("1 texts are left out: the model's answer could not be read")  # fmt: skip
    assert correct_remark(rows.assign(correct=[1.0, np.nan, np.nan]), items) == "1 items with match: judge are left out: they need a gold judge with an endpoint"  # fmt: skip
    assert correct_remark(rows, items.assign(match="exact")) == correct_remark(rows[:1], items) == ""
    nothing = rows.assign(correct=np.nan)
    assert why_correct_is_unknown(rows, items, plain) == ""
    assert why_correct_is_unknown(nothing, items, plain) == "items with match: judge need a gold judge with an endpoint"
    assert (
        why_correct_is_unknown(nothing, items, gold)
        == "the model that the gold judge asks gave no answer that can be read"
    )
    assert why_correct_is_unknown(nothing, items.assign(match="exact"), plain) == "no item has a reference"


def test_without_a_gold_judge_it_is_undefined_and_says_what_is_needed(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    plain = {name: arm for name, arm in GOLD.items() if name != "gold"}
    run = judgeloop.run(
        _experiment(tmp_path / "in", served.base_url, ASKED[1:], arms=plain, panels={"anchor": 0}), out=tmp_path / "run"
    )
    assert not _matching(served)
    needed = "items with match: judge need a gold judge with an endpoint"
    for term in ("mean_correct", "hedging_when_wrong"):
        row = _row(run.estimates, term, arm="judge", generation=1)
        assert (row["status"], row["note"]) == ("undefined", needed)


def test_a_text_is_right_or_wrong_in_all_arms(tmp_path: Path) -> None:
    other = {**GOLD, "other": {"judge": {"kind": "gold", "endpoint": "n"}}}
    raw = small_experiment(URL, arms=other)
    raw["endpoints"]["n"] = raw["endpoints"]["m"]
    with pytest.raises(ExperimentError, match="gold judges share one endpoint and one prompt"):
        Material.read(load(write_experiment(tmp_path / "a", raw, ASKED)))
    assert Material.read(load(write_experiment(tmp_path / "b", raw))).matched_texts() == 0
