"""Judges of one audit side by side: the differences on the pairs that both judged, in a table."""

from __future__ import annotations

from judgeloop.report import wording
from judgeloop.report.reading import Reading
from judgeloop.report.tables import Table
from judgeloop.stats.estimate import Estimate
from judgeloop.stats.judge_differences import PREFIX

_ALWAYS = (
    "first_slot_excess", "conflict_rate", "padding_probe", "length_ame", "gold_agreement", "self_preference_gold",
)  # fmt: skip
_AGAINST = "vs "
_QUALITY_FREE = ", no_gold"
_GIVEN_GOLD = "length_ame"
"""The measure whose difference takes one gold as exact, but for its variant without gold."""


def judges_compared(reading: Reading) -> Table | None:
    """A row a pair of judges and measure: the usual measures, then others whose interval leaves out 0; None with one judge."""
    rows = [row for row in reading.estimates if row.term.startswith(PREFIX) and row.status != "undefined"]
    kept = [row for row in rows if _measure(row) in _ALWAYS or _apart(row)]
    kept.sort(key=lambda row: (row.judge, _other(row), _place(row), row.term, row.variant))
    if not kept:
        return None
    return Table(
        "Judges on the same pairs",
        "The judge's number minus the other's, paired by pair and clustered by item. Measures beside the usual ones are shown "
        "where the interval leaves out 0; none is adjusted for how many were looked at.",
        ("Judge", "Minus", "Measure", "Difference", "Unit", "n"),
        tuple(
            (wording.label(row.judge), wording.label(_other(row)), _said(row), _cell(row), wording.unit_name(row), f"{row.n:,}")
            for row in kept
        ),
    )  # fmt: skip


def _measure(row: Estimate) -> str:
    return row.term.removeprefix(PREFIX)


def _other(row: Estimate) -> str:
    return row.variant.removeprefix(_AGAINST).removesuffix(_QUALITY_FREE)


def _said(row: Estimate) -> str:
    return wording.term_name(_measure(row)) + (
        ", quality not held equal" if row.variant.endswith(_QUALITY_FREE) else ""
    )


def _cell(row: Estimate) -> str:
    given = _measure(row) == _GIVEN_GOLD and not row.variant.endswith(_QUALITY_FREE)
    return wording.cell(row) + (wording.ONE_GOLD if given else "")


def _place(row: Estimate) -> int:
    return _ALWAYS.index(_measure(row)) if _measure(row) in _ALWAYS else len(_ALWAYS)


def _apart(row: Estimate) -> bool:
    return row.conf_low is not None and row.conf_high is not None and (row.conf_low > 0 or row.conf_high < 0)
