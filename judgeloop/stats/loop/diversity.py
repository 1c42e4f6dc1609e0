"""Diversity of each replicate, arm and generation: the same number of texts, the same items, the same token budget.

Texts are cut to L tokens, the 5th percentile of generation 0's; ``mattr`` has one window for the whole run
(docs/method.md, "Diversity"). ``mattr`` is a mean over texts; compression_ratio, distinct_2, vendi and self_bleu
compare the texts of one item, for items with all their K ≥ 4 candidates, and are means over items; opener_entropy and
tail_mass_retained are over all texts, the tail within items. A text that was drawn twice is there twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.design import Design
from judgeloop.stats.loop import diversity_measures
from judgeloop.stats.loop.diversity_measures import (
    Embedder,
    Tokens,
    Vocabulary,
    coded_dispersion,
    coded_self_bleu,
    coded_vendi,
    distinct_share,
    shared_share,
)
from judgeloop.stats.loop.replicates import CELL, MeasuredCandidates, Quantity, Series, by_replicate
from judgeloop.stats.loop.tail import Tail, surface
from judgeloop.text.features import STYLE_FEATURES, tokenize

FEWEST_TEXTS = 4
"""Texts an item that a comparison among them needs."""

_CELL = ["replicate", "generation", "arm"]
_MOST_KEPT = 8_000
"""Texts whose tokens and embedding are kept: those of a pool are met again every generation, and 8 KB each."""

UNITS = {
    "mattr": "types per token",
    "compression_ratio": "bytes per compressed byte",
    "distinct_2": "share of bigrams",
    "vendi": "effective texts",
    "dispersion": "squared distance",
    "opener_entropy": "nats",
    "self_bleu": "bleu",
    "phrase_repetition": "share of 5-grams",
    "tail_mass_retained": "ratio",
}


@dataclass(frozen=True, slots=True)
class _Text:
    codes: NDArray[np.int64]
    cut: str
    mattr: float


class _Reader:
    """Texts cut to the run's budget, coded and embedded, each once as long as there is room."""

    def __init__(self, limit: int, window: int | None) -> None:
        self._limit, self._window = limit, window
        self._vocabulary = Vocabulary()
        self._embedder = Embedder(self._vocabulary)
        self._read: dict[str, _Text] = {}
        self._embedded: dict[str, NDArray[np.float64]] = {}
        self._looked: dict[str, NDArray[np.float64]] = {}

    def read(self, texts: Sequence[str]) -> list[_Text]:
        if len(self._read) > _MOST_KEPT:
            self._read.clear()
        for text in texts:
            if text not in self._read:
                tokens = tokenize(text)[: self._limit]
                ratio = diversity_measures.mattr(tokens, self._window)
                self._read[text] = _Text(
                    self._vocabulary.codes(tokens),
                    diversity_measures.through(text, tokens),
                    np.nan if ratio is None else ratio,
                )
        return [self._read[text] for text in texts]

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(texts, EMBEDDING_SIZE)."""
        if len(self._embedded) > _MOST_KEPT:
            self._embedded.clear()
        fresh = [text for text in dict.fromkeys(texts) if text not in self._embedded]
        if fresh:
            made = self._embedder.embed([text.codes for text in self.read(fresh)])
            self._embedded.update(zip(fresh, made, strict=True))
        return np.stack([self._embedded[text] for text in texts])

    def looks(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(texts, 23), as `tail.surface`."""
        if len(self._looked) > _MOST_KEPT:
            self._looked.clear()
        fresh = [text for text in dict.fromkeys(texts) if text not in self._looked]
        if fresh:
            made = surface([text.cut for text in self.read(fresh)])
            self._looked.update(zip(fresh, made, strict=True))
        return np.stack([self._looked[text] for text in texts])


