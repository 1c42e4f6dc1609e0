"""report.html: one file that needs nothing else. Every text from the run is escaped here, in the one function ``text``.

A content security policy allows the page's own two scripts by their hashes and no request at all, so that even a text
that slipped through could neither run nor call home.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from urllib.parse import quote

import pandas as pd
from plotly.offline import get_plotlyjs

from judgeloop.report import palette, wording
from judgeloop.report.cases import Case, Side
from judgeloop.report.figure import Figure
from judgeloop.report.markdown import unanswered
from judgeloop.report.methods import caveats, environment_rows, methods_used
from judgeloop.report.overview import Table
from judgeloop.report.palette import Style
from judgeloop.report.reading import Reading
from judgeloop.report.verdicts import QUESTIONS, Finding, Verdict, leading, verdict_name

FOLD = 700
"""Characters of a text shown before it is folded."""
CAP = 4000
"""Characters of a text that the page holds at most; the tables hold the whole."""
DATA_LIMIT = 60_000
"""Longest inline CSV in characters; longer data stand in estimates.csv alone."""
_TABLE_ROWS = 120
_TONES: dict[Verdict, str] = {"found": "found", "unconfirmed": "open", "unclear": "open", "equivalent": "calm"}
_GLYPHS = {
    "circle": "●", "square": "■", "diamond": "◆", "triangle-up": "▲", "star": "★", "hexagon": "⬢", "x-thin-open": "✕",
    "cross-thin-open": "✚",
}  # fmt: skip
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_INVISIBLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_EVERY = ("scope", "judge", "arm", "contrast", "generation", "panel", "category", "term", "variant", "estimate", "conf_low", "conf_high", "p_adjusted", "n", "n_replicates", "status")  # fmt: skip


def render(
    reading: Reading,
    facts: Sequence[tuple[str, str]],
    found: Sequence[Finding],
    tables: Mapping[str, Sequence[Table]],
    figures: Mapping[str, Sequence[Figure]],
    cases: Mapping[str, Sequence[Case]],
) -> str:
    """The whole page. ``tables`` and ``figures`` are by section (judge, model); ``cases`` by what they show."""
    parts = [
        ("findings", "Findings", _findings(found)),
        ("judge", "The judge", _section(tables.get("judge", ()), figures.get("judge", ()))),
        ("model", "The model", _section(tables.get("model", ()), figures.get("model", ()))),
        ("cases", "Cases to read", _cases(cases)),
        ("methods", "How this was made", _methods(reading)),
    ]
    parts = [part for part in parts if part[2]]
    drawn = {
        _plot_id(figure, n): panel.spec
        for some in figures.values()
        for figure in some
        for n, panel in enumerate(figure.panels)
    }
    plotly, script = _plotly(), _file("page.js")
    policy = (
        f"default-src 'none'; script-src {_hash(plotly)} {_hash(script)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": text(policy),
        "title": text(f"{wording.label(reading.name)}: drift report"),
        "palette": palette.style_sheet(),
        "style": _file("page.css"),
        "name": text(reading.name),
        "facts": "\n".join(
            f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts if name != "Run"
        ),
        "links": "\n".join(f'<li><a href="#{name}">{title}</a></li>' for name, title, _ in parts),
        "sections": "\n".join(
            f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{title}</h2>\n{body}\n</section>'
            for name, title, body in parts
        ),
        "data": _json({"figures": drawn, "colours": {"light": palette.colours(), "dark": palette.colours(dark=True)}}),
        "plotly": plotly,
        "script": script,
    }
    return _filled(_file("page.html"), values)


def text(value: str) -> str:
    """Any text as HTML text or attribute value: control characters visible, markup escaped, direction marks named."""
    shown = html.escape(wording.visible(value), quote=True)
    return _INVISIBLE.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", shown)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with every slot filled in one pass: what is filled in is not read for slots again."""
    return _SLOT.sub(lambda match: values[match.group(1)], template)


@cache
def _file(name: str) -> str:
    return resources.files("judgeloop.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _plotly() -> str:
    source = str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")
    if re.search(r"</script|<!--", source, re.IGNORECASE):
        raise ValueError("this version of plotly.js cannot stand inside a script element; install another plotly")
    return source


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """JSON that is safe inside a script element: ASCII, and no character that HTML reads."""
    dumped = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _findings(found: Sequence[Finding]) -> str:
    cards = []
    for question, title in QUESTIONS.items():
        some = [finding for finding in found if finding.question == question]
        if some:
            cards.append(_card(title, some))
    missing = unanswered(found)
    rest = f'<p class="unanswered">Not measured in this run: {text(" ".join(missing))}</p>' if missing else ""
    return (
        f'<div class="cards">{"".join(cards)}</div>{rest}'
        if cards
        else '<p class="lead">The estimates bear no finding.</p>' + rest
    )


def _card(title: str, some: Sequence[Finding]) -> str:
    first = leading(some)
    others = [finding for finding in some if finding is not first]
    items = [f"<li><b>{text(verdict_name(finding))}:</b> {text(finding.sentence)}</li>" for finding in others]
    shown, folded = items[:3], items[3:]
    listed = f"<ul>{''.join(shown)}</ul>" if shown else ""
    if folded:
        listed += f"<details><summary>{len(folded)} more</summary><ul>{''.join(folded)}</ul></details>"
    return (
        f'<article class="card {_TONES.get(first.verdict, "plain")}"><header><h3>{text(title)}</h3>'
        f'<p class="chip">{text(verdict_name(first))}</p></header><p class="headline">{text(first.sentence)}</p>{listed}</article>'
    )


def _section(tables: Sequence[Table], figures: Sequence[Figure]) -> str:
    return "\n".join([*map(_table_block, tables), *map(_figure, figures)])


def _table_block(table: Table) -> str:
    head = f"<h3>{text(table.title)}</h3>"
    return f'<div class="block">{head}{_table(table.columns, table.rows, f"{table.caption} {table.note}".rstrip(), table.title)}</div>'


def _table(columns: Iterable[str], rows: Iterable[Sequence[str]], caption: str, name: str) -> str:
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    # A table wider than the screen scrolls, and a scrolling region must be reachable by keyboard.
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(name)}"><table><caption>{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: str) -> str:
    if value.startswith("sha256:"):
        return f'<td class="hash">{text(value)}</td>'
    return (
        f'<td class="number">{text(value)}</td>'
        if value[:1] in "−-0123456789" and len(value) < 34
        else f"<td>{text(value)}</td>"
    )


