"""What the screen says of an analysis: one line a judge, one reason for what all judges share, words that fit a log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import judgeloop
from judgeloop import results
from judgeloop.errors import FolderMismatch
from judgeloop.stats.estimate import Estimate
from verdict_log import log


def test_a_judge_is_one_line_however_long_its_name(tmp_path: Path) -> None:
    judges = tuple(f"some-provider/a-very-long-judge-name-{n:02d}-instruct-2026-01-31-preview" for n in range(3))
    summary = judgeloop.analyze(log(items=6, judges=judges), out=tmp_path / "o").summary()
    lines = summary.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("Judge "))
    table = lines[start + 1 : start + 4]
    names = [line.split("  ")[0] for line in table]
    assert len(set(names)) == 3
    assert [name[1:3] for name in names] == [f"{n}-" for n in range(3)]  # all that they share is left out, zero too
    assert all(line.count("[") == 4 and len(line) <= 100 for line in table)


@given(st.lists(st.text(max_size=80), min_size=1, max_size=5), st.integers(12, 60))
def test_a_shortened_name_fits(names: list[str], room: int) -> None:
    for name in names:
        shown = results._short_name(name, "", room)
        assert len(shown) <= room
        assert "\n" not in shown


def test_reasons_are_said_once_with_the_span_of_what_went_unscored() -> None:
    def lost(judge: str, count: int) -> Estimate:
        return Estimate(
            scope="judge", bias="quality", term="unscored_joint", judge=judge, n=80, n_unscored=count, status="undefined",
            note="the test needs 10 replies with a verdict and 10 without",
        )  # fmt: skip

    ((what, why),) = results.unknown_measures([lost("a", 2), lost("b", 11)])
    assert what == "Unscored replies depend on order or length"
    assert why == "the test needs 10 replies with a verdict and 10 without (unscored here: 2 to 11 of 80)"
    ((what, why),) = results.unknown_measures([lost("a", 5), replace(lost("b", 0), status="ok", estimate=1.0)])
    assert what == "Unscored replies depend on order or length (a)"
    assert why.endswith("(unscored here: 5 of 80)")


@pytest.mark.tables
def test_a_logs_folder_is_not_called_an_experiments(tmp_path: Path) -> None:
    judgeloop.analyze(log(items=6), out=tmp_path / "o")
    with pytest.raises(FolderMismatch, match=r"belongs to another log .*or restore the log file$"):
        judgeloop.analyze(log(items=7), out=tmp_path / "o")
