"""``judgeloop compare``: planted differences come back, paired where they may be, in files and on one screen."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import planted_run
from command_line import command
from compare_case import THREE, analysed, contender, log, named
from conftest import no_pages
from judgeloop.commands.compare import compare
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.records import ESTIMATE_COLUMNS
from judgeloop.report import comparison
from judgeloop.rundir import RunFolder
from judgeloop.stats.compare.differences import adjusted, shared_pairs
from judgeloop.stats.compare.ranking import Comparison
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.loop.estimates import run_estimates
from judgeloop.wire.cassette import Cassette, Exchange


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """three: three judges on the same pairs; week1, week2: one judge on these pairs, then slottier; other: on other pairs."""
    root = tmp_path_factory.mktemp("compare")
    analysed(log(THREE), root / "three")
    for name, position, texts in (("week1", 0.2, 0), ("week2", 1.0, 0), ("other", 0.2, 1)):
        analysed(log({"m": (position, 0.3, 2.0)}, name, texts=texts), root / name)
    return iter([root]).__next__()  # type: ignore[return-value]


@pytest.fixture(scope="module")
def three(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """The three judges of one folder, compared."""
    return compare(folders / "three", out=tmp_path_factory.mktemp("three") / "c").comparison


# -- judges ---------------------------------------------------------------------------------------------------------------


def test_judges_of_one_folder_are_paired_and_the_planted_faults_found(three: Comparison) -> None:
    done = three
    assert {difference.pairing for difference in done.differences} == {"pairs"}
    slot = {
        (difference.first, difference.second): difference.row
        for difference in done.differences
        if difference.row.term == "first_slot_excess"
    }
    effect = {
        (difference.first, difference.second): difference.row
        for difference in done.differences
        if (difference.row.term, difference.row.variant) == ("length_ame", "")
    }
    assert slot["good", "slotty"].conf_high < 0 < slot["good", "longy"].conf_high  # type: ignore[operator]
    assert slot["longy", "slotty"].conf_high < 0  # type: ignore[operator]
    assert effect["good", "longy"].conf_high < 0 < effect["longy", "slotty"].conf_low  # type: ignore[operator]
    assert done.ranking.clear
    assert done.ranking.places[0].name == "good"


def test_a_difference_is_that_of_the_folders_own_estimates(three: Comparison) -> None:
    done = three
    for difference in done.differences:
        estimates = difference.first_estimate, difference.second_estimate
        for contender_, value in zip((difference.first, difference.second), estimates, strict=True):
            row = next(c for c in done.contenders if c.name == contender_).primary(difference.row.term)
            if row is not None and difference.row.variant == "":
                assert value == pytest.approx(row.estimate, abs=1e-9), difference.row.term
        gap = estimates[0] - estimates[1]  # type: ignore[operator]
        assert difference.row.estimate == pytest.approx(gap, abs=1e-9)


def test_pairs_are_the_same_where_their_texts_are(folders: Path, tmp_path: Path) -> None:
    same = compare(folders / "week1", folders / "week2", out=tmp_path / "same").comparison
    other = compare(folders / "week1", folders / "other", out=tmp_path / "other").comparison
    assert {difference.pairing for difference in same.differences} == {"pairs"}
    # The same names of items and pairs, but other texts behind them.
    assert {difference.pairing for difference in other.differences} == {"unpaired"}
    assert "0 in common" in next(iter(other.pairings.values()))
    gap, apart = named(same, "first_slot_excess").row, named(other, "first_slot_excess").row
    assert gap.conf_high < 0  # type: ignore[operator]
    assert "Welch" in apart.method
    assert "different pairs" in apart.note
    alone = [contender.primary("first_slot_excess") for contender in other.contenders]
    assert apart.std_error == pytest.approx(math.hypot(*(row.std_error for row in alone if row and row.std_error)))


def test_pairs_are_the_same_whatever_probes_a_folder_holds() -> None:
    plain = log({"m": (0.2, 0.3, 2.0)}, items=20)
    edits = plain.iloc[:6].assign(
        panel="probe", probe="padding", dose=2.0, pair_id=lambda rows: rows["pair_id"] + "~a~padding"
    )
    probed = pd.concat([plain.assign(panel="pairs"), edits], ignore_index=True)
    assert shared_pairs(contender("with", probed), contender("without", plain)) == (20, 20, 20)


def test_intervals_of_differences_are_drawn_whole(three: Comparison) -> None:
    """A share cannot be below 0; a difference of two shares can."""
    (figure,) = comparison._differences(three)
    drawn = {tuple(trace["x"]) for trace in figure.panels[0].spec["data"] if trace["mode"] == "lines"}
    stated = {(100 * row.conf_low, 100 * row.conf_high) for row in figure.rows}  # type: ignore[operator]
    assert drawn == stated
    assert any(row.term == "conflict_rate" and row.conf_low < 0 for row in figure.rows)  # type: ignore[operator]


def test_values_of_picks_are_shares_and_their_differences_points(three: Comparison) -> None:
    one = next(one for one in comparison.in_order(three) if one.row.term == "first_slot_excess")
    table = comparison.differences_table(three)
    row = next(dict(zip(table.columns, row, strict=True)) for row in table.rows if row[0] == "First slot picked")
    assert row["Value 1"] == f"{50 + 100 * one.first_estimate:.1f}"  # type: ignore[operator]
    assert row["Difference"].replace("−", "-").startswith(f"{100 * one.row.estimate:.1f} [")  # type: ignore[operator]
    assert row["Unit"] == "points"


def test_position_alone_is_no_reason_to_recommend(three: Comparison) -> None:
    places = tuple(
        replace(place, harms=tuple(harm for harm in place.harms if harm.term == "first_slot_excess"))
        for place in three.ranking.places
    )
    first, *_ = comparison.recommendation(replace(three, ranking=replace(three.ranking, places=places)))
    assert "Nothing is recommended: the only measure that all contenders have is “first slot picked”." in first
    assert "points (first slot picked, from 50 %)" in first


# -- loops ----------------------------------------------------------------------------------------------------------------


def run_folder(path: Path, seed: int = 0, *, panel: bool = True, **world: Any) -> Path:
    """A run folder of a planted loop: tables, estimates (those of the panel unless ``panel`` is false), the experiment."""
    tables = planted_run.loop(
        seed, generations=2, replicates=4, items=5, size=8, pairs=300, anchor=40 if panel else 2, **world
    )
    arms = {
        "judge": {"judge": {"kind": "model"}},
        "random": {"judge": {"kind": "random"}},
        "gold": {"judge": {"kind": "gold"}},
    }
    folder = RunFolder(path)
    folder.write_text(
        "experiment.yaml",
        yaml.safe_dump({"name": path.name, "seed": seed, "generations": 2, "arms": arms}, sort_keys=False),
    )
    folder.write_json("environment.json", {"calls": 100, "cost_usd": 2.0})
    texts = tables.candidates.assign(text=lambda frame: [f"t{x:.9f}" for x in frame["length"]])
    policy = tables.judgments.iloc[:2].assign(panel="policy", arm="judge", replicate=0)
    for name, frame in (
        ("items", tables.items),
        ("candidates", texts),
        ("judgments", pd.concat([tables.judgments, policy])),
    ):
        folder.write_part(name, "all", frame)
    estimated = tables if panel else dataclasses.replace(tables, judgments=planted_run.empty_judgments())
    folder.write_estimates(run_estimates(estimated, planted_run.design(2)))
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    run_folder(root / "raw")
    run_folder(root / "filtered", doubled=True)
    run_folder(root / "elsewhere", seed=1, panel=False)
    return root


def test_arms_of_one_run_are_paired_by_replicate(runs: Path, tmp_path: Path) -> None:
    """judge against random: the difference of their drifts is the run's own did."""
    done = compare(runs / "raw", out=tmp_path / "c", arms=("judge", "random")).comparison
    gap = named(done, "drift_length")
    own = next(
        row
        for row in done.contenders[0].rows
        if (row.term, row.contrast, row.generation) == ("did_length", "random", 2)
    )
    assert gap.pairing == "replicates"
    assert (gap.row.estimate, gap.row.conf_low, gap.row.conf_high) == pytest.approx(
        (own.estimate, own.conf_low, own.conf_high)
    )
    assert "4 under common random numbers" in next(iter(done.pairings.values()))
    assert not done.ranking.places  # a judge and a control are no field to rank


