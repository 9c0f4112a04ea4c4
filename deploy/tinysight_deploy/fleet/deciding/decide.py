"""Whom to ask next, and whether a rollout goes on, halts or ends. Pure: the same in, the same out.

In: the rollout, its members, what is known of them, what they were asked for.  Out: a `Decision`.

Level-triggered: nothing is remembered from one turn to the next but what the rollout and its wishes say. A gate that
cannot be met any more halts before anybody else is asked; whoever is not running asks nobody and opens nothing; stages
are opened one after another.
"""

from collections.abc import Collection, Mapping
from heapq import nsmallest
from typing import Final

from msgspec.structs import replace

from tinysight_deploy.fleet.deciding.gates import Tally, failures_of_all, gates, is_enough, of
from tinysight_deploy.fleet.deciding.judge import judge
from tinysight_deploy.fleet.deciding.waiting import (
    BOXED,
    Rest,
    is_waiting,
    named,
    stand_in,
    stands_in,
    waits_for,
    waits_for_approval,
    waits_for_broker,
)
from tinysight_deploy.fleet.types import Change, Check, Decision, Facts, Key, Outcome, Phase, Rollout, Verdict, Wish

__all__ = ["BOXED", "changed", "decide"]

_NOTHING: Final = Facts()
_GOING: Final = Outcome.GOING
_MINUTE_S: Final = 60.0
_FEW: Final = 20
"""A stage is watched on, and passes, while no more than one in so many of its devices is on its way, having come
late."""


def decide(
    rollout: Rollout,
    members: Collection[Key],
    facts: Mapping[Key, Facts],
    wishes: Mapping[Key, Wish],
    held: Mapping[Key, str],
    *,
    now_s: float,
) -> Decision:
    """What is to be done now.

    Args:
        rollout: as it is.
        members: of its group, now. Who was asked counts on when it is none any more.
        facts: of all devices that were heard of.
        wishes: of this rollout.
        held: devices that must not be asked, with the reason, which begins with `BOXED` for the penalty box.
        now_s: the rollout's clock.
    """
    policy, stage = rollout.policy, rollout.stage
    tally, earlier, sent, going = Tally(policy, rollout.window_s), Tally(None, rollout.window_s), 0, 0
    verdicts: dict[Key, Verdict] = {}
    since_s = now_s - _MINUTE_S
    known = facts.get
    for key, wish in wishes.items():
        verdict = verdicts[key] = judge(rollout, wish, known(key, _NOTHING), now_s=now_s)
        if wish.sent_s > since_s:
            sent += 1
        if verdict.outcome is _GOING:
            going += 1
        (tally if wish.stage == stage else earlier).add(key, wish, verdict, now_s)
    rest = Rest(rollout, members, wishes, held)
    late = _came_late(rollout, tally, wishes)
    complete = not rest.todo and (not tally.going or late > 0)
    checks, fatal = gates(policy, tally, complete=complete)
    if fatal:
        fatal = f"{named(rollout, stage)}: {fatal}"
    if stage > 0:
        check, too_many = failures_of_all(policy, tally, earlier)
        checks.insert(0, check)
        fatal = fatal or too_many
    checks = [*_progress(tally, rest, late), *checks, *_waits(rollout, tally, now_s=now_s, complete=complete)]
    if rollout.phase is not Phase.RUNNING:
        return Decision(checks=tuple(checks), verdicts=verdicts)
    change: Change | None
    if fatal:
        change = Change(what="halt", phase=Phase.HALTED, reason=f"{fatal} {_MEND}", soaked_from_s=rollout.soaked_from_s)
        return Decision(change=change, checks=tuple(checks), verdicts=verdicts)
    if stage in policy.hold and rollout.approved < stage:
        change = _news(rollout, _waiting(rollout, waits_for_approval(rollout, stage)))
        return Decision(change=change, checks=tuple(checks), verdicts=verdicts)
    room = min(policy.per_min - sent, policy.at_once - going)
    ask = tuple(key for _, key in nsmallest(room, rest.todo)) if room > 0 else ()
    if not complete:
        untold = not rest.todo and tally.untold == tally.going
        change = _waiting(rollout, waits_for_broker(rollout, tally, wishes)) if untold else _unsoaked(rollout, tally)
    elif not tally.reached and (other := stand_in(tally, rest, facts)) is not None:
        ask = (other,) if room > 0 else ()
        change = _waiting(rollout, stands_in(rollout, other)) if ask else None
    elif not tally.reached and (reason := waits_for(rollout, tally, rest, verdicts, wishes)):
        change = _waiting(rollout, reason)
    else:
        change = _next(rollout, tally, rest, verdicts, now_s=now_s)
    return Decision(ask=ask, change=_news(rollout, change), checks=tuple(checks), verdicts=verdicts)


def changed(rollout: Rollout, change: Change, *, now_s: float) -> Rollout:
    """The rollout as it is after a change."""
    soaked_from_s = change.soaked_from_s
    after = replace(rollout, reason=change.reason, soaked_from_s=soaked_from_s, phase=change.phase or rollout.phase)
    return after if change.stage is None else replace(after, stage=change.stage, opened_s=now_s)


_MEND: Final = "Look at it with `tinysight rollout why`; then `rollout resume` goes on, and `rollout abort` ends it."


