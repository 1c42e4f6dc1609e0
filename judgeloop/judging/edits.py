"""Counterfactual edits of a text by rule, and the probe that an edit is: what it changes, what it keeps, and the check of that.

A rule takes a ``Task`` and gives the edited text, or None where the edit does not apply; a check takes original and edit. Edits
add words without content, change the layout alone, or repeat the text's own sentences up to a dose. ``panels.PROBES`` lists
them all; the two that no rule can write are in ``model_edits``.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from judgeloop import seeds
from judgeloop.judging.lexicon import CONFIDENT, EMOJI, HEDGES, LEADS, PARTS, REMINDERS, SELF_NAME, Words
from judgeloop.text.features import TextFeatures, measure, tokenize
from judgeloop.text.markdown import Paragraph, code, paragraphs, plain

Kind = Literal["rule", "model"]


@dataclass(frozen=True, slots=True)
class Task:
    """One text to edit. ``seed`` and ``item_id`` name the random stream, so that the same task gives the same edit."""

    text: str
    item_id: str
    seed: int
    dose: float | None
    language: str
    judge_name: str


Rule = Callable[[Task], str | None]
Check = Callable[[str, str], bool]


@dataclass(frozen=True)
class Probe:
    """One counterfactual edit.

    ``changes`` and ``keeps`` describe in a line what the edit does and what it leaves alone; ``check`` tests the latter.
    ``doses``: length ratios, empty where there are none. ``languages``: the tags it has words for; empty where it adds
    none and fits any. ``control``: an edit to which no judge should respond.
    """

    name: str
    kind: Kind
    changes: str
    keeps: str
    rule: Rule
    check: Check
    doses: tuple[float, ...] = ()
    languages: tuple[str, ...] = ()
    control: bool = False
    per_judge: bool = False
    """Whether the edit names the judge, so that each judge has its own."""

    @property
    def term(self) -> str:
        """The term of the probe's estimate."""
        return "identical_pair_excess" if self.name == "identical" else f"{self.name}_probe"

    def apply(
        self,
        text: str,
        *,
        item_id: str,
        seed: int,
        dose: float | None = None,
        language: str = "en",
        judge_name: str = "",
    ) -> str | None:
        """The edited text; None where the edit does not apply: nothing to edit, no words for that language or script, a dose out
        of reach, or an edit that fails ``check``. The same arguments give the same text.

        Raises ValueError for a dose that the probe does not have, and for a model-written probe (see ``write_edit``).
        """
        if self.kind == "model":
            raise ValueError(f"{self.name} is written by a model: ask for it with write_edit")
        self.check_dose(dose)
        if self.refuses(text, language):
            return None
        tag = base_language(language)
        edited = self.rule(Task(text, item_id, seed, dose, tag, judge_name))
        if edited is None or (edited == text and self.name != "identical") or not self.passes(text, edited):
            return None
        return edited

    def refuses(self, text: str, language: str = "en") -> str:
        """The reason, as a phrase, why this probe has no words for the text; empty where it has, or needs none."""
        tag = base_language(language)
        if self.languages and tag not in self.languages:
            return f"no words for {tag}"
        if self.languages and not in_latin_letters(text):
            return f"no words for texts whose script is not that of {tag}; give a column language"
        return ""

    def check_dose(self, dose: float | None) -> None:
        """Raises ValueError for a dose that the probe does not have, or for None where it has doses."""
        if (dose is None) == bool(self.doses) or (self.doses and dose not in self.doses):
            doses = ", ".join(f"{known_dose:g}" for known_dose in self.doses) or "none"
            raise ValueError(f"{self.name} has the doses {doses}, not {dose}")

    def passes(self, original: str, edited: str) -> bool:
        """Whether ``edited`` passes the probe's check against ``original`` (see ``keeps``)."""
        return self.check(original, edited)


def in_latin_letters(text: str) -> bool:
    """Whether half of the letters or more are Latin ones, as in every language that the edits have words for; true without
    letters. An untagged text counts as English; in a Chinese one English lines would not be a small edit."""
    if text.isascii():
        return True
    letters = [mark for mark in text if mark.isalpha()]
    foreign = [mark for mark in letters if "\u0250" <= mark < "\u1e00" or mark >= "\u1f00"]
    few = len(foreign) < 4 and max(foreign, default="") < "\u0400"  # a Greek letter or two is a formula
    return few or 2 * len(foreign) <= len(letters)


def base_language(tag: str) -> str:
    """A language tag's first part in lower case (``de-AT`` → ``de``); en where the tag is empty."""
    return tag.replace("_", "-").split("-")[0].strip().lower() or "en"


def tokens(text: str) -> int:
    """The text's length in tokens, as the features count it."""
    return len(tokenize(text.rstrip()))


def length_ratio(original: str, edited: str) -> float:
    """The dose that was reached: tokens of the edit per token of its original (1 = as long). NaN for an empty original."""
    return tokens(edited) / tokens(original) if tokens(original) else float("nan")


def words(text: str) -> list[str]:
    """The tokens that hold a letter or a digit, in order, case-folded."""
    return [token.casefold() for token in tokenize(text) if any(mark.isalnum() for mark in token)]


