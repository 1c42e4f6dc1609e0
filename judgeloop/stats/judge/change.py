"""Whether a judge changed between two times at which it judged the same presentations (docs/method.md, "The judge over time").

While a judge stays as it is, the verdicts on one presentation, earlier and later, are draws of one distribution. So within each
presentation it is chance which verdicts came earlier, and the test permutes that; with one verdict at each time it turns the
sign of the change. Nothing is assumed of the spread of pairs, and no replicate stands for another. Positive = more later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from judgeloop.seeds import rng
from judgeloop.stats.inference import Interval, Undefined, bounded_mean
from judgeloop.stats.judge.covariates import gold_margin
from judgeloop.stats.presentations import CLUSTER, Booleans, Floats, Integers, first_picked, item_codes, pair_codes

SLOT, CONFLICT, DISAGREEMENT = "first_slot_excess", "conflict_rate", "disagreement"
IDENTICAL = "identical_pair_excess"
_MOST_DRAWN = 4999
_ENOUGH = 25
"""Permutations as far from 0 as the data after which a test stops drawing (Besag & Clifford 1991)."""
_CHUNK = 100
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Change:
    """The change of one term. ``values`` (n,): later − earlier of each pair; ``items`` (n,) its item; ``p_value``: of no change,
    two-sided but for ``disagreement``, which an unchanged judge cannot lower."""

    values: Floats
    items: Integers
    p_value: float

    def interval(self) -> Interval | Undefined:
        """The mean change with its t interval, clustered by item, and the permutation's p."""
        mean = bounded_mean(self.values, self.items, -1.0, 1.0)
        if isinstance(mean, Undefined):
            return mean
        return replace(mean, p_value=self.p_value, method=f"{mean.method}; p by permutation within presentations")


@dataclass(frozen=True, slots=True)
class Changes:
    """``by_term``: the terms that these judgments show. ``presentations``: that were judged both times; ``verdicts``: the later
    ones on these; ``differing``: how many presentations got other verdicts (whatever the order of repeats) than earlier."""

    by_term: dict[str, Change]
    verdicts: int
    presentations: int
    differing: int

    @property
    def identical(self) -> bool:
        """Whether every verdict was given again."""
        return self.presentations > 0 and self.differing == 0


def with_signs(judgments: pd.DataFrame, gap: Floats) -> tuple[pd.DataFrame, list[str]]:
    """The judgments with a column a term that picking their first slot may count for, and those terms, as ``changes`` takes them.

    ``gap`` (n,): the first text's log2 tokens less the second's, NaN unknown. Rows of panel ``probe`` count for their probe
    (candidate b is the edit), identical texts for ``identical_pair_excess``, all others for the rest.
    """
    forward = np.where(judgments["order"] == "ab", 1.0, -1.0)
    identical = (
        judgments["identical"].fillna(False).to_numpy(dtype=bool)
        if "identical" in judgments
        else np.zeros(len(judgments), bool)
    )
    on_probe = (judgments["panel"] == "probe").to_numpy() if "panel" in judgments else np.zeros(len(judgments), bool)
    plain = ~identical & ~on_probe
    gold = np.full(len(judgments), np.nan)
    if "gold" in judgments:
        gold[plain] = (np.sign(gold_margin(judgments["gold"])[0]) * forward)[plain]
    signs = {
        SLOT: np.where(plain, 1.0, np.nan), "longer_preferred_raw": np.where(plain, np.sign(gap), np.nan), "gold_agreement": gold,
        IDENTICAL: np.where(identical, 1.0, np.nan),
    }  # fmt: skip
    if "probe" in judgments:
        names = judgments["probe"].where(on_probe & ~identical)
        signs |= {
            f"{name}_probe": np.where(names == name, -forward, np.nan) for name in sorted(names.dropna().unique())
        }
    signs = {term: np.where(sign == 0, np.nan, sign) for term, sign in signs.items()}
    return judgments.assign(**signs), [term for term, sign in signs.items() if not np.isnan(sign).all()]


def changes(earlier: pd.DataFrame, later: pd.DataFrame, terms: Sequence[str], *stream: str | int) -> Changes:
    """The changes in ``terms``, and in ``conflict_rate`` and ``disagreement`` where ``first_slot_excess`` is one of them.

    ``earlier``, ``later``: judgments with ``item_id, pair_id, order, verdict`` (and ``p_first``). ``earlier`` has a column a
    term (``with_signs``): what picking the first slot of that presentation counts for it, +1 or −1, NaN where it says nothing. Pairs with a
    verdict in both orders at both times count (of ``identical_pair_excess`` one order is enough). ``stream`` names the random
    stream of the permutations.

    - ``conflict_rate``: the share of pairs whose verdict goes with the slot, each verdict met with each of the other order
    - ``disagreement``: verdicts of two times differ more often than those of one time, unbiased for the mean squared change
      of a presentation's rate; needs two or more verdicts at each time
    """
    judged = _Presentations.of(earlier, later, terms)
    quadratic = (CONFLICT, DISAGREEMENT) if SLOT in terms else ()
    names = [name for name in (*terms, *quadratic) if judged.counts(name).any()]
    p_values = _permuted(judged, names, stream)
    by_term = {name: judged.change(name, p) for name, p in zip(names, p_values, strict=True)}
    return Changes(by_term, int(judged.late.sum()), len(judged.pair), judged.moved)


