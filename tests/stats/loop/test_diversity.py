"""Diversity measures against their definitions, closed forms and slow twins."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.seeds import rng
from judgeloop.stats.loop.diversity import (
    BLOCK_BYTES,
    EMBEDDING_SIZE,
    compression_ratio,
    mattr,
    mattr_window,
    truncation_length,
)
from judgeloop.text.features import tokenize
from slow_diversity import (
    dispersion,
    distinct_n,
    embed,
    opener_entropy,
    phrase_repetition,
    self_bleu,
    truncate,
    truncate_text,
    vendi,
    vendi_of_similarity,
)

WORDS = st.lists(st.sampled_from(["a", "b", "c", "A", "dd", "é", "."]), max_size=30)
ANY_TEXT = st.text(st.characters(), max_size=60)


def zipf_texts(n: int, length: int, *labels: str | int) -> list[list[str]]:
    """n texts of ``length`` independent words with probability ∝ 1/rank: equal diversity at every length."""
    p = 1.0 / np.arange(1, 5001)
    draws = rng(0, *labels).choice(5000, size=(n, length), p=p / p.sum())
    return [[f"w{number}" for number in row] for row in draws.tolist()]


def slow_mattr(words: list[str], window: int) -> float | None:
    ratios = [
        len({word.casefold() for word in words[start : start + window]}) / window
        for start in range(len(words) - window + 1)
    ]
    return sum(ratios) / len(ratios) if ratios else None


def slow_self_bleu(texts: list[list[str]], n: int) -> float | None:
    texts = [[word.casefold() for word in text] for text in texts if text]
    if len(texts) < 2:
        return None
    scores = []
    for i, text in enumerate(texts):
        others = texts[:i] + texts[i + 1 :]
        logs, misses = [], 0
        for order in range(1, min(n, len(text)) + 1):
            grams = [tuple(text[j : j + order]) for j in range(len(text) - order + 1)]
            matched = 0
            for gram in set(grams):
                clip = max(
                    sum(tuple(other[j : j + order]) == gram for j in range(len(other) - order + 1)) for other in others
                )
                matched += min(grams.count(gram), clip)
            misses += matched == 0
            logs.append(math.log(matched / len(grams)) if matched else -math.log(2**misses * len(grams)))
        closest = sorted(others, key=lambda other: (abs(len(other) - len(text)), len(other)))[0]
        brevity = 1.0 if len(text) >= len(closest) else math.exp(1 - len(closest) / len(text))
        scores.append(brevity * math.exp(sum(logs) / len(logs)))
    return sum(scores) / len(scores)


def test_truncation_length_is_an_observed_fifth_percentile():
    assert truncation_length(range(1, 101)) == 5
    assert truncation_length([7]) == 7
    assert truncation_length([100] * 96 + [3] * 4) == 100
    with pytest.raises(ValueError, match="generation 0"):
        truncation_length([])


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=80))
def test_under_five_percent_are_shorter_than_the_truncation_length(counts: list[int]):
    limit = truncation_length(counts)
    assert limit in counts
    assert sum(count < limit for count in counts) < 0.05 * len(counts) + 1e-9
    assert sum(count <= limit for count in counts) >= 0.05 * len(counts) - 1e-9


@pytest.mark.parametrize(
    ("truncation", "window"), [(0, None), (19, None), (20, 20), (29, 20), (49, 40), (50, 50), (51, 50), (900, 50)]
)
def test_mattr_window(truncation: int, window: int | None):
    assert mattr_window(truncation) == window


def test_truncate():
    assert truncate(["a", "b", "c"], 2) == ["a", "b"]
    assert truncate(("a",), 5) == ["a"]
    assert truncate_text("# Don't  stop, now!", 3) == "# Don't  stop"
    assert truncate_text("a\u200b\0 b ", 9) == "a\u200b\0 b"
    assert truncate_text("a b", 0) == ""
    with pytest.raises(ValueError, match="-1"):
        truncate(["a"], -1)


@given(ANY_TEXT, st.integers(0, 20))
def test_a_truncated_text_has_the_truncated_tokens(text: str, limit: int):
    cut = truncate_text(text, limit)
    assert text.startswith(cut)
    assert tokenize(cut) == truncate(tokenize(text), limit)


@given(WORDS, st.integers(1, 12))
def test_mattr_is_its_slow_twin(words: list[str], window: int):
    fast, slow = mattr(words, window), slow_mattr(words, window)
    assert fast == (None if slow is None else pytest.approx(slow, rel=1e-12))


def test_mattr_closed_forms():
    assert mattr(["a"] * 60, 50) == pytest.approx(1 / 50)
    assert mattr([str(i) for i in range(60)], 50) == 1.0
    assert mattr(["The", "the"] * 10, 4) == 0.25
    assert mattr(["a"] * 49, 50) is None
    assert mattr([], 1) is None
    assert mattr(["a"] * 49, None) is None
    with pytest.raises(ValueError, match="window"):
        mattr(["a"], 0)


@pytest.mark.slow
def test_measures_do_not_move_with_length_where_diversity_is_constant():
    short, long = zipf_texts(2000, 100, "short"), zipf_texts(2000, 200, "long")

    def mean_mattr(texts: list[list[str]]) -> float:
        values = [mattr(text, 50) for text in texts]
        return float(np.mean([value for value in values if value is not None]))

    def moved(measure) -> float:
        return measure(long) / measure(short) - 1

    truncated = [truncate(text, 100) for text in long]
    assert abs(moved(mean_mattr)) < 0.005
    assert abs(distinct_n(truncated) / distinct_n(short) - 1) < 0.01
    assert abs(mean_mattr(truncated) / mean_mattr(short) - 1) < 0.01
    packed = [compression_ratio(" ".join(text) for text in texts) for texts in (truncated, short)]
    assert abs(packed[0] / packed[1] - 1) < 0.01
    # And without truncation distinct-2 falls, which is why there is one.
    assert moved(distinct_n) < -0.03


@given(st.lists(WORDS, max_size=6), st.integers(1, 4))
def test_distinct_n_is_its_slow_twin(texts: list[list[str]], n: int):
    grams = [
        tuple(word.casefold() for word in text[start : start + n])
        for text in texts
        for start in range(len(text) - n + 1)
    ]
    assert distinct_n(texts, n) == (len(set(grams)) / len(grams) if grams else None)


def test_distinct_n_by_hand():
    assert distinct_n([["a", "b", "a", "b"], ["A", "b"]]) == 0.5  # ab ba ab | ab
    assert distinct_n([["a"], []]) is None
    assert distinct_n([]) is None
    with pytest.raises(ValueError, match="n must"):
        distinct_n([["a"]], 0)


def test_compression_ratio_rises_with_redundancy():
    varied = [" ".join(text) for text in zipf_texts(50, 100, "varied")]
    assert compression_ratio([varied[0]] * 50) > 5 * compression_ratio(varied) > 5
    assert compression_ratio([]) is None
    assert compression_ratio(["", ""]) is None
    assert 0 < compression_ratio(["x"]) <= 1
    assert compression_ratio(["\ud800\0"]) > 0


def test_compression_sees_one_block_at_a_time():
    letters = [chr(97 + letter) for letter in rng(0, "letters").integers(0, 26, BLOCK_BYTES - 1).tolist()]
    block = "".join(letters)
    once = compression_ratio([block])
    assert compression_ratio([block] * 4) == once  # A repeat in another block is not seen.
    halves = [block[: len(block) // 2], block[: len(block) // 2]]
    assert compression_ratio(halves) > 1.9 * once  # In the same block it is.
    assert compression_ratio([block * 3]) == pytest.approx(once, rel=1e-3)  # A text longer than a block is cut.


@given(st.lists(WORDS, max_size=12), st.integers(1, 4))
def test_opener_entropy_is_its_slow_twin(texts: list[list[str]], first: int):
    openers = [tuple(word.casefold() for word in text[:first]) for text in texts]
    if not openers:
        assert opener_entropy(texts, first) is None
        return
    plug_in = 0.0
    for opener in set(openers):
        share = openers.count(opener) / len(openers)
        plug_in -= share * math.log(share)
    expected = plug_in + (len(set(openers)) - 1) / (2 * len(openers))
    assert opener_entropy(texts, first) == pytest.approx(expected, abs=1e-12)


def test_miller_madow_removes_most_of_the_bias():
    draws = rng(0, "openers").integers(0, 8, size=(2000, 40))
    corrected = np.mean([opener_entropy([[str(number)] for number in row]) for row in draws.tolist()])
    plug_in = np.mean([-sum(c / 40 * math.log(c / 40) for c in Counter(row).values()) for row in draws.tolist()])
    assert abs(corrected - math.log(8)) < 0.01 < 0.05 < math.log(8) - plug_in


@given(st.lists(ANY_TEXT, max_size=8))
def test_embeddings_are_unit_vectors_that_depend_on_their_own_text(texts: list[str]):
    vectors = embed(texts)
    assert vectors.shape == (len(texts), EMBEDDING_SIZE)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0)
    for vector, text in zip(vectors, texts, strict=True):
        assert np.array_equal(vector, embed([text])[0])
    if texts:
        assert 1 - 1e-9 <= vendi(vectors) <= len(texts) + 1e-9


def test_embeddings_are_frozen_and_near_for_near_wording():
    cat, cats, bread, blank = embed(
        ["The cat sat on the mat.", "the cats sat on a mat", "Bake bread at 220 degrees!", " "]
    )
    assert cat @ cats > 0.4 > 0.2 > abs(cat @ bread)
    assert blank @ cat == 0.0
    assert blank @ embed([""])[0] == 1.0
    assert np.array_equal(embed(["THE CAT"]), embed(["the cat"]))
    # One word: itself and its trigrams with edges, four axes at equal weight. A change here makes recorded runs incomparable.
    axes = np.nonzero(embed(["cat"])[0])[0].tolist()
    assert axes == [780, 796, 827, 918]


def test_vendi_closed_forms():
    assert vendi(embed(["same words here"] * 7)) == pytest.approx(1.0)
    assert vendi(np.eye(9)) == pytest.approx(9.0)
    assert vendi(np.eye(3)[[0, 0, 1, 1, 2, 2]] * 5.0) == pytest.approx(3.0)
    assert vendi(np.zeros((0, 4))) is None
    assert vendi_of_similarity(np.ones((5, 5))) == pytest.approx(1.0)
    assert vendi_of_similarity(np.eye(5)) == pytest.approx(5.0)
    cosine = 0.6  # Two texts: eigenvalues (1 ± c)/2.
    expected = math.exp(-(0.8 * math.log(0.8) + 0.2 * math.log(0.2)))
    assert vendi_of_similarity(np.array([[1, cosine], [cosine, 1]])) == pytest.approx(expected)
    assert vendi(np.array([[1.0, 0.0], [0.6, 0.8]])) == pytest.approx(expected)
    assert vendi_of_similarity(np.zeros((0, 0))) is None
    with pytest.raises(ValueError, match="length zero"):
        vendi(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="diagonal"):
        vendi_of_similarity(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="symmetric"):
        vendi_of_similarity(np.array([[1.0, 0.2], [0.4, 1.0]]))


@pytest.mark.parametrize("shape", [(6, 40), (40, 6)])
def test_vendi_is_the_similarity_matrixs_on_either_side(shape: tuple[int, int]):
    points = rng(0, "vendi", *shape).normal(size=shape)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert vendi(points) == pytest.approx(vendi_of_similarity(unit @ unit.T), rel=1e-9)
    assert vendi(points) == pytest.approx(vendi(points[::-1]), rel=1e-9)


@given(st.lists(WORDS, max_size=5), st.integers(1, 4))
def test_self_bleu_is_its_slow_twin(texts: list[list[str]], n: int):
    fast, slow = self_bleu(texts, n), slow_self_bleu(texts, n)
    assert fast == (None if slow is None else pytest.approx(slow, rel=1e-9))


def test_self_bleu_closed_forms():
    text = ["the", "cat", "sat", "on", "the", "mat", "."]
    assert self_bleu([text] * 3) == pytest.approx(1.0)
    assert self_bleu([text, []]) is None
    # No match at all: 1/2, 1/4 … over the four orders' n-gram counts.
    disjoint = math.exp(-sum(math.log(2**k * (5 - k)) for k in (1, 2, 3, 4)) / 4)
    assert self_bleu([list("abcd"), list("efgh")]) == pytest.approx(disjoint)
    # The shorter text matches wholly but is short: exp(1 − 6/4); the longer: 4/6, 3/5, 2/4, 1/3, no penalty.
    short, long = math.exp(1 - 6 / 4), (4 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert self_bleu([list("abcd"), list("abcdef")]) == pytest.approx((short + long) / 2)


@given(st.lists(st.lists(st.lists(st.sampled_from("abc"), max_size=8), max_size=3), max_size=4), st.integers(1, 3))
def test_phrase_repetition_is_its_slow_twin(items: list[list[list[str]]], n: int):
    grams = [[tuple(text[k : k + n]) for text in texts for k in range(len(text) - n + 1)] for texts in items]
    filled = [some for some in grams if some]
    found = phrase_repetition(items, n)
    if len(filled) < 2:
        assert found is None
        return
    hits = [
        any(gram in other for j, other in enumerate(filled) if j != k) for k, some in enumerate(filled) for gram in some
    ]
    assert found == pytest.approx(sum(hits) / len(hits))


def test_dispersion_is_the_mean_squared_distance_to_the_centroid():
    points = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert dispersion(points) == pytest.approx(1.0)
    assert dispersion(np.ones((3, 4))) == 0.0
    assert dispersion(np.empty((0, 2))) is None


def test_phrases_of_one_items_own_texts_are_not_stock_phrases():
    shared = ["thank", "you", "for", "asking", "this", "question"]
    own = [["a", "b", "c", "d", "e", "f"]] * 3
    assert phrase_repetition([own, [["g", "h", "i", "j", "k", "l"]]]) == 0.0
    assert phrase_repetition([[shared, *own], [shared]]) == pytest.approx(4 / 10)
    assert phrase_repetition([[shared]]) is None
    with pytest.raises(ValueError, match="1 or more"):
        phrase_repetition([[shared]], 0)
