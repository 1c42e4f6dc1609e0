"""Diversity of texts: how varied a text is in itself, and a set of texts among themselves (the method notes §3, §7.8).

Every measure depends on how much text it sees. Compare two sets only at the same number of texts, on the same items and
at the same token budget: cut to `truncation_length` of generation 0 first. Words are compared without case. A value that
is not defined for its input is None, never NaN or 0. What compares many texts is measured on codes: `coded_texts`.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

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
    """The run's window for `mattr`: 50 where L ≥ 50, else the largest multiple of 10 ≤ L; None below 20 (§7.8)."""
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
