"""Rows of estimates: verdict, margin, detectable and benchmark are columns, and no program reads a note or a sentence back."""

from __future__ import annotations

import ast
import io
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import judgeloop
import report_folder
from judgeloop import report
from judgeloop.commands.check import check
from judgeloop.records import ADDED_ESTIMATE_COLUMNS, ESTIMATE_COLUMNS
from judgeloop.report import answers, wording
from judgeloop.report.findings import findings
from judgeloop.report.reading import as_estimates, read
from judgeloop.rundir import RunFolder
from judgeloop.stats.estimate import (
    RATE_MARGIN,
    VERDICTS,
    BareTest,
    Estimate,
    Point,
    Result,
    RowLabels,
    SampleCounts,
    Verdict,
    estimates_frame,
    row,
)
from judgeloop.stats.inference import Interval, Undefined, surely_detectable, t_interval
from judgeloop.stats.multiplicity import adjust, settled, with_judge_families

SOURCE = Path(judgeloop.__file__).parent
_TEXTS = ("note", "sentence")
_MAY_READ = re.compile(rf"""[.]\s*({"|".join(_TEXTS)})\b|\[\s*["']({"|".join(_TEXTS)})["']""")
"""Stands in every file that names one of them: to look at the syntax of all takes seconds."""
_READING = {
    "startswith", "endswith", "split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix", "find", "index",
    "count", "replace", "strip", "lower", "str", "isin",
}  # fmt: skip
_PATTERNS = {"search", "match", "fullmatch", "findall", "finditer", "sub", "subn", "split"}


def position_row(result: Result, *, n: int = 400, items: int = 200, **more: Any) -> Estimate:
    return row(
        RowLabels("j", panel="pairs"),
        "position",
        "first_slot_excess",
        result,
        SampleCounts(n, items),
        unit="probability",
        **more,
    )


# -- the columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "verdict", "status"),
    [
        (t_interval(0.2, 0.02, 199), "found", "ok"),
        (t_interval(0.01, 0.01, 199), "none", "ok"),
        # Within the margin and told from 0: of no practical size all the same (equivalence is asked first).
        (t_interval(0.02, 0.005, 199), "none", "ok"),
        (t_interval(0.028, 0.016, 199), "undetected", "ok"),
        (t_interval(0.05, 0.04, 199), "undetected", "underpowered"),
        (Point(0.3, "one replicate has no interval"), "cannot_tell", "underpowered"),
        (BareTest(3.0, 0.01, "score test"), "found", "ok"),
        (BareTest(1.0, 0.4, "score test"), "undetected", "ok"),
        (Undefined("no pair"), "", "undefined"),
    ],
)
def test_a_row_says_what_it_claims(result: Result, verdict: str, status: str) -> None:
    row = position_row(result)
    assert (row.verdict, row.status) == (verdict, status)
    assert row.margin == (RATE_MARGIN if isinstance(result, Interval) else None)
    if isinstance(result, Interval) and verdict == "undetected":
        assert row.detectable == pytest.approx(surely_detectable(result.std_error, result.df))
        assert (row.status == "underpowered") == (row.detectable > RATE_MARGIN)
    else:
        assert row.detectable is None


def test_a_description_claims_nothing() -> None:
    row = position_row(t_interval(0.2, 0.02, 199), null=None)
    assert (row.verdict, row.margin, row.detectable) == ("", None, None)


def test_none_is_not_claimed_of_a_handful() -> None:
    assert position_row(t_interval(0.0, 0.001, 8), n=9, items=9).verdict == "cannot_tell"
    assert position_row(t_interval(0.2, 0.001, 8), n=9, items=9).verdict == "found"


def test_unchanged_is_of_a_zero() -> None:
    assert position_row(t_interval(0.0, 0.1, 60), unchanged=True).verdict == "unchanged"
    assert position_row(t_interval(0.01, 0.1, 60), unchanged=True).verdict == "undetected"


