"""CONTRIBUTING.md's recipes are followed, block by block, in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RECIPE = re.compile(r"^## How to add (?P<what>[^\n]+)\n(?P<steps>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<kind>python|diff) (?P<file>\S+)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL
)
RECIPES = {
    match["what"]: match["steps"] for match in RECIPE.finditer((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
}


def changed(text: str, diff: str) -> str:
    """The text with one hunk applied: the lines behind " " and "-" stand in it once, those behind "+" come in."""
    lines = diff.splitlines()
    before, after = (
        "\n".join(line[1:] for line in lines if line[:1] not in (skipped, "")) for skipped in ("+", "-")
    )  # fmt: skip
    assert text.count(before) == 1, f"stands {text.count(before)} times in the file:\n{before}"
    return text.replace(before, after)


def test_there_is_a_recipe_for_each() -> None:
    assert set(RECIPES) == {"a bias term", "a format", "a command"}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Recipe → what its check fails with, "" where it passes. All are followed in one copy: they change different lines, and
    each would fail as it does alone."""
    copy = tmp_path_factory.mktemp("recipes")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("judgeloop", "prompts"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    checks = {}
    for what, steps in RECIPES.items():
        for block in BLOCK.finditer(steps):
            body = textwrap.dedent(block["body"])
            path = copy / block["file"]
            if block["file"] == "check":
                assert what not in checks
                checks[what] = body
            elif block["kind"] == "diff":
                path.write_text(changed(path.read_text(encoding="utf-8"), body), encoding="utf-8")
            else:
                assert not path.exists()
                path.write_text(body, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "-c", _CHECKED, json.dumps(checks)], cwd=copy, env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found


_CHECKED = """
import json, sys, traceback
failures = {}
for what, check in json.loads(sys.argv[1]).items():
    failures[what] = ""
    try:
        exec(check, {"__name__": "__main__"})
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            failures[what] = traceback.format_exc()
print(json.dumps(failures))
"""


@pytest.mark.parametrize("what", sorted(RECIPES))
def test_a_recipe_works_as_it_stands(what: str, failures: dict[str, str]) -> None:
    assert failures[what] == ""
