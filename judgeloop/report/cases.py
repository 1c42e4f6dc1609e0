"""Actual cases to read: verdicts that flip with the order, outputs followed through the generations, edits that won.

Most are chosen for being telling, and the report says so; one group is drawn by chance. Texts are folded and capped by
the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop import seeds
from judgeloop.report.reading import Reading

FLIPS = 12
CHANGED = 8
SAMPLED = 8
SWAYED = 12
MOST_SIDES = 6
"""Generations shown of one output: the first, the last and those evenly between."""
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
    """Texts of one item side by side, the prompt, and a sentence on what happened. ``arm`` and ``category`` are filters."""

    title: str
    what: str
    prompt: str
    sides: tuple[Side, ...]
    arm: str = ""
    category: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Cases of one kind: ``name`` as a filter has it, ``lead`` says how they were chosen."""

    name: str
    lead: str
    cases: tuple[Case, ...]


def groups(reading: Reading) -> list[Group]:
    """Every kind of case that the run bears."""
    kinds = _kinds(reading)
    made = [
        Group(
            "Order flips",
            "Verdicts that flip: the judge picked the same slot in both orders, so each text won once. Chosen as the surest of the flips, not as typical.",
            tuple(flips(reading, FLIPS, kinds)),
        ),
        Group(
            "Edits that won",
            "The same content twice, and the judge picked the edited copy in both orders. Chosen as the surest.",
            tuple(swayed(reading, SWAYED, kinds)),
        ),
        Group(
            "Largest change in length",
            "Items whose output of median length grew or shrank most between generation 0 and the last, generation by generation. Chosen as the extremes, not as typical.",
            tuple(changed(reading, CHANGED, kinds)),
        ),
        Group(
            "Before and after, by chance",
            "One item's output of median length before any feedback and after all of it. Items are drawn by chance, so these are typical.",
            tuple(sampled(reading, SAMPLED, kinds)),
        ),
    ]
    return [group for group in made if group.cases]


def flips(reading: Reading, limit: int = FLIPS, kinds: Mapping[str, str] | None = None) -> list[Case]:
    """Pairs for which the judge picked one slot in both orders, so a different text each time; different items first."""
    both = _both_orders(reading, probes=False)
    both = both[both["verdict"] == both["verdict_back"]]
    both = both[~both["judge"].isin(["random", "gold"])]
    if not len(both):
        return []
    both = _spread(both.assign(anchored=both["panel"] != "anchor"), limit)
    texts, prompts = _Texts(reading.candidates, both["item_id"]), _prompts(reading)
    found = []
    for row in _records(both):
        first, second = texts.pair(row)
        if first is None or second is None:
            continue
        slot = _UNEQUAL[str(row["verdict"]), str(row["verdict_back"])]
        chosen_forth, chosen_back = ("A", "B") if row["verdict"] == "first" else ("B", "A")
        found.append(
            Case(
                title=str(row["item_id"]),
                what=f"{row['judge']} picked {slot} in both orders: text {chosen_forth} when A came first, text {chosen_back} when B came first ({_where(row)}).",
                prompt=prompts.get(str(row["item_id"]), ""),
                sides=(Side("Text A", first), Side("Text B", second)),
                arm=str(row["arm"]),
                category=(kinds or {}).get(str(row["item_id"]), ""),
            )
        )
        if len(found) == limit:
            break
    return found


def swayed(reading: Reading, limit: int = SWAYED, kinds: Mapping[str, str] | None = None) -> list[Case]:
    """Probe pairs whose edited copy won in both orders; the original stands first. Several probes before one's second."""
    if "probe" not in reading.judgments.columns:
        return []
    both = _both_orders(reading, probes=True)
    # ``ab`` shows the original first: the edit won where the second slot was picked there and the first in ``ba``.
    both = both[(both["verdict"] == "second") & (both["verdict_back"] == "first")]
    if not len(both):
        return []
    both = _spread(both.assign(anchored=False), limit, "probe")
    texts, prompts = _Texts(reading.candidates, both["item_id"]), _prompts(reading)
    found = []
    for row in _records(both):
        original, edited = texts.pair(row)
        if original is None or edited is None:
            continue
        found.append(
            Case(
                title=str(row["item_id"]),
                what=f"{row['judge']} picked the edited copy in both orders: {row['probe']} ({_where(row)}).",
                prompt=prompts.get(str(row["item_id"]), ""),
                sides=(Side("Original", original), Side("Edited copy", edited, str(row["probe"]))),
                arm=str(row["arm"]),
                category=(kinds or {}).get(str(row["item_id"]), ""),
            )
        )
        if len(found) == limit:
            break
    return found


