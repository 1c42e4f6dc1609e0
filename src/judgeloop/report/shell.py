"""The frame of a page: one file that needs nothing else, in the reader's theme. `text` is the one door for any text of a run.

A content security policy allows the page's own two scripts by their hashes and no request at all, so that even a text
that slipped through could neither run nor call home.
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
from typing import Any

from plotly.offline import get_plotlyjs

from judgeloop.report import palette, wording

_SLOT = re.compile(r"\{\{(\w+)\}\}")
_PERCENT = re.compile(r"(?<=\d) % (?=interval|prediction limits|power)")
_INVISIBLE = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page. ``name`` is its anchor, ``title`` plain words, ``body`` HTML whose texts went through ``text``."""

    name: str
    title: str
    body: str


def frame(
    *,
    kind: str,
    name: str,
    facts: Sequence[tuple[str, str]],
    sections: Sequence[Section],
    specs: Mapping[str, Mapping[str, Any]],
) -> str:
    """The whole page. ``kind`` says what it is ("drift report"), ``name`` whose, ``facts`` are (label, value) under the title.

    ``specs``: the id of a plot's place in a section's body → Plotly figure as a mapping, colours as tokens (see palette).
    Sections without a body are left out.
    """
    shown = [section for section in sections if section.body]
    (plotly_hash, plotly), script = _plotly(), file("page.js")
    policy = (
        f"default-src 'none'; script-src {plotly_hash} {hash_of(script)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    values = {
        "policy": text(policy),
        "title": text(f"{wording.label(name)}: {kind}"),
        "palette": palette.style_sheet(),
        "style": file("page.css"),
        "kind": text(kind),
        "name": text(name),
        "first": text(shown[0].name if shown else "top"),
        "facts": "\n".join(f"<div><dt>{text(label)}</dt><dd>{text(value)}</dd></div>" for label, value in facts),
        "links": "\n".join(f'<li><a href="#{text(one.name)}">{text(one.title)}</a></li>' for one in shown),
        "sections": "\n".join(
            f'<section id="{text(one.name)}" aria-labelledby="{text(one.name)}-title">\n<h2 id="{text(one.name)}-title">{text(one.title)}</h2>\n{one.body}\n</section>'
            for one in shown
        ),
        "data": _json({"figures": specs, "colours": {"light": palette.colours(), "dark": palette.colours(dark=True)}}),
        "plotly": plotly,
        "script": script,
    }
    return filled(file("page.html"), values)


def text(value: str) -> str:
    """Any text as HTML text or attribute value: control characters visible, markup escaped, direction marks named."""
    # "95 %" is not broken across lines.
    shown = _PERCENT.sub("\u00a0% ", html.escape(wording.visible(value), quote=True))
    return _INVISIBLE.sub(lambda match: f"⟦U+{ord(match.group()):04X}⟧", shown)


def filled(template: str, values: Mapping[str, str]) -> str:
    """The template with every slot filled in one pass: what is filled in is not read for slots again."""
    return _SLOT.sub(lambda match: values[match.group(1)], template)


@cache
def file(name: str) -> str:
    """A file of this room: a template, a style sheet, a script."""
    return resources.files("judgeloop.report").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def _plotly() -> tuple[str, str]:
    """plotly.js as its hash and as packed text: a third of its size, and nothing in it that HTML could read."""
    source = str(get_plotlyjs()).replace("\r\n", "\n").replace("\r", "\n")
    return hash_of(source), base64.b64encode(zlib.compress(source.encode(), 9)).decode()


def hash_of(script: str) -> str:
    """A script as a content security policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _json(content: object) -> str:
    """JSON that is safe inside a script element: ASCII, and no character that HTML reads."""
    dumped = json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return dumped.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
