"""Phrases that spread: sequences of words that more of an arm's texts hold after the last loop than chance explains
(docs/method.md, "Phrases that spread")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.design import Design
from judgeloop.stats.estimate import BareTest, Estimate, estimate_row
from judgeloop.stats.inference import Undefined
from judgeloop.stats.loop.diversity import Tokens, Vocabulary
from judgeloop.stats.loop.replicates import MeasuredCandidates
from judgeloop.stats.multiplicity import ALPHA
from judgeloop.text.features import tokenize

LONGEST = 8
"""Most words of a phrase."""
LEVEL = ALPHA["exploratory"]
"""In at most so many samples in which no phrase spread, one is listed."""
_MOST_LISTED = 10
_FEWEST_TEXTS, _LEAST_SHARE = 3, 0.05
"""A phrase is looked at that so many of the compared texts hold, and this share of them."""
_MOST_PHRASES, _MOST_TEXTS = 2_000, 10_000
_LONGEST_WORD = 40
_RELABELLED = 1_000
_SHORT, _FEWEST_WORDS, _MOST_WORDS = 0.05, 5, 1_000_000
"""Of each text as many words are read as this share of the texts has fewer than, half of them at either end; so many at each end at least,
and so many of all texts together at most: their phrases are held in memory."""
_AS_MUCH = 0.8
"""A longer phrase stands for those that it contains where it spread by this share of what they did."""
_ROUNDING = 1e-9

if TYPE_CHECKING:
    from scipy import sparse

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def phrase_estimates(measured: MeasuredCandidates, design: Design) -> list[Estimate]:
    """``phrase_spread`` of every contrast, or of every arm where nothing is contrasted, at the last generation.

    The row without a variant has the largest rise of the share of texts that hold a phrase, beyond the control's, and its p among all
    phrases. A variant is a phrase that spread, with its rise, and in ``benchmark`` the share that would hold it without.
    """
    rows, last = measured.rows, design.generations
    if not last or rows.empty:
        return []
    rows = rows[(rows["n_drawn"] > 0) & rows["generation"].isin([0, last])]
    items = rows["item_id"].unique()
    rows = rows[rows["item_id"].isin(items[:: max(1, -(-len(rows) // _MOST_TEXTS))])]
    if rows.empty:
        return []
    phrases = _Phrases.of(rows["text"].to_numpy(dtype=object))
    contrasts = design.contrasts or tuple((arm.name, "") for arm in design.arms)
    return [row for arm, control in contrasts for row in _of_contrast(rows, phrases, design, arm, control)]


@dataclass(frozen=True)
class _Phrases:
    """Which phrases the ends of a table's texts hold, their first and last ``end`` words: ``holds`` (rows, phrases), 0 or 1; the words of
    phrase k are the ``sizes[k]`` of ``words`` from ``starts[k]`` on."""

    end: int
    holds: sparse.csr_matrix
    starts: Integers
    sizes: Integers
    words: list[str]

    @classmethod
    def of(cls, texts: NDArray[np.object_]) -> _Phrases:
        """All sequences of one to LONGEST words, upper case as lower, whatever marks stand between them."""
        from scipy import sparse

        codes, distinct = pd.factorize(texts)
        # Longer texts hold more of everything: of each as many words are read, the first and the last.
        vocabulary, words = Vocabulary(), [_words(text) for text in distinct]
        shortest = int(np.quantile([len(words[code]) for code in codes], _SHORT, method="inverted_cdf"))
        end = min(shortest, _MOST_WORDS // len(codes)) // 2
        ends = [(vocabulary.codes(part[:end]), vocabulary.codes(part[max(end, len(part) - end) :])) for part in words]
        tokens = Tokens.of([part for of_text in ends for part in of_text], np.arange(2 * len(distinct)))
        columns, holders, starts, sizes = [], [], [], []
        known = 0
        for size, (grams, places) in enumerate(tokens.placed(LONGEST), start=1):
            names, first, column = np.unique(grams, return_index=True, return_inverse=True)
            columns.append(known + column)
            holders.append(tokens.text[places] // 2)
            starts.append(places[first])
            sizes.append(np.full(len(names), size))
            known += len(names)
        place = np.concatenate(columns), np.concatenate(holders)
        holds = sparse.csr_matrix((np.ones(len(place[0])), place[::-1]), shape=(len(distinct), known))
        holds.data[:] = 1.0  # however often a text has it
        flat = [vocabulary.words[code] for code in tokens.codes.tolist()]
        return cls(end, holds[codes], np.concatenate(starts), np.concatenate(sizes), flat)

    def name(self, phrase: int) -> str:
        """Its words."""
        start = int(self.starts[phrase])
        return " ".join(self.words[start : start + int(self.sizes[phrase])])


def _words(text: str) -> list[str]:
    return [token[:_LONGEST_WORD] for token in tokenize(text) if token[0].isalnum()]


def _of_contrast(rows: pd.DataFrame, phrases: _Phrases, design: Design, arm: str, control: str) -> list[Estimate]:
    """The rows of an arm against its control, or against its own generation 0 where ``control`` is empty."""
    from scipy import sparse

    last = design.generations
    sides = {(arm, last): 1.0, (control or arm, last if control else 0): -1.0}
    if control:
        sides |= {(arm, 0): -1.0, (control, 0): 1.0}
    side_of = {side: number for number, side in enumerate(sides)}
    cells = zip(rows["arm"], rows["generation"], strict=True)
    side = np.array([side_of.get(cell, -1) for cell in cells])
    unit, names = pd.factorize(rows["replicate"])
    has = np.zeros((len(names), len(sides)), dtype=bool)
    has[unit[side >= 0], side[side >= 0]] = True
    # Of other items each generation has its own: these are two groups.
    groups = not design.same_items and not control
    compared = np.asarray(has.sum(axis=1) == 1 if groups else has.all(axis=1))
    used = (side >= 0) & compared[unit]
    n_units = int(compared.sum())
    side, unit = side[used], (np.cumsum(compared) - 1)[unit[used]]
    columns: dict[str, Any] = {
        "scope": "policy", "arm": arm, "contrast": control, "generation": last, "bias": "style", "term": "phrase_spread", "unit": "probability",
        "n_items": rows.loc[used, "item_id"].nunique(), "n_replicates": n_units,
    }  # fmt: skip
    holds = phrases.holds[np.flatnonzero(used)]
    total = np.asarray(holds.sum(axis=0)).ravel()
    chosen = np.flatnonzero(total >= max(_FEWEST_TEXTS, _LEAST_SHARE * holds.shape[0]))
    chosen = np.sort(chosen[np.argsort(-total[chosen], kind="stable")[:_MOST_PHRASES]])
    short = phrases.end < _FEWEST_WORDS
    if short or not len(chosen):
        why = f"texts are too short: {_SHORT:.0%} have fewer than {2 * _FEWEST_WORDS} words" if short else f"no phrase stands in {_FEWEST_TEXTS} texts that can be compared"  # fmt: skip
        return [estimate_row(Undefined(why), n=0, **columns)]
    drawn = rows.loc[used, "n_drawn"].to_numpy(dtype=np.float64)
    cell = unit * len(sides) + side
    weight, sign = drawn / np.bincount(cell, drawn)[cell], np.array(list(sides.values()))[side]

    def by_unit(values: Floats) -> Floats:
        """(units, phrases) sums of the rows' values over the texts that hold a phrase."""
        of_units = sparse.csr_matrix((values, (unit, np.arange(len(unit)))), shape=(n_units, len(unit)))
        return np.asarray((of_units @ holds[:, chosen]).toarray())

    rise, generator = by_unit(weight * sign), seeds.rng(design.seed, "phrases", arm, control)
    if groups:
        of_unit = np.zeros(n_units)
        of_unit[unit] = sign
        relabelled, rise = _regrouped(of_unit, generator), np.abs(rise)
    else:
        relabelled = _flipped(n_units, generator)
    if 1.0 / len(relabelled) > LEVEL:
        few = Undefined(f"{n_units} are too few: one relabelling in {len(relabelled)} is as it was")
        return [estimate_row(few, n=len(chosen), **columns)]
    rises = relabelled @ rise
    p = (rises.max(axis=1)[:, None] >= rises[0] - _ROUNDING).mean(axis=0)
    p = np.minimum(1.0, design.looks * p)
    how = "regrouped" if groups else "signs flipped"
    test = BareTest(float(rises[0].max()), float(p.min()), f"largest rise of all phrases, {how} over replicates")
    note = f"{len(chosen)} phrases of one to {LONGEST} words in the first and last {phrases.end} of each text"
    now = np.maximum(relabelled[0], 0.0) @ by_unit(weight * (side == 0))
    return [
        estimate_row(test, n=len(chosen), note=note, **columns),
        *(
            estimate_row(
                BareTest(float(rises[0, k]), float(p[k]), test.method), n=len(chosen), variant=phrases.name(int(chosen[k])),
                benchmark=float(max(0.0, now[k] - rises[0, k])), note=f"p {p[k]:.3g} among all phrases", **columns,
            )
            for k in _listed([phrases.name(k) for k in chosen.tolist()], rises[0], p)
        ),
    ]  # fmt: skip