@pytest.mark.parametrize("p_value", [0.001, 0.04])
def test_an_effect_is_claimed_only_where_the_adjusted_test_agrees(p_value: float) -> None:
    """Ten terms, nine of them nothing: what p .04 finds alone the search through ten does not."""
    silent = [
        replace(position_row(t_interval(0.0, 0.02, 199)), term=f"slot_{k}_excess", p_value=0.9) for k in range(1, 10)
    ]
    told = replace(position_row(t_interval(0.2, 0.02, 199)), term="identical_pair_excess", p_value=p_value)
    frame = adjust(with_judge_families(estimates_frame([told, *silent])))
    assert frame["verdict"].iloc[0] == ("found" if p_value < 0.01 else "cannot_tell")
    # Adjusted anew with less beside it, the word follows the test.
    alone = adjust(with_judge_families(frame.iloc[:1]))
    assert alone["verdict"].iloc[0] == "found"
    for one in as_estimates(frame)[:1]:
        (finding,) = findings([one])
        assert finding.verdict == ("found" if one.verdict == "found" else "unconfirmed")


def test_a_test_without_an_interval_follows_its_adjusted_p() -> None:
    joint = row(
        RowLabels("j"), "style", "style_joint", BareTest(3.0, 0.03, "score test"), SampleCounts(400, 200), unit="F"
    )
    other = replace(joint, term="padding_probe", p_value=0.04)
    frame = adjust(with_judge_families(estimates_frame([joint, other])))
    assert frame["verdict"].tolist() == ["undetected", "undetected"]
    assert adjust(with_judge_families(frame.iloc[:1]))["verdict"].tolist() == ["found"]
    variant = estimates_frame([replace(joint, variant="wald")])
    assert adjust(with_judge_families(variant))["verdict"].tolist() == [""]  # in no family, and its p is gone


@given(
    low=st.floats(-1, 1), width=st.floats(0, 1), p=st.floats(0, 1), verdict=st.sampled_from(["found", "none", "undetected", "cannot_tell", "unchanged"]),
    family=st.sampled_from(["confirmatory", "exploratory"]), term=st.sampled_from(["did_length", "length_ame"]),
)  # fmt: skip
def test_adjustment_settles_once(low: float, width: float, p: float, verdict: Verdict, family: str, term: str) -> None:
    once = settled(verdict, low, low + width, p, family, term)
    assert settled(once, low, low + width, p, family, term) == once
    if low <= 0 <= low + width or verdict in ("none", "undetected", "unchanged"):
        assert once == verdict


# -- stored and read -----------------------------------------------------------------------------------------------------


def rows() -> list[Estimate]:
    return [
        position_row(t_interval(0.05, 0.04, 199)),
        replace(position_row(t_interval(0.01, 0.01, 199)), term="conflict_rate"),
        replace(position_row(Undefined("no pair")), term="order_agreement"),
        Estimate(
            scope="policy", bias="verbosity", term="compounding_length", arm="a", contrast="random", unit="ratio", estimate=1.0,
            conf_low=0.95, conf_high=1.05, verdict="steady", margin=0.2, benchmark=0.531,
        ),
    ]  # fmt: skip


