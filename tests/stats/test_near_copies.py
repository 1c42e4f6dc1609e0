"""Near-copies: found whatever their ids, no template taken for one, and one cluster in every interval."""

from __future__ import annotations

import math
import time

import numpy as np
import pandas as pd
import pytest

import judgeloop
from judgeloop import seeds
from judgeloop.report.answers import answers
from judgeloop.report.reading import read
from judgeloop.stats.items import copied, marked, near_copies, with_clusters
from judgeloop.stats.presentations import clusters, item_codes
from judgeloop.validation.worlds import judged, pair_table, picks

WORDS = np.array([f"w{k}" for k in range(5_000)])
_WEIGHTS = 1 / (np.arange(5_000) + 3.7)


def sentences(generator, count, size=15):
    return [" ".join(row) for row in generator.choice(WORDS, size=(count, size), p=_WEIGHTS / _WEIGHTS.sum())]


def varied(generator, text):
    """The text with one word replaced, in upper case, or with a word more."""
    words = text.split()
    words[generator.integers(len(words))] = str(generator.choice(WORDS))
    return [" ".join(words), text.upper() + "!", text + " please"][generator.integers(3)]


@pytest.mark.parametrize("originals", [4, 40])
def test_copies_with_small_changes_are_found_and_nothing_else_is(originals):
    generator = seeds.rng(0, "copies", originals)
    texts = {f"i{n}": text for n, text in enumerate(sentences(generator, 3 * originals))}
    assert near_copies([texts]) == {}
    names = [f"i{n}" for n in generator.permutation(3 * originals)]
    for n in range(originals):
        for copy in names[3 * n + 1 : 3 * n + 3]:
            texts[copy] = varied(generator, texts[names[3 * n]])
    found = near_copies([texts])
    groups = {frozenset(item for item in found if found[item] == leader) for leader in set(found.values())}
    assert groups == {frozenset(names[3 * n : 3 * n + 3]) for n in range(originals)}


def test_a_template_a_common_answer_and_short_questions_make_no_copies():
    template = (
        "Answer the question below as briefly as you can, and give your reasons afterwards. Question: what is {}?"
    )
    prompts = {str(n): template.format(f"{n} times {n + 1}") for n in range(40)}
    assert near_copies([prompts]) == {}
    assert (
        near_copies([dict.fromkeys(map(str, range(40)), "I cannot help with that, I am sorry to say so here.")]) == {}
    )
    assert near_copies([{"a": "Capital of France?", "b": "Capital of Spain?", "c": "capital of  FRANCE"}]) == {
        "a": "a",
        "c": "a",
    }
    assert near_copies([{}, {"a": ""}, {"a": "", "b": ""}]) == {}


def test_the_texts_of_pairs_show_copies_whose_prompts_do_not():
    generator = seeds.rng(0, "texts")
    items = pd.DataFrame({"item_id": ["x", "y", "z"], "prompt": ""})
    one, two, three, four = sentences(generator, 4)
    texts = pd.DataFrame({"item_id": list("xxyyzz"), "text": [one, two, one + " yes", two, three, four]})
    table = marked(items, texts)
    assert table["near_copy_of"].tolist() == ["x", "x", ""]
    assert copied(table) == (2, 1)
    frame = with_clusters(pd.DataFrame({"item_id": ["z", "y", "x", "y"]}), table)
    assert clusters(frame).tolist() == ["z", "x", "x", "x"]
    assert item_codes(frame).tolist() == [0, 1, 1, 1]
    assert with_clusters(frame[["item_id"]], items).columns.tolist() == ["item_id"]


def test_an_analysis_clusters_copies_and_its_report_says_so():
    generator = seeds.rng(0, "analysis")
    prompts = sentences(generator, 30)
    prompts = [text if n % 3 == 0 else varied(generator, prompts[n - n % 3]) for n, text in enumerate(prompts)]
    picked = np.repeat(generator.random(10) < 0.5, 3)
    rows = [
        {"item_id": f"i{n}", "judge": "j", "order": order, "verdict": "first" if picked[n] else "second", "prompt": prompts[n]}
        for n in range(30)
        for order in ("ab", "ba")
    ]  # fmt: skip
    audit = judgeloop.analyze(pd.DataFrame(rows))
    excess = audit.estimates.set_index(["term", "variant"]).loc[("first_slot_excess", "")]
    assert (excess["n"], excess["n_items"]) == (30, 10)
    assert "near-copies 30 items, which count as 10" in " ".join(audit.summary().split())
    sure = answers(read(audit.record), [])[2]
    assert "30 of 30 items are near-copies of one another" in " ".join(sure.sentences)
    assert set(audit.record.table("items")["near_copy_of"]) == {f"i{3 * n}" for n in range(10)}


def test_a_hundred_thousand_short_texts_take_seconds():
    texts = dict(enumerate(sentences(seeds.rng(0, "many"), 3_000, 8)))
    start = time.process_time()
    near_copies([{str(name): text for name, text in texts.items()}])
    assert time.process_time() - start < 1.0  # a thirtieth of them; the cost is linear


@pytest.mark.slow
def test_items_that_stand_three_times_hold_the_level():
    """With each copy as an item of its own a true null is rejected in about a quarter of samples."""
    runs, rejected = 1_000, []
    generator = seeds.rng(0, "level of copies")
    table = pair_table(90)
    for _ in range(runs):
        originals = sentences(generator, 30)
        prompts = [originals[n // 3] if n % 3 == 0 else varied(generator, originals[n // 3]) for n in range(90)]
        pull = np.repeat(3.0 * generator.standard_normal(30), 3)
        judgments = judged(table, {order: picks(pull, generator) for order in ("ab", "ba")})
        items = marked(pd.DataFrame({"item_id": table["item_id"], "prompt": prompts}))
        rejected.append([_p_value(judgments), _p_value(with_clusters(judgments, items))])
    alone, together = np.mean(np.array(rejected) <= 0.05, axis=0)
    assert alone > 0.2
    assert together <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)


def _p_value(judgments):
    from judgeloop.stats.judge.position import position_estimates

    return next(row.p_value for row in position_estimates(judgments) if row.term == "first_slot_excess")
