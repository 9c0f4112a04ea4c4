"""What each command does.

In: a command's arguments.  Out: what the answer says of it. `ACTIONS` is the table of all; docs/commands.md says the
same for people. What an action needs of the agent it gets from `Hands`; none knows MQTT.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from tinysight_contract.errors import CameraError, ConfigError, DeviceError
from tinysight_contract.messages import AckCode
from tinysight_contract.scalars import Id
from tinysight_edge.config.checks import near
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.watch import Watch
from tinysight_edge.orders.lamp import Lamp
from tinysight_edge.orders.portraits import Portraits
from tinysight_edge.orders.ruling import Refusal
from tinysight_edge.pictures.jpeg import small_jpeg

__all__ = ["ACTIONS", "MAX_PICTURE_BYTES", "Action", "Hands", "LogLevel", "Picture"]

log = logging.getLogger(__name__)

MAX_PICTURE_BYTES: Final = 256 * 1024
RELOAD_WITHIN_S: Final = 10.0
RUNS_LEAST_S: Final = 60.0
"""systemd gives a unit up that starts twenty times in ten minutes; nobody shall bring it there from outside."""
LOGGERS: Final = ("tinysight_edge", "tinysight_contract")

Seconds = Annotated[int, Meta(ge=1, le=86400)]


class _Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class _Snapshot(Struct, frozen=True, forbid_unknown_fields=True):
    camera: Id | None = None


class _Identify(Struct, frozen=True, forbid_unknown_fields=True):
    seconds: Annotated[int, Meta(ge=1, le=60)] = 10


class _LogLevel(Struct, frozen=True, forbid_unknown_fields=True):
    level: Literal["debug", "info", "warning", "error"]
    seconds: Seconds = 3600


class _CameraEnable(Struct, frozen=True, forbid_unknown_fields=True):
    camera: Id
    enabled: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A JPEG that goes with the answer."""

    camera: str
    jpeg: bytes


class LogLevel:
    """How much is logged, for a time; then again what was before."""

    def __init__(self) -> None:
        self._until_s: float | None = None

    def set(self, level: str, seconds: float) -> None:
        """Log so much from now on."""
        for name in LOGGERS:
            logging.getLogger(name).setLevel(level.upper())
        self._until_s = time.monotonic() + seconds

    def tick(self, *, now: bool = False) -> None:
        """Go back when the time is over, or ``now``."""
        if self._until_s is not None and (now or time.monotonic() >= self._until_s):
            self._until_s = None
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.NOTSET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What actions reach of the agent.

    Attributes:
        config: what holds now.
        watch: reads the file again; None for an agent without one.
        restart: end cleanly, to be started again. Called after the answer was given.
        supervised: somebody counts the starts.
        enable: switch a camera on or off; False when nobody did it in time. Waits for the telling thread.
    """

    config: Callable[[], AgentConfig]
    watch: Watch | None
    restart: Callable[[], None]
    supervised: bool
    enable: Callable[[str, bool], bool]
    portraits: Portraits = field(default_factory=Portraits)
    lamp: Lamp = field(default_factory=Lamp)
    level: LogLevel = field(default_factory=LogLevel)
    begun_s: float = field(default_factory=time.monotonic)


Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Action:
    """One command.

    Attributes:
        arguments: their type.
        do: carries it out; raises `ConfigError` for what cannot be asked for here, `DeviceError` for what failed.
        after: done when the answer was given.
        once: it must not be carried out when nobody could remember that it was.
    """

    arguments: type[Struct]
    do: Callable[[Hands, Any], Result | tuple[Result, Picture]]
    after: Callable[[Hands], None] | None = None
    once: bool = False


def _camera(hands: Hands, id_: str) -> str:
    known = hands.config().cameras
    if id_ not in known:
        raise ConfigError(f"No camera {id_!r} is configured.", mend=near(id_, known, what="camera"))
    return id_


def _snapshot(hands: Hands, asked: _Snapshot) -> tuple[Result, Picture]:
    config = hands.config()
    if not config.publish.snapshots:
        raise ConfigError(
            "This agent publishes no pictures.", mend="Write `snapshots = true` under [publish] of its file."
        )
    if asked.camera is None and len(config.cameras) > 1:
        raise Refusal(AckCode.MALFORMED, "There are several cameras.", mend=f"Name one: {', '.join(config.cameras)}.")
    camera = _camera(hands, asked.camera or next(iter(config.cameras)))
    image = hands.portraits.next(camera)
    if image is None:
        raise CameraError(f"No picture came from {camera} in time.", mend="See its status.")
    try:
        jpeg, (width, height) = small_jpeg(image, most_bytes=MAX_PICTURE_BYTES)
    except ValueError as error:
        raise DeviceError(f"It cannot be sent: {error}.", mend="Report this as a bug.") from error
    return {"camera": camera, "bytes": len(jpeg), "width": width, "height": height}, Picture(camera, jpeg)


def _reload(hands: Hands, _asked: _Nothing) -> Result:
    if hands.watch is None:
        raise ConfigError("This agent runs from flags and has no file.", mend="Start it with --config.")
    if not hands.watch.look_now(wait_s=RELOAD_WITHIN_S):
        raise DeviceError("The file was not read in time.", mend="See the log.")
    refused = hands.watch.reloader.now.refused
    if refused is not None:
        raise DeviceError(refused.error.what, mend=refused.error.mend)
    return {"config": hands.watch.reloader.status}


def _restart(hands: Hands, _asked: _Nothing) -> Result:
    runs_s = time.monotonic() - hands.begun_s
    if hands.supervised and runs_s < RUNS_LEAST_S:
        what = f"The agent was started {runs_s:.0f} s ago."
        raise ConfigError(what, mend=f"Send it again when it has run for {RUNS_LEAST_S:.0f} s.")
    return {}


def _identify(hands: Hands, asked: _Identify) -> Result:
    config = hands.config()
    log.warning("IDENTIFY: somebody looks for this device, %s/%s", config.site, config.device)
    return {"led": hands.lamp.blink(asked.seconds), "seconds": asked.seconds}


def _log_level(hands: Hands, asked: _LogLevel) -> Result:
    hands.level.set(asked.level, asked.seconds)
    return {"level": asked.level, "seconds": asked.seconds}


def _camera_enable(hands: Hands, asked: _CameraEnable) -> Result:
    camera = _camera(hands, asked.camera)
    if not hands.enable(camera, asked.enabled):
        raise DeviceError("Nobody did it in time.", mend="See the device's health.")
    return {"camera": camera, "enabled": asked.enabled}


ACTIONS: Final[Mapping[str, Action]] = {
    "snapshot": Action(_Snapshot, _snapshot),
    "reload": Action(_Nothing, _reload),
    "restart": Action(_Nothing, _restart, after=lambda hands: hands.restart(), once=True),
    "identify": Action(_Identify, _identify),
    "log-level": Action(_LogLevel, _log_level),
    "camera-enable": Action(_CameraEnable, _camera_enable),
}
