"""Devices that nobody may ask, because of what the broker keeps: a wish would be passed over, or do harm.

In: what is known of the devices.  Out: who they are, with the reason; a revision that was made up is cleared.
"""

from collections.abc import Iterable, Set
from typing import Final

from tinysight_deploy.fleet.facts import Hearing
from tinysight_deploy.fleet.publishing import HIGHEST, Sender, forged
from tinysight_deploy.fleet.types import Key
from tinysight_deploy.fleet.wishing import NOTHING

__all__ = ["Odd"]

MADE_UP: Final = "A revision was made up that no wish is above. It is cleared as soon as the device is online."
CONFIG_LOST: Final = "The broker has lost what lies over its configuration. Wish that again, or take it away there."


class Odd:
    """Who they are.

    Args:
        hearing: what is known of the devices.

    Attributes:
        reasons: by device.
    """

    def __init__(self, hearing: Hearing) -> None:
        self.reasons: dict[Key, str] = {}
        self._hearing = hearing

    @property
    def lost(self) -> set[Key]:
        """Devices to which nothing can be said without taking their configuration from them."""
        return {key for key, why in self.reasons.items() if why == CONFIG_LOST}

    def note(self, changed: Iterable[Key]) -> None:
        """Look at those of whom something was heard."""
        for key in changed:
            if forged(self._hearing.facts.get(key, NOTHING)):
                self.reasons[key] = MADE_UP
            elif self._hearing.config_lost(key):
                self.reasons[key] = CONFIG_LOST
            else:
                self.reasons.pop(key, None)

    def clear(self, keys: Set[Key], sender: Sender) -> None:
        """Have devices and the broker forget revisions that were made up; a device must be there for that."""
        for key in [key for key in self.reasons.keys() & keys if self.reasons[key] == MADE_UP]:
            facts = self._hearing.facts.get(key, NOTHING)
            kept = facts.desired
            if kept is not None and kept.revision < HIGHEST and facts.online:
                self._hearing.remember_wanted(key)
            if facts.online or (kept is not None and kept.revision >= HIGHEST):
                sender.send(key, None)
