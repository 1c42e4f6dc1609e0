"""A limit and the estimates it is about: kept, exceeded, or not to be told from this sample.

The interval decides, never the estimate alone: a limit is kept where the whole interval keeps it (equivalence logic), and
exceeded where the whole interval breaks it. Everything else is inconclusive, which is not a pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from judgeloop.errors import InvalidInput
from judgeloop.limits.file import Limit
from judgeloop.limits.terms import matches
from judgeloop.stats import by_construction
from judgeloop.stats.deciding import sample_to_decide
from judgeloop.stats.estimate import Estimate

Ruling = Literal["passed", "exceeded", "inconclusive", "not_applied"]
"""What becomes of a limit; what an estimate claims is its ``verdict`` (``stats.estimate``)."""

_PANELS = {"pairs": 0, "anchor": 1, "probe": 2, "policy": 3, "": 4}
_CONTROLS = ("random", "gold")
_SELECTORS = ("judge", "arm", "contrast", "panel", "category", "variant")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A limit on one estimate's row (None: no row matches). ``margin``: how far the interval's nearer end keeps inside the
    limit, in the row's unit; negative = how far it reaches beyond. ``message`` is a sentence, with what would decide it."""

    limit: Limit
    verdict: Ruling
    row: Estimate | None
    margin: float | None
    message: str

    @property
    def whose(self) -> str:
        """Whose estimate it is: "judge m, arm debiased, generation 3", with what was selected where there is no row."""
        if self.row is None:
            return ", ".join(f"{key} {value}" for key, value in self.limit.chosen.items())
        given = {
            "judge": self.row.judge, "arm": self.row.arm, "against": self.row.contrast, "panel": self.row.panel,
            "generation": "" if self.row.generation is None else str(self.row.generation),
            "category": self.row.category, "variant": self.row.variant,
        }  # fmt: skip
        return ", ".join(f"{key} {value}" for key, value in given.items() if value)


@dataclass(frozen=True, slots=True)
class Checked:
    """What ``check`` found, in the limits' order."""

    name: str
    outcomes: tuple[Outcome, ...]

    @property
    def verdict(self) -> Ruling:
        """exceeded if any limit is, else inconclusive if any is or none was applied, else passed."""
        found = {outcome.verdict for outcome in self.outcomes}
        if "exceeded" in found:
            return "exceeded"
        return "passed" if found <= {"passed", "not_applied"} and "passed" in found else "inconclusive"

    @property
    def exit_code(self) -> int:
        """CONTRACT's: 0 passed, 1 exceeded, 5 inconclusive."""
        return {"passed": 0, "exceeded": 1}.get(self.verdict, 5)


def check(name: str, rows: Sequence[Estimate], limits: Iterable[Limit]) -> Checked:
    """Every limit on every row that it is about. Raises InvalidInput for a limit that a probability cannot reach."""
    outcomes: list[Outcome] = []
    for limit in limits:
        chosen = choose(rows, limit)
        outcomes += [_decide(limit, row) for row in chosen] or [_absent(limit, rows)]
    return Checked(name, tuple(outcomes))


def choose(rows: Sequence[Estimate], limit: Limit) -> list[Estimate]:
    """The rows a limit is about. What it does not select is chosen so:

    primary variant, all categories together; every judge and arm but the controls; of a judge's panels the one that speaks
    for it (pairs, anchor, probe, policy); the contrast with the first control arm; the last generation.
    """
    some = [row for row in rows if matches(limit.term, row.term)]
    for name in _SELECTORS:
        pattern = getattr(limit, name)
        if pattern is not None:
            some = [row for row in some if matches(pattern, getattr(row, name))]
    for name in ("variant", "category"):
        if getattr(limit, name) is None:
            some = [row for row in some if getattr(row, name) == ""]
    if limit.judge is None:
        some = [row for row in some if row.judge not in _CONTROLS]
    if limit.arm is None:
        # Strategies are contrasted with one another too; a control is what drift is measured against.
        controls = {row.contrast for row in rows if row.contrast and row.term.startswith("did_")}
        some = [row for row in some if row.arm not in controls]
    if limit.contrast is None:
        first: dict[tuple[str, str], str] = {}
        for row in some:
            first.setdefault((row.term, row.arm), row.contrast)
        some = [row for row in some if row.contrast == first[row.term, row.arm]]
    if limit.panel is None:
        best: dict[tuple[str, str], int] = {}
        for row in some:
            key, place = (row.term, row.judge), _PANELS.get(row.panel, 9)
            best[key] = min(best.get(key, 99), place)
        some = [row for row in some if _PANELS.get(row.panel, 9) == best[row.term, row.judge]]
    return _of_generation(some, limit)


