"""What a device's reports mean for a rollout. Pure.

In: the rollout, what the device was asked for, what is known of it now.  Out: a `Verdict`, and the `Wish` with it.

A device may lie, and a broker may say again what was true before. So a report counts only from the revision on that was
asked for; one that says that it runs the bundle has to say as well how it came to it; a figure that cannot be is none.
What has ended does not begin again: a device that failed or was silent may still confirm, and one that has confirmed
fails when it does not run the bundle any more.

A device's time runs from when it was there and the broker had the wish: `Wish.reached_s`, which the controller keeps
null until then. Nobody is silent to whom nothing was said.
"""

import math
from typing import Final

from msgspec.structs import replace

from tinysight_contract.orders import DesiredState
from tinysight_contract.updates import Gate, Update, UpdateState
from tinysight_deploy.fleet.types import Facts, Outcome, Rollout, Verdict, Wish

__all__ = ["ENDED", "FAILING", "judge", "plain", "settled"]

FAILING: Final = frozenset({Outcome.FAILED, Outcome.SILENT})
ENDED: Final = FAILING | {Outcome.CONFIRMED}

MOST_DUE_S: Final = 26 * 3600.0
"""For which a device may wait for its window: a day, and what clocks and time zones are off."""
_MAX_TEXT: Final = 300
_NOT_THERE: Final = Verdict(outcome=Outcome.AWAY, reason="It has not been there since it was asked.")
_ASKED: Final = Verdict(outcome=Outcome.GOING, reason="It was asked, and has not said yet that it knows.")
_GONE: Final = Verdict(
    outcome=Outcome.FAILED, reason="lost: It ran the bundle, and does not any more. Look into its log."
)
_AGAIN: Final = Verdict(outcome=Outcome.FAILED, reason="again: It has failed, and tries once more.")
_UNPROVED: Final = Verdict(
    outcome=Outcome.GOING, reason="It says that it runs the bundle, and not how it has come to it."
)
_LEFT: Final = Verdict(outcome=Outcome.LEFT, reason="Somebody has asked for something else since.")
_ON_ITS_WAY: Final = {
    UpdateState.QUEUED: "It is queued",
    UpdateState.DOWNLOADING: "It is fetched",
    UpdateState.VERIFIED: "It is fetched and verified",
    UpdateState.SELFTEST: "It is in its self-test",
    UpdateState.TRIAL: "It is on trial",
}
_REFUSED, _ROLLED_BACK = DesiredState.REFUSED, DesiredState.ROLLED_BACK
_CONFIRMED: Final = Outcome.CONFIRMED
_STOOD: Final = UpdateState.CONFIRMED


def judge(rollout: Rollout, wish: Wish, facts: Facts, *, now_s: float) -> Verdict:
    """What one device's reports mean.

    Args:
        rollout: that asks.
        wish: what the device was asked for.
        facts: what is known of it.
        now_s: the rollout's clock.
    """
    bundle, desired, revision = rollout.bundle, facts.desired, wish.revision
    if desired is not None and desired.bundle != bundle and desired.revision >= revision:
        return _LEFT
    if facts.revision < revision:  # what it reports is of the time before
        return _unheard(rollout, wish, facts, now_s)
    update = facts.update
    if facts.active == bundle:
        release = None if update is None else update.bundle
        mine = release is not None and release.digest == bundle
        proved = mine and update is not None and update.state is _STOOD
        if proved or wish.before == bundle or wish.outcome is _CONFIRMED:
            most = rollout.policy.max_drift
            if most is not None and facts.metered == bundle and facts.drift is not None and facts.drift > most:
                return _drifts(facts.drift, most)
            if mine and update is not None:
                return Verdict(outcome=_CONFIRMED, slowdown=_slowdown(update), agreement=_agreement(update))
            return Verdict(outcome=_CONFIRMED, reason="" if wish.before != bundle else "It ran the bundle before.")
    elif wish.outcome is _CONFIRMED:
        return _failed(rollout, facts) if _is_refused(facts) else _GONE
    if _is_refused(facts):
        return _failed(rollout, facts)
    if wish.outcome is Outcome.FAILED:
        return _AGAIN
    return _late(rollout, wish, facts, now_s) or _going(rollout, facts)


def settled(wish: Wish, verdict: Verdict, *, now_s: float) -> Wish:
    """The wish as it is to be kept after this verdict; the same one when nothing is new.

    Of a device that had confirmed and fails, the time is that of its failure.
    """
    outcome, was = verdict.outcome, wish.outcome
    ended = outcome in ENDED
    reached_s, settled_s = wish.reached_s, wish.settled_s
    if outcome is was and (reached_s is not None or not (ended or outcome is Outcome.GOING)):
        return wish
    if reached_s is None and (ended or outcome is Outcome.GOING):
        reached_s = now_s
    if ended and (settled_s is None or (was is _CONFIRMED and outcome is not was)):
        settled_s = now_s
    return replace(wish, outcome=outcome, reached_s=reached_s, settled_s=settled_s)


