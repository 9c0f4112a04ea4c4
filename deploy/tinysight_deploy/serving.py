"""What servers of TinySight have in common: where they listen, TLS, and bounds on connections, heads and waiting.

In: an address, an application.  Out: uvicorn's server with an end to its patience. Knows nothing of what is served.
"""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tinysight_contract.errors import ConfigError

__all__ = ["HSTS", "Bind", "address", "heed_signals", "listening", "network", "origin", "serve", "server_of", "tls"]

MAX_CONNECTIONS: Final = 1024
"""Sockets; of one address a quarter of it, unless that is a proxy's."""
MAX_HEAD_BYTES: Final = 16 << 10
IDLE_S: Final = 5
HEAD_S: Final = 10.0
HANDSHAKE_S: Final = 10.0
END_S: Final = 3
USUAL: Final = {"http": 80, "https": 443}
HSTS: Final = "max-age=31536000"
"""Of what is reached with TLS, and shall be from now on."""


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

    @property
    def everywhere(self) -> bool:
        """Whether it is no address to open, but all that this machine has."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def refuse_plain(self, *, tls: bool, behind_proxy: bool, what: str = "Tokens") -> None:
        """See that no secret goes over a network in plain text.

        Args:
            tls: it is spoken to over TLS.
            behind_proxy: a proxy in front has TLS.
            what: would be read.

        Raises:
            ConfigError: it would.
        """
        if not (self.loopback or tls or behind_proxy):
            raise ConfigError(
                f"{what} would reach {self.host} in plain text.",
                mend="Give --cert and --key, or --behind-proxy when a reverse proxy in front has TLS.",
            )


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


def tls(cert: Path | None, key: Path | None) -> dict[str, Any]:
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


def network(address: str) -> str:
    """An address as it is counted: of IPv6 the /64, of which one machine has all addresses."""
    try:
        read = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(read, ipaddress.IPv6Address):
        mapped = read.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((read, 64), strict=False))
    return str(read)


def server_of(
    app: ASGIApp, *, cert: Path | None = None, key: Path | None = None, behind_proxy: bool = False
) -> uvicorn.Server:
    """A server of an application, not yet started: ``await server.serve(sockets=[listener])`` does.

    Args:
        app: what it serves.
        cert: a PEM file; with `key`, for TLS.
        key: likewise.
        behind_proxy: heed ``X-Forwarded-For`` of the proxies that ``$FORWARDED_ALLOW_IPS`` names, 127.0.0.1 unless set.

    Raises:
        ConfigError: the certificate cannot be used.
    """
    return _Server(
        uvicorn.Config(
            app,
            access_log=False,
            date_header=True,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            http=_Patient,
            lifespan="off",
            log_config=None,  # its own ends the handlers of whatever process this runs in, and some close stderr too
            log_level="critical",
            proxy_headers=behind_proxy,
            server_header=False,
            timeout_graceful_shutdown=END_S,
            timeout_keep_alive=IDLE_S,
            ws="none",
            **tls(cert, key),
        )
    )


def serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve until it is told to end, or its ``should_exit`` is set.

    Args:
        server: of `server_of`.
        listener: a socket that listens.
    """
    heed_signals(server)
    asyncio.run(server.serve(sockets=[listener]))


def heed_signals(server: uvicorn.Server) -> None:
    """From now on have Ctrl-C, SIGTERM, and a terminal that closes end it, and nothing else.

    uvicorn heeds the first two only while it serves, and raises them again once it has ended.
    """

    def end(_number: int, _frame: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # of nohup
            signal.signal(number, end)


def address(bind: Bind, port: int, *, tls: bool) -> str:
    """Where it is reached, as browsers write the origin of its pages."""
    return origin("https" if tls else "http", bind.host, port)


def origin(scheme: str, host: str, port: int | None) -> str:
    """An origin as browsers send it: in lower case, and without the port that its scheme means anyway."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name.lower()}{'' if port in {None, USUAL[scheme]} else f':{port}'}"
