"""Where a device is: ``ssh://user@host[:port][/prefix]``, and where its files are.

Pure. An address is checked before anything is done with it, so that nothing in it can be taken for an option or a
command later. The path of the address is the device's root: ``/`` on a device, another folder in containers and tests.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from pathlib import PurePosixPath
from typing import Final, Self

from tinysight_contract.errors import ConfigError

__all__ = ["AGENT_USER", "SshTarget", "elevate", "plain"]

AGENT_USER: Final = "tinysight"
"""Whose name the agent has on a device, and whose the store is."""
_MOST_LETTERS: Final = 512
_ROOT: Final = PurePosixPath("/")
_FORM: Final = re.compile(
    r"ssh://(?P<user>[^@:/?#]+)@(?P<host>\[[^\]]*\]|[^@:/?#\[\]]+)(:(?P<port>[0-9]{1,5}))?(?P<prefix>/.*)?", re.ASCII
)
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_])?", re.ASCII)
_PART: Final = re.compile(r"[A-Za-z0-9._+@=,~][A-Za-z0-9._+@=,~-]{0,120}", re.ASCII)


@dataclass(frozen=True, slots=True)
class SshTarget:
    """A device that is reached by SSH.

    Attributes:
        user: who logs in.
        host: name or address, an IPv6 address without its brackets.
        port: of sshd.
        prefix: the folder that is the device's root; ``/`` on a device of its own.
    """

    user: str
    host: str
    port: int = 22
    prefix: PurePosixPath = _ROOT

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``.

        Raises:
            ConfigError: the text is no address of a device.
        """
        found = _FORM.fullmatch(text) if len(text) <= _MOST_LETTERS else None
        if found is None:
            raise _wrong(text, "is no address of a device")
        user, host, prefix = found["user"], found["host"], found["prefix"] or "/"
        port = int(found["port"] or 22)
        if _USER.fullmatch(user) is None:
            raise _wrong(text, f"has no user's name before its @: {user!r}")
        if host.startswith("["):
            try:
                host = str(IPv6Address(host[1:-1]))
            except AddressValueError as error:
                raise _wrong(text, f"has no IPv6 address in its brackets: {error}") from error
        elif _HOST.fullmatch(host) is None:
            raise _wrong(text, f"has no host's name after its @: {host!r}")
        if not 1 <= port <= 65535:
            raise _wrong(text, f"has a port that is none: {port}")
        parts = [part for part in prefix.split("/") if part]
        if any(part in {".", ".."} or _PART.fullmatch(part) is None for part in parts):
            raise _wrong(text, "has a path with names that are not plain")
        return cls(user, host, port, _ROOT.joinpath(*parts))

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == 22 else f":{self.port}"
        return f"ssh://{self.user}@{host}{port}{self.prefix if self.own_root else ''}"

    @property
    def own_root(self) -> bool:
        """Whether the device is a folder of a machine: no system user, everything as whoever logs in."""
        return self.prefix != _ROOT

    @property
    def host_name(self) -> str:
        """The host as a file of known hosts names it."""
        return f"[{self.host}]:{self.port}" if self.port != 22 else self.host

    @property
    def program(self) -> PurePosixPath:
        """The command on the device."""
        return self.prefix / "opt/tinysight/bin/tinysight"

    @property
    def store(self) -> PurePosixPath:
        """The store of bundles on the device."""
        return self.prefix / "var/lib/tinysight/store"

    @property
    def config(self) -> PurePosixPath:
        """The agent's configuration on the device."""
        return self.prefix / "etc/tinysight/agent.toml"

    @property
    def log(self) -> PurePosixPath:
        """What the agent says where there is no systemd, which else keeps it."""
        return self.prefix / "var/log/tinysight/agent.log"


def elevate(target: SshTarget, user: str = "root") -> list[str]:
    """What goes before a command so that ``user`` runs it on the device; nothing for a device that is a folder."""
    if target.own_root or target.user == user:
        return []
    if target.user == "root":
        return ["runuser", "-u", user, "--"]
    return ["sudo", "-n"] if user == "root" else ["sudo", "-n", "-u", user, "--"]


def plain(text: str | bytes, most: int = 300) -> str:
    """Text from a device on one line, short, and with nothing in it that would move the terminal."""
    if isinstance(text, bytes):
        text = text[: 4 * most].decode("utf-8", "replace")
    words = " ".join(text[: 4 * most].split())
    safe = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)
    return safe if len(safe) <= most else safe[: most - 1] + "…"


def _wrong(text: str, why: str) -> ConfigError:
    return ConfigError(f"{plain(repr(text), 200)} {plain(why)}.", mend="Write ssh://user@host[:port].")
