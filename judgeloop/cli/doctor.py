"""``judgeloop doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from judgeloop.cli.app import Debug, app, console, print_json, set_debug
from judgeloop.errors import Interrupted

if TYPE_CHECKING:
    from judgeloop.commands.doctor import Diagnosis

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
        typer.Option(help="Environment variable with the key. [default: OPENAI_API_KEY, if set]", show_default=False),
    ] = None,
    prompt: Annotated[
        str, typer.Option(help="The judge prompt to try: a shipped name or a template file.")
    ] = "pairwise",
    max_calls: Annotated[int, typer.Option(help="Most completions to ask; all are short but one.", min=1)] = 80,
    timeout: Annotated[float, typer.Option(help="Seconds until a call counts as unanswered.")] = 60.0,
    context_tokens: Annotated[int, typer.Option(help="Length of the one long prompt.", min=1)] = 3000,
    json: Annotated[bool, typer.Option("--json", help="Print the diagnosis as JSON, for `plan --doctor`.")] = False,
    debug: Debug = False,
) -> None:
    """Ask an endpoint what it can do: log-probabilities, JSON schema, seeds, context, limits, how many calls at once; and
    recommend how to judge with it."""
    set_debug(debug)
    from judgeloop.cli import views
    from judgeloop.commands.doctor import doctor as doctor_command

    try:
        with views.view(lines=False) as view:
            diagnosis = doctor_command(
                base_url, model, experiment=experiment, endpoint=endpoint, api_key_env=api_key_env, prompt=prompt,
                max_calls=max_calls, timeout_s=timeout, context_tokens=context_tokens,
                on_check=lambda check: view.stage(f"{check.name}: {check.state}"),
            )  # fmt: skip
    except KeyboardInterrupt:
        raise Interrupted("interrupted; nothing is kept, run the same command again") from None
    if json:
        print_json(diagnosis.record())
    else:
        _show(diagnosis)


def _show(diagnosis: Diagnosis) -> None:
    """Print the checks, the server's known oddities, and the blocks to start from."""
    from rich.table import Table
    from rich.text import Text

    server = f"{diagnosis.server.name} (by {diagnosis.told_by})" if diagnosis.told_by else "unknown server"
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
