"""The frame of a page: one file that needs nothing else, in the reader's theme, written by templates alone.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from judgeloop.report import blocks, palette, wording

if TYPE_CHECKING:
    from jinja2 import Environment

_PERCENT = re.compile(r"(?<=\d) % (?=interval|prediction limits|power)")
_PLAIN = re.compile(r"[\w .,:;()\[\]/+=–−-]*")
_INVISIBLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page. ``name`` is its anchor and its block in the page's template, ``title`` plain words."""

    name: str
    title: str


def frame(
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

    ``specs``: the id of a plot's place → Plotly figure as a mapping, colours as tokens (see palette).
    """
    themes = {"light": palette.colours(), "dark": palette.colours(dark=True)}
    return render(
        template,
        policy=policy(f"{_plotly()[0]} {hash_of(file('page.js'))}", "img-src data: blob:"),
        kind=kind,
        name=name,
        facts=facts,
        sections=sections,
        data={"figures": specs, "colours": themes, "onPaper": blocks.ON_PAPER},
        **content,
    )


def render(template: str, **content: Any) -> str:
    """A template of this room filled with plain values."""
    return environment().get_template(template).render(content)


@cache
def environment() -> Environment:
    """The templates, with what they may call. Here and nowhere else is text declared to be HTML already."""
    import jinja2
    from markupsafe import Markup

    def escaped(value: object) -> Markup:
        return value if isinstance(value, Markup) else Markup(text(str(value)))

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("judgeloop.report"),
        autoescape=True,
        finalize=escaped,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "cell_kind": blocks.cell_kind,
        "code_spans": blocks.code_spans,
        "figure_data": blocks.figure_data,
        "glyph": blocks.glyph,
        "grouped": "{:,}".format,
        "json": lambda content: Markup(_json(content)),
        "label": wording.label,
    }
    made.globals |= {
        "asset": lambda name: Markup(file(name)),
        "packed_plotly": lambda: Markup(_plotly()[1]),
        "plot_id": blocks.plot_id,
        "style_sheet": lambda: Markup(palette.style_sheet()),
        "CAP": blocks.CAP,
        "FOLD": blocks.FOLD,
        "ON_PAPER": blocks.ON_PAPER,
    }
    return made


def text(value: str) -> str:
    """Any text as HTML text or attribute value: control characters visible, markup escaped, direction marks named."""
    if _PLAIN.fullmatch(value):
        return value  # most cells of a table: nothing in them needs a second look
    # "95 %" is not broken across lines.
    shown = _PERCENT.sub("\u00a0% ", html.escape(wording.visible(value), quote=True))
    return _INVISIBLE.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", shown)


def policy(scripts: str, *more: str) -> str:
    """A page's content security policy: its own styles, the scripts of those hashes, and what else is named; nothing more."""
    kept = ("style-src 'unsafe-inline'", "base-uri 'none'", "form-action 'none'")
    return "; ".join(["default-src 'none'", f"script-src {scripts}", *more, *kept])


@cache
def file(name: str) -> str:
    """A style sheet or a script of this room."""
    return resources.files("judgeloop.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js as its hash and as packed text: a third of its size, and nothing in it that HTML could read."""
    from plotly.offline import get_plotlyjs

    source = str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")
    return hash_of(source), base64.b64encode(zlib.compress(source.encode(), 9)).decode()


def hash_of(script: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """JSON that is safe inside a script element: ASCII, and no character that HTML reads."""
    dumped = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
