"""What people do to rollouts: begin, pause, resume, abort, take back, approve.

In: the `State`.  Out: the rollout as it is then. Each act is one transaction, with who did it; devices hear of it from
the controller.
"""

import re
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Final

from msgspec.structs import replace

from tinysight_contract.errors import FleetError
from tinysight_contract.messages import utc_now
from tinysight_contract.updates import Release
from tinysight_deploy.fleet.deciding.buckets import cutoffs
from tinysight_deploy.fleet.deciding.waiting import named
from tinysight_deploy.fleet.keeping.state import State
from tinysight_deploy.fleet.types import Facts, Key, Outcome, Phase, Policy, Rollout, Stage

__all__ = ["OVER", "abort", "approve", "begin", "pause", "resume", "revert"]

OVER: Final = frozenset({Phase.ABORTED, Phase.DONE})
"""Phases that nothing follows."""
_NAME: Final = 40
"""Characters of a bundle's name in a rollout's."""
_BUSY: Final = frozenset({Outcome.AWAY, Outcome.GOING})
_AT_ONCE: Final = (Stage(share=1.0),)


def begin(
    state: State,
    facts: Mapping[Key, Facts],
    *,
    release: Release,
    group: str,
    policy: Policy,
    who: str,
    members: Collection[Key],
    reverts: str | None = None,
) -> Rollout:
    """Begin a rollout; a controller asks the first devices.

    Args:
        state: where it is kept.
        facts: of the devices: stages are cut so that each has some that are online now and may be asked: that are not
            in the penalty box, and not on their way in another rollout.
        release: what is to be rolled out.
        group: of devices, as `members` reads it.
        policy: its rules.
        who: begins it.
        members: of the group, as they are now.
        reverts: the rollout that it takes back.

    Raises:
        FleetError: there is no device in the group, or the state cannot be written.
    """
    if not members:
        raise FleetError(f"Nothing was heard of any device of {group!r}.", mend="See `tinysight watch`, and the group.")
    salt = secrets.token_hex(8)
    held = _held(state, boxed=reverts is None)
    online = [key for key in members if key in facts and facts[key].online and key not in held]
    name = re.sub(r"[^a-z0-9-]+", "-", release.name.lower()).strip("-")[:_NAME] or "bundle"
    rollout = Rollout(
        id=f"{name}-{release.release}-{secrets.token_hex(2)}",
        group=group,
        target=release.target,
        bundle=release.digest,
        size_bytes=release.size_bytes,
        salt=salt,
        policy=policy,
        cutoffs=cutoffs(policy.stages, salt, online or members),
        begun_at=utc_now(),
        begun_by=who,
        reverts=reverts,
    )
    state.begin(rollout, who=who)
    return rollout


def pause(state: State, id_: str, *, who: str, reason: str = "") -> Rollout:
    """Send no wish and open no stage until `resume`; devices that were asked go on.

    Raises:
        FleetError: it is over or paused, or the state cannot be written.
    """

    def edit(rollout: Rollout) -> Rollout:
        _refuse(rollout, {*OVER, Phase.PAUSED})
        return replace(rollout, phase=Phase.PAUSED, reason=reason or f"Paused by {who}.")

    return _act(state, id_, edit, who=who, what="pause", reason=reason)


def resume(state: State, id_: str, *, who: str, reason: str = "") -> Rollout:
    """Go on after `pause`, or after a gate has halted it: what was settled before counts no more.

    Raises:
        FleetError: it is over or runs, or the state cannot be written.
    """

    def edit(rollout: Rollout) -> Rollout:
        _refuse(rollout, {*OVER, Phase.RUNNING})
        now_s = rollout.clock_s
        return replace(rollout, phase=Phase.RUNNING, reason="", window_s=now_s, soaked_from_s=None)

    return _act(state, id_, edit, who=who, what="resume", reason=reason)


def abort(state: State, id_: str, *, who: str, reason: str = "") -> Rollout:
    """End it: wishes that are not settled are taken back, what is confirmed stays.

    Raises:
        FleetError: it is over, or the state cannot be written.
    """

    def edit(rollout: Rollout) -> Rollout:
        _refuse(rollout, OVER)
        return replace(rollout, phase=Phase.ABORTED, reason=reason or f"Aborted by {who}.")

    return _act(state, id_, edit, who=who, what="abort", reason=reason)


