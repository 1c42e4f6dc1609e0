"""``judgeloop plan``."""

from __future__ import annotations

import json
import json as json_format
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judgeloop.cli.app import Debug, app, remember

if TYPE_CHECKING:
    from rich.console import Console

    from judgeloop.commands.plan import Load, Plan, Range
    from judgeloop.commands.plan_audit import AuditPlan


@app.command()
def plan(
    experiment: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="An earlier run's folder: its replies say tokens a call, calls a second, and how much things vary.",
            show_default=False,
        ),
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(help="How fast the endpoint answers; for the time.", show_default=False)
    ] = None,
    doctor: Annotated[
        Path | None, typer.Option(help="The same, from what `judgeloop doctor --json` wrote.", show_default=False)
    ] = None,
    answer_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens of a usual draft. [default: half of max_tokens]", min=1, show_default=False),
    ] = None,
    effect: Annotated[
        float | None, typer.Option(help="A position effect to find, in probability, as 0.04.", show_default=False)
    ] = None,
    conflict: Annotated[
        float | None,
        typer.Option(help="Share of pairs whose verdict changes with the order, as 0.4.", show_default=False),
    ] = None,
    drift: Annotated[
        float | None, typer.Option(help="A drift of length to find, in doublings.", show_default=False)
    ] = None,
    drift_sd: Annotated[
        float | None, typer.Option(help="Its standard deviation between replicates.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Calls, tokens, cost and time of an experiment, and the pairs and replicates that an effect takes; ask no model."""
    remember(debug)
    from rich.console import Console

    from judgeloop.commands.plan import plan as plan_command

    made = plan_command(
        experiment, run=run, calls_per_second=calls_per_second, doctor=doctor, answer_tokens=answer_tokens,
        effect=effect, conflict=conflict, drift=drift, drift_sd=drift_sd,
    )  # fmt: skip
    if json:
        print(json_format.dumps(made.record(), indent=1, ensure_ascii=False))
        return
    _show(made, Console(width=None if sys.stdout.isatty() else 110, highlight=False))


def show_loads(loads: Sequence[Load], cost: Range | None, console: Console) -> None:
    """Calls, tokens and cost, a row a kind of call, and their sums."""
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("What", "Endpoint"):
        grid.add_column(title, style="dim" if title == "Endpoint" else "")
    for title in ("Calls", "Prompt tokens", "Reply tokens", "USD"):
        grid.add_column(title, justify="right")
    for load in loads:
        grid.add_row(
            load.what, load.endpoint, f"{load.calls:,}", tokens(load.prompt), tokens(load.completion), usd(load.cost)
        )
    prompt, completion = (
        sum((getattr(load, part) for load in loads[1:]), getattr(loads[0], part)) for part in ("prompt", "completion")
    )  # fmt: skip
    calls = sum(load.calls for load in loads)
    grid.add_row("in all", "", f"{calls:,}", tokens(prompt), tokens(completion), usd(cost), style="bold")
    console.print(grid)
    basis = sorted({load.basis for load in loads if load.calls})
    console.print(f"Tokens: {'; '.join(basis)}. likely (lowest to highest to reckon with)", style="dim", markup=False)


def _show(made: Plan, console: Console) -> None:
    """The plan on one screen."""
    console.print(f"Plan of {made.name}", style="bold", markup=False)
    show_loads(made.loads, made.cost, console)
    if made.speed is not None and made.seconds is not None:
        console.print(
            f"Time: {duration(made.seconds)} at {made.speed.calls_per_second:.3g} calls a second, {made.speed.source}"
        )
    else:
        console.print(
            "Time: not known; give --calls-per-second, --doctor FILE (doctor --json) or --run of an earlier run"
        )
    _show_power(made, console)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)


def _show_power(made: Plan, console: Console) -> None:
    from rich.table import Table

    found = made.power
    rates = sorted({row["conflict_rate"] for row in found["pairs"]})
    console.print("\nPairs, each in both orders, one an item, for 80 % power (two-sided 5 %)", style="bold")
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("First slot, beyond half", no_wrap=True)
    for rate in rates:
        own = " (yours)" if rate == found["conflict_rate"] else ""
        grid.add_column(f"conflict rate {rate:.2g}{own}", justify="right")
    for effect in dict.fromkeys(row["effect"] for row in found["pairs"]):
        cells = {row["conflict_rate"]: row["pairs"] for row in found["pairs"] if row["effect"] == effect}
        grid.add_row(f"{100 * effect:.3g} points", *(f"{cells[r]:,}" if cells[r] else "not possible" for r in rates))
    for margin in dict.fromkeys(row["margin"] for row in found["equivalence"]):
        cells = {row["conflict_rate"]: row["pairs"] for row in found["equivalence"] if row["margin"] == margin}
        grid.add_row(f"none, within ±{100 * margin:.2g} points", *(f"{cells[rate]:,}" for rate in rates))
    if found["anchor_pairs"]:
        seen = {row["conflict_rate"]: row["effect"] for row in found["anchor_detects"]}
        cells = {rate: f"{100 * seen[rate]:.2g} points" if seen[rate] else "nothing" for rate in rates}
        grid.add_row(f"this panel's {found['anchor_pairs']:,} find", *cells.values(), style="bold")
    console.print(grid)
    sd = found["drift_sd"]
    console.print(
        "\nReplicates, and the smallest drift beyond a control (D_T) that they find with 80 % power", style="bold"
    )
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("Replicates")
    grid.add_column("in SDs between replicates", justify="right")
    if sd:
        grid.add_column(f"length, in doublings (SD {sd:.2g})", justify="right")
    for row in found["replicates"]:
        extra = [f"{row['drift']:.2g}"] if sd else []
        grid.add_row(str(row["replicates"]), f"{row['drift_in_sd']:.2f}", *extra)
    console.print(grid)
    if needs := found.get("drift_needs"):
        console.print(
            f"A drift of {needs['drift']:g} at SD {needs['drift_sd']:.2g} takes {needs['replicates']} replicates."
        )


def tokens(found: Range) -> str:
    """A number of tokens with its range."""
    low, likely, high = (_short(value) for value in (found.low, found.likely, found.high))
    return likely if low == likely == high else f"{likely} ({low} to {high})"


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:.0f}"


def usd(cost: Range | None) -> str:
    """A cost with its range."""
    if cost is None:
        return "not known"
    low, likely, high = (f"{value:,.2f}" for value in (cost.low, cost.likely, cost.high))
    return likely if low == likely == high else f"{likely} ({low} to {high})"


def duration(seconds: float) -> str:
    """A wall time."""
    if seconds < 120:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


# What ``judgeloop audit --plan`` prints.


def show_audit(made: AuditPlan, *, as_json: bool = False) -> None:
    """The plan on one screen, or as JSON."""
    if as_json:
        print(json.dumps(made.record(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

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
        _show_audit_power(made.power, console)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)


def _show_audit_power(found: Mapping[str, Any], console: Console) -> None:
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
