"""CONTRIBUTING.md's recipes are followed, block by block, in a copy of the package."""

from __future__ import annotations

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


@pytest.mark.parametrize("what", sorted(RECIPES))
def test_a_recipe_works_as_it_stands(what: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("judgeloop", "prompts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    checks = []
    for block in BLOCK.finditer(RECIPES[what]):
        body = textwrap.dedent(block["body"])
        path = tmp_path / block["file"]
        if block["file"] == "check":
            checks.append(body)
        elif block["kind"] == "diff":
            path.write_text(changed(path.read_text(encoding="utf-8"), body), encoding="utf-8")
        else:
            assert not path.exists()
            path.write_text(body, encoding="utf-8")
    assert len(checks) == 1
    ran = subprocess.run(
        [sys.executable, "-c", checks[0]], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
