"""Answers that a judge graded one at a time, joined into pairs: the better grade is the pick.

There was no slot and no order. Each pair becomes one row with order ab, so that nothing is claimed of position; what can
be told is which of two answers to one item gets the better grade, and whether that goes with length or style.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.interchange.cells import Row


@dataclass(frozen=True, slots=True)
class Grade:
    """One judge's grade of one answer, higher = better; ``value`` None where there is none, with the reason."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """One graded answer: whose, to what, and what each judge and gold rule made of it."""

    where: str
    item_id: str
    model: str
    epoch: int
    prompt: str
    text: str | None
    grades: Mapping[str, Grade]
    gold: Mapping[str, Grade] = field(default_factory=dict)
    category: str = ""
    reason: str = ""


def rows(answers: Sequence[Answer], what: str) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes): all pairs of two models' answers to one item in one epoch; of one model alone, all
    pairs of its answers to one item. Raises InvalidInput where no item has two answers."""
    models = list(dict.fromkeys(answer.model for answer in answers))
    groups: dict[tuple[Any, ...], list[Answer]] = {}
    for answer in answers:
        groups.setdefault((answer.item_id, answer.epoch) if len(models) > 1 else (answer.item_id,), []).append(answer)
    pairs = [pair for several in groups.values() for pair in itertools.combinations(several, 2)]
    compared = [pair for pair in pairs if pair[0].text is None or pair[0].text != pair[1].text]
    if not pairs:
        raise InvalidInput(
            f"{what}: no item has two answers to compare; give the logs of two models on the same task, or one log with several epochs"
        )
    numbers = _gold_is_a_number(answers)
    judges: dict[str, dict[str, None]] = {}
    for answer in answers:
        judges.setdefault(answer.category, {}).update(dict.fromkeys(answer.grades))
    out = [
        row
        for a, b in compared
        for row in _of_pair(a, b, judges[a.category], numbers=numbers, one_model=len(models) == 1)
    ]
    alone = sum(1 for several in groups.values() if len(several) == 1)
    notes = ["answers were graded one at a time: there was no slot, and nothing can be said of position; a verdict is which of two grades is higher"]  # fmt: skip
    if alone:
        notes.append(f"{alone:,} answers have no counterpart to the same item and are left out")
    if len(compared) < len(pairs):
        notes.append(f"{len(pairs) - len(compared):,} pairs of identical texts are left out")
    return out, notes


def _of_pair(a: Answer, b: Answer, judges: Iterable[str], *, numbers: bool, one_model: bool) -> list[Row]:
    """One row a judge of the task."""
    sides = (f"{a.model}#{a.epoch}", f"{b.model}#{b.epoch}") if one_model or a.model == b.model else (a.model, b.model)
    pair_id = "/".join((a.item_id, *sides, *(() if one_model or a.epoch <= 1 else (str(a.epoch),))))
    texts = {"text_a": a.text, "text_b": b.text} if a.text is not None and b.text is not None else {}
    shared = {
        "item_id": a.item_id, "pair_id": pair_id, "order": "ab", "prompt": a.prompt, **texts, "model_a": a.model,
        "model_b": b.model, "category": a.category, **_gold(a, b, numbers),
    }  # fmt: skip
    return [(b.where, {**shared, "judge": name, **_verdict(a, b, name)}) for name in judges]


def _verdict(a: Answer, b: Answer, judge: str) -> dict[str, Any]:
    one = a.grades.get(judge, Grade(None, a.reason or "not_graded"))
    other = b.grades.get(judge, Grade(None, b.reason or "not_graded"))
    if one.value is None or other.value is None:
        return {"verdict": "unscored", "reason": one.reason if one.value is None else other.reason}
    verdict = "tie" if one.value == other.value else "first" if one.value > other.value else "second"
    return {"verdict": verdict, "reason": "", "grade_a": one.value, "grade_b": other.value}


def _gold(a: Answer, b: Answer, numbers: bool) -> dict[str, Any]:
    """``gold`` by the first rule, ``gold_2`` by the second."""
    found: dict[str, Any] = {}
    for column, rule in zip(("gold", "gold_2"), dict.fromkeys([*a.gold, *b.gold]), strict=False):
        one, other = (side.gold.get(rule, Grade(None)).value for side in (a, b))
        if one is not None and other is not None:
            margin = one - other
            found[column] = margin if numbers else "tie" if margin == 0 else "a" if margin > 0 else "b"
    return found


def _gold_is_a_number(answers: Sequence[Answer]) -> bool:
    """Whether gold says by how much, and not only right or wrong."""
    return any(
        one.value is not None and one.value not in (0.0, 1.0) for answer in answers for one in answer.gold.values()
    )
