"""No key stands in any file: settings that hold one are refused, and the variables that settings name are not stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from audit_pairs import pairs, write
from changed_keys import with_key
from command_line import command
from conftest import Served
from judgeloop.errors import ExperimentError
from judgeloop.experiment.resolve import resolve
from judgeloop.experiment.schema import Endpoint, is_variable_name, is_written_key, written_keys
from judgeloop.wire.client import Connection

VALUE = "Zq7-not-a-real-key-0001"
Serve = Callable[..., Served]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--header", f"Authorization: Bearer {VALUE}"), "--header: authorization holds a key as it is"),
        (("--header", f"x-api-key: {VALUE}"), "write ${VARIABLE} in its place"),
        (("--header", f"Cookie: session={VALUE}"), "--header: cookie holds"),
        (("--header", f"X: Bearer {VALUE}"), "--header: x holds"),
        (("--header", f"Authorization Bearer {VALUE}"), "--header: must be 'Name: value'"),
        (("--query", f"key={VALUE}"), "--query: key holds a key as it is"),
        (("--query", f"access_token={VALUE}"), "--query: access_token holds"),
        (("--query", VALUE), "--query: must be NAME=VALUE"),
        (("--extra-body", json.dumps({"api_key": VALUE})), "--extra-body: api_key holds a key"),
        (("--extra-body", json.dumps({"a": [{"Authorization": VALUE}]})), "--extra-body: a.Authorization holds a key"),
        (("--base-url", f"http://127.0.0.1:1/v1?api_key={VALUE}"), "--base-url: base_url must end before ? and #"),
        (("--base-url", f"http://127.0.0.1:1/v1#{VALUE}"), "--base-url: base_url must end before ? and #"),
        (("--base-url", f"127.0.0.1:1/v1?key={VALUE}"), "--base-url: base_url must start with http"),
        (("--api-key-env", VALUE), "--api-key-env: must be the name of an environment variable"),
        (("--api-key-env", "sk_" + VALUE.replace("-", "")), "--api-key-env: must be the name"),
    ],
)  # fmt: skip
def test_a_key_as_it_is_is_refused_and_neither_stored_nor_shown(
    tmp_path: Path, options: tuple[str, ...], words: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    write(Path("answers.jsonl"), pairs(2))
    where = () if options[0] == "--base-url" else ("--base-url", "http://127.0.0.1:1/v1")
    assert command("audit", "answers.jsonl", *where, "--model", "m", *options) == 2
    output = capsys.readouterr()
    assert words in output.err
    assert VALUE not in output.out + output.err
    assert VALUE.replace("-", "") not in output.err
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
    if options[0] in ("--base-url", "--api-key-env"):
        assert command("doctor", *where, *options) == 2
        output = capsys.readouterr()
        assert f"{options[0]} must" in output.err
        assert VALUE not in output.out + output.err


def test_what_is_named_is_sent_and_stands_in_no_file(
    tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUDGE_KEY", VALUE)
    write(Path("answers.jsonl"), pairs(3))
    assert command(
        "audit", "answers.jsonl", "--base-url", serve().base_url, "--model", "planted", "--api-key-env", "JUDGE_KEY",
        "--header", "Authorization: Bearer ${JUDGE_KEY}", "--query", "key=${JUDGE_KEY}", "--query", "api-version=7", "--out", "o",
    ) == 0  # fmt: skip
    output = capsys.readouterr()
    assert VALUE not in output.out + output.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert [path for path in files if VALUE.encode() in path.read_bytes()] == []


def test_a_query_is_read_from_the_environment() -> None:
    endpoint = Endpoint.model_validate(
        {"base_url": "http://h/v1", "model": "m", "extra_query": {"key": "${K}", "v": "7"}}
    )
    connection = Connection("m", endpoint, {"K": VALUE})
    assert connection._openai._custom_query == {"key": VALUE, "v": "7"}
    assert connection.scrub(f"GET /v1?key={VALUE}") == "GET /v1?key=***"
    assert endpoint.variables() == [("extra_query.key", "K")]


@pytest.mark.parametrize("name", ["Authorization", "x-api-key", "api_key", "X-Auth-Token", "Set-Cookie", "client_secret", "Ocp-Apim-Subscription-Key", "password"])  # fmt: skip
def test_a_key_by_its_name(name: str) -> None:
    for value in (VALUE, f"Bearer {VALUE}", f"{VALUE} ${{K}}", f"${{K}}{VALUE}", "word"):
        assert is_written_key(name, value), value
    for value in ("${K}", "Bearer ${K}", "session=${K}; ${L}", "", " "):
        assert not is_written_key(name, value), value


@pytest.mark.parametrize(
    "key",
    ["Token sk-proj-abcdefgh0123456789", "key=hf_abcdefghijkl0123456", "github_pat_11ABCDEFG0abcdefghij", "r8_0123456789abcdefghij", "AIza" + "Sy0" * 11, "AKIA0123456789ABCDEF",
     "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"],
)  # fmt: skip
def test_a_key_by_its_form_wherever_it_stands(key: str) -> None:
    assert is_written_key("x", key)
    assert list(written_keys({"x": f"a {key}"})) == ["x"]
    for field in ({"base_url": f"http://h/{key.rsplit(maxsplit=1)[-1]}/v1"}, {"model": key}):
        with pytest.raises(ValidationError) as caught:
            Endpoint.model_validate({"base_url": "http://h/v1", "model": "m", **field})
        assert " key" in caught.value.errors()[0]["msg"]


def test_what_is_no_key_passes() -> None:
    for model in (
        "hf-internal-testing/tiny-random-2024-model",
        "ask-0123456789-abcdefgh",
        "sk-learn",
        "xai/grok-4-fast",
    ):
        assert Endpoint(base_url="http://h/v1", model=model).model == model
    for name in ("api-version", "x-team", "user-agent", "OpenAI-Organization", "x-org"):
        assert not is_written_key(name, "2024-10-21")
    fields = {
        "max_tokens": 5, "logit_bias": {"50256": -100}, "api_version": "2", "stop_token_ids": [1], "bos_token": "<s>", "pad_token": "x",
        "stop": ["token"], "prompt_cache_key": "run-1", "truncate_prompt_tokens": -1, "key": {"type": "string"}, "skip_special_tokens": "no",
        "response_format": {"properties": {"token": {"type": "string"}}}, "user": "me", "api_key": "", "echo_token": "x",
    }  # fmt: skip
    assert list(written_keys(fields)) == []
    wrong = {
        "api_key": VALUE,
        "key": VALUE,
        "secret_access_key": VALUE,
        "hf_token": VALUE,
        "headers": {"X": f"Bearer {VALUE}"},
    }
    assert list(written_keys(wrong)) == [*list(wrong)[:-1], "headers.X"]
    assert is_variable_name("OPENAI_API_KEY")
    assert is_variable_name("my_key")
    assert not any(map(is_variable_name, ("sk-1", "1A", "a b", "hf_abcdefgh12", "a1b2c3d4e5f6a7b8c9d0e1")))


@pytest.mark.parametrize(
    ("field", "value"), [("api_key_env", VALUE), ("extra_headers", {"api-key": VALUE}), ("extra_query", {"key": VALUE}),
                         ("extra_body", {"token": VALUE}), ("base_url", f"http://h/v1?key={VALUE}")],
)  # fmt: skip
def test_an_experiment_s_key_is_refused_and_not_shown(field: str, value: object) -> None:
    with pytest.raises(ExperimentError, match=r"endpoints\.m") as caught:
        resolve(with_key(f"endpoints.m.{field}", value))
    assert VALUE not in str(caught.value)
    with pytest.raises(ValidationError):
        Endpoint.model_validate({"base_url": "http://h", "model": "m", field: value})
