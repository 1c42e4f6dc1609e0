"""The report as text: one screen in a terminal, and report.md. Both begin with the four answers."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from judgeloop.report import first_screen, wording
from judgeloop.report.answers import QuestionAnswer, answers, headline
from judgeloop.report.claims import QUESTIONS, Finding, Standing, margin_of, verdict_name, verdict_of
from judgeloop.report.reading import POSITIVE, Reading
from judgeloop.report.tables import BEYOND, DRIFT, Table, caveats, environment_rows

_COLOURS: dict[Standing, str] = {
    "found": "bold red",
    "equivalent": "green",
    "unconfirmed": "yellow",
    "unclear": "yellow",
}
_TONES = {"found": "bold red", "open": "yellow", "calm": "green"}
_ROWS, _FEW_ROWS = 8, 3
_SENTENCES = 6
_OF_ANSWER = 2
"""Sentences of an answer on the one screen, but for what to change."""
SCREEN = 38
"""Rows of the one screen."""
_TRACK = 41
_MOST_BARS = 6
"""More bars of drift than this are those of the last generation alone."""
_MANY = 3
"""More findings on a question than this are a table in report.md."""

# An interval in brackets, and an underscore within a word, are no markup anywhere; all else that could be is escaped.
_NUMBER = r"−?\d[\d.,]*(?:e−?\d+)?"
_SPECIAL = re.compile(
    rf"(?P<interval>\[{_NUMBER}, {_NUMBER}\](?![(\[:]))|(?P<within>(?<=[^\W_])_(?=[^\W_]))|(?P<mark>[\\`*_\[\]<>|~#&])"
)


def render_terminal(
    reading: Reading,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[Finding],
    tables: Sequence[Table],
    room: int = SCREEN,
) -> Group:
    """A rich renderable of one screen of ``room`` rows: the headline, its pictures as bars, the four answers; then as many of the tables
    and findings as find room. The rest is in report.md."""
    four = answers(reading, findings)
    top = Text.assemble((wording.label(reading.name), "bold"), "  ")
    top.append(
        " · ".join(f"{name.lower()} {wording.label(value, 120)}" for name, value in facts if name != "Run"), style="dim"
    )
    parts: list[RenderableType] = [top]
    if sentences := headline(reading, findings, four):
        parts.append(Text(sentences, style="bold"))
    parts += [Padding(bars, (1, 0, 0, 0)) for bars in _pictures(reading, findings)]
    parts.append(Padding(_answers(four), (1, 0, 0, 0)))
    left = room - sum(map(_rows, parts))
    # Where arms have a control, drift beyond it is the table to look at; drift since generation 0 is in report.md.
    titles = {table.title for table in tables}
    for table in tables:
        if table.title == DRIFT and BEYOND in titles:
            continue
        # The screen leaves out the panel: the findings below name it.
        drawn = grid(table.without("Panel"))
        if _rows(drawn) > left:
            drawn = grid(table.without("Panel"), _FEW_ROWS)
        if table.whole or table.needed or _rows(drawn) <= left:
            parts.append(drawn)
            left -= _rows(drawn)
    for most in range(min(_SENTENCES, len(findings)), 0, -1):
        listed = Padding(_sentences(findings, most), (1, 0, 0, 0))
        if _rows(listed) <= left:
            parts.append(listed)
            break
    return Group(*parts)


def _rows(part: RenderableType) -> int:
    return len(as_text(part).splitlines())


def _pictures(reading: Reading, findings: Sequence[Finding]) -> list[RenderableType]:
    """The first screen's pictures as bars: biases, and drift of length by arm, with generations where they are few."""
    drawn: list[RenderableType] = []
    if (dots := first_screen.biases(findings)) is not None:
        margin = f"; margin ±{dots.margin:g}" if dots.margin else ""
        drawn.append(_bars(f"{dots.title}, {dots.unit}{margin}", dots.dots))
    control, by_arm = first_screen.drifts(reading)
    last = [own[-1].generation for own in by_arm.values()]
    whole = sum(map(len, by_arm.values())) <= _MOST_BARS
    marks: list[first_screen.Dot] = []
    for arm, own in by_arm.items():
        for row in own if whole else own[-1:]:
            name = wording.label(arm, 20) + (f", generation {row.generation}" if whole else "")
            name += " (positive control)" if reading.controls.get(arm) == POSITIVE else ""
            known = reading.controls.get(arm) == POSITIVE
            standing: Standing = "described" if known else verdict_of(row, margin_of(row))
            marks.append(first_screen.Dot(name, row, standing, wording.signed_points(row)))
    if marks:
        unit = wording.unit_name(marks[0].row)
        since = f"beyond {wording.label(control, 24)}" if control else "since generation 0"
        when = "" if whole else f" by generation {max(generation or 0 for generation in last)}"
        drawn.append(_bars(f"Drift of length {since}{when}, {unit}", marks))
    return drawn


