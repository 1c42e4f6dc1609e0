"""OpenAI evals' logs of model-graded evaluations: JSON Lines of a run, its specification, then events by sample.

A sample's first sampling event is the model's answer, its last one the grader's; its metrics event holds the choice and the score. A
choice that could not be read is logged with the lowest score: such a grade is none here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange import graded
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.rows import Cells, Row

KEYS = frozenset({"spec"})
FIELDS = {"item_id": "sample_id", "prompt": "prompt", "text_a": "sampled", "text_b": "sampled", "verdict": "metrics"}
"""judgeloop's column → the field of an event that it is made of."""
_INVALID = "__invalid__"
_OWN = "grader"
"""The judge of a run that names none: the model graded its own answers."""


@dataclass
class _Sample:
    """The events of one sample, in the order of the log."""

    where: str
    sampling: list[Cells] = field(default_factory=list)
    metrics: Cells | None = None
    match: bool | None = None
    error: str = ""


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name a metric. Raises InvalidInput with file, line and field."""
    logs = {path: _log(path) for path in paths}
    evaluations = dict.fromkeys(str(spec.get("eval_name")) for spec, _ in logs.values())
    if len(evaluations) > 1:
        raise InvalidInput(
            f"{paths[0]}: logs of several evaluations ({', '.join(evaluations)}): their samples are not the same; give those of one"
        )
    functions = {path: _functions(path, spec) for path, (spec, _) in logs.items()}
    models = graded.models_of_files(paths, {path: names[0] for path, names in functions.items() if names})
    answers, itself, several = [], set(), 0
    for path, (_, samples) in logs.items():
        grader = functions[path][-1] if len(functions[path]) > 1 else models[path]
        for sample_id, sample in samples.items():
            if sample.metrics is None and sample.match is None and not sample.error:
                continue  # no grade: the run's own events
            own = len(functions[path]) < 2
            itself |= {models[path]} if own else set()
            several += len(sample.sampling) > 2
            prompt, text, reason = _answer(sample)
            right = {} if sample.match is None else {"match": Grade(float(sample.match))}
            grades = _grades(sample, _OWN if own else grader, reason)
            answers.append(
                GradedAnswer(sample.where, sample_id, models[path], 1, prompt, text, grades, right, reason=reason)
            )
    if not answers:
        raise InvalidInput(
            f"{paths[0]}: no sample has a metrics or match event; give the log of an evaluation that grades samples"
        )
    log_rows, notes = graded.scored(answers, str(paths[0]), judges and _full_name(judges, answers), gold)
    if itself:
        notes.append(
            f"the log names one model alone, so that {', '.join(sorted(itself))} graded its own answers (called {_OWN} here)"
        )
    if several:
        notes.append(
            f"{several:,} samples show several answers in one question (several_completions): which was graded how is not logged"
        )
    return log_rows, notes


def _functions(path: Path, spec: Mapping[str, Any]) -> list[str]:
    """The completion functions of a run, the grader last. Raises InvalidInput."""
    names = spec.get("completion_fns") or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{path}: spec: completion_fns must be a list of names, not {names!r:.60}")
    return names


def _full_name(name: str, answers: Sequence[GradedAnswer]) -> str:
    known = dict.fromkeys(grade for answer in answers for grade in answer.grades)
    return next((one for one in known if one.partition("#")[2] == name), name)


def _log(path: Path) -> tuple[Mapping[str, Any], dict[str, _Sample]]:
    """(the run's specification, its samples by id). Raises InvalidInput with line and field."""
    spec: Mapping[str, Any] = {}
    samples: dict[str, _Sample] = {}
    for where, raw in inputs.rows(path, "events"):
        cells = Cells(where, raw)
        if isinstance(raw.get("spec"), Mapping):
            spec = raw["spec"]
            continue
        if "type" not in raw or raw.get("sample_id") is None:
            continue  # the final report
        sample = samples.setdefault(cells.name("sample_id"), _Sample(where))
        data = raw.get("data") if isinstance(raw.get("data"), Mapping) else {}
        event = Cells(where, dict(data or {}))
        kind = cells.name("type")
        if kind == "sampling":
            sample.sampling.append(event)
        elif kind == "metrics":
            sample.metrics = event
        elif kind == "match":
            sample.match = event.truth("correct")
        elif kind == "error":
            sample.error = event.label("type", "error")
    if not spec:
        raise InvalidInput(f"{path}: spec: no line holds the run's specification; give the whole log")
    return spec, samples


def _answer(sample: _Sample) -> tuple[str | None, str | None, str]:
    """(prompt, answer, reason why it has no grade) of a sample; no texts where the log does not hold the answer apart."""
    if sample.error:
        return None, None, "sample_error"
    graded_by_model = sample.metrics is not None and "choice" in sample.metrics.row
    if len(sample.sampling) > (2 if graded_by_model else 1):
        return None, None, "several_completions"
    if len(sample.sampling) < (2 if graded_by_model else 1):
        return None, None, ""  # the answer was in the data already, and the grader's is the only sampling
    event = sample.sampling[0]
    sampled = event.row.get("sampled")
    text = sampled[0] if isinstance(sampled, list) and len(sampled) == 1 else sampled
    if not isinstance(text, str):
        raise event.fault("sampled", f"must be one text, not {sampled!r:.60}")
    return event.prompt(), text, ""


def _grades(sample: _Sample, grader: str, reason: str) -> dict[str, Grade]:
    """The grades that a model gave a sample, by grader and metric."""
    if sample.metrics is None or reason:
        return {}
    cells = sample.metrics
    if "choice" in cells.row and cells.row["choice"] == _INVALID:
        return {f"{grader}#score": Grade(None, "no_verdict")}
    numbers = {}
    for name, value in cells.row.items():
        if name in ("choice", "metascore") or isinstance(value, bool) or not isinstance(value, int | float | None):
            continue
        numbers[f"{grader}#{name}"] = Grade(None, "no_score") if value is None else Grade(float(value))
    return numbers
