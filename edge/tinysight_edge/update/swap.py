"""Change the model of the running agent, without losing a frame or an event.

In: a bundle, from the thread of whoever wants it to run.  Out: it sees, or an error and the old one goes on. The new
model is loaded and warmed in that thread, the inference thread changes over between two frames, and the telling thread
follows at exactly that place: so each frame is told once, by the model that saw it.

With ``keep`` the old model stays loaded, and sees again at once when the new one fails on a frame.
"""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Final, get_args

from tinysight_contract.bundle import Bundle
from tinysight_contract.errors import ConfigError, DeviceError, InferenceError, RuntimeLoadError, TinySightError
from tinysight_edge.choice import EngineName, choose, scheme_of
from tinysight_edge.config.types import ModelConfig
from tinysight_edge.interpreter import Model
from tinysight_edge.lineup import Lineup
from tinysight_edge.looking import Looking, Switch, Switched
from tinysight_edge.update.shadow import unreadable
from tinysight_edge.view import Seer

__all__ = ["Swapper"]

log = logging.getLogger(__name__)

WITHIN_S: Final = 30.0
TURN_S: Final = 0.0005
"""So soon a thread that loads gives the interpreter lock to one that sees, instead of Python's five milliseconds."""


class _Asked:
    """One change that somebody waits for."""

    def __init__(self, switch: Switch) -> None:
        self.switch = switch
        self.error: TinySightError | None = None
        self._done, self._lock = threading.Event(), threading.Lock()
        self.is_given_up = False

    def end(self, error: TinySightError | None = None) -> bool:
        """It is done, or cannot be; whether anybody still waits for it."""
        with self._lock:
            self.error = error
            self._done.set()
            return not self.is_given_up

    def wait(self, seconds: float) -> bool:
        """Whether it ended in time; else nobody waits for it any more."""
        if not self._done.wait(seconds):
            with self._lock:
                self.is_given_up = not self._done.is_set()
        return not self.is_given_up


