"""Cases to read: verdicts that flip with the order, edited copies that won, and outputs over the generations.

Three groups hold extreme cases, which their leads say; one is drawn by chance. The page folds and shortens the texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from judgeloop import seeds
from judgeloop.records import is_control_judge
from judgeloop.report.reading import Reading
from judgeloop.text.templates import parse_scale

FLIPS = 12
CHANGED = 8
SAMPLED = 8
SWAYED = 12
MOST_SIDES = 6
"""Generations shown of one output: the first, the last and those evenly between."""
_ROUTE = ("arm", "replicate", "item_id")
_CONTEXT = ["replicate", "arm", "generation", "panel", "item_id", "pair_id", "judge", "repeat"]
_SLOT = re.compile(r"candidate_\d+")
_SLOTS = {("first", "first"): "the first slot", ("second", "second"): "the second slot"}


@dataclass(frozen=True, slots=True)
class Side:
    """One text of a case, with its heading and a detail beside it."""

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
    """Cases of one kind: ``name`` is the filter's value, ``lead`` says how they were chosen."""

    name: str
    lead: str
    cases: tuple[Case, ...]


def groups(reading: Reading) -> list[Group]:
    """Every kind of case, those without any left out."""
    categories = _categories(reading)
    kinds = [
        Group(
            "Order flips",
            "Verdicts that flip: the judge picked the same slot in both orders, so each text won once. Those of the highest certainty, not typical ones.",
            tuple(flips(reading, FLIPS, categories)),
        ),
        Group(
            "Edits that won",
            "The same content twice, and the judge picked the edited copy in both orders. Those of the highest certainty, not typical ones.",
            tuple(swayed(reading, SWAYED, categories)),
        ),
        Group(
            "Largest change in length",
            "Items whose output of median length grew or shrank most between generation 0 and the last, generation by generation. These are extremes, not typical ones.",
            tuple(changed(reading, CHANGED, categories)),
        ),
        Group(
            "Before and after, by chance",
            "One item's output of median length before any feedback and after all of it. Items are drawn by chance, so these are typical.",
            tuple(sampled(reading, SAMPLED, categories)),
        ),
        Group(
            "Scored higher, not picked",
            "Pairs of which the judge scored one text higher and picked the other, in both orders. Those with the largest difference of scores, not typical ones.",
            tuple(contradicted(reading, SAMPLED, categories)),
        ),
        Group(
            "Scores, by chance",
            "Both texts of a pair with their mean scores. Pairs are drawn by chance, so these are typical.",
            tuple(scored(reading, SAMPLED, categories)),
        ),
        Group(
            "Always the same slot",
            "Lists where the judge picked the same slot in every rotation, so that each text won once. These are extremes, not typical ones.",
            tuple(stuck(reading, CHANGED, categories)),
        ),
        Group(
            "Lists, by chance",
            "A list with how often each text was picked over all rotations. Lists are drawn by chance, so these are typical.",
            tuple(listed(reading, CHANGED, categories)),
        ),
    ]
    return [group for group in kinds if group.cases]


def scored(reading: Reading, limit: int, categories: Mapping[str, str]) -> list[Case]:
    """Pairs drawn by chance, each text with its mean score on every scale."""
    pairs = _scored_pairs(reading)
    order = seeds.rng(0, "report", "scores by chance").permutation(len(pairs))
    what = "{judge} gave A {score_a:.2f} and B {score_b:.2f} on scale {scale}."
    return _score_cases(reading, pairs.iloc[order].drop_duplicates("item_id"), limit, categories, what)


