"""What ``judgeloop audit --plan`` prints."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from judgeloop.commands.plan_audit import AuditPlan


def show(made: AuditPlan, *, as_json: bool = False) -> None:
    """The plan on one screen, or as JSON."""
    if as_json:
        print(json.dumps(made.record(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    from judgeloop.cli.plan import duration, show_loads

    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    console.print(f"Plan of {made.name}", style="bold", markup=False)
    show_loads(made.loads, made.cost, console)
    if made.recorded:
        console.print(f"Of these {made.recorded:,} are answered already, and not asked again.", markup=False)
    if made.speed is not None and made.seconds is not None:
        left = " for what is left" if made.recorded else ""
        console.print(
            f"Time: {duration(made.seconds)}{left} at {made.speed[0]:.3g} calls a second, {made.speed[1]}", markup=False
        )
    else:
        console.print(
            f"Time: {duration(made.seconds_a_second)} for every second that a call takes, at this --concurrency; "
            "--calls-per-second says it outright",
            markup=False,
        )
    if made.power:
        _show_power(made.power, console)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)


def _show_power(found: Mapping[str, Any], console: Console) -> None:
    from rich.table import Table

    rates = sorted({row["conflict_rate"] for row in found["position"]})
    console.print("\nPairs, one an item and in both orders, for 80 % power (two-sided 5 %)", style="bold")
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("An effect of", no_wrap=True)
    for rate in rates:
        own = " (yours)" if rate == found["conflict_rate"] else ""
        grid.add_column(f"first slot, if {100 * rate:.3g} % flip{own}", justify="right")
    grid.add_column("length, a doubling", justify="right")
    lengths = {row["effect"]: row["pairs"] for row in found["length"]}
    for effect, cells in _rows(found["position"], "effect"):
        own = " (yours)" if effect == found["effect"] else ""
        grid.add_row(
            f"{100 * effect:.3g} points{own}", *(_count(cells[rate]) for rate in rates), _count(lengths[effect])
        )
    for margin, cells in _rows(found["equivalence"], "margin"):
        grid.add_row(f"none, within ±{100 * margin:.2g} points", *(_count(cells[rate]) for rate in rates), "")
    seen = {row["conflict_rate"]: row["effect"] for row in found["found"]["position"]}
    length = found["found"]["length"]
    grid.add_row(
        f"these {found['pairs']:,} find", *(_points(seen[rate]) for rate in rates), _points(length), style="bold"
    )
    console.print(grid)
    console.print(
        f"First slot: beyond half. A probe is as the first slot, with texts for pairs. Length: chance of being picked, at equal "
        f"quality (gold) and with the spread of these pairs' lengths, {found['length_sd']:.2g} doublings; more where length "
        "goes with style or quality.",
        style="dim", markup=False,
    )  # fmt: skip


def _rows(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, dict[float, int | None]]]:
    """Value of ``key`` → pairs by conflict rate."""
    values = dict.fromkeys(row[key] for row in rows)
    return [(value, {row["conflict_rate"]: row["pairs"] for row in rows if row[key] == value}) for value in values]


def _count(pairs: int | None) -> str:
    return "not possible" if pairs is None else f"{pairs:,}"


def _points(effect: float | None) -> str:
    return "nothing" if effect is None else f"{100 * effect:.2g} points"
