"""The MQTT topics of contract version 1: one frozen type per topic, ``str()`` and ``parse()`` are inverses.

::

    >>> str(EventTopic("plant-1", "belt-7", "cam0"))
    'tinysight/v1/plant-1/belt-7/camera/cam0/event'
    >>> parse("tinysight/v1/plant-1/belt-7/status")
    StatusTopic(site='plant-1', device='belt-7')

No other file builds a topic from pieces (a test greps for it). Which payload a topic carries is in `messages`.
"""

import re
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from tinysight_contract.errors import ContractError

__all__ = [
    "ROOT",
    "TOPICS",
    "AckTopic",
    "AlertTopic",
    "CameraStatusTopic",
    "CommandTopic",
    "CountsTopic",
    "DesiredTopic",
    "EventTopic",
    "FrameTopic",
    "HealthTopic",
    "InfoTopic",
    "ModelTopic",
    "ReportedTopic",
    "SnapshotTopic",
    "StatusTopic",
    "Topic",
    "check_id",
    "parse",
]

ROOT = "tinysight/v1"
ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def check_id(value: str, *, what: str) -> str:
    """Return ``value`` if it may stand as one level of a topic.

    Raises:
        ContractError: it does not match ``[a-z0-9][a-z0-9-]{0,62}``.
    """
    if ID.fullmatch(value) is None:
        raise ContractError(
            f"{what} {value!r} is not a valid id.",
            mend="Use 1 to 63 of a-z, 0-9 and '-', beginning with a letter or a digit.",
        )
    return value


@dataclass(frozen=True, slots=True)
class Topic:
    """Where one kind of message of one device lives.

    ``TAIL`` is the part under ``tinysight/v1/<site>/<device>/``; a level in braces is the field of that name.
    What is ``TO_DEVICE`` is published by operators and heard by the device; all else the other way round.

    Attributes:
        site: the site's id.
        device: the device's id, unique within the site.
    """

    TAIL: ClassVar[str] = ""
    RETAIN: ClassVar[bool] = False
    QOS: ClassVar[int] = 1
    TO_DEVICE: ClassVar[bool] = False

    site: str
    device: str

    def __post_init__(self) -> None:
        for spec in fields(self):
            check_id(getattr(self, spec.name), what=spec.name)

    def __str__(self) -> str:
        return f"{ROOT}/{self.site}/{self.device}/" + self.TAIL.format(
            **{spec.name: getattr(self, spec.name) for spec in fields(self)}
        )

    @classmethod
    def filter(cls, *, site: str | None = None, device: str | None = None) -> str:
        """What to subscribe to for all topics of this type, or those of one site or device.

        Raises:
            ContractError: a name is not a valid id.
        """
        given = {"site": site, "device": device}
        levels = [check_id(name, what=what) if name is not None else "+" for what, name in given.items()]
        return f"{ROOT}/{'/'.join(levels)}/" + re.sub(r"\{\w+\}", "+", cls.TAIL)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a topic back.

        Raises:
            ContractError: ``text`` is not a topic of this type.
        """
        levels, want = text.split("/"), f"{ROOT}/{{site}}/{{device}}/{cls.TAIL}".split("/")
        found: dict[str, str] = {}
        for level, pattern in zip(levels, want, strict=False):
            if pattern.startswith("{"):
                found[pattern.strip("{}")] = level
            elif level != pattern:
                break
        else:
            if len(levels) == len(want):
                return cls(**found)
        raise ContractError(f"{text!r} is not a {cls.__name__}.", mend=f"Expected {'/'.join(want)}.")


@dataclass(frozen=True, slots=True)
class _CameraTopic(Topic):
    """Where one kind of message of one camera lives.

    Attributes:
        camera: the camera's id, unique within the device.
    """

    camera: str


@dataclass(frozen=True, slots=True)
class StatusTopic(Topic):
    """Online or offline; also the will."""

    TAIL = "status"
    RETAIN = True


@dataclass(frozen=True, slots=True)
class InfoTopic(Topic):
    """What the device is: software, runtime, hardware, cameras, active bundle."""

    TAIL = "info"
    RETAIN = True


@dataclass(frozen=True, slots=True)
class HealthTopic(Topic):
    """How the device does, every 30 s."""

    TAIL = "health"
    RETAIN = True
    QOS = 0


@dataclass(frozen=True, slots=True)
class ModelTopic(Topic):
    """What the model that sees has found so far: how sure it was, of what, and how far that is from its reference."""

    TAIL = "model"
    RETAIN = True
    QOS = 0


@dataclass(frozen=True, slots=True)
class CameraStatusTopic(_CameraTopic):
    """Whether a camera delivers pictures."""

    TAIL = "camera/{camera}/status"
    RETAIN = True


@dataclass(frozen=True, slots=True)
class CountsTopic(_CameraTopic):
    """Objects present now, zeros included."""

    TAIL = "camera/{camera}/counts"
    RETAIN = True


@dataclass(frozen=True, slots=True)
class EventTopic(_CameraTopic):
    """An object's life: start, update, end."""

    TAIL = "camera/{camera}/event"


@dataclass(frozen=True, slots=True)
class FrameTopic(_CameraTopic):
    """Every frame's detections (opt-in)."""

    TAIL = "camera/{camera}/frame"
    QOS = 0


@dataclass(frozen=True, slots=True)
class SnapshotTopic(_CameraTopic):
    """A JPEG of an event (opt-in).

    Attributes:
        event: the event's object, as in its ``id``.
    """

    TAIL = "camera/{camera}/snapshot/{event}"
    QOS = 0

    event: str


@dataclass(frozen=True, slots=True)
class AlertTopic(Topic):
    """A standing problem and its remedy; an empty payload clears it.

    Attributes:
        code: the problem, such as ``camera-stalled``.
    """

    TAIL = "alert/{code}"
    RETAIN = True

    code: str


@dataclass(frozen=True, slots=True)
class DesiredTopic(Topic):
    """The state the operator wants."""

    TAIL = "desired"
    RETAIN = True
    TO_DEVICE = True


@dataclass(frozen=True, slots=True)
class ReportedTopic(Topic):
    """What the device has made of the desired state."""

    TAIL = "reported"
    RETAIN = True


@dataclass(frozen=True, slots=True)
class CommandTopic(Topic):
    """A one-shot command; a retained one is refused.

    Attributes:
        name: the command, such as ``snapshot``.
    """

    TAIL = "cmd/{name}"
    TO_DEVICE = True

    name: str


@dataclass(frozen=True, slots=True)
class AckTopic(Topic):
    """The answer to the command with this id.

    Attributes:
        id: the command's.
    """

    TAIL = "ack/{id}"

    id: str


TOPICS: tuple[type[Topic], ...] = (
    StatusTopic,
    InfoTopic,
    HealthTopic,
    ModelTopic,
    CameraStatusTopic,
    CountsTopic,
    EventTopic,
    FrameTopic,
    SnapshotTopic,
    AlertTopic,
    DesiredTopic,
    ReportedTopic,
    CommandTopic,
    AckTopic,
)


def parse(text: str) -> Topic:
    """Read any topic of the contract back.

    Raises:
        ContractError: ``text`` is no topic of contract version 1.
    """
    for kind in TOPICS:
        try:
            return kind.parse(text)
        except ContractError:
            continue
    raise ContractError(f"{text!r} is no topic of {ROOT}.", mend="See docs/mqtt.md for the list.")
