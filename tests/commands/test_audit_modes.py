"""Audits that score one text or choose from a list, over real HTTP: what is asked, what is kept, and planted truth."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from audit_case import audited, primary, settings_of
from audit_pairs import MARKER, pairs, write
from command_line import command
from conftest import Served, tables
from judgeloop.errors import BudgetReached, EndpointFailed, FolderMismatch, InvalidInput

Serve = Callable[..., Served]
PLANTED = {
    "position": 0.6, "length": 0.7, "quality": 1.0, "quality_marker": MARKER, "score_spread": 1.2, "score_anchor": 0.06,
    "draft": {"length_mean": 45},
}  # fmt: skip


def sets(count: int, k: int = 3, **more: Any) -> list[dict[str, Any]]:
    """Rows of a sets file: k texts an item; gold is the one with the highest marked quality."""
    rows = pairs(math.ceil(count * k / 2))
    texts = [(row[f"text_{side}"]) for row in rows for side in "ab"]
    found = []
    for number in range(count):
        some = texts[number * k : (number + 1) * k]
        quality = [float(text.rpartition(MARKER)[2].rstrip("]")) for text in some]
        found.append({
            "item_id": f"i{number:03d}", "prompt": f"Describe evening number {number}.", "texts": some,
            "gold": quality.index(max(quality)), "category": "odd" if number % 2 else "even", **more,
        })  # fmt: skip
    return found


# -- pointwise -----------------------------------------------------------------------------------------------------------


@pytest.mark.pages
def test_every_text_is_scored_once_on_every_scale_and_nothing_is_asked_twice(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served, rows = serve(**PLANTED), pairs(6)
    # A second pair of the first item shows one of its texts again.
    rows.append({**rows[0], "pair_id": "again", "text_b": rows[1]["text_b"], "gold": 0.5})
    write(tmp_path / "answers.jsonl", rows)
    line = ("audit", "answers.jsonl", "--base-url", served.base_url, "--model", "planted", "--mode", "pointwise", "--repeats", "2")  # fmt: skip
    assert command(*line) == 0
    printed = capsys.readouterr().out
    for words in ("mode pointwise", "Scores", "Shift of scores", "Score by length"):
        assert words in printed
    done = judgeloop.open("runs/answers-audit")
    assert isinstance(done, judgeloop.Audit)
    scores = done.folder.table("scores")
    texts = done.candidates
    assert len(texts) == 13
    assert len(scores) == 13 * 2 * 2
    assert set(scores["scale"]) == {"1-10", "10-1"}
    assert not scores.duplicated(["item_id", "candidate_id", "scale", "repeat"]).any()
    asked = {call for call in served.asked if call}
    assert "audit/score/planted/i003/i003/b/r1/10-1" in asked
    assert asked - set(scores["call"]) == {"audit/score/trial/planted/logprob"}
    assert len(done.judgments) == 0
    assert list(done.folder.table("pairs")["pair_id"])[-1] == "again"
    assert done.folder.environment()["pointwise_modes"] == {"planted": "logprob"}
    assert primary(done.estimates, "score_pairwise_disagreement")["status"] == "undefined"
    for name, words in (
        ("report.html", "Score by length"),
        ("report.md", "Score by length"),
        ("report.json", "score_length_slope"),
    ):
        assert words in (done.path / name).read_text(encoding="utf-8")
    before, count = tables(done.path), sum(served.asked.values())
    assert command(*line, "--quiet") == 0
    assert tables(done.path) == before
    assert command(*line, "--out", "again", "--replay", "runs/answers-audit", "-q") == 0
    assert tables(tmp_path / "again") == before
    assert sum(served.asked.values()) == count
    for change in (("--scales", "1-5"), ("--against-pairwise",), ("--mode", "pairwise")):
        assert command(*line, *change) == 2
        assert "another" in capsys.readouterr().err


@pytest.mark.parametrize(
    "verdict", ["logprob", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("json", "text"))]
)
@pytest.mark.at_hand
def test_planted_scores_come_back(tmp_path: Path, serve: Serve, verdict: str) -> None:
    served = serve(**PLANTED)
    done = audited(
        served,
        pd.DataFrame(pairs(50 if verdict == "logprob" else 70)),
        tmp_path / "o",
        mode="pointwise",
        verdict=verdict,
        repeats=2,
    )
    rows = done.estimates
    scores = done.folder.table("scores")
    assert scores["reason"].eq("").all()
    slope, gap = primary(rows, "score_length_slope"), primary(rows, "score_scale_anchoring")
    # A few means are clipped at the scale's ends, and a soft score has no other spread than that.
    slack = 0.03 if verdict == "logprob" else 0.0
    assert slope["conf_low"] - slack <= 0.7 * 1.2 <= slope["conf_high"] + slack
    assert gap["conf_low"] - slack / 9 <= -2 * 0.06 <= gap["conf_high"] + slack / 9
    assert primary(rows, "score_gold_agreement")["conf_low"] > 0.6
    raw = rows[(rows["term"] == "score_length_slope") & (rows["variant"] == "no_gold") & (rows["category"] == "")].iloc[
        0
    ]
    assert raw["note"].startswith("raw")
    repeats = primary(rows, "score_repeatability")
    assert repeats["estimate"] == pytest.approx(1) if verdict == "logprob" else repeats["estimate"] < 0.97
    assert set(rows["category"]) == {"", "even", "odd"}


@pytest.mark.at_hand
def test_against_pairwise_asks_the_pairs_too_and_compares(tmp_path: Path, serve: Serve) -> None:
    served = serve(**PLANTED)
    done = audited(
        served, pd.DataFrame(pairs(30)), tmp_path / "o", mode="pointwise", against_pairwise=True, scales="1-10"
    )
    rows = done.estimates
    row = primary(rows, "score_pairwise_disagreement")
    assert row["n"] == 30
    # The soft law of both is the same content, so that they can differ only where scores are clipped.
    assert row["estimate"] <= 0.1
    assert primary(rows, "first_slot_excess")["conf_low"] > 0
    assert len(done.judgments) == 60
    assert not rows.duplicated(["judge", "panel", "category", "term", "variant"]).any()
    assert "First slot" in done.summary()
    assert "Score by length" in done.summary()


@pytest.mark.at_hand
def test_unscored_scores_are_counted_with_their_reasons(tmp_path: Path, serve: Serve) -> None:
    served = serve(**{**PLANTED, "unscored": 0.3})
    done = audited(served, pd.DataFrame(pairs(12)), tmp_path / "o", mode="pointwise", verdict="text")
    scores = done.folder.table("scores")
    lost = scores["score"].isna()
    assert 0 < lost.sum() < len(scores)
    assert set(scores.loc[lost, "reason"]) == {"no_verdict"}
    on_first = int((lost & (scores["scale"] == "1-10")).sum())
    assert primary(done.estimates, "score_mean")["n_unscored"] == on_first
    assert f"unscored {int(lost.sum())} " in done.summary().replace("\n", " ")
    assert "no_verdict" in done.summary()
    assert "One of them says" in done.summary()
    assert (scores["said"] != "").equals(lost)
    silent = serve(**{**PLANTED, "unscored": 1.0})
    with pytest.raises(EndpointFailed, match=r"no score .*logprob: no_number, json: not_json, text: no_verdict"):
        audited(silent, pd.DataFrame(pairs(3)), tmp_path / "silent", mode="pointwise")
    nothing = audited(silent, pd.DataFrame(pairs(3)), tmp_path / "none", mode="pointwise", verdict="text")
    assert set(nothing.estimates["status"]) == {"undefined"}


@pytest.mark.at_hand
@pytest.mark.tables
def test_a_budget_stops_scoring_and_the_same_call_resumes(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(**PLANTED), pd.DataFrame(pairs(8))
    with pytest.raises(BudgetReached):
        audited(served, rows, tmp_path / "cut", mode="pointwise", max_calls=11)
    cut = audited(served, rows, tmp_path / "cut", mode="pointwise")
    assert max(served.asked[call] for call in served.asked if call) == 1
    whole = audited(serve(**PLANTED), rows, tmp_path / "whole", mode="pointwise")
    assert tables(cut.path) == tables(whole.path)


# -- listwise ------------------------------------------------------------------------------------------------------------


@pytest.mark.at_hand
def test_every_set_is_shown_in_all_rotations(tmp_path: Path, serve: Serve) -> None:
    served, rows = serve(**PLANTED), sets(6, 4, models=["m1", "m2", "m3", "m4"])
    path = write(tmp_path / "lists.jsonl", rows)
    line = ("audit", path, "--base-url", served.base_url, "--model", "planted", "--mode", "listwise", "--out", tmp_path / "o", "-q")  # fmt: skip
    assert command(*line) == 0
    done = judgeloop.open(tmp_path / "o")
    choices = done.folder.table("choices")
    assert len(choices) == 6 * 4
    assert choices["slot"].between(1, 4).all()
    picked = [row[f"candidate_{row['slot']}"] for row in choices.to_dict("records")]
    assert picked == choices["candidate_id"].tolist()
    for slot in range(1, 5):
        assert choices.groupby("set_id")[f"candidate_{slot}"].nunique().eq(4).all()
    assert choices[[f"p_{slot}" for slot in range(1, 5)]].sum(axis=1).to_numpy() == pytest.approx(1)
    first = choices.set_index(["set_id", "rotation"]).loc[("i002", 1)]
    texts = done.candidates.set_index(["item_id", "candidate_id"])["text"]
    assert texts["i002", first["candidate_1"]] == rows[2]["texts"][1]
    assert texts["i002", first["gold"]] == rows[2]["texts"][rows[2]["gold"]]
    assert "audit/choice/planted/i003/i003/o2/r0" in served.asked
    assert len(done.folder.table("authors")) == 24
    # Nobody judged a pair: there is no such table.
    assert sorted(path.name for path in (done.path / "tables").iterdir()) == [
        "authors",
        "candidates",
        "choices",
        "items",
    ]
    count, before = sum(served.asked.values()), tables(done.path)
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "lists.parquet")
    frame.assign(texts=frame["texts"].map(json.dumps), models=frame["models"].map(json.dumps)).to_csv(tmp_path / "lists.csv", index=False)  # fmt: skip
    for other in (tmp_path / "lists.csv", tmp_path / "lists.parquet", frame):
        audited(served, other, tmp_path / "o", mode="listwise")
        assert tables(done.path) == before
    assert sum(served.asked.values()) == count
    with pytest.raises(FolderMismatch):
        audited(served, frame.assign(gold=0), tmp_path / "o", mode="listwise")
    summary = done.summary()
    for words in ("mode listwise", "6 of 4 texts", "Slots of the list", "Same text wins in all"):
        assert words in summary


@pytest.mark.parametrize("verdict", ["logprob", pytest.param("text", marks=pytest.mark.slow)])
@pytest.mark.at_hand
def test_planted_choices_come_back(tmp_path: Path, serve: Serve, verdict: str) -> None:
    served = serve(**PLANTED)
    done = audited(
        served, pd.DataFrame(sets(70 if verdict == "logprob" else 90)), tmp_path / "o", mode="listwise", verdict=verdict
    )
    rows = done.estimates
    slot = primary(rows, "slot_1_log_odds")
    assert slot["conf_low"] - 1e-6 <= PLANTED["position"] <= slot["conf_high"] + 1e-6
    excess = [primary(rows, f"slot_{k}_excess") for k in (1, 2, 3)]
    assert excess[0]["conf_low"] > 0
    assert sum(row["estimate"] for row in excess) == pytest.approx(0, abs=1e-9)
    assert primary(rows, "position_permutation")["p_value"] < 0.01
    given = rows[
        (rows["variant"] == "given_gold") & (rows["category"] == "") & (rows["term"] == "length_log_odds")
    ].iloc[0]
    # Which text is best says less than by how much: the slope is a little smaller than planted.
    assert 0.25 < given["conf_low"] < given["conf_high"] < 1.3
    assert primary(rows, "gold_agreement")["conf_low"] > 1 / 3


@pytest.mark.at_hand
def test_eight_texts_and_two_judges(tmp_path: Path, serve: Serve) -> None:
    served = serve(**{**PLANTED, "model": ["planted", "other"]})
    done = audited(served, pd.DataFrame(sets(5, 8)), tmp_path / "o", mode="listwise", model=["planted", "other"], verdict="json")  # fmt: skip
    assert len(done.folder.table("choices")) == 2 * 5 * 8
    assert set(done.estimates["judge"]) == {"planted", "other"}
    assert primary(done.estimates, "slot_8_excess", judge="other")["n"] == 5


# -- what is refused before anything is asked ----------------------------------------------------------------------------

ONE = {"item_id": "i", "prompt": "p", "texts": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"item_id": "i", "prompt": "p"}], r":1: column texts is missing"),
        ([{**ONE, "texts": "a"}], r":1: texts: must be a list, as JSON"),
        ([{**ONE, "texts": '"ab"'}], r":1: texts: must be a list"),
        ([{**ONE, "texts": ["a"]}], r":1: texts: must hold 2 to 8 texts, not 1"),
        ([{**ONE, "texts": list("abcdefghi")}], r":1: texts: must hold 2 to 8 texts, not 9"),
        ([{**ONE, "texts": ["a", 2]}], r":1: texts: entry 1 must be text, not 2"),
        ([{**ONE, "texts": ["a", "b", "a"]}], r":1: texts: entries 0 and 2 are equal"),
        ([{**ONE, "texts": ["a", "\ud800"]}], r":1: texts: holds half of a surrogate pair"),
        ([ONE, {**ONE, "set_id": "s", "texts": ["a", "b"]}], r":2: texts: holds 2 texts, but 3 at .*:1"),
        ([ONE, ONE], r":2: set_id 'i' stands twice"),
        ([ONE, {**ONE, "set_id": "s", "prompt": "q"}], r":2: prompt: item_id 'i' has another prompt"),
        ([{**ONE, "gold": 3}], r":1: gold: must be the best text's place in texts, from 0 to 2, not 3"),
        ([{**ONE, "gold": "a"}], r":1: gold: must be a finite number"),
        ([{**ONE, "gold": 0.5}], r":1: gold: must be a whole number"),
        ([{**ONE, "models": ["m", "n"]}], r":1: models: must be a list of 3 names"),
        ([{**ONE, "candidates": ["x", "y", "x"]}], r":1: candidates: holds a name twice"),
        ([{**ONE, "candidates": ["x", "y", "z"]}, {**ONE, "set_id": "s", "texts": ["a", "q", "r"], "candidates": ["y", "v", "w"]}],
         r":2: candidates: 'y' names another text"),
        ([], r"no sets"),
    ],
)  # fmt: skip
def test_a_wrong_set_is_named_with_file_row_and_column(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    path = write(tmp_path / "lists.jsonl", rows)
    with pytest.raises(InvalidInput, match=says):
        settings_of(path, base_url="http://127.0.0.1:1/v1", model="m", mode="listwise")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "setwise"}, "--mode: must be one of pairwise, pointwise, listwise"),
        ({"scales": "1-5"}, "--scales: only --mode pointwise"),
        ({"mode": "listwise", "against_pairwise": True}, "--against-pairwise: only --mode pointwise"),
        ({"mode": "pointwise", "probes": "padding"}, "--probes: a probe is a pair"),
        ({"mode": "pointwise", "mitigate": "swap_average"}, "--mitigate: mitigations are of verdicts on pairs"),
        ({"mode": "pointwise", "scales": "1-2"}, "--scales: '1-2' is no scale"),
        ({"mode": "pointwise", "scales": "0-100", "verdict": "logprob"}, "--scales: 0-100 has more than the 20"),
        ({"mode": "pointwise", "prompt": "rubric"}, "this is a judge template where a score template is needed"),
        ({"mode": "pointwise", "verdict": "prose"}, "--verdict"),
    ],
)
def test_a_wrong_setting_is_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(judgeloop.errors.JudgeloopError, match=says) as error:
        settings_of(pd.DataFrame(pairs(2)), base_url="http://127.0.0.1:1/v1", model="m", **changes)
    assert error.value.exit_code == 2


def test_calls_are_counted_beforehand() -> None:
    ask = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "repeats": 3}
    rows, lists = pd.DataFrame(pairs(5)), pd.DataFrame(sets(5, 4))
    assert settings_of(rows, **ask).calls == 5 * 2 * 3
    assert settings_of(rows, mode="pointwise", **ask).calls == 10 * 2 * 3
    assert settings_of(rows, mode="pointwise", scales="1-5", against_pairwise=True, **ask).calls == 10 * 3 + 5 * 2 * 3
    assert settings_of(lists, mode="listwise", **ask).calls == 5 * 4 * 3
