"""What a rollout would do, by what devices did before. Pure: `decide` itself, under a clock of its own.

In: messages of a tape (``tinysight watch --record``), and a policy.  Out: a `Plan`: for each stage who is asked, how
much is moved, from when to when, who is expected to fail, and where it would halt.

Each device does as with its last update: as long from its queue to its end, the same share of bytes, the same end. One
that told of none takes as long as the median of the others, and confirms. Whoever was away at the tape's end stays so.
Windows are taken for open; whatever waits for somebody is approved at once, and said.
"""

import heapq
import math
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from statistics import median
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from tinysight_contract.errors import DataError
from tinysight_contract.orders import DesiredState
from tinysight_contract.updates import Code, Release, Update, UpdateState
from tinysight_deploy.fleet.deciding.buckets import cutoffs
from tinysight_deploy.fleet.deciding.decide import changed, decide
from tinysight_deploy.fleet.deciding.habits import Habit, habits
from tinysight_deploy.fleet.deciding.judge import FAILING, plain, settled
from tinysight_deploy.fleet.deciding.waiting import is_waiting
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Phase, Policy, Rollout, Wish
from tinysight_edge.simulate.tape import Take

__all__ = ["Expected", "Plan", "PlannedStage", "plan"]

USUAL_S: Final = 60.0
"""For which a device takes an update when none on the tape has told."""
FINEST: Final = 100
"""Turns in which what happens close together is taken as one."""
_MOST_TURNS: Final = 20_000
_JUST: Final = 1e-6  # after the moment itself, whatever floats make of it
_TRIES_ON: Final = frozenset({Code.UNREACHABLE, Code.TOO_SLOW, Code.NOT_FOUND, Code.NO_SPACE, Code.DISK})
"""Ends after which a device waits and tries again, until it counts as silent."""
_BUNDLE: Final = "0" * 64  # which no device runs
_TARGET: Final = "plan/plan-0.bundle"


class Expected(Struct, frozen=True, kw_only=True):
    """A device that is expected to fail.

    Attributes:
        site: its site.
        device: its id.
        outcome: ``failed`` or ``silent``.
        reason: why, by its last update.
    """

    site: str
    device: str
    outcome: Outcome
    reason: str


class PlannedStage(Struct, frozen=True, kw_only=True):
    """One stage, as it would go.

    Attributes:
        stage: its number, from 0.
        size: as the policy has it, such as ``5%``.
        devices: who is asked, in that order.
        away: those of them that are not there.
        confirmed: those of them that confirm.
        failing: those of them that do not.
        size_bytes: that are moved for them.
        begins_s: since the rollout's begin.
        ends_s: the same; null when it never passes.
        approval: it waits for somebody before it begins.
    """

    stage: int
    size: str
    devices: list[Key]
    away: int
    confirmed: int
    failing: list[Expected]
    size_bytes: int
    begins_s: float
    ends_s: float | None
    approval: bool = False


class Plan(Struct, frozen=True, kw_only=True):
    """What a rollout would do.

    Attributes:
        devices: of the group.
        online: those of them that were there when the tape ended.
        told: those of them that told how an update ended.
        stages: that would be opened, in their order.
        phase: in which it ends: ``done``, ``halted``, or ``running`` when it would wait for ever.
        reason: why.
        size_bytes: that are moved in all.
        takes_s: how long it takes in all.
    """

    devices: int
    online: int
    told: int
    stages: list[PlannedStage]
    phase: Phase
    reason: str
    size_bytes: int
    takes_s: float


def plan(
    tape: Iterable[Take],
    policy: Policy,
    *,
    size_bytes: int,
    group: str = "all",
    members: Callable[[Collection[Key]], Collection[Key]] = lambda heard: heard,
    salt: str = "plan",
) -> Plan:
    """What a rollout would do to the devices of a tape.

    Args:
        tape: as `read_tape` gives it.
        policy: the rules.
        size_bytes: of the bundle.
        group: the name of the devices.
        members: picks the group's out of all on the tape.
        salt: puts each device in its place; a real rollout draws its own, so that other devices come first.

    Raises:
        DataError: the tape is damaged, or knows no device of the group.
    """
    known = habits(tape)
    chosen = {key: known.get(key, Habit(online=False)) for key in members(known)}
    if not chosen:
        raise DataError(f"No device of {group!r} is on this tape.", mend="Record one while they run, or name another.")
    return _Run(chosen, policy, size_bytes, group, salt).go()


