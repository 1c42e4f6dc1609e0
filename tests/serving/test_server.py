"""The local server, through the real openai client and raw sockets on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import openai
import pytest

from judgeloop.errors import InvalidInput
from judgeloop.serving import protocol
from judgeloop.serving.protocol import AnswerError, Incoming, ServerAnswer, StreamedAnswer, error_answer, incoming
from judgeloop.serving.server import LocalServer, create_app

USER = [{"role": "user", "content": "hi"}]


def completion(text: str | None, **more: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        **more,
    }


class Echo:
    """Answers with the call id and the last message; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, Any], str | None, Incoming]] = []
        self.closed = False

    def models(self) -> list[str]:
        return ["m", "org/other"]

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        self.requests.append((body, call_id, incoming.get()))
        text = body["messages"][-1]["content"]
        if text == "crash":
            raise KeyError("a defect")
        if text == "refuse":
            raise AnswerError(error_answer(418, "teapot", code="teapot"))
        return ServerAnswer(200, completion(f"{call_id}: {text}"), {"x-request-id": "r1"})

    async def aclose(self) -> None:
        self.closed = True


@contextmanager
def served(**options: Any) -> Iterator[tuple[LocalServer, openai.OpenAI]]:
    with (
        LocalServer(create_app(Echo(), **options)) as server,
        openai.OpenAI(base_url=server.base_url, api_key="none", max_retries=0, timeout=5) as client,
    ):
        yield server, client


JSON = {"content-type": "application/json"}
Served = tuple[LocalServer, openai.OpenAI]


@pytest.fixture(name="shared", scope="module")
def _shared() -> Iterator[Served]:
    with served() as pair:
        yield pair


def ask(client: openai.OpenAI, call_id: str | None = "c1", text: str = "hi", **more: Any) -> str | None:
    headers = {"x-judgeloop-call": call_id} if call_id else {}
    messages: Any = [{"role": "user", "content": text}]
    reply = client.chat.completions.create(model="m", messages=messages, extra_headers=headers, **more)
    return reply.choices[0].message.content


def test_models_and_one_model(shared: Served) -> None:
    client = shared[1]
    assert [model.id for model in client.models.list()] == ["m", "org/other"]
    assert client.models.retrieve("org/other").id == "org/other"
    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        client.models.retrieve("none")
    assert caught.value.code == "model_not_found"


def test_a_completion_with_its_usage_call_id_and_headers(shared: Served) -> None:
    client = shared[1]
    raw = client.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-judgeloop-call": "s0/g0/judge/x"}
    )
    reply = raw.parse()
    assert reply.choices[0].message.content == "s0/g0/judge/x: hi"
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (3, 2)
    assert raw.headers["x-request-id"] == "r1"
    assert ask(client, None) == "None: hi"


def test_a_call_id_may_hold_any_letters(shared: Served) -> None:
    server = shared[0]
    response = httpx2.post(
        f"{server.base_url}/chat/completions",
        json={"model": "m", "messages": USER},
        headers=[(b"x-judgeloop-call", "s0/g0/draft/Straße-東".encode())],
    )
    assert response.json()["choices"][0]["message"]["content"] == "s0/g0/draft/Straße-東: hi"


def test_headers_and_query_reach_the_answerer() -> None:
    echo = Echo()
    with LocalServer(create_app(echo)) as server:
        url = f"{server.base_url}/chat/completions?api-version=7"
        httpx2.post(url, json={"model": "m", "messages": USER}, headers={"authorization": "Bearer k"})
    _, _, request = echo.requests[0]
    assert (b"authorization", b"Bearer k") in request.headers
    assert request.query == "api-version=7"
    assert echo.closed


@pytest.mark.parametrize("include_usage", [False, True])
def test_streaming_gives_the_same_text(include_usage: bool, shared: Served) -> None:
    text = "a  long\n\n**answer** with ünïcode 🙂 and space at its end  "
    client = shared[1]
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    stream = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], stream=True, **options
    )
    chunks = list(stream)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == f"None: {text}"
    assert len(chunks) > 8
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert [usage.total_tokens for usage in usages] == ([5] if include_usage else [])