def changed(reading: Reading, limit: int = CHANGED, kinds: Mapping[str, str] | None = None) -> list[Case]:
    """An item's output of median length in every generation, of the items where that changed most, up or down.

    Arms in turn, controls left out, each item once.
    """
    some = _typical(reading)
    ends = _ends(some)
    ends = ends[ends["growth"] != 0].assign(size=ends["growth"].abs())
    ends = ends.sort_values(["size", *_ROUTE], ascending=[False, True, True, True], kind="stable")
    ends = ends.drop_duplicates(["arm", "item_id"])
    ends = ends.assign(turn=ends.groupby("arm").cumcount()).sort_values("turn", kind="stable")
    ends = ends.drop_duplicates("item_id").head(limit)
    words = {
        True: "the output of median length grew by {:.2f} doublings",
        False: "the output of median length shrank by {:.2f} doublings",
    }
    return [
        _journey(reading, some, row, words[row["growth"] > 0].format(row["size"]), kinds or {})
        for row in _records(ends)
    ]


def sampled(reading: Reading, limit: int = SAMPLED, kinds: Mapping[str, str] | None = None) -> list[Case]:
    """The output of median length of generation 0 and of the last, for items drawn by chance in every arm but the controls."""
    some = _typical(reading)
    ends = _ends(some).sort_values(list(_ROUTE), kind="stable")
    if not len(ends):
        return []
    order = seeds.rng(0, "report", "cases by chance").permutation(len(ends))
    ends = ends.iloc[order].drop_duplicates("item_id")
    ends = ends.assign(turn=ends.groupby("arm").cumcount()).sort_values("turn", kind="stable").head(limit)
    both = some[some["generation"].isin([0, some["generation"].max()])]
    words = "the output of median length changed by {:+.2f} doublings"
    return [_journey(reading, both, row, words.format(row["growth"]), kinds or {}) for row in _records(ends)]


_ROUTE = ("arm", "replicate", "item_id")


def _both_orders(reading: Reading, *, probes: bool) -> pd.DataFrame:
    """Scored pairs in both orders: ``verdict`` of ``ab`` and ``verdict_back`` of ``ba``; probes alone or all else."""
    judgments = reading.judgments
    if not len(judgments) or not len(reading.candidates):
        return pd.DataFrame(columns=[*_CONTEXT, "verdict", "verdict_back"])
    wanted = judgments["verdict"].isin(["first", "second"]) & ((judgments["panel"] == "probe") == probes)
    if "identical" in judgments.columns:
        wanted &= ~judgments["identical"].fillna(False).astype("bool")
    context = [name for name in _CONTEXT if name in judgments.columns]
    columns = [
        *context,
        "order",
        "verdict",
        "p_first",
        "candidate_first",
        "candidate_second",
        *(["probe"] if probes else []),
    ]
    scored = judgments.loc[wanted, [name for name in columns if name in judgments.columns]]
    keyed = scored.assign(replicate=scored["replicate"].fillna(-1), generation=scored["generation"].fillna(-1))
    if "p_first" not in keyed.columns:
        keyed["p_first"] = float("nan")
    forth, back = (keyed[keyed["order"] == order].drop_duplicates(context) for order in ("ab", "ba"))
    return forth.merge(back[[*context, "verdict", "p_first"]], on=context, suffixes=("", "_back"))


def _spread(both: pd.DataFrame, limit: int, *first: str) -> pd.DataFrame:
    """The surest first, a new item before an item's second case: the reader sees several items, not one six times."""
    sureness = both[["p_first", "p_first_back"]].astype("float64").sub(0.5).abs().min(axis=1).fillna(0.0)
    context = [name for name in _CONTEXT if name in both.columns]
    both = both.assign(sureness=sureness).sort_values(
        ["anchored", "sureness", *context], ascending=[True, False] + [True] * len(context), kind="stable"
    )
    for column in (*first, "item_id"):
        both = both.assign(turn=both.groupby(column).cumcount()).sort_values("turn", kind="stable")
    return both.head(8 * limit)


def _where(row: Mapping[str, Any]) -> str:
    return (
        f"{row['panel']} panel"
        + (f", arm {row['arm']}, replicate {row['replicate']}" if row["arm"] else "")
        + (f", generation {row['generation']}" if row["generation"] >= 0 else "")
    )


