"""Analyses of existing logs: the audit's statistics without a call, and in words what a log cannot tell."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import judgeloop
from command_line import command
from judgeloop import analysis
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.interchange.verdicts import read_verdicts
from judgeloop.records import ESTIMATE_COLUMNS
from judgeloop.stats.estimate import RATE_MARGIN
from judgeloop.stats.judge.estimates import judge_estimates
from verdict_log import log

DATA = Path(os.environ.get("JUDGELOOP_REAL_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
real = pytest.mark.skipif(
    not (DATA / "llmbar_casestudy" / "verdicts.csv").is_file(),
    reason="recorded verdicts are not there; set JUDGELOOP_REAL_DATA to their folder",
)


def primary(estimates: pd.DataFrame, term: str) -> pd.Series[Any]:
    some = estimates[(estimates["term"] == term) & (estimates["variant"] == "") & (estimates["category"] == "")]
    assert len(some) == 1
    return some.iloc[0]


@pytest.mark.pages
def test_the_command_writes_a_folder_and_says_what_was_read_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = log()
    frame.to_csv("verdicts.csv", index=False)
    assert command("analyze", "verdicts.csv") == 0
    said = " ".join(capsys.readouterr().out.split())
    lost = int((frame["verdict"] == "unscored").sum())
    for words in ("verdicts 120 · judges 1 · items 60 · pairs 60 (60 in both orders, 0 in one)", "orders ab 60, ba 60",
                  f"unscored {lost} (", "lengths given, in characters", "gold on 120 verdicts", "First slot picked",
                  "Not known from these verdicts", "the test needs 10 replies with a verdict", "Folder: runs/verdicts"):  # fmt: skip
        assert words in said
    folder = Path("runs/verdicts")
    assert {"estimates.csv", "estimates.parquet", "report.html", "report.md", "report.json"} <= {
        p.name for p in folder.iterdir()
    }
    assert list(pd.read_csv(folder / "estimates.csv").columns) == list(ESTIMATE_COLUMNS)
    assert json.loads((folder / "report.json").read_text())["findings"]
    opened = judgeloop.open(folder)
    assert isinstance(opened, judgeloop.Audit)
    assert opened.judgments["note"].tolist() == ["x"] * 120
    assert "first_slot_excess" in opened._repr_html_()
    # The same command again gives the same bytes; another log may not overwrite this one's folder.
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command("analyze", "verdicts.csv") == 0
    assert command("report", folder) == 0
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    log(items=20).to_csv("other.csv", index=False)
    assert command("analyze", "other.csv", "--out", folder) == 2


@pytest.mark.pages
def test_in_memory_nothing_is_written_and_all_is_as_in_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = log().rename(columns={"judge": "grader"})
    done = judgeloop.analyze(frame, columns={"judge": "grader"}, mitigate="swap_average")
    again = judgeloop.analyze(frame, columns={"judge": "grader"}, mitigate="swap_average")
    words, shown, figures = done.summary(), done._repr_html_(), done.figures
    assert list(tmp_path.iterdir()) == []
    assert repr(done) == "Audit('analysis', in memory)"
    pd.testing.assert_frame_equal(done.estimates, again.estimates)
    with pytest.raises(InvalidInput, match=r"in memory and has no folder; \.save"):
        _ = done.path
    saved = done.save("kept")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert (saved.path / "report.html").read_text(encoding="utf-8") == done.to_html("page.html").read_text(
        encoding="utf-8"
    )
    for name in ("estimates", "judgments", "candidates"):
        pd.testing.assert_frame_equal(getattr(done, name), getattr(saved, name), check_exact=True)
    assert (saved.summary(), saved._repr_html_(), list(saved.figures)) == (words, shown, list(figures))
    assert saved.settings == done.settings == judgeloop.open("kept").settings
    assert done.settings["asked"]["columns"] == {"judge": {"column": "grader"}}
    assert done.settings["asked"]["mitigate"] == ["swap_average"]
    assert done.settings["margins"]["probability"] == RATE_MARGIN
    with pytest.raises(InvalidInput, match="in a folder already"):
        saved.save("elsewhere")
    plain = judgeloop.analyze(frame, columns={"judge": "grader"}, out="plain", report=False)
    assert not (plain.path / "report.html").exists()
    assert plain.estimates["term"].nunique() > 10


def test_a_result_cannot_be_changed() -> None:
    done = judgeloop.analyze(log(items=10))
    for name in ("record", "estimates", "anything"):
        with pytest.raises((AttributeError, dataclasses.FrozenInstanceError)):
            setattr(done, name, 1)
    with pytest.raises(TypeError):
        done.settings["seed"] = 2  # type: ignore[index]
    estimates, judgments = done.estimates, done.judgments
    estimates.loc[:, "estimate"] = 7.0
    judgments.loc[:, "judge"] = "another"
    assert not (done.estimates["estimate"] == 7.0).all()
    assert set(done.judgments["judge"]) == {"m"}


def test_a_planted_taste_for_the_first_slot_is_found(tmp_path: Path) -> None:
    done = judgeloop.analyze(log(items=150), out=tmp_path / "o")
    excess = primary(done.estimates, "first_slot_excess")
    assert excess["conf_low"] < 0.3 < excess["conf_high"]
    assert excess["conf_low"] > 0.2
    assert excess["n"] + excess["n_unscored"] >= 150
    agreement = primary(done.estimates, "gold_agreement")
    assert agreement["conf_low"] < 0.7 < agreement["conf_high"]


def test_a_single_order_log_claims_nothing_of_position(tmp_path: Path) -> None:
    done = judgeloop.analyze(log(orders=("ab",)), out=tmp_path / "o")
    for term in ("first_slot_excess", "conflict_rate", "order_agreement"):
        row = primary(done.estimates, term)
        assert row["status"] == "undefined"
        assert "one order" in row["note"]
        assert np.isnan(row["estimate"])
    assert primary(done.estimates, "longer_preferred_raw")["status"] == "ok"
    unknown = " ".join(done.summary().split("Not known from these verdicts")[1].split())
    assert "position cannot be told from content" in unknown
    assert "cannot be told from their quality" in unknown
    assert "pairs 60 (0 in both orders, 60 in one)" in " ".join(done.summary().split())


def test_a_bare_log_bears_position_alone(tmp_path: Path) -> None:
    bare = log()[["item_id", "judge", "order", "verdict"]]
    done = judgeloop.analyze(bare, out=tmp_path / "o")
    assert primary(done.estimates, "first_slot_excess")["status"] == "ok"
    assert primary(done.estimates, "length_ame")["status"] == "undefined"
    assert "texts none, and no lengths" in " ".join(done.summary().split())
    assert len(done.candidates) == 0


@pytest.mark.pages
def test_texts_are_measured_and_win_over_given_lengths(tmp_path: Path) -> None:
    frame = log(items=40).drop(columns=["len_a", "len_b"])
    words = [3 + n * 7 % 23 for n in range(40)]
    pairs = pd.DataFrame({
        "item_id": [f"i{n}" for n in range(40)], "prompt": "?", "text_a": ["word " * n for n in words],
        "text_b": [f"- **bold** {'x ' * (30 - n)}" for n in words],
    })  # fmt: skip
    done = judgeloop.analyze(frame, pairs, out=tmp_path / "o")
    assert set(done.candidates["tokens"]) >= {min(words)}
    assert {"bold_log_odds", "list_items_log_odds"} & set(done.estimates["term"])
    page = (tmp_path / "o" / "report.html").read_text(encoding="utf-8")
    assert "in both orders: text A when A came first" in page  # a flipped case is shown with its texts


def test_lengths_in_tokens_are_said_to_be(tmp_path: Path) -> None:
    done = judgeloop.analyze(log(items=40).assign(length_unit="tokens"), out=tmp_path / "o")
    assert "lengths given, in tokens" in " ".join(done.summary().split())
    alpaca = done.estimates[done.estimates["term"] == "alpaca_lc_winrate"]
    assert len(alpaca) > 0
    assert alpaca["note"].str.contains("lengths in tokens").all()


def test_judges_one_by_one_give_the_estimates_of_all_at_once() -> None:
    read = read_verdicts(log(items=30, judges=("m", "other")).assign(panel="pairs"))
    told: list[tuple[str, int, int]] = []
    one_by_one = analysis.estimates(read.judgments, None, watch=lambda *event: told.append(event))
    keys = ["judge", "term", "variant", "category"]
    one_by_one = one_by_one[~one_by_one["term"].str.startswith("judge_difference_")]
    at_once = judge_estimates(read.judgments).sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(one_by_one.sort_values(keys).reset_index(drop=True), at_once)
    assert told == [("m", 0, 2), ("other", 1, 2)]


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (
            "item_id,judge,order,verdict\ni1,j,ab,perhaps\n",
            (),
            "v.csv:2: verdict: must be first, second, tie or unscored",
        ),
        ("item_id,judge,order\ni1,j,ab\n", (), "v.csv:2: column verdict is missing"),
        ("item_id,judge,order,verdict\ni1,j,ab,first\n", ("--pairs", "none.csv"), "none.csv: no such file"),
        ("item_id,judge,order,verdict\ni1,j,ab,first\n", ("--columns", "none.yaml"), "none.yaml: no such file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(
    tmp_path: Path, content: str, arguments: tuple[str, ...], said: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("v.csv").write_text(content, encoding="utf-8")
    assert command("analyze", "v.csv", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("runs").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x", encoding="utf-8")
    with pytest.raises(FolderMismatch):
        judgeloop.analyze(log(items=6), out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@real
def test_llmbar_both_orders_gold_and_unparsable_replies(tmp_path: Path) -> None:
    names = {"candidate_a": "text_a", "candidate_b": "text_b", "human": "gold", "subset": "category"}
    pairs = pd.read_json(DATA / "llmbar_casestudy" / "items.jsonl", lines=True).rename(columns=names)
    verdicts = pd.read_csv(DATA / "llmbar_casestudy" / "verdicts.csv", keep_default_na=False)
    subset = pairs[pairs["category"].isin(pairs["category"].unique()[:1])]
    verdicts = verdicts[(verdicts["judge"] == "Falcon/CoT") & verdicts["item_id"].isin(subset["item_id"])]
    columns = {"verdict": {"values": {"na": "unscored"}}}
    done = judgeloop.analyze(verdicts, pairs, columns=columns, out=tmp_path / "o")
    excess = primary(done.estimates, "first_slot_excess")
    assert excess["n_unscored"] == (verdicts["verdict"] == "na").sum()
    assert excess["conf_low"] > 0.3
    assert primary(done.estimates, "gold_agreement")["status"] == "ok"
    assert "pairs without a verdict" in " ".join(done.summary().split())


@real
def test_llmfao_single_order_with_the_crowd_as_gold(tmp_path: Path) -> None:
    columns = {"item_id": "prompt_id", "pair_id": "item_id", "gold": "human"}
    done = judgeloop.analyze(DATA / "llmfao" / "verdicts.csv", columns=columns, out=tmp_path / "o")
    estimates = done.estimates.set_index(["judge", "term", "variant"])
    for judge, longer in (("gpt-3.5", 0.538), ("gpt-4", 0.391)):
        assert estimates.loc[(judge, "first_slot_excess", ""), "status"] == "undefined"
        found = estimates.loc[(judge, "longer_preferred_raw", "ties_dropped"), "estimate"]
        assert found == pytest.approx(longer, abs=5e-4)
    assert (done.judgments["gold"] != "").sum() == 2 * 2139
    assert "votes_tie" in done.judgments
