"""The tail within items: planted texts whose items differ far more than their styles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from judgeloop.seeds import rng
from judgeloop.stats.loop.diversity import Embedder, Vocabulary
from judgeloop.stats.loop.tail import RARE, Tail, TailMass, surface
from judgeloop.text.features import tokenize

COMMON = [f"{a}{b}{c}" for a in "bdgklm" for b in "aeiou" for c in "nrstx"]


def texts(labels: tuple[str | int, ...], items: int, size: int, rare: float, style: str) -> list[str]:
    """60 words a text, two in five of them its item's own; a share ``rare`` of the texts is written in a style apart."""
    stream = rng(0, *labels)
    drafts = []
    for item in range(items):
        for _ in range(size):
            apart, sentence = stream.random() < rare, int(stream.choice([7, 10, 14]))
            parts = []
            for place in range(60):
                draw = stream.random()
                word = COMMON[int(stream.integers(len(COMMON)))]
                if draw < 0.4:
                    word = f"topic{item}x{stream.integers(8)}"
                elif apart and style == "words" and draw < 0.65:
                    word = f"rare{stream.integers(6)}"
                mark = "\n- " if apart and style == "lists" and place % 8 == 0 else " "
                parts.append(mark + word + ("." if place % sentence == sentence - 1 else ""))
            drafts.append("".join(parts))
    return drafts


def kept(tail: Tail, blocks: Sequence[np.ndarray], items: np.ndarray) -> float:
    masses = tail.masses(blocks, items)
    assert masses is not None
    assert masses.retained is not None
    return masses.retained


