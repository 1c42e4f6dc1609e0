"""``judgeloop forecast``."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judgeloop.cli.app import Debug, app, console, print_json, set_debug

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

    from judgeloop.commands.forecast import Forecasts

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
    debug: Debug = False,
) -> None:
    """Forecast the drift if you train on this judge, by feature and generation, with prediction limits; ask no model."""
    set_debug(debug)
    from judgeloop.commands.forecast import forecast as forecast_command

    forecasts = forecast_command(folder, generations, experiment=experiment, replicates=replicates, out=out)
    if json:
        print_json(json_format.loads(forecasts.rows.to_json(orient="records")))
    else:
        _show(forecasts)


def _show(forecasts: Forecasts) -> None:
    """Print a table a judge and arm."""
    from rich.text import Text

    terminal = console()
    for fact in forecasts.facts:
        terminal.print(Text(fact, style="dim"))
    for names, rows in forecasts.rows.groupby(["judge", "arm"], sort=False):
        terminal.print(Text("\n" + ", ".join(str(name) for name in names), style="bold"))
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
