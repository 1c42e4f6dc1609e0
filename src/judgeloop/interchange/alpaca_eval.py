"""AlpacaEval's ``annotations.json``: each pair judged once, in an order that the file does not state.

``text_a`` is ``output_2`` (the model), ``text_b`` is ``output_1`` (the reference). ``preference`` runs from 1 (output_1
is better) to 2. AlpacaEval shows the two in an order that it draws from a generator seeded with the instruction, and
turns the answer back before it writes the file. The order is recovered in two ways, which must agree: from the raw
completion, where the file keeps it, which is the answer before it was turned back; and from the seeded draw itself.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from judgeloop.interchange.cells import Cells, Row, extras
from judgeloop.seeds import python_uniform

KEYS = frozenset({"instruction", "output_1", "output_2", "preference"})
_SEEDS = (*range(10), 42, 123, 1234)
_FIXED_ORDER = ("lmsys_gpt4", "aviary_gpt4")
"""AlpacaEval's annotators that show output_1 first always."""
_COMPLETIONS = ("raw_completion", "preference_raw_completion")
_USED = (*KEYS, *_COMPLETIONS, "annotator", "generator_1", "generator_2", "dataset", "is_switched_outputs")
_FEWEST = 5
_MISSING = (-1, -1.0)


@dataclass(slots=True)
class _Annotation:
    """One record, and whether output_2 stood first as far as the record itself tells (None: it does not)."""

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
    out: list[Row] = []
    by_annotator: dict[str, list[_Annotation]] = {}
    for one in annotations:
        by_annotator.setdefault(one.annotator, []).append(one)
    drawn = {name: _Draw.of(name, several, notes) for name, several in by_annotator.items()}
    soft = {
        name
        for name, several in by_annotator.items()
        if any(one.preference is not None and one.preference not in (1.0, 1.5, 2.0) for one in several)
    }
    for one in annotations:
        prompt = one.cells.required("instruction")
        item_id = items.setdefault(str(prompt), f"q{len(items) + 1:04d}")
        out.append((one.where, _row(one, item_id, drawn[one.annotator], one.annotator in soft)))
    return out, notes


def _annotation(where: str, raw: Mapping[str, Any]) -> _Annotation:
    cells = Cells(where, raw)
    for column in ("instruction", "output_1", "output_2", "preference"):
        if column not in raw:
            cells.required(column)
    for column in ("instruction", "output_1", "output_2"):
        if cells.text(column) is None:
            cells.required(column)
    given = None if raw["preference"] in _MISSING else cells.number("preference")
    if given is not None and given != 0 and not 1 <= given <= 2:
        raise cells.fault(
            "preference", f"must be from 1 (output_1) to 2 (output_2), 0 for a draw, or empty, not {given:g}"
        )
    preference = 1.5 if given == 0 else given
    switched = cells.truth("is_switched_outputs")
    if switched is None and preference is not None:
        completion = next((raw[name] for name in _COMPLETIONS if raw.get(name) not in (None, "")), None)
        switched = _turned(said(completion), preference)
    return _Annotation(where, raw, cells, cells.label("annotator"), preference, switched)


def _row(one: _Annotation, item_id: str, draw: _Draw, soft: bool) -> dict[str, Any]:
    cells, preference = one.cells, one.preference
    text_a, text_b = cells.text("output_2"), cells.text("output_1")
    models = cells.label("generator_2"), cells.label("generator_1")
    switched = draw.of_row(one)
    verdict, p_first, reason = "unscored", None, "no_verdict"
    if text_a == text_b:
        # AlpacaEval writes a draw for equal outputs whatever the judge says: nothing was learned of the judge.
        reason = "identical_outputs"
    elif switched is None:
        reason = "order_unknown"
    elif preference is not None:
        p_a = preference - 1.0
        p = p_a if switched else 1.0 - p_a
        verdict, reason = "tie" if p == 0.5 else "first" if p > 0.5 else "second", ""
        p_first = p if soft else None
    row: dict[str, Any] = {
        "item_id": item_id, "pair_id": "/".join((item_id, *(name for name in models if name))),
        "order": "ab" if switched else "ba", "verdict": verdict, "p_first": p_first, "reason": reason,
        "prompt": cells.text("instruction"), "text_a": text_a, "text_b": text_b, "model_a": models[0],
        "model_b": models[1], "category": cells.label("dataset"),
    }  # fmt: skip
    if "annotator" in one.raw:
        row["judge"] = one.annotator
    return {**extras(one.raw, _USED), **row}


