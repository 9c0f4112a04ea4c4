"""Why a device is, in a rollout, where it is: each gate with its figure. Pure.

In: what `decide` had of the device, and its `Decision`.  Out: `Check`s in the order in which they decide: whether the
device is asked, what has become of it, what the open stage waits for.
"""

from typing import Final

from tinysight_contract.updates import Gate
from tinysight_deploy.fleet.deciding.buckets import bucket, stage_of
from tinysight_deploy.fleet.deciding.gates import OF_ALL, share
from tinysight_deploy.fleet.deciding.judge import ENDED, judge, plain
from tinysight_deploy.fleet.deciding.waiting import is_held
from tinysight_deploy.fleet.types import Check, Decision, Facts, Key, Outcome, Phase, Rollout, Verdict, Wish

__all__ = ["why"]

_UNITS: Final = {"p95_ms": " ms", "trial_p95_ms": " ms", "memory_mib": " MiB"}
_LEAST: Final = frozenset({"agreement", "frames"})
"""Gates of a device that ask for so much at least."""
_ORDER: Final = ("golden", "p95_ms", "memory_mib", "frames", "trial_p95_ms", "agreement")


def why(  # noqa: PLR0917 -- in the order of `decide`
    rollout: Rollout,
    key: Key,
    facts: Facts | None,
    wish: Wish | None,
    decision: Decision,
    held: str | None = None,
    *,
    now_s: float,
    member: bool = True,
) -> list[Check]:
    """Each thing that decides about one device.

    Args:
        rollout: as it is.
        key: of the device.
        facts: what is known of it; None if nothing is.
        wish: what it was asked for; None if it was not.
        decision: of the rollout, of this turn.
        held: why it must not be asked; None if it may be.
        now_s: the rollout's clock.
        member: whether it is of the group.
    """
    known = Facts() if facts is None else facts
    checks = [Check(name="member", ok=member, value=rollout.group, what="" if member else _not_member(rollout, wish))]
    if not member and wish is None:
        return checks
    checks.append(_phase(rollout))
    checks += _place(rollout, key, asked=wish is not None, now_s=now_s)
    if wish is None:
        spared = held is not None and not is_held(rollout, held)
        value = "none" if held is None else "not now" if spared else "held"
        checks.append(Check(name="penalty", ok=held is None or spared, value=value, what=held or ""))
        held = None if spared else held
        checks.append(_rate(rollout, key, decision, held))
        return checks
    verdict = decision.verdicts.get(key) or judge(rollout, wish, known, now_s=now_s)
    checks.append(_asked(wish, now_s))
    checks.append(_reached(wish, known, now_s))
    checks.append(_heard(wish, known))
    checks += _update(known)
    checks += _figures(rollout, known, verdict)
    checks.append(_outcome(verdict, wish, now_s))
    named = f"stage {rollout.stage}: "
    return checks + [each if each.name == OF_ALL else _renamed(each, named) for each in decision.checks]


def _not_member(rollout: Rollout, wish: Wish | None) -> str:
    if wish is not None:
        return "It was asked while it was of the group, and counts on."
    return f"It is not of {rollout.group}, so nobody asks it. `tinysight device list` tells the groups."


def _phase(rollout: Rollout) -> Check:
    runs = rollout.phase in {Phase.RUNNING, Phase.DONE}
    return Check(name="rollout", ok=runs, value=rollout.phase.value, what=rollout.reason)


def _place(rollout: Rollout, key: Key, *, asked: bool, now_s: float) -> list[Check]:
    """Which stage a device belongs to, whether that is open, and whether somebody has to open it."""
    place, policy = bucket(rollout.salt, key), rollout.policy
    mine = stage_of(rollout.cutoffs, place)
    is_open = rollout.stage >= mine
    checks = [
        Check(
            name="stage",
            ok=asked or is_open,
            value=f"{mine} ({policy.stages[mine]})",
            limit=f"open is {rollout.stage} ({policy.stages[min(rollout.stage, len(policy.stages) - 1)]})",
            what=f"Its place is {place:.4f}, the stage ends at {rollout.cutoffs[mine]:.4f}. "
            f"Stage {rollout.stage} was opened {_span(now_s - rollout.opened_s)} ago.",
        )
    ]
    waits = [each for each in policy.hold if rollout.approved < each <= mine]
    if policy.hold:
        what = f"Stage {min(waits)} waits for somebody: `tinysight rollout approve` opens it." if waits else ""
        if waits and min(waits) > rollout.stage + 1:
            what = f"Stage {min(waits)} will wait for somebody: `tinysight rollout approve`, once its turn has come."
        checks.append(
            Check(name="approval", ok=asked or not waits, value="waits" if waits else "not needed", what=what)
        )
    return checks


def _rate(rollout: Rollout, key: Key, decision: Decision, held: str | None) -> Check:
    """Whether it is asked in this turn, and whether only the pace is in the way."""
    policy = rollout.policy
    limit = f"{policy.per_min} a minute, {policy.at_once} at once"
    if key in decision.ask:
        return Check(name="rate", ok=True, value="now", limit=limit, what="It is asked now.")
    mine = stage_of(rollout.cutoffs, bucket(rollout.salt, key))
    turn = rollout.phase is Phase.RUNNING and held is None and rollout.stage >= mine
    halts = decision.change is not None and decision.change.phase is not None
    if turn and not halts and rollout.approved >= max((each for each in policy.hold if each <= mine), default=-1):
        return Check(name="rate", ok=False, value="waits", limit=limit, what="It is asked when others are through.")
    return Check(name="rate", ok=None, value="not its turn", limit=limit)


