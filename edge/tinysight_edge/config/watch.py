"""The thread that looks at ``agent.toml`` again and again, and hands its changes to the agent.

In: a `Reloader`.  Out: `Change`s, to whoever takes them. Nothing that goes wrong in a look ends it.
"""

import logging
import threading
import time
from queue import Empty, SimpleQueue

from tinysight_edge.config.reload import Change
from tinysight_edge.config.reloader import EVERY_S, Reloader

__all__ = ["Watch"]

log = logging.getLogger(__name__)


class Watch:
    """A thread that polls a `Reloader` until the ``with`` ends."""

    def __init__(self, reloader: Reloader) -> None:
        self.reloader = reloader
        self._changes: SimpleQueue[Change] = SimpleQueue()
        self._stop, self._hurry, self._looked = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="config", daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._hurry.set()
        self._thread.join(5.0)

    def look_now(self, *, wait_s: float) -> bool:
        """Read the file now and wait for that; whether it was done in time. From one thread at a time, not its own."""
        self._looked.clear()
        self._hurry.set()
        return self._looked.wait(wait_s)

    def take(self) -> Change | None:
        """The next change to apply, or None; never waits."""
        try:
            return self._changes.get_nowait()
        except Empty:
            return None

    def _run(self) -> None:
        while True:
            at_once = self._hurry.wait(EVERY_S / 4)
            self._hurry.clear()
            if self._stop.is_set():
                return
            try:
                if (change := self.reloader.poll(time.monotonic(), at_once=at_once)) is not None:
                    self._changes.put(change)
            except Exception:  # what runs goes on, and the file is watched as before
                log.exception("Looking at %s failed.", self.reloader.path)
            if at_once:
                self._looked.set()