def test_the_columns_come_back_from_csv_and_parquet(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    frame = estimates_frame(rows())
    folder.write_estimates(frame)
    assert list(as_estimates(folder.estimates())) == rows()
    read_back = pd.read_csv(tmp_path / "run" / "estimates.csv", keep_default_na=True)
    assert list(read_back.columns) == list(ESTIMATE_COLUMNS)
    assert list(as_estimates(read_back)) == rows()
    assert list(as_estimates(pd.read_csv(io.StringIO(frame.to_csv(index=False))))) == rows()


def test_a_word_of_a_later_version_is_no_claim() -> None:
    (one,) = as_estimates(estimates_frame([replace(rows()[0], verdict="spiralling")]))  # type: ignore[arg-type]
    assert one.verdict == ""
    assert "" in VERDICTS


def test_a_folder_of_an_earlier_version_is_still_read(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "old")
    whole = findings(read(folder).estimates)
    folder.write_estimates(folder.estimates().drop(columns=list(ADDED_ESTIMATE_COLUMNS)))
    assert not set(ADDED_ESTIMATE_COLUMNS) & set(pd.read_parquet(folder.path / "estimates.parquet").columns)
    assert folder.estimates()["verdict"].eq("").all()
    found = findings(read(folder).estimates)
    old = {(one.row.term, one.row.judge, one.row.arm, one.row.contrast): one.verdict for one in found}
    new = {(one.row.term, one.row.judge, one.row.arm, one.row.contrast): one.verdict for one in whole}
    assert old.keys() == new.keys()
    # The interval alone gives its verdict; no verdict on compounding is invented.
    assert {old[key] for key in new if key[0] == "beyond_first_step_length"} == {"described"}
    differ = {key for key in new if old[key] != new[key] and key[0] != "beyond_first_step_length"}
    assert all({old[key], new[key]} <= {"undetected", "underpowered"} for key in differ)
    report.write(folder)
    assert check(folder.path, {"first_slot_excess": {"max_abs": 1.0}}).verdict == "passed"


# -- sentences from fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("detectable", "said"), [(1230.0, "1230.00"), (0.04, "0.04"), (12.3, "12.30")])
def test_a_detectable_effect_is_said_in_full(detectable: float, said: str) -> None:
    """1230 passed through a sentence as 1.23e+03, and was read back as 1.23."""
    drift = Estimate(
        scope="policy", bias="verbosity", term="did_length", arm="a", contrast="random", generation=1, estimate=0.3, std_error=0.2,
        conf_low=-0.4, conf_high=0.9, n_replicates=8, unit="doublings", status="underpowered", verdict="undetected", detectable=detectable,
    )  # fmt: skip
    (finding,) = findings([drift])
    assert f"could have seen {said} doublings or more" in finding.sentence
    assert f"could have seen {said} doublings or more" in answers.brief(finding)
    assert wording.quantity(drift, detectable) == f"{said} doublings"


def _modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def _texts_read(tree: ast.AST) -> Iterator[int]:
    """Lines in which a note or a finished sentence is looked into, and not only printed, counted or passed on."""
    parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
    for node, parent in parents.items():
        named = isinstance(node, ast.Attribute) and node.attr in _TEXTS
        column = isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value in _TEXTS
        if not (named or column) or not isinstance(getattr(node, "ctx", None), ast.Load):
            continue
        compared = isinstance(parent, ast.Compare)
        looked = isinstance(parent, ast.Attribute) and parent.attr in _READING
        cut = isinstance(parent, ast.Subscript) and parent.value is node
        matched = (
            isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr in _PATTERNS
        )
        if compared or looked or cut or matched:
            yield node.lineno


def test_no_note_and_no_sentence_is_read_back() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in _modules()
        if _MAY_READ.search(text := path.read_text(encoding="utf-8"))
        for line in _texts_read(ast.parse(text))
    ]
    assert found == []


@pytest.mark.parametrize(
    "code",
    ['"x" in row.note', 'row.note.startswith("x")', "PATTERN.search(row.note)", "finding.sentence[:-1]", 'frame["note"].str.contains("x")',
     'row.note == "x"', "re.sub('a', 'b', row.note)"],
)  # fmt: skip
def test_what_reads_a_note_is_seen(code: str) -> None:
    assert list(_texts_read(ast.parse(code))) == [1]


@pytest.mark.parametrize(
    "code",
    ["print(row.note)", "f'{row.note}'", "wording.reason(row.note)", "seen[row.note, row.term]", "row.note or 'none'"],
)
def test_what_prints_a_note_is_allowed(code: str) -> None:
    assert list(_texts_read(ast.parse(code))) == []


def test_numbers_that_are_not_there_are_empty() -> None:
    frame = estimates_frame([rows()[1]])
    assert math.isnan(frame["benchmark"].iloc[0])
    assert frame["margin"].dtype == "float64"
