"""The measures of diversity as they are defined, of one set of texts at a time: what the fast ones on codes are held against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from judgeloop.stats.loop import diversity
from judgeloop.stats.loop.diversity import EIGENVALUE_FLOOR, EMBEDDING_SIZE, EMPTY_AXIS, hashed, through
from judgeloop.text.features import tokenize

Floats = NDArray[np.float64]


def truncate(tokens: Sequence[str], limit: int) -> list[str]:
    """The first ``limit`` tokens; a shorter text as it is. Raises ValueError for a negative limit."""
    if limit < 0:
        raise ValueError(f"limit must be 0 or more tokens, not {limit}")
    return list(tokens[:limit])


def truncate_text(text: str, limit: int) -> str:
    """The text up to the end of its ``limit``-th token, as written (for the measures that take texts)."""
    return through(text, truncate(tokenize(text), limit))


def _ngrams(words: Sequence[str], n: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)), strict=False)


def distinct_n(tokenized: Iterable[Sequence[str]], n: int = 2) -> float | None:
    """Distinct n-grams / n-grams over all texts, in (0, 1]: higher = more diverse (Li et al. 2016).

    No n-gram crosses from one text to the next. Falls with the amount of text (Heaps): truncate first. None where no
    text has n tokens. Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    distinct: set[tuple[str, ...]] = set()
    total = 0
    for tokens in tokenized:
        grams = list(_ngrams([token.casefold() for token in tokens], n))
        total += len(grams)
        distinct.update(grams)
    return len(distinct) / total if total else None


def phrase_repetition(items: Iterable[Sequence[Sequence[str]]], n: int = 5) -> float | None:
    """Share of the n-grams, in [0, 1], that a text of another item holds too: higher = stock phrases, less diverse.

    ``items``: the tokenized texts of each item. Phrases that an item's own question calls for do not count, for they are
    looked for in other items' texts alone (self-repetition, Salkar et al. 2022, across prompts). Grows with the amount
    of text: fix it. None where fewer than two items have a text of n tokens. Raises ValueError for n below 1.
    """
    if n < 1:
        raise ValueError(f"n must be 1 or more, not {n}")
    by_item = [
        [gram for tokens in texts for gram in _ngrams([token.casefold() for token in tokens], n)] for texts in items
    ]
    by_item = [grams for grams in by_item if grams]
    if len(by_item) < 2:
        return None
    holders = Counter(gram for grams in by_item for gram in set(grams))
    total = sum(len(grams) for grams in by_item)
    return sum(holders[gram] > 1 for grams in by_item for gram in grams) / total


def opener_entropy(tokenized: Iterable[Sequence[str]], first: int = 3) -> float | None:
    """Entropy in nats of the texts' first ``first`` tokens, Miller–Madow: higher = more varied openers.

    −Σ p log p + (m − 1) / 2n for m observed openers of n texts (Miller 1955). A shorter text's opener is all of it.
    None without texts.
    """
    return diversity.opener_entropy(
        Counter(tuple(token.casefold() for token in tokens[:first]) for tokens in tokenized)
    )


def embed(texts: Sequence[str]) -> Floats:
    """Frozen offline embeddings, shape (len(texts), EMBEDDING_SIZE), rows of unit length.

    Signed feature hashing (Weinberger et al. 2009) of case-folded words, pairs of successive words and character
    trigrams within words (with their edges): each n-gram adds ±(1 + log count) to the axis that its BLAKE2b hash names.
    Nothing is fitted, so that a text's vector does not depend on the other texts, the run or the machine. It sees
    wording, not meaning. A text without tokens lies on an axis of its own.
    """
    places: dict[str, tuple[int, float]] = {}
    rows = np.zeros((len(texts), EMBEDDING_SIZE))
    for row, text in zip(rows, texts, strict=True):
        words = [token.casefold() for token in tokenize(text)]
        for gram, count in _embedded_ngrams(words).items():
            place = places.get(gram)
            if place is None:
                place = places[gram] = hashed(gram)
            row[place[0]] += place[1] * (1.0 + math.log(count))
        norm = float(np.linalg.norm(row))
        if norm > 0.0:
            row /= norm
        else:
            row[EMPTY_AXIS] = 1.0
    return rows


def _embedded_ngrams(words: Sequence[str]) -> Counter[str]:
    grams = Counter(f"w {word}" for word in words)
    grams.update(f"p {left} {right}" for left, right in _ngrams(words, 2))
    for word in words:
        edged = f"\x02{word}\x03"
        grams.update(f"c {edged[i : i + 3]}" for i in range(len(edged) - 2))
    return grams


