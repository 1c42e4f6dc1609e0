"""``judgeloop plan``, and what ``judgeloop audit --plan`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judgeloop.cli.app import Debug, app, console, print_json, set_debug

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from judgeloop.commands.plan import Load, Plan, Range
    from judgeloop.commands.plan_audit import AuditPlan


@app.command()
def plan(
    experiment: Annotated[Path, typer.Argument(help="The experiment, a YAML file.")],
    run: Annotated[
        Path | None,
        typer.Option(
            help="An earlier run's folder, for its tokens a call, calls a second, conflict rate and spread of drifts.",
            show_default=False,
        ),
    ] = None,
    calls_per_second: Annotated[
        float | None, typer.Option(help="Calls a second that the endpoint answers; for the time.", show_default=False)
    ] = None,
    doctor: Annotated[
        Path | None,
        typer.Option(help="The same, from a file that `judgeloop doctor --json` wrote.", show_default=False),
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
    """Count calls, tokens, cost and time of an experiment, and the pairs and replicates that an effect takes; ask no model."""
    set_debug(debug)
    from judgeloop.commands.plan import plan as plan_command

    result = plan_command(
        experiment, run=run, calls_per_second=calls_per_second, doctor=doctor, answer_tokens=answer_tokens,
        effect=effect, conflict=conflict, drift=drift, drift_sd=drift_sd,
    )  # fmt: skip
    if json:
        print_json(result.record())
    else:
        _show(result, console(110))


def show_loads(loads: Sequence[Load], cost: Range | None, terminal: Console) -> None:
    """Print calls, tokens and cost, a row a kind of call, and their sums."""
    grid = _grid()
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
    terminal.print(grid)
    basis = sorted({load.basis for load in loads if load.calls})
    terminal.print(
        f"Tokens: {'; '.join(basis)}; each likely (lowest to highest to reckon with)", style="dim", markup=False
    )


def _show(plan: Plan, terminal: Console) -> None:
    """Print the plan on one screen."""
    terminal.print(f"Plan of {plan.name}", style="bold", markup=False)
    show_loads(plan.loads, plan.cost, terminal)
    if plan.speed is not None and plan.seconds is not None:
        terminal.print(
            f"Time: {duration(plan.seconds)} at {plan.speed.calls_per_second:.3g} calls a second, {plan.speed.source}"
        )
    else:
        terminal.print(
            "Time: not known; give --calls-per-second, --doctor FILE (doctor --json) or --run of an earlier run"
        )
    _show_pairs(plan.power, terminal)
    _show_replicates(plan.power, terminal)
    for note in plan.notes:
        terminal.print(f"Note: {note}", markup=False)


def _show_pairs(power: Mapping[str, Any], terminal: Console) -> None:
    """Print the pairs that a position effect takes, by its size and the conflict rate."""
    rates = sorted({row["conflict_rate"] for row in power["pairs"]})
    terminal.print("\nPairs, each in both orders, one an item, for 80 % power (two-sided 5 %)", style="bold")
    grid = _grid()
    grid.add_column("First slot picked", no_wrap=True)
    for rate in rates:
        own = " (yours)" if rate == power["conflict_rate"] else ""
        grid.add_column(f"conflict rate {rate:.2g}{own}", justify="right")
    for effect, counts in _counts(power["pairs"], "effect"):
        grid.add_row(f"{_share(effect)} (even: 50 %)", *(_count(counts[rate]) for rate in rates))
    for margin, counts in _counts(power["equivalence"], "margin"):
        grid.add_row(f"50 %, to within ±{100 * margin:.2g} points", *(_count(counts[rate]) for rate in rates))
    if power["anchor_pairs"]:
        effects = {row["conflict_rate"]: row["effect"] for row in power["anchor_detects"]}
        grid.add_row(
            f"this panel's {power['anchor_pairs']:,} find",
            *(_share(effects[rate]) for rate in rates),
            style="bold",
        )
    terminal.print(grid)


def _show_replicates(power: Mapping[str, Any], terminal: Console) -> None:
    """Print the smallest drift that so many replicates find."""
    sd = power["drift_sd"]
    terminal.print(
        "\nReplicates, and the smallest drift beyond a control (D_T) that they find with 80 % power", style="bold"
    )
    grid = _grid()
    grid.add_column("Replicates")
    grid.add_column("in SDs between replicates", justify="right")
    if sd:
        grid.add_column(f"length, in doublings (SD {sd:.2g})", justify="right")
    for row in power["replicates"]:
        doublings = [f"{row['drift']:.2g}"] if sd else []
        grid.add_row(str(row["replicates"]), f"{row['drift_in_sd']:.2f}", *doublings)
    terminal.print(grid)
    if needs := power.get("drift_needs"):
        terminal.print(
            f"A drift of {needs['drift']:g} at SD {needs['drift_sd']:.2g} takes {needs['replicates']} replicates."
        )


def show_audit(plan: AuditPlan, *, as_json: bool = False) -> None:
    """Print the plan of an audit on one screen, or as JSON."""
    if as_json:
        print_json(plan.record())
        return
    terminal = console(110)
    terminal.print(f"Plan of {plan.name}", style="bold", markup=False)
    show_loads(plan.loads, plan.cost, terminal)
    if plan.recorded:
        terminal.print(f"Of these {plan.recorded:,} are answered already, and not asked again.", markup=False)
    if plan.speed is not None and plan.seconds is not None:
        left = " for what is left" if plan.recorded else ""
        terminal.print(
            f"Time: {duration(plan.seconds)}{left} at {plan.speed[0]:.3g} calls a second, {plan.speed[1]}", markup=False
        )
    else:
        terminal.print(
            f"Time: {duration(plan.seconds_a_second)} for every second that a call takes, at this --concurrency; give "
            "--calls-per-second for a time",
            markup=False,
        )
    if plan.power:
        _show_audit_pairs(plan.power, terminal)
    for note in plan.notes:
        terminal.print(f"Note: {note}", markup=False)


def _show_audit_pairs(power: Mapping[str, Any], terminal: Console) -> None:
    """Print the pairs that effects of position and length take, and what these pairs find."""
    rates = sorted({row["conflict_rate"] for row in power["position"]})
    terminal.print("\nPairs, one an item and in both orders, for 80 % power (two-sided 5 %)", style="bold")
    grid = _grid()
    grid.add_column("An effect of", no_wrap=True)
    for rate in rates:
        own = " (yours)" if rate == power["conflict_rate"] else ""
        grid.add_column(f"first slot, if {100 * rate:.3g} % flip{own}", justify="right")
    grid.add_column("length, a doubling", justify="right")
    lengths = {row["effect"]: row["pairs"] for row in power["length"]}
    for effect, counts in _counts(power["position"], "effect"):
        own = " (yours)" if effect == power["effect"] else ""
        grid.add_row(
            f"{100 * effect:.3g} points{own}", *(_count(counts[rate]) for rate in rates), _count(lengths[effect])
        )
    for margin, counts in _counts(power["equivalence"], "margin"):
        grid.add_row(f"none, within ±{100 * margin:.2g} points", *(_count(counts[rate]) for rate in rates), "")
    effects = {row["conflict_rate"]: row["effect"] for row in power["found"]["position"]}
    length = power["found"]["length"]
    grid.add_row(
        f"these {power['pairs']:,} find", *(_detectable(effects[rate]) for rate in rates), _detectable(length),
        style="bold",
    )  # fmt: skip
    terminal.print(grid)
    terminal.print(
        "First slot: how much more often than in half of the judgments it is picked; a probe likewise, with texts for pairs. "
        f"Length: chance of being picked, at equal quality (gold) and with the spread of these pairs' lengths, "
        f"{power['length_sd']:.2g} doublings; it takes more where length goes with style or quality.",
        style="dim", markup=False,
    )  # fmt: skip


def _grid() -> Table:
    """A table without lines."""
    from rich.table import Table

    return Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))


def _counts(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, dict[float, int | None]]]:
    """Value of ``key`` → pairs by conflict rate."""
    values = dict.fromkeys(row[key] for row in rows)
    return [(value, {row["conflict_rate"]: row["pairs"] for row in rows if row[key] == value}) for value in values]


def _count(pairs: int | None) -> str:
    return "not possible" if pairs is None else f"{pairs:,}"


def _detectable(effect: float | None) -> str:
    """The smallest effect that is found, in points."""
    return "nothing" if effect is None else f"{100 * effect:.2g} points"


def _share(effect: float | None) -> str:
    """How often the first slot is picked with this effect."""
    return "nothing" if effect is None else f"{50 + 100 * effect:.3g} %"


def tokens(count: Range) -> str:
    """A number of tokens with its range."""
    low, likely, high = (_short(value) for value in (count.low, count.likely, count.high))
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
