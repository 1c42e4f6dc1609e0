"""Diversity of texts: its measures, and their values in each replicate, arm and generation (docs/method.md, "Diversity").

Every measure grows or falls with the amount of text, so the amount is fixed: texts are cut to L tokens, the 5th percentile
of generation 0's; ``mattr`` has one window for the whole run. ``mattr`` is a mean over texts; compression_ratio, distinct_2,
vendi, dispersion and self_bleu compare the texts of one item, for items with all their K ≥ 4 candidates, and are means over
items; opener_entropy, phrase_repetition, tail_mass_retained and new_mode_mass are over all texts, the last two within items. A text that was
drawn twice counts twice.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.stats.design import Design
from judgeloop.stats.loop.replicates import CELL, MeasuredCandidates, Quantity, Series, by_replicate
from judgeloop.stats.loop.tail import Tail, TailMass, surface
from judgeloop.text.features import tokenize

FEWEST_TEXTS = 4
"""Fewest texts of an item for the measures that compare them."""

_BY_GENERATION = ["replicate", "generation", "arm"]
_MOST_CACHED = 8_000
"""Texts whose tokens and embeddings (8 KB each) stay in memory: a pool's texts return in every generation."""

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
    "new_mode_mass": "share of texts",
}
"""Measure → its unit: all the measures that a run reports."""

BLOCK_BYTES = 32_768
"""Largest block of text that is compressed at once: DEFLATE looks back this far."""

EIGENVALUE_FLOOR = 1e-12
"""Floating-point noise of a Gram matrix, relative to its largest eigenvalue of at most 1."""


# The amount of text that is measured.


def truncation_length(token_counts: Sequence[int]) -> int:
    """L in tokens: the 5th percentile of generation 0's token counts, one of the counts (inverse of the empirical distribution).

    Fewer than 5 % of the counts are below it. Raises ValueError for no counts.
    """
    if len(token_counts) == 0:
        raise ValueError("the truncation length needs the token counts of generation 0; there are none")
    return int(np.quantile(np.asarray(token_counts, dtype=np.int64), 0.05, method="inverted_cdf"))


