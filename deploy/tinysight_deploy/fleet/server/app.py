"""The fleet's server: a controller and the API, in one process and one event loop.

In: an address, a state, a broker.  Out: HTTP/1.1, with TLS or behind something that has it. Connections, heads, bodies
and waiting are bounded; every answer has the headers that keep a browser from doing anything with it.
"""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from tinysight_contract.errors import ConfigError, TinySightError
from tinysight_deploy.fleet.server.api import routes
from tinysight_deploy.fleet.server.auth import network
from tinysight_deploy.fleet.server.problems import Problem
from tinysight_deploy.fleet.server.taking import Fleet

__all__ = ["Bind", "application", "listening", "run", "serve"]

MAX_CONNECTIONS: Final = 1024
"""Sockets; of one address a quarter of it, unless that is a proxy's."""
MAX_HEAD_BYTES: Final = 16 << 10
IDLE_S: Final = 5
HEAD_S: Final = 10.0
HANDSHAKE_S: Final = 10.0
END_S: Final = 3
AGAIN_S: Final = 5.0
SECURITY: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HSTS: Final = "max-age=31536000"
_ASKED: Final = ["Authorization", "Content-Type", "If-None-Match", "Upload-Length", "Upload-Offset"]
_TOLD: Final = ["ETag", "Retry-After", "Upload-Length", "Upload-Offset"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bind:
    """Where to listen.

    Attributes:
        host: an address, or a name of this machine.
        port: 0 takes a free one.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Bind":
        """Read ``127.0.0.1:8443`` or ``[::1]:8443``.

        Raises:
            ConfigError: it is none.
        """
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            host = ""
        if not colon or not host or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"--bind {text!r} is no address.", mend="Write HOST:PORT, such as 127.0.0.1:8443.")
        return cls(host, int(port))

    @property
    def loopback(self) -> bool:
        """Whether nobody but this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def refuse_plain(self, *, tls: bool, behind_proxy: bool) -> None:
        """See that no token goes over a network in plain text.

        Raises:
            ConfigError: it would.
        """
        if not (self.loopback or tls or behind_proxy):
            raise ConfigError(
                f"Tokens would reach {self.host} in plain text.",
                mend="Give --cert and --key, or --behind-proxy when a reverse proxy in front has TLS.",
            )


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


class _Patient(H11Protocol):
    """HTTP/1.1 of so many connections, whose patience has an end; uvicorn counts requests, and waits for ever.

    It does not wait for a head, for the rest of a body that was answered already, nor for a client that takes no more
    of its answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn says it wider
        super().connection_made(transport)
        self._look = self.loop.call_later(HEAD_S, self._give_up, (None, 0))
        self.network = network(self.client[0]) if self.client else ""
        if self._too_many():
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _too_many(self) -> bool:
        """Whether this connection is one too many, of all or of its address."""
        there = [each.network for each in self.connections if isinstance(each, _Patient)]
        alone = not self.config.proxy_headers and there.count(self.network) > MAX_CONNECTIONS // 4
        return alone or len(there) > MAX_CONNECTIONS

    def _give_up(self, before: tuple[object, int]) -> None:
        """Close when nothing has happened since the last look; `before` is the request of then, and what was unsent."""
        now = self.cycle, self.transport.get_write_buffer_size()
        waits = self.conn.their_state is h11.IDLE or (self.cycle is not None and self.cycle.response_complete)
        if not waits or now != before:
            self._look = self.loop.call_later(HEAD_S, self._give_up, now)
        elif now[1] or self.transport.is_closing():
            self.transport.abort()
        else:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn, with a bound on how long TLS may take to begin; its own has none."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        def made() -> asyncio.Protocol:
            return _Patient(self.config, self.server_state, self.lifespan.state)

        loop, tls = asyncio.get_running_loop(), self.config.ssl
        bound_s = None if tls is None else HANDSHAKE_S
        self.servers = [
            await loop.create_server(made, sock=each, ssl=tls, ssl_handshake_timeout=bound_s, backlog=MAX_CONNECTIONS)
            for each in sockets or ()
        ]
        self.started = True


@contextlib.contextmanager
def listening(bind: Bind) -> Iterator[tuple[socket.socket, int]]:
    """A socket that listens already, and its port.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        server = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(f"{bind.host} is no address: {error}.", mend="Choose another --bind.") from error
    with server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(address)
            server.listen(MAX_CONNECTIONS)
        except OSError as error:
            raise ConfigError(
                f"{bind.host} port {bind.port} cannot be listened on: {error.strerror or error}.",
                mend="Choose another --bind.",
            ) from error
        yield server, server.getsockname()[1]


def _tls(cert: Path | None, key: Path | None) -> dict[str, Any]:
    """What uvicorn is told of TLS.

    Raises:
        ConfigError: only one is given, or they do not fit.
    """
    if cert is None and key is None:
        return {}
    if cert is None or key is None:
        raise ConfigError("TLS needs a certificate and its key.", mend="Give both --cert and --key.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        mend = "Give a PEM certificate, with its chain, and its key without a passphrase."
        raise ConfigError(f"{cert} and {key} cannot be used: {error}.", mend=mend) from error
    return {"ssl_certfile": cert, "ssl_keyfile": key}


def serve(
    app: ASGIApp,
    listener: socket.socket,
    lead: Callable[[], Coroutine[Any, Any, None]],
    *,
    cert: Path | None = None,
    key: Path | None = None,
    behind_proxy: bool = False,
) -> None:
    """Serve, and lead, until SIGINT or SIGTERM; arguments and errors as those of `run`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: None)  # uvicorn raises it again once it has ended
    asyncio.run(run(app, listener, lead, cert=cert, key=key, behind_proxy=behind_proxy))


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
    config = uvicorn.Config(
        app,
        access_log=False,
        date_header=True,
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        http=_Patient,
        lifespan="off",
        log_config=None,  # its own ends the handlers of whatever process this runs in, and some close stderr with them
        log_level="critical",
        proxy_headers=behind_proxy,
        server_header=False,
        timeout_graceful_shutdown=END_S,
        timeout_keep_alive=IDLE_S,
        ws="none",
        **_tls(cert, key),
    )
    server = _Server(config)
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
