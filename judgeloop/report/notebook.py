"""What a result shows of itself in a notebook: what it is, and every headline estimate with its interval and verdict.

A fragment without script or style sheet, for notebooks are shown where neither is allowed; templates/notebook.html sets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from judgeloop.report import page, wording
from judgeloop.report.claims import QUESTIONS, Finding, verdict_name
from judgeloop.stats.estimate import Estimate

_ROWS = 40
_CLAIMS = ("found", "equivalent")


@dataclass(frozen=True, slots=True)
class Row:
    """A finding as a row of the fragment's table."""

    measure: str
    term: str
    whose: str
    estimate: str
    interval: str
    verdict: str
    is_claim: bool


def render(name: str, facts: Sequence[tuple[str, str]], found: Sequence[Finding]) -> str:
    """The fragment: name, ``facts`` as (label, value), a row a finding under its question, and the findings in words."""
    shown = [one for question in QUESTIONS for one in found if one.question == question][:_ROWS]
    groups = [
        (title, [_row(one) for one in shown if one.question == question]) for question, title in QUESTIONS.items()
    ]
    return page.render(
        "notebook.html",
        name=name,
        facts=[fact for fact in facts if fact[0] != "Run"],
        level=_level(found),
        groups=[group for group in groups if group[1]],
        more=len(found) - len(shown),
        sentences=[one.sentence for one in found[:_ROWS]],
    )


def _level(found: Sequence[Finding]) -> str:
    levels = {one.row.conf_level for one in found if one.row.conf_level is not None}
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "Interval"


def _row(finding: Finding) -> Row:
    row = finding.row
    return Row(
        wording.term_name(row.term), row.term, _whose(row), _estimate(row), _interval(row), verdict_name(finding),
        finding.verdict in _CLAIMS,
    )  # fmt: skip


def _whose(row: Estimate) -> str:
    """Whose estimate it is: the judge, or the arm and what it is contrasted with; and when."""
    who = wording.label(row.judge if row.scope == "judge" and row.judge else row.arm or row.judge)
    if row.contrast:
        who += f" against {wording.label(row.contrast)}"
    when = "" if row.generation is None else f"generation {row.generation}"
    return ", ".join(part for part in (who, when, wording.label(row.category)) if part)


def _estimate(row: Estimate) -> str:
    if row.status == "undefined" or row.estimate is None:
        return "undefined"
    return f"{wording.signed_figure(row)} {wording.unit_name(row)}".rstrip()


def _interval(row: Estimate) -> str:
    if row.conf_low is None or row.conf_high is None or row.status == "undefined":
        return "–"
    return f"{wording.figure(row, row.conf_low)} to {wording.figure(row, row.conf_high)}"
