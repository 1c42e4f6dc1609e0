"""How near judgeloop's calls come to the limit: its whole path beside a bare socket, aiohttp, httpx2 and the openai client.

``python benchmarks/calls.py [--rounds N] [--quick] [--only NAME,…] [--cases NUMBER,…]`` starts a local server of a set latency for
each case and asks it pairwise judge calls of about 1.5 kB, each client in a process of its own, turn and turn about. It prints a
table of medians: the share of the ideal time (calls / in flight × latency; without latency: calls a second), and CPU milliseconds
a call. judgeloop's path is a whole ``judgeloop.audit`` (render, send, parse, verdict, record), timed from its first question to its
estimates; "all" counts its imports, pairs, estimates and report too. The case over HTTPS needs the program ``openssl``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSWER = json.dumps({
    "id": "chatcmpl-0", "object": "chat.completion", "created": 1, "model": "m", "system_fingerprint": "fp_0",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "[[A]]", "refusal": None}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 350, "completion_tokens": 5, "total_tokens": 355},
}).encode()  # fmt: skip
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(ANSWER)
WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "the",
    "lazy",
    "dog",
    "and",
    "then",
    "goes",
    "home",
    "to",
    "sleep",
    "well",
]


@dataclass(frozen=True)
class Case:
    """So many calls, at most ``at_once`` in flight, to a server that answers after ``latency_ms``."""

    calls: int
    latency_ms: float
    at_once: int
    tls: bool = False

    @property
    def ideal_s(self) -> float:
        return self.calls / self.at_once * self.latency_ms / 1000

    @property
    def name(self) -> str:
        scheme = ", HTTPS" if self.tls else ""
        return f"{self.calls:,} × {self.latency_ms:g} ms, {self.at_once} in flight{scheme}"


CASES = (
    Case(2000, 200, 128), Case(2000, 20, 32), Case(2000, 0, 32), Case(10000, 200, 512), Case(10000, 200, 512, tls=True),
)  # fmt: skip


# -- the server ---------------------------------------------------------------------------------------------------------


class Answering(asyncio.Protocol):
    """One connection that answers every request after the set time."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s, self.rest = latency_s, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.rest += data
        while (end := self.rest.find(b"\r\n\r\n")) >= 0:
            head = self.rest[:end].lower()
            place = head.find(b"content-length:")
            length = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self.rest) < end + 4 + length:
                return
            request, self.rest = self.rest[end + 4 : end + 4 + length], self.rest[end + 4 + length :]
            if self.latency_s and head.startswith(b"post"):
                asyncio.get_running_loop().call_later(self.latency_s, self.answer, request)
            else:
                self.answer(request)

    def answer(self, request: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.answered(request))

    def answered(self, request: bytes) -> bytes:  # noqa: ARG002  another server's answer depends on it
        """The answer to a request's body."""
        return HEAD + ANSWER


async def serve(latency_s: float, certificate: str, kind: type[Answering] = Answering) -> None:
    """Answer until standard input ends; the port goes to standard output."""
    gc.disable()
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: kind(latency_s), "127.0.0.1", 0, ssl=tls, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


# -- the clients --------------------------------------------------------------------------------------------------------


def pairs(count: int) -> list[dict[str, str]]:
    """So many pairs of distinct texts; a call about one has about 1.5 kB."""
    text = " ".join(WORDS * 3)
    return [{"item_id": f"q{n}", "prompt": f"Question {n}: what does the fox do?", "text_a": f"{n} {text}.", "text_b": f"{text} {n}."} for n in range(count)]  # fmt: skip


def body(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"{number} " + " ".join(WORDS * 18)}], "max_tokens": 512, "temperature": 0.0}  # fmt: skip


async def each(case: Case, ask: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """Wall and CPU seconds of all calls."""
    numbers = iter(range(case.calls))

    async def work() -> None:
        for number in numbers:
            await ask(number)

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(case.at_once)))
    return time.perf_counter() - began, time.process_time() - used


async def with_sockets(case: Case, url: str) -> tuple[float, float]:
    """The least that can be done: a request written, an answer's bytes counted."""
    tls = ssl.create_default_context() if case.tls else None
    port, free = (
        int(url.rsplit(":", 1)[1].split("/", maxsplit=1)[0]),
        list[tuple[asyncio.StreamReader, asyncio.StreamWriter]](),
    )

    async def ask(number: int) -> None:
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        content = json.dumps(body(number)).encode()
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(content) + content)  # fmt: skip
        await reader.readexactly(len(HEAD) + len(ANSWER))
        free.append((reader, writer))

    took = await each(case, ask)
    for _, writer in free:
        writer.close()
    return took


async def with_aiohttp(case: Case, url: str) -> tuple[float, float]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=case.at_once, ssl=ssl.create_default_context() if case.tls else True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask(number: int) -> None:
            async with session.post(f"{url}/chat/completions", json=body(number)) as response:
                json.loads(await response.read())

        return await each(case, ask)


async def with_httpx2(case: Case, url: str) -> tuple[float, float]:
    import httpx2

    limits = httpx2.Limits(max_connections=case.at_once, max_keepalive_connections=case.at_once)
    async with httpx2.AsyncClient(limits=limits, timeout=60, trust_env=case.tls) as client:

        async def ask(number: int) -> None:
            (await client.post(f"{url}/chat/completions", json=body(number))).json()

        return await each(case, ask)