def approve(state: State, id_: str, *, who: str, reason: str = "") -> Rollout:
    """Let the open stage begin, or the one after it when its time has come, if it waits for approval.

    No later one: who approves has seen how the stage before it goes.

    Raises:
        FleetError: it is over, or neither waits, or the state cannot be written.
    """

    def edit(rollout: Rollout) -> Rollout:
        _refuse(rollout, OVER)
        policy, coming = rollout.policy, rollout.stage + 1
        waiting = sorted(each for each in policy.hold if each > rollout.approved and each >= rollout.stage)
        if not waiting:
            raise FleetError(f"No stage of {rollout.id} waits for approval.", mend="See `tinysight rollout status`.")
        if waiting[0] > coming:
            raise FleetError(
                f"No stage of {rollout.id} waits for approval now. {named(rollout, waiting[0])} will, and open is "
                f"{named(rollout, rollout.stage).lower()}.",
                mend="Approve it once the one before it is open, and you have seen how that goes.",
            )
        running = rollout.phase is Phase.RUNNING
        return replace(rollout, approved=waiting[0], reason="" if running else rollout.reason)

    return _act(state, id_, edit, who=who, what="approve", reason=reason)


def revert(
    state: State,
    facts: Mapping[Key, Facts],
    id_: str,
    *,
    release: Release | None,
    who: str,
    reason: str = "",
    policy: Policy | None = None,
    reverted: int | None = None,
) -> Rollout:
    """Abort a rollout, and begin one that brings those that run its bundle to another release.

    It is a rescue: all at once unless a policy is given, without a window, and those in the penalty box as well. What
    is taken back is no measure for what comes, so latency and agreement halt nothing then.

    Args:
        state: where both are kept.
        facts: of the devices.
        id_: of the rollout that is taken back.
        release: what they shall run: of the same name, under a higher number, for devices go back by no other.
        who: does it.
        reason: why.
        policy: of the new rollout, but for its window; None for that of the old in one stage without approval.
        reverted: the number of the release that is taken back; None to find it in what the devices say.

    Raises:
        FleetError: the release is none to go back by, no device runs the bundle, or the state cannot be written.
    """
    old = state.rollout(id_)
    numbers = {each.update.bundle.release for each in facts.values() if _has(each, old.bundle)}  # type: ignore[union-attr]  # `_has` looked
    number = max(numbers, default=None) if reverted is None else reverted
    if release is None or release.digest == old.bundle or (number is not None and release.release <= number):
        above = "a higher number" if number is None else f"--release {number + 1} or higher"
        what = "No release is named" if release is None else f"{release.target} has release {release.release}, which is"
        what += " to go back by." if release is None else f" not above that of {old.target}: devices would refuse it."
        raise FleetError(
            what, mend=f"Sign the old content again: `tinysight release add OLD --release N` with {above}, and name it."
        )
    wishes = state.wishes(id_)
    back = {key for key in wishes if key in facts and facts[key].active == old.bundle}
    if not back:
        raise FleetError(f"No device runs what {id_} brought.", mend=f"Say `tinysight rollout abort {id_}` alone.")
    if old.phase not in OVER:
        abort(state, id_, who=who, reason=reason)
    return begin(
        state,
        facts,
        release=release,
        group=old.group,
        policy=replace(policy or _rescue(old.policy), window=None),
        who=who,
        members=back,
        reverts=id_,
    )


def _rescue(policy: Policy) -> Policy:
    return replace(policy, stages=_AT_ONCE, hold=(), max_latency_regression=None, max_agreement_drop=None)


def _held(state: State, *, boxed: bool) -> set[Key]:
    """Devices that a new rollout would not ask: in the penalty box, if that counts, or on their way in another one."""
    now = utc_now()
    held = {key for key, each in state.boxed().items() if each.until > now} if boxed else set()
    for rollout in state.rollouts():
        if rollout.phase not in OVER:
            held |= {key for key, wish in state.wishes(rollout.id).items() if wish.outcome in _BUSY}
    return held


def _has(facts: Facts, bundle: str) -> bool:
    return facts.update is not None and facts.update.bundle is not None and facts.update.bundle.digest == bundle


def _refuse(rollout: Rollout, phases: Collection[Phase]) -> None:
    if rollout.phase in phases:
        said = {Phase.RUNNING: "runs", Phase.ABORTED: "is aborted", Phase.DONE: "is done"}
        what = f"{rollout.id} {said.get(rollout.phase, f'is {rollout.phase}')} already."
        raise FleetError(what, mend=f"See `tinysight rollout status {rollout.id}`.")


def _act(state: State, id_: str, edit: Callable[[Rollout], Rollout], *, who: str, what: str, reason: str) -> Rollout:
    return state.change(id_, edit, who=who, what=what, detail={"reason": reason} if reason else {})
