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

from tinysight_deploy.fleet.buckets import bucket
from tinysight_deploy.fleet.gates import Tally, gates, of
from tinysight_deploy.fleet.judge import judge
from tinysight_deploy.fleet.types import Change, Check, Decision, Facts, Key, Outcome, Phase, Rollout, Verdict, Wish

__all__ = ["BOXED", "changed", "decide"]

BOXED: Final = "boxed: "
"""How the reason begins of a device that is held for what it did before; the last stage has it nevertheless."""
_NOTHING: Final = Facts()
_CONFIRMED, _GOING = Outcome.CONFIRMED, Outcome.GOING
_MINUTE_S: Final = 60.0
_FEW: Final = 20
"""A stage goes on being watched while no more than one in so many of its devices is on its way, having come late."""


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
    last = len(policy.stages) - 1
    tally, sent, going = Tally(policy, rollout.window_s), 0, 0
    verdicts: dict[Key, Verdict] = {}
    since_s = now_s - _MINUTE_S
    known = facts.get
    for key, wish in wishes.items():
        verdict = verdicts[key] = judge(rollout, wish, known(key, _NOTHING), now_s=now_s)
        if wish.sent_s > since_s:
            sent += 1
        if verdict.outcome is _GOING:
            going += 1
        if wish.stage == stage:
            tally.add(key, wish, verdict, now_s)
    rest = _Rest(rollout, members, wishes, held, is_last=stage >= last)
    complete = not rest.todo and not tally.going
    checks, fatal = gates(policy, tally, complete=complete)
    checks = [*_progress(tally, rest), *checks, *_waits(rollout, tally, now_s=now_s, complete=complete)]
    if rollout.phase is not Phase.RUNNING:
        return Decision(checks=tuple(checks), verdicts=verdicts)
    change: Change | None
    if fatal:
        reason = f"{_name(rollout)}: {fatal} {_MEND}"
        change = Change(what="halt", phase=Phase.HALTED, reason=reason, soaked_from_s=rollout.soaked_from_s)
        return Decision(change=change, checks=tuple(checks), verdicts=verdicts)
    if stage in policy.hold and rollout.approved < stage:
        return Decision(change=_held_back(rollout, stage), checks=tuple(checks), verdicts=verdicts)
    change = _next(rollout, tally, rest, verdicts, now_s=now_s) if complete else _unsoaked(rollout, tally)
    room = min(policy.per_min - sent, policy.at_once - going)
    ask = tuple(key for _, key in nsmallest(room, rest.todo)) if room > 0 else ()
    return Decision(ask=ask, change=change, checks=tuple(checks), verdicts=verdicts)


def changed(rollout: Rollout, change: Change, *, now_s: float) -> Rollout:
    """The rollout as it is after a change."""
    soaked_from_s = change.soaked_from_s
    after = replace(rollout, reason=change.reason, soaked_from_s=soaked_from_s, phase=change.phase or rollout.phase)
    return after if change.stage is None else replace(after, stage=change.stage, opened_s=now_s)


_MEND: Final = "Look at it with `tinysight rollout why`; then `rollout resume` goes on, and `rollout abort` ends it."


class _Rest:
    """Members that were not asked yet.

    Attributes:
        todo: those that are to be asked in the open stage, with their places.
        held: those that would be, and must not.
        boxed: those of them that the last stage has nevertheless.
        later: those of later stages that may be asked then.
    """

    __slots__ = ("boxed", "held", "later", "todo")

    def __init__(
        self,
        rollout: Rollout,
        members: Collection[Key],
        wishes: Mapping[Key, Wish],
        held: Mapping[Key, str],
        *,
        is_last: bool,
    ) -> None:
        self.todo: list[tuple[float, Key]] = []
        self.held = self.boxed = self.later = 0
        end, salt = 1.0 if is_last else rollout.cutoffs[rollout.stage], rollout.salt
        for key in members:
            if key in wishes:
                continue
            place = bucket(salt, key)
            why = held.get(key)
            is_boxed = why is not None and why.startswith(BOXED)
            if why is not None and not (is_boxed and is_last):
                self.held += place < end
                self.boxed += is_boxed and place < end
            elif place < end:
                self.todo.append((place, key))
            else:
                self.later += 1


