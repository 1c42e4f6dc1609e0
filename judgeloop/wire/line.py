"""The line below every call: one HTTP request out, its whole answer in.

``Line`` is the seam. ``LeanLine`` here is what calls travel by: asyncio's sockets and TLS, and llhttp's parser (httptools), at a
cost a request that does not grow with those in flight (``benchmarks/calls.py``). ``wire/transport`` has the second one, an openai client of the
caller's own; both give the same answers and the same faults (``tests/wire/test_line.py``).

A connection carries one request at a time, and is closed where anything but the one answer arrives on it: what a server sends
unasked answers no call.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import ssl
import zlib
from collections import deque
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

import httptools
import orjson

from judgeloop.wire.reply import CALL_HEADER, MAX_MESSAGE_BYTES, TransientFault

USER_AGENT = f"judgeloop/{metadata.version('judgeloop')}"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:-]+")
_PORTS = {"http": 80, "https": 443}
_HEAD_BYTES = 100_000
"""Bytes of an answer's status line and headers that are read at most."""
_IDLE_S = 5.0
"""Seconds after which a connection without a request is not used again: servers close theirs then."""
_BODYLESS = (204, 304)
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class Answer(NamedTuple):
    """A whole answer, unpacked. ``headers``: by lower-case name, of several of one name the first."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Line(Protocol):
    """How requests reach one endpoint."""

    async def send(self, method: str, address: str, body: Mapping[str, Any] | None = None, call_id: str = "") -> Answer:
        """The answer to one request, whatever its status; redirects are answers. ``address`` is a path below the base URL, or a
        whole URL at the same host.

        Raises TransientFault where no whole answer came (``connection``, ``timeout`` or ``too_large``; ``sent`` is false where
        no connection was made), or the answer to another call.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


def check_answers(headers: Mapping[str, str], call_id: str) -> None:
    """Raise TransientFault where a server that repeats the call's id answers another call."""
    answered = headers.get(CALL_HEADER)
    if call_id and answered is not None and answered != call_id:
        raise TransientFault("connection", detail=f"the answer is to another call ({answered})")


def too_large(status: int) -> TransientFault:
    """The fault of an answer that is larger than what is read."""
    message = f"the answer is larger than {MAX_MESSAGE_BYTES / 2**20:g} MB, the most that is read"
    return TransientFault("too_large", status=status, response={"error": {"message": message}}, detail=message)


def is_local(host: str | None) -> bool:
    """Whether a server is this machine's own, for which the proxies of the environment are not."""
    return host in _LOCAL


def split_address(url: str) -> SplitResult:
    """The parts of a base URL. Raises ValueError where it is none."""
    parts = urlsplit(url)
    host = (parts.hostname or "").encode("idna").decode() if not (parts.hostname or "").isascii() else parts.hostname
    if parts.scheme not in _PORTS or not host or not _HOST.fullmatch(host) or parts.port == 0:
        raise ValueError(url)
    return parts


def proxy_of(address: SplitResult) -> str:
    """The proxy that the environment names for an address; empty for none."""
    host = address.hostname or ""
    if is_local(host):
        return ""
    from urllib.request import getproxies, proxy_bypass  # slow to import, and not for this machine's own servers

    if proxy_bypass(f"{host}:{address.port}" if address.port else host):
        return ""
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all", "")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"


@cache
def tls() -> ssl.SSLContext:
    """The store of certificates that all connections of a process share: to read it takes longer than many calls (40 ms)."""
    import httpx2  # it knows where systems keep theirs; slow to import, and not needed without TLS

    context = httpx2.create_ssl_context(trust_env=True)
    context.set_alpn_protocols(["http/1.1"])
    return context