def test_a_lone_arm_is_compared_with_its_controls(runs: Path, tmp_path: Path) -> None:
    done = compare(runs / "raw", out=tmp_path / "c").comparison
    assert [contender.name for contender in done.contenders] == ["judge", "random", "gold"]


def test_runs_that_share_their_random_numbers_are_paired(runs: Path, tmp_path: Path) -> None:
    twins = compare(runs / "raw", runs / "filtered", out=tmp_path / "t").comparison
    strangers = compare(runs / "raw", runs / "elsewhere", out=tmp_path / "s").comparison
    assert [contender.name for contender in twins.contenders] == ["raw", "filtered"]
    gap, apart = named(twins, "did_length"), named(strangers, "did_length")
    assert (gap.pairing, gap.row.n_replicates) == ("replicates", 4)
    assert (apart.pairing, apart.row.n_replicates) == ("unpaired", 8)
    assert "no common random numbers" in apart.row.note
    # Filtering doubles what the judge adds to drift: 0.9 doublings less, in two steps with this selection.
    assert gap.row.conf_high < 0  # type: ignore[operator]
    assert gap.second_estimate == pytest.approx(2 * gap.first_estimate, rel=0.25)  # type: ignore[operator]
    assert apart.row.conf_low < 0 < apart.row.conf_high  # type: ignore[operator]
    assert {"did_style_score", "drift_length", "transmission_length"} <= {
        difference.row.term for difference in twins.differences
    }
    assert named(twins, "did_length").row.family == "confirmatory"
    assert named(twins, "drift_length").row.family == "exploratory"