def _next(
    rollout: Rollout, tally: Tally, rest: _Rest, verdicts: Mapping[Key, Verdict], *, now_s: float
) -> Change | None:
    """What a stage becomes of which everybody has an outcome who can be reached, and which all gates let through."""
    policy, stage = rollout.policy, rollout.stage
    last = len(policy.stages) - 1
    if not tally.reached:
        if _waits_for_somebody(tally, rest, verdicts, is_last=stage >= last):
            return None
    else:
        since_s = rollout.soaked_from_s
        if since_s is None and policy.soak_s > 0:
            return Change(what="soak", soaked_from_s=now_s, reason=rollout.reason)
        if since_s is not None and now_s - since_s < policy.soak_s:
            return None
    if stage >= last:
        return Change(what="done", phase=Phase.DONE, reason=_sum(verdicts, rest), soaked_from_s=rollout.soaked_from_s)
    coming = stage + 1
    if coming in policy.hold and rollout.approved < coming:
        return _held_back(rollout, coming)
    return Change(what="stage", stage=coming, reason=f"{_name(rollout)} has passed: {_figures(tally)}.")


def _waits_for_somebody(tally: Tally, rest: _Rest, verdicts: Mapping[Key, Verdict], *, is_last: bool) -> bool:
    """Whether a stage that nobody was reached of waits, or is empty and nothing to wait for.

    One that has only boxed devices is empty once the bundle was tried by others, or where there are no others.
    """
    if is_last:
        return tally.away > 0 or (not tally.asked and rest.held > 0)
    if tally.asked:
        return True
    if rest.held > rest.boxed:
        return True
    return rest.boxed > 0 and rest.later > 0 and not any(each.outcome is _CONFIRMED for each in verdicts.values())


def _held_back(rollout: Rollout, stage: int) -> Change | None:
    """That a stage waits for somebody; said once."""
    reason = f"Stage {stage} ({rollout.policy.stages[stage]}) waits for somebody: `tinysight rollout approve` opens it."
    if rollout.reason == reason:
        return None
    return Change(what="hold", reason=reason, soaked_from_s=rollout.soaked_from_s)


def _unsoaked(rollout: Rollout, tally: Tally) -> Change | None:
    """That a stage is not watched any more because devices have come that are on their way; not for a few of many."""
    if rollout.soaked_from_s is None or tally.going * _FEW <= tally.counted:
        return None
    return Change(what="soak", soaked_from_s=None, reason=rollout.reason)


def _name(rollout: Rollout) -> str:
    return f"Stage {rollout.stage} ({rollout.policy.stages[min(rollout.stage, len(rollout.policy.stages) - 1)]})"


def _figures(tally: Tally) -> str:
    if not tally.counted:
        return "nobody new was to be judged" if tally.reached else "no device belongs to it"
    failing = f", {tally.failing} failing" if tally.failing else ""
    away = f", {tally.away} away" if tally.away else ""
    return f"{of(tally.confirmed, tally.counted)} confirmed{failing}{away}"


def _sum(verdicts: Mapping[Key, Verdict], rest: _Rest) -> str:
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


def _progress(tally: Tally, rest: _Rest) -> list[Check]:
    open_ = len(rest.todo)
    held = f"{rest.held} held" if rest.held else ""
    away = f"{tally.away} away" if tally.away else ""
    left = f"{tally.left} wanted for something else" if tally.left else ""
    earlier = f"{tally.earlier} judged before it was resumed" if tally.earlier else ""
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
            ok=None if tally.going or not reached else True,
            value=of(reached - tally.going, reached),
            what=earlier,
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
