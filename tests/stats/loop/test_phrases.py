"""Phrases that spread: what is counted, what is compared with chance, and how often chance is taken for more."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.stats.design import ArmDesign, Design
from judgeloop.stats.estimate import Estimate, estimates_frame
from judgeloop.stats.loop import phrases
from judgeloop.stats.loop.phrases import phrase_estimates
from judgeloop.stats.loop.replicates import MeasuredCandidates
from judgeloop.stats.multiplicity import adjust, with_run_families

WORDS = [f"w{k}" for k in range(60)]
SHARES = 1.0 / np.arange(1, len(WORDS) + 1)


def texts(
    generator: np.random.Generator, arms: tuple[str, ...] = ("judge", "coin"), replicates: int = 6, items: int = 8, draws: int = 2,
    generations: int = 1, lengths: dict[tuple[str, int], int] | None = None, closing: float = 0.0,
) -> pd.DataFrame:  # fmt: skip
    """Texts of 40 words, those of the first arm's last generation with a closing phrase in a share of them; generation 0 is shared."""
    rows = []
    for replicate, generation, arm, item, draw in product(
        range(replicates), range(generations + 1), arms, range(items), range(draws)
    ):
        cell = generator if generation else seeds.rng(7, replicate, item, draw)
        length = (lengths or {}).get((arm, generation), 40)
        words = list(cell.choice(WORDS, size=length, p=SHARES / SHARES.sum()))
        if arm == arms[0] and generation == generations and generator.random() < closing:
            words[-3:] = ["Feel", "free", "to"]
        rows.append({
            "replicate": replicate, "arm": arm, "generation": generation, "item_id": f"i{item}", "n_drawn": 1, "text": " ".join(words) + ".",
        })  # fmt: skip
    return pd.DataFrame(rows)


def estimated(
    rows: pd.DataFrame, contrasts: tuple[tuple[str, str], ...] = (("judge", "coin"),), **more: Any
) -> list[Estimate]:
    arms = tuple(ArmDesign(arm, "") for arm in rows["arm"].unique())
    design = Design("phrases", 0, int(rows["generation"].max()), arms, contrasts, **more)
    return phrase_estimates(MeasuredCandidates(rows, (), {}, {}, 0, ()), design)


def test_a_closing_that_spread_is_named_with_its_share_and_the_share_without() -> None:
    primary, *listed = estimated(texts(np.random.default_rng(0), closing=0.7))
    assert [row.variant for row in listed] == ["feel free to"]
    assert listed[0].estimate == primary.estimate == pytest.approx(0.7, abs=0.15)
    assert listed[0].benchmark == pytest.approx(0.0, abs=1e-9)
    assert primary.p_value == 1 / 2**6
    frame = adjust(with_run_families(estimates_frame([primary, *listed])))
    assert list(frame["verdict"].fillna("")) == ["found", ""]
    assert frame["p_adjusted"].iloc[0] == primary.p_value
    assert frame["p_value"].iloc[1:].isna().all()


def _slow(rows: pd.DataFrame, end: int) -> dict[str, np.ndarray]:
    """Phrase → (replicates,) its rise, by sets of strings."""
    held: dict[tuple[int, str, int], list[set[str]]] = {}
    for replicate, arm, generation, text in rows[["replicate", "arm", "generation", "text"]].itertuples(index=False):
        words = text.lower().rstrip(".").split()
        ends = (words[:end], words[max(end, len(words) - end) :])
        grams = {
            " ".join(part[start : start + size])
            for part in ends for size in range(1, phrases.LONGEST + 1) for start in range(len(part) - size + 1)
        }  # fmt: skip
        held.setdefault((replicate, arm, generation), []).append(grams)
    every = {gram for sets in held.values() for grams in sets for gram in grams}
    last = int(rows["generation"].max())

    def share(gram: str, *cell: Any) -> float:
        return float(np.mean([gram in grams for grams in held[cell]]))

    return {
        gram: np.array([
            share(gram, r, "judge", last) - share(gram, r, "coin", last) - share(gram, r, "judge", 0) + share(gram, r, "coin", 0)
            for r in sorted(rows["replicate"].unique())
        ])
        for gram in every
        if sum(gram in grams for sets in held.values() for grams in sets) >= max(3, 0.05 * sum(map(len, held.values())))
    }  # fmt: skip


