"""The diversity measures of many items' texts at once, on arrays of token codes.

A text is an array of codes, one a case-folded token. Every measure grows or falls with the amount of text: fix it first.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# Diversity of texts: how varied a text is in itself, and a set of texts among themselves (docs/method.md, "Diversity").

BLOCK_BYTES = 32_768
"""DEFLATE looks back this far, so no block is larger."""

EMBEDDING_SIZE = 1024
EMPTY_AXIS = EMBEDDING_SIZE - 1
# Floating-point noise of a Gram matrix, relative to its largest eigenvalue of at most 1.
EIGENVALUE_FLOOR = 1e-12


def truncation_length(token_counts: Sequence[int]) -> int:
    """L: the 5th percentile of generation 0's token counts, an observed count (inverse of the empirical distribution).

    Fewer than 5 % of the counts are below it. Raises ValueError for no counts.
    """
    if len(token_counts) == 0:
        raise ValueError("the truncation length needs the token counts of generation 0; there are none")
    return int(np.quantile(np.asarray(token_counts, dtype=np.int64), 0.05, method="inverted_cdf"))


def through(text: str, tokens: Sequence[str]) -> str:
    """The text up to the end of the last of ``tokens``, which are its first ones."""
    end = 0
    # Between tokens stand only characters that cannot begin one, so the next occurrence is the token itself.
    for token in tokens:
        end = text.index(token, end) + len(token)
    return text[:end]


def mattr_window(truncation: int) -> int | None:
    """The run's window for `mattr`: 50 where L ≥ 50, else the largest multiple of 10 ≤ L; None below 20
    (docs/method.md, "Diversity")."""
    if truncation < 20:
        return None
    return min(50, truncation // 10 * 10)


def mattr(tokens: Sequence[str], window: int | None) -> float | None:
    """Moving-average type-token ratio in (0, 1] (Covington & McFall 2010): positive = more varied words in a text.

    Mean over all windows of ``window`` successive tokens of (distinct tokens / window), in O(n). None where the text is
    shorter than the window or the window is None. Raises ValueError for a window below 1.
    """
    if window is None:
        return None
    if window < 1:
        raise ValueError(f"window must be 1 or more tokens, not {window}")
    words = [token.casefold() for token in tokens]
    if len(words) < window:
        return None
    seen: Counter[str] = Counter(words[:window])
    total = types = len(seen)
    for leaving, entering in zip(words, words[window:], strict=False):
        seen[leaving] -= 1
        types -= seen[leaving] == 0
        types += seen[entering] == 0
        seen[entering] += 1
        total += types
    return total / (window * (len(words) - window + 1))


def compression_ratio(texts: Iterable[str]) -> float | None:
    """Bytes / DEFLATE bytes of the texts: higher = more redundant, less diverse (Shaib et al. 2024). None without text.

    The texts, each ended by a line feed, are packed in the order given into blocks of at most 32 KB of UTF-8, since
    DEFLATE sees no further back; each block is compressed on its own (raw stream, level 9), and the ratio is that of
    the sums. A block holds whole texts unless one text is larger. Small sets compress badly: compare equal sizes.
    """
    raw = packed = 0
    block = bytearray()

    def close() -> int:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        size = len(deflate.compress(bytes(block))) + len(deflate.flush())
        block.clear()
        return size

    for text in texts:
        if not text:
            continue
        data = text.encode("utf-8", "surrogatepass") + b"\n"
        raw += len(data)
        for start in range(0, len(data), BLOCK_BYTES):
            if block and len(block) + len(data) - start > BLOCK_BYTES:
                packed += close()
            block += data[start : start + BLOCK_BYTES]
    if not raw:
        return None
    return raw / (packed + close())


def opener_counts_entropy(openers: Counter[Any]) -> float | None:
    """Entropy in nats of counted openers (the texts' first tokens), Miller–Madow: higher = more varied openers.

    −Σ p log p + (m − 1) / 2n for m observed openers of n texts (Miller 1955). None without texts.
    """
    n = openers.total()
    if n == 0:
        return None
    plug_in = -math.fsum(count / n * math.log(count / n) for count in openers.values())
    return plug_in + (len(openers) - 1) / (2 * n)


def hashed(gram: str) -> tuple[int, float]:
    """The axis that an n-gram is added to, and its sign."""
    number = int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return number // 2 % EMPTY_AXIS, 1.0 if number % 2 else -1.0


Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_PAIRS = 1_000_000


class Vocabulary:
    """Codes of case-folded tokens, in order of appearance."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._codes: dict[str, int] = {}

    def codes(self, tokens: Sequence[str]) -> Integers:
        """(tokens,) a code a token; tokens that differ in case alone share one."""
        known, made = self._codes, np.empty(len(tokens), dtype=np.int64)
        for place, token in enumerate(tokens):
            word = token.casefold()
            code = known.get(word)
            if code is None:
                code = known[word] = len(self.words)
                self.words.append(word)
            made[place] = code
        return made


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts laid end to end: ``codes`` and ``text`` (the token's text), both (tokens,), and ``items``, (texts,) the text's item
    as a number from 0."""

    codes: Integers
    text: Integers
    items: Integers

    @classmethod
    def of(cls, texts: Sequence[Integers], items: Integers) -> Tokens:
        """From a text's codes each."""
        sizes = np.array([len(codes) for codes in texts], dtype=np.int64)
        flat = np.concatenate(texts) if len(texts) else np.empty(0, dtype=np.int64)
        return cls(flat, np.repeat(np.arange(len(texts)), sizes), np.asarray(items, dtype=np.int64))

    def ngrams(self, n: int) -> list[tuple[Integers, Integers]]:
        """Orders 1 … n: (grams, text), a number each n-gram and the text that it stands in; none spans two texts."""
        width = int(self.codes.max(initial=0)) + 1
        ids, starts = self.codes, np.arange(len(self.codes))
        found = [(ids, self.text)]
        for order in range(2, n + 1):
            # A longer gram is a shorter one and the token after it, in the same text.
            last = starts + order - 1
            inside = last < len(self.text)
            inside[inside] = self.text[last[inside]] == self.text[starts[inside]]
            starts = starts[inside]
            ids = pd.factorize(ids[inside] * width + self.codes[starts + order - 1])[0].astype(np.int64)
            found.append((ids, self.text[starts]))
        return found


def distinct_share(grams: Integers, items: Integers, count: int) -> Floats:
    """(count,) distinct n-grams / n-grams of each item, in (0, 1]: higher = more diverse (Li et al. 2016); NaN where it has
    none. ``grams``, ``items``: (n-grams,)."""
    total = np.bincount(items, minlength=count)
    keys = np.unique(items * (int(grams.max(initial=0)) + 1) + grams)
    distinct = np.bincount(keys // (int(grams.max(initial=0)) + 1), minlength=count)
    return _ratio(distinct, total, total > 0)


def shared_share(grams: Integers, items: Integers) -> float | None:
    """Share of the n-grams, in [0, 1], that a text of another item holds too: higher = stock phrases, less diverse.

    Phrases that an item's own question calls for do not count, for they are looked for in other items' texts alone
    (self-repetition, Salkar et al. 2022, across prompts). None where fewer than two items have an n-gram.
    """
    if len(grams) == 0 or int(items.min()) == int(items.max()):
        return None
    width = int(items.max()) + 1
    holders = np.bincount(np.unique(grams * width + items) // width, minlength=int(grams.max()) + 1)
    return int(np.sum(holders[grams] > 1)) / len(grams)


def coded_self_bleu(texts: Tokens, ngrams: Sequence[tuple[Integers, Integers]], count: int) -> Floats:
    """(count,) mean BLEU of each of an item's texts against its others, in [0, 1]: higher = more alike, less diverse (Zhu et
    al. 2018); NaN where fewer than two have tokens.

    Sentence BLEU with clipped counts over orders 1 … 4 (those the text is long enough for), the closest reference's
    brevity penalty (the shorter on a tie), and 1/2ᵏ for the k-th order without a match (NIST smoothing, sacrebleu's
    `exp`). ``ngrams``: orders 1 … 4 of ``texts``; the texts of an item stand together.
    """
    n = len(texts.items)
    sizes = np.bincount(texts.text, minlength=n)
    logs, orders, smoothing = np.zeros(n), np.zeros(n), np.ones(n)
    for grams, text in ngrams:
        total = np.bincount(text, minlength=n)
        matched = _matched(grams, text, texts.items, n)
        some = total > 0
        none = some & (matched == 0)
        smoothing[none] *= 2.0
        share = np.where(none, 1.0 / (smoothing * np.maximum(total, 1)), matched / np.maximum(total, 1))
        logs[some] += np.log(share[some])
        orders += some
    present = sizes > 0
    brevity = np.minimum(0.0, 1.0 - _closest(sizes, texts.items) / np.maximum(sizes, 1))
    scores = np.exp(brevity + logs / np.maximum(orders, 1))
    held = np.bincount(texts.items[present], minlength=count)
    summed = np.bincount(texts.items[present], weights=scores[present], minlength=count)
    return _ratio(summed, held, held >= 2)


def _ratio(above: NDArray[Any], below: NDArray[Any], where: NDArray[np.bool_]) -> Floats:
    ratio = np.full(len(below), np.nan)
    ratio[where] = above[where] / below[where]
    return ratio


def _matched(grams: Integers, text: Integers, items: Integers, n: int) -> Integers:
    """(n,) n-grams of each text that another text of its item holds, clipped at the most that one of them holds."""
    if len(grams) == 0:
        return np.zeros(n, dtype=np.int64)
    width = int(grams.max()) + 1
    keys, own = np.unique(text * width + grams, return_counts=True)
    holder, gram = keys // width, keys % width
    group = items[holder] * width + gram
    order = np.lexsort((-own, group))
    first = np.ones(len(order), dtype=bool)
    first[1:] = group[order][1:] != group[order][:-1]
    starts = np.flatnonzero(first)
    ends = np.append(starts[1:], len(order))
    largest = own[order][starts]
    second = np.where(ends - starts > 1, own[order][np.minimum(starts + 1, len(order) - 1)], 0)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.cumsum(first) - 1
    clip = np.where(own == largest[place], second[place], largest[place])
    return np.bincount(holder, weights=np.minimum(own, clip), minlength=n).astype(np.int64)


def _closest(sizes: Integers, items: Integers) -> Integers:
    """(texts,) the size of the item's other text that is closest in size, the smaller on a tie; texts without tokens are
    none, and a text alone has its own."""
    closest = sizes.copy()
    far = np.iinfo(np.int64).max
    best = np.full(len(sizes), far, dtype=np.int64)
    scale = int(sizes.max(initial=0)) + 1
    # The j-th text after each, as long as it is of the same item: as many rounds as the largest item has texts.
    for step in range(1, int(np.bincount(items).max(initial=0))):
        same = np.flatnonzero((items[step:] == items[:-step]) & (sizes[step:] > 0) & (sizes[:-step] > 0))
        for one, other in ((same, same + step), (same + step, same)):
            rank = np.abs(sizes[other] - sizes[one]) * scale + sizes[other]
            nearer = rank < best[one]
            best[one[nearer]] = rank[nearer]
            closest[one[nearer]] = sizes[other[nearer]]
    return closest


def coded_vendi(embeddings: Floats) -> Floats:
    """(items,) Vendi scores of (items, texts, d) embeddings by their cosine: 1 (all alike) … texts (all orthogonal).

    exp(−Σ λ log λ) of the eigenvalues of K/n, K the cosine similarities of n texts (Friedman & Dieng 2023). Fewer texts
    than d, and no zero row.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=2, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.transpose(0, 2, 1) / embeddings.shape[1])
    positive = np.where(eigenvalues > EIGENVALUE_FLOOR, eigenvalues, 1.0)
    return np.asarray(np.exp(-np.sum(positive * np.log(positive), axis=1)))


def coded_dispersion(embeddings: Floats) -> Floats:
    """(items,) mean squared distance to the centroid of (items, texts, d) embeddings: higher = more diverse."""
    gaps = embeddings - embeddings.mean(axis=1, keepdims=True)
    return np.asarray(np.mean(np.sum(gaps**2, axis=2), axis=1))


class Embedder:
    """Frozen offline embeddings of texts given by their codes, rows of unit length; an n-gram is hashed once.

    Signed feature hashing (Weinberger et al. 2009) of case-folded words, pairs of successive words and character
    trigrams within words (with their edges): each n-gram adds ±(1 + log count) to the axis that its BLAKE2b hash names.
    Nothing is fitted, so that a text's vector does not depend on the other texts, the run or the machine. It sees
    wording, not meaning. A text without tokens lies on an axis of its own.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary.words
        self._axes: list[int] = []
        self._signs: list[float] = []
        self._grams: dict[str, int] = {}
        self._pairs: dict[int, int] = {}
        self._of_word: list[Integers] = []
        self._logs = [0.0, 1.0]

    def embed(self, texts: Sequence[Integers]) -> Floats:
        """(texts, EMBEDDING_SIZE), rows of unit length."""
        if len(self._pairs) > _MOST_PAIRS:
            self._forget()
        joined = Tokens.of(texts, np.zeros(len(texts), dtype=np.int64))
        # Words, pairs, then trigrams: sums round alike whatever was embedded before.
        while len(self._of_word) < len(self._words):
            self._of_word.append(self._grams_of(self._words[len(self._of_word)]))
        whole = np.array([grams[0] for grams in self._of_word], dtype=np.int64)
        inner = joined.text[1:] == joined.text[:-1]
        pairs = self._paired(joined.codes[:-1][inner], joined.codes[1:][inner])
        parts = [self._of_word[code][1:] for code in joined.codes.tolist()]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        grams = np.concatenate([whole[joined.codes] if len(whole) else joined.codes, pairs, *parts])
        text = np.concatenate([joined.text, joined.text[:-1][inner], np.repeat(joined.text, sizes)])
        return self._summed(grams, text, len(texts))

    def _summed(self, grams: Integers, text: Integers, n: int) -> Floats:
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

    def _grams_of(self, word: str) -> Integers:
        edged = f"\x02{word}\x03"
        grams = [f"w {word}", *(f"c {edged[i : i + 3]}" for i in range(len(edged) - 2))]
        return np.array([self._gram(gram) for gram in grams], dtype=np.int64)

    def _paired(self, left: Integers, right: Integers) -> Integers:
        """The gram of each pair of successive words. Only these grow with the amount of text, so they are forgotten."""
        codes, keys = pd.factorize(left * (1 << 31) + right)
        known, found = self._pairs, []
        for key in keys.tolist():
            gram = known.get(key)
            if gram is None:
                one, two = self._words[key >> 31], self._words[key & ((1 << 31) - 1)]
                gram = known[key] = self._add(f"p {one} {two}")
            found.append(gram)
        return np.array(found, dtype=np.int64)[codes] if found else np.empty(0, dtype=np.int64)

    def _forget(self) -> None:
        self._pairs.clear()
        self._grams.clear()
        self._axes.clear()
        self._signs.clear()
        self._of_word = [self._grams_of(word) for word in self._words]
