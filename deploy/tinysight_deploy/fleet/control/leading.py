"""What the leader keeps at hand of the state, so that ten thousand wishes are not read in every turn.

In: the `State`.  Out: rollouts as they are now, and wishes, which only the leader writes, as it left them. Whatever
fails is forgotten and read anew. Everything here waits for the database: call it in a thread, one call at a time.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Final

from msgspec.structs import replace

from tinysight_contract.errors import ConfigError, FleetError, NotLeading, StateGone
from tinysight_contract.messages import utc_now
from tinysight_deploy.fleet.control.operate import OVER
from tinysight_deploy.fleet.deciding.decide import changed
from tinysight_deploy.fleet.deciding.judge import FAILING
from tinysight_deploy.fleet.keeping.lease import Lead
from tinysight_deploy.fleet.keeping.rows import Boxed
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Change, Key, Outcome, Phase, Rollout, Wish

__all__ = ["OPEN", "Books"]

OPEN: Final = frozenset({Outcome.AWAY, Outcome.GOING, Outcome.SILENT})
"""Outcomes of wishes that may still be fulfilled."""
BATCH: Final = 1000
"""Wishes that are written at once, and stand in one entry of the audit log."""
BOX: Final = timedelta(hours=24)
LONGEST_BOX: Final = timedelta(days=30)
MAX_REASON: Final = 500


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
        busy: by device, rollouts that others have to wait for there.
        fresh: rollouts whose wishes were just read.
        brought: by a rollout that takes another back, what that brought, and to whom.
    """

    def __init__(self, state: State, holder: str) -> None:
        self.lead: Lead | None = None
        self.rollouts: dict[str, Rollout] = {}
        self.wishes: dict[str, dict[Key, Wish]] = {}
        self.boxed: dict[Key, Boxed] = {}
        self.busy: dict[Key, set[str]] = defaultdict(set)
        self.fresh: set[str] = set()
        self.brought: dict[str, tuple[str, frozenset[Key]]] = {}
        self._state, self._holder = state, holder
        self._over: set[str] = set()

    def drop(self) -> None:
        """Forget all; it is read anew."""
        self.lead = None
        for each in (self.rollouts, self.wishes, self.boxed, self.busy, self.fresh, self.brought, self._over):
            each.clear()

    def forget(self, id_: str) -> None:
        """Read one rollout anew."""
        self.rollouts.pop(id_, None)
        self.wishes.pop(id_, None)
        self.brought.pop(id_, None)
        self.fresh.discard(id_)

    def open(self, now_s: float) -> bool:
        """Renew the lead, and read what has changed; whether we lead.

        Args:
            now_s: by the monotonic clock.

        Raises:
            FleetError: the state cannot be used.
        """
        lead = self._state.lead(self._holder, now_s=now_s)
        if lead is None or lead != self.lead:
            self.drop()
        self.lead = lead
        if lead is None:
            return False
        known = {rollout.id: rollout for rollout in self._state.rollouts(skip=self._over)}
        for id_, rollout in known.items():
            if id_ in self.wishes:
                continue
            if rollout.phase is Phase.DONE:
                self._over.add(id_)
                continue
            if not self.boxed:
                self.boxed = dict(self._state.boxed())
            self.wishes[id_] = self._state.wishes(id_)
            if rollout.reverts is not None:
                with suppress(ConfigError):  # it is forgotten
                    old = self._state.rollout(rollout.reverts)
                    self.brought[id_] = old.bundle, frozenset(self._state.wishes(old.id))
            self.fresh.add(id_)
        for id_ in [id_ for id_ in self.wishes if self._finished(id_, known.get(id_))]:
            self._over.add(id_)
            del self.wishes[id_]
            self.brought.pop(id_, None)
            self.fresh.discard(id_)
        self.rollouts = {id_: known[id_] for id_ in self.wishes}
        self.busy.clear()
        for id_, rollout in self.rollouts.items():
            outcomes = OPEN if rollout.phase in OVER else OPEN - {Outcome.SILENT}
            for key, wish in self.wishes[id_].items():
                if wish.outcome in outcomes:
                    self.busy[key].add(id_)
        return True

    def tick(self, passed_s: float) -> None:
        """Let the clocks of all rollouts go on.

        Args:
            passed_s: by how much.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        self.rollouts = {
            id_: replace(rollout, clock_s=rollout.clock_s + passed_s) for id_, rollout in self.rollouts.items()
        }
        self._state.tick({id_: rollout.clock_s for id_, rollout in self.rollouts.items()}, lead=self._leading)

    def settle(self, id_: str, wishes: Mapping[Key, Wish], reasons: Mapping[Key, str] | None = None) -> None:
        """Write down what became of wishes, and put devices into the penalty box or let them out.

        Args:
            id_: the rollout's.
            wishes: as they are now.
            reasons: why, for people, of those that fail.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        known, now = self.wishes[id_], utc_now()
        for batch in self._batches(wishes):
            boxes: dict[Key, Boxed | None] = {}
            for wish in batch:
                before, boxed = known[wish.key].outcome, self.boxed.get(wish.key)
                if wish.outcome in FAILING and before not in FAILING:
                    if boxed is None or boxed.until <= now:  # else by another rollout, or before a restart
                        boxes[wish.key] = _boxed(boxed, (reasons or {}).get(wish.key, ""), now)
                elif wish.outcome is Outcome.CONFIRMED and boxed is not None:
                    boxes[wish.key] = None
            self._state.settle(id_, batch, boxes=boxes, lead=self._leading)
            known |= {wish.key: wish for wish in batch}
            self.boxed |= {key: boxed for key, boxed in boxes.items() if boxed is not None}
            for key in [key for key, boxed in boxes.items() if boxed is None]:
                del self.boxed[key]

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
        """Write down whom we ask, before anybody is; nobody when a person has just stopped the rollout.

        Raises:
            FleetError: the state cannot be written, or another controller leads.
        """
        for batch in self._batches(wishes):
            try:
                self._state.ask(id_, batch, lead=self._leading)
            except (NotLeading, StateGone):
                raise
            except FleetError:
                if self._state.rollout(id_).phase is not Phase.RUNNING:
                    return
                raise
            self.wishes[id_] |= {wish.key: wish for wish in batch}
            for wish in batch:
                self.busy[wish.key].add(id_)

    @property
    def _leading(self) -> Lead:
        if self.lead is None:
            return Lead(holder=self._holder, epoch=-1)  # which the state refuses
        return self.lead

    def _finished(self, id_: str, rollout: Rollout | None) -> bool:
        if rollout is None or rollout.phase is Phase.DONE:
            return True
        return rollout.phase in OVER and not any(wish.outcome in OPEN for wish in self.wishes[id_].values())

    def _batches(self, wishes: Mapping[Key, Wish]) -> Iterator[list[Wish]]:
        """So many as are written at once; the lead is renewed between them, for writing takes its time."""
        waiting = iter(wishes.values())
        first = True
        while batch := list(islice(waiting, BATCH)):
            if not first and self._state.lead(self._holder, now_s=time.monotonic()) != self.lead:
                raise NotLeading(f"{self._holder} does not lead any more.", mend="Leave it: it follows by itself.")
            first = False
            yield batch


def _boxed(before: Boxed | None, reason: str, now: datetime) -> Boxed:
    times = 1 if before is None else before.times + 1
    until = now + min(BOX * 2 ** min(times - 1, 5), LONGEST_BOX)
    return Boxed(until=until, times=times, reason=reason[:MAX_REASON])
