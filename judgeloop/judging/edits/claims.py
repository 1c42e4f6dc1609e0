"""Edits that add a few words without content: hedges, a confident tone, emoji, and claims about the text itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from judgeloop import seeds
from judgeloop.judging.edits.probe import Check, Rule, Task
from judgeloop.judging.edits.sentences import Sentence, sentences
from judgeloop.judging.lexicon import CONFIDENT, EMOJI, HEDGES, SELF_NAME, Words
from judgeloop.text.markdown import paragraphs

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
    pattern = re.compile("|".join(re.escape(before + phrase) for phrase in sorted(phrases, key=len, reverse=True)))
    return lambda original, edited: pattern.sub("", original) == pattern.sub("", edited)


def same_but_last(words: Words) -> Check:
    """The check that the edit is the original and one more paragraph, which is one of the sentences."""
    forms = [
        re.escape(phrase).replace(re.escape("{name}"), r"[^\n]+") for phrases in words.values() for phrase in phrases
    ]
    pattern = re.compile(rf"\n\n(?:{'|'.join(forms)})")

    def check(original: str, edited: str) -> bool:
        body = original.rstrip()
        return edited.startswith(body) and pattern.fullmatch(edited, len(body)) is not None

    return check


def all_phrases(words: Words) -> list[str]:
    """The phrases of every language."""
    return [phrase for phrases in words.values() for phrase in phrases]


hedges, hedges_kept = behind_sentences(HEDGES, "hedges"), without(all_phrases(HEDGES), ", ")
tone, tone_kept = behind_sentences(CONFIDENT, "tone"), without(all_phrases(CONFIDENT), ", ")
emoji_kept = without(EMOJI, " ")