def mattr_window(truncation: int) -> int | None:
    """The run's window for ``mattr`` in tokens: 50 where L ≥ 50, else the largest multiple of 10 ≤ L; None below 20."""
    if truncation < 20:
        return None
    return min(50, truncation // 10 * 10)


def through(text: str, tokens: Sequence[str]) -> str:
    """The text up to the end of ``tokens``, which are its first tokens."""
    end = 0
    # Between tokens stand only characters that cannot begin one, so the next occurrence is the token itself.
    for token in tokens:
        end = text.index(token, end) + len(token)
    return text[:end]


# Measures of one text, or of one set of texts.


def mattr(tokens: Sequence[str], window: int | None) -> float | None:
    """Moving-average type-token ratio in (0, 1] (Covington & McFall 2010): higher = more varied words within a text.

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

    def compressed_size() -> int:
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
                packed += compressed_size()
            block += data[start : start + BLOCK_BYTES]
    if not raw:
        return None
    return raw / (packed + compressed_size())


def opener_entropy(openers: Counter[Any]) -> float | None:
    """Entropy of counted openers (the texts' first tokens) in nats, Miller–Madow: higher = more varied openers.

    −Σ p log p + (m − 1) / 2n for m observed openers of n texts (Miller 1955). None without texts.
    """
    n = openers.total()
    if n == 0:
        return None
    plug_in = -math.fsum(count / n * math.log(count / n) for count in openers.values())
    return plug_in + (len(openers) - 1) / (2 * n)


# Measures of many items at once, on codes (``coded_texts``) or embeddings.


def distinct_share(grams: Integers, items: Integers, count: int) -> Floats:
    """(count,) distinct n-grams / n-grams of each item, in (0, 1]: higher = more diverse (Li et al. 2016).

    NaN for an item without n-grams. ``grams``, ``items``: (n-grams,) each n-gram and its item; ``count``: number of items.
    """
    total = np.bincount(items, minlength=count)
    keys = np.unique(items * (int(grams.max(initial=0)) + 1) + grams)
    distinct = np.bincount(keys // (int(grams.max(initial=0)) + 1), minlength=count)
    return _quotient(distinct, total, total > 0)


def shared_share(grams: Integers, items: Integers) -> float | None:
    """The share of the n-grams, in [0, 1], that texts of another item contain too: higher = stock phrases, less diverse.

    Only other items' texts are searched, so that phrases which an item's own question calls for do not count
    (self-repetition, Salkar et al. 2022, across prompts). None where fewer than two items have an n-gram.
    """
    if len(grams) == 0 or int(items.min()) == int(items.max()):
        return None
    width = int(items.max()) + 1
    holders = np.bincount(np.unique(grams * width + items) // width, minlength=int(grams.max()) + 1)
    return int(np.sum(holders[grams] > 1)) / len(grams)


def self_bleu(texts: Tokens, ngrams: Sequence[tuple[Integers, Integers]], count: int) -> Floats:
    """(count,) mean BLEU of each item's texts against its others, in [0, 1]: higher = more alike, less diverse.

    Zhu et al. (2018). NaN for an item with fewer than two texts that have tokens.

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
        long_enough = total > 0
        unmatched = long_enough & (matched == 0)
        smoothing[unmatched] *= 2.0
        share = np.where(unmatched, 1.0 / (smoothing * np.maximum(total, 1)), matched / np.maximum(total, 1))
        logs[long_enough] += np.log(share[long_enough])
        orders += long_enough
    present = sizes > 0
    brevity = np.minimum(0.0, 1.0 - _closest(sizes, texts.items) / np.maximum(sizes, 1))
    scores = np.exp(brevity + logs / np.maximum(orders, 1))
    held = np.bincount(texts.items[present], minlength=count)
    summed = np.bincount(texts.items[present], weights=scores[present], minlength=count)
    return _quotient(summed, held, held >= 2)


def _quotient(above: NDArray[Any], below: NDArray[Any], where: NDArray[np.bool_]) -> Floats:
    """above / below ``where`` that is true, NaN elsewhere."""
    ratio = np.full(len(below), np.nan)
    ratio[where] = above[where] / below[where]
    return ratio


def _matched(grams: Integers, text: Integers, items: Integers, n: int) -> Integers:
    """(n,) how many n-grams of each text another text of its item has too, each clipped at the most that one of them has."""
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
    """(texts,) the size of the item's other text that is closest in size, the smaller on a tie.

    Texts without tokens do not count; a text without others has its own size.
    """
    closest = sizes.copy()
    far = np.iinfo(np.int64).max
    best = np.full(len(sizes), far, dtype=np.int64)
    scale = int(sizes.max(initial=0)) + 1
    # The j-th text after each, as long as it is of the same item: as many rounds as the largest item has texts.
    for step in range(1, int(np.bincount(items).max(initial=0))):
        former = np.flatnonzero((items[step:] == items[:-step]) & (sizes[step:] > 0) & (sizes[:-step] > 0))
        for own, other in ((former, former + step), (former + step, former)):
            rank = np.abs(sizes[other] - sizes[own]) * scale + sizes[other]
            nearer = rank < best[own]
            best[own[nearer]] = rank[nearer]
            closest[own[nearer]] = sizes[other[nearer]]
    return closest


def vendi(embeddings: Floats) -> Floats:
    """(items,) Vendi scores of (items, texts, d) embeddings by their cosine: 1 (all alike) … texts (all orthogonal).

    exp(−Σ λ log λ) of the eigenvalues of K/n, K the cosine similarities of n texts (Friedman & Dieng 2023). Fewer texts
    than d, and no zero row.
    """
    unit = embeddings / np.linalg.norm(embeddings, axis=2, keepdims=True)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.transpose(0, 2, 1) / embeddings.shape[1])
    positive = np.where(eigenvalues > EIGENVALUE_FLOOR, eigenvalues, 1.0)
    return np.asarray(np.exp(-np.sum(positive * np.log(positive), axis=1)))


def dispersion(embeddings: Floats) -> Floats:
    """(items,) mean squared distance to the centroid of (items, texts, d) embeddings: higher = more diverse."""
    gaps = embeddings - embeddings.mean(axis=1, keepdims=True)
    return np.asarray(np.mean(np.sum(gaps**2, axis=2), axis=1))


# The measures of a run, by replicate, arm and generation.


@dataclass(frozen=True, slots=True)
class _CutText:
    """A text cut to the run's L tokens: its codes, the text itself, and its ``mattr`` (NaN where it is too short)."""

    codes: Integers
    cut: str
    mattr: float


class _Reader:
    """Texts cut to ``limit`` tokens, coded and embedded, each once as long as the caches have room."""

    def __init__(self, limit: int, window: int | None) -> None:
        self._limit, self._window = limit, window
        self._vocabulary = Vocabulary()
        self._embedder = Embedder(self._vocabulary)
        self._cut: dict[str, _CutText] = {}
        self._embedded: dict[str, Floats] = {}
        self._surfaces: dict[str, Floats] = {}

    def read(self, texts: Sequence[str]) -> list[_CutText]:
        """The texts as cut, in their order."""
        if len(self._cut) > _MOST_CACHED:
            self._cut.clear()
        for text in texts:
            if text not in self._cut:
                tokens = tokenize(text)[: self._limit]
                ratio = mattr(tokens, self._window)
                self._cut[text] = _CutText(
                    self._vocabulary.codes(tokens),
                    through(text, tokens),
                    np.nan if ratio is None else ratio,
                )
        return [self._cut[text] for text in texts]

    def embeddings(self, texts: Sequence[str]) -> Floats:
        """(texts, EMBEDDING_SIZE) embeddings of the texts as cut."""
        if len(self._embedded) > _MOST_CACHED:
            self._embedded.clear()
        fresh = [text for text in dict.fromkeys(texts) if text not in self._embedded]
        if fresh:
            rows = self._embedder.embed([text.codes for text in self.read(fresh)])
            self._embedded.update(zip(fresh, rows, strict=True))
        return np.stack([self._embedded[text] for text in texts])

    def surfaces(self, texts: Sequence[str]) -> Floats:
        """(texts, 23) ``tail.surface`` of the texts as cut."""
        if len(self._surfaces) > _MOST_CACHED:
            self._surfaces.clear()
        fresh = [text for text in dict.fromkeys(texts) if text not in self._surfaces]
        if fresh:
            rows = surface([text.cut for text in self.read(fresh)])
            self._surfaces.update(zip(fresh, rows, strict=True))
        return np.stack([self._surfaces[text] for text in texts])


def diversity_series(
    measured: MeasuredCandidates, design: Design, names: Collection[str] = UNITS.keys()
) -> list[Series]:
    """The replicate values of the measures ``names`` (keys of UNITS): over all items, and by category where there are several."""
    drawn = measured.rows[measured.rows["n_drawn"] > 0] if len(measured.rows) else measured.rows
    zero = drawn[drawn["generation"] == 0]
    if zero.empty:
        return [Series(_quantity(name, undefined="generation 0 has no text"), "", pd.DataFrame()) for name in names]
    reader, window, remark = _reader_of_run(zero)
    quantities = {name: _quantity(name, note=remark) for name in UNITS}
    quantities["mattr"] = _mattr_quantity(zero, reader, design, window, remark)
    size = int(drawn.groupby([*CELL, "item_id"])["n_drawn"].sum().max())
    if size < FEWEST_TEXTS:
        why = f"{size} candidates an item; comparing them needs {FEWEST_TEXTS}"
        for name in ("compression_ratio", "distinct_2", "vendi", "dispersion", "self_bleu"):
            quantities[name] = _quantity(name, undefined=why)
    series = []
    tables = _CellMeasures(reader, size, design.seed, names).tables(drawn, measured.categories)
    for category, table in tables.items():
        for name in names:
            quantity = quantities[name]
            frame = pd.DataFrame() if quantity.undefined else by_replicate(table, name)
            series.append(Series(quantity, category, frame))
    return series


def _reader_of_run(zero: pd.DataFrame) -> tuple[_Reader, int | None, str]:
    """(reader of texts cut to L, window of ``mattr``, remark that states L), from generation 0's candidates."""
    lengths = {text: len(tokenize(text)) for text in zero["text"].unique()}
    counts = np.repeat(zero["text"].map(lengths).to_numpy(dtype=np.int64), zero["n_drawn"].to_numpy(dtype=np.int64))
    limit = truncation_length(counts.tolist())
    window = mattr_window(limit)
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
    """The texts of one replicate, arm and generation, each as often as drawn, those of an item together.

    ``items`` (texts,): each text's item as a number from 0; ``drafts`` (texts,): equal for what was drafted once and drawn again. Of each item, (items,): its category, whether it has all its
    texts (``full``), and its number in the whole run (``numbers``).
    """

    texts: list[str]
    drafts: list[Hashable]
    items: Integers
    categories: NDArray[np.object_]
    full: NDArray[np.bool_]
    numbers: NDArray[np.intp]


class _CellMeasures:
    """The measures ``names``, computed a cell (replicate, arm, generation) at a time."""

    def __init__(self, reader: _Reader, size: int, seed: int, names: Collection[str]) -> None:
        self._reader, self._size, self._seed, self._names = reader, size, seed, names

    def tables(self, drawn: pd.DataFrame, categories: Sequence[str]) -> dict[str, pd.DataFrame]:
        """By category ("" is all): a frame (replicate, arm, generation) × measure."""
        tails: dict[tuple[int, str], Tail] = {}
        rows: dict[str, dict[tuple[int, str, int], dict[str, float | None]]] = {name: {} for name in ("", *categories)}
        # Generation 0 first within a replicate: its first arm's texts define the tail, and all arms share them.
        ordered = drawn[[*_BY_GENERATION, "item_id", "candidate_id", "group", "n_drawn", "text"]].sort_values(
            [*_BY_GENERATION, "item_id", "candidate_id"], kind="stable"
        )
        numbers = pd.Index(ordered["item_id"].unique())
        for _, part in ordered.groupby(_BY_GENERATION, sort=True, observed=True):
            replicate, generation = int(part["replicate"].iloc[0]), int(part["generation"].iloc[0])
            arm = str(part["arm"].iloc[0])
            cell = self._cell(part, numbers)
            by_item, tokens = self._by_item(cell)
            blocks = self._blocks(cell) if {"tail_mass_retained", "new_mode_mass"} & set(self._names) else None
            for category, by_cell in rows.items():
                of_category = cell.categories == category if category else np.ones(len(cell.categories), dtype=bool)
                if not of_category.any():
                    continue
                chosen = of_category[cell.items]
                row = {name: _mean(values[of_category]) for name, values in by_item.items()}
                row |= self._over_all(tokens, chosen)
                if blocks is not None:
                    masses = self._tail(cell, blocks, chosen, (replicate, category), generation, tails)
                    row["tail_mass_retained"] = masses.retained if masses else None
                    row["new_mode_mass"] = masses.new if masses else None
                by_cell[replicate, arm, generation] = row
        return {category: self._frame(by_cell) for category, by_cell in rows.items()}

    def _blocks(self, cell: _Cell) -> tuple[Floats, Floats]:
        """The descriptions of the cell's texts that define the tail."""
        return self._reader.embeddings(cell.texts), self._reader.surfaces(cell.texts)

    def _tail(
        self,
        cell: _Cell,
        blocks: Sequence[Floats],
        chosen: NDArray[np.bool_],
        key: tuple[int, str],
        generation: int,
        tails: dict[tuple[int, str], Tail],
    ) -> TailMass | None:
        """The mass of the cell's texts ``chosen`` (texts,) in generation 0's tail and beyond it; None without a tail."""
        blocks, items = [block[chosen] for block in blocks], cell.numbers[cell.items[chosen]]
        drafts = [draft for draft, of_cell in zip(cell.drafts, chosen, strict=True) if of_cell]
        if generation == 0:
            if key not in tails:
                # One stream a replicate: the tail is the same for every arm and generation.
                tails[key] = Tail(blocks, items, seeds.rng(self._seed, "tail", key[0]), drafts)
            return TailMass(1.0, tails[key].expected_new)
        return tails[key].masses(blocks, items, drafts) if key in tails else None

    def _frame(self, by_cell: dict[tuple[int, str, int], dict[str, float | None]]) -> pd.DataFrame:
        keys = pd.MultiIndex.from_tuples(list(by_cell), names=CELL)
        frame = pd.DataFrame(list(by_cell.values()), index=keys, columns=list(self._names), dtype="float64")
        for name in {"tail_mass_retained", "new_mode_mass"} & set(self._names):
            # A replicate without a later value has no tail, so its value at generation 0 goes too.
            later = frame[name].where(frame.index.get_level_values("generation") > 0)
            has_tail = later.groupby(level="replicate").transform("count") > 0
            frame[name] = frame[name].where(has_tail)
        return frame.sort_index()

    def _cell(self, part: pd.DataFrame, numbers: pd.Index[str]) -> _Cell:
        """The cell of the candidates ``part``. ``numbers``: the item_ids of the run, in the order of their numbers."""
        counts = part["n_drawn"].to_numpy(dtype=np.int64)
        codes, names = pd.factorize(part["item_id"])
        items = np.asarray(codes, dtype=np.int64)
        first = np.unique(items, return_index=True)[1]
        sizes = np.bincount(items, weights=counts).astype(np.int64)
        drafts = zip(part["item_id"], part["candidate_id"], part["text"], strict=True)
        return _Cell(
            np.repeat(part["text"].to_numpy(dtype=object), counts).tolist(),
            [draft for draft, count in zip(drafts, counts.tolist(), strict=True) for _ in range(count)], np.repeat(items, counts),
            part["group"].to_numpy(dtype=object)[first], (sizes == self._size) & (self._size >= FEWEST_TEXTS),
            numbers.get_indexer(names),
        )  # fmt: skip

    def _by_item(self, cell: _Cell) -> tuple[dict[str, Floats], Tokens]:
        """Measure → (items,) values, NaN where an item has none; and the texts' tokens."""
        cut_texts = self._reader.read(cell.texts)
        tokens = Tokens.of([text.codes for text in cut_texts], cell.items)
        count, values = len(cell.full), {}
        if "mattr" in self._names:
            ratios = np.array([text.mattr for text in cut_texts])
            has_ratio = ~np.isnan(ratios)
            summed = np.bincount(cell.items[has_ratio], weights=ratios[has_ratio], minlength=count)
            held = np.bincount(cell.items[has_ratio], minlength=count)
            values["mattr"] = np.divide(summed, held, out=np.full(count, np.nan), where=held > 0)
        compared = [name for name in ("compression_ratio", "distinct_2", "vendi", "dispersion", "self_bleu")
                    if name in self._names]  # fmt: skip
        for name in compared:
            values[name] = np.full(count, np.nan)
        if not compared or not cell.full.any():
            return values, tokens
        chosen = np.flatnonzero(cell.full[cell.items])
        texts, items = [cut_texts[place] for place in chosen], cell.items[chosen]
        if "compression_ratio" in values:
            for place in range(0, len(texts), self._size):
                ratio = compression_ratio(text.cut for text in texts[place : place + self._size])
                values["compression_ratio"][items[place]] = np.nan if ratio is None else ratio
        if "distinct_2" in values or "self_bleu" in values:
            full = Tokens.of([text.codes for text in texts], items)
            ngrams = full.ngrams(4)
            if "distinct_2" in values:
                values["distinct_2"] = distinct_share(ngrams[1][0], full.items[ngrams[1][1]], count)
            if "self_bleu" in values:
                values["self_bleu"] = self_bleu(full, ngrams, count)
        if "vendi" in values or "dispersion" in values:
            embeddings = self._reader.embeddings([cell.texts[place] for place in chosen])
            embeddings = embeddings.reshape(-1, self._size, embeddings.shape[1])
            for name, measure in (("vendi", vendi), ("dispersion", dispersion)):
                if name in values:
                    values[name][cell.full] = measure(embeddings)
        return values, tokens

    def _over_all(self, tokens: Tokens, chosen: NDArray[np.bool_]) -> dict[str, float | None]:
        """The measures over all texts ``chosen`` (texts,) together."""
        row: dict[str, float | None] = {}
        inside = chosen[tokens.text]
        if "opener_entropy" in self._names:
            starts = np.searchsorted(tokens.text, np.flatnonzero(chosen))
            ends = np.minimum(np.searchsorted(tokens.text, np.flatnonzero(chosen), side="right"), starts + 3)
            codes = tokens.codes.tolist()
            openers = Counter(tuple(codes[start:end]) for start, end in zip(starts, ends, strict=True))
            row["opener_entropy"] = opener_entropy(openers)
        if "phrase_repetition" in self._names:
            part = Tokens(tokens.codes[inside], tokens.text[inside], tokens.items)
            grams, text = part.ngrams(5)[-1]
            row["phrase_repetition"] = shared_share(grams, part.items[text])
        return row


def _mean(values: Floats) -> float | None:
    """The mean of the values that are not NaN; None where all are."""
    defined = values[~np.isnan(values)]
    return float(np.mean(defined)) if len(defined) else None


# Texts as arrays: codes of their tokens, n-grams of those codes, and embeddings of the wording.

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EMBEDDING_SIZE = 1024
EMPTY_AXIS = EMBEDDING_SIZE - 1
"""The axis on which a text without tokens lies; no n-gram adds to it."""

_MOST_PAIRS = 1_000_000
"""Pairs of words after which the embedder starts anew, to bound its memory."""


class Vocabulary:
    """Codes of case-folded tokens, in order of appearance."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._codes: dict[str, int] = {}

    def codes(self, tokens: Sequence[str]) -> Integers:
        """(tokens,) the code of each token; tokens that differ in case alone share one."""
        code_of, codes = self._codes, np.empty(len(tokens), dtype=np.int64)
        for place, token in enumerate(tokens):
            word = token.casefold()
            code = code_of.get(word)
            if code is None:
                code = code_of[word] = len(self.words)
                self.words.append(word)
            codes[place] = code
        return codes


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts laid end to end.

    ``codes`` (tokens,): the tokens' codes; ``text`` (tokens,): the number of each token's text; ``items`` (texts,): each
    text's item as a number from 0.
    """

    codes: Integers
    text: Integers
    items: Integers

    @classmethod
    def of(cls, texts: Sequence[Integers], items: Integers) -> Tokens:
        """From the codes of each text, and the texts' items (texts,)."""
        sizes = np.array([len(codes) for codes in texts], dtype=np.int64)
        flat = np.concatenate(texts) if len(texts) else np.empty(0, dtype=np.int64)
        return cls(flat, np.repeat(np.arange(len(texts)), sizes), np.asarray(items, dtype=np.int64))

    def ngrams(self, n: int) -> list[tuple[Integers, Integers]]:
        """For each order 1 … n: (grams, text), the n-grams as numbers and the text of each, both (n-grams,); none spans two texts."""
        return [(ids, self.text[starts]) for ids, starts in self.placed(n)]

    def placed(self, n: int) -> list[tuple[Integers, Integers]]:
        """``ngrams`` with the place of each one's first token in ``codes`` for its text."""
        width = int(self.codes.max(initial=0)) + 1
        ids, starts = self.codes, np.arange(len(self.codes))
        by_order = [(ids, starts)]
        for order in range(2, n + 1):
            # A longer gram is a shorter one and the token after it, in the same text.
            last = starts + order - 1
            inside = last < len(self.text)
            inside[inside] = self.text[last[inside]] == self.text[starts[inside]]
            starts = starts[inside]
            ids = pd.factorize(ids[inside] * width + self.codes[starts + order - 1])[0].astype(np.int64)
            by_order.append((ids, starts))
        return by_order


def hashed(gram: str) -> tuple[int, float]:
    """The axis that an n-gram adds to, and its sign (±1)."""
    number = int.from_bytes(hashlib.blake2b(gram.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
    return number // 2 % EMPTY_AXIS, 1.0 if number % 2 else -1.0


class Embedder:
    """Fixed offline embeddings of texts given by their codes: rows of unit length. Each n-gram is hashed once.

    Signed feature hashing (Weinberger et al. 2009) of case-folded words, pairs of successive words and character
    trigrams within words (with their edges): each n-gram adds ±(1 + log count) to the axis that its BLAKE2b hash names.
    Nothing is fitted, so that a text's vector does not depend on the other texts, the run or the machine. It describes
    wording, not meaning. A text without tokens lies on an axis of its own.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._words = vocabulary.words
        self._axes: list[int] = []
        self._signs: list[float] = []
        self._grams: dict[str, int] = {}
        self._pairs: dict[int, int] = {}
        self._grams_by_word: list[Integers] = []
        self._logs = [0.0, 1.0]

    def embed(self, texts: Sequence[Integers]) -> Floats:
        """(texts, EMBEDDING_SIZE) embeddings, rows of unit length."""
        if len(self._pairs) > _MOST_PAIRS:
            self._forget()
        joined = Tokens.of(texts, np.zeros(len(texts), dtype=np.int64))
        # Words, pairs, then trigrams: sums round alike whatever was embedded before.
        while len(self._grams_by_word) < len(self._words):
            self._grams_by_word.append(self._word_grams(self._words[len(self._grams_by_word)]))
        word_grams = np.array([grams[0] for grams in self._grams_by_word], dtype=np.int64)
        inner = joined.text[1:] == joined.text[:-1]
        pairs = self._pair_grams(joined.codes[:-1][inner], joined.codes[1:][inner])
        parts = [self._grams_by_word[code][1:] for code in joined.codes.tolist()]
        sizes = np.array([len(part) for part in parts], dtype=np.int64)
        grams = np.concatenate([word_grams[joined.codes] if len(word_grams) else joined.codes, pairs, *parts])
        text = np.concatenate([joined.text, joined.text[:-1][inner], np.repeat(joined.text, sizes)])
        return self._vectors(grams, text, len(texts))

    def _vectors(self, grams: Integers, text: Integers, n: int) -> Floats:
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

    def _word_grams(self, word: str) -> Integers:
        edged = f"\x02{word}\x03"
        grams = [f"w {word}", *(f"c {edged[i : i + 3]}" for i in range(len(edged) - 2))]
        return np.array([self._gram(gram) for gram in grams], dtype=np.int64)

    def _pair_grams(self, left: Integers, right: Integers) -> Integers:
        """The gram of each pair of successive words, (pairs,). Only these grow with the amount of text (see ``_MOST_PAIRS``)."""
        codes, keys = pd.factorize(left * (1 << 31) + right)
        gram_of, grams = self._pairs, []
        for key in keys.tolist():
            gram = gram_of.get(key)
            if gram is None:
                first, second = self._words[key >> 31], self._words[key & ((1 << 31) - 1)]
                gram = gram_of[key] = self._add(f"p {first} {second}")
            grams.append(gram)
        return np.array(grams, dtype=np.int64)[codes] if grams else np.empty(0, dtype=np.int64)

    def _forget(self) -> None:
        self._pairs.clear()
        self._grams.clear()
        self._axes.clear()
        self._signs.clear()
        self._grams_by_word = [self._word_grams(word) for word in self._words]
