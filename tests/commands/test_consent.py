"""A command line has it confirmed once where keys go; Python callers decide in their own code."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from audit_pairs import pairs, write
from command_line import command
from conftest import Served, small_experiment, write_experiment
from judgeloop.commands.consent import Consent, Sending, recorded
from judgeloop.commands.run import run
from judgeloop.errors import InvalidInput
from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call
from wire_case import Speaker, use

VALUE = "Zq7-not-a-real-key-0001"
OTHER = "Zq7-not-a-real-key-0002"
Serve = Callable[..., Served]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", VALUE)
    monkeypatch.setenv("OTHER_KEY", OTHER)


def experiment(base_url: str, **settings: Any) -> Path:
    raw = small_experiment(base_url, replicates=1, candidates_per_item=2, panels={"anchor": 1})
    raw["endpoints"]["m"] |= {"api_key_env": "JUDGE_KEY", **settings}
    return write_experiment(Path(), raw)


def place(base_url: str) -> str:
    return base_url.removeprefix("http://").removesuffix("/v1")


def confirmed(folder: str) -> Any:
    return json.loads(Path(folder, "environment.json").read_text()).get("keys_confirmed")


NAMED = {"api_key_env": "JUDGE_KEY", "extra_headers": {"x": "${OTHER_KEY} ${JUDGE_KEY}"}, "extra_query": {"q": "${Q}"}}


@pytest.mark.parametrize(
    ("base_url", "settings", "of_file", "of_line"),
    [
        ("https://a.example/v1", {}, [], []),
        ("http://a.example/v1", {}, [], []),
        ("https://a.example/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to a.example"], []),
        ("https://a.example:8443/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to a.example:8443"], []),
        ("http://A.example/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to a.example, unencrypted"], ["JUDGE_KEY to a.example, unencrypted"]),
        ("http://127.0.0.1.evil.example", {"api_key_env": "K"}, ["K to 127.0.0.1.evil.example, unencrypted"], ["K to 127.0.0.1.evil.example, unencrypted"]),
        ("http://127.0.0.1:81/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to 127.0.0.1:81"], []),
        ("http://[::1]:81/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to [::1]:81"], []),
        ("https://xn--e1afmkfd.example", {"api_key_env": "K"}, ["K to xn--e1afmkfd.example"], []),
        ("https://пример.example", {"api_key_env": "K"}, ["K to xn--e1afmkfd.example"], []),
        ("https://a.example", NAMED, ["JUDGE_KEY to a.example", "OTHER_KEY to a.example", "Q to a.example"], []),
        ("https://api.openai.com/v1", {}, [], []),
        ("https://api.openai.com/v1", {"api_key_env": "OPENAI_API_KEY"}, [], []),
        ("https://api.openai.com/v1", {"api_key_env": "JUDGE_KEY"}, ["JUDGE_KEY to api.openai.com"], []),
        ("https://a.example/v1", {"api_key_env": "OPENAI_API_KEY"}, ["OPENAI_API_KEY to a.example"], []),
        ("http://api.openai.com/v1", {}, [], []),
        ("http://api.openai.com/v1", {"api_key_env": "OPENAI_API_KEY"}, ["OPENAI_API_KEY to api.openai.com, unencrypted"], ["OPENAI_API_KEY to api.openai.com, unencrypted"]),
        ("http://", {"api_key_env": "JUDGE_KEY"}, [], []),
    ],
)  # fmt: skip
def test_what_has_to_be_confirmed(
    base_url: str, settings: dict[str, Any], of_file: list[str], of_line: list[str]
) -> None:
    endpoint = Endpoint.model_validate({"base_url": base_url, "model": "m", **settings})
    for file, expected in (("e.yaml", of_file), ("", of_line)):
        needed = Consent(yes=False, ask=lambda _: None, file=file).needed([endpoint, endpoint])
        assert [str(each).removeprefix("the value of ") for each in needed] == expected
        assert recorded({"keys_confirmed": [each.record() for each in needed]}) == needed


def test_records_that_cannot_be_read_confirm_nothing() -> None:
    for entries in (None, "JUDGE_KEY", 1, ["JUDGE_KEY", None]):
        assert recorded({"keys_confirmed": entries}) == []
    assert recorded({"keys_confirmed": [{"variable": "K"}]}) == [Sending("K", "None", in_clear=False)]


@pytest.mark.at_hand
@pytest.mark.tables
def test_without_a_terminal_a_run_is_refused_until_it_is_confirmed_and_then_resumes(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    path, host = experiment(served.base_url), place(served.base_url)
    for words in (("run", path), ("step", path)):
        assert command(*words, "--out", "o", "-q") == 2
        said = capsys.readouterr().err
        assert (
            said == f"judgeloop: experiment.yaml sends the value of JUDGE_KEY to {host}; give --yes to confirm that\n"
        )
    assert not Path("o").exists()
    assert not served.asked
    assert command("run", path, "--out", "o", "-q", "--yes", "--max-calls", "5") == 3
    assert confirmed("o") == [{"variable": "JUDGE_KEY", "host": host, "unencrypted": False}]
    assert command("run", path, "--out", "o", "-q") == 0
    assert confirmed("o") == [{"variable": "JUDGE_KEY", "host": host, "unencrypted": False}]
    asked = sum(served.asked.values())
    path = experiment(served.base_url, api_key_env="OTHER_KEY")
    capsys.readouterr()
    assert command("run", path, "--out", "o", "-q") == 2
    said = capsys.readouterr().err
    assert said == f"judgeloop: experiment.yaml sends the value of OTHER_KEY to {host}; give --yes to confirm that\n"
    assert sum(served.asked.values()) == asked
    assert [path for path in Path().rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()] == []


@pytest.mark.at_hand
def test_another_host_is_asked_for_again(serve: Serve, capsys: pytest.CaptureFixture[str]) -> None:
    base_url = serve().base_url
    path = experiment(base_url)
    assert command("run", path, "--out", "o", "-q", "--yes", "--max-calls", "0") == 3
    assert command("run", path, "--out", "o", "-q", "--max-calls", "0") == 3
    experiment(base_url.replace("127.0.0.1", "localhost"))
    capsys.readouterr()
    assert command("run", path, "--out", "o", "-q", "--max-calls", "0") == 2
    assert "sends the value of JUDGE_KEY to localhost:" in capsys.readouterr().err


@pytest.mark.at_hand
@pytest.mark.tables
def test_a_finished_run_and_a_replay_are_not_asked_about_and_python_decides_itself(serve: Serve) -> None:
    served = serve()
    path = experiment(served.base_url)
    run(path, out="o")
    assert served.asked
    asked = sum(served.asked.values())
    assert command("run", path, "--out", "o", "-q") == 0
    assert command("run", path, "--replay", "o", "--out", "again", "-q") == 0
    assert (confirmed("o"), confirmed("again")) == (None, None)
    assert sum(served.asked.values()) == asked
    Path("o/estimates.parquet").unlink()  # not finished
    assert command("run", path, "--out", "o", "-q") == 2
    # A session of Python keeps what the command line had confirmed.
    assert command("run", path, "--out", "o", "-q", "--yes") == 0
    before = confirmed("o")
    run(path, out="o")
    assert before
    assert confirmed("o") == before


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch, typed: str) -> Iterator[list[str]]:
    """Standard input and error are a terminal at which that is typed; at the end, what it showed."""
    ours, theirs = os.openpty()
    shown: list[str] = []

    def read() -> None:
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # closed at the other end
                return
            shown.append(part.decode())

    reading = threading.Thread(target=read)
    with os.fdopen(theirs, "r+b", buffering=0) as device, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", os.fdopen(os.dup(device.fileno()), encoding="utf-8"))
        patch.setattr(sys, "stderr", os.fdopen(os.dup(device.fileno()), "w", encoding="utf-8"))
        reading.start()
        os.write(ours, typed.encode())
        try:
            yield shown
        finally:
            sys.stdin.close()
            sys.stderr.close()
    reading.join()
    os.close(ours)


@pytest.mark.at_hand
@pytest.mark.parametrize(("typed", "code"), [("\n", 2), ("n\n", 2), ("\x04", 2), ("y\n", 3), ("Yes\n", 3)])
def test_at_a_terminal_a_person_is_asked(serve: Serve, monkeypatch: pytest.MonkeyPatch, typed: str, code: int) -> None:
    served = serve()
    path, host = experiment(served.base_url, extra_headers={"x-team": "${OTHER_KEY}"}), place(served.base_url)
    with terminal(monkeypatch, typed) as shown:
        assert command("run", path, "--out", "o", "-q", "--max-calls", "0") == code
    said = "".join(shown).replace("\r", "")
    for variable in ("JUDGE_KEY", "OTHER_KEY"):
        assert f"experiment.yaml sends the value of {variable} to {host}\n" in said
    assert "Send it? [y/N] " in said
    assert ("experiment.yaml: not confirmed" in said) == (code == 2)
    assert VALUE not in said
    assert not served.asked
    assert Path("o").exists() == (code == 3)
    if code == 3:
        with terminal(monkeypatch, "") as shown:
            assert command("run", path, "--out", "o", "-q", "--max-calls", "0") == 3
        assert "sends the value" not in "".join(shown)


def test_doctor_asks_about_a_file_and_not_about_a_key_that_is_named_on_its_line(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    served = serve()
    path = experiment(served.base_url)
    assert command("doctor", "--experiment", path) == 2
    assert "experiment.yaml sends the value of JUDGE_KEY to 127.0.0.1:" in capsys.readouterr().err
    assert not served.asked
    line = ("doctor", "--base-url", served.base_url, "--model", "planted", "--api-key-env", "JUDGE_KEY")
    for words in (("doctor", "--experiment", path, "--yes"), line):
        assert command(*words, "--max-calls", "5", "-q") == 0
    assert served.asked


def test_a_key_that_is_named_on_the_line_and_leaves_unencrypted(capsys: pytest.CaptureFixture[str]) -> None:
    write(Path("answers.jsonl"), pairs(2))
    where = ("--base-url", "http://judge.example/v1", "--model", "m")
    sent = "judgeloop: this command sends the value of JUDGE_KEY to judge.example, unencrypted; give --yes to confirm that\n"
    for named in (("--api-key-env", "JUDGE_KEY"), ("--header", "x-key: ${JUDGE_KEY}")):
        assert command("audit", "answers.jsonl", *where, *named, "-q") == 2
        assert capsys.readouterr().err == sent
    assert command("doctor", *where, "--api-key-env", "JUDGE_KEY", "-q") == 2
    assert capsys.readouterr().err == sent
    assert [path.name for path in Path().iterdir()] == ["answers.jsonl"]


def test_a_trained_models_address_gets_no_key_that_nobody_confirmed(tmp_path: Path) -> None:
    endpoint = Speaker().endpoint(base_url="http://127.0.0.1:9/v1", api_key_env="JUDGE_KEY")
    elsewhere = Call("s0/g1/draft/i/c", "m", {"model": "t"}, base_url="https://gpu.example/v1")
    asking = Consent(yes=False, ask=lambda _: None, file="e.yaml")

    def check(trained: Endpoint) -> None:
        asking.check(trained, asking.needed([endpoint]))

    with pytest.raises(InvalidInput, match=r"JUDGE_KEY to gpu\.example: nobody has confirmed .* give --yes"):
        use(tmp_path, endpoint, lambda client: client.ask(elsewhere), check_address=check)
    trained = endpoint.model_copy(update={"base_url": elsewhere.base_url})
    assert [str(each) for each in Consent(yes=True, ask=lambda _: None, file="e.yaml").check(trained, [])] == [
        "the value of JUDGE_KEY to gpu.example"
    ]
    assert asking.check(endpoint.model_copy(update={"base_url": "http://127.0.0.1:10/v1"}), []) == []
