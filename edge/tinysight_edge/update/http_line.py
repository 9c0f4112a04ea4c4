"""Connections to web servers that end when they must, whatever the server does.

In: an address and headers.  Out: an answer whose body is yet to be read. A server that sends a byte now and then keeps
any read time-out from expiring; so each connection is also held from outside, and cut when its time is over.
Redirects are followed here, a few of them and never from https to http. No retries, no files.
"""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code

__all__ = ["Line", "trusted_context"]

MAX_REDIRECTS: Final = 5
CONNECT_S: Final = 10.0
_MOVED: Final = {301, 302, 303, 307, 308}
_PORTS: Final = {"http": 80, "https": 443}


def trusted_context(ca: Path | None) -> ssl.SSLContext:
    """How servers are checked: by the system's certificates, or by those in ``ca`` alone.

    Raises:
        UpdateError: UNREACHABLE, ``ca`` holds no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UpdateError(
            f"{ca} cannot be read as certificates: {error}.",
            mend="Name a file with the CA's certificate in PEM form.",
            code=Code.UNREACHABLE,
        ) from error


class Line:
    """The connections of one transfer; use it in ``with``.

    Args:
        context: how servers are checked.
        direct: without the proxy that the environment names.

    Attributes:
        cut: whether the last `within` ran out of time, or `cut_off` was called during it.
    """

    def __init__(self, context: ssl.SSLContext, *, direct: bool = False) -> None:
        self._context, self._direct = context, direct
        self._grips: list[socket.socket] = []
        self._lock = threading.Lock()
        self._pools: dict[str | None, urllib3.PoolManager] = {}
        self.cut = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self._pools.values():
            pool.clear()
        with self._lock:
            self._shut()  # urllib3 itself closes when nobody knows the answer any more, and a traceback may
            for grip in self._grips:
                grip.close()
            self._grips.clear()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut all connections when what happens inside takes longer."""
        self.cut = False
        timer = threading.Timer(max(seconds, 0.0), self.cut_off)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def get(self, url: str, headers: Mapping[str, str], *, silence_s: float) -> urllib3.BaseHTTPResponse:
        """Ask for ``url``; the answer's body is unread and not decoded, and has to be closed.

        Args:
            url: http or https.
            headers: ``Authorization`` is only told to the server that ``url`` names.
            silence_s: how long the server may say nothing at all.

        Raises:
            urllib3.exceptions.HTTPError: there is no answer.
            UpdateError: UNREACHABLE, a redirect that is not followed.
        """
        timeout = urllib3.Timeout(connect=min(CONNECT_S, silence_s), read=silence_s)
        at, told = url, dict(headers)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._pool(at).request(
                "GET",
                at,
                headers=told,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
            where = answer.headers.get("Location")
            if answer.status not in _MOVED or where is None:
                return answer
            answer.close()
            if (why := _refusal(at, where)) is not None:
                raise UpdateError(
                    f"{url} redirects to {where[:200]!r}, which is not followed: {why}.",
                    mend="Name the repository by the address at which it really lies.",
                    code=Code.UNREACHABLE,
                )
            at = urljoin(at, where)
            if _origin(at) != _origin(url):
                told.pop("Authorization", None)
        raise UpdateError(
            f"{url} redirects more than {MAX_REDIRECTS} times.",
            mend="Name the repository by the address at which it really lies.",
            code=Code.UNREACHABLE,
        )

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> urllib3.BaseHTTPResponse:
        """Send something; the answer's body is unread and has to be closed. No redirect is followed.

        Raises:
            urllib3.exceptions.HTTPError: there is no answer.
        """
        return self._pool(url).request(
            method,
            url,
            body=body,
            headers=dict(headers),
            timeout=urllib3.Timeout(connect=min(CONNECT_S, silence_s), read=silence_s),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )

    def _pool(self, url: str) -> urllib3.PoolManager:
        """Who connects to ``url``: directly, or by the proxy that the environment names."""
        parts = urlsplit(url)
        bypass = self._direct or proxy_bypass(parts.hostname or "")
        proxy = None if bypass else getproxies().get(parts.scheme)
        if proxy not in self._pools:
            pool = (
                urllib3.ProxyManager(proxy, num_pools=4, ssl_context=self._context)
                if proxy
                else urllib3.PoolManager(num_pools=4, ssl_context=self._context)
            )
            pool.pool_classes_by_scheme = self._held_pools()
            self._pools[proxy] = pool
        return self._pools[proxy]

    def _held_pools(self) -> dict[str, type[HTTPConnectionPool]]:
        """urllib3's own connections, but that each new socket is held from outside too."""
        hold = self._hold

        class Plain(HTTPConnection):
            def _new_conn(self) -> socket.socket:
                return hold(super()._new_conn())

        class Secure(HTTPSConnection):
            def _new_conn(self) -> socket.socket:
                return hold(super()._new_conn())

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        return {"http": PlainPool, "https": SecurePool}

    def _hold(self, sock: socket.socket) -> socket.socket:
        """Keep a second handle, which TLS does not wrap; what is shut down through it is shut down."""
        with self._lock:
            self._grips.append(sock.dup())
            if self.cut:
                self._shut()
        return sock

    def cut_off(self) -> None:
        """End all connections now; from any thread."""
        with self._lock:
            self.cut = True
            self._shut()

    def _shut(self) -> None:
        for grip in self._grips:
            with contextlib.suppress(OSError):  # it is at its end already
                grip.shutdown(socket.SHUT_RDWR)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _refusal(at: str, where: str) -> str | None:
    """Why a redirect is not followed, or None."""
    try:
        scheme, host, _ = _origin(urljoin(at, where))
    except ValueError:
        return "it is no address"
    if scheme not in _PORTS or not host:
        return "it is no address of a web server"
    if scheme == "http" and _origin(at)[0] == "https":
        return "what was encrypted would be no more"
    return None