class _Run:
    """A rollout and its devices, under a clock of its own."""

    def __init__(self, known: dict[Key, Habit], policy: Policy, size_bytes: int, group: str, salt: str) -> None:
        online = [key for key, each in known.items() if each.online]
        self._known, self._size_bytes = known, size_bytes
        self._takes_s = median([each.takes_s for each in known.values() if each.takes_s is not None] or [USUAL_S])
        self._rollout = Rollout(
            id="plan",
            group=group,
            target=_TARGET,
            bundle=_BUNDLE,
            size_bytes=size_bytes,
            salt=salt,
            policy=replace(policy, window=None),
            cutoffs=cutoffs(policy.stages, salt, online or known),
            begun_at=datetime(2000, 1, 1, tzinfo=UTC),
            begun_by="plan",
            approved=len(policy.stages),
        )
        self._facts = {key: Facts(online=each.online) for key, each in known.items()}
        self._wishes: dict[Key, Wish] = {}
        self._ends: list[tuple[float, Key]] = []
        self._opened_s = [0.0]
        self._sent: dict[int, list[Key]] = {}
        self._fine_s = 0.0

    def go(self) -> Plan:
        now_s = 0.0
        longest = max([each.takes_s or 0.0 for each in self._known.values()] + [self._takes_s])
        pace_s = 60.0 * len(self._known) / self._rollout.policy.per_min
        self._fine_s = (longest + pace_s) / FINEST
        last_s, reason = 0.0, "It would take more turns than are tried here. Let the policy have fewer and longer ones."
        for _ in range(_MOST_TURNS):
            last_s = now_s
            acted = self._turn(now_s)
            if self._rollout.phase is not Phase.RUNNING:
                reason = self._rollout.reason
                break
            following_s = now_s if acted else self._following(now_s)
            if following_s is None:
                reason = "It would go no further."
                if is_waiting(self._rollout):
                    reason = f"{reason} {self._rollout.reason}"
                break
            now_s = following_s
        return self._plan(last_s, reason)

    def _turn(self, now_s: float) -> bool:
        """One turn; whether the next is to be at the same time."""
        while self._ends and self._ends[0][0] <= now_s:
            key = heapq.heappop(self._ends)[1]
            self._facts[key] = _ended(self._known[key], self._wishes[key].revision)
        rollout = self._rollout
        decision = decide(rollout, self._known, self._facts, self._wishes, {}, now_s=now_s)
        for key, verdict in decision.verdicts.items():
            if verdict.outcome is not self._wishes[key].outcome:
                self._wishes[key] = settled(self._wishes[key], verdict, now_s=now_s)
        for key in decision.ask:
            habit = self._known[key]
            site, device = key
            self._wishes[key] = Wish(site=site, device=device, stage=rollout.stage, revision=1, sent_s=now_s)
            self._sent.setdefault(rollout.stage, []).append(key)
            if habit.online:
                heapq.heappush(self._ends, (now_s + (self._takes_s if habit.takes_s is None else habit.takes_s), key))
        if decision.change is not None:
            self._rollout = changed(rollout, decision.change, now_s=now_s)
            if decision.change.stage is not None:
                self._opened_s.append(now_s)
        return decision.change is not None or bool(decision.ask)

    def _following(self, now_s: float) -> float | None:
        """When something happens next; None for never. What is close together is taken as one."""
        policy, times = self._rollout.policy, list[float]()
        finest_s = now_s + self._fine_s
        if self._ends:
            times.append(max(self._ends[0][0], finest_s))
        if self._rollout.soaked_from_s is not None:
            times.append(self._rollout.soaked_from_s + policy.soak_s + _JUST)
        reached = [
            each.reached_s
            for each in self._wishes.values()
            if each.outcome is Outcome.GOING and each.reached_s is not None
        ]
        if reached:
            times.append(max(min(reached) + policy.deadline_s + _JUST, finest_s))
        recent = [each.sent_s for each in self._wishes.values() if each.sent_s > now_s - 60.0]
        if len(recent) >= policy.per_min:
            times.append(max(min(recent) + 60.0 + _JUST, finest_s))
        coming = [each for each in times if each > now_s]
        return min(coming) if coming else None

    def _plan(self, now_s: float, reason: str) -> Plan:
        stages = []
        for stage, begins_s in enumerate(self._opened_s):
            over = stage + 1 < len(self._opened_s) or self._rollout.phase is Phase.DONE
            ends_s = (self._opened_s[stage + 1] if stage + 1 < len(self._opened_s) else now_s) if over else None
            stages.append(self._stage(stage, begins_s, ends_s, now_s))
        return Plan(
            devices=len(self._known),
            online=sum(1 for each in self._known.values() if each.online),
            told=sum(1 for each in self._known.values() if each.update is not None),
            stages=stages,
            phase=self._rollout.phase,
            reason=reason,
            size_bytes=sum(each.size_bytes for each in stages),
            takes_s=now_s,
        )

    def _stage(self, stage: int, begins_s: float, ends_s: float | None, now_s: float) -> PlannedStage:
        policy, asked = self._rollout.policy, self._sent.get(stage, [])
        decision = decide(self._rollout, (), self._facts, {key: self._wishes[key] for key in asked}, {}, now_s=now_s)
        failing = [
            Expected(site=key[0], device=key[1], outcome=each.outcome, reason=each.reason)
            for key, each in sorted(decision.verdicts.items())
            if each.outcome in FAILING
        ]
        found = [each.outcome for each in decision.verdicts.values()]
        there = [key for key in asked if self._known[key].online]
        return PlannedStage(
            stage=stage,
            size=str(policy.stages[stage]),
            devices=asked,
            away=found.count(Outcome.AWAY),
            confirmed=found.count(Outcome.CONFIRMED),
            failing=failing,
            size_bytes=sum(math.ceil(self._known[key].moved_share * self._size_bytes) for key in there),
            begins_s=begins_s,
            ends_s=ends_s,
            approval=stage in policy.hold,
        )


def _ended(habit: Habit, revision: int) -> Facts:
    """What a device would say of the new bundle when it does as before."""
    told = habit.update
    release = Release(target=_TARGET, digest=_BUNDLE, size_bytes=0, name="plan", version="0.0.0", release=0)
    if told is None or told.state is UpdateState.CONFIRMED:
        update = Update(
            target=_TARGET,
            state=UpdateState.CONFIRMED,
            at=datetime(2000, 1, 1, tzinfo=UTC),
            bundle=release,
            gates={} if told is None else told.gates,
        )
        return Facts(
            online=True,
            active=_BUNDLE,
            revision=revision,
            state=DesiredState.APPLIED,
            update=update,
            drift=habit.drift,
            metered=_BUNDLE,
        )
    state = DesiredState.ROLLED_BACK if told.state is UpdateState.ROLLED_BACK else DesiredState.REFUSED
    return Facts(
        online=True,
        revision=revision,
        state=DesiredState.WAITING if told.code in _TRIES_ON else state,
        reason=plain(told.reason),
        update=replace(told, target=_TARGET, bundle=release),
    )
