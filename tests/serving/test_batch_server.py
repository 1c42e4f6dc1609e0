"""The local server's Batch API, as OpenAI's own client sees it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types import Batch, FileObject

from conftest import CountingAnswerer
from judgeloop.records import Call
from judgeloop.serving import batch_api
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import PlantedSpec
from judgeloop.serving.recorded import ReplayAnswerer
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette, Exchange

SPEC = PlantedSpec.model_validate({"position": 0.4})


def request(name: str, **changes: Any) -> dict[str, Any]:
    body = {"model": "planted", "messages": [{"role": "user", "content": f"Write of {name}."}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **changes}


def lines(*requests: Any) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in requests).encode()


def asking(server: LocalServer) -> openai.OpenAI:
    """A client that checks what it is answered against its own types."""
    return openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, _strict_response_validation=True)


@pytest.fixture
def client() -> Iterator[openai.OpenAI]:
    slow = Rule(match="slow", kind="slow", delay_s=30, times="always")
    with (
        LocalServer(create_app(CountingAnswerer(SPEC), faults=Faults(rules=(slow,)))) as server,
        asking(server) as openai_client,
    ):
        yield openai_client


def sent(client: openai.OpenAI, content: bytes, **changes: Any) -> Batch:
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    return client.batches.create(
        **{"completion_window": "24h", "endpoint": "/v1/chat/completions", "input_file_id": file.id, **changes}
    )


def ended(client: openai.OpenAI, batch: Batch) -> Batch:
    deadline = time.monotonic() + 20
    while batch.status not in ("completed", "failed", "cancelled"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
        batch = client.batches.retrieve(batch.id)
    return batch


def output(client: openai.OpenAI, file_id: str | None) -> dict[str, dict[str, Any]]:
    assert file_id is not None
    rows = [json.loads(line) for line in client.files.content(file_id).read().splitlines()]
    return {row["custom_id"]: row for row in rows}


def test_a_batch_answers_as_live_calls_of_the_same_names_do(client: openai.OpenAI) -> None:
    unknown = request("u", body={"model": "other", "messages": [{"role": "user", "content": "x"}]})
    batch = sent(client, lines(request("a"), unknown, request("b/c")), metadata={"made_by": "a test"})
    done = ended(client, batch)
    assert (done.status, done.metadata, done.endpoint) == ("completed", {"made_by": "a test"}, "/v1/chat/completions")
    assert done.request_counts is not None
    assert done.request_counts.model_dump() == {"completed": 2, "failed": 1, "total": 3}
    assert done.completed_at is not None
    good, bad = output(client, done.output_file_id), output(client, done.error_file_id)
    for name in ("a", "b/c"):
        body = request(name)["body"]
        live = client.chat.completions.with_raw_response.create(**body, extra_headers={"x-judgeloop-call": name})
        assert good[name]["response"]["status_code"] == 200
        assert good[name]["response"]["body"] == live.http_response.json()
        assert good[name]["error"] is None
    assert bad["u"]["response"]["status_code"] == 404
    assert bad["u"]["response"]["body"]["error"]["code"] == "model_not_found"


def test_files_are_listed_looked_up_read_and_deleted(client: openai.OpenAI) -> None:
    content = lines(request("a")) + b"\xff\r\n\x00--boundary"
    file = client.files.create(file=("r.jsonl", content), purpose="batch")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "r.jsonl", "batch")
    assert client.files.content(file.id).read() == content
    assert client.files.retrieve(file.id) == file
    assert [listed.id for listed in client.files.list()] == [file.id]
    assert client.files.delete(file.id).deleted
    for lookup in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            lookup(file.id)
    assert FileObject.model_validate(file.model_dump())


def test_what_is_no_upload_is_refused(client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(openai.BadRequestError, match="purpose 'batch' or 'fine-tune'"):
        client.files.create(file=("r.jsonl", b"x"), purpose="vision")
    url = f"{client.base_url}files"
    for sending, words in (
        ({"json": {}}, "uploaded as multipart/form-data"),
        ({"files": {"other": b"x"}, "data": {"purpose": "batch"}}, "Missing required parameter: 'file'"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "Missing boundary"),
        ({"content": b"no part", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "cannot be read"),
    ):
        answer = httpx2.post(url, **sending)  # type: ignore[arg-type]
        assert (answer.status_code, words in answer.text) == (400, True), answer.text
    monkeypatch.setattr(batch_api, "MOST_BYTES", 500)
    client.files.create(file=("r.jsonl", b"x" * 100), purpose="batch")
    with pytest.raises(openai.APIStatusError, match="delete some"):
        client.files.create(file=("r.jsonl", b"x" * 450), purpose="batch")


@pytest.mark.parametrize(
    ("content", "line", "code"),
    [
        (lines(request("a")) + b"{", 2, "invalid_json_line"),
        (lines({"custom_id": "a"}), 1, "invalid_url"),
        (lines(request("")), 1, "missing_required_parameter"),
        (lines(request("a"), request("b", url="/v1/embeddings")), 2, "invalid_url"),
        (lines(request("a"), request("a")), 2, "duplicate_custom_id"),
        (lines(request("a", body={"messages": []})), 1, "missing_required_parameter"),
        (b"\n", None, "empty_file"),
    ],
)
def test_a_faulty_line_fails_the_batch_before_a_call_is_answered(
    client: openai.OpenAI, content: bytes, line: int | None, code: str
) -> None:
    done = ended(client, sent(client, content))
    assert done.status == "failed"
    assert done.errors is not None
    assert done.errors.data is not None
    assert [(error.line, error.code) for error in done.errors.data] == [(line, code)]
    assert done.output_file_id is None


def test_what_is_no_batch_is_refused(client: openai.OpenAI) -> None:
    for changes, words in (
        ({"input_file_id": "file-x"}, "No such File object: file-x"),
        ({"endpoint": "/v1/embeddings"}, "batches /v1/chat/completions alone"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"metadata": {"a": 1}}, "metadata"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            sent(client, lines(request("a")), **changes)
    with pytest.raises(openai.NotFoundError, match="No batch found"):
        client.batches.retrieve("batch_x")
    assert (
        httpx2.post(f"{client.base_url}batches", content=b"[", headers={"content-type": "application/json"}).status_code
        == 400
    )


def test_a_batch_is_cancelled_with_what_it_has(client: openai.OpenAI) -> None:
    batch = sent(client, lines(request("a"), request("slow")))
    while (now := client.batches.retrieve(batch.id)).request_counts is None or not now.request_counts.completed:
        time.sleep(0.01)
    assert client.batches.cancel(batch.id).status == "cancelling"
    done = ended(client, batch)
    assert done.status == "cancelled"
    assert set(output(client, done.output_file_id)) == {"a"}
    with pytest.raises(openai.ConflictError, match="cancelled already"):
        client.batches.cancel(batch.id)


def test_batches_are_listed_newest_first_and_the_oldest_are_forgotten(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_api, "MOST_BATCHES", 3)
    ended_ids = [ended(client, sent(client, lines(request(f"r{n}")))).id for n in range(5)]
    assert [batch.id for batch in client.batches.list(limit=2)] == ended_ids[:1:-1]  # in two pages
    assert client.batches.list(limit=2).has_more
    running = [sent(client, lines(request("slow"))).id for _ in range(3)]
    with pytest.raises(openai.RateLimitError, match="3 batches are under way"):
        sent(client, lines(request("a")))
    assert [batch.id for batch in client.batches.list()] == running[::-1]


def test_faults_on_purpose_hit_lines_and_the_api(tmp_path: Path) -> None:
    rules = (Rule(match="^a$", status=429, message="slowly"), Rule(match="^b$", kind="reset"),
             Rule(match="^c$", kind="null_content"), Rule(match="^d$", kind="empty_choices"),
             Rule(match="^e$", kind="context_length"), Rule(match="^batches/retrieve$", status=500))  # fmt: skip
    app = create_app(PlantedAnswerer(SPEC), faults=Faults(rules=rules))
    with LocalServer(app) as server, asking(server) as client:
        batch = sent(client, lines(*(request(name) for name in "abcdef")))
        with pytest.raises(openai.InternalServerError):
            client.batches.retrieve(batch.id)
        done = ended(client, batch)
        good, bad = output(client, done.output_file_id), output(client, done.error_file_id)
    assert bad["a"]["response"]["status_code"] == 429
    assert bad["b"] == {"id": "batch_req_1", "custom_id": "b", "response": None,
                        "error": {"code": "reset", "message": "planted fault"}}  # fmt: skip
    assert bad["e"]["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert good["c"]["response"]["body"]["choices"][0]["message"]["content"] is None
    assert good["d"]["response"]["body"]["choices"] == []
    assert good["f"]["response"]["body"]["choices"][0]["message"]["content"]


def test_a_recording_is_replayed_by_batches_and_a_recorder_has_none(tmp_path: Path) -> None:
    cassette, row = Cassette(tmp_path, writable=True), request("a/b/c")
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "as recorded"}}]}
    cassette.append(Exchange("a/b/c", Call("", "", row["body"]).key, row["body"], 200, body, 1))
    broken = request("a/b/d")
    cassette.append(Exchange("a/b/d", Call("", "", broken["body"]).key, broken["body"], 0, None, 6, "timeout"))
    cassette.close()
    with LocalServer(create_app(ReplayAnswerer(tmp_path))) as server, asking(server) as client:
        done = ended(client, sent(client, lines(row, broken, request("unrecorded"))))
        good, bad = output(client, done.output_file_id), output(client, done.error_file_id)
    assert good["a/b/c"]["response"]["body"] == body
    assert bad["a/b/d"]["error"]["code"] == "connection"
    assert "is not recorded" in bad["unrecorded"]["response"]["body"]["error"]["message"]
    with LocalServer(create_app(PlantedAnswerer(SPEC), batches=False)) as server:
        for path in ("files", "batches"):
            assert httpx2.post(f"{server.base_url}/{path}").status_code == 404
