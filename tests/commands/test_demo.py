"""The demonstration: a recorded run's report, made of the tables that ship with judgeloop."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import pandas as pd
import pytest

import judgeloop
from command_line import command
from judgeloop.errors import FolderMismatch
from judgeloop.rundir import TABLES, RunFolder

QUICKSTART = Path(__file__).parents[2] / "fixtures" / "quickstart"


@pytest.mark.pages
def test_the_demo_opens_the_report_of_the_shipped_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    page = tmp_path / "runs" / "demo" / "report.html"
    assert command("demo", "-q") == 0
    assert (capsys.readouterr().out, opened) == ("runs/demo/report.html\n", [page.as_uri()])
    written = page.stat().st_mtime_ns
    assert command("demo", "--no-browser") == 0
    assert "quickstart" in capsys.readouterr().out
    assert len(opened) == 1
    assert page.stat().st_mtime_ns == written
    run = judgeloop.open("runs/demo")
    shipped = RunFolder(QUICKSTART / "run")
    for name in TABLES:
        pd.testing.assert_frame_equal(run.folder.table(name), shipped.table(name))


def test_another_run_s_folder_is_not_the_demo_s(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claim("sha256:other"):
        folder.write_json("environment.json", {"experiment_hash": "sha256:other"})
        folder.write_part("judgments", "run", RunFolder(QUICKSTART / "run").table("judgments"))
    with pytest.raises(FolderMismatch):
        judgeloop.demo(folder.path)
