"""Payloads that say what was seen: an object's life, and every frame."""

from enum import StrEnum
from typing import Annotated, Literal

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
    """Which model saw it.

    Attributes:
        name: the bundle's name.
        version: the bundle's version, such as ``1.2.0``.
        digest: SHA-256 of the bundle file.
    """

    name: str
    version: str
    digest: Digest


class FrameSize(Struct, frozen=True, kw_only=True):
    """The camera frame in pixels.

    Attributes:
        width: pixels.
        height: pixels.
    """

    width: Annotated[int, Meta(ge=1)]
    height: Annotated[int, Meta(ge=1)]


class Zones(Struct, frozen=True, kw_only=True):
    """Where the object is, and has been.

    Attributes:
        now: names of the zones it is in now.
        entered: names of all zones that it has entered so far.
        dwell_s: by zone: seconds from the first to the last sighting within, over all visits.
    """

    now: list[str]
    entered: list[str]
    dwell_s: dict[str, Annotated[float, Meta(ge=0.0)]] = {}


class Track(Struct, frozen=True, kw_only=True):
    """How long the object has been followed, and whether it rests.

    Attributes:
        age_s: seconds between the first and the last frame that show it.
        stationary: true when it rests.
    """

    age_s: Annotated[float, Meta(ge=0.0)]
    stationary: bool


class Crossing(Struct, frozen=True, kw_only=True):
    """A line that the object has crossed.

    Attributes:
        line: the line's name.
        direction: ``in`` is from the line's left side to its right, seen from its start to its end.
    """

    line: str
    direction: Literal["in", "out"]


class LatencyMs(Struct, frozen=True, kw_only=True):
    """Where the time went between the capture of the frame and this event, in milliseconds.

    Attributes:
        wait: from the capture to the begin of the work on it.
        preprocess: fitting the frame into the model's input.
        inference: the model.
        decode: from the model's outputs to boxes.
        track: from boxes to objects.
        total: from the capture until the event was made.
    """

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
    """``camera/<cam>/event``: one step in an object's life; (``boot_id``, ``seq``) names it.

    Attributes:
        id: names the object, the same from ``start`` to ``end``.
        type: which step.
        boot_id: names the agent's run.
        seq: rises by one with each event of one ``boot_id``, over all cameras, from 1; a gap is a lost event.
        site: as in the topic.
        device: as in the topic.
        camera: as in the topic.
        model: which model saw it.
        label: what it is, in the model's words.
        class_id: the label's place in the model's list, from 0.
        score: how sure the model is, in this frame.
        best_score: the highest score so far.
        box: where it is in the frame.
        frame: the frame's size.
        zones: zones it is in, and was in.
        track: how long it has been followed, and whether it rests.
        started_at: capture of the first frame that shows it.
        seen_at: capture of the frame that last showed it.
        ended_at: of an ``end``: when it was last seen; else null.
        clock_synced: whether the device's kernel believes its clock to be right; null where it cannot be asked.
        replayed: true when the event waited on the device for the broker.
        latency_ms: where the time went between the capture of the frame and this event.
        crossed: the lines it has crossed so far, in order.
        rules: the names of the configured rules that it has fulfilled so far.
        reason: of an ``end``: ``left``, ``changed``, ``camera lost``, ``stopped``, ``restarted`` or
            ``model changed``; else null.
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
    """One object in one frame.

    Attributes:
        label: what it is, in the model's words.
        class_id: the label's place in the model's list, from 0.
        score: how sure the model is.
        box: where it is in the frame.
        track_id: the ``id`` of the object's events; null while it is in none.
    """

    label: str
    class_id: Count
    score: Unit
    box: Box
    track_id: Id | None


class Frame(Struct, frozen=True, kw_only=True):
    """``camera/<cam>/frame``: every frame's detections (opt-in).

    Attributes:
        boot_id: names the agent's run.
        frame: the frame's size.
        seen_at: capture of the frame.
        model: which model saw it.
        detections: all objects in it, strongest first.
    """

    boot_id: Id
    frame: FrameSize
    seen_at: Time
    model: ModelRef
    detections: list[Detection]
