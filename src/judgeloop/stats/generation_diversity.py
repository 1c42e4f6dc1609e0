"""Diversity of each replicate, arm and generation: the same number of texts, the same items, the same token budget.

Texts are cut to L tokens, the 5th percentile of generation 0's; ``mattr`` has one window for the whole run (the method
notes §3, §7.8). ``mattr`` is a mean over texts; compression_ratio, distinct_2, vendi and self_bleu compare the texts of
one item, for items with all their K ≥ 4 candidates, and are means over items; opener_entropy and tail_mass_retained are
over all texts. A text that was drawn twice is there twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from judgeloop import seeds
from judgeloop.features import tokenize
from judgeloop.stats import diversity
from judgeloop.stats.design import Design
from judgeloop.stats.generations import Measured, Quantity, Series, by_replicate

FEWEST_TEXTS = 4
"""Texts an item that a comparison among them needs."""

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


@dataclass(frozen=True)
class _Text:
    tokens: tuple[str, ...]
    cut: str
    mattr: float | None


class _Reader:
    """Texts cut to the run's budget and tokenized, each once."""

    def __init__(self, limit: int, window: int | None) -> None:
        self._limit, self._window = limit, window
        self._read = functools.lru_cache(maxsize=None)(self._measure)
        self._embed = functools.lru_cache(maxsize=None)(lambda text: diversity.embed([self._read(text).cut])[0])

    def _measure(self, text: str) -> _Text:
        tokens = diversity.truncate(tokenize(text), self._limit)
        return _Text(tuple(tokens), diversity.truncate_text(text, self._limit), diversity.mattr(tokens, self._window))

    def tokens(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        return [self._read(text).tokens for text in texts]

    def cut(self, texts: Sequence[str]) -> list[str]:
        return [self._read(text).cut for text in texts]

    def mattr(self, text: str) -> float | None:
        return self._read(text).mattr

    def embeddings(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.stack([self._embed(text) for text in texts])


def diversity_series(measured: Measured, design: Design, names: Collection[str] = UNITS.keys()) -> list[Series]:
    """The replicate values of the diversity measures ``names`` (keys of UNITS): over all items, and by category where
    there are several."""
    drawn = measured.rows[measured.rows["n_drawn"] > 0] if len(measured.rows) else measured.rows
    zero = drawn[drawn["generation"] == 0]
    if zero.empty:
        return [Series(_quantity(name, undefined="generation 0 has no text"), "", pd.DataFrame()) for name in names]
    reader, window, remark = _budget(zero)
    drawn = drawn.assign(mattr=drawn["text"].map(reader.mattr).astype("float64"))
    quantities = {name: _quantity(name, note=remark) for name in UNITS}
    quantities["mattr"] = _mattr_quantity(drawn[drawn["generation"] == 0], design, window, remark)
    size = int(drawn.groupby(["replicate", "arm", "generation", "item_id"])["n_drawn"].sum().max())
    if size < FEWEST_TEXTS:
        why = f"{size} candidates an item; comparing them needs {FEWEST_TEXTS}"
        for name in ("compression_ratio", "distinct_2", "vendi", "dispersion", "self_bleu"):
            quantities[name] = _quantity(name, undefined=why)
    found = []
    for category in ("", *measured.categories):
        part = drawn[drawn["category"] == category] if category else drawn
        values = _values(part, reader, size, design.seed, names)
        for name in names:
            quantity = quantities[name]
            frame = pd.DataFrame() if quantity.undefined else by_replicate(values, name)
            found.append(Series(quantity, category, frame))
    return found


def _budget(zero: pd.DataFrame) -> tuple[_Reader, int | None, str]:
    """The reader, the window, and the remark that says what both are."""
    lengths = {text: len(tokenize(text)) for text in zero["text"].unique()}
    counts = np.repeat(zero["text"].map(lengths).to_numpy(dtype=np.int64), zero["n_drawn"].to_numpy(dtype=np.int64))
    limit = diversity.truncation_length(counts.tolist())
    window = diversity.mattr_window(limit)
    shorter = float(np.mean(counts < limit))
    return _Reader(limit, window), window, f"first {limit} tokens ({shorter:.1%} of generation 0 is shorter)"


def _quantity(name: str, *, undefined: str = "", note: str = "") -> Quantity:
    missing = "the texts of no replicate can be compared"
    return Quantity(name, name, "diversity", UNITS[name], undefined=undefined, note=note, missing=missing)


def _mattr_quantity(zero: pd.DataFrame, design: Design, window: int | None, remark: str) -> Quantity:
    if window is None:
        return _quantity("mattr", undefined=f"texts are too short for a window of 20 tokens: {remark}")
    known = zero[zero["mattr"].notna()]
    weights = known["n_drawn"].to_numpy(dtype=np.float64)
    values = known["mattr"].to_numpy(dtype=np.float64)
    spread = float(np.sqrt(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights)))
    return Quantity(
        "mattr", "mattr", "diversity", UNITS["mattr"], design.margins.sd * spread if spread > 0 else None,
        note=f"window {window}, {remark}", missing="no text is as long as the window",
    )  # fmt: skip


def _values(drawn: pd.DataFrame, reader: _Reader, size: int, seed: int, names: Collection[str]) -> pd.DataFrame:
    """(replicate, arm, generation) × measure."""
    initial: dict[int, NDArray[np.float64]] = {}
    rows, index = [], []
    # Generation 0 first within a replicate: the tail is that of the first arm's, which all arms share.
    ordered = drawn.sort_values(["replicate", "generation", "arm", "item_id", "candidate_id"], kind="stable")
    for _, cell in ordered.groupby(["replicate", "generation", "arm"], sort=True, observed=True):
        replicate, generation = int(cell["replicate"].iloc[0]), int(cell["generation"].iloc[0])
        arm = str(cell["arm"].iloc[0])
        by_item = [_repeated(part) for _, part in cell.groupby("item_id", sort=True, observed=True)]
        row = _compared(reader, by_item, size, names)
        if "tail_mass_retained" in names:
            embeddings = reader.embeddings([text for texts in by_item for text in texts])
            if generation == 0:
                initial.setdefault(replicate, embeddings)
                row["tail_mass_retained"] = 1.0
            elif replicate in initial:
                # One stream a replicate: the modes are the same for every arm and generation.
                stream = seeds.rng(seed, "tail", replicate)
                row["tail_mass_retained"] = diversity.tail_mass_retained(initial[replicate], embeddings, stream)
        rows.append(row)
        index.append((replicate, arm, generation))
    keys = pd.MultiIndex.from_tuples(index, names=["replicate", "arm", "generation"])
    frame = pd.DataFrame(rows, index=keys, columns=list(names), dtype="float64")
    if "tail_mass_retained" not in names:
        return frame.sort_index()
    # A replicate whose tail cannot be told has none at generation 0 either.
    later = frame["tail_mass_retained"].where(frame.index.get_level_values("generation") > 0)
    told = later.groupby(level="replicate").transform("count") > 0
    frame["tail_mass_retained"] = frame["tail_mass_retained"].where(told)
    return frame.sort_index()


def _compared(
    reader: _Reader, by_item: Sequence[list[str]], size: int, names: Collection[str]
) -> dict[str, float | None]:
    """The measures ``names`` of one arm's texts in one generation, but for the tail."""
    full = [texts for texts in by_item if len(texts) == size >= FEWEST_TEXTS]
    measures: dict[str, Callable[[], float | None]] = {
        "mattr": lambda: _item_mean(by_item, lambda texts: _mean([reader.mattr(text) for text in texts])),
        "compression_ratio": lambda: _item_mean(full, lambda texts: diversity.compression_ratio(reader.cut(texts))),
        "distinct_2": lambda: _item_mean(full, lambda texts: diversity.distinct_n(reader.tokens(texts), 2)),
        "vendi": lambda: _item_mean(full, lambda texts: diversity.vendi(reader.embeddings(texts))),
        "dispersion": lambda: _item_mean(full, lambda texts: diversity.dispersion(reader.embeddings(texts))),
        "opener_entropy": lambda: diversity.opener_entropy(
            reader.tokens([text for texts in by_item for text in texts])
        ),
        "phrase_repetition": lambda: diversity.phrase_repetition([reader.tokens(texts) for texts in by_item]),
        "self_bleu": lambda: _item_mean(full, lambda texts: diversity.self_bleu(reader.tokens(texts))),
    }
    return {name: measure() for name, measure in measures.items() if name in names}


def _repeated(part: pd.DataFrame) -> list[str]:
    counts = part["n_drawn"].to_numpy(dtype=np.int64)
    return [text for text, count in zip(part["text"], counts, strict=True) for _ in range(count)]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _item_mean(items: Sequence[list[str]], measure: Callable[[list[str]], float | None]) -> float | None:
    return _mean([measure(texts) for texts in items])
