"""What the page is told: where the broker and the fleet's server are.

In: addresses as people write them.  Out: `Settings`, which is the page's ``config.json`` and the origins that a browser
may let it speak to. They hold no secret: whoever opens the page logs in there.
"""

import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import SplitResult, urlsplit

import msgspec

from tinysight_contract.address import Address
from tinysight_contract.errors import ConfigError

__all__ = ["Settings"]

PLAIN: Final = "ws"
DEFAULT: Final = {"ws": 80, "wss": 443, "http": 80, "https": 443}
HERE: Final = {"localhost", "127.0.0.1"}
_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_PATH: Final = re.compile(r"(/[A-Za-z0-9._~-]+)*/?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the page finds what it shows.

    Attributes:
        broker: its WebSocket listener, such as ``wss://broker.example.com:8084/mqtt``; ``?version=3`` where it speaks
            MQTT 3.1.1 alone.
        api: the fleet's server, such as ``https://fleet.example.com``; None without one.
    """

    broker: str
    api: str | None = None

    @classmethod
    def parse(cls, broker: str, api: str | None = None) -> Self:
        """Read both addresses.

        Raises:
            ConfigError: a browser cannot use one of them, or it holds what nobody should read.
        """
        parsed = Address.parse(broker)
        if parsed.user is not None:
            raise ConfigError(
                f"{parsed} comes with a user or password, which everybody who opens the page could read.",
                mend="Leave them out: the page asks for them.",
            )
        if parsed.scheme not in {"ws", "wss"}:
            raise ConfigError(
                f"{parsed} is no address for browsers: they speak MQTT over WebSockets alone.",
                mend="Name the broker's WebSocket listener: ws://HOST:1885 of `tinysight broker`, wss://HOST:8084 of "
                "`tinysight broker config`.",
            )
        if parsed.ca is not None:
            raise ConfigError(
                "A browser trusts what its machine trusts; ?ca= does nothing there.",
                mend="Install the CA on the machines that open the page, and leave ?ca=, ?cert= and ?key= out.",
            )
        host, path = _host(parsed.host, "--broker"), _path(parsed.path, "--broker")
        asked = "" if parsed.version == 5 else f"?version={parsed.version}"
        return cls(_url(parsed.scheme, host, parsed.port, path) + asked, None if api is None else _api(api))

    @property
    def config(self) -> bytes:
        """``config.json``, as the page reads it."""
        return msgspec.json.encode({"broker": self.broker, "api": self.api})

    @property
    def origins(self) -> list[str]:
        """What the page speaks to, as a content security policy names it."""
        return [_origin(each) for each in (self.broker, self.api) if each is not None]

    @property
    def plain(self) -> str | None:
        """The broker's host when passwords would cross a network to it in plain text."""
        parts = urlsplit(self.broker)
        return parts.hostname if parts.scheme == PLAIN and parts.hostname not in HERE else None


def _api(text: str) -> str:
    """The fleet's server.

    Raises:
        ConfigError: a browser cannot use it, or tokens would go there in plain text.
    """
    mend = "Write https://HOST[:PORT]."
    try:
        parts = urlsplit(text)
        port = parts.port or DEFAULT.get(parts.scheme, 0)
    except ValueError as error:
        raise ConfigError("--api is no address.", mend=mend) from error
    if parts.username or parts.password:
        raise ConfigError("--api holds a password.", mend="Leave it out: the page asks for a token.")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError(f"--api {text!r} is no address of a fleet's server.", mend=mend)
    host, path = _host(parts.hostname, "--api"), _path(parts.path, "--api")
    if parts.scheme == "http" and host not in HERE:
        raise ConfigError(f"Tokens would reach {host} in plain text.", mend=mend)
    return _url(parts.scheme, host, port, path.rstrip("/"))


def _host(host: str, option: str) -> str:
    """A name or an IPv4 address, as ASCII.

    Raises:
        ConfigError: it is none.
    """
    if ":" in host:
        raise ConfigError(
            f"{option} names an IPv6 address, which content security policies do not know.",
            mend="Give that machine a name, and write it.",
        )
    try:
        plain = host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        plain = ""
    if not _HOST.fullmatch(plain):
        raise ConfigError(f"{option} names {host!r}, which is no host.", mend="Write a host's name or address.")
    return plain


def _path(path: str, option: str) -> str:
    if not _PATH.fullmatch(path):
        raise ConfigError(
            f"{option} has a path with other characters.", mend="Use letters, digits, '.', '_', '~', '-'."
        )
    return path


def _url(scheme: str, host: str, port: int, path: str) -> str:
    return f"{scheme}://{host}{'' if port == DEFAULT[scheme] else f':{port}'}{path}"


def _origin(url: str) -> str:
    parts: SplitResult = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