@dataclass(frozen=True, slots=True)
class _Draw:
    """How one annotator's orders were drawn. ``seed`` None: not by AlpacaEval's draw, as far as the completions tell."""

    seed: int | None
    fixed: bool = False

    @classmethod
    def of(cls, annotator: str, annotations: Sequence[_Annotation], notes: list[str]) -> _Draw:
        told = [one for one in annotations if one.switched is not None]
        name = annotator or "the judge"
        if not told:
            if annotator in _FIXED_ORDER:
                notes.append(f"{name}: AlpacaEval shows output_1 first always for this annotator; position and content cannot be told apart")  # fmt: skip
                return cls(None, fixed=True)
            notes.append(f"{name}: the presentation order is AlpacaEval's seeded draw (seed 0); no raw completion is there to check it by")  # fmt: skip
            return cls(0)
        for seed in _SEEDS:
            if all(drawn(str(one.raw["instruction"]), seed) == one.switched for one in told):
                notes.append(f"{name}: the presentation order is AlpacaEval's seeded draw (seed {seed}); {len(told):,} of {len(annotations):,} raw completions tell it, all agree")  # fmt: skip
                return cls(seed)
        if len(told) >= _FEWEST and not any(one.switched for one in told):
            notes.append(f"{name}: output_1 was shown first always, as {len(told):,} raw completions say; position and content cannot be told apart")  # fmt: skip
            return cls(None, fixed=True)
        lost = len(annotations) - len(told)
        notes.append(f"{name}: the presentation order is taken from {len(told):,} raw completions, which AlpacaEval's seeded draw does not match; {lost:,} rows that do not tell it are unscored")  # fmt: skip
        return cls(None)

    def of_row(self, one: _Annotation) -> bool | None:
        if one.switched is not None:
            return one.switched
        if self.fixed:
            return False
        return None if self.seed is None else drawn(str(one.raw["instruction"]), self.seed)


def drawn(instruction: str, seed: int) -> bool:
    """Whether AlpacaEval (0.2 and later) shows output_2 first: its draw is a generator seeded with a text."""
    return python_uniform(f"is_switched_outputs{instruction}{seed}") >= 0.5


def _turned(raw: float | None, preference: float) -> bool | None:
    """Whether ``preference`` is the raw one turned round (3 − raw); None where the two cannot be told apart."""
    if raw is None or abs(preference - 1.5) < 0.005:
        return None
    near, far = sorted((abs(raw - preference), abs(3.0 - raw - preference)))
    # A rounded preference of a soft answer lies near one of the two; a binarised one on a side.
    agrees = near < 0.02 or preference in (1.0, 2.0)
    if not agrees or far - near < 0.01:
        return None
    return abs(raw - preference) > abs(3.0 - raw - preference)


def said(completion: object) -> float | None:
    """The preference by slot (1: the first) that a raw completion states; None where it is not one of AlpacaEval's forms.

    Log-probabilities of m and M, a ranking of m and M or model_1 and model_2, m or M alone, Output (a) or Output (b).
    """
    value = completion
    if isinstance(value, str):
        text = value.strip()
        if text in ("m", "M"):
            return 1.0 if text == "m" else 2.0
        value = _literal(text)
        if value is None:
            found = re.match(r"(?:.*\n)*? ?Output \(([ab])\)", text)
            return None if found is None else 1.0 if found[1] == "a" else 2.0
    if isinstance(value, Mapping):
        if "logprobs" in value:
            return _by_logprobs(value["logprobs"])
        value = value.get("ordered_models")
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    ranks = {one.get("model"): one.get("rank") for one in value if isinstance(one, Mapping)}
    first = next((ranks[name] for name in ("m", "model_1") if name in ranks), None)
    return float(first) if first in (1, 2) and len(ranks) == 2 else None


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
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
