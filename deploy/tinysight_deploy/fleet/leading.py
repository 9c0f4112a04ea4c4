"""What the leader keeps at hand of the state, so that ten thousand wishes are not read in every turn.

In: the `State`.  Out: rollouts as they are now, and wishes, which only the leader writes, as it left them. Whatever
fails is forgotten and read anew. Everything here waits for the database: call it in a thread, one call at a time.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from typing import Final

from tinysight_contract.messages import utc_now
from tinysight_deploy.fleet.decide import changed
from tinysight_deploy.fleet.lease import Lead
from tinysight_deploy.fleet.operate import OVER
from tinysight_deploy.fleet.rows import Boxed
from tinysight_deploy.fleet.state import State
from tinysight_deploy.fleet.types import Change, Key, Outcome, Phase, Rollout, Wish

__all__ = ["OPEN", "Books"]

OPEN: Final = frozenset({Outcome.AWAY, Outcome.GOING, Outcome.SILENT})
"""Outcomes of wishes that may still be fulfilled."""
BATCH: Final = 1000
"""Wishes that are written at once, and stand in one entry of the audit log."""
BOX: Final = timedelta(hours=24)
LONGEST_BOX: Final = timedelta(days=30)


class _OvertakenError(Exception):
    """Somebody has changed the rollout since it was decided; it is decided anew."""


class Books:
    """The state as the leader sees it.

    Args:
        state: where rollouts are kept.
        holder: names this controller.

    Attributes:
        lead: the right to write; None while another controller leads, or the state cannot be reached.
        rollouts: those that are not over, and aborted ones as long as there are wishes to take back.
        wishes: of each of these.
        boxed: the penalty box.
        fresh: rollouts whose wishes were just read.
        brought: by a rollout that takes another back, what that brought, and to whom.
    """

    def __init__(self, state: State, holder: str) -> None:
        self.lead: Lead | None = None
        self.rollouts: dict[str, Rollout] = {}
        self.wishes: dict[str, dict[Key, Wish]] = {}
        self.boxed: dict[Key, Boxed] = {}
        self.fresh: set[str] = set()
        self.brought: dict[str, tuple[str, frozenset[Key]]] = {}
        self._state, self._holder = state, holder
        self._over: set[str] = set()

    def drop(self) -> None:
        """Forget all; it is read anew."""
        self.lead = None
        for each in (self.rollouts, self.wishes, self.boxed, self.fresh, self.brought, self._over):
            each.clear()

    def open(self, now_s: float) -> bool:
        """Renew the lead, and read what has changed; whether we lead.

        Args:
            now_s: by a clock that only ever rises.

        Raises:
            FleetError: the state cannot be used.
        """
        lead = self._state.lead(self._holder, now_s=now_s)
        if lead is None or lead != self.lead:
            self.drop()
        self.lead = lead
        if lead is None:
            return False
        known = {rollout.id: rollout for rollout in self._state.rollouts()}
        for id_, rollout in known.items():
            if id_ in self._over or id_ in self.wishes:
                continue
            if rollout.phase is Phase.DONE:
                self._over.add(id_)
                continue
            if not self.boxed:
                self.boxed = dict(self._state.boxed())
            self.wishes[id_] = self._state.wishes(id_)
            if (old := known.get(rollout.reverts or "")) is not None:
                self.brought[id_] = old.bundle, frozenset(self._state.wishes(old.id))
            self.fresh.add(id_)
        for id_ in [id_ for id_ in self.wishes if self._finished(id_, known.get(id_))]:
            self._over.add(id_)
            del self.wishes[id_]
            self.brought.pop(id_, None)
            self.fresh.discard(id_)
        self.rollouts = {id_: known[id_] for id_ in self.wishes}
        return True

    def tick(self, id_: str, clock_s: float) -> None:
        """Write down how far a rollout's clock is.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        self._state.tick(id_, clock_s, lead=self._leading)

    def settle(self, id_: str, wishes: Mapping[Key, Wish]) -> None:
        """Write down what became of wishes, and put devices into the penalty box or let them out.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        known = self.wishes[id_]
        for key, wish in wishes.items():
            self._box(key, known[key].outcome, wish.outcome)
        for batch in _batches(wishes):
            self._state.settle(id_, batch, lead=self._leading)
            known |= {wish.key: wish for wish in batch}

    def change(self, rollout: Rollout, change: Change) -> None:
        """Write down what a rollout becomes, unless a person has changed it since it was decided.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """

        def edit(now: Rollout) -> Rollout:
            if now.phase is not rollout.phase or now.window_s != rollout.window_s:
                raise _OvertakenError
            return changed(now, change, now_s=rollout.clock_s)

        with suppress(_OvertakenError):
            self._state.change(rollout.id, edit, who=self._holder, what=change.what, lead=self._leading)

    def ask(self, id_: str, wishes: Mapping[Key, Wish]) -> None:
        """Write down whom we ask, before anybody is.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        for batch in _batches(wishes):
            self._state.ask(id_, batch, lead=self._leading)
            self.wishes[id_] |= {wish.key: wish for wish in batch}

    @property
    def _leading(self) -> Lead:
        if self.lead is None:
            return Lead(holder=self._holder, epoch=-1)  # which the state refuses
        return self.lead

    def _finished(self, id_: str, rollout: Rollout | None) -> bool:
        if rollout is None or rollout.phase is Phase.DONE:
            return True
        return rollout.phase in OVER and not any(wish.outcome in OPEN for wish in self.wishes[id_].values())

    def _box(self, key: Key, before: Outcome, now: Outcome) -> None:
        bad = {Outcome.FAILED, Outcome.SILENT}
        boxed = self.boxed.get(key)
        if now in bad and before not in bad:
            times = 1 if boxed is None else boxed.times + 1
            if boxed is not None and boxed.until > utc_now():
                return  # by a write that was made before we ended, or by another rollout
            until = utc_now() + min(BOX * 2 ** min(times - 1, 5), LONGEST_BOX)
            self.boxed[key] = Boxed(until=until, times=times)
            self._state.box(key, self.boxed[key], lead=self._leading)
        elif now is Outcome.CONFIRMED and boxed is not None:
            self._state.box(key, None, lead=self._leading)
            del self.boxed[key]


def _batches(wishes: Mapping[Key, Wish]) -> Iterator[list[Wish]]:
    waiting = iter(wishes.values())
    while batch := list(islice(waiting, BATCH)):
        yield batch
