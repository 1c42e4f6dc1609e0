"""The HTTP below every call: answers of bounded size, on connections that hold nothing but the answer that is asked for.

It imports httpx2, which is slow: import it where an endpoint is asked.
"""

from __future__ import annotations

import ssl
from functools import cache
from typing import Any

import httpcore2
import httpx2

from judgeloop.wire.reply import MAX_MESSAGE_BYTES, TransientFault

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
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > MAX_MESSAGE_BYTES:
            message = f"the answer is larger than {MAX_MESSAGE_BYTES / 2**20:g} MB, the most that is read"
            raise TransientFault(
                "too_large", status=response.status_code, response={"error": {"message": message}}, detail=message
            )
        parts.append(part)
    return b"".join(parts)


def http_client(*, limits: httpx2.Limits, timeout: httpx2.Timeout, is_local: bool) -> httpx2.AsyncClient:
    """The HTTP client of an endpoint. Proxies of the environment are not for this machine's own servers; its certificates are."""
    return BoundedClient(limits=limits, timeout=timeout, trust_env=not is_local, verify=_tls())


@cache
def _tls() -> ssl.SSLContext:
    """The store of certificates that all connections of a process share: to read it takes longer than many calls (40 ms)."""
    return httpx2.create_ssl_context(trust_env=True)


# A server that answers twice leaves the second answer on the connection, where httpcore2 would take it for that of the next call.
# It asks this of a connection before each use, and closes one that has expired.
_has_expired = httpcore2.AsyncHTTP11Connection.has_expired


def _has_expired_or_leftovers(connection: Any) -> bool:
    return _has_expired(connection) or bool(connection._h11_state.trailing_data[0])


httpcore2.AsyncHTTP11Connection.has_expired = _has_expired_or_leftovers  # type: ignore[method-assign, assignment]
