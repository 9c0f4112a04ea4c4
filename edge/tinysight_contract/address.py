"""Where a broker is, how to speak to it, and whom to trust there.

In: an address as people write it.  Out: an `Address`, and for TLS a context that verifies the broker's certificate and
name. There is no way to go without: who wants that wants TLS with a CA of his own, which is one file.
"""

import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Self
from urllib.parse import parse_qs, unquote, urlsplit

from tinysight_contract.errors import ConfigError

__all__ = ["Address"]

PORTS: Final = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}
FILES: Final = ("ca", "cert", "key")
MEND: Final = "Write it as mqtt://host:1883; mqtts://, ws:// and wss:// and ?version=3 also work."


@dataclass(frozen=True, slots=True)
class Address:
    """Where a broker is and how to speak to it.

    Attributes:
        scheme: mqtt, mqtts (TLS), ws (WebSocket) or wss.
        host: name or address.
        port: TCP port.
        path: of the WebSocket.
        user: None to go without.
        password: None to go without.
        version: 5 or 3 (3.1.1).
        ca: certificates to trust instead of the machine's; None for those.
        cert: our certificate, None to go without.
        key: its private key.
    """

    scheme: str
    host: str
    port: int
    path: str
    user: str | None
    password: str | None
    version: int
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read ``mqtt://[user:password@]host[:port][?version=3]``; also mqtts, ws and wss.

        With TLS ``?ca=FILE`` names the certificates to trust, ``&cert=FILE&key=FILE`` our own.

        Raises:
            ConfigError: it is not such an address.
        """
        try:
            parts = urlsplit(url)
            port = PORTS.get(parts.scheme, 0) if parts.port is None else parts.port
        except ValueError:
            port = 0
        if not port:  # the address is not shown: it may hold a password
            raise ConfigError("The broker's address has no scheme or port that TinySight can use.", mend=MEND) from None
        options = parse_qs(parts.query, keep_blank_values=True)
        version = options.pop("version", ["5"])[0]
        if empty := [name for name in FILES if name in options and not options[name][0]]:
            raise ConfigError(f"?{empty[0]}= names no file.", mend="Name one; an empty variable of the shell?")
        files = {name: Path(options.pop(name)[0]) for name in FILES if name in options}
        shown = f"{parts.scheme}://{parts.hostname or ''}"
        if any("secure" in name or "verify" in name for name in options):
            raise ConfigError(
                f"{shown}: TinySight never goes without verifying a broker's certificate and name.",
                mend="Name the CA that signed it with ?ca=FILE; `tinysight broker config` makes one.",
            )
        if parts.scheme not in PORTS or not parts.hostname or version not in {"3", "5"} or options:
            raise ConfigError(f"{shown!r} is no broker address TinySight can use.", mend=MEND)
        user = unquote(parts.username or "") if parts.username or parts.password else None
        password = unquote(parts.password) if parts.password else None
        address = cls(parts.scheme, parts.hostname, port, parts.path or "/mqtt", user, password, int(version), **files)
        address.check()
        return address

    def check(self) -> None:
        """See that its parts go together.

        Raises:
            ConfigError: files for TLS without TLS, or a certificate without its key.
        """
        if not self.encrypted and (self.ca or self.cert or self.key):
            mend = f"Write {self.scheme}s:// instead of {self.scheme}://."
            raise ConfigError(f"{self} has no use for certificates: it goes without TLS.", mend=mend)
        if (self.cert is None) != (self.key is None):
            raise ConfigError("A certificate and its private key belong together.", mend="Name both, or neither.")

    @property
    def encrypted(self) -> bool:
        """Whether it is spoken to over TLS."""
        return self.scheme in {"mqtts", "wss"}

    @property
    def exposes_password(self) -> bool:
        """Whether the password crosses a network in the clear."""
        return self.password is not None and not self.encrypted and not _is_here(self.host)

    def trust(self) -> ssl.SSLContext:
        """What TLS needs: verifies the broker's certificate and name, by ``ca`` or by what this machine trusts.

        Raises:
            ConfigError: a file is missing, no certificate, or the key is not the certificate's.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as error:
            raise _unusable("the CA", self.ca, error) from error
        if self.cert is not None and self.key is not None:
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_passphrase)
            except (OSError, ssl.SSLError, ValueError) as error:
                raise _unusable("the certificate", self.cert, error) from error
        return context

    def __str__(self) -> str:
        """Without credentials."""
        return f"{self.scheme}://{self.host}:{self.port}"


def _no_passphrase() -> str:
    raise ValueError("its key wants a passphrase")  # else OpenSSL asks the terminal


def _unusable(what: str, path: Path | None, error: Exception) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        why = "the key is not the certificate's" if "MISMATCH" in str(error) else "it is no PEM file of that kind"
    else:
        why = getattr(error, "strerror", None) or str(error)
    return ConfigError(f"{path}, {what} for the broker, cannot be used: {why}.", mend="Check the path and its rights.")


def _is_here(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
