"""Answers that a judge graded one at a time, joined into pairs: the better grade is the pick.

There was no slot and no order: a verdict is by text, and the statistics show whether the better grade goes with length or
style.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.interchange.rows import Row
from judgeloop.records import UNKNOWN_ORDER


@dataclass(frozen=True, slots=True)
class Grade:
    """One judge's grade of one answer, higher = better; ``value`` None where there is none, with the reason."""

    value: float | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class GradedAnswer:
    """One answer of a model to an item, with its grades by judge and by gold rule."""

    where: str
    item_id: str
    model: str
    epoch: int
    prompt: str | None
    text: str | None
    grades: Mapping[str, Grade]
    gold: Mapping[str, Grade] = field(default_factory=dict)
    category: str = ""
    reason: str = ""


def rows(answers: Sequence[GradedAnswer], what: str) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes): all pairs of two models' answers to one item in one epoch; of one model alone, all
    pairs of its answers to one item. Raises InvalidInput where no item has two answers."""
    models = list(dict.fromkeys(answer.model for answer in answers))
    groups: dict[tuple[Any, ...], list[GradedAnswer]] = {}
    for answer in answers:
        groups.setdefault((answer.item_id, answer.epoch) if len(models) > 1 else (answer.item_id,), []).append(answer)
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    compared = [pair for pair in pairs if pair[0].text is None or pair[0].text != pair[1].text]
    if not pairs:
        raise InvalidInput(
            f"{what}: no item has two answers to compare; give the logs of two models on the same task, or one log with several epochs"
        )
    if not compared:
        raise InvalidInput(f"{what}: all {len(pairs):,} pairs are of identical texts: nothing to compare")
    numbers = _gold_is_a_number(answers)
    # The judges of an item; where it has no grade at all (its samples failed), those of its task.
    judges: dict[tuple[str, str], dict[str, None]] = {}
    for answer in answers:
        for group in ((answer.category, answer.item_id), (answer.category, "")):
            judges.setdefault(group, {}).update(dict.fromkeys(answer.grades))
    log_rows = [
        row
        for a, b in compared
        for row in _pair_rows(
            a, b, judges[a.category, a.item_id] or judges[a.category, ""], numbers=numbers, one_model=len(models) == 1
        )
    ]
    alone = sum(1 for group in groups.values() if len(group) == 1)
    notes = ["answers were graded one at a time: there was no slot, so that position cannot be estimated; a verdict is the higher of two grades"]  # fmt: skip
    if alone:
        notes.append(f"{alone:,} answers have no counterpart to the same item and are left out")
    if len(compared) < len(pairs):
        notes.append(f"{len(pairs) - len(compared):,} pairs of identical texts are left out")
    return log_rows, notes


def _pair_rows(a: GradedAnswer, b: GradedAnswer, judges: Iterable[str], *, numbers: bool, one_model: bool) -> list[Row]:
    """The rows of one pair, one a judge."""
    sides = (f"{a.model}#{a.epoch}", f"{b.model}#{b.epoch}") if one_model or a.model == b.model else (a.model, b.model)
    pair_id = "/".join((a.item_id, *sides, *(() if one_model or a.epoch <= 1 else (str(a.epoch),))))
    texts = {"text_a": a.text, "text_b": b.text} if a.text is not None and b.text is not None else {}
    shared = {
        "item_id": a.item_id, "pair_id": pair_id, "order": UNKNOWN_ORDER, "prompt": b.prompt if a.prompt is None else a.prompt, **texts, "model_a": a.model,
        "model_b": b.model, "category": a.category, **_gold(a, b, numbers),
    }  # fmt: skip
    return [(b.where, {**shared, "judge": name, **_verdict(a, b, name)}) for name in judges]


def _verdict(a: GradedAnswer, b: GradedAnswer, judge: str) -> dict[str, Any]:
    grade_a = a.grades.get(judge, Grade(None, a.reason or "not_graded"))
    grade_b = b.grades.get(judge, Grade(None, b.reason or "not_graded"))
    if grade_a.value is None or grade_b.value is None:
        return {"verdict": "unscored", "reason": grade_a.reason if grade_a.value is None else grade_b.reason}
    verdict = "tie" if grade_a.value == grade_b.value else "a" if grade_a.value > grade_b.value else "b"
    return {"verdict": verdict, "reason": "", "grade_a": grade_a.value, "grade_b": grade_b.value}


def _gold(a: GradedAnswer, b: GradedAnswer, numbers: bool) -> dict[str, Any]:
    """``gold`` by the first rule and ``gold_2`` by the second, where both answers have a grade."""
    gold: dict[str, Any] = {}
    for column, rule in zip(("gold", "gold_2"), dict.fromkeys([*a.gold, *b.gold]), strict=False):
        grade_a, grade_b = (side.gold.get(rule, Grade(None)).value for side in (a, b))
        if grade_a is not None and grade_b is not None:
            margin = grade_a - grade_b
            gold[column] = margin if numbers else "tie" if margin == 0 else "a" if margin > 0 else "b"
    return gold


def _gold_is_a_number(answers: Sequence[GradedAnswer]) -> bool:
    """Whether gold has other values than right and wrong, so that its difference is a number."""
    return any(
        grade.value is not None and grade.value not in (0.0, 1.0)
        for answer in answers
        for grade in answer.gold.values()
    )
