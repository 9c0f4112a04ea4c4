"""Who of a rollout's members was not asked yet, and whom a stage waits for that nobody can try. Pure.

In: the rollout, its members, who was asked, who must not be.  Out: in words whom it waits for and what can be done, and
who is asked instead of devices that are wanted for something else.

A stage that waits always says so: nobody has to guess why nothing happens.
"""

from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from typing import Final

from tinysight_deploy.fleet.deciding.buckets import bucket
from tinysight_deploy.fleet.deciding.gates import Tally
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Rollout, Verdict, Wish

__all__ = [
    "BOXED",
    "Rest",
    "is_held",
    "is_waiting",
    "named",
    "stand_in",
    "stands_in",
    "waits_for",
    "waits_for_approval",
    "waits_for_broker",
]

BOXED: Final = "boxed: "
"""How the reason begins of a device that is held for what it did before; the last stage has it nevertheless."""
WAITS: Final = "waits for "
_NAMED: Final = 3
"""Devices that are named of many."""
_AWAY, _CONFIRMED = Outcome.AWAY, Outcome.CONFIRMED


class Rest:
    """Members that were not asked yet.

    Args:
        rollout: as it is.
        members: of its group, now.
        wishes: of this rollout.
        held: devices that must not be asked, with the reason.

    Attributes:
        is_last: the open stage is the last one.
        todo: those that are to be asked in the open stage, with their places.
        held: those that would be, and must not.
        boxed: those of them that the last stage has nevertheless.
        later: those of later stages that may be asked then.
    """

    __slots__ = ("_held", "_members", "_rollout", "_wishes", "boxed", "held", "is_last", "later", "todo")

    def __init__(
        self, rollout: Rollout, members: Collection[Key], wishes: Mapping[Key, Wish], held: Mapping[Key, str]
    ) -> None:
        self._rollout, self._members, self._wishes, self._held = rollout, members, wishes, held
        self.is_last = _is_last(rollout)
        self.todo: list[tuple[float, Key]] = []
        self.held = self.boxed = self.later = 0
        end, salt = self._end, rollout.salt
        for key in members:
            if key in wishes:
                continue
            place = bucket(salt, key)
            why = held.get(key)
            if why is not None and is_held(rollout, why):
                self.held += place < end
                self.boxed += place < end and why.startswith(BOXED)
            elif place < end:
                self.todo.append((place, key))
            else:
                self.later += 1

    @property
    def _end(self) -> float:
        return 1.0 if self.is_last else self._rollout.cutoffs[self._rollout.stage]

    def held_ones(self) -> list[Key]:
        """The first of those that the open stage would ask and must not."""
        salt, end, held = self._rollout.salt, self._end, self._held
        mine = (key for key in self._members if key in held and key not in self._wishes and not self._may(key))
        placed = ((bucket(salt, key), key) for key in mine)
        return [key for _, key in nsmallest(_NAMED, (each for each in placed if each[0] < end))]

    def why(self, key: Key) -> str:
        """Why a device is held."""
        return self._held[key]

    def following(self, facts: Mapping[Key, Facts]) -> Key | None:
        """Of later stages, the first device that is online and may be asked; None if there is none."""
        free = (key for key in self._members if key not in self._wishes and self._may(key))
        there = [(bucket(self._rollout.salt, key), key) for key in free if key in facts and facts[key].online]
        return min(there)[1] if there else None

    def _may(self, key: Key) -> bool:
        why = self._held.get(key)
        return why is None or not is_held(self._rollout, why)


def is_held(rollout: Rollout, why: str) -> bool:
    """Whether a device is not asked that is held for this reason.

    Those in the penalty box are asked in the last stage, and by a rollout that takes another one back: it is for them.
    """
    return not why.startswith(BOXED) or not (rollout.reverts is not None or _is_last(rollout))


def named(rollout: Rollout, stage: int) -> str:
    """A stage by its number and size, such as ``Stage 1 (5%)``."""
    return f"Stage {stage} ({rollout.policy.stages[min(stage, len(rollout.policy.stages) - 1)]})"


