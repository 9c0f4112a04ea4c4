"""Which wishes a rollout has, is to have, and must not have now. No I/O.

In: what the leader keeps at hand, what is known of the devices.  Out: new `Wish`es, those that are to be sent, and who
is not to be asked. Whom to ask is `decide`'s; what is sent is written down before, by `leading`.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from tinysight_deploy.fleet.control.leading import OPEN, Books
from tinysight_deploy.fleet.control.operate import OVER
from tinysight_deploy.fleet.control.publishing import forged, next_revision, shown
from tinysight_deploy.fleet.deciding.buckets import bucket, stage_of
from tinysight_deploy.fleet.deciding.decide import BOXED
from tinysight_deploy.fleet.deciding.judge import judge, settled
from tinysight_deploy.fleet.types import Decision, Facts, Key, Outcome, Phase, Rollout, Wish

__all__ = [
    "NOTHING",
    "ended",
    "found",
    "held_back",
    "is_last",
    "named",
    "new_wishes",
    "reached",
    "unsent",
    "unshown",
]

NOTHING: Final = Facts()
"""What is known of a device that was never heard of."""


def new_wishes(
    rollout: Rollout, keys: Iterable[Key], facts: Mapping[Key, Facts], books: Books, wanted: Callable[[Key], int]
) -> dict[Key, Wish]:
    """Wishes for devices that are to be asked. One with a revision that was made up gets none.

    Args:
        rollout: that asks.
        keys: of the devices.
        facts: of them.
        books: with all wishes that were given.
        wanted: by device, the revision that was wanted in an earlier session.
    """
    asked = {}
    for key in keys:
        known = facts.get(key, NOTHING)
        if not forged(known):
            given = [wishes[key].revision for wishes in books.wishes.values() if key in wishes]
            revision = next_revision(known, [*given, wanted(key)])
            asked[key] = _wish(rollout, key, known, revision, rollout.stage, before=known.active)
    return asked


def reached(wish: Wish, now: Wish, facts: Facts) -> Wish:
    """A wish as it was judged; but nobody is reached by what the broker does not show.

    Args:
        wish: as it was.
        now: as it was judged.
        facts: of the device.
    """
    if wish.reached_s is not None or now.reached_s is None or now.settled_s is not None:
        return now
    if facts.revision >= wish.revision or shown(facts, wish.revision):
        return now
    now = replace(now, reached_s=None)
    return wish if now == wish else now


def found(rollout: Rollout, wishes: Mapping[Key, Wish], facts: Mapping[Key, Facts]) -> dict[Key, Wish]:
    """Wishes that the broker keeps and the state does not: it was made again of a log that lacks its end."""
    missing = {}
    for key, known in facts.items():
        desired = known.desired
        if key in wishes or desired is None or (desired.rollout, desired.bundle) != (rollout.id, rollout.bundle):
            continue
        if not forged(known):
            stage = min(stage_of(rollout.cutoffs, bucket(rollout.salt, key)), rollout.stage)
            missing[key] = _wish(rollout, key, known, desired.revision, stage, before=None)
    return missing


def held_back(
    rollout: Rollout, members: Iterable[Key], books: Books, odd: Mapping[Key, str], now: datetime
) -> dict[Key, str]:
    """Devices that a rollout must not ask now, and why.

    Args:
        rollout: that would ask.
        members: of it.
        books: with all that go on.
        odd: devices that nobody may ask, and why.
        now: by this machine's clock, for the penalty box.
    """
    held = {}
    for key, boxed in books.boxed.items():
        if boxed.until > now:
            held[key] = f"{BOXED}It failed lately, and comes last until {boxed.until:%Y-%m-%d %H:%M} UTC."
    for key in members:
        if other := next((id_ for id_ in books.busy.get(key, ()) if id_ != rollout.id), None):
            held[key] = f"It is busy in {other}."
    return {**held, **odd}


def is_last(rollout: Rollout) -> bool:
    """Whether its last stage is open."""
    return rollout.stage >= len(rollout.policy.stages) - 1


def named(decision: Decision, mute: Collection[Key]) -> Decision:
    """The decision, which says at the end of a rollout whom nobody could ask."""
    change = decision.change
    if change is None or change.phase is not Phase.DONE or not mute:
        return decision
    site, device = min(mute)
    more = f" {len(mute)} held, which were not asked, {site}/{device} among them: see `tinysight rollout why` for it."
    return replace(decision, change=replace(change, reason=change.reason + more))


def unshown(books: Books, facts: Mapping[Key, Facts], had: Callable[[Key], int]) -> dict[Key, tuple[Rollout, Wish]]:
    """By device, the newest wish that is written down and that the broker does not show.

    Of a rollout that does not run now it is one that the broker had before.

    Args:
        books: with all wishes.
        facts: of the devices.
        had: by device, the highest revision that the broker is known to have had.
    """
    newest: dict[Key, tuple[Rollout, Wish]] = {}
    for id_, rollout in books.rollouts.items():
        if rollout.phase in OVER:
            continue
        for key, wish in books.wishes[id_].items():
            if wish.outcome is Outcome.LEFT or shown(facts.get(key, NOTHING), wish.revision):
                continue
            if rollout.phase is not Phase.RUNNING and wish.reached_s is None and had(key) < wish.revision:
                continue
            if key not in newest or newest[key][1].revision < wish.revision:
                newest[key] = rollout, wish
    return newest


def unsent(wishes: Mapping[Key, Wish], facts: Mapping[Key, Facts], taken: Mapping[Key, int]) -> bool:
    """Whether the broker has not taken all wishes yet; a rollout must not end before, for nobody sends them after it.

    Args:
        wishes: of the rollout.
        facts: of the devices.
        taken: by device, the revision that the broker took from us.
    """
    return any(
        wish.outcome is Outcome.AWAY
        and taken.get(key, 0) < wish.revision
        and not shown(facts.get(key, NOTHING), wish.revision)
        for key, wish in wishes.items()
    )


def ended(
    rollout: Rollout, wishes: Mapping[Key, Wish], facts: Mapping[Key, Facts], lost: Collection[Key]
) -> tuple[dict[Key, Wish], dict[Key, Wish]]:
    """Of an aborted rollout, wishes of which something new is known, and those that are to be taken back.

    Args:
        rollout: the aborted one.
        wishes: of it.
        facts: of the devices.
        lost: devices to which nothing can be said without taking something else from them.
    """
    news, back = {}, {}
    for key, wish in wishes.items():
        if wish.outcome not in OPEN:
            continue
        known = facts.get(key, NOTHING)
        now = settled(wish, judge(rollout, wish, known, now_s=rollout.clock_s), now_s=rollout.clock_s)
        if now.outcome in OPEN and (known.revision > wish.revision or key in lost):
            now = replace(now, outcome=Outcome.LEFT)
        if now is not wish:
            news[key] = now
        if now.outcome in OPEN and not forged(known):
            back[key] = wish
    return news, back


def _wish(rollout: Rollout, key: Key, facts: Facts, revision: int, stage: int, *, before: str | None) -> Wish:
    return Wish(
        site=key[0],
        device=key[1],
        stage=stage,
        revision=revision,
        sent_s=rollout.clock_s,
        outcome=Outcome.GOING if facts.online else Outcome.AWAY,
        before=before,
    )