@dataclass(frozen=True, slots=True)
class _Presentations:
    """r verdicts of c presentations (pair and order) that have some at both times, sorted by presentation.

    Of verdicts: ``cell`` (r,) its presentation, ``late`` (r,), ``pick`` (r,) and ``slot`` (r, 2): picked first, second. Of
    presentations: ``start`` (c,) its first row, ``pair`` and ``item`` codes (c,), ``whole`` (c,) whether its pair has both orders,
    ``other`` (c,) the one in the other order, ``signs`` term → (c,), ``differs`` (c,) whether its verdicts differ.
    """

    cell: Integers
    late: Booleans
    pick: Floats
    slot: Floats
    start: Integers
    pair: Integers
    item: Integers
    whole: Booleans
    other: Integers
    signs: dict[str, Floats]
    differs: Booleans

    @classmethod
    def of(cls, earlier: pd.DataFrame, later: pd.DataFrame, terms: Sequence[str]) -> _Presentations:
        columns = [name for name in ("item_id", CLUSTER, "pair_id", "order", "verdict", "p_first") if name in earlier]
        frame = pd.concat([earlier[columns], later[columns]], ignore_index=True)
        pick = np.asarray(first_picked(frame), dtype=np.float64)
        late = np.arange(len(frame)) >= len(earlier)
        pairs = pair_codes(frame[["item_id", "pair_id"]])
        code = 2 * pairs + (frame["order"] == "ba").to_numpy(dtype=np.intp)
        size = int(code.max(initial=-1)) + 1
        scored = ~np.isnan(pick)
        both = (np.bincount(code[scored & late], minlength=size) > 0) & (
            np.bincount(code[scored & ~late], minlength=size) > 0
        )
        rows = np.flatnonzero(scored & both[code])
        # Sorted by presentation, of each one the earlier rows first: they have the signs.
        rows = rows[np.lexsort((late[rows], code[rows]))]
        start = np.flatnonzero(np.diff(code[rows], prepend=-1))
        first = rows[start]
        pair = np.asarray(pd.factorize(pairs[first])[0], dtype=np.intp)
        whole = np.bincount(pair)[pair] == 2 if len(pair) else np.zeros(0, dtype=bool)
        other = np.arange(len(pair))
        # Both orders of a pair are neighbours.
        leads = np.flatnonzero(pair[:-1] == pair[1:])
        other[leads], other[leads + 1] = leads + 1, leads
        verdict = frame["verdict"].to_numpy()[rows]
        slot = np.stack([verdict == "first", verdict == "second"], axis=1).astype(np.float64)
        differs = np.zeros(len(start), dtype=bool)
        if len(start):
            differs = np.maximum.reduceat(pick[rows], start) > np.minimum.reduceat(pick[rows], start)
        cell = np.cumsum(np.diff(code[rows], prepend=-1) > 0) - 1
        return cls(
            cell, late[rows], pick[rows], slot.astype(np.float64), start, pair, item_codes(frame)[first], whole, other,
            {term: np.asarray(earlier[term], dtype=np.float64)[first] for term in terms}, differs,
        )  # fmt: skip

    def counts(self, name: str) -> Booleans:
        """(c,) the presentations that a term's change is taken over."""
        if name == CONFLICT:
            return self.counts(SLOT)
        if name == DISAGREEMENT:
            late, total = self._sums(self.late[None, :])[0], np.diff(self.start, append=len(self.cell))
            return np.asarray(self.counts(SLOT) & (late >= 2) & (total - late >= 2))
        known = ~np.isnan(self.signs[name])
        return known if name == IDENTICAL else known & self.whole

    def weights(self, name: str) -> Floats:
        """(c,) what a presentation weighs in the mean over pairs."""
        counted = self.counts(name)
        size = np.bincount(self.pair, weights=counted, minlength=int(self.pair.max(initial=-1)) + 1)
        return np.where(counted, 1.0 / np.maximum(size[self.pair], 1.0) / max(int((size > 0).sum()), 1), 0.0)

    def by_cell(self, late: Floats, names: Sequence[str]) -> dict[str, Floats]:
        """Term → (b, c) the change that each presentation shows where ``late`` (b, r) says which verdicts are the later ones."""
        total = np.diff(self.start, append=len(self.cell)).astype(np.float64)
        n_late = self._sums(late)
        n_early = total - n_late

        def means(values: Floats) -> tuple[Floats, Floats]:
            of_late = self._sums(late * values)
            return of_late / n_late, (np.add.reduceat(values, self.start) - of_late) / n_early

        later, earlier = means(self.pick)
        moved: dict[str, Floats] = {}
        for name in names:
            if name == CONFLICT:
                shares = [means(self.slot[:, k]) for k in (0, 1)]
                after, before = (sum(share[k] * share[k][:, self.other] for share in shares) for k in (0, 1))
                moved[name] = np.asarray(after - before)
            elif name == DISAGREEMENT:
                squares = means(self.pick**2)
                noise = sum(
                    (square - mean**2) / np.maximum(n - 1.0, 1.0)
                    for square, mean, n in zip(squares, (later, earlier), (n_late, n_early), strict=True)
                )
                moved[name] = (later - earlier) ** 2 - noise
            else:
                moved[name] = (later - earlier) * np.nan_to_num(self.signs[name])
        return moved

    @property
    def moved(self) -> int:
        """How many presentations have other shares of verdicts later than earlier."""
        if not len(self.start):
            return 0
        late, shares = self.late[None, :].astype(np.float64), (self.pick, self.slot[:, 0], self.slot[:, 1])
        n_late, total = self._sums(late)[0], np.diff(self.start, append=len(self.cell))
        moved = np.zeros(len(self.start), dtype=bool)
        for values in shares:
            of_late, whole = self._sums(late * values)[0], np.add.reduceat(values, self.start)
            moved |= np.abs(of_late / n_late - (whole - of_late) / (total - n_late)) > _ROUNDING
        return int(moved.sum())

    def change(self, name: str, p_value: float) -> Change:
        """The pairs' own changes in a term."""
        counted = self.counts(name)
        values = self.by_cell(self.late.astype(np.float64)[None, :], [name])[name][0]
        size = np.bincount(self.pair[counted])
        total = np.bincount(self.pair[counted], weights=values[counted])
        item = np.zeros(len(size), dtype=np.intp)
        item[self.pair[counted]] = self.item[counted]
        return Change(total[size > 0] / size[size > 0], item[size > 0], p_value)

    def _sums(self, values: Floats | Booleans) -> Floats:
        """(b, c) sums over each presentation's rows of ``values`` (b, r)."""
        if not len(self.start):
            return np.zeros((len(values), 0))
        return np.add.reduceat(values.astype(np.float64), self.start, axis=1)

    def only(self, cells: Booleans) -> _Presentations:
        """The presentations of a mask that keeps pairs whole."""
        rows = cells[self.cell]
        number = np.cumsum(cells) - 1
        cell = number[self.cell[rows]]
        return _Presentations(
            cell, self.late[rows], self.pick[rows], self.slot[rows], np.flatnonzero(np.diff(cell, prepend=-1)),
            self.pair[cells], self.item[cells], self.whole[cells], number[self.other[cells]],
            {name: sign[cells] for name, sign in self.signs.items()}, self.differs[cells],
        )  # fmt: skip


