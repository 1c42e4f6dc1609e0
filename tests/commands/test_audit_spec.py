"""An option of audit is one field: command line, Python, record, identity, messages and pages follow from it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import pytest
import typer

import judgeloop
from audit_case import settings_of
from audit_pairs import pairs
from conftest import Served
from judgeloop.cli.app import app, from_fields
from judgeloop.commands import audit, audit_spec
from judgeloop.commands.plan_audit import plan_audit
from judgeloop.commands.session import difference_named
from judgeloop.errors import FolderMismatch
from judgeloop.experiment.audit import AuditCall, AuditSession, AuditSizes, AuditSpec
from judgeloop.experiment.options import Option, flag, line, option
from judgeloop.rundir import RunFolder

Serve = Callable[..., Served]
DOCS = Path(__file__).parents[2] / "docs"
PAIRS = pd.DataFrame(pairs(2))
BASE = {"model": "m", "base_url": "http://127.0.0.1:1/v1"}
# Field → another value than the default, and what has to go with it.
CHANGES: dict[str, dict[str, Any]] = {
    "model": {"model": "n"}, "base_url": {"base_url": "http://127.0.0.1:2/v1"}, "engine": {"engine": "llama_cpp", "base_url": None},
    "api_key_env": {"api_key_env": "KEY"}, "prompt": {"prompt": "few_shot"}, "verdict": {"verdict": "json"}, "repeats": {"repeats": 2},
    "probes": {"probes": "bold"}, "edit_model": {"edit_model": "w", "probes": "model_padding"}, "mitigate": {"mitigate": "swap_average"},
    "gold_exact": {"gold_exact": True}, "mode": {"mode": "pointwise"}, "scales": {"mode": "pointwise", "scales": "1-5"},
    "against_pairwise": {"mode": "pointwise", "against_pairwise": True}, "reward": {"reward": "classify"}, "temperature": {"temperature": 0.5},
    "max_tokens": {"max_tokens": 9}, "seed": {"seed": 1}, "price": {"price": (1.0, 2.0)}, "columns": {"columns": {"gold": "other"}},
    "endpoint": {"endpoint": {"max_tokens": 9}}, "concurrency": {"concurrency": 1}, "per_minute": {"per_minute": 6000}, "timeout_s": {"timeout_s": 1.0}, "attempts": {"attempts": 1}, "patience_s": {"patience_s": 1.0},
    "threads": {"threads": 2, "engine": "llama_cpp", "base_url": None}, "context": {"context": 512, "engine": "llama_cpp", "base_url": None},
    "max_tokens_field": {"max_tokens_field": "max_completion_tokens"}, "send_temperature": {"send_temperature": False},
    "seed_field": {"seed_field": "none"},
    "top_logprobs": {"top_logprobs": 5}, "min_label_mass": {"min_label_mass": 0.1}, "min_trial_mass": {"min_trial_mass": 0.1}, "extra_headers": {"extra_headers": {"X": "y"}}, "extra_query": {"extra_query": {"v": "1"}},
    "extra_body": {"extra_body": {"top_k": 1}},
}  # fmt: skip


def _command(name: str) -> Any:
    return typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]


@pytest.mark.parametrize("block", [AuditSpec, AuditSession, AuditSizes])
def test_a_field_is_an_option_a_keyword_and_a_row(block: Any) -> None:
    options = {parameter.name: parameter for parameter in _command("audit").params}
    python, commands = ((DOCS / name).read_text(encoding="utf-8") for name in ("python.md", "commands.md"))
    keywords = [set(inspect.signature(function).parameters) for function in (judgeloop.audit, plan_audit)]
    for name, field in block.model_fields.items():
        assert isinstance(option(field), Option), f"{name}: whether answers depend on it is not said"
        assert line(field).endswith("."), name
        assert flag(name, field) in options[name].opts
        assert options[name].help
        assert f"  {flag(name, field)}" in commands or f", {flag(name, field)}" in commands
        keyword_sets = (
            keywords if block is AuditSpec or name == "out" else keywords[:1] if block is AuditSession else keywords[1:]
        )
        assert all(name in names for names in keyword_sets)
        if block is not AuditSizes:
            assert f"| `{name}` | `{flag(name, field)}` | {'yes' if option(field).answers else 'no'} |" in python  # type: ignore[union-attr]
            assert f"{name}: {line(field)[:40]}" in str(judgeloop.audit.__doc__)


def test_every_field_has_a_change_below() -> None:
    assert set(CHANGES) == set(AuditSpec.model_fields)


@pytest.mark.parametrize("name", CHANGES)
def test_identity_depends_on_what_answers_depend_on(name: str) -> None:
    frame = PAIRS.assign(other=0) if name == "columns" else PAIRS
    change = {**BASE, **CHANGES[name]}
    companions = {key: value for key, value in CHANGES[name].items() if key != name}
    before = BASE if name in ("engine", "edit_model") else {**BASE, **companions}
    mark = option(AuditSpec.model_fields[name])
    assert mark is not None
    made, again = (settings_of(frame, **given).identity() for given in (before, change))
    assert (made != again) == mark.answers


class Longer(AuditSpec):
    """An audit with one option more."""

    tone: Annotated[str, Option(answers=True)] = "plain"
    """How the judge is spoken to."""


def test_a_new_field_is_all_that_a_new_option_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    values: dict[str, Any] = {}

    def callback(*, given: dict[str, Any]) -> None:
        values.update(given)

    line = typer.Typer(add_completion=False)
    line.callback()(lambda: None)
    line.command("ask", cls=from_fields(callback, lambda: Longer))(lambda: None)
    typer.main.get_command(line)(["ask", "--model", "m", "--tone", "stern"], standalone_mode=False)
    assert values["tone"] == "stern"
    without = settings_of(PAIRS, **BASE)
    monkeypatch.setattr(audit_spec, "AuditSpec", Longer)
    monkeypatch.setattr(audit, "AuditSpec", Longer)
    plain, stern = settings_of(PAIRS, **BASE), settings_of(PAIRS, **BASE, tone="stern")
    assert plain.identity() == without.identity(), "a folder written before the field was there"
    assert stern.identity() != plain.identity()
    assert stern.record()["audit"]["tone"] == "stern"
    folder = RunFolder(tmp_path)
    with folder.claim(without.identity()):
        folder.write_text("calls/audit/judge.jsonl", '{"call":"audit/judge/m/i/p/ab/r0"}\n')
        folder.write_json("environment.json", {"experiment_hash": without.identity()})
        folder.write_text(
            "experiment.yaml", "name: x\naudit: {judges: [{model: m, base_url: 'http://127.0.0.1:1/v1'}]}\n"
        )
    with (
        pytest.raises(FolderMismatch, match="tone is plain there and stern here"),
        difference_named(folder, "audit", lambda recorded: audit.audit_differences(recorded, stern.record())),
        folder.claim(stern.identity()),
    ):
        pass


def test_what_is_no_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="modle"):
        judgeloop.audit(PAIRS, model="m", modle="m")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="model"):
        judgeloop.audit(PAIRS)  # type: ignore[call-arg]
    assert list(inspect.signature(judgeloop.audit).parameters)[1:] == list(AuditCall.model_fields)


@pytest.mark.tables
@pytest.mark.at_hand
def test_an_audit_without_out_takes_a_folder_of_its_own_and_says_which(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve()
    ask = {"base_url": served.base_url, "model": "planted", "verdict": "json"}
    places = [judgeloop.audit(PAIRS, **ask, **more).path for more in ({}, {"temperature": 0.5}, {})]
    assert list(map(str, places)) == ["runs/audit", "runs/audit-2", "runs/audit"]
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"judgeloop: audit → {place}" for place in places]
    calls = sum(served.asked.values())
    assert plan_audit(PAIRS, **ask, temperature=0.5).recorded == calls // 2
    assert sum(served.asked.values()) == calls
    assert [RunFolder(place).kind for place in places] == ["audit"] * 3


@pytest.mark.parametrize(
    ("text", "kind"),
    [("name: x\ngenerations: 1\n", "run"), ("name: x\naudit: {}\n", "audit"), ("name: x\nanalyze: {}\n", "analysis"), ("[", "run"), ("", "run")],
)  # fmt: skip
def test_what_wrote_a_folder_is_told_by_its_experiment(tmp_path: Path, text: str, kind: str) -> None:
    (tmp_path / "experiment.yaml").write_text(text)
    assert RunFolder(tmp_path).kind == kind
