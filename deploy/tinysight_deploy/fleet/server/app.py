"""The fleet's server: a controller and the API, in one process and one event loop.

In: an address, a state, a broker.  Out: HTTP/1.1, with TLS or behind something that has it. Connections, heads, bodies
and waiting are bounded; every answer has the headers that keep a browser from doing anything with it.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinysight_contract.errors import TinySightError
from tinysight_deploy.fleet.server.api import routes
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_deploy.fleet.server.taking import Fleet
from tinysight_deploy.serving import HSTS, Bind, heed_signals, listening, server_of

__all__ = ["Bind", "application", "listening", "run", "serve"]

AGAIN_S: Final = 5.0
SECURITY: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_ASKED: Final = ["Authorization", "Content-Type", "If-None-Match", "Upload-Length", "Upload-Offset"]
_TOLD: Final = ["ETag", "Retry-After", "Upload-Length", "Upload-Offset"]

log = logging.getLogger(__name__)


def application(
    fleet: Fleet, *, origins: Sequence[str] = (), more: Sequence[BaseRoute] = (), secure: bool = False
) -> ASGIApp:
    """The web application.

    Args:
        fleet: what it works on.
        origins: of web pages elsewhere that may ask; none unless given.
        more: routes beside those of the API.
        secure: it is reached with TLS, and shall be from now on.
    """
    middleware = [Middleware(_Headers, secure=secure)]
    if origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(origins),
                allow_methods=["DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"],
                allow_headers=_ASKED,
                expose_headers=_TOLD,
                max_age=600,
            )
        )
    app = Starlette(
        routes=[*routes(fleet), *more],
        middleware=middleware,
        exception_handlers={HTTPException: _http, Exception: _broken},
    )
    app.router.redirect_slashes = False
    return app


async def _http(_: Request, error: Exception) -> Response:
    """What the router says: there is no such route, or not with this method."""
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    what = "There is a route, but not with this method." if status == 405 else "There is no such route."
    return Problem(status, what, mend="/openapi.json lists what there is.", headers=dict(headers or {})).answer()


async def _broken(_: Request, error: Exception) -> Response:
    """What nobody foresaw; it is in the log."""
    log.error("a request broke the server: %s: %s", type(error).__name__, error)
    close = {"Connection": "close"}  # uvicorn closes it, and whoever would send more on it should know
    response = Problem(500, "The server is at fault.", mend="Look into its log, and report it.", headers=close).answer()
    response.headers.update(SECURITY)  # this one is made outside of `_Headers`
    return response


class _Headers:
    """Gives every answer the headers that keep a browser from doing anything with it."""

    def __init__(self, app: ASGIApp, *, secure: bool) -> None:
        given = {**SECURITY, "Strict-Transport-Security": HSTS} if secure else SECURITY
        self._app = app
        self._given = [(name.lower().encode(), value.encode()) for name, value in given.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", ())}
                added = [each for each in self._given if each[0] not in there]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


def serve(
    app: ASGIApp,
    listener: socket.socket,
    lead: Callable[[], Coroutine[Any, Any, None]],
    *,
    cert: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
) -> None:
    """Serve, and lead, until it is told to end; arguments and errors as those of `run`."""
    server = server_of(app, cert=cert, key=key, behind_proxy=behind_proxy)
    heed_signals(server)
    asyncio.run(_run(server, listener, lead))


async def run(
    app: ASGIApp,
    listener: socket.socket,
    lead: Callable[[], Coroutine[Any, Any, None]],
    *,
    cert: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
) -> None:
    """Serve, and lead, until one of both ends or this is cancelled.

    Args:
        app: from `application`.
        listener: a socket that listens.
        lead: the controller; when it ends, all ends. After a fault that nobody foresaw it leads again in a moment.
        cert: a PEM file; with `key`, for TLS.
        key: likewise.
        behind_proxy: heed ``X-Forwarded-For`` of the proxies that ``$FORWARDED_ALLOW_IPS`` names, 127.0.0.1 unless set.

    Raises:
        ConfigError: the certificate cannot be used.
        TinySightError: what ended the controller.
    """
    await _run(server_of(app, cert=cert, key=key, behind_proxy=behind_proxy), listener, lead)


async def _run(server: uvicorn.Server, listener: socket.socket, lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
    leads, serves = asyncio.create_task(_go_on(lead)), asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.wait({leads, serves}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        await serves
        leads.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await leads


async def _go_on(lead: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Lead; and again after a fault that nobody foresaw: every turn begins with what state and broker say then."""
    while True:
        try:
            return await lead()
        except TinySightError:
            raise
        except Exception:  # a server that leads again is worth more than one that is gone
            log.exception("The controller is at fault. It leads again in %.0f s. Report it.", AGAIN_S)
        await asyncio.sleep(AGAIN_S)
