"""Devices that nobody may ask, because of what the broker keeps: a wish would be passed over, or do harm.

In: what is known of the devices.  Out: who they are, with the reason; a revision that was made up is cleared when the
device is to be asked, and what lay over its configuration is said again at once.
"""

import time
from collections.abc import Iterable, Set
from typing import Final

from tinysight_contract.messages import Desired
from tinysight_deploy.fleet.control.facts import MAX_DEVICES, Hearing
from tinysight_deploy.fleet.control.publishing import HIGHEST, Sender, forged
from tinysight_deploy.fleet.control.wishing import NOTHING
from tinysight_deploy.fleet.types import Key
from tinysight_edge.config.wanted import MAX_BYTES

__all__ = ["PASSES", "TOO_MANY", "Odd"]

MADE_UP: Final = "A revision was made up that no wish is above. It is cleared when it is to be asked and is online."
LIES: Final = "It goes on to tell a revision that nobody gave. See who has taken it; then start the controller again."
CONFIG_LOST: Final = "The broker has lost what lies over its configuration. Wish that again, or take it away there."
NEVER_REPORTED: Final = "It has not said what it runs: nobody knows what lies over its configuration. Start it again."
TOO_LONG: Final = f"Its configuration leaves no room for a wish in {MAX_BYTES:,} bytes. Shorten what is wanted of it."
TOO_MANY: Final = (
    f"The broker tells of more than {MAX_DEVICES:,} devices. Clear what nobody needs, and start the controller again."
)
PASSES: Final = frozenset({NEVER_REPORTED, TOO_LONG, TOO_MANY})
"""What a rollout waits for that has nobody else to ask."""
MOST_CLEARS: Final = 3
"""After so many, one that tells a made-up revision again is not asked any more."""


class Odd:
    """Who they are.

    Args:
        hearing: what is known of the devices.
        again_s: so long a device has to forget a revision that was made up.

    Attributes:
        reasons: by device.
        restoring: by device, what is wanted of it again once what was made up is cleared.
    """

    def __init__(self, hearing: Hearing, *, again_s: float) -> None:
        self.reasons: dict[Key, str] = {}
        self.restoring: dict[Key, Desired] = {}
        self._hearing, self._again_s = hearing, again_s
        self._clears: dict[Key, tuple[int, float]] = {}

    @property
    def lost(self) -> set[Key]:
        """Devices to which nothing can be said without taking their configuration from them."""
        return {key for key, why in self.reasons.items() if why == CONFIG_LOST}

    def note(self, changed: Iterable[Key]) -> None:
        """Look at those of whom something was heard."""
        for key in changed:
            facts = self._hearing.facts.get(key, NOTHING)
            if forged(facts):
                self.reasons[key] = MADE_UP
            elif self._hearing.config_lost(key):
                self.reasons[key] = CONFIG_LOST
            elif facts.online is not None and facts.state is None:
                self.reasons[key] = NEVER_REPORTED
            else:
                self.reasons.pop(key, None)

    def note_long(self, keys: Iterable[Key]) -> None:
        """For these a wish would be too long, until something else is heard of them."""
        self.reasons |= dict.fromkeys(keys, TOO_LONG)

    def held(self, members: Set[Key]) -> dict[Key, str]:
        """Who must not be asked, whichever the rollout; not those that can be made to forget what was made up."""
        facts, held = self._hearing.facts, dict(self.reasons)
        for key in members & self.reasons.keys():
            if self.reasons[key] == MADE_UP and facts.get(key, NOTHING).online:
                if self._clears.get(key, (0, 0.0))[0] < MOST_CLEARS:
                    del held[key]
                else:
                    held[key] = LIES
        if self._hearing.unkept:
            held |= dict.fromkeys(members - facts.keys(), TOO_MANY)
        return held

    def clear(self, keys: Iterable[Key], sender: Sender) -> None:
        """Have devices that are to be asked, and the broker, forget revisions that were made up."""
        now_s = time.monotonic()
        for key in [key for key in keys if self.reasons.get(key) == MADE_UP]:
            times, again_s = self._clears.get(key, (0, 0.0))
            config = self._hearing.config(key)
            restored = self.restoring.get(key) or (None if config is None else Desired(revision=1, config=config))
            if now_s >= again_s and sender.clear(key, restored):
                self._clears[key] = times + 1, now_s + self._again_s
                if restored is not None:
                    self.restoring[key] = restored

    def restore(self, sender: Sender) -> None:
        """Say again what is wanted of devices for which the broker shows nothing after a clear."""
        for key, restored in list(self.restoring.items()):
            wanted = self._hearing.facts.get(key, NOTHING).desired
            if wanted is None:
                sender.send(key, restored)
            elif wanted.revision < HIGHEST:
                del self.restoring[key]
