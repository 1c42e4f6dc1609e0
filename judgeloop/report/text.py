"""The one screen at the end of a run: what was run, the drift, the judge, a sentence a finding."""

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
_SAID = 2


def render_terminal(
    reading: Reading, facts: Sequence[tuple[str, str]], found: Sequence[Finding], tables: Sequence[Table]
) -> Group:
    """A rich renderable of one screen: the four answers, the tables' last rows, and what was found; the rest is in report.md."""
    headline = Text.assemble((wording.label(reading.name), "bold"), "  ")
    headline.append(
        " · ".join(f"{name.lower()} {wording.label(value, 120)}" for name, value in facts if name != "Run"), style="dim"
    )
    parts: list[RenderableType] = [headline, Padding(_answers(answers(reading, found)), (1, 0, 0, 0))]
    # Where arms have a control, what they drift beyond it is the table to look at; the levels are in report.md.
    titles = {table.title for table in tables}
    # The screen names no panel: the findings below say it.
    parts += [grid(one.without("Panel")) for one in tables if not (one.title == DRIFT and BEYOND in titles)]
    parts.append(Padding(_sentences(found), (1, 0, 0, 0)))
    return Group(*parts)


def _answers(four: Sequence[QuestionAnswer]) -> RenderableType:
    grid = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column(max_width=20)
    grid.add_column()
    for answer in four:
        said = Text(answer.word, style=_TONES.get(answer.tone, ""))
        said.append("  " + " ".join(answer.sentences[:_SAID]).replace("`", ""), style="default not bold")
        if len(answer.sentences) > _SAID:
            said.append(f" … {len(answer.sentences) - _SAID} more in report.md", style="dim not bold")
        grid.add_row(Text(answer.question, style="bold"), said)
    return grid


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """What the renderable prints, without colour."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def grid(table: Table, rows: int = _ROWS, file: str = "report.md") -> RenderableType:
    """The table's first rows, of generations the last; ``file`` holds the others. What a row shares with the one above it
    is not said again."""
    shown, title = table.rows, table.title
    if len(shown) > rows and "Generation" in table.columns:
        place = table.columns.index("Generation")
        every = sorted({int(row[place]) for row in shown})
        last = every[-max(1, rows * len(every) // len(shown)) :]
        shown = tuple(row for row in shown if int(row[place]) in last)
        kept = f"generation {last[0]}" if len(last) == 1 else f"generations {last[0]} to {last[-1]}"
        title += f" ({kept}; all {len(every)} in {file})"
    made = RichTable(
        title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in table.columns:
        made.add_column(Text(column, style="dim"), overflow="fold")
    previous: tuple[str, ...] = ()
    most = len(shown) if table.whole else rows
    for row in shown[:most]:
        cells = [
            "" if previous[: n + 1] == row[: n + 1] and table.columns[n] in ("Arm", "Control", "Judge") else cell
            for n, cell in enumerate(row)
        ]
        made.add_row(*map(Text, cells))
        previous = row
    if len(shown) > most:
        made.add_row(Text(f"… {len(shown) - most} more in {file}", style="dim"))
    if table.note:
        made.caption, made.caption_justify = Text(table.note, style="dim"), "left"
    return Padding(made, (1, 0, 0, 0))


def _sentences(found: Sequence[Finding]) -> RenderableType:
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
    # Every question has its first sentence before any has its second; what is claimed comes before what is not.
    order = {id(finding): place for place, finding in enumerate(found)}
    nth: dict[int, int] = {}
    for question in QUESTIONS:
        of_one = [finding for finding in found if finding.question == question]
        of_one.sort(key=lambda finding: (finding.verdict in ("described", "undefined"), order[id(finding)]))
        nth |= {id(finding): place for place, finding in enumerate(of_one)}
    shown = sorted(found, key=lambda one: (nth[id(one)], one.verdict in ("described", "undefined"), order[id(one)]))[
        :_SENTENCES
    ]
    shown.sort(key=lambda finding: (list(QUESTIONS).index(finding.question), order[id(finding)]))
    for finding in shown:
        grid.add_row(
            Text(verdict_name(finding), style=_COLOURS.get(finding.verdict, "dim")),
            Text(wording.label(finding.sentence, 400)),
        )
    if not found:
        grid.add_row(Text("–"), Text("the estimates bear no finding"))
    if len(found) > len(shown):
        grid.add_row(Text(""), Text(f"… {len(found) - len(shown)} more in report.md", style="dim"))
    return grid


# report.md: the findings and the main tables, readable in a terminal and in a pull request.

# An interval in brackets, and an underscore within a word, are no markup anywhere; all else that could be is escaped.
_NUMBER = r"−?\d[\d.,]*(?:e−?\d+)?"
_SPECIAL = re.compile(
    rf"(?P<interval>\[{_NUMBER}, {_NUMBER}\](?![(\[:]))|(?P<within>(?<=[^\W_])_(?=[^\W_]))|(?P<mark>[\\`*_\[\]<>|~#&])"
)
_MANY = 3
"""More findings on a question than this are a table."""


def render_markdown(
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
    return f"## {escape(table.title)}\n\n{escape(f'{table.caption} {table.note}')}\n\n{_markdown_grid(table)}"


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
        parts.append(_markdown_grid(shown) + (f"\n\n{escape(shown.note)}" if shown.note else ""))
    if told:
        parts.append("\n".join(f"- {verdict_name(finding)}: {escape(finding.sentence)}" for finding in told))
    return "\n\n".join(parts)


def _markdown_grid(table: Table) -> str:
    lines = [table.columns, tuple("---" for _ in table.columns), *table.rows]
    return "\n".join(
        "| " + " | ".join(cells if cells == "---" else escape(cells) for cells in line) + " |" for line in lines
    )
