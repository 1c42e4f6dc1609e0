"""The anchor panel: dealt to the items in turn, drafted for itself alone, or read from a pairs file; and judgments as rows."""

from __future__ import annotations

import asyncio
from collections import Counter

import pandas as pd
import pytest

from judgeloop.judging.pairing import judgments_frame, presentations
from judgeloop.judging.panels import AnchorPanel, anchor_from_pairs, draft_anchor
from judgeloop.records import JUDGMENT_COLUMNS, Candidate, Item, Judgment, Matchup, Verdict

ITEMS = [Item(f"i{n}", f"Question {n}?", "c") for n in range(3)]


def _drafted(size: int, lost: tuple[str, str] | None = None) -> tuple[AnchorPanel, list[tuple[object, ...]]]:
    asked: list[tuple[object, ...]] = []

    async def draft(item: Item, name: str, prefix: str, stream: tuple[str | int, ...]) -> tuple[Candidate | None, str]:
        asked.append((item.item_id, name, prefix, stream))
        await asyncio.sleep(0)
        if lost == (item.item_id, name):
            return None, "timeout"
        return Candidate(item.item_id, name, f"{item.item_id} {name}"), ""

    return asyncio.run(draft_anchor(size, ITEMS, draft)), asked


@pytest.mark.parametrize("size", [1, 3, 7, 12])
def test_pairs_are_dealt_to_the_items_in_turn_and_no_draft_stands_twice(size: int) -> None:
    panel, asked = _drafted(size)
    assert [matchup.pair_id for matchup in panel.matchups] == [f"anchor-{n:03d}" for n in range(size)]
    assert [matchup.item_id for matchup in panel.matchups] == [f"i{n % 3}" for n in range(size)]
    shares = Counter(matchup.item_id for matchup in panel.matchups).values()
    assert max(shares) - min(shares) <= 1
    names = [(c.item_id, c.candidate_id) for matchup in panel.matchups for c in (matchup.a, matchup.b)]
    assert len(set(names)) == len(asked) == 2 * size
    assert {(prefix, stream) for _, name, prefix, stream in asked} == {
        ("panels/g0/draft", ("anchor", name)) for _, name, _, _ in asked
    }
    assert sum(len(pairs) for pairs in panel.by_item().values()) == size
    assert all(matchup.item_id == item for item, pairs in panel.by_item().items() for matchup in pairs)


def test_a_larger_panel_begins_with_the_smaller_one() -> None:
    assert _drafted(9)[0].matchups[:4] == _drafted(4)[0].matchups


def test_a_pair_that_lost_a_draft_is_left_out_and_named() -> None:
    panel, _ = _drafted(6, lost=("i1", "anchor3"))
    assert [matchup.pair_id for matchup in panel.matchups] == [
        "anchor-000",
        "anchor-001",
        "anchor-002",
        "anchor-003",
        "anchor-005",
    ]
    assert panel.failed == (("i1", "anchor3", "timeout"),)


def test_a_pairs_file_is_a_panel_as_it_stands() -> None:
    item = Item("x", "p")
    panel = anchor_from_pairs([("1", item, "A", "B"), ("2", item, "A", "C"), ("y", Item("y", "q"), "same", "same")])
    assert list(panel.items) == ["x", "y"]
    assert panel.matchups[1] == Matchup("x", "2", Candidate("x", "2:a", "A"), Candidate("x", "2:b", "C"))
    assert [len(pairs) for pairs in panel.by_item().values()] == [2, 1]


# -- judgments as rows -----------------------------------------------------------------------------------------------


def _correct(item: Item, candidate: Candidate) -> bool | None:
    return None if item.reference is None else item.reference in candidate.text


def _rows(a: str, b: str, reference: str | None, **labels: object) -> pd.DataFrame:
    item = Item("i", "p", "facts", reference)
    matchup = Matchup("i", "m00", Candidate("i", "a", a), Candidate("i", "b", b))
    verdicts = [Verdict("first", 0.8), Verdict("unscored", None, "no_verdict")]
    judgments = [
        Judgment(shown, "j", verdict, f"call/{shown.order}")
        for shown, verdict in zip(presentations([matchup]), verdicts, strict=True)
    ]
    return judgments_frame(judgments, {"i": item}, _correct, panel="policy", generation=2, **labels)  # type: ignore[arg-type]


def test_a_judgment_is_a_row_with_slots_by_order() -> None:
    frame = _rows("right", "wrong", "right", replicate=1, arm="judge")
    assert tuple(frame.columns) == JUDGMENT_COLUMNS
    assert frame[["replicate", "arm", "generation", "panel", "category"]].drop_duplicates().values.tolist() == [
        [1, "judge", 2, "policy", "facts"]
    ]
    assert frame[["order", "candidate_first", "candidate_second", "call"]].values.tolist() == [
        ["ab", "a", "b", "call/ab"],
        ["ba", "b", "a", "call/ba"],
    ]
    assert frame["verdict"].tolist() == ["first", "unscored"]
    assert frame["reason"].tolist() == ["", "no_verdict"]
    assert frame["p_first"].tolist()[0] == 0.8
    assert frame["p_first"].isna().tolist() == [False, True]
    assert frame["identical"].tolist() == [False, False]


@pytest.mark.parametrize(
    ("a", "b", "reference", "gold"),
    [
        ("right", "wrong", "right", "a"),
        ("wrong", "right", "right", "b"),
        ("right", "right", "right", "tie"),
        ("wrong", "no", "right", "tie"),
        ("x", "y", None, ""),
    ],
)
def test_gold_names_the_side_and_is_empty_where_nothing_is_known(
    a: str, b: str, reference: str | None, gold: str
) -> None:
    frame = _rows(a, b, reference)
    assert frame["gold"].tolist() == [gold, gold]
    assert frame["identical"].tolist() == [a == b] * 2
    assert frame["replicate"].isna().all()


def test_no_judgments_are_a_frame_with_the_same_types() -> None:
    empty = judgments_frame([], {}, _correct, panel="anchor", generation=0)
    full = _rows("x", "y", None)
    assert tuple(empty.columns) == JUDGMENT_COLUMNS
    for name in ("replicate", "p_first", "identical"):
        assert empty[name].dtype == full[name].dtype