def test_rises_and_p_are_those_of_sets_of_strings_under_every_exchange_of_arm_and_control() -> None:
    rows = texts(np.random.default_rng(1), replicates=5, items=4, closing=0.5)
    rises = _slow(rows, 20)
    every = np.array(list(rises.values()))
    highest = np.array([(every * signs).mean(axis=1).max() for signs in product((1, -1), repeat=5)])
    primary, *listed = estimated(rows)
    assert primary.n == len(rises)
    assert primary.estimate == pytest.approx(highest[0])
    assert primary.p_value == pytest.approx(np.mean(highest >= highest[0] - 1e-9))
    assert {row.variant: row.estimate for row in listed} == pytest.approx(
        {row.variant: rises[row.variant].mean() for row in listed}
    )


def test_without_a_control_other_items_are_two_groups() -> None:
    rows = texts(np.random.default_rng(2), arms=("texts",), replicates=20, items=1, draws=1, closing=0.8)
    rows = rows[(rows["replicate"] < 10) == (rows["generation"] == 0)]
    primary, *listed = estimated(rows, (), same_items=False)
    assert [row.variant for row in listed] == ["feel free to"]
    assert (primary.n_replicates, primary.method) == (20, "largest rise of all phrases, regrouped over replicates")
    assert primary.p_value is not None
    assert primary.p_value <= 0.02


def test_what_cannot_be_told_is_undefined_with_its_reason() -> None:
    few = estimated(texts(np.random.default_rng(3), replicates=3, closing=1.0))
    assert [(row.status, row.note.split(":")[0]) for row in few] == [("undefined", "3 are too few")]
    lengths = {(arm, generation): 6 for arm in ("judge", "coin") for generation in (0, 1)}
    short = estimated(texts(np.random.default_rng(3), lengths=lengths))
    assert [row.note for row in short] == ["texts are too short: 5% have fewer than 10 words"]
    one_each = texts(np.random.default_rng(3), items=1, draws=1, replicates=1)
    assert [row.status for row in estimated(one_each)] == ["undefined"]


def test_hostile_texts_are_words_like_others() -> None:
    rows = texts(np.random.default_rng(4), replicates=6)
    rows["text"] = rows["text"].astype(object)
    rows.loc[0, "text"] = "\0" * 50 + "=cmd " * 40 + "\ud800 " * 20 + "x" * 100_000
    rows.loc[1, "text"] = ""
    assert [row.status for row in estimated(rows.assign(text=""))] == ["undefined"]
    assert next(iter(estimated(rows))).status == "ok"


@pytest.mark.slow
@pytest.mark.parametrize("world", ["alike", "longer", "groups"])
def test_chance_is_taken_for_a_phrase_that_spread_no_oftener_than_stated(world: str) -> None:
    found = 0
    for sample in range(samples := 500):
        generator = seeds.rng(0, "phrases", world, sample)
        if world == "groups":
            rows = texts(generator, arms=("texts",), replicates=20, items=1, draws=1)
            rows = rows[(rows["replicate"] < 10) == (rows["generation"] == 0)]
            rows["text"] = [
                " ".join(generator.choice(WORDS, size=40, p=SHARES / SHARES.sum())) for _ in range(len(rows))
            ]
            (primary, *listed) = estimated(rows, (), same_items=False)
        else:
            lengths = {("judge", 1): 160} if world == "longer" else {}
            (primary, *listed) = estimated(texts(generator, lengths=lengths))
        assert (primary.p_value <= phrases.LEVEL) == bool(listed)
        found += bool(listed)
    assert found / samples <= phrases.LEVEL + 2 * np.sqrt(phrases.LEVEL * (1 - phrases.LEVEL) / samples)
