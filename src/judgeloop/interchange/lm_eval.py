"""lm-evaluation-harness' ``samples_<task>_<date>.jsonl`` of generated answers: scored one at a time, a line an answer and filter.

A metric that a model gave is the judge's (``verdict: METRIC`` in --columns); metrics by rule are gold beside it. Without
a model's metric the rules themselves are looked at as judges: what wins by them may be the longer text too. The files do
not name their model: the folder does, as the harness wrote it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from judgeloop import inputs
from judgeloop.errors import InvalidInput
from judgeloop.interchange.cells import Cells, Row
from judgeloop.interchange.pointwise import Answer, Grade
from judgeloop.interchange.pointwise import rows as pair_rows

KEYS = frozenset({"doc_id", "doc", "resps"})
RULES = (
    "exact_match",
    "acc",
    "acc_norm",
    "f1",
    "em",
    "bleu",
    "chrf",
    "ter",
    "rouge1",
    "rouge2",
    "rougeL",
    "mcc",
    "pass@1",
)
"""Metrics of the harness that a rule gives."""
_NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d.:-]+$")


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name metrics; "" takes those that are no rule of the
    harness, and its rules. Raises InvalidInput with file, line and field."""
    names = _models(paths)
    lines = [(path, where, raw) for path in paths for where, raw in inputs.rows(path, "samples")]
    metrics = dict.fromkeys(name for _, where, raw in lines for name in _metrics(raw, where))
    if not metrics:
        raise InvalidInput(
            f"{paths[0]}: metrics: none of this log is a number an answer; give a task that scores answers"
        )
    for wanted in (judges, gold):
        if wanted and wanted not in metrics:
            raise InvalidInput(f"{paths[0]}: {wanted}: no such metric (the log has {', '.join(metrics)})")
    by_model = [judges] if judges else [name for name in metrics if name not in RULES and name != gold]
    # Without a model's metric, the rules are what is looked at.
    judging = by_model or [name for name in metrics if name != gold]
    rules = [gold] if gold else [name for name in metrics if name in RULES and name not in judging][:1]
    answers: dict[tuple[str, str], Answer] = {}
    prompts: dict[str, str] = {}
    filters = {str(raw.get("filter", "none")) for _, _, raw in lines}
    for path, where, raw in lines:
        one = _answer(path, where, raw, names[path], judging, rules, len(filters) > 1)
        key = (one.model, one.item_id)
        before = answers.get(key)
        if before is not None:
            if set(before.grades) & set(one.grades):
                raise InvalidInput(f"{where}: doc_id: {raw.get('doc_id')!r} stands twice (first at {before.where}); give each model's log once")  # fmt: skip
            one = Answer(
                before.where, one.item_id, one.model, 1, one.prompt, one.text, {**before.grades, **one.grades},
                {**before.gold, **one.gold}, one.category,
            )  # fmt: skip
        # Chat templates and few-shot draws make the prompts of two models differ; the item is the same.
        prompt = prompts.setdefault(one.item_id, one.prompt)
        answers[key] = Answer(
            one.where, one.item_id, one.model, 1, prompt, one.text, one.grades, one.gold, one.category
        )
    found, notes = pair_rows(list(answers.values()), str(paths[0]))
    if not by_model:
        notes.append(f"no metric here is a model's judgment: {', '.join(judging)} are rules, shown as judges; a model's metric is named with --columns (verdict: METRIC)")  # fmt: skip
    return found, notes


def _models(paths: Sequence[Path]) -> dict[Path, str]:
    """The model of each file: its folder's name, or that of results_*.json beside it; with the file's name where one
    folder holds several runs of a task."""
    found = {path: _model(path) for path in paths}
    tasks: dict[tuple[str, str], list[Path]] = {}
    for path, model in found.items():
        tasks.setdefault((model, _task(path)), []).append(path)
    for (model, _), several in tasks.items():
        if len(several) > 1:
            found |= {path: f"{model}@{path.stem}" for path in several}
    return found


def _model(path: Path) -> str:
    for beside in sorted(path.resolve().parent.glob("results_*.json")):
        try:
            name = json.loads(beside.read_text(encoding="utf-8")).get("model_name")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if isinstance(name, str) and name:
            return name
    return path.resolve().parent.name.replace("__", "/") or path.stem


def _task(path: Path) -> str:
    found = _NAME.match(path.stem)
    return found["task"] if found else path.stem.removeprefix("samples_")


def _metrics(raw: Mapping[str, Any], where: str) -> list[str]:
    named = raw.get("metrics")
    if named is None:
        # Logs before 0.4.5 do not list them.
        named = [
            name for name, value in raw.items() if name in RULES or (isinstance(value, float) and name not in KEYS)
        ]
    if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
        raise InvalidInput(f"{where}: metrics: must be a list of names, not {named!r:.60}")
    return [name for name in named if isinstance(raw.get(name), int | float) or raw.get(name) is None]


def _answer(
    path: Path,
    where: str,
    raw: Mapping[str, Any],
    model: str,
    judges: Sequence[str],
    rules: Sequence[str],
    filtered: bool,
) -> Answer:
    cells = Cells(where, raw)
    task, suffix = _task(path), f",{raw.get('filter', 'none')}" if filtered else ""
    grades = {f"{name}{suffix}": _grade(cells, name) for name in judges if name in raw}
    gold = {f"{name}{suffix}": _grade(cells, name) for name in rules if name in raw}
    return Answer(where, f"{task}/{cells.name('doc_id')}", model, 1, _prompt(cells), _text(cells), grades, gold, task)


def _grade(cells: Cells, name: str) -> Grade:
    value = cells.row[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Grade(None, "no_score")
    return Grade(float(cells.number(name) or 0.0) if not isinstance(value, bool) else float(value))


def _prompt(cells: Cells) -> str:
    """The context that was sent: ``arguments.gen_args_0.arg_0``, or the first of a list in older logs."""
    given = cells.required("arguments")
    first = (
        given.get("gen_args_0")
        if isinstance(given, Mapping)
        else given[0]
        if isinstance(given, list) and given
        else None
    )
    text = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) and first else None
    if not isinstance(text, str):
        raise cells.fault("arguments", "must bear the prompt as gen_args_0.arg_0")
    return text


def _text(cells: Cells) -> str:
    """The generated text. Log-likelihoods of given choices are no texts, and several repeats no one text."""
    resps = cells.required("resps")
    first = resps[0] if isinstance(resps, list) and resps else None
    if not isinstance(first, list) or not first:
        raise cells.fault("resps", f"must be a list of lists of texts, not {resps!r:.60}")
    if not isinstance(first[0], str) or len(resps) > 1:
        raise cells.fault("resps", "holds log-likelihoods of given choices, no drafted text; judgeloop reads tasks that generate answers (generate_until)")  # fmt: skip
    if len(first) > 1:
        raise cells.fault("resps", f"holds {len(first)} repeats, and the metric does not say which it is of; give a log with one repeat")  # fmt: skip
    return str(first[0])
