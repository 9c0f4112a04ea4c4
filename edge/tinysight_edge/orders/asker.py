"""While the broker is away, ask the fleet's server for what is desired, in a thread of its own.

In: since when there is no session at the broker, ``[fleet]`` of the configuration.  Out: payloads, as the broker would
have said them; whoever takes them knows duplicates and stale ones. Asks about once a minute, less often while the
server does not answer, and not at all while the broker is there. Loads what HTTP needs when it asks for the first time.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Self

from tinysight_contract.errors import DeviceError
from tinysight_edge.config.types import AgentConfig, FleetConfig

if TYPE_CHECKING:
    from tinysight_edge.update.http_line import Line

__all__ = ["Asker", "pause_s"]

log = logging.getLogger(__name__)

AWAY_S: Final = 60.0
"""So long the broker is away before anybody else is asked."""
SPREAD_S: Final = 30.0
"""Devices that have lost the same broker ask within so long of each other."""
EVERY_S: Final = 60.0
MOST_S: Final = 900.0
TICK_S: Final = 1.0
END_WITHIN_S: Final = 0.5


def pause_s(failures: int, chance: float) -> float:
    """How long to wait after an answer, or after so many failures in a row; ``chance`` in 0..1 keeps devices apart."""
    return min(EVERY_S * 2.0 ** min(failures, 10), MOST_S) * (0.75 + 0.5 * chance)


class Asker:
    """Of one device; runs as long as its ``with``.

    Args:
        site: the site's id.
        device: the device's id.
        config: what holds now.
        away_since_s: since when there is no session at the broker (``time.monotonic()``); None while there is one.
        take: what is desired; called in this thread, must not wait.
        clock: seconds, monotonic, as those of ``away_since_s``.
        dice: 0..1.
    """

    def __init__(
        self,
        site: str,
        device: str,
        *,
        config: Callable[[], AgentConfig],
        away_since_s: Callable[[], float | None],
        take: Callable[[bytes], None],
        clock: Callable[[], float] = time.monotonic,
        dice: Callable[[], float] = random.random,
    ) -> None:
        self._me, self._config, self._away_since_s, self._take = (site, device), config, away_since_s, take
        self._clock, self._dice = clock, dice
        self._since_s: float | None = None
        self._fleet: FleetConfig | None = None
        self._due_s = 0.0
        self._etag: str | None = None
        self._failures, self._told = 0, ""
        self._line: Line | None = None
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._live, name="asker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._off.set()
        if (line := self._line) is not None:
            line.cut_off()
        self._thread.join(END_WITHIN_S)

    def _live(self) -> None:
        while not self._off.wait(TICK_S):
            try:
                self.turn()
            except Exception:  # what is wanted comes over MQTT as before
                log.exception("Asking the fleet's server broke; report this as a bug.")
                self._off.wait(MOST_S)

    def turn(self) -> None:
        """Ask, if it is time to. From one thread."""
        since_s, fleet = self._away_since_s(), self._config().fleet
        if since_s != self._since_s or fleet != self._fleet:  # what the server said is not the last word any more
            self._since_s, self._fleet = since_s, fleet
            self._etag, self._failures, self._told = None, 0, ""
            self._due_s = 0.0 if since_s is None else since_s + AWAY_S + SPREAD_S * self._dice()
        if since_s is None or fleet is None or self._clock() < self._due_s:
            return
        try:
            self._ask(fleet)
            self._failures = 0
        except DeviceError as error:
            self._failures += 1
            self._say(logging.WARNING, str(error))
        self._due_s = self._clock() + pause_s(self._failures, self._dice())

    def _ask(self, fleet: FleetConfig) -> None:
        """Ask once.

        Raises:
            DeviceError: there is no answer of use.
        """
        from tinysight_edge.update.fleet_http import desired, open_line  # noqa: PLC0415 -- the agent starts without

        with open_line(fleet) as line:
            self._line = line
            try:
                said = desired(line, fleet, *self._me, etag=self._etag)
            finally:
                self._line = None
        if self._off.is_set() or said.same:
            return
        self._etag = said.etag
        if said.payload is None:
            self._say(logging.INFO, f"{fleet.url}: nothing is desired there; what the broker said last holds.")
            return
        self._say(logging.INFO, f"{fleet.url}: the broker is away, and revision {said.revision} is desired.")
        self._take(said.payload)

    def _say(self, level: int, what: str) -> None:
        """Once, until something else is to be said."""
        if what != self._told and not self._off.is_set():
            log.log(level, "%s", what)
        self._told = what
