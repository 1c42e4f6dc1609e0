"""Items that are near-copies of one another: found by their words, and one cluster in every interval (docs/method.md, "Near-copies").

Three wordings of one question are not three independent items. The column ``near_copy_of`` of the table items names the first of
an item's near-copies; judgments get it as ``item_cluster``, which ``presentations.item_codes`` reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.presentations import CLUSTER

SIMILAR = 0.5
"""Least weighted Jaccard similarity of two items' words."""
FEWEST_WORDS = 6
"""Words that a text needs beside those of many texts; of fewer, one that differs may be all that matters."""
_MOST_WORDS = 200
"""Words of a text that count: two texts that agree so far are near-copies, or begin alike by a template that many share."""
_COMMON = (5, 0.2)
"""A word, or a whole text, that more items than this and than this share of the items have in common shows no copy."""
_RARE = 3
"""Words in up to so many items weigh alike: a word of three copies is no less rare than one of a single text."""
_KEYS = 8
"""Rare pairs of words in a row by which an item is compared with others that have them."""
_WORD = re.compile(r"\w+")

Integers = NDArray[np.intp]


def near_copies(signatures: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Item → the first item of its near-copies; items without a near-copy are left out.

    ``signatures``: each a mapping item → text (of its prompt, say, or of its two answers); items are near-copies where they
    are by any of them, and so are near-copies of near-copies. Two texts are near-copies where their words are the same but for
    case, punctuation and space; or where the words that they share weigh half of all their words or more, each by log(1 + n/items
    that have it), and both have six words or more. Words, and texts, of more than five items and of more than a fifth of the
    items count for nothing, so that a template makes no copies. An item is compared with its neighbours in the lists of the
    items that share its eight rarest pairs of words in a row: the cost is linear in the words but for sorting them.
    """
    from scipy import sparse  # only here: it is slow to import
    from scipy.sparse import csgraph

    names = list(dict.fromkeys(name for signature in signatures for name in signature))
    place = {name: code for code, name in enumerate(names)}
    edges = [np.empty((2, 0), dtype=np.intp)]
    for signature in signatures:
        codes = np.array([place[name] for name in signature], dtype=np.intp)
        edges.append(codes[_similar(list(signature.values()))])
    first, second = np.concatenate(edges, axis=1)
    graph = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(len(names), len(names)))
    labels = csgraph.connected_components(graph, directed=False)[1]
    leader = np.full(len(names), -1, dtype=np.intp)
    leader[labels[::-1]] = np.arange(len(names))[::-1]  # the first item of a component is written last
    sizes = np.bincount(labels, minlength=len(names))
    return {name: names[leader[label]] for name, label in zip(names, labels, strict=True) if sizes[label] > 1}


def _similar(texts: Sequence[str]) -> Integers:
    """(2, m) positions of pairs of ``texts`` that are near-copies."""
    from scipy import sparse

    count, (document, word, n_words) = len(texts), _words(texts)
    most = max(_COMMON[0], _COMMON[1] * count)
    pairs = _neighbours(document, word, n_words, count)
    # Each word once a text from here on.
    document, word = np.divmod(_distinct(document * n_words + word), max(1, n_words))
    held = np.bincount(word, minlength=n_words)
    counted = held[word] <= most
    document, word = document[counted], word[counted]
    weight = np.log1p(count / np.maximum(held, _RARE))
    total = np.bincount(document, weights=weight[word], minlength=count)
    enough = np.bincount(document, minlength=count) >= FEWEST_WORDS
    pairs = pairs[:, enough[pairs[0]] & enough[pairs[1]]]
    present = sparse.csr_array((np.ones(len(word)), (document, word)), shape=(count, n_words))
    both = np.asarray((present[pairs[0]] * present[pairs[1]]) @ weight)
    near = pairs[:, both >= SIMILAR * (total[pairs[0]] + total[pairs[1]] - both)]
    return np.concatenate([near, _equal(texts, most)], axis=1)


def _equal(texts: Sequence[str], most: float) -> Integers:
    """(2, m) neighbours among ``texts`` of the same words in a row; none of a text that more than ``most`` have."""
    codes = pd.factorize(pd.Series([" ".join(_WORD.findall(text.lower())) or None for text in texts], dtype="object"))[
        0
    ]
    counted = np.flatnonzero((codes >= 0) & (np.bincount(codes + 1)[codes + 1] <= most))
    ordered = counted[np.argsort(codes[counted], kind="stable")]
    same = np.flatnonzero(codes[ordered][1:] == codes[ordered][:-1])
    return np.stack([ordered[same], ordered[same + 1]])


def _neighbours(document: Integers, word: Integers, n_words: int, count: int) -> Integers:
    """(2, m) pairs of texts to compare: neighbours in the list of the texts that have a pair of words in a row, of each text's
    rarest such pairs that another text has."""
    in_a_row = np.flatnonzero(document[1:] == document[:-1])
    codes = pd.factorize(word[in_a_row] * n_words + word[in_a_row + 1])[0]
    held_by, code = np.divmod(_distinct(document[in_a_row] * max(1, len(codes)) + codes), max(1, len(codes)))
    held = np.bincount(code)
    shared = held[code] > 1
    held_by, code = held_by[shared], code[shared]
    order = np.lexsort((code, held[code], held_by))
    starts = np.flatnonzero(np.diff(held_by[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    keys = order[rank < _KEYS]
    keys = keys[np.lexsort((held_by[keys], code[keys]))]
    same = np.flatnonzero(code[keys][1:] == code[keys][:-1])
    first, second = held_by[keys][same], held_by[keys][same + 1]
    return np.stack(np.divmod(_distinct(first * count + second), max(1, count)))


def _distinct(codes: Integers) -> Integers:
    """The distinct codes, ascending; by sorting, which is much quicker than ``np.unique`` on millions of such codes."""
    ordered = np.sort(codes)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _words(texts: Sequence[str]) -> tuple[Integers, Integers, int]:
    """(text, word) of the words of every text in a row as codes (m,), and the number of distinct words."""
    vocabulary: dict[str, int] = {}
    codes: list[int] = []
    sizes: list[int] = []
    for text in texts:
        words = _WORD.findall(text[: 12 * _MOST_WORDS].lower())[:_MOST_WORDS]
        sizes.append(len(words))
        codes.extend([vocabulary.setdefault(word, len(vocabulary)) for word in words])
    return np.repeat(np.arange(len(texts)), sizes), np.array(codes, dtype=np.intp), len(vocabulary)


NEAR_COPY_OF = "near_copy_of"
"""The column of the table items: the first item of an item's near-copies, its own id for that one; empty without near-copies."""
_TEXTS_OF_AN_ITEM, _CHARACTERS = 2, 6 * _MOST_WORDS


def marked(items: pd.DataFrame, texts: pd.DataFrame | None = None) -> pd.DataFrame:
    """The table items with the column ``near_copy_of``; as it is where no item has a near-copy.

    ``items``: ``item_id, prompt``. ``texts``: ``item_id, text``; of an item the first two count, the texts of its first pair.
    """
    prompts = dict(zip(items["item_id"].astype(str), items["prompt"].fillna("").astype(str), strict=True))
    signatures: list[Mapping[str, str]] = [prompts]
    if texts is not None and len(texts):
        first = texts.groupby("item_id", sort=False).head(_TEXTS_OF_AN_ITEM)
        short = first["text"].fillna("").astype(str).str[:_CHARACTERS]
        joined = short.groupby(first["item_id"].astype(str), sort=False).agg(" ".join)
        signatures.append({str(item): text for item, text in joined.items()})
    copies = near_copies(signatures)
    return items.assign(**{NEAR_COPY_OF: items["item_id"].astype(str).map(copies).fillna("")}) if copies else items


def with_clusters(frame: pd.DataFrame, items: pd.DataFrame) -> pd.DataFrame:
    """The frame with the column ``item_cluster``, by ``near_copy_of`` of the table items; as it is where that has none."""
    if NEAR_COPY_OF not in items or "item_id" not in frame or frame.empty:
        return frame
    leaders = dict(zip(items["item_id"].astype(str), items[NEAR_COPY_OF].fillna("").astype(str), strict=True))
    own = frame["item_id"].astype(str)
    return frame.assign(**{CLUSTER: own.map({item: leader or item for item, leader in leaders.items()}).fillna(own)})


def copied(items: pd.DataFrame) -> tuple[int, int]:
    """(items that have near-copies, the clusters that these make) of the table items."""
    if NEAR_COPY_OF not in items:
        return 0, 0
    leaders = items[NEAR_COPY_OF].fillna("").astype(str)
    return int((leaders != "").sum()), int(leaders[leaders != ""].nunique())
