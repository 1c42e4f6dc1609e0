"""What items say about estimates: their categories, who decides whether a text answers one correctly, and which are near-copies.

A category of a few items has no useful interval, so rare categories are pooled. A reference is matched by rule, which is
exact, or by a model (``match: judge``), which can err.
"""

from __future__ import annotations

import dataclasses
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, joined
from judgeloop.stats.presentations import CLUSTER

FEWEST_ITEMS_A_CATEGORY = 5
"""Items below which a category is pooled. Rare categories with fewer items than this all together have no rows of their own."""

RARE = "(rare)"
"""Name of the category that pools the rare ones."""

_MOST_NAMED = 8
_NEEDED = "need a gold judge with an endpoint"


def pooled(category_of: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Item → category with rare categories as RARE, and a remark that names them ("" where none is pooled).

    ``category_of``: item → category, "" for none. The rare ones become "" instead where they have fewer than
    FEWEST_ITEMS_A_CATEGORY items together, or are all the items.
    """
    sizes = pd.Series([name for name in category_of.values() if name], dtype="object").value_counts()
    rare = sorted(str(name) for name, size in sizes.items() if size < FEWEST_ITEMS_A_CATEGORY)
    n_rare = sum(int(sizes[name]) for name in rare)
    has_pool = FEWEST_ITEMS_A_CATEGORY <= n_rare < len(category_of)
    renamed = dict.fromkeys(rare, RARE if has_pool else "")
    categories = {item: renamed.get(name, name) for item, name in category_of.items()}
    names = ", ".join(rare[:_MOST_NAMED]) + (f" and {len(rare) - _MOST_NAMED} more" if len(rare) > _MOST_NAMED else "")
    remark = f"pools {names}: fewer than {FEWEST_ITEMS_A_CATEGORY} items each" if rare and has_pool else ""
    return categories, remark


def by_category(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """(category, its rows, remark) of each category of ``rows`` (columns ``item_id, category``), rare ones pooled.

    The remark names what RARE pools; it is "" for the other categories.
    """
    codes, items = pd.factorize(rows["item_id"].astype(str))
    words, names = pd.factorize(rows["category"].fillna("").astype(str))
    last = np.zeros(len(items), dtype=np.intp)
    last[codes] = words  # an item's last row decides
    categories, remark = pooled(dict(zip(items, names[last], strict=True)))
    group = np.array(list(categories.values()), dtype=object)[codes]
    for category in sorted(set(categories.values()) - {""}):
        yield category, rows[group == category], remark if category == RARE else ""


def remarked(rows: Sequence[Estimate], remark: str) -> list[Estimate]:
    """The rows with the remark at the end of their notes."""
    if not remark:
        return list(rows)
    return [dataclasses.replace(row, note=joined(row.note, remark)) for row in rows]


def model_matched_items(items: pd.DataFrame) -> frozenset[str]:
    """The item_id of every item whose texts a model compares with the reference (``match: judge``)."""
    if not {"item_id", "match", "reference"} <= set(items.columns):
        return frozenset()
    has_reference = items["reference"].notna() & (items["reference"].astype("str").str.strip() != "")
    return frozenset(items.loc[has_reference & (items["match"] == "judge"), "item_id"].astype("str"))


def is_gold_exact(judgments: pd.DataFrame, items: pd.DataFrame) -> bool:
    """Whether all gold of these judgments comes from references matched by rule; a model's answer can err."""
    if "gold" not in judgments:
        return True
    with_gold = judgments.loc[judgments["gold"].fillna("") != "", "item_id"].astype("str")
    return not with_gold.isin(model_matched_items(items)).any()


def why_correct_is_unknown(rows: pd.DataFrame, items: pd.DataFrame, design: Design) -> str:
    """The reason why no candidate in ``rows`` has a value of ``correct``; "" where one has."""
    if rows["correct"].notna().any():
        return ""
    if not _model_matched(rows, items):
        return "no item has a reference"
    if any(arm.judge_kind == "gold" for arm in design.arms):
        return "the model that the gold judge asks gave no answer that can be read"
    return f"items with match: judge {_NEEDED}"


def correct_remark(rows: pd.DataFrame, items: pd.DataFrame) -> str:
    """A remark on the items whose ``correct`` a model decides, or that are left out for want of one; "" where none are."""
    by_model = _model_matched(rows, items)
    if not by_model:
        return ""
    candidates = rows[rows["item_id"].astype("str").isin(by_model)]
    answered = candidates["correct"].notna()
    if answered.any():
        lost = len(candidates[~answered].drop_duplicates(["replicate", "item_id", "text"]))
        unread = f"; {lost} texts are left out: the model's answer could not be read" if lost else ""
        return f"{len(by_model)} items are matched by a model, which can err (match: judge){unread}"
    return f"{len(by_model)} items with match: judge are left out: they {_NEEDED}"


def _model_matched(rows: pd.DataFrame, items: pd.DataFrame) -> frozenset[str]:
    matched = model_matched_items(items)
    return matched & frozenset(rows["item_id"].unique().astype("str")) if matched else matched


# Items that are near-copies of one another: found by their words, and one cluster in every interval (docs/method.md,
# "Near-copies").

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
Codes = NDArray[np.int32]
"""Numbers of texts and words, in half the memory of ``Integers``: a large folder has tens of millions."""


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
    document, word = _pairs(_distinct(document.astype(np.int64) * n_words + word), n_words)
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


def _neighbours(document: Codes, word: Codes, n_words: int, count: int) -> Integers:
    """(2, m) pairs of texts to compare: neighbours in the list of the texts that have a pair of words in a row, of each text's
    rarest such pairs that another text has."""
    in_a_row = document[1:] == document[:-1]
    codes = pd.factorize(word[:-1][in_a_row].astype(np.int64) * n_words + word[1:][in_a_row])[0]
    n_codes = len(codes)
    codes += document[:-1][in_a_row].astype(np.int64) * n_codes
    held_by, code = _pairs(_distinct(codes), n_codes)
    del codes
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
    return np.stack(_pairs(_distinct(first.astype(np.int64) * count + second), count))


def _distinct(codes: Integers) -> Integers:
    """The distinct codes, ascending; by sorting in place, which is much quicker than ``np.unique`` on millions of such codes."""
    codes.sort()
    kept = np.ones(len(codes), dtype=np.bool_)
    np.not_equal(codes[1:], codes[:-1], out=kept[1:])
    return codes[kept]


def _pairs(codes: Integers, size: int) -> tuple[Codes, Codes]:
    """The two numbers in each code, number × ``size`` + number, in half the memory."""
    first = np.floor_divide(codes, max(1, size))
    second = codes - first * size
    return first.astype(np.int32), second.astype(np.int32)


def _words(texts: Sequence[str]) -> tuple[Codes, Codes, int]:
    """(text, word) of the words of every text in a row as codes (m,), and the number of distinct words."""
    vocabulary: dict[str, int] = {}
    codes = array("i")  # of a million texts a list would take as much as all that follows
    sizes: list[int] = []
    for text in texts:
        words = _WORD.findall(text[: 12 * _MOST_WORDS].lower())[:_MOST_WORDS]
        sizes.append(len(words))
        codes.extend([vocabulary.setdefault(word, len(vocabulary)) for word in words])
    return np.repeat(np.arange(len(texts), dtype=np.int32), sizes), np.array(codes, dtype=np.int32), len(vocabulary)


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
        joined: dict[str, str] = {}
        for item, text in zip(first["item_id"].astype(str), short, strict=True):
            joined[item] = f"{joined[item]} {text}" if item in joined else text
        signatures.append(joined)
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