def _bars(title: str, dots: Sequence[first_screen.Dot]) -> RenderableType:
    """A line an estimate on one axis around 0: its interval heavy, its mark filled where it is found."""
    edge = first_screen.edge_of(
        [end for dot in dots for end in (dot.place, *(dot.ends or ()))], [dot.row for dot in dots]
    )
    screen = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    screen.add_column(max_width=34)
    screen.add_column(no_wrap=True, width=_TRACK)
    screen.add_column(justify="right", no_wrap=True)
    screen.add_column(style="dim", no_wrap=True)
    for dot in dots:
        style, digits = _TONES.get(dot.tone, ""), 2 if edge < 5 else 1
        limits = f"[{', '.join(wording.number(end, digits) for end in dot.ends)}]" if dot.ends else ""
        screen.add_row(Text(dot.name), Text(_track(dot, edge), style=style), Text(dot.value, style=style), Text(limits))
    span = f"├ {wording.tick(-edge)} … {wording.tick(edge, sign=True)} ┤"
    return Group(Text.assemble((title, "bold"), (f"  {span}", "dim")), screen)


def _track(dot: first_screen.Dot, edge: float) -> str:
    def place(value: float) -> int:
        return 1 + round((max(-edge, min(edge, value)) + edge) / (2 * edge) * (_TRACK - 3))

    line = ["─"] * _TRACK
    if dot.ends:
        for column in range(place(dot.ends[0]), place(dot.ends[1]) + 1):
            line[column] = "━"
    line[0], line[-1], line[place(0.0)] = "├", "┤", "┼"
    line[place(dot.place)] = "●" if dot.standing == "found" else "○"
    return "".join(line)


def _answers(four: Sequence[QuestionAnswer]) -> RenderableType:
    """The four answers with their first sentence; of what to change with every one."""
    screen = RichTable(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    screen.add_column(max_width=20)
    screen.add_column()
    for answer in four:
        most = len(answer.sentences) if answer.advice else _OF_ANSWER
        text = Text(answer.word, style=_TONES.get(answer.tone, ""))
        text.append("  " + " ".join(answer.sentences[:most]).replace("`", ""), style="default not bold")
        if len(answer.sentences) > most:
            text.append(f" … {len(answer.sentences) - most} more in report.md", style="dim not bold")
        screen.add_row(Text(answer.question, style="bold"), text)
    return screen


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
    screen = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0))
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
    more = f"… {len(body) - most} more in {file}" if len(body) > most else ""
    # Below the grid and not within it, where a long line would widen a column.
    below = [Text(line, style="dim") for line in (more, table.note) if line]
    return Padding(Group(Text(title, style="bold"), screen, *below), (1, 0, 0, 0))


def _sentences(findings: Sequence[Finding], most: int) -> RenderableType:
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
    first = sorted(findings, key=lambda finding: (nth[id(finding)], _is_plain(finding), order[id(finding)]))[:most]
    first.sort(key=lambda finding: (list(QUESTIONS).index(finding.question), order[id(finding)]))
    for finding in first:
        grid.add_row(
            Text(verdict_name(finding), style=_COLOURS.get(finding.verdict, "dim")),
            Text(wording.label(finding.sentence, 400)),
        )
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
    four = answers(reading, findings)
    if sentences := headline(reading, findings, four):
        parts.append(f"**{escape(sentences)}**")
    for answer in four:
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
