"""What is known of each device by what the broker keeps, and by what comes since.

In: messages of a `Client`, session after session.  Out: `Facts` by site and device. What is wanted and who is online is
of this session alone: a broker that was started again may have lost it. What a device has reported stays until it
reports anew. Only what was heard of is worked out again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.client import Client, Stream, connect
from tinysight_contract.fleet import Device, Heard
from tinysight_contract.messages import Desired, State
from tinysight_deploy.fleet.control.publishing import HIGHEST
from tinysight_deploy.fleet.types import Facts, Key

__all__ = ["KINDS", "MAX_DEVICES", "QOS", "QUIET_S", "Hearing", "facts_of", "gather"]

log = logging.getLogger(__name__)

KINDS: Final = frozenset({t.StatusTopic, t.ReportedTopic, t.DesiredTopic, t.ModelTopic})
"""What a rollout is decided by."""
QOS: Final = 0
"""By which we hear: at 1 a broker drops what ten thousand devices have said, all of it at once, when we connect."""
QUIET_S: Final = 0.5
"""When nothing that was kept has come for so long, all of it has."""
RETURN_S: Final = 30.0
"""So long those are waited for who were online before the session was cut; a broker that forgets does not name them."""
MAX_DEVICES: Final = 100_000
"""Devices that are heard of, and of which something is remembered from one session to the next."""


def facts_of(device: Device) -> Facts:
    """What a device says of itself."""
    reported, model = device.reported, device.model
    facts = Facts(online=_online(device), desired=device.desired)
    if model is not None:
        mine = reported is not None and reported.bundle == model.bundle
        facts = replace(facts, metered=model.bundle, drift=model.drift if mine else None)
    if reported is None:
        return facts
    return replace(
        facts,
        active=reported.bundle,
        revision=reported.revision,
        state=reported.state,
        reason=reported.reason,
        due=reported.due_at is not None,
        update=reported.update,
    )


def _online(device: Device) -> bool | None:
    """Whether it is connected; None when that is not known: the last word may be a late will of an earlier boot."""
    if device.status is None or device.status.state is State.ONLINE:
        return device.online
    boot_id = None if device.reported is None else device.reported.boot_id
    return device.online if boot_id in {None, device.status.boot_id} else None


class Hearing:
    """What is known of all devices.

    Args:
        also: is told of every message, too.

    Attributes:
        facts: as `refresh` found them last; never changed, only replaced.
    """

    def __init__(self, also: Callable[[Heard], None] | None = None) -> None:
        self.facts: dict[Key, Facts] = {}
        self._also = also
        self._before: dict[Key, Facts] = {}
        self._wanted_before: dict[Key, Desired] = {}
        self._changed: set[Key] = set()
        self._devices: Mapping[Key, Device] = {}
        self._client: Client | None = None
        self._begun_s = self._retained_s = 0.0
        self._awaited: set[Key] = set()

    def begin(self, client: Client) -> Stream[Heard]:
        """Another session has begun; what is to be handed to `listen`. To be called before anything is awaited."""
        kept = list(self.facts.items())[-MAX_DEVICES:]
        if dropped := len(self.facts) - len(kept):
            log.warning("%d devices are forgotten, for more than %d were heard of", dropped, MAX_DEVICES)
        self._wanted_before |= {key: each.desired for key, each in kept if each.desired is not None}
        self._awaited = {key for key, each in kept if each.online}
        self._before = {key: replace(each, online=None, desired=None) for key, each in kept}
        self._wanted_before = {key: each for key, each in self._wanted_before.items() if key in self._before}
        self.facts = dict(self._before)
        self._changed.clear()
        self._client, self._devices, self._begun_s = client, client.fleet.devices, time.monotonic()
        self._retained_s = self._begun_s
        return client.messages()

    async def listen(self, stream: Stream[Heard]) -> None:
        """Note who is heard of, until the session is over."""
        async for heard in stream:
            if self._also is not None:
                self._also(heard)
            if heard.where is not None:
                key = heard.where.site, heard.where.device
                self._changed.add(key)
                if not heard.payload:
                    self._forget(key, heard.where)
            if heard.retained:
                self._retained_s = time.monotonic()

    def _forget(self, key: Key, where: t.Topic) -> None:
        """Somebody has cleared a topic: what it said in an earlier session does not count any more."""
        if isinstance(where, t.DesiredTopic):
            self._wanted_before.pop(key, None)
        elif isinstance(where, t.ReportedTopic | t.StatusTopic):
            self._before.pop(key, None)
            self._awaited.discard(key)

    def settled(self, *, quiet_s: float = QUIET_S) -> bool:
        """Whether all that the broker keeps has come, and who was cut off with us had the time to come back."""
        now_s = time.monotonic()
        if now_s - self._retained_s < quiet_s:
            return False
        told = {key for key in self._awaited if (each := self._devices.get(key)) is not None and each.status}
        self._awaited -= told
        return not self._awaited or now_s - self._begun_s >= RETURN_S

    def complete(self, patience_s: float) -> bool:
        """Whether nobody is to be expected of whom nothing was heard yet in this session.

        Nobody knows who was there before: a broker that was started again names those alone who have come back, and one
        that has much to tell pauses.

        Args:
            patience_s: so long they are waited for.
        """
        return time.monotonic() - self._begun_s >= patience_s

    @property
    def unkept(self) -> int:
        """Messages of this session of which nothing is known, because there are too many devices."""
        return 0 if self._client is None else self._client.fleet.unkept

    def refresh(self) -> set[Key]:
        """Bring the facts up to date; of whom they are others."""
        changed, self._changed = self._changed, set()
        facts = dict(self.facts)  # whoever reads the old one in another thread goes on
        for key in changed:
            device, before = self._devices.get(key), self._before.get(key)
            if device is not None:
                facts[key] = facts_of(device) if before is None else _over(before, facts_of(device), device)
                if device.desired is not None:
                    self._wanted_before.pop(key, None)
            elif before is not None:
                facts[key] = before
            else:
                facts.pop(key, None)
        self.facts = facts
        return changed

    def wanted(self, key: Key) -> Desired | None:
        """The newest desired state that is known; None for nothing."""
        facts = self.facts.get(key)
        return self._wanted_before.get(key) if facts is None or facts.desired is None else facts.desired

    def config(self, key: Key) -> dict[str, Any] | None:
        """What lies over a device's own file by the newest desired state that is known; None for nothing."""
        wanted = self.wanted(key)
        return None if wanted is None else wanted.config

    def config_lost(self, key: Key) -> bool:
        """Whether something lies over a device's own file that nobody here can say again."""
        facts, device = self.facts.get(key), self._devices.get(key)
        if facts is None or facts.desired is not None or key in self._wanted_before:
            return False
        return device is not None and device.reported is not None and device.reported.applied is not None

    def wanted_before(self, key: Key) -> int:
        """The revision that was wanted in an earlier session; 0 when one is known now, or that was made up."""
        wanted = self._wanted_before.get(key)
        return 0 if wanted is None or wanted.revision >= HIGHEST else wanted.revision


