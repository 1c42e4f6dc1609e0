"""The features of a text by another CommonMark parser alone and by one pattern a kind: the slow form of ``judgeloop.text.features.measure``."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from judgeloop.text import features
from judgeloop.text.features import TextFeatures


@functools.cache
def _phrases(language: str, kind: int) -> re.Pattern[str]:
    # Longest first, so that a phrase is one hit and not also the hit of a shorter one inside it.
    words = sorted(
        (p for group in features._phrases(language)[kind].values() for p in group), key=lambda p: (-len(p), p)
    )
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)" if words else "(?!)")


@functools.cache
def _parser() -> MarkdownIt:
    off = ["link", "image", "autolink", "html_inline", "html_block", "reference"]
    return MarkdownIt("commonmark", {"maxNesting": 1000}).disable(off)


def _read_inline(children: Sequence[Token]) -> tuple[str, int, bool]:
    """(prose, number of strong spans, whether it begins with one) of a block; nested strong spans count once."""
    parts: list[str] = []
    spans = depth = 0
    begins_bold = written = False
    for child in children:
        if child.type == "strong_open":
            begins_bold = begins_bold or not written
            spans += depth == 0
            depth += 1
        elif child.type == "strong_close":
            depth -= 1
        elif child.type == "code_inline":
            parts.append(features._PLACEHOLDER)
            written = True
        elif child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.content:
            parts.append(child.content)
            written = written or not child.content.isspace()
    return "".join(parts), spans, begins_bold


_BLOCK_OPENERS = {
    "heading_open": "heading", "bullet_list_open": "list", "ordered_list_open": "list", "fence": "code",
    "code_block": "code", "blockquote_open": "quote",
}  # fmt: skip


def _parsed(body: str, opener: str, counts: dict[str, int]) -> tuple[str, list[str]]:
    """The opener, unless it is known, and the prose of each block of a Markdown text; its structure is added to ``counts``."""
    blocks: list[str] = []
    for token in _parser().parse(body):
        if not opener:
            opener = _BLOCK_OPENERS.get(token.type, "")
        if token.type == "heading_open":
            counts["headings"] += 1
        elif token.type == "list_item_open":
            counts["list_items"] += 1
        elif token.type == "fence":
            counts["code_fences"] += 1
        elif token.type == "inline":
            written, spans, begins_bold = _read_inline(token.children or ())
            counts["bold"] += spans
            blocks.append(features._prose(written))
            if not opener:
                opener = "bold" if begins_bold else features._lexical_opener(blocks[-1].lower())
    return opener, blocks


def measure(text: str, language: str = "en") -> TextFeatures:
    body = text.rstrip()
    tokens = len(features._token_pattern().findall(body))
    counts = dict.fromkeys(features.STYLE_FEATURES, 0)
    opener, blocks = _parsed(features._source(body), "" if tokens else "empty", counts)
    for prose in blocks:
        counts["hedges"] += len(_phrases(language, 0).findall(prose.lower()))
        counts["transitions"] += len(_phrases(language, 1).findall(prose.lower()))
        counts["emoji"] += len(features._emoji_pattern().findall(prose))
        counts["em_dashes"] += len(features._EM_DASH.findall(prose))
        # Not `!=`, an image's `![`, or the `<!` of a comment.
        counts["exclamations"] += len(re.findall(r"(?<!<)!(?![\[=])|！", prose))
    densities = {name: 100.0 * count / tokens if tokens else 0.0 for name, count in counts.items()}
    return TextFeatures(
        length=math.log2(max(tokens, 1)), tokens=tokens, characters=len(text), opener=opener or "other", **densities
    )
