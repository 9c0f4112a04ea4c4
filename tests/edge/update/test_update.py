"""What a device decides about bundles, by rules and by every order of events."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tinysight_contract.errors import UpdateError
from tinysight_contract.updates import Code, Gate, Release, UpdateState
from tinysight_edge.update import update as u

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def release(number: int, project: str = "pets") -> Release:
    return Release(
        target=f"{project}/pets-{number}.0.0.bundle",
        digest=f"{number:064x}",
        size_bytes=1000,
        name="pets",
        version=f"{number}.0.0",
        release=number,
    )


def come(state: u.State, number: int, *, to: UpdateState = UpdateState.TRIAL) -> u.State:
    """A release that has come so far."""
    state = u.queue(state, release(number), NOW)
    if to is UpdateState.QUEUED:
        return state
    state = u.progress(state, NOW, UpdateState.DOWNLOADING)
    if to is UpdateState.DOWNLOADING:
        return state
    state = u.progress(state, NOW, UpdateState.VERIFIED, moved_bytes=1000, why_full="Nothing is active here.")
    if to is UpdateState.VERIFIED:
        return state
    state = u.attempt(state, NOW)
    return state if to is UpdateState.SELFTEST else u.tested(state, {}, NOW)


def running(*numbers: int) -> u.State:
    state = u.State()
    for number in numbers:
        state = come(state, number)
        if state.candidate is not None:
            state = u.confirm(u.attempt(state, NOW), {}, NOW)
    return state


def test_the_first_bundle_runs_once_it_has_passed_its_self_test_as_there_is_nothing_to_go_back_to() -> None:
    state = come(u.State(), 1)
    assert state.active == release(1)
    assert state.candidate is None
    assert state.last is not None
    assert state.last.state is UpdateState.CONFIRMED


def test_the_next_one_comes_on_trial_and_then_runs() -> None:
    state = come(running(1), 2)
    assert (state.active, state.candidate.state if state.candidate else None) == (release(1), UpdateState.TRIAL)
    gate = Gate(value=3.0, limit=20.0, ok=True)
    state = u.confirm(u.attempt(state, NOW), {"trial_p95_ms": gate}, NOW)
    assert (state.active, state.previous, state.floor) == (release(2), release(1), {"pets": 2})
    assert state.last is not None
    assert state.last.gates == {"trial_p95_ms": gate}


@pytest.mark.parametrize(
    ("to", "outcome"), [(UpdateState.VERIFIED, UpdateState.FAILED), (UpdateState.TRIAL, UpdateState.ROLLED_BACK)]
)
def test_a_bundle_that_takes_the_device_down_uses_up_its_attempts(to: UpdateState, outcome: UpdateState) -> None:
    state = come(running(1), 2, to=to)
    for number in range(u.MAX_ATTEMPTS):
        state = u.attempt(state, NOW)
        assert state.candidate is not None
        assert state.candidate.attempts == number + 1
    state = u.attempt(state, NOW)
    assert state.candidate is None
    assert state.active == release(1)
    assert state.last is not None
    assert (state.last.state, state.last.code) == (outcome, Code.CRASHED)
    assert [each.code for each in state.bad] == [Code.CRASHED]


def test_a_start_that_is_broken_off_on_purpose_does_not_count() -> None:
    state = u.attempt(come(running(1), 2), NOW)
    assert u.attempt(u.spare(state), NOW).candidate == state.candidate
    tested = u.attempt(u.attempt(come(running(1), 2, to=UpdateState.VERIFIED), NOW), NOW)
    spared = u.spare(tested)
    assert spared.candidate is not None
    assert (spared.candidate.state, spared.candidate.attempts) == (UpdateState.VERIFIED, 1)
    assert u.spare(spared) == spared, "who says so again takes nothing off"


@pytest.mark.parametrize("code", [Code.TAMPERED, Code.DISK, Code.NO_SPACE, Code.SUPERSEDED])
def test_what_is_the_disks_fault_is_not_held_against_a_bundle(code: Code) -> None:
    state = u.attempt(come(running(1), 2), NOW)
    state = u.end(state, NOW, UpdateState.ROLLED_BACK, code=code, reason="Not its fault.")
    assert u.refusal(state, release(2)) is None


def test_what_failed_here_is_not_taken_again_unless_a_person_asks() -> None:
    state = u.attempt(come(running(1), 2), NOW)
    state = u.end(state, NOW, UpdateState.ROLLED_BACK, code=Code.SLOW, reason="It is slow.")
    no = u.refusal(state, release(2))
    assert isinstance(no, UpdateError)
    assert no.code is Code.FAILED_BEFORE
    assert u.refusal(state, release(2), again=True) is None
    again = u.confirm(u.attempt(come(state, 2), NOW), {}, NOW)
    assert again.bad == []


def test_what_failed_on_its_way_may_come_again() -> None:
    state = come(running(1), 2, to=UpdateState.DOWNLOADING)
    state = u.end(state, NOW, UpdateState.FAILED, code=Code.UNREACHABLE, reason="Away.")
    assert u.refusal(state, release(2)) is None


def test_no_release_below_the_highest_that_ran_is_taken_and_a_roll_back_does_not_lower_that() -> None:
    state = running(1, 5)
    no = u.refusal(state, release(4))
    assert no is not None
    assert no.code is Code.TOO_OLD
    assert u.refusal(state, release(4, "birds")) is None, "each project counts for itself"
    back = u.roll_back(state, NOW)
    assert back is not None
    assert (back.active, back.previous) == (release(1), release(5))
    assert back.last is not None
    assert (back.last.state, back.last.code) == (UpdateState.ROLLED_BACK, Code.OPERATOR)
    assert [u.refusal(back, release(n)).code for n in (4, 5)] == [Code.TOO_OLD, Code.FAILED_BEFORE]  # type: ignore[union-attr]
    assert u.refusal(back, release(6)) is None


def test_there_is_no_way_back_from_the_first() -> None:
    assert u.roll_back(u.State(), NOW) is None
    assert u.roll_back(running(1), NOW) is None


def test_a_newer_wish_takes_the_place_of_an_unfinished_one_and_the_same_goes_on() -> None:
    state = come(running(1), 2, to=UpdateState.DOWNLOADING)
    assert u.queue(state, release(2), NOW + timedelta(1)) == state
    newer = u.queue(state, release(3), NOW)
    assert newer.candidate is not None
    assert newer.candidate.bundle == release(3)
    assert newer.last is not None
    assert newer.last.code is Code.SUPERSEDED
    assert u.refusal(newer, release(2)) is None


def test_when_the_active_file_is_lost_the_one_before_runs() -> None:
    state = running(1, 2)
    assert u.recover(state, NOW, whole={release(2).digest}) == state
    mended = u.recover(state, NOW, whole={release(1).digest})
    assert (mended.active, mended.previous) == (release(1), None)
    assert mended.last is not None
    assert mended.last.code is Code.TAMPERED
    assert u.refusal(mended, release(2)) is None, "the disk was bad, not the bundle"
    assert u.recover(state, NOW, whole=set()).active is None


def test_the_list_of_what_failed_does_not_grow_for_ever() -> None:
    state = running(1)
    for number in range(2, 2 + 2 * u.MAX_BAD):
        failed = come(state, number)
        state = u.end(u.attempt(failed, NOW), NOW, UpdateState.FAILED, code=Code.WRONG, reason="wrong")
    assert len(state.bad) == u.MAX_BAD
    assert state.bad[-1].digest == release(1 + 2 * u.MAX_BAD).digest


class Device(RuleBasedStateMachine):
    """Anything may happen in any order; what runs has always passed its tests."""

    def __init__(self) -> None:
        super().__init__()
        self.state = u.State()
        self.tested: set[str] = set()
        self.highest = 0

    def keep(self, state: u.State) -> None:
        raw = msgspec.json.encode(state)
        assert msgspec.json.decode(raw, type=u.State) == state, "it survives the disk"
        self.state = state

    def coming(self, *states: UpdateState) -> bool:
        return self.state.candidate is not None and self.state.candidate.state in states

    @rule(number=st.integers(1, 6), again=st.booleans())
    def ask(self, number: int, again: bool) -> None:
        if u.refusal(self.state, release(number), again=again) is None:
            self.keep(u.queue(self.state, release(number), NOW))

    @precondition(lambda self: self.coming(UpdateState.QUEUED, UpdateState.DOWNLOADING))
    @rule()
    def arrives(self) -> None:
        self.keep(u.progress(self.state, NOW, UpdateState.VERIFIED))

    @precondition(lambda self: self.coming(UpdateState.VERIFIED, UpdateState.SELFTEST, UpdateState.TRIAL))
    @rule(how=st.sampled_from(["good", "bad", "crash", "stop"]))
    def tries(self, how: str) -> None:
        trial = self.coming(UpdateState.TRIAL)
        self.keep(u.attempt(self.state, NOW))
        coming: Any = self.state.candidate
        if coming is None or how == "crash":
            return
        if how == "stop":
            self.keep(u.spare(self.state))
        elif how == "bad":
            outcome = UpdateState.ROLLED_BACK if trial else UpdateState.FAILED
            self.keep(u.end(self.state, NOW, outcome, code=Code.WRONG, reason="wrong"))
        elif trial:
            self.keep(u.confirm(self.state, {}, NOW))
        else:
            self.tested.add(coming.bundle.digest)
            self.keep(u.tested(self.state, {}, NOW))
        if self.state.last is not None and self.state.last.state is UpdateState.CONFIRMED and self.state.active:
            self.highest = max(self.highest, self.state.active.release)

    @rule()
    def goes_back(self) -> None:
        if (back := u.roll_back(self.state, NOW)) is not None:
            self.keep(back)

    @invariant()
    def what_runs_was_tested(self) -> None:
        for each in (self.state.active, self.state.previous):
            assert each is None or each.digest in self.tested

    @invariant()
    def the_floor_never_falls(self) -> None:
        assert self.state.floor.get("pets", 0) == self.highest

    @invariant()
    def a_device_that_ran_once_runs(self) -> None:
        assert self.state.active is not None or self.highest == 0

    @invariant()
    def attempts_are_bounded(self) -> None:
        assert self.state.candidate is None or self.state.candidate.attempts <= u.MAX_ATTEMPTS


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_every_code_and_state_is_explained() -> None:
    page = (Path(__file__).parents[3] / "docs" / "updates.md").read_text()
    for word in (*Code, *UpdateState):
        assert f"| `{word.value}` |" in page
