"""promptfoo's results (``-o results.json`` or ``.jsonl``): one output of a provider to one test case, graded by assertions alone.

Assertions that a model grades are the judges'; the others are rules. Where the grader gave nothing readable promptfoo writes a score
of 0: such a grade is none here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from judgeloop.errors import InvalidInput
from judgeloop.experiment import inputs
from judgeloop.interchange import graded
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.rows import Cells, Row

KEYS = frozenset({"promptIdx", "testIdx", "provider", "success"})
FIELDS = {"item_id": "vars", "prompt": "prompt", "text_a": "response", "text_b": "response", "verdict": "gradingResult"}
"""judgeloop's column → the field of a result that it is made of."""
BY_MODEL = frozenset({
    "llm-rubric", "agent-rubric", "search-rubric", "g-eval", "factuality", "model-graded-factuality", "model-graded-closedqa",
    "answer-relevance", "context-faithfulness", "context-recall", "context-relevance", "conversation-relevance", "pi",
})  # fmt: skip
"""Types of assertions that a model grades."""
_COMPARED = frozenset({"select-best", "max-score"})
"""Types that choose among the outputs of a test case: a pick from a list, and no grade."""
_UNREADABLE = (
    "could not extract json",
    "llm-rubric produced malformed",
    "invalid json",
    "failed to parse",
    "api error",
)
"""How reasons begin where older versions mark the grader's failure by nothing else."""


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name an assertion's metric or type. Raises InvalidInput with file,
    result and field."""
    # Results stand in the order in which they ended.
    results = [
        cells for path in paths
        for cells in sorted((Cells(where, raw) for where, raw in _results(path)), key=lambda one: (one.whole("testIdx") or 0, one.whole("promptIdx") or 0))
    ]  # fmt: skip
    prompts: dict[str, list[str]] = {}
    for cells in results:
        labels = prompts.setdefault(_provider(cells), [])
        if _label(cells) not in labels:
            labels.append(_label(cells))
    compared = 0
    items: dict[str, str] = {}
    answers = []
    for cells in results:
        provider = _provider(cells)
        labels = prompts[provider]
        model = provider if len(labels) == 1 else f"{provider}#prompt{labels.index(_label(cells)) + 1}"
        grades, rules, picks = _grades(cells)
        compared += picks
        output = _mapping(cells.row.get("response")).get("output")
        failed = "no_answer" if output is None else ""
        text = output if isinstance(output, str) or output is None else json.dumps(output, ensure_ascii=False)
        prompt = _mapping(cells.row.get("prompt")).get("raw")
        answers.append(GradedAnswer(
            cells.where, items.setdefault(_asked(cells), f"q{len(items) + 1:04d}"), model, 1, prompt if isinstance(prompt, str) else None, text, grades, rules, reason=failed,
        ))  # fmt: skip
    log_rows, notes = graded.scored(answers, str(paths[0]), judges, gold)
    if compared:
        notes.append(
            f"{compared:,} assertions that choose among outputs (select-best, max-score) are left out: they grade none alone"
        )
    return log_rows, notes


def _results(path: Path) -> Iterator[Row]:
    """(where, result) of a file. Raises InvalidInput."""
    if path.suffix.lower() != ".json":
        yield from inputs.rows(path, "results")
        return
    try:
        whole = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not valid JSON ({error!s:.80})") from None
    results = _mapping(whole).get("results")
    if isinstance(results, Mapping):  # the file holds a summary; a summary holds results
        results = results.get("results")
    if not isinstance(results, list) or not all(isinstance(one, Mapping) for one in results):
        raise InvalidInput(f"{path}: results: must be a list of results, as promptfoo eval -o results.json writes it")
    for number, one in enumerate(results, start=1):
        yield f"{path}: result {number}", dict(one)


def _asked(cells: Cells) -> str:
    """What a result's test case asks: its variables, which all providers and prompts share; without any, the prompt."""
    variables = {
        name: value for name, value in _mapping(cells.row.get("vars")).items() if not str(name).startswith("_")
    }
    return json.dumps(variables or _mapping(cells.row.get("prompt")).get("raw"), sort_keys=True, ensure_ascii=False)


def _provider(cells: Cells) -> str:
    provider = cells.required("provider")
    name = provider if isinstance(provider, str) else _mapping(provider).get("label") or _mapping(provider).get("id")
    if not isinstance(name, str) or not name:
        raise cells.fault("provider", "must hold a label or an id")
    return name


def _label(cells: Cells) -> str:
    """The prompt of a result as the configuration writes it, before its variables are filled in."""
    prompt = _mapping(cells.row.get("prompt"))
    return str(prompt.get("label") or prompt.get("raw") or "")


def _grades(cells: Cells) -> tuple[dict[str, Grade], dict[str, Grade], int]:
    """(grades that a model gave, by name; those of rules; assertions that chose among outputs) of a result."""
    components = _mapping(cells.row.get("gradingResult")).get("componentResults") or []
    if not isinstance(components, list):
        raise cells.fault("gradingResult", "componentResults must be a list of an assertion's results each")
    by_model: dict[str, Grade] = {}
    by_rule: dict[str, Grade] = {}
    compared = 0
    for component in components:
        assertion = _mapping(_mapping(component).get("assertion"))
        kind = str(assertion.get("type") or "")
        plain = kind.removeprefix("not-")
        if plain in _COMPARED or not kind:
            compared += plain in _COMPARED
            continue
        to = by_model if plain in BY_MODEL else by_rule
        name = str(assertion.get("metric") or kind)
        number = 2
        while name in to:
            name, number = f"{assertion.get('metric') or kind}#{number}", number + 1
        to[name] = _grade(cells, component)
    return by_model, by_rule, compared


def _grade(cells: Cells, component: Mapping[str, Any]) -> Grade:
    """An assertion's score; none where its grader failed."""
    reason = str(component.get("reason") or "").lower()
    if _mapping(component.get("metadata")).get("graderError") or (
        not component.get("score") and reason.startswith(_UNREADABLE)
    ):
        return Grade(None, "grader_failed")
    if component.get("score") is None:
        return Grade(None, "no_score")
    return Grade(Cells(cells.where, {"score": component["score"]}).number("score"))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
