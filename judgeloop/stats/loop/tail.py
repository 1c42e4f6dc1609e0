"""The tail of generation 0's texts: how much of it a later generation keeps, what it adds beyond it, and the stage of collapse
that this shows.

Texts of a run answer fixed items, so they differ most by the item that they answer, and no loop can lose that difference.
The tail is therefore defined within items: each item's mean is subtracted, and the rest is described by wording and by
surface (marks, lines, sentences). One half of generation 0 defines what is common, the other half how much is rare; the
halves are drawn within each item (docs/method.md, "Diversity"). Negative change = the tail is being lost.
"""

from __future__ import annotations

import dataclasses
import math
import string
from collections import Counter
from collections.abc import Hashable, Sequence
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
"""Fewest texts in each half: with fewer, a fifth is one text."""
_SPLITS = 2
_DIRECTIONS = 8
_NEIGHBOURS = 5
_SHRINKAGE = 0.25
_MARKS = tuple("#*-.,:;!?()\"'`|>—")
_FLOOR = 1e-9


def surface(texts: Sequence[str]) -> Floats:
    """The surface of n texts, shape (n, 23): square roots (which even out the spread of counts) of rates per 100 tokens.

    17 marks (of headings, bold, lists, quotes, tables, code, sentences), other signs such as emoji, lines, words with a
    capital, numbers and letters a word; last, words a sentence.
    """
    rows = np.zeros((len(texts), len(_MARKS) + 6))
    for row, text in zip(rows, texts, strict=True):
        counts = Counter(tokenize(text))
        total = max(counts.total(), 1)
        words = {token: count for token, count in counts.items() if token[0].isalnum()}
        n_words = sum(words.values())
        sentences = max(sum(counts[mark] for mark in ".!?"), 1)
        other = counts.total() - n_words - sum(counts[mark] for mark in _MARKS)
        capitals = sum(count for token, count in words.items() if token[0].isupper())
        numbers = sum(count for token, count in words.items() if token[0] in string.digits)
        letters = sum(len(token) * count for token, count in words.items())
        rates = [*(counts[mark] for mark in _MARKS), other, text.count("\n"), capitals, numbers]
        row[:] = [*(100.0 * rate / total for rate in rates), letters / max(n_words, 1), n_words / sentences]
    roots: Floats = np.sqrt(rows)
    return roots


@dataclass(frozen=True)
class _View:
    """One half of generation 0 as what is common, and the other half's tail.

    ``maps``: (block, item means, directions) of ``_directions``; ``tree``: the first half's points; the tail lies at distances
    between ``reach`` and ``end`` from them; ``share``: the share to expect in it of texts within ``end``, ``beyond``: of texts beyond.
    """

    maps: list[tuple[int, Floats, Floats]]
    tree: scipy.spatial.KDTree
    reach: float
    end: float
    share: float
    beyond: float

    def places(self, blocks: Sequence[Floats], items: Codes) -> tuple[Floats, Floats]:
        """(n,) each: whether a text is in the tail, and whether it is not beyond it, 0 or 1."""
        distances = _distances(self.tree, _points(self.maps, blocks, items))
        within = distances <= self.end
        return (within & (distances > self.reach)).astype(np.float64), within.astype(np.float64)


@dataclass(frozen=True)
class _Split:
    """Generation 0 in two halves: the names of each half's texts, and for each half in turn as what is common the view, None where
    there is no tail."""

    names: tuple[Counter[Hashable], Counter[Hashable]]
    views: tuple[_View | None, _View | None]

    def masses(self, blocks: Sequence[Floats], items: Codes, names: Sequence[Hashable]) -> list[tuple[float, float]]:
        """For each view (mass in the tail as a ratio, NaN where no text is within it; share of texts that are new)."""
        has = [np.array([name in half for name in names] or [False] * len(items)) for half in self.names]
        both = float(np.mean(has[0] & has[1]))
        # Of each text the share that is read in a view. Of the texts of its first half alone there are as many by chance as the other
        # half has of the first; the rest were drawn again, and are read where they are the other half. Cut at 0 and 1 it would be biased.
        here = []
        for k in (0, 1):
            alone = has[k] & ~has[1 - k]
            by_chance = _share_in(self.names[1 - k], self.names[k]) - both
            here.append(np.where(alone, np.clip(by_chance / max(float(np.mean(alone)), _FLOOR), -1.0, 2.0), 1.0))
        by_law = here[0] * here[1]  # one of them is 1
        places = [(view, *view.places(blocks, items)) if view else None for view in self.views]
        masses = []
        for k, place in enumerate(places):
            if place is None:
                continue
            view, _, within = place
            in_tail = expected = 0.0
            for share, read in ((here[k], place), (1.0 - here[k], places[1 - k])):
                if read is not None:
                    in_tail += float(share @ read[1])
                    expected += float(share @ read[2]) * read[0].share
            # A text that was drawn again cannot be new: it counts as the share that is to be expected.
            new = float(np.mean(by_law * (1.0 - within) + (1.0 - by_law) * view.beyond))
            masses.append((in_tail / expected if expected > _FLOOR else math.nan, new))
        return masses


