"""The local HTTP servers: the OpenAI-compatible one over an answerer, and pages for this machine's browser.

The OpenAI-compatible app has /v1/models, /v1/chat/completions, the routes that score texts and the Batch API. An *answerer*
(planted, replay, record) decides on the answers; the app adds error bodies, streams and faults on purpose. Both apps are
served by uvicorn, until interrupted (``serve_forever``) or from a thread of this process (``LocalServer``).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import re
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
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from judgeloop.errors import InvalidInput, JudgeloopError
from judgeloop.records import Call
from judgeloop.records import Route as RouteName
from judgeloop.serving.batch_api import BatchService, FineTuningService, Trains
from judgeloop.serving.faults import FaultCounter, Faults, fault_response
from judgeloop.serving.protocol import (
    Answerer,
    AnswerError,
    AnswerLike,
    DoubledResponse,
    Incoming,
    ScoringAnswerer,
    ServerAnswer,
    error_answer,
    incoming,
    parsed,
    read_json,
    response,
)
from judgeloop.wire.reply import CALL_HEADER, MAX_MESSAGE_BYTES, ROUTE_PATHS

MAX_BODY_BYTES = 256 * 2**20

_Answering = Callable[[dict[str, Any], str | None], Awaitable[AnswerLike]]
_LOG = logging.getLogger("judgeloop.serve")


def create_app(
    answerer: Answerer, *, faults: Faults | None = None, max_body_bytes: int = MAX_BODY_BYTES, batches: bool = True,
    local: bool = True,
) -> Starlette:  # fmt: skip
    """The OpenAI-compatible ASGI app over an answerer; one with ``aclose`` is closed when the server stops, one with ``pages`` (path →
    JSON) has these served too.

    ``faults``: played on purpose; the app's ``state.faults`` is their FaultCounter. A request larger than ``max_body_bytes``
    is refused, and one of a call that is larger than MAX_MESSAGE_BYTES. ``batches``: whether the app has the Batch API, and for an
    answerer that trains the fine-tuning API.
    Pages of other sites are refused, and with ``local`` other names of this machine than localhost, by which they would pass.
    """
    service = _Service(answerer, FaultCounter(faults or Faults()), max_body_bytes)
    routes = [
        Route("/v1/models", service.models, methods=["GET"]),
        Route("/v1/models/{model:path}", service.models, methods=["GET"]),
        Route("/v1/chat/completions", service.completions, methods=["POST"]),
        *(Route(path, service.scores, methods=["POST"]) for path in ROUTE_PATHS),
        *(Route(path, _page(page), methods=["GET"]) for path, page in getattr(answerer, "pages", {}).items()),
        *(service.batches.routes() if batches else ()),
        *(FineTuningService(answerer, service.batches).routes() if batches and isinstance(answerer, Trains) else ()),
    ]
    guard = Middleware(_OwnMachineOnly, local=local)
    app = Starlette(
        routes=routes, exception_handlers={HTTPException: _unrouted}, lifespan=service.lifespan, middleware=[guard]
    )
    app.router.redirect_slashes = False
    app.state.faults = service.faults
    return app


def _page(content: Mapping[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JSONResponse(content)

    return answer


class _OwnMachineOnly:
    """ASGI middleware: a page of another site that a browser shows can ask no local server. A request with an Origin is answered where
    that is the address asked; with ``local`` the address must be this machine's own."""

    def __init__(self, app: ASGIApp, local: bool) -> None:
        self._app, self._local = app, local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._local and _host_name(host) not in (*_HOST_NAMES, "[::1]"):
            refusal = f"This server answers as localhost or {LOOPBACK} alone, not as {host!r:.80}; serve with --host to open it"
        elif origin is not None and origin.partition("://")[2] != host:
            refusal = f"This server answers no page of another site ({origin!r:.80})"
        else:
            await self._app(scope, receive, send)
            return
        await response(error_answer(403, refusal, code="foreign_site"))(scope, receive, send)


def _host_name(host: str) -> str:
    """The name in a Host header, without the port and the brackets of IPv6."""
    return host.rpartition(":")[0] if re.fullmatch(r".*[^:]:\d+|\[.*\]:\d+", host) else host