def plain(text: str) -> str:
    """What a device says, for people: one line of bounded length without control characters."""
    text = text[:_MAX_TEXT]
    return text if text.isprintable() else "".join(each if each.isprintable() else " " for each in text)


def _unheard(rollout: Rollout, wish: Wish, facts: Facts, now_s: float) -> Verdict:
    """It has reported nothing since it was asked."""
    if wish.outcome is _CONFIRMED:
        return Verdict(outcome=_CONFIRMED, reason="It had confirmed, and nothing newer is known of it.")
    if wish.outcome is Outcome.FAILED:
        return Verdict(outcome=Outcome.FAILED, reason="failed: It had failed, and nothing newer is known of it.")
    if wish.reached_s is None and not facts.online:
        return _NOT_THERE
    return _late(rollout, wish, facts, now_s) or _ASKED


def _late(rollout: Rollout, wish: Wish, facts: Facts, now_s: float) -> Verdict | None:
    """That it has had its time, which runs from when it was reached; None while it has some."""
    policy = rollout.policy
    since_s = now_s - (now_s if wish.reached_s is None else wish.reached_s)
    most_s = policy.deadline_s
    if policy.window is not None and facts.revision >= wish.revision:
        most_s = max(most_s, MOST_DUE_S) if facts.due else most_s + MOST_DUE_S
    if since_s < most_s and wish.outcome is not Outcome.SILENT:
        return None
    going = "" if facts.revision < wish.revision else f" Its last word: {_going(rollout, facts).reason}"
    there = "" if facts.online is not False else " It is offline."
    what = f"silent: No outcome within {policy.deadline_s:.10g} s.{going}{there} Look whether it is well."
    return Verdict(outcome=Outcome.SILENT, reason=what)


def _going(rollout: Rollout, facts: Facts) -> Verdict:
    update = facts.update
    if update is not None and update.state in _ON_ITS_WAY and _is_of(update, rollout):
        share = f", {update.share:.0%} are there" if update.state is UpdateState.DOWNLOADING else ""
        return Verdict(outcome=Outcome.GOING, reason=f"{_ON_ITS_WAY[update.state]}{share}.")
    if facts.due and rollout.policy.window is not None:
        return Verdict(outcome=Outcome.GOING, reason=f"It waits for {rollout.policy.window} in its local time.")
    if facts.active == rollout.bundle:
        return _UNPROVED
    state = "nothing" if facts.state is None else facts.state.value
    return Verdict(outcome=Outcome.GOING, reason=plain(facts.reason) or f"It says: {state}.")


def _is_refused(facts: Facts) -> bool:
    return facts.state is _REFUSED or facts.state is _ROLLED_BACK


def _failed(rollout: Rollout, facts: Facts) -> Verdict:
    """Why it has not become active, or is not any more."""
    update, state = facts.update, facts.state
    code = "refused" if state is None else state.value
    reason = facts.reason
    slowdown = agreement = None
    if update is not None and _is_of(update, rollout) and update.code is not None:
        code, reason = update.code.value, update.reason or reason
        slowdown, agreement = _slowdown(update), _agreement(update)
    what = f"{code}: {plain(reason) or 'It does not say why. Look into its log.'}"
    return Verdict(outcome=Outcome.FAILED, reason=what, slowdown=slowdown, agreement=agreement)


def _drifts(drift: float, most: float) -> Verdict:
    what = (
        f"drifts: It finds what is {drift:.3g} from the signed reference, at most {most:.10g} may be. Look at its view."
    )
    return Verdict(outcome=Outcome.FAILED, reason=what)


def _is_of(update: Update, rollout: Rollout) -> bool:
    release = update.bundle
    return update.target == rollout.target if release is None else release.digest == rollout.bundle


def _slowdown(update: Update) -> float | None:
    """Its run against the bundle's before, on trial or else in the self-test; None if that was not told."""
    told = update.gates.get
    ratio = _ratio(told("trial_p95_ms"))
    return _ratio(told("p95_ms")) if ratio is None else ratio


def _ratio(gate: Gate | None) -> float | None:
    if gate is None or (before := gate.before) is None or before <= 0.0 or gate.value < 0.0:
        return None
    ratio = gate.value / before
    return ratio if ratio < math.inf else None


def _agreement(update: Update) -> float | None:
    gate = update.gates.get("agreement")
    return gate.value if gate is not None and 0.0 <= gate.value <= 1.0 else None
