"""Questions to one endpoint, one at a time or several: whatever comes back is looked at, nothing is hidden by a retry.

A run's calls go through the client; what an endpoint can do is asked here, over the same connection settings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import openai

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Reply
from judgeloop.wire.line import Line, brief
from judgeloop.wire.reply import Refused, Transient, parse, read

_LONGEST_WAIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Came:
    """What a request came back with. ``status`` 0: no whole answer (``fault`` says why). ``body`` is its JSON, or None."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str
    seconds: float
    fault: str = ""

    @property
    def ok(self) -> bool:
        """A 200 with a readable completion."""
        return self.status == 200 and not self.reply.failure

    @property
    def reply(self) -> Reply:
        """The completion as a run would read it."""
        try:
            return read(self.status, parse(self.status, self.text), self.fault)
        except Transient as fault:
            return Reply(None, failure=fault.fault)
        except Refused:
            return Reply(None, failure=f"http_{self.status}")

    @property
    def message(self) -> str:
        """What an error says, on one line; the fault where nothing came."""
        error = self.body.get("error", self.body) if isinstance(self.body, dict) else self.text
        said = error.get("message") or error.get("detail") if isinstance(error, dict) else error
        return self.fault or brief(str(said or f"HTTP {self.status}"))

    @property
    def said(self) -> str:
        """Status and error in a few words."""
        return self.fault if not self.status else f"HTTP {self.status}: {self.message}"


class CallsSpent(Exception):
    """The stated number of calls is used up."""


class Inquiry(Line):
    """A connection that answers with all that came: status, headers, body, seconds. Counts its completions."""

    def __init__(self, endpoint: Endpoint, environment: Mapping[str, str], most: int) -> None:
        super().__init__("doctor", endpoint, environment)
        self.most, self.calls = most, 0
        self.seen_headers: dict[str, str] = {}

    async def models(self) -> Came:
        """The list of models. Raises EndpointFailed where no server answers at all."""
        await self.check_alive()
        return await self._came("GET", "/models", None)

    async def complete(self, body: Mapping[str, Any], *, patient: bool = True) -> Came:
        """One chat completion; asked once more after a 429, a 5xx or no answer if ``patient``. Raises CallsSpent."""
        self._count()
        came = await self._came("POST", "/chat/completions", body)
        if (
            not patient
            or not (came.status in (0, 408, 429) or came.status >= 500)
            or came.reply.failure == "context_length"
        ):
            return came
        await asyncio.sleep(min(_seconds(came.headers.get("retry-after", "")), _LONGEST_WAIT_S))
        self._count()
        return await self._came("POST", "/chat/completions", body)

    def left(self) -> int:
        """Completions that may still be asked."""
        return self.most - self.calls

    def _count(self) -> None:
        if self.calls >= self.most:
            raise CallsSpent
        self.calls += 1

    async def _came(self, method: str, path: str, body: Mapping[str, Any] | None) -> Came:
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                if method == "GET":
                    response = await self._openai.get(path, cast_to=httpx2.Response)
                else:
                    response = await self._openai.post(path, cast_to=httpx2.Response, body=dict(body or {}))
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APITimeoutError, TimeoutError):
            return Came(0, {}, None, "", time.perf_counter() - began, f"no answer in {self.endpoint.timeout_s:g} s")
        except (openai.APIConnectionError, httpx2.HTTPError) as error:
            why = brief(self.scrub(str(error.__cause__ or error)))
            return Came(0, {}, None, "", time.perf_counter() - began, f"the connection broke ({why})")
        took = time.perf_counter() - began
        if 300 <= response.status_code < 400:
            target = self.scrub(response.headers.get("location", "another address"))
            raise EndpointFailed(f"{self.where}: redirects to {target}; give that as --base-url")
        headers = {name.lower(): self.scrub(value) for name, value in response.headers.items()}
        self.seen_headers |= headers
        text = self.scrub(response.content.decode("utf-8-sig", "replace"))
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        return Came(response.status_code, headers, found, text, took)


def _seconds(value: str) -> float:
    try:
        return max(0.2, float(value))
    except ValueError:
        return 1.0
