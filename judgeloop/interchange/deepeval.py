"""DeepEval's test runs (``test_run_*.json`` in its results folder, ``.latest_run_full.json``): one model's outputs, each scored by
metrics, a file a run.

A metric with an evaluation model is a judge; one without is a rule. Whether a metric's higher score is the better one is read from which
scores succeed at its threshold: bias, toxicity and the like are better the lower they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.interchange import graded
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.rows import Cells, Row

FIELDS = {
    "item_id": "input",
    "prompt": "input",
    "text_a": "actualOutput",
    "text_b": "actualOutput",
    "verdict": "metricsData",
}
"""judgeloop's column → the field of a test case that it is made of."""


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name metrics. Raises InvalidInput with file, test case and field."""
    runs = {path: _run(path) for path in paths}
    hyperparameters = {path: _mapping(run.get("hyperparameters")).get("model") for path, run in runs.items()}
    models = graded.models_of_files(
        paths, {path: name for path, name in hyperparameters.items() if isinstance(name, str)}
    )
    cases = [(path, cells) for path, run in runs.items() for cells in _cases(path, run)]
    directions = _directions(metric for _, cells in cases for metric in _metrics(cells))
    items: dict[str, str] = {}
    answers = []
    for path, cells in cases:
        prompt, text = cells.text("input"), cells.text("actualOutput")
        if prompt is None:
            cells.required("input")
        by_model: dict[str, Grade] = {}
        by_rule: dict[str, Grade] = {}
        for metric in _metrics(cells):
            name, grader = str(metric.get("name") or "metric"), metric.get("evaluationModel")
            to, key = (by_model, f"{grader}#{name}") if grader else (by_rule, name)
            to[key] = _grade(cells, metric, directions.get(name, 1.0))
        item = items.setdefault(str(prompt), f"q{len(items) + 1:04d}")
        answers.append(GradedAnswer(cells.where, item, models[path], 1, prompt, text, by_model, by_rule))
    log_rows, notes = graded.scored(answers, str(paths[0]), *(_full_name(name, answers) for name in (judges, gold)))
    lower = [name for name, direction in directions.items() if direction < 0]
    if lower:
        notes.append(
            f"lower is better in {', '.join(lower)}, by which scores succeed: the grade is the score's negative"
        )
    return log_rows, notes


def _full_name(name: str, answers: Sequence[GradedAnswer]) -> str:
    """A metric's name with its evaluation model before it, where it is given without."""
    known = dict.fromkeys(grade for answer in answers for grade in answer.grades)
    return next((one for one in known if one.partition("#")[2] == name), name)


def _run(path: Path) -> Mapping[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not valid JSON ({error!s:.80})") from None
    return _mapping(_mapping(run).get("testRunData", run))  # .latest_test_run.json holds the run under this key


def _cases(path: Path, run: Mapping[str, Any]) -> list[Cells]:
    """The test cases of a run. Raises InvalidInput where it has none of single turns."""
    cases = run.get("testCases")
    if not isinstance(cases, list) or not cases:
        what = (
            "holds conversations alone, which are not read"
            if run.get("conversationalTestCases")
            else "holds no test case"
        )
        raise InvalidInput(f"{path}: testCases: {what}")
    return [Cells(f"{path}: test case {number}", dict(_mapping(case))) for number, case in enumerate(cases, start=1)]


def _metrics(cells: Cells) -> list[Mapping[str, Any]]:
    metrics = cells.row.get("metricsData") or []
    if not isinstance(metrics, list) or not all(isinstance(metric, Mapping) for metric in metrics):
        raise cells.fault("metricsData", "must be a list of a metric's results each")
    return metrics


def _directions(metrics: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Metric → 1 where higher is better, -1 where lower is. Raises InvalidInput where successes say both."""
    said: dict[str, set[float]] = {}
    for metric in metrics:
        score, threshold, success = (metric.get(key) for key in ("score", "threshold", "success"))
        ways = said.setdefault(str(metric.get("name") or "metric"), set())
        if (
            isinstance(score, int | float)
            and isinstance(threshold, int | float)
            and isinstance(success, bool)
            and score != threshold
        ):
            ways.add(1.0 if (score > threshold) == success else -1.0)
    for name, ways in said.items():
        if len(ways) > 1:
            raise InvalidInput(
                f"metric {name}: some scores above its threshold succeed and others fail: which way is better cannot be told"
            )
    return {name: next(iter(ways), 1.0) for name, ways in said.items()}


def _grade(cells: Cells, metric: Mapping[str, Any], direction: float) -> Grade:
    """A metric's score, higher = better; none where it failed."""
    if metric.get("error"):
        return Grade(None, "grader_failed")
    score = Cells(cells.where, {"score": metric.get("score")}).number("score")
    return Grade(None, "no_score") if score is None else Grade(direction * score)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
