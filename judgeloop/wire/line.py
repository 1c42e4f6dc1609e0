"""The open connection to one endpoint: its key and headers, one attempt at a call, and what went wrong with it."""

from __future__ import annotations

import asyncio
import email.utils
import json
import re
import ssl
import time
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from judgeloop.errors import EndpointFailed
from judgeloop.experiment.blocks import Endpoint
from judgeloop.records import Call, Route
from judgeloop.wire import scored
from judgeloop.wire.cassette import Exchange
from judgeloop.wire.reply import Refused, Transient, parse

if TYPE_CHECKING:
    import httpx2

# Error bodies echo keys, short ones too; in an answer only what is long enough to be no word is a key.
_SHORTEST_ECHOED, _SHORTEST_SAID = 6, 16


class Line:
    """The open connection to one endpoint."""

    def __init__(self, name: str, endpoint: Endpoint, environment: Mapping[str, str]) -> None:
        import httpx2
        import openai  # only where an endpoint is asked: it is slow to import

        assert endpoint.base_url is not None
        self.endpoint = endpoint
        address = re.sub(r"//[^/?#]*@|\?.*", lambda found: "//" * found[0].startswith("//"), endpoint.base_url)
        self.where = f"endpoint {name} ({address}, model {endpoint.model})"
        self.key_variable = endpoint.api_key_env or "OPENAI_API_KEY"
        self.slots = asyncio.Semaphore(endpoint.concurrency)
        self.held: list[tuple[Call, Exchange]] = []
        self._alive: asyncio.Task[None] | None = None
        self._environment = environment
        self._secrets: list[str] = []
        key = self._sendable(self._secret(self.key_variable), self.key_variable)
        headers = {
            header: self._sendable(self._expanded(value), header) for header, value in endpoint.extra_headers.items()
        }
        timeout = httpx2.Timeout(endpoint.timeout_s, connect=min(10.0, endpoint.timeout_s))
        self._listing = httpx2.Timeout(15.0, connect=timeout.connect)
        limits = httpx2.Limits(max_connections=endpoint.concurrency, max_keepalive_connections=endpoint.concurrency)
        try:
            url = httpx2.URL(endpoint.base_url)
        except httpx2.InvalidURL:
            url = httpx2.URL("")
        if not url.host or not 0 <= (url.port or 0) < 2**16:
            raise EndpointFailed(f"{self.where}: base_url is no address; mend it, then run the same command")
        self._base = url
        local = url.host in ("localhost", "127.0.0.1", "::1")
        self._openai = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=endpoint.base_url,
            organization=None,
            project=None,
            max_retries=0,
            timeout=timeout,
            default_headers=headers,
            default_query={name: self._expanded(value) for name, value in endpoint.extra_query.items()},
            http_client=httpx2.AsyncClient(limits=limits, timeout=timeout, trust_env=not local, verify=_tls(not local)),
        )

    def _secret(self, variable: str) -> str:
        value = self._environment.get(variable, "").strip()
        if value:
            escaped = json.dumps(value)[1:-1]
            self._secrets += {value, escaped, escaped.replace("/", r"\/")}
            self._secrets.sort(key=len, reverse=True)  # so that no part of a longer one stays
        return value

    def _expanded(self, value: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self._secret(match[1]), value)

    def _sendable(self, value: str, name: str) -> str:
        """The header's value; said here, for what fails deeper down shows the value."""
        if value.isascii() and value.isprintable():
            return value
        raise EndpointFailed(
            f"{self.where}: {name} holds a line break or a character that no header can carry; set it anew, then run the same command"
        )

    def scrub(self, text: str, shortest: int = _SHORTEST_ECHOED) -> str:
        """A server may echo a key: it goes no further."""
        for secret in self._secrets:
            if len(secret) >= shortest:
                text = text.replace(secret, "***")
        return text

    async def check_alive(self) -> None:
        """Once, before the first call: is there a server at all? (What it answers does not matter.)"""
        if self._alive is None:
            self._alive = asyncio.create_task(self._connect())
        await asyncio.shield(self._alive)

    async def _connect(self) -> None:
        import httpx2
        import openai

        for wait_s in (0.2, 1.0, None):
            try:
                await self._openai.get("/models", cast_to=httpx2.Response, options={"timeout": self._listing})
            except openai.APIConnectionError as error:
                cause = error.__cause__ or error
                if isinstance(cause, httpx2.ReadTimeout | httpx2.ReadError | httpx2.RemoteProtocolError):
                    return  # something is there, slow or odd: the calls have their own timeout and retries
                if wait_s is None or isinstance(cause, httpx2.ConnectTimeout):
                    raise EndpointFailed(
                        f"{self.where}: no server answers ({brief(self.scrub(str(cause) or type(cause).__name__))}); start it or mend base_url, then run the same command to resume"
                    ) from None
                await asyncio.sleep(wait_s)
            except (openai.APIStatusError, httpx2.HTTPError):
                return  # not every server lists its models
            else:
                return

    async def post(self, call: Call) -> tuple[int, str]:
        """One attempt: status and text. Raises Transient where no whole response came."""
        import httpx2
        import openai

        try:
            # httpx2 bounds every read; this bounds them all, against a server that trickles.
            async with asyncio.timeout(self.endpoint.timeout_s):
                response = await self._openai.post(
                    self._address(call.route),
                    cast_to=httpx2.Response,
                    body=dict(call.body),
                    options={"headers": {"x-judgeloop-call": call.call_id}},
                )
                return response.status_code, self.scrub(_decoded(response), _SHORTEST_SAID)
        except openai.APIStatusError as error:
            return self._unanswered(error.response, call.route)
        except (openai.APITimeoutError, TimeoutError):
            raise Transient("timeout") from None
        except openai.APIConnectionError as error:
            raise Transient("connection", detail=str(error.__cause__ or error)) from None
        except httpx2.HTTPError as error:
            raise Transient("connection", detail=str(error)) from None

    def _address(self, route: Route) -> str:
        return str(self._base.copy_with(path=scored.path(self._base.path, route))) if route else "/chat/completions"

    def _unanswered(self, response: httpx2.Response, route: Route) -> tuple[int, str]:
        text = self.scrub(_decoded(response))
        if 300 <= response.status_code < 400:
            target = self.scrub(response.headers.get("location", "another address"))
            raise Refused(f"HTTP {response.status_code}: redirects to {target}")
        try:
            parse(response.status_code, text, route)
        except Transient as fault:
            fault.wait_s = _retry_after(response.headers)
            raise
        return response.status_code, text

    async def close(self) -> None:
        if self._alive is not None:
            await asyncio.gather(self._alive, return_exceptions=True)
        await self._openai.close()


@cache
def _tls(trust_env: bool) -> ssl.SSLContext:
    """One store of certificates for all lines of a process: reading it takes longer than many calls (some 40 ms)."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=trust_env)


def _decoded(response: httpx2.Response) -> str:
    # JSON is UTF-8, whatever charset a header names.
    return response.content.decode("utf-8-sig", "replace")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from a header of seconds or of a date."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def brief(message: str) -> str:
    """What a server said, on one line of printable characters."""
    line = " ".join(message.split())[:300].rstrip(" .")
    return "".join(letter if letter.isprintable() else "?" for letter in line)
