"""Who may use the fleet's server: named tokens with a role. Only their SHA-256 is kept.

A token is 256 random bits, so a plain hash is enough: there is nothing to guess.
"""

import hashlib
import secrets
from enum import StrEnum
from typing import Annotated, Final

import msgspec
import sqlalchemy as sa
from msgspec import Meta, Struct

from tinysight_contract.errors import ConfigError
from tinysight_deploy.fleet.keeping.tables import TOKEN

__all__ = ["Role", "Token", "add", "drop", "every", "find"]

MAX_TOKENS: Final = 200_000  # each device may have one
MAX_TEXT: Final = 256
_PREFIX: Final = "ts_"  # so that scanners of repositories and people know one when they see it
_IdOrNone = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9-]{0,62})?(?![\s\S])")]


class Role(StrEnum):
    """What a token lets do. Each of the first three may do what those before it may."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"
    DEVICE = "device"
    """Of one device: read and send what is its own."""


class Token(Struct, frozen=True, kw_only=True):
    """What is known of a token.

    Attributes:
        name: of whoever has it; the audit log says it.
        role: what it lets do.
        site: of the device that it belongs to; empty unless the role is ``device``.
        device: likewise.
    """

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9@._+-]{0,62}(?![\s\S])")]
    role: Role
    site: _IdOrNone = ""
    device: _IdOrNone = ""


def add(connection: sa.Connection, token: Token) -> str:
    """Keep a new token; its text, which is nowhere else.

    Raises:
        ConfigError: the name is taken, or it is of a device and does not say of which.
    """
    if (token.role is Role.DEVICE) != bool(token.site) or bool(token.site) != bool(token.device):
        raise ConfigError("Tokens of the role device, and only those, have a site and a device.", mend="Give both.")
    if connection.scalar(sa.select(TOKEN.c.name).where(TOKEN.c.name == token.name)) is not None:
        raise ConfigError(f"There is a token {token.name!r}.", mend="Take another name, or drop that one first.")
    if (connection.scalar(sa.select(sa.func.count()).select_from(TOKEN)) or 0) >= MAX_TOKENS:
        raise ConfigError(f"There are {MAX_TOKENS:,} tokens.", mend="Drop those that nobody uses.")
    text = _PREFIX + secrets.token_urlsafe(32)
    row = {"name": token.name, "sha256": _sha256(text), "body": msgspec.json.encode(token).decode()}
    connection.execute(sa.insert(TOKEN), row)
    return text


def find(connection: sa.Connection, text: str) -> Token | None:
    """Whose token that is."""
    if not text.isascii() or len(text) > MAX_TEXT:
        return None
    body = connection.scalar(sa.select(TOKEN.c.body).where(TOKEN.c.sha256 == _sha256(text)))
    return None if body is None else msgspec.json.decode(body, type=Token)


def every(connection: sa.Connection) -> list[Token]:
    """All, by name."""
    bodies = connection.scalars(sa.select(TOKEN.c.body).order_by(TOKEN.c.name))
    return [msgspec.json.decode(body, type=Token) for body in bodies]


def drop(connection: sa.Connection, name: str) -> None:
    """Have a token let in nobody any more.

    Raises:
        ConfigError: there is none of that name.
    """
    if connection.execute(sa.delete(TOKEN).where(TOKEN.c.name == name)).rowcount != 1:
        raise ConfigError(f"There is no token {name!r}.", mend="List them: `tinysight fleet token list`.")


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
