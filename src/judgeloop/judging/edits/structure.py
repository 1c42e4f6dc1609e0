"""Edits of the layout alone: bold, lists, headings, all of them, none of them, and white space."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from itertools import pairwise

from judgeloop.features import Measured, measure
from judgeloop.judging.edits.claims import chosen, inserted
from judgeloop.judging.edits.lexicon import PARTS
from judgeloop.judging.edits.probe import Task, words
from judgeloop.judging.edits.sentences import Sentence, of_paragraph, sentences
from judgeloop.markdown import code, paragraphs, plain

MOST_HEADINGS = 4
"""Headings that the edit adds at most; further paragraphs stand under the last one."""

_WORD = re.compile(r"(?<![\w*`_<&/\\.-])[^\W\d_]{4,}(?![\w*`_>;/\\-])")
_CLOSED = re.compile(r"`+[^`]*`+|(?:https?://|www\.)\S+|\$[^$\n]{1,300}\$|\*\*.{1,300}?\*\*|<[^>\n]{1,300}>", re.DOTALL)
_BULLET = re.compile(r"^[ ]{0,3}- ", re.MULTILINE)
_NUMBERED = "|".join(f"{re.escape(part)} \\d+|{re.escape(answer)}" for answer, part in PARTS.values())
_PART_HEADING = re.compile(rf"^## (?:{_NUMBERED})\n\n", re.MULTILINE)


_measured = functools.lru_cache(maxsize=32)(measure)
"""``measure`` that remembers the last texts: every probe asks for the same original."""


def bold(task: Task) -> str | None:
    """Bold for the longest word of half of the sentences."""
    words_at = []
    for sentence in chosen(sentences(task.text, task.language), task, "bold"):
        masked = _CLOSED.sub(lambda match: "`" * len(match[0]), task.text[sentence.start : sentence.end])
        found = max(_WORD.finditer(masked), key=lambda match: len(match[0]), default=None)
        if found is not None:
            words_at.append((sentence.start + found.start(), sentence.start + found.end()))
    if not words_at:
        return None
    return inserted(task.text, [(place, "**") for span in words_at for place in span])


def bold_kept(original: str, edited: str) -> bool:
    """The same text but for ``**``, and the parser sees more bold."""
    return original.replace("*", "") == edited.replace("*", "") and _more(original, edited, "bold")


def list_items(task: Task) -> str | None:
    """Every paragraph of two or more sentences becomes a list, an item a sentence."""
    places = [
        place
        for paragraph in paragraphs(task.text)
        if paragraph.top and paragraph.after != "bullet_list"
        for place in _items(task.text, of_paragraph(task.text, paragraph, task.language))
    ]
    return _replaced(task.text, places) if places else None


def _items(text: str, found: list[Sentence]) -> list[tuple[int, int, str]]:
    if len(found) < 2 or any(text[one.start : one.start + 1] in "-+*#>|`~" for one in found):
        return []
    gaps = [(a.end, b.start, "\n- ") for a, b in pairwise(found)]
    return [(found[0].start, found[0].start, "- "), *gaps]


def _replaced(text: str, places: list[tuple[int, int, str]]) -> str:
    parts, last = [], 0
    for start, end, new in places:
        parts += [text[last:start], new]
        last = end
    return "".join([*parts, text[last:]])


def list_items_kept(original: str, edited: str) -> bool:
    """The same text but for white space and the bullets' dashes, and the parser sees more list items."""
    flat = [_BULLET.sub("", text).split() for text in (original, edited)]
    # Between Chinese or Japanese sentences there is no white space to begin with.
    same = flat[0] == flat[1] or ("".join(flat[0]) == "".join(flat[1]) and words(original) == words(edited))
    return same and _more(original, edited, "list_items")


def headings(task: Task) -> str | None:
    """A heading without content (``Part 1`` …; ``Answer`` where there is one paragraph) over up to four paragraphs."""
    found = [one for one in paragraphs(task.text) if one.top and one.after != "heading"][:MOST_HEADINGS]
    if not found:
        return None
    answer, part = PARTS[task.language]
    titles = [answer] if len(found) == 1 else [f"{part} {number}" for number in range(1, len(found) + 1)]
    return inserted(task.text, [(one.line_start, f"## {title}\n\n") for one, title in zip(found, titles, strict=True)])


def headings_kept(original: str, edited: str) -> bool:
    """The original once the added headings are taken out, and the parser sees more headings."""
    return _PART_HEADING.sub("", original) == _PART_HEADING.sub("", edited) and _more(original, edited, "headings")


def markdown_added(task: Task) -> str | None:
    """Bold, lists and headings, as far as each applies; at least two of them."""
    text, applied = task.text, 0
    for edit in (bold, list_items, headings):
        made = edit(replace(task, text=text))
        if made is not None:
            text, applied = made, applied + 1
    return text if applied >= 2 else None


def markdown_added_kept(original: str, edited: str) -> bool:
    """The same words but for the headings', in their order, and more of two features at least."""
    flat = [_bare(text) for text in (original, edited)]
    more = sum(_more(original, edited, feature) for feature in ("bold", "list_items", "headings"))
    return flat[0] == flat[1] and more >= 2


def _bare(text: str) -> list[str]:
    return _BULLET.sub("", _PART_HEADING.sub("", text)).replace("*", "").split()


def markdown_removed(task: Task) -> str | None:
    """The text without headings', lists', quotes' and emphasis's marks; None where it has no heading, list or bold."""
    measured = _measured(task.text)
    return plain(task.text) if measured.headings or measured.list_items or measured.bold else None


def markdown_removed_kept(original: str, edited: str) -> bool:
    """The same words in the same order, the same code, and no heading, list or bold left."""
    left = _measured(edited)
    return (
        words(original) == words(edited)
        and code(original) == code(edited)
        and not (left.headings or left.list_items or left.bold)
    )


def whitespace(task: Task) -> str | None:
    """A second blank line before every paragraph, and white space behind the text: nothing that is rendered changes."""
    body = task.text.rstrip()
    if not body:
        return None
    places = [(one.line_start, "\n") for one in paragraphs(body) if one.top and body[: one.line_start].endswith("\n\n")]
    return inserted(body, places) + " \n\n"


def whitespace_kept(original: str, edited: str) -> bool:
    """The same words, marks and code, and every feature as it was."""
    return (
        original.split() == edited.split()
        and code(original) == code(edited)
        and _rendered(original) == _rendered(edited)
    )


def _rendered(text: str) -> tuple[object, ...]:
    found: Measured = _measured(text)
    return tuple(getattr(found, name) for name in found.__slots__ if name != "characters")


def _more(original: str, edited: str, feature: str) -> bool:
    """Whether the edit has more of it, by count: added words thin out a density."""
    counts = [getattr(found, feature) * found.tokens for found in (_measured(original), _measured(edited))]
    return bool(counts[1] > counts[0] + 0.5)


def unchanged(task: Task) -> str | None:
    """The text itself."""
    return task.text


def unchanged_kept(original: str, edited: str) -> bool:
    """The same text."""
    return original == edited
