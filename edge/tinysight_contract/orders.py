"""Payloads that say what is wanted, and what became of it."""

from typing import Any

from msgspec import Struct

from tinysight_contract.scalars import Count, Digest, Id, Time

__all__ = [
    "Ack",
    "Command",
    "Desired",
    "Reported",
]


class Desired(Struct, frozen=True, kw_only=True):
    """``desired``: what the operator wants. A part that is null is left as it is.

    Attributes:
        revision: the operator's number of this wish; ``reported`` answers with it.
        bundle: SHA-256 of the bundle that shall run.
        config: a part of agent.toml that shall hold.
    """

    revision: Count
    bundle: Digest | None = None
    config: dict[str, Any] | None = None


class Reported(Struct, frozen=True, kw_only=True):
    """``reported``: what the device has made of the desired state.

    Attributes:
        revision: of the ``desired`` that this answers.
        at: when it was so.
        bundle: SHA-256 of the active bundle.
        state: how far it came.
        reason: why not, for people; empty when all took effect.
    """

    revision: Count
    at: Time
    bundle: Digest | None
    state: str
    reason: str


class Command(Struct, frozen=True, kw_only=True):
    """``cmd/<name>``: do this once, not after ``expires_at``.

    Attributes:
        id: names the command: one that comes twice is carried out once, and ``ack/<id>`` answers.
        expires_at: not carried out after this.
        args: what the command needs, by name.
    """

    id: Id
    expires_at: Time
    args: dict[str, Any] = {}


class Ack(Struct, frozen=True, kw_only=True):
    """``ack/<id>``: what became of a command.

    Attributes:
        id: of the command.
        name: of the command, as in its topic.
        ok: whether it was carried out.
        at: when that was known.
        result: what it gave, by name.
        error: why not, for people; null when it was.
    """

    id: Id
    name: Id
    ok: bool
    at: Time
    result: dict[str, Any] = {}
    error: str | None = None
