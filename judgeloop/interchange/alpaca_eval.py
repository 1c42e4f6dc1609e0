"""AlpacaEval's ``annotations.json``: each pair judged once, in an order that the file does not state.

``text_a`` is ``output_2`` (the model), ``text_b`` is ``output_1`` (the reference). ``preference`` runs from 1 (output_1
is better) to 2. AlpacaEval shows the two in an order that it draws from a generator seeded with the instruction, and
turns the answer back before it writes the file. The order is recovered from the raw completion (the
answer before it was turned back), where the file has it, and from the seeded draw; the two must agree.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.interchange.rows import Cells, Row, extras
from judgeloop.records import UNKNOWN_ORDER
from judgeloop.seeds import python_uniform

KEYS = frozenset({"instruction", "output_1", "output_2", "preference"})
FIELDS = {
    "item_id": "instruction", "prompt": "instruction", "text_a": "output_2", "text_b": "output_1", "judge": "annotator",
    "verdict": "preference", "p_first": "preference", "model_a": "generator_2", "model_b": "generator_1", "category": "dataset",
}  # fmt: skip
"""judgeloop's column → the field of a record that it is made of."""
_SEEDS = (*range(10), 42, 123, 1234)
_FIXED_ORDER = ("lmsys_gpt4", "aviary_gpt4")
"""AlpacaEval's annotators that always show output_1 first."""
_COMPLETIONS = ("raw_completion", "preference_raw_completion")
_USED = (*KEYS, *_COMPLETIONS, "annotator", "generator_1", "generator_2", "dataset", "is_switched_outputs")
_FEWEST = 5
_MISSING = (-1, -1.0)


@dataclass(slots=True)
class _Annotation:
    """One record. ``switched``: whether output_2 was shown first; None where the record does not state it."""

    where: str
    raw: Mapping[str, Any]
    cells: Cells
    annotator: str
    preference: float | None
    switched: bool | None


