"""MT-Bench's ``*_pair.jsonl`` (FastChat), each pair judged in both orders, a line a pair, and its ``*_single.jsonl``, a line a
graded answer; and Arena-Hard's judgments (arena-hard-auto 0.1 and 2.0), a line a model and question, two games against the
baseline.

MT-Bench: game 1 shows model_1 first, game 2 shows model_2 first; ``text_a`` is model_1's. FastChat has already turned the winners
into models. Texts are read from the recorded prompts; in the second turn the text is the second answer, which the
judge's prompt asks to compare, or to grade.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.interchange import graded
from judgeloop.interchange.rows import Cells, Row, extras


@dataclass(frozen=True, slots=True)
class Delimiters:
    """The strings before the question and around the two answers in one tool's prompt template."""

    question: str
    first: str
    between: str
    last: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """The question, and the answers in the first and second slot, as one prompt showed them."""

    question: str
    first: str
    second: str

    def swapped(self) -> ShownPrompt:
        """The same texts with the slots exchanged."""
        return ShownPrompt(self.question, self.second, self.first)


def shown(prompt: object, delimiters: Delimiters) -> ShownPrompt | None:
    """The texts of a prompt; None where it is of another template, or an answer itself contains a delimiter."""
    question, answers = _enclosed(prompt, delimiters) or ("", "")
    first, between, second = answers.partition(delimiters.between)
    return ShownPrompt(question, first, second) if between and delimiters.between not in second else None


def _enclosed(prompt: object, delimiters: Delimiters) -> tuple[str, str] | None:
    """(the question, all that stands between the first delimiter and the last) of a prompt; None where it is of another
    template, or one of the two stands there twice."""
    if not isinstance(prompt, str):
        return None
    before, start, after_first = prompt.partition(delimiters.first)
    answers, end, after = after_first.rpartition(delimiters.last)
    if not start or not end or after.strip() or delimiters.first in after_first or delimiters.last in answers:
        return None
    question = before
    if delimiters.question:
        _, start, question = before.partition(delimiters.question)
        if not start:
            return None
    if delimiters.reference:
        question = question.split(delimiters.reference, 1)[0]
    return question.strip("\n"), answers


def of_both_orders(forward: ShownPrompt | None, backward: ShownPrompt | None) -> ShownPrompt | None:
    """The texts of a pair's two prompts, in the order of ``forward``; None where they disagree or neither is readable."""
    if forward is None or backward is None:
        return forward or (backward and backward.swapped())
    return forward if forward == backward.swapped() else None


