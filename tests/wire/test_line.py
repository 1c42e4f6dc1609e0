"""Both lines are one: what judgeloop's own sends and makes of an answer is what an openai client sends and makes of it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest

from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call
from judgeloop.wire import line as lean
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import Connection, WireClient
from judgeloop.wire.line import LeanLine, proxy_of, split_address
from judgeloop.wire.reply import Refusal, TransientFault
from wire_case import completion, named, recorded

SAID = json.dumps(completion("[[A]]").body).encode()
KEY = "not-a-real-key-0123456789abcdef"

Requests = list[tuple[str, dict[str, str], bytes]]
"""(request line, headers by lower-case name, body) of each request that a server got."""


def http(content: bytes, *headers: str, status: str = "200 OK") -> bytes:
    lines = (f"HTTP/1.1 {status}", "content-type: application/json", f"content-length: {len(content)}", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@contextlib.asynccontextmanager
async def speaking(
    answer: Callable[[str], bytes | None], *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, Requests]]:
    """(port, requests) of a server that writes ``answer`` of each request line on its connection; None closes it, and an answer
    without a length is ended by closing."""
    seen: Requests = []
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
                content = await reader.readexactly(int(headers.get("content-length", 0)))
                seen.append((first, headers, content))
                answered = answer(first)
                if answered is not None:
                    writer.write(answered)
                    await writer.drain()
                if answered is None or (b"content-length" not in answered and b"chunked" not in answered):
                    break
            writer.close()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()

    async with await asyncio.start_server(serve, host, 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1], seen
        await asyncio.sleep(0.01)  # a connection that was just made has its writer by then
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.02)


def endpoint(port: int, scheme: str = "http", host: str = "127.0.0.1", path: str = "/v1", **settings: Any) -> Endpoint:
    address = f"{scheme}://{host}:{port}{path}"
    own = {"base_url": address, "model": "m", "timeout_s": 5, "api_key_env": "JUDGE_KEY"}
    return Endpoint.model_validate({**own, **settings})


async def outcome(connection: Connection, call: Call) -> tuple[object, ...]:
    """What one attempt comes to, with all that decides on the next."""
    try:
        return ("answer", *await connection.post(call))
    except TransientFault as fault:
        return "fault", fault.fault, fault.status, fault.response, fault.wait_s, fault.sent
    except Refusal as refusal:
        return "refusal", str(refusal), refusal.absent


async def both(
    settings: Endpoint, call: Call, environment: Mapping[str, str] | None = None
) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """The outcomes by judgeloop's own line and by an openai client of the caller's own."""
    environment = {"JUDGE_KEY": KEY} if environment is None else environment
    outcomes = []
    for client in (None, openai.AsyncOpenAI(api_key=KEY, base_url=settings.base_url, timeout=settings.timeout_s)):
        connection = Connection("m", settings, environment, client=client)
        outcomes.append(await outcome(connection, call))
        await connection.close()
        if client is not None:
            await client.close()
    return outcomes[0], outcomes[1]


OF_THE_SDK = ("user-agent", "accept-encoding", "x-stainless")
"""Headers by which a client says what it is and what it can unpack."""


@pytest.mark.parametrize("path", ["/v1", "/v1/", "", "/a b/ü/v1", "/gateway/%2Fx/openai"])
@pytest.mark.parametrize("route", ["", "classify", "rerank"])
def test_both_lines_send_the_same_request(path: str, route: Any) -> None:
    extra = {
        "extra_headers": {"X-Team": "a", "Authorization": "Bearer ${OTHER}"},
        "extra_query": {"api-version": "2 ä&b"},
    }
    bodies = [
        {"model": "m", "messages": [{"role": "user", "content": 'ü\u2028"\\ 𝄞'}], "z": 1, "a": [0.1, None, True]},
        {},
    ]

    async def sent() -> None:
        for settings in ({}, extra):
            async with speaking(lambda _: http(SAID)) as (port, seen):
                for number, body in enumerate(bodies):
                    call = Call(f"s0/g0/judge/{number}%20/ab", "m", body, route)
                    await both(endpoint(port, path=path, **settings), call, {"JUDGE_KEY": KEY, "OTHER": "o"})
                assert len(seen) == 4
                for (first, ours, content), (other, theirs, other_content) in zip(seen[::2], seen[1::2], strict=True):
                    assert first == other
                    assert content == other_content
                    left, right = (
                        {name: value for name, value in headers.items() if not name.startswith(OF_THE_SDK)}
                        for headers in (ours, theirs)
                    )
                    assert left == right

    asyncio.run(sent())


ANSWERS: dict[str, bytes | None] = {
    "an answer": http(SAID),
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(SAID), SAID),
    "ended by closing": b"HTTP/1.1 200 OK\r\n\r\n" + SAID,
    "of HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\n" + SAID,
    "packed": http(gzip.compress(SAID), "content-encoding: gzip"),
    "a word before it": b"HTTP/1.1 100 Continue\r\n\r\n" + http(SAID),
    "with a mark, and no UTF-8": http(b"\xef\xbb\xbf" + SAID.replace(b"[[A]]", b"\xff")),
    "malformed JSON": http(b"{"),
    "nothing": http(b""),
    "no content": b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
    "damaged packing": http(b"no gzip", "content-encoding: gzip"),
    "cut off": http(SAID)[:-5],
    "closed": None,
    "no HTTP": b"hello\r\n\r\ncontent-length",
    "another call's": http(SAID, "x-judgeloop-call: other"),
    "a redirect": http(b"", "location: https://elsewhere.invalid/v1", status="307 Temporary Redirect"),
    **{
        f"{status} {text}": http(json.dumps({"error": {"message": text}}).encode(), *headers, status=f"{status} X")
        for status, text, *headers in (
            (400, "bad"), (401, "key"), (403, "forbidden"), (404, "none"), (408, "slow"), (413, "long"), (422, "bad"),
            (429, "limit"), (429, "limit", "retry-after: 3"), (500, "down"), (502, "gateway"), (503, "busy", "Retry-After: 2"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ANSWERS)
def test_both_lines_make_the_same_of_an_answer(name: str) -> None:
    async def asked() -> None:
        async with speaking(lambda _: ANSWERS[name]) as (port, seen):
            settings = endpoint(port, timeout_s=0.5 if name == "cut off" else 5)
            ours, theirs = await both(settings, named("a"))
            assert ours == theirs
            assert len(seen) == 2  # neither asks again by itself

    asyncio.run(asked())


def test_both_lines_name_the_faults_alike_where_no_answer_comes() -> None:
    async def asked() -> None:
        async with speaking(lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n") as (port, _):
            ours, theirs = await both(endpoint(port, timeout_s=0.2), named("a"))
            assert ours == theirs == ("fault", "timeout", 0, None, None, True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        ours, theirs = await both(endpoint(port), named("a"))
        assert ours == theirs == ("fault", "connection", 0, None, None, False)

        async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
            ours, theirs = await both(endpoint(server.sockets[0].getsockname()[1], "https"), named("a"))
            assert ours == theirs == ("fault", "connection", 0, None, None, False)

    asyncio.run(asked())


# What is this line's own


def use(line: LeanLine, steps: Callable[[LeanLine], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        try:
            return await steps(line)
        finally:
            await line.close()

    return inside()


def test_a_connection_is_used_again_and_another_made_where_it_was_closed() -> None:
    async def asked() -> list[int]:
        ports: list[int] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ports.append(writer.get_extra_info("peername")[1])
            with contextlib.suppress(asyncio.IncompleteReadError):
                for _ in range(3):  # then it closes, without a word
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                    writer.write(http(SAID))
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            line = LeanLine(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, {}, connect_s=5)

            async def steps(line: LeanLine) -> None:
                for _ in range(7):
                    assert (await line.send("POST", "/chat/completions", {})).content == SAID
                    await asyncio.sleep(0.01)

            await use(line, steps)
            await asyncio.sleep(0.05)  # the server sees the end
        return ports

    assert len(asyncio.run(asked())) == 3


def test_a_call_that_is_given_up_leaves_nothing_for_the_next() -> None:
    async def asked() -> None:
        async with speaking(lambda first: http(SAID) if "late" not in first else b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n") as (port, seen):  # fmt: skip
            line = LeanLine(f"http://127.0.0.1:{port}", {}, {}, connect_s=5)

            async def steps(line: LeanLine) -> None:
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(line.send("POST", "/late", {}), 0.05)
                    assert (await line.send("POST", "/soon", {})).content == SAID

            await use(line, steps)
            assert [first.split()[1] for first, _, _ in seen] == ["/late", "/soon"] * 3

    asyncio.run(asked())


def test_a_connection_that_is_lost_before_anything_is_asked_says_so_when_it_is_asked() -> None:
    wrong: list[dict[str, Any]] = []

    async def lose() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: wrong.append(context))

        def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
            wire = await lean._connect(split_address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
            while not wire._closed:
                await asyncio.sleep(0.001)
            with pytest.raises(TransientFault, match="the server closed the connection"):
                await wire.ask(b"GET / HTTP/1.1\r\n\r\n")

    asyncio.run(lose())
    assert wrong == []


@pytest.mark.parametrize(
    "flood", [b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000]
)
def test_headers_without_end_are_not_read(flood: bytes) -> None:
    async def asked() -> None:
        async with speaking(lambda _: flood + b"content-length") as (port, _):
            line = LeanLine(f"http://127.0.0.1:{port}", {}, {}, connect_s=5)
            with pytest.raises(TransientFault, match="larger than"):
                await use(line, lambda line: line.send("GET", "/models"))

    asyncio.run(asked())


def test_an_address_of_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")

    async def asked() -> None:
        try:
            serving = speaking(lambda _: http(SAID), host="::1")
            async with serving as (port, seen):
                connection = Connection("m", endpoint(port, host="[::1]"), {})
                assert (await outcome(connection, named("a")))[0] == "answer"
                await connection.close()
                assert seen[0][1]["host"] == f"[::1]:{port}"
        except OSError:
            pytest.skip("no IPv6 here")

    asyncio.run(asked())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its certificate for 127.0.0.1 and judge.test, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=judge.test -addext subjectAltName=IP:127.0.0.1,DNS:judge.test"
    try:
        subprocess.run([*words.split(), "-keyout", folder / "key.pem", "-out", folder / "all.pem"], check=True, capture_output=True)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("the program openssl makes the certificate")
    both_parts = (folder / "all.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "all.pem").write_text(both_parts)
    return folder / "all.pem"


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ssl.SSLContext]:
    """The server's side of TLS, with SSL_CERT_FILE naming its certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    lean.tls.cache_clear()
    yield server  # type: ignore[misc]
    lean.tls.cache_clear()


