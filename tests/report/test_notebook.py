"""Results in a notebook: what they show of themselves, their figures, and the example notebook, executed."""

from __future__ import annotations

import asyncio
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

import judgeloop
import report_folder
from conftest import small_experiment, tables, write_experiment
from judgeloop.report import page
from judgeloop.serving.faults import Faults, Rule
from judgeloop.stats.estimate import Estimate

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"
BAD = "<script>document.title='PWNED'</script>"


def cells(path: Path = NOTEBOOK) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


def words(fragment: str) -> str:
    return html.unescape(re.sub(r"<[^>]+>", " ", fragment))


def test_a_run_shows_its_headline_estimates_with_intervals(tmp_path: Path) -> None:
    run = judgeloop.open(report_folder.write(tmp_path / "demo").path)
    shown = run._repr_html_()
    rows = re.findall(r"<tr><td.*?</tr>", shown)
    drift = next(words(row) for row in rows if "did_length" in row)
    row = run.estimates.query("term == 'did_length' and contrast == 'random' and generation == 3").iloc[0]
    assert f"+{row['estimate']:.2f} doublings" in drift
    assert f"{row['conf_low']:.2f} to {row['conf_high']:.2f}" in drift
    assert "judge against random, generation 3" in " ".join(drift.split())
    assert drift.split()[-1] == "Found"
    assert "95\u00a0% interval" in shown
    assert "undefined" in words(next(row for row in rows if "compounding_style_score" in row))
    assert repr(run) == f"Run({str(run.path)!r})"
    assert "<script" not in shown
    assert "<style" not in shown


def test_hostile_names_are_text(tmp_path: Path) -> None:
    more = [Estimate(
        scope="judge", bias="position", term="first_slot_excess", judge=BAD, panel="anchor", generation=0, estimate=0.1,
        conf_low=0.05, conf_high=0.2, conf_level=0.95, n=9, unit="probability", note=BAD, category="",
    )]  # fmt: skip
    run = judgeloop.open(report_folder.write(tmp_path / "bad", rows=more, name="x", judge=BAD, reason=BAD).path)
    shown = run._repr_html_()
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown
    assert page.notebook_fragment(BAD, [("Arms", BAD)], []).count("<script") == 0


def test_an_analysis_shows_its_judges(tmp_path: Path) -> None:
    verdicts = pd.DataFrame(
        [(f"i{n}", judge, order, "first") for n in range(30) for order in ("ab", "ba") for judge in ("one", BAD)],
        columns=["item_id", "judge", "order", "verdict"],
    )
    done = judgeloop.analyze(verdicts, out=tmp_path / "log")
    shown = done._repr_html_()
    assert shown.count("first_slot_excess") == 2
    assert "100.0 % (even: 50 %)" in words(shown).replace("\u00a0", " ")
    assert "<script" not in shown
    assert repr(done).startswith("Audit(")


def test_figures_are_those_of_the_plotting_library(tmp_path: Path) -> None:
    run = judgeloop.open(report_folder.write(tmp_path / "demo").path)
    figures = run.figures
    assert all(isinstance(figure, go.Figure) for figure in figures.values())
    drawn = figures["drift/Length"]
    drift = run.estimates.query("term == 'drift_length' and arm == 'judge'")["estimate"].tolist()
    assert len(drift) == 3
    assert [0, *drift] in [list(trace.y) for trace in drawn.data]
    assert "@" not in json.dumps([drawn.layout.paper_bgcolor, drawn.layout.font.color])


def test_a_report_goes_where_it_is_wanted(tmp_path: Path) -> None:
    run = judgeloop.open(report_folder.write(tmp_path / "demo").path)
    assert run.to_html(tmp_path / "mine.html") == tmp_path / "mine.html"
    assert (tmp_path / "mine.html").read_text(encoding="utf-8").startswith("<!doctype html>")


@pytest.mark.pages
@pytest.mark.tables
@pytest.mark.at_hand
def test_a_run_works_where_a_loop_runs_already(tmp_path: Path, serve: Callable[..., Any]) -> None:
    """As in a notebook's cell."""
    path = write_experiment(tmp_path / "in", small_experiment(serve().base_url, generations=1, replicates=1))

    async def cell() -> judgeloop.Run:
        return judgeloop.run(path, out=tmp_path / "cell")

    plain = judgeloop.run(path, out=tmp_path / "plain", report=False)
    assert tables(asyncio.run(cell()).path) == tables(plain.path)
    assert [(tmp_path / name / "report.html").exists() for name in ("cell", "plain")] == [True, False]
    assert plain.settings["asked"]["generations"] == 1
    assert plain.settings["seed"] == 0


@pytest.mark.slow
def test_the_stop_button_ends_the_run_and_the_same_cell_resumes(tmp_path: Path, serve: Callable[..., Any]) -> None:
    slow = serve(faults=Faults(rules=(Rule(kind="slow", delay_s=0.05, times="always"),)))
    path = write_experiment(tmp_path / "in", small_experiment(slow.base_url, generations=1, replicates=1))

    async def cell() -> judgeloop.Run:
        return judgeloop.run(path, out=tmp_path / "cell")

    def press() -> None:
        while sum(slow.asked.values()) < 20:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    loop, before = asyncio.new_event_loop(), signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(cell())
    finally:
        signal.signal(signal.SIGINT, before)
        loop.close()
    assert not (tmp_path / "cell" / "estimates.parquet").exists()
    assert (asyncio.run(cell()).path / "estimates.parquet").is_file()
    assert max(slow.asked.values()) <= 2  # what was under way when the button was pressed is asked again


# -- the example ---------------------------------------------------------------------------------------------------------


def test_the_example_is_kept_without_outputs() -> None:
    for cell in cells():
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": sys.argv[2]}}).execute()
nbformat.write(notebook, sys.argv[3])
"""


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    """In a kernel of its own, in a copy of the project's example and fixture."""
    shutil.copytree(ROOT / "fixtures" / "quickstart", tmp_path / "fixtures" / "quickstart")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    home = {name: str(tmp_path / "home") for name in ("HOME", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(tmp_path / "examples" / NOTEBOOK.name), str(tmp_path / "examples"), str(tmp_path / "done.ipynb")],
        env={**os.environ, **home}, capture_output=True, text=True, timeout=400, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [output for cell in cells(tmp_path / "done.ipynb") for output in cell.get("outputs", [])]
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} == {"stdout"}  # no warning
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("application/vnd.plotly.v1+json") == 2
    shown = "".join("".join(output.get("data", {}).get("text/html", [])) for output in outputs)
    assert "first_slot_excess" in shown
    assert "93.8 % (even: 50 %)" in words(shown).replace("\u00a0", " ")  # as in the README
    assert (tmp_path / "runs" / "notebook.html").is_file()
