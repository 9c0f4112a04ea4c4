"""Payloads that say what is wanted, and what became of it."""

from enum import StrEnum
from typing import Annotated, Any

from msgspec import Meta, Struct

from tinysight_contract.scalars import Count, Digest, Id, Time
from tinysight_contract.updates import Update

__all__ = [
    "Ack",
    "AckCode",
    "Command",
    "Desired",
    "DesiredState",
    "Reported",
    "Window",
]


_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9]"
Window = Annotated[str, Meta(pattern=rf"^{_CLOCK}-{_CLOCK}(?![\s\S])")]


class Desired(Struct, frozen=True, kw_only=True):
    """``desired``: what the operator wants, instead of what an earlier one wanted.

    Attributes:
        revision: the operator's number of this wish; one below the newest that the device knows is passed over.
        bundle: SHA-256 of the bundle that shall run; null leaves the model as it is.
        target: where the device's repository has it, ``<project>/<name>-<version>.bundle``; only what is signed is
            installed.
        rollout: the rollout that asks for it; null when a person does.
        window: when the device may begin to fetch and try the bundle, in its local time, such as ``01:00-05:00``; null
            for at any time. One that ends before it begins ends on the next day.
        config: laid over the device's own agent.toml as a JSON merge patch (RFC 7396); null for that file alone.
    """

    revision: Count
    bundle: Digest | None = None
    target: Annotated[str, Meta(max_length=300)] | None = None
    rollout: Id | None = None
    window: Window | None = None
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

    Attributes:
        revision: the newest that was asked for.
        at: when it was so.
        bundle: SHA-256 of the active bundle.
        state: what became of that revision.
        reason: why, for people; empty when all took effect.
        refused: of each part that was not taken, by its key, why.
        applied: the revision whose ``config`` holds now; null when the device's file alone does.
        config_digest: of the configuration that runs.
        restart: what the file changes that waits for a restart.
        boot_id: of the process that says so.
        due_at: when it goes on, of a bundle that waits for its window; else null.
        update: of the newest bundle that was to be installed, by whatever way; null when there was none.
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
    due_at: Time | None = None
    update: Update | None = None


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
    """``ack/<id>``: what became of a command.

    Attributes:
        id: of the command.
        name: of the command, as in its topic.
        ok: whether it was carried out.
        at: when that was known.
        result: what it gave, by name.
        error: why not, and what to do, for people; null when it was.
        code: the same for programs.
    """

    id: Id
    name: Id
    ok: bool
    at: Time
    result: dict[str, Any] = {}
    error: str | None = None
    code: AckCode = AckCode.OK
