"""Parts that the tests of the client share: a server with scripted answers, and a client that records in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from judgeloop.experiment.schema import Endpoint
from judgeloop.records import Call, Reply, Route
from judgeloop.serving.faults import Faults, Rule
from judgeloop.serving.protocol import Incoming, ServerAnswer, incoming
from judgeloop.serving.server import LocalServer, create_app
from judgeloop.wire.cassette import Cassette, Exchange
from judgeloop.wire.client import WireClient

T = TypeVar("T")


def completion(text: str | None = "[[A]]", finish_reason: str = "stop", **message: Any) -> ServerAnswer:
    message = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    choices = [{"index": 0, "message": message, "finish_reason": finish_reason}]
    return ServerAnswer(200, {"object": "chat.completion", "model": "m", "choices": choices, "usage": usage})


class Speaker:
    """Answers every call with what ``says`` gives for its id, ``hold_s`` seconds later.

    ``seen``: (call id, body, headers and query) of every request. ``most``: the most that were in flight at once.
    """

    def __init__(self, says: Callable[[str], ServerAnswer] = lambda _: completion(), hold_s: float = 0.0) -> None:
        self.says, self.hold_s = says, hold_s
        self.seen: list[tuple[str, dict[str, Any], Incoming]] = []
        self.most, self._now = 0, 0
        self.base_url = ""

    @property
    def call_ids(self) -> list[str]:
        return [call_id for call_id, _, _ in self.seen]

    def models(self) -> list[str]:
        return ["m"]

    async def answer(self, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        self.seen.append((call_id or "", body, incoming.get()))
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(self.hold_s)
            return self.says(call_id or "")
        finally:
            self._now -= 1

    async def score(self, route: Route, body: dict[str, Any], call_id: str | None) -> ServerAnswer:
        del route
        return await self.answer(body, call_id)

    def endpoint(self, **settings: Any) -> Endpoint:
        return Endpoint.model_validate({"base_url": self.base_url, "model": "m", "attempts": 3, **settings})


@contextmanager
def serving(speaker: Speaker | None = None, *rules: Rule) -> Iterator[Speaker]:
    speaker = speaker or Speaker()
    with LocalServer(create_app(speaker, faults=Faults(rules=rules))) as server:
        speaker.base_url = server.base_url
        yield speaker


def named(call_id: str, text: str = "hi", **body: Any) -> Call:
    return Call(call_id, "m", {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 2, **body})


def numbered(count: int, stem: str = "s0/g0/judge/i") -> list[Call]:
    return [named(f"{stem}{number}/m/ab") for number in range(count)]


def use(
    folder: Path,
    endpoint: Endpoint,
    steps: Callable[[WireClient], Awaitable[T]],
    *,
    retry_failed: bool = False,
    **options: Any,
) -> T:
    """The result of ``steps`` with a client that records in ``folder``."""
    cassette = Cassette(folder, writable=True, retry_failed=retry_failed)
    options = {"environment": {}, "backoff_s": 0.001, **options}

    async def inside() -> T:
        async with WireClient({"m": endpoint}, cassette, **options) as client:
            return await steps(client)

    try:
        return asyncio.run(inside())
    finally:
        cassette.close()


def ask(
    folder: Path, endpoint: Endpoint, calls: Iterable[Call], *, at_once: bool = False, **options: Any
) -> list[Reply]:
    """The replies to calls, one after the other or all at once."""

    async def steps(client: WireClient) -> list[Reply]:
        if at_once:
            return list(await asyncio.gather(*(client.ask(call) for call in calls)))
        return [await client.ask(call) for call in calls]

    return use(folder, endpoint, steps, **options)


def recorded(folder: Path) -> dict[str, Exchange]:
    return {exchange.call: exchange for exchange in Cassette(folder, writable=False).exchanges()}
