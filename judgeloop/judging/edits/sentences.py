"""The places of a text's sentences in its source."""

from __future__ import annotations

import re
from dataclasses import dataclass

from judgeloop.text.markdown import Paragraph, paragraphs

_ABBREVIATIONS = {
    "en": "e.g i.e etc vs dr mr mrs ms prof st no vol fig eq approx dept est inc ltd co jr sr jan feb mar apr jun jul "
    "aug sep sept oct nov dec al cf pp ed u.s u.k a.m p.m",
    "de": "z.b d.h u.a usw bzw ca evtl ggf nr dr prof hr fr st str abb vgl inkl max min mio mrd o.ä s.o s.u i.d.r z.t",
    "fr": "p.ex ex etc m mm mme mlle dr prof no fig cf env av apr c.-à-d st ste vol",
    "es": "p.ej ej etc sr sra srta dr dra prof ud uds núm pág fig cf ee.uu aprox av vol",
}
_ABBREVIATION_SETS = {language: frozenset(words.split()) for language, words in _ABBREVIATIONS.items()}

# Parts in which a full stop ends no sentence: code, URLs, formulas.
_UNSPLIT = re.compile(
    r"`+[^`]*`+|(?:https?://|www\.)\S*[^\s.,;:!?)\]*_'\"]|\$[^$\n]{1,300}\$|\\\([^\n]{0,300}?\\\)|\\\[[^\n]{0,300}?\\\]"
)
_END = re.compile(r"(?:[.!?…]+[\"'”’»)\]*_]*(?=\s|$)|[。！？]+[」』”’）]*)")
_LAST_WORD = re.compile(r"[^\s(\[\"'“‘«]*$")
_LONGEST_ABBREVIATION = 64
"""Characters before a full stop in which an abbreviation is looked for."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text[start:end]`` is the sentence with its closing marks. ``stop``: the place of the full stop or other mark
    that ends it; equal to ``end`` where it has none (an answer in one word, a list item).
    """

    start: int
    end: int
    stop: int
    paragraph: Paragraph

    @property
    def closed(self) -> bool:
        """Whether a mark ends the sentence."""
        return self.stop < self.end


def sentences(text: str, language: str = "en") -> list[Sentence]:
    """The sentences of the text's prose, in order. A full stop ends none inside code, a URL or a formula, behind an
    abbreviation of that language, a single letter or (German) an ordinal, or before a small letter."""
    return [sentence for paragraph in paragraphs(text) for sentence in of_paragraph(text, paragraph, language)]


def of_paragraph(text: str, paragraph: Paragraph, language: str = "en") -> list[Sentence]:
    """The sentences of one paragraph."""
    prose = text[paragraph.start : paragraph.end]
    masked = _UNSPLIT.sub(lambda match: "x" * len(match[0]), prose)
    result: list[Sentence] = []
    start = 0
    for match in _END.finditer(masked):
        if match.end() < len(masked) and not _ends(masked, match, language):
            continue
        result.append(_sentence(paragraph, prose, start, match.end(), match.start()))
        start = match.end()
    if prose[start:].strip():
        result.append(_sentence(paragraph, prose, start, len(prose), len(prose)))
    return result


def _sentence(paragraph: Paragraph, prose: str, start: int, end: int, stop: int) -> Sentence:
    start += len(prose[start:end]) - len(prose[start:end].lstrip())
    return Sentence(paragraph.start + start, paragraph.start + end, paragraph.start + stop, paragraph)


def _ends(masked: str, match: re.Match[str], language: str) -> bool:
    following = masked[match.end() : match.end() + 8].lstrip()[:1]
    if following.islower():
        return False
    if match[0][0] != ".":
        return True
    before = _LAST_WORD.search(masked, max(0, match.start() - _LONGEST_ABBREVIATION), match.start())
    word = before[0].lower().rstrip(".") if before else ""
    if len(word) == 1 and word.isalpha() and word not in ("i", "x"):
        return False
    if language == "de" and word.isdigit() and len(word) <= 2:
        return False
    return word not in _ABBREVIATION_SETS.get(language, frozenset())