class Swapper:
    """Changes models. One thread asks at a time; `look_around` and `switched` belong to the telling thread.

    Args:
        seer: what sees at the start.
        lineup: whose views look through it.
        looking: who runs it.
        became: called when another model sees, before its first look is told.

    Attributes:
        seer: what sees; changed by the telling thread.
        back: what would see again.
        failure: why the last model that was given up failed on a frame; until the next change.
    """

    def __init__(self, seer: Seer, *, lineup: Lineup, looking: Looking, became: Callable[[Seer], None]) -> None:
        self.seer = seer
        self.back: Seer | None = None
        self.failure: InferenceError | None = None
        self._lineup, self._looking, self._became = lineup, looking, became
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._begun: dict[Switch, _Asked] = {}
        self._closed = False

    def load(self, bundle: Bundle, wanted: ModelConfig, *, heed: Callable[[], None] = lambda: None) -> Seer:
        """A bundle's model as it would see here, warm. Takes a fraction of a second, in the caller's thread.

        The engine and the scheme are those of the model that sees, where that goes well: what is not tried takes no
        time of the one that sees. The next start chooses anew.

        Args:
            bundle: with the model.
            wanted: which variant and engine, and how many threads. A variant that this bundle has not is not insisted
                on.
            heed: called now and then; what it raises ends the loading.

        Raises:
            RuntimeLoadError: nothing of it works here.
            BundleError: a file does not fit its manifest.
        """
        with _by_turns():
            model = self._choose(bundle, wanted, heed)
        return Seer(bundle, model, self.seer.boot_id, self.seer.sequence)

    def _choose(self, bundle: Bundle, wanted: ModelConfig, heed: Callable[[], None]) -> Model:
        now = self.seer.model
        schemes = {variant.scheme for variant in bundle.manifest.variants}
        if now.variant.scheme in schemes and now.engine.name in get_args(EngineName):
            same: EngineName = now.engine.name  # type: ignore[assignment]  # just seen
            with suppress(RuntimeLoadError):  # then whatever works
                return choose(bundle, scheme=now.variant.scheme, threads=wanted.threads, engine=same, heed=heed)
        scheme = scheme_of(bundle, wanted.scheme)
        return choose(bundle, scheme=scheme, threads=wanted.threads, engine=wanted.engine, heed=heed)

    def swap(self, seer: Seer, *, keep: bool = False) -> None:
        """Let it see from the next frame on, and wait until that is so.

        Args:
            seer: comes from `load`.
            keep: the one that sees now stays loaded, to go back to; see `settle`.

        Raises:
            ConfigError: a camera asks for what this model cannot give.
            DeviceError: the loop did not come to it, or has ended. It does not happen later, or is undone at once.
        """
        self.failure = None
        self._ask(Switch(self.seer, seer, self.seer if keep else None))

    def go_back(self) -> None:
        """Let the one before see again; when it does already, that is all.

        Raises:
            DeviceError: nothing was kept, or the loop did not come to it.
        """
        if self.back is not None:
            self._ask(Switch(self.seer, self.back))

    def settle(self) -> None:
        """Let go of the one before.

        Raises:
            InferenceError: it sees again: the new one has failed on a frame.
            DeviceError: the loop did not come to it.
        """
        seer = self.seer
        self._ask(Switch(seer, seer))
        if self.failure is not None:
            raise self.failure

    def _ask(self, switch: Switch) -> None:
        asked = _Asked(switch)
        self._asked.put(asked)
        if self._closed:
            self.close()
        if not asked.wait(WITHIN_S):
            raise DeviceError("The inference loop did not change its model in time.", mend="Restart the agent.")
        if asked.error is not None:
            raise asked.error

    def close(self) -> None:
        """The loop has ended: nobody waits for it any more."""
        self._closed = True
        while not self._asked.empty():
            self._asked.get().end(_ended())
        while self._begun:
            self._begun.popitem()[1].end(_ended())

    # Everything below runs in the telling thread.

    def look_around(self) -> None:
        """Begin what is asked for."""
        while not self._asked.empty():
            asked = self._asked.get()
            if asked.is_given_up and asked.switch.seer is not self.back:  # going back is right at any time
                continue
            try:
                self._lineup.ready(asked.switch.seer)
            except ConfigError as error:
                asked.end(error)
                continue
            self._begun[asked.switch] = asked
            self._looking.switch(asked.switch)

    def switched(self, now: Switched) -> None:
        """The looks that come from now on are by this model."""
        if now.error is not None:
            self.failure = now.error
            log.error("%s gives way to the model before: %s", self.seer.ref.name, now.error.what)
        if now.seer is not self.seer:
            self.seer = now.seer
            self._lineup.become(now.seer)
            self._became(now.seer)
        self.back = now.back
        self._lineup.keep({now.seer} if now.back is None else {now.seer, now.back})
        if now.asked is None:
            return
        asked = self._begun.pop(now.asked)
        fits = now.seer is now.asked.seer
        no = None if fits else self.failure or DeviceError("Another model sees by now.", mend="Ask again.")
        if (
            not asked.end(no) and fits and now.asked.back is not None
        ):  # too late: whoever asked reckons with the old one
            self._asked.put(_Asked(Switch(now.seer, now.asked.back)))

    def broke(self, error: Exception) -> bool:
        """What the model that sees has answered cannot be read: the one before is to see again.

        False when there is none, so that nobody can see.
        """
        if self.back is None:
            return False
        if self.failure is None:
            self.failure = unreadable(self.seer, error)
            log.error("%s gives way to the model before: %s", self.seer.ref.name, self.failure.what)
            self._asked.put(_Asked(Switch(self.seer, self.back)))
        return True


def _ended() -> DeviceError:
    return DeviceError("The agent has ended.", mend="Start it again.")


@contextmanager
def _by_turns() -> Iterator[None]:
    """Let no other thread wait long for the interpreter lock meanwhile: a frame takes it a dozen times."""
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(min(TURN_S, before_s))
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)
