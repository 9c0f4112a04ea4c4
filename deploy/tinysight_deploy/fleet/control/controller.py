"""The controller: reads all that the broker keeps, has `decide` say what is to be done, writes it down, and sends it.

In: a `State`, a broker.  Out: retained `desired` documents. START HERE: `Controller.run`, `_turn`.

Nothing depends on what was done before: every turn begins with what the state and the broker say now. So a controller
may be killed at any moment and another goes on. A wish is written down before it is sent, and what the broker does not
show is sent again, under the same revision. Only the leader writes and sends. The rollouts' clocks run while it leads
and hears the broker; no other clock decides anything, but for the penalty box, which is coarse.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tinysight_contract.client import Client, connect
from tinysight_contract.errors import (
    BrokerError,
    ConfigError,
    FleetError,
    NoSuch,
    NotLeading,
    StateGone,
    TinySightError,
)
from tinysight_contract.messages import Ack, utc_now
from tinysight_deploy.fleet.control.commanding import Orders
from tinysight_deploy.fleet.control.configuring import Configs
from tinysight_deploy.fleet.control.facts import KINDS, MAX_DEVICES, QOS, QUIET_S, Hearing
from tinysight_deploy.fleet.control.leading import Books
from tinysight_deploy.fleet.control.members import Roll
from tinysight_deploy.fleet.control.odd import PASSES, TOO_MANY, Odd
from tinysight_deploy.fleet.control.operate import OVER
from tinysight_deploy.fleet.control.publishing import Sender, document, fits, take_back
from tinysight_deploy.fleet.control.wishing import (
    NOTHING,
    ended,
    found,
    held_back,
    is_last,
    named,
    new_wishes,
    reached,
    unsent,
    unshown,
)
from tinysight_deploy.fleet.deciding.decide import decide
from tinysight_deploy.fleet.deciding.judge import settled
from tinysight_deploy.fleet.keeping.lease import LEASE_S
from tinysight_deploy.fleet.keeping.mirror import Mirror
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Change, Decision, Facts, Key, Phase, Rollout, Wish

__all__ = ["Controller"]

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
PATIENCE_TURNS: Final = 10
LONGEST_TURN: Final = 2
"""Turns; a clock goes on by no more at once, so that a machine that was asleep calls nobody silent."""
AGAIN_TURNS: Final = 5
"""After so many, what the broker has taken and does not show is sent again."""
RETRY_S: Final = 5.0
CLEAR_TURNS: Final = 10
"""So long a device has to forget a revision that was made up."""
COPY_S: Final = LEASE_S / 4
"""So long what was written is not sent, for it to be in the copy of the audit log as well."""
MOST_TROUBLES: Final = 3  # that are told at once
NOT_SHOWN: Final = "It does not show that: check the role of the controller's account there (`desired`: write, read)."


class Controller:
    """Leads the rollouts of a state, or waits to.

    Args:
        state: where they are kept.
        broker: its address, as `connect` takes it.
        holder: names this controller: another name in each process.
        inventory: of the groups; None without one.
        mirror: where the audit log is copied to; None for nowhere.
        turn_s: how often it looks.
        patience_s: no stage is passed before it has heard the broker for so long: devices may be about to come back;
            None for ten turns.

    Attributes:
        trouble: why nothing is done now, with what to do; empty when all is well.
    """

    def __init__(
        self,
        state: State,
        broker: str,
        *,
        holder: str,
        inventory: Path | None = None,
        mirror: Mirror | None = None,
        turn_s: float = TURN_S,
        patience_s: float | None = None,
    ) -> None:
        self.trouble = ""
        self._state, self._broker, self._mirror, self._turn_s = state, broker, mirror, turn_s
        self._patience_s = PATIENCE_TURNS * turn_s if patience_s is None else patience_s
        self._orders = Orders(self._note)
        self._hearing, self._roll = Hearing(self._orders.hear), Roll(inventory)
        self._configs = Configs(self._hearing, self._note)
        self._books = Books(state, holder)
        self._decisions: dict[str, Decision] = {}
        self._held: dict[str, dict[Key, str]] = {}
        self._odd = Odd(self._hearing, again_s=CLEAR_TURNS * turn_s)
        self._copying: asyncio.Task[int] | None = None
        self._last_s: float | None = None
        self._hears = False

    @property
    def facts(self) -> Mapping[Key, Facts]:
        """What is known of the devices now."""
        return self._hearing.facts

    @property
    def hears(self) -> bool:
        """Whether it is connected, and has heard all that the broker keeps."""
        return self._hears

    @property
    def leading(self) -> bool:
        """Whether this controller leads."""
        return self._books.lead is not None

    def decision(self, id_: str) -> Decision | None:
        """What was decided of a rollout last; None while this controller does not lead it."""
        return self._decisions.get(id_)

    def held(self, id_: str) -> Mapping[Key, str]:
        """The devices that a rollout does not ask, whatever its stage, and why."""
        return self._held.get(id_, {})

    async def order(
        self, key: Key, name: str, args: Mapping[str, Any], *, within_s: float, who: str
    ) -> tuple[str, Ack | None, float]:
        """Have a device do something once; arguments, result and errors as those of `Orders.give`.

        Raises:
            NoSuch: nothing was ever heard of the device.
            NotLeading: another controller leads.
        """
        self._require(key)
        return await self._orders.give(key, name, args, within_s=within_s, who=who)

    async def configure(self, key: Key, config: dict[str, Any] | None, *, based_on: int, who: str) -> int:
        """Say what shall lie over a device's own file; arguments, result and errors as those of `Configs.put`.

        Raises:
            NoSuch: nothing was ever heard of the device.
            NotLeading: another controller leads.
        """
        self._require(key)
        return await self._configs.put(key, config, based_on=based_on, who=who)

    def _require(self, key: Key) -> None:
        """See that something can be said to a device now."""
        if not self._hears:
            raise BrokerError("The broker cannot be heard.", mend="Send it again when it is back: see /healthz.")
        if not self.leading:
            raise NotLeading("Another server leads.", mend="Ask the one whose /healthz says that it leads.")
        if key not in self.facts:
            what = f"Nothing was heard of a device {'/'.join(key)}."
            raise NoSuch(what, mend="Check the names in `tinysight watch`.")

    def _note(self, who: str, what: str, detail: Mapping[str, Any]) -> None:
        """Write down what is about to be sent, if we still lead; waits for the database."""
        if (lead := self._books.lead) is None:
            raise NotLeading("Another server leads since.", mend="Ask the one whose /healthz says that it leads.")
        self._state.note(who, what, detail, lead=lead)

    async def run(self) -> None:
        """Lead, or wait to, until it is cancelled; outages of the broker and of the database are waited for.

        Raises:
            ConfigError: the broker's address cannot be read.
        """
        try:
            while True:
                try:
                    async with connect(self._broker, kinds=KINDS, qos=QOS, max_devices=MAX_DEVICES) as client:
                        await self._session(client)
                except BrokerError as error:
                    self._say(str(error))
                self._last_s = None
                await asyncio.sleep(min(self._turn_s, RETRY_S))
        finally:
            await self._leave()

    async def _session(self, client: Client) -> None:
        """Until it is cut; then another is made, for what the broker kept may be gone."""
        listening = asyncio.create_task(self._hearing.listen(self._hearing.begin(client)))
        sender = Sender(client, again_s=AGAIN_TURNS * self._turn_s)
        self._orders.client = client
        try:
            while not client.cuts and client.trouble is None:
                begun_s = time.monotonic()
                if self._hearing.settled(quiet_s=min(QUIET_S, AGAIN_TURNS * self._turn_s)):
                    await self._turn(sender)
                    self._hears = True
                if listening.done():
                    listening.result()
                await asyncio.sleep(max(self._turn_s - (time.monotonic() - begun_s), 0.0))
            self._say("The broker has gone; it is tried again.")
        finally:
            self._hears, self._orders.client = False, None
            self._configs.stop("The broker has gone.")
            listening.cancel()
            await sender.stop()
            with suppress(asyncio.CancelledError):
                await listening

    async def _leave(self) -> None:
        """Let the next one lead at once."""
        if self._copying is not None:
            await asyncio.wait({self._copying}, timeout=COPY_S)
            self._copying.cancel()
            with suppress(asyncio.CancelledError, TinySightError):
                await self._copying
        if (lead := self._books.lead) is not None:
            with suppress(FleetError):
                await asyncio.to_thread(self._state.leave, lead)
        self._books.drop()

    async def _turn(self, sender: Sender) -> None:
        """Look once: decide, write it down, send. Whatever fails is looked at anew in the next turn."""
        self._odd.note(self._hearing.refresh())
        now_s, troubles = time.monotonic(), []
        try:
            if not await asyncio.to_thread(self._books.open, now_s):
                await self._stand_by(sender, "")
                return
            passed_s = 0.0 if self._last_s is None else min(now_s - self._last_s, LONGEST_TURN * self._turn_s)
            self._last_s = now_s
            await asyncio.to_thread(self._books.tick, passed_s)
            for rollout in list(self._books.rollouts.values()):
                try:
                    members = self._members(rollout)
                except ConfigError as error:
                    troubles.append(f"{rollout.id}: {error}")
                    continue
                try:
                    await self._go_on(rollout, members, sender)
                except (NotLeading, StateGone):
                    raise
                except TinySightError as error:  # the others go on
                    troubles.append(f"{rollout.id}: {error}")
                    self._books.forget(rollout.id)
            troubles.append(await self._copy())
            self._odd.note(self._hearing.refresh())  # somebody may have wished for something while we wrote
            complete = self._hearing.complete(self._patience_s)
            await self._configs.turn(self._books, self._odd, sender, complete=complete)
            self._send(sender)
        except TinySightError as error:
            await self._stand_by(sender, str(error))
        else:
            unkept, ignored = self._hearing.unkept, len(sender.ignored)
            told = [
                f"{unkept} messages were not kept. {TOO_MANY}" if unkept else "",
                f"The broker took what is wanted of {ignored} devices. {NOT_SHOWN}" if ignored else "",
                sender.trouble,
                *troubles,
            ]
            self._say(" ".join([each for each in told if each][:MOST_TROUBLES]))

    async def _copy(self) -> str:
        """Copy what is new in the audit log, before it is acted on; why that is not done, or nothing.

        It holds up no rollout: a copy that takes long goes on beside it.
        """
        if self._mirror is None:
            return ""
        until_s, last = time.monotonic() + COPY_S, False
        while not last:
            if self._copying is None:
                self._copying, last = asyncio.create_task(asyncio.to_thread(self._mirror.append, self._state)), True
            await asyncio.wait({self._copying}, timeout=max(until_s - time.monotonic(), 0.0))
            if not self._copying.done():
                return f"The copy of the audit log is late. See whether the disk of {self._mirror.path} is well."
            copied, self._copying = self._copying, None
            try:
                copied.result()
            except TinySightError as error:
                return str(error)
        return ""

    async def _stand_by(self, sender: Sender, why: str) -> None:
        """Send nothing: another leads, or nobody knows what was written."""
        self._books.drop()
        self._decisions.clear()
        self._held.clear()
        self._last_s = None
        self._say(why)
        self._configs.stop(why or "This server does not lead any more.")
        await sender.stop()

    def _say(self, trouble: str) -> None:
        if trouble and trouble != self.trouble:
            log.warning("%s", trouble)
        elif self.trouble and not trouble:
            log.info("all is well again")
        self.trouble = trouble

    def _members(self, rollout: Rollout) -> set[Key]:
        """Whom a rollout is for: of one that takes another back, those that run what that brought, and who was asked.

        Raises:
            ConfigError: the inventory cannot be read, or has no such group.
        """
        facts, asked = self._hearing.facts, self._books.wishes[rollout.id].keys()
        if rollout.phase in OVER:
            return set(asked)
        if rollout.reverts is None:
            return self._roll.members(rollout.group, facts) | asked
        bundle, keys = self._books.brought.get(rollout.id, ("", frozenset()))
        return {key for key in keys if key in facts and facts[key].active == bundle} | asked

    async def _go_on(self, rollout: Rollout, members: set[Key], sender: Sender) -> None:
        """One rollout's turn.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        facts, wishes, books = self._hearing.facts, self._books.wishes[rollout.id], self._books
        if rollout.phase in OVER:
            await self._end(rollout, sender)
            return
        complete = self._hearing.complete(self._patience_s)
        if rollout.id in books.fresh and rollout.phase is Phase.RUNNING:
            if complete:
                books.fresh.discard(rollout.id)
            if missing := found(rollout, wishes, facts):
                log.warning("%s: the broker keeps %d wishes that the state has lost", rollout.id, len(missing))
                await asyncio.to_thread(books.ask, rollout.id, missing)
        odd = self._odd.held(members)
        held = self._held[rollout.id] = held_back(rollout, members, books, odd, utc_now())
        never = {key for key, why in odd.items() if why not in PASSES} if is_last(rollout) else set()
        mute = never & (members - wishes.keys())  # it would wait on
        decision = decide(rollout, members - mute, facts, wishes, held, now_s=rollout.clock_s)
        decision = self._decisions[rollout.id] = named(decision, mute)
        asked = self._asked(rollout, decision.ask, sender) if complete else {}
        await asyncio.to_thread(self._write, rollout, members, decision, asked, sender)

    def _asked(self, rollout: Rollout, keys: Iterable[Key], sender: Sender) -> dict[Key, Wish]:
        """The wishes for devices that are to be asked; one that has to forget something first gets none yet."""
        hearing, odd, busy = self._hearing, self._odd, self._configs.busy
        odd.clear(keys, sender)
        ready = [key for key in keys if key not in odd.restoring and key not in busy]
        asked = new_wishes(rollout, ready, hearing.facts, self._books, self._wanted)
        long = {key for key, wish in asked.items() if not fits(document(rollout, wish, hearing.config(key)))}
        odd.note_long(long)
        return {key: wish for key, wish in asked.items() if key not in long}

    def _wanted(self, key: Key) -> int:
        """The highest revision that was wanted of a device, of which the broker may show nothing."""
        return max(self._hearing.wanted_before(key), self._configs.given(key))

    def _write(
        self, rollout: Rollout, members: set[Key], decision: Decision, asked: Mapping[Key, Wish], sender: Sender
    ) -> None:
        """Write down what was decided, before anything of it is done; waits for the database.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        books, change, facts = self._books, decision.change, self._hearing.facts
        wishes, news = books.wishes[rollout.id], {}
        for key, verdict in decision.verdicts.items():
            wish = wishes[key]
            now = settled(wish, verdict, now_s=rollout.clock_s)
            if now is not wish and (now := reached(wish, now, facts.get(key, NOTHING))) is not wish:
                news[key] = now
        if news:
            books.settle(rollout.id, news, {key: decision.verdicts[key].reason for key in news})
        if change is not None and not self._too_early(change, members, wishes, sender):
            books.change(rollout, change)
        if asked:
            books.ask(rollout.id, asked)

    def _too_early(self, change: Change, members: set[Key], wishes: Mapping[Key, Wish], sender: Sender) -> bool:
        """Whether a stage would be passed of which not all have been heard, or wishes would be left unsent."""
        if change.phase is Phase.DONE and unsent(wishes, self.facts, sender.taken):
            return True
        known = members and not self._hearing.unkept and self._hearing.complete(self._patience_s)
        return change.what in {"stage", "done"} and not known

    def _send(self, sender: Sender) -> None:
        """Send what is written down and the broker does not show."""
        hearing, odd, lost = self._hearing, self._odd, self._odd.lost
        odd.restore(sender)
        waiting = unshown(
            self._books, hearing.facts, lambda key: max(sender.taken.get(key, 0), hearing.wanted_before(key))
        )
        busy = self._configs.busy
        for key, (rollout, wish) in waiting.items():
            if key not in lost and key not in odd.restoring and key not in busy:
                sender.send(key, document(rollout, wish, hearing.config(key)))
        sender.keep_ignored(waiting.keys() | odd.restoring.keys())

    async def _end(self, rollout: Rollout, sender: Sender) -> None:
        """Take back what was asked for and may still be done.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        self._odd.note(self._hearing.refresh())
        facts, busy = self._hearing.facts, self._configs.busy
        news, back = ended(rollout, self._books.wishes[rollout.id], facts, self._odd.lost)
        for key, wish in back.items():
            if key not in busy:
                config, given = self._hearing.config(key), self._configs.given(key)
                sender.send(key, take_back(wish, facts.get(key, NOTHING), config, given=given))
        if news:
            await asyncio.to_thread(self._books.settle, rollout.id, news)