def test_a_stream_ends_with_done(shared: Served) -> None:
    server = shared[0]
    body = {"model": "m", "messages": USER, "stream": True}
    response = httpx2.post(f"{server.base_url}/chat/completions", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")


def test_events_are_relayed_as_they_come() -> None:
    release = threading.Event()

    class Slow(Echo):
        async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
            async def events() -> Any:
                yield protocol.event({"choices": [{"index": 0, "delta": {"content": "early"}, "finish_reason": None}]})
                await asyncio.to_thread(release.wait, 5)
                yield protocol.DONE

            return StreamedAnswer(200, {}, {}, events())

    with LocalServer(create_app(Slow())) as server:
        body = {"model": "m", "messages": USER, "stream": True}
        with httpx2.stream("POST", f"{server.base_url}/chat/completions", json=body) as response:
            lines = response.iter_lines()
            assert "early" in next(lines)
            assert not release.is_set()
            release.set()
            assert "data: [DONE]" in list(lines)


BAD_BODIES: list[tuple[Any, str]] = [
    (b"{not json", "valid JSON"),
    (b"", "valid JSON"),
    (b"\xff\xfe", "valid JSON"),
    (b"[" * 100_000, "valid JSON"),
    (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "valid JSON"),
    (b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}', "valid JSON"),
    ([1, 2], "JSON object"),
    ({"messages": USER}, "model"),
    ({"model": 3, "messages": USER}, "model"),
    ({"model": "m"}, "messages"),
    ({"model": "m", "messages": []}, "messages"),
    ({"model": "m", "messages": "hi"}, "messages"),
    ({"model": "m", "messages": ["hi"]}, "role"),
    ({"model": "m", "messages": [{"content": "hi"}]}, "role"),
    ({"model": "m", "messages": [{"role": "user", "content": 7}]}, "content"),
    ({"model": "m", "messages": USER, "stream": "yes"}, "stream"),
    ({"model": "m", "messages": USER, "temperature": "hot"}, "temperature"),
    ({"model": "m", "messages": USER, "temperature": True}, "temperature"),
    ({"model": "m", "messages": USER, "max_tokens": 1.5}, "max_tokens"),
    ({"model": "m", "messages": USER, "max_tokens": 0}, "max_tokens"),
    ({"model": "m", "messages": USER, "response_format": "json"}, "response_format"),
]


def test_malformed_requests_get_openai_error_bodies(shared: Served) -> None:
    server, client = shared
    for body, word in BAD_BODIES:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = httpx2.post(f"{server.base_url}/chat/completions", content=content, headers=JSON)
        assert response.status_code == 400, body
        error = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert word in error["message"]
        assert error["type"] == "invalid_request_error"
    assert ask(client) == "c1: hi"


def test_unknown_paths_and_methods(shared: Served) -> None:
    server, client = shared
    root = server.base_url.removesuffix("/v1")
    for path in ("/", "/v1", "/v1/", "/v2/models", "/v1/completions", "/v1/chat/completions/"):
        response = httpx2.get(root + path)
        assert response.status_code == 404, path
        assert response.json()["error"]["code"] == "unknown_url"
    response = httpx2.get(f"{server.base_url}/chat/completions")
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["error"]["code"] == "method_not_allowed"
    with pytest.raises(openai.NotFoundError, match="Unknown request URL"):
        client.moderations.create(model="m", input="x")
    with pytest.raises(openai.NotFoundError, match="neither scores nor embeds: /v1/embeddings"):
        client.embeddings.create(model="m", input="x")


def test_what_an_answerer_raises_becomes_an_error_body(caplog: pytest.LogCaptureFixture, shared: Served) -> None:
    client = shared[1]
    with pytest.raises(openai.APIStatusError, match="teapot") as caught:
        ask(client, text="refuse")
    assert caught.value.status_code == 418
    with pytest.raises(openai.InternalServerError, match="KeyError"):
        ask(client, text="crash")
    assert "a defect" in caplog.text


def test_large_bodies_pass_up_to_the_limit(shared: Served) -> None:
    client = shared[1]
    reply = ask(client, text="x" * (5 * 2**20))
    assert reply is not None
    assert len(reply) == 5 * 2**20 + len("c1: ")
    with served(max_body_bytes=1000) as (_, client):
        with pytest.raises(openai.APIStatusError) as caught:
            ask(client, text="x" * 2000)
        assert caught.value.status_code == 413
        assert ask(client) == "c1: hi"


def test_lone_surrogates_pass_both_ways(shared: Served) -> None:
    server = shared[0]
    content = b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}'
    response = httpx2.post(f"{server.base_url}/chat/completions", content=content, headers=JSON)
    assert json.loads(response.text)["choices"][0]["message"]["content"] == "None: \ud800"


def test_a_busy_port_is_a_sentence(shared: Served) -> None:
    server = shared[0]
    port = int(server.base_url.removesuffix("/v1").rsplit(":", 1)[1])
    with pytest.raises(InvalidInput, match=r"cannot listen on 127\.0\.0\.1"):
        LocalServer(create_app(Echo()), port=port)


def test_many_calls_at_once(shared: Served) -> None:
    async def go(base_url: str) -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:

            async def ask_number(number: int) -> str | None:
                messages: Any = [{"role": "user", "content": str(number)}]
                reply = await client.chat.completions.create(
                    model="m", messages=messages, extra_headers={"x-judgeloop-call": f"c{number}"}
                )
                return reply.choices[0].message.content

            return await asyncio.gather(*(ask_number(number) for number in range(60)))

    server = shared[0]
    assert asyncio.run(go(server.base_url)) == [f"c{number}: {number}" for number in range(60)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200), ({"host": "localhost:1"}, 200), ({"host": "[::1]:1"}, 200), ({"host": "rebound.example"}, 403), ({"host": "127.0.0.1.example:80"}, 403),
        ({"origin": "https://elsewhere.example"}, 403), ({"origin": "null"}, 403), ({"content-type": "text/plain"}, 415),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)  # fmt: skip
def test_no_page_of_another_site_can_ask(shared: Served, headers: dict[str, str], status: int) -> None:
    server, _ = shared
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
    asked = httpx2.post(f"{server.base_url}/chat/completions", content=body, headers={**JSON, **headers})
    assert asked.status_code == status, asked.text
    if status == 415:
        for jobs in ("batches",):
            assert (
                httpx2.post(f"{server.base_url}/{jobs}", content=body, headers={**JSON, **headers}).status_code == 415
            )
    if status == 403:
        assert httpx2.get(f"{server.base_url}/models", headers=headers).status_code == 403


def test_a_server_that_is_opened_answers_by_any_name() -> None:
    with served(local=False) as (server, _):
        assert httpx2.get(f"{server.base_url}/models", headers={"host": "judge.example"}).status_code == 200