MT_BENCH_KEYS = frozenset({"question_id", "model_1", "model_2", "g1_winner", "g2_winner"})
MT_BENCH_SINGLE_KEYS = frozenset({"question_id", "model", "judge", "score", "turn"})
MT_BENCH_FIELDS = {
    "item_id": "question_id", "prompt": "g1_user_prompt", "text_a": "g1_user_prompt", "text_b": "g1_user_prompt",
    "verdict": "g1_winner", "model_a": "model_1", "model_b": "model_2",
}  # fmt: skip
"""judgeloop's column → the field of a record that it is made of."""
_MT_BENCH_USED = (
    *MT_BENCH_KEYS, "judge", "turn", "g1_user_prompt", "g2_user_prompt", "g1_judgment", "g2_judgment", "tstamp",
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
_GRADED_TURN = Delimiters(
    "[Question]\n",
    "[The Start of Assistant's Answer]\n",
    "",
    "\n[The End of Assistant's Answer]",
    reference="\n[The Start of Reference Answer]\n",
)
_GRADED_TURNS = Delimiters(
    "",
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n",
    "",
    "\n\n<|The End of Assistant A's Conversation with User|>",
)
_TWO_TURNS = Delimiters(
    "",
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n",
    "\n\n<|The End of Assistant A's Conversation with User|>\n\n\n"
    "<|The Start of Assistant B's Conversation with User|>\n\n### User:\n",
    "\n\n<|The End of Assistant B's Conversation with User|>",
)


def mt_bench_rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with line and field."""
    lines = [Cells(where, raw) for where, raw in records]
    is_single = [set(cells.row) >= MT_BENCH_SINGLE_KEYS for cells in lines]
    if any(is_single):
        if not all(is_single):
            raise lines[is_single.index(False)].fault("model", "is missing, but other lines are single gradings; give pairwise judgments and single gradings apart")  # fmt: skip
        return _single_gradings(lines)
    log_rows: list[Row] = []
    prompts: list[tuple[object, ...]] = []
    textless = 0
    for cells, judge in zip(lines, _judges(lines), strict=True):
        pair, has_texts = _mt_bench_pair(cells.row, cells)
        textless += not has_texts
        prompts.append(tuple(cells.row.get(f"g{game}_user_prompt") for game in (1, 2)))
        for game, order in ((1, "ab"), (2, "ba")):
            log_rows.append(
                (cells.where, {**pair, **_mt_bench_game(cells, game, order), "judge": judge, "order": order})
            )
    return log_rows, _textless_notes("pairs", "MT-Bench", prompts, textless)


def _textless_notes(what: str, tool: str, prompts: Sequence[Sequence[object]], textless: int) -> list[str]:
    """Sentences on the pairs or answers whose texts are not known. ``prompts``: those that were recorded of each of them."""
    unrecorded = sum(1 for recorded in prompts if not any(recorded))
    notes = []
    if unrecorded:
        notes.append(f"{unrecorded:,} of {len(prompts):,} {what}: no prompts recorded, so no texts or lengths")
    if textless > unrecorded:
        notes.append(f"{textless - unrecorded:,} of {len(prompts):,} {what} without texts: their recorded prompts are not {tool}'s")  # fmt: skip
    return notes


def _judges(lines: Sequence[Cells]) -> list[str]:
    """The judge of each line: its model, with the prompt's name behind it where a model judged by several."""
    named = [_judge(cells) for cells in lines]
    prompts: dict[str, set[str]] = {}
    for model, prompt in named:
        prompts.setdefault(model, set()).add(prompt)
    return [model if len(prompts[model]) == 1 else f"{model}#{prompt}" for model, prompt in named]


def _single_gradings(lines: Sequence[Cells]) -> tuple[list[Row], list[str]]:
    """The lines of ``*_single.jsonl``, a grade of one answer each, as pairs of two models' answers."""
    answers: dict[tuple[str, str, str], graded.GradedAnswer] = {}
    prompts: list[tuple[object, ...]] = []
    for cells, judge in zip(lines, _judges(lines), strict=True):
        turn, model = cells.whole("turn") or 1, cells.name("model")
        item_id = f"{cells.name('question_id')}/{turn}"
        score = cells.number("score")
        failed = "no_answer" if cells.row.get("judgment") == _ERROR_OUTPUT else "no_verdict"
        # FastChat writes -1 where it found no rating.
        grade = graded.Grade(None, failed) if score is None or score < 0 else graded.Grade(score)
        prompts.append((cells.row.get("user_prompt"),))
        question, text = _graded_texts(cells.row.get("user_prompt"), turn) or (None, None)
        answer = graded.GradedAnswer(cells.where, item_id, model, 1, question, text, {judge: grade})
        first = answers.setdefault((judge, model, item_id), answer)
        if first is not answer:
            raise cells.fault("question_id", f"{judge} grades this answer of {model} twice (first at {first.where}); keep one")  # fmt: skip
    textless = sum(1 for answer in answers.values() if answer.text is None)
    log_rows, notes = graded.rows(list(answers.values()), lines[0].where.rpartition(":")[0])
    return log_rows, [*notes, *_textless_notes("answers", "MT-Bench", prompts, textless)]


def _graded_texts(prompt: object, turn: int) -> tuple[str, str] | None:
    """(question, answer) of the prompt of a single grading; None where it is of another template."""
    if turn == 1:
        return _enclosed(prompt, _GRADED_TURN)
    conversation = _enclosed(prompt, _GRADED_TURNS)
    turns = conversation and _conversation(conversation[1], "A")
    return turns and (f"{turns[0]}\n\n{turns[1]}", turns[2])


def _judge(cells: Cells) -> tuple[str, str]:
    """(model, prompt's name) of FastChat's judge, [model, prompt] or a model alone."""
    judge = cells.required("judge")
    names = [judge] if isinstance(judge, str) else judge
    if not isinstance(names, list | tuple) or not names or not all(isinstance(name, str) and name for name in names):
        raise cells.fault("judge", f"must be [model, prompt], not {judge!r:.60}")
    return names[0], names[1] if len(names) > 1 else ""


def _mt_bench_pair(raw: Mapping[str, Any], cells: Cells) -> tuple[dict[str, Any], bool]:
    """(the columns that both games share, whether their texts are known)."""
    if "m1_score" in raw or "m2_score" in raw:
        raise cells.fault("m1_score", "this pair was made of two single gradings, without slots; give a log of pairwise judgments")  # fmt: skip
    question = cells.name("question_id")
    models = cells.name("model_1"), cells.name("model_2")
    turn = cells.whole("turn") or 1
    item_id = f"{question}/{turn}"
    pair: dict[str, Any] = {
        **extras(raw, _MT_BENCH_USED), "item_id": item_id, "pair_id": "/".join((item_id, *models)), "model_a": models[0],
        "model_b": models[1],
    }  # fmt: skip
    prompts = raw.get("g1_user_prompt"), raw.get("g2_user_prompt")
    texts = of_both_orders(*(shown(prompt, _ONE_TURN) if turn == 1 else _second_turn(prompt) for prompt in prompts))
    if texts is not None:
        pair |= {"prompt": texts.question, "text_a": texts.first, "text_b": texts.second}
    return pair, texts is not None


def _second_turn(prompt: object) -> ShownPrompt | None:
    """Both questions and the two second answers of a prompt with two conversations; None where it cannot be split."""
    conversations = shown(prompt, _TWO_TURNS)
    if conversations is None:
        return None
    a, b = _conversation(conversations.first, "A"), _conversation(conversations.second, "B")
    if a is None or b is None or a[:2] != b[:2]:
        return None
    return ShownPrompt(f"{a[0]}\n\n{a[1]}", a[2], b[2])


def _conversation(text: str, letter: str) -> tuple[str, str, str] | None:
    """(first question, second question, second answer) of an assistant's conversation; None where it cannot be split."""
    parts = text.split(f"\n\n### Assistant {letter}:\n")
    turns = parts[1].split("\n\n### User:\n") if len(parts) == 3 else []
    return (parts[0], turns[1], parts[2]) if len(turns) == 2 else None


def _mt_bench_game(cells: Cells, game: int, order: str) -> dict[str, Any]:
    """The verdict of one game, by slot."""
    winner = cells.word(f"g{game}_winner", _WINNERS, "model_1, model_2, tie or error")
    if winner == "tie":
        return {"verdict": "tie", "reason": ""}
    if winner == "error":
        failed = cells.row.get(f"g{game}_judgment") == _ERROR_OUTPUT
        return {"verdict": "unscored", "reason": "no_answer" if failed else "no_verdict"}
    shown_first = "model_1" if order == "ab" else "model_2"
    return {"verdict": "first" if winner == shown_first else "second", "reason": ""}


# Arena-Hard

ARENA_HARD_KEYS = frozenset({"model", "judge", "games"})
ARENA_HARD_FIELDS = {
    "item_id": "question_id", "prompt": "games", "text_a": "games", "text_b": "games", "verdict": "games", "model_a": "model",
    "model_b": "baseline",
}  # fmt: skip
"""judgeloop's column → the field of a record that it is made of."""
_ARENA_HARD_USED = (*ARENA_HARD_KEYS, "question_id", "uid", "baseline", "category", "tstamp", "answer_id")
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


def arena_hard_rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with line and field."""
    log_rows: list[Row] = []
    prompts: list[list[object]] = []
    textless = unnamed = 0
    for where, raw in records:
        cells = Cells(where, raw)
        pair, games, has_texts = _arena_hard_pair(raw, cells)
        prompts.append([_game_prompt(game) for game in games])
        textless, unnamed = textless + (not has_texts), unnamed + (not raw.get("baseline"))
        for number, (game, order) in enumerate(zip(games, ("ba", "ab"), strict=True), start=1):
            log_rows.append((where, {**pair, "order": order, **_arena_hard_game(cells, game, number)}))
    notes = _textless_notes("pairs", "Arena-Hard", prompts, textless)
    if unnamed:
        notes.append("the log does not name the baseline model; it is called baseline here")
    return log_rows, notes


def _arena_hard_pair(raw: Mapping[str, Any], cells: Cells) -> tuple[dict[str, Any], list[Any], bool]:
    """(the columns that both games share, the two games, whether their texts are known)."""
    question = cells.name("uid" if raw.get("uid") not in (None, "") else "question_id")
    model, baseline = cells.name("model"), cells.label("baseline", _BASELINE)
    games = cells.required("games")
    if not isinstance(games, list) or len(games) != 2:
        raise cells.fault("games", "must be the two games of a pairwise judgment (the baseline first, then the model first)")  # fmt: skip
    backward, forward = (shown(_game_prompt(game), _DELIMITERS) for game in games)
    texts = of_both_orders(forward, backward)
    pair: dict[str, Any] = {
        **extras(raw, _ARENA_HARD_USED), "item_id": question, "pair_id": "/".join((question, model, baseline)),
        "judge": cells.name("judge"), "model_a": model, "model_b": baseline, "category": cells.label("category"),
    }  # fmt: skip
    if texts is not None:
        pair |= {"prompt": texts.question, "text_a": texts.first, "text_b": texts.second}
    return pair, games, texts is not None


def _game_prompt(game: object) -> object:
    """A game's prompt, which is recorded as a text (0.1) or as chat messages (2.0); None where it is not."""
    if not isinstance(game, Mapping):
        return None
    prompt = game.get("user_prompt")
    messages = game.get("prompt")
    if prompt is None and isinstance(messages, list) and messages and isinstance(messages[-1], Mapping):
        prompt = messages[-1].get("content")
    return prompt


def _arena_hard_game(cells: Cells, game: object, number: int) -> dict[str, Any]:
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