def _over(before: Facts, now: Facts, device: Device) -> Facts:
    """What is said now, and what was said before where that is nothing."""
    if device.reported is None:
        reported = {name: getattr(before, name) for name in ("active", "revision", "state", "reason", "due", "update")}
        now = replace(now, **reported)
    if device.model is None:
        now = replace(now, drift=before.drift, metered=before.metered)
    return now


async def gather(broker: str, *, site: str | None = None, seconds: float = 10.0) -> dict[Key, Facts]:
    """What the broker keeps of the devices. A warning is logged when that may not be all.

    Args:
        broker: its address, as `connect` takes it.
        site: of this site alone.
        seconds: at most so long; less when nothing more comes.

    Raises:
        ConfigError: the address cannot be read.
        ContractError: the site is not a valid id.
        BrokerError: nobody is there, or the broker refuses us.
    """
    hearing = Hearing()
    async with connect(broker, site=site, kinds=KINDS, qos=QOS, max_devices=MAX_DEVICES) as client:
        listening = asyncio.create_task(hearing.listen(hearing.begin(client)))
        try:
            until_s = time.monotonic() + seconds
            while not hearing.settled() and time.monotonic() < until_s:
                await asyncio.sleep(QUIET_S / 5)
            if not hearing.settled():
                log.warning("The broker had still more to tell after %g s: some devices may be unknown.", seconds)
        finally:
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening
        if hearing.unkept:
            log.warning("The broker tells of more than %d devices: some are unknown.", MAX_DEVICES)
        hearing.refresh()
        return hearing.facts
