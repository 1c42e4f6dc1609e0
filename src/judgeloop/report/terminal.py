"""The one screen at the end of a run: what was run, the drift, the judge, a sentence a finding."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from judgeloop.report import wording
from judgeloop.report.overview import Table
from judgeloop.report.reading import Reading
from judgeloop.report.verdicts import QUESTIONS, Finding, Verdict, verdict_name

_COLOURS: dict[Verdict, str] = {
    "found": "bold red",
    "equivalent": "green",
    "unconfirmed": "yellow",
    "unclear": "yellow",
}
_ROWS = 14
_SENTENCES = 10


def render(
    reading: Reading, facts: Sequence[tuple[str, str]], found: Sequence[Finding], tables: Sequence[Table]
) -> Group:
    """A rich renderable of one screen; long tables keep their last generations, long lists of findings say what is left."""
    headline = Text.assemble((wording.label(reading.name), "bold"), "  ")
    headline.append(
        " · ".join(f"{name.lower()} {wording.label(value, 120)}" for name, value in facts if name != "Run"), style="dim"
    )
    parts: list[RenderableType] = [headline]
    parts += [_grid(table) for table in tables]
    parts.append(Padding(_sentences(found), (1, 0, 0, 0)))
    return Group(*parts)


def as_text(renderable: RenderableType, width: int = 100) -> str:
    """What the renderable prints, without colour."""
    buffer = io.StringIO()
    Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False).print(renderable)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def _grid(table: Table) -> RenderableType:
    rows = table.rows
    if len(rows) > _ROWS and "Generation" in table.columns:
        place = table.columns.index("Generation")
        last = sorted({int(row[place]) for row in rows})[
            -max(1, _ROWS * len({row[place] for row in rows}) // len(rows)) :
        ]
        rows = tuple(row for row in rows if int(row[place]) in last)
    # The screen names no panel: the findings below say it.
    kept = [n for n, column in enumerate(table.columns) if column != "Panel"]
    columns, rows = [table.columns[n] for n in kept], tuple(tuple(row[n] for n in kept) for row in rows)
    grid = RichTable(
        title=Text(table.title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
    )
    for column in columns:
        grid.add_column(Text(column, style="dim"), overflow="fold")
    previous: tuple[str, ...] = ()
    for row in rows[:_ROWS]:
        shown = [
            "" if previous[: n + 1] == row[: n + 1] and columns[n] in ("Arm", "Control", "Judge") else cell
            for n, cell in enumerate(row)
        ]
        grid.add_row(*(Text(cell) for cell in shown))
        previous = row
    if len(rows) > _ROWS:
        grid.add_row(Text(f"… {len(rows) - _ROWS} more in report.md", style="dim"))
    if table.note:
        grid.caption, grid.caption_justify = Text(table.note, style="dim"), "left"
    return Padding(grid, (1, 0, 0, 0))


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
    # What is claimed comes first when the screen is short; otherwise the questions' order.
    order = {id(finding): place for place, finding in enumerate(found)}
    shown = sorted(found, key=lambda finding: (finding.verdict in ("described", "undefined"), order[id(finding)]))[
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