def contradicted(reading: Reading, limit: int, categories: Mapping[str, str]) -> list[Case]:
    """Pairs whose text of the higher score the same judge did not pick in either order; the largest differences first."""
    pairs, judged = _scored_pairs(reading), _both_orders(reading, probes=False)
    if not len(pairs) or not len(judged):
        return []
    judged = judged[judged["verdict"] != judged["verdict_back"]]
    picked_a = {(str(row["pair_id"]), str(row["judge"])): row["verdict"] == "first" for row in _records(judged)}
    keys = list(zip(pairs["pair_id"].astype(str), pairs["judge"].astype(str), strict=True))
    pairs = pairs[[key in picked_a for key in keys]]
    against = (pairs["gap"] > 0) != [picked_a[key] for key in keys if key in picked_a]
    pairs = pairs[against & (pairs["gap"] != 0)]
    pairs = pairs.assign(size=pairs["gap"].abs()).sort_values(
        ["size", "pair_id"], ascending=[False, True], kind="stable"
    )
    what = "{judge} gave A {score_a:.2f} and B {score_b:.2f} on scale {scale}, and picked the other one in both orders."
    return _score_cases(reading, pairs.drop_duplicates("item_id"), limit, categories, what)


def _scored_pairs(reading: Reading) -> pd.DataFrame:
    """Pairs with both texts' mean scores on the judge's first scale; ``gap`` is A's lead over B, positive = A is better."""
    scores, pairs = reading.scores, reading.pairs
    if "score" not in scores or "candidate_a" not in pairs:
        return pd.DataFrame(columns=["item_id"])
    scores = scores[(scores["scale"] == scores.groupby("judge")["scale"].transform("first")) & scores["score"].notna()]
    means = scores.groupby(["judge", "scale", "item_id", "candidate_id"], sort=True)["score"].mean().reset_index()
    merged = pairs
    for side in ("a", "b"):
        own = means.rename(columns={"candidate_id": f"candidate_{side}", "score": f"score_{side}"})
        merged = merged.merge(own, on=["item_id", f"candidate_{side}", *(["judge", "scale"] if side == "b" else [])])
    scales = {name: parse_scale(str(name)) for name in merged["scale"].unique()}
    up = {name: 1.0 if scale.best > scale.worst else -1.0 for name, scale in scales.items()}
    return merged.assign(gap=(merged["score_a"] - merged["score_b"]) * merged["scale"].map(up))


def _score_cases(
    reading: Reading, pairs: pd.DataFrame, limit: int, categories: Mapping[str, str], what: str
) -> list[Case]:
    pairs = pairs.head(4 * limit)
    texts, prompts = _named_texts(reading, pairs["item_id"]), _prompts(reading)
    cases: list[Case] = []
    for row in _records(pairs):
        item = str(row["item_id"])
        first, second = (texts.get((item, str(row[f"candidate_{side}"]))) for side in ("a", "b"))
        if first is None or second is None or len(cases) == limit:
            continue
        sides = (
            Side("Text A", first, f"score {row['score_a']:.2f}"),
            Side("Text B", second, f"score {row['score_b']:.2f}"),
        )
        cases.append(Case(item, what.format(**row), prompts.get(item, ""), sides, "", categories.get(item, "")))
    return cases


def listed(reading: Reading, limit: int, categories: Mapping[str, str]) -> list[Case]:
    """Lists drawn by chance, each text with how often it was picked."""
    lists = _lists(reading)
    order = seeds.rng(0, "report", "lists by chance").permutation(len(lists))[:limit]
    return _list_cases(reading, lists.iloc[order], categories)


def stuck(reading: Reading, limit: int, categories: Mapping[str, str]) -> list[Case]:
    """Lists of which one slot was picked in every rotation."""
    lists = _lists(reading)
    return _list_cases(reading, lists[(lists["slots"] == 1) & (lists["rotations"] > 1)].head(limit), categories)


_LIST = ["judge", "item_id", "set_id"]


def _lists(reading: Reading) -> pd.DataFrame:
    """A row a judge and list, in a fixed order: ``slots`` that were picked, ``rotations`` that have a choice."""
    choices = reading.choices
    if "slot" not in choices:
        return pd.DataFrame(columns=[*_LIST, "slots", "rotations"])
    grouped = choices[choices["slot"].notna()].groupby(_LIST, sort=True)
    return grouped.agg(slots=("slot", "nunique"), rotations=("rotation", "nunique")).reset_index()


