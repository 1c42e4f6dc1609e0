"""Answers that a judge graded one at a time, joined into pairs: the better grade is the pick.

There was no slot and no order: a verdict is by text, and the statistics show whether the better grade goes with length or
style.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
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


def scored(answers: Sequence[GradedAnswer], what: str, judge: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """``rows`` of answers whose ``grades`` hold all that a model gave, and whose ``gold`` all that a rule gave.

    ``judge``: the one grade to analyse, "" for all that a model gave; ``gold``: the rule that says what is right, "" for none. An
    answer of a model that stands several times is one more epoch each time, and an item's prompt is its first. Raises InvalidInput
    for an unknown name, and where no model gave a grade.
    """
    by_model = list(dict.fromkeys(name for answer in answers for name in answer.grades))
    by_rule = list(dict.fromkeys(name for answer in answers for name in answer.gold))
    for name in (judge, gold):
        if name and name not in (*by_model, *by_rule):
            raise InvalidInput(
                f"{what}: {name}: no such score (the log has {', '.join((*by_model, *by_rule)) or 'none'})"
            )
    judges = [judge] if judge else [name for name in by_model if name != gold]
    if not judges:
        raise InvalidInput(
            f"{what}: no score here was given by a model ({', '.join(by_rule) or 'there is none'}); name one with --columns (verdict: NAME)"
        )
    seen: dict[tuple[str, str], int] = {}
    prompts: dict[str, str | None] = {}
    differing: set[str] = set()
    kept = []
    for answer in answers:
        place = (answer.model, answer.item_id)
        seen[place] = seen.get(place, 0) + 1
        every = {**answer.grades, **answer.gold}
        if answer.prompt != prompts.setdefault(answer.item_id, answer.prompt) and answer.prompt is not None:
            differing.add(answer.item_id)
        kept.append(replace(
            answer, epoch=seen[place], prompt=prompts[answer.item_id],
            grades={name: every[name] for name in judges if name in every},
            gold={gold: every[gold]} if gold in every else {},
        ))  # fmt: skip
    log_rows, notes = rows(kept, what)
    if differing:
        notes.append(
            f"{len(differing):,} of {len(prompts):,} items were asked in several prompts, of which the first is shown: their answers are compared all the same"
        )
    unused = [name for name in by_rule if name not in (*judges, gold)]
    if unused:
        notes.append(
            f"scores by rule are not used: {', '.join(unused)}; one that says what is right is named in --columns (gold: {unused[0]})"
        )
    return log_rows, notes


def models_of_files(paths: Sequence[Path], named: Mapping[Path, str]) -> dict[Path, str]:
    """The model of each file: as it names it, else the file's name; with the file's name behind it where two name one model, and
    with its folder before it where two files have one name."""
    stems = [path.stem for path in paths]
    models = {}
    for path in paths:
        own = named.get(path, "")
        stem = path.stem if stems.count(path.stem) == 1 else f"{path.resolve().parent.name}/{path.stem}"
        models[path] = own if own and list(named.values()).count(own) == 1 else f"{own}@{stem}" if own else stem
    return models


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
