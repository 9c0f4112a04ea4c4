"""From a wish to a retained `Desired`, and to the broker.

In: wishes that are written down.  Out: the documents, each of which may be sent any number of times: a device takes a
revision once. What the broker has not taken is tried again in a later turn. Nothing here decides whom to ask.
"""

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any, Final

from tinysight_contract.client import Client
from tinysight_contract.errors import BrokerError
from tinysight_contract.messages import Desired
from tinysight_deploy.fleet.types import Facts, Key, Rollout, Wish

__all__ = ["HIGHEST", "Sender", "document", "forged", "next_revision", "shown", "take_back"]

log = logging.getLogger(__name__)

HIGHEST: Final = 1 << 52
"""No operator comes so far; a revision from here on was made up, and would keep every later wish out."""
AT_ONCE: Final = 1000
TAKEN_WITHIN_S: Final = 10.0


def forged(facts: Facts) -> bool:
    """Whether a revision was made up that no later one is above."""
    return facts.revision >= HIGHEST or (facts.desired is not None and facts.desired.revision >= HIGHEST)


def next_revision(facts: Facts, known: Iterable[int] = ()) -> int:
    """The revision of the next wish: above all that the device, the broker, or somebody else knows.

    Args:
        facts: of the device; nothing in them is `forged`.
        known: other revisions that were given.
    """
    desired = 0 if facts.desired is None else facts.desired.revision
    return max(facts.revision, desired, *known, 0) + 1


def shown(facts: Facts, revision: int) -> bool:
    """Whether the broker keeps this wish or a later one."""
    return facts.desired is not None and facts.desired.revision >= revision


def document(rollout: Rollout, wish: Wish, config: dict[str, Any] | None) -> Desired:
    """What is published for a wish.

    Args:
        rollout: that it belongs to.
        wish: as it is written down.
        config: that lies over the device's own file, and stays.
    """
    return Desired(
        revision=wish.revision,
        bundle=rollout.bundle,
        target=rollout.target,
        rollout=rollout.id,
        window=rollout.policy.window,
        config=config,
    )


def take_back(wish: Wish, facts: Facts, config: dict[str, Any] | None) -> Desired:
    """What is published to take a wish back: the device's model stays as it is."""
    return Desired(revision=next_revision(facts, [wish.revision]), config=config)


class Sender:
    """Publishes in the background, one document at a time for each device. Belongs to one session.

    Args:
        client: of the session.
        again_s: what the broker has taken and does not show is sent again after so long.

    Attributes:
        taken: by device, the highest revision that the broker has taken from us in this session.
        trouble: what it said when it last refused; empty when it did not since.
    """

    def __init__(self, client: Client, *, again_s: float) -> None:
        self.taken: dict[Key, int] = {}
        self.trouble = ""
        self._client, self._again_s = client, again_s
        self._taken_s: dict[Key, tuple[int, float]] = {}
        self._under_way: dict[Key, asyncio.Task[None]] = {}

    def send(self, key: Key, desired: Desired | None) -> None:
        """Publish soon, unless something for that device is under way, or it was just taken; None clears the topic."""
        revision = 0 if desired is None else desired.revision
        before, at_s = self._taken_s.get(key, (-1, 0.0))
        if key in self._under_way or len(self._under_way) >= AT_ONCE:
            return
        if before == revision and time.monotonic() < at_s + self._again_s:
            return
        task = self._under_way[key] = asyncio.create_task(self._send(key, desired, revision))
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def stop(self) -> None:
        """Send nothing more; what is just under way may still arrive."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self, key: Key, desired: Desired | None, revision: int) -> None:
        try:
            await self._client.desire(*key, desired, within_s=TAKEN_WITHIN_S)
        except BrokerError as error:
            if not self.trouble:
                log.warning("%s/%s: %s", *key, error)
            self.trouble = str(error)
        else:
            self.trouble = ""
            self.taken[key] = max(self.taken.get(key, 0), revision)
            self._taken_s[key] = revision, time.monotonic()
