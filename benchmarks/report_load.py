"""Measure how long a real browser takes to open a report.

    python benchmarks/report_load.py REPORT.html [--runs 5] [--chromium PATH]

Starts headless Chromium with a fresh profile, opens the file and reads the page's own clock over Chromium's debugging
pipe (two inherited file descriptors: no port, no network). Times are in milliseconds since the navigation began:

- ``shown``: first contentful paint: the answers can be read;
- ``ready``: the page's load event;
- ``in_sight``: the plots in the first screens are drawn;
- ``all_plots``: every plot of the page is drawn, the last ones while the browser is idle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_READ = """JSON.stringify((() => {
  const [load] = performance.getEntriesByType("navigation");
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  return {shown: paint?.startTime ?? null, ready: load?.loadEventEnd || null, in_sight: Number(document.documentElement.dataset.sight) || null,
          all_plots: Number(document.documentElement.dataset.drawn) || null};
})())"""
_WAIT_S = 60.0


class Browser:
    """Chromium behind its debugging pipe: commands go to descriptor 3, answers come from descriptor 4, NUL-separated."""

    def __init__(self, chromium: str, profile: str) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        script = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe", "--window-size=1400,900"]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(to_browser), str(from_browser), chromium, *flags, f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._number = 0

    def ask(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """One command and its answer; events in between are passed over."""
        self._number += 1
        message = {
            "id": self._number,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                chunk = os.read(self._in, 65536)
                if not chunk:
                    raise RuntimeError("the browser went away")
                self._buffer += chunk
            line, self._buffer = self._buffer.split(b"\0", 1)
            answer: dict[str, Any] = json.loads(line)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                found: dict[str, Any] = answer["result"]
                return found

    def close(self) -> None:
        """End this browser."""
        self.ask("Browser.close")
        self._process.wait(20)
        os.close(self._out)
        os.close(self._in)


def measure(chromium: str, url: str) -> dict[str, float | None]:
    """One opening, with a profile of its own."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(chromium, profile)
        try:
            target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
            session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            browser.ask("Page.enable", session)
            browser.ask("Page.navigate", session, url=url)
            deadline = time.monotonic() + _WAIT_S
            found: dict[str, float | None] = {}
            while time.monotonic() < deadline:
                said = browser.ask("Runtime.evaluate", session, expression=_READ)["result"].get("value")
                found = json.loads(said) if said else {}
                if found and all(found.values()):
                    break
                time.sleep(0.1)
            return found
        finally:
            browser.close()


def main() -> None:
    """Open the report several times; print the medians and the file's size as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome") or "chromium")
    given = parser.parse_args()
    runs = [measure(given.chromium, given.report.resolve().as_uri()) for _ in range(given.runs)]
    medians = {
        key: round(statistics.median([float(value) for run in runs if (value := run.get(key)) is not None]), 0)
        for key in ("shown", "ready", "in_sight", "all_plots")
        if any(run.get(key) is not None for run in runs)
    }
    print(json.dumps({"bytes": given.report.stat().st_size, "runs": given.runs, "median_ms": medians}))
    if not medians:
        sys.exit(1)


if __name__ == "__main__":
    main()
