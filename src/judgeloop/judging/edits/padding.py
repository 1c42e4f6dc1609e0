"""Padding by restatement: the text grows to a dose by sentences that say again what it says, and nothing else."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from judgeloop import seeds
from judgeloop.judging.edits.claims import inserted
from judgeloop.judging.edits.lexicon import LEADS, REMINDERS
from judgeloop.judging.edits.probe import Task, length_ratio, tokens, words
from judgeloop.judging.edits.sentences import Sentence, sentences
from judgeloop.markdown import Paragraph

TOLERANCE = 0.1
"""The length reached is within this share of the dose's, in tokens; else the edit does not apply."""

_BALANCED = ("**", "`", "$", '"')
_ROUNDS = 4
_AIM = 0.02
"""Closer than this share of the whole, nothing more is added."""


@dataclass(frozen=True, slots=True)
class _Repeat:
    """``written`` is put in at ``place``; it costs ``cost`` tokens."""

    place: int
    order: int
    written: str
    cost: int


def padding(task: Task) -> str | None:
    """The text, longer by the dose. A smaller dose of the same task adds a beginning of what a larger one draws from."""
    assert task.dose is not None
    text, whole = task.text, tokens(task.text)
    need = round(task.dose * whole) - whole
    said = sentences(text, task.language)
    if need < 1 or not said:
        return None
    repeats = _repeats(task, said, need, slack=int(_AIM * task.dose * whole))
    ordered = sorted(repeats, key=lambda one: (one.place, one.order))
    edited = inserted(text, [(one.place, one.written) for one in ordered])
    return edited if abs(length_ratio(text, edited) / task.dose - 1.0) <= TOLERANCE else None


def _repeats(task: Task, said: list[Sentence], need: int, slack: int) -> list[_Repeat]:
    """Sentences drawn without replacement, round after round, as long as they fit; then whatever comes closest."""
    text, rng = task.text, seeds.rng(task.seed, "edit", "padding", task.item_id)
    again, places = _repeatable(text, said), _places(said)
    open_ends = {sentence.end for sentence in said if not sentence.closed}
    leads = [LEADS[task.language][k] for k in rng.permutation(len(LEADS[task.language]))]
    closed: set[int] = set()
    made: list[_Repeat] = []

    def put(written: str, paragraph: Paragraph) -> _Repeat:
        place = places[paragraph.start]
        stop = "." if place in open_ends and place not in closed else ""
        return _Repeat(place, len(made), f"{stop} {written}", tokens(written) + len(stop))

    def repeat(sentence: Sentence, lead: str) -> _Repeat:
        written = text[sentence.start : sentence.end] + ("" if sentence.closed else ".")
        return put(" ".join([lead, *written.split()]).lstrip(), sentence.paragraph)

    def add(one: _Repeat) -> None:
        nonlocal need
        if one.written.startswith("."):
            closed.add(one.place)
        made.append(one)
        need -= one.cost

    for _ in range(_ROUNDS if again else 0):
        for place in rng.permutation(len(again)).tolist():
            one = repeat(again[place], leads[len(made) % len(leads)])
            if one.cost <= need + slack:
                add(one)
            if need <= slack:
                return made
    spare = [repeat(sentence, lead) for sentence in _shortest(again) for lead in (*leads, "")]
    spare += [put(reminder, said[-1].paragraph) for reminder in REMINDERS[task.language]]
    best = min(spare, key=lambda one: abs(need - one.cost))
    if abs(need - best.cost) < abs(need):
        add(best)
    return made


def _repeatable(text: str, said: list[Sentence]) -> list[Sentence]:
    """Sentences that can stand again by themselves: all marks paired, not a colon's first half; and not the text's last
    one where there are others, so that the conclusion stays the last word."""
    found = [
        sentence
        for sentence in said
        if not any(text.count(mark, sentence.start, sentence.end) % 2 for mark in _BALANCED)
        and text.count("(", sentence.start, sentence.end) == text.count(")", sentence.start, sentence.end)
        and text[sentence.end - 1] not in ":;,-|"
        and len(words(text[sentence.start : sentence.end])) >= 2
    ]
    return [sentence for sentence in found if sentence != said[-1]] or found


def _shortest(again: list[Sentence]) -> list[Sentence]:
    return sorted(again, key=lambda sentence: sentence.end - sentence.start)[:8]


def _places(said: list[Sentence]) -> dict[int, int]:
    """Paragraph's start → where its repeats go: behind its last sentence; in the text's last paragraph before that one,
    if it has others."""
    ends: dict[int, list[int]] = {}
    for sentence in said:
        ends.setdefault(sentence.paragraph.start, []).append(sentence.end)
    last = said[-1].paragraph.start
    return {start: found[-2] if start == last and len(found) > 1 else found[-1] for start, found in ends.items()}


def padding_kept(original: str, edited: str) -> bool:
    """Whether the original's words stand in the edit in their order, and the edit's other words are the original's or
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
