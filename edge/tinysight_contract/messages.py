"""The MQTT payloads of contract version 1: one frozen type per payload, JSON on the wire.

Written strictly (sorted keys, no spaces, aware UTC times), read with tolerance (unknown fields are ignored).
``encode`` and ``decode`` are inverses; the JSON Schemas in ``schemas/`` are generated from these types.
Boxes are ``[x1, y1, x2, y2]`` in 0..1 of the camera's frame. Times are UTC, ISO 8601.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Struct

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError

__all__ = [
    "PAYLOADS",
    "Ack",
    "Alert",
    "BundleRef",
    "CameraHealth",
    "CameraInfo",
    "CameraState",
    "CameraStatus",
    "Command",
    "Counts",
    "Crossing",
    "Desired",
    "Detection",
    "Event",
    "EventType",
    "Frame",
    "FrameSize",
    "Health",
    "Info",
    "LatencyMs",
    "ModelRef",
    "OutboxHealth",
    "Percentiles",
    "Reported",
    "State",
    "Status",
    "Track",
    "Verdict",
    "Well",
    "Zones",
    "decode",
    "encode",
    "utc_now",
]

MAX_PAYLOAD_BYTES: Final = 256 * 1024

Time = Annotated[datetime, Meta(tz=True, description="UTC, ISO 8601")]
Id = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}(?![\s\S])")]
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}(?![\s\S])", description="SHA-256 of the bundle file")]
Unit = Annotated[float, Meta(ge=0.0, le=1.0)]
Count = Annotated[int, Meta(ge=0)]
Millis = Annotated[float, Meta(ge=0.0, description="milliseconds")]
Box = Annotated[tuple[Unit, Unit, Unit, Unit], Meta(description="x1, y1, x2, y2 in 0..1 of the frame")]


def utc_now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


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


class ModelRef(Struct, frozen=True, kw_only=True):
    """Which model saw it."""

    name: str
    version: str
    digest: Digest


class FrameSize(Struct, frozen=True, kw_only=True):
    """The camera frame in pixels."""

    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]


class Zones(Struct, frozen=True, kw_only=True):
    """Zones the object is in now, all it has entered so far, and how long it was in each in all."""

    now: list[str]
    entered: list[str]
    dwell_s: dict[str, Annotated[float, Meta(ge=0.0)]] = {}


class Track(Struct, frozen=True, kw_only=True):
    """How long the object has been followed, and whether it rests."""

    age_s: Annotated[float, Meta(ge=0.0)]
    stationary: bool


class Crossing(Struct, frozen=True, kw_only=True):
    """A line that the object has crossed: ``in`` from its left side to its right, seen from start to end."""

    line: str
    direction: Annotated[str, Meta(pattern=r"^(in|out)(?![\s\S])")]


class LatencyMs(Struct, frozen=True, kw_only=True):
    """Where the time went between the capture of the frame and this event."""

    wait: Millis
    preprocess: Millis
    inference: Millis
    decode: Millis
    track: Millis
    total: Millis


class EventType(StrEnum):
    """A step in an object's life."""

    START = "start"
    UPDATE = "update"
    END = "end"


class Event(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/event``: one step in an object's life.

    ``seq`` rises by one with each event of a device's boot, so a reader can prove that none is missing.
    ``id`` names the object and is the same from ``start`` to ``end``; (``boot_id``, ``seq``) names the event.
    ``replayed`` is true when the event waited on the device for the broker.
    ``crossed`` are the lines it has crossed so far, ``rules`` the names of the configured rules that it has fulfilled,
    and ``reason`` says of an ``end`` why: left, changed, stopped, camera lost, restarted.
    """

    id: Id
    type: EventType
    boot_id: Id
    seq: Annotated[int, Meta(ge=1)]
    site: Id
    device: Id
    camera: Id
    model: ModelRef
    label: str
    class_id: Count
    score: Unit
    best_score: Unit
    box: Box
    frame: FrameSize
    zones: Zones
    track: Track
    started_at: Time
    seen_at: Time
    ended_at: Time | None
    clock_synced: bool | None
    replayed: bool
    latency_ms: LatencyMs
    crossed: list[Crossing] = []
    rules: list[str] = []
    reason: str | None = None

    def __post_init__(self) -> None:
        x1, y1, x2, y2 = self.box
        if x1 > x2 or y1 > y2:
            raise ValueError(f"box {self.box} has its corners swapped")
        if (self.ended_at is not None) != (self.type is EventType.END):
            raise ValueError("ended_at belongs to an end event and to no other")


class Detection(Struct, frozen=True, kw_only=True):
    """One object in one frame."""

    label: str
    class_id: Count
    score: Unit
    box: Box
    track_id: Id | None


class Frame(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/frame``: every frame's detections (opt-in)."""

    boot_id: Id
    frame: FrameSize
    seen_at: Time
    model: ModelRef
    detections: list[Detection]


class Alert(Struct, frozen=True, kw_only=True):
    """``alert/<code>``: a standing problem and its remedy; an empty payload clears it."""

    severity: Annotated[str, Meta(pattern=r"^(warning|error)(?![\s\S])")]
    what: str
    mend: str
    since: Time
    boot_id: Id


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


PAYLOADS: Final[dict[type[t.Topic], type[Struct]]] = {
    t.StatusTopic: Status,
    t.InfoTopic: Info,
    t.HealthTopic: Health,
    t.CameraStatusTopic: CameraStatus,
    t.CountsTopic: Counts,
    t.EventTopic: Event,
    t.FrameTopic: Frame,
    t.AlertTopic: Alert,
    t.DesiredTopic: Desired,
    t.ReportedTopic: Reported,
    t.CommandTopic: Command,
    t.AckTopic: Ack,
}
"""Which payload each topic carries. A snapshot is a JPEG and has none."""

_ENCODER = msgspec.json.Encoder(order="sorted")
M = TypeVar("M", bound=Struct)


def encode(message: Struct) -> bytes:
    """JSON bytes: keys sorted, no spaces, so equal messages are equal bytes."""
    return _ENCODER.encode(message)


def decode(payload: bytes, kind: type[M]) -> M:
    """Read a payload back; unknown fields are ignored.

    Raises:
        ContractError: the payload is larger than 256 KiB, is not JSON, or does not fit ``kind``.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ContractError(
            f"{kind.__name__} payload of {len(payload)} bytes exceeds {MAX_PAYLOAD_BYTES}.",
            mend="Check who publishes to this topic.",
        )
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ContractError(
            f"Not a valid {kind.__name__}: {error}.", mend=f"Compare it with schemas/{kind.__name__.lower()}.json."
        ) from error
