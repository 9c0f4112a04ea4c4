"""The state of all devices of a broker, as a reader knows it. No I/O and no clock.

In: messages as they come.  Out: `Fleet` and its `Device`s, `Camera`s and alerts as typed objects, and counts of events
that came, came twice or are missing (`account` says what these prove). What breaks the contract is counted and changes
nothing.

Nothing that a broker sends makes it grow without end: there are limits to the devices, to the cameras and alerts of
each, and to all that is kept together. What is beyond them is read and handed out, not kept, and counted as `unkept`.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from msgspec import Struct

from tinysight_contract import topics as t
from tinysight_contract.account import Account
from tinysight_contract.errors import ContractError
from tinysight_contract.messages import (
    PAYLOADS,
    Alert,
    CameraStatus,
    Counts,
    Desired,
    Event,
    Health,
    Info,
    ModelMetrics,
    Reported,
    State,
    Status,
    decode,
)

__all__ = ["MAX_DEVICES", "Camera", "Device", "Fleet", "Heard"]

MAX_DEVICES: Final = 20_000
"""Unless another number is given."""
MAX_OF_EACH: Final = 64  # cameras and alerts of a device
KEPT_BYTES_EACH: Final = 6710  # of payloads, by device on average; one with two cameras has half of that
MAX_NUMBER: Final = 1 << 53  # a larger one would not survive a browser
MAX_TOPIC: Final = 320  # longer than any of the contract
NAMED_TOPICS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Heard:
    """One message, read.

    Attributes:
        topic: as it came.
        payload: as it came.
        retained: the broker kept it; it is of the time before the reader's session.
        where: the topic, read; None when it is none of the contract.
        message: the payload, read; None of a picture, a cleared topic, and what breaks the contract.
        repeated: an event that came before.
        broken: how it breaks the contract, or None.
    """

    topic: str
    payload: bytes
    retained: bool
    where: t.Topic | None = None
    message: Struct | None = None
    repeated: bool = False
    broken: str | None = None


@dataclass(slots=True)
class Camera:
    """What is known of one camera.

    Attributes:
        status: None until told.
        counts: None until told.
        last: the newest event that did not wait on the device; None until one came.
    """

    status: CameraStatus | None = None
    counts: Counts | None = None
    last: Event | None = None


@dataclass(slots=True)
class Device:
    """What is known of one device. What has not been told, or was taken back, is None.

    Attributes:
        site: its id.
        name: its id within the site.
        status: the last that counts: an `offline` of another boot than the last `online` is a late will, and does not.
        info: what the device is.
        health: how it does.
        model: what its model has found.
        desired: what the operator wants of it.
        reported: what it has made of that.
        cameras: by id.
        alerts: standing problems by code.
        account: which of its events came.
    """

    site: str
    name: str
    status: Status | None = None
    info: Info | None = None
    health: Health | None = None
    model: ModelMetrics | None = None
    desired: Desired | None = None
    reported: Reported | None = None
    cameras: dict[str, Camera] = field(default_factory=dict)
    alerts: dict[str, Alert] = field(default_factory=dict)
    account: Account = field(default_factory=Account)
    _sizes: dict[t.Topic, int] = field(default_factory=dict)  # bytes of what is kept, by where it came from
    _last_boot: str | None = None

    @property
    def online(self) -> bool | None:
        """Whether it is connected; None when that is not known.

        The retained status of a living device may be a late will of an earlier boot; then its info is of another.
        """
        if self.status is None:
            return None
        if self.status.state is State.ONLINE:
            return True
        return False if self.info is None or self.info.boot_id == self.status.boot_id else None


class Fleet:
    """What has been heard so far.

    Args:
        max_devices: of so many at most; what is kept of all of them together is bounded in proportion.

    Attributes:
        max_devices: as given.
        devices: by site and device.
        replayed: events that waited on their device for the broker; they are told late and move nothing that is live.
        broken: messages that break the contract.
        unkept: messages of which nothing was kept, because a limit is reached.
    """

    def __init__(self, *, max_devices: int = MAX_DEVICES) -> None:
        self.max_devices = max_devices
        self.devices: dict[tuple[str, str], Device] = {}
        self.replayed = self.broken = self.unkept = 0
        self._kept_bytes = 0
        self._of_gone: dict[str, int] = dict.fromkeys(("events", "repeated", "missing", "given_up"), 0)

    @property
    def events(self) -> int:
        """How many came, each counted once."""
        return self._sum("events")

    @property
    def repeated(self) -> int:
        """Events that came again, known by boot and seq."""
        return self._sum("repeated")

    @property
    def missing(self) -> int:
        """Events that must have come and have not; `account` says how that is known."""
        return self._sum("missing")

    @property
    def given_up(self) -> int:
        """Of the events that have not come, those that their devices had to discard."""
        return self._sum("given_up")

    @property
    def awaited(self) -> int:
        """Events that exist by their device's word, and may still come."""
        return self._sum("awaited")

    def hear(self, topic: str, payload: bytes, *, retained: bool) -> Heard:
        """Take a message in; what it says."""
        try:
            where = _parse(topic) if len(topic) <= MAX_TOPIC else t.parse(topic)
            kind = PAYLOADS.get(type(where))
            message = decode(payload, kind) if payload and kind is not None else None
            if message is not None:
                _check(where, message, retained=retained)
        except ContractError as error:
            self.broken += 1
            return Heard(topic, payload, retained, broken=error.what)
        repeated = self._note(where, message, len(payload), retained=retained)
        return Heard(topic, payload, retained, where, message, repeated)

    def _sum(self, name: str) -> int:
        told: int = self._of_gone.get(name, 0) + sum(getattr(each.account, name) for each in self.devices.values())
        return min(told, MAX_NUMBER)

    def _note(self, where: t.Topic, message: Struct | None, size: int, *, retained: bool) -> bool:
        """Keep what is said; whether it is an event that came before."""
        slot = _SLOTS.get(type(where))
        key = (where.site, where.device)
        device = self.devices.get(key)
        if slot is None:
            return False
        if message is None:
            if device is not None:
                self._take_back(device, where, slot)
            return False
        if device is None:
            if len(self.devices) >= self.max_devices:
                self.unkept += 1
                return False
            device = self.devices[key] = Device(*key)
        if isinstance(message, Event):
            if not device.account.event(message.boot_id, message.seq):
                return True
            if message.replayed:
                self.replayed += 1
                return False
        elif isinstance(message, Health):
            device.account.health(message.boot_id, message.outbox, retained=retained)
        elif isinstance(message, Status) and not _heed(device, message, retained=retained):
            return False
        grown = size - device._sizes.get(where, 0)
        most = self.max_devices * KEPT_BYTES_EACH
        if (grown > 0 and self._kept_bytes + grown > most) or not _put(device, where, slot, message):
            self.unkept += 1
            return False
        device._sizes[where] = size
        self._kept_bytes += grown
        return False

    def _take_back(self, device: Device, where: t.Topic, slot: str) -> None:
        """Forget what a topic said, and what is left without anything that is retained."""
        if isinstance(where, t.AlertTopic):
            device.alerts.pop(where.code, None)
        elif (name := getattr(where, "camera", None)) is None:
            setattr(device, slot, None)
        elif (camera := device.cameras.get(name)) is not None:
            setattr(camera, slot, None)
            if camera.status is None and camera.counts is None:
                del device.cameras[name]
        gone = [each for each in device._sizes if getattr(each, "camera", None) not in {None, *device.cameras}]
        for each in {where, *gone}:
            self._kept_bytes -= device._sizes.pop(each, 0)
        if not device._sizes:
            del self.devices[device.site, device.name]
            for figure in self._of_gone:
                self._of_gone[figure] += getattr(device.account, figure)


