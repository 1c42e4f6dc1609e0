"""Measures of many items at once against the obvious measure of one item's texts, and arrays of verdicts against loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import slow_diversity
from conftest import examples
from judgeloop.stats import inference
from judgeloop.stats.loop import diversity
from judgeloop.stats.loop import diversity as coded_texts
from judgeloop.stats.loop.diversity import Embedder, Tokens, Vocabulary
from judgeloop.stats.presentations import pairs
from judgeloop.text.features import tokenize

WORDS = st.sampled_from(["a", "A", "bb", "the", "THE", "x.", "ß", "ss", "日", "!"])
TEXTS = st.lists(WORDS, max_size=12)
ITEMS = st.lists(st.lists(TEXTS, min_size=1, max_size=5), min_size=1, max_size=4)


def flat(items: list[list[list[str]]]) -> Tokens:
    vocabulary = Vocabulary()
    numbers = np.array([place for place, texts in enumerate(items) for _ in texts])
    return Tokens.of([vocabulary.codes(text) for texts in items for text in texts], numbers)


def same(values: np.ndarray, expected: list[float | None]) -> None:
    assert list(values) == pytest.approx([math.nan if one is None else one for one in expected], rel=1e-12, nan_ok=True)


@settings(max_examples=examples(60))
@given(ITEMS)
def test_every_item_has_the_measure_of_its_texts_alone(items):
    tokens = flat(items)
    ngrams = tokens.ngrams(5)
    count = len(items)
    for n in (1, 2, 4):
        grams, text = ngrams[n - 1]
        shares = diversity.distinct_share(grams, tokens.items[text], count)
        same(shares, [slow_diversity.distinct_n(texts, n) for texts in items])
    same(
        diversity.self_bleu(tokens, ngrams[:4], count),
        [slow_diversity.self_bleu(texts) for texts in items],
    )
    grams, text = ngrams[4]
    assert diversity.shared_share(grams, tokens.items[text]) == slow_diversity.phrase_repetition(items)


@settings(max_examples=examples(40))
@given(st.lists(TEXTS, min_size=1, max_size=8), st.integers(0, 3))
def test_an_embedding_is_the_obvious_one_to_the_last_bit(texts, most):
    vocabulary = Vocabulary()
    embedder = Embedder(vocabulary)
    # A small memory for pairs must change nothing.
    kept, coded_texts._MOST_PAIRS = coded_texts._MOST_PAIRS, most
    try:
        for some in (texts[: len(texts) // 2], texts, texts[::-1]):
            words = [" ".join(text) for text in some]
            made = embedder.embed([vocabulary.codes(tokenize(text)) for text in words])
            np.testing.assert_array_equal(made, slow_diversity.embed(words))
    finally:
        coded_texts._MOST_PAIRS = kept


def test_embeddings_of_many_items_are_compared_as_those_of_one():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(6, 4, 32))
    points[2] = points[2][:1]  # four texts alike
    assert list(diversity.vendi(points)) == pytest.approx([slow_diversity.vendi(one) for one in points], rel=1e-12)
    assert list(diversity.dispersion(points)) == pytest.approx([slow_diversity.dispersion(one) for one in points])


JUDGMENTS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 1), st.sampled_from(["ab", "ba"]),
        st.sampled_from(["first", "second", "tie", "unscored"]), st.sampled_from([None, 0.25, 0.9]),
    ),
    max_size=24,
)  # fmt: skip


@given(JUDGMENTS)
def test_pairs_are_counted_as_by_hand(rows):
    columns = ["item_id", "pair_id", "order", "verdict", "p_first"]
    frame = pd.DataFrame(rows, columns=columns).astype({"p_first": "float64"})
    picked = {"first": 1.0, "second": 0.0, "tie": 0.5}
    by_hand: dict[tuple[int, int], dict[str, list[float]]] = {}
    for item, pair, order, verdict, p in rows:
        known = by_hand.setdefault((item, pair), {"ab": [], "ba": []})
        known[order].append(math.nan if verdict == "unscored" else picked[verdict] if p is None else p)
    table = pairs(frame)
    assert len(table) == len(by_hand)
    for (_, row), orders in zip(table.iterrows(), by_hand.values(), strict=True):
        for order, values in orders.items():
            scored = [value for value in values if not math.isnan(value)]
            assert (row[f"asked_{order}"], row[f"n_{order}"]) == (len(values), len(scored))
            assert row[f"sum_{order}"] == pytest.approx(sum(scored))
            assert row[order] == pytest.approx(sum(scored) / len(scored) if scored else math.nan, nan_ok=True)


@pytest.mark.parametrize("df", [None, 1, 2, 7, 23, 400.5])
def test_reference_distributions_are_those_of_scipy_stats(df):
    oracle = stats.norm if df is None else stats.t(df)
    for probability in (1e-6, 0.025, 0.5, 0.8, 0.9999):
        assert inference.quantile(probability, df) == pytest.approx(oracle.ppf(probability), rel=1e-12, abs=1e-15)
    for value in (0.0, 0.3, 2.0, 30.0):
        assert inference.tail(value, df) == pytest.approx(oracle.sf(value), rel=1e-12)
        assert inference.normal_density(value) == pytest.approx(stats.norm.pdf(value), rel=1e-12)
    if df is not None:
        assert inference.f_tail(2.5, 3, df) == pytest.approx(stats.f.sf(2.5, 3, df), rel=1e-12)
        shift, critical = inference.detectable_shift(df, 0.8, 0.95), stats.t.ppf(0.975, df)
        far = np.nan_to_num(stats.nct.cdf(-critical, df, shift))
        assert stats.nct.sf(critical, df, shift) + far == pytest.approx(0.8, abs=1e-9)


def test_a_fair_coin_is_the_binomial():
    for trials in (1, 8, 45):
        for k in range(-1, trials + 1):
            assert inference.fair_coin_cdf(k, trials) == pytest.approx(stats.binom.cdf(k, trials, 0.5), rel=1e-12)
