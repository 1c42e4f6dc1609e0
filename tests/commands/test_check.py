"""``judgeloop check``: intervals against limits, and every form in which the verdict leaves the program."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from command_line import command
from judgeloop import limits
from judgeloop.commands.check import check
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.limits import is_known, limits_of, matches, sample_to_decide
from judgeloop.records import ESTIMATE_COLUMNS
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.inference import replicates_for
from limit_rows import between, row

ROOT = Path(__file__).parents[2]
HOSTILE = 'm\n::error::x ##[error]y "<b>&%0A\x00\x1b[31m\u202e,:'


def verdict(one: Estimate, **limit: Any) -> str:
    return limits.check("f", [one], limits_of({one.term: limit})).outcomes[0].verdict


# -- deciding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "limit", "expected", "margin"),
    [
        (between(-0.04, 0.04), {"max_abs": 0.05}, "passed", 0.01),
        (between(0.01, 0.05), {"max_abs": 0.05}, "passed", 0.0),
        (between(0.06, 0.10), {"max_abs": 0.05}, "exceeded", -0.01),
        (between(-0.10, -0.06), {"max_abs": 0.05}, "exceeded", -0.01),
        (between(0.01, 0.09), {"max_abs": 0.05}, "inconclusive", -0.04),
        (between(-0.3, 0.3), {"max_abs": 0.05}, "inconclusive", -0.25),
        (between(-0.9, 0.04), {"max": 0.05}, "passed", 0.01),
        (between(0.61, 0.7, term="gold_agreement"), {"min": 0.6}, "passed", 0.01),
        (between(0.55, 0.7, term="gold_agreement"), {"min": 0.6}, "inconclusive", -0.05),
        (between(0.4, 0.55, term="gold_agreement"), {"min": 0.6}, "exceeded", -0.05),
        (between(0.45, 0.55, term="gold_agreement"), {"min": 0.4, "max": 0.6}, "passed", 0.05),
        (row(status="undefined", estimate=None, note="no gold"), {"max": 1}, "inconclusive", None),
        (row(conf_low=None, conf_high=None, note="one replicate has no interval"), {"max": 1}, "inconclusive", None),
        (row(status="undefined", estimate=None), {"max": 1, "required": False}, "not_applied", None),
        # Underpowered for its own margin, and yet inside a wider limit: the interval decides.
        (between(-0.08, 0.08, status="underpowered"), {"max_abs": 0.2}, "passed", 0.12),
        (between(-0.08, 0.08, status="underpowered"), {"max_abs": 0.05}, "inconclusive", -0.03),
    ],
)  # fmt: skip
def test_the_interval_decides(one: Estimate, limit: dict[str, Any], expected: str, margin: float | None) -> None:
    outcome = limits.check("f", [one], limits_of({one.term: limit})).outcomes[0]
    assert outcome.verdict == expected
    assert outcome.margin == (None if margin is None else pytest.approx(margin))
    assert outcome.message


@given(
    st.floats(-0.9, 0.9), st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0.001, 0.9), st.floats(0, 0.1)
)  # fmt: skip
def test_more_data_or_a_wider_limit_never_turns_a_pass(
    centre: float, below: float, above: float, limit: float, more: float
) -> None:
    one = row(estimate=centre, conf_low=max(-1.0, centre - below), conf_high=min(1.0, centre + above))
    first = verdict(one, max_abs=limit)
    wider = row(estimate=centre, conf_low=one.conf_low - more, conf_high=one.conf_high + more)  # type: ignore[operator]
    if verdict(wider, max_abs=limit) != "inconclusive":
        assert first == verdict(wider, max_abs=limit)
    if first == "passed":
        assert verdict(one, max_abs=min(1.0, limit + more)) == "passed"
    if verdict(one, max_abs=min(1.0, limit + more)) == "exceeded":
        assert first == "exceeded"


@given(st.lists(st.sampled_from(["passed", "exceeded", "inconclusive", "not_applied"]), min_size=1, max_size=5))
def test_the_whole_is_its_worst_part(parts: list[str]) -> None:
    made = {
        "passed": between(-0.01, 0.01), "exceeded": between(0.2, 0.3), "inconclusive": between(0.0, 0.3),
        "not_applied": row(status="undefined", estimate=None),
    }  # fmt: skip
    rows = [replace(made[part], judge=f"m{place}") for place, part in enumerate(parts)]
    done = limits.check("f", rows, limits_of({"first_slot_excess": {"max_abs": 0.05, "required": False}}))
    assert [outcome.verdict for outcome in done.outcomes] == parts
    if "exceeded" in parts:
        assert done.exit_code == 1
    elif "inconclusive" in parts or "passed" not in parts:
        assert done.exit_code == 5
    else:
        assert done.exit_code == 0


def test_a_limit_that_looks_at_nothing_is_no_pass() -> None:
    for raw, said in (
        ({"did_length": {"max": 0.1}}, "no estimate of did_length"),
        ({"first_slot_excess": {"max": 0.1, "judge": "other"}}, "is of judge other (judges: m)"),
        ({"first_slot_excess": {"max": 0.1, "generation": 3}}, "is of generation 3"),
    ):
        done = limits.check("f", [row()], limits_of(raw))
        assert (done.exit_code, done.outcomes[0].row) == (5, None)
        assert said in done.outcomes[0].message
    only_skipped = limits.check("f", [row()], limits_of({"did_length": {"max": 0.1, "required": False}}))
    assert only_skipped.exit_code == 5


def test_the_sample_that_would_decide() -> None:
    one = row(estimate=0.03, std_error=0.02, n_items=100)
    said = sample_to_decide(one, 0.02)
    needed = int(re.search(r"about ([\d,]+) items \(now 100\)", said)[1].replace(",", ""))  # type: ignore[index]
    # With that many items the limit stands z(.975) + z(.8) = 2.80 standard errors away.
    assert 0.02 / (0.02 * math.sqrt(100 / needed)) == pytest.approx(2.802, abs=0.01)
    loops = row(estimate=0.03, std_error=0.02, n_replicates=8)
    assert f"about {replicates_for(0.02 / (0.02 * math.sqrt(8)))} replicates (now 8)" == sample_to_decide(loops, 0.02)
    assert sample_to_decide(one, 0.0) == ""
    assert sample_to_decide(row(std_error=0.0, conf_low=0.02, conf_high=0.02), 0.1) == ""
    assert "more than" in sample_to_decide(one, 1e-6)
    # What nobody runs is no advice.
    assert sample_to_decide(loops, 0.0025).startswith("no sample of this kind (it takes about")
    assert sample_to_decide(one, 3e-4).startswith("no sample of this kind (it takes about")
    across = limits.check("f", [one, loops], limits_of({"first_slot_excess": {"max": 0.05}})).outcomes
    assert "would decide it" not in across[0].message or across[0].verdict == "inconclusive"


def test_unscored_replies_are_counted(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "r")
    table = folder.table("judgments")
    lost = int((table["verdict"] == "unscored").sum())
    assert lost > 0
    done = check(folder.path, {"unscored_share": {"max": 0.5}})
    rows = [outcome.row for outcome in done.outcomes]
    assert sum(one.n_unscored for one in rows if one) == lost
    assert all(one.estimate == one.conf_low == one.conf_high == one.n_unscored / one.n for one in rows if one)
    assert done.exit_code == 0
    assert check(folder.path, {"unscored_share": {"max": 0.0}}).exit_code == 1


# -- the file ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("first_slot_exces: {max: 1}", "first_slot_exces: unknown term; did you mean first_slot_excess?"),
        ("did_lenght: {max: 1}", "did you mean did_length?"),
        ("zzzz: {max: 1}", "unknown term"),
        ("qqq_*: {max: 1}", "unknown term"),
        ("first_slot_excess: {maximum: 1}", "maximum: unknown key; did you mean max?"),
        ("first_slot_excess: 0.05", "a limit is a mapping"),
        ("first_slot_excess: {}", "no limit; give max, min or max_abs"),
        ("first_slot_excess: []", "the list is empty"),
        ("first_slot_excess: {judge: m}", "no limit"),
        ("first_slot_excess: {max: wide}", "max: must be a number, this is text"),
        ("first_slot_excess: {max: .nan}", "max: must be a number"),
        ("first_slot_excess: {max: true}", "max: must be a number"),
        ("first_slot_excess: {max_abs: -1}", "must not be below 0"),
        ("first_slot_excess: {max_abs: 1, max: 2}", "max_abs stands for both sides"),
        ("first_slot_excess: {min: 2, max: 1}", "min 2 is above max 1"),
        ("first_slot_excess: {max: 1, generation: -1}", "generation: must be"),
        ("first_slot_excess: {max: 1, generation: first}", "generation: must be"),
        ("first_slot_excess: {max: 1, judge: [a]}", "judge: must be text"),
        ("first_slot_excess: {max: 1, required: 1}", "required: must be true or false"),
        ("first_slot_excess: {max: 1}\nfirst_slot_excess: {max: 2}", "first_slot_excess"),
        ("first_slot_excess: [{max: 1}, {max: x}]", "first_slot_excess[1].max"),
        ("", "limits"),
        ("first_slot_excess: {max_abs: 5}", "five percentage points are 0.05"),
    ],
)  # fmt: skip
def test_a_wrong_limits_file_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    report_folder.write(tmp_path / "r", size=(1, 3))
    (tmp_path / "l.yaml").write_text(text, encoding="utf-8")
    assert command("check", tmp_path / "r", "--limits", tmp_path / "l.yaml") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "l.yaml" in error
    assert len(error.splitlines()) == 1


def test_what_is_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check") == 2
    assert command("check", tmp_path) == 2
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    assert command("check", tmp_path) == 2
    assert "no estimates yet" in capsys.readouterr().err
    pd.DataFrame({"term": ["x"]}).to_parquet(tmp_path / "estimates.parquet")
    with pytest.raises(FolderMismatch, match="lack the columns"):
        check(tmp_path)
    with pytest.raises(InvalidInput, match="no such file"):
        check(report_folder.write(tmp_path / "r", size=(1, 3)).path, tmp_path / "nowhere.yaml")


def test_the_defaults_are_a_file_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "--print-limits") == 0
    printed = capsys.readouterr().out
    assert printed == limits.default_text()
    (tmp_path / "l.yaml").write_text(printed, encoding="utf-8")
    given, shipped = limits.load_limits(tmp_path / "l.yaml"), limits.load_limits()
    assert [replace(one, where="") for one in given] == [replace(one, where="") for one in shipped]
    assert {"first_slot_excess", "did_length", "unscored_share"} <= {one.term for one in shipped}


def test_terms_of_the_contract_and_of_the_folder_are_known() -> None:
    for term in (
        "first_slot_excess", "slot_3_excess", "padding_probe", "bold_probe", "tone_probe", "style_joint", "did_mattr",
        "mean_length", "mean_correct", "hedging_when_wrong", "judge_drift_conflict_rate", "transmission_length",
        "cumulative_gain_style_score", "kl_from_reference", "forecast_drift_length", "vendi", "score_length_ame",
        "arena_style_log_odds_tokens", "preference_fairness", "did_*", "*_probe",
    ):  # fmt: skip
        assert is_known(term), term
    assert all(is_known(one.term) for one in report_folder.estimates())
    assert not is_known("my_term")
    assert is_known("my_term", {"my_term"})
    assert matches("a*c", "abc")
    assert not matches("a*c", "ac")
    assert not matches("a.c", "abc")


# -- what leaves the program ---------------------------------------------------------------------------------------------


def test_the_exit_codes_are_those_of_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report_folder.write(tmp_path / "r")
    for limit, code, word in ((0.5, 0, "passed"), (0.05, 1, "exceeded"), (0.13, 5, "inconclusive")):
        (tmp_path / "l.yaml").write_text(f"first_slot_excess: {{max_abs: {limit}}}", encoding="utf-8")
        assert command("check", tmp_path / "r", "--limits", tmp_path / "l.yaml") == code
        out = capsys.readouterr().out
        assert out.startswith(f"r: {word} (1 {word})")
        assert f"within ±{limit}" in out
        assert ("would decide it" in " ".join(out.split())) == (code == 5)


def check_junit(text: str) -> ElementTree.Element:
    """The form that the JUnit schema of common CI systems demands: elements, their order, attributes, counts."""
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    assert set(root.attrib) <= {"name", "time", "tests", "failures", "errors", "disabled"}
    for suite in root:
        assert suite.tag == "testsuite"
        assert {"name", "tests"} <= set(suite.attrib)
        assert set(suite.attrib) <= {"name", "tests", "failures", "errors", "time", "skipped", "timestamp", "id"}
        cases = list(suite)
        assert int(suite.attrib["tests"]) == len(cases)
        for kind, counted in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert int(suite.attrib[counted]) == len(suite.findall(f"testcase/{kind}"))
        for case in cases:
            assert case.tag == "testcase"
            assert set(case.attrib) == {"name", "classname", "time"}
            float(case.attrib["time"])
            assert [child.tag for child in case] in ([], ["failure"], ["error"], ["skipped"])
            for child in case:
                assert set(child.attrib) <= {"message", "type"}
                assert child.attrib["message"]
    return root


def test_junit_json_and_annotations_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = report_folder.write(tmp_path / "r")
    code = command(
        "check", folder.path, "--junit", tmp_path / "ci" / "j.xml", "--json", tmp_path / "c.json", "--github"
    )
    done = check(folder.path)
    assert code == done.exit_code == 1
    verdicts = [outcome.verdict for outcome in done.outcomes]
    assert set(verdicts) == {"passed", "exceeded", "inconclusive", "not_applied"}
    root = check_junit((tmp_path / "ci" / "j.xml").read_text(encoding="utf-8"))
    kinds = {"exceeded": ["failure"], "inconclusive": ["error"], "not_applied": ["skipped"], "passed": []}
    assert [[child.tag for child in case] for case in root.iter("testcase")] == [kinds[one] for one in verdicts]
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert (content["format"], content["verdict"], content["exit_code"]) == ("judgeloop-check/1", "exceeded", 1)
    assert [one["verdict"] for one in content["limits"]] == verdicts
    assert all(one["estimate"] is None or list(one["estimate"]) == list(ESTIMATE_COLUMNS) for one in content["limits"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("::")]
    assert sum(line.startswith("::error ") for line in lines) == verdicts.count("exceeded")
    assert sum(line.startswith("::warning ") for line in lines) == verdicts.count("inconclusive")
    assert lines[-1].startswith("::notice ")


def test_annotations_come_unasked_in_github_actions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = report_folder.write(tmp_path / "r", size=(1, 3))
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    command("check", folder.path)
    assert "::notice" not in capsys.readouterr().out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    command("check", folder.path)
    assert "::notice" in capsys.readouterr().out
    command("check", folder.path, "--no-github")
    assert "::notice" not in capsys.readouterr().out


def test_hostile_names_reach_no_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [replace(one, judge=HOSTILE, note=one.note + HOSTILE) for one in report_folder.estimates() if one.judge]
    folder = report_folder.write(tmp_path / "r", rows=rows)
    command("check", folder.path, "--junit", tmp_path / "j.xml", "--json", tmp_path / "c.json", "--github")
    out = capsys.readouterr().out
    assert not set(out) & set("\x00\x1b\u202e")
    # A workflow command is a line that begins with ::, so no name may begin one.
    assert all(
        re.match(r"::(error|warning|notice) title=[^:,]*::[^:]", line) for line in out.splitlines() if "::" in line[:2]
    )
    assert "::error::x" not in out
    assert "##[" not in out
    check_junit((tmp_path / "j.xml").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))["verdict"] == "exceeded"


def test_the_same_folder_gives_the_same_bytes(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "r", size=(1, 3))
    done = [check(folder.path) for _ in "12"]
    assert limits.junit(done[0]) == limits.junit(done[1])
    assert limits.record(done[0]) == limits.record(done[1])


# -- the page ------------------------------------------------------------------------------------------------------------


def block(kind: str) -> str:
    text = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    found = re.search(rf"^```yaml {kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_the_limits_of_the_page_are_limits() -> None:
    for kind in ("limits", "gate"):
        assert limits_of(yaml.safe_load(block(kind)))
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    assert [key for key in ("required", "contrast", "variant", "max_abs", "generation") if f"`{key}`" not in page] == []


@pytest.mark.slow
def test_the_workflow_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its judgeloop commands as they stand there, in a checkout that holds the fixture and the page's limits."""
    workflow = yaml.safe_load(block("workflow"))
    assert workflow[True] == "pull_request"  # YAML 1.1 reads "on" so
    steps = workflow["jobs"]["gate"]["steps"]
    commands = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("judgeloop ")]
    assert [words[1] for words in commands] == ["run", "check"]
    shutil.copytree(ROOT / "fixtures" / "quickstart", tmp_path / "fixtures" / "quickstart")
    (tmp_path / "limits.yaml").write_text(block("gate"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [command(*words[1:]) for words in commands] == [0, 0]
    uploaded = next(step["with"]["path"] for step in steps if "upload" in step.get("uses", "")).split()
    assert [name for name in uploaded if not (tmp_path / name).is_file()] == []
    check_junit((tmp_path / "check.xml").read_text(encoding="utf-8"))
