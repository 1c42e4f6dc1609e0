"""Rare categories are pooled and named, in an audit as in a run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from judgeloop.report.judge_figures import _heat_map
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.items import FEWEST_ITEMS_A_CATEGORY, RARE, by_category, pooled
from judgeloop.stats.judge.estimates import judge_estimates


@given(st.lists(st.sampled_from(["", "a", "b", "c", "d", RARE]), max_size=40))
def test_every_category_left_has_enough_items_and_nothing_else_changes(names: list[str]) -> None:
    given_of = {f"i{k}": name for k, name in enumerate(names)}
    found, remark = pooled(given_of)
    assert found.keys() == given_of.keys()
    for name in set(found.values()) - {""}:
        assert sum(value == name for value in found.values()) >= FEWEST_ITEMS_A_CATEGORY
    for item, name in found.items():
        if name not in ("", RARE):
            assert name == given_of[item]
    # A remark exactly where something is pooled, naming what is.
    rare = {name for name in names if name and names.count(name) < FEWEST_ITEMS_A_CATEGORY}
    assert bool(remark) == (any(name in rare and found[item] == RARE for item, name in given_of.items()))
    assert all(name in remark for name in rare) or not remark


def test_a_pool_that_is_all_there_is_has_no_rows() -> None:
    frame = pd.DataFrame({"item_id": list("abcdef"), "category": list("uvwxyz")})
    assert list(by_category(frame)) == []


def audit() -> pd.DataFrame:
    """12 items of maths, and 6 categories of one item; both orders, padding probes, own texts and gold."""
    rows = []
    stream = np.random.default_rng(3)
    for item in range(18):
        category = "maths" if item < 12 else f"c{item}"
        for panel, probe in (("pairs", ""), ("probe", "padding")):
            for order in ("ab", "ba"):
                rows.append({
                    "item_id": f"i{item}", "pair_id": "p", "judge": "j", "order": order, "panel": panel, "probe": probe,
                    "dose": 1.5 if probe else np.nan, "verdict": str(stream.choice(["first", "second"])),
                    "category": category, "gold": "a" if item % 2 else "b", "model_a": "j", "model_b": "o",
                    "candidate_first": "a" if order == "ab" else "b", "candidate_second": "b" if order == "ab" else "a",
                })  # fmt: skip
    return pd.DataFrame(rows)


def test_an_audit_pools_rare_categories_in_position_probes_and_self_preference() -> None:
    found = judge_estimates(audit())
    assert set(found["category"]) == {"", "maths", RARE}
    for term in ("first_slot_excess", "padding_probe", "self_preference_gold"):
        row = found[(found["term"] == term) & (found["category"] == RARE) & (found["variant"] == "")].iloc[0]
        assert row["n_items"] == 6, term
        assert row["family"] in ("exploratory", "none")
        assert "pools c12, c13, c14, c15, c16, c17: fewer than 5 items each" in row["note"]


def test_the_heat_map_ends_with_the_pool() -> None:
    rows = [
        Estimate(scope="judge", term="first_slot_excess", bias="position", judge="j", category=name, estimate=0.1)
        for name in ("", RARE, "a", "b")
    ]
    spec, _ = _heat_map(rows)
    assert spec["data"][0]["y"] == ["all items", "a", "b", "rare, pooled"]
