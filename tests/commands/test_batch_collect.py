"""Audits by batch files that somebody else answers: the commands that are said, and output files taken back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from audit_pairs import pairs, write
from batch_case import audited, case, exchanges, vllm_output, write_lines
from command_line import command
from conftest import CountingAnswerer, Served, tables
from judgeloop.errors import AnswersOutstanding, InvalidInput
from judgeloop.records import Call
from judgeloop.serving.faults import Rule
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.server import LocalServer, create_app

Serve = Callable[..., Served]


def test_without_a_batch_api_the_next_commands_are_said_and_their_output_is_the_live_audit(
    tmp_path: Path, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = {"position": 0.4, "length": 0.8}
    live = audited(serve(**spec), tmp_path / "live", write(tmp_path / "a.jsonl", pairs(4)), verdict="logprob")
    with LocalServer(create_app(CountingAnswerer(PlantedSpec.model_validate(spec)), batches=False)) as server:
        assert command("audit", "a.jsonl", "--base-url", server.base_url, "--model", "planted", "--verdict", "logprob",
                       "--batch", "--out", "o") == 6  # fmt: skip
        message = capsys.readouterr()
        assert "no Batch API here" in message.err
        assert "8 calls wait in o/batch/requests-001.jsonl" in message.err
        asks, takes = message.out.splitlines()
        assert asks == "vllm run-batch -i o/batch/requests-001.jsonl -o o/batch/output-001.jsonl --model planted"
        requests = (tmp_path / "o" / "batch" / "requests-001.jsonl").read_bytes()
        assert command(*shlex.split(takes)[1:], "--replay", "live") == 2
        assert "give one of them" in capsys.readouterr().err
        vllm_output(Path("o/batch/requests-001.jsonl"), Path("o/batch/output-001.jsonl"), spec)
    # No endpoint answers any more, and none needs to.
    assert command(*shlex.split(takes)[1:], "--quiet") == 0
    assert capsys.readouterr().out == "o/report.html\n"
    found = exchanges(live.path)
    assert exchanges(tmp_path / "o") == found
    assert tables(tmp_path / "o") == tables(live.path)
    assert (tmp_path / "o" / "estimates.csv").read_bytes() == (live.path / "estimates.csv").read_bytes()
    for line in requests.splitlines():
        one = json.loads(line)
        assert any(Call(call, "", one["body"]).key == key and one["custom_id"] == f"{call}#{key[7:19]}" for call, key, *_ in found)  # fmt: skip


@pytest.mark.tables
@pytest.mark.parametrize("change", ["texts", "prompt", "temperature", "digest"])
def test_answers_to_other_requests_of_the_same_ids_are_refused(tmp_path: Path, change: str) -> None:
    """Texts swapped, another prompt or temperature, an id without a digest: the call ids are the same, the requests not."""
    spec, rows = {"length": 0.8}, pairs(4)
    swapped = [{**row, "text_a": row["text_b"], "text_b": row["text_a"]} for row in rows]
    there = {"prompt": {"prompt": "few_shot"}, "temperature": {"temperature": 0.5}}.get(change, {})
    answerer = CountingAnswerer(PlantedSpec.model_validate(spec))
    with LocalServer(create_app(answerer, batches=False)) as server:

        def asked(name: str, source: list[dict[str, Any]], **more: Any) -> Path:
            with pytest.raises(AnswersOutstanding) as outstanding:
                audited(server, tmp_path / name, pd.DataFrame(source), verdict="logprob", batch=True, **more)  # type: ignore[arg-type]
            return outstanding.value.requests[0][1]

        foreign = asked("there", swapped if change == "texts" else rows, **there)
        own = asked("here", rows)
        answers = vllm_output(foreign, tmp_path / "foreign.jsonl", spec)
        if change == "digest":
            bare = [{**row, "custom_id": row["custom_id"].partition("#")[0]} for row in answers]
            write_lines(tmp_path / "foreign.jsonl", bare)
        kept = vllm_output(own, tmp_path / "own.jsonl", spec)
        mixed = write_lines(tmp_path / "mixed.jsonl", [*kept[:3], json.loads((tmp_path / "foreign.jsonl").read_text().splitlines()[3])])  # fmt: skip
        message = rf"^{re.escape(str(mixed))}:4: custom_id: answers audit/judge/\S+ as another request has it .* have {re.escape(str(own.parent))}/requests-002.jsonl answered .*recorded \(3 answers\)$"
        with pytest.raises(InvalidInput, match=message):
            audited(server, tmp_path / "here", pd.DataFrame(rows), verdict="logprob", collect=[mixed])  # type: ignore[arg-type]
        assert len(exchanges(tmp_path / "here")) == 3
        with pytest.raises(InvalidInput, match=r"another request .* \(and 7 more such lines\)"):
            audited(
                server, tmp_path / "here", pd.DataFrame(rows), verdict="logprob", collect=[tmp_path / "foreign.jsonl"]
            )  # type: ignore[arg-type]
        assert len(exchanges(tmp_path / "here")) == 3
        audited(server, tmp_path / "here", pd.DataFrame(rows), verdict="logprob", collect=[tmp_path / "own.jsonl"])  # type: ignore[arg-type]
    assert len(exchanges(tmp_path / "here")) == 8


def test_a_reply_of_another_model_is_said(tmp_path: Path) -> None:
    for model, notes in (("planted-2026-01-31", 0), ("org/planted", 0), ("planted-mini", 1), ("other", 1)):
        with case(tmp_path / model.replace("/", "-"), calls=1, batches=False) as some:
            with pytest.raises(AnswersOutstanding) as outstanding:
                some.run()
            rows = vllm_output(outstanding.value.requests[0][1], tmp_path / "o.jsonl")
            rows[0]["response"]["body"]["model"] = model
            with pytest.raises(AnswersOutstanding):
                some.run(write_lines(tmp_path / "o.jsonl", rows))
            found = [
                note for note in some.heard.notes if f"1 answer to requests for planted name the model {model}" in note
            ]
            assert len(found) == notes, model


def test_with_no_server_at_all_the_files_wait_too(tmp_path: Path) -> None:
    with case(tmp_path / "o", calls=1) as some:
        pass
    with pytest.raises(
        AnswersOutstanding, match=r"no server answers .* 1 call wait in .*requests-001\.jsonl"
    ) as outstanding:
        some.run()
    vllm_output(outstanding.value.requests[0][1], tmp_path / "first.jsonl")
    with pytest.raises(AnswersOutstanding, match="1 answer recorded, 1 call without one: audit/edit/last"):
        some.run(tmp_path / "first.jsonl")


def test_missing_foreign_double_and_malformed_lines_are_named(tmp_path: Path) -> None:
    with case(tmp_path / "o", batches=False) as some:
        with pytest.raises(AnswersOutstanding) as outstanding:
            some.run()
        ((model, requests),) = outstanding.value.requests
        assert model == "planted"
        rows = vllm_output(requests, tmp_path / "all.jsonl")
        # One is missing, one is there twice, one is nobody's.
        foreign = {**rows[0], "custom_id": "audit/elsewhere#0123456789ab"}
        part = write_lines(tmp_path / "part.jsonl", [rows[0], foreign, rows[0], *rows[1:3]])
        with pytest.raises(AnswersOutstanding) as outstanding:
            some.run(part)
        message = str(outstanding.value)
        left = some.folder.path / "batch" / "requests-002.jsonl"
        assert f"3 answers recorded, 1 call without one: audit/edit/c3 ({left}:1)" in message
        assert [path for _, path in outstanding.value.requests] == [left]
        assert not requests.exists()  # what it asks is answered
        assert f"{part}:2: audit/elsewhere" in some.heard.notes[0]
        assert f"{part}:3: audit/edit/c0 (first at {part}:1)" in some.heard.notes[1]
        # The same file again changes nothing.
        with pytest.raises(AnswersOutstanding, match="0 answers recorded, 1 call without one"):
            some.run(part)
        torn = tmp_path / "torn.jsonl"
        torn.write_text(json.dumps(rows[3]) + '\n{"custom_id": "audit/ed\n', encoding="utf-8")
        with pytest.raises(InvalidInput, match=rf"^{re.escape(str(torn))}:2: not valid JSON .*\(1 answer\), mend"):
            some.run(torn)
        assert len(some.recorded()) == 4
        with pytest.raises(InvalidInput, match=r"none\.jsonl: cannot be read"):
            some.run(tmp_path / "none.jsonl")
        # The last call hangs on the others.
        with pytest.raises(AnswersOutstanding) as outstanding:
            some.run(part)
        vllm_output(outstanding.value.requests[0][1], tmp_path / "last.jsonl")
        some.run(tmp_path / "last.jsonl")
        assert len(some.recorded()) == 5
        assert not list(some.folder.path.rglob("requests-*"))


def test_failed_lines_of_a_collected_file_count_once_a_file(tmp_path: Path) -> None:
    failures: list[dict[str, Any]] = [
        {"response": {"status_code": 500, "request_id": "r", "body": None}, "error": "engine died"},
        {"response": {"status_code": 400, "request_id": "r", "body": None},
         "error": {"error": {"message": "maximum context length is 10 tokens", "type": "BadRequestError", "code": 400}}},
        {"response": None, "error": {"code": "batch_expired", "message": "not in time"}},
    ]  # fmt: skip
    with case(tmp_path / "o", batches=False, calls=4) as some:
        with pytest.raises(AnswersOutstanding) as outstanding:
            some.run()
        rows = vllm_output(outstanding.value.requests[0][1], tmp_path / "good.jsonl")
        bad = [{**row, **failure} for row, failure in zip(rows, failures, strict=False)]
        first = write_lines(tmp_path / "first.jsonl", [*bad, rows[3]])
        for _ in range(3):
            with pytest.raises(AnswersOutstanding, match="2 calls without one"):
                some.run(first)
        assert some.jobs().failures == {"audit/edit/c0": 1, "audit/edit/c2": 1}
        some.run(write_lines(tmp_path / "second.jsonl", [{**bad[0], "id": "x"}, {**bad[2], "id": "x"}]))
        found = {
            call.rpartition("/")[2]: (one.status, one.fault, one.attempts) for call, one in some.recorded().items()
        }
    assert found == {"c0": (500, "http_500", 2), "c1": (400, "", 1), "c2": (0, "batch_expired", 2), "c3": (200, "", 1)}


def test_the_output_of_a_running_batch_may_be_given_by_hand(tmp_path: Path) -> None:
    with case(tmp_path / "o", Rule(match="c0$", kind="slow", delay_s=30, times=1), calls=2) as some:

        def stop(text: str) -> None:
            if text.startswith("waiting"):
                raise KeyboardInterrupt

        some.heard.stage = stop  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            some.run()
        some.heard.stage = lambda _: None  # type: ignore[method-assign]
        requests = some.jobs().requests(some.jobs().all[0])
        rows = vllm_output(requests, tmp_path / "all.jsonl")
        with pytest.raises(
            AnswersOutstanding, match=r"1 call without one.* a batch is under way .* go on with --batch"
        ):
            some.run(write_lines(tmp_path / "part.jsonl", rows[:1]))
        assert [job.step for job in some.jobs().all] == ["sent"]