def diversity_series(
    measured: MeasuredCandidates, design: Design, names: Collection[str] = UNITS.keys()
) -> list[Series]:
    """The replicate values of the diversity measures ``names`` (keys of UNITS): over all items, and by category where
    there are several."""
    drawn = measured.rows[measured.rows["n_drawn"] > 0] if len(measured.rows) else measured.rows
    zero = drawn[drawn["generation"] == 0]
    if zero.empty:
        return [Series(_quantity(name, undefined="generation 0 has no text"), "", pd.DataFrame()) for name in names]
    reader, window, remark = _budget(zero)
    quantities = {name: _quantity(name, note=remark) for name in UNITS}
    quantities["mattr"] = _mattr_quantity(zero, reader, design, window, remark)
    size = int(drawn.groupby(["replicate", "arm", "generation", "item_id"])["n_drawn"].sum().max())
    if size < FEWEST_TEXTS:
        why = f"{size} candidates an item; comparing them needs {FEWEST_TEXTS}"
        for name in ("compression_ratio", "distinct_2", "vendi", "dispersion", "self_bleu"):
            quantities[name] = _quantity(name, undefined=why)
    found = []
    values = _Values(reader, size, design.seed, names).of(drawn, measured.categories)
    for category, table in values.items():
        for name in names:
            quantity = quantities[name]
            frame = pd.DataFrame() if quantity.undefined else by_replicate(table, name)
            found.append(Series(quantity, category, frame))
    return found


def _budget(zero: pd.DataFrame) -> tuple[_Reader, int | None, str]:
    """The reader, the window, and the remark that says what both are."""
    lengths = {text: len(tokenize(text)) for text in zero["text"].unique()}
    counts = np.repeat(zero["text"].map(lengths).to_numpy(dtype=np.int64), zero["n_drawn"].to_numpy(dtype=np.int64))
    limit = diversity_measures.truncation_length(counts.tolist())
    window = diversity_measures.mattr_window(limit)
    shorter = float(np.mean(counts < limit))
    return _Reader(limit, window), window, f"first {limit} tokens ({shorter:.1%} of generation 0 is shorter)"


def _quantity(name: str, *, undefined: str = "", note: str = "") -> Quantity:
    missing = "the texts of no replicate can be compared"
    return Quantity(name, name, "diversity", UNITS[name], undefined=undefined, note=note, missing=missing)


