"""Payloads that say how something is: retained, and the newest counts."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from tinysight_contract.scalars import Count, Digest, Id, Millis, Time

__all__ = [
    "Alert",
    "BrokerHealth",
    "BundleRef",
    "CameraHealth",
    "CameraInfo",
    "CameraState",
    "CameraStatus",
    "Counts",
    "Health",
    "Info",
    "OutboxHealth",
    "Percentiles",
    "State",
    "Status",
    "Verdict",
    "Well",
]


class State(StrEnum):
    """Whether the device is connected."""

    ONLINE = "online"
    OFFLINE = "offline"


class Status(Struct, frozen=True, kw_only=True):
    """``status``: retained, and the will. ``boot_id`` keeps a late will from marking a new session dead."""

    state: State
    boot_id: Id
    reason: str
    at: Time


class BundleRef(Struct, frozen=True, kw_only=True):
    """The active bundle."""

    name: str
    version: str
    release: Count
    digest: Digest
    task: str
    scheme: str
    labels: list[str]


class CameraInfo(Struct, frozen=True, kw_only=True):
    """One configured camera. ``source`` never carries credentials."""

    source: str
    width: Count
    height: Count
    fps: Annotated[float, Meta(ge=0.0)]


class Info(Struct, frozen=True, kw_only=True):
    """``info``: what the device is; published at every connect."""

    boot_id: Id
    started_at: Time
    software: dict[str, str]
    runtime: dict[str, str]
    hardware: dict[str, str | int | float]
    cameras: dict[Id, CameraInfo]
    bundle: BundleRef


class Percentiles(Struct, frozen=True, kw_only=True):
    """The middle and the tail of a duration since the last report."""

    p50: Millis
    p95: Millis


class CameraHealth(Struct, frozen=True, kw_only=True):
    """One camera's flow since the last report: ``fps_in`` came from it, ``fps`` of them were inferred.

    ``dropped`` by cause: stale (a newer one came first), still (nothing moved), governed (see ``limit_fps``), rate
    (above the configured one), damaged (undecodable), reloaded (the configuration changed while it was looked at),
    stopped (its camera or the agent ended first). Until the last report frames may be on their way, and neither.
    ``limit_fps`` is what the governor allows, null when that is all.
    """

    fps: Annotated[float, Meta(ge=0.0)]
    frames: Count
    inferred: Count
    dropped: dict[str, Count]
    frame_age_ms: Percentiles
    limit_fps: Annotated[float, Meta(ge=0.0)] | None = None
    fps_in: Annotated[float, Meta(ge=0.0)] = 0.0


class OutboxHealth(Struct, frozen=True, kw_only=True):
    """Events that wait for the broker's acknowledgement, and those that were given up."""

    depth: Count
    discarded: dict[str, Count]
    last_seq: Count


class BrokerHealth(Struct, frozen=True, kw_only=True):
    """The connection since the start: how many sessions there were, why they ended, which messages were refused."""

    sessions: Count
    ended: dict[str, Count]
    refused: dict[str, Count]


class Well(StrEnum):
    """How the device does, in one word."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


class Verdict(Struct, frozen=True, kw_only=True):
    """How the device does, the gravest reason for it and its remedy. ``code`` is stable, such as ``camera.stalled``."""

    state: Well
    code: str = "ok"
    what: str = ""
    mend: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """``health``: how the device does, every 30 s. A figure the machine does not offer is null.

    ``latency_ms`` by stage: wait, preprocess, inference, decode, track, meaning, pictures; and ``age_at_publish``, how
    old the frame was when its event was handed to the connection (of events that did not wait for the broker).
    """

    at: Time
    boot_id: Id
    uptime_s: Annotated[float, Meta(ge=0.0)]
    cameras: dict[Id, CameraHealth]
    latency_ms: dict[str, Percentiles]
    cpu_percent: Annotated[float, Meta(ge=0.0)]
    memory_mib: Annotated[float, Meta(ge=0.0)]
    temperature_c: float | None
    disk_free_mib: Annotated[float, Meta(ge=0.0)]
    outbox: OutboxHealth
    verdict: Verdict = Verdict(state=Well.OK)
    throttled: bool | None = None
    broker: BrokerHealth | None = None


class CameraState(StrEnum):
    """What a camera delivers."""

    ONLINE = "online"
    RECONNECTING = "reconnecting"
    STALLED = "stalled"
    FROZEN = "frozen"
    DARK = "dark"
    COVERED = "covered"
    DISABLED = "disabled"


class CameraStatus(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/status``."""

    state: CameraState
    since: Time
    reason: str
    boot_id: Id


class Counts(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/counts``: objects present now per label (zeros included), per zone, and line crossings so far."""

    at: Time
    boot_id: Id
    objects: dict[str, Count]
    zones: dict[str, dict[str, Count]]
    lines: dict[str, dict[str, Count]]


class Alert(Struct, frozen=True, kw_only=True):
    """``alert/<code>``: a standing problem and its remedy; an empty payload clears it."""

    severity: Annotated[str, Meta(pattern=r"^(warning|error)(?![\s\S])")]
    what: str
    mend: str
    since: Time
    boot_id: Id
