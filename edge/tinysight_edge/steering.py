"""What happens beside the frames, a few times a second: the configuration changes, and what is wrong is said.

In: `Change`s of the configuration, what the parts complain of.  Out: the parts as the configuration wants them, words
for the caretaker. Runs in the telling thread, between two frames.
"""

import contextlib
import logging
from collections.abc import Callable

from tinysight_contract.bundle import Bundle
from tinysight_edge.cameras.hub import Hub
from tinysight_edge.config.reload import Change
from tinysight_edge.config.reloader import Watch
from tinysight_edge.config.types import AgentConfig
from tinysight_edge.governor import Governor
from tinysight_edge.health.caretaker import Caretaker
from tinysight_edge.health.verdict import Code
from tinysight_edge.lineup import Lineup
from tinysight_edge.parts import cameras_gone, foreign_labels, make_pictures
from tinysight_edge.pictures.pictures import Pictures
from tinysight_edge.publisher import Publisher
from tinysight_edge.telling import Teller
from tinysight_edge.view import Seer

__all__ = ["Steering"]

log = logging.getLogger(__name__)


class Steering:
    """Keeps all parts as the configuration wants them.

    Args:
        config: what holds at the start.
        bundle: what sees.
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
    """

    def __init__(
        self,
        config: AgentConfig,
        bundle: Bundle,
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
        self.config, self.pictures = config, self._make_pictures(config, seer)
        self._bundle, self._watch, self._hub, self._governor = bundle, watch, hub, governor
        self._caretaker, self._publisher, self._teller = caretaker, publisher, teller
        self._lineup, self._seer, self._tell_info = lineup, seer, tell_info
        self._holds, self._held = contextlib.ExitStack(), False
        self._say_labels()
        for id_ in cameras_gone(config.state, config.cameras):
            teller.forget(id_)

    def look_around(self) -> None:
        """Make changes, and say what is wrong."""
        say = self._caretaker.say
        if self._watch is not None:
            with self._hub.held():
                while (change := self._watch.take()) is not None:
                    self._apply(change)
                self._lineup.again()
                now = self._watch.reloader.now
                self._hold(now.trial is not None and bool(self._lineup.unopened))
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

    def close(self) -> None:
        """Nothing is to be held any more."""
        self._holds.close()

    def _hold(self, wanted: bool) -> None:
        """Let the loop go on although no camera is left: what is taken back needs one that runs."""
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
        self._lineup.apply(change)
        self._say_labels()
        for id_ in change.removed:
            self._governor.forget(id_)
            self._teller.forget(id_)
        cameras_gone(change.config.state, change.config.cameras)
        if (old.snapshots, old.examples) != (change.config.snapshots, change.config.examples):
            if self.pictures is not None:
                self.pictures.close(wait_s=2.0)
            self.pictures = self._make_pictures(change.config, self._seer)
        self._teller.info_due = True

    def _say_labels(self) -> None:
        if (what := foreign_labels(self.config, self._bundle.manifest.labels)) is not None:
            log.warning("%s", what)
        self._caretaker.say(Code.CONFIG_LABELS, what)

    @staticmethod
    def _make_pictures(config: AgentConfig, seer: Seer) -> Pictures | None:
        if (pictures := make_pictures(config, seer)) is not None:
            pictures.start()
        return pictures
