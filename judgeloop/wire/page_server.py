"""Pages on loopback: serves what it is given to this machine's browser, and to nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from judgeloop.errors import JudgeloopError
from judgeloop.serving.server import serve_forever

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
_LOG = logging.getLogger("judgeloop.serve")


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
