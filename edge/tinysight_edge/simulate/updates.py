"""A device that does not exist and yet updates: it heeds ``desired``, checks what is signed, tells what becomes of it.

In: ``desired`` as it comes over its own session, a real repository.  Out: ``reported`` through every state to
``confirmed`` or to how it failed, then ``info`` with the new bundle and ``model`` with what that sees. What decides is
a real device's own code: which wish counts (`wanted`), when (`window`), what becomes of it (`wish`), what is signed
(`offered`, `trust`, with a root, a cache and a floor of its own), and what follows (`update`). Simulated are the bytes,
the self-test and the trial: they take a while, and end as the device's `Behaviour` has it.

All runs in the crowd's thread but the check of signatures, which the crowd gives to another.
"""

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from time import thread_time
from typing import ClassVar, Final

from msgspec.structs import replace

from tinysight_contract import topics as t
from tinysight_contract.errors import ContractError, UpdateError
from tinysight_contract.messages import Desired, DesiredState, Info, Reported, utc_now
from tinysight_contract.updates import Code, Update, UpdateState
from tinysight_edge.config.wanted import is_news, read_desired
from tinysight_edge.simulate.behave import Behaviour, place_of
from tinysight_edge.simulate.figures import claimed, metrics, of_test, of_trial, recorded
from tinysight_edge.simulate.simulate import Device
from tinysight_edge.simulate.update_plan import Hub, Scratch, UpdatePlan
from tinysight_edge.update.disk import Disk
from tinysight_edge.update.offered import ask, misfit
from tinysight_edge.update.signed import Machine
from tinysight_edge.update.sources import Source
from tinysight_edge.update.trust import Offer, new_trust
from tinysight_edge.update.update import (
    State,
    attempt,
    confirm,
    end,
    ended,
    outcome_of,
    progress,
    project_of,
    queue,
    refusal,
    tested,
)
from tinysight_edge.update.window import Hours
from tinysight_edge.update.wish import Answer, Standing, Wish, answer, pause_s

__all__ = ["UpdatePlan", "UpdatingDevice"]

SHARES: Final = {
    UpdateState.QUEUED: 0.05,
    UpdateState.DOWNLOADING: 0.3,
    UpdateState.VERIFIED: 0.05,
    UpdateState.SELFTEST: 0.2,
    UpdateState.TRIAL: 0.4,
}
"""Of the time that an update takes, by the state in which it is spent."""
LOOK_S: Final = 30.0
"""So often it looks whether its window is open."""
MUTE: Final = {Behaviour.SILENT, Behaviour.VANISH}
NOT_HERE: Final = "There was no bundle here that a difference starts from."