def _asked(wish: Wish, now_s: float) -> Check:
    what = f"Revision {wish.revision} of its desired state, in stage {wish.stage}."
    return Check(name="asked", ok=True, value=f"{_span(now_s - wish.sent_s)} ago", what=what)


def _reached(wish: Wish, facts: Facts, now_s: float) -> Check:
    state = {True: "online", False: "offline", None: "not known"}[facts.online]
    if wish.reached_s is None and not facts.online and facts.revision < wish.revision:
        what = "It has not been there since it was asked. It counts once it is; the broker keeps the wish."
        return Check(name="reached", ok=None, value=state, what=what)
    since_s = now_s if wish.reached_s is None else wish.reached_s
    return Check(name="reached", ok=True, value=state, what=f"Known to be there {_span(now_s - since_s)} ago.")


def _heard(wish: Wish, facts: Facts) -> Check:
    """What it says to the wish."""
    state = "nothing" if facts.state is None else facts.state.value
    heard = facts.revision >= wish.revision
    value = f"revision {facts.revision}, {state}" + (", waits for its window" if facts.due else "")
    what = plain(facts.reason) if heard else "What it reports is of the time before it was asked."
    if facts.desired is None:
        what = f"{what} The broker keeps no desired state of it.".strip()
    elif facts.desired.revision != wish.revision:
        what = f"{what} The broker keeps revision {facts.desired.revision}.".strip()
    return Check(name="reported", ok=heard or None, value=value, limit=f"revision {wish.revision}", what=what)


def _update(facts: Facts) -> list[Check]:
    """How far the newest bundle there is, and the figures of its self-test and its trial."""
    update = facts.update
    if update is None:
        return []
    code = "" if update.code is None else f", {update.code.value}"
    bundle = update.target if update.bundle is None else f"{update.bundle.name} {update.bundle.version}"
    moved = f", {update.moved_bytes} bytes moved" if update.moved_bytes else ""
    ok = None if update.code is None and update.state.value != "confirmed" else update.code is None
    checks = [
        Check(
            name="update", ok=ok, value=f"{plain(bundle)}: {update.state.value}{code}{moved}", what=plain(update.reason)
        )
    ]
    return checks + [_gate(name, update.gates[name]) for name in _ORDER if name in update.gates]


def _gate(name: str, gate: Gate) -> Check:
    unit = _UNITS.get(name, "")
    before = "" if gate.before is None else f", {gate.before:.4g}{unit} before"
    limit = f"{'at least' if name in _LEAST else 'at most'} {gate.limit:.4g}{unit}"
    return Check(name=name, ok=gate.ok, value=f"{gate.value:.4g}{unit}{before}", limit=limit)


def _figures(rollout: Rollout, facts: Facts, verdict: Verdict) -> list[Check]:
    """What it tells that its stage is judged by, against what the middle of the stage may be."""
    policy, checks = rollout.policy, []
    if verdict.slowdown is not None and policy.max_latency_regression is not None:
        most = 1.0 + policy.max_latency_regression
        checks.append(
            Check(
                name="slowdown",
                ok=verdict.slowdown <= most,
                value=f"{verdict.slowdown:.4g} times",
                limit=f"at most {most:.4g} times",
                what="The stage's median decides.",
            )
        )
    if verdict.agreement is not None and policy.max_agreement_drop is not None:
        least = 1.0 - policy.max_agreement_drop
        checks.append(
            Check(
                name="seen alike",
                ok=verdict.agreement >= least,
                value=share(verdict.agreement),
                limit=f"at least {share(least)}",
                what="The stage's median decides.",
            )
        )
    if policy.max_drift is not None:
        mine = facts.metered == rollout.bundle and facts.active == rollout.bundle and facts.drift is not None
        drift = facts.drift if mine else None
        checks.append(
            Check(
                name="drift",
                ok=None if drift is None else drift <= policy.max_drift,
                value="not told" if drift is None else f"{drift:.3g}",
                limit=f"at most {policy.max_drift:.4g}",
            )
        )
    return checks


def _outcome(verdict: Verdict, wish: Wish, now_s: float) -> Check:
    ok = True if verdict.outcome is Outcome.CONFIRMED else False if verdict.outcome in ENDED else None
    since = "" if wish.settled_s is None or verdict.outcome not in ENDED else f", {_span(now_s - wish.settled_s)} ago"
    return Check(name="outcome", ok=ok, value=f"{verdict.outcome.value}{since}", what=verdict.reason)


def _renamed(check: Check, named: str) -> Check:
    return Check(name=f"{named}{check.name}", ok=check.ok, value=check.value, limit=check.limit, what=check.what)


def _span(seconds: float) -> str:
    """A time that has passed, such as ``3.5 h``."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{round(seconds / size, 1):.10g} {unit}"
    return f"{max(seconds, 0.0):.0f} s"
