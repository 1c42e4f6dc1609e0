"""The one screen at the end of a run: what was run, the drift, the judge, a sentence a finding."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from judgeloop.report import wording
from judgeloop.report.glance import Answer, answers
from judgeloop.report.reading import Reading
from judgeloop.report.tables import BEYOND, DRIFT, Table
from judgeloop.report.verdicts import QUESTIONS, Finding, Standing, verdict_name

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


def render(
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


def _answers(four: Sequence[Answer]) -> RenderableType:
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
