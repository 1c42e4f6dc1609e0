"""What a check says: a table for people, JUnit XML, GitHub's workflow commands, JSON. Names from logs are hostile text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from judgeloop.limits.decide import Checked, Outcome, Ruling
from judgeloop.records import ESTIMATE_COLUMNS

FORMAT = "judgeloop-check/1"
_WORDS: Mapping[Ruling, str] = {
    "passed": "passed", "exceeded": "exceeded", "inconclusive": "inconclusive", "not_applied": "not applied",
}  # fmt: skip
_COLOURS: Mapping[Ruling, str] = {
    "passed": "green", "exceeded": "bold red", "inconclusive": "yellow", "not_applied": "dim",
}  # fmt: skip
_LEVELS: Mapping[Ruling, str] = {"exceeded": "error", "inconclusive": "warning"}
# What XML 1.0 may not hold, and what moves a reader's eye: control characters, direction marks, lone surrogates.
_ILLEGAL = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_LONGEST = 300
_COMMAND = re.compile(r"(:(?=:)|#(?=#))")


def plain(text: str, longest: int = _LONGEST) -> str:
    """A text on one line, without control characters, at most ``longest`` long, and nowhere a workflow command: a line may
    be broken anywhere, and GitHub reads ``::error::`` and ``##[error]`` behind spaces too."""
    line = _COMMAND.sub(r"\1 ", " ".join(_ILLEGAL.sub("\ufffd", text).split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def headline(checked: Checked) -> str:
    """One sentence: the verdict and how many limits have which."""
    counts = [
        f"{sum(outcome.verdict == verdict for outcome in checked.outcomes)} {word}"
        for verdict, word in _WORDS.items()
        if any(outcome.verdict == verdict for outcome in checked.outcomes)
    ]
    return f"{plain(checked.name, 60)}: {_WORDS[checked.verdict]} ({', '.join(counts)})"


def table(checked: Checked) -> RenderableType:
    """Limits, values, margins; below it a line on each limit that is not passed."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("Verdict", "Term", "Of", "Value [interval]", "Limit", "Margin"):
        grid.add_column(Text(title, style="dim"), overflow="fold")
    for outcome in checked.outcomes:
        word = Text(_WORDS[outcome.verdict], style=_COLOURS[outcome.verdict])
        cells = (outcome.row.term if outcome.row else outcome.limit.term, outcome.whose, value(outcome), outcome.limit.text,
                 _signed(outcome.margin))  # fmt: skip
        grid.add_row(word, *(Text(plain(cell, 80)) for cell in cells))
    parts: list[RenderableType] = [Text(headline(checked), style="bold"), Padding(grid, (1, 0, 0, 0))]
    told = [outcome for outcome in checked.outcomes if outcome.verdict != "passed"]
    if told:
        parts.append(Text(""))
    parts += [Text(f"- {_title(outcome)}: {plain(outcome.message)}") for outcome in told]
    return Group(*parts)


def value(outcome: Outcome) -> str:
    """ "0.031 [0.012, 0.050]", or the status where there is no number."""
    row = outcome.row
    if row is None:
        return "no such row"
    if row.estimate is None or row.status == "undefined":
        return "undefined"
    if row.conf_low is None or row.conf_high is None:
        return f"{row.estimate:.3f}"
    return f"{row.estimate:.3f} [{row.conf_low:.3f}, {row.conf_high:.3f}]"


def record(checked: Checked) -> str:
    """JSON text: ``format, name, verdict, exit_code, limits``; a limit has its bounds, verdict, margin, message and the
    estimate's row with CONTRACT's columns (null where no row matches)."""
    limits = []
    for outcome in checked.outcomes:
        row = None if outcome.row is None else asdict(outcome.row)
        limits.append({
            "term": outcome.limit.term, "min": outcome.limit.low, "max": outcome.limit.high,
            "selected": outcome.limit.chosen, "required": outcome.limit.required, "verdict": outcome.verdict,
            "margin": outcome.margin, "message": _shown(outcome.message),
            "estimate": None if row is None else {
                column: _shown(row[column]) if isinstance(row[column], str) else row[column] for column in ESTIMATE_COLUMNS
            },
        })  # fmt: skip
    content: dict[str, Any] = {
        "format": FORMAT, "name": _shown(checked.name), "verdict": checked.verdict, "exit_code": checked.exit_code,
        "limits": limits,
    }  # fmt: skip
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def junit(checked: Checked) -> str:
    """JUnit XML: a suite, a case a limit and row. exceeded is a failure, inconclusive an error (so that no reader takes it
    for a pass), not applied is skipped. No time stands in it: the same folder gives the same bytes."""
    counts = {
        "tests": len(checked.outcomes),
        "failures": sum(outcome.verdict == "exceeded" for outcome in checked.outcomes),
        "errors": sum(outcome.verdict == "inconclusive" for outcome in checked.outcomes),
        "skipped": sum(outcome.verdict == "not_applied" for outcome in checked.outcomes),
    }
    numbers = {name: str(count) for name, count in counts.items()}
    root = ElementTree.Element(
        "testsuites", {"name": "judgeloop check", **{k: numbers[k] for k in ("tests", "failures", "errors")}}
    )
    suite = ElementTree.SubElement(root, "testsuite", {"name": plain(checked.name), **numbers, "time": "0"})
    for outcome in checked.outcomes:
        case = ElementTree.SubElement(suite, "testcase", {
            "name": f"{_title(outcome)} {outcome.limit.text}", "classname": f"judgeloop.{plain(outcome.limit.term)}", "time": "0",
        })  # fmt: skip
        kind = {"exceeded": "failure", "inconclusive": "error", "not_applied": "skipped"}.get(outcome.verdict)
        if kind is not None:
            said = f"{value(outcome)}, limit {outcome.limit.text}: {plain(outcome.message)}"
            given = {"message": said} if kind == "skipped" else {"message": said, "type": outcome.verdict}
            ElementTree.SubElement(case, kind, given).text = None if kind == "skipped" else said
    ElementTree.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def workflow_commands(checked: Checked) -> str:
    """GitHub workflow commands: ``::error`` a limit exceeded, ``::warning`` an inconclusive one, ``::notice`` the verdict."""
    lines = [
        f"::{_LEVELS[outcome.verdict]} title={_property(f'judgeloop: {_title(outcome)}')}::"
        + _data(f"{value(outcome)}, limit {outcome.limit.text}: {plain(outcome.message)}")
        for outcome in checked.outcomes
        if outcome.verdict in _LEVELS
    ]
    lines.append(f"::notice title=judgeloop check::{_data(headline(checked))}")
    return "\n".join(lines) + "\n"


def _title(outcome: Outcome) -> str:
    term = outcome.row.term if outcome.row else outcome.limit.term
    return plain(f"{term} ({outcome.whose})" if outcome.whose else term, 160)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _signed(margin: float | None) -> str:
    return "–" if margin is None else f"{margin:+.3f}"


def _shown(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
