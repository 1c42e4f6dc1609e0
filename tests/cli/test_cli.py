"""The command line as a user meets it: bad input is one clear sentence and its exit code, and nothing is spent."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from command_line import command, interrupted_once
from conftest import ITEMS, Served, small_experiment, tables_alone, write_experiment
from judgeloop import cli
from judgeloop.serving.faults import Faults, Rule

Serve = Callable[..., Served]
_NOWHERE = "http://127.0.0.1:9/v1"


def _one_sentence(text: str) -> str:
    """Standard error of a refused command: at most two sentences, no traceback."""
    assert "Traceback" not in text
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("judgeloop: small")]
    assert len(lines) == 1, text
    return lines[0]


def _changed(**changes: Any) -> dict[str, Any]:
    return small_experiment(_NOWHERE, **changes)


_PRICED = {"m": {**_changed()["endpoints"]["m"], "price": {"input": 0.5, "output": 1}}}
BAD_EXPERIMENTS: list[tuple[dict[str, Any], str]] = [
    (_changed(generation=3), "generation: unknown key; did you mean generations?"),
    (_changed(generations="three"), "generations: must be a whole number"),
    (_changed(judge={"endpoint": "m", "verdikt": "json"}), "judge.verdikt: unknown key; did you mean verdict?"),
    (_changed(judge={"endpoint": "n"}), "judge.endpoint: 'n' is not among `endpoints`"),
    (_changed(judge={"kind": "modell", "endpoint": "m"}), "judge.kind: must be one of model, pointwise, reward"),
    (_changed(judge={"endpoint": "m", "prompt": "pairwize"}), "did you mean pairwise"),
    (_changed(judge={"endpoint": "m", "prompt": "no_such.yaml"}), "no_such.yaml"),
    (_changed(policy={"kind": "exemplar", "endpoint": "m", "prompt": "pairwise"}), "pairwise"),
    (_changed(candidates_per_item=1), "candidates_per_item: "),
    (_changed(items="elsewhere.jsonl"), "no such items file"),
    (_changed(arms={}), "arms: "),
    (_changed(replicates=10**9), "model calls are planned, and one run folder holds 100,000,000; lower replicates"),
    (_changed(arms={"judge": {"policy": {"temperature": 2}}}), "arms.judge.policy: only `exemplars` may differ"),
    (_changed(signal={"kind": "best_of_n", "label_rule": "length_controlled"}), "needs a fitted signal"),
    (_changed(panels={"anchor": "pairs.jsonl"}), "no such pairs file"),
    (_changed(strategy={"kind": "replace", "real_fraction": 1.5}), "strategy.real_fraction"),
    (_changed(budget={"max_cost": 1}), "budget.max_cost: no price is stated for planted"),
    (
        _changed(budget={"max_cost": 1}, endpoints={**_PRICED, "n": {"base_url": _NOWHERE, "model": "x"}}),
        "budget.max_cost: no price is stated for x, so its cost cannot be counted; give endpoints.<name>.price",
    ),
]


@pytest.mark.parametrize(("raw", "message"), BAD_EXPERIMENTS)
def test_a_wrong_experiment_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], raw: dict[str, Any], message: str
) -> None:
    path = write_experiment(tmp_path, raw)
    assert command("run", path, "--out", tmp_path / "run") == 2
    assert message in _one_sentence(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


BAD_ITEMS: list[tuple[str, str]] = [
    ("", "no items"),
    ('{"item_id": "a", "prompt": "x"}\n{"item_id": "a", "prompt": "y"}\n', "items.jsonl:2: item_id 'a' stands twice"),
    ('{"item_id": "a"}\n', "items.jsonl:1: column prompt is missing"),
    ('{"item_id": "a", "prompt": "x"}\nnot json\n', "items.jsonl:2: not valid JSON"),
    ('["a", "x"]\n', "items.jsonl:1: one JSON object a line"),
    ('{"item_id": "a", "prompt": 3}\n', "items.jsonl:1: prompt: must be text"),
    ('{"item_id": "a", "prompt": "x", "reference": "1", "match": "fuzzy"}\n', "items.jsonl:1: match: must be one of"),
    ('{"item_id": "a", "prompt": [{"role": "user"}]}\n', "items.jsonl:1: prompt: a chat message needs"),
]


@pytest.mark.parametrize(("content", "message"), BAD_ITEMS)
def test_wrong_items_are_named_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = write_experiment(tmp_path, _changed())
    (tmp_path / "items.jsonl").write_text(content, encoding="utf-8")
    assert command("run", path, "--out", tmp_path / "run") == 2
    assert message in _one_sentence(capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


def test_files_that_are_no_experiment(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", tmp_path / "none.yaml") == 2
    assert "none.yaml: no such file" in _one_sentence(capsys.readouterr().err)
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    assert command("run", tmp_path / "list.yaml") == 2
    assert "an experiment is a mapping of keys, this is a list" in _one_sentence(capsys.readouterr().err)
    (tmp_path / "broken.yaml").write_text("name: x\nitems: [\n")
    assert command("run", tmp_path / "broken.yaml") == 2
    assert "broken.yaml:3: not valid YAML" in _one_sentence(capsys.readouterr().err)


def test_a_missing_key_is_named_and_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = _changed()
    raw["endpoints"]["m"]["api_key_env"] = "NO_SUCH_KEY"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    assert command("run", write_experiment(tmp_path, raw), "--out", tmp_path / "run") == 2
    assert "environment variable NO_SUCH_KEY is not set" in _one_sentence(capsys.readouterr().err)


@pytest.mark.usefixtures("quick_retries")
def test_an_endpoint_where_nothing_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("run", write_experiment(tmp_path, _changed()), "--out", tmp_path / "run", "--quiet") == 4
    message = _one_sentence(capsys.readouterr().err)
    assert "endpoint m (http://127.0.0.1:9/v1, model planted): no server answers" in message


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(status=401, times="always", message="bad key"), "HTTP 401: bad key"),
        (
            Rule(status=404, times="always", code="model_not_found", message="The model `x` does not exist"),
            "does not exist",
        ),
        (Rule(status=400, times="always", code="model_not_found", message="no such model"), "no such model"),
    ],
)
def test_an_endpoint_that_refuses_ends_the_run_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], serve: Serve, rule: Rule, words: str
) -> None:
    served = serve(faults=Faults(rules=(rule,)))
    path = write_experiment(tmp_path, small_experiment(served.base_url))
    assert command("run", path, "--out", tmp_path / "run", "--quiet") == 4
    assert words in _one_sentence(capsys.readouterr().err)


def test_judgments_without_an_answer_are_unscored_and_the_run_goes_on(tmp_path: Path, serve: Serve) -> None:
    import judgeloop

    reasons = {"capital/m00": "not_json", "capital/m01": "empty_choices", "sleep/m00": "null_content", "rain/m00": "context_length"}  # fmt: skip
    faults = [Rule(match=f"g0/judge/{pair}/ab", kind=kind, times="always") for pair, kind in reasons.items()]
    served = serve(faults=Faults(rules=faults))
    raw = small_experiment(served.base_url, generations=1, replicates=1, panels={"anchor": 0})
    done = judgeloop.run(write_experiment(tmp_path, raw), out=tmp_path / "run")
    lost = done.judgments[done.judgments["verdict"] == "unscored"]
    # A coin judges what arms share too, and loses nothing by it.
    assert dict(zip(lost["call"].str.extract("judge/(.*)/ab")[0], lost["reason"], strict=True)) == reasons
    assert lost["p_first"].isna().all()
    counted = done.estimates[(done.estimates["term"] == "first_slot_excess") & (done.estimates["arm"] == "judge")]
    assert (counted.loc[counted["generation"] == 0, "n_unscored"] == len(reasons)).any()


@pytest.mark.tables
def test_another_experiment_s_folder_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], serve: Serve
) -> None:
    served = serve()
    small = small_experiment(served.base_url, generations=1, replicates=1, panels={"anchor": 0})
    path = write_experiment(tmp_path / "one", small)
    assert command("run", path, "--out", tmp_path / "run", "--quiet") == 0
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    other = write_experiment(tmp_path / "two", {**small, "seed": 5})
    assert command("run", other, "--out", tmp_path / "run") == 2
    assert "another experiment's answers stand here: seed is 0 there and 5 here; give another" in _one_sentence(
        capsys.readouterr().err
    )
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert command("run", path, "--out", tmp_path / "mine") == 2
    assert "holds other files and no run" in _one_sentence(capsys.readouterr().err)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_room_lets_it_finish(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    path = write_experiment(tmp_path / "in", small_experiment(served.base_url, generations=1, replicates=1))
    command = [sys.executable, "-m", "judgeloop", "run", str(path), "--out", str(tmp_path / "run"), "--quiet"]

    def no_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    # Python itself would leave the code that it compiles cut short, and later processes would fail on it.
    uncompiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    full = subprocess.run(command, preexec_fn=no_room, env=uncompiled, capture_output=True, text=True, check=False)
    assert full.returncode == 4, full.stderr
    assert "cannot be written" in _one_sentence(full.stderr)
    subprocess.run(command, check=True, capture_output=True)
    assert max(served.asked.values()) <= 2
    assert (tmp_path / "run" / "report.html").is_file()


def test_interrupt_is_130_and_resumable(tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    """The signal comes to this process, as it would to a user's; what kills a process is among the slow tests."""
    slow = Faults(rules=(Rule(kind="slow", delay_s=0.05, times="always"),))
    served = serve(faults=slow)
    path = write_experiment(tmp_path / "in", small_experiment(served.base_url))
    with interrupted_once(lambda: sum(served.asked.values()) >= 20):
        code = command("run", path, "--out", tmp_path / "run")
    said = capsys.readouterr().err
    assert code == 130, said
    assert "run the same command to resume" in said
    assert "Traceback" not in said


