"""``judgeloop check``: its limits file, its exit codes, and every form in which the verdict leaves the program."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

import report_folder
from command_line import command
from judgeloop import limits
from judgeloop.commands.check import check
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.limits import limits_of
from judgeloop.records import ESTIMATE_COLUMNS

ROOT = Path(__file__).parents[2]
HOSTILE = 'm\n::error::x ##[error]y "<b>&%0A\x00\x1b[31m\u202e,:'


def test_unscored_replies_are_counted(tmp_path: Path) -> None:
    folder = report_folder.write(tmp_path / "r")
    table = folder.table("judgments")
    lost = int((table["verdict"] == "unscored").sum())
    assert lost > 0
    checked = check(folder.path, {"unscored_share": {"max": 0.5}})
    rows = [outcome.row for outcome in checked.outcomes]
    assert sum(row.n_unscored for row in rows if row) == lost
    assert all(row.estimate == row.conf_low == row.conf_high == row.n_unscored / row.n for row in rows if row)
    assert checked.exit_code == 0
    assert check(folder.path, {"unscored_share": {"max": 0.0}}).exit_code == 1


# -- the file ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that tests only read."""
    return report_folder.write(tmp_path_factory.mktemp("small") / "r", size=(1, 3)).path


@pytest.mark.parametrize(
    ("text", "words"),
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
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tmp_path / "l.yaml").write_text(text, encoding="utf-8")
    assert command("check", small, "--limits", tmp_path / "l.yaml") == 2
    error = capsys.readouterr().err
    assert words in error
    assert "l.yaml" in error
    assert len(error.splitlines()) == 1


def test_what_is_no_folder_is_refused(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check") == 2
    assert command("check", tmp_path) == 2
    (tmp_path / "experiment.yaml").write_text("name: x\n")
    assert command("check", tmp_path) == 2
    assert "no estimates yet" in capsys.readouterr().err
    pd.DataFrame({"term": ["x"]}).to_parquet(tmp_path / "estimates.parquet")
    with pytest.raises(FolderMismatch, match="lack the columns"):
        check(tmp_path)
    with pytest.raises(InvalidInput, match="no such file"):
        check(small, tmp_path / "nowhere.yaml")


def test_the_defaults_are_a_file_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("check", "--print-limits") == 0
    printed = capsys.readouterr().out
    assert printed == limits.default_text()
    (tmp_path / "l.yaml").write_text(printed, encoding="utf-8")
    from_file, shipped = limits.load_limits(tmp_path / "l.yaml"), limits.load_limits()
    assert [replace(limit, where="") for limit in from_file] == [replace(limit, where="") for limit in shipped]
    assert {"first_slot_excess", "did_length", "unscored_share"} <= {limit.term for limit in shipped}


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
    checked = check(folder.path)
    assert code == checked.exit_code == 1
    verdicts = [outcome.verdict for outcome in checked.outcomes]
    assert set(verdicts) == {"passed", "exceeded", "inconclusive", "not_applied"}
    root = check_junit((tmp_path / "ci" / "j.xml").read_text(encoding="utf-8"))
    kinds = {"exceeded": ["failure"], "inconclusive": ["error"], "not_applied": ["skipped"], "passed": []}
    assert [[child.tag for child in case] for case in root.iter("testcase")] == [kinds[verdict] for verdict in verdicts]
    content = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert (content["format"], content["verdict"], content["exit_code"]) == ("judgeloop-check/1", "exceeded", 1)
    assert [limit["verdict"] for limit in content["limits"]] == verdicts
    assert all(
        limit["estimate"] is None or list(limit["estimate"]) == list(ESTIMATE_COLUMNS) for limit in content["limits"]
    )
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
    rows = [replace(row, judge=HOSTILE, note=row.note + HOSTILE) for row in report_folder.estimates() if row.judge]
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
    checked = [check(folder.path) for _ in "12"]
    assert limits.junit(checked[0]) == limits.junit(checked[1])
    assert limits.record(checked[0]) == limits.record(checked[1])


# -- the page ------------------------------------------------------------------------------------------------------------


def block(kind: str) -> str:
    text = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    match = re.search(rf"^```yaml {kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert match is not None
    return match[1]


def test_the_limits_of_the_page_are_limits() -> None:
    for kind in ("limits", "gate"):
        assert limits_of(yaml.safe_load(block(kind)))
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    assert [key for key in ("required", "contrast", "variant", "max_abs", "generation") if f"`{key}`" not in page] == []


@pytest.mark.pages
@pytest.mark.slow
def test_the_workflow_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its judgeloop commands as they stand there, in a checkout that holds the fixture and the page's limits."""
    workflow = yaml.safe_load(block("workflow"))
    assert workflow[True] == "pull_request"  # YAML 1.1 reads "on" so
    steps = workflow["jobs"]["gate"]["steps"]
    commands = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("judgeloop ")]
    assert [words[1] for words in commands] == ["run", "check"]
    shutil.copytree(ROOT / "fixtures" / "exemplars", tmp_path / "fixtures" / "exemplars")
    (tmp_path / "limits.yaml").write_text(block("gate"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert [command(*words[1:]) for words in commands] == [0, 0]
    uploaded = next(step["with"]["path"] for step in steps if "upload" in step.get("uses", "")).split()
    assert [name for name in uploaded if not (tmp_path / name).is_file()] == []
    check_junit((tmp_path / "check.xml").read_text(encoding="utf-8"))
