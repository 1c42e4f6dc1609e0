"""Audits that cannot begin: one sentence, exit 2, nothing asked and nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from audit_pairs import pairs, write
from command_line import command
from conftest import Served

Serve = Callable[..., Served]
HEAD = "item_id,prompt,text_a,text_b"


def said(capsys: pytest.CaptureFixture[str]) -> str:
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1
    return error


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"{HEAD}\ni1,?,x,\ni1,?,x,y\n", "answers.csv:3: pair_id 'i1' stands twice"),
        ("item_id,prompt,text_a\ni1,?,x\n", "answers.csv:2: column text_b is missing"),
        (f"{HEAD},gold\ni1,?,x,y,A1\n", "answers.csv:2: gold: must be a, b, tie or a finite number"),
        (f"{HEAD},gold\ni1,?,x,y,a\ni2,?,x,y,0.5\n", "answers.csv:3: gold: '0.5', but gold at answers.csv:2 is a word"),
        (f"{HEAD},candidate_a,candidate_b,pair_id\ni1,?,x,y,u,v,p\ni1,?,z,y,u,v,q\n", "'u' names another text of item 'i1'"),
        (f"{HEAD},language\ni1,?,x,y,de de\n", "answers.csv:2: language: must be a language tag"),
        (f"{HEAD}\n", "no pairs"),
    ],
)  # fmt: skip
def test_a_bad_table_is_named_with_its_row(
    tmp_path: Path, serve: Serve, content: str, words: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    served = serve()
    Path("answers.csv").write_text(content, encoding="utf-8")
    assert command("audit", "answers.csv", "--base-url", served.base_url, "--model", "planted") == 2
    assert words in said(capsys)
    assert not served.asked
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--probes", "paddding"), "'paddding' is no probe; did you mean padding?"),
        (("--probes", "model_padding"), "name it with --edit-model"),
        (("--edit-model", "m"), "name one in --probes"),
        (("--max-cost", "1"), "--max-cost: no price is stated for planted"),
        (("--price", "1"), "--price: must be IN,OUT"),
        (("--price", "-1,0"), "--price: input should be greater than or equal to 0"),
        (("--header", "X"), "--header: must be 'Name: value'"),
        (("--header", "X: ${NOT_SET_HERE}"), "environment variable NOT_SET_HERE is not set"),
        (("--api-key-env", "NOT_SET_HERE"), "--api-key-env: environment variable NOT_SET_HERE is not set"),
        (("--query", "sig=${NOT_SET_HERE}"), "--query sig: environment variable NOT_SET_HERE is not set"),
        (("--extra-body", "[1]"), "--extra-body: must be a JSON object"),
        (("--verdict", "xml"), "--verdict: input should be 'auto', 'logprob', 'json' or 'text'"),
        (("--prompt", "chain_of_thought", "--verdict", "logprob"), "cannot be asked in mode logprob"),
        (("--prompt", "nowhere"), "nowhere"),
        (("--model", "planted"), "--model: planted is named twice"),
        (("--model", "b", "--model", "c", "--base-url", "http://127.0.0.1:1/v1"), "--base-url: give one for all, or one for each of the 3 models"),
        (("--columns", "none.yaml"), "none.yaml: no such file"),
    ],
)  # fmt: skip
def test_wrong_options_are_named(
    tmp_path: Path, serve: Serve, options: tuple[str, ...], words: str,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    served = serve()
    write(Path("answers.jsonl"), pairs(2))
    line = ("audit", "answers.jsonl", "--base-url", served.base_url, "--model", "planted", *options)
    assert command(*line) == 2
    assert words in said(capsys)
    assert not served.asked
    assert not Path("runs").exists()


@pytest.mark.tables
def test_columns_with_other_names(tmp_path: Path, serve: Serve) -> None:
    served = serve()
    rows = [
        {"question": row.pop("prompt"), "winner": "left" if row.pop("gold") > 0 else "right", **row} for row in pairs(3)
    ]
    write(tmp_path / "answers.jsonl", rows)
    (tmp_path / "columns.yaml").write_text("prompt: question\ngold: {column: winner, values: {left: a, right: b}}\n")
    line = ("audit", tmp_path / "answers.jsonl", "--base-url", served.base_url, "--model", "planted", "--quiet",
            "--columns", tmp_path / "columns.yaml", "--out", tmp_path / "o")  # fmt: skip
    assert command(*line) == 0
    assert sum(served.asked.values()) == 7
