"""The live report: what a run has finished is estimated as a shorter run would be, and served while the run goes on."""

from __future__ import annotations

import gzip
import html
import json
import os
import queue
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import report_folder
from command_line import command, interrupted_once
from conftest import small_experiment, write_experiment
from judgeloop import report
from judgeloop.commands.analyze import analyze
from judgeloop.commands.run import run
from judgeloop.commands.watch import (
    ESTIMATING_S,
    SILENT_S,
    FinishedGenerations,
    LiveReport,
    experiment_of,
    finished_generations,
    largest_block,
    watch,
    write_so_far,
)
from judgeloop.errors import BudgetReached, FolderMismatch, InvalidInput
from judgeloop.report.page import live_page
from judgeloop.rundir import RunFolder
from judgeloop.serving.server import LocalServer, Page, create_page_app
from judgeloop.wire.cassette import Tally

Serve = Callable[..., Any]
POOL = {"policy": {"kind": "pool", "endpoint": "m", "pool_size": 6}, "signal": {"kind": "bradley_terry"}}


@contextmanager
def served(pages: Mapping[str, Page]) -> Iterator[httpx2.Client]:
    server = LocalServer(create_page_app(pages))
    with server, httpx2.Client(base_url=server.base_url.removesuffix("/v1"), timeout=60) as client:
        yield client


class Stepwise:
    """A run's observer that holds the run after every finished generation of a replicate until it is let go."""

    def __init__(self) -> None:
        self.turns: queue.Queue[tuple[int, int] | None] = queue.Queue()
        self._go = threading.Semaphore(0)

    def start(self, *_: Any) -> None: ...

    def answered(self, _: Any) -> None: ...

    def stage(self, _: str) -> None: ...

    def note(self, _: str) -> None: ...

    def generation(self, event: Any) -> None:
        self.turns.put((event.replicate, event.generation))
        assert self._go.acquire(timeout=120)

    def go(self) -> None:
        self._go.release()


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- what is finished ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("change", [{}, POOL], ids=["exemplar", "pool"])
def test_estimates_so_far_are_those_of_a_shorter_run(tmp_path: Path, serve: Serve, change: dict[str, Any]) -> None:
    url = serve().base_url
    long = run(write_experiment(tmp_path / "in", small_experiment(url, **change, generations=2)), out=tmp_path / "long")
    short = small_experiment(url, **change, generations=1)
    expected = run(write_experiment(tmp_path / "in", short), out=tmp_path / "short").estimates
    resolved = experiment_of(long.folder)
    assert resolved is not None
    before = tree(long.path)
    early = write_so_far(long.folder, resolved, FinishedGenerations((0, 1), 1), tmp_path / "early")
    whole = write_so_far(long.folder, resolved, FinishedGenerations((0, 1), 2), tmp_path / "whole")
    rows = early.estimates()  # but for the forecast, which is of the whole run
    further = rows["term"].str.startswith("forecast_") & (rows["generation"] > 1)
    pd.testing.assert_frame_equal(rows[~further].reset_index(drop=True), expected)
    pd.testing.assert_frame_equal(whole.estimates(), long.estimates)
    assert tree(long.path) == before


def slow_largest_block(last: dict[int, int]) -> tuple[int, int]:
    """(steps, generation) of the best rectangle, by trying every one."""
    found = [(0, 0)]
    for reached in range(max(last.values(), default=-1) + 1):
        height = sum(generation >= reached for generation in last.values())
        found.append((height * reached, reached))
    return max(found)


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 6)))
def test_the_block_is_the_largest_with_no_turn_missing(last: dict[int, int]) -> None:
    block = largest_block(last)
    if block is None:
        assert last == {}
        return
    assert all(last[replicate] >= block.generation for replicate in block.replicates)
    assert (len(block.replicates) * block.generation, block.generation) == slow_largest_block(last)


