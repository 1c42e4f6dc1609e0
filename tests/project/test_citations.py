"""What docstrings, comments, messages and pages cite is in the repository: every page exists and has that heading."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("judgeloop", "tests", "docs", "benchmarks", "examples", "prompts")
# A path and headings in double quotes: docs/check.md, "The limits file" and "What it prints and writes".
CITATION = re.compile(r'((?:docs/)?[\w-]+\.md), ("[^"]+"(?: and "[^"]+")*)')
# Documents that are not shipped, and numbers of their sections.
OUTSIDE = re.compile(r"\b[Mm]ethod notes\b|§ ?\d|\bMETHOD(?:'s|\.md)|\bCONTRACT\b|\bDESIGN(?:'s|\.md|, \")|\bLAYOUT\b")


@functools.cache
def sources() -> tuple[tuple[str, str], ...]:
    """(name, text) of every file that may cite; line breaks, also those of comments, are spaces."""
    return tuple(_sources())


def _sources() -> Iterator[tuple[str, str]]:
    found = [
        path for room in ROOMS for path in (ROOT / room).rglob("*") if path.suffix in (".py", ".md", ".yaml", ".ipynb")
    ]
    for path in sorted([*found, *ROOT.glob("*.md")]):
        if path != Path(__file__):
            text = path.read_text(encoding="utf-8")
            yield path.relative_to(ROOT).as_posix(), re.sub(r"\n[ \t]*(?:# )?", " ", text)


@functools.cache
def headings(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {heading.strip("`") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_cited_headings_exist() -> None:
    wrong, count = [], 0
    for name, text in sources():
        for page, quoted in CITATION.findall(text) if '.md, "' in text else ():
            for heading in re.findall(r'"([^"]+)"', quoted):
                count += 1
                if not (ROOT / page).is_file() or heading not in headings(ROOT / page):
                    wrong.append(f"{name}: {page}, {heading!r}")
    assert wrong == []
    assert count > 80


def test_cited_pages_exist() -> None:
    wrong = [
        f"{name}: {page}"
        for name, text in sources()
        for page in re.findall(r"(?<![\w/.:-])docs/[\w-]+\.(?:md|csv|json)\b", text)
        if not (ROOT / page).is_file()
    ]
    assert wrong == []


def test_no_document_outside_the_repository_is_cited() -> None:
    assert [
        f"{name}: {text[max(0, found.start() - 30) : found.end() + 20]!r}"
        for name, text in sources()
        if any(word in text for word in ("ethod notes", "§", "METHOD", "CONTRACT", "DESIGN", "LAYOUT"))
        for found in OUTSIDE.finditer(text)
    ] == []
