"""Judges that score one text or choose from a list: their tables, and what was asked of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from judgeloop.report import wording
from judgeloop.report.findings import judge_rows
from judgeloop.report.reading import Reading
from judgeloop.report.tables import Table
from judgeloop.stats.estimate import Estimate
from judgeloop.text.features import FEATURES

_SCORES = (
    "score_mean", "score_sd", "score_ceiling_share", "score_floor_share", "score_repeatability", "score_scale_anchoring",
    *(f"score_{name}_slope" for name in FEATURES), "score_pair_ties", "score_gold_agreement", "score_pairwise_disagreement",
)  # fmt: skip
_CHOICES = ("position_permutation", "rotation_consistency", "gold_agreement", "gold_log_odds", *(f"{name}_log_odds" for name in FEATURES))  # fmt: skip
_MOST_SLOTS = 8
_MOST_REASONS = 12


def tables(reading: Reading) -> list[Table]:
    """Scores, or slots and what else choices say; and why replies hold none. Nothing for other audits and runs."""
    found = [_scores(reading), _slots(reading), _choices(reading), _reasons(reading)]
    return [table for table in found if table is not None]


def facts(reading: Reading) -> list[tuple[str, str]]:
    """What was asked, where no pair was judged."""
    mode = str(reading.environment.get("mode", ""))
    asked = _mapping(reading.environment.get("asked"))
    judges = sorted({row.judge for row in reading.estimates if row.judge})
    found = [("Mode", mode or "none"), ("Judges", f"{len(judges):,}"), ("Items", f"{len(reading.items):,}")]
    if mode == "pointwise":
        found += [("Scales", ", ".join(map(str, asked.get("scales", [])))), ("Pairs", f"{asked.get('pairs', 0):,}")]
    if mode == "listwise":
        found.append(("Sets", f"{asked.get('sets', 0):,} of {asked.get('slots', 0)} texts, each in all rotations"))
    found.append(("Texts", f"{len(reading.candidates):,}, measured"))
    calls, lost = int(asked.get("calls", 0)), sum(_lost(reading).values())
    if calls:
        found += [("Replies", f"{calls:,}"), ("Unscored", f"{lost:,} ({100 * lost / calls:.1f} %)")]
    return found


def _scores(reading: Reading) -> Table | None:
    rows = []
    for term in _SCORES:
        slope = term.endswith("_slope")
        known = [row for row in judge_rows(reading.estimates, term) if not slope or row.status != "undefined"]
        raw = list(judge_rows(reading.estimates, term, "no_gold")) if slope else []
        # Raw slopes stand in only where no gold tells them from quality.
        given = {row.judge for row in known}
        known += [
            row for row in raw if row.judge not in given and (row.status != "undefined" or term == "score_length_slope")
        ]
        rows += [_row(row) for row in known]
    if not rows:
        return None
    return Table(
        "Scores",
        "One text at a time. Slopes hold the item and, but where they are named raw, gold equal. Scale anchoring is where the "
        "same texts stand on the other scale, less where they stand on the first; 0 is none.",
        ("Judge", "Measure", "Estimate", "Unit", "n", "Unscored"),
        tuple(rows),
    )  # fmt: skip


def _slots(reading: Reading) -> Table | None:
    rows = []
    for slot in range(1, _MOST_SLOTS + 1):
        log_odds = {row.judge: row for row in judge_rows(reading.estimates, f"slot_{slot}_log_odds")}
        for row in judge_rows(reading.estimates, f"slot_{slot}_excess"):
            beside = log_odds.get(row.judge)
            rows.append((wording.label(row.judge), f"{slot}", wording.cell(row), wording.cell(beside), f"{row.n:,}", f"{row.n_unscored:,}"))  # fmt: skip
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    return Table(
        "Slots of the list",
        "How much more often than its share each slot is picked (percentage points), over all rotations of each set; and the "
        "log-odds for it against the mean of the other slots, whatever stands there.",
        ("Judge", "Slot", "Beyond its share", "Log-odds", "Sets", "Unscored"),
        tuple(rows),
    )


def _choices(reading: Reading) -> Table | None:
    if not any(row.term == "position_permutation" for row in reading.estimates):
        return None
    rows = []
    for term in _CHOICES:
        for variant in ("",) if term in _CHOICES[:4] else ("given_gold", "no_gold"):
            rows += [
                _row(row) for row in judge_rows(reading.estimates, term, variant)
                if row.status != "undefined" or term in _CHOICES[:3]
            ]  # fmt: skip
    return Table(
        "Choices from the list",
        "Over complete sets. Slopes are of a conditional logit with an effect of every slot; log-odds.",
        ("Judge", "Measure", "Estimate", "Unit", "n", "Unscored"),
        tuple(rows),
    )


def _row(row: Estimate) -> tuple[str, ...]:
    name = wording.term_name(row.term)
    if row.variant == "no_gold":
        name += " (raw)"
    elif row.variant == "given_gold":
        name += ", given gold"
    elif row.variant:
        name += f", {row.variant}"
    cell = wording.cell(row)
    if row.term == "position_permutation" and row.p_value is not None:
        cell += f" ({wording.p_value(row.p_value)})"
    return (
        wording.label(row.judge), name, cell, "" if row.status == "undefined" else wording.unit_name(row), f"{row.n:,}",
        f"{row.n_unscored:,}",
    )  # fmt: skip


def _lost(reading: Reading) -> dict[tuple[str, str], int]:
    """(judge, reason) → replies without a score or a choice."""
    asked = _mapping(reading.environment.get("asked"))
    reasons = _mapping(asked.get("unscored"))
    return {(judge, str(why)): int(n) for judge, some in reasons.items() for why, n in _mapping(some).items()}


def _reasons(reading: Reading) -> Table | None:
    lost = sorted(_lost(reading).items(), key=lambda one: (-one[1], one[0]))[:_MOST_REASONS]
    if not lost:
        return None
    rows = tuple((wording.label(judge), wording.label(why, 90) or "–", f"{n:,}") for (judge, why), n in lost)
    return Table(
        "Unscored replies",
        "A reply without a readable score or choice is counted, never guessed.",
        ("Judge", "Reason", "Replies"),
        rows,
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