@pytest.mark.pages
def test_a_run_that_trains_models_is_shown_before_its_first_training(tmp_path: Path) -> None:
    shipped = RunFolder(Path(__file__).parents[2] / "fixtures/quickstart/run")
    resolved = experiment_of(shipped)
    assert resolved is not None
    folder = RunFolder(tmp_path / "run")
    for name in ("items", "candidates", "judgments"):
        rows = shipped.table(name)
        if name == "items":
            folder.write_part(name, "all", rows)
            continue
        zero = rows[rows["generation"] == 0]
        folder.write_part(name, "panels-g00", zero[zero["replicate"].isna()])
        for replicate, part in zero[zero["replicate"].notna()].groupby("replicate"):
            folder.write_part(name, f"s{int(replicate):03d}-g00", part)
    folder.write_text("experiment.yaml", shipped.experiment_text())
    folder.write_json("environment.json", shipped.environment())
    block = largest_block(finished_generations(folder))
    assert block == FinishedGenerations(tuple(range(8)), 0)
    so_far = write_so_far(folder, resolved, block, tmp_path / "so_far")
    said = report.summary(so_far)
    assert "picked 93.8" in " ".join(said.split())
    assert "nothing was trained" not in said
    assert "forecast_drift_length" in set(so_far.estimates()["term"])


def test_a_generation_counts_once_its_judgments_are_written(tmp_path: Path) -> None:
    folder, frame = RunFolder(tmp_path), pd.DataFrame({"item_id": ["i"]})
    folder.write_part("judgments", "panels-g00", frame)
    for table, part in [("candidates", "s000-g00"), ("judgments", "s000-g00"), ("candidates", "s000-g01")]:
        folder.write_part(table, part, frame)
    assert finished_generations(folder) == {0: 0}
    folder.write_part("judgments", "s000-g01", frame)
    for table in ("candidates", "judgments"):
        folder.write_part(table, "s002-g00", frame)
        folder.write_part(table, "s002-g02", frame)  # a gap is not jumped
    assert finished_generations(folder) == {0: 1, 2: 0}