def _typical(reading: Reading) -> pd.DataFrame:
    """The output of median length (of two in the middle the shorter) of every arm, replicate, item and generation, among those
    that were drawn; controls are left out. A likeliest one is told apart in few policies: most draw each text once."""
    needed = ["arm", "replicate", "item_id", "generation", "candidate_id", "text", "length", "n_drawn"]
    table = reading.candidates
    if not set(needed) <= set(table.columns):
        return pd.DataFrame(columns=needed)
    known = table["replicate"].notna() & table["text"].notna() & table["length"].notna() & (table["arm"] != "")
    some = table.loc[known & ~table["arm"].isin(list(reading.controls)) & (table["n_drawn"].fillna(0) > 0), needed]
    place = [*_ROUTE, "generation"]
    some = some.sort_values([*place, "length", "candidate_id"], kind="stable")
    drawn = some["n_drawn"].astype("float64").groupby([some[name] for name in place], observed=True)
    return some[2 * drawn.cumsum() >= drawn.transform("sum")].drop_duplicates(place)


def _ends(some: pd.DataFrame) -> pd.DataFrame:
    """Each route (arm, replicate, item) with its growth in length from generation 0 to the last."""
    if not len(some) or some["generation"].max() == 0:
        return pd.DataFrame(columns=[*_ROUTE, "growth"])
    first, last = (
        some[some["generation"] == g].set_index(list(_ROUTE))["length"] for g in (0, some["generation"].max())
    )
    return (last - first).dropna().rename("growth").reset_index()


def _journey(
    reading: Reading, some: pd.DataFrame, row: Mapping[str, Any], words: str, kinds: Mapping[str, str]
) -> Case:
    steps = some[
        (some["arm"] == row["arm"]) & (some["replicate"] == row["replicate"]) & (some["item_id"] == row["item_id"])
    ]
    steps = steps.sort_values("generation")
    places = sorted({round(n * (len(steps) - 1) / (MOST_SIDES - 1)) for n in range(MOST_SIDES)})
    item = str(row["item_id"])
    return Case(
        title=item,
        what=f"Arm {row['arm']}, replicate {row['replicate']}: {words.replace('-', '−')}.",
        prompt=_prompts(reading, item).get(item, ""),
        sides=tuple(
            Side(f"Generation {step['generation']}", str(step["text"]), f"{2 ** step['length']:,.0f} tokens")
            for step in _records(steps.iloc[places])
        ),
        arm=str(row["arm"]),
        category=kinds.get(item, ""),
    )


class _Texts:
    """Candidates' texts by replicate, arm, item and name; generations of one arm share names."""

    def __init__(self, candidates: pd.DataFrame, items: Iterable[object]) -> None:
        wanted = candidates["item_id"].isin(list(dict.fromkeys(items))) & candidates["text"].notna()
        some = candidates.loc[wanted, ["replicate", "arm", "item_id", "candidate_id", "text"]]
        some = some.drop_duplicates(["replicate", "arm", "item_id", "candidate_id"])
        names = zip(
            some["replicate"].fillna(-1).astype(int), some["arm"], some["item_id"], some["candidate_id"], strict=True
        )
        self._found = {
            (r, str(a), str(i), str(c)): text for (r, a, i, c), text in zip(names, some["text"], strict=True)
        }

    def pair(self, row: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The texts in the first and in the second slot of the pair's order ``ab``."""
        first, second = (
            self._found.get((int(row["replicate"]), str(row["arm"]), str(row["item_id"]), str(row[name])))
            for name in ("candidate_first", "candidate_second")
        )
        return first, second


def _kinds(reading: Reading) -> dict[str, str]:
    """item_id → category."""
    if not {"item_id", "category"} <= set(reading.items.columns):
        return {}
    pairs = zip(reading.items["item_id"], reading.items["category"], strict=True)
    return {str(item): "" if pd.isna(category) else str(category) for item, category in pairs}


def _prompts(reading: Reading, item: str | None = None) -> dict[str, str]:
    """item_id → prompt, of all items or of one."""
    items = reading.items
    if not {"item_id", "prompt"} <= set(items.columns):
        return {}
    if item is not None:
        items = items[items["item_id"] == item]
    return {
        str(name): "" if pd.isna(prompt) else str(prompt)
        for name, prompt in zip(items["item_id"], items["prompt"], strict=True)
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in record.items()} for record in frame.to_dict("records")]
