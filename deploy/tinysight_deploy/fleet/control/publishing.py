"""From a wish to a retained `Desired`, and to the broker.

In: wishes that are written down.  Out: the documents, each of which may be sent any number of times: a device takes a
revision once. What the broker has not taken is tried again in a later turn. Nothing here decides whom to ask.
"""

import asyncio
import logging
import time
from collections.abc import Container, Iterable, Sequence
from typing import Any, Final

from tinysight_contract.client import Client
from tinysight_contract.errors import BrokerError
from tinysight_contract.messages import Desired, encode
from tinysight_deploy.fleet.types import Facts, Key, Rollout, Wish
from tinysight_edge.config.wanted import MAX_BYTES

__all__ = ["HIGHEST", "Sender", "document", "fits", "forged", "next_revision", "shown", "take_back"]

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


def fits(desired: Desired) -> bool:
    """Whether a device reads a document of that size; it refuses a longer one."""
    return desired.config is None or len(encode(desired)) <= MAX_BYTES


def take_back(wish: Wish, facts: Facts, config: dict[str, Any] | None, *, given: int = 0) -> Desired:
    """What is published to take a wish back: the device's model stays as it is.

    Args:
        wish: as it is written down.
        facts: of the device.
        config: that lies over the device's own file, and stays.
        given: the highest revision that a person's configuration was given.
    """
    return Desired(revision=next_revision(facts, [wish.revision, given]), config=config)


class Sender:
    """Publishes in the background, one document at a time for each device. Belongs to one session.

    Args:
        client: of the session.
        again_s: what the broker has taken and does not show is sent again after so long.

    Attributes:
        taken: by device, the highest revision that the broker has taken from us in this session.
        trouble: what it said when it last refused; empty when it did not since.
        ignored: devices of which the broker took a document and did not show it in time.
    """

    def __init__(self, client: Client, *, again_s: float) -> None:
        self.taken: dict[Key, int] = {}
        self.trouble = ""
        self.ignored: set[Key] = set()
        self._client, self._again_s = client, again_s
        self._taken_s: dict[Key, tuple[int, float]] = {}
        self._under_way: dict[Key, asyncio.Task[None]] = {}

    def send(self, key: Key, desired: Desired) -> None:
        """Publish soon, unless something for that device is under way, or it was just taken."""
        before, at_s = self._taken_s.get(key, (-1, 0.0))
        if key in self._under_way or len(self._under_way) >= AT_ONCE:
            return
        if before == desired.revision:
            if time.monotonic() < at_s + self._again_s:
                return
            self.ignored.add(key)
        self._begin(key, desired)

    def clear(self, key: Key, restored: Desired | None) -> bool:
        """Have the broker and a device forget a revision, and say at once what else is wanted; whether that is done."""
        if key in self._under_way or len(self._under_way) >= AT_ONCE:
            return False
        self.taken.pop(key, None)
        self._begin(key, None, *([] if restored is None else [restored]))
        return True

    def keep_ignored(self, keys: Container[Key]) -> None:
        """What is shown, or wanted no more, is not ignored."""
        self.ignored = {key for key in self.ignored if key in keys}

    async def stop(self) -> None:
        """Send nothing more; what is just under way may still arrive."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, key: Key, *documents: Desired | None) -> None:
        task = self._under_way[key] = asyncio.create_task(self._send(key, documents))
        task.add_done_callback(lambda _: self._under_way.pop(key, None))

    async def _send(self, key: Key, documents: Sequence[Desired | None]) -> None:
        revision = 0 if documents[-1] is None else documents[-1].revision
        sent = [self._client.desire(*key, each, within_s=TAKEN_WITHIN_S) for each in documents]
        try:
            await asyncio.gather(*sent)  # one right after another: nothing may come between
        except BrokerError as error:
            if not self.trouble:
                log.warning("%s/%s: %s", *key, error)
            self.trouble = str(error)
        else:
            self.trouble = ""
            self.taken[key] = max(self.taken.get(key, 0), revision)
            self._taken_s[key] = revision, time.monotonic()