async def with_openai(case: Case, url: str) -> tuple[float, float]:
    import httpx2
    import openai

    limits = httpx2.Limits(max_connections=case.at_once, max_keepalive_connections=case.at_once)
    http = httpx2.AsyncClient(limits=limits, timeout=60, trust_env=case.tls)
    async with openai.AsyncOpenAI(api_key="none", base_url=url, http_client=http, max_retries=0) as client:

        async def ask(number: int) -> None:
            await client.chat.completions.create(**body(number))

        return await each(case, ask)


class Stages:
    """An observer that notes when an audit begins and ends to ask."""

    def __init__(self) -> None:
        self.times: dict[str, tuple[float, float]] = {}

    def stage(self, text: str) -> None:
        self.times.setdefault(text, (time.perf_counter(), time.process_time()))

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def with_judgeloop(case: Case, url: str) -> tuple[float, float]:
    import pandas as pd

    import judgeloop

    stages, frame = Stages(), pd.DataFrame(pairs(case.calls // 2))
    with tempfile.TemporaryDirectory() as folder:
        judgeloop.audit(
            frame, base_url=url, model="m", verdict="text", concurrency=case.at_once, out=Path(folder) / "audit", observer=stages
        )  # fmt: skip
    (began, used), (ended, used_then) = stages.times["asking"], stages.times["estimates"]
    return ended - began, used_then - used


ASYNC = {"a bare socket": with_sockets, "aiohttp": with_aiohttp, "httpx2": with_httpx2, "openai client": with_openai}
JUDGELOOP = "judgeloop audit"
CLIENTS = (*ASYNC, JUDGELOOP)


def ask_all(client: str, case: Case, url: str) -> None:
    """Print wall and CPU seconds of the calls, and CPU seconds of this process, as JSON."""
    wall, used = with_judgeloop(case, url) if client == JUDGELOOP else asyncio.run(ASYNC[client](case, url))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps([wall, used, usage.ru_utime + usage.ru_stime]))


# -- the table ----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def served(case: Case, certificate: str) -> AsyncIterator[str]:
    """The base URL of a server for that case."""
    words = [sys.executable, __file__, "--serve", str(case.latency_ms / 1000), *([certificate] if case.tls else [])]
    server = await asyncio.create_subprocess_exec(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdin is not None
    port = int(await server.stdout.readline())
    try:
        yield f"{'https' if case.tls else 'http'}://127.0.0.1:{port}/v1"
    finally:
        server.stdin.close()
        await server.wait()


async def measured(client: str, number: int, certificate: str) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds of the calls and of the whole process, of one client in one case."""
    case = CASES[number]
    async with served(case, certificate) as url:
        words = [sys.executable, __file__, "--ask", client, str(number), url]
        environment = {**os.environ, **({"SSL_CERT_FILE": certificate} if case.tls else {})}
        asking = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, env=environment)
        out, _ = await asking.communicate()
        if asking.returncode:
            sys.exit(f"{client}: failed")
        wall, used, whole = json.loads(out)
        return wall, used, whole


def certificate_in(folder: str) -> str:
    """The path of a new key with its certificate for 127.0.0.1."""
    key, both = Path(folder) / "key.pem", Path(folder) / "both.pem"
    words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", key, "-out", both], check=True, capture_output=True)
    both.write_text(both.read_text() + key.read_text())
    return str(both)


def cell(case: Case, runs: list[tuple[float, float, float]], whole: bool) -> str:
    wall, used, all_used = (statistics.median(column) for column in zip(*runs, strict=True))
    share = f"{case.ideal_s / wall:.2f} of {case.ideal_s:.2f} s" if case.ideal_s else f"{case.calls / wall:,.0f}/s"
    cpu = f"{used / case.calls * 1000:.2f} ms"
    return f"{share}, {cpu}" + (f" (all {all_used / case.calls * 1000:.2f})" if whole else "")


async def table(rounds: int, clients: list[str], numbers: list[int]) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = certificate_in(folder) if any(CASES[number].tls for number in numbers) else ""
        print("| | " + " | ".join(CASES[number].name for number in numbers) + " |")
        print("|---|" + "---|" * len(numbers))
        results: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
        for number in numbers:
            for _ in range(rounds):
                for client in clients:
                    results.setdefault((client, number), []).append(await measured(client, number, certificate))
        for client in clients:
            cells = (cell(CASES[number], results[client, number], client == JUDGELOOP) for number in numbers)
            print(f"| {client} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print the table; or be one of its processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(CLIENTS), help="clients, with commas")
    parser.add_argument("--cases", default=",".join(map(str, range(len(CASES)))), help="cases by number, with commas")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve(float(asked.serve[0]), "".join(asked.serve[1:])))
    elif asked.ask:
        ask_all(asked.ask[0], CASES[int(asked.ask[1])], asked.ask[2])
    else:
        asyncio.run(table(asked.rounds, asked.only.split(","), [int(number) for number in asked.cases.split(",")]))


if __name__ == "__main__":
    main()