def _permuted(judged: _Presentations, names: Sequence[str], stream: Sequence[str | int]) -> list[float]:
    """The p of each term: the share of permutations that are as far from 0 as the data, these among them."""
    moving = np.zeros(int(judged.pair.max(initial=-1)) + 1, dtype=bool)
    moving[judged.pair[judged.differs]] = True
    cells = moving[judged.pair]
    if not cells.any() or not names:
        return [1.0] * len(names)
    part = judged.only(cells)
    # What the pairs that never move add is the same in every permutation: nothing, but for disagreement, which is 0 there too.
    weights = {name: judged.weights(name)[cells] for name in names}
    one_sided = np.array([name == DISAGREEMENT for name in names])
    is_later = part.late.astype(np.float64)  # in each presentation the earlier rows first

    def distances(late: Floats) -> Floats:
        by_cell = part.by_cell(late, names)
        means = np.stack([by_cell[name] @ weights[name] for name in names], axis=1)
        return np.where(one_sided, means, np.abs(means))

    reached = distances(is_later[None, :])[0] - _ROUNDING
    generator, drawn, hits = rng(0, "judge change", *stream), 0, np.zeros(len(names))
    p_values = np.full(len(names), np.nan)
    while drawn < _MOST_DRAWN and np.isnan(p_values).any():
        count = min(_CHUNK, _MOST_DRAWN - drawn)
        # Sorting by presentation plus a fraction puts each one's rows in random order.
        order = np.argsort(part.cell + generator.random((count, len(part.cell))), axis=1)
        late = np.empty(order.shape)
        np.put_along_axis(late, order, np.broadcast_to(is_later, order.shape), axis=1)
        far = distances(late) >= reached
        running = hits + np.cumsum(far, axis=0)
        for k in np.flatnonzero(np.isnan(p_values)):
            if running[-1, k] >= _ENOUGH:
                p_values[k] = _ENOUGH / (drawn + 1 + int(np.argmax(running[:, k] >= _ENOUGH)))
        hits, drawn = running[-1], drawn + count
    return [
        float(p) if not np.isnan(p) else float((hit + 1) / (drawn + 1)) for p, hit in zip(p_values, hits, strict=True)
    ]
