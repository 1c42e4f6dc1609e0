"""Replaying and recording servers: an upstream's answers are given again, and no key is stored."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from judgeloop.commands.serve import serve
from judgeloop.errors import FolderMismatch, InvalidInput
from judgeloop.records import Call
from judgeloop.serving import protocol
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.planted import PlantedAnswerer
from judgeloop.serving.planted_spec import DraftSpec, PlantedSpec
from judgeloop.serving.protocol import Answerer, ServerAnswer, StreamedAnswer, incoming
from judgeloop.serving.recorded import RecordAnswerer, ReplayAnswerer
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette, Exchange

SECRET = "not-a-real-key-0123456789abcdef"
JUDGE = "<answer_a>\none\n</answer_a>\n<answer_b>\ntwo words here\n</answer_b>\n[[A]] or [[B]]"


@contextmanager
def served(answerer: Answerer, faults: Faults | None = None) -> Iterator[openai.OpenAI]:
    with (
        LocalServer(create_app(answerer, faults=faults)) as server,
        openai.OpenAI(base_url=server.base_url, api_key=SECRET, max_retries=0, timeout=5) as client,
    ):
        yield client


@contextmanager
def recorded(folder: Path, upstream: Answerer, faults: Faults | None = None) -> Iterator[openai.OpenAI]:
    with served(upstream, faults) as inner, served(RecordAnswerer(folder, str(inner.base_url))) as client:
        yield client


def ask(client: openai.OpenAI, content: str, call_id: str | None = None, **more: Any) -> dict[str, Any]:
    headers = {"x-judgeloop-call": call_id} if call_id else {}
    messages: Any = [{"role": "user", "content": content}]
    reply = client.chat.completions.create(model="planted", messages=messages, extra_headers=headers, **more)
    return reply.model_dump()


def streamed(client: openai.OpenAI, content: str, call_id: str | None = None) -> str:
    headers = {"x-judgeloop-call": call_id} if call_id else {}
    stream = client.chat.completions.create(
        model="planted",
        messages=[{"role": "user", "content": content}],
        stream=True,
        stream_options={"include_usage": True},
        extra_headers=headers,
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def planted() -> PlantedAnswerer:
    return PlantedAnswerer(PlantedSpec(length=0.5, draft=DraftSpec(length_mean=20)))


class Scripted:
    """Answers from a list, in order."""

    def __init__(self, *answers: ServerAnswer) -> None:
        self.answers = list(answers)
        self.calls = 0

    def models(self) -> list[str]:
        return ["planted"]

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        self.calls += 1
        return self.answers[min(self.calls, len(self.answers)) - 1]


def completion(text: str) -> dict[str, Any]:
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "planted", "choices": choices}


def exchange(call_id: str, content: str, reply: str, **more: Any) -> Exchange:
    call = Call(call_id, "", {"model": "planted", "messages": [{"role": "user", "content": content}], **more})
    return Exchange(call.call_id, call.key, call.body, 200, completion(reply), 1)


def stored(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return "".join(path.read_text(encoding="utf-8") for path in files)


def text(reply: dict[str, Any]) -> str:
    return str(reply["choices"][0]["message"]["content"])


def test_record_then_replay_gives_the_same_answers(tmp_path: Path) -> None:
    logprobs = {"logprobs": True, "top_logprobs": 20, "max_tokens": 1}

    def journey(client: openai.OpenAI) -> list[Any]:
        return [
            [model.id for model in client.models.list()],
            ask(client, "Tell me.", "s0/g0/draft/i/k0", seed=3),
            ask(client, JUDGE, "s0/g0/judge/i/m00/ab/r0", **logprobs),
            ask(client, "Tell me more."),
            streamed(client, "Tell me yet more.", "s0/g0/draft/i/k1"),
            streamed(client, "Tell me all."),
        ]

    with recorded(tmp_path, planted()) as client:
        first = journey(client)
    assert (tmp_path / "calls/s0/g00-draft.jsonl").exists()
    assert (tmp_path / "calls/foreign.jsonl").exists()
    with served(ReplayAnswerer(tmp_path)) as client:
        assert journey(client) == first
    assert SECRET not in stored(tmp_path)
    with served(planted()) as client:
        assert journey(client)[1:3] == first[1:3]


def test_a_replay_matches_by_call_id_and_body(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    for number in range(2):
        cassette.append(exchange(f"s{number}/g0/draft/i/k0", "Tell me.", f"draft {number}"))
    cassette.close()
    with served(ReplayAnswerer(tmp_path)) as client:
        assert text(ask(client, "Tell me.", "s1/g0/draft/i/k0")) == "draft 1"
        assert text(ask(client, "Tell me.", "s0/g0/draft/i/k0")) == "draft 0"
        with pytest.raises(openai.NotFoundError, match=r"same request is recorded as s[01]/g0/draft/i/k0"):
            ask(client, "Tell me.", "s2/g0/draft/i/k0")
        with pytest.raises(openai.NotFoundError, match=r"nearest recording s1/g0/draft/i/k0.*messages\[0\]") as caught:
            ask(client, "Tell them.", "s1/g0/draft/i/k0")
        assert caught.value.code == "not_recorded"
        assert client.models.list().data[0].id == "planted"


def test_foreign_repeats_are_served_in_recorded_order(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    for number in range(3):
        cassette.append(exchange(f"s{number}/g0/draft/i/k0", "Tell me.", f"draft {number}"))
    cassette.append(exchange("s0/g0/draft/i/k1", "Tell me.", "warm", temperature=1.0))
    cassette.close()
    with served(ReplayAnswerer(tmp_path)) as client:
        texts = [text(ask(client, "Tell me.")) for _ in range(5)]
        assert texts == ["draft 0", "draft 1", "draft 2", "draft 2", "draft 2"]
        assert text(ask(client, "Tell me.", temperature=1.0)) == "warm"
        with pytest.raises(openai.NotFoundError, match=r"nearest recording s0/g0/draft/i/k1.*temperature"):
            ask(client, "Tell me.", temperature=0.5)


def test_an_empty_folder_replays_nothing(tmp_path: Path) -> None:
    with served(ReplayAnswerer(tmp_path)) as client:
        assert client.models.list().data == []
        for call_id in (None, "s0/g0/draft/i/k0"):
            with pytest.raises(openai.NotFoundError, match="no recorded call"):
                ask(client, "Tell me.", call_id)


def test_recorded_faults_are_replayed_as_they_came(tmp_path: Path) -> None:
    cassette = Cassette(tmp_path, writable=True)
    error = {"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}
    for name, status, response, fault in (
        ("long", 400, error, ""),
        ("busy", 503, {"error": {"message": "busy"}}, "http_503"),
        ("gone", 502, None, "http_502"),
        ("html", 200, "<html>", "not_json"),
        ("empty", 200, {"choices": []}, "empty_choices"),
        ("silent", 0, None, "timeout"),
    ):
        call = Call(f"s0/g0/draft/{name}", "", {"model": "planted", "messages": [{"role": "user", "content": "x"}]})
        cassette.append(Exchange(call.call_id, call.key, call.body, status, response, 6, fault))
    cassette.close()
    with LocalServer(create_app(ReplayAnswerer(tmp_path))) as server:

        def post(name: str) -> httpx2.Response:
            body = {"model": "planted", "messages": [{"role": "user", "content": "x"}]}
            headers = {"x-judgeloop-call": f"s0/g0/draft/{name}"}
            return httpx2.post(f"{server.base_url}/chat/completions", json=body, headers=headers)

        assert (post("long").status_code, post("long").json()) == (400, error)
        assert (post("busy").status_code, post("busy").json()["error"]["message"]) == (503, "busy")
        assert (post("gone").status_code, post("gone").json()["error"]["message"]) == (502, "recorded: http_502")
        assert (post("html").status_code, post("html").text) == (200, "<html>")
        assert (post("empty").status_code, post("empty").json()) == (200, {"choices": []})
        with pytest.raises(httpx2.TransportError):
            post("silent")


def test_foreign_repeats_are_recorded_one_by_one(tmp_path: Path) -> None:
    for part in range(2):  # the recording goes on where it stopped
        answers = [ServerAnswer(200, completion(f"said {number}")) for number in (2 * part, 2 * part + 1)]
        with recorded(tmp_path, Scripted(*answers)) as client:
            for number in (2 * part, 2 * part + 1):
                assert text(ask(client, "Tell me.")) == f"said {number}"
    with served(ReplayAnswerer(tmp_path)) as client:
        assert [text(ask(client, "Tell me.")) for _ in range(4)] == [f"said {number}" for number in range(4)]
    calls = [entry.call for entry in Cassette(tmp_path, writable=False).exchanges()]
    assert [call.split("-")[0] for call in calls] == [f"foreign/{number}" for number in range(4)]


def test_a_recorded_call_is_not_paid_for_twice(tmp_path: Path) -> None:
    upstream = Scripted(ServerAnswer(503, {"error": {"message": "busy"}}), ServerAnswer(200, completion("once")))
    with recorded(tmp_path, upstream) as client:
        with pytest.raises(openai.InternalServerError, match="busy"):
            ask(client, "Tell me.", "s0/g0/draft/i/k0")
        for _ in range(3):
            assert text(ask(client, "Tell me.", "s0/g0/draft/i/k0")) == "once"
        with pytest.raises(openai.BadRequestError, match="not a call id"):
            ask(client, "Tell me.", "../../outside/x")
    assert upstream.calls == 2
    with served(ReplayAnswerer(tmp_path)) as client:
        assert text(ask(client, "Tell me.", "s0/g0/draft/i/k0")) == "once"
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "calls"}


def test_faults_of_the_upstream_are_passed_on_and_replayed(tmp_path: Path) -> None:
    rules = (
        Rule(status=429, retry_after_s=0.5, times=1),
        Rule(kind="not_json", times=2),
        Rule(kind="reset", times=3),
        Rule(status=401, times=4),
    )
    with recorded(tmp_path, planted(), Faults(rules=rules)) as client:
        with pytest.raises(openai.RateLimitError) as limited:
            ask(client, "Tell me.")
        assert limited.value.response.headers["retry-after"] == "0.5"
        raw = client.chat.completions.with_raw_response
        request: dict[str, Any] = {"model": "planted", "messages": [{"role": "user", "content": "Tell me."}]}
        assert raw.create(**request).text.startswith("<html>")
        with pytest.raises(openai.InternalServerError, match="cannot be reached"):
            ask(client, "Tell me.")
        with pytest.raises(openai.AuthenticationError):
            ask(client, "Tell me.")
        last = text(ask(client, "Tell me."))
    outcomes = [(entry.status, entry.fault) for entry in Cassette(tmp_path, writable=False).exchanges()]
    assert outcomes == [(429, "rate_limited"), (200, "not_json"), (200, "")]
    with served(ReplayAnswerer(tmp_path)) as client:
        with pytest.raises(openai.RateLimitError):
            ask(client, "Tell me.")
        assert client.chat.completions.with_raw_response.create(**request).text.startswith("<html>")
        assert text(ask(client, "Tell me.")) == last


@pytest.mark.parametrize("kind", ["truncated", "reset"])
def test_a_stream_that_breaks_off_is_not_recorded(tmp_path: Path, kind: Any) -> None:
    with recorded(tmp_path, planted(), Faults(rules=(Rule(kind=kind),))) as client:
        with pytest.raises((openai.APIError, httpx2.TransportError)):
            streamed(client, "Tell me.", "s0/g0/draft/i/k0")
        whole = streamed(client, "Tell me.", "s0/g0/draft/i/k0")
    assert len(Cassette(tmp_path, writable=False)) == 1
    with served(ReplayAnswerer(tmp_path)) as client:
        assert streamed(client, "Tell me.", "s0/g0/draft/i/k0") == whole


def test_a_stream_that_ends_early_is_passed_on_and_not_recorded(tmp_path: Path) -> None:
    async def events() -> AsyncIterator[bytes]:
        yield protocol.event({"choices": [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]})

    with recorded(tmp_path, Scripted(StreamedAnswer(200, {}, {}, events()))) as client:
        messages: Any = [{"role": "user", "content": "Tell me."}]
        chunks = list(client.chat.completions.create(model="planted", messages=messages, stream=True))
        assert [chunk.choices[0].delta.content for chunk in chunks] == ["half"]
    assert not (tmp_path / "calls").exists()


class Leaky(Scripted):
    """An upstream that says back what it was sent, keys and all."""

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        sent = {name.decode(): value.decode() for name, value in incoming.get().headers}
        self.sent = {**sent, "query": incoming.get().query}
        echo = json.dumps(self.sent) + base64.b64encode(json.dumps(self.sent).encode()).decode()
        if body["messages"][0]["content"] == "fail":
            return ServerAnswer(429, {"error": {"message": f"quota of {echo}", "code": sent["api-key"]}})
        return ServerAnswer(200, completion(f"you sent {echo}"))


def test_no_key_is_stored_even_if_the_upstream_echoes_it(tmp_path: Path) -> None:
    upstream = Leaky()
    other, short = "azure-key-98765432109876", "abc123xy"
    with recorded(tmp_path, upstream) as client:
        more: dict[str, Any] = {"extra_query": {"api-version": "7", "subscription-key": short}}
        client = client.with_options(default_headers={"api-key": other, "cookie": f"session={other}"})
        answer = ask(client, "hello", **more)
        assert SECRET in text(answer)  # the client gets the upstream's words
        assert upstream.sent["authorization"] == f"Bearer {SECRET}"
        assert upstream.sent["api-key"] == other
        assert upstream.sent["query"] == f"api-version=7&subscription-key={short}"
        with pytest.raises(openai.RateLimitError):
            ask(client, "fail", **more)
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(
                model="planted",
                messages=[{"role": "user", "content": "fail"}],
                stream=True,
                extra_query=more["extra_query"],
            )
    files = stored(tmp_path)
    assert "you sent" in files
    assert SECRET not in files
    assert other not in files
    decoded = [base64.b64decode(part + "=" * (-len(part) % 4)) for part in re.findall(r"[A-Za-z0-9+/]{40,}", files)]
    assert not [text for text in decoded if SECRET[4:-4].encode() in text or other[4:-4].encode() in text]
    assert "authorization" in files  # the header's name, in the upstream's answer, with its value struck out
    assert '\\"Bearer ***' in files or '"***' in files


def test_keys_of_clients_go_to_no_other_machine_unencrypted_unless_that_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=r"the keys of clients would go to gpu\.example:8000 unencrypted"):
        serve(record=tmp_path, upstream="http://me:secret@gpu.example:8000/v1")
    served: list[str] = []
    monkeypatch.setattr("judgeloop.commands.serve.serve_forever", lambda *_, **__: served.append("yes"))
    for number, upstream in enumerate(("http://gpu.example/v1", "https://gpu.example/v1", "http://127.0.0.1:9/v1")):
        serve(record=tmp_path / str(number), upstream=upstream, in_clear=number == 0)
    assert len(served) == 3


def test_an_unreachable_upstream_is_a_502_and_not_recorded(tmp_path: Path) -> None:
    with served(RecordAnswerer(tmp_path, "http://127.0.0.1:9/v1")) as client:
        with pytest.raises(openai.InternalServerError, match="cannot be reached") as caught:
            ask(client, "Tell me.")
        assert caught.value.status_code == 502
        with pytest.raises(openai.InternalServerError, match="cannot be reached"):
            client.models.list()
    assert not (tmp_path / "calls").exists()


def test_one_process_records_into_a_folder(tmp_path: Path) -> None:
    first = RecordAnswerer(tmp_path / "recording", "http://127.0.0.1:9/v1")
    with pytest.raises(FolderMismatch, match="another judgeloop process is writing here"):
        RecordAnswerer(tmp_path / "recording", "http://127.0.0.1:9/v1")
    asyncio.run(first.aclose())
    asyncio.run(RecordAnswerer(tmp_path / "recording", "http://127.0.0.1:9/v1").aclose())