def _flipped(units: int, generator: np.random.Generator) -> Floats:
    """(relabellings, units) weights of the mean with the sides of units exchanged: of few units all, the given sides first."""
    if 2**units <= _RELABELLED:
        signs = np.array(list(product((1.0, -1.0), repeat=units)))
    else:
        signs = generator.choice((1.0, -1.0), (_RELABELLED, units))
        signs[0] = 1.0
    return signs / max(units, 1)


def _regrouped(sign: Floats, generator: np.random.Generator) -> Floats:
    """(relabellings, units) weights of the difference of two groups' means, drawn anew from all units, the given groups first."""
    weights = np.where(sign > 0, 1.0 / max(1, int((sign > 0).sum())), -1.0 / max(1, int((sign < 0).sum())))
    return np.stack([weights, *(generator.permutation(weights) for _ in range(_RELABELLED - 1))])


def _listed(names: Sequence[str], rises: Floats, p: Floats) -> list[int]:
    """The places of the phrases that spread, the largest rise first; of those that overlap one, the longer where it spread about as much."""
    spread = [k for k in np.argsort(-rises, kind="stable") if p[k] <= LEVEL]
    listed: list[int] = []
    for k in spread:
        if any(_overlap(names[k].split(), names[other].split()) for other in listed):
            continue
        longer = [other for other in spread if _within(names[k], names[other]) and rises[other] >= _AS_MUCH * rises[k]]
        listed.append(max([k, *longer], key=lambda place: len(names[place].split())))
    return listed[:_MOST_LISTED]


def _overlap(phrase: list[str], other: list[str]) -> bool:
    """Whether one holds the other, or ends as it begins with half of the shorter's words or more."""
    if _within(" ".join(phrase), " ".join(other)) or _within(" ".join(other), " ".join(phrase)):
        return True
    shorter = min(len(phrase), len(other))
    return any(
        phrase[-size:] == other[:size] or other[-size:] == phrase[:size] for size in range(-(-shorter // 2), shorter)
    )


def _within(phrase: str, other: str) -> bool:
    return f" {phrase} " in f" {other} "