class _Service:
    """The endpoints of the OpenAI-compatible app over one answerer."""

    def __init__(self, answerer: Answerer, faults: FaultCounter, max_body_bytes: int) -> None:
        self.answerer, self.faults, self.max_body_bytes = answerer, faults, max_body_bytes
        self.batches = BatchService(
            lambda body, call_id: _guarded(answerer.answer(body, call_id), call_id), faults, max_body_bytes
        )

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        await self.batches.aclose()
        # In the loop that served: the answerer's connections belong to it.
        if (close := getattr(self.answerer, "aclose", None)) is not None:
            await close()

    async def models(self, request: Request) -> Response:
        incoming.set(_incoming(request))
        listing = await _guarded(self._listing(), "the list of models")
        model = request.path_params.get("model")
        if model is None or listing.status != 200:
            return response(listing)
        assert isinstance(listing.body, Mapping)
        for entry in listing.body["data"]:
            if entry["id"] == model:
                return response(ServerAnswer(200, entry))
        return response(error_answer(404, f"The model {model!r} does not exist", code="model_not_found"))

    async def _listing(self) -> ServerAnswer:
        models = self.answerer.models()
        names = await models if inspect.isawaitable(models) else models
        entries = [{"id": name, "object": "model", "created": 0, "owned_by": "judgeloop"} for name in names]
        return ServerAnswer(200, {"object": "list", "data": entries})

    async def completions(self, request: Request) -> Response:
        return await self._respond(request, "", self.answerer.answer)

    async def scores(self, request: Request) -> Response:
        if not isinstance(self.answerer, ScoringAnswerer):
            return response(
                error_answer(404, f"This server neither scores nor embeds: {request.url.path}", code="unknown_url")
            )
        route = ROUTE_PATHS[request.url.path]
        return await self._respond(request, route, functools.partial(self.answerer.score, route))

    async def _respond(self, request: Request, route: RouteName, answer: _Answering) -> Response:
        """The response to a request, with the call's id as it came: a client sees by it which call is answered."""
        answered = await self._response(request, route, answer)
        answered.raw_headers += [(name, value) for name, value in request.headers.raw if name == CALL_HEADER.encode()]
        return answered

    async def _response(self, request: Request, route: RouteName, answer: _Answering) -> Response:
        """A fault on purpose, an error, or what ``answer`` gives."""
        try:
            body = parsed(await read_json(request, min(self.max_body_bytes, MAX_MESSAGE_BYTES)), route)
        except AnswerError as error:
            return response(error.answer)
        except ClientDisconnect:
            return Response(status_code=400)
        call_id = _call_id(request)
        rule = self.faults.next(call_id or Call("", "", body, route).key, call_id)
        if rule is not None and (fault := await fault_response(rule, body, route)) is not None:
            return fault
        # Each request is a task of its own: the variable is set for this request alone.
        incoming.set(_incoming(request))
        served = await _guarded(answer(body, call_id), call_id or "a call without an id")
        answered = response(served, None if route else body)
        if rule is not None and rule.kind == "doubled" and not isinstance(answered, StreamingResponse):
            return DoubledResponse(answered.body, answered.status_code, answered.headers)
        return answered


async def _guarded(answering: Awaitable[AnswerLike], what: str) -> AnswerLike:
    """The answer, or the error body of the exception that was raised instead; ``what`` names it in the log."""
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
    url = f"{request.method} {request.url.path}"
    if error.status_code == 405:
        return response(error_answer(405, f"Not allowed: {url}", code="method_not_allowed", headers=error.headers))
    message = f"Unknown request URL: {url}; try /v1/models or /v1/chat/completions"
    return response(error_answer(error.status_code, message, code="unknown_url"))


def _call_id(request: Request) -> str | None:
    raw = next((value for name, value in request.headers.raw if name == CALL_HEADER.encode()), b"")
    return raw.decode("utf-8", "replace") or None


def _incoming(request: Request) -> Incoming:
    return Incoming(tuple(request.headers.raw), request.url.query)


class _Protocol(H11Protocol):
    """uvicorn's HTTP, which also gives the app its transport, by which faults on purpose break the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def _bound(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InvalidInput."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=2048)
        # Connections inherit it: without it an answer waits some 40 ms for the client's acknowledgement. asyncio sets it
        # only for sockets of a stated protocol, and this one states none.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise InvalidInput(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another --host or --port"
        ) from None
    return sock


def _base_url(sock: socket.socket) -> str:
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
    """A server that stops at once by ``stop``; uvicorn's looks ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:
            await self._stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's waits a tenth of a second whatever is open: connections on which nothing is asked close at once."""
        if not self.server_state.tasks:
            for server in self.servers:
                server.close()
            for connection in list(self.server_state.connections):
                connection.shutdown()
            await asyncio.sleep(0)  # the turn in which they are lost
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for bound in sockets or []:
            bound.close()
        await self.lifespan.shutdown()

    def stop(self) -> None:
        """Stop the server; may be called from another thread."""
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
        self.base_url = _base_url(self._socket)
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
    """Serve until interrupted. ``ready`` gets the base URL once the port is bound. Raises InvalidInput where it is taken."""
    sock = _bound(host, port)
    if ready is not None:
        ready(_base_url(sock))
    asyncio.run(uvicorn.Server(_config(app)).serve(sockets=[sock]))


# Pages for this machine's browser alone.

Page = Callable[[], str | Mapping[str, Any]]
"""The maker of a page: HTML as text, or a mapping for JSON. May be slow, and may raise JudgeloopError."""

LOOPBACK = "127.0.0.1"
# Other host names are refused: a site that points its own name at this machine could read the pages otherwise.
_HOST_NAMES = (LOOPBACK, "localhost")
_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'self'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def create_page_app(pages: Mapping[str, Page]) -> Starlette:
    """The ASGI app that answers GET alone, a page a path. A page that fails is its error's sentence, with status 503."""
    routes = [Route(path, _endpoint(page), methods=["GET"]) for path, page in pages.items()]
    guard = Middleware(TrustedHostMiddleware, allowed_hosts=list(_HOST_NAMES), www_redirect=False)
    return Starlette(routes=routes, middleware=[guard])


def serve_pages(pages: Mapping[str, Page], port: int = 0, *, ready: Callable[[str], None] = lambda _: None) -> None:
    """Serve pages on 127.0.0.1 until interrupted. ``ready`` gets the URL. Raises InvalidInput where the port is taken."""
    serve_forever(create_page_app(pages), LOOPBACK, port, ready=lambda url: ready(url.removesuffix("v1")))


def _endpoint(page: Page) -> Callable[[Request], Any]:
    async def answer(_: Request) -> Response:
        try:
            content = await run_in_threadpool(page)
        except JudgeloopError as error:
            return PlainTextResponse(f"judgeloop: {error}\n", 503, _HEADERS)
        except Exception as error:
            _LOG.exception("a page could not be made")
            return PlainTextResponse(f"judgeloop: this page failed ({type(error).__name__})\n", 500, _HEADERS)
        if isinstance(content, str):
            return HTMLResponse(content, headers=_HEADERS)
        return JSONResponse(content, headers=_HEADERS)

    return answer
