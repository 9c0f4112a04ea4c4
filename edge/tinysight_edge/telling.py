"""What this device says: its events, counts, cameras and itself, each under its topic.

In: what the loop, the cameras and the steering know.  Out: messages for the publisher. Never waits.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from tinysight_contract import topics as t
from tinysight_contract.messages import CameraState, CameraStatus, Counts, Event, Info, utc_now
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.neighbours.neighbours import Neighbours
from tinysight_edge.publisher import Publisher

__all__ = ["Teller"]


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
        self.made: Counter[str] = Counter()
        self.info_due = False
        self._boot_id, self._publisher, self._caretaker = boot_id, publisher, caretaker
        self._neighbours, self._note_camera = neighbours, note_camera

    def seen(self, camera: str, events: Iterable[Event], counts: Counts | None) -> None:
        """What a camera has seen; no counts when they are as before."""
        for event in events:
            self.event(t.EventTopic(*self.me, camera), event)
        if counts is not None:
            self._publisher.state(t.CountsTopic(*self.me, camera), counts)
            self._neighbours.counts(camera, counts)

    def event(self, topic: t.EventTopic, event: Event) -> None:
        """One step of an object's life."""
        self.made[event.type] += 1
        self._publisher.event(topic, event)

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

    def info(self, config: AgentConfig, info: Info) -> None:
        """What the device is, and what is configured."""
        self.info_due = False
        self._publisher.state(t.InfoTopic(*self.me), info)
        self._neighbours.tell(config, info)
