"""Label rules: a plain-loop twin of every rule, what is dropped, and rows E2 and E3 of
docs/method.md, "Analytic truths"."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from judgeloop import seeds
from judgeloop.learning.labels import preferences
from judgeloop.records import JUDGMENT_COLUMNS, PREFERENCE_COLUMNS

RULES = ("raw", "swap_average", "consistent_only", "length_controlled")


def judgments(rows: Iterable[tuple[Any, ...]], **constant: Any) -> pd.DataFrame:
    """Rows of (item, pair, a, b, order, repeat, verdict, p_first) as a judgments table."""
    table = []
    for item, pair, a, b, order, repeat, verdict, p_first in rows:
        first, second = (a, b) if order == "ab" else (b, a)
        row = dict.fromkeys(JUDGMENT_COLUMNS, "")
        row |= {"replicate": 0, "arm": "judge", "generation": 0, "panel": "policy", "judge": "m", "identical": False}
        row |= {"item_id": item, "pair_id": pair, "order": order, "repeat": repeat, "verdict": verdict}
        row |= {"p_first": math.nan if p_first is None else p_first, "candidate_first": first}
        row |= {"candidate_second": second}
        table.append(row | constant)
    return pd.DataFrame(table, columns=list(JUDGMENT_COLUMNS)).astype({"p_first": "float64", "identical": "bool"})


def triples(frame: pd.DataFrame) -> list[tuple[str, str, float]]:
    return list(zip(frame["chosen"], frame["rejected"], frame["weight"], strict=True))


def test_columns_are_the_contracts_and_who_was_shown_first() -> None:
    frame = preferences(judgments([("i", "p", "x", "y", "ab", 0, "first", None)]), "raw")
    assert tuple(frame.columns) == PREFERENCE_COLUMNS
    assert "candidate_first" in PREFERENCE_COLUMNS  # without it no fit can tell the slot's pull


def test_raw_hard_verdicts_by_slot_and_order() -> None:
    frame = preferences(
        judgments(
            [
                ("i", "p", "x", "y", "ab", 0, "first", None),
                ("i", "p", "x", "y", "ba", 0, "first", None),
                ("i", "q", "x", "z", "ab", 0, "tie", None),
                ("i", "q", "x", "z", "ba", 0, "second", None),
            ]
        ),
        "raw",
    )
    assert triples(frame) == [("x", "y", 1.0), ("y", "x", 1.0), ("x", "z", 0.5), ("z", "x", 0.5), ("x", "z", 1.0)]
    assert frame["order"].tolist() == ["ab", "ba", "ab", "ab", "ba"]
    assert frame["candidate_first"].tolist() == ["x", "y", "x", "x", "z"]


def test_a_probability_wins_over_the_verdict_and_turns_with_the_order() -> None:
    rows = [("i", "p", "x", "y", "ab", 0, "first", 0.75), ("i", "p", "x", "y", "ba", 0, "first", 0.875)]
    assert triples(preferences(judgments(rows), "raw")) == [
        ("x", "y", 0.75), ("y", "x", 0.25), ("x", "y", 0.125), ("y", "x", 0.875),
    ]  # fmt: skip
    assert triples(preferences(judgments(rows), "swap_average")) == [("x", "y", 0.4375), ("y", "x", 0.5625)]
    infinite = judgments([("i", "p", "x", "y", "ab", 0, "second", math.inf)])
    assert triples(preferences(infinite, "raw")) == [("y", "x", 1.0)]


@pytest.mark.parametrize("rule", RULES)
def test_unscored_and_identical_are_dropped(rule: Any) -> None:
    unscored = judgments([("i", "p", "x", "y", order, 0, "unscored", 0.9) for order in ("ab", "ba")])
    same = judgments([("i", "p", "x", "y", order, 0, "first", None) for order in ("ab", "ba")], identical=True)
    itself = judgments([("i", "q", "x", "x", order, 0, "first", None) for order in ("ab", "ba")])
    frame = preferences(pd.concat([unscored, same.assign(pair_id="r"), itself]), rule)
    assert frame.empty
    assert tuple(frame.columns) == PREFERENCE_COLUMNS


@pytest.mark.parametrize("rule", ["swap_average", "consistent_only"])
def test_a_matchup_scored_in_one_order_gives_nothing(rule: Any) -> None:
    rows = [("i", "p", "x", "y", "ab", 0, "first", None), ("i", "p", "x", "y", "ba", 0, "unscored", None)]
    assert preferences(judgments(rows), rule).empty


@pytest.mark.parametrize(
    ("ab", "ba", "expected"),
    [
        (["first"], ["second"], [("x", "y", 1.0)]),
        (["second"], ["first"], [("y", "x", 1.0)]),
        (["first"], ["first"], []),
        (["first"], ["tie"], []),
        (["tie"], ["tie"], []),
        (["first", "first"], ["second", "second"], [("x", "y", 1.0)]),
        (["first", "second"], ["second", "second"], []),
        (["first", "unscored"], ["second", "second"], [("x", "y", 1.0)]),
    ],
)
def test_consistent_only_needs_one_pick_in_every_presentation(ab: Any, ba: Any, expected: Any) -> None:
    rows = [("i", "p", "x", "y", "ab", n, verdict, None) for n, verdict in enumerate(ab)]
    rows += [("i", "p", "x", "y", "ba", n, verdict, None) for n, verdict in enumerate(ba)]
    frame = preferences(judgments(rows), "consistent_only")
    assert triples(frame) == expected
    assert frame["order"].tolist() == [""] * len(expected)
    assert frame["repeat"].tolist() == [0] * len(expected)


@cache
def random_judgments(stream: str) -> pd.DataFrame:
    rng = seeds.rng(5, "labels", stream)
    frames = []
    for replicate, arm, generation in [(0, "judge", 0), (0, "judge", 1), (0, "random", 0), (1, "judge", 0)]:
        rows = []
        for item in range(30):
            for pair, (a, b) in enumerate([("c2", "c0"), ("c0", "c1"), ("c1", "c2")]):
                for order in ("ab", "ba"):
                    for repeat in range(int(rng.integers(0, 4))):
                        verdict = str(rng.choice(["first", "second", "tie", "unscored"], p=[0.5, 0.3, 0.1, 0.1]))
                        p_first = rng.choice([None, 0.0, 0.5, 1.0, rng.random()])
                        rows.append((f"i{item}", f"p{pair}", a, b, order, repeat, verdict, p_first))
        frames.append(judgments(rows, replicate=replicate, arm=arm, generation=generation))
    table = pd.concat(frames, ignore_index=True)
    return table.assign(identical=rng.random(len(table)) < 0.05)


def twin(table: pd.DataFrame, rule: str) -> list[tuple[Any, ...]]:
    """The rules once more, in plain loops."""
    matchups: dict[tuple[Any, ...], dict[str, list[tuple[int, float]]]] = {}
    names = {}
    for row in table.to_dict("records"):
        if row["identical"] or row["verdict"] == "unscored":
            continue
        p = row["p_first"]
        p = p if math.isfinite(p) else {"first": 1.0, "tie": 0.5, "second": 0.0}[row["verdict"]]
        key = tuple(row[name] for name in ("replicate", "arm", "generation", "item_id", "pair_id"))
        forward = row["order"] == "ab"
        shown = (row["candidate_first"], row["candidate_second"])
        names[key] = shown if forward else shown[::-1]
        matchups.setdefault(key, {"ab": [], "ba": []})[row["order"]].append((row["repeat"], p if forward else 1 - p))
    found = []
    for key, orders in matchups.items():
        a, b = names[key]
        if rule in ("raw", "length_controlled"):
            for order, presented in orders.items():
                for repeat, p in presented:
                    found += [(*key, order, repeat, a, b, p), (*key, order, repeat, b, a, 1 - p)]
        elif orders["ab"] and orders["ba"]:
            if rule == "swap_average":
                means = [sum(p for _, p in presented) / len(presented) for presented in orders.values()]
                p = sum(means) / 2
            else:
                picks = [p for presented in orders.values() for _, p in presented]
                if not (all(p > 0.5 for p in picks) or all(p < 0.5 for p in picks)):
                    continue
                p = float(picks[0] > 0.5)
            found += [(*key, "", 0, a, b, p), (*key, "", 0, b, a, 1 - p)]
    return sorted(row for row in found if row[-1] > 0)


@pytest.mark.parametrize("rule", RULES)
def test_slow_twin(rule: Any) -> None:
    table = random_judgments("twin")
    expected = twin(table, rule)
    frame = preferences(table.sample(frac=1, random_state=1), rule)
    columns = ["replicate", "arm", "generation", "item_id", "pair_id", "order", "repeat", "chosen", "rejected"]
    assert len(expected) > 20
    assert list(frame[columns].itertuples(index=False, name=None)) == [row[:-1] for row in expected]
    np.testing.assert_allclose(frame["weight"], [row[-1] for row in expected], atol=1e-12)
    assert set(frame["label_rule"]) == {rule}


@pytest.mark.parametrize("rule", RULES)
def test_names_of_a_and_b_do_not_matter(rule: Any) -> None:
    table = random_judgments("names")
    renamed = table.assign(order=table["order"].map({"ab": "ba", "ba": "ab"}))
    columns = ["replicate", "arm", "generation", "item_id", "pair_id", "chosen", "rejected", "candidate_first"]
    first, second = (
        preferences(frame, rule).sort_values([*columns, "repeat", "weight"], ignore_index=True)
        for frame in (table, renamed)
    )
    pd.testing.assert_frame_equal(first[columns], second[columns])
    np.testing.assert_allclose(first["weight"], second["weight"], atol=1e-12)


def test_wrong_tables_are_refused() -> None:
    row = ("i", "p", "x", "y", "ab", 0, "first", None)
    with pytest.raises(ValueError, match="unknown label rule"):
        preferences(judgments([row]), "majority")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown verdict 'A'"):
        preferences(judgments([(*row[:6], "A", None)]), "raw")
    with pytest.raises(ValueError, match="order ab, ba or unknown"):
        preferences(judgments([("i", "p", "x", "y", "", 0, "first", None)]), "raw")
    with pytest.raises(ValueError, match=r"p_first must lie in \[0, 1\], not 1.5"):
        preferences(judgments([(*row[:7], 1.5)]), "raw")
    with pytest.raises(ValueError, match="two judgments of one presentation"):
        preferences(judgments([row, row]), "raw")
    with pytest.raises(ValueError, match="one pair of candidates"):
        preferences(judgments([row, ("i", "p", "x", "z", "ba", 0, "first", None)]), "raw")


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("delta", [-1.0, 0.0, 0.3, 2.0])
def test_e2_swap_average_is_antisymmetric_and_half_at_zero(gamma: float, delta: float) -> None:
    def averaged(margin: float) -> float:
        rows = [
            ("i", "p", "x", "y", "ab", 0, "first", sigmoid(margin + gamma)),
            ("i", "p", "x", "y", "ba", 0, "first", sigmoid(-margin + gamma)),
        ]
        frame = preferences(judgments(rows), "swap_average")
        return float(frame.loc[frame["chosen"] == "x", "weight"].iloc[0])

    assert averaged(delta) == pytest.approx((sigmoid(delta + gamma) + sigmoid(delta - gamma)) / 2, abs=1e-12)
    assert averaged(delta) + averaged(-delta) == pytest.approx(1.0, abs=1e-12)
    assert averaged(0.0) == pytest.approx(0.5, abs=1e-12)
    slope = (averaged(1e-4) - averaged(-1e-4)) / 2e-4 / 0.25
    assert slope == pytest.approx(1 / math.cosh(gamma / 2) ** 2, abs=1e-6)


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def independent_calls(delta: float, gamma: float, pairs: int, repeats: int) -> pd.DataFrame:
    """``pairs`` matchups of x (margin ``delta``) and y by a judge that is asked anew each time, at first-slot pull γ."""
    rng = seeds.rng(11, "E3", str(delta), str(gamma), repeats)
    pair = np.tile(np.repeat(np.arange(pairs), repeats), 2)
    order = np.repeat(["ab", "ba"], pairs * repeats)
    margin = np.where(order == "ab", delta, -delta) + gamma
    table = pd.DataFrame(
        {"pair_id": pair.astype(str), "order": order, "repeat": np.tile(np.arange(repeats), 2 * pairs)}
    )
    table = table.assign(verdict=np.where(rng.random(len(table)) < 1 / (1 + np.exp(-margin)), "first", "second"))
    table["candidate_first"] = np.where(order == "ab", "x", "y")
    table["candidate_second"] = np.where(order == "ab", "y", "x")
    return table.assign(replicate=0, arm="judge", generation=0, item_id="i", p_first=math.nan, identical=False)


@pytest.mark.parametrize(("repeats", "factor", "pairs"), [(1, 2, 30_000), (2, 4, 15_000)])
@pytest.mark.parametrize(("delta", "gamma"), [(0.3, 1.0), (0.5, 0.4)])
def test_e3_keeping_unanimous_matchups_multiplies_the_log_odds(
    repeats: int, factor: int, pairs: int, delta: float, gamma: float
) -> None:
    frame = preferences(independent_calls(delta, gamma, pairs, repeats), "consistent_only")
    chosen, rejected = (float((frame["chosen"] == name).sum()) for name in ("x", "y"))
    log_odds = math.log(chosen / rejected)
    tolerance = 4 * math.sqrt(1 / chosen + 1 / rejected)
    assert tolerance < 0.45
    assert log_odds == pytest.approx(factor * delta, abs=tolerance)
