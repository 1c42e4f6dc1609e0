"""``--mitigate``: what an audit asks for it, what it refuses, and what summary, report and gate say of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from command_line import command
from conftest import Served, no_pages, serving, tables_alone
from judgeloop import limits, seeds
from judgeloop.errors import InvalidInput
from judgeloop.records import ESTIMATE_KEY
from judgeloop.report import reading

WORDS = ["a", "judge", "reads", "each", "answer", "and", "picks", "the", "one", "that", "it", "likes", "better"]
ALL = "swap_average,consistent_only,length_controlled,rubric"
pytestmark = pytest.mark.at_hand
DOUBLES = "Consistency filtering removes position bias and doubles content slopes"


def pairs(items: int = 60) -> pd.DataFrame:
    stream, rows = seeds.rng(0, "pairs to mitigate"), []
    for item in range(items):
        lengths = (20 * 2 ** stream.normal(0, 1, size=2)).astype(int) + 4
        texts = [" ".join(stream.choice(WORDS, size=length)) for length in lengths]
        rows.append({
            "item_id": f"i{item}", "prompt": f"Question {item}?", "text_a": texts[0], "text_b": texts[1],
            "gold": str(stream.choice(["a", "b"])),
        })  # fmt: skip
    return pd.DataFrame(rows)


def audited(served: Any, folder: Path, **options: Any) -> judgeloop.Audit:
    return judgeloop.audit(
        pairs(), base_url=served.base_url, model="planted", verdict="json", temperature=1.0, out=folder, **options
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """An audit without mitigations, and its server: what is measured of it besides goes into a copy."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    with serving(at_hand=True) as serve:
        served = serve(position=0.6, length=0.8)
        with tables_alone():
            audited(served, folder)
        yield served, folder


@pytest.mark.pages
def test_an_audit_asks_the_rubric_once_more_and_re_scores_the_rest(plain: tuple[Served, Path], tmp_path: Path) -> None:
    served = plain[0]
    shutil.copytree(plain[1], tmp_path / "out")
    before = set(served.asked)
    done = audited(served, tmp_path / "out", mitigate=ALL)
    new = set(served.asked) - before
    # 60 pairs in both orders, and the trial of its verdict mode is not needed: json was stated.
    assert len(new) == 120
    assert all("rubric_scores" in call for call in new)
    table = done.estimates
    measured = table[table["term"] == "transmission_length"].set_index(["judge", "variant"])
    assert measured.index.get_level_values("judge").unique().tolist() == ["planted"]
    assert measured.loc[("planted", "raw"), "estimate"] == pytest.approx(1.0)
    assert measured.loc[("planted", "length_controlled"), "estimate"] == 0.0
    assert measured.loc[("planted", "consistent_only"), "estimate"] > 1.3
    positions = table[table["term"] == "first_slot_excess"].set_index(["judge", "variant"])["estimate"]
    assert positions["planted", "swap_average"] == positions["planted", "consistent_only"] == 0.0
    assert positions["planted", "rubric"] == positions["planted#rubric_scores", ""]

    said = " ".join(done.summary().split())
    for words in (
        "What would a trained signal inherit?",
        "consistent only",
        "0 exactly",
        DOUBLES,
        "a signal would inherit",
    ):
        assert words in said
    for name in ("report.html", "report.md"):
        text = (done.path / name).read_text(encoding="utf-8")
        assert DOUBLES in text
        assert "What would a trained signal inherit?" in text
    known = json.loads((done.path / "report.json").read_text())["estimates"]
    assert any(row["variant"] == "swap_average" and row["term"] == "mitigation_cost" for row in known)

    with no_pages(), tables_alone():
        again = audited(served, tmp_path / "out", mitigate=ALL)
    assert set(served.asked) == before | new
    assert max(served.asked.values()) == 1
    # The estimates of mitigations alone, and the same.
    rows = [
        row[row["variant"].isin(["raw", *ALL.split(",")])].reset_index(drop=True) for row in (table, again.estimates)
    ]
    pd.testing.assert_frame_equal(*rows, check_dtype=False)
    assert len(rows[0]) > 20


@pytest.mark.parametrize("models", [["m"], ["m", "other"]])
def test_what_is_measured_besides_changes_no_other_row(
    serve: Callable[..., Any], tmp_path: Path, models: list[str]
) -> None:
    """The rubric is the same model again: no further judge to self-preference or to a family of tests."""
    served = serve(position=0.3, length=0.5, model=models)
    named = pairs(24).assign(model_a="m", model_b="other")
    mitigate = "rubric" + (",panel" if len(models) > 1 else "")
    plain, more = (
        judgeloop.audit(named, base_url=served.base_url, model=models, verdict="json", temperature=1.0,
                        out=tmp_path / "out", mitigate=given).estimates
        for given in ("", mitigate)
    )  # fmt: skip
    key = list(ESTIMATE_KEY)
    own = more.set_index(key).loc[pd.MultiIndex.from_frame(plain[key])].reset_index()
    pd.testing.assert_frame_equal(own[plain.columns], plain, check_dtype=False)
    assert (plain["term"] == "self_preference_log_odds").sum() == len(models)
    assert len(more) > len(plain)


