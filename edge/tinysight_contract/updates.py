"""What becomes of a new bundle on a device: the words that the store, ``reported`` and the command line share.

A bundle goes ``queued → downloading → verified → selftest → trial → confirmed``, or ends as ``rejected`` (it must not
be installed), ``failed`` (it could not be, or does not work here) or ``rolled-back`` (it ran and did not stand its
trial), each with a `Code`.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from tinysight_contract.scalars import Count, Digest, Time, Unit

__all__ = ["Code", "Gate", "Release", "Update", "UpdateState"]


class UpdateState(StrEnum):
    """How far a bundle has come."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    VERIFIED = "verified"
    SELFTEST = "selftest"
    TRIAL = "trial"
    CONFIRMED = "confirmed"
    REJECTED = "rejected"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"


class Code(StrEnum):
    """Why a bundle was not installed, or did not stay. Stable: programs may depend on them."""

    # Rejected: who may install, and what.
    UNSIGNED = "unsigned"
    TAMPERED = "tampered"
    TOO_OLD = "too-old"
    HARDWARE = "hardware"
    RUNTIME = "runtime"
    SCHEMA = "schema"
    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    FAILED_BEFORE = "failed-before"
    # Rejected: what the repository says of itself.
    EXPIRED = "expired"
    REPLAYED = "replayed"
    # Failed on the way; asked for again it may go well.
    UNREACHABLE = "unreachable"
    NOT_FOUND = "not-found"
    TOO_SLOW = "too-slow"
    NO_SPACE = "no-space"
    DISK = "disk"
    SUPERSEDED = "superseded"
    # Failed its self-test.
    CRASHED = "crashed"
    HUNG = "hung"
    MEMORY = "memory"
    WRONG = "wrong"
    SLOW = "slow"
    # Did not stand its trial.
    NO_FRAMES = "no-frames"
    DISAGREES = "disagrees"
    BROKE = "broke"
    # Asked for by a person.
    OPERATOR = "operator"


class Release(Struct, frozen=True, kw_only=True):
    """A bundle as its project signed it.

    Attributes:
        target: its path in the repository, ``<project>/<name>-<version>.bundle``.
        digest: SHA-256 of the bundle file.
        size_bytes: of the bundle file.
        name: the bundle's name.
        version: the bundle's version, such as ``1.2.0``.
        release: rises with each release.
    """

    target: Annotated[str, Meta(max_length=300)]
    digest: Digest
    size_bytes: Count
    name: str
    version: str
    release: Count


class Gate(Struct, frozen=True, kw_only=True):
    """One figure that decided.

    Attributes:
        value: measured on this device.
        limit: what it may be at most; for ``agreement`` and ``frames`` at least.
        ok: whether it is.
        before: the same figure of the bundle that was active; null where there is none.
    """

    value: float
    limit: float
    ok: bool
    before: float | None = None


class Update(Struct, frozen=True, kw_only=True):
    """What has become of one bundle so far.

    Attributes:
        target: where it was asked for in the repository.
        state: how far it has come.
        at: since when.
        code: why it did not come further, for programs; null while it may, and when it is confirmed.
        reason: the same for people, with what to do.
        bundle: what was signed under that path; null as long as nothing is known of it.
        attempts: how often its self-test, or later its trial, was begun.
        share: of its bytes that are here.
        moved_bytes: what was transferred for it.
        transfer: ``full``, or ``delta`` when only the difference to the active bundle was; empty before that is known.
        why_full: why it was not a delta.
        gates: by name, the figures of its self-test and its trial: ``golden``, ``p95_ms``, ``memory_mib``, ``frames``,
            ``trial_p95_ms``, ``agreement``.
    """

    target: Annotated[str, Meta(max_length=300)]
    state: UpdateState
    at: Time
    code: Code | None = None
    reason: str = ""
    bundle: Release | None = None
    attempts: Count = 0
    share: Unit = 0.0
    moved_bytes: Count = 0
    transfer: str = ""
    why_full: str = ""
    gates: dict[str, Gate] = {}
