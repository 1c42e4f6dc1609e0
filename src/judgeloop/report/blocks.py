"""Parts of a page: figures with their numbers, tables, folded texts. Every text goes through ``shell.text``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.figure import Figure, Spec
from judgeloop.report.overview import Table
from judgeloop.report.palette import Style
from judgeloop.report.shell import text

FOLD = 700
"""Characters of a text shown before it is folded."""
CAP = 4000
"""Characters of a text that the page holds at most; the tables hold the whole."""
DATA_LIMIT = 60_000
"""Longest inline CSV in characters; longer data stand in estimates.csv alone."""
_TABLE_ROWS = 120
_LONG_CELL = 24
"""Characters from which a cell of words needs a width of its own; from half as many a smaller one."""
_GLYPHS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★", "hexagon": "⬢", "x-thin-open": "✕",
    "cross-thin-open": "✚", "line-ns-open": "┃",
}  # fmt: skip


def specs(figures: Iterable[Figure]) -> dict[str, Spec]:
    """The plots of the figures by the id of their place, as ``shell.frame`` takes them."""
    return {_plot_id(figure, n): panel.spec for figure in figures for n, panel in enumerate(figure.panels)}


def section(tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    """Tables, then figures, as one body."""
    return "\n".join([*map(table_block, tables), *map(figure_block, figures)])


def table_block(table: Table) -> str:
    """A table with its title and caption, as a block of its own."""
    head = f"<h3>{text(table.title)}</h3>"
    return f'<div class="block">{head}{grid(table.columns, table.rows, f"{table.caption} {table.note}".rstrip(), table.title)}</div>'


def grid(columns: Iterable[str], rows: Iterable[Sequence[str]], caption: str, name: str) -> str:
    """A table whose cells are formatted already; ``name`` is what a screen reader calls the region."""
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    said = f'<p class="caption">{text(caption)}</p>' if caption else ""
    # A table wider than the screen scrolls, and a scrolling region must be reachable by keyboard. What the table is stands
    # outside it: within, it would scroll away with the columns.
    return (
        f'{said}<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}"><table><caption class="heard">{text(name)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: str) -> str:
    if value.startswith("sha256:"):
        return f'<td class="hash">{text(value)}</td>'
    if value[:1] in "−-0123456789" and len(value) < 34:
        return f'<td class="number">{text(value)}</td>'
    kind = "words" if len(value) > _LONG_CELL else "phrase" if len(value) > _LONG_CELL // 2 else ""
    return f'<td class="{kind}">{text(value)}</td>' if kind else f"<td>{text(value)}</td>"


def figure_block(figure: Figure) -> str:
    """A figure: legend, places for its plots, its data to download, and what it shows in words and as a table."""
    keys = "".join(f"<li>{_key(style)}<span>{text(name)}</span></li>" for name, style in figure.legend)
    legend = f'<ul class="keys" aria-label="Legend">{keys}</ul>' if keys else ""
    panels = "".join(
        f'<div class="panel">{f"<h4>{text(panel.title)}</h4>" if panel.title else ""}'
        f'<div class="plot" id="{_plot_id(figure, n)}" style="min-height:{int(panel.spec["layout"]["height"])}px" role="img" tabindex="0" aria-label="{text(f"{figure.title}. {panel.title}")}"></div></div>'
        for n, panel in enumerate(figure.panels)
    )
    if not figure.panels and not figure.rows:
        return f'<figure id="figure-{figure.name}"><h3>{text(figure.title)}</h3><figcaption>{text(figure.caption)}</figcaption></figure>'
    data = figure.data()
    shown = data.head(_TABLE_ROWS)
    more = f" The first {_TABLE_ROWS} of {len(data)} rows." if len(data) > _TABLE_ROWS else ""
    numbers = grid(
        map(str, shown.columns),
        ([_plain(v) for v in row] for row in shown.itertuples(index=False)),
        f"The numbers of this figure.{more}",
        f"Data: {figure.title}",
    )
    links = csv_link(data, f"{figure.name}.csv", "Data (CSV)")
    if figure.traces is not None:
        links += csv_link(figure.traces, f"{figure.name}-replicates.csv", "Replicates (CSV)")
    wide = " one" if len(figure.panels) == 1 else " two" if figure.columns == 2 else ""
    plots = f'<div class="panels{wide}">{panels}</div>' if panels else ""
    return (
        f'<figure id="figure-{figure.name}"><h3>{text(figure.title)}</h3><figcaption>{text(figure.caption)}</figcaption>{legend}{plots}'
        f'<div class="under">{links}<details><summary>In words and as a table</summary><p>{text(figure.alternative)}</p>{numbers}</details></div></figure>'
    )


def _plot_id(figure: Figure, place: int) -> str:
    return f"plot-{figure.name}-{place}"


def _key(style: Style) -> str:
    colour = f"--key:var(--{style.colour.removeprefix('@')})"
    if style.marker == "bar":
        return f'<span class="swatch" style="{colour}" aria-hidden="true"></span>'
    if not style.dash:
        return f'<span class="mark" style="{colour}" aria-hidden="true">{_GLYPHS[style.marker]}</span>'
    dash = {"dash": "dashed", "longdash": "dashed", "dot": "dotted"}.get(style.dash, "solid")
    return (
        f'<span class="dash" style="{colour};--dash:{dash}" aria-hidden="true"></span>'
        f'<span class="mark" style="{colour}" aria-hidden="true">{_GLYPHS[style.marker]}</span>'
    )


def _plain(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and not value.is_integer()
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def csv_link(frame: pd.DataFrame, name: str, words: str) -> str:
    """A download of the frame that needs no server; empty where it is too long to stand in the page."""
    content = wording.visible(frame.to_csv(index=False, lineterminator="\n"))
    if len(content) > DATA_LIMIT:
        return ""
    return f'<a download="{text(name)}" href="data:text/csv;charset=utf-8,{quote(content)}">{text(words)}</a>'


def folded(content: str) -> str:
    """A text of the run: its beginning, the rest folded, and what is beyond the cap counted."""
    if not content.strip():
        return '<p class="left-out">(empty)</p>'
    if len(content) <= FOLD:
        return f'<div class="text" dir="auto">{text(content)}</div>'
    kept = content[:CAP]
    rest = (
        f'<p class="left-out">{len(content) - CAP:,} more characters are left out here; the candidates table holds them.</p>'
        if len(content) > CAP
        else ""
    )
    return (
        f'<div class="text" dir="auto">{text(kept[:FOLD])} …</div><details class="more"><summary>Show the rest ({len(content):,} characters in all)</summary>'
        f'<div class="text" dir="auto">{text(kept[FOLD:])}</div>{rest}</details>'
    )