def _next(
    rollout: Rollout, tally: Tally, rest: Rest, verdicts: Mapping[Key, Verdict], *, now_s: float
) -> Change | None:
    """What a stage becomes that all gates let through, and that waits for no device."""
    policy, coming = rollout.policy, rollout.stage + 1
    if tally.reached:
        since_s = rollout.soaked_from_s
        if since_s is None and policy.soak_s > 0:
            return Change(what="soak", soaked_from_s=now_s, reason=_kept(rollout))
        if since_s is not None and now_s - since_s < policy.soak_s:
            return None
    if rest.is_last:
        return Change(what="done", phase=Phase.DONE, reason=_sum(verdicts, rest), soaked_from_s=rollout.soaked_from_s)
    if coming in policy.hold and rollout.approved < coming:
        return _waiting(rollout, waits_for_approval(rollout, coming))
    return Change(what="stage", stage=coming, reason=f"{named(rollout, rollout.stage)} has passed: {_figures(tally)}.")


def _waiting(rollout: Rollout, reason: str) -> Change:
    """That a stage waits, and what for."""
    return Change(what="wait", reason=reason, soaked_from_s=rollout.soaked_from_s)


def _news(rollout: Rollout, change: Change | None) -> Change | None:
    """What is new in a change: that a stage waits is said once, and that it does no more as well."""
    if change is None and is_waiting(rollout):
        return Change(what="go on", soaked_from_s=rollout.soaked_from_s)
    return None if change is not None and change.what == "wait" and change.reason == rollout.reason else change


def _kept(rollout: Rollout) -> str:
    """The reason as it stays when a stage is watched, or is not any more."""
    return "" if is_waiting(rollout) else rollout.reason


def _came_late(rollout: Rollout, tally: Tally, wishes: Mapping[Key, Wish]) -> int:
    """How many are on their way that a stage does not wait for.

    They are few of many, and none was known to be there before the stage began to be watched, or before the time was
    over of everybody who was there when asked. The others are enough by themselves.
    """
    going, since_s = tally.going, rollout.soaked_from_s
    if not going or going * _FEW > tally.counted or not is_enough(rollout.policy, tally):
        return 0
    if since_s is not None and tally.soonest_s >= since_s:
        return going
    asked_s = max(wish.sent_s for wish in wishes.values() if wish.stage == rollout.stage)
    return going if tally.soonest_s >= asked_s + rollout.policy.deadline_s else 0


def _unsoaked(rollout: Rollout, tally: Tally) -> Change | None:
    """That a stage is not watched any more because devices have come that are on their way; not for a few of many."""
    if rollout.soaked_from_s is None or tally.going * _FEW <= tally.counted:
        return None
    return Change(what="soak", soaked_from_s=None, reason=_kept(rollout))


def _figures(tally: Tally) -> str:
    if not tally.counted:
        return "nobody new was to be judged" if tally.reached else "no device belongs to it"
    failing = f", {tally.failing} failing" if tally.failing else ""
    away = f", {tally.away} away" if tally.away else ""
    return f"{of(tally.confirmed, tally.counted)} confirmed{failing}{away}"


def _sum(verdicts: Mapping[Key, Verdict], rest: Rest) -> str:
    """How it has ended, over all stages."""
    found = [each.outcome for each in verdicts.values()]
    confirmed, failed, silent, away, left, going = (
        found.count(each)
        for each in (
            Outcome.CONFIRMED, Outcome.FAILED, Outcome.SILENT, Outcome.AWAY, Outcome.LEFT, Outcome.GOING,
        )
    )  # fmt: skip
    words = [
        (failed, "failed"),
        (silent, "silent"),
        (going, "on their way"),
        (left, "wanted for something else"),
        (away, "away, which catch up by themselves"),
        (rest.held, "held, which were not asked: begin another rollout for them"),
    ]
    more = "".join(f"; {count} {what}" for count, what in words if count)
    return f"{confirmed} of {len(found)} confirmed{more}."


def _progress(tally: Tally, rest: Rest, late: int) -> list[Check]:
    open_ = len(rest.todo)
    held = f"{rest.held} held" if rest.held else ""
    away = f"{tally.away} away" if tally.away else ""
    left = f"{tally.left} wanted for something else" if tally.left else ""
    earlier = f"{tally.earlier} judged before it was resumed" if tally.earlier else ""
    behind = f"{late} came late, and are not waited for" if late else ""
    reached = tally.reached
    return [
        Check(
            name="asked",
            ok=None if open_ else True,
            value=of(tally.asked, tally.asked + open_),
            what=held,
        ),
        Check(
            name="reached",
            ok=True if reached else None,
            value=of(reached, tally.asked),
            what=", ".join(each for each in (away, left) if each),
        ),
        Check(
            name="settled",
            ok=None if tally.going > late or not reached else True,
            value=of(reached - tally.going, reached),
            what=", ".join(each for each in (earlier, behind) if each),
        ),
    ]


def _waits(rollout: Rollout, tally: Tally, *, now_s: float, complete: bool) -> list[Check]:
    """What a stage waits for that passes its gates: that it was watched, that somebody lets the next one begin."""
    policy, since_s = rollout.policy, rollout.soaked_from_s
    over_s = 0.0 if since_s is None else now_s - since_s
    soaked = (
        complete and tally.reached > 0 and (policy.soak_s <= 0 or (since_s is not None and over_s >= policy.soak_s))
    )
    what = "" if since_s is not None or soaked else "It begins when all that can be reached are settled."
    checks = [
        Check(
            name="soak", ok=soaked or None, value=f"{over_s:.0f} s", limit=f"at least {policy.soak_s:.10g} s", what=what
        )
    ]
    for coming in sorted(each for each in policy.hold if each in {rollout.stage, rollout.stage + 1}):
        given = rollout.approved >= coming
        what = "" if given else "`tinysight rollout approve` opens it."
        value = "approved" if given else "waits"
        checks.append(Check(name="approval", ok=given, value=value, limit=f"for stage {coming}", what=what))
    return checks