def _mattr_quantity(zero: pd.DataFrame, reader: _Reader, design: Design, window: int | None, remark: str) -> Quantity:
    if window is None:
        return _quantity("mattr", undefined=f"texts are too short for a window of 20 tokens: {remark}")
    ratios = {text: reader.read([text])[0].mattr for text in zero["text"].unique()}
    values = zero["text"].map(ratios).to_numpy(dtype=np.float64)
    weights = zero["n_drawn"].to_numpy(dtype=np.float64)[~np.isnan(values)]
    values = values[~np.isnan(values)]
    spread = float(np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)))
    return Quantity(
        "mattr", "mattr", "diversity", UNITS["mattr"], design.margins.sd * spread if spread > 0 else None,
        note=f"window {window}, {remark}", missing="no text is as long as the window",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cell:
    """One arm's texts in one generation, as often as drawn, the texts of an item together.

    ``items`` (texts,) the text's item as a number from 0; ``categories`` (items,) theirs; ``full`` (items,) those with all
    their texts; ``numbers`` (items,) their numbers in the whole run.
    """

    texts: list[str]
    items: NDArray[np.int64]
    categories: NDArray[np.object_]
    full: NDArray[np.bool_]
    numbers: NDArray[np.intp]


class _Values:
    """The measures ``names``, a cell (replicate, arm, generation) at a time."""

    def __init__(self, reader: _Reader, size: int, seed: int, names: Collection[str]) -> None:
        self._reader, self._size, self._seed, self._names = reader, size, seed, names

    def of(self, drawn: pd.DataFrame, categories: Sequence[str]) -> dict[str, pd.DataFrame]:
        """By category ("" is all): (replicate, arm, generation) × measure."""
        tails: dict[tuple[int, str], Tail] = {}
        rows: dict[str, dict[tuple[int, str, int], dict[str, float | None]]] = {name: {} for name in ("", *categories)}
        # Generation 0 first within a replicate: the tail is that of the first arm's, which all arms share.
        ordered = drawn[[*_CELL, "item_id", "candidate_id", "group", "n_drawn", "text"]].sort_values(
            [*_CELL, "item_id", "candidate_id"], kind="stable"
        )
        numbers = pd.Index(ordered["item_id"].unique())
        for _, part in ordered.groupby(_CELL, sort=True, observed=True):
            replicate, generation = int(part["replicate"].iloc[0]), int(part["generation"].iloc[0])
            arm = str(part["arm"].iloc[0])
            cell = self._cell(part, numbers)
            by_item, tokens = self._by_item(cell)
            blocks = self._blocks(cell) if "tail_mass_retained" in self._names else None
            for category, found in rows.items():
                of_category = cell.categories == category if category else np.ones(len(cell.categories), dtype=bool)
                if not of_category.any():
                    continue
                some = of_category[cell.items]
                row = {name: _mean(values[of_category]) for name, values in by_item.items()}
                row |= self._of_all(tokens, some)
                if blocks is not None:
                    row["tail_mass_retained"] = self._tail(cell, blocks, some, (replicate, category), generation, tails)
                found[replicate, arm, generation] = row
        return {category: self._frame(found) for category, found in rows.items()}

    def _blocks(self, cell: _Cell) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return self._reader.embeddings(cell.texts), self._reader.looks(cell.texts)

    def _tail(
        self,
        cell: _Cell,
        blocks: Sequence[NDArray[np.float64]],
        some: NDArray[np.bool_],
        key: tuple[int, str],
        generation: int,
        tails: dict[tuple[int, str], Tail],
    ) -> float | None:
        """What a cell's texts ``some`` keep of the tail that its replicate's first arm had in generation 0."""
        chosen, items = [block[some] for block in blocks], cell.numbers[cell.items[some]]
        if generation == 0:
            if key not in tails:
                # One stream a replicate: the tail is the same for every arm and generation.
                tails[key] = Tail(chosen, items, seeds.rng(self._seed, "tail", key[0]))
            return 1.0
        return tails[key].retained(chosen, items) if key in tails else None

    def _frame(self, rows: dict[tuple[int, str, int], dict[str, float | None]]) -> pd.DataFrame:
        keys = pd.MultiIndex.from_tuples(list(rows), names=["replicate", "arm", "generation"])
        frame = pd.DataFrame(list(rows.values()), index=keys, columns=list(self._names), dtype="float64")
        if "tail_mass_retained" in self._names:
            # A replicate whose tail cannot be told has none at generation 0 either.
            later = frame["tail_mass_retained"].where(frame.index.get_level_values("generation") > 0)
            told = later.groupby(level="replicate").transform("count") > 0
            frame["tail_mass_retained"] = frame["tail_mass_retained"].where(told)
        return frame.sort_index()

    def _cell(self, part: pd.DataFrame, numbers: pd.Index[str]) -> _Cell:
        counts = part["n_drawn"].to_numpy(dtype=np.int64)
        codes, known = pd.factorize(part["item_id"])
        items = np.asarray(codes, dtype=np.int64)
        first = np.unique(items, return_index=True)[1]
        sizes = np.bincount(items, weights=counts).astype(np.int64)
        return _Cell(
            np.repeat(part["text"].to_numpy(dtype=object), counts).tolist(), np.repeat(items, counts),
            part["group"].to_numpy(dtype=object)[first], (sizes == self._size) & (self._size >= FEWEST_TEXTS),
            numbers.get_indexer(known),
        )  # fmt: skip

    def _by_item(self, cell: _Cell) -> tuple[dict[str, NDArray[np.float64]], Tokens]:
        """(items,) arrays by measure, NaN where an item has none; and the texts' tokens."""
        read = self._reader.read(cell.texts)
        tokens = Tokens.of([text.codes for text in read], cell.items)
        count, made = len(cell.full), {}
        if "mattr" in self._names:
            ratios = np.array([text.mattr for text in read])
            known = ~np.isnan(ratios)
            summed = np.bincount(cell.items[known], weights=ratios[known], minlength=count)
            held = np.bincount(cell.items[known], minlength=count)
            made["mattr"] = np.divide(summed, held, out=np.full(count, np.nan), where=held > 0)
        compared = [name for name in ("compression_ratio", "distinct_2", "vendi", "dispersion", "self_bleu")
                    if name in self._names]  # fmt: skip
        for name in compared:
            made[name] = np.full(count, np.nan)
        if not compared or not cell.full.any():
            return made, tokens
        chosen = np.flatnonzero(cell.full[cell.items])
        texts, items = [read[place] for place in chosen], cell.items[chosen]
        if "compression_ratio" in made:
            for place in range(0, len(texts), self._size):
                ratio = diversity_measures.compression_ratio(text.cut for text in texts[place : place + self._size])
                made["compression_ratio"][items[place]] = np.nan if ratio is None else ratio
        if "distinct_2" in made or "self_bleu" in made:
            some = Tokens.of([text.codes for text in texts], items)
            ngrams = some.ngrams(4)
            if "distinct_2" in made:
                made["distinct_2"] = distinct_share(ngrams[1][0], some.items[ngrams[1][1]], count)
            if "self_bleu" in made:
                made["self_bleu"] = coded_self_bleu(some, ngrams, count)
        if "vendi" in made or "dispersion" in made:
            embeddings = self._reader.embeddings([cell.texts[place] for place in chosen])
            embeddings = embeddings.reshape(-1, self._size, embeddings.shape[1])
            for name, measure in (("vendi", coded_vendi), ("dispersion", coded_dispersion)):
                if name in made:
                    made[name][cell.full] = measure(embeddings)
        return made, tokens

    def _of_all(self, tokens: Tokens, some: NDArray[np.bool_]) -> dict[str, float | None]:
        """What is measured over all the texts ``some`` together."""
        row: dict[str, float | None] = {}
        kept = some[tokens.text]
        if "opener_entropy" in self._names:
            starts = np.searchsorted(tokens.text, np.flatnonzero(some))
            ends = np.minimum(np.searchsorted(tokens.text, np.flatnonzero(some), side="right"), starts + 3)
            codes = tokens.codes.tolist()
            openers = Counter(tuple(codes[start:end]) for start, end in zip(starts, ends, strict=True))
            row["opener_entropy"] = diversity_measures.opener_counts_entropy(openers)
        if "phrase_repetition" in self._names:
            part = Tokens(tokens.codes[kept], tokens.text[kept], tokens.items)
            grams, text = part.ngrams(5)[-1]
            row["phrase_repetition"] = shared_share(grams, part.items[text])
        return row


def _mean(values: NDArray[np.float64]) -> float | None:
    known = values[~np.isnan(values)]
    return float(np.mean(known)) if len(known) else None


# BiasAmp T→A: do a category's habits of style grow? Positive = what went together at generation 0 goes together more.

NAME = "bias_amplification"


def bias_amplification_series(measured: MeasuredCandidates) -> Series:
    """One number a replicate, arm and generation, 0 at generation 0; undefined where items have fewer than two categories.

    The signs are those of all replicates' generation 0 together. They are read from the sample that later generations are
    compared with, so that chance alone makes the number a little negative; ``did_`` is free of that.
    """
    present = [name for name in STYLE_FEATURES if measured.scale.get(name, 0.0) > 0]
    several = measured.rows.loc[measured.rows["category"] != "", "category"].nunique()
    why = "" if several > 1 else "the items name fewer than two categories"
    why = why or ("" if present else "no style feature varies at generation 0")
    quantity = Quantity(
        NAME, NAME, "style", "probability", undefined=why, missing="no candidate to measure",
        note=f"{len(present)} features × {several} categories",
    )  # fmt: skip
    if why:
        return Series(quantity, "", pd.DataFrame())
    rows = measured.rows[(measured.rows["n_drawn"] > 0) & (measured.rows["category"] != "")]
    has = rows[present].gt(0).astype("float64")
    frame = pd.concat([rows[[*CELL, "category", "n_drawn"]], has], axis=1)
    zero = frame[frame["generation"] == 0]
    overall = np.average(zero[present].to_numpy(), axis=0, weights=zero["n_drawn"])
    # P₀(a, t) − P₀(a)P₀(t) has the sign of P₀(a | t) − P₀(a).
    signs = (_shares(zero, ["category"], present) - overall).apply(np.sign)
    shares = _shares(frame, [*CELL, "category"], present)
    start = shares.xs(0, level="generation")
    keys = shares.index.to_frame(index=False)
    changes = (
        shares - start.reindex(pd.MultiIndex.from_frame(keys[["replicate", "arm", "category"]])).to_numpy()
    ) * signs.reindex(keys["category"]).to_numpy()
    means = changes.mean(axis="columns").groupby(level=CELL).mean()
    table = means.unstack("replicate")
    return Series(quantity, "", table)


def _shares(frame: pd.DataFrame, keys: list[str], features: list[str]) -> pd.DataFrame:
    """P(a | key): the weighted share of texts with each feature."""
    weighted = frame[features].mul(frame["n_drawn"], axis=0)
    sums = pd.concat([frame[keys], weighted, frame["n_drawn"]], axis=1).groupby(keys, sort=True, observed=True).sum()
    return sums[features].div(sums["n_drawn"], axis=0)
