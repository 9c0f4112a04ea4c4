"""Payloads that say how something is: retained, and the newest counts."""

from enum import StrEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from tinysight_contract.scalars import Count, Digest, Id, Millis, Point, Time

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
    "LineShape",
    "OutboxHealth",
    "Percentiles",
    "State",
    "Status",
    "Verdict",
    "Well",
    "ZoneShape",
]


class State(StrEnum):
    """Whether the device is connected."""

    ONLINE = "online"
    OFFLINE = "offline"


class Status(Struct, frozen=True, kw_only=True):
    """``status``: whether the device is connected; retained, and the will.

    Attributes:
        state: whether it is there.
        boot_id: names the agent's run; keeps a late will from marking a new session dead.
        reason: why, for people.
        at: when it was so; of the will: when the connection was opened.
    """

    state: State
    boot_id: Id
    reason: str
    at: Time


class BundleRef(Struct, frozen=True, kw_only=True):
    """The active bundle.

    Attributes:
        name: the bundle's name.
        version: the bundle's version, such as ``1.2.0``.
        release: rises with each release.
        digest: SHA-256 of the bundle file.
        task: ``detect`` or ``classify``.
        scheme: what the numbers of the file in use are, such as ``int8``.
        labels: all that the model can name; ``class_id`` is a place in it.
    """

    name: str
    version: str
    release: Count
    digest: Digest
    task: str
    scheme: str
    labels: list[str]


class ZoneShape(Struct, frozen=True, kw_only=True):
    """Where a zone is in the camera's frame.

    Attributes:
        polygon: its corners in their order, 3 to 64; the last is joined to the first.
        labels: what counts in it; null when everything does.
    """

    polygon: Annotated[list[Point], Meta(min_length=3, max_length=64)]
    labels: list[str] | None = None


class LineShape(Struct, frozen=True, kw_only=True):
    """Where a line is in the camera's frame: ``in`` is from its left side to its right, seen from its start to its end.

    Attributes:
        start: one end.
        end: the other.
        labels: what counts; null when everything does.
    """

    start: Point
    end: Point
    labels: list[str] | None = None


class CameraInfo(Struct, frozen=True, kw_only=True):
    """One configured camera. What it blacks out for privacy is not told.

    Attributes:
        source: its address or device, never with credentials.
        width: pixels of the frame; 0 until the camera delivers.
        height: pixels of the frame; 0 until the camera delivers.
        fps: frames per second it offers; 0 when unknown.
        zones: by name, where its zones are; empty as well when those of all cameras are too much for a message.
        lines: by name, where its lines are; likewise.
    """

    source: str
    width: Count
    height: Count
    fps: Annotated[float, Meta(ge=0.0)]
    zones: dict[Id, ZoneShape] = {}
    lines: dict[Id, LineShape] = {}


class Info(Struct, frozen=True, kw_only=True):
    """``info``: what the device is; published at every connect, and when any of it changes.

    Attributes:
        boot_id: names the agent's run.
        started_at: when it began.
        software: versions by name: ``tinysight``, ``python``, ``os``.
        runtime: what runs the model: ``name``, ``version``, ``file``.
        hardware: ``model``, ``machine``, ``cpus``, ``memory_mib``.
        cameras: by the camera's id.
        bundle: the active bundle.
        publishes: what the configuration lets it send beside events, counts and states: ``frame``, ``snapshot``.
    """

    boot_id: Id
    started_at: Time
    software: dict[str, str]
    runtime: dict[str, str]
    hardware: dict[str, str | int | float]
    cameras: dict[Id, CameraInfo]
    bundle: BundleRef
    publishes: list[str] = []


class Percentiles(Struct, frozen=True, kw_only=True):
    """The middle and the tail of a duration since the last report.

    Attributes:
        p50: milliseconds; half took no longer.
        p95: milliseconds; 95 of 100 took no longer.
    """

    p50: Millis
    p95: Millis


