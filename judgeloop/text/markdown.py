"""The places of a Markdown text's paragraphs in its source, and the text without its marks, by a CommonMark parser.

The parser has the settings of ``features``: links and HTML are read as their source text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

_LINE_END = re.compile(r"\r\n?|\n")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph's place in the source: ``text[start:end]`` holds its words, without list and quote marks.

    ``line_start``: where its first line begins. ``top``: it is in no list and no quote. ``after``: the kind of the
    block before it (``""`` where there is none, else the parser's name: heading, paragraph, fence, bullet_list …).
    """

    start: int
    end: int
    line_start: int
    top: bool
    after: str


@functools.cache
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # loaded when the first text is read

    # text_join would merge escapes and entities with their neighbours, decoded.
    off = ["link", "image", "autolink", "html_inline", "html_block", "reference", "text_join"]
    return MarkdownIt("commonmark").disable(off)


@functools.lru_cache(maxsize=32)
def paragraphs(text: str) -> tuple[Paragraph, ...]:
    """The paragraphs whose source is one run of text, in order; headings and code are none.

    Left out: paragraphs with marks between their lines (a quote of several lines), and lines that the parser had to
    change (tabs, NUL). Cached, since several edits are made of one text.
    """
    lines = _lines(text)
    result: list[Paragraph] = []
    after = inside = ""
    for token in _parser().parse(text):
        if token.type == "inline" and inside == "paragraph" and token.map:
            span = _span(text, lines[token.map[0] : token.map[1]], token.content)
            if span is not None:
                line_start = lines[token.map[0]][0]
                result.append(Paragraph(*span, line_start, token.level == 1, after))
        elif token.type.endswith("_close"):
            after = token.type.removesuffix("_close")
        elif token.type.endswith("_open"):
            inside = token.type.removesuffix("_open")
        else:
            after = token.type
    return tuple(result)


def _lines(text: str) -> list[tuple[int, int]]:
    """(start, end) of each line, without its ending."""
    spans, start = [], 0
    for ending in _LINE_END.finditer(text):
        spans.append((start, ending.start()))
        start = ending.end()
    return [*spans, (start, len(text))]


def _span(text: str, lines: Sequence[tuple[int, int]], content: str) -> tuple[int, int] | None:
    """(start, end) in the source of a paragraph's parsed content; None where it is not one run of text."""
    places = []
    for (start, end), written in zip(lines, content.split("\n"), strict=False):
        source, words = text[start:end].rstrip(), written.strip()
        if not words or not source.endswith(words):
            return None
        places.append((start + len(source) - len(words), start + len(source)))
    if not places or any(text[a[1] : b[0]].strip() for a, b in pairwise(places)):
        return None
    return places[0][0], places[-1][1]


def code(text: str) -> tuple[str, ...]:
    """The contents of the text's code blocks, fenced and indented, in order; without the white space behind."""
    return tuple(token.content.rstrip() for token in _parser().parse(text) if token.type in ("fence", "code_block"))


def plain(text: str) -> str:
    """The text without headings', lists', quotes' and emphasis's marks; words, line breaks and code stay.

    An ordered item ``3. x`` becomes ``(3) x``, so that the number is kept; escapes, entities, links and HTML stay as
    they were written.
    """
    written: list[str] = []
    mark, tight, first = "", False, False
    for token in _parser().parse(text):
        block = ""
        if token.type in ("bullet_list_open", "ordered_list_open"):
            first = True
        elif token.type == "list_item_open":
            mark = f"({token.info}) " if token.info else ""
        elif token.type == "paragraph_open":
            # A blank line goes before a list's first item, and none before the others of a tight list.
            tight, first = token.hidden and not (first and token.level == 2), False
        elif token.type == "heading_open":
            tight = False
        elif token.type == "inline":
            block = mark + "".join(_unmarked(token.children or ()))
            mark = ""
        elif token.type == "fence":
            # The content of an unclosed fence may lack its last line end.
            block = f"{token.markup}{token.info}\n{token.content.rstrip(chr(10))}\n{token.markup}"
            tight = False
        elif token.type == "code_block":
            block = "".join(f"    {line}" for line in token.content.splitlines(keepends=True)).rstrip("\n")
            tight = False
        if block:
            written += ["\n" if tight else "\n\n", block] if written else [block]
    return "".join(written)


def _unmarked(children: Sequence[Token]) -> Iterator[str]:
    for child in children:
        if child.type in ("softbreak", "hardbreak"):
            yield "\n"
        elif child.type == "code_inline":
            yield f"{child.markup}{child.content}{child.markup}"
        elif child.type == "text_special":
            yield child.markup
        else:
            yield child.content
