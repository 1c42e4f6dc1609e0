"""The report of a run folder: report.html, report.md, report.json and the one-screen summary. No network."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from judgeloop.report import (
    cases,
    document,
    first_screen,
    judge_figures,
    loop_figures,
    model_figures,
    rated_figures,
    text,
)
from judgeloop.report.claims import Finding
from judgeloop.report.figure import Figure, resolved
from judgeloop.report.findings import findings
from judgeloop.report.judge_figures import mitigation_tables
from judgeloop.report.reading import Reading, read
from judgeloop.report.tables import (
    Table,
    amplification_table,
    contrast_table,
    drift_table,
    forecast_table,
    judge_table,
    judges_compared,
    unscored_reasons,
)
from judgeloop.report.tables import facts as overview_facts
from judgeloop.report.tables import tables as rated_tables
from judgeloop.rundir import Record, RunFolder
from judgeloop.stats.estimate import Estimate

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from rich.console import Group

__all__ = ["Finding", "ReportPaths", "figures", "findings", "html", "renderable", "summary", "write", "write_html"]


@dataclass(frozen=True, slots=True)
class ReportPaths:
    """Where the report was written."""

    html: Path
    markdown: Path
    json: Path


def write(run: RunFolder) -> ReportPaths:
    """Write report.html, report.md and report.json into the run folder, from the folder alone; the same folder gives the
    same bytes. Raises FolderMismatch where the run has no estimates, StorageFailed where it cannot be written."""
    reading = read(run)
    every, facts = findings(reading.estimates), overview_facts(reading)
    judge, model = _tables(reading)
    return ReportPaths(
        html=run.write_text("report.html", _page(reading, every, facts)),
        markdown=run.write_text("report.md", text.render_markdown(reading, facts, every, [*model, *judge])),
        json=run.write_text("report.json", document.render(reading, facts, every)),
    )


def html(run: Record) -> str:
    """The self-contained page as text."""
    reading = read(run)
    return _page(reading, findings(reading.estimates), overview_facts(reading))


def write_html(run: Record, path: Path) -> Path:
    """Write the self-contained page to a file of your choice."""
    target = Path(path)
    return RunFolder(target.parent).write_text(target.name, html(run))


def renderable(run: Record) -> Group:
    """The one-screen summary for a rich console."""
    reading = read(run)
    judge = judge_table(reading)
    tables = [drift_table(reading), contrast_table(reading), judge]
    return text.render_terminal(
        reading, overview_facts(reading), findings(reading.estimates), [table for table in tables if table]
    )


def summary(run: Record, width: int = 100) -> str:
    """The one-screen summary as plain text."""
    return text.as_text(renderable(run), width)


def figures(run: Record, *, dark: bool = False) -> dict[str, go.Figure]:
    """Every plot of the report as a Plotly figure, by ``<figure>/<panel's title>``; a lone panel by the figure's name."""
    import plotly.graph_objects as go

    sections = _figures(read(run))
    return {
        f"{figure.name}/{panel.title}" if len(figure.panels) > 1 else figure.name: go.Figure(
            resolved(panel.spec, dark=dark)
        )
        for section in sections.values()
        for figure in section
        for panel in figure.panels
    }


def _page(reading: Reading, every: Sequence[Finding], facts: Sequence[tuple[str, str]]) -> str:
    from judgeloop.report import page  # reads plotly.js, which the summary does not need

    judge, model = _tables(reading)
    first = first_screen.figures(reading, every)
    drawn = {**_figures(reading, [row for figure in first for row in figure.rows]), "glance": first}
    return page.report_page(reading, facts, every, {"judge": judge, "model": model}, drawn, cases.groups(reading))


def _figures(reading: Reading, drawn: Collection[Estimate] = ()) -> Mapping[str, Sequence[Figure]]:
    """The figures by section. ``drawn``: what the first screen shows already."""
    figures = model_figures.figures(reading, drawn)
    # Drift first, then how it came about, then the rest.
    drift = [figure for figure in figures if figure.name.startswith("drift")]
    rest = [figure for figure in figures if not figure.name.startswith("drift")]
    judge = [*judge_figures.figures(reading, drawn), *rated_figures.figures(reading)]
    return {"judge": judge, "model": [*drift, *loop_figures.figures(reading), *rest]}


def _tables(reading: Reading) -> tuple[list[Table], list[Table]]:
    judge = [judge_table(reading), judges_compared(reading)]
    judge += [*mitigation_tables(reading), unscored_reasons(reading)]
    judge += rated_tables(reading)
    model = [drift_table(reading), contrast_table(reading), amplification_table(reading), forecast_table(reading)]
    return [table for table in judge if table], [table for table in model if table]
