"""Padding by restatement: the text grows to a dose by repetitions of its own sentences, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from judgeloop import seeds
from judgeloop.judging.edits.claims import insert
from judgeloop.judging.edits.probe import Task, length_ratio, tokens, words
from judgeloop.judging.edits.sentences import Sentence, sentences
from judgeloop.judging.lexicon import LEADS, REMINDERS
from judgeloop.text.markdown import Paragraph

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
    return any(added <= {*before, *_VOCABULARY[language]} for language in _VOCABULARY)


_VOCABULARY = {
    language: frozenset(word for phrase in (*LEADS[language], *REMINDERS[language]) for word in words(phrase))
    for language in LEADS
}
