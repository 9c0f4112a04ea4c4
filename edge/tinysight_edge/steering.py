"""What happens beside the frames, a few times a second: the configuration changes, and what is wrong is said.

In: `Change`s of the configuration, what the parts complain of.  Out: the parts as the configuration wants them, words
for the caretaker. Runs in the telling thread, between two frames.
"""

import contextlib
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

from tinysight_edge.cameras.hub import Hub
from tinysight_edge.config.reload import Change
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.config.watch import Watch
from tinysight_edge.frames import Frames
from tinysight_edge.governor import Governor
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.verdict import Code
from tinysight_edge.lineup import Lineup
from tinysight_edge.parts import about_pictures, cameras_gone, foreign_labels, make_pictures
from tinysight_edge.pictures.pictures import Pictures
from tinysight_edge.publisher import Publisher
from tinysight_edge.telling import Teller
from tinysight_edge.view import Seer

__all__ = ["Steering"]

log = logging.getLogger(__name__)

SWITCH_WITHIN_S: Final = 10.0


class Steering:
    """Keeps all parts as the configuration wants them.

    Args:
        config: what holds at the start.
        watch: reads the configuration again; None for one that does not change.
        hub: where frames come from.
        governor: how often is inferred.
        caretaker: who is told what is wrong.
        publisher: who says how the outbox and the broker do.
        teller: who says what has changed.
        lineup: the cameras.
        seer: the model.
        tell_info: says what the device is.

    Attributes:
        config: what holds now.
        pictures: who keeps pictures; None when none are wanted.
        frames: who tells of each frame; None when that is not wanted.
    """

    def __init__(
        self,
        config: AgentConfig,
        watch: Watch | None,
        *,
        hub: Hub,
        governor: Governor,
        caretaker: Caretaker,
        publisher: Publisher,
        teller: Teller,
        lineup: Lineup,
        seer: Seer,
        tell_info: Callable[[], None],
    ) -> None:
        self.config = config
        self._watch, self._hub, self._governor = watch, hub, governor
        self._caretaker, self._publisher, self._teller = caretaker, publisher, teller
        self._lineup, self._seer, self._tell_info = lineup, seer, tell_info
        self._holds, self._held = contextlib.ExitStack(), False
        self._switches: SimpleQueue[tuple[str, bool, threading.Event]] = SimpleQueue()
        self.pictures = self._make_pictures()
        self.frames = self._make_frames()
        teller.ended = self._ended
        self._say_labels()
        for id_ in cameras_gone(config.state, config.cameras):
            teller.forget(id_)

    def look_around(self) -> None:
        """Make changes, and say what is wrong."""
        say = self._caretaker.say
        with self._hub.held():
            self._switch()
            trial = False
            if self._watch is not None:
                if (change := self._watch.take()) is not None:  # one a look: there may always be another
                    self._apply(change)
                self._lineup.again()
                trial = self._watch.reloader.now.trial is not None
            self._hold(bool(self._lineup.disabled) or (trial and bool(self._lineup.unopened)))
        if self._watch is not None:
            now = self._watch.reloader.now
            say(Code.CONFIG_REFUSED, None if now.refused is None else str(now.refused.error))
        broken = self._lineup.broken()
        say(Code.CAMERA_FAILED, "; ".join(f"{id_}: {why}" for id_, why in broken.items()) or None)
        say(Code.OUTBOX_FAILING, self._publisher.outbox_trouble)
        say(Code.OUTBOX_DAMAGED, self._publisher.outbox_damage)
        refusal, unkept = self._publisher.refusal, self.pictures.trouble if self.pictures is not None else None
        say(Code.BROKER_REFUSED, None if refusal is None else refusal.what)
        say(Code.PICTURES_FAILING, None if unkept is None else unkept.what)
        if self._teller.info_due:
            self._tell_info()

    def enable(self, camera: str, enabled: bool) -> bool:
        """Have a camera switched on or off, and wait for that; False when it takes too long. From another thread."""
        done = threading.Event()
        self._switches.put((camera, enabled, done))
        return done.wait(SWITCH_WITHIN_S)

    def became(self, seer: Seer) -> None:
        """Another model sees: all that says what it is, or what it knows, follows."""
        self._seer = seer
        if self._watch is not None:
            self._watch.reloader.labels = seer.bundle.manifest.labels
        self._say_labels()
        if self.pictures is not None:
            self.pictures.sees(about_pictures(self.config, seer))
        self.frames = self._make_frames()
        self._teller.info_due = True

    def close(self) -> None:
        """Nothing is to be held any more."""
        self._holds.close()

    def _switch(self) -> None:
        while not self._switches.empty():
            camera, enabled, done = self._switches.get()
            self._lineup.enable(camera, enabled=enabled)
            if self._watch is not None:
                self._watch.reloader.excused = frozenset(self._lineup.disabled)
            done.set()

    def _hold(self, wanted: bool) -> None:
        """Let the loop go on although no camera is left: another one may come, or be switched on."""
        if wanted and not self._held:
            self._holds.enter_context(self._hub.held())
        elif self._held and not wanted:
            self._holds.close()
        self._held = wanted

    def _apply(self, change: Change) -> None:
        """Make what runs what is wanted."""
        old, self.config = self.config, change.config
        self._governor.config = change.config.governor
        self._publisher.every_s = self._caretaker.every_s = change.config.health.every
        self._caretaker.drift.most = change.config.health.max_drift
        self._lineup.apply(change)
        self._say_labels()
        for id_ in change.removed:
            self._governor.forget(id_)
            self._teller.forget(id_)
        cameras_gone(change.config.state, change.config.cameras)
        if _kept(old) != _kept(change.config):
            if self.pictures is not None:
                self.pictures.close(wait_s=2.0)
            self.pictures = self._make_pictures()
        if old.publish.frames != change.config.publish.frames:
            self.frames = self._make_frames()
        self._teller.info_due = True

    def _say_labels(self) -> None:
        if (what := foreign_labels(self.config, self._seer.bundle.manifest.labels)) is not None:
            log.warning("%s", what)
        self._caretaker.say(Code.CONFIG_LABELS, what)

    def _ended(self, camera: str, event: str) -> None:
        if self.pictures is not None:
            self.pictures.ended(camera, event)

    def _make_pictures(self) -> Pictures | None:
        send = self._teller.picture if self.config.publish.snapshots else None
        if (pictures := make_pictures(self.config, self._seer, send)) is not None:
            pictures.start()
        return pictures

    def _make_frames(self) -> Frames | None:
        per_s = self.config.publish.frames
        return None if per_s is None else Frames(per_s, self._seer)


def _kept(config: AgentConfig) -> tuple[object, ...]:
    """All that decides which pictures are kept and sent."""
    return config.snapshots, config.examples, config.publish.snapshots
