"""Actual cases to read: verdicts that flip with the order, and the outputs that grew longest.

They are chosen for being telling, not typical, and the report says so. Texts are folded and capped by the page.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop.report.reading import Reading

FLIPS = 6
GROWN = 4
_CONTEXT = ["replicate", "arm", "generation", "panel", "item_id", "pair_id", "judge", "repeat"]
_UNEQUAL = {("first", "first"): "the first slot", ("second", "second"): "the second slot"}


@dataclass(frozen=True, slots=True)
class Side:
    """One text of a case, and what is said above it."""

    heading: str
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Two texts of one item side by side, the prompt, and a sentence on what happened."""

    title: str
    what: str
    prompt: str
    left: Side
    right: Side


def flips(reading: Reading, limit: int = FLIPS) -> list[Case]:
    """Pairs for which the judge picked one slot in both orders, so a different text each time; different items first."""
    judgments = reading.judgments
    if not len(judgments) or not len(reading.candidates):
        return []
    scored = judgments[
        judgments["verdict"].isin(["first", "second"]) & ~judgments["identical"].fillna(False).astype("bool")
    ]
    scored = scored[~scored["judge"].isin(["random", "gold"])]
    keyed = scored.assign(replicate=scored["replicate"].fillna(-1), generation=scored["generation"].fillna(-1))
    forth, back = (
        keyed[keyed["order"] == order].drop_duplicates(_CONTEXT).set_index(_CONTEXT) for order in ("ab", "ba")
    )
    both = forth.join(back[["verdict", "p_first"]].add_suffix("_back"), how="inner").reset_index()
    both = both[both["verdict"] == both["verdict_back"]]
    if not len(both):
        return []
    sureness = both[["p_first", "p_first_back"]].astype("float64").sub(0.5).abs().min(axis=1).fillna(0.0)
    both = both.assign(sureness=sureness, anchored=both["panel"] != "anchor")
    # A new item before an item's second case, the surest first: the reader sees several items, not one six times.
    both = both.sort_values(
        ["anchored", "sureness", *_CONTEXT], ascending=[True, False] + [True] * len(_CONTEXT), kind="stable"
    )
    both = both.assign(turn=both.groupby("item_id").cumcount()).sort_values("turn", kind="stable")
    texts, prompts = _Texts(reading.candidates, both["item_id"].head(8 * limit)), _prompts(reading)
    found = []
    for row in _records(both.head(8 * limit)):
        first, second = (
            texts.find(row["replicate"], row["arm"], row["item_id"], name)
            for name in (row["candidate_first"], row["candidate_second"])
        )
        if first is None or second is None:
            continue
        slot = _UNEQUAL[str(row["verdict"]), str(row["verdict_back"])]
        where = (
            f"{row['panel']} panel"
            + (f", arm {row['arm']}, replicate {row['replicate']}" if row["arm"] else "")
            + (f", generation {row['generation']}" if row["generation"] >= 0 else "")
        )
        chosen_forth, chosen_back = ("A", "B") if row["verdict"] == "first" else ("B", "A")
        found.append(
            Case(
                title=str(row["item_id"]),
                what=f"{row['judge']} picked {slot} in both orders: text {chosen_forth} when A came first, text {chosen_back} when B came first ({where}).",
                prompt=prompts.get(str(row["item_id"]), ""),
                left=Side("Text A", first),
                right=Side("Text B", second),
            )
        )
        if len(found) == limit:
            break
    return found


def grown(reading: Reading, limit: int = GROWN) -> list[Case]:
    """An item's most likely output at generation 0 beside the one of the last generation, where length grew most.

    Arms in turn, controls left out, each item once.
    """
    needed = {"replicate", "arm", "generation", "item_id", "candidate_id", "text", "length", "n_drawn"}
    table = reading.candidates
    if not needed <= set(table.columns):
        return []
    some = table[
        table["replicate"].notna()
        & table["text"].notna()
        & table["length"].notna()
        & ~table["arm"].isin(list(reading.controls))
    ]
    some = some[(some["n_drawn"].fillna(0) > 0) & (some["arm"] != "")]
    if not len(some) or some["generation"].max() == 0:
        return []
    weight = (
        some["p_current"].astype("float64").fillna(0.0)
        if "p_current" in some.columns
        else pd.Series(0.0, index=some.index)
    )
    some = some.assign(weight=weight).sort_values(
        ["weight", "n_drawn", "candidate_id"], ascending=[False, False, True], kind="stable"
    )
    key = ["arm", "replicate", "item_id"]
    ends = [
        some[some["generation"] == g].drop_duplicates(key).set_index(key)[["text", "length"]]
        for g in (0, some["generation"].max())
    ]
    pairs = ends[0].add_suffix("_before").join(ends[1].add_suffix("_after"), how="inner").reset_index()
    pairs = pairs.assign(growth=pairs["length_after"] - pairs["length_before"])
    pairs = pairs[pairs["growth"] > 0].sort_values(["growth", *key], ascending=[False, True, True, True], kind="stable")
    pairs = pairs.drop_duplicates(["arm", "item_id"])
    pairs = (
        pairs.assign(turn=pairs.groupby("arm").cumcount())
        .sort_values("turn", kind="stable")
        .drop_duplicates("item_id")
        .head(limit)
    )
    prompts, last = _prompts(reading), int(some["generation"].max())
    return [
        Case(
            title=str(row["item_id"]),
            what=f"Arm {row['arm']}, replicate {row['replicate']}: the likeliest output grew by {row['growth']:.2f} doublings.",
            prompt=prompts.get(str(row["item_id"]), ""),
            left=Side("Generation 0", str(row["text_before"]), f"{2 ** row['length_before']:,.0f} tokens"),
            right=Side(f"Generation {last}", str(row["text_after"]), f"{2 ** row['length_after']:,.0f} tokens"),
        )
        for row in _records(pairs)
    ]


class _Texts:
    """Candidates' texts by replicate, arm, item and name; generations of one arm share names."""

    def __init__(self, candidates: pd.DataFrame, items: Iterable[object]) -> None:
        some = candidates[candidates["item_id"].isin(list(items)) & candidates["text"].notna()]
        self._found: dict[tuple[int, str, str, str], str] = {}
        for row in _records(some.drop_duplicates(["replicate", "arm", "item_id", "candidate_id"])):
            replicate = -1 if pd.isna(row["replicate"]) else int(row["replicate"])
            self._found[replicate, str(row["arm"]), str(row["item_id"]), str(row["candidate_id"])] = str(row["text"])

    def find(self, replicate: Any, arm: Any, item: Any, name: Any) -> str | None:
        return self._found.get((int(replicate), str(arm), str(item), str(name)))


def _prompts(reading: Reading) -> dict[str, str]:
    if not {"item_id", "prompt"} <= set(reading.items.columns):
        return {}
    return {
        str(item): "" if pd.isna(prompt) else str(prompt)
        for item, prompt in zip(reading.items["item_id"], reading.items["prompt"], strict=True)
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]
