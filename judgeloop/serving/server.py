"""The local OpenAI-compatible server: /v1/models, /v1/chat/completions and the routes that score texts, over whatever
answers (planted, replay, record).

An *answerer* says what is answered; this module knows HTTP, streaming, OpenAI's error bodies and faults on purpose.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from judgeloop.errors import InvalidInput, JudgeloopError
from judgeloop.records import Call
from judgeloop.records import Route as RouteName
from judgeloop.serving.batch_api import BatchService
from judgeloop.serving.faults import FaultCounter, Faults, fault_response, response
from judgeloop.serving.protocol import (
    Answerer,
    AnswerError,
    AnswerLike,
    Incoming,
    ScoringAnswerer,
    ServerAnswer,
    error_answer,
    incoming,
    parsed,
)
from judgeloop.wire import reply

CALL_HEADER = "x-judgeloop-call"
MAX_BODY_BYTES = 256 * 2**20

_Answering = Callable[[dict[str, Any], str | None], Awaitable[AnswerLike]]
_LOG = logging.getLogger("judgeloop.serve")


def create_app(
    answerer: Answerer, *, faults: Faults | None = None, max_body_bytes: int = MAX_BODY_BYTES, batches: bool = True
) -> Starlette:
    """The ASGI app. An answerer with ``aclose`` is closed when the server stops. ``batches``: has the Batch API too.

    Its ``state.faults`` is the FaultCounter: attempts seen and faults fired.
    """
    service = _Service(answerer, FaultCounter(faults or Faults()), max_body_bytes)
    routes = [
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{model:path}", service.models, methods=["GET"]),
        Route("/v1/chat/completions", service.completions, methods=["POST"]),
        *(Route(path, service.scores, methods=["POST"]) for path in reply.PATHS),
        *(service.batches.routes() if batches else ()),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _unrouted}, lifespan=service.lifespan)
    app.router.redirect_slashes = False
    app.state.faults = service.faults
    return app


class _Service:
    """The endpoints over one answerer."""

    def __init__(self, answerer: Answerer, faults: FaultCounter, max_body_bytes: int) -> None:
        self.answerer, self.faults, self.max_body_bytes = answerer, faults, max_body_bytes
        self.batches = BatchService(
            lambda body, call_id: _guarded(answerer.answer(body, call_id), call_id), faults, max_body_bytes
        )

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.batches.aclose()
        # In the loop that served, for there an answerer's connections live.
        if (close := getattr(self.answerer, "aclose", None)) is not None:
            await close()

    async def models(self, request: Request) -> Response:
        incoming.set(_incoming(request))
        listed = await _guarded(self._listed(), "the list of models")
        wanted = request.path_params.get("model")
        if wanted is None or listed.status != 200:
            return response(listed)
        assert isinstance(listed.body, Mapping)
        for entry in listed.body["data"]:
            if entry["id"] == wanted:
                return response(ServerAnswer(200, entry))
        return response(error_answer(404, f"The model {wanted!r} does not exist", code="model_not_found"))

    async def _listed(self) -> ServerAnswer:
        listed = self.answerer.models()
        names = await listed if inspect.isawaitable(listed) else listed
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "judgeloop"} for name in names]
        return ServerAnswer(200, {"object": "list", "data": entries})

    async def completions(self, request: Request) -> Response:
        return await self._answered(request, "", self.answerer.answer)

    async def scores(self, request: Request) -> Response:
        if not isinstance(self.answerer, ScoringAnswerer):
            return response(error_answer(404, f"This server does not score: {request.url.path}", code="unknown_url"))
        route = reply.PATHS[request.url.path]
        return await self._answered(request, route, functools.partial(self.answerer.score, route))

    async def _answered(self, request: Request, route: RouteName, answer: _Answering) -> Response:
        try:
            body = parsed(await _read(request, self.max_body_bytes), route)
        except AnswerError as error:
            return response(error.answer)
        except ClientDisconnect:
            return Response(status_code=400)
        call_id = _call_id(request)
        rule = self.faults.next(call_id or Call("", "", body, route).key, call_id)
        if rule is not None and (fault := await fault_response(rule, body, route)) is not None:
            return fault
        # A request is a task of its own, so that what is set here ends with it.
        incoming.set(_incoming(request))
        said = await _guarded(answer(body, call_id), call_id or "a call without an id")
        return response(said, None if route else body)


async def _guarded(answering: Awaitable[AnswerLike], what: str) -> AnswerLike:
    """The answer, or the error body of what was raised instead."""
    try:
        return await answering
    except AnswerError as error:
        return error.answer
    except JudgeloopError as error:
        return error_answer(500, str(error))
    except Exception as error:
        _LOG.exception("%s could not be answered", what)
        return error_answer(500, f"judgeloop serve failed: {type(error).__name__}")


async def _unrouted(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    where = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        return response(error_answer(405, f"Not allowed: {where}", code="method_not_allowed", headers=error.headers))
    message = f"Unknown request URL: {where}; try /v1/models or /v1/chat/completions"
    return response(error_answer(error.status_code, message, code="unknown_url"))


def _call_id(request: Request) -> str | None:
    raw = next((value for name, value in request.headers.raw if name == CALL_HEADER.encode()), b"")
    return raw.decode("utf-8", "replace") or None


def _incoming(request: Request) -> Incoming:
    return Incoming(tuple(request.headers.raw), request.url.query)


async def _read(request: Request, most: int) -> bytes:
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise AnswerError(error_answer(413, f"The request body is larger than {most} bytes", code="too_large"))
        parts.append(part)
    return b"".join(parts)


class _Protocol(H11Protocol):
    """uvicorn's HTTP, which also shows the app its transport: faults on purpose break the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _bound(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it. asyncio would set it for sockets of a stated protocol only, and this one states none:
        # without it an answer waits some 40 ms for the client's acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --host or --port"
        ) from None
    return sock