def _of_generation(some: list[Estimate], limit: Limit) -> list[Estimate]:
    if limit.generation == "all":
        return some
    if limit.generation != "last":
        return [row for row in some if row.generation == limit.generation]
    last: dict[tuple[str, ...], int] = {}
    for row in some:
        key = _series(row)
        last[key] = max(last.get(key, -1), -1 if row.generation is None else row.generation)
    return [row for row in some if last[_series(row)] == (-1 if row.generation is None else row.generation)]


def _series(row: Estimate) -> tuple[str, ...]:
    return row.term, row.judge, row.arm, row.contrast, row.panel, row.category, row.variant


def _absent(limit: Limit, rows: Sequence[Estimate]) -> Outcome:
    of_term = [row for row in rows if matches(limit.term, row.term)]
    if not of_term:
        why = f"this folder has no estimate of {limit.term}"
    else:
        asked = (
            ", ".join(f"{key} {value}" for key, value in limit.chosen.items()) or "a judge or arm that is no control"
        )
        lists = []
        for name in ("judge", "arm", "contrast", "panel", "category", "variant", "generation"):
            there = sorted({str(getattr(row, name)) for row in of_term} - {"", "None"})
            if name in limit.chosen and there:
                lists.append(f"{name}s: {', '.join(there[:6])}{', …' if len(there) > 6 else ''}")
        why = f"no estimate of {limit.term} is of {asked}" + (f" ({'; '.join(lists)})" if lists else "")
    return Outcome(limit, "inconclusive" if limit.required else "not_applied", None, None, why)


def _decide(limit: Limit, row: Estimate) -> Outcome:
    if row.unit == "probability":
        _reachable(limit, row)
    known = by_construction.value_of(row.term) if row.method == by_construction.METHOD else None
    if known is not None:
        keeps = (limit.low is None or known >= limit.low) and (limit.high is None or known <= limit.high)
        return Outcome(limit, "passed" if keeps else "exceeded", row, None, row.note)
    if row.status == "undefined" or row.estimate is None:
        why = f"undefined: {row.note or 'no number'}"
        return Outcome(limit, "inconclusive" if limit.required else "not_applied", row, None, why)
    if row.conf_low is None or row.conf_high is None:
        return Outcome(
            limit, "inconclusive", row, None, f"no interval: {row.note or 'this term is described by a test alone'}"
        )
    low, high = limit.low, limit.high
    if row.verdict == "unchanged" and (low is None or low <= 0) and (high is None or high >= 0):
        room = min(abs(bound) for bound in (low, high) if bound is not None)
        return Outcome(
            limit,
            "passed",
            row,
            room,
            "every pair was judged as at generation 0: no change on this panel, which is what is gated",
        )
    # How far each end of the interval keeps clear of its limit, and how far the whole interval is beyond it.
    clear = [row.conf_low - low] if low is not None else []
    clear += [high - row.conf_high] if high is not None else []
    beyond = max(
        -1.0 if low is None else low - row.conf_high, -1.0 if high is None else row.conf_low - high
    )  # fmt: skip
    if min(clear) >= 0:
        return Outcome(limit, "passed", row, min(clear), "the whole interval keeps the limit")
    if (low is not None and row.conf_high < low) or (high is not None and row.conf_low > high):
        return Outcome(
            limit, "exceeded", row, -beyond, f"the whole interval is beyond the limit, by {beyond:.3g} or more"
        )
    return Outcome(limit, "inconclusive", row, min(clear), _straddles(limit, row))


def _straddles(limit: Limit, row: Estimate) -> str:
    assert row.estimate is not None
    distance = min(abs(row.estimate - bound) for bound in (limit.low, limit.high) if bound is not None)
    needed = sample_to_decide(row, distance)
    inside = (limit.low is None or row.estimate >= limit.low) and (limit.high is None or row.estimate <= limit.high)
    said = f"the interval reaches across the limit; the estimate is {'inside' if inside else 'beyond'} it"
    if needed:
        return f"{said}; {needed} would decide it, if the estimate and its spread stay (80 % power)"
    return f"{said}; no sample size can be named, for it stands on the limit or has no spread"


def _reachable(limit: Limit, row: Estimate) -> None:
    for bound in (limit.low, limit.high):
        if bound is not None and abs(bound) > 1:
            raise InvalidInput(
                f"{limit.where}: {row.term} is a probability, so a limit of {bound:g} says nothing; five percentage points are 0.05"
            )
