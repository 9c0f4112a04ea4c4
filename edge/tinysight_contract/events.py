"""Payloads that say what was seen: an object's life, and every frame."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta, Struct

from tinysight_contract.scalars import Box, Count, Digest, Id, Millis, Time, Unit

__all__ = [
    "Crossing",
    "Detection",
    "Event",
    "EventType",
    "Frame",
    "FrameSize",
    "LatencyMs",
    "ModelRef",
    "Track",
    "Zones",
]


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
