"""Chatbot Arena's votes: a battle of two models a row, its outcome in three columns of which one is 1.

``text_a`` is ``response_a``. The columns name models and not slots, and no column says which answer stood first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from judgeloop.interchange.rows import Cells, Row, extras
from judgeloop.records import ORDERS, UNKNOWN_ORDER

_OUTCOMES = {"winner_model_a": "a", "winner_model_b": "b", "winner_tie": "tie"}
_TEXTS = ("prompt", "response_a", "response_b")
KEYS = frozenset(_OUTCOMES)
FIELDS = {
    "item_id": "prompt",
    "pair_id": "id",
    "text_a": "response_a",
    "text_b": "response_b",
    "verdict": "winner_model_a",
}
"""judgeloop's column → the field of a record that it is made of."""
_USED = (*_OUTCOMES, *_TEXTS, "id", "judge", "order", "model_a", "model_b")
VOTER = "voter"
"""The judge of a file that names none."""


def rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with row and field."""
    log_rows: list[Row] = []
    battles: dict[str, int] = {}
    items: dict[str, str] = {}
    unnamed = several = mended = orderless = 0
    for where, raw in records:
        cells = Cells(where, raw)
        texts, turns, broken = _texts(cells)
        name = cells.label("id")
        prompt = Cells(where, texts).prompt() or ""
        item = items.setdefault(prompt, f"q{len(items) + 1:04d}") if prompt else name or cells.name("id")
        battles[item] = battles.get(item, 0) + 1
        order = cells.word(
            "order", (*ORDERS, UNKNOWN_ORDER), "ab (response_a shown first), ba or unknown", default=UNKNOWN_ORDER
        )
        orderless += order == UNKNOWN_ORDER
        unnamed, several, mended = unnamed + (not cells.label("judge")), several + (turns > 1), mended + broken
        log_rows.append((where, {
            **extras(raw, _USED), "item_id": item, "pair_id": name or f"{item}/{battles[item]}", "order": order,
            "judge": cells.label("judge", VOTER), **texts, "model_a": cells.label("model_a"), "model_b": cells.label("model_b"),
            **_outcome(cells),
        }))  # fmt: skip
    notes = (
        []
        if not orderless
        else [
            "the columns name the model that won, and none says which answer stood first: that is known only where --columns states it "
            "(order: {value: ab} if response_a always stood left, and order_drawn: {value: 'true'} if the sides were drawn by lot)"
        ]
    )
    if unnamed:
        notes.append(f"{unnamed:,} of {len(log_rows):,} votes name no judge: it is called {VOTER} here")
    if several:
        notes.append(
            f"{several:,} of {len(log_rows):,} battles have several turns: a text is all answers of one model, joined"
        )
    if mended:
        notes.append(
            f"{mended:,} of {len(log_rows):,} battles hold halves of surrogate pairs, which are read as U+FFFD"
        )
    return log_rows, notes


def _outcome(cells: Cells) -> dict[str, str]:
    """verdict and reason of a row. Raises InvalidInput where a cell is neither 0, 1 nor empty."""
    won = []
    for column, verdict in _OUTCOMES.items():
        value = float(cells.row[column]) if isinstance(cells.row.get(column), bool) else cells.number(column)
        if value not in (None, 0.0, 1.0):
            raise cells.fault(
                column,
                f"must be 1 where this is the outcome and 0 elsewhere, not {value:g}; of probabilities of the three, the file says no pick",
            )
        won += [verdict] if value else []
    if len(won) == 1:
        return {"verdict": won[0], "reason": ""}
    return {"verdict": "unscored", "reason": "several_verdicts" if won else "no_verdict"}


def _texts(cells: Cells) -> tuple[dict[str, str], int, bool]:
    """(prompt and texts by judgeloop's columns, turns, whether a half of a surrogate pair was replaced) of a row.

    A cell may be a text, or the JSON list of a conversation's turns, where a turn without an answer is null. It is read as turns
    only where all cells of its row are lists of one length.
    """
    given = {column: cells.row[column] for column in _TEXTS if cells.row.get(column) is not None}
    lists = {column: _turns(value) for column, value in given.items()}
    counts = {len(turns) if turns is not None else 0 for turns in lists.values()}
    if given and len(counts) == 1 and counts != {0}:
        given = {column: "\n\n".join(turn or "" for turn in turns or ()) for column, turns in lists.items()}
    else:
        counts = {1}
    whole = {column: _without_halves(value) if isinstance(value, str) else value for column, value in given.items()}
    names = {"response_a": "text_a", "response_b": "text_b"}
    return {names.get(column, column): value for column, value in whole.items()}, max(counts), whole != given


def _turns(value: Any) -> list[str | None] | None:
    """The turns of a cell; None where it is no list of them."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    elif hasattr(value, "tolist"):  # a list column of Parquet in a frame
        value = value.tolist()
    if not isinstance(value, list) or not all(turn is None or isinstance(turn, str) for turn in value):
        return None
    return value


def _without_halves(text: str) -> str:
    """The text with the halves of surrogate pairs put together, and U+FFFD for those without the other half."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