class LeanLine:
    """The line that calls travel by."""

    def __init__(
        self, base_url: str, headers: Mapping[str, str], query: Mapping[str, str], *, connect_s: float, proxy: str = ""
    ) -> None:
        """``headers`` are sent with every request, and replace those of the line's own; ``query`` is put behind every address.
        ``connect_s``: seconds until a connection that is not made counts as timed out. Raises ValueError for no address."""
        self._base = split_address(base_url)
        self._query = f"?{urlencode(query)}" if query else ""
        self._connect_s = connect_s
        self._proxy = split_address(proxy) if proxy else None
        self._free: deque[tuple[_Wire, float]] = deque()
        self._open: set[_Wire] = set()
        host = _wire_host(self._base)
        own = {
            "Host": host, "Accept": "application/json", "Accept-Encoding": "gzip", "Connection": "keep-alive",
            "User-Agent": USER_AGENT,
        }  # fmt: skip
        self._given = {name.lower() for name in headers}
        kept = {name: value for name, value in own.items() if name.lower() not in self._given}
        if self._proxy and self._base.scheme == "http" and (allowed := _proxy_authorization(self._proxy)):
            kept["Proxy-Authorization"] = allowed
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in (kept | dict(headers)).items())
        self._heads: dict[tuple[str, str], bytes] = {}

    async def send(self, method: str, address: str, body: Mapping[str, Any] | None = None, call_id: str = "") -> Answer:
        """See ``Line``."""
        content = None if body is None else _encoded(body)
        head = self._heads.get((method, address)) or self._head(method, address)
        named = f"{CALL_HEADER}: {call_id}\r\n".encode() if call_id else b""
        length = b"" if content is None else b"content-length: %d\r\n" % len(content)
        wire = self._reusable() or await self._connected()
        try:
            answer = await wire.ask(b"".join((head, named, length, b"\r\n", content or b"")))
            check_answers(answer.headers, call_id)
        except BaseException:
            wire.close()
            self._open.discard(wire)
            raise
        if wire.is_clean:
            self._free.append((wire, asyncio.get_running_loop().time()))
        else:
            wire.close()
            self._open.discard(wire)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        for wire in self._open:
            wire.close()
        self._open.clear()
        self._free.clear()
        await asyncio.sleep(0)  # a closed socket is let go of in the loop's next turn

    def _head(self, method: str, address: str) -> bytes:
        """The request's first bytes, which are the same for all of one address."""
        whole = urlsplit(address)
        path = whole.path if whole.netloc else self._base.path.rstrip("/") + address
        target = quote(path, safe="/%:@!$&'()*+,;=~-._") + self._query
        if self._proxy and self._base.scheme == "http":
            target = f"http://{_wire_host(self._base)}{target}"
        kind = "content-type: application/json\r\n" if method == "POST" and "content-type" not in self._given else ""
        head = f"{method} {target} HTTP/1.1\r\n{self._headers}{kind}".encode("ascii")
        self._heads[method, address] = head
        return head

    def _reusable(self) -> _Wire | None:
        """The connection that was used last, where one is free."""
        while self._free:
            wire, since = self._free.pop()
            if wire.is_clean and asyncio.get_running_loop().time() - since < _IDLE_S:
                return wire
            wire.close()
            self._open.discard(wire)
        return None

    async def _connected(self) -> _Wire:
        """A new connection. Raises TransientFault that says that nothing was sent."""
        try:
            async with asyncio.timeout(self._connect_s):
                wire = await (self._through_proxy(self._proxy) if self._proxy else _connect(self._base))
        except TimeoutError as error:
            raise TransientFault("timeout", detail="the connection timed out", sent=False) from error
        except (OSError, ssl.CertificateError, UnicodeError) as error:
            raise TransientFault("connection", detail=str(error) or type(error).__name__, sent=False) from error
        self._open.add(wire)
        return wire

    async def _through_proxy(self, proxy: SplitResult) -> _Wire:
        """A connection to the proxy, or, for a server that is asked by TLS, through it."""
        wire = await _connect(proxy)
        if self._base.scheme == "http":
            return wire
        allowed = _proxy_authorization(proxy)
        place = f"{_bracketed(self._base)}:{self._base.port or _PORTS['https']}"
        headers = f"host: {place}\r\n" + (f"proxy-authorization: {allowed}\r\n" if allowed else "")
        try:
            answer = await wire.ask(f"CONNECT {place} HTTP/1.1\r\n{headers}\r\n".encode(), tunnel=True)
            if answer.status // 100 != 2:
                raise TransientFault("connection", detail=f"the proxy answers HTTP {answer.status}", sent=False)
            inner = _Wire()
            transport = await asyncio.get_running_loop().start_tls(
                wire.transport, inner, tls(), server_hostname=self._base.hostname
            )
        except BaseException:
            wire.close()
            raise
        if transport is None:
            raise ConnectionError("the proxy closed the connection")
        inner.connection_made(transport)
        return inner


def _encoded(body: Mapping[str, Any]) -> bytes:
    """The request's body. That its numbers are finite was seen when the call's key was made."""
    try:
        return orjson.dumps(body)
    except TypeError:  # numbers longer than 64 bits
        return _JSON.encode(body).encode()