# Sentences, by their places in the source of a text

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


# A few words without content: hedges, a confident tone, emoji, and claims about the text itself

SHARE = 0.5
"""Share of the sentences that hedges, tone, emoji and bold edit, in [0, 1]; at least one sentence."""


def draw_half(all_sentences: list[Sentence], task: Task, stream: str) -> list[Sentence]:
    """Half of the sentences (at least one), drawn from the task's stream, in the text's order."""
    if not all_sentences:
        return []
    generator = seeds.rng(task.seed, "edit", stream, task.item_id)
    indices = generator.choice(len(all_sentences), size=math.ceil(SHARE * len(all_sentences)), replace=False)
    return [all_sentences[index] for index in sorted(indices.tolist())]


def draw_words(words: tuple[str, ...], task: Task, stream: str, count: int) -> list[str]:
    """``count`` of the words in shuffled order, each as often as the others."""
    order = seeds.rng(task.seed, "edit", stream, task.item_id, "words").permutation(len(words)).tolist()
    return [words[order[place % len(words)]] for place in range(count)]


def insert(text: str, places: Iterable[tuple[int, str]]) -> str:
    """The text with each (place, addition) put in; places in ascending order."""
    parts, last = [], 0
    for place, addition in places:
        parts += [text[last:place], addition]
        last = place
    return "".join([*parts, text[last:]])


def behind_sentences(words: Words, stream: str) -> Rule:
    """The rule that adds ``, <words>`` to half of the sentences that end in a full stop; where none does, to a last sentence
    without one."""

    def rule(task: Task) -> str | None:
        all_sentences = sentences(task.text, task.language)
        stated = [
            s for s in all_sentences if s.closed and task.text[s.stop : s.stop + 2].rstrip(" \n\"'”’»)]*_") == "."
        ]
        stated = stated or [s for s in all_sentences[-1:] if not s.closed and task.text[s.end - 1].isalnum()]
        touched = draw_half(stated, task, stream)
        phrases = draw_words(words[task.language], task, stream, len(touched))
        return insert(task.text, [(s.stop, f", {phrase}") for s, phrase in zip(touched, phrases, strict=True)]) or None

    return rule


def emoji(task: Task) -> str | None:
    """An emoji behind half of the sentences."""
    touched = draw_half(sentences(task.text, task.language), task, "emoji")
    marks = draw_words(EMOJI, task, "emoji", len(touched))
    return insert(task.text, [(s.end, f" {mark}") for s, mark in zip(touched, marks, strict=True)]) or None


def last_paragraph(words: Words, stream: str) -> Rule:
    """The rule that adds one of the sentences as a last paragraph."""

    def rule(task: Task) -> str | None:
        return _with_last(task.text, draw_words(words[task.language], task, stream, 1)[0])

    return rule


def self_name(task: Task) -> str | None:
    """A last paragraph says that the judge's own model wrote the text; None without a name."""
    name = " ".join(task.judge_name.split())
    return _with_last(task.text, SELF_NAME[task.language][0].format(name=name)) if name else None


def _with_last(text: str, sentence: str) -> str | None:
    """The text with the sentence as its last paragraph; None where that would not be prose, or the text is blank."""
    body = text.rstrip()
    if not body:
        return None
    edited = f"{body}\n\n{sentence}"
    # After an unclosed code fence it would be code.
    blocks = paragraphs(edited)
    return edited if blocks and blocks[-1].top and edited[blocks[-1].start :] == sentence else None


def without(phrases: Iterable[str], before: str) -> Check:
    """The check that original and edit are equal once every ``before + phrase`` is taken out of both."""
    pattern = "|".join(re.escape(before + phrase) for phrase in sorted(phrases, key=len, reverse=True))
    return lambda original, edited: re.sub(pattern, "", original) == re.sub(pattern, "", edited)


def same_but_last(words: Words) -> Check:
    """The check that the edit is the original and one more paragraph, which is one of the sentences."""
    forms = [
        re.escape(phrase).replace(re.escape("{name}"), r"[^\n]+") for phrases in words.values() for phrase in phrases
    ]
    pattern = rf"\n\n(?:{'|'.join(forms)})"

    def check(original: str, edited: str) -> bool:
        body = original.rstrip()
        return edited.startswith(body) and re.fullmatch(pattern, edited[len(body) :]) is not None

    return check


def all_phrases(words: Words) -> list[str]:
    """The phrases of every language."""
    return [phrase for phrases in words.values() for phrase in phrases]


hedges, hedges_kept = behind_sentences(HEDGES, "hedges"), without(all_phrases(HEDGES), ", ")
tone, tone_kept = behind_sentences(CONFIDENT, "tone"), without(all_phrases(CONFIDENT), ", ")
emoji_kept = without(EMOJI, " ")


# The layout alone: bold, lists, headings, all three, their removal, and white space

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
    measured: TextFeatures = _measured(text)
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


# Padding: the text grows to a dose by repetitions of its own sentences

TOLERANCE = 0.1
"""The length reached is within this share of the dose's, in tokens; else the edit does not apply."""