def test_the_tally_counts_what_is_appended(tmp_path: Path) -> None:
    tally, part = Tally(tmp_path), tmp_path / "calls" / "s0" / "g00-judge.jsonl"
    assert tally.look() == (0, None)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"{}\n{}\n{")
    os.utime(part, (100, 100))
    assert tally.look() == (2, 100.0)
    with part.open("ab") as file:
        file.write(b"}\n")
    (part.parent / "g01-judge.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 5))
    assert tally.look()[0] == 8
    part.write_bytes(b"{}\n")  # a torn line was cut away and asked again
    assert tally.look()[0] == 6


# -- the pages of a run that goes on -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_changes_with_every_generation_of_a_real_run(tmp_path: Path, serve: Serve) -> None:
    raw = small_experiment(serve().base_url, generations=1)
    path, out, observer = write_experiment(tmp_path / "in", raw), tmp_path / "out", Stepwise()
    early = pd.DataFrame()

    def close_the_loop() -> None:
        try:
            run(path, out=out, observer=observer)
        finally:
            observer.turns.put(None)

    running = threading.Thread(target=close_the_loop)
    running.start()
    seen: dict[str, tuple[str, str]] = {}
    finished: dict[int, int] = {}
    while (turn := observer.turns.get(timeout=120)) is not None:
        finished[turn[0]] = turn[1]
        if not seen:
            watched = LiveReport(out)
        with served(watched.pages()) as client:
            state = client.get("/state").json()
            block = largest_block(finished)
            assert block is not None
            whole = block == FinishedGenerations((0, 1), 1)
            # The whole is the run's own to estimate: meanwhile the report of the last block stands.
            assert ["Generations", "0 to 1"] in state["known"]
            assert (state["version"], state["of"]) == (list(seen)[-1] if whole else block.name, 4)
            assert state["done"] == sum(generation + 1 for generation in finished.values())
            assert re.fullmatch(r"[\d,]+ answers recorded, the last \d+ s ago\.", state["detail"])
            if state["version"] not in seen:
                answer = client.get("/report")
                assert answer.status_code == 200
                seen[state["version"]] = (state["headline"], answer.text)
        if whole and watched.experiment is not None:
            assert state["headline"].startswith("Every generation is complete")
            stopped = LiveReport(out, clock=lambda: time.time() + ESTIMATING_S + 1)
            assert stopped.state()["version"] == "g0-s0"  # the soonest first
            assert stopped.report() != stopped.report()
            assert stopped.state()["version"] == "g1-s0.1"  # a run that was killed then leaves no estimates of its own
            assert "0 to 1" in stopped.report()
            early = write_so_far(watched.folder, watched.experiment, block, tmp_path / "early").estimates()
        observer.go()
    running.join()
    # Two replicates side by side: generation 0 of one, then of both; the whole comes from the run itself.
    assert "g0-s0.1" in seen
    assert "g1-s0.1" not in seen
    assert seen["g0-s0.1"][0] == "The run goes on: generation 0 of 1 is complete in all 2 replicates."
    assert len({page for _, page in seen.values()}) == len(seen)
    last = watched.state()
    assert last["version"].startswith("done-")
    assert (last["done"], last["of"], last["caution"]) == (4, 4, "")
    assert watched.report() == report.html(RunFolder(out))
    pd.testing.assert_frame_equal(early, RunFolder(out).estimates())


def test_before_the_first_generation_the_page_waits_and_says_so(tmp_path: Path, serve: Serve) -> None:
    path = write_experiment(tmp_path / "in", small_experiment(serve().base_url))
    with pytest.raises(BudgetReached):
        run(path, out=tmp_path / "out", max_calls=5)
    watched = LiveReport(tmp_path / "out", clock=lambda: 4e9)
    state = watched.state()
    assert (state["version"], state["done"], state["caution"]) == ("", 0, "")
    assert "Generation 0 of 1 is under way" in state["headline"]
    assert "may have stopped: the same command resumes it" in state["detail"]
    assert SILENT_S >= 60
    with served(watched.pages()) as client:
        answer = client.get("/report")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (503, "text/plain")
    assert "no generation is complete yet" in answer.text


def test_a_finished_folder_and_an_analysis_are_served_as_they_are(tmp_path: Path) -> None:
    verdicts = pd.DataFrame(
        [(f"i{n}", "j", order, "first") for n in range(12) for order in ("ab", "ba")],
        columns=["item_id", "judge", "order", "verdict"],
    )
    analysed = analyze(verdicts, out=tmp_path / "log").folder
    synthetic = report_folder.write(tmp_path / "demo", size=(1, 4))
    for folder in (analysed, synthetic):
        before = tree(folder.path)
        watched = LiveReport(folder.path)
        with served(watched.pages()) as client:
            assert client.get("/state").json()["headline"].startswith("Finished")
            assert client.get("/report").text == report.html(folder)
            assert client.get("/").text == live_page(watched.name)
        assert tree(folder.path) == before


def test_an_unfinished_audit_waits_for_its_estimates(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: mine\naudit: {}\n")
    state = LiveReport(tmp_path).state()
    assert (state["version"], state["detail"]) == ("", "No answer is recorded yet.")
    assert "at its end" in state["headline"]


def test_a_damaged_or_vanished_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("name: [")
    with pytest.raises(FolderMismatch, match="cannot be read"):
        LiveReport(tmp_path)
    folder = report_folder.write(tmp_path / "demo")
    watched = LiveReport(folder.path)
    shutil.rmtree(folder.path)
    with served(watched.pages()) as client:
        answer = client.get("/state")
    assert answer.status_code == 503
    assert "the run folder is gone" in answer.text


# -- who may look, and hostile texts -------------------------------------------------------------------------------------


def test_only_this_machine_may_look(tmp_path: Path) -> None:
    with served({"/": lambda: "<p>hello</p>", "/state": lambda: {"n": 1}}) as client:
        answer = client.get("/")
        assert answer.text == "<p>hello</p>"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
        assert client.get("/state").json() == {"n": 1}
        assert client.get("/", headers={"host": "rebound.example"}).status_code == 400
        assert client.post("/").status_code == 405
        assert client.get("/tables").status_code == 404
        assert client.base_url.host == "127.0.0.1"


def test_a_page_that_breaks_says_no_more_than_its_kind() -> None:
    def broken() -> str:
        raise KeyError("a secret")

    with served({"/": broken}) as client:
        answer = client.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_names_are_escaped_and_the_page_asks_nobody_else() -> None:
    page = live_page("</title><script>document.title='PWNED'</script>")
    assert "<script>document" not in page
    assert page.count("<script") == 1
    assert re.search(r"default-src &#x27;none&#x27;; script-src &#x27;sha256-[\w+/=]+&#x27;", page)
    assert not re.search(r"https?://", page)


# -- the command ---------------------------------------------------------------------------------------------------------


def test_the_command_serves_until_interrupted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = report_folder.write(tmp_path / "demo", size=(1, 4))
    said, versions = "", []

    def looked() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        if url := re.search(r"http://127\.0\.0\.1:\d+/", said):
            versions.append(httpx2.get(f"{url.group()}state").json()["version"])
        return bool(versions)

    with interrupted_once(looked):
        code = command("watch", folder.path, "--port", "0")
    assert code == 130
    assert versions[0].startswith("done-")
    assert "Traceback" not in capsys.readouterr().err


def test_usage_errors_are_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("watch", tmp_path / "nowhere") == 2
    assert "not a run folder" in capsys.readouterr().err
    folder = report_folder.write(tmp_path / "demo")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidInput, match=f"cannot listen on 127.0.0.1:{port}"):
            watch(folder.path, port=port)


DRIVE = """<!doctype html><iframe id="watch" src="/" style="width:1000px;height:700px"></iframe><script>
(async () => {
  const until = async (what) => { while (!what()) await new Promise((done) => setTimeout(done, 100)); };
  const outer = document.getElementById("watch");
  const shown = (version) => () => outer.contentDocument?.documentElement.dataset.shown === version;
  const report = () => outer.contentDocument.querySelector("iframe").contentWindow;
  await until(shown("one"));
  report().document.getElementById("theme").click();
  report().scrollTo({ top: 700, behavior: "instant" });
  await fetch("next");
  await until(shown("two"));
  const said = { y: report().scrollY, name: report().document.querySelector("h1").textContent,
    theme: report().document.documentElement.dataset.theme, frames: outer.contentDocument.querySelectorAll("iframe").length,
    headline: outer.contentDocument.getElementById("headline").textContent };
  document.body.append(Object.assign(document.createElement("pre"), { id: "said", textContent: JSON.stringify(said) }));
})();
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_new_report_takes_the_place_scroll_and_theme_of_the_old_one(tmp_path: Path) -> None:
    made = {name: report.html(report_folder.write(tmp_path / name, name=name)) for name in ("one", "two")}
    versions = ["one"]

    def state() -> dict[str, Any]:
        hostile = "<img src=x onerror=document.title='PWNED'>"
        return {"version": versions[-1], "headline": hostile, "detail": "", "caution": "", "done": 1, "of": 2}

    def following() -> dict[str, Any]:
        versions.append("two")
        return {}

    pages: dict[str, Page] = {
        "/": lambda: live_page("demo"), "/state": state, "/report": lambda: made[versions[-1]],
        "/drive": lambda: DRIVE, "/next": following,
    }  # fmt: skip
    with served(pages) as client:
        command = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        command += ["--virtual-time-budget=60000", "--dump-dom", f"{client.base_url}/drive"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="said">(.*?)</pre>', done.stdout)
    assert found is not None, done.stdout[-2000:]
    said = json.loads(html.unescape(found[1]))
    assert (said["y"], said["name"], said["theme"], said["frames"]) == (700, "two", "dark", 1)
    assert said["headline"].startswith("<img")