async def _connect(address: SplitResult) -> _Wire:
    _, wire = await asyncio.get_running_loop().create_connection(
        _Wire, address.hostname or "", address.port or _PORTS[address.scheme], happy_eyeballs_delay=0.25,
        ssl=tls() if address.scheme == "https" else None,
    )  # fmt: skip
    return wire


def _bracketed(address: SplitResult) -> str:
    """The host, as it stands in an address."""
    host = address.hostname or ""
    return f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()


def _wire_host(address: SplitResult) -> str:
    """The value of the header Host."""
    standard = address.port in (None, _PORTS[address.scheme])
    return _bracketed(address) if standard else f"{_bracketed(address)}:{address.port}"


def _proxy_authorization(proxy: SplitResult) -> str:
    """The header's value for the user and password of a proxy's address; empty where it has none."""
    if proxy.username is None:
        return ""
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


class _Wire(asyncio.Protocol):
    """One connection: a request is written, and its answer, unpacked, is read."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self._closed = False
        self._spoilt = False
        """Whether more arrived than the answers that were asked for, or the server will close."""
        self._waiting: asyncio.Future[Answer] | None = None
        self._tunnel = False
        self._fault: TransientFault | None = None
        self._unpacker: zlib._Decompress | None
        self._begin()  # the connection may be lost before anything is asked

    @property
    def is_clean(self) -> bool:
        """Whether another request may be sent: the answer before was whole, nothing came behind it, and all was taken."""
        return not (self._closed or self._spoilt or self._waiting or self.transport.get_write_buffer_size())

    async def ask(self, request: bytes, *, tunnel: bool = False) -> Answer:
        """Write a request, and wait for the answer. ``tunnel``: the answer's head is all of it. Raises TransientFault."""
        if self._closed:
            raise TransientFault("connection", detail="the server closed the connection")
        self._parser = httptools.HttpResponseParser(self)
        self._tunnel = tunnel
        self._begin()
        self._read = 0
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self._waiting

    def close(self) -> None:
        """Close the connection."""
        self._closed = True
        self.transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:  # nobody asked
            self.close()
            return
        self._read += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._spoilt = True
            self._fail(TransientFault("connection", detail=f"no HTTP ({error})"))
        if self._fault is not None:
            self._fail(self._fault)
        elif self._waiting is not None and self._read > (2 * MAX_MESSAGE_BYTES if self._is_body else _HEAD_BYTES):
            self._fail(too_large(0))

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        if error is None and self._is_body and self._until_close:
            self._complete()
        else:
            self._fail(TransientFault("connection", detail=str(error or "") or "the server closed the connection"))

    # What httptools calls

    def on_message_begin(self) -> None:
        self._spoilt |= self._waiting is None

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip())

    def on_headers_complete(self) -> None:
        if self._waiting is None:
            return
        headers = self._headers
        self._status = self._parser.get_status_code()
        self._is_body = self._status >= 200
        self._until_close = "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "")
        coding = headers.get("content-encoding", "").strip().lower()
        if coding in ("gzip", "x-gzip"):
            self._unpacker = zlib.decompressobj(wbits=31)
        if self._tunnel and self._status // 100 == 2:
            self._complete()

    def on_body(self, data: bytes) -> None:
        if self._waiting is None or self._fault is not None:
            return
        room = MAX_MESSAGE_BYTES - self._size + 1
        if self._unpacker is not None:
            try:
                data = self._unpacker.decompress(data, room)
            except zlib.error as error:
                self._fault = TransientFault("connection", detail=f"the answer cannot be unpacked ({error})")
                return
        self._size += len(data)
        self._parts.append(data)
        if self._size > MAX_MESSAGE_BYTES:
            self._fault = too_large(self._status)

    def on_message_complete(self) -> None:
        if self._waiting is None or self._fault is not None:
            return
        if self._status < 200:  # only a word before the answer
            self._begin()
            return
        if not self._parser.should_keep_alive() or (self._until_close and self._status not in _BODYLESS):
            self._spoilt = True
        if self._unpacker is not None and not self._unpacker.eof and self._size:
            self._fault = TransientFault("connection", detail="the answer was cut off")
            return
        self._complete()

    def _begin(self) -> None:
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = self._status = 0
        self._is_body = self._until_close = False
        self._unpacker = None

    def _complete(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            content = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._waiting.set_result(Answer(self._status, self._headers, content))
        self._waiting = None
        self._parts = []

    def _fail(self, fault: TransientFault) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(fault)
        self._waiting = None
        self.close()
