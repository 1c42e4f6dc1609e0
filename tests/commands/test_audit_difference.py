"""Another audit's folder is refused with the setting that differs; and what a 404 and --threads say."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import judgeloop
from audit_case import settings_of
from audit_pairs import pairs, write
from command_line import command
from conftest import Served, serving, tables_alone
from judgeloop.errors import EndpointFailed, FolderMismatch

Serve = Callable[..., Served]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Path]]:
    """The audit that the others differ from, and its server."""
    folder = tmp_path_factory.mktemp("recorded") / "o"
    with serving(at_hand=True) as serve, tables_alone():
        served = serve(model=["planted", "m2"])
        audited(served, folder)
        yield served, folder


def audited(served: Served, out: Path, rows: int = 2, **options: Any) -> judgeloop.Audit:
    said = {"model": "planted", "verdict": "json", **options}
    return judgeloop.audit(pd.DataFrame(pairs(rows)), base_url=served.base_url, out=out, **said)


@pytest.mark.tables
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeats": 2}, r"--repeats is 1 there and 2 here; give another --out, or the same settings"),
        ({"model": ["planted", "m2"]}, r"--model is planted there and planted, m2 here"),
        ({"temperature": 0.5, "seed": 3}, r"--temperature is 0.0 there and 0.5 here; --seed is 0 there and 3 here"),
        ({"probes": "bold"}, r"--probes is none there and bold here"),
        ({"endpoint": {"extra_body": {"top_k": 1}}}, r"--extra-body is not given there and \{'top_k': 1\} here"),
        ({"prompt": "few_shot"}, r"--prompt is pairwise there and few_shot here"),
        ({"rows": 4}, r"the rows of the pairs file or the text of the prompt have changed"),
    ],
)  # fmt: skip
def test_the_setting_that_differs_is_named(recorded: tuple[Served, Path], change: dict[str, Any], words: str) -> None:
    served, folder = recorded
    asked = sum(served.asked.values())
    with pytest.raises(FolderMismatch, match=words):
        audited(served, folder, **change)
    assert sum(served.asked.values()) == asked


@pytest.mark.tables
def test_what_may_change_asks_nothing_after_a_refusal_too(recorded: tuple[Served, Path], tmp_path: Path) -> None:
    served, folder = recorded
    shutil.copytree(folder, tmp_path / "o")
    asked = sum(served.asked.values())
    with pytest.raises(FolderMismatch):
        audited(served, tmp_path / "o", repeats=2)
    audited(served, tmp_path / "o", concurrency=2, mitigate="swap_average", price=(1.0, 1.0))
    assert sum(served.asked.values()) == asked


def test_a_404_is_no_matter_of_the_key(tmp_path: Path, serve: Serve) -> None:
    served = serve(model=["planted"])
    for url, model in ((served.base_url, "other"), (served.base_url.replace("/v1", "/v7"), "planted")):
        with pytest.raises(EndpointFailed, match=r"404.*; check base_url and model, then run") as caught:
            judgeloop.audit(pd.DataFrame(pairs(2)), base_url=url, model=model, verdict="json", out=tmp_path / model)
        assert "key" not in str(caught.value)


def test_threads_are_the_engine_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("answers.jsonl"), pairs(2))
    assert (
        command("audit", "answers.jsonl", "--base-url", "http://127.0.0.1:1/v1", "--model", "m", "--threads", "2") == 2
    )
    assert "--threads: goes with --engine only" in capsys.readouterr().err
    assert command("audit", "answers.jsonl", "--engine", "llama_cpp", "--model", "m", "--threads", "2", "--plan") == 0
    made = settings_of("answers.jsonl", engine="llama_cpp", model="m", endpoint={"threads": 2})
    again = settings_of("answers.jsonl", engine="llama_cpp", model="m")
    assert made.endpoints["m"].threads == 2
    assert made.identity() == again.identity()
