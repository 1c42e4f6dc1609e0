"""What goes over the wire to an endpoint, what must not be seen of it, and how an endpoint that is wrong is named."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import sys
import time
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

from judgeloop.bodies import draft_body
from judgeloop.errors import EndpointFailed
from judgeloop.records import Call
from judgeloop.serving.protocol import ServerAnswer, error_answer
from judgeloop.text.templates import load
from judgeloop.wire.cassette import Cassette
from judgeloop.wire.client import WireClient, brief
from wire_case import Speaker, ask, completion, named, recorded, serving

KEY = "sk-test/0123456789+abcdef"
HEADER_KEY = "hidden-header-value-42"


def test_the_call_and_nothing_else_is_sent(tmp_path: Path) -> None:
    body: dict[str, Any] = {"ü\u2028": "日本 \u0000", "temperature": 0.30000000000000004, "top_k": 1, "seed": 2**53 + 1}
    call = named("s0/g0/judge/r%C3%A4in~1/m 0+1/ab", "a\r\nb\u2028😀", nested={"b": [1, 1.0, None], "a": True}, **body)
    with serving() as server:
        ask(tmp_path, server.endpoint(), [call])
    (call_id, sent, _), = server.seen  # fmt: skip
    assert call_id == call.call_id
    assert Call(call_id, "m", sent).key == call.key
    assert recorded(tmp_path)[call_id].request == sent


def test_headers_query_and_body_of_an_endpoint(tmp_path: Path) -> None:
    with serving() as server:
        endpoint = server.endpoint(
            api_key_env="MY_KEY",
            extra_headers={"api-key": "${AZURE}", "x-both": "a ${AZURE} ${NONE}b"},
            extra_query={"api-version": "2024-10-21"},
            extra_body={"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}},
        )
        body = draft_body(endpoint, load("draft", tmp_path, "draft"), "Why?")
        environment = {"MY_KEY": f" {KEY}\n", "AZURE": HEADER_KEY, "OPENAI_API_KEY": "another"}
        ask(tmp_path, endpoint, [Call("s0/g0/draft/i/c", "m", body)], environment=environment)
    (_, sent, request), = server.seen  # fmt: skip
    headers = {name.decode(): value.decode() for name, value in request.headers}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["api-key"] == HEADER_KEY
    assert headers["x-both"] == f"a {HEADER_KEY} b"
    assert request.query == "api-version=2024-10-21"
    assert sent == body
    assert (sent["top_k"], sent["chat_template_kwargs"]) == (5, {"enable_thinking": False})
    assert endpoint.extra_headers["api-key"] == "${AZURE}"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_a_key_that_the_server_echoes_goes_no_further(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    message = f"wrong key {KEY} or {HEADER_KEY}"
    speaker = Speaker(
        lambda call: completion(message) if status == 200 or call == "good" else error_answer(status, message)
    )
    output = ""
    with serving(speaker) as server:
        settings = {"api_key_env": "JUDGE_KEY", "extra_headers": {"x-hidden": "${HIDDEN}"}}
        endpoint = server.endpoint(**settings, attempts=1, patience_s=0)
        try:
            environment = {"JUDGE_KEY": KEY, "HIDDEN": HEADER_KEY}
            replies = ask(tmp_path, endpoint, [named("bad"), named("good")], environment=environment)
            output = repr(replies)
        except EndpointFailed as error:
            output = traceback.format_exc() + repr(error.__context__)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert ("EndpointFailed: endpoint m" in output and "wrong key ***" in output) == (status in (401, 404, 429))
    assert (b"wrong key ***" in files) == (status not in (401, 404, 429))
    for secret in (KEY, HEADER_KEY):
        assert secret not in output
        assert secret not in caplog.text
        assert secret.encode() not in files
    assert b"authorization" not in files.lower()


@pytest.mark.parametrize(
    "spelled",
    [
        KEY.replace("/", "\\/"),
        urllib.parse.quote(KEY, safe=""),
        urllib.parse.quote(KEY, safe="").lower(),
        urllib.parse.quote(KEY),
        "".join(f"%{byte:02x}" for byte in KEY.encode()),
        "".join(f"%25{byte:02X}" for byte in KEY.encode()),
        KEY.encode().hex(),
        f"\\u{ord(KEY[0]):04x}{KEY[1:]}",
        "".join(f"\\\\u{ord(character):04X}" for character in KEY),
        *(
            base64.b64encode(f"{before}{KEY}{after}".encode()).decode()
            for before, after in [("", ""), ("u:", ""), ("ab:", "\n")]
        ),
        base64.urlsafe_b64encode(f"x:{KEY}".encode()).decode(),
    ],
)
def test_a_key_in_another_spelling(tmp_path: Path, spelled: str) -> None:
    with (
        serving(Speaker(lambda _: ServerAnswer(401, f'{{"error": {{"message": "wrong key {spelled}"}}}}'))) as server,
        pytest.raises(EndpointFailed, match=r"wrong key \S{0,4}\*\*\*\S{0,4};"),
    ):
        ask(tmp_path, server.endpoint(api_key_env="JUDGE_KEY"), [named("a")], environment={"JUDGE_KEY": KEY})


@pytest.mark.parametrize("status", [401, 403])
def test_the_default_key_goes_to_no_other_host_than_openais(tmp_path: Path, status: int) -> None:
    speaker = Speaker(lambda call: completion() if call == "good" else error_answer(status, "the API key is missing"))
    environment = {"OPENAI_API_KEY": KEY, "JUDGE_KEY": HEADER_KEY}
    sent = r"no key was sent, for OPENAI_API_KEY goes to OpenAI's own address alone: "
    how = r"give --api-key-env OPENAI_API_KEY \(in a file: api_key_env: OPENAI_API_KEY\), or check base_url and model"
    with serving(speaker) as server:
        ask(tmp_path / "good", server.endpoint(), [named("good")], environment=environment)
        with pytest.raises(EndpointFailed, match=sent + how):
            ask(tmp_path / "bad", server.endpoint(), [named("bad")], environment=environment)
        for variable in environment:
            endpoint = server.endpoint(api_key_env=variable)
            with pytest.raises(
                EndpointFailed, match=f"; check the key in {variable} and its credit, base_url and model"
            ):
                ask(tmp_path / variable, endpoint, [named("bad")], environment=environment)
    sent_keys = [dict(request.headers).get(b"authorization", b"").decode() for _, _, request in server.seen]
    assert sent_keys == ["", "", f"Bearer {KEY}", f"Bearer {HEADER_KEY}"]


@pytest.mark.parametrize(
    ("base_url", "variable"),
    [
        ("https://api.openai.com/v1", "OPENAI_API_KEY"),
        ("https://API.OpenAI.com:443", "OPENAI_API_KEY"),
        ("https://eu.api.openai.com/v1", "OPENAI_API_KEY"),
        ("http://api.openai.com/v1", ""),
        ("https://api.openai.com:8443/v1", ""),
        ("https://api.openai.com:x/v1", ""),
        ("https://openai.com/v1", ""),
        ("https://cdn.openai.com/v1", ""),
        ("https://openai.com.evil.example/v1", ""),
        ("https://api.openai.com.evil.example/v1", ""),
        ("https://evilapi.openai.com/v1", ""),
        ("https://evil.example/api.openai.com/v1", ""),
        ("https://resource.openai.azure.com/v1", ""),
        ("http://localhost:8000/v1", ""),
        ("https://127.0.0.1/v1", ""),
        ("https://[::1", ""),
    ],
)
def test_where_the_default_key_goes(base_url: str, variable: str) -> None:
    assert Speaker().endpoint(base_url=base_url).key_variable == variable
    assert Speaker().endpoint(base_url=base_url, api_key_env="JUDGE_KEY").key_variable == "JUDGE_KEY"


def test_a_word_that_happens_to_be_a_key_stays_in_what_the_model_said(tmp_path: Path) -> None:
    with serving(Speaker(lambda _: completion("an EMPTY and secret word"))) as server:
        endpoint = server.endpoint(api_key_env="JUDGE_KEY")
        (reply,) = ask(tmp_path, endpoint, [named("a")], environment={"JUDGE_KEY": "secret"})
    assert reply.text == "an EMPTY and secret word"


@pytest.mark.parametrize("key", ["sk-one\nsk-two-secret", "sk-secr\u00e9t", "sk-secret\u2026"])
def test_a_key_that_no_header_can_carry(tmp_path: Path, key: str) -> None:
    with serving() as server, pytest.raises(EndpointFailed, match="MY_KEY holds a line break") as caught:
        ask(tmp_path, server.endpoint(api_key_env="MY_KEY"), [named("a")], environment={"MY_KEY": key})
    assert "sk-" not in str(caught.value)
    assert server.seen == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error_answer(401, "Incorrect API key.\nSee \x1b[31mthe docs."), r"HTTP 401: Incorrect API key\. See \?\[31mthe docs; no key was sent, for no variable that holds it is named: give --api-key-env NAME"),
        (error_answer(403, "Country not supported"), "HTTP 403: Country not supported"),
        (ServerAnswer(404, "<html>Not Found</html>"), "HTTP 404: <html>Not Found</html>"),
        (error_answer(400, "The model `m` does not exist", code="model_not_found"), "HTTP 400: The model `m` does not exist"),
        (error_answer(429, "You exceeded your current quota", code="insufficient_quota"), "HTTP 429: You exceeded your current quota"),
        (ServerAnswer(308, {}, {"location": "https://elsewhere.invalid/v1"}), r"HTTP 308: redirects to https://elsewhere\.invalid/v1"),
    ],
)  # fmt: skip
def test_refusals_end_the_run_at_once(tmp_path: Path, answer: ServerAnswer, message: str) -> None:
    with (
        serving(Speaker(lambda _: answer)) as server,
        pytest.raises(EndpointFailed, match=rf"^endpoint m \({server.base_url}, model m\): {message}") as caught,
    ):
        ask(tmp_path, server.endpoint(), [named("a"), named("b")])
    assert caught.value.exit_code == 4
    assert "base_url and model, then run the same command to resume" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.call_ids == ["a"]
    assert recorded(tmp_path) == {}


@pytest.mark.usefixtures("quick_retries")
def test_an_address_where_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = Speaker().endpoint(base_url=f"http://127.0.0.1:{port}/v1")
    begun = time.monotonic()
    with pytest.raises(EndpointFailed, match=r"no server answers .*; start it or mend base_url") as caught:
        ask(tmp_path, endpoint, [named("a"), named("b")], at_once=True)
    assert time.monotonic() - begun < 5
    assert f"endpoint m (http://127.0.0.1:{port}/v1, model m)" in str(caught.value)
    assert not (tmp_path / "calls").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="how a full backlog shows is a matter of the system")
def test_an_address_that_takes_no_connection(tmp_path: Path) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for client_socket in waiting:
                client_socket.setblocking(False)
                client_socket.connect_ex(full.getsockname())
            endpoint = Speaker().endpoint(base_url=f"http://127.0.0.1:{full.getsockname()[1]}/v1", timeout_s=0.1)
            with pytest.raises(EndpointFailed, match="no server answers"):
                ask(tmp_path, endpoint, [named("a")])
        finally:
            for client_socket in waiting:
                client_socket.close()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/v1", "http://", "http://[::1", "http:///v1", "https://a b\x00/"]
)
def test_a_base_url_that_is_no_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(EndpointFailed, match=r"endpoint m .*base_url is no address; mend it"):
        ask(tmp_path, Speaker().endpoint(base_url=url), [named("a")])


def test_a_server_that_trickles_counts_as_timed_out(tmp_path: Path) -> None:
    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
        try:
            while head.startswith(b"POST"):
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def failure() -> str:
        async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            endpoint = Speaker().endpoint(base_url=f"http://127.0.0.1:{port}/v1", timeout_s=0.3, attempts=1)
            async with WireClient({"m": endpoint}, Cassette(tmp_path, writable=True), environment={}) as client:
                return (await client.ask(named("a"))).failure

    begun = time.monotonic()
    assert asyncio.run(failure()) == "timeout"
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("header", ["0.3", "date"])
def test_a_server_that_says_when_is_asked_then(tmp_path: Path, header: str) -> None:
    times: list[float] = []

    def says(_: str) -> ServerAnswer:
        times.append(time.time())
        if len(times) > 1:
            return completion()
        # A date has whole seconds: two from now are more than one.
        later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 2)) if header == "date" else header
        return error_answer(429, "slow down", headers={"retry-after": later})

    with serving(Speaker(says)) as server:
        ask(tmp_path, server.endpoint(), [named("a")])
    assert 0.25 < times[1] - times[0] < 4
    assert header != "date" or times[1] - times[0] > 0.9


def test_a_retry_after_that_cannot_be_read_is_not_waited_for(tmp_path: Path) -> None:
    answers = [error_answer(429, "no", headers={"retry-after": text}) for text in ("soon", "-5", "nan", "")]
    with serving(Speaker(lambda _: answers.pop() if answers else completion())) as server:
        begun = time.monotonic()
        (reply,) = ask(tmp_path, server.endpoint(attempts=5), [named("a")])
    assert reply.text == "[[A]]"
    assert time.monotonic() - begun < 2


def test_bytes_that_are_no_utf_8_and_a_wrong_charset(tmp_path: Path) -> None:
    class Latin(Speaker):
        async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
            answer = await super().answer(body, call_id)
            return ServerAnswer(
                200,
                "\ufeff" + json.dumps(answer.body, ensure_ascii=False),
                {"content-type": "application/json; charset=latin-1"},
            )

    with serving(Latin(lambda _: completion("né"))) as server:
        (reply,) = ask(tmp_path, server.endpoint(), [named("a")])
    assert reply.text == "né"


def test_brief_messages() -> None:
    assert brief("one\n two\t\x1b[0m. ") == "one two ?[0m"
    assert len(brief("x" * 1000)) == 300