def _share_in(of: Counter[Hashable], half: Counter[Hashable]) -> float:
    """The share of one half's texts that the other half has too."""
    return sum(count for name, count in of.items() if name in half) / max(of.total(), 1)


@dataclass(frozen=True)
class TailMass:
    """``retained``: mass in generation 0's tail, a ratio, 1 = as at generation 0 (None where no text is like its texts);
    ``new``: share of the texts farther out than any of its texts."""

    retained: float | None
    new: float


class Tail:
    """Generation 0's tail: the texts least like what else is written, whatever the item.

    ``blocks``: descriptions of the same n texts, shape (n, d) each, such as embeddings and ``surface``. ``items`` (n,): the
    item that each text answers, numbered from 0, with the same numbers in every generation. ``rng`` draws two splits; use a
    stream named by replicate.

    1. Within each item a random half of the texts is A. Every text loses its item's mean in A, shrunk to the mean of all A
       with the weight of a quarter text.
    2. Each block is projected on the eight directions in which A's remainders vary most, the blocks with equal weight: styles
       that cut across items are such directions, an item's own words are not.
    3. Each set of texts is centred at its median, since a drift of all texts is no change of their tail, and a new kind of text
       is no drift of all.
    4. A text's rarity is its distance to the fifth nearest text of A. The tail is the fifth of the other half B that lies
       farthest. Each half is A in turn.

    A treats B and an unchanged later generation alike, so that neither has more rare texts by chance. A text of A that is drawn again,
    as from a re-weighted pool, is read where it is B: among A it lies near itself. ``names`` (n,) tell which texts are the same
    draft; without names none is.
    """

    def __init__(
        self, blocks: Sequence[Floats], items: Codes, rng: np.random.Generator, names: Sequence[Hashable] = ()
    ) -> None:
        self._items = np.unique(items)
        self._splits: list[_Split] = []
        for _ in range(_SPLITS):
            half = _half(items, rng)
            one, other = (
                [name for name, chosen in zip(names, side, strict=bool(names)) if chosen] for side in (half, ~half)
            )
            views = _half_view(blocks, items, half), _half_view(blocks, items, ~half)
            self._splits.append(_Split((Counter(one), Counter(other)), views))

    @property
    def expected_new(self) -> float:
        """The share of texts beyond ``end`` to expect where they are drawn as B's were."""
        beyond = [view.beyond for split in self._splits for view in split.views if view]
        return float(np.mean(beyond)) if beyond else math.nan

    def masses(self, blocks: Sequence[Floats], items: Codes, names: Sequence[Hashable] = ()) -> TailMass | None:
        """A later generation's mass in the tail over B's, and its new mass, means over splits; None without a tail.

        A text farther out than any of B's is new, and not part of generation 0's tail. The mass in the tail is that among the
        other texts: texts that are new leave both the tail and what is common, and a spread that grows is no loss. Of n texts
        of B, x in the tail, x/n is to expect of texts that are drawn as B's were, at any n; of new ones 1/(n + 1).
        """
        in_zero = np.isin(items, self._items)  # an item without a text in generation 0 has no tail there
        if not in_zero.any():
            return None
        names = [name for name, known in zip(names, in_zero, strict=bool(names)) if known]
        blocks, items = [block[in_zero] for block in blocks], items[in_zero]
        masses = [mass for split in self._splits for mass in split.masses(blocks, items, names)]
        if not masses:
            return None
        ratios = [retained for retained, _ in masses if not math.isnan(retained)]
        return TailMass(float(np.mean(ratios)) if ratios else None, float(np.mean([new for _, new in masses])))


def _half(items: Codes, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n,) a random half of each item's texts; of an odd number, the larger or the smaller part by chance."""
    order = np.lexsort((rng.random(len(items)), items))
    starts = np.searchsorted(items[order], np.arange(items.max() + 1 if len(items) else 0))
    rank = np.empty(len(items), dtype=np.intp)
    rank[order] = np.arange(len(items)) - starts[items[order]]
    chosen: NDArray[np.bool_] = (rank + rng.integers(0, 2, len(starts))[items]) % 2 == 0
    return chosen


def _half_view(blocks: Sequence[Floats], items: Codes, half: NDArray[np.bool_]) -> _View | None:
    if min(half.sum(), (~half).sum()) < _FEWEST:
        return None
    maps = [(k, *axes) for k, block in enumerate(blocks) if (axes := _directions(block, items, half)) is not None]
    if not maps:
        return None
    inside, outside = (_points(maps, [block[side] for block in blocks], items[side]) for side in (half, ~half))
    tree = scipy.spatial.KDTree(inside)
    distances = _distances(tree, outside)
    reach = float(np.quantile(distances, 1.0 - RARE, method="inverted_cdf"))
    beyond = int(np.sum(distances > reach))
    if not beyond:
        return None
    n = len(distances)
    return _View(maps, tree, reach, float(distances.max()), beyond / n, 1.0 / (n + 1))