def _list_cases(reading: Reading, lists: pd.DataFrame, categories: Mapping[str, str]) -> list[Case]:
    if lists.empty:
        return []
    choices = reading.choices
    choices = choices[choices["slot"].notna() & choices["item_id"].isin(lists["item_id"])]
    texts = _named_texts(reading, lists["item_id"])
    cases: list[Case] = []
    for row in _records(lists):
        own = choices[(choices[_LIST] == [row[name] for name in _LIST]).all(axis=1)]
        words = (
            f"picked slot {own['slot'].iloc[0]} in each of {row['rotations']} rotations"
            if row["slots"] == 1
            else "picked as shown"
        )
        case = _list_case(reading, own, texts, categories, words)
        cases += [case] if case is not None else []
    return cases


def _list_case(
    reading: Reading,
    rows: pd.DataFrame,
    texts: Mapping[tuple[str, str], str],
    categories: Mapping[str, str],
    words: str,
) -> Case | None:
    first = rows.sort_values(["rotation", "repeat"], kind="stable").iloc[0]
    names = [str(first[column]) for column in rows.columns if _SLOT.fullmatch(str(column))]
    item = str(first["item_id"])
    shown = [(name, texts.get((item, name))) for name in names]
    if any(text is None for _, text in shown):
        return None
    picks = rows["candidate_id"].value_counts()
    gold = str(first["gold"])
    sides = tuple(
        Side(
            f"Text {place}", str(text),
            f"picked {int(picks.get(name, 0))} of {len(rows)}{', gold' if name == gold else ''}",
        )
        for place, (name, text) in enumerate(shown, start=1)
    )  # fmt: skip
    what = f"{first['judge']} {words}."
    return Case(item, what, _prompts(reading, item).get(item, ""), sides, "", categories.get(item, ""))


def _named_texts(reading: Reading, items: Iterable[object]) -> dict[tuple[str, str], str]:
    """(item_id, candidate_id) → text, of these items."""
    table = reading.candidates
    if "text" not in table:
        return {}
    table = table[table["item_id"].isin(list(items)) & table["text"].notna()]
    return {
        (str(item), str(name)): str(text)
        for item, name, text in zip(table["item_id"], table["candidate_id"], table["text"], strict=True)
    }


def flips(reading: Reading, limit: int = FLIPS, categories: Mapping[str, str] | None = None) -> list[Case]:
    """Pairs where the judge picked the same slot in both orders, so each text once; different items first.

    ``categories``: item_id → category, for the filter.
    """
    pairs = _both_orders(reading, probes=False)
    pairs = pairs[(pairs["verdict"] == pairs["verdict_back"]) & ~pairs["judge"].map(is_control_judge).astype(bool)]
    pairs = _spread(pairs.assign(anchored=pairs["panel"] != "anchor"), limit) if len(pairs) else pairs

    def case(row: Mapping[str, Any], first: str, second: str) -> tuple[str, tuple[Side, ...]]:
        slot = _SLOTS[str(row["verdict"]), str(row["verdict_back"])]
        forth, back = ("A", "B") if row["verdict"] == "first" else ("B", "A")
        what = f"{row['judge']} picked {slot} in both orders: text {forth} when A came first, text {back} when B came first ({_where(row)})."
        return what, (Side("Text A", first), Side("Text B", second))

    return _pair_cases(reading, pairs, limit, categories or {}, case)


def swayed(reading: Reading, limit: int = SWAYED, categories: Mapping[str, str] | None = None) -> list[Case]:
    """Probe pairs whose edited copy won in both orders, the original first; different probes before a probe's second case."""
    if "probe" not in reading.judgments.columns:
        return []
    pairs = _both_orders(reading, probes=True)
    # ``ab`` shows the original first: the edit won where the second slot was picked there and the first in ``ba``.
    pairs = pairs[(pairs["verdict"] == "second") & (pairs["verdict_back"] == "first")]
    pairs = _spread(pairs.assign(anchored=False), limit, "probe") if len(pairs) else pairs

    def case(row: Mapping[str, Any], first: str, second: str) -> tuple[str, tuple[Side, ...]]:
        what = f"{row['judge']} picked the edited copy in both orders: {row['probe']} ({_where(row)})."
        return what, (Side("Original", first), Side("Edited copy", second, str(row["probe"])))

    return _pair_cases(reading, pairs, limit, categories or {}, case)


