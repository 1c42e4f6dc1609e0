"""Edits of the layout alone: bold, lists, headings, all three, their removal, and white space."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from itertools import pairwise

from judgeloop.judging.edits.claims import draw_half, insert
from judgeloop.judging.edits.probe import Task, words
from judgeloop.judging.edits.sentences import Sentence, of_paragraph, sentences
from judgeloop.judging.lexicon import PARTS
from judgeloop.text.features import Measured, measure
from judgeloop.text.markdown import code, paragraphs, plain

MOST_HEADINGS = 4
"""Headings that the edit adds at most; further paragraphs stand under the last one."""

_WORD = re.compile(r"(?<![\w*`_<&/\\.-])[^\W\d_]{4,}(?![\w*`_>;/\\-])")
_UNTOUCHED = re.compile(
    r"`+[^`]*`+|(?:https?://|www\.)\S+|\$[^$\n]{1,300}\$|\*\*.{1,300}?\*\*|<[^>\n]{1,300}>", re.DOTALL
)
_BULLET = re.compile(r"^[ ]{0,3}- ", re.MULTILINE)
_NUMBERED = "|".join(f"{re.escape(part)} \\d+|{re.escape(answer)}" for answer, part in PARTS.values())
_PART_HEADING = re.compile(rf"^## (?:{_NUMBERED})\n\n", re.MULTILINE)


_measured = functools.lru_cache(maxsize=32)(measure)
"""``measure`` with a cache, since every probe measures the same original."""


def bold(task: Task) -> str | None:
    """The text with the longest word of half of its sentences in bold."""
    spans = []
    for sentence in draw_half(sentences(task.text, task.language), task, "bold"):
        masked = _UNTOUCHED.sub(lambda match: "`" * len(match[0]), task.text[sentence.start : sentence.end])
        word = max(_WORD.finditer(masked), key=lambda match: len(match[0]), default=None)
        if word is not None:
            spans.append((sentence.start + word.start(), sentence.start + word.end()))
    if not spans:
        return None
    return insert(task.text, [(place, "**") for span in spans for place in span])


def bold_kept(original: str, edited: str) -> bool:
    """The same text but for ``**``, and the parser sees more bold."""
    return original.replace("*", "") == edited.replace("*", "") and _has_more(original, edited, "bold")


def list_items(task: Task) -> str | None:
    """The text with every paragraph of two or more sentences as a list, an item a sentence."""
    places = [
        place
        for paragraph in paragraphs(task.text)
        if paragraph.top and paragraph.after != "bullet_list"
        for place in _item_edits(task.text, of_paragraph(task.text, paragraph, task.language))
    ]
    return _replaced(task.text, places) if places else None


def _item_edits(text: str, prose: list[Sentence]) -> list[tuple[int, int, str]]:
    if len(prose) < 2 or any(text[sentence.start : sentence.start + 1] in "-+*#>|`~" for sentence in prose):
        return []
    gaps = [(a.end, b.start, "\n- ") for a, b in pairwise(prose)]
    return [(prose[0].start, prose[0].start, "- "), *gaps]


def _replaced(text: str, places: list[tuple[int, int, str]]) -> str:
    parts, last = [], 0
    for start, end, new in places:
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])


def list_items_kept(original: str, edited: str) -> bool:
    """The same text but for white space and the bullets' dashes, and the parser sees more list items."""
    flat = [_BULLET.sub("", text).split() for text in (original, edited)]
    # Chinese and Japanese sentences have no white space between them in the original.
    same = flat[0] == flat[1] or ("".join(flat[0]) == "".join(flat[1]) and words(original) == words(edited))
    return same and _has_more(original, edited, "list_items")


def headings(task: Task) -> str | None:
    """The text with a heading without content (``Part 1`` …; ``Answer`` for one paragraph) over up to four paragraphs."""
    titled = [paragraph for paragraph in paragraphs(task.text) if paragraph.top and paragraph.after != "heading"][
        :MOST_HEADINGS
    ]
    if not titled:
        return None
    answer, part = PARTS[task.language]
    titles = [answer] if len(titled) == 1 else [f"{part} {number}" for number in range(1, len(titled) + 1)]
    return insert(
        task.text, [(paragraph.line_start, f"## {title}\n\n") for paragraph, title in zip(titled, titles, strict=True)]
    )


def headings_kept(original: str, edited: str) -> bool:
    """The original once the added headings are taken out, and the parser sees more headings."""
    return _PART_HEADING.sub("", original) == _PART_HEADING.sub("", edited) and _has_more(original, edited, "headings")


def markdown_added(task: Task) -> str | None:
    """Bold, lists and headings, as far as each applies; at least two of them."""
    text, applied = task.text, 0
    for edit in (bold, list_items, headings):
        edited = edit(replace(task, text=text))
        if edited is not None:
            text, applied = edited, applied + 1
    return text if applied >= 2 else None


def markdown_added_kept(original: str, edited: str) -> bool:
    """The same words but for the headings', in their order, and more of two features at least."""
    flat = [_words_without_marks(text) for text in (original, edited)]
    more = sum(_has_more(original, edited, feature) for feature in ("bold", "list_items", "headings"))
    return flat[0] == flat[1] and more >= 2


def _words_without_marks(text: str) -> list[str]:
    return _BULLET.sub("", _PART_HEADING.sub("", text)).replace("*", "").split()


def markdown_removed(task: Task) -> str | None:
    """The text without headings', lists', quotes' and emphasis's marks; None where it has no heading, list or bold."""
    measured = _measured(task.text)
    return plain(task.text) if measured.headings or measured.list_items or measured.bold else None


def markdown_removed_kept(original: str, edited: str) -> bool:
    """The same words in the same order, the same code, and no heading, list or bold left."""
    measured = _measured(edited)
    return (
        words(original) == words(edited)
        and code(original) == code(edited)
        and not (measured.headings or measured.list_items or measured.bold)
    )


def whitespace(task: Task) -> str | None:
    """A second blank line before every paragraph, and white space behind the text: nothing that is rendered changes."""
    body = task.text.rstrip()
    if not body:
        return None
    places = [
        (paragraph.line_start, "\n")
        for paragraph in paragraphs(body)
        if paragraph.top and body[: paragraph.line_start].endswith("\n\n")
    ]
    return insert(body, places) + " \n\n"


def whitespace_kept(original: str, edited: str) -> bool:
    """The same words, marks and code, and every feature as it was."""
    return (
        original.split() == edited.split()
        and code(original) == code(edited)
        and _features_but_characters(original) == _features_but_characters(edited)
    )


def _features_but_characters(text: str) -> tuple[object, ...]:
    measured: Measured = _measured(text)
    return tuple(getattr(measured, name) for name in measured.__slots__ if name != "characters")


def _has_more(original: str, edited: str, feature: str) -> bool:
    """Whether the edit has more of a feature by count; its density can fall, since the edit adds words."""
    counts = [getattr(measured, feature) * measured.tokens for measured in (_measured(original), _measured(edited))]
    return bool(counts[1] > counts[0] + 0.5)


def unchanged(task: Task) -> str | None:
    """The text itself."""
    return task.text


def unchanged_kept(original: str, edited: str) -> bool:
    """The same text."""
    return original == edited
