"""What lies over a device's own file, when a person says so: written by the turn that writes for rollouts, too.

In: a configuration, and the revision that it is based on.  Out: a retained `Desired` with all else as it was, under the
next revision. Only a turn of the leader sends, so no other wish can have the same revision: while one of these is not
shown by the broker, no rollout says anything to that device. Belongs to one event loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from tinysight_contract.errors import (
    BrokerError,
    ConfigError,
    FleetError,
    NotLeading,
    Outdated,
    StateGone,
    TinySightError,
    Unsure,
)
from tinysight_contract.messages import Desired
from tinysight_deploy.fleet.control.facts import Hearing
from tinysight_deploy.fleet.control.leading import Books
from tinysight_deploy.fleet.control.odd import Odd
from tinysight_deploy.fleet.control.operate import OVER
from tinysight_deploy.fleet.control.publishing import HIGHEST, Sender, fits, forged, next_revision, shown
from tinysight_deploy.fleet.control.wishing import NOTHING
from tinysight_deploy.fleet.types import Facts, Key, Outcome

__all__ = ["MAX_CONFIG_BYTES", "MOST_WAITING", "SHOWN_WITHIN_S", "Configs"]

MAX_CONFIG_BYTES: Final = 32 << 10
MOST_WAITING: Final = 64
"""Configurations that wait to be written at once."""
SHOWN_WITHIN_S: Final = 15.0
"""So long the controller and the broker have; then nobody waits any more. It begins when it has heard for ten turns."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """One that somebody waits for. ``sent`` is what was published for it."""

    key: Key
    config: dict[str, Any] | None
    based_on: int
    who: str
    done: asyncio.Future[int]
    sent: Desired | None = None


class Configs:
    """Those that wait to be written, and for the broker to show them.

    Args:
        hearing: what is known of the devices.
        note: writes an entry into the audit log, by who, what and detail; waits for the database, and is run in a
            thread.
    """

    def __init__(self, hearing: Hearing, note: Callable[[str, str, Mapping[str, Any]], object]) -> None:
        self._hearing, self._note = hearing, note
        self._waiting: list[_Waiting] = []
        self._given: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> set[Key]:
        """Devices to which a rollout must say nothing now."""
        return {each.key for each in self._waiting if each.sent is not None}

    def given(self, key: Key) -> int:
        """The highest revision that was given here to a device; 0 for none."""
        return self._given.get(key, 0)

    async def put(self, key: Key, config: dict[str, Any] | None, *, based_on: int, who: str) -> int:
        """Have a device's configuration written in the next turn; its revision, once the broker shows it.

        Args:
            key: of the device.
            config: as in `Desired`.
            based_on: the revision that is wanted by what whoever asks has seen; 0 for none.
            who: for the audit log.

        Raises:
            ConfigError: it is too long, or no JSON.
            Outdated: something else is wanted since.
            FleetError: it cannot be written as things are, or the audit log cannot.
            BrokerError: too many wait, or it was not sent.
            Unsure: the broker has not shown it.
        """
        _refuse_long(config)
        if len(self._waiting) >= MOST_WAITING:
            raise BrokerError(f"{MOST_WAITING} configurations wait.", mend="Send it again in a moment.")
        each = _Waiting(key, config, based_on, who, asyncio.get_running_loop().create_future())
        self._waiting.append(each)
        try:
            async with asyncio.timeout(SHOWN_WITHIN_S):
                return await each.done
        except TimeoutError:
            what = "was not sent" if each.sent is None else "was sent, and the broker does not show it"
            mend = "Read what is wanted before you send it again, and see /healthz."
            kind = BrokerError if each.sent is None else Unsure
            raise kind(f"The configuration {what} within {SHOWN_WITHIN_S:.0f} s.", mend=mend) from None
        finally:
            self._waiting.remove(each)

    async def turn(self, books: Books, odd: Odd, sender: Sender, *, complete: bool) -> None:
        """Write those that wait, and say so to those whose the broker shows. Of one device one after the other.

        Args:
            books: with all wishes.
            odd: devices that nobody may ask.
            sender: of the session.
            complete: all that the broker keeps is known; nothing is begun before.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        for each in list(self._waiting):
            known = self._hearing.facts.get(each.key, NOTHING)
            if each.done.done():
                continue
            if each.sent is None:
                if complete and each.key not in self.busy:
                    await self._begin(each, books, odd, sender)
            elif known.desired == each.sent:
                each.done.set_result(each.sent.revision)
            elif shown(known, each.sent.revision):
                each.done.set_exception(_outdated(each, known))
            else:
                sender.send(each.key, each.sent)

    def stop(self, why: str) -> None:
        """Nothing is sent any more: tell all who wait."""
        for each in self._waiting:
            if not each.done.done():
                sent, kind = ("was not sent", BrokerError) if each.sent is None else ("may have been sent", Unsure)
                mend = "Read what is wanted before you send it again."
                each.done.set_exception(kind(f"{why} The configuration {sent}.", mend=mend))

    async def _begin(self, each: _Waiting, books: Books, odd: Odd, sender: Sender) -> None:
        """Write one down, and send it; who waits is told why not.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        try:
            wish = self._wish(each, books, odd, sender)
            detail = {"site": each.key[0], "device": each.key[1], "revision": wish.revision, "config": wish.config}
            await asyncio.to_thread(self._note, each.who, "configure", {**detail, "based_on": each.based_on})
            odd.note(self._hearing.refresh())
            if self._wish(each, books, odd, sender) != wish:  # somebody has wished for something while we wrote
                raise _outdated(each, self._hearing.facts.get(each.key, NOTHING))
        except TinySightError as error:
            if not each.done.done():
                each.done.set_exception(error)
            if isinstance(error, NotLeading | StateGone):
                raise
            return
        if not each.done.done():
            each.sent, self._given[each.key] = wish, wish.revision
            sender.send(each.key, wish)

    def _wish(self, each: _Waiting, books: Books, odd: Odd, sender: Sender) -> Desired:
        """What is to be published.

        Raises:
            Outdated: something else is wanted than was seen.
            FleetError: it is not to be said now.
        """
        key, hearing = each.key, self._hearing
        known, name = hearing.facts.get(key, NOTHING), "/".join(key)
        if _revision(known) != each.based_on:
            raise _outdated(each, known)
        if forged(known) or key in odd.restoring:
            what = f"A revision of {name} was made up that no other is above."
            raise FleetError(what, mend="Clear its retained `desired`, start its agent again, and send it once more.")
        if busy := books.busy.get(key):
            mend = (
                "Wait until that is through, or abort it; a configuration that is refused would count as its failure."
            )
            raise FleetError(f"{name} is busy in {min(busy)}.", mend=mend)
        wishes = {id_: each[key] for id_, each in books.wishes.items() if key in each and id_ in books.rollouts}
        if any(
            wish.outcome is not Outcome.LEFT and not shown(known, wish.revision)
            for id_, wish in wishes.items()
            if books.rollouts[id_].phase not in OVER
        ):
            raise FleetError(f"A rollout says again what is wanted of {name}.", mend="Send it again in a moment.")
        others = [wish.revision for wish in wishes.values()]
        given = [hearing.wanted_before(key), sender.taken.get(key, 0), self.given(key)]
        before = hearing.wanted(key)
        if before is None or before.revision >= HIGHEST:
            before = Desired(revision=0)
        wish = replace(before, revision=next_revision(known, [*others, *given]), config=each.config)
        if not fits(wish):
            raise FleetError(f"{name} would not read so much.", mend="Shorten the configuration.")
        return wish


def _revision(facts: Facts) -> int:
    return 0 if facts.desired is None else facts.desired.revision


def _outdated(each: _Waiting, facts: Facts) -> Outdated:
    now, name = _revision(facts), "/".join(each.key)
    seen = each.based_on if each.sent is None else each.sent.revision
    what = f"Of {name} {f'revision {now}' if now else 'nothing'} is wanted now, and not revision {seen}."
    return Outdated(what, mend="Read what is wanted again, and say the change over that.", revision=now)


def _refuse_long(config: dict[str, Any] | None) -> None:
    """See that it is JSON of a size that leaves room for the rest.

    Raises:
        ConfigError: it is not.
    """
    try:
        size = len(msgspec.json.encode(config))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ConfigError(
            f"That is no configuration: {error}.", mend="Give text, numbers, lists and tables."
        ) from error
    if size > MAX_CONFIG_BYTES:
        what = f"The configuration has {size:,} bytes, more than {MAX_CONFIG_BYTES:,}."
        raise ConfigError(what, mend="Say only what differs from the device's own file.")
