"""lm-evaluation-harness' ``samples_<task>_<date>.jsonl`` of generated answers: scored one at a time, a line an answer and filter.

A metric given by a model is the judge's (``verdict: METRIC`` in --columns); metrics by rule are gold. Without a model's
metric the rules themselves are analysed as judges: they too may prefer the longer text. The files do not name their model;
the folder that the harness wrote does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.graded import rows as pair_rows
from judgeloop.interchange.rows import Cells, Row

KEYS = frozenset({"doc_id", "doc", "resps"})
FIELDS = {
    "item_id": "doc_id",
    "prompt": "arguments",
    "text_a": "resps",
    "text_b": "resps",
    "verdict": "metrics",
    "gold": "metrics",
}
"""judgeloop's column → the field of a line that it is made of."""
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
"""Metrics of the harness that are computed by rule."""
_NAME = re.compile(r"samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d.:-]+$")


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name metrics; "" means those that are no rule of the
    harness, and its rules. Raises InvalidInput with file, line and field."""
    names = _models(paths)
    lines = [(path, where, raw) for path in paths for where, raw in inputs.rows(path, "samples")]
    metrics = dict.fromkeys(name for _, where, raw in lines for name in _metrics(raw, where))
    if not metrics:
        raise InvalidInput(
            f"{paths[0]}: metrics: none of this log's metrics is a number for each answer; give a task that scores answers"
        )
    for metric in (judges, gold):
        if metric and metric not in metrics:
            raise InvalidInput(f"{paths[0]}: {metric}: no such metric (the log has {', '.join(metrics)})")
    by_model = [judges] if judges else [name for name in metrics if name not in RULES and name != gold]
    # Without a model's metric, the rules are analysed as judges.
    judging = by_model or [name for name in metrics if name != gold]
    rules = [gold] if gold else [name for name in metrics if name in RULES and name not in judging][:1]
    answers: dict[tuple[str, str], GradedAnswer] = {}
    prompts: dict[str, str | None] = {}
    filters = {str(raw.get("filter", "none")) for _, _, raw in lines}
    for path, where, raw in lines:
        answer = _answer(path, where, raw, names[path], judging, rules, len(filters) > 1)
        key = (answer.model, answer.item_id)
        before = answers.get(key)
        if before is not None:
            if set(before.grades) & set(answer.grades):
                raise InvalidInput(f"{where}: doc_id: {raw.get('doc_id')!r} stands twice (first at {before.where}); give each model's log once")  # fmt: skip
            answer = GradedAnswer(
                before.where, answer.item_id, answer.model, 1, answer.prompt, answer.text, {**before.grades, **answer.grades},
                {**before.gold, **answer.gold}, answer.category,
            )  # fmt: skip
        # Chat templates and few-shot draws make the prompts of two models differ; the item is the same.
        prompt = prompts.setdefault(answer.item_id, answer.prompt)
        answers[key] = GradedAnswer(
            answer.where,
            answer.item_id,
            answer.model,
            1,
            prompt,
            answer.text,
            answer.grades,
            answer.gold,
            answer.category,
        )
    log_rows, notes = pair_rows(list(answers.values()), str(paths[0]))
    if not by_model:
        notes.append(f"no metric here is a model's judgment: {', '.join(judging)} are rules, analysed as judges; name a model's metric with --columns (verdict: METRIC)")  # fmt: skip
    return log_rows, notes


def _models(paths: Sequence[Path]) -> dict[Path, str]:
    """The model of each file: its folder's name, or that of results_*.json beside it; with the file's name where one
    folder holds several runs of a task."""
    models = {path: _model(path) for path in paths}
    tasks: dict[tuple[str, str], list[Path]] = {}
    for path, model in models.items():
        tasks.setdefault((model, _task(path)), []).append(path)
    for (model, _), task_paths in tasks.items():
        if len(task_paths) > 1:
            models |= {path: f"{model}@{path.stem}" for path in task_paths}
    return models


def _model(path: Path) -> str:
    for results in sorted(path.resolve().parent.glob("results_*.json")):
        try:
            name = json.loads(results.read_text(encoding="utf-8")).get("model_name")
        except (OSError, ValueError, AttributeError, RecursionError):
            continue
        if isinstance(name, str) and name:
            return name
    return path.resolve().parent.name.replace("__", "/") or path.stem


def _task(path: Path) -> str:
    match = _NAME.match(path.stem)
    return match["task"] if match else path.stem.removeprefix("samples_")


def _metrics(raw: Mapping[str, Any], where: str) -> list[str]:
    names = raw.get("metrics")
    if names is None:
        # Logs before 0.4.5 do not list them.
        names = [
            name for name, value in raw.items() if name in RULES or (isinstance(value, float) and name not in KEYS)
        ]
    if not isinstance(names, list) or not all(isinstance(metric, str) for metric in names):
        raise InvalidInput(f"{where}: metrics: must be a list of names, not {names!r:.60}")
    return [name for name in names if isinstance(raw.get(name), int | float) or raw.get(name) is None]


def _answer(
    path: Path,
    where: str,
    raw: Mapping[str, Any],
    model: str,
    judges: Sequence[str],
    rules: Sequence[str],
    filtered: bool,
) -> GradedAnswer:
    cells = Cells(where, raw)
    task, suffix = _task(path), f",{raw.get('filter', 'none')}" if filtered else ""
    grades = {f"{name}{suffix}": _grade(cells, name) for name in judges if name in raw}
    gold = {f"{name}{suffix}": _grade(cells, name) for name in rules if name in raw}
    return GradedAnswer(
        where, f"{task}/{cells.name('doc_id')}", model, 1, _prompt(cells), _text(cells), grades, gold, task
    )


def _grade(cells: Cells, name: str) -> Grade:
    value = cells.row[name]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return Grade(None, "no_score")
    return Grade(float(cells.number(name) or 0.0) if not isinstance(value, bool) else float(value))


def _prompt(cells: Cells) -> str:
    """The context that was sent: ``arguments.gen_args_0.arg_0``, or the first of a list in older logs."""
    arguments = cells.required("arguments")
    first = (
        arguments.get("gen_args_0")
        if isinstance(arguments, Mapping)
        else arguments[0]
        if isinstance(arguments, list) and arguments
        else None
    )
    text = first.get("arg_0") if isinstance(first, Mapping) else first[0] if isinstance(first, list) and first else None
    if not isinstance(text, str):
        raise cells.fault("arguments", "must hold the prompt as gen_args_0.arg_0")
    return text


def _text(cells: Cells) -> str:
    """The generated text. Raises InvalidInput for log-likelihoods of given choices and for several repeats."""
    resps = cells.required("resps")
    first = resps[0] if isinstance(resps, list) and resps else None
    if not isinstance(first, list) or not first:
        raise cells.fault("resps", f"must be a list of lists of texts, not {resps!r:.60}")
    if not isinstance(first[0], str) or len(resps) > 1:
        raise cells.fault("resps", "holds log-likelihoods of given choices, no drafted text; judgeloop reads tasks that generate answers (generate_until)")  # fmt: skip
    if len(first) > 1:
        raise cells.fault("resps", f"holds {len(first)} repeats, and a metric does not state its repeat; give a log with one repeat")  # fmt: skip
    return str(first[0])
