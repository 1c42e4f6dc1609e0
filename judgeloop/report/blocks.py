"""Parts of a page as plain values: what the templates show of figures, tables, findings and cases. No HTML is made here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pandas as pd

from judgeloop.report import wording
from judgeloop.report.cases import Group
from judgeloop.report.figure import Figure, Spec
from judgeloop.report.palette import Style
from judgeloop.report.tables import Table

FOLD = 700
"""Characters of a text shown before it is folded."""
CAP = 4000
"""Characters of a text that the page holds at most; the tables hold the whole."""
ON_PAPER = 2
"""Cases of a group that are printed; the page says how many are left out."""
DATA_LIMIT = 60_000
"""Longest inline CSV in characters; longer data stand in estimates.csv alone."""
_TABLE_ROWS = 120
_LONG_CELL = 24
"""Characters from which a cell of words needs a width of its own; from half as many a smaller one."""
_MOST_CHOICES = 60
_CODE = re.compile(r"`([^`]{1,80})`")
_GLYPHS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★", "hexagon": "⬢", "x-thin-open": "✕",
    "cross-thin-open": "✚", "line-ns-open": "┃",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """An answer on a card: ``chip`` is its verdict in a word; ``lines`` and ``folded`` are (lead or "", sentence)."""

    title: str
    tone: str
    chip: str
    headline: str
    lines: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """A file that stands in the page itself, as an address that needs no server."""

    name: str
    address: str
    words: str


@dataclass(frozen=True, slots=True)
class FigureData:
    """The numbers behind a figure, as a table and as files."""

    table: Table
    downloads: tuple[Download, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter of the cases: its name, its title and what can be chosen."""

    name: str
    title: str
    options: tuple[str, ...]


def specs(figures: Iterable[Figure]) -> dict[str, Spec]:
    """The plots of the figures by the id of their place, as ``shell.frame`` takes them."""
    return {plot_id(figure, n): panel.spec for figure in figures for n, panel in enumerate(figure.panels)}


def plot_id(figure: Figure, place: int) -> str:
    """The id of the place of a figure's panel."""
    return f"plot-{figure.name}-{place}"


def figure_data(figure: Figure) -> FigureData:
    """What was plotted: as a table, its first rows where they are many, and as files."""
    data = figure.data()
    more = f" The first {_TABLE_ROWS} of {len(data)} rows." if len(data) > _TABLE_ROWS else ""
    table = Table(
        f"Data: {figure.title}",
        f"The numbers of this figure.{more}",
        tuple(map(str, data.columns)),
        tuple(tuple(map(_plain, row)) for row in data.head(_TABLE_ROWS).itertuples(index=False)),
    )
    files = [csv_download(data, f"{figure.name}.csv", "Data (CSV)")]
    if figure.traces is not None:
        files.append(csv_download(figure.traces, f"{figure.name}-replicates.csv", "Replicates (CSV)"))
    return FigureData(table, tuple(file for file in files if file))


def _plain(value: object) -> str:
    if value is None or value is pd.NA or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:g}" if value.is_integer() else f"{value:.4g}"
    return str(value)


def csv_download(frame: pd.DataFrame, name: str, words: str) -> Download | None:
    """The frame as a CSV file; None where it is too long to stand in the page."""
    content = wording.visible(frame.to_csv(index=False, lineterminator="\n"))
    if len(content) > DATA_LIMIT:
        return None
    return Download(name, f"data:text/csv;charset=utf-8,{quote(content)}", words)


def cell_kind(cell: str) -> str:
    """How a table's cell is set: hash, number, words (long), phrase (of middling length), or "" for any other."""
    if cell.startswith("sha256:"):
        return "hash"
    if cell[:1] in "−-0123456789" and len(cell) < 34:
        return "number"
    return "words" if len(cell) > _LONG_CELL else "phrase" if len(cell) > _LONG_CELL // 2 else ""


def code_spans(sentence: str) -> list[str]:
    """The sentence in pieces: words and, at every odd place, a setting or command that stood between backticks."""
    return _CODE.split(sentence)


def glyph(style: Style) -> str:
    """An arm's marker as a character."""
    return _GLYPHS[style.marker]


def choices(groups: Sequence[Group]) -> list[Choice]:
    """The filters by which the cases can be told apart; none where there is nothing to choose."""
    cases = [case for group in groups for case in group.cases]
    found = (
        ("kind", "Kind", {group.name for group in groups}),
        ("arm", "Arm", {case.arm for case in cases}),
        ("category", "Category", {case.category for case in cases}),
    )
    options = [(name, title, tuple(sorted(values - {""}))[:_MOST_CHOICES]) for name, title, values in found]
    return [Choice(*choice) for choice in options if len(choice[-1]) > 1]