def _pair_cases(
    reading: Reading,
    pairs: pd.DataFrame,
    limit: int,
    categories: Mapping[str, str],
    case: Callable[[Mapping[str, Any], str, str], tuple[str, tuple[Side, ...]]],
) -> list[Case]:
    """The first pairs whose texts are known. ``case``: what happened, and the sides, from a row and its two texts."""
    if not len(pairs):
        return []
    texts, prompts = _Texts(reading.candidates, pairs["item_id"]), _prompts(reading)
    cases: list[Case] = []
    for row in _records(pairs):
        first, second = texts.pair(row)
        if first is None or second is None:
            continue
        item = str(row["item_id"])
        what, sides = case(row, first, second)
        cases.append(Case(item, what, prompts.get(item, ""), sides, str(row["arm"]), categories.get(item, "")))
        if len(cases) == limit:
            break
    return cases


def changed(reading: Reading, limit: int = CHANGED, categories: Mapping[str, str] | None = None) -> list[Case]:
    """The output of median length in every generation, for the items where it changed most, up or down.

    Arms in turn, controls left out, each item once.
    """
    outputs = _median_outputs(reading)
    ends = _growth(outputs)
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
        _history(reading, outputs, row, words[row["growth"] > 0].format(row["size"]), categories or {})
        for row in _records(ends)
    ]


def sampled(reading: Reading, limit: int = SAMPLED, categories: Mapping[str, str] | None = None) -> list[Case]:
    """The output of median length of generation 0 and of the last, for items drawn by chance in every arm but the controls."""
    outputs = _median_outputs(reading)
    ends = _growth(outputs).sort_values(list(_ROUTE), kind="stable")
    if not len(ends):
        return []
    order = seeds.rng(0, "report", "cases by chance").permutation(len(ends))
    ends = ends.iloc[order].drop_duplicates("item_id")
    ends = ends.assign(turn=ends.groupby("arm").cumcount()).sort_values("turn", kind="stable").head(limit)
    first_and_last = outputs[outputs["generation"].isin([0, outputs["generation"].max()])]
    words = "the output of median length changed by {:+.2f} doublings"
    return [
        _history(reading, first_and_last, row, words.format(row["growth"]), categories or {}) for row in _records(ends)
    ]


def _both_orders(reading: Reading, *, probes: bool) -> pd.DataFrame:
    """Scored pairs in both orders, probe pairs or all others: ``verdict`` is that of ``ab``, ``verdict_back`` that of ``ba``."""
    judgments = reading.judgments
    if not len(judgments) or not len(reading.candidates):
        return pd.DataFrame(columns=[*_CONTEXT, "verdict", "verdict_back"])
    scored = judgments["verdict"].isin(["first", "second"]) & ((judgments["panel"] == "probe") == probes)
    if "identical" in judgments.columns:
        scored &= ~judgments["identical"].fillna(False).astype("bool")
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
    rows = judgments.loc[scored, [name for name in columns if name in judgments.columns]]
    keyed = rows.assign(replicate=rows["replicate"].fillna(-1), generation=rows["generation"].fillna(-1))
    if "p_first" not in keyed.columns:
        keyed["p_first"] = float("nan")
    forth, back = (keyed[keyed["order"] == order].drop_duplicates(context) for order in ("ab", "ba"))
    return forth.merge(back[[*context, "verdict", "p_first"]], on=context, suffixes=("", "_back"))


