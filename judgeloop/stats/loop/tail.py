"""The tail of generation 0's texts, and how much of it a later generation keeps: early collapse shows here first.

Texts of a run answer fixed items, so most of what tells them apart is which item they answer, and no loop can lose that.
The tail is therefore looked for within items: each item's mean is taken off, and what remains is described by wording and
by surface (marks, lines, sentences). Half of generation 0 says what is common, the other half how much is rare, and the
halves are drawn within each item (docs/method.md, "Diversity"). Negative change = the tail is being lost.
"""

from __future__ import annotations

import dataclasses
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, Verdict, joined
from judgeloop.text.features import tokenize

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

RARE = 0.2
"""The tail's share of generation 0."""

_FEWEST = 10
"""Texts that each half needs: with fewer, a fifth is one text."""
_SPLITS = 2
_DIRECTIONS = 8
_NEIGHBOURS = 5
_SHRINKAGE = 0.25
_MARKS = tuple("#*-.,:;!?()\"'`|>—")
_FLOOR = 1e-9


def surface(texts: Sequence[str]) -> Floats:
    """How texts look, shape (n, 23): the square root, which evens the spread of counts, of rates per 100 tokens.

    17 marks (of headings, bold, lists, quotes, tables, code, sentences), other signs such as emoji, lines, words with a
    capital, numbers and letters a word; last, words a sentence.
    """
    rows = np.zeros((len(texts), len(_MARKS) + 6))
    for row, text in zip(rows, texts, strict=True):
        counts = Counter(tokenize(text))
        total = max(counts.total(), 1)
        words = {token: count for token, count in counts.items() if token[0].isalnum()}
        spoken = sum(words.values())
        sentences = max(sum(counts[mark] for mark in ".!?"), 1)
        other = counts.total() - spoken - sum(counts[mark] for mark in _MARKS)
        capitals = sum(count for token, count in words.items() if token[0].isupper())
        numbers = sum(count for token, count in words.items() if token[0] in string.digits)
        letters = sum(len(token) * count for token, count in words.items())
        rates = [*(counts[mark] for mark in _MARKS), other, text.count("\n"), capitals, numbers]
        row[:] = [*(100.0 * rate / total for rate in rates), letters / max(spoken, 1), spoken / sentences]
    roots: Floats = np.sqrt(rows)
    return roots


@dataclass(frozen=True)
class _View:
    """One half of generation 0 as what is common (``tree``); between ``reach`` and ``end`` lies the other half's fifth."""

    maps: list[tuple[int, Floats, Floats]]
    tree: scipy.spatial.KDTree
    reach: float
    end: float
    share: float

    def mass(self, blocks: Sequence[Floats], items: Codes) -> float:
        far = _far(self.tree, _seen(self.maps, blocks, items))
        return float(np.mean((far > self.reach) & (far <= self.end)))


class Tail:
    """Generation 0's tail: the texts least like what else is written, whatever the item.

    ``blocks``: descriptions of the same n texts, shape (n, d) each, e.g. ``embed`` and ``surface``. ``items``: 0 … the
    item that each text answers, the same numbers in every generation. Within each item a random half of the texts is A.
    From every text its item's mean in A is taken, shrunk to the mean of all A by a quarter text's weight. Each block is then
    seen along the eight directions in which A's remainders vary most, the blocks with equal weight: styles that cut
    across items are such directions, an item's own words are none. A text's rarity is its distance to the fifth nearest
    text of A; the tail is the fifth of the other half B that lies farthest. Each set of texts is seen about its own mean,
    for a drift of all texts is no change of their tail. ``rng`` draws two splits, and each half is A in turn; use a stream
    named by replicate.

    B and a later generation without change are alike in what A sees of them, so nothing is rare by luck in one alone.
    """

    def __init__(self, blocks: Sequence[Floats], items: Codes, rng: np.random.Generator) -> None:
        self._count = int(items.max()) + 1 if len(items) else 0
        self._views: list[_View] = []
        for _ in range(_SPLITS):
            half = _half(items, rng)
            self._views += [view for side in (half, ~half) if (view := _view(blocks, items, side)) is not None]

    def retained(self, blocks: Sequence[Floats], items: Codes) -> float | None:
        """A later generation's mass in the tail over B's: 1 = kept, below 1 = being lost; None without a tail.

        The mean over splits of (share of the texts in B's tail) / (x/(n + 1)), x of B's n texts being in it: the share to
        expect of texts that are drawn as B's were, so that 1 is expected without change at any n. A text farther out than
        any of B's is new, and no part of generation 0's tail.
        """
        known = items < self._count  # an item without a text in generation 0 has no tail there
        if not self._views or not known.any():
            return None
        blocks, items = [block[known] for block in blocks], items[known]
        return float(np.mean([one.mass(blocks, items) / one.share for one in self._views]))


