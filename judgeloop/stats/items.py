"""What items say about estimates: their categories, and who decides whether a text answers one correctly.

A category of a few items has no useful interval, so rare categories are pooled. A reference is matched by rule, which is
exact, or by a model (``match: judge``), which can err.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from judgeloop.stats.design import Design
from judgeloop.stats.estimate import Estimate, joined

FEWEST_ITEMS_A_CATEGORY = 5
"""Items below which a category is pooled. Rare categories with fewer items than this all together have no rows of their own."""

RARE = "(rare)"
"""Name of the category that pools the rare ones."""

_MOST_NAMED = 8
_NEEDED = "need a gold judge with an endpoint"


def pooled(category_of: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Item → category with rare categories as RARE, and a remark that names them ("" where none is pooled).

    ``category_of``: item → category, "" for none. The rare ones become "" instead where they have fewer than
    FEWEST_ITEMS_A_CATEGORY items together, or are all the items.
    """
    sizes = pd.Series([name for name in category_of.values() if name], dtype="object").value_counts()
    rare = sorted(str(name) for name, size in sizes.items() if size < FEWEST_ITEMS_A_CATEGORY)
    n_rare = sum(int(sizes[name]) for name in rare)
    has_pool = FEWEST_ITEMS_A_CATEGORY <= n_rare < len(category_of)
    renamed = dict.fromkeys(rare, RARE if has_pool else "")
    categories = {item: renamed.get(name, name) for item, name in category_of.items()}
    names = ", ".join(rare[:_MOST_NAMED]) + (f" and {len(rare) - _MOST_NAMED} more" if len(rare) > _MOST_NAMED else "")
    remark = f"pools {names}: fewer than {FEWEST_ITEMS_A_CATEGORY} items each" if rare and has_pool else ""
    return categories, remark


def by_category(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """(category, its rows, remark) of each category of ``rows`` (columns ``item_id, category``), rare ones pooled.

    The remark names what RARE pools; it is "" for the other categories.
    """
    codes, items = pd.factorize(rows["item_id"].astype(str))
    words, names = pd.factorize(rows["category"].fillna("").astype(str))
    last = np.zeros(len(items), dtype=np.intp)
    last[codes] = words  # an item's last row decides
    categories, remark = pooled(dict(zip(items, names[last], strict=True)))
    group = np.array(list(categories.values()), dtype=object)[codes]
    for category in sorted(set(categories.values()) - {""}):
        yield category, rows[group == category], remark if category == RARE else ""


def remarked(rows: Sequence[Estimate], remark: str) -> list[Estimate]:
    """The rows with the remark at the end of their notes."""
    if not remark:
        return list(rows)
    return [dataclasses.replace(row, note=joined(row.note, remark)) for row in rows]


def model_matched_items(items: pd.DataFrame) -> frozenset[str]:
    """The item_id of every item whose texts a model compares with the reference (``match: judge``)."""
    if not {"item_id", "match", "reference"} <= set(items.columns):
        return frozenset()
    has_reference = items["reference"].notna() & (items["reference"].astype("str").str.strip() != "")
    return frozenset(items.loc[has_reference & (items["match"] == "judge"), "item_id"].astype("str"))


def is_gold_exact(judgments: pd.DataFrame, items: pd.DataFrame) -> bool:
    """Whether all gold of these judgments comes from references matched by rule; a model's answer can err."""
    if "gold" not in judgments:
        return True
    with_gold = judgments.loc[judgments["gold"].fillna("") != "", "item_id"].astype("str")
    return not with_gold.isin(model_matched_items(items)).any()


def why_correct_is_unknown(rows: pd.DataFrame, items: pd.DataFrame, design: Design) -> str:
    """The reason why no candidate in ``rows`` has a value of ``correct``; "" where one has."""
    if rows["correct"].notna().any():
        return ""
    if not _model_matched(rows, items):
        return "no item has a reference"
    if any(arm.judge_kind == "gold" for arm in design.arms):
        return "the model that the gold judge asks gave no answer that can be read"
    return f"items with match: judge {_NEEDED}"


def correct_remark(rows: pd.DataFrame, items: pd.DataFrame) -> str:
    """A remark on the items whose ``correct`` a model decides, or that are left out for want of one; "" where none are."""
    by_model = _model_matched(rows, items)
    if not by_model:
        return ""
    candidates = rows[rows["item_id"].astype("str").isin(by_model)]
    answered = candidates["correct"].notna()
    if answered.any():
        lost = len(candidates[~answered].drop_duplicates(["replicate", "item_id", "text"]))
        unread = f"; {lost} texts are left out: the model's answer could not be read" if lost else ""
        return f"{len(by_model)} items are matched by a model, which can err (match: judge){unread}"
    return f"{len(by_model)} items with match: judge are left out: they {_NEEDED}"


def _model_matched(rows: pd.DataFrame, items: pd.DataFrame) -> frozenset[str]:
    matched = model_matched_items(items)
    return matched & frozenset(rows["item_id"].unique().astype("str")) if matched else matched
