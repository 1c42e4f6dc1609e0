"""report.json: answers, findings, estimates and their sources, under stable keys with a published schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from judgeloop.records import ESTIMATE_KEY
from judgeloop.report import wording
from judgeloop.report.answers import answers, headline
from judgeloop.report.claims import QUESTIONS, Finding, Standing
from judgeloop.report.reading import Reading, record
from judgeloop.report.tables import caveats
from judgeloop.stats.estimate import PositiveControl, Verdict

FORMAT = "judgeloop-report/1"

_Text = Annotated[str, Field(description="Plain text, not escaped; empty where it does not apply.")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmRecord(_Strict):
    """One condition of the run."""

    name: str
    control: Annotated[str | None, Field(description="random, gold, positive or control; null for an arm with a judge")]


class AnswerRecord(_Strict):
    """One of the four questions of the first screen."""

    question: str
    word: Annotated[str, Field(description="The answer in a word or two.")]
    sentences: Annotated[list[str], Field(description="The reasons for the word, the weightiest first.")]


class Key(_Strict):
    """What names one row of ``estimates``."""

    scope: str
    judge: str
    arm: str
    contrast: str
    generation: int | None
    panel: str
    category: str
    term: str
    variant: str


class FindingRecord(_Strict):
    """A sentence on one estimate, and its standing by interval and test."""

    question: Annotated[str, Field(description="position, content, self_preference, drift, amplification, …")]
    asks: Annotated[str, Field(description="The question in words.")]
    verdict: Annotated[Standing, Field(description="How the report sorts and names the finding.")]
    word: Annotated[
        Verdict, Field(description="The estimate's verdict; empty where the sentence sums up several estimates.")
    ]
    sentence: str
    estimate: Key


class EstimateRecord(Key):
    """A row of estimates.csv; numbers are in ``unit``, null where there is none."""

    bias: str
    estimate: float | None
    std_error: float | None
    conf_low: float | None
    conf_high: float | None
    conf_level: float | None
    p_value: float | None
    p_adjusted: float | None
    family: Literal["confirmatory", "exploratory", "none"]
    n: Annotated[int, Field(description="What the estimator counts: pairs, judgments, candidates or replicates.")]
    n_items: int
    n_replicates: int | None
    n_unscored: Annotated[int, Field(description="Judgments without a verdict.")]
    unit: str
    method: str
    status: Literal["ok", "underpowered", "undefined"]
    verdict: Annotated[Verdict, Field(description="The row's verdict in a word; empty where it claims nothing.")]
    margin: Annotated[float | None, Field(description="The equivalence margin that the row was tested against.")]
    detectable: Annotated[
        float | None, Field(description="The smallest effect found with 80 % power, where none was detected.")
    ]
    benchmark: Annotated[float | None, Field(description="What theory gives where nothing feeds back on itself.")]
    positive_control: Annotated[
        PositiveControl, Field(description="Whether the run's positive control was seen; itself…: of such an arm.")
    ]
    note: _Text


class Report(_Strict):
    """A drift report as data. The numbers are those of estimates.csv; the sentences those of report.html and report.md."""

    format: Literal["judgeloop-report/1"]
    name: str
    run: Annotated[dict[str, str], Field(description="What was run, as at the head of the report.")]
    arms: list[ArmRecord]
    headline: Annotated[str, Field(description="The first sentences: what the judge and training on its picks do.")]
    answers: list[AnswerRecord]
    findings: list[FindingRecord]
    estimates: list[EstimateRecord]
    caveats: list[str]
    environment: Annotated[dict[str, Any], Field(description="environment.json: hashes, versions, seeds, models.")]


def schema() -> dict[str, Any]:
    """The JSON schema of report.json (``judgeloop report --schema``, docs/report.schema.json)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema()}


def render(reading: Reading, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]) -> str:
    """The document as JSON text, checked against its own schema before it is written."""
    four = answers(reading, findings)
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": reading.name,
        "run": {label.lower().replace(" ", "_"): value for label, value in facts},
        "arms": [{"name": arm, "control": reading.controls.get(arm)} for arm in reading.arms],
        "headline": headline(reading, findings, four),
        "answers": [
            {"question": answer.question, "word": answer.word, "sentences": list(answer.sentences)} for answer in four
        ],
        "findings": [finding_record(finding) for finding in findings],
        "estimates": [record(row) for row in reading.estimates],
        "caveats": caveats(reading),
        "environment": dict(reading.environment),
    }
    Report.model_validate(content)
    rest = json.dumps({**content, "estimates": []}, indent=1, ensure_ascii=False, allow_nan=False)
    # Python indents far more slowly than it writes a flat record, and most of the document are these.
    rows = (
        json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",\n   ", ": "))
        for row in content["estimates"]
    )
    lines = ",\n".join(f"  {{\n   {row[1:-1]}\n  }}" for row in rows)
    if lines:
        rest = rest.replace('\n "estimates": []', f'\n "estimates": [\n{lines}\n ]', 1)
    return wording.visible(rest) + "\n"


def finding_record(finding: Finding) -> dict[str, Any]:
    """A finding as a mapping, ready for JSON."""
    row = asdict(finding.row)
    return {
        "question": finding.question,
        "asks": QUESTIONS[finding.question],
        "verdict": finding.verdict,
        "word": finding.word,
        "sentence": finding.sentence,
        "estimate": {column: row[column] for column in ESTIMATE_KEY},
    }
