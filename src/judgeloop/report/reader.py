"""The reader of actual cases as HTML: groups, a search box and filters, every text of the run escaped and folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from judgeloop.report import wording
from judgeloop.report.blocks import folded
from judgeloop.report.cases import Case, Group, Side
from judgeloop.report.shell import text

_MOST_CHOICES = 60
ON_PAPER = 2
"""Cases of a group that are printed; the page says how many are left out."""


def reader(groups: Sequence[Group]) -> str:
    """All groups with their controls; empty where there is no case. Without JavaScript the controls stay hidden."""
    if not groups:
        return ""
    cases = [case for group in groups for case in group.cases]
    return f'<div class="reader">{_controls(groups, cases)}{"".join(map(_group, groups))}</div>'


def _controls(groups: Sequence[Group], cases: Sequence[Case]) -> str:
    choices = [
        _choice("kind", "Kind", [group.name for group in groups]),
        _choice("arm", "Arm", [case.arm for case in cases]),
        _choice("category", "Category", [case.category for case in cases]),
    ]
    return (
        '<div class="controls" role="search" aria-label="Cases" hidden><label>Search <input type="search" '
        f'autocomplete="off" spellcheck="false"></label>{"".join(choices)}<button type="button">Clear</button>'
        '<output aria-live="polite"></output></div>'
    )


def _choice(name: str, words: str, values: Iterable[str]) -> str:
    """A filter; none where there is nothing to choose."""
    found = sorted({value for value in values if value})[:_MOST_CHOICES]
    if len(found) < 2:
        return ""
    options = "".join(f'<option value="{text(value)}">{text(wording.label(value, 40))}</option>' for value in found)
    return f'<label>{words} <select name="{name}"><option value="">all</option>{options}</select></label>'


def _group(group: Group) -> str:
    shown = "".join(_case(case, group.name, later=place >= ON_PAPER) for place, case in enumerate(group.cases))
    more = len(group.cases) - ON_PAPER
    left = (
        f'<p class="on-paper left-out">On paper the first {ON_PAPER} of {len(group.cases)} cases; the file itself holds all.</p>'
        if more > 0
        else ""
    )
    return f'<div class="group"><h3>{text(group.name)}</h3><p class="lead">{text(group.lead)}</p>{shown}{left}</div>'


def _case(case: Case, kind: str, *, later: bool) -> str:
    prompt = f'<details class="more"><summary>Prompt</summary>{folded(case.prompt)}</details>' if case.prompt else ""
    many = " many" if len(case.sides) > 2 else ""
    inner = "".join(map(_side, case.sides))
    # A row of generations scrolls, and a scrolling region must be reachable by keyboard.
    scrolls = (
        f' role="region" tabindex="0" aria-label="{text(wording.label(case.title, 60))}, by generation"' if many else ""
    )
    return (
        f'<article class="case{" later" if later else ""}" data-kind="{text(kind)}" data-arm="{text(case.arm)}" data-category="{text(case.category)}">'
        f'<h4>{text(wording.label(case.title, 90))}</h4><p class="what">{text(wording.label(case.what, 400))}</p>{prompt}'
        f'<div class="sides{many}"{scrolls}>{inner}</div></article>'
    )


def _side(side: Side) -> str:
    detail = f" <span>· {text(side.detail)}</span>" if side.detail else ""
    return f'<div class="side"><h5>{text(side.heading)}{detail}</h5>{folded(side.text)}</div>'