def _directions(block: Floats, items: Codes, half: NDArray[np.bool_]) -> tuple[Floats, Floats] | None:
    """(item means along the directions (items, k), the directions (d, k)); None where A's remainders do not vary.

    Along all directions together A's remainders have unit mean square.
    """
    rows, own = block[half], items[half]
    member = (own == np.arange(items.max() + 1)[:, None]).astype(np.float64)
    means = (member @ rows + _SHRINKAGE * rows.mean(axis=0)) / (member.sum(axis=1, keepdims=True) + _SHRINKAGE)
    rest = rows - means[own]
    spread = rest.std(axis=0)
    # Unit rows (embeddings) share a scale; rates of rare and common marks do not.
    unit_rows = np.allclose(np.sum(block**2, axis=1), 1.0)
    scale = np.where(spread > _FLOOR, 1.0 if unit_rows else 1.0 / np.where(spread > _FLOOR, spread, 1.0), 0.0)
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


def _points(maps: Sequence[tuple[int, Floats, Floats]], blocks: Sequence[Floats], items: Codes) -> Floats:
    """(n, directions of all blocks) the texts without their item's mean, centred at their median."""
    points: Floats = np.hstack([blocks[k] @ axes - means[items] for k, means, axes in maps])
    points -= np.median(points, axis=0)
    return points


def _distances(tree: scipy.spatial.KDTree, points: Floats) -> Floats:
    """(n,) the distance of each point to the fifth nearest of the tree."""
    nearest, _ = tree.query(points, k=[min(_NEIGHBOURS, tree.n)])
    return np.asarray(nearest, dtype=np.float64)[:, 0]


# The stage of collapse: early, where the tail is lost while the means hold; late, where the means move too.

TAIL = "did_tail_mass_retained"
_OWN_TAIL = "drift_tail_mass_retained"
MEANS = ("did_length", "did_style_score", "did_mattr", "did_correct")
"""The means that the tail is compared with: those of single texts' features, variety and correctness."""


def collapse_estimates(rows: Sequence[Estimate], design: Design) -> list[Estimate]:
    """``collapse_stage``, a row a contrast at the last generation: did_tail_mass_retained, with the stage as ``verdict``.

    ``rows``: of ``drift_estimates``.

    - ``early collapse``: the tail's interval lies below 0 and the arm's own tail below that of generation 0, no mean differs from the control's, and at least one is
      equivalent to it
    - ``late collapse``: the tail is lost and a mean moved
    - ``tail lost, means unclear``: the tail is lost, and the means show neither
    - ``no loss of tail seen``: otherwise; it does not claim that there is none
    """
    last_rows = [row for row in rows if not row.category and not row.variant and row.generation == design.generations]
    own = {row.arm: row for row in last_rows if row.term == _OWN_TAIL}
    stages = []
    for arm, control in design.contrasts:
        by_term = {row.term: row for row in last_rows if (row.arm, row.contrast) == (arm, control)}
        if TAIL in by_term:
            tail = by_term[TAIL]
            stage, reason = _stage(by_term, own.get(arm))
            stages.append(
                dataclasses.replace(
                    tail, term="collapse_stage", family="none", p_value=None, p_adjusted=None, verdict=stage, margin=None,
                    detectable=None, note=joined(reason, tail.note),
                )
            )  # fmt: skip
    return stages


def _stage(by_term: dict[str, Estimate], own: Estimate | None) -> tuple[Verdict, str]:
    """(stage, its reason) from the ``did_`` rows of one contrast and the drift of the arm's ``own`` tail; ("", "") where the tail is undefined."""
    high = by_term[TAIL].conf_high
    if by_term[TAIL].status == "undefined":
        return "", ""
    if high is None or high >= 0:
        return "no loss of tail seen", "its interval reaches 0"
    if own is None or own.conf_high is None or own.conf_high >= 0:
        return "no loss of tail seen", "it is below the control's, and not seen to be below its own at generation 0"
    moved = [term for term in MEANS if term in by_term and by_term[term].verdict == "drifting"]
    unmoved = [term for term in MEANS if term in by_term and by_term[term].verdict == "none"]
    if moved:
        return "late collapse", f"the tail is below the control's, and {_names(moved)} moved too"
    if unmoved:
        return "early collapse", f"the tail is below the control's while {_names(unmoved)} holds"
    return "tail lost, means unclear", "no mean is seen to move, and none is shown to hold"


def _names(terms: Sequence[str]) -> str:
    return ", ".join(term.removeprefix("did_") for term in terms)
