"""The house rules that a machine can check. ARCHITECTURE.md is the source: its tables are parsed, not repeated here."""

from __future__ import annotations

import ast
import functools
import gc
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "judgeloop"
PAGE = ROOT / "ARCHITECTURE.md"
FILES = sorted(SOURCE.rglob("*.py"))
OURS = [*FILES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "docs").glob("*.py"))]
# What may reach neither the clock, the disk, the network nor an unnamed random stream.
PURE = ("kernels", "learning", "stats")
IMPURE = {"os", "io", "pathlib", "time", "random", "secrets", "socket", "subprocess", "tempfile", "shutil", "asyncio"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    """A source file's syntax tree, read once for all the rules."""
    # The collector of garbage would look through half a million nodes again and again, and longer than they take to make.
    gc.disable()
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    finally:
        gc.freeze()
        gc.enable()


def room(path: Path, source: Path = SOURCE) -> str:
    """The room a file belongs to: its package, or its own name on the first level."""
    return path.relative_to(source).parts[0].removesuffix(".py")


def table(heading: str) -> list[list[str]]:
    """The cells of the table of ARCHITECTURE.md whose first header cell is ``heading``."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def names(cell: str) -> list[str]:
    return re.findall(r"`([A-Za-z0-9_]+)`", cell)


def floors() -> dict[str, int]:
    """Room → place of its floor in the table, lowest first."""
    return {name: height for height, row in enumerate(table("Floor")) for name in names(row[1])}


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement below a node. Those of expressions are none, and most of a tree is expressions."""
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        below = getattr(node, name, ())
        for child in below if isinstance(below, list) else ():
            yield child
            yield from statements(child)


def imported(tree: ast.Module, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import anywhere in a module: lazy ones and those for type checking too."""
    for node in statements(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


@functools.cache
def imports(path: Path, source: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of every import of a source file."""
    return tuple(imported(parsed(path), ("judgeloop", *path.relative_to(source).parts[:-1])))


def imported_rooms(path: Path, known: dict[str, int], source: Path = SOURCE) -> Iterator[tuple[int, str]]:
    for line, name in imports(path, source):
        parts = name.split(".")
        if parts[0] == "judgeloop":
            # `from judgeloop import __version__` reads the package's own __init__.
            there = parts[1] if len(parts) > 1 else "__init__"
            yield line, there if there in known or (SOURCE / there).is_dir() else "__init__"


def violations(path: Path, known: dict[str, int], source: Path = SOURCE) -> list[str]:
    here = room(path, source)
    if here not in known:
        return [f"{path.relative_to(source)}: the room {here} has no floor in ARCHITECTURE.md"]
    return [
        f"{path.relative_to(source)}:{line}: {here} imports {there}, which stands no lower"
        for line, there in imported_rooms(path, known, source)
        if there != here and known.get(there, len(known)) >= known[here]
    ]


def test_every_room_has_a_floor_and_every_floor_its_rooms() -> None:
    assert {room(path) for path in FILES} == set(floors())


def test_imports_go_down() -> None:
    known = floors()
    assert [wrong for path in FILES for wrong in violations(path, known)] == []


@pytest.mark.parametrize(
    "text",
    [
        "from judgeloop.loop import run",
        "from judgeloop.wire import client",
        "import judgeloop.report.page",
        "from ..wire.client import WireClient",
        "from judgeloop import wire",
        "from judgeloop import __version__",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from judgeloop.commands import Run",
        "def late():\n    from judgeloop.cli import main",
    ],
)
def test_the_check_sees_every_form_of_import(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stats" / "probe.py"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    assert len(violations(path, floors(), tmp_path)) == 1


def test_libraries_stay_in_their_rooms() -> None:
    homes = {library: set(names(row[1])) for row in table("Library") for library in names(row[0])}
    strays = []
    for path in FILES:
        for line, name in imports(path, SOURCE):
            home = homes.get(name.split(".")[0])
            if home is not None and room(path) not in home:
                strays.append(f"{path.relative_to(SOURCE)}:{line}: {name} belongs in {', '.join(sorted(home))}")
    assert strays == []


def test_the_functional_core_is_pure() -> None:
    impure = []
    for path in FILES:
        if room(path) not in PURE:
            continue
        tree = parsed(path)
        for line, name in imports(path, SOURCE):
            if name.split(".")[0] in IMPURE:
                impure.append(f"{path.relative_to(SOURCE)}:{line}: imports {name}")
        impure += [
            f"{path.relative_to(SOURCE)}:{node.lineno}: {ast.unparse(node.func)}"
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and (
                re.match(r"(np|numpy)\.random\.", called := ast.unparse(node.func))
                or called in ("open", "print", "input")
            )
        ]
    assert impure == []


def test_randomness_is_made_by_named_streams_alone() -> None:
    made = [
        f"{path.relative_to(SOURCE)}:{node.lineno}"
        for path in FILES
        if room(path) != "seeds"
        and re.search("random|RandomState|Philox|PCG64|default_rng", path.read_text(encoding="utf-8"))
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name | ast.Attribute)
        and re.search(r"\b(default_rng|RandomState|Philox|PCG64)$|^random\.|\brandom\.seed$", ast.unparse(node.func))
    ]
    assert made == []


def undocumented(path: Path) -> list[str]:
    """What is public in a file and has no docstring, the module itself too."""
    tree = parsed(path)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            missing.append(f"{node.name} (line {node.lineno})")
    return [f"{path.relative_to(SOURCE)}: {name}" for name in missing]


def test_what_is_public_has_a_docstring() -> None:
    assert [name for path in FILES for name in undocumented(path)] == []


def test_no_module_is_a_drawer() -> None:
    drawers = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
    assert [str(path) for path in FILES if path.stem in drawers] == []


def _project_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = listed.stdout.splitlines() if listed.returncode == 0 else []
    paths = [ROOT / name for name in found] or [*OURS, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    return [path for path in paths if path.is_file() and path.suffix in TEXT]


TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".jsonl", ".css", ".js", ".html", ".cff", ".txt"}
# Spelled in pieces, so that this file does not hold what it forbids. What may not stand before a word is looked at behind its first
# letter: by that letter a text is passed over quickly.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"/(?<![\w.:/]/)(?:home|root|Users)/[A-Za-z0-9_.-]+",
            r"/(?<![\w.:/]/)work" + r"/(?:main|shared)",
            r"pypi" + r"\.org|files\.python" + r"hosted|i(?<!\wi)ndex" + r"-url\b|h(?<!\wh)ugging" + r"face\.co/",
            r"BEGIN [A-Z ]*PRIVATE" + r" KEY|s(?<!\ws)k-" + r"[A-Za-z0-9]{20}",
            r"T(?<!\wT)O" + r"DO\b|F(?<!\wF)IX" + r"ME\b|X(?<!\wX)X" + r"X\b",
        ]
    )
)


def test_no_path_of_a_machine_registry_or_secret_is_in_the_project() -> None:
    found = []
    for path in _project_files():
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, hit.start()) + 1}: {hit.group()}"
            for hit in FORBIDDEN.finditer(text)
        ]
    assert found == []


@pytest.mark.parametrize("text", ["see /root" + "/w/x", "TO" + "DO later", "https://pypi" + ".org/simple"])
def test_the_forbidden_words_are_seen(text: str) -> None:
    assert FORBIDDEN.search(text)