def test_a_panel_of_one_is_refused_before_anything_is_asked(
    serve: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(model=["m1", "m2"])
    pairs(8).to_json("pairs.jsonl", orient="records", lines=True)
    asking = ("audit", "pairs.jsonl", "--base-url", served.base_url, "--verdict", "json", "--model", "m1")
    for mitigation, words in (
        ("panel", "give two or more --model"), ("swap-average", "did you mean swap_average?"),
        ("swap_average,nothing", "unknown mitigation 'nothing'"),
    ):  # fmt: skip
        assert command(*asking, "--mitigate", mitigation) == 2
        assert words in capsys.readouterr().err
    assert command(*asking, "--prompt", "rubric_scores", "--mitigate", "rubric") == 2
    assert "that rubric already" in capsys.readouterr().err
    assert not served.asked
    assert not Path("runs").exists()

    assert command(*asking, "--model", "m2", "--mitigate", "panel", "--quiet") == 0
    table = judgeloop.open("runs/pairs-audit").estimates
    panel = table[table["variant"] == "panel"]
    assert set(panel["judge"]) == {"m1", "m2"}
    assert set(panel.loc[panel["term"] == "mitigation_cost", "estimate"]) == {2.0}
    assert len(served.asked) == 2 * 16


@pytest.mark.slow
@pytest.mark.pages
def test_picks_are_compared_with_picks_where_verdicts_bear_probabilities(
    serve: Callable[..., Any], tmp_path: Path
) -> None:
    served = serve(position=0.2, length=0.8, noise=1.5)
    made = {
        (verdict, mitigate): judgeloop.audit(
            pairs(), base_url=served.base_url, model="planted", verdict=verdict, out=tmp_path / f"{verdict} {mitigate}", mitigate=mitigate,
        ).estimates.query("term == 'transmission_length'").set_index("variant")["estimate"]
        for verdict, mitigate in (("logprob", "consistent_only"), ("logprob", "swap_average"), ("json", "consistent_only"))
    }  # fmt: skip
    soft = made["logprob", "consistent_only"]
    # A pick is the sign of what the probability is a logistic of: surer, so steeper.
    assert soft["raw"] == pytest.approx(1.0)
    assert soft["raw_picks"] > 1.2
    for other in (("logprob", "swap_average"), ("json", "consistent_only")):
        assert "raw_picks" not in made[other].index
    page = (tmp_path / "logprob consistent_only" / "report.md").read_text()
    assert "none (raw picks)" in page
    assert "compare those with it" in page
    with pytest.raises(InvalidInput, match="unknown mitigation 'raw_picks'"):
        audited(served, tmp_path / "no", mitigate="raw_picks")


@pytest.mark.pages
def test_with_repeats_theory_is_that_of_all_calls_agreeing(serve: Callable[..., Any], tmp_path: Path) -> None:
    done = audited(serve(position=0.1, length=0.6), tmp_path / "out", repeats=2, mitigate="consistent_only")
    rows = done.estimates.set_index(["term", "variant"])
    passed = rows.loc[("transmission_length", "consistent_only")]
    assert passed["benchmark"] == 4
    page = (done.path / "report.md").read_text()
    assert "multiplies content slopes by 4" in page
    assert "doubles content slopes" not in page
    assert ("less than 4," if passed["conf_high"] < 4 else "theory says 4 for independent calls") in page


def test_a_log_is_re_scored_without_a_call(plain: tuple[Served, Path], tmp_path: Path) -> None:
    served = plain[0]
    shutil.copytree(plain[1], tmp_path / "audit")
    done = judgeloop.open(tmp_path / "audit")
    asked = len(served.asked)
    log = done.judgments.drop(columns=["category"])
    log.to_csv(tmp_path / "verdicts.csv", index=False)
    pairs().to_csv(tmp_path / "pairs.csv", index=False)
    out = tmp_path / "log"
    assert command(
        "analyze", tmp_path / "verdicts.csv", "--pairs", tmp_path / "pairs.csv", "--mitigate", "consistent_only",
        "--out", out,
    ) == 0  # fmt: skip
    again = audited(served, tmp_path / "audit", mitigate="consistent_only")
    assert len(served.asked) == asked
    wanted = ["term", "variant", "estimate", "conf_low", "conf_high", "n"]
    ours, theirs = (
        run[run["variant"].str.startswith("consistent_only")][wanted].reset_index(drop=True)
        for run in (judgeloop.open(out).estimates, again.estimates)
    )
    pd.testing.assert_frame_equal(ours, theirs)
    assert len(ours) > 6


def test_a_gate_can_hold_a_mitigation_to_a_limit(plain: tuple[Served, Path], tmp_path: Path) -> None:
    shutil.copytree(plain[1], tmp_path / "out")
    done = audited(plain[0], tmp_path / "out", mitigate="swap_average,consistent_only")
    rows = reading.as_estimates(done.estimates)
    file = tmp_path / "limits.yaml"
    file.write_text(
        "transmission_length:\n  - {max: 1.05, variant: swap_average}\n  - {max: 0.9, variant: consistent_only}\n"
    )
    found = limits.check("x", rows, limits.load_limits(file))
    assert [outcome.verdict for outcome in found.outcomes] == ["passed", "exceeded"]
