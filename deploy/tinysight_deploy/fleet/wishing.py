"""Which wishes a rollout has, is to have, and must not have now. No I/O.

In: what the leader keeps at hand, what is known of the devices.  Out: new `Wish`es, those that are to be sent, and who
is not to be asked. Whom to ask is `decide`'s; what is sent is written down before, by `leading`.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from tinysight_deploy.fleet.buckets import bucket, stage_of
from tinysight_deploy.fleet.decide import BOXED
from tinysight_deploy.fleet.judge import judge, settled
from tinysight_deploy.fleet.leading import OPEN, Books
from tinysight_deploy.fleet.operate import OVER
from tinysight_deploy.fleet.publishing import forged, next_revision, shown
from tinysight_deploy.fleet.types import Decision, Facts, Key, Outcome, Phase, Rollout, Wish

__all__ = ["NOTHING", "ended", "found", "held_back", "is_last", "named", "new_wishes", "unsent", "unshown"]

NOTHING: Final = Facts()
"""What is known of a device that was never heard of."""


def new_wishes(rollout: Rollout, keys: Iterable[Key], facts: Mapping[Key, Facts], books: Books) -> dict[Key, Wish]:
    """Wishes for devices that are to be asked. One with a revision that was made up gets none."""
    asked = {}
    for key in keys:
        known = facts.get(key, NOTHING)
        if not forged(known):
            given = (wishes[key].revision for wishes in books.wishes.values() if key in wishes)
            asked[key] = _wish(rollout, key, known, next_revision(known, given), rollout.stage)
    return asked


def found(rollout: Rollout, wishes: Mapping[Key, Wish], facts: Mapping[Key, Facts]) -> dict[Key, Wish]:
    """Wishes that the broker keeps and the state does not: it was made again of a log that lacks its end."""
    missing = {}
    for key, known in facts.items():
        desired = known.desired
        if key in wishes or desired is None or (desired.rollout, desired.bundle) != (rollout.id, rollout.bundle):
            continue
        if not forged(known):
            stage = min(stage_of(rollout.cutoffs, bucket(rollout.salt, key)), rollout.stage)
            missing[key] = _wish(rollout, key, known, desired.revision, stage)
    return missing


def held_back(rollout: Rollout, books: Books, odd: Mapping[Key, str], now: datetime) -> dict[Key, str]:
    """Devices that a rollout must not ask now, and why.

    Args:
        rollout: that would ask.
        books: with all that go on.
        odd: devices that nobody may ask, and why.
        now: by this machine's clock, for the penalty box.
    """
    held = {}
    for key, boxed in books.boxed.items():
        if boxed.until > now:
            held[key] = f"{BOXED}It failed lately, and comes last until {boxed.until:%Y-%m-%d %H:%M} UTC."
    for id_, other in books.rollouts.items():
        if id_ != rollout.id:
            busy = OPEN if other.phase in OVER else OPEN - {Outcome.SILENT}
            wishes = books.wishes[id_]
            held |= {key: f"It is busy in {id_}." for key, wish in wishes.items() if wish.outcome in busy}
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


def unshown(books: Books, facts: Mapping[Key, Facts]) -> dict[Key, tuple[Rollout, Wish]]:
    """By device, the newest wish that is written down and that the broker does not show."""
    newest: dict[Key, tuple[Rollout, Wish]] = {}
    for id_, rollout in books.rollouts.items():
        if rollout.phase in OVER:
            continue
        for key, wish in books.wishes[id_].items():
            if wish.outcome is Outcome.LEFT or shown(facts.get(key, NOTHING), wish.revision):
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


def _wish(rollout: Rollout, key: Key, facts: Facts, revision: int, stage: int) -> Wish:
    return Wish(
        site=key[0],
        device=key[1],
        stage=stage,
        revision=revision,
        sent_s=rollout.clock_s,
        reached_s=rollout.clock_s if facts.online else None,
        outcome=Outcome.GOING if facts.online else Outcome.AWAY,
        before=facts.active,
    )
