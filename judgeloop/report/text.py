"""The report as text: one screen in a terminal, and report.md. Both begin with the four answers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from judgeloop.report import wording
from judgeloop.report.answers import QuestionAnswer, answers
from judgeloop.report.claims import QUESTIONS, Finding, Standing, verdict_name
from judgeloop.report.reading import Reading
from judgeloop.report.tables import BEYOND, DRIFT, Table, caveats, environment_rows

_COLOURS: dict[Standing, str] = {
    "found": "bold red",
    "equivalent": "green",
    "unconfirmed": "yellow",
    "unclear": "yellow",
}
_TONES = {"found": "bold red", "open": "yellow", "calm": "green"}
_ROWS = 8
_SENTENCES = 6
_OF_ANSWER = 2
"""Sentences of an answer on the one screen."""
_MANY = 3
"""More findings on a question than this are a table in report.md."""

# An interval in brackets, and an underscore within a word, are no markup anywhere; all else that could be is escaped.
_NUMBER = r"−?\d[\d.,]*(?:e−?\d+)?"
_SPECIAL = re.compile(
    rf"(?P<interval>\[{_NUMBER}, {_NUMBER}\](?![(\[:]))|(?P<within>(?<=[^\W_])_(?=[^\W_]))|(?P<mark>[\\`*_\[\]<>|~#&])"
)


def render_terminal(
    reading: Reading, facts: Sequence[tuple[str, str]], findings: Sequence[Finding], tables: Sequence[Table]
) -> Group:
    """A rich renderable of one screen: the four answers, the tables' last rows, and what was found; the rest is in report.md."""
    headline = Text.assemble((wording.label(reading.name), "bold"), "  ")
    headline.append(
        " · ".join(f"{name.lower()} {wording.label(value, 120)}" for name, value in facts if name != "Run"), style="dim"
    )
    parts: list[RenderableType] = [headline, Padding(_answers(answers(reading, findings)), (1, 0, 0, 0))]
    # Where arms have a control, drift beyond it is the table to look at; drift since generation 0 is in report.md.
    titles = {table.title for table in tables}
    # The screen leaves out the panel: the findings below name it.
    parts += [grid(table.without("Panel")) for table in tables if not (table.title == DRIFT and BEYOND in titles)]
    parts.append(Padding(_sentences(findings), (1, 0, 0, 0)))
    return Group(*parts)