def blocks(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    vocabulary = Vocabulary()
    return Embedder(vocabulary).embed([vocabulary.codes(tokenize(text)) for text in texts]), surface(texts)


def retained(replicate: int, items: int, size: int, style: str, rare: float) -> tuple[float, float]:
    """What is kept where nothing changes, and where the rare style falls from a tenth of the texts to ``rare``."""
    codes = np.repeat(np.arange(items), size)
    start = blocks(texts((style, "start", replicate), items, size, 0.1, style))
    tail = Tail(start, codes, rng(0, "tail", replicate))
    same = kept(tail, blocks(texts((style, "same", replicate), items, size, 0.1, style)), codes)
    return same, kept(tail, blocks(texts((style, "lost", replicate), items, size, rare, style)), codes)


@pytest.mark.parametrize("style", ["words", "lists"])
@pytest.mark.slow
def test_a_rare_style_that_is_lost_is_missed_though_items_keep_their_topics(style: str) -> None:
    """Clustering all items' texts together finds the items: it read 1.10 lost against 1.20 unchanged here."""
    kept_shares = np.array([retained(replicate, 40, 4, style, 0.0) for replicate in range(8)])
    same, lost = kept_shares.T
    assert abs(same.mean() - 1.0) < 4 * same.std(ddof=1) / math.sqrt(8)
    gap = same - lost
    assert gap.mean() > 0.15
    assert gap.mean() / (gap.std(ddof=1) / math.sqrt(8)) > 2.5


@pytest.mark.slow
@pytest.mark.parametrize("size", [4, 8])
def test_without_change_the_tail_is_kept_and_with_loss_it_is_not(size: int) -> None:
    kept_shares = np.array([retained(replicate, 30, size, "words", 0.0) for replicate in range(24)])
    assert abs(kept_shares[:, 0].mean() - 1.0) < 4 * kept_shares[:, 0].std(ddof=1) / math.sqrt(24)
    assert kept_shares[:, 1].mean() < 0.85


def points(stream: np.random.Generator, n: int, spread: float = 1.0) -> np.ndarray:
    return stream.standard_normal((n, 2)) * [3.0, spread]


@pytest.mark.slow
def test_exchangeable_texts_keep_a_tail_of_one_at_any_number() -> None:
    """The expected share of a sample between two order statistics of another is their ranks' gap over n + 1: no bias."""
    kept_shares = []
    for replicate in range(400):
        stream = rng(0, "points", replicate)
        first, later = points(stream, 24), points(stream, 200)
        tail = Tail([first], np.zeros(24, dtype=np.intp), stream)
        kept_shares.append(kept(tail, [later], np.zeros(200, dtype=np.intp)))
    assert abs(np.mean(kept_shares) - 1.0) < 4 * np.std(kept_shares) / 20


def test_what_items_share_and_a_drift_of_all_texts_change_nothing() -> None:
    stream = rng(0, "shift")
    items = np.repeat(np.arange(30), 6)
    first, later = points(stream, 180), points(stream, 180)
    apart = 50.0 * stream.standard_normal((30, 2))[items]
    # Six texts an item: its mean in a half of three is shrunk by a thirteenth, so items are not quite gone.
    plain = kept(Tail([first], items, rng(0, "s")), [later], items)
    drifted = kept(Tail([first], items, rng(0, "s")), [later + np.array([5.0, -3.0])], items)
    assert drifted == pytest.approx(plain)
    moved = kept(Tail([first + apart], items, rng(0, "s")), [later + apart], items)
    assert moved == pytest.approx(1.0, abs=0.35)


def test_the_tail_grows_with_what_lies_far_but_not_with_what_is_new() -> None:
    stream = rng(0, "far")
    items = np.zeros(400, dtype=np.intp)
    first = points(stream, 400)
    tail = Tail([first], items, rng(0, "s"))
    held = [kept(tail, [scale * points(rng(0, "later"), 400)], items) for scale in (0.2, 0.6, 1.0, 3.0)]
    assert all(low < high for low, high in pairwise(held))
    ring = np.column_stack([np.cos(np.arange(400.0)), np.sin(np.arange(400.0))])
    assert tail.masses([1000.0 * ring], items) == TailMass(None, 1.0)
    assert RARE == 0.2


@pytest.mark.parametrize("dimensions", [2, 8])
def test_mass_that_is_lost_is_told_from_mass_that_moved(dimensions: int) -> None:
    """A rare style of a tenth of the texts; counted over all texts, a spread that triples read .45 to .7 in eight dimensions."""
    items = np.repeat(np.arange(30), 8)

    def draw(*labels: str | int, spread: float = 1.0, rare: float = 0.1, new: float = 0.0) -> list[np.ndarray]:
        stream = rng(0, "moved", dimensions, *labels)
        rows = spread * stream.standard_normal((len(items), dimensions))
        rows[stream.random(len(items)) < rare, 0] += 5.0
        rows[stream.random(len(items)) < new, 1] += 12.0
        return [rows]

    cases = {
        "same": {},
        "wide": {"spread": 3.0},
        "lost": {"rare": 0.0},
        "new": {"new": 0.1},
        "both": {"rare": 0.0, "new": 0.1},
    }
    held: dict[str, list[float]] = {name: [] for name in cases}
    added: dict[str, list[float]] = {name: [] for name in cases}
    for replicate in range(4):
        tail = Tail(draw("start", replicate), items, rng(0, "halves", replicate))
        for name, change in cases.items():
            masses = tail.masses(draw(name, replicate, **change), items)
            assert masses is not None
            assert masses.retained is not None
            held[name].append(masses.retained)
            added[name].append(masses.new)
    retained, new = ({name: float(np.mean(values)) for name, values in of.items()} for of in (held, added))
    assert retained["wide"] > 1.5
    assert retained["lost"] < retained["same"] - 0.1
    assert retained["both"] < retained["new"] - 0.1
    assert retained["new"] == pytest.approx(retained["same"], abs=0.25)
    assert new["both"] > 0.08 > 0.03 > new["lost"]


def test_generation_zeros_own_texts_drawn_again_are_no_loss() -> None:
    """Pools draw their texts again. Read where they make out what is common these looked common themselves: a loss of a quarter of the tail
    where half of the texts are drawn again by lot, of half where all are. What is lost by choice is still seen, and a text that only looks
    the same, as a model's short answers do, is read like any other."""
    pool, items, size, times = 16, np.repeat(np.arange(24), 4), (24, 4), 40
    held: dict[str, list[float]] = {name: [] for name in ("fresh", "half", "all", "one", "chosen", "alike")}
    new: dict[str, list[float]] = {name: [] for name in held}
    for replicate in range(times):
        stream = rng(0, "repeats", replicate)
        rest = stream.standard_t(4, (24, pool, 12))
        texts = 2.0 * stream.standard_normal((24, 1, 12)) + rest
        zero, fresh = stream.integers(0, pool, size), stream.integers(0, pool, size)
        names = list(zip(items.tolist(), zero.ravel().tolist(), strict=True))
        tail = Tail([texts[items, zero.ravel()]], items, stream, names)
        again = np.take_along_axis(zero, stream.integers(0, 4, size), axis=1)
        far = np.take_along_axis(np.linalg.norm(rest, axis=2), zero, axis=1)
        later = {
            "fresh": fresh, "half": np.where(stream.random(size) < 0.5, again, fresh), "all": again,
            "one": np.repeat(again[:, :1], 4, axis=1), "alike": again,
            "chosen": np.take_along_axis(zero, np.argsort(far, axis=1)[:, stream.integers(0, 2, 4)], axis=1),
        }  # fmt: skip
        for name, chosen in later.items():
            drawn = list(zip(items.tolist(), chosen.ravel().tolist(), strict=True)) if name != "alike" else ()
            masses = tail.masses([texts[items, chosen.ravel()]], items, drawn)
            assert masses is not None
            assert masses.retained is not None
            held[name].append(masses.retained)
            new[name].append(masses.new - tail.expected_new)
    for name in ("fresh", "half", "all", "one"):
        error = 3.0 * np.std(held[name]) / np.sqrt(times)
        assert abs(np.mean(held[name]) - 1.0) < 0.03 + error, name
        assert abs(np.mean(new[name])) < 0.004
    assert np.mean(held["chosen"]) < 0.65
    assert 0.4 < np.mean(held["alike"]) < 0.7


def test_the_tail_depends_on_the_stream_alone_and_is_undefined_where_there_is_none() -> None:
    first, items = points(rng(0, "first"), 80), np.repeat(np.arange(20), 4)
    first_value, second_value = (kept(Tail([first], items, rng(0, "split")), [first * 0.9], items) for _ in range(2))
    assert first_value == second_value
    few = Tail([first[:18]], items[:18], rng(0, "split"))
    assert few.masses([first], items) is None
    none = np.zeros((0, 2))
    assert Tail([none], items[:0], rng(0, "split")).masses([first], items) is None
    assert Tail([np.ones((80, 3))], items, rng(0, "split")).masses([np.ones((80, 3))], items) is None
    assert Tail([first], items, rng(0, "split")).masses([none], items[:0]) is None


def test_surface_counts_by_hand() -> None:
    (row,) = surface(["# Go on.\n- It is 3!"])
    tokens = 9  # "#", "Go", "on", ".", "-", "It", "is", "3", "!"
    assert row[0] == row[2] == pytest.approx(math.sqrt(100 / tokens))  # "#" and "-"
    assert row[17:].tolist() == pytest.approx(
        [math.sqrt(v) for v in (0.0, 100 / tokens, 200 / tokens, 100 / tokens, 9 / 5, 5 / 2)]
    )
    assert np.all(np.isfinite(surface(["", " ", "😀"])))