def vendi(embeddings: Floats) -> float | None:
    """Vendi score of embeddings, shape (n, d), by their cosine: 1 (all alike) … n (all orthogonal); None without rows.

    exp(−Σ λ log λ) of the eigenvalues of K/n, K the cosine similarities (Friedman & Dieng 2023). Rows are scaled to
    unit length here; a zero row is a ValueError, for it is like nothing, not even itself. Grows with n: fix n.
    """
    n = len(embeddings)
    if n == 0:
        return None
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.all(norms > 0.0):
        raise ValueError("an embedding of length zero has no direction; drop that row")
    unit = embeddings / norms
    # XXᵀ and XᵀX share their non-zero eigenvalues: take the smaller.
    gram = unit @ unit.T if n <= unit.shape[1] else unit.T @ unit
    return _exponential_entropy(gram / n)


def dispersion(embeddings: Floats) -> float | None:
    """Mean squared distance of embeddings, shape (n, d), to their centroid: higher = more diverse; None without rows."""
    if len(embeddings) == 0:
        return None
    return float(np.mean(np.sum((embeddings - embeddings.mean(axis=0)) ** 2, axis=1)))


def vendi_of_similarity(similarity: Floats) -> float | None:
    """Vendi score of a similarity matrix, shape (n, n), symmetric and positive semidefinite, with a diagonal of ones.

    Raises ValueError for another shape or diagonal, or an asymmetric matrix.
    """
    n = len(similarity)
    if similarity.shape != (n, n) or not np.allclose(np.diag(similarity), 1.0):
        raise ValueError("a similarity matrix is square with a diagonal of ones")
    if not np.allclose(similarity, similarity.T):
        raise ValueError("a similarity matrix is symmetric")
    return _exponential_entropy(similarity / n) if n else None


def _exponential_entropy(kernel: Floats) -> float:
    eigenvalues = np.linalg.eigvalsh(kernel)
    positive = eigenvalues[eigenvalues > EIGENVALUE_FLOOR]
    return float(np.exp(-np.sum(positive * np.log(positive))))


def self_bleu(tokenized: Sequence[Sequence[str]], n: int = 4) -> float | None:
    """Mean BLEU of each text against all others, in [0, 1]: higher = more alike, less diverse (Zhu et al. 2018).

    Sentence BLEU with clipped counts over orders 1 … n (those the text is long enough for), the closest reference's
    brevity penalty (the shorter on a tie), and 1/2ᵏ for the k-th order without a match (NIST smoothing, sacrebleu's
    `exp`). Texts without tokens are left out; None where fewer than two remain. Grows with the number of texts.
    """
    texts = [[token.casefold() for token in tokens] for tokens in tokenized if len(tokens)]
    if len(texts) < 2:
        return None
    counts = [[Counter(_ngrams(words, order)) for words in texts] for order in range(1, n + 1)]
    clips = [_two_largest(of_order) for of_order in counts]
    lengths = Counter(len(words) for words in texts)
    scores = []
    for index, words in enumerate(texts):
        logs: list[float] = []
        smoothing = 1.0
        for of_order, largest in zip(counts, clips, strict=True):
            own = of_order[index]
            total = own.total()
            if total == 0:
                continue
            matched = sum(min(count, _of_others(largest[gram], count)) for gram, count in own.items())
            if matched == 0:
                smoothing *= 2.0
            logs.append(math.log(matched / total if matched else 1.0 / (smoothing * total)))
        lengths[len(words)] -= 1
        closest = min((size for size, left in lengths.items() if left), key=lambda size: (abs(size - len(words)), size))
        lengths[len(words)] += 1
        brevity = min(0.0, 1.0 - closest / len(words))
        scores.append(math.exp(brevity + math.fsum(logs) / len(logs)))
    return math.fsum(scores) / len(scores)


def _two_largest(of_order: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Each n-gram's two largest counts in a text: the larger, but for its own text, is the clip. Linear, not n²."""
    largest: dict[tuple[str, ...], tuple[int, int]] = {}
    for counter in of_order:
        for gram, count in counter.items():
            top, second = largest.get(gram, (0, 0))
            largest[gram] = (count, top) if count > top else (top, max(second, count))
    return largest


def _of_others(largest: tuple[int, int], own: int) -> int:
    return largest[1] if own == largest[0] else largest[0]
