"""The page in a real headless Chromium: it draws, filters, prints and changes theme, runs no hostile text, holds its layout."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import report_folder
from hostile_texts import GROUPS, HOSTILE, hostile_run
from judgeloop import report
from judgeloop.report import printed
from judgeloop.rundir import RunFolder

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.pages, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH")]

Evaluate = Callable[[str], Any]
_DRAWN = "document.documentElement.dataset.drawn !== undefined || !document.querySelector('.plot')"


class Page:
    """One tab of one browser."""

    def __init__(self, browser: Any) -> None:
        self._browser = browser
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Page.enable")

    def ask(self, method: str, **parameters: Any) -> Any:
        return self._browser.ask(method, self._session, **parameters)

    def open(self, path: Path, *, width: int = 1400, dark: bool = False, drawn: bool = True) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.ask(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        self.ask("Page.navigate", url=path.as_uri())
        self.until("document.readyState === 'complete' && location.protocol === 'file:'")
        if drawn:
            self.until(_DRAWN)

    def run(self, script: str) -> Any:
        found = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, condition: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(condition):
            assert time.monotonic() < deadline, condition
            time.sleep(0.05)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    spec = importlib.util.spec_from_file_location("report_load", ROOT / "benchmarks/report_load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_load"] = module
    spec.loader.exec_module(module)
    browser = module.Browser(CHROMIUM, str(tmp_path_factory.mktemp("profile")))
    try:
        yield Page(browser)
    finally:
        browser.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(report_folder.write(tmp_path_factory.mktemp("runs") / "demo")).html


def test_every_plot_is_drawn_and_nothing_is_asked_of_any_network(page: Page, demo: Path) -> None:
    page.open(demo)
    places = page.run("document.querySelectorAll('.plot').length")
    assert places >= 20
    assert page.run("document.querySelectorAll('.plot.js-plotly-plot .main-svg').length") >= places
    assert (
        page.run("performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('blob:')).length") == 0
    )
    assert page.run("document.getElementById('undrawn').hidden") is True


def test_the_first_screen_holds_headline_pictures_and_questions(page: Page, demo: Path) -> None:
    page.open(demo, width=1400)
    tops = "document.querySelector('%s').getBoundingClientRect()"
    assert page.run(f"{tops % '.first'}.top") < 200
    assert page.run(f"{tops % '#figure-first-biases'}.right") <= page.run(f"{tops % '#figure-first-drift'}.left")
    assert page.run(f"{tops % '#figure-first-biases svg'}.top") < 300
    assert page.run(f"{tops % '.answers'}.bottom") <= 1000


def test_a_page_counts_as_loaded_once_its_plots_are_drawn(page: Page, demo: Path) -> None:
    page.open(demo)
    page.until("performance.getEntriesByType('navigation')[0].loadEventEnd > 0")
    loaded = page.run("performance.getEntriesByType('navigation')[0].loadEventStart")
    assert loaded >= float(page.run("document.documentElement.dataset.drawn")) - 1
    assert page.run("document.querySelectorAll('iframe').length") == 0


def test_a_picture_has_the_size_of_a_screen_and_paper_has_the_plots(demo: Path, tmp_path: Path) -> None:
    picture = printed.picture(demo, tmp_path / "made" / "report.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == printed.SCREEN
    paper = printed.paper(demo, tmp_path / "report.pdf").read_bytes()
    assert paper[:5] == b"%PDF-"
    without = demo.read_text(encoding="utf-8").replace('id="plotly"', 'id="no-plotly"')
    (tmp_path / "without.html").write_text(without, encoding="utf-8")
    assert len(paper) > 1.2 * len(printed.paper(tmp_path / "without.html", tmp_path / "without.pdf").read_bytes())


@pytest.mark.parametrize("width", [390, 768, 1400])
def test_nothing_is_wider_than_the_screen(page: Page, demo: Path, width: int) -> None:
    page.open(demo, width=width)
    assert page.run("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1400])
def test_cut_labels_are_none(page: Page, demo: Path, width: int) -> None:
    """No text of a plot reaches out of the plot's own box."""
    page.open(demo, width=width)
    cut = page.run("""JSON.stringify([...document.querySelectorAll('.plot')].flatMap((place) => {
      const box = place.getBoundingClientRect();
      return [...place.querySelectorAll('text')].filter((text) => text.textContent.trim()).filter((text) => {
        const one = text.getBoundingClientRect();
        return one.width > 0 && (one.left < box.left - 2 || one.right > box.right + 2);
      }).map((text) => place.id + ': ' + text.textContent);
    }))""")
    assert json.loads(cut) == []