_BALANCED = ("**", "`", "$", '"')
_ROUNDS = 4
_AIM = 0.02
"""Nothing more is added once the length is within this share of the dose's."""


@dataclass(frozen=True, slots=True)
class _Repeat:
    """One addition: ``written`` goes in at ``place`` of the text and adds ``cost`` tokens; ``order`` sorts those of a place."""

    place: int
    order: int
    written: str
    cost: int


def padding(task: Task) -> str | None:
    """The text, longer by the dose; None where the dose cannot be reached within TOLERANCE. All doses of a task repeat the
    sentences in one order."""
    assert task.dose is not None
    text, whole = task.text, tokens(task.text)
    need = round(task.dose * whole) - whole
    prose = sentences(text, task.language)
    if need < 1 or not prose:
        return None
    repeats = _repeats(task, prose, need, slack=int(_AIM * task.dose * whole))
    ordered = sorted(repeats, key=lambda repeat: (repeat.place, repeat.order))
    edited = insert(text, [(repeat.place, repeat.written) for repeat in ordered])
    return edited if abs(length_ratio(text, edited) / task.dose - 1.0) <= TOLERANCE else None


def _repeats(task: Task, prose: list[Sentence], need: int, slack: int) -> list[_Repeat]:
    """Sentences drawn without replacement, in several rounds, as long as they fit; then the one that comes closest."""
    text, rng = task.text, seeds.rng(task.seed, "edit", "padding", task.item_id)
    repeatable, places = _repeatable(text, prose), _places(prose)
    open_ends = {sentence.end for sentence in prose if not sentence.closed}
    leads = [LEADS[task.language][k] for k in rng.permutation(len(LEADS[task.language]))]
    closed: set[int] = set()
    repeats: list[_Repeat] = []

    def put(written: str, paragraph: Paragraph) -> _Repeat:
        place = places[paragraph.start]
        stop = "." if place in open_ends and place not in closed else ""
        return _Repeat(place, len(repeats), f"{stop} {written}", tokens(written) + len(stop))

    def repeat(sentence: Sentence, lead: str) -> _Repeat:
        written = text[sentence.start : sentence.end] + ("" if sentence.closed else ".")
        return put(" ".join([lead, *written.split()]).lstrip(), sentence.paragraph)

    def add(addition: _Repeat) -> None:
        nonlocal need
        if addition.written.startswith("."):
            closed.add(addition.place)
        repeats.append(addition)
        need -= addition.cost

    for _ in range(_ROUNDS if repeatable else 0):
        for place in rng.permutation(len(repeatable)).tolist():
            addition = repeat(repeatable[place], leads[len(repeats) % len(leads)])
            if addition.cost <= need + slack:
                add(addition)
            if need <= slack:
                return repeats
    spare = [repeat(sentence, lead) for sentence in _shortest(repeatable) for lead in (*leads, "")]
    spare += [put(reminder, prose[-1].paragraph) for reminder in REMINDERS[task.language]]
    best = min(spare, key=lambda addition: abs(need - addition.cost))
    if abs(need - best.cost) < abs(need):
        add(best)
    return repeats


def _repeatable(text: str, prose: list[Sentence]) -> list[Sentence]:
    """The sentences that can be repeated by themselves: all marks paired, and no colon at the end; the text's last sentence
    only where there is no other, so that the conclusion is not repeated."""
    whole = [
        sentence
        for sentence in prose
        if not any(text.count(mark, sentence.start, sentence.end) % 2 for mark in _BALANCED)
        and text.count("(", sentence.start, sentence.end) == text.count(")", sentence.start, sentence.end)
        and text[sentence.end - 1] not in ":;,-|"
        and len(words(text[sentence.start : sentence.end])) >= 2
    ]
    return [sentence for sentence in whole if sentence != prose[-1]] or whole


def _shortest(repeatable: list[Sentence]) -> list[Sentence]:
    return sorted(repeatable, key=lambda sentence: sentence.end - sentence.start)[:8]


def _places(prose: list[Sentence]) -> dict[int, int]:
    """The place of a paragraph's repeats, by its start: after its last sentence; in the text's last paragraph after the
    last but one, if it has several."""
    ends: dict[int, list[int]] = {}
    for sentence in prose:
        ends.setdefault(sentence.paragraph.start, []).append(sentence.end)
    last = prose[-1].paragraph.start
    return {
        start: sentence_ends[-2] if start == last and len(sentence_ends) > 1 else sentence_ends[-1]
        for start, sentence_ends in ends.items()
    }


def padding_kept(original: str, edited: str) -> bool:
    """Whether the original's words are in the edit in their order, and the edit's other words are the original's or
    those of one language's leads and reminders; no number is new."""
    before, after = words(original), words(edited)
    remaining = iter(after)
    if not all(word in remaining for word in before):
        return False
    added = set(Counter(after) - Counter(before))
    return any(added <= {*before, *_vocabulary(language)} for language in LEADS)


@functools.cache
def _vocabulary(language: str) -> frozenset[str]:
    return frozenset(word for phrase in (*LEADS[language], *REMINDERS[language]) for word in words(phrase))