def test_a_lone_judge_has_its_mitigations(folders: Path, tmp_path: Path) -> None:
    """Rows as an audit writes them, a mitigation's name in ``variant``: averaging both orders sets position to 0."""
    shutil.copytree(folders / "week2", tmp_path / "m")
    folder = RunFolder(tmp_path / "m")
    rows = folder.estimates()
    shared: dict[str, Any] = {
        "scope": "judge",
        "judge": "m",
        "panel": "pairs",
        "unit": "probability",
        "conf_level": 0.95,
        "n_items": 150,
    }
    estimates = []
    for name, slot, calls in (("raw", (0.2, 0.02), 1.0), ("swap_average", (0.0, 0.0), 2.0)):
        for term, bias_, value, se in (
            ("first_slot_excess", "position", *slot), ("length_ame", "verbosity", 0.01, 0.01), ("mitigation_cost", "quality", calls, 0.0),
        ):  # fmt: skip
            estimates.append(
                Estimate(
                    term=term,
                    bias=bias_,
                    variant=name,
                    estimate=value,
                    std_error=se,
                    conf_low=value - 2 * se,
                    conf_high=value + 2 * se,
                    n=300,
                    **shared,
                )
            )
    folder.write_estimates(pd.concat([rows, estimates_frame(estimates)], ignore_index=True))
    done = compare(folder.path, out=tmp_path / "c")
    assert [contender.name for contender in done.comparison.contenders] == ["raw", "swap_average"]
    slots = named(done.comparison, "first_slot_excess").row
    assert (slots.estimate, slots.method) == (pytest.approx(0.2), "t, one of the two is exact")
    assert slots.conf_low > 0.15  # type: ignore[operator]
    assert done.comparison.ranking.places[0].name == "swap_average"
    assert "600 judge calls for 300 labels: 2.00 times as much a label as the cheapest of the others, raw" in " ".join(
        done.summary().split()
    )


@pytest.mark.slow
def test_the_same_seed_with_other_texts_is_no_common_randomness(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "raw", tmp_path / "x")
    folder = RunFolder(tmp_path / "x")
    table = folder.table("candidates")
    folder.write_part("candidates", "all", table.assign(text=table["text"] + "!"))
    done = compare(runs / "raw", tmp_path / "x", out=tmp_path / "c").comparison
    assert named(done, "did_length").pairing == "unpaired"


# -- multiplicity, ranking, cost ------------------------------------------------------------------------------------------


def test_families_are_adjusted_over_all_that_is_compared(three: Comparison) -> None:
    done = three
    by_family: dict[str, list[Estimate]] = {}
    for difference in done.differences:
        by_family.setdefault(difference.row.family, []).append(difference.row)
    assert {row.term for row in by_family["confirmatory"]} == {"first_slot_excess", "length_ame"}
    assert len(by_family["confirmatory"]) == 6
    largest = max(by_family["confirmatory"], key=lambda row: -(row.p_value or 0))
    assert largest.p_adjusted == pytest.approx(6 * largest.p_value)  # type: ignore[operator]
    assert all(
        row.p_adjusted >= row.p_value for rows in by_family.values() for row in rows if row.p_adjusted is not None
    )
    assert adjusted([]) == []


def test_the_cost_is_that_of_the_judging(folders: Path, tmp_path: Path) -> None:
    for name, used in (("cheap", 100), ("dear", 300)):
        shutil.copytree(folders / "week1", tmp_path / name)
        folder = RunFolder(tmp_path / name)
        table = folder.table("judgments")
        calls = [f"audit/judge/{k}" for k in range(len(table))]
        folder.write_part("judgments", "log", table.assign(call=calls))
        folder.write_json("environment.json", {**folder.environment(), "cost_usd": 0.5})
        cassette = Cassette(folder.path, writable=True)
        for call in [*calls, "audit/draft/0"]:
            usage = {"usage": {"prompt_tokens": used - 1, "completion_tokens": 1}}
            cassette.append(Exchange(call, "sha256:0", {}, 200, usage, 1))
        cassette.close()
    done = compare(tmp_path / "cheap", tmp_path / "dear", out=tmp_path / "c")
    cost = {contender.name: contender.cost for contender in done.comparison.contenders}
    n = 2 * 150
    assert (cost["cheap"].calls, cost["cheap"].tokens, cost["dear"].tokens, cost["cheap"].pairs) == (
        n,
        100 * n,
        300 * n,
        150,
    )
    assert cost["dear"].usd == pytest.approx(0.5 * n / (n + 1))
    words = " ".join(json.loads((done.path / "compare.json").read_text())["recommendation"])
    assert "300 judge calls, 30,000 tokens" in words
    assert "No ranking: intervals overlap" in words  # the same judgments
    cheap = done.comparison.ranking.places[0].name == "cheap"
    assert ("no other is cheaper a pair" in words) == cheap
    assert ("times as much a pair as the cheapest" in words) != cheap