def _figure(figure: Figure) -> str:
    keys = "".join(f"<li>{_key(style)}<span>{text(name)}</span></li>" for name, style in figure.legend)
    legend = f'<ul class="keys" aria-label="Legend">{keys}</ul>' if keys else ""
    panels = "".join(
        f'<div class="panel">{f"<h4>{text(panel.title)}</h4>" if panel.title else ""}'
        f'<div class="plot" id="{_plot_id(figure, n)}" role="img" aria-label="{text(f"{figure.title}. {panel.title}")}"></div></div>'
        for n, panel in enumerate(figure.panels)
    )
    data = figure.data()
    shown = data.head(_TABLE_ROWS)
    more = f" The first {_TABLE_ROWS} of {len(data)} rows." if len(data) > _TABLE_ROWS else ""
    numbers = _table(
        map(str, shown.columns),
        ([_plain(v) for v in row] for row in shown.itertuples(index=False)),
        f"The numbers of this figure.{more}",
        f"Data: {figure.title}",
    )
    links = _link(data, f"{figure.name}.csv", "Data (CSV)")
    if figure.traces is not None:
        links += _link(figure.traces, f"{figure.name}-replicates.csv", "Replicates (CSV)")
    return (
        f'<figure id="figure-{figure.name}"><h3>{text(figure.title)}</h3><figcaption>{text(figure.caption)}</figcaption>{legend}'
        f'<div class="panels{" one" if len(figure.panels) == 1 else ""}">{panels}</div>'
        f'<div class="under">{links}<details><summary>In words and as a table</summary><p>{text(figure.alternative)}</p>{numbers}</details></div></figure>'
    )


def _plot_id(figure: Figure, place: int) -> str:
    return f"plot-{figure.name}-{place}"


def _key(style: Style) -> str:
    colour = f"--key:var(--{style.colour.removeprefix('@')})"
    if style.marker == "bar":
        return f'<span class="swatch" style="{colour}" aria-hidden="true"></span>'
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


def _link(frame: pd.DataFrame, name: str, words: str) -> str:
    content = wording.visible(frame.to_csv(index=False, lineterminator="\n"))
    if len(content) > DATA_LIMIT:
        return ""
    return f'<a download="{text(name)}" href="data:text/csv;charset=utf-8,{quote(content)}">{text(words)}</a>'


def _cases(cases: Mapping[str, Sequence[Case]]) -> str:
    parts = [
        f'<p class="lead">{text(lead)}</p>' + "".join(_case(case) for case in some)
        for lead, some in cases.items()
        if some
    ]
    return "\n".join(parts)


def _case(case: Case) -> str:
    prompt = f'<details class="more"><summary>Prompt</summary>{_folded(case.prompt)}</details>' if case.prompt else ""
    return (
        f'<article class="case"><h3>{text(wording.label(case.title, 90))}</h3><p class="what">{text(wording.label(case.what, 400))}</p>{prompt}'
        f'<div class="sides">{_side(case.left)}{_side(case.right)}</div></article>'
    )


def _side(side: Side) -> str:
    detail = f" <span>· {text(side.detail)}</span>" if side.detail else ""
    return f'<div class="side"><h4>{text(side.heading)}{detail}</h4>{_folded(side.text)}</div>'


def _folded(content: str) -> str:
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


def _methods(reading: Reading) -> str:
    said = "".join(f"<li>{text(line)}</li>" for line in caveats(reading))
    parts = [f'<div class="block"><h3>How to read this</h3><ul class="said">{said}</ul></div>']
    used = methods_used(reading)
    if used:
        parts.append(
            _table_block(
                Table("Methods", "Each estimator, and the terms it was used for.", ("Method", "Terms"), tuple(used))
            )
        )
    made = environment_rows(reading)
    if made:
        parts.append(
            _table_block(
                Table(
                    "Made from",
                    "Hashes, versions, seeds and the models that the endpoints reported.",
                    ("What", "Value"),
                    tuple(made),
                )
            )
        )
    experiment = f'<details><summary>experiment.yaml</summary><pre class="file">{text(reading.experiment_text[:40_000])}</pre></details>'
    every = [{column: getattr(row, column) for column in _EVERY} for row in reading.estimates]
    frame = pd.DataFrame(every, columns=list(_EVERY))
    link = (
        _link(frame, "estimates.csv", f"All {len(every):,} estimates (CSV)")
        or f"<span>All {len(every):,} estimates are in estimates.csv beside this file.</span>"
    )
    parts.append(f'<div class="block"><h3>Sources</h3><div class="under">{link}{experiment}</div></div>')
    return "\n".join(parts)
