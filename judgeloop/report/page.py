"""The HTML pages: the drift report, the page around a report that grows, and a result's fragment in a notebook.

A page is one file that needs nothing else, in the reader's theme, written by templates alone.

Every value in a template goes through ``text`` unless it is Markup, and Markup is made in this file alone: of escaped
text, of the page's own style sheets and scripts, and of JSON that no HTML parser can read. A content security policy
allows the page's own two scripts by their hashes and no request at all, so that even a text that slipped through could
neither run nor call home.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd

from judgeloop.report import figure, wording
from judgeloop.report.answers import answers, headline
from judgeloop.report.cases import Group
from judgeloop.report.claims import QUESTIONS, Finding, Standing, leading, verdict_name
from judgeloop.report.figure import Figure, Spec, Style
from judgeloop.report.reading import Reading
from judgeloop.report.tables import Table, caveats, environment_rows, methods_used
from judgeloop.report.text import kind_of, unanswered
from judgeloop.rundir import as_csv
from judgeloop.stats.estimate import Estimate

if TYPE_CHECKING:
    from jinja2 import Environment

# Parts of a page as plain values, which the templates show

FOLD = 700
"""Characters of a text shown before it is folded."""
CAP = 4000
"""The most characters of a text in the page; the tables hold the whole."""
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
    "cross-thin-open": "✚", "line-ns-open": "┃", "circle-open": "○", "square-open": "□", "diamond-open": "◇",
    "triangle-up-open": "△", "star-open": "☆", "hexagon-open": "⬡",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Card:
    """A card with an answer: ``chip`` is its verdict in a word, ``lines`` (and ``folded``, shown on request) are (verdict or "",
    sentence)."""

    title: str
    tone: str
    chip: str
    headline: str
    lines: tuple[tuple[str, str], ...]
    folded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Download:
    """A file within the page: a data address, which needs no server."""

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
    """The plots of the figures by the id of their place, as ``page_frame`` takes them."""
    return {plot_id(figure, n): panel.spec for figure in figures for n, panel in enumerate(figure.panels)}


def plot_id(figure: Figure, place: int) -> str:
    """The id of the place of a figure's panel."""
    return f"plot-{figure.name}-{place}"


