"""MT-Bench's ``*_pair.jsonl`` (FastChat): each pair judged in both orders, a line a pair.

Game 1 shows model_1 first, game 2 shows model_2 first; ``text_a`` is model_1's. FastChat has already turned the winners
into models. Texts are read from the recorded prompts; in the second turn the text is the second answer, which the
judge's prompt asks to compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from judgeloop.interchange.rows import Cells, Row, extras
from judgeloop.interchange.shown import Delimiters, Shown, of_both_orders, shown

KEYS = frozenset({"question_id", "model_1", "model_2", "g1_winner", "g2_winner"})
_USED = (
    *KEYS, "judge", "turn", "g1_user_prompt", "g2_user_prompt", "g1_judgment", "g2_judgment", "tstamp",
)  # fmt: skip
_WINNERS = ("model_1", "model_2", "tie", "error")
_ERROR_OUTPUT = "$ERROR$"
_ONE_TURN = Delimiters(
    "[User Question]\n",
    "[The Start of Assistant A's Answer]\n",
    "\n[The End of Assistant A's Answer]\n\n[The Start of Assistant B's Answer]\n",
    "\n[The End of Assistant B's Answer]",
    reference="\n[The Start of Reference Answer]\n",
)
_TWO_TURNS = Delimiters(
    "",
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n",
    "\n\n<|The End of Assistant A's Conversation with User|>\n\n\n"
    "<|The Start of Assistant B's Conversation with User|>\n\n### User:\n",
    "\n\n<|The End of Assistant B's Conversation with User|>",
)


def rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with line and field."""
    lines = [(where, raw, Cells(where, raw)) for where, raw in records]
    prompts: dict[str, set[str]] = {}
    judges = [_judge(cells) for _, _, cells in lines]
    for model, prompt in judges:
        prompts.setdefault(model, set()).add(prompt)
    log_rows: list[Row] = []
    textless = 0
    for (where, raw, cells), (model, prompt) in zip(lines, judges, strict=True):
        name = model if len(prompts[model]) == 1 else f"{model}#{prompt}"
        pair, has_texts = _pair(raw, cells)
        textless += not has_texts
        for game, order in ((1, "ab"), (2, "ba")):
            log_rows.append((where, {**pair, **_game(cells, game, order), "judge": name, "order": order}))
    notes = [f"{textless:,} of {len(lines):,} pairs without texts: their recorded prompts are not MT-Bench's"] if textless else []  # fmt: skip
    return log_rows, notes


def _judge(cells: Cells) -> tuple[str, str]:
    """(model, prompt's name) of FastChat's judge, [model, prompt] or a model alone."""
    judge = cells.required("judge")
    names = [judge] if isinstance(judge, str) else judge
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise cells.fault("judge", f"must be [model, prompt], not {judge!r:.60}")
    return names[0], names[1] if len(names) > 1 else ""


def _pair(raw: Mapping[str, Any], cells: Cells) -> tuple[dict[str, Any], bool]:
    """(the columns that both games share, whether their texts are known)."""
    if "m1_score" in raw or "m2_score" in raw:
        raise cells.fault("m1_score", "this pair was made of two single gradings, without slots; give a log of pairwise judgments")  # fmt: skip
    question = cells.name("question_id")
    models = cells.name("model_1"), cells.name("model_2")
    turn = cells.whole("turn") or 1
    item_id = f"{question}/{turn}"
    pair: dict[str, Any] = {
        **extras(raw, _USED), "item_id": item_id, "pair_id": "/".join((item_id, *models)), "model_a": models[0],
        "model_b": models[1],
    }  # fmt: skip
    prompts = raw.get("g1_user_prompt"), raw.get("g2_user_prompt")
    texts = of_both_orders(*(shown(prompt, _ONE_TURN) if turn == 1 else _second_turn(prompt) for prompt in prompts))
    if texts is not None:
        pair |= {"prompt": texts.question, "text_a": texts.first, "text_b": texts.second}
    return pair, texts is not None


def _second_turn(prompt: object) -> Shown | None:
    """Both questions and the two second answers of a prompt with two conversations; None where it cannot be split."""
    conversations = shown(prompt, _TWO_TURNS)
    if conversations is None:
        return None
    sides = []
    for letter, text in (("A", conversations.first), ("B", conversations.second)):
        parts = text.split(f"\n\n### Assistant {letter}:\n")
        turns = parts[1].split("\n\n### User:\n") if len(parts) == 3 else []
        if len(turns) != 2:
            return None
        sides.append((parts[0], turns[1], parts[2]))
    if sides[0][:2] != sides[1][:2]:
        return None
    return Shown(f"{sides[0][0]}\n\n{sides[0][1]}", sides[0][2], sides[1][2])


def _game(cells: Cells, game: int, order: str) -> dict[str, Any]:
    """The verdict of one game, by slot."""
    winner = cells.word(f"g{game}_winner", _WINNERS, "model_1, model_2, tie or error")
    if winner == "tie":
        return {"verdict": "tie", "reason": ""}
    if winner == "error":
        failed = cells.row.get(f"g{game}_judgment") == _ERROR_OUTPUT
        return {"verdict": "unscored", "reason": "no_answer" if failed else "no_verdict"}
    shown_first = "model_1" if order == "ab" else "model_2"
    return {"verdict": "first" if winner == shown_first else "second", "reason": ""}