# -- the command ----------------------------------------------------------------------------------------------------------


@pytest.mark.pages
def test_the_command_writes_its_files_and_one_screen(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("compare", folders / "week1", folders / "week2") == 0
    out = capsys.readouterr().out
    assert len(out.splitlines()) <= 50
    for words in (
        "paired on the 150 pairs that both judged",
        "Worst-case harm",
        "Recommended: week1",
        "Folder: runs/compare-week1-week2",
    ):
        assert words in out
    target = Path("runs/compare-week1-week2")
    table = pd.read_csv(target / "comparison.csv")
    assert list(table.columns) == ["first", "second", "pairing", "first_estimate", "second_estimate", *ESTIMATE_COLUMNS]
    content = json.loads((target / "compare.json").read_text())
    assert content["format"] == "judgeloop-comparison/1"
    assert len(content["differences"]) == len(table)
    assert content["ranking"]["clear"]
    page = (target / "compare.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page.replace("&#x27;", "'")
    assert not re.search(r'(?:src|href)="(?!#|data:)', page)
    assert "Recommended: week1" in (target / "compare.md").read_text()
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    assert command("compare", folders / "week1", folders / "week2") == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before


def test_what_cannot_be_compared_is_refused(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        ((), "give run folders"),
        ((folders / "week1",), "one judge or arm to compare in week1"),
        ((tmp_path,), "not a run folder"),
        ((folders / "three", "--judge", "good"), "one judge or arm"),
        ((folders / "week1", folders / "week2", "--out", folders / "week1"), "give another --out"),
    ):
        assert command("compare", *arguments) == 2
        error = capsys.readouterr().err
        assert words in error
        assert len(error.splitlines()) == 1
    with pytest.raises(InvalidInput):
        compare()
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "experiment.yaml").write_text("name: r")
    with pytest.raises(FolderMismatch, match="no estimates yet"):
        compare(folders / "week1", tmp_path / "r")


@pytest.mark.pages
def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>|\x00\x1b[31m"
    names = {name: (0.1, 0.1, 1.0), "</script><b>": (0.9, 0.1, 1.0)}
    path = analysed(
        log({"a": (0.1, 0.1, 1.0), "b": (0.9, 0.1, 1.0)}, items=30).replace(
            {"judge": {"a": name, "b": "</script><b>"}}
        ),
        tmp_path / "h",
    )
    done = compare(path, out=tmp_path / "c")
    assert len(names) == len(done.comparison.contenders)
    page = (done.path / "compare.html").read_text(encoding="utf-8")
    assert "<img" not in page
    assert "<b>" not in page.split("<body>")[1].split('<script type="application/json"')[0]
    assert not set("".join(p.read_text(encoding="utf-8") for p in done.path.glob("*.md"))) & set("\x00\x1b")
    assert "\x1b" not in done.summary()


@pytest.mark.pages
def test_one_judge_over_three_folders_is_drawn_in_the_order_given(tmp_path: Path) -> None:
    positions = {"march": 0.2, "april": 1.0, "may": 0.6}
    folders = [
        analysed(log({"j": (slot, 0.1, 1.0)}, label=month, items=40), tmp_path / month)
        for month, slot in positions.items()
    ]
    done = compare(*folders, out=tmp_path / "over-time")
    values = []
    for folder in folders:
        rows = pd.read_csv(folder / "estimates.csv")
        plain = rows[(rows["term"] == "first_slot_excess") & rows["variant"].isna() & rows["category"].isna()]
        values.append(50 + 100 * float(plain["estimate"].iloc[0]))
    assert f"First slot picked: {' → '.join(f'{value:.1f}' for value in values)} %" in done.summary()
    page = (tmp_path / "over-time" / "compare.html").read_text(encoding="utf-8")
    assert 'id="figure-trend"' in page
    assert '"ticktext":["march","april","may"]' in page
    with no_pages():
        two = compare(*folders[:2], out=tmp_path / "two")
    assert "Over time" not in two.summary()
