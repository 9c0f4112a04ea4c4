"""What this device says: its events, counts, cameras and itself, each under its topic.

In: what the loop, the cameras and the steering know.  Out: messages for the publisher. Never waits.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from tinysight_contract import topics as t
from tinysight_contract.messages import CameraState, CameraStatus, Counts, Event, EventType, Frame, Info, utc_now
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.neighbours.neighbours import Neighbours
from tinysight_edge.publisher import Publisher

__all__ = ["Teller"]

FRAME_LIVES_S: Final = 10
PICTURE_LIVES_S: Final = 60


class Teller:
    """Speaks for one device.

    Args:
        site: the site's id.
        device: the device's id.
        boot_id: of this process.
        publisher: who sends it.
        caretaker: who must know of each camera's state.
        neighbours: who says it to others in their words.
        note_camera: who else must.

    Attributes:
        me: site and device.
        ended: told camera and id of each event that ends; may be changed.
        made: events by type.
        info_due: something that `info` says is another now.
    """

    def __init__(
        self,
        site: str,
        device: str,
        boot_id: str,
        *,
        publisher: Publisher,
        caretaker: Caretaker,
        neighbours: Neighbours,
        note_camera: Callable[[str, CameraState], None] = lambda _id, _state: None,
    ) -> None:
        self.me = site, device
        self.ended: Callable[[str, str], None] = lambda _camera, _event: None
        self.made: Counter[str] = Counter()
        self.info_due = False
        self._info: Info | None = None
        self._boot_id, self._publisher, self._caretaker = boot_id, publisher, caretaker
        self._neighbours, self._note_camera = neighbours, note_camera

    def seen(self, camera: str, events: Iterable[Event], counts: Counts | None) -> None:
        """What a camera has seen; no counts when they are as before."""
        for event in events:
            self.event(t.EventTopic(*self.me, camera), event)
            if event.type is EventType.END:
                self.ended(camera, event.id)
        if counts is not None:
            self._publisher.state(t.CountsTopic(*self.me, camera), counts)
            self._neighbours.counts(camera, counts)

    def event(self, topic: t.EventTopic, event: Event) -> None:
        """One step of an object's life."""
        self.made[event.type] += 1
        self._publisher.event(topic, event)

    def frame(self, camera: str, message: Frame) -> None:
        """What is in one frame; lost when there is no broker."""
        self._publisher.once(t.FrameTopic(*self.me, camera), message, lives_s=FRAME_LIVES_S)

    def picture(self, camera: str, event: str, jpeg: bytes) -> None:
        """The best picture of an event; lost when there is no broker. From any thread."""
        self._publisher.once(t.SnapshotTopic(*self.me, camera, event), jpeg, lives_s=PICTURE_LIVES_S)

    def camera(self, camera: str, state: CameraState, reason: str) -> None:
        """A camera's state; called by capture threads as well."""
        status = CameraStatus(state=state, since=utc_now(), reason=reason, boot_id=self._boot_id)
        self._publisher.state(t.CameraStatusTopic(*self.me, camera), status)
        self._caretaker.camera(camera, state)
        self._neighbours.camera(camera, state)
        self._note_camera(camera, state)
        self.info_due = True  # its size may be known now

    def forget(self, camera: str) -> None:
        """Nobody shall believe in a camera that is no longer configured."""
        self._caretaker.camera(camera, None)
        for topic in (t.CameraStatusTopic(*self.me, camera), t.CountsTopic(*self.me, camera)):
            self._publisher.state(topic, None)

    def info(self, config: AgentConfig, info: Info, *, wanted: str | None = None) -> None:
        """What the device is, what is configured, and which bundle is to come (its digest). Sent when it is news."""
        if info != self._info:  # a camera that comes and goes changes nothing of it
            self._info = info
            self._publisher.state(t.InfoTopic(*self.me), info)
        self._neighbours.tell(config, info, wanted=wanted)
