"""What a command needs to ask a fleet's server: an address that may be sent a token, and the token. No network.

In: what a person wrote.  Out: an address and a token that fit into a request, or a ConfigError that shows neither a
login nor a token.
"""

import ipaddress
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tinysight_contract.errors import ConfigError
from tinysight_contract.files import read_capped

__all__ = ["fleet_address", "is_this_machine", "people_token", "read_token"]

MAX_TOKEN_BYTES: Final = 4096
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=-]{8,256}", re.ASCII)
_MEND: Final = "Write it as https://HOST[:PORT][/PATH]."


def fleet_address(url: str) -> str:
    """The address of a fleet's server, without a slash at its end.

    Args:
        url: ``https://HOST[:PORT][/PATH]``; ``http`` only to this machine itself.

    Raises:
        ConfigError: it is none, holds a login, or would send the token in plain text.
    """
    if "@" in url:
        raise ConfigError("The address of the fleet's server holds a login.", mend="Take it out; a token is enough.")
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not (good and url.isascii() and url.isprintable()) or set(url) & set(" \\?#"):
        raise ConfigError(f"{url[:200]!r} is no address of a fleet's server.", mend=_MEND)
    if parts.scheme == "http" and not is_this_machine(parts.hostname or ""):
        raise ConfigError(f"The token would reach {parts.hostname} in plain text.", mend="Use https.")
    return url.rstrip("/")


def is_this_machine(host: str) -> bool:
    """Whether a name or a number of a host is this machine itself."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file's first line.

    Raises:
        ConfigError: there is none, or the file cannot be read.
    """
    try:
        data = read_capped(path, MAX_TOKEN_BYTES)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", mend="Check the path and its rights.") from error
    token = data.decode("ascii", "replace").partition("\n")[0].strip()
    if len(data) > MAX_TOKEN_BYTES or _TOKEN.fullmatch(token) is None:
        raise ConfigError(f"{path} has no token.", mend="Put what `tinysight fleet token add` printed into it.")
    return token


def people_token(given: Path | None) -> str:
    """The token of whoever calls a command.

    Args:
        given: the file that ``--token-file`` or ``$TINYSIGHT_FLEET_TOKEN_FILE`` names; else ``fleet.token`` among the
            person's settings.

    Raises:
        ConfigError: there is none.
    """
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser()
    path = given or settings / "tinysight" / "fleet.token"
    if given is None and not path.is_file():
        raise ConfigError("No token is given.", mend=f"Name its file with --token-file, or put it into {path}.")
    return read_token(path)