def _url(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


def _config(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=1,
        timeout_keep_alive=60,
    )


class _ThreadServer(uvicorn.Server):
    """uvicorn looks ten times a second whether it should stop; this one is told."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._stop.wait()

    def stop(self) -> None:
        """From another thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)


class LocalServer:
    """The app served from a thread of this process, for tests and library use::

    with LocalServer(create_app(answerer)) as server:
        OpenAI(base_url=server.base_url, api_key="none")
    """

    def __init__(self, app: Starlette, host: str = "127.0.0.1", port: int = 0) -> None:
        self.app = app
        self._socket = _bound(host, port)
        self.base_url = _url(self._socket)
        """Ends in /v1; known before the server is entered."""
        self._server = _ThreadServer(_config(app))
        self._thread = threading.Thread(target=self._run, name="judgeloop-serve", daemon=True)
        self._ended = threading.Event()

    def _run(self) -> None:
        try:
            asyncio.run(self._server.serve(sockets=[self._socket]))
        finally:
            self._ended.set()

    def __enter__(self) -> LocalServer:
        self._thread.start()
        while not self._server.started and not self._ended.wait(0.005):
            pass
        if not self._server.started:
            raise RuntimeError(f"the local server at {self.base_url} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server; requests in flight get a second."""
        if self._thread.is_alive():
            self._server.stop()
            self._thread.join()
        self._socket.close()


def serve_forever(
    app: Starlette, host: str = "127.0.0.1", port: int = 0, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until interrupted. ``ready`` is told the base URL once the port is bound. Raises InvalidInput if it cannot be."""
    sock = _bound(host, port)
    if ready is not None:
        ready(_url(sock))
    asyncio.run(uvicorn.Server(_config(app)).serve(sockets=[sock]))


# Pages on loopback: serves what it is given to this machine's browser, and to nobody else.

Page = Callable[[], str | Mapping[str, Any]]
"""What a path answers: HTML as text, or a mapping as JSON. May be slow, and may raise JudgeloopError."""

LOOPBACK = "127.0.0.1"
# A name that another site points at this machine is no name of this server: without the check, that site could read it.
_NAMES = (LOOPBACK, "localhost")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'self'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def create_page_app(pages: Mapping[str, Page]) -> Starlette:
    """The ASGI app: path → page, by GET alone. A page that fails is its error's sentence, with status 503."""
    routes = [Route(path, _endpoint(page), methods=["GET"]) for path, page in pages.items()]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(_NAMES), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def serve_pages(pages: Mapping[str, Page], port: int = 0, *, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve on 127.0.0.1 until interrupted. ``ready`` is told the URL. Raises InvalidInput where the port is taken."""
    serve_forever(create_page_app(pages), LOOPBACK, port, ready=lambda url: ready(url.removesuffix("v1")))


def _endpoint(page: Page) -> Callable[[Request], Any]:
    async def answer(_: Request) -> Response:
        try:
            made = await run_in_threadpool(page)
        except JudgeloopError as error:
            return PlainTextResponse(f"judgeloop: {error}\n", 503, _HEADERS)
        except Exception as error:
            _LOG.exception("a page could not be made")
            return PlainTextResponse(f"judgeloop: this page failed ({type(error).__name__})\n", 500, _HEADERS)
        return HTMLResponse(made, headers=_HEADERS) if isinstance(made, str) else JSONResponse(made, headers=_HEADERS)

    return answer
