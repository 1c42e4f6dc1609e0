"""Categories of items, the rare ones pooled: a category of one item has no interval worth the name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from judgeloop.stats.estimate import Estimate

FEWEST_ITEMS_A_CATEGORY = 5
"""Categories with fewer items are pooled; fewer than this all together get no rows, and count in the whole alone."""

RARE = "(rare)"
"""The category of the pooled ones."""

_MOST_NAMED = 8


def pooled(category_of: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Item → category with rare categories as RARE, and the remark that names them ("" where none is).

    ``category_of``: item → category, "" for none. RARE itself becomes "" where it has too few items, or all of them.
    """
    sizes = pd.Series([name for name in category_of.values() if name], dtype="object").value_counts()
    rare = sorted(str(name) for name, size in sizes.items() if size < FEWEST_ITEMS_A_CATEGORY)
    many = sum(int(sizes[name]) for name in rare)
    enough = FEWEST_ITEMS_A_CATEGORY <= many < len(category_of)
    renamed = dict.fromkeys(rare, RARE if enough else "")
    found = {item: renamed.get(name, name) for item, name in category_of.items()}
    named = ", ".join(rare[:_MOST_NAMED]) + (f" and {len(rare) - _MOST_NAMED} more" if len(rare) > _MOST_NAMED else "")
    remark = f"pools {named}: fewer than {FEWEST_ITEMS_A_CATEGORY} items each" if rare and enough else ""
    return found, remark


def by_category(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, str]]:
    """(category, its rows, remark) of ``rows`` (``item_id, category``), rare ones pooled."""
    labels = rows["category"].fillna("").astype(str)
    of_item = dict(zip(rows["item_id"].astype(str), labels, strict=True))
    found, remark = pooled(of_item)
    group = rows["item_id"].astype(str).map(found)
    for category in sorted(set(found.values()) - {""}):
        yield category, rows[group == category], remark if category == RARE else ""


def remarked(rows: Sequence[Estimate], remark: str) -> list[Estimate]:
    """The rows with the remark at the end of their notes."""
    if not remark:
        return list(rows)
    return [dataclasses.replace(one, note="; ".join(part for part in (one.note, remark) if part)) for one in rows]
