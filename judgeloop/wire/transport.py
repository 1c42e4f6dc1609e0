"""The openai client below what judgeloop does not send by its own line: models, files, batches, fine-tuning; and a caller's client.

It imports openai and httpx2, which are slow: import it where they are needed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import httpcore2
import httpx2
import openai

from judgeloop.experiment.schema import is_written_key
from judgeloop.wire.line import USER_AGENT, Answer, check_answers, tls, too_large
from judgeloop.wire.reply import CALL_HEADER, MAX_MESSAGE_BYTES, TransientFault

_OF_THE_ENVELOPE = ("content-encoding", "content-length", "transfer-encoding")


class BoundedClient(httpx2.AsyncClient):
    """An HTTP client that reads ``MAX_MESSAGE_BYTES`` of an answer at most, then raises TransientFault; streams are not bounded."""

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """The response to a request, its body read unless ``stream``."""
        response = await super().send(request, stream=True, **options)
        if stream:
            return response
        try:
            content = await read_bounded(response)
        finally:
            await response.aclose()
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_ENVELOPE]
        return httpx2.Response(
            response.status_code, headers=headers, content=content, request=request, extensions=response.extensions
        )


async def read_bounded(response: httpx2.Response) -> bytes:
    """The body of a response that is read as a stream, unpacked. Raises TransientFault where it is larger."""
    return b"".join([part async for part in _bounded(response.aiter_bytes(), response.status_code)])


async def _bounded(parts: AsyncIterator[bytes], status: int) -> AsyncIterator[bytes]:
    size = 0
    async for part in parts:
        size += len(part)
        if size > MAX_MESSAGE_BYTES:
            raise too_large(status)
        yield part


def openai_client(
    base_url: str, key: str, headers: Mapping[str, str], query: Mapping[str, str], *, timeout_s: float, connect_s: float,
    at_once: int, trust_env: bool,
) -> openai.AsyncOpenAI:  # fmt: skip
    """An openai client with judgeloop's limits. Proxies of the environment count if ``trust_env``, its certificates always."""
    timeout = httpx2.Timeout(timeout_s, connect=connect_s)
    limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
    return openai.AsyncOpenAI(
        api_key=key or "none", base_url=base_url, organization=None, project=None, max_retries=0, timeout=timeout,
        default_headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip", **headers}, default_query=query,
        http_client=BoundedClient(limits=limits, timeout=timeout, trust_env=trust_env, verify=tls()),
    )  # fmt: skip


class OpenAILine:
    """The line of an openai client, a caller's own or ``openai_client``'s; its own retries are left out."""

    def __init__(
        self, client: openai.AsyncOpenAI, headers: Mapping[str, str], query: Mapping[str, str],
        remember: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """``headers`` and ``query`` are sent with every request, beside the client's own; ``remember`` gets each key and token
        that was sent, once, before the answer is read."""
        self._client, self._headers, self._query = client, headers, query
        self._remember, self._sent_secrets = remember, set[str]()
        http: httpx2.AsyncClient = client._client
        hooks = http.event_hooks
        http.event_hooks = {**hooks, "response": [*hooks.get("response", ()), _bound]}

    async def send(self, method: str, address: str, body: Mapping[str, Any] | None = None, call_id: str = "") -> Answer:
        """See ``Line``."""
        named = {CALL_HEADER: call_id} if call_id else {}
        options: Any = {
            "headers": {**self._headers, **named}, "params": self._query, "max_retries": 0, "follow_redirects": False
        }  # fmt: skip
        try:
            if method == "GET":
                response = await self._client.get(address, cast_to=httpx2.Response, options=options)
            else:
                response = await self._client.post(
                    address, cast_to=httpx2.Response, body=dict(body or {}), options=options
                )
        except openai.APIStatusError as error:
            response = error.response
        except openai.APITimeoutError as error:
            raise TransientFault("timeout", sent=not isinstance(error.__cause__, httpx2.ConnectTimeout)) from error
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, TransientFault):
                raise error.__cause__ from None
            sent = not isinstance(error.__cause__, httpx2.ConnectError)
            raise TransientFault("connection", detail=str(error.__cause__ or error), sent=sent) from error
        except httpx2.HTTPError as error:
            raise TransientFault("connection", detail=str(error)) from error
        secrets = {
            value.rpartition(" ")[2] for name, value in response.request.headers.items() if is_written_key(name, value)
        }
        if new := secrets - self._sent_secrets:  # tokens that a client fetches change as a run goes on
            self._sent_secrets |= new
            self._remember(new)
        try:
            check_answers(response.headers, call_id)
        except TransientFault:
            stream = response.extensions.get("network_stream")
            if stream is not None:
                await stream.aclose()
            raise
        return Answer(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """Close the client: its connections belong to the event loop in which they were made."""
        await self._client.close()


async def _bound(response: httpx2.Response) -> None:
    """Have what a response to a call holds be read up to the bound alone."""
    if CALL_HEADER in response.request.headers:
        whole = response.aiter_bytes
        response.aiter_bytes = lambda *size: _bounded(whole(*size), response.status_code)  # type: ignore[method-assign, assignment]


# A server that answers twice leaves the second answer on the connection, where httpcore2 would take it for that of the next call.
# It asks this of a connection before each use, and closes one that has expired.
_has_expired = httpcore2.AsyncHTTP11Connection.has_expired


def _has_expired_or_leftovers(connection: Any) -> bool:
    return _has_expired(connection) or bool(connection._h11_state.trailing_data[0])


httpcore2.AsyncHTTP11Connection.has_expired = _has_expired_or_leftovers  # type: ignore[method-assign, assignment]
