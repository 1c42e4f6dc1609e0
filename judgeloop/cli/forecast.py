"""``judgeloop forecast``."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judgeloop.cli.app import Debug, app, remember

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from judgeloop.commands.forecast import Forecasts

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN = 6
_SPARKS = 24


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
    """The drift to expect if you train on this judge, per feature and generation, with prediction limits; ask no model."""
    remember(debug)
    from rich.console import Console

    from judgeloop.commands.forecast import forecast as forecast_command

    made = forecast_command(folder, generations, experiment=experiment, replicates=replicates, out=out)
    if json:
        print(json_format.dumps(json_format.loads(made.rows.to_json(orient="records")), indent=1, ensure_ascii=False))
        return
    _show(made, Console(width=None if sys.stdout.isatty() else 120, highlight=False))


def _show(made: Forecasts, console: Console) -> None:
    """A table a judge and arm: drift by generation, the limits at the last, and how it goes."""
    from rich.text import Text

    rows = made.rows
    for fact in made.facts:
        console.print(Text(fact, style="dim"))
    for whose, some in rows.groupby(["judge", "arm"], sort=False):
        console.print(Text("\n" + ", ".join(str(name) for name in whose), style="bold"))
        lost = some[some["status"] == "undefined"]
        if len(lost):
            console.print(Text(f"not known: {lost['note'].iloc[0]}"))
            continue
        console.print(_grid(some))
        console.print(Text(str(some["note"].iloc[0]), style="dim"))
    console.print(Text(f"\nTable: {made.path}"))


def _grid(some: pd.DataFrame) -> object:
    from rich.table import Table

    last = int(some["generation"].max())
    shown = sorted({round(1 + k * (last - 1) / (_SHOWN - 1)) for k in range(_SHOWN)})
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    grid.add_column("Drift of")
    for t in shown:
        grid.add_column(f"g{t}", justify="right")
    grid.add_column(f"95 % limits at g{last}", justify="right")
    grid.add_column("Unit", style="dim")
    grid.add_column(f"0 … g{last}", no_wrap=True)
    lowest, highest = min(0.0, float(some["estimate"].min())), max(0.0, float(some["estimate"].max()))
    for term, path in some.groupby("term", sort=False):
        drift = path.sort_values("generation")["estimate"].astype("float64").to_numpy()
        end = path[path["generation"] == last].iloc[0]
        low, high = float(end["conf_low"]), float(end["conf_high"])
        grid.add_row(
            str(term).removeprefix("forecast_drift_"), *(f"{drift[t - 1]:+.2f}" for t in shown),
            f"\\[{low:+.2f}, {high:+.2f}]", str(end["unit"]), sparkline([0.0, *drift], lowest, highest),
            style="bold" if low > 0 or high < 0 else "",
        )  # fmt: skip
    return grid


def sparkline(values: list[float], low: float, high: float) -> str:
    """A bar a value, on the scale from ``low`` to ``high``; long lists keep evenly spaced values, the last among them."""
    if len(values) > _SPARKS:
        values = [values[round(k * (len(values) - 1) / (_SPARKS - 1))] for k in range(_SPARKS)]
    if high - low < 1e-9:
        return _BARS[0] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)
