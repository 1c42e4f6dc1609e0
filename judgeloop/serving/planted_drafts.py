"""Planted drafts: English-looking Markdown of a planned length, from a small list of words."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from judgeloop import seeds
from judgeloop.serving.planted_spec import DraftSpec, PlantedSpec
from judgeloop.text.features import tokenize

_MOST_TOKENS = 8192

# None of these is a hedge, a transition or any other counted feature: a draft's style is what its spec says.
_ADJECTIVES = [
    "small",
    "quiet",
    "early",
    "warm",
    "simple",
    "bright",
    "steady",
    "careful",
    "local",
    "common",
    "deep",
    "recent",
    "plain",
    "open",
    "useful",
    "public",
    "narrow",
    "fresh",
    "solid",
    "strong",
    "calm",
    "direct",
    "modern",
    "broad",
]
_NOUNS = [
    "river",
    "garden",
    "teacher",
    "window",
    "market",
    "letter",
    "station",
    "harvest",
    "bridge",
    "valley",
    "engine",
    "library",
    "winter",
    "village",
    "method",
    "answer",
    "kitchen",
    "forest",
    "doctor",
    "signal",
    "history",
    "table",
    "morning",
    "question",
    "village",
    "machine",
    "island",
    "student",
    "paper",
    "road",
]
_VERBS = [
    "carries",
    "follows",
    "changes",
    "keeps",
    "supports",
    "shapes",
    "reaches",
    "holds",
    "explains",
    "joins",
    "covers",
    "brings",
    "moves",
    "needs",
    "shows",
    "meets",
    "opens",
    "crosses",
    "serves",
    "fills",
]
_PREPOSITIONS = ["near", "beyond", "under", "behind", "across", "beside", "above", "within"]
_PATTERN = ("the", _ADJECTIVES, _NOUNS, _VERBS, "the", _NOUNS, _PREPOSITIONS, "the", _ADJECTIVES, _NOUNS, "and", "then")
# Words after which the pattern is a whole sentence.
_SENTENCE_LENGTHS = (6, 10, 10, 18)
_SENTENCES_A_PARAGRAPH = 4


def draft_text(spec: PlantedSpec, name: str, body_seed: int, exemplars: Sequence[str]) -> str:
    """The draft of the call ``name``: a text of 1 to 8192 whole tokens.

    log2 tokens ~ N((1 − follow)·log2 length_mean + follow·mean log2 tokens of the ``exemplars``, length_sd²). ``body_seed``
    is the request's seed: another one gives another draft.
    """
    draft = spec.draft
    generator = seeds.rng(spec.seed, "draft", name, body_seed)
    # The length is drawn first, so that it does not depend on the words and marks.
    log2_tokens = planned_log2_tokens(draft, exemplars) + draft.length_sd * generator.standard_normal()
    tokens = min(max(round(2.0 ** min(log2_tokens, 14.0)), 1), _MOST_TOKENS)
    quality = draft.quality_mean + draft.quality_sd * generator.standard_normal()
    marker = ""
    if spec.quality_marker is not None and (draft.quality_mean or draft.quality_sd):
        marker = f"{spec.quality_marker}{quality:.3f}{_closing(spec.quality_marker)}"
    return _markdown_text(generator, tokens, draft.markdown, marker)


_TRAINED = re.compile(r"(.+)@length_mean=(\d{1,4}(?:\.\d{1,12})?)")


def trained(spec: PlantedSpec, model: str) -> PlantedSpec | None:
    """The spec by which ``model`` drafts: the server's own for its names; with another median length for a name such as
    ``planted@length_mean=80``, by which a training of a planted policy is played; None for any other."""
    name = _TRAINED.fullmatch(model)
    if name is None or name[1] not in spec.model or not 1 <= float(name[2]) <= _MOST_TOKENS:
        return spec if model in spec.model else None
    return spec.model_copy(update={"draft": spec.draft.model_copy(update={"length_mean": float(name[2])})})


def planned_log2_tokens(draft: DraftSpec, exemplars: Sequence[str]) -> float:
    """The mean of a draft's log2 tokens, given the exemplars of the request."""
    base = math.log2(draft.length_mean)
    if not exemplars:
        return base
    exemplar_mean = sum(math.log2(max(len(tokenize(text)), 1)) for text in exemplars) / len(exemplars)
    return (1 - draft.follow) * base + draft.follow * exemplar_mean


def exemplar_texts(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The texts of the assistant's turns, each of which is one exemplar of the drafting prompt."""
    return [
        str(message["content"]) for message in messages if message.get("role") == "assistant" and message["content"]
    ]


def _closing(marker: str) -> str:
    """The bracket that closes a marker's opening one; empty where it opens none."""
    return {"[": "]", "(": ")", "{": "}", "<": ">"}.get(marker[0], "")


def _markdown_text(generator: np.random.Generator, tokens: int, markdown: float, marker: str) -> str:
    """A text of ``tokens`` tokens (never fewer than the marker has), with the marker after its first sentence."""
    remaining = tokens - len(tokenize(marker))
    blocks: list[str] = []
    in_paragraph = 0
    marked = not marker
    while remaining > 0:
        kind = generator.choice(("bold", "item", "heading")) if generator.random() < markdown else "plain"
        piece = _sentence(generator, int(generator.choice(_SENTENCE_LENGTHS)), str(kind))
        if len(tokenize(piece)) >= remaining:
            piece, kind = _plain_text(generator, remaining), "plain"
        remaining -= len(tokenize(piece))
        own_block = kind in ("item", "heading")
        # Behind a heading the marker would become part of it: it waits for the next sentence.
        if not marked and kind != "heading":
            piece, marked = f"{piece} {marker}", True
        if own_block or in_paragraph == 0 or in_paragraph >= _SENTENCES_A_PARAGRAPH:
            blocks.append(piece)
        else:
            blocks[-1] += f" {piece}"
        in_paragraph = 0 if own_block else in_paragraph % _SENTENCES_A_PARAGRAPH + 1
    return "\n\n".join(blocks if marked else [*blocks, marker])


def _words(generator: np.random.Generator, count: int) -> list[str]:
    """Words by the pattern, the first with a capital."""
    words = []
    for place in range(count):
        slot = _PATTERN[place % len(_PATTERN)]
        words.append(slot if isinstance(slot, str) else slot[int(generator.integers(len(slot)))])
    words[0] = words[0].capitalize()
    return words


def _sentence(generator: np.random.Generator, count: int, kind: str) -> str:
    """A sentence of ``count`` words with the mark of its kind; a heading has three words of it."""
    words = _words(generator, count)
    if kind == "heading":
        return "## " + " ".join(words[:3])
    if kind == "bold":
        return f"**{' '.join(words[:3])}** {' '.join(words[3:])}."
    return ("- " if kind == "item" else "") + " ".join(words) + "."


def _plain_text(generator: np.random.Generator, tokens: int) -> str:
    """Words without marks, with a full stop that counts as a token, of ``tokens`` tokens in all."""
    if tokens == 1:
        return _words(generator, 1)[0]
    return " ".join(_words(generator, tokens - 1)) + "."
