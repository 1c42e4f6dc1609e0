"""Texts as arrays: codes of their tokens, n-grams of those codes, and embeddings of the wording.

A text is an array of codes, one a case-folded token. The diversity measures and the tail compute with these arrays.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EMBEDDING_SIZE = 1024
EMPTY_AXIS = EMBEDDING_SIZE - 1
"""The axis on which a text without tokens lies; no n-gram adds to it."""

_MOST_PAIRS = 1_000_000
"""Pairs of words after which the embedder starts anew, to bound its memory."""


class Vocabulary:
    """Codes of case-folded tokens, in order of appearance."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._codes: dict[str, int] = {}

    def codes(self, tokens: Sequence[str]) -> Integers:
        """(tokens,) the code of each token; tokens that differ in case alone share one."""
        code_of, codes = self._codes, np.empty(len(tokens), dtype=np.int64)
        for place, token in enumerate(tokens):
            word = token.casefold()
            code = code_of.get(word)
            if code is None:
                code = code_of[word] = len(self.words)
                self.words.append(word)
            codes[place] = code
        return codes


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts laid end to end.

    ``codes`` (tokens,): the tokens' codes; ``text`` (tokens,): the number of each token's text; ``items`` (texts,): each
    text's item as a number from 0.
    """

    codes: Integers
    text: Integers
    items: Integers

    @classmethod
    def of(cls, texts: Sequence[Integers], items: Integers) -> Tokens:
        """From the codes of each text, and the texts' items (texts,)."""
        sizes = np.array([len(codes) for codes in texts], dtype=np.int64)
        flat = np.concatenate(texts) if len(texts) else np.empty(0, dtype=np.int64)
        return cls(flat, np.repeat(np.arange(len(texts)), sizes), np.asarray(items, dtype=np.int64))

    def ngrams(self, n: int) -> list[tuple[Integers, Integers]]:
        """For each order 1 … n: (grams, text), the n-grams as numbers and the text of each, both (n-grams,); none spans two texts."""
        width = int(self.codes.max(initial=0)) + 1
        ids, starts = self.codes, np.arange(len(self.codes))
        by_order = [(ids, self.text)]
        for order in range(2, n + 1):
            # A longer gram is a shorter one and the token after it, in the same text.
            last = starts + order - 1
            inside = last < len(self.text)
            inside[inside] = self.text[last[inside]] == self.text[starts[inside]]
            starts = starts[inside]
            ids = pd.factorize(ids[inside] * width + self.codes[starts + order - 1])[0].astype(np.int64)
            by_order.append((ids, self.text[starts]))
        return by_order


def hashed(gram: str) -> tuple[int, float]:
    """The axis that an n-gram adds to, and its sign (±1)."""
    number = int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return number // 2 % EMPTY_AXIS, 1.0 if number % 2 else -1.0


class Embedder:
    """Fixed offline embeddings of texts given by their codes: rows of unit length. Each n-gram is hashed once.

    Signed feature hashing (Weinberger et al. 2009) of case-folded words, pairs of successive words and character
    trigrams within words (with their edges): each n-gram adds ±(1 + log count) to the axis that its BLAKE2b hash names.
    Nothing is fitted, so that a text's vector does not depend on the other texts, the run or the machine. It describes
    wording, not meaning. A text without tokens lies on an axis of its own.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary.words
        self._axes: list[int] = []
        self._signs: list[float] = []
        self._grams: dict[str, int] = {}
        self._pairs: dict[int, int] = {}
        self._grams_by_word: list[Integers] = []
        self._logs = [0.0, 1.0]

    def embed(self, texts: Sequence[Integers]) -> Floats:
        """(texts, EMBEDDING_SIZE) embeddings, rows of unit length."""
        if len(self._pairs) > _MOST_PAIRS:
            self._forget()
        joined = Tokens.of(texts, np.zeros(len(texts), dtype=np.int64))
        # Words, pairs, then trigrams: sums round alike whatever was embedded before.
        while len(self._grams_by_word) < len(self._words):
            self._grams_by_word.append(self._word_grams(self._words[len(self._grams_by_word)]))
        word_grams = np.array([grams[0] for grams in self._grams_by_word], dtype=np.int64)
        inner = joined.text[1:] == joined.text[:-1]
        pairs = self._pair_grams(joined.codes[:-1][inner], joined.codes[1:][inner])
        parts = [self._grams_by_word[code][1:] for code in joined.codes.tolist()]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        grams = np.concatenate([word_grams[joined.codes] if len(word_grams) else joined.codes, pairs, *parts])
        text = np.concatenate([joined.text, joined.text[:-1][inner], np.repeat(joined.text, sizes)])
        return self._vectors(grams, text, len(texts))

    def _vectors(self, grams: Integers, text: Integers, n: int) -> Floats:
        width = len(self._axes) + 1
        codes, keys = pd.factorize(text * width + grams)
        counts = np.bincount(codes)
        while len(self._logs) <= int(counts.max(initial=0)):
            self._logs.append(1.0 + math.log(len(self._logs)))
        gram, holder = keys % width, keys // width
        weights = np.array(self._signs)[gram] * np.array(self._logs)[counts] if len(keys) else np.empty(0)
        axes = np.array(self._axes, dtype=np.int64)[gram] if len(keys) else gram
        size = EMBEDDING_SIZE
        summed = np.bincount(holder * size + axes, weights=weights, minlength=n * size)
        rows = np.asarray(summed, dtype=np.float64).reshape(n, size)
        for row in rows:
            norm = float(np.linalg.norm(row))
            if norm > 0.0:
                row /= norm
            else:
                row[EMPTY_AXIS] = 1.0
        return rows

    def _gram(self, gram: str) -> int:
        number = self._grams.get(gram)
        if number is None:
            number = self._grams[gram] = self._add(gram)
        return number

    def _add(self, gram: str) -> int:
        axis, sign = hashed(gram)
        self._axes.append(axis)
        self._signs.append(sign)
        return len(self._axes) - 1

    def _word_grams(self, word: str) -> Integers:
        edged = f"\x02{word}\x03"
        grams = [f"w {word}", *(f"c {edged[i : i + 3]}" for i in range(len(edged) - 2))]
        return np.array([self._gram(gram) for gram in grams], dtype=np.int64)

    def _pair_grams(self, left: Integers, right: Integers) -> Integers:
        """The gram of each pair of successive words, (pairs,). Only these grow with the amount of text (see ``_MOST_PAIRS``)."""
        codes, keys = pd.factorize(left * (1 << 31) + right)
        gram_of, grams = self._pairs, []
        for key in keys.tolist():
            gram = gram_of.get(key)
            if gram is None:
                first, second = self._words[key >> 31], self._words[key & ((1 << 31) - 1)]
                gram = gram_of[key] = self._add(f"p {first} {second}")
            grams.append(gram)
        return np.array(grams, dtype=np.int64)[codes] if grams else np.empty(0, dtype=np.int64)

    def _forget(self) -> None:
        self._pairs.clear()
        self._grams.clear()
        self._axes.clear()
        self._signs.clear()
        self._grams_by_word = [self._word_grams(word) for word in self._words]