def figure_data(figure: Figure) -> FigureData:
    """The numbers of a figure as a table (its first rows, where there are many) and as files."""
    data = figure.data()
    more = f" The first {_TABLE_ROWS} of {len(data)} rows." if len(data) > _TABLE_ROWS else ""
    table = Table(
        f"Data: {figure.title}",
        f"The numbers of this figure.{more}",
        tuple(map(str, data.columns)),
        tuple(tuple(map(_plain, row)) for row in data.head(_TABLE_ROWS).itertuples(index=False, name=None)),
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
    content = wording.visible(as_csv(frame))
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
    filters = (
        ("kind", "Kind", {group.name for group in groups}),
        ("arm", "Arm", {case.arm for case in cases}),
        ("category", "Category", {case.category for case in cases}),
    )
    options = [(name, title, tuple(sorted(values - {""}))[:_MOST_CHOICES]) for name, title, values in filters]
    return [Choice(*choice) for choice in options if len(choice[-1]) > 1]


# The frame of a page, and what goes into it unescaped

_PERCENT = re.compile(r"(?<=\d) % (?=interval|prediction limits|power)")
_SPLIT = re.compile(r"(?<=\(\d) : (?=\d)|(?<=\(\d\d) : (?=\d)")
_PLAIN = re.compile(r"[\w .,:;()\[\]/+=–−-]*")
_INVISIBLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page. ``name`` is its anchor and its block in the page's template, ``title`` plain words."""

    name: str
    title: str


def page_frame(
    template: str,
    *,
    kind: str,
    name: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    specs: Mapping[str, Mapping[str, Any]],
    **content: Any,
) -> str:
    """The whole page, by a template that extends base.html. ``kind`` says what it is ("drift report"), ``name`` whose,
    ``facts`` are (label, value) under the title, ``content`` is what the sections' blocks show.

    ``specs``: the id of a plot's place → Plotly figure as a mapping, colours as tokens (``@name``, see ``figure.colours``).
    """
    themes = {"light": figure.colours(), "dark": figure.colours(dark=True)}
    return render(
        template,
        policy=security_policy(f"{_plotly()[0]} {hash_of(file('page.js'))}", "img-src data: blob:"),
        kind=kind,
        name=name,
        facts=facts,
        sections=sections,
        data={"figures": specs, "colours": themes, "onPaper": ON_PAPER},
        **content,
    )


def render(template: str, **content: Any) -> str:
    """A template of this room filled with plain values."""
    return environment().get_template(template).render(content)


@cache
def environment() -> Environment:
    """The templates, with what they may call. Only here is text declared to be HTML already."""
    import jinja2
    from markupsafe import Markup

    def escaped(value: object) -> Markup:
        return value if isinstance(value, Markup) else Markup(text(str(value)))

    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("judgeloop.report"),
        autoescape=True,
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    templates.filters |= {
        "cell_kind": cell_kind,
        "code_spans": code_spans,
        "figure_data": figure_data,
        "glyph": glyph,
        "grouped": "{:,}".format,
        "json": lambda content: Markup(_json(content)),
        "label": wording.label,
    }
    templates.globals |= {
        "asset": lambda name: Markup(file(name)),
        "packed_plotly": lambda: Markup(_plotly()[1]),
        "plot_id": plot_id,
        "style_sheet": lambda: Markup(figure.style_sheet()),
        "CAP": CAP,
        "FOLD": FOLD,
        "ON_PAPER": ON_PAPER,
    }
    return templates


def text(value: str) -> str:
    """Any text as HTML text or attribute value: control characters visible, markup escaped, direction marks named."""
    if _PLAIN.fullmatch(value) and " : " not in value:
        return value  # most cells of a table: nothing in them needs a second look
    # "95 %" and "(94 : 6)" are not broken across lines.
    shown = _SPLIT.sub("\u00a0:\u00a0", _PERCENT.sub("\u00a0% ", html.escape(wording.visible(value), quote=True)))
    return _INVISIBLE.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", shown)


def security_policy(scripts: str, *more: str) -> str:
    """A page's content security policy: its own styles, the scripts with those hashes, and the directives in ``more``; nothing else."""
    fixed = ("style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'")
    return "; ".join(["default-src 'none'", f"script-src {scripts}", *more, *fixed])


@cache
def file(name: str) -> str:
    """A style sheet or a script of this room."""
    return resources.files("judgeloop.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js as its hash and as packed text: a third of its size, and nothing in it that HTML could read."""
    from plotly.offline import get_plotlyjs

    source = str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")
    # A tenth longer than at the highest level, in a third of the time.
    return hash_of(source), base64.b64encode(zlib.compress(source.encode(), 3)).decode()


def hash_of(script: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """JSON that is safe inside a script element: ASCII, and no character that HTML reads."""
    dumped = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# The drift report

_TONES: dict[Standing, str] = {"found": "found", "unconfirmed": "open", "unclear": "open", "equivalent": "calm"}
_CSV_COLUMNS = ("scope", "judge", "arm", "contrast", "generation", "panel", "category", "term", "variant", "estimate", "conf_low", "conf_high", "p_adjusted", "n", "n_replicates", "status")  # fmt: skip
_OPEN = 3
"""The most sentences on a card, beside its headline, that are not folded."""
_MOST_YAML = 40_000


def report_page(
    reading: Reading,
    facts: Sequence[tuple[str, str]],
    findings: Sequence[Finding],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, Sequence[Figure]],
    cases: Sequence[Group],
) -> str:
    """The drift report as HTML. ``facts``: (label, value) under the title; ``tables`` and ``figures`` by section (judge, model);
    ``cases`` by their kind."""
    tables = {"judge": (), "model": (), **tables, "methods": _methods(reading)}
    figures = {"judge": (), "model": (), "glance": (), **figures}
    four = answers(reading, findings)
    sections = [
        Section("glance", "At a glance"),
        *([Section("judge", "The judge")] if tables["judge"] or figures["judge"] else []),
        *([Section("model", "The model")] if tables["model"] or figures["model"] else []),
        Section("findings", "Every finding"),
        *([Section("cases", "Cases to read")] if cases else []),
        Section("methods", "How this was made"),
    ]
    estimates = pd.DataFrame([{column: getattr(row, column) for column in _CSV_COLUMNS} for row in reading.estimates], columns=list(_CSV_COLUMNS))  # fmt: skip
    return page_frame(
        "report.html",
        kind=kind_of(reading),
        name=reading.name,
        facts=[fact for fact in facts if fact[0] != "Run"],
        sections=sections,
        specs=specs(figure for section in figures.values() for figure in section),
        headline=headline(reading, findings, four),
        answers=four,
        cards=_cards(findings),
        unanswered=[*_not_known(findings), *unanswered(reading, findings)],
        tables=tables,
        figures=figures,
        groups=cases,
        choices=choices(cases),
        caveats=caveats(reading),
        estimates=len(estimates),
        every_estimate=csv_download(estimates, "estimates.csv", f"All {len(estimates):,} estimates (CSV)"),
        experiment=reading.experiment_text[:_MOST_YAML],
    )


def _cards(findings: Sequence[Finding]) -> list[Card]:
    """A card for each question that has a finding with a number; the others are told in a line (``_not_known``)."""
    return [_card(title, group) for title, group in _by_question(findings) if group and not _all_undefined(group)]


def _not_known(findings: Sequence[Finding]) -> list[str]:
    """The questions whose findings are all undefined, each with the first one's reason."""
    return [
        f"{title} ({wording.reason(group[0].row.note, 160) or 'undefined'})"
        for title, group in _by_question(findings)
        if group and _all_undefined(group)
    ]


def _all_undefined(findings: Sequence[Finding]) -> bool:
    return all(finding.verdict == "undefined" and not finding.with_number for finding in findings)


def _by_question(findings: Sequence[Finding]) -> list[tuple[str, list[Finding]]]:
    """(question, its findings), also of questions without one."""
    return [(title, [f for f in findings if f.question == name]) for name, title in QUESTIONS.items()]


def _card(title: str, findings: Sequence[Finding]) -> Card:
    first = leading(findings)
    if findings[0].question == "content" and findings[0].verdict == first.verdict:
        first = findings[0]  # the findings on content are sorted by harm
    lines = tuple((verdict_name(finding), finding.sentence) for finding in findings if finding is not first)
    return Card(
        title, _TONES.get(first.verdict, "plain"), verdict_name(first), first.sentence, lines[:_OPEN], lines[_OPEN:]
    )


def _methods(reading: Reading) -> list[Table]:
    """The estimators, and what the report was made from."""
    caption = "Hashes, versions, seeds and the models that the endpoints reported."
    listed = (
        Table("Methods", "Each estimator, and the terms it was used for.", ("Method", "Terms"), tuple(methods_used(reading))),
        Table("Made from", caption, ("What", "Value"), tuple(environment_rows(reading))),
    )  # fmt: skip
    return [table for table in listed if table.rows]


# A run that is still going on


def live_page(name: str) -> str:
    """The page around the growing report of the run ``name``: how far the run is, and the report in a frame.

    It asks ``state`` every two seconds, a JSON mapping: ``version`` (changes when
    there is another report; empty where there is none yet), ``headline, detail, caution`` (sentences), ``done`` and ``of``
    (turns); and loads ``report``.
    """
    policy = security_policy(hash_of(file("live.js")), "connect-src 'self'", "frame-src 'self'")
    return render("live.html", policy=policy, name=name)


# In a notebook

_MOST_FINDINGS = 40
_CLAIMS = ("found", "equivalent")


@dataclass(frozen=True, slots=True)
class FindingRow:
    """A finding as a row of the fragment's table; ``of``: the judge, or the arm and its contrast, and the generation."""

    measure: str
    term: str
    of: str
    estimate: str
    interval: str
    verdict: str
    is_claim: bool


def notebook_fragment(name: str, facts: Sequence[tuple[str, str]], findings: Sequence[Finding]) -> str:
    """A result in a notebook: name, ``facts`` as (label, value), a row a finding under its question, and the findings in words.

    Without script or style sheet, for notebooks are shown where neither is allowed.
    """
    listed = [finding for _, group in _by_question(findings) for finding in group][:_MOST_FINDINGS]
    groups = [(title, [_finding_row(finding) for finding in group]) for title, group in _by_question(listed)]
    return render(
        "notebook.html",
        name=name,
        facts=[fact for fact in facts if fact[0] != "Run"],
        level=_interval_title(findings),
        groups=[group for group in groups if group[1]],
        more=len(findings) - len(listed),
        sentences=[finding.sentence for finding in findings[:_MOST_FINDINGS]],
    )


def _interval_title(findings: Sequence[Finding]) -> str:
    levels = {finding.row.conf_level for finding in findings if finding.row.conf_level is not None}
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "Interval"


def _finding_row(finding: Finding) -> FindingRow:
    row = finding.row
    return FindingRow(
        wording.term_name(row.term), row.term, _subject(row), _estimate(row), _interval(row), verdict_name(finding),
        finding.verdict in _CLAIMS,
    )  # fmt: skip


def _subject(row: Estimate) -> str:
    """What the estimate is of: the judge, or the arm and its contrast; then generation and category."""
    name = wording.label(row.judge if row.scope == "judge" and row.judge else row.arm or row.judge)
    if row.contrast:
        name += f" against {wording.label(row.contrast)}"
    generation = "" if row.generation is None else f"generation {row.generation}"
    return ", ".join(part for part in (name, generation, wording.label(row.category)) if part)


def _estimate(row: Estimate) -> str:
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    return f"{wording.signed_figure(row)} {wording.unit_name(row)}".rstrip()


def _interval(row: Estimate) -> str:
    if row.conf_low is None or row.conf_high is None or row.status == "undefined":
        return "–"
    return f"{wording.figure(row, row.conf_low)} to {wording.figure(row, row.conf_high)}"
