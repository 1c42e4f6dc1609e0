"""report.md: the findings and the main tables, readable in a terminal and in a pull request. No candidate text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from judgeloop.report import wording
from judgeloop.report.glance import answers
from judgeloop.report.methods import caveats, environment_rows
from judgeloop.report.reading import Reading
from judgeloop.report.tables import Table
from judgeloop.report.verdicts import QUESTIONS, Finding, verdict_name

# An interval in brackets, and an underscore within a word, are no markup anywhere; all else that could be is escaped.
_NUMBER = r"−?\d[\d.,]*(?:e−?\d+)?"
_SPECIAL = re.compile(
    rf"(?P<interval>\[{_NUMBER}, {_NUMBER}\](?![(\[:]))|(?P<within>(?<=[^\W_])_(?=[^\W_]))|(?P<mark>[\\`*_\[\]<>|~#&])"
)
_MANY = 3
"""More findings on a question than this are a table."""


def render(
    reading: Reading, facts: Sequence[tuple[str, str]], found: Sequence[Finding], tables: Sequence[Table]
) -> str:
    """The whole document; ends with a line end."""
    parts = [
        f"# {escape(reading.name)}: {kind_of(reading)}",
        "\n".join(f"- **{name}**: {escape(value)}" for name, value in facts),
    ]
    parts.append("## At a glance")
    for answer in answers(reading, found):
        lines = "\n".join(f"- {_with_code(sentence)}" for sentence in answer.sentences)
        parts.append(f"**{answer.question}** {escape(answer.word)}\n\n{lines}")
    parts.append("## Findings")
    for question, title in QUESTIONS.items():
        some = [finding for finding in found if finding.question == question]
        if some:
            parts.append(f"### {title}\n\n{_findings(some)}")
    missing = unanswered(reading, found)
    if missing:
        parts.append(f"Not measured in this run: {'; '.join(missing)}")
    parts += map(section, tables)
    parts.append("## How to read this\n\n" + "\n".join(f"- {escape(line)}" for line in caveats(reading)))
    parts.append(
        "## Made from\n\n"
        + "\n".join(f"- {escape(name)}: {escape(value)}" for name, value in environment_rows(reading))
    )
    return "\n\n".join(parts) + "\n"


def section(table: Table) -> str:
    """A table under a heading of its own."""
    return f"## {escape(table.title)}\n\n{escape(f'{table.caption} {table.note}')}\n\n{_grid(table)}"


def kind_of(reading: Reading) -> str:
    """What this report is of: a run has arms that may drift, a log of verdicts has judges alone."""
    return "drift report" if reading.arms else "judge report"


def _with_code(sentence: str) -> str:
    """The sentence escaped, but for the settings and commands that stand between backticks."""
    pieces = wording.label(sentence, 1000).split("`")
    if len(pieces) % 2 == 0:
        return escape(sentence)
    return "".join(f"`{piece}`" if place % 2 else _SPECIAL.sub(_escaped, piece) for place, piece in enumerate(pieces))


def unanswered(reading: Reading, found: Sequence[Finding]) -> list[str]:
    """The questions that the run bears nothing on; a log is asked those about its judges alone."""
    asked = (
        QUESTIONS if reading.arms else {name: QUESTIONS[name] for name in ("position", "content", "self_preference")}
    )
    return [title for name, title in asked.items() if not any(finding.question == name for finding in found)]


def escape(text: str) -> str:
    """Plain text as Markdown on one line: nothing in it is markup, a table cell's border or HTML."""
    return _SPECIAL.sub(_escaped, wording.label(text, 1000))


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match.group()}" if match.group("mark") else match.group()


def _findings(some: Sequence[Finding]) -> str:
    """A line a finding; a table of those on one estimate each where the arms make them many."""
    told = [one for one in some if one.several or not one.row.contrast or one.verdict == "undefined"]
    compared = [finding for finding in some if finding not in told]
    if len(compared) <= _MANY:
        told, compared = list(some), []
    parts = []
    if compared:
        columns = ("Verdict", "Arm", "Control", "Measure", "Estimate", "Unit")
        rows = tuple(
            (
                verdict_name(finding), finding.row.arm, finding.row.contrast,
                wording.term_name(finding.row.term).removesuffix(" beyond control"),
                wording.cell(finding.row), wording.unit_name(finding.row) or "–",
            )
            for finding in compared
        )  # fmt: skip
        shown = Table("", "", columns, rows)
        parts.append(_grid(shown) + (f"\n\n{escape(shown.note)}" if shown.note else ""))
    if told:
        parts.append("\n".join(f"- {verdict_name(finding)}: {escape(finding.sentence)}" for finding in told))
    return "\n\n".join(parts)


def _grid(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join(
        "| " + " | ".join(cells if cells == "---" else escape(cells) for cells in line) + " |" for line in lines
    )