_SLOTS: Final[dict[type[t.Topic], str]] = {
    t.StatusTopic: "status",
    t.InfoTopic: "info",
    t.HealthTopic: "health",
    t.ModelTopic: "model",
    t.DesiredTopic: "desired",
    t.ReportedTopic: "reported",
    t.CameraStatusTopic: "status",
    t.CountsTopic: "counts",
    t.EventTopic: "last",
    t.AlertTopic: "alerts",
}
"""Where each topic's message is kept: an attribute of the device or of its camera. Others pass by."""


@lru_cache(maxsize=NAMED_TOPICS)
def _parse(topic: str) -> t.Topic:
    return t.parse(topic)


def _check(where: t.Topic, message: Struct, *, retained: bool) -> None:
    """See that a message is where it belongs.

    Raises:
        ContractError: it is not.
    """
    if isinstance(message, Event):
        if retained:
            raise ContractError("An event is retained.", mend="Clear it; events are never retained.")
        if (message.site, message.device) != (where.site, where.device) or message.camera != getattr(
            where, "camera", None
        ):
            raise ContractError("An event says that it is of another camera.", mend="Check who publishes it.")
        told = message.seq
    elif isinstance(message, Health):
        told = max(message.outbox.last_seq, message.outbox.depth, sum(message.outbox.discarded.values()))
    else:
        return
    if told > MAX_NUMBER:
        raise ContractError("A number is beyond 2^53.", mend="Check who publishes it.")


def _heed(device: Device, status: Status, *, retained: bool) -> bool:
    """Whether a status counts: an ``offline`` of another boot than the last ``online`` does not.

    But when the reader was away and is told, it may be of a boot that came and went meanwhile.
    """
    boot_id, last = status.boot_id, device._last_boot
    known = boot_id in device.account or (device.info is not None and device.info.boot_id == boot_id)
    if status.state is State.ONLINE:
        device.account.begun(boot_id, witnessed=not (known or retained or last is None))
    elif last in {None, boot_id} or (retained and not known):
        device.account.gone(boot_id)
    else:
        return False
    device._last_boot = boot_id
    return True


def _put(device: Device, where: t.Topic, slot: str, message: Struct) -> bool:
    """Put a message where it belongs; False when there is no room."""
    if isinstance(where, t.AlertTopic):
        return _put_into(device.alerts, where.code, message)
    name = getattr(where, "camera", None)
    if name is not None and name not in device.cameras and not _put_into(device.cameras, name, Camera()):
        return False
    setattr(device if name is None else device.cameras[name], slot, message)
    return True


def _put_into(table: dict[str, Any], name: str, message: object) -> bool:
    if name not in table and len(table) >= MAX_OF_EACH:
        return False
    table[name] = message
    return True
