"""report.json fits its published schema, and every output of the report takes its numbers from the same estimates."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

import report_folder
from judgeloop import report
from judgeloop.report.document import Report, schema
from judgeloop.rundir import RunFolder

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "docs/report.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    made = report_folder.write(tmp_path_factory.mktemp("runs") / "demo")
    report.write(made)
    return made


def _document(folder: RunFolder) -> dict[str, object]:
    read: dict[str, object] = json.loads((folder.path / "report.json").read_text(encoding="utf-8"))
    return read


def test_the_published_schema_is_the_code_s() -> None:
    assert schema() == PUBLISHED
    jsonschema.Draft202012Validator.check_schema(PUBLISHED)


def test_report_json_fits_the_schema_and_a_wrong_one_does_not(folder: RunFolder) -> None:
    validator = jsonschema.Draft202012Validator(PUBLISHED)
    content = _document(folder)
    assert list(validator.iter_errors(content)) == []
    assert Report.model_validate(content).format == "judgeloop-report/1"
    for change in (
        {"estimates": [{"term": "x"}]},
        {"format": "other"},
        {"more": 1},
        {"findings": [{"verdict": "yes"}]},
    ):
        assert list(validator.iter_errors({**content, **change}))


def test_estimates_are_the_csv_s_number_for_number(folder: RunFolder) -> None:
    told = pd.DataFrame(Report.model_validate(_document(folder)).model_dump()["estimates"])
    csv = pd.read_csv(folder.path / "estimates.csv", keep_default_na=False, na_values={"estimate": "", "conf_low": ""})
    assert len(told) == len(csv)
    assert told["term"].tolist() == csv["term"].tolist()
    assert told["estimate"].astype("float64").equals(csv["estimate"].astype("float64"))
    assert told["conf_low"].astype("float64").equals(csv["conf_low"].astype("float64"))


def test_the_answers_are_the_same_in_every_output(folder: RunFolder) -> None:
    answers = Report.model_validate(_document(folder)).answers
    assert [answer.question for answer in answers] == [
        "Is my judge biased?", "Is the bias growing in my outputs?", "How sure are we?", "What should I change?"
    ]  # fmt: skip
    page = re.sub(r"</?code>", "`", (folder.path / "report.html").read_text(encoding="utf-8")).replace("&#x27;", "'")
    page = page.replace("\u00a0", " ")
    plain = (folder.path / "report.md").read_text(encoding="utf-8").replace("\\", "")
    for answer in answers:
        for sentence in answer.sentences:
            assert sentence in page
            assert sentence in plain
