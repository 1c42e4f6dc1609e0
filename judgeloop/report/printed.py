"""A page as a picture or on paper, by a Chromium that is on this machine; it is allowed no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from judgeloop.errors import InvalidInput

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
"""Names under which a Chromium is looked for on PATH."""
SCREEN = (1400, 1000)
"""Width and height of the picture: the first screen."""
_WITHIN_S = 120
_ALONE = (
    "--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


def picture(page: Path, target: Path) -> Path:
    """The page's first screen as a PNG file. Raises InvalidInput where no Chromium is found or it draws nothing."""
    return _printed(page, target, f"--screenshot={target.resolve()}", f"--window-size={SCREEN[0]},{SCREEN[1]}")


def paper(page: Path, target: Path) -> Path:
    """The whole page as a PDF file. Raises InvalidInput where no Chromium is found or it prints nothing."""
    return _printed(page, target, f"--print-to-pdf={target.resolve()}", "--no-pdf-header-footer")


def _printed(page: Path, target: Path, *options: str) -> Path:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise InvalidInput(
            f"{target}: no Chromium is found ({', '.join(BROWSERS[:3])}); install one, or print {page} by hand"
        )
    # A process of the superuser, as in a container, has no sandbox; what the page may do is bounded by its own policy.
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="judgeloop-print-") as profile:
        line = [browser, *_ALONE, *sandbox, f"--user-data-dir={profile}", *options, page.resolve().as_uri()]
        try:
            subprocess.run(line, check=False, timeout=_WITHIN_S, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InvalidInput(f"{target}: {browser} does not print ({type(error).__name__})") from None
    if not target.is_file():
        raise InvalidInput(f"{target}: {browser} wrote nothing; print {page} by hand")
    return target
