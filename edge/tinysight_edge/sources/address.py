"""The address of a network camera, its credentials kept apart from what may be shown."""

import re
import socket
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from tinysight_contract.errors import CameraError

__all__ = ["Address", "unreachable"]

ASCII: Final = bytes(range(128))
PORTS: Final = {"rtsp": 554, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a camera is.

    Attributes:
        scheme: rtsp, http or https.
        host: name or number.
        port: of TCP.
        target: path and query, as asked for; other than ASCII is quoted.
        username: at the camera, or None.
        secret: the password; empty when there is none.
    """

    scheme: str
    host: str
    port: int
    target: str
    username: str | None = None
    secret: str = field(default="", repr=False)

    @classmethod
    def parse(cls, source: str, *, username: str | None = None, secret: str | None = None) -> "Address":
        """Read a URL; what is given beside it counts more than what is in it.

        Raises:
            CameraError: it is none. The error does not repeat it, for it may hold a password.
        """
        try:
            parts = urlsplit(source)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or parts.scheme not in PORTS or re.search(r"[\x00-\x20\x7f]", source):
            raise CameraError(
                "The camera's address cannot be understood.",
                mend="Write it as rtsp://host[:port]/path, or http:// or https:// for MJPEG.",
            )
        target = quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe=ASCII, errors="replace")
        inside = unquote(parts.username) if parts.username else None
        password = unquote(parts.password or "") if secret is None else secret
        return cls(parts.scheme, host, port or PORTS[parts.scheme], target, username or inside, password)

    @property
    def shown(self) -> str:
        """What may be shown to others. A query, or a path such as ``user=me&password=it``, is left out."""
        path = self.target.partition("?")[0]
        shown = path if re.fullmatch(r"[\w./~-]*", path) else "/..."
        return f"{self.scheme}://{self._where}{shown}"

    @property
    def plain(self) -> str:
        """The URL without the credentials that it may hold before its host."""
        return f"{self.scheme}://{self._where}{self.target}"

    @property
    def full(self) -> str:
        """The URL with its credentials; never shown, for FFmpeg takes them in no other way."""
        if self.username is None:
            return self.plain
        who = f"{quote(self.username, safe='')}:{quote(self.secret, safe='')}@"
        return f"{self.scheme}://{who}{self._where}{self.target}"

    @property
    def _where(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"


def unreachable(address: Address, error: OSError) -> CameraError:
    """What a failed connection means."""
    if isinstance(error, socket.gaierror):
        return CameraError(
            f"{address.shown}: nobody knows the host's name.", mend="Check the name, or give its number."
        )
    if isinstance(error, ConnectionRefusedError):
        return CameraError(f"{address.shown}: nothing listens on that port.", mend="Check the port and the camera.")
    return CameraError(f"{address.shown} does not answer.", mend="Check its network and power.")