class CameraHealth(Struct, frozen=True, kw_only=True):
    """One camera's flow since the last report. Until the last one frames may be on their way, and neither.

    Attributes:
        fps: frames per second that the model saw.
        frames: frames that came from it.
        inferred: frames that the model saw.
        dropped: frames by cause: ``stale`` (a newer one came first), ``still`` (nothing moved), ``governed`` (see
            ``limit_fps``), ``rate`` (above the configured one), ``damaged`` (undecodable), ``reloaded`` (the
            configuration changed while it was looked at), ``stopped`` (its camera or the agent ended first).
        frame_age_ms: how old a frame was when its events were ready.
        limit_fps: what the governor allows; null when that is all.
        fps_in: frames per second that came from it.
    """

    fps: Annotated[float, Meta(ge=0.0)]
    frames: Count
    inferred: Count
    dropped: dict[str, Count]
    frame_age_ms: Percentiles
    limit_fps: Annotated[float, Meta(ge=0.0)] | None = None
    fps_in: Annotated[float, Meta(ge=0.0)] = 0.0


class OutboxHealth(Struct, frozen=True, kw_only=True):
    """Events that wait for the broker's acknowledgement, and those that were given up.

    Attributes:
        depth: events that wait for the broker's acknowledgement.
        discarded: events that were given up, by cause.
        last_seq: the highest ``seq`` so far.
    """

    depth: Count
    discarded: dict[str, Count]
    last_seq: Count


class BrokerHealth(Struct, frozen=True, kw_only=True):
    """The connection since the agent began.

    Attributes:
        sessions: how often the broker took us in.
        ended: sessions that ended, by cause.
        refused: messages that the broker refused, or would have refused for their size, by cause.
    """

    sessions: Count
    ended: dict[str, Count]
    refused: dict[str, Count]


class Well(StrEnum):
    """How the device does, in one word."""

    OK = "ok"
    DEGRADED = "degraded"
    FAILING = "failing"


class Verdict(Struct, frozen=True, kw_only=True):
    """How the device does, the gravest reason for it and its remedy.

    Attributes:
        state: the whole in one word.
        code: stable, such as ``camera.stalled``; docs/health.md has all.
        what: the gravest reason, for people.
        mend: its remedy, one sentence.
    """

    state: Well
    code: str = "ok"
    what: str = ""
    mend: str = ""


class Health(Struct, frozen=True, kw_only=True):
    """``health``: how the device does, every 30 s. A figure the machine does not offer is null.

    Attributes:
        at: when it was measured.
        boot_id: names the agent's run.
        uptime_s: seconds since it began.
        cameras: by the camera's id.
        latency_ms: by stage: ``wait``, ``preprocess``, ``inference``, ``decode``, ``track``, ``meaning``, ``pictures``;
            and ``age_at_publish``, how old the frame was when its event was handed to the connection (of events that
            did not wait for the broker).
        cpu_percent: of the agent; 100 is one core.
        memory_mib: held by the agent.
        temperature_c: the processor's.
        disk_free_mib: where the agent keeps its state.
        outbox: events on their way.
        verdict: how it does, and why.
        throttled: whether the machine slows itself down, for heat or want of power.
        broker: the connection; null of agents that do not tell.
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
    """``camera/<cam>/status``: what a camera delivers.

    Attributes:
        state: what it delivers.
        since: when it became so.
        reason: why, for people.
        boot_id: names the agent's run.
    """

    state: CameraState
    since: Time
    reason: str
    boot_id: Id


class Counts(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/counts``: objects present now, and line crossings so far.

    Attributes:
        at: capture of the frame that was counted.
        boot_id: names the agent's run.
        objects: objects present now, by label, zeros included.
        zones: the same by zone, then label.
        lines: crossings so far, by line, then direction (``in``, ``out``).
    """

    at: Time
    boot_id: Id
    objects: dict[str, Count]
    zones: dict[str, dict[str, Count]]
    lines: dict[str, dict[str, Count]]


class Alert(Struct, frozen=True, kw_only=True):
    """``alert/<code>``: a standing problem and its remedy; an empty payload clears it.

    Attributes:
        severity: ``warning`` or ``error``.
        what: what is wrong, for people.
        mend: its remedy, one sentence.
        since: when it was found.
        boot_id: names the agent's run.
    """

    severity: Literal["warning", "error"]
    what: str
    mend: str
    since: Time
    boot_id: Id