@dataclass(eq=False, kw_only=True)
class UpdatingDevice(Device):
    """One device, its session, and its store's state. Change `behave` by the crowd's `behave`, at any time.

    Attributes:
        hub: the crowd.
        machine: what it is, for what a release needs.
        behave: what it does with a wish.
        state: what it has decided of bundles; the real thing, but in memory.
        asked: the newest desired state that it has taken; None when there is none.
        acted: by revision, how often it began to install what was asked for; more than once is a mistake.
        passed_over: desired states that came again, or were older than the one it knows.
        wrong: bundles that it made active although they were not what was wished for, or not what was signed.
        verify_s: processor time of its checks of signatures.
        checks: how many these were.
        told: the last of ``reported``.
    """

    KEPT: ClassVar = (*Device.KEPT, t.ReportedTopic, t.ModelTopic)

    plan: UpdatePlan
    hub: Hub
    machine: Machine
    behave: Behaviour = Behaviour.SOUND
    disk: Disk = field(default_factory=Scratch)
    state: State = field(default_factory=State)
    asked: Desired | None = None
    acted: Counter[int] = field(default_factory=Counter)
    passed_over: int = 0
    wrong: int = 0
    verify_s: float = 0.0
    checks: int = 0
    told: Reported | None = None
    _mute: bool = False
    _unread: str = ""
    _standing: Standing = field(default_factory=Standing)
    _hours: Hours = field(default_factory=lambda: Hours(lambda: True))
    _offer: Offer | None = None
    _errand: int = 0  # rises with whatever makes that nobody waits any more for what was begun before
    _asking: Wish | None = None
    _tried: tuple[Wish, Update] | None = None
    _failures: int = 0
    _sees_since: datetime = field(default_factory=utc_now)

    def __post_init__(self) -> None:
        self._place = place_of(self.name)
        self._first = self.plan.active or recorded(self.recording.info)
        self.state = State(active=self._first, floor={project_of(self._first.target): self._first.release})
        if self.behave is Behaviour.OFFLINE:
            self.begins_s = self.plan.offline_s

    # What the crowd calls.

    def greet(self) -> None:
        """See `Device`; it asks for its desired state, and says what became of the last."""
        self._connected.subscribe(str(t.DesiredTopic(*self._me)))
        super().greet()
        self._report(again=True)
        self._tell_model()

    def hear(self, payload: bytes) -> None:
        """A desired state came. Which one counts is a real device's rule."""
        self._unread = ""
        if not payload:
            self.asked = None
        else:
            try:
                asked = read_desired(payload)
            except ContractError as error:
                self._unread = str(error)
                self._report()
                return
            if not is_news(asked, None if self.asked is None else self.asked.revision):
                self.passed_over += 1
                return
            self.asked = asked
        self.turn()

    def health(self) -> None:
        """See `Device`; and what its model has found."""
        super().health()
        self._tell_model()

    def stop(self) -> None:
        """See `Device`."""
        self._mute = False
        super().stop()

    def changed(self, behave: Behaviour) -> None:
        """It behaves in another way from now on; what it owed is told."""
        self.behave, self._mute = behave, False
        self.turn()

    @property
    def trust(self) -> Path:
        """The folder of what it knows of the repository's signatures; with `disk` it is a `Keeper`."""
        return self.hub.folder / self.name

    # What it decides; the order is that of the real updates' thread.

    @property
    def wish(self) -> Wish | None:
        """The bundle that is asked for."""
        asked = self.asked
        return None if asked is None or asked.bundle is None else Wish(asked.bundle, asked.target, asked.window)

    def turn(self) -> None:
        """Look at what is wished for, and begin what is to be done."""
        wish, coming = self.wish, self.state.candidate
        if self._mute:
            return
        if wish is not None and self._is_news(wish) and self.behave in {*MUTE, Behaviour.LIAR}:
            self._betray()
            return
        digest = None if coming is None or coming.bundle is None else coming.bundle.digest
        if self._standing.is_over(digest, wish) and coming is not None:
            why = "It is not asked for any more." if wish is None else "Another bundle was asked for since."
            self.state = end(self.state, utc_now(), UpdateState.FAILED, code=Code.SUPERSEDED, reason=why)
            self._errand += 1
        if self._asking is not None and self._asking != wish:
            self._asking, self._errand = None, self._errand + 1
        if self._tried is not None and self._tried[0] != wish:
            self._tried, self._failures, self._errand = None, 0, self._errand + 1
        if self._asking is None and self._tried is None:
            self._fetch()
        self._report()

    def _is_news(self, wish: Wish) -> bool:
        """Whether it is for something else than what runs or comes."""
        coming = self.state.candidate
        held = [self.state.active, None if coming is None else coming.bundle]
        return all(each is None or each.digest != wish.digest for each in held)

    def _betray(self) -> None:
        """Do what no sound device does."""
        self._report()
        if self.behave in MUTE:
            self._mute = True
            if self.behave is Behaviour.VANISH:
                self.hub.later(self, 0.0, partial(self.hub.go_away, self))

    def _answer(self, wish: Wish) -> Answer:
        tried = self._tried[1] if self._tried is not None and self._tried[0] == wish else None
        opening = self._hours.opening(wish.digest, wish.window)
        return answer(wish, self.state, repository=self.plan.repository, tried=tried, opening=opening)

    def _fetch(self) -> None:
        """Ask the repository, if that is to be done."""
        wish = self.wish
        if wish is None or self.state.candidate is not None:
            return
        if (due_at := (answered := self._answer(wish)).due_at) is not None:
            self._errand += 1
            wait_s = min(max((due_at - utc_now()).total_seconds(), 0.0), LOOK_S)
            self.hub.later(self, wait_s, partial(self._again, self._errand))
            return
        if not answered.fetch:
            return
        self._asking, self._errand = wish, self._errand + 1
        self._standing.wished(wish.digest)
        self.hub.apart(self, partial(self._check, wish, self.state), partial(self._checked, self._errand, wish))

    def _check(self, wish: Wish, state: State, source: Source) -> tuple[Offer, State] | UpdateError:
        """What is signed; in another thread, one of a device at a time."""
        begun_s = thread_time()
        try:
            new_trust(self.trust, self.plan.root, self.disk)
            return ask(self, source, wish.target or "", digest=wish.digest, state=state, synced=True)
        except UpdateError as error:
            return error
        finally:
            self.verify_s, self.checks = self.verify_s + thread_time() - begun_s, self.checks + 1

    def _checked(self, errand: int, wish: Wish, found: tuple[Offer, State] | UpdateError) -> None:
        """Take in what the repository said."""
        if errand != self._errand:
            return
        self._asking, now = None, utc_now()
        if not isinstance(found, UpdateError):
            offer, state = found
            self.state = replace(self.state, clock_floor=state.clock_floor)
            no = refusal(self.state, offer.release) or misfit(offer.release, offer.signed.requires, self.machine)
            if no is None:
                self._offer, self._tried, self._failures = offer, None, 0
                self.state = queue(self.state, offer.release, now, needs=offer.signed.requires)
                self.acted[0 if self.asked is None else self.asked.revision] += 1
                self._report()
                self._wait(UpdateState.QUEUED)
                return
            found = no
        told = Update(
            target=wish.target or "", state=outcome_of(found.code), at=now, code=found.code, reason=str(found)
        )
        self.state, self._failures = ended(self.state, told), self._failures + 1
        self._tried = wish, told
        self.hub.later(self, pause_s(self._failures, self._place), partial(self._again, errand))
        self._report()

    def _again(self, errand: int) -> None:
        if errand == self._errand and not self._mute:
            self._fetch()
            self._report()

    def _wait(self, state: UpdateState) -> None:
        delay_s = self.plan.update_s * SHARES[state] * (2 + 2 * self._place) / 3
        self.hub.later(self, delay_s, partial(self._go_on, self._errand))

    def _go_on(self, errand: int) -> None:
        """The candidate's next step."""
        coming, now = self.state.candidate, utc_now()
        if errand != self._errand or coming is None or self._mute:
            return
        if coming.state is UpdateState.QUEUED:
            self.state = progress(self.state, now, UpdateState.DOWNLOADING)
        elif coming.state is UpdateState.DOWNLOADING:
            moved_bytes, why_full = self._moved()
            self.state = progress(self.state, now, UpdateState.VERIFIED, moved_bytes=moved_bytes, why_full=why_full)
        elif coming.state is UpdateState.VERIFIED:
            self.state = attempt(self.state, now)
        elif coming.state is UpdateState.SELFTEST:
            self.state = tested(self.state, of_test(self.behave, self._place), now)
            if self.state.candidate is not None:
                self.state = attempt(self.state, now)
        else:
            self._judge(now)
        self._report()
        if self.state.candidate is not None:
            self._wait(self.state.candidate.state)

    def _moved(self) -> tuple[int, str]:
        """Bytes that a real device would have moved, and why not less."""
        if self._offer is None:
            return 0, ""
        active = self.state.active
        delta = None if active is None else self._offer.signed.deltas.get(active.digest)
        return (self._offer.release.size_bytes, NOT_HERE) if delta is None else (delta.size_bytes, "")

    def _judge(self, now: datetime) -> None:
        """Its trial is over."""
        if self.behave is Behaviour.CRASH:
            while self.state.candidate is not None:  # each attempt is counted before it takes the device down
                self.state = attempt(self.state, now)
            return
        gates = of_trial(self.behave, self._place, cameras=self.plan.cameras)
        self.state = confirm(self.state, gates, now)
        active, wish = self.state.active, self.wish
        signed = None if self._offer is None else self._offer.release
        if active is None or wish is None or active.digest != wish.digest or active != signed:
            self.wrong += 1
        self._sees_since = now
        if self.ready:
            self._say(t.InfoTopic(*self._me), self._info())
        self._tell_model()

    # What it says.

    def _publish(self, topic: t.Topic, payload: bytes, *, qos: int) -> int:
        return 0 if self._mute else super()._publish(topic, payload, qos=qos)

    def _tell_model(self) -> None:
        active = self.state.active
        if active is None or not self.ready:
            return
        behave = self.behave if active != self._first else Behaviour.SOUND
        told = metrics(active, behave, self._place, boot_id=self.boot_id, since=self._sees_since, now=utc_now())
        self._say(t.ModelTopic(*self._me), told)

    def _report(self, *, again: bool = False) -> None:
        """Say what became of the wish, if that has changed."""
        told = self._reported()
        if again or self.told is None or replace(told, at=self.told.at) != self.told:
            self.told = told
            if self.ready:
                self._say(t.ReportedTopic(*self._me), told)

    def _reported(self) -> Reported:
        asked, wish, active = self.asked, self.wish, self.state.active
        state, reason, refused = DesiredState.NONE if asked is None else DesiredState.APPLIED, "", dict[str, str]()
        bundle, update, due_at = None if active is None else active.digest, self.state.newest, None
        if self._unread:
            state, reason = DesiredState.REFUSED, self._unread
        elif wish is not None and self.behave is Behaviour.LIAR:
            bundle, update = wish.digest, claimed(wish, utc_now())
        elif wish is not None and wish.digest != bundle:
            answered = self._answer(wish)
            due_at, state, reason = (
                answered.due_at,
                answered.state,
                f"bundle: {answered.reason}" if answered.reason else "",
            )
            if state in {DesiredState.REFUSED, DesiredState.ROLLED_BACK}:
                refused = {"bundle": answered.reason}
        return Reported(
            revision=0 if asked is None else asked.revision,
            at=utc_now(),
            bundle=bundle,
            state=state,
            reason=reason,
            refused=refused,
            applied=asked.revision if asked is not None and asked.config is not None else None,
            boot_id=self.boot_id,
            due_at=due_at,
            update=update,
        )

    def _info(self) -> Info:
        info, active = super()._info(), self.state.active
        if active is None:
            return info
        ref = replace(
            info.bundle, name=active.name, version=active.version, release=active.release, digest=active.digest
        )
        return replace(info, bundle=ref)
