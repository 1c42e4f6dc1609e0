"""RAGAS' results as ``to_pandas()`` gives them, written as CSV, JSON Lines or Parquet: a row a sample, a column a metric, a file a system.

The file names neither the system (its own name does) nor the model that graded.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from judgeloop.experiment import inputs
from judgeloop.interchange import graded
from judgeloop.interchange.graded import Grade, GradedAnswer
from judgeloop.interchange.rows import Cells, Row

KEYS = frozenset({"user_input", "response"})
FIELDS = {
    "item_id": "user_input",
    "prompt": "user_input",
    "text_a": "response",
    "text_b": "response",
    "verdict": "faithfulness",
}
"""judgeloop's column → the field of a row that it is made of."""
_SAMPLE = (
    "user_input", "response", "multi_responses", "reference", "retrieved_contexts", "reference_contexts", "retrieved_context_ids",
    "reference_context_ids", "rubrics", "rubric", "persona_name", "query_style", "query_length", "synthesizer_name",
)  # fmt: skip
RULES = (
    "exact_match", "string_present", "bleu_score", "rouge_score", "chrf_score", "non_llm", "semantic_similarity", "answer_similarity",
    "id_based_context", "tool_call_accuracy",
)  # fmt: skip
"""How the names of RAGAS' metrics begin that no model's words decide."""
_LOWER_IS_BETTER = ("noise_sensitivity", "harmfulness", "maliciousness")
"""How the names of RAGAS' metrics begin of which a lower score is better."""
BY_MODEL = (
    *_LOWER_IS_BETTER, "faithfulness", "answer_", "response_", "context_", "llm_context", "factual_correctness", "summary_score",
    "nv_", "topic_adherence", "agent_goal_accuracy", "instance_rubrics", "domain_specific_rubrics", "rubrics_score",
    "simple_criteria", "aspect_critic", "helpfulness", "coherence", "correctness", "conciseness", "multi_modal",
)  # fmt: skip
"""How the names of its metrics begin that a model decides."""


def rows(paths: Sequence[Path], judges: str = "", gold: str = "") -> tuple[list[Row], list[str]]:
    """(rows of a verdict log, notes). ``judges`` and ``gold`` name metrics. Raises InvalidInput with file, row and field."""
    models = graded.models_of_files(paths, {})
    lines = [(path, Cells(where, raw)) for path in paths for where, raw in inputs.rows(path, "results")]
    names = [name for name in dict.fromkeys(name for _, cells in lines for name in cells.row) if name not in _SAMPLE]
    metrics = [name for name in names if name.startswith((*RULES, *BY_MODEL)) or name in (judges, gold)]
    items: dict[str, str] = {}
    answers = []
    for path, cells in lines:
        prompt = Cells(cells.where, {"prompt": cells.required("user_input")}).prompt()
        grades = {name: _grade(name, cells.number(name)) for name in metrics if name in cells.row}
        rules = {name: grade for name, grade in grades.items() if name.startswith(RULES)}
        by_model = {name: grade for name, grade in grades.items() if name not in rules}
        item = items.setdefault(str(prompt), f"q{len(items) + 1:04d}")
        answers.append(
            GradedAnswer(cells.where, item, models[path], 1, prompt, cells.text("response"), by_model, rules)
        )
    log_rows, notes = graded.scored(answers, str(paths[0]), judges, gold)
    lower = [name for name in metrics if name.startswith(_LOWER_IS_BETTER)]
    if lower:
        notes.append(f"lower is better in {', '.join(lower)}: the grade is the score's negative")
    others = [name for name in names if name not in metrics]
    if others:
        notes.append(
            f"columns that are no metric of RAGAS by their name are not used: {', '.join(others)}; one that holds scores, higher better, is named in --columns (verdict: NAME)"
        )
    return log_rows, notes


def _grade(name: str, value: float | None) -> Grade:
    """A metric's score, higher = better; RAGAS leaves it empty where its grader failed."""
    if value is None:
        return Grade(None, "no_score")
    return Grade(-value if name.startswith(_LOWER_IS_BETTER) else value)
