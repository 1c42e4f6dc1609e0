"""Preference data as trainers read it, a ``chosen`` and a ``rejected`` answer a row: TRL's preference type as texts or as chat
messages, UltraFeedback's binarized form, and dialogues of which only the last answer differs.

``text_a`` is the chosen text. Who chose, and in which order the two were shown, is not recorded.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.interchange.rows import Cells, Row, extras
from judgeloop.records import UNKNOWN_ORDER

KEYS = frozenset({"chosen", "rejected"})
FIELDS = {"item_id": "prompt", "text_a": "chosen", "text_b": "rejected", "verdict": "chosen"}
"""judgeloop's column → the field of a record that it is made of."""
CHOOSER = "preferences"
"""The judge, which the data do not name."""
_SCORES = (
    ("score_chosen", "score_rejected"), ("chosen_score", "rejected_score"), ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)  # fmt: skip
_MODELS = (("chosen_model", "rejected_model"), ("chosen-model", "rejected-model"))
_USED = ("prompt", "chosen", "rejected", "messages", "judge")
_ORDERS = ("order", "presentation", "presentation_order", "position", "swapped", "is_swapped", "flipped", "is_flipped")
_LABEL = re.compile(r"(?:(?:answer|assistant|candidate|model|option|output|response|text)[ _]?)?[ab012]", re.IGNORECASE)
_LAST_TURN = "\n\nAssistant:"
"""What the last answer of a dialogue in one text stands behind."""


def rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with row and field, and for a file whose
    chosen and rejected are names of answers instead of answers."""
    log_rows: list[Row] = []
    seen: dict[str, int] = {}
    items: dict[str, str] = {}
    names: set[str] = set()
    labels = promptless = identical = equal = against = 0
    for where, raw in records:
        cells = Cells(where, raw)
        prompt, chosen, rejected = _texts(cells)
        names.update(raw)
        labels += bool(_LABEL.fullmatch(chosen) and _LABEL.fullmatch(rejected))
        item = items.setdefault(prompt, f"q{len(items) + 1:04d}") if prompt else f"row{len(log_rows) + 1:04d}"
        seen[item] = seen.get(item, 0) + 1
        scores = _numbers(cells)
        promptless, identical = promptless + (not prompt), identical + (chosen == rejected)
        equal += bool(scores) and scores["grade_a"] == scores["grade_b"]
        against += bool(scores) and scores["grade_a"] < scores["grade_b"]
        verdict = (
            {"verdict": "unscored", "reason": "identical_outputs"}
            if chosen == rejected
            else {"verdict": "a", "reason": ""}
        )
        log_rows.append((where, {
            **extras(raw, _USED), **scores, **_models(cells), **verdict, "item_id": item, "pair_id": f"{item}/{seen[item]}",
            "judge": cells.label("judge", CHOOSER), "order": UNKNOWN_ORDER, **({"prompt": prompt} if prompt else {}), "text_a": chosen, "text_b": rejected,
        }))  # fmt: skip
    if log_rows and labels == len(log_rows):
        raise InvalidInput(
            f"{log_rows[0][0]}: chosen and rejected hold names of answers in every row, not answers; give --format judgeloop and "
            "--columns with verdict: {column: chosen, values: {A: a, B: b}} where they name text_a or text_b, or by: slot and first, second where they name slots"
        )
    count = len(log_rows)
    unread = [name for name in _ORDERS if name in names]
    notes = [
        f"chosen and rejected were read as a pick of the chosen text, by whoever made the data (called {CHOOSER} where no column names the judge); which "
        "of the two was shown first is not recorded: nothing of position, and what is chosen may be better as well as longer"
    ]
    if unread:
        notes.append(
            f"{', '.join(unread)}: not used, for whether it is about the chosen text or about another one is not said; --columns can (order: {{column: {unread[0]}, values: …}}, ab where the chosen text was shown first)"
        )
    for number, what in (
        (promptless, "name no prompt: each is an item of its own"),
        (identical, "have one text as chosen and rejected, and are no picks (identical_outputs)"),
        (equal, "give both texts one score, and call one of them chosen all the same"),
        (against, "give the rejected text the higher score"),
    ):
        if number:
            notes.append(f"{number:,} of {count:,} rows {what}")
    return log_rows, notes


def _texts(cells: Cells) -> tuple[str, str, str]:
    """(prompt, chosen, rejected) of a row; the prompt is "" where it has none. Raises InvalidInput."""
    first, second = _side(cells, "chosen"), _side(cells, "rejected")
    own = cells.prompt() or ""
    if isinstance(first, str) or isinstance(second, str):
        chosen = first if isinstance(first, str) else _answer(cells, "chosen", first, 0)
        rejected = second if isinstance(second, str) else _answer(cells, "rejected", second, 0)
        start = chosen.rpartition(_LAST_TURN)[0]
        if not own and start and rejected.rpartition(_LAST_TURN)[0] == start:
            cut = len(start) + len(_LAST_TURN)
            return start.strip(), chosen[cut:].strip(), rejected[cut:].strip()
        return own, chosen, rejected
    shared = 0
    while shared < min(len(first), len(second)) - 1 and first[shared] == second[shared]:
        shared += 1
    # An answer may begin with turns that both have; the question is what stands before an assistant's turn.
    while shared and first[shared - 1]["role"] == "assistant" and first[shared]["role"] != "user":
        shared -= 1
    asked = (
        Cells(cells.where, {"prompt": first[:shared]}).prompt() if shared > 1 else first[0]["content"] if shared else ""
    )
    return own or asked or "", _answer(cells, "chosen", first, shared), _answer(cells, "rejected", second, shared)


def _side(cells: Cells, column: str) -> str | list[Mapping[str, Any]]:
    """A text, or chat messages. Raises InvalidInput for anything else."""
    value = cells.row.get(column)
    if value is None:
        raise cells.fault(column, "is empty; a row has two answers")
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        with contextlib.suppress(ValueError, RecursionError):  # a text may begin so
            value = json.loads(value)
    if hasattr(value, "tolist"):  # a list column of Parquet in a frame
        value = value.tolist()
    if isinstance(value, str):
        return cells.unicode(column, value)
    turns = value if isinstance(value, list) else []
    if not turns or not all(isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str) for turn in turns):  # fmt: skip
        raise cells.fault(
            column, f"must be an answer, as text or as chat messages with role and content, not {value!r:.60}"
        )
    return [{"role": turn["role"], "content": cells.unicode(column, turn["content"])} for turn in turns]


def _answer(cells: Cells, column: str, turns: list[Mapping[str, Any]], shared: int) -> str:
    """The assistant's turns behind the shared ones, as one text. Raises InvalidInput where there is none."""
    said = [str(turn["content"]) for turn in turns[shared:] if turn["role"] == "assistant"]
    if not said:
        raise cells.fault(column, "holds no turn of the assistant's behind what both sides share")
    return "\n\n".join(said)


def _numbers(cells: Cells) -> dict[str, float]:
    """The two texts' scores as grade_a and grade_b, where the row has both."""
    for names in _SCORES:
        scores = [cells.number(name) for name in names]
        if scores[0] is not None and scores[1] is not None:
            return {"grade_a": scores[0], "grade_b": scores[1]}
    return {}


def _models(cells: Cells) -> dict[str, str]:
    """model_a and model_b, where the row names both."""
    for names in _MODELS:
        models = [cells.label(name) for name in names]
        if all(models):
            return dict(zip(("model_a", "model_b"), models, strict=True))
    return {}
