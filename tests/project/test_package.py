"""The package as users get it: what the wheel carries, how fast its help comes, what every command says of itself."""

from __future__ import annotations

import inspect
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

import command_line
import judgeloop
from judgeloop import cli
from judgeloop.cli.app import app
from judgeloop.experiment.schema import schema as experiment_schema
from judgeloop.text import templates

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMMANDS = sorted(cli._command().commands)  # type: ignore[attr-defined]
HEAVY = ("pandas", "numpy", "scipy", "pydantic", "openai", "httpx2", "plotly", "jinja2", "pyarrow", "starlette", "rich")


def python(*arguments: str, path: Path | None = None, code: int = 0) -> str:
    """Standard output of a fresh interpreter. ``path``: a folder that is searched first."""
    environment = {**os.environ, "COLUMNS": "100", **({"PYTHONPATH": str(path)} if path else {})}
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=path,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_wheel_carries_the_prompts() -> None:
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["judgeloop"]
    assert wheel["force-include"] == {
        "prompts": "judgeloop/prompts",
        "fixtures/quickstart/run": "judgeloop/quickstart",
    }
    assert (ROOT / "judgeloop" / "py.typed").is_file()
    assert sorted(path.stem for path in (ROOT / "prompts").glob("*.yaml")) == list(templates.shipped())


def test_hatchling_reads_that_configuration() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel", reason="the build backend is not installed here")
    config = wheel.WheelBuilder(str(ROOT)).config
    assert config.get_force_include() == {
        str(ROOT / "prompts"): "judgeloop/prompts",
        str(ROOT / "fixtures" / "quickstart" / "run"): "judgeloop/quickstart",
    }
    assert config.packages == [str(Path("judgeloop"))]


def test_the_source_distribution_holds_what_the_wheel_needs() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {"judgeloop", "prompts", "tests", "LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff"} <= set(included)
    assert [name for name in included if not (ROOT / name).exists()] == []


def test_an_installed_tree_finds_its_prompts(tmp_path: Path) -> None:
    """Laid out as the wheel lays it out: away from the repository, the prompts inside the package."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "judgeloop", tmp_path / "judgeloop", ignore=ignored)
    shutil.copytree(ROOT / "prompts", tmp_path / "judgeloop" / "prompts")
    code = (
        "import judgeloop.text.templates as t; print(t.__file__); print(*t.shipped()); print(t.load('pairwise').sha256)"
    )
    where, names, sha256 = python("-c", code, path=tmp_path).splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert tuple(names.split()) == templates.shipped()
    assert sha256 == templates.load("pairwise").sha256


def test_the_package_loads_nothing_heavy_and_an_audit_no_client_and_no_statistics_before_they_are_used() -> None:
    later = (
        "openai",
        "httpx2",
        "starlette",
        "uvicorn",
        "plotly",
        "rich",
        "scipy.special",
        "scipy.stats",
        "statsmodels",
    )
    code = (
        f"import sys, judgeloop; print('loaded', *[name for name in {HEAVY!r} if name in sys.modules]); "
        f"judgeloop.audit; print('loaded', *[name for name in {later!r} if name in sys.modules])"
    )
    assert python("-c", code).split() == ["loaded", "loaded"]


def test_the_package_lists_every_public_name_with_its_documentation() -> None:
    commands = {
        "run",
        "audit",
        "analyze",
        "open",
        "compare",
        "check",
        "plan",
        "forecast",
        "doctor",
        "export",
        "serve",
        "validate",
    }
    names = dir(judgeloop)
    assert commands < set(names)
    assert {"Run", "Audit", "JudgeloopError"} < set(names)
    words = judgeloop.__doc__ or ""
    for name in judgeloop.__all__:
        if name != "__version__":
            assert getattr(judgeloop, name).__doc__, name
            assert name in words
    for name in commands:
        assert "Raises" in str(getattr(judgeloop, name).__doc__), name
    with pytest.raises(AttributeError, match="no attribute 'audits'"):
        judgeloop.audits  # noqa: B018  the error is what is tested


def test_the_help_of_the_package_holds_no_variable_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOT_SHOWN", "a value")
    shown = pydoc.plain(pydoc.render_doc(judgeloop))
    assert "validate(only:" in shown
    assert "NOT_SHOWN" not in shown


def test_a_package_of_a_functions_name_does_not_hide_the_function() -> None:
    import_module("judgeloop.validation")
    assert inspect.isfunction(judgeloop.validate)


def test_the_module_is_the_command_and_its_help_loads_nothing_heavy() -> None:
    """typer itself loads rich for its console; every other library waits for the command that needs it."""
    code = (
        "import runpy, sys\nsys.argv = ['judgeloop', '--help']\n"
        "try:\n    runpy.run_module('judgeloop', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"print('heavy:', *[name for name in {HEAVY!r} if name in sys.modules and name != 'rich'])"
    )
    shown, heavy = python("-c", code).rsplit("heavy:", 1)
    assert heavy.split() == []
    assert shown.startswith("Usage: judgeloop ")
    assert [name for name in COMMANDS if not re.search(rf"^ +{name} ", shown, re.MULTILINE)] == []
    script = metadata.entry_points(group="console_scripts", name="judgeloop")
    assert [point.value for point in script] == ["judgeloop.cli:main"]


def test_the_version_is_the_project_s() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"judgeloop {PROJECT['project']['version']}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps(command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert command_line.command(command, "--help") == 0
    first = capsys.readouterr().out.split("\n\n")[1].strip()
    assert first.endswith("."), first
    parameters = cli._command().commands[command].params  # type: ignore[attr-defined]
    silent = [one.name for one in parameters if not getattr(one, "hidden", False) and not getattr(one, "help", None)]
    assert silent == [], "without a line of help"


def test_run_prints_its_schema() -> None:
    done = CliRunner().invoke(app, ["run", "--schema"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == experiment_schema()


def test_every_key_of_an_experiment_has_a_line() -> None:
    schema = experiment_schema()
    silent = []
    for name, block in {"Experiment": schema, **schema["$defs"]}.items():
        for key, value in block["properties"].items():
            if key != "kind" and not value.get("description"):
                silent.append(f"{name}.{key}")
    assert silent == []


def test_serve_prints_the_schema_of_a_planted_spec() -> None:
    done = CliRunner().invoke(app, ["serve", "--schema"])
    assert done.exit_code == 0
    assert {"position", "length", "quality", "noise", "temperature0", "tie", "unscored", "seed", "draft"} <= set(
        json.loads(done.stdout)["properties"]
    )


@pytest.mark.parametrize("arguments", [["run"], ["serve"], ["serve", "--record", "somewhere"]])
def test_wrong_usage_is_one_sentence_and_exit_2(arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert done.stderr.startswith(f"judgeloop: {arguments[0]}: ")
    assert len(done.stderr.splitlines()) == 1
