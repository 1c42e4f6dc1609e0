"""What a result shows of itself in a notebook: what it is, and every headline estimate with its interval and verdict.

A fragment without script or style sheet, for notebooks are shown where neither is allowed; every text goes through
``shell.text``.
"""

from __future__ import annotations

from collections.abc import Sequence

from judgeloop.report import wording
from judgeloop.report.shell import text
from judgeloop.report.verdicts import QUESTIONS, Finding, verdict_name
from judgeloop.stats.estimate import Estimate

_ROWS = 40
_LEFT = 'style="text-align:left;vertical-align:top;padding:.2em .7em"'
_RIGHT = 'style="text-align:right;vertical-align:top;white-space:nowrap;padding:.2em .7em"'
_MUTED = 'style="opacity:.7"'
_CLAIMS = ("found", "equivalent")


def render(name: str, facts: Sequence[tuple[str, str]], found: Sequence[Finding]) -> str:
    """The fragment: name, ``facts`` as (label, value), a row a finding under its question, and the findings in words."""
    said = " · ".join(f"{text(label)} {text(wording.label(value, 90))}" for label, value in facts if label != "Run")
    head = f"<p><b>{text(wording.label(name))}</b> <span {_MUTED}>{said}</span></p>"
    if not found:
        return f"<div>{head}<p>The estimates bear no finding.</p></div>"
    groups = [(title, [one for one in found if one.question == question]) for question, title in QUESTIONS.items()]
    shown, rows = 0, []
    for title, some in groups:
        some = some[: _ROWS - shown]
        shown += len(some)
        if some:
            rows.append(f'<tr><th colspan="5" scope="colgroup" {_LEFT}>{text(title)}</th></tr>')
            rows += [_row(one) for one in some]
    columns = (("Measure", _LEFT), ("Of", _LEFT), ("Estimate", _RIGHT), (_level(found), _RIGHT), ("Verdict", _LEFT))
    titles = "".join(f'<th scope="col" {align}>{title}</th>' for title, align in columns)
    rest = f"<p {_MUTED}>{len(found) - shown} more findings in the report.</p>" if len(found) > shown else ""
    words = "".join(f"<li>{text(wording.label(one.sentence, 400))}</li>" for one in found[:_ROWS])
    return (
        f"<div>{head}<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>{rest}"
        f"<details><summary>In words</summary><ul>{words}</ul></details></div>"
    )


def _level(found: Sequence[Finding]) -> str:
    levels = {one.row.conf_level for one in found if one.row.conf_level is not None}
    return f"{100 * levels.pop():g} % interval" if len(levels) == 1 else "Interval"


def _row(finding: Finding) -> str:
    row = finding.row
    verdict = text(verdict_name(finding))
    return (
        f"<tr><td {_LEFT}>{text(wording.term_name(row.term))}<br><code {_MUTED}>{text(row.term)}</code></td>"
        f"<td {_LEFT}>{text(_whose(row))}</td><td {_RIGHT}>{text(_estimate(row))}</td><td {_RIGHT}>{text(_interval(row))}</td>"
        f"<td {_LEFT}>{f'<b>{verdict}</b>' if finding.verdict in _CLAIMS else verdict}</td></tr>"
    )


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
