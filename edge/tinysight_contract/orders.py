"""Payloads that say what is wanted, and what became of it."""

from enum import StrEnum
from typing import Any

from msgspec import Struct

from tinysight_contract.scalars import Count, Digest, Id, Time

__all__ = [
    "Ack",
    "AckCode",
    "Command",
    "Desired",
    "DesiredState",
    "Reported",
]


class Desired(Struct, frozen=True, kw_only=True):
    """``desired``: what the operator wants, instead of what an earlier one wanted.

    ``config`` is merged into what the device's file says (JSON merge patch, RFC 7396). Without it the file alone holds,
    without ``bundle`` the model stays. A ``revision`` below the newest that the device has seen is passed over.
    """

    revision: Count
    bundle: Digest | None = None
    config: dict[str, Any] | None = None


class DesiredState(StrEnum):
    """What became of a desired state."""

    NONE = "none"
    WAITING = "waiting"
    TRIAL = "trial"
    APPLIED = "applied"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"


class Reported(Struct, frozen=True, kw_only=True):
    """``reported``: what the device has made of the desired state.

    ``revision`` is the newest that was asked for and ``state`` what became of it, with ``reason``; ``refused`` says of
    each part that was not taken why, by its key. ``applied`` is the revision whose ``config`` holds now, null when the
    file alone does. ``bundle`` and ``config_digest`` are of what runs; ``restart`` names what waits for a restart.
    """

    revision: Count
    at: Time
    bundle: Digest | None
    state: DesiredState
    reason: str = ""
    refused: dict[str, str] = {}
    applied: Count | None = None
    config_digest: str | None = None
    restart: list[str] = []
    boot_id: Id | None = None


class Command(Struct, frozen=True, kw_only=True):
    """``cmd/<name>``: do this once, not after ``expires_at``. An ``id`` is never used twice."""

    id: Id
    expires_at: Time
    args: dict[str, Any] = {}


class AckCode(StrEnum):
    """What became of a command. All but ``ok`` mean that it was not carried out, ``interrupted`` that nobody knows."""

    OK = "ok"
    RETAINED = "retained"
    EXPIRED = "expired"
    CLOCK = "clock"
    UNKNOWN = "unknown"
    MALFORMED = "malformed"
    REFUSED = "refused"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Ack(Struct, frozen=True, kw_only=True):
    """``ack/<id>``: what became of a command. ``error`` says why not, and what to do."""

    id: Id
    name: Id
    ok: bool
    at: Time
    result: dict[str, Any] = {}
    error: str | None = None
    code: AckCode = AckCode.OK