def test_tls_by_the_certificates_that_the_environment_names(
    trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked() -> None:
        async with speaking(lambda _: http(SAID), tls=trusted) as (port, _):
            ours, theirs = await both(endpoint(port, "https"), named("a"))
            assert ours == theirs
            assert ours[0] == "answer"
            monkeypatch.delenv("SSL_CERT_FILE")
            lean.tls.cache_clear()
            ours, theirs = await both(endpoint(port, "https"), named("a"))
            assert ours == theirs == ("fault", "connection", 0, None, None, False)

    asyncio.run(asked())


@contextlib.asynccontextmanager
async def proxying() -> AsyncIterator[tuple[int, list[str]]]:
    """(port, heads of requests) of a proxy: it opens tunnels, and answers what is asked of it itself."""
    heads: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        heads.append(head)
        if head.startswith("CONNECT"):
            port = int(head.split()[1].rsplit(":", 1)[1])
            there, back = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(pump(reader, back), pump(there, writer))
        else:
            writer.write(http(SAID))
            await writer.drain()
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], heads
        await asyncio.sleep(0.05)  # it sees the end


def test_proxies_of_the_environment(trusted: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked() -> None:
        async with proxying() as (proxy, heads), speaking(lambda _: http(SAID), tls=trusted) as (port, seen):
            for name in ("http_proxy", "https_proxy"):
                monkeypatch.setenv(name, f"http://user:p%40ss@127.0.0.1:{proxy}")
            for settings in (endpoint(8000, host="judge.test"), endpoint(port, "https", "judge.test")):
                connection = Connection("m", settings, {})
                assert (await outcome(connection, named("a")))[0] == "answer"
                await connection.close()
            allowed = f"Basic {base64.b64encode(b'user:p@ss').decode()}"
            plain, tunnel = heads
            assert plain.startswith("POST http://judge.test:8000/v1/chat/completions HTTP/1.1\r\n")
            assert tunnel.startswith(f"CONNECT judge.test:{port} HTTP/1.1\r\n")
            assert all(f"proxy-authorization: {allowed}".lower() in head.lower() for head in heads)
            assert "proxy-authorization" not in seen[0][1]
            assert seen[0][0] == "POST /v1/chat/completions HTTP/1.1"

    asyncio.run(asked())


def test_what_no_proxy_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    far, here = split_address("https://judge.test/v1"), split_address("http://127.0.0.1:8000/v1")
    assert proxy_of(far) == ""
    monkeypatch.setenv("all_proxy", "proxy.test:3128")
    assert (proxy_of(far), proxy_of(here)) == ("http://proxy.test:3128", "")
    monkeypatch.setenv("https_proxy", "http://secure.test:3128")
    assert proxy_of(far) == "http://secure.test:3128"
    monkeypatch.setenv("no_proxy", "other.test,.judge.test,judge.test")
    assert proxy_of(far) == ""


def test_five_hundred_in_flight(tmp_path: Path) -> None:
    async def asked() -> None:
        async with speaking(lambda _: http(SAID)) as (port, seen):
            cassette = Cassette(tmp_path, writable=True)
            settings = endpoint(port, concurrency=512, timeout_s=60)
            async with WireClient({"m": settings}, cassette, environment={}) as client:
                replies = await asyncio.gather(*(client.ask(named(f"a/{number}/b")) for number in range(800)))
            cassette.close()
            assert {reply.text for reply in replies} == {"[[A]]"}
            assert len(seen) == 801  # and the list of models, once

    asyncio.run(asked())
    assert len(recorded(tmp_path)) == 800