def _half(items: Codes, rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random half of each item's texts; of an odd number, the half is the larger or the smaller by chance."""
    order = np.lexsort((rng.random(len(items)), items))
    starts = np.searchsorted(items[order], np.arange(items.max() + 1 if len(items) else 0))
    rank = np.empty(len(items), dtype=np.intp)
    rank[order] = np.arange(len(items)) - starts[items[order]]
    chosen: NDArray[np.bool_] = (rank + rng.integers(0, 2, len(starts))[items]) % 2 == 0
    return chosen


def _view(blocks: Sequence[Floats], items: Codes, half: NDArray[np.bool_]) -> _View | None:
    if min(half.sum(), (~half).sum()) < _FEWEST:
        return None
    maps = [(k, *found) for k, block in enumerate(blocks) if (found := _directions(block, items, half)) is not None]
    if not maps:
        return None
    inside, outside = (_seen(maps, [block[side] for block in blocks], items[side]) for side in (half, ~half))
    tree = scipy.spatial.KDTree(inside)
    far = _far(tree, outside)
    reach = float(np.quantile(far, 1.0 - RARE, method="inverted_cdf"))
    beyond = int(np.sum(far > reach))
    return _View(maps, tree, reach, float(far.max()), beyond / (len(far) + 1)) if beyond else None


def _directions(block: Floats, items: Codes, half: NDArray[np.bool_]) -> tuple[Floats, Floats] | None:
    """(item means along the directions, directions); along all together A's remainders have unit mean square."""
    rows, own = block[half], items[half]
    member = (own == np.arange(items.max() + 1)[:, None]).astype(np.float64)
    means = (member @ rows + _SHRINKAGE * rows.mean(axis=0)) / (member.sum(axis=1, keepdims=True) + _SHRINKAGE)
    rest = rows - means[own]
    spread = rest.std(axis=0)
    # Unit rows (embeddings) share a scale; rates of rare and common marks do not.
    alike = np.allclose(np.sum(block**2, axis=1), 1.0)
    scale = np.where(spread > _FLOOR, 1.0 if alike else 1.0 / np.where(spread > _FLOOR, spread, 1.0), 0.0)
    rest = rest * scale
    small = len(rest) <= rest.shape[1]
    gram = rest @ rest.T if small else rest.T @ rest
    most = min(_DIRECTIONS, len(gram))
    values, vectors = scipy.linalg.eigh(gram, subset_by_index=(len(gram) - most, len(gram) - 1))
    vectors = vectors[:, values > _FLOOR * len(rest)]
    values = values[values > _FLOOR * len(rest)]
    if not len(values):
        return None
    axes = rest.T @ vectors / np.sqrt(values) if small else vectors
    axes = scale[:, None] * axes / np.sqrt(values.sum() / len(rest))
    return means @ axes, axes


def _seen(maps: Sequence[tuple[int, Floats, Floats]], blocks: Sequence[Floats], items: Codes) -> Floats:
    points: Floats = np.hstack([blocks[k] @ axes - means[items] for k, means, axes in maps])
    points -= points.mean(axis=0)
    return points


def _far(tree: scipy.spatial.KDTree, points: Floats) -> Floats:
    """Distance to the fifth nearest point of the tree."""
    distances, _ = tree.query(points, k=[min(_NEIGHBOURS, tree.n)])
    return np.asarray(distances, dtype=np.float64)[:, 0]


# Early collapse, where tails go while means hold, told from late, where the means move too.

TAIL = "did_tail_mass_retained"
MEANS = ("did_length", "did_style_score", "did_mattr", "did_correct")
"""What an average score sees: where a text lies, and how varied it is within itself."""


def collapse_estimates(rows: Sequence[Estimate], design: Design) -> list[Estimate]:
    """``collapse_stage``, a row a contrast at the last generation: did_tail_mass_retained, and in ``verdict`` the word for it.

    ``early collapse``: the tail's interval lies below 0, no mean differs from the control's, and one at least is shown to
    hold (equivalent). ``late collapse``: the tail is lost and a mean moved. ``tail lost, means unclear``: the means show
    neither. ``no loss of tail seen`` otherwise, which is no claim that there is none. ``rows``: of ``drift_estimates``.
    """
    at_end = [
        one
        for one in rows
        if one.contrast and not one.category and not one.variant and one.generation == design.generations
    ]
    found = []
    for arm, control in design.contrasts:
        here = {one.term: one for one in at_end if (one.arm, one.contrast) == (arm, control)}
        if TAIL in here:
            tail = here[TAIL]
            stage, why = _stage(here)
            found.append(
                dataclasses.replace(
                    tail, term="collapse_stage", family="none", p_value=None, p_adjusted=None, verdict=stage, margin=None,
                    detectable=None,
                    note=joined(why, tail.note),
                )
            )  # fmt: skip
    return found


def _stage(here: dict[str, Estimate]) -> tuple[Verdict, str]:
    """The stage, and what it rests on."""
    high = here[TAIL].conf_high
    if here[TAIL].status == "undefined":
        return "", ""
    if high is None or high >= 0:
        return "no loss of tail seen", "its interval reaches 0"
    moved = [term for term in MEANS if term in here and here[term].verdict == "drifting"]
    held = [term for term in MEANS if term in here and here[term].verdict == "none"]
    if moved:
        return "late collapse", f"the tail is below the control's, and {_names(moved)} moved too"
    if held:
        return "early collapse", f"the tail is below the control's while {_names(held)} holds"
    return "tail lost, means unclear", "no mean is seen to move, and none is shown to hold"


def _names(terms: Sequence[str]) -> str:
    return ", ".join(term.removeprefix("did_") for term in terms)