def _answers(four: Sequence[QuestionAnswer]) -> RenderableType:
    grid = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(max_width=20)
    grid.add_column()
    for answer in four:
        text = Text(answer.word, style=_TONES.get(answer.tone, ""))
        text.append("  " + " ".join(answer.sentences[:_OF_ANSWER]).replace("`", ""), style="default not bold")
        if len(answer.sentences) > _OF_ANSWER:
            text.append(f" … {len(answer.sentences) - _OF_ANSWER} more in report.md", style="dim not bold")
        grid.add_row(Text(answer.question, style="bold"), text)
    return grid


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """What the renderable prints, without colour."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def grid(table: Table, rows: int = _ROWS, file: str = "report.md") -> RenderableType:
    """The table's first rows, of generations the last; ``file`` holds the others. An arm, control or judge that is the same
    as in the row above is left out."""
    body, title = table.rows, table.title
    if len(body) > rows and "Generation" in table.columns:
        place = table.columns.index("Generation")
        every = sorted({int(row[place]) for row in body})
        last = every[-max(1, rows * len(every) // len(body)) :]
        body = tuple(row for row in body if int(row[place]) in last)
        span = f"generation {last[0]}" if len(last) == 1 else f"generations {last[0]} to {last[-1]}"
        title += f" ({span}; all {len(every)} in {file})"
    screen = RichTable(
        title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in table.columns:
        screen.add_column(Text(column, style="dim"), overflow="fold")
    previous: tuple[str, ...] = ()
    most = len(body) if table.whole else rows
    for row in body[:most]:
        cells = [
            "" if previous[: n + 1] == row[: n + 1] and table.columns[n] in ("Arm", "Control", "Judge") else cell
            for n, cell in enumerate(row)
        ]
        screen.add_row(*map(Text, cells))
        previous = row
    if len(body) > most:
        screen.add_row(Text(f"… {len(body) - most} more in {file}", style="dim"))
    if table.note:
        screen.caption, screen.caption_justify = Text(table.note, style="dim"), "left"
    return Padding(screen, (1, 0, 0, 0))


def _sentences(findings: Sequence[Finding]) -> RenderableType:
    grid = RichTable(
        box=None,
        show_header=False,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        title=Text("Findings", style="bold"),
        title_justify="left",
    )
    grid.add_column(no_wrap=True)
    grid.add_column()
    # Every question has its first sentence before any has its second; claims come before what is undefined or described.
    order = {id(finding): place for place, finding in enumerate(findings)}
    nth: dict[int, int] = {}
    for question in QUESTIONS:
        of_question = [finding for finding in findings if finding.question == question]
        of_question.sort(key=lambda finding: (_is_plain(finding), order[id(finding)]))
        nth |= {id(finding): place for place, finding in enumerate(of_question)}
    first = sorted(findings, key=lambda finding: (nth[id(finding)], _is_plain(finding), order[id(finding)]))[
        :_SENTENCES
    ]
    first.sort(key=lambda finding: (list(QUESTIONS).index(finding.question), order[id(finding)]))
    for finding in first:
        grid.add_row(
            Text(verdict_name(finding), style=_COLOURS.get(finding.verdict, "dim")),
            Text(wording.label(finding.sentence, 400)),
        )
    if not findings:
        grid.add_row(Text("–"), Text("no finding: the estimates hold none"))
    if len(findings) > len(first):
        grid.add_row(Text(""), Text(f"… {len(findings) - len(first)} more in report.md", style="dim"))
    return grid


def _is_plain(finding: Finding) -> bool:
    return finding.verdict in ("described", "undefined")


def render_markdown(
    reading: Reading, facts: Sequence[tuple[str, str]], findings: Sequence[Finding], tables: Sequence[Table]
) -> str:
    """report.md: facts, answers, findings, the main tables and how to read them; ends with a line end."""
    parts = [
        f"# {escape(reading.name)}: {kind_of(reading)}",
        "\n".join(f"- **{name}**: {escape(value)}" for name, value in facts),
    ]
    parts.append("## At a glance")
    for answer in answers(reading, findings):
        lines = "\n".join(f"- {_with_code(sentence)}" for sentence in answer.sentences)
        parts.append(f"**{answer.question}** {escape(answer.word)}\n\n{lines}")
    parts.append("## Findings")
    for question, title in QUESTIONS.items():
        of_question = [finding for finding in findings if finding.question == question]
        if of_question:
            parts.append(f"### {title}\n\n{_findings(of_question)}")
    missing = unanswered(reading, findings)
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
    return f"## {escape(table.title)}\n\n{escape(f'{table.caption} {table.note}')}\n\n{_markdown_grid(table)}"


def kind_of(reading: Reading) -> str:
    """The kind of report: of a run, which has arms that may drift, or of a log of verdicts, which has judges alone."""
    return "drift report" if reading.arms else "judge report"


def _with_code(sentence: str) -> str:
    """The sentence escaped, but for settings and commands between backticks."""
    pieces = wording.label(sentence, 1000).split("`")
    if len(pieces) % 2 == 0:
        return escape(sentence)
    return "".join(f"`{piece}`" if place % 2 else _SPECIAL.sub(_escaped, piece) for place, piece in enumerate(pieces))


def unanswered(reading: Reading, findings: Sequence[Finding]) -> list[str]:
    """The questions without a finding; of a log without arms only those about its judges."""
    asked = (
        QUESTIONS if reading.arms else {name: QUESTIONS[name] for name in ("position", "content", "self_preference")}
    )
    return [title for name, title in asked.items() if not any(finding.question == name for finding in findings)]


def escape(text: str) -> str:
    """Plain text as Markdown on one line: nothing in it is markup, a table cell's border or HTML."""
    return _SPECIAL.sub(_escaped, wording.label(text, 1000))


def _escaped(match: re.Match[str]) -> str:
    return f"\\{match.group()}" if match.group("mark") else match.group()


def _findings(findings: Sequence[Finding]) -> str:
    """A line a finding; where contrasts of arms make them many, a table of those on one estimate each."""
    lines = [f for f in findings if f.several or not f.row.contrast or f.verdict == "undefined"]
    compared = [finding for finding in findings if finding not in lines]
    if len(compared) <= _MANY:
        lines, compared = list(findings), []
    parts = []
    if compared:
        columns = ("Verdict", "Arm", "Control", "Measure", "Estimate", "Unit")
        controlled = any(finding.row.positive_control for finding in compared)
        rows = tuple(
            (
                verdict_name(finding), finding.row.arm, finding.row.contrast,
                wording.term_name(finding.row.term).removesuffix(" beyond control"),
                wording.cell(finding.row), wording.unit_name(finding.row) or "–",
                *((wording.POSITIVE_CONTROL.get(finding.row.positive_control, "–"),) if controlled else ()),
            )
            for finding in compared
        )  # fmt: skip
        table = Table("", "", (*columns, "Positive control") if controlled else columns, rows)
        parts.append(_markdown_grid(table) + (f"\n\n{escape(table.note)}" if table.note else ""))
    if lines:
        parts.append("\n".join(f"- {verdict_name(finding)}: {escape(finding.sentence)}" for finding in lines))
    return "\n\n".join(parts)


def _markdown_grid(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join(
        "| " + " | ".join(cells if cells == "---" else escape(cells) for cells in line) + " |" for line in lines
    )
