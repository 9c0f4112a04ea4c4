"""The MQTT payloads of contract version 1: one frozen type per payload, JSON on the wire.

Written strictly (sorted keys, no spaces, aware UTC times), read with tolerance (unknown fields are ignored).
``encode`` and ``decode`` are inverses; the JSON Schemas in ``schemas/`` are generated from these types.
Boxes are ``[x1, y1, x2, y2]`` in 0..1 of the camera's frame. Times are UTC, ISO 8601.
"""

from datetime import UTC, datetime
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError
from tinysight_contract.events import (
    Crossing,
    Detection,
    Event,
    EventType,
    Frame,
    FrameSize,
    LatencyMs,
    ModelRef,
    Track,
    Zones,
)
from tinysight_contract.metrics import ModelMetrics, Reference
from tinysight_contract.orders import Ack, AckCode, Command, Desired, DesiredState, Reported
from tinysight_contract.states import (
    Alert,
    BrokerHealth,
    BundleRef,
    CameraHealth,
    CameraInfo,
    CameraState,
    CameraStatus,
    Counts,
    Health,
    Info,
    LineShape,
    OutboxHealth,
    Percentiles,
    State,
    Status,
    Verdict,
    Well,
    ZoneShape,
)
from tinysight_contract.updates import Code, Gate, Release, Update, UpdateState

__all__ = [
    "PAYLOADS",
    "Ack",
    "AckCode",
    "Alert",
    "BrokerHealth",
    "BundleRef",
    "CameraHealth",
    "CameraInfo",
    "CameraState",
    "CameraStatus",
    "Code",
    "Command",
    "Counts",
    "Crossing",
    "Desired",
    "DesiredState",
    "Detection",
    "Event",
    "EventType",
    "Frame",
    "FrameSize",
    "Gate",
    "Health",
    "Info",
    "LatencyMs",
    "LineShape",
    "ModelMetrics",
    "ModelRef",
    "OutboxHealth",
    "Percentiles",
    "Reference",
    "Release",
    "Reported",
    "State",
    "Status",
    "Track",
    "Update",
    "UpdateState",
    "Verdict",
    "Well",
    "ZoneShape",
    "Zones",
    "decode",
    "encode",
    "utc_now",
]

MAX_PAYLOAD_BYTES: Final = 256 * 1024


def utc_now() -> datetime:
    """The present time, aware, in UTC."""
    return datetime.now(UTC)


PAYLOADS: Final[dict[type[t.Topic], type[Struct]]] = {
    t.StatusTopic: Status,
    t.InfoTopic: Info,
    t.HealthTopic: Health,
    t.ModelTopic: ModelMetrics,
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
