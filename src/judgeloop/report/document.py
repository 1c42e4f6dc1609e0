"""report.json: the findings, the tables' estimates and what they were made from, under stable keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from judgeloop.records import ESTIMATE_KEY
from judgeloop.report import wording
from judgeloop.report.methods import caveats
from judgeloop.report.reading import Reading, record
from judgeloop.report.verdicts import QUESTIONS, Finding

FORMAT = "judgeloop-report/1"


def render(reading: Reading, facts: Sequence[tuple[str, str]], found: Sequence[Finding]) -> str:
    """The document as JSON text: ``format, name, run, findings, estimates, caveats, environment``.

    A finding has ``question, verdict, word, sentence`` and ``estimate``, the key of its row in ``estimates``.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": reading.name,
        "run": {label.lower().replace(" ", "_"): value for label, value in facts},
        "arms": [{"name": arm, "control": reading.controls.get(arm)} for arm in reading.arms],
        "findings": [finding_record(finding) for finding in found],
        "estimates": [record(row) for row in reading.estimates],
        "caveats": caveats(reading),
        "environment": dict(reading.environment),
    }
    return wording.visible(json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


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