def _spread(pairs: pd.DataFrame, limit: int, *first: str) -> pd.DataFrame:
    """The most certain first, a new item before an item's second case; ``first``: columns whose values alternate before items."""
    certainty = pairs[["p_first", "p_first_back"]].astype("float64").sub(0.5).abs().min(axis=1).fillna(0.0)
    context = [name for name in _CONTEXT if name in pairs.columns]
    pairs = pairs.assign(certainty=certainty).sort_values(
        ["anchored", "certainty", *context], ascending=[True, False] + [True] * len(context), kind="stable"
    )
    for column in (*first, "item_id"):
        pairs = pairs.assign(turn=pairs.groupby(column).cumcount()).sort_values("turn", kind="stable")
    return pairs.head(8 * limit)


def _where(row: Mapping[str, Any]) -> str:
    return (
        f"{row['panel']} panel"
        + (f", arm {row['arm']}, replicate {row['replicate']}" if row["arm"] else "")
        + (f", generation {row['generation']}" if row["generation"] >= 0 else "")
    )


def _median_outputs(reading: Reading) -> pd.DataFrame:
    """The output of median length (of two in the middle the shorter) of every arm, replicate, item and generation, among
    those that were drawn; controls are left out. Not the most frequent one: most policies draw each text once."""
    needed = ["arm", "replicate", "item_id", "generation", "candidate_id", "text", "length", "n_drawn"]
    table = reading.candidates
    if not set(needed) <= set(table.columns):
        return pd.DataFrame(columns=needed)
    complete = table["replicate"].notna() & table["text"].notna() & table["length"].notna() & (table["arm"] != "")
    outputs = table.loc[
        complete & ~table["arm"].isin(list(reading.controls)) & (table["n_drawn"].fillna(0) > 0), needed
    ]
    place = [*_ROUTE, "generation"]
    outputs = outputs.sort_values([*place, "length", "candidate_id"], kind="stable")
    drawn = outputs["n_drawn"].astype("float64").groupby([outputs[name] for name in place], observed=True)
    return outputs[2 * drawn.cumsum() >= drawn.transform("sum")].drop_duplicates(place)


def _growth(outputs: pd.DataFrame) -> pd.DataFrame:
    """(arm, replicate, item) and ``growth``: log2 length of the last generation minus that of generation 0."""
    if not len(outputs) or outputs["generation"].max() == 0:
        return pd.DataFrame(columns=[*_ROUTE, "growth"])
    first, last = (
        outputs[outputs["generation"] == g].set_index(list(_ROUTE))["length"] for g in (0, outputs["generation"].max())
    )
    return (last - first).dropna().rename("growth").reset_index()


def _history(
    reading: Reading, outputs: pd.DataFrame, row: Mapping[str, Any], words: str, categories: Mapping[str, str]
) -> Case:
    steps = outputs[
        (outputs["arm"] == row["arm"])
        & (outputs["replicate"] == row["replicate"])
        & (outputs["item_id"] == row["item_id"])
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
        category=categories.get(item, ""),
    )


class _Texts:
    """Candidates' texts by replicate, arm, item and name, which is unique over the generations of an arm."""

    def __init__(self, candidates: pd.DataFrame, items: Iterable[object]) -> None:
        needed = candidates["item_id"].isin(list(dict.fromkeys(items))) & candidates["text"].notna()
        rows = candidates.loc[needed, ["replicate", "arm", "item_id", "candidate_id", "text"]]
        rows = rows.drop_duplicates(["replicate", "arm", "item_id", "candidate_id"])
        names = zip(
            rows["replicate"].fillna(-1).astype(int), rows["arm"], rows["item_id"], rows["candidate_id"], strict=True
        )
        self._texts = {
            (r, str(a), str(i), str(c)): text for (r, a, i, c), text in zip(names, rows["text"], strict=True)
        }

    def pair(self, row: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """The texts in the first and in the second slot of the pair's order ``ab``."""
        first, second = (
            self._texts.get((int(row["replicate"]), str(row["arm"]), str(row["item_id"]), str(row[name])))
            for name in ("candidate_first", "candidate_second")
        )
        return first, second


def _categories(reading: Reading) -> dict[str, str]:
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
