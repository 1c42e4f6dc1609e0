"""Arena-Hard's judgments (arena-hard-auto 0.1 and 2.0): a line a model and question, two games against the baseline.

Game 1 shows the baseline first, game 2 the model; ``text_a`` is the model's. The strength of a verdict (A>>B or A>B) is
kept in the column ``label``; both are one pick.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from judgeloop.interchange.rows import Cells, Row, extras
from judgeloop.interchange.shown import Delimiters, Shown, of_both_orders, shown

KEYS = frozenset({"model", "judge", "games"})
_USED = (*KEYS, "question_id", "uid", "baseline", "category", "tstamp", "answer_id")
_BASELINE = "baseline"
_LABELS = {
    "A>>B": "first", "A>B": "first", "A=B": "tie", "B>A": "second", "B>>A": "second", "B=A": "tie", "A<B": "second",
    "A<<B": "second", "B<A": "first", "B<<A": "first",
}  # fmt: skip
_LABEL = re.compile(r"\[\[([AB][<>=]{1,2}[AB])\]\]", re.I)
_DELIMITERS = Delimiters(
    "<|User Prompt|>\n",
    "<|The Start of Assistant A's Answer|>\n",
    "\n<|The End of Assistant A's Answer|>\n\n<|The Start of Assistant B's Answer|>\n",
    "\n<|The End of Assistant B's Answer|>",
    reference="\n<|The Start of Reference Answer|>\n",
)


def rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with line and field."""
    log_rows: list[Row] = []
    lines = textless = unnamed = 0
    for where, raw in records:
        cells = Cells(where, raw)
        pair, games, has_texts = _pair(raw, cells)
        lines, textless, unnamed = lines + 1, textless + (not has_texts), unnamed + (not raw.get("baseline"))
        for number, (game, order) in enumerate(zip(games, ("ba", "ab"), strict=True), start=1):
            log_rows.append((where, {**pair, "order": order, **_game(cells, game, number)}))
    notes = []
    if textless:
        notes.append(f"{textless:,} of {lines:,} pairs without texts: their recorded prompts are not Arena-Hard's")
    if unnamed:
        notes.append("the log does not name the baseline model; it is called baseline here")
    return log_rows, notes


def _pair(raw: Mapping[str, Any], cells: Cells) -> tuple[dict[str, Any], list[Any], bool]:
    """(the columns that both games share, the two games, whether their texts are known)."""
    question = cells.name("uid" if raw.get("uid") not in (None, "") else "question_id")
    model, baseline = cells.name("model"), cells.label("baseline", _BASELINE)
    games = cells.required("games")
    if not isinstance(games, list) or len(games) != 2:
        raise cells.fault("games", "must be the two games of a pairwise judgment (the baseline first, then the model first)")  # fmt: skip
    backward, forward = (_texts_of(game) for game in games)
    texts = of_both_orders(forward, backward)
    pair: dict[str, Any] = {
        **extras(raw, _USED), "item_id": question, "pair_id": "/".join((question, model, baseline)),
        "judge": cells.name("judge"), "model_a": model, "model_b": baseline, "category": cells.label("category"),
    }  # fmt: skip
    if texts is not None:
        pair |= {"prompt": texts.question, "text_a": texts.first, "text_b": texts.second}
    return pair, games, texts is not None


def _texts_of(game: object) -> Shown | None:
    """The question and answers in a game's prompt, which is a text (0.1) or chat messages (2.0); None if unreadable."""
    if not isinstance(game, Mapping):
        return None
    prompt = game.get("user_prompt")
    messages = game.get("prompt")
    if prompt is None and isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        prompt = messages[-1].get("content")
    return shown(prompt, _DELIMITERS)


def _game(cells: Cells, game: object, number: int) -> dict[str, Any]:
    """The verdict of one game, by slot."""
    field = f"games[{number - 1}]"
    if game is None:
        return {"verdict": "unscored", "reason": "no_answer", "label": ""}
    if not isinstance(game, Mapping) or "score" not in game:
        raise cells.fault(field, "must have a score, or be null")
    label = game["score"]
    if label is None:
        return {"verdict": "unscored", "reason": _unscored_reason(game.get("judgment")), "label": ""}
    if not isinstance(label, str) or label.strip().upper() not in _LABELS:
        raise cells.fault(
            f"{field}.score", f"must be one of {', '.join(list(_LABELS)[:5])}, or null, not {label!r:.60}"
        )
    return {"verdict": _LABELS[label.strip().upper()], "reason": "", "label": label.strip().upper()}


def _unscored_reason(judgment: object) -> str:
    """The reason why Arena-Hard has no score for a reply."""
    text = judgment.get("answer") if isinstance(judgment, Mapping) else judgment
    if not isinstance(text, str) or not text.strip():
        return "no_answer"
    return "several_verdicts" if len({label.upper() for label in _LABEL.findall(text)}) > 1 else "no_verdict"
