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
    """``desired``: what the operator wants. A part that is null is left as it is."""

    revision: Count
    bundle: Digest | None = None
    config: dict[str, Any] | None = None


class Reported(Struct, frozen=True, kw_only=True):
    """``reported``: what the device has made of the desired state."""

    revision: Count
    at: Time
    bundle: Digest | None
    state: str
    reason: str


class Command(Struct, frozen=True, kw_only=True):
    """``cmd/<name>``: do this once, not after ``expires_at``."""

    id: Id
    expires_at: Time
    args: dict[str, Any] = {}


class Ack(Struct, frozen=True, kw_only=True):
    """``ack/<id>``: what became of a command."""

    id: Id
    name: Id
    ok: bool
    at: Time
    result: dict[str, Any] = {}
    error: str | None = None
