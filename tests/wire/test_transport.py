"""Answers that are not the one that was asked for: a second one on the same connection, another call's, one without end."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from judgeloop.records import Reply
from judgeloop.wire import line, transport
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import WireClient
from wire_case import Speaker, ask, completion, named, recorded, serving


def http(content: bytes, *headers: str) -> bytes:
    lines = ("HTTP/1.1 200 OK", "content-type: application/json", f"content-length: {len(content)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def said(text: str) -> bytes:
    return json.dumps(completion(text).body).encode()


LINES = pytest.mark.parametrize("own_client", [False, True], ids=["lean", "openai"])
"""judgeloop's own line, and an openai client of the caller's own."""


def replies(
    folder: Path, answer: Callable[[str], bytes], names: str, own_client: bool, **settings: object
) -> list[Reply]:
    """The replies to calls, one after the other, of a server that writes ``answer`` of the call's id on its connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
                await reader.readexactly(int(fields.get("content-length", 0)))
                writer.write(answer(fields["x-judgeloop-call"]) if "x-judgeloop-call" in fields else http(b"{}"))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def ask_all() -> list[Reply]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
            endpoint = Speaker().endpoint(base_url=base_url, **settings)
            cassette = Cassette(folder, writable=True)
            clients = {"m": openai.AsyncOpenAI(api_key="k", base_url=base_url)} if own_client else {}
            async with WireClient(
                {"m": endpoint}, cassette, environment={}, clients=clients, backoff_s=0.001
            ) as client:
                found = [await client.ask(named(name)) for name in names]
            cassette.close()
            return found

    return asyncio.run(ask_all())


@LINES
@pytest.mark.parametrize("left_over", [lambda call: http(said(call)), lambda _: b"garbage", lambda _: b"HT"])
def test_what_is_left_on_a_connection_answers_no_call(
    tmp_path: Path, left_over: Callable[[str], bytes], own_client: bool
) -> None:
    found = replies(tmp_path, lambda call: http(said(call)) + left_over(call), "abcdef", own_client, concurrency=1)
    assert [reply.text for reply in found] == list("abcdef")
    assert all(exchange.attempts == 1 for exchange in recorded(tmp_path).values())


@LINES
def test_an_answer_that_names_another_call_is_none(tmp_path: Path, own_client: bool) -> None:
    asked: list[str] = []

    def answer(call: str) -> bytes:
        asked.append(call)
        wrong = len(asked) == 2
        return http(said("a" if wrong else call), f"x-judgeloop-call: {'a' if wrong else call}")

    assert [reply.text for reply in replies(tmp_path, answer, "abc", own_client, concurrency=1)] == ["a", "b", "c"]
    assert asked == ["a", "b", "b", "c"]


@LINES
def test_an_answer_without_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_client: bool) -> None:
    for module in (line, transport):
        monkeypatch.setattr(module, "MAX_MESSAGE_BYTES", 2**20)
    bomb = gzip.compress(b" " * 2**24)
    assert len(bomb) < 2**15
    answers = {"a": http(said("a")), "b": http(bomb, "content-encoding: gzip"), "c": http(b" " * 2**21),
               "d": http(gzip.compress(said("d")), "content-encoding: gzip")}  # fmt: skip
    found = replies(tmp_path, answers.__getitem__, "abcd", own_client, attempts=2)
    assert [(reply.text, reply.failure) for reply in found] == [
        ("a", ""),
        (None, "too_large"),
        (None, "too_large"),
        ("d", ""),
    ]
    fault = recorded(tmp_path)["b"]
    assert (fault.attempts, fault.response) == (
        2,
        {"error": {"message": "the answer is larger than 1 MB, the most that is read"}},
    )


def test_an_endpoint_may_name_the_openai_client(tmp_path: Path) -> None:
    """Both lines ask the same (test_line), but for headers of the openai package's own."""
    for client in (None, "openai"):
        with serving() as server:
            ask(tmp_path / str(client), server.endpoint(client=client), [named("a")])
        ((_, _, request),) = server.seen
        assert any(name.startswith(b"x-stainless") for name, _ in request.headers) == (client == "openai")