def rows(records: Iterable[Row]) -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes on what was assumed or lost). Raises InvalidInput with row and field."""
    annotations = [_annotation(where, raw) for where, raw in records]
    notes: list[str] = []
    items: dict[str, str] = {}
    log_rows: list[Row] = []
    by_annotator: dict[str, list[_Annotation]] = {}
    for annotation in annotations:
        by_annotator.setdefault(annotation.annotator, []).append(annotation)
    draws = {name: _OrderDraw.of(name, group, notes) for name, group in by_annotator.items()}
    soft = {
        name
        for name, group in by_annotator.items()
        if any(
            annotation.preference is not None and annotation.preference not in (1.0, 1.5, 2.0) for annotation in group
        )
    }
    for annotation in annotations:
        prompt = annotation.cells.required("instruction")
        item_id = items.setdefault(str(prompt), f"q{len(items) + 1:04d}")
        log_rows.append(
            (annotation.where, _row(annotation, item_id, draws[annotation.annotator], annotation.annotator in soft))
        )
    return log_rows, notes


def _annotation(where: str, raw: Mapping[str, Any]) -> _Annotation:
    cells = Cells(where, raw)
    for column in ("instruction", "output_1", "output_2", "preference"):
        if column not in raw:
            cells.required(column)
    for column in ("instruction", "output_1", "output_2"):
        if cells.text(column) is None:
            cells.required(column)
    number = None if raw["preference"] in _MISSING else cells.number("preference")
    if number is not None and number != 0 and not 1 <= number <= 2:
        raise cells.fault(
            "preference", f"must be from 1 (output_1) to 2 (output_2), 0 for a draw, or empty, not {number:g}"
        )
    preference = 1.5 if number == 0 else number
    switched = cells.truth("is_switched_outputs")
    if switched is None and preference is not None:
        completion = next((raw[name] for name in _COMPLETIONS if raw.get(name) not in (None, "")), None)
        switched = _is_turned(slot_preference(completion), preference)
    return _Annotation(where, raw, cells, cells.label("annotator"), preference, switched)


def _row(annotation: _Annotation, item_id: str, draw: _OrderDraw, soft: bool) -> dict[str, Any]:
    cells, preference = annotation.cells, annotation.preference
    text_a, text_b = cells.text("output_2"), cells.text("output_1")
    models = cells.label("generator_2"), cells.label("generator_1")
    switched = draw.of_row(annotation)
    verdict, p_first, reason = "unscored", None, "no_verdict"
    if text_a == text_b:
        # AlpacaEval writes a draw for equal outputs, whatever the judge: the row is no judgment.
        reason = "identical_outputs"
    elif switched is None and preference is not None:
        verdict, reason = "tie" if preference == 1.5 else "a" if preference > 1.5 else "b", ""
    elif preference is not None:
        p_a = preference - 1.0
        p = p_a if switched else 1.0 - p_a
        verdict, reason = "tie" if p == 0.5 else "first" if p > 0.5 else "second", ""
        p_first = p if soft else None
    row: dict[str, Any] = {
        "item_id": item_id, "pair_id": "/".join((item_id, *(name for name in models if name))),
        "order": UNKNOWN_ORDER if switched is None else "ab" if switched else "ba", "verdict": verdict, "p_first": p_first, "reason": reason,
        "prompt": cells.text("instruction"), "text_a": text_a, "text_b": text_b, "model_a": models[0],
        "model_b": models[1], "category": cells.label("dataset"), "order_drawn": True if draw.seed is not None else None,
    }  # fmt: skip
    if "annotator" in annotation.raw:
        row["judge"] = annotation.annotator
    return {**extras(annotation.raw, _USED), **row}


@dataclass(frozen=True, slots=True)
class _OrderDraw:
    """How one annotator's presentation orders were drawn.

    ``seed``: of AlpacaEval's own draw, None where the completions contradict it. ``fixed``: output_1 always first.
    """

    seed: int | None
    fixed: bool = False

    @classmethod
    def of(cls, annotator: str, annotations: Sequence[_Annotation], notes: list[str]) -> _OrderDraw:
        stated = [annotation for annotation in annotations if annotation.switched is not None]
        name = annotator or "the judge"
        if not stated:
            if annotator in _FIXED_ORDER:
                notes.append(f"{name}: AlpacaEval always shows output_1 first for this annotator; position and content cannot be separated")  # fmt: skip
                return cls(None, fixed=True)
            notes.append(f"{name}: the presentation order is AlpacaEval's seeded draw (seed 0); the log has no raw completion to check it")  # fmt: skip
            return cls(0)
        for seed in _SEEDS:
            if all(
                output_2_first(str(annotation.raw["instruction"]), seed) == annotation.switched for annotation in stated
            ):
                notes.append(f"{name}: the presentation order is AlpacaEval's seeded draw (seed {seed}); {len(stated):,} of {len(annotations):,} raw completions state it, all agree")  # fmt: skip
                return cls(seed)
        if len(stated) >= _FEWEST and not any(annotation.switched for annotation in stated):
            notes.append(f"{name}: output_1 was always shown first, as {len(stated):,} raw completions state; position and content cannot be separated")  # fmt: skip
            return cls(None, fixed=True)
        unstated = len(annotations) - len(stated)
        notes.append(f"{name}: the presentation order is taken from {len(stated):,} raw completions, which AlpacaEval's seeded draw does not match; the order of the {unstated:,} rows that do not state it is unknown")  # fmt: skip
        return cls(None)

    def of_row(self, annotation: _Annotation) -> bool | None:
        if annotation.switched is not None:
            return annotation.switched
        if self.fixed:
            return False
        return None if self.seed is None else output_2_first(str(annotation.raw["instruction"]), self.seed)


def output_2_first(instruction: str, seed: int) -> bool:
    """Whether AlpacaEval (0.2 and later) shows output_2 first: drawn from a generator seeded with the instruction."""
    return python_uniform(f"is_switched_outputs{instruction}{seed}") >= 0.5


def _is_turned(raw: float | None, preference: float) -> bool | None:
    """Whether ``preference`` is 3 − ``raw`` and not ``raw``; None where the two cannot be distinguished."""
    if raw is None or abs(preference - 1.5) < 0.005:
        return None
    near, far = sorted((abs(raw - preference), abs(3.0 - raw - preference)))
    # A rounded soft preference lies near one of the two; a binarised one is 1 or 2.
    agrees = near < 0.02 or preference in (1.0, 2.0)
    if not agrees or far - near < 0.01:
        return None
    return abs(raw - preference) > abs(3.0 - raw - preference)


def slot_preference(completion: object) -> float | None:
    """The preference by slot in a raw completion, from 1 (the first) to 2; None where it has none of the known forms.

    The forms: log-probabilities of m and M, a ranking of m and M or of model_1 and model_2, m or M alone, Output (a) or
    Output (b).
    """
    value = completion
    if isinstance(value, str):
        text = value.strip()
        if text in ("m", "M"):
            return 1.0 if text == "m" else 2.0
        value = _literal(text)
        if value is None:
            match = re.match(r"(?:.*\n)*? ?Output \(([ab])\)", text)
            return None if match is None else 1.0 if match[1] == "a" else 2.0
    if isinstance(value, Mapping):
        if "logprobs" in value:
            return _by_logprobs(value["logprobs"])
        value = value.get("ordered_models")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    ranks = {model.get("model"): model.get("rank") for model in value if isinstance(model, Mapping)}
    first = next((ranks[name] for name in ("m", "model_1") if name in ranks), None)
    return float(first) if first in (1, 2) and len(ranks) == 2 else None


def _literal(text: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _by_logprobs(logprobs: object) -> float | None:
    content = logprobs.get("content") if isinstance(logprobs, Mapping) else None
    if not isinstance(content, Sequence) or not content or not isinstance(content[-1], Mapping):
        return None
    tops = content[-1].get("top_logprobs")
    mass = {"m": 0.0, "M": 0.0}
    for top in tops if isinstance(tops, Sequence) else ():
        if isinstance(top, Mapping) and top.get("token") in mass and isinstance(top.get("logprob"), int | float):
            mass[str(top["token"])] = math.exp(min(0.0, float(top["logprob"])))
    total = mass["m"] + mass["M"]
    return 2.0 - mass["m"] / total if total > 0 else None
