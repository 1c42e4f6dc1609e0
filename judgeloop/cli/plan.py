"""``judgeloop doctor``, ``plan`` and ``forecast``: what to know before a run is paid for."""

from __future__ import annotations

import json as json_format
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from judgeloop.cli.app import Debug, Quiet, Yes, app, consent, console, print_json, set_debug
from judgeloop.errors import Interrupted

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from judgeloop.commands.doctor import Diagnosis
    from judgeloop.commands.forecast import Forecasts
    from judgeloop.commands.plan import Load, Plan, Range
    from judgeloop.commands.plan_audit import AuditPlan


_STYLES = {"ok": "green", "no": "yellow", "unknown": "dim"}


@app.command()
def doctor(
    base_url: Annotated[
        str | None, typer.Option(help="OpenAI-compatible base URL, as http://127.0.0.1:8000/v1.", show_default=False)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to ask. [default: the only one that is listed]", show_default=False)
    ] = None,
    experiment: Annotated[
        Path | None,
        typer.Option(
            help="Instead of a URL: an experiment file, for its headers, query or engine.", show_default=False
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="Which of its endpoints. [default: the judge's]", show_default=False)
    ] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the key. [default: OPENAI_API_KEY at https://api.openai.com, none elsewhere]",
            show_default=False,
        ),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="The judge prompt to try: a shipped name or a template file.")
    ] = "pairwise",
    max_calls: Annotated[int, typer.Option(help="Most completions to ask; all are short but one.", min=1)] = 80,
    timeout: Annotated[float, typer.Option(help="Seconds until a call counts as unanswered.")] = 60.0,
    context_tokens: Annotated[int, typer.Option(help="Length of the one long prompt.", min=1)] = 3000,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON, for `plan --doctor`.")] = False,
    yes: Yes = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Ask an endpoint what it can do: log-probabilities, JSON schema, seeds, context, limits, how many calls at once; and
    recommend how to judge with it."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.doctor import doctor as doctor_command

    try:
        with views.view(quiet=quiet, lines=False) as view:
            diagnosis = doctor_command(
                base_url, model, experiment=experiment, endpoint=endpoint, api_key_env=api_key_env, prompt=prompt,
                max_calls=max_calls, timeout_s=timeout, context_tokens=context_tokens,
                on_check=lambda check: view.stage(f"{check.name}: {check.state}"), consent=consent(yes),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing is kept, run the same command again") from None
    if json:
        print_json(diagnosis.record())
    elif quiet:
        print(diagnosis.recommended.yaml().rstrip())
    else:
        _show_diagnosis(diagnosis)


def _show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the checks, the server's known oddities, and the blocks to start from."""
    from rich.table import Table
    from rich.text import Text

    named = f"{diagnosis.server.name} {diagnosis.version}".rstrip()
    server = f"looks like {named} (by {diagnosis.recognised_by})" if diagnosis.recognised_by else "unknown server"
    terminal = console()
    terminal.print(Text(f"{diagnosis.base_url}, model {diagnosis.model}", style="bold"))
    terminal.print(Text(f"{server} · {diagnosis.calls} completions in {diagnosis.seconds:.0f} s", style="dim"))
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("", "Check", "Asked, and what came back", "What it means"):
        grid.add_column(title, style="bold" if title == "Check" else "")
    for check in diagnosis.checks:
        asked = Text(f"{check.asked}\n", style="dim")
        asked.append(f"→ {check.came}", style="not dim")
        grid.add_row(Text(check.state, style=_STYLES[check.state]), check.name, asked, Text(check.means))
    terminal.print(grid)
    if diagnosis.server.quirks:
        terminal.print(Text(f"\nKnown of {diagnosis.server.name}", style="bold"))
        for quirk in diagnosis.server.quirks:
            terminal.print(Text(f"- {quirk.check}: {quirk.what}; {quirk.do}"))
    terminal.print(Text("\nRecommended", style="bold"))
    for reason in diagnosis.recommended.why:
        terminal.print(Text(f"- {reason}"))
    terminal.print(Text("\n" + diagnosis.recommended.yaml().rstrip()))


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
    quiet: Quiet = False,
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
    elif quiet:
        print(result.calls)
    else:
        _show_plan(result, console(110))


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


def _show_plan(plan: Plan, terminal: Console) -> None:
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
    _show_positive_controls(plan.power["positive_controls"], terminal)
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


def _show_positive_controls(controls: Sequence[Mapping[str, Any]], terminal: Console) -> None:
    """Print what each arm with a known taste costs, and how far it must drift to show that this run can see."""
    if not controls:
        return
    terminal.print(
        "\nPositive controls: judges with a known taste, which ask no model; seen with 80 % power", style="bold"
    )
    known = any(control["power"] is not None for control in controls)
    grid = _grid()
    for title in ("Arm", "Takes the text with"):
        grid.add_column(title)
    for title in ("calls for it alone", "seen from a drift of", *(["power at the earlier drift"] if known else [])):
        grid.add_column(title, justify="right")
    for control in controls:
        least, doublings, power = control["drift_in_sd"], control["drift"], control["power"]
        size = "–" if least is None else f"{least:.2f} SD" + (f" ({doublings:.2g} doublings)" if doublings else "")
        chance = ["not known" if power is None else f"{100 * power:.0f} %"] if known else []
        taste = f"{control['prefer']} {control['feature'].replace('_', ' ')}"
        grid.add_row(control["arm"], taste, f"{control['calls']:,}", size, *chance)
    terminal.print(grid)


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


_BARS = "▁▂▃▄▅▆▇█"
_GENERATIONS = 6
"""Most generations with a column of their own."""
_LONGEST_SPARKLINE = 24


@app.command()
def forecast(
    folder: Annotated[Path, typer.Argument(help="A folder that audit, analyze or run wrote.")],
    generations: Annotated[int, typer.Option(help="Feedback steps to look ahead.")],
    experiment: Annotated[
        Path | None,
        typer.Option(
            help="The loop to forecast, an experiment file. [default: the run's own; after an audit the default loop under "
            "three strategies]",
            show_default=False,
        ),
    ] = None,
    replicates: Annotated[int, typer.Option(help="Limits for the mean of that many loops.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="Table to write. [default: FOLDER/forecast.csv]", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Forecast the drift if you train on this judge, by feature and generation, with prediction limits; ask no model."""
    set_debug(debug)
    from judgeloop.commands.forecast import forecast as forecast_command

    forecasts = forecast_command(folder, generations, experiment=experiment, replicates=replicates, out=out)
    if json:
        print_json(json_format.loads(forecasts.rows.to_json(orient="records")))
    elif quiet:
        print(forecasts.path)
    else:
        _show_forecasts(forecasts)


def _show_forecasts(forecasts: Forecasts) -> None:
    """Print a table a judge and arm."""
    from rich.text import Text

    terminal = console()
    for fact in forecasts.facts:
        terminal.print(Text(fact, style="dim"))
    for (judge, arm, variant), rows in forecasts.rows.groupby(["judge", "arm", "variant"], sort=False):
        heading = f"{judge}, {arm}" + (", by the first step that was measured" if variant else "")
        terminal.print(Text(f"\n{heading}", style="bold"))
        undefined = rows[rows["status"] == "undefined"]
        if len(undefined):
            terminal.print(Text(f"not known: {undefined['note'].iloc[0]}"))
            continue
        terminal.print(_table(rows))
        terminal.print(Text(str(rows["note"].iloc[0]), style="dim"))
    terminal.print(Text(f"\nTable: {forecasts.path}"))


def _table(rows: pd.DataFrame) -> Table:
    """A row a feature: its drift by generation, the prediction limits at the last, and a sparkline of the path."""
    from rich.table import Table

    last = int(rows["generation"].max())
    generations = sorted({round(1 + k * (last - 1) / (_GENERATIONS - 1)) for k in range(_GENERATIONS)})
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("Drift of")
    for t in generations:
        grid.add_column(f"g{t}", justify="right")
    grid.add_column(f"95 % limits at g{last}", justify="right")
    grid.add_column("Unit", style="dim")
    grid.add_column(f"0 … g{last}", no_wrap=True)
    lowest, highest = min(0.0, float(rows["estimate"].min())), max(0.0, float(rows["estimate"].max()))
    for term, path in rows.groupby("term", sort=False):
        drift = path.sort_values("generation")["estimate"].astype("float64").to_numpy()
        end = path[path["generation"] == last].iloc[0]
        low, high = float(end["conf_low"]), float(end["conf_high"])
        grid.add_row(
            str(term).removeprefix("forecast_drift_"), *(f"{drift[t - 1]:+.2f}" for t in generations),
            f"\\[{low:+.2f}, {high:+.2f}]", str(end["unit"]), sparkline([0.0, *drift], lowest, highest),
            style="bold" if low > 0 or high < 0 else "",
        )  # fmt: skip
    return grid


def sparkline(values: list[float], low: float, high: float) -> str:
    """A bar a value, on the scale from ``low`` to ``high``. Of a long list evenly spaced values, the last among them."""
    if len(values) > _LONGEST_SPARKLINE:
        steps = _LONGEST_SPARKLINE - 1
        values = [values[round(k * (len(values) - 1) / steps)] for k in range(_LONGEST_SPARKLINE)]
    if high - low < 1e-9:
        return _BARS[0] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)