def test_both_themes_and_the_reader_s_choice(page: Page, demo: Path) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    plot = "document.querySelector('.plot').layout.paper_bgcolor"
    page.open(demo)
    light = (page.run(background), page.run(plot))
    page.open(demo, dark=True)
    dark = (page.run(background), page.run(plot))
    assert light != dark
    page.run("document.getElementById('theme').click()")
    page.until(f"{plot} === '{light[1]}'")
    assert page.run(background) == light[0]
    assert page.run("document.getElementById('theme').textContent") == "Dark theme"


def test_cases_are_searched_and_filtered(page: Page, demo: Path) -> None:
    page.open(demo, drawn=False)
    shown = "document.querySelectorAll('.case:not([hidden])').length"
    everything = page.run(shown)
    page.run(
        "const s = document.querySelector('.reader select[name=kind]'); s.value = 'Order flips'; s.dispatchEvent(new Event('change'))"
    )
    flips = page.run(shown)
    assert 0 < flips < everything
    assert page.run(
        "[...document.querySelectorAll('.case:not([hidden])')].every((one) => one.dataset.kind === 'Order flips')"
    )
    page.run(
        "const i = document.querySelector('.reader input'); i.value = 'ITEM-03 slot'; i.dispatchEvent(new Event('input'))"
    )
    assert page.run(shown) == 1
    assert page.run("document.querySelector('.reader output').textContent") == f"1 of {everything} cases"
    page.run("document.querySelector('.reader button').click()")
    assert page.run(shown) == everything


def test_points_are_walked_by_keyboard_and_spoken(page: Page, demo: Path) -> None:
    page.open(demo)
    page.run("document.querySelector('#plot-judge-slopes-0').focus()")
    for _ in range(2):
        page.ask("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    said = page.run("document.getElementById('said').textContent")
    assert "interval" in said
    assert "(2 of " in said
    assert page.run("document.activeElement.id") == "plot-judge-slopes-0"


def test_it_prints_with_every_plot(page: Page, demo: Path) -> None:
    page.open(demo, dark=True)
    printed = page.ask("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF")
    assert len(printed) > 100_000


def test_no_hostile_text_runs_and_the_layout_holds(page: Page, tmp_path: Path) -> None:
    assert len(HOSTILE) >= 30
    for number, bad in enumerate(GROUPS):
        path = report.write(hostile_run(tmp_path / f"h{number:02d}", bad)).html
        page.open(path, width=390 if number % 2 else 1400)
        assert page.run("document.title") == "demo: drift report", bad
        assert page.run("document.documentElement.scrollWidth") <= (390 if number % 2 else 1400), bad
        assert page.run("document.querySelectorAll('script').length") == 4, bad  # three of the page, one unpacked
        assert (
            page.run("performance.getEntriesByType('resource').filter((one) => !one.name.startsWith('blob:')).length")
            == 0
        ), bad


def test_a_megabyte_of_one_candidate_is_folded(page: Page, tmp_path: Path) -> None:
    folder = _with_a_giant(tmp_path / "big")
    page.open(report.write(folder).html, width=390)
    assert page.run("document.documentElement.scrollWidth") <= 390
    tallest = page.run(
        "Math.max(...[...document.querySelectorAll('.case')].map((one) => one.getBoundingClientRect().height))"
    )
    assert tallest < 3000


def test_the_check_by_browser_would_see_a_script_run(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "open.html"
    path.write_text(f"<!doctype html><title>demo: drift report</title>{HOSTILE[0]}", encoding="utf-8")
    page.open(path)
    assert page.run("document.title") == "PWNED"


def _with_a_giant(path: Path) -> RunFolder:
    folder = report_folder.write(path)
    table = folder.table("candidates")
    last = table.index[table["generation"].eq(3) & table["arm"].eq("judge")][0]
    table.loc[last, "text"] = "<&>" * 350_000
    table.loc[last, ["length", "p_current"]] = 20.0, 1.0
    folder.write_part("candidates", "all", table)
    return folder