def test_usage_errors_are_two(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("run") == 2
    assert "give an experiment file" in _one_sentence(capsys.readouterr().err)
    assert command("serve") == 2
    assert "--replay DIR" in _one_sentence(capsys.readouterr().err)
    assert command("report", "nowhere") == 2
    assert "not a run folder" in _one_sentence(capsys.readouterr().err)
    assert command("nonsense") == 2
    monkeypatch.setattr(sys.modules["judgeloop.cli.app"], "_debug", False)  # as it was, afterwards
    assert command("report", "nowhere", "--debug") == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "not a run folder" in error.splitlines()[-1]


def test_text_that_a_terminal_cannot_write_is_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"item_id": "1", "question": "p", "answer_a": "a\\ud800", "answer_b": "b", "winner": "a"}\n')
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", shown)
    assert command("analyze", log) == 2
    assert b"a\\ud800" in shown.buffer.getvalue()  # type: ignore[attr-defined]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.at_hand
@pytest.mark.pages
def test_schema_and_quiet_print_what_programs_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], serve: Serve
) -> None:
    command("run", "--schema")
    assert json.loads(capsys.readouterr().out)["properties"]["generations"]["default"] == 3
    command("serve", "--schema")
    assert "position" in json.loads(capsys.readouterr().out)["properties"]
    small = small_experiment(serve().base_url, generations=1, replicates=1, panels={"anchor": 0})
    path = write_experiment(tmp_path, small, ITEMS)
    with tables_alone():
        assert command("run", path, "--out", tmp_path / "run", "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.strip() == str(tmp_path / "run" / "report.html")
    assert command("run", path, "--out", tmp_path / "run") == 0
    captured = capsys.readouterr()
    assert "s0 generation 1 done" in captured.err
    assert "Drift beyond control" in captured.out
    assert "report.html" in captured.out


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("judgeloop an", "analyze"),
        ("judgeloop audit --pric", "--price"),
        ("judgeloop analyze --format alp", "alpaca_eval"),
    ],
)
def test_the_shell_completes_commands_options_and_values(
    words: str, completed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_JUDGELOOP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    assert command() == 0
    assert capsys.readouterr().out.split() == [completed]


@pytest.mark.tables
@pytest.mark.pages
def test_every_command_can_be_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = typer.main.get_command(cli.app)
    for name, each in whole.commands.items():  # type: ignore[attr-defined]
        flags = {flag for parameter in each.params for flag in parameter.opts}
        assert {"-q", "--quiet"} <= flags, name
    log = tmp_path / "v.csv"
    log.write_text("item_id,judge,order,verdict\ni,j,ab,first\ni,j,ba,second\n")
    out = tmp_path / "out"
    for arguments, said in (
        (("analyze", log, "--out", out, "-q"), out / "report.html"), (("report", out, "-q"), out / "report.html"),
        (("compare", out, out, "--out", tmp_path / "c", "-q"), tmp_path / "c" / "compare.html"),
    ):  # fmt: skip
        assert command(*arguments) == 0
        printed = capsys.readouterr()
        assert (printed.out, printed.err) == (f"{said}\n", "")


def test_what_failed_is_said_first_with_the_command_that_asks_it_again(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    served = serve(faults=Faults(rules=(Rule(match="i0/", status=503, times=1),)))
    rows = [{"item_id": f"i{n}", "prompt": "p", "text_a": f"one {n}", "text_b": f"two {n}"} for n in range(4)]
    Path("a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = (
        "audit",
        "a.jsonl",
        "--base-url",
        served.base_url,
        "--model",
        "planted",
        "--verdict",
        "text",
        "--attempts",
        "1",
        "--out",
        "o",
    )
    assert command(*asked, "--no-retry-failed") == 0
    first, *rest = capsys.readouterr().out.splitlines()
    said = re.fullmatch(r"(\d) calls? failed in every attempt and .*; to ask again: judgeloop (.*)", first)
    assert said is not None
    assert shlex.split(said[2]) == list(asked)
    assert rest
    assert command(*asked) == 0
    assert "to ask again" not in capsys.readouterr().out
