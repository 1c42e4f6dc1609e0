"""Edits that add a few words which bear no content: hedges, a confident tone, emoji, and claims about the text itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from judgeloop import seeds
from judgeloop.judging.edits.lexicon import CONFIDENT, EMOJI, HEDGES, SELF_NAME, Words
from judgeloop.judging.edits.probe import Check, Rule, Task
from judgeloop.judging.edits.sentences import Sentence, sentences
from judgeloop.markdown import paragraphs

SHARE = 0.5
"""Share of the sentences that hedges, tone, emoji and bold touch; at least one."""


def chosen(found: list[Sentence], task: Task, stream: str) -> list[Sentence]:
    """Half of the sentences (at least one), drawn from the task's stream, in the text's order."""
    if not found:
        return []
    generator = seeds.rng(task.seed, "edit", stream, task.item_id)
    places = generator.choice(len(found), size=math.ceil(SHARE * len(found)), replace=False)
    return [found[place] for place in sorted(places.tolist())]


def drawn(words: tuple[str, ...], task: Task, stream: str, count: int) -> list[str]:
    """``count`` of the words, shuffled, each as often as the others."""
    order = seeds.rng(task.seed, "edit", stream, task.item_id, "words").permutation(len(words)).tolist()
    return [words[order[place % len(words)]] for place in range(count)]


def inserted(text: str, places: Iterable[tuple[int, str]]) -> str:
    """The text with each (place, addition) put in; places in ascending order."""
    parts, last = [], 0
    for place, addition in places:
        parts += [text[last:place], addition]
        last = place
    return "".join([*parts, text[last:]])


def behind_sentences(words: Words, stream: str) -> Rule:
    """Adds ``, <words>`` to half of the sentences that end in one full stop; where none does, to an answer without one."""

    def rule(task: Task) -> str | None:
        found = sentences(task.text, task.language)
        stated = [s for s in found if s.closed and task.text[s.stop : s.stop + 2].rstrip(" \n\"'”’»)]*_") == "."]
        stated = stated or [s for s in found[-1:] if not s.closed and task.text[s.end - 1].isalnum()]
        some = chosen(stated, task, stream)
        phrases = drawn(words[task.language], task, stream, len(some))
        return inserted(task.text, [(s.stop, f", {phrase}") for s, phrase in zip(some, phrases, strict=True)]) or None

    return rule


def emoji(task: Task) -> str | None:
    """An emoji behind half of the sentences."""
    some = chosen(sentences(task.text, task.language), task, "emoji")
    marks = drawn(EMOJI, task, "emoji", len(some))
    return inserted(task.text, [(s.end, f" {mark}") for s, mark in zip(some, marks, strict=True)]) or None


def last_paragraph(words: Words, stream: str) -> Rule:
    """Adds one of the sentences as a paragraph of its own at the end."""

    def rule(task: Task) -> str | None:
        return _with_last(task.text, drawn(words[task.language], task, stream, 1)[0])

    return rule


def self_name(task: Task) -> str | None:
    """Says at the end that the judge's own model wrote the text; None without a name."""
    name = " ".join(task.judge_name.split())
    return _with_last(task.text, SELF_NAME[task.language][0].format(name=name)) if name else None


def _with_last(text: str, sentence: str) -> str | None:
    body = text.rstrip()
    if not body:
        return None
    edited = f"{body}\n\n{sentence}"
    # Behind an unclosed code fence it would be code.
    found = paragraphs(edited)
    return edited if found and found[-1].top and edited[found[-1].start :] == sentence else None


def without(phrases: Iterable[str], before: str) -> Check:
    """Whether original and edit are the same text once every ``before + phrase`` is taken out of both."""
    pattern = re.compile("|".join(re.escape(before + one) for one in sorted(phrases, key=len, reverse=True)))
    return lambda original, edited: pattern.sub("", original) == pattern.sub("", edited)


def same_but_last(words: Words) -> Check:
    """Whether the edit is the original and one more paragraph, which is one of the sentences."""
    forms = [re.escape(one).replace(re.escape("{name}"), r"[^\n]+") for listed in words.values() for one in listed]
    pattern = re.compile(rf"\n\n(?:{'|'.join(forms)})")

    def check(original: str, edited: str) -> bool:
        body = original.rstrip()
        return edited.startswith(body) and pattern.fullmatch(edited, len(body)) is not None

    return check


def all_phrases(words: Words) -> list[str]:
    """The phrases of every language."""
    return [phrase for listed in words.values() for phrase in listed]


hedges, hedges_kept = behind_sentences(HEDGES, "hedges"), without(all_phrases(HEDGES), ", ")
tone, tone_kept = behind_sentences(CONFIDENT, "tone"), without(all_phrases(CONFIDENT), ", ")
emoji_kept = without(EMOJI, " ")
