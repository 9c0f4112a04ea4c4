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
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from tinysight_contract.client import Client, connect
from tinysight_contract.errors import BrokerError, ConfigError, FleetError, TinySightError
from tinysight_contract.messages import utc_now
from tinysight_deploy.fleet.decide import decide
from tinysight_deploy.fleet.facts import KINDS, QOS, QUIET_S, Hearing
from tinysight_deploy.fleet.judge import settled
from tinysight_deploy.fleet.leading import Books
from tinysight_deploy.fleet.members import Roll
from tinysight_deploy.fleet.mirror import Mirror
from tinysight_deploy.fleet.odd import Odd
from tinysight_deploy.fleet.operate import OVER
from tinysight_deploy.fleet.publishing import Sender, document, take_back
from tinysight_deploy.fleet.state import State
from tinysight_deploy.fleet.types import Change, Decision, Facts, Key, Phase, Rollout, Wish
from tinysight_deploy.fleet.wishing import (
    NOTHING,
    ended,
    found,
    held_back,
    is_last,
    named,
    new_wishes,
    unsent,
    unshown,
)

__all__ = ["Controller"]

log = logging.getLogger(__name__)

TURN_S: Final = 1.0
PATIENCE_TURNS: Final = 10
LONGEST_TURN: Final = 2
"""Turns; a clock goes on by no more at once, so that a machine that was asleep calls nobody silent."""
AGAIN_TURNS: Final = 5
"""After so many, what the broker has taken and does not show is sent again."""
RETRY_S: Final = 5.0


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
        self._hearing, self._roll = Hearing(), Roll(inventory)
        self._books = Books(state, holder)
        self._decisions: dict[str, Decision] = {}
        self._held: dict[str, dict[Key, str]] = {}
        self._odd = Odd(self._hearing)
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

    async def run(self) -> None:
        """Lead, or wait to, until it is cancelled; outages of the broker and of the database are waited for.

        Raises:
            ConfigError: the broker's address cannot be read.
        """
        try:
            while True:
                try:
                    async with connect(self._broker, kinds=KINDS, qos=QOS) as client:
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
            self._hears = False
            listening.cancel()
            await sender.stop()
            with suppress(asyncio.CancelledError):
                await listening

    async def _leave(self) -> None:
        """Let the next one lead at once."""
        if (lead := self._books.lead) is not None:
            with suppress(FleetError):
                await asyncio.to_thread(self._state.leave, lead)
        self._books.drop()

    async def _turn(self, sender: Sender) -> None:
        """Look once: decide, write it down, send. Whatever fails is looked at anew in the next turn."""
        self._odd.note(self._hearing.refresh())
        now_s = time.monotonic()
        try:
            if not await asyncio.to_thread(self._books.open, now_s):
                await self._stand_by(sender, "")
                return
            passed_s = 0.0 if self._last_s is None else min(now_s - self._last_s, LONGEST_TURN * self._turn_s)
            self._last_s, trouble = now_s, ""
            for rollout in list(self._books.rollouts.values()):
                try:
                    members = self._members(rollout)
                except ConfigError as error:
                    trouble = f"{rollout.id}: {error}"
                else:
                    await self._go_on(replace(rollout, clock_s=rollout.clock_s + passed_s), members, sender)
            self._send(sender)
        except TinySightError as error:
            await self._stand_by(sender, str(error))
        else:
            self._say(trouble or await self._copy() or sender.trouble)

    async def _copy(self) -> str:
        """Copy what is new in the audit log; why that is not possible, or nothing. It holds up no rollout."""
        if self._mirror is not None:
            try:
                await asyncio.to_thread(self._mirror.append, self._state)
            except FleetError as error:
                return str(error)
        return ""

    async def _stand_by(self, sender: Sender, why: str) -> None:
        """Send nothing: another leads, or nobody knows what was written."""
        self._books.drop()
        self._decisions.clear()
        self._held.clear()
        self._last_s = None
        self._say(why)
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
        facts, wishes = self._hearing.facts, self._books.wishes[rollout.id]
        if rollout.phase in OVER:
            await self._end(rollout, sender)
            return
        if rollout.id in self._books.fresh and rollout.phase is Phase.RUNNING:
            self._books.fresh.discard(rollout.id)
            if missing := found(rollout, wishes, facts):
                log.warning("%s: the broker keeps %d wishes that the state has lost", rollout.id, len(missing))
                await asyncio.to_thread(self._books.ask, rollout.id, missing)
        held = self._held[rollout.id] = held_back(rollout, self._books, self._odd.reasons, utc_now())
        mute = self._odd.reasons.keys() & (members - wishes.keys()) if is_last(rollout) else set()  # it would wait on
        decision = decide(rollout, members - mute, facts, wishes, held, now_s=rollout.clock_s)
        decision = self._decisions[rollout.id] = named(decision, mute)
        self._odd.clear(members, sender)
        asked = new_wishes(rollout, decision.ask, facts, self._books)
        await asyncio.to_thread(self._write, rollout, members, decision, asked, sender)

    def _write(
        self, rollout: Rollout, members: set[Key], decision: Decision, asked: Mapping[Key, Wish], sender: Sender
    ) -> None:
        """Write down what was decided, before anything of it is done; waits for the database.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        books, change, now_s = self._books, decision.change, rollout.clock_s
        books.tick(rollout.id, now_s)
        wishes = books.wishes[rollout.id]
        judged = {key: settled(wishes[key], verdict, now_s=now_s) for key, verdict in decision.verdicts.items()}
        if news := {key: wish for key, wish in judged.items() if wish is not wishes[key]}:
            books.settle(rollout.id, news)
        if change is not None and not self._too_early(change, members, wishes, sender):
            books.change(rollout, change)
        if asked:
            books.ask(rollout.id, asked)

    def _too_early(self, change: Change, members: set[Key], wishes: Mapping[Key, Wish], sender: Sender) -> bool:
        """Whether a stage would be passed of which not all have been heard, or wishes would be left unsent."""
        if change.phase is Phase.DONE and unsent(wishes, self.facts, sender.taken):
            return True
        return change.what in {"stage", "done"} and not (members and self._hearing.complete(self._patience_s))

    def _send(self, sender: Sender) -> None:
        """Send what is written down and the broker does not show."""
        lost = self._odd.lost
        for key, (rollout, wish) in unshown(self._books, self._hearing.facts).items():
            if key not in lost:
                sender.send(key, document(rollout, wish, self._hearing.config(key)))

    async def _end(self, rollout: Rollout, sender: Sender) -> None:
        """Take back what was asked for and may still be done.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        facts = self._hearing.facts
        news, back = ended(rollout, self._books.wishes[rollout.id], facts, self._odd.lost)
        for key, wish in back.items():
            sender.send(key, take_back(wish, facts.get(key, NOTHING), self._hearing.config(key)))
        if news:
            await asyncio.to_thread(self._books.settle, rollout.id, news)