def waits_for_approval(rollout: Rollout, stage: int) -> str:
    """That a stage waits for somebody."""
    return f"{named(rollout, stage)} {WAITS}somebody: `tinysight rollout approve` opens it."


def waits_for_broker(rollout: Rollout, tally: Tally, wishes: Mapping[Key, Wish]) -> str:
    """That a stage waits for nothing but wishes to be taken."""
    mine = (
        key
        for key, each in wishes.items()
        if each.outcome is Outcome.GOING and each.reached_s is None and each.stage == rollout.stage
    )
    return (
        f"{named(rollout, rollout.stage)} {WAITS}the broker, which does not show what is wished of "
        f"{_first(rollout, mine, tally.untold)}. See that the controller may publish, and what it says."
    )


def is_waiting(rollout: Rollout) -> bool:
    """Whether the rollout's reason says that it waits."""
    prefixes = (f"{named(rollout, stage)} {WAITS}" for stage in (rollout.stage, rollout.stage + 1))
    return rollout.reason.startswith(tuple(prefixes))


def waits_for(
    rollout: Rollout, tally: Tally, rest: Rest, verdicts: Mapping[Key, Verdict], wishes: Mapping[Key, Wish]
) -> str:
    """Whom a stage waits for of which nobody was reached, and why; empty when there is nobody to wait for.

    One that has only boxed devices is empty once the bundle was tried by others, or where there are no others.
    """
    if tally.away:
        mine = (key for key, each in verdicts.items() if each.outcome is _AWAY and wishes[key].stage == rollout.stage)
        return _away(rollout, mine, tally.away)
    if tally.asked:  # and all of them have left
        return "" if rest.is_last else _left(rollout, tally)
    tried = any(each.outcome is _CONFIRMED for each in verdicts.values())
    if (rest.is_last and rest.held) or rest.held > rest.boxed or (rest.boxed and rest.later and not tried):
        return _held(rollout, rest)
    return ""


def stand_in(tally: Tally, rest: Rest, facts: Mapping[Key, Facts]) -> Key | None:
    """Who tries the bundle in a stage whose devices are all wanted for something else: of later stages, the next."""
    gone = tally.asked > 0 and tally.left == tally.asked and not rest.is_last
    return rest.following(facts) if gone else None


def stands_in(rollout: Rollout, key: Key) -> str:
    """That a device was asked before its turn."""
    site, device = key
    return (
        f"{named(rollout, rollout.stage)}: all that were asked are wanted for something else. "
        f"{site}/{device}, the next of the later stages, is asked instead."
    )


def _is_last(rollout: Rollout) -> bool:
    return rollout.stage >= len(rollout.policy.stages) - 1


def _away(rollout: Rollout, keys: Iterable[Key], count: int) -> str:
    return (
        f"{named(rollout, rollout.stage)} {WAITS}{_first(rollout, keys, count)}: not there since it was asked. "
        "Switch on one of them; or `tinysight rollout abort` ends it, and another is cut among those that are online."
    )


def _held(rollout: Rollout, rest: Rest) -> str:
    some = rest.held_ones()
    whys = " ".join(dict.fromkeys(rest.why(key) for key in some))
    return (
        f"{named(rollout, rollout.stage)} {WAITS}{_listed(some, rest.held)}: {whys} It goes on by itself once that is "
        "over; or `tinysight rollout abort` ends it, and another is cut without them."
    )


def _left(rollout: Rollout, tally: Tally) -> str:
    return (
        f"{named(rollout, rollout.stage)} {WAITS}a device that can try it: all {tally.left} that were asked are wanted "
        "for something else, and no other one is online that may be asked. Switch one on, or wish nothing else of "
        "them; or end it with `tinysight rollout abort`."
    )


def _first(rollout: Rollout, keys: Iterable[Key], count: int) -> str:
    salt = rollout.salt
    return _listed([key for _, key in nsmallest(_NAMED, ((bucket(salt, key), key) for key in keys))], count)


def _listed(some: list[Key], count: int) -> str:
    more = f" and {count - len(some)} more" if count > len(some) else ""
    return ", ".join(f"{site}/{device}" for site, device in some) + more
